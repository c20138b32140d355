"""Write the book's tables from stored results: `python -m tools.results
[--check]`.

A result is a JSON file in book/results/, written by `captionlib evaluate
--save-results`. NAME.jsonl is the log.jsonl of a training run, from which the
training time is taken. test_split.json, the test scores of the shipped
captioner, comes first on the page. Other files go elsewhere, each between its
own markers: protocol.json, by `tools.audit`, to chapter 07; recipe/, by
`tools.captioner`, and experiments/captioners.json, by `tools.experiments
captioners`, to book/captioner.md; experiments/own_data.json, by
`tools.experiments own_data`, to book/own_data.md; experiments/grounding.json, by
`tools.experiments grounding`, to chapter 11; the other experiments to
chapters 12 to 15, as `tools.comparisons` says; bench.json, by `make bench
STORE=1`, to book/results.md and a figure.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np

from tools import bench, comparisons, data_sets

BOOK = Path(__file__).parent.parent / "book"
BEGIN = "<!-- results: written by tools.results -->"
END = "<!-- results: end -->"
CHAPTER = Path("notebooks", "07_bleu.py")  # beside the book's folder
PROTOCOL_BEGIN = "# <!-- protocol: written by tools.results -->"
PROTOCOL_END = "# <!-- protocol: end -->"
RECIPE_BEGIN = "<!-- recipe: written by tools.results -->"
RECIPE_END = "<!-- recipe: end -->"
TRIED_BEGIN = "<!-- captioners: written by tools.results -->"
TRIED_END = "<!-- captioners: end -->"
OWN_BEGIN = "<!-- own data: written by tools.results -->"
OWN_END = "<!-- own data: end -->"
GROUNDING = Path("notebooks", "11_grounding.py")
GROUNDING_BEGIN = "# <!-- grounding: written by tools.results -->"
GROUNDING_END = "# <!-- grounding: end -->"
CHANGES = {
    "unk": "`<unk>` matches `<unk>`",
    "end": "`<end>` stays, on both sides",
    "cut": "cut at the true length",
    "teacher_forcing": "teacher forcing",
    "repeated": "each image once for each reference",
    "all": "all of these: the original's validation",
}
SEARCHES = {
    "stored_search": "beam 7, its stored search",
    "beam5": "beam 5",
    "beam1": "beam 1, greedy",
}
SCORES = {
    "bleu1": "BLEU-1",
    "bleu2": "BLEU-2",
    "bleu3": "BLEU-3",
    "bleu4": "BLEU-4",
    "rouge_l": "ROUGE-L",
    "cider_d": "CIDEr-D",
}
NAMES = {
    "flickr8k": "Flickr8k",
    "flickr30k": "Flickr30k",
    "coco": "COCO",
    "scenes": "Toy world",
}
# What is trained: the decoder alone, then the encoder, too.
WHO = ("decoder", "both")
SPLITS = {"train": "train", "val": "validation", "test": "test"}


def read_results(folder: Path) -> dict[tuple, list[dict]]:
    """Stored results by data set, split, model and training, in order of beam
    size."""
    groups: dict[tuple, list[dict]] = {}
    for path in sorted(folder.glob("*.json")):
        stored = json.loads(path.read_text(encoding="utf-8"))
        if "result" not in stored:  # protocol.json, test_split.json
            continue
        same = json.dumps([stored["model"], stored["training"]], sort_keys=True)
        key = (stored["data"]["dataset"], stored["data"]["split"], same)
        groups.setdefault(key, []).append(stored)
    for rows in groups.values():
        rows.sort(
            key=lambda row: (row["search"]["beam_size"], _normalisation(row))
        )
    return groups


def _normalisation(stored: dict) -> float:
    return stored["search"].get("length_normalisation", 0.0)


def _beam(search: dict) -> str:
    beam, power = search["beam_size"], search.get("length_normalisation", 0.0)
    # With a beam of one there is no choice, so length normalisation has no
    # effect.
    length = f", length to {power:g}" if power and beam > 1 else ""
    block = f", no {n} words twice" if (n := search.get("no_repeat")) else ""
    return f"{beam}{length}{block}"


def table(header: list[str], rows: list[list[str]]) -> list[str]:
    """A Markdown table with numbers aligned to the right."""
    lines = [header, ["---"] + ["---:"] * (len(header) - 1), *rows]
    return ["| " + " | ".join(line) + " |" for line in lines]


def section(rows: list[dict], logs: list[Path]) -> list[str]:
    """Heading, scores, intervals and origin of one model on one split."""
    first = rows[0]
    data, result = first["data"], first["result"]
    title = f"{NAMES.get(data['dataset'], data['dataset'])}, {SPLITS[data['split']]} split"
    backbone = first["model"]["backbone"].removeprefix("tf_").replace("_", "-")
    if members := first["model"].get("ensemble_of"):
        backbone = f"{members} × {backbone}"
    lines = [f"## {title}, {result['images']:,} images, {backbone}", ""]
    beams = [_beam(row["search"]) for row in rows]
    points = [
        [beam, *(f"{row['result'][name]:.2f}" for name in SCORES)]
        for beam, row in zip(beams, rows, strict=True)
    ]
    margins = [
        [
            beam,
            *(
                _interval(row["result"]["intervals"].get(name))
                for name in SCORES
            ),
        ]
        for beam, row in zip(beams, rows, strict=True)
    ]
    lines += table(["beam", *SCORES.values()], points)
    lines += ["", "95% intervals, from a bootstrap over the images:", ""]
    lines += table(["beam", *SCORES.values()], margins)
    lines += ["", *provenance(first, logs), ""]
    return lines


def _interval(bounds: list[float] | None) -> str:
    joiner = "\u2060"  # no line break at the dash
    return f"{bounds[0]:.1f}{joiner}–{joiner}{bounds[1]:.1f}" if bounds else "–"


def provenance(stored: dict, logs: list[Path]) -> list[str]:
    """Data, settings and versions of the scores, one per line."""
    model = stored["model"]
    training = stored["training"].get("training", stored["training"])
    grid = model["grid_size"]
    members = model.get("ensemble_of")
    lines = [
        "- Model: "
        + (f"{members} captioners, each " if members else "")
        + f"`{model['backbone']}`, "
        + (
            f"images of {size}×{size}, "
            if (size := model.get("image_size"))
            else ""
        )
        + (f"grid {grid}×{grid}, " if grid else "its own grid, ")
        + (
            f"vectors shortened to {short}, "
            if (short := model.get("feature_dim"))
            else ""
        )
        + f"embedding {model['embed_dim']}, decoder {model['decoder_dim']}, "
        f"attention {model['attention_dim']}."
    ]
    facts = []
    if "seed" in training:
        facts.append(f"seed {training['seed']}")
    if "epoch" in training:
        facts.append(f"the weights are those of epoch {training['epoch']}")
    for log in logs:
        history = [
            json.loads(line)
            for line in log.read_text(encoding="utf-8").splitlines()
        ]
        if any(row.items() <= training.items() for row in history):
            minutes = (
                sum(
                    row["train_seconds"] + row["evaluate_seconds"]
                    for row in history
                )
                / 60
            )
            facts.append(
                f"{len(history)} epochs with validation took {minutes:.0f} "
                "minutes"
            )
    if facts:
        of = " of the first" if members else ""
        lines.append(f"- Training{of}: " + ", ".join(facts) + ".")
    versions = ", ".join(
        f"{name} {version}" for name, version in stored["versions"].items()
    )
    lines.append(f"- Versions: {versions}.")
    return lines


def render(folder: Path) -> str:
    """The text that belongs between the markers."""
    groups, lines = read_results(folder), [""]
    if (test := folder / "test_split.json").exists():
        lines += headline(json.loads(test.read_text(encoding="utf-8")))
    elif not groups:
        return "\nNo result is stored yet.\n"
    logs = sorted(folder.glob("*.jsonl"))
    for key in sorted(groups):
        lines += section(groups[key], logs)
    return "\n".join(lines)


def signed(value: float) -> str:
    """A signed difference, or 0 without a sign."""
    text = f"{value:+.2f}".replace("-", "\u2212")
    return "0.00" if text.strip("+\u2212") == "0.00" else text


def protocol(stored: dict) -> list[str]:
    """Chapter 07's text on an audit: the table, data and settings."""
    data, audit = stored["data"], stored["audit"]
    baseline, counts = audit["baseline"], audit["counts"]
    training = stored["training"].get("training", stored["training"])
    seed = f"; seed {training['seed']}" if "seed" in training else ""
    joiner = "\u2060"

    name = NAMES.get(data["dataset"], data["dataset"])
    lines = [
        f"Greedy captions of {counts['images']:,} images of {name}, "
        f"{SPLITS[data['split']]} split, have a BLEU-4 of "
        f"{baseline['bleu4']:.2f} by our protocol (95% interval "
        f"{_interval(baseline['interval'])}{seed}). Each change alone moves it "
        "by:",
        "",
    ]
    cells = []
    for key, label in CHANGES.items():
        low, high = map(signed, audit["changes"][key]["interval"])
        moved = signed(audit["changes"][key]["difference"])
        cells.append([label, moved, f"{low}{joiner} to {joiner}{high}"])
    lines += table(["change", "BLEU-4", "paired 95% interval"], cells)
    lines += [
        "",
        "- Copies change no score, but counted as separate images they "
        "would narrow the interval to "
        f"{_interval(audit['repeated_as_images'])}.",
        "- The changes don't simply add up. Under teacher forcing two gains "
        "vanish. The cut: a forced caption is never longer than the true one. "
        f"`<end>`: {counts['forced_past_end'] / counts['forced']:.0%} of these "
        "captions have it too early, and the original scores what follows.",
    ]
    return lines


