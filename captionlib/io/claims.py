"""Claim a folder for one process, so that a second one is refused.

A claim is an operating system's lock on a small file. It ends with its process,
however that ends, so no claim outlives a killed one. On NFS the lock holds
between machines, too, as long as the server supports locks.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from captionlib.io.files import InputError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None
    import msvcrt

__all__ = ["claim", "require_writable", "temporary_folder"]

PATIENCE = 1.0  # seconds: a claim that is being released looks like one held
_held: set[int] = set()


@contextmanager
def claim(
    folder: str | Path, kind: str, refusal: str, *, shared: bool = False
) -> Iterator[None]:
    """Hold a claim on `folder` while the block runs.

    Args:
        folder: made if it is missing.
        kind: claims of different kinds don't concern each other.
        refusal: what to say if another process holds the claim.
        shared: others may share the claim; nobody may have it alone. A folder
            that can't be written needs none.

    Raises:
        InputError: if the claim is held, or the folder can't be written.
    """
    path = Path(folder) / f".{kind}.lock"
    with suppress(OSError):  # opening the file will say why
        path.parent.mkdir(parents=True, exist_ok=True)
    file = _lock(path, refusal, shared)
    if file is not None:
        _held.add(file)
    try:
        yield
    finally:
        if file is not None:
            _held.discard(file)
            _release(path, file, shared)


@contextmanager
def temporary_folder(folder: str | Path) -> Iterator[None]:
    """Make `folder`; unless the block puts something in it, remove it again."""
    folder = Path(folder).absolute()
    missing = [f for f in (folder, *folder.parents) if not f.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"{folder}: can't be created ({error.strerror}); name another "
            "folder"
        ) from None
    try:
        yield
    finally:
        for made in missing:
            with suppress(OSError):  # it's not empty
                made.rmdir()


def require_writable(folder: str | Path, cure: str) -> None:
    """Raise an `InputError` with this cure if `folder` can't be written."""
    folder = Path(folder)
    trial = folder / f".trial.{os.getpid()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        trial.touch()
        trial.unlink()
    except OSError as error:
        raise InputError(
            f"{folder}: can't be written ({error.strerror}); {cure}"
        ) from None


def _lock(path: Path, refusal: str, shared: bool) -> int | None:
    """Open and lock a file; None where `claim` does without."""
    last = time.monotonic() + PATIENCE
    while True:
        file = _open(path, shared)
        if file is None:
            return None
        try:
            _take(file, shared)
            if _is_there(path, file):
                return file
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.EACCES):
                return file  # a file system without locks
            if time.monotonic() > last:
                os.close(file)
                raise InputError(refusal) from None
            time.sleep(0.02)
        os.close(file)


def _open(path: Path, shared: bool) -> int | None:
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        if shared:
            return None
        raise InputError(
            f"{path.parent}: can't be written ({error.strerror}); name another "
            "folder"
        ) from None


def _take(file: int, shared: bool) -> None:
    if fcntl is not None:
        kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    elif not shared:  # Windows has no shared locks
        msvcrt.locking(file, msvcrt.LK_NBLCK, 1)


def _is_there(path: Path, file: int) -> bool:
    """Whether the locked file still has its name: its last holder removes it."""
    try:
        return os.path.samestat(os.fstat(file), path.stat())
    except FileNotFoundError:
        return False


def _release(path: Path, file: int, shared: bool) -> None:
    with suppress(OSError):
        if shared:  # others may go on holding it
            _take(file, shared=False)
        path.unlink()
    os.close(file)


def _leave_to_parent() -> None:
    """A forked process holds no claims; its copies would outlive the parent."""
    for file in _held:
        os.close(file)
    _held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_to_parent)
