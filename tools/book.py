"""Build the book: `python -m tools.book`.

The site, in _build/html, opens from disk and needs no network. Every warning is
an error, and no page or style sheet may load anything remote. Added are the
chapters' notebooks, as notebooks.zip, which is all that `--zip` makes, and the
captioner that the page "Try it" loads.

`--sphinx` builds the same pages into _build/sphinx with plain Sphinx, from the
conf.py that Jupyter Book writes, so that the book can leave Jupyter Book if it
has to.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from html.parser import HTMLParser
from pathlib import Path

from tools import find_chapters
from tools.canary import copy

GALLERY = Path("book/gallery")
# The photographs of "Try it": what it knows, and two things it does not.
SAMPLES = (
    "dog-in-the-wood",
    "two-dogs",
    "wading",
    "cameraman",
    "polar-bear",
    "billiards",
)
SITE = Path("_build/html")
PLAIN = Path("_build/sphinx")
REMOTE = re.compile(r"^\s*(https?:)?//", re.IGNORECASE)
IN_STYLE = re.compile(
    r"url\(\s*['\"]?(?:https?:)?//[^)]*\)|@import\s+['\"](?:https?:)?//[^'\"]+"
)


class Assets(HTMLParser):
    """Collects what a page loads from remote addresses, links excepted."""

    def __init__(self):
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        loads = [
            given.get(name) for name in ("src", "srcset", "poster", "data")
        ]
        relation = (given.get("rel") or "").lower()
        if tag == "link" and not {"canonical", "next", "prev", "search"} & set(
            relation.split()
        ):
            loads.append(given.get("href"))
        self.found += [
            value for value in loads if value and REMOTE.match(value)
        ]
        self.found += IN_STYLE.findall(given.get("style") or "")

    def handle_data(self, text):
        if (self.get_starttag_text() or "").startswith("<style"):
            self.found += IN_STYLE.findall(text)


def remote_assets(site: Path) -> list[str]:
    """A line for each remote resource that a page or style sheet loads."""
    problems = []
    for page in sorted(site.rglob("*.html")):
        parser = Assets()
        parser.feed(page.read_text(encoding="utf-8"))
        problems += [f"{page}: loads {value}" for value in parser.found]
    for sheet in sorted(site.rglob("*.css")):
        text = sheet.read_text(encoding="utf-8")
        problems += [
            f"{sheet}: loads {match.group()}"
            for match in IN_STYLE.finditer(text)
        ]
    return problems


def zip_notebooks(target: Path) -> Path:
    """Zip the chapters' notebooks; equal notebooks give equal bytes."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(target, "w") as archive:
        for path in [Path("LICENSE"), Path("LICENSE-prose"), *find_chapters()]:
            path = path.with_suffix(".ipynb") if path.suffix else path
            entry = zipfile.ZipInfo(f"captionlib-notebooks/{path.name}")
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, path.read_bytes())
    return target


def add_captioner(site: Path) -> None:
    """Write the packaged captioner into the site, for the page "Try it"."""
    # Here, since `--zip` does not need torch.
    from captionlib.captioner import SHIPPED
    from captionlib.model import CaptionModel
    from captionlib.page import Sample, write_captioner

    text = (GALLERY / "photographs.json").read_text(encoding="utf-8")
    shows = {Path(p["file"]).stem: p["shows"] for p in json.loads(text)}
    samples = [Sample(GALLERY / f"{x}.jpg", shows[x]) for x in SAMPLES]
    # Of the ensemble, one: a page should not load twice the weights.
    model = CaptionModel.load(SHIPPED, member=0)
    write_captioner(model, site / "captioner", samples)


def tool(name: str) -> Path:
    """The path of a command in this environment."""
    return Path(sys.executable).with_name(name)


def build_plain(target: Path) -> int:
    """Build the pages with `sphinx-build`; every warning is an error."""
    shutil.rmtree(target, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix="book-") as folder:
        root = copy(Path(), Path(folder).resolve())  # conf.py goes beside it
        done = subprocess.run([tool("jupyter-book"), "config", "sphinx", root])
        if done.returncode:
            return done.returncode
        # conf.py names the book's own extensions, but not their folder.
        paths = [Path.cwd(), root / "book" / "_ext"]
        environment = os.environ | {
            "PYTHONPATH": os.pathsep.join(map(str, paths))
        }
        options = ["-q", "-W", "-n", "--keep-going"]
        command = [tool("sphinx-build"), *options, root, target.resolve()]
        return subprocess.run(command, env=environment).returncode


def main(arguments: list[str]) -> int:
    if arguments == ["--sphinx"]:
        status = build_plain(PLAIN)
        if not status:
            add_captioner(PLAIN)
        problems = remote_assets(PLAIN) if not status else []
        for problem in problems:
            print(problem)
        if not status and not problems:
            print(f"The book is in {PLAIN / 'index.html'}")
        return status or bool(problems)
    if arguments == ["--zip"]:
        print(f"The notebooks are in {zip_notebooks(SITE / 'notebooks.zip')}")
        return 0
    # Remove pages that are no longer in the book.
    shutil.rmtree("_build", ignore_errors=True)
    command = [tool("jupyter-book"), "build", ".", "--quiet"]
    done = subprocess.run([*command, "-W", "-n", "--keep-going"])
    if done.returncode:
        return done.returncode
    zip_notebooks(SITE / "notebooks.zip")
    add_captioner(SITE)
    problems = remote_assets(SITE)
    for problem in problems:
        print(problem)
    if not problems:
        print(f"The book is in {SITE / 'index.html'}")
    return bool(problems)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
