import math
import os
import time
import warnings
from random import Random

import numpy as np
import pytest
from nltk.translate.bleu_score import corpus_bleu

from captionlib.io.files import read_json
from captionlib.metrics import (
    FIGURES,
    bleu,
    cider_d_scores,
    longest_common_subsequence,
    rouge_l_scores,
    score,
)
from captionlib.scoring.bootstrap import (
    intervals,
    paired_bootstrap,
    percentile_interval,
    resampled_sums,
)
from captionlib.scoring.cider import CiderD
from captionlib.scoring.meteor import meteor

WEIGHTS = [(1,), (1 / 2,) * 2, (1 / 3,) * 3, (1 / 4,) * 4]


def random_captions(
    seed, images=30, words=("a", "b", "c"), longest=9, shortest=0
):
    """References and hypotheses of random words, repeated ones among them."""
    rng = Random(seed)

    def caption(extra=()):
        return rng.choices([*words, *extra], k=rng.randint(shortest, longest))

    references = [
        [caption() for _ in range(rng.randint(1, 5))] for _ in range(images)
    ]
    hypotheses = [caption(extra=["never-seen"]) for _ in range(images)]
    return references, hypotheses


def with_pycocoevalcap(references, hypotheses):
    """The same figures from the scorers that papers report."""
    bleu_scorer = pytest.importorskip("pycocoevalcap.bleu.bleu")
    rouge = pytest.importorskip("pycocoevalcap.rouge.rouge")
    cider = pytest.importorskip("pycocoevalcap.cider.cider")
    truth = {
        i: [" ".join(words) for words in captions]
        for i, captions in enumerate(references)
    }
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
    references = [
        "a brown dog is running on the grass",
        "a dog runs across a green field",
    ]
    references = [[line.split() for line in references]]
    references[0].append(
        "the dog is playing on the green grass outside".split()
    )
    figures = bleu(references, ["a dog runs on the green grass".split()])
    assert figures["bleu1"] == pytest.approx(100)
    assert figures["bleu4"] == pytest.approx(100 * (1 / 8) ** (1 / 4))
    assert bleu(references, [["the"] * 7])["bleu1"] == pytest.approx(
        100 * 2 / 7
    )  # clipped
    assert bleu(references, [["a", "dog"]])["bleu2"] == pytest.approx(
        100 * math.exp(1 - 7 / 2)
    )


def test_of_two_equally_close_references_the_shorter_counts():
    references = [
        ["a b c d e f g h".split(), "a b c d".split()]
    ]  # 8 and 4 words
    assert bleu(references, ["a b c d e f".split()])["bleu4"] == pytest.approx(
        100
    )
    assert bleu([references[0][:1]], ["a b c d e f".split()])["bleu4"] < 99


@pytest.mark.parametrize("seed", range(5))
def test_equals_nltk_where_every_caption_has_four_words(seed):
    references, hypotheses = random_captions(seed, shortest=4)
    expected = corpus_bleu(references, hypotheses, weights=WEIGHTS)
    assert min(expected) > 0
    actual = bleu(references, hypotheses)
    assert list(actual.values()) == pytest.approx(
        100 * np.array(expected), abs=1e-6
    )


@pytest.mark.parametrize("seed", range(10))
def test_equals_pycocoevalcap_on_random_captions(seed):
    assert_equal_figures(*random_captions(seed))


DEGENERATE = {
    "one image": ([["a b c".split(), "a b d e".split()]], ["a b d".split()]),
    "one reference": (
        [["a b c d".split()], ["b c".split()]],
        ["a b c d e".split(), ["c"]],
    ),
    "empty hypothesis": ([["a b c d".split()], ["b".split()]], [[], ["b"]]),
    "every hypothesis empty": ([["a b".split()], ["b".split()]], [[], []]),
    "empty reference": ([[[], "a b".split()], [[]]], [["a"], []]),
    "repeated words": (
        [["a a a b".split()], ["c d".split()]],
        [["a"] * 9, ["d", "c"] * 3],
    ),
    "words never seen": (
        [["a b".split()], ["c".split()]],
        ["x y z w v".split(), ["x"]],
    ),
    "no fours": (
        [["a b c d e".split()], ["c".split()]],
        ["a b d c e".split(), ["c"]],
    ),
    "the same references everywhere": (
        [["a b c".split()]] * 3,
        ["a b c".split()] * 3,
    ),
    "perfect": (
        [["a b c d e".split()], ["f g h i".split()]],
        ["a b c d e".split(), [*"fghi"]],
    ),
}


