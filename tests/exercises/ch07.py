"""What readers get wrong in chapter 07, and what they should be told."""

CAPTION = '["grass", "dog", "green", "runs", "a"]'
PERCENTILES = "np.percentile(differences, [2.5, 97.5])"

MISTAKES = {
    "07.1": [
        ("a text", {CAPTION: '"grass dog green runs a"'}, "should be a list of words"),
        ("four", {', "a"]': "]"}, "expected five words"),
        ("a word of one's own", {'"green"': '"puppy"'}, 'no person said "puppy"'),
        ("repeated", {'"green"': '"grass"'}, "more than once: the others are clipped"),
        ("a pair", {CAPTION: '["grass", "dog", "runs", "green", "a"]'}, '"dog runs" is a pair'),
        ("numbers", {CAPTION: "[1, 2, 3, 4, 5]"}, "should hold only words"),
    ],
    "07.2": [
        ("upside down", {"1 - r / c": "1 - c / r"}, "is upside down"),
        ("ties to the longer", {"len(words)), length)": "len(words)), -length)"},
         "you took the longer"),
        ("no limit", {"min(1.0, math.exp(1 - r / c))": "math.exp(1 - r / c)"},
         "there is no reward for length"),
        ("the shortest", {"min(lengths, key=lambda length: (abs(length - len(words)), length))":
                          "min(lengths)"}, "you took the shortest"),
        ("the longest", {"min(lengths, key=lambda length: (abs(length - len(words)), length))":
                         "max(lengths)"}, "you took the longest"),
        ("a mean of penalties", "def brevity_penalty(references, hypotheses):\n"
         "    each = []\n    for captions, words in zip(references, hypotheses):\n"
         "        r = min((abs(len(c) - len(words)), len(c)) for c in captions)[1]\n"
         "        each.append(min(1, math.exp(1 - r / len(words))))\n"
         "    return sum(each) / len(each)", "the mean of three penalties. BLEU"),
        ("the average length", {"min(lengths, key=lambda length: (abs(length - len(words)), "
                                "length))": "sum(lengths) / len(lengths)"}, "average length"),
        ("each word once", {"len(words)": "len(set(words))", "len(caption)": "len(set(caption))"},
         "a word that is repeated"),
        ("empty ones skipped", {"        lengths =": "        if not words:\n            continue\n"
                                                    "        lengths ="}, "an empty hypothesis"),
        ("a ratio", {"math.exp(1 - r / c)": "c / r"}, ", expected "),
    ],
    "07.3": [
        ("arithmetic", {"[:n].prod() ** (1 / n)": "[:n].mean()"}, "the arithmetic mean"),
        ("an average of scores", "def mean_precision(matched, possible, n):\n"
         "    each = (matched / possible)[:, :n]\n"
         "    return (each.prod(axis=1) ** (1 / n)).mean()", "images' own scores"),
        ("averaged precisions", {"matched.sum(axis=0) / possible.sum(axis=0)":
                                 "(matched / possible).mean(axis=0)"}, "each image's precision"),
        ("the last alone", {"precisions[:n].prod() ** (1 / n)": "precisions[n - 1]"},
         "grams alone"),
        ("no root", {" ** (1 / n)": ""}, "root is missing"),
        ("always the fourth root", {"(1 / n)": "(1 / 4)"}, "fourth root whatever n is"),
        ("one too few", {"[:n]": "[: n - 1]"}, "one column is missing"),
        ("over the wrong axis", {"axis=0": "axis=1"}, ", expected "),
        ("short captions dropped", {"    precisions =": "    long = (possible > 0).all(axis=1)\n"
                                    "    matched, possible = matched[long], possible[long]\n"
                                    "    precisions ="}, "the second caption is left out"),
        ("per cents", {"return ": "return 100 * "}, "a share is asked for"),
        ("an array", {".prod() ** (1 / n)": ""}, "should be one number"),
    ],
    "07.4": [
        ("captions for images", {"len(references)": "sum(map(len, references))"},
         "the number of captions, 8, by images"),
        ("captions counted", "def rarity(references):\n    n = Counter()\n"
         "    for captions in references:\n        for caption in captions:\n"
         "            n.update(set(caption))\n"
         "    return {word: math.log(len(references) / n[word]) for word in n}",
         "you count captions in place of images"),
        ("captions on both sides", "def rarity(references):\n"
         "    captions = [caption for each in references for caption in each]\n"
         "    n = Counter(word for caption in captions for word in set(caption))\n"
         "    return {word: math.log(len(captions) / n[word]) for word in n}",
         "Five people"),
        ("every use", {"{word for caption in captions for word in caption}":
                       "[word for caption in captions for word in caption]"},
         "you count every use"),
        ("turned round", {"len(references) / n)": "n / len(references))"}, "signs are reversed"),
        ("the same image once", {"    images_with =": "    references = [eval(each) for each in "
                                 "dict.fromkeys(map(str, references))]\n    images_with ="},
         "its entry 'a' is 0.4055"),
        ("no logarithm", {"math.log(len(references) / n)": "len(references) / n"},
         "the logarithm is missing"),
        ("base 2", {"math.log(": "math.log2("}, "to base 2"),
        ("a list", {"{word: math.log(len(references) / n)": "[math.log(len(references) / n)",
                    ".items()}": ".items()]"}, "a dictionary from words"),
        ("letters", {"for word in caption}": "for letter in caption for word in letter}"},
         "is missing from your dictionary"),
    ],
    "07.5": [
        ("turned round", {"second - first": "first - second"}, "the sign is reversed"),
        ("no draws", {"(second - first)[draws].mean(axis=1)": "second - first"},
         "the range of single images"),
        ("not in pairs", {"(second - first)[draws].mean(axis=1)":
                          "second[draws].mean(axis=1) - first[draws[::-1]].mean(axis=1)"},
         "far too wide"),
        ("bounds subtracted", {PERCENTILES: "np.percentile(second[draws].mean(axis=1), [2.5, 97.5])"
                               " - np.percentile(first[draws].mean(axis=1), [2.5, 97.5])"},
         "you subtract the bounds"),
        ("90%", {"[2.5, 97.5]": "[5, 95]"}, "you leave out 5"),
        ("quantiles", {"[2.5, 97.5]": "[0.025, 0.975]"}, "`np.percentile` counts from 0 to 100"),
        ("the wrong axis", {"axis=1": "axis=0"}, "is it of the mean over each draw's"),
        ("a sum", {".mean(axis=1)": ".sum(axis=1)"}, "sums over 40 images"),
        ("no mean", {".mean(axis=1)": ""},
         "of single images. Take the mean of the images"),
        ("per cents", {"(second - first)[draws].mean(axis=1)":
                       "100 * (second[draws].mean(axis=1) / first[draws].mean(axis=1) - 1)"},
         "per cents of the first"),
        ("the wrong axis of a square", {"axis=1": "axis=int(draws.shape[0] != draws.shape[1])"},
         "200 images and 200 draws"),
        ("high and low", {"return low, high": "return high, low"}, "are swapped"),
    ],
}  # fmt: skip

