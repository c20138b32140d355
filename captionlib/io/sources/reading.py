"""Read a data set from any file of captions, recognised by its content."""

from __future__ import annotations

import re
from pathlib import Path

from captionlib.config.data import SplitConfig
from captionlib.io.files import InputError
from captionlib.io.karpathy import KeepTokens, read_entries
from captionlib.io.sources.coco import is_coco, read_coco
from captionlib.io.sources.flickr import is_token_file, read_token_file
from captionlib.io.sources.records import (
    Entry,
    ImageFolder,
    Record,
    collect,
    share_out,
)
from captionlib.io.sources.table import read_table
from captionlib.io.sources.text import parse_json, read_text

__all__ = ["read_data_set"]


def read_data_set(
    captions: str | Path,
    images: str | Path,
    splits=None,
    *,
    shares: SplitConfig | None = None,
    skipped: list[str] | None = None,
    notes: list[str] | None = None,
) -> list[Record]:
    """Every image that a file of captions lists, in order; each must exist.

    Args:
        captions: Karpathy's JSON; COCO's, which is read with its twin, so that
            `captions_train2017.json` names the images of train and the
            `captions_val2017.json` beside it those of val; a CSV or TSV file
            with the columns file and caption, and split if it has any; or
            Flickr8k's token file with its lists of splits.
        images: the folder that the file names start from.
        splits: which to return, such as "test" or ("val", "test"); None for
            all.
        shares: how images without splits are shared out.
        skipped: a list to which a line is added for each bad image or caption
            that is left out; with None, a bad one is an error.
        notes: a list to which lines are added that a user should see.

    Raises:
        InputError: if the file is in none of these formats, the folder is
            missing, or no image is left. `BadItem` if an image or caption is
            bad and `skipped` is None.
    """
    path, folder = Path(captions), ImageFolder(images)
    notes = [] if notes is None else notes
    dataset, entries = _read(path, folder, notes)
    listed = [entry for entry in entries if isinstance(entry, Entry)]
    if said := share_out(path, listed, shares or SplitConfig()):
        notes.append(said)
    return collect(path, dataset, folder, entries, splits, skipped)


def _read(
    path: Path, folder: ImageFolder, notes: list[str]
) -> tuple[str, list[Entry | InputError]]:
    """The data set's name and what the file lists."""
    text = read_text(path)
    if path.suffix.lower() == ".json" or text.lstrip()[0] in "{[":
        data = parse_json(path, text, KeepTokens())
        if not is_coco(data):
            return read_entries(path, data, folder)
        return _name(path), _read_coco(path, data, folder, notes)
    read = read_token_file if is_token_file(text) else read_table
    entries, said = read(path, text, folder)
    notes += [said] if said else []
    return _name(path), entries


def _name(path: Path) -> str:
    """A data set's name from that of its file: part of file names."""
    name = re.sub(r"\W+", "_", path.name.partition(".")[0]).strip("_")
    return name[:40] or "captions"


def _read_coco(
    path: Path, data: dict, folder: ImageFolder, notes: list[str]
) -> list[Entry | InputError]:
    """COCO's images; with the file of validation beside that of training,
    both."""
    twin = path.with_name(path.name.replace("train", "val"))
    if twin == path or not twin.is_file():
        return read_coco(path, data, folder)
    notes.append(f"{path}: images for train; {twin.name} beside it: for val")
    other = parse_json(twin, read_text(twin))
    if not is_coco(other):
        raise InputError(
            f"{twin}: is not COCO's format, unlike {path}; move it away"
        )
    return [
        *read_coco(path, data, folder, "TRAIN"),
        *read_coco(twin, other, folder, "VAL"),
    ]
