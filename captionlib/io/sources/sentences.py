"""Split a caption into words, for files that hold it as people wrote it."""

from __future__ import annotations

import re
from unicodedata import category

from captionlib.io.words import SPECIAL, read_words

__all__ = ["split_caption"]

# Han, kana, Thai, Lao, Khmer and Myanmar are written without spaces. To find
# their words takes a dictionary of each language.
NO_SPACES = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u19e0-\u19ff\ua9e0-\ua9ff"
    "\uaa60-\uaa7f\u3005-\u3007\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf"
    "\u4e00-\u9fff\uf900-\ufaff\uff66-\uff9f\U0001b000-\U0001b16f"
    "\U00020000-\U0003ffff]"
)
JOINERS = "\u200c\u200d"  # part of a word between letters, as in Persian
MARKERS = re.compile("|".join(map(re.escape, SPECIAL)), re.IGNORECASE)


def split_caption(text: str, known: dict | None = None) -> tuple[str, ...]:
    """The words of a caption, in lower case: its letters, marks and numbers.

    Every other character separates words, so "A dog's T-shirt." is `a dog s t
    shirt`, as in Karpathy's Flickr8k. In scripts without spaces each character
    with its marks is a word.

    Args:
        text: in any script, in either normal form.
        known: as for `read_words`.

    Raises:
        ValueError: if there are no words, or one is a special token such as
            `<start>`. It reads on after "FILE: line 3: the caption".
    """
    if marker := MARKERS.search(text):
        raise ValueError(
            f"has {marker[0]!r}, which captionlib adds itself; remove it"
        )
    # A NUL ties a mark to the character before it.
    spaced = text.lower().translate(_SPACING)
    tied = spaced.replace(" \0", "").replace("\0", "")
    words = [word.strip(JOINERS) for word in tied.split()]
    words = [word for word in words if any(map(str.isalnum, word))]
    if not words:
        raise ValueError("has no words; give it words or leave it out")
    return read_words(words, known)


class _Spacing(dict):
    """What `str.translate` puts in a character's place, found when needed."""

    def __missing__(self, code: int) -> str:
        self[code] = found = self._of(chr(code))
        return found

    @staticmethod
    def _of(character: str) -> str:
        kind = category(character)
        if kind == "Cf":  # direction marks, soft hyphens
            kept = character if character in JOINERS else ""
            return " " if character == "\u200b" else kept
        if "\ufe00" <= character <= "\ufe0f" or character >= "\U000e0100":
            return ""  # chooses between two glyphs
        if kind[0] not in "LMN":
            return " "
        tie = "\0" if kind[0] == "M" else ""
        space = " " if NO_SPACES.match(character) else ""
        return tie + character + space if tie else space + character + space


_SPACING = _Spacing()
