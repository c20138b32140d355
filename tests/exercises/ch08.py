"""What readers get wrong in chapter 08, and what they should be told."""

IMPORT = "from PIL import ImageOps\n\n\n"

MISTAKES = {
    "08.1": [
        ("as it was", IMPORT + "def mended(picture, size):\n"
         "    small = picture.resize((size, size))\n"
         "    return np.asarray(small.convert('RGB'))", "orientation 6 of 24 by 16 pixels"),
        ("only turned", IMPORT + "def mended(picture, size):\n"
         "    small = ImageOps.exif_transpose(picture).resize((size, size))\n"
         "    return np.asarray(small.convert('RGB'))", "black where it is transparent"),
        ("alpha dropped", {"    paper = Image.new(\"RGBA\", picture.size, \"white\")\n": "",
                           "Image.alpha_composite(paper, picture)": "picture"},
         "of 24 by 16 pixels, as 12 by 12, shows what is stored"),
        ("black paper", {'"white"': '"black"'}, "lies on black paper"),
        ("early", {"exif_transpose(picture)": "exif_transpose(picture.resize((size, size)))"},
         "first make colours of the numbers"),
        ("colours exchanged", {"np.asarray(whole.resize((size, size)))":
                               "np.asarray(whole.resize((size, size)))[:, :, ::-1]"},
         "red and blue exchanged"),
        ("alpha kept", {'.convert("RGB")': ""}, "has the shape (12, 12, 4)"),
        ("floats", {"return np.asarray(whole.resize((size, size)))":
                    "return np.asarray(whole.resize((size, size))) / 255"},
         "stored pixels are uint8"),
        ("only RGBA is transparent", IMPORT + "def mended(picture, size):\n"
         "    picture = ImageOps.exif_transpose(picture)\n"
         "    if picture.mode == 'RGBA':\n"
         "        paper = Image.new('RGBA', picture.size, 'white')\n"
         "        picture = Image.alpha_composite(paper, picture)\n"
         "    return np.asarray(picture.convert('RGB').resize((size, size)))",
         "a transparent picture with a palette"),
        ("not mirrored", IMPORT + "def mended(picture, size):\n"
         "    turned = {3: 180, 6: -90, 8: 90}.get(picture.getexif().get(274), 0)\n"
         "    picture = picture.convert('RGBA').rotate(turned, expand=True)\n"
         "    paper = Image.new('RGBA', picture.size, 'white')\n"
         "    whole = Image.alpha_composite(paper, picture).convert('RGB')\n"
         "    return np.asarray(whole.resize((size, size)))",
         "orientation 2 of 24 by 16 pixels, as 12 by 12, is still mirrored"),
        ("upside down", IMPORT + "def mended(picture, size):\n"
         "    turned = {6: -90, 8: 90}.get(picture.getexif().get(274), 0)\n"
         "    picture = picture.convert('RGBA').rotate(turned, expand=True)\n"
         "    paper = Image.new('RGBA', picture.size, 'white')\n"
         "    whole = Image.alpha_composite(paper, picture).convert('RGB')\n"
         "    return np.asarray(whole.resize((size, size)))", "is still upside down"),
        ("one transparent colour", IMPORT + "def mended(picture, size):\n"
         "    picture = ImageOps.exif_transpose(picture)\n"
         "    if picture.mode in ('RGBA', 'LA', 'P'):\n"
         "        picture = picture.convert('RGBA')\n"
         "        paper = Image.new('RGBA', picture.size, 'white')\n"
         "        picture = Image.alpha_composite(paper, picture)\n"
         "    return np.asarray(picture.convert('RGB').resize((size, size)))",
         "an RGB picture with a transparent colour"),
        ("a frame of white", {"whole.resize((size, size))":
                              "ImageOps.pad(whole, (size, size), color='white')"},
         "is not right"),
    ],
    "08.2": [
        ("one size", {"(1, 4)": "(4, 4)"}, "takes batches of 2, whatever the size passes"),
        ("one call", {"[], [\"bee\"], ": "", "(1, 4)": "(4,)"}, "and 4 more"),
        ("no rest", {"[\"bee\"], ": "", "(1, 4)": "(1, 3)"},
         "drops the rest"),
        ("no empty list", {"[], ": ""}, "a batch of nothing if there is no image passes"),
        ("no short list", {"[\"bee\"], ": ""}, "shorter than a batch passes"),
        ("few calls", {"if not all(": "if len(counts) != -(-len(images) // size) or not all("},
         "refuses a version that captions one image after the other"),
        ("each image once", {"if not all(": "if sum(counts) != len(images) or not all("},
         "captions an image that comes twice once, and copies the caption; it is right"),
        ("captions numbered", """def trust(caption_all):
    for n, size in ((6, 1), (6, 4), (2, 4), (0, 4)):
        said = []

        def caption_batch(batch):
            assert 1 <= len(batch) <= size
            said.extend(batch)
            return list(range(len(said) - len(batch), len(said)))

        assert caption_all(list("dcabef")[:n], caption_batch, size) == list(range(n))
""", "captions the last batch first; it is right"),
        ("nobody counts", {"if not all(1 <= count <= size for count in counts)": "if False"},
         "passes your test, and 3 more"),
        ("empty allowed", {"1 <= count": "0 <= count"}, "ends with an empty batch"),
        ("no image twice", {'"dog", "cat", "dog", "ant"': '"dog", "cat", "fox", "ant"'},
         "comes twice only once"),
        ("any order", {"(images, caption_batch, size) != expected":
                       "(images, caption_batch, size).sort() != expected.sort()"},
         "passes your test"),
        ("more than was promised", {"1 <= count <= size for count in counts":
                                    "count == size for count in counts[:-1]"},
         "nearly equal size; it is right"),
        ("always", "def trust(caption_all):\n    return True", "and 11 more"),
        ("the captions", {"return True": "return expected"}, "should assert, or return"),
    ],
    "08.3": [
        ("in the corner", {"(side - height) // 2, (side - width) // 2": "0, 0"}, "in the corner"),
        ("odd row above", {"(side - height) // 2, (side - width) // 2":
                           "(side - height + 1) // 2, (side - width + 1) // 2"},
         "the one left over goes below it"),
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
        ("unfinished dropped", {"nats = -sum": "captions = [c for c in captions if c.finished]\n"
                                 "    nats = -sum"}, "no choices are left"),
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
        ("names used up", {"    return invented": "    names.clear()\n    return invented"},
         "changes its third argument in place"),
        ("scenes used up", {"for word in words:": "there &= names\n        for word in words:",
                            "    return invented": "    scenes[0].clear()\n    return invented"},
         "changes its second argument in place"),
        ("what was missed", "def invented_share(captions, scenes, names):\n    lost = total = 0\n"
         "    for words, there in zip(captions, scenes):\n        total += len(there)\n"
         "        lost += len(there - set(words))\n    return lost / total", "forgot to name"),
    ],
}  # fmt: skip

