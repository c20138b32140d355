"""Chapter 03, attention."""

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from captionlib.exercises.answers import (
    Wrong,
    also,
    call,
    close,
    compare,
    parts,
    tensor,
)


def exercise_1(softmax) -> str:
    """A softmax that survives large scores."""
    small = torch.tensor(
        [[1.0, 2.0, 3.0, 0.0], [0.0, 0.5, -1.0, 2.0], [0.3, 0.3, 0.3, 0.3]]
    )
    alpha = tensor(call(softmax, small), (3, 4), "alpha")
    if torch.allclose(alpha.sum(dim=0), torch.ones(4)):
        raise Wrong(
            "each column adds up to 1, so the images of the batch share one "
            "look; the weights of one image, a row, should"
        )
    if torch.allclose(alpha.sum(), torch.tensor(1.0)):
        raise Wrong(
            "the whole batch adds up to 1; each image, a row, should for itself"
        )
    compare(
        alpha,
        small.softmax(dim=1),
        [
            (
                small.exp(),
                "the weights are exp(scores), not yet divided by their sum",
            ),
            (
                (small - small.amax(1, keepdim=True)).exp(),
                "each row's largest weight is 1; divide by the row's sum",
            ),
            (
                small / small.sum(1, keepdim=True),
                "the scores are divided, but where is exp?",
            ),
            (
                (small / small.amax(1, keepdim=True)).softmax(dim=1),
                "the scores were divided by their maximum, which changes the "
                "weights: subtract it",
            ),
        ],
        what="alpha",
    )
    large = torch.tensor(
        [[1000.0, 1001.0, 990.0, 0.0], [-1000.0, -1001.0, -1000.0, -1001.0]]
    )

    def of_large(scores, message):
        what = "alpha for large scores"
        try:
            return tensor(call(softmax, scores), scores.shape, what)
        except Wrong as wrong:
            raise Wrong(message if "nan" in str(wrong) else wrong) from None

    of_large(
        large[:1],
        "small scores are fine, but [1000, 1001, 990, 0] gives nan: exp(1000) "
        "is infinite. Which number could you subtract from all of them first?",
    )
    apart = (
        "one image has scores near 1000, another near -1000, and the second "
        "gets no weights: exp(-2000) is 0. Subtract each image's own maximum, "
        "not the batch's"
    )
    alpha = of_large(large, apart)
    if not torch.allclose(alpha.sum(dim=1), torch.ones(2), atol=1e-3):
        raise Wrong(apart)
    compare(
        alpha,
        large.softmax(dim=1),
        what="alpha for large scores",
        tolerance=1e-3,
    )
    also(
        softmax,
        lambda scores: scores.softmax(dim=1),
        *((torch.randn(shape),) for shape in ((1, 1), (5, 2), (2, 7), (3, 3))),
        (500 * torch.randn(4, 3),),
        what="alpha",
    )
    return (
        "large scores and small ones, each image for itself. Adding the same "
        "number to all scores changes nothing, which is why the bias of "
        "full_att can't matter either."
    )


def exercise_2(masked_softmax) -> str:
    """Places where there is nothing to see."""
    scores = torch.tensor(
        [[2.0, 1.0, 0.5, -1.0], [0.3, -0.2, 4.0, 3.0], [1.0, 2.0, 3.0, 4.0]]
    )
    real = torch.tensor([[1, 1, 0, 0], [1, 1, 1, 0], [1, 1, 1, 1]]).bool()
    alpha = call(masked_softmax, scores, real)
    try:
        alpha = tensor(alpha, (3, 4), "alpha")
    except Wrong as wrong:
        if "holds nan" not in str(wrong):
            raise
        raise Wrong(
            "some weights are nan: the row without padding has nothing left, "
            "so the mask is upside down, or minus infinity was multiplied by 0"
        ) from None
    loose, hole = scores.softmax(dim=1), scores.softmax(dim=1) * real
    compare(
        alpha,
        scores.masked_fill(~real, -1e30).softmax(dim=1),
        [
            (
                loose,
                "the padding still gets its weight: `real` has made no "
                "difference",
            ),
            (
                hole,
                "the padding gets no weight, but the rest no longer adds up to "
                "1: mask the scores, before the softmax",
            ),
            (
                (scores * real).softmax(dim=1),
                "a score of 0 is not a weight of 0: exp(0) is 1. Which score "
                "has an exponential of nothing?",
            ),
            (
                (scores * real).softmax(dim=1) * real,
                "the padding's scores of 0 are in the sum, although their "
                "weights were taken out",
            ),
            (
                scores.masked_fill(~real, -1e30).softmax(dim=0),
                "the sum runs over the images; the grid cells of one image "
                "should add up to 1",
            ),
            (
                scores.masked_fill(~real, scores.min()).softmax(dim=1),
                "the lowest score of all is still a score: padding gets a "
                "little weight",
            ),
        ],
        what="alpha",
    )
    large = torch.tensor([[-3000.0, -3001.0, 5.0], [-200.0, 2000.0, 1999.0]])
    kept = torch.tensor([[1, 1, 0], [0, 1, 1]]).bool()
    what = "alpha for large scores"
    try:
        alpha = tensor(call(masked_softmax, large, kept), (2, 3), what)
    except Wrong as wrong:
        if "holds nan" not in str(wrong):
            raise
        raise Wrong(
            "real scores of -3000 beside padding of 5, or of 2000 in another "
            "image, give nan: all the exponentials of the real ones became 0 or "
            "infinite"
        ) from None
    if (most := alpha[~kept].max()) > 0:
        raise Wrong(
            f"beside real scores of -3000, padding gets a weight of {most:.1g}, "
            "and should get 0: is the score in its place low enough?"
        )
    compare(
        alpha,
        large.masked_fill(~kept, -1e30).softmax(dim=1),
        what=what,
        tolerance=1e-3,
    )
    scattered = torch.tensor([[0, 1, 0, 1, 1], [1, 0, 0, 0, 0]]).bool()
    also(
        masked_softmax,
        lambda scores, real: scores.masked_fill(~real, -1e30).softmax(dim=1),
        (2 * torch.randn(2, 5), scattered),
        (-60 * torch.rand(2, 5), scattered),
        (500 * torch.randn(2, 5), scattered),
        (torch.randn(1, 2), torch.tensor([[True, False]])),
        (torch.randn(3, 3), torch.eye(3) == 0),
        what="alpha",
    )
    return "nothing on the padding, and 1 in all."