@pytest.mark.parametrize("case", DEGENERATE)
def test_equals_pycocoevalcap_on_degenerate_captions(case):
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # and divides by nothing on the way
        assert_equal_figures(*DEGENERATE[case])


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(
    "kind", ["one reference", "twenty references", "long", "wide vocabulary"]
)
def test_equals_pycocoevalcap_on_corpora_of_every_shape(kind, seed):
    rng = Random(seed)
    sizes = {"one reference": 1, "twenty references": 20}
    words = [
        f"w{int(20 * rng.paretovariate(1))}" for _ in range(3000)
    ]  # few common, many rare
    if kind == "wide vocabulary":
        words = [f"w{i}" for i in range(3000)]
    longest = 60 if kind == "long" else 14

    def caption(shortest=0):
        return rng.choices(words, k=rng.randint(shortest, longest))

    references = [
        [caption() for _ in range(sizes.get(kind, 5))] for _ in range(25)
    ]
    hypotheses = [
        damaged(rng.choice(captions), i, rng)
        for i, captions in enumerate(references)
    ]
    assert_equal_figures(references, hypotheses)


def damaged(words, number, rng):
    """`words` as they are, or with one of six things wrong, in turn."""
    cut = rng.randint(0, len(words))
    wrong = [
        lambda: words,
        lambda: [*words[:cut], *words[cut + 1 :]],
        lambda: [*words[:cut], *words[:cut], *words],
        lambda: words[::-1],
        lambda: [
            "never-seen" if rng.random() < 0.3 else word for word in words
        ],
        lambda: words[:1] * 7,
        lambda: [],
    ]
    return list(wrong[number % len(wrong)]())


def flickr8k_references():
    """All captions of Flickr8k's 1,000 validation images."""
    folder = os.environ.get("FLICKR8K_DIR")
    if not folder:
        pytest.skip("set FLICKR8K_DIR to the folder of dataset_flickr8k.json")
    records = read_json(f"{folder}/dataset_flickr8k.json")["images"]
    references = [
        [sentence["tokens"] for sentence in record["sentences"]]
        for record in records
        if record["split"] == "val"
    ]
    assert len(references) == 1000
    return references


def test_equals_pycocoevalcap_on_a_thousand_images_each_person_against_the_others():
    references = flickr8k_references()
    left = [i % len(captions) for i, captions in enumerate(references)]
    hypotheses = [
        captions[k] for captions, k in zip(references, left, strict=True)
    ]
    others = [c[:k] + c[k + 1 :] for c, k in zip(references, left, strict=True)]
    assert_equal_figures(others, hypotheses)


def test_equals_pycocoevalcap_on_a_thousand_images_with_damaged_captions():
    """Words missing, repeated, turned round, never seen; captions empty or of another image."""
    references, rng = flickr8k_references(), Random(0)
    hypotheses = [
        damaged(rng.choice(references[(i + rng.randint(0, 1)) % 1000]), i, rng)
        for i in range(1000)
    ]
    assert_equal_figures(references, hypotheses)


def test_a_thousand_images_score_in_two_seconds():
    rng = Random(0)
    words = [f"w{i}" for i in range(500)]
    references = [
        [rng.choices(words, k=11) for _ in range(5)] for _ in range(1000)
    ]
    hypotheses = [rng.choices(words, k=10) for _ in range(1000)]
    start = time.process_time()
    score(references, hypotheses)
    assert time.process_time() - start < 2


