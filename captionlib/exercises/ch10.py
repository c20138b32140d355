"""Chapter 10, GPU training: a stop-watch, a batch in parts, means, rows, and when
a cache pays."""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction

import numpy as np
import torch
from torch import nn

from captionlib.exercises.answers import (
    Wrong,
    also,
    call,
    close,
    compare,
    number,
    shown,
)


class Device:
    """A GPU that isn't there: it takes a moment to hand work over, and the work
    is done while the clock goes on."""

    def __init__(self, now=0.0, seconds=0.25, first=2.0, launch=0.01):
        self.now = self.done = now
        self.seconds, self.first, self.launch = seconds, first, launch
        self.steps = self.waits = 0

    def step(self) -> None:
        self.now += self.launch
        self.done = max(self.done, self.now) + (
            self.first if self.steps == 0 else self.seconds
        )
        self.steps += 1

    def wait(self) -> None:
        self.now = max(self.now, self.done)
        self.waits += 1

    def clock(self) -> float:
        return self.now


def exercise_1(images_per_second) -> str:
    """A stop-watch that waits for the device."""
    device = Device(now=50.0)
    got = number(
        call(images_per_second, device.step, 16, device.wait, device.clock),
        "the images per second",
    )
    if device.steps != 4:
        raise Wrong(
            f"step was called {_times(device.steps)}; it should be four times, "
            "one to warm up and three to time"
        )
    if not device.waits:
        raise Wrong(
            "wait() is never called, so the clock times how fast steps are "
            "handed over"
        )
    # 0.76 seconds, since the second and third are handed over in the meantime.
    compare(
        got,
        3 * 16 / 0.76,
        [
            (
                3 * 16 / 0.03,
                "the clock was read before the device was done: it accepts a "
                "step at once and works later. Call wait() before you read the "
                "time the second time",
            ),
            (
                3 * 16 / 2.75,
                "the three steps had to wait for the rest of the one that "
                "warms up: call wait() before you read the time for the first "
                "time, too",
            ),
            (
                3 * 16 / 0.78,
                "each step was waited for by itself, so the device was idle "
                "while the next one was handed over: time three together, with "
                "one wait() after them",
            ),
            (
                3 * 16 / 2.77,
                "the step that warms up is in the time: read the clock after "
                "it, and after wait()",
            ),
            (
                4 * 16 / 2.76,
                "four steps were timed, including the first one, which warms "
                "up",
            ),
            (
                4 * 16 / 0.76,
                "the images of four steps are counted, but three were timed",
            ),
            (
                16 / 0.76,
                "three steps were timed, but the images of one were counted",
            ),
            (
                3 / 0.76,
                "these are steps per second: each has batch_size images",
            ),
            (0.76 / 48, "these are seconds per image: invert the fraction"),
            (0.76, "these are seconds, not images per second"),
        ],
        "this device takes 0.25 seconds for a step of 16 images, after 0.01 to "
        "hand it over: three together take 0.76 seconds, so that it is "
        f"{shown(3 * 16 / 0.76, got)} images per second, and you measure "
        f"{shown(got, 3 * 16 / 0.76)}",
        tolerance=0.004,
    )
    for batch, now, seconds, first, launch in (
        (7, 100.0, 0.5, 0.6, 0.02),
        (64, 3.0, 2.0, 9.0, 0.25),
        (5, 0.0, 0.2, 1.0, 0.5),  # it waits for what it is given
    ):
        device = Device(now, seconds, first, launch)
        together = (
            launch + 3 * seconds if launch < seconds else 3 * launch + seconds
        )
        got = call(
            images_per_second, device.step, batch, device.wait, device.clock
        )
        if device.steps != 4:
            raise Wrong(
                f"step was called {_times(device.steps)} on another device; it "
                "should be four times"
            )
        compare(
            number(got, "the images per second"),
            3 * batch / together,
            what=f"on a device that takes {seconds} seconds for {batch} images, "
            f"after {launch} to hand them over, the number of images per second",
            tolerance=0.004,
        )
    return "a clock that doesn't wait would have made this GPU some 25 times as fast."


def _times(number: int) -> str:
    return {1: "once", 2: "twice"}.get(number, f"{number} times")


