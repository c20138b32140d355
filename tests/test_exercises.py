"""Every exercise is proven: the gap says not yet, the solution passes, mistakes are told apart.

The solutions are the chapters' own, folded there. tests/exercises lists what readers get wrong, as
edits of the solution or as whole answers, each with words that the message must have.
"""

import runpy
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from captionlib.exercises import judge
from captionlib.exercises.answers import Wrong, compare
from tools import find_chapters
from tools.exercises import exercises

ROOT = Path(__file__).parent.parent
CHAPTERS = find_chapters(ROOT)
PROJECTS = ROOT / "book" / "projects.md"
EXERCISES = {
    each.number: each
    for path in (*CHAPTERS, PROJECTS)
    for each in exercises(path)
}
MISTAKES, ALSO_RIGHT = {}, {}
for _path in sorted((ROOT / "tests" / "exercises").glob("*.py")):
    _names = runpy.run_path(str(_path))
    MISTAKES |= _names["MISTAKES"]
    ALSO_RIGHT |= _names.get("ALSO_RIGHT", {})

every_exercise = pytest.mark.parametrize("number", EXERCISES)


def said(number: str, cell: str, capsys) -> tuple[str, str]:
    """Run a cell as Jupyter would, in a fresh namespace: the status that it prints, the message."""
    capsys.readouterr()
    exec(compile(cell, f"exercise {number}", "exec"), {"__name__": "__main__"})
    head, message = (
        " ".join(capsys.readouterr().out.split("\n")).strip().split(": ", 1)
    )
    assert head.startswith(f"{number} ") and message
    return head.removeprefix(f"{number} "), message


def changed(exercise, change) -> str:
    """The solution with some of its text replaced; or a whole answer, as it is."""
    if isinstance(change, str):
        return change
    code = exercise.solution
    for old, new in change.items():
        assert old in code, f"{exercise.number}: the solution has no {old!r}"
        code = code.replace(old, new)
    return code


@every_exercise
def test_the_gap_says_not_yet(number, capsys):
    assert said(number, EXERCISES[number].gap, capsys)[0] == "not yet"


@every_exercise
def test_the_folded_solution_passes(number, capsys):
    exercise = EXERCISES[number]
    status, message = said(number, exercise.cell(exercise.solution), capsys)
    assert status == "right", message


