"""Files that appear whole or not at all, and errors a reader can act on.

Written by hand: the chapters use these helpers so that their own cells can stay about captioning.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = [
    "InputError",
    "atomic_file",
    "atomic_folder",
    "package_folder",
    "read_json",
    "recover_folder",
    "require_free_space",
    "write_json",
]

ASSETS = Path(__file__).parent / "assets"


class InputError(ValueError):
    """Something the user gave can't be used: one line naming the file and the cure.

    The command line prints it on stderr and exits with status 2, never with a traceback.
    """


@contextmanager
def atomic_file(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; rename it into place only if the block succeeds."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # The process id keeps two runs apart; the suffix stays last so that writers see its format.
    temporary = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    try:
        yield temporary
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())  # a rename must never outlive the bytes it points at
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: str | Path) -> Iterator[Path]:
    """Yield an empty folder beside `path`; swap it into place only if the block succeeds.

    No file system renames one full folder over another, so the old one steps aside first. Killed
    between the two renames, the old folder is still there: `recover_folder` puts it back.
    """
    path = Path(path)
    recover_folder(path)
    fresh, old = path.with_name(f".{path.name}.new"), path.with_name(f".{path.name}.old")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    try:
        yield fresh
        for file in fresh.rglob("*"):
            if file.is_file():
                with open(file, "rb+") as handle:
                    os.fsync(handle.fileno())
        if path.exists():
            os.rename(path, old)
        os.rename(fresh, path)
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def recover_folder(path: str | Path) -> None:
    """Finish what a killed `atomic_folder` left: one good `path`, and nothing beside it."""
    path = Path(path)
    old = path.with_name(f".{path.name}.old")
    if old.exists():
        if path.exists():
            shutil.rmtree(old, ignore_errors=True)
        else:
            os.rename(old, path)


def require_free_space(folder: str | Path, needed: int) -> None:
    """Raise `InputError` before any work starts if `folder`'s disk lacks `needed` bytes."""
    folder = Path(folder).absolute()
    existing = next(parent for parent in (folder, *folder.parents) if parent.exists())
    free = shutil.disk_usage(existing).free
    if free < needed:
        raise InputError(
            f"{folder}: {needed / 1e9:.2f} GB are needed and {free / 1e9:.2f} GB are free; "
            "make room or choose another disk"
        )


def read_json(path: str | Path):
    """Read a JSON file, or raise an `InputError` naming it."""
    path = Path(path)
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; check the path") from None
    except IsADirectoryError:
        raise InputError(f"{path}: is a folder; name the JSON file inside it") from None
    except (UnicodeDecodeError, json.JSONDecodeError):
        raise InputError(f"{path}: is not JSON; check that it is the right file") from None


def write_json(path: str | Path, value, *, indent: int | None = None) -> None:
    """Write `value` as JSON, whole or not at all; the same value gives the same bytes."""
    with atomic_file(path) as temporary:
        text = json.dumps(value, indent=indent, ensure_ascii=False, allow_nan=False)
        temporary.write_text(text + "\n", encoding="utf-8")


def package_folder(name_or_path: str | Path) -> Path:
    """The folder of a model: a packaged one by name ("toy"), DIR itself, or DIR/best."""
    packaged = ASSETS / str(name_or_path)
    if isinstance(name_or_path, str) and name_or_path.isidentifier() and packaged.is_dir():
        return packaged
    folder = Path(name_or_path)
    for candidate in (folder, folder / "best"):
        recover_folder(candidate)
        if (candidate / "config.json").is_file():
            return candidate
    raise InputError(
        f"{folder}: holds no captioner (no config.json); name a folder that training wrote"
    )
