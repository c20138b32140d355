"""The Transformer decoders: one step at a time equals all at once, no word sees the future, and
whatever takes a decoder takes these."""

import json
import math
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_packed_sequence

from captionlib.beam_search import beam_search, beam_search_all
from captionlib.config import ModelConfig, SearchConfig
from captionlib.data import Vocabulary
from captionlib.decoding import Ensemble
from captionlib.grounding import grounding, read
from captionlib.io.files import InputError
from captionlib.model import CaptionEnsemble, CaptionModel
from captionlib.page import pack
from captionlib.training import caption_loss, make_optimizer
from captionlib.transformer import (
    Block,
    MultiHeadAttention,
    PrefixDecoder,
    TransformerDecoder,
    causal_mask,
    positions,
)
from tools.experiments import __main__ as experiments
from tools.experiments import transformer

V, D, P = 23, 5, 16
KINDS = pytest.mark.parametrize("kind", [TransformerDecoder, PrefixDecoder])


def a_decoder(kind=TransformerDecoder, seed: int = 0, **shape):
    torch.manual_seed(seed)
    shape = {"width": 12, "heads": 3, "layers": 2} | shape
    return kind(V, D, **shape).eval()


def a_batch(B: int = 3, n: int = 2, T: int = 8):
    torch.manual_seed(1)
    lengths = torch.tensor([8, 3, 5, 2, 7, 8, 4, 6, 2])[: B * n]
    return torch.randn(B, P, D), torch.randint(V, (B * n, T)), lengths


# --------------------------------------------------------------------------------------- attention


def test_attention_is_torchs():
    torch.manual_seed(0)
    ours = MultiHeadAttention(12, 3)
    theirs = nn.MultiheadAttention(12, 3, batch_first=True)
    with torch.no_grad():
        theirs.in_proj_weight[:12] = ours.query.weight
        theirs.in_proj_bias[:12] = ours.query.bias
        theirs.in_proj_weight[12:] = ours.key_value.weight
        theirs.in_proj_bias[12:] = ours.key_value.bias
        theirs.out_proj.weight.copy_(ours.out.weight)
        theirs.out_proj.bias.copy_(ours.out.bias)
    x, source = torch.randn(4, 7, 12), torch.randn(4, 9, 12)
    unseen = causal_mask(7, seen=2)
    for mask in (None, unseen):
        out, alpha = ours(x, ours.remember(source), mask)
        right, weights = theirs(
            x, source, source, attn_mask=mask, average_attn_weights=False
        )
        torch.testing.assert_close(out, right)
        torch.testing.assert_close(alpha, weights)


def test_attention_is_torchs_scaled_dot_product():
    ours = MultiHeadAttention(8, 2)
    x, source = torch.randn(2, 3, 8), torch.randn(2, 5, 8)
    out, _ = ours(x, ours.remember(source))
    query, key, value = (
        each.unflatten(2, (2, 4)).transpose(1, 2)
        for each in (ours.query(x), *ours.key_value(source).chunk(2, dim=2))
    )
    mixed = F.scaled_dot_product_attention(query, key, value)
    right = ours.out(mixed.transpose(1, 2).flatten(2))
    torch.testing.assert_close(out, right)


def test_rows_share_their_images_memory():
    """n rows an image give what n copies of the image would."""
    ours = MultiHeadAttention(12, 3)
    x, memory = torch.randn(6, 4, 12), torch.randn(2, 9, 24)
    shared = ours(x, memory)
    copied = ours(x, memory.repeat_interleave(3, dim=0))
    for one, other in zip(shared, copied, strict=True):
        torch.testing.assert_close(one, other)


def test_each_new_word_sees_itself_and_all_before():
    for t, seen in ((1, 0), (1, 6), (4, 0), (3, 5)):
        mask = causal_mask(t, seen)
        assert mask.shape == (t, seen + t)
        for i in range(t):
            assert (~mask[i]).nonzero().flatten().tolist() == list(
                range(seen + i + 1)
            )


def test_places_are_sines_and_cosines_and_go_on_where_they_stopped():
    found = positions(0, 40, 12)
    for t, i in ((0, 0), (1, 0), (7, 3), (39, 5)):
        angle = t * 10_000 ** (-2 * i / 12)
        assert found[t, i].item() == pytest.approx(math.sin(angle), abs=1e-4)
        assert found[t, 6 + i].item() == pytest.approx(
            math.cos(angle), abs=1e-4
        )
    torch.testing.assert_close(positions(9, 5, 12), found[9:14])
    assert torch.cdist(found, found).add(torch.eye(40)).min() > 0.05


