"""Check that everything is in sync: `python -m tools.check`.

One line is printed for each problem. The checks cover modules against chapters,
the two halves of every pair, stored outputs against their hashes, ruff, links,
citations and terms, the tables of results, figures printed from stored files,
the gallery, and alt texts. They only read: nothing is executed, and no network
is used.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote, urlsplit

import nbformat
from markdown_it import MarkdownIt

from tools import find_chapters, gallery, measured, results
from tools.export import export
from tools.notebooks import (
    as_script,
    code_cells,
    hashes,
    read_script,
    tags,
    without_version,
)

PAGES = ("README.md", "CONTRIBUTING.md", "book/*.md")
PICTURES = {"image/png", "image/jpeg", "image/svg+xml", "image/gif"}
MACHINE_PATH = re.compile(
    r"(?<![\w.:/])/(?:home|root|tmp|work|Users|opt|private)/[\w.-]+|[A-Z]:\\"
)
DIRECTIVE = re.compile(
    r"^\s*(?:`{3,}|:{3,})\{(?:figure|image)\}\s*(\S+)(.*?)^\s*(?:```|:::)",
    re.M | re.S,
)
LINE = 100  # columns
ROLE = re.compile(r"\{(cite|term)(?::\w+)?\}`([^`]+)`")
TARGET = re.compile(r"^\(([\w-]+)\)=", re.MULTILINE)


def check_modules(root: Path) -> Iterator[str]:
    """Every generated module is what its chapter exports."""
    made = set()
    for path in find_chapters(root):
        if exported := export(path):
            module = root / "captionlib" / f"{exported[0]}.py"
            made.add(module)
            if (
                not module.exists()
                or module.read_text(encoding="utf-8") != exported[1]
            ):
                yield f"{module}: differs from what {path} exports: run `make export`"
    for module in sorted((root / "captionlib").glob("*.py")):
        if (
            "\ngenerates it: edit the chapter" in module.read_text()[:600]
            and module not in made
        ):
            yield f"{module}: says that it is generated, and no chapter generates it"


def first_line(cell) -> str:
    return (cell.source.strip().splitlines() or ["(empty)"])[0][:60]


def check_pairs(root: Path) -> Iterator[str]:
    """Every chapter's script is formatted and agrees with its notebook."""
    for path in find_chapters(root):
        text = without_version(path.read_text(encoding="utf-8"))
        if text != read_script(path)[1]:
            yield f"{path}: set-up cell, badge or format not up to date: run `make notebooks`"
        stored = path.with_suffix(".ipynb")
        if not stored.exists():
            yield f"{path}: has never been executed: run `make notebooks`"
        elif as_script(nbformat.read(stored, as_version=4)) != text:
            yield f"{stored}: the two halves of the pair differ: run `make notebooks`"
    for stored in sorted(root.glob("notebooks/*.ipynb")):
        if not stored.with_suffix(".py").exists():
            yield f"{stored}: has no script beside it"


def check_outputs(root: Path) -> Iterator[str]:
    """Every code cell was executed; its outputs are its own and not errors."""
    for path in sorted(root.glob("notebooks/*.ipynb")):
        notebook = nbformat.read(path, as_version=4)
        cells, now = code_cells(notebook), hashes(notebook)
        then = notebook.metadata.get("executed", {}).get("cells", [])
        if len(then) != len(now):
            yield f"{path}: cells came or went since it was executed: run `make notebooks`"
        for cell, old, new in zip(cells, then, now, strict=False):
            where = f"{path}: cell '{first_line(cell)}'"
            if old.split()[0] != new.split()[0]:
                yield f"{where}: its source changed since it was executed: run `make notebooks`"
            elif old != new:
                yield f"{where}: its stored output is not the one it gave: run `make notebooks`"
        for cell in cells:
            where = f"{path}: cell '{first_line(cell)}'"
            if cell.execution_count is None:
                yield f"{where}: was not executed"
            for output in cell.outputs:
                if (
                    output.output_type == "error"
                    and "raises-exception" not in tags(cell)
                ):
                    yield f"{where}: an error is stored, {output.ename}"
            if found := MACHINE_PATH.search(cell.source + str(cell.outputs)):
                yield f"{where}: names a path of one machine, {found.group()}"


