"""Chapter 05, training."""

import torch
from torch.nn import functional as F

from captionlib.exercises.answers import (
    Wrong,
    also,
    call,
    close,
    compare,
    describe,
    number,
    tensor,
)


def exercise_1(padded_loss) -> str:
    """The loss of a padded batch."""
    B, T, V = 3, 5, 7
    logits, lengths = 2 * torch.randn(B, T, V), torch.tensor([5, 2, 3])
    targets = torch.randint(1, V, (B, T))  # also where the padding is
    real = torch.arange(T) < lengths[:, None]
    targets[0, 1] = targets[2, 0] = 0  # a word like any other
    logits[~real] *= 3  # nobody looks at what comes out there

    def nll(logits):
        return -logits.log_softmax(2).gather(2, targets[:, :, None])[
            :, :, 0
        ]  # (B, T)

    got = call(padded_loss, logits, targets, lengths)
    if isinstance(got, torch.Tensor) and got.numel() > 1:
        raise Wrong(
            f"one number should come back, and this is {describe(got)}: take the mean"
        )
    got = number(got, "the loss")
    each = nll(logits)
    right = each[real].mean().item()
    axis = logits.log_softmax(1).gather(2, targets[:, :, None])[:, :, 0]
    longer = torch.arange(T) < lengths[:, None] + 1
    shorter = torch.arange(T) < lengths[:, None] - 1
    compare(
        got,
        right,
        [
            (
                each.mean().item(),
                "the padding is in the mean: every place counts, real or not",
            ),
            (
                (each * real).mean().item(),
                "the sum leaves the padding out, but is divided by all places, padding included",
            ),
            (
                ((each * real).sum(1) / lengths).mean().item(),
                "a mean of means: each caption counts the same, so a word of a short one counts "
                "for more. Divide once, by all real tokens",
            ),
            (
                (each * real).sum().item(),
                "that is the sum; divide it by the number of real tokens",
            ),
            (
                (each * real).sum().item() / B,
                "divided by the number of captions, not of tokens",
            ),
            (
                nll(logits.softmax(2))[real].mean().item(),
                "there is a softmax too many: cross_entropy takes raw logits and has one inside",
            ),
            (-right, "the sign: the loss is minus the log-probability"),
            (
                -axis[real].mean().item(),
                "the softmax runs over the steps; it belongs over words",
            ),
            (
                F.cross_entropy(logits.transpose(1, 2), targets).item(),
                "the padding is in the mean: every place counts, real or not",
            ),
            (
                each[longer].mean().item(),
                "one step too many for each caption: a length of 2 means the steps 0 and 1",
            ),
            (
                each[shorter].mean().item(),
                "one step too few for each caption: decode_lengths have left <start> out already",
            ),
            *(
                (
                    value.item(),
                    "the id 0 is taken for padding. Here it is a word, and the "
                    "padding has other ids: decode_lengths say what is real",
                )
                for value in (
                    each[targets != 0].mean(),
                    each[real & (targets != 0)].mean(),
                    each[targets != 0].sum() / lengths.sum(),
                    each[real & (targets != 0)].sum() / lengths.sum(),
                )
            ),
            (
                right / 0.6931471805599453,
                "these are bits; nats want the natural logarithm",
            ),
        ],
        otherwise="this is not the mean of -log p over the real steps",
        tolerance=1e-4,
    )

    def right_for(logits, targets, lengths):
        pairs = zip(logits, targets, lengths.tolist(), strict=True)
        rows = [(each[:n], words[:n]) for each, words, n in pairs]
        said, words = (torch.cat(parts) for parts in zip(*rows, strict=True))
        return F.cross_entropy(said, words).item()

    others = []
    for T, V, counts in (
        (4, 3, [1, 4]),
        (1, 5, [1]),
        (6, 9, [2, 5, 6, 3]),
        (5, 5, [3, 2, 1, 1, 1]),
    ):
        # No caption need be as long as T. Padding is any id, and 0 a word.
        words = torch.randint(V, (len(counts), T))
        drawn = 2 * torch.randn(len(counts), T, V)
        others.append((drawn, words, torch.tensor(counts)))
    also(padded_loss, right_for, *others, what="the loss")
    return "each real token counts once, and padding not at all, as with packed sequences."


