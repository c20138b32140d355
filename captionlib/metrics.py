"""BLEU, and its neighbours.

Chapter 07 of the book, notebooks/07_bleu.ipynb, explains this module and
generates it: edit the chapter, not this file, then run `make export`.
"""

import math
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from captionlib.io.meteor import meteor_of, meteor_statistics

__all__ = [
    "CiderD",
    "Difference",
    "FIGURES",
    "Words",
    "bleu",
    "bleu_of",
    "bleu_statistics",
    "check_caption",
    "check_captions",
    "check_references",
    "cider_d_scores",
    "figures_of",
    "image_statistics",
    "intervals",
    "longest_common_subsequence",
    "meteor",
    "ngram_counts",
    "paired_bootstrap",
    "percentile_interval",
    "resampled_sums",
    "rouge_l_scores",
    "score",
]


Words = Sequence[str]  # a caption


def ngram_counts(words: Words, longest: int = 4) -> Counter[tuple[str, ...]]:
    """How often each run of one to `longest` words occurs in `words`."""
    return Counter(
        ngram
        for n in range(1, longest + 1)
        for ngram in zip(
            *(words[i:] for i in range(n)), strict=False
        )  # stop at the last word
    )


def check_caption(caption: Words, image: int) -> None:
    """Stop if `caption`, of image number `image`, is anything but a list (or tuple) of strings.

    Raises:
        ValueError: it is.
    """
    if not isinstance(caption, list | tuple) or not all(
        isinstance(word, str) for word in caption
    ):
        raise ValueError(
            f"image {image}: expected a caption as a list of words, got {caption!r}"
        )


def check_references(references: Sequence) -> None:
    """Stop at the first image whose references are not captions.

    Raises:
        ValueError: if there are no images, if an image has no reference, or as `check_caption`.
    """
    if len(references) == 0:
        raise ValueError("no images to score")
    for image, captions in enumerate(references):
        if not isinstance(captions, list | tuple) or not captions:
            raise ValueError(
                f"image {image}: expected at least one reference, in a list, got {captions!r}"
            )
        for caption in captions:
            check_caption(caption, image)


def check_captions(references: Sequence, hypotheses: Sequence) -> None:
    """Stop at the first thing that is not a caption.

    Raises:
        ValueError: if the two differ in length, or as `check_references` and `check_caption`.
    """
    if len(references) != len(hypotheses):
        raise ValueError(
            f"references for {len(references)} images, but {len(hypotheses)} hypotheses"
        )
    check_references(references)
    for image, hypothesis in enumerate(hypotheses):
        check_caption(hypothesis, image)


def bleu_statistics(
    references: Sequence[Sequence[Words]], hypotheses: Sequence[Words]
) -> np.ndarray:
    """All that BLEU needs to know of each image, as counts that add up over a corpus.

    Args:
        references: for each of I images, its captions, each a list of words.
        hypotheses: for each image, the generated caption, a list of words.

    Returns:
        (I, 9) float64: matched n-grams for n = 1 to 4, clipped; n-grams of the hypothesis for
        n = 1 to 4 (the first is its length); the length of the reference closest in length, of two
        equally close the shorter.

    Raises:
        ValueError: as `check_captions`.

    Source: Papineni et al. 2002 (doi:10.3115/1073083.1073135), section 2.
    """
    check_captions(references, hypotheses)
    rows = []
    for captions, hypothesis in zip(references, hypotheses, strict=True):
        most: Counter = Counter()
        for caption in captions:
            most |= ngram_counts(caption)
        matched = [0] * 4
        for ngram, count in (ngram_counts(hypothesis) & most).items():
            matched[len(ngram) - 1] += count
        length = len(hypothesis)
        possible = [max(0, length - n) for n in range(4)]
        closest = min(
            (abs(len(caption) - length), len(caption)) for caption in captions
        )[1]
        rows.append([*matched, *possible, closest])
    return np.array(rows, dtype=float)


def bleu_of(sums: np.ndarray) -> np.ndarray:
    """BLEU-1 to BLEU-4, ×100, of corpora whose statistics were added up.

    Args:
        sums: (..., 9) rows of `bleu_statistics`, summed over images.

    Returns:
        (..., 4) float64.
    """
    matched, possible, closest = sums[..., :4], sums[..., 4:8], sums[..., 8:]
    precisions = (matched + 1e-15) / (possible + 1e-9)
    means = np.cumprod(precisions, axis=-1) ** (1 / np.arange(1, 5))
    ratio = (possible[..., :1] + 1e-15) / (closest + 1e-9)
    return 100 * means * np.exp(np.minimum(0, 1 - 1 / ratio))


