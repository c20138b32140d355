"""Choose float32 or bfloat16 by timing training steps in both.

GPUs, and processors with units for bfloat16 (AMX, AVX-512 BF16), are faster in
bfloat16 than in float32; other processors are slower. Only a measurement with
the given model and batches tells. It leaves no trace: gradients are discarded,
and random state and buffers are restored.
"""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor, nn

from captionlib.config import EngineConfig

__all__ = ["StepTimes", "time_steps"]


FAR_SLOWER = 4  # times as slow on a few images: no need to time a whole batch


class StepTimes(NamedTuple):
    """Median seconds of a forward and backward pass over some images."""

    float32: float
    bfloat16: float
    images: int

    @property
    def bf16(self) -> bool:
        """Whether bfloat16 is faster."""
        return self.bfloat16 < self.float32

    def __str__(self) -> str:
        chosen = "bfloat16" if self.bf16 else "float32"
        return (
            f"a step of {self.images} images takes {self.float32:.2g} s in "
            f"float32 and {self.bfloat16:.2g} s in bfloat16: training in {chosen}"
        )


def time_steps(
    model: nn.Module,
    batches: Sequence[tuple[Tensor, Tensor, Tensor]],
    objective: Callable,
    config: EngineConfig,
    *,
    rounds: int = 3,
) -> StepTimes:
    """Time training steps in float32 and bfloat16 in turn, after a warm-up.

    Where bfloat16 is emulated, it may be twenty times as slow. An eighth of a
    batch shows that, and spares a minute of waiting for the rest.

    Args:
        model: on its device, with the weights to train unfrozen; left
            unchanged.
        batches: (images or features, captions, lengths) as a loader gives them.
        objective: called like `captionlib.engine.objectives.teacher_forcing`.
        config: settings of the training; `bf16` is ignored.
        rounds: timed rounds.
    """
    device = next(model.parameters()).device
    batches = [
        (
            images.to(device),
            captions.flatten(0, -2).to(device),
            lengths.flatten(),
        )
        for images, captions, lengths in batches
    ]
    forms = [replace(config, bf16=bf16) for bf16 in (False, True)]

    def in_turn(batches: Iterable) -> StepTimes:
        """Median times; the first batch is a warm-up."""
        seconds: list[list[float]] = [[], []]
        for turn, (images, captions, lengths) in enumerate(batches):
            for form, times in zip(forms, seconds, strict=True):
                started = _clock(device)
                loss, _ = objective(model, images, captions, lengths, form)
                loss.total.backward()
                if turn:
                    times.append(_clock(device) - started)
                model.zero_grad(set_to_none=True)
        return StepTimes(*map(statistics.median, seconds), len(images))

    with _unchanged(model, device):
        model.train()
        few = in_turn([_first_images(*batches[0])] * 2)
        if few.bfloat16 > FAR_SLOWER * few.float32:
            return few
        whole = itertools.islice(itertools.cycle(batches), rounds + 1)
        return in_turn(whole)


def _first_images(images: Tensor, captions: Tensor, lengths: Tensor) -> tuple:
    """An eighth of a batch."""
    few = max(1, len(images) // 8)
    rows = few * len(captions) // len(images)
    return images[:few], captions[:rows], lengths[:rows]


@contextmanager
def _unchanged(model: nn.Module, device: torch.device):
    """Restore the model's mode and buffers, and torch's random state."""
    modes = {module: module.training for module in model.modules()}
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        try:
            yield
        finally:
            for module, mode in modes.items():
                module.training = mode
            for name, buffer in model.named_buffers():
                buffer.data.copy_(buffers[name])
            model.zero_grad(set_to_none=True)


def _clock(device: torch.device) -> float:
    """The time after the device has finished its work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
    return time.perf_counter()
