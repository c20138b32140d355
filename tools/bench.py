"""The text and the figure of "Speed and memory", from stored benchmarks.

`python -m benchmarks --store` stores the results; `python -m tools.results`
writes text and figure.
"""

from __future__ import annotations

import json
import math
from html import escape
from pathlib import Path

BOOK = Path(__file__).parent.parent / "book"
STORED = BOOK / "results" / "bench.json"
FIGURE = Path("figures", "bench.svg")  # beside the page
BEGIN, END = "<!-- bench: written by tools.results -->", "<!-- bench: end -->"
# On a light page and on a dark one.
COLOURS = {
    "ink": ("#222222", "#ececec"),
    "ground": ("#ffffff", "#121212"),
    "met": ("#1f5fa8", "#7db3ee"),
    "missed": ("#f3d9b8", "#7a5524"),
    "edge": ("#1f3a5f", "#b8b8b8"),
}
ALT = (
    "A bar for each measurement, the longer the better. The target is one "
    "vertical line for all, and a bar that crosses it meets its target. {met} "
    "of {count} do: "
)


def amount(value: float, unit: str) -> str:
    """Format a number for the table: '5.1 ×', '1.04 ×', '0.8%'."""
    digits = 2 if value < 2 and unit in "×s" else 1 if value < 10 else 0
    return f"{value:.{digits}f}{spaced(unit)}"


def spaced(unit: str) -> str:
    """A unit as it follows its number: '%' without a space."""
    return unit if unit == "%" else f" {unit}"


def wanted(row: dict) -> str:
    """The target, or a dash."""
    if row["target"] is None:
        return "–"
    bound = "least" if row["at_least"] else "most"
    return f"at {bound} {row['target']:g}{spaced(row['unit'])}"


def with_targets(result: dict) -> list[dict]:
    """The rows that have a target."""
    return [row for row in result["rows"] if row["target"] is not None]


def table(result: dict) -> list[str]:
    """A Markdown line for each row."""
    lines = ["| what | measured | target |", "| --- | ---: | ---: |"]
    for row in result["rows"]:
        figure = amount(row["value"], row["unit"])
        if row["met"] is False:
            figure = f"**{figure}**"
        lines.append(f"| {row['what']} | {figure} | {wanted(row)} |")
    return lines


def render(folder: Path) -> str:
    """The text between the markers, empty if nothing is stored."""
    if not (folder / STORED.name).exists():
        return ""
    result = json.loads((folder / STORED.name).read_text(encoding="utf-8"))
    rows = with_targets(result)
    alt = ALT.format(met=sum(row["met"] for row in rows), count=len(rows))
    alt += (
        ", ".join(
            f"{row['what']} {amount(row['value'], row['unit'])}" for row in rows
        )
        + "."
    )
    versions = ", ".join(
        f"{name} {version}" for name, version in result["versions"].items()
    )
    lines = [
        "",
        *table(result),
        "",
        f"```{{figure}} {FIGURE.as_posix()}",
        f":alt: {alt}",
        ":name: fig-bench",
        "",
        "How far each measurement is past its target, or short of it. The "
        "scale is logarithmic.",
        "```",
        "",
        f"- Machine: {result['machine']}, {result['cores']} cores, "
        f"{result['threads']} threads, on {result['date']}; all of `make "
        f"bench` took {result['seconds'] / 60:.0f} minutes.",
        f"- Versions: {versions}.",
        "",
    ]
    return "\n".join(lines)


def draw(result: dict) -> str:
    """The figure, as SVG: readable on a telephone, on a dark page, in
    greyscale."""
    rows, left, right, height = with_targets(result), 10, 330, 46
    ratios = [
        row["value"] / row["target"]
        if row["at_least"]
        else row["target"] / row["value"]
        for row in rows
    ]
    low, high = min(0.5, *ratios), max(2.0, *ratios)

    def x(ratio: float) -> float:
        share = (math.log(ratio) - math.log(low)) / (
            math.log(high) - math.log(low)
        )
        return round(left + share * (right - left), 1)

    bottom = height * len(rows) + 6
    dark = "".join(
        f"--{name}:{colours[1]};" for name, colours in COLOURS.items()
    )
    colour = {
        name: f"var(--{name}, {colours[0]})"
        for name, colours in COLOURS.items()
    }
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 500 {bottom + 24}" '
        'font-family="sans-serif" font-size="14">',
        f"<style>@media (prefers-color-scheme: dark){{svg{{{dark}}}}}</style>",
        f'<rect width="500" height="{bottom + 24}" fill="{colour["ground"]}"/>',
    ]
    for i, (row, ratio) in enumerate(zip(rows, ratios, strict=True)):
        y = 6 + height * i
        said = f"{amount(row['value'], row['unit'])}, {wanted(row)}"
        # One dark, one light, to differ in greyscale.
        bar = colour["met" if row["met"] else "missed"]
        ink = f'fill="{colour["ink"]}"'
        # Keep the line beside the words.
        parts += [
            f'<text x="{left}" y="{y + 16}" {ink}>{escape(row["what"])}</text>',
            f'<rect x="{left}" y="{y + 22}" width="{max(2, x(ratio) - left):.1f}" height="14" '
            f'fill="{bar}" fill-opacity="0.85" stroke="{colour["edge"]}"/>',
            f'<line x1="{x(1)}" x2="{x(1)}" y1="{y + 20}" y2="{y + 38}" '
            f'stroke="{colour["ink"]}" stroke-width="2"/>',
            f'<text x="{max(x(ratio), x(1)) + 8:.1f}" y="{y + 34}" {ink}>{said}</text>',
        ]
    parts += [
        f'<text x="{x(1)}" y="{bottom + 16}" text-anchor="middle" fill="{colour["ink"]}">'
        "the target</text>",
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def pages(book: Path) -> dict[Path, str]:
    """The expected file of the figure, if results are stored."""
    path = book / "results" / STORED.name
    if not path.exists():
        return {}
    return {book / FIGURE: draw(json.loads(path.read_text(encoding="utf-8")))}
