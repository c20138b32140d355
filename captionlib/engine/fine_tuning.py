"""Fine-tune the last stages of an encoder, and cache the output of the others.

Gradients stop at the frozen stages, whose output never changes and can be
cached by `cache_features`. Only a few stages on a small grid remain to be run,
forwards and backwards, which a laptop can do.
"""

from __future__ import annotations

from copy import copy

import torch
from torch import Tensor, nn

from captionlib.encoder import Encoder
from captionlib.io.files import InputError
from captionlib.model import CaptionModel

__all__ = ["HalfEncoded", "first_stages", "free_last_stages", "stages"]


def stages(encoder: Encoder) -> list[nn.Module]:
    """The stages of the pretrained network, in order.

    Raises:
        InputError: if the network is not a sequence of stages.
    """
    trunk = encoder.trunk
    if isinstance(trunk, nn.Sequential):  # torchvision's ResNets
        return list(trunk)
    if all(
        hasattr(trunk, name)
        for name in ("conv_stem", "bn1", "blocks", "conv_head", "bn2")
    ):
        stem = nn.Sequential(trunk.conv_stem, trunk.bn1)
        head = nn.Sequential(trunk.conv_head, trunk.bn2)
        # EfficientNets and MobileNets, as in timm
        return [stem, *trunk.blocks, head]
    raise InputError(
        f"{encoder.backbone}: is not a sequence of stages; fine-tune a ResNet "
        "or an EfficientNet"
    )


def free_last_stages(model: CaptionModel, last: int) -> None:
    """Let training change the last `last` stages of the encoder, and no
    others."""
    model.fine_tune_encoder(False)
    for stage in stages(model.encoder)[-last:]:
        stage.requires_grad_(True)
    model.own_encoder = True  # its weights are no longer the package's


def first_stages(encoder: Encoder, last: int) -> Encoder:
    """The encoder without its last `last` stages, for `cache_features`.

    Weights are shared. Its output is (B, height, width, C), the input of the
    stages left out.

    Raises:
        InputError: if it has no more stages than `last`.
    """
    if last >= (known := len(stages(encoder))):
        raise InputError(
            f"--last-stages {last}: {encoder.backbone} has {known} stages; "
            "name fewer"
        )
    first = copy(encoder)
    first._modules = dict(encoder._modules)
    first.trunk = nn.Sequential(*stages(encoder)[:-last])
    first.resize = nn.Identity()  # resizing follows the last stage
    return first


class HalfEncoded(CaptionModel):
    """A captioner that also takes images encoded by its encoder's first stages.

    Attributes:
        last: number of stages still to run; 0 by default.
    """

    last: int = 0

    def fine_tune_encoder(self, on: bool = True) -> None:
        """Let training change the stages still to run, or freeze all."""
        if on and self.last:
            free_last_stages(self, self.last)
        else:
            super().fine_tune_encoder(on)

    def encode(self, images: Tensor) -> Tensor:
        """As `CaptionModel.encode`; float images are square grids (B, P, C)."""
        if self.last and images.dtype != torch.uint8:
            side = round(images.shape[1] ** 0.5)
            grid = images.float().transpose(1, 2).unflatten(2, (side, side))
            # In float32: bfloat16 does not speed up these convolutions on a
            # CPU.
            with torch.autocast(images.device.type, enabled=False):
                grid = grid.contiguous(memory_format=torch.channels_last)
                for stage in stages(self.encoder)[-self.last :]:
                    grid = stage(grid)
                grid = self.encoder.resize(grid).flatten(2)
                images = grid.transpose(1, 2)  # (B, P, D)
        return super().encode(images)
