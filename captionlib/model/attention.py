"""Chapter 03's attention, with a search's intermediate results kept small."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from captionlib.attention import Attention

__all__ = ["BlockwiseAttention"]

# Numbers in a block's largest tensor: 2 MiB of float32, which a processor's
# cache holds.
BLOCK = 2**19


class BlockwiseAttention(Attention):
    """`Attention`, a few images at a time where no gradient is wanted.

    The scores of all images at once are a step's largest tensor. On a
    processor it is faster to go through them in blocks that fit its cache.
    Results differ from the plain form's by rounding at most.
    """

    def __init__(self, plain: Attention):
        """Take over the layers of `plain`, under their names."""
        nn.Module.__init__(self)
        for name, layer in plain.named_children():
            self.add_module(name, layer)

    def forward(
        self, hidden: Tensor, keys: Tensor, values: Tensor
    ) -> tuple[Tensor, Tensor]:
        """As in `Attention.forward`."""
        (B, P, A), N = keys.shape, len(hidden)
        images = max(1, BLOCK * B // max(1, N * P * A))
        whole = torch.is_grad_enabled() or keys.device.type != "cpu"
        if whole or images >= B or N % B:
            return super().forward(hidden, keys, values)
        blocks = zip(
            hidden.split(images * (N // B)),
            keys.split(images),
            values.split(images),
            strict=True,
        )
        attend = super().forward
        contexts, alphas = zip(
            *(attend(*block) for block in blocks), strict=True
        )
        return torch.cat(contexts), torch.cat(alphas)
