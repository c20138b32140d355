"""`make check` must turn red: each test plants one fault and wants to see its line."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import jupytext
import nbformat
import pytest

from tools import check, export, notebooks

ROOT = Path(__file__).parent.parent
CHAPTER = '''# ---
# jupyter:
#   captionlib:
#     module: sums
#   jupytext:
#     formats: ipynb,py:percent
#     notebook_metadata_filter: captionlib
#     text_representation:
#       extension: .py
#       format_name: percent
#       format_version: '1.3'
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Sums
#
# What is *two and two*? See [the page](../book/page.md#a-heading).

# %%
# | export
import math


def add(one, two):
    """The sum, to the last bit."""
    return math.fsum((one, two))


# %%
print(add(2, 2))

# %% mystnb={"image": {"alt": "A red square, alone."}}
from PIL import Image

Image.new("RGB", (8, 8), "red")
'''.replace("# | export", "#| export")


@pytest.fixture(scope="session")
def template(tmp_path_factory):
    """A project of one chapter, exported and executed once, in sync."""
    folder = tmp_path_factory.mktemp("project")
    for name in ("pyproject.toml", "_config.yml"):
        shutil.copy(ROOT / name, folder)
    for name in ("captionlib", "notebooks", "book/figures"):
        (folder / name).mkdir(parents=True)
    shutil.copy(
        ROOT / "book/figures/open-in-colab.svg", folder / "book/figures"
    )
    (folder / "captionlib/__init__.py").write_text('"""A package."""\n')
    (folder / "book/page.md").write_text(
        "(label)=\n# A heading\n\n[sums](../notebooks/00_sums.ipynb), [up](#label)\n\n"
        "![Two rings](figures/open-in-colab.svg) <https://arxiv.org/abs/1502.03044>\n"
    )
    (folder / "README.md").write_text(
        "# Sums\n\n[the book](book/page.md#a-heading)\n"
    )
    (folder / "notebooks/00_sums.py").write_text(CHAPTER)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("PYTHONPATH", ".." + ":" + str(ROOT))
        export.main([])
        assert notebooks.main([]) == 0
    return folder


@pytest.fixture
def project(template, tmp_path, monkeypatch):
    """A fresh copy of it, as the current folder."""
    shutil.copytree(template, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


SCRIPT, STORED = Path("notebooks/00_sums.py"), Path("notebooks/00_sums.ipynb")
MODULE, PAGE = Path("captionlib/sums.py"), Path("book/page.md")


def replace(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def edit(change) -> None:
    """Change the stored notebook by hand."""
    notebook = nbformat.read(STORED, as_version=4)
    change(notebook)
    nbformat.write(notebook, STORED)


def cell_with(notebook, text: str):
    return next(
        c for c in notebook.cells if c.cell_type == "code" and text in c.source
    )


def test_all_is_well(project, capsys):
    assert check.main() == 0
    said = capsys.readouterr().out
    assert "In sync: 1 chapters" in said and "Code cells: 0" not in said
    assert "Code cells: " in said


def test_the_module_reads_as_written_by_hand(project):
    text = MODULE.read_text()
    assert text.startswith(
        '"""Sums.\n\nChapter 00 of the book, notebooks/00_sums.ipynb,'
    )
    assert (
        '\nimport math\n\n__all__ = ["add"]\n\n\ndef add(one, two):\n' in text
    )
    assert "#|" not in text and "# %%" not in text


def test_saved_by_jupyterlab_nothing_changed(project):
    """What jupytext does in JupyterLab: it reads the pair, and writes both halves."""
    notebook = jupytext.read(SCRIPT)
    stored = nbformat.read(STORED, as_version=4)
    assert jupytext.writes(stored, "py:percent") == jupytext.writes(
        notebook, "py:percent"
    )
    SCRIPT.write_text(jupytext.writes(notebook, "py:percent"))
    assert "jupytext_version" in SCRIPT.read_text()
    assert check.main() == 0


def change_output(notebook):
    cell_with(notebook, "print(add").outputs[0]["text"] = "5.0\n"


def change_source(notebook):
    cell_with(notebook, "print(add").source = "print(add(2, 3))"


def forget_execution(notebook):
    cell_with(notebook, "print(add").execution_count = None


def store_error(notebook):
    cell_with(notebook, "print(add").outputs = [
        nbformat.v4.new_output(
            "error", ename="ValueError", evalue="no", traceback=[]
        )
    ]


def store_machine_path(notebook):
    cell_with(notebook, "print(add").outputs[0]["text"] = (
        "/home/somebody/captionlib\n"
    )


