"""Choose the torch to install: its CPU build if there is no GPU and an index
has one.

The tool prints a requirement such as `torch==2.14.1+cpu`, or nothing. PyPI's
only builds for Linux include several gigabytes of CUDA; PIP_EXTRA_INDEX_URL or
PIP_FIND_LINKS may name an index with CPU builds. Only Python and pip are
needed: `make` runs this before it installs anything.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

from pip._vendor.packaging.specifiers import SpecifierSet
from pip._vendor.packaging.version import Version

PROJECT = Path(__file__).resolve().parents[1] / "pyproject.toml"


def processor_build(offered: str, project: str) -> str | None:
    """The newest `+cpu` version in `offered` that the text of pyproject.toml
    allows."""
    allowed = SpecifierSet(
        re.search(r'"torch([<>=~!][^"]+)"', project).group(1)
    )
    found = map(Version, re.findall(r"\d[\w.]*\+cpu\b", offered))
    best = max(filter(allowed.contains, found), default=None)
    return best and str(best)


def main() -> None:
    if sys.platform != "linux" or shutil.which("nvidia-smi"):
        return
    command = [sys.executable, "-m", "pip", "index", "versions", "torch"]
    done = subprocess.run(command, capture_output=True, text=True)
    if version := processor_build(done.stdout, PROJECT.read_text()):
        print(f"torch=={version}")


if __name__ == "__main__":
    main()
