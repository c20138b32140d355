"""More decoding methods, built on the same decoder step as beam search."""

from __future__ import annotations

import torch
from torch import Tensor

from captionlib.beam_search import Hypothesis, beam_search_all
from captionlib.config import SearchConfig
from captionlib.data import Vocabulary
from captionlib.decoder import DecoderWithAttention
from captionlib.decoding.diverse import diverse_beam_search
from captionlib.decoding.ensemble import Ensemble
from captionlib.decoding.sampling import draw, sample

__all__ = [
    "Ensemble",
    "diverse_beam_search",
    "draw",
    "sample",
    "write_captions",
]


def write_captions(
    decoder: DecoderWithAttention | Ensemble,
    encoder_out: Tensor,
    vocabulary: Vocabulary,
    config: SearchConfig,
    captions: int = 1,
    generator: torch.Generator | None = None,
) -> list[list[Hypothesis]]:
    """Write captions by beam search, diverse groups or sampling, as `config`
    says.

    Arguments and errors are those of `beam_search_all` and `sample`.
    """
    rest = (decoder, encoder_out, vocabulary, config, captions)
    if getattr(config, "sample", False):
        return sample(*rest, generator)
    if getattr(config, "groups", 1) > 1:
        return diverse_beam_search(*rest)
    return beam_search_all(*rest)
