"""Chapter 14: what readers get wrong, and other right answers."""

MISTAKES = {
    "14.1": [
        ("expected", {"p * pulls.square().sum(dim=1)": "p"}, "that is the expected reward"),
        ("plain mean", {"weights @ rewards / weights.sum()": "rewards.mean()"}, "the plain mean"),
        ("not by p", {"p * pulls.square()": "pulls.square()"}, "its probability is missing"),
        ("own logit", {"pulls.square().sum(dim=1)": "(1 - p).square()"}, "all K logits"),
        ("lengths", {"pulls.square().sum(dim=1)": "pulls.norm(dim=1)"}, "square the lengths"),
        ("not divided", {" / weights.sum()": ""}, "divide by their sum"),
        ("no mean", {"weights @ rewards": "weights * rewards"}, "should be one number"),
    ],
    "14.2": [
        ("as it was", {"scores.mean(dim=1, keepdim=True)": "scores.mean()", "-(gains": "(gains"},
         "both faults"),
        ("one mean", {"scores.mean(dim=1, keepdim=True)": "scores.mean()"}, "of an easy image"),
        ("turned", {"-(gains": "(gains"}, "should raise the log-probability"),
        ("other axis", {"dim=1": "dim=0"}, "captions of different images"),
        ("no baseline", {" - scores.mean(dim=1, keepdim=True)": ""}, "nothing is subtracted"),
        ("a sum", {"log_p).mean()": "log_p).sum()"}, "a sum came back"),
        ("n times", {"log_p).mean()": "log_p).sum(dim=1).mean()"}, "n times the loss"),
        ("detached", {"* log_p": "* log_p.detach()"}, "no gradient reaches"),
        ("half the gradient", {"(gains * log_p)": "(gains * (log_p + log_p.detach()) / 2)"},
         "the gradient along"),
        ("no mean", {"(gains * log_p).mean()": "(gains * log_p)"}, "has the shape (3, 4)"),
        ("exp", {"* log_p": "* log_p.exp()"}, "is not right"),
    ],
    "14.3": [
        ("padding", {"torch.where(real, taken, 0.0).sum(dim=1)":
                     "taken.sum(dim=1)"}, "the padding"),
        ("mean", {"torch.where(real, taken, 0.0).sum(dim=1)":
                  "torch.where(real, taken, 0.0).sum(dim=1) / lengths"},
         "a mean over the words"),
        ("probabilities", {"torch.where(real, taken, 0.0).sum(dim=1)":
                           "torch.where(real, taken, 0.0).sum(dim=1).exp()"},
         "leave them as logarithms"),
        ("turned", {"return torch": "return -torch"}, "are negative"),
        ("best", {"log_probs.gather(2, words[:, :, None]).squeeze(2)": "log_probs.amax(dim=2)"},
         "the likeliest words"),
        ("no end", {"< lengths[:, None]": "< lengths[:, None] - 1"}, "it was drawn, too"),
        ("each word", {".sum(dim=1)": ""}, "add up those of a caption"),
        ("all", {".sum(dim=1)": ".sum()"}, "each caption has its own"),
        ("shifted", {"words[:, :, None]": "words.roll(-1, 1)[:, :, None]",
                     "< lengths[:, None]": "< lengths[:, None] - 1"}, "shifted by one"),
        ("times zero", {"torch.where(real, taken, 0.0)": "(taken * real)"}, "nan comes out"),
        ("product", {"torch.where(real, taken, 0.0).sum(dim=1)":
                     "taken.exp().where(real, 1.0).prod(dim=1).log()"}, "is -inf, expected"),
        ("squeezed", {".squeeze(2)": ".squeeze()"}, "called with"),
    ],
    "14.4": [
        ("all words", {"    logits[never] = -torch.inf\n": ""}, "still have probability"),
        ("after softmax", "def entropy(logits, never):\n    p = logits.softmax(dim=0)\n"
         "    p[never] = 0\n    p = p[p > 0]\n    return -(p * p.log()).sum()",
         "rule them out before the softmax"),
        ("rest of the probability", "def entropy(logits, never):\n"
         "    p = logits.softmax(dim=0)\n    q = p / (1 - p[never].sum())\n    q[never] = 0\n"
         "    return torch.special.entr(q).sum()", "called with [25.0"),
        ("turned", {"return -(": "return ("}, "entropy is never negative"),
        ("bits", {"p.log()": "p.log2()"}, "in bits"),
        ("exponential", {"return -(p * p.log()).sum()": "return (-(p * p.log()).sum()).exp()"},
         "the exponential"),
        ("not weighted", {"-(p * p.log()).sum()": "-p.log().mean()"}, "by its probability"),
        ("0 times minus infinity", {"    p = p[p > 0]\n": ""}, "nan"),
        ("in place", {"    logits = logits.clone()\n": ""}, "in place"),
    ],
}  # fmt: skip

ALSO_RIGHT = {
    "14.1": [
        "def best_baseline(logits, rewards):\n"
        "    p = logits.softmax(dim=0)\n    weights = p * (1 - 2 * p + p @ p)\n"
        "    return (weights / weights.sum() * rewards).sum().item()",
    ],
    "14.2": [
        "def mended(log_p, scores):\n    n = scores.shape[1]\n"
        "    others = (scores.sum(dim=1, keepdim=True) - scores) / (n - 1)\n"
        "    return ((others - scores) * log_p).sum() / scores.numel()",
        "from captionlib.self_critical import leave_one_out, self_critical_loss\n\n\n"
        "def mended(log_p, scores):\n"
        "    return self_critical_loss(log_p.flatten(), leave_one_out(scores).flatten())",
        "def mended(log_p, scores):\n    total = 0\n    for row, each in zip(log_p, scores):\n"
        "        total -= sum(p * (s - each.mean()) for p, s in zip(row, each))\n"
        "    return total / log_p.numel()",
    ],
    "14.3": [
        "def log_p(log_probs, words, lengths):\n    found = []\n"
        "    for table, ids, n in zip(log_probs, words, lengths):\n"
        "        found.append(sum(table[t, ids[t]] for t in range(n)))\n"
        "    return torch.stack(found)",
    ],
    "14.4": [
        "def entropy(logits, never):\n"
        "    kept = [x for i, x in enumerate(logits.tolist()) if i not in never]\n"
        "    p = torch.tensor(kept).softmax(dim=0)\n"
        "    return torch.special.entr(p).sum().item()",
    ],
}
