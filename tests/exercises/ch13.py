"""Chapter 13: what readers get wrong, and other right answers."""

MISTAKES = {
    "13.1": [
        ("no softmax", {"alpha * (rewards - alpha @ rewards)": "rewards + 0"}, "through a softmax"),
        ("no mean", {"(rewards - alpha @ rewards)": "rewards"}, "above the mean reward"),
        ("descends", {"(rewards - alpha @ rewards)": "(alpha @ rewards - rewards)"},
         "the sign is turned"),
        ("not weighted", {"alpha * (": "("}, "the cell's own probability"),
        ("plain mean", {"alpha @ rewards": "rewards.mean()"}, "the mean over draws"),
    ],
    "13.2": [
        ("turned", {"(one - alpha)": "(alpha - one)"}, "the sign is turned"),
        ("only the drawn", {"(one - alpha)": "one"}, "the other scores have a slope"),
        ("weighted", {"return (": "return alpha[cell] * ("}, "drawing it does that already"),
        ("added", {"- baseline": "+ baseline"}, "is subtracted"),
        ("all rewards", {"rewards[cell]": "rewards"}, "that of the drawn cell"),
        ("none", {" - baseline": ""}, "is left out"),
    ],
    "13.3": [
        ("too late", {"        found.append(b)\n        b = 0.9 * b + 0.1 * reward":
                      "        b = 0.9 * b + 0.1 * reward\n        found.append(b)"},
         "update it afterwards"),
        ("swapped", {"0.9 * b + 0.1": "0.1 * b + 0.9"}, "are swapped"),
        ("starts at the first", {"b = 0.0": "b = float(rewards[0])"}, "the first baseline is 0"),
        ("begins with the first reward", "def baselines(rewards):\n"
         "    found, b = [0.0], float(rewards[0])\n    for reward in rewards[1:].tolist():\n"
         "        found.append(b)\n        b = 0.9 * b + 0.1 * reward\n    return found",
         "begins with the first reward"),
        ("plain mean", "def baselines(rewards):\n"
         "    return rewards.cumsum(0) / torch.arange(1, len(rewards) + 1)", "plain mean"),
        ("one more", {"return found": "return [*found, b]"}, "one for each batch"),
    ],
    "13.4": [
        ("swapped", {"one, alpha": "alpha, one"}, "swapped"),
        ("all drawn", {"torch.where(coin[:, None], one, alpha)": "one"}, "those with False"),
        ("none drawn", {"torch.where(coin[:, None], one, alpha)": "alpha + 0"}, "those with True"),
        ("half of each", {"torch.where(coin[:, None], one, alpha)": "(one + alpha) / 2"},
         "one or the other"),
        ("its alpha", {"one, alpha": "one * alpha, alpha"}, "has weight 1"),
        ("a cell", {"return torch.where(coin[:, None], one, alpha)": "return cells + 0"},
         "all cells of each image"),
        ("as many cells as drawn", {"cells, alpha.shape[1]": "cells"}, "your code stops"),
        ("size of the batch", {"coin[:, None]":
                               "coin[:, None] if len(coin) != alpha.shape[1] else coin"},
         "the table of weights"),
    ],
    "13.5": [
        ("own", {"others = (total - rewards) / (rewards.shape[1] - 1)":
                 "others = total / rewards.shape[1]"}, "part of its own baseline"),
        ("columns", {"others = (total - rewards) / (rewards.shape[1] - 1)":
                     "others = rewards.mean(dim=0)"}, "different captions"),
        ("turned", {"rewards - others": "others - rewards"}, "the sign is turned"),
        ("baselines", {"rewards - others": "others"}, "subtract them"),
        ("K", {"(rewards.shape[1] - 1)": "rewards.shape[1]"}, "K - 1 others"),
        ("one for all", {"others = (total - rewards) / (rewards.shape[1] - 1)":
                         "others = rewards.mean()"}, "baseline of its own"),
        ("by value", "def above_others(rewards):\n    return torch.stack([\n"
         "        torch.stack([x - row[row != x].mean() for x in row]) for row in rewards])",
         "by its place, not by its value"),
        ("keepdim", {"rewards - others":
                     "rewards - (others if len(others) != others.shape[1] else others.T)"},
         "the table is not right"),
    ],
}  # fmt: skip

ALSO_RIGHT = {
    "13.1": [
        "def exact(alpha, rewards):\n    slopes = torch.diag(alpha) - torch.outer(alpha, alpha)\n"
        "    return slopes @ rewards",
        "def exact(alpha, rewards):\n    scores = alpha.log().requires_grad_()\n"
        "    (scores.softmax(0) @ rewards).backward()\n    return scores.grad",
    ],
    "13.2": [
        "def estimate(alpha, rewards, cell, baseline):\n"
        "    scores = alpha.log().requires_grad_()\n"
        "    scores.log_softmax(0)[cell].backward()\n"
        "    return (rewards[cell] - baseline) * scores.grad",
    ],
    "13.3": [
        "def baselines(rewards):\n    found = torch.zeros(len(rewards))\n"
        "    for k in range(1, len(rewards)):\n"
        "        found[k] = 0.9 * found[k - 1] + 0.1 * rewards[k - 1]\n    return found",
    ],
    "13.4": [
        "def weights_of(alpha, cells, coin):\n    out = alpha.clone()\n"
        "    for i in range(len(alpha)):\n        if coin[i]:\n"
        "            out[i] = 0\n            out[i, cells[i]] = 1\n    return out",
    ],
    "13.5": [
        "def above_others(rewards):\n    K = rewards.shape[1]\n"
        "    return (rewards - rewards.mean(dim=1, keepdim=True)) * K / (K - 1)",
    ],
}
