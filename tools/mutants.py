"""Mutation tests: small changes to the chapters' modules must fail their tests.

A mutant changes one comparison, operator, condition or number, or removes one
statement, returned value or keyword argument. `make mutants` draws a sample by
a seed. Survivors are printed as diffs, and the exit status is 1 unless
tools/mutants.yml explains each. `python -m tools.mutants metrics --count 15`
draws from modules with that word in their names.

mutmut 3.8 writes invalid syntax for captionlib/data.py, and neither it nor
cosmic-ray 8.7 draws a sample: hence one of our own.
"""

from __future__ import annotations

import argparse
import ast
import difflib
import random
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from pathlib import Path
from queue import Queue
from typing import NamedTuple

import yaml
from tqdm import tqdm

from tools.canary import ROOT, copy, generated, planted, pytest

# Tests of a module besides tests/test_MODULE.py.
TESTS = {"metrics": ["metrics", "meteor"], "training": ["training", "rates"]}
PAIRS = ["Lt LtE", "Gt GtE", "Eq NotEq", "In NotIn", "Is IsNot", "And Or"]
PAIRS += ["Add Sub", "Mult Div", "BitAnd BitOr"]
BOTH_WAYS = [(p.split(), p.split()[::-1]) for p in PAIRS]
SWAPS = {one: other for pair in BOTH_WAYS for one, other in pair}
SWAPS |= {"FloorDiv": "Mult", "Mod": "Mult", "Pow": "Mult"}
SIMPLE = (ast.Expr, ast.Assign, ast.AugAssign, ast.Raise, ast.Delete)
LEFT_ALONE = (ast.JoinedStr, ast.Assert, ast.Import, ast.ImportFrom)


class Mutant(NamedTuple):
    module: str
    was: str  # the lines before the change
    becomes: str
    text: str  # the changed module

    def diff(self, before: str) -> str:
        lines = before.splitlines(), self.text.splitlines()
        return "\n".join([*difflib.unified_diff(*lines, lineterm="", n=1)][2:])


def but(node: ast.AST, **fields) -> ast.AST:
    new = deepcopy(node)
    for name, value in fields.items():
        setattr(new, name, value)
    return new


def changes(node: ast.AST, inside=False) -> Iterator[tuple[ast.AST, ast.AST]]:
    """Pairs of a node and its replacement; `inside` a function or not."""
    match node:
        case ast.Compare(ops=[op]):
            yield (
                node,
                but(node, ops=[getattr(ast, SWAPS[type(op).__name__])()]),
            )
        case ast.BoolOp(op=op) | ast.BinOp(op=op) | ast.AugAssign(op=op):
            if other := SWAPS.get(type(op).__name__):
                yield node, but(node, op=getattr(ast, other)())
        case ast.UnaryOp(op=ast.Not() | ast.USub()):
            yield node, node.operand
        case ast.Constant(value=bool()):
            yield node, but(node, value=not node.value)
        case ast.Constant(value=int() | float()):
            yield node, but(node, value=node.value + 1)
        case ast.Call():
            for one in node.keywords:
                others = [each for each in node.keywords if each is not one]
                yield node, but(node, keywords=others)
        case ast.Return(value=ast.expr()):
            yield node, but(node, value=None)
        case ast.Expr(value=ast.Constant()):  # a docstring
            return
        case ast.If() | ast.IfExp() | ast.While():
            yield node.test, ast.UnaryOp(ast.Not(), node.test)
    if inside and isinstance(node, SIMPLE):
        yield node, ast.Pass()
    inside = inside or isinstance(node, ast.FunctionDef)
    for name, value in ast.iter_fields(node):
        if name not in ("annotation", "returns", "decorator_list"):
            for child in value if isinstance(value, list) else [value]:
                if isinstance(child, ast.AST) and not isinstance(
                    child, LEFT_ALONE
                ):
                    yield from changes(child, inside)


def mutants(module: str, text: str) -> Iterator[Mutant]:
    """All mutants of a module, in the order of its text."""
    lines = text.encode().splitlines(keepends=True)
    for node, new in changes(ast.parse(text)):
        first, last = node.lineno - 1, node.end_lineno
        code = ast.unparse(new)
        if isinstance(new, ast.expr) and not isinstance(new, ast.Call):
            code = f"({code})"
        head = lines[first][: node.col_offset]
        tail = lines[last - 1][node.end_col_offset :]
        now = head + code.encode() + tail
        whole = b"".join([*lines[:first], now, *lines[last:]])
        was = b"".join(lines[first:last]).decode().strip()
        yield Mutant(module, was, now.decode().strip(), whole.decode())


def explained() -> set[tuple[str, str, str]]:
    """Mutants that tools/mutants.yml explains."""
    text = (ROOT / "tools" / "mutants.yml").read_text(encoding="utf-8")
    entries = yaml.safe_load(text)
    assert all(entry["because"] for entry in entries)
    return {
        (e["module"], e["was"].strip(), e["becomes"].strip()) for e in entries
    }


class Bench:
    """Copies of the project, in which tests run in parallel."""

    def __init__(self, folder: Path, jobs: int):
        self.free, self.limits = Queue(), {}
        for job in range(jobs):
            (there := folder / str(job)).mkdir()
            self.free.put(copy(ROOT, there))

    def passes(self, module: str, text: str) -> bool:
        there = self.free.get()
        names = [f"tests/test_{n}.py" for n in TESTS.get(module, [module])]
        names = [name for name in names if (there / name).exists()]
        with planted(there / "captionlib" / f"{module}.py", text):
            limit = self.limits.get(module, 900)
            status, _ = pytest(there, "-x", *names, patience=limit)
        self.free.put(there)
        return status == 0

    def measure(self, module: str, text: str) -> None:
        """The duration of a module's tests; a mutant gets four times as
        long."""
        started = time.monotonic()
        if not self.passes(module, text):
            raise SystemExit(f"{module}: its tests fail without a mutation")
        self.limits[module] = 20 + 4 * (time.monotonic() - started)


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("only", nargs="?", default="", help="part of a name")
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=1)
    options = parser.parse_args(arguments)
    paths = [path for path in generated(ROOT) if options.only in path.stem]
    texts = {path.stem: path.read_text(encoding="utf-8") for path in paths}
    every = [m for name, text in texts.items() for m in mutants(name, text)]
    count = min(options.count, len(every))
    drawn = random.Random(options.seed).sample(every, count)
    with (
        tempfile.TemporaryDirectory(prefix="mutants-") as folder,
        ThreadPoolExecutor(options.jobs) as pool,
    ):
        bench = Bench(Path(folder).resolve(), options.jobs)
        for module in sorted({mutant.module for mutant in drawn}):
            bench.measure(module, texts[module])
        alive = pool.map(lambda m: bench.passes(m.module, m.text), drawn)
        alive = tqdm(alive, total=count, disable=None)
        survivors = [m for m, lives in zip(drawn, alive, strict=True) if lives]
    new = [m for m in survivors if m[:3] not in explained()]
    for mutant in new:
        print(f"survived: captionlib/{mutant.module}.py")
        print(mutant.diff(texts[mutant.module]), end="\n\n")
    print(
        f"{count} of {len(every)} mutants, seed {options.seed}: "
        f"{count - len(survivors)} killed, {len(survivors) - len(new)} "
        f"explained, {len(new)} survived."
    )
    return bool(new)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
