# ---
# jupyter:
#   captionlib:
#     module: visualize
#   jupytext:
#     formats: ipynb,py:percent
#     notebook_metadata_filter: captionlib
#     text_representation:
#       extension: .py
#       format_name: percent
#       format_version: '1.3'
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Seeing attention
#
# The decoder left us a map for every word: how much weight each cell of the grid had while the word
# was chosen. Drawn over the photograph, does such a map show what the word is about, and does it
# say *why* the model chose it?

# %% tags=["hide-input"] mystnb={"image": {"alt": "A four by four grid of numbers, the attention weights of one word, becomes sixteen flat squares over a picture, and then a soft spot of light over the same picture."}, "figure": {"caption": "From sixteen weights to a picture: squares that show the numbers, or a smooth map that is easier to look at and holds no more.", "name": "fig-seeing-attention"}}
import numpy as np
import matplotlib.pyplot as plt

from captionlib.diagrams import PALETTE, TINT, arrow, canvas

alpha = np.array([[1, 1, 1, 1], [1, 4, 6, 1], [1, 5, 9, 2], [1, 1, 2, 1]]) / 38
axes = canvas(9, 2.9)
for row in range(4):
    for column in range(4):
        strength = alpha[row, column] / alpha.max()
        cell = plt.Rectangle((0.4 + 0.55 * column, 1.95 - 0.55 * row), 0.55, 0.55)
        cell.set(facecolor=PALETTE["attention"], alpha=0.08 + 0.75 * strength, edgecolor="white")
        axes.add_patch(cell)
        ink = "white" if strength > 0.5 else "#1a1a1a"
        place = (0.675 + 0.55 * column, 2.225 - 0.55 * row)
        axes.text(*place, f"{alpha[row, column]:.2f}", ha="center", va="center", fontsize=7, color=ink)
centres = np.linspace(-1, 1, 220)
disc = ((centres[None] - 0.25) ** 2 + (centres[:, None] - 0.15) ** 2 < 0.2)[..., None]
paint = np.where(disc, [200, 115, 10], [215, 230, 246]) / 255
veil = np.array([236, 220, 242]) / 255
squares = np.kron(alpha / alpha.max(), np.ones((55, 55)))
distance = (np.arange(220)[:, None] + 0.5) / 55 - (np.arange(4) + 0.5)
soft = np.exp(-2 * distance**2) / np.exp(-2 * distance**2).sum(1, keepdims=True)
for left, weights in ((3.55, squares), (6.6, soft @ (alpha / alpha.max()) @ soft.T)):
    picture = weights[..., None] * paint + (1 - weights[..., None]) * (0.75 * veil + 0.25 * paint)
    axes.imshow(picture, extent=(left, left + 2.2, 0.3, 2.5), zorder=1)
axes.set(xlim=(0, 9), ylim=(0, 2.9))
arrow(axes, (2.7, 1.4), (3.45, 1.4), kind="attention", text="raw")
arrow(axes, (5.85, 1.4), (6.5, 1.4), kind="attention", text="smooth")
axes.text(1.5, 2.62, "weights of one word", ha="center", color=PALETTE["attention"], fontsize=9)
plt.show()

# %% [markdown]
# **You will build** `show_attention`, which draws a caption as one picture a word, and then a few
# measurements that ask how far such pictures deserve belief. **You need** the `Caption` of the
# [last chapter](08_caption_a_photo.ipynb); a small trained captioner of the toy world comes with the
# package. **It takes** {chapter-time}`09_seeing_attention` to run.
#
# ## A word, its map, and when it was made
#
# Sixty scenes that the captioner has never seen, and what it says of the first.

# %%
import tempfile
import time
from pathlib import Path

import torch

from captionlib.captioner import Captioner
from captionlib.files import read_json
from captionlib.scenes import write_scenes

workshop = tempfile.TemporaryDirectory()
folder = Path(workshop.name)
write_scenes(folder, train=0, val=0, test=60, seed=0)
objects = read_json(folder / "objects_scenes.json")  # for each image: names, boxes, words
paths = sorted((folder / "images").glob("*test*"))

captioner = Captioner.from_pretrained("toy")
captions = captioner.caption_batch(paths)
first = captions[0]
print(first.text)
print("alphas", first.alphas.shape, "adding up to", first.alphas.sum((1, 2)).round(4))

# %% [markdown]
# One map a word, each adding up to 1 over the cells of the encoder's grid. Map number $t$ is the
# $\alpha_t$ of [chapter 03](03_attention.ipynb), and it was made *before* word $t$ was chosen: the
# decoder reads word $t-1$, looks, and then speaks. So the map under *dog* says where the decoder
# looked in order to find out which word comes after *a*.
#
# ## From a few cells to a picture
#
# The grid is coarse, one cell for every 32 × 32 pixels of the image. To lay a map over the photograph
# we have to give every pixel a weight. Spelled out, the plainest way is a double loop: each pixel
# takes the weight of the cell that it lies in.

