"""A small sample of `make canary`: errors planted in real files are noticed."""

import pytest

from tools import canary


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    return canary.copy(canary.ROOT, tmp_path_factory.mktemp("project"))


@pytest.mark.parametrize(
    ("only", "count"),
    [
        ("page concepts.md", 2),
        ("export attention: a line", 1),
        ("chapter 03_attention: an output", 2),
        ("chapter 03_attention: a line of one half", 1),
        ("chapter 03_attention: a picture's", 1),
    ],
)
def test_a_planted_error_turns_its_check_red(project, tally, only, count):
    found = [(plant.what, red) for plant, red in canary.sow(project, only)]
    assert len(found) == count
    assert all(red for _, red in found), found
    tally(errors_planted=count)


def test_what_is_planted_is_taken_out_again(tmp_path):
    path = tmp_path / "page.md"
    path.write_text("before")
    with pytest.raises(ZeroDivisionError), canary.planted(path, "after"):
        assert path.read_text() == "after"
        raise ZeroDivisionError
    assert path.read_text() == "before"


def test_the_last_statement_is_forgotten():
    source = (
        "def f(x):\n    y = 1\n    return (\n        x + y\n    )\n\n\nz = 2\n"
    )
    function = canary.ast.parse(source).body[0]
    worse = canary.without_last_statement(source, function)
    assert worse == "def f(x):\n    y = 1\n    pass\n\n\nz = 2\n"