def exercise_3(contexts) -> str:
    """Five states, one grid."""
    B, k, P, D = 2, 3, 4, 5
    encoder_out = torch.randn(B, P, D)
    alpha = torch.randn(B * k, P).softmax(dim=1)
    image = torch.arange(B * k) // k

    def of(alpha, image):
        return torch.stack(
            [
                (alpha[r, :, None] * encoder_out[image[r]]).sum(0)
                for r in range(6)
            ]
        )

    known = {
        (B, k, D): (
            "the states still have an axis of their own: join it with the "
            "images"
        ),
        (B * k, P, D): (
            "the vectors are weighted, but not yet added up over the grid cells"
        ),
        (B * k, P): "this adds up over the channels; the grid cells should go",
        (B, D): (
            "one context for each image, where each of its three states should "
            "have its own"
        ),
    }
    got = tensor(
        call(contexts, alpha, encoder_out),
        (B * k, D),
        "the result",
        known=known,
    )
    right = of(alpha, image)
    compare(
        got,
        right,
        [
            (
                of(alpha, torch.arange(B * k) % B),
                "each row was given image r % B. The copies are in the order "
                "0, 1, 0, 1, ..., and the rows are in the order 0, 0, 0, 1, 1, "
                "1",
            ),
            (
                of(
                    alpha.view(k, B, P).transpose(0, 1).reshape(B * k, P), image
                ),
                "(n, B, P) was taken for (B, n, P): the three rows of an image "
                "are adjacent",
            ),
            (
                right / P,
                f"each context is {P} times too small: the weights add up to 1 "
                "already, so take the sum over grid cells, not the mean",
            ),
            (
                of(torch.full_like(alpha, 1 / P), image),
                "this is the plain average: the weights are not used",
            ),
            (
                of(alpha, torch.zeros(B * k, dtype=torch.int64)),
                "all rows look at image 0",
            ),
        ],
        otherwise="these are not the averages of image r // n under the weights of row r",
    )

    def right_for(alpha, encoder_out):
        n = len(alpha) // len(encoder_out)
        grids = encoder_out.repeat_interleave(n, dim=0)
        return torch.einsum("rp,rpd->rd", alpha, grids)

    for B, k, P, D in ((1, 4, 3, 2), (3, 1, 2, 6), (2, 5, 4, 4), (4, 3, 2, 1)):
        drawn = torch.randn(B * k, P).softmax(dim=1), torch.randn(B, P, D)
        also(contexts, right_for, drawn)
    with _Largest() as largest:
        call(contexts, torch.rand(60, 4), torch.rand(2, 4, 5))
    said = "each state looks at its own image"
    if largest.numbers >= 60 * 4 * 5:
        return (
            f"{said}; but on the way there is a vector for each state and "
            "cell, as if the grid were copied. A product of (B, n, P) and "
            "(B, P, D) needs none."
        )
    return f"{said}."


class _Largest(TorchDispatchMode):
    """Notes how many numbers the largest tensor holds that is made inside."""

    numbers = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        made = function(*args, **(kwargs or {}))
        for each in made if isinstance(made, (tuple, list)) else [made]:
            if isinstance(each, torch.Tensor):
                size = each.untyped_storage().nbytes() // each.element_size()
                self.numbers = max(self.numbers, size)
        return made


