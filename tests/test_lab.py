"""The chapters in JupyterLab, driven in a real browser: `make lab-test`. Not part of `make test`.

A chapter is opened without its outputs, Run All Cells is chosen in the menu, and once the kernel is
idle and the notebook saved, every cell has run and none has an error. Then its views are driven by
keyboard, its questions answered, and the widgets moved that ask the kernel.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import nbformat
import pytest
from PIL import Image
from playwright.sync_api import expect

from captionlib.book.questions import questions_of
from captionlib.captioner import Captioner
from captionlib.io.files import ASSETS
from tools import find_chapters
from tools.notebooks import tags

ROOT = Path(__file__).parent.parent
CHAPTERS = [path.stem for path in find_chapters(ROOT)]
LIGHT = "03_attention"  # runs with the tests of the site as well
VIEWS = {  # the kinds of views that a chapter's outputs hold; the others hold none
    "03_attention": ["query", "epochs"],
    "04_decoder": ["packed"],
    "06_beam_search": ["beam"],
    "07_bleu": ["bleu"],
    "08_caption_a_photo": ["attention"],
    "09_seeing_attention": ["attention"],
    "11_grounding": ["lag", "deletion"],
}
PATIENCE = 1800  # seconds for a chapter; a quiet machine needs a tenth
pytestmark = pytest.mark.lab


@pytest.fixture
def lab(tmp_path):
    """A running JupyterLab: its folder and its address."""
    folder = tmp_path / "notebooks"
    folder.mkdir()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        sys.executable,
        "-m",
        "jupyterlab",
        "--no-browser",
        f"--port={port}",
    ]
    command += [
        f"--ServerApp.root_dir={folder}",
        "--IdentityProvider.token=",
        "--allow-root",
    ]
    command += ["--LabApp.news_url=None"]
    command += [
        "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate"
    ]
    places = (
        "JUPYTER_CONFIG_DIR",
        "JUPYTER_DATA_DIR",
        "JUPYTER_RUNTIME_DIR",
        "IPYTHONDIR",
    )
    own = {name: str(tmp_path / name.lower()) for name in places}
    python_path = os.pathsep.join(
        filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])
    )
    environment = {**os.environ, **own, "PYTHONPATH": python_path}
    environment.pop("MPLBACKEND", None)
    with (tmp_path / "lab.log").open("w") as log:
        server = subprocess.Popen(
            command, env=environment, stdout=log, stderr=log
        )
        address = f"http://127.0.0.1:{port}"
        try:
            for _ in range(600):
                try:
                    urllib.request.urlopen(f"{address}/api").close()
                    break
                except OSError:
                    assert server.poll() is None, (
                        tmp_path / "lab.log"
                    ).read_text()
                    time.sleep(0.5)
            yield folder, address
        finally:
            server.terminate()
            server.wait(60)


def without_outputs(source: Path, target: Path) -> None:
    notebook = nbformat.read(source, as_version=4)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    nbformat.write(notebook, target)


def drive_view(page, kind: str) -> None:
    """One key changes what a view says, also one that JupyterLab moves through the cells by."""
    view = page.locator(f".jp-OutputArea-output .clv[data-kind={kind}]")
    status, control = view.locator("[role=status]"), view.locator("input").first
    said = status.text_content()
    control.scroll_into_view_if_needed()
    control.focus()
    if kind == "bleu":
        control.select_text()
        key = "x"
    else:
        key = "ArrowRight" if control.input_value() == "0" else "ArrowLeft"
    page.keyboard.press(key)
    expect(status).not_to_have_text(said, timeout=60_000)


def drive_question(form) -> None:
    """Each answer, chosen by keyboard, has its sentence."""
    data = json.loads(form.locator("script").first.text_content())
    says, page = form.locator("[role=status]"), form.page
    if "choices" not in data:
        form.locator(".clq-check").press("Enter")
        expect(says).to_contain_text("comes")
        return
    form.locator("input").first.focus()
    page.keyboard.press("Space")
    for at, choice in enumerate(data["choices"]):
        if at:
            page.keyboard.press("ArrowDown")
        verdict = "Right. " if choice["right"] else "Not quite. "
        expect(says).to_contain_text(verdict)


def drive_widgets(page, photograph: Path) -> int:
    """Everything that asks the kernel for another caption; how many sliders there are."""
    view = page.locator(".jp-OutputArea-output .clv[data-kind=attention]")

    def answer(widget: str, key: str) -> str:
        """The caption of the view that the kernel sends in place of the one shown."""
        view.evaluate("e => e.dataset.old = ''")
        page.locator(widget).press(key)
        page.wait_for_selector(
            ".clv[data-kind=attention][data-ready]:not([data-old])"
        )
        return view.locator(".clv-title").text_content()

    beam, temperature = (
        f".widget-hslider:has(label:text-is('{name}')) [role=slider]"
        for name in ("beam size", "temperature")
    )
    captioner = Captioner.from_pretrained()
    for key, beam_size in (("Home", 1), ("ArrowRight", 2)):
        expected = captioner.caption(
            ASSETS / "cameraman.jpg", beam_size=beam_size
        )
        assert answer(beam, key) == expected.text
    tame = answer("button:text-is('random words')", "Enter")
    assert answer(temperature, "End") != tame

    Image.new("RGB", (96, 32), "green").save(photograph)
    with page.expect_file_chooser() as chooser:
        page.locator(".widget-upload").press("Enter")
    chooser.value.set_files(photograph)
    expect(view).to_have_attribute(
        "style", re.compile("--shape: 96 / 32"), timeout=60_000
    )
    return page.locator(".widget-hslider").count()


def drive_lists(page, _) -> int:
    """Another word on the list brings a view of that word."""
    lists = page.locator(".jp-OutputArea-output .widget-dropdown select")
    kinds = VIEWS["11_grounding"]
    for kind, choice in zip(kinds, lists.all(), strict=True):
        view = page.locator(f".jp-OutputArea-output .clv[data-kind={kind}]")
        view.evaluate("e => e.dataset.old = ''")
        choice.select_option(index=1)
        page.wait_for_selector(
            f".clv[data-kind={kind}][data-ready]:not([data-old])"
        )
    return lists.count()


# Chapters whose views stand in a widget, below what asks the kernel.
LIVE = {"08_caption_a_photo": drive_widgets, "11_grounding": drive_lists}


@pytest.mark.parametrize(
    "chapter",
    [
        pytest.param(n, marks=[pytest.mark.site] * (n == LIGHT))
        for n in CHAPTERS
    ],
)
def test_a_chapter_runs_in_jupyterlab(browser, lab, tally, chapter):
    folder, address = lab
    notebook = folder / f"{chapter}.ipynb"
    without_outputs(ROOT / "notebooks" / notebook.name, notebook)
    shutil.copytree(
        ROOT / "book" / "figures", folder.parent / "book" / "figures"
    )
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    page = context.new_page()
    page.set_default_timeout(180_000)  # milliseconds
    problems = []
    page.on("pageerror", lambda error: problems.append(f"{error}"))
    try:
        page.goto(f"{address}/lab/tree/{notebook.name}?reset")
        page.wait_for_selector(".jp-Toolbar-kernelName:has-text('Python 3')")
        page.wait_for_selector(
            ".jp-Notebook-ExecutionIndicator[data-status=idle]"
        )
        page.click(".lm-MenuBar-itemLabel:text-is('Run')")
        page.click(".lm-Menu-itemLabel:text-is('Run All Cells')")
        cells = ran = []
        deadline = time.monotonic() + PATIENCE
        while not cells or len(ran) < len(cells):
            assert time.monotonic() < deadline, (
                f"{len(ran)} of {len(cells)} cells ran in time"
            )
            page.wait_for_timeout(2000)
            page.wait_for_selector(
                ".jp-Notebook-ExecutionIndicator[data-status=idle]",
                timeout=PATIENCE * 1000,
            )
            assert not page.locator(".jp-Dialog").count(), page.inner_text(
                ".jp-Dialog"
            )
            page.keyboard.press("Control+s")
            page.wait_for_timeout(2000)
            saved = nbformat.read(notebook, as_version=4)
            cells = [
                c
                for c in saved.cells
                if c.cell_type == "code" and c.source.strip()
            ]
            ran = [c for c in cells if c.execution_count]
            errors = [
                o for c in cells for o in c.outputs if o.output_type == "error"
            ]
            wanted = sum("raises-exception" in tags(c) for c in cells)
            assert len(errors) <= wanted, errors[0]["evalue"]
        assert page.locator(".jp-OutputArea-output").count(), "nothing is seen"

        outputs = [o.data for c in cells for o in c.outputs if "data" in o]
        shown = "".join(data.get("text/html", "") for data in outputs)
        views = re.findall('<div class="clv" data-kind="(.+?)"', shown)
        assert views == VIEWS.get(chapter, [])
        for kind in views:
            drive_view(page, kind)
        questions = page.locator(".jp-OutputArea-output .clq").all()
        assert len(questions) == len(questions_of(chapter[:2]))
        for form in questions:
            drive_question(form)
        widgets = [
            data["text/plain"]
            for data in outputs
            if "application/vnd.jupyter.widget-view+json" in data
        ]  # progress bars are widgets, too, but nobody moves them
        live = any("[00:00" not in text for text in widgets)
        assert live == (chapter in LIVE)
        sliders = LIVE[chapter](page, folder / "own.png") if live else 0
        assert not problems
    finally:
        context.close()
    tally(chapters_in_jupyterlab=1, cells_run_there=len(ran))
    tally(views_driven_there=len(views), widgets_moved_there=sliders)
    tally(questions_answered_there=len(questions))
