"""Views of chapter 11: maps held against a box, and cells erased one by one.

They are of the kind that `captionlib.book.views` describes.
"""

from __future__ import annotations

import html
from collections.abc import Sequence

import numpy as np
import torch

from captionlib.book.views import (
    PHOTO_SIDE,
    View,
    controls,
    data_uri,
    status,
    tag,
    veil,
)
from captionlib.grounding import boxes_to_cells, log_probs_without, most, read
from captionlib.io.images import open_rgb

__all__ = ["deletion_view", "lag_view"]

ACROSS, DOWN = 340, 150  # pixels of a chart's axes
LEFT, TOP, BELOW = 44, 12, 40  # pixels around them
SIDE = 256  # pixels along a picture, which boxes refer to
COVER = "--veil: #7d7d7d; --line: #ffffff"  # seen on snow and at night
FIT = "width: 100%; height: auto; max-width: 25rem"
SHEETS = ("grounding.css",)


def lag_view(
    picture, words: Sequence[str], maps, step: int, boxes: list, mean: dict
) -> View:
    """How much of each word's map lies in the boxes that one word is about.

    Args:
        picture: the captioned image, as `read_image` takes it.
        words: the caption.
        maps: (words, P) weights of a square grid.
        step: the place of the word that names what is in the boxes.
        boxes: (x0, y0, x1, y1) in pixels of a picture of 256 x 256.
        mean: the mean weight over many captions, by how many words later than
            the naming word a map was made.
    """
    maps = np.asarray(maps)
    side = round(maps.shape[1] ** 0.5)
    shares, _ = boxes_to_cells(boxes, side)
    inside = maps @ shares.numpy()
    even = float(shares.mean())
    says = []
    for t, (word, weight) in enumerate(zip(words, inside, strict=True)):
        far = t - step
        where = (
            f"{abs(far)} word{'s' * (abs(far) > 1)} {'after' if far > 0 else 'before'} "
            f"“{words[step]}”"
            if far
            else "the word itself"
        )
        says.append(
            f"The map of “{word}”, {where}: {weight:.0%} of its weight is in "
            f"the box, which has {even:.0%} of the picture."
        )
    text = " ".join(words)
    summary = f"Maps of “{text}”, held against the box of “{words[step]}”. {says[step]}"
    top = maps.max()
    shape = frames(boxes)
    sheet = "".join(
        f'<li><div class="clv-photo"><img src="{veil(alpha.reshape(side, side), top)}" '
        f'alt="{html.escape(said)}">{shape}</div>{tag("b", word)} '
        f"{tag('span', f'{weight:.0%}', class_='clv-times')}</li>"
        for alpha, said, word, weight in zip(
            maps, says, words, inside, strict=True
        )
    )
    high = max(*inside, *mean.values())
    x = LEFT + ACROSS * (np.arange(len(words)) + 0.5) / len(words)
    usual = {step + lag: value for lag, value in sorted(mean.items())}
    usual = {t: value for t, value in usual.items() if 0 <= t < len(words)}
    dots = "".join(
        f'<circle data-word="{t}" cx="{x[t]:.1f}" cy="{_y(value / high)}" r="5"/>'
        for t, value in enumerate(inside)
    )
    labels = "".join(
        _label(x[t], 16 + 15 * (t % 2), word, "clv-named" * (t == step))
        for t, word in enumerate(words)
    )
    chart = _chart(
        "The lag curve",
        f"{high:.0%}",
        "0%",
        _line(x[list(usual)], [v / high for v in usual.values()], "clv-usual")
        + _line([LEFT, LEFT + ACROSS], [even / high] * 2, "clv-even")
        + _line(x, inside / high, "clv-curve")
        + dots
        + labels,
        "Weight in the box, by the word whose map it is. " + says[step],
    )
    names = [f"word {t + 1}, {word}" for t, word in enumerate(words)]
    body = (
        f"{tag('p', text, class_='clv-title')}"
        '<div class="clv-pair"><div class="clv-stage" hidden><figure><div class="clv-photo">'
        f'<img src="{veil(maps[step].reshape(side, side), top)}" '
        f'alt="{html.escape(says[step])}">{shape}</div></figure></div>{chart}</div>'
        f"{controls(names, step, 'Word')}{status(says[step])}"
        f'<ul class="clv-sheet">{sheet}</ul>'
        '<p class="clv-note">Weight in the box. Solid, with dots (purple): this caption’s maps. '
        "Solid, without dots (grey): the mean of all captions, around a naming word. Dashed: an "
        "even map.</p>"
    )
    data = {"names": names, "says": says}
    return View("lag", summary, body, data, sheets=SHEETS, style=photo(picture))