class Watched(nn.Module):
    """A linear layer that tells when it is used, with how many rows, and whether
    always to train."""

    trains = True

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(2, 1)
        self.events: list[str | int] = []

    def forward(self, x):
        self.events.append(len(x))
        self.trains &= self.training
        y = self.layer(x)
        if y.requires_grad:
            y.register_hook(lambda gradient: self.events.append("back"))
        return y


class Counted(torch.optim.SGD):
    """Gradient descent that counts its steps."""

    steps = 0

    def step(self, closure=None):
        self.steps += 1
        return super().step(closure)


def exercise_2(step_in_parts) -> str:
    """One optimizer step for a batch that doesn't fit into memory."""
    torch.manual_seed(0)
    start = Watched().state_dict()
    x, y = torch.randn(6, 2), torch.randn(6, 1)
    pieces = [(x[:3], y[:3]), (x[3:5], y[3:5]), (x[5:], y[5:])]

    def gradients(weigh, used=(0, 1, 2)):
        model = Watched()
        model.load_state_dict(start)
        total = sum(
            weigh(i) * (model.layer(pieces[i][0]) - pieces[i][1]).square().sum()
            for i in used
        )
        total.backward()
        return torch.cat(
            [weight.grad.flatten() for weight in model.parameters()]
        )

    model = Watched()
    model.load_state_dict(start)
    optimizer = Counted(model.parameters(), lr=0.5)
    stale = torch.tensor([3.0, -4.0, 5.0])
    model.layer.weight.grad = stale[None, :2].clone()
    model.layer.bias.grad = stale[2:].clone()
    loss = call(
        step_in_parts, model, optimizer, [tuple(piece) for piece in pieces]
    )
    if torch.is_tensor(loss) and loss.requires_grad:
        raise Wrong(
            "the loss that you return still hangs on the graphs of the parts, "
            "which stay in memory with it: return a number, by `item()`"
        )
    loss = number(loss, "the loss that you return")
    if not (model.trains and model.training):
        raise Wrong(
            "your function switches the model to eval(), where dropout is off, "
            "and its caller wants to train: leave the mode as it is"
        )
    if optimizer.steps != 1:
        raise Wrong(
            f"the optimizer made {optimizer.steps} steps. The parts are one "
            "batch: collect their gradients, and step once, at the end"
        )
    rows = [event for event in model.events if event != "back"]
    if max(rows, default=0) > 3:
        raise Wrong(
            "the parts went through the model together, which doesn't fit"
        )
    if sum(rows) != 6:
        raise Wrong(
            f"{sum(rows)} rows went through the model, but the parts have 6 "
            "together"
        )
    moved = torch.cat(
        [weight.detach().flatten() for weight in model.parameters()]
    )
    before = torch.cat([start["layer.weight"].flatten(), start["layer.bias"]])
    got = (before - moved) / 0.5
    sizes = [3, 2, 1]
    whole = gradients(lambda i: 1 / 6)
    compare(
        got,
        whole,
        [
            (
                whole + stale,
                "gradients of an earlier step were still there, and yours were "
                "added to them: zero_grad first, once",
            ),
            (
                gradients(lambda i: 1 / sizes[i], [2]),
                "only the last part counts: zero_grad inside the loop throws "
                "the others away",
            ),
            (
                gradients(lambda i: 1 / 6, [2]),
                "only the last part counts: zero_grad inside the loop throws "
                "the others away",
            ),
            (
                torch.zeros(3),
                "the weights did not move: zero_grad came after the last "
                "backward, or there was none",
            ),
            (
                gradients(lambda i: 1 / sizes[i]),
                "you add up the parts' means, so the gradient is about three "
                "times too large: a row counts for 1 / 6, all parts together",
            ),
            (
                gradients(lambda i: 1 / sizes[i] / 3),
                "you divide by the number of parts, but they differ in size: "
                "the row of the last part counts three times as much as one of "
                "the first",
            ),
            (
                gradients(lambda i: 1.0),
                "that is the gradient of the sum; take that of the mean",
            ),
        ],
        what="the step that the weights made",
        tolerance=1e-4,
    )
    if model.events[:2] == [3, 2]:
        raise Wrong(
            "the step is right, but all parts went forwards before any went "
            "backwards, so what they computed was in memory together. Call "
            "backward in the loop"
        )
    with torch.no_grad():
        model.load_state_dict(start)
        expected = (model.layer(x) - y).square().mean().item()
    compare(
        loss,
        expected,
        [
            (
                sum(
                    (model.layer(a) - b).square().mean().item() / 3
                    for a, b in pieces
                ),
                "the step is right, and the loss that you return is the mean "
                "of the parts' means: weigh them by their rows",
            ),
            (
                (model.layer(pieces[-1][0]) - pieces[-1][1])
                .square()
                .sum()
                .item()
                / 6,
                "the step is right, and the loss that you return is that of "
                "the last part alone",
            ),
            (
                6 * expected,
                "the step is right, and the loss that you return is a sum: "
                "divide by all rows",
            ),
        ],
        what="the step is right, but the loss that you return",
        tolerance=1e-4,
    )
    for counts in ([1, 4], [5], [2, 2, 2, 7]):
        x, y = torch.randn(sum(counts), 2), torch.randn(sum(counts), 1)
        other, same = Watched(), Watched()
        same.load_state_dict(other.state_dict())
        expected = (same(x) - y).square().mean()
        torch.optim.SGD(same.parameters(), lr=0.1).zero_grad()
        expected.backward()
        torch.optim.SGD(same.parameters(), lr=0.1).step()
        got = call(
            step_in_parts,
            other,
            torch.optim.SGD(other.parameters(), lr=0.1),
            list(zip(x.split(counts), y.split(counts), strict=True)),
        )
        about = f"with parts of {counts} rows"
        for name, value in same.state_dict().items():
            compare(
                other.state_dict()[name],
                value,
                what=f"{about} {name} after the step",
                tolerance=1e-4,
            )
        compare(
            number(got, "the loss that you return"),
            expected.item(),
            what=f"{about} the loss that you return",
            tolerance=1e-4,
        )
    return "the same step as with the whole batch, in the memory of its largest part."


