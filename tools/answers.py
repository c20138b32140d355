"""Can the exercises be fooled? `python -m tools.answers [03] [--show]`.

For every exercise, wrong variants of its solution are made and judged, and right
ones in other styles. A wrong one that passes is a hole in the checker, unless
tools/answers.yml explains why it is right after all; a right one that is refused
is a reader turned away. The table counts both, by chapter.

Wrong variants: one comparison, operator, condition or number of the solution is
changed, one axis swapped, one statement, keyword or returned value left out, as in
`tools.mutants`; a sort, clamp, copy or the like is dropped; a size or number is
fixed at the first one that the checker tries; the first result is returned
whatever the arguments. Right ones: other names of arguments; results as NumPy
arrays, in double precision, as lists.
"""

from __future__ import annotations

import argparse
import ast
import sys
from collections.abc import Callable, Iterator
from copy import deepcopy
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import yaml
from torch import Tensor

import captionlib.exercises as checkers
from captionlib.exercises import judge
from tools import find_chapters
from tools.exercises import Exercise, exercises
from tools.mutants import changes

ROOT = Path(__file__).parent.parent
EXPLAINED = ROOT / "tools" / "answers.yml"
# Calls whose result differs from what they are called on.
DROPPED = ("clamp", "clone", "sort", "sorted", "abs", "detach", "flatten")
DROPPED += ("sqrt", "exp", "log", "flip", "copy", "item", "reversed", "set")


class Variant(NamedTuple):
    """An answer that is wrong, or one that is as right as the solution."""

    kind: str
    about: str  # what was changed
    answers: Callable[[], tuple]  # what `check` gets, after the number


def given(exercise: Exercise, code: str) -> tuple:
    """What the exercise's cell hands to `check`, with this code in it."""
    caught: list[tuple] = []
    keep, checkers.check = checkers.check, lambda _, *a: caught.append(a)
    try:
        cell = compile(exercise.cell(code), exercise.number, "exec")
        exec(cell, {"__name__": "__main__"})
    finally:
        checkers.check = keep
    return caught[0]


def rewritten(code: str) -> Iterator[tuple[str, str, str]]:
    """Kind, words and code of each changed solution."""
    tree = ast.parse(code)
    found = [("changed", node, new) for node, new in changes(tree)]
    for node in ast.walk(tree):
        match node:
            case ast.keyword(
                arg="dim" | "axis", value=ast.Constant(value=int())
            ):
                other = ast.Constant(1 if node.value.value == 0 else 0)
                found.append(("axis", node.value, other))
            case ast.Call(func=ast.Attribute(value=inner, attr=name)):
                if name in DROPPED:
                    found.append(("dropped", node, inner))
            case ast.Call(func=ast.Name(id=name), args=[inner, *_]):
                if name in DROPPED:
                    found.append(("dropped", node, inner))
    for kind, node, new in found:
        whole = _Replace(node, new).visit(deepcopy(tree))
        text = ast.unparse(ast.fix_missing_locations(whole))
        yield kind, f"{ast.unparse(node)}  ->  {ast.unparse(new)}", text


class _Replace(ast.NodeTransformer):
    """Puts `new` in the place of the node that stands where `node` does."""

    def __init__(self, node: ast.AST, new: ast.AST):
        self.place, self.kind, self.new = _place(node), type(node), new

    def visit(self, node: ast.AST) -> ast.AST:
        if type(node) is self.kind and _place(node) == self.place:
            return deepcopy(self.new)
        return self.generic_visit(node)


def _place(node: ast.AST) -> tuple:
    names = ("lineno", "col_offset", "end_lineno", "end_col_offset")
    return tuple(getattr(node, name, None) for name in names)


def wrapped(answers: tuple, wrap: Callable) -> tuple:
    """The answers, with each function among them wrapped."""
    return tuple(
        wrap(a) if callable(a) and not isinstance(a, type) else a
        for a in answers
    )


def stubborn(answers: tuple) -> tuple:
    """Functions that repeat their first result."""

    def wrap(answer):
        results = []

        def repeat(*arguments, **named):
            if not results:
                results.append(answer(*arguments, **named))
            return deepcopy(results[0])

        return repeat

    return wrapped(answers, wrap)


def numbers_given(exercise: Exercise, answers: tuple) -> list[tuple[int, int]]:
    """Which answer takes a plain number, at which place."""
    found = set()

    def wrap(answer):
        which = answers.index(answer)

        def watched(*arguments, **named):
            for place, value in enumerate(arguments):
                if type(value) in (int, float):
                    found.add((which, place))
            return answer(*arguments, **named)

        return watched

    judge(exercise.number, *wrapped(answers, wrap))
    return sorted(found)


