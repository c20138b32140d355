"""Beam search.

Chapter 06 of the book, notebooks/06_beam_search.ipynb, explains this module and
generates it: edit the chapter, not this file, then run `make export`.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from captionlib.data import Vocabulary
from captionlib.decoder import DecoderWithAttention

__all__ = [
    "Beam",
    "Hypothesis",
    "Partial",
    "SearchConfig",
    "beam_search",
    "best_candidates",
    "grow",
    "lay_out",
    "next_log_probs",
]


@dataclass(frozen=True)
class SearchConfig:
    """How to look for a caption."""

    beam_size: int = 5  # captions kept an image; 1 is greedy search
    max_words: int = 50  # excluding <start> and <end>
    length_normalisation: float = 0.0  # divide log-probabilities by length ** this; 0: raw sums

    def __post_init__(self):
        for name in ("beam_size", "max_words"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.length_normalisation < 0:
            raise ValueError(
                f"length_normalisation must not be negative, got {self.length_normalisation}"
            )


class Hypothesis(NamedTuple):
    """A caption that a search found."""

    word_ids: list[int]  # without <start> and <end>
    log_prob: float  # the raw sum in nats, <end> included if it was reached
    alphas: Tensor  # (words, P) float on the CPU, where it looked for each word; rows sum to 1
    finished: bool  # False: max_words came before <end>


def best_candidates(scores: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The highest `count` scores of each row, best first; of equal ones the lower position first.

    Args:
        scores: (B, n) float; a score of minus infinity is no candidate, and its place is arbitrary.
        count: how many; all n where there are fewer.

    Returns:
        values and int64 positions, both (B, min(count, n)).
    """
    values, positions = scores.topk(min(count + 1, scores.shape[1]))
    last, beyond = values[:, count - 1 : count], values[:, count : count + 1]
    if ((last == beyond) & (last > -math.inf)).any():  # torch leaves open which of them it took
        values, positions = scores.sort(dim=1, descending=True, stable=True)
    positions, order = positions[:, :count].sort(dim=1)
    values, order = values[:, :count].gather(1, order).sort(dim=1, descending=True, stable=True)
    return values, positions.gather(1, order)


class Partial(NamedTuple):
    """A caption being written."""

    log_prob: float  # of its words so far
    words: tuple[int, ...]  # from <start> on
    rows: tuple[int, ...]  # at each step, the row of the batch that its next word came from


class Beam:
    """The search for one image's caption: the live captions, best first, and the best finished."""

    def __init__(self, start: int, end: int, config: SearchConfig):
        self.end, self.config = end, config
        self.live = [Partial(0.0, (start,), ())]
        self.places = config.beam_size  # each finished caption takes one
        self.finished: Partial | None = None
        self.unfinished: Partial | None = None  # the best when max_words was reached

    def score(self, log_prob: float, length: int) -> float:
        """What finished captions are compared by; `length` counts words and `<end>`."""
        return log_prob / length**self.config.length_normalisation

    def add(self, caption: Partial) -> None:
        """Note a caption that ended; of two equally good ones, the first stays."""
        self.places -= 1
        score = self.score(caption.log_prob, len(caption.rows))
        if score > self.best_score():
            self.finished = caption

    def best_score(self) -> float:
        """The score to beat."""
        if self.finished is None:
            return -math.inf
        return self.score(self.finished.log_prob, len(self.finished.rows))

    def advance(self, candidates: list[tuple[float, int, int]], first_row: int) -> None:
        """Go on by one word.

        Args:
            candidates: (log-probability, place in `live`, word), best first.
            first_row: the row of the batch where `live` begins.
        """
        live = []
        for log_prob, place, word in candidates[: self.places]:
            if not log_prob > -math.inf:  # nor a NaN
                break
            parent = self.live[place]
            caption = Partial(log_prob, (*parent.words, word), (*parent.rows, first_row + place))
            if word == self.end:
                self.add(caption)
            else:
                live.append(caption)
        longest = self.config.max_words + 1
        if len(self.live[0].words) == longest:  # <start> and max_words: no word may follow
            self.unfinished, self.live = self.live[0], []
        else:  # at best, the words to come are certain
            self.live = [c for c in live if self.score(c.log_prob, longest) > self.best_score()]

    def result(self, history: list[Tensor]) -> Hypothesis:
        """The caption found; `history` has the alphas (rows, P) of every step."""
        caption = self.finished or self.unfinished
        if caption is None:
            raise ValueError("no caption: the decoder's scores are not numbers (NaN)")
        words = list(caption.words[1:-1] if self.finished else caption.words[1:])
        alphas = [history[step][row] for step, row in enumerate(caption.rows[: len(words)])]
        return Hypothesis(
            word_ids=words,
            log_prob=caption.log_prob,
            alphas=torch.stack(alphas).float().cpu() if alphas else history[0][:0].float().cpu(),
            finished=self.finished is not None,
        )


