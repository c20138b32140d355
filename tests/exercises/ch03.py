"""What readers get wrong in chapter 03, and what they should be told."""

MISTAKES = {
    "03.1": [
        ("softmax over the batch", {"dim=1": "dim=0"}, "each column adds up to 1"),
        ("the plain formula", {" - scores.amax(dim=1, keepdim=True)": ""}, "gives nan"),
        (
            "one maximum for the batch",
            {"scores.amax(dim=1, keepdim=True)": "scores.max()"},
            "each image's own maximum",
        ),
        ("not normalised", {"return raised / raised.sum(dim=1, keepdim=True)": "return raised"},
         "each row's largest weight is 1"),
        ("one sum for the batch", {"raised.sum(dim=1, keepdim=True)": "raised.sum()"},
         "the whole batch adds up to 1"),
        ("axis lost in the sum", {"raised.sum(dim=1, keepdim=True)": "raised.sum(dim=1)"},
         "your code stops"),
        ("divided by the maximum", {" - scores.amax": " / scores.amax"}, "subtract it"),
    ],
    "03.2": [
        ("after the softmax", {'scores.masked_fill(~real, float("-inf")).softmax(dim=1)':
                               "scores.softmax(dim=1) * real"}, "no longer adds up to 1"),
        ("scores of zero", {'scores.masked_fill(~real, float("-inf"))': "(scores * real)"},
         "a score of 0"),
        ("filled with zero", {'float("-inf")': "0.0", ".softmax(dim=1)":
                              ".softmax(dim=1) * real"}, "are in the sum"),
        ("upside down", {"~real": "real"}, "upside down"),
        ("no mask", {'.masked_fill(~real, float("-inf"))': ""}, "made no difference"),
        ("over the batch", {"dim=1": "dim=0"}, "over the images"),
        ("filled with too little", {'float("-inf")': "-100.0"}, "a weight of 1,"),
        ("filled with less than the lowest", {'float("-inf")': "scores.min() - 20"},
         "a weight of 6e-10"),
        ("divided again", "def masked_softmax(scores, real):\n"
         "    alpha = scores.softmax(dim=1) * real\n"
         "    return alpha / (alpha.sum(dim=1, keepdim=True) + 1e-12)", "expected 0.7311"),
        ("one maximum for the batch", "def masked_softmax(scores, real):\n"
         "    raised = (scores - scores[real].max()).exp() * real\n"
         "    return raised / raised.sum(dim=1, keepdim=True)", "give nan"),
        ("filled in place", {"masked_fill(": "masked_fill_("}, "in place"),
    ],
    "03.3": [
        ("repeat", {"(alpha.view(B, -1, P) @ encoder_out).reshape(-1, D)":
                    "(alpha[:, :, None] * encoder_out.repeat(len(alpha) // B, 1, 1)).sum(dim=1)"},
         "r % B"),
        ("k first", {"alpha.view(B, -1, P) @ encoder_out":
                     "alpha.view(-1, B, P).transpose(0, 1) @ encoder_out"}, "was taken for"),
        ("the mean", {".reshape(-1, D)": ".reshape(-1, D) / P"}, "not the mean"),
        ("not joined", {".reshape(-1, D)": ""}, "an axis of their own"),
        ("the plain average", {"alpha.view(B, -1, P)": "alpha.view(B, -1, P).mul(0).add(1 / P)"},
         "plain average"),
        ("only for one state", {"(alpha.view(B, -1, P) @ encoder_out).reshape(-1, D)":
                                "(alpha[:, :, None] * encoder_out).sum(dim=1)"},
         "your code stops"),
        ("no sum", {"(alpha.view(B, -1, P) @ encoder_out).reshape(-1, D)":
                    "alpha[:, :, None] * encoder_out.repeat_interleave(len(alpha) // B, 0)"},
         "not yet added up"),
    ],
    "03.4": [
        ("not scaled", {" / keys.shape[2] ** 0.5": ""}, "not scaled"),
        ("by A", {" ** 0.5": ""}, "divided by A"),
        ("the root of P", {"keys.shape[2]": "keys.shape[1]"}, "root of P"),
        ("the root of D", {"keys.shape[2]": "values.shape[2]"}, "root of D"),
        ("the root of B", {"keys.shape[2]": "len(query)"}, "root of B"),
        ("over the batch", {"dim=1": "dim=0"}, "over the images"),
        ("swapped", {'torch.einsum("bp,bpd->bd", alpha, values), alpha':
                     'alpha, torch.einsum("bp,bpd->bd", alpha, values)'}, "alpha came first"),
        ("keys averaged", {'"bp,bpd->bd", alpha, values': '"bp,bpd->bd", alpha, keys'},
         "the context has the shape (2, 16)"),
        ("the context alone", {", values), alpha": ", values)"}, "should come back"),
        ("no softmax", {".softmax(dim=1)": ""}, "the softmax is missing"),
    ],
    "03.5": [
        ("the largest", {"torch.multinomial(alpha, 1).squeeze(1)": "alpha.argmax(dim=1)"},
         "always looks"),
        ("soft", {"encoder_out[torch.arange(len(cell)), cell]":
                  "(alpha[:, :, None] * encoder_out).sum(dim=1)"}, "soft attention"),
        ("equally", {"multinomial(alpha, 1)": "multinomial(torch.ones_like(alpha), 1)"},
         "play no part"),
        ("softmax again", {"multinomial(alpha, 1)": "multinomial(alpha.softmax(dim=1), 1)"},
         "they are probabilities already"),
        ("one draw for all", {"torch.multinomial(alpha, 1).squeeze(1)":
                              "torch.multinomial(alpha[0], 1).expand(len(alpha))"},
         "one draw served"),
        ("the first image's weights", {"multinomial(alpha, 1)":
                                       "multinomial(alpha[:1].expand_as(alpha), 1)"},
         "one and the same"),
        ("all pairs", {"encoder_out[torch.arange(len(cell)), cell]": "encoder_out[:, cell]"},
         "in pairs"),
        ("cell numbers", {"encoder_out[torch.arange(len(cell)), cell]": "cell.float()"},
         "seem to be numbers of grid cells"),
        ("an axis left", {".squeeze(1)": "", "encoder_out[torch.arange(len(cell)), cell]":
                          "encoder_out[torch.arange(len(cell))[:, None], cell]"}, "left over"),
        ("seeded", {"    cell =": "    torch.manual_seed(0)\n    cell ="}, "set the seed"),
        ("numbers drawn apart", "def look(alpha, encoder_out):\n    cell = torch.multinomial("
         "alpha, encoder_out.shape[2], replacement=True)\n"
         "    return encoder_out.gather(1, cell[:, None])[:, 0]", "from several cells"),
        ("times the weight", {"len(cell)), cell]":
                              "len(cell)), cell] * alpha.gather(1, cell[:, None])"},
         "multiplied by its weight"),
        ("ten tickets", {"multinomial(alpha, 1)": "multinomial((10 * alpha).round(), 1)"},
         "with shares of"),
        ("a hundred tickets", {"multinomial(alpha, 1)": "multinomial((100 * alpha).round(), 1)"},
         "was not drawn once"),
        ("neighbours alike", {"cell = torch.multinomial(alpha, 1).squeeze(1)":
                              "u = torch.rand(len(alpha) // 2 + 1).repeat_interleave(2)\n"
                              "    u = u[: len(alpha), None]\n"
                              "    cell = (u > alpha.cumsum(1)[:, :-1]).sum(1)"}, "in 100% of"),
        ("evenly spread", {"cell = torch.multinomial(alpha, 1).squeeze(1)":
                           "u = torch.randperm(len(alpha))[:, None] + torch.rand(len(alpha), 1)\n"
                           "    cell = (u / len(alpha) > alpha.cumsum(1)[:, :-1]).sum(1)"},
         "depend on each other"),
    ],
}  # fmt: skip

