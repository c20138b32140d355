"""The shape comments of the package are true, and a wrong one is noticed."""

import importlib
import re
import sys

import pytest

from tools import shapes

MODULE = """
from typing import NamedTuple

import torch


class Pair(NamedTuple):
    left: torch.Tensor  # (N, E), words
    right: torch.Tensor  # (N,) int64


def run(rows):
    N, E = rows.shape
    both = torch.cat(
        [rows, rows], dim=1
    )  # (N, 2E)
    for row in rows:
        last = row  # (E,)
    Pair(rows, rows[:, 0])
    return both[1:]  # (N - 1, E + E)
"""


@pytest.fixture
def watched(tmp_path, monkeypatch):
    """Runs a module's text under watch; gives what was checked and what was wrong."""

    def run(text: str) -> shapes.Watch:
        package = tmp_path / "watched"
        package.mkdir(exist_ok=True)
        (package / "__init__.py").touch()
        (package / "module.py").write_text(text)
        monkeypatch.syspath_prepend(tmp_path)
        for name in ("watched", "watched.module"):
            monkeypatch.delitem(sys.modules, name, raising=False)
        importlib.invalidate_caches()
        monkeypatch.setattr(sys, "dont_write_bytecode", True)
        module = importlib.import_module("watched.module")
        watch = shapes.Watch(shapes.comments(package / "module.py"))
        with watch.on():
            import torch

            module.run(torch.zeros(3, 5))
        return watch

    return run


def test_every_shape_comment_of_the_package_is_true_and_reached(tally):
    problems, said = shapes.check()
    assert problems == []
    checked, of = map(int, re.findall(r"\d+", said)[:2])
    assert checked == of >= 25
    tally(shape_comments=checked)


def test_true_comments_are_counted(watched):
    watch = watched(MODULE)
    assert not watch.problems
    times = {comment.text: count for comment, count in watch.checked.items()}
    assert times == {
        "# (N, E)": 1,
        "# (N,)": 1,
        "# (N, 2E)": 1,
        "# (E,)": 3,
        "# (N - 1, E + E)": 1,
    }


def test_a_comment_on_a_pair_holds_for_both(watched):
    pair = "    both = torch.cat("
    text = MODULE.replace(pair, "    a, b = rows.max(1)  # (N,)\n" + pair)
    assert not watched(text).problems
    text = text.replace("rows.max(1)", "rows[:, 0], rows[0]")
    assert len(watched(text).problems) == 1


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("# (N, 2E)", "# (N, 3E)"),
        ("# (N, 2E)", "# (E, N)"),
        ("# (N, 2E)", "# (N,)"),
        ("# (E,)", "# (N,)"),
        ("# (N,) int64", "# (E, N) int64"),
        ("(N - 1, E + E)", "(N, E + E)"),
        ("(N - 1, E + E)", "(N - 1, E + F)"),
    ],
)
def test_a_wrong_comment_is_noticed(watched, right, wrong):
    assert MODULE.count(right) == 1
    watch = watched(MODULE.replace(right, wrong))
    assert len(watch.problems) == 1 and wrong.split(" int64")[0] in next(
        iter(watch.problems)
    )


def test_letters_of_a_tuple_agree_with_each_other(watched):
    watch = watched(
        MODULE.replace("Pair(rows, rows[:, 0])", "Pair(rows, rows[0, :])")
    )
    assert len(watch.problems) == 1 and "N is 3" in next(iter(watch.problems))


def test_two_letters_of_one_size_are_refused(watched):
    watch = watched(MODULE)
    watch.sizes = {"N": 3, "E": 3}
    with pytest.raises(ValueError, match="share a size"):
        watch.compare(next(iter(watch.checked)), None, {}, {})


def test_a_comment_on_nothing_is_refused(tmp_path):
    (tmp_path / "module.py").write_text("x = 1\nprint(x)  # (N, E)\n")
    with pytest.raises(ValueError, match="module.py:2"):
        shapes.comments(tmp_path / "module.py")
