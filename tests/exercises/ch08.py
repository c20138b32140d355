"""What readers get wrong in chapter 08, and what they should be told."""

MISTAKES = {
    "08.1": [
        ("colours first", {"axis=-1": "axis=0"}, "came back with the colours first"),
        ("side by side", {"np.stack([pixels] * 3, axis=-1)": "np.concatenate([pixels] * 3, 1)"},
         "along a new last axis"),
        ("one colour", {"np.stack([pixels] * 3, axis=-1)": "pixels[..., None]"},
         "copy it to all three"),
        ("reshaped", {"np.stack([pixels] * 3, axis=-1)":
                      "np.tile(pixels, 3).reshape(*pixels.shape, 3)"},
         "should become (100, 100, 100)"),
        ("alpha dropped", {"share * pixels[..., :3] + (1 - share) * 255": "1.0 * pixels[..., :3]"},
         "dropping the alpha channel"),
        ("over black", {" + (1 - share) * 255": ""}, "the transparent parts became black"),
        ("the wrong way round", {"share * pixels[..., :3] + (1 - share) * 255":
                                 "(1 - share) * pixels[..., :3] + share * 255"},
         "255 is opaque"),
        ("overflow", {"share = pixels[..., 3:] / 255  # (height, width, 1)":
                      "a = pixels[..., 3:]",
                      "share * pixels[..., :3] + (1 - share) * 255":
                      "(a * pixels[..., :3] // 255 + (255 - a)) * 1.0"}, "wrap around"),
        ("floats", {".astype(np.uint8)": ""}, "stored pixels are uint8"),
        ("alpha kept", {"share = pixels[..., 3:] / 255  # (height, width, 1)": "return pixels"},
         "still has its alpha channel"),
        ("grey forgotten", {"if pixels.ndim == 2:\n        return np.stack([pixels] * 3, axis=-1)"
                            "\n    ": ""}, "your code stops with IndexError"),
    ],
    "08.2": [
        ("the other way", {"6: 3, 8: 1": "6: 1, 8: 3"}, "standing on their heads"),
        ("never", {"quarters_left[orientation]": "0"}, "still lies on its side"),
        ("half by one flip", "def upright(pixels, orientation):\n    if orientation == 3:\n"
         "        return pixels[::-1]\n"
         "    return np.rot90(pixels, {1: 0, 6: 3, 8: 1}[orientation])",
         "flipping twice"),
        ("transposed", "def upright(pixels, orientation):\n    if orientation in (6, 8):\n"
         "        return pixels.swapaxes(0, 1)\n"
         "    return pixels[::-1, ::-1] if orientation == 3 else pixels",
         "a transposed picture is not a turned one"),
        ("half left out", {"3: 2": "3: 0"}, "orientation 3 comes out standing on its head"),
        ("always turned", {"1: 0": "1: 2"}, "upright as it is"),
        ("the wrong axes", {"quarters_left[orientation])": "quarters_left[orientation], (1, 2))"},
         "has the shape (3, 3, 2)"),
        ("floats", {"return np": "return 1.0 * np"}, "stored pixels are uint8"),
    ],
    "08.3": [
        ("in the corner", {"(side - height) // 2, (side - width) // 2": "0, 0"}, "in the corner"),
        ("odd row above", {"(side - height) // 2, (side - width) // 2":
                           "(side - height + 1) // 2, (side - width + 1) // 2"},
         "the larger half goes behind it"),
        ("at the far edge", {"(side - height) // 2": "side - height"}, "at the far edge"),
        ("black", {"np.full((side, side, 3), 128, dtype=np.uint8)":
                   "np.zeros((side, side, 3), np.uint8)"}, "the bands are black"),
        ("cut", "def pad_to_square(pixels):\n    side = min(pixels.shape[:2])\n"
         "    return pixels[:side, :side]", "cut down to its shorter side"),
        ("stretched", "def pad_to_square(pixels):\n    from PIL import Image\n\n"
         "    side = max(pixels.shape[:2])\n"
         "    return np.asarray(Image.fromarray(pixels).resize((side, side)))", "not stretched"),
        ("floats", {", dtype=np.uint8": ", dtype=float"}, "stored pixels are uint8"),
        ("all sides", "def pad_to_square(pixels):\n"
         "    return np.pad(pixels, ((3, 3), (3, 3), (0, 0)), constant_values=128)",
         "has the shape"),
        ("edge pixels", "def pad_to_square(pixels):\n    height, width = pixels.shape[:2]\n"
         "    up, left = max(0, width - height), max(0, height - width)\n"
         "    sides = (up // 2, up - up // 2), (left // 2, left - left // 2), (0, 0)\n"
         "    return np.pad(pixels, sides, mode='edge')", "not 128 everywhere"),
    ],
    "08.4": [
        ("no <end>", {" + caption.finished": ""}, "four choices were made"),
        ("always <end>", {"caption.finished": "1"}, "never said <end>"),
        ("sign", {"nats = -sum": "nats = sum"}, "below 1"),
        ("not divided", {"nats / choices": "nats"}, "divide the nats"),
        ("base 2", {"np.exp(nats / choices)": "2 ** (nats / choices)"}, "natural logarithm"),
        ("no exp", {"np.exp(nats / choices)": "nats / choices"}, "the perplexity is exp of it"),
        ("an average of perplexities", "def perplexity(captions):\n    each = [\n"
         "        np.exp(-c.log_prob / (len(c.words) + c.finished)) for c in captions\n    ]\n"
         "    return sum(each) / len(each)", "you average the captions' perplexities"),
        ("an average of means", "def perplexity(captions):\n    each = [\n"
         "        -c.log_prob / (len(c.words) + c.finished) for c in captions\n    ]\n"
         "    return np.exp(sum(each) / len(each))", "you average the captions' means"),
    ],
    "08.5": [
        ("captions", "def invented_share(captions, scenes, names):\n    wrong = [\n"
         "        any(w in names and w not in there for w in words)\n"
         "        for words, there in zip(captions, scenes)\n    ]\n"
         "    return sum(wrong) / len(wrong)", "two of the five captions"),
        ("all words below", {"named += 1": "pass", "if word in names:":
                             "named += 1\n            if word in names:"}, "divide by all words"),
        ("every word", {"if word in names:": "if True:"}, "you count every word"),
        ("averaged", "def invented_share(captions, scenes, names):\n    each = []\n"
         "    for words, there in zip(captions, scenes):\n"
         "        said = [w for w in words if w in names]\n        if said:\n"
         "            each.append(sum(w not in there for w in said) / len(said))\n"
         "    return sum(each) / len(each) if each else 0.0", "you average over captions"),
        ("a set", {"for word in words:": "for word in set(words):"}, 'says "dog" twice'),
        ("what is there", {"word not in there": "word in there"}, "the share that is there"),
        ("nothing named", {" if named else 0.0": ""}, "nothing is invented either"),
        ("what was missed", "def invented_share(captions, scenes, names):\n    lost = total = 0\n"
         "    for words, there in zip(captions, scenes):\n        total += len(there)\n"
         "        lost += len(there - set(words))\n    return lost / total", "forgot to name"),
    ],
}  # fmt: skip