def exercise_3(nats_a_token) -> str:
    """The mean over processes, each with its own number of tokens."""
    losses = torch.tensor([[2.0, 3.0, 4.0], [1.0, 7.0, math.nan]])
    tokens = torch.tensor([[100, 300, 50], [200, 40, 0]])
    nothing = tokens == 0
    filled = losses.masked_fill(nothing, 0)
    sums, counts = (filled * tokens).sum(), tokens.sum()
    try:
        got = number(call(nats_a_token, losses, tokens), "the mean")
    except Wrong as wrong:
        if not str(wrong).startswith("the mean is nan"):
            raise
        raise Wrong(
            "nan: the last batch of the second process had no tokens, so its "
            "mean is nan, and 0 times nan is nan as well. Leave such a batch "
            "out"
        ) from None
    compare(
        got,
        (sums / counts).item(),
        [
            (
                losses.nanmean().item(),
                "every batch counts alike; one of 300 tokens should count for "
                "six of 50",
            ),
            (
                (filled.sum() / 6).item(),
                "every batch counts alike, even the empty one, and as 0: weigh "
                "them by tokens",
            ),
            (
                losses.nanmean(dim=1).mean().item(),
                "a mean of the processes' means: every process counts alike, "
                "whatever it had to do. Add up nats and tokens of all, and "
                "divide once",
            ),
            (
                ((filled * tokens).sum(dim=1) / tokens.sum(dim=1))
                .mean()
                .item(),
                "each process is right by itself, but then the two count "
                "alike, and one had 450 tokens, the other 240. Add up nats and "
                "tokens of all, and divide once",
            ),
            (sums.item(), "that is the sum of all nats; divide by all tokens"),
            (
                (sums / 5).item(),
                "you divide the sum of nats by the number of batches; divide "
                "by all tokens",
            ),
        ],
        what="the mean",
        tolerance=1e-4,
    )

    def right(losses, tokens):
        nats = sum(
            loss * n
            for loss, n in zip(
                losses.flatten().tolist(),
                tokens.flatten().tolist(),
                strict=True,
            )
            if n
        )
        return nats / tokens.sum().item()

    others = []
    for shape in ((1, 4), (3, 2), (4, 5), (2, 1)):
        counts = torch.randint(0, 5, shape)
        counts[0, 0] = 1  # a batch of one token
        drawn = 5 * torch.rand(shape)
        others.append((drawn.masked_fill(counts == 0, math.nan), counts))
    also(nats_a_token, right, *others, what="the mean")
    return (
        "what one process alone would have printed, with all batches in a row."
    )


