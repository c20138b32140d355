"""The built site in headless Chromium, from disk: `make site-test`. Not part of `make test`.

Every page is opened in both themes, narrow and wide, stretched to a large screen and printed.
Whatever page is built is visited: none is listed here.
"""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit
from urllib.request import url2pathname

import pytest
import yaml

from tools.book import remote_assets

pytestmark = pytest.mark.site

ROOT = Path(__file__).parent.parent
SITE = ROOT / "_build/html"
WIDTHS = (390, 1280)  # pages are loaded at these, in CSS pixels
WIDEST = 1920
PAPER = 718  # A4 between margins of a centimetre
HEAVIEST = 1_500_000  # bytes of a page, and of all that it alone loads
# Twenty-one photographs, and each again for every word.
HEAVIER = {
    "book/gallery.html": 3_500_000,
    "notebooks/09_seeing_attention.html": 1_600_000,
}
SHARED = ("_static", "mathjax")  # the same for every page
# What axe-core finds and the theme, not this book, has to mend: rule -> selector.
BELONGS_TO_THE_THEME: dict[str, str] = {}
# The theme lets the keyboard reach what scrolls, but only 0.3 seconds after a window's new width.
REACHED = """() => [...document.querySelectorAll(
    'pre, .cell_output > .output, .pst-scrollable-table-container')]
  .every(e => e.tabIndex >= 0 || e.scrollWidth <= e.clientWidth || !e.checkVisibility())"""


def pages() -> list[str]:
    """Every page of the site, as its address below the site's folder."""
    found = (path.relative_to(SITE) for path in SITE.rglob("*.html"))
    return sorted(
        path.as_posix() for path in found if path.parts[0] not in SHARED
    )


class Visit:
    """A page opened in a window of its own, and what went wrong while it loaded."""

    def __init__(
        self, browser, address: str, theme: str = "light", width: int = 1280
    ):
        if not (SITE / "index.html").exists():
            pytest.exit("There is no built site: run `make book` first.", 1)
        self.address = address
        self.problems: list[str] = []
        self.loaded: set[str] = set()
        size = {"width": width, "height": 900}
        self.context = browser.new_context(
            viewport=size, color_scheme=theme, reduced_motion="reduce"
        )
        self.context.set_default_timeout(
            90_000
        )  # milliseconds; the machine may be busy
        self.page = self.context.new_page()
        self.page.on("console", self.hear)
        self.page.on(
            "pageerror",
            lambda error: self.problems.append(f"script error: {error}"),
        )
        self.page.on("request", self.watch)
        self.page.on(
            "requestfailed", lambda r: self.problems.append(f"failed: {r.url}")
        )
        self.page.goto(f"{SITE.as_uri()}/{address}", wait_until="load")
        if address != "index.html":  # that one only leads on
            self.settle()

    def settle(self) -> None:
        """Wait until formulas are set, letters are there, and nothing moves."""
        self.ask("() => window.MathJax?.startup?.promise")
        self.ask("() => document.fonts.ready.then(() => true)")
        self.ask(
            """() => Promise.all(document.getAnimations()
            .filter(a => a.effect.getComputedTiming().endTime < 5000)
            .map(a => a.finished.catch(() => null))).then(() => true)"""
        )
        self.page.wait_for_function(REACHED)

    def hear(self, message) -> None:
        if message.type == "error":
            self.problems.append(f"console: {message.text}")

    def watch(self, request) -> None:
        if request.url.startswith("file:"):
            self.loaded.add(request.url.split("?")[0].split("#")[0])
        elif not request.url.startswith(("data:", "blob:", "about:")):
            self.problems.append(f"remote: {request.url}")

    def weight(self) -> int:
        """Bytes of the page and what it loaded, without what all pages share."""
        paths = [Path(url2pathname(urlsplit(url).path)) for url in self.loaded]
        own = [
            path
            for path in paths
            if path.relative_to(SITE).parts[0] not in SHARED
        ]
        return sum(path.stat().st_size for path in own)

    def resize(self, width: int) -> None:
        self.page.set_viewport_size({"width": width, "height": 900})

    def ask(self, script: str):
        return self.page.evaluate(script)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.context.close()