ALSO_RIGHT = {
    "08.1": [
        """def mended(picture, size):
    clear = picture.convert("RGBA")
    paper = Image.new("RGB", picture.size, (255, 255, 255))
    paper.paste(clear, mask=clear.getchannel("A"))
    small = paper.resize((size, size))
    note = picture.getexif().get(274, 1)
    pixels = np.asarray(small)
    if note in (2, 4, 5, 7):
        pixels, note = pixels[:, ::-1], {2: 1, 4: 3, 5: 8, 7: 6}[note]
    return np.rot90(pixels, {1: 0, 3: 2, 6: 3, 8: 1}[note])
""",
        IMPORT + "def mended(picture, size):\n"
        "    small = ImageOps.exif_transpose(picture.convert('RGBA').resize((size, size)))\n"
        "    pixels = np.asarray(small).astype(float)\n    share = pixels[..., 3:] / 255\n"
        "    mixed = share * pixels[..., :3] + (1 - share) * 255\n"
        "    return mixed.round().astype(np.uint8)",
        "from captionlib.io.images import open_rgb\n\n\ndef mended(picture, size):\n"
        "    return np.asarray(open_rgb(picture).resize((size, size)))",
        {
            "whole.resize((size, size))": "whole.resize((size, size), Image.Resampling.LANCZOS)"
        },
        {
            "whole.resize((size, size))": "whole.resize((size, size), Image.Resampling.BOX)"
        },
        {
            "whole.resize((size, size))": "whole.resize((size, size), Image.Resampling.BILINEAR)"
        },
    ],
    "08.2": [
        """def trust(caption_all):
    for n in range(8):
        for size in range(1, 10):

            def caption_batch(batch):
                assert 1 <= len(batch) <= size
                return [f"a photo of {image}" for image in batch]

            images = [(5 * i + 2) % 4 for i in range(n)]
            expected = [f"a photo of {image}" for image in images]
            assert caption_all(images, caption_batch, size) == expected
""",
        """def trust(caption_all):
    import numpy as np

    def write(batch, size):
        np.stack(batch)
        assert len(batch) <= size
        return [2 * image for image in batch]

    images = [4, 1, 4, 0, 2]
    return all(
        caption_all(images, lambda b: write(b, size), size) == [8, 2, 8, 0, 4]
        for size in (1, 3, 5, 7)
    ) and caption_all([], lambda b: write(b, size=2), 2) == []
""",
        """def trust(caption_all):
    for n in range(9):
        for size in (1, 2, 3):

            def caption_batch(batch):
                if not 1 <= len(batch) <= size:
                    raise ValueError(len(batch))
                return [image[::-1] for image in batch]

            images = ["bc", "ab", "bc", "zy", "de", "ab", "ghi", "f"][:n]
            try:
                if caption_all(images, caption_batch, size) != [i[::-1] for i in images]:
                    return False
            except Exception:
                return False
    return True
""",
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
        "def perplexity(captions):\n    choices = sum(\n"
        "        (len(c.text.split(' ')) if c.text else 0) + c.finished for c in captions\n    )\n"
        "    return np.exp(-sum(c.log_prob for c in captions) / choices)",
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
