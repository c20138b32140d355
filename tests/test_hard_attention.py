"""Hard attention: the estimate is right on average, and eval mode is soft attention."""

import itertools
import json
from dataclasses import replace

import pytest
import torch
from torch import nn

from captionlib.attention import Attention
from captionlib.beam_search import beam_search
from captionlib.config import ModelConfig, SearchConfig
from captionlib.data import Vocabulary
from captionlib.decoder import DecoderWithAttention
from captionlib.encoder import Encoder
from captionlib.grounding import read
from captionlib.hard_attention import (
    HardAttention,
    HardObjective,
    hard_loss,
    words_to_come,
)
from captionlib.model import CaptionModel
from captionlib.toy.world import CONFIG, plain_loss
from captionlib.training import caption_loss
from tools.experiments import __main__ as experiments
from tools.experiments.hard_attention import whole_caption

# ------------------------------------------------------------------- the estimate, and the bound

P, WORDS = 4, 2  # cells of the grid; words after <start>, `<end>` among them


class Led(HardAttention):
    """Draws what it is told, step by step: cells (steps, N)."""

    def lead(self, cells) -> None:
        self.cells = iter(cells)

    def draw(self, alpha):
        return next(self.cells).to(alpha.device)[:, None]


def a_decoder(kind=HardAttention, seed: int = 0) -> DecoderWithAttention:
    torch.manual_seed(seed)
    decoder = DecoderWithAttention(5, 6, 7, 11, encoder_dim=8, dropout=0.0)
    nn.init.normal_(decoder.fc.weight)
    nn.init.normal_(decoder.attention.full_att.weight)
    decoder.attention = kind(decoder.attention)
    return decoder.double()


def a_batch(N: int = 1, T: int = WORDS + 1, P: int = P):
    torch.manual_seed(1)
    grids = torch.randn(N, P, 8).double()
    return grids, torch.randint(4, 11, (N, T)), torch.full((N,), T)


def gradient(loss, decoder) -> torch.Tensor:
    decoder.zero_grad()
    loss.backward()
    return torch.cat([w.grad.flatten() for w in decoder.parameters()])


def every_way(decoder, batch):
    """Each way of looking at four cells before each word: its output, and its probability."""
    for cells in itertools.product(range(P), repeat=WORDS):
        decoder.attention.lead(torch.tensor(cells)[:, None])
        output = decoder(*batch)
        alphas, drawn = output.alphas.unbind(dim=2)
        yield output, (alphas * drawn).sum(dim=2).prod()


def log_p(output) -> torch.Tensor:
    logs = output.logits.data.log_softmax(dim=1)
    return logs.gather(1, output.targets.data[:, None]).sum()


@pytest.mark.parametrize("reward_of", [words_to_come, whole_caption])
@pytest.mark.parametrize("baseline", [0.0, -1.3, 4.0])
def test_the_estimates_mean_is_the_exact_gradient_of_the_bound(
    baseline, reward_of
):
    decoder, batch = a_decoder(Led), a_batch()
    ways = list(every_way(decoder, batch))
    bound = sum(chance * log_p(output) for output, chance in ways)
    exact = gradient(-bound / WORDS, decoder)  # as the loss, for each token

    mean, total = torch.zeros_like(exact), 0.0
    for output, chance in every_way(decoder, batch):
        total += chance.item()
        loss = hard_loss(output, baseline, reward_of=reward_of).total
        mean += chance.item() * gradient(loss, decoder)
    assert total == pytest.approx(1)
    torch.testing.assert_close(mean, exact, atol=1e-6, rtol=1e-4)
    # Attention is trained by REINFORCE alone: without it, the mean is wrong.
    without = sum(
        chance.item() * gradient(hard_loss(output, lambda_r=0.0).total, decoder)
        for output, chance in every_way(decoder, batch)
    )
    assert (without - exact).norm() > 0.05 * exact.norm()


def test_the_bound_is_below_the_log_likelihood():
    decoder, batch = a_decoder(Led), a_batch()
    ways = [
        (chance.item(), log_p(output).item())
        for output, chance in every_way(decoder, batch)
    ]
    bound = sum(chance * log for chance, log in ways)
    whole = sum(chance * torch.tensor(log).exp() for chance, log in ways).log()
    assert bound < whole - 1e-3


@pytest.mark.parametrize("reward_of", [words_to_come, whole_caption])
def test_a_baseline_makes_the_estimate_less_noisy(reward_of):
    """The variance over every way of looking, exactly."""
    decoder, batch = a_decoder(Led), a_batch()

    def variance(baseline):
        first = second = 0.0
        for output, chance in every_way(decoder, batch):
            loss = hard_loss(output, baseline, reward_of=reward_of).total
            found = gradient(loss, decoder)
            first = first + chance.item() * found
            second = second + chance.item() * found.square()
        return float((second - first.square()).sum())

    assert variance(-2.5) < 0.7 * variance(0.0)


