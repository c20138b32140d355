"""Weights as whole numbers of eight bits, a quarter of float32's size.

Each output channel of a layer has a scale of its own, since channels differ in
size far more than the weights within one do.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["dequantise", "quantise"]

LARGEST = 127


def quantise(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Round a layer's weights to whole numbers from -127 to 127.

    Args:
        weight: (out, ...) float.

    Returns:
        codes, of that shape, int8; and scales (out,) float32. A weight is off
        by at most half its channel's scale.
    """
    weight = weight.detach().float()
    scale = weight.flatten(1).abs().amax(dim=1) / LARGEST
    scale[scale == 0] = 1  # a channel of zeros
    codes = (weight / _column(scale, weight)).round().to(torch.int8)
    return codes, scale


def dequantise(codes: Tensor, scale: Tensor) -> Tensor:
    """The float32 weights (out, ...) that `codes` and `scale` (out,) stand for."""
    return codes.float() * _column(scale, codes)


def _column(scale: Tensor, like: Tensor) -> Tensor:
    """(out,) to (out, 1, ...), to go with a weight (out, ...)."""
    return scale.reshape(-1, *[1] * (like.dim() - 1))
