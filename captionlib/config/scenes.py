"""The size of a toy data set."""

from __future__ import annotations

from dataclasses import dataclass

from captionlib.config.settings import Settings, setting

__all__ = ["ScenesConfig"]


@dataclass(frozen=True)
class ScenesConfig(Settings):
    """The number of scenes in a toy data set."""

    train: int = setting(1500, "training images", at_least=0)
    val: int = setting(200, "validation images", at_least=0)
    test: int = setting(200, "test images", at_least=0)
    seed: int = setting(0, "seed; equal seeds draw equal scenes")
