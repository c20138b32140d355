"""Does it look where it should?

Chapter 11 of the book, notebooks/11_grounding.ipynb, explains this module and
generates it: edit the chapter, not this file, then run `make export`.
"""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from captionlib.scoring.bootstrap import percentile_interval, resampled_sums

__all__ = [
    "Grounding",
    "LAGS",
    "Naming",
    "boxes_to_cells",
    "grounding",
    "log_probs_without",
    "maps_to_judge",
    "mean_interval",
    "most",
    "naming_words",
    "peaks",
    "read",
]


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
