"""Where do captioners look, and what do their words depend on? Chapter 11's measures.

Toy captioners are trained by the packaged recipe, on the same scenes with other
seeds, and measured on the same test scenes. Interrupted, the command goes on
where it stopped.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from statistics import mean, stdev

import numpy as np
import torch

from captionlib.beam_search import beam_search
from captionlib.captioner import Captioner
from captionlib.config import DataConfig
from captionlib.engine import train_recipe
from captionlib.engine.preparation import prepare_data
from captionlib.engine.recipes import read_recipe
from captionlib.grounding import grounding, mean_interval
from captionlib.io.files import read_json, write_json
from captionlib.io.images import read_image
from captionlib.io.versions import versions
from captionlib.toy.scenes import write_scenes

STORED = (
    Path(__file__).parents[2]
    / "book"
    / "results"
    / "experiments"
    / "grounding.json"
)
SEEDS = (1, 2, 3, 4, 5)  # the packaged captioner has 0
QUICK = {"train": 40, "val": 8, "test": 8, "seed": 0}


def measure(folder: str | Path, scenes: Path, *, quick: bool = False) -> dict:
    """The means of a captioner's measures over the test scenes.

    They are of its own captions; in a `quick` trial, which has learned no words
    to speak of, of people's.
    """
    captioner = Captioner.from_pretrained(folder)
    model, sheet = captioner.model, read_json(scenes / "objects_scenes.json")
    paths = sorted((scenes / "images").glob("test_*.png"))
    pixels = torch.from_numpy(np.stack([read_image(path) for path in paths]))
    with torch.inference_mode():
        grids = torch.cat([model.encode(part) for part in pixels.split(16)])
    if quick:
        entries = read_json(scenes / "dataset_scenes.json")["images"]
        told = {e["filename"]: e["sentences"][0]["tokens"] for e in entries}
        captions = [told[path.name] for path in paths]
    else:
        search = captioner.search
        found = beam_search(model.decoder, grids, model.vocabulary, search)
        captions = [model.vocabulary.decode(best.word_ids) for best in found]
    things = [sheet[path.name] for path in paths]
    looked = grounding(model, grids, captions, things)
    measures = {
        kind: {
            name: mean_interval(values, looked.images)[0]
            for name, values in getattr(looked, kind).items()
        }
        for kind in ("correctness", "pointing", "fall")
    }
    return {"words": len(looked.images), **measures}


def run(seed: int, work: Path, *, quick: bool) -> dict:
    """Train one captioner and measure it, unless that is done already."""
    done = work / f"seed-{seed}.json"
    if done.exists():
        return read_json(done)
    started = time.monotonic()
    trained = train_recipe(
        "toy",
        to=work / f"seed-{seed}",
        data=str(work / "data"),
        seed=seed,
        progress=False,
        say=lambda line: None,
        **({"epochs": 1} if quick else {}),
    )
    found = measure(trained.best, work / "scenes", quick=quick)
    bleu4 = max(epoch["bleu4"] for epoch in trained.history)
    seconds = round(time.monotonic() - started)
    write_json(done, {"bleu4": bleu4, **found, "seconds": seconds})
    return read_json(done)


def summary(runs: list[dict]) -> dict:
    """Mean and spread over the seeds."""
    return {
        kind: {
            name: {
                "mean": mean(run[kind][name] for run in runs),
                "sd": stdev(run[kind][name] for run in runs),
            }
            for name in runs[0][kind]
        }
        for kind in ("correctness", "pointing", "fall")
    }


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--store", type=Path, default=STORED)
    parser.add_argument(
        "--quick", action="store_true", help="few scenes, one epoch, two seeds"
    )
    options = parser.parse_args(arguments)
    recipe, scenes = read_recipe("toy"), options.work / "scenes"
    words = {k: v for k, v in recipe.data.items() if k != "dataset"}
    quick = options.quick
    drawn = QUICK if quick else recipe.scenes
    seeds = SEEDS[:2] if quick else SEEDS
    if not (options.work / "data").exists():
        karpathy = write_scenes(scenes, **drawn)
        prepare_data(
            karpathy,
            scenes / "images",
            options.work / "data",
            DataConfig(**words),
            progress=False,
        )
    runs = []
    for seed in seeds:
        runs.append({"seed": seed, **run(seed, options.work, quick=quick)})
        print(json.dumps(runs[-1]), flush=True)
    result = {
        "data": drawn,
        "packaged": measure("toy", scenes, quick=quick),
        "result": summary(runs),
        "runs": runs,
        "settings": {"recipe": "toy", "quick": quick},
        "versions": versions(),
    }
    write_json(options.store, result, indent=1)
    return 0
