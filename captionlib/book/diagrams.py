"""Boxes and arrows in the book's colours, one for each kind of object.

Boxes and arrows are labelled, so that a diagram can be read in greyscale.
"""

from __future__ import annotations

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.patches import FancyBboxPatch

from captionlib.book.style import PALETTE, TINT

__all__ = ["PALETTE", "TINT", "arrow", "box", "canvas", "slab"]


def canvas(width: float = 9, height: float = 3) -> Axes:
    """A transparent canvas of `width` x `height` inches, one unit per inch."""
    figure = plt.figure(figsize=(width, height), facecolor="none")
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, width), ylim=(0, height), aspect="equal")
    axes.axis("off")
    return axes


def box(
    axes: Axes, x, y, width, height, text, kind="plain", *, note="", size=10
) -> tuple:
    """Draw a rounded box centred on (x, y), and return (x, y).

    `note`, such as a tensor's shape, goes below it. `kind` is a key of
    `PALETTE`.
    """
    patch = FancyBboxPatch(
        (x - width / 2, y - height / 2),
        width,
        height,
        boxstyle="round,pad=0,rounding_size=0.1",
    )
    patch.set(facecolor=TINT[kind], edgecolor=PALETTE[kind], linewidth=1.6)
    axes.add_patch(patch)
    axes.text(
        x, y, text, ha="center", va="center", color="#1a1a1a", fontsize=size
    )
    if note:
        axes.text(
            x,
            y - height / 2 - 0.08,
            note,
            ha="center",
            va="top",
            color=PALETTE[kind],
            fontsize=8.5,
        )
    return x, y


def slab(axes: Axes, x, y, width, height) -> None:
    """Draw a block of numbers: a front face, and its depth as a slant."""
    lean = 0.4 * height
    x0, x1, y0, y1 = x, x + width, y - height / 2, y + height / 2
    edge = {"facecolor": TINT["image"], "edgecolor": PALETTE["image"]}
    top, right = [x0, x1, x1 + lean, x0 + lean], [x1, x1, x1 + lean, x1 + lean]
    axes.fill(top, [y1, y1, y1 + lean, y1 + lean], **edge)
    axes.fill(right, [y0, y1, y1 + lean, y0 + lean], **edge)
    axes.fill([x0, x1, x1, x0], [y0, y0, y1, y1], **edge)


def arrow(
    axes: Axes, start, end, *, kind="plain", text="", bend: float = 0
) -> None:
    """Draw an arrow from `start` to `end`, both (x, y), with `text` above
    it."""
    style = {"arrowstyle": "-|>", "color": PALETTE[kind], "linewidth": 1.4}
    axes.annotate(
        "",
        end,
        start,
        arrowprops=style | {"connectionstyle": f"arc3,rad={bend}"},
    )
    if text:
        middle = (start[0] + end[0]) / 2, (start[1] + end[1]) / 2 + 0.07
        axes.text(
            *middle,
            text,
            ha="center",
            va="bottom",
            color=PALETTE[kind],
            fontsize=8.5,
        )
