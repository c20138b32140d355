"""The built site in headless Chromium, from disk: `make site-test`. Not part of `make test`."""

from __future__ import annotations

import os
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
import yaml

from tools.book import remote_assets

pytestmark = pytest.mark.site

ROOT = Path(__file__).parent.parent
SITE = ROOT / "_build/html"
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
NO_BROWSER = """\
No Chromium was found. Install it, then run `make site-test` again:
  Debian, Ubuntu   sudo apt-get install chromium
  Fedora           sudo dnf install chromium
  anywhere         .venv/bin/python -m playwright install chromium
or name one: CHROMIUM=/path/to/chrome make site-test"""
# Quiet flags: without them Chromium looks for its maker's servers at every start.
FLAGS = [
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


def pages() -> list[str]:
    """Every page of the book, as its address below the site's folder."""
    listed = yaml.safe_load((ROOT / "_toc.yml").read_text())
    files = [listed["root"]]
    files += [chapter["file"] for part in listed["parts"] for chapter in part["chapters"]]
    return [*(f"{file}.html" for file in files), "search.html", "genindex.html"]


@pytest.fixture(scope="session")
def browser():
    from playwright.sync_api import sync_playwright

    if not (SITE / "index.html").exists():
        pytest.exit("There is no built site: run `make book` first.", 1)
    with sync_playwright() as play:
        own = play.chromium.executable_path
        found = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)
        if not found and not os.path.exists(own):
            pytest.exit(NO_BROWSER, 1)
        as_root = hasattr(os, "geteuid") and os.geteuid() == 0
        flags = FLAGS + ["--no-sandbox"] * as_root
        browser = play.chromium.launch(executable_path=found or own, args=flags)
        yield browser
        browser.close()


class Visit:
    """A page opened in a window of its own, and what went wrong while it loaded."""

    def __init__(self, browser, address: str, theme: str = "light", width: int = 1280):
        self.problems: list[str] = []
        size = {"width": width, "height": 900}
        self.context = browser.new_context(viewport=size, color_scheme=theme)
        self.context.set_default_timeout(90_000)  # milliseconds; the machine may be busy
        self.page = self.context.new_page()
        self.page.on("console", self.hear)
        self.page.on("pageerror", lambda error: self.problems.append(f"script error: {error}"))
        self.page.on("request", self.watch)
        self.page.on("requestfailed", lambda r: self.problems.append(f"failed: {r.url}"))
        self.page.goto(f"{SITE.as_uri()}/{address}", wait_until="load")
        if address == "index.html":
            return  # it only leads on
        self.page.evaluate("() => window.MathJax?.startup?.promise")
        self.page.evaluate("() => document.fonts.ready.then(() => true)")

    def hear(self, message) -> None:
        if message.type == "error":
            self.problems.append(f"console: {message.text}")

    def watch(self, request) -> None:
        if not request.url.startswith(("file:", "data:", "blob:", "about:")):
            self.problems.append(f"remote: {request.url}")

    def ask(self, script: str):
        return self.page.evaluate(script)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.context.close()


LOOK = """() => {
  const pictures = [...document.querySelectorAll('img')];
  const name = i => decodeURI(i.src.startsWith('data:') ? 'data:' : i.src).split('/').pop();
  const light = e => {
    const [r, g, b, a] = (getComputedStyle(e).backgroundColor.match(/[\\d.]+/g) || []).map(Number);
    return a === 0 ? null : (r + g + b) / 3;
  };
  return {
    noAlt: pictures.filter(i => !i.alt.trim()).map(name),
    broken: pictures.filter(i => i.complete && i.naturalWidth === 0).map(name),
    sideways: document.documentElement.scrollWidth - window.innerWidth,
    badMath: [...document.querySelectorAll('mjx-merror')].map(e => e.textContent),
    rawMath: [...document.querySelectorAll('.math')]
      .filter(e => !e.querySelector('mjx-container')).map(e => e.textContent.slice(0, 40)),
    page: light(document.body),
    frames: [...document.querySelectorAll('div.cell_output .text_html')].map(light),
    searches: [...document.querySelectorAll('input[type=search], button[class*=search-button]')]
      .filter(e => e.checkVisibility() && e.offsetWidth).length,
  };
}"""


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("address", pages())
def test_page(browser, address, theme):
    for width in (390, 1280):
        with Visit(browser, address, theme, width) as visit:
            seen = visit.ask(LOOK)
            assert not visit.problems
        assert not seen["noAlt"], "pictures without alt text"
        assert not seen["broken"], "pictures that do not show"
        assert seen["sideways"] <= 0, f"at width {width} the page scrolls sideways"
        assert not seen["badMath"] and not seen["rawMath"]
        assert (seen["page"] > 200) if theme == "light" else (seen["page"] < 60)
        if theme == "dark":
            assert not [frame for frame in seen["frames"] if frame and frame > 120]
        if address != "search.html":
            assert seen["searches"] == 1, f"{seen['searches']} search bars at width {width}"


