"""What is each part worth on photographs? Chapter 12's second table, on Flickr8k.

Needs the files that `captionlib prepare` writes. The captioners are judged on the
validation split, and no epoch is chosen by it.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch

from captionlib.config import ModelConfig, SearchConfig, TrainConfig
from captionlib.data import ImageDataset, Vocabulary, load_references
from captionlib.encoder import Encoder, encode_once
from captionlib.engine.features import cache_features
from captionlib.io.files import read_json, write_json
from captionlib.io.prepared import find_base, image_file
from captionlib.io.versions import versions
from captionlib.metrics import score
from captionlib.model import CaptionModel
from captionlib.toy.world import (
    MAX_WORDS,
    Split,
    World,
    new_model,
    plain_loss,
    train_on,
    write_all,
)
from tools.experiments._toy import STORED, run_once, summary
from tools.experiments.parts import (
    even_attention,
    open_gate,
    stolen,
    trained_vectors,
)

SEEDS = (1, 2, 3)
SHAPE = ModelConfig(
    feature_dim=512,
    attention_dim=256,
    embed_dim=256,
    decoder_dim=512,
    dropout=0.5,
    feature_dropout=0.3,
)
CONFIG = TrainConfig(
    epochs=8,
    batch_size=32,
    learning_rate=1e-3,
    schedule="one_cycle",
    label_smoothing=0.1,
    weight_decay=0.1,
)
SEARCH = SearchConfig(
    5, max_words=MAX_WORDS, length_normalisation=0.7, forbid_unk=True
)
TUNED = TrainConfig(
    epochs=1,
    batch_size=32,
    learning_rate=2e-4,
    encoder_learning_rate=1e-4,
    schedule="one_cycle",
    label_smoothing=0.1,
    weight_decay=0.1,
)


def read_split(
    folder: Path,
    work: Path,
    split: str,
    encoder: Encoder,
    vocabulary: Vocabulary,
) -> Split:
    """A prepared split, with the grids cached in the work folder."""
    images = image_file(folder, split)
    grids = cache_features(encoder, images, work / f"{split}.hdf5")
    if split == "TRAIN":
        base = find_base(folder)
        n = ImageDataset(images).captions_per_image
        rows = read_json(folder / f"{split}_CAPTIONS_{base}.json")
        told = [vocabulary.decode(row) for row in rows]
        captions = [told[i : i + n] for i in range(0, len(told), n)]
    else:
        _, captions = load_references(folder, split)
    return Split(images, torch.from_numpy(grids[:]), captions, [])


def read_world(folder: Path, work: Path, images: int | None = None) -> World:
    """Training and validation photographs; the latter are judged on."""
    encoder = Encoder(SHAPE.backbone, grid_size=None).eval()
    base = find_base(folder)
    vocabulary = Vocabulary.load(folder / f"WORDMAP_{base}.json")
    splits = [
        read_split(folder, work, split, encoder, vocabulary)
        for split in ("TRAIN", "VAL")
    ]
    splits = [
        Split(s.pixels, s.grids[:images], s.captions[:images], [])
        for s in splits
    ]
    return World(encoder, vocabulary, splits[0], splits[1], splits[1])


def in_bfloat16(
    model: CaptionModel, batch: tuple, config: TrainConfig, progress: float
):
    """Chapter 05's loss, faster on processors that have units for it."""
    with torch.autocast("cpu", torch.bfloat16):
        return plain_loss(model, batch, config, progress)


def judged(world: World, model: CaptionModel, seconds: float) -> dict:
    found = score(world.test.captions, write_all(model, world.test, SEARCH))
    return {
        "bleu4": found["bleu4"],
        "cider_d": found["cider_d"],
        "seconds": seconds,
    }


