import math
import os
import time
import warnings
from random import Random

import numpy as np
import pytest
from nltk.translate.bleu_score import corpus_bleu

from captionlib.files import read_json
from captionlib.metrics import (
    FIGURES,
    CiderD,
    bleu,
    cider_d_scores,
    intervals,
    longest_common_subsequence,
    rouge_l_scores,
    score,
)

WEIGHTS = [(1,), (1 / 2,) * 2, (1 / 3,) * 3, (1 / 4,) * 4]


def random_captions(seed, images=30, words=("a", "b", "c"), longest=9, shortest=0):
    """References and hypotheses of random words, repeated ones among them."""
    rng = Random(seed)

    def caption(extra=()):
        return rng.choices([*words, *extra], k=rng.randint(shortest, longest))

    references = [[caption() for _ in range(rng.randint(1, 5))] for _ in range(images)]
    hypotheses = [caption(extra=["never-seen"]) for _ in range(images)]
    return references, hypotheses


def with_pycocoevalcap(references, hypotheses):
    """The same figures from the scorers that papers report."""
    bleu_scorer = pytest.importorskip("pycocoevalcap.bleu.bleu")
    rouge = pytest.importorskip("pycocoevalcap.rouge.rouge")
    cider = pytest.importorskip("pycocoevalcap.cider.cider")
    truth = {i: [" ".join(words) for words in captions] for i, captions in enumerate(references)}
    found = {i: [" ".join(words)] for i, words in enumerate(hypotheses)}
    values = bleu_scorer.Bleu(4).compute_score(truth, found, verbose=0)[0]
    values += [rouge.Rouge().compute_score(truth, found)[0]]
    values += [cider.Cider().compute_score(truth, found)[0]]
    return dict(zip(FIGURES, 100 * np.array(values), strict=True))


def assert_equal_figures(references, hypotheses):
    expected = with_pycocoevalcap(references, hypotheses)
    actual = score(references, hypotheses)
    assert list(actual) == list(FIGURES)
    for name in FIGURES:
        assert actual[name] == pytest.approx(expected[name], abs=1e-6), name


def test_worked_by_hand():
    references = ["a brown dog is running on the grass", "a dog runs across a green field"]
    references = [[line.split() for line in references]]
    references[0].append("the dog is playing on the green grass outside".split())
    figures = bleu(references, ["a dog runs on the green grass".split()])
    assert figures["bleu1"] == pytest.approx(100)
    assert figures["bleu4"] == pytest.approx(100 * (1 / 8) ** (1 / 4))
    assert bleu(references, [["the"] * 7])["bleu1"] == pytest.approx(100 * 2 / 7)  # clipped
    assert bleu(references, [["a", "dog"]])["bleu2"] == pytest.approx(100 * math.exp(1 - 7 / 2))


def test_of_two_equally_close_references_the_shorter_counts():
    references = [["a b c d e f g h".split(), "a b c d".split()]]  # 8 and 4 words
    assert bleu(references, ["a b c d e f".split()])["bleu4"] == pytest.approx(100)
    assert bleu([references[0][:1]], ["a b c d e f".split()])["bleu4"] < 99


@pytest.mark.parametrize("seed", range(5))
def test_equals_nltk_where_every_caption_has_four_words(seed):
    references, hypotheses = random_captions(seed, shortest=4)
    expected = corpus_bleu(references, hypotheses, weights=WEIGHTS)
    assert min(expected) > 0
    actual = bleu(references, hypotheses)
    assert list(actual.values()) == pytest.approx(100 * np.array(expected), abs=1e-6)


@pytest.mark.parametrize("seed", range(10))
def test_equals_pycocoevalcap_on_random_captions(seed):
    assert_equal_figures(*random_captions(seed))


DEGENERATE = {
    "one image": ([["a b c".split(), "a b d e".split()]], ["a b d".split()]),
    "one reference": ([["a b c d".split()], ["b c".split()]], ["a b c d e".split(), ["c"]]),
    "empty hypothesis": ([["a b c d".split()], ["b".split()]], [[], ["b"]]),
    "every hypothesis empty": ([["a b".split()], ["b".split()]], [[], []]),
    "empty reference": ([[[], "a b".split()], [[]]], [["a"], []]),
    "repeated words": ([["a a a b".split()], ["c d".split()]], [["a"] * 9, ["d", "c"] * 3]),
    "words never seen": ([["a b".split()], ["c".split()]], ["x y z w v".split(), ["x"]]),
    "no fours": ([["a b c d e".split()], ["c".split()]], ["a b d c e".split(), ["c"]]),
    "the same references everywhere": ([["a b c".split()]] * 3, ["a b c".split()] * 3),
    "perfect": ([["a b c d e".split()], ["f g h i".split()]], ["a b c d e".split(), [*"fghi"]]),
}


