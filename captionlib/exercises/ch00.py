"""Chapter 00, the toy world."""

from random import Random

import numpy as np

from captionlib.exercises.answers import (
    Wrong,
    call,
    close,
    compare,
    describe,
    parts,
    words,
)


def exercise_1(paste) -> str:
    """Paste through a mask."""
    rng = np.random.default_rng(0)
    sheet = rng.integers(120, 256, (4, 5, 3), dtype=np.uint8)
    sticker = rng.integers(0, 120, (4, 5, 3), dtype=np.uint8)
    alpha = np.array([0, 255, 128, 3, 254], dtype=np.uint8) + np.zeros(
        (4, 1), dtype=np.uint8
    )
    got = call(paste, sheet, sticker, alpha)
    if not isinstance(got, np.ndarray):
        raise Wrong(f"the result should be an array, and is {describe(got)}")
    if got.shape != sheet.shape:
        raise Wrong(
            f"the picture has the shape {got.shape}, and the sheet's was {sheet.shape}"
        )
    if got.dtype != np.uint8:
        raise Wrong(
            f"the picture holds {got.dtype}; pixels are stored as uint8"
        )
    share = alpha[:, :, None].astype(float) / 255

    def mixed(share):
        return share * sticker + (1 - share) * sheet

    def near(other):
        return np.abs(got.astype(float) - other).max() <= 1

    if near(mixed(1 - share)):
        raise Wrong(
            "where alpha is 255 the sheet shows: the two shares are swapped"
        )
    if near(np.where(share > 0, sticker, sheet)) or near(
        np.where(share > 0.5, sticker, sheet)
    ):
        raise Wrong(
            "the edge is hard: alpha 128 should mix half of the sticker and half of the sheet"
        )
    if near(np.where(share == 1, sticker, sheet)):
        raise Wrong(
            "only alpha 255 shows the sticker: the half-transparent edge is lost"
        )
    if near(np.minimum(share * sticker + sheet, 255)):
        raise Wrong(
            "the sticker is added to the sheet, which keeps its full strength under it"
        )
    if near(share * sticker):
        raise Wrong(
            "where the sticker is transparent the picture is black: the sheet is missing"
        )
    with np.errstate(all="ignore"):
        parts = alpha[:, :, None] * sticker, (255 - alpha)[:, :, None] * sheet
    wrapped = [(parts[0] + parts[1]) // 255, parts[0] // 255 + parts[1] // 255]
    if (
        any(near(other) for other in wrapped)
        or not near(mixed(share))
        and (got < 3).mean() > 0.4
    ):
        raise Wrong(
            "most products are lost: uint8 times uint8 stays uint8 and starts again at zero after "
            "255. Make floats first"
        )
    if not near(mixed(share)):
        y, x, c = np.argwhere(np.abs(got.astype(float) - mixed(share)) > 1)[0]
        raise Wrong(
            f"a sheet of {sheet[y, x, c]} under a sticker of {sticker[y, x, c]} with alpha "
            f"{alpha[y, x]} gives {got[y, x, c]}, which is not the mixture"
        )
    if not (got == mixed(share).round()).all():
        raise Wrong(
            "nearly: some pixels are one too dark, because turning a float into uint8 cuts its "
            "decimals off. Round first"
        )
    return "that is alpha compositing. To its soft edge the dog owes that it looks at home."


def exercise_2(mirror) -> str:
    """Mirror the answer sheet."""
    caption = "a dog to the left of a tree and right of two left shoes".split()
    result = call(mirror, (0, 2, 3, 9), caption, 10)
    box, tokens = parts(result, "the new box", "the new words")
    if not isinstance(box, (tuple, list)) or len(box) != 4:
        raise Wrong(f"the box should be four numbers, and is {str(box)[:40]}")
    compare(
        tuple(box),
        (7, 2, 10, 9),
        [
            (
                (10, 2, 7, 9),
                "the box's left edge lies right of its right edge: mirrored, the two edges change "
                "places",
            ),
            (
                (6, 2, 9, 9),
                "the box is one pixel too far left: x1 lies just outside, so an object at the "
                "left edge (x0 = 0) must end with x1 at the width",
            ),
            (
                (9, 2, 6, 9),
                "the edges have to change places, and 1 is taken away for nothing",
            ),
            (
                (0, 1, 3, 8),
                "this is upside down: x0 and x1 are to change, y0 and y1 stay",
            ),
            ((0, 2, 3, 9), "the box is where it was"),
            (
                (-3, 2, 0, 9),
                "the box lies outside the picture: count from the picture's width",
            ),
        ],
        what="the box",
    )
    expected = (
        "a dog to the right of a tree and left of two right shoes".split()
    )
    compare(
        words(tokens, "the caption"),
        expected,
        [
            (
                caption,
                "the box is right, but the caption still says left where it is right now",
            ),
            (
                ["left" if word == "right" else word for word in expected],
                "every side is now left: what was turned from left to right was turned back again",
            ),
            (
                ["right" if word == "left" else word for word in expected],
                "every side is now right: what was right has to become left",
            ),
        ],
        what="the caption",
    )
    return (
        "box and words. With the old words a mirrored picture would teach a model "
        "to mix up sides."
    )


def exercise_3(generator) -> str:
    """A generator for each scene."""
    code = getattr(generator, "__code__", None)

    def drawn(*key):
        rng = call(generator, *key)
        if not hasattr(rng, "getrandbits"):
            raise Wrong(
                f"a Random should come back, and this is {describe(rng)}"
            )
        return rng

    first = drawn(0, "train", 1)
    expected = Random()
    expected.setstate(first.getstate())
    expected = [expected.random() for _ in range(3)]
    drawn(0, "val", 5).random()
    if [first.random() for _ in range(3)] != expected:
        raise Wrong(
            "all scenes draw from one generator, so what one scene gets depends on the others: "
            "make a new Random"
        )

    def begins(*key):
        return drawn(*key).getrandbits(64)

    if code and "hash" in code.co_names:
        raise Wrong(
            "hash() of a string is salted anew in each process: tomorrow's train_00017 would be "
            "another picture"
        )
    if begins(0, "train", 1) != begins(0, "train", 1):
        raise Wrong(
            "asked twice for the same scene, it gives two different generators"
        )
    for one, other, what in [
        (
            (0, "train", 1),
            (0, "train", 2),
            "a split has one scene again and again: where is index?",
        ),
        (
            (0, "train", 1),
            (0, "val", 1),
            "the validation scenes repeat the training scenes",
        ),
        (
            (0, "train", 1),
            (1, "train", 1),
            "another seed gives the same scenes",
        ),
        (
            (0, "train", 3),
            (3, "train", 0),
            "scene 3 of seed 0 is scene 0 of seed 3",
        ),
        (
            (1, "train", 3),
            (2, "train", 2),
            "scene 3 of seed 1 is scene 2 of seed 2: use no sum",
        ),
        (
            (2, "train", 3),
            (3, "train", 2),
            "scene 3 of seed 2 is scene 2 of seed 3: order is lost",
        ),
        (
            (0, "test", 1),
            (0, "val", 1),
            "the test scenes repeat the validation scenes",
        ),
        (
            (0, "a", 12),
            (0, "a1", 2),
            "split and index run into each other: put a space between",
        ),
    ]:
        if begins(*one) == begins(*other):
            raise Wrong(what)
    return (
        "one more training scene will leave every validation scene as it was."
    )


def exercise_4(distinct) -> str:
    """Five different captions, or as many as there are."""

    class Draw:
        """Captions in turn, again and again."""

        def __init__(self, captions):
            self.captions, self.calls = captions, 0

        def __call__(self):
            self.calls += 1
            if self.calls > 2000:
                raise Wrong(
                    "it draws on and on when there are too few captions: count the draws"
                )
            return self.captions[(self.calls - 1) % len(self.captions)]

    def run(captions, wanted, tries):
        draw = Draw(captions)
        return words(
            call(distinct, draw, wanted, tries), "what comes back"
        ), draw.calls

    few = ["dog", "cat", "dog"]
    got, calls = run(few, 5, 40)
    if sorted(got) == ["cat", "dog"] and calls > 40:
        raise Wrong(f"of 40 draws that were allowed it took {calls}")
    if len(set(got)) < len(got):
        raise Wrong("the same caption is in the list twice")
    compare(
        got,
        ["dog", "cat"],
        what="the list of dog, cat, dog, dog, cat, dog, ...",
    )
    many = ["one", "one", "two", "one", "three", "four", "five", "six"]
    got, calls = run(many, 5, 40)
    if len(got) > 5:
        raise Wrong(f"five captions were wanted, and {len(got)} came back")
    if len(got) < 5:
        raise Wrong(
            f"only {len(got)} captions came back, though more draws were allowed and would have "
            "brought new ones: a repeated one costs a draw, not a place"
        )
    if got != ["one", "two", "three", "four", "five"]:
        raise Wrong(
            "the captions are the right ones in another order: a set forgets the order in which "
            "they came, and not even in the same way in each process"
        )
    if calls > 7:
        raise Wrong(
            f"five were there after 7 draws, and it drew {calls} times: stop in time"
        )
    got, calls = run(many, 5, 4)
    if not close(got, ["one", "two"]) or calls != 4:
        raise Wrong(
            f"with 4 draws allowed it drew {calls} times: `tries` is for all captions together"
        )
    return "it can't hang, and draws nothing that it doesn't need."
