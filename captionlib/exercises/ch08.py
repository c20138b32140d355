"""Chapter 08, caption a photo: the way in; how sure a captioner is, and what it
makes up."""

from __future__ import annotations

import io
import math

import numpy as np
import torch
from PIL import Image, ImageOps

from captionlib.captioner import Caption
from captionlib.exercises.answers import (
    Wrong,
    also,
    call,
    compare,
    number,
    shown,
    tensor,
    trusted,
)

ORIENTATION = 274  # the EXIF note
STILL = {
    "6": "still lies on its side",
    "8": "still lies on its side",
    "3": "is still upside down",
    "2": "is still mirrored",
    "4": "is still mirrored",
    "5": "is still mirrored, and lies on its side",
    "7": "is still mirrored, and lies on its side",
}
FILTERS = [
    each for each in Image.Resampling if each is not Image.Resampling.NEAREST
]


def _stored(
    value: object, shape: tuple[int, ...], what: str, known=None
) -> np.ndarray:
    """The value, if it is uint8 and of this shape."""
    if getattr(value, "dtype", np.uint8) not in (np.uint8, torch.uint8):
        raise Wrong(
            f"{what} came back as {value.dtype}, but stored pixels are uint8"
        )
    return tensor(value, shape, what, "int", known).numpy()


def exercise_1(mended) -> str:
    """Read pictures that are turned, transparent or painted by number."""
    for wide, tall, size in ((24, 16, 12), (10, 30, 8), (64, 64, 7)):
        for name, stored in _pictures(wide, tall).items():
            what = f"{name} of {wide} by {tall} pixels, as {size} by {size},"
            got = _stored(
                call(mended, _opened(stored), size), (size, size, 3), what
            )
            if any(
                _alike(got, _read(stored, size, filter=each))
                for each in FILTERS
            ):
                continue
            for wrong, message in (
                ({"early": True}, "has lost whole lines of "
                 "pixels where it should mix them: numbers of colours can't be "
                 "mixed, so first make colours of the numbers"),
                ({"turn": False},
                 STILL.get(name[-1], "still lies on its side")),
                ({"paper": None}, "shows what is stored under its transparent "
                 "parts; white paper should show there"),
                ({"paper": None, "early": True}, "is black where it is "
                 "transparent; white paper should show there"),
                ({"paper": "black"}, "lies on black paper; it should be white"),
            ):  # fmt: skip
                if _alike(got, _read(stored, size, **wrong)):
                    raise Wrong(f"{what} {message}")
            expected = _read(stored, size)
            if _alike(got, expected[:, :, ::-1]):
                raise Wrong(f"{what} has red and blue exchanged")
            compare(got.astype(float), expected.astype(float), what=what[:-1])
    return "turned, mixed with white, and only then made smaller."


def _pictures(wide: int, tall: int) -> dict[str, bytes]:
    """Files of several kinds, by name."""
    rng = np.random.default_rng(wide)
    coarse = rng.integers(0, 256, (4, 4, 4), dtype=np.uint8)
    coarse[:2, :2, 3], coarse[2:, :2, 3] = 0, 255
    clear = Image.fromarray(coarse).resize((wide, tall), Image.Resampling.BOX)
    plain = clear.convert("RGB")
    lines = np.tile(rng.integers(0, 4, wide, dtype=np.uint8), (tall, 1))
    lines[::3] = 3
    numbers = Image.fromarray(lines)
    numbers.putpalette([250, 200, 0, 0, 30, 90, 10, 160, 60, 200, 0, 120])
    pictures = {"a photograph": (plain, {})}
    for note in STILL:
        exif = Image.Exif()
        exif[ORIENTATION] = int(note)
        pictures[f"a photograph of orientation {note}"] = plain, {"exif": exif}
    pictures |= {
        "a drawing with alpha": (clear, {}),
        "a picture with a palette": (numbers, {}),
        "a transparent picture with a palette": (numbers, {"transparency": 3}),
    }
    # One colour of these stands for transparent.
    red, green, blue = plain.getpixel((0, 0))
    grey = plain.convert("L")
    pictures |= {
        "an RGB picture with a transparent colour": (
            plain,
            {"transparency": (red, green, blue)},
        ),
        "a grey picture with a transparent shade": (
            grey,
            {"transparency": grey.getpixel((0, 0))},
        ),
    }
    return {
        name: _file(image, more) for name, (image, more) in pictures.items()
    }


def _file(image: Image.Image, more: dict) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG", **more)
    return file.getvalue()


def _opened(stored: bytes) -> Image.Image:
    return Image.open(io.BytesIO(stored))


def _read(
    stored,
    size,
    turn=True,
    paper="white",
    early=False,
    filter=Image.Resampling.BICUBIC,
) -> np.ndarray:
    """(size, size, 3) uint8, by default as it should be."""
    image = _opened(stored)
    image = image.resize((size, size)) if early else image
    image = ImageOps.exif_transpose(image) if turn else image
    if paper:
        image = image.convert("RGBA")
        below = Image.new("RGBA", image.size, paper)
        image = Image.alpha_composite(below, image)
    return np.asarray(image.convert("RGB").resize((size, size), filter))