def _number_or_inf(answer: Callable, case: tuple, what: str) -> float:
    """What the answer makes of the case: a number, which may be infinite."""
    try:
        value = call(answer, *case)
    except Wrong as wrong:
        if "returns nothing" not in str(wrong):
            raise
        raise Wrong(
            f"for {case} your function returns None. A number has to come "
            "back with `return`; where there is none, math.inf"
        ) from None
    if isinstance(value, (torch.Tensor, np.ndarray)) and not value.ndim:
        value = value.item()
    infinite = isinstance(value, float) and value == math.inf
    return value if infinite else number(value, what)


def exercise_4(rows_for_peak) -> str:
    """From how many rows on a matrix product is not held up by memory."""

    def rows(k, n, size, peak, bandwidth, operations=2, moved="xwy"):
        """With all three of factor, weights and result moved, or without."""
        a_row = ("x" in moved) * k + ("y" in moved) * n
        gain = Fraction(operations * k * n, peak)
        gain -= Fraction(size * a_row, bandwidth)
        if gain <= 0:
            return math.inf
        return Fraction(size * k * n * ("w" in moved), bandwidth) / gain

    for case in (
        (64, 128, 4, 2000, 400),
        (1792, 2048, 4, 200, 40),
        (1792, 2048, 2, 10**15, 335 * 10**10),
        (300, 40, 8, 900, 400),
        (8, 8, 1, 64, 16),  # 4 rows, and nothing to round
        (10, 1000, 4, 100, 5),
        (16, 16, 2, 64, 8),  # both times grow alike
        (1, 1, 1, 1, 1),
        (1, 1, 1, 1, 100),
        (1000, 900, 2, 473, 1),  # 327,461.5 rows
    ):
        got = _number_or_inf(rows_for_peak, case, "the number of rows")
        names = ("k", "n", "size", "peak", "bandwidth")
        about = ", ".join(map("{} = {}".format, names, case))
        exact = rows(*case)
        if exact == math.inf:
            if got != math.inf:
                raise Wrong(
                    f"with {about} moving a row takes as long as its "
                    "operations, or longer, so no number of rows is enough: "
                    f"return math.inf, not {got}"
                )
            continue
        if got == math.inf:
            raise Wrong(
                f"with {about} there are enough rows at some point, though it "
                "may take many; you have math.inf"
            )
        known = [
            (float(exact), "rows are whole: round up"),
            (math.floor(exact), "that many rows are not yet enough: round up"),
        ]
        for changed, message in (
            ({"operations": 1}, "a product takes a multiplication and an "
             "addition for each of m * k * n: 2mkn"),
            ({"moved": "w"}, "the rows themselves are read, and their results "
             "written"),
            ({"moved": "xw"}, "the result has to be written, m * n numbers"),
            ({"moved": "wy"}, "the first factor has to be read, m * k numbers"),
        ):  # fmt: skip
            wrong = rows(*case, **changed)
            known.append(
                (math.inf if wrong == math.inf else math.ceil(wrong), message)
            )
        k, n, _, peak, bandwidth = case
        wrong = rows(k, n, 1, peak, bandwidth)
        if wrong != math.inf:
            known.append(
                (
                    math.ceil(wrong),
                    "that counts numbers; a number has `size` bytes",
                )
            )
        compare(
            got,
            math.ceil(exact),
            known,
            what=f"the number of rows with {about}",
        )
    return (
        "below that, more rows cost next to no time: batches are nearly free."
    )


