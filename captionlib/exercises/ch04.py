"""Chapter 04, the decoder."""

import torch
from torch import nn

from captionlib.exercises.answers import (
    Wrong,
    also,
    call,
    compare,
    describe,
    items,
    number,
    parts,
    tensor,
)

TRIMMED = (
    "the columns end with the longest caption; (B, T - 1) is asked for, with "
    "the padding that all rows have"
)


def exercise_1(teach) -> str:
    """What goes in, what should come out."""
    # 5 starts, 6 ends
    captions = torch.tensor([[5, 4, 6, 0, 0, 0, 0], [5, 1, 2, 3, 6, 0, 0]])
    lengths = torch.tensor([3, 5])
    result = call(teach, captions, lengths)
    inputs, targets, steps = parts(
        result, "inputs", "targets", "decode_lengths"
    )
    before, after = captions[:, :-1], captions[:, 1:]
    known = {
        (2, 7): (
            "the inputs have as many columns as the captions, but the last "
            "word of a caption is never an input"
        ),
        (2, 5): (
            "the inputs have lost <start> or one column too many: drop only "
            "the last one"
        ),
        (2, 4): TRIMMED,
    }
    inputs = tensor(inputs, (2, 6), "the tensor of inputs", "int", known)
    compare(
        inputs,
        before,
        [
            (
                after,
                "the inputs begin with the first word; the first input is "
                "<start>",
            )
        ],
        what="the tensor of inputs",
    )
    known = {
        (2, 7): (
            "the targets have as many columns as the captions, but <start> is "
            "never a target"
        ),
        (2, 5): "the targets have lost a column too many: drop only <start>",
        (2, 4): TRIMMED,
    }
    targets = tensor(targets, (2, 6), "the tensor of targets", "int", known)
    compare(
        targets,
        after,
        [
            (
                before,
                "each target is the word that was just read: the model would "
                "learn to repeat it. The targets are one step ahead",
            ),
            (
                torch.roll(captions, 1, 1)[:, :-1],
                "the targets lag behind: each is the word before the one just "
                "read",
            ),
        ],
        what="the tensor of targets",
    )
    steps = tensor(steps, (2,), "decode_lengths", "int")
    compare(
        steps,
        lengths - 1,
        [
            (
                lengths,
                "decode_lengths are the lengths as they were; after <end> "
                "nothing is said",
            ),
            (
                lengths - 2,
                "decode_lengths count the words alone; the step that says "
                "<end> is one more",
            ),
            (torch.tensor([6, 6]), "decode_lengths count the padding"),
        ],
        what="decode_lengths",
    )
    # 7 pads, and 0 is a word.
    captions = torch.tensor([[5, 0, 4, 6, 7], [5, 6, 7, 7, 7]])
    steps = parts(
        call(teach, captions, torch.tensor([4, 2])),
        *("inputs", "targets", "decode_lengths"),
    )[2]
    compare(
        tensor(steps, (2,), "decode_lengths", "int"),
        torch.tensor([3, 1]),
        otherwise="decode_lengths go wrong where the padding is not 0, or 0 is "
        "a word; the captions' lengths are given",
    )
    others = []
    for lengths in ([6, 3, 4], [2], [3, 7, 2, 5], [4, 4]):
        size = (len(lengths), max(lengths) + len(lengths) % 2)
        rows = torch.randint(9, size)
        others.append((rows, torch.tensor(lengths)))
    also(
        teach,
        lambda rows, lengths: (rows[:, :-1], rows[:, 1:], lengths - 1),
        *others,
        what="the answer",
    )
    return "in: <start> and the words; out: the words and <end>."


def exercise_2(effective_batch_sizes) -> str:
    """How many are still running?"""
    got = items(call(effective_batch_sizes, [5, 3, 9, 5]), "the answer")
    got = [int(number(each, "each batch size", whole=True)) for each in got]
    compare(
        got,
        [4, 4, 3, 3, 1, 1, 1, 1],
        [
            (
                [4, 4, 4, 3, 3, 1, 1, 1, 1],
                "there is one step too many: a caption of length 9, <start> "
                "and <end> included, takes 8 steps",
            ),
            (
                [4, 4, 4, 3, 3, 1, 1, 1],
                "at step 2 a caption of two steps still counts: steps are 0, "
                "1, ..., so it runs as long as its length is more than t, not "
                "at least t",
            ),
            (
                [4, 3, 3, 1, 1, 1, 1],
                "the first step is missing, or <start> and <end> were both "
                "taken off: only one token has no step: <end>",
            ),
            (
                [4, 4],
                "it stops when the first caption ends, which is the shortest; the "
                "longest one decides",
            ),
            (
                [4, 4, 3, 3],
                "it stops when the caption ends that comes first in the list; "
                "the longest one decides",
            ),
            (
                [4] * 8,
                "all four are counted at each step, also those that have ended",
            ),
            (
                [8, 4, 4, 2],
                "these are the lengths; how many captions run at each step?",
            ),
            ([4, 4, 3, 3, 1, 1, 1, 1, 0], "at the last step nobody is running"),
            (
                [0, 0, 1, 1, 3, 3, 3, 3],
                "these are the captions that have ended already",
            ),
        ],
        otherwise=f"for lengths 5, 3, 9, 5 you have {got}, and it should be "
        "[4, 4, 3, 3, 1, 1, 1, 1]",
    )

    def right(lengths):
        return [
            sum(each > t + 1 for each in lengths)
            for t in range(max(lengths) - 1)
        ]

    also(
        effective_batch_sizes,
        right,
        ([2],),
        ([4, 4, 4],),
        ([2, 8, 3, 6, 6],),
        ([11, 2, 3],),
        what="the list",
    )
    return "for 5, 3, 9, 5 that is 18 tokens, where a padded batch has 32."


