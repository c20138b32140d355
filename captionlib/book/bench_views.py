"""Views of chapter 03: a query to drag over four cells, and a map that condenses.

They are of the kind that `captionlib.book.views` describes.
"""

from __future__ import annotations

import html
from collections.abc import Sequence

import numpy as np

from captionlib.book.grounding_views import frames, photo
from captionlib.book.views import View, controls, status, tag, veil
from captionlib.grounding import boxes_to_cells

__all__ = ["epochs_view", "query_view"]

SIZE, REACH = 300, 3.0  # pixels of the plane, and what half of them stand for


def query_view(
    names: Sequence[str], grid, query, features: tuple[str, str]
) -> View:
    """A query of two numbers among cells of two numbers, to be dragged.

    Scores are dot products. A step is one of gradient descent on the query, so
    that the softmax of the context's two numbers says the first feature.

    Args:
        names: of the cells.
        grid: (P, 2), keys and values.
        query: (2,), where it starts.
        features: what the two numbers stand for.
    """
    grid, query = np.asarray(grid), np.asarray(query)
    scores = grid @ query
    alpha = np.exp(scores - scores.max())
    alpha /= alpha.sum()
    context = alpha @ grid
    sure = 1 / (1 + np.exp(context[1] - context[0]))
    most = int(alpha.argmax())
    first, second = features
    said = (
        f"Query {_pair(query)}: {names[most]} has {alpha[most]:.0%} of the weight. "
        f"The context is {_pair(context)}, which says {first} with a probability of {sure:.2f}."
    )
    dots = "".join(
        f'<circle data-cell="{p}" cx="{_at(x):.1f}" cy="{_at(-y):.1f}" '
        f'r="{4 + 14 * weight**0.5:.1f}"/>'
        f'<text x="{_at(x):.1f}" y="{_at(-y) + (28 if p % 2 else -20):.1f}" '
        f'text-anchor="middle">{html.escape(name)}</text>'
        for p, (name, (x, y), weight) in enumerate(
            zip(names, grid, alpha, strict=True)
        )
    )
    half = SIZE / 2
    plane = (
        f'<svg class="clv-plane" width="{SIZE}" height="{SIZE}" role="img" '
        f'aria-label="The plane of {first} and {second}, with cells, query and context.">'
        f'<path class="clv-axis" d="M0 {half}h{SIZE}M{half} 0v{SIZE}"/>'
        f'<text x="{SIZE - 4}" y="{half - 6}" text-anchor="end">{html.escape(first)}</text>'
        f'<text x="{half + 6}" y="12" text-anchor="start">{html.escape(second)}</text>{dots}'
        f'<path class="clv-context" d="M0 -6l6 6l-6 6l-6 -6z" '
        f'transform="translate({_at(context[0]):.1f} {_at(-context[1]):.1f})"/>'
        f'<path class="clv-query" d="M{half} {half}L{_at(query[0]):.1f} {_at(-query[1]):.1f}"/>'
        f'<circle class="clv-tip" cx="{_at(query[0]):.1f}" cy="{_at(-query[1]):.1f}" r="9"/></svg>'
    )
    rows = "".join(
        f'<tr><th scope="row">{html.escape(name)}</th><td>{_pair(cell)}</td>'
        f"<td>{_minus(f'{score:.2f}')}</td><td>{weight:.2f}</td></tr>"
        for name, cell, score, weight in zip(
            names, grid, scores, alpha, strict=True
        )
    )
    table = (
        '<table class="clv-bench"><thead><tr><th scope="col">cell</th>'
        '<th scope="col">key</th><th scope="col">score</th><th scope="col">weight</th>'
        f"</tr></thead><tbody>{rows}</tbody></table>"
    )
    sliders = "".join(
        f'<label class="clv-wide"><span>{html.escape(feature)}</span><input type="range" '
        f'min="-{REACH:g}" max="{REACH:g}" step="0.1" value="{value:g}"></label>'
        for feature, value in zip(features, query, strict=True)
    )
    body = (
        f"{tag('p', 'Drag the query', class_='clv-title')}"
        f'<div class="clv-pair">{plane}{table}</div>'
        '<div class="clv-controls" role="group" aria-label="The query" hidden>'
        f"{sliders}"
        '<button type="button" data-do="step">One gradient step</button>'
        '<button type="button" data-do="back">Start again</button></div>'
        f"{status(said)}"
        '<p class="clv-note">Orange: the query. Blue: the cells, larger with more weight. '
        f"Purple: the context. The step makes {html.escape(first)} the likelier answer.</p>"
    )
    data = {
        "names": list(names),
        "grid": grid.tolist(),
        "query": query.tolist(),
        "features": list(features),
        "size": SIZE,
        "reach": REACH,
    }
    return View(
        "query", said, body, data, sheets=("grounding.css", "bench.css")
    )


def epochs_view(picture, maps, boxes: list, of: str) -> View:
    """One map after every epoch of a training, to be walked through.

    Args:
        picture: the picture, as `read_image` takes it.
        maps: (epochs + 1, P) weights of a square grid, the first untrained.
        boxes: (x0, y0, x1, y1) in pixels of a picture of 256 x 256.
        of: what the query asks for.
    """
    maps = np.asarray(maps)
    side = round(maps.shape[1] ** 0.5)
    inside = maps @ boxes_to_cells(boxes, side)[0].numpy()
    peaks = maps.max(axis=1) * maps.shape[1]
    says = [
        f"After {epoch} epoch{'s' * (epoch != 1)}: {weight:.0%} of the weight is in the box of "
        f"the {of}; the largest is {peak:.1f} times an even share."
        for epoch, (weight, peak) in enumerate(zip(inside, peaks, strict=True))
    ]
    veils = [veil(m.reshape(side, side), m.max()) for m in maps]
    last = len(maps) - 1
    names = [f"epoch {epoch}" for epoch in range(len(maps))]
    body = (
        f"{tag('p', f'The map for “{of}”, epoch by epoch', class_='clv-title')}"
        '<div class="clv-stage"><figure><div class="clv-photo">'
        f'<img src="{veils[last]}" alt="{html.escape(says[last])}">{frames(boxes)}'
        f"</div></figure></div>{controls(names, last, 'Epoch')}{status(says[last])}"
        '<p class="clv-note">White: the box, which the network never sees.</p>'
    )
    data = {"names": names, "says": says, "veils": veils}
    return View(
        "epochs",
        f"The map for “{of}” over {last} epochs. {says[last]}",
        body,
        data,
        sheets=("grounding.css",),
        style=photo(picture),
    )


def _at(value: float) -> float:
    return SIZE / 2 * (1 + float(value) / REACH)


def _minus(text: str) -> str:
    return text.replace("-", "\u2212")


def _pair(values) -> str:
    return _minus("({:.2f}, {:.2f})".format(*values))
