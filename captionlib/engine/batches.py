"""The batches of a training: whose order is a seed"s, and which several
processes can share."""

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

    Each image comes once, in one of its views, drawn at random. With one view
    and one process these are the batches of `captionlib.training.epoch_loader`.
    Where several processes share a batch, a last one with fewer images than
    processes joins the one before.

    Args:
        images: I, how many there are.
        batch_size: images a batch, at most.
        views: of each image; item v * I + i is view v of image i, as in
            `ViewDataset`.
        processes: each gets a share of every batch.

    Raises:
        InputError: if a batch has too few images to be shared.
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
                f"batches of {min(batch_size, images)} images can't be shared by {processes.count} "
                "processes; give more images a batch, or start fewer processes"
            )
        self.begin(seed=0)

    def begin(self, seed: int, skip: int = 0) -> None:
        """Set what comes next: the seed of the order, and how many of its
        batches are left out."""
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
    """Batches of `dataset`, in an order that the loop decides anew for each
    epoch.

    Args:
        dataset: its items are (images or features, captions, lengths); with
            `views`, as `ViewDataset` has them, an epoch shows each image in
            one.
        num_workers: processes that read ahead while the model computes.
        processes: those that share each batch.
    """
    views = len(getattr(dataset, "views", [dataset]))
    images = len(dataset) // views
    # So that copying to a GPU holds nothing up.
    return DataLoader(
        dataset,
        batch_sampler=Batches(
            images, config.batch_size, views=views, processes=processes
        ),
        num_workers=num_workers,
        persistent_workers=num_workers > 0,
        pin_memory=torch.cuda.is_available(),
    )
