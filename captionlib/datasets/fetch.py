"""Fetch one large file over HTTP, with retries, resumption and mirrors.

A partial download is kept beside the file, and resumed by the next attempt. It
is checked before it takes the file's name.
"""

from __future__ import annotations

import errno
import hashlib
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import requests
from tqdm.auto import tqdm

from captionlib.io.files import (
    InputError,
    read_json,
    require_free_space,
    write_json,
)

__all__ = ["DownloadError", "Patience", "checksum_of", "fetch"]

CHUNK = 2**16  # bytes lost, at most, when a connection breaks
PASSING = (408, 425, 429)  # 4xx answers worth another attempt


class DownloadError(RuntimeError):
    """A file can't be fetched, through no fault of the user; one line says
    why."""


@dataclass(frozen=True)
class Patience:
    """How often and how long to try a server."""

    tries: int = 5  # attempts in a row at one address that bring nothing new
    # Seconds of silence before a connection is given up.
    timeout: float = 30.0
    # Seconds before the second attempt, doubled before each further one.
    pause: float = 1.0


def fetch(
    addresses: Sequence[str],
    to: str | Path,
    *,
    checksum: str | None = None,
    patience: Patience | None = None,
    progress: bool = True,
) -> str:
    """Fetch a file from the first address that has it, unless it is there.

    If interrupted, call again to resume: what has arrived is kept beside `to`,
    in a file whose name ends in ".part".

    Args:
        addresses: mirrors of the file, tried in this order.
        to: the file to write.
        checksum: the file's, such as "md5:0a1b..."; None if unknown.
        patience: retries and timeouts, for each address.
        progress: show a bar on stderr.

    Returns:
        The address that it came from, "" if it was there already.

    Raises:
        DownloadError: if no address has the file.
        InputError: if the disk is too full for it.
    """
    to, reasons = Path(to), []
    to.parent.mkdir(parents=True, exist_ok=True)
    if to.is_file() and (
        checksum is None or checksum_of(to, checksum) == checksum
    ):
        return ""
    for address in addresses:
        get = _Resuming(
            to, checksum is not None, progress, patience or Patience()
        )
        try:
            reason = _fetch_from(address, get, to, checksum)
        except OSError as error:
            if error.errno in (errno.ENOSPC, getattr(errno, "EDQUOT", None)):
                raise InputError(
                    f"{to}: the disk is full; make room and run again"
                ) from None
            raise
        if reason is None:
            return address
        reasons.append(f"{address} {reason}")
    raise DownloadError(
        f"{to.name}: could not be fetched ({'; '.join(reasons)}); try again "
        "later, or fetch it by hand and give it with --archive"
    )


def checksum_of(path: str | Path, like: str = "sha256:") -> str:
    """A file's checksum, by the method at the start of `like`, such as
    "md5:"."""
    method = like.partition(":")[0]
    digest = hashlib.new(method)
    with open(path, "rb") as file:
        while block := file.read(2**22):
            digest.update(block)
    return f"{method}:{digest.hexdigest()}"


def _fetch_from(
    address: str, get: _Resuming, to: Path, checksum: str | None
) -> str | None:
    """Fetch from one address, with retries; return None, or why it failed."""
    patience, reason = get.patience, None
    furthest, failures, mixed = get.arrived(), 0, False
    while failures < patience.tries:
        if failures:
            time.sleep(patience.pause * 2 ** (failures - 1))
        try:
            get(address)
            if checksum in (None, checksum_of(get.part, checksum or "sha256:")):
                os.replace(get.part, to)
                get.forget()
                return None
            get.forget()
            reason = "has another file: its checksum differs"
            if mixed or not get.resumed:
                return reason
            # The resumed parts don't belong together: once more, from zero.
            mixed, furthest = True, 0
        except requests.RequestException as error:
            reason = _why(error, patience.timeout)
            status = getattr(error.response, "status_code", 500)
            if status < 500 and status not in PASSING:
                return reason
        if get.arrived() > furthest:
            furthest, failures = get.arrived(), 0
        failures += 1
    return f"{reason}, {patience.tries} times"


