"""Sampling: draw captions word by word instead of searching."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from captionlib.beam_search import Hypothesis, forbid
from captionlib.config import DecodingConfig
from captionlib.data import Vocabulary
from captionlib.decoder import DecoderWithAttention

__all__ = ["draw", "sample"]


def draw(log_probs: Tensor, numbers: Tensor, config: DecodingConfig) -> Tensor:
    """Draw a word for each row, under `temperature`, `top_k` and `top_p`.

    The three apply in this order.

    Args:
        log_probs: (N, V) float; -inf is never drawn unless a row holds nothing
            else.
        numbers: (N,) random numbers, uniform in [0, 1).
        config: its other settings are ignored.

    Returns:
        (N,) int64.

    Source: Fan et al. 2018 (arXiv:1805.04833), section 5.4; Holtzman et al.
    2020 (arXiv:1904.09751), section 3.1.
    """
    lowest = torch.finfo(log_probs.dtype).min
    scores = (log_probs / config.temperature).clamp_(min=lowest)
    words = None
    # Stable: the first of equal words wins.
    if config.top_k or config.top_p < 1:
        scores, words = scores.sort(dim=1, descending=True, stable=True)
        keep = config.top_k or scores.shape[1]
        scores, words = scores[:, :keep], words[:, :keep]
    reached = scores.softmax(dim=1).cumsum(dim=1)
    last = (reached < config.top_p).sum(dim=1, keepdim=True)
    last.clamp_(max=scores.shape[1] - 1)
    target = numbers.to(reached).unsqueeze(1) * reached.gather(1, last)
    drawn = torch.searchsorted(reached, target, right=True)
    return (drawn if words is None else words.gather(1, drawn)).squeeze(1)


@torch.inference_mode()
def sample(
    decoder: DecoderWithAttention,
    encoder_out: Tensor,
    vocabulary: Vocabulary,
    config: DecodingConfig,
    captions: int = 1,
    generator: torch.Generator | None = None,
) -> list[list[Hypothesis]]:
    """Draw `captions` captions for each image; some may be equal.

    Args:
        decoder: in eval mode.
        encoder_out: (B, P, D) or (B, height, width, D) float.
        vocabulary: the decoder's.
        config: with `sample` set.
        captions: how many per image, at least 1.
        generator: source of the random numbers; None means torch's own. All
            numbers are drawn at once, so images get the same captions in a
            batch as one by one.

    Raises:
        ValueError: if `captions` is below 1, the decoder is in training mode,
            or its scores are not numbers.
    """
    if captions < 1:
        raise ValueError(f"captions must be at least 1, got {captions}")
    if decoder.training:
        raise ValueError("the decoder is in training mode; call eval() first")
    state = decoder.begin(encoder_out)
    B, n, end = len(state.values), captions, vocabulary.end
    if B == 0:
        return []
    device = state.values.device
    size = (B * n, config.max_words + 1)
    numbers = torch.rand(
        size,
        generator=generator,
        device=generator.device if generator else None,
    ).to(device)
    # The captions that are not finished.
    rows = torch.arange(B * n, device=device)
    state = state.select(rows // n)
    words = torch.full((B * n, 1), vocabulary.start, device=device)
    total = torch.zeros(B * n, device=device)
    alphas: list[list[Tensor]] = [[] for _ in range(B * n)]
    found: list[Hypothesis | None] = [None] * (B * n)
    for step in range(config.max_words + 1):
        logits, alpha, state = decoder.step(words[:, -1], state)
        dtype = torch.promote_types(logits.dtype, torch.float32)
        log_probs = logits.log_softmax(dim=1, dtype=dtype)  # (N, V)
        if log_probs.isnan().any():
            raise ValueError("no caption: the decoder's scores are NaN")
        forbid(log_probs, words, vocabulary, config)
        drawn = draw(log_probs, numbers[rows, step], config)
        gain = log_probs.gather(1, drawn.unsqueeze(1)).squeeze(1)
        over = (drawn == end) | (gain == -math.inf) | (step == config.max_words)
        looked = alpha.float().cpu()
        for r, row in enumerate(rows.tolist()):
            if found[row] is None and over[r]:
                finished = bool(drawn[r] == end) and bool(gain[r] > -math.inf)
                found[row] = Hypothesis(
                    words[r, 1:].tolist(),
                    float(total[r] + gain[r] if finished else total[r]),
                    torch.stack(alphas[row])
                    if alphas[row]
                    else looked.new_zeros(0, looked.shape[1]),
                    finished,
                )
            elif found[row] is None:
                alphas[row].append(looked[r])
        words, total = torch.cat([words, drawn.unsqueeze(1)], 1), total + gain
        done = torch.tensor([found[row] is not None for row in rows.tolist()])
        images = (~done.view(-1, n).all(dim=1)).nonzero().flatten().to(device)
        if len(images) == 0:
            break
        kept = images.unsqueeze(1) * n + torch.arange(n, device=device)
        kept = kept.flatten()
        rows, words, total = rows[kept], words[kept], total[kept]
        if len(images) < len(done) // n:
            state = state.select(kept, images)
    return [found[i * n : i * n + n] for i in range(B)]
