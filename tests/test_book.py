"""The book's sources: table of contents, chapters, and the helper that prints measured times."""

from __future__ import annotations

import ast
import importlib.util
import re
import zipfile
from pathlib import Path

import jupytext
import nbformat
import pytest
import yaml

from tools import book, chapter_title, find_chapters
from tools.notebooks import code_cells, tags

ROOT = Path(__file__).parent.parent
CHAPTERS = find_chapters(ROOT)
MODULES = (
    "data encoder attention decoder training beam_search metrics captioner "
    # Chapter 10 exports none.
    "visualize - grounding parts hard_attention self_critical transformer"
).split()
BY_HAND = {"files", "diagrams", "backbones"}


@pytest.fixture(params=CHAPTERS, ids=lambda path: path.stem)
def notebook(request):
    return nbformat.read(request.param.with_suffix(".ipynb"), as_version=4)


@pytest.fixture(scope="module")
def config():
    return yaml.safe_load((ROOT / "_config.yml").read_text())


@pytest.fixture(scope="module")
def listed():
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text())
    return [toc["root"]] + [
        c["file"] for part in toc["parts"] for c in part["chapters"]
    ]


def test_the_contents_list_every_chapter_and_page_once(listed):
    chapters = [f"notebooks/{path.stem}" for path in CHAPTERS]
    assert [
        name for name in listed if name.startswith("notebooks/")
    ] == chapters
    pages = {f"book/{path.stem}" for path in (ROOT / "book").glob("*.md")}
    assert {name for name in listed if name.startswith("book/")} == pages
    assert len(listed) == len(set(listed))


def test_chapters_are_numbered_without_a_gap():
    assert [path.stem[:2] for path in CHAPTERS] == [
        f"{i:02}" for i in range(16)
    ]


def test_the_sidebar_says_number_and_title():
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text())
    entries = {
        c["file"]: c.get("title")
        for part in toc["parts"]
        for c in part["chapters"]
    }
    for path in CHAPTERS:
        notebook = nbformat.read(path.with_suffix(".ipynb"), as_version=4)
        assert (
            entries[f"notebooks/{path.stem}"]
            == f"{path.stem[:2]} {chapter_title(notebook)}"
        )


def test_the_build_executes_nothing_and_sees_no_stray_file(config):
    assert config["execute"]["execute_notebooks"] == "off"
    assert config["only_build_toc_files"] is True
    assert config["sphinx"]["recursive_update"] is True
    assert not list(
        (ROOT / "book/_static").rglob("*.js")
    )  # each would load on every page


def test_a_chapter_opens_with_a_question_badge_and_set_up(notebook):
    title, badge, setup = notebook.cells[:3]
    assert title.source.startswith("# ") and "?" in title.source
    assert tags(badge) == ["badge"]
    assert "setup" in tags(setup) and setup.source.startswith(
        "from importlib.util import find_spec\n"
    )


def test_a_chapter_states_its_measured_time(notebook, request):
    name = request.node.callspec.id
    prose = "\n".join(
        c.source for c in notebook.cells if c.cell_type == "markdown"
    )
    assert f"{{chapter-time}}`{name}`" in prose
    assert 0 < notebook.metadata["executed"]["seconds"] < 300


def test_chapters_together_run_in_minutes():
    stored = [
        nbformat.read(p.with_suffix(".ipynb"), as_version=4) for p in CHAPTERS
    ]
    # Two at a time on two cores: ten minutes.
    assert sum(n.metadata["executed"]["seconds"] for n in stored) < 20 * 60


def test_a_chapter_ends_with_a_summary_and_exercises(notebook):
    prose = "\n".join(
        c.source for c in notebook.cells if c.cell_type == "markdown"
    )
    headings = re.findall(r"^#+ (.*)", prose, re.MULTILINE)
    assert any("summary" in h.lower() for h in headings)
    assert any("exercise" in h.lower() for h in headings)


def test_a_chapter_has_a_picture(notebook):
    data = [o.get("data", {}) for c in code_cells(notebook) for o in c.outputs]
    assert any(
        {"image/png", "image/svg+xml", "text/html"} & set(d) for d in data
    )


def test_what_changes_from_run_to_run_is_followed_by_a_check(notebook):
    """After a cell whose output nbval leaves alone, an assert comes before the next such run."""
    cells = code_cells(notebook)
    pending = None
    for cell in cells:
        if "assert" in cell.source:
            pending = None
        elif "nbval-ignore-output" in tags(cell):
            pending = cell
    assert pending is None, (
        f"nothing asserts what follows from: {pending.source[:60]}"
    )


