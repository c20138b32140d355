"""Save matplotlib figures, whole or not at all.

No display is needed: a figure made without pyplot also draws on a server.
"""

from __future__ import annotations

from pathlib import Path

from captionlib.io.files import InputError, atomic_file, check_output

__all__ = ["check_figure_path", "save_figure"]


def check_figure_path(path: str | Path) -> None:
    """Check that a figure can be written to `path`, before it is drawn.

    Raises:
        InputError: if matplotlib can't write this format, or the place is not
            writable.
    """
    from matplotlib.backend_bases import FigureCanvasBase

    formats = FigureCanvasBase.get_supported_filetypes()
    if Path(path).suffix[1:].lower() not in formats:
        raise InputError(
            f"{path}: not a picture format; use a name that ends in .png, .svg "
            "or .pdf"
        )
    check_output(path)


def save_figure(figure, path: str | Path, dpi: int = 200) -> None:
    """Write `figure` to `path`, in the format that the file's ending names.

    Raises:
        InputError: as `check_figure_path`.
    """
    check_figure_path(path)
    with atomic_file(path) as temporary:
        figure.savefig(temporary, dpi=dpi, facecolor="none")
