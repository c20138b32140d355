"""Chapter 11, grounding: shares, baselines, lags, deletion and resampling."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

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


def exercise_1(shares_of) -> str:
    """The share of each cell that a box covers."""
    box, side, size = (10.0, 4.0, 26.0, 13.0), 4, 32
    rows = torch.tensor([4.0, 5.0, 0.0, 0.0]) / 8
    columns = torch.tensor([0.0, 6.0, 8.0, 2.0]) / 8
    right = torch.outer(rows, columns)
    got = tensor(
        call(shares_of, box, side, size),
        (side, side),
        "the grid of shares",
        known={
            (side * side,): "one vector came back: leave rows and columns apart"
        },
    )
    signed = torch.tensor([4.0, 5.0, -3.0, -11.0]) / 8
    wide = torch.tensor([-2.0, 6.0, 8.0, 2.0]) / 8
    centres = (torch.arange(side) + 0.5) * size / side
    at_centre = torch.outer(
        ((4 <= centres) & (centres < 13)).float(),
        ((10 <= centres) & (centres < 26)).float(),
    )
    compare(
        got,
        right,
        [
            (
                right.T,
                "rows and columns are swapped: y runs down the rows, x along "
                "the columns",
            ),
            (
                64 * right,
                "these are areas in pixels; a share is the part of a cell, "
                "from 0 to 1",
            ),
            (
                right / right.sum(),
                "these are shares of the box, and add up to 1; each should be "
                "the share of its cell",
            ),
            (
                torch.outer(signed, wide),
                "where a cell and the box are apart, the overlap is negative, "
                "and two negative ones make a share: clamp them at 0",
            ),
            (
                (right > 0).float(),
                "every cell that the box touches counts whole: it should count "
                "by the part inside",
            ),
            (
                at_centre,
                "a cell counts whole or not at all, by its centre: it should "
                "count by the part inside",
            ),
        ],
        what="the grid of shares",
    )
    whole = tensor(
        call(shares_of, (0, 0, 32, 32), 3, 32), (3, 3), "the grid of shares"
    )
    compare(
        whole,
        torch.ones(3, 3),
        otherwise="a box around the whole picture covers each cell whole, also "
        "if 3 cells share 32 pixels; yours has "
        f"{shown(whole.min().item(), 1)} somewhere",
    )

    def right_for(box, side, size):
        edge = size / side
        shares = torch.zeros(side, side)
        for r in range(side):
            for c in range(side):
                x = min(box[2], c * edge + edge) - max(box[0], c * edge)
                y = min(box[3], r * edge + edge) - max(box[1], r * edge)
                shares[r, c] = max(x, 0) * max(y, 0) / edge**2
        return shares

    also(
        shares_of,
        right_for,
        ((3.5, 20.25, 9.0, 63.0), 7, 64),
        ((20.3, 7.7531, 23.1234, 17.01), 6, 24),
        ((0.0, 0.0, 5.0, 2.5), 1, 10),
        ((11, 3, 12, 4), 2, 15),
        ((40.0, 10.0, 100.0, 90.0), 5, 100),
        what="the grid of shares",
    )
    return "the weight in the box is the sum of the map times this."


def exercise_2(borrowed) -> str:
    """Weight that other images' maps have in a box."""
    alphas = torch.tensor(
        [[0.7, 0.1, 0.1, 0.1], [0.2, 0.5, 0.2, 0.1], [0.0, 0.1, 0.3, 0.6]]
    )
    shares = torch.tensor(
        [[1.0, 0.5, 0.0, 0.0], [0.0, 1.0, 0.0, 0.25], [0.0, 0.0, 0.5, 1.0]]
    )
    inside = shares @ alphas.T
    own = inside.diagonal()
    got = tensor(call(borrowed, alphas, shares), (3,), "the vector of weights")
    compare(
        got,
        (inside.sum(1) - own) / 2,
        [
            (own, "these are the images' own maps, which are to be left out"),
            (
                inside.mean(dim=1),
                "the image's own map is among them: only the others know "
                "nothing of its box",
            ),
            (
                (inside.sum(dim=0) - own) / 2,
                "that holds each map against the boxes of the others; the "
                "question is about each box and the maps of the others",
            ),
            (
                (inside.sum(1) - own) / 3,
                "the own map is left out of the sum, but not of the number of "
                "maps that you divide by",
            ),
            (
                inside.sum(1) - own,
                "that is a sum over the other maps; return their mean",
            ),
        ],
        what="the weight in each box",
    )

    def right_for(alphas, shares):
        weights = []
        for i, share in enumerate(shares):
            rest = torch.cat([alphas[:i], alphas[i + 1 :]])
            weights.append((rest * share).sum(dim=1).mean())
        return torch.stack(weights)

    also(
        borrowed,
        right_for,
        *(
            (torch.randn(B, P).softmax(dim=1), torch.rand(B, P))
            for B, P in ((2, 3), (5, 4), (6, 6), (4, 9))
        ),
        what="the vector of weights",
    )
    return "whoever looks at the same place in every picture is found out."


