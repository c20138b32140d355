"""What chapter 04 draws: a sentence being written, one step, and scenes with
their captions."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

import matplotlib.pyplot as plt

from captionlib.book.diagrams import arrow, box, canvas
from captionlib.book.style import INK, PALETTE

__all__ = ["captions_figure", "step_diagram", "unrolled_figure"]


def unrolled_figure(picture, words: Sequence[str]) -> None:
    """The first steps of a caption: each word that comes out goes into the next
    step.

    Args:
        picture: what all steps look at.
        words: five of them, from `<start>` on.
    """
    axes = canvas(5.0, 3.3)
    axes.imshow(picture, extent=(1.5, 3.0, 1.75, 3.25), zorder=3)
    axes.set(xlim=(0, 5.0), ylim=(0, 3.3))
    places = [0.6 + 1.1 * i for i in range(len(words))]
    for x, following in zip(places, places[1:], strict=False):
        arrow(axes, (2.25, 1.75), (x, 1.3), kind="attention")
        box(axes, x, 1.05, 0.72, 0.44, "LSTM", "state")
        arrow(axes, (x, 0.38), (x, 0.82), kind="word")
        arrow(axes, (x + 0.3, 0.82), (following - 0.12, 0.38), kind="word")
        if following < places[-1]:
            arrow(
                axes, (x + 0.37, 1.05), (following - 0.37, 1.05), kind="state"
            )
    for x, word in zip(places, words, strict=True):
        x = min(x, 4.85)
        axes.text(
            x, 0.22, word, ha="center", va="center", color=PALETTE["word"]
        )
    axes.text(
        3.15,
        2.4,
        "a look before\nevery word",
        va="center",
        color=PALETTE["attention"],
    )


def step_diagram() -> None:
    """One step of `captionlib.decoder.DecoderWithAttention`, from top to
    bottom."""
    axes = canvas(5.0, 5.3)
    box(axes, 1.0, 4.9, 1.7, 0.5, "old hidden state", "state", note="(N, H)")
    box(
        axes,
        3.6,
        4.9,
        1.7,
        0.5,
        "keys, values",
        "image",
        note="(B, P, A), (B, P, D)",
    )
    box(axes, 3.6, 3.75, 1.7, 0.5, "attention", "attention")
    box(axes, 1.0, 3.75, 1.4, 0.5, "gate β", "state", note="(N, D)")
    box(axes, 2.5, 2.75, 0.5, 0.5, "×", "attention")
    box(axes, 0.9, 1.85, 1.6, 0.5, "embedding", "word", note="(N, E)")
    box(axes, 2.5, 1.55, 1.3, 0.5, "LSTM cell", "state")
    box(axes, 2.5, 0.55, 0.8, 0.5, "fc", "word", note="logits (N, V)")
    for start, end, kind in (
        ((1.0, 4.4), (1.0, 4.02), "state"),
        ((1.85, 4.75), (2.9, 4.02), "state"),
        ((3.6, 4.4), (3.6, 4.02), "image"),
        ((1.6, 3.5), (2.25, 2.9), "state"),
        ((3.4, 3.5), (2.75, 2.9), "attention"),
        ((2.5, 2.5), (2.5, 1.82), "attention"),
        ((1.7, 1.78), (1.85, 1.66), "word"),
        ((2.5, 1.3), (2.5, 0.82), "state"),
        ((3.55, 2.1), (3.1, 1.82), "state"),
        ((3.15, 1.42), (3.55, 1.2), "state"),
    ):
        arrow(axes, start, end, kind=kind)
    for x, y, text, kind in (
        (0.15, 2.3, "last word (N,)", "word"),
        (3.15, 3.1, "context (N, D)", "attention"),
        (3.6, 2.2, "old hidden\nand cell", "state"),
        (3.6, 1.1, "new hidden\nand cell", "state"),
        (3.6, 0.75, "(N, H) each", "state"),
    ):
        axes.text(x, y, text, fontsize=9, color=PALETTE[kind], va="center")
    arrow(axes, (4.45, 3.75), (4.7, 3.75), kind="attention")
    axes.text(4.5, 3.95, "alpha", fontsize=9, color=PALETTE["attention"])
    axes.text(4.5, 3.45, "(N, P)", fontsize=9, color=PALETTE["attention"])


def captions_figure(pictures: Sequence, captions: Sequence[str]) -> None:
    """Pictures side by side, each above its caption."""
    figure, panels = plt.subplots(
        1, len(pictures), figsize=(4.8, 2.5), layout="constrained"
    )
    for panel, picture, caption in zip(panels, pictures, captions, strict=True):
        panel.imshow(picture)
        panel.set(xticks=[], yticks=[])
        panel.spines[:].set_visible(False)
        panel.set_xlabel(textwrap.fill(caption, 21), color=INK, fontsize=9)
