"""Write a stored captioner as a folder that captions without PyTorch."""

from __future__ import annotations

import os
import shutil
from importlib.util import find_spec
from pathlib import Path

from captionlib.captioner import Captioner
from captionlib.config import CaptionConfig, SearchConfig
from captionlib.config.settings import settings_of
from captionlib.engine.captioning import load_captioner
from captionlib.io.files import (
    InputError,
    atomic_folder,
    check_output,
    one_line_if_full,
    write_json,
)
from captionlib.io.images import IMAGE_SIZE
from captionlib.io.versions import versions
from captionlib.model.caption_model import require_lstm
from captionlib.onnx.graphs import write_graphs

__all__ = ["export"]

SCRIPT = Path(__file__).with_name("caption.py")
FILES = {"encoder.onnx", "step.onnx", "captioner.json", SCRIPT.name}
PACKAGES = ("onnx", "onnxruntime", "onnxscript")


def export(model: str | None = None, *, to: str | Path) -> float:
    """Write a captioner as ONNX, whole or not at all.

    `to` gets the graphs of `write_graphs`; captioner.json with the words and
    the settings of a beam search; and caption.py, which captions photographs
    with both.

    Args:
        model: a folder or name, as for `Captioner.from_pretrained`.
        to: the folder to write; replaced if it holds such files alone.

    Returns:
        the largest difference between the graphs' numbers and PyTorch's.

    Raises:
        InputError: if a package is not installed, the folder holds other files,
            or the captioner can't be read or written as ONNX.
    """
    to = Path(to)
    _check_packages()
    _check_folder(to)
    captioner = load_captioner(CaptionConfig(model=model, device="cpu"))
    require_lstm(captioner.model, "the export")
    with one_line_if_full(to), atomic_folder(to) as fresh:
        difference = write_graphs(captioner.model, fresh)
        write_json(fresh / "captioner.json", _describe(captioner), indent=1)
        shutil.copyfile(SCRIPT, fresh / SCRIPT.name)
    return difference


def _check_packages() -> None:
    missing = [name for name in PACKAGES if find_spec(name) is None]
    if missing:
        raise InputError(
            f"{' and '.join(missing)} not installed, which writing ONNX needs; "
            'pip install "captionlib[onnx]"'
        )


def _check_folder(to: Path) -> None:
    """Check that `to` can be written, before the work for it."""
    check_output(to / "captioner.json")
    beside = Path(os.path.abspath(to))  # where atomic_folder writes
    check_output(beside.with_name(f".{beside.name}.new"))
    others = set(os.listdir(to)) - FILES if to.is_dir() else ()
    if others:
        raise InputError(
            f"{to}: holds other files, such as {min(others)}; name a new folder"
        )


def _describe(captioner: Captioner) -> dict:
    """What the graphs do not hold."""
    search = captioner.search
    return {
        "format": 1,
        "image_size": IMAGE_SIZE,
        "words": captioner.model.vocabulary.words,
        "search": {
            name: getattr(search, name) for name in settings_of(SearchConfig)
        },
        "versions": versions(),
    }
