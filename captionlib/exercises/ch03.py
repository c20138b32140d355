"""Chapter 03, attention."""

import torch

from captionlib.exercises.answers import Wrong, call, compare, tensor


def exercise_1(softmax) -> str:
    """A softmax that survives large scores."""
    small = torch.tensor([[1.0, 2.0, 3.0, 0.0], [0.0, 0.5, -1.0, 2.0], [0.3, 0.3, 0.3, 0.3]])
    alpha = tensor(call(softmax, small), (3, 4), "alpha")
    if torch.allclose(alpha.sum(dim=0), torch.ones(4)):
        raise Wrong(
            "each column adds up to 1, so the images of the batch share one look; the weights of "
            "one image, a row, should"
        )
    if torch.allclose(alpha.sum(), torch.tensor(1.0)):
        raise Wrong("the whole batch adds up to 1; each image, a row, should for itself")
    compare(
        alpha,
        small.softmax(dim=1),
        [
            (small.exp(), "the weights are exp(scores), not yet divided by their sum"),
            (
                (small - small.amax(1, keepdim=True)).exp(),
                "each row's largest weight is 1; divide by the row's sum",
            ),
            (small / small.sum(1, keepdim=True), "the scores are divided, but where is exp?"),
        ],
        what="alpha",
    )
    large = torch.tensor([[1000.0, 1001.0, 990.0, 0.0], [-1000.0, -1001.0, -1000.0, -1001.0]])
    alpha = call(softmax, large)
    if alpha[0].isnan().any():
        raise Wrong(
            "small scores are fine, but of [1000, 1001, 990, 0] it makes nan: exp(1000) is "
            "infinite. Which number could you take away from all of them first?"
        )
    if not torch.allclose(alpha.sum(dim=1), torch.ones(2), atol=1e-3):
        raise Wrong(
            "one image has scores near 1000, another near -1000, and the second gets no weights: "
            "exp(-2000) is 0. Take away each image's own maximum, not the batch's"
        )
    compare(alpha, large.softmax(dim=1), what="alpha for large scores", tolerance=1e-3)
    return (
        "large scores and small ones, each image for itself. Adding the same number to all scores "
        "changes nothing, which is why the bias of full_att can't matter either."
    )
