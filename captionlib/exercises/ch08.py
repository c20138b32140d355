"""Chapter 08, caption a photo: three ways in; how sure a captioner is, and what
it makes up."""

from __future__ import annotations

import math

import numpy as np
import torch

from captionlib.captioner import Caption
from captionlib.exercises.answers import (
    Wrong,
    also,
    call,
    compare,
    number,
    shown,
    tensor,
)


def _stored(
    value: object, shape: tuple[int, ...], what: str, known=None
) -> np.ndarray:
    """The value, if it is uint8 and of this shape."""
    if getattr(value, "dtype", np.uint8) not in (np.uint8, torch.uint8):
        raise Wrong(
            f"{what} came back as {value.dtype}, but stored pixels are uint8"
        )
    return tensor(value, shape, what, "int", known).numpy()


def exercise_1(to_rgb) -> str:
    """Grey, transparent and plain pictures, all as RGB."""
    grey = np.array([[0, 100, 255], [30, 60, 90]], dtype=np.uint8)
    colour = np.arange(0, 180, 10, dtype=np.uint8).reshape(2, 3, 3)
    alpha = np.array([[255, 0, 255], [51, 255, 0]], dtype=np.uint8)[..., None]
    clear = np.concatenate([colour, alpha], axis=2)

    def rgb(picture, what):
        known = {
            (3, 2, 3): (
                f"{what} came back with the colours first; they are the last "
                "axis"
            ),
            (2, 9): (
                f"{what} came back as (2, 9): stack the copies along a new "
                "last axis"
            ),
            (2, 3): f"{what} came back grey, (2, 3)",
            (2, 3, 1): (
                f"{what} came back with one colour, (2, 3, 1); copy it to all "
                "three"
            ),
            (2, 3, 4): f"{what} still has its alpha channel",
            (3, 2, 1): f"{what} came back as (3, 2, 1)",
        }
        return _stored(call(to_rgb, picture), (2, 3, 3), what, known).astype(
            int
        )

    got = rgb(grey, "the grey picture")
    if not (got == grey[..., None]).all():
        raise Wrong(
            "a grey pixel of 100 should become (100, 100, 100), but is "
            f"{tuple(got[0, 1].tolist())}"
        )
    if not (rgb(colour, "the picture that was RGB already") == colour).all():
        raise Wrong("a picture that is RGB already should come back as it is")
    got = rgb(clear, "the transparent picture")
    share, light = alpha / 255, colour.astype(float)
    over_white = light * share + 255 * (1 - share)
    over_black = light * share
    if np.abs(got - over_white).max() > 1.01:
        for wrong, message in (
            (
                light,
                "dropping the alpha channel reveals whatever colour is stored "
                "in the transparent parts. Mix with white: alpha / 255 of the "
                "colour, the rest white",
            ),
            (
                over_black,
                "the transparent parts became black; over white, white is what "
                "is left",
            ),
            (
                light * (1 - share) + 255 * share,
                "the wrong way round: an alpha of 255 is opaque, and 0 shows "
                "the paper",
            ),
        ):
            if np.abs(got - wrong).max() <= 1.01:
                raise Wrong(message)
        place = np.unravel_index(np.abs(got - over_white).argmax(), got.shape)
        raise Wrong(
            f"the colour {colour[place]} under an alpha of {alpha[place[:2]][0]} "
            f"gives {over_white[place]:.0f} over white, and you have "
            f"{got[place]}. (In uint8, products above 255 wrap around; floats "
            "don't.)"
        )
    rng = np.random.default_rng(0)
    for height, width in ((3, 4), (1, 1), (5, 3), (4, 4)):
        channels = rng.integers(0, 256, (height, width, 4), dtype=np.uint8)
        channels[0, :, 3], channels[-1, 0, 3] = 0, 255
        share = channels[..., 3:] / 255
        mixed = channels[..., :3] * share + 255 * (1 - share)
        for picture, expected, name in (
            (channels[..., 0], channels[..., [0, 0, 0]], "grey"),
            (channels[..., :3], channels[..., :3], "coloured"),
            (channels, mixed, "transparent"),
        ):
            what = f"a {name} picture of {height} rows and {width} columns"
            got = _stored(
                call(to_rgb, np.ascontiguousarray(picture)),
                (height, width, 3),
                what,
            ).astype(float)
            if name == "transparent":
                # Cutting decimals off is as good as rounding.
                near = np.abs(got - expected) < 1.01
                near &= (share > 0) & (share < 1)
                got[near] = expected[near]
            compare(got, expected, what=what)
    return "whatever comes in, the encoder gets three colours."


