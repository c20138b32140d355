"""Figures in the prose: what is one, what it may rest on, and that a stale one is noticed."""

import json
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import (
    new_code_cell,
    new_markdown_cell,
    new_notebook,
    new_output,
)

from tools import measured

ROOT = Path(__file__).parent.parent
PAGE = Path("book/page.md")


@pytest.fixture
def book(tmp_path):
    """A book of one page and one chapter, with one stored result."""
    for name in ("book/results", "notebooks", "captionlib/assets/flickr8k"):
        (tmp_path / name).mkdir(parents=True)
    scores = {
        "result": {"bleu4": 24.816, "images": 1000},
        "rows": [{"seconds": 61}],
    }
    (tmp_path / "book/results/scores.json").write_text(json.dumps(scores))
    return tmp_path


def page(book: Path, text: str, grounds: str = "[]") -> list[str]:
    """The problems of a book whose only page has this text."""
    (book / PAGE).write_text(text)
    (book / measured.GROUNDS).write_text(grounds)
    return measured.check(book)[0]


def chapter(
    book: Path, prose: str, printed: str = "", code: str = "print()"
) -> list[str]:
    """The problems of a book with one chapter."""
    cell = new_code_cell(code, outputs=[new_output("stream", text=printed)])
    notebook = new_notebook(cells=[new_markdown_cell(prose), cell])
    nbformat.write(notebook, book / "notebooks/00_x.ipynb")
    return measured.check(book)[0]


def test_every_figure_of_the_book_rests_on_something():
    problems, counts = measured.check(ROOT)
    assert not problems
    assert (
        min(
            counts[kind]
            for kind in ("role", "generated", "filled", "output", "source")
        )
        > 0
    )


@pytest.mark.parametrize(
    "text",
    [
        "a BLEU-4 of 24.8",
        "BLEU-4 is about 25",
        "takes 12 seconds",
        "in two minutes",
        "0.5 s",
        "22 MB",
        "two gigabytes",
        "40 % of the time",
        "40% faster",
        "five times as fast",
        "do a third of its work",
        "three quarters of its weights",
        "less than half as wide",
        "8 times faster",
        "6,000 photographs",
        "14 epochs",
        "3 points more",
        "three nats",
        "| soft | 0.324 |",
        "×15 means",
    ],
)
def test_what_is_a_figure(book, text):
    assert len(measured.figures(text)) == 1
    (problem,) = page(book, f"Some {text} here.")
    assert "rests on nothing" in problem and str(PAGE) in problem


@pytest.mark.parametrize(
    "text",
    [
        "a 14×14 grid, 256 × 256 pixels",
        "section 4.2.1, equation 3.1 and Python 3.10",
        "`--rate 0.5` and $p = 0.25$",
        "{cite}`xu2015` of 2015",
        "[here](https://x.org/1.5) under CC BY 4.0",
        "twenty photographs, counted five times",
        "a third layer makes one score, a quarter to the right",
        "BLEU-1 to BLEU-4, ResNet-101",
        "```bash\ntrain --rate 1.5\n```",
        "<!-- 1.5 -->",
    ],
)
def test_what_is_none(book, text):
    assert page(book, text) == []


def test_a_role_prints_what_is_stored(book):
    assert measured.stored("scores.json result.bleu4 .1f", book) == "24.8"
    assert (
        measured.stored("book/results/scores.json result.images ,", book)
        == "1,000"
    )
    assert measured.stored("scores.json rows.0.seconds", book) == "61"
    assert measured.stored("scores.json rows.count", book) == "1"
    assert measured.stored("scores.json megabytes .3f", book) == "0.000"
    assert measured.stored("scores.json result.images ~1", book) == "1,000"
    assert measured.stored("= 2*3/4 .1f", book) == "1.5"
    assert (
        page(book, "BLEU-4 {measured}`scores.json result.bleu4 .1f`, here")
        == []
    )


@pytest.mark.parametrize(
    "spec", ["none.json a", "scores.json result.none", "scores.json rows.7", "scores.json rows .1f",
             "= open('x') .1f", "scores.json"]
)  # fmt: skip
def test_a_role_that_reads_nothing_is_a_problem(book, spec):
    with pytest.raises(ValueError):
        measured.stored(spec, book)
    (problem,) = page(book, f"{{measured}}`{spec}`")
    assert "the role" in problem and spec in problem


def test_what_a_tool_wrote_is_compared_elsewhere(book):
    between = "<!-- recipe: written by tools.results -->\n\n| 24.8 |\n\n<!-- recipe: end -->"
    assert page(book, between) == []
    assert (
        page(book, f"<!-- written by tools.gallery -->\n\n{between} 24.8") == []
    )
    assert len(page(book, between + "\n\nand 24.8")) == 1


def test_a_chapter_may_say_what_it_printed(book):
    assert (
        chapter(
            book, "That is 0.324, or 128 ms.", "p 0.324 in 128.00 s and 128"
        )
        == []
    )
    assert len(chapter(book, "That is 0.324.", "0.3241 and 10.324")) == 1
    assert chapter(book, "dropout of 0.25", code="x = f(0.25)") == []
    assert len(chapter(book, "dropout of 0.25", code="x = 1  # 0.25")) == 1
    assert chapter(book, "the rate is cut to 80 %", code="decay = 0.8") == []


def test_a_short_number_needs_its_unit_beside_it(book):
    assert chapter(book, "It takes 4 times as long.", "4 times as long") == []
    assert len(chapter(book, "It takes 4 times as long.", "4 images")) == 1
    assert chapter(book, "12 % of them", "12% left") == []


def test_a_named_source_is_enough_and_must_be_used(book):
    says = "- {says: ['it has 29.98 and 32.95'], because: its author}\n"
    assert page(book, "They say it has 29.98\nand 32.95.", says) == []
    assert (
        len(page(book, "They say it has 29.89 and 32.95.", says)) == 3
    )  # both, and unused


def test_words_are_filled_in_from_what_is_stored(book):
    says = "- {says: 'BLEU-4 {scores.json result.bleu4 .2f}', pages: [book/page.md]}\n"
    assert page(book, "BLEU-4 24.82", says) == []
    problems = page(book, "BLEU-4 22.82", says)
    assert "should read 'BLEU-4 24.82'" in problems[0]


@pytest.mark.parametrize(
    ("printed", "problems"), [("4.9", 0), ("7.2", 1), ("none", 1)]
)
def test_a_rounded_word_is_held_against_an_output(book, printed, problems):
    (book / measured.GROUNDS).write_text(
        "- says: about five times as fast\n  pages: [notebooks/00_x.ipynb]\n"
        "  output: 'it is ([\\d.]+) times'\n  between: [4.5, 5.5]\n"
    )
    found = chapter(
        book,
        "It is about five times as fast.",
        f"it is {printed} times as fast",
    )
    assert len(found) == problems


def test_arithmetic_and_the_size_of_a_package_are_computed(book):
    says = (
        "- {says: three times as many, sum: 14*14/(8*8), between: [2.9, 3.2]}\n"
    )
    assert page(book, "three times as many", says) == []
    assert (
        len(page(book, "three times as many", says.replace("14*14", "16*16")))
        == 1
    )
    says = "- {says: 90 MB of it, installed: nbformat, between: [85, 95]}\n"
    assert "it is " in page(book, "90 MB of it", says)[0]
