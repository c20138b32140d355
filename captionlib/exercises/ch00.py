"""Chapter 00: back to words, one look, a faulty loss, the lowest loss."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from captionlib.exercises.answers import (
    Wrong,
    also,
    call,
    compare,
    number,
    parts,
    tensor,
    words,
)


def exercise_1(to_words) -> str:
    """From numbers back to words."""
    vocabulary = ["<pad>", "<start>", "<end>", "a", "dog", "on", "grass"]
    ids = [1, 3, 4, 2, 4, 5, 6, 0]
    got = words(call(to_words, ids, vocabulary))
    compare(
        got,
        ["a", "dog"],
        [
            (
                ["<start>", "a", "dog"],
                "<start> is still there: it was read, not written",
            ),
            (
                ["a", "dog", "<end>"],
                "<end> is still there: it closes the caption and is no word "
                "of it",
            ),
            (
                ["<start>", "a", "dog", "<end>"],
                "<start> and <end> are still there",
            ),
            (
                ["a", "dog", "dog", "on", "grass"],
                "it reads on after <end>: whatever a decoder says after it "
                "has finished is noise",
            ),
            (
                [vocabulary[i] for i in ids],
                "every number became a word, the special tokens included",
            ),
            (["a"], "one word too few: the last word before <end> is missing"),
        ],
    )
    compare(
        words(call(to_words, [1, 5, 6], vocabulary)),
        ["on", "grass"],
        [
            (
                ["on"],
                "without an <end>, the last word is lost: a caption that was "
                "cut off keeps all its words",
            ),
            ([], "a caption without <end> loses all its words"),
        ],
        what="a caption without <end>",
    )

    def right(ids, vocabulary):
        ended = [*ids, 2].index(2)
        return [vocabulary[i] for i in ids[:ended] if i > 2]

    compare(
        words(call(to_words, [1, 3, 4, 2], [*vocabulary[:3], "a", "<unk>"])),
        ["a", "<unk>"],
        [
            (
                ["a"],
                '"<unk>" is lost: only the numbers 0, 1 and 2 are no words',
            )
        ],
        what="a caption with <unk>",
    )
    longer = [*vocabulary[:3], *"two red cats sit there".split()]
    also(
        lambda *given: words(to_words(*given)),
        right,
        ([1, 3, 4, 5, 2, 7], longer),
        ([7, 4, 3, 6, 2, 3, 2, 0], longer),
        ([1, 0, 5, 1, 4, 2], vocabulary),
        ([4, 4, 4], vocabulary),
        ([1, 5, 2, 6, 0], vocabulary),
        ([1, 2, 0, 0], vocabulary),
        what="the list of words",
    )
    return "the first <end> counts, and a caption without one is kept whole."


def exercise_2(look) -> str:
    """Softmax weights and a weighted average."""
    scores = torch.tensor([2.0, -1.0, 0.5])
    cells = torch.tensor([[1.0, 0.0], [0.0, 4.0], [-2.0, 3.0]])
    context, alpha = parts(
        call(look, scores, cells), "the context", "the weights"
    )
    if [np.shape(each) for each in (context, alpha)] == [(3,), (2,)]:
        raise Wrong("context and weights came back in the other order")
    alpha = tensor(alpha, (3,), "alpha")
    right = scores.softmax(0)
    compare(
        alpha,
        right,
        [
            (
                scores / scores.sum(),
                "the scores were divided by their sum: a negative score gives "
                "a negative weight. Take the exponential first",
            ),
            (
                scores.exp(),
                "the exponentials were not divided by their sum: the weights "
                "have to add up to 1",
            ),
            (
                scores.sigmoid(),
                "each score was squashed on its own: the cells do not compete, "
                "and the weights do not add up to 1",
            ),
            (
                torch.tensor([1.0, 0.0, 0.0]),
                "all the weight lies on the best cell: that has no gradient "
                "from which the scores could be learned",
            ),
            ((-scores).softmax(0), "the worst cell gets most of the weight"),
        ],
        what="alpha",
    )
    compare(
        tensor(context, (2,), "the context", known={
            (3, 2): "the context is still one vector a cell, (3, 2): add the "
            "weighted cells up",
            (3,): "the context has a number for each cell, (3,): it should be a "
            "mixture of cells, (2,)",
        }),
        right @ cells,
        [
            (
                cells.mean(0),
                "the context is the plain mean of the cells; the weights are "
                "not used",
            ),
            (
                cells.sum(0),
                "the cells were added up without their weights",
            ),
            (
                scores @ cells,
                "the cells were weighted with the scores, not with alpha",
            ),
            (
                (right @ cells) / 3,
                "the weights already add up to 1: the division by the number "
                "of cells is one too many",
            ),
            (cells[0], "the context is the best cell alone"),
        ],
        what="the context",
    )  # fmt: skip

    def right_for(scores, cells):
        alpha = scores.softmax(0)
        return alpha @ cells, alpha

    drawn = ((1, 4), (7, 3), (5, 5), (4, 1), (1, 1))
    also(
        look,
        right_for,
        *((torch.randn(P), torch.randn(P, D)) for P, D in drawn),
        what="the answer",
    )
    return "that is all of attention, but for where the scores come from."


def exercise_3(mended) -> str:
    """A loss with two faults."""
    for N, T, V, seed in (
        (2, 4, 5, 1),
        (3, 6, 7, 0),
        (4, 8, 9, 2),
        (1, 5, 6, 3),
    ):
        step, state, y = _reader(N, T, V, seed)
        right = _forced(step, state, y)
        compare(
            number(call(mended, step, state, y), "the loss"),
            right.sum() / (y[:, 1:] != 0).sum(),
            _faults(step, state, y),
            what="the loss",
        )
    # Sure of the words 1, 3, 4, 2, in this order, which then cost nothing.
    sure = 50 * torch.eye(5)[torch.tensor([0, 3, 0, 4, 2])]
    y = torch.tensor([[1, 3, 4, 2, 0], [1, 4, 3, 4, 2]])
    compare(
        number(call(mended, lambda w, s: (sure[w], s), sure[:2], y)),
        100 / 7,
        [
            (
                50.0,
                "where the decoder is sure of a word and right, the word costs "
                "0, and it still counts as a word",
            )
        ],
        what="the loss where the decoder is certain of some words",
    )
    return "ask for the word that comes next, and count words alone."


def _reader(N: int, T: int, V: int, seed: int) -> tuple:
    """A small decoder, its first state, and captions of all lengths, of which
    row `seed` is the longest."""
    drawn = torch.Generator().manual_seed(seed)
    word, out = torch.randn(2, V, V, generator=drawn)
    y = torch.randint(3, V, (N, T), generator=drawn)
    y[:, 0] = 1
    for n in range(N):
        y[n, T - 1 - n % (T - 2) :] = 0
        y[n, T - 1 - n % (T - 2)] = 2
    y = y.roll(seed, 0)

    def step(words, state) -> tuple[Tensor, Tensor]:
        state = (state.float() + word[torch.as_tensor(words)]).tanh()
        return state @ out, state

    return step, torch.randn(N, V, generator=drawn), y


def _forced(
    step, state, y: Tensor, ahead: int = 1, padding: bool = False
) -> Tensor:
    """The loss of each word (N, T - 1), 0 for padding."""
    nats = []
    for t in range(y.shape[1] - 1):
        logits, state = step(y[:, t], state)
        target = y[:, t + ahead]
        loss = cross_entropy(logits, target, reduction="none")
        nats.append(loss if padding else loss * (y[:, t + 1] != 0))
    return torch.stack(nats, dim=1)


def _faults(step, state, y: Tensor) -> list[tuple[Tensor, str]]:
    right, count = _forced(step, state, y), (y[:, 1:] != 0).sum(dim=1)

    def forgetful(words, _) -> tuple[Tensor, Tensor]:
        return step(words, state)

    known = [
        (
            right.sum() / y.shape[0],
            "this is the loss of a caption; divide by the number of words",
        ),
        (
            right.sum(),
            "this is the sum over all words; the loss is their mean",
        ),
        (
            _forced(forgetful, state, y).sum() / count.sum(),
            "each step starts from the first state again: pass on the one "
            "that came back",
        ),
        (
            _forced(step, state, y, ahead=0).sum() / count.sum(),
            "padding is left out now; but the decoder is still asked for the "
            "word that it has just read",
        ),
    ]
    if y[:, 1:].all():
        return known
    return [
        *known,
        (
            _forced(step, state, y, ahead=0, padding=True).mean(),
            "nothing has changed: both faults are still there",
        ),
        (
            _forced(step, state, y, padding=True).mean(),
            "the decoder is asked for the next word now; but the padding after "
            "<end> still counts",
        ),
        (
            right.mean(),
            "padding costs nothing now; but it still counts in the number by "
            "which the sum is divided",
        ),
        (
            right.sum() / (y != 0).sum(),
            "the sum is divided by a number in which <start> counts, too: it is "
            "read and never asked for, so it costs nothing",
        ),
        (
            (right.sum(dim=1) / count).mean(),
            "this is a mean of the captions' means, which counts a word more "
            "where there are few: take one mean over all words",
        ),
    ]


def exercise_4(lowest) -> str:
    """The loss of a captioner that knows the captions by heart."""
    drawn = [
        ["a dog", "a cat", "a dog", "the dog sits"],
        ["a dog on a mat", "a dog on a lap", "it", "a cat on a mat", "it sits"],
        ["snow", "a big red car", "a red car"],
        ["a dog"] * 3,
        ["one boy runs"],
        ["a dog sits", "a dog", "a dog"],
        ["base ball games end", "baseball games start", "baseball games end"],
        ["dog and cat run", "cat and dog sit", "dog and cat sit"],
        [f"{who} boy in the snow on a big red sled" for who in ("a", "one")]
        + ["a boy in the snow on a big red bike", "two cats in bed"],
    ]
    for sentences in drawn:
        captions = [[*sentence.split(), "<end>"] for sentence in sentences]
        got = number(call(lowest, captions), "the loss")
        total = sum(
            math.log(len(captions) / captions.count(each)) for each in captions
        )
        words = sum(map(len, captions))
        said = f"the loss of {' / '.join(map(repr, sentences))}"
        compare(got, total / words, _other_floors(captions, total), what=said)
    return "as long as people put it differently, the loss stays above 0."


def _other_floors(captions: list, total: float) -> list[tuple[float, str]]:
    """What typical mistakes make of the captions."""
    words, each = sum(map(len, captions)), len(captions)
    if not total:
        return []

    def nats(same, weigh=math.log) -> float:
        """The sum over all words; `same` tells which beginnings are alike."""
        found = 0
        for caption in captions:
            for t, word in enumerate(caption):
                begun = [
                    other[t]
                    for other in captions
                    if len(other) > t and same(other[:t], caption[:t])
                ]
                found -= weigh(begun.count(word) / len(begun))
        return found

    even = 0
    for caption in captions:
        for t in range(len(caption)):
            even += math.log(
                len({c[t] for c in captions if c[:t] == caption[:t]})
            )
    own = [math.log(each / captions.count(c)) / len(c) for c in captions]
    return [
        (total, "this is the sum over all words; divide by their number"),
        (total / each, "these are nats a caption; divide by all the words"),
        (
            total / words / math.log(2),
            "these are bits: take the natural logarithm",
        ),
        (-total / words, "a surprise is not negative: mind the sign"),
        (
            total / (words - each),
            '"<end>" was left out of the words; it is read, and costs, like '
            "any other",
        ),
        (
            even / words,
            "every word that can come next got an equal share; it should be "
            "the share of captions that go on with it",
        ),
        (
            nats(lambda a, b: True) / words,
            "the words were compared place by place, with all captions: only "
            "those with the same beginning count",
        ),
        (
            nats(lambda a, b: a[-1:] == b[-1:]) / words,
            "only the last word or words were looked at; the decoder remembers "
            "the whole beginning",
        ),
        (
            sum(own) / each,
            "this is a mean of the captions' means: add up all costs, then "
            "divide by all words",
        ),
    ]
