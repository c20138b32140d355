"""How captions become numbers."""

from __future__ import annotations

from dataclasses import dataclass

from captionlib.config.settings import Settings, setting

__all__ = ["DataConfig"]


@dataclass(frozen=True)
class DataConfig(Settings):
    """How captions become numbers. An image with too few captions repeats some."""

    captions_per_image: int = setting(
        5, "captions stored per image", at_least=1
    )
    min_word_freq: int = setting(5, "rarer words become <unk>", at_least=1)
    max_len: int = setting(50, "longest training caption, in words", at_least=1)
    seed: int = setting(0, "of the captions drawn where an image has too many")
