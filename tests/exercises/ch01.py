"""What readers get wrong in chapter 01, and what they should be told."""

CUT = '[word_map["<start>"], *ids, word_map["<end>"]]'
MISTAKES = {
    "01.1": [
        ("no start", {CUT: '[*ids, word_map["<end>"]]'}, "begins with <start>"),
        ("no end", {CUT: '[word_map["<start>"], *ids]'}, "<end> is missing"),
        ("unknown words left out", {
            '[word_map.get(token, word_map["<unk>"]) for token in tokens[:max_len]]':
            "[word_map[token] for token in tokens[:max_len] if token in word_map]"},
         "should become <unk>"),
        ("unknown words fail", {'word_map.get(token, word_map["<unk>"])': "word_map[token]"},
         "'jumps' is looked up, but isn't there"),
        ("too short", {"max_len + 2 - len(ids)": "max_len - len(ids)"}, "there are 5 ids"),
        ("the length of the words", {"(max_len + 2 - len(ids)), len(ids)":
                                     "(max_len + 2 - len(ids)), len(tokens)"}, "words alone"),
        ("the length of the list", {", len(ids)": ", max_len + 2"}, "counts the padding"),
        ("end after the padding", """
def encode(tokens, word_map, max_len):
    ids = [word_map["<start>"]]
    ids += [word_map.get(token, word_map["<unk>"]) for token in tokens[:max_len]]
    length = len(ids) + 1
    ids += [word_map["<pad>"]] * (max_len + 1 - len(ids))
    return ids + [word_map["<end>"]], length
""", "<end> comes before the padding"),
        ("cut too late", """
def encode(tokens, word_map, max_len):
    ids = [word_map.get(token, word_map["<unk>"]) for token in ["<start>", *tokens, "<end>"]]
    ids = ids[:max_len + 2]
    return ids + [word_map["<pad>"]] * (max_len + 2 - len(ids)), len(ids)
""", "lost its <end>"),
        ("never cut", {"tokens[:max_len]": "tokens"}, "has 8 ids"),
        ("the first id unknown", {'word_map.get(token, word_map["<unk>"])':
                                  '(word_map.get(token) or word_map["<unk>"])'},
         '"<start> a <unk> <end> <pad> <pad>", expected "<start> a dog'),
        ("lower case", {"get(token,": "get(token.lower(),"}, "expected \"<start> <unk> dog"),
        ("cut too early", {"tokens[:max_len]": "tokens[: max_len - (len(tokens) > max_len)]"},
         '"<start> a dog runs <end> <pad>" and not'),
        ("padded with 0", {'[word_map["<pad>"]]': "[0]"}, '"<start> <end> <end> <end> <end>"'),
        ("length without unknown ones", {", len(ids)": ', len(ids) - ids.count(word_map["<unk>"])'},
         "is 4, and should be 5"),
        ("one list", {", len(ids)": ""}, "the ids, the length should come back"),
    ],
    "01.2": [
        ("the wrong axis", {".reshape(3, 1, 1)": ""}, "aligns shapes from the last axis"),
        ("not scaled", {"pixels / 255": "pixels"}, "still went from 0 to 255"),
        ("scaled twice", {"pixels / 255": "pixels / 255 / 255"}, "divided by 255 twice"),
        ("no bracket", {"(pixels / 255 - mean.reshape(3, 1, 1)) /":
                        "pixels / 255 - mean.reshape(3, 1, 1) /"}, "a bracket is missing"),
        ("no std", {" / std.reshape(3, 1, 1)": ""}, "divide by std"),
        ("variance", {"std.reshape(3, 1, 1)": "std.reshape(3, 1, 1) ** 2"}, "its root"),
        ("floor division", {"pixels / 255": "pixels // 255"}, "drops the decimals"),
        ("scaled if it seems needed", {
            "(pixels / 255 -": "(pixels / (255 if pixels.max() > 1 else 1) -"}, "nearly black"),
        ("channels last", "def normalise(pixels):\n"
         "    return (pixels.transpose(1, 2, 0) / 255 - mean) / std", "went to the end"),
        ("uint8", "def normalise(pixels):\n    pixels = pixels.astype(np.uint8)\n"
         "    return (pixels / 255 - mean.reshape(3, 1, 1)).astype(np.uint8)", "should be float"),
    ],
    "01.3": [
        ("as it was", {'"<pad>", *kept': "*kept", '= word_map["<unk>"]': "= 0",
                       'word_map["<pad>"]': "0"}, "never learns to say"),
        ("padding only", {'= word_map["<unk>"]': "= 0"}, "has become padding"),
        ("rare words only", {'"<pad>", *kept, "<unk>"': '"<unk>", *kept',
                             'word_map["<pad>"]': "0"}, "'<unk>' has the id 0"),
        ("lower case", {"(word for words": "(word.lower() for words",
                        "word_map.get(word,": "word_map.get(word.lower(),"},
         "'A' is missing"),
        ("padding second", {'"<pad>", *kept, "<unk>"': '"<unk>", "<pad>", *kept'},
         "<pad> has the id 1"),
        ("more than", {">=": ">"}, "is missing from the word map"),
        ("no threshold", {" if n >= min_word_freq": ""}, "it occurs only once"),
        ("a list", {"return word_map, rows": "return names, rows"}, "should be a dictionary"),
        ("no end", {', "<end>"]\n        ids': "]\n        ids"}, "which is not right"),
        ("not filled up", {' + [word_map["<pad>"]] * (longest - len(ids))': ""},
         "its rows have the lengths 5, 5, 7, 3"),
        ("too wide", {"captions) + 2": "captions) + 3"}, "has the shape (4, 8)"),
        ("ids shared", {"{name: i for": "{name: min(i, 3) for"}, "belong to one word"),
        ("rows alone", {"return word_map, rows": "return rows"}, "should come back"),
    ],
    "01.4": [
        ("one n", {"(1, 3, 4)": "(5,)"}, "`i // 5` passes"),
        ("too few images", {"range(9)": "range(2)", "9 * n": "2 * n"}, "passes your test"),
        ("first of each", "def trust(image_of):\n"
         "    return all(image_of(j * n, n) == j for j in range(9) for n in (1, 3, 4))",
         "passes your test"),
        ("another n", {"(1, 3, 4)": "(3,)"}, "`i // 3` passes"),
        ("even ones", {"(1, 3, 4)": "(2, 4, 6)"}, "`i // 2 // max(n // 2, 1)` passes"),
        ("last of each", "def trust(image_of):\n"
         "    return all(image_of(j * n - 1, n) == j - 1 for j in range(1, 9) for n in (1, 3, 4))",
         "`(i + 1) // n - 1` passes"),
        ("before the first", "def trust(image_of):\n"
         "    return all(image_of(i, 3) == i // 3 for i in range(-3, 9))", "with i = -3"),
        ("no captions", {"(1, 3, 4)": "(0, 1, 3, 4)", "range(9 * n)": "range(9)"}, "with n = 0"),
        ("too far", "def trust(image_of):\n    return image_of(2**60 + 1, 1) == 2**60 + 1",
         "no data set"),
        ("an array", "import numpy as np\n\n\ndef trust(image_of):\n"
         "    return np.array_equal(image_of(np.arange(9), 3), np.arange(9) // 3)",
         "an array of shape (9,)"),
        ("from 1", {"expected = [image for": "expected = [image + 1 for"}, "your test refuses"),
        ("the result", {"return True": "return image_of(7, 3)"}, "should assert, or return"),
        ("always", "def trust(image_of):\n    return True", "and 10 more"),
    ],
    "01.5": [
        ("bits", {"* 8 /": "* 64 /"}, "int64 has 64 bits"),
        ("no start and end", {"(50 + 2)": "50"}, "with <start> and <end>"),
        ("one caption", {"5 * ": ""}, "an image has five captions"),
        ("bytes", {"as_int64 = numbers * 8 / 1e6": "as_int64 = numbers * 8"}, "these are bytes"),
        ("mebibytes", {"/ 1e6": "/ 2**20"}, "10**6"),
        ("bits again", {"* 2 /": "* 16 /"}, "int16 has 16 bits"),
        ("ids", {"* 8 /": "/"}, "counts the ids"),
        ("a text", {"numbers * 2 / 1e6": "'59 MB'"}, "should be one number"),
    ],
}  # fmt: skip

