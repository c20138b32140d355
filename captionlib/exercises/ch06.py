"""Chapter 06, beam search: one step of a beam, its end, nucleus sampling, an
ensemble."""

from __future__ import annotations

import math

import numpy as np
import torch

from captionlib.exercises.answers import (
    Wrong,
    also,
    call,
    close,
    compare,
    describe,
    parts,
    shown,
    tensor,
)


def exercise_1(continue_beam) -> str:
    """The best K of K times V continuations."""
    # Probabilities of sentences: 0.24 (prefix 1, word 2), 0.20 (0, 1), 0.15 (0,
    # 2).
    beam_scores = torch.tensor([0.5, 0.4, 0.1]).log()
    log_probs = torch.tensor(
        [[0.1, 0.4, 0.3, 0.2], [0.05, 0.1, 0.6, 0.25], [0.25] * 4]
    ).log()
    answer = parts(
        call(continue_beam, beam_scores, log_probs), "scores", "beams", "words"
    )
    found = answer[1]
    if isinstance(found, (list, np.ndarray)):
        found = torch.as_tensor(np.asarray(found))
    if torch.is_tensor(found) and found.is_floating_point():
        raise Wrong(
            "your beams have fractions: `/` always makes them, `//` doesn't"
        )
    longer = {(3, 3): "you keep three for each prefix; keep three in all"}
    scores = tensor(answer[0], [3], "scores", known=longer)
    beams, words = (
        tensor(each, [3], name, "int").tolist()
        for each, name in zip(answer[1:], ("beams", "words"), strict=True)
    )
    if close(scores, torch.tensor([0.24, 0.20, 0.15]), 1e-3):
        raise Wrong(
            "these are probabilities; the search goes on with their logarithms"
        )
    if (scores > 0).any():
        raise Wrong(
            "a log-probability above 0: probabilities are multiplied, "
            "logarithms added"
        )
    if sorted(beams) == [0, 1, 2]:
        raise Wrong(
            "each prefix got one continuation, but they compete: here 0 has "
            "two of the best three, and 2 has none. `topk` belongs over all K "
            "* V sums at once"
        )
    places = [6, 1, 2]
    compare(
        [beams, words],
        [[place // 4 for place in places], [place % 4 for place in places]],
        [
            (
                [
                    [place % 4 for place in places],
                    [place // 4 for place in places],
                ],
                "beams and words are swapped: for position p in a table with "
                "rows of length V, the row is p // V, and the rows are the "
                "prefixes",
            ),
            (
                [
                    [place // 3 for place in places],
                    [place % 3 for place in places],
                ],
                "you divide positions by K; a row of the table is as long as "
                "the vocabulary",
            ),
        ],
        "the best continuation is word 2 after prefix 1, then words 1 and 2 "
        f"after prefix 0; you have the words {words} after {beams}",
    )
    compare(
        scores,
        torch.tensor([0.24, 0.20, 0.15]).log(),
        [
            (
                torch.tensor([0.6, 0.4, 0.3]).log(),
                "these are the scores of the last word alone: add the prefix's "
                "own score, beam_scores",
            ),
        ],
        what="scores",
    )

    def right(beam_scores, log_probs):
        order = sorted(
            (
                (float(beam_scores[i] + each), i, word)
                for i, row in enumerate(log_probs)
                for word, each in enumerate(row)
            ),
            reverse=True,
        )
        best = zip(*order[: len(beam_scores)], strict=True)
        return tuple(torch.tensor(part) for part in best)

    also(
        continue_beam,
        right,
        *(
            (torch.randn(K) - 3, torch.randn(K, V).log_softmax(dim=1))
            for K, V in ((1, 3), (2, 6), (4, 4), (5, 6), (4, 9))
        ),
        what="the answer",
    )
    return "two of the best three continue one prefix, and one prefix has dropped out."


TABLE = {
    "<start>": {"a": 0.6, "dogs": 0.4},
    "a": {"dog": 0.5, "cat": 0.5},
    "dogs": {"<end>": 0.8, "sleep": 0.2},
    "dog": {"<end>": 0.6, "sleeps": 0.4},
    "cat": {"<end>": 0.7, "sleeps": 0.3},
    "sleep": {"<end>": 1.0},
    "sleeps": {"<end>": 1.0},
}


def exercise_2(advance) -> str:
    """One step of the search, finished captions set aside."""
    a = (math.log(0.6), ["<start>", "a"])
    dogs = (math.log(0.4), ["<start>", "dogs"])
    live, finished = _texts(call(advance, [a, dogs], [], TABLE, 3))
    if close(finished.get("dogs <end>"), 0.32, 1e-3):
        raise Wrong(
            "these are probabilities; a longer caption's would soon be 0 in "
            "floats"
        )
    if any(log_prob > 0 for log_prob in (live | finished).values()):
        raise Wrong(
            "a log-probability above 0: probabilities are multiplied, "
            "logarithms added"
        )
    if "dogs <end>" in live:
        raise Wrong(
            'after the first step "dogs <end>" is finished and must leave `live`: the next step '
            "would ask the table what comes after <end>"
        )
    if sorted([*live, *finished]) in (
        ["a cat", "dogs <end>"],
        ["a dog", "dogs <end>"],
    ):
        raise Wrong(
            "there are three places, and you keep two captions, one of each "
            'prefix; but they compete: "a dog" and "a cat" both belong to the '
            "best three"
        )
    if len({*live, *finished}) > 3:
        raise Wrong(
            "there are three places, and you keep "
            f"{', '.join(repr(each) for each in {**live, **finished})}"
        )
    if "dogs sleep" in live:
        raise Wrong(
            'you kept "dogs sleep" (0.08), which is the least likely of four: `sorted` begins '
            "with the smallest"
        )
    if set(live) != {"a dog", "a cat"} or set(finished) != {"dogs <end>"}:
        raise Wrong(
            'with three places "a dog" and "a cat" should be live and "dogs <end>" finished; you '
            f"have live {list(live)}, finished {list(finished)}"
        )
    log_prob = finished["dogs <end>"]
    compare(
        log_prob,
        math.log(0.32),
        [
            (
                math.log(0.8),
                "the prefix's own log-probability is missing from the sum",
            ),
        ],
        '"dogs <end>" has 0.4 * 0.8 = 0.32, '
        f"{math.log(0.32):.4f} nats, and you have "
        f"{shown(log_prob, math.log(0.32))}",
    )
    # Two places are left, for "a cat <end>" with 0.21 and "a dog <end>" with
    # 0.18.
    live = [(math.log(0.3), ["<start>", "a", word]) for word in ("dog", "cat")]
    before = [(math.log(0.32), ["<start>", "dogs", "<end>"])]
    live, finished = _texts(call(advance, live, before, TABLE, 3))
    if "dogs <end>" not in finished:
        raise Wrong(
            '"dogs <end>" had finished a step before, and your second step forgot it'
        )
    if len(live) + len(finished) > 3:
        raise Wrong(
            "one of three had finished, and you still kept three more: a "
            "finished caption takes up a place, so the beam is one narrower "
            "from then on"
        )
    if live or len(finished) != 3:
        raise Wrong(
            'after the second step "a cat <end>" and "a dog <end>" should be finished and nothing '
            f"live; you have live {list(live)}, finished {list(finished)}"
        )
    for k in (1, 2, 4, 5):
        for live, finished in (
            ([dogs], []),
            ([(-1.5, ["<start>", "dogs", "sleep"]), a], before),
            ([a, (-0.2, ["<start>", "dogs"])], before[:0]),
        ):
            if len(finished) <= k:
                _check_step(advance, live, finished, k)
    _check_step(advance, [], before, 3)
    return "repeat it until `live` is empty, and the search is written."


def _check_step(advance, live: list, finished: list, k: int) -> None:
    """Raise `Wrong` unless a step with another width goes right."""
    found = [
        (log_prob + math.log(p), [*words, word])
        for log_prob, words in live
        for word, p in TABLE[words[-1]].items()
    ]
    # Of equally good ones either may be kept: compare log-probabilities.
    found = sorted(found, key=lambda each: -each[0])[: k - len(finished)]
    got = _texts(call(advance, live, finished, TABLE, k))
    places = sorted([each[0] for each in found + finished])
    about = (
        f"with {len(live)} live, {len(finished)} finished captions and k = {k}"
    )
    for part, of in zip(got, ("live", "finished"), strict=True):
        ended = [text for text in part if text.endswith("<end>")]
        if len(ended) != (len(part) if of == "finished" else 0):
            raise Wrong(f"{about} `{of}` is {list(part)}")
    for log_prob, words in finished:
        if not close(got[1].get(" ".join(words[1:])), log_prob):
            raise Wrong(f"{about} an earlier finished caption is lost")
    compare(
        sorted((got[0] | got[1]).values()),
        places,
        what=f"{about} the list of log-probabilities of all captions",
    )


def _texts(answer: object) -> tuple[dict[str, float], dict[str, float]]:
    """Log-probabilities by the text of a caption: of the live ones, and of the
    finished ones."""
    lists = []
    for name, captions in zip(
        ("live", "finished"), parts(answer, "live", "finished"), strict=True
    ):
        try:
            lists.append(
                {
                    " ".join(words[1:]): float(log_prob)
                    for log_prob, words in captions
                }
            )
        except (TypeError, ValueError, IndexError, RuntimeError):
            raise Wrong(
                f"`{name}` should be a list of pairs (log_prob, words)"
            ) from None
    return lists[0], lists[1]


WRONG_WAY_ROUND = (
    "the wrong way round: you continue what can't win, and drop what can"
)


def exercise_3(can_win) -> str:
    """When length normalisation lets a search stop."""
    cases = [  # log_prob, length, longest, best, a
        (-3.0, 4, 10, -4.0, 0.0),
        (-5.0, 4, 10, -4.0, 0.0),
        (-4.0, 4, 10, -4.0, 0.0),
        (-3.0, 4, 10, -0.5, 1.0),
        (-9.0, 4, 10, -0.5, 1.0),
        (-9.0, 4, 10, -1.0, 1.0),
        (-3.0, 4, 10, -2.9, 1.0),
        (-3.0, 4, 10, -29.0, 1.0),
        (-3.0, 4, 10, -0.5, 0.5),
        (-3.0, 4, 10, -1.0, 0.5),
        (-1.0, 2, 10, -0.2, 1.0),
        (-6.0, 3, 20, -0.5, 1.0),
        (-6.0, 3, 5, -0.5, 1.0),
        (-6.0, 2, 30, -1.5, 0.5),
        (-6.0, 1, 4, -2.0, 2.0),
    ]
    got = []
    for case in cases:
        answer = call(can_win, *case)
        if torch.is_tensor(answer) and answer.numel() == 1:
            answer = answer.item()
        if not isinstance(answer, (bool, np.bool_)):
            raise Wrong(
                "True or False should come back, but this is "
                f"{describe(answer)}"
            )
        got.append(bool(answer))

    def answers(rule):
        return [rule(*case) for case in cases]

    right = answers(lambda p, now, longest, best, a: p / longest**a > best)
    known = [
        (
            answers(lambda p, now, longest, best, a: p / now**a > best),
            "you divide by the current length. A caption of -3 nats over 4 "
            "words may still grow to 10 by words that cost nothing: from -0.75 "
            "per word to -0.30",
        ),
        (
            answers(lambda p, now, longest, best, a: p > best),
            "you compare raw sums: `best` has been divided by its own length "
            "** a already, so this side has to be divided as well, and `best` "
            "not again",
        ),
        (
            answers(lambda p, now, longest, best, a: p / longest > best),
            "your answer doesn't depend on a: with 0 it is about raw sums, "
            "with 0.5 the divisor is the square root of the length",
        ),
        (
            answers(lambda p, now, longest, best, a: p * longest**a > best),
            "you multiply by the length: -3 nats over 10 words are -0.3 per "
            "word, not -30",
        ),
        ([not each for each in right], WRONG_WAY_ROUND),
        (
            answers(lambda p, now, longest, best, a: p / longest**a < best),
            WRONG_WAY_ROUND,
        ),
        (
            answers(lambda p, now, longest, best, a: p / longest**a >= best),
            "-4 does not beat -4: of two equally good captions the first one "
            "found stays",
        ),
    ]
    different = [
        case for case, a, b in zip(cases, got, right, strict=True) if a != b
    ]
    compare(
        got,
        right,
        known,
        f"can_win{(*different, None)[0]} should be the other way round",
    )
    return "a search that may stop too early finds short captions, whatever a says."


def exercise_4(nucleus) -> str:
    """Top-p, with the word that crosses the line."""
    probs = torch.tensor([0.10, 0.45, 0.05, 0.40])
    got = tensor(call(nucleus, probs, 0.9), [4])
    compare(
        got,
        torch.tensor([0.10, 0.45, 0.0, 0.40]) / 0.95,
        [
            (
                torch.tensor([0.45, 0.40, 0.10, 0.0]) / 0.95,
                "the right probabilities at the wrong words: sorting moved "
                "them. Put each back in its word's place in the vocabulary",
            ),
            (
                torch.tensor([0.10, 0.45, 0.0, 0.40]),
                "the right words, but their probabilities add up to 0.95: "
                "rescale them to 1",
            ),
            (
                torch.tensor([0.0, 0.45, 0.0, 0.40]) / 0.85,
                "your words have only 0.85 together, less than 0.9: the word "
                "that takes the sum across p belongs to the nucleus too",
            ),
            (
                probs,
                "all four words are in. If you add up in the vocabulary's "
                "order, sort first: the fewest words that reach p are the "
                "likeliest ones",
            ),
            (
                torch.tensor([1.0, 1.0, 0.0, 1.0]),
                "that says which words are in; return their probabilities",
            ),
        ],
        "of 0.10, 0.45, 0.05 and 0.40 the nucleus for 0.9 is all but the "
        f"third, which makes {[0.105, 0.474, 0.0, 0.421]}; you have "
        f"{[round(each, 3) for each in got.tolist()]}",
        tolerance=1e-4,
    )
    got = call(nucleus, probs, 0.4)
    if torch.is_tensor(got) and got.isnan().any():
        raise Wrong(
            "for p = 0.4 no word is left to draw. The likeliest one has 0.45, "
            "more than p, and still belongs to the nucleus"
        )
    compare(
        tensor(got, [4]),
        torch.tensor([0.0, 1.0, 0.0, 0.0]),
        otherwise="for p = 0.4 the likeliest word, which has 0.45, is enough. (Compare p with the "
        "sum of the likelier words, not with each word's own probability)",
    )

    def right(probs, p):
        kept, total = torch.zeros_like(probs), 0.0
        for place in probs.argsort(descending=True).tolist():
            if total < p:
                kept[place], total = probs[place], total + probs[place].item()
        return kept / kept.sum()

    also(
        nucleus,
        right,
        # Exactly p is enough.
        (torch.tensor([0.25, 0.5, 0.125, 0.125]), 0.75),
        (torch.tensor([0.125, 0.25, 0.625]), 0.625),
        (torch.tensor([0.1, 0.3, 0.0, 0.6]), 0.95),
        (torch.tensor([1.0]), 0.3),
        *((torch.randn(V).softmax(0), p) for V, p in ((6, 0.5), (9, 0.85))),
    )
    return "few words where the model is sure, many where it isn't."


def exercise_5(ensemble) -> str:
    """The mean of probabilities, in logarithms."""
    probs = torch.tensor([[[0.8, 0.15, 0.05]], [[0.1, 0.3, 0.6]]])
    over_rows = {
        (2, 3): "you average over the N rows: the M decoders are dimension 0"
    }
    compare(
        tensor(call(ensemble, probs.log()), [1, 3], known=over_rows),
        probs.mean(dim=0).log(),
        [
            (
                probs.log().mean(dim=0),
                "that is the mean of the logarithms: one decoder that thinks a "
                "word impossible would rule it out for all. Take the mean of "
                "the probabilities",
            ),
            (
                probs.mean(dim=0),
                "these are probabilities, and the search adds logarithms",
            ),
            (
                probs.sum(dim=0).log(),
                "your words have a probability of 2 together: a sum over two "
                "decoders, and not yet a mean",
            ),
        ],
        tolerance=1e-4,
    )
    unlikely = torch.tensor([[[-200.0, 0.0]], [[-201.0, 0.0]]])
    got = tensor(call(ensemble, unlikely), [1, 2])
    expected = unlikely.double().exp().mean(dim=0).log()
    if got[0, 0] == -math.inf and close(got[0, 1], expected[0, 1], 1e-4):
        raise Wrong(
            "right on paper, but float32 can't hold exp(-200): it becomes 0, "
            "and its logarithm minus infinity. `torch.logsumexp` never leaves "
            "the logarithms"
        )
    compare(got, expected.float(), tolerance=1e-4)
    impossible = torch.randn(3, 2, 4).log_softmax(dim=2)
    impossible[0, 0, 1] = impossible[:, 1, 2] = -math.inf
    also(
        ensemble,
        lambda log_probs: log_probs.double().exp().mean(dim=0).log().float(),
        *(
            (torch.randn(shape).log_softmax(dim=2),)
            for shape in ((1, 2, 3), (3, 1, 5), (4, 4, 4))
        ),
        (impossible,),
        what="the result, -inf where all say that a word is impossible,",
    )
    return "and a word that only one decoder believes in keeps its chance."
