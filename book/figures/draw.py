"""Draw the pictures of the book's pages: `python book/figures/draw.py` writes each one beside it.

Same code, same bytes: no date goes in, ids are salted with the figure's own name, and letters are
stored as outlines so that every browser shows the same picture. On a dark page the same file shows
in other colours: each is a variable, which a style sheet inside the file redefines there. The first
picture of the book is the packaged toy captioner's own work: draw it again after `make toy`.
"""

from __future__ import annotations

import io
import re
import sys
import tempfile
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Polygon, Rectangle
from PIL import Image, ImageDraw

from captionlib.book.diagrams import PALETTE, TINT, arrow, box, canvas
from captionlib.metrics import bleu_statistics, ngram_counts

HERE = Path(__file__).parent
# What each colour of a picture is called, and what it is on a light and on a
# dark page.
DRAWN = PALETTE | {f"{kind}-tint": colour for kind, colour in TINT.items()}
DRAWN |= {"ground": "#ffffff", "ink": "#1a1a1a", "left-out": "#b02a2a"}
LIGHT = DRAWN | {
    "image": "#1f5fa8",
    "word": "#c8730a",
    "state": "#2f8f5b",
    "attention": "#8a3f9e",
    "plain": "#4a4a4a",
}
DARK = {
    "image": "#7db3ee",
    "word": "#f0a94b",
    "state": "#6cc795",
    "attention": "#d79be6",
    "plain": "#b8b8b8",
    "image-tint": "#1b3350",
    "word-tint": "#4b3516",
    "state-tint": "#173f2b",
    "attention-tint": "#3f2450",
    "plain-tint": "#2c2f33",
    "ground": "#121212",
    "ink": "#ececec",
    "left-out": "#ff8a80",
}
WORDS = ("<start>", "a", "dog", "beside")
# The maps of the small pictures are drawn by hand, (column, row, spread) on a 14 x 14 grid.
GAZES = ((7, 8, 6.0), (4, 9, 2.2), (6.5, 9, 3.0), (10, 10, 2.0))


def photo() -> np.ndarray:
    """A drawn photograph, (128, 128, 3) in 0-1: a dog beside a ball on the grass, under a sun."""
    y, x = np.mgrid[0:128, 0:128]
    image = np.empty((128, 128, 3))
    image[:] = (0.78, 0.90, 0.98)
    image[y > 62 + 5 * np.sin(x / 19)] = (0.62, 0.80, 0.50)

    def blob(cx, cy, rx, ry, colour):
        image[((x - cx) / rx) ** 2 + ((y - cy) / ry) ** 2 < 1] = colour

    brown, dark = (0.66, 0.44, 0.24), (0.36, 0.22, 0.12)
    blob(103, 22, 12, 12, (0.99, 0.84, 0.30))
    for leg in (28, 36, 50, 57):
        blob(leg, 98, 4, 12, brown)
    blob(42, 84, 22, 12, brown)  # body
    blob(19, 74, 4, 11, brown)  # tail
    blob(65, 68, 13, 11, brown)  # head
    blob(77, 72, 7, 6, brown)  # muzzle
    blob(82, 70, 2.5, 2.5, dark)
    blob(69, 64, 1.8, 1.8, dark)
    blob(56, 67, 4, 10, dark)  # ear
    blob(99, 98, 12, 12, (0.80, 0.20, 0.20))
    blob(95, 94, 4, 4, (0.95, 0.60, 0.60))
    return image


def gaze(column: float, row: float, spread: float) -> np.ndarray:
    """(14, 14) weights summing to 1, a soft spot of the given spread."""
    y, x = np.mgrid[0:14, 0:14]
    alpha = np.exp(-((x - column) ** 2 + (y - row) ** 2) / (2 * spread**2))
    return alpha / alpha.sum()


