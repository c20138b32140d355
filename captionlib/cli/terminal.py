"""What the commands say, in lines that no file name can break."""

from __future__ import annotations

import sys
from unicodedata import category

__all__ = ["print_line", "say", "shows_progress"]


def say(message: str) -> None:
    """One line on stderr, whatever a file is called."""
    line = "captionlib: " + _one_line(message)
    if sys.stderr is not None:
        print(
            line.encode(errors="backslashreplace").decode(errors="replace"),
            file=sys.stderr,
        )


def print_line(text: str) -> None:
    """One line on stdout, as this terminal's encoding can show it."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    line = _one_line(text).encode(encoding, errors="backslashreplace")
    print(line.decode(encoding), flush=True)


def _one_line(text: str) -> str:
    """`text` with what would break the line, or command a terminal, written
    out: \\n, \\x1b."""
    return "".join(
        c.encode("unicode_escape").decode()
        if category(c) in ("Cc", "Zl", "Zp")
        else c
        for c in text
    )


def shows_progress() -> bool:
    """Whether long work shows its progress: only to a person at a terminal."""
    return sys.stderr is not None and sys.stderr.isatty()
