"""Where training and captioning read and write, and the device they use."""

from __future__ import annotations

from dataclasses import dataclass

from captionlib.config.data import SplitConfig
from captionlib.config.search import SearchConfig
from captionlib.config.settings import Settings, borrowed, setting

__all__ = ["CaptionConfig", "ExportConfig", "RunConfig"]

DEVICE = {"unset": "cuda if available, else cpu", "metavar": "D"}


@dataclass(frozen=True)
class RunConfig(SplitConfig):
    """Files and machine of a training run: what a recipe does not hold."""

    data: str | None = setting(
        None,
        "folder written by prepare",
        unset="prepared in --to",
        metavar="DIR",
    )
    karpathy_json: str | None = setting(
        None,
        "the captions, as prepare takes them, for data not yet prepared",
        unset="none",
        metavar="F",
        also="captions",
    )
    images: str | None = setting(
        None,
        "folder of the images, for data not yet prepared",
        unset="none",
        metavar="DIR",
    )
    resume: bool = setting(
        False, "continue the training in --to, with its settings"
    )
    start_from: str | None = setting(
        None,
        "start from the weights of this captioner",
        unset="none",
        metavar="DIR",
    )
    features: str | None = setting(
        None,
        "folder for the cached grids of a frozen encoder",
        unset="--data",
        metavar="DIR",
    )
    workers: int = setting(
        0,
        "processes that load images when the encoder is trained",
        at_least=0,
        at_most=256,
    )
    checkpoint_minutes: float = setting(
        15.0,
        "minutes between checkpoints within an epoch",
        at_least=0,
    )
    device: str | None = setting(None, "cpu, cuda, mps", **DEVICE)


@dataclass(frozen=True)
class CaptionConfig(Settings):
    """Settings for captioning with a trained model."""

    model: str | None = setting(
        None,
        "a captioner: a folder written by train",
        unset="the shipped one",
        metavar="DIR",
    )
    beam_size: int | None = borrowed(
        SearchConfig, "beam_size", "the model's own"
    )
    length_normalisation: float | None = borrowed(
        SearchConfig, "length_normalisation", "the model's own"
    )
    min_words: int | None = borrowed(
        SearchConfig, "min_words", "the model's own, or 1 if that is 0"
    )
    batch_size: int = setting(
        32, "images captioned at once", at_least=1, at_most=65_536
    )
    device: str | None = setting(None, "cpu, cuda, mps", **DEVICE)


@dataclass(frozen=True)
class ExportConfig(Settings):
    """The captioner to write in another format."""

    model: str | None = borrowed(CaptionConfig, "model", "the shipped one")
