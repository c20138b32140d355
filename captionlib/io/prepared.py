"""Find the files of a prepared data set, and check them before they are used.

Chapter 01 writes these files and describes them.
"""

from __future__ import annotations

from pathlib import Path

from captionlib.io.files import InputError
from captionlib.io.images import IMAGE_SIZE

__all__ = [
    "END",
    "PAD",
    "START",
    "UNK",
    "check_word_map",
    "count_images",
    "find_base",
    "image_file",
]

PAD, UNK, START, END = "<pad>", "<unk>", "<start>", "<end>"


def check_word_map(word_map, name: str | Path = "the word map") -> dict:
    """Return `word_map`, or raise an `InputError` that calls it `name`.

    A word map is a dict of words to ids. It holds all four special tokens,
    `<pad>` is 0, and the ids have no gaps.
    """
    try:
        complete = {UNK, START, END} <= word_map.keys()
        in_order = sorted(word_map.values()) == list(range(len(word_map)))
        good = complete and in_order and word_map.get(PAD) == 0
    except (AttributeError, TypeError):
        # Not a dict, or ids that are not numbers.
        good = False
    if not good:
        raise InputError(f"{name}: is not a word map; prepare the data again")
    return word_map


def count_images(path: str | Path) -> tuple[int, int]:
    """The number of images in an HDF5 file, and of captions per image.

    Raises:
        InputError: if it doesn't hold images of (3, 256, 256) uint8.
    """
    # Processes that only decode images need not load h5py.
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


def find_base(folder: str | Path) -> str:
    """The `base` in the file names of the data set in a folder.

    Raises:
        InputError: if the folder holds none, or several.
    """
    names = sorted(path.name for path in Path(folder).glob("WORDMAP_*.json"))
    if not names:
        raise InputError(f"{folder}: holds no prepared data; prepare it first")
    if len(names) > 1:
        found = " and ".join(names)
        raise InputError(f"{folder}: holds {found}; give each its own folder")
    return names[0].removeprefix("WORDMAP_").removesuffix(".json")


def image_file(folder: str | Path, split: str) -> Path:
    """The HDF5 file of a split's images; `split` is TRAIN, VAL or TEST.

    Raises:
        InputError: if it is missing.
    """
    path = Path(folder) / f"{split.upper()}_IMAGES_{find_base(folder)}.hdf5"
    if not path.is_file():
        raise InputError(f"{path}: missing; the splits are TRAIN, VAL and TEST")
    return path
