"""Save matplotlib figures, whole or not at all.

No display is needed: a figure made without pyplot also draws on a server.
"""

from __future__ import annotations

from pathlib import Path

from captionlib.io.files import InputError, atomic_file

__all__ = ["save_figure"]


def save_figure(figure, path: str | Path, dpi: int = 200) -> None:
    """Write `figure` to `path`, in the format that the file's ending names.

    Raises:
        InputError: if matplotlib can't write this format.
    """
    path = Path(path)
    if path.suffix[1:].lower() not in figure.canvas.get_supported_filetypes():
        raise InputError(
            f"{path}: not a picture format; use a name that ends in .png, .svg "
            "or .pdf"
        )
    with atomic_file(path) as temporary:
        figure.savefig(temporary, dpi=dpi, facecolor="none")