def exercise_4(attend) -> str:
    """Scaled dot products."""
    B, P, A, D = 2, 3, 16, 4
    query = 2 * torch.randn(B, A)
    keys = torch.randn(B, P, A)
    values = torch.randn(B, P, D)
    result = call(attend, query, keys, values)
    context, alpha = parts(result, "context", "alpha")
    swapped = {(B, P): "alpha came first; the order is context, alpha"}
    context = tensor(context, (B, D), "the context", known=swapped)
    alpha = tensor(alpha, (B, P), "alpha")
    products = (keys * query[:, None]).sum(2)
    compare(
        alpha,
        (products / 4).softmax(dim=1),
        [
            (products.softmax(dim=1), "the dot products are not scaled"),
            (
                (products / A).softmax(dim=1),
                "divided by A; its square root is enough, for a sum of A "
                "products grows like the root of A",
            ),
            (
                (products / P**0.5).softmax(dim=1),
                "this is the root of P; A is the vectors' length",
            ),
            (
                (products / D**0.5).softmax(dim=1),
                "this is the root of D; A is the keys' length",
            ),
            (
                (products / B**0.5).softmax(dim=1),
                "this is the root of B, the number of images; A is the keys' "
                "length",
            ),
            (
                (products * 4).softmax(dim=1),
                "multiplied by the root of A, not divided",
            ),
            (
                (products / 4).softmax(dim=0),
                "the softmax runs over the images, not the grid cells",
            ),
            (products / 4, "these are the scores; the softmax is missing"),
        ],
        what="alpha",
    )
    right = (alpha[:, :, None] * values).sum(1)
    compare(
        context,
        right,
        [
            (
                right / P,
                "the context is the mean of weighted values; the weights add "
                "up to 1 already",
            ),
            (values.mean(1), "the context is the plain average of the values"),
        ],
        what="the context",
    )

    def right_for(query, keys, values):
        scores = (keys @ query[:, :, None])[:, :, 0] / query.shape[1] ** 0.5
        alpha = scores.softmax(dim=1)
        return (alpha[:, None] @ values)[:, 0], alpha

    for B, P, A, D in ((1, 2, 3, 1), (3, 5, 1, 2), (4, 4, 4, 4), (2, 1, 9, 3)):
        drawn = torch.randn(B, A), torch.randn(B, P, A), torch.randn(B, P, D)
        also(attend, right_for, drawn, what="the answer")
    also(attend, right_for, (query, keys, keys), what="the answer")
    return "the same three moves, score, softmax and average, with one product for a score."


def exercise_5(look) -> str:
    """Hard attention."""
    B, P, D = 3, 4, 2
    known = {
        (B, 1, D): (
            "an axis of length 1 is left over, where the grid cells were"
        ),
        (B,): "these seem to be numbers of grid cells; return their vectors",
        (B, 1): "these seem to be numbers of grid cells; return their vectors",
        (B, B, D): (
            "each image got the cells of all images: index rows and cells in "
            "pairs"
        ),
    }
    few = torch.randn(B, P).softmax(dim=1), torch.randn(B, P, D)
    tensor(call(look, *few), (B, D), "the result", known=known)
    n = 4000
    weights = torch.tensor(
        [[0.136, 0.26, 0.5995, 0.0045], [0.57, 0.13, 0.0, 0.3]]
    )
    alpha = weights.repeat_interleave(n, 0)
    # An image's number, a cell's, and another number of the cell.
    image = torch.arange(2.0 * n)[:, None].expand(-1, P)
    cell = torch.arange(4.0).expand(2 * n, P)
    encoder_out = torch.stack([image, cell, 0.5 - cell], dim=2)
    got = tensor(call(look, alpha, encoder_out), (2 * n, 3), "the result")
    drawn = _drawn_cells(got, alpha, encoder_out)
    shares = torch.stack(
        [each.bincount(minlength=P) for each in drawn.split(n)]
    )
    shares = shares / n
    if (shares == 1).any(dim=1).all():
        looks = [call(look, weights, encoder_out[:2]) for _ in range(20)]
        if all(close(each, looks[0]) for each in looks) and torch.equal(
            drawn, alpha.argmax(dim=1)
        ):
            raise Wrong(
                "it always looks at the cell with the largest weight; the "
                "others should have their chance, too"
            )
        raise Wrong(
            "one draw served the whole batch: all images look at the same cell"
        )
    _check_shares(shares, weights, n)
    again = tensor(call(look, alpha, encoder_out), (2 * n, 3))
    if torch.equal(again, got):
        raise Wrong(
            "a second call draws the same cells: do not set the seed inside"
        )
    _check_independent(look)
    # Where a weight is 1, there is no choice.
    for B, P, D in ((1, 2, 1), (5, 3, 4), (4, 6, 3)):
        sure = torch.eye(P)[torch.randint(P, (B,))]
        also(
            look,
            lambda alpha, cells: (alpha[:, :, None] * cells).sum(dim=1),
            (sure, torch.randn(B, P, D)),
        )
    return "one cell for each image, as often as its weight says."


