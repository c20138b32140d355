"""`captionlib caption`: print captions, and draw where the captioner looked."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from captionlib.cli.arguments import given
from captionlib.cli.terminal import print_line, say, shows_progress
from captionlib.config import CaptionConfig
from captionlib.io.files import InputError

__all__ = ["run_caption"]


def run_caption(args) -> int:
    """Caption every image; return the exit status, 2 if one was bad."""
    from captionlib.engine.captioning import caption_files, load_captioner

    figures = _figure_paths(args.save_figure, args.images)
    if figures:
        _check_figures(figures, args.images)
    config = CaptionConfig(**given(args, CaptionConfig))
    found = caption_files(
        load_captioner(config),
        args.images,
        batch_size=config.batch_size,
        figures=figures,
        progress=shows_progress(),
    )
    bad, of = 0, len(args.images)
    for number, caption in found:
        if isinstance(caption, InputError):
            bad += 1
            count = f" ({bad} of {of} images left out)" if of > 1 else ""
            say(f"{caption}{count}")
        else:
            _print_caption(args, args.images[number], caption)
    return 2 if bad else 0


def _print_caption(args, path: str, caption) -> None:
    if args.json:
        line = json.dumps(
            {
                "image": path,
                "text": caption.text,
                "words": caption.words,
                "log_prob": caption.log_prob,
                "finished": caption.finished,
            }
        )
    else:
        line = (
            caption.text if len(args.images) == 1 else f"{path}: {caption.text}"
        )
    print_line(line)


def _check_figures(figures: Sequence[Path], images: Sequence[str]) -> None:
    """Check where the figures go, before the work for them."""
    from captionlib.io.figures import check_figure_path

    originals = {Path(image).resolve() for image in images}
    for figure in figures:
        check_figure_path(figure)
        if figure.resolve() in originals:
            raise InputError(
                f"{figure}: is a photograph to caption; draw the figure "
                "somewhere else"
            )


def _figure_paths(to: str | None, images: Sequence[str]) -> list[Path]:
    """The path of each image's figure: one file, or several in a folder."""
    if to is None:
        return []
    target = Path(to)
    if len(images) == 1:
        if target.is_dir():
            raise InputError(
                f"{to}: is a folder; for one image name a file, such as "
                "seen.png"
            )
        return [target]
    if target.exists() and not target.is_dir():
        raise InputError(f"{to}: is a file; for several images name a folder")
    paths, taken = [], set()
    for image in images:
        stem, copy = Path(image).stem, 1
        name = stem
        while name.casefold() in taken:  # same name, from two folders
            copy += 1
            name = f"{stem}_{copy}"
        taken.add(name.casefold())
        paths.append(target / f"{name}.png")
    return paths
