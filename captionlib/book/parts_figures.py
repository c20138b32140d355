"""Figures of chapter 12: pictures and where their captions were stolen."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

import matplotlib.pyplot as plt
from torch import Tensor

__all__ = ["thief_figure"]


def thief_figure(
    pictures: Sequence[Tensor],
    robbed: Sequence[Tensor],
    captions: Sequence[Sequence[str]],
) -> None:
    """Rows of two pictures (3, height, width) uint8: the second has a caption,
    which stands above both."""
    figure, grid = plt.subplots(
        len(pictures),
        2,
        figsize=(4.8, 2.75 * len(pictures)),
        layout="constrained",
    )
    for (left, right), picture, other, words in zip(
        grid, pictures, robbed, captions, strict=True
    ):
        left.imshow(picture.movedim(0, 2))
        right.imshow(other.movedim(0, 2))
        text = textwrap.fill(" ".join(words), 26)
        left.set_title(text, fontsize=9)
        right.set_title(text, fontsize=9)
        left.axis("off")
        right.axis("off")
