"""Errors of stored models that say what is wrong, and where.

Written by hand: the chapters use these so that their own cells can stay about
captioning.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from captionlib.io.files import InputError

__all__ = ["naming", "usable"]


@contextmanager
def naming(path: str | Path) -> Iterator[None]:
    """An `InputError` of the block names `path`, if it doesn't already."""
    try:
        yield
    except InputError as error:
        where = "" if str(path) in str(error) else f"{path}: "
        raise InputError(f"{where}{error}") from None


@contextmanager
def usable(what: str) -> Iterator[None]:
    """Settings that the block refuses are an `InputError` about `what`."""
    try:
        yield
    except (TypeError, ValueError) as error:
        raise InputError(f"{what} can't be used ({error})") from None