@pytest.mark.parametrize("case", DEGENERATE)
def test_equals_pycocoevalcap_on_degenerate_captions(case):
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # and divides by nothing on the way
        assert_equal_figures(*DEGENERATE[case])


def flickr8k(images=None):
    folder = os.environ.get("FLICKR8K_DIR")
    if not folder:
        pytest.skip("set FLICKR8K_DIR to the folder of dataset_flickr8k.json")
    records = read_json(f"{folder}/dataset_flickr8k.json")["images"]
    references = [
        [sentence["tokens"] for sentence in record["sentences"]]
        for record in records
        if record["split"] == "val"
    ][:images]
    # A person's caption of this image, or of the next, stands for the machine's.
    rng = Random(0)
    captions = [
        rng.choice(references[(i + rng.randint(0, 1)) % len(references)])
        for i in range(len(references))
    ]
    others = [
        [c for c in group if c is not h] for group, h in zip(references, captions, strict=True)
    ]
    return others, captions


def test_equals_pycocoevalcap_on_real_captions():
    assert_equal_figures(*flickr8k())


def test_a_thousand_images_score_in_two_seconds():
    rng = Random(0)
    words = [f"w{i}" for i in range(500)]
    references = [[rng.choices(words, k=11) for _ in range(5)] for _ in range(1000)]
    hypotheses = [rng.choices(words, k=10) for _ in range(1000)]
    start = time.process_time()
    score(references, hypotheses)
    assert time.process_time() - start < 2


def test_longest_common_subsequence():
    assert longest_common_subsequence("a b c d e".split(), "x b d a e".split()) == 3
    assert longest_common_subsequence("a a a".split(), "a a".split()) == 2
    assert longest_common_subsequence("a b".split(), "c".split()) == 0
    assert longest_common_subsequence([], ["a"]) == 0


def test_report_74_cider_and_rouge():
    """CIDEr and ROUGE come with BLEU, and see what they were made to see."""
    right, wrong = "a dog in the snow".split(), "a dog in the house".split()
    references = [[right, right], [wrong], ["a cat in the house".split()]]
    hypotheses = [right, wrong, wrong]
    figures = score(references, hypotheses)
    assert {"rouge_l", "cider_d"} < set(figures)
    # Rare words decide: "in the" is everywhere and weighs nothing, "snow" belongs to one image.
    common, rare = "cat in the".split(), "cat snow in".split()
    cider = cider_d_scores(references, [common, wrong, wrong])[0]
    assert cider == 0 < cider_d_scores(references, [rare, wrong, wrong])[0]
    # What was left out costs ROUGE-L, which has a recall.
    rouge = rouge_l_scores([[right], [right]], [right, right[:2]])
    assert rouge[0] == pytest.approx(100) and 0 < rouge[1] < 60


@pytest.mark.parametrize("seed", range(3))
def test_cider_d_of_many_candidates_equals_pycocoevalcap(seed):
    """Several captions an image, in any order: each as if the image had been captioned once."""
    references, _ = random_captions(seed, images=12)
    candidates = [random_captions(seed + n, images=12)[1] for n in range(1, 4)]
    module = pytest.importorskip("pycocoevalcap.cider.cider")
    truth = {i: [" ".join(words) for words in captions] for i, captions in enumerate(references)}
    expected = [
        module.Cider().compute_score(truth, {i: [" ".join(h)] for i, h in enumerate(hypotheses)})[1]
        for hypotheses in candidates
    ]
    pairs = [(n, i) for n in range(3) for i in range(12)]
    Random(seed).shuffle(pairs)
    pairs = pairs[:25]  # not every image as often
    found = CiderD(references).scores([i for _, i in pairs], [candidates[n][i] for n, i in pairs])
    assert found.shape == (25,) and found.dtype == np.float64
    assert found == pytest.approx([100 * expected[n][i] for n, i in pairs], abs=1e-6)


def test_cider_d_keeps_the_rarities_of_its_corpus():
    """A few images, with the corpus they came from, score as they did among all the others."""
    references, hypotheses = random_captions(5)
    among_all = cider_d_scores(references, hypotheses)
    some = [3, 17, 4]
    few = CiderD([references[i] for i in some], corpus=references)
    found = few.scores(range(3), [hypotheses[i] for i in some])
    assert found == pytest.approx(among_all[some], abs=1e-9)
    alone = cider_d_scores([references[i] for i in some], [hypotheses[i] for i in some])
    assert np.abs(alone - found).max() > 1


def test_cider_d_of_a_step_of_training_takes_a_fraction_of_a_second():
    """Five captions of each of 64 images, against the references of a training split."""
    rng = Random(0)
    words = [f"w{i}" for i in range(500)]
    references = [[rng.choices(words, k=11) for _ in range(5)] for _ in range(1000)]
    cider = CiderD(references)
    images = [i for i in rng.sample(range(1000), 64) for _ in range(5)]
    hypotheses = [rng.choices(words, k=12) for _ in images]
    seconds = []
    for _ in range(3):
        start = time.process_time()
        cider.scores(images, hypotheses)
        seconds.append(time.process_time() - start)
    assert min(seconds) < 0.2


