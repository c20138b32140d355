"""Chapter 07: fooling BLEU, its penalty and mean; CIDEr's rarity; a paired
interval."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np

from captionlib.exercises.answers import (
    Wrong,
    also,
    call,
    close,
    compare,
    describe,
    number,
    parts,
    shown,
    words,
)
from captionlib.metrics import bleu

PEOPLE = [
    "a brown dog is running on the grass".split(),
    "a dog runs across a green field".split(),
    "the dog is playing on the green grass outside".split(),
]


def exercise_1(caption) -> str:
    """Five right words without a right pair."""
    caption = words(caption, "your caption")
    if len(caption) != 5:
        raise Wrong(f"expected five words, but yours has {len(caption)}")
    most: Counter = Counter()
    pairs: set = set()
    for reference in PEOPLE:
        most |= Counter(reference)
        pairs |= set(zip(reference, reference[1:], strict=False))
    for word, count in Counter(caption).items():
        if word not in most:
            raise Wrong(
                f'no person said "{word}", so it is no match for BLEU-1'
            )
        if count > most[word]:
            times = {1: "once", 2: "twice"}.get(
                most[word], f"{most[word]} times"
            )
            raise Wrong(
                f'"{word}" stands {count} times in yours, and no person said it more than '
                f"{times}: the others are clipped"
            )
    for pair in zip(caption, caption[1:], strict=False):
        if pair in pairs:
            raise Wrong(
                f'"{" ".join(pair)}" is a pair that a person used, so BLEU-2 is not 0'
            )
    figures = bleu([PEOPLE], [caption])
    return (
        f"BLEU-1 {figures['bleu1']:.0f}, BLEU-2 {figures['bleu2']:.0f}. All "
        "five words are right, and what BLEU-1 lacks to 100 is for being short."
    )


def exercise_2(brevity_penalty) -> str:
    """One penalty for a corpus, by the closest lengths."""

    def captions(*lengths):
        # In alphabetical order the longest is first. Each word is another.
        return [
            [f"word{99 - length}{i}" for i in range(length)]
            for length in lengths
        ]

    # Closest: 6 and not 10 (a tie with 8); 12; 7. Together 25, against 8 + 6 +
    # 4 = 18 words.
    references = [captions(10, 6), captions(12, 14), captions(12, 7)]
    hypotheses = captions(8, 6, 4)
    closest = ([6, 12, 7], [8, 6, 4])

    def penalty(lengths, ours):
        return min(1.0, math.exp(1 - sum(lengths) / sum(ours)))

    got = number(call(brevity_penalty, references, hypotheses), "the penalty")
    compare(
        got,
        penalty(*closest),
        [
            (
                min(1.0, math.exp(1 - 18 / 25)),
                "18 words against 25 go without a penalty. Perhaps the fraction "
                "is upside down: r, the reference length, goes above c",
            ),
            (
                math.exp(1 - 18 / 25),
                "a penalty above 1 rewards, and here it rewards being short: "
                "is the fraction upside down?",
            ),
            (
                penalty([10, 12, 7], [8, 6, 4]),
                "10 and 6 words are equally far from 8, and you took the "
                "longer; BLEU takes the shorter of two that are equally close",
            ),
            (
                penalty([10, 14, 12], [8, 6, 4]),
                "you took the longest reference of each image; take the one "
                "closest in length",
            ),
            (
                penalty([8, 13, 9.5], [8, 6, 4]),
                "you took the average length of each image's references; take "
                "that of the one closest in length",
            ),
            (
                sum(penalty([r], [c]) for r, c in zip(*closest, strict=True))
                / 3,
                "that is the mean of three penalties. BLEU adds up the lengths "
                "of the corpus first: one short caption is forgiven beside a "
                "long one",
            ),
            (
                sum(
                    penalty([r], [c])
                    for r, c in zip([10, 12, 7], [8, 6, 4], strict=True)
                )
                / 3,
                "that is the mean of three penalties, and of two equally close "
                "it takes the longer reference: add up lengths, and take the "
                "shorter",
            ),
        ],
        what="the penalty",
    )
    twice = [["a", "dog", "and", "a", "cat"]]
    got = number(
        call(brevity_penalty, [twice], [["a", "a", "a", "dog"]]), "the penalty"
    )
    compare(
        got,
        penalty([5], [4]),
        otherwise='"a a a dog" has four words, and "a dog and a cat" five: a '
        f"word that is repeated is counted again; you have {shown(got, 0.7788)}",
    )
    # The shortest is not the closest: 5 of [2, 5], against 6 words.
    got = number(
        call(brevity_penalty, [captions(9, 5, 2)], captions(6)), "the penalty"
    )
    compare(
        got,
        1.0,
        [
            (
                math.exp(1 - 5 / 6),
                "a caption longer than its reference gets more than 1: there "
                "is no reward for length, `min(1, ...)`",
            )
        ],
        "6 words against 9, 5 and 2: no penalty, since the closest, 5, is "
        f"shorter; you have {shown(got, 1)}",
    )
    got = number(
        call(brevity_penalty, [captions(9, 7, 2)], captions(6)), "the penalty"
    )
    compare(
        got,
        math.exp(1 - 7 / 6),
        [
            (
                1.0,
                "6 words against 9, 7 and 2 go without a penalty: closest is 7, "
                "and it seems you took the shortest",
            )
        ],
        what="the penalty of 6 words against 9, 7 and 2",
    )

    def right(references, hypotheses):
        lengths = [len(each) for each in hypotheses]
        nearest = []
        for group, ours in zip(references, lengths, strict=True):
            both_ways = [(abs(len(each) - ours), len(each)) for each in group]
            nearest.append(min(both_ways)[1])
        return penalty(nearest, lengths)

    got = number(
        call(brevity_penalty, [captions(5), captions(4)], captions(0, 4)),
        "the penalty",
    )
    compare(
        got,
        penalty([5, 4], [0, 4]),
        [
            (
                1.0,
                "an empty hypothesis has no words, but its image still has a "
                "reference length, which counts",
            )
        ],
        what="the penalty of 0 and 4 words against 5 and 4",
    )
    for references, ours in (
        ([[5]], [3]),
        ([[4, 8], [9, 3, 5]], [6, 4]),
        ([[20, 12], [9], [7, 3]], [11, 2, 5]),
        ([[9], [5]], [4, 11]),
    ):
        given = [captions(*each) for each in references], captions(*ours)
        compare(
            number(call(brevity_penalty, *given), "the penalty"),
            right(*given),
            what=f"the penalty of hypotheses of {ours} words against "
            f"references of {references}",
            tolerance=1e-4,
        )
    return "one caption may be short if another makes up for it, which no single caption knows."


def exercise_3(mean_precision) -> str:
    """The geometric mean of a corpus's precisions."""
    matched = np.array([[6, 4, 2, 1], [3, 1, 0, 0]], dtype=float)
    # The second caption has three words, and no run of four.
    possible = np.array([[8, 7, 6, 5], [3, 2, 1, 0]], dtype=float)
    corpus = matched.sum(axis=0) / possible.sum(axis=0)
    each = matched / np.maximum(possible, 1)
    for n in (2, 3, 4):
        got = number(
            call(mean_precision, matched, possible, n), f"the mean for n = {n}"
        )
        compare(
            got,
            corpus[:n].prod() ** (1 / n),
            [
                (
                    corpus[:n].mean(),
                    "that is the arithmetic mean; BLEU multiplies, and takes "
                    "the n-th root",
                ),
                (
                    (each[:, :n].prod(axis=1) ** (1 / n)).mean(),
                    "that is the average of the images' own scores. Add up "
                    "matches and n-grams of all images, and divide once",
                ),
                (
                    each[:, :n].mean(axis=0).prod() ** (1 / n),
                    "you average each image's precision; a long caption should "
                    "count for more. Add up matches and n-grams first, and "
                    "divide once",
                ),
                (
                    each[0, :n].prod() ** (1 / n),
                    "the second caption is left out. It has no run of four "
                    "words, but it has words, and the corpus's sums are not 0",
                ),
                (
                    100 * corpus[:n].prod() ** (1 / n),
                    "a share is asked for, from 0 to 1, and yours is 100 times as much",
                ),
                (
                    corpus[n - 1],
                    f"that is the precision of {n}-grams alone; BLEU-{n} is "
                    f"the mean of all from 1 to {n}",
                ),
                (
                    corpus[:n].prod(),
                    "the product is right, and its n-th root is missing",
                ),
                (
                    corpus[:n].prod() ** (1 / 4),
                    "you take the fourth root whatever n is, so BLEU-2 looks "
                    "like a BLEU-4",
                ),
                (
                    corpus[: n - 1].prod() ** (1 / n),
                    "one column is missing: [:, :n] are the first n, so for n "
                    f"= {n} the columns 0 to {n - 1}",
                ),
            ],
            what=f"the mean for n = {n}",
        )
    rng = np.random.default_rng(0)
    others = []
    for images, n in ((1, 1), (5, 4), (3, 1), (4, 2), (8, 3), (4, 4)):
        long = rng.integers(6, 15, size=images)[:, None] - np.arange(4.0)
        others.append((np.ceil(long * rng.uniform(size=(images, 4))), long, n))
    also(
        mean_precision,
        lambda matched, possible, n: math.exp(
            sum(
                math.log(matched[:, k].sum() / possible[:, k].sum())
                for k in range(n)
            )
            / n
        ),
        *others,
        what="the mean",
    )
    compare(
        number(call(mean_precision, matched[1:], possible[1:], 3), "the mean"),
        0.0,
        otherwise="a corpus of the second image alone, where not one triple "
        "matches, has a BLEU-3 of 0",
    )
    return "the second image alone would have a BLEU-3 of 0; in the corpus its words still count."


