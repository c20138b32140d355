"""Figures that pages print from stored files, by the role {measured}`FILE KEY
FORMAT`.

For instance {measured}`shipped_beam7.json result.bleu4 .1f`. `make check` reads
every such role; the book's Sphinx helper prints it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

# Where FILE is looked for, in this order.
PLACES = ("", "book/results", "captionlib/assets")
ROLE = re.compile(r"\{measured\}`([^`]+)`")
SHOWN = re.compile(r"(?<!`)``(?!`).*?(?<!`)``(?!`)", re.DOTALL)  # as code


def look_up(file: Path, key: str):
    """What a file says under a key: names and list positions joined by dots.

    After the last step may come `count`, the number of entries. `megabytes` is
    any file's size.
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
    """A value as prose has it: a Python format, or `~N`, rounded to N
    significant digits."""
    if form.startswith("~"):
        return f"{float(f'{value:.{form[1:]}g}'):,.0f}"
    return format(value, form)


def stored(spec: str, root: Path = Path()) -> str:
    """The text that a role `FILE KEY FORMAT` prints.

    Raises:
        ValueError: the file, the key or the format is not there.
    """
    try:
        file, key, *form = spec.split()
        paths = [root / place / file for place in PLACES]
        path = next((path for path in paths if path.is_file()), paths[0])
        return say(look_up(path, key), form[0] if form else "")
    except (OSError, LookupError, TypeError, ValueError) as error:
        raise ValueError(f"{spec}: {type(error).__name__}: {error}") from None


def problems(root: Path = Path()) -> Iterator[str]:
    """One line for each role in the book's pages that reads nothing."""
    for page in sorted(root.glob("book/*.md")):
        text = SHOWN.sub("", page.read_text(encoding="utf-8"))
        for role in ROLE.findall(text):
            try:
                stored(role, root)
            except ValueError as error:
                yield f"{page}: the role {error}"
