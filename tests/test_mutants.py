"""Mutants: what is changed, and that survivors are told from the noticed and the explained."""

import pytest

from tools import canary, mutants

HEADER = (
    '"""Toy.\n\nChapter 01 of the book\ngenerates it: edit the chapter.\n"""\n'
)
MODULE = HEADER + "\n\ndef larger(a, b):\n    return a if a > b else b\n"
TESTS = (
    "from captionlib.toy_max import larger\n\n\n"
    "def test_larger():\n    assert larger(1, 2) == larger(2, 1) == 2\n"
)
EXPLAINED = (
    "- module: toy_max\n  was: return a if a > b else b\n"
    "  becomes: return a if (a >= b) else b\n  because: equal ones are equal\n"
)


@pytest.mark.parametrize(
    ("code", "become"),
    [
        ("x = a < b", ["x = (a <= b)"]),
        ("x = a + b.c()", ["x = (a - b.c())"]),
        ("x = not a and -b", ["x = (not a or -b)", "x = (a) and -b"]),
        ("x = 0.5", ["x = (1.5)"]),
        ("x = True", ["x = (False)"]),
        ("x = f(a, dim=b, keep=c)", ["x = f(a, keep=c)", "x = f(a, dim=b)"]),
        ("def f():\n    return x", ["return"]),
        ("def f():\n    x[1] += y", ["x[1] -= y", "x[(2)] += y", "pass"]),
        ("if flag:\n    pass", ["if (not flag):"]),
        ("x: Literal[1] = f'{1}'", []),
        ("import x", []),
        ('def f():\n    """Say 1 < 2."""', []),
    ],
)
def test_what_is_changed(code, become):
    found = [mutant.becomes for mutant in mutants.mutants("module", code)]
    assert set(become) <= set(found)
    assert bool(found) == bool(become)


def test_a_statement_of_several_lines_is_replaced_as_a_whole():
    code = "def f(ä):\n    g(\n        ä,\n    )\n    return None\n"
    gone = [m for m in mutants.mutants("x", code) if m.becomes == "pass"]
    assert gone[0].text == "def f(ä):\n    pass\n    return None\n"
    assert gone[0].was == "g(\n        ä,\n    )"
    assert "-    g(" in gone[0].diff(code) and "+    pass" in gone[0].diff(code)


def test_every_mutant_of_the_package_is_python():
    for path in mutants.generated(mutants.ROOT):
        text = path.read_text(encoding="utf-8")
        found = list(mutants.mutants(path.stem, text))
        assert len(found) > 10
        for mutant in found[::10]:
            compile(mutant.text, path.name, "exec")
            assert mutant.text != text


@pytest.fixture
def project(tmp_path, monkeypatch):
    for name in canary.FOLDERS:
        (tmp_path / name).mkdir()
    (tmp_path / "captionlib/__init__.py").touch()
    (tmp_path / "captionlib/toy_max.py").write_text(MODULE)
    (tmp_path / "tests/test_toy_max.py").write_text(TESTS)
    (tmp_path / "tools/mutants.yml").write_text("[]")
    monkeypatch.setattr(mutants, "ROOT", tmp_path)
    return tmp_path


def test_a_survivor_is_shown_unless_it_is_explained(project, capsys):
    assert mutants.main(["--jobs", "2"]) == 1
    said = capsys.readouterr().out
    assert "captionlib/toy_max.py" in said and "if (a >= b) else" in said
    assert "3 of 3 mutants, seed 0: 2 killed, 0 explained, 1 survived" in said
    (project / "tools/mutants.yml").write_text(EXPLAINED)
    assert mutants.main(["--jobs", "2"]) == 0
    assert "2 killed, 1 explained, 0 survived" in capsys.readouterr().out


def test_tests_that_fail_by_themselves_prove_nothing(project):
    (project / "tests/test_toy_max.py").write_text("def test(): assert 0")
    with pytest.raises(SystemExit, match="fail without a mutation"):
        mutants.main([])
