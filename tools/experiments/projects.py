"""The book's projects, with the solutions that are folded on their page.

What is measured here are the ranges that the page tells readers to expect. The
code is the page's own: all its blocks are run but those that end in a check,
which the reader fills in.
"""

from __future__ import annotations

import argparse
import math
import re
import time
from collections import Counter
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from statistics import mean

import torch

from captionlib.exercises.projects import (
    GENDERS,
    verb_facts,
    verbs_right,
)
from captionlib.io.files import read_json, write_json
from captionlib.io.versions import versions
from captionlib.metrics import score
from captionlib.model import CaptionModel
from captionlib.toy.scenes import tokenise
from captionlib.toy.world import World, draw_world, new_model, yardsticks
from tools.experiments._toy import STORED, run_once

PAGE = Path(__file__).parents[2] / "book" / "projects.md"
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@cache
def page_names() -> dict:
    """Everything that the page defines, by name."""
    names: dict = {"__name__": "projects"}
    for code in BLOCK.findall(PAGE.read_text(encoding="utf-8")):
        if re.search(r"^check\(", code, re.MULTILINE):
            code = "\n".join(re.findall(r"^(?:import|from) .+", code, re.M))
        exec(compile(code, "projects.md", "exec"), names)
    return names


@cache
def world_of(name: str, quick: bool) -> World:
    """One of the worlds, drawn once."""
    page, test = page_names(), 8 if quick else 200
    if name == "verbs":
        return page["verb_world"](16 if quick else 600, test)
    if name == "English":
        return draw_world(16 if quick else 400, val=1, test=test)
    split = tokenise if name == "a_to_z" else page["words_of"]
    return page["in_german"](world_of("English", quick), split)


def verbs(world: World, model: CaptionModel) -> dict:
    """How often each verb is right, and how often anything could be."""
    page, (truth, actors, doing) = page_names(), verb_facts()
    captions = page["write_all"](model, world.test, page["SEARCH"])
    said = [page["doings"](words, actors, doing) for words in captions]
    table = page["confusions"](truth, said, doing)
    seen = Counter(verb for pairs in truth for _, verb in pairs)
    counts = torch.tensor([float(seen[verb]) for verb in doing]).diag()
    one, other = doing.index("jumping"), doing.index("landing")
    counts[one] += counts[other]  # they look the same
    counts[other] = 0
    return {
        **verbs_right(captions),
        "named": float(table.sum()) / sum(map(len, truth[: len(captions)])),
        "ceiling": float(page["ceiling"](counts)),
        "bleu4": score(world.test.captions, captions)["bleu4"],
    }


def language(world: World, model: CaptionModel) -> dict:
    """The words of a language, and what the author's own would score."""
    told, page = world.test.captions, page_names()
    captions = page["write_all"](model, world.test, page["SEARCH"])
    four = [of_scene[:4] for of_scene in told]
    own = [of_scene[4] for of_scene in told]
    right, all_of_them = page["agreement"](captions, GENDERS)
    known = world.vocabulary.word_map
    words = [w for of_scene in told for caption in of_scene for w in caption]
    found = {
        "bleu4": score(told, captions)["bleu4"],
        "four": score(four, captions)["bleu4"],
        "author": score(four, own)["bleu4"],
        "vocabulary": len(world.vocabulary),
        "unknown": sum(word not in known for word in words) / len(words),
        "length": mean(map(len, own)),
    }
    if all_of_them:
        found["agreement"] = right / all_of_them
    return found


def teach(
    name: str,
    measures: tuple[Callable, ...],
    seed: int,
    quick: bool,
    bias: float | None = None,
) -> dict:
    """Train the usual captioner on a world, or one with two scales, and measure
    it. Seconds are the processor's."""
    page, world = page_names(), world_of(name, quick)
    rate, epochs = 8e-3 if name == "verbs" else 12e-3, 1 if quick else 16
    model = (
        new_model(world, seed)
        if bias is None
        else page["two_scale_model"](world, seed, bias)
    )
    started = time.process_time()
    page["trained"](world, model, seed, epochs, rate)
    found = {"seconds": time.process_time() - started}
    for measure in measures:
        found |= measure(world, model)
    return found


