"""What readers get wrong in chapter 05, and what they should be told."""

MASK = "nll[real.flatten()].mean()"
CLEAR = "    optimizer.zero_grad()\n    loss = loss_of(model)\n"
BACK = "    loss.backward()\n"
CLIP = "    nn.utils.clip_grad_norm_(model.parameters(), limit)\n"
STEP = "    optimizer.step()\n"

MISTAKES = {
    "05.1": [
        ("padding counted", {"nll[real.flatten()]": "nll"}, "the padding is in the mean"),
        ("divided by all places", {MASK: "(nll * real.flatten()).mean()"},
         "divided by all places"),
        ("a mean of means", {MASK: "((nll.view_as(targets) * real).sum(1) / decode_lengths)"
                                   ".mean()"}, "a mean of means"),
        ("the sum", {".mean()": ".sum()"}, "that is the sum"),
        ("one step too many", {" < decode": " <= decode"}, "one step too many"),
        ("one step too few", {"decode_lengths.unsqueeze(1)": "decode_lengths.unsqueeze(1) - 1"},
         "one step too few"),
        ("softmax twice", {"logits.flatten(0, 1)": "logits.flatten(0, 1).softmax(dim=1)"},
         "a softmax too many"),
        ("softmax over the steps", "def padded_loss(logits, targets, decode_lengths):\n"
         "    log_probs = logits.log_softmax(dim=1)\n"
         "    nll = -log_probs.gather(2, targets.unsqueeze(2)).squeeze(2)\n"
         "    real = torch.arange(targets.shape[1]) < decode_lengths.unsqueeze(1)\n"
         "    return nll[real].mean()", "over the steps"),
        ("classes last", {"logits.flatten(0, 1), targets.flatten()": "logits, targets"},
         "your code stops"),
        ("per caption", {".mean()": ".sum() / len(targets)"}, "number of captions"),
        ("no minus", {"return ": "return -"}, "the sign"),
        ("no reduction", {".mean()": ""}, "one number should come back"),
        ("padding guessed", {"reduction=\"none\"": "ignore_index=0, reduction=\"none\""},
         "0 is taken for padding"),
    ],
    "05.2": [
        ("clipped early", {BACK + CLIP: CLIP + BACK},
         "after backward, which makes them"),
        ("the graph kept", {"loss.item()": "loss"}, "still has its graph"),
        ("never cleared", {"    optimizer.zero_grad()\n": ""}, "gradients of earlier batches"),
        ("no step", {STEP: ""}, "no weight has moved"),
        ("each number clipped", {"grad_norm_": "grad_value_"}, "each number of the gradients"),
        ("a limit of its own", {"(), limit)": "(), 5.0)"}, "with limit = 1.0"),
    ],
    "05.3": [
        ("each by itself", "def clip(gradients, max_norm):\n"
         "    return [g * min(1, max_norm / (g.norm() + 1e-9)) for g in gradients]",
         "each tensor was clipped"),
        ("each number", "def clip(gradients, max_norm):\n"
         "    return [g.clamp(-max_norm, max_norm) for g in gradients]", "each number was clipped"),
        ("longer, too", {"min(1.0, max_norm / length)": "max_norm / length"}, "made longer"),
        ("no root", {"torch.sqrt(sum(gradient.square().sum() for gradient in gradients))":
                     "sum(gradient.square().sum() for gradient in gradients)"}, "is 169"),
        ("lengths added", {"torch.sqrt(sum(gradient.square().sum() for gradient in gradients))":
                           "sum(gradient.norm() for gradient in gradients)"}, "5 + 12"),
        ("length one", {"max_norm / length": "1 / length"}, "should be max_norm"),
        ("in place", {"gradient * factor for": "gradient.mul_(factor) for"}, "in place"),
        ("nothing", {"gradient * factor": "gradient"}, "were not shortened"),
        ("no limit of 0", {"min(1.0, max_norm / length)":
                           "min(1.0, (max_norm or length) / length)"}, "max_norm = 0.0"),
        ("zeros", {"min(1.0, max_norm / length)":
                   "max_norm / length if length > max_norm else length / length"}, "holds nan"),
    ],
    "05.4": [
        ("never begins again", {"cut, stale = cut + 1, 0": "cut += 1", "==": ">="},
         "in every stale epoch"),
        ("once only", {"cut, stale = cut + 1, 0": "cut += 1"}, "this stops at one"),
        ("as good is better", {"score > best": "score >= best"}, "as good is not better"),
        ("the one before", {"            best, stale = score, 0\n        else:":
                            "            stale = 0\n        else:",
                            "    return cut": "        best = score\n    return cut"},
         "compared with the one before"),
        ("one too late", {"stale == decay_after": "stale > decay_after"}, "that is one cut"),
        ("one too early", {"stale == decay_after": "stale == decay_after - 1"},
         "it takes three"),
        ("never anew", {"best, stale = score, 0": "best = score"}, "the 6 begins the count"),
        ("every epoch", {"score > best": "score < best"}, "only get better"),
        ("whole numbers", {"in scores": "in map(round, scores)"}, "however little"),
        ("a threshold", {"score > best": "score > best * (1 + 1e-4)"},
         "20.0, 20.001, 20.0: the second is better"),
        ("a factor", {"return cut": "return 0.8**cut"}, "should be a whole number"),
    ],
    "05.5": [
        ("one coin", {"torch.rand(len(true_words))": "torch.rand(1)"}, "for the whole batch"),
        ("the other way", {"< p": "> p"}, "share of the model's own"),
        ("a fair coin", {"< p": "< 0.5"}, "the coin is fair"),
        ("never", {"torch.rand(len(true_words)) < p": "torch.zeros(len(true_words)) > p"},
         "is never taken"),
        ("a mean of ids", {"torch.where(own, own_words, true_words)":
                           "(p * own_words + (1 - p) * true_words).long()"}, "neither its true"),
        ("normal numbers", {"torch.rand(": "torch.randn("}, "with p = 0.2 it takes"),
        ("a fixed number", "def next_input(true_words, own_words, p):\n"
         "    result = true_words.clone()\n"
         "    own = torch.randperm(len(result))[: round(p * len(result))]\n"
         "    result[own] = own_words[own]\n    return result", "independently"),
        ("a random number of the first", {"torch.rand(len(true_words)) < p":
         "torch.arange(len(true_words)) < (torch.rand(len(true_words)) < p).sum()"},
         "the same chance"),
        ("a coin for two", {"torch.rand(len(true_words))":
         "torch.rand(len(true_words)).repeat_interleave(2)[: len(true_words)]"},
         "captions 2 and 3 don't get"),
        ("two from one number", {"    own =": "    drawn = torch.rand((len(true_words) + 1) // 2)\n"
                                 "    drawn = torch.cat([drawn, 1 - drawn])\n    own =",
                                 "torch.rand(len(true_words))": "drawn[: len(true_words)]"},
         "captions 2 and 6 don't get"),
        ("tenths", {"torch.rand(len(true_words)) < p":
                    "torch.randint(10, (len(true_words),)) < p * 10"}, "with p = 0.25 it takes"),
        ("per cents", {"torch.rand(len(true_words)) < p":
                       "torch.randint(100, (len(true_words),)) < p * 100"}, "whole per cent"),
        ("as in the step before", "before = {}\n\n\ndef next_input(true_words, own_words, p):\n"
         "    n = len(true_words)\n    new = torch.rand(n)\n    old = before.get(n, new)\n"
         "    before[n] = torch.where(torch.rand(n) < 0.5, new, old)\n"
         "    return torch.where(before[n] < p, own_words, true_words)", "in the step before"),
        ("seeded", {"    own =": "    torch.manual_seed(0)\n    own ="}, "draw again"),
    ],
}  # fmt: skip

