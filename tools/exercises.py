"""Read the exercises from the chapters: `exercises(path)`.

An exercise is a heading "### 03.1 Title", a text, a code cell tagged `exercise`
with a gap and a call of `check`, and a Markdown cell with folded hints and,
last, the folded solution. The solution's Python exists only there:
tests/test_exercises.py runs what the reader unfolds. The page of projects has
the same form, with blocks of Python as its cells.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import jupytext
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell

from tools.notebooks import tags

HEADING = re.compile(r"^### ((?:\d\d|[A-D])\.\d) (.+)$", re.MULTILINE)
# A block of the page with a gap; one without is no exercise.
GAP = re.compile(
    r"^```python\n((?:(?!```).*\n)*?def .*\n    return \.\.\..*\n"
    r"(?:(?!```).*\n)*?check\(.*\n)```$",
    re.MULTILINE,
)
FOLDED = re.compile(
    r"^<details><summary>(.+?)</summary>\n\n(.+?)\n\n</details>$", re.M | re.S
)
PYTHON = re.compile(r"^```python\n(.*?)^```$", re.M | re.S)
CHECK = re.compile(r"^check\(", re.MULTILINE)
# At least two: one says where to look, one comes close to the solution.
HINTS = 2


@dataclass(frozen=True)
class Exercise:
    """One exercise of a chapter."""

    number: str  # "03.1"
    title: str
    text: str  # the task
    gap: str  # the code cell
    hints: tuple[str, ...]
    solution: str  # Python to insert before the call of `check`

    def cell(self, code: str) -> str:
        """The cell with `code` inserted between the gap and the check."""
        place = CHECK.search(self.gap).start()
        return f"{self.gap[:place]}{code}\n\n{self.gap[place:]}"


def exercises(path: Path) -> list[Exercise]:
    """Every exercise of a chapter's script, in order.

    Raises:
        ValueError: if a cell tagged `exercise` lacks its heading, check, hints
            or solution.
    """
    cells = _blocks(path) if path.suffix == ".md" else jupytext.read(path).cells
    found = []
    for before, cell, after in zip(
        cells, cells[1:], cells[2:] + [None], strict=False
    ):
        if "exercise" not in tags(cell):
            continue
        headings = list(HEADING.finditer(before.source))
        if before.cell_type != "markdown" or not headings:
            raise ValueError(
                f"{path}: no heading '### NN.N Title' before "
                f"{cell.source[:60]!r}"
            )
        number, title = headings[-1].groups()
        if (
            len(CHECK.findall(cell.source)) != 1
            or f'check("{number}", ' not in cell.source
        ):
            raise ValueError(
                f'{path}: the cell of {number} needs one call of check("{number}", '
            )
        told = after.source if after and after.cell_type == "markdown" else ""
        folded = FOLDED.findall(told.split("\n### ")[0])
        names = [summary for summary, _ in folded]
        hints = [f"Hint {i + 1}" for i in range(len(names) - 1)]
        if len(hints) < HINTS or names != [*hints, "Solution"]:
            raise ValueError(
                f"{path}: {number} needs at least {HINTS} folded hints, from "
                f"Hint 1, and then a Solution; it has {names}"
            )
        solution = PYTHON.findall(folded[-1][1])
        if len(solution) != 1:
            raise ValueError(
                f"{path}: the solution of {number} needs one block of Python"
            )
        text = before.source[headings[-1].end() :].strip()
        hints = tuple(content for _, content in folded[:-1])
        found.append(
            Exercise(number, title, text, cell.source, hints, solution[0])
        )
    return found


def _blocks(path: Path) -> list[NotebookNode]:
    """A page as cells: blocks with a gap, and text up to the next heading."""
    parts = GAP.split(path.read_text(encoding="utf-8"))
    cells = [new_markdown_cell(parts[0])]
    for gap, text in zip(parts[1::2], parts[2::2], strict=True):
        cells.append(
            new_code_cell(gap.rstrip(), metadata={"tags": ["exercise"]})
        )
        folds, *rest = re.split(r"^(?=##)", text, flags=re.MULTILINE)
        cells += [new_markdown_cell(folds), new_markdown_cell("".join(rest))]
    return cells
