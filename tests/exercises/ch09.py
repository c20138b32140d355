"""What readers get wrong in chapter 09, and what they should be told."""

MISTAKES = {
    "09.1": [
        ("not shared out", {" / factor**2": ""}, "the map adds up to 9"),
        ("shared along one side", {"factor**2": "factor"}, "the map adds up to 3"),
        ("tiles", {"alpha.repeat(factor, axis=0).repeat(factor, axis=1)":
                   "np.tile(alpha, (factor, factor))"}, "like tiles"),
        ("rows only", {".repeat(factor, axis=1)": ""}, "only the rows were repeated"),
        ("columns only", {".repeat(factor, axis=0)": ""}, "only the columns were repeated"),
        ("softmax again", "def enlarge(alpha, factor):\n"
         "    x = np.exp(np.kron(alpha, np.ones((factor, factor))))\n    return x / x.sum()",
         "a second softmax"),
        ("the largest is 1", "def enlarge(alpha, factor):\n"
         "    x = np.kron(alpha, np.ones((factor, factor)))\n    return x / x.max()",
         "the largest weight is 1 now"),
        ("in place", {"return alpha": "alpha /= factor**2\n    return alpha", " / factor**2": ""},
         "in place"),
    ],
    "09.2": [
        ("x and y", {"x, y = (column + 0.5) * side, (row + 0.5)":
                     "y, x = (column + 0.5) * side, (row + 0.5)"}, "rows and columns are swapped"),
        ("the corner", {"(column + 0.5)": "column", "(row + 0.5)": "row"},
         "upper left corner"),
        ("by rows", {"weights.shape[1]": "weights.shape[0]"}, "by the number of rows"),
        ("most of the weight", "def hits(maps, boxes, side):\n    found = []\n"
         "    for w, (x0, y0, x1, y1) in zip(maps, boxes):\n"
         "        pixels = w.repeat(side, axis=0).repeat(side, axis=1) / side**2\n"
         "        found.append(pixels[y0:y1, x0:x1].sum() > 0.5)\n    return found",
         "most of the weight"),
        ("misses", {"found.append(x0 <= x < x1 and y0 <= y < y1)":
                    "found.append(not (x0 <= x < x1 and y0 <= y < y1))"}, "these are the misses"),
        ("in cells", {"(column + 0.5) * side, (row + 0.5) * side": "column, row"},
         "in a box of pixels"),
        ("smoothed", "from captionlib.visualize import upsample_alpha\n\n\n"
         "def hits(maps, boxes, side):\n    found = []\n"
         "    for w, (x0, y0, x1, y1) in zip(maps, boxes):\n"
         "        size = w.shape[0] * side, w.shape[1] * side\n"
         "        y, x = divmod(int(upsample_alpha(w, size).argmax()), size[1])\n"
         "        found.append(x0 <= x < x1 and y0 <= y < y1)\n    return found",
         "the peak of the smoothed map"),
        ("one cell for all", {"divmod(int(weights.argmax()), weights.shape[1])":
                              "divmod(int(maps.argmax()) % weights.size, weights.shape[1])"},
         "one cell was found for all maps"),
        ("rounded", {"(column + 0.5) * side, (row + 0.5) * side":
                     "round((column + 0.5) * side), round((row + 0.5) * side)"},
         "x = 3.5, y = 3.5, so with the box (0, 0, 4, 4) it is a hit; you say False"),
        ("both edges", {"x < x1 and y0 <= y < y1": "x <= x1 and y0 <= y <= y1"}, "it is a miss"),
        ("a corner of the cell", {"x, y = (column + 0.5) * side, (row + 0.5) * side": "x, y = "
                                  "column * side, row * side",
                                  "x0 <= x < x1 and y0 <= y < y1":
                                  "x0 < x + side and x < x1 and y0 < y + side and y < y1"},
         "any part of the cell"),
        ("the share", {"return found": "return np.mean(found)"}, "a list of True and False"),
        ("numbers", {"return found": "return np.array(found) * 1"}, "[1, 1, 0] to begin"),
        ("one for all", {"return found": "return found[:1]"}, "has the shape (1,)"),
    ],
    "09.3": [
        ("bits and exp", {"np.log(": "np.log2("}, "exp undoes the natural logarithm"),
        ("no exp", {"np.exp(-(alpha * np.log(alpha)).sum())": "-(alpha * np.log(alpha)).sum()"},
         "that is the entropy, in nats"),
        ("sign", {"np.exp(-(": "np.exp(("}, "less than one cell"),
        ("mean", {".sum()": ".mean()"}, "that is the mean over the cells"),
        ("nan", {"alpha = alpha[alpha > 0]": "alpha = alpha * 1"}, "a weight of 0 makes nan"),
        ("squares", {"np.exp(-(alpha * np.log(alpha)).sum())": "1 / (alpha**2).sum()"},
         "by another rule"),
        ("not weighted", {"alpha * np.log": "np.log"}, "counts by its cell's weight"),
        ("cells with weight", {"np.exp(-(alpha * np.log(alpha)).sum())": "alpha.size"},
         ", expected "),
    ],
    "09.4": [
        ("weight alone", {"inside.sum() / (inside.size / pixels.size)": "inside.sum()"},
         "the box's share of the picture"),
        ("difference", {"inside.sum() / (": "inside.sum() - ("}, "the ratio to chance"),
        ("upside down", {"inside.sum() / (inside.size / pixels.size)":
                         "inside.size / pixels.size / inside.sum()"}, "is upside down"),
        ("x and y", {"[y0:y1, x0:x1]": "[x0:x1, y0:y1]"}, "x and y are swapped"),
        ("whole cells", "def lift(alpha, box, side):\n    x0, y0, x1, y1 = box\n"
         "    inside = alpha[y0 // side : -(-y1 // side), x0 // side : -(-x1 // side)]\n"
         "    area = (x1 - x0) * (y1 - y0) / (alpha.size * side**2)\n"
         "    return inside.sum() / area", "count them whole"),
        ("a box of whole cells", "def lift(alpha, box, side):\n    x0, y0, x1, y1 = box\n"
         "    inside = alpha[y0 // side : -(-y1 // side), x0 // side : -(-x1 // side)]\n"
         "    return inside.mean() / alpha.mean()", "enlarge the box to whole cells"),
        ("area in pixels", {"(inside.size / pixels.size)": "inside.size"}, "the area in pixels"),
        ("not shared out", {" / side**2": ""}, "divide it among them"),
        ("means", {"inside.sum()": "inside.mean()"}, ", expected "),
    ],
    "09.5": [
        ("not restored", "def occlusion(score, image, side):\n    whole = score(image)\n"
         "    painted = image.copy()\n"
         "    losses = np.zeros((image.shape[0] // side, image.shape[1] // side))\n"
         "    for r in range(losses.shape[0]):\n        for c in range(losses.shape[1]):\n"
         "            painted[r * side : (r + 1) * side, c * side : (c + 1) * side] = 0.5\n"
         "            losses[r, c] = whole - score(painted)\n    return losses",
         "the squares stay grey"),
        ("in place", {"image.copy()": "image"}, "in place"),
        ("sign", {"whole - score(painted)": "score(painted) - whole"}, "the signs"),
        ("transposed", {"return losses": "return losses.T"}, "came out transposed"),
        ("black", {"= 0.5": "= 0"}, "you paint in black"),
        ("white", {"= 0.5": "= 1"}, "you paint in white"),
        ("128", {"= 0.5": "= 128"}, "you paint in 128, and the pixels are floats"),
        ("only one square kept", {"painted = image.copy()": "painted = np.full_like(image, 0.5)",
                                  "] = 0.5": "] = image[r * side : (r + 1) * side, "
                                  "c * side : (c + 1) * side]"}, "all but one square is grey"),
        ("the square before", {"losses[r, c] = whole - score(painted)":
                               "whole, losses[r, c] = score(painted), whole - score(painted)"},
         "the square before it"),
        ("no whole", {"whole - score(painted)": "-score(painted)"}, "from the score of the whole"),
        ("cut at 0", {"whole - score(painted)": "max(0, whole - score(painted))"},
         "keep what is below 0"),
        ("no sign", {"whole - score(painted)": "abs(whole - score(painted))"}, "keep the sign"),
        ("the score itself", {"whole - score(painted)": "score(painted)"},
         "not the losses"),
        ("a crop", {"painted = image.copy()": "painted = image[: side, : side].copy()"},
         "score expects the whole picture"),
        ("off the grid", {"r * side : (r + 1) * side, c * side : (c + 1) * side":
                          "r : r + side, c : c + side"}, "painting the square in row"),
    ],
}  # fmt: skip