def picture(axes: Axes, x, y, side, *, alpha=None, grid=0, note="") -> None:
    """The photograph centred on (x, y), with weights laid over it and cut into `grid` cells."""
    left, right, low, high = (
        x - side / 2,
        x + side / 2,
        y - side / 2,
        y + side / 2,
    )
    extent = (left, right, low, high)
    axes.imshow(
        photo(),
        extent=extent,
        aspect="auto",
        interpolation="bilinear",
        zorder=1,
    )
    if alpha is not None:
        veil = np.empty((14, 14, 4))
        veil[..., :3] = (
            0.16,
            0.07,
            0.20,
        )  # a dark attention purple where it does not look
        veil[..., 3] = 0.78 * (1 - alpha / alpha.max())
        axes.imshow(
            veil,
            extent=extent,
            aspect="auto",
            interpolation="nearest",
            zorder=2,
        )
    for k in range(1, grid):
        step = side * k / grid
        axes.plot(
            [left, right],
            [low + step] * 2,
            color="white",
            linewidth=0.4,
            zorder=4,
        )
        axes.plot(
            [left + step] * 2,
            [low, high],
            color="white",
            linewidth=0.4,
            zorder=4,
        )
    edge = PALETTE["attention" if alpha is not None else "image"]
    axes.add_patch(
        Rectangle(
            (left, low),
            side,
            side,
            fill=False,
            edgecolor=edge,
            lw=1.6,
            zorder=5,
        )
    )
    if note:
        axes.text(
            x,
            low - 0.08,
            note,
            ha="center",
            va="top",
            color=PALETTE["image"],
            fontsize=8.5,
        )


def tensor(
    axes: Axes, x, y, side, depth, *, kind="image", note="", cells=0
) -> None:
    """A stack of channels in perspective: front face `side`, receding by `depth`, centred on x."""
    shift = depth * 0.45
    left, low = x - (side + shift) / 2, y - side / 2
    front = np.array([(left, low), (left + side, low), (left + side, low + side),
                      (left, low + side)])  # fmt: skip
    back = front + (shift, shift)
    edge = {"edgecolor": PALETTE[kind], "linewidth": 1.3, "joinstyle": "round"}
    axes.add_patch(
        Polygon(
            [front[3], front[2], back[2], back[3]], facecolor="white", **edge
        )
    )
    axes.add_patch(
        Polygon(
            [front[1], front[2], back[2], back[1]], facecolor="white", **edge
        )
    )
    axes.add_patch(Polygon(front, facecolor=TINT[kind], **edge))
    for k in range(1, cells):
        step = side * k / cells
        line = {"color": PALETTE[kind], "linewidth": 0.35}
        axes.plot([left, left + side], [low + step] * 2, **line)
        axes.plot([left + step] * 2, [low, low + side], **line)
    if note:
        axes.text(
            x,
            low - 0.1,
            note,
            ha="center",
            va="top",
            color=PALETTE[kind],
            fontsize=8.5,
        )


def label(axes: Axes, x, y, text, kind="plain", **style) -> None:
    """A line of free text centred on (x, y)."""
    style = {"ha": "center", "va": "center", "fontsize": 8.5} | style
    axes.text(x, y, text, color=PALETTE[kind], **style)


def line(axes: Axes, points, kind) -> None:
    """A plain line through `points`, for the part of an arrow that turns a corner."""
    axes.plot(*zip(*points, strict=True), color=PALETTE[kind], linewidth=1.4,
              solid_capstyle="round", solid_joinstyle="round")  # fmt: skip