@torch.inference_mode()
def deletion_view(
    picture,
    model,
    grids,
    image: int,
    words: Sequence[str],
    step: int,
    boxes: list,
) -> View:
    """What a word loses as cells are erased: the box's first, the most
    attended first, or at random.

    Args:
        picture: the captioned image, as `read_image` takes it.
        model: has `decoder` and `vocabulary`.
        grids: (B, P, D) encoded pictures. Erased cells become the mean cell of
            all.
        image: which of them the picture is.
        words: the caption.
        step: the place of the naming word.
        boxes: (x0, y0, x1, y1) in pixels of a picture of 256 x 256.
    """
    P = grids.shape[1]
    ids = torch.tensor([model.vocabulary.encode(words, len(words))])
    _, alphas = read(model.decoder, grids[image : image + 1], ids)
    ids = ids.expand(len(grids), -1)
    shares, _ = boxes_to_cells(boxes, round(P**0.5))
    dice = torch.Generator().manual_seed(0)
    chance = torch.rand(P, generator=dice)
    scores = {
        "most attended first": alphas[0, step],
        "the box first": shares + 1e-6 * chance,  # then the rest at random
        "in a random order": chance,
    }
    counts = torch.arange(P + 1)[:, None]
    at = torch.tensor([[image], [step]]).expand(2, P + 1)
    word, orders, curves = words[step], [], ""
    before = None
    for name, score in scores.items():
        gone = most(score.expand(P + 1, P), counts)
        found = log_probs_without(model.decoder, grids, ids, at, gone).tolist()
        before = found[0]
        cells = score.argsort(descending=True, stable=True).tolist()
        says = [
            f"{count} of {P} cells erased, {name}: “{word}” has lost "
            f"{_nats(before - value)} nats, and has a probability of {np.exp(value):.2f}."
            for count, value in enumerate(found)
        ]
        orders.append({"cells": cells, "says": says, "found": found})
    most_lost = before - min(min(order["found"]) for order in orders)
    for n, order in enumerate(orders):
        x = LEFT + ACROSS * np.arange(P + 1) / P
        y = [
            (before - value) / (most_lost + 1e-9)
            for value in order.pop("found")
        ]
        curves += _line(
            x, np.clip(y, 0, 1), f"clv-order{n}", f' data-order="{n}"'
        )
    at_first = round(float(shares.sum()))
    said = orders[0]["says"][at_first]
    summary = f"Erasing cells under “{' '.join(words)}”. {said}"
    ticks = "".join(
        _label(LEFT + ACROSS * part, 16, f"{round(P * part)}")
        for part in (0, 0.25, 0.5, 0.75, 1)
    )
    chart = _chart(
        "The curves of erasing",
        _nats(most_lost),
        "0",
        f'{curves}<path class="clv-now" d="M{LEFT} {TOP}v{DOWN}" '
        f'transform="translate({ACROSS * at_first / P:.1f} 0)"/>'
        + ticks
        + _label(LEFT + ACROSS / 2, 33, "cells erased"),
        f"Nats that “{word}” loses, by the number of cells erased. {said}",
    )
    names = [f"{count} of {P} cells" for count in range(P + 1)]
    options = "".join(
        tag("option", name, value=f"{n}") for n, name in enumerate(scores)
    )
    more = f'<label>Erase <select name="order">{options}</select></label>'
    body = (
        f"{tag('p', ' '.join(words), class_='clv-title')}"
        f'<div class="clv-pair"><div class="clv-stage" style="{COVER}" hidden><figure>'
        '<div class="clv-photo" role="img" '
        f'aria-label="The picture under its grid; erased cells are covered.">{frames(boxes, P)}'
        f"</div></figure></div>{chart}</div>{controls(names, at_first, 'Cell', more)}{status(said)}"
        f'<p class="clv-note">Nats that {tag("b", word)} loses. Solid (purple): the cells first '
        f"that have most weight in the map of {tag('b', word)} itself. Dashed (orange): the box "
        "first, then random cells. Dotted (grey): in a random order.</p>"
    )
    data = {"names": names, "says": orders[0]["says"], "orders": orders}
    data["across"] = ACROSS
    return View(
        "deletion", summary, body, data, sheets=SHEETS, style=photo(picture)
    )


