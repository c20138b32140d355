"""Every measured figure in the prose stands on something: `python -m tools.measured` says on what.

A figure is a score, a time, a size, a ratio or a count of data. It may stand in the prose in one of
four ways. Any other is a problem, and so is one whose ground has moved.

- By a role, {measured}`FILE KEY FORMAT`, which prints what a stored file says: for instance
  {measured}`shipped_beam7.json result.bleu4 .1f`.
- In a part of a page that a tool writes, between markers; `make check` compares those as a whole.
- In a chapter whose stored outputs hold the same number, with its unit if it is a short one, or
  whose code has it as a setting.
- In a phrase that book/measured.yml lists, with what it rests on.

`FIGURE` is what counts as one. Formulas, code, citations and shapes such as 14×14 don't.
"""

from __future__ import annotations

import json
import re
import sys
from collections import Counter
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import nbformat
import yaml

GROUNDS = Path("book", "measured.yml")
PLACES = (
    "",
    "book/results",
    "captionlib/assets",
)  # where a FILE is looked for, in this order
PAGES = (
    "README.md",
    "captionlib/assets/flickr8k/README.md",
    "book/*.md",
    "notebooks/*.ipynb",
)

NUMBER = r"(?<![\w.,-])(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?!\d|[.,]\d)"
SPELT = (
    "two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|fifteen|sixteen|twenty|thirty|forty"
    "|fifty|hundred|thousand|million|dozen|half"
)
MEASURES = (
    r"s|ms|(?:milli)?seconds?|minutes?|hours?|days?|weeks?"
    "|[kKMGT]i?B|(?:kilo|mega|giga)?bytes?|points?|nats?|%|per ?cent|×|fold"
    r"|times(?= (?:as|the|more|faster|slower|larger|smaller|longer|shorter|higher|its)\b)"
)
PARTS = (
    r"(?:(?:an?|one|two|three|four)[\s-](?:third|quarter|fifth|tenth|hundredth)s? (?:of|as)"
    r"|(?:about|almost|nearly|over|than) (?:half|twice)|half as)"
)
SCORES = r"(?:BLEU-[1-4]|CIDEr(?:-D)?|ROUGE-L|METEOR)"
FIGURE = re.compile(
    rf"{NUMBER}[\s-]*(?:more )?(?:{MEASURES}|epochs?|parameters?)(?!\w)"  # 12 MB, 80 %, 20 epochs
    rf"|×{NUMBER}"
    rf"|\b(?:{SPELT})[\s-](?:{MEASURES})(?!\w)"  # five times as, two minutes
    rf"|\b{PARTS}\b"  # a third of its work, half as large
    rf"|{SCORES} (?:(?:is|was|of|at|about|near|reaches|reached) )*{NUMBER}"
    r"|(?<![\w.,-])\d{1,3}(?:,\d{3})+(?:\.\d+)?(?![\w,])"  # 6,000
    r"|(?<![\w.,-])\d+\.\d+(?![\w.]*\w)"  # 0.324
)
ROLE = re.compile(r"\{measured\}`([^`]+)`")
NOT_PROSE = [  # in this order
    re.compile(
        r"^```\w*\n.*?^```$", re.DOTALL | re.MULTILINE
    ),  # code; a directive's body stays
    re.compile(
        r"^(?:```|:::)\{[\w-]+\}.*$|^:[\w-]+:.*$", re.MULTILINE
    ),  # its head and options
    re.compile(r"<!--.*?-->", re.DOTALL),
    re.compile(r"\$\$.*?\$\$|\$[^$\s](?:[^$]*?[^$\s])?\$", re.DOTALL),
    re.compile(r"(?:\{[\w:-]+\})?`[^`]*`"),  # roles and code
    re.compile(r"(?<=\])\([^)\s]*\)|https?://\S+"),  # where links lead
    re.compile(r"(?<![\w.,])\d+(?:\s?×\s?\d+)+(?![\w.,]*\d)"),  # shapes
    re.compile(
        r"\b(?:sections?|equations?|chapters?|Python|PyTorch|Apache|version|BY(?:-SA)?|CC0)[\s-][\d.]+",
        re.IGNORECASE,
    ),
]
WRITTEN = re.compile(
    r"<!-- (\w+): written by .*?-->.*?<!-- \1: end -->", re.DOTALL
)
GAP = "\u2400"  # where something was taken out


# ------------------------------------------------------------------------------- what files say


