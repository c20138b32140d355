"""The tables of book/results.md, from stored results: `python -m tools.results [--check]`.

A result is a JSON file in book/results/ that `captionlib evaluate --save-results` wrote. A file
NAME.jsonl beside them is a training's log.jsonl, and gives that model's training time.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

BOOK = Path(__file__).parent.parent / "book"
BEGIN, END = "<!-- results: written by tools.results -->", "<!-- results: end -->"
SCORES = {
    "bleu1": "BLEU-1",
    "bleu2": "BLEU-2",
    "bleu3": "BLEU-3",
    "bleu4": "BLEU-4",
    "rouge_l": "ROUGE-L",
    "cider_d": "CIDEr-D",
}
NAMES = {"flickr8k": "Flickr8k", "flickr30k": "Flickr30k", "coco": "COCO", "scenes": "Toy world"}
SPLITS = {"train": "train", "val": "validation", "test": "test"}


def read_results(folder: Path) -> dict[tuple, list[dict]]:
    """Stored results by (data set, split, model and training), each list from beam 1 up."""
    groups: dict[tuple, list[dict]] = {}
    for path in sorted(folder.glob("*.json")):
        stored = json.loads(path.read_text(encoding="utf-8"))
        same = json.dumps([stored["model"], stored["training"]], sort_keys=True)
        key = (stored["data"]["dataset"], stored["data"]["split"], same)
        groups.setdefault(key, []).append(stored)
    for rows in groups.values():
        rows.sort(key=lambda row: (row["search"]["beam_size"], _normalisation(row)))
    return groups


def _normalisation(stored: dict) -> float:
    return stored["search"].get("length_normalisation", 0.0)


def table(header: list[str], rows: list[list[str]]) -> list[str]:
    """A markdown table, numbers to the right."""
    lines = [header, ["---"] + ["---:"] * (len(header) - 1), *rows]
    return ["| " + " | ".join(line) + " |" for line in lines]


def section(rows: list[dict], logs: list[Path]) -> list[str]:
    """Heading, scores, intervals and provenance of one model on one split."""
    first = rows[0]
    data, result = first["data"], first["result"]
    title = f"{NAMES.get(data['dataset'], data['dataset'])}, {SPLITS[data['split']]} split"
    lines = [f"## {title}, {result['images']:,} images", ""]
    beams = []
    for row in rows:
        beam, power = row["search"]["beam_size"], _normalisation(row)
        # A beam of one has nothing to choose between, so the power makes no difference to it.
        beams.append(f"{beam}, length to {power:g}" if power and beam > 1 else f"{beam}")
    points = [
        [beam, *(f"{row['result'][name]:.2f}" for name in SCORES)]
        for beam, row in zip(beams, rows, strict=True)
    ]
    margins = [
        [beam, *(_interval(row["result"]["intervals"].get(name)) for name in SCORES)]
        for beam, row in zip(beams, rows, strict=True)
    ]
    lines += table(["beam", *SCORES.values()], points)
    lines += ["", "95 % intervals, from a bootstrap over the images:", ""]
    lines += table(["beam", *SCORES.values()], margins)
    lines += ["", *provenance(first, logs), ""]
    return lines


def _interval(bounds: list[float] | None) -> str:
    joiner = "\u2060"  # no line break at the dash
    return f"{bounds[0]:.1f}{joiner}–{joiner}{bounds[1]:.1f}" if bounds else "–"


def provenance(stored: dict, logs: list[Path]) -> list[str]:
    """What the scores were measured on and with, one fact a line."""
    model, training = stored["model"], stored["training"].get("training", stored["training"])
    grid = model["grid_size"]
    lines = [
        f"- Model: `{model['backbone']}`, "
        + (f"grid {grid}×{grid}, " if grid else "its own grid, ")
        + f"embedding {model['embed_dim']}, decoder {model['decoder_dim']}, "
        f"attention {model['attention_dim']}."
    ]
    facts = []
    if "seed" in training:
        facts.append(f"seed {training['seed']}")
    if "epoch" in training:
        facts.append(f"the best model came from epoch {training['epoch']}")
    for log in logs:
        history = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
        if any(row.items() <= training.items() for row in history):
            minutes = sum(row["train_seconds"] + row["evaluate_seconds"] for row in history) / 60
            facts.append(f"{len(history)} epochs with validation took {minutes:.0f} minutes")
    if facts:
        lines.append("- Training: " + ", ".join(facts) + ".")
    versions = ", ".join(f"{name} {version}" for name, version in stored["versions"].items())
    lines.append(f"- Versions: {versions}.")
    return lines


def render(folder: Path) -> str:
    """The text that belongs between the markers."""
    groups = read_results(folder)
    if not groups:
        return "\nNo result is stored yet.\n"
    logs = sorted(folder.glob("*.jsonl"))
    lines = [""]
    for key in sorted(groups):
        lines += section(groups[key], logs)
    return "\n".join(lines)


def replace(page: str, text: str) -> str:
    """`page` with `text` between its markers, which must be there once each."""
    if page.count(BEGIN) != 1 or page.count(END) != 1 or page.index(BEGIN) > page.index(END):
        raise ValueError(f"book/results.md must hold {BEGIN} and {END}, once each")
    before, rest = page.split(BEGIN)
    return f"{before}{BEGIN}\n{text}{END}{rest.split(END)[1]}"


def stale(book: Path = BOOK) -> bool:
    """Does the page differ from what its stored results say?"""
    page = (book / "results.md").read_text(encoding="utf-8")
    return replace(page, render(book / "results")) != page


def main(argv: list[str]) -> int:
    if argv not in ([], ["--check"]):
        print(__doc__)
        return 2
    if argv:
        if stale():
            print("book/results.md: not what book/results/ says; run python -m tools.results")
        return int(stale())
    path = BOOK / "results.md"
    page = path.read_text(encoding="utf-8")
    path.write_text(replace(page, render(BOOK / "results")), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
