"""Can the exercises be fooled? `python -m tools.answers [03] [--show]`.

For every exercise, wrong variants of its solution are made and judged, and right
ones in other styles. A wrong one that passes is a hole in the checker, unless
tools/answers.yml explains why it is right after all; a right one that is refused
is a reader turned away. The table counts both, by chapter.

Wrong variants: one comparison, operator, condition or number of the solution is
changed, one axis swapped, one statement, keyword or returned value left out, as in
`tools.mutants`; a sort, clamp, copy, slice, bound or edge case is dropped; the
operands of a difference or quotient or the arguments of a call are swapped; a list
or vector is sorted before it is used; a size or number is fixed at the first one
that the checker tries, or at one that the question shows; the first result is
returned whatever the arguments. Right ones: other names of arguments; arguments in
another precision; results as arrays, tensors, lists, tuples or in double precision.
"""

from __future__ import annotations

import argparse
import ast
import difflib
import re
import sys
from collections import Counter
from collections.abc import Callable, Container, Iterator, Sequence
from copy import deepcopy
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import yaml
from torch import Tensor

import captionlib.exercises as checkers
from captionlib.exercises import Verdict, judge
from tools import find_chapters
from tools.exercises import Exercise, exercises
from tools.mutants import but, changes

ROOT = Path(__file__).parent.parent
PROJECTS = ROOT / "book" / "projects.md"
EXPLAINED = ROOT / "tools" / "answers.yml"
# Calls whose result differs from what they are called on.
DROPPED = ("clamp", "clone", "sort", "sorted", "abs", "detach", "flatten")
DROPPED += ("sqrt", "exp", "log", "flip", "copy", "item", "reversed", "set")
FIXED = "hard-coded"
WANTED = ("refused", "explained", "accepted")
PATIENCE = 5  # seconds; an endless loop has no more
ONE_WAY = (ast.Sub, ast.Div, ast.FloorDiv, ast.Mod, ast.Pow, ast.MatMult)


class Variant(NamedTuple):
    """An answer that is wrong, or one that is as right as the solution."""

    kind: str
    about: str  # what was changed
    answers: Callable[[], tuple]  # what `check` gets, after the number


def given(exercise: Exercise, code: str) -> tuple:
    """What the exercise's cell hands to `check`, with this code in it."""
    caught: list[tuple] = []
    keep, checkers.check = checkers.check, lambda _, *a: caught.append(a)
    first: dict[int, object] = {}
    names = {"__name__": "__main__", "_first": first.setdefault}
    try:
        exec(compile(exercise.cell(code), exercise.number, "exec"), names)
    finally:
        checkers.check = keep
    return caught[0]


def rewritten(code: str) -> Iterator[tuple[str, str, str]]:
    """Kind, words and code of each changed solution."""
    tree = ast.parse(code)
    lines = ast.unparse(tree).splitlines()
    found = [("changed", node, new) for node, new in changes(tree)]
    for node in ast.walk(tree):
        found += [(kind, node, new) for kind, new in others(node)]
    seen = {tuple(lines)}
    for kind, node, new in found:
        # A copy with `new` in the place of `node`.
        whole = deepcopy(tree, {id(node): deepcopy(new)})
        text = ast.unparse(ast.fix_missing_locations(whole))
        after = tuple(text.splitlines())
        if after in seen:
            continue
        seen.add(after)
        about = f"{ast.unparse(node)} fixed at its first value"
        yield kind, about if kind == FIXED else _about(lines, after), text


def others(node: ast.AST) -> Iterator[tuple[str, ast.AST]]:
    """Kind of change and replacements of a node, besides those of the mutants."""
    match node:
        case ast.Call(keywords=[*_, ast.keyword(arg="dim" | "axis")]) if (
            type(node.keywords[-1].value) is ast.Constant
        ):
            *rest, last = node.keywords
            other = ast.Constant(1 if last.value.value == 0 else 0)
            last = ast.keyword(last.arg, other)
            yield "axis", but(node, keywords=[*rest, last])
        case ast.Call(func=ast.Attribute(value=inner, attr=name)):
            if name in DROPPED:
                yield "dropped", inner
        case ast.Call(func=ast.Name(id="len")):
            yield FIXED, _fixed_here(node)
        case ast.Call(func=ast.Name(id=name), args=[inner, *rest]):
            if name in DROPPED:
                yield "dropped", inner
            if name in ("min", "max") and rest:
                yield from (("dropped", each) for each in node.args)
        case ast.Subscript(value=inner, slice=ast.Slice()):
            yield "dropped", inner
        case ast.Attribute(attr="shape" | "size" | "ndim") if isinstance(
            node.ctx, ast.Load
        ):
            yield FIXED, _fixed_here(node)
        case ast.Slice(lower=lower, upper=upper):
            for name, bound in (("lower", lower), ("upper", upper)):
                if bound:
                    less = ast.BinOp(bound, ast.Sub(), ast.Constant(1))
                    yield "changed", but(node, **{name: less})
                    yield "dropped", but(node, **{name: None})
        case ast.Constant(value=bool() | str()):
            return
        case ast.Constant(value=int() | float()):
            yield "changed", ast.Constant(node.value - 1)
        case ast.BinOp(left=left, right=right):
            yield "dropped", left
            if isinstance(node.op, ONE_WAY):
                yield "swapped", but(node, left=right, right=left)
        case ast.BoolOp(values=values):
            for one in values:
                rest = [each for each in values if each is not one]
                yield (
                    "dropped",
                    rest[0] if len(rest) == 1 else but(node, values=rest),
                )
        case ast.Compare(left=left, ops=[one, *ops], comparators=[a, *rest]):
            if ops:
                yield "dropped", but(node, left=a, ops=ops, comparators=rest)
                yield "dropped", ast.Compare(left, [one], [a])
        case ast.IfExp(body=body, orelse=orelse):
            yield "dropped", body
            yield "dropped", orelse
        case ast.If(body=body, orelse=orelse):
            yield "dropped", ast.If(ast.Constant(1), body, [])
            yield "dropped", ast.If(ast.Constant(1), orelse or [ast.Pass()], [])
        case ast.comprehension(ifs=[_, *_]):
            yield "dropped", but(node, ifs=[])
    if isinstance(node, ast.Call) and len(node.args) > 1:
        one, other, *rest = node.args
        if getattr(node.func, "id", "") not in ("min", "max"):
            yield "swapped", but(node, args=[other, one, *rest])


