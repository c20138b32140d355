"""Chapter 00: one page of plain PyTorch, and prose that fits its stored run."""

import ast
import re
from pathlib import Path

import nbformat
import pytest

from tools.notebooks import code_cells, tags

CHAPTER = Path(__file__).parent.parent / "notebooks" / "00_one_page.ipynb"


@pytest.fixture(scope="module")
def notebook():
    return nbformat.read(CHAPTER, as_version=4)


def plain_cells(notebook):
    """The visible code after the opening picture, without exercises and questions."""
    hidden = {"hide-input", "exercise", "question"}
    return [c for c in code_cells(notebook)[1:] if not hidden & set(tags(c))]


def test_nothing_but_data_and_encoder_comes_from_the_package(notebook):
    used = {
        node.module
        for cell in plain_cells(notebook)
        for node in ast.walk(ast.parse(cell.source))
        if isinstance(node, ast.ImportFrom) and "captionlib" in node.module
    }
    assert used == {"captionlib.encoder", "captionlib.toy.scenes"}


def test_it_is_one_page(notebook):
    sources = "\n".join(cell.source for cell in plain_cells(notebook))
    lines = [line for line in sources.splitlines() if line.strip()]
    assert len(lines) <= 220
    loop = next(
        cell.source
        for cell in plain_cells(notebook)
        if "loss.backward" in cell.source or ".backward()" in cell.source
    )
    body = loop[loop.index("for epoch") :]
    assert len(body.splitlines()) <= 25


def test_the_captions_that_the_prose_discusses_were_written(notebook):
    written = {
        line
        for cell in code_cells(notebook)
        for output in cell.outputs
        for line in output.get("text", "").splitlines()
    }
    quoted = {
        caption
        for cell in notebook.cells
        if cell.cell_type == "markdown"
        for caption in re.findall(r"^- \*([a-z ]{12,})\*", cell.source, re.M)
    }
    assert len(quoted) >= 4
    assert quoted <= written, "rewrite the sentences on these captions"


def test_every_chapter_is_linked(notebook):
    prose = "".join(
        c.source for c in notebook.cells if c.cell_type == "markdown"
    )
    for path in CHAPTER.parent.glob("[0-9][0-9]_*.ipynb"):
        if path.stem[:2] in map("{:02}".format, range(1, 11)):
            assert f"]({path.name})" in prose
