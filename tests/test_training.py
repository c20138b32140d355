"""Properties of the losses, the loop and its checkpoints."""

import dataclasses
import json
import math
import shutil

import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional as F
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.testing import assert_close
from torch.utils.data import Dataset

from captionlib.config import EngineConfig, ModelConfig
from captionlib.data import Vocabulary
from captionlib.decoder import DecoderWithAttention
from captionlib.engine.averaging import WeightAverage
from captionlib.engine.batches import Batches, make_loader
from captionlib.engine.loop import train
from captionlib.engine.processes import Processes
from captionlib.io.files import InputError
from captionlib.model import CaptionModel
from captionlib.training import (
    caption_loss,
    make_optimizer,
    rate_factor,
    stale_epochs,
)

CONFIG = ModelConfig(
    attention_dim=13, embed_dim=7, decoder_dim=11, feature_dropout=0.1
)
WORDS = [f"word{i}" for i in range(23)]
SETTINGS = EngineConfig(
    epochs=4, batch_size=3, learning_rate=1e-2, schedule="one_cycle", seed=1
)


class FewFeatures(Dataset):
    """Eight images' features, each with two captions: what FeatureDataset gives, in memory."""

    def __init__(self):
        generator = torch.Generator().manual_seed(0)
        self.vocabulary = Vocabulary.build([WORDS], min_word_freq=1)
        self.features = torch.randn(8, 6, 1280, generator=generator).half()
        self.captions = torch.randint(1, 20, (8, 2, 9), generator=generator)
        self.lengths = torch.randint(3, 10, (8, 2), generator=generator)

    def __len__(self):
        return 8

    def __getitem__(self, i):
        return self.features[i], self.captions[i], self.lengths[i]


def make_model(seed=1):
    torch.manual_seed(seed)
    return CaptionModel(CONFIG, FewFeatures().vocabulary)


def run(
    folder, settings=SETTINGS, scores=lambda epoch: float(epoch), **options
):
    """Train a small model; `scores` gives epoch n's BLEU-4."""
    model, done = make_model(), []

    def evaluate(model):
        assert not model.training
        done.append(1)
        return {"bleu4": scores(len(done))}

    loader = make_loader(FewFeatures(), settings)
    history = train(
        model, loader, evaluate, settings, folder, progress=False, **options
    )
    return model, history


def assert_same_weights(one, other):
    for name, weight in one.state_dict().items():
        assert torch.equal(weight, other.state_dict()[name]), name


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
    config = EngineConfig(schedule="plateau", decay=0.8, decay_after=8)
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


@pytest.mark.parametrize(
    "setting",
    [
        {"epochs": 0},
        {"schedule": "cosine"},
        {"learning_rate": 0.0},
        {"label_smoothing": 1.0},
        {"learning_rate": math.nan},
        {"weight_decay": -0.1},
        {"averaging": 1.0},
    ],
)
def test_settings_are_checked(setting):
    with pytest.raises(ValueError, match=next(iter(setting))):
        EngineConfig(**setting)


# The loop


