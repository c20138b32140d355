"""Grounding: the measures are those worked out by hand, chance is chance, and any model with the
protocol can be measured."""

import json
import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pad_packed_sequence

from captionlib.captioner import Captioner
from captionlib.data import Vocabulary
from captionlib.decoder import DecoderWithAttention
from captionlib.decoding import Ensemble
from captionlib.grounding import (
    LAGS,
    Naming,
    boxes_to_cells,
    grounding,
    log_probs_without,
    maps_to_judge,
    mean_interval,
    most,
    naming_words,
    peaks,
    read,
)
from captionlib.io.images import read_image
from captionlib.toy.scenes import KINDS, draw_scene, scene_with_captions
from captionlib.visualize import upsample_alpha
from tools.experiments import __main__ as experiments

# ------------------------------------------------------------------------------- boxes and cells


def test_a_cut_cell_counts_by_the_part_inside():
    # A picture of 8 x 8 pixels in 2 x 2 cells; the box covers columns 2 to 5, rows 0 to 4.
    shares, centred = boxes_to_cells([(2, 0, 6, 5)], side=2, size=8)
    assert shares.tolist() == [8 / 16, 8 / 16, 2 / 16, 2 / 16]
    # The centres are the pixels 2 and 6.
    assert centred.tolist() == [1, 0, 0, 0]


