"""CIDEr-D as a reward in training, built on the functions of chapter 07.

Self-critical training needs the score at every step, for several captions of a
few images, with n-gram weights from the whole data set.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy

import numpy as np

from captionlib.io.captions import check_caption, check_references
from captionlib.metrics import (
    Words,
    cider_similarity,
    ngram_rarity,
    ngram_vector,
)

__all__ = ["CiderD"]


class CiderD:
    """CIDEr-D against fixed references, for any captions of their images.

    With one caption per image, in order, this is `cider_d_scores`.

    Args:
        references: for each of I images, its captions, each a list of words.
        corpus: the captions from which the n-gram weights are computed, in the
            same form; None means `references`.
        sigma: width, in words, of the penalty on a difference in length.

    Raises:
        ValueError: as `check_references`.
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
        self.references, self.sigma = references, sigma
        self.rarity, self.rarest = ngram_rarity(corpus)

    def against(self, references: Sequence[Sequence[Words]]) -> CiderD:
        """The same n-gram weights, with other references: those of a batch."""
        check_references(references)
        other = copy(self)
        other.references = references
        return other

    def scores(
        self, images: Sequence[int], hypotheses: Sequence[Words]
    ) -> np.ndarray:
        """CIDEr-D of each hypothesis, ×100.

        Args:
            images: (N,) indices into `references`, each repeated for each of
                its hypotheses.
            hypotheses: N captions, each a list of words.

        Returns:
            (N,) float64, from 0 (nothing in common) to 1000 (the one reference,
            word for word).

        Raises:
            ValueError: if the two differ in length, if an index is out of
                range, or as `check_caption`.
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
                    f"image {image}: out of range, there are "
                    f"{len(self.references)} images"
                )
            check_caption(hypothesis, image)
            rows_of.setdefault(image, []).append(row)
        scores = np.zeros(len(images))
        for image, rows in rows_of.items():
            theirs = [
                ngram_vector(words, self.rarity, self.rarest)
                for words in self.references[image]
            ]
            for row in rows:
                ours = ngram_vector(hypotheses[row], self.rarity, self.rarest)
                similar = [
                    cider_similarity(ours, other, self.sigma)
                    for other in theirs
                ]
                scores[row] = sum(similar) / len(similar)
        return 100 * scores