def exercise_2(mended) -> str:
    """A training step with two faults."""
    for limit, size in ((1.0, 3), (0.5, 5), (100.0, 4)):
        got, losses = _run(lambda *given: call(mended, *given), limit, size)
        right, expected = _run(_step, limit, size)
        if close(got, _run(lambda *given: 0.0, limit, size)[0]):
            raise Wrong(
                "no weight has moved: are the gradients cleared after "
                "backward, is the loss cut off from the model before it, or is "
                "the optimizer's step missing?"
            )
        for loss in losses:
            if isinstance(loss, torch.Tensor) and loss.requires_grad:
                raise Wrong(
                    "the loss that comes back still has its graph, with all "
                    "that was computed for it: return its number, by .item()"
                )
        compare(
            got,
            right,
            [
                (
                    _run(_never, limit, size)[0],
                    "the gradients are not clipped: that has to happen after "
                    "backward, which makes them, and before step",
                ),
                (
                    _run(_adding, limit, size)[0],
                    "gradients of earlier batches are still in there: clear "
                    "them before backward",
                ),
                (
                    _run(_each_number, limit, size)[0],
                    "each number of the gradients is clipped; the length of "
                    "all together is what counts",
                ),
            ],
            otherwise="after three steps the weights differ from those of a "
            f"right step, with limit = {limit}: do you have each line, "
            "once, in the right order, with `limit`, and clip the length of "
            "all gradients together?",
        )
        found = torch.tensor([number(loss, "the loss") for loss in losses])
        compare(found, torch.tensor(expected), what="the loss that comes back")
    return "clear, compute, backward, clip, step."


def _run(step, limit: float, size: int) -> tuple[torch.Tensor, list]:
    """The weights after three steps, and the losses that came back."""
    torch.manual_seed(size)
    model = torch.nn.Linear(size, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    losses = []
    for batch in torch.randn(3, 8, size):

        def loss_of(model, batch=batch) -> torch.Tensor:
            return (model(batch) - 30).square().mean()

        losses.append(step(model, loss_of, optimizer, limit))
    weights = [weight.detach().flatten() for weight in model.parameters()]
    return torch.cat(weights), losses


def _step(model, loss_of, optimizer, limit) -> float:
    optimizer.zero_grad()
    loss = loss_of(model)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), limit)
    optimizer.step()
    return loss.item()


def _never(model, loss_of, optimizer, limit) -> float:
    return _step(model, loss_of, optimizer, float("inf"))


def _adding(model, loss_of, optimizer, limit) -> float:
    loss = loss_of(model)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), limit)
    optimizer.step()
    return loss.item()


def _each_number(model, loss_of, optimizer, limit) -> float:
    optimizer.zero_grad()
    loss = loss_of(model)
    loss.backward()
    torch.nn.utils.clip_grad_value_(model.parameters(), limit)
    optimizer.step()
    return loss.item()


def exercise_3(clip) -> str:
    """One length for all gradients."""
    gradients = [
        torch.tensor([[3.0, 0.0], [0.0, 4.0]]),
        torch.tensor([12.0]),
        torch.zeros(2, 1),
    ]

    def run(gradients, max_norm):
        got = call(clip, gradients, max_norm)
        if not isinstance(got, (list, tuple)):
            raise Wrong(
                f"a list of tensors should come back, and this is {describe(got)}"
            )
        if len(got) != len(gradients):
            raise Wrong(
                f"{len(gradients)} tensors went in, and {len(got)} came back"
            )
        return [
            tensor(new, old.shape, f"tensor {i}")
            for i, (new, old) in enumerate(zip(got, gradients, strict=True))
        ]

    got = run(gradients[:2], 3.25)  # of length 13
    each = [
        gradient * min(1, 3.25 / gradient.norm()) for gradient in gradients[:2]
    ]
    compare(
        got,
        [gradient / 4 for gradient in gradients[:2]],
        [
            (
                each,
                "each tensor was clipped by itself; one length for all of them keeps the direction",
            ),
            (
                [gradient.clamp(-3.25, 3.25) for gradient in gradients[:2]],
                "each number was clipped; the length of all together is what counts",
            ),
            (
                gradients[:2],
                "gradients of length 13 were not shortened to 3.25",
            ),
            (
                [gradient * 3.25 / 17 for gradient in gradients[:2]],
                "the lengths were added up, 5 + 12; a length is the root of the sum of squares",
            ),
            (
                [gradient * 3.25 / 19 for gradient in gradients[:2]],
                "the numbers were added up, 3 + 4 + 12; a length is the root of the sum of squares",
            ),
            (
                [gradient * 3.25 / 169 for gradient in gradients[:2]],
                "the sum of squares is 169; the length is its root",
            ),
            (
                [gradient / 13 for gradient in gradients[:2]],
                "the length is 1 now, and should be max_norm",
            ),
            (
                [gradient * 3.25 / 12 for gradient in gradients[:2]],
                "the largest number was taken for the length",
            ),
        ],
        otherwise="gradients of length 13, clipped to 3.25, should all be a quarter as long",
    )
    compare(
        run(gradients, 20.0),
        gradients,
        [
            (
                [gradient * 20 / 13 for gradient in gradients],
                "gradients shorter than max_norm were made longer; leave them alone",
            )
        ],
        otherwise="gradients shorter than max_norm should stay as they are",
    )

    def right(gradients, max_norm):
        length = torch.cat([each.flatten() for each in gradients]).norm()
        scale = max_norm / max(length, max_norm)
        return [each * scale for each in gradients]

    for shapes in ([(3,)], [(2, 2), (1, 4), (5,)], [()]):
        drawn = [torch.randn(shape) for shape in shapes]
        for max_norm in (0.1, 0.7, 5.0, 100.0, 0.0):
            compare(
                run(drawn, max_norm),
                right(drawn, max_norm),
                what=f"the list of gradients for max_norm = {max_norm}",
                tolerance=1e-4,
            )
    zeros = [torch.zeros(2), torch.zeros(3)]
    compare(
        run(zeros, 1.0),
        zeros,
        what="what becomes of gradients that are all zero",
    )
    return "shorter where it must be, and always in the same direction."


