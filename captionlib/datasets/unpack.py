"""Extract named files from an untrusted archive.

Names in the archive never become paths: a file is extracted only if its name is
one of those wanted, and under that name. An archive with suspicious entries is
rejected before it costs memory or disk space.
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

# Bytes beyond twice its own size that an archive may unpack to: photographs
# hardly compress.
SLACK = 2**28
CHUNK = 2**20
COMPRESSED = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ": lzma.open}
# What the standard library raises for bytes that are not an archive, or not any
# more.
DAMAGE = (
    ArithmeticError,
    EOFError,
    LookupError,
    RuntimeError,  # also for passwords and unknown compression methods
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
    kind: str  # "file", "folder", or something unwanted
    open: Callable[[], IO[bytes]] | None


class _ShortNamed(tarfile.TarInfo):
    """A tar entry that limits the size of long names and other headers."""

    @classmethod
    def frombuf(cls, *header):
        entry = super().frombuf(*header)
        if entry.size > CHUNK and not (entry.isreg() or entry.isdir()):
            raise tarfile.ReadError("an oversized name")
        return entry


def unpack(
    archive: str | Path,
    to: str | Path,
    wanted: Iterable[str],
    *,
    progress: bool = True,
) -> None:
    """Extract the files named in `wanted` from a zip or tar archive.

    Args:
        archive: zip, tar, tar.gz, tar.bz2 or tar.xz, with any name.
        to: an existing folder.
        wanted: names without a folder; each must occur once in the archive, in
            any folder.
        progress: show a bar on stderr.

    Raises:
        InputError: if the archive is damaged, lacks a file or holds it twice,
            unpacks to far more than photographs would, or holds a link, a
            device or a path that leads out of it.
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
                        f"{archive}: unpacks to more than {most / 1e9:.1f} GB, "
                        "which photographs never do; fetch it again from its "
                        "source"
                    )
                name = PurePosixPath(member.name).name
                if member.kind == "folder" or name not in all_of_them:
                    continue
                if name not in missing:
                    raise InputError(
                        f"{archive}: holds {name} twice; fetch it from its "
                        "source"
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
            raise  # the disk is at fault, not the archive
        about = str(error).split("\n")[0] or type(error).__name__
        raise InputError(
            f"{archive}: is damaged ({about}); fetch it again"
        ) from None
    if missing:
        raise InputError(
            f"{archive}: lacks {len(missing)} of {len(all_of_them)} files, "
            f"such as {min(missing)}; is it the right archive?"
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
    # Read once, front to back, since a tar.gz can't be searched; and to its
    # very end, to check its checksum, which tarfile alone does not.
    with expand(archive, "rb") as source:
        try:
            file = tarfile.open(fileobj=source, mode="r|", tarinfo=_ShortNamed)
        except tarfile.ReadError:
            raise InputError(
                f"{archive}: is neither a zip nor a tar archive, or damaged; "
                "give the original file"
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
            # Counted towards the limit.
            yield _Member("", len(rest), "folder", None)


def _opens(file, entry):
    if isinstance(file, zipfile.ZipFile):
        return lambda: file.open(entry)
    return lambda: file.extractfile(entry)


def _zip_kind(entry: zipfile.ZipInfo) -> str:
    # 0 if the archive was made on Windows
    kind = stat.S_IFMT(entry.external_attr >> 16)
    if entry.is_dir():
        return "folder"
    return "file" if kind in (0, stat.S_IFREG) else "link or device"


def _check(archive: Path, member: _Member) -> None:
    """Reject entries that an archive of photographs has no use for."""
    windows = PureWindowsPath(member.name)
    out = (
        ".." in windows.parts
        or member.name.startswith(("/", "\\"))
        or windows.drive
    )
    if out or "\0" in member.name:
        raise InputError(
            f"{archive}: {member.name!r} leads out of the archive; don't trust "
            "it, fetch it from its source"
        )
    if member.kind not in ("file", "folder"):
        raise InputError(
            f"{archive}: {member.name!r} is a {member.kind}; don't trust it, "
            "fetch it from its source"
        )


def _copy(member: _Member, to: Path) -> None:
    """Write a member's bytes, at most as many as the archive states."""
    left = member.size
    with member.open() as source, open(to, "xb") as file:
        while chunk := _read(source, left):
            left -= len(chunk)
            file.write(chunk)
        if left:
            raise EOFError(f"{to.name} ends early")
        source.read(1)  # at the end, zipfile compares the member's checksum


def _read(source: IO[bytes], left: int) -> bytes:
    return source.read(min(CHUNK, left)) if left else b""
