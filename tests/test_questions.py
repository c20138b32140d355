"""Questions in the page: what they hold, and that each is asked where it belongs."""

import html
import json
import re
from pathlib import Path

import pytest

from captionlib.book.questions import (
    KINDS,
    Question,
    ask,
    questions_of,
    shuffled,
)
from captionlib.io.files import ASSETS, InputError

ROOT = Path(__file__).parent.parent
CHAPTERS = sorted(path.stem for path in (ASSETS / "questions").glob("*.json"))
ALL = {n: q for chapter in CHAPTERS for n, q in questions_of(chapter).items()}
ASKED = re.compile(r'^ask\("([^"]+)"\)$', re.MULTILINE)


@pytest.mark.parametrize("name", ALL)
def test_a_question_is_complete(name):
    question = ALL[name]
    assert question["kind"] in KINDS and question["text"].strip()
    if question["kind"] == "order":
        lines = question["lines"]
        assert len(lines) >= 3 and len(set(lines)) == len(lines)
        assert max(map(len, lines)) <= 60 and question["says"].strip()
    else:
        choices = question["choices"]
        assert sum(choice.get("right", False) for choice in choices) == 1
        assert 2 <= len(choices) <= 5
        for choice in choices:
            assert choice["text"].strip() and choice["says"].endswith(
                (".", "?")
            )


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_each_question_is_asked_once_in_its_chapter(chapter):
    (path,) = (ROOT / "notebooks").glob(f"{chapter}_*.py")
    asked = ASKED.findall(path.read_text(encoding="utf-8"))
    assert asked and sorted(asked) == sorted(questions_of(chapter))


def test_the_right_answers_are_not_always_at_one_place():
    for chapter in CHAPTERS:
        places = [
            [choice.get("right", False) for choice in q["choices"]].index(True)
            for q in questions_of(chapter).values()
            if q["kind"] != "order"
        ]
        assert len(places) < 3 or len(set(places)) > 1, chapter


def test_lines_are_never_shown_in_the_right_order():
    for n in range(2, 7):
        lines = [f"line {i}" for i in range(n)]
        for seed in range(20):
            order = shuffled(lines, str(seed))
            assert sorted(order) == list(range(n)) != order
            assert order == shuffled(lines, str(seed))


def test_a_page_without_scripts_has_the_answers_folded():
    stored = {
        "kind": "recall",
        "text": "Is `a < b` *always* true?",
        "choices": [
            {"text": "yes", "says": "No: </script> ends nothing."},
            {"text": "no", "right": True, "says": "As `a` may be larger."},
        ],
    }
    page = Question("03.z", stored)._repr_html_()
    assert "<code>a &lt; b</code> <em>always</em>" in page
    static = page.split("<script")[0]
    assert "<details>" in static and "<strong>Right.</strong>" in static
    data = page.split('<script type="application/json">')[1].split("</script>")[
        0
    ]
    assert json.loads(data)["choices"][0]["says"].startswith("No: </script>")
    assert not re.search(r"<[^>]+\sid=", page)
    assert html.escape("ends nothing") in static


def test_an_unknown_question_is_an_error():
    with pytest.raises((KeyError, InputError)):
        ask("12.zz")