def exercise_4(cuts) -> str:
    """When is the rate cut?"""

    def run(scores, decay_after):
        return number(
            call(cuts, scores, decay_after), "the number of cuts", whole=True
        )

    run([5, 4, 4, 4], 3)  # is it a whole number at all?
    if run([1, 2, 3, 4, 5, 6], 2):
        raise Wrong(
            "scores that only get better lead to a cut; it counts epochs without a better"
        )
    compare(
        run([5, 4, 4, 4], 3),
        1,
        [
            (
                0,
                "after 5, 4, 4, 4 three epochs have gone by without a better one: that is one cut",
            )
        ],
        what="the number of cuts after 5, 4, 4, 4 with decay_after=3",
    )
    compare(
        run([5, 4, 4], 3),
        0,
        [
            (
                1,
                "after 5, 4, 4 only two epochs have gone by without a better one; it takes three",
            )
        ],
        what="the number of cuts after 5, 4, 4 with decay_after=3",
    )
    compare(
        run([5, *[4] * 6], 3),
        2,
        [
            (
                4,
                "after a cut the count begins again; this cuts in every stale epoch from then on",
            ),
            (
                1,
                "six epochs without a better one are two cuts for decay_after=3; this stops at one",
            ),
        ],
        what="the number of cuts after 5 and six times 4 with decay_after=3",
    )
    compare(
        run([5, 5, 5, 5], 3),
        1,
        [
            (
                0,
                "5, 5, 5, 5: as good is not better, so three epochs have brought nothing",
            )
        ],
        what="the number of cuts after 5, 5, 5, 5 with decay_after=3",
    )
    compare(
        run([5, 1, 2, 3], 3),
        1,
        [
            (
                0,
                "in 5, 1, 2, 3 each is compared with the one before it; none of the last three is "
                "better than 5",
            )
        ],
        what="the number of cuts after 5, 1, 2, 3 with decay_after=3",
    )
    compare(
        run([5, 4, 4, 6, 4, 4], 3),
        0,
        [
            (
                1,
                "in 5, 4, 4, 6, 4, 4 the 6 begins the count again; there are never three in a row",
            )
        ],
        what="the number of cuts after 5, 4, 4, 6, 4, 4 with decay_after=3",
    )

    for scores in ([0.31, 0.312, 0.31], [20.0, 20.001, 20.0]):
        shown = ", ".join(map(str, scores))
        compare(
            run(scores, 2),
            0,
            [
                (
                    1,
                    f"{shown}: the second is better than the first, however "
                    "little, so that only one epoch has gone by without a "
                    "better one",
                )
            ],
            what=f"the number of cuts after {shown} with decay_after=2",
        )

    def right(scores, decay_after):
        stale = [
            n - scores.index(max(scores[: n + 1])) for n in range(len(scores))
        ]
        return sum(n > 0 and n % decay_after == 0 for n in stale)

    drawn = torch.randint(8, (12, 15)).tolist()
    also(
        cuts,
        right,
        *((row, 1 + i % 4) for i, row in enumerate(drawn)),
        ([0, 0, 0], 2),
        ([0, 0], 2),
        ([0.3, 0.1, 0.25, 0.4], 2),
        ([7, 3, 3, 3, 3, 3], 5),
        ([7, 3], 1),
        what="the number of cuts",
    )
    compare(run([], 3), 0, what="the number of cuts before the first epoch")
    return "the rate is 0.8 to this power, and needs no memory but the scores."


