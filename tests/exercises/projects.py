"""The projects: what readers get wrong, and other right answers."""

DOUBLED = "coarse.repeat_interleave(2, dim=1).repeat_interleave(2, dim=2)"

MISTAKES = {
    "A.1": [
        (
            "last verb",
            {" and found[-1][1] is None": ""},
            "expected",
        ),
        (
            "no None",
            {"return found": "return [pair for pair in found if pair[1]]"},
            "expected",
        ),
        (
            "first actor",
            {
                "found[-1] = (found[-1][0], word)": "found[0] = (found[0][0], word)"
            },
            "expected",
        ),
        ("a set", {"return found": "return set(found)"}, "a list of pairs"),
    ],
    "A.2": [
        (
            "the last one with a verb",
            {"dict(told)": "{a: v for a, v in told if v}"},
            "the table is not right",
        ),
        (
            "turned",
            {
                "verbs.index(verb), verbs.index(told[actor])": (
                    "verbs.index(told[actor]), verbs.index(verb)"
                )
            },
            "rows should be what is true",
        ),
        (
            "first mention",
            {"dict(told)": "dict(reversed(told))"},
            "take the last one",
        ),
        ("never added", {"+= 1": "= 1"}, "the table is not right"),
        (
            "one too large",
            {"len(verbs), len(verbs)": "len(verbs), len(verbs) + 1"},
            "shape",
        ),
    ],
    "A.3": [
        ("columns", {"dim=1": "dim=0"}, "the best look of each verb"),
        ("no share", {" / counts.sum()": ""}, "not a share"),
        (
            "mean of shares",
            {
                ".values.sum() / counts.sum()": (
                    ".values.div(counts.sum(dim=1).clamp(min=1)).mean()"
                )
            },
            "seen more often",
        ),
        (
            "one look",
            {"counts.max(dim=1).values.sum()": "counts.max()"},
            "add those of all",
        ),
    ],
    "B.1": [
        (
            "a to z",
            {'r"[^\\W\\d_]+"': 'r"[a-z]+"'},
            "expected",
        ),
        (
            "two spellings",
            {
                'unicodedata.normalize("NFC", text)': 'unicodedata.normalize("NFD", text)',
                'r"[^\\W\\d_]+"': 'r"(?:[^\\W\\d_]|[\\u0300-\\u036f])+"',
            },
            "characters of their own",
        ),
        ("capitals", {".lower()": ""}, "expected"),
        ("casefold", {"lower()": "casefold()"}, "ß should stay"),
        ("digits", {'r"[^\\W\\d_]+"': 'r"\\w+"'}, "expected"),
    ],
    "B.2": [
        (
            "masculine only",
            {'"f": ("e", "e")': '"f": ("", "er")'},
            "but you say",
        ),
        (
            "no dative",
            {"endings[case]": 'endings["nominative"]'},
            "in the dative",
        ),
        ("a space", {" if adjective else words[::2]": ""}, "but you say"),
        (
            "a list",
            {'" ".join(words if adjective else words[::2])': "words"},
            "a string",
        ),
    ],
    "B.3": [
        (
            "no dative",
            {', "einem": "mn"': "", ', "einer": "f"': ""},
            "you count",
        ),
        ("next word only", {"i + 3": "i + 2"}, "you count"),
        ("no limit", {"i + 1 : i + 3": "i + 1 :"}, "you count"),
        ("turned", {"in fits[word]": "not in fits[word]"}, "do not fit"),
        (
            "unknown nouns",
            {"if word in fits and nouns": "if word in fits"},
            "your code stops",
        ),
    ],
    "C.1": [
        (
            "coarse first",
            {"[cells, coarse]": "[coarse, cells]"},
            "fine cells should come first",
        ),
        ("sums", {".mean(": ".sum("}, "is their sum"),
        (
            "in a row",
            {
                "blocks.mean(dim=(2, 4)).flatten(1, 2)": (
                    "cells.reshape(B, P // 4, 4, D).mean(dim=2)"
                )
            },
            "four cells in a row",
        ),
        (
            "coarse only",
            {"torch.cat([cells, coarse], dim=1)": "coarse"},
            "should come, too",
        ),
    ],
    "C.2": [
        ("not shared", {" / 4\n": "\n"}, "more than 1"),
        ("lost", {"fine + spread.flatten(1)": "fine"}, "weight is lost"),
        (
            "other cells",
            {DOUBLED: "coarse.repeat(1, 2, 2)"},
            "the map",
        ),
        (
            "in a row",
            {DOUBLED: "coarse.flatten(1).repeat_interleave(4, dim=1)"},
            "four cells in a row",
        ),
    ],
    "C.3": [
        (
            "never below 0",
            {"return math.log(": "return max(0.0, math.log("}
            | {"fine / coarse)": "fine / coarse))"},
            "together have the share",
        ),
        (
            "a factor",
            {
                "math.log(share / (1 - share) * fine / coarse)": (
                    "share / (1 - share) * fine / coarse"
                )
            },
            "a factor of the weights",
        ),
        ("turned", {"fine / coarse": "coarse / fine"}, "it should be"),
        ("no share", {"share / (1 - share) * ": ""}, "it should be"),
        ("share, not odds", {"share / (1 - share)": "share"}, "it should be"),
    ],
    "D.1": [
        ("no epochs", {"epochs * train": "train"}, "once an epoch"),
        (
            "drawn again",
            {"draw + epochs * train": "epochs * (draw + train)"},
            "drawn only once",
        ),
        ("nothing fixed", {"(budget - fixed)": "budget"}, "is spent before"),
        ("below zero", {"max(0, ": "max(-99, "}, "you have"),
    ],
    "D.2": [
        ("likeliest", {"torch.stack(votes)": "log_probs"}, "the likeliest"),
        (
            "unweighted",
            {"w * alike": "w.new_ones(()) * alike"},
            "count for more",
        ),
        ("turned", {"alike(one, other)": "alike(other, one)"}, "is the truth"),
        ("least", {"argmax": "argmin"}, "least like"),
        (
            "underflow",
            {"log_probs.softmax(dim=0)": "log_probs.exp()"},
            "caption",
        ),
    ],
}