def test_longest_common_subsequence():
    assert (
        longest_common_subsequence("a b c d e".split(), "x b d a e".split())
        == 3
    )
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
    truth = {
        i: [" ".join(words) for words in captions]
        for i, captions in enumerate(references)
    }
    expected = [
        module.Cider().compute_score(
            truth, {i: [" ".join(h)] for i, h in enumerate(hypotheses)}
        )[1]
        for hypotheses in candidates
    ]
    pairs = [(n, i) for n in range(3) for i in range(12)]
    Random(seed).shuffle(pairs)
    pairs = pairs[:25]  # not every image as often
    found = CiderD(references).scores(
        [i for _, i in pairs], [candidates[n][i] for n, i in pairs]
    )
    assert found.shape == (25,) and found.dtype == np.float64
    assert found == pytest.approx(
        [100 * expected[n][i] for n, i in pairs], abs=1e-6
    )


@pytest.mark.parametrize("seed", range(3))
def test_cider_d_as_a_reward_equals_the_plain_form(seed):
    references, hypotheses = random_captions(seed)
    plain = cider_d_scores(references, hypotheses)
    found = CiderD(references).scores(range(len(references)), hypotheses)
    assert found == pytest.approx(plain, abs=1e-9)


def test_cider_d_keeps_the_rarities_of_its_corpus():
    """A few images, with the corpus they came from, score as they did among all the others."""
    references, hypotheses = random_captions(5)
    among_all = cider_d_scores(references, hypotheses)
    some = [3, 17, 4]
    few = CiderD([references[i] for i in some], corpus=references)
    found = few.scores(range(3), [hypotheses[i] for i in some])
    assert found == pytest.approx(among_all[some], abs=1e-9)
    alone = cider_d_scores(
        [references[i] for i in some], [hypotheses[i] for i in some]
    )
    assert np.abs(alone - found).max() > 1


def test_cider_d_of_a_step_of_training_takes_a_fraction_of_a_second():
    """Five captions of each of 64 images, against the references of a training split."""
    rng = Random(0)
    words = [f"w{i}" for i in range(500)]
    references = [
        [rng.choices(words, k=11) for _ in range(5)] for _ in range(1000)
    ]
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
        ([2], [["a"]], "image 2: out of range, there are 2"),
        ([-1], [["a"]], "image -1: out of range, there are 2"),
        ([1], ["a dog"], "image 1: .* list of words"),
    ],
)
def test_cider_d_refuses_what_it_can_not_score(images, hypotheses, message):
    with pytest.raises(ValueError, match=message):
        CiderD(GOOD[0]).scores(images, hypotheses)


def test_cider_d_refuses_a_corpus_that_is_none():
    for corpus in ([], [[]], [["a dog"]]):
        with pytest.raises(
            ValueError, match="no images|at least one reference|list of words"
        ):
            CiderD(GOOD[0], corpus=corpus)
        with pytest.raises(
            ValueError, match="no images|at least one reference|list of words"
        ):
            CiderD(corpus)


def test_cider_d_of_no_captions_is_no_scores():
    assert CiderD(GOOD[0]).scores([], []).shape == (0,)


def test_a_score_does_not_depend_on_the_order_of_images():
    references, hypotheses = random_captions(0)
    turned = score(references[::-1], hypotheses[::-1])
    assert turned == pytest.approx(score(references, hypotheses), abs=1e-9)


def test_intervals_hold_the_score_and_narrow_with_more_images():
    references, hypotheses = random_captions(0, images=40, shortest=4)
    figures, bounds = (
        score(references, hypotheses),
        intervals(references, hypotheses),
    )
    assert list(bounds) == list(FIGURES)
    for name, (low, high) in bounds.items():
        assert low < figures[name] < high
    more = intervals(references * 9, hypotheses * 9)
    low, high = bounds["bleu1"]
    assert more["bleu1"][1] - more["bleu1"][0] == pytest.approx(
        (high - low) / 3, rel=0.2
    )