ALSO_RIGHT = {
    "09.1": [
        """def enlarge(alpha, factor):
    rows = [[a / factor**2 for a in row for _ in range(factor)] for row in alpha]
    return [row for row in rows for _ in range(factor)]
""",
        """import torch


def enlarge(alpha, factor):
    alpha = torch.as_tensor(alpha) / factor**2
    return alpha.repeat_interleave(factor, 0).repeat_interleave(factor, 1)
""",
        "def enlarge(alpha, factor):\n    return np.kron(alpha, np.ones((factor, factor))) / "
        "factor**2",
        "from captionlib.visualize import upsample_alpha\n\n\ndef enlarge(alpha, factor):\n"
        "    size = tuple(factor * n for n in alpha.shape)\n"
        "    big = upsample_alpha(alpha, size, smooth=False)\n    return big / big.sum()",
    ],
    "09.2": [
        """def hits(maps, boxes, side):
    def hit(weights, box):
        best = max((w, r, c) for r, row in enumerate(weights) for c, w in enumerate(row))
        x, y = side * best[2] + side / 2, side * best[1] + side / 2
        return box[0] <= x < box[2] and box[1] <= y < box[3]

    return tuple(hit(weights, box) for weights, box in zip(maps, boxes))
""",
        "def hits(maps, boxes, side):\n    n, h, w = maps.shape\n"
        "    rows, columns = np.divmod(maps.reshape(n, -1).argmax(axis=1), w)\n"
        "    x, y = side * (columns + 0.5), side * (rows + 0.5)\n"
        "    x0, y0, x1, y1 = np.array(boxes).T\n"
        "    return (x0 <= x) & (x < x1) & (y0 <= y) & (y < y1)",
    ],
    "09.3": [
        """import math


def cells_looked_at(alpha):
    return math.exp(sum(-a * math.log(a) for a in alpha.ravel() if a))
""",
        """import torch


def cells_looked_at(alpha):
    return torch.special.entr(torch.as_tensor(alpha)).sum().exp()
""",
        "def cells_looked_at(alpha):\n    return 2 ** -(alpha * np.log2(alpha + 1e-12)).sum()",
    ],
    "09.4": [
        """def lift(alpha, box, side):
    x0, y0, x1, y1 = box
    here = [alpha[y // side, x // side] for y in range(y0, y1) for x in range(x0, x1)]
    return np.mean(here) / alpha.mean()
""",
        "def lift(alpha, box, side):\n    x0, y0, x1, y1 = box\n"
        "    h, w = alpha.shape\n    total = 0.0\n"
        "    for r in range(h):\n        for c in range(w):\n"
        "            down = max(0, min(y1, (r + 1) * side) - max(y0, r * side))\n"
        "            across = max(0, min(x1, (c + 1) * side) - max(x0, c * side))\n"
        "            total += alpha[r, c] * down * across / side**2\n"
        "    return total * h * w * side**2 / ((x1 - x0) * (y1 - y0))",
    ],
    "09.5": [
        """def occlusion(score, image, side):
    height, width, _ = image.shape
    losses = []
    for top in range(0, height, side):
        losses.append([])
        for left in range(0, width, side):
            painted = np.array(image, dtype=np.float64)
            painted[top : top + side, left : left + side] = 0.5
            losses[-1].append(score(image) - score(painted))
    return losses
""",
        "import torch\n\n\ndef occlusion(score, image, side):\n    h, w = image.shape[:2]\n"
        "    rows, columns = np.arange(h)[:, None] // side, np.arange(w) // side\n"
        "    return torch.tensor([\n        [\n"
        "            score(image) - score(np.where(((rows == r) & (columns == c))[..., None],"
        " 0.5, image))\n            for c in range(w // side)\n        ]\n"
        "        for r in range(h // side)\n    ])",
    ],
}