ALSO_RIGHT = {
    "A.1": [
        "def doings(caption, actors, verbs):\n"
        "    starts = [i for i, word in enumerate(caption) if word in actors]\n"
        "    ends = starts[1:] + [len(caption)]\n"
        "    out = []\n"
        "    for start, end in zip(starts, ends):\n"
        "        said = [w for w in caption[start:end] if w in verbs]\n"
        "        out.append([caption[start], said[0] if said else None])\n"
        "    return out",
    ],
    "A.2": [
        "def confusions(truth, said, verbs):\n"
        "    n = len(verbs)\n"
        "    rows = [[0] * n for _ in verbs]\n"
        "    for pairs, told in zip(truth, said):\n"
        "        for actor, verb in pairs:\n"
        "            told_verb = None\n"
        "            for name, other in told:\n"
        "                if name == actor:\n"
        "                    told_verb = other\n"
        "            if told_verb in verbs:\n"
        "                rows[verbs.index(verb)][verbs.index(told_verb)] += 1\n"
        "    return rows",
    ],
    "A.3": [
        "def ceiling(counts):\n"
        "    best = sum(max(row) for row in counts.tolist())\n"
        "    return best / float(counts.sum())",
    ],
    "B.1": [
        "import unicodedata\n\n\ndef words_of(text):\n"
        '    text = unicodedata.normalize("NFC", text.lower())\n'
        '    return "".join(c if c.isalpha() else " " for c in text).split()',
    ],
    "B.2": [
        "def phrase(noun, gender, case, adjective):\n"
        '    article = {"m": "", "n": "", "f": "e"}[gender]\n'
        '    ending = {"m": "er", "n": "es", "f": "e"}[gender]\n'
        '    if case == "dative":\n'
        '        article, ending = "er" if gender == "f" else "em", "en"\n'
        '    middle = adjective + ending + " " if adjective else ""\n'
        '    return f"ein{article} {middle}{noun}"',
    ],
    "C.1": [
        "def two_scales(cells):\n"
        "    B, P, D = cells.shape\n"
        "    side = int(P**0.5)\n"
        "    grid = cells.transpose(1, 2).reshape(B, D, side, side)\n"
        "    coarse = torch.nn.functional.avg_pool2d(grid, 2)\n"
        "    return torch.cat([cells, coarse.flatten(2).transpose(1, 2)], 1)",
    ],
    "C.3": [
        "import torch\n\n\ndef coarse_bias(fine, coarse, share):\n"
        "    share = torch.tensor(share)\n"
        "    return torch.logit(share) + math.log(fine / coarse)"
    ],
    "D.2": [
        "def consensus(captions, log_probs, alike):\n"
        "    table = torch.tensor(\n"
        "        [[alike(a, b) for b in captions] for a in captions]\n"
        "    )\n"
        "    return captions[(table @ log_probs.float().softmax(0)).argmax()]",
    ],
}
