"""Read Karpathy's JSON files of captions and splits, and check every entry.

Chapter 01 reads the same files with `json.loads`.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from captionlib.io.files import InputError
from captionlib.io.sources.records import (
    SPLITS,
    Entry,
    ImageFolder,
    Record,
    collect,
    image_name,
)
from captionlib.io.sources.text import parse_json, read_text
from captionlib.io.words import read_words

__all__ = [
    "SPLITS",
    "KeepTokens",
    "Record",
    "listed_images",
    "read_entries",
    "read_karpathy",
]

NO_TOKENS = "has no tokens; give it words or leave it out"
CURE = (
    "give Karpathy's JSON, such as dataset_flickr8k.json, COCO's captions or a "
    "CSV file of files and captions"
)


def read_karpathy(
    karpathy_json: str | Path,
    images: str | Path,
    splits=None,
    *,
    skipped: list[str] | None = None,
) -> list[Record]:
    """Every image that the JSON lists, in order; each file must exist.

    Args:
        karpathy_json: a JSON file in Karpathy's format.
        images: the folder that its file names start from; for COCO, the one
            that holds `train2014` and `val2014`.
        splits: which to return, such as "test" or ("val", "test"); None for
            all.
        skipped: a list to which a line is added for each bad image or caption
            that is left out; with None, a bad one is an error.

    Raises:
        InputError: if the file is not in Karpathy's format, the folder is
            missing, or no image is left. `BadItem` if an image or caption is
            bad and `skipped` is None.
    """
    path, folder = Path(karpathy_json), ImageFolder(images)
    data = parse_json(path, read_text(path), KeepTokens())
    dataset, entries = read_entries(path, data, folder)
    return collect(path, dataset, folder, entries, splits, skipped)


def listed_images(karpathy_json: str | Path) -> list[str]:
    """The names of all images that the JSON lists; the files need not exist.

    Raises:
        InputError: if the file is not in Karpathy's format, or a name leaves
            the image folder.
    """
    path = Path(karpathy_json)
    data = parse_json(path, read_text(path), KeepTokens())
    _, images = _contents(path, data)
    for number, image in enumerate(images):
        _split(path, number, image)  # raises if the entry is malformed
    return [_name(path, image) for image in images]


def read_entries(
    path: Path, data, folder: ImageFolder
) -> tuple[str, list[Entry | InputError]]:
    """The data set's name and its images; an error stands for a malformed one.

    Args:
        data: the value of the JSON, read with `KeepTokens`.
    """
    dataset, images = _contents(path, data)
    entries: list[Entry | InputError] = []
    for number, image in enumerate(images):
        try:
            split = _split(path, number, image)
        except InputError as error:
            entries.append(error)
            continue
        try:
            name = folder.spelling(_name(path, image))
        except InputError as error:
            fault = Entry(path, image["filename"], split, faults=[str(error)])
            entries.append(fault)
            continue
        entry = Entry(path, name, split)
        for n, words in enumerate(image["sentences"]):
            if isinstance(words, tuple):
                entry.captions.append(words)
            else:
                wrong = words if isinstance(words, ValueError) else NO_TOKENS
                entry.faults.append(f"{entry.place}: caption {n} {wrong}")
        entries.append(entry)
    return dataset, entries


class KeepTokens:
    """Keep only each sentence's tokens, and one copy of each word, to save
    memory.

    COCO has seven million tokens."""

    def __init__(self):
        self.known: dict[str, str] = {}

    def __call__(self, value: dict):
        tokens = value.get("tokens")
        if not isinstance(tokens, list):
            return value
        try:
            return read_words(tokens, self.known)
        except ValueError as error:
            return error  # `read_entries` says where it is


def _contents(path: Path, data) -> tuple[str, list]:
    if not isinstance(data, dict):
        kind = type(data).__name__
        raise InputError(
            f"{path}: is not Karpathy's format (it holds a {kind}); {CURE}"
        )
    for key, kind in (("dataset", str), ("images", list)):
        if not isinstance(data.get(key), kind):
            wrong = f'is not Karpathy\'s format (no "{key}" {kind.__name__})'
            raise InputError(f"{path}: {wrong}; {CURE}")
    name = data["dataset"]
    if not re.fullmatch(r"\w[\w.-]*", name) or len(os.fsencode(name)) > 160:
        raise InputError(
            f'{path}: "dataset" becomes part of file names; use a few letters '
            "and digits"
        )
    if not data["images"]:
        raise InputError(f'{path}: "images" is empty; {CURE}')
    return name, data["images"]


def _split(path: Path, number: int, image) -> str:
    """An image's split; raises `InputError` unless it has what it needs."""
    if not isinstance(image, dict):
        raise InputError(f"{path}: image {number} is not an object; {CURE}")
    for key, kind in (("filename", str), ("split", str), ("sentences", list)):
        if not isinstance(image.get(key), kind):
            raise InputError(
                f'{path}: image {number} has no "{key}" {kind.__name__}; {CURE}'
            )
    if image["split"] not in SPLITS:
        raise InputError(
            f"{path}: image {image['filename']!r} has the unknown split "
            f"{image['split']!r}; use {', '.join(SPLITS)}"
        )
    return SPLITS[image["split"]]


def _name(path: Path, image: dict) -> str:
    place, folder = (
        f"{path}: image {image['filename']!r}",
        image.get("filepath", ""),
    )
    if not isinstance(folder, str) or not image["filename"]:
        raise InputError(f'{place}: "filepath" or "filename" is wrong; {CURE}')
    return image_name(place, image["filename"], folder)