ALSO_RIGHT = {
    "01.2": [
        "def normalise(pixels):\n    image = np.empty(pixels.shape, np.float32)\n"
        "    for c in range(3):\n        image[c] = (pixels[c] / 255 - mean[c]) / std[c]\n"
        "    return image"
    ],
    "01.4": [
        "def trust(image_of):\n    for n in range(1, 7):\n        for i in range(60):\n"
        "            assert image_of(i, n) == i // n",
        "def trust(image_of):\n    import numpy as np\n\n"
        "    got = [image_of(i, 4) for i in range(40)] + [image_of(i, 3) for i in range(9)]\n"
        "    return bool(np.all(got == np.r_[np.arange(10).repeat(4), np.arange(3).repeat(3)]))",
    ],
    "01.5": [{"numbers * 8 / 1e6": "236", "numbers * 2 / 1e6": "58.9"}],
    "01.1": [
        """import numpy as np


def encode(tokens, word_map, max_len):
    ids = np.full(max_len + 2, word_map["<pad>"])
    length = min(len(tokens), max_len) + 2
    ids[0], ids[length - 1] = word_map["<start>"], word_map["<end>"]
    for i, token in enumerate(tokens[:max_len]):
        ids[i + 1] = word_map[token] if token in word_map else word_map["<unk>"]
    return ids, length
""",
    ],
    "01.3": [
        """import numpy as np


def mended(captions, min_word_freq):
    words = [word for words in captions for word in words]
    kept = sorted({word for word in words if words.count(word) >= min_word_freq})
    special = ["<pad>", "<start>", "<end>", "<unk>"]
    word_map = dict(zip(special + kept, range(len(kept) + 4)))
    rows = np.zeros((len(captions), max(map(len, captions)) + 2), dtype=int)
    for row, caption in zip(rows, captions):
        row[0], row[len(caption) + 1] = 1, 2
        row[1 : len(caption) + 1] = [word_map.get(word, 3) for word in caption]
    return word_map, rows
""",
        {'["<pad>", *kept, "<unk>", "<start>", "<end>"]':
         '["<pad>", "<unk>", "<start>", "<end>", *kept]', 'word_map["<pad>"]': "0"},
        {'"<pad>", *kept': "*kept", "enumerate(names)": "enumerate(names, 1)",
         'word_map["<pad>"]': "0"},
    ],
}  # fmt: skip
