"""BLEU and its neighbours.

Chapter 07 of the book, notebooks/07_bleu.ipynb, explains this module and
generates it: edit the chapter, not this file, then run `make export`.
"""

import math
from collections import Counter
from collections.abc import Sequence
from itertools import chain
from typing import NamedTuple

import numpy as np

from captionlib.io.captions import check_captions

__all__ = [
    "FIGURES",
    "NgramVector",
    "Words",
    "bleu",
    "bleu_of",
    "bleu_statistics",
    "cider_d_scores",
    "cider_similarity",
    "figures_of",
    "image_statistics",
    "longest_common_subsequence",
    "ngram_counts",
    "ngram_rarity",
    "ngram_vector",
    "rouge_l_scores",
    "score",
]


Words = Sequence[str]  # a caption


def ngram_counts(words: Words) -> Counter[tuple[str, ...]]:
    """How often each run of one to four words occurs in `words`."""
    shifted = [words[i:] for i in range(4)]
    runs = (zip(*shifted[:n], strict=False) for n in range(1, 5))
    return Counter(chain.from_iterable(runs))


def bleu_statistics(
    references: Sequence[Sequence[Words]], hypotheses: Sequence[Words]
) -> np.ndarray:
    """What each image adds to BLEU's counts.

    Args:
        references: for each of I images, its captions, each a list of words.
        hypotheses: for each image, the generated caption, a list of words.

    Returns:
        (I, 9) float64: clipped matches for n = 1 to 4, n-grams of the
        hypothesis for n = 1 to 4, length of the closest reference.

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
        c = len(hypothesis)
        possible = [max(0, c - n) for n in range(4)]
        r = min((abs(len(words) - c), len(words)) for words in captions)[1]
        rows.append([*matched, *possible, r])
    return np.array(rows, dtype=float)


def bleu_of(sums: np.ndarray) -> np.ndarray:
    """BLEU-1 to BLEU-4, ×100, from rows of `bleu_statistics` added up.

    Args:
        sums: (..., 9) float, summed over the images of a corpus.

    Returns:
        (..., 4) float64.
    """
    matched, possible, closest = sums[..., :4], sums[..., 4:8], sums[..., 8:]
    precisions = (matched + 1e-15) / (possible + 1e-9)
    means = np.cumprod(precisions, axis=-1) ** (1 / np.arange(1, 5))
    ratio = (possible[..., :1] + 1e-15) / (closest + 1e-9)  # c / r
    return 100 * means * np.exp(np.minimum(0, 1 - 1 / ratio))


def bleu(
    references: Sequence[Sequence[Words]], hypotheses: Sequence[Words]
) -> dict[str, float]:
    """Corpus BLEU, ×100, keyed "bleu1" to "bleu4".

    Arguments and errors as for `bleu_statistics`.
    """
    values = bleu_of(bleu_statistics(references, hypotheses).sum(axis=0))
    return {f"bleu{n}": float(value) for n, value in enumerate(values, 1)}


def longest_common_subsequence(first: Words, second: Words) -> int:
    """Number of words in the longest sequence found in both, gaps allowed."""
    lengths = [0] * (len(second) + 1)  # first so far, with second[:j]
    for word in first:
        diagonal = 0
        for j, other in enumerate(second, 1):
            if word == other:
                longest = diagonal + 1
            else:
                longest = max(lengths[j - 1], lengths[j])
            diagonal, lengths[j] = lengths[j], longest
    return lengths[-1]


def rouge_l_scores(
    references: Sequence[Sequence[Words]],
    hypotheses: Sequence[Words],
    beta: float = 1.2,
) -> np.ndarray:
    """ROUGE-L of each image, ×100: (I,) float64. A corpus has their mean.

    Arguments and errors as for `bleu_statistics`.

    Source: Lin 2004 (aclanthology.org/W04-1013), section 3.1.
    """
    check_captions(references, hypotheses)
    scores = []
    for captions, hypothesis in zip(references, hypotheses, strict=True):
        # Like pycocoevalcap, take an empty caption for one empty word.
        hypothesis = hypothesis or [""]
        captions = [caption or [""] for caption in captions]
        found = [longest_common_subsequence(c, hypothesis) for c in captions]
        precision = max(found) / len(hypothesis)
        recall = max(n / len(c) for n, c in zip(found, captions, strict=True))
        divisor = recall + beta**2 * precision or 1  # both may be 0
        scores.append((1 + beta**2) * precision * recall / divisor)
    return 100 * np.array(scores)


def ngram_rarity(
    references: Sequence[Sequence[Words]],
) -> tuple[dict[tuple[str, ...], float], float]:
    """Each n-gram's rarity, and the rarity of one that no image has."""
    images_with: Counter = Counter()
    for captions in references:
        images_with.update(set().union(*map(ngram_counts, captions)))
    rarest = math.log(len(references))
    rarity = {ngram: rarest - math.log(n) for ngram, n in images_with.items()}
    return rarity, rarest


