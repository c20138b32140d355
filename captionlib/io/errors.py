"""Turn errors in stored models into one line that names the file."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from captionlib.io.files import InputError

__all__ = ["naming", "usable"]


@contextmanager
def naming(path: str | Path) -> Iterator[None]:
    """Make an `InputError` raised in the block name `path`."""
    try:
        yield
    except InputError as error:
        where = "" if str(path) in str(error) else f"{path}: "
        raise InputError(f"{where}{error}") from None


@contextmanager
def usable(what: str) -> Iterator[None]:
    """Turn a setting that the block rejects into an `InputError` about
    `what`."""
    try:
        yield
    except (TypeError, ValueError) as error:
        raise InputError(f"{what} can't be used ({error})") from None
