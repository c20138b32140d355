"""Chapter 06, beam search: one step, a score for whole captions, the end, nucleus
sampling, an ensemble."""

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
    number,
    parts,
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
    scores = tensor(answer[0], [3], "the vector of scores", known=longer)
    beams, words = (
        tensor(each, [3], f"the vector of {name}", "int").tolist()
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
        what="the vector of scores",
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
        # All five continue one prefix.
        (
            torch.tensor([-40.0, -1.0, -50.0, -60.0, -70.0]),
            torch.randn(5, 9).log_softmax(dim=1),
        ),
        what="the answer",
    )
    given = torch.tensor([-801.0, -800.0]), torch.randn(2, 5).log_softmax(1)
    found = parts(call(continue_beam, *given), "scores", "beams", "words")[0]
    if not close(
        tensor(found, [2], "the vector of scores"), right(*given)[0], 1e-4
    ):
        raise Wrong(
            "with scores near -800 your sums are wrong. As a probability that "
            "is 0 in a computer: add logarithms, and leave no room for exp"
        )
    return "two of the best three continue one prefix, and one prefix has dropped out."


def exercise_2(rank_by) -> str:
    """Equation 14 of the GNMT paper."""
    drawn = ((4, 9, 0.7, 0.2), (7, 3, 1.0, 0.5), (1, 4, 0.3, 1.0), (3, 6, 0, 2))
    for T, P, a, b in drawn:
        log_prob = -1.5 * T - P / 7
        alphas = ((5 if T == 1 else 2) * torch.randn(T, P)).softmax(dim=1)
        got = number(call(rank_by, log_prob, alphas, a, b), "the score")
        right = _coverage_score(log_prob, alphas, a, b)
        compare(
            got,
            right,
            _other_scores(log_prob, alphas, a, b, right),
            what=f"the score for T = {T}, P = {P}, a = {a}, b = {b}",
        )
    return "length and coverage each have a say, and a and b set how much."


def _coverage_score(log_prob, alphas, a, b, least: float = 5) -> float:
    lengths = ((least + len(alphas)) / (least + 1)) ** a
    covered = alphas.double().sum(dim=0).clamp(max=1)
    return log_prob / lengths + b * covered.log().sum().item()


def _other_scores(
    log_prob: float, alphas: torch.Tensor, a: float, b: float, right: float
) -> list[tuple[float, str]]:
    """What typical mistakes make of a caption."""
    T, P = alphas.shape
    covered = alphas.double().sum(dim=0)
    cover = b * covered.clamp(max=1).log().sum().item()
    penalised = right - cover
    each = alphas.double().clamp(max=1).log()
    known = [
        (
            log_prob * (log_prob / penalised) + cover,
            "log p is multiplied by lp; divide by it",
        ),
        (
            log_prob / T**a + cover,
            "this divides by T**a, as `settle` does; the 5 belongs to both "
            "numerator and denominator",
        ),
        (
            log_prob / (5 + T) ** a + cover,
            "the denominator of lp, (5 + 1)**a, is missing",
        ),
        (
            log_prob / (5 + P) ** a * 6**a + cover,
            "lp counts the cells; T is the number of words",
        ),
        *(
            (
                log_prob / (5 + T + more) ** a * 6**a + cover,
                f"lp has {5 + more} + T in place of 5 + T: T is the number of "
                "words, or rows",
            )
            for more in (-1, 1)
        ),
        (
            penalised + b * covered.log().sum().item(),
            "nothing stops a cell at 1: one that got more than 1 is rewarded "
            "for it",
        ),
        (
            penalised + b * each.sum().item(),
            "logarithm and min come before the sum over words; they belong "
            "to the sum",
        ),
        (
            penalised,
            "coverage has no effect: is its sum over cells instead of "
            "words, where every row adds up to 1?",
        ),
        (penalised - cover, "cp is subtracted; it is negative as it stands"),
        (right - cover + cover / P, "cp is a sum over cells, not their mean"),
        (penalised + cover / b, "b is missing"),
        ((log_prob + cover) / (log_prob / penalised), "lp divides log p alone"),
    ]
    return [each for each in known if not close(each[0], right, 1e-3)]


WRONG_WAY_ROUND = (
    "the wrong way round: you continue what can't win, and drop what can"
)


