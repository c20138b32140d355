"""Chapter 12, parts: paired intervals, another score, company, a faulty thief."""

from __future__ import annotations

import random

import numpy as np
import torch
from torch import Tensor

from captionlib.exercises.answers import (
    Wrong,
    call,
    compare,
    describe,
    number,
    parts,
    tensor,
)

T_POINTS = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776, 6: 2.571}


def exercise_1(paired_interval) -> str:
    """Student's interval of paired differences."""
    for i, n in enumerate(random.sample(sorted(T_POINTS), 4)):
        baseline = [random.uniform(40, 60) for _ in range(n)]
        # Below zero, above, or around it.
        shift = 30 * (i % 3 - 1)
        row = [value + shift + random.uniform(-3, 2) for value in baseline]
        gaps = torch.tensor(row, dtype=torch.float64) - torch.tensor(
            baseline, dtype=torch.float64
        )
        found = call(paired_interval, row, baseline, T_POINTS[n])
        if isinstance(found, (Tensor, np.ndarray)):
            found = found.tolist()
        low, high = (
            number(end, name)
            for end, name in zip(
                parts(found, "low", "high"), ("low", "high"), strict=True
            )
        )

        def ends(gaps, spread, root=n, t=T_POINTS[n]) -> Tensor:
            half = t * spread / root**0.5
            return torch.stack([gaps.mean() - half, gaps.mean() + half])

        apart = torch.tensor(row).std(), torch.tensor(baseline).std()
        right = ends(gaps, gaps.std())
        half = (right[1] - right[0]) / 2
        compare(
            torch.tensor([low, high], dtype=torch.float64),
            right,
            [
                (
                    right.flip(0),
                    "the ends are swapped: the lower one comes first",
                ),
                (
                    torch.stack([gaps.mean(), half]),
                    "these are the mean and half the width; the ends lie so "
                    "far below and above the mean",
                ),
                (
                    ends(-gaps, gaps.std()),
                    "the sign is turned: the row minus the baseline",
                ),
                (
                    ends(gaps, gaps.std(correction=0)),
                    "the standard deviation divides by n; with so few pairs, "
                    "divide by n - 1",
                ),
                (
                    ends(gaps, gaps.std(), 1),
                    "that is where single gaps lie; the mean of n of them is "
                    "surer, by the root of n",
                ),
                (
                    ends(gaps, gaps.std(), n * n),
                    "divide by the root of n, not by n",
                ),
                (
                    ends(gaps, (apart[0] ** 2 + apart[1] ** 2) ** 0.5),
                    "the spread is that of unpaired scores: take the spread of "
                    "the gaps",
                ),
            ],
            otherwise=f"for {n} pairs with the gaps "
            f"{[round(gap, 2) for gap in gaps.tolist()]} the interval is "
            f"{[round(end, 3) for end in ends(gaps, gaps.std()).tolist()]}, "
            f"and yours is {[round(low, 3), round(high, 3)]}",
        )
    return "pairs take out what both have in common: the luck of the seed."


def exercise_2(alphas_of) -> str:
    """Luong's general score: a matrix between query and key."""
    for N, P, H, D in ((3, 5, 4, 6), (1, 7, 3, 2), (4, 4, 4, 4)):
        hidden, cells = torch.randn(N, H), torch.randn(N, P, D)
        W = torch.randn(H, D)
        scores = torch.einsum("nh,hd,npd->np", hidden, W, cells)
        got = tensor(
            call(alphas_of, hidden, cells, W),
            (N, P),
            "alpha",
            known={
                (N, P, 1): "alpha has an axis too many: squeeze the last one",
                (N, 1, P): "alpha has an axis too many: squeeze the middle one",
            },
        )
        known = [
            (scores, "these are the scores; softmax is still to come"),
            (
                scores.softmax(dim=0),
                "the weights add up to 1 over the captions; they should over "
                "the cells",
            ),
            (
                (scores / D**0.5).softmax(dim=1),
                "the scores are scaled; the paper's are not",
            ),
            (
                (scores / H**0.5).softmax(dim=1),
                "the scores are scaled; the paper's are not",
            ),
        ]
        if H == D:
            turned = torch.einsum("nh,dh,npd->np", hidden, W, cells)
            known.append(
                (
                    turned.softmax(dim=1),
                    "W is transposed: h comes from the left",
                )
            )
        compare(got, scores.softmax(dim=1), known, what="alpha")
    return "one matrix has taken the place of two layers, a ReLU and a vector."


