"""What readers get wrong in chapter 06, and what they should be told."""

MISTAKES = {
    "06.1": [
        ("multiplied", {"beam_scores[:, None] +": "beam_scores[:, None] *"}, "logarithms added"),
        ("one each", "def continue_beam(beam_scores, log_probs):\n"
         "    scores, words = (beam_scores[:, None] + log_probs).max(dim=1)\n"
         "    return scores, torch.arange(3), words", "they compete"),
        ("three each", {"sums.flatten().topk(K)": "sums.topk(K)"}, "three for each prefix"),
        ("fractions", {"positions // V": "positions / V"}, "your beams have fractions"),
        ("changed places", {"positions // V, positions % V": "positions % V, positions // V"},
         "beams and words are swapped"),
        ("by K", {"// V, positions % V": "// K, positions % K"}, "divide positions by K"),
        ("nothing added", {"beam_scores[:, None] + ": ""}, "scores of the last word alone"),
        ("a row for a column", {"[:, None]": ""}, "your code stops"),
        ("the worst", {"topk(K)": "topk(K, largest=False)"}, "best continuation is word 2"),
        ("through probabilities", {"beam_scores[:, None] + log_probs":
                                   "(beam_scores[:, None].exp() * log_probs.exp()).log()"},
         "scores near -800"),
        ("three a prefix at most", "def continue_beam(beam_scores, log_probs):\n"
         "    k = min(len(beam_scores), 3, log_probs.shape[1])\n"
         "    best, words = log_probs.topk(k, dim=1)\n"
         "    sums = (best + beam_scores[:, None]).flatten()\n"
         "    scores, places = sums.topk(min(len(beam_scores), len(sums)))\n"
         "    return scores, places // k, words.flatten()[places]", "called with [-40.0, -1.0"),
        ("probabilities", {"return scores,": "return scores.exp(),"}, "these are probabilities"),
    ],
    "06.2": [
        ("multiplied", {"log_prob / length": "log_prob * length"}, "divide by it"),
        ("the plain power", {"(5 + len(alphas)) ** a / (5 + 1) ** a": "len(alphas) ** a"},
         "as `settle` does"),
        ("no denominator", {" / (5 + 1) ** a": ""}, "is missing"),
        ("cells for words", {"len(alphas)": "alphas.shape[1]"}, "counts the cells"),
        ("not limited", {".clamp(max=1)": ""}, "rewarded for it"),
        ("each map by itself", {"alphas.sum(dim=0).clamp(max=1)": "alphas.clamp(max=1)"},
         "they belong to the sum"),
        ("over the cells", {"dim=0": "dim=1"}, "every row adds up to 1"),
        ("subtracted", {"+ b *": "- b *"}, "negative as it stands"),
        ("a mean", {".log().sum()": ".log().mean()"}, "not their mean"),
        ("no b", {"b * covered": "covered"}, "b is missing"),
        ("all divided", {"log_prob / length + b * covered.log().sum()":
                         "(log_prob + b * covered.log().sum()) / length"}, "divides log p alone"),
        ("one word too few", {"(5 + len(alphas))": "(4 + len(alphas))"}, "4 + T in place of"),
        ("one word too many", {"(5 + len(alphas))": "(6 + len(alphas))"}, "6 + T in place of"),
        ("a floor", {".clamp(max=1)": ".clamp(0.01, 1)"}, "T = 1, P = 4"),
        ("a number a cell", {".log().sum()": ".log()"}, "should be one number"),
    ],
    "06.3": [
        ("the length of now", {"longest**a": "length**a"}, "divide by the current length"),
        ("raw", {" / longest**a": ""}, "you compare raw sums"),
        ("multiplied", {"log_prob /": "log_prob *"}, "you multiply by the length"),
        ("turned round", {"> best": "< best"}, "the wrong way round"),
        ("a tie", {"> best": ">= best"}, "-4 does not beat -4"),
        ("no exponent", {"**a": ""}, "doesn't depend on a"),
        ("the length left", {"longest**a": "(longest - length) ** a"},
         "best=-0.5, a=1) should be True"),
        ("a place for the end", {"longest**a": "(longest + 1) ** a"}, "is itself the divisor"),
        ("both lengths", {"longest**a": "(length + longest) ** a"}, "you add length and longest"),
        ("as in 06.2", {"longest**a": "((5 + longest) / 6) ** a"}, "the divisor of 06.2"),
        ("between 1 and longest", {"longest**a": "(1 - a + a * longest)"}, "a=0.5) should be"),
        ("words that cost", {"log_prob /": "(log_prob - 0.01 * (longest - length)) /"},
         "should be True, and you have False"),
        ("a number", {" > best": ""}, "True or False should come back"),
    ],
    "06.4": [
        ("without the one that crosses", {"likelier < p": "ordered.cumsum(0) <= p"},
         "takes the sum across p"),
        ("not sorted", {"kept = places[likelier < p]": "kept = probs.cumsum(0) - probs < p"},
         "sort first"),
        ("not put back", {"result[kept] = probs[kept]": "result[: len(kept)] = probs[kept]"},
         "at the wrong words"),
        ("not normalised", {" / result.sum()": ""}, "rescale them to 1"),
        ("each word by itself", {"likelier < p": "ordered > 0.1 * p"}, "with each word's own"),
        ("above p", {"    kept = places[likelier < p]": "    kept = places[ordered >= p]"},
         "no single word has 0.9"),
        ("all that are tied", {"    result[kept] = probs[kept]":
                               "    kept = probs >= probs[kept].min()\n"
                               "    result[kept] = probs[kept]"}, "no more than needed"),
        ("a tied word twice", "def nucleus(probs, p):\n    x, total = probs.tolist(), 0\n"
         "    result = [0.0] * len(x)\n    for each in sorted(x, reverse=True):\n"
         "        if total < p:\n            result[x.index(each)] = each\n"
         "            total += each\n"
         "    return [each / total for each in result]", "still two words: its"),
        ("tied words as one", "def nucleus(probs, p):\n    x, total, kept = probs.tolist(), 0, []\n"
         "    for each in sorted(set(x), reverse=True):\n        if total < p:\n"
         "            kept.append(each)\n            total += each\n"
         "    result = probs * torch.tensor([each in kept for each in x])\n"
         "    return result / result.sum()", "nucleus for 0.75"),
        ("a mask", "def nucleus(probs, p):\n    ordered, places = probs.sort(descending=True)\n"
         "    return torch.zeros(4).index_fill(0, places[ordered.cumsum(0) - ordered < p], 1.0)",
         "which words are in"),
        ("nothing left", "def nucleus(probs, p):\n"
         "    ordered, places = probs.sort(descending=True)\n"
         "    kept = places[: round(p * 3)] if p > 0.5 else places[:0]\n"
         "    result = torch.zeros_like(probs)\n    result[kept] = probs[kept]\n"
         "    return result / result.sum()", "no word is left to draw"),
    ],
    "06.5": [
        ("mean of logarithms", {"log_probs.logsumexp(dim=0) - math.log(len(log_probs))":
                                "log_probs.mean(dim=0)"}, "mean of the logarithms"),
        ("a sum", {" - math.log(len(log_probs))": ""}, "not yet a mean"),
        ("no logarithm", {"log_probs.logsumexp(dim=0) - math.log(len(log_probs))":
                          "log_probs.exp().mean(dim=0)"}, "these are probabilities"),
        ("underflow", {"log_probs.logsumexp(dim=0) - math.log(len(log_probs))":
                       "log_probs.exp().mean(dim=0).log()"}, "exp(-200) becomes 0"),
        ("underflow in float64", {"log_probs.logsumexp(dim=0) - math.log(len(log_probs))":
                                  "log_probs.double().exp().mean(dim=0).log()"},
         "exp(-1000) becomes 0"),
        ("clamped", {"log_probs.logsumexp(dim=0) - math.log(len(log_probs))":
                     "log_probs.double().clamp(min=-700).exp().mean(dim=0).log()"},
         "-1000 and -1001"),
        ("over the rows", {"dim=0": "dim=1"}, "you average over the N rows"),
        ("divided", {" - math.log(len(log_probs))": " / len(log_probs)"}, ", expected "),
    ],
}  # fmt: skip

