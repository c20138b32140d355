"""Chapter 05's figures: the loop, the two schedules, loss beside BLEU."""

from __future__ import annotations

import textwrap

import matplotlib.pyplot as plt
from PIL import Image

from captionlib.book.diagrams import arrow, box, canvas
from captionlib.book.style import INK, PALETTE

__all__ = [
    "captions_figure",
    "curves_figure",
    "loop_diagram",
    "schedules_figure",
]


def loop_diagram() -> None:
    """A step of training above, the judgement after an epoch below."""
    axes = canvas(5.0, 4.0)
    box(axes, 1.1, 3.45, 1.8, 0.5, "a batch", "word", note="true captions")
    box(axes, 3.75, 3.45, 1.8, 0.5, "model", "state", note="guesses each word")
    box(axes, 3.75, 2.3, 1.8, 0.5, "loss", "attention", note="nats a token")
    box(axes, 1.1, 2.3, 1.8, 0.5, "optimizer", "plain", note="clip, then step")
    box(axes, 1.1, 0.55, 1.8, 0.5, "write freely", "word", note="no true words")
    box(axes, 3.75, 0.55, 1.8, 0.5, "BLEU-4", "word", note="best? stop?")
    for start, end in (
        ((2.0, 3.45), (2.85, 3.45)),
        ((3.75, 2.9), (3.75, 2.55)),
        ((2.85, 2.3), (2.0, 2.3)),
        ((1.1, 2.55), (1.1, 2.9)),
        ((1.1, 1.75), (1.1, 0.8)),
        ((2.0, 0.55), (2.85, 0.55)),
    ):
        arrow(axes, start, end)
    middle = {"ha": "center", "va": "center", "color": INK, "fontsize": 10}
    axes.text(2.42, 2.86, "every step", **middle)
    axes.text(2.42, 1.3, "after every epoch, on other images", **middle)


def schedules_figure(schedules: dict[str, list[float]]) -> None:
    """The share of the full rate over the epochs, one line a schedule."""
    _, axes = plt.subplots(figsize=(4.8, 2.3), layout="constrained")
    for name, shares in schedules.items():
        steps = "steps-post" if name == "plateau" else "default"
        axes.plot(shares, label=name, drawstyle=steps)
    axes.set(xlabel="epoch", ylabel="share of the full rate")
    axes.legend()


def curves_figure(history: list[dict], ceiling: float) -> None:
    """Training and validation loss above BLEU-4; marks each one's best."""
    _, (top, bottom) = plt.subplots(
        2, 1, figsize=(4.8, 4.6), sharex=True, layout="constrained"
    )
    epochs = [row["epoch"] for row in history]
    names = {"nats": "training", "val_nats": "validation"}
    colours = {"nats": PALETTE["plain"], "val_nats": PALETTE["image"]}
    for key, name in names.items():
        values = [row[key] for row in history]
        top.plot(epochs, values, label=name, color=colours[key])
    least = min(history, key=lambda row: row["val_nats"])
    top.plot(least["epoch"], least["val_nats"], "o", color=PALETTE["image"])
    top.set(ylabel="nats a token", ylim=(0, None))
    top.legend()
    bleu = [row["bleu4"] for row in history]
    bottom.plot(epochs, bleu, color=PALETTE["word"])
    best = max(history, key=lambda row: row["bleu4"])
    bottom.plot(best["epoch"], best["bleu4"], "o", color=PALETTE["word"])
    bottom.axhline(ceiling, color=INK, linestyle="--", linewidth=1)
    bottom.set(xlabel="epoch", ylabel="BLEU-4", ylim=(0, None))


def captions_figure(paths: list, captions: list[list[str]]) -> None:
    """Pictures with what was written about them, two in a row."""
    rows = -(-len(paths) // 2)
    figure, panels = plt.subplots(
        rows, 2, figsize=(4.8, 2.9 * rows), layout="constrained"
    )
    for panel, path, words in zip(panels.flat, paths, captions, strict=True):
        panel.imshow(Image.open(path))
        panel.set_title(textwrap.fill(" ".join(words), 24))
        panel.axis("off")