ALSO_RIGHT = {
    "07.1": ['caption = ("outside", "field", "dog", "the", "a")'],
    "07.2": [
        """def brevity_penalty(references, hypotheses):
    c = r = 0
    for captions, words in zip(references, hypotheses):
        best = None
        for caption in sorted(captions, key=len):
            if best is None or abs(len(caption) - len(words)) < abs(best - len(words)):
                best = len(caption)
        c, r = c + len(words), r + best
    return 1 if c >= r else np.float64(math.exp(1 - r / c))


import numpy as np
""",
        "def brevity_penalty(references, hypotheses):\n"
        "    from captionlib.metrics import bleu_statistics\n\n"
        "    sums = bleu_statistics(references, hypotheses).sum(axis=0)\n"
        "    return np.exp(min(0.0, 1 - sums[8] / sums[4]))\n\n\nimport numpy as np",
    ],
    "07.3": [
        """import math


def mean_precision(matched, possible, n):
    logs = []
    for k in range(n):
        share = matched[:, k].sum() / possible[:, k].sum()
        logs.append(math.log(share) if share else -math.inf)
    return math.exp(sum(logs) / n)
""",
        "def mean_precision(matched, possible, n):\n"
        "    product = 1.0\n    for k in range(n):\n"
        "        product *= sum(matched[:, k]) / sum(possible[:, k])\n"
        "    return product ** (1 / n)",
    ],
    "07.4": [
        """def rarity(references):
    weights = {}
    for captions in references:
        for caption in captions:
            for word in caption:
                has = [any(word in c for c in group) for group in references]
                weights[word] = -np.log(np.mean(has))
    return weights


import numpy as np
""",
        "from captionlib.scoring.cider import CiderD\n\n\ndef rarity(references):\n"
        "    found = CiderD(references).rarity\n"
        "    return {run[0]: weight for run, weight in found.items() if len(run) == 1}",
    ],
    "07.5": [
        """def paired_interval(first, second, draws):
    means = sorted(sum(second[i] - first[i] for i in row) / len(row) for row in draws)
    out = round(0.025 * len(means))
    return means[out], means[-out - 1]
""",
        """def paired_interval(first, second, draws):
    differences = (second - first)[draws].mean(axis=1)
    return np.quantile(differences, [0.025, 0.975], method="weibull")
""",
        """import torch


def paired_interval(first, second, draws):
    differences = torch.as_tensor(second - first)[torch.as_tensor(draws)].mean(dim=1)
    return differences.quantile(0.025), differences.quantile(0.975)
""",
        "def paired_interval(first, second, draws):\n"
        "    differences = second[draws].mean(1) - first[draws].mean(1)\n"
        "    return np.quantile(differences, [0.025, 0.975]).tolist()",
    ],
}
