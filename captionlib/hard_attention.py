"""Hard attention.

Chapter 13 of the book, notebooks/13_hard_attention.ipynb, explains this module and
generates it: edit the chapter, not this file, then run `make export`.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_packed_sequence

from captionlib.attention import Attention
from captionlib.config import TrainConfig
from captionlib.decoder import DecoderOutput
from captionlib.model import CaptionModel
from captionlib.training import CaptionLoss, caption_loss, predict

__all__ = [
    "HardAttention",
    "HardLoss",
    "HardObjective",
    "hard_loss",
    "words_to_come",
]


class HardAttention(Attention):
    """Attention that, in training, looks at one cell: drawn, not averaged.

    In eval mode, or with `draws` off, it is soft attention, the expectation.

    Source: Xu et al. 2015 (arXiv:1502.03044), equations 8 and 9.
    """

    def __init__(self, soft: Attention):
        """Take over the layers of `soft`, under their names."""
        nn.Module.__init__(self)
        for name, layer in soft.named_children():
            self.add_module(name, layer)
        self.train(soft.training)
        self.draws = True

    def draw(self, alpha: Tensor) -> Tensor:
        """A cell (N, 1) for each row of weights (N, P)."""
        return torch.multinomial(alpha, 1)

    def forward(
        self, hidden: Tensor, keys: Tensor, values: Tensor
    ) -> tuple[Tensor, Tensor]:
        """As in `Attention.forward`, but where it draws, alpha is (N, 2, P):
        the weights, and 1 for the cell that was drawn.
        """
        context, alpha = super().forward(hidden, keys, values)
        if not (self.training and self.draws):
            return context, alpha
        drawn = torch.zeros_like(alpha).scatter(1, self.draw(alpha), 1)
        cells = drawn.unflatten(0, (len(values), -1))  # (B, n, P)
        context = torch.bmm(cells.to(values.dtype), values)  # (B, n, D)
        return context.flatten(0, 1), torch.stack([alpha, drawn], dim=1)


def words_to_come(log_p: Tensor, lengths: Tensor, baseline: float) -> Tensor:
    """What each place of a caption still brings, above the baseline.

    Takes log-probabilities of words (N, T), of which the first `lengths` (N,)
    of each row count, and the log-probability to expect of a word. Returns sums
    over this word and all later ones (N, T); 0 past a caption's end.
    """
    T = log_p.shape[1]
    real = torch.arange(T, device=log_p.device) < lengths[:, None]
    better = (log_p - baseline) * real
    return better.flip(1).cumsum(1).flip(1)


class HardLoss(NamedTuple):
    """What is minimised, and what to watch."""

    total: Tensor  # scalar, with a gradient
    nats: Tensor  # scalar: cross-entropy a token, given where it looked
    entropy: Tensor  # scalar: nats of a map


def hard_loss(
    output: DecoderOutput,
    baseline: float = 0.0,
    lambda_r: float = 1.0,
    lambda_e: float = 0.0,
    alpha_c: float = 0.0,
    label_smoothing: float = 0.0,
    reward_of: Callable = words_to_come,
) -> HardLoss:
    """A loss whose gradient is, on average, minus the bound's.

    Args:
        output: of a decoder whose `HardAttention` drew.
        baseline: the log-probability that a word usually has.
        lambda_r, lambda_e: weights of REINFORCE and of the maps' entropy.
        alpha_c, label_smoothing: as for `caption_loss`.
        reward_of: what a draw earns; called like `words_to_come`.

    Source: Xu et al. 2015 (arXiv:1502.03044), equation 12; a mean over tokens.
    """
    alphas, drawn = output.alphas.unbind(dim=2)  # (N, steps, P)
    speak = caption_loss(
        output._replace(alphas=alphas), alpha_c, label_smoothing
    )
    log_probs = output.logits.data.detach().log_softmax(dim=1)  # (tokens, V)
    own = log_probs.gather(1, output.targets.data[:, None])[:, 0]
    log_p, lengths = pad_packed_sequence(
        output.logits._replace(data=own), batch_first=True
    )
    reward = reward_of(log_p, lengths.to(log_p.device), baseline)

    log_alphas = alphas.clamp(min=1e-12).log()
    log_s = (drawn * log_alphas).sum(dim=2)  # (N, steps)
    tokens = len(output.targets.data)
    entropy = -(alphas * log_alphas).sum() / tokens
    reinforce = (reward * log_s).sum() / tokens
    total = speak.total - lambda_r * reinforce - lambda_e * entropy
    return HardLoss(total, speak.nats, entropy.detach())


class HardObjective:
    """The loss of a batch, as the paper trains: half drawn, half expected.

    Args:
        lambda_r, lambda_e: as for `hard_loss`.
        share: of the batches, at random, that draw; the others train soft
            attention.
        keep: how much of the moving average of the baseline a batch leaves.
    """

    def __init__(
        self,
        lambda_r: float = 0.1,
        lambda_e: float = 0.002,
        share: float = 0.5,
        keep: float = 0.9,
        reward_of: Callable = words_to_come,
    ):
        self.weights = lambda_r, lambda_e
        self.share, self.keep, self.reward_of = share, keep, reward_of
        self.baseline = 0.0  # log-probability of a word

    def __call__(
        self,
        model: CaptionModel,
        batch: tuple,
        config: TrainConfig,
        progress: float = 0.0,
    ) -> HardLoss | CaptionLoss:
        """The model has a `HardAttention`; batch and config as in training."""
        attention = model.decoder.attention
        attention.draws = bool(torch.rand(()) < self.share)
        output = predict(model, *batch)
        usual = config.alpha_c, config.label_smoothing
        if not attention.draws:
            return caption_loss(output, *usual)
        loss = hard_loss(
            output, self.baseline, *self.weights, *usual, self.reward_of
        )
        recent = (1 - self.keep) * -loss.nats.item()
        self.baseline = self.keep * self.baseline + recent
        return loss