def bleu(
    references: Sequence[Sequence[Words]], hypotheses: Sequence[Words]
) -> dict[str, float]:
    """Corpus BLEU as `pycocoevalcap` computes it, ×100: keys "bleu1" to "bleu4".

    It is NLTK's `corpus_bleu` where every hypothesis has at least four words and some 4-gram
    matches. Arguments and errors as for `bleu_statistics`.
    """
    values = bleu_of(bleu_statistics(references, hypotheses).sum(axis=0))
    return {f"bleu{n}": float(value) for n, value in enumerate(values, 1)}


def longest_common_subsequence(
    first: Sequence[str], second: Sequence[str]
) -> int:
    """Length of the longest sequence of words found in both, in order, gaps allowed."""
    lengths = [0] * (
        len(second) + 1
    )  # of the words of `first` so far, with second[:j]
    for word in first:
        diagonal = 0
        for j, other in enumerate(second, 1):
            longest = (
                diagonal + 1
                if word == other
                else max(lengths[j - 1], lengths[j])
            )
            diagonal, lengths[j] = lengths[j], longest
    return lengths[-1]


def rouge_l_scores(
    references: Sequence[Sequence[Words]],
    hypotheses: Sequence[Words],
    beta: float = 1.2,
) -> np.ndarray:
    """ROUGE-L of each image, ×100: (I,) float64. A corpus has their mean.

    Best precision and best recall over the references are combined, recall weighing `beta`² times
    as much, as in `pycocoevalcap`. Arguments and errors as for `bleu_statistics`.

    Source: Lin 2004 (aclanthology.org/W04-1013), section 3.1.
    """
    check_captions(references, hypotheses)
    scores = []
    for captions, hypothesis in zip(references, hypotheses, strict=True):
        words = hypothesis or [
            ""
        ]  # pycocoevalcap takes no words for one empty word
        filled = [caption or [""] for caption in captions]
        common = [
            longest_common_subsequence(caption, words) for caption in filled
        ]
        precision = max(common) / len(words)
        recall = max(
            n / len(caption) for n, caption in zip(common, filled, strict=True)
        )
        weighted = recall + beta**2 * precision
        scores.append(
            (1 + beta**2) * precision * recall / weighted if weighted else 0.0
        )
    return 100 * np.array(scores)