ALSO_RIGHT = {
    "06.1": [
        """def continue_beam(beam_scores, log_probs):
    found = [
        (beam + each, i, word)
        for i, (beam, row) in enumerate(zip(beam_scores.tolist(), log_probs.tolist()))
        for word, each in enumerate(row)
    ]
    found.sort(reverse=True)
    scores, beams, words = zip(*found[: len(beam_scores)])
    return scores, beams, words
""",
        """import numpy as np


def continue_beam(beam_scores, log_probs):
    sums = beam_scores.numpy()[:, None] + log_probs.numpy()
    best = np.argsort(sums, axis=None)[::-1][: len(sums)]
    beams, words = np.unravel_index(best, sums.shape)
    return sums.ravel()[best], beams, words
""",
        "def continue_beam(beam_scores, log_probs):\n"
        "    sums = log_probs + beam_scores.view(-1, 1)\n"
        "    order = sums.flatten().argsort(descending=True)[: len(beam_scores)]\n"
        "    beams, words = torch.unravel_index(order, sums.shape)\n"
        "    return sums[beams, words], beams, words",
    ],
    "06.2": [
        """import math


def rank_by(log_prob, alphas, a, b):
    T, P = alphas.shape
    covered = [sum(alphas[t, i].item() for t in range(T)) for i in range(P)]
    cp = b * sum(math.log(min(each, 1)) for each in covered)
    return log_prob / ((5 + T) / 6) ** a + cp
""",
        """import numpy as np


def rank_by(log_prob, alphas, a, b):
    sums = np.minimum(alphas.numpy().sum(axis=0), 1)
    return log_prob * (6 / (len(alphas) + 5)) ** a + b * np.log(sums).sum()
""",
    ],
    "06.3": [
        "import numpy as np\n\n\ndef can_win(log_prob, length, longest, best, a):\n"
        "    return np.float64(log_prob) > best * longest**a",
    ],
    "06.4": [
        "def nucleus(probs, p):\n    x, result, total = probs.tolist(), [0.0] * len(probs), 0\n"
        "    for i in sorted(reversed(range(len(x))), key=lambda i: -x[i]):\n"
        "        if total < p:\n            result[i], total = x[i], total + x[i]\n"
        "    return [each / total for each in result]",
        """import numpy as np


def nucleus(probs, p):
    probs = probs.double().numpy()
    result, total = np.zeros(len(probs)), 0.0
    for place in np.argsort(-probs):
        if total >= p:
            break
        result[place] = probs[place]
        total += probs[place]
    return result / total
""",
        "def nucleus(probs, p):\n    ordered, places = probs.sort(descending=True)\n"
        "    count = int((ordered.cumsum(0) < p).sum()) + 1\n"
        "    kept = torch.zeros_like(probs).index_fill(0, places[:count], 1.0)\n"
        "    return probs * kept / (probs * kept).sum()",
    ],
    "06.5": [
        """import numpy as np


def ensemble(log_probs):
    return np.logaddexp.reduce(log_probs.double().numpy(), axis=0) - np.log(len(log_probs))
""",
        "def ensemble(log_probs):\n    most = log_probs.amax(0).clamp(min=-1e30)\n"
        "    return most + (log_probs - most).exp().mean(0).log()",
    ],
}