def test_a_block_is_torchs_pre_norm_layer():
    torch.manual_seed(0)
    ours = Block(12, 3, dropout=0.0, cross=False)
    theirs = nn.TransformerEncoderLayer(
        12, 3, 48, 0.0, F.gelu, batch_first=True, norm_first=True
    )
    words, state = ours.words, {}
    for part in ("weight", "bias"):
        q, kv = (getattr(w, part) for w in (words.query, words.key_value))
        state[f"self_attn.in_proj_{part}"] = torch.cat([q, kv])
        for name, layer in (
            ("self_attn.out_proj", words.out),
            ("linear1", ours.mlp[0]),
            ("linear2", ours.mlp[2]),
            ("norm1", ours.norms[0]),
            ("norm2", ours.norms[2]),
        ):
            state[f"{name}.{part}"] = getattr(layer, part)
    theirs.load_state_dict(state)
    x = torch.randn(2, 6, 12)
    found, past, _ = ours(x, x.new_zeros(2, 0, 24), None)
    right = theirs(x, src_mask=causal_mask(6, 0))
    torch.testing.assert_close(found, right)
    assert past.shape == (2, 6, 24)


# ------------------------------------------------------------------------- one step and all at once


@KINDS
@pytest.mark.parametrize("n", [1, 3])
def test_a_step_at_a_time_is_the_parallel_pass(kind, n):
    """For captions of uneven length, one and several an image."""
    decoder, (grids, captions, lengths) = a_decoder(kind), a_batch(3, n)
    with torch.no_grad():
        out = decoder(grids, captions, lengths)
        logits, steps = pad_packed_sequence(out.logits, batch_first=True)
        targets, _ = pad_packed_sequence(out.targets, batch_first=True)
        assert steps.tolist() == (lengths - 1).tolist()
        assert out.alphas.shape == (3 * n, int(lengths.max()) - 1, P)
        state = decoder.begin(grids).select(torch.arange(3 * n) // n)
        for t in range(int(steps.max())):
            found, alpha, state = decoder.step(captions[:, t], state)
            live = steps > t
            torch.testing.assert_close(
                found[live], logits[live, t], atol=1e-5, rtol=1e-5
            )
            torch.testing.assert_close(
                alpha[live], out.alphas[live, t], atol=1e-5, rtol=1e-5
            )
            assert not out.alphas[~live, t].any()
            assert torch.equal(targets[live, t], captions[live, t + 1])


@KINDS
def test_weights_of_a_map_are_a_mean_over_the_grid(kind):
    decoder, (grids, captions, lengths) = a_decoder(kind), a_batch()
    alphas = decoder(grids, captions, lengths).alphas
    live = torch.arange(alphas.shape[1]) < (lengths - 1)[:, None]
    torch.testing.assert_close(alphas.sum(dim=2), live.float())
    assert (alphas >= 0).all()


@KINDS
def test_a_later_word_changes_nothing_before_it(kind):
    decoder, (grids, captions, _) = a_decoder(kind), a_batch()
    lengths = torch.full((6,), 8)
    changed = captions.clone()
    changed[:, 5] = (captions[:, 5] + 1) % V
    first, second = (
        pad_packed_sequence(
            decoder(grids, ids, lengths).logits, batch_first=True
        )[0]
        for ids in (captions, changed)
    )
    torch.testing.assert_close(first[:, :5], second[:, :5])
    assert (first[:, 5:] - second[:, 5:]).abs().amax(dim=2).min() > 1e-4


@KINDS
def test_padding_changes_nothing(kind):
    decoder, (grids, captions, lengths) = a_decoder(kind), a_batch()
    padded = F.pad(captions, (0, 4))
    short, long = (decoder(grids, ids, lengths) for ids in (captions, padded))
    torch.testing.assert_close(short.logits.data, long.logits.data)
    torch.testing.assert_close(short.alphas, long.alphas)


@KINDS
def test_images_keep_to_themselves(kind):
    decoder, (grids, captions, lengths) = a_decoder(kind), a_batch()
    every = pad_packed_sequence(
        decoder(grids, captions, lengths).logits, batch_first=True
    )[0]
    alone = decoder(grids[1:2], captions[2:4], lengths[2:4]).logits
    alone, steps = pad_packed_sequence(alone, batch_first=True)
    torch.testing.assert_close(alone, every[2:4, : int(steps.max())])
    torch.testing.assert_close(
        decoder(grids.view(3, 4, 4, D), captions, lengths).logits.data,
        decoder(grids, captions, lengths).logits.data,
    )


@KINDS
def test_order_matters(kind):
    decoder, grids = a_decoder(kind), torch.randn(1, P, D)
    words = torch.tensor([[1, 5, 9, 7], [1, 9, 5, 7]])
    found, _ = read(decoder, grids.expand(2, -1, -1), words)
    assert (found[0, 2] - found[1, 2]).abs() > 1e-4


@KINDS
def test_one_batch_can_be_learned_by_heart(kind):
    decoder, (grids, captions, lengths) = a_decoder(kind, width=24), a_batch()
    captions[1::2] = captions[::2]
    optimizer = torch.optim.Adam(decoder.parameters(), 1e-2)
    for _ in range(60):
        loss = caption_loss(decoder(grids, captions, lengths), alpha_c=0)
        optimizer.zero_grad()
        loss.total.backward()
        optimizer.step()
    assert loss.nats < 0.2


# ------------------------------------------------------------------------------------- image tokens


def test_nine_tokens_are_means_of_the_cells_around_them():
    decoder = a_decoder(PrefixDecoder)
    grids = torch.randn(2, 64, D)
    state = decoder.begin(grids)
    assert [past.shape[1] for past in state.past] == [9, 9]
    square = grids.transpose(1, 2).unflatten(2, (8, 8))
    pooled = F.adaptive_avg_pool2d(square, 3).flatten(2).transpose(1, 2)
    shares = state.values[0]  # (64, 9)
    torch.testing.assert_close(shares.T @ grids, pooled)
    torch.testing.assert_close(shares.sum(dim=0), torch.ones(9))


def test_words_attention_to_tokens_is_spread_over_cells():
    """On a grid of 3 x 3 cells, each token is a cell: the map is attention to it, of weight 1."""
    decoder = a_decoder(PrefixDecoder, layers=1)
    grids = torch.randn(2, 9, D)
    state = decoder.begin(grids)
    _, alpha, state = decoder.step(torch.tensor([4, 5]), state)
    block, x = decoder.blocks[0], decoder.embedding(torch.tensor([[4], [5]]))
    x = block.norms[0](x + positions(9, 1, 12))
    _, every = block.words(x, state.past[0])
    every = every[:, :, 0, :9]  # to the image, of 9 + 1 places
    every = every / every.sum(dim=2, keepdim=True)
    torch.testing.assert_close(alpha, every.mean(dim=1))


# ---------------------------------------------------------------------- whatever takes a decoder


def a_vocabulary() -> Vocabulary:
    words = [f"w{i}" for i in range(V - 4)]
    return Vocabulary.build([words], min_word_freq=1)


@KINDS
def test_beam_search_finds_what_trying_everything_finds(kind):
    """Words that a wide enough beam writes have the probability that reading them gives."""
    decoder, vocabulary = a_decoder(kind, seed=3), a_vocabulary()
    grids = torch.randn(3, P, D)
    found = beam_search_all(
        decoder, grids, vocabulary, SearchConfig(4, max_words=5), captions=4
    )
    for grid, hypotheses in zip(grids, found, strict=True):
        for best in hypotheses:
            ids = [vocabulary.start, *best.word_ids]
            ids += [vocabulary.end] * best.finished
            known, alphas = read(decoder, grid[None], torch.tensor([ids]))
            assert known.sum().item() == pytest.approx(best.log_prob, abs=1e-4)
            torch.testing.assert_close(
                alphas[0, : len(best.word_ids)], best.alphas
            )
    alone = beam_search(
        decoder, grids[1:2], vocabulary, SearchConfig(4, max_words=5)
    )
    assert alone[0].word_ids == found[1][0].word_ids


@KINDS
def test_ensembles_and_grounding_take_it(kind):
    decoder, vocabulary = a_decoder(kind), a_vocabulary()
    grids, captions, _ = a_batch(n=1)
    both = Ensemble([decoder, a_decoder(kind, seed=2)])
    each = [read(one, grids, captions)[0].exp() for one in both.decoders]
    found, _ = read(both, grids, captions)
    torch.testing.assert_close(found.exp(), sum(each) / 2)
    model = SimpleNamespace(
        vocabulary=vocabulary, decoder=decoder, encode=lambda grids: grids
    )
    word = vocabulary.words[6]
    things = [[{"box": (0, 0, 128, 256), "words": [word]}]] * 3
    looked = grounding(model, grids, [[word, word]] * 3, things)
    assert len(looked.images) == 6
    assert looked.correctness["an even map"].tolist() == [0.5] * 6


def a_model(kind, **shape) -> CaptionModel:
    torch.manual_seed(0)
    config = ModelConfig(attention_dim=8, embed_dim=8, decoder_dim=8)
    model = CaptionModel(config, a_vocabulary())
    shape = {"width": 12, "heads": 3, "layers": 2} | shape
    model.decoder = kind(V, model.encoder.encoder_dim, **shape)
    return model.eval()


@KINDS
def test_a_captioner_trains_with_it(kind):
    from captionlib.config import TrainConfig
    from captionlib.training import predict, update

    model = a_model(kind).train()
    before = [p.clone() for p in model.decoder.parameters()]
    optimizer = make_optimizer(model, TrainConfig())
    grids = torch.randn(2, 64, model.encoder.encoder_dim)
    captions = torch.randint(V, (2, 3, 9))
    lengths = torch.randint(2, 9, (2, 3))
    output = predict(model, grids, captions, lengths)
    update(model, caption_loss(output).total, optimizer, TrainConfig())
    after = model.decoder.parameters()
    unmoved = [
        name
        for (name, _), one, other in zip(
            model.decoder.named_parameters(), before, after, strict=True
        )
        if torch.equal(one, other) and "norms.1" not in name
    ]
    assert not unmoved


@KINDS
def test_it_is_stored_and_read_back_with_its_shape(kind, tmp_path):
    model = a_model(kind, layers=3)
    model.save(tmp_path / "one")
    loaded = CaptionModel.load(tmp_path / "one")
    assert type(loaded.decoder) is kind
    assert loaded.decoder.shape == model.decoder.shape
    grids = torch.randn(2, 64, model.encoder.encoder_dim)
    ids = torch.randint(V, (2, 6))
    for one, other in zip(
        read(model.decoder, grids, ids),
        read(loaded.decoder, grids, ids),
        strict=True,
    ):
        assert torch.equal(one, other)
    CaptionEnsemble([model, loaded]).save(tmp_path / "both")
    member = CaptionModel.load(tmp_path / "both", member=1)
    assert type(member.decoder) is kind


def test_a_kind_of_decoder_that_nobody_knows_is_an_error(tmp_path):
    a_model(TransformerDecoder).save(tmp_path / "one")
    file = tmp_path / "one" / "config.json"
    about = json.loads(file.read_text(encoding="utf-8"))
    file.write_text(json.dumps(about | {"decoder": "mamba"}), encoding="utf-8")
    with pytest.raises(InputError, match="damaged"):
        CaptionModel.load(tmp_path / "one")


@pytest.mark.parametrize("kind", [TransformerDecoder, PrefixDecoder])
def test_what_knows_the_lstm_only_says_so(kind, tmp_path, monkeypatch):
    model = a_model(kind)
    with pytest.raises(InputError, match=f"a {kind.__name__}, and the page"):
        pack(model)
    model.save(tmp_path / "one")
    onnx = import_module("captionlib.onnx.export")
    monkeypatch.setattr(onnx, "PACKAGES", ())  # refused before they are used
    with pytest.raises(InputError, match=f"a {kind.__name__}, and the export"):
        onnx.export(str(tmp_path / "one"), to=tmp_path / "graphs")
    assert not (tmp_path / "graphs").exists()


# -------------------------------------------------------------------------------------- experiment


@pytest.mark.long
def test_the_experiment_runs_and_goes_on_where_it_stopped(tmp_path):
    command = ["transformer", "--quick", "--work", str(tmp_path / "work")]
    command += ["--store", str(tmp_path / "stored.json")]
    assert experiments.main(command) == 0
    first = json.loads(Path(tmp_path / "stored.json").read_text("utf-8"))
    assert list(first["result"]) == list(transformer.ROWS)
    done = tmp_path / "work" / "Transformer-2.json"
    run = json.loads(done.read_text("utf-8"))
    done.write_text(json.dumps(run | {"fall": run["fall"] + 2}), "utf-8")
    assert experiments.main(command) == 0  # nothing is trained again
    again = json.loads(Path(tmp_path / "stored.json").read_text("utf-8"))
    moved = again["result"]["Transformer"]["fall"]["mean"]
    before = first["result"]["Transformer"]["fall"]["mean"]
    assert moved == pytest.approx(before + 1)
