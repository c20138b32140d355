"""Long work in batches, with a progress bar; and the device it runs on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from captionlib.io.files import InputError

__all__ = ["batches", "find_device"]


def batches(
    items: Sequence, size: int, *, unit: str, progress: bool = True
) -> Iterator[Sequence]:
    """`items` in runs of `size`; the bar, on a terminal, counts items."""
    from tqdm.auto import tqdm

    hidden = None if progress else True  # None: unless it is a terminal
    with tqdm(total=len(items), unit=f" {unit}", disable=hidden) as bar:
        for start in range(0, len(items), size):
            batch = items[start : start + size]
            yield batch
            bar.update(len(batch))


def find_device(name: str | None):
    """The `torch.device` of that name; None: the first GPU if there is one,
    else the CPU.

    Raises:
        InputError: if torch can't use it.
    """
    import torch

    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        torch.zeros(1, device=name)
    except (RuntimeError, AssertionError, NotImplementedError):
        raise InputError(
            f"--device {name}: torch can't use it here; give cpu"
        ) from None
    return torch.device(name)
