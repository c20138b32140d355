"""Chapter 13, hard attention: gradients by hand, baselines, half and half."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from captionlib.exercises.answers import call, compare, number, tensor

# The weights of cells, and what a look at each earns.
CASES = (
    (
        torch.tensor([0.1, 0.45, 0.25, 0.2]),
        torch.tensor([-0.5, -2.0, -3.5, -1.0]),
    ),
    (
        torch.tensor([0.3, 0.05, 0.15, 0.2, 0.2, 0.1]),
        torch.tensor([-4.0, -1.5, -0.25, -2.0, -3.0, -6.0]),
    ),
)


def exercise_1(exact) -> str:
    """The gradient of the mean reward."""
    for alpha, rewards in CASES:
        mean = alpha @ rewards
        right = alpha * (rewards - mean)
        compare(
            tensor(call(exact, alpha, rewards), alpha.shape, "the gradient"),
            right,
            [
                (
                    rewards,
                    "that is the gradient with respect to alpha; the scores "
                    "reach it through a softmax, where one that rises lowers "
                    "the others",
                ),
                (
                    alpha * rewards,
                    "a score that rises takes probability from all cells: each "
                    "reward counts by how far it is above the mean reward",
                ),
                (-right, "the sign is turned: it should climb, not descend"),
                (
                    rewards - mean,
                    "each is to be multiplied by the cell's own probability",
                ),
                (
                    alpha * (rewards - rewards.mean()),
                    "the mean reward is the mean over draws, so cells count by "
                    "their probability",
                ),
            ],
            what="the gradient",
        )
    return "REINFORCE has to hit this on average."


def exercise_2(estimate) -> str:
    """One draw's estimate."""
    for (alpha, rewards), cell, baseline in zip(
        CASES, (2, 0), (0.0, -1.75), strict=True
    ):
        hot = F.one_hot(torch.tensor(cell), len(alpha)).float()
        slope, above = hot - alpha, rewards[cell] - baseline
        known = [
            (
                -above * slope,
                "the sign is turned: a draw above the baseline becomes likelier",
            ),
            (
                above * hot,
                "the other scores have a slope, too: log alpha of the drawn "
                "cell falls when they rise",
            ),
            (
                alpha[cell] * above * slope,
                "that is weighted by the cell's probability; drawing it does "
                "that already",
            ),
            (
                (rewards - baseline) * slope,
                "the reward is one number, that of the drawn cell",
            ),
        ]
        if baseline:
            known += [
                (
                    (rewards[cell] + baseline) * slope,
                    "the baseline is subtracted from the reward",
                ),
                (rewards[cell] * slope, "the baseline is left out"),
            ]
        got = call(estimate, alpha, rewards, cell, baseline)
        got = tensor(got, alpha.shape, "the estimate")
        compare(got, above * slope, known, what="the estimate")
    return "weighted by alpha, the four of them add up to exercise 13.1."


def exercise_3(baselines) -> str:
    """A moving average that doesn't know what comes."""
    for rewards in ([-20.0, -12.0, -15.0, -9.0], [-7.0, -8.0, -3.0, -2.0, -1]):
        _baselines(baselines, torch.tensor(rewards))
    return "b_k = 0.9 b_(k-1) + 0.1 of the reward, used before it is updated."


def _baselines(baselines, rewards: Tensor) -> None:
    K = len(rewards)

    def averages(keep: float, first: float = 0.0) -> Tensor:
        found, b = [], first
        for reward in rewards.tolist():
            found.append(b)
            b = keep * b + (1 - keep) * reward
        return torch.tensor([*found, b])

    got = call(baselines, rewards)
    if isinstance(got, (list, tuple)):
        got = torch.tensor([number(each, "each baseline") for each in got])
    got = tensor(
        got,
        (K,),
        "the row of baselines",
        known={(K + 1,): "there is one for each batch, the first of them 0"},
    )
    right = averages(0.9)
    compare(
        got.double(),
        right[:K].double(),
        [
            (
                right[1:],
                "each has its own batch's reward in it already: a baseline "
                "must not depend on what was drawn, so update it afterwards",
            ),
            (
                averages(0.1)[:K],
                "0.9 and 0.1 are swapped: most of the old average stays",
            ),
            (
                averages(0.9, first=float(rewards[0]))[:K],
                "the first baseline is 0, before anything was seen",
            ),
            (
                torch.tensor([0.0, *averages(0.9, float(rewards[0]))[1:K]]),
                "in yours the average begins with the first reward; it begins "
                "with 0, and takes in a tenth of the first reward, too",
            ),
            (
                rewards.cumsum(0) / torch.arange(1, K + 1),
                "that is the plain mean; a moving average forgets slowly, "
                "because the rewards rise as the model learns",
            ),
        ],
        what="the row of baselines",
    )


