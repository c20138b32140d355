"""An ensemble: several decoders whose word probabilities are averaged."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from captionlib.decoder import DecoderWithAttention, State

__all__ = ["Ensemble", "EnsembleState"]


class EnsembleState(NamedTuple):
    """The members' states."""

    members: list[State]

    @property
    def values(self) -> Tensor:
        """The first member's grids (B, P, D)."""
        return self.members[0].values

    def select(
        self, rows: Tensor, images: Tensor | None = None
    ) -> EnsembleState:
        """As `State.select`, for each member."""
        return EnsembleState(
            [state.select(rows, images) for state in self.members]
        )


class Ensemble:
    """M decoders behind the interface of one, for any search.

    Args:
        decoders: all in eval mode, with the same vocabulary; or anything else
            that has their begin and step.
    """

    def __init__(self, decoders: Sequence[DecoderWithAttention]):
        self.decoders = list(decoders)
        self.training = any(decoder.training for decoder in decoders)

    def begin(self, encoder_out: Tensor | Sequence[Tensor]) -> EnsembleState:
        """Start from one encoding for all members, or one for each.

        Raises:
            ValueError: if there are not M encodings, or they differ in their
                number of images.
        """
        grids = encoder_out
        if isinstance(encoder_out, Tensor):
            grids = [encoder_out] * len(self.decoders)
        sizes = [grid.shape[0] for grid in grids]
        alike = all(size == sizes[0] for size in sizes)
        if len(sizes) != len(self.decoders) or not alike:
            raise ValueError(
                f"expected encodings for each of {len(self.decoders)} "
                f"decoders, got {sizes}"
            )
        pairs = zip(self.decoders, grids, strict=True)
        return EnsembleState([decoder.begin(grid) for decoder, grid in pairs])

    def step(
        self, words: Tensor, state: EnsembleState
    ) -> tuple[Tensor, Tensor, EnsembleState]:
        """As `DecoderWithAttention.step`.

        The logits are log-probabilities (N, V); alpha is the
        members' mean (N, P), or the first one's if their grids differ in size.

        Raises:
            ValueError: if the members' vocabularies differ in size.
        """
        pairs = zip(self.decoders, state.members, strict=True)
        steps = [decoder.step(words, member) for decoder, member in pairs]
        logits = [each[0] for each in steps]
        if len({each.shape[1] for each in logits}) > 1:
            sizes = ", ".join(str(each.shape[1]) for each in logits)
            raise ValueError(
                f"expected decoders with one vocabulary, got {sizes} words"
            )
        dtype = torch.promote_types(logits[0].dtype, torch.float32)
        log_probs = torch.stack(
            [x.log_softmax(dim=1, dtype=dtype) for x in logits]
        )
        mean = log_probs.logsumexp(dim=0) - math.log(len(logits))
        alphas = [each[1] for each in steps]
        if len({alpha.shape[1] for alpha in alphas}) == 1:
            alphas = [torch.stack(alphas).mean(dim=0)]
        return mean, alphas[0], EnsembleState([each[2] for each in steps])