def render_protocol(folder: Path) -> str:
    """The text between chapter 07's markers, as comment lines, if any."""
    path = folder / "protocol.json"
    if not path.exists():
        return ""
    lines = protocol(json.loads(path.read_text(encoding="utf-8")))
    return "".join(f"# {line}".rstrip() + "\n" for line in ["", *lines, ""])


def headline(stored: dict) -> list[str]:
    """Test scores of the shipped captioner, or of its first member, with
    intervals if stored."""
    member = ", its first member alone" if "member" in stored else ""
    lines = [f"## The captioner that ships{member}, on the test split", ""]
    cells = []
    for key, label in SEARCHES.items():
        row = stored[key]
        cells.append([label, *(f"{row[name]:.2f}" for name in SCORES)])
        if "intervals" in row:
            bounds = (_interval(row["intervals"][name]) for name in SCORES)
            cells.append(["95% interval", *bounds])
    lines += table(["search", *SCORES.values()], cells)
    lines += [
        "",
        "- Data: Flickr8k, Karpathy's test split, 1,000 images, each scored "
        "once, against all five of its references.",
        f"- Scored by `captionlib evaluate` on {stored['date']}, with the "
        f"weights whose SHA-256 begins `{stored['model_sha256'][:12]}`.",
    ]
    if member:
        lines.append(f"- {stored['member']}")
    return [*lines, ""]


