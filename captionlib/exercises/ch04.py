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


def exercise_1(teach) -> str:
    """What goes in, what should come out."""
    # 5 starts, 6 ends
    captions = torch.tensor([[5, 4, 6, 0, 0, 0], [5, 1, 2, 3, 6, 0]])
    lengths = torch.tensor([3, 5])
    result = call(teach, captions, lengths)
    inputs, targets, steps = parts(
        result, "inputs", "targets", "decode_lengths"
    )
    before, after = captions[:, :-1], captions[:, 1:]
    known = {
        (2, 6): (
            "the inputs have as many columns as the captions, but the last "
            "word of a caption is never an input"
        ),
        (2, 4): (
            "the inputs have lost <start> or one column too many: drop only "
            "the last one"
        ),
    }
    inputs = tensor(inputs, (2, 5), "the inputs", "int", known)
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
        what="the inputs",
    )
    known = {
        (2, 6): (
            "the targets have as many columns as the captions, but <start> is "
            "never a target"
        ),
        (2, 4): "the targets have lost a column too many: drop only <start>",
    }
    targets = tensor(targets, (2, 5), "the targets", "int", known)
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
        what="the targets",
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
            (torch.tensor([5, 5]), "decode_lengths count the padding"),
        ],
        what="decode_lengths",
    )
    others = []
    for lengths in ([6, 3, 4], [2], [3, 7, 2, 5], [4, 4]):
        rows = torch.zeros(len(lengths), max(lengths) + len(lengths) % 2).long()
        for row, length in zip(rows, lengths, strict=True):
            row[:length] = torch.randint(1, 9, (length,))
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
    got = [number(each, "each batch size", whole=True) for each in got]
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
        what="the list for lengths 5, 3, 9, 5",
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
    for N, V, E, H, D in ((2, 7, 3, 4, 5), (1, 5, 4, 2, 3), (3, 6, 5, 5, 2)):
        word, hidden = torch.randn(N, E), torch.randn(N, H)
        context = torch.randn(N, D)
        L_o, L_h, L_z = torch.randn(V, E), torch.randn(E, H), torch.randn(E, D)
        from_state, from_image = hidden @ L_h.T, context @ L_z.T
        right = (word + from_state + from_image) @ L_o.T
        got = tensor(
            call(deep_output, word, hidden, context, L_o, L_h, L_z),
            (N, V),
            "the scores",
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
            ],
            what="the scores",
        )
    return (
        "word, state and image each have a say in the next word. The tutorial "
        "asks the state alone."
    )


def exercise_4(tie) -> str:
    """One matrix for reading and for saying."""
    _check_tied(tie, nn.Embedding(7, 3), nn.Linear(3, 7))
    _check_tied(tie, nn.Embedding(4, 5), nn.Linear(5, 4, bias=False))
    return "one parameter, used twice; its gradient is the sum of both uses."


def _check_tied(tie, embedding: nn.Embedding, fc: nn.Linear) -> None:
    """Raise `Wrong` unless these two are tied."""
    vectors, bias = embedding.weight.detach().clone(), fc.bias
    result = call(tie, embedding, fc)
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
    if fc.bias is not bias:
        raise Wrong("fc's bias should stay as it was")
    fc(embedding(torch.tensor([0, 1]))).sum().backward()
    if embedding.weight.grad is None:
        raise Wrong("the shared parameter gets no gradient")


def exercise_5(speak) -> str:
    """Let it speak."""
    story = [4, 2, 2, 5, 3]

    class Step:
        """Tells a story word by word, if it is given back its own state and its
        own words."""

        def __init__(self, story, end):
            self.story, self.calls, self.heard = story, 0, []
            self.end = end

        def __call__(self, word, state):
            self.calls += 1
            if self.calls > 200:
                raise Wrong(
                    "a model that never says <end> keeps it talking for ever: "
                    "count words"
                )
            if state is not None and not isinstance(state, tuple):
                raise Wrong(
                    "the state that came back from step is passed on, not "
                    f"{state!r}"
                )
            self.heard.append(int(word))
            place = 0 if state is None else state[0]
            logits = torch.rand(8) - 3
            # After <end>, noise.
            logits[
                [*self.story, self.end, 2][min(place, len(self.story) + 1)]
            ] = -1.0
            return logits, (place + 1,)

    def run(story, most, start=0, end=1):
        step = Step(story, end)
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
        what="what a model says that wants to say 4, 2, 2, 5, 3",
    )
    if step.heard == [0] * len(step.heard):
        raise Wrong(
            "it hears <start> at every step: what was said last must go in next"
        )
    compare(
        step.heard,
        [0, *story],
        otherwise=f"step was given the words {step.heard}; it should hear <start>, then its own",
    )
    compare(
        run([2] * 300, 9)[0],
        [2] * 9,
        what="what a model says that never ends, with most=9",
    )
    compare(run(story, 2)[0], story[:2], what="what is said with most=2")
    if run([], 5)[0]:
        raise Wrong("a model that says <end> at once has said nothing")
    for start, end, most in ((7, 6, 20), (1, 0, 5), (3, 7, 1)):
        told = [5, 1, 2, 4, 2] if start == 7 else [5, 2, 4, 2, 6]
        got, step = run(told, most, start, end)
        about = f"with start={start}, end={end} and most={most}"
        compare(got, told[:most], what=f"what is said {about}")
        compare(
            step.heard[: len(got)],
            [start, *told][: len(got)],
            what=f"what step hears {about}",
        )
    return "it hears itself, and knows when to stop."
