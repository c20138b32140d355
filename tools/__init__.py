"""The project's own tools, run from its root as `python -m tools.NAME`."""

from pathlib import Path


def find_chapters(root: Path = Path()) -> list[Path]:
    """Every chapter's script under `root`, in the book's order."""
    return sorted(root.glob("notebooks/[0-9][0-9]_*.py"))


def chapter_title(notebook) -> str:
    """The text of the first heading."""
    for cell in notebook.cells:
        if cell.cell_type == "markdown" and cell.source.startswith("# "):
            return cell.source.splitlines()[0].removeprefix("# ").strip()
    raise SystemExit(
        "a chapter has no title: start its first markdown cell with '# '"
    )
