"""Batches in an order fixed by a seed, which several processes can share."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch.utils.data import DataLoader, Sampler

from captionlib.config import TrainConfig
from captionlib.engine.processes import ALONE, Processes
from captionlib.io.files import InputError

__all__ = ["Batches", "make_loader"]


class Batches(Sampler[list[int]]):
    """The batches of an epoch, as lists of item numbers.

    Each image occurs once, in a view drawn at random. With one view and one
    process, these are the batches of `captionlib.training.epoch_loader`. If the
    last batch has fewer images than there are processes, it joins the one
    before.

    Args:
        images: I, the number of images.
        batch_size: images per batch, at most.
        views: views per image; item v * I + i is view v of image i, as in
            `ViewDataset`.
        processes: each gets a share of every batch.

    Raises:
        InputError: if a batch has fewer images than there are processes.
    """

    def __init__(
        self,
        images: int,
        batch_size: int,
        *,
        views: int = 1,
        processes: Processes = ALONE,
    ):
        self.images, self.views, self.processes = images, views, processes
        starts = list(range(0, images, batch_size)) or [0]
        if len(starts) > 1 and images - starts[-1] < processes.count:
            starts.pop()
        self.starts = starts
        if min(batch_size, images) < processes.count:
            raise InputError(
                f"batches of {min(batch_size, images)} images can't be shared "
                f"by {processes.count} processes; use larger batches or fewer "
                "processes"
            )
        self.begin(seed=0)

    def begin(self, seed: int, skip: int = 0) -> None:
        """Set the seed of the next epoch's order, and the batches to skip."""
        self.seed, self.skip = seed, skip

    def __len__(self) -> int:
        """The number of batches of a whole epoch."""
        return len(self.starts)

    def __iter__(self) -> Iterator[list[int]]:
        generator = torch.Generator().manual_seed(self.seed)
        order = torch.randperm(self.images, generator=generator)
        order += self.images * torch.randint(
            self.views, order.shape, generator=generator
        )
        for batch in order.tensor_split(self.starts[1:])[self.skip :]:
            yield batch[self.processes.number :: self.processes.count].tolist()


def make_loader(
    dataset,
    config: TrainConfig,
    *,
    num_workers: int = 0,
    processes: Processes = ALONE,
) -> DataLoader:
    """Batches of `dataset`, in an order that the loop sets for each epoch.

    Args:
        dataset: its items are (images or features, captions, lengths). If it
            has `views`, as `ViewDataset` does, an epoch shows each image in one
            of them.
        num_workers: worker processes that load batches ahead.
        processes: those that share each batch.
    """
    views = len(getattr(dataset, "views", [dataset]))
    images = len(dataset) // views
    # Pinned memory lets copies to a GPU overlap with computing.
    return DataLoader(
        dataset,
        batch_sampler=Batches(
            images, config.batch_size, views=views, processes=processes
        ),
        num_workers=num_workers,
        persistent_workers=num_workers > 0,
        pin_memory=torch.cuda.is_available(),
    )