@pytest.mark.parametrize("side", [1, 2, 3, 5, 7, 9])
def test_shares_are_what_counting_small_squares_gives(side):
    size, rng = 12, np.random.default_rng(side)
    corners = np.sort(rng.integers(0, size + 1, (3, 2, 2)), axis=1)
    boxes = [(*low, *high) for low, high in corners.tolist()]  # may overlap
    shares, centred = boxes_to_cells(boxes, side, size)
    # Each pixel in side x side squares, so that no square is in two cells.
    inside = np.zeros((size * side, size * side))
    for x0, y0, x1, y1 in boxes:
        inside[y0 * side : y1 * side, x0 * side : x1 * side] = 1
    squares = inside.reshape(side, size, side, size).mean(axis=(1, 3))
    np.testing.assert_allclose(
        shares.view(side, side), squares, atol=1e-6, rtol=1e-5
    )
    for n, found in enumerate(centred.tolist()):
        y, x = ((n // side + 0.5) * size / side, (n % side + 0.5) * size / side)
        hit = any(
            x0 <= x < x1 and y0 <= y < y1
            for x0, y0, x1, y1 in boxes  # whole pixels hold their left edge
        )
        assert found == hit


def test_boxes_refer_to_256_pixels_unless_told():
    shares, centred = boxes_to_cells([(0, 0, 128, 256)], side=2)
    assert shares.tolist() == centred.tolist() == [1, 0, 1, 0]


def test_words_name_what_is_in_their_own_picture():
    dog = {"box": [1, 2, 3, 4], "words": ["dog", "dogs"]}
    palm = {"box": [5, 6, 7, 8], "words": ["palm", "tree"]}
    captions = ["a dog and a palm tree".split(), "two dogs".split(), ["cat"]]
    found = naming_words(captions, [[palm, dog], [dog, dog], [dog]])
    assert found == [
        Naming(0, 1, [dog["box"]]),
        Naming(0, 4, [palm["box"]]),
        Naming(0, 5, [palm["box"]]),
        Naming(1, 1, [dog["box"]] * 2),
    ]


# ----------------------------------------------------------------------------------- the protocol


def a_decoder(seed: int = 0) -> DecoderWithAttention:
    torch.manual_seed(seed)
    decoder = DecoderWithAttention(5, 6, 7, 11, encoder_dim=8).eval()
    nn.init.normal_(decoder.fc.weight)
    return decoder


def a_batch(B: int = 4, P: int = 9, T: int = 5):
    torch.manual_seed(1)
    return torch.randn(B, P, 8), torch.randint(4, 11, (B, T + 1))


def test_read_gives_what_the_teacher_forced_pass_gives():
    decoder, (grids, ids) = a_decoder(), a_batch()
    log_probs, alphas = read(decoder, grids, ids)
    with torch.no_grad():
        out = decoder(grids, ids, torch.full((4,), 6))
    logits = pad_packed_sequence(out.logits, batch_first=True)[0]
    expected = logits.log_softmax(2).gather(2, ids[:, 1:, None])[..., 0]
    torch.testing.assert_close(log_probs, expected)
    torch.testing.assert_close(alphas, out.alphas)


def test_an_ensemble_is_read_like_one_decoder():
    members, (grids, ids) = [a_decoder(0), a_decoder(1)], a_batch()
    log_probs, alphas = read(Ensemble(members), grids, ids)
    each = [read(member, grids, ids)[0].exp() for member in members]
    torch.testing.assert_close(log_probs.exp(), sum(each) / 2)
    assert alphas.shape == (4, 5, 9)


# ---------------------------------------------------------------------------- maps and their rivals


def test_the_peak_takes_all_and_equal_ones_share():
    maps = torch.tensor([[0.1, 0.6, 0.3], [0.4, 0.2, 0.4], [0.2, 0.2, 0.2]])
    expected = [[0, 1, 0], [0.5, 0, 0.5], [1 / 3] * 3]
    torch.testing.assert_close(peaks(maps), torch.tensor(expected))


def judged(lengths, at, P: int = 4):
    torch.manual_seed(0)
    alphas = torch.rand(len(lengths), max(lengths) + 1, P).softmax(dim=2)
    maps = maps_to_judge(alphas, torch.tensor(lengths), torch.tensor(at))
    return alphas, maps


def test_maps_around_a_word_are_its_neighbours_or_missing():
    lengths, at = [3, 1, 2, 4], [[0, 0, 2, 3, 3], [0, 2, 1, 3, 2]]
    alphas, maps = judged(lengths, at)
    assert LAGS == {
        "the word itself": 0,
        "two words before": -2,
        "the word before": -1,
        "the word after": 1,
    }
    for whose, lag in LAGS.items():
        for row, image, step in zip(maps[whose], *at, strict=True):
            if 0 <= step + lag < lengths[image]:
                assert torch.equal(row, alphas[image, step + lag])
            else:
                assert row.isnan().all()


def test_rivals_are_all_the_others_and_nothing_past_a_captions_end():
    lengths, at = [3, 1, 2, 4], [[0, 0, 2, 3], [0, 2, 1, 1]]
    alphas, maps = judged(lengths, at)
    for n, (image, step) in enumerate(zip(*at, strict=True)):
        words = [alphas[image, t] for t in range(lengths[image]) if t != step]
        elsewhere = [
            alphas[other, step]
            for other, length in enumerate(lengths)
            if other != image and length > step
        ]
        for whose, them in (
            ("other words", words),
            ("other images", elsewhere),
        ):
            torch.testing.assert_close(
                maps[whose][n], torch.stack(them).mean(dim=0)
            )


def test_a_word_without_rivals_has_no_number():
    _, maps = judged([1, 2], [[0, 1], [0, 1]])
    assert maps["other words"][0].isnan().all()
    assert maps["other images"][1].isnan().all()


def test_two_rivals_know_nothing():
    _, maps = judged([1, 1], [[0, 1], [0, 0]], P=64)
    torch.testing.assert_close(maps["an even map"], torch.full((2, 64), 1 / 64))
    centre = maps["the centre"].view(2, 8, 8)
    torch.testing.assert_close(centre.sum((1, 2)), torch.ones(2))
    for turned in (centre.flip(1), centre.flip(2), centre.transpose(1, 2)):
        torch.testing.assert_close(centre, turned)
    # A bell with a standard deviation of two of the eight cells.
    row = centre[0, 0] / centre[0, 0].max()
    far = torch.arange(8) - 3.5
    bell = torch.exp(-(far**2) / (2 * 2**2))
    torch.testing.assert_close(row, bell / bell.max())


def test_shuffled_cells_have_the_boxs_area():
    """Over all ways to shift a map around the grid, the weight in the box is exactly its area."""
    shares, centred = boxes_to_cells([(3, 10, 99, 200)], side=8)
    alpha = torch.rand(64).softmax(dim=0)
    for cells, maps in ((shares, alpha), (centred, peaks(alpha))):
        shifted = torch.stack([maps.roll(n) for n in range(64)])
        torch.testing.assert_close((shifted @ cells).mean(), cells.mean())


# ------------------------------------------------------------------------------- erasing and means


def test_most_marks_the_largest_and_of_equal_ones_the_first():
    scores = torch.tensor([[0.1, 0.5, 0.5, 0.2], [1.0, 1.0, 1.0, 1.0]])
    assert most(scores, 2).tolist() == [
        [False, True, True, False],
        [True, True, False, False],
    ]
    assert most(scores, torch.tensor([[1], [3]])).tolist() == [
        [False, True, False, False],
        [True, True, True, False],
    ]
    assert not most(scores, 0).any() and most(scores, 4).all()


def test_erased_cells_become_the_mean_of_all():
    decoder, (grids, ids) = a_decoder(), a_batch()
    at = torch.tensor([[2, 0, 2, 3, 0], [1, 4, 0, 1, 4]])
    cells = torch.rand(5, 9, generator=torch.manual_seed(3)) < 0.5
    found = log_probs_without(decoder, grids, ids, at, cells)
    for n, (image, step) in enumerate(at.T.tolist()):
        grid = grids[image].clone()
        for p in range(9):
            if cells[n, p]:
                grid[p] = grids.flatten(0, 1).mean(dim=0)
        alone, _ = read(decoder, grid[None], ids[image : image + 1])
        torch.testing.assert_close(found[n], alone[0, step])


def test_with_nothing_erased_nothing_is_lost():
    decoder, (grids, ids) = a_decoder(), a_batch()
    at = torch.tensor([[0, 1, 3], [0, 4, 2]])
    found = log_probs_without(decoder, grids, ids, at, torch.zeros(3, 9).bool())
    torch.testing.assert_close(
        found, read(decoder, grids, ids)[0][at[0], at[1]]
    )


def test_the_interval_is_a_bootstrap_over_images():
    values = torch.tensor([1.0, 2.0, math.nan, 4.0, 0.5, 3.0])
    images = torch.tensor([0, 0, 1, 3, 5, 5])
    mean, low, high = mean_interval(values, images)
    assert mean == pytest.approx(10.5 / 5)
    words = [[1.0, 2.0], [4.0], [0.5, 3.0]]  # image 1 has no word left
    rng, means = np.random.default_rng(0), []
    for _ in range(1000):
        drawn = [words[i] for i in rng.integers(3, size=3)]
        means.append(np.mean([value for each in drawn for value in each]))
    expected = np.percentile(means, [2.5, 97.5])
    np.testing.assert_allclose([low, high], expected)


def test_saying_a_word_five_times_makes_nothing_surer():
    torch.manual_seed(0)
    values, images = torch.rand(40), torch.arange(40) // 2
    once = mean_interval(values, images)
    again = mean_interval(values.repeat(5), images.repeat(5))
    np.testing.assert_allclose(once, again, atol=1e-6)


# ---------------------------------------------------------------------------------- the whole of it


class Glance:
    """A decoder made by hand: cell p of a grid holds (what is there, how much it is looked at).

    The logit of `thing` is the sum of what is there; all other words have 0.
    """

    def __init__(self, thing: int, V: int):
        self.thing, self.V = thing, V

    def begin(self, grids):
        return grids

    def step(self, words, grids):
        logits = torch.zeros(len(words), self.V)
        logits[:, self.thing] = grids[..., 0].sum(dim=1)
        return logits, grids[..., 1], grids


def a_world(B: int, looks, sides=(128, 150), seed: int = 0):
    """B pictures of one thing each; `looks` turns its shares (P,) into where one looks."""
    rng = np.random.default_rng(seed)
    vocabulary = Vocabulary.build([["a", "thing", "here"]], min_word_freq=1)
    things, grids = [], []
    for _ in range(B):
        (x, y), (w, h) = rng.integers(106, size=2), rng.integers(*sides, size=2)
        box = int(x), int(y), int(x + w), int(y + h)
        things.append([{"box": box, "words": ["thing"]}])
        shares, _ = boxes_to_cells([things[-1][0]["box"]], side=4)
        alpha = looks(shares)
        grids.append(torch.stack([shares, alpha / alpha.sum()], dim=1))
    model = SimpleNamespace(
        vocabulary=vocabulary,
        encode=lambda images: images,
        decoder=Glance(vocabulary.word_map["thing"], len(vocabulary)),
    )
    captions = [["a", "thing", "here"]] * B
    return model, torch.stack(grids), captions, things


def test_who_looks_at_the_thing_gets_full_marks():
    # Each box is large enough to hold a whole cell.
    model, grids, captions, things = a_world(30, lambda s: (s > 0.99).float())
    looked = grounding(model, grids, captions, things)
    assert looked.images.tolist() == list(range(30))
    own = looked.correctness["the word itself"]
    torch.testing.assert_close(own, torch.ones(30))
    assert torch.equal(looked.pointing["the word itself"], torch.ones(30))
    # Its maps don't move, so neighbours have the same; others see another picture.
    assert torch.equal(own, looked.correctness["the word after"])
    assert looked.correctness["two words before"].isnan().all()
    torch.testing.assert_close(own, looked.correctness["other words"])
    assert looked.correctness["other images"].mean() < own.mean() - 0.2


def test_who_looks_anywhere_gets_what_chance_gives():
    dice = torch.Generator().manual_seed(0)
    model, *rest = a_world(400, lambda s: torch.rand(16, generator=dice) ** 4)
    looked = grounding(model, *rest)
    for measure in (looked.correctness, looked.pointing):
        for rival in ("other images", "an even map"):
            more = measure["the word itself"] - measure[rival]
            mean, low, high = mean_interval(more, looked.images)
            assert low < 0 < high and abs(mean) < 0.05
    even = looked.correctness["an even map"]
    area = [
        (x1 - x0) * (y1 - y0) / 256**2
        for ((x0, y0, x1, y1),) in (
            [t["box"] for t in each] for each in rest[2]
        )
    ]
    torch.testing.assert_close(even, torch.tensor(area))


@pytest.mark.parametrize("sides", [(128, 150), (8, 20)])  # several cells; one
def test_the_falls_are_those_of_a_model_that_one_can_see_through(sides):
    world = a_world(12, lambda s: 1.1 - s, sides)
    model, grids, captions, things = world
    looked = grounding(model, grids, captions, things)
    mean, V = grids[..., 0].mean(), len(model.vocabulary)

    def log_prob(total):
        return total - math.log(V - 1 + math.exp(total))

    for n, grid in enumerate(grids):
        shares = grid[:, 0]
        k = max(1, round(float(shares.sum())))
        for name, order in (
            ("in the box", shares.sort(descending=True)[0]),
            ("most attended", shares.sort()[0]),  # it looks away
        ):
            left = float(order[k:].sum() + k * mean)
            expected = log_prob(float(shares.sum())) - log_prob(left)
            assert looked.fall[name][n] == pytest.approx(expected, abs=1e-4)
    falls = {name: float(nats.mean()) for name, nats in looked.fall.items()}
    assert falls["most attended"] < falls["random"] < falls["in the box"]


def test_random_cells_are_the_same_every_time_and_torchs_dice_are_left_alone():
    world = a_world(6, lambda s: s + 0.1)
    torch.manual_seed(7)
    expected = torch.rand(1)
    torch.manual_seed(7)
    first, again = (grounding(*world).fall["random"] for _ in range(2))
    assert torch.equal(torch.rand(1), expected)
    assert torch.equal(first, again)


def test_boxes_may_be_in_pixels_of_another_size():
    model, grids, captions, things = a_world(5, lambda s: s + 0.1)
    half = [
        [{**t, "box": tuple(2 * edge for edge in t["box"])} for t in each]
        for each in things
    ]
    first = grounding(model, grids, captions, things)
    again = grounding(model, grids, captions, half, size=512)
    for whose, values in first.correctness.items():
        torch.testing.assert_close(
            values, again.correctness[whose], equal_nan=True
        )


def test_captions_that_name_nothing_are_an_error():
    model, grids, _, things = a_world(2, lambda s: s + 0.1)
    with pytest.raises(ValueError, match="no word names anything"):
        grounding(model, grids, [["a"], ["here"]], things)


def test_an_ordinary_decoder_and_grids_with_rows_and_columns_will_do():
    vocabulary = Vocabulary.build([list("abcdefg")], min_word_freq=1)
    model = SimpleNamespace(
        vocabulary=vocabulary,
        decoder=a_decoder(),
        encode=lambda grids: grids,
    )
    word = vocabulary.words[4]
    things = [[{"box": (0, 0, 128, 256), "words": [word]}]] * 20
    looked = grounding(
        model, torch.randn(20, 2, 2, 8), [[word, word]] * 20, things
    )
    assert looked.images.tolist() == [i // 2 for i in range(40)]
    assert looked.correctness["an even map"].tolist() == [0.5] * 40


def test_the_toy_captioners_maps_are_measured_as_chapter_09_does():
    scenes = [scene_with_captions("test", n)[0] for n in (1, 10, 44)]
    pictures = [draw_scene(scene) for scene in scenes]
    toy = Captioner.from_pretrained("toy")
    found = toy.caption_batch(pictures)
    captions = [caption.words for caption in found]
    things = [
        [{"box": t.box, "words": KINDS[t.name].words} for t in scene.things]
        for scene in scenes
    ]
    pixels = torch.from_numpy(np.stack([read_image(p) for p in pictures]))
    looked = grounding(toy.model, pixels, captions, things)
    names = naming_words(captions, things)
    assert len(names) >= 4
    for name, m, even in zip(
        names,
        looked.correctness["the word itself"],
        looked.correctness["an even map"],
        strict=True,
    ):
        mask = np.zeros((256, 256), dtype=bool)
        for x0, y0, x1, y1 in name.boxes:
            mask[y0:y1, x0:x1] = True
        alpha = found[name.image].alphas[name.step]
        weights = upsample_alpha(alpha, (256, 256), smooth=False)
        expected = weights[mask].sum() / weights.sum()
        assert float(m) == pytest.approx(float(expected), abs=1e-3)
        assert float(even) == pytest.approx(mask.mean(), abs=1e-6)


# -------------------------------------------------------------------------------------- experiment


@pytest.mark.long
def test_the_experiment_runs_and_goes_on_where_it_stopped(tmp_path):
    command = ["grounding", "--quick", "--work", str(tmp_path / "work")]
    command += ["--store", str(tmp_path / "stored.json")]
    assert experiments.main(command) == 0
    stored = Path(tmp_path / "stored.json")
    first = json.loads(stored.read_text(encoding="utf-8"))
    assert [run["seed"] for run in first["runs"]] == [1, 2]
    done = tmp_path / "work" / "seed-2.json"
    run = json.loads(done.read_text(encoding="utf-8"))
    run["fall"]["random"] += 2
    done.write_text(json.dumps(run), encoding="utf-8")
    assert experiments.main(command) == 0  # nothing is trained again
    again = json.loads(stored.read_text(encoding="utf-8"))
    moved = again["result"]["fall"]["random"]["mean"]
    assert moved == pytest.approx(first["result"]["fall"]["random"]["mean"] + 1)
    assert again["packaged"] == first["packaged"]
