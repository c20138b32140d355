"""Rows of a table: captioners of the drawn world that differ in one thing.

Each row is trained with the same seeds on the same scenes, and judged by the
same yardsticks. Each run is stored when it ends, so an interrupted command goes
on where it stopped, and one with other rows adds to what is there.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import mean, stdev

from captionlib.io.files import read_json, write_json
from captionlib.io.versions import versions
from captionlib.toy.world import World, draw_world

STORED = Path(__file__).parents[2] / "book" / "results" / "experiments"
COLUMNS = ("bleu4", "cider_d", "correctness", "cost")
SEEDS = (1, 2, 3, 4, 5)
SCENES = {"train": 1000, "val": 200, "test": 200, "seed": 0}
QUICK = {"train": 40, "val": 8, "test": 8, "seed": 0}

# The 97.5% point of Student's t, by the number of pairs.
T = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776, 6: 2.571, 8: 2.365, 10: 2.262}

Row = Callable[[World, int, bool], dict]  # world, seed, whether it's a trial


def paired(row: list[float], baseline: list[float]) -> dict:
    """The mean difference of pairs with one seed, and its 95% interval.

    By Student's t over the seeds; the scenes are the same in all.
    """
    gaps = [a - b for a, b in zip(row, baseline, strict=True)]
    half = T[len(gaps)] * stdev(gaps) / len(gaps) ** 0.5
    return {
        "mean": mean(gaps),
        "low": mean(gaps) - half,
        "high": mean(gaps) + half,
    }


def summary(runs: dict[str, list[dict]], baseline: str) -> dict:
    """For each row and measure: mean, spread, and difference to the baseline.

    A single run has no spread, and a single pair no interval.
    """
    table = {}
    for name, row in runs.items():
        measures = [key for key in row[0] if key not in ("seed", "note")]
        base = {run["seed"]: run for run in runs[baseline]}
        pairs = [(run, base[run["seed"]]) for run in row if run["seed"] in base]
        table[name] = {}
        for measure in measures:
            values = [run[measure] for run in row]
            found = {"mean": mean(values)}
            if len(values) > 1:
                found["sd"] = stdev(values)
            if name != baseline and len(pairs) > 1 and measure in pairs[0][1]:
                gaps = [(run[measure], base[measure]) for run, base in pairs]
                found["gap"] = paired(*zip(*gaps, strict=True))
            table[name][measure] = found
    return table


def run_once(path: Path, compute: Callable[[], dict]) -> dict:
    """What was stored, or is computed and stored now, with its seconds."""
    if not path.exists():
        started = time.monotonic()
        found = compute()
        found["whole_seconds"] = round(time.monotonic() - started, 1)
        write_json(path, found)
    return read_json(path)


def costs(rows: dict[str, Row], times: int = 3) -> dict[str, float]:
    """Each row's processor time for an epoch, as a multiple of the first's.

    The fastest of a few; run it on an idle machine. Rows that don't train have
    none.
    """
    world, found = draw_world(200, 8, 8), {}
    for _ in range(times):
        for name, row in rows.items():
            seconds = row(world, SEEDS[0], True).get("seconds")
            if seconds:
                found[name] = min(seconds, found.get(name, seconds))
    first = found[next(iter(rows))]
    return {name: seconds / first for name, seconds in found.items()}


def run_rows(
    name: str,
    about: str,
    rows: dict[str, Row],
    arguments: list[str],
    settings: dict,
) -> int:
    """The command of an experiment; its first row is the baseline."""
    parser = argparse.ArgumentParser(
        prog=f"python -m tools.experiments {name}", description=about
    )
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--store", type=Path, default=STORED / f"{name}.json")
    parser.add_argument(
        "--only", nargs="+", choices=rows, default=list(rows), metavar="ROW"
    )
    parser.add_argument(
        "--quick", action="store_true", help="few scenes, one epoch, two seeds"
    )
    parser.add_argument(
        "--seeds", type=int, default=len(SEEDS), help="how many, from 1 on"
    )
    parser.add_argument(
        "--cost",
        action="store_true",
        help="measure what an epoch costs, on an idle machine, and train nothing",
    )
    options = parser.parse_args(arguments)
    quick, baseline = options.quick, next(iter(rows))
    options.work.mkdir(parents=True, exist_ok=True)
    scenes, seeds = (QUICK, SEEDS[:2]) if quick else (SCENES, SEEDS)
    seeds = seeds[: options.seeds]
    cost = options.work / "cost.json"
    if options.cost:
        write_json(cost, costs(rows), indent=1)
        return 0
    world = None
    for seed in seeds:
        for row in options.only:
            path = options.work / f"{row.replace(' ', '-')}-{seed}.json"
            if not path.exists():
                world = world or draw_world(**scenes)
            found = run_once(path, partial(rows[row], world, seed, quick))
            print(row, seed, json.dumps(found), flush=True)
    runs = {}
    for row in rows:
        paths = [
            options.work / f"{row.replace(' ', '-')}-{seed}.json"
            for seed in seeds
        ]
        if all(path.exists() for path in paths):
            runs[row] = [
                {"seed": seed, **read_json(path)}
                for seed, path in zip(seeds, paths, strict=True)
            ]
    if baseline in runs:
        table = summary(runs, baseline)
        if cost.exists():
            for row, times in read_json(cost).items():
                if row in table:
                    table[row]["cost"] = {"mean": times, "sd": 0.0}
        result = {
            "data": scenes,
            "settings": {"columns": COLUMNS, **settings}
            | {"quick": quick, "baseline": baseline},
            "result": table,
            "runs": runs,
            "versions": versions(),
        }
        write_json(options.store, result, indent=1)
    return 0
