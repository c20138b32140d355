"""The questions of the built site: by keyboard, by touch, remembered, without scripts, on paper."""

import pytest
import test_site

from captionlib.book.questions import questions_of

pytestmark = pytest.mark.site
PAGE = "notebooks/03_attention.html"
CHOICE, ORDER = "03.c", "03.b"


class Asked(test_site.Visit):
    """Chapter 03, and one of its questions."""

    def __init__(self, browser, name: str, theme="light", width=1280):
        super().__init__(browser, PAGE, theme, width)
        self.stored = questions_of("03")[name]
        self.root = self.find(name)

    def find(self, name: str):
        at = self.page.evaluate(
            """name => [...document.querySelectorAll('.clq')].findIndex(form =>
            JSON.parse(form.querySelector('script').textContent).name === name)""",
            name,
        )
        return self.page.locator(".clq").nth(at)

    def says(self) -> str:
        return self.root.locator("[role=status]").text_content()

    def lines(self) -> list[str]:
        return self.root.locator("ol code").all_text_contents()


def test_every_question_of_the_chapter_is_there_and_awake(browser):
    with Asked(browser, CHOICE) as asked:
        forms = asked.page.locator(".clq")
        assert forms.count() == len(questions_of("03"))
        for form in forms.all():
            assert form.get_attribute("data-ready") == ""


def test_a_choice_is_answered_by_keyboard_and_remembered(browser):
    with Asked(browser, CHOICE) as asked:
        choices = asked.stored["choices"]
        right = [c.get("right", False) for c in choices].index(True)
        assert asked.says() == ""
        asked.root.locator("input").first.focus()
        asked.page.keyboard.press("Space")
        for at, choice in enumerate(choices):
            if at:
                asked.page.keyboard.press("ArrowDown")
            said = asked.says()
            assert said.startswith("Right. " if at == right else "Not quite. ")
            assert choice["says"].split("`")[0].strip() in said
        asked.page.reload()
        again = asked.find(CHOICE)
        assert again.locator("input").nth(len(choices) - 1).is_checked()
        assert again.locator("[role=status]").text_content() == said


def test_lines_are_put_in_order_by_keyboard(browser):
    with Asked(browser, ORDER) as asked:
        wanted = asked.stored["lines"]
        assert sorted(asked.lines()) == sorted(wanted) != asked.lines()
        check = asked.root.locator(".clq-check")
        check.focus()
        asked.page.keyboard.press("Enter")
        assert asked.says().startswith("Not quite. ")
        for place, line in enumerate(wanted):
            while asked.lines().index(line) > place:
                at = asked.lines().index(line)
                up = asked.root.locator("ol li").nth(at).locator("button").first
                assert line.strip() in up.get_attribute("aria-label")
                up.focus()
                asked.page.keyboard.press("Enter")
                focused = asked.page.evaluate(
                    "document.activeElement.ariaLabel"
                )
                assert line.strip() in focused  # it moves with its line
        assert asked.lines() == wanted
        check.focus()
        asked.page.keyboard.press("Enter")
        assert asked.says() == "Right. " + asked.stored["says"]
        asked.page.reload()
        again = asked.find(ORDER)
        assert again.locator("ol code").all_text_contents() == wanted


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("name", [CHOICE, ORDER])
def test_a_question_fits_and_is_large_enough_for_a_finger(browser, name, theme):
    with Asked(browser, name, theme, 390) as asked:
        looks = asked.root.evaluate(
            """e => ({wide: e.scrollWidth - e.clientWidth,
            small: [...e.querySelectorAll('button, label')].filter(b => {
              const {width, height} = b.getBoundingClientRect();
              return b.checkVisibility() && (width < 38 || height < 38);
            }).length,
            paper: getComputedStyle(e).backgroundColor.match(/\\d+/g).map(Number)})"""
        )
        assert looks["wide"] <= 0 and looks["small"] == 0
        assert (max(looks["paper"][:3]) < 60) == (theme == "dark")


def test_without_scripts_the_answers_are_folded(browser):
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(f"{test_site.SITE.as_uri()}/{PAGE}")
    for form in page.locator(".clq").all():
        assert form.locator("details").is_visible()
        assert form.locator("button:visible").count() == 0
    context.close()


def test_on_paper_there_is_nothing_to_press(browser):
    with Asked(browser, ORDER, width=718) as asked:
        asked.page.emulate_media(media="print")
        pressed = ".clq button:visible, .clq input:visible"
        assert asked.page.locator(pressed).count() == 0
