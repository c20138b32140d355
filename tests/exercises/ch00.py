"""What readers get wrong in chapter 00, and what they should be told."""

PREFIXES = """from collections import Counter


def lowest(captions):
    begun, pairs = Counter(), Counter()
    for caption in captions:
        for t, word in enumerate(caption):
            key = {}
            begun[key] += 1
            pairs[key, word] += 1
    nats = sum(n * math.log(begun[key] / n) for (key, _), n in pairs.items())
    return nats / sum(map(len, captions))
"""
MISTAKES = {
    "00.1": [
        ("special tokens kept", {" if i > 2]": "]"}, "<start> is still there"),
        ("reads on", {"if 2 in ids:": "if False:"}, "reads on after <end>"),
        ("end kept", {"ids.index(2)]": "ids.index(2) + 1]", "i > 2": "i > 1"},
         "<end> is still there"),
        ("needs an end", {"if 2 in ids:": "if True:"}, "your code stops"),
        ("last word lost", {"if 2 in ids:": "if True:", "ids.index(2)]":
                            "ids.index(2) if 2 in ids else -1]"}, "the last word is lost"),
        ("a text", {"return [vocabulary[i] for i in ids if i > 2]":
                    "return ' '.join(vocabulary[i] for i in ids if i > 2)"},
         "should be a list of words"),
        ("everything", {"if 2 in ids:": "if False:", " if i > 2]": "]"},
         "the special tokens included"),
        ("every bracket dropped", {" if i > 2]": " if vocabulary[i][0] != '<']"},
         "is lost"),
    ],
    "00.2": [
        ("no exponential", {"scores.softmax(dim=0)": "scores / scores.sum()"},
         "divided by their sum: a negative"),
        ("not normalised", {"scores.softmax(dim=0)": "scores.exp()"}, "have to add up to 1"),
        ("sigmoid", {"scores.softmax(dim=0)": "scores.sigmoid()"}, "do not compete"),
        ("the best cell", {"scores.softmax(dim=0)": "(scores == scores.max()).float()"},
         "no gradient"),
        ("plain mean", {"alpha @ cells": "cells.mean(dim=0)"}, "the plain mean"),
        ("not added up", {"alpha @ cells": "alpha[:, None] * cells"}, "one vector a cell"),
        ("the scores", {"alpha @ cells": "scores @ cells"}, "weighted with the scores"),
        ("swapped", {"return alpha @ cells, alpha": "return alpha, alpha @ cells"},
         "the other order"),
        ("squeezed", {"return alpha @ cells": "return (alpha @ cells).squeeze()"},
         "has the shape (), expected (1,)"),
        ("context alone", {"return alpha @ cells, alpha": "return alpha @ cells"},
         "should come back"),
    ],
    "00.3": [
        ("as it was", {"target = y[:, t + 1]": "target = y[:, t]", "[real]": ""},
         "both faults"),
        ("shifted only", {"[real]": ""}, "still counts"),
        ("padding only", {"target = y[:, t + 1]": "target = y[:, t]"}, "just read"),
        ("padding in the count", {"torch.stack(nats, dim=1)[real].mean()":
                                  "(torch.stack(nats, dim=1) * real).mean()"}, "is divided"),
        ("a sum", {".mean()": ".sum()"}, "the sum over all words"),
        ("a caption's loss", {".mean()": ".sum() / len(y)"}, "the loss of a caption"),
        ("mean of means", {"torch.stack(nats, dim=1)[real].mean()":
                           "((torch.stack(nats, dim=1) * real).sum(1) / real.sum(1)).mean()"},
         "mean of the captions' means"),
        ("forgets", {"logits, state = step": "logits, _ = step"}, "pass on"),
        ("a vector", {"[real].mean()": ""}, "should be one number"),
        ("the end left out", {"!= 0": "> 2"}, "the loss is not right"),
        ("start in the count", {"[real].mean()": "[real].sum() / (y != 0).sum()"},
         "<start> counts"),
        ("cut as the first caption", {"    nats = []":
                                      "    y = y[:, : int((y[0] != 0).sum())]\n    nats = []"},
         "the loss is not right"),
        ("sure words left out", {"torch.stack(nats, dim=1)[real]": "nats[nats > 0]",
                                 "    real =": "    nats = torch.stack(nats, dim=1)\n    nats ="
                                 " nats * (y[:, 1:] != 0)\n    real ="}, "costs 0"),
    ],
    "00.4": [
        ("a sum", {" / sum(map(len, captions))": ""}, "divide by their number"),
        ("a caption's", {"sum(map(len, captions))": "len(captions)"}, "nats a caption"),
        ("bits", {"math.log(": "math.log2("}, "these are bits"),
        ("negative", {"nats -=": "nats +="}, "mind the sign"),
        ("no end", {"sum(map(len, captions))": "sum(len(c) - 1 for c in captions)"},
         "was left out"),
        ("equal shares", {"begun.count(word) / len(begun)": "1 / len(set(begun))"},
         "an equal share"),
        ("any beginning", {"if c[:t] == caption[:t]": "if len(c) > t"}, "place by place"),
        ("one word back", {"if c[:t] == caption[:t]":
                           "if len(c) > t and c[:t][-1:] == caption[:t][-1:]"},
         "only the last word"),
        ("eight words back", {"if c[:t] == caption[:t]":
                              "if len(c) > t and c[:t][-8:] == caption[:t][-8:]"},
         "two cats in bed"),
        ("prefixes joined", PREFIXES.format("''.join(caption[:t])"), "base ball"),
        ("prefixes sorted", PREFIXES.format("tuple(sorted(caption[:t]))"), "dog and cat"),
        ("mean of means", "def lowest(captions):\n"
         "    own = [math.log(len(captions) / captions.count(c)) / len(c) for c in captions]\n"
         "    return sum(own) / len(own)", "mean of the captions' means"),
        ("nothing", "def lowest(captions):\n    return 0.0", "it is 0, expected"),
    ],
}  # fmt: skip

