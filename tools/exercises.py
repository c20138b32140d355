"""The exercises of the chapters, read from where they stand: `exercises(path)`.

An exercise is a heading "### 03.1 Title", its text, a code cell tagged
`exercise` with a gap and a call of `check`, and a Markdown cell of folded hints
and, last, the folded solution. The solution's Python is the only copy there is:
what tests/test_exercises.py proves is what the reader unfolds.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import jupytext

from tools.notebooks import tags

HEADING = re.compile(r"^### (\d\d\.\d) (.+)$", re.MULTILINE)
FOLDED = re.compile(
    r"^<details><summary>(.+?)</summary>\n\n(.+?)\n\n</details>$", re.M | re.S
)
PYTHON = re.compile(r"^```python\n(.*?)^```$", re.M | re.S)
CHECK = re.compile(r"^check\(", re.MULTILINE)
# At least: one that says where to look, one that comes close to the line.
HINTS = 2


@dataclass(frozen=True)
class Exercise:
    """One exercise, as the chapter has it."""

    number: str  # "03.1"
    title: str
    text: str  # what is asked
    gap: str  # the cell as it is
    hints: tuple[str, ...]
    solution: str  # Python that goes before the call of `check`

    def cell(self, code: str) -> str:
        """The cell with `code` written into it, after the gap and before the
        check."""
        place = CHECK.search(self.gap).start()
        return f"{self.gap[:place]}{code}\n\n{self.gap[place:]}"


def exercises(path: Path) -> list[Exercise]:
    """Every exercise of a chapter's script, in order.

    Raises:
        ValueError: if a cell tagged `exercise` lacks its heading, check, hints
            or solution.
    """
    cells = jupytext.read(path).cells
    found = []
    for before, cell, after in zip(
        cells, cells[1:], cells[2:] + [None], strict=False
    ):
        if "exercise" not in tags(cell):
            continue
        headings = list(HEADING.finditer(before.source))
        if before.cell_type != "markdown" or not headings:
            raise ValueError(
                f"{path}: no heading '### NN.N Title' before {cell.source[:60]!r}"
            )
        number, title = headings[-1].groups()
        if (
            len(CHECK.findall(cell.source)) != 1
            or f'check("{number}", ' not in cell.source
        ):
            raise ValueError(
                f'{path}: the cell of {number} needs one call of check("{number}", '
            )
        folded = (
            FOLDED.findall(after.source)
            if after and after.cell_type == "markdown"
            else []
        )
        names = [summary for summary, _ in folded]
        hints = [f"Hint {i + 1}" for i in range(len(names) - 1)]
        if len(hints) < HINTS or names != [*hints, "Solution"]:
            raise ValueError(
                f"{path}: {number} needs {HINTS} or more folded hints, Hint 1 and on, and then a "
                f"Solution; it has {names}"
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
