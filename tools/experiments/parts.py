"""What is each part of a captioner worth? Chapter 12's table, on drawn scenes."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace

import torch
from torch.nn import functional as F
from torch.utils.data import DataLoader

from captionlib.attention import Attention
from captionlib.config import SearchConfig, TrainConfig
from captionlib.decoder import pack, teacher_force
from captionlib.encoder import encode_once
from captionlib.engine.scheduled_sampling import feed_own_words
from captionlib.metrics import score
from captionlib.model import CaptionModel
from captionlib.parts import (
    DotAttention,
    EvenAttention,
    OpenGate,
    most_typical,
    nearest_images,
    word_vectors,
)
from captionlib.toy.world import (
    CONFIG,
    MAX_WORDS,
    SHAPE,
    Split,
    World,
    new_model,
    train_on,
    write_all,
    yardsticks,
)
from captionlib.training import CaptionLoss, caption_loss, validation_nats
from tools.experiments._toy import run_rows

PAPERS_ALPHA_C = 64.0  # a sum over the 8 * 8 cells, where ours is a mean
OWN_WORDS = 0.25
MORE_EPOCHS = 2


def settings_for(seed: int, quick: bool, **changes) -> TrainConfig:
    config = replace(CONFIG, seed=seed, **changes)
    return replace(config, epochs=1) if quick else config


def judged(world: World, model: CaptionModel, seconds: float) -> dict:
    return {**yardsticks(model, world.test), "seconds": seconds}


def varied(change=None, shape=SHAPE, loss=None, captions=5, **changes):
    """A row with another part, shape, loss or setting."""

    def row(world: World, seed: int, quick: bool) -> dict:
        model = new_model(world, seed, shape)
        torch.manual_seed(seed)
        if change is not None:
            change(model, world)
        extra = {} if loss is None else {"loss": loss}
        config = settings_for(seed, quick, **changes)
        seconds = train_on(world, model, config, captions=captions, **extra)
        return judged(world, model, seconds)

    return row


def even_attention(model: CaptionModel, world: World) -> None:
    model.decoder.attention = EvenAttention()


def dot_attention(model: CaptionModel, world: World) -> None:
    plain: Attention = model.decoder.attention
    sizes = plain.encoder_att.in_features, plain.decoder_att.in_features
    model.decoder.attention = DotAttention(*sizes, SHAPE.attention_dim)


def open_gate(model: CaptionModel, world: World) -> None:
    model.decoder.f_beta = OpenGate(model.decoder.f_beta.out_features)


def trained_vectors(model: CaptionModel, world: World) -> None:
    told = [words for of_scene in world.train.captions for words in of_scene]
    dim = model.decoder.embedding.embedding_dim
    vectors = word_vectors(told, world.vocabulary, dim)
    model.decoder.load_pretrained_embeddings(vectors)


def own_words(
    model: CaptionModel, batch: tuple, config: TrainConfig, progress: float
) -> CaptionLoss:
    """Scheduled sampling; see `captionlib.engine.scheduled_sampling`."""
    grids, captions, lengths = batch
    captions, lengths = captions.flatten(0, 1), lengths.flatten()
    captions = captions[:, : int(lengths.max())]
    grids = model.encode(grids)
    fed = feed_own_words(model.decoder, grids, captions, OWN_WORDS * progress)
    output = teacher_force(model.decoder, grids, fed, lengths)
    output = output._replace(targets=pack(captions[:, 1:], lengths - 1))
    return caption_loss(output, config.alpha_c, config.label_smoothing)


def stretched(world: World, seed: int, quick: bool) -> dict:
    """The grid as the original has it: 14 * 14 cells, averaged from fewer."""

    def stretch(split: Split) -> Split:
        side = round(split.grids.shape[1] ** 0.5)
        grids = split.grids.unflatten(1, (side, side)).movedim(3, 1)
        parts = [
            F.adaptive_avg_pool2d(part.float(), 14).half()
            for part in grids.split(64)
        ]
        return split._replace(grids=torch.cat(parts).flatten(2).mT.contiguous())

    world = world._replace(train=stretch(world.train), test=stretch(world.test))
    return varied()(world, seed, quick)


class Trained:
    """The baseline with one seed, and what its epochs were like."""

    def __init__(self, world: World, seed: int, quick: bool):
        self.seed, self.model = seed, new_model(world, seed)
        torch.manual_seed(seed)
        self.epochs: list[tuple[float, float, dict]] = []
        search = SearchConfig(1, max_words=MAX_WORDS)
        held_out = world._replace(train=world.val).pairs()

        def look(epoch: int) -> None:
            told = write_all(self.model, world.val, search)
            bleu4 = score(world.val.captions, told)["bleu4"]
            nats = validation_nats(self.model, DataLoader(held_out, 32))
            weights = deepcopy(self.model.decoder.state_dict())
            self.epochs.append((bleu4, nats, weights))

        config = settings_for(seed, quick)
        self.seconds = train_on(world, self.model, config, after_epoch=look)


LAST: list[Trained] = []  # of the seed at hand, which several rows start from


def baseline(world: World, seed: int, quick: bool) -> Trained:
    if not LAST or LAST[0].seed != seed:
        LAST[:] = [Trained(world, seed, quick)]
    return LAST[0]


def everything(world: World, seed: int, quick: bool) -> dict:
    trained = baseline(world, seed, quick)
    return judged(world, trained.model, trained.seconds)


def chosen(best):
    """A row that keeps the epoch which `best` likes most."""

    def row(world: World, seed: int, quick: bool) -> dict:
        trained = baseline(world, seed, quick)
        model = deepcopy(trained.model)
        epoch = best(trained.epochs)
        model.decoder.load_state_dict(epoch[2])
        found = judged(world, model, trained.seconds)
        return found | {"epoch": trained.epochs.index(epoch) + 1}

    return row


def tuned(world: World, seed: int, quick: bool, fine_tune: bool = True) -> dict:
    """Two more epochs, in which the encoder changes, or does not."""
    trained = baseline(world, seed, quick)
    model = deepcopy(trained.model)
    model.fine_tune_encoder(fine_tune)
    rate = CONFIG.learning_rate / 10
    config = settings_for(
        seed, quick, learning_rate=rate, encoder_learning_rate=rate / 4
    )
    config = replace(config, epochs=1 if quick else MORE_EPOCHS)
    # A trial has one epoch of each; its time counts as it would in earnest.
    weight = MORE_EPOCHS / CONFIG.epochs if quick else 1
    if not fine_tune:
        seconds = weight * train_on(world, model, config)
        return judged(world, model, trained.seconds + seconds)
    shown = world._replace(train=world.train._replace(grids=world.train.pixels))
    seconds = weight * train_on(shown, model, config)
    model.fine_tune_encoder(False)
    again = list(encode_once(model.encoder.eval(), world.test.pixels))
    test = world.test._replace(grids=torch.cat(again).flatten(1, 2))
    world = world._replace(test=test)
    return judged(world, model, trained.seconds + seconds)


def continued(world: World, seed: int, quick: bool) -> dict:
    return tuned(world, seed, quick, fine_tune=False)


def stolen(count: int):
    """No captioner at all: a caption of one of the `count` nearest images."""

    def row(world: World, seed: int, quick: bool) -> dict:
        grids, known = world.test.grids, world.train.grids
        _, near = nearest_images(grids, known, min(count, len(known)))
        told = []
        for row in near.tolist():
            near_by = [c for i in row for c in world.train.captions[i]]
            told.append(near_by[0] if count == 1 else most_typical(near_by))
        scores = score(world.test.captions, told)
        return {name: scores[name] for name in ("bleu4", "cider_d")}

    return row


ROWS = {
    "all parts": everything,
    "a thief": stolen(1),
    "a thief with thirty neighbours": stolen(30),
    "attention: none, the mean cell": varied(even_attention),
    "attention: dot product": varied(dot_attention),
    "gate: none": varied(open_gate),
    "α_c: 0": varied(alpha_c=0.0),
    "α_c: the paper's": varied(alpha_c=PAPERS_ALPHA_C),
    "grid: stretched to 14×14": stretched,
    "dropout: none": varied(shape=replace(SHAPE, dropout=0.0)),
    "captions: one of five": varied(captions=1),
    "words: scheduled sampling": varied(loss=own_words),
    "words: vectors trained before": varied(trained_vectors),
    "LSTM: half as large": varied(
        shape=replace(SHAPE, decoder_dim=SHAPE.decoder_dim // 2)
    ),
    "LSTM: twice as large": varied(
        shape=replace(SHAPE, decoder_dim=SHAPE.decoder_dim * 2)
    ),
    "epoch: the best by BLEU-4": chosen(
        lambda epochs: max(epochs, key=by_bleu)
    ),
    "epoch: the best by likelihood": chosen(
        lambda epochs: min(epochs, key=by_nats)
    ),
    "two epochs more": continued,
    "two epochs more, encoder tuned": tuned,
}


def by_bleu(epoch: tuple) -> float:
    return epoch[0]


def by_nats(epoch: tuple) -> float:
    return epoch[1]


def main(arguments: list[str]) -> int:
    about = __doc__.splitlines()[0]
    settings = {
        "alpha_c_of_the_paper": PAPERS_ALPHA_C,
        "own_words": OWN_WORDS,
        "columns": ["bleu4", "cider_d", "correctness", "cost"],
    }
    return run_rows("parts", about, ROWS, arguments, settings)