def recipe(seeds: list[dict], tricks: dict | None = None) -> list[str]:
    """Scores after each stage of the shipped recipe, and differences between
    seeds."""
    first = seeds[0]
    minutes = {
        name: stage["train_seconds"] / 60
        for name, stage in first["stages"].items()
    }
    epochs = {name: stage["epochs"] for name, stage in first["stages"].items()}
    alone, together = (
        first["stages"][name]["scores"] for name in ("decoder", "encoder")
    )
    split = SPLITS[first["split"].lower()]
    lines = [
        f"Seed {first['seed']}, {split} split, {first['images']:,} images; "
        f"{epochs['decoder']} epochs of the decoder alone, "
        f"{minutes['decoder']:.0f} minutes, and {epochs['encoder']} with the "
        f"encoder's last stages, {minutes['encoder']:.0f} minutes:",
        "",
        *table(
            [
                "beam",
                *(
                    f"{name},<br>{who}"
                    for who in WHO
                    for name in ("BLEU-4", "CIDEr-D")
                ),
            ],
            [
                [
                    _beam(b),
                    *(
                        f"{row[name]:.2f}"
                        for row in (b, a)
                        for name in ("bleu4", "cider_d")
                    ),
                ]
                for b, a in zip(alone, together, strict=True)
            ],
        ),
    ]
    if len(seeds) > 1:
        chosen = first["chosen"]
        rows = {seed["seed"]: _chosen(seed, **chosen) for seed in seeds}
        figures = np.array(list(rows.values()))
        cells = [
            [str(seed), *(f"{value:.2f}" for value in row)]
            for seed, row in rows.items()
        ]
        cells.append(
            ["mean", *(f"{value:.2f}" for value in figures.mean(axis=0))]
        )
        deviations = figures.std(axis=0, ddof=1)
        cells.append(
            ["standard deviation", *(f"{value:.2f}" for value in deviations)]
        )
        lines += [
            "",
            "The whole recipe with other seeds, at beam "
            f"{_beam(chosen['search'])}:",
            "",
        ]
        lines += table(["seed", "BLEU-4", "CIDEr-D"], cells)
    if tricks:
        lines += ["", tricks["about"], ""]
        cells = [
            [row["changed"], f"{row['bleu4']:.2f}", f"{row['cider_d']:.2f}"]
            for row in tricks["rows"]
        ]
        lines += table(["changed", "BLEU-4", "CIDEr-D"], cells)
    return lines


