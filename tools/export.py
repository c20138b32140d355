"""Export chapters to modules: `python -m tools.export [notebooks/NN_name.py
...]`.

All chapters are exported by default. Cells that begin with `#| export` are
joined in order, with their imports hoisted to the top. The chapter's metadata
names the module: `captionlib: {module: data}`.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import jupytext

from tools import chapter_title, find_chapters

MARK = "#| export"
NEARLY = re.compile(r"^\s*#\s*\|\s*export\b", re.MULTILINE)


def ruff(text: str, *arguments: str) -> str:
    """`text` after a pass of ruff with the settings in pyproject.toml."""
    command = [
        sys.executable,
        "-m",
        "ruff",
        *arguments,
        "--stdin-filename=captionlib/module.py",
    ]
    done = subprocess.run(
        [*command, "--quiet", "-"], input=text, capture_output=True, text=True
    )
    if done.returncode:
        raise SystemExit(f"ruff {arguments[0]} stopped: {done.stderr.strip()}")
    return done.stdout


def take_apart(source: str) -> tuple[list[str], str, list[str]]:
    """The imports of a marked cell, the rest of its text, and the names it
    defines."""
    imports, names, lines = [], [], source.splitlines()
    for node in ast.parse(source).body:
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            taken = slice(node.lineno - 1, node.end_lineno)
            imports.append("\n".join(lines[taken]))
            lines[taken] = [""] * len(lines[taken])
        elif isinstance(
            node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
        ):
            names.append(node.name)
        elif isinstance(node, (ast.Assign, ast.AnnAssign)):
            targets = (
                node.targets if isinstance(node, ast.Assign) else [node.target]
            )
            names += [
                n.id
                for t in targets
                for n in ast.walk(t)
                if isinstance(n, ast.Name)
            ]
    return imports, "\n".join(lines[1:]).strip(), names


def export(path: Path) -> tuple[str, str] | None:
    """Name and text of the module that a chapter exports, if any."""
    notebook = jupytext.read(path)
    module = notebook.metadata.get("captionlib", {}).get("module")
    imports, bodies, names = [], [], []
    for number, cell in enumerate(notebook.cells, 1):
        where = f"{path}, cell {number}"
        if cell.cell_type != "code" or not NEARLY.search(cell.source):
            continue
        if cell.source.splitlines()[0] != MARK:
            raise SystemExit(
                f"{where}: '{MARK}' must be the first line, spelt exactly so"
            )
        try:
            new_imports, body, new_names = take_apart(cell.source)
        except SyntaxError as error:
            line = (cell.source.splitlines() + [""])[
                (error.lineno or 1) - 1
            ].strip()
            raise SystemExit(
                f"{where}: cannot be exported: {error.msg}: {line}"
            ) from None
        if twice := set(names) & set(new_names):
            raise SystemExit(f"{where}: {min(twice)} is defined twice")
        imports, bodies, names = (
            imports + new_imports,
            [*bodies, body],
            names + new_names,
        )
    if not module and not bodies:
        return None
    if not module or not bodies:
        raise SystemExit(
            f"{path}: has a module name in its metadata or marked cells, but "
            "not both"
        )
    title = chapter_title(notebook)
    title += "." * (title[-1] not in ".?!")
    header = (
        f'"""{title}\n\nChapter {path.stem[:2]} of the book, '
        f"notebooks/{path.stem}.ipynb, explains this module and\ngenerates it: edit the chapter, "
        'not this file, then run `make export`.\n"""'
    )
    imports.sort(key=lambda line: not line.startswith("from __future__"))
    public = sorted(f'"{name}"' for name in names if not name.startswith("_"))
    parts = [
        header,
        "\n".join(imports),
        f"__all__ = [{', '.join(public)}]",
        *filter(None, bodies),
    ]
    tidied = ruff(
        "\n\n\n".join(parts), "check", "--fix-only", "--select=I,F401"
    )
    return module, ruff(tidied, "format")


def main(arguments: list[str]) -> None:
    for path in [
        Path(name).with_suffix(".py") for name in arguments
    ] or find_chapters():
        if exported := export(path):
            target = Path("captionlib", f"{exported[0]}.py")
            if not target.exists() or target.read_text() != exported[1]:
                target.write_text(exported[1])
                print(f"{target}: written from {path}")


if __name__ == "__main__":
    main(sys.argv[1:])
