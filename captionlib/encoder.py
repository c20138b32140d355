"""Encoder.

Chapter 02 of the book, notebooks/02_encoder.ipynb, explains this module and
generates it: edit the chapter, not this file, then run `make export`.
"""

import math
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.data import DataLoader, Dataset
from tqdm.auto import tqdm

from captionlib.data import CaptionDataset, ImageDataset
from captionlib.io import backbones
from captionlib.io.features import Features, fingerprint, new_features
from captionlib.io.files import InputError

__all__ = [
    "Encoder",
    "FeatureDataset",
    "cache_features",
    "later_parameters",
    "without_head",
]


def without_head(model: nn.Module) -> nn.Module:
    """The part of an ImageNet classifier that keeps a grid: pooling and linear layer cut off.

    Args:
        model: a classifier from `captionlib.io.backbones.classifier`; timm's are changed in place.

    Returns:
        A module that maps images to the last grid; timm's do so with `forward_features`.

    Source: Encoder of the original tutorial, which drops the last two children of ResNet-101.
    """
    if hasattr(model, "forward_features"):  # timm
        model.reset_classifier(0)
        if hasattr(model, "pre_logits"):
            model.pre_logits = nn.Identity()  # VGG has two linear layers more
        return model
    return nn.Sequential(OrderedDict(list(model.named_children())[:-2]))


def later_parameters(trunk: nn.Module) -> list[nn.Parameter]:
    """The weights that fine-tuning frees: those of convolutional blocks 2 to 4.

    In a ResNet these are layer2 to layer4, in a timm network everything after the last stage whose
    grid is at least a quarter as wide as the image.

    Args:
        trunk: from `without_head`.

    Raises:
        InputError: if the network does not shrink in stages.

    Source: `Encoder.fine_tune` of the original tutorial, which frees children()[5:].
    """
    if isinstance(trunk, nn.Sequential):
        return list(trunk[5:].parameters())
    stages = [
        stage["module"]
        for stage in trunk.feature_info
        if stage["reduction"] <= 4
    ]
    if not stages:
        raise InputError(
            f"{type(trunk).__name__} does not shrink in stages: none can be freed"
        )
    early, reached = set(), False
    for name, module in trunk.named_modules():
        inside = f"{name}.".startswith(f"{stages[-1]}.")
        if reached and not inside:
            break
        reached = reached or inside
        early.update(module.parameters(recurse=False))
    return [
        parameter for parameter in trunk.parameters() if parameter not in early
    ]


