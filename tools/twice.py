"""Run every cell of a chapter twice: `make twice`, or `python -m tools.twice
[CHAPTER ...]`.

A reader runs a cell again after looking at its output, and a chapter again
from the top without restarting its kernel. Neither may raise an error, though
a training that goes on from where it stood may print other numbers.
"""

from __future__ import annotations

import argparse
import sys
from copy import deepcopy
from pathlib import Path

from tools import find_chapters
from tools.notebooks import execute, read_script

__all__ = ["doubled", "failures"]


def doubled(notebook):
    """The same notebook with each code cell twice in a row, then all again."""
    code = [c for c in notebook.cells if c.cell_type == "code"]
    notebook.cells = [
        deepcopy(cell)
        for cell in [c for cell in code for c in (cell, cell)] + code
    ]
    for number, cell in enumerate(notebook.cells):
        cell.id = f"cell-{number}"
    return notebook


def failures(path: Path) -> list[str]:
    """One line for each run of a cell that raised an error."""
    notebook = doubled(read_script(path)[0])
    execute(notebook, path.parent, go_on=True)
    count = len(notebook.cells) // 3
    found = []
    for number, cell in enumerate(notebook.cells):
        run = "from the top" if number >= 2 * count else f"run {number % 2 + 1}"
        place = number % count if number >= 2 * count else number // 2
        found += [
            f"{path}: code cell {place + 1}, {run}: "
            f"{output.ename}: {output.evalue}\n    "
            + cell.source.split("\n")[0]
            for output in cell.outputs
            if output.output_type == "error"
            and "raises-exception" not in cell.metadata.get("tags", [])
        ]
    return found


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(
        description="Run every cell of a chapter twice, and again from the top."
    )
    parser.add_argument("chapters", nargs="*", type=Path, help="default: all")
    options = parser.parse_args(arguments)
    status = 0
    for path in options.chapters or find_chapters():
        found = failures(path.with_suffix(".py"))
        print(*found or [f"{path}: runs twice"], sep="\n", flush=True)
        status |= bool(found)
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