def drop_alt_text(notebook):
    del cell_with(notebook, "Image.new").metadata["mystnb"]


def add_cell(notebook):
    notebook.cells.append(nbformat.v4.new_code_cell("1 + 1", execution_count=9))


def both_halves(old: str, new: str) -> None:
    """A changed source in both halves, and no execution."""
    replace(SCRIPT, old, new)
    edit(lambda notebook: setattr(cell_with(notebook, old), "source", new))


FAULTS = {
    "a changed line in a module": (
        lambda: replace(MODULE, "to the last bit", "roughly"),
        "captionlib/sums.py: differs from what",
    ),
    "a module that is gone": (
        lambda: MODULE.unlink(),
        "captionlib/sums.py: differs",
    ),
    "a module without a chapter": (
        lambda: shutil.copy(MODULE, "captionlib/left_over.py"),
        "captionlib/left_over.py: says that it is generated",
    ),
    "code in one half, the script": (
        lambda: replace(SCRIPT, "print(add(2, 2))", "print(add(2, 3))"),
        "the two halves of the pair differ",
    ),
    "prose in one half, the script": (
        lambda: replace(SCRIPT, "*two and two*", "*two and three*"),
        "the two halves of the pair differ",
    ),
    "prose in one half, the notebook": (
        lambda: replace(STORED, "*two and two*", "*two and three*"),
        "the two halves of the pair differ",
    ),
    "a half that is gone": (lambda: STORED.unlink(), "has never been executed"),
    "the other half that is gone": (
        lambda: SCRIPT.unlink(),
        "has no script beside it",
    ),
    "a source changed and not executed": (
        lambda: both_halves("print(add(2, 2))", "print(add(2, 3))"),
        "its source changed since it was executed",
    ),
    "a source changed in the notebook": (
        lambda: edit(change_source),
        "its source changed since",
    ),
    "a changed stored output": (
        lambda: edit(change_output),
        "its stored output is not the one",
    ),
    "a cell that was not executed": (
        lambda: edit(forget_execution),
        "was not executed",
    ),
    "a cell that was added": (lambda: edit(add_cell), "cells came or went"),
    "a stored error": (
        lambda: edit(store_error),
        "an error is stored, ValueError",
    ),
    "a path of one machine": (
        lambda: edit(store_machine_path),
        "names a path of one machine",
    ),
    "a stored picture without alt text": (
        lambda: edit(drop_alt_text),
        "has no alt text",
    ),
    "a set-up cell out of date": (
        lambda: replace(Path("_config.yml"), "/OWNER/", "/somebody/"),
        "set-up cell, badge or format not up to date",
    ),
    "a link to nothing": (
        lambda: replace(PAGE, "00_sums.ipynb", "01_sums.ipynb"),
        "book/page.md: the link ../notebooks/01_sums.ipynb leads nowhere",
    ),
    "a link in the README to no heading": (
        lambda: replace(Path("README.md"), "#a-heading", "#another"),
        "README.md: the link book/page.md#another page.md has no heading",
    ),
    "a link in a chapter to nothing": (
        lambda: [
            replace(p, "page.md#a-heading", "page.md#gone")
            for p in (SCRIPT, STORED)
        ],
        "00_sums.ipynb: the link ../book/page.md#gone page.md has no heading",
    ),
    "a label that is linked with its page": (  # GitHub would find it, and the book would not
        lambda: replace(PAGE, "[up](#label)", "[up](page.md#label)"),
        "book/page.md: the link page.md#label page.md has no heading",
    ),
    "a citation of nothing": (
        lambda: replace(PAGE, "Two rings", "{cite:t}`xu2015`"),
        "book/page.md: 'xu2015' is not in book/references.bib",
    ),
    "a term that nobody explains": (
        lambda: replace(PAGE, "Two rings", "{term}`sums <sum>`"),
        "book/page.md: 'sum' is not in book/glossary.md",
    ),
    "an address that is none": (
        lambda: replace(PAGE, "https://arxiv.org", "https://arxiv"),
        "is not a well-formed address",
    ),
    "a picture in prose without alt text": (
        lambda: replace(PAGE, "![Two rings]", "![]"),
        "the picture figures/open-in-colab.svg has no alt text",
    ),
    "an unused import": (
        lambda: replace(
            Path("captionlib/__init__.py"), '"""\n', '"""\n\nimport os\n'
        ),
        "captionlib/__init__.py:3:8: F401",
    ),
    "a loose layout": (
        lambda: replace(
            Path("captionlib/__init__.py"), '"""\n', '"""\n\nx = {1:2}\n'
        ),
        "captionlib/__init__.py: is not as `ruff format` writes it",
    ),
    "an unused name in a chapter": (
        lambda: edit(
            lambda n: setattr(
                cell_with(n, "print(add"), "source", "print(adder)"
            )
        ),
        "F821",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_found(project, capsys, fault):
    plant, line = FAULTS[fault]
    plant()
    assert check.main() == 1
    assert line in capsys.readouterr().out.replace("\\", "/")


@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        ("import math", "%time add\nimport math", "cell 4: cannot be exported"),
        ("import math", "!ls\nimport math", "cell 4: cannot be exported"),
        ("def add(one, two):", "def add(one, two:", "cannot be exported"),
        ("#| export", "# | export", "must be the first line, spelt exactly so"),
        (
            "#| export\nimport math",
            "import math\n#| export",
            "must be the first line",
        ),
        (
            "print(add(2, 2))",
            "#| export\ndef add():\n    pass",
            "add is defined twice",
        ),
        ("#     module: sums", "#     nothing: sums", "not both"),
    ],
)
def test_an_export_that_cannot_be_stops_with_a_line(project, old, new, line):
    if new.startswith(("%", "!")):  # in a script a magic is a comment
        new = "# " + new
    replace(SCRIPT, old, new)
    before = MODULE.read_text()
    with pytest.raises(SystemExit, match=line) as stop:
        export.main([])
    assert str(stop.value).startswith(
        "notebooks/00_sums.py"
    ) and "\n" not in str(stop.value)
    assert MODULE.read_text() == before


