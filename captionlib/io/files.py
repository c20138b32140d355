"""Files that appear whole or not at all, and errors that users can act on."""

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
    "check_output",
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
    """Bad input from the user: one line that names the file and the cure.

    The command line prints it on stderr and exits with status 2, never with a
    traceback.
    """

    def __init__(self, message: str = ""):
        # File names may hold line breaks or terminal codes; keep to one line.
        super().__init__(
            "".join(
                c if c.isprintable() else ascii(c)[1:-1] for c in str(message)
            )
        )


class BadItem(InputError):
    """One bad image or caption among many, which can be skipped."""


@contextmanager
def atomic_file(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path, renamed to `path` only if the block succeeds."""
    path = Path(path)
    _refuse_devices(path)
    _make_folder(path.parent)
    _sweep(
        path.parent, rf"\.{re.escape(path.stem)}\.(\d+){re.escape(path.suffix)}"
    )
    temporary = _temporary(path)
    try:
        yield temporary
        _flush(temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _refuse_devices(path: Path) -> None:
    """Don't rename a file over /dev/null or a pipe, which root may do."""
    if os.path.exists(path) and not (
        os.path.isfile(path) or os.path.isdir(path)
    ):
        raise InputError(f"{path}: is not a regular file; name another one")


def _temporary(path: Path) -> Path:
    """The name of a file while it is written."""
    # The process id keeps two runs apart. Writers take the format from the
    # suffix.
    return path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")


def check_output(path: str | Path) -> None:
    """Check that a file can be written to `path`, before the work for it.

    Missing folders are fine; `atomic_file` makes them.

    Raises:
        InputError: if something is in the way, or the place is not writable.
    """
    path = Path(path)
    if os.path.isdir(path):  # unlike Path.is_dir, no error if it's too long
        raise InputError(f"{path}: is a folder; name a file to write")
    _refuse_devices(path)
    try:
        os.lstat(_temporary(path))  # tries every folder and the name's length
    except FileNotFoundError:
        pass
    except OSError as error:
        raise InputError(
            f"{path}: can't be written ({error.strerror}); name another file"
        ) from None
    parents = path.absolute().parents
    folder = next(parent for parent in parents if os.path.lexists(parent))
    if not (folder.is_dir() and os.access(folder, os.W_OK | os.X_OK)):
        raise InputError(
            f"{path}: can't be written, because of {folder}; name another "
            "place or change its permissions"
        )


@contextmanager
def atomic_folder(path: str | Path) -> Iterator[Path]:
    """Yield an empty folder, renamed to `path` only if the block succeeds.

    No file system renames one full folder over another, so the old one is
    renamed first. If the process is killed between the two renames,
    `recover_folder` puts the old folder back.
    """
    path = Path(path)
    recover_folder(path)
    fresh, old = _beside(path, "new"), _beside(path, "old")
    shutil.rmtree(fresh, ignore_errors=True)
    _make_folder(fresh)
    try:
        yield fresh
        _flush_all([file for file in fresh.rglob("*") if file.is_file()])
        _swap(fresh, path, old)
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def _swap(fresh: Path, path: Path, old: Path) -> None:
    """Rename `path` to `old` and `fresh` to `path`.

    A reader that comes in between takes the writer for dead, and puts `old`
    back: then once more.
    """
    while True:
        if path.exists():
            shutil.rmtree(old, ignore_errors=True)
            os.rename(path, old)
        try:
            return os.rename(fresh, path)
        except OSError:
            if not path.exists():
                raise


def recover_folder(path: str | Path) -> None:
    """Clean up after a killed `atomic_folder`: leave one good `path`.

    If its writer is alive after all, nothing is lost.
    """
    path = Path(path)
    old = _beside(path, "old")
    if os.path.exists(old):  # unlike Path.exists, no error if it's too long
        if path.exists():
            shutil.rmtree(old, ignore_errors=True)
        else:
            try:
                os.rename(old, path)
            except OSError:
                if not path.exists():  # else its writer came first
                    raise


def _beside(path: Path, ending: str) -> Path:
    """A hidden folder's path beside `path`, which may be "."."""
    path = Path(os.path.abspath(path))
    return path.parent / f".{path.name}.{ending}"


@contextmanager
def atomic_group(folder: str | Path, *, seal: str) -> Iterator[Path]:
    """Yield an empty folder whose files move to `folder` if the block succeeds.

    `seal` names the file that vouches for the others. It is removed before the
    first file moves and comes back after the last, so if it is there, the whole
    group is there, from a single run. Everything else in `folder` is left
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
    """Turn a full disk into an `InputError` with this cure."""
    full = {
        errno.ENOSPC: "the disk is full",
        getattr(errno, "EDQUOT", None): "your disk quota is used up",
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

    If HDF5 can't flush its buffers, it kills the process, past any `except`.
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
    """Yield a new `h5py.File`; a full disk raises `OSError`, where HDF5 would
    crash."""
    # Processes that only decode images need not load h5py.
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
    """Raise `InputError` if the disk of `folder` lacks `needed` bytes."""
    folder = Path(folder).absolute()
    existing = next(
        parent for parent in (folder, *folder.parents) if parent.exists()
    )
    free = shutil.disk_usage(existing).free
    if free < needed:
        raise InputError(
            f"{folder}: {needed / 1e9:.2f} GB are needed and {free / 1e9:.2f} "
            "GB are free; make room or choose another disk"
        )


def read_json(
    path: str | Path, object_hook: Callable[[dict], object] | None = None
):
    """Read a JSON file, or raise an `InputError` that names it.

    `object_hook` is passed to `json.loads`."""
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
            f"{path}: can't be read; change its permissions"
        ) from None
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError):
        raise InputError(
            f"{path}: is not JSON; check that it is the right file"
        ) from None


def write_json(path: str | Path, value, *, indent: int | None = None) -> None:
    """Write `value` as JSON, atomically; equal values give equal bytes."""
    with atomic_file(path) as temporary:
        text = json.dumps(
            value, indent=indent, ensure_ascii=False, allow_nan=False
        )
        temporary.write_text(text + "\n", encoding="utf-8")


def write_json_rows(path: str | Path, rows: Iterable) -> None:
    """As `write_json`, a list with one item per line and in memory at a
    time."""
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
    """The folder of a model: DIR itself, DIR/best, or a packaged one ("toy").

    The user's own folder comes before a packaged captioner of its name.

    Raises:
        InputError: if there is none, or the user's folder holds a part of one
            and has a packaged captioner's name.
    """
    folder = Path(name_or_path)
    for candidate in (folder, folder / "best"):
        recover_folder(candidate)
        if os.path.isfile(candidate / "config.json"):
            return candidate
    packaged = ASSETS / str(name_or_path)
    if not (
        isinstance(name_or_path, str)
        and name_or_path.isidentifier()
        and (packaged / "config.json").is_file()
    ):
        raise InputError(
            f"{folder}: holds no captioner (no config.json); train one and "
            "name its folder"
        )
    if any((folder / part).exists() for part in _PARTS):
        raise InputError(
            f"{folder}: holds only a part of a captioner (no config.json), and "
            f"{packaged} has the same name; name that path, or rename or "
            "complete your folder"
        )
    return packaged


# What a captioner's or a training's folder holds besides its configuration.
_PARTS = ("best", "last", "recipe.json", "model.safetensors", "vocabulary.json")


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
    """Force a file to the disk, lest its rename survive a crash and its bytes
    don't."""
    with open(path, "rb+") as file:
        os.fsync(file.fileno())


def _flush_all(paths: list[Path]) -> None:
    """Flush every file; a large number of them with one `sync`, if there is
    one."""
    if len(paths) > 1000 and hasattr(os, "sync"):
        os.sync()
    else:
        for path in paths:
            _flush(path)


def _sweep(folder: Path, pattern: str) -> None:
    """Remove what killed runs left behind.

    The group in `pattern` is the process id in a file's name."""
    for path in folder.iterdir():
        named = re.fullmatch(pattern, path.name)
        if named and not _is_running(int(named.group(1))):
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)


def _is_running(process: int) -> bool:
    if os.name == "nt":  # signal 0 is Ctrl-C there
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True