def test_what_a_draw_earns_is_what_a_loop_adds_up():
    torch.manual_seed(0)
    log_p, lengths = -torch.rand(4, 6), torch.tensor([6, 1, 3, 5])
    found = words_to_come(log_p, lengths, -0.4)
    for i, length in enumerate(lengths.tolist()):
        for t in range(6):
            sum_of = sum(float(log_p[i, u]) + 0.4 for u in range(t, length))
            assert found[i, t] == pytest.approx(sum_of, abs=1e-6)


def several(lengths, n: int = 2, seed: int = 3):
    """Captions of several lengths, n for each image."""
    torch.manual_seed(seed)
    lengths = torch.tensor(lengths)
    captions = torch.randint(4, 11, (len(lengths), int(lengths.max())))
    return torch.randn(len(lengths) // n, P, 8).double(), captions, lengths


def test_a_batchs_loss_is_that_of_its_captions_alone():
    """Captions of any length, in any order: each draw stays with its caption and word."""
    grids, captions, lengths = several([3, 6, 2, 4, 5, 5])
    decoder, settings = a_decoder(), {"lambda_e": 0.3, "label_smoothing": 0.1}
    torch.manual_seed(5)
    output = decoder(grids, captions, lengths)
    loss = hard_loss(output, -1.0, **settings)
    together = gradient(loss.total, decoder)

    alone, total, entropy = torch.zeros_like(together), 0.0, 0.0
    led = a_decoder(Led)
    cells = output.alphas[:, :, 1].argmax(dim=2)  # (N, T - 1)
    tokens = lengths - 1
    for i, length in enumerate(lengths.tolist()):
        led.attention.lead(cells[i, : length - 1, None])
        one = led(grids[i // 2, None], captions[i, None], lengths[i, None])
        each = hard_loss(one, -1.0, **settings)
        share = tokens[i] / tokens.sum()
        alone += share * gradient(each.total, led)
        total += float(share * each.nats)
        entropy += float(share * each.entropy)
    torch.testing.assert_close(together, alone, atol=1e-6, rtol=1e-4)
    assert loss.nats.item() == pytest.approx(total, abs=1e-5)
    assert loss.entropy.item() == pytest.approx(entropy, abs=1e-5)


def test_padding_changes_nothing():
    grids, captions, lengths = several([3, 2])
    longer = torch.cat([captions, torch.zeros(2, 3).long()], dim=1)
    losses = []
    for ids in (captions, longer):
        decoder = a_decoder()
        torch.manual_seed(5)
        output = decoder(grids, ids, lengths)
        losses.append(gradient(hard_loss(output, -1.0).total, decoder))
    torch.testing.assert_close(*losses)


def test_the_entropy_term_opens_the_maps():
    decoder, batch = a_decoder(), several([4, 4, 4, 4])

    def entropy():
        torch.manual_seed(0)
        return float(hard_loss(decoder(*batch)).entropy)

    before = entropy()
    torch.manual_seed(0)
    loss = hard_loss(decoder(*batch), lambda_r=0.0, lambda_e=1.0)
    speak = hard_loss(decoder(*batch), lambda_r=0.0)
    decoder.zero_grad()
    (loss.total - speak.total).backward()
    with torch.no_grad():
        for weight in decoder.attention.parameters():
            weight -= 0.1 * weight.grad
    assert entropy() > before


# --------------------------------------------------------------------------------------- the layer


def test_the_mean_of_all_draws_is_soft_attention():
    torch.manual_seed(0)
    soft = Attention(8, 7, 5)
    hard = Led(soft)
    hidden, values = torch.randn(6, 7), torch.randn(3, P, 8)  # two an image
    keys = soft.keys(values)
    context, alpha = soft(hidden, keys, values)
    mean = torch.zeros_like(context)
    for p in range(P):
        hard.lead([torch.full((6,), p)])
        one, both = hard(hidden, keys, values)
        torch.testing.assert_close(both[:, 0], alpha)
        assert both[:, 1, p].tolist() == [1.0] * 6
        torch.testing.assert_close(one, values[:, p].repeat_interleave(2, 0))
        mean += alpha[:, p, None] * one
    torch.testing.assert_close(mean, context)


def test_cells_are_drawn_by_their_weight_and_independently():
    torch.manual_seed(0)
    hard = HardAttention(Attention(8, 7, 5))
    hidden, values = torch.randn(1, 7).expand(8000, 7), torch.randn(1, P, 8)
    _, both = hard(hidden, hard.keys(values), values)
    often = both[:, 1].mean(dim=0)
    torch.testing.assert_close(often, both[0, 0], atol=0.02, rtol=0)


@pytest.mark.parametrize("off", ["eval", "draws"])
def test_without_draws_it_is_the_soft_layer(off):
    decoder, batch = a_decoder(), several([3, 5, 4, 2])
    plain = a_decoder()
    plain.attention = Attention(8, 7, 5).double()
    plain.load_state_dict(decoder.state_dict())  # one set of names
    if off == "eval":
        decoder.eval()
    else:
        decoder.attention.draws = False
    ours, theirs = decoder(*batch), plain(*batch)
    torch.testing.assert_close(ours.logits.data, theirs.logits.data)
    torch.testing.assert_close(ours.alphas, theirs.alphas)
    torch.testing.assert_close(
        gradient(caption_loss(ours).total, decoder),
        gradient(caption_loss(theirs).total, plain),
    )


@pytest.mark.parametrize("training", [True, False])
def test_it_takes_over_the_mode_with_the_layers(training):
    soft = Attention(8, 7, 5).train(training)
    hard = HardAttention(soft)
    assert hard.training == training
    assert hard.full_att is soft.full_att


def test_search_and_reading_take_it_as_they_are():
    vocabulary = Vocabulary.build([list("abcdefg")], min_word_freq=1)
    decoder = a_decoder().float().eval()
    grids, ids, _ = several([5, 5, 5])
    grids = grids.float().repeat(3, 1, 1)[:3]
    found = beam_search(decoder, grids, vocabulary, SearchConfig(3, 6))
    assert all(best.alphas.shape[1:] == (P,) for best in found)
    _, alphas = read(decoder, grids, ids)
    assert alphas.shape == (3, 4, P)
    torch.testing.assert_close(alphas.sum(dim=2), torch.ones(3, 4))


# ------------------------------------------------------------------------------------ the training


def a_model(seed: int = 0) -> CaptionModel:
    vocabulary = Vocabulary.build([list("abcdefg")], min_word_freq=1)
    torch.manual_seed(seed)
    shape = ModelConfig(attention_dim=5, embed_dim=6, decoder_dim=7)
    encoder = Encoder(shape.backbone, grid_size=None)
    return CaptionModel(shape, vocabulary, encoder).train()


def training_batch():
    torch.manual_seed(1)
    grids = torch.randn(2, 9, 1280)
    return (
        grids,
        torch.randint(4, 11, (2, 3, 6)),
        torch.tensor([[6, 4, 5], [3, 6, 2]]),
    )


def test_a_share_of_0_is_chapter_05s_loss_and_of_1_always_draws():
    model, batch = a_model(), training_batch()
    torch.manual_seed(7)
    torch.rand(())  # the coin
    expected = plain_loss(model, batch, CONFIG, 0.0)
    model.decoder.attention = HardAttention(model.decoder.attention)
    torch.manual_seed(7)
    soft = HardObjective(share=0.0)(model, batch, CONFIG)
    torch.testing.assert_close(soft.total, expected.total)
    assert not model.decoder.attention.draws
    found = HardObjective(share=1.0)(model, batch, CONFIG)
    assert model.decoder.attention.draws and found.entropy > 0


def test_the_baseline_is_a_moving_average_of_a_words_log_probability():
    model, batch = a_model(), training_batch()
    model.decoder.attention = HardAttention(model.decoder.attention)
    objective, expected = HardObjective(share=0.5), 0.0
    torch.manual_seed(0)
    for _ in range(8):
        found = objective(model, batch, CONFIG)
        if model.decoder.attention.draws:
            expected = 0.9 * expected + 0.1 * -float(found.nats)
        assert objective.baseline == pytest.approx(expected)
    assert expected < 0


def test_its_weights_reach_the_loss():
    model, batch = a_model(), training_batch()
    model.decoder.attention = HardAttention(model.decoder.attention)
    config = replace(CONFIG, alpha_c=0.7, label_smoothing=0.2)
    objective = HardObjective(0.3, 0.2, share=1.0)
    objective.baseline = -1.5
    torch.manual_seed(0)
    found = objective(model, batch, config)
    torch.manual_seed(0)
    torch.rand(())
    grids, captions, lengths = batch
    output = model(grids, captions.flatten(0, 1), lengths.flatten())
    expected = hard_loss(output, -1.5, 0.3, 0.2, 0.7, 0.2)
    torch.testing.assert_close(found, expected)


def test_a_stored_captioner_writes_with_the_expectation(tmp_path):
    model = a_model()
    model.decoder.attention = HardAttention(model.decoder.attention)
    model.eval().save(tmp_path / "model")
    grids = training_batch()[0]
    search = SearchConfig(3, 6)
    ours, theirs = (
        beam_search(m.decoder, grids, m.vocabulary, search)
        for m in (model, CaptionModel.load(tmp_path / "model"))
    )
    for one, other in zip(ours, theirs, strict=True):
        assert one.word_ids == other.word_ids
        torch.testing.assert_close(one.alphas, other.alphas)


# -------------------------------------------------------------------------------------- experiment


@pytest.mark.long
def test_the_experiment_runs_and_compares_with_soft(tmp_path):
    stored = tmp_path / "stored.json"
    command = ["hard_attention", "--quick", "--work", str(tmp_path / "work")]
    command += ["--store", str(stored), "--only", "soft", "hard"]
    assert experiments.main(command) == 0
    found = json.loads(stored.read_text(encoding="utf-8"))
    assert found["settings"]["baseline"] == "soft"
    assert found["settings"]["lambda_r"] == 0.1
    assert set(found["result"]) == {"soft", "hard"}
    assert "gap" in found["result"]["hard"]["correctness"]