def whole_model() -> Axes:
    """From photograph to sentence: encoder, grid, and a decoder that attends at every step."""
    axes = canvas(9, 5.1)
    picture(axes, 1.0, 4.2, 1.2)
    label(axes, 1.0, 3.44, "photograph  3 × 256 × 256", "image")
    box(axes, 3.4, 4.2, 2.1, 0.8, "Encoder\nResNet-101, borrowed", "image")
    tensor(axes, 5.85, 4.1, 0.95, 0.55, cells=14)
    label(axes, 7.75, 4.3, "one vector of 2048 numbers", "image")
    label(axes, 7.75, 4.08, "for each of 14 × 14 places:", "image")
    label(axes, 7.75, 3.86, "P = 196, D = 2048", "image")
    arrow(axes, (1.65, 4.2), (2.32, 4.2), kind="image")
    arrow(axes, (4.48, 4.2), (5.2, 4.2), kind="image")

    steps = (2.2, 4.2, 6.2, 8.2)
    line(axes, [(5.73, 3.6), (5.73, 3.2)], "image")
    line(axes, [(0.75, 3.2), (8.2, 3.2)], "image")
    arrow(axes, (0.75, 3.2), (0.75, 1.83), kind="image")
    label(
        axes, 0.68, 2.55, "mean over\nthe grid", "image", ha="right", fontsize=8
    )
    axes.set_xlim(-0.15, 9.15)
    box(axes, 0.75, 1.45, 0.95, 0.7, "init_h\ninit_c", "state")
    arrow(axes, (1.24, 1.45), (1.69, 1.45), kind="state")
    arrow(axes, (1.15, 1.83), (1.66, 2.42), kind="state")
    for k, x in enumerate(steps):
        arrow(axes, (x, 3.2), (x, 2.74), kind="image")
        box(axes, x, 2.5, 1.05, 0.46, "Attention", "attention")
        arrow(axes, (x, 2.26), (x, 1.74), kind="attention")
        box(axes, x, 1.45, 0.98, 0.56, "LSTM", "state")
        if k < 3:
            arrow(axes, (x + 0.5, 1.45), (x + 1.49, 1.45), kind="state")
            arrow(axes, (x + 0.42, 1.74), (x + 1.46, 2.44), kind="state")
    label(axes, 2.12, 2.0, "context\n2048", "attention", ha="right", fontsize=8)
    label(axes, 3.2, 1.22, "h, c\n2×512", "state", fontsize=8)
    label(axes, 3.02, 2.22, "h", "state")
    shown = (*WORDS, "…")
    for k, x in enumerate((1.2, 3.2, 5.2, 7.2, 8.85)):
        wide = 0.86 if k < 4 else 0.4
        box(axes, x, 0.45, wide, 0.42, shown[k], "word")
        if k < 4:
            arrow(axes, (x + 0.3, 0.68), (steps[k] - 0.3, 1.16), kind="word")
        if k:
            arrow(axes, (steps[k - 1] + 0.3, 1.16), (x - (0.3 if k < 4 else 0.05), 0.68),
                  kind="word")  # fmt: skip
    return axes


def encoder() -> Axes:
    """What a ResNet-101 does to a 256 x 256 photograph, and which layers are used or trained."""
    axes = canvas(9, 3.5)
    axes.set_ylim(-0.25, 3.25)
    picture(axes, 0.75, 2.1, 1.2)
    label(axes, 0.75, 1.22, "3 ×\n256 × 256", "image")
    stages = [
        (2.2, 1.02, 0.2, "64 ×\n64 × 64", "conv1, pool"),
        (3.5, 1.02, 0.36, "256 ×\n64 × 64", "block 1"),
        (4.8, 0.74, 0.52, "512 ×\n32 × 32", "block 2"),
        (5.95, 0.52, 0.74, "1024 ×\n16 × 16", "block 3"),
        (7.05, 0.36, 1.0, "2048 ×\n8 × 8", "block 4"),
    ]
    edge = 1.4
    for x, side, depth, shape, name in stages:
        tensor(axes, x, 2.0, side, depth)
        label(axes, x, 1.22, shape, "image")
        label(axes, x, 2.98, name, "image", fontsize=9.5)
        arrow(
            axes,
            (edge, 2.0),
            (x - (side + depth * 0.45) / 2 - 0.04, 2.0),
            kind="image",
        )
        edge = (
            x
            + (side + depth * 0.45) / 2
            - 0.02
            - (depth * 0.12 if side < 0.6 else 0)
        )
    tensor(axes, 8.35, 1.95, 0.6, 1.0, cells=14)
    label(axes, 8.35, 1.22, "2048 ×\n14 × 14", "image")
    label(axes, 8.35, 2.98, "adaptive pool", "image", fontsize=9.5)
    arrow(axes, (edge, 2.0), (7.72, 2.0), kind="image")

    for left, right, text, kind in (
        (1.62, 4.05, "never trained here: edges, lines, curves", "plain"),
        (4.25, 7.5, "fine-tuned in stage two, if at all", "state"),
    ):
        line(
            axes,
            [(left, 0.92), (left, 0.82), (right, 0.82), (right, 0.92)],
            kind,
        )
        label(axes, (left + right) / 2, 0.64, text, kind)
    for x, text in ((6.2, "average pool"), (7.95, "linear, 1000 classes")):
        wide = 1.3 if x < 7 else 1.75
        box(axes, x, 0.14, wide, 0.36, text, "plain", size=8.5)
        axes.plot(
            [x - wide / 2, x + wide / 2],
            [-0.04, 0.32],
            color="#b02a2a",
            linewidth=1.3,
        )
    label(axes, 5.45, 0.14, "left out:", "plain", ha="right")
    label(axes, 0.75, 2.98, "photograph", "image", fontsize=9.5)
    return axes


