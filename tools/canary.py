"""Test the checks: `make canary` plants errors that must turn a check red.

Errors are planted in a temporary copy, one at a time (those of solutions and of
the built site together, since each has a test of its own):

- in every chapter a changed line, output, link and alt text, for `make check`;
  and a wrong output with a valid hash, for nbval, which runs the chapter up to
  there;
- in every exported module a changed line, for `make check`;
- in every folded solution a missing last statement, for the exercises' tests;
- in every page a broken link, and in the book's pages a figure without a stored
  file, for `make check`;
- in every page of the built site, if there is one, a picture whose alt text is
  a file name.

Control runs plant nothing, and all checks must be green. `python -m
tools.canary attention` plants only in files whose name contains that word.
Errors that no check noticed are listed, and the exit status is 1.
"""

from __future__ import annotations

import argparse
import ast
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import nbformat

from tools import check, find_chapters
from tools.notebooks import code_cells, hashes, tags

ROOT = Path(__file__).resolve().parents[1]
COPIED = (
    "*.py",
    "*.toml",
    "*.yml",
    "*.md",
    "LICENSE*",
    "Makefile",
    ".ci",
    ".github",
)
PATIENCE = 400  # time limit of a test run, in seconds
FOLDERS = ("benchmarks", "book", "captionlib", "notebooks", "tests", "tools")


class Plant(NamedTuple):
    """One error: its description, file, changed text, and responsible check."""

    # Chapter, export, solution or page; or control, which must stay green.
    kind: str
    what: str
    path: Path
    text: str
    notices: Callable[[], bool]


def copy(root: Path, target: Path) -> Path:
    """Copy the project without its history and build outputs."""
    for path in [p for pattern in COPIED for p in root.glob(pattern)]:
        (shutil.copytree if path.is_dir() else shutil.copy)(
            path, target / path.name
        )
    for name in FOLDERS:
        ignore = shutil.ignore_patterns("__pycache__", ".ipynb_checkpoints")
        shutil.copytree(root / name, target / name, ignore=ignore)
    return target


@contextmanager
def planted(path: Path, text: str) -> Iterator[None]:
    before = path.read_bytes()
    path.write_text(text, encoding="utf-8")
    try:
        yield
    finally:
        path.write_bytes(before)


def pytest(
    root: Path, *arguments: str, patience: float = PATIENCE
) -> tuple[int, str]:
    """Exit status and output of pytest in a copy; 1 if a test failed or
    hung."""
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        *arguments,
    ]
    environment = {
        **os.environ,
        "PYTHONPATH": str(root),
        "OMP_NUM_THREADS": "1",
    }
    how = {
        "cwd": root,
        "env": environment,
        "capture_output": True,
        "text": True,
    }
    try:
        done = subprocess.run(command, timeout=patience, **how)
    except subprocess.TimeoutExpired:
        # For instance, a training that never ends.
        return 1, ""
    return done.returncode, done.stdout


def complains(root: Path, about: Path, *checks) -> Callable[[], bool]:
    """Whether a part of `make check` complains about a file."""

    def notices() -> bool:
        said = [problem for part in checks for problem in part(root)]
        return any(
            about.relative_to(root).as_posix() in problem for problem in said
        )

    return notices


# ------------------------------------------------------------------- the errors


def changed(path: Path, change: Callable) -> str:
    """The text of a notebook after `change(notebook)`."""
    notebook = nbformat.read(path, as_version=4)
    change(notebook)
    return nbformat.writes(notebook)


def printed(notebook):
    """The first cell whose text output nbval compares, and that output."""
    for cell in code_cells(notebook):
        for output in (
            cell.outputs if "nbval-ignore-output" not in tags(cell) else ()
        ):
            if output.get("name") == "stdout":
                return cell, output
    raise SystemExit("a chapter prints nothing that nbval compares")


def lie(notebook) -> None:
    _, output = printed(notebook)
    output["text"] = "canary\n" + output["text"]


def lie_with_a_fresh_hash(notebook) -> None:
    """As `lie`, with a valid hash; later cells are dropped to save time."""
    lie(notebook)
    cell, _ = printed(notebook)
    notebook.cells = notebook.cells[: notebook.cells.index(cell) + 1]
    notebook.metadata["executed"]["cells"] = hashes(notebook)


