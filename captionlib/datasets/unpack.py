"""Take named files out of an archive that nobody vouches for.

Written by hand. The archive's own names never become paths: a file is taken out
if its name is one of those asked for, and lies under that name in the folder
asked for. An archive that tries anything else is refused all the same, before
it costs memory or disk.
"""

from __future__ import annotations

import bz2
import errno
import gzip
import lzma
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import IO, NamedTuple

from tqdm.auto import tqdm

from captionlib.io.files import InputError, require_free_space

__all__ = ["unpack"]

# Bytes an archive may unpack to beyond twice its own size; photographs don't
# shrink.
SLACK = 2**28
CHUNK = 2**20
COMPRESSED = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ": lzma.open}
DAMAGE = (  # what the standard library says of bytes that are no archive, or no longer one
    ArithmeticError,
    EOFError,
    LookupError,
    RuntimeError,  # also a password, and a compression that it doesn't know
    ValueError,
    lzma.LZMAError,
    struct.error,
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
)


class _Member(NamedTuple):
    """A file in an archive."""

    name: str
    size: int  # bytes, as the archive says
    kind: str  # "file", "folder", or what has no business here
    open: Callable[[], IO[bytes]] | None


class _ShortNamed(tarfile.TarInfo):
    """An entry whose long name, or whatever else precedes it, is not too long
    for memory."""

    @classmethod
    def frombuf(cls, *header):
        entry = super().frombuf(*header)
        if entry.size > CHUNK and not (entry.isreg() or entry.isdir()):
            raise tarfile.ReadError("a name as long as a book")
        return entry


def unpack(
    archive: str | Path,
    to: str | Path,
    wanted: Iterable[str],
    *,
    progress: bool = True,
) -> None:
    """Take the files called `wanted`, in whatever folder, out of a zip or tar
    archive.

    Args:
        archive: zip, tar, tar.gz, tar.bz2 or tar.xz, whatever its name.
        to: the folder to write into, which is there.
        wanted: plain names; each must be in the archive once.
        progress: show a bar on stderr.

    Raises:
        InputError: if the archive is damaged, lacks a file or has it twice,
            unpacks to far more than photographs would, or holds a link, a
            device or a name that leads out of it.
    """
    archive, to, missing = Path(archive), Path(to), set(wanted)
    all_of_them, total = frozenset(missing), 0
    most = 2 * archive.stat().st_size + SLACK
    bar = {"total": len(missing), "unit": " files", "disable": not progress}
    try:
        with tqdm(desc=archive.name, **bar) as shown:
            for member in _members(archive, to, all_of_them):
                _check(archive, member)
                total += member.size
                if total > most:
                    raise InputError(
                        f"{archive}: unpacks to more than {most / 1e9:.1f} GB, which photographs "
                        "never do; fetch it again from its source"
                    )
                name = PurePosixPath(member.name).name
                if member.kind == "folder" or name not in all_of_them:
                    continue
                if name not in missing:
                    raise InputError(
                        f"{archive}: holds {name} twice; fetch it from its source"
                    )
                missing.remove(name)
                _copy(member, to / name)
                shown.update()
    except InputError:
        raise
    except (*DAMAGE, OSError) as error:
        if isinstance(error, OSError) and error.errno not in (
            None,
            errno.EINVAL,
        ):
            raise  # the disk's, not the archive's
        about = str(error).split("\n")[0] or type(error).__name__
        raise InputError(
            f"{archive}: is damaged ({about}); fetch it again"
        ) from None
    if missing:
        raise InputError(
            f"{archive}: lacks {len(missing)} of {len(all_of_them)} files, such as {min(missing)}; "
            "is it the right archive?"
        )


def _members(
    archive: Path, to: Path, wanted: frozenset[str]
) -> Iterator[_Member]:
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as file:
            entries = file.infolist()
            ours = (
                e.file_size
                for e in entries
                if PurePosixPath(e.filename).name in wanted
            )
            require_free_space(to, sum(ours))
            for entry in entries:
                yield _Member(
                    entry.filename,
                    entry.file_size,
                    _zip_kind(entry),
                    _opens(file, entry),
                )
        return
    with open(archive, "rb") as raw:
        beginning = raw.read(6)
    expand = next(
        (f for magic, f in COMPRESSED.items() if beginning.startswith(magic)),
        open,
    )
    # Read once, front to back, for a tar.gz can't be searched; and to its very
    # end, where its checksum is, which tarfile on its own neither reaches nor
    # compares.
    with expand(archive, "rb") as source:
        try:
            file = tarfile.open(fileobj=source, mode="r|", tarinfo=_ShortNamed)
        except tarfile.ReadError:
            raise InputError(
                f"{archive}: is neither a zip nor a tar archive, or damaged; give the file as its "
                "source hands it out"
            ) from None
        with file:
            for entry in file:
                kind = (
                    "file"
                    if entry.isreg()
                    else "folder"
                    if entry.isdir()
                    else "link or device"
                )
                yield _Member(entry.name, entry.size, kind, _opens(file, entry))
        while rest := source.read(CHUNK):
            # Counted, like all the rest.
            yield _Member("", len(rest), "folder", None)


def _opens(file, entry):
    if isinstance(file, zipfile.ZipFile):
        return lambda: file.open(entry)
    return lambda: file.extractfile(entry)


def _zip_kind(entry: zipfile.ZipInfo) -> str:
    # 0 where the archive was made on Windows
    kind = stat.S_IFMT(entry.external_attr >> 16)
    if entry.is_dir():
        return "folder"
    return "file" if kind in (0, stat.S_IFREG) else "link or device"


def _check(archive: Path, member: _Member) -> None:
    """Refuse what an archive of photographs has no use for, wanted or not."""
    windows = PureWindowsPath(member.name)
    out = (
        ".." in windows.parts
        or member.name.startswith(("/", "\\"))
        or windows.drive
    )
    if out or "\0" in member.name:
        raise InputError(
            f"{archive}: {member.name!r} leads out of it; don't trust it, fetch it from its source"
        )
    if member.kind not in ("file", "folder"):
        raise InputError(
            f"{archive}: {member.name!r} is a {member.kind}; don't trust it, fetch it from its "
            "source"
        )


def _copy(member: _Member, to: Path) -> None:
    """Write a member's bytes: no more of them than the archive said, which have
    been counted."""
    left = member.size
    with member.open() as source, open(to, "xb") as file:
        while chunk := _read(source, left):
            left -= len(chunk)
            file.write(chunk)
        if left:
            raise EOFError(f"{to.name} ends early")
        source.read(1)  # zipfile compares a file's own checksum where it ends


def _read(source: IO[bytes], left: int) -> bytes:
    return source.read(min(CHUNK, left)) if left else b""