def chain(axes: Axes, xs, y, words) -> None:
    """LSTM steps at `xs`, the words that go in and come out zigzagging below them."""
    gap = xs[1] - xs[0]
    for k, x in enumerate(xs):
        box(axes, x, y, 1.05, 0.56, "LSTM", "state")
        box(axes, x - gap / 2, y - 1.1, 0.95, 0.44, words[k], "word")
        arrow(
            axes,
            (x - gap / 2 + 0.25, y - 0.87),
            (x - 0.28, y - 0.29),
            kind="word",
        )
        arrow(
            axes,
            (x + 0.28, y - 0.29),
            (x + gap / 2 - 0.25, y - 0.87),
            kind="word",
        )
        if k:
            arrow(
                axes,
                (xs[k - 1] + 0.54, y),
                (x - 0.54, y),
                kind="state",
                text="h, c\n2×512",
            )
    box(axes, xs[-1] + gap / 2, y - 1.1, 0.95, 0.44, words[len(xs)], "word")
    arrow(axes, (xs[-1] + 0.54, y), (xs[-1] + gap / 2 + 0.2, y), kind="state")
    label(axes, xs[-1] + gap / 2 + 0.38, y, "…", "state", fontsize=12)


def decoder_plain() -> Axes:
    """A decoder without attention: it sees the photograph once, averaged, before the first word."""
    axes = canvas(9, 2.6)
    tensor(axes, 0.85, 1.75, 0.95, 0.55, cells=14)
    label(axes, 0.85, 1.13, "14 × 14 × 2048", "image")
    box(axes, 2.35, 1.75, 0.8, 0.56, "mean", "image", note="2048")
    arrow(axes, (1.5, 1.75), (1.94, 1.75), kind="image")
    arrow(axes, (2.76, 1.75), (3.46, 1.75), kind="image", text="linear")
    chain(axes, (4.0, 5.75, 7.5), 1.75, WORDS)
    return axes


def decoder_attention() -> Axes:
    """The same decoder with attention: at every word its own weighted average of the grid."""
    axes = canvas(9, 4.3)
    xs = (2.0, 4.4, 6.8)
    chain(axes, xs, 1.6, WORDS)
    arrow(axes, (0.6, 1.6), (1.46, 1.6), kind="state", text="h, c")
    for k, x in enumerate(xs):
        picture(axes, x, 3.4, 1.4, alpha=gaze(*GAZES[k]))
        arrow(axes, (x, 2.68), (x, 1.9), kind="attention")
        if k:
            arrow(axes, (xs[k - 1] + 0.45, 1.9), (x - 0.72, 3.15), kind="state")
        label(axes, x - 0.1, 2.38, "weighted", "attention", ha="right")
        label(axes, x - 0.1, 2.18, "average, 2048", "attention", ha="right")
    label(axes, 3.1, 3.55, "h says", "state")
    label(axes, 3.1, 3.35, "where", "state")
    return axes


def attention_step() -> Axes:
    """One step of attention with its shapes: two projections, a sum, a score a place, a softmax."""
    axes = canvas(9, 4.0)
    tensor(axes, 0.95, 2.9, 0.95, 0.55, cells=14)
    label(axes, 0.95, 3.75, "grid", "image", fontsize=10)
    label(axes, 0.95, 2.26, "P × D\n196 × 2048", "image", va="top")
    box(axes, 0.95, 0.95, 1.1, 0.56, "hidden", "state")
    label(axes, 0.95, 0.58, "H = 512", "state", va="top")
    box(axes, 2.85, 2.9, 1.3, 0.56, "encoder_att", "image")
    label(axes, 2.85, 2.54, "P × A, once an image", "image", va="top")
    box(axes, 2.85, 0.95, 1.3, 0.56, "decoder_att", "state")
    label(axes, 2.85, 0.58, "A = 512, every step", "state", va="top")
    arrow(axes, (1.62, 2.9), (2.18, 2.9), kind="image")
    arrow(axes, (1.52, 0.95), (2.18, 0.95), kind="state")
    box(axes, 4.45, 1.9, 0.95, 0.56, "+ , ReLU", "attention")
    label(axes, 4.45, 1.55, "P × A", "attention", va="top")
    arrow(axes, (3.52, 2.75), (4.15, 2.2), kind="image")
    arrow(axes, (3.52, 1.1), (4.15, 1.6), kind="state")
    box(axes, 5.75, 1.9, 0.9, 0.56, "full_att", "attention")
    label(axes, 5.75, 1.55, "P scores", "attention", va="top")
    arrow(axes, (4.95, 1.9), (5.29, 1.9), kind="attention")
    box(axes, 7.0, 1.9, 0.95, 0.56, "softmax", "attention")
    label(
        axes,
        7.0,
        1.55,
        r"P weights, $\sum_p \alpha_p = 1$",
        "attention",
        va="top",
    )
    arrow(axes, (6.21, 1.9), (6.51, 1.9), kind="attention")
    picture(axes, 8.35, 1.9, 0.95, alpha=gaze(*GAZES[1]))
    label(axes, 8.35, 1.24, r"$\alpha$", "attention", fontsize=11)
    arrow(axes, (7.49, 1.9), (7.85, 1.9), kind="attention")
    box(
        axes,
        5.75,
        3.35,
        2.1,
        0.6,
        r"context $=\ \sum_p \alpha_p\,a_p$",
        "attention",
    )
    label(axes, 5.75, 2.97, "D = 2048", "attention", va="top")
    arrow(axes, (1.62, 3.35), (4.68, 3.35), kind="image")
    line(axes, [(8.35, 2.4), (8.35, 3.35)], "attention")
    arrow(axes, (8.35, 3.35), (6.82, 3.35), kind="attention")
    return axes


