"""Checkpoints of a training run, written atomically and restored exactly."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from safetensors.torch import load_file, save
from torch import Tensor

from captionlib.config import EngineConfig
from captionlib.engine.averaging import WeightAverage
from captionlib.io.files import InputError, atomic_folder, read_json, write_json
from captionlib.model import CaptionModel

__all__ = [
    "EpochSoFar",
    "Training",
    "load_checkpoint",
    "read_place",
    "save_checkpoint",
]

FORMAT = 2  # of training.json; version 0.1 wrote none, and other batches


@dataclass
class EpochSoFar:
    """The state of an unfinished epoch: its steps, and the sums for its
    means."""

    steps: int = 0
    tokens: float = 0.0  # of all processes
    # Of each part of the loss, over tokens.
    sums: dict[str, float] = field(default_factory=dict)
    learning_rate: float = 0.0  # of the last step
    seconds: float = 0.0


@dataclass
class Training:
    """All that changes during training, and so all that a checkpoint holds."""

    model: CaptionModel
    optimizer: torch.optim.Optimizer
    config: EngineConfig
    average: WeightAverage | None = None
    # One dict per finished epoch.
    history: list[dict] = field(default_factory=list)
    # The unfinished epoch.
    so_far: EpochSoFar = field(default_factory=EpochSoFar)


def save_checkpoint(folder: Path, training: Training) -> None:
    """Write a model and all that resuming its training takes, atomically."""
    moments = {
        f"{index}.{name}": value
        for index, state in training.optimizer.state_dict()["state"].items()
        for name, value in state.items()
    }
    place = {
        "format": FORMAT,
        "config": asdict(training.config),
        "history": training.history,
        "so_far": asdict(training.so_far),
    }
    with atomic_folder(folder) as temporary:
        training.model.write_files(temporary)
        (temporary / "optimizer.safetensors").write_bytes(save(moments))
        if training.average is not None:
            (temporary / "average.safetensors").write_bytes(
                save(training.average.state())
            )
        write_json(temporary / "training.json", place)


def read_place(folder: Path) -> dict:
    """Settings, history and position of the checkpoint in `folder`.

    Raises:
        InputError: if it is damaged, or another version's: batches and random numbers of
            version 0.1 were others, so going on would not be exact.
    """
    place = read_json(folder / "training.json")
    found = place.get("format") if isinstance(place, dict) else None
    if found != FORMAT:
        version = "version 0.1" if found is None else "a newer version"
        raise InputError(
            f"{folder}: is a training of {version} of captionlib, which this one can't resume; "
            "train into another folder"
        )
    return place


def load_checkpoint(folder: Path, training: Training) -> None:
    """Restore `training` from a checkpoint.

    Raises:
        InputError: if it is damaged, another version's, or belongs to other settings.
    """
    model, optimizer = training.model, training.optimizer
    stored = read_place(folder)
    for name, value in asdict(training.config).items():
        if stored["config"].get(name) != value:
            raise InputError(
                f"{folder}: was trained with "
                f"{name}={stored['config'].get(name)}, not {value}; resume "
                "with the same settings or train into another folder"
            )
    saved = CaptionModel.load(folder)
    if (
        saved.config != model.config
        or saved.vocabulary.word_map != model.vocabulary.word_map
    ):
        raise InputError(
            f"{folder}: holds a model of another shape or vocabulary; resume "
            "with the same model and data or train into another folder"
        )
    model.load_state_dict(saved.state_dict())
    model.metrics = saved.metrics
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in load_file(folder / "optimizer.safetensors").items():
        index, name = key.split(".")
        state.setdefault(int(index), {})[name] = value
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": state, "param_groups": groups})
    if training.average is not None:
        training.average.load_state(load_file(folder / "average.safetensors"))
    training.history = stored["history"]
    training.so_far = EpochSoFar(**stored["so_far"])
