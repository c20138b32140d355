"""Figures of chapter 11: deletion curves, cells that change, occlusion."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np

from captionlib.book.style import PALETTE
from captionlib.io.images import open_rgb
from captionlib.visualize import draw_lit, upsample_alpha

__all__ = ["change_figure", "deletion_figure", "occlusion_figure"]

FORMS = ("word", "o-"), ("attention", "s-"), ("plain", "^--"), ("state", "v:")


def deletion_figure(counts: Sequence, curves: Mapping[str, Sequence]) -> None:
    """Nats lost by the number of cells erased; at most four curves."""
    _, axes = plt.subplots(figsize=(4.8, 3.0), layout="constrained")
    for (name, curve), (kind, form) in zip(curves.items(), FORMS, strict=False):
        color = PALETTE[kind]
        axes.plot(counts, curve, form, color=color, label=name, markersize=5)
    axes.set(xlabel="cells erased", ylabel="nats lost", xticks=counts[3:])
    axes.legend()


def change_figure(rows: Sequence[tuple]) -> None:
    """For each row, a picture with and without a thing, and what changes.

    Rows are two images, the change of each cell (P,), and the thing's boxes in
    pixels. All changes share one scale.
    """
    figure, grid = plt.subplots(
        len(rows), 3, figsize=(4.8, 1.65 * len(rows)), layout="constrained"
    )
    top = max(float(change.max()) for _, _, change, _ in rows)
    for panels, (picture, empty, change, boxes) in zip(grid, rows, strict=True):
        side = round(len(change) ** 0.5)
        panels[0].imshow(picture)
        panels[1].imshow(empty)
        shown = panels[2].imshow(
            change.view(side, side),
            extent=(0, picture.width, picture.height, 0),
            vmin=0,
            vmax=top,
        )
        for x0, y0, x1, y1 in boxes:
            frame = (x0, y0), x1 - x0, y1 - y0
            panels[2].add_patch(plt.Rectangle(*frame, fill=False, ec="white"))
    for axes in grid.flat:
        axes.axis("off")
    figure.colorbar(shown, ax=grid[:, 2], shrink=0.7)
    for axes, title in zip(grid[0], ("with", "without", "change"), strict=True):
        axes.set_title(title)


def occlusion_figure(rows: Sequence[tuple]) -> None:
    """Beside each other: where a word looked, and what it can't do without.

    Rows are a photograph, as `read_image` takes it, a word, its map, and the
    nats that it loses for each place that is covered, in rows and columns. Each
    panel is lit on its own scale.
    """
    _, grid = plt.subplots(
        len(rows), 2, figsize=(4.8, 1.8 * len(rows)), layout="constrained"
    )
    for panels, (image, word, alpha, nats) in zip(grid, rows, strict=True):
        pixels = np.asarray(open_rgb(image), dtype=np.float32) / 255
        for axes, cells in zip(panels, (alpha, nats.clip(0)), strict=True):
            lit = upsample_alpha(cells, pixels.shape[:2])
            draw_lit(axes, pixels, lit, max(lit.max(), 1e-9))
            axes.axis("off")
        panels[0].set_title(f"{word}: attention")
        panels[1].set_title(f"needed: up to {nats.max():.1f} nats")
