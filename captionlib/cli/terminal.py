"""Terminal output, in lines that no file name can break."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from unicodedata import category

__all__ = ["print_line", "say", "say_skipped", "shows_progress"]


def say(message: str) -> None:
    """Print one line on stderr."""
    line = "captionlib: " + _one_line(message)
    if sys.stderr is not None:
        print(
            line.encode(errors="backslashreplace").decode(errors="replace"),
            file=sys.stderr,
        )


def say_skipped(skipped: Sequence[str]) -> int:
    """Name and count what was left out; return the exit status, 2 if anything
    was."""
    for line in skipped:
        say(f"skipped {line}")
    if not skipped:
        return 0
    say(f"left out {len(skipped)} images or captions in all, as listed above")
    return 2


def print_line(text: str) -> None:
    """Print one line on stdout, in the terminal's encoding."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    line = _one_line(text).encode(encoding, errors="backslashreplace")
    print(line.decode(encoding), flush=True)


def _one_line(text: str) -> str:
    """Escape line breaks and terminal codes, as \\n and \\x1b."""
    return "".join(
        c.encode("unicode_escape").decode()
        if category(c) in ("Cc", "Zl", "Zp")
        else c
        for c in text
    )


def shows_progress() -> bool:
    """Whether to show progress bars: only on a terminal."""
    return sys.stderr is not None and sys.stderr.isatty()
