"""The harness that tries to fool the exercises, and what it must find."""

import re
import sys
import time
from pathlib import Path

import pytest

import captionlib.exercises as package
from captionlib.exercises import ch00, judge
from captionlib.exercises.answers import compare, items
from tools import find_chapters
from tools.answers import (
    explained,
    fixed,
    given,
    numbers_given,
    rewritten,
    right_variants,
    stubborn,
    trials,
    verdict,
    wrong_variants,
)
from tools.exercises import Exercise, exercises

ROOT = Path(__file__).parent.parent
PAGES = [*find_chapters(ROOT), ROOT / "book" / "projects.md"]

GAP = """from captionlib.exercises import check


def twice(x, n):
    return ...


check("00.1", twice)"""
SOLUTION = "def twice(x, n):\n    return [n * x + 1 for _ in range(n)]\n"


@pytest.fixture
def exercise():
    return Exercise("00.1", "", "", GAP, (), SOLUTION)


def checker(*tries):
    """A checker that calls the answer with these arguments."""

    def check_twice(twice) -> str:
        for x, n in tries:
            compare(items(twice(x, n)), [n * x + 1] * n)
        return "yes"

    return check_twice


def passed(exercise, variants) -> set[str]:
    return {
        variant.kind
        for variant in variants(exercise)
        if verdict(exercise, variant)[0] == "right"
    }


def test_a_checker_that_tries_one_size_is_found_out(exercise, monkeypatch):
    monkeypatch.setattr(ch00, "exercise_1", checker((2, 3)))
    assert {"stubborn", "hard-coded"} <= passed(exercise, wrong_variants)
    monkeypatch.setattr(ch00, "exercise_1", checker((2, 3), (5, 4)))
    assert not passed(exercise, wrong_variants)


def test_another_style_is_right(exercise, monkeypatch):
    monkeypatch.setattr(ch00, "exercise_1", checker((2, 3), (5, 4)))
    everything = {variant.kind for variant in right_variants(exercise)}
    assert passed(exercise, right_variants) == everything


def test_each_operator_number_and_axis_is_changed():
    code = "def f(x):\n    return x.sum(dim=0).clamp(min=2) + 1\n"
    texts = {text.splitlines()[-1].strip() for _, _, text in rewritten(code)}
    assert "return x.sum(dim=1).clamp(min=2) + 1" in texts
    assert "return x.sum(dim=0).clamp(min=2) - 1" in texts
    assert "return x.sum(dim=0) + 1" in texts
    assert "return x.sum(dim=0).clamp(min=3) + 1" in texts


def test_numbers_are_fixed_at_the_first_that_is_tried(exercise, monkeypatch):
    monkeypatch.setattr(ch00, "exercise_1", checker((2, 3), (5, 4)))
    answers = given(exercise, SOLUTION)
    assert numbers_given(exercise, answers) == [(0, 0), (0, 1)]
    (twice,) = fixed(answers, 0, 1)
    assert (twice(1, 2), twice(1, 3)) == ([3, 3], [3, 3])
    (twice,) = stubborn(answers)
    assert (twice(1, 2), twice(7, 3)) == ([3, 3], [3, 3])


def test_an_endless_loop_ends_with_a_sentence(monkeypatch):
    monkeypatch.setattr(package, "PATIENCE", 0.3)

    def endless(*arguments):
        while True:
            try:
                time.sleep(0.01)
            except Exception:
                pass

    status, message = judge("00.2", endless)
    assert status == "not quite" and "never ends" in message


SAME = re.compile(r"\bis (\S+), expected (\S+)")


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem[:2])
def test_no_exercise_is_fooled_and_every_style_is_accepted(path, tally):
    known, met, tried, passed = explained(), set(), 0, []
    numbers = set()
    for exercise in exercises(path):
        numbers.add(exercise.number)
        for trial in trials(exercise, known):
            about = f"{exercise.number} {trial}"
            message = trial.verdict.message
            assert "the checker can't read" not in message, (
                f"{about}: {message}"
            )
            for one, other in SAME.findall(message):
                assert one != other.rstrip(".,:;"), f"{about}: {message}"
            if trial.wanted == "explained":
                assert not trial.missed, f"{about} is refused, but explained"
                met.add((exercise.number, trial.variant.about))
            elif trial.wanted == "accepted":
                assert not trial.missed, about
            else:
                tried += 1
                if trial.missed:
                    passed.append(about)
                    never = ("hard-coded", "stubborn")
                    assert trial.variant.kind not in never, about
    assert len(passed) <= 0.05 * tried, "\n".join(passed)
    if sys.version_info < (3, 11):  # it writes tuples in brackets
        return
    stale = {each for each in known if each[0] in numbers} - met
    assert not stale, f"tools/answers.yml explains what is not tried: {stale}"
    tally(wrong_answers_tried=tried)