def forget_alt_text(notebook) -> None:
    next(
        c for c in notebook.cells if c.metadata.get("mystnb", {}).get("image")
    ).metadata.pop("mystnb")


def say(words: str) -> Callable:
    def change(notebook) -> None:
        next(
            c for c in notebook.cells if c.cell_type == "markdown"
        ).source += f"\n\n{words}"

    return change


LINK = "See [the canary](canary.md)."
ROLE = "The canary sang {measured}`canary.json songs` songs."


def in_chapters(root: Path) -> Iterator[Plant]:
    for script in find_chapters(root):
        stored, name = script.with_suffix(".ipynb"), script.stem
        for what, change, part in (
            ("an output", lie, check.check_outputs),
            ("a picture's alt text", forget_alt_text, check.check_pictures),
            ("a link", say(LINK), check.check_links),
        ):
            text = changed(stored, change)
            notices = complains(root, stored, part)
            yield Plant("chapter", f"{name}: {what}", stored, text, notices)
        text = script.read_text(encoding="utf-8") + "\n# %%\nprint('canary')\n"
        notices = complains(root, script.with_suffix(""), check.check_pairs)
        yield Plant(
            "chapter", f"{name}: a line of one half", script, text, notices
        )

        def nbval(stored=stored) -> bool:
            status, said = pytest(
                root, "--nbval", "--nbval-current-env", "--nbval-cell-timeout=900",
                "--nbval-sanitize-with=tests/nbval.cfg", str(stored),
            )  # fmt: skip
            return status == 1 and "canary" in said

        text = changed(stored, lie_with_a_fresh_hash)
        yield Plant(
            "chapter", f"{name}: an output, its hash fresh", stored, text, nbval
        )


def without_last_statement(text: str, function: ast.FunctionDef) -> str:
    """Source code in which one function lacks its last statement."""
    last, lines = function.body[-1], text.splitlines()
    lines[last.lineno - 1 : last.end_lineno] = [" " * last.col_offset + "pass"]
    return "\n".join(lines) + "\n"


def generated(root: Path) -> list[Path]:
    """The modules exported by chapters."""
    modules = sorted((root / "captionlib").glob("*.py"))
    mark = "\ngenerates it: edit the chapter"
    return [m for m in modules if mark in m.read_text(encoding="utf-8")[:600]]


def in_exports(root: Path) -> Iterator[Plant]:
    for module in generated(root):
        text = module.read_text(encoding="utf-8") + "\n# canary\n"
        notices = complains(root, module, check.check_modules)
        yield Plant("export", f"{module.stem}: a line", module, text, notices)


def in_pages(root: Path) -> Iterator[Plant]:
    readme = root / "README.md"
    yield Plant(
        "control", "make check: nothing", readme, readme.read_text(encoding="utf-8"),
        lambda: not [problem for part in check.CHECKS for problem in part(root)],
    )  # fmt: skip
    pages = [
        root / "README.md",
        root / "CONTRIBUTING.md",
        *sorted((root / "book").glob("*.md")),
    ]
    for page in pages:
        text, name = page.read_text(encoding="utf-8"), page.name
        notices = complains(root, page, check.check_links)
        yield Plant(
            "page", f"{name}: a link", page, f"{text}\n{LINK}\n", notices
        )
        if page.parent.name == "book":
            notices = complains(root, page, check.check_figures)
            text = f"{text}\n{ROLE}\n"
            yield Plant("page", f"{name}: a figure", page, text, notices)


