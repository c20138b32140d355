"""A small drawn world, encoded once, for trainings that are to be compared.

Chapters 12 to 15 change one part of a captioner at a time. Here is what stays
the same: scenes and captions, the training loop, which is chapter 05's, and
what a captioner is judged by.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import TensorDataset

from captionlib.beam_search import beam_search
from captionlib.config import ModelConfig, SearchConfig, TrainConfig
from captionlib.data import Vocabulary
from captionlib.encoder import Encoder, encode_once
from captionlib.grounding import grounding
from captionlib.metrics import score
from captionlib.model import CaptionModel
from captionlib.toy.scenes import (
    KINDS,
    draw_scene,
    scene_with_captions,
    tokenise,
)
from captionlib.training import (
    CaptionLoss,
    caption_loss,
    epoch_loader,
    make_optimizer,
    predict,
    rate_factor,
    seed_of,
    set_rates,
    update,
)

__all__ = [
    "CONFIG",
    "SHAPE",
    "Split",
    "World",
    "draw_world",
    "new_model",
    "plain_loss",
    "train_on",
    "write_all",
    "yardsticks",
]

MAX_WORDS = 30
SHAPE = ModelConfig(attention_dim=80, embed_dim=64, decoder_dim=80, dropout=0.2)
CONFIG = TrainConfig(
    epochs=16,
    batch_size=32,
    learning_rate=4e-3,
    schedule="one_cycle",
    label_smoothing=0.05,
)


class Split(NamedTuple):
    """Scenes of one split, and all that is known about them."""

    pixels: Tensor  # (I, 3, 256, 256) uint8
    grids: Tensor  # (I, P, D) float16
    captions: list[list[list[str]]]  # five of each scene, as words
    things: list[list[dict]]  # in each scene: `box` and `words`


class World(NamedTuple):
    """Everything that trainings share."""

    encoder: Encoder
    vocabulary: Vocabulary  # of the training captions
    train: Split
    val: Split
    test: Split

    def pairs(self, captions: int = 5) -> TensorDataset:
        """Grid, word ids and lengths of each training scene, with so many of
        its captions."""
        ids, lengths = [], []
        for of_scene in self.train.captions:
            chosen = of_scene[:captions]
            ids.append([self.vocabulary.encode(c, MAX_WORDS) for c in chosen])
            lengths.append([min(len(c), MAX_WORDS) + 2 for c in chosen])
        return TensorDataset(
            self.train.grids, torch.tensor(ids), torch.tensor(lengths)
        )


def draw_world(
    train: int = 1000,
    val: int = 200,
    test: int = 200,
    seed: int = 0,
    tell: Callable = scene_with_captions,
    paint: Callable = draw_scene,
) -> World:
    """Draw scenes as `write_scenes` does, and encode them by the encoder that
    the toy captioner has.

    Args:
        train, val, test: scenes in each split.
        seed: another seed gives other scenes.
        tell: called as `scene_with_captions`.
        paint: called as `draw_scene`, with what `tell` gives first.
    """
    encoder = Encoder(SHAPE.backbone, grid_size=None).eval()
    splits = []
    for name, count in (("train", train), ("val", val), ("test", test)):
        scenes, told = [], []
        for i in range(count):
            scene, sentences = tell(name, i, seed)
            scenes.append(scene)
            told.append([tokenise(sentence) for sentence in sentences])
        pictures = [np.asarray(paint(scene)) for scene in scenes]
        pixels = torch.from_numpy(np.stack(pictures)).movedim(3, 1)
        grids = torch.cat(list(encode_once(encoder, pixels))).flatten(1, 2)
        things = [
            [{"box": t.box, "words": KINDS[t.name].words} for t in scene.things]
            for scene in scenes
        ]
        splits.append(Split(pixels, grids, told, things))
    words = (caption for of_scene in splits[0].captions for caption in of_scene)
    return World(encoder, Vocabulary.build(words, 3), *splits)


def new_model(
    world: World, seed: int, shape: ModelConfig = SHAPE
) -> CaptionModel:
    """A captioner for this world, with untrained weights from a seed."""
    torch.manual_seed(seed)
    return CaptionModel(shape, world.vocabulary, world.encoder)


def plain_loss(
    model: CaptionModel, batch: tuple, config: TrainConfig, progress: float
) -> CaptionLoss:
    """Chapter 05's."""
    output = predict(model, *batch)
    return caption_loss(output, config.alpha_c, config.label_smoothing)


def train_on(
    world: World,
    model: CaptionModel,
    config: TrainConfig = CONFIG,
    loss: Callable = plain_loss,
    captions: int = 5,
    after_epoch: Callable[[int], object] = lambda epoch: None,
) -> float:
    """Chapter 05's loop with any loss. Returns seconds of processor time.

    Args:
        loss: called as `plain_loss`, with the progress of the training from 0
            to 1; what it returns has a `total`.
        captions: how many of each scene to train on.
        after_epoch: called with the number of epochs done; not timed.
    """
    pairs, optimizer = world.pairs(captions), make_optimizer(model, config)
    seconds = 0.0
    for epoch in range(config.epochs):
        model.train()
        started = time.process_time()
        loader = epoch_loader(pairs, config, epoch)
        for step, batch in enumerate(loader):
            progress = (epoch + step / len(loader)) / config.epochs
            set_rates(optimizer, rate_factor(config, [], progress))
            torch.manual_seed(seed_of(config.seed, epoch, step))
            found = loss(model, batch, config, progress)
            update(model, found.total, optimizer, config)
        seconds += time.process_time() - started
        after_epoch(epoch + 1)
    model.eval()
    return seconds


@torch.inference_mode()
def write_all(
    model: CaptionModel, split: Split, search: SearchConfig
) -> list[list[str]]:
    """A caption of every scene of a split."""
    grids = model.eval().encode(split.grids)
    found = beam_search(model.decoder, grids, model.vocabulary, search)
    return [model.vocabulary.decode(best.word_ids) for best in found]


def yardsticks(
    model: CaptionModel, split: Split, beam_size: int = 3
) -> dict[str, float]:
    """How good its words are, and whether it looks where it should.

    The maps are made while it reads a human caption of each scene, so that all
    models are judged by the same words.

    Returns:
        `bleu4` and `cider_d` of its own captions, ×100; for the words of the
        human ones that name something, the weight of the word's map
        (`correctness`) and of the map before (`before`) in the thing's box, the
        share of peaks in it (`pointing`), and the nats lost without the box's
        cells (`fall`).
    """
    search = SearchConfig(beam_size, max_words=MAX_WORDS)
    scores = score(split.captions, write_all(model, split, search))
    told = [of_scene[0] for of_scene in split.captions]
    looked = grounding(model, split.grids, told, split.things)
    own = "the word itself"
    return {
        "bleu4": scores["bleu4"],
        "cider_d": scores["cider_d"],
        "correctness": float(looked.correctness[own].mean()),
        "before": float(looked.correctness["the word before"].nanmean()),
        "pointing": float(looked.pointing[own].mean()),
        "fall": float(looked.fall["in the box"].mean()),
    }