def exercise_3(mean_at) -> str:
    """The mean at a lag, without words that don't exist."""
    inside = torch.tensor(
        [
            [0.60, 0.35, 0.20, 0.10, 9.0],
            [0.10, 0.15, 0.50, 0.40, 0.2],
            [0.00, 0.25, 7.0, 8.0, 6.0],
            [0.30, 0.20, 0.10, 5.0, 4.0],
        ]
    )
    steps, lengths = torch.tensor([1, 3, 0, 2]), torch.tensor([4, 5, 2, 3])
    rows = torch.arange(4)

    def answer(lag: int) -> Tensor:
        there = (steps + lag >= 0) & (steps + lag < lengths)
        return inside[rows[there], (steps + lag)[there]].mean()

    for lag in (0, 1, -1, -2):
        got = number(call(mean_at, inside, steps, lengths, lag), "the mean")
        at = steps + lag
        inner = inside[rows, at.clamp(0, 4)]
        real = (at >= 0) & (at < lengths)
        zeros = (inner * real).mean()
        wrapped = inside[rows, at % 5]
        held = inside[rows, at.clamp(min=0).minimum(lengths - 1)].mean()
        weights = inner[real]
        opposite = steps - lag
        back = (opposite >= 0) & (opposite < lengths)
        compare(
            got,
            answer(lag).item(),
            [
                (
                    weights[weights > 0].mean().item(),
                    "a weight of 0 is left out; a map that has nothing in the "
                    "box counts, too",
                ),
                (
                    inside[rows[back], opposite[back]].mean().item(),
                    f"that is the mean at a lag of {-lag}: later is steps + lag",
                ),
                (
                    wrapped[at < lengths].mean().item(),
                    f"at a lag of {lag} a negative place counts from the end: "
                    "leave out captions whose word would be before the first",
                ),
                (
                    inside[rows[at >= 0], at[at >= 0].clamp(max=4)]
                    .mean()
                    .item(),
                    f"at a lag of {lag} you read beyond the end of a caption",
                ),
                (
                    zeros.item(),
                    "captions without such a word count as 0; they should not "
                    "count at all",
                ),
                (
                    held.item(),
                    "captions without such a word give their first or last "
                    "one; they should not count at all",
                ),
            ],
            otherwise=f"at a lag of {lag} the mean is "
            f"{shown(answer(lag).item(), got)}, and yours is "
            f"{shown(got, answer(lag).item())}",
        )

    def right_for(inside, steps, lengths, lag):
        kept = [
            row[step + lag].item()
            for row, step, length in zip(inside, steps, lengths, strict=True)
            if 0 <= step + lag < length
        ]
        return sum(kept) / len(kept)

    others = []
    for B, T, lag in ((6, 7, 2), (3, 4, -1), (8, 5, 0), (7, 9, -3)):
        long = torch.randint(1, T + 1, (B,))
        at = (torch.rand(B) * long).long()
        long[0], at[0] = T, max(0, -lag)  # one, at least, has such a word
        weights = 5 * torch.rand(B, T)
        weights[torch.rand(B, T) < 0.3] = 0
        others.append((weights, at, long, lag))
    also(mean_at, right_for, *others, what="the mean")
    return "a curve through these means is the lag curve."


def _scores(value: object, cells: int) -> Tensor:
    """The value, if it is one score more than cells."""
    if isinstance(value, (list, tuple)):
        value = torch.tensor([number(each, "each score") for each in value])
    if np.ndim(value) == 0:
        raise Wrong(
            "one number came back; there is a score for the whole grid and "
            f"one for each cell, {cells + 1} in all, in a list or a tensor"
        )
    return tensor(
        value,
        (cells + 1,),
        "the list of scores",
        known={
            (cells,): "there are as many scores as cells: the score of the "
            "whole grid comes first"
        },
    )


