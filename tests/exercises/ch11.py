"""Chapter 11: what readers get wrong, and other right answers."""

MISTAKES = {
    "11.1": [
        ("swapped", {"covered(y0, y1), covered(x0, x1)": "covered(x0, x1), covered(y0, y1)"},
         "rows and columns are swapped"),
        ("pixels", {" * side / size\n\n": "\n\n"}, "areas in pixels"),
        ("of the box", {"return torch.outer(covered(y0, y1), covered(x0, x1))":
                        "both = torch.outer(covered(y0, y1), covered(x0, x1))\n"
                        "    return both / both.sum()"}, "shares of the box"),
        ("not clamped", {"inside.clamp(min=0)": "inside"}, "clamp them at 0"),
        ("touched", {"return torch.outer(covered(y0, y1), covered(x0, x1))":
                     "return (torch.outer(covered(y0, y1), covered(x0, x1)) > 0).float()"},
         "every cell that the box touches"),
        ("flat", {"return torch.outer(covered(y0, y1), covered(x0, x1))":
                  "return torch.outer(covered(y0, y1), covered(x0, x1)).flatten()"},
         "leave rows and columns apart"),
        ("centres", "def shares_of(box, side, size):\n    x0, y0, x1, y1 = box\n"
         "    c = (torch.arange(side) + 0.5) * size / side\n"
         "    rows = ((y0 <= c) & (c < y1)).float()\n"
         "    return torch.outer(rows, ((x0 <= c) & (c < x1)).float())", "by its centre"),
        ("painted at 100 times", {"x0, y0, x1, y1 = box":
                                  "x0, y0, x1, y1 = [round(100 * each) / 100 for each in box]"},
         "called with (20.3"),
        ("whole pixels", {"torch.arange(side + 1) * size / side":
                          "torch.arange(side + 1) * (size // side)"}, "3 cells share 32 pixels"),
    ],
    "11.2": [
        ("own", {"(inside.sum(dim=1) - inside.diagonal()) / (len(alphas) - 1)":
                 "inside.diagonal()"}, "the images' own maps"),
        ("all", {"(inside.sum(dim=1) - inside.diagonal()) / (len(alphas) - 1)":
                 "inside.mean(dim=1)"}, "own map is among them"),
        ("other way round", {"dim=1": "dim=0"}, "the maps of the others"),
        ("divided by all", {"(len(alphas) - 1)": "len(alphas)"}, "that you divide by"),
        ("sum", {" / (len(alphas) - 1)": ""}, "return their mean"),
    ],
    "11.3": [
        ("turned", {"steps + lag": "steps - lag"}, "later is steps + lag"),
        ("wraps", {"there = (at >= 0) & (at < lengths)": "there = at < lengths"},
         "a negative place counts from the end"),
        ("beyond", {" & (at < lengths)": " & (at < 5)"}, "beyond the end of a caption"),
        ("zeros", {"return inside[rows, at[there]].mean()":
                   "return inside[rows, at[there]].sum() / len(inside)"}, "count as 0"),
        ("zero weights dropped", {"return inside[rows, at[there]].mean()":
                                  "found = inside[rows, at[there]]\n"
                                  "    return found[found > 0].mean()"},
         "a weight of 0 is left out"),
        ("held", {"there = (at >= 0) & (at < lengths)":
                  "at = at.clamp(min=0).minimum(lengths - 1)\n    there = at >= 0"},
         "give their first or last"),
    ],
    "11.4": [
        ("one at a time", {"for p in order:\n": "whole = grid\n    for p in order:\n"
                           "        grid = whole.clone()\n"}, "only one cell at a time"),
        ("in place", {"grid.clone()": "grid"}, "in place"),
        ("zeros", {"grid[p] = cell": "grid[p] = 0"}, "you put zeros"),
        ("no whole", {"[score(grid)]": "[]"}, "the whole grid comes first"),
        ("own mean", {"grid = grid.clone()": "grid, cell = grid.clone(), grid.mean(dim=0)"},
         "the mean of this grid"),
        ("from 0", {"for p in order": "for p in range(len(grid))"}, "go through `order`"),
        ("backwards", {"for p in order": "for p in reversed(order)"}, "backwards"),
        ("ranks", {"for p in order": "for p in torch.tensor(order).argsort()"},
         "you take `order` for ranks"),
        ("one tensor, many times", "def deletion_curve(score, grid, order, cell):\n"
         "    grids, erased = [grid], grid.clone()\n    for p in order:\n"
         "        erased[p] = cell\n        grids.append(erased)\n"
         "    return [score(each) for each in grids]", "a list of one tensor"),
        ("the mean", {"return scores": "return sum(scores) / len(scores)"}, "6 in all"),
        ("falls", {"return scores": "return [scores[0] - each for each in scores]"},
         "these are the falls"),
        ("left out", "def deletion_curve(score, grid, order, cell):\n"
         "    return [score(grid[order[n:]]) for n in range(len(order) + 1)]",
         "score takes the whole grid"),
    ],
    "11.5": [
        ("turned", {"second - first": "first - second"}, "second minus first"),
        ("once", {".sum(dim=1)  # (R, N)": ".any(dim=1).long()"}, "brings its words twice"),
        ("means of means", "def differences(first, second, images, draws):\n"
         "    words = second - first\n"
         "    means = [words[images == i].mean() for i in range(draws.shape[1])]\n"
         "    return torch.stack(means)[draws].mean(dim=1)", "each word should count alike"),
        ("words drawn", {"(draws[:, :, None] == images)":
                         "(draws[:, :, None] == torch.arange(len(first)))"},
         "numbers of images"),
        ("all words", {"/ counts.sum(dim=1)": "/ len(first)"}, "divide by the number that it has"),
        ("second alone", {"(second - first)": "second"}, "subtract the first"),
        ("ranks for numbers", "def differences(first, second, images, draws):\n"
         "    _, ranks = images.unique(return_inverse=True)\n"
         "    counts = torch.bincount(ranks)\n"
         "    sums = torch.zeros(len(counts)).index_add_(0, ranks, second - first)\n"
         "    draws = draws.clamp(max=len(counts) - 1)\n"
         "    return sums[draws].sum(1) / counts[draws].sum(1)", "is not right"),
        ("counts of too few", "def differences(first, second, images, draws):\n"
         "    counts = torch.bincount(images)\n"
         "    sums = torch.zeros(len(counts)).index_add_(0, images, second - first)\n"
         "    return sums[draws].sum(1) / counts[draws].sum(1)", "the last images have no word"),
        ("no mean", {".sum(dim=1) / counts.sum(dim=1)": ""}, "a number for each word"),
    ],
}  # fmt: skip

