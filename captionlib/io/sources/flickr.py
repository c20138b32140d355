"""Captions from Flickr8k's and Flickr30k's token files.

A line is `name.jpg#0<TAB>caption`. Flickr8k's lists of splits lie beside it:
`Flickr_8k.trainImages.txt`, `Flickr_8k.devImages.txt` and
`Flickr_8k.testImages.txt`, one name a line.
"""

from __future__ import annotations

import re
from pathlib import Path

from captionlib.io.files import InputError
from captionlib.io.sources.records import Entry, ImageFolder, image_name
from captionlib.io.sources.sentences import split_caption
from captionlib.io.sources.text import lines_of, read_text

__all__ = ["is_token_file", "read_token_file"]

LISTS = {"trainimages": "TRAIN", "devimages": "VAL", "testimages": "TEST"}
LINE = re.compile(r"\s*([^\t]+?)#(\d+)\t(.*)")


def is_token_file(text: str) -> bool:
    """Whether the first line is one of a token file."""
    return LINE.match(next(lines_of(text))[1]) is not None


def read_token_file(
    path: Path, text: str, folder: ImageFolder
) -> tuple[list[Entry | InputError], str | None]:
    """The images of a token file, in order, and a line about those left out.

    With lists of splits beside it, an image on none of them is left out.

    Raises:
        InputError: if some of the lists are missing, or share an image.
    """
    found: dict[str, Entry] = {}
    errors: list[InputError] = []
    words: dict[str, str] = {}
    known: set[tuple[str, str]] = set()
    for number, line in lines_of(text):
        place = f"{path}: line {number}"
        match = LINE.fullmatch(line)
        try:
            if match is None:
                raise InputError(
                    f"{place}: is not of the form name.jpg#0, a tab, a "
                    "caption; mend it or leave it out"
                )
            spelt, count, caption = match.groups()
            if (spelt, count) in known:
                raise InputError(
                    f"{place}: {spelt}#{count} is there twice; give each "
                    "caption its own number"
                )
            known.add((spelt, count))
            if spelt not in found:
                name = image_name(f"{place}: {spelt!r}", spelt)
                found[spelt] = Entry(path, folder.spelling(name))
        except InputError as error:
            errors.append(error)
            continue
        try:
            found[spelt].captions.append(split_caption(caption, words))
        except ValueError as error:
            found[spelt].faults.append(f"{place}: the caption {error}")
    lists = _lists(path)
    if not lists:
        return [*errors, *found.values()], None
    chosen, lacking = _on_lists(found, lists)
    left_out = len(found) - len(chosen)
    note = (
        f"{path}: images on no list of a split are left out, {left_out} in all"
    )
    return [*errors, *lacking, *chosen], note if left_out else None


def _lists(path: Path) -> dict[str, Path]:
    """The lists of splits beside a token file: all three, or none."""
    lists = {}
    for file in sorted(path.absolute().parent.iterdir()):
        kind = file.stem.lower().rpartition(".")[2]
        if file.suffix.lower() == ".txt" and kind in LISTS:
            if LISTS[kind] in lists:
                raise InputError(
                    f"{file}: is the second list of its kind beside {path}; "
                    "keep one"
                )
            lists[LISTS[kind]] = path.parent / file.name
    if lists and len(lists) < len(LISTS):
        there = ", ".join(file.name for file in lists.values())
        raise InputError(
            f"{path}: of the lists trainImages, devImages and testImages only "
            f"{there} lies beside it; put all three there, or none"
        )
    return lists


def _on_lists(
    found: dict[str, Entry], lists: dict[str, Path]
) -> tuple[list[Entry], list[InputError]]:
    """The images on the lists, in the token file's order, and what is wrong
    with the lists."""
    lacking, listed_in = [], {}
    for split, file in lists.items():
        for number, line in lines_of(read_text(file)):
            name, place = line.strip(), f"{file}: line {number}"
            if listed_in.setdefault(name, (split, file))[0] != split:
                raise InputError(
                    f"{place}: {name} is in {listed_in[name][1].name}, too; "
                    "keep one"
                )
            if name in found:
                found[name].split = split
            else:
                lacking.append(
                    InputError(
                        f"{place}: {name} has no captions; give it one or "
                        "leave it out"
                    )
                )
    return [entry for entry in found.values() if entry.split], lacking