# %%
def upsample_naive(alpha, size):
    height, width = size
    cells_down, cells_across = alpha.shape
    picture = np.zeros(size, dtype=np.float32)
    for y in range(height):
        for x in range(width):
            picture[y, x] = alpha[y * cells_down // height, x * cells_across // width]
    return picture


# %% tags=["nbval-ignore-output"]
alpha = first.alphas[1]
start = time.perf_counter()
squares = upsample_naive(alpha, (256, 256))
print(f"{1000 * (time.perf_counter() - start):.1f} ms for one word")

# %% [markdown]
# Rows and columns don't interact: the row of a pixel depends on its $y$ alone, the column on its $x$.
# So the whole loop is two small matrices, one choosing rows and one choosing columns,
#
# $$ M = R\,\alpha\,C^\top, \qquad R_{yi} = 1 \text{ if pixel row } y \text{ lies in cell row } i,
# \text{ else } 0. $$
#
# The same two matrices smooth the map if each row of $R$ holds, instead of a single one, the weights
# of a bell around $y$ (a Gaussian, half a cell wide). At the border the bell would hang over the edge;
# folding the part outside back in, like a mirror, keeps every row's sum at 1. Then a smooth map stays
# between the smallest and the largest weight, an even map stays even, and the mean over the
# picture is the mean over the cells. Smoothing is for the eye: it adds no knowledge of where inside a
# cell the decoder looked. (The original tutorial magnified its maps 24 times with scikit-image's
# `pyramid_expand` and a Gaussian 8 pixels wide, a third of a cell.)

# %%
#| export
import numpy as np


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
    rows, columns = (_spread(n, pixels, smooth) for n, pixels in zip(alpha.shape, size, strict=True))
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


# %% tags=["nbval-ignore-output"]
start = time.perf_counter()
raw = upsample_alpha(alpha, (256, 256), smooth=False)
middle = time.perf_counter()
soft = upsample_alpha(alpha, (256, 256))
end = time.perf_counter()
print(f"{1000 * (middle - start):.1f} ms raw, {1000 * (end - middle):.1f} ms smooth")

# %%
assert np.array_equal(raw, squares)
assert alpha.min() <= soft.min() and soft.max() <= alpha.max() + 1e-6
assert np.allclose(soft.mean(), alpha.mean(), rtol=1e-3)
even = np.full_like(alpha, 1 / alpha.size)
assert np.allclose(upsample_alpha(even, (100, 77)), 1 / alpha.size)

# %% [markdown]
# ## One scale for all the words
#
# Weights become colours by a scale, and the scale can lie. Below, three maps that hardly differ from
# even, a few per cent up and down, and one with a real peak. In the upper row each map is stretched to
# its own smallest and largest weight, which is what `imshow` does when it isn't told otherwise: all four look
# equally certain. In the lower row they share one scale, from 0 to the largest weight of them all.

# %% tags=["hide-input"] mystnb={"image": {"alt": "Two rows of four small maps. Scaled one by one, in the upper row, three almost even maps look as full of contrast as the fourth, which has a real peak. On one common scale, in the lower row, the first three are flat and pale and only the fourth shows a peak."}, "figure": {"caption": "The same four maps twice. Above, each on its own scale; below, on a common one.", "name": "fig-attention-scales"}}
from matplotlib.colors import LinearSegmentedColormap

purple = LinearSegmentedColormap.from_list("attention", ["white", PALETTE["attention"]])
generator = np.random.default_rng(3)
maps = [1 + 0.04 * generator.standard_normal((8, 8)) for _ in range(3)]
maps.append(1 + 12 * np.exp(-((np.indices((8, 8)) - 3.5) ** 2).sum(0) / 3))
maps = [weights / weights.sum() for weights in maps]
figure, grid = plt.subplots(2, 4, figsize=(7, 3.4), layout="constrained", facecolor="white")
for column, weights in enumerate(maps):
    grid[0, column].imshow(weights, cmap=purple)
    grid[1, column].imshow(weights, cmap=purple, vmin=0, vmax=max(m.max() for m in maps))
    grid[0, column].set_title(f"largest: {weights.max() * 64:.1f} × even", fontsize=8)
    for axes in grid[:, column]:
        axes.set(xticks=[], yticks=[])
grid[0, 0].set_ylabel("own scale", fontsize=9)
grid[1, 0].set_ylabel("common scale", fontsize=9)
plt.show()

# %% [markdown]
# We take the common scale, and write under each picture how large its largest weight is, in multiples
# of an even share $1/P$: "×1.0" would be a decoder that looks everywhere alike.
#
# The drawing itself: the photograph stays clear where the weight is large, and disappears
# behind a pale purple veil where it is small. With a file to write to, the figure never meets a window
# or a display, so it works on a server; without, it is an ordinary pyplot figure. Many words
# wrap into rows.

# %%
#| export
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
    axes.text(0.5, -0.02, peak, transform=axes.transAxes, ha="center", va="top", fontsize=7.5,
              color=PALETTE["attention"])


def _save(figure: Figure, to: Path) -> None:
    formats = figure.canvas.get_supported_filetypes()
    if to.suffix[1:].lower() not in formats:
        raise InputError(f"{to}: is no picture file; let its name end in .png, .svg or .pdf")
    with atomic_file(to) as temporary:
        figure.savefig(temporary, dpi=150)


