"""Chapters 12 to 15 on photographs: each row one change to the same captioner.

Needs what `captionlib prepare` wrote of Flickr8k, or of any other data set, and
caches the grids in the work folder. All captioners are judged on the validation
split as they are after their last epoch. The learning rates were chosen there
among 1, 2 and 4e-3, by a single epoch with seed 1.
"""

from __future__ import annotations

import argparse
import itertools
import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

import torch

from captionlib.config import ModelConfig, SearchConfig, TrainConfig
from captionlib.data import ImageDataset, Vocabulary, load_references
from captionlib.encoder import Encoder, encode_once
from captionlib.engine.features import cache_features
from captionlib.hard_attention import HardAttention, HardObjective
from captionlib.io.files import read_json, write_json
from captionlib.io.prepared import find_base, image_file
from captionlib.io.versions import versions
from captionlib.model import CaptionModel
from captionlib.self_critical import SelfCritical
from captionlib.toy.world import (
    MAX_WORDS,
    Split,
    World,
    new_model,
    plain_loss,
    train_on,
)
from captionlib.transformer import TransformerDecoder
from tools.experiments._toy import STORED, Row, run_once, summary
from tools.experiments.parts import (
    even_attention,
    open_gate,
    stolen,
    trained_vectors,
)
from tools.experiments.self_critical import writing

