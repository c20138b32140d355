"""What every file of captions becomes: one checked record per image."""

from __future__ import annotations

import hashlib
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from captionlib.config.data import SplitConfig
from captionlib.io.files import BadItem, InputError

__all__ = [
    "SPLITS",
    "Entry",
    "ImageFolder",
    "Record",
    "collect",
    "image_name",
    "share_out",
    "shortened",
    "wanted_splits",
]

# `restval` is the rest of COCO's validation images, used for training.
SPLITS = {"train": "TRAIN", "restval": "TRAIN", "val": "VAL", "test": "TEST"}


class Record(NamedTuple):
    """One image of a data set."""

    dataset: str  # as its file names it
    split: str  # TRAIN, VAL or TEST
    filename: str  # relative to the image folder, with "/"
    path: Path
    captions: list[tuple[str, ...]]  # words, in the file's order


@dataclass
class Entry:
    """One image as a file of captions lists it."""

    source: Path  # the file of captions
    name: str  # relative to the image folder, with "/"
    split: str | None = None  # TRAIN, VAL, TEST; None if the file has none
    captions: list[tuple[str, ...]] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)  # of its other captions

    @property
    def place(self) -> str:
        return f"{self.source}: image {self.name!r}"


def wanted_splits(splits) -> set[str]:
    """TRAIN, VAL and TEST for None; else those named, as the set.

    Raises:
        InputError: if a name is unknown.
    """
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


# ------------------------------------------------------------------- the images


def image_name(place: str, name: str, folder: str = "") -> str:
    """`folder`/`name`, which must lie within the image folder.

    Raises:
        InputError: if it leads out of it on any system, or is an address.
    """
    for part in (folder, name):
        if re.match(r"[a-z][a-z0-9+.-]+://|data:", part, re.IGNORECASE):
            said = "is a web address" if "://" in part else "holds an image"
            raise InputError(
                f"{place} {said} where a file is wanted; save the image into "
                "the image folder and give its file name"
            )
        if (
            re.match(r"[/\\]|[A-Za-z]:", part)
            or ".." in re.split(r"[/\\]", part)
            or "\0" in part
        ):
            raise InputError(
                f"{place} lies outside the image folder; name it from that "
                "folder down"
            )
    return Path(folder, name).as_posix()


def shortened(name: str) -> str:
    """A name for a message: as it is in the file, but not by the page."""
    return repr(name if len(name) <= 100 else name[:100] + "…")


class ImageFolder:
    """Finds images by the names that a file of captions gives them."""

    def __init__(self, root: str | Path):
        self.root = Path(root)
        self._there: set[str] = set()
        self._listings: dict[Path, dict[str, str]] = {}

    def check(self) -> None:
        """Raise `InputError` unless the folder is there and holds something."""
        if not self.root.is_dir():
            raise InputError(
                f"{self.root}: no such folder; name the one that holds the "
                "images"
            )
        if next(self.root.iterdir(), None) is None:
            raise InputError(
                f"{self.root}: is empty; name the folder that holds the images"
            )

    def spelling(self, name: str) -> str:
        r"""`name` as the folder spells it, or as it is if no file has it.

        Windows separates folders by `\`, and macOS decomposes letters, so
        both are tried where the exact name leads nowhere. Links are followed:
        whoever put them there could have put the image there.
        """
        for spelt in dict.fromkeys((name, name.replace("\\", "/"))):
            if self.has(spelt):
                return Path(spelt).as_posix()
            if not spelt.isascii():
                other = self._in_other_form(spelt)
                if other is not None:
                    return other
        return name

    def has(self, name: str) -> bool:
        if name not in self._there and os.path.isfile(self.root / name):
            self._there.add(name)
        return name in self._there

    def missing(self, name: str, source: Path) -> str:
        """Why `name` is no image, and the cure."""
        path = self.root / name
        if len(name) > 300:
            return (
                f"{source}: lists the image {shortened(name)}, a name of "
                f"{len(name)} letters; mend it or leave it out"
            )
        if os.path.islink(path) and not os.path.exists(path):
            return (
                f"{path}: is a link to a file that is gone; fetch that file or "
                "leave the image out"
            )
        near = [
            other
            for other in self._listing(path.parent).values()
            if other.casefold() == path.name.casefold() and other != path.name
        ]
        cure = (
            f"name {near[0]!r}, which is there"
            if near
            else "fetch it or leave it out"
        )
        return f"{path}: no such image, though {source} lists it; {cure}"

    def _in_other_form(self, name: str) -> str | None:
        """The same letters, composed or decomposed otherwise."""
        found = Path()
        for part in Path(name).parts:
            composed = unicodedata.normalize("NFC", part)
            listing = self._listing(self.root / found)
            if composed not in listing:
                return None
            found /= listing[composed]
        return found.as_posix() if self.has(str(found)) else None

    def _listing(self, folder: Path) -> dict[str, str]:
        """The names in a folder, by their composed form."""
        if folder not in self._listings:
            try:
                names = sorted(os.listdir(folder))
            except (OSError, ValueError):
                names = []
            self._listings[folder] = {
                unicodedata.normalize("NFC", name): name for name in names
            }
        return self._listings[folder]


