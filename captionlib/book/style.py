"""The style of the book's figures: transparent, for light and dark pages.

A figure is stored once and shown on white and on near-black, so its text and
lines have mid-tone colours: each has a contrast of at least 4.2 to 1 on both
(4.3 is the most that one colour can reach). Images are blue, words orange, the
decoder's state green, attention purple.
"""

from __future__ import annotations

import matplotlib.pyplot as plt

__all__ = ["INK", "PAGES", "PALETTE", "STYLE", "TINT", "use_style"]

PAGES = ("#ffffff", "#121212")  # backgrounds of a figure: light, dark
PALETTE = {
    "image": "#397dc9",
    "word": "#b76807",
    "state": "#2d8a57",
    "attention": "#a560ba",
    "plain": "#7a7a7a",
}
INK = PALETTE["plain"]  # text, axes, ticks
# Filled boxes, under text in #1a1a1a.
TINT = {
    "image": "#d7e6f6",
    "word": "#fbe6c8",
    "state": "#d8efe1",
    "attention": "#ecdcf2",
    "plain": "#efefef",
}
STYLE = {
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
    # 10 points on 4.8 inches are 10 pixels where the page is 390 wide.
    "figure.figsize": (4.8, 3.0),
    "figure.dpi": 120,
    "font.size": 10,
    "axes.titlesize": 10,
    "axes.labelsize": 10,
    "xtick.labelsize": 9,
    "ytick.labelsize": 9,
    "legend.fontsize": 9,
    "legend.frameon": False,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": INK,
    "grid.alpha": 0.3,
    "lines.linewidth": 1.8,
    "axes.prop_cycle": plt.cycler(
        color=[PALETTE[k] for k in ("image", "word", "state", "attention")]
    ),
    "image.cmap": "magma",  # weights: bright is looked-at
}


def use_style() -> None:
    """Set the book's style for pyplot."""
    plt.rcParams.update(STYLE)
