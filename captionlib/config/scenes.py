"""The size of a toy data set."""

from __future__ import annotations

from dataclasses import dataclass

from captionlib.config.settings import SEED, Settings, setting

__all__ = ["ScenesConfig"]

COUNT = {"at_least": 0, "at_most": 1_000_000}


@dataclass(frozen=True)
class ScenesConfig(Settings):
    """The number of scenes in a toy data set."""

    train: int = setting(1500, "training images", **COUNT)
    val: int = setting(200, "validation images", **COUNT)
    test: int = setting(200, "test images", **COUNT)
    seed: int = setting(0, "seed; equal seeds draw equal scenes", **SEED)
