"""Training objectives, all called like `teacher_forcing`."""

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
    """The teacher-forced loss of one batch, and its number of words.

    Args:
        images: (B, ...) as `CaptionModel` takes them.
        captions, lengths: (B * n, T) and (B * n,) int64; see
            `DecoderWithAttention`.
        config: settings of the loss and the precision.
        progress: progress of the training, from 0 to 1; not used here.
        processes: those that share the batch.
    """
    with torch.autocast(
        images.device.type, dtype=torch.bfloat16, enabled=config.bf16
    ):
        encoder_out = model.encode(images)
        if config.bf16:  # cast once; autocast would cast at every step
            encoder_out = encoder_out.bfloat16()
        output = model.decoder(encoder_out, captions, lengths)
    return shared_loss(output, config, processes)


def shared_loss(
    output: DecoderOutput, config: EngineConfig, processes: Processes
) -> tuple[CaptionLoss, int]:
    """`caption_loss` of this process's share of a batch.

    Its average over the processes is the loss of the whole batch."""
    count = len(output.targets.data)
    tokens, captions = processes.even_counts(count, len(output.alphas))
    loss = caption_loss(
        output, config.alpha_c, config.label_smoothing, tokens, captions
    )
    return loss, count
