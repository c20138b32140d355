"""Seeing attention.

Chapter 09 of the book, notebooks/09_seeing_attention.ipynb, explains this module and
generates it: edit the chapter, not this file, then run `make export`.
"""

import math
import textwrap
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from captionlib.book.style import INK, PALETTE
from captionlib.captioner import Caption
from captionlib.io.figures import save_figure
from captionlib.io.fonts import borrow_letters
from captionlib.io.images import open_rgb

__all__ = [
    "FUNCTION_WORDS",
    "content_words",
    "draw_lit",
    "half_of_weight",
    "show_attention",
    "upsample_alpha",
]


def upsample_alpha(
    alpha, size: tuple[int, int], *, smooth: bool = True
) -> np.ndarray:
    """Give every pixel of a picture its attention weight.

    Args:
        alpha: (h, w) weights of the grid's cells.
        size: (height, width) of the picture, in pixels.
        smooth: blend neighbouring cells, or leave them as squares.

    Returns:
        (height, width) float32, within alpha's range.
    """
    alpha = np.asarray(alpha, dtype=np.float32)
    R, C = (
        _spread(cells, pixels, smooth)
        for cells, pixels in zip(alpha.shape, size, strict=True)
    )
    return R @ alpha @ C.T


def _spread(cells: int, pixels: int, smooth: bool) -> np.ndarray:
    """(pixels, cells): each cell's share of each pixel; rows sum to 1."""
    x = (np.arange(pixels, dtype=np.float32) + 0.5) * cells / pixels
    nearest = np.eye(cells, dtype=np.float32)[x.astype(int)]
    if not smooth:
        return nearest
    mirrored = np.stack([x, -x, 2 * cells - x])
    # Half a cell as standard deviation makes the factor 2.
    bell = np.exp(-2 * (x[:, None, None] - mirrored) ** 2).sum(axis=1)
    return bell / bell.sum(axis=1, keepdims=True) @ nearest


def half_of_weight(weights: np.ndarray) -> np.ndarray:
    """The fewest pixels that hold half of all weight, as a boolean mask."""
    largest_first = np.sort(weights, axis=None)[::-1]
    sums = largest_first.cumsum(dtype=float)
    last = largest_first[np.searchsorted(sums, sums[-1] / 2)]
    return weights >= 0.9999 * last  # equal weights belong together


def draw_lit(
    axes: Axes, pixels: np.ndarray, weights: np.ndarray, top: float
) -> None:
    """Draw `pixels` (height, width, 3), in [0, 1], lit by their weights.

    Where `weights` (height, width) are 0 the picture is dim and grey, where
    they are `top` it is bright.
    """
    grey = pixels.mean(axis=2, keepdims=True)
    dim = 0.03 + 0.22 * (0.7 * grey + 0.3 * pixels)
    bright = pixels**0.65  # lifts the shadows: dark coats stay visible
    light = np.sqrt(weights / top)[..., None]
    axes.imshow(dim + light * (bright - dim))
    mask = half_of_weight(weights)
    if min(mask.shape) > 1 and not mask.all():
        for colour, width in (("black", 2.6), ("#ffd34d", 1.3)):
            axes.contour(mask, [0.5], colors=colour, linewidths=width)


FUNCTION_WORDS = frozenset(
    "a an the this that its his her their and or of in on at to from with by "
    "for into onto over under up down out off through as is are was were be "
    "being there while some other front next <unk>".split()
)


def content_words(words: list[str]) -> list[int]:
    """The places of the words that get a panel.

    All but `FUNCTION_WORDS`; every word if that leaves fewer than two.
    """
    content = [i for i, word in enumerate(words) if word not in FUNCTION_WORDS]
    return content if len(content) > 1 else list(range(len(words)))


def show_attention(
    image,
    caption: Caption,
    *,
    to: str | Path | None = None,
    smooth: bool = True,
    every: bool = False,
) -> Figure:
    """Draw the image, then once for each content word, lit by attention.

    Words share one scale: the light goes by the square root of the weight,
    and is full at the largest weight drawn. A line surrounds half of a word's
    weight; the number is its largest cell's, in multiples of an even share.

    Args:
        image: what the caption is of, as `read_image` takes it.
        caption: its `words`, and `alphas` (len(words), h, w), are drawn.
        to: a file to write; None makes a pyplot figure, for `plt.show()`.
        smooth: blend the grid's cells, or show them as squares.
        every: draw function words, too.

    Raises:
        InputError: if the image can't be read, or `to` isn't a picture file.
        ValueError: unless there is one map per word.
    """
    words, alphas = caption.words, np.asarray(caption.alphas)
    if alphas.ndim != 3 or len(alphas) != len(words):
        raise ValueError(f"expected {len(words)} maps, got {alphas.shape}")
    photograph = open_rgb(image).copy()  # the caller's keeps its size
    photograph.thumbnail((480, 480))
    pixels = np.asarray(photograph, dtype=np.float32) / 255
    drawn = range(len(words)) if every else content_words(words)
    size = pixels.shape[:2]
    maps = [upsample_alpha(alphas[i], size, smooth=smooth) for i in drawn]
    top = max((weights.max() for weights in maps), default=1.0)
    title = caption.text + " … (unfinished)" * (not caption.finished)
    panels = _panels(1 + len(maps), photograph.size, title, to is None)
    panels[0].imshow(pixels)
    for axes, i, weights in zip(panels[1:], drawn, maps, strict=True):
        draw_lit(axes, pixels, weights, top)
        peak = f"×{alphas[i].max() * alphas[i].size:.1f}"
        _label(axes, "left", words[i], "word")
        _label(axes, "right", peak, "attention")
    borrow_letters(panels[0].figure)  # of other scripts, from other fonts
    if to is not None:
        save_figure(panels[0].figure, to)
    return panels[0].figure


def _panels(
    count: int, size: tuple[int, int], title: str, on_screen: bool
) -> list[Axes]:
    """`count` empty panels in rows, under a title."""
    wide = size[0] >= size[1] and count <= 8
    columns = min(count, 2 if wide else 3)
    rows = math.ceil(count / columns)
    lines = textwrap.wrap(title, width=42) or ["(no words)"]
    tall = min(size[1] / size[0], 2) * 4.6 / columns + 0.3  # inches
    figure = (plt.figure if on_screen else Figure)(
        figsize=(4.8, rows * tall + 0.25 * len(lines)),
        facecolor="none",
        layout="constrained",
    )
    figure.suptitle("\n".join(lines), size=12, color=INK, parse_math=False)
    panels = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axes in panels:
        axes.axis("off")
    return panels[:count]


def _label(axes: Axes, place: str, text: str, kind: str) -> None:
    style = {"fontsize": 11, "pad": 3, "parse_math": False}
    axes.set_title(text, loc=place, color=PALETTE[kind], **style)
