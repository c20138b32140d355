"""Chapter 05's module: the loss, the rates, the plain loop and its checkpoint."""

import dataclasses
import math
import pickle

import pytest
import torch
from torch.nn import functional as F
from torch.nn.utils.rnn import pack_padded_sequence
from torch.testing import assert_close
from torch.utils.data import DataLoader

from captionlib.config import ModelConfig, TrainConfig
from captionlib.decoder import DecoderOutput, DecoderWithAttention
from captionlib.model import CaptionModel
from captionlib.training import (
    caption_loss,
    epoch_loader,
    is_over,
    load_checkpoint,
    make_optimizer,
    rate_factor,
    save_checkpoint,
    seed_of,
    set_rates,
    stale_epochs,
    train,
    train_one_epoch,
    update,
    validation_nats,
)
from tests.small_training import (
    FewFeatures,
    assert_same_weights,
    make_model,
    weights_of,
)

SETTINGS = TrainConfig(
    epochs=4, batch_size=3, learning_rate=1e-2, schedule="one_cycle", seed=1
)


def with_scores(*scores):
    """An `evaluate` that gives these, one an epoch; an exception is raised."""
    left = iter(scores)

    def evaluate(model):
        assert not model.training
        score = next(left)
        if isinstance(score, type):
            raise score
        return {"bleu4": score}

    return evaluate


# The loss


@pytest.fixture
def output():
    torch.manual_seed(0)
    decoder = DecoderWithAttention(3, 5, 7, 11, encoder_dim=13, dropout=0.0)
    captions = torch.randint(11, (4, 8))
    return decoder(torch.randn(4, 6, 13), captions, torch.tensor([5, 8, 2, 3]))


def test_the_loss_is_cross_entropy_over_real_tokens(output):
    loss = caption_loss(output, alpha_c=0.0)
    logits, targets = output.logits.data, output.targets.data
    assert_close(loss.total, F.cross_entropy(logits, targets))
    assert_close(loss.nats, loss.total.detach())
    smoothed = caption_loss(output, alpha_c=0.0, label_smoothing=0.2)
    assert_close(
        smoothed.total, F.cross_entropy(logits, targets, label_smoothing=0.2)
    )
    assert_close(smoothed.nats, loss.nats)


def test_the_penalty_is_the_mean_square_of_what_is_missing_to_one(output):
    loss = caption_loss(output, alpha_c=2.0)
    total = sum(
        (1 - sum(output.alphas[i, t, p] for t in range(7))) ** 2
        for i in range(4)
        for p in range(6)
    )
    assert_close(loss.penalty, (total / 24).detach())
    assert_close(loss.total.detach(), loss.nats + 2 * loss.penalty)


def test_the_loss_by_hand():
    """Two captions of two steps and one, three words, two grid cells."""
    probabilities = torch.tensor(
        [[[0.5, 0.25, 0.25], [0.8, 0.1, 0.1]], [[0.2, 0.4, 0.4], [9, 9, 9]]]
    )
    targets, steps = torch.tensor([[0, 1], [2, 0]]), torch.tensor([2, 1])
    packed = [
        pack_padded_sequence(part, steps, batch_first=True)
        for part in (probabilities.log(), targets)
    ]
    alphas = torch.tensor([[[0.5, 0.5], [0.9, 0.1]], [[1.0, 0.0], [0.0, 0.0]]])
    loss = caption_loss(DecoderOutput(*packed, alphas), alpha_c=2.0)
    nats = -(math.log(0.5) + math.log(0.1) + math.log(0.4)) / 3
    penalty = (0.4**2 + 0.4**2 + 0.0**2 + 1.0**2) / 4
    assert loss.nats == pytest.approx(nats)
    assert loss.penalty == pytest.approx(penalty)
    assert loss.total == pytest.approx(nats + 2 * penalty)


def test_counts_make_a_share_of_a_larger_batch(output):
    """Half of a batch's sums over all of its counts: two such parts add up to its loss."""
    part = caption_loss(output, 1.0, 0.1, tokens=30.0, captions=8.0)
    whole = caption_loss(output, 1.0, 0.1)
    tokens = len(output.targets.data)
    assert_close(part.nats * 30, whole.nats * tokens)
    assert_close(part.penalty * 8, whole.penalty * 4)
    rest = whole.total - whole.penalty
    assert_close(part.total - part.penalty, rest * tokens / 30)


