"""A reader runs cells again; `make twice` runs all of every chapter twice."""

import re

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from tools import find_chapters, twice
from tools.notebooks import code_cells, read_script

# What works once: making a folder, moving a file, deleting a name.
ONCE = r"mkdir\((?!.*exist_ok)|\.rename\(|\bos\.link\(|symlink|^del |\"x\""


@pytest.mark.parametrize("path", find_chapters(), ids=lambda path: path.stem)
def test_report_mlep_public_8_no_cell_does_what_works_once(path):
    for cell in code_cells(read_script(path)[0]):
        assert not re.search(ONCE, cell.source, re.MULTILINE), cell.source


def test_report_mlep_public_8_a_cell_that_fails_the_second_time_is_named(
    tmp_path, monkeypatch
):
    cells = [
        new_markdown_cell("# Title"),
        new_code_cell("import os\nnames = ['a']"),
        new_code_cell("os.mkdir('once')"),
        new_code_cell("# fails from the top\nassert len(names) == 1"),
        new_code_cell("names.append('b')"),
        new_code_cell("names = names[:2]\nworks = True"),
    ]
    notebook = new_notebook(cells=cells)
    nbformat.validate(notebook)
    monkeypatch.setattr(twice, "read_script", lambda path: (notebook, ""))
    found = twice.failures(tmp_path / "chapter.py")
    assert len(found) == 2, found
    assert "code cell 2, run 2: FileExistsError" in found[0]
    assert "code cell 2, from the top: FileExistsError" in found[1]