class Encoder(nn.Module):
    """A network borrowed from ImageNet that turns an image into a grid of annotation vectors.

    It starts frozen: `fine_tune` frees its later blocks. Whatever mode is set, the network runs
    as at test time, so its batch-norm statistics never move.

    Args:
        backbone: "resnet101" and the other ResNets come from torchvision, any other name from
            timm; "tf_efficientnet_lite0" needs no download (see `io.backbones.classifier`).
        grid_size: height and width of the grid that `AdaptiveAvgPool2d` makes; None keeps the
            network's own (8x8 for an image of 256x256).
        image_size: height and width that images are stretched to first; None leaves them as they
            are. Larger images give a larger grid, and objects the size that the network knows.
        pretrained: False leaves the weights random.

    Attributes:
        encoder_dim: D, the number of channels.
        mean, std: (3, 1, 1) colour statistics that the weights expect, on a scale of 0 to 1.
        packaged: whether the weights come with an installed package, so that nobody need save them.

    Raises:
        InputError: for an unknown backbone, one without a grid, or weights that can't be had.

    Source: Encoder of the original tutorial; Xu et al. 2015 (arXiv:1502.03044), section 3.1.1.
    """

    def __init__(
        self,
        backbone: str = "resnet101",
        *,
        grid_size: int | None = 14,
        image_size: int | None = None,
        pretrained: bool = True,
    ):
        super().__init__()
        if grid_size is not None and grid_size < 1:
            raise ValueError(
                f"grid_size must be at least 1, or None, got {grid_size}"
            )
        if image_size is not None and image_size < 32:
            raise ValueError(
                f"image_size must be at least 32, or None, got {image_size}"
            )
        model = backbones.classifier(backbone, pretrained=pretrained)
        mean, std = backbones.normalisation(model)
        self.backbone, self.grid_size, self.image_size = (
            backbone,
            grid_size,
            image_size,
        )
        self.packaged = pretrained and backbones.is_packaged(backbone)
        self.register_buffer(
            "mean", torch.tensor(mean).view(3, 1, 1), persistent=False
        )
        self.register_buffer(
            "std", torch.tensor(std).view(3, 1, 1), persistent=False
        )
        self.trunk = without_head(model)
        self.resize = (
            nn.Identity()
            if grid_size is None
            else nn.AdaptiveAvgPool2d(grid_size)
        )
        for layer in self.trunk.modules():
            if isinstance(layer, _BatchNorm):
                layer.track_running_stats = (
                    False  # not even if set to train by hand
                )
        self.encoder_dim = self._count_channels()
        self.requires_grad_(False).train()

    def normalise(self, images: Tensor) -> Tensor:
        """Bring stored pixels to the scale that the weights expect.

        Args:
            images: (B, 3, height, width) uint8, RGB.

        Returns:
            (B, 3, height, width) float32.

        Raises:
            TypeError: for anything but uint8. Float images may have been scaled already, and
                scaled twice they all look alike to the network.
        """
        if images.dtype != torch.uint8:
            raise TypeError(
                f"expected uint8 images (0 to 255), got {images.dtype}: float images may have "
                "been scaled once already; pass the stored pixels"
            )
        return (images.float() / 255 - self.mean) / self.std

    def forward(self, images: Tensor) -> Tensor:
        """Encode normalised images.

        Args:
            images: (B, 3, height, width) float, from `normalise`.

        Returns:
            (B, height, width, D) float: `grid_size` squared, or 1/32 of the image's sides.
        """
        if not images.is_floating_point():
            raise TypeError(
                f"expected normalised images, got {images.dtype}: call normalise first"
            )
        if self.image_size is not None:
            size = (self.image_size, self.image_size)
            images = F.interpolate(
                images, size, mode="bilinear", align_corners=False
            )
        images = images.contiguous(
            memory_format=torch.channels_last
        )  # faster on a CPU
        grid = self.resize(self._features(images))  # (B, D, height, width)
        return grid.permute(0, 2, 3, 1)

    def fine_tune(self, on: bool = True) -> None:
        """Free convolutional blocks 2 to 4 for training, or freeze them again with `on=False`.

        In a ResNet these are layer2 to layer4; in a timm network everything after the last
        stage that is at least a quarter as wide as the image. What comes before stays frozen.
        """
        self.requires_grad_(False)
        for parameter in later_parameters(self.trunk):
            parameter.requires_grad_(on)

    def train(self, mode: bool = True) -> "Encoder":
        """Set the mode of the encoder itself; the borrowed network stays in evaluation mode."""
        super().train(mode)
        self.trunk.eval()
        return self

    def _features(self, images: Tensor) -> Tensor:
        return getattr(self.trunk, "forward_features", self.trunk)(images)

    @torch.no_grad()
    def _count_channels(self) -> int:
        try:
            grid = self._features(
                torch.zeros(1, 3, 64, 64)
            )  # (1, D, height, width)
        except Exception as error:
            raise InputError(
                f"{self.backbone}: does not take images of every size; choose a convolutional "
                "backbone such as resnet101 or tf_efficientnet_lite0"
            ) from error
        if grid.dim() != 4 or grid.shape[1] < max(grid.shape[2:]):
            raise InputError(
                f"{self.backbone}: makes no grid of channels; choose a convolutional backbone "
                "such as resnet101 or tf_efficientnet_lite0"
            )
        return grid.shape[1]


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
    """Encode every image once and keep the annotation vectors on disk as float16.

    The file appears whole or not at all. One that is there already is used again if its
    fingerprint matches, and replaced if not. Memory holds one batch at a time.

    Args:
        encoder: a frozen encoder; it is moved to `device` and stays there.
        image_file: HDF5 with `images`, (I, 3, height, width) uint8, as `prepare` writes it.
        to: the HDF5 file to write.
        batch_size: images encoded at once.
        device: where to encode.
        bf16: encode under bfloat16 autocast: faster on many processors, but the vectors of
            tf_efficientnet_lite0 then differ by about 6 % from those of float32, on photographs.
        mirrored: encode the images' mirror images, left and right exchanged.
        progress: show a bar on a terminal, with the size of the file.
        say: called with one line on the file to be written and its size, before it is.

    Raises:
        InputError: if a file is not what it should be, or the disk lacks room.
        ValueError: if the encoder is being fine-tuned, or a number does not fit into float16.
    """
    if any(parameter.requires_grad for parameter in encoder.parameters()):
        raise ValueError(
            "vectors of an encoder in training would be stale: fine_tune(False) first"
        )
    to, images = Path(to), ImageDataset(image_file)
    if not len(images):
        raise InputError(
            f"{image_file}: holds no images, so there is nothing to encode"
        )
    expected = fingerprint(encoder, image_file, bf16=bf16, mirrored=mirrored)
    if to.exists() and Features(to).fingerprint == expected:
        return Features(to)
    encoder.to(device)
    first = _encode(
        encoder, images[0][None], device, bf16, mirrored
    )  # (1, height, width, D)
    shape = (len(images), *first.shape[1:])
    size = f"{2 * math.prod(shape) / 1e9:.2f} GB"
    say(
        f"{to}: {len(images)} images, to be encoded once and kept on disk, {size}"
    )
    bar = tqdm(
        total=len(images),
        desc=f"encoding, {size}",
        unit="image",
        disable=None if progress else True,
    )
    with new_features(to, shape, expected) as vectors, bar:
        starts = range(0, len(images), batch_size)
        for start, batch in zip(
            starts, DataLoader(images, batch_size), strict=True
        ):
            encoded = _encode(encoder, batch, device, bf16, mirrored).flatten(
                1, 2
            )  # (B, P, D)
            vectors[start : start + len(batch)] = encoded.numpy()
            bar.update(len(batch))
    return Features(to)