def test_padding_changes_nothing():
    torch.manual_seed(0)
    decoder = DecoderWithAttention(3, 5, 7, 11, encoder_dim=13, dropout=0.0)
    captions, lengths = torch.randint(11, (4, 8)), torch.tensor([5, 6, 2, 3])
    grid = torch.randn(4, 6, 13)
    one = caption_loss(decoder(grid, captions, lengths))
    padded = torch.cat([captions, torch.randint(11, (4, 3))], dim=1)
    other = caption_loss(decoder(grid, padded, lengths))
    assert_close(one, other)


def test_looking_everywhere_once_costs_nothing(output):
    even = output._replace(alphas=torch.full((4, 7, 6), 1 / 7))
    assert_close(
        caption_loss(even).penalty, torch.tensor(0.0), atol=1e-6, rtol=0
    )


# Rates


def test_one_cycle_climbs_to_the_full_rate_and_sinks_to_nothing():
    factors = [rate_factor(SETTINGS, [], step / 100) for step in range(101)]
    assert (
        max(factors) == pytest.approx(1.0) and factors.index(max(factors)) == 30
    )
    assert factors[0] == pytest.approx(0.04) and factors[-1] == pytest.approx(
        0.0
    )
    assert (
        factors[:31] == sorted(factors[:31])
        and factors[30:] == sorted(factors[30:])[::-1]
    )


def test_plateau_cuts_after_every_eight_stale_epochs():
    config = TrainConfig(schedule="plateau", decay=0.8, decay_after=8)
    history = [
        {"bleu4": score}
        for score in [1.0, 2.0] + [1.5] * 16 + [3.0] + [2.0] * 7
    ]
    factor = [
        rate_factor(config, history[:n], 0.5) for n in range(len(history) + 1)
    ]
    assert factor[:10] == [1.0] * 10
    assert factor[10:18] == [0.8] * 8
    assert factor[18:] == pytest.approx(
        [0.64] * len(factor[18:])
    )  # a new best undoes no cut


def test_stale_epochs_counts_from_the_first_best():
    assert stale_epochs([]) == 0
    assert stale_epochs([{"bleu4": 1.0}]) == 0
    assert stale_epochs([{"bleu4": 2.0}, {"bleu4": 2.0}, {"bleu4": 1.0}]) == 2


def test_patience_ends_a_training_and_so_do_its_epochs():
    config = TrainConfig(epochs=5, patience=2)
    scores = [{"bleu4": score} for score in (1.0, 2.0, 1.5, 2.0, 3.0)]
    assert [is_over(config, scores[:n]) for n in range(6)] == [
        False, False, False, False, True, True,
    ]  # fmt: skip


def test_set_rates_changes_what_the_optimizer_uses():
    model = make_model()
    model.fine_tune_encoder()
    config = dataclasses.replace(SETTINGS, encoder_learning_rate=1e-3)
    optimizer = make_optimizer(model, config)
    full = [group["lr"] for group in optimizer.param_groups]
    assert full == [1e-2, 1e-3]
    decoder, encoder = (group["params"] for group in optimizer.param_groups)
    assert {*map(id, decoder)} >= {*map(id, model.decoder.parameters())}
    assert {*map(id, encoder)} <= {*map(id, model.encoder.parameters())}
    for factor in (0.5, 0.25, 1.0):  # of the full rates, not of the last ones
        set_rates(optimizer, factor)
        rates = [group["lr"] for group in optimizer.param_groups]
        assert rates == [factor * 1e-2, factor * 1e-3]


def test_a_rate_of_nothing_moves_nothing():
    model = make_model()
    optimizer, before = make_optimizer(model, SETTINGS), weights_of(model)
    for weight in model.decoder.parameters():
        weight.grad = torch.ones_like(weight)
    set_rates(optimizer, 0.0)
    optimizer.step()
    assert all(
        torch.equal(weight, before[name])
        for name, weight in model.state_dict().items()
    )


# One step and one epoch


def test_seeds_depend_on_every_part_of_a_place():
    places = [(0,), (0, 0), (0, 1), (1, 0), (0, 0, 0), (0, 1, 0), (10,)]
    assert len({seed_of(*place) for place in places}) == len(places)
    assert seed_of(3, 5) == seed_of(3, 5)


