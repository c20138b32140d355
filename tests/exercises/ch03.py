"""What readers get wrong in chapter 03, and what they should be told."""

MISTAKES = {
    "03.1": [
        ("softmax over the batch", {"dim=1": "dim=0"}, "each column adds up to 1"),
        ("the plain formula", {" - scores.amax(dim=1, keepdim=True)": ""}, "makes nan"),
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
         "your code stops with RuntimeError"),
    ],
}  # fmt: skip

ALSO_RIGHT = {
    "03.1": [
        "def softmax(scores):\n    return scores.softmax(dim=-1)",
        "def softmax(scores):\n    return (scores - scores.logsumexp(1, keepdim=True)).exp()",
    ],
}