@pytest.mark.parametrize(
    ("images", "hypotheses", "message"),
    [
        ([0, 1], [["a"]], "2 image numbers, but 1 hypotheses"),
        ([2], [["a"]], "image 2: there are 2 of them"),
        ([-1], [["a"]], "image -1: there are 2 of them"),
        ([1], ["a dog"], "image 1: .* list of words"),
    ],
)
def test_cider_d_refuses_what_it_can_not_score(images, hypotheses, message):
    with pytest.raises(ValueError, match=message):
        CiderD(GOOD[0]).scores(images, hypotheses)


def test_cider_d_refuses_a_corpus_that_is_none():
    for corpus in ([], [[]], [["a dog"]]):
        with pytest.raises(ValueError, match="no images|at least one reference|list of words"):
            CiderD(GOOD[0], corpus=corpus)
        with pytest.raises(ValueError, match="no images|at least one reference|list of words"):
            CiderD(corpus)


def test_cider_d_of_no_captions_is_no_scores():
    assert CiderD(GOOD[0]).scores([], []).shape == (0,)


def test_a_score_does_not_depend_on_the_order_of_images():
    references, hypotheses = random_captions(0)
    turned = score(references[::-1], hypotheses[::-1])
    assert turned == pytest.approx(score(references, hypotheses), abs=1e-9)


def test_intervals_hold_the_score_and_narrow_with_more_images():
    references, hypotheses = random_captions(0, images=40, shortest=4)
    figures, bounds = score(references, hypotheses), intervals(references, hypotheses)
    assert list(bounds) == list(FIGURES)
    for name, (low, high) in bounds.items():
        assert low < figures[name] < high
    more = intervals(references * 9, hypotheses * 9)
    low, high = bounds["bleu1"]
    assert more["bleu1"][1] - more["bleu1"][0] == pytest.approx((high - low) / 3, rel=0.2)


def test_intervals_equal_a_bootstrap_that_scores_every_resample():
    references, hypotheses = random_captions(1, images=12, shortest=4)
    rng, values = np.random.default_rng(7), []
    for _ in range(50):
        drawn = rng.integers(12, size=12)
        values.append(bleu([references[i] for i in drawn], [hypotheses[i] for i in drawn]))
    for name in ("bleu1", "bleu4"):
        low, high = np.percentile([value[name] for value in values], [5, 95])
        found = intervals(references, hypotheses, resamples=50, seed=7, confidence=0.9)[name]
        assert found == pytest.approx([low, high], abs=1e-9)


def test_intervals_repeat_with_the_seed():
    captions = random_captions(2)
    assert intervals(*captions, seed=3) == intervals(*captions, seed=3)
    assert intervals(*captions, seed=3) != intervals(*captions, seed=4)


def test_one_image_has_an_interval_of_no_width():
    references, hypotheses = [["a b c d e".split()]], ["a b c d".split()]
    low, high = intervals(references, hypotheses, resamples=5)["bleu4"]
    assert low == high == pytest.approx(score(references, hypotheses)["bleu4"])


GOOD = ([[["a", "dog"]], [["a", "cat"]]], [["a", "dog"], ["a", "cat"]])
BAD = {
    "fewer hypotheses": (GOOD[0], GOOD[1][:1], "references for 2 images, but 1 hypotheses"),
    "no images": ([], [], "no images"),
    "no reference": ([GOOD[0][0], []], GOOD[1], "image 1: expected at least one reference"),
    "a hypothesis that is a string": (GOOD[0], [["a"], "a cat"], "image 1: .* list of words"),
    "a reference that is a string": ([["a dog"], [["a"]]], GOOD[1], "image 0: .* list of words"),
    "a level too few": ([["a", "dog"], ["a", "cat"]], GOOD[1], "image 0: .* list of words"),
    "a level too many": (GOOD[0], [[["a", "dog"]], [["a"]]], "image 0: .* list of words"),
    "word ids": (GOOD[0], [[1, 2], [3]], "image 0: .* list of words"),
    "nothing for an image": (GOOD[0], [["a"], None], "image 1: .* list of words"),
    "strings for references": (["a dog", "a cat"], GOOD[1], "image 0: expected at least one"),
}


@pytest.mark.parametrize("function", [score, bleu, intervals])
@pytest.mark.parametrize("case", BAD)
def test_what_is_not_a_caption_is_refused(function, case):
    references, hypotheses, message = BAD[case]
    with pytest.raises(ValueError, match=message):
        function(references, hypotheses)


def test_tuples_are_captions_too():
    references, hypotheses = random_captions(3)
    tuples = [tuple(map(tuple, captions)) for captions in references]
    assert score(tuples, [tuple(h) for h in hypotheses]) == score(references, hypotheses)
