"""A running average of a model's weights, used in validation and saving."""

from __future__ import annotations

import torch
from torch import Tensor

from captionlib.model import CaptionModel

__all__ = ["WeightAverage"]


class WeightAverage:
    """A running average of a model's trained weights.

    Inside `with average:`, the model has the averaged weights.

    Args:
        model: the weights that require a gradient at this point are averaged.
        decay: share of the old average kept at each step, reached gradually
            from 2/11.

    Source: Polyak and Juditsky 1992 (doi:10.1137/0330046), in the exponential
    form.
    """

    def __init__(self, model: CaptionModel, decay: float):
        named = [
            (name, weight)
            for name, weight in model.named_parameters()
            if weight.requires_grad
        ]
        self.names, self.weights = map(list, zip(*named, strict=True))
        self.decay, self.updates = decay, 0
        self.averages = [weight.detach().clone() for weight in self.weights]

    @torch.no_grad()
    def update(self) -> None:
        """Move towards the current weights."""
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        torch._foreach_lerp_(self.averages, self.weights, 1 - decay)

    def state(self) -> dict[str, Tensor]:
        """Everything to store, as named tensors."""
        averages = dict(zip(self.names, self.averages, strict=True))
        return averages | {"updates": torch.tensor(self.updates)}

    @torch.no_grad()
    def load_state(self, state: dict[str, Tensor]) -> None:
        """Restore what `state` returned."""
        self.updates = int(state["updates"])
        for name, average in zip(self.names, self.averages, strict=True):
            average.copy_(state[name])

    def __enter__(self) -> None:
        self._exchange()

    def __exit__(self, *_) -> None:
        self._exchange()

    def _exchange(self) -> None:
        for weight, average in zip(self.weights, self.averages, strict=True):
            weight.data, average.data = average.data, weight.data