def fixed(answers: tuple, which: int, place: int) -> tuple:
    """One function takes the first number that it gets for all later ones."""
    answer, first = answers[which], []

    def fix(*arguments, **named):
        first.append(arguments[place])
        changed = list(arguments)
        changed[place] = first[0]
        return answer(*changed, **named)

    return (*answers[:which], fix, *answers[which + 1 :])


def in_another_form(result, form: str):
    """A result as an array, in double precision, or as a list."""
    if isinstance(result, tuple):
        parts = [in_another_form(part, form) for part in result]
        return (
            type(result)(*parts) if hasattr(result, "_fields") else tuple(parts)
        )
    if isinstance(result, Tensor) and not result.requires_grad:
        if form == "array":
            return result.numpy()
        if form == "double":
            return result.double() if result.is_floating_point() else result
        return result.tolist()
    if form == "array" and type(result) is float:
        return np.float64(result)
    return result


def wrong_variants(exercise: Exercise) -> Iterator[Variant]:
    """Variants that ought to be refused."""
    code = exercise.solution
    for kind, about, text in rewritten(code):
        yield Variant(kind, about, lambda text=text: given(exercise, text))
    answers = given(exercise, code)
    if not any(map(callable, answers)):
        return
    yield Variant(
        "stubborn", "the first result again", lambda: stubborn(answers)
    )
    for which, place in numbers_given(exercise, answers):
        yield Variant(
            "hard-coded",
            f"argument {place + 1} fixed at its first value",
            lambda which=which, place=place: fixed(answers, which, place),
        )


def right_variants(exercise: Exercise) -> Iterator[Variant]:
    """Variants that ought to be accepted."""
    answers = given(exercise, exercise.solution)
    if not any(map(callable, answers)):
        return

    def renamed(answer):
        return lambda *arguments: answer(*arguments)

    yield Variant("renamed", "other names", lambda: wrapped(answers, renamed))
    for form in ("array", "double", "list"):

        def wrap(answer, form=form):
            def convert(*arguments, **named):
                return in_another_form(answer(*arguments, **named), form)

            return convert

        yield Variant(
            form, f"as {form}", lambda wrap=wrap: wrapped(answers, wrap)
        )


def verdict(exercise: Exercise, variant: Variant) -> tuple[str, str]:
    """What a reader would be told; code that doesn't run is refused."""
    try:
        answers = variant.answers()
    except Exception as error:
        return "not quite", repr(error)
    with torch.random.fork_rng(devices=[]):
        found = judge(exercise.number, *answers)
    return found.status, found.message


def explained() -> set[tuple[str, str]]:
    """Variants that are right after all: number, and what was changed."""
    entries = yaml.safe_load(EXPLAINED.read_text(encoding="utf-8")) or []
    assert all(entry["because"] for entry in entries)
    return {(e["exercise"], e["changed"].strip()) for e in entries}


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "only", nargs="?", default="", help="such as 03 or 03.1"
    )
    parser.add_argument("--show", action="store_true", help="list each miss")
    options = parser.parse_args(arguments)
    known, total = explained(), [0, 0, 0, 0, 0]
    print("chapter  wrong  refused  right after all  right  accepted")
    for path in find_chapters(ROOT):
        counts = [0, 0, 0, 0, 0]
        for exercise in exercises(path):
            if not exercise.number.startswith(options.only):
                continue
            for variant in wrong_variants(exercise):
                if (exercise.number, variant.about) in known:
                    counts[2] += 1
                    continue
                status, _ = verdict(exercise, variant)
                counts[0] += 1
                counts[1] += status != "right"
                if options.show and status == "right":
                    print(
                        f"  {exercise.number} {variant.kind}: {variant.about}"
                    )
            for variant in right_variants(exercise):
                status, message = verdict(exercise, variant)
                counts[3] += 1
                counts[4] += status == "right"
                if options.show and status != "right":
                    print(f"  {exercise.number} as {variant.kind}: {message}")
        total = [a + b for a, b in zip(total, counts, strict=True)]
        if any(counts):
            print(
                path.stem[:2], *(f"{count:8}" for count in counts), flush=True
            )
    print("all", *(f"{count:8}" for count in total))
    return total[0] != total[1] or total[3] != total[4]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
