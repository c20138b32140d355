"""Checkpoints of a training run, written atomically and restored exactly."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from captionlib.config import EngineConfig
from captionlib.engine.averaging import WeightAverage
from captionlib.io.files import InputError, atomic_folder, read_json, write_json
from captionlib.io.identity import difference, settings_in
from captionlib.model import CaptionModel

__all__ = [
    "EpochSoFar",
    "Training",
    "changed_settings",
    "load_checkpoint",
    "read_place",
    "require_same_data",
    "save_checkpoint",
    "undamaged",
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
    # The identity of its data, with what they were made of; {} if unknown.
    data: dict = field(default_factory=dict)
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
        "data": training.data,
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


@contextmanager
def undamaged(path: Path) -> Iterator[None]:
    """Turn whatever a damaged file of a checkpoint leads to into one line."""
    try:
        yield
    except (
        AttributeError,
        LookupError,
        OSError,
        RuntimeError,
        SafetensorError,
        TypeError,
        ValueError,
    ):
        folder = path.parent
        raise InputError(
            f"{path}: is damaged or missing; put a copy of {folder} back, or "
            f"train into another folder, with --start-from {folder.parent} to "
            "begin with its best model"
        ) from None


def read_place(folder: Path) -> dict:
    """Settings, history and position of the checkpoint in `folder`.

    Raises:
        InputError: if it is damaged, or another version's: batches and random numbers of
            version 0.1 were others, so going on would not be exact.
    """
    with undamaged(folder / "training.json"):
        place = dict(read_json(folder / "training.json"))
    found = place.get("format")
    if found != FORMAT:
        version = "version 0.1" if found is None else "a newer version"
        raise InputError(
            f"{folder}: is a training of {version} of captionlib, which this one can't resume; "
            "train into another folder"
        )
    with undamaged(folder / "training.json"):
        dict(place["config"]), dict(place.setdefault("data", {}))
        EpochSoFar(**place["so_far"])
        [epoch["bleu4"] + epoch["epoch"] for epoch in place["history"]]
    return place


def require_same_data(folder: Path, stored: dict, found: dict) -> None:
    """Refuse to resume the training in `folder` with other data.

    Args:
        stored: `Training.data` of the checkpoint.
        found: the same of the data at hand.

    Raises:
        InputError: says what differs.
    """
    if not stored or not found:  # not known, as where a test makes its own
        return
    if others := difference(stored["contents"], found["contents"]):
        # Settings explain a difference, and alone they make none.
        settings = difference(
            *(settings_in(each["made_of"]) for each in (stored, found))
        )
        others += f" ({settings})" if settings else ""
        raise InputError(
            f"{folder}: was begun with other data ({others}); resume with the "
            "data it was begun with, or train into another folder"
        )


def changed_settings(folder: Path, stored: dict, config: EngineConfig) -> dict:
    """The settings that a resumed training changes, with their old values.

    It may have more epochs or patience, or smaller batches.

    Raises:
        InputError: if another setting differs.
    """
    now, changed = asdict(config), {}
    for name, value in now.items():
        before = stored.get(name)
        if before == value:
            continue
        with undamaged(folder / "training.json"):
            allowed = (
                name in ("epochs", "patience") and value > before
                or name == "batch_size" and value < before
            )  # fmt: skip
        if not allowed:
            only = {"epochs": "more", "patience": "more", "batch_size": "fewer"}
            how = f"{only[name]}, or " if name in only else ""
            raise InputError(
                f"{folder}: was trained with {name}={before}, not {value}; "
                f"resume with {how}the same or train into another folder"
            )
        changed[name] = before
    return changed


def load_checkpoint(folder: Path, training: Training) -> dict:
    """Restore `training` from a checkpoint.

    With smaller batches, an unfinished epoch begins again, with the weights and
    moments it had reached.

    Returns:
        the settings that change, with their old values.

    Raises:
        InputError: if it is damaged, another version's, or belongs to other
            data or settings.
    """
    model, optimizer = training.model, training.optimizer
    stored = read_place(folder)
    require_same_data(folder, stored["data"], training.data)
    changed = changed_settings(folder, stored["config"], training.config)
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
    with undamaged(folder / "optimizer.safetensors"):
        _load_moments(optimizer, load_file(folder / "optimizer.safetensors"))
    if training.average is not None:
        with undamaged(folder / "average.safetensors"):
            state = load_file(folder / "average.safetensors")
            training.average.load_state(state)
    training.history = stored["history"]
    if "batch_size" not in changed:
        training.so_far = EpochSoFar(**stored["so_far"])
    return changed


def _load_moments(
    optimizer: torch.optim.Optimizer, moments: dict[str, Tensor]
) -> None:
    """Restore Adam's moments, one set for each weight.

    Raises:
        ValueError: if they don't fit the weights.
    """
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in moments.items():
        index, name = key.split(".")
        state.setdefault(int(index), {})[name] = value
    groups = optimizer.state_dict()["param_groups"]
    weights = [weight for g in optimizer.param_groups for weight in g["params"]]
    for index, own in state.items():
        if own["exp_avg"].shape != weights[index].shape:
            raise ValueError("moments of other weights")
    optimizer.load_state_dict({"state": state, "param_groups": groups})
