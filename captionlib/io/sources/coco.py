"""Captions from COCO's own JSON: images here, annotations there."""

from __future__ import annotations

from pathlib import Path

from captionlib.io.files import InputError
from captionlib.io.sources.records import Entry, ImageFolder, image_name
from captionlib.io.sources.sentences import split_caption
from captionlib.io.sources.table import split_named

__all__ = ["is_coco", "read_coco"]

CURE = "give a file such as COCO's captions_train2017.json"


def is_coco(data) -> bool:
    """Whether a JSON value has COCO's shape."""
    return isinstance(data, dict) and "images" in data and "annotations" in data


def read_coco(
    path: Path, data: dict, folder: ImageFolder, split: str | None = None
) -> list[Entry | InputError]:
    """The images of a file in COCO's format, in order.

    Their files are in `folder` or, as COCO ships them, in its sub-folder that
    the JSON's name ends with: `train2017` for `captions_train2017.json`.

    Args:
        split: of all images; None if each may have a "split".

    Raises:
        InputError: if the file holds no captions, but boxes, for instance.
    """
    for key in ("images", "annotations"):
        if not isinstance(data[key], list) or not data[key]:
            raise InputError(
                f"{path}: {key!r} is not a list, or is empty; {CURE}"
            )
    if not any(
        isinstance(each, dict) and "caption" in each
        for each in data["annotations"]
    ):
        raise InputError(f"{path}: its annotations have no captions; {CURE}")
    found, errors = _images(path, data["images"], folder, split)
    errors += _add_captions(path, data["annotations"], found)
    return [*errors, *found.values()]


def _images(
    path: Path, images: list, folder: ImageFolder, split: str | None
) -> tuple[dict[str, Entry], list[InputError]]:
    """Images by their ids."""
    found: dict[str, Entry] = {}
    errors: list[InputError] = []
    inside = path.stem.rpartition("_")[2]
    for number, image in enumerate(images):
        place = f"{path}: image {number}"
        try:
            key = _key(image, "id", place)
            if not isinstance(image.get("file_name"), str):
                raise InputError(
                    f'{place} has no "file_name" that is text; {CURE}'
                )
            if key in found:
                raise InputError(
                    f"{place} has the same id as another, {key}; give each "
                    "its own"
                )
            place = f"{path}: image {image['file_name']!r}"
            name = image_name(place, image["file_name"])
            deeper = image_name(place, name, inside) if inside else name
            if folder.has(folder.spelling(deeper)):
                name = deeper
            own = image.get("split")
            if own is not None and split is None:
                own = split_named(place, str(own))
            found[key] = Entry(path, folder.spelling(name), split or own)
        except InputError as error:
            errors.append(error)
    return found, errors


def _add_captions(
    path: Path, annotations: list, found: dict[str, Entry]
) -> list[InputError]:
    errors: list[InputError] = []
    words: dict[str, str] = {}
    for number, annotation in enumerate(annotations):
        place = f"{path}: annotation {number}"
        try:
            key = _key(annotation, "image_id", place)
            if key not in found:
                raise InputError(
                    f"{place} is about an image that isn't listed, {key}; list "
                    "it or leave the annotation out"
                )
            if not isinstance(annotation.get("caption"), str):
                raise InputError(
                    f'{place} has no "caption" that is text; {CURE}'
                )
        except InputError as error:
            errors.append(error)
            continue
        entry = found[key]
        try:
            entry.captions.append(split_caption(annotation["caption"], words))
        except ValueError as error:
            entry.faults.append(f"{place}: the caption {error}")
    return errors


def _key(item, name: str, place: str) -> str:
    """An id as text: 7, "7" and 7.0 are one image."""
    value = item.get(name) if isinstance(item, dict) else None
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise InputError(f'{place} has no "{name}"; {CURE}')
    return str(value)
