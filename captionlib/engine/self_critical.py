"""Self-critical training for the engine: precision, processes, a mixed loss.

What is rewarded, and how, is chapter 14's. Here it takes the place of
`teacher_forcing` in the engine's loop, and cross-entropy can be mixed in.

Source: Rennie et al. 2017 (arXiv:1612.00563), section 3; for the mixture, Wu et
al. 2016 (arXiv:1609.08144), equation 9.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from captionlib import self_critical
from captionlib.config import EngineConfig
from captionlib.engine.objectives import teacher_forcing
from captionlib.engine.processes import ALONE, Processes
from captionlib.model import CaptionModel
from captionlib.self_critical import (
    caption_log_probs,
    leave_one_out,
    self_critical_loss,
)

__all__ = ["SelfCritical", "SharedLoss"]


class SharedLoss(NamedTuple):
    """What is minimised, and its parts."""

    total: Tensor  # scalar, with a gradient; nats a caption
    nats: Tensor  # scalar: mean negative log-probability of a written word
    reward: Tensor  # scalar: mean CIDEr-D of the written captions, ×100


class SelfCritical(self_critical.SelfCritical):
    """The objective of self-critical training, for `captionlib.engine.train`.

    Arguments as for chapter 14's, but for the number of samples, which is a
    setting of the training.
    """

    def __call__(
        self,
        model: CaptionModel,
        images: Tensor,
        captions: Tensor,
        lengths: Tensor,
        config: EngineConfig,
        *,
        progress: float = 0.0,
        processes: Processes = ALONE,
    ) -> tuple[SharedLoss, int]:
        """The loss of one batch and its number of words, as `teacher_forcing`.

        Dropout is off: captions are scored by the network that wrote them. It
        is on for the share of cross-entropy.
        """
        model.eval()
        n = config.reward_samples
        parts = (captions, lengths)
        told = self.told(*(x.unflatten(0, (len(images), -1)) for x in parts))
        with torch.autocast(
            images.device.type, dtype=torch.bfloat16, enabled=config.bf16
        ):
            grids = model.encode(images)
            if config.bf16:  # once, as in `teacher_forcing`
                grids = grids.bfloat16()
            *written, scores = self.write(model.decoder, grids, told, n)
            output = model.decoder(grids, *written)
        gains = leave_one_out(scores / 100).flatten()
        log_probs = caption_log_probs(output, self.vocabulary)  # (B * n,)
        words = len(output.targets.data)
        tokens, count = processes.even_counts(words, len(log_probs))
        total = self_critical_loss(log_probs, gains, count)
        if share := config.cross_entropy_share:
            model.train()
            found, true = teacher_forcing(
                model, images, captions, lengths, config, processes=processes
            )
            true, told = processes.even_counts(true, len(captions))
            # In nats a caption, as the other part.
            total = (1 - share) * total + share * true / told * found.total
        nats = -log_probs.detach().sum() / tokens
        reward = (scores.sum() / count).to(total)
        return SharedLoss(total, nats, reward), words