def exercise_3(ppmi) -> str:
    """Positive pointwise mutual information."""
    for V in (3, 4, 6):
        counts = torch.randint(0, 6, (V, V)).float()
        counts = counts + counts.T
        # The last word was seen once, with the one before it: the two belong
        # together, however few the counts.
        counts[-1] = counts[:, -1] = 0
        counts[-1, -2] = counts[-2, -1] = 1
        counts[0, 1] = counts[1, 0] = 0
        counts[0, 0], counts[1, 2], counts[2, 1] = 4, 1, 1
        p = counts / counts.sum()
        ratio = p / (p.sum(0) * p.sum(1, keepdim=True))
        signed = torch.where(ratio > 0, ratio.log(), torch.zeros(()))
        got = tensor(call(ppmi, counts), (V, V), "the table")
        if got.isinf().any():
            raise Wrong(
                "words that never meet have an infinite entry: their "
                "logarithm is to become 0"
            )
        compare(
            got,
            signed.clamp(min=0),
            [
                (signed, "negative entries should become 0"),
                (
                    signed.clamp(min=0) / torch.log(torch.tensor(2.0)),
                    "that is in bits; take the natural logarithm",
                ),
                (
                    ratio.where(ratio > 1, torch.zeros(())),
                    "these are the quotients; take their logarithms",
                ),
                (
                    (ratio * counts.sum()).log().clamp(min=0),
                    "divide the counts by their sum first: they are to become "
                    "probabilities",
                ),
                (
                    torch.zeros(V, V),
                    "all entries are 0: are the counts divided by their sum, "
                    "and P(u, v) by the probabilities of both words?",
                ),
            ],
            what="the table",
        )
    return "a row of this table is already a word vector, only a long one."


def exercise_4(mended) -> str:
    """A thief with a fault, and a line that only looks like one."""
    # Many known pictures for few, as many, and so few that some are nearest
    # twice, and that the nearest of some looks the other way.
    for B, all_known, D in ((12, 40, 4), (8, 8, 6), (12, 3, 5)):
        # Directions tell who is nearest, lengths mislead.
        lengths = torch.linspace(1, 9, all_known)[:, None, None]
        grids = torch.randn(B, 6, D) * torch.rand(B, 6, 1)
        known = torch.randn(all_known, 6, D) * torch.rand(all_known, 6, 1)
        known = lengths * known
        captions = [f"caption {i}" for i in range(all_known)]
        a, b = grids.mean(dim=1), known.mean(dim=1)
        cosines = torch.cosine_similarity(a[:, None], b[None], dim=2)
        right = [captions[i] for i in cosines.argmax(dim=1).tolist()]
        got = call(mended, grids, known, captions)
        if isinstance(got, np.ndarray):
            got = got.tolist()
        if not isinstance(got, (list, tuple)) or len(got) != B:
            raise Wrong(
                f"there are {B} pictures and {all_known} known ones: {B} captions "
                f"should come back, in a list; this is {describe(got)}"
                + (f" of {len(got)}" if isinstance(got, (list, tuple)) else "")
            )
        products = (a @ b.T).argmax(dim=1).tolist()
        compare(
            list(got),
            right,
            [
                (
                    [captions[i] for i in products],
                    "that favours known pictures with large means: their "
                    "length has to be divided out",
                ),
                (
                    [captions[i] for i in cosines.argmin(dim=1).tolist()],
                    "these are the captions of the least similar pictures",
                ),
            ],
            what="the list of captions",
        )
    return (
        "the fault was the axis of argmax. That the length of `a` is not "
        "divided out changes nothing: it is the same for all that are compared."
    )