def test_intervals_equal_a_bootstrap_that_scores_every_resample():
    references, hypotheses = random_captions(1, images=12, shortest=4)
    rng, values = np.random.default_rng(7), []
    for _ in range(50):
        drawn = rng.integers(12, size=12)
        values.append(
            bleu([references[i] for i in drawn], [hypotheses[i] for i in drawn])
        )
    for name in ("bleu1", "bleu4"):
        low, high = np.percentile([value[name] for value in values], [5, 95])
        found = intervals(
            references, hypotheses, resamples=50, seed=7, confidence=0.9
        )[name]
        assert found == pytest.approx([low, high], abs=1e-9)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    ("confidence", "expected"), [(0.95, [25, 100]), (0.8, [100 / 3, 250 / 3])]
)
def test_intervals_of_three_images_worked_by_hand(seed, confidence, expected):
    """Single images have 25, 50 and 100, by BLEU-1 and by ROUGE-L.

    The worst alone is one resample of 27, more than the 2.5% that the wider interval leaves out
    below; twice the worst and once the next are three more. Likewise above.
    """
    references = [[[*"abcd"]], [[*"efgh"]], [[*"ijkl"]]]
    hypotheses = [[*"axyz"], [*"efyz"], [*"ijkl"]]
    found = intervals(references, hypotheses, seed=seed, confidence=confidence)
    assert found["bleu1"] == pytest.approx(expected, abs=1e-6)
    assert found["rouge_l"] == pytest.approx(expected, abs=1e-6)


def test_intervals_repeat_with_the_seed():
    captions = random_captions(2)
    assert intervals(*captions, seed=3) == intervals(*captions, seed=3)
    assert intervals(*captions, seed=3) != intervals(*captions, seed=4)


def test_one_image_has_an_interval_of_no_width():
    references, hypotheses = [["a b c d e".split()]], ["a b c d".split()]
    low, high = intervals(references, hypotheses, resamples=5)["bleu4"]
    assert low == high == pytest.approx(score(references, hypotheses)["bleu4"])


# ------------------------------------------------------------------------------- paired bootstrap


def two_systems(seed, images=40):
    """References, and two systems' captions of the same images."""
    references, first = random_captions(seed, images=images, shortest=4)
    return (
        references,
        first,
        random_captions(seed + 100, images=images, shortest=4)[1],
    )


def test_a_system_does_not_differ_from_itself():
    references, first, _ = two_systems(0)
    compared = paired_bootstrap(references, first, list(first))
    assert list(compared) == list(FIGURES)
    for difference, interval, better in compared.values():
        assert difference == 0 and interval == [0, 0] and better == 0


def test_the_difference_is_that_of_the_scores():
    references, first, second = two_systems(1)
    before, after = score(references, first), score(references, second)
    for name, row in paired_bootstrap(
        references, first, second, resamples=10
    ).items():
        assert row.difference == pytest.approx(
            after[name] - before[name], abs=1e-9
        )


@pytest.mark.parametrize("seed", range(3))
def test_turned_round_the_difference_is_negated(seed):
    references, first, second = two_systems(seed)
    there = paired_bootstrap(references, first, second, resamples=200)
    back = paired_bootstrap(references, second, first, resamples=200)
    for name in FIGURES:
        assert back[name].difference == -there[name].difference
        low, high = there[name].interval
        assert back[name].interval == pytest.approx([-high, -low], abs=1e-9)
        assert (
            0 <= there[name].second_better + back[name].second_better <= 1
        )  # less where equal


def test_paired_bootstrap_equals_one_that_scores_every_resample():
    references, first, second = two_systems(2, images=12)
    rng, differences = np.random.default_rng(7), []
    for _ in range(50):
        drawn = rng.integers(12, size=12)
        some = [references[i] for i in drawn]
        after = bleu(some, [second[i] for i in drawn])
        before = bleu(some, [first[i] for i in drawn])
        differences.append([after[name] - before[name] for name in FIGURES[:4]])
    found = paired_bootstrap(
        references, first, second, resamples=50, seed=7, confidence=0.9
    )
    for name, values in zip(FIGURES, np.transpose(differences), strict=False):
        assert found[name].interval == pytest.approx(
            np.percentile(values, [5, 95]), abs=1e-9
        )
        assert found[name].second_better == np.mean(values > 0)


def test_paired_bootstrap_repeats_with_the_seed():
    systems = two_systems(3)
    assert paired_bootstrap(*systems, seed=3) == paired_bootstrap(
        *systems, seed=3
    )
    assert paired_bootstrap(*systems, seed=3) != paired_bootstrap(
        *systems, seed=4
    )