def test_training_learns_and_writes_everything_down(tmp_path):
    model, history = run(tmp_path, dataclasses.replace(SETTINGS, epochs=10))
    assert history[-1]["nats"] < 0.97 * history[0]["nats"]
    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")
    lines = (tmp_path / "log.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == history
    assert_same_weights(
        CaptionModel.load(tmp_path), model
    )  # the last epoch was the best
    metrics = CaptionModel.load(tmp_path / "best").metrics["training"]
    assert metrics["seed"] == 1 and metrics["epoch"] == 10


def test_report_55_90_97_the_same_seed_gives_the_same_weights(tmp_path):
    one, _ = run(tmp_path / "one")
    two, _ = run(tmp_path / "two")
    other, _ = run(tmp_path / "other", dataclasses.replace(SETTINGS, seed=2))
    assert_same_weights(one, two)
    assert not torch.equal(one.decoder.fc.weight, other.decoder.fc.weight)
    stored = json.loads(
        (tmp_path / "one" / "last" / "training.json").read_text()
    )
    assert stored["config"] == dataclasses.asdict(SETTINGS)
    versions = json.loads(
        (tmp_path / "one" / "best" / "config.json").read_text()
    )["versions"]
    assert torch.__version__.startswith(versions["torch"])


@pytest.mark.parametrize("averaging", [0.0, 0.9])
def test_report_49_61_144_resume_is_exact_and_keeps_the_best(
    tmp_path, averaging
):
    settings = dataclasses.replace(
        SETTINGS, averaging=averaging, weight_decay=0.1
    )
    scores = [5.0, 9.0, 3.0, 4.0]
    unbroken, expected = run(
        tmp_path / "unbroken", settings, lambda epoch: scores[epoch - 1]
    )

    def power_cut(epoch):
        if epoch == 3:
            raise KeyboardInterrupt
        return scores[epoch - 1]

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "cut", settings, power_cut)
    best_before = CaptionModel.load(tmp_path / "cut" / "best").state_dict()
    resumed, history = run(
        tmp_path / "cut", settings, lambda epoch: scores[epoch + 1], resume=True
    )
    assert_same_weights(resumed, unbroken)
    if averaging:
        ends = [
            load_file(tmp_path / name / "last/average.safetensors")
            for name in ("unbroken", "cut")
        ]
        assert ends[0]["updates"] == 12 and ends[0].keys() == ends[1].keys()
        assert all(
            torch.equal(ends[0][name], ends[1][name]) for name in ends[0]
        )
    untimed = [
        {key: value for key, value in row.items() if "seconds" not in key}
        for row in history
    ]
    for row, want in zip(untimed, expected, strict=True):
        assert row == {key: want[key] for key in row}
    best = CaptionModel.load(tmp_path / "cut" / "best")
    assert (
        best.metrics["training"]["epoch"] == 2
    )  # not overwritten by a worse one
    for name, weight in best.state_dict().items():
        assert torch.equal(weight, best_before[name])


def test_what_is_judged_and_kept_is_the_average(tmp_path):
    judged = []

    def evaluate(model):
        judged.append(
            {
                name: weight.clone()
                for name, weight in model.state_dict().items()
            }
        )
        return {"bleu4": 1.0}  # the first epoch stays the best

    settings = dataclasses.replace(SETTINGS, averaging=0.9)
    model = make_model()
    start = {
        name: weight.clone() for name, weight in model.state_dict().items()
    }
    train(
        model,
        make_loader(FewFeatures(), settings),
        evaluate,
        settings,
        tmp_path,
        progress=False,
    )
    best = CaptionModel.load(tmp_path / "best").state_dict()
    last = CaptionModel.load(tmp_path / "last").state_dict()
    for name in best:
        assert torch.equal(best[name], judged[0][name])
        assert torch.equal(
            last[name], model.state_dict()[name]
        )  # training goes on without it
    assert not torch.equal(
        judged[-1]["decoder.fc.weight"], last["decoder.fc.weight"]
    )

    plain = make_model()  # the same weights are trained, averaged or not
    settings = dataclasses.replace(SETTINGS)
    train(
        plain,
        make_loader(FewFeatures(), settings),
        evaluate,
        settings,
        tmp_path / "plain",
    )
    assert_same_weights(plain, model)
    assert not torch.equal(
        start["decoder.fc.weight"], best["decoder.fc.weight"]
    )


def test_the_average_is_that_of_torch():
    model = make_model()
    average = WeightAverage(model, 0.8)
    reference = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.8))
    reference.update_parameters(model)  # torch's first update copies
    average.updates = 1000  # past the beginning, where ours forgets faster
    for _ in range(5):
        with torch.no_grad():
            for weight in model.decoder.parameters():
                weight.add_(torch.randn_like(weight))
        average.update()
        reference.update_parameters(model)
    with average:
        for ours, theirs in zip(
            model.decoder.parameters(),
            reference.module.decoder.parameters(),
            strict=True,
        ):
            assert_close(ours, theirs)


