"""A cache of grids on disk: `encode_once` for data sets of any size.

Chapter 02 keeps the grids of sixteen images in memory. Here they are written to
a file, one batch at a time. The file stores the identity of its origin and is
reused while that matches.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from tqdm.auto import tqdm

from captionlib.data import ImageDataset
from captionlib.encoder import Encoder, FeatureDataset, encode_once
from captionlib.io.claims import require_writable
from captionlib.io.features import Features, new_features
from captionlib.io.files import InputError
from captionlib.io.identity import of_features

__all__ = ["ELSEWHERE", "Mirrored", "ViewDataset", "cache_features"]

ELSEWHERE = "keep the encoded images elsewhere, with --features DIR"


def cache_features(
    encoder: Encoder,
    image_file: str | Path,
    to: str | Path,
    *,
    batch_size: int = 32,
    device: str | torch.device = "cpu",
    bf16: bool = False,
    mirrored: bool = False,
    progress: bool = True,
    say: Callable[[str], object] = lambda line: None,
) -> Features:
    """Encode every image once, and cache the annotation vectors as float16.

    The file appears whole or not at all. An existing file is reused if it was
    made of the same, and replaced otherwise. Memory holds one batch.

    Args:
        encoder: a frozen encoder, which is moved to `device`.
        image_file: HDF5 with `images`, (I, 3, height, width) uint8, as
            `prepare` writes it.
        to: the HDF5 file to write.
        batch_size: images encoded at once.
        device: where to encode.
        bf16: encode under bfloat16 autocast. This is faster on GPUs and on
            processors with bfloat16 units. On photographs, the vectors of
            tf_efficientnet_lite0 then differ by about 6% from those in
            float32.
        mirrored: encode the images flipped left to right.
        progress: show a bar on a terminal, with the size of the file.
        say: called with a line about the file and its size before it is
            written.

    Raises:
        InputError: if a file is not what it should be, or the disk lacks room.
        ValueError: if the encoder is being fine-tuned, or a value exceeds
            float16.
    """
    if any(parameter.requires_grad for parameter in encoder.parameters()):
        raise ValueError(
            "the encoder is being trained, so a cache would go stale: call "
            "fine_tune(False) first"
        )
    to, images = Path(to), ImageDataset(image_file)
    if not len(images):
        raise InputError(
            f"{image_file}: holds no images, so there is nothing to encode"
        )
    expected = of_features(encoder, image_file, bf16=bf16, mirrored=mirrored)
    if to.exists() and Features(to).fingerprint == expected:
        return Features(to)
    require_writable(to.parent, ELSEWHERE)
    encoder.to(device)
    seen = Mirrored(images) if mirrored else images
    (first,) = encode_once(encoder, seen[0][None])
    shape = (len(images), *first.shape[1:])  # (I, rows, columns, D)
    size = f"{2 * math.prod(shape) / 1e9:.2f} GB"
    say(f"{to}: encoding {len(images)} images once, to be kept on disk, {size}")
    bar = tqdm(
        total=len(images),
        desc=f"encoding, {size}",
        unit="image",
        disable=None if progress else True,
    )
    autocast = torch.autocast(
        torch.device(device).type, torch.bfloat16, enabled=bf16
    )
    with new_features(to, shape, expected) as vectors, autocast, bar:
        start = 0
        for grids in encode_once(encoder, seen, batch_size):
            if not grids.isfinite().all():
                raise ValueError(
                    f"{encoder.backbone}: some of its vectors exceed the range "
                    "of float16"
                )
            end = start + len(grids)
            vectors[start:end] = grids.flatten(1, 2).numpy()
            start = end
            bar.update(len(grids))
    return Features(to)


class Mirrored:
    """Images (3, height, width), flipped left to right."""

    def __init__(self, images):
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, i: int) -> Tensor:
        return self.images[i].flip(2)


class ViewDataset(FeatureDataset):
    """A `FeatureDataset` with several views of each image, such as a flipped
    one.

    Item v * I + i is view v of image i. The batches of an epoch decide which
    views it shows (see `captionlib.engine.batches.Batches`).

    Args:
        folder, split: as for `FeatureDataset`.
        views: at least one, each like the features of a `FeatureDataset`.

    Raises:
        InputError: if a view has another number of images.
    """

    def __init__(self, folder: str | Path, split: str, *views):
        super().__init__(folder, split, views[0])
        self.views = views
        for view in views[1:]:
            if len(view) != len(self.captions):
                raise InputError(
                    f"{folder}: {split} has {len(self.captions)} images and "
                    f"one view has {len(view)}; encode this split's images"
                )

    def __len__(self) -> int:
        return len(self.views) * len(self.captions)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor, Tensor]:
        view, image = divmod(index, len(self.captions))
        features = torch.as_tensor(self.views[view][image])
        return features, self.captions[image], self.lengths[image]
