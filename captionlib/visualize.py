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

from captionlib.captioner import Caption
from captionlib.diagrams import PALETTE, TINT
from captionlib.files import InputError, atomic_file
from captionlib.images import open_rgb

__all__ = ["COLUMNS", "show_attention", "upsample_alpha"]


def upsample_alpha(alpha, size: tuple[int, int], *, smooth: bool = True) -> np.ndarray:
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
        _spread(n, pixels, smooth) for n, pixels in zip(alpha.shape, size, strict=True)
    )
    return rows @ alpha @ columns.T


def _spread(cells: int, pixels: int, smooth: bool) -> np.ndarray:
    """(pixels, cells): how much each cell counts at each pixel along one side; rows add up to 1."""
    places = (np.arange(pixels, dtype=np.float32) + 0.5) * cells / pixels  # in cells
    nearest = np.eye(cells, dtype=np.float32)[places.astype(int)]
    if not smooth:
        return nearest
    reflections = np.stack([places, -places, 2 * cells - places])
    bell = np.exp(-2 * (places[:, None, None] - reflections) ** 2).sum(axis=1)
    return bell / bell.sum(axis=1, keepdims=True) @ nearest


COLUMNS = 6  # panels in a row


def show_attention(
    image, caption: Caption, *, to: str | Path | None = None, smooth: bool = True
) -> Figure:
    """Draw the image, and then, for each word, the image seen through the word's attention.

    All words share one scale: the image is clear where a weight is the caption's largest, and
    veiled where it is 0. Under each word stands its largest weight, in multiples of an even share.

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
        raise ValueError(f"expected {len(caption.words)} maps (h, w), got {alphas.shape}")
    photograph = open_rgb(image)
    photograph.thumbnail((400, 400))
    pixels = np.asarray(photograph, dtype=np.float32) / 255  # (height, width, 3)

    columns = min(1 + len(alphas), COLUMNS)
    rows = math.ceil((1 + len(alphas)) / columns)
    tallness = min(max(pixels.shape[0] / pixels.shape[1], 0.4), 2.5)  # of a panel
    size = (max(1.9 * columns, 3.8), rows * (1.9 * tallness + 0.5) + 0.5)
    new = Figure if to is not None else plt.figure
    figure = new(figsize=size, facecolor="white", layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in panels:
        axes.axis("off")

    title = caption.text + ("" if caption.finished else " … (unfinished)")
    title = "\n".join(textwrap.wrap(title, width=13 * columns)) or "(no words)"
    figure.suptitle(title, fontsize=11, color="#1a1a1a", parse_math=False)
    panels[0].imshow(pixels, aspect="auto")
    maps = [upsample_alpha(alpha, pixels.shape[:2], smooth=smooth) for alpha in alphas]
    top = max((weights.max() for weights in maps), default=1.0)
    for axes, word, alpha, weights in zip(panels[1:], caption.words, alphas, maps, strict=False):
        axes.imshow(_veiled(pixels, weights / top), aspect="auto")
        _label(axes, word, f"×{alpha.max() * alpha.size:.1f}")
    if to is not None:
        _save(figure, Path(to))
    return figure


def _veiled(pixels: np.ndarray, clear: np.ndarray) -> np.ndarray:
    """The image (height, width, 3) where `clear` is 1, a veil over its greys where it is 0."""
    veil = 0.25 * pixels.mean(axis=2, keepdims=True) + 0.75 * np.array(to_rgb(TINT["attention"]))
    return veil + clear[..., None] * (pixels - veil)


def _label(axes: Axes, word: str, peak: str) -> None:
    axes.set_title(word, fontsize=10, color=PALETTE["word"], weight="bold", parse_math=False)
    axes.text(
        0.5,
        -0.02,
        peak,
        transform=axes.transAxes,
        ha="center",
        va="top",
        fontsize=7.5,
        color=PALETTE["attention"],
    )


def _save(figure: Figure, to: Path) -> None:
    formats = figure.canvas.get_supported_filetypes()
    if to.suffix[1:].lower() not in formats:
        raise InputError(f"{to}: is no picture file; let its name end in .png, .svg or .pdf")
    with atomic_file(to) as temporary:
        figure.savefig(temporary, dpi=150)
