"""Encoder.

Chapter 02 of the book, notebooks/02_encoder.ipynb, explains this module and
generates it: edit the chapter, not this file, then run `make export`.
"""

from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.data import DataLoader, Dataset

from captionlib.config import ModelConfig
from captionlib.data import CaptionDataset
from captionlib.io import backbones
from captionlib.io.files import InputError

__all__ = [
    "BorrowedNetwork",
    "Encoder",
    "FeatureDataset",
    "encode_once",
    "scale_pixels",
    "without_head",
]


def without_head(model: nn.Module) -> nn.Module:
    """The part of an ImageNet classifier that makes a grid.

    Args:
        model: from `captionlib.io.backbones.classifier`. One that has a
            `forward_features` is changed in place.

    Returns:
        A module whose `forward_features`, or else whose call, maps images to
        the last grid.

    Source: Encoder of the original tutorial, without ResNet-101's last two
    children.
    """
    if hasattr(model, "forward_features"):
        model.reset_classifier(0)
        if hasattr(model, "pre_logits"):
            model.pre_logits = nn.Identity()  # VGG has two more linear layers
        return model
    return nn.Sequential(OrderedDict(list(model.named_children())[:-2]))


def scale_pixels(images: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Bring stored pixels to the scale that a network's weights expect.

    Args:
        images: (B, 3, height, width) uint8, RGB.
        mean, std: (3, 1, 1) float, for pixels from 0 to 1.

    Raises:
        TypeError: for anything but uint8.
    """
    if images.dtype != torch.uint8:
        raise TypeError(
            f"expected uint8 images (0 to 255), got {images.dtype}: floats may "
            "have been scaled once already; pass the stored pixels"
        )
    return (images.float() / 255 - mean) / std


class BorrowedNetwork(nn.Module):
    """An ImageNet classifier without its head: images to the last grid.

    It starts frozen, and in every mode it runs as at test time, so that its
    batch-norm statistics never move.

    Args:
        backbone: a name that `captionlib.io.backbones.classifier` takes.
        pretrained: False leaves the weights random.

    Raises:
        InputError: if the network, its weights or its grid can't be had.
    """

    def __init__(self, backbone: str, *, pretrained: bool = True):
        super().__init__()
        model = backbones.classifier(backbone, pretrained=pretrained)
        mean, std = map(torch.tensor, backbones.normalisation(model))
        self.register_buffer("mean", mean.view(3, 1, 1), persistent=False)
        self.register_buffer("std", std.view(3, 1, 1), persistent=False)
        self.packaged = pretrained and backbones.is_packaged(backbone)
        self.backbone, self.trunk = backbone, without_head(model)
        for layer in self.trunk.modules():
            if isinstance(layer, _BatchNorm):  # even after trunk.train()
                layer.track_running_stats = False
        self.encoder_dim = backbones.count_channels(self.features, backbone)
        self.requires_grad_(False).train()

    def features(self, images: Tensor) -> Tensor:
        """(B, 3, height, width) normalised images to a (B, D, …) grid."""
        return getattr(self.trunk, "forward_features", self.trunk)(images)

    def fine_tune(self, on: bool = True) -> None:
        """Free the later stages for training, or freeze them again."""
        self.requires_grad_(False)
        for parameter in backbones.later_parameters(self.trunk):
            parameter.requires_grad_(on)

    def train(self, mode: bool = True) -> "BorrowedNetwork":
        """Set the mode, except that of the borrowed layers."""
        super().train(mode)
        self.trunk.eval()
        return self


class Encoder(BorrowedNetwork):
    """Turns images into grids of annotation vectors.

    Args:
        backbone, pretrained: as for `BorrowedNetwork`.
        grid_size: cells per side, by averaging; None keeps the network's own.
        image_size: side in pixels to resize images to; None keeps theirs.

    Attributes:
        encoder_dim: D, the number of channels.
        mean, std: (3, 1, 1) colour statistics that the weights expect.
        packaged: whether an installed package has the weights.

    Source: Encoder of the original tutorial.
    """

    def __init__(
        self,
        backbone: str = "resnet101",
        *,
        grid_size: int | None = 14,
        image_size: int | None = None,
        pretrained: bool = True,
    ):
        ModelConfig(backbone, grid_size, image_size)  # checks their range
        super().__init__(backbone, pretrained=pretrained)
        self.grid_size, self.image_size = grid_size, image_size
        self.resize = nn.Identity()
        if grid_size is not None:
            self.resize = nn.AdaptiveAvgPool2d(grid_size)

    def normalise(self, images: Tensor) -> Tensor:
        """Stored pixels, uint8, on the scale of the weights."""
        return scale_pixels(images, self.mean, self.std)

    def forward(self, images: Tensor) -> Tensor:
        """Grids (B, rows, columns, D) of images from `normalise`."""
        if not images.is_floating_point():
            raise TypeError(f"got {images.dtype} images: call normalise first")
        if self.image_size is not None:
            size = (self.image_size, self.image_size)
            images = F.interpolate(images, size, mode="bilinear")
        # Channels last in memory: the same numbers, faster on a CPU.
        images = images.contiguous(memory_format=torch.channels_last)
        grid = self.resize(self.features(images))  # (B, D, height, width)
        return grid.permute(0, 2, 3, 1)


@torch.inference_mode()
def encode_once(
    encoder: Encoder, images, batch_size: int = 32
) -> Iterator[Tensor]:
    """The grids of all images, batch by batch; the encoder stays frozen.

    Args:
        encoder: on any device; images go where it is.
        images: a dataset of (3, height, width) uint8, or one tensor.
        batch_size: images encoded at once.

    Yields:
        (B, rows, columns, D) float16, on the CPU.
    """
    for batch in DataLoader(images, batch_size):
        batch = encoder.normalise(batch.to(encoder.mean.device))
        yield encoder(batch).half().cpu()


class FeatureDataset(Dataset):
    """One image an item, usually encoded, with all its captions.

    Args:
        folder: what `prepare` wrote.
        split: "TRAIN", "VAL" or "TEST".
        features: anything that has an item for each image of the split: a
            tensor (I, P, D), a cache on disk, or the images themselves.

    Item i is (features, captions, lengths): (P, D); (n, max_len + 2) int64;
    (n,) int64.

    Raises:
        InputError: if there are more or fewer features than images.
    """

    def __init__(self, folder: str | Path, split: str, features):
        dataset = CaptionDataset(folder, split)
        n = dataset.captions_per_image
        self.features, self.vocabulary = features, dataset.vocabulary
        self.captions = dataset.captions.unflatten(0, (-1, n))  # (I, n, T)
        self.lengths = dataset.lengths.unflatten(0, (-1, n))  # (I, n)
        if len(features) != len(self.captions):
            raise InputError(
                f"{folder}: {split} has {len(self.captions)} images, but there "
                f"are features for {len(features)}; encode this split's images"
            )

    def __len__(self) -> int:
        return len(self.captions)

    def __getitem__(self, i: int) -> tuple[Tensor, Tensor, Tensor]:
        features = torch.as_tensor(self.features[i])
        return features, self.captions[i], self.lengths[i]
