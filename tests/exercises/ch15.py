"""Chapter 15: what readers get wrong, and other right answers."""

MISTAKES = {
    "15.1": [
        ("only the past", {"moved.tolist() != [row >= t for row in range(len(x))]":
                           "moved[:t].any()"}, "sees only the word itself"),
        ("one word", {"range(len(x)):\n        changed": "range(1):\n        changed"},
         "has no mask passes"),
        ("the last word", {"range(len(x)):\n        changed": "range(11, 12):\n        changed"},
         "sees only the word itself passes"),
        ("too short", {"torch.randn(12, 3)": "torch.randn(3, 3)"}, "and 1 more"),
        ("eight words", {"torch.randn(12, 3)": "torch.randn(8, 3)"}, "eight words only passes"),
        ("not itself", {"row >= t": "row > t"}, "your test refuses"),
        ("the result", {"return True": "return before"}, "should assert, or return"),
        ("always", "def trust(read):\n    return True", "and 10 more"),
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
        ("key asks", {"keys @ query": "keys @ key"}, "used as the query"),
    ],
    "15.4": [
        ("own grids", {"(cells + beam * words)": "beam * (cells + words)"}, "share"),
        ("keys only", {"2 * ": ""}, "keys and values"),
        ("one layer", {"layers * ": ""}, "each layer"),
        ("no grid", {"(cells + beam * words)": "beam * words"}, "the grid's"),
        ("no beam", {"beam * words": "words"}, "words of its own"),
    ],
}  # fmt: skip

ALSO_RIGHT = {
    "15.1": [
        """def trust(read):
    x = torch.randn(10, 5, requires_grad=True)
    for row in range(10):
        (slope,) = torch.autograd.grad(read(x)[row].sum(), x)
        used = slope.abs().sum(dim=1) > 1e-9
        assert used.tolist() == [word <= row for word in range(10)]
""",
        """def trust(read):
    import numpy as np

    for t in range(1, 12):
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
