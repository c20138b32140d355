"""The scenes that chapter 03 asks about, and the figures it draws of them."""

from random import Random

import matplotlib.pyplot as plt
import numpy as np
import torch
from PIL import ImageColor

from captionlib.book import attention_figures
from captionlib.toy.coloured import (
    COLOURS,
    NAMES,
    coloured_scene,
    touched_cells,
)


def test_three_things_in_three_colours_where_the_boxes_say():
    rng = Random(0)
    for _ in range(10):
        scene = coloured_scene(rng)
        assert scene.picture.size == (256, 256)
        assert len(set(scene.names)) == len(set(scene.colours)) == 3
        pixels = np.asarray(scene.picture, dtype=int)
        for (x0, y0, x1, y1), colour in zip(
            scene.boxes, scene.colours, strict=True
        ):
            assert 0 <= x0 < x1 <= 256 and 0 <= y0 < y1 <= 256
            paint = ImageColor.getrgb(list(COLOURS.values())[colour])
            # The hue shows in the difference to the pixel's own brightness.
            tint = np.subtract(paint, np.mean(paint))
            inside = pixels[y0:y1, x0:x1]
            inside = inside - inside.mean(axis=2, keepdims=True)
            angle = (inside @ tint) / (
                np.linalg.norm(inside, axis=2) * np.linalg.norm(tint) + 1e-6
            )
            assert (angle > 0.95).mean() > 0.2


def test_boxes_do_not_overlap():
    for seed in range(20):
        boxes = coloured_scene(Random(seed)).boxes
        for i, (x0, y0, x1, y1) in enumerate(boxes):
            for u0, v0, u1, v1 in boxes[i + 1 :]:
                assert x1 <= u0 or u1 <= x0 or y1 <= v0 or v1 <= y0


def test_the_same_seed_gives_the_same_scene_and_names_can_be_chosen():
    first, second = (
        coloured_scene(Random(3), ["dog", "dog", "cat"]) for _ in range(2)
    )
    assert first.picture.tobytes() == second.picture.tobytes()
    assert first[1:] == second[1:]
    assert [NAMES[name] for name in first.names] == ["dog", "dog", "cat"]


def test_a_map_lights_the_cell_it_weighs_most():
    scene = coloured_scene(Random(0))
    weights = torch.zeros(1, 64)
    weights[0, 8 * 2 + 5] = 1.0  # row 2, column 5
    attention_figures.maps_figure(
        [scene.picture], weights, ["dog"], [scene.boxes[0]]
    )
    panel = plt.gcf().axes[0]
    lit = panel.images[0].get_array()
    pixels = np.asarray(scene.picture) / 255
    assert panel.get_title() == "dog"
    np.testing.assert_allclose(lit[64:96, 160:192], pixels[64:96, 160:192])
    np.testing.assert_allclose(
        lit[:64], attention_figures.NIGHT * pixels[:64], atol=1e-6
    )
    plt.close("all")


def test_a_box_touches_the_cells_that_it_reaches_into():
    boxes = [[(0, 0, 64, 33), (64, 128, 65, 129)], [(0, 0, 256, 256)] * 2]
    cells = touched_cells(boxes, side=4).view(2, 2, 4, 4)
    assert cells[0, 0].nonzero().tolist() == [[0, 0]]
    assert cells[0, 1].nonzero().tolist() == [[2, 1]]
    assert cells[1].all()
    assert touched_cells(boxes).sum(dim=2).tolist() == [[4, 1], [64, 64]]
