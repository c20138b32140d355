"""The checkers of the exercises: `check("03.1", answer)` judges an answer.

Module `chNN` holds the checkers of chapter NN, a function `exercise_N` for each
exercise; `projects` has those of the projects. A checker takes the reader's
answer, returns a sentence if the answer is right, and raises `Wrong` with a
reason otherwise. `answers` provides the building blocks. A checker tests a
property, or compares with a small case worked out another way or with the
package itself; the solution is folded in the chapter. CONTRIBUTING.md explains
how to write an exercise.
"""

from __future__ import annotations

import importlib.util
import random
import re
import signal
import textwrap
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch

from captionlib.exercises.answers import NotYet, Wrong

__all__ = ["Verdict", "check", "judge"]

WIDTH = 92  # columns; JupyterLab breaks longer lines within a word
PATIENCE = 20  # seconds; a solution takes less than one


class TooLong(BaseException):
    """An answer ran longer than `PATIENCE`. (Not an Exception, so that no
    answer catches it.)"""


@contextmanager
def _patience() -> Iterator[None]:
    """Raise `TooLong` in the block after `PATIENCE` seconds, where a signal can
    do so: in the main thread, not on Windows."""
    main = threading.current_thread() is threading.main_thread()
    if not main or not hasattr(signal, "setitimer"):
        yield
        return

    def stop(number, frame):
        raise TooLong

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, PATIENCE)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


class Verdict(NamedTuple):
    """The verdict of a checker."""

    status: str  # "not yet", "not quite" or "right"
    message: str  # one line


def check(number: str, *answers: object) -> None:
    """Print a verdict: not yet, not quite and why, or right. Never raises.

    Args:
        number: the exercise, as its heading says: chapter (or project), dot,
            number.
        answers: a function or values, as the exercise asks; `...` where one is
            missing.
    """
    verdict = judge(number, *answers)
    said = f"{number} {verdict.status}: {verdict.message}"
    print(
        textwrap.fill(
            said, WIDTH, break_long_words=False, break_on_hyphens=False
        )
    )


def judge(number: str, *answers: object) -> Verdict:
    """The verdict that `check` prints. Random state is left unchanged."""
    checker = _find(number)
    if checker is None:
        return Verdict(
            "not quite",
            'there is no exercise with this number; a number looks like "03.1"',
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
            "not quite",
            f"check expects {wanted} answers, but got {len(answers)}",
        )
    state = random.getstate()
    try:
        with torch.random.fork_rng(devices=[]), _patience():
            torch.manual_seed(0)
            random.seed(0)
            return Verdict("right", checker(*answers))
    except TooLong:
        return Verdict(
            "not quite",
            f"your code was stopped after {PATIENCE} seconds; is there a loop "
            "that never ends?",
        )
    except NotYet:
        return Verdict("not yet", "put your code where the three dots are")
    except Wrong as wrong:
        return Verdict("not quite", " ".join(str(wrong).split()))
    except Exception:  # an answer so odd that the checker fails on it
        return Verdict(
            "not quite",
            "the checker can't read what came back; is it of the kind that "
            "the question asks for?",
        )
    finally:
        random.setstate(state)


def _find(number: str):
    match = re.fullmatch(r"(\d\d|[A-D])\.(\d)", str(number))
    if not match:
        return None
    chapter, which = match.groups()
    module, checker = f"ch{chapter}", f"exercise_{which}"
    if chapter.isalpha():
        module, checker = "projects", f"project_{chapter.lower()}_{which}"
    name = f"captionlib.exercises.{module}"
    if not importlib.util.find_spec(name):
        return None
    return getattr(importlib.import_module(name), checker, None)
