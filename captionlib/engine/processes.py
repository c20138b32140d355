"""The processes that train one model together, through Hugging Face Accelerate.

Written by hand, so that the loop in `captionlib.engine.loop` need not ask
whether it is alone. Each process has the whole model and takes its share of
every batch; what follows makes their steps one. Accelerate starts them
(`accelerate launch`, `notebook_launcher`), on one machine or several.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from datetime import timedelta
from functools import partial

import torch
from accelerate import Accelerator
from accelerate.utils import (
    DistributedDataParallelKwargs,
    InitProcessGroupKwargs,
    broadcast_object_list,
    gather_object,
)
from torch import Tensor, nn

from captionlib.io.files import InputError

__all__ = ["ALONE", "Processes"]


class Processes:
    """The processes of one training, seen from one of them; by default there is
    no other.

    Args:
        accelerator: of a process that Accelerate has started; None for one that
            works alone.

    Attributes:
        count: how many they are.
        number: which one this is, from 0.
        is_main: whether this one writes the files.
        device: where this one computes; None if that is left to the caller.
    """

    def __init__(self, accelerator: Accelerator | None = None):
        self._accelerator = accelerator
        self.count = accelerator.num_processes if accelerator else 1
        self.number = accelerator.process_index if accelerator else 0
        self.is_main = self.number == 0
        self.device = accelerator.device if accelerator else None

    @classmethod
    def join(cls, device: str | None = None) -> Processes:
        """Those that Accelerate has started, this one among them; or this one
        alone.

        Args:
            device: "cpu" keeps them off the GPUs; else each takes the one that
                Accelerate gives it.

        Raises:
            InputError: if they can't find each other.
        """
        expected = int(os.environ.get("WORLD_SIZE", 1))
        if expected == 1:
            return cls()
        handlers = [
            # The weights of a layer that nothing reads, such as a network's
            # unused head, get no gradient. The batch norms' statistics never
            # change.
            DistributedDataParallelKwargs(
                find_unused_parameters=True, broadcast_buffers=False
            ),
            # While the main process encodes a data set, the others wait.
            InitProcessGroupKwargs(timeout=timedelta(days=7)),
        ]
        # Without a GPU, Accelerate would take each for alone unless it is told
        # to do without.
        cpu = device == "cpu" or not torch.cuda.is_available()
        processes = cls(Accelerator(cpu=cpu, kwargs_handlers=handlers))
        if processes.count != expected:
            raise InputError(
                f"--device {device}: {expected} processes were started and don't see each other; "
                "start them on processors or on NVIDIA's GPUs, or one alone"
            )
        return processes

    def prepare(self, compute: Callable, model: nn.Module) -> Callable:
        """`compute(model, ...)`, as a function of the rest.

        The gradients of what it returns are the averages over all processes.
        """
        if self.count == 1:
            return partial(compute, model)
        return self._accelerator.prepare(_Computation(compute, model))

    def mean(self, total: Tensor, count: int) -> Tensor:
        """This process's part of a mean over everybody's items.

        A mean of means would give a word of a short share more weight than one
        of a long share. So each process divides its sum by what is everybody's
        count, over the number of processes: the average of these parts is the
        mean, and so it is with their gradients.

        Args:
            total: scalar, the sum over this process's items.
            count: of these items, 0 if there are none.
        """
        if self.count == 1:
            return total / count
        everybodys = self._accelerator.reduce(
            torch.tensor(float(count), device=total.device)
        )
        return total * self.count / everybodys

    def even_counts(self, *counts: int) -> list[float]:
        """Everybody's counts, divided by the number of processes.

        A sum over this process's items, divided by such a count, averages to
        everybody's mean.
        """
        if self.count == 1:
            return [float(count) for count in counts]
        device = self._accelerator.device
        return self.average(
            torch.tensor(counts, device=device, dtype=torch.float32)
        ).tolist()

    def average(self, values: Tensor) -> Tensor:
        """The average over all processes of a tensor of one shape, the same for
        each of them."""
        return (
            values
            if self.count == 1
            else self._accelerator.reduce(values, "mean")
        )

    def agree(self, value):
        """The main process's `value`, for every process."""
        return value if self.count == 1 else broadcast_object_list([value])[0]

    def share(self, items: Sequence) -> Sequence:
        """This process's share of `items`: neighbours, in order. Each item is
        in one share."""
        if self.count == 1:
            return items
        with self._accelerator.split_between_processes(list(items)) as mine:
            return mine

    def gather(self, results: list) -> list:
        """Everybody's results in one list; those of shares come in the order of
        the items."""
        return results if self.count == 1 else gather_object(results)

    def main_first(self) -> AbstractContextManager:
        """In its block the main process goes first: the others find what it has
        made."""
        return (
            nullcontext()
            if self.count == 1
            else self._accelerator.main_process_first()
        )

    def wait(self) -> None:
        """Return when every process has come to this point."""
        if self.count > 1:
            self._accelerator.wait_for_everyone()


class _Computation(nn.Module):
    """What a model's gradients come from, as the module that Accelerate wants
    to wrap."""

    def __init__(self, compute: Callable, model: nn.Module):
        super().__init__()
        self.compute, self.model = compute, model

    def forward(self, *args, **options):
        return self.compute(self.model, *args, **options)


ALONE = Processes()
