"""Chapter 09, seeing attention: maps as pictures, and what can be measured of
them."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch

from captionlib.exercises.answers import (
    Wrong,
    also,
    call,
    compare,
    describe,
    number,
    shown,
    tensor,
)
from captionlib.visualize import upsample_alpha


def _array(
    value: object, shape: tuple[int, ...], what: str, known=None
) -> np.ndarray:
    """The value, if it is an array of floats of this shape."""
    return tensor(value, shape, what, known=known).numpy().astype(float)


def exercise_1(enlarge) -> str:
    """A map of cells as a map of pixels, still adding up to 1."""
    alpha = np.array([[0.5, 0.2, 0.1], [0.1, 0.06, 0.04]])
    known = {
        (6, 3): (
            "only the rows were repeated: a cell covers factor pixels both "
            "down and across"
        ),
        (2, 9): (
            "only the columns were repeated: a cell covers factor pixels both "
            "down and across"
        ),
        (18, 3): (
            "each cell became factor * factor rows: repeat rows by factor, "
            "columns by factor"
        ),
    }
    got = _array(call(enlarge, alpha, 3), (6, 9), "the enlarged map", known)
    squares = np.kron(alpha, np.ones((3, 3)))
    compare(
        got,
        squares / 9,
        [
            (
                squares,
                "the squares are right, but nine pixels now have what one cell "
                "had: the map adds up to 9. Divide each weight among its "
                "pixels",
            ),
            (
                squares / 3,
                "the map adds up to 3: a cell became 3 * 3 pixels, not 3",
            ),
            (
                np.tile(alpha, (3, 3)) / 9,
                "that is the whole map nine times over, like tiles: repeat "
                "each cell",
            ),
            (
                np.tile(alpha, (3, 3)),
                "that is the whole map nine times over, like tiles: repeat "
                "each cell",
            ),
            (
                np.exp(squares) / np.exp(squares).sum(),
                "the weights went through a second softmax, which makes them "
                "nearly even: they only want dividing",
            ),
            (
                squares / squares.max(),
                "the largest weight is 1 now; what should be 1 is the sum of "
                "all pixels",
            ),
        ],
        "the pixels of a cell should share its weight, 0.5 / 9 each in the "
        f"first one; yours is "
        f"{shown(got[0, 0], 0.5 / 9)}, and the map adds up to "
        f"{shown(got.sum(), 1)}",
    )
    rng = np.random.default_rng(0)
    also(
        enlarge,
        lambda alpha, n: np.kron(alpha, np.full((n, n), 1 / n**2)),
        *(
            (rng.dirichlet(np.ones(h * w)).reshape(h, w), n)
            for h, w, n in ((1, 1, 4), (3, 2, 1), (2, 2, 5), (4, 3, 2))
        ),
        what="the enlarged map",
    )
    return (
        "the maps of two grids, coarse and fine, can now be laid side by side."
    )


def exercise_2(hits) -> str:
    """The pointing game."""
    maps = np.full((7, 2, 3), 0.1)
    peaks = [(1, 2), (0, 1), (1, 0), (0, 2), (1, 1), (0, 0), (1, 2)]
    for weights, peak in zip(maps, peaks, strict=True):
        weights[peak] = 0.5
    maps[0] = [[0.08, 0.08, 0.08], [0.08, 0.08, 0.6]]
    maps[3] = [[0.3, 0.0, 0.35], [0.3, 0.05, 0.0]]
    maps[5] = [[0.3, 0.05, 0.25], [0.0, 0.15, 0.25]]
    # No two of the mistakes below make the same hits.
    boxes = [
        (64, 32, 96, 64),
        (40, 8, 60, 30),
        (20, 10, 90, 50),
        (0, 0, 32, 64),
        (33, 33, 60, 60),
        (0, 0, 32, 32),
        (70, 40, 96, 64),
    ]
    got = _hits(call(hits, maps, boxes, 32), 7)

    def plain(weights):
        return divmod(int(weights.argmax()), 3)

    def smoothed(weights):
        pixel = divmod(int(upsample_alpha(weights, (64, 96)).argmax()), 96)
        return tuple((place + 0.5) / 32 - 0.5 for place in pixel)

    def balance(weights):
        return tuple((weights * np.indices((2, 3))).sum(axis=(1, 2)))

    def game(cell=plain, at=0.5, side=32, swap=False):
        said = []
        for weights, (x0, y0, x1, y1) in zip(maps, boxes, strict=True):
            row, column = cell(weights)
            x, y = (column + at) * side, (row + at) * side
            if swap:
                x, y = y, x
            said.append(bool(x0 <= x < x1 and y0 <= y < y1))
        return said

    mass, touched = [], []
    for weights, (x0, y0, x1, y1) in zip(maps, boxes, strict=True):
        pixels = np.kron(weights, np.ones((32, 32)))
        mass.append(bool(pixels[y0:y1, x0:x1].sum() / 1024 > 0.5))
        touched.append(bool(pixels[y0:y1, x0:x1].max() == weights.max()))
    overall = np.unravel_index(maps.argmax(), maps.shape)[1:]
    numbers = [i + 1 for i, hit in enumerate(game()) if hit]
    compare(
        got,
        game(),
        [
            (
                game(swap=True),
                "rows and columns are swapped: x runs along the columns, y "
                "down the rows",
            ),
            (
                game(at=0),
                "you ask for a cell's upper left corner; its centre is half a "
                "cell further, at (column + 0.5) * side and (row + 0.5) * side",
            ),
            (
                game(smoothed),
                "you ask for the peak of the smoothed map, as `look` does; "
                "this game asks for the cell with the largest weight, and its "
                "centre",
            ),
            (
                game(lambda weights: overall),
                "one cell was found for all maps, that of the largest weight "
                "anywhere; each map has a largest weight of its own",
            ),
            (
                game(lambda weights: divmod(int(weights.argmax()), 2)),
                "you divide the index of the largest weight by the number of "
                "rows; a row is as long as there are columns",
            ),
            (
                game(at=0, side=1),
                "you look for the row and the column of a cell in a box of "
                "pixels: a cell has `side` pixels both ways",
            ),
            (
                game(balance),
                "you ask for the mean place of all the weight; the pointing "
                "game asks for the largest weight alone",
            ),
            (
                mass,
                "you ask whether the box has most of the weight; the pointing "
                "game asks for the largest weight alone",
            ),
            (
                touched,
                "you ask whether the box has any part of the cell; it should "
                "have the cell's centre",
            ),
            (
                [not each for each in game()],
                "the wrong way round: these are the misses",
            ),
        ],
        f"of the seven, numbers {numbers} are hits, counted from 1; you have "
        f"{got}",
    )
    rng = np.random.default_rng(0)
    for h, w, side in ((3, 2, 10), (4, 4, 7), (2, 5, 16)):
        maps = rng.dirichlet(np.ones(h * w), 24).reshape(24, h, w).round(3)
        boxes = [_box(rng, w * side, h * side) for _ in range(24)]
        _play(hits, maps, boxes, side)
    # The centre lies on an edge of the box: inside at x0 and y0 only.
    maps = np.eye(4).reshape(4, 2, 2)
    _play(
        hits, maps, [(2, 2, 4, 4), (0, 0, 6, 4), (2, 6, 4, 8), (4, 4, 8, 6)], 4
    )
    # Centres of 3.5 and 10.5.
    for end in (4, 11):
        box = (end - 4, end - 4, end, end)
        _play(hits, maps, [box] * 4, 7)
        _play(hits, maps, [(end, 0, 14, 14), (0, end, 14, 14)] * 2, 7)
    return (
        "the mean of the list is the share of words that point at their object."
    )


def _hits(answer: object, many: int) -> list[bool]:
    """The answer, if it is True or False so many times."""
    if not isinstance(answer, (np.ndarray, torch.Tensor, list, tuple)):
        raise Wrong(
            "expected a list of True and False, one per map; this is "
            f"{describe(answer)}"
        )
    if any(not isinstance(each, bool) for each in np.ravel(answer).tolist()):
        raise Wrong(
            "the list of hits holds something other than True and False: "
            f"{np.ravel(answer).tolist()[:3]} to begin with"
        )
    return tensor(answer, (many,), "the list of hits", "bool").tolist()


def _play(hits: Callable, maps: np.ndarray, boxes: list, side: int) -> None:
    """Compare all hits, and show the first map that is judged wrongly."""
    got = _hits(call(hits, maps, boxes, side), len(maps))
    for said, weights, box in zip(got, maps, boxes, strict=True):
        row, column = np.unravel_index(weights.argmax(), weights.shape)
        x, y = (float(column) + 0.5) * side, (float(row) + 0.5) * side
        right = box[0] <= x < box[2] and box[1] <= y < box[3]
        if said != right:
            raise Wrong(
                f"with cells of {side} pixels and the largest weight in row "
                f"{row}, column {column} of {weights.tolist()}, the "
                f"centre is at x = {x}, y = {y}, so with the box {box} it is a "
                f"{'hit' if right else 'miss'}; you say {said}"
            )


def _box(rng, width: int, height: int) -> tuple[int, int, int, int]:
    """A box somewhere in a picture, often narrow or flat."""
    x0, y0 = rng.integers(width - 1), rng.integers(height - 1)
    x1 = x0 + 1 + rng.integers(width - x0)
    y1 = y0 + 1 + rng.integers(height - y0)
    return int(x0), int(y0), int(x1), int(y1)


def exercise_3(cells_looked_at) -> str:
    """The exponential of the entropy."""
    alpha = np.array([[0.5, 0.25], [0.25, 0.125]]) / 1.125
    nats = -(alpha * np.log(alpha)).sum()
    bits = nats / math.log(2)
    known = [
        (nats, "that is the entropy, in nats; exp of it is a number of cells"),
        (
            bits,
            "that is the entropy, in bits; in nats, exp of it is a number of "
            "cells",
        ),
        (
            math.exp(bits),
            "the entropy is in bits, and exp undoes the natural logarithm",
        ),
        (
            math.exp(-nats),
            "less than one cell: the entropy is minus the sum of alpha log "
            "alpha",
        ),
        (
            math.exp(nats / 4),
            "that is the mean over the cells; an entropy is a sum, weighted by "
            "alpha already",
        ),
        (
            1 / (alpha**2).sum(),
            "1 / sum(alpha ** 2) counts cells too, but by another rule: take "
            "exp of the entropy",
        ),
        (
            math.exp(-np.log(alpha).sum()),
            "each logarithm counts by its cell's weight: alpha * log(alpha)",
        ),
    ]
    got = number(call(cells_looked_at, alpha), "the number of cells")
    compare(
        got, math.exp(nats), known, what="the number of cells", tolerance=1e-4
    )
    try:
        got = number(
            call(cells_looked_at, np.array([[0.5, 0.5], [0.0, 0.0]])),
            "the number",
        )
    except Wrong as wrong:
        if "nan" not in str(wrong):
            raise
        raise Wrong(
            "a weight of 0 makes nan, since 0 times minus infinity is "
            "undefined. A cell with no weight adds nothing: leave it out"
        ) from None
    compare(
        got,
        2.0,
        otherwise=f"half and half is two cells, and you have {shown(got, 2)}",
        tolerance=0.001,
    )

    def right(alpha):
        used = alpha[alpha > 0]
        return float(np.prod(used**-used))

    rng = np.random.default_rng(0)
    shapes = ((1, 1), (3, 2), (5, 5), (1, 9))
    drawn = [rng.dirichlet(np.ones(h * w)).reshape(h, w) for h, w in shapes]
    also(
        cells_looked_at,
        right,
        *((alpha,) for alpha in drawn),
        (np.full((8, 8), 1 / 64),),
        (np.array([[0.0, 0.7, 0.0], [0.2, 0.0, 0.1]]),),
        what="the number of cells",
        tolerance=1e-3,
    )
    return "an even map over 64 cells has 64, one sharp cell has 1."


def exercise_4(lift) -> str:
    """Weight in a box against the box's area."""
    alpha = np.array([[0.3, 0.2, 0.1], [0.1, 0.1, 0.2]])
    # Three quarters of the first cell and half of the second.
    box = (8, 0, 48, 32)
    inside, area = 0.75 * 0.3 + 0.5 * 0.2, 1.25 / 6
    got = number(call(lift, alpha, box, 32), "the lift")
    compare(
        got,
        inside / area,
        [
            (
                inside,
                "that is the weight inside; divide it by the box's share of "
                "the picture",
            ),
            (
                inside - area,
                "that is the difference from chance; return the ratio to "
                "chance",
            ),
            (
                area / inside,
                "the fraction is upside down: weight inside over share of the "
                "area",
            ),
            (
                0.5 / area,
                "the box's edges cut two cells, and you count them whole: a "
                "cell counts by the part of it that is inside",
            ),
            (
                0.5 / (2 / 6),
                "you enlarge the box to whole cells: a cell that its edge cuts "
                "counts by the part of it that is inside",
            ),
            (
                0.3 / area,
                "a cell counts as inside or outside by its centre; it should "
                "count by the part of it that is inside",
            ),
            (
                0.2 / area,
                "a cell counts as inside or outside by its corner; it should "
                "count by the part of it that is inside",
            ),
            (
                (0.75 * 0.3 + 0.5 * 0.1) / area,
                "x and y are swapped: a box is (x0, y0, x1, y1), and an "
                "array's first axis runs down, along y",
            ),
            (
                inside / (40 * 32),
                "you divide by the area in pixels; chance is the share of the "
                "picture",
            ),
            (
                inside / 1.25,
                "you divide by the area in cells; chance is the share of the "
                "picture",
            ),
            (
                1024 * inside / area,
                "each of a cell's pixels got the cell's whole weight: divide "
                "it among them",
            ),
        ],
        what="the lift",
        tolerance=1e-4,
    )
    got = number(
        call(lift, np.full((2, 3), 1 / 6), (5, 7, 71, 40), 32), "the lift"
    )
    compare(
        got,
        1.0,
        otherwise="an even map has a lift of 1, whatever the box, and yours is "
        f"{shown(got, 1)}",
        tolerance=1e-4,
    )

    def right(alpha, box, side):
        x0, y0, x1, y1 = box
        down, across = (
            np.clip(
                np.minimum(end, side * np.arange(1, n + 1))
                - np.maximum(start, side * np.arange(n)),
                0,
                None,
            )
            / side
            for start, end, n in ((y0, y1, len(alpha)), (x0, x1, len(alpha[0])))
        )
        covered = np.outer(down, across)
        return float((alpha * covered).sum() / covered.mean())

    rng = np.random.default_rng(0)
    drawn = []
    for h, w, side in ((3, 2, 10), (4, 4, 7), (2, 5, 16), (1, 3, 4)):
        for _ in range(3):
            alpha = rng.dirichlet(np.ones(h * w)).reshape(h, w)
            drawn.append((alpha, _box(rng, w * side, h * side), side))
    also(lift, right, *drawn, what="the lift")
    return "1 is a map that looks everywhere alike; below 1 it looks away."