def cell(
    axes: Axes, x, y, text, kind="word", *, width=0.4, height=0.36, strong=False
) -> None:
    """One square of a tensor, centred on (x, y); `strong` can be told apart without colour."""
    axes.add_patch(
        Rectangle(
            (x - width / 2, y - height / 2),
            width,
            height,
            facecolor=TINT[kind],
            edgecolor=PALETTE[kind],
            lw=2 if strong else 1,
        )
    )
    axes.text(x, y, text, ha="center", va="center", color="#1a1a1a", fontsize=9)


def packed_batches() -> Axes:
    """Five captions as a padded batch, sorted, and packed: the real tokens only."""
    axes = canvas(9, 5.0)
    lengths = dict(zip("abcde", (4, 6, 3, 2, 5), strict=True))
    steps, side = max(lengths.values()), 0.42

    def batch(left, top, captions):
        for row, name in enumerate(captions):
            for step in range(steps):
                here = step < lengths[name]
                place = left + side * (step + 0.5), top - side * (row + 0.5)
                cell(
                    axes,
                    *place,
                    f"{name}{step}" if here else "",
                    "word" if here else "plain",
                )
        return left + side * steps / 2

    label(
        axes,
        batch(0.3, 4.35, "abcde"),
        4.62,
        "padded  (N, T) = (5, 6)",
        "word",
        fontsize=10,
    )
    label(axes, 1.56, 1.98, "grey: <pad>", "plain")
    order = sorted(lengths, key=lengths.get, reverse=True)
    arrow(axes, (3.05, 3.3), (4.75, 3.3), text="sort by length,\nlongest first")
    label(
        axes,
        batch(5.0, 4.35, order),
        4.62,
        "sorted  (5, 6)",
        "word",
        fontsize=10,
    )
    sizes = [
        sum(length > step for length in lengths.values())
        for step in range(steps)
    ]
    for step, size in enumerate(sizes):
        label(
            axes,
            5.0 + side * (step + 0.5),
            2.06,
            str(size),
            "state",
            fontsize=10,
        )
    label(axes, 7.68, 2.06, "still running", "state", ha="left")
    arrow(axes, (6.26, 1.86), (6.26, 1.3), text="")
    label(axes, 6.4, 1.58, "read down the columns", "plain", ha="left")
    x = 0.3
    for step, size in enumerate(sizes):
        for name in order[:size]:
            cell(axes, x + side / 2, 0.95, f"{name}{step}")
            x += side
        line(axes, [(x - side * size + 0.04, 0.66), (x - 0.04, 0.66)], "state")
        label(axes, x - side * size / 2, 0.5, str(size), "state", fontsize=10)
    label(axes, 0.3, 1.4, "packed:  data (20,)", "word", fontsize=10, ha="left")
    label(axes, 0.3, 0.2, "batch_sizes (6,)", "state", fontsize=10, ha="left")
    return axes


