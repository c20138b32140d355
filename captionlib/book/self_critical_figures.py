"""Figures of chapter 14: captions and their rewards, a curve of rewards."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
from torch import Tensor

from captionlib.book.style import INK, PALETTE

__all__ = ["drawn_figure", "reward_figure"]


def drawn_figure(
    pixels: Tensor, captions: Sequence[list[str]], scores: Sequence[float]
) -> None:
    """A scene (3, height, width) uint8, and a bar for each of its captions.

    Bars above the mean have the colour of words.
    """
    _, (above, below) = plt.subplots(
        2, 1, figsize=(4.8, 4.8), height_ratios=(1, 1.7), layout="constrained"
    )
    above.imshow(pixels.movedim(0, 2).numpy())
    above.axis("off")
    mean, places = np.mean(scores), np.arange(len(scores))
    colors = [PALETTE["word" if s > mean else "plain"] for s in scores]
    below.barh(places, scores, 0.34, color=colors)
    means = np.full(len(scores), mean)
    below.vlines(means, places - 0.21, places + 0.21, color=PALETTE["state"])
    edge = below.get_yaxis_transform()
    for place, words, score in zip(places, captions, scores, strict=True):
        text = " ".join(word for word in words if word != "<end>")
        below.text(0, place - 0.29, text, color=INK)
        number = f"{score:.0f}"
        below.text(1, place, number, transform=edge, ha="right", va="center")
    below.set(
        xlabel="CIDEr-D; green: the mean",
        xlim=(0, 1.25 * max(scores)),
        yticks=[],
    )
    below.invert_yaxis()
    below.spines["left"].set_visible(False)


def reward_figure(rewards: Sequence[float], per_epoch: int) -> None:
    """Rewards of all batches, and their mean in each epoch."""
    _, axes = plt.subplots(figsize=(4.8, 2.6), layout="constrained")
    means = np.reshape(rewards, (-1, per_epoch)).mean(axis=1)
    middles = (np.arange(len(means)) + 0.5) * per_epoch
    axes.plot(rewards, color=PALETTE["plain"], linewidth=1, label="batch")
    axes.plot(middles, means, "o-", color=PALETTE["word"], label="epoch")
    axes.set(xlabel="step", ylabel="CIDEr-D of drawn captions")
    axes.legend()
