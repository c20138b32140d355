"""Get a data set: its photographs, and Karpathy's JSON of captions and splits,
ready for `prepare`.

Written by hand. assets/data_sets.json says where each set is, how large, its
checksum, and who published that; the book's table of data sets is drawn from
the same file.
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
ROOM = 1.1  # what photographs take on a disk, as a multiple of their archive


class Downloaded(NamedTuple):
    """What `prepare` wants."""

    karpathy_json: Path
    images: Path
    notes: list[str]  # a line for each thing worth knowing that is no error


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
    """Fetch and unpack a data set; stopped at any moment and called again, it
    goes on.

    Each archive is checked against the checksum that was published for it.
    Where none was, the first download's goes into checksums.json in `to`, and
    later ones must have the same.

    Args:
        name: flickr8k, flickr30k or coco.
        to: the folder to write: the JSON, a folder of photographs,
            checksums.json.
        archives: files that were fetched by hand. One that is called as the
            set's own is taken for it; of a set with one archive, any name will
            do.
        keep_archives: leave what was fetched in `to`/downloads after it was
            unpacked.
        patience: with servers.
        progress: show bars on stderr.
        table: another file like assets/data_sets.json.

    Raises:
        InputError: if `name` is unknown, an archive is needed and not given, or
            is damaged, or the disk is too small. What had arrived before stays.
        DownloadError: if no address has a file.
    """
    known = read_json(table)
    if name not in known["sets"]:
        raise InputError(
            f"{name}: is no data set known here; give {', '.join(known['sets'])}"
        )
    data_set, to = known["sets"][name], Path(to)
    parts = [known["captions"], *data_set["archives"]]
    given = _match([Path(path) for path in archives], parts)
    images, json_path = to / data_set["images"], to / data_set["json"]
    for part in data_set["archives"]:  # said before anything is fetched
        if (
            part.get("form")
            and part["file"] not in given
            and not images.is_dir()
        ):
            raise InputError(
                f"{name}: its photographs are handed out through a form; fill it in at "
                f"{part['form']}, then give the file: captionlib download {name} --to {to} "
                f"--archive {part['file']}"
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
    """The files that were given, by the names under which the set's own
    archives are known."""
    names, given = [part["file"] for part in parts], {}
    for path in paths:
        if not path.is_file():
            raise InputError(f"{path}: no such file; check the path")
        name = path.name
        if name not in names:
            if len(names) != 2:  # the captions and one of photographs
                raise InputError(
                    f"{path}: is none of this set's archives; name it as its source does, one of "
                    f"{', '.join(names)}"
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
    """The archives that have something to add, each with the names of its
    photographs."""
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
            f"{images}: {left} photographs are in no archive; is the JSON the set's?"
        )
    return missing


class _Store:
    """Where archives come from, and what is known of them."""

    def __init__(
        self, to: Path, given: dict, keep: bool, patience, progress: bool
    ):
        self.to, self.given, self.keep = to, given, keep
        self.patience, self.progress = patience, progress
        self.folder, self.record = to / "downloads", to / RECORD
        self.notes: list[str] = []

    def require_room(self, parts: list[dict]) -> None:
        """Raise `InputError` unless the disk takes what these archives hold,
        and themselves."""
        fetched = [
            part["bytes"] for part in parts if part["file"] not in self.given
        ] or [0]
        # Else one lies there at a time.
        own = sum(fetched) if self.keep else max(fetched)
        require_free_space(
            self.to, int(sum(part["bytes"] for part in parts) * ROOM + own)
        )

    @contextmanager
    def archive(self, part: dict) -> Iterator[Path]:
        """An archive, checked; when it was used well its checksum is kept, and
        it may go."""
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
                    f"{error}; the checksum is that of the first download, in {self.record}"
                ) from None
        found = checksum_of(path, expected or "sha256:")
        # Given by hand: it may have been packed anew.
        if expected and found != expected:
            self.notes.append(
                f"{path}: is not the archive whose checksum is known; taken for what it holds"
            )
        try:
            yield path
        except InputError:
            if name not in self.given and expected is None:
                # Nobody vouches for it: a page to log in, perhaps.
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
                f"{self.record}: is not what download wrote; delete it"
            )
        return record
