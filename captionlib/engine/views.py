"""Views of a split's images for training: plain, mirrored or cropped.

A view consists of pixels or, if the encoder is frozen, of cached grids.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import h5py
import torch
from torch.nn.functional import interpolate

from captionlib.config import ViewConfig
from captionlib.data import ImageDataset
from captionlib.encoder import Encoder
from captionlib.engine.features import ELSEWHERE, Mirrored, cache_features
from captionlib.io.claims import require_writable
from captionlib.io.files import atomic_file
from captionlib.io.identity import of_features, of_images, short
from captionlib.io.prepared import image_file

__all__ = ["open_views", "view_pixels", "write_crops"]


def write_crops(images: str | Path, to: Path, *, seed: int = 0) -> Path:
    """Write an HDF5 file like `images` with random crops, 84 to 97% per side.

    An existing file is left alone if it was made of the same images and seed,
    and replaced otherwise.
    """
    made_of = _made_of(images, seed)
    if _is_made_of(to, made_of):
        return to
    require_writable(to.parent, ELSEWHERE)
    generator = torch.Generator().manual_seed(seed)
    with (
        h5py.File(images, "r", locking=False) as source,
        atomic_file(to) as path,
        h5py.File(path, "w") as file,
    ):
        whole = source["images"]
        file.attrs.update(source.attrs)
        crops = file.create_dataset("images", whole.shape, "uint8")
        crops.attrs["made_of"] = json.dumps(made_of)
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


def _made_of(images: str | Path, seed: int) -> dict:
    """The identity of the crops of a file of images."""
    return {"images": of_images(images), "seed": seed}


def _is_made_of(crops: Path, made_of: dict) -> bool:
    if not crops.exists():
        return False
    try:
        with h5py.File(crops, "r", locking=False) as file:
            return json.loads(file["images"].attrs["made_of"]) == made_of
    except (OSError, KeyError, ValueError):  # damaged, or not ours
        return False


def view_pixels(
    views: ViewConfig, data: str | Path, split: str, folder: Path
) -> list[tuple[str, Path, bool]]:
    """The views of a split: for each a name, a file of images, and whether to
    mirror.

    Only the training split has more than one. Crops are written to `folder`
    once, under a name that tells them from the crops of other images.
    """
    images = image_file(data, split)
    if split != "TRAIN":
        return [("FEATURES", images, False)]
    found = []
    for cropped in (False, True)[: 1 + views.crops]:
        file = images
        if cropped:
            name = f"TRAIN_CROPS_{short(_made_of(images, seed=0))}.hdf5"
            file = write_crops(images, folder / name)
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

    The name of a file of grids ends in digits that stand for all it was made
    of, so trainings with other settings keep their own beside it.
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
        made_of = of_features(encoder, images, bf16=bf16, mirrored=mirrored)
        file = f"{file}_{short(made_of)}.hdf5".replace("/", "_")
        to = folder / file
        if not to.exists():
            _tell_others(folder, f"{split}_{name}_", say)
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


def _tell_others(folder: Path, begin: str, say: Callable[[str], None]) -> None:
    """Say how much room the grids take that were made of something else."""
    others = list(folder.glob(f"{begin}*.hdf5"))
    if others:
        size = sum(path.stat().st_size for path in others) / 1e9
        say(
            f"{folder}: also holds {len(others)} files {begin}*, encoded with "
            f"other settings or from other images, {size:.2f} GB; delete those "
            "that no training needs"
        )