def test_solutions_are_formatted_as_all_code_is(tmp_path):
    for number, exercise in EXERCISES.items():
        (tmp_path / f"{number}.py").write_text(exercise.solution)
    command = [
        sys.executable,
        "-m",
        "ruff",
        "format",
        "--diff",
        "--config=line-length=100",
    ]
    done = subprocess.run(
        [*command, str(tmp_path)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout


@every_exercise
def test_the_checker_is_quick(number, capsys):
    cell = EXERCISES[number].cell(EXERCISES[number].solution)
    said(number, cell, capsys)  # what it imports takes its time once
    start = time.process_time()
    said(number, cell, capsys)
    assert time.process_time() - start < 1


@every_exercise
def test_other_right_answers_pass(number, capsys):
    exercise = EXERCISES[number]
    for change in ALSO_RIGHT.get(number, ()):
        status, message = said(
            number, exercise.cell(changed(exercise, change)), capsys
        )
        assert status == "right", message


@every_exercise
def test_typical_mistakes_are_told_apart(number, capsys):
    exercise = EXERCISES[number]
    messages = {}
    for name, change, words in MISTAKES[number]:
        status, message = said(
            number, exercise.cell(changed(exercise, change)), capsys
        )
        assert status == "not quite", f"{name}: {status}"
        assert words in message, f"{name}: {message}"
        assert message not in messages, (
            f"{name} is told what {messages.get(message)} is told"
        )
        messages[message] = name
    assert len(messages) >= 3


ODD = {
    "nothing": None,
    "a number": 3,
    "a text": "dog",
    "an empty list": [],
    "a function that raises": lambda *_, **__: 1 / 0,
    "a function that returns nothing": lambda *_, **__: None,
    "a function that returns a text": lambda *_, **__: "dog",
    "a function that returns a number": lambda *_, **__: 0.5,
    "a function that returns a tensor of no axes": lambda *_, **__: (
        torch.tensor(0.5)
    ),
    "a function that returns whole numbers": lambda *_, **__: torch.ones(
        2, 3
    ).long(),
    "a function that takes nothing": lambda: torch.ones(2),
    "a class": dict,
}


@every_exercise
@pytest.mark.parametrize("answer", ODD.values(), ids=ODD)
def test_an_odd_answer_gets_a_clear_line(number, answer):
    wanted = EXERCISES[number].gap.rsplit("check(", 1)[1].count(",")
    status, message = judge(number, *[answer] * wanted)
    assert status == "not quite"
    assert "the checker can't read" not in message, message
    assert "\n" not in message and len(message) < 400


def test_every_exercise_has_mistakes_and_every_checker_an_exercise(tally):
    assert set(MISTAKES) == set(EXERCISES)
    assert set(ALSO_RIGHT) <= set(EXERCISES)
    for path in CHAPTERS:
        chapter = path.stem[:2]
        numbers = [number for number in EXERCISES if number.startswith(chapter)]
        assert numbers == [f"{chapter}.{i + 1}" for i in range(len(numbers))]
        assert judge(f"{chapter}.{len(numbers) + 1}", 1)[1].startswith(
            "there is no exercise"
        )
        assert 3 <= len(numbers) <= 5
    tally(
        exercises=len(EXERCISES),
        mistakes_tried=sum(map(len, MISTAKES.values())),
    )
    tally(hints=sum(len(exercise.hints) for exercise in EXERCISES.values()))


FOLD = "# <details><summary>{}</summary>\n#\n# Text.\n#\n# </details>\n#\n"
SOLUTION = FOLD.replace("Text.", "```python\n# answer = 1\n# ```")
CHAPTER = """# %% [markdown]
# ### 42.1 One
#
# Give a one.

# %% tags=["exercise"]
answer = ...
check("42.1", answer)

# %% [markdown]
"""


@pytest.mark.parametrize(
    "hints",
    [
        (),
        ("Hint",),
        ("Hint 1",),
        ("Hint", "Hint"),
        ("Hint 2", "Hint 1"),
        ("Hint 1", "Hint 3"),
    ],
)
def test_a_single_hint_is_refused(tmp_path, hints):
    path = tmp_path / "42_one.py"
    good = "".join(map(FOLD.format, ("Hint 1", "Hint 2"))) + SOLUTION.format(
        "Solution"
    )
    path.write_text(CHAPTER + good)
    assert exercises(path)[0].hints == ("Text.", "Text.")
    path.write_text(
        CHAPTER + "".join(map(FOLD.format, hints)) + SOLUTION.format("Solution")
    )
    with pytest.raises(
        ValueError, match=r"42\.1 needs at least 2 folded hints"
    ):
        exercises(path)


def test_an_unknown_number_and_a_missing_answer_are_told():
    assert judge("03.9", 1).message.startswith("there is no exercise")
    assert judge("attention", 1).message.startswith("there is no exercise")
    assert judge("03.1", 1, 2) == (
        "not quite",
        "check expects 1 answers, but got 2",
    )


def test_checking_leaves_the_readers_random_numbers_alone():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    judge("03.1", lambda scores: scores * torch.rand(1))
    assert torch.equal(torch.rand(3), expected)


def test_what_pytorch_cannot_do_is_an_error_and_no_gap():
    def swapped(logits, targets, decode_lengths):
        return torch.nn.functional.cross_entropy(targets, logits)

    def placeholder(logits, targets, decode_lengths):
        raise NotImplementedError

    assert judge("05.1", swapped).status == "not quite"
    assert judge("05.1", placeholder).status == "not yet"


@pytest.mark.parametrize(
    ("got", "expected", "said"),
    [
        (0.67781, 0.67784, "is 0.67781, expected 0.67784"),
        (0.5, torch.tensor(0.25), "it is 0.5, expected 0.25"),
        ([1, 2, 3], [1, 2], "the length 3, expected 2: it is [1, 2, 3]"),
        (["a", "cat"], ["a", "dog"], "its item 1 is 'cat', expected 'dog'"),
        ({"a": 1.0}, {"a": 1.0, "b": 2.0}, "its entry 'b' is missing"),
        (torch.eye(2), torch.ones(2, 2), "[0, 1] is 0, expected 1"),
    ],
)
def test_a_message_shows_what_differs(got, expected, said):
    with pytest.raises(Wrong) as caught:
        compare(got, expected)
    assert said in str(caught.value)


def test_a_line_of_the_checker_is_not_shown_as_the_readers():
    def trust(image_of):
        return image_of(torch.tensor(1), "two") == 0

    def fails(image_of):
        return image_of(3, 4).shape == ()

    for answer in (trust, fails):
        message = judge("01.4", answer).message
        assert "lambda i, n" not in message, message
    assert "`return image_of(3, 4).shape == ()`" in message


def test_a_draw_that_is_right_passes_whatever_the_seed():
    def look(alpha, encoder_out):
        cell = torch.multinomial(alpha, 1, generator=drawn)[:, 0]
        return encoder_out[torch.arange(len(cell)), cell]

    for seed in range(10):
        drawn = torch.Generator().manual_seed(seed)
        assert judge("03.5", look).status == "right"


def test_a_grid_that_is_copied_is_right_but_not_praised_for_memory():
    def copied(alpha, encoder_out):
        n = len(alpha) // len(encoder_out)
        grids = encoder_out.repeat_interleave(n, dim=0)
        return (alpha.unsqueeze(2) * grids).sum(dim=1)

    def product(alpha, encoder_out):
        B, P, D = encoder_out.shape
        return (alpha.view(B, -1, P) @ encoder_out).reshape(-1, D)

    assert judge("03.3", copied).status == "right"
    assert "as if the grid were copied" in judge("03.3", copied).message
    assert "copied" not in judge("03.3", product).message