# A beam of three: (caption, log-probability), kept ones first, then those that fall away.
BEAM = (
    ((("a", -0.8), ("two", -1.2), ("the", -2.0)), (("dogs", -2.7),)),
    ((("two dogs", -1.6), ("a dog", -1.7), ("a brown", -2.1)),
     (("the dog", -2.8), ("two people", -3.1))),
    ((("two dogs run", -2.1), ("a brown dog", -2.4), ("a dog runs", -2.7)),
     (("a dog on", -3.0), ("two dogs play", -3.2))),
    ((("two dogs run <end>", -2.5), ("a brown dog runs", -3.1), ("a dog runs <end>", -3.2)), ()),
)  # fmt: skip


def beam_tree() -> Axes:
    """A beam of three, from <start> to the winner, with the shapes of each step."""
    axes = canvas(9, 4.9)
    axes.set_ylim(-0.15, 4.75)
    places = {"": (0.5, 2.6)}
    box(axes, *places[""], 0.8, 0.42, "<start>", "word", size=9)
    for step, (kept, lost) in enumerate(BEAM):
        x = 1.95 + 1.98 * step
        label(axes, x + 0.05, 4.55, f"step {step + 1}", "plain", fontsize=10)
        for rank, (caption, score) in enumerate((*kept, *lost)):
            last, (before, _, word) = (
                step == len(BEAM) - 1,
                caption.rpartition(" "),
            )
            y = 4.0 - 0.78 * rank
            places[caption] = x, y
            live = rank < len(kept)
            kind = ("state" if word == "<end>" else "word") if live else "plain"
            start = places[before]
            half = 0.4 if not before else 0.46
            arrow(axes, (start[0] + half, start[1]), (x - 0.5, y), kind=kind)
            box(axes, x, y, 0.92, 0.42, word, kind, size=9.5)
            if caption == "two dogs run <end>":
                box(axes, x, y, 1.02, 0.52, "", kind)
                box(axes, x, y, 0.92, 0.42, word, kind, size=9.5)
            say = ("", ", wins", ", can only fall", ", greedy's")[
                last * (rank + 1)
            ]
            label(
                axes,
                x,
                y - (0.33 if rank or not last else 0.37),
                f"{score:.1f}{say}".replace("-", "−"),
                kind,
            )
            if not live:
                axes.plot(
                    [x - 0.4, x + 0.4],
                    [y - 0.14, y + 0.14],
                    color="#b02a2a",
                    linewidth=1.3,
                )
        shape = f"({1 if step == 0 else 3}, V)"
        label(
            axes,
            x + 0.05,
            0.12,
            f"scores {shape}\nkeep the best 3",
            "word",
            va="center",
        )
    return axes


HYPOTHESIS = "a dog runs on the green grass"
REFERENCES = (
    "a brown dog is running on the grass",
    "a dog runs across a green field",
    "the dog is playing on the green grass outside",
)  # of chapter 07


def bleu_matching() -> Axes:
    """Which runs of words a caption shares with three references, and what BLEU makes of it."""
    axes = canvas(9, 4.1)
    words, references = (
        HYPOTHESIS.split(),
        [text.split() for text in REFERENCES],
    )
    label(axes, 0.2, 3.85, "hypothesis", "word", ha="left", fontsize=10)
    for i, word in enumerate(words):
        cell(axes, 0.55 + 0.7 * i, 3.5, word, width=0.66, strong=True)
    label(axes, 0.2, 3.02, "references", "plain", ha="left", fontsize=10)
    runs = ngram_counts(words)
    for row, reference in enumerate(references):
        y = 2.65 - 0.85 * row
        shared = [n for n in range(1, 5) for i in range(len(reference) - n + 1)
                  if tuple(reference[i : i + n]) in runs]  # fmt: skip
        longest = max(shared)
        for i, word in enumerate(reference):
            kind = "word" if word in words else "plain"
            cell(
                axes,
                0.55 + 0.7 * i,
                y,
                word,
                kind,
                width=0.66,
                strong=word in words,
            )
        for i in range(len(reference) - longest + 1):
            if tuple(reference[i : i + longest]) in runs:
                left, right = 0.25 + 0.7 * i, 0.85 + 0.7 * (i + longest - 1)
                line(axes, [(left, y - 0.25), (left, y - 0.31), (right, y - 0.31),
                            (right, y - 0.25)], "word")  # fmt: skip
                label(
                    axes,
                    (left + right) / 2,
                    y - 0.43,
                    f"shared: {longest} in a row",
                    "word",
                )
    row = bleu_statistics([references], [words])[0].astype(int).tolist()
    axes.plot([6.85, 6.85], [0.35, 3.95], color=PALETTE["plain"], linewidth=0.6)
    for n in range(4):
        y = 3.75 - 0.42 * n
        label(
            axes, 7.0, y, f"{n + 1} in a row", "plain", ha="left", fontsize=9.5
        )
        label(
            axes,
            8.85,
            y,
            f"{row[n]} of {row[4 + n]}",
            "word",
            ha="right",
            fontsize=9.5,
        )
    label(axes, 7.0, 1.92, f"{row[4]} words, closest\nreference {row[8]}: no penalty", "plain",
          ha="left", va="center")  # fmt: skip
    label(axes, 7.0, 1.1, "counts of one image (9,):\n4 shared, 4 in all, 1 length\n"
          "a corpus adds up (I, 9)", "state", ha="left", va="center")  # fmt: skip
    return axes