def look_up(file: Path, key: str):
    """What a file says under a key: names and list positions joined by dots.

    After the last step may come `count`, the number of entries. `megabytes` is any file's size.
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
    """A value as prose has it: a Python format, or `~N`, rounded to N digits that count."""
    if form.startswith("~"):
        return f"{float(f'{value:.{form[1:]}g}'):,.0f}"
    return format(value, form)


def stored(spec: str, root: Path = Path()) -> str:
    """The text of a role or a brace, `FILE KEY FORMAT` or `= ARITHMETIC FORMAT`.

    Raises:
        ValueError: the file, the key or the format is not there.
    """
    try:
        if spec.startswith("="):
            *sum_, form = spec[1:].split()
            if not re.fullmatch(r"[\d.e+*/() -]+", "".join(sum_)):
                raise ValueError("arithmetic may hold numbers only")
            return say(eval("".join(sum_), {"__builtins__": {}}), form)
        file, key, *form = spec.split()
        paths = [root / place / file for place in PLACES]
        path = next((path for path in paths if path.is_file()), paths[0])
        return say(look_up(path, key), form[0] if form else "")
    except (OSError, LookupError, TypeError, ValueError, SyntaxError) as error:
        raise ValueError(f"{spec}: {type(error).__name__}: {error}") from None


# ----------------------------------------------------------------------------------- the prose


def on_one_line(text: str) -> str:
    return " ".join(text.split())


def figures(text: str) -> list[re.Match]:
    """The figures in Markdown, roles and generated parts apart, each as a match of `FIGURE`."""
    for pattern in NOT_PROSE:
        text = pattern.sub(f" {GAP} ", text)
    return list(FIGURE.finditer(on_one_line(text)))


class Chapter:
    """What a chapter printed, and the numbers that its code is given."""

    def __init__(self, notebook):
        printed, code = [], []
        for cell in notebook.cells:
            if cell.cell_type != "code":
                continue
            code.append(re.sub(r"#.*", "", cell.source))
            for output in cell.outputs:
                data = output.get("data", {})
                html = re.sub(
                    r"<(style|script)\b.*?</\1>",
                    " ",
                    data.get("text/html", ""),
                    flags=re.S,
                )
                printed += [output.get("text", ""), data.get("text/plain", "")]
                printed.append(re.sub(r"<[^>]*>", " ", html))
        self.printed, self.code = "\n".join(printed), "\n".join(code)

    def holds(self, figure: str) -> str | None:
        """Whether the chapter's outputs or its code have the number of a figure, and which."""
        found = re.search(NUMBER, figure)
        if not found:
            return None
        number = found.group()
        alone = rf"(?<![\w.,]){re.escape(number)}(?!\d|[.,]\d)"
        if len(number) < 3:  # a short one proves nothing without its unit
            unit = figure[found.end() :].strip(" -")
            if unit == "%" and re.search(
                rf"(?<![\w.])0?\.{number.rstrip('0')}0*(?!\d)", self.code
            ):
                return "code"
            spelling = re.escape(unit) if unit else r"(?!)"
            return (
                "output"
                if re.search(rf"{alone}\s*{spelling}(?!\w)", self.printed)
                else None
            )
        if re.search(alone, self.printed):
            return "output"
        plain = rf"(?<![\w.]){re.escape(number.replace(',', ''))}(?![\d.])"
        return "code" if re.search(plain, self.code.replace("_", "")) else None


def read_page(path: Path) -> tuple[str, Chapter | None]:
    """The Markdown of a page, and what it printed if it is a chapter."""
    if path.suffix != ".ipynb":
        return path.read_text(encoding="utf-8"), None
    notebook = nbformat.read(path, as_version=4)
    prose = [c.source for c in notebook.cells if c.cell_type == "markdown"]
    return "\n\n".join(prose), Chapter(notebook)


# ------------------------------------------------------------------------------------ the check


def grounds(root: Path) -> Iterator[tuple[dict, str]]:
    """The entries of book/measured.yml, one for each phrase."""
    path = root / GROUNDS
    for entry in (
        yaml.safe_load(path.read_text(encoding="utf-8"))
        if path.exists()
        else ()
    ):
        phrases = entry["says"]
        for phrase in [phrases] if isinstance(phrases, str) else phrases:
            yield entry, on_one_line(phrase)


def fill_in(phrase: str, root: Path) -> str:
    """A phrase with its braces replaced by what stored files say."""
    return re.sub(
        r"\{([^{}]+)\}", lambda brace: stored(brace.group(1), root), phrase
    )


