"""Print figures from stored files, by the role {measured}`FILE KEY FORMAT`.

An example is {measured}`shipped_beam7.json result.bleu4 .1f`. `make check`
checks every such role; the book's Sphinx extension prints it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

# Folders in which FILE is looked up, in this order.
PLACES = ("", "book/results", "captionlib/assets")
ROLE = re.compile(r"\{measured\}`([^`]+)`")
SHOWN = re.compile(r"(?<!`)``(?!`).*?(?<!`)``(?!`)", re.DOTALL)  # as code


def look_up(file: Path, key: str):
    """A file's value under a key: names and list indices joined by dots.

    A final `count` is the number of entries. `megabytes` is the size of any
    file.
    """
    if key == "megabytes":
        return file.stat().st_size / 1e6
    text = file.read_text(encoding="utf-8")
    if file.suffix == ".jsonl":
        value = [json.loads(line) for line in text.splitlines()]
    else:
        value = json.loads(text)
    for step in key.split("."):
        if step == "count" and not (isinstance(value, dict) and step in value):
            value = len(value)
        else:
            value = value[int(step)] if isinstance(value, list) else value[step]
    return value


def say(value, form: str) -> str:
    """Format a value: by a Python format, or `~N` for N significant digits."""
    if form.startswith("~"):
        return f"{float(f'{value:.{form[1:]}g}'):,.0f}"
    return format(value, form)


def stored(spec: str, root: Path = Path()) -> str:
    """The text that a role `FILE KEY FORMAT` prints.

    Raises:
        ValueError: if the file, the key or the format is missing.
    """
    try:
        file, key, *form = spec.split()
        paths = [root / place / file for place in PLACES]
        path = next((path for path in paths if path.is_file()), paths[0])
        return say(look_up(path, key), form[0] if form else "")
    except (OSError, LookupError, TypeError, ValueError) as error:
        raise ValueError(f"{spec}: {type(error).__name__}: {error}") from None


def problems(root: Path = Path()) -> Iterator[str]:
    """One line for each role in the book's pages that fails."""
    for page in sorted(root.glob("book/*.md")):
        text = SHOWN.sub("", page.read_text(encoding="utf-8"))
        for role in ROLE.findall(text):
            try:
                stored(role, root)
            except ValueError as error:
                yield f"{page}: the role {error}"