LOOK = """() => {
  const pictures = [...document.querySelectorAll('img')];
  const name = i => decodeURI(i.src.startsWith('data:') ? 'data:' : i.src).split('/').pop();
  const saysNothing = i => {
    const alt = i.alt.trim(), stem = name(i).replace(/\\.\\w+$/, '');
    return alt.length < 5 || alt === stem || /\\.(png|svg|jpe?g|gif|webp)$/i.test(alt);
  };
  const light = e => {
    const [r, g, b, a] = (getComputedStyle(e).backgroundColor.match(/[\\d.]+/g) || []).map(Number);
    return a === 0 ? null : (r + g + b) / 3;
  };
  return {
    pictures: pictures.length,
    noAlt: pictures.filter(saysNothing).map(i => `${name(i)}: '${i.alt}'`),
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
SIDEWAYS = "() => document.documentElement.scrollWidth - window.innerWidth"
# All tokens of a kind have one colour: one of each is enough, and axe-core is four times as fast.
THIN = """() => {
  const seen = new Set();
  for (const token of document.querySelectorAll('.highlight pre span')) {
    if (!token.className || seen.has(token.className)) token.replaceWith(...token.childNodes);
    seen.add(token.className);
  }
}"""
ON_PAPER = """() => {
  const cut = e => e.scrollWidth > e.clientWidth + 1
    || e.getBoundingClientRect().right > innerWidth;
  const shown = e => e.checkVisibility() && e.offsetHeight > 0;
  const article = document.querySelector('main');
  const ink = getComputedStyle(document.querySelector('main p, main h1')).color;
  return {
    ink: Math.max(...ink.match(/[\\d.]+/g).slice(0, 3).map(Number)),
    words: article.innerText.split(/\\s+/).length,
    left: document.querySelector('main h1').getBoundingClientRect().left,
    furniture: [...document.querySelectorAll(
        '.bd-sidebar-primary, .bd-sidebar-secondary, .bd-header-article, .prev-next-footer')]
      .filter(shown).map(e => e.className),
    cut: [...article.querySelectorAll('pre, table, img, svg, mjx-container[display=true]')]
      .filter(shown).filter(cut).map(e => `${e.tagName}: ${e.textContent.trim().slice(0, 40)}`),
  };
}"""


def violations(visit: Visit) -> list[str]:
    """What axe-core has to say about a page, one line for each element."""
    from axe_playwright_python.sync_playwright import Axe

    visit.page.add_style_tag(
        content="* { transition: none !important }"
    )  # no colour on its way
    visit.settle()
    visit.ask(THIN)
    # Without `preload` it doesn't fetch the style sheets again, which a page on disk may not.
    options = {"resultTypes": ["violations"], "preload": False}
    found = Axe().run(visit.page, options=options).response["violations"]
    return [
        f"{rule['id']}: {rule['help']}: {node['html'][:200]}"
        for rule in found
        for node in rule["nodes"]
        if BELONGS_TO_THE_THEME.get(rule["id"]) not in node["target"]
    ]


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize(
    "address", [page for page in pages() if page != "index.html"]
)
def test_page(browser, tally, address, theme):
    for width in WIDTHS:
        with Visit(browser, address, theme, width) as visit:
            seen = visit.ask(LOOK)
            assert not seen["noAlt"], "pictures whose alt text says nothing"
            assert not seen["broken"], "pictures that do not show"
            assert seen["sideways"] <= 0, (
                f"at width {width} the page scrolls sideways"
            )
            assert not seen["badMath"] and not seen["rawMath"]
            assert (
                (seen["page"] > 200)
                if theme == "light"
                else (seen["page"] < 60)
            )
            if theme == "dark":
                assert not [
                    frame for frame in seen["frames"] if frame and frame > 120
                ]
            if address != "search.html":
                assert seen["searches"] == 1, (
                    f"{seen['searches']} search bars at width {width}"
                )
            if width == WIDTHS[-1]:
                check_large_and_paper(visit)
            found = violations(visit)
            assert not found, f"axe-core, {theme}, {width} wide"
            assert not visit.problems
            assert visit.weight() < HEAVIER.get(address, HEAVIEST)
    tally(visits=len(WIDTHS), pictures_seen=seen["pictures"] * len(WIDTHS))


def check_large_and_paper(visit: Visit) -> None:
    """An open page fits the largest screen and a sheet of paper, and is left as it was."""
    width = visit.page.viewport_size["width"]
    visit.resize(WIDEST)
    assert visit.ask(SIDEWAYS) <= 0, (
        f"at width {WIDEST} the page scrolls sideways"
    )
    visit.page.emulate_media(media="print")
    visit.resize(PAPER)
    printed = visit.ask(ON_PAPER)
    assert printed["words"] > 50 or "/" not in visit.address
    assert 0 <= printed["left"] < 80, "something stands beside the text"
    assert not printed["furniture"], "on paper nobody can click"
    assert not printed["cut"], "does not fit the paper"
    assert printed["ink"] < 90, "light letters on white paper"
    visit.page.emulate_media(media="screen")
    visit.resize(width)


def test_every_listed_page_is_built():
    def listed(node):
        if isinstance(node, dict):
            for key, value in node.items():
                yield from [value] if key in ("root", "file") else listed(value)
        elif isinstance(node, list):
            for entry in node:
                yield from listed(entry)

    contents = yaml.safe_load((ROOT / "_toc.yml").read_text())
    assert {f"{name}.html" for name in listed(contents)} <= set(pages())


def test_the_front_door_leads_to_the_first_page(browser):
    root = yaml.safe_load((ROOT / "_toc.yml").read_text())["root"]
    with Visit(browser, "index.html") as visit:
        visit.page.wait_for_url(f"**/{root}.html")


@pytest.mark.parametrize(
    ("word", "page"),
    [("attention", "notebooks/03_"), ("brevity", "notebooks/07_")],
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
        (
            SITE
            / unquote(link.split("/_build/html/")[1])
            .split("#")[0]
            .split("?")[0]
        ).exists()
        for link in found
    )


def test_a_word_that_is_nowhere_is_not_found(browser):
    with Visit(browser, "search.html?q=zzyzxq") as visit:
        visit.page.wait_for_function(
            "() => /did not match/i.test(document.querySelector('#search-results').textContent)"
        )


def test_a_chapter_opens_in_colab(browser):
    url = yaml.safe_load((ROOT / "_config.yml").read_text())["repository"][
        "url"
    ]
    target = url.replace("github.com", "colab.research.google.com/github")
    with Visit(browser, "notebooks/03_attention.html") as visit:
        links = visit.ask(
            "() => [...document.querySelectorAll('a')].map(a => a.href)"
        )
    assert (
        links.count(f"{target}/blob/main/notebooks/03_attention.ipynb") >= 2
    )  # button, badge


def theme(visit: Visit) -> str:
    return visit.ask("() => document.documentElement.dataset.theme")


def test_the_button_changes_the_theme_and_the_next_page_keeps_it(browser):
    with Visit(browser, "book/concepts.html") as visit:
        before = theme(visit)
        for _ in range(3):  # auto, light, dark, in an order of the theme's own
            visit.page.click("button.theme-switch-button:visible")
            if theme(visit) != before:
                break
        chosen = theme(visit)
        assert {before, chosen} == {"light", "dark"}
        with visit.page.expect_navigation():
            visit.page.click("a.right-next")
        visit.settle()
        assert theme(visit) == chosen


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


def test_links_within_the_site_resolve(tally):
    known = {path: Page(path) for path in SITE.rglob("*.html")}
    lost = []
    for path, page in known.items():
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (
                (path.parent / unquote(parts.path)).resolve()
                if parts.path
                else path
            )
            if not target.exists():
                lost.append(f"{path.name}: {link}")
            elif parts.fragment and target in known:
                if unquote(parts.fragment) not in known[target].names:
                    lost.append(f"{path.name}: {link}")
            tally(links=1)
    assert not lost


def test_the_measured_times_are_on_the_pages():
    for path in sorted(SITE.glob("notebooks/[0-9]*.html")):
        text = re.sub(r"<[^>]+>", "", path.read_text(encoding="utf-8"))
        assert re.search(
            r"about [\d.]+ (second|minute)s? on \d+ processor cores", text
        ), path.name


@pytest.mark.parametrize("width", [390, 800, 1000, 1199, 1200, 1920])
@pytest.mark.parametrize(
    "address", ["book/concepts.html", "notebooks/01_data_pipeline.html"]
)
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
