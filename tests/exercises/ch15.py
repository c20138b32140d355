"""Chapter 15: what readers get wrong, and other right answers."""

MISTAKES = {
    "15.1": [
        ("unscaled", {" / queries.shape[1] ** 0.5": ""}, "not divided by the root"),
        ("by d", {"queries.shape[1] ** 0.5": "queries.shape[1]"}, "not by d"),
        ("by L", {"queries.shape[1] ** 0.5": "len(keys) ** 0.5"}, "not their number"),
        ("over queries", {"dim=1": "dim=0"}, "runs over the queries"),
        ("no softmax", {".softmax(dim=1)": ""}, "not softmaxed"),
        ("weights", {" @ values": ""}, "weighted sums"),
        ("of keys", {"@ values": "@ keys"}, "keys were averaged"),
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
        "def attend(queries, keys, values):\n"
        "    return torch.nn.functional.scaled_dot_product_attention(queries, keys, values)",
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
