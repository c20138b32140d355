"""Chapter 00: back to words, one look, how much was named, a mirrored scene."""

from __future__ import annotations

import numpy as np
import torch

from captionlib.exercises.answers import (
    Wrong,
    also,
    call,
    compare,
    describe,
    items,
    number,
    parts,
    shown,
    tensor,
    words,
)


def exercise_1(to_words) -> str:
    """From numbers back to words."""
    vocabulary = ["<pad>", "<start>", "<end>", "a", "dog", "on", "grass"]
    ids = [1, 3, 4, 2, 4, 5, 6, 0]
    got = words(call(to_words, ids, vocabulary))
    compare(
        got,
        ["a", "dog"],
        [
            (
                ["<start>", "a", "dog"],
                "<start> is still there: it was read, not written",
            ),
            (
                ["a", "dog", "<end>"],
                "<end> is still there: it closes the caption and is no word "
                "of it",
            ),
            (
                ["<start>", "a", "dog", "<end>"],
                "<start> and <end> are still there",
            ),
            (
                ["a", "dog", "dog", "on", "grass"],
                "it reads on after <end>: whatever a decoder says after it "
                "has finished is noise",
            ),
            (
                [vocabulary[i] for i in ids],
                "every number became a word, the special tokens included",
            ),
            (["a"], "one word too few: the last word before <end> is missing"),
        ],
    )
    compare(
        words(call(to_words, [1, 5, 6], vocabulary)),
        ["on", "grass"],
        [
            (
                ["on"],
                "without an <end>, the last word is lost: a caption that was "
                "cut off keeps all its words",
            ),
            ([], "a caption without <end> loses all its words"),
        ],
        what="a caption without <end>",
    )

    def right(ids, vocabulary):
        ended = [*ids, 2].index(2)
        return [vocabulary[i] for i in ids[:ended] if i > 2]

    longer = [*vocabulary[:3], *"two red cats sit there".split()]
    also(
        lambda *given: words(to_words(*given)),
        right,
        ([1, 3, 4, 5, 2, 7], longer),
        ([7, 4, 3, 6, 2, 3, 2, 0], longer),
        ([1, 0, 5, 1, 4, 2], vocabulary),
        ([4, 4, 4], vocabulary),
        ([1, 5, 2, 6, 0], vocabulary),
        ([1, 2, 0, 0], vocabulary),
        what="the list of words",
    )
    return "the first <end> counts, and a caption without one is kept whole."


def exercise_2(look) -> str:
    """Softmax weights and a weighted average."""
    scores = torch.tensor([2.0, -1.0, 0.5])
    cells = torch.tensor([[1.0, 0.0], [0.0, 4.0], [-2.0, 3.0]])
    context, alpha = parts(
        call(look, scores, cells), "the context", "the weights"
    )
    if [np.shape(each) for each in (context, alpha)] == [(3,), (2,)]:
        raise Wrong("context and weights came back in the other order")
    alpha = tensor(alpha, (3,), "alpha")
    right = scores.softmax(0)
    compare(
        alpha,
        right,
        [
            (
                scores / scores.sum(),
                "the scores were divided by their sum: a negative score gives "
                "a negative weight. Take the exponential first",
            ),
            (
                scores.exp(),
                "the exponentials were not divided by their sum: the weights "
                "have to add up to 1",
            ),
            (
                scores.sigmoid(),
                "each score was squashed on its own: the cells do not compete, "
                "and the weights do not add up to 1",
            ),
            (
                torch.tensor([1.0, 0.0, 0.0]),
                "all the weight lies on the best cell: that has no gradient "
                "from which the scores could be learned",
            ),
            ((-scores).softmax(0), "the worst cell gets most of the weight"),
        ],
        what="alpha",
    )
    compare(
        tensor(context, (2,), "the context", known={
            (3, 2): "the context is still one vector a cell, (3, 2): add the "
            "weighted cells up",
            (3,): "the context has a number for each cell, (3,): it should be a "
            "mixture of cells, (2,)",
        }),
        right @ cells,
        [
            (
                cells.mean(0),
                "the context is the plain mean of the cells; the weights are "
                "not used",
            ),
            (
                cells.sum(0),
                "the cells were added up without their weights",
            ),
            (
                scores @ cells,
                "the cells were weighted with the scores, not with alpha",
            ),
            (
                (right @ cells) / 3,
                "the weights already add up to 1: the division by the number "
                "of cells is one too many",
            ),
            (cells[0], "the context is the best cell alone"),
        ],
        what="the context",
    )  # fmt: skip

    def right_for(scores, cells):
        alpha = scores.softmax(0)
        return alpha @ cells, alpha

    drawn = ((1, 4), (7, 3), (5, 5))
    also(
        look,
        right_for,
        *((torch.randn(P), torch.randn(P, D)) for P, D in drawn),
        what="the answer",
    )
    return "that is all of attention, but for where the scores come from."


