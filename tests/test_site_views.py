"""The views of the built site, by keyboard and by touch, with and without scripts, and on paper."""

from __future__ import annotations

import json
import re
from functools import cache
from html import escape

import numpy as np
import pytest
import test_site

from captionlib.book.views import bleu_view, packed_view
from captionlib.io.files import ASSETS
from captionlib.metrics import bleu, bleu_statistics
from captionlib.visualize import upsample_alpha

pytestmark = pytest.mark.site
SITE = test_site.SITE

KINDS = ("attention", "beam", "bleu", "deletion", "epochs", "lag", "packed")
KINDS += ("query",)
STEPPED = ("attention", "beam", "deletion", "epochs", "lag", "packed")
WORDS = (
    "a the dog dog's cat runs on green grass, it’s élan naïve 2 dogs".split()
)


@cache
def page_of(kind: str) -> str:
    """The first page that shows a view of this kind."""
    with_it = (
        p
        for p in sorted(SITE.rglob("*.html"))
        if f'data-kind="{kind}"' in p.read_text()
    )
    return next(with_it).relative_to(SITE).as_posix()


class View(test_site.Visit):
    """The first view of a kind, in the page that holds it."""

    def __init__(
        self, browser, kind: str, theme: str = "light", width: int = 1280
    ):
        super().__init__(browser, page_of(kind), theme, width)
        self.page.emulate_media(reduced_motion="reduce", color_scheme=theme)
        self.root = self.page.locator(f'.clv[data-kind="{kind}"]').first
        self.data = json.loads(self.root.locator("script").first.text_content())

    def focus(self, selector: str) -> None:
        self.root.locator(selector).first.focus()

    def press(self, *keys: str) -> None:
        for key in keys:
            self.page.keyboard.press(key)

    def status(self) -> str:
        return self.root.locator("[role=status]").text_content()

    def step(self) -> int:
        return int(self.root.locator("input[type=range]").input_value())


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_view_fits_the_page_in_either_theme(browser, kind, theme):
    with View(browser, kind, theme) as view:
        for width in (390, 1280, 1920):
            view.page.set_viewport_size({"width": width, "height": 900})
            assert view.root.get_attribute("data-ready") == ""
            looks = view.root.evaluate(
                """e => ({inside: e.getBoundingClientRect().right <= innerWidth,
                wide: e.scrollWidth - e.clientWidth,
                page: document.documentElement.scrollWidth - innerWidth,
                paper: getComputedStyle(e).backgroundColor.match(/\\d+/g).map(Number)})"""
            )
            assert (
                looks["inside"] and looks["wide"] <= 0 and looks["page"] <= 0
            ), (width, looks)
            assert (max(looks["paper"]) < 60) == (theme == "dark")
            small = view.root.evaluate(
                """e => [...e.querySelectorAll('button, select, input')].filter(b => {
                const {width, height} = b.closest('label, button').getBoundingClientRect();
                return b.checkVisibility() && (width < 24 || height < 24);
                }).map(b => b.outerHTML)"""
            )
            assert not small, "too small for a finger"
            assert not view.problems


@pytest.mark.parametrize("kind", KINDS)
def test_tab_reaches_every_control_and_shows_where_it_is(browser, kind):
    with View(browser, kind) as view:
        view.root.evaluate("e => { e.tabIndex = -1; e.focus(); }")
        reached = 0
        while True:
            view.press("Tab")
            outline = view.root.evaluate(
                """e => e.contains(document.activeElement)
                && getComputedStyle(document.activeElement).outlineStyle"""
            )
            if not outline:
                break
            assert outline != "none"
            reached += 1
        controls = view.root.locator(
            "button:visible, input:visible, select:visible"
        )
        regions = view.root.locator("[tabindex='0']:visible")
        assert reached == controls.count() + regions.count() >= 2


