"""Chapter 15, Transformers: leaks, masks, caches and their size."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from captionlib.exercises.answers import (
    Wrong,
    also,
    call,
    compare,
    number,
    parts,
    tensor,
    trusted,
)

LONGER = "try a text of more words"
ODD_AND_EVEN = "try texts of different lengths, odd and even"
CURES = {
    "sees three words at most": LONGER,
    "has a mask for eight words only": LONGER,
    "has no mask for texts of more than nine words": LONGER,
    "sees ten words at most": LONGER,
    "has no mask for an odd number of words": ODD_AND_EVEN,
    "has no mask for an even number of words": ODD_AND_EVEN,
    "has two heads, the second without a mask": (
        "change all numbers of a word, and watch all of a row"
    ),
}


def exercise_1(trust) -> str:
    """A test that finds out who looks ahead, or not far enough back."""
    verdicts = []

    def asked(version) -> object:
        verdict = trust(version)
        verdicts.append(verdict)
        one = isinstance(verdict, Tensor) and verdict.ndim == 0
        return verdict.item() if one else verdict

    test = asked if callable(trust) else trust
    for about, version in _causal().items():
        if not trusted(test, version):
            raise Wrong(
                f"your test refuses a version that {about}. It is right: rows "
                "depend on their own word and those before it, and on no other"
            )

    def passes(version) -> bool:
        try:
            return trusted(test, version)
        except (
            Wrong
        ):  # it has let right ones pass, so this is a version's fault
            return False

    wrong = _not_causal()
    missed = [about for about, version in wrong.items() if passes(version)]
    if len(missed) == len(wrong) and all(each is None for each in verdicts):
        raise Wrong(
            "nothing came back from your test for any version, and no "
            "assertion failed, so all have passed: return the verdict, or "
            "assert it"
        )
    if missed:
        others = f", and {len(missed) - 1} more" * (len(missed) > 1)
        cure = CURES.get(
            missed[0], "which word would you change, and which row watch?"
        )
        raise Wrong(
            f"a version that {missed[0]} passes your test{others}: {cure}"
        )
    return f"{len(wrong)} wrong versions caught, all right ones passed."


def _looking(hidden) -> Callable:
    """Attention of one head, in which `hidden(looks, seen)` can't be seen."""

    def read(x: Tensor) -> Tensor:
        x = torch.as_tensor(x).float()
        t, d = x.shape
        dice = torch.Generator().manual_seed(d)
        q, k, v = torch.randn(3, d, d, generator=dice) / d**0.5
        words = torch.arange(t)
        mask = hidden(words[:, None], words)
        # Bounded, so that no word is too faint to be noticed.
        scores = torch.tanh(x @ q @ (x @ k).T)
        scores = scores.masked_fill(mask, -torch.inf)
        return scores.softmax(dim=1) @ (x @ v)

    return read


def _causal() -> dict[str, Callable]:
    """Versions that are right, by what they do."""
    look = _looking(lambda looks, seen: seen > looks)

    def mean(x: Tensor) -> Tensor:
        return x.cumsum(0) / torch.arange(1, len(x) + 1)[:, None]

    def one_by_one(x: Tensor) -> Tensor:
        return torch.stack([look(x[: t + 1])[-1] for t in range(len(x))])

    return {
        "has a causal mask": look,
        "takes the mean of the words so far": mean,
        "reads one word after the other": one_by_one,
        "adds what it finds to the word": lambda x: x + look(x),
    }