def exercise_2(upright) -> str:
    """Turn a picture by its EXIF note."""
    # As the photographer saw it.
    picture = np.arange(18, dtype=np.uint8).reshape(2, 3, 3)
    stored = {
        1: picture,
        3: np.rot90(picture, 2),
        6: np.rot90(picture),
        8: np.rot90(picture, 3),
    }
    got = {}
    for note, pixels in stored.items():
        answer = call(upright, np.ascontiguousarray(pixels), note)
        known = {
            tuple(
                pixels.shape
            ): f"for orientation {note} the picture still lies on its side, "
            f"{tuple(pixels.shape)}"
        }
        got[note] = _stored(
            answer, (2, 3, 3), f"the picture of orientation {note}", known
        )
    if not np.array_equal(got[1], picture):
        raise Wrong("orientation 1 means that the picture is upright as it is")
    upside_down = np.rot90(picture, 2)
    if np.array_equal(got[6], upside_down) and np.array_equal(
        got[8], upside_down
    ):
        raise Wrong(
            "both 6 and 8 come out standing on their heads: you turn the other "
            "way. `np.rot90` turns to the left, and 6 asks for a quarter to "
            "the right"
        )
    for note in (3, 6, 8):
        mirrored = f"orientation {note} comes out mirrored: " + (
            "turning by half is flipping twice, up-down and left-right"
            if note == 3
            else "a transposed picture is not a turned one"
        )
        compare(
            got[note],
            picture,
            [
                (picture[:, ::-1].copy(), mirrored),
                (picture[::-1].copy(), mirrored),
                (
                    upside_down.copy(),
                    f"orientation {note} comes out standing on its head",
                ),
            ],
            f"orientation {note} does not come out upright",
        )
    rng = np.random.default_rng(0)
    for shape in ((3, 2, 3), (4, 4, 3), (1, 5, 3)):
        for note, turns in ((6, 3), (1, 0), (8, 1), (3, 2)):
            pixels = rng.integers(0, 256, shape, dtype=np.uint8)
            expected = np.rot90(pixels, turns)
            what = f"a picture of shape {shape} and orientation {note}"
            got = _stored(call(upright, pixels, note), expected.shape, what)
            compare(got, expected.copy(), what=what)
    return "a phone held upright writes 6 on most of its photographs."