@pytest.mark.parametrize("kind", STEPPED)
def test_a_view_is_stepped_by_keyboard(browser, kind):
    with View(browser, kind) as view:
        last = len(view.data["names" if kind != "attention" else "words"]) - 1
        view.focus("input[type=range]")
        view.press("Home")
        assert view.step() == 0 and view.status() == view.data["says"][0]
        view.press("ArrowRight", "ArrowRight")
        assert view.step() == 2 and view.status() == view.data["says"][2]
        valuetext = view.root.locator("input[type=range]").get_attribute(
            "aria-valuetext"
        )
        assert valuetext.startswith(
            "word 3" if kind == "attention" else view.data["names"][2]
        )
        view.focus("[data-go=back]")
        view.press("Enter")
        assert view.step() == 1
        view.focus("[data-go=last]")
        view.press("Space")
        assert view.step() == last and view.status() == view.data["says"][last]
        assert (
            view.root.locator("[data-go=next]").get_attribute("aria-disabled")
            == "true"
        )
        view.focus("[data-go=next]")
        view.press("Enter")
        assert view.step() == last  # nothing lies behind the end
        assert not view.problems


@pytest.mark.parametrize("kind", STEPPED)
def test_it_plays_in_silence_and_stops(browser, kind):
    with View(browser, kind) as view:
        view.focus("[data-go=first]")
        view.press("Enter")
        view.focus("[data-go=play]")
        view.press("Enter")
        status = view.root.locator("[role=status]")
        assert status.get_attribute("aria-live") == "off"
        view.page.wait_for_function(
            "kind => Number(document.querySelector(`[data-kind=${kind}] [type=range]`).value) >= 2",
            arg=kind,
        )
        view.press("Enter")
        stopped = view.step()
        assert status.get_attribute("aria-live") == "polite"
        view.page.wait_for_timeout(1500)
        assert view.step() == stopped


# -------------------------------------------------------------------------------------- attention


def veil(view: View) -> np.ndarray:
    """How dark the large picture is, (height, width), 0 to 1."""
    return np.array(
        view.root.locator("canvas").first.evaluate(
            """c => { const p = c.getContext('2d').getImageData(0, 0, c.width, c.height);
            const rows = Array.from({length: c.height}, (_, y) => Array.from({length: c.width},
              (_, x) => p.data[4 * (y * c.width + x) + 3] / 208)); return rows; }"""
        )
    )


