"""Attention.

Chapter 03 of the book, notebooks/03_attention.ipynb, explains this module and
generates it: edit the chapter, not this file, then run `make export`.
"""

import torch
from torch import Tensor, nn

__all__ = ["Attention"]


class Attention(nn.Module):
    """Soft attention: which pixels to look at, given what has been said so far.

    Additive attention with a ReLU, as in the original tutorial; Bahdanau's has a tanh.

    Source: Xu et al. 2015 (arXiv:1502.03044), equations 4 to 6 and section 4.2; the form is
    Bahdanau et al. 2015 (arXiv:1409.0473), section 3.1.
    """

    def __init__(self, encoder_dim: int, decoder_dim: int, attention_dim: int):
        super().__init__()
        self.encoder_att = nn.Linear(encoder_dim, attention_dim)
        self.decoder_att = nn.Linear(decoder_dim, attention_dim)
        self.full_att = nn.Linear(attention_dim, 1)

    def project(self, encoder_out: Tensor) -> Tensor:
        """Map annotation vectors (B, P, D) to (B, P, A): once an image, not once a word."""
        return self.encoder_att(encoder_out)

    def forward(
        self,
        encoder_out: Tensor,
        hidden: Tensor,
        projected: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Average the annotation vectors under weights that depend on the state.

        Args:
            encoder_out: (B, P, D) float annotation vectors.
            hidden: (B * k, H) float states, k for each image; row r belongs to image r // k.
            projected: (B, P, A), what `project` gave for `encoder_out`; computed if left out.

        Returns:
            context (B * k, D); alpha (B * k, P), non-negative, summing to 1 over P.

        Raises:
            ValueError: if the number of states is not a multiple of the number of images.
        """
        B, P, D = encoder_out.shape
        k, rest = divmod(hidden.shape[0], B)
        if rest or k == 0:
            raise ValueError(
                f"expected a multiple of {B} states, got {hidden.shape[0]}"
            )
        if projected is None:
            projected = self.project(encoder_out)
        wanted = self.decoder_att(hidden).view(B, k, 1, -1)
        scores = self._scores(projected.unsqueeze(1), wanted).squeeze(
            3
        )  # (B, k, P)
        alpha = scores.float().softmax(
            dim=2
        )  # float32 even under autocast: sums stay 1
        context = torch.bmm(
            alpha.to(encoder_out.dtype), encoder_out
        )  # (B, k, D)
        return context.view(B * k, D), alpha.view(B * k, P)

    def _scores(self, projected: Tensor, wanted: Tensor) -> Tensor:
        """Equation 4, unnormalised: (B, 1, P, A) and (B, k, 1, A) to (B, k, P, 1)."""
        # (B, k, P, A) would be the largest tensor of a step. Training needs it whole, in one copy.
        if torch.is_grad_enabled() or projected.device.type != "cpu":
            return self.full_att((projected + wanted).relu_())
        # A search doesn't. A few images at a time, always in the same place, it stays in the cache.
        P, A = projected.shape[2:]
        k = wanted.shape[1]
        images = max(1, 2**19 // (k * P * A))
        dtype = torch.result_type(projected, wanted)
        place = projected.new_empty(
            min(images, len(projected)), k, P, A, dtype=dtype
        )
        scores = [
            self.full_att(
                torch.add(some, states, out=place[: len(some)]).relu_()
            )
            for some, states in zip(
                projected.split(images), wanted.split(images), strict=True
            )
        ]
        return torch.cat(scores)