def test_an_epoch_shows_each_image_once_in_an_order_of_its_own():
    epochs = [
        [batch.tolist() for batch in epoch_loader(range(8), SETTINGS, epoch)]
        for epoch in (0, 0, 1)
    ]
    assert [len(batch) for batch in epochs[0]] == [3, 3, 2]
    assert sorted(sum(epochs[0], [])) == list(range(8))
    assert epochs[0] == epochs[1] != epochs[2]
    other = dataclasses.replace(SETTINGS, seed=2)
    assert [b.tolist() for b in epoch_loader(range(8), other, 0)] != epochs[0]


def test_gradients_are_clipped_together_and_begin_at_nothing():
    model = make_model()
    config = dataclasses.replace(SETTINGS, max_grad_norm=1e-3)
    optimizer = make_optimizer(model, config)
    loss = sum(weight.sum() for weight in model.decoder.parameters())
    for _ in range(2):
        update(model, loss, optimizer, config)
        loss = sum(weight.sum() for weight in model.decoder.parameters())
        norms = [weight.grad.norm() for weight in model.decoder.parameters()]
        assert torch.stack(norms).norm() == pytest.approx(1e-3, rel=1e-3)
    count = sum(weight.numel() for weight in model.decoder.parameters())
    update(
        model, loss, optimizer, dataclasses.replace(config, max_grad_norm=1e9)
    )
    gradients = [weight.grad for weight in model.decoder.parameters()]
    assert all((gradient == 1).all() for gradient in gradients) and count


def test_weight_decay_shrinks_what_has_no_gradient():
    settings = dataclasses.replace(SETTINGS, weight_decay=0.5)
    model = make_model()
    optimizer = make_optimizer(model, settings)
    before = {name: weight.clone() for name, weight in model.named_parameters()}
    for weight in model.parameters():
        weight.grad = torch.zeros_like(weight) if weight.requires_grad else None
    optimizer.step()
    for name, weight in model.named_parameters():
        factor = 1 - 0.5 * settings.learning_rate if weight.requires_grad else 1
        assert_close(weight, factor * before[name])


def test_one_batch_can_be_overfitted():
    dataset = FewFeatures()
    dataset.captions[:, 1] = dataset.captions[:, 0]
    dataset.lengths[:, 1] = dataset.lengths[:, 0]
    torch.manual_seed(0)
    shape = ModelConfig(
        attention_dim=8, embed_dim=16, decoder_dim=64, dropout=0.0
    )
    model = CaptionModel(shape, dataset.vocabulary)
    config = TrainConfig(epochs=60, batch_size=8, learning_rate=2e-2)
    optimizer, history = make_optimizer(model, config), []
    loader = epoch_loader(dataset, config, 0)
    assert len(loader) == 1
    for epoch in range(60):
        nats = train_one_epoch(model, loader, optimizer, config, history)
        history.append({"bleu4": float(epoch), "nats": nats})
    assert history[0]["nats"] > 3 and history[-1]["nats"] < 0.05


def test_an_epochs_nats_are_a_mean_over_its_words():
    """At a rate of next to nothing they are those of all images in one batch."""
    model = make_model()
    for layer in model.modules():
        if isinstance(layer, torch.nn.Dropout):
            layer.p = 0.0
    config = dataclasses.replace(SETTINGS, learning_rate=1e-12)
    dataset = FewFeatures()
    loader = epoch_loader(dataset, config, 0)
    nats = train_one_epoch(
        model, loader, make_optimizer(model, config), config, []
    )
    captions, lengths = dataset.captions, dataset.lengths
    output = model(dataset.features, captions.flatten(0, 1), lengths.flatten())
    expected = F.cross_entropy(output.logits.data, output.targets.data)
    assert nats == pytest.approx(expected.item(), rel=1e-5)
    for batch_size in (1, 3, 8):
        found = validation_nats(model, DataLoader(dataset, batch_size))
        assert found == pytest.approx(expected.item(), rel=1e-5)


def test_validation_drops_nothing_out_and_learns_nothing():
    model = make_model().train()
    before, loader = weights_of(model), DataLoader(FewFeatures(), 3)
    assert validation_nats(model, loader) == validation_nats(model, loader)
    assert not model.training
    assert all(
        torch.equal(weight, before[name])
        for name, weight in model.state_dict().items()
    )


