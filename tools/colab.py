"""Run chapters as Colab does: `make colab-test`, or `python -m tools.colab
notebooks/03_...`.

A chapter's notebook is alone in an empty folder with a new environment. Its
set-up cell finds no `captionlib` and runs its `%pip install git+ADDRESS ...`
unchanged; git's setting `url.<base>.insteadOf` maps this address to a bare copy
of the last commit. This tests the build of the published form, the package's
data, and that the chapter does not depend on the checkout.

Packages that Colab provides (torch, jupyter and so on) are linked from .venv;
those that the set-up cell installs come from PyPI. The environment stands for
Colab's versions, not for its GPU.
"""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import tempfile
import time
import venv
from pathlib import Path

from tools import find_chapters
from tools.notebooks import LACKING_IN_COLAB, address

FETCHED = (
    "captionlib",
    "__editable__",
    "pip",
    *LACKING_IN_COLAB.replace("-", "_").split(),
)
RUN = """
import sys, nbformat
from nbclient import NotebookClient
notebook = nbformat.read(sys.argv[1], as_version=4)
for cell in notebook.cells:
    if cell.cell_type == "code":
        cell.outputs, cell.execution_count = [], None
NotebookClient(notebook, timeout=1800, kernel_name="python3").execute()
cells = [c for c in notebook.cells if c.cell_type == "code"]
assert all(c.execution_count for c in cells)
import captionlib
assert captionlib.__file__.startswith(sys.prefix), captionlib.__file__
print(f"{len(cells)} cells, captionlib {captionlib.__version__}")
"""


def environment(folder: Path) -> Path:
    """Make a virtual environment with Colab's packages; return its Python."""
    venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    here = Path(sysconfig.get_path("purelib", vars={"base": str(folder)}))
    lent = folder / "lent"
    lent.mkdir()
    for entry in Path(sysconfig.get_path("purelib")).iterdir():
        if (
            not entry.name.lower().startswith(FETCHED)
            and entry.suffix != ".pth"
        ):
            (lent / entry.name).symlink_to(entry)
    (here / "lent.pth").write_text(f"{lent}\n")
    return python


def run(chapter: Path, address: str, published: Path) -> tuple[bool, str]:
    """Execute a chapter in an empty folder; return success and a message."""
    with tempfile.TemporaryDirectory(prefix="colab-") as name:
        folder = Path(name)
        python = environment(folder / "env")
        content = folder / "content"
        content.mkdir()
        notebook = content / f"{chapter.stem}.ipynb"
        notebook.write_bytes(chapter.with_suffix(".ipynb").read_bytes())
        clean = {
            k: v
            for k, v in os.environ.items()
            if k not in ("PYTHONPATH", "MPLBACKEND")
        }
        clean |= {
            "GIT_CONFIG_COUNT": "1",
            "GIT_CONFIG_KEY_0": f"url.{published.as_uri()}.insteadOf",
            "GIT_CONFIG_VALUE_0": address,
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
            "TMPDIR": name,
        }
        command = [python, "-c", RUN, notebook.name]
        done = subprocess.run(
            command, cwd=content, env=clean, capture_output=True, text=True
        )
        return done.returncode == 0, (
            done.stdout if not done.returncode else done.stderr
        ).strip()


def main(arguments: list[str]) -> int:
    chapters = [Path(name) for name in arguments] or find_chapters()
    failed = 0
    with tempfile.TemporaryDirectory(prefix="published-") as name:
        published = Path(name, "captionlib.git")
        subprocess.run(
            ["git", "clone", "--quiet", "--bare", ".", published], check=True
        )
        for chapter in chapters:
            start = time.perf_counter()
            ran, said = run(chapter, address(Path("_config.yml"))[0], published)
            failed += not ran
            seconds = time.perf_counter() - start
            print(
                f"{'ran   ' if ran else 'FAILED'} {chapter.stem}: "
                f"{seconds:.0f} s, {said}"
            )
    print(
        f"Colab: {len(chapters) - failed} of {len(chapters)} chapters ran on "
        "their own."
    )
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