def _fixed_here(node: ast.expr) -> ast.AST:
    """The size that `node` has when it is first asked for."""
    place = ast.Constant(1000 * node.lineno + node.col_offset)
    return ast.Call(ast.Name("_first", ast.Load()), [place, node], [])


def _about(before: Sequence[str], after: Sequence[str]) -> str:
    """The lines that a change has changed."""
    removed, added = [], []
    for line in difflib.ndiff(before, after):
        if line[0] in "-+":
            (removed if line[0] == "-" else added).append(line[2:].strip())
    return f"{'; '.join(removed)}  ->  {'; '.join(added)}"


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


def numbers_given(
    exercise: Exercise, answers: tuple, several: bool = False
) -> list[tuple[int, int]]:
    """Which answer takes a plain number, or a list or vector of `several`, at
    which place."""
    found = set()

    def wanted(value) -> bool:
        if not several:
            return type(value) in (int, float)
        if isinstance(value, (Tensor, np.ndarray)):
            return value.ndim == 1
        return (
            isinstance(value, list)
            and 0 < len(value)
            and all(type(each) in (int, float) for each in value)
        )

    def wrap(answer):
        which = answers.index(answer)

        def watched(*arguments, **named):
            for place, value in enumerate(arguments):
                if wanted(value):
                    found.add((which, place))
            return answer(*arguments, **named)

        return watched

    judge(exercise.number, *wrapped(answers, wrap))
    return sorted(found)


def fixed(
    answers: tuple, which: int, place: int, value: float | None = None
) -> tuple:
    """One function takes this value, or else the first number that it gets, for
    all numbers."""
    answer, first = answers[which], [] if value is None else [value]

    def fix(*arguments, **named):
        first.append(arguments[place])
        changed = list(arguments)
        changed[place] = first[0]
        return answer(*changed, **named)

    return (*answers[:which], fix, *answers[which + 1 :])


def in_order(answers: tuple, which: int, place: int, sign: int) -> tuple:
    """One function takes the numbers of an argument in order of size."""
    answer = answers[which]

    def order(*arguments, **named):
        changed = list(arguments)
        value = changed[place]
        down = sign < 0
        if isinstance(value, Tensor):
            changed[place] = value.sort(descending=down).values
        else:
            found = sorted(value, reverse=down)
            changed[place] = (
                type(value)(found)
                if isinstance(value, list)
                else np.array(found)
            )
        return answer(*changed, **named)

    return (*answers[:which], order, *answers[which + 1 :])


def in_another_form(result, form: str):
    """A result as an array or a tensor, in double precision, as lists or
    tuples."""
    again = partial(in_another_form, form=form)
    if isinstance(result, tuple):
        parts = map(again, result)
        return list(parts) if form == "list" else tuple(parts)
    if isinstance(result, Tensor) and not result.requires_grad:
        if form == "double":
            return result.double() if result.is_floating_point() else result
        made = {"array": result.numpy, "list": result.tolist}
        return made[form]() if form in made else result
    if isinstance(result, np.ndarray):
        if form == "list" and result.dtype != np.uint8:
            return result.tolist()
        return (
            torch.tensor(result.tolist())
            if form == "tensor" and (result.dtype != np.uint8)
            else result
        )
    if isinstance(result, (bool, int, float, np.floating)):
        made = {"array": np.asarray, "tensor": torch.tensor}
        return (
            made[form](result)
            if form in made and (type(result) is not bool)
            else result
        )
    if isinstance(result, list):
        if form == "tuple":
            return tuple(result)
        if result and type(result[0]) in (bool, int, float):
            made = {"array": np.array, "tensor": torch.tensor}
            return made[form](result) if form in made else result
    return result


