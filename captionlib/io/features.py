"""The feature cache: annotation vectors on disk, with the identity of their
origin.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py
import numpy as np

from captionlib.io.files import InputError, atomic_file, require_free_space

__all__ = ["Features", "new_features"]


class Features:
    """Annotation vectors on disk, one grid per image, as `cache_features`
    writes them.

    Only the header is read at first. Each process opens the file for itself, so
    a `Features` can be passed to the workers of a `DataLoader`, forked or
    spawned. A process that finds another cache in its place stops.

    Args:
        path: the HDF5 file.

    Attributes:
        shape: (I, P, D) images, grid cells, channels.
        grid: (height, width) of the grid; P = height * width.
        nbytes: the size of all vectors, at two bytes per number.
        fingerprint: the identity of what the vectors were computed from; see
            `captionlib.io.identity.of_features`.

    Raises:
        InputError: if the file is missing or is not a feature cache.
    """

    def __init__(self, path: str | Path):
        self.path, self._file, self._process = Path(path), None, None
        try:
            with h5py.File(self.path, "r", locking=False) as file:
                self.shape = file["features"].shape
                self.grid = tuple(int(side) for side in file.attrs["grid"])
                self.fingerprint = _fingerprint(file)
        except FileNotFoundError:
            raise InputError(
                f"{self.path}: no such file; write it with cache_features"
            ) from None
        except (OSError, KeyError, ValueError):
            raise InputError(
                f"{self.path}: is not a feature cache; name another file or "
                "delete this one"
            ) from None
        self.nbytes = 2 * math.prod(self.shape)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, i: int) -> np.ndarray:
        """The (P, D) float16 vectors of image `i`; a slice gives (n, P, D)."""
        if isinstance(i, int) and not -len(self) <= i < len(self):
            raise IndexError(i)
        # Not opened yet, or opened by the process this one was forked from.
        if self._process != os.getpid():
            self._file = h5py.File(self.path, "r", locking=False)
            if _fingerprint(self._file) != self.fingerprint:
                raise InputError(
                    f"{self.path}: was replaced while it was in use; run again"
                )
            self._process = os.getpid()
        return self._file["features"][i]

    def __getstate__(self) -> dict:
        return self.__dict__ | {"_file": None, "_process": None}


def _fingerprint(file: h5py.File) -> dict:
    return json.loads(file.attrs["fingerprint"])


@contextmanager
def new_features(
    path: str | Path, shape: tuple[int, int, int, int], expected: dict
) -> Iterator[h5py.Dataset]:
    """Yield an empty (I, P, D) float16 dataset.

    The file appears only if the block succeeds.

    Args:
        path: the HDF5 file.
        shape: (I, height, width, D).
        expected: the identity to store.

    Raises:
        InputError: if the disk lacks room, before anything is written.
    """
    images, height, width, channels = shape
    require_free_space(Path(path).parent, 2 * math.prod(shape) + 2**20)
    with atomic_file(path) as temporary, h5py.File(temporary, "w") as file:
        file.attrs["grid"], file.attrs["fingerprint"] = (
            (height, width),
            json.dumps(expected),
        )
        yield file.create_dataset(
            "features", (images, height * width, channels), "float16"
        )