def measured(entry: dict, page: Path, root: Path) -> float:
    """The number that an entry's words are held against."""
    if "sum" in entry:
        return float(stored(f"= {entry['sum']} .9g", root))
    if "installed" in entry:
        package, *inside = entry["installed"].split("/")
        place = Path(find_spec(package).submodule_search_locations[0], *inside)
        return (
            sum(
                file.stat().st_size
                for file in place.rglob("*")
                if file.is_file()
            )
            / 1e6
        )
    chapter = root / entry["in"] if "in" in entry else page
    found = re.search(entry["output"], read_page(chapter)[1].printed)
    if not found:
        raise ValueError(
            f"no output of {chapter.name} matches {entry['output']}"
        )
    return float(found.group(1).replace(",", ""))


def out_of_range(entry: dict, page: Path, root: Path) -> str | None:
    """What is wrong with an entry whose number has to lie in a range."""
    if "between" not in entry:
        return None
    low, high = entry["between"]
    try:
        value = measured(entry, page, root)
    except (AttributeError, LookupError, OSError, ValueError) as error:
        return str(error)
    return (
        None
        if low <= value <= high
        else f"it is {value:g}, and the words allow {low} to {high}"
    )


def check(root: Path = Path()) -> tuple[list[str], Counter]:
    """Problems, one line each, and how many figures stand on what."""
    problems, counts, used = [], Counter(), set()
    entries = list(grounds(root))
    for path in [p for pattern in PAGES for p in sorted(root.glob(pattern))]:
        name = path.relative_to(root).as_posix()
        text, chapter = read_page(path)
        if text.startswith("<!-- written by tools."):
            counts["generated"] += len(figures(text))
            continue
        for part in WRITTEN.finditer(text):
            counts["generated"] += len(figures(part.group()))
        text = WRITTEN.sub(f"\n\n{GAP}\n\n", text)
        for role in ROLE.findall(text):
            try:
                stored(role, root)
                counts["role"] += 1
            except ValueError as error:
                problems.append(f"{path}: the role {error}")
        text = ROLE.sub(GAP, text)
        for number, (entry, phrase) in enumerate(entries):
            if name not in entry.get("pages", [name]):
                continue
            try:
                wanted = fill_in(phrase, root)
            except ValueError as error:
                problems.append(f"{GROUNDS}: {error}")
                used.add(number)
                continue
            gap = r"\s+".join(re.escape(word) for word in wanted.split())
            text, times = re.subn(rf"(?<!\w){gap}(?!\w)", f" {GAP} ", text)
            if not times:
                if "pages" in entry and wanted != phrase:
                    problems.append(
                        f"{path}: should read '{wanted}', as stored files say"
                    )
                    used.add(number)
                continue
            used.add(number)
            if problem := out_of_range(entry, path, root):
                problems.append(f"{path}: '{phrase}' is stale: {problem}")
            kind = (
                "filled" if wanted != phrase or "between" in entry else "source"
            )
            counts[kind] += times * max(1, len(figures(wanted)))
        for found in figures(text):
            held = chapter and chapter.holds(found.group())
            if held:
                counts[held] += 1
                continue
            around = found.string[max(0, found.start() - 30) : found.end() + 20]
            problems.append(
                f"{path}: '{found.group()}' in '...{around.replace(GAP, '')}...' rests on nothing: "
                "take it from a stored file by the role `measured`, print it in the chapter, or "
                f"say in {GROUNDS} where it comes from"
            )
    for number, (entry, phrase) in enumerate(entries):
        if number not in used:
            where = " or ".join(entry.get("pages", ["any page"]))
            problems.append(f"{GROUNDS}: '{phrase}' is not in {where}")
    return problems, counts


def summary(counts: Counter) -> str:
    kinds = {
        "role": "printed from stored files by a role",
        "generated": "in generated parts",
        "filled": "compared with what was stored",
        "output": "in outputs",
        "code": "settings in the chapter's code",
        "source": "from a named source",
    }
    parts = ", ".join(
        f"{counts[kind]} {words}" for kind, words in kinds.items()
    )
    return f"Figures in the prose: {counts.total()} bound ({parts})."


def main() -> int:
    problems, counts = check()
    print("\n".join([*problems, summary(counts)]))
    return bool(problems)


if __name__ == "__main__":
    sys.exit(main())
