"""Figures of captions in any script, with the fonts that are installed."""

import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from matplotlib.figure import Figure
from matplotlib.font_manager import fontManager

from captionlib.captioner import Caption
from captionlib.io import fonts
from captionlib.io.files import ASSETS
from captionlib.visualize import show_attention

# Private letters, which no font of this machine has, and two common scripts.
PRIVATE, DOG, KITE = "\U000f1234", "狗", "凧"


def make_font(path, family, letters):
    """A font whose letters are black squares."""
    pen = TTGlyphPen(None)
    pen.moveTo((100, 0))
    for corner in ((100, 800), (900, 800), (900, 0)):
        pen.lineTo(corner)
    pen.closePath()
    square = pen.glyph()
    names = {ord(letter): f"u{ord(letter):X}" for letter in letters}
    builder = FontBuilder(1000, isTTF=True)
    builder.setupGlyphOrder([".notdef", *names.values()])
    builder.setupCharacterMap(names)
    builder.setupGlyf(dict.fromkeys([".notdef", *names.values()], square))
    builder.setupHorizontalMetrics(
        dict.fromkeys([".notdef", *names.values()], (1000, 0))
    )
    builder.setupHorizontalHeader(ascent=800, descent=-200)
    builder.setupNameTable({"familyName": family, "styleName": "Regular"})
    builder.setupOS2(usWeightClass=400)
    builder.setupPost()
    builder.save(path)
    return path


@pytest.fixture
def listed(monkeypatch):
    """Matplotlib's list of fonts and ours as they are, restored after the test."""
    monkeypatch.setattr(fontManager, "ttflist", list(fontManager.ttflist))
    monkeypatch.setattr(fonts, "_families", {})
    fontManager._findfont_cached.cache_clear()
    yield
    fontManager._findfont_cached.cache_clear()


def look(words, **options):
    alphas = np.full((len(words), 4, 4), 1 / 16, np.float32)
    caption = Caption(words, " ".join(words), -1.0, alphas, True)
    return show_attention(np.zeros((40, 60), np.uint8), caption, **options)


def families(figure, word):
    (text,) = (
        text
        for text in figure.findobj(fonts.Text)
        if text.get_text() == word and text.get_fontsize() == 11
    )
    return text.get_fontfamily()


def test_report_matplotlib_14269_installed_fonts_draw_their_letters(
    listed, tmp_path, capfd, recwarn
):
    for family, letters in (
        ("Squares One", PRIVATE),
        ("Squares Two", "\U000f4321"),
    ):
        fontManager.addfont(
            make_font(tmp_path / f"{family}.ttf", family, letters)
        )
    both = PRIVATE + "\U000f4321"
    for to in (
        tmp_path / "seen.png",
        tmp_path / "seen.svg",
        tmp_path / "seen.pdf",
    ):
        figure = look(["a", PRIVATE, both], to=to)
        assert families(figure, PRIVATE)[1:] == ["Squares One"]
        assert families(figure, both)[1:] == ["Squares One", "Squares Two"]
        assert to.stat().st_size > 1000
    assert not recwarn.list and capfd.readouterr() == ("", "")


def test_report_matplotlib_14269_missing_letters_are_named_once(
    listed, tmp_path, capfd, recwarn
):
    word = PRIVATE + "\ufe0f" + "\U000f4321"
    figure = look(["a", word], to=tmp_path / "seen.png")
    line = capfd.readouterr().err
    assert line.startswith("captionlib: no installed font has ")
    assert "(U+F1234)" in line and "(U+F4321)" in line and "FE0F" not in line
    assert line.count("\n") == 1 and "; " in line
    assert fonts.BOX_FONT in families(figure, "□\ufe0f□")
    look(["a", word], to=tmp_path / "again.png")
    many = "".join(chr(0xF5000 + number) for number in range(20))
    look(["a", many], to=tmp_path / "many.png")
    again = capfd.readouterr().err
    assert again.count("\n") == 1 and "and 12 more; " in again
    assert not recwarn.list


def test_latin_figures_look_at_no_other_font(monkeypatch):
    monkeypatch.setattr(fonts, "_fonts", None)
    look(["a", "naïve", "dog", "×2"])
    look(["собака", "σκύλος"])  # in the default font, too


def test_a_wide_title_shrinks_to_the_figure(listed, tmp_path):
    fontManager.addfont(make_font(tmp_path / "a.ttf", "Squares", PRIVATE))
    figure = Figure(figsize=(4, 3))
    title = figure.suptitle(PRIVATE * 60, size=12)
    fonts.borrow_letters(figure)
    assert title.get_window_extent().width <= figure.bbox.width * 1.06


@pytest.mark.skipif(sys.platform != "linux", reason="fonts live elsewhere")
def test_report_matplotlib_14269_the_command_draws_chinese(tmp_path):
    model = shutil.copytree(ASSETS / "toy", tmp_path / "chinese")
    words = json.loads((model / "vocabulary.json").read_text())
    chinese = {
        word if word[0] == "<" else f"{DOG}{KITE}{number}": number
        for word, number in words.items()
    }
    (model / "vocabulary.json").write_text(json.dumps(chinese))
    home = tmp_path / "data"

    def run():
        return subprocess.run(
            [
                sys.executable,
                "-m",
                "captionlib.cli",
                "caption",
                "--model",
                model,
            ]
            + [ASSETS / "wading.jpg", "--save-figure", tmp_path / "seen.png"],
            env=os.environ | {"XDG_DATA_HOME": str(home)},
            capture_output=True,
            encoding="utf-8",
        )

    done = run()
    assert done.returncode == 0 and DOG in done.stdout
    if done.stderr:  # no font of this machine has them
        assert done.stderr.count("\n") == 1 and "U+51E7" in done.stderr
    before = (tmp_path / "seen.png").read_bytes()
    (home / "fonts").mkdir(parents=True)
    make_font(home / "fonts" / "a.ttf", "Squares", DOG + KITE)
    again = run()
    assert again.returncode == 0 and again.stderr == ""
    if done.stderr:
        assert (tmp_path / "seen.png").read_bytes() != before
