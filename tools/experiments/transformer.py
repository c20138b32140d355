"""Which decoder writes best after the same time? Chapter 15's comparison.

Captioners of the drawn world, with four decoders on the same grids. The numbers
of epochs make those on equally many scenes take equally long on one thread.
Learning rates were chosen on 100 validation scenes, with seed 1 and 400 scenes:
for both LSTMs 12e-3, better than 4e-3 and 8e-3; for the Transformer 4e-3, better
than 1e-3, 2e-3 and 6e-3; for the prefix 4e-3, better than 2e-3. One layer has the
Transformer's, the LSTM on 1,000 scenes that of `CONFIG`.
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

FEW, ALL = 400, 1000
ABOUT = (
    f"{FEW} drawn scenes for training where no other number is named, 200 for "
    "these figures"
)
# For each row: decoder, how it differs, scenes, epochs, and learning rate.
ROWS = {
    "LSTM with attention": (None, {}, FEW, 16, 12e-3),
    "LSTM, twice as large": (None, {"decoder_dim": 160}, FEW, 11, 12e-3),
    "Transformer": (TransformerDecoder, {}, FEW, 22, 4e-3),
    "Transformer of one layer": (
        TransformerDecoder,
        {"layers": 1},
        FEW,
        38,
        4e-3,
    ),
    "prefix of 9 tokens": (PrefixDecoder, {}, FEW, 29, 4e-3),
    "LSTM, 1,000 scenes": (None, {}, ALL, 16, 4e-3),
    "Transformer, 1,000 scenes": (TransformerDecoder, {}, ALL, 22, 4e-3),
}


def run(name: str, world: World, seed: int, quick: bool) -> dict:
    """Train one captioner and measure it. Seconds are the processor's."""
    kind, shape, scenes, epochs, rate = ROWS[name]
    few = Split(*(part[:scenes] for part in world.train))
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