@pytest.mark.parametrize("smooth", [True, False])
def test_the_large_picture_is_the_words_map(browser, smooth):
    with View(browser, "attention") as view:
        if not smooth:
            view.focus("[name=smooth]")
            view.press("Space")
        h, w = view.data["grid"]
        maps = np.array(view.data["maps"], float).reshape(-1, h, w)
        for word in (0, len(maps) // 2, len(maps) - 1):
            view.focus(f".clv-sheet li:nth-child({word + 1}) button")
            view.press("Enter")
            dark = veil(view)
            drawn = [
                upsample_alpha(each, dark.shape, smooth=smooth) for each in maps
            ]
            light = np.sqrt(drawn[word] / max(each.max() for each in drawn))
            np.testing.assert_allclose(dark, 1 - light, atol=1.5 / 208)
            pressed = view.root.locator("[aria-pressed=true]")
            assert (
                pressed.count() == 1
                and view.data["words"][word] in pressed.text_content()
            )


def test_two_words_are_compared(browser):
    with View(browser, "attention") as view:
        figures = view.root.locator("figure:visible")
        assert figures.count() == 1
        view.focus("[name=compare]")
        view.press("ArrowDown", "ArrowDown")  # the second word
        view.focus("input[type=range]")
        view.press("Home")
        assert figures.count() == 2
        assert view.data["words"][1] in figures.nth(1).text_content()
        first, second = (
            np.array(each) / np.sum(each) for each in view.data["maps"][:2]
        )
        assert (
            f"distance is {abs(first - second).sum() / 2:.2f}:" in view.status()
        )


# ------------------------------------------------------------------------------------ beam search


def test_the_tree_grows_with_the_steps(browser):
    with View(browser, "beam") as view:
        view.focus("input[type=range]")
        view.press("Home")
        for step in range(len(view.data["names"])):
            born = view.root.evaluate(
                """e => [...e.querySelectorAll('[data-step]')]
                .filter(n => n.style.visibility !== 'hidden').map(n => Number(n.dataset.step))"""
            )
            assert max(born) == step and set(born) == set(range(step + 1))
            dead = view.root.locator(".clv-tree .dead").count()
            until = view.root.locator("[data-until]").evaluate_all(
                "(nodes, t) => nodes.filter(n => Number(n.dataset.until) < t).length",
                step,
            )
            assert dead == until
            rows = view.root.locator(".clv-beams li:visible")
            assert rows.count() == born.count(step)
            view.press("ArrowRight")
        assert (
            view.root.locator(".clv-tree .won").count()
            == view.root.locator("[data-won]").count()
        )


# -------------------------------------------------------------------------------------- grounding


def test_the_large_picture_and_the_dot_are_the_words(browser):
    with View(browser, "lag") as view:
        view.focus("input[type=range]")
        view.press("Home")
        for word in range(len(view.data["names"])):
            small = view.root.locator(".clv-sheet img").nth(word)
            large = view.root.locator(".clv-stage img")
            assert large.get_attribute("src") == small.get_attribute("src")
            assert large.get_attribute("alt") == view.data["says"][word]
            dot = view.root.locator("circle.now")
            assert dot.get_attribute("data-word") == str(word)
            view.press("ArrowRight")


def test_the_query_is_dragged_and_taken_down_the_gradient(browser):
    with View(browser, "query") as view:
        before = view.status()
        view.root.locator(".clv-plane").scroll_into_view_if_needed()
        plane = view.root.locator(".clv-plane").bounding_box()
        middle = (
            plane["x"] + plane["width"] / 2,
            plane["y"] + plane["height"] / 2,
        )
        view.page.mouse.move(middle[0] + 40, middle[1])
        view.page.mouse.down()
        view.page.mouse.move(*middle)
        view.page.mouse.up()
        weights = view.root.locator("tbody td:last-child").all_text_contents()
        assert weights == ["0.25"] * 4  # a query of length 0 asks for nothing
        sure = []
        for _ in range(4):
            view.root.locator("[data-do=step]").click()
            sure.append(float(re.search(r"of (0\.\d+)\.$", view.status())[1]))
        assert sure == sorted(sure) and sure[-1] > 0.6
        view.root.locator("[data-do=back]").click()
        assert view.status() == before
        view.focus("input[type=range]")
        view.press("ArrowRight")
        assert view.status() != before


def test_cells_go_in_the_order_that_is_chosen(browser):
    with View(browser, "deletion") as view:
        cells = len(view.data["names"]) - 1
        for order, about in enumerate(view.data["orders"]):
            view.root.locator("select").select_option(index=order)
            for count in (0, 5, cells):
                slider = view.root.locator("input[type=range]")
                slider.fill(str(count))
                gone = view.root.locator(".clv-cells rect").evaluate_all(
                    "all => all.flatMap((c, i) => c.classList.contains('gone') ? [i] : [])"
                )
                assert gone == sorted(about["cells"][:count])
                assert view.status() == about["says"][count]
        assert view.root.locator("polyline.now").count() == 1


# ------------------------------------------------------------------------------- packed sequences


def test_the_batch_is_sorted_and_worked_through(browser):
    with View(browser, "packed") as view:
        sizes, order = view.data["sizes"], view.data["order"]
        rows = view.root.locator("tbody th")
        view.focus("input[type=range]")
        view.press("Home")
        assert rows.all_text_contents() == [
            f"caption {i}" for i in range(len(order))
        ]
        view.press("ArrowRight")
        assert rows.all_text_contents() == [f"caption {i}" for i in order]
        for t, size in enumerate(sizes):
            view.press("ArrowRight")
            assert view.root.locator("td.now").count() == size
            assert view.root.locator(".clv-packed .now").count() == size
            assert view.root.locator(
                ".clv-packed li:not(.later)"
            ).count() == sum(sizes[: t + 1])
            shown = view.root.locator("tfoot td").all_text_contents()
            assert shown == [
                *map(str, sizes[: t + 1]),
                *["·"] * (len(sizes) - t - 1),
            ]
        view.press("ArrowRight")
        assert view.root.locator(".later, .now").count() == 0


# ------------------------------------------------------------------------------------------- BLEU


def test_the_calculators_formulas_are_the_packages(browser):
    rng = np.random.default_rng(0)
    cases = [
        [
            rng.choice(
                WORDS[: rng.integers(1, 12)], rng.integers(0, 14)
            ).tolist()
            for _ in range(n)
        ]
        for n in rng.integers(2, 7, size=400)
    ]
    code = (ASSETS / "views" / "bleu_score.js").read_text(encoding="utf-8")
    with View(browser, "bleu") as view:
        found = view.page.evaluate(
            f"all => {{ {code}; return all.map(([words, ...people]) => bleu(people, words)); }}",
            cases,
        )
    for (words, *people), ours in zip(cases, found, strict=True):
        counts = bleu_statistics([people], [words])[0].tolist()
        assert [*ours["matched"], *ours["possible"], ours["closest"]] == counts
        expected = list(bleu([people], [words]).values())
        np.testing.assert_allclose(
            ours["scores"], expected, rtol=1e-9, atol=1e-12
        )


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        (
            "A dog runs, on the GREEN grass!",
            "a dog runs on the green grass".split(),
        ),
        ("the the the the", ["the"] * 4),
        (
            "a dog's two-year-old naïve ball",
            "a dog's two-year-old naïve ball".split(),
        ),
        ("the dog is playing on the green grass outside", None),
        (" . ", []),
    ],
)
def test_a_typed_caption_is_scored(browser, typed, words):
    words = typed.split() if words is None else words
    with View(browser, "bleu") as view:
        people = view.data["references"]
        view.focus("input[type=text]")
        view.press("Control+a", "Delete")
        view.page.keyboard.type(typed)
        counts = bleu_statistics([people], [words])[0].astype(int).tolist()
        expected = list(bleu([people], [words]).values())
        shown = view.root.locator(".clv-bleus b").all_text_contents()
        np.testing.assert_allclose(
            [float(value) for value in shown], expected, atol=0.051
        )
        sums = view.root.locator(".clv-orders > li b").all_text_contents()
        assert sums == [f"{counts[n]} of {counts[n + 4]}" for n in range(4)]
        assert view.root.locator(".clv-chips .found").count() == sum(counts[:4])
        marked = view.root.locator("mark").all_text_contents()
        assert marked == [
            word for person in people for word in person if word in words
        ]
        view.page.wait_for_timeout(700)
        assert f"BLEU-4 {expected[3]:.1f}" in view.status()
        assert not view.problems