def exercise_4(rarity) -> str:
    """In how many images' references a word occurs."""
    references = [
        [["a", "dog", "a"], ["the", "dog"]],
        [["a", "cat"], ["a", "kitten"]],
        [["a", "red", "red", "car"], ["the", "car"]],
        [["the", "sea"], ["waves"]],
    ]
    images_with = {
        "a": 3,
        "dog": 1,
        "the": 3,
        "cat": 1,
        "kitten": 1,
        "red": 1,
        "car": 1,
        "sea": 1,
    }
    images_with |= {"waves": 1}
    captions_with = images_with | {"a": 4, "dog": 2, "car": 2}
    uses = captions_with | {"a": 5, "red": 2}
    got = call(rarity, references)
    if not isinstance(got, dict):
        raise Wrong(
            f"expected a dictionary from words to numbers, not {describe(got)}"
        )
    if missing := sorted(set(images_with) - set(got)):
        raise Wrong(f'"{missing[0]}" is missing from your dictionary')
    if extra := sorted(set(got) - set(images_with), key=str):
        raise Wrong(
            f"{extra[0]!r} is in your dictionary, and no reference has such a "
            "word"
        )
    got = {
        word: number(value, f'the rarity of "{word}"')
        for word, value in got.items()
    }

    def weights(images, counts):
        return {
            word: math.log(images / count) for word, count in counts.items()
        }

    compare(
        got,
        weights(4, images_with),
        [
            (
                weights(8, images_with),
                "you divide the number of captions, 8, by images. It is 4 "
                "images; otherwise a word that all images have would still "
                "weigh something",
            ),
            (
                weights(8, captions_with),
                'you count captions. Five people who say "dog" of one image make it no less '
                "rare: count images, each once",
            ),
            (
                weights(4, captions_with),
                'you count captions in place of images: "dog" is in two captions, but of '
                "one image",
            ),
            (
                weights(4, uses),
                'you count every use of a word; an image that says "a" five times still is one '
                'image with "a"',
            ),
            (
                {
                    word: -value
                    for word, value in weights(4, images_with).items()
                },
                "the signs are reversed: rare words should weigh more, "
                "log(images / images with it)",
            ),
            (
                {word: 4 / count for word, count in images_with.items()},
                "the logarithm is missing",
            ),
            (
                {
                    word: math.log2(4 / count)
                    for word, count in images_with.items()
                },
                "that is the logarithm to base 2; CIDEr takes the natural one",
            ),
        ],
        what="the dictionary",
    )

    def right(references):
        sets = [{w for each in group for w in each} for group in references]
        return {
            word: math.log(len(sets) / sum(word in each for each in sets))
            for word in set().union(*sets)
        }

    also(
        lambda given: {
            word: number(value, f'the rarity of "{word}"')
            for word, value in rarity(given).items()
        },
        right,
        (references[:3],),
        ([[["a", "a"], ["dog"]]],),
        ([[["the", "sea"]], [["sea", "the"]], [["the"]]] * 3,),
        # Three images have the same caption, and still are three.
        ([[["a", "dog"]]] * 3 + [[["a", "sea"]], [["dog"], ["the", "sea"]]],),
        what="the dictionary",
    )
    return 'a word that every image has weighs nothing: that is why "a" and "the" hardly count.'


