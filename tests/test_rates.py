"""The learning rates that are applied, as the optimizer sees them at each of its steps."""

import json
import math
from dataclasses import replace

import pytest
import torch
from torch.optim.optimizer import register_optimizer_step_pre_hook
from torch.utils.data import Dataset

from captionlib import cli, training
from captionlib.engine import loop
from captionlib.engine.batches import make_loader
from tests.small_training import SETTINGS, FewFeatures, make_model

FULL = SETTINGS.learning_rate
both = pytest.mark.parametrize("form", ["plain", "engine"])


@pytest.fixture
def rates():
    """One dict for each step of any optimizer: the rate of "decoder" and, if it learns, "encoder".

    Only the encoder has convolutions, whose weights have four dimensions.
    """
    steps = []

    def note(optimizer, *_):
        step = {}
        for group in optimizer.param_groups:
            images = any(weight.dim() == 4 for weight in group["params"])
            step["encoder" if images else "decoder"] = group["lr"]
        assert len(step) == len(optimizer.param_groups)
        steps.append(step)

    hook = register_optimizer_step_pre_hook(note)
    yield steps
    hook.remove()


def run(form, folder, scores=float, data=None, **changes):
    """Train by the chapter's loop or the engine's; `scores` gives epoch n's BLEU-4."""
    config = replace(SETTINGS, **changes)
    model, data, done = make_model(), data or FewFeatures(), []

    def evaluate(_):
        done.append(1)
        return {"bleu4": scores(len(done))}

    if form == "plain":
        if config.fine_tune_encoder:
            model.fine_tune_encoder()
        training.train(model, data, evaluate, config, folder)
    else:
        loader = make_loader(data, config)
        loop.train(model, loader, evaluate, config, folder, progress=False)


@both
def test_one_cycle_climbs_and_falls_by_cosines(rates, tmp_path, form):
    run(form, tmp_path, schedule="one_cycle", epochs=4)
    count = len(rates)
    assert count == 4 * 3  # eight images, three at most in a batch
    for step, applied in enumerate(rates):
        share = step / count
        if share < 0.3:
            up = (1 - math.cos(math.pi * share / 0.3)) / 2
            expected = 0.04 + 0.96 * up
        else:
            expected = (1 + math.cos(math.pi * (share - 0.3) / 0.7)) / 2
        assert applied == {"decoder": pytest.approx(FULL * expected)}
    assert rates[0]["decoder"] == pytest.approx(0.04 * FULL)
    assert rates[-1]["decoder"] < 0.1 * FULL


@both
def test_plateau_cuts_after_epochs_without_a_better_score(
    rates, tmp_path, form
):
    changes = {"epochs": 6, "decay": 0.5, "decay_after": 2, "patience": 9}
    run(form, tmp_path, lambda epoch: -epoch, schedule="plateau", **changes)
    by_epoch = [rates[3 * epoch]["decoder"] / FULL for epoch in range(6)]
    assert by_epoch == pytest.approx([1, 1, 1, 0.5, 0.5, 0.25])
    within = [rate["decoder"] for rate in rates[9:12]]
    assert within == [pytest.approx(0.5 * FULL)] * 3


@both
def test_a_better_score_keeps_the_rate(rates, tmp_path, form):
    run(form, tmp_path, schedule="plateau", epochs=3, decay_after=1)
    assert [rate["decoder"] for rate in rates] == [pytest.approx(FULL)] * 9


class FewImages(Dataset):
    """The captions of `FewFeatures`, with images in place of grids."""

    def __init__(self):
        self.of_words = FewFeatures()

    def __len__(self):
        return len(self.of_words)

    def __getitem__(self, i):
        _, captions, lengths = self.of_words[i]
        generator = torch.Generator().manual_seed(i)
        pixels = torch.randint(0, 255, (3, 64, 64), generator=generator)
        return pixels.to(torch.uint8), captions, lengths


@both
def test_the_encoder_has_a_rate_of_its_own_which_follows_the_schedule(
    rates, tmp_path, form
):
    changes = {"encoder_learning_rate": FULL / 100, "fine_tune_encoder": True}
    run(form, tmp_path, data=FewImages(), epochs=1, **changes)
    assert len(rates) == 3
    for step in rates:
        assert step["encoder"] == pytest.approx(step["decoder"] / 100)
    assert len({step["encoder"] for step in rates}) == 3


RECIPE = {
    "scenes": {"train": 8, "val": 2, "test": 1, "seed": 1},
    "data": {"dataset": "scenes", "min_word_freq": 1, "max_len": 20},
    "model": {
        "image_size": 64,
        "attention_dim": 8,
        "embed_dim": 8,
        "decoder_dim": 8,
    },
    "stages": [
        {"epochs": 1, "batch_size": 4, "learning_rate": 1e-3},
        {
            "fine_tune_encoder": True,
            "epochs": 1,
            "batch_size": 4,
            "learning_rate": 2e-4,
            "encoder_learning_rate": 3e-5,
        },
    ],
    "search": {"beam_size": 1, "max_words": 3},
}


def test_each_stage_of_a_recipe_has_rates_of_its_own(rates, tmp_path, capsys):
    path = tmp_path / "two.json"
    path.write_text(json.dumps(RECIPE))
    words = ["train", "--recipe", str(path), "--to", str(tmp_path / "model")]
    assert cli.main(words) == 0, capsys.readouterr().err
    first, second = {"decoder": 1e-3}, {"decoder": 2e-4, "encoder": 3e-5}
    assert rates == [first] * 2 + [second] * 2