def test_the_front_door_leads_to_the_first_page(browser):
    with Visit(browser, "index.html") as visit:
        visit.page.wait_for_url(f"**/{pages()[0]}")


@pytest.mark.parametrize(
    ("word", "page"), [("attention", "notebooks/03_"), ("brevity", "notebooks/07_")]
)
def test_search_finds_a_word(browser, word, page):
    with Visit(browser, "book/concepts.html") as visit:
        visit.page.keyboard.press("Control+k")
        visit.page.keyboard.type(word)
        visit.page.keyboard.press("Enter")
        visit.page.wait_for_url("**/search.html?q=*")
        visit.page.wait_for_selector("#search-results li a")
        visit.page.wait_for_function(
            "() => /finished|found/i.test(document.querySelector('#search-results').textContent)"
        )
        found = visit.ask(
            "() => [...document.querySelectorAll('#search-results li a')].map(a => a.href)"
        )
        assert not visit.problems
    assert [link for link in found if page in link]
    assert all(
        (SITE / unquote(link.split("/_build/html/")[1]).split("#")[0].split("?")[0]).exists()
        for link in found
    )


def test_a_word_that_is_nowhere_is_not_found(browser):
    with Visit(browser, "search.html?q=zzyzxq") as visit:
        visit.page.wait_for_function(
            "() => /did not match/i.test(document.querySelector('#search-results').textContent)"
        )


def test_a_chapter_opens_in_colab(browser):
    url = yaml.safe_load((ROOT / "_config.yml").read_text())["repository"]["url"]
    target = url.replace("github.com", "colab.research.google.com/github")
    with Visit(browser, "notebooks/03_attention.html") as visit:
        links = visit.ask("() => [...document.querySelectorAll('a')].map(a => a.href)")
    assert links.count(f"{target}/blob/main/notebooks/03_attention.ipynb") >= 2  # button, badge


def test_the_button_changes_the_theme(browser):
    with Visit(browser, "book/concepts.html") as visit:
        before = visit.ask("() => document.documentElement.dataset.theme")
        for _ in range(3):  # auto, light, dark, in an order of the theme's own
            visit.page.click("button.theme-switch-button:visible")
            if visit.ask("() => document.documentElement.dataset.theme") != before:
                break
        after = visit.ask("() => document.documentElement.dataset.theme")
        assert {before, after} == {"light", "dark"}


class Page(HTMLParser):
    """A page's links, and what in it can be linked."""

    def __init__(self, path: Path):
        super().__init__()
        self.links: list[str] = []
        self.names: set[str] = set()
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        self.names |= {given[key] for key in ("id", "name") if given.get(key)}
        if tag == "a" and given.get("href"):
            self.links.append(given["href"])


def test_nothing_remote_is_loaded():
    assert remote_assets(SITE) == []


def test_links_within_the_site_resolve():
    known = {path: Page(path) for path in SITE.rglob("*.html")}
    lost = []
    for path, page in known.items():
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            if not target.exists():
                lost.append(f"{path.name}: {link}")
            elif parts.fragment and target in known:
                if unquote(parts.fragment) not in known[target].names:
                    lost.append(f"{path.name}: {link}")
    assert not lost


def test_the_measured_times_are_on_the_pages():
    for path in sorted(SITE.glob("notebooks/[0-9]*.html")):
        text = re.sub(r"<[^>]+>", "", path.read_text(encoding="utf-8"))
        assert re.search(r"about [\d.]+ (second|minute)s? on \d+ processor cores", text), path.name


@pytest.mark.parametrize("width", [390, 800, 1000, 1199, 1200, 1920])
@pytest.mark.parametrize("address", ["book/concepts.html", "notebooks/04_decoder.html"])
def test_notes_in_the_margin_are_inside_the_window(browser, address, width):
    with Visit(browser, address, width=width) as visit:
        notes = visit.ask(
            "() => [...document.querySelectorAll('aside.margin')].map(note => {"
            " const box = note.getBoundingClientRect();"
            " return [box.left, box.right, box.width]; })"
        )
        wide = visit.ask("() => document.documentElement.scrollWidth")
    assert notes and wide <= width
    for left, right, across in notes:
        assert left >= 0 and right <= width and across > 150
