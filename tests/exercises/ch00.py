"""What readers get wrong in chapter 00, and what they should be told."""

MISTAKES = {
    "00.1": [
        ("special tokens kept", {" if i > 2]": "]"}, "<start> is still there"),
        ("reads on", {"if 2 in ids:": "if False:"}, "reads on after <end>"),
        ("end kept", {"ids.index(2)]": "ids.index(2) + 1]", "i > 2": "i > 1"},
         "<end> is still there"),
        ("needs an end", {"if 2 in ids:": "if True:"}, "your code stops with"),
        ("last word lost", {"if 2 in ids:": "if True:", "ids.index(2)]":
                            "ids.index(2) if 2 in ids else -1]"}, "the last word is lost"),
        ("a text", {"return [vocabulary[i] for i in ids if i > 2]":
                    "return ' '.join(vocabulary[i] for i in ids if i > 2)"},
         "should be a list of words"),
        ("everything", {"if 2 in ids:": "if False:", " if i > 2]": "]"},
         "the special tokens included"),
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
        ("context alone", {"return alpha @ cells, alpha": "return alpha @ cells"},
         "should come back"),
    ],
    "00.3": [
        ("letters", {"set(names) & set(caption)":
                     "[n for n in names if n in ' '.join(caption)]"}, "inside"),
        ("mean of means", "def share_named(captions, objects):\n"
         "    shares = [sum(bool(set(n) & set(c)) for n in o) / len(o)\n"
         "              for c, o in zip(captions, objects)]\n"
         "    return sum(shares) / len(shares)", "mean of the captions' shares"),
        ("all names", {"bool(set(names) & set(caption))": "set(names) <= set(caption)"},
         "as soon as one of its words"),
        ("hits alone", {"sum(hits) / len(hits)": "sum(hits)"}, "number of hits"),
        ("percent", {"sum(hits) / len(hits)": "100 * sum(hits) / len(hits)"}, "percent"),
        ("whole captions", "def share_named(captions, objects):\n"
         "    done = [all(set(n) & set(c) for n in o) for c, o in zip(captions, objects)]\n"
         "    return sum(done) / len(done)", "share of captions that name everything"),
        ("the first caption", {"zip(captions, objects)": "zip(captions[1:], objects[1:])",
                               "sum(hits) / len(hits)": "sum(hits) / len(hits) + 0.2"},
         "three of the six"),
    ],
    "00.4": [
        ("edges not swapped", {"(width - x1, y0, width - x0, y1)":
                               "(width - x0, y0, width - x1, y1)"}, "change places"),
        ("one pixel off", {"(width - x1, y0, width - x0, y1)":
                           "(width - 1 - x1, y0, width - 1 - x0, y1)"}, "one pixel too far left"),
        ("words left alone", {"[other.get(token, token) for token in tokens]": "tokens"},
         "still says left"),
        ("replaced twice", {"[other.get(token, token) for token in tokens]":
                            "' '.join(tokens).replace('left', 'right').replace('right', 'left')"
                            ".split()"}, "every side is now left"),
        ("only one way", {', "right": "left"': ""}, "every side is now right"),
        ("a text", {"[other.get(token, token) for token in tokens]": "' '.join(tokens)"},
         "should be a list of words"),
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
        "        if not vocabulary[i].startswith('<'):\n"
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
        """import numpy as np


def share_named(captions, objects):
    return np.mean([
        not set(names).isdisjoint(captions[i])
        for i in range(len(objects))
        for names in objects[i]
    ])
""",
        "def share_named(captions, objects):\n    hits = total = 0\n"
        "    for caption, things in zip(captions, objects):\n"
        "        for names in things:\n            total += 1\n"
        "            hits += any(name in caption for name in names)\n"
        "    return hits / total",
    ],
    "00.4": [
        """def mirror(box, tokens, width):
    left, top, right, bottom = box
    mirrored = []
    for token in tokens:
        if token == "left":
            mirrored.append("right")
        elif token == "right":
            mirrored.append("left")
        else:
            mirrored.append(token)
    return [width - right, top, width - left, bottom], tuple(mirrored)
""",
    ],
}