def exercise_5(next_input) -> str:
    """A little less teaching."""
    n = 2000
    true, own = torch.arange(n), torch.arange(n) + n

    def share(p):
        got = call(next_input, true, own, p)
        got = tensor(got, (n,), "the result", "int")
        taken = got == own
        if not (taken | (got == true)).all():
            at = int((~(taken | (got == true))).nonzero()[0])
            raise Wrong(
                f"caption {at} gets the word {int(got[at])}, which is neither its true word "
                f"{int(true[at])} nor its own {int(own[at])}"
            )
        return taken.float().mean().item(), taken

    low, first = share(0.2)
    if low in (0.0, 1.0):
        raise Wrong(
            "one coin decides for the whole batch: either all captions get the true word, or none "
            "does"
            if len({share(0.5)[0] for _ in range(20)}) > 1
            else f"with p = 0.2 the model's own word is {'always' if low else 'never'} taken"
        )
    if abs(low - 0.8) < 0.05:
        raise Wrong(
            "p is the share of the model's own words; here it is that of the true words"
        )
    if abs(low - 0.5) < 0.05:
        raise Wrong(
            "the coin is fair whatever p says: with p = 0.2 half of the words are its own"
        )
    if abs(low - 0.2) > 0.05:
        raise Wrong(f"with p = 0.2 it takes {low:.0%} of the model's own words")
    if torch.equal(share(0.2)[1], first):
        raise Wrong(
            "the same captions get their own word each time: draw again at every step"
        )
    for p in (0.0, 1.0):
        if not close(share(p)[0], p):
            raise Wrong(
                f"with p = {p:.0f} it should be {'always' if p else 'never'} its own word"
            )
    for p in (0.5, 0.9):
        if abs((got := share(p)[0]) - p) > 0.06:
            raise Wrong(
                f"with p = {p} it takes {got:.0%} of the model's own words"
            )
    _check_coins(next_input)
    for B in (1, 3, 8):
        words = torch.randperm(20)[: 2 * B]
        for p in (0.0, 1.0):
            also(
                next_input,
                lambda true, own, p: own if p else true,
                (words[:B], words[B:], p),
            )
    return "a coin for each caption, tossed again at each step."


def _check_coins(next_input) -> None:
    """Raise `Wrong` unless each caption has a coin of its own, which falls for
    the model in one of four draws. Six standard deviations are allowed."""
    p, draws, B = 0.25, 1000, 8
    true, own = torch.arange(B), torch.arange(B) + B
    got = [call(next_input, true, own, p) for _ in range(draws)]
    got = [tensor(each, (B,), "the result", "int") for each in got]
    off = (torch.stack(got) == own).double() - p
    variance = p * (1 - p)  # of a coin
    if abs(off.mean()) > 6 * (variance / draws / B) ** 0.5:
        raise Wrong(
            f"with p = {p} it takes {off.mean() + p:.1%} of the model's own "
            "words"
        )
    means = off.mean(dim=0)
    at = int(means.abs().argmax())
    if abs(means[at]) > 6 * (variance / draws) ** 0.5:
        raise Wrong(
            f"of {draws} draws with p = {p}, caption {at} of {B} gets its own "
            f"word in {means[at] + p:.0%}: each caption should have the same "
            "chance"
        )
    together = off.T @ off / draws / variance
    together.fill_diagonal_(0)
    at = int(together.abs().argmax())
    if together.flatten()[at].abs() > 6 / draws**0.5:
        raise Wrong(
            f"captions {at // B} and {at % B} don't get their own words "
            "independently: what one gets says something about the other. "
            "Toss a coin for each"
        )
    ratio = off.sum(dim=1).square().mean() / variance / B
    if abs(ratio - 1) > 0.3:
        raise Wrong(
            f"from draw to draw the number of own words varies too "
            f"{'little' if ratio < 1 else 'much'} for {B} independent coins: "
            "toss one for each caption, rather than fix how many get their own"
        )
    if (off[1:] * off[:-1]).mean().abs() > 6 * variance / (draws * B) ** 0.5:
        raise Wrong(
            "what a caption gets depends on what it got in the step before"
        )
    many, p = torch.zeros(12_000).long(), 0.005
    got = call(next_input, many, many + 1, p)
    count = int(tensor(got, many.shape, "the result", "int").sum())
    if abs(count - 60) > 42:
        raise Wrong(
            f"with p = {p} it takes {count} of 12,000 own words, expected "
            "about 60: p may be any number, not only a whole per cent"
        )