def _nats(value: float) -> str:
    return f"{value:.2f}".replace("-", "−")


def photo(picture) -> str:
    """CSS variables: the picture, as a background, and its shape."""
    photograph = open_rgb(picture).copy()
    photograph.thumbnail((PHOTO_SIDE, PHOTO_SIDE))
    jpeg = data_uri(photograph, "JPEG", quality=80, optimize=True)
    return f"--photo: url({jpeg}); --shape: {photograph.width} / {photograph.height}"


def frames(boxes: list, cells: int = 0) -> str:
    """The boxes' outlines over a picture, and covers for a grid's cells."""
    side = round(cells**0.5)
    width = SIDE / max(side, 1)
    covers = "".join(
        f'<rect x="{width * (n % side):g}" y="{width * (n // side):g}" '
        f'width="{width:g}" height="{width:g}"/>'
        for n in range(cells)
    )
    lines = "".join(
        f'<rect x="{x0}" y="{y0}" width="{x1 - x0}" height="{y1 - y0}"/>'
        for x0, y0, x1, y1 in boxes
    )
    return (
        f'<svg class="clv-over" viewBox="0 0 {SIDE} {SIDE}" preserveAspectRatio="none" '
        f'aria-label="The box of what the word names"><g class="clv-cells">{covers}</g>'
        f'<g class="clv-frame">{lines}</g></svg>'
    )


def _y(height: float) -> str:
    return f"{TOP + DOWN * (1 - height):.1f}"


def _line(x, heights, kind: str, more: str = "") -> str:
    points = " ".join(
        f"{a:.1f},{_y(b)}" for a, b in zip(x, heights, strict=True)
    )
    return f'<polyline class="{kind}" points="{points}"{more}/>'


def _label(x: float, below: int, text: str, kind: str = "") -> str:
    """A text that many pixels below the horizontal axis."""
    return tag(
        "text",
        text,
        x=f"{x:.1f}",
        y=f"{TOP + DOWN + below}",
        text_anchor="middle",
        class_=kind,
    ).replace("text_anchor", "text-anchor")


def _chart(name: str, top: str, bottom: str, inner: str, label: str) -> str:
    """An SVG with axes, and what the ends of the vertical one stand for."""
    ends = "".join(
        f'<text x="{LEFT - 6}" y="{TOP + below}" text-anchor="end">{text}</text>'
        for text, below in ((top, 6), (bottom, DOWN))
    )
    return (
        '<div class="clv-scroll" tabindex="0" role="region" '
        f'aria-label="{html.escape(name)}">'
        f'<svg class="clv-chart" viewBox="0 0 {LEFT + ACROSS + 16} {TOP + DOWN + BELOW}" '
        f'style="{FIT}" '
        f'aria-label="{html.escape(label)}" role="img">'
        f'<path class="clv-axis" d="M{LEFT} {TOP}v{DOWN}h{ACROSS}"/>{ends}{inner}</svg></div>'
    )