def exercise_3(share_named) -> str:
    """How many of the objects do the captions name?"""
    captions = [
        "a balloon left of a bunny".split(),
        "a dog".split(),
        "two dogs and a dog".split(),  # names one object, twice
    ]
    objects = [
        [["ball"], ["rabbit", "bunny", "rabbits"]],
        [["dog", "dogs"]],
        [["dog", "dogs"], ["palm", "tree"], ["car"]],
    ]
    got = number(call(share_named, captions, objects), "the share")
    known = [
        (
            4 / 6,
            '"ball" was found inside "balloon", or an object that is named twice '
            "was counted twice: ask for each object whether any of its words "
            "is among the caption's",
        ),
        (
            (1 / 2 + 1 + 1 / 3) / 3,
            "the mean of the captions' shares counts an object more where "
            "there are few: divide all hits by all objects",
        ),
        (1 / 6, "an object counts as soon as one of its words occurs"),
        (
            1 / 3,
            "this is the share of captions that name everything; every object "
            "counts by itself",
        ),
        (
            1.0,
            "your share is 1, and ball, palm and car are named by nobody: "
            "every object counts, not every caption",
        ),
        (3.0, "this is the number of hits; divide by the number of objects"),
        (50.0, "a share of 1 is everything: leave out the percent"),
    ]
    compare(
        got,
        3 / 6,
        known,
        "three of the six objects are named, and your share is "
        f"{shown(got, 0.5)}",
    )
    if call(share_named, [["a", "cow"]], [[["pig"]]]) != 0:
        raise Wrong("a caption that names nothing should give 0")

    def right(captions, objects):
        named = [
            any(word in captions[i] for word in names)
            for i, things in enumerate(objects)
            for names in things
        ]
        return sum(named) / len(named)

    also(
        share_named,
        right,
        ([["a", "red", "car"]], [[["car", "cars"], ["dog"], ["red"]]]),
        (captions[::-1], objects[::-1]),
        (captions[1:], objects[1:]),
        ([["a"], ["dog"], []], [[], [["dog"], ["cat"]], [["sea", "water"]]]),
        what="the share",
    )
    return "whole words, any name, every object once: a score you can trust."


def exercise_4(mirror) -> str:
    """Mirror the answer sheet."""
    caption = "a dog to the left of a tree and right of two left shoes".split()
    result = call(mirror, (0, 2, 3, 9), caption, 10)
    box, tokens = parts(result, "the new box", "the new words")
    if np.shape(box) != (4,):
        raise Wrong(f"the box should be four numbers, but is {describe(box)}")
    compare(
        items(box),
        [7, 2, 10, 9],
        [
            (
                [10, 2, 7, 9],
                "the box's left edge lies right of its right edge: mirrored, "
                "the two edges change places",
            ),
            (
                [6, 2, 9, 9],
                "the box is one pixel too far left: x1 lies just outside, so "
                "an object at the left edge (x0 = 0) must end with x1 at the "
                "width",
            ),
            (
                [9, 2, 6, 9],
                "the edges have to change places, and 1 is taken away for "
                "nothing",
            ),
            (
                [0, 1, 3, 8],
                "this is upside down: x0 and x1 change, y0 and y1 stay",
            ),
            ([0, 2, 3, 9], "the box is where it was"),
            (
                [-3, 2, 0, 9],
                "the box lies outside the picture: count from the picture's "
                "width",
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
                "the box is right, but the caption still says left where it "
                "is right now",
            ),
            (
                ["left" if word == "right" else word for word in expected],
                "every side is now left: what was turned from left to right "
                "was turned back again",
            ),
            (
                ["right" if word == "left" else word for word in expected],
                "every side is now right: what was right has to become left",
            ),
        ],
        what="the caption",
    )

    def right(box, tokens, width):
        x0, y0, x1, y1 = box
        turned = {"left": "right", "right": "left"}
        return [width - x1, y0, width - x0, y1], [
            turned.get(token, token) for token in tokens
        ]

    def mirrored(*given):
        box, tokens = parts(mirror(*given), "the new box", "the new words")
        return items(box, "the box"), words(tokens, "the caption")

    also(
        mirrored,
        right,
        ((2, 0, 7, 5), ["right", "and", "left"], 9),
        ((5, 3, 31, 8), "a leftover on the right".split(), 32),
        ((0, 0, 6, 4), ["a", "wall"], 6),
        what="the answer",
    )
    return (
        "box and words. With the old words a mirrored picture would teach a "
        "model to mix up sides."
    )
