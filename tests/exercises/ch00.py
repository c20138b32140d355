"""What readers get wrong in chapter 00, and what they should be told."""

DISTINCT = """
def distinct(draw, wanted, tries):
    captions = []
    {0}
    return captions
"""

MISTAKES = {
    "00.1": [
        ("shares swapped", {"share * sticker + (1 - share) * sheet":
                            "share * sheet + (1 - share) * sticker"}, "shares are swapped"),
        ("uint8 arithmetic", "def paste(sheet, sticker, alpha):\n    a = alpha[..., None]\n"
         "    return a * sticker // 255 + (255 - a) * sheet // 255", "starts again at zero"),
        ("not rounded", {".round()": ""}, "Round first"),
        ("a hard mask", "def paste(sheet, sticker, alpha):\n"
         "    show = alpha[..., None] > 0\n    return sheet * ~show + sticker * show",
         "the edge is hard"),
        ("still floats", {'.round().astype("uint8")': ""}, "stored as uint8"),
        ("no third axis", {"alpha[..., None]": "alpha"}, "could not be broadcast"),
        ("the sheet forgotten", {" + (1 - share) * sheet": ""}, "the sheet is missing"),
        ("pasted in place", "def paste(sheet, sticker, alpha):\n    sheet[:] = sticker\n"
         "    return sheet", "in place"),
    ],
    "00.2": [
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
    "00.3": [
        ("a shared one", "shared = Random(0)\ndef generator(seed, split, index):\n"
         "    return shared", "all scenes draw from one generator"),
        ("the seed alone", {'f"{seed} {split} {index}"': "seed"}, "where is index"),
        ("no split", {'f"{seed} {split} {index}"': 'f"{seed} {index}"'}, "repeat the training"),
        ("a sum", {'f"{seed} {split} {index}"': 'f"{seed + index} {split}"'},
         "scene 3 of seed 0 is scene 0 of seed 3"),
        ("hash", {'f"{seed} {split} {index}"': "hash((seed, split, index))"}, "is salted anew"),
        ("no seed", {'f"{seed} {split} {index}"': 'f"{split} {index}"'}, "another seed gives"),
        ("unseeded", {'f"{seed} {split} {index}"': ""}, "two different generators"),
        ("a number", {'Random(f"{seed} {split} {index}")': "1000 * seed + index"},
         "a Random should come back"),
        ("nothing between", {"{seed} {split} {index}": "{seed}{split}{index}"},
         "run into each other"),
    ],
    "00.4": [
        ("no limit", DISTINCT.format("""while len(captions) < wanted:
        caption = draw()
        if caption not in captions:
            captions.append(caption)"""), "draws on and on"),
        ("a set", "def distinct(draw, wanted, tries):\n    captions = set()\n"
         "    for _ in range(tries):\n        if len(captions) < wanted:\n"
         "            captions.add(draw())\n    return sorted(captions, reverse=len(captions) < 3)",
         "in another order"),
        ("wanted draws", {"range(tries)": "range(min(tries, wanted))"}, "costs a draw, not"),
        ("repeats kept", {"if caption not in captions:": "if True:"}, "in the list twice"),
        ("no stop", {"if len(captions) == wanted:": "if False:"}, "five captions were wanted"),
        ("stop after drawing", DISTINCT.format("""for _ in range(tries):
        caption = draw()
        if caption not in captions and len(captions) < wanted:
            captions.append(caption)"""), "stop in time"),
        ("tries for each", DISTINCT.format("""for _ in range(wanted):
        for _ in range(tries):
            caption = draw()
            if caption not in captions:
                captions.append(caption)
                break"""), "of 40 draws that were allowed"),
    ],
}  # fmt: skip

ALSO_RIGHT = {
    "00.1": [
        "def paste(sheet, sticker, alpha):\n    a = alpha.astype('uint16')[..., None]\n"
        "    return ((a * sticker + (255 - a) * sheet + 127) // 255).astype('uint8')",
        "import numpy as np\nfrom PIL import Image\n\n\ndef paste(sheet, sticker, alpha):\n"
        "    picture = Image.fromarray(sheet)\n"
        "    picture.paste(Image.fromarray(sticker), (0, 0), Image.fromarray(alpha))\n"
        "    return np.asarray(picture)",
    ],
    "00.3": [
        "def generator(seed, split, index):\n    return Random(repr((seed, split, index)))"
    ],
    "00.4": [
        "def distinct(draw, wanted, tries):\n    found = {}\n"
        "    while len(found) < wanted and tries > 0:\n        found[draw()] = True\n"
        "        tries -= 1\n    return list(found)"
    ],
}
