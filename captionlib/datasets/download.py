"""Download a data set: photographs and Karpathy's JSON, ready for `prepare`.

assets/data_sets.json holds the address, size and checksum of each archive, and
who published the checksum. The book's table of data sets is made from it, too.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from captionlib.datasets.fetch import (
    DownloadError,
    Patience,
    checksum_of,
    fetch,
)
from captionlib.datasets.unpack import unpack
from captionlib.io.files import (
    ASSETS,
    InputError,
    atomic_folder,
    atomic_group,
    read_json,
    require_free_space,
    write_json,
)
from captionlib.io.karpathy import listed_images

__all__ = ["DATA_SETS", "Downloaded", "download"]

DATA_SETS = ASSETS / "data_sets.json"
RECORD = "checksums.json"  # of what was fetched, beside the data
ROOM = 1.1  # size of unpacked photographs relative to their archive


class Downloaded(NamedTuple):
    """What `prepare` needs."""

    karpathy_json: Path
    images: Path
    notes: list[str]  # warnings, a line each


def download(
    name: str,
    to: str | Path,
    archives: Sequence[str | Path] = (),
    *,
    keep_archives: bool = False,
    patience: Patience | None = None,
    progress: bool = True,
    table: str | Path = DATA_SETS,
) -> Downloaded:
    """Fetch and unpack a data set; if interrupted, call again to continue.

    Each archive is checked against its published checksum. If none was
    published, the checksum of the first download is stored in checksums.json in
    `to`, and later downloads must match it.

    Args:
        name: flickr8k, flickr30k or coco.
        to: the folder to write: the JSON, a folder of photographs,
            checksums.json.
        archives: files fetched by hand, under their original names; for a set
            with a single archive, any name will do.
        keep_archives: leave unpacked archives in `to`/downloads.
        patience: retries and timeouts.
        progress: show bars on stderr.
        table: a file to use in place of assets/data_sets.json.

    Raises:
        InputError: if `name` is unknown, an archive is damaged or must be
            fetched by hand, or the disk is too small. What has been downloaded
            stays.
        DownloadError: if a file can't be fetched from any address.
    """
    known = read_json(table)
    if name not in known["sets"]:
        raise InputError(
            f"{name}: unknown data set; expected one of "
            f"{', '.join(known['sets'])}"
        )
    data_set, to = known["sets"][name], Path(to)
    parts = [known["captions"], *data_set["archives"]]
    given = _match([Path(path) for path in archives], parts)
    images, json_path = to / data_set["images"], to / data_set["json"]
    for part in data_set["archives"]:  # fail before anything is fetched
        if (
            part.get("form")
            and part["file"] not in given
            and not images.is_dir()
        ):
            raise InputError(
                f"{name}: its photographs are handed out through a form; fill "
                f"it in at {part['form']}, then give the file: captionlib "
                f"download {name} --to {to} --archive {part['file']}"
            )

    store = _Store(to, given, keep_archives, patience, progress)
    try:
        if not json_path.is_file():
            store.require_room(parts)
            with store.archive(known["captions"]) as archive:
                with atomic_group(to, seal=json_path.name) as folder:
                    unpack(archive, folder, [json_path.name], progress=False)
        missing = _missing(
            listed_images(json_path), images, data_set["archives"]
        )
        store.require_room([part for part, _ in missing])
        for part, wanted in missing:
            with store.archive(part) as archive:
                with atomic_folder(images / part["folder"]) as folder:
                    unpack(archive, folder, wanted, progress=progress)
    except OSError as error:
        if error.errno in (errno.ENOSPC, getattr(errno, "EDQUOT", None)):
            raise InputError(
                f"{to}: the disk is full; make room and run again"
            ) from None
        raise
    return Downloaded(json_path, images, store.notes)


def _match(paths: list[Path], parts: list[dict]) -> dict[str, Path]:
    """The given files, by the names of the archives that they are."""
    names, given = [part["file"] for part in parts], {}
    for path in paths:
        if not path.is_file():
            raise InputError(f"{path}: no such file; check the path")
        name = path.name
        if name not in names:
            # More than captions and one archive of photographs.
            if len(names) != 2:
                raise InputError(
                    f"{path}: is not one of this set's archives; give it its "
                    f"original name, one of {', '.join(names)}"
                )
            name = names[1]
        if name in given:
            raise InputError(
                f"{path}: {name} is given twice; give each archive once"
            )
        given[name] = path
    return given


def _missing(
    listed: list[str], images: Path, parts: list[dict]
) -> list[tuple[dict, set[str]]]:
    """The archives still needed, each with the names of its photographs."""
    missing, left = [], len(listed)
    for part in parts:
        folder = Path(part["folder"])
        wanted = {
            Path(name).name for name in listed if Path(name).parent == folder
        }
        left -= len(wanted)
        if not all((images / folder / name).is_file() for name in wanted):
            missing.append((part, wanted))
    if left:
        raise InputError(
            f"{images}: {left} photographs are in none of the archives; is "
            "this the set's own JSON?"
        )
    return missing


class _Store:
    """Finds archives: given or downloaded, with a record of their checksums."""

    def __init__(
        self, to: Path, given: dict, keep: bool, patience, progress: bool
    ):
        self.to, self.given, self.keep = to, given, keep
        self.patience, self.progress = patience, progress
        self.folder, self.record = to / "downloads", to / RECORD
        self.notes: list[str] = []

    def require_room(self, parts: list[dict]) -> None:
        """Raise `InputError` unless the disk holds these archives and their
        contents."""
        fetched = [
            part["bytes"] for part in parts if part["file"] not in self.given
        ] or [0]
        # Unless kept, archives are deleted one by one.
        own = sum(fetched) if self.keep else max(fetched)
        require_free_space(
            self.to, int(sum(part["bytes"] for part in parts) * ROOM + own)
        )

    @contextmanager
    def archive(self, part: dict) -> Iterator[Path]:
        """Yield a checked archive; record its checksum if the block
        succeeds."""
        name, record = part["file"], self._read_record()
        expected = part["checksum"] or record.get(name, {}).get("checksum")
        if name in self.given:
            path = self.given[name]
            source = str(path)
        else:
            path = self.folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            how = {
                "checksum": expected,
                "patience": self.patience,
                "progress": self.progress,
            }
            try:
                source = fetch(part["addresses"], path, **how)
            except DownloadError as error:
                if part["checksum"] or not expected:
                    raise
                raise DownloadError(
                    f"{error}; the expected checksum is that of the first "
                    f"download, in {self.record}"
                ) from None
        found = checksum_of(path, expected or "sha256:")
        # An archive given by hand may have been repacked.
        if expected and found != expected:
            self.notes.append(
                f"{path}: its checksum is not the published one; used all the "
                "same"
            )
        try:
            yield path
        except InputError:
            if name not in self.given and expected is None:
                # Without a checksum, this may be a login page.
                path.unlink()
            raise
        if expected is None or found == expected:
            published = part["checksum"] is not None
            about = {"checksum": found, "published": published, "from": source}
            write_json(
                self.record, self._read_record() | {name: about}, indent=1
            )
        if name not in self.given and not self.keep:
            path.unlink()
            if not any(self.folder.iterdir()):
                self.folder.rmdir()

    def _read_record(self) -> dict:
        if not self.record.exists():
            return {}
        record = read_json(self.record)
        if not isinstance(record, dict) or not all(
            isinstance(r, dict) for r in record.values()
        ):
            raise InputError(
                f"{self.record}: was not written by download; delete it"
            )
        return record
