"""Where a training or a captioning reads and writes, and on what it runs."""

from __future__ import annotations

from dataclasses import dataclass

from captionlib.config.settings import Settings, setting

__all__ = ["CaptionConfig", "RunConfig"]

DEVICE = {"unset": "cuda if there is one, else cpu", "metavar": "D"}


@dataclass(frozen=True)
class RunConfig(Settings):
    """Around a training: its files, and the machine. A recipe holds nothing of
    it."""

    data: str | None = setting(
        None,
        "folder that prepare wrote",
        unset="what it prepares itself, in --to",
        metavar="DIR",
    )
    karpathy_json: str | None = setting(
        None,
        "to prepare: the splits and the captions",
        unset="none",
        metavar="F",
    )
    images: str | None = setting(
        None, "to prepare: folder of the images", unset="none", metavar="DIR"
    )
    resume: bool = setting(False, "go on where --to stopped, with its settings")
    start_from: str | None = setting(
        None,
        "begin with the weights of this captioner",
        unset="none",
        metavar="DIR",
    )
    features: str | None = setting(
        None,
        "folder for the images that a frozen encoder encoded",
        unset="--data",
        metavar="DIR",
    )
    workers: int = setting(
        0, "processes that load images for a learning encoder", at_least=0
    )
    checkpoint_minutes: float = setting(
        15.0,
        "within an epoch, write a checkpoint after every so many minutes",
        at_least=0,
    )
    device: str | None = setting(None, "cpu, cuda, mps", **DEVICE)


@dataclass(frozen=True)
class CaptionConfig(Settings):
    """Captioning with a trained model."""

    model: str | None = setting(
        None,
        "a captioner: a folder that train wrote",
        unset="the shipped one",
        metavar="DIR",
    )
    beam_size: int | None = setting(
        None,
        "hypotheses kept",
        at_least=1,
        unset="what the model was saved with",
    )
    batch_size: int = setting(32, "images captioned at once", at_least=1)
    device: str | None = setting(None, "cpu, cuda, mps", **DEVICE)