def test_a_pair_knows_more_than_two_intervals():
    """Every tenth caption gets a word wrong: the intervals overlap, the difference is certain."""
    references, first, _ = two_systems(4, images=200)
    second = [
        ["wrong", *words[1:]] if i % 10 == 0 else words
        for i, words in enumerate(first)
    ]
    low, _ = intervals(references, first)["rouge_l"]
    _, high = intervals(references, second)["rouge_l"]
    compared = paired_bootstrap(references, first, second)["rouge_l"]
    assert low < high
    assert compared.interval[1] < 0 and compared.second_better == 0


def test_about_nine_in_ten_intervals_of_90_percent_hold_the_truth():
    """Samples of a population whose mean is known: the interval covers it about as often as said.

    A mean stands for a figure; ROUGE-L and CIDEr-D are means over images.
    """
    rng, held = np.random.default_rng(0), []
    population = rng.exponential(size=100_000)
    for seed in range(200):
        sample = rng.choice(population, size=60)[:, None]
        means = resampled_sums(sample, resamples=300, seed=seed)[:, 0] / 60
        low, high = percentile_interval(means, 0.9)
        held.append(low < population.mean() < high)
    assert 0.83 < np.mean(held) < 0.95


def test_the_same_seed_draws_the_same_images_for_any_statistics():
    rng = np.random.default_rng(0)
    statistics = rng.normal(size=(30, 4))
    together = resampled_sums(statistics, resamples=20, seed=5)
    assert together.shape == (20, 4)
    alone = resampled_sums(statistics[:, 2:3], resamples=20, seed=5)
    assert alone[:, 0] == pytest.approx(together[:, 2])


@pytest.mark.parametrize("confidence", [0, 1, 95, -0.1])
def test_a_confidence_that_is_none_is_refused(confidence):
    with pytest.raises(ValueError, match="between 0 and 1"):
        percentile_interval(np.arange(10), confidence)


GOOD = ([[["a", "dog"]], [["a", "cat"]]], [["a", "dog"], ["a", "cat"]])
BAD = {
    "fewer hypotheses": (
        GOOD[0],
        GOOD[1][:1],
        "references for 2 images, but 1 hypotheses",
    ),
    "no images": ([], [], "no images"),
    "no reference": (
        [GOOD[0][0], []],
        GOOD[1],
        "image 1: expected at least one reference",
    ),
    "a hypothesis that is a string": (
        GOOD[0],
        [["a"], "a cat"],
        "image 1: .* list of words",
    ),
    "a reference that is a string": (
        [["a dog"], [["a"]]],
        GOOD[1],
        "image 0: .* list of words",
    ),
    "a level too few": (
        [["a", "dog"], ["a", "cat"]],
        GOOD[1],
        "image 0: .* list of words",
    ),
    "a level too many": (
        GOOD[0],
        [[["a", "dog"]], [["a"]]],
        "image 0: .* list of words",
    ),
    "word ids": (GOOD[0], [[1, 2], [3]], "image 0: .* list of words"),
    "nothing for an image": (
        GOOD[0],
        [["a"], None],
        "image 1: .* list of words",
    ),
    "strings for references": (
        ["a dog", "a cat"],
        GOOD[1],
        "image 0: expected at least one",
    ),
}


@pytest.mark.parametrize(
    "function",
    [score, bleu, rouge_l_scores, cider_d_scores, intervals, meteor],
)
@pytest.mark.parametrize("case", BAD)
def test_what_is_not_a_caption_is_refused(function, case):
    references, hypotheses, message = BAD[case]
    with pytest.raises(ValueError, match=message):
        function(references, hypotheses)


@pytest.mark.parametrize("case", BAD)
def test_what_is_not_a_caption_is_refused_of_either_system(case):
    references, hypotheses, message = BAD[case]
    good = GOOD[1] if references == GOOD[0] else hypotheses
    for pair in ((good, hypotheses), (hypotheses, good)):
        with pytest.raises(ValueError, match=message):
            paired_bootstrap(references, *pair)


def test_tuples_are_captions_too():
    references, hypotheses = random_captions(3)
    tuples = [tuple(map(tuple, captions)) for captions in references]
    assert score(tuples, [tuple(h) for h in hypotheses]) == score(
        references, hypotheses
    )