def in_solutions(root: Path, only: str) -> Iterator[tuple[str, bool]]:
    """Drop the last statement of all solutions; one run tells which still
    pass."""
    from tools.exercises import exercises

    numbers = []
    for script in find_chapters(root):
        text = script.read_text(encoding="utf-8")
        for exercise in exercises(script):
            if only not in f"{script.stem} {exercise.number}":
                continue
            numbers.append(exercise.number)
            last = ast.parse(exercise.solution).body[-1]
            holder = (
                last
                if isinstance(last, ast.FunctionDef)
                else ast.parse(exercise.solution)
            )
            worse = without_last_statement(exercise.solution, holder)
            old, new = (
                "".join(
                    f"# {line}".rstrip() + "\n" for line in code.splitlines()
                )
                for code in (exercise.solution, worse)
            )
            assert old in text, (
                f"{exercise.number}: its solution is not in {script}"
            )
            text = text.replace(old, new, 1)
        script.write_text(text, encoding="utf-8")
    if numbers:
        _, said = pytest(
            root, "-rf", "tests/test_exercises.py", "-k", "folded_solution"
        )
        for number in numbers:
            yield (
                number,
                re.search(rf"^FAILED .*passes\[{number}\]", said, re.M)
                is not None,
            )


def in_the_site(
    root: Path, site: Path, only: str
) -> Iterator[tuple[str, bool]]:
    """Drop an alt text in all pages of the site; one run tells which still
    pass."""
    target = root / "_build" / "html"
    shutil.copytree(site, target, dirs_exist_ok=True)
    picture = next((target / "_images").glob("*.png")).name
    pages = []
    for page in sorted(target.rglob("*.html")):
        name = page.relative_to(target).as_posix()
        if only not in name or name.startswith(
            ("_static", "mathjax", "index.html")
        ):
            continue
        up = "../" * name.count("/")
        text = page.read_text(encoding="utf-8")
        image = f'<img src="{up}_images/{picture}" alt="{picture}"></main>'
        page.write_text(text.replace("</main>", image), encoding="utf-8")
        pages.append(name)
    if pages:
        tests = [
            f"tests/test_site.py::test_page[{name}-light]" for name in pages
        ]
        _, said = pytest(root, "-rf", "-n", "2", "-m", "site", *tests)
        for name in pages:
            yield (
                name,
                re.search(rf"^FAILED .*{re.escape(name)}-light", said, re.M)
                is not None,
            )


# ---------------------------------------------------------------------- the run


def sow(
    root: Path, only: str, job: int = 0, jobs: int = 1
) -> Iterator[tuple[Plant, bool]]:
    """Plant every `jobs`th error in a copy, one after the other."""
    kinds = (in_pages, in_chapters, in_exports)
    plants = [
        p for kind in kinds for p in kind(root) if only in f"{p.kind} {p.what}"
    ]
    for plant in plants[job::jobs]:
        with planted(plant.path, plant.text):
            yield plant, plant.notices()


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "only", nargs="?", default="", help="part of a file name"
    )
    parser.add_argument(
        "--jobs",
        type=int,
        default=1,
        help="number of copies to test in parallel",
    )
    options = parser.parse_args(arguments)
    counts, wrong = Counter(), []

    def count(kind: str, what: str, good: bool) -> None:
        counts[kind] += 1
        print(
            f"{'as it should be' if good else 'NOT AS IT SHOULD BE'}: {kind}: "
            f"{what}",
            flush=True,
        )
        if not good:
            wrong.append(f"{kind}: {what}")

    with tempfile.TemporaryDirectory(prefix="canary-") as folder:

        def work(job: int) -> None:
            there = copy(ROOT, Path(folder).resolve() / str(job))
            for plant, red in sow(there, options.only, job, options.jobs):
                count(plant.kind, plant.what, red)

        for job in range(options.jobs + 1):
            (Path(folder) / str(job)).mkdir()
        with ThreadPoolExecutor(options.jobs) as pool:
            list(pool.map(work, range(options.jobs)))
        last = copy(ROOT, Path(folder).resolve() / str(options.jobs))
        if (ROOT / "tools" / "exercises.py").exists():
            for number, red in in_solutions(last, options.only):
                count("solution", number, red)
        if (ROOT / "_build" / "html").exists():
            for name, red in in_the_site(
                last, ROOT / "_build" / "html", options.only
            ):
                count("page of the site", name, red)
    controls = counts.pop("control", 0)
    kinds = ", ".join(f"{number} {kind}" for kind, number in counts.items())
    print(
        f"Canary: {counts.total()} errors planted ({kinds}), {controls} "
        "controls;",
        end=" ",
    )
    print(f"{len(wrong)} not as they should be.")
    print("\n".join(wrong), file=sys.stderr)
    return bool(wrong) or not counts


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