def exercise_5(paired_interval) -> str:
    """A confidence interval for the difference of two systems."""
    rng = np.random.default_rng(0)
    # Images differ far more than the two systems do.
    first = rng.normal(50, 20, size=40)
    second = first + rng.normal(2, 3, size=40)
    draws = rng.integers(40, size=(400, 40))

    def interval(*given):
        got = call(paired_interval, *given)
        if isinstance(got, np.ndarray):
            got = tuple(got)
        low, high = parts(got, "low", "high")
        return [number(low, "low"), number(high, "high")]

    got = interval(first, second, draws)
    one, two = first[draws].mean(axis=1), second[draws].mean(axis=1)

    def middle(values, tail=2.5):
        return np.percentile(values, [tail, 100 - tail]).tolist()

    low, high = middle(two - one)
    if _is_middle(got, two - one):
        got = [low, high]
    if close(got, [high, low], 1e-3):
        raise Wrong("low and high are swapped")
    compare(
        got,
        [low, high],
        [
            (
                middle(one - two),
                "the sign is reversed: second minus first, so that above 0 "
                "means that the second is better",
            ),
            (
                [bound * 40 for bound in (low, high)],
                "these are differences of sums over 40 images; take the means",
            ),
            (
                np.percentile((second - first)[draws], [2.5, 97.5]).tolist(),
                "this is the range of single images. Take the mean of the "
                "images in each draw first",
            ),
            (
                middle(100 * (two / one - 1)),
                "these are per cents of the first system's score; the "
                "difference of the two means is asked for",
            ),
            (
                middle(second - first),
                "this is the range of single images. Take the mean of the 40 "
                "images in each draw, and the range of these means",
            ),
            (
                middle(two - one, 5),
                "the middle 95% leave out 2.5% at either end; you leave out 5",
            ),
            (
                np.percentile(two - one, [0.025, 0.975]).tolist(),
                "`np.percentile` counts from 0 to 100: 2.5 and 97.5",
            ),
            (
                [a - b for a, b in zip(middle(two), middle(one), strict=True)],
                "you subtract the bounds of two intervals. Take the difference "
                "in each draw first, then the percentiles of the differences",
            ),
        ],
        f"from {got[0]:.2f} to {got[1]:.2f} is far too wide: is it of the mean "
        "over your draw's images, and do both systems have the same ones?"
        if got[1] - got[0] > 2 * (high - low)
        else f"your interval is {shown(got[0], low)} to "
        f"{shown(got[1], high)}, expected {shown(low, got[0])} to "
        f"{shown(high, got[1])}; is it of the mean over each draw's images, "
        "second minus first?",
        tolerance=1e-3,
    )
    for images, many in ((7, 200), (25, 999), (200, 200)):
        first, second = rng.normal(50, 5, size=(2, images))
        draws = rng.integers(images, size=(many, images))
        got = interval(first, second, draws)
        values = (second - first)[draws].mean(axis=1)
        if not _is_middle(got, values):
            compare(
                got,
                middle(values),
                what=f"the interval of {images} images and {many} draws",
                tolerance=1e-3,
            )
    alone = middle(two)
    return (
        f"the pair's interval is {high - low:.1f} wide, and that of the second "
        f"system by itself {alone[1] - alone[0]:.1f}: the part of the "
        "variation that both share has cancelled out."
    )


def _is_middle(bounds: list[float], values: np.ndarray) -> bool:
    """Whether these are the bounds of the middle 95%, by any convention: which
    of two values it is, or a point between, differs among textbooks."""
    ordered = np.sort(values)
    return all(
        ordered[math.floor(at * len(ordered)) - 1] - 1e-4 <= bound
        and bound <= ordered[math.ceil(at * len(ordered))] + 1e-4
        for bound, at in zip(bounds, (0.025, 0.975), strict=True)
    )