def _not_causal() -> dict[str, Callable]:
    """Versions that are wrong, by what they do."""
    right = _causal()["has a causal mask"]
    hidden = {
        "has no mask": lambda looks, seen: seen > looks + len(seen),
        "sees one word ahead": lambda looks, seen: seen > looks + 1,
        "sees only the words that come after": lambda looks, seen: seen < looks,
        "sees only the word itself": lambda looks, seen: seen != looks,
        "never sees the first word": (
            lambda looks, seen: (seen > looks) | (seen == 0)
        ),
        "sees three words at most": (
            lambda looks, seen: (seen > looks) | (seen < looks - 2)
        ),
        "has a mask for eight words only": (
            lambda looks, seen: (seen > looks) & (seen < 8)
        ),
        "has no mask for texts of more than nine words": (
            lambda looks, seen: (seen > looks) & (len(seen) < 10)
        ),
        "has no mask for an odd number of words": (
            lambda looks, seen: (seen > looks) & (len(seen) % 2 == 0)
        ),
        "has no mask for an even number of words": (
            lambda looks, seen: (seen > looks) & (len(seen) % 2 == 1)
        ),
        "sees ten words at most": (
            lambda looks, seen: (seen > looks) | (seen < looks - 9)
        ),
        "sees the word after the next": (
            lambda looks, seen: (seen > looks) & (seen != looks + 2)
        ),
        "sees one word ahead, except from the first row": (
            lambda looks, seen: (
                (seen > looks) & ((seen > looks + 1) | (looks == 0))
            )
        ),
        "sees one word ahead, but never the last": (
            lambda looks, seen: (
                (seen > looks) & ((seen > looks + 1) | (seen > len(seen) - 2))
            )
        ),
        "sees the first word and the word itself, except in the last row": (
            lambda looks, seen: (
                (seen > looks)
                | ((seen > 0) & (seen < looks) & (looks < len(seen) - 1))
            )
        ),
        "doesn't see the word itself, except in the first and last rows": (
            lambda looks, seen: (
                (seen > looks)
                | ((seen == looks) & (looks > 0) & (looks < len(seen) - 1))
            )
        ),
    }
    wrong = {about: _looking(rule) for about, rule in hidden.items()}
    open_ = wrong["has no mask"]
    wrong["has two heads, the second without a mask"] = lambda x: torch.cat(
        [
            part(half)
            for part, half in zip((right, open_), _halves(x), strict=True)
        ],
        dim=1,
    )
    wrong["first subtracts the mean of all words"] = lambda x: right(
        x - x.mean(dim=0)
    )
    wrong["doesn't see the word itself"] = lambda x: torch.cat(
        [torch.zeros(1, x.shape[1]), right(x)[:-1]]
    )
    wrong["reads from the end"] = lambda x: right(x.flip(0)).flip(0)
    wrong["lets the last word reach the first"] = lambda x: right(
        torch.cat([x[:1] + x[-1:], x[1:]])
    )
    return wrong


def _halves(x: Tensor) -> tuple[Tensor, Tensor]:
    half = x.shape[1] // 2
    return x[:, :half], x[:, half:]


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

    sizes = (1, 3), (4, 4), (5, 2), (3, 0)
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
    for kind, found, before, after in (
        ("keys", found_keys, keys, longer[0]),
        ("values", found_values, values, longer[1]),
    ):
        what = f"the cache of {kind}"
        found = tensor(
            found,
            after.shape,
            what,
            known={tuple(before.shape): f"{what} {short}"},
        )
        compare(
            found,
            after,
            [
                (
                    after.roll(1, 0),
                    f"{kind} should be in the order of the words: the new "
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
                (longer[0] @ query / 4).softmax(dim=0) @ longer[1],
                "the scores are divided by d; it should be its root",
            ),
            (
                (longer[0] @ query / 2**0.5).softmax(dim=0) @ longer[1],
                "the scores are divided by the root of e, the length of a "
                "value; it should be that of a key, d",
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

    for s, d, e in ((1, 3, 2), (6, 9, 4), (4, 4, 4), (0, 3, 2)):
        new = torch.randn(d), torch.randn(d), torch.randn(e)
        drawn = (*new, torch.randn(s, d), torch.randn(s, e))
        also(attend_next, right, drawn, what="the answer")
    return "this is a head's whole work for a new word."


def exercise_4(numbers_kept) -> str:
    """The size of a state of TransformerDecoder."""

    def kept(layers, width, cells, beam, words) -> int:
        return layers * 2 * width * (cells + beam * words)

    for case in (
        (3, 256, 81, 5, 20),
        (2, 96, 64, 1, 7),
        (4, 32, 9, 3, 0),
    ):
        layers, width, cells, beam, words = case
        got = number(call(numbers_kept, *case), "the number")
        compare(
            int(got) if got == int(got) else got,
            kept(*case),
            [
                (
                    layers * 2 * width * beam * (cells + words),
                    "a beam's captions share the keys and values of their "
                    "image",
                ),
                (kept(*case) / 2, "there are keys and values"),
                (kept(*case) / layers, "each layer has its own"),
                (
                    layers * 2 * width * beam * words,
                    "the grid's keys and values are kept, too",
                ),
                (
                    layers * 2 * width * (cells + words),
                    "each caption of the beam has words of its own",
                ),
            ],
            what=f"the number for {layers} layers of width {width}, {cells} "
            f"cells, a beam of {beam} and {words} words",
            tolerance=1e-9,
        )
    return "with long texts, this is what fills a GPU's memory."