def test_a_loss_that_is_not_finite_names_its_step_and_spoils_nothing():
    model, dataset = make_model(), FewFeatures()
    loader = epoch_loader(dataset, SETTINGS, 2)
    last = [*loader.sampler][-1]  # of the third batch
    dataset.features[last] = math.inf
    optimizer, history = make_optimizer(model, SETTINGS), [{"bleu4": 1.0}] * 2
    with pytest.raises(
        FloatingPointError, match="epoch 3, step 3: the loss is"
    ):
        train_one_epoch(model, loader, optimizer, SETTINGS, history)
    assert all(weight.isfinite().all() for weight in model.parameters())


# A whole training


def test_early_stopping_waits_for_patience_and_the_best_is_kept(tmp_path):
    config = dataclasses.replace(
        SETTINGS, epochs=30, patience=3, schedule="plateau"
    )
    seen = []
    scored = with_scores(1.0, 2.0, 3.0, 2.5, 3.0, 2.9)

    def evaluate(model):
        seen.append(weights_of(model))
        return scored(model)

    model = make_model()
    history = train(model, FewFeatures(), evaluate, config, tmp_path)
    assert [row["epoch"] for row in history] == [1, 2, 3, 4, 5, 6]
    assert all(row["nats"] > 0 for row in history)
    best = CaptionModel.load(tmp_path / "best").state_dict()
    for name, weight in best.items():
        assert torch.equal(weight, seen[2][name]), name
    assert not torch.equal(
        seen[2]["decoder.fc.weight"], model.decoder.fc.weight
    )


@pytest.mark.parametrize("schedule", ["one_cycle", "plateau"])
def test_resumed_after_an_epoch_it_ends_as_if_it_had_never_stopped(
    tmp_path, schedule
):
    config = dataclasses.replace(SETTINGS, schedule=schedule, decay_after=1)
    scores = [2.0, 1.0, 3.0, 1.0]
    whole = make_model()
    expected = train(
        whole, FewFeatures(), with_scores(*scores), config, tmp_path / "whole"
    )
    folder = tmp_path / "cut"
    with pytest.raises(KeyboardInterrupt):
        evaluate = with_scores(*scores[:2], KeyboardInterrupt)
        train(make_model(), FewFeatures(), evaluate, config, folder)
    resumed = make_model(seed=5)  # whatever was in memory
    evaluate = with_scores(*scores[2:])
    history = train(resumed, FewFeatures(), evaluate, config, folder)
    assert history == expected
    assert_same_weights(resumed, whole)
    assert_same_weights(
        CaptionModel.load(folder / "best"),
        CaptionModel.load(tmp_path / "whole" / "best"),
    )


def test_a_checkpoint_brings_back_weights_moments_and_history(tmp_path):
    model = make_model()
    optimizer = make_optimizer(model, SETTINGS)
    loader = epoch_loader(FewFeatures(), SETTINGS, 0)
    train_one_epoch(model, loader, optimizer, SETTINGS, [])
    save_checkpoint(tmp_path / "x.pt", model, optimizer, [{"bleu4": 1.5}])
    other = make_model(seed=2)
    fresh = make_optimizer(other, SETTINGS)
    assert load_checkpoint(tmp_path / "x.pt", other, fresh) == [{"bleu4": 1.5}]
    assert_same_weights(other, model)
    assert_close(fresh.state_dict(), optimizer.state_dict(), rtol=0, atol=0)


def test_only_the_weights_that_may_move_do(tmp_path):
    before, model = make_model(), make_model()
    config = dataclasses.replace(SETTINGS, epochs=1)
    train(model, FewFeatures(), with_scores(1.0), config, tmp_path)
    assert_same_weights(model.encoder, before.encoder)
    assert not torch.equal(model.decoder.fc.weight, before.decoder.fc.weight)


def test_by_default_the_penalty_counts_once(output):
    loss = caption_loss(output)
    assert_close(loss.total.detach(), loss.nats + loss.penalty)


def test_a_training_makes_its_folder(tmp_path):
    once = dataclasses.replace(SETTINGS, epochs=1)
    folder = tmp_path / "not" / "there"
    train(make_model(), FewFeatures(), with_scores(1.0), once, folder)
    assert (folder / "last.pt").is_file()


class Command:
    def __reduce__(self):
        return print, ("run",)


def test_a_checkpoint_runs_no_code(tmp_path, capsys):
    torch.save({"model": Command()}, tmp_path / "last.pt")
    model = make_model()
    with pytest.raises(pickle.UnpicklingError):
        load_checkpoint(
            tmp_path / "last.pt", model, make_optimizer(model, SETTINGS)
        )
    assert not capsys.readouterr().out
