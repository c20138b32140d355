"""Hard attention against soft on photographs, for equally many epochs.

Takes Karpathy's JSON of Flickr8k, or any such file. A run takes hours on a
processor; each is stored as it ends, and the command goes on where it stopped.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch

from captionlib.beam_search import beam_search
from captionlib.config import (
    DataConfig,
    ModelConfig,
    SearchConfig,
    TrainConfig,
)
from captionlib.data import Vocabulary, load_references
from captionlib.encoder import Encoder, FeatureDataset
from captionlib.engine.features import cache_features
from captionlib.engine.preparation import prepare_data
from captionlib.hard_attention import HardAttention, HardObjective
from captionlib.io.files import read_json, write_json
from captionlib.io.prepared import image_file
from captionlib.io.versions import versions
from captionlib.metrics import score
from captionlib.toy.world import new_model, plain_loss, train_on
from tools.experiments._toy import STORED, run_once, summary

SEEDS = (1, 2, 3)
ROWS = ("soft", "hard")
SHAPE = ModelConfig(
    backbone="tf_efficientnet_lite0",
    attention_dim=256,
    embed_dim=256,
    decoder_dim=512,
)
CONFIG = TrainConfig(
    epochs=12,
    batch_size=64,
    learning_rate=1e-3,
    schedule="one_cycle",
    label_smoothing=0.1,
)
SEARCH = SearchConfig(beam_size=5, max_words=30)


class Photographs(NamedTuple):
    """What `train_on` and `new_model` need of a world, and what is scored."""

    encoder: Encoder
    vocabulary: Vocabulary
    train: FeatureDataset
    val: FeatureDataset
    references: list

    def pairs(self, captions: int) -> FeatureDataset:
        return self.train


def photographs(captions: Path, images: Path, work: Path) -> Photographs:
    """Prepare the photographs and encode them, unless that is done."""
    folder = work / "data"
    if not folder.exists():
        prepare_data(captions, images, folder, DataConfig(), progress=False)
    encoder = Encoder(SHAPE.backbone, grid_size=None).eval()
    splits = []
    for split in ("TRAIN", "VAL"):
        cache = work / f"{split}.hdf5"
        pixels = image_file(folder, split)
        grids = cache_features(encoder, pixels, cache, progress=False)
        splits.append(FeatureDataset(folder, split, grids))
    _, references = load_references(folder, "VAL")
    return Photographs(encoder, splits[0].vocabulary, *splits, references)


def train(data: Photographs, row: str, seed: int, quick: bool) -> dict:
    """Scores on the validation split, after the last epoch."""
    model, loss = new_model(data, seed, SHAPE), plain_loss
    if row == "hard":
        model.decoder.attention = HardAttention(model.decoder.attention)
        loss = HardObjective()
    epochs = {"epochs": 1} if quick else {}
    config = replace(CONFIG, seed=seed, **epochs)
    seconds = train_on(data, model, config, loss)
    written = []
    with torch.inference_mode():
        for start in range(0, len(data.val), 50):
            part = range(start, min(start + 50, len(data.val)))
            grids = model.encode(torch.stack([data.val[i][0] for i in part]))
            found = beam_search(model.decoder, grids, data.vocabulary, SEARCH)
            written += [data.vocabulary.decode(f.word_ids) for f in found]
    scores = score(data.references, written)
    return {
        "bleu4": scores["bleu4"],
        "cider_d": scores["cider_d"],
        "seconds": seconds,
    }


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tools.experiments hard_flickr8k",
        description=__doc__.splitlines()[0],
    )
    parser.add_argument("--captions", type=Path, required=True)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    store = STORED / "hard_flickr8k.json"
    parser.add_argument("--store", type=Path, default=store)
    parser.add_argument(
        "--quick", action="store_true", help="one epoch, two seeds"
    )
    options = parser.parse_args(arguments)
    options.work.mkdir(parents=True, exist_ok=True)
    data = photographs(options.captions, options.images, options.work)
    runs = {row: [] for row in ROWS}
    for seed in SEEDS[:2] if options.quick else SEEDS:
        for row in ROWS:
            path = options.work / f"{row}-{seed}.json"
            compute = partial(train, data, row, seed, options.quick)
            run_once(path, compute)
            runs[row].append({"seed": seed, **read_json(path)})
            print(row, json.dumps(runs[row][-1]), flush=True)
    about = (
        f"{len(data.train):,} photographs for training, {len(data.val):,} "
        "of the validation split for these figures"
    )
    settings = {
        "columns": ("bleu4", "cider_d"),
        "about": about,
        "baseline": "soft",
        "epochs": CONFIG.epochs,
        "quick": options.quick,
    }
    result = {
        "data": {"train": len(data.train), "val": len(data.val)},
        "settings": settings,
        "result": summary(runs, "soft"),
        "runs": runs,
        "versions": versions(),
    }
    write_json(options.store, result, indent=1)
    return 0