def exercise_5(occlusion) -> str:
    """What a word loses when a piece of the picture is painted over."""
    rng = np.random.default_rng(0)
    image = rng.uniform(0, 1, size=(4, 6, 3))
    matters = rng.normal(size=(4, 6, 3))

    def score(picture):
        if np.shape(picture) != (4, 6, 3):
            raise Wrong(
                "score expects the whole picture, (4, 6, 3), got "
                f"{np.shape(picture)}"
            )
        return float((matters * np.asarray(picture)).sum())

    known = {
        (3, 2): (
            "the map came out transposed: rows go down the picture, and there "
            "are two"
        ),
        (4, 6): "you paint single pixels; a square has side * side of them",
        (3, 5): "the squares overlap: they start every `side` pixels",
    }
    got = _array(call(occlusion, score, image, 2), (2, 3), "the map", known)

    def loss(grey=0.5, restored=True, kept=False, before=image):
        losses, picture = np.zeros((2, 3)), image.copy()
        for row in range(2):
            for column in range(3):
                picture = image.copy() if restored else picture
                square = np.s_[
                    2 * row : 2 * row + 2, 2 * column : 2 * column + 2
                ]
                picture[square] = grey
                if kept:
                    picture[:] = grey
                    picture[square] = image[square]
                losses[row, column] = score(before) - score(picture)
                before = image if before is image else picture.copy()
        return losses

    row, column = (int(i) for i in divmod(abs(got - loss()).argmax(), 3))
    compare(
        got,
        loss(),
        [
            (
                -loss(),
                "the signs are reversed: a square that matters makes the score "
                "fall, so before minus after",
            ),
            (
                loss(restored=False),
                "the squares stay grey: by the last one the whole picture is "
                "painted over. Begin each time with a fresh copy",
            ),
            (
                np.abs(loss()),
                "keep the sign: below 0 is a square without which the word is "
                "likelier",
            ),
            (
                loss(grey=0.0),
                "you paint in black; use 0.5, which stands out less",
            ),
            (
                loss(grey=1.0),
                "you paint in white; use 0.5, which stands out less",
            ),
            *(
                (
                    loss(grey=grey),
                    f"you paint in {grey}, and the pixels are floats from 0 to "
                    "1: their grey is 0.5",
                )
                for grey in (127, 127.5, 128)
            ),
            (
                loss(kept=True),
                "all but one square is grey: paint that one, and leave the "
                "rest as it is",
            ),
            (
                loss(before=image.copy()),
                "you compare with the picture that had the square before it "
                "painted; compare each with the whole picture",
            ),
            (
                np.maximum(loss(), 0),
                "keep what is below 0: without such a square the word is "
                "likelier",
            ),
            (
                loss() / 4,
                "you divide by the pixels of a square; return the fall itself",
            ),
            (
                score(image) - loss(),
                "these are the scores after painting, not the losses",
            ),
            (
                loss() - score(image),
                "these are the scores after painting, with the sign changed: "
                "subtract them from the score of the whole",
            ),
        ],
        f"painting the square in row {row}, column {column}, costs "
        f"{shown(loss()[row, column], got[row, column])}, and your map says "
        f"{shown(got[row, column], loss()[row, column])}",
    )

    for h, w, square in ((1, 1, 3), (3, 2, 1), (2, 3, 4), (4, 1, 2)):
        picture = rng.uniform(0, 1, size=(h * square, w * square, 3))
        weight = rng.normal(size=picture.shape)

        def total(given, weight=weight):
            if np.shape(given) != weight.shape:
                raise Wrong(
                    f"score expects the whole picture, {weight.shape}, got "
                    f"{np.shape(given)}"
                )
            return float((weight * np.asarray(given)).sum())

        lost = (weight * (picture - 0.5)).reshape(h, square, w, square, 3)
        compare(
            _array(call(occlusion, total, picture, square), (h, w), "the map"),
            lost.sum(axis=(1, 3, 4)),
            what=f"the map of {h} by {w} squares of {square} pixels",
            tolerance=1e-4,
        )
    return "here you changed the picture and watched the word, which no attention map does."
