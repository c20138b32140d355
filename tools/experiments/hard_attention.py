"""Hard attention against soft, and its parts taken out in turn: chapter 13's table."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

from torch import Tensor

from captionlib.hard_attention import HardAttention, HardObjective
from captionlib.toy.world import (
    CONFIG,
    World,
    new_model,
    plain_loss,
    train_on,
    yardsticks,
)
from tools.experiments._toy import Row, run_rows


def whole_caption(log_p: Tensor, lengths: Tensor, baseline: float) -> Tensor:
    """The paper's reward: the caption, above what a caption usually has."""
    usual = baseline * lengths.float().mean()
    return (log_p.sum(dim=1, keepdim=True) - usual).expand_as(log_p)


def trained(objective: Callable | None = None, **changes) -> Row:
    """A row with hard attention if it has an objective for it."""

    def row(world: World, seed: int, quick: bool) -> dict:
        model, loss = new_model(world, seed), plain_loss
        if objective is not None:
            model.decoder.attention = HardAttention(model.decoder.attention)
            loss = objective()
        epochs = {"epochs": 1} if quick else {}
        config = replace(CONFIG, seed=seed, **epochs, **changes)
        seconds = train_on(world, model, config, loss)
        return {**yardsticks(model, world.test), "seconds": seconds}

    return row


ROWS = {
    "soft": trained(),
    "hard": trained(HardObjective),
    "hard, no baseline": trained(partial(HardObjective, keep=1.0)),
    "hard, the whole caption's reward": trained(
        partial(HardObjective, reward_of=whole_caption)
    ),
    "hard, always drawn": trained(partial(HardObjective, share=1.0)),
    "hard, λ_r = 1": trained(partial(HardObjective, lambda_r=1.0)),
    "soft, α_c = 0": trained(alpha_c=0.0),
    "hard, α_c = 0": trained(HardObjective, alpha_c=0.0),
}
SETTINGS = {
    "lambda_r": 0.1,
    "lambda_e": 0.002,
    "share": 0.5,
    "keep": 0.9,
    "columns": ("bleu4", "correctness", "before", "pointing"),
}


def main(arguments: list[str]) -> int:
    about = __doc__.splitlines()[0]
    return run_rows("hard_attention", about, ROWS, arguments, SETTINGS)
