"""Bootstrap: confidence intervals of scores, and paired comparisons.

Chapter 07 works out one interval by hand. An image contributes a row of numbers
to the scores, and all scores are computed from sums of rows. So resampling the
images costs one vector-matrix product, and no caption is read again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from captionlib.metrics import FIGURES, Words, figures_of, image_statistics

__all__ = [
    "Difference",
    "intervals",
    "paired_bootstrap",
    "percentile_interval",
    "resampled_sums",
]


def resampled_sums(
    statistics: np.ndarray, *, resamples: int = 1000, seed: int = 0
) -> np.ndarray:
    """Sums over I images drawn with replacement from I images, many times.

    Args:
        statistics: (I, C), one row per image.
        resamples: how often to draw.
        seed: equal seeds draw equal images, so that systems can be compared in
            pairs.

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
    """The bounds of the central share `confidence` of the values.

    Args:
        values: (resamples, ...) float.
        confidence: share of the values between the bounds.

    Returns:
        (2, ...) float64, low and high.

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
    """The confidence interval of each of `FIGURES`: [low, high], ×100.

    A percentile bootstrap over images. CIDEr-D's weights stay those of the
    whole corpus.

    Args:
        references: for each of I images, its captions, each a list of words.
        hypotheses: for each image, the generated caption, a list of words.
        resamples, seed: as for `resampled_sums`.
        confidence: as for `percentile_interval`.

    Raises:
        ValueError: as `score` and `percentile_interval`.
    """
    statistics = image_statistics(references, hypotheses)
    sums = resampled_sums(statistics, resamples=resamples, seed=seed)
    bounds = percentile_interval(figures_of(sums, len(statistics)), confidence)
    return dict(zip(FIGURES, bounds.T.tolist(), strict=True))


class Difference(NamedTuple):
    """The difference between two systems in one score, ×100."""

    difference: float  # second minus first, on the given images
    interval: list[float]  # [low, high] of the difference over the resamples
    # Share of the resamples, 0 to 1, in which the second is better.
    second_better: float


def paired_bootstrap(
    references: Sequence[Sequence[Words]],
    first: Sequence[Words],
    second: Sequence[Words],
    *,
    resamples: int = 1000,
    seed: int = 0,
    confidence: float = 0.95,
) -> dict[str, Difference]:
    """Compare two systems on the same images, resample by resample.

    Args:
        references: for each of I images, its captions, each a list of words.
        first, second: for each image, the caption of each system.
        resamples, seed, confidence: as for `intervals`.

    Returns:
        for each of `FIGURES`, the `Difference`.

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
