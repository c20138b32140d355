"""A captioner's folder on disk: weights in safetensors, the rest in JSON."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path

import torch
from safetensors.torch import load_file, save
from torch import Tensor

from captionlib.data import Vocabulary
from captionlib.io.files import InputError, atomic_folder, write_json
from captionlib.io.int8 import dequantise, quantise
from captionlib.io.versions import versions

__all__ = [
    "NUMBERS",
    "TRAINED_ON",
    "Stored",
    "read_weights",
    "under",
    "written",
]

NUMBERS = ("float32", "float16", "int8")
TRAINED_ON = "trained_on.safetensors"
SCALE = ".int8_scale"


class Stored(ABC):
    """What can be written to a folder: one captioner, or several.

    Attributes:
        vocabulary: its words.
        search: settings of `DecodingConfig` that go with it.
        metrics: its scores, with data set, split and seed.
        trained_on: a number for each image of its training, from
            `io.identity.of_pixels`; empty if they are not known.
    """

    vocabulary: Vocabulary
    search: dict
    metrics: dict
    trained_on: set[int]

    @abstractmethod
    def describe(self) -> dict:
        """What config.json says of its kind and shape."""

    @abstractmethod
    def weights(self) -> dict[str, Tensor]:
        """The tensors to store. Those of an encoder are left out if they come
        unchanged from an installed package."""

    def save(self, folder: str | Path, numbers: str = "float32") -> None:
        """Write it to `folder`, whole or not at all.

        Args:
            folder: replaced if it holds a captioner already.
            numbers: one of `NUMBERS`, how weights are stored. `load` returns
                float32. With int8, matrices and filters are rounded, one scale
                per output channel; biases and the like stay float32.

        Raises:
            InputError: if the folder holds other files.
        """
        folder = Path(folder)
        if folder.is_dir() and any(folder.iterdir()):
            if not (folder / "config.json").is_file():
                raise InputError(
                    f"{folder}: holds other files and no captioner; name a new "
                    "folder"
                )
        with atomic_folder(folder) as temporary:
            self.write_files(temporary, numbers)

    def write_files(self, folder: Path, numbers: str = "float32") -> None:
        """Write the files of `save` to an existing folder, one by one."""
        config = {
            "format": 1,
            **self.describe(),
            "search": self.search,
            "metrics": self.metrics,
            "versions": versions(),
        }
        _write(folder / "model.safetensors", _round(self.weights(), numbers))
        write_json(folder / "config.json", config, indent=1)
        self.vocabulary.save(folder / "vocabulary.json")
        if self.trained_on:
            images = torch.tensor(sorted(self.trained_on))
            _write(folder / TRAINED_ON, {"images": images})


def _write(file: Path, tensors: dict[str, Tensor]) -> None:
    # safetensors' save_file makes files that only their owner can read.
    file.write_bytes(save({k: v.contiguous() for k, v in tensors.items()}))


def _round(weights: dict[str, Tensor], numbers: str) -> dict[str, Tensor]:
    """The tensors of a file that stores `weights` as `numbers`."""
    if numbers not in NUMBERS:
        raise ValueError(f"numbers must be one of {NUMBERS}, got {numbers!r}")
    rounded = {}
    for name, tensor in weights.items():
        if (
            numbers == "int8"
            and tensor.is_floating_point()
            and tensor.dim() > 1
        ):
            rounded[name], rounded[name + SCALE] = quantise(tensor)
        elif numbers == "float16" and tensor.is_floating_point():
            rounded[name] = tensor.half()
        else:
            rounded[name] = tensor
    return rounded


def read_weights(file: Path) -> dict[str, Tensor]:
    """The tensors in a file, int8 ones as float32."""
    tensors = load_file(file)
    return {
        name: dequantise(tensor, tensors[name + SCALE])
        if name + SCALE in tensors
        else tensor
        for name, tensor in tensors.items()
        if not name.endswith(SCALE)
    }


def under(prefix: str, weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors whose names start with `prefix`, by the rest of the name."""
    return {
        name.removeprefix(prefix): tensor
        for name, tensor in weights.items()
        if name.startswith(prefix)
    }


def written(folder: Path) -> tuple | None:
    """What changes if a folder is replaced; None while it is gone."""
    try:
        about = folder.stat()
    except FileNotFoundError:
        return None
    return about.st_ino, about.st_mtime_ns