def test_what_the_script_writes_is_what_the_page_said(browser):
    said = {}
    for scripts in (True, False):
        context = browser.new_context(java_script_enabled=scripts)
        page = context.new_page()
        page.goto(f"{SITE.as_uri()}/{page_of('bleu')}")
        root = page.locator('.clv[data-kind="bleu"]').first
        parts = (".clv-people", ".clv-bleus", ".clv-status", ".clv-orders")
        said[scripts] = [root.locator(part).inner_html() for part in parts]
        context.close()
    assert said[True] == said[False]


# --------------------------------------------------------------- fingers, paper, no scripts, frames


@pytest.mark.parametrize("kind", KINDS)
def test_a_finger_is_enough(browser, kind):
    context = browser.new_context(
        viewport={"width": 390, "height": 800}, has_touch=True
    )
    page = context.new_page()
    page.goto(f"{SITE.as_uri()}/{page_of(kind)}")
    root = page.locator(f'.clv[data-kind="{kind}"]').first
    if kind == "attention":
        root.locator(".clv-sheet button").last.tap()
        assert (
            root.locator(".clv-sheet button").last.get_attribute("aria-pressed")
            == "true"
        )
    elif kind == "bleu":
        root.locator("input[type=text]").fill("a cat")
        root.locator("button", has_text="Start again").tap()
        assert root.locator("input[type=text]").input_value() != "a cat"
    else:
        slider = root.locator("input[type=range]").first
        before = float(slider.input_value())
        if kind == "query":
            root.locator("[data-do=step]").tap()
            assert float(slider.input_value()) > before
        else:  # from the first step there is no way back
            go, way = ("back", -1) if before else ("next", 1)
            root.locator(f"[data-go={go}]").tap()
            assert float(slider.input_value()) == before + way
    context.close()


