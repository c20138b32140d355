"""What a training minimises. Each objective is called as `teacher_forcing`
is."""

from __future__ import annotations

import torch
from torch import Tensor

from captionlib.config import EngineConfig
from captionlib.decoder import DecoderOutput
from captionlib.engine.processes import ALONE, Processes
from captionlib.model import CaptionModel
from captionlib.training import CaptionLoss, caption_loss

__all__ = ["shared_loss", "teacher_forcing"]


def teacher_forcing(
    model: CaptionModel,
    images: Tensor,
    captions: Tensor,
    lengths: Tensor,
    config: EngineConfig,
    *,
    progress: float = 0.0,
    processes: Processes = ALONE,
) -> tuple[CaptionLoss, int]:
    """The loss of one batch, the true words fed in, and the number of words it
    is a mean of.

    Args:
        images: (B, ...) as `CaptionModel` takes them.
        captions, lengths: (B * n, T) and (B * n,) int64; see
            `DecoderWithAttention`.
        config: its loss and precision.
        progress: where the training stands, from 0 to 1; here it makes no
            difference.
        processes: those that share the batch.
    """
    with torch.autocast(
        images.device.type, dtype=torch.bfloat16, enabled=config.bf16
    ):
        encoder_out = model.encode(images)
        if config.bf16:  # once: autocast itself would cast it at every step
            encoder_out = encoder_out.bfloat16()
        output = model.decoder(encoder_out, captions, lengths)
    return shared_loss(output, config, processes)


def shared_loss(
    output: DecoderOutput, config: EngineConfig, processes: Processes
) -> tuple[CaptionLoss, int]:
    """`caption_loss` of this process's share; averaged over processes, it is
    the whole batch's."""
    count = len(output.targets.data)
    tokens, captions = processes.even_counts(count, len(output.alphas))
    loss = caption_loss(
        output, config.alpha_c, config.label_smoothing, tokens, captions
    )
    return loss, count
