"""Scenes of three things in different colours.

Chapter 03 trains attention on them with questions such as "what colour is the
dog?".
"""

from random import Random
from typing import NamedTuple

import torch
from PIL import Image, ImageOps
from torch import Tensor

from captionlib.toy.scenery import CANVAS, paint_setting
from captionlib.toy.scenes import SIZE, sprite

__all__ = [
    "COLOURS",
    "NAMES",
    "ColouredScene",
    "coloured_scene",
    "touched_cells",
]

NAMES = ("dog", "cat", "rabbit", "horse", "duck", "cow", "tree", "car")
COLOURS = {
    "red": "#d22c2c",
    "yellow": "#f2c81e",
    "green": "#2f9e44",
    "blue": "#2b62d9",
}
SETTINGS = ("meadow", "beach", "snow", "street", "desert")
LENGTH = 96  # pixels along a thing's longer side


class ColouredScene(NamedTuple):
    """A picture, and what it shows where."""

    picture: Image.Image  # RGB, 256 x 256 pixels
    names: list[int]  # three indices into `NAMES`
    colours: list[int]  # three indices into `COLOURS`, all different
    boxes: list[tuple[int, int, int, int]]  # x0, y0, x1, y1 in pixels


def coloured_scene(
    rng: Random, names: list[str] | None = None
) -> ColouredScene:
    """Draw a random setting, with three things in three of its quarters.

    Args:
        rng: source of all choices; the same state gives the same scene.
        names: what to show, from `NAMES`; by default three different things.

    Returns:
        The scene. No two things overlap or share a colour.
    """
    picture = paint_setting(rng.choice(SETTINGS), rng.getrandbits(32))
    picture = picture.reduce(CANVAS // SIZE)
    names = names or rng.sample(NAMES, 3)
    colours = rng.sample(list(COLOURS), 3)
    boxes = []
    for name, colour, quarter in zip(
        names, colours, rng.sample(range(4), 3), strict=True
    ):
        thing = sprite(name, LENGTH, rng.random() < 0.5)
        x = SIZE // 2 * (quarter % 2) + rng.randint(0, SIZE // 2 - thing.width)
        y = SIZE // 2 * (quarter // 2)
        y += rng.randint(0, SIZE // 2 - thing.height)
        shades = ImageOps.autocontrast(thing.convert("L"))
        painted = ImageOps.colorize(shades, "black", "white", COLOURS[colour])
        picture.paste(painted, (x, y), mask=thing)
        boxes.append((x, y, x + thing.width, y + thing.height))
    return ColouredScene(
        picture,
        [NAMES.index(name) for name in names],
        [list(COLOURS).index(colour) for colour in colours],
        boxes,
    )


def touched_cells(boxes: list, side: int = 8) -> Tensor:
    """Which cells of a square grid the boxes touch.

    Args:
        boxes: for each of B scenes its boxes, x0, y0, x1, y1 in pixels.
        side: cells along each side of the grid.

    Returns:
        (B, boxes, side * side) bool.
    """
    x0, y0, x1, y1 = torch.tensor(boxes)[..., None].unbind(2)
    size = SIZE / side  # of a cell, in pixels
    low = size * torch.arange(side)  # where each column, and each row, begins
    across = (low < x1) & (low + size > x0)  # (B, boxes, side)
    down = (low < y1) & (low + size > y0)
    return (down[..., :, None] & across[..., None, :]).flatten(2)