def exercise_4(deletion_curve) -> str:
    """Scores as cells are erased one after another."""
    grid = torch.tensor(
        [[1.0, 0.0], [0.0, 2.0], [3.0, 1.0], [0.5, 0.5], [2.0, -1.0]]
    )
    cell, order = torch.tensor([0.25, 0.5]), [2, 0, 4, 1, 3]

    def score(cells: Tensor) -> float:
        if not isinstance(cells, Tensor) or cells.shape != grid.shape:
            raise Wrong(
                "score takes the whole grid, erased cells included, a tensor "
                f"of shape {tuple(grid.shape)}; it got {describe(cells)}"
            )
        return float((cells**2).sum() + cells[:, 0].prod())

    def curve(order=order, cell=cell, keep=True) -> list[float]:
        scores, erased = [score(grid)], grid.clone()
        for p in order:
            erased = erased if keep else grid.clone()
            erased[p] = cell
            scores.append(score(erased))
        return scores

    got = _scores(call(deletion_curve, score, grid, order, cell), 5)
    right = torch.tensor(curve())
    compare(
        got.double(),
        right.double(),
        [
            (
                torch.tensor(curve(keep=False)),
                "only one cell at a time is erased: those before it should "
                "stay erased",
            ),
            (
                torch.tensor(curve(cell=torch.zeros(2))),
                "you put zeros in the cells; put `cell` there",
            ),
            (
                torch.tensor(curve(cell=grid.mean(dim=0))),
                "you put the mean of this grid in the cells; put `cell` there",
            ),
            (
                torch.tensor(curve(order=range(5))),
                "you go through the cells from 0 on; go through `order`",
            ),
            (
                torch.tensor(curve(order=order[::-1])),
                "you go through `order` backwards",
            ),
            (
                torch.tensor(curve(order=np.argsort(order).tolist())),
                "you take `order` for ranks, or sort it: it lists the cells, "
                f"and {order} means that cell {order[0]} is erased first",
            ),
            *(
                (
                    torch.cat([right[: 5 - n], right[5:].expand(1 + n)]),
                    "you score the grid with all cells erased again and "
                    "again: a list of one tensor holds the same grid many "
                    "times. Score it in the loop, or clone it for each step",
                )
                for n in (4, 5)
            ),
            (
                right[0] - right,
                "these are the falls; return the scores themselves",
            ),
        ],
        what="the curve",
    )
    for P, D, steps in (
        (3, 3, [1, 2, 0]),
        (7, 1, [6, 2, 5, 0, 4, 1, 3]),
        (1, 4, [0]),
    ):
        cells, put = torch.randn(P, D), torch.randn(D)
        weights, expected = torch.rand(P, D), []

        def weigh(given: Tensor, weights=weights) -> float:
            if np.shape(given) != tuple(weights.shape):
                raise Wrong(
                    "score takes the whole grid, erased cells included, "
                    f"{tuple(weights.shape)}; it got {np.shape(given)}"
                )
            return float((weights * torch.as_tensor(given)).exp().sum())

        for n in range(len(steps) + 1):
            gone = torch.isin(torch.arange(P), torch.tensor(steps[:n]).long())
            expected.append(weigh(torch.where(gone[:, None], put, cells)))
        scores = call(deletion_curve, weigh, cells, steps, put)
        compare(
            _scores(scores, P),
            torch.tensor(expected),
            what=f"the curve for {P} cells, erased in the order {steps},",
            tolerance=1e-4,
        )
    return "the sooner it falls, the better the order knows what matters."


def exercise_5(differences) -> str:
    """Mean differences over resampled images."""
    first = torch.tensor([0.1, 0.2, 0.3, 0.4, 0.5, 0.6])
    second = torch.tensor([0.4, 0.1, 0.5, 0.5, 0.9, 0.55])
    images = torch.tensor([0, 0, 0, 1, 2, 2])
    draws = torch.tensor([[0, 1, 2], [1, 1, 2], [0, 0, 0], [2, 1, 2]])
    counts = (draws[:, :, None] == images).sum(dim=1)
    words = second - first

    def weighted(counts: Tensor, values=words) -> Tensor:
        return (counts * values).sum(1) / counts.sum(1)

    means = torch.stack([words[images == i].mean() for i in range(3)])
    got = tensor(
        call(differences, first, second, images, draws),
        (4,),
        "the vector of differences",
        known={
            (4, 6): "there is a number for each word yet: return the mean of "
            "each resample"
        },
    )
    compare(
        got,
        weighted(counts),
        [
            (
                -weighted(counts),
                "the sign is turned: second minus first",
            ),
            (
                weighted((counts > 0).long()),
                "an image that was drawn twice brings its words twice",
            ),
            (
                means[draws].mean(dim=1),
                "that is a mean of the images' means; each word should count "
                "alike",
            ),
            (
                words[draws].mean(dim=1),
                "you take `draws` for numbers of words; they are numbers of "
                "images",
            ),
            (
                (counts * words).sum(1) / len(words),
                "a resample has not always as many words as there are: divide "
                "by the number that it has",
            ),
            (
                weighted(counts, second),
                "that is the mean of the second alone; subtract the first",
            ),
        ],
        what="the mean difference",
    )

    def right_for(first, second, images, draws):
        means = []
        for row in draws:
            drawn = [(second - first)[images == i] for i in row]
            means.append(torch.cat(drawn).mean())
        return torch.stack(means)

    others = []
    for B, N, R in ((2, 5, 3), (4, 9, 6), (5, 5, 1), (3, 7, 7)):
        of = torch.cat([torch.arange(B), torch.randint(B, (N - B,))])
        of = of[torch.randperm(N)]
        draws = torch.randint(B, (R, B))
        others.append((torch.rand(N), torch.rand(N), of, draws))
        # The first, the third and the last image have no word.
        gaps = torch.cat([torch.tensor([1]), torch.arange(3, B + 3)])
        draws = torch.randint(B + 4, (R, B + 4))
        draws[:, 0], draws[0, 1:4] = 1, torch.tensor([0, 2, B + 3])
        others.append((torch.rand(N), torch.rand(N), gaps[of], draws))
    try:
        also(differences, right_for, *others, what="the mean difference")
    except Wrong as wrong:
        if "beyond an end" in str(wrong):
            raise Wrong(
                f"{wrong}. Here the last images have no word; their numbers "
                "may be drawn all the same"
            ) from None
        raise
    return (
        "the 2.5th and the 97.5th percentile of many of them are the interval."
    )
