"""Batches with a progress bar, and the choice of a device."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from captionlib.io.files import InputError

__all__ = ["batches", "find_device"]


def batches(
    items: Sequence, size: int, *, unit: str, progress: bool = True
) -> Iterator[Sequence]:
    """Split `items` into batches, with a progress bar on a terminal."""
    from tqdm.auto import tqdm

    # None hides the bar unless stderr is a terminal
    hidden = None if progress else True
    with tqdm(total=len(items), unit=f" {unit}", disable=hidden) as bar:
        for start in range(0, len(items), size):
            batch = items[start : start + size]
            yield batch
            bar.update(len(batch))


def find_device(name: str | None):
    """The named `torch.device`; by default a GPU if available, else the CPU.

    Raises:
        InputError: if torch can't use the device.
    """
    import torch

    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        torch.zeros(1, device=name).tolist()  # "meta" has no numbers
    except (RuntimeError, AssertionError, NotImplementedError):
        raise InputError(
            f"--device {name}: torch can't use this device here; use cpu"
        ) from None
    return torch.device(name)