def exercise_3(can_win) -> str:
    """When length normalisation lets a search stop."""
    # As close as can be to what this and other divisors make of it.
    near = [
        (log_prob, length, longest, log_prob / divisor**a * factor, a)
        for log_prob, length, longest in (
            (-3.2, 4, 10),
            (-7.5, 1, 7),
            (-0.9, 5, 40),
        )
        for divisor in (longest, length, longest + 1, (5 + longest) / 6)
        for a in (0.5, 1.0, 0.2, 0.75, 1.5)
        for factor in (1.004, 0.996)
    ]
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
        *near,
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
            answers(
                lambda p, now, longest, best, a: p / (longest + 1) ** a > best
            ),
            "you divide by (longest + 1)**a; no caption gets longer than "
            "longest, which is itself the divisor",
        ),
        (
            answers(
                lambda p, now, longest, best, a: p / (now + longest) ** a > best
            ),
            "you add length and longest, which is the length of the whole "
            "caption already",
        ),
        (
            answers(
                lambda p, now, longest, best, a: (
                    p / ((5 + longest) / 6) ** a > best
                )
            ),
            "that is the divisor of 06.2; here it is the length to the power a",
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
    for case, one, other in zip(cases, got, right, strict=True):
        if one != other:
            names = ("log_prob", "length", "longest", "best", "a")
            given = ", ".join(
                f"{name}={value:.5g}"
                for name, value in zip(names, case, strict=True)
            )
            compare(
                got,
                right,
                known,
                f"can_win({given}) should be {other}, and you have {one}",
            )
    return "a search that may stop too early finds short captions, whatever a says."


def exercise_4(nucleus) -> str:
    """Top-p, with the word that crosses the line."""
    probs = torch.tensor([0.10, 0.45, 0.05, 0.40])
    got = call(nucleus, probs, 0.9)
    if _holds_nan(got):
        raise Wrong(
            "for p = 0.9 nothing is left to rescale: no single word has 0.9. "
            "(Compare p with the sum of the likelier words, not with each "
            "word's own probability)"
        )
    got = tensor(got, [4])
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
    if _holds_nan(got):
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
    _check_ties(nucleus)
    return "few words where the model is sure, many where it isn't."


def _holds_nan(value: object) -> bool:
    return bool(
        torch.is_tensor(value)
        and value.isnan().any()
        or isinstance(value, np.ndarray)
        and value.dtype.kind == "f"
        and np.isnan(value).any()
    )


def _check_ties(nucleus) -> None:
    """Raise `Wrong` unless equally likely words are told apart."""
    probs = torch.tensor([0.1, 0.3, 0.3, 0.2, 0.1])
    compare(
        tensor(call(nucleus, probs, 0.75), [5]),
        torch.tensor([0.0, 0.375, 0.375, 0.25, 0.0]),
        otherwise="of 0.1, 0.3, 0.3, 0.2 and 0.1 the nucleus for 0.75 is the "
        "second to the fourth, 0.8 together; words that are equally likely are "
        "still two words",
        tolerance=1e-4,
    )
    for values, p, kept in (
        ([0.2, 0.4, 0.2, 0.2], 0.5, [0.4, 0.2]),
        ([0.25] * 4, 0.4, [0.25, 0.25]),
    ):
        probs = torch.tensor(values)
        got = tensor(call(nucleus, probs, p), [4])
        chosen = got > 0
        if int(chosen.sum()) > len(kept):
            raise Wrong(
                f"of {values} the nucleus for {p} has {len(kept)} words, and "
                f"yours {int(chosen.sum())}: of equally likely words no more "
                "than needed belong to it"
            )
        wanted = torch.tensor(kept) / sum(kept)
        own = probs * chosen / (probs * chosen).sum()
        if not close(got.sort().values[-len(kept) :].flip(0), wanted, 1e-4) or (
            not close(got, own, 1e-4)
        ):
            each = [round(one, 3) for one in got.tolist()]
            raise Wrong(
                f"of {values} the nucleus for {p} has {len(kept)} words, "
                f"{sum(kept):g} together; you have {each}"
            )


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
    for least in (-200.0, -1000.0):
        unlikely = torch.tensor([[[least, 0.0]], [[least - 1, 0.0]]])
        got = tensor(call(ensemble, unlikely), [1, 2])
        expected = unlikely.double().logsumexp(dim=0) - math.log(2)
        if got[0, 0] == -math.inf and close(got[0, 1], expected[0, 1], 1e-4):
            raise Wrong(
                f"right on paper, but exp({least:.0f}) becomes 0, and its "
                "logarithm minus infinity: in float32 from about -104, in "
                "float64 from -746. `torch.logsumexp` never leaves the "
                "logarithms"
            )
        compare(
            got,
            expected.float(),
            what=f"the result for {least:.0f} and {least - 1:.0f}",
            tolerance=1e-4,
        )
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
