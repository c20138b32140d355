"""Figures that pages print from stored files."""

import json
from pathlib import Path

import pytest

from tools import measured

ROOT = Path(__file__).parent.parent
CARD = ROOT / "captionlib/assets/flickr8k/README.md"


@pytest.fixture
def book(tmp_path):
    """A folder with one stored result."""
    (tmp_path / "book/results").mkdir(parents=True)
    scores = {
        "result": {"bleu4": 24.816, "images": 1000},
        "rows": [{"seconds": 61}],
    }
    (tmp_path / "book/results/scores.json").write_text(json.dumps(scores))
    return tmp_path


@pytest.mark.parametrize(
    ("spec", "printed"),
    [
        ("scores.json result.bleu4 .1f", "24.8"),
        ("book/results/scores.json result.images ,", "1,000"),
        ("scores.json rows.0.seconds", "61"),
        ("scores.json rows.count", "1"),
        ("scores.json megabytes .3f", "0.000"),
        ("scores.json result.images ~1", "1,000"),
    ],
)
def test_a_role_prints_what_is_stored(book, spec, printed):
    (book / "book/page.md").write_text(f"It is {{measured}}`{spec}`, here.")
    assert measured.stored(spec, book) == printed
    assert list(measured.problems(book)) == []


@pytest.mark.parametrize(
    "spec",
    [
        "none.json a",
        "scores.json result.none",
        "scores.json rows.7",
        "scores.json rows .1f",
        "scores.json",
    ],
)
def test_a_role_that_reads_nothing_is_a_problem(book, spec):
    with pytest.raises(ValueError):
        measured.stored(spec, book)
    (book / "book/page.md").write_text(f"It is {{measured}}`{spec}`, here.")
    (problem,) = measured.problems(book)
    assert "page.md: the role" in problem and spec in problem


def test_a_role_that_is_only_shown_is_not_read(book):
    (book / "book/page.md").write_text("Type `` {measured}`FILE KEY` ``.")
    assert list(measured.problems(book)) == []


def test_the_roles_of_the_book_read_something():
    pages = sorted(ROOT.glob("book/*.md"))
    roles = [measured.ROLE.findall(page.read_text()) for page in pages]
    assert sum(map(len, roles)) > 10
    assert list(measured.problems(ROOT)) == []


def test_the_card_of_the_shipped_captioner_says_what_is_stored():
    """The card is read outside the book, where there are no roles."""
    card = CARD.read_text(encoding="utf-8")
    for key in ("bleu4", "cider_d"):
        said = measured.stored(f"shipped_beam7.json result.{key} .2f", ROOT)
        assert f"| {said} |" in card
