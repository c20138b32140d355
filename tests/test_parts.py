"""Chapter 12's stand-ins, each against another way to get the same; and the experiments."""

import json
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from captionlib.attention import Attention
from captionlib.data import Vocabulary
from captionlib.decoder import DecoderWithAttention
from captionlib.io.files import read_json
from captionlib.parts import (
    DotAttention,
    EvenAttention,
    OpenGate,
    most_typical,
    nearest_images,
    word_vectors,
)
from tools.experiments import __main__ as experiments
from tools.experiments import parts

B, N, P, D, H, A = 2, 6, 9, 8, 5, 4


@pytest.fixture
def grids():
    torch.manual_seed(0)
    return torch.randn(B, P, D)


def a_decoder() -> DecoderWithAttention:
    torch.manual_seed(1)
    return DecoderWithAttention(A, 3, H, 11, encoder_dim=D, dropout=0.0)


def test_even_attention_is_attention_whose_scores_are_equal(grids):
    plain = Attention(D, H, A)
    torch.nn.init.zeros_(plain.full_att.weight)
    even, hidden = EvenAttention(), torch.randn(N, H)
    expected = plain(hidden, plain.keys(grids), grids)
    found = even(hidden, even.keys(grids), grids)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b)


def test_a_decoder_with_even_attention_knows_nothing_of_places(grids):
    decoder = a_decoder()
    decoder.attention = EvenAttention()
    captions = torch.randint(0, 11, (N, 7))
    lengths = torch.tensor([7, 3, 5, 2, 6, 4])
    moved = grids[:, torch.randperm(P)]
    first, second = (decoder(g, captions, lengths) for g in (grids, moved))
    torch.testing.assert_close(first.logits.data, second.logits.data)


def test_an_open_gate_lets_the_context_through(grids):
    """A gate whose bias is large does the same, up to rounding."""
    wide, taken_out = a_decoder(), a_decoder()
    torch.nn.init.zeros_(wide.f_beta.weight)
    torch.nn.init.constant_(wide.f_beta.bias, 50.0)
    taken_out.f_beta = OpenGate(D)
    words = torch.tensor([1, 4])
    results = [d.step(words, d.begin(grids)) for d in (wide, taken_out)]
    torch.testing.assert_close(results[0][0], results[1][0])
    (results[1][0] ** 2).sum().backward()  # infinity does no harm
    for name, weight in taken_out.named_parameters():
        assert weight.grad is None or weight.grad.isfinite().all(), name


def test_dot_attention_is_pytorchs(grids):
    layer, hidden = DotAttention(D, H, A), torch.randn(N, H)
    keys = layer.keys(grids)
    context, alpha = layer(hidden, keys, grids)
    query = layer.decoder_att(hidden).view(B, N // B, A)
    expected = F.scaled_dot_product_attention(query, keys, grids)
    torch.testing.assert_close(context, expected.flatten(0, 1))
    torch.testing.assert_close(alpha.sum(dim=1), torch.ones(N))
    assert "full_att" not in dict(layer.named_children())


SENTENCES = [
    f"{size} {name} near {place}".split()
    for size in ("a", "two")
    for name in ("cat", "dog", "kite")
    for place in ("sea", "hill")
]


def test_words_that_keep_the_same_company_get_the_same_vector():
    vocabulary = Vocabulary.build(SENTENCES, 1)
    vectors = word_vectors(SENTENCES, vocabulary, 6)
    at = vocabulary.word_map
    assert vectors.shape == (len(vocabulary), 6)
    torch.testing.assert_close(
        vectors[at["cat"]], vectors[at["dog"]], atol=1e-5, rtol=1e-4
    )
    apart = F.cosine_similarity(vectors[at["cat"]], vectors[at["sea"]], dim=0)
    assert apart < 0.9
    assert vectors.std() == pytest.approx(0.1 / 3**0.5, rel=1e-4)
    assert vectors[at["<pad>"]].abs().max() < 1e-5  # it has no company


def test_pointwise_mutual_information_is_counted_by_hand():
    """With all directions kept, lengths are those of the table's rows."""
    vocabulary = Vocabulary.build([["u", "v"]], 1)
    ids, V = vocabulary.word_map, len(vocabulary)
    # <start> u v <end>, each beside the next one: six ordered pairs
    pairs = [("<start>", "u"), ("u", "v"), ("v", "<end>")]
    count = {w: sum(w in pair for pair in pairs) for w in ids}
    table = torch.zeros(V, V, dtype=torch.float64)
    for a, b in pairs:
        value = torch.tensor(1 / 6 / (count[a] / 6 * count[b] / 6)).log()
        table[ids[a], ids[b]] = table[ids[b], ids[a]] = max(0.0, value)
    found = word_vectors([["u", "v"]], vocabulary, V, window=1).double()
    gram, wanted = found @ found.T, (table @ table)
    values, basis = torch.linalg.eigh(wanted)
    root = basis @ values.clamp(min=0).sqrt().diag() @ basis.T
    scale = gram.trace() / root.trace()
    torch.testing.assert_close(gram, scale * root, atol=1e-6, rtol=1e-4)


def test_the_nearest_image_has_the_largest_cosine_whatever_its_length(grids):
    known = torch.randn(7, P, D)
    cosines, near = nearest_images(grids, known, 3)
    every = F.cosine_similarity(
        grids.mean(dim=1)[:, None], known.mean(dim=1)[None], dim=2
    )
    torch.testing.assert_close(cosines, every.topk(3, dim=1).values)
    _, same = nearest_images(5 * grids, known / 3, 3)
    assert torch.equal(near, same)


def test_the_most_typical_caption_is_the_one_that_others_agree_with():
    told = [["a", "red", "kite"], ["a", "cat"], ["a", "red", "cat"], ["dogs"]]
    assert most_typical(told) in (["a", "red", "cat"], ["a", "red", "kite"])
    assert most_typical([["only"]]) == ["only"]


@pytest.mark.long
def test_the_experiment_runs_and_goes_on_where_it_stopped(tmp_path, capsys):
    some = list(parts.ROWS)[:2] + ["gate: none", "grid: stretched to 14×14"]
    some += ["epoch: the best by BLEU-4", "words: scheduled sampling"]
    store = tmp_path / "parts.json"
    command = ["parts", "--quick", "--work", str(tmp_path / "work")]
    command += ["--store", str(store), "--only", *some]
    assert experiments.main(command) == 0
    first = read_json(store)
    assert list(first["runs"]) == [row for row in parts.ROWS if row in some]
    gap = first["result"]["gate: none"]["bleu4"]["gap"]
    assert gap["low"] <= gap["mean"] <= gap["high"]
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "work").iterdir()}
    assert experiments.main(command) == 0  # nothing is trained again
    assert before == {p: Path(p).stat().st_mtime_ns for p in before}
    assert json.loads(store.read_text())["runs"] == first["runs"]