def chapter_map() -> Axes:
    """Chapters 00 to 10, the module each leaves, and what leads to what."""
    axes = canvas(9, 4.6)
    axes.set_ylim(-0.2, 4.4)
    places = {
        "00": (1.1, 3.3, "On one page", "no module", "plain"),
        "01": (1.1, 1.9, "Data pipeline", "data", "image"),
        "02": (3.1, 3.3, "Encoder", "encoder", "image"),
        "03": (3.1, 1.9, "Attention", "attention", "attention"),
        "04": (3.1, 0.5, "Decoder", "decoder", "state"),
        "05": (5.0, 1.9, "Training", "training", "state"),
        "10": (5.0, 0.5, "GPU training", "no module", "plain"),
        "06": (6.45, 3.3, "Beam search", "beam_search", "word"),
        "07": (6.45, 1.9, "BLEU", "metrics", "word"),
        "08": (8.15, 3.3, "Caption a photo", "captioner", "word"),
        "09": (8.15, 1.9, "Seeing attention", "visualize", "attention"),
    }
    for number, (x, y, title, module, kind) in places.items():
        width = 1.5 if number in ("08", "09") else 1.26
        box(axes, x, y, width, 0.66, f"{number}\n{title}", kind, size=9)
        style = (
            {"family": "monospace"}
            if module != "no module"
            else {"style": "italic"}
        )
        label(axes, x, y - 0.43, module, kind, va="top", fontsize=8.5, **style)
    for start, end in (
        ((1.1, 2.6), (1.1, 2.26)), ((1.76, 2.1), (2.44, 3.15)), ((3.1, 2.6), (3.1, 2.26)),
        ((3.1, 1.2), (3.1, 0.86)), ((3.76, 0.7), (4.36, 1.6)), ((5.2, 2.26), (5.78, 3.15)),
        ((6.45, 2.6), (6.45, 2.26)), ((7.11, 3.3), (7.37, 3.3)), ((8.15, 2.6), (8.15, 2.26)),
        ((5.0, 1.2), (5.0, 0.86)),
    ):  # fmt: skip
        arrow(axes, start, end)
    for x, text in ((1.1, "the whole; the data"), (3.1, "the model"), (5.0, "learning"),
                    (7.3, "writing, judging, looking")):  # fmt: skip
        label(axes, x, 4.1, text, "plain", fontsize=10.5, style="italic")
    return axes


def first_look(folder: Path) -> str:
    """What the packaged toy captioner says of one scene, and where it looked. Returns the caption.

    Writes `first-look.webp` into `folder`.
    """
    from captionlib import Captioner
    from captionlib.toy.scenes import write_scenes
    from captionlib.visualize import show_attention

    with tempfile.TemporaryDirectory() as scenes:
        write_scenes(scenes, train=0, val=0, test=SCENE + 1, seed=0)
        image = Path(scenes) / "images" / f"test_{SCENE:05d}.png"
        caption = Captioner.from_pretrained("toy").caption(image)
        figure = show_attention(image, caption, every=True)
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=200, facecolor="none")
    plt.close(figure)
    Image.open(file).save(folder / "first-look.webp", quality=84, method=6)
    return caption.text


def toy_settings(folder: Path) -> None:
    """The eight settings without objects, as `toy-settings.jpg`."""
    from captionlib.toy.scenery import SETTINGS, paint_setting

    pictures = [paint_setting(name, look=8).reduce(2) for name in SETTINGS]
    _tile(pictures, 4).save(folder / "toy-settings.jpg", quality=85)


