import os
import shutil
import stat
import sys
from random import Random

import numpy as np
import pytest

from captionlib.io.files import InputError
from captionlib.scoring.meteor import (
    COLUMNS,
    meteor,
    meteor_command,
    meteor_of,
    meteor_statistics,
)

WORDS = "a the dog dogs puppy is are runs running on in grass lawn t-shirt café big large".split()


def captions(seed, images):
    """Captions in which words, stems, synonyms and paraphrases meet, and some meet nothing."""
    rng = Random(seed)

    def caption(shortest=1):
        return rng.choices([*WORDS, "zzzyx"], k=rng.randint(shortest, 12))

    references = [
        [caption() for _ in range(rng.randint(1, 5))] for _ in range(images)
    ]
    return references, [caption(shortest=0) for _ in range(images)]


PERFECT = (
    [["a dog runs".split()], ["two dogs".split()]],
    ["a dog runs".split(), ["two", "dogs"]],
)
DEGENERATE = {
    "perfect": PERFECT,
    "perfect for one image": (PERFECT[0][:1], PERFECT[1][:1]),
    "nothing in common": ([["a dog".split()]], [["zzzyx"]]),
    "empty hypothesis": (PERFECT[0], [[], ["two", "dogs"]]),
    "empty everywhere": ([[[]]], [[]]),
    "empty reference": ([[[], ["a"]]], [["a"]]),
    "repeated words": ([["a dog a dog".split()]], ["a a a a dog dog".split()]),
    "capitals": ([["A DOG".split()]], [["dog"]]),
    "words that it splits": ([["a t-shirt".split()]], ["a t shirt".split()]),
}


@pytest.fixture(scope="module")
def pairs():
    """Every corpus here, with what the program counts of it and what pycocoevalcap makes of that.

    Starting the program takes seconds, so it is started twice in all.
    """
    if shutil.which("java") is None:
        pytest.skip("METEOR is a Java program and there is no java here")
    module = pytest.importorskip("pycocoevalcap.meteor.meteor")
    corpora = {
        f"random {seed}": captions(seed, 40) for seed in range(3)
    } | DEGENERATE
    counts = meteor_statistics(
        [image for references, _ in corpora.values() for image in references],
        [words for _, hypotheses in corpora.values() for words in hypotheses],
    )
    scorer, found, start = module.Meteor(), {}, 0
    for name, (references, hypotheses) in corpora.items():
        truth = {
            i: [" ".join(words) for words in image]
            for i, image in enumerate(references)
        }
        said = {i: [" ".join(words)] for i, words in enumerate(hypotheses)}
        rows = counts[start : start + len(hypotheses)]
        start += len(hypotheses)
        found[name] = (rows, *scorer.compute_score(truth, said))
    return found


@pytest.mark.parametrize(
    "name", [*(f"random {seed}" for seed in range(3)), *DEGENERATE]
)
def test_equals_pycocoevalcap(pairs, name):
    statistics, whole, each = pairs[name]
    assert statistics.shape == (len(each), COLUMNS)
    assert meteor_of(statistics) == pytest.approx(
        100 * np.array(each), abs=1e-6
    )
    assert meteor_of(statistics.sum(axis=0)) == pytest.approx(
        100 * whole, abs=1e-6
    )


def test_of_a_corpus_it_is_one_number(pairs):
    references, hypotheses = captions(0, 40)
    assert meteor(references, hypotheses) == pytest.approx(
        100 * pairs["random 0"][1], abs=1e-6
    )


def test_report_74_meteor_sees_words_that_mean_the_same(pairs):
    """What BLEU can't see: a stem, a synonym."""
    statistics = meteor_statistics(
        [[["a", "dog", "is", "running"]]] * 3,
        [
            w.split()
            for w in (
                "a dog is runs",
                "a hound is running",
                "a rocket is running",
            )
        ],
    )
    stem, synonym, wrong = meteor_of(statistics)
    assert min(stem, synonym) > wrong + 5


def test_a_word_that_would_be_read_as_two_is_refused():
    for word in ("ice cream", "|||", "a|||b", "new\nline", ""):
        with pytest.raises(
            ValueError, match="image 1: METEOR can't read .* as one word"
        ):
            meteor_statistics([[["a"]], [[word]]], [["a"], ["a"]])
        with pytest.raises(
            ValueError, match="image 1: METEOR can't read .* as one word"
        ):
            meteor_statistics([[["a"]], [["a"]]], [["a"], [word]])


def one_line(error) -> str:
    assert "\n" not in str(error.value)
    return str(error.value)


def test_without_java_one_line_says_what_to_do(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputError) as error:
        meteor_statistics([[["a"]]], [["a"]])
    assert "install a Java runtime" in one_line(error)


def fake_java(folder, monkeypatch, script):
    """A program called java that stands in for the real one."""
    program = folder / "java"
    program.write_text(
        f"#!{sys.executable}\nimport sys\nlines = sys.stdin.readlines()\n{script}\n"
    )
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", str(folder))


def test_without_pycocoevalcap_one_line_says_what_to_do(monkeypatch, tmp_path):
    fake_java(tmp_path, monkeypatch, "")
    monkeypatch.setitem(sys.modules, "pycocoevalcap", None)
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    with pytest.raises(InputError) as error:
        meteor_command()
    assert "pip install pycocoevalcap" in one_line(error)


BROKEN = {
    "stops at once": "sys.exit('Error: no room\\nfor the heap')",
    "says something else": "print('Picked up options')",
    "says too little": "print('1.0 2.0')",
    "answers one line of two": f"print(' '.join(['1.0'] * {COLUMNS}))",
}


@pytest.mark.skipif(
    os.name == "nt",
    reason="a script stands in for java, which Windows can't run",
)
@pytest.mark.parametrize("case", BROKEN)
def test_a_java_that_fails_is_told_in_one_line(case, monkeypatch, tmp_path):
    pytest.importorskip("pycocoevalcap")
    fake_java(tmp_path, monkeypatch, BROKEN[case])
    with pytest.raises(InputError) as error:
        meteor_statistics([[["a"]], [["b"]]], [["a"], ["b"]])
    assert "check that java -version works" in one_line(error)


@pytest.mark.skipif(
    os.name == "nt",
    reason="a script stands in for java, which Windows can't run",
)
def test_the_words_arrive_as_they_are(monkeypatch, tmp_path):
    pytest.importorskip("pycocoevalcap")
    fake_java(
        tmp_path,
        monkeypatch,
        f"open({str(tmp_path / 'got')!r}, 'w', encoding='utf-8').writelines(lines)\n"
        f"print(' '.join(['0.0'] * {COLUMNS}))",
    )
    monkeypatch.setenv("PYTHONIOENCODING", "utf-8")
    meteor_statistics(
        [["Un café , noir .".split(), ["T-shirt"]]], ["no <unk> 's".split()]
    )
    got = (tmp_path / "got").read_text(encoding="utf-8")
    assert got == "SCORE ||| Un café , noir . ||| T-shirt ||| no <unk> 's\n"