def _why(error: requests.RequestException, timeout: float) -> str:
    """What went wrong, in words that follow the address."""
    if error.response is not None:
        return f"answers {error.response.status_code} {error.response.reason}"
    if isinstance(error, requests.Timeout) or "timed out" in str(error).lower():
        return f"is silent for {timeout:g} seconds"
    if isinstance(error, requests.ConnectionError) and "Max retries" in str(
        error
    ):
        return "can't be reached"
    return (
        "is not a valid address"
        if isinstance(error, ValueError)
        else "breaks off"
    )


class _BrokenOff(requests.RequestException):
    """The answer is not the rest of the file, or not all of it."""


class _Resuming:
    """Fetches an address into `part`, asking only for what has not arrived."""

    def __init__(
        self, to: Path, checked: bool, progress: bool, patience: Patience
    ):
        self.part = to.with_name(to.name + ".part")
        self.notes = to.with_name(to.name + ".json")
        self.checked, self.progress, self.patience = checked, progress, patience
        self.resumed = False

    def arrived(self) -> int:
        return self.part.stat().st_size if self.part.exists() else 0

    def forget(self) -> None:
        self.part.unlink(missing_ok=True)
        self.notes.unlink(missing_ok=True)

    def __call__(self, url: str) -> None:
        notes = self._read_notes()
        self.resumed = self.arrived() > 0 and self.arrived() == notes.get(
            "bytes"
        )
        if not self.resumed:
            self._request(url, notes)

    def _read_notes(self) -> dict:
        try:
            notes = read_json(self.notes)
        except InputError:
            notes = None
        return notes if isinstance(notes, dict) else {}

    def _request(self, url: str, notes: dict) -> None:
        start = self._may_resume(url, notes)
        # Ranges count the bytes of the uncompressed file.
        headers = {"Accept-Encoding": "identity"}
        if start:
            headers["Range"] = f"bytes={start}-"
            if url == notes.get("address"):
                # A file that has changed is sent whole.
                headers["If-Range"] = notes["version"]
        with requests.get(
            url, headers=headers, stream=True, timeout=self.patience.timeout
        ) as response:
            # What has arrived is not the start of this file.
            if response.status_code == 416:
                self.forget()
                raise _BrokenOff
            response.raise_for_status()
            if response.status_code == 206 and not _goes_on(
                response, start, url, notes
            ):
                self.forget()
                raise _BrokenOff
            if response.status_code != 206:
                start = 0  # the server ignored the range
            self.resumed, total = start > 0, _size(response)
            if total is not None:
                require_free_space(self.part.parent, total - start)
            self._write(response, url, start, total)
        if total is not None and self.arrived() != total:
            raise _BrokenOff

    def _may_resume(self, url: str, notes: dict) -> int:
        """The byte to resume from; 0 if a wrong joint could go unnoticed."""
        same = url == notes.get("address") and notes.get("version")
        elsewhere = (
            self.checked and notes.get("bytes") and url != notes.get("address")
        )
        return self.arrived() if same or elsewhere else 0

    def _write(self, response, url: str, start: int, total: int | None) -> None:
        notes = {"address": url, "version": _version(response), "bytes": total}
        with open(self.part, "ab") as file:
            file.truncate(start)
            write_json(self.notes, notes)
            bar = {
                "unit": "B",
                "unit_scale": True,
                "disable": not self.progress,
            }
            with tqdm(
                desc=self.part.stem, total=total, initial=start, **bar
            ) as shown:
                for chunk in response.iter_content(CHUNK):
                    file.write(chunk)
                    shown.update(len(chunk))


def _size(response) -> int | None:
    """The size of the whole file in bytes, if the server states it."""
    stated = response.headers.get("Content-Length", "")
    if response.status_code == 206:
        stated = response.headers.get("Content-Range", "").rpartition("/")[2]
    return int(stated) if stated.isdecimal() else None


def _version(response) -> str | None:
    """The file's version: a strong ETag, or the time of its last change."""
    etag = response.headers.get("ETag", "W/")
    return (
        response.headers.get("Last-Modified") if etag.startswith("W/") else etag
    )


def _goes_on(response, start: int, url: str, notes: dict) -> bool:
    """Whether a 206 answer continues what has arrived."""
    place = response.headers.get("Content-Range", "")
    same = url != notes["address"] or _version(response) == notes["version"]
    return (
        place.startswith(f"bytes {start}-")
        and _size(response) == notes["bytes"]
        and same
    )
