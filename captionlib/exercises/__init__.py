"""The checkers of the exercises: `check("03.1", answer)` says how an answer does.

Written by hand. Module `chNN` holds the checkers of chapter NN, one function `exercise_N` for each
exercise; it takes the reader's answer, returns a sentence for a right one, and raises `Wrong`,
with what is wrong, for any other. `answers` has what they are made of. A checker compares with a
property, with a small case worked out another way, or with the package itself; the solution stands
in the chapter, folded. CONTRIBUTING.md tells how an exercise is written.
"""

from __future__ import annotations

import importlib.util
import random
import re
import textwrap
from typing import NamedTuple

import torch

from captionlib.exercises.answers import NotYet, Wrong

__all__ = ["Verdict", "check", "judge"]

WIDTH = 92  # columns: JupyterLab breaks a longer line in the middle of a word


class Verdict(NamedTuple):
    """What a checker found."""

    status: str  # "not yet", "not quite" or "right"
    message: str  # one line


def check(number: str, *answers: object) -> None:
    """Print how an answer does: not yet, not quite and why, or right. Never raises.

    Args:
        number: the exercise, as its heading says: chapter, dot, number.
        answers: what the exercise asks for, a function or values; `...` where it is still missing.
    """
    verdict = judge(number, *answers)
    said = f"{number} {verdict.status}: {verdict.message}"
    print(
        textwrap.fill(
            said, WIDTH, break_long_words=False, break_on_hyphens=False
        )
    )


def judge(number: str, *answers: object) -> Verdict:
    """What `check` prints, in parts. Random numbers of the caller's stay as they were."""
    checker = _find(number)
    if checker is None:
        return Verdict(
            "not quite",
            'there is no exercise of this number; it looks like "03.1"',
        )
    gaps = sum(answer is ... for answer in answers)
    if gaps:
        rest = (
            f" ({gaps} of {len(answers)} answers are missing)"
            if len(answers) > gaps
            else ""
        )
        return Verdict(
            "not yet", f"put your answer where the three dots are{rest}"
        )
    wanted = checker.__code__.co_argcount
    if len(answers) != wanted:
        return Verdict(
            "not quite", f"check wants {wanted} answers, and got {len(answers)}"
        )
    state = random.getstate()
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            random.seed(0)
            return Verdict("right", checker(*answers))
    except NotYet:
        return Verdict("not yet", "put your code where the three dots are")
    except Wrong as wrong:
        return Verdict("not quite", " ".join(str(wrong).split()))
    except (
        Exception
    ) as error:  # an answer so odd that the checker stumbles over it
        about = " ".join(f"{type(error).__name__}: {error}".split())[:150]
        return Verdict(
            "not quite", f"the checker can't read this answer ({about})"
        )
    finally:
        random.setstate(state)


def _find(number: str):
    match = re.fullmatch(r"(\d\d)\.(\d)", str(number))
    name = f"captionlib.exercises.ch{match[1]}" if match else None
    if not name or not importlib.util.find_spec(name):
        return None
    return getattr(importlib.import_module(name), f"exercise_{match[2]}", None)