def toy_scenes(folder: Path) -> None:
    """Six scenes, each object framed, as `toy-scenes.jpg`."""
    from captionlib.toy.scenes import draw_scene, scene_with_captions

    pictures = []
    for index in (31, 13, 20, 23, 17, 9):
        scene, _ = scene_with_captions("train", index)
        picture = draw_scene(scene)
        for thing in scene.things:
            frame = ImageDraw.Draw(picture).rectangle
            frame(thing.box, outline=PALETTE["image"], width=3)
        pictures.append(picture)
    _tile(pictures, 3).save(folder / "toy-scenes.jpg", quality=85)


def verbs_world(folder: Path) -> None:
    """Eight scenes of the world with verbs, as `verbs-world.jpg`."""
    from captionlib.toy.verbs import draw_scene, scene_with_captions

    pictures = []
    for index in (4, 17, 3, 26, 5, 14, 25, 23):
        scene, _ = scene_with_captions("train", index)
        pictures.append(draw_scene(scene))
    _tile(pictures, 4).save(folder / "verbs-world.jpg", quality=85)


def own_pictures(folder: Path) -> None:
    """The pictures that book/own_data.md tests on, as `own-pictures.jpg`."""
    from captionlib.toy.scenes import write_scenes

    names = (
        "train_00002 train_00009 train_00020 val_00007 test_00001 test_00004"
    )
    with tempfile.TemporaryDirectory() as scenes:
        write_scenes(scenes, train=40, val=10, test=10, seed=3)
        images = Path(scenes) / "images"
        pictures = [
            Image.open(images / f"{name}.png").convert("RGB")
            for name in names.split()
        ]
    _tile(pictures, 3).save(folder / "own-pictures.jpg", quality=85)


def _tile(pictures: list[Image.Image], columns: int) -> Image.Image:
    """Pictures of one size side by side, in rows."""
    width, height = pictures[0].size
    rows = -(-len(pictures) // columns)
    sheet = Image.new("RGB", (columns * width, rows * height), "white")
    for n, picture in enumerate(pictures):
        sheet.paste(picture, (n % columns * width, n // columns * height))
    return sheet


SCENE = 10  # of the toy world's test split
FIGURES = {
    "whole-model": whole_model,
    "encoder": encoder,
    "decoder-plain": decoder_plain,
    "decoder-attention": decoder_attention,
    "attention-step": attention_step,
    "packed-batches": packed_batches,
    "beam-tree": beam_tree,
    "bleu-matching": bleu_matching,
    "chapter-map": chapter_map,
}


def with_themes(svg: str) -> str:
    """A drawn picture whose colours are variables, which a dark page redefines."""
    for name, colour in DRAWN.items():
        kinds = (
            "fill" if name == "ground" else "fill|stroke"
        )  # white lines stay: they lie on photos
        svg = re.sub(
            rf"\b({kinds}): {colour}\b",
            rf"\1: var(--{name}, {LIGHT[name]})",
            svg,
        )
    dark = "".join(f"--{name}:{colour};" for name, colour in DARK.items())
    style = (
        f"<style>@media (prefers-color-scheme: dark){{svg{{{dark}}}}}</style>"
    )
    return re.sub(r"(<svg\b[^>]*>)", rf"\1\n {style}", svg, count=1)


def svg(name: str) -> str:
    """The text of a figure's file."""
    settings = {
        "svg.hashsalt": name,
        "svg.fonttype": "path",
        "font.family": "DejaVu Sans",
    }
    with plt.rc_context(settings):
        figure = FIGURES[name]().figure
        # Smaller paper under the same drawing: letters come out larger on a narrow page.
        figure.set_size_inches(0.8 * figure.get_size_inches())
        file = io.StringIO()
        figure.savefig(
            file,
            format="svg",
            facecolor="white",
            metadata={"Date": None, "Creator": None},
        )
        plt.close(figure)
    return with_themes(file.getvalue())


def main(folder: Path = HERE) -> None:
    """Write every figure into `folder`."""
    for name in FIGURES:
        (folder / f"{name}.svg").write_text(svg(name), encoding="utf-8")
    toy_settings(folder)
    toy_scenes(folder)
    own_pictures(folder)
    verbs_world(folder)
    print("first-look:", first_look(folder))


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else HERE)
