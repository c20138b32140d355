"""Can rewarding whole captions help a captioner of photographs?

Three learning rates, two numbers of samples and two shares of cross-entropy,
one seed each; the best of them, by CIDEr-D on the validation split at a beam of
5, with two more seeds. Each run is stored when it ends, so the command can be
stopped at any time and started again.
"""

from __future__ import annotations

import argparse
import itertools
import json
import time
from functools import partial
from pathlib import Path

import torch

from captionlib.beam_search import beam_search
from captionlib.config import Recipe, SearchConfig
from captionlib.data import load_references
from captionlib.engine import train_recipe
from captionlib.engine.views import open_views
from captionlib.io.files import read_json
from captionlib.io.versions import versions
from captionlib.metrics import score
from captionlib.model import CaptionModel
from captionlib.self_critical import sample, word_entropy
from tools.experiments._toy import STORED, run_once

GRID = [
    {
        "learning_rate": rate,
        "reward_samples": samples,
        "cross_entropy_share": share,
        "seed": 0,
    }
    for rate, samples, share in itertools.product(
        (2e-5, 1e-4, 4e-4), (5, 10), (0.0, 0.2)
    )
]
MORE_SEEDS = (1, 2)
SEARCHES = {"greedy": 1, "beam": 5}
MAX_WORDS = 30


@torch.inference_mode()
def measures(folder: Path, data: Path, features: Path) -> dict:
    """Scores on the validation split, and how sure the captioner is."""
    model = CaptionModel.load(folder, member=0).eval()
    v, (_, references) = model.vocabulary, load_references(data, "VAL")
    (grids,) = open_views(
        Recipe(),
        data,
        "VAL",
        features,
        model.encoder,
        bf16=False,
        device="cpu",
        progress=False,
        say=print,
    )
    written = {name: [] for name in SEARCHES}
    entropies = []
    torch.manual_seed(0)
    for rows in torch.arange(len(grids)).split(50):
        batch = [torch.as_tensor(grids[i]) for i in rows.tolist()]
        seen = model.encode(torch.stack(batch))
        for name, size in SEARCHES.items():
            search = SearchConfig(
                size,
                max_words=MAX_WORDS,
                length_normalisation=0.7,
                forbid_unk=True,
            )
            found = beam_search(model.decoder, seen, v, search)
            written[name] += [v.decode(best.word_ids) for best in found]
        drawn = sample(model.decoder, seen, v, longest=MAX_WORDS + 1)
        entropies.append(word_entropy(model.decoder(seen, *drawn), v))
    found = {"entropy": float(torch.cat(entropies).mean())}
    for name, captions in written.items():
        scores = score(references, captions)
        found[name] = {
            "bleu4": scores["bleu4"],
            "cider_d": scores["cider_d"],
            "words": sum(map(len, captions)) / len(captions),
            "distinct": len(set(map(tuple, captions))),
        }
    return found


def name_of(settings: dict) -> str:
    """The name of a run's files."""
    return (
        "rate{learning_rate:g}-samples{reward_samples}-"
        "share{cross_entropy_share:g}-seed{seed}".format(**settings)
    )


def train_and_measure(settings: dict, options: argparse.Namespace) -> dict:
    """Go on from the start with these settings, and measure the last weights."""
    to = options.work / name_of(settings)
    trained = train_recipe(
        to=to,
        data=str(options.data),
        features=str(options.features),
        start_from=str(options.start),
        resume=True,
        objective="self_critical",
        schedule="one_cycle",
        epochs=options.epochs,
        bf16=options.bf16,
        keep="end",
        checkpoint_minutes=5,
        progress=False,
        **settings,
    )
    return {
        "settings": settings,
        "epochs": options.epochs,
        "bf16": options.bf16,
        "history": trained.history,
        **measures(trained.best, options.data, options.features),
        "versions": versions(),
    }


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tools.experiments self_critical_flickr8k",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = partial(parser.add_argument, type=Path, metavar="DIR")
    add("--data", required=True, help="what captionlib prepare wrote")
    add("--features", help="folder of its cached grids (--data)")
    add("--start", required=True, help="the captioner to go on from")
    add("--work", required=True, help="folder for the trainings")
    add("--store", default=STORED / "self_critical_flickr8k")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument(
        "--bf16", action="store_true", help="train on grids in bfloat16"
    )
    parser.add_argument(
        "--minutes",
        type=float,
        default=float("inf"),
        help="begin no run that would end later, as far as the last one tells",
    )
    parser.add_argument(
        "--most", type=int, default=len(GRID), help="runs of the grid to do"
    )
    options = parser.parse_args(arguments)
    options.features = options.features or options.data
    options.store.mkdir(parents=True, exist_ok=True)
    began, last = time.monotonic(), 0.0

    def stored(name: str, compute) -> dict | None:
        """A run's result; None if there is no time left for it."""
        nonlocal last
        path, started = options.store / f"{name}.json", time.monotonic()
        if not path.exists():
            if started - began + last > 60 * options.minutes:
                return None
            last = run_once(path, compute)["whole_seconds"]
        found = read_json(path)
        scores = {key: found[key] for key in ("entropy", *SEARCHES)}
        print(name, json.dumps(scores), flush=True)
        return found

    def run(settings: dict) -> dict | None:
        compute = partial(train_and_measure, settings, options)
        return stored(name_of(settings), compute)

    before = options.start, options.data, options.features
    stored("start", lambda: measures(*before))
    runs = [run(settings) for settings in GRID[: options.most]]
    if len(runs) == len(GRID) and None not in runs:
        best = max(runs, key=lambda run: run["beam"]["cider_d"])["settings"]
        for seed in MORE_SEEDS:
            run(best | {"seed": seed})
    return 0