def vote(world: World, model: CaptionModel) -> dict:
    """BLEU-4 of the captions that most of ten candidates agree with."""
    started = time.process_time()
    chosen = page_names()["write_by_consensus"](model, world.test)
    seconds = time.process_time() - started
    found = score(world.test.captions, chosen)["bleu4"]
    return {"consensus": found, "consensus_seconds": seconds}


def looks(world: World, model: CaptionModel) -> dict:
    """What chapter 12 judges by, and how much goes to coarse cells."""
    found = yardsticks(model, world.test)
    attention = model.decoder.attention
    if hasattr(attention, "bias"):
        with torch.inference_mode():
            grids = model.encode(world.test.grids)
            told = [of_scene[0] for of_scene in world.test.captions]
            ids = [model.vocabulary.encode(words, 30) for words in told]
            state, shares = model.decoder.begin(grids), []
            for t in range(5):
                words = torch.tensor(ids)[:, t]
                _, _, state = model.decoder.step(words, state)
                shares.append(attention.coarse.mean())
        found["coarse"] = float(torch.stack(shares).mean())
    return found


def race(seed: int, quick: bool, *, scenes: int, epochs: int, **how) -> dict:
    """An entry of the board."""
    page = page_names()
    sizes = (16, 1, 8) if quick else (scenes, epochs, 200)
    world, model, seconds = page["race"](*sizes, seed=seed, **how)
    captions = page["write_all"](model, world.test, page["SEARCH"])
    bleu4 = score(world.test.captions, captions)["bleu4"]
    return {"bleu4": bleu4, "seconds": seconds, **vote(world, model)}


ROWS = {
    "verbs": partial(teach, "verbs", (verbs,)),
    "one_scale": partial(teach, "English", (language, looks, vote)),
    "German": partial(teach, "German", (language,)),
    "two_scales": partial(teach, "English", (looks,), bias=0.0),
    "a_to_z": partial(teach, "a_to_z", (language,)),
    "even_start": partial(teach, "English", (looks,), bias=math.log(4)),
    "race": partial(race, scenes=2000, epochs=6, size=160),
}


def ranges(runs: list[dict]) -> dict:
    """Mean, least and most of each measure over the seeds."""
    return {
        measure: {
            "mean": mean(values),
            "low": min(values),
            "high": max(values),
        }
        for measure in runs[0]
        if measure != "seed"
        for values in [[run[measure] for run in runs]]
    }


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tools.experiments projects",
        description=__doc__.splitlines()[0],
    )
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--store", type=Path, default=STORED / "projects.json")
    parser.add_argument(
        "--only", nargs="+", choices=ROWS, default=list(ROWS), metavar="ROW"
    )
    parser.add_argument("--seeds", type=int, default=3, help="1 to so many")
    parser.add_argument(
        "--quick", action="store_true", help="few scenes, one epoch"
    )
    options = parser.parse_args(arguments)
    options.work.mkdir(parents=True, exist_ok=True)
    runs: dict[str, list[dict]] = {}
    for row in ROWS:
        for seed in range(1, options.seeds + 1):
            path = options.work / f"{row}-{seed}.json"
            if row in options.only:
                found = run_once(path, partial(ROWS[row], seed, options.quick))
                print(row, seed, found, flush=True)
            if path.exists():
                found = {"seed": seed, **read_json(path)}
                runs.setdefault(row, []).append(found)
    result = {row: ranges(of_row) for row, of_row in runs.items()}
    stored = {"result": result, "runs": runs, "versions": versions()}
    write_json(options.store, stored, indent=1)
    return 0
