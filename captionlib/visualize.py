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
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from captionlib.book.diagrams import PALETTE
from captionlib.captioner import Caption
from captionlib.io.files import InputError, atomic_file
from captionlib.io.images import open_rgb

__all__ = ["COLUMNS", "show_attention", "upsample_alpha"]


def upsample_alpha(
    alpha, size: tuple[int, int], *, smooth: bool = True
) -> np.ndarray:
    """Give every pixel of a picture its attention weight.

    Args:
        alpha: (h, w) weights of the grid's cells.
        size: (height, width) of the picture, in pixels.
        smooth: blend neighbouring cells (a Gaussian with a standard deviation of half a cell,
            mirrored at the border); or raw squares.

    Returns:
        (height, width) float32, within alpha's range. Where the cells divide the size evenly,
        its mean is alpha's.
    """
    alpha = np.asarray(alpha, dtype=np.float32)
    rows, columns = (
        _spread(n, pixels, smooth)
        for n, pixels in zip(alpha.shape, size, strict=True)
    )
    return rows @ alpha @ columns.T


def _spread(cells: int, pixels: int, smooth: bool) -> np.ndarray:
    """(pixels, cells): how much each cell counts at each pixel along one side; rows add up to 1."""
    places = (
        (np.arange(pixels, dtype=np.float32) + 0.5) * cells / pixels
    )  # in cells
    nearest = np.eye(cells, dtype=np.float32)[places.astype(int)]
    if not smooth:
        return nearest
    reflections = np.stack([places, -places, 2 * cells - places])
    bell = np.exp(-2 * (places[:, None, None] - reflections) ** 2).sum(axis=1)
    return bell / bell.sum(axis=1, keepdims=True) @ nearest


COLUMNS = 6  # panels in a row, at most


def show_attention(
    image,
    caption: Caption,
    *,
    to: str | Path | None = None,
    smooth: bool = True,
) -> Figure:
    """Draw the image, and then, for each word, the image seen through the word's attention.

    All words share one scale: the image is lit where a weight is the caption's largest, and dark
    where it is 0; between them by the square root, so that a spread-out gaze stays visible. Under
    each word stands its largest weight, in multiples of an even share.

    Args:
        image: the image that the caption is of, as `read_image` takes it.
        caption: its `words`, and `alphas` (len(words), h, w), are drawn.
        to: a file to write, in the format of its ending; no display is touched. With None the
            figure is pyplot's, for `plt.show()`.
        smooth: blend the grid's cells, or show them as squares.

    Raises:
        InputError: if the image can't be read, or `to` doesn't end like a picture file.
        ValueError: if there is not one map a word.
    """
    alphas = np.asarray(caption.alphas, dtype=np.float32)
    if alphas.ndim != 3 or len(alphas) != len(caption.words):
        raise ValueError(
            f"expected {len(caption.words)} maps (h, w), got {alphas.shape}"
        )
    photograph = open_rgb(
        image
    ).copy()  # the caller's own picture keeps its size
    photograph.thumbnail((400, 400))
    pixels = (
        np.asarray(photograph, dtype=np.float32) / 255
    )  # (height, width, 3)

    maps = [
        upsample_alpha(alpha, pixels.shape[:2], smooth=smooth)
        for alpha in alphas
    ]
    top = max((weights.max() for weights in maps), default=1.0)
    title = caption.text + ("" if caption.finished else " … (unfinished)")
    new = Figure if to is not None else plt.figure
    figure, panels = _panels(
        new, title, 1 + len(maps), pixels.shape[0] / pixels.shape[1]
    )
    panels[0].imshow(pixels, aspect="auto")
    for axes, word, alpha, weights in zip(
        panels[1:], caption.words, alphas, maps, strict=True
    ):
        axes.imshow(
            _lit(pixels, np.sqrt(np.clip(weights, 0, None) / top)),
            aspect="auto",
        )
        _label(axes, word, f"×{alpha.max() * alpha.size:.1f}")
    if to is not None:
        _save(figure, Path(to))
    return figure


def _panels(
    new, title: str, count: int, tallness: float
) -> tuple[Figure, list[Axes]]:
    """A figure with `count` empty panels in rows, each as tall for its width as the image is."""
    rows = math.ceil(count / COLUMNS)
    columns = math.ceil(count / rows)  # rows of about the same length
    lines = textwrap.wrap(title, width=max(14 * columns, 28)) or ["(no words)"]
    panel = 1.8, 1.8 * min(max(tallness, 0.4), 2.5)  # inches
    head, step = 0.15 + 0.2 * len(lines), (panel[0] + 0.1, panel[1] + 0.5)
    size = max(columns * step[0] + 0.1, 3.0), rows * step[1] + head
    figure = new(figsize=size, facecolor="white")
    figure.suptitle(
        "\n".join(lines),
        y=1 - 0.08 / size[1],
        fontsize=11,
        color="#1a1a1a",
        parse_math=False,
    )
    panels = []
    for n in range(count):
        row, column = divmod(n, columns)
        left, bottom = (
            0.1 + column * step[0],
            size[1] - head - (row + 1) * step[1] + 0.2,
        )
        place = (
            left / size[0],
            bottom / size[1],
            panel[0] / size[0],
            panel[1] / size[1],
        )
        panels.append(figure.add_axes(place))
        panels[-1].axis("off")
    return figure, panels


def _lit(pixels: np.ndarray, light: np.ndarray) -> np.ndarray:
    """The image (height, width, 3) where `light` is 1, and a purple night where it is 0."""
    night = (0.25 + 0.45 * pixels.mean(axis=2, keepdims=True)) * to_rgb(
        PALETTE["attention"]
    )
    return night + light[..., None] * (pixels - night)


def _label(axes: Axes, word: str, peak: str) -> None:
    axes.set_title(
        word,
        fontsize=10,
        color=PALETTE["word"],
        weight="bold",
        parse_math=False,
    )
    axes.text(
        0.5,
        -0.02,
        peak,
        transform=axes.transAxes,
        ha="center",
        va="top",
        fontsize=9,
        color=PALETTE["attention"],
    )


def _save(figure: Figure, to: Path) -> None:
    formats = figure.canvas.get_supported_filetypes()
    if to.suffix[1:].lower() not in formats:
        raise InputError(
            f"{to}: is no picture file; let its name end in .png, .svg or .pdf"
        )
    with atomic_file(to) as temporary:
        figure.savefig(temporary, dpi=150)
