"""Benchmarks: ratios measured in one run, against the naive versions in the chapters."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import jupytext

ROOT = Path(__file__).resolve().parents[1]


def from_chapter(chapter: str, *definitions: str) -> dict:
    """Run the cells of a chapter that hold these definitions; return what they define.

    Args:
        chapter: the notebook's name without its ending, such as "04_decoder".
        definitions: text that a cell must contain, such as "class NaiveDecoder", after a preamble
            of the usual imports.
    """
    notebook = jupytext.read(ROOT / "notebooks" / f"{chapter}.py")
    namespace: dict = {}
    exec("import math\nimport torch\nfrom torch import nn", namespace)
    for definition in definitions:
        found = [
            cell.source
            for cell in notebook.cells
            if cell.cell_type == "code" and definition in cell.source
        ]
        if not found:
            raise LookupError(f"{chapter}: no cell holds {definition!r}")
        exec(compile(found[0], f"{chapter}: {definition}", "exec"), namespace)
    return namespace


def best_seconds(functions: dict[str, Callable[[], object]], rounds: int = 5) -> dict[str, float]:
    """The shortest time of each function; they take turns, so that drift meets all alike."""
    times: dict[str, list[float]] = {name: [] for name in functions}
    for turn in range(rounds + 1):
        for name, function in functions.items():
            start = time.perf_counter()
            function()
            if turn:  # the first turn warms up
                times[name].append(time.perf_counter() - start)
    return {name: min(values) for name, values in times.items()}
