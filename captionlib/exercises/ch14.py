"""Chapter 14, rewarding whole captions: gradient, baseline, log p, entropy."""

from __future__ import annotations

import math

import torch

from captionlib.exercises.answers import also, call, compare, number, tensor


def exercise_1(exact_gradient) -> str:
    """The gradient of the expected reward, for a softmax over captions."""
    logits = torch.tensor([0.3, -0.8, 1.1, 0.0])
    rewards = torch.tensor([2.0, 5.0, 1.0, 3.5])
    p = logits.softmax(dim=0)
    right = p * (rewards - p @ rewards)
    got = tensor(
        call(exact_gradient, logits, rewards),
        (4,),
        "the gradient",
        known={
            (): "one number came back: the expected reward itself, perhaps; "
            "return its slope along each logit"
        },
    )
    compare(
        got,
        right,
        [
            (
                -right,
                "the sign is turned: this would make the reward fall",
            ),
            (
                p * rewards,
                "a logit also lowers the probability of all other captions: "
                "subtract the expected reward from each reward",
            ),
            (
                rewards - p @ rewards,
                "each caption pulls as often as it is drawn: its probability "
                "is missing",
            ),
            (
                p * (rewards - rewards.mean()),
                "subtract the expected reward, which weights each reward by "
                "its probability; this is their plain mean",
            ),
            (
                rewards,
                "that is the gradient along the probabilities; they come from "
                "a softmax of the logits",
            ),
        ],
        what="the gradient",
    )

    def gradient(logits, rewards):
        p = logits.softmax(dim=0)
        return p * (rewards - p @ rewards)

    cases = ((torch.randn(k), 3 * torch.randn(k)) for k in (1, 2, 3, 7))
    also(exact_gradient, gradient, *cases, what="the gradient")
    return "captions better than expected rise, the others fall."


def exercise_2(gains_over_greedy) -> str:
    """Gains over the greedy caption's reward."""
    scores = torch.tensor(
        [[10.0, 40.0, 25.0], [70.0, 30.0, 80.0], [5.0, 5.0, 50.0]]
    )
    greedy = torch.tensor([25.0, 60.0, 5.0])
    got = tensor(call(gains_over_greedy, scores, greedy), (3, 3), "the gains")
    others = (scores.sum(dim=1, keepdim=True) - scores) / 2
    compare(
        got,
        scores - greedy[:, None],
        [
            (
                scores - greedy,
                "the greedy scores are one for each image, and images are "
                "rows; subtracted like this, they go along the columns",
            ),
            (greedy[:, None] - scores, "the sign is turned"),
            (
                (scores - greedy[:, None]).clamp(min=0),
                "captions worse than the greedy one should become less "
                "likely: their gains are negative",
            ),
            (scores - others, "that compares with the other samples"),
            (
                scores - scores.mean(dim=1, keepdim=True),
                "that compares with the mean of the samples",
            ),
            (
                scores / greedy[:, None],
                "that is a ratio; a gain is a difference",
            ),
            (
                (scores - greedy[:, None]).sign(),
                "how much better counts, not just whether",
            ),
        ],
        what="the gains",
    )
    shapes = (1, 1), (2, 2), (1, 4), (5, 2)
    cases = ((torch.randn(B, n), torch.randn(B)) for B, n in shapes)
    also(
        gains_over_greedy,
        lambda scores, greedy: scores - greedy[:, None],
        *cases,
        what="the gains",
    )
    return "a draw that is as good as the greedy caption teaches nothing."


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
        "the log-probabilities",
        known={
            (3, 4): "there is a number for each word yet: add up those of a "
            "caption",
            (): "one number came back; each caption has its own",
        },
    )
    best = (log_probs.amax(dim=2) * real).sum(dim=1)
    early = torch.arange(4) < lengths[:, None] - 1
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
        for T, V, counts in ((1, 3, [1]), (5, 2, [3, 5]), (6, 4, [2, 1, 4, 2]))
    )
    also(log_p, total, *cases, what="the log-probability of each caption")
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

    cases = (
        (torch.randn(V), never)
        for V, never in ((3, []), (2, [1]), (9, [8, 0, 3]), (5, [0, 1]))
    )
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
