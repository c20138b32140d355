"""Files that appear whole or not at all, and errors a reader can act on.

Written by hand: the chapters use these helpers so that their own cells can stay
about captioning.
"""

from __future__ import annotations

import errno
import io
import json
import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = [
    "BadItem",
    "InputError",
    "atomic_file",
    "atomic_folder",
    "atomic_group",
    "new_hdf5",
    "one_line_if_full",
    "package_folder",
    "read_json",
    "recover_folder",
    "require_free_space",
    "write_json",
    "write_json_rows",
]

ASSETS = Path(__file__).parents[1] / "assets"


class InputError(ValueError):
    """Something the user gave can't be used: one line naming the file and the
    cure.

    The command line prints it on stderr and exits with status 2, never with a
    traceback.
    """

    def __init__(self, message: str = ""):
        # A file's name may hold line breaks or terminal codes; the message
        # stays one plain line.
        super().__init__(
            "".join(
                c if c.isprintable() else ascii(c)[1:-1] for c in str(message)
            )
        )


class BadItem(InputError):
    """One image or caption among many is bad: the others would do without
    it."""


@contextmanager
def atomic_file(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; rename it into place only if the
    block succeeds."""
    path = Path(path)
    _make_folder(path.parent)
    _sweep(
        path.parent, rf"\.{re.escape(path.stem)}\.(\d+){re.escape(path.suffix)}"
    )
    # The process id keeps two runs apart; the suffix stays last so that writers
    # see its format.
    temporary = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    try:
        yield temporary
        _flush(temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: str | Path) -> Iterator[Path]:
    """Yield an empty folder beside `path`; swap it into place only if the block
    succeeds.

    No file system renames one full folder over another, so the old one steps
    aside first. Killed between the two renames, the old folder is still there:
    `recover_folder` puts it back.
    """
    path = Path(path)
    recover_folder(path)
    fresh = path.with_name(f".{path.name}.new")
    old = path.with_name(f".{path.name}.old")
    shutil.rmtree(fresh, ignore_errors=True)
    _make_folder(fresh)
    try:
        yield fresh
        _flush_all([file for file in fresh.rglob("*") if file.is_file()])
        if path.exists():
            os.rename(path, old)
        os.rename(fresh, path)
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def recover_folder(path: str | Path) -> None:
    """Finish what a killed `atomic_folder` left: one good `path`, and nothing
    beside it."""
    path = Path(path)
    old = path.with_name(f".{path.name}.old")
    if old.exists():
        if path.exists():
            shutil.rmtree(old, ignore_errors=True)
        else:
            os.rename(old, path)


@contextmanager
def atomic_group(folder: str | Path, *, seal: str) -> Iterator[Path]:
    """Yield an empty folder inside `folder`; move its files up only if the
    block succeeds.

    `seal` names the file that vouches for the others. It is taken away before
    the first file moves and put back after the last, so wherever it stands, the
    whole group stands, and of one run. Everything else in `folder` is left
    alone.
    """
    folder = Path(folder)
    _make_folder(folder)
    _sweep(folder, r"\..+\.(\d+)\.part")
    fresh = folder / f".{seal}.{os.getpid()}.part"
    shutil.rmtree(fresh, ignore_errors=True)
    _make_folder(fresh)
    try:
        with one_line_if_full(folder):
            yield fresh
            files = sorted(
                fresh.iterdir(), key=lambda file: (file.name == seal, file.name)
            )
            for file in files:
                _flush(file)
            (folder / seal).unlink(missing_ok=True)
            for file in files:
                os.replace(file, folder / file.name)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


@contextmanager
def one_line_if_full(
    folder: str | Path, cure: str = "make room and run again"
) -> Iterator[None]:
    """Turn a block's failure to write, for want of room, into an `InputError`
    with this cure."""
    full = {
        errno.ENOSPC: "the disk is full",
        getattr(errno, "EDQUOT", None): "your share of the disk is used up",
        errno.EFBIG: "a file would be larger than is allowed here",
    }
    try:
        yield
    except OSError as error:
        if error.errno in full:
            raise InputError(f"{folder}: {full[error.errno]}; {cure}") from None
        raise


class _FailsOnce(io.FileIO):
    """A file that reports one failed write, and none while HDF5 closes it.

    HDF5 ends the whole process, past any `except`, if it can't write out what
    it holds back.
    """

    error: OSError | None = None
    closing = False

    def write(self, data) -> int:
        rest = memoryview(data).cast("B")
        while len(rest) and self.error is None:
            try:
                rest = rest[super().write(rest) :]
            except OSError as error:
                self.error = error
                if not self.closing:
                    raise
        return len(data)

    def truncate(self, size=None) -> int:
        try:
            return super().truncate(size)
        except OSError as error:
            self.error = self.error or error
            return size or 0


@contextmanager
def new_hdf5(path: str | Path):
    """Yield a new `h5py.File` to write; a full disk is an `OSError`, where HDF5
    would crash."""
    # Here, so that a process that only decodes images need not load it.
    import h5py

    with _FailsOnce(path, "w+") as raw:
        try:
            with h5py.File(raw, "w") as file:
                try:
                    yield file
                finally:
                    raw.closing = True
        finally:
            if raw.error is not None:
                raise raw.error


def require_free_space(folder: str | Path, needed: int) -> None:
    """Raise `InputError` before any work starts if `folder`'s disk lacks
    `needed` bytes."""
    folder = Path(folder).absolute()
    existing = next(
        parent for parent in (folder, *folder.parents) if parent.exists()
    )
    free = shutil.disk_usage(existing).free
    if free < needed:
        raise InputError(
            f"{folder}: {needed / 1e9:.2f} GB are needed and {free / 1e9:.2f} GB are free; "
            "make room or choose another disk"
        )


def read_json(
    path: str | Path, object_hook: Callable[[dict], object] | None = None
):
    """Read a JSON file, or raise an `InputError` naming it; `object_hook` as in
    `json.loads`."""
    path = Path(path)
    try:
        return json.loads(
            path.read_text(encoding="utf-8-sig"), object_hook=object_hook
        )
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; check the path") from None
    except IsADirectoryError:
        raise InputError(
            f"{path}: is a folder; name the JSON file inside it"
        ) from None
    except PermissionError:
        raise InputError(
            f"{path}: may not be read; change its permissions"
        ) from None
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError):
        raise InputError(
            f"{path}: is not JSON; check that it is the right file"
        ) from None


def write_json(path: str | Path, value, *, indent: int | None = None) -> None:
    """Write `value` as JSON, whole or not at all; the same value gives the same
    bytes."""
    with atomic_file(path) as temporary:
        text = json.dumps(
            value, indent=indent, ensure_ascii=False, allow_nan=False
        )
        temporary.write_text(text + "\n", encoding="utf-8")


def write_json_rows(path: str | Path, rows: Iterable) -> None:
    """Write a JSON list one item a line, holding one item at a time; else as
    `write_json`."""
    with (
        atomic_file(path) as temporary,
        open(temporary, "w", encoding="utf-8") as file,
    ):
        separator = "["
        for row in rows:
            file.write(
                separator + json.dumps(row, ensure_ascii=False, allow_nan=False)
            )
            separator = ",\n"
        file.write("]\n" if separator != "[" else "[]\n")


def package_folder(name_or_path: str | Path) -> Path:
    """The folder of a model: a packaged one by name ("toy"), DIR itself, or
    DIR/best."""
    packaged = ASSETS / str(name_or_path)
    if (
        isinstance(name_or_path, str)
        and name_or_path.isidentifier()
        and packaged.is_dir()
    ):
        return packaged
    folder = Path(name_or_path)
    for candidate in (folder, folder / "best"):
        recover_folder(candidate)
        if (candidate / "config.json").is_file():
            return candidate
    raise InputError(
        f"{folder}: holds no captioner (no config.json); train one and name its "
        "folder"
    )


def _make_folder(path: Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise InputError(
            f"{path}: a file is in the way; name a folder"
        ) from None
    except OSError as error:
        raise InputError(
            f"{path}: can't be written ({error.strerror}); name a folder"
        ) from None


def _flush(path: Path) -> None:
    """Force a file to the disk: a rename must never outlive the bytes it points
    at."""
    with open(path, "rb+") as file:
        os.fsync(file.fileno())


def _flush_all(paths: list[Path]) -> None:
    """As `_flush`; many files, such as a data set's photographs, at once where
    that can be."""
    if len(paths) > 1000 and hasattr(os, "sync"):
        os.sync()
    else:
        for path in paths:
            _flush(path)


def _sweep(folder: Path, pattern: str) -> None:
    """Remove what killed runs left: the pattern's group is the process id in a
    file's name."""
    for path in folder.iterdir():
        named = re.fullmatch(pattern, path.name)
        if named and not _is_running(int(named.group(1))):
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)


def _is_running(process: int) -> bool:
    if os.name == "nt":  # there, signal 0 is not a question
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True