ALSO_RIGHT = {
    "03.1": [
        """import numpy as np


def softmax(scores):
    scores = scores.numpy().astype(float)
    raised = np.exp(scores - scores.max(axis=1, keepdims=True))
    return raised / raised.sum(axis=1, keepdims=True)
""",
        "def softmax(scores):\n    return scores.softmax(dim=-1)",
        "def softmax(scores):\n    return (scores - scores.logsumexp(1, keepdim=True)).exp()",
    ],
    "03.2": [
        """import math


def masked_softmax(scores, real):
    rows = []
    for row, kept in zip(scores.tolist(), real.tolist()):
        top = max(s for s, k in zip(row, kept) if k)
        raised = [math.exp(s - top) if k else 0.0 for s, k in zip(row, kept)]
        rows.append([each / sum(raised) for each in raised])
    return rows
""",
        {'float("-inf")': "-1e9"},
    ],
    "03.3": [
        """def contexts(alpha, encoder_out):
    n = len(alpha) // len(encoder_out)
    return [weights @ encoder_out[r // n] for r, weights in enumerate(alpha)]
""",
        """def contexts(alpha, encoder_out):
    alpha, grid = alpha.double().numpy(), encoder_out.double().numpy()
    return (alpha.reshape(len(grid), -1, grid.shape[1]) @ grid).reshape(-1, grid.shape[2])
""",
        "def contexts(alpha, encoder_out):\n"
        "    grid = encoder_out.repeat_interleave(len(alpha) // len(encoder_out), dim=0)\n"
        "    return (alpha.unsqueeze(2) * grid).sum(dim=1)",
    ],
    "03.4": [
        """import math

import numpy as np


def attend(query, keys, values):
    query, keys, values = query.numpy(), keys.numpy(), values.numpy()
    contexts, alphas = [], []
    for q, k, v in zip(query, keys, values):
        raised = np.exp(k @ q / math.sqrt(len(q)))
        alphas.append(raised / raised.sum())
        contexts.append(alphas[-1] @ v)
    return np.array(contexts), np.array(alphas)
""",
        "def attend(query, keys, values):\n    alpha = (keys @ query[:, :, None])[:, :, 0]\n"
        "    alpha = (alpha / query.shape[1] ** 0.5).softmax(1)\n"
        "    return (alpha[:, None] @ values)[:, 0], alpha",
    ],
    "03.5": [
        """import random


def look(alpha, encoder_out):
    drawn = []
    for weights, cells in zip(alpha.tolist(), encoder_out):
        drawn.append(cells[random.choices(range(len(weights)), weights)[0]])
    return torch.stack(drawn)
""",
        "def look(alpha, encoder_out):\n"
        "    cell = torch.distributions.Categorical(probs=alpha).sample()\n"
        "    places = cell[:, None, None].expand(-1, 1, encoder_out.shape[2])\n"
        "    return encoder_out.gather(1, places)[:, 0]",
    ],
}
