"""Settings for preparing a data set."""

from __future__ import annotations

from dataclasses import dataclass

from captionlib.config.settings import SEED, Settings, setting

__all__ = [
    "DataConfig",
    "ReadingConfig",
    "SkippingConfig",
    "SplitConfig",
    "WordsConfig",
]


@dataclass(frozen=True)
class DataConfig(Settings):
    """How captions become numbers. If an image has too few, some are
    repeated."""

    captions_per_image: int = setting(
        5, "captions stored per image", at_least=1
    )
    min_word_freq: int = setting(5, "rarer words become <unk>", at_least=1)
    max_len: int = setting(50, "longest training caption, in words", at_least=1)
    seed: int = setting(
        0, "seed for drawing captions where an image has too many", **SEED
    )


@dataclass(frozen=True)
class SkippingConfig(Settings):
    """What becomes of bad images and captions."""

    skip_bad: bool = setting(
        False,
        "skip bad images and captions, list them, and exit with status 2",
    )


@dataclass(frozen=True)
class ReadingConfig(SkippingConfig):
    """How images are read while preparing; these settings don't change the
    output."""

    workers: int | None = setting(
        None, "processes that read images", at_least=1, unset="one per core"
    )


@dataclass(frozen=True)
class SplitConfig(Settings):
    """How images are shared out, where their file names no splits."""

    val_share: float = setting(
        0.1,
        "share of images for validation, if the captions name no splits",
        at_least=0,
        below=1,
    )
    test_share: float = setting(
        0.1,
        "share of images for testing, if the captions name no splits",
        at_least=0,
        below=1,
    )
    split_seed: int = setting(0, "seed for drawing these splits", **SEED)

    def __post_init__(self):
        super().__post_init__()
        if self.val_share + self.test_share >= 1:
            raise ValueError(
                "val_share and test_share must leave images for training, got "
                f"{self.val_share} and {self.test_share}"
            )


@dataclass(frozen=True)
class WordsConfig(Settings):
    """The captioner that the data will fine-tune, if any."""

    words_of: str | None = setting(
        None,
        "give words the ids that they have in this captioner, to fine-tune it "
        "with train --start-from",
        unset="number them anew",
        metavar="MODEL",
    )
    new_words: str = setting(
        "add",
        "with --words-of, what becomes of frequent words that the captioner "
        "lacks: they are added, or become <unk>",
        choices=("add", "unk"),
    )