def exercise_3(deep_output) -> str:
    """The paper's equation 7."""
    for N, V, E, H, D in (
        (2, 7, 3, 4, 5),
        (1, 5, 4, 2, 3),
        (3, 6, 5, 5, 2),
        (2, 6, 3, 4, 4),
        (2, 5, 3, 3, 3),
    ):
        word, hidden = torch.randn(N, E), torch.randn(N, H)
        context = torch.randn(N, D)
        L_o, L_h, L_z = torch.randn(V, E), torch.randn(E, H), torch.randn(E, D)
        from_state, from_image = hidden @ L_h.T, context @ L_z.T
        right = (word + from_state + from_image) @ L_o.T
        got = tensor(
            call(deep_output, word, hidden, context, L_o, L_h, L_z),
            (N, V),
            "the table of scores",
            known={(V, N): "words come back as rows; captions should"},
        )
        compare(
            got,
            right,
            [
                (
                    right.log_softmax(dim=1),
                    "these are log-probabilities; the scores before softmax "
                    "are asked for",
                ),
                (
                    right.softmax(dim=1),
                    "these are probabilities; the scores before softmax are "
                    "asked for",
                ),
                (
                    right.exp(),
                    "exp belongs to the softmax; return what stands inside it",
                ),
                (
                    (from_state + from_image) @ L_o.T,
                    "the last word's vector is missing",
                ),
                (
                    (word + from_state) @ L_o.T,
                    "the context is missing: what was just seen should speak",
                ),
                (
                    (word + from_image) @ L_o.T,
                    "the state is missing",
                ),
                (
                    (word + from_state + from_image).tanh() @ L_o.T,
                    "there is no tanh in the equation",
                ),
                *_swapped(word, hidden, context, L_o, L_h, L_z),
            ],
            what="the table of scores",
        )
    return (
        "word, state and image each have a say in the next word. The tutorial "
        "asks the state alone."
    )


def _swapped(word, hidden, context, L_o, L_h, L_z) -> list:
    """What matrices at the wrong places make, where they fit there."""
    known = []
    if L_h.shape == L_z.shape:
        inside = word + hidden @ L_z.T + context @ L_h.T
        known = [(inside @ L_o.T, "L_h and L_z are swapped")]
    if len(L_h) == L_h.shape[1] == L_z.shape[1]:
        inside = word + hidden @ L_h + context @ L_z
        known += [
            (
                inside @ L_o.T,
                "L_h and L_z are square here, and applied without turning "
                "them: rows times a matrix is `rows @ matrix.T`",
            )
        ]
    return known


def exercise_4(tie) -> str:
    """One matrix for reading and for saying."""
    _check_tied(tie, nn.Embedding(7, 3), nn.Linear(3, 7))
    _check_tied(tie, nn.Embedding(4, 5), nn.Linear(5, 4, bias=False))
    return "one parameter, used twice; its gradient is the sum of both uses."


def _check_tied(tie, embedding: nn.Embedding, fc: nn.Linear) -> None:
    """Raise `Wrong` unless these two are tied."""
    vectors, bias = embedding.weight.detach().clone(), fc.bias
    offsets = None if bias is None else bias.detach().clone()
    try:
        result = call(tie, embedding, fc)
    except Wrong as wrong:
        if bias is None:
            raise Wrong(f"{wrong}; this fc has no bias") from None
        raise
    if not isinstance(result, nn.Linear):
        raise Wrong(f"fc should come back, but this is {describe(result)}")
    if result is not fc:
        raise Wrong(
            "another layer came back; the model holds the one that was given"
        )
    if not isinstance(getattr(fc, "weight", None), torch.Tensor):
        raise Wrong("fc has no weight any more")
    if fc.weight.shape != vectors.shape:
        raise Wrong(
            f"fc's weight is now {tuple(fc.weight.shape)}; it must stay "
            f"{tuple(vectors.shape)}. nn.Linear stores its weight as (out, "
            "in), so nothing needs to be transposed"
        )
    if not torch.equal(embedding.weight, vectors):
        raise Wrong(
            "the embedding's values are lost: they may be pretrained. Tie the "
            "other way"
        )
    if fc.weight is not embedding.weight:
        if fc.weight.data_ptr() == embedding.weight.data_ptr():
            raise Wrong(
                "the numbers are in one place, but there are still two "
                "parameters: each collects a gradient of its own, and the "
                "optimizer moves the numbers twice"
            )
        if torch.equal(fc.weight, vectors):
            raise Wrong(
                "that is a copy: equal today, and different after the first "
                "step of the optimizer"
            )
        raise Wrong(
            "fc's weight is not the embedding's: fc scores with other numbers"
        )
    if fc.bias is not bias or (
        bias is not None and not torch.equal(bias, offsets)
    ):
        raise Wrong("fc's bias should stay as it was")
    fc(embedding(torch.tensor([0, 1]))).sum().backward()
    if embedding.weight.grad is None:
        raise Wrong("the shared parameter gets no gradient")


