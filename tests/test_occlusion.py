"""Occlusion: covering parts of a picture, on the toy world."""

from random import Random

import numpy as np
import pytest
import torch

from captionlib.book.occlusion import (
    GREY,
    cover,
    occlusion,
    score_words,
)
from captionlib.captioner import Captioner
from captionlib.decoding.ensemble import Ensemble
from captionlib.io.images import read_image
from captionlib.toy.scenes import draw_scene, random_scene


@pytest.fixture(scope="module")
def captioner():
    return Captioner.from_pretrained("toy")


@pytest.fixture(scope="module")
def scenes():
    """Scenes with one thing, whose name is one word."""
    drawn = (random_scene(Random(seed)) for seed in range(100))
    found = [
        scene
        for scene in drawn
        if len(scene.things) == 1 and " " not in scene.things[0].name
    ]
    return found[:3]


def ids_of(captioner, words):
    return [captioner.model.vocabulary.word_map[word] for word in words]


def test_one_square_is_grey_and_the_rest_is_the_picture():
    pixels = torch.randint(0, 100, (3, 96, 64), dtype=torch.uint8)
    covered = cover(pixels, places=3, share=0.5)
    grey = (covered == GREY).all(dim=2)  # (3, 3, 96, 64)
    assert torch.equal(
        covered, torch.where(grey[:, :, None], torch.tensor(GREY), pixels)
    )
    # Centres at 1/6, 3/6 and 5/6: the outer squares are cut off.
    assert grey[1].any(dim=1).sum(dim=1).tolist() == [27, 32, 27]
    assert grey[:, 1].any(dim=2).sum(dim=1).tolist() == [40, 48, 40]
    assert grey.flatten(0, 1).any(dim=0).all()  # nothing is never covered


def test_scores_of_words_add_up_to_the_captions(captioner, scenes):
    image = draw_scene(scenes[0])
    caption = captioner.caption(image)
    ids = ids_of(captioner, caption.words) + [captioner.model.vocabulary.end]
    scores = score_words(
        captioner.model, torch.from_numpy(read_image(image))[None], ids
    )
    assert scores.sum().item() == pytest.approx(caption.log_prob, abs=1e-3)


def test_it_is_the_plain_loop(captioner, scenes):
    """Squares that tile the picture, as in exercise 09.5."""
    pixels = torch.from_numpy(read_image(draw_scene(scenes[0])))
    ids = ids_of(captioner, ["a", "small"])
    falls = occlusion(captioner.model, pixels, ids, places=2, share=0.5)
    for row, column in np.ndindex(2, 2):
        painted = pixels.clone()
        painted[:, 128 * row :, 128 * column :][:, :128, :128] = GREY
        with torch.no_grad():
            whole, other = score_words(
                captioner.model, torch.stack([pixels, painted]), ids
            )
        np.testing.assert_allclose(
            falls[:, row, column], whole - other, atol=1e-3
        )


def test_the_name_of_a_thing_needs_the_thing(captioner, scenes):
    inside = []
    for scene in scenes:
        (thing,) = scene.things
        words = captioner.caption(draw_scene(scene)).words
        if thing.name not in words:  # mistaken
            continue
        ids = ids_of(captioner, words[: words.index(thing.name) + 1])
        pixels = torch.from_numpy(read_image(draw_scene(scene)))
        fall = occlusion(captioner.model, pixels, ids, places=4)[-1]
        row, column = np.unravel_index(fall.argmax(), fall.shape)
        x, y = ((i + 0.5) * 64 for i in (column, row))
        x0, y0, x1, y1 = thing.box
        inside.append(x0 - 32 < x < x1 + 32 and y0 - 32 < y < y1 + 32)
    assert len(inside) >= 2 and all(inside)


def test_an_ensemble_of_equals_needs_what_one_needs(captioner, scenes):
    """Only the protocol is used: `encode`, `begin`, `step`."""
    model = captioner.model

    class Pair:
        vocabulary = model.vocabulary
        encode = model.encode
        decoder = Ensemble([model.decoder, model.decoder])

    pixels = torch.from_numpy(read_image(draw_scene(scenes[1])))
    ids = ids_of(captioner, ["a", "small"])
    alone, both = (
        occlusion(each, pixels, ids, places=2) for each in (model, Pair())
    )
    np.testing.assert_allclose(alone, both, atol=1e-4)
