"""Attention.

Chapter 03 of the book, notebooks/03_attention.ipynb, explains this module and
generates it: edit the chapter, not this file, then run `make export`.
"""

import torch
from torch import Tensor, nn

__all__ = ["Attention"]


class Attention(nn.Module):
    """Soft attention: a mean of the grid cells, weighted to suit a query.

    Additive attention (Bahdanau et al. 2015, arXiv:1409.0473, section 3.1),
    with the original tutorial's ReLU.

    Source: Xu et al. 2015 (arXiv:1502.03044), equations 4 to 6 and 13.
    """

    def __init__(self, encoder_dim: int, decoder_dim: int, attention_dim: int):
        super().__init__()
        self.encoder_att = nn.Linear(encoder_dim, attention_dim)
        self.decoder_att = nn.Linear(decoder_dim, attention_dim)
        self.full_att = nn.Linear(attention_dim, 1)

    def keys(self, encoder_out: Tensor) -> Tensor:
        """Project a grid (B, P, D) to keys (B, P, A), once for each image."""
        return self.encoder_att(encoder_out)

    def forward(
        self, hidden: Tensor, keys: Tensor, values: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Average the values under weights that depend on the query.

        Args:
            hidden: (B * n, H) float, n states an image; row r is of image
                r // n. Each is projected to a query.
            keys: (B, P, A) float, from `keys`.
            values: (B, P, D) float, the grid itself.

        Returns:
            context (B * n, D); alpha (B * n, P), which sums to 1 over P.

        Raises:
            ValueError: if B does not divide the number of states.
        """
        B, P, A = keys.shape
        n, rest = divmod(len(hidden), B)
        if rest or n == 0:
            raise ValueError(
                f"expected a multiple of {B} states, got {len(hidden)}"
            )
        keys = keys.view(B, 1, P, A)
        query = self.decoder_att(hidden).view(B, n, 1, A)
        scores = self.full_att(torch.relu(keys + query)).squeeze(3)
        alpha = scores.float().softmax(dim=2)  # (B, n, P)
        context = torch.bmm(alpha.to(values.dtype), values)  # (B, n, D)
        return context.flatten(0, 1), alpha.flatten(0, 1)