ALSO_RIGHT = {
    "05.1": [
        """import numpy as np


def padded_loss(logits, targets, decode_lengths):
    logits = logits.double().numpy()
    log_probs = logits - np.log(np.exp(logits).sum(axis=2, keepdims=True))
    total = [
        log_probs[i, t, targets[i, t]]
        for i, n in enumerate(decode_lengths.tolist())
        for t in range(n)
    ]
    return -np.mean(total)
""",
        "def padded_loss(logits, targets, decode_lengths):\n    total = 0\n"
        "    for row, words, n in zip(logits, targets, decode_lengths):\n"
        "        total += F.cross_entropy(row[:n], words[:n], reduction='sum')\n"
        "    return total / decode_lengths.sum()",
        "from torch.nn.utils.rnn import pack_padded_sequence\n\n\n"
        "def padded_loss(logits, targets, decode_lengths):\n"
        "    said, words = (pack_padded_sequence(x, decode_lengths, True, enforce_sorted=False)\n"
        "                   for x in (logits, targets))\n"
        "    return F.cross_entropy(said.data, words.data)",
    ],
    "05.3": [
        """import numpy as np


def clip(gradients, max_norm):
    arrays = [gradient.double().numpy() for gradient in gradients]
    length = np.sqrt(sum((array**2).sum() for array in arrays))
    return tuple(array * (max_norm / max(length, max_norm)) for array in arrays)
""",
        "def clip(gradients, max_norm):\n"
        "    length = torch.cat([g.flatten() for g in gradients]).norm()\n"
        "    if length <= max_norm:\n        return gradients\n"
        "    return [g * max_norm / length for g in gradients]",
    ],
    "05.4": [
        """def cuts(scores, decay_after):
    cut = since = 0
    for n in range(len(scores)):
        if n == 0 or scores[n] > max(scores[:n]):
            since = n
        elif n - since == decay_after:
            cut, since = cut + 1, n
    return cut
""",
        "def cuts(scores, decay_after):\n    stale = [n - scores.index(max(scores[: n + 1]))\n"
        "             for n in range(len(scores))]\n"
        "    return sum(s > 0 and s % decay_after == 0 for s in stale)",
    ],
    "05.5": [
        """import random


def next_input(true_words, own_words, p):
    return [
        int(own) if random.random() < p else int(true)
        for true, own in zip(true_words, own_words)
    ]
""",
        """import numpy as np


def next_input(true_words, own_words, p):
    own = np.random.default_rng().random(len(true_words)) < p
    return np.where(own, own_words.numpy(), true_words.numpy())
""",
        {
            "torch.rand(len(true_words)) < p": "torch.full((len(true_words),), p).bernoulli() > 0"
        },
    ],
    "05.2": [
        {"loss.item()": "loss.detach()"},
        {CLEAR: "    loss = loss_of(model)\n    model.zero_grad()\n"},
        {
            "loss.item()": "float(loss)",
            STEP: STEP + "    optimizer.zero_grad()\n",
        },
    ],
}