@torch.inference_mode()
def _encode(
    encoder: Encoder, images: Tensor, device, bf16: bool, mirrored: bool
) -> Tensor:
    images = images.to(device)
    if mirrored:
        images = images.flip(3)
    with torch.autocast(images.device.type, torch.bfloat16, enabled=bf16):
        vectors = encoder(encoder.normalise(images)).half()
    if not vectors.isfinite().all():
        raise ValueError(
            f"{encoder.backbone}: some of its vectors do not fit into float16"
        )
    return vectors.cpu()


class FeatureDataset(Dataset):
    """One image an item, already encoded, with all its captions.

    Args:
        folder: what `prepare` wrote.
        split: "TRAIN", "VAL" or "TEST".
        features: the `Features` of that split's images, a tensor or array (I, P, D), or anything
            else that has an item for each image, such as an `ImageDataset`.
        other_views: the same of other views of the images, such as their mirror images.

    Item i is (features, captions, lengths): (P, D) float16; (n, max_len + 2) int64; (n,) int64.
    All images in the first view come first, then all in the second: item v * I + i is view v of
    image i. Which views an epoch shows is for its batches to say (`captionlib.training.Batches`).

    Raises:
        InputError: if the features are of another number of images.
    """

    def __init__(self, folder: str | Path, split: str, features, *other_views):
        dataset = CaptionDataset(folder, split)
        n = dataset.captions_per_image
        self.views, self.vocabulary = (
            (features, *other_views),
            dataset.vocabulary,
        )
        self.captions = torch.as_tensor(dataset.captions).unflatten(
            0, (-1, n)
        )  # (I, n, T)
        self.lengths = torch.as_tensor(dataset.lengths).unflatten(
            0, (-1, n)
        )  # (I, n)
        for view in self.views:
            if len(view) != len(self.captions):
                raise InputError(
                    f"{folder}: {split} has {len(self.captions)} images and the features are of "
                    f"{len(view)}; run cache_features on this split's images"
                )

    def __len__(self) -> int:
        return len(self.views) * len(self.captions)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor, Tensor]:
        view, image = divmod(index, len(self.captions))
        return (
            torch.as_tensor(self.views[view][image]),
            self.captions[image],
            self.lengths[image],
        )
