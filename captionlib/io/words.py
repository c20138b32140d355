"""The words of captions: one rule for every file that captions come from.

Training captions and references are read by the same rule, so that a word that
a captioner learned is the word that it is scored against.
"""

from __future__ import annotations

import unicodedata

from captionlib.io.prepared import END, PAD, START, UNK

__all__ = ["INVISIBLE", "read_words"]

SPECIAL = {PAD, UNK, START, END}
# Spaces of no width, soft hyphens and marks of direction: with one of them, two
# words look alike. The joiners U+200C and U+200D are not among them, since
# Persian, Hindi and emoji are spelled with them.
INVISIBLE = frozenset(
    "\u00ad\u061c\u180e\u200b\u200e\u200f\u2060\ufeff"
    "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
)


def read_words(tokens, known: dict | None = None) -> tuple[str, ...]:
    """The words of one caption, in Unicode's normal form NFC.

    A composed and a decomposed é are one word then.

    Args:
        tokens: a list of words.
        known: keeps one copy of each word, to save memory and time: COCO has
            seven million tokens.

    Raises:
        ValueError: if there are no words, or one is empty, holds white space or
            an invisible character, or is a special token such as `<start>`,
            which is refused rather than removed lest captions change unseen.
            It reads on after "FILE: image NAME: caption 3" and ends with a
            cure.
    """
    known = {} if known is None else known
    if not isinstance(tokens, list | tuple) or not tokens:
        raise ValueError("has no tokens; give it words or leave it out")
    try:
        return tuple(known.get(token) or _add(token, known) for token in tokens)
    except TypeError:  # an unhashable token
        return tuple(_add(token, known) for token in tokens)


def _add(token, known: dict) -> str:
    if wrong := _fault(token):
        raise ValueError(
            f"has the token {token!r}, {wrong} or leave the caption out"
        )
    word = unicodedata.normalize("NFC", token)
    word = known.setdefault(word, word)
    return known.setdefault(token, word)


def _fault(token) -> str:
    """What keeps `token` from being a word, and the cure; "" if nothing."""
    if not isinstance(token, str) or not token:
        return "which is not a word; give a word"
    if any(0xD800 <= ord(c) <= 0xDFFF for c in token):
        return "which can't be written; mend its encoding"
    if token.split() != [token]:
        return "which holds white space; make each word one token"
    if any(c in INVISIBLE or unicodedata.category(c) == "Cc" for c in token):
        return "which holds an invisible character; remove that"
    if token.casefold() in SPECIAL:
        return "which captionlib adds itself; remove it"
    return ""