def exercise_4(weights_of) -> str:
    """The switch, image by image."""
    torch.manual_seed(0)
    for cells, coin in (
        ([2, 0, 3, 1, 1], [True, False, False, True, True]),
        ([5, 0, 4], [False, False, True]),
        ([0, 1, 1], [True, False, True]),
    ):
        P = max(len(cells), max(cells) + 2)  # nobody draws the last
        alpha = torch.rand(len(cells), P).softmax(dim=1)
        cells, coin = torch.tensor(cells), torch.tensor(coin)
        hot = F.one_hot(cells, P).float()
        got = tensor(
            call(weights_of, alpha, cells, coin),
            alpha.shape,
            "the table of weights",
            known={
                (len(cells),): "return the weights of all cells of each image, "
                "(B, P)",
            },
        )
        compare(
            got,
            torch.where(coin[:, None], hot, alpha),
            [
                (
                    torch.where(coin[:, None], alpha, hot),
                    "heads and tails are swapped: True means drawn",
                ),
                (
                    hot,
                    "all images have the drawn cell: those with False keep "
                    "alpha",
                ),
                (
                    alpha,
                    "all images have alpha: those with True look at one cell",
                ),
                (
                    (hot + alpha) / 2,
                    "that is half of each for every image; an image has one or "
                    "the other",
                ),
                (
                    torch.where(coin[:, None], hot * alpha, alpha),
                    "the drawn cell has weight 1, all of the look",
                ),
            ],
            what="the table of weights",
        )
    return "the mean of the values under these weights is the context."


def exercise_5(above_others) -> str:
    """Each draw above the mean of the other draws."""
    for rewards in (
        [[-9.0, -6.0, -12.0, -5.0], [-20.0, -26.0, -18.0, -4.0]],
        [[-3.0, -7.0], [-8.0, -1.0], [-2.0, -2.5]],
        # The same caption drawn twice, and as many draws as captions.
        [[-5.0, -5.0, -2.0], [-4.0, -1.0, -4.0], [-1.0, -8.0, -3.0]],
    ):
        _above_others(above_others, torch.tensor(rewards))
    return "a baseline made for the caption, for the price of more draws."


def _above_others(above_others, rewards: Tensor) -> None:
    total, K = rewards.sum(dim=1, keepdim=True), rewards.shape[1]
    right = rewards - (total - rewards) / (K - 1)
    differs = rewards[:, :, None] != rewards[:, None]
    unequal = (differs * rewards[:, None]).sum(2) / differs.sum(2)
    compare(
        tensor(call(above_others, rewards), rewards.shape, "the table"),
        right,
        [
            (
                rewards - total / K,
                "the draw is part of its own baseline: take the mean of the "
                "others only",
            ),
            (
                rewards - rewards.mean(dim=0),
                "that compares different captions; the other draws of the "
                "same caption are in its row",
            ),
            (-right, "the sign is turned: the draw minus the others"),
            (
                (total - rewards) / (K - 1),
                "these are the baselines; subtract them from the rewards",
            ),
            (
                rewards - unequal,
                "another draw with the same reward is one of the others, too: "
                "leave a draw out by its place, not by its value",
            ),
            (
                rewards - (total - rewards) / K,
                "there are K - 1 others to divide by",
            ),
            (
                rewards - rewards.mean(),
                "a hard caption would never do well: each row has a baseline "
                "of its own",
            ),
        ],
        what="the table",
    )