def _chosen(seed: dict, stage: str, search: dict, **_) -> list[float]:
    rows = seed["stages"][stage]["scores"]
    row = next(row for row in rows if search.items() <= row.items())
    return [row["bleu4"], row["cider_d"]]


def render_recipe(folder: Path) -> str:
    """The text between the markers in book/captioner.md."""
    paths = sorted(folder.glob("recipe/seed*.json"))
    seeds = [json.loads(path.read_text(encoding="utf-8")) for path in paths]
    path = folder / "recipe" / "tricks.json"
    tricks = (
        json.loads(path.read_text(encoding="utf-8")) if path.exists() else None
    )
    return "\n".join(["", *recipe(seeds, tricks), ""]) if seeds else ""


def captioners(stored: dict) -> list[str]:
    """What ensembles give and cost."""
    header = [
        "captioner",
        "MB",
        "ms",
        "BLEU-4",
        "95% interval",
        "CIDEr-D",
        "95% interval",
    ]
    rows = []
    for row in stored["rows"].values():
        cells = [
            row["label"],
            f"{row['megabytes']:.1f}",
            f"{1e3 * row['seconds']:.0f}",
        ]
        for score in ("bleu4", "cider_d"):
            low, high = row["intervals"][score]
            cells += [f"{row[score]:.2f}", f"{low:.1f} to {high:.1f}"]
        rows.append(cells)
    images = next(iter(stored["rows"].values()))["images"]
    versions = ", ".join(f"{n} {v}" for n, v in stored["versions"].items())
    return [
        *table(header, rows),
        "",
        f"- Validation split, {images:,} images, each captioner at its own "
        "search settings, chosen on the same split.",
        f"- ms: from a photograph's file to its caption, the median of 20 one "
        f"after the other, {stored['threads']} threads, the captioner loaded.",
        f"- Versions: {versions}.",
        "",
    ]


def render_captioners(folder: Path) -> str:
    """The text between the second markers in book/captioner.md."""
    path = folder / "experiments" / "captioners.json"
    if not path.exists():
        return ""
    stored = json.loads(path.read_text(encoding="utf-8"))
    return "\n".join(["", *captioners(stored)])


def own_data(stored: dict) -> list[str]:
    """How scores grow with the number of photographs, mean ± spread."""
    rows = []
    for row in stored["result"]:
        scores = [
            f"{row[name]['mean']:.1f} ± {row[name]['sd']:.1f}"
            for name in ("bleu4", "cider_d")
        ]
        seconds = row["seconds"] if row["images"] else 0
        time = f"{seconds / 60:.1f}" if seconds else "–"
        rows.append([row["way"], str(row["images"] or "–"), *scores, time])
    header = "captioner, photographs, BLEU-4, CIDEr-D, minutes".split(", ")
    data = stored["data"]
    versions = ", ".join(f"{n} {v}" for n, v in stored["versions"].items())
    return [
        *table(header, rows),
        "",
        f"- Each row: mean and standard deviation of {data['draws']} draws, on "
        f"{data['score']} photographs each; minutes of one thread, encoding "
        "and scoring included.",
        "- Learning rate, number of epochs and patience were set beforehand, "
        "the same for all numbers of photographs.",
        f"- Versions: {versions}.",
        "",
    ]


def render_own_data(folder: Path) -> str:
    """The text between the markers in book/own_data.md."""
    path = folder / "experiments" / "own_data.json"
    if not path.exists():
        return ""
    stored = json.loads(path.read_text(encoding="utf-8"))
    return "\n".join(["", *own_data(stored)])


