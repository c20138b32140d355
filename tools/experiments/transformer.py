"""Which decoder writes best after the same time? Chapter 15's comparison.

Captioners of the drawn world, with other decoders on the same grids. The numbers
of epochs make them take equally long on one thread.
Learning rates were chosen on 100 validation scenes, with seed 1 and 400 scenes:
for both LSTMs 12e-3, better than 4e-3 and 8e-3; for the Transformer 4e-3, better
than 1e-3, 2e-3 and 6e-3, and one layer has the same; for the prefix 4e-3, better
than 2e-3.
"""

from __future__ import annotations

import time
from dataclasses import asdict, replace
from functools import partial

import torch

from captionlib.toy.world import (
    CONFIG,
    SHAPE,
    Split,
    World,
    new_model,
    train_on,
    yardsticks,
)
from captionlib.transformer import PrefixDecoder, TransformerDecoder
from tools.experiments._toy import run_rows

SCENES = 400
ABOUT = f"{SCENES} drawn scenes for training, 200 for these figures"
# For each row: decoder, how it differs, epochs, and learning rate.
ROWS = {
    "LSTM with attention": (None, {}, 16, 12e-3),
    "LSTM, twice as large": (None, {"decoder_dim": 160}, 11, 12e-3),
    "Transformer": (TransformerDecoder, {}, 22, 4e-3),
    "Transformer of one layer": (
        TransformerDecoder,
        {"layers": 1},
        38,
        4e-3,
    ),
    "prefix of 9 tokens": (PrefixDecoder, {}, 29, 4e-3),
}


def run(name: str, world: World, seed: int, quick: bool) -> dict:
    """Train one captioner and measure it. Seconds are the processor's."""
    kind, shape, epochs, rate = ROWS[name]
    few = Split(*(part[:SCENES] for part in world.train))
    plain = replace(SHAPE, **shape) if kind is None else SHAPE
    model = new_model(world, seed, plain)
    if kind is not None:
        torch.manual_seed(seed)
        dim = world.encoder.encoder_dim
        model.decoder = kind(len(world.vocabulary), dim, **shape)
    epochs = 1 if quick else epochs
    config = replace(CONFIG, seed=seed, epochs=epochs, learning_rate=rate)
    started = time.process_time()
    train_on(world._replace(train=few), model, config)
    seconds = time.process_time() - started
    weights = sum(weight.numel() for weight in model.decoder.parameters())
    found = yardsticks(model, world.test)
    return found | {"seconds": round(seconds, 1), "weights": weights}


def main(arguments: list[str]) -> int:
    return run_rows(
        "transformer",
        __doc__,
        {name: partial(run, name) for name in ROWS},
        arguments,
        {
            "about": ABOUT,
            "columns": ["bleu4", "cider_d", "correctness", "before", "seconds"],
            "model": asdict(SHAPE),
            "train": asdict(CONFIG),
            "rows": {name: list(row[1:]) for name, row in ROWS.items()},
        },
    )
