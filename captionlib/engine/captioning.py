"""Caption image files, one after another, the bad ones left out: what
`captionlib caption` does."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from captionlib.captioner import Caption, Captioner
from captionlib.config import CaptionConfig
from captionlib.engine.progress import batches, find_device
from captionlib.io.files import InputError
from captionlib.io.images import open_rgb, to_pixels

__all__ = ["caption_files", "load_captioner"]

# Pixels a side of a picture in a figure, as show_attention has it.
FIGURE_SIDE = 480


def load_captioner(config: CaptionConfig) -> Captioner:
    """The captioner of these settings, on their device.

    Raises:
        InputError: if there is none, or its search settings rule the beam out.
    """
    captioner = Captioner.from_pretrained(config.model)
    if config.beam_size is not None:
        try:
            replace(captioner.search, beam_size=config.beam_size)
        except ValueError as error:
            raise InputError(
                f"--beam-size {config.beam_size}: not with this model; {error}"
            ) from None
    captioner.model.to(find_device(config.device))
    return captioner


def caption_files(
    captioner: Captioner,
    paths: Sequence[str | Path],
    *,
    beam_size: int | None = None,
    batch_size: int = 32,
    figures: Sequence[Path] = (),
    progress: bool = True,
) -> Iterator[tuple[int, Caption | InputError]]:
    """Caption images, each file read once.

    Args:
        paths: image files.
        beam_size: hypotheses kept; None leaves the model's setting.
        batch_size: images captioned at once.
        figures: where to draw what each caption looked at; none by default.
        progress: show a bar on a terminal.

    Yields:
        a path's number, and its caption or what is wrong with it; in order
        within a batch, the bad ones first.
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
            good.append(number)
            if figures:
                picture.thumbnail((FIGURE_SIDE, FIGURE_SIDE))
                pictures.append(picture)
        captions = captioner.caption_batch(pixels, beam_size, batch_size)
        for place, (number, caption) in enumerate(
            zip(good, captions, strict=True)
        ):
            yield number, caption
            if figures:
                from captionlib.visualize import show_attention

                show_attention(pictures[place], caption, to=figures[number])
