"""Scheduled sampling: replace some true words by the model's own in training.

With teacher forcing, a model learns to continue human prefixes, but later has
to continue its own. So it is fed its own likeliest word, more and more often as
training proceeds, and has to predict the true next one. A first pass, without
gradients, chooses the words; the second is teacher forcing on the mixed
captions.

Source: Bengio et al. 2015 (arXiv:1506.03099), section 2.4. There, the share of
true words decreases from 1, with a slope to be chosen; here, the share of own
words rises along the same curves, from 0 at the start of training to
`own_words` at the end.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.utils.rnn import pack_padded_sequence

from captionlib.config import EngineConfig
from captionlib.decoder import DecoderWithAttention
from captionlib.engine.objectives import shared_loss
from captionlib.engine.processes import ALONE, Processes
from captionlib.model import CaptionModel
from captionlib.training import CaptionLoss

__all__ = ["feed_own_words", "own_word_share", "scheduled_sampling"]


def own_word_share(config: EngineConfig, progress: float) -> float:
    """The probability that an input word is the decoder's own.

    Args:
        config: `own_words` is the final share, `own_words_ramp` the shape of
            the ramp.
        progress: progress of the training, 0 at its first step and 1 at its
            end.
    """
    true_share = {
        "linear": lambda p: 1 - p,
        "exponential": lambda p: math.exp(-5 * p),  # k^i, for k^(last i) = e^-5
        "inverse_sigmoid": lambda p: (
            1 / (1 + math.exp(10 * p - 5))
        ),  # k / (k + e^(i/k)), k = e^5
    }[config.own_words_ramp]
    begin, end = true_share(0.0), true_share(1.0)
    return config.own_words * (begin - true_share(progress)) / (begin - end)


@torch.no_grad()
def feed_own_words(
    decoder: DecoderWithAttention,
    encoder_out: Tensor,
    captions: Tensor,
    share: float,
) -> Tensor:
    """Replace some words of captions by the decoder's own.

    Args:
        encoder_out: (B, P, D) or (B, height, width, D).
        captions: (B * n, T) int64, each beginning with `<start>`, which is
            never replaced.
        share: the probability that a word is replaced, independently of the
            others.

    Returns:
        (B * n, T) int64. An own word is the likeliest one after its prefix,
        which may hold own words already.
    """
    N, T = captions.shape
    images = torch.arange(N, device=captions.device) // (N // len(encoder_out))
    state = decoder.begin(encoder_out).select(images)
    replaced = torch.rand(captions.shape, device=captions.device) < share
    fed = captions.clone()
    for t in range(T - 1):
        state, _ = decoder.look(decoder.embedding(fed[:, t]), state)
        # Without dropout, as in decoding.
        own = decoder.fc(state.hidden).argmax(dim=1)
        fed[:, t + 1] = torch.where(replaced[:, t + 1], own, captions[:, t + 1])
    return fed


def scheduled_sampling(
    model: CaptionModel,
    images: Tensor,
    captions: Tensor,
    lengths: Tensor,
    config: EngineConfig,
    *,
    progress: float = 0.0,
    processes: Processes = ALONE,
) -> tuple[CaptionLoss, int]:
    """As `teacher_forcing`, with a growing share of the model's own words."""
    share = own_word_share(config, progress)
    with torch.autocast(
        images.device.type, dtype=torch.bfloat16, enabled=config.bf16
    ):
        encoder_out = model.encode(images)
        captions = captions[:, : int(lengths.max())]
        fed = captions
        if share:
            fed = feed_own_words(model.decoder, encoder_out, captions, share)
        output = model.decoder(encoder_out, fed, lengths)
    targets = pack_padded_sequence(
        captions[:, 1:],
        lengths.cpu() - 1,
        batch_first=True,
        enforce_sorted=False,
    )
    return shared_loss(output._replace(targets=targets), config, processes)
