"""The tables of book/data.md, made from the file that `captionlib download`
reads.

`tools.results` writes them with the other tables, and `make check` compares
page and file.
"""

from __future__ import annotations

import json
from pathlib import Path

BEGIN = "<!-- datasets: written by tools.results -->"
END = "<!-- datasets: end -->"
FILE = Path("captionlib", "assets", "data_sets.json")


def render(stored: dict) -> str:
    """Splits and terms of each set, then its files with sources and
    checksums."""
    sets = stored["sets"].values()
    lines = [
        "",
        "| set | train | validation | test | terms |",
        "| --- | ---: | ---: | ---: | --- |",
    ]
    for data in sets:
        counts = data["splits"]
        train = " + ".join(
            f"{counts[name]:,}"
            for name in ("train", "restval")
            if name in counts
        )
        lines.append(
            f"| {data['title']} {{cite}}`{data['cite']}` | {train} | "
            f"{counts['val']:,} | {counts['test']:,} | {data['terms']} |"
        )
    lines += [
        "",
        "| file | size | from | checksum | published by |",
        "| --- | ---: | --- | --- | --- |",
    ]
    captions = stored["captions"] | {
        "title": "captions and splits of all three"
    }
    for archive in [
        captions,
        *(a | {"title": d["title"]} for d in sets for a in d["archives"]),
    ]:
        lines.append(
            f"| `{archive['file']}`, {archive['title']} | "
            f"{_size(archive['bytes'])} | {_sources(archive)} | "
            f"{_checksum(archive)} | {archive.get('published_by', '–')} |"
        )
    return "\n".join([*lines, "", ""])


def _size(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"


def _sources(archive: dict) -> str:
    if "form" in archive:
        return f"[a form]({archive['form']}), by hand"
    hosts = [address.split("/")[2] for address in archive["addresses"]]
    return ", then ".join(
        f"[{host}]({address})"
        for host, address in zip(hosts, archive["addresses"], strict=True)
    )


def _checksum(archive: dict) -> str:
    """The start of a checksum, enough to compare by eye."""
    if "checksum" not in archive:
        return "of the first download"
    kind, value = archive["checksum"].split(":")
    return f"{kind} `{value[:8]}…`"


def page(book: Path) -> tuple[Path, str] | None:
    """The page and the text between its markers, if the book has them."""
    path = book / "data.md"
    if not path.exists() or BEGIN not in path.read_text(encoding="utf-8"):
        return None
    return path, render(
        json.loads((book.parent / FILE).read_text(encoding="utf-8"))
    )