ALSO_RIGHT = {
    "08.1": [
        """def to_rgb(pixels):
    if pixels.ndim == 2:
        return np.repeat(pixels[:, :, None], 3, axis=2)
    if pixels.shape[-1] == 4:
        alpha = pixels[..., 3:].astype(int)
        return ((alpha * pixels[..., :3] + (255 - alpha) * 255) // 255).astype(np.uint8)
    return pixels.copy()
""",
        "from PIL import Image\n\n\ndef to_rgb(pixels):\n    picture = Image.fromarray(pixels)\n"
        "    if picture.mode != 'RGBA':\n        return np.asarray(picture.convert('RGB'))\n"
        "    page = Image.new('RGB', picture.size, 'white')\n"
        "    page.paste(picture, mask=picture.getchannel('A'))\n    return np.asarray(page)",
        "from captionlib.io.images import open_rgb\n\n\ndef to_rgb(pixels):\n"
        "    return np.asarray(open_rgb(pixels))",
    ],
    "08.2": [
        """def upright(pixels, orientation):
    for _ in range({1: 0, 8: 1, 3: 2, 6: 3}[orientation]):
        height, width = pixels.shape[:2]
        turned = np.zeros((width, height, 3), np.uint8)
        for r in range(height):
            for c in range(width):
                turned[width - 1 - c, r] = pixels[r, c]
        pixels = turned
    return pixels
""",
        "def upright(pixels, orientation):\n    if orientation == 3:\n"
        "        return pixels[::-1, ::-1]\n    if orientation == 6:\n"
        "        return pixels.swapaxes(0, 1)[:, ::-1]\n    if orientation == 8:\n"
        "        return pixels.swapaxes(0, 1)[::-1]\n    return pixels",
    ],
    "08.3": [
        """def pad_to_square(pixels):
    height, width = pixels.shape[:2]
    rows, columns = max(0, width - height), max(0, height - width)
    around = (rows // 2, rows - rows // 2), (columns // 2, columns - columns // 2), (0, 0)
    return np.pad(pixels, around, constant_values=128)
""",
        "from PIL import Image\n\n\ndef pad_to_square(pixels):\n"
        "    picture = Image.fromarray(pixels)\n    side = max(picture.size)\n"
        "    square = Image.new('RGB', (side, side), (128, 128, 128))\n"
        "    square.paste(picture, ((side - picture.width) // 2, (side - picture.height) // 2))\n"
        "    return np.asarray(square)",
    ],
    "08.4": [
        """import math


def perplexity(captions):
    nats, choices = 0.0, 0
    for caption in captions:
        nats -= caption.log_prob
        choices += len(caption.words)
        if caption.finished:
            choices += 1
    return math.e ** (nats / choices)
""",
        "def perplexity(captions):\n    choices = 0\n    for each in captions:\n"
        "        choices += len(each.text.split()) + (1 if each.finished else 0)\n"
        "    return np.exp(-sum(each[2] for each in captions)) ** (1 / choices)",
    ],
    "08.5": [
        """from collections import Counter


def invented_share(captions, scenes, names):
    found = Counter()
    for caption, scene in zip(captions, scenes):
        for word, n in Counter(caption).items():
            if word in names:
                found[word in scene] += n
    return found[False] / (sum(found.values()) or 1)
""",
        "def invented_share(captions, scenes, names):\n    said = [\n"
        "        word in there for words, there in zip(captions, scenes) for word in words"
        " if word in names\n    ]\n    return said.count(False) / max(1, len(said))",
    ],
}
