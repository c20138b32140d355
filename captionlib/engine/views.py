"""Views of a split's images for training: plain, mirrored or cropped.

A view consists of pixels or, if the encoder is frozen, of cached grids.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import h5py
import torch
from torch.nn.functional import interpolate

from captionlib.config import ViewConfig
from captionlib.data import ImageDataset
from captionlib.encoder import Encoder
from captionlib.engine.features import Mirrored, cache_features
from captionlib.io.files import atomic_file
from captionlib.io.prepared import image_file

__all__ = ["open_views", "view_pixels", "write_crops"]


def write_crops(images: str | Path, to: Path, *, seed: int = 0) -> Path:
    """Write an HDF5 file like `images` with random crops, 84 to 97 % per side.

    An existing file is left alone.
    """
    if to.exists():
        return to
    generator = torch.Generator().manual_seed(seed)
    with (
        h5py.File(images) as source,
        atomic_file(to) as path,
        h5py.File(path, "w") as file,
    ):
        whole = source["images"]
        file.attrs.update(source.attrs)
        crops = file.create_dataset("images", whole.shape, "uint8")
        for i, image in enumerate(map(torch.from_numpy, whole)):
            share, top, left = torch.rand(3, generator=generator).tolist()
            side = int(image.shape[1] * (0.84 + 0.13 * share))
            top, left = (
                int(place * (image.shape[1] - side + 1))
                for place in (top, left)
            )
            crop = image[None, :, top : top + side, left : left + side].float()
            size = image.shape[1:]
            crops[i] = interpolate(
                crop, size, mode="bilinear", align_corners=False
            )[0].round()
    return to


def view_pixels(
    views: ViewConfig, data: str | Path, split: str, folder: Path
) -> list[tuple[str, Path, bool]]:
    """The views of a split: for each a name, a file of images, and whether to
    mirror.

    Only the training split has more than one. Crops are written to `folder`
    once.
    """
    images = image_file(data, split)
    if split != "TRAIN":
        return [("FEATURES", images, False)]
    found = []
    for cropped in (False, True)[: 1 + views.crops]:
        file = (
            write_crops(images, folder / "TRAIN_CROPS.hdf5")
            if cropped
            else images
        )
        for mirrored in (False, True)[: 1 + views.mirrored]:
            name = ("CROPS_" if cropped else "") + (
                "MIRRORED" if mirrored else "FEATURES"
            )
            found.append((name, file, mirrored))
    return found


def open_views(
    views: ViewConfig,
    data: str | Path,
    split: str,
    folder: Path,
    encoder: Encoder | None = None,
    *,
    bf16: bool = False,
    device: torch.device | str = "cpu",
    progress: bool = True,
    say: Callable[[str], None] = print,
) -> list:
    """Open the views of a split's images, each with one item per image.

    Args:
        views: which views to use.
        data: the folder that `prepare` wrote.
        split: TRAIN or VAL.
        folder: where crops and grids are stored.
        encoder: encodes the images once; None leaves them as pixels, (3,
            height, width) uint8.
        bf16: encode in bfloat16.
    """
    found = []
    for name, images, mirrored in view_pixels(views, data, split, folder):
        if encoder is None:
            pixels = ImageDataset(images)
            found.append(Mirrored(pixels) if mirrored else pixels)
            continue
        file = f"{split}_{name}_{encoder.backbone}_{encoder.grid_size or 'own'}"
        if views.last_stages:
            file += f"_but_{views.last_stages}"
        to = folder / f"{file}.hdf5".replace("/", "_")
        found.append(
            cache_features(
                encoder,
                images,
                to,
                device=device,
                bf16=bf16,
                mirrored=mirrored,
                progress=progress,
                say=say,
            )
        )
    return found