def check_pictures(root: Path) -> Iterator[str]:
    """Every stored picture has an alt text."""
    for path in sorted(root.glob("notebooks/*.ipynb")):
        for cell in code_cells(nbformat.read(path, as_version=4)):
            alt = (
                cell.metadata.get("mystnb", {}).get("image", {}).get("alt", "")
            )
            for output in cell.outputs:
                data = output.get("data", {})
                drawn = PICTURES & set(data)
                html = data.get("text/html", "")
                if drawn and "text/html" not in data and len(alt) < 15:
                    yield f"{path}: cell '{first_line(cell)}': its picture has no alt text"
                for tag in re.findall(r"<img\b[^>]*>", html):
                    if not re.search(r"\balt=(['\"]).{5,}?\1", tag, re.DOTALL):
                        yield f"{path}: cell '{first_line(cell)}': an <img> has no alt text"
                for tag in re.findall(r"<svg\b[^>]*>", html):
                    if "aria-label" not in tag and "aria-hidden" not in tag:
                        yield f"{path}: cell '{first_line(cell)}': an <svg> has no aria-label"


def prose(path: Path) -> str:
    """The Markdown of a page or of a chapter."""
    if path.suffix != ".ipynb":
        return path.read_text(encoding="utf-8")
    cells = nbformat.read(path, as_version=4).cells
    return "\n\n".join(c.source for c in cells if c.cell_type == "markdown")


def parse(text: str) -> list:
    """Markdown tokens, inline ones included."""
    tokens = MarkdownIt("commonmark").enable("table").parse(text)
    return [t for token in tokens for t in (token, *(token.children or []))]


def headings(path: Path) -> set[str]:
    """The headings of a page, as GitHub and MyST spell them in links."""
    tokens, found = parse(prose(path)), set()
    for opening, heading in zip(tokens, tokens[1:], strict=False):
        if opening.type == "heading_open":
            words = "".join(
                t.content
                for t in heading.children
                if t.type in ("text", "code_inline")
            )
            slug = (
                re.sub(r"[^\w\- ]", "", words.lower()).strip().replace(" ", "-")
            )
            count = sum(
                1
                for known in found
                if re.fullmatch(re.escape(slug) + r"(-\d+)?", known)
            )
            found.add(f"{slug}-{count}" if slug in found else slug)
    return found


def link_problem(page: Path, link: str, labels: set[str]) -> str | None:
    """What is wrong with a link, or None; `labels` are the whole book's."""
    parts = urlsplit(link)
    if parts.scheme in ("http", "https"):
        good = re.fullmatch(
            r"[\w.-]+\.\w+(:\d+)?", parts.netloc
        ) and not re.search(r"\s", link)
        return None if good else "is not a well-formed address"
    if parts.scheme == "mailto":
        return None
    if parts.scheme or link.startswith("/"):
        return "is neither relative nor http(s)"
    target = (
        (page.parent / unquote(parts.path)).resolve() if parts.path else page
    )
    if not target.exists():
        return "leads nowhere"
    if parts.fragment and target.suffix in (".md", ".ipynb"):
        in_book = not parts.path and page.parent.name in ("book", "notebooks")
        # Labels are linked by their name alone.
        known = headings(target) | (labels if in_book else set())
        if parts.fragment not in known:
            return f"{target.name} has no heading of that name, nor the book such a label"
    return None


def check_links(root: Path) -> Iterator[str]:
    """Every link in the prose resolves, and every picture has an alt text."""
    pages = [page for pattern in PAGES for page in sorted(root.glob(pattern))]
    pages += sorted(root.glob("notebooks/*.ipynb"))
    labels = {label for page in pages for label in TARGET.findall(prose(page))}
    for page in pages:
        text = prose(page)
        links = [
            (match.group(1), match.group(2))
            for match in DIRECTIVE.finditer(text)
        ]
        for link, options in links:
            if ":alt:" not in options:
                yield f"{page}: the picture {link} has no alt text"
        links = [link for link, _ in links]
        for token in parse(text):
            if token.type == "link_open":
                links.append(token.attrs["href"])
            elif token.type == "image":
                links.append(token.attrs["src"])
                if not token.content.strip():
                    yield f"{page}: the picture {token.attrs['src']} has no alt text"
        for link in dict.fromkeys(links):
            if problem := link_problem(page, link, labels):
                yield f"{page}: the link {link} {problem}"


