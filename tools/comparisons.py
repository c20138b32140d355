"""Tables of the comparisons in chapters 12 to 15.

A chapter that has a pair of markers for NAME gets the table of
book/results/experiments/NAME.json, which `python -m tools.experiments NAME`
stores. `tools.results` writes it.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

__all__ = ["pages", "table_of"]

MARKED = re.compile(
    r"# <!-- comparison (\w+): written by tools\.results -->\n"
    r"(?:.*?)# <!-- comparison: end -->\n",
    re.DOTALL,
)
TITLES = {
    "bleu4": "BLEU-4",
    "cider_d": "CIDEr-D",
    "correctness": "weight in the box",
    "before": "a word earlier",
    "pointing": "peak in the box",
    "fall": "nats lost",
    "cost": "cost",
    "cider_d_greedy": "CIDEr-D, greedy",
    "entropy": "entropy, nats",
    "words": "words",
    "distinct": "distinct captions",
    "seconds": "seconds",
}
SUBSCRIPT = re.compile(r"([αλ])_(\w)")
DIGITS = {
    "bleu4": 1,
    "cider_d": 1,
    "cider_d_greedy": 1,
    "distinct": 0,
    "seconds": 0,
}
SCENES = "{train:,} drawn scenes for training, {test:,} for these figures"


def _number(value: float, digits: int, sign: bool = False) -> str:
    text = f"{abs(value):.{digits}f}"
    if not float(text):
        return text
    return ("\u2212" if value < 0 else "+" * sign) + text


def cell(found: dict, measure: str) -> str:
    """Mean ± spread; or the mean and the interval of the paired difference.

    The mean is bold if the interval, as printed, leaves out 0.
    """
    digits = DIGITS.get(measure, 2)
    mean = _number(found["mean"], digits)
    if measure == "cost":
        return f"{found['mean']:.1f}×"
    if measure == "seconds":
        return mean
    if "sd" not in found:  # a single run
        return mean
    if (gap := found.get("gap")) is None:
        return f"{mean}<br>± {_number(found['sd'], digits)}"
    if round(gap["low"], digits) > 0 or round(gap["high"], digits) < 0:
        mean = f"**{mean}**"
    low, high = (_number(gap[end], digits, True) for end in ("low", "high"))
    return f"{mean}<br>({low} to {high})"


def table_of(stored: dict) -> list[str]:
    """A row for each captioner, the baseline first, and where it comes from."""
    result, settings = stored["result"], stored["settings"]
    baseline = settings["baseline"]
    columns = settings["columns"]
    lines = [
        ["", *(TITLES[column] for column in columns)],
        ["---", *(["---:"] * len(columns))],
    ]
    for row, measures in result.items():
        cells = [
            cell(measures[column], column) if column in measures else "–"
            for column in columns
        ]
        lines.append([SUBSCRIPT.sub(r"\1<sub>\2</sub>", row), *cells])
    runs = stored["runs"][baseline]
    seeds = ", ".join(str(run["seed"]) for run in runs)
    single = [row for row in stored["runs"].values() if len(row) < len(runs)]
    versions = ", ".join(f"{k} {v}" for k, v in stored["versions"].items())
    about = settings.get("about") or SCENES.format(**stored["data"])
    return [
        *("| " + " | ".join(line) + " |" for line in lines),
        "",
        f"<small>{about}. Seeds {seeds}: *{baseline}* with mean ± standard "
        "deviation; the others with the mean and, in brackets, the 95% "
        "interval of the difference from it, paired by seed (Student's t). Bold: "
        "the interval leaves out 0."
        + " Rows without an interval have one seed." * bool(single)
        + f" Versions: {versions}.</small>",
        "",
    ]


def pages(root: Path) -> dict[Path, str]:
    """The expected text of each chapter that has such markers."""
    wanted = {}
    for path in sorted((root / "notebooks").glob("*.py")):
        script = path.read_text(encoding="utf-8")

        def fill(match: re.Match) -> str:
            name = match[1]
            file = root / "book" / "results" / "experiments" / f"{name}.json"
            lines = table_of(json.loads(file.read_text(encoding="utf-8")))
            text = "\n".join(f"# {line}".rstrip() for line in ["", *lines])
            return (
                f"# <!-- comparison {name}: written by tools.results -->\n"
                f"{text}\n# <!-- comparison: end -->\n"
            )

        if MARKED.search(script):
            wanted[path] = MARKED.sub(fill, script)
    return wanted
