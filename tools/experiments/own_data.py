"""How many photographs does one need? Fine-tuning against training from scratch.

Flickr8k's 1,000 validation photographs stand for somebody's own: the shipped
captioner has not seen them. Each draw divides them anew into 600 to train on,
150 to choose the epoch by, and 250 to score. The smaller training sets are the
beginning of the larger ones. Interrupted, the command goes on where it stopped.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import time
from pathlib import Path
from statistics import mean, stdev

from captionlib.config import DataConfig
from captionlib.engine import evaluate_split, train_recipe
from captionlib.engine.preparation import prepare_data
from captionlib.io.files import read_json, write_json
from captionlib.io.versions import versions

STORED = (
    Path(__file__).parents[2]
    / "book"
    / "results"
    / "experiments"
    / "own_data.json"
)
SIZES = (50, 200, 600)
CHOOSE, SCORE = 150, 250
SCORES = ("bleu4", "cider_d")
COMMON = {
    "batch_size": 16,
    "label_smoothing": 0.1,
    "weight_decay": 0.1,
    "decay_after": 3,
    "patience": 8,
    "bf16": True,
}
WAYS = {
    "fine-tuned": {
        "data": {"words_of": "flickr8k"},
        "train": {
            "start_from": "flickr8k",
            "epochs": 30,
            "learning_rate": 1e-4,
        },
    },
    "from scratch": {
        "data": {"min_word_freq": 2},
        "train": {
            "recipe": "flickr8k",
            "mirrored": False,
            "schedule": "plateau",
            "averaging": 0.0,
            "epochs": 60,
            "learning_rate": 1e-3,
        },
    },
}


def entries(karpathy_json: Path, split: str) -> list[dict]:
    return [
        image
        for image in read_json(karpathy_json)["images"]
        if image["split"] == split
    ]


def draw(images: list[dict], seed: int, size: int) -> list[dict]:
    """The images of one draw, with new splits; `size` of them to train on."""
    drawn = random.Random(seed).sample(images, len(images))
    rest, most = drawn[: CHOOSE + SCORE], drawn[CHOOSE + SCORE :]
    return [
        {**image, "split": split}
        for split, some in (
            ("val", rest[:CHOOSE]),
            ("test", rest[CHOOSE:]),
            ("train", most[:size]),
        )
        for image in some
    ]


def evaluate(data: Path, photographs: Path, model: str | Path) -> dict:
    done = evaluate_split(
        data, photographs, "test", model=str(model), progress=False
    )
    return {name: done.scores[name] for name in SCORES}


def run(
    way: str,
    images: list[dict],
    photographs: Path,
    to: Path,
    seed: int,
    **quick,
) -> dict:
    """Train one captioner and score it; its files are deleted afterwards."""
    done = to.with_suffix(".json")
    if done.exists():
        return read_json(done)
    settings, started = WAYS[way], time.monotonic()
    data = to / "dataset.json"
    shutil.rmtree(to, ignore_errors=True)
    to.mkdir(parents=True)
    write_json(data, {"dataset": "own", "images": images})
    given = dict(settings["data"])
    words_of = {k: given.pop(k) for k in ("words_of",) if k in given}
    prepare_data(
        data,
        photographs,
        to / "data",
        DataConfig(**given),
        progress=False,
        **words_of,
    )
    trained = train_recipe(
        to=to / "model",
        data=str(to / "data"),
        seed=seed,
        progress=False,
        say=lambda line: None,
        **COMMON | settings["train"] | quick,
    )
    kept = max(trained.history, key=lambda epoch: epoch["bleu4"])
    result = {
        **evaluate(data, photographs, trained.best),
        "epoch": kept["epoch"],
        "epochs": len(trained.history),
        "validation_bleu4": kept["bleu4"],
        "seconds": round(time.monotonic() - started),
    }
    write_json(done, result)
    shutil.rmtree(to)
    return result


def summary(runs: list[dict]) -> dict:
    """Mean and spread over draws, and paired differences."""
    found = {
        name: {
            "mean": mean(run[name] for run in runs),
            "sd": stdev(run[name] for run in runs) if len(runs) > 1 else None,
        }
        for name in SCORES
    }
    return found | {"seconds": mean(run["seconds"] for run in runs)}


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--karpathy-json", type=Path, required=True)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--draws", type=int, default=3)
    parser.add_argument("--split", default="val")
    parser.add_argument("--store", type=Path, default=STORED)
    parser.add_argument(
        "--quick", action="store_true", help="a few steps of each"
    )
    options = parser.parse_args(arguments)
    images = entries(options.karpathy_json, options.split)
    sizes = SIZES[:1] if options.quick else SIZES
    quick = {"epochs": 1} if options.quick else {}
    rows: dict[tuple[str, int], list[dict]] = {}
    for seed in range(options.draws):
        shipped = options.work / f"shipped-{seed}.json"
        if not shipped.exists():
            data = options.work / f"draw-{seed}.json"
            drawn = draw(images, seed, 0)
            options.work.mkdir(parents=True, exist_ok=True)
            write_json(data, {"dataset": "own", "images": drawn})
            started = time.monotonic()
            scores = evaluate(data, options.images, "flickr8k")
            seconds = round(time.monotonic() - started)
            write_json(shipped, {**scores, "seconds": seconds})
        rows.setdefault(("as shipped", 0), []).append(read_json(shipped))
        for size in sizes:
            for way in WAYS:
                name = f"{way.replace(' ', '-')}-{size}-{seed}"
                found = run(
                    way,
                    draw(images, seed, size),
                    options.images,
                    options.work / name,
                    seed,
                    **quick,
                )
                print(json.dumps({"run": name, **found}), flush=True)
                rows.setdefault((way, size), []).append(found)
    result = {
        "data": {
            "dataset": "flickr8k",
            "split": options.split,
            "choose": CHOOSE,
            "score": SCORE,
            "draws": options.draws,
        },
        "result": [
            {"way": way, "images": size, **summary(runs), "runs": runs}
            for (way, size), runs in rows.items()
        ],
        "settings": {"common": COMMON, "ways": WAYS},
        "versions": versions(),
    }
    write_json(options.store, result, indent=1)
    return 0