def test_a_chapter_imports_nothing_from_later_ones(notebook):
    number = next(
        int(p.stem[:2])
        for p in CHAPTERS
        if f"notebooks/{p.stem}.ipynb" in notebook.cells[1].source
    )
    if number == 0:
        return  # it shows the whole
    # And the next, to show where it is going. A cell that is not exported may look ahead, to a
    # chapter that the prose links to.
    allowed = set(MODULES[: number + 1]) | BY_HAND
    prose = "".join(
        c.source for c in notebook.cells if c.cell_type == "markdown"
    )
    linked = {
        name
        for n, name in enumerate(MODULES, start=1)
        if re.search(rf"\]\({n:02}_\w+\.ipynb", prose)
    }
    for cell in code_cells(notebook):
        exported = cell.source.startswith("#| export")
        source = "\n".join(
            re.sub(r"^\s*[%!].*", "", x) for x in cell.source.splitlines()
        )
        for node in ast.walk(ast.parse(source)):
            names = []
            if isinstance(node, ast.ImportFrom) and (
                node.module or ""
            ).startswith("captionlib."):
                names = [node.module.split(".")[1]]
            elif isinstance(node, ast.Import):
                names = [
                    a.name.split(".")[1]
                    for a in node.names
                    if a.name[:11] == "captionlib."
                ]
            for name in names:
                ahead = name in linked and not exported
                assert name in allowed or ahead or name not in MODULES, (
                    f"{name} comes later"
                )


def load_helper():
    spec = importlib.util.spec_from_file_location(
        "helper", ROOT / "book/_ext/captionlib_book.py"
    )
    helper = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(helper)
    return helper


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0.4, "about 1 second"),
        (8.31, "about 9 seconds"),
        (10.0, "about 10 seconds"),
        (12.2, "about 15 seconds"),
        (60.0, "about 1 minute"),
        (61.0, "about 1.5 minutes"),
        (171.0, "about 3 minutes"),
    ],
)
def test_times_are_said_as_a_reader_wants_them(seconds, said):
    assert load_helper().spoken(seconds) == said


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("page.html", '<script src="https://cdn.example.org/x.js"></script>'),
        ("page.html", '<img src="//example.org/x.png">'),
        (
            "page.html",
            '<link rel="stylesheet" href="http://example.org/x.css">',
        ),
        (
            "page.html",
            "<p style=\"background: url('https://example.org/x.png')\">",
        ),
        (
            "page.html",
            "<style>p { background: url(//example.org/x.png) }</style>",
        ),
        ("style.css", "@font-face { src: url(https://example.org/x.woff2); }"),
        ("style.css", '@import "https://example.org/x.css";'),
    ],
)
def test_a_remote_asset_is_found(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    assert len(book.remote_assets(tmp_path)) == 1


def test_the_zip_holds_every_chapter_and_the_licences(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    archive = zipfile.ZipFile(book.zip_notebooks(tmp_path / "notebooks.zip"))
    names = {Path(name).name for name in archive.namelist()}
    assert names == {f"{path.stem}.ipynb" for path in CHAPTERS} | {
        "LICENSE",
        "LICENSE-prose",
    }
    first = CHAPTERS[0].with_suffix(".ipynb")
    assert (
        archive.read(f"captionlib-notebooks/{first.name}") == first.read_bytes()
    )
    again = book.zip_notebooks(tmp_path / "again.zip")
    assert again.read_bytes() == (tmp_path / "notebooks.zip").read_bytes()


def test_a_link_to_click_is_no_asset(tmp_path):
    (tmp_path / "page.html").write_text(
        '<a href="https://example.org">x</a><img src="x.png">'
    )
    assert book.remote_assets(tmp_path) == []


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_a_chapter_opens_and_closes_in_one_form(path):
    """Question, picture, what it gives and takes; at the end departures, summary, exercises."""
    cells = [
        c
        for c in jupytext.read(path).cells
        if not {"badge", "setup"} & set(tags(c))
    ]
    assert re.search(r"(?<!\*)\*[^*]+\?\*", cells[0].source), (
        "the question stands in italics"
    )
    opening = next(
        i for i, c in enumerate(cells) if "**You will learn**" in c.source
    )
    before = [c for c in cells[1:opening] if c.cell_type == "code"]
    assert any("figure" in c.metadata.get("mystnb", {}) for c in before), (
        "a picture comes first"
    )
    leads = re.findall(
        r"^(?:- )?\*\*(.+?)\*\*", cells[opening].source, re.MULTILINE
    )
    assert leads[:4] == [
        "You will learn",
        "You will build",
        "You need",
        "It takes",
    ]
    assert cells[opening].source.startswith("- **You will learn**")
    prose = "\n".join(c.source for c in cells if c.cell_type == "markdown")
    ends = re.findall(
        r"^## (Departures|Summary|Exercises)$", prose, re.MULTILINE
    )
    assert (
        ends
        == ["Departures", "Summary", "Exercises"][path.stem.startswith("10") :]
    )
    summary = re.split(
        r"^## (?:Summary|Exercises)$", prose, flags=re.MULTILINE
    )[1]
    assert 3 <= len(re.findall(r"^- ", summary, re.MULTILINE)) <= 7
