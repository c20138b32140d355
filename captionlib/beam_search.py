"""Beam search.

Chapter 06 of the book, notebooks/06_beam_search.ipynb, explains this module and
generates it: edit the chapter, not this file, then run `make export`.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from captionlib.config import SearchConfig
from captionlib.data import Vocabulary
from captionlib.decoder import DecoderWithAttention, State

__all__ = [
    "Beam",
    "Finished",
    "Hypothesis",
    "beam_search",
    "beam_search_all",
    "extend",
    "first_beam",
    "forbid",
    "keep_live",
    "read_out",
    "repeats",
    "settle",
]


class Hypothesis(NamedTuple):
    """A caption that a search found."""

    word_ids: list[int]  # without <start> and <end>
    log_prob: float  # raw sum in nats, <end> included if it was reached
    alphas: Tensor  # (words, P) float on the CPU; rows sum to 1
    finished: bool  # False: it never came to <end>


class Beam(NamedTuple):
    """The live prefixes of B images, k places for each."""

    words: Tensor  # (B, k, t) int64, from <start> on
    scores: Tensor  # (B, k) log-probabilities; -inf marks an empty place
    alphas: Tensor  # (B, k, t - 1, P)


def extend(
    beam: Beam, log_probs: Tensor, alpha: Tensor, count: int
) -> tuple[Beam, Tensor]:
    """Each image's `count` best continuations, best first.

    Takes the next words' log_probs (B * k, V) and the maps alpha (B * k, P).
    Returns the longer prefixes and the row, of B * k, that each continues.
    """
    (B, k), V = beam.scores.shape, log_probs.shape[1]
    totals = beam.scores.unsqueeze(2) + log_probs.view(B, k, V)
    scores, position = totals.flatten(1).topk(min(count, k * V))  # K = count
    first_row = k * torch.arange(B, device=scores.device).unsqueeze(1)
    rows, words = first_row + position // V, position % V
    words = torch.cat([beam.words.flatten(0, 1)[rows], words[..., None]], 2)
    alphas = [beam.alphas.flatten(0, 1)[rows], alpha[rows].unsqueeze(2)]
    return Beam(words, scores, torch.cat(alphas, dim=2)), rows


def repeats(words: list[int], n: int) -> list[int]:
    """The words that would complete a run of n words for the second time."""
    start = len(words) - n + 1
    return [
        words[i + n - 1]
        for i in range(start)
        if words[i : i + n - 1] == words[start:]
    ]


def forbid(
    log_probs: Tensor,
    prefixes: Tensor,
    vocabulary: Vocabulary,
    config: SearchConfig,
) -> None:
    """Forbid words, in place: log_probs (N, V) after prefixes (N, t)."""
    never = [vocabulary.start, vocabulary.pad]
    if config.forbid_unk:
        never.append(vocabulary.unk)
    if prefixes.shape[1] - 1 < config.min_words:
        never.append(vocabulary.end)
    log_probs[:, never] = -math.inf
    if config.no_repeat:
        for row, words in enumerate(prefixes.tolist()):
            log_probs[row, repeats(words, config.no_repeat)] = -math.inf


def read_out(beam: Beam, image: int, place: int, end: int) -> Hypothesis:
    """Take one caption out of a beam."""
    words = beam.words[image, place, 1:].tolist()
    finished = bool(words) and words[-1] == end
    words = words[:-1] if finished else words
    alphas = beam.alphas[image, place, : len(words)].float().cpu()
    return Hypothesis(words, float(beam.scores[image, place]), alphas, finished)


class Finished:
    """The captions of one image, the best `wanted` of them."""

    def __init__(self, wanted: int):
        self.wanted, self.count = wanted, 0  # count: places they have taken
        self.best: list[tuple[float, Hypothesis]] = []
        self.rest: list[Hypothesis] = []  # unfinished ones

    def add(self, score: float, caption: Hypothesis) -> None:
        self.count += 1
        self.best.append((score, caption))
        self.best.sort(key=lambda pair: -pair[0])
        del self.best[self.wanted :]

    def bar(self) -> float:
        """What a live prefix must still be able to beat."""
        full = len(self.best) == self.wanted
        return self.best[-1][0] if full else -math.inf

    def fill(self, beam: Beam, image: int, end: int) -> None:
        """Add the live prefixes, best first, in case too few finished."""
        known = [caption.word_ids for _, caption in self.best]
        for place in (beam.scores[image] > -math.inf).nonzero().tolist():
            prefix = read_out(beam, image, *place, end)
            if prefix.word_ids not in known:
                self.rest.append(prefix)

    def captions(self) -> list[Hypothesis]:
        return ([best for _, best in self.best] + self.rest)[: self.wanted]


def settle(
    longer: Beam, finished: list[Finished], config: SearchConfig, end: int
) -> Tensor:
    """Put aside what has come to `<end>`; say which prefixes (B, K) go on."""
    B, K, length = longer.words.shape
    length -= 1  # of captions, <end> counted and <start> not
    power, longest = config.length_normalisation, config.max_words + 1
    taken = longer.scores.new_tensor([[each.count] for each in finished])
    place = torch.arange(K, device=taken.device)
    longer.scores[place >= config.beam_size - taken] = -math.inf
    ended = longer.words[:, :, -1] == end
    for b, k in (ended & (longer.scores > -math.inf)).nonzero().tolist():
        caption = read_out(longer, b, k, end)
        finished[b].add(caption.log_prob / length**power, caption)
    # At best, every word to come is certain and lowers no score.
    bar = longer.scores.new_tensor([[each.bar()] for each in finished])
    live = ~ended & (longer.scores / longest**power > bar)
    return live & (length < longest)


def first_beam(state: State, start: int) -> Beam:
    """`<start>` alone, one prefix for each image."""
    B, P, D = state.values.shape  # the images' grids
    device = state.values.device
    return Beam(
        torch.full((B, 1, 1), start, device=device),
        torch.zeros(B, 1, device=device),
        torch.zeros(B, 1, 0, P, device=device),
    )


def keep_live(
    longer: Beam, rows: Tensor, live: Tensor, state: State
) -> tuple[Beam, State]:
    """Drop images without live prefixes; live ones move to the front."""
    images = live.any(dim=1).nonzero().flatten()
    places = live.int().argsort(dim=1, descending=True, stable=True)
    places = places[images, : int(live.sum(dim=1).max())]
    longer.scores[~live] = -math.inf
    kept = images.unsqueeze(1), places
    beam = Beam(*(tensor[kept] for tensor in longer))
    all_stay = len(images) == len(live)
    images = None if all_stay else images  # None spares copying the grids
    return beam, state.select(rows[kept].flatten(), images)


@torch.inference_mode()
def beam_search_all(
    decoder: DecoderWithAttention,
    encoder_out: Tensor,
    vocabulary: Vocabulary,
    config: SearchConfig = SearchConfig(),  # noqa: B008 (frozen)
    captions: int = 1,
) -> list[list[Hypothesis]]:
    """Find likely captions for each image, best first, unfinished ones last.

    Args:
        decoder: in eval mode.
        encoder_out: (B, P, D) or (B, height, width, D) float.
        captions: how many for each image, at most the beam size.

    Raises:
        ValueError: if `captions` is out of range, the decoder is in
            training mode, or its scores are not numbers.
    """
    k = config.beam_size
    if not 1 <= captions <= k:
        raise ValueError(f"captions must be in 1 to {k}, got {captions}")
    if decoder.training:
        raise ValueError("the decoder is in training mode; call eval() first")
    state = decoder.begin(encoder_out)
    beam, end = first_beam(state, vocabulary.start), vocabulary.end
    found = running = [Finished(captions) for _ in beam.words]
    while running:
        last_words = beam.words[:, :, -1].flatten()
        logits, alpha, state = decoder.step(last_words, state)
        # Sums of logarithms need 32 bits at least.
        dtype = torch.promote_types(logits.dtype, torch.float32)
        log_probs = logits.log_softmax(dim=1, dtype=dtype)
        if log_probs.isnan().any():
            raise ValueError("no caption: the decoder's scores are NaN")
        forbid(log_probs, beam.words.flatten(0, 1), vocabulary, config)
        longer, rows = extend(beam, log_probs, alpha, k)
        live = settle(longer, running, config, end)
        goes_on = live.any(dim=1).tolist()
        for b, each in enumerate(running):
            if not goes_on[b]:
                each.fill(beam, b, end)
        running = [each for b, each in enumerate(running) if goes_on[b]]
        if running:
            beam, state = keep_live(longer, rows, live, state)
    return [each.captions() for each in found]


def beam_search(
    decoder: DecoderWithAttention,
    encoder_out: Tensor,
    vocabulary: Vocabulary,
    config: SearchConfig = SearchConfig(),  # noqa: B008 (frozen)
) -> list[Hypothesis]:
    """Find a likely caption for each image; see `beam_search_all`."""
    found = beam_search_all(decoder, encoder_out, vocabulary, config)
    return [captions[0] for captions in found]