def in_another_precision(argument):
    """An argument in double precision, if it was in single, or the reverse."""
    if isinstance(argument, Tensor) and argument.dtype == torch.float32:
        return argument.double()
    if isinstance(argument, np.ndarray) and argument.dtype == np.float64:
        return argument.astype(np.float32)
    return argument


def wrong_variants(exercise: Exercise) -> Iterator[Variant]:
    """Variants that ought to be refused."""
    code = exercise.solution
    answers = given(exercise, code)
    judge(exercise.number, *answers)  # what it imports takes its time once
    functions = any(map(callable, answers))
    for kind, about, text in rewritten(code):
        if functions or kind != FIXED:
            yield Variant(kind, about, partial(given, exercise, text))
    if not functions:
        return
    yield Variant(
        "stubborn", "the first result again", lambda: stubborn(answers)
    )
    for which, place in numbers_given(exercise, answers):
        yield Variant(
            FIXED,
            f"argument {place + 1} fixed at its first value",
            partial(fixed, answers, which, place),
        )
        for number in sorted(set(re.findall(r"\b\d+\b", exercise.text))):
            yield Variant(
                FIXED,
                f"argument {place + 1} is {number}",
                partial(fixed, answers, which, place, int(number)),
            )
    for which, place in numbers_given(exercise, answers, several=True):
        for sign, word in ((1, "rising"), (-1, "falling")):
            yield Variant(
                "sorted",
                f"argument {place + 1} in {word} order",
                partial(in_order, answers, which, place, sign),
            )


def right_variants(exercise: Exercise) -> Iterator[Variant]:
    """Variants that ought to be accepted."""
    answers = given(exercise, exercise.solution)
    judge(exercise.number, *answers)
    if not any(map(callable, answers)):
        return

    def renamed(answer):
        return lambda *arguments: answer(*arguments)

    def precise(answer):
        return lambda *arguments: answer(*map(in_another_precision, arguments))

    yield Variant("renamed", "other names", lambda: wrapped(answers, renamed))
    yield Variant("precise", "inputs", lambda: wrapped(answers, precise))
    for form in ("array", "tensor", "double", "list", "tuple"):

        def wrap(answer, form=form):
            def convert(*arguments, **named):
                return in_another_form(answer(*arguments, **named), form)

            return convert

        yield Variant(
            form, f"as {form}", lambda wrap=wrap: wrapped(answers, wrap)
        )


def verdict(exercise: Exercise, variant: Variant) -> Verdict:
    """What a reader would be told; code that doesn't run is refused."""
    try:
        answers = variant.answers()
    except Exception as error:
        return Verdict("not quite", repr(error))
    patience, checkers.PATIENCE = checkers.PATIENCE, PATIENCE
    try:
        return judge(exercise.number, *answers)
    finally:
        checkers.PATIENCE = patience


class Trial(NamedTuple):
    """A variant, and what became of it."""

    variant: Variant
    wanted: str  # "refused", "accepted" or "explained"
    verdict: Verdict

    @property
    def missed(self) -> bool:
        accepted = self.verdict.status == "right"
        return accepted == (self.wanted == "refused")

    def __str__(self) -> str:
        said = self.verdict.message if self.wanted == "accepted" else ""
        return f"{self.variant.kind}: {self.variant.about} {said}".rstrip()


def trials(
    exercise: Exercise, known: Container[tuple[str, str]]
) -> Iterator[Trial]:
    """Try to fool an exercise, and to answer it in other styles.

    Args:
        exercise: the exercise.
        known: number and change of those that are right after all.
    """
    for variant in wrong_variants(exercise):
        after_all = (exercise.number, variant.about) in known
        wanted = "explained" if after_all else "refused"
        yield Trial(variant, wanted, verdict(exercise, variant))
    for variant in right_variants(exercise):
        yield Trial(variant, "accepted", verdict(exercise, variant))


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
    known, total = explained(), Counter()
    print("chapter  wrong  refused  right after all  right  accepted")
    for path in (*find_chapters(ROOT), PROJECTS):
        counts = Counter()
        for exercise in exercises(path):
            if not exercise.number.startswith(options.only):
                continue
            for trial in trials(exercise, known):
                counts[trial.wanted] += 1
                counts["missed", trial.wanted] += trial.missed
                if options.show and trial.missed:
                    print(f"  {exercise.number} {trial}")
        total += counts
        if counts:
            print(path.stem[:2], *_row(counts), flush=True)
    print("all", *_row(total))
    return any(total["missed", wanted] for wanted in WANTED)


def _row(counts: Counter) -> list[str]:
    wrong, right = counts["refused"], counts["accepted"]
    numbers = wrong, wrong - counts["missed", "refused"], counts["explained"]
    numbers += right, right - counts["missed", "accepted"]
    return [f"{number:8}" for number in numbers]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