class CiderD:
    """CIDEr-D against fixed references, for any number of captions of any of their images.

    Args:
        references: for each of I images, its captions, each a list of words.
        corpus: the captions of the images over which it is counted how rare an n-gram is, in the
            same form; None means `references`. So the company an image is in can stay the same
            while what is scored changes: an epoch of training scores the captions of one batch
            after another.
        sigma: width, in words, of the penalty on a difference in length.

    Raises:
        ValueError: as `check_references`.

    Source: Vedantam et al. 2015 (arXiv:1411.5726), section 6, with `pycocoevalcap`'s factor 10.
    """

    def __init__(
        self,
        references: Sequence[Sequence[Words]],
        *,
        corpus: Sequence[Sequence[Words]] | None = None,
        sigma: float = 6.0,
    ):
        check_references(references)
        if corpus is None:
            corpus = references
        else:
            check_references(corpus)
        images_with: Counter = Counter()
        for captions in corpus:
            images_with.update(set().union(*map(ngram_counts, captions)))
        self.references, self.sigma = references, sigma
        self.rarest = math.log(
            len(corpus)
        )  # of an n-gram that no image of the corpus has
        self.rarity = {
            ngram: self.rarest - math.log(n) for ngram, n in images_with.items()
        }

    def scores(
        self, images: Sequence[int], hypotheses: Sequence[Words]
    ) -> np.ndarray:
        """CIDEr-D of each hypothesis, ×100.

        Args:
            images: (N,) row numbers in `references`, the same one as often as it has hypotheses.
            hypotheses: N captions, each a list of words.

        Returns:
            (N,) float64, from 0 (nothing in common) to 1000 (the one reference, word for word).

        Raises:
            ValueError: if the two differ in length, if a number is none of an image, or as
                `check_caption`.
        """
        images = [int(image) for image in images]
        if len(images) != len(hypotheses):
            raise ValueError(
                f"{len(images)} image numbers, but {len(hypotheses)} hypotheses"
            )
        rows_of: dict[int, list[int]] = {}
        for row, (image, hypothesis) in enumerate(
            zip(images, hypotheses, strict=True)
        ):
            if not 0 <= image < len(self.references):
                raise ValueError(
                    f"image {image}: there are {len(self.references)} of them, from 0"
                )
            check_caption(hypothesis, image)
            rows_of.setdefault(image, []).append(row)
        scores = np.zeros(len(images))
        for image, rows in rows_of.items():
            references = [
                self._vector(words) for words in self.references[image]
            ]
            for row in rows:
                ours = self._vector(hypotheses[row])
                similarities = [
                    self._similarity(ours, reference)
                    for reference in references
                ]
                scores[row] = 10 * sum(similarities) / len(similarities)
        return 100 * scores

    def _vector(self, words: Words) -> tuple[dict, list[float], int]:
        """Weight of each n-gram, length of the vector for n = 1 to 4, and of the caption."""
        weights, squares = {}, [0.0] * 4
        for ngram, count in ngram_counts(words).items():
            weights[ngram] = weight = count * self.rarity.get(
                ngram, self.rarest
            )
            squares[len(ngram) - 1] += weight * weight
        # pycocoevalcap measures length in pairs, which takes no words and one for the same
        return (
            weights,
            [math.sqrt(square) for square in squares],
            max(1, len(words)),
        )

    def _similarity(self, hypothesis: tuple, reference: tuple) -> float:
        (weights, norms, length), (others, other_norms, other_length) = (
            hypothesis,
            reference,
        )
        products = [0.0] * 4
        for ngram, weight in weights.items():
            if (other := others.get(ngram)) is not None:
                products[len(ngram) - 1] += min(weight, other) * other
        cosines = [
            product / (norm * other)
            for product, norm, other in zip(
                products, norms, other_norms, strict=True
            )
            if norm and other
        ]
        return (
            sum(cosines)
            / 4
            * math.exp(-((length - other_length) ** 2) / (2 * self.sigma**2))
        )


def cider_d_scores(
    references: Sequence[Sequence[Words]],
    hypotheses: Sequence[Words],
    sigma: float = 6.0,
) -> np.ndarray:
    """CIDEr-D of each image, ×100: (I,) float64. A corpus has their mean.

    How rare an n-gram is, is counted over the images given, so the score of one image depends on
    the company it is in. `sigma` as for `CiderD`. Arguments and errors as for `bleu_statistics`.
    """
    check_captions(references, hypotheses)
    return CiderD(references, sigma=sigma).scores(
        range(len(references)), hypotheses
    )


def meteor(
    references: Sequence[Sequence[Words]], hypotheses: Sequence[Words]
) -> float:
    """METEOR of a corpus, ×100, from the Java program in `pycocoevalcap`, which starts slowly.

    It is `meteor_of` on the sum of `meteor_statistics`: `resampled_sums` of these gives intervals.
    Arguments as for `bleu_statistics`.

    Raises:
        InputError: as `meteor_statistics`: above all if Java or `pycocoevalcap` is not there.
        ValueError: as `check_captions`.

    Source: Denkowski and Lavie 2014 (aclanthology.org/W14-3348), section 2.
    """
    check_captions(references, hypotheses)
    return float(
        meteor_of(meteor_statistics(references, hypotheses).sum(axis=0))
    )


FIGURES = ("bleu1", "bleu2", "bleu3", "bleu4", "rouge_l", "cider_d")


def image_statistics(
    references: Sequence[Sequence[Words]], hypotheses: Sequence[Words]
) -> np.ndarray:
    """What each image adds to the corpus: (I, 11), BLEU's nine counts, ROUGE-L and CIDEr-D."""
    return np.column_stack(
        [
            bleu_statistics(references, hypotheses),
            rouge_l_scores(references, hypotheses),
            cider_d_scores(references, hypotheses),
        ]
    )


def figures_of(sums: np.ndarray, images: int) -> np.ndarray:
    """The six `FIGURES`, (..., 6), from `image_statistics` (..., 11) summed over `images`."""
    return np.concatenate(
        [bleu_of(sums[..., :9]), sums[..., 9:] / images], axis=-1
    )