def exercise_3(pad_to_square) -> str:
    """A picture in the middle of a grey square."""
    # Three rows are missing.
    wide = np.arange(1, 31, dtype=np.uint8).reshape(2, 5, 3)
    tall = np.ascontiguousarray(wide.transpose(1, 0, 2))

    def square(picture, top, left, grey=128):
        padded = np.full((5, 5, 3), grey, dtype=np.uint8)
        padded[top : top + picture.shape[0], left : left + picture.shape[1]] = (
            picture
        )
        return padded

    for name, picture, place in (
        ("wide", wide, (1, 0)),
        ("tall", tall, (0, 1)),
    ):
        known = {
            picture.shape: f"the {name} picture came back as it was, {picture.shape}",
            (2, 2, 3): (
                f"the {name} picture was cut down to its shorter side: nothing "
                "may be lost"
            ),
            (7, 7, 3): (
                f"the {name} picture grew on both sides; its longer side stays "
                "as it is"
            ),
            (8, 8, 3): (
                f"the {name} picture grew on both sides; its longer side stays "
                "as it is"
            ),
        }
        got = _stored(
            call(pad_to_square, picture),
            (5, 5, 3),
            f"the {name} picture",
            known,
        )
        row, column = place
        odd = f"three {'rows' if row else 'columns'} are missing from the {name} picture: "
        compare(
            got,
            square(picture, *place),
            [
                (
                    square(picture, 0, 0),
                    "the picture lies in the corner, not in the middle",
                ),
                (
                    square(picture, 2 * row, 2 * column),
                    f"{odd}the larger half goes behind it",
                ),
                (
                    square(picture, 3 * row, 3 * column),
                    "the picture lies at the far edge",
                ),
                (
                    square(picture, *place, grey=0),
                    "the bands are black; grey is 128",
                ),
                (
                    square(picture, *place, grey=255),
                    "the bands are white; grey is 128",
                ),
            ],
            "the picture itself has changed: it is to be moved into the "
            "square, not stretched"
            if not np.array_equal(
                got[
                    row : row + picture.shape[0],
                    column : column + picture.shape[1],
                ],
                picture,
            )
            else "the picture is in its place, but what is around it is not 128 everywhere",
        )
    even = np.full((4, 4, 3), 7, dtype=np.uint8)
    got = _stored(
        call(pad_to_square, even), (4, 4, 3), "a picture that is square already"
    )
    compare(
        got,
        even,
        otherwise="a picture that is square already should stay as it is",
    )
    rng = np.random.default_rng(0)
    for height, width in ((2, 8), (7, 3), (1, 6), (9, 4), (1, 1), (5, 4)):
        pixels = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
        side = max(height, width)
        before, after = [], []
        for n in (height, width, side):
            before.append((side - n) // 2)
            after.append(side - n - before[-1])
        expected = np.pad(
            pixels,
            ((before[0], after[0]), (before[1], after[1]), (0, 0)),
            constant_values=128,
        )
        what = f"a picture of {height} rows and {width} columns"
        got = _stored(call(pad_to_square, pixels), (side, side, 3), what)
        compare(got, expected, what=what)
    return "nothing is squeezed, and some of the encoder's cells have nothing to see."


def exercise_4(perplexity) -> str:
    """The perplexity of a captioner over several captions."""

    def caption(words, log_prob, finished=True):
        maps = np.full((words, 1, 1), 1.0, dtype=np.float32)
        return Caption(
            ["word"] * words, "word " * words, log_prob, maps, finished
        )

    one = [caption(3, -4.0)]
    got = number(call(perplexity, one), "the perplexity")
    compare(
        got,
        math.exp(4 / 4),
        [
            (
                math.exp(4 / 3),
                "log_prob is a sum over the three words and <end>: four "
                "choices were made",
            ),
            (
                math.exp(-1),
                "below 1: log_prob is negative, so change its sign before exp",
            ),
            (
                math.exp(4),
                "divide the nats by the number of choices, before exp",
            ),
            (2.0, "nats belong to the natural logarithm: exp, not 2 ** ..."),
            (1.0, "that is the mean in nats; the perplexity is exp of it"),
            (
                -1.0,
                "that is the mean in nats; the perplexity is exp of its "
                "negative",
            ),
        ],
        what="the perplexity of three words and <end> with -4 nats",
    )
    got = number(
        call(perplexity, [caption(4, -8.0, finished=False)]), "the perplexity"
    )
    compare(
        got,
        math.exp(8 / 4),
        [
            (
                math.exp(8 / 5),
                "this caption is not finished: it never said <end>, so four "
                "choices",
            )
        ],
        what="the perplexity of four words, unfinished, with -8 nats",
    )
    both = [caption(3, -4.0), caption(11, -36.0)]
    got = number(call(perplexity, both), "the perplexity")
    compare(
        got,
        math.exp(40 / 16),
        [
            (
                (math.exp(1) + math.exp(3)) / 2,
                "you average the captions' perplexities. Add up nats and "
                "choices of all captions, divide once, and take exp last",
            ),
            (
                math.exp(2),
                "you average the captions' means, so a word of a short caption "
                "counts for more. Add up all nats and all choices, and divide "
                "once",
            ),
        ],
        what="the perplexity of two captions",
    )
    also(
        perplexity,
        lambda captions: math.exp(
            -sum(each.log_prob for each in captions)
            / sum(len(each.words) + int(each.finished) for each in captions)
        ),
        ([caption(1, -0.5), caption(20, -30.0, False), caption(7, -9.0)],),
        ([caption(50, -60.0, False)] * 2,),
        ([caption(0, -3.0)],),
        what="the perplexity",
    )
    return "a perplexity of 4 is the doubt of a fair draw among four words."


def exercise_5(invented_share) -> str:
    """How many of the things that captions name are not there."""
    captions = [
        "a dog and a cat on the grass".split(),
        "a puppy near a rocket and a car".split(),
        "a dog chases a dog".split(),
        "the sea at night".split(),
        "a bird".split(),
    ]
    dog = {"dog", "puppy"}
    scenes = [dog | {"bird"}, dog, dog | {"car"}, {"ship", "boat"}, {"bird"}]
    names = dog | {"cat", "rocket", "bird", "car", "ship", "boat"}
    words = sum(map(len, captions))
    got = number(call(invented_share, captions, scenes, names), "the share")
    averaged = (
        "you average over captions. Add up the invented and the named of all "
        "captions, and divide once"
    )
    compare(
        got,
        3 / 8,
        [
            (
                2 / 5,
                "two of the five captions invent something; return the share "
                "of naming words",
            ),
            ((1 / 2 + 2 / 3) / 5, averaged),
            ((1 / 2 + 2 / 3) / 4, averaged),
            (
                3 / words,
                'you divide by all words; of "a" and "on" nothing can be invented',
            ),
            (
                22 / words,
                'you count every word that is not a thing in the scene, "a" and '
                '"on" too. Only words in `names` name anything',
            ),
            (
                3 / 7,
                'a caption that says "dog" twice named something twice: go through the list, not '
                "through its set",
            ),
            (5 / 8, "that is the share that is there"),
            (
                7 / 11,
                "that is what the captions forgot to name; return what they "
                "made up",
            ),
        ],
        "three of the eight naming words are invented (cat, rocket, car); you "
        f"have {shown(got, 3 / 8)}",
    )
    nothing = ["the sea at night".split()], [{"ship"}], names
    try:
        got = number(call(invented_share, *nothing), "the share")
    except Wrong as wrong:
        if "ZeroDivisionError" in str(wrong) or "is nan" in str(wrong):
            raise Wrong(
                "where no caption names anything, nothing is invented either: "
                "return 0 before you divide by the number of naming words"
            ) from None
        raise
    compare(
        got,
        0.0,
        otherwise="where no caption names anything the share should be 0",
    )

    def right(captions, scenes, names):
        said = [
            word in scenes[i]
            for i, caption in enumerate(captions)
            for word in caption
            if word in names
        ]
        return said.count(False) / len(said) if said else 0.0

    also(
        invented_share,
        right,
        ([["a", "car", "car"]], [{"dog"}], names),
        ([["a", "cat"]], [{"dog"}], names),
        (captions[1:3], scenes[1:3], names),
        ([["a", "bird"], [], ["ship"]], [{"bird"}, {"car"}, {"ship"}], names),
        ([["red", "sun"], ["sun"]], [{"sun"}, {"moon"}], {"sun", "moon"}),
        what="the share",
    )
    return "and a captioner that names nothing has a perfect score: look at recall as well."
