"""Diverse beam search: groups of hypotheses that avoid each other's words."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import zip_longest

import torch
from torch import Tensor

from captionlib.beam_search import (
    Beam,
    Finished,
    Hypothesis,
    extend,
    forbid,
    settle,
)
from captionlib.config import DecodingConfig
from captionlib.data import Vocabulary
from captionlib.decoder import DecoderWithAttention

__all__ = ["diverse_beam_search"]


@torch.inference_mode()
def diverse_beam_search(
    decoder: DecoderWithAttention,
    encoder_out: Tensor,
    vocabulary: Vocabulary,
    config: DecodingConfig,
    captions: int = 1,
) -> list[list[Hypothesis]]:
    """Find several different captions, by groups that take turns at each step.

    A word costs `config.diversity` nats for each earlier group that has just
    chosen it. Arguments are those of `beam_search_all`; with one group, this is
    that search.

    Returns:
        for each image, at most `captions` hypotheses: first the best of each
        group, ranked, then the second of each, and so on.

    Source: Vijayakumar et al. 2016 (arXiv:1610.02424), section 3, with Hamming
    diversity.
    """
    if not 1 <= captions <= config.beam_size:
        raise ValueError(
            f"captions must be in 1 to {config.beam_size}, got {captions}"
        )
    if decoder.training:
        raise ValueError("the decoder is in training mode; call eval() first")
    G, end = config.groups, vocabulary.end
    k = config.beam_size // G  # hypotheses per group
    of_group = replace(config, beam_size=k, groups=1)
    state = decoder.begin(encoder_out)
    B, P = state.values.shape[:2]
    if B == 0:
        return []
    device = state.values.device
    empty = torch.tensor([0.0] + [-math.inf] * (k - 1), device=device)
    beams = [
        Beam(
            torch.full((B, k, 1), vocabulary.start, device=device),
            empty.repeat(B, 1),
            torch.zeros(B, k, 0, P, device=device),
        )
        for _ in range(G)
    ]
    state = state.select(
        torch.arange(B, device=device).repeat_interleave(G * k)
    )
    wanted = math.ceil(captions / G)
    finished = [[Finished(wanted) for _ in range(G)] for _ in range(B)]
    running = list(range(B))
    while running:
        last_words = [beam.words[:, :, -1] for beam in beams]
        words = torch.cat(last_words, 1)  # (B, G * k)
        logits, alpha, state = decoder.step(words.flatten(), state)
        dtype = torch.promote_types(logits.dtype, torch.float32)
        log_probs = logits.log_softmax(dim=1, dtype=dtype)  # (B * G * k, V)
        if log_probs.isnan().any():
            raise ValueError("no caption: the decoder's scores are NaN")
        prefixes = torch.cat([beam.words for beam in beams], 1).flatten(0, 1)
        forbid(log_probs, prefixes, vocabulary, config)
        log_probs = log_probs.view(len(running), G, k, -1)
        alpha = alpha.view(len(running), G, k, P)
        penalty = torch.zeros_like(log_probs[:, 0, 0])  # (B, V)
        lives, rows = [], []
        for g, beam in enumerate(beams):
            cheaper = log_probs[:, g] - penalty.unsqueeze(1)
            longer, own_rows = extend(
                beam, cheaper.flatten(0, 1), alpha[:, g].flatten(0, 1), k
            )
            last = longer.words[:, :, -1]
            longer = longer._replace(
                scores=longer.scores + penalty.gather(1, last)
            )
            mine = [finished[i][g] for i in running]
            before = longer.scores > -math.inf
            taken = torch.tensor([[each.count] for each in mine], device=device)
            before &= torch.arange(k, device=device) < k - taken
            live = settle(longer, mine, of_group, end)
            penalty.scatter_add_(1, last, config.diversity * before.to(penalty))
            for b in range(len(running)):
                if not live[b].any() and (beam.scores[b] > -math.inf).any():
                    mine[b].fill(beam, b, end)
            longer.scores[~live] = -math.inf
            beams[g] = longer
            lives.append(live)
            images = torch.arange(len(running), device=device).unsqueeze(1)
            rows.append(own_rows - k * images + k * (G * images + g))
        go_on = torch.cat(lives, 1).any(dim=1).nonzero().flatten()
        running = [running[b] for b in go_on.tolist()]
        if running:
            beams = [
                Beam(*(tensor[go_on] for tensor in beam)) for beam in beams
            ]
            state = state.select(torch.cat(rows, 1)[go_on].flatten(), go_on)
    return [
        _ranked([each.captions() for each in of_image], wanted, config)[
            :captions
        ]
        for of_image in finished
    ]


def _ranked(groups: list[list], wanted: int, config: DecodingConfig) -> list:
    """An image's captions: the best of each group, then the second, and so
    on."""

    def rank(caption: Hypothesis) -> tuple[bool, float]:
        length = max(1, len(caption.word_ids) + caption.finished)
        score = caption.log_prob / length**config.length_normalisation
        return caption.finished, score

    captions = []
    for same_place in zip_longest(*(group[:wanted] for group in groups)):
        some = [caption for caption in same_place if caption is not None]
        captions += sorted(some, key=rank, reverse=True)
    return captions
