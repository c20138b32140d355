"""Chapter 12: what readers get wrong, and other right answers."""

MISTAKES = {
    "12.1": [
        ("turned", {"a - b for": "b - a for"}, "the row minus the baseline"),
        (
            "population",
            {"gaps.std()": "gaps.std(correction=0)"},
            "divide by n - 1",
        ),
        ("single", {" / len(row) ** 0.5": ""}, "where single gaps lie"),
        ("by n", {"len(row) ** 0.5": "len(row)"}, "not by n"),
        (
            "unpaired",
            {
                "gaps.std()": "(torch.tensor(row).var()"
                " + torch.tensor(baseline).var()) ** 0.5"
            },
            "the spread of the gaps",
        ),
        (
            "half",
            {"gaps.mean() - half, gaps.mean() + half": "half, half"},
            "and yours is",
        ),
        (
            "mean and half",
            {"gaps.mean() - half, gaps.mean() + half": "gaps.mean(), half"},
            "the mean and half the width",
        ),
        (
            "swapped",
            {"- half, gaps.mean() + half": "+ half, gaps.mean() - half"},
            "the lower one comes first",
        ),
        (
            "never above zero",
            {
                "return gaps.mean() - half": "return (gaps.mean() - half).clamp(max=0)"
            },
            "and yours is",
        ),
        ("one size", {"len(row) ** 0.5": "3**0.5"}, "pairs with the gaps"),
    ],
    "12.2": [
        (
            "scores",
            {"scores.softmax(dim=1)": "scores"},
            "softmax is still to come",
        ),
        ("other axis", {"softmax(dim=1)": "softmax(dim=0)"}, "over the cells"),
        (
            "scaled",
            {"scores.softmax": "(scores / cells.shape[2] ** 0.5).softmax"},
            "are scaled",
        ),
        (
            "kept axis",
            {".squeeze(2)": "", "dim=1": "dim=1"},
            "an axis too many",
        ),
    ],
    "12.3": [
        (
            "negative",
            {".clamp(min=0)": ".nan_to_num(0, neginf=0)"},
            "negative entries",
        ),
        ("bits", {".log()": ".log2()"}, "natural logarithm"),
        (
            "quotients",
            {"ratio.log().clamp(min=0)": "ratio.where(ratio > 1, 0 * ratio)"},
            "take their logarithms",
        ),
        (
            "one word",
            {" * p.sum(dim=1, keepdim=True)": ""},
            "all entries are 0",
        ),
        ("infinite", {".clamp(min=0)": ""}, "never meet"),
        (
            "seen once",
            {".clamp(min=0)": ".clamp(min=0).where(counts > 1, 0.0)"},
            "is 0, expected",
        ),
    ],
    "12.4": [
        (
            "as it was",
            {"argmax(dim=1)": "argmax(dim=0)"},
            "captions should come back",
        ),
        ("products", {" / b.norm(dim=1)": ""}, "large means"),
        ("farthest", {"argmax": "argmin"}, "least similar"),
        (
            "first only",
            {"sims.argmax(dim=1).tolist()": "sims[:1].argmax(dim=1).tolist()"},
            "should come back",
        ),
        (
            "cells of one length",
            {
                "    a, b = ": "    grids = grids / grids.norm(dim=2, keepdim=True)\n"
                "    known = known / known.norm(dim=2, keepdim=True)\n    a, b = "
            },
            "the list of captions",
        ),
        (
            "correlation",
            {
                "    sims": "    a = a - a.mean(dim=1, keepdim=True)\n"
                "    b = b - b.mean(dim=1, keepdim=True)\n    sims"
            },
            "the list of captions",
        ),
        (
            "sum of sizes",
            {"b.norm(dim=1)": "b.abs().sum(dim=1)"},
            "the list of captions",
        ),
        (
            "either way",
            {"sims.argmax": "sims.abs().argmax"},
            "the list of captions",
        ),
        (
            "no caption twice",
            {
                "    return [captions[i] for i in sims.argmax(dim=1).tolist()]": (
                    "    found = []\n    for row in sims:\n"
                    "        order = row.argsort(descending=True).tolist()\n"
                    "        left = [i for i in order if captions[i] not in found]\n"
                    "        found += [captions[i] for i in left[:1]]\n"
                    "    return found"
                )
            },
            "the list of captions",
        ),
    ],
}

ALSO_RIGHT = {
    "12.1": [
        "import statistics\n\n\ndef paired_interval(row, baseline, t):\n"
        "    gaps = [a - b for a, b in zip(row, baseline)]\n"
        "    m = statistics.mean(gaps)\n"
        "    half = t * statistics.stdev(gaps) / len(gaps) ** 0.5\n"
        "    return [m - half, m + half]",
        {
            "gaps.mean() - half, gaps.mean() + half": (
                "gaps.mean() + half * torch.tensor([-1.0, 1.0])"
            )
        },
        "import numpy as np\n\n\ndef paired_interval(row, baseline, t):\n"
        "    gaps = np.subtract(row, baseline)\n"
        "    half = t * gaps.std(ddof=1) / np.sqrt(gaps.size)\n"
        "    return gaps.mean() + np.array([-half, half])",
    ],
    "12.2": [
        "def alphas_of(hidden, cells, W):\n"
        "    return torch.einsum('nh,hd,npd->np', hidden, W, cells).softmax(-1)",
    ],
    "12.3": [
        "def ppmi(counts):\n    total = counts.sum()\n    out = torch.zeros_like(counts)\n"
        "    for u in range(len(counts)):\n        for v in range(len(counts)):\n"
        "            if counts[u, v] > 0:\n"
        "                x = counts[u, v] * total / counts[u].sum() / counts[:, v].sum()\n"
        "                out[u, v] = max(0.0, x.log())\n    return out",
    ],
    "12.4": [
        "def mended(grids, known, captions):\n"
        "    a, b = grids.mean(dim=1), known.mean(dim=1)\n"
        "    out = []\n    for x in a:\n"
        "        sims = torch.cosine_similarity(x[None], b, dim=1)\n"
        "        out.append(captions[int(sims.argmax())])\n    return out",
        "import numpy as np\n\n\ndef mended(grids, known, captions):\n"
        "    a, b = grids.mean(dim=1), known.mean(dim=1)\n"
        "    sims = a @ b.T / b.norm(dim=1)\n"
        "    return np.array(captions, dtype=object)[sims.argmax(dim=1).numpy()]",
    ],
}
