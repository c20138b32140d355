"""Attention.

Chapter 03 of the book, notebooks/03_attention.ipynb, explains this module and
generates it: edit the chapter, not this file, then run `make export`.
"""

import torch
from torch import Tensor, nn

__all__ = ["Attention"]


class Attention(nn.Module):
    """Soft attention: a mean of the grid cells, weighted to suit a query.

    Additive attention with a ReLU, as in the original tutorial. Bahdanau et
    al. 2015 (arXiv:1409.0473, section 3.1) and the paper's own code use tanh.

    Source: Xu et al. 2015 (arXiv:1502.03044), equations 4 to 6 and 13.
    """

    def __init__(self, encoder_dim: int, decoder_dim: int, attention_dim: int):
        super().__init__()
        self.encoder_att = nn.Linear(encoder_dim, attention_dim)
        self.decoder_att = nn.Linear(decoder_dim, attention_dim)
        self.full_att = nn.Linear(attention_dim, 1)

    def keys(self, encoder_out: Tensor) -> Tensor:
        """Project a grid (B, P, D) to keys (B, P, A): once an image."""
        return self.encoder_att(encoder_out)

    def forward(
        self, hidden: Tensor, keys: Tensor, values: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Average the values under weights that depend on the query.

        Args:
            hidden: (B * k, H) float, k states an image; row r is of image
                r // k. Each is projected to a query.
            keys: (B, P, A) float, from `keys`.
            values: (B, P, D) float, the grid itself.

        Returns:
            context (B * k, D); alpha (B * k, P), which sums to 1 over P.

        Raises:
            ValueError: if the states are no multiple of the images.
        """
        B, P, A = keys.shape
        k, rest = divmod(len(hidden), B)
        if rest or k == 0:
            raise ValueError(
                f"expected a multiple of {B} states, got {len(hidden)}"
            )
        query = self.decoder_att(hidden).view(B, k, 1, A)
        scores = self.full_att(torch.relu(keys.unsqueeze(1) + query))
        alpha = scores.squeeze(3).float().softmax(dim=2)  # (B, k, P)
        context = torch.bmm(alpha.to(values.dtype), values)  # (B, k, D)
        return context.flatten(0, 1), alpha.flatten(0, 1)