# ------------------------------------------------------------------- the splits


def share_out(
    source: Path, entries: list[Entry], shares: SplitConfig
) -> str | None:
    """Give images a split, if none of them has one.

    Images are drawn, not captions: two captions of an image in two splits
    would be a test on training data. A draw depends on an image's name and
    the seed alone, so that more images hardly change it.

    Returns:
        A line that says so; None if the file has splits of its own.

    Raises:
        InputError: if some images have a split and others don't.
    """
    without = [entry for entry in entries if entry.split is None]
    if not without:
        return None
    if len(without) < len(entries):
        raise InputError(
            f"{without[0].place} has no split, though others have one; give "
            "every image a split, or none"
        )

    def draw(entry: Entry) -> bytes:
        name = unicodedata.normalize("NFC", entry.name)
        key = f"{shares.split_seed} {name}".encode("utf-8", "surrogatepass")
        return hashlib.sha256(key).digest()

    val, test = _counts(len(entries), shares)
    for place, entry in enumerate(sorted(entries, key=draw)):
        held_out = "VAL" if place < val else "TEST"
        entry.split = held_out if place < val + test else "TRAIN"
    count = Counter(entry.split for entry in entries)
    return (
        f"{source}: has no splits; drawn by --split-seed {shares.split_seed}: "
        f"{count['TRAIN']} images for train, {count['VAL']} for val, "
        f"{count['TEST']} for test"
    )


def _counts(images: int, shares: SplitConfig) -> tuple[int, int]:
    """Images for validation and test: one at least, of three or more."""
    least = 1 if images >= 3 else 0
    counts, left = [], images - 1  # one image trains
    for share, reserved in ((shares.val_share, least), (shares.test_share, 0)):
        most = left - (reserved if shares.test_share else 0)
        wanted = max(least, round(share * images)) if share else 0
        counts.append(min(wanted, most))
        left -= counts[-1]
    return counts[0], counts[1]


# -------------------------------------------------------------------- the check


def collect(
    source: Path,
    dataset: str,
    folder: ImageFolder,
    entries: Iterable[Entry | InputError],
    splits,
    skipped: list[str] | None,
) -> list[Record]:
    """The images of some splits, in order; each file must exist.

    Args:
        source: the file of captions.
        dataset: its name, which becomes part of file names.
        entries: what it lists; an error stands for an unreadable item.
        splits, skipped: as for `read_data_set`.

    Raises:
        InputError: as `read_data_set`.
    """
    wanted = wanted_splits(splits)
    folder.check()
    records, problems, absent, looked_for = [], [], [], 0
    seen: set[str] = set()
    for entry in entries:
        if isinstance(entry, InputError):
            problems.append(str(entry))
        elif entry.split in wanted:
            looked_for += 1
            if entry.name in seen:
                problems.append(
                    f"{entry.place} is listed twice; list each image once"
                )
            elif not entry.captions:
                nothing = "has no captions; give it one or leave it out"
                problems += entry.faults[:1] or [f"{entry.place} {nothing}"]
            elif not folder.has(entry.name):
                absent.append(entry.name)
                problems.append(folder.missing(entry.name, entry.source))
            else:
                problems += entry.faults
                path = folder.root / entry.name
                records.append(
                    Record(
                        dataset, entry.split, entry.name, path, entry.captions
                    )
                )
            seen.add(entry.name)
    if looked_for and len(absent) == looked_for:
        raise InputError(
            f"{folder.root}: holds none of the {looked_for} images that "
            f"{source} lists, such as {absent[0]}; name the folder that its "
            "file names start from"
        )
    problems = [str(InputError(line)) for line in problems]  # one line each
    if problems and skipped is None:
        more = (
            f" ({len(problems)} problems in all)" if len(problems) > 1 else ""
        )
        raise BadItem(problems[0] + more)
    if not records:
        names = ", ".join(sorted(wanted)).lower()
        raise InputError(
            f"{source}: lists no usable image for {names}; check the file"
        )
    if skipped is not None:
        skipped.extend(problems)
    return records