def exercise_5(speak) -> str:
    """Let it speak."""
    story = [4, 2, 2, 5, 3]

    class Step:
        """Tells a story word by word, if it is given back its own state and its
        own words. The states are tuples, or `plain` numbers from 0."""

        def __init__(self, story, end, plain):
            self.story, self.calls, self.heard = story, 0, []
            self.end, self.kind = end, int if plain else tuple

        def __call__(self, word, state):
            self.calls += 1
            if self.calls > 200:
                raise Wrong(
                    "a model that never says <end> keeps it talking for ever: "
                    "count words"
                )
            if state is not None and not isinstance(state, self.kind):
                raise Wrong(
                    "the state that came back from step is passed on, not "
                    f"{state!r}"
                )
            self.heard.append(int(word))
            before = state[0] if isinstance(state, tuple) else state
            place = 0 if state is None else before + 1
            logits = torch.rand(8) - 3
            # After <end>, noise.
            logits[
                [*self.story, self.end, 2][min(place, len(self.story) + 1)]
            ] = -1.0
            return logits, place if self.kind is int else (place,)

    def run(story, most, start=0, end=1, plain=False):
        step = Step(story, end, plain)
        got = items(call(speak, step, start, end, most), "the list of ids")
        if len(got) > most:
            raise Wrong(f"with most={most} it says {len(got)} words")
        return [
            int(number(each, "each word", whole=True)) for each in got
        ], step

    got, step = run(story, 20)
    compare(
        got,
        story,
        [
            (
                [*story, 1],
                "<end> is in the caption: it is a sign to stop, not a word",
            ),
            ([0, *story], "<start> is in the caption, and nobody said it"),
            (
                [0, *story, 1],
                "<start> and <end> are in the caption; neither is a word",
            ),
            (
                [4] * 20,
                "it says its first word again and again: the new state is not "
                "passed on",
            ),
            (story[:-1], "the last word is missing"),
        ],
        what="the caption of a model that wants to say 4, 2, 2, 5, 3",
    )
    if step.heard == [0] * len(step.heard):
        raise Wrong(
            "it hears <start> at every step: what was said last must go in next"
        )
    prefixes = [[0, *story[:k]] for k in range(len(story) + 1)]
    if step.heard == sum(prefixes, []):
        raise Wrong(
            f"step was given the words {step.heard}: it is to be called once a "
            "word, with the state that came back, and not for the whole "
            "caption again"
        )
    if step.heard != [0, *story]:
        raise Wrong(
            f"step was given the words {step.heard}; it should hear <start>, "
            f"then its own: {[0, *story]}"
        )
    compare(
        run([2] * 300, 9)[0],
        [2] * 9,
        what="the caption of a model that never ends, with most=9,",
    )
    compare(run(story, 2)[0], story[:2], what="the caption with most=2")
    if run([], 5)[0]:
        raise Wrong("a model that says <end> at once has said nothing")
    for start, end, most in ((7, 6, 20), (1, 0, 5), (3, 7, 1)):
        told = [5, 0, 2, 4, 0] if start == 7 else [5, 2, 4, 2, 6]
        got, step = run(told, most, start, end)
        about = f"with start={start}, end={end} and most={most}"
        compare(
            got,
            told[:most],
            [
                (
                    [5],
                    "it stops at the word 0, which is a word like any other "
                    f"{about}",
                ),
                ([5, 2, 4], f"the word 0 is left out {about}"),
            ],
            what=f"the caption {about}",
        )
        compare(
            step.heard[: len(got)],
            [start, *told][: len(got)],
            what=f"the list of words that step hears {about}",
        )
    compare(
        run(story, 20, plain=True)[0],
        story,
        [
            (
                [4] * 20,
                "a state of 0 is not passed on; it is a state, too, and only "
                "`None` is none",
            )
        ],
        what="the caption of a model whose state is a number",
    )
    return "it hears itself, and knows when to stop."