def grounding(stored: dict) -> list[str]:
    """Chapter 11's measures: the packaged captioner, and others like it."""
    runs, result = stored["runs"], stored["result"]

    def cells(kind: str, name: str) -> list[str]:
        found = result[kind][name]
        spread = f"{found['mean']:.2f} ± {found['sd']:.2f}"
        return [f"{stored['packaged'][kind][name]:.2f}", spread]

    maps = [
        [name, *cells("correctness", name), *cells("pointing", name)]
        for name in result["correctness"]
    ]
    falls = [[name, *cells("fall", name)] for name in result["fall"]]
    leads = {
        kind: [
            each[kind]["the word before"] - each[kind]["the word itself"]
            for each in (stored["packaged"], *runs)
        ]
        for kind in ("correctness", "pointing")
    }
    first, second = (
        f"{signed(min(lead))} to {signed(max(lead))}" for lead in leads.values()
    )
    others = f"{len(runs)} others"
    header = ["map of", "weight in the box", others, "peak in the box", others]
    seeds = ", ".join(str(run["seed"]) for run in runs)
    bleu4 = [run["bleu4"] for run in runs]
    versions = ", ".join(f"{k} {v}" for k, v in stored["versions"].items())
    return [
        *table(header, maps),
        "",
        *table(["cells erased", "nats lost", others], falls),
        "",
        f"<small>Others: seeds {seeds}, mean ± standard deviation; BLEU-4 on "
        f"the validation split {min(bleu4):.1f} to {max(bleu4):.1f}. The word "
        f"before against the word itself, in the {len(runs) + 1} captioners: "
        f"{first} of the weight, {second} of the peaks. Versions: {versions}."
        "</small>",
        "",
    ]


def render_grounding(folder: Path) -> str:
    """The text between the markers in chapter 11."""
    path = folder / "experiments" / "grounding.json"
    if not path.exists():
        return ""
    lines = grounding(json.loads(path.read_text(encoding="utf-8")))
    return "".join(f"# {line}".rstrip() + "\n" for line in ["", *lines])


def replace(page: str, text: str, begin: str = BEGIN, end: str = END) -> str:
    """`page` with `text` between its markers, each of which must occur once."""
    if (
        page.count(begin) != 1
        or page.count(end) != 1
        or page.index(begin) > page.index(end)
    ):
        raise ValueError(f"the page must hold {begin} and {end}, once each")
    before, rest = page.split(begin)
    return f"{before}{begin}\n{text}{end}{rest.split(end)[1]}"


def pages(book: Path) -> dict[Path, str]:
    """The expected text of each page with generated tables."""
    path, chapter = book / "results.md", book.parent / CHAPTER
    wanted = {
        path: replace(
            path.read_text(encoding="utf-8"), render(book / "results")
        )
    }
    if bench.BEGIN in wanted[path]:
        text = bench.render(book / "results")
        wanted[path] = replace(wanted[path], text, bench.BEGIN, bench.END)
    wanted |= bench.pages(book)
    if data := data_sets.page(book):
        path, text = data
        page = path.read_text(encoding="utf-8")
        wanted[path] = replace(page, text, data_sets.BEGIN, data_sets.END)
    card = book / "captioner.md"
    if card.exists():
        text = render_recipe(book / "results")
        page = card.read_text(encoding="utf-8")
        page = replace(page, text, RECIPE_BEGIN, RECIPE_END)
        text = render_captioners(book / "results")
        wanted[card] = replace(page, text, TRIED_BEGIN, TRIED_END)
    own = book / "own_data.md"
    if own.exists():
        text = render_own_data(book / "results")
        page = own.read_text(encoding="utf-8")
        wanted[own] = replace(page, text, OWN_BEGIN, OWN_END)
    judged = book.parent / GROUNDING
    if judged.exists():
        text = render_grounding(book / "results")
        script = judged.read_text(encoding="utf-8")
        wanted[judged] = replace(script, text, GROUNDING_BEGIN, GROUNDING_END)
    if chapter.exists():
        script = chapter.read_text(encoding="utf-8")
        text = render_protocol(book / "results")
        wanted[chapter] = replace(script, text, PROTOCOL_BEGIN, PROTOCOL_END)
    return wanted | comparisons.pages(book.parent)


def stale(book: Path = BOOK) -> list[Path]:
    """The pages that disagree with the stored results."""
    return [
        path
        for path, text in pages(book).items()
        if not path.exists() or path.read_text(encoding="utf-8") != text
    ]


def main(argv: list[str]) -> int:
    if argv not in ([], ["--check"]):
        print(__doc__)
        return 2
    behind = stale()
    if argv:
        for path in behind:
            print(
                f"{path}: disagrees with book/results/; run python -m "
                "tools.results"
            )
        return int(bool(behind))
    wanted = pages(BOOK)
    for path in behind:
        path.write_text(wanted[path], encoding="utf-8")
        if path.suffix == ".py":
            print(
                f"{path}: copy it to the notebook with python -m "
                f"tools.notebooks --sync {path.relative_to(BOOK.parent)}"
            )
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