def test_weight_decay_shrinks_what_has_no_gradient(tmp_path):
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


def test_resume_after_the_end_changes_nothing(tmp_path):
    _, expected = run(tmp_path)
    before = (tmp_path / "last" / "model.safetensors").read_bytes()
    _, history = run(tmp_path, resume=True)
    assert history == expected
    assert (tmp_path / "last" / "model.safetensors").read_bytes() == before


def test_resume_with_nothing_there_starts_from_the_beginning(tmp_path):
    _, history = run(tmp_path / "new", resume=True)
    assert len(history) == 4


def test_a_second_training_does_not_overwrite_the_first(tmp_path):
    run(tmp_path)
    with pytest.raises(InputError, match="holds a training run already"):
        run(tmp_path)


def test_resume_with_other_settings_says_which(tmp_path):
    run(tmp_path)
    with pytest.raises(InputError, match="learning_rate=0.01, not 0.1"):
        run(
            tmp_path,
            dataclasses.replace(SETTINGS, learning_rate=0.1),
            resume=True,
        )


def test_early_stopping_waits_for_patience(tmp_path):
    settings = dataclasses.replace(
        SETTINGS, epochs=30, patience=3, schedule="plateau"
    )
    _, history = run(
        tmp_path,
        settings,
        scores=lambda epoch: [1.0, 2.0, 3.0, 2.5][min(epoch, 4) - 1],
    )
    assert len(history) == 6


def test_a_loss_that_is_not_finite_names_its_step_and_spoils_nothing(tmp_path):
    class Spoiled(FewFeatures):
        def __init__(self):
            super().__init__()
            self.features[:] = math.inf

    model = make_model()
    before = {
        name: weight.clone() for name, weight in model.state_dict().items()
    }
    with pytest.raises(FloatingPointError, match="epoch 1, step 1"):
        train(
            model,
            make_loader(Spoiled(), SETTINGS),
            dict,
            SETTINGS,
            tmp_path,
            progress=False,
        )
    assert all(
        torch.equal(weight, before[name])
        for name, weight in model.state_dict().items()
    )


def test_gradients_are_clipped_together(tmp_path):
    settings = dataclasses.replace(SETTINGS, max_grad_norm=1e-9, epochs=1)
    model, _ = run(tmp_path, settings)
    norms = [weight.grad.norm() for weight in model.decoder.parameters()]
    assert torch.stack(norms).norm() <= 1.001e-9


def test_only_the_weights_that_may_move_do(tmp_path):
    before = make_model()
    model, _ = run(tmp_path, dataclasses.replace(SETTINGS, epochs=1))
    assert_same_weights(model.encoder, before.encoder)
    assert not torch.equal(model.decoder.fc.weight, before.decoder.fc.weight)


def test_second_stage_trains_the_encoder_at_its_own_rate(tmp_path):
    class FewImages(FewFeatures):
        def __init__(self):
            super().__init__()
            generator = torch.Generator().manual_seed(3)
            self.features = torch.randint(
                256, (8, 3, 64, 64), dtype=torch.uint8, generator=generator
            )

        def __len__(self):
            return 4

    settings = dataclasses.replace(
        SETTINGS,
        epochs=1,
        batch_size=2,
        fine_tune_encoder=True,
        encoder_learning_rate=1e-3,
    )
    model = make_model()
    before = {
        name: tensor.clone()
        for name, tensor in model.encoder.state_dict().items()
    }
    train(
        model,
        make_loader(FewImages(), settings),
        lambda model: {"bleu4": 1.0},
        settings,
        tmp_path,
        progress=False,
    )
    changed = {
        name
        for name, tensor in model.encoder.state_dict().items()
        if not torch.equal(tensor, before[name])
    }
    free = {
        name
        for name, weight in model.encoder.named_parameters()
        if weight.requires_grad
    }
    assert changed and changed <= free  # so no running statistics
    assert_same_weights(CaptionModel.load(tmp_path).encoder, model.encoder)