def exercise_5(epochs_to_pay) -> str:
    """From which epoch on a cache has been worth it."""
    # Without: 24 an epoch. With: 24 once, then 13. 24 / 11: ahead in the third
    # epoch.
    costs = {
        "load": 4.0,
        "encode": 10.0,
        "decode": 10.0,
        "write": 10.0,
        "load_grid": 3.0,
    }
    # Without: 24 an epoch. With: 44 once, then 19. 44 / 5: ahead in the ninth.
    slow = costs | {"write": 30.0, "load_grid": 9.0}
    # Without: 24 an epoch. With: 124.2 once, then 23.
    hardly = costs | {"write": 100.2, "load_grid": 13.0}

    def run(*case):
        return _number_or_inf(epochs_to_pay, case, "the number of epochs")

    cases = [tuple(each.values()) for each in (costs, slow, hardly)]
    got = [run(*case) for case in cases]
    right = [3, 9, 115]
    which = next((i for i in range(3) if not close(got[i], right[i])), 0)
    load, encode, decode, write, load_grid = cases[which]
    without, within = load + encode + decode, load_grid + decode
    first, n = load + encode + write, right[which]
    example = (
        f"with load = {load:g}, encode = {encode:g}, decode = {decode:g}, write "
        f"= {write:g} and load_grid = {load_grid:g} it is {n}, when the cache "
        f"has taken {first:g} + {n} * {within:g} = {first + n * within:g} ms, "
        f"and without it {n} * {without:g} = {n * without:g} ms; you have "
        f"{got[which]:.6g}"
    )
    forgotten = "filling the cache takes more than writing it: each image is loaded and encoded"
    compare(
        got,
        right,
        [
            ([1, 7, 101], forgotten),
            ([2, 7, 105], "filling the cache takes encoding, too"),
            (
                [2, 9, 111],
                "filling the cache takes loading, too: an image has to be read "
                "once",
            ),
            (
                [24 / 11, 44 / 5, 114.2],
                "count whole epochs: the first after which the cache is ahead",
            ),
            (
                [2, 8, 114],
                f"always one epoch too few, the cache is still behind: {example}",
            ),
            (
                [2, 8, 102],
                "you let the first pass be the first epoch; it trains nothing, "
                f"and all epochs come after it: {example}",
            ),
            (
                [4, 11, 125],
                "you let the first pass decode, too; it only fills the cache: "
                f"{example}",
            ),
            (
                [4, 10, 116],
                "always one epoch too many; the first pass doesn't count as an "
                f"epoch: {example}",
            ),
            (
                [2, 3, 11],
                "decoding costs the same with a cache and without, so it saves "
                "nothing",
            ),
            (
                [2, 4, 9],
                "an epoch with the cache still loads a grid: that much is not "
                "saved",
            ),
        ],
        f"not the first epoch after which the cache is ahead: {example}",
    )
    even = {
        "load": 4.0,
        "encode": 10.0,
        "decode": 3.0,
        "write": 10.0,
        "load_grid": 2.0,
    }
    # 24 once, 12 saved an epoch: level after two, ahead after three.
    compare(
        run(*even.values()),
        3,
        [
            (
                2,
                "when it costs 24 once and saves 12 an epoch it is level after "
                "two, ahead after 3",
            )
        ],
        what="the number of epochs",
    )
    for load_grid in (15.0, 14.0):  # loading and encoding an image takes 14
        case = costs | {"load_grid": load_grid}
        if run(*case.values()) != math.inf:
            raise Wrong(
                "where a grid takes as long to load as an image takes to load "
                "and encode, or longer, the cache never pays: return math.inf"
            )

    def paid(load, encode, decode, write, load_grid):
        without, within, epochs = 0.0, load + encode + write, 0
        while within >= without:
            without += load + encode + decode
            within += load_grid + decode
            epochs += 1
        return epochs

    for case in (
        # 1 / 1024 of a millisecond saved an epoch: 24,576.5 epochs
        (4.0, 10.0, 1.0, 10.0 + 2**-11, 14.0 - 2**-10),
        (1.0, 2.0, 5.0, 0.5, 2.5),  # half a millisecond saved an epoch
        (2.0, 30.0, 8.0, 4.0, 1.0),
        (8.0, 64.0, 1.0, 2.0, 1.0),
        (5.0, 1.0, 2.0, 40.0, 4.0),
        (3.0, 3.0, 3.0, 0.0, 0.0),
    ):
        got = run(*case)
        if got == math.inf:
            raise Wrong(
                f"for {case} the cache is ahead at some point, though it may "
                "be late; you have math.inf"
            )
        compare(
            got,
            paid(*case),
            what=f"the number of epochs for {case}",
        )
    return "a run of one epoch needs no cache, one of twelve does."