def test_prose_and_metadata_are_carried_over_without_execution(project):
    executed = json.loads(STORED.read_text())["metadata"]["executed"]
    replace(SCRIPT, "*two and two*", "*two and three*")
    replace(SCRIPT, "A red square, alone.", "A square, red and alone.")
    assert notebooks.main(["--sync"]) == 0
    assert check.main() == 0
    assert json.loads(STORED.read_text())["metadata"]["executed"] == executed


def test_changed_code_is_not_carried_over(project, capsys):
    replace(SCRIPT, "print(add(2, 2))", "print(add(2, 3))")
    assert notebooks.main(["--sync"]) == 1
    assert "execute it" in capsys.readouterr().out


def test_executing_again_changes_nothing_but_the_time(project):
    before = nbformat.read(STORED, as_version=4)
    assert notebooks.main([]) == 0
    after = nbformat.read(STORED, as_version=4)
    for notebook in (before, after):
        notebook.metadata["executed"].pop("seconds")
    assert before == after


def test_a_chapter_that_fails_is_not_stored(project, capsys):
    before = STORED.read_text()
    replace(SCRIPT, "print(add(2, 2))", "print(add(2))")
    assert notebooks.main([]) == 1
    assert "TypeError" in capsys.readouterr().err
    assert STORED.read_text() == before


def test_the_real_chapters_turn_red_too(tmp_path):
    """The four faults of the contract, each in another chapter of this book."""
    names = (
        "pyproject.toml",
        "_config.yml",
        "README.md",
        "CONTRIBUTING.md",
        "LICENSE",
    )
    for name in names:
        shutil.copy(ROOT / name, tmp_path)
    ignore = shutil.ignore_patterns(
        "__pycache__", "assets", ".ipynb_checkpoints"
    )
    for name in ("captionlib", "notebooks", "book", "tools"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=ignore)
    with (tmp_path / "captionlib/attention.py").open("a") as module:
        module.write("\nanswer = 42\n")
    script = tmp_path / "notebooks/02_encoder.py"
    script.write_text(
        script.read_text() + "\n# %% [markdown]\n# One more thing.\n"
    )
    path = tmp_path / "notebooks/06_beam_search.ipynb"
    notebook = nbformat.read(path, as_version=4)
    next(
        c
        for c in notebook.cells
        if "setup" not in notebooks.tags(c) and c.cell_type == "code"
    )["source"] += "\n# a remark"
    nbformat.write(notebook, path)
    path = tmp_path / "notebooks/07_bleu.ipynb"
    notebook = nbformat.read(path, as_version=4)
    next(c for c in notebook.cells if c.get("outputs"))["outputs"].pop()
    nbformat.write(notebook, path)
    done = subprocess.run(
        [sys.executable, "-m", "tools.check"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    for line in (
        "captionlib/attention.py: differs from what",
        "notebooks/02_encoder.ipynb: the two halves of the pair differ",
        "its source changed since it was executed",
        "its stored output is not the one it gave",
    ):
        assert line in done.stdout
