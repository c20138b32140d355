"""Chapter 14, rewarding whole captions: baseline, faults, log p, entropy."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from captionlib.exercises.answers import (
    Wrong,
    also,
    call,
    close,
    compare,
    number,
    tensor,
)


def exercise_1(best_baseline) -> str:
    """The constant baseline with the least variance."""

    def parts(logits, rewards):
        p = logits.softmax(dim=0)
        return p, (torch.eye(len(p)) - p).square().sum(dim=1), rewards

    def mean(weights, rewards):
        return float(weights @ rewards / weights.sum())

    def best(logits, rewards):
        p, squares, rewards = parts(logits, rewards)
        return mean(p * squares, rewards)

    logits = torch.tensor([0.3, -0.8, 1.1, 0.0])
    rewards = torch.tensor([2.0, 5.0, 1.0, 3.5])
    p, squares, _ = parts(logits, rewards)
    got = number(call(best_baseline, logits, rewards), "the baseline")
    compare(
        got,
        best(logits, rewards),
        [
            (
                mean(p, rewards),
                "that is the expected reward: good, but some captions pull "
                "harder than others when they are drawn",
            ),
            (
                float(rewards.mean()),
                "that is the plain mean: some captions are drawn more often "
                "than others",
            ),
            (
                mean(squares, rewards),
                "how often a caption is drawn counts, too: its probability is "
                "missing",
            ),
            (
                mean(p * squares.sqrt(), rewards),
                "variance is a mean of squares: square the lengths of the "
                "pulls",
            ),
            (
                mean(p * (1 - p).square(), rewards),
                "a draw pulls at all K logits: square all K entries of its "
                "gradient, not only that of its own logit",
            ),
            (
                float((p * squares) @ rewards),
                "these weights don't add up to 1: divide by their sum",
            ),
        ],
        what="the baseline",
    )
    cases = ((torch.randn(k), 3 * torch.randn(k)) for k in (2, 3, 7))
    also(best_baseline, best, *cases, what="the baseline")
    return "it is near the expected reward, and a little better."


def exercise_2(mended) -> str:
    """The loss of self-critical training, with two faults."""

    def loss(log_p, scores, sign=-1, dim=1, others=False):
        mean = scores.mean() if dim is None else scores.mean(dim, keepdim=True)
        gains = scores - mean
        if others:
            gains = gains * scores.shape[1] / (scores.shape[1] - 1)
        return sign * (gains * log_p).mean()

    for B, n in ((3, 4), (2, 2), (5, 3), (4, 4), (1, 6)):
        log_p = -5 * torch.rand(B, n) - 1
        scores = 100 * torch.rand(B, 1) + 20 * torch.rand(B, n)
        found = call(mended, log_p, scores)
        got = tensor(found, (), "the loss")
        right = loss(log_p, scores)
        alone = loss(log_p, scores, others=True)
        if close(got, alone, 1e-4):
            right = alone
        gains = scores - scores.mean(dim=1, keepdim=True)
        compare(
            got,
            right,
            [
                (loss(log_p, scores, 1, None), "both faults are still there"),
                (
                    -right,
                    "the better a caption, the less likely this makes it: "
                    "minimising the loss should raise the log-probability of "
                    "those with a gain",
                ),
                (
                    loss(log_p, scores, dim=None),
                    "the mean is that of all images: a poor caption of an easy "
                    "image still has a gain",
                ),
                (
                    loss(log_p, scores, dim=0),
                    "that compares captions of different images: the axis of "
                    "an image's captions is the second",
                ),
                (
                    -(scores * log_p).mean(),
                    "nothing is subtracted: every caption drawn becomes likelier",
                ),
                (
                    right * n,
                    "that is n times the loss: an image's captions are added "
                    "up; take the mean over all B times n",
                ),
                (
                    alone * n,
                    "that is n times the loss: an image's captions are added "
                    "up; take the mean over all B times n",
                ),
                (
                    -(gains * log_p).sum(),
                    "a sum came back; the mean over captions does not depend "
                    "on how many there are",
                ),
            ],
            what="the loss",
            tolerance=1e-4,
        )
        if isinstance(found, Tensor):
            size = float(right / loss(log_p, scores)) / log_p.numel()
            _trains(mended, log_p, scores, -size * gains)
    return "less than its image's mean: less likely. More: likelier."


def _trains(mended, log_p: Tensor, scores: Tensor, right: Tensor) -> None:
    """Refuse a loss of the right value that has not the right gradient."""
    log_p.requires_grad_()
    try:
        found = call(mended, log_p, scores)
        (slope,) = torch.autograd.grad(found, log_p)
    except (Wrong, RuntimeError):  # no gradient, or none for `log_p`
        raise Wrong(
            "the value is right, but no gradient reaches `log_p`, so nothing "
            "would be trained: is it detached, or computed under `no_grad`?"
        ) from None
    compare(slope, right, what="the gradient along `log_p`", tolerance=1e-4)


def exercise_3(log_p) -> str:
    """Log-probabilities of captions of different lengths."""
    generator = torch.Generator().manual_seed(3)
    log_probs = torch.randn(3, 4, 5, generator=generator).log_softmax(dim=2)
    words = torch.tensor([[1, 4, 0, 0], [2, 2, 3, 4], [4, 0, 0, 0]])
    lengths = torch.tensor([2, 4, 1])
    taken = log_probs.gather(2, words[:, :, None]).squeeze(2)
    real = torch.arange(4) < lengths[:, None]
    right = (taken * real).sum(dim=1)
    got = tensor(
        call(log_p, log_probs, words, lengths),
        (3,),
        "the row of log-probabilities",
        known={
            (3, 4): "there is a number for each word yet: add up those of a "
            "caption",
            (): "one number came back; each caption has its own",
        },
    )
    best = (log_probs.amax(dim=2) * real).sum(dim=1)
    early = torch.arange(4) < lengths[:, None] - 1
    later = log_probs[:, :-1].gather(2, words[:, 1:, None]).squeeze(2)
    before = log_probs[:, 1:].gather(2, words[:, :-1, None]).squeeze(2)
    shifted = (
        "words and steps are shifted by one: `words` begins after `<start>`, "
        "and step t is where word t was drawn"
    )
    compare(
        got,
        right,
        [
            (
                taken.sum(dim=1),
                "the padding after a caption counts in yours",
            ),
            (
                right / lengths,
                "that is a mean over the words; the probability of a caption "
                "is a product, its logarithm a sum",
            ),
            (right.exp(), "these are probabilities; leave them as logarithms"),
            (-right, "the sign is turned: log-probabilities are negative"),
            (
                best,
                "these are the likeliest words at each place, not those of "
                "the captions",
            ),
            ((later * early[:, :3]).sum(dim=1), shifted),
            ((before * real[:, 1:]).sum(dim=1), shifted),
            (
                (taken * early).sum(dim=1),
                "the last word, `<end>`, is missing: it was drawn, too",
            ),
        ],
        what="the log-probability of each caption",
    )

    def total(log_probs, words, lengths):
        captions = zip(log_probs, words, lengths.tolist(), strict=True)
        return torch.stack(
            [
                sum(steps[t, ids[t]] for t in range(length))
                for steps, ids, length in captions
            ]
        )

    cases = (
        (
            torch.randn(len(counts), T, V).log_softmax(dim=2),
            torch.randint(V, (len(counts), T)),
            torch.tensor(counts),
        )
        for T, V, counts in (
            (1, 3, [1]),
            (5, 2, [3, 5]),
            (6, 4, [2, 1, 4, 2]),
            (1, 4, [1, 1, 1]),
            (60, 9, [57, 60]),  # a probability too small for a float
        )
    )
    also(log_p, total, *cases, what="the log-probability of each caption")
    # Padding that can't be drawn, as in chapter 14's sampling.
    logits = torch.randn(3, 5, 4)
    logits[:, :, 0] = -torch.inf
    counts = torch.tensor([2, 5, 4])
    words = torch.randint(1, 4, (3, 5))
    words[torch.arange(5) >= counts[:, None]] = 0
    never = logits.log_softmax(dim=2), words, counts
    found = call(log_p, *never)
    if isinstance(found, Tensor) and found.isnan().any():
        raise Wrong(
            "nan comes out where padding has the log-probability minus "
            "infinity, since 0 times it is nan, too: leave the padding out, by "
            "`torch.where` for example"
        )
    also(log_p, total, never, what="the log-probability of each caption")
    return "times the gain, and averaged, it is the loss with its sign turned."


def exercise_4(entropy) -> str:
    """Entropy over the words that may be drawn."""
    logits = torch.tensor([2.0, 0.5, 0.5, -1.0, 0.0, 3.0])
    never = [0, 5]
    kept = logits[1:5].log_softmax(dim=0)
    right = float(-(kept.exp() * kept).sum())
    whole = logits.log_softmax(dim=0)
    left = whole[1:5]
    got = number(call(entropy, logits, never), "the entropy")
    compare(
        got,
        right,
        [
            (
                float(-(whole.exp() * whole).sum()),
                "the words that are never drawn still have probability",
            ),
            (
                float(-(left.exp() * left).sum()),
                "without those words, the probabilities of the others no "
                "longer add up to 1: rule them out before the softmax",
            ),
            (-right, "the sign is turned: entropy is never negative"),
            (right / math.log(2), "that is in bits; use the natural logarithm"),
            (
                float(-kept.mean()),
                "average over what is drawn: each word counts by its "
                "probability",
            ),
            (
                math.exp(right),
                "that is the number of words it hesitates between, the "
                "exponential of the entropy",
            ),
        ],
        otherwise=f"the entropy is {right:.4f} nats, and yours is {got:.4f}",
    )

    def nats(logits, never):
        p = [x for i, x in enumerate(logits.tolist()) if i not in never]
        return torch.special.entr(torch.tensor(p).softmax(dim=0)).sum().item()

    cases = [
        (torch.randn(V), never)
        for V, never in ((3, []), (2, [1]), (9, [8, 0, 3]), (5, [0, 1]))
    ]
    # Nearly all the probability is that of a word that is never drawn.
    cases.append((torch.tensor([25.0, 0.0, 0.0, 0.3]), [0]))
    also(entropy, nats, *cases, what="the entropy")
    sure = number(
        call(entropy, torch.tensor([0.0, 200.0, 0.0, 0.0]), [3]), "the entropy"
    )
    compare(
        sure,
        0.0,
        otherwise="a model that is certain has entropy 0: a word of "
        f"probability 0 adds nothing; yours is {sure:.4f}",
    )
    return "its exponential is about how many words it hesitates between."