def next_log_probs(logits: Tensor, vocabulary: Vocabulary) -> Tensor:
    """Log-probabilities (N, V), at least float32, with `<start>` and `<pad>` ruled out."""
    dtype = torch.promote_types(logits.dtype, torch.float32)
    log_probs = logits.log_softmax(dim=1, dtype=dtype)
    log_probs[:, [vocabulary.start, vocabulary.pad]] = -math.inf
    return log_probs


def lay_out(beams: list[Beam]) -> list[Partial]:
    """The rows of the next step: k for each image, k being what the fullest beam needs.

    A place left empty holds a copy of the image's best, with a score that never wins.
    """
    k = max((len(beam.live) for beam in beams), default=0)
    rows = []
    for beam in beams:
        empty = beam.live[0]._replace(log_prob=-math.inf)
        rows += beam.live + [empty] * (k - len(beam.live))
    return rows


def grow(
    beams: list[Beam], decoder: DecoderWithAttention, encoder_out: Tensor, vocabulary: Vocabulary
) -> list[Tensor]:
    """Search until every beam is done. Returns the alphas (rows, P) of each step."""
    grid = decoder.grid(encoder_out)
    state = decoder.init_state(grid)
    running, rows = beams, lay_out(beams)
    history = []
    while running:
        words = torch.tensor([row.words[-1] for row in rows], device=encoder_out.device)
        so_far = torch.tensor([row.log_prob for row in rows], device=encoder_out.device)
        state, alpha = decoder.step(words, state, grid)
        history.append(alpha)
        log_probs = next_log_probs(decoder.word_logits(state.hidden), vocabulary)

        V, k = log_probs.shape[1], len(rows) // len(running)
        totals = (so_far.unsqueeze(1) + log_probs).view(len(running), k * V)
        values, positions = best_candidates(totals, beams[0].config.beam_size)
        for i, (beam, scores, found) in enumerate(
            zip(running, values.tolist(), positions.tolist(), strict=True)
        ):
            candidates = [
                (score, *divmod(position, V)) for score, position in zip(scores, found, strict=True)
            ]
            beam.advance(candidates, first_row=i * k)

        left = [i for i, beam in enumerate(running) if beam.live]
        if len(left) < len(running):  # images that are done leave the batch
            running = [running[i] for i in left]
            grid = grid.select(torch.tensor(left, dtype=torch.long, device=encoder_out.device))
        rows = lay_out(running)
        parents = [row.rows[-1] for row in rows]
        state = state.select(torch.tensor(parents, dtype=torch.long, device=encoder_out.device))
    return history


@torch.inference_mode()
def beam_search(
    decoder: DecoderWithAttention,
    encoder_out: Tensor,
    vocabulary: Vocabulary,
    config: SearchConfig = SearchConfig(),  # noqa: B008 (frozen, so it can be shared)
) -> list[Hypothesis]:
    """Find a likely caption for each image of a batch, all at once.

    At each step an image keeps the best `beam_size` of all continuations, fewer by those that
    have finished, and is done when no live caption can beat its best finished one. Where none
    finishes within `max_words`, the best unfinished one comes back. Of equal scores, that of the
    better beam is taken, then that of the lower word id: a caption doesn't depend on its batch.

    Memory grows with B * beam_size rows of state, alphas and word scores; the grids and their
    projections are there once an image.

    Args:
        decoder: used in eval mode, and left in the mode it was in.
        encoder_out: (B, P, D) or (B, height, width, D) float annotation vectors.
        vocabulary: the decoder's; `<start>` and `<pad>` are never produced.
        config: a `beam_size` of 1 is greedy search.

    Returns:
        B hypotheses, in the order of the images.

    Raises:
        ValueError: if the decoder's scores are NaN.
    """
    beams = [Beam(vocabulary.start, vocabulary.end, config) for _ in range(len(encoder_out))]
    training = decoder.training
    try:
        history = grow(beams, decoder.eval(), encoder_out, vocabulary) if beams else []
    finally:
        decoder.train(training)
    return [beam.result(history) for beam in beams]
