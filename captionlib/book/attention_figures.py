"""Figures of chapter 03: the layer as a diagram, a grid, attention maps."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from torch import Tensor

from captionlib.book.diagrams import arrow, box, canvas
from captionlib.book.style import INK

__all__ = ["grid_figure", "layer_diagram", "maps_figure", "weights_figure"]

NIGHT = 0.22  # brightness of a grid cell with a weight of 0


def grid_figure(picture, side: int) -> None:
    """A picture under a grid of side x side cells."""
    _, panel = _panels(1, 1, 3.6)
    panel[0].imshow(picture, extent=(0, side, side, 0))
    for line in range(side + 1):
        panel[0].axhline(line, color="white", linewidth=0.8)
        panel[0].axvline(line, color="white", linewidth=0.8)


def maps_figure(
    pictures: Sequence,
    maps: Tensor,
    titles: Sequence[str],
    boxes: Sequence,
    *,
    columns: int = 3,
) -> None:
    """Pictures lit by their attention maps: bright where the weight is the
    map's largest.

    Args:
        pictures: one a panel.
        maps: (panels, P) weights of a square grid, drawn raw, a square a cell.
        titles: one a panel.
        boxes: for each panel x0, y0, x1, y1 in pixels, outlined, or None.
        columns: panels in a row.
    """
    side = round(maps.shape[1] ** 0.5)
    _, panels = _panels(len(pictures), columns, 1.65)
    for panel, picture, weights, title, frame in zip(
        panels, pictures, maps, titles, boxes, strict=True
    ):
        pixels = np.asarray(picture) / 255  # (height, width, 3)
        light = np.sqrt((weights / weights.max()).view(side, side).numpy())
        for axis in (0, 1):
            light = light.repeat(pixels.shape[axis] // side, axis)
        panel.imshow(pixels * (NIGHT + (1 - NIGHT) * light[..., None]))
        panel.set_title(title)
        if frame is not None:
            x0, y0, x1, y1 = frame
            panel.add_patch(
                Rectangle(
                    (x0, y0), x1 - x0, y1 - y0, fill=False, ec="white", lw=1.5
                )
            )


def weights_figure(rows: dict[str, Tensor]) -> None:
    """Small grids of 2 x 2 numbers side by side, bright where the number is
    large."""
    _, panels = _panels(len(rows), len(rows), 1.6)
    for panel, (title, values) in zip(panels, rows.items(), strict=True):
        top = max(1.0, float(values.max()))
        panel.imshow(values.view(2, 2), vmin=0, vmax=top)
        for p, value in enumerate(values.tolist()):
            panel.text(
                p % 2,
                p // 2,
                f"{value:.2f}",
                ha="center",
                va="center",
                color="black" if value > 0.6 * top else "white",
            )
        panel.set_title(title)


def layer_diagram() -> None:
    """One step of `captionlib.attention.Attention`, from top to bottom."""
    axes = canvas(5.0, 5.0)
    box(axes, 1.05, 4.6, 1.7, 0.5, "hidden state", "state", note="(B·n, H)")
    box(axes, 3.5, 4.6, 1.7, 0.5, "image grid", "image", note="(B, P, D)")
    box(axes, 1.05, 3.45, 1.5, 0.5, "query", "state", note="(B·n, A)")
    box(axes, 2.8, 3.45, 1.1, 0.5, "keys", "image", note="(B, P, A)")
    box(axes, 4.35, 3.45, 1.1, 0.5, "values", "image", note="(B, P, D)")
    box(axes, 1.9, 2.3, 2.6, 0.5, "add, ReLU, full_att", "attention")
    box(axes, 1.9, 1.4, 2.6, 0.5, "softmax over cells", "attention")
    box(axes, 3.9, 0.5, 2.0, 0.5, "weighted mean", "attention")
    for start, end, kind, text in (
        ((1.05, 4.1), (1.05, 3.7), "state", ""),
        ((3.1, 4.1), (2.8, 3.7), "image", ""),
        ((3.9, 4.1), (4.35, 3.7), "image", ""),
        ((1.05, 2.95), (1.4, 2.55), "state", ""),
        ((2.8, 2.95), (2.5, 2.55), "image", ""),
        ((1.9, 2.05), (1.9, 1.65), "attention", ""),
        ((1.9, 1.15), (3.1, 0.75), "attention", ""),
        ((4.35, 2.95), (4.2, 0.75), "image", ""),
    ):
        arrow(axes, start, end, kind=kind, text=text)
    for x, y, text in (
        (0.2, 3.9, "decoder_att"),
        (1.85, 3.9, "encoder_att"),
        (4.3, 3.9, "as it is"),
        (2.0, 1.83, "scores (B, n, P)"),
        (0.75, 0.85, "alpha (B·n, P)"),
        (3.05, 0.1, "context (B·n, D)"),
    ):
        axes.text(x, y, text, fontsize=9, color=INK, va="center")


def _panels(count: int, columns: int, inches: float) -> tuple:
    """A transparent figure with `count` square panels without axes."""
    rows = -(-count // columns)
    figure, panels = plt.subplots(
        rows,
        columns,
        figsize=(inches * columns, (inches + 0.25) * rows),
        layout="constrained",
        squeeze=False,
    )
    flat: list[Axes] = list(panels.flat)
    for panel in flat:
        panel.axis("off")
    return figure, flat[:count]