class NgramVector(NamedTuple):
    """A caption as CIDEr-D sees it."""

    entries: dict[tuple[str, ...], float]  # count times rarity
    norms: list[float]  # of the entries of 1-grams to 4-grams
    length: int  # in words


def ngram_vector(words: Words, rarity: dict, rarest: float) -> NgramVector:
    """The vectors of a caption; arguments as from `ngram_rarity`."""
    entries, squares = {}, [0.0] * 4
    for ngram, count in ngram_counts(words).items():
        entries[ngram] = entry = count * rarity.get(ngram, rarest)
        squares[len(ngram) - 1] += entry * entry
    # pycocoevalcap counts pairs: to it an empty caption is as long as one word.
    norms = [math.sqrt(square) for square in squares]
    return NgramVector(entries, norms, max(1, len(words)))


def cider_similarity(
    hypothesis: NgramVector, reference: NgramVector, sigma: float = 6.0
) -> float:
    """How alike two captions are: 0 to 10, the term under the mean."""
    products = [0.0] * 4
    for ngram, entry in hypothesis.entries.items():
        if other := reference.entries.get(ngram):
            products[len(ngram) - 1] += min(entry, other) * other
    terms = zip(products, hypothesis.norms, reference.norms, strict=True)
    cosine = sum(dot / (g * h) for dot, g, h in terms if g and h) / 4
    gap = hypothesis.length - reference.length
    return 10 * cosine * math.exp(-(gap**2) / (2 * sigma**2))


def cider_d_scores(
    references: Sequence[Sequence[Words]], hypotheses: Sequence[Words]
) -> np.ndarray:
    """CIDEr-D of each image, ×100: (I,) float64. A corpus has their mean.

    An n-gram's rarity is counted over the images given, so an image's score
    depends on its company. Arguments and errors as for `bleu_statistics`.

    Source: Vedantam et al. 2015 (arXiv:1411.5726), section 6.
    """
    check_captions(references, hypotheses)
    rarity = ngram_rarity(references)
    scores = []
    for captions, hypothesis in zip(references, hypotheses, strict=True):
        ours = ngram_vector(hypothesis, *rarity)
        theirs = [ngram_vector(caption, *rarity) for caption in captions]
        similar = [cider_similarity(ours, other) for other in theirs]
        scores.append(sum(similar) / len(similar))
    return 100 * np.array(scores)


FIGURES = ("bleu1", "bleu2", "bleu3", "bleu4", "rouge_l", "cider_d")


def image_statistics(
    references: Sequence[Sequence[Words]], hypotheses: Sequence[Words]
) -> np.ndarray:
    """Each image's row: (I, 11), BLEU's nine counts, ROUGE-L, CIDEr-D."""
    return np.column_stack(
        [
            bleu_statistics(references, hypotheses),
            rouge_l_scores(references, hypotheses),
            cider_d_scores(references, hypotheses),
        ]
    )


def figures_of(sums: np.ndarray, images: int) -> np.ndarray:
    """The six `FIGURES`, (..., 6), from rows (..., 11) summed over `images`."""
    means = sums[..., 9:] / images
    return np.concatenate([bleu_of(sums[..., :9]), means], axis=-1)


def score(
    references: Sequence[Sequence[Words]], hypotheses: Sequence[Words]
) -> dict[str, float]:
    """BLEU-1 to BLEU-4, ROUGE-L and CIDEr-D of a corpus, ×100.

    The values are those of `pycocoevalcap`.

    Args:
        references: for each image, its captions, each a list of words.
        hypotheses: for each image, a list of words; an empty one is allowed.

    Returns:
        a value for each of `FIGURES`.

    Raises:
        ValueError: as `check_captions`.
    """
    rows = image_statistics(references, hypotheses)
    values = figures_of(rows.sum(axis=0), len(rows))
    return dict(zip(FIGURES, values.tolist(), strict=True))