SEEDS = (1, 2, 3)
SHAPE = ModelConfig(
    feature_dim=256,
    attention_dim=128,
    embed_dim=192,
    decoder_dim=384,
    dropout=0.5,
    feature_dropout=0.3,
)
CONFIG = TrainConfig(
    epochs=4,
    batch_size=32,
    learning_rate=4e-3,
    schedule="one_cycle",
    label_smoothing=0.1,
    weight_decay=0.1,
)
MORE = replace(CONFIG, epochs=1, learning_rate=5e-4, encoder_learning_rate=1e-4)
TRANSFORMER = {"width": 192, "layers": 2, "dropout": 0.2}
SEARCH = SearchConfig(
    5, max_words=MAX_WORDS, length_normalisation=0.7, forbid_unk=True
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


def in_bfloat16(loss: Callable) -> Callable:
    """The same loss, faster on processors that have units for it."""

    def with_autocast(model, batch, config, progress):
        with torch.autocast("cpu", torch.bfloat16):
            return loss(model, batch, config, progress)

    return with_autocast


def judged(world: World, model: CaptionModel, seconds: float) -> dict:
    return writing(model, world.test, SEARCH) | {"seconds": round(seconds, 1)}


def trained(
    change: Callable = lambda model, world: None,
    loss: Callable = lambda: plain_loss,
    **changes,
) -> Row:
    """A captioner with a change, a loss, or another setting."""

    def row(world: World, seed: int, quick: bool) -> dict:
        model = new_model(world, seed, SHAPE)
        torch.manual_seed(seed)
        change(model, world)
        config = replace(CONFIG, seed=seed, **changes)
        config = replace(config, epochs=1) if quick else config
        seconds = train_on(world, model, config, in_bfloat16(loss()))
        return judged(world, model, seconds)

    return row


def hard(model: CaptionModel, world: World) -> None:
    model.decoder.attention = HardAttention(model.decoder.attention)


def transformer(model: CaptionModel, world: World) -> None:
    V, D = len(world.vocabulary), SHAPE.feature_dim
    model.decoder = TransformerDecoder(V, D, **TRANSFORMER)


def baseline(
    work: Path, world: World, seed: int, quick: bool, epochs: int = 4
) -> tuple[CaptionModel, float]:
    """The captioner with all parts, and its seconds; kept for other rows."""
    model = new_model(world, seed, SHAPE)
    long = "" if epochs == 4 else f"-{epochs}"
    kept = work / f"start{long}-{seed}.pt"
    if not kept.exists():
        config = replace(CONFIG, epochs=epochs, seed=seed)
        config = replace(config, epochs=1) if quick else config
        torch.manual_seed(seed)
        seconds = train_on(world, model, config, in_bfloat16(plain_loss))
        torch.save({"weights": model.state_dict(), "seconds": seconds}, kept)
    start = torch.load(kept, weights_only=True)
    model.load_state_dict(start["weights"])
    return model.eval(), start["seconds"]


def start(work: Path, epochs: int = 4) -> Row:
    def row(world: World, seed: int, quick: bool) -> dict:
        return judged(world, *baseline(work, world, seed, quick, epochs))

    return row


def tuned(work: Path) -> Row:
    """One more epoch, in which the encoder changes, too."""

    def row(world: World, seed: int, quick: bool) -> dict:
        model, before = baseline(work, world, seed, quick)
        model.fine_tune_encoder(True)
        images = ImageDataset(world.train.pixels)
        pixels = torch.stack([images[i] for i in range(len(world.train.grids))])
        shown = world._replace(train=world.train._replace(grids=pixels))
        config = replace(MORE, seed=seed)
        seconds = train_on(shown, model, config, in_bfloat16(plain_loss))
        model.fine_tune_encoder(False)
        images = ImageDataset(world.test.pixels)
        again = torch.cat(list(encode_once(model.encoder.eval(), images)))
        again = again[: len(world.test.captions)].flatten(1, 2)
        test = world.test._replace(grids=again)
        return judged(world._replace(test=test), model, before + seconds)

    return row


def more(
    work: Path,
    loss_of: Callable = lambda world: plain_loss,
    rate: float = MORE.learning_rate,
    epochs: int = 1,
    after: int = 4,
) -> Row:
    """More epochs, with the loss that `loss_of(world)` gives."""

    def row(world: World, seed: int, quick: bool) -> dict:
        model, before = baseline(work, world, seed, quick, after)
        config = replace(MORE, epochs=epochs, learning_rate=rate, seed=seed)
        loss = in_bfloat16(loss_of(world))
        return judged(
            world, model, before + train_on(world, model, config, loss)
        )

    return row


def rewarded(world: World, samples: int, share: float) -> Callable:
    """Chapter 14's loss, with a share of cross-entropy, in nats a caption."""
    _, captions, lengths = world.pairs().tensors
    reward = SelfCritical(captions, lengths, world.vocabulary, samples)

    def loss(model, batch, config, progress):
        found = reward(model, batch, config, progress)
        if not share:
            return found
        model.train()
        words = (batch[2] - 1).float().mean()
        true = plain_loss(model, batch, config, progress).total * words
        total = (1 - share) * found.total + share * true
        return found._replace(total=total)

    return loss


GRID = list(itertools.product((5e-5, 2e-4, 5e-4), (5, 10), (0.0, 0.2)))
GRID += [(2e-5, 5, 0.0), (2e-4, 5, 0.5)]  # beyond the best of either mixture
# With seed 1, the best CIDEr-D of a beam; without and with cross-entropy.
ALONE, MIXED = (5e-5, 5, 0.0), (2e-4, 5, 0.2)


def name_of(rate: float, samples: int, share: float) -> str:
    mixed = f", {share:g} cross-entropy" if share else ""
    rate = f"{rate:f}".rstrip("0")
    return f"rewards, {rate}, {samples} samples{mixed}"


def rows_of(work: Path) -> dict[str, Row]:
    rows = {
        "all parts": start(work),
        "a thief": stolen(1),
        "a thief with thirty neighbours": stolen(30),
        "attention: none, the mean cell": trained(even_attention),
        "α_c: 0": trained(alpha_c=0.0),
        "Transformer": trained(transformer, epochs=5, learning_rate=2e-3),
        "hard": trained(hard, HardObjective),
        "one epoch more": more(work),
        "three epochs more": more(work, epochs=3),
        "gate: none": trained(open_gate),
        "words: vectors trained before": trained(trained_vectors),
        "one epoch more, encoder tuned": tuned(work),
        "twelve epochs": start(work, 12),
        "twelve epochs, no attention": trained(even_attention, epochs=12),
    }
    rows["three after twelve"] = more(work, epochs=3, after=12)
    for setting in GRID:
        rate, samples, share = setting
        loss = partial(rewarded, samples=samples, share=share)
        rows[name_of(*setting)] = more(work, loss, rate)
        if setting in (ALONE, MIXED):
            name = f"after twelve, {name_of(*setting)}"
            rows[name] = more(work, loss, rate, after=12)
    return rows


def alike(*rows: str) -> dict[str, str]:
    return dict(zip(rows, rows, strict=True))


# The tables: rows by the names they have there, baseline first, and columns.
WORDS = ["bleu4", "cider_d"]
TABLES = {
    "parts_flickr8k": (
        alike(
            "all parts",
            "a thief",
            "a thief with thirty neighbours",
            "attention: none, the mean cell",
            "gate: none",
            "α_c: 0",
            "words: vectors trained before",
            "one epoch more",
            "one epoch more, encoder tuned",
        ),
        [*WORDS, "seconds"],
    ),
    "longer_flickr8k": (
        {"attention": "twelve epochs"}
        | {"none, the mean cell": "twelve epochs, no attention"},
        [*WORDS, "seconds"],
    ),
    "hard_flickr8k": (
        {"soft": "all parts", "hard": "hard"},
        [*WORDS, "seconds"],
    ),
    "rewards_flickr8k": (
        {
            "cross-entropy, three epochs": "three epochs more",
            "cross-entropy, one epoch": "one epoch more",
            "the start": "all parts",
        }
        | alike(*(name_of(*setting) for setting in GRID)),
        ["cider_d_greedy", *WORDS, "entropy", "words"],
    ),
    "self_critical_flickr8k": (
        {
            "cross-entropy, three epochs": "three after twelve",
            "the start": "twelve epochs",
            "rewards": f"after twelve, {name_of(*ALONE)}",
            "rewards and cross-entropy": f"after twelve, {name_of(*MIXED)}",
        },
        ["cider_d_greedy", *WORDS, "entropy", "words", "distinct"],
    ),
    "transformer_flickr8k": (
        {"LSTM with attention": "all parts", "Transformer": "Transformer"},
        [*WORDS, "distinct", "seconds"],
    ),
}


def path_of(work: Path, row: str, seed: int) -> Path:
    return work / f"{row.replace(' ', '-')}-{seed}.json"


def runs_of(work: Path, row: str) -> Iterator[dict]:
    for seed in SEEDS:
        if (path := path_of(work, row, seed)).exists():
            yield {"seed": seed, **read_json(path)}


def store_tables(work: Path, store: Path, world: World, quick: bool) -> None:
    """A file for each table whose baseline has run."""
    about = (
        f"Flickr8k: {len(world.train.grids):,} photographs for training, "
        f"{len(world.test.grids):,} of the validation split for these figures"
    )
    for name, (rows, columns) in TABLES.items():
        runs = {shown: list(runs_of(work, row)) for shown, row in rows.items()}
        runs = {shown: found for shown, found in runs.items() if found}
        first = next(iter(rows))
        if first not in runs:
            continue
        result = {
            "settings": {
                "about": about,
                "baseline": first,
                "columns": columns,
                "model": asdict(SHAPE),
                "train": asdict(CONFIG),
                "transformer": TRANSFORMER,
                "bf16": True,
                "quick": quick,
            },
            "result": summary(runs, first),
            "runs": runs,
            "versions": versions(),
        }
        write_json(store / f"{name}.json", result, indent=1)


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tools.experiments photographs",
        description=__doc__.splitlines()[0],
    )
    add = partial(parser.add_argument, type=Path, metavar="DIR")
    add("--data", required=True, help="what captionlib prepare wrote")
    add("--work", required=True, help="folder for grids and runs")
    add("--store", default=STORED, help="folder for the tables")
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS)
    parser.add_argument("--only", nargs="+", metavar="ROW")
    parser.add_argument(
        "--quick", action="store_true", help="few images, one epoch"
    )
    options = parser.parse_args(arguments)
    work, quick = options.work, options.quick
    work.mkdir(parents=True, exist_ok=True)
    world = read_world(options.data, work, 24 if quick else None)
    rows = rows_of(work)
    for seed, row in itertools.product(options.seeds, options.only or rows):
        compute = partial(rows[row], world, seed, quick)
        found = run_once(path_of(work, row, seed), compute)
        print(row, seed, json.dumps(found), flush=True)
        store_tables(work, options.store, world, quick)
    return 0
