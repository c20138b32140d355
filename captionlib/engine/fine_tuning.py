"""Fine-tuning an encoder's last stages on a laptop: the stages before them are
computed once.

Written by hand. Gradients end where the frozen stages begin, so what these make
of an image never changes and can be kept, as `cache_features` keeps the whole
of a frozen encoder's work. Left to run, forwards and backwards, are a few
stages on a small grid.
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
    """The parts of the borrowed network that run one after another, in order.

    Raises:
        InputError: for a network that is not built as a row of stages.
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
        # timm's EfficientNets and MobileNets.
        return [stem, *trunk.blocks, head]
    raise InputError(
        f"{encoder.backbone}: is not a row of stages; fine-tune a ResNet or an EfficientNet"
    )


def free_last_stages(model: CaptionModel, last: int) -> None:
    """Let training change the last so many stages of the model's encoder, and
    no others."""
    model.fine_tune_encoder(False)
    for stage in stages(model.encoder)[-last:]:
        stage.requires_grad_(True)
    model.own_encoder = True  # its weights no longer come with a package


def first_stages(encoder: Encoder, last: int) -> Encoder:
    """An encoder that leaves out the last so many stages, for `cache_features`;
    weights are shared.

    Its grid is (B, height, width, C), as those stages take it, however many
    channels C they want.
    """
    first = copy(encoder)
    first._modules = dict(encoder._modules)
    first.trunk = nn.Sequential(*stages(encoder)[:-last])
    first.resize = nn.Identity()  # the grid's size belongs to its end
    return first


class HalfEncoded(CaptionModel):
    """A captioner that also takes images as the first stages of its encoder
    left them.

    Attributes:
        last: number of stages that are still to run; 0, the default, for none.
    """

    last: int = 0

    def fine_tune_encoder(self, on: bool = True) -> None:
        """Let training change the stages that are still to run, or freeze
        all."""
        if on and self.last:
            free_last_stages(self, self.last)
        else:
            super().fine_tune_encoder(on)

    def encode(self, images: Tensor) -> Tensor:
        """As `CaptionModel.encode`; float images are (B, P, C), P pixels of a
        square grid."""
        if self.last and images.dtype != torch.uint8:
            side = round(images.shape[1] ** 0.5)
            grid = images.float().transpose(1, 2).unflatten(2, (side, side))
            # In float32: bfloat16 makes these convolutions' gradients no faster
            # on a CPU.
            with torch.autocast(images.device.type, enabled=False):
                grid = grid.contiguous(memory_format=torch.channels_last)
                for stage in stages(self.encoder)[-self.last :]:
                    grid = stage(grid)
                grid = self.encoder.resize(grid).flatten(2)
                images = grid.transpose(1, 2)  # (B, P, D)
        return super().encode(images)