ALSO_RIGHT = {
    "11.1": [
        """import numpy as np


def shares_of(box, side, size):
    low = np.arange(side) * size / side
    high = low + size / side
    y = np.clip(np.minimum(high, box[3]) - np.maximum(low, box[1]), 0, None)
    x = np.clip(np.minimum(high, box[2]) - np.maximum(low, box[0]), 0, None)
    return y[:, None] * x * (side / size) ** 2
""",
        "def shares_of(box, side, size):\n    x0, y0, x1, y1 = box\n    cell = size / side\n"
        "    grid = torch.zeros(side, side)\n"
        "    for r in range(side):\n        for c in range(side):\n"
        "            down = max(0, min(y1, (r + 1) * cell) - max(y0, r * cell))\n"
        "            across = max(0, min(x1, (c + 1) * cell) - max(x0, c * cell))\n"
        "            grid[r, c] = down * across / cell**2\n    return grid",
    ],
    "11.2": [
        """import numpy as np


def borrowed(alphas, shares):
    inside = shares.double().numpy() @ alphas.double().numpy().T
    np.fill_diagonal(inside, np.nan)
    return np.nanmean(inside, axis=1)
""",
        "def borrowed(alphas, shares):\n    B = len(alphas)\n"
        "    return torch.tensor([\n"
        "        sum(float(alphas[j] @ shares[i]) for j in range(B) if j != i) / (B - 1)\n"
        "        for i in range(B)\n    ])",
        "def borrowed(alphas, shares):\n"
        "    others = (alphas.sum(dim=0) - alphas) / (len(alphas) - 1)\n"
        "    return (others * shares).sum(dim=1)",
    ],
    "11.3": [
        """import numpy as np


def mean_at(inside, steps, lengths, lag):
    at = steps.numpy() + lag
    kept = (at >= 0) & (at < lengths.numpy())
    return inside.numpy()[kept, at[kept]].mean()
""",
        "def mean_at(inside, steps, lengths, lag):\n    kept = [\n"
        "        float(inside[i, t + lag])\n"
        "        for i, (t, n) in enumerate(zip(steps.tolist(), lengths.tolist()))\n"
        "        if 0 <= t + lag < n\n    ]\n    return sum(kept) / len(kept)",
    ],
    "11.4": [
        """def deletion_curve(score, grid, order, cell):
    if not order:
        return [score(grid)]
    scores = deletion_curve(score, grid, order[:-1], cell)
    rows = [cell if p in order else row for p, row in enumerate(grid)]
    return [*scores, score(torch.stack(rows))]
""",
        "def deletion_curve(score, grid, order, cell):\n    scores = []\n"
        "    for n in range(len(order) + 1):\n        erased = grid.clone()\n"
        "        erased[order[:n]] = cell\n        scores.append(score(erased))\n"
        "    return torch.tensor(scores)",
    ],
    "11.5": [
        """import numpy as np


def differences(first, second, images, draws):
    words = (second - first).double().numpy()
    B = draws.shape[1]
    sums = np.bincount(images, weights=words, minlength=B)
    counts = np.bincount(images, minlength=B)
    draws = draws.numpy()
    return sums[draws].sum(axis=1) / counts[draws].sum(axis=1)
""",
        "def differences(first, second, images, draws):\n    means = []\n"
        "    for row in draws.tolist():\n"
        "        values = torch.cat([(second - first)[images == i] for i in row])\n"
        "        means.append(values.mean())\n    return torch.stack(means)",
    ],
}