def test_bfloat16_trains_too(tmp_path):
    settings = dataclasses.replace(SETTINGS, epochs=10, bf16=True)
    model, history = run(tmp_path, settings)
    assert history[-1]["nats"] < history[0]["nats"]
    assert {weight.dtype for weight in model.parameters()} == {torch.float32}


class TwoViews(FewFeatures):
    """The same images twice, as `FeatureDataset` has those of a mirror."""

    views = ("plain", "mirrored")

    def __len__(self):
        return 16

    def __getitem__(self, i):
        view, image = divmod(i, 8)
        return (-self.features if view else self.features)[
            image
        ], *super().__getitem__(image)[1:]


def test_workers_change_nothing(tmp_path):
    settings = dataclasses.replace(SETTINGS, epochs=2)
    models = [make_model(), make_model()]
    for model, workers in zip(models, (0, 2), strict=True):
        loader = make_loader(TwoViews(), settings, num_workers=workers)
        assert len(loader) == 3
        to = tmp_path / str(workers)
        train(
            model,
            loader,
            lambda model: {"bleu4": 1.0},
            settings,
            to,
            progress=False,
        )
    assert_same_weights(*models)


def test_compiled_layers_compute_the_same(tmp_path):
    if shutil.which("g++") is None:
        pytest.skip(
            "torch.compile needs a C++ compiler, and there is no g++ here"
        )
    settings = dataclasses.replace(SETTINGS, epochs=1, batch_size=8)  # one step
    plain, expected = run(tmp_path / "plain", settings)
    compiled, history = run(
        tmp_path / "compiled", dataclasses.replace(settings, compile=True)
    )
    assert history[0]["nats"] == pytest.approx(expected[0]["nats"], rel=1e-5)
    assert plain.state_dict().keys() == compiled.state_dict().keys()
    # Gradients and not weights: Adam's first step has one length, however small the gradient is.
    one, other = (
        torch.cat(
            [weight.grad.flatten() for weight in model.decoder.parameters()]
        )
        for model in (plain, compiled)
    )
    assert (one - other).norm() < 1e-4 * one.norm()
    assert compiled.decoder.attention._compiled_call_impl is not None


# Batches


def test_batches_show_each_image_once_and_are_as_equal_as_can_be():
    batches = Batches(11, 4)
    assert len(batches) == 3 and sorted(map(len, batches)) == [3, 4, 4]
    assert sorted(sum(batches, [])) == list(range(11))
    assert list(batches) == list(batches)
    first = list(batches)
    batches.begin(seed=1)
    assert list(batches) != first


def test_batches_can_be_begun_in_the_middle():
    batches = Batches(11, 4, views=3)
    whole = list(batches)
    batches.begin(seed=0, skip=2)
    assert list(batches) == whole[2:] and len(batches) == 3
    batches.begin(seed=0, skip=3)
    assert list(batches) == []


def test_batches_draw_each_images_view():
    batches, seen = Batches(5, 2, views=3), set()
    for seed in range(60):
        batches.begin(seed)
        items = sum(batches, [])
        assert sorted(item % 5 for item in items) == list(range(5))
        seen.update(items)
    assert seen == set(range(15))


def test_processes_share_each_batch():
    pair = [Processes() for _ in range(2)]
    for number, process in enumerate(pair):
        process.number, process.count = number, 2
    whole = list(Batches(11, 4))
    halves = [list(Batches(11, 4, processes=process)) for process in pair]
    for batch, one, other in zip(whole, *halves, strict=True):
        assert (
            sorted(one + other) == sorted(batch)
            and 0 <= len(one) - len(other) <= 1
        )
    with pytest.raises(
        InputError, match="batches of 1 images can't be shared by 2 processes"
    ):
        Batches(11, 1, processes=pair[0])