def score(
    references: Sequence[Sequence[Words]], hypotheses: Sequence[Words]
) -> dict[str, float]:
    """BLEU-1 to BLEU-4, ROUGE-L and CIDEr-D of a corpus, all ×100, keyed by `FIGURES`.

    Args:
        references: for each image, a list of captions, each a list of words.
        hypotheses: for each image, a list of words; an empty one is allowed.

    Raises:
        ValueError: as `check_captions`.
    """
    statistics = image_statistics(references, hypotheses)
    values = figures_of(statistics.sum(axis=0), len(statistics))
    return dict(zip(FIGURES, values.tolist(), strict=True))


def resampled_sums(
    statistics: np.ndarray, *, resamples: int = 1000, seed: int = 0
) -> np.ndarray:
    """Sums of what I images add to a corpus, over I of them drawn with replacement, many times.

    Args:
        statistics: (I, C), a row an image.
        resamples: how often to draw.
        seed: the same one draws the same images, whatever the statistics: so systems can be
            compared in pairs.

    Returns:
        (resamples, C) float64.

    Source: Koehn 2004 (aclanthology.org/W04-3250), section 3.
    """
    images = len(statistics)
    rng = np.random.default_rng(seed)
    sums = [
        np.bincount(rng.integers(images, size=images), minlength=images)
        @ statistics
        for _ in range(resamples)
    ]
    return np.array(sums)


def percentile_interval(
    values: np.ndarray, confidence: float = 0.95
) -> np.ndarray:
    """The bounds of the middle `confidence` of `values` (resamples, ...): (2, ...), low and high.

    Raises:
        ValueError: if `confidence` is not between 0 and 1.
    """
    if not 0 < confidence < 1:
        raise ValueError(
            f"confidence must be between 0 and 1, got {confidence}"
        )
    tail = 50 * (1 - confidence)
    return np.percentile(values, [tail, 100 - tail], axis=0)


def intervals(
    references: Sequence[Sequence[Words]],
    hypotheses: Sequence[Words],
    *,
    resamples: int = 1000,
    seed: int = 0,
    confidence: float = 0.95,
) -> dict[str, list[float]]:
    """Percentile bootstrap over images: for each of `FIGURES`, [low, high], ×100.

    CIDEr-D's rarities stay those of the whole corpus. Arguments as for `resampled_sums`, errors as
    for `score` and `percentile_interval`.
    """
    statistics = image_statistics(references, hypotheses)
    sums = resampled_sums(statistics, resamples=resamples, seed=seed)
    bounds = percentile_interval(figures_of(sums, len(statistics)), confidence)
    return dict(zip(FIGURES, bounds.T.tolist(), strict=True))


class Difference(NamedTuple):
    """How two systems differ in one figure, ×100."""

    difference: float  # second minus first, on the images given
    interval: list[float]  # [low, high] of the difference over the resamples
    second_better: float  # share of resamples, 0 to 1, in which the second is above the first


def paired_bootstrap(
    references: Sequence[Sequence[Words]],
    first: Sequence[Words],
    second: Sequence[Words],
    *,
    resamples: int = 1000,
    seed: int = 0,
    confidence: float = 0.95,
) -> dict[str, Difference]:
    """Compare the captions of two systems: for each of `FIGURES`, their `Difference`.

    Args:
        references: for each of I images, its captions, each a list of words.
        first, second: for each image, the caption of either system, a list of words.
        resamples, seed, confidence: as for `intervals`.

    Raises:
        ValueError: as `score` and `percentile_interval`.

    Source: Koehn 2004 (aclanthology.org/W04-3250), section 4.
    """
    images, whole, drawn = len(references), [], []
    for hypotheses in (first, second):
        statistics = image_statistics(references, hypotheses)
        whole.append(figures_of(statistics.sum(axis=0), images))
        sums = resampled_sums(statistics, resamples=resamples, seed=seed)
        drawn.append(figures_of(sums, images))
    differences = drawn[1] - drawn[0]
    bounds = percentile_interval(differences, confidence).T.tolist()
    better = (differences > 0).mean(axis=0).tolist()
    rows = zip((whole[1] - whole[0]).tolist(), bounds, better, strict=True)
    return {
        name: Difference(*row) for name, row in zip(FIGURES, rows, strict=True)
    }
