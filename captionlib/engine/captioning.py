"""Caption image files and skip bad ones, as `captionlib caption` does."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from captionlib.captioner import Caption, Captioner
from captionlib.config import CaptionConfig, SearchConfig
from captionlib.config.settings import settings_of
from captionlib.engine.progress import batches, find_device
from captionlib.io.files import InputError
from captionlib.io.images import open_rgb, to_pixels

__all__ = ["caption_files", "load_captioner"]

# Pixels per side of a picture in a figure, as in show_attention.
FIGURE_SIDE = 480


def load_captioner(config: CaptionConfig) -> Captioner:
    """Load the captioner that `config` names, on its device.

    It writes at least one word, unless `config` says otherwise.

    Raises:
        InputError: if there is none, the device can't be used, or the model's
            search settings don't fit those in `config`.
    """
    device = find_device(config.device)
    captioner = Captioner.from_pretrained(config.model)
    captioner.search = _search(captioner.search, config)
    captioner.model.to(device)
    return captioner


def _search(stored: SearchConfig, config: CaptionConfig) -> SearchConfig:
    """The model's own settings, changed as `config` says."""
    names = settings_of(type(stored)).keys() & settings_of(CaptionConfig).keys()
    values = {name: getattr(config, name) for name in sorted(names)}
    chosen = {n: value for n, value in values.items() if value is not None}
    try:
        return replace(
            stored, **{"min_words": max(1, stored.min_words)} | chosen
        )
    except ValueError as error:
        options = ", ".join(
            f"--{name.replace('_', '-')} {value}"
            for name, value in chosen.items()
        )
        raise InputError(f"{options}: not with this model; {error}") from None


def caption_files(
    captioner: Captioner,
    paths: Sequence[str | Path],
    *,
    batch_size: int = 32,
    figures: Sequence[Path] = (),
    watch: Callable[[int, np.ndarray], object] = lambda number, pixels: None,
    progress: bool = True,
) -> Iterator[tuple[int, Caption | InputError]]:
    """Caption images, each file read once.

    Args:
        paths: image files.
        batch_size: images captioned at once.
        figures: where to draw each caption's attention; none by default.
        watch: called with the index of a path and its pixels, (3, 256, 256)
            uint8.
        progress: show a bar on a terminal.

    Yields:
        the index of a path, and its caption or error. Each batch yields its
        errors first, then its captions, in order.
    """
    for batch in batches(
        list(enumerate(paths)), batch_size, unit="images", progress=progress
    ):
        good, pixels, pictures = [], [], []
        for number, path in batch:
            try:
                picture = open_rgb(path)
                pixels.append(to_pixels(picture))
            except InputError as error:
                yield number, error
                continue
            watch(number, pixels[-1])
            good.append(number)
            if figures:
                picture.thumbnail((FIGURE_SIDE, FIGURE_SIDE))
                pictures.append(picture)
        captions = captioner.caption_batch(pixels, None, batch_size)
        for place, (number, caption) in enumerate(
            zip(good, captions, strict=True)
        ):
            yield number, caption
            if figures:
                from captionlib.visualize import show_attention

                show_attention(pictures[place], caption, to=figures[number])
