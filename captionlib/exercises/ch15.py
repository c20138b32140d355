"""Chapter 15, Transformers: dot products, masks, caches and their size."""

from __future__ import annotations

import torch
from torch import Tensor

from captionlib.exercises.answers import (
    also,
    call,
    compare,
    number,
    parts,
    tensor,
)


def exercise_1(attend) -> str:
    """Scaled dot-product attention, one head."""
    dice = torch.Generator().manual_seed(0)
    queries, keys = (
        2 * torch.randn(n, 4, generator=dice).double() for n in (3, 5)
    )
    values = torch.randn(5, 2, generator=dice).double()

    def mixed(scale: float = 0.5, dim: int = 1) -> Tensor:
        return (queries @ keys.T * scale).softmax(dim=dim) @ values

    got = tensor(
        call(attend, queries, keys, values),
        (3, 2),
        "the result",
        known={
            (3, 5): "these are scores or weights: return the values' weighted "
            "sums",
            (3, 4): "keys were averaged; the weights are for the values",
        },
    )
    compare(
        got,
        mixed(),
        [
            (mixed(1), "the scores are not divided by the root of d"),
            (mixed(0.25), "divide by the root of d, not by d"),
            (mixed(5**-0.5), "d is the length of a key, not their number"),
            (
                mixed(dim=0),
                "the softmax runs over the queries: each query's weights "
                "should sum to 1",
            ),
            (
                (queries @ keys.T * 0.5) @ values,
                "the scores are not softmaxed yet",
            ),
        ],
        what="the result",
    )

    def right(queries, keys, values):
        scores = torch.einsum("td,ld->tl", queries, keys)
        return (scores * keys.shape[1] ** -0.5).softmax(dim=1) @ values

    for t, L, d, e in ((1, 2, 3, 4), (4, 1, 9, 2), (5, 5, 5, 5), (2, 6, 2, 1)):
        drawn = torch.randn(t, d), torch.randn(L, d), torch.randn(L, e)
        also(attend, right, drawn)
    return "torch.nn.functional.scaled_dot_product_attention does this."


def exercise_2(prefix_mask) -> str:
    """The mask of a prefix that sees itself whole."""
    images, words = 3, 4
    causal = torch.ones(7, 7, dtype=torch.bool).triu(1)
    right = causal.clone()
    right[:3, :3] = False
    no_image = right.clone()
    no_image[3:, :3] = True
    ahead = right.clone()
    ahead[:3] = False
    shifted = torch.ones(7, 7, dtype=torch.bool).triu(0)
    shifted[:3, :3] = False
    got = tensor(
        call(prefix_mask, images, words), (7, 7), "the mask", kind="bool"
    )
    compare(
        got.long(),
        right.long(),
        [
            ((~right).long(), "True should mark what may not be seen"),
            (
                causal.long(),
                "image tokens should see each other, those after them, too",
            ),
            (right.T.long(), "rows are who looks, columns are what is seen"),
            (no_image.long(), "words should see the image"),
            (ahead.long(), "image tokens should not see any word"),
            (shifted.long(), "everyone should see itself"),
            (torch.zeros(7, 7).long(), "a word sees those that come after it"),
        ],
        what="the mask",
    )
    compare(
        tensor(call(prefix_mask, 2, 1), (3, 3), "the mask", kind="bool").long(),
        torch.tensor([[0, 0, 1], [0, 0, 1], [0, 0, 0]]),
        otherwise="with 2 image tokens and 1 word it is wrong; are the sizes "
        "fixed?",
    )

    def right_for(images, words):
        n = images + words
        looks, seen = torch.arange(n)[:, None], torch.arange(n)
        return (seen > looks) & ((seen >= images) | (looks >= images))

    sizes = (1, 3), (4, 4), (5, 2)
    also(prefix_mask, right_for, *sizes, what="the mask")
    return "models with such a mask are called prefix language models."


def exercise_3(attend_next) -> str:
    """One step with a cache."""
    dice = torch.Generator().manual_seed(0)
    query, key = (torch.randn(4, generator=dice).double() for _ in range(2))
    value = torch.randn(2, generator=dice).double()
    keys = torch.randn(3, 4, generator=dice).double()
    values = torch.randn(3, 2, generator=dice).double()
    longer = torch.cat([keys, key[None]]), torch.cat([values, value[None]])

    def look(keys: Tensor, values: Tensor) -> Tensor:
        return (keys @ query / 2).softmax(dim=0) @ values

    out, found_keys, found_values = parts(
        call(attend_next, query, key, value, keys, values),
        "the result",
        "the keys",
        "the values",
    )
    short = "is as long as before: the new word's belongs there, too"
    for what, found, before, after in (
        ("the keys", found_keys, keys, longer[0]),
        ("the values", found_values, values, longer[1]),
    ):
        found = tensor(
            found,
            after.shape,
            what,
            known={tuple(before.shape): f"{what[:-1]} cache {short}"},
        )
        compare(
            found,
            after,
            [
                (
                    after.roll(1, 0),
                    f"{what[4:]} should be in the order of the words: the new "
                    "one comes last",
                )
            ],
            what=what,
        )
    compare(
        tensor(out, (2,), "the result"),
        look(*longer),
        [
            (look(keys, values), "a word should see itself, too"),
            (
                (longer[0] @ query).softmax(dim=0) @ longer[1],
                "the scores are not divided by the root of d",
            ),
            (
                (longer[0] @ key / 2).softmax(dim=0) @ longer[1],
                "the key was used as the query",
            ),
        ],
        what="the result",
    )

    def right(query, key, value, keys, values):
        keys = torch.vstack([keys, key])
        values = torch.vstack([values, value])
        scores = torch.mv(keys, query) * len(key) ** -0.5
        return scores.softmax(dim=0) @ values, keys, values

    for s, d, e in ((1, 3, 2), (6, 9, 4), (4, 4, 4)):
        new = torch.randn(d), torch.randn(d), torch.randn(e)
        drawn = (*new, torch.randn(s, d), torch.randn(s, e))
        also(attend_next, right, drawn, what="the answer")
    return "this is a head's whole work for a new word."


def exercise_4(numbers_kept) -> str:
    """The size of a state of TransformerDecoder."""

    def kept(layers, width, cells, beam, words) -> float:
        return layers * 2 * width * (cells + beam * words)

    for case in ((3, 256, 81, 5, 20), (2, 96, 64, 1, 7)):
        layers, width, cells, beam, words = case
        got = number(call(numbers_kept, *case), "the number")
        compare(
            got,
            float(kept(*case)),
            [
                (
                    layers * 2.0 * width * beam * (cells + words),
                    "a beam's captions share the keys and values of their "
                    "image",
                ),
                (kept(*case) / 2.0, "there are keys and values"),
                (kept(*case) / float(layers), "each layer has its own"),
                (
                    layers * 2.0 * width * beam * words,
                    "the grid's keys and values are kept, too",
                ),
                (
                    layers * 2.0 * width * (cells + words),
                    "each caption of the beam has words of its own",
                ),
            ],
            otherwise=f"for {case} it is not {got:g}",
        )
    return "with long texts, this is what fills a GPU's memory."
