"""Chapter 15: what readers get wrong, and other right answers."""

MISTAKES = {
    "15.1": [
        ("only the past", {"moved.tolist() != [row >= t for row in range(words)]":
                           "moved[:t].any()"}, "sees only the word itself"),
        ("one word", {"for t in range(words)": "for t in range(1)"}, "has no mask passes"),
        ("too short", {"(11, 12)": "(2, 3)"}, "sees three words at most passes"),
        ("eight words", {"(11, 12)": "(7, 8)"}, "eight words only passes your test, and 2 more"),
        ("one length", {"(11, 12)": "(12,)"}, "an odd number of words passes your test: try"),
        ("odd lengths", {"(11, 12)": "(11, 13)"},
         "an even number of words passes your test: try texts"),
        ("nine words", {"(11, 12)": "(8, 9)"}, "a text of more words"),
        ("ten words", {"(11, 12)": "(9, 10)"}, "ten words at most passes your test: try"),
        ("only neighbours", {"moved.tolist() !=":
                             "[*[False] * (t - 1), *moved.tolist()[max(t - 1, 0) :]] !="},
         "sees the word after the next"),
        ("only the first row", {"moved.tolist() !=":
                                "[*moved.tolist()[: min(t, 1)], *[False] * (t - 1),"
                                " *moved.tolist()[t:]] !="},
         "except from the first row"),
        ("leaks of the last", {"moved.tolist() !=":
                               "[*(moved.tolist()[:t] if t == words - 1 else t * [False]),"
                               " *moved.tolist()[t:]] !="},
         "but never the last"),
        ("own and last row", {"moved.tolist() != [row >= t for row in range(words)]":
                              "moved[:t].any() or not moved[t] or not moved[-1]"},
         "except in the last row"),
        ("not oneself", {"moved.tolist() != [row >= t for row in range(words)]":
                         "moved[:t].any() or not moved[-1] or not moved[t + 1 :].all()"},
         "doesn't see the word itself"),
        ("first number", {".abs().amax(dim=1)": "[:, 0].abs()"}, "watch all of a row"),
        ("not itself", {"row >= t": "row > t"}, "your test refuses"),
        ("the result", {"return True": "return before"}, "should assert, or return"),
        ("always", "def trust(read):\n    return True", "and 20 more"),
        ("no return", "def trust(read):\n    torch.equal(read(torch.ones(3, 2)), torch.ones(3, 2))",
         "nothing came back"),
    ],
    "15.2": [
        ("inverted", {"return mask": "return ~mask"}, "may not be seen"),
        ("causal", {"    mask[:images, :images] = False\n": ""}, "each other"),
        ("turned", {"return mask": "return mask.T"}, "rows are who looks"),
        ("no image", {"= False\n": "= False\n    mask[images:, :images] = True\n"},
         "words should see the image"),
        ("image sees all", {"mask[:images, :images]": "mask[:images]"},
         "should not see any word"),
        ("not itself", {"triu(1)": "triu(0)"}, "should see itself"),
        ("from the end", {"mask[:images, :images]": "mask[:-words, :-words]"},
         "called with 3, 0"),
        ("everything", {"return mask": "return torch.zeros_like(mask)"}, "come after it"),
        ("fixed", {"mask[:images, :images]": "mask[:3, :3]"}, "are the sizes"),
    ],
    "15.3": [
        ("not itself", "def attend_next(query, key, value, keys, values):\n"
         "    out = (keys @ query / len(query) ** 0.5).softmax(dim=0) @ values\n"
         "    keys = torch.cat([keys, key[None]])\n"
         "    return out, keys, torch.cat([values, value[None]])", "see itself"),
        ("not kept", {"@ values, keys, values": "@ values, keys[:-1], values"},
         "as long as before"),
        ("in front", {"torch.cat([keys, key[None]])": "torch.cat([key[None], keys])"},
         "comes last"),
        ("unscaled", {" / len(query) ** 0.5": ""}, "not divided by the root"),
        ("by d", {"len(query) ** 0.5": "len(query)"}, "divided by d"),
        ("by e", {"len(query)": "len(value)"}, "by the root of e"),
        ("not the first step", {"    keys = torch": "    zero = 0 * values[0]\n    keys = torch",
                                "@ values, keys": "@ values + zero, keys"}, "beyond an end"),
        ("key asks", {"keys @ query": "keys @ key"}, "used as the query"),
    ],
    "15.4": [
        ("own grids", {"(cells + beam * words)": "beam * (cells + words)"}, "share"),
        ("keys only", {"2 * ": ""}, "keys and values"),
        ("one layer", {"layers * ": ""}, "each layer"),
        ("no grid", {"(cells + beam * words)": "beam * words"}, "the grid's"),
        ("no beam", {"beam * words": "words"}, "words of its own"),
        ("a little more", {"(cells + beam * words)": "(cells + beam * words) + beam * words"},
         "cells, a beam of 5 and 20 words is not right: it is 278116, expected 278016"),
        ("one word at least", {"beam * words": "beam * max(words, 1)"}, "0 words is not right"),
    ],
}  # fmt: skip

ALSO_RIGHT = {
    "15.1": [
        """def trust(read):
    for t in (5, 12, 15):
        x = torch.randn(t, 5, requires_grad=True)
        for row in range(t):
            (slope,) = torch.autograd.grad(read(x)[row].sum(), x)
            used = slope.abs().sum(dim=1) > 1e-9
            assert used.tolist() == [word <= row for word in range(t)]
""",
        {
            "return True": "return torch.tensor(True)",
            "return False": "return torch.tensor(False)",
        },
        """def trust(read):
    import numpy as np

    for t in range(1, 14):
        x = torch.randn(t, 2)
        whole = np.asarray(read(x))
        for word in range(t):
            other = x.clone()
            other[word] *= -2
            apart = np.abs(np.asarray(read(other)) - whole).max(axis=1)
            if (apart[:word] > 1e-5).any() or (apart[word:] < 1e-5).any():
                return False
    return True
""",
    ],
    "15.2": [
        "def prefix_mask(images, words):\n"
        "    n = torch.arange(images + words)\n"
        "    return (n[None] > n[:, None]) & (n[None] >= images)",
    ],
    "15.4": [
        "def numbers_kept(layers, width, cells, beam, words):\n"
        "    return layers * (2 * width * cells + 2 * width * beam * words)",
    ],
}
