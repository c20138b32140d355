"""Beam search at five beams, from ready encodings: the batch at once against image by image.

The naive search of chapter 06 against the exported one, in float32 and under bfloat16 autocast, and
against the time that the search's matrix products alone take; at the original tutorial's sizes and
at those of the captioner that comes with the package. The decoders are random, but know when to
stop: their captions are about as long as real ones. Both searches must find the same captions.
"""

from __future__ import annotations

import torch

from benchmarks import best_seconds, from_chapter
from captionlib.beam_search import SearchConfig, beam_search
from captionlib.data import Vocabulary
from captionlib.decoder import DecoderWithAttention

IMAGES = 32
SIZES = {  # name: positions, encoder_dim, words
    "original": (14 * 14, 2048, 9490),
    "shipped, 1280": (9 * 9, 1280, 2550),
    "shipped, 512": (9 * 9, 512, 2550),
}


def make_decoder(encoder_dim: int, vocabulary: Vocabulary) -> DecoderWithAttention:
    """A random decoder, sure of its words as a trained one is.

    Its first unit counts the words, from a number that depends on the image, and makes `<end>`
    likelier each time.
    """
    torch.manual_seed(0)
    decoder = DecoderWithAttention(512, 512, 512, len(vocabulary), encoder_dim).eval()
    cell, fc = decoder.decode_step, decoder.fc
    with torch.no_grad():
        fc.weight.mul_(12)
        decoder.embedding.weight.mul_(20)
        decoder.init_c.weight[0] *= 2
        decoder.init_c.bias[0] = -1
        for weight in (cell.weight_ih, cell.weight_hh, cell.bias_ih, cell.bias_hh):
            weight.view(4, 512, -1)[:, 0] = 0
        cell.bias_hh.view(4, 512)[:, 0] = torch.tensor([9, 9, 0.1, 9])  # each step adds tanh(0.1)
        fc.weight[vocabulary.end, 0] = 60
        fc.bias[vocabulary.end] = 0
    return decoder
