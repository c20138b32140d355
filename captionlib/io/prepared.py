"""What the files of a prepared data set must look like, checked before they are
used.

Written by hand: chapter 01 writes these files and says what is in them.
"""

from __future__ import annotations

from pathlib import Path

from captionlib.io.files import InputError
from captionlib.io.images import IMAGE_SIZE

__all__ = ["END", "PAD", "START", "UNK", "check_word_map", "count_images"]

PAD, UNK, START, END = "<pad>", "<unk>", "<start>", "<end>"


def check_word_map(word_map, name: str | Path = "the word map") -> dict:
    """Return `word_map`, or raise an `InputError` that calls it `name`.

    A word map is a dict of words to ids: `<pad>` is 0, the others follow
    without a gap, and all four special tokens are there.
    """
    try:
        complete = {UNK, START, END} <= word_map.keys()
        in_order = sorted(word_map.values()) == list(range(len(word_map)))
        good = complete and in_order and word_map.get(PAD) == 0
    except (AttributeError, TypeError):  # no dict, or ids that are no numbers
        good = False
    if not good:
        raise InputError(f"{name}: is not a word map; prepare the data again")
    return word_map


def count_images(path: str | Path) -> tuple[int, int]:
    """How many images an HDF5 file holds, and how many captions each of them
    has.

    Raises:
        InputError: if it doesn't hold images of (3, 256, 256) uint8.
    """
    # Here, so that a process that only decodes images need not load it.
    import h5py

    try:
        with h5py.File(path, "r", locking=False) as file:
            captions_per_image = int(file.attrs["captions_per_image"])
            shape, dtype = file["images"].shape, file["images"].dtype
    except (OSError, KeyError):
        raise InputError(
            f"{path}: holds no prepared images; prepare the data again"
        ) from None
    if shape[1:] != (3, IMAGE_SIZE, IMAGE_SIZE) or dtype != "uint8":
        raise InputError(
            f"{path}: holds {dtype} {shape}; prepare the data again"
        )
    return shape[0], captions_per_image
