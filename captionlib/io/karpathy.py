"""Read Karpathy's JSON files of captions and splits, and check every entry.

Chapter 01 reads the same files with `json.loads`.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import NamedTuple

from captionlib.io.files import BadItem, InputError, read_json
from captionlib.io.words import read_words

__all__ = ["SPLITS", "Record", "listed_images", "read_karpathy"]

# `restval` is the rest of COCO's validation images, used for training.
SPLITS = {"train": "TRAIN", "restval": "TRAIN", "val": "VAL", "test": "TEST"}
NO_TOKENS = "has no tokens; give it words or leave it out"
CURE = "give Karpathy's dataset_flickr8k.json, dataset_flickr30k.json or dataset_coco.json"


class Record(NamedTuple):
    """One image of a data set."""

    dataset: str  # as the JSON names it
    split: str  # TRAIN, VAL or TEST
    filename: str  # relative to the image folder, with "/"
    path: Path
    captions: list[tuple[str, ...]]  # tokens, as in the JSON


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
    json_path, root = Path(karpathy_json), Path(images)
    dataset, entries = _entries(json_path)
    wanted = _wanted(splits)
    if not root.is_dir():
        raise InputError(
            f"{root}: no such folder; name the one that holds the images"
        )
    if next(root.iterdir(), None) is None:
        raise InputError(
            f"{root}: is empty; name the folder that holds the images"
        )

    reader = _Reader(json_path, root, dataset)
    records, problems, looked_for = [], [], 0
    for number, entry in enumerate(entries):
        try:
            split = reader.split(number, entry)
            if split in wanted:
                looked_for += 1
                records.append(reader.record(number, entry, split, problems))
        except InputError as error:
            problems.append(str(error))
    if looked_for and reader.missing == looked_for:
        raise InputError(
            f"{root}: holds none of the {looked_for} images that {json_path} "
            f"lists, such as {reader.first_missing}; name the folder that its "
            "file names start from"
        )
    if problems and skipped is None:
        more = (
            f" ({len(problems)} problems in all)" if len(problems) > 1 else ""
        )
        raise BadItem(problems[0] + more)
    if not records:
        names = ", ".join(sorted(wanted)).lower()
        raise InputError(
            f"{json_path}: lists no usable image for {names}; check the file"
        )
    if skipped is not None:
        skipped.extend(problems)
    return records


def listed_images(karpathy_json: str | Path) -> list[str]:
    """The names of all images that the JSON lists; the files need not exist.

    Raises:
        InputError: if the file is not in Karpathy's format, or a name leaves
            the image folder.
    """
    dataset, entries = _entries(Path(karpathy_json))
    reader = _Reader(Path(karpathy_json), Path(), dataset)
    for number, entry in enumerate(entries):
        reader.split(number, entry)  # raises if the entry is malformed
    return [reader.filename(entry) for entry in entries]


def _wanted(splits) -> set[str]:
    if splits is None:
        return set(SPLITS.values())
    wanted = set()
    for name in [splits] if isinstance(splits, str) else splits:
        if str(name).lower() not in SPLITS:
            raise InputError(
                f"unknown split {name!r}; expected train, val or test"
            )
        wanted.add(SPLITS[str(name).lower()])
    return wanted


def _entries(path: Path) -> tuple[str, list]:
    data = read_json(path, object_hook=_Tokens())
    if not isinstance(data, dict):
        kind = type(data).__name__
        raise InputError(
            f"{path}: is not Karpathy's format (it holds a {kind}); {CURE}"
        )
    for key, kind in (("dataset", str), ("images", list)):
        if not isinstance(data.get(key), kind):
            wrong = f'is not Karpathy\'s format (no "{key}" {kind.__name__})'
            raise InputError(f"{path}: {wrong}; {CURE}")
    if not re.fullmatch(r"\w[\w.-]*", data["dataset"]):
        raise InputError(
            f'{path}: "dataset" becomes part of file names; use letters and digits'
        )
    if not data["images"]:
        raise InputError(f'{path}: "images" is empty; {CURE}')
    return data["dataset"], data["images"]


class _Tokens:
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
            return error  # `_Reader` says where it is


class _Reader:
    """Checks entries one by one and remembers the files it has seen."""

    def __init__(self, json_path: Path, root: Path, dataset: str):
        self.json_path, self.root, self.dataset = json_path, root, dataset
        self.real_root = os.path.realpath(root)
        self.seen: set[str] = set()
        self.missing, self.first_missing = 0, ""

    def split(self, number: int, entry) -> str:
        if not isinstance(entry, dict):
            raise InputError(
                f"{self.json_path}: image {number} is not an object; {CURE}"
            )
        for key, kind in (
            ("filename", str),
            ("split", str),
            ("sentences", list),
        ):
            if not isinstance(entry.get(key), kind):
                raise InputError(
                    f'{self.json_path}: image {number} has no "{key}" {kind.__name__}; {CURE}'
                )
        if entry["split"] not in SPLITS:
            raise InputError(
                f"{self._place(entry)} has the unknown split "
                f"{entry['split']!r}; use {', '.join(SPLITS)}"
            )
        return SPLITS[entry["split"]]

    def record(
        self, number: int, entry: dict, split: str, problems: list[str]
    ) -> Record:
        filename = self.filename(entry)
        if filename in self.seen:
            raise InputError(
                f"{self._place(entry)} is listed twice; list each image once"
            )
        self.seen.add(filename)
        path = self.root / filename
        if not path.is_file():
            if not self.missing:
                self.first_missing = filename
            self.missing += 1
            raise InputError(
                f"{path}: no such image, though {self.json_path} lists it; "
                "fetch it or leave it out"
            )
        if not os.path.realpath(path).startswith(
            os.path.join(self.real_root, "")
        ):
            raise InputError(
                f"{path}: is a link out of the image folder; put the image "
                "itself there"
            )
        return Record(
            self.dataset, split, filename, path, self._captions(entry, problems)
        )

    def filename(self, entry: dict) -> str:
        folder = entry.get("filepath", "")
        if not isinstance(folder, str) or not entry["filename"]:
            raise InputError(
                f'{self._place(entry)}: "filepath" or "filename" is wrong; {CURE}'
            )
        name = f"{folder}/{entry['filename']}" if folder else entry["filename"]
        absolute = any(
            Path(p).is_absolute() or Path(p).drive
            for p in (name, entry["filename"])
        )
        if absolute or ".." in re.split(r"[/\\]", name) or "\0" in name:
            raise InputError(
                f"{self._place(entry)} lies outside the image folder; name it "
                "from that folder down"
            )
        return Path(name).as_posix()

    def _captions(
        self, entry: dict, problems: list[str]
    ) -> list[tuple[str, ...]]:
        good, errors = [], []
        for n, words in enumerate(entry["sentences"]):
            if isinstance(words, tuple):
                good.append(words)
            else:
                wrong = words if isinstance(words, ValueError) else NO_TOKENS
                errors.append(f"{self._place(entry)}: caption {n} {wrong}")
        if not good:
            nothing = f"{self._place(entry)} has no captions; give it one or leave it out"
            raise InputError(errors[0] if errors else nothing)
        problems.extend(errors)
        return good

    def _place(self, entry: dict) -> str:
        return f"{self.json_path}: image {entry['filename']!r}"