ALSO_RIGHT = {
    "00.1": [
        """import numpy as np


def to_words(ids, vocabulary):
    ids = np.array(ids)
    kept = (np.cumsum(ids == 2) == 0) & (ids > 2)
    return np.array(vocabulary)[ids[kept]]
""",
        "def to_words(ids, vocabulary):\n    words = []\n    for i in ids:\n"
        "        if vocabulary[i] == '<end>':\n            break\n"
        "        if vocabulary[i] not in ('<pad>', '<start>'):\n"
        "            words.append(vocabulary[i])\n    return words",
    ],
    "00.2": [
        """import math


def look(scores, cells):
    raised = [math.exp(score) for score in scores]
    alpha = [each / sum(raised) for each in raised]
    columns = zip(*cells.tolist())
    return [sum(a * c for a, c in zip(alpha, column)) for column in columns], alpha
""",
        """import numpy as np


def look(scores, cells):
    alpha = np.exp(scores.numpy() - scores.numpy().max())
    alpha /= alpha.sum()
    return alpha @ cells.numpy(), alpha
""",
        "def look(scores, cells):\n    alpha = scores.exp() / scores.exp().sum()\n"
        "    return (alpha[:, None] * cells).sum(dim=0), alpha",
    ],
    "00.3": [
        "def mended(step, state, y):\n    logits = []\n    for words in y.T[:-1]:\n"
        "        scores, state = step(words, state)\n        logits.append(scores)\n"
        "    logits = torch.stack(logits, 2)\n"
        "    return nn.functional.cross_entropy(logits, y[:, 1:], ignore_index=0)",
        """def mended(step, state, y):
    total = count = 0
    for t in range(1, y.shape[1]):
        logits, state = step(y[:, t - 1], state)
        for row, word in zip(logits.log_softmax(dim=1), y[:, t].tolist()):
            if word:
                total, count = total - row[word].item(), count + 1
    return total / count
""",
    ],
    "00.4": [
        "def lowest(captions):\n    n = len(captions)\n"
        "    words = sum(len(c) for c in captions)\n"
        "    return sum(math.log(n / captions.count(c)) for c in captions) / words",
        """import numpy as np
from collections import Counter


def lowest(captions):
    begun = Counter(tuple(c[:t]) for c in captions for t in range(len(c) + 1))
    costs = [
        np.log(begun[tuple(c[:t])] / begun[tuple(c[: t + 1])])
        for c in captions
        for t in range(len(c))
    ]
    return np.mean(costs)
""",
    ],
}