def _alike(one: np.ndarray, other: np.ndarray) -> bool:
    """Whether two pictures are the same but for the order in which they were
    made smaller and mixed, and for the filter that does the former."""
    apart = np.abs(one.astype(float) - other)
    return apart.max() < 50 and apart.mean() < 12


def exercise_2(trust) -> str:
    """A test that tells wrong versions of `caption_all` from right ones."""
    for about, version in _right_batches().items():
        if not trusted(trust, version):
            raise Wrong(
                f"your test refuses a version that {about}; it is right"
            )

    def passes(version) -> bool:
        try:
            return trusted(trust, version)
        except (
            Wrong
        ):  # it has let right ones pass, so this is a version's fault
            return False

    wrong = _wrong_batches()
    missed = [about for about, version in wrong.items() if passes(version)]
    if missed:
        others = f", and {len(missed) - 1} more" * (len(missed) > 1)
        raise Wrong(
            f"a version that {missed[0]} passes your test{others}: with which "
            "images and which size would it show?"
        )
    return f"{len(wrong)} wrong versions caught, all right ones passed."


def _right_batches() -> dict:
    """Versions that do what was promised, by what they do."""

    def slices(images, caption_batch, size):
        captions = []
        for start in range(0, len(images), size):
            captions += caption_batch(images[start : start + size])
        return captions

    def equal(images, caption_batch, size):
        captions = []
        many = -(-len(images) // size)
        for i in range(many):
            one, other = (len(images) * j // many for j in (i, i + 1))
            captions += caption_batch(images[one:other])
        return captions

    def short_first(images, caption_batch, size):
        rest = len(images) % size
        first = caption_batch(images[:rest]) if rest else []
        return [*first, *slices(images[rest:], caption_batch, size)]

    def backwards(images, caption_batch, size):
        captions = []
        for start in reversed(range(0, len(images), size)):
            captions[:0] = caption_batch(images[start : start + size])
        return captions

    def from_memory(images, caption_batch, size):
        try:
            unlike = list(dict.fromkeys(images))
        except TypeError:  # arrays, for instance
            return slices(images, caption_batch, size)
        known = dict(
            zip(unlike, slices(unlike, caption_batch, size), strict=True)
        )
        return [known[image] for image in images]

    return {
        "takes slice after slice": slices,
        "makes batches of nearly equal size": equal,
        "begins with the smaller batch": short_first,
        "captions one image after the other": (
            lambda images, caption_batch, size: slices(images, caption_batch, 1)
        ),
        "captions the last batch first": backwards,
        "captions an image that comes twice once, and copies the caption": (
            from_memory
        ),
    }


def _wrong_batches() -> dict:
    """Fresh copies of the versions that don't, named by what they do."""
    slices = _right_batches()["takes slice after slice"]
    kept: list[str] = []

    def no_rest(images, caption_batch, size):
        whole = len(images) // size * size
        return slices(images[:whole], caption_batch, size)

    def filled(images, caption_batch, size):
        lacking = -len(images) % size
        return slices([*images, *images[:1] * lacking], caption_batch, size)

    def one_more(images, caption_batch, size):
        captions = []
        for start in range(0, len(images) + 1, size):
            captions += caption_batch(images[start : start + size])
        return captions

    def remembering(images, caption_batch, size):
        kept.extend(slices(images, caption_batch, size))
        return list(kept)

    def short_filled(images, caption_batch, size):
        lacking = size - len(images) if images else 0
        return slices([*images, *images[:1] * lacking], caption_batch, size)

    def at_least_one(images, caption_batch, size):
        first = caption_batch(images[:size])
        return [*first, *slices(images[size:], caption_batch, size)]

    def once_each(images, caption_batch, size):
        return slices(list(dict.fromkeys(images)), caption_batch, size)

    return {
        "drops the rest of a batch": no_rest,
        "fills the last batch up with the first image": filled,
        "ends with an empty batch if no image is left over": one_more,
        "takes all images at once": lambda i, c, size: slices(i, c, len(i)),
        "takes batches of 2, whatever the size": lambda i, c, s: slices(
            i, c, 2
        ),
        "takes batches that are one too large": (
            lambda i, c, size: slices(i, c, size + 1)
        ),
        "sorts the images": lambda i, c, size: slices(sorted(i), c, size),
        "starts from the end": lambda i, c, size: slices(i[::-1], c, size),
        "captions an image that comes twice only once": once_each,
        "still has the captions of the call before": remembering,
        "fills up a list that is shorter than a batch": short_filled,
        "makes a batch of nothing if there is no image": at_least_one,
    }


def exercise_3(pad_to_square) -> str:
    """A picture in the middle of a grey square."""
    # Three rows have to be added.
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
        added, beyond = (
            ("rows", "below it") if row else ("columns", "to the right of it")
        )
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
                    f"three {added} are added to the {name} picture, and the "
                    f"one left over goes {beyond}",
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
        said = ["word"] * words
        return Caption(said, " ".join(said), log_prob, maps, finished)

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
    try:
        got = number(
            call(perplexity, [caption(4, -8.0, finished=False)]),
            "the perplexity",
        )
    except Wrong as wrong:
        if "zero" not in str(wrong):
            raise
        raise Wrong(
            "no choices are left of a caption that is not finished. It counts "
            "like any other: its words were chosen, <end> was not"
        ) from None
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
        if "divided by zero" in str(wrong) or "is nan" in str(wrong):
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
