"""What data, caches and checkpoints were made of, told by their contents.

An identity is a flat dict: digests of contents, and settings by their names.
Times and places of files are no part of it, for copying changes them.
`difference` compares two identities, and nothing else does.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

from captionlib.io.files import InputError, read_json, write_json
from captionlib.io.prepared import find_base, image_file
from captionlib.io.sources.records import Record

__all__ = [
    "difference",
    "of_data",
    "of_each_image",
    "of_features",
    "of_images",
    "of_pixels",
    "of_source",
    "of_words",
    "settings_in",
    "short",
    "source_of",
    "write_identity",
]

KIND = "sha256:"  # marks a digest, whose digits would tell a reader nothing


def difference(stored: dict, found: dict) -> str:
    """How two identities differ, as in "other words, min_word_freq 5 and not
    10"; "" if they don't.

    Args:
        stored: of what was made earlier.
        found: of what it should be.
    """
    told = []
    for name in dict.fromkeys([*stored, *found]):
        before, now = stored.get(name), found.get(name)
        if before == now:
            continue
        digests = any(str(value).startswith(KIND) for value in (before, now))
        told.append(
            f"other {name}" if digests else f"{name} {before}, not {now}"
        )
    return ", ".join(told)


def settings_in(identity: dict) -> dict:
    """An identity without its digests."""
    return {
        name: value
        for name, value in identity.items()
        if not str(value).startswith(KIND)
    }


def short(identity: dict) -> str:
    """Eight digits for the name of a file that holds what `identity` tells."""
    return _digest([_as_bytes(identity)]).removeprefix(KIND)[:8]


def of_data(folder: str | Path) -> dict[str, str]:
    """Words, captions and images of a prepared folder, as training reads them.

    Raises:
        InputError: if a file is missing.
    """
    folder, base = Path(folder), find_base(folder)
    references = read_json(folder / f"REFERENCES_{base}.json")
    return {
        "words": of_words(read_json(folder / f"WORDMAP_{base}.json")),
        "training captions": _digest(
            _read(folder / f"TRAIN_{kind}_{base}.json")
            for kind in ("CAPTIONS", "CAPLENS")
        ),
        "validation captions": _of_json(references.get("VAL")),
        "training images": of_images(image_file(folder, "TRAIN")),
        "validation images": of_images(image_file(folder, "VAL")),
    }


def of_images(path: str | Path) -> str:
    """The digest of a prepared file's pixels, in order.

    The same images give the same digest however HDF5 lays them out.
    """
    about = Path(path).stat()
    # The time of the last change can't be set, so a process may rely on it.
    state = about.st_ino, about.st_size, about.st_mtime_ns, about.st_ctime_ns
    return _of_pixels(str(path), state)


def of_each_image(path: str | Path) -> set[int]:
    """What `of_pixels` gives for each image of a prepared file."""
    import h5py  # as in `captionlib.io.prepared`

    with h5py.File(path, "r", locking=False) as file:
        return {of_pixels(image) for image in file["images"]}


def of_pixels(pixels) -> int:
    """A number of 64 bits that tells an image by its pixels.

    Args:
        pixels: (3, 256, 256) uint8, as `read_image` gives them.
    """
    digest = hashlib.sha256(memoryview(pixels)).digest()
    return int.from_bytes(digest[:8], "big", signed=True)


def of_source(records: list[Record]) -> dict[str, str]:
    """Captions and photographs of a data set, before they are prepared."""
    listed = [[r.split, r.filename, r.captions] for r in records]
    return {
        "captions": _of_json([records[0].dataset, listed]),
        "photographs": _digest(_photograph(record.path) for record in records),
    }


def of_features(
    encoder,
    image_file: str | Path,
    *,
    bf16: bool = False,
    mirrored: bool = False,
) -> dict:
    """All that determines cached vectors: network, weights, sizes, precision
    and images."""
    colours = repr((encoder.mean.tolist(), encoder.std.tolist()))

    def weights():
        yield colours.encode()
        for name, tensor in encoder.state_dict().items():
            yield f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode()
            yield tensor.detach().cpu().contiguous().numpy()

    return {
        "backbone": encoder.backbone,
        "grid_size": encoder.grid_size,
        "image_size": encoder.image_size,
        "bf16": bf16,
        "mirrored": mirrored,
        "weights": _digest(weights()),
        "images": of_images(image_file),
    }


def of_words(word_map: dict[str, int]) -> str:
    return _of_json(word_map)


def write_identity(folder: Path, base: str, made_of: dict) -> None:
    """Store what the prepared files in `folder` hold and were made of."""
    identity = {"data": of_data(folder), "made_of": made_of}
    write_json(folder / f"IDENTITY_{base}.json", identity, indent=1)


def source_of(folder: str | Path) -> dict | None:
    """Source and settings of prepared data; None if they aren't known.

    Chapter 01's plain `prepare` and the original tutorial store none, and what
    is stored doesn't count for files that were replaced since.
    """
    path = Path(folder) / f"IDENTITY_{find_base(folder)}.json"
    try:
        made = read_json(path)
        if made["data"] == of_data(folder):
            return dict(made["made_of"])
    except (InputError, KeyError, TypeError, ValueError):
        pass
    return None


@lru_cache(maxsize=64)
def _of_pixels(path: str, state: tuple) -> str:
    import h5py  # as in `captionlib.io.prepared`

    def blocks():
        with h5py.File(path, "r", locking=False) as file:
            images = file["images"]
            per_image = file.attrs.get("captions_per_image")
            yield f"{images.shape} {images.dtype} {per_image}".encode()
            for start in range(0, len(images), 8):
                yield images[start : start + 8]

    try:
        return _digest(blocks())
    except (OSError, KeyError):
        raise InputError(
            f"{path}: is damaged or holds no images; prepare the data again"
        ) from None


def _digest(parts: Iterable) -> str:
    """One digest of bytes or arrays, each told apart from the next."""
    whole = hashlib.sha256()
    for part in parts:
        whole.update(f"{memoryview(part).nbytes}:".encode())
        whole.update(part)
    return KIND + whole.hexdigest()


def _of_json(value) -> str:
    return _digest([_as_bytes(value)])


def _as_bytes(value) -> bytes:
    return json.dumps(value, sort_keys=True).encode()


def _photograph(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:  # whoever decodes it will say so
        return b""


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(
            f"{path}: can't be read ({error.strerror}); check the file"
        ) from None