def glossary(root: Path) -> set[str]:
    """The terms that the glossary explains."""
    path = root / "book" / "glossary.md"
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    bodies = re.findall(r"^```\{glossary\}\n(.*?)^```", text, re.M | re.S)
    return {
        x
        for body in bodies
        for x in body.splitlines()
        if x and not x.startswith((" ", ":"))
    }


def check_roles(root: Path) -> Iterator[str]:
    """Citations are in the bibliography, and terms in the glossary."""
    bibliography = root / "book" / "references.bib"
    text = (
        bibliography.read_text(encoding="utf-8")
        if bibliography.exists()
        else ""
    )
    known = {
        "cite": set(re.findall(r"^@\w+\{(\w+),", text, re.M)),
        "term": glossary(root),
    }
    where = {"cite": "book/references.bib", "term": "book/glossary.md"}
    for page in [
        *sorted(root.glob("book/*.md")),
        *sorted(root.glob("notebooks/*.ipynb")),
    ]:
        for role, said in ROLE.findall(prose(page)):
            for name in said.split(",") if role == "cite" else [said]:
                name = re.sub(r".*<(.*)>$", r"\1", " ".join(name.split()))
                if name not in known[role]:
                    yield f"{page}: '{name}' is not in {where[role]}"


def check_results(root: Path) -> Iterator[str]:
    """The tables in the pages and in chapter 07 agree with the stored
    results."""
    book = root / "book"
    for page in results.stale(book) if (book / "results.md").exists() else ():
        yield f"{page}: differs from book/results/: run `python -m tools.results`"


def check_figures(root: Path) -> Iterator[str]:
    """Every figure that a page prints from a stored file exists."""
    yield from measured.problems(root)


def check_gallery(root: Path) -> Iterator[str]:
    """The gallery agrees with its captioner and photographs; all are judged."""
    yield from gallery.problems(
        root / "book", root / "captionlib" / "assets" / "flickr8k"
    )


def check_style(root: Path) -> Iterator[str]:
    """Ruff finds nothing in code or layout; chapters are as narrow as
    modules."""
    for path in sorted(root.glob("notebooks/*.ipynb")):
        for cell in code_cells(nbformat.read(path, as_version=4)):
            for line in cell.source.splitlines():
                if len(line) > LINE:
                    yield f"{path}: a line of code is longer than {LINE}: {line[:60]}..."
    for arguments in (
        ["check", "--output-format=concise"],
        ["format", "--check"],
    ):
        command = [sys.executable, "-m", "ruff", *arguments, "."]
        done = subprocess.run(command, cwd=root, capture_output=True, text=True)
        if done.returncode == 0:
            continue
        said = re.findall(r"^\S+:(?:\d|cell \d).*", done.stdout, re.MULTILINE)
        loose = re.findall(
            r"^(?:Would reformat: |\s*--> )([^:\n]+)", done.stdout, re.MULTILINE
        )
        said += [
            f"{name}: is not as `ruff format` writes it"
            for name in dict.fromkeys(loose)
        ]
        yield from said or [f"ruff {arguments[0]}: {done.stderr.strip()}"]


CHECKS = (
    check_modules,
    check_pairs,
    check_outputs,
    check_pictures,
    check_links,
    check_roles,
    check_results,
    check_figures,
    check_gallery,
    check_style,
)


def compared(root: Path) -> str:
    """A sentence on how many cells `make test` compares with a new
    execution."""
    chapters = [
        nbformat.read(path, as_version=4)
        for path in root.glob("notebooks/*.ipynb")
    ]
    cells = [cell for chapter in chapters for cell in code_cells(chapter)]
    ignored = sum("nbval-ignore-output" in tags(cell) for cell in cells)
    return (
        f"Code cells: {len(cells)}; `make test` executes them again and "
        f"compares all text, but for {ignored} that time or train or depend on "
        "the processor."
    )


def main(root: Path = Path()) -> int:
    count = 0
    for check in CHECKS:
        try:
            for problem in check(root):
                print(problem)
                count += 1
        except SystemExit as stop:  # a tool's own one-line message
            print(stop)
            count += 1
    if not count:
        chapters = len(find_chapters(root))
        print(
            f"In sync: {chapters} chapters, their modules and outputs, style "
            "and links."
        )
        print(compared(root))
    else:
        print(f"{count} problem{'s' * (count > 1)}.", file=sys.stderr)
    return bool(count)


if __name__ == "__main__":
    sys.exit(main())
