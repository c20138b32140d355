"""How captions become numbers."""

from __future__ import annotations

from dataclasses import dataclass

from captionlib.config.settings import Settings, setting

__all__ = ["DataConfig", "ReadingConfig"]


@dataclass(frozen=True)
class DataConfig(Settings):
    """How captions become numbers. An image with too few captions repeats
    some."""

    captions_per_image: int = setting(
        5, "captions stored per image", at_least=1
    )
    min_word_freq: int = setting(5, "rarer words become <unk>", at_least=1)
    max_len: int = setting(50, "longest training caption, in words", at_least=1)
    seed: int = setting(0, "of the captions drawn where an image has too many")


@dataclass(frozen=True)
class ReadingConfig(Settings):
    """How images are read while a data set is prepared; nothing that changes
    what is written."""

    skip_bad: bool = setting(
        False, "leave bad images and captions out, and list them"
    )
    workers: int | None = setting(
        None, "processes that read images", at_least=1, unset="one a core"
    )
