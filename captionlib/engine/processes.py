"""Processes that train one model together, through Hugging Face Accelerate.

With these, the loop in `captionlib.engine.loop` is the same for one process and
for several. Each process has the whole model and takes its share of every
batch; gradients are averaged. Accelerate starts the processes (`accelerate
launch`, `notebook_launcher`), on one machine or several.
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
    """The processes of a training run, seen from one of them.

    Args:
        accelerator: of a process that Accelerate started; None for a single
            process.

    Attributes:
        count: the number of processes.
        number: the rank of this process, from 0.
        is_main: whether this process writes the files.
        device: the device of this process; None if that is left to the caller.
    """

    def __init__(self, accelerator: Accelerator | None = None):
        self._accelerator = accelerator
        self.count = accelerator.num_processes if accelerator else 1
        self.number = accelerator.process_index if accelerator else 0
        self.is_main = self.number == 0
        self.device = accelerator.device if accelerator else None

    @classmethod
    def join(cls, device: str | None = None) -> Processes:
        """The processes that Accelerate has started, or this one alone.

        Args:
            device: "cpu" keeps them off the GPUs; otherwise each takes the GPU
                that Accelerate assigns.

        Raises:
            InputError: if the processes can't find each other.
        """
        expected = int(os.environ.get("WORLD_SIZE", 1))
        if expected == 1:
            return cls()
        handlers = [
            # Unused layers, such as a network's head, get no gradient. Batch
            # norm statistics never change.
            DistributedDataParallelKwargs(
                find_unused_parameters=True, broadcast_buffers=False
            ),
            # While the main process encodes a data set, the others wait.
            InitProcessGroupKwargs(timeout=timedelta(days=7)),
        ]
        # Without a GPU, Accelerate must be told to use CPUs, or each process
        # would run alone.
        cpu = device == "cpu" or not torch.cuda.is_available()
        processes = cls(Accelerator(cpu=cpu, kwargs_handlers=handlers))
        if processes.count != expected:
            raise InputError(
                f"--device {device}: {expected} processes were started and "
                "don't see each other; start them on CPUs or NVIDIA GPUs, or "
                "start a single one"
            )
        return processes

    def prepare(self, compute: Callable, model: nn.Module) -> Callable:
        """`compute(model, ...)` as a function of the remaining arguments.

        The gradients of its result are averaged over all processes.
        """
        if self.count == 1:
            return partial(compute, model)
        return self._accelerator.prepare(_Computation(compute, model))

    def even_counts(self, *counts: int) -> list[float]:
        """The average of each count over all processes.

        A mean of means would give the words of a short share more weight than
        those of a long one. Sums over this process's items, divided by these
        counts, average to the overall means, and so do their gradients.
        """
        if self.count == 1:
            return [float(count) for count in counts]
        device = self._accelerator.device
        return self.average(
            torch.tensor(counts, device=device, dtype=torch.float32)
        ).tolist()

    def average(self, values: Tensor) -> Tensor:
        """The average of a tensor over all processes, for each of them."""
        return (
            values
            if self.count == 1
            else self._accelerator.reduce(values, "mean")
        )

    def agree(self, value):
        """The main process's `value`, for every process."""
        return value if self.count == 1 else broadcast_object_list([value])[0]

    def share(self, items: Sequence) -> Sequence:
        """This process's share of `items`: a contiguous run; shares don't
        overlap."""
        if self.count == 1:
            return items
        with self._accelerator.split_between_processes(list(items)) as mine:
            return mine

    def gather(self, results: list) -> list:
        """The results of all processes in one list, in the order of their
        shares."""
        return results if self.count == 1 else gather_object(results)

    def main_first(self) -> AbstractContextManager:
        """A context in which the main process goes first and the others
        wait."""
        return (
            nullcontext()
            if self.count == 1
            else self._accelerator.main_process_first()
        )

    def wait(self) -> None:
        """Wait until every process has reached this point."""
        if self.count > 1:
            self._accelerator.wait_for_everyone()


class _Computation(nn.Module):
    """A computation on a model, as a module that Accelerate can wrap."""

    def __init__(self, compute: Callable, model: nn.Module):
        super().__init__()
        self.compute, self.model = compute, model

    def forward(self, *args, **options):
        return self.compute(self.model, *args, **options)


ALONE = Processes()
