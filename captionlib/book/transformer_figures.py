"""Figures of chapter 15: two ways to remember, maps of heads, today's parts."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
from torch import Tensor

from captionlib.book.attention_figures import NIGHT
from captionlib.book.diagrams import arrow, box, canvas
from captionlib.book.style import INK

__all__ = ["heads_figure", "roads_figure", "today_figure"]

WORDS = ("<start>", "a", "dog", "beside")
# Today's captioners: kind of box, what it is called, and the reader's part.
TODAY = (
    ("image", "image encoder", "02 Encoder, frozen", "from photo to grid"),
    ("attention", "projector", "project, or chapter 03", "from grid to tokens"),
    ("state", "language model", "PrefixDecoder, larger", "tokens before words"),
    ("word", "search or sampling", "06 Beam search", "from scores to words"),
    ("plain", "evaluation", "07 BLEU, 11 grounding", "from words to scores"),
)


def roads_figure() -> None:
    """How earlier words reach the last one, in an LSTM and a Transformer."""
    axes = canvas(4.8, 3.5)
    for y, above, title in ((2.7, 0.6, "LSTM"), (0.65, 1.05, "Transformer")):
        axes.text(0.1, y + above, title, fontsize=10, color=INK, va="center")
        for n, word in enumerate(WORDS):
            box(axes, 0.6 + 1.2 * n, y, 0.9, 0.42, word, "state", size=9)
    for n in range(3):
        x = 0.6 + 1.2 * n
        arrow(axes, (x + 0.45, 2.7), (x + 0.75, 2.7), kind="state")
        bend = -0.55 + 0.12 * n
        arrow(axes, (x, 0.88), (4.1, 0.88), kind="state", bend=bend)
    for y in (2.7, 0.65):
        arrow(axes, (4.2, y - 0.21), (4.2, y - 0.6), kind="word")
        axes.text(3.05, y - 0.48, "the next word", fontsize=9, color=INK)


def heads_figure(picture, rows: Sequence[tuple], frame: Sequence) -> None:
    """A picture lit by many maps.

    Args:
        picture: one PIL image.
        rows: for each row a label, a list of titles, and maps (columns, P).
        frame: x0, y0, x1, y1 of a box to outline.
    """
    columns = max(len(titles) for _, titles, _ in rows)
    figure, grid = plt.subplots(
        len(rows),
        columns,
        figsize=(4.8, 4.8 / columns * len(rows) * 1.2),
        layout="constrained",
        squeeze=False,
    )
    pixels = np.asarray(picture) / 255
    for panels, (label, titles, maps) in zip(grid, rows, strict=True):
        for axes in panels:
            axes.axis("off")
        for axes, title, alpha in zip(panels, titles, maps, strict=False):
            axes.imshow(pixels * _light(alpha, len(pixels)))
            x0, y0, x1, y1 = frame
            shape = (x0, y0), x1 - x0, y1 - y0
            axes.add_patch(plt.Rectangle(*shape, fill=False, ec="white"))
            axes.set_title(title)
        panels[0].axis("on")
        panels[0].set(xticks=[], yticks=[])
        panels[0].spines[:].set_visible(False)
        panels[0].set_ylabel(label)


def _light(alpha: Tensor, pixels: int) -> np.ndarray:
    side = round(len(alpha) ** 0.5)
    light = np.sqrt((alpha / alpha.max()).view(side, side).numpy())
    light = light.repeat(pixels // side, 0).repeat(pixels // side, 1)
    return NIGHT + (1 - NIGHT) * light[..., None]


def today_figure() -> None:
    """The parts of a projector-and-language-model captioner, and ours."""
    axes = canvas(4.8, 5.3)
    axes.text(1.15, 5.12, "today", color=INK, ha="center", va="center")
    axes.text(3.6, 5.12, "in this book", color=INK, ha="center", va="center")
    for n, (kind, theirs, ours, does) in enumerate(TODAY):
        y = 4.65 - 0.95 * n
        box(axes, 1.15, y, 2.1, 0.45, theirs, kind)
        box(axes, 3.6, y, 2.2, 0.45, ours, kind)
        arrow(axes, (2.5, y), (2.2, y), kind=kind)
        arrow(axes, (1.15, y - 0.22), (1.15, y - 0.73), kind=kind)
        axes.text(1.3, y - 0.47, does, fontsize=9, color=INK, va="center")
