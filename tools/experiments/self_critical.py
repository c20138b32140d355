"""What does rewarding whole captions do? Chapter 14's comparison.

A captioner of the drawn world is trained with cross-entropy. Each row goes on
from there for about as long as that took, and all rows of a seed share the
start, which is stored in the work folder.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

import torch

from captionlib.config import EngineConfig, SearchConfig, TrainConfig
from captionlib.engine.scheduled_sampling import scheduled_sampling
from captionlib.metrics import score
from captionlib.model import CaptionModel
from captionlib.self_critical import SelfCritical, sample, word_entropy
from captionlib.toy.world import (
    CONFIG,
    MAX_WORDS,
    Split,
    World,
    new_model,
    plain_loss,
    train_on,
    write_all,
    yardsticks,
)
from tools.experiments._toy import run_rows

BEAM = SearchConfig(3, max_words=MAX_WORDS)
COLUMNS = ("cider_d_greedy", "cider_d", "entropy", "words", "distinct")
COLUMNS += ("correctness",)


def started(world: World, seed: int, quick: bool, work: Path) -> CaptionModel:
    """The captioner that all rows of a seed go on from."""
    model, path = new_model(world, seed), work / f"start-{seed}"
    if not path.exists():
        epochs = 1 if quick else CONFIG.epochs
        train_on(world, model, replace(CONFIG, epochs=epochs, seed=seed))
        torch.save(model.state_dict(), path)
    model.load_state_dict(torch.load(path))
    return model.eval()


def rewarded(world: World, config: TrainConfig, **options) -> Callable:
    _, captions, lengths = world.pairs().tensors
    return SelfCritical(captions, lengths, world.vocabulary, **options)


def scheduled(world: World, config: TrainConfig, share: float) -> Callable:
    """Scheduled sampling, with up to this share of the model's own words."""
    settings = EngineConfig(**asdict(config), own_words=share)

    def loss(model, batch, config, progress):
        grids, captions, lengths = batch
        return scheduled_sampling(
            model,
            grids,
            captions.flatten(0, 1),
            lengths.flatten(),
            settings,
            progress=progress,
        )[0]

    return loss


def as_before(world: World, config: TrainConfig) -> Callable:
    return plain_loss


@torch.inference_mode()
def writing(
    model: CaptionModel, split: Split, beam: SearchConfig
) -> dict[str, float]:
    """What it writes by greedy search and at a beam, and how sure it is.

    `entropy` is the mean over the words of one drawn caption an image, in nats;
    `words` and `distinct`, length and number of distinct captions, are of the
    greedy ones; `same` is how often the beam finds the greedy caption.
    """
    searches = replace(beam, beam_size=1), beam
    greedy, best = (write_all(model, split, s) for s in searches)
    scores = [score(split.captions, written) for written in (greedy, best)]
    torch.manual_seed(0)
    v, entropies = model.vocabulary, []
    for part in split.grids.split(200):
        grids = model.encode(part)
        drawn = sample(model.decoder, grids, v, longest=MAX_WORDS + 1)
        entropies.append(word_entropy(model.decoder(grids, *drawn), v))
    same = [one == other for one, other in zip(greedy, best, strict=True)]
    return {
        "bleu4": scores[1]["bleu4"],
        "cider_d": scores[1]["cider_d"],
        "cider_d_greedy": scores[0]["cider_d"],
        "bleu4_greedy": scores[0]["bleu4"],
        "entropy": float(torch.cat(entropies).mean()),
        "words": sum(map(len, greedy)) / len(greedy),
        "words_beam": sum(map(len, best)) / len(best),
        "distinct": len(set(map(tuple, greedy))),
        "distinct_beam": len(set(map(tuple, best))),
        "same": sum(same) / len(same),
    }


def measures(model: CaptionModel, split: Split) -> dict[str, float]:
    """The yardsticks, and what it writes."""
    looks = yardsticks(model, split, BEAM.beam_size)
    return looks | writing(model, split, BEAM)


# Epochs that take about as long as 16 of cross-entropy, and learning rates.
ROWS = {
    "cross-entropy, twice as long": (as_before, {}, 16, 2e-3),
    "the start": (as_before, {}, 0, 0.0),
    "scheduled sampling": (scheduled, {"share": 0.5}, 12, 2e-3),
    "reward, other samples": (rewarded, {}, 10, 1e-3),
    "reward, greedy caption": (rewarded, {"greedy": True}, 9, 1e-3),
    "reward, without end": (rewarded, {"end": False}, 10, 1e-3),
}


def go_on(
    name: str, work: Path, world: World, seed: int, quick: bool
) -> dict[str, float]:
    """One row: train on from the seed's start, and measure."""
    loss, options, epochs, rate = ROWS[name]
    model, seconds = started(world, seed, quick, work), 0.0
    if epochs:
        config = replace(
            CONFIG,
            epochs=1 if quick else epochs,
            learning_rate=rate,
            seed=seed + 100,
        )
        objective = loss(world, config, **options)
        seconds = train_on(world, model, config, objective)
    return measures(model, world.test) | {"seconds": seconds}


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--work", type=Path)
    work = parser.parse_known_args(arguments)[0].work
    rows = {name: partial(go_on, name, work) for name in ROWS}
    settings = {
        "columns": COLUMNS,
        "start": asdict(CONFIG),
        "rows": {
            name: {**options, "epochs": epochs, "learning_rate": rate}
            for name, (_, options, epochs, rate) in ROWS.items()
        },
    }
    return run_rows(
        "self_critical", __doc__.splitlines()[0], rows, arguments, settings
    )
