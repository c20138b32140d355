"""Captions from a CSV or TSV file with the columns file and caption.

One caption a row. A third column, split, is optional. Rows of one file belong
together, wherever they are.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from captionlib.io.files import InputError
from captionlib.io.sources.records import (
    SPLITS,
    Entry,
    ImageFolder,
    image_name,
    shortened,
)
from captionlib.io.sources.sentences import split_caption
from captionlib.io.sources.text import lines_of

__all__ = ["read_table", "split_named"]

# Names of columns, without spaces, digits and punctuation; the first that a
# table has is taken.
COLUMNS = {
    "file": (
        "file filename fname image images imagefile imagename imagefilename img "
        "filepath imagepath imagefilepath path photo photograph picture url "
        "imageurl"
    ).split(),
    "caption": (
        "caption captions text sentence sentences comment description rawcaption"
    ).split(),
    "split": "split set subset partition".split(),
}
OTHER_SPLITS = {
    "training": "train",
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "testing": "test",
}
SEPARATORS = ",;\t|"
QUOTING = ",;"  # the others put captions into the cells as they are
HEADER = "begin with a line of column names, such as file,caption"
IMAGE_ROW = r"[\r\n][^\r\n]+\.(jpe?g|png|gif|webp|bmp|tiff?|heic|avif)\W*{}"


class _Columns(NamedTuple):
    """Where a table has what."""

    separator: str
    width: int
    file: int
    captions: list[int]
    split: int | None


def read_table(
    path: Path, text: str, folder: ImageFolder
) -> tuple[list[Entry | InputError], str | None]:
    """The images of a table, in the order of their first rows, after what is
    wrong with rows that belong to none; and a line about repeated rows.

    Raises:
        InputError: if it has no header or a quotation mark is unbalanced.
    """
    rows = _Rows(path, folder)
    header, columns = _header(path, text)
    for number, cells in _cells(path, text, columns.separator):
        if number > header and any(cell.strip() for cell in cells):
            rows.add(f"{path}: line {number}", cells, columns)
    if not (rows.errors or rows.entries):
        raise InputError(
            f"{path}: has column names and no rows; add one for each caption"
        )
    note = (
        f"{path}: rows that repeat another are left out, {rows.repeated} in all"
    )
    entries = [*rows.errors, *rows.entries.values()]
    return entries, note if rows.repeated else None


class _Rows:
    """Gathers the captions of each image."""

    def __init__(self, path: Path, folder: ImageFolder):
        self.path, self.folder = path, folder
        self.entries: dict[str, Entry] = {}
        self.errors: list[InputError] = []
        self.names: dict[str, str] = {}  # as spelled here: as in the folder
        self.words: dict[str, str] = {}
        self.said: set[tuple[str, str]] = set()
        self.repeated = 0

    def add(self, place: str, cells: list[str], columns: _Columns) -> None:
        try:
            entry = self._entry(place, cells, columns)
        except InputError as error:
            self.errors.append(error)
            return
        texts = [cells[i].strip() for i in columns.captions if i < len(cells)]
        for text in filter(None, texts):
            if (entry.name, text) in self.said:  # a copy, not a second opinion
                self.repeated += 1
                continue
            self.said.add((entry.name, text))
            try:
                entry.captions.append(split_caption(text, self.words))
            except ValueError as error:
                entry.faults.append(f"{place}: the caption {error}")
        if not any(texts):
            entry.faults.append(
                f"{place}: has no caption; give it one or leave it out"
            )

    def _entry(self, place: str, cells: list[str], columns: _Columns) -> Entry:
        """The image that a row is about."""
        if any(cell.strip() for cell in cells[columns.width :]):
            raise InputError(
                f"{place}: has {len(cells)} columns and the header "
                f"{columns.width}; put captions with {columns.separator!r} in "
                "quotation marks"
            )
        cells = cells + [""] * columns.width
        spelt = cells[columns.file].strip()
        if not spelt:
            raise InputError(f"{place}: names no file; name one")
        if spelt not in self.names:
            name = image_name(f"{place}: {shortened(spelt)}", spelt)
            self.names[spelt] = self.folder.spelling(name)
        name, split = self.names[spelt], None
        if columns.split is not None and cells[columns.split].strip():
            split = split_named(place, cells[columns.split])
        entry = self.entries.setdefault(name, Entry(self.path, name, split))
        if entry.split != split:
            raise InputError(
                f"{place}: {name!r} has another split here than in an earlier "
                "row; give all rows of an image the same split"
            )
        return entry


def split_named(place: str, name: str) -> str:
    """TRAIN, VAL or TEST for any usual name of a split."""
    plain = name.strip().lower()
    plain = OTHER_SPLITS.get(plain, plain)
    if plain not in SPLITS:
        raise InputError(
            f"{place}: has the unknown split {shortened(name)}; use "
            f"{', '.join(SPLITS)}"
        )
    return SPLITS[plain]


def _header(path: Path, text: str) -> tuple[int, _Columns]:
    """The number of the line with column names, and what they say."""
    lines = lines_of(text)
    number, line = next(lines)
    if re.fullmatch(r'"?sep=.[,;]*"?', line.strip()):  # as Excel writes
        number, line = next(lines, (number, ""))
    known: list[str] = []
    for separator in SEPARATORS:
        cells = [_unquoted(cell.strip()) for cell in line.split(separator)]
        files, captions, splits = _roles(cells)
        if files and captions:
            for several in (files, splits):
                if len(several) > 1:
                    raise InputError(
                        f"{path}: has several columns called "
                        f"{cells[several[0]]!r}; keep one"
                    )
            split = splits[0] if splits else None
            return number, _Columns(
                separator, len(cells), files[0], captions, split
            )
        known += [cells[i] for i in files + captions]
    if not known:
        raise InputError(f"{path}: has no column names; {HEADER}")
    raise InputError(
        f"{path}: has the column {known[0]!r}, but needs one for files and one "
        f"for captions; {HEADER}"
    )


def _roles(cells: list[str]) -> list[list[int]]:
    """The columns of files, captions and splits, by their names."""
    keys = [re.sub(r"[\W\d_]", "", cell).casefold() for cell in cells]
    found = []
    for names in COLUMNS.values():
        name = next((name for name in names if name in keys), None)
        found.append([i for i, key in enumerate(keys) if key == name])
    return found


def _unquoted(cell: str) -> str:
    """A cell without the quotation marks that spreadsheets put around it."""
    inner = cell[1:-1]
    if len(cell) < 2 or not cell[0] == cell[-1] == '"':
        return cell
    return cell if '"' in inner.replace('""', "") else inner.replace('""', '"')


def _cells(
    path: Path, text: str, separator: str
) -> Iterator[tuple[int, list[str]]]:
    """The number of each row's first line, and its cells."""
    if separator not in QUOTING:
        for number, line in lines_of(text):
            yield number, [_unquoted(c.strip()) for c in line.split(separator)]
        return
    swallowed = re.compile(IMAGE_ROW.format(separator), re.IGNORECASE)
    reader = csv.reader(
        io.StringIO(text, newline=""),
        delimiter=separator,
        skipinitialspace=True,
        strict=True,
    )
    number = 1
    try:
        for cells in reader:
            if any(swallowed.search(cell) for cell in cells):
                raise csv.Error
            yield number, cells
            number = reader.line_num + 1
    except csv.Error as error:
        if "limit" in str(error):  # of a cell, 131,072 characters
            raise InputError(
                f"{path}: line {number}: has a cell of more than "
                f"{csv.field_size_limit():,} characters, as after a quotation "
                "mark that is never closed; mend the row"
            ) from None
        raise InputError(
            f"{path}: line {number}: its quotation marks don't match; close "
            "each, and double those within quotation marks"
        ) from None
