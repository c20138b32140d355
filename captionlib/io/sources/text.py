"""Read a text file of unknown origin, or say what it is instead."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

from captionlib.io.files import InputError

__all__ = ["lines_of", "parse_json", "read_text"]

# UTF-32 comes first, since its mark begins like that of UTF-16.
MARKS = (
    (b"\xff\xfe\0\0", "UTF-32"),
    (b"\0\0\xfe\xff", "UTF-32"),
    (b"\xff\xfe", "UTF-16"),
    (b"\xfe\xff", "UTF-16"),
)
UTF8_MARK = b"\xef\xbb\xbf"
AS_CSV = "save the sheet as CSV (UTF-8)"
NOT_TEXT = (
    (b"PK\x03\x04", f"is a workbook or a zip archive; {AS_CSV}, or unpack it"),
    (b"\xd0\xcf\x11\xe0", f"is an Excel workbook; {AS_CSV}"),
    (b"\x1f\x8b", "is compressed; unpack it"),
    (b"PAR1", "is a Parquet file; write it as CSV"),
    (b"\xff\xd8\xff", "is an image; name the file of captions"),
    (b"\x89PNG", "is an image; name the file of captions"),
)


def read_text(path: str | Path) -> str:
    """The text of a file in UTF-8, or in UTF-16 or UTF-32 with its mark.

    Raises:
        InputError: if it can't be read, is empty or in another encoding. An
            encoding without a mark can only be guessed, and a wrong guess
            would change words unseen.
    """
    path = Path(path)
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; check the path") from None
    except IsADirectoryError:
        raise InputError(
            f"{path}: is a folder; name the file of captions inside it"
        ) from None
    except PermissionError:
        raise InputError(
            f"{path}: can't be read; change its permissions"
        ) from None
    for start, said in NOT_TEXT:
        if raw.startswith(start):
            raise InputError(f"{path}: {said}")
    text = _decode(path, raw)
    if not text.strip():
        raise InputError(f"{path}: is empty; check that it is the right file")
    return text


def _decode(path: Path, raw: bytes) -> str:
    encoding = next((e for mark, e in MARKS if raw.startswith(mark)), "UTF-8")
    at = len(UTF8_MARK) if raw.startswith(UTF8_MARK) else 0
    try:
        text = raw[at:].decode(encoding)
    except UnicodeDecodeError as error:
        at += error.start
        line = raw.count(b"\n", 0, at) + 1
        raise InputError(
            f"{path}: line {line} is not {encoding} (byte {at}); save the file "
            "as UTF-8"
        ) from None
    if (zero := text.find("\0")) >= 0:
        line = text.count("\n", 0, zero) + 1
        raise InputError(
            f"{path}: line {line} holds a zero byte, as in UTF-16 without its "
            "mark or a damaged file; save the file as UTF-8"
        )
    return text


def parse_json(path: Path, text: str, object_hook=None):
    """The value of a JSON text; `object_hook` is passed to `json.loads`."""
    try:
        return json.loads(text, object_hook=object_hook)
    except (json.JSONDecodeError, RecursionError):
        raise InputError(
            f"{path}: is not JSON; check that it is the right file"
        ) from None


def lines_of(text: str) -> Iterator[tuple[int, str]]:
    """Number and text of each line that isn't blank, for any line ending.

    `str.splitlines` would also break lines at characters within captions.
    """
    for number, line in enumerate(re.split("\r\n|\r|\n", text), 1):
        if line.strip():
            yield number, line