def trained(
    work: Path,
    world: World,
    seed: int,
    quick: bool,
    change: Callable | None = None,
    **changes,
) -> tuple[CaptionModel, float]:
    """A captioner and its seconds; the baseline is stored for other rows."""
    model = new_model(world, seed, SHAPE)
    stored, is_baseline = work / f"all-parts-{seed}.pt", not (change or changes)
    if is_baseline and stored.exists():
        kept = torch.load(stored, weights_only=True)
        model.load_state_dict(kept["weights"])
        return model.eval(), kept["seconds"]
    torch.manual_seed(seed)
    if change is not None:
        change(model, world)
    config = replace(CONFIG, seed=seed, **changes)
    config = replace(config, epochs=1) if quick else config
    seconds = train_on(world, model, config, in_bfloat16)
    if is_baseline:
        kept = {"weights": model.state_dict(), "seconds": seconds}
        torch.save(kept, stored)
    return model, seconds


def row(work: Path, change: Callable | None = None, **changes) -> Callable:
    def compute(world: World, seed: int, quick: bool) -> dict:
        model, seconds = trained(work, world, seed, quick, change, **changes)
        return judged(world, model, seconds)

    return compute


def one_more(work: Path, fine_tune: bool) -> Callable:
    """One more epoch, in which the encoder changes, or does not."""

    def compute(world: World, seed: int, quick: bool) -> dict:
        model, before = trained(work, world, seed, quick)
        model = deepcopy(model)
        model.fine_tune_encoder(fine_tune)
        config = replace(TUNED, seed=seed)
        if not fine_tune:
            seconds = train_on(world, model, config, in_bfloat16)
            return judged(world, model, before + seconds)
        images = ImageDataset(world.train.pixels)
        pixels = torch.stack([images[i] for i in range(len(world.train.grids))])
        shown = world._replace(train=world.train._replace(grids=pixels))
        seconds = train_on(shown, model, config, in_bfloat16)
        model.fine_tune_encoder(False)
        images = ImageDataset(world.test.pixels)
        again = torch.cat(list(encode_once(model.encoder.eval(), images)))
        again = again[: len(world.test.captions)].flatten(1, 2)
        test = world.test._replace(grids=again)
        return judged(world._replace(test=test), model, before + seconds)

    return compute


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tools.experiments parts_flickr8k",
        description=__doc__.splitlines()[0],
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument(
        "--store", type=Path, default=STORED / "parts_flickr8k.json"
    )
    parser.add_argument(
        "--quick", action="store_true", help="few images, one epoch, two seeds"
    )
    options = parser.parse_args(arguments)
    work, quick = options.work, options.quick
    work.mkdir(parents=True, exist_ok=True)
    world = read_world(options.data, work, 24 if quick else None)
    rows = {
        "all parts": row(work),
        "a thief": stolen(1),
        "a thief with thirty neighbours": stolen(30),
        "attention: none, the mean cell": row(work, even_attention),
        "gate: none": row(work, open_gate),
        "α_c: 0": row(work, alpha_c=0.0),
        "words: vectors trained before": row(work, trained_vectors),
        "one epoch more": one_more(work, False),
        "one epoch more, encoder tuned": one_more(work, True),
    }
    seeds = SEEDS[:2] if quick else SEEDS
    runs: dict[str, list[dict]] = {}
    for seed in seeds:
        for name, compute in rows.items():
            path = work / f"{name.replace(' ', '-')}-{seed}.json"
            found = run_once(path, partial(compute, world, seed, quick))
            print(name, seed, json.dumps(found), flush=True)
            runs.setdefault(name, []).append({"seed": seed, **found})
        if seed == seeds[0]:
            continue
        about = (
            "Flickr8k: {:,} photographs for training, {:,} of the validation "
            "split for these figures"
        )
        counts = len(world.train.grids), len(world.test.grids)
        result = {
            "settings": {
                "about": about.format(*counts),
                "baseline": "all parts",
                "columns": ["bleu4", "cider_d", "seconds"],
                "quick": quick,
                "bf16": True,
            },
            "result": summary(runs, "all parts"),
            "runs": runs,
            "versions": versions(),
        }
        write_json(options.store, result, indent=1)
    return 0