@pytest.mark.parametrize("kind", KINDS)
def test_without_scripts_a_still_picture_and_a_sentence_are_there(
    browser, kind
):
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(f"{SITE.as_uri()}/{page_of(kind)}")
    root = page.locator(f'.clv[data-kind="{kind}"]').first
    assert (
        root.locator("button:visible, input:visible, select:visible").count()
        == 0
    )
    assert len(root.locator("[role=status]").inner_text()) > 40
    still = {
        "attention": ".clv-sheet img",
        "beam": ".clv-tree g",
        "bleu": ".clv-chips li",
        "deletion": ".clv-chart text",
        "lag": ".clv-sheet img",
        "query": "tbody td",
    }
    if kind == "epochs":  # one large map
        still[kind], least = ".clv-stage img", 1
    else:
        least = 5
    assert (
        root.locator(f"{still.get(kind, 'td.word')}:visible").count() >= least
    )
    context.close()


@pytest.mark.parametrize("kind", KINDS)
def test_on_paper_there_is_nothing_to_press(browser, kind):
    with View(browser, kind, width=718) as view:
        view.page.emulate_media(media="print")
        assert (
            view.root.locator(".clv-controls:visible, canvas:visible").count()
            == 0
        )
        assert view.root.evaluate("e => e.scrollWidth - e.clientWidth") <= 0
        if kind == "beam":  # paper does not scroll
            box, tree = (
                view.root.bounding_box(),
                view.root.locator("svg").bounding_box(),
            )
            assert tree["x"] + tree["width"] <= box["x"] + box["width"]
            hidden = "e => getComputedStyle(e).visibility != 'visible'"
            nodes = view.root.locator(".clv-tree g")
            assert not any(node.evaluate(hidden) for node in nodes.all())


def test_the_same_view_can_stand_on_a_page_twice(browser, tmp_path):
    view = bleu_view([["a", "dog"], ["a", "cat"]], ["a", "dog"])._repr_html_()
    (tmp_path / "page.html").write_text(
        f"<meta charset=utf-8>{view}{view}", encoding="utf-8"
    )
    page = browser.new_page()
    page.goto((tmp_path / "page.html").as_uri())
    inputs, scores = page.locator("input"), page.locator(".clv-bleus")
    inputs.nth(1).fill("two cats")
    assert "BLEU-1 100.0" in scores.nth(0).text_content()
    assert "BLEU-1 0.0" in scores.nth(1).text_content()
    page.close()


def test_it_works_in_a_frame_that_may_only_run_scripts(browser, tmp_path):
    """As in Colab, where an output is a page of its own inside a sandbox."""
    view = packed_view([["a", "fish"], ["two", "cats", "sleep"]])._repr_html_()
    inner = escape(f'<html theme="dark"><meta charset=utf-8><body>{view}')
    frame = f'<iframe sandbox="allow-scripts" srcdoc="{inner}" width=800 height=600>'
    (tmp_path / "page.html").write_text(
        f"<meta charset=utf-8>{frame}", encoding="utf-8"
    )
    page = browser.new_page()
    page.goto((tmp_path / "page.html").as_uri())
    frame = page.frame_locator("iframe")
    frame.locator("[data-go=first]").click()
    assert "padded batch" in frame.locator("[role=status]").text_content()
    paper = frame.locator(".clv").evaluate(
        "e => getComputedStyle(e).backgroundColor"
    )
    assert max(map(int, re.findall(r"\d+", paper))) < 60
    page.close()
