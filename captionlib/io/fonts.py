"""Find installed fonts for the letters that a figure's own font lacks."""

from __future__ import annotations

import sys
from contextlib import suppress
from functools import cache
from unicodedata import bidirectional, category

from matplotlib import ft2font
from matplotlib.figure import Figure
from matplotlib.font_manager import (
    FontEntry,
    FontProperties,
    findfont,
    findSystemFonts,
    fontManager,
    get_font,
)
from matplotlib.text import Text

__all__ = ["borrow_letters"]

BOX, BOX_FONT = "\u25a1", "DejaVu Sans"  # comes with matplotlib
SHOWN = 8  # letters that a message names

_families: dict[str, str | None] = {}  # a letter's; None: no font has it


def borrow_letters(figure: Figure) -> None:
    """Draw the letters that a text's own font lacks from installed fonts.

    A letter that no installed font has becomes a box, and a line on stderr
    names it the first time. A title that grows too wide for the figure shrinks.
    """
    texts = [t for t in figure.findobj(Text) if not t.get_text().isascii()]
    lacking = {text: _lacking(text) for text in texts}
    letters = sorted(set().union(*lacking.values()))
    if new := [letter for letter in letters if letter not in _families]:
        _look_for(new)
    for text in filter(lacking.get, texts):
        families = [_families[letter] or BOX_FONT for letter in lacking[text]]
        own = text.get_fontfamily()
        text.set_fontfamily(list(dict.fromkeys([*own, *families])))
        boxes = {ord(c): _box(c) for c in lacking[text] if not _families[c]}
        text.set_text(text.get_text().translate(boxes))
        width = text.get_window_extent().width
        if width > figure.bbox.width:
            text.set_fontsize(text.get_fontsize() * figure.bbox.width / width)
    if any(
        _needs_shaping(letter) for text in texts for letter in text.get_text()
    ):
        _say_what_is_not_shaped()


def _lacking(text: Text) -> list[str]:
    """The letters of a text that its own fonts don't have, each once."""
    letters = dict.fromkeys(text.get_text().replace("\n", ""))
    own = text.get_fontfamily()
    return [c for c in letters if not any(_has(family, c) for family in own)]


def _has(family: str, letter: str, weight: int | str = "normal") -> bool:
    font = get_font(findfont(FontProperties(family=[family], weight=weight)))
    return font.get_char_index(ord(letter)) != 0


def _look_for(letters: list[str]) -> None:
    """Note the font of each letter, and name the letters that have none."""
    used = {f.name: f for f in _fonts() if f.name in _families.values()}
    missing = _search(letters, list(used.values()))
    if missing:
        missing = _search(missing, _fonts())
    if missing and _add_new_fonts():  # installed since matplotlib listed them
        missing = _search(missing, _fonts())
    _families.update(dict.fromkeys(missing))
    visible = [letter for letter in missing if _box(letter) == BOX]
    if visible:
        more = len(visible) - SHOWN
        named = ", ".join(f"{c} (U+{ord(c):04X})" for c in visible[:SHOWN])
        _say(
            f"no installed font has {named}"
            + f" and {more} more" * (more > 0)
            + "; the figure shows boxes: install a font of this script, such "
            "as one of the Noto fonts"
        )


def _search(letters: list[str], fonts: list[FontEntry]) -> list[str]:
    """Note the first font that has each letter; return the letters left."""
    for font in fonts:
        if not letters:
            break
        with suppress(OSError, RuntimeError, ValueError):  # a broken font
            found = [c for c in letters if _has(font.name, c, font.weight)]
            _families.update(dict.fromkeys(found, font.name))
            letters = [c for c in letters if c not in found]
    return letters


def _fonts() -> list[FontEntry]:
    """One upright face of each family: regular ones first, and then those
    without serifs.

    Not the fonts of last resort: their glyphs are boxes, too.
    """
    faces = sorted(
        (f for f in fontManager.ttflist if f.style == "normal"),
        key=lambda f: (f.weight != 400, "sans" not in _plain(f.name), f.name),
    )
    fonts = {f.name: f for f in reversed(faces)}
    return [
        f
        for f in reversed(fonts.values())
        if "lastresort" not in _plain(f.name)
    ]


def _plain(name: str) -> str:
    return name.replace(" ", "").casefold()


@cache
def _add_new_fonts() -> bool:
    """Tell matplotlib of fonts that its stored list lacks; whether any are."""
    known = {font.fname for font in fontManager.ttflist}
    new = [path for path in findSystemFonts() if path not in known]
    for path in new:
        with suppress(Exception):  # bitmaps, and whatever else FreeType refuses
            fontManager.addfont(path)
    return bool(new)


def _box(letter: str) -> str:
    """What stands for a letter without a glyph; nothing for unseen ones."""
    if letter.isspace():
        return " "
    unseen = category(letter) in ("Cc", "Cf") or "\ufe00" <= letter <= "\ufe0f"
    return "" if unseen else BOX


def _needs_shaping(letter: str) -> bool:
    """Whether the letter's script joins letters, or runs to the left."""
    indic = "\u0900" <= letter <= "\u0dff" or "\u1000" <= letter <= "\u109f"
    return bidirectional(letter) in ("R", "AL") or indic


@cache  # once is enough
def _say_what_is_not_shaped() -> None:
    if not hasattr(ft2font, "__libraqm_version__"):
        _say(
            "this matplotlib draws letters of Arabic, Hebrew and Indic scripts "
            "one by one, from left to right; matplotlib 3.11 draws them right"
        )


def _say(message: str) -> None:
    if sys.stderr is not None:
        line = f"captionlib: {message}"
        print(line.encode(errors="backslashreplace").decode(), file=sys.stderr)
