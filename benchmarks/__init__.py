"""Benchmarks: ratios to the chapters' naive versions, measured in one run."""

from __future__ import annotations

import multiprocessing
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import NamedTuple

import jupytext

ROOT = Path(__file__).resolve().parents[1]
# Limit on the growth of peak memory with ten times as many images.
FLAT = 1.1


class Row(NamedTuple):
    """One line of the table: a measurement and its target."""

    what: str
    value: float
    unit: str  # "×", "%", "MB", or "s"
    target: float | None = None  # None: no target
    at_least: bool = True  # otherwise at most

    @property
    def met(self) -> bool | None:
        if self.target is None:
            return None
        return (
            self.value >= self.target
            if self.at_least
            else self.value <= self.target
        )


def from_chapter(chapter: str, *definitions: str) -> dict:
    """Run the cells of a chapter with these definitions; return the namespace.

    Args:
        chapter: the notebook's name without its extension, such as
            "04_decoder".
        definitions: text that a cell must contain, such as "class
            NaiveDecoder", after a preamble of the usual imports and of the
            decoder's classes, which cells take from those above them.
    """
    notebook = jupytext.read(ROOT / "notebooks" / f"{chapter}.py")
    namespace: dict = {}
    exec(
        "import math\nimport numpy as np\nimport torch\nfrom torch import nn\n"
        "from captionlib.decoder import DecoderWithAttention, State",
        namespace,
    )
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


def median_seconds(
    functions: dict[str, Callable[[], object]], rounds: int = 5
) -> dict[str, float]:
    """The median time of each function; they take turns, to share any drift."""
    times: dict[str, list[float]] = {name: [] for name in functions}
    for turn in range(rounds + 1):
        for name, function in functions.items():
            start = time.perf_counter()
            function()
            if turn:  # the first turn warms up
                times[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in times.items()}


def in_fresh_process(function: Callable, *args):
    """Call `function(*args)` in a new process; all must be picklable."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *args).result()


def highest_megabytes() -> float:
    """The peak memory of this process; NaN except on Linux."""
    try:
        # getrusage would include the parent's.
        with open("/proc/self/status") as status:
            (line,) = (line for line in status if line.startswith("VmHWM"))
    except FileNotFoundError:
        return float("nan")
    return int(line.split()[1]) * 1024 / 1e6