def _drawn_cells(got, alpha, encoder_out) -> torch.Tensor:
    """Which cell each row shows, or `Wrong` if one shows none of its own."""
    soft = (alpha[:, :, None] * encoder_out).sum(1)
    if torch.allclose(got, soft, rtol=1e-4, atol=1e-3):
        raise Wrong(
            "this is the average, so soft attention; here one vector is to be "
            "drawn"
        )

    def shown(vectors):
        """Where each row is one of these vectors of its image."""
        return torch.isclose(got[:, None], vectors, atol=1e-4).all(dim=2)

    own = shown(encoder_out)
    if own.any(dim=1).all():
        return own.int().argmax(dim=1)
    if shown(alpha[:, :, None] * encoder_out).any(dim=1).all():
        raise Wrong(
            "each vector was multiplied by its weight; a cell that is looked at "
            "counts whole"
        )
    within = got[:, 0].round().long().clamp(0, len(got) - 1)
    if torch.isclose(got[:, None], encoder_out[within]).all(2).any(1).all():
        raise Wrong("some rows come from another image")
    if torch.equal(got[:, 0], encoder_out[:, 0, 0]) and all(
        torch.isin(each, values).all()
        for each, values in zip(got.T, encoder_out[0].T, strict=True)
        if not torch.equal(each, got[:, 0])
    ):
        raise Wrong(
            "some vectors are made of numbers from several cells: draw one cell "
            "for an image, not one for each of the D numbers"
        )
    raise Wrong("some rows are none of their image's vectors")


def _check_shares(shares, weights, n: int) -> None:
    """Raise `Wrong` unless the cells of two groups of `n` images were drawn
    with these weights, up to chance."""
    error = 5 * (weights * (1 - weights) / n).sqrt()
    never = (weights > 0) & (shares == 0)
    if ((shares - weights).abs() <= error).all() and not never.any():
        return

    def near(other):
        return (shares - other).abs().max() < 0.03

    if near(torch.full_like(weights, 1 / weights.shape[1])):
        raise Wrong(
            "all cells are drawn equally often: the weights play no part"
        )
    if near(weights.softmax(dim=1)):
        raise Wrong(
            "weights like [0.57, 0.13, 0, 0.3] are drawn as if they were "
            "scores, after another softmax: they are probabilities already"
        )
    if near(weights[:1]) or near(weights[1:]):
        raise Wrong("every image is drawn with the weights of one and the same")
    if never.any() and near(weights):
        raise Wrong(
            f"a cell of weight {weights[never][0]:.4f} was not drawn once in "
            f"{n} looks"
        )
    group = int((shares - weights).abs().amax(dim=1).argmax())
    listed = [
        ", ".join(f"{each:.4f}" for each in row)
        for row in (weights[group].tolist(), shares[group].tolist())
    ]
    raise Wrong(
        f"for weights of {listed[0]} the four cells were drawn with shares of "
        f"{listed[1]}, in {n} looks"
    )


def _check_independent(look) -> None:
    """Raise `Wrong` if two images of a small batch look at the same one of two
    cells more or less often than half of the time."""
    B, looks = 4, 400
    alpha = torch.full((B, 2), 0.5)
    cells = torch.arange(2.0).expand(B, 2)[:, :, None]
    drawn = [
        tensor(call(look, alpha, cells), (B, 1))[:, 0] for _ in range(looks)
    ]
    drawn = torch.stack(drawn)
    pairs = torch.combinations(torch.arange(B))
    alike = drawn[:, pairs[:, 0]] == drawn[:, pairs[:, 1]]
    share = alike.float().mean(dim=0)
    apart = (share - 0.5).abs()
    worst = int(apart.argmax())
    if apart[worst] > 2.5 / looks**0.5:
        i, j = pairs[worst].tolist()
        raise Wrong(
            f"images {i} and {j} of a batch of {B}, with weights of 0.5 and 0.5, "
            f"look at the same cell in {share[worst]:.0%} of {looks} calls, "
            "expected 50%: their draws depend on each other"
        )
    mean = share.mean()
    if (mean - 0.5).abs() > 2.5 / (looks * len(pairs)) ** 0.5:
        raise Wrong(
            f"two images of a batch of {B}, with weights of 0.5 and 0.5, look at "
            f"the same cell in {mean:.0%} of {looks} calls, expected 50%: the "
            "draws of a batch depend on each other"
        )
