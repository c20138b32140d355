"""Beam search.

Chapter 06 of the book, notebooks/06_beam_search.ipynb, explains this module and
generates it: edit the chapter, not this file, then run `make export`.
"""

import copy
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import NamedTuple

import torch
from torch import Tensor

from captionlib.data import Vocabulary
from captionlib.decoder import DecoderWithAttention, Grid

__all__ = [
    "Beam",
    "Ensemble",
    "Hypothesis",
    "Partial",
    "Row",
    "SearchConfig",
    "as_autocast_wants",
    "beam_search",
    "beam_search_all",
    "best_candidates",
    "close_up",
    "draw",
    "forbid",
    "grow",
    "lay_out",
    "next_log_probs",
    "ranked",
    "repeats",
    "sample_next",
    "search_next",
]


@dataclass(frozen=True)
class SearchConfig:
    """How to look for a caption. By default a plain beam search that may say anything."""

    beam_size: int = 5  # captions kept an image; 1 is greedy search
    max_words: int = 50  # excluding <start> and <end>
    length_normalisation: float = (
        0.0  # divide log-probabilities by length ** this; 0: raw sums
    )
    min_words: int = 0  # no <end> before so many
    forbid_unk: bool = False  # never say <unk>
    no_repeat: int = (
        0  # no run of so many words is said twice; 0: repeat at will
    )
    groups: int = 1  # diverse search: split the beam into so many
    diversity: float = (
        0.5  # nats off a word for each time an earlier group has just taken it
    )
    sample: bool = (
        False  # draw each word instead of searching, with a beam_size of 1
    )
    temperature: float = 1.0  # sampling: below 1 bolder for the likely words, above 1 for the rest
    top_k: int = (
        0  # sampling: only from so many of the likeliest words; 0: from all
    )
    top_p: float = 1.0  # sampling: only from the fewest words that have this much probability

    def __post_init__(self):
        least = {
            "beam_size": 1,
            "max_words": 1,
            "length_normalisation": 0,
            "min_words": 0,
        }
        least |= {"no_repeat": 0, "groups": 1, "diversity": 0, "top_k": 0}
        for name, low in least.items():
            if not low <= getattr(self, name) < math.inf:
                raise ValueError(
                    f"{name} must be at least {low}, got {getattr(self, name)}"
                )
        if not 0 < self.temperature < math.inf:
            raise ValueError(
                f"temperature must be above 0, got {self.temperature}"
            )
        if not 0 < self.top_p <= 1:
            raise ValueError(
                f"top_p must be above 0 and at most 1, got {self.top_p}"
            )
        if self.min_words > self.max_words:
            raise ValueError(
                f"min_words must be at most max_words, {self.max_words}, got {self.min_words}"
            )
        if self.beam_size % self.groups:
            raise ValueError(
                f"groups must divide the beam_size, {self.beam_size}, got {self.groups}"
            )
        if self.sample and self.beam_size != 1:
            raise ValueError(
                f"beam_size must be 1 for sampling, got {self.beam_size}"
            )
        if not self.sample and (self.temperature, self.top_k, self.top_p) != (
            1,
            0,
            1,
        ):
            raise ValueError(
                "temperature, top_k and top_p are for sampling: set sample, too"
            )


class Hypothesis(NamedTuple):
    """A caption that a search found."""

    word_ids: list[int]  # without <start> and <end>
    log_prob: (
        float  # the model's raw sum in nats, <end> included if it was reached
    )
    alphas: Tensor  # (words, P) float on the CPU, where it looked for each word; rows sum to 1
    finished: bool  # False: no <end>; max_words came first, or no word was allowed any more


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
    tied = ((last == beyond) & (last > -math.inf)).any(dim=1)
    positions = positions[:, :count].sort(dim=1).values
    if tied.any():  # torch leaves open which of them it took
        row, last = scores[tied], last[tied]
        greater, equal = row > last, row == last
        wanted = count - greater.sum(dim=1, keepdim=True)
        chosen = greater | (equal & (equal.cumsum(dim=1) <= wanted))
        positions[tied] = chosen.nonzero()[:, 1].view(-1, count)
    values, order = scores.gather(1, positions).sort(
        dim=1, descending=True, stable=True
    )
    return values, positions.gather(1, order)


class Partial(NamedTuple):
    """A caption being written."""

    log_prob: float  # of its words so far
    words: tuple[int, ...]  # from <start> on
    rows: tuple[
        int, ...
    ]  # for each further word, the row it came from, counted over all steps

    def then(self, word: int, log_prob: float, row: int) -> "Partial":
        """The same, one word longer."""
        return Partial(
            self.log_prob + log_prob, (*self.words, word), (*self.rows, row)
        )


class Beam:
    """A search's live captions, and the best of those that finished.

    An image has one; a diverse search gives it one for each group, sampling one for each draw.

    Args:
        start, end: the ids of `<start>` and `<end>`.
        config: of the whole search.
        wanted: how many finished captions to keep.
        group: which of its image's beams this is.
        numbers: for sampling, one in [0, 1) for each word.
    """

    def __init__(
        self,
        start: int,
        end: int,
        config: SearchConfig,
        wanted: int = 1,
        group: int = 0,
        numbers: Sequence[float] = (),
    ):
        self.end, self.config, self.wanted = end, config, wanted
        self.group, self.numbers = group, numbers
        self.places = (
            config.beam_size // config.groups
        )  # each finished caption takes one
        self.live = [Partial(0.0, (start,), ())]
        self.finished: list[Partial] = []  # at most `wanted`, best first
        self.unfinished: list[
            Partial
        ] = []  # those that could not go on, best first

    def score(self, caption: Partial, length: int | None = None) -> float:
        """What captions are compared by; `length` counts words and `<end>`."""
        length = length or len(caption.words) - 1
        return (
            caption.log_prob
            / max(1, length) ** self.config.length_normalisation
        )

    def advance(self, children: list[Partial]) -> None:
        """Go on with these continuations of `live`, best first; at most `places`."""
        ended = [child for child in children if child.words[-1] == self.end]
        self.places -= len(ended)
        # The sort keeps equal ones in order: of two equally good captions, the first stays.
        self.finished = sorted(
            self.finished + ended, key=self.score, reverse=True
        )[: self.wanted]
        longest = self.config.max_words + 1
        if (
            not children or len(self.live[0].words) == longest
        ):  # <start> and max_words
            said = {child.words[:-1] for child in ended}
            over = [
                caption for caption in self.live if caption.words not in said
            ]
            self.unfinished = sorted(
                over, key=lambda caption: -caption.log_prob
            )
            self.live = []
            return
        bar = (
            self.score(self.finished[-1])
            if len(self.finished) == self.wanted
            else -math.inf
        )
        self.live = [  # at best, the words to come are certain
            child
            for child in children
            if child.words[-1] != self.end and self.score(child, longest) > bar
        ]

    def captions(self) -> list[Partial]:
        """The best found, at most `wanted`; unfinished ones only for want of others."""
        return (self.finished + self.unfinished)[: self.wanted]


class Row(NamedTuple):
    """A row of the batch."""

    beam: Beam | None  # None: nobody's, to fill up
    caption: Partial


def lay_out(images: list[list[Beam]]) -> list[Row]:
    """The rows of the next step: k for each image, k being what the fullest needs."""
    k = max(
        (sum(len(beam.live) for beam in beams) for beams in images), default=0
    )
    rows = []
    for beams in images:
        live = [Row(beam, caption) for beam in beams for caption in beam.live]
        rows += live + [Row(None, live[0].caption)] * (k - len(live))
    return rows


def next_log_probs(logits: Sequence[Tensor]) -> Tensor:
    """The next word's log-probabilities (N, V), at least float32, by each decoder's logits (N, V).

    Several decoders' probabilities are averaged.

    Raises:
        ValueError: if they have different vocabularies, or scores that are not numbers.
    """
    if len({each.shape[1] for each in logits}) > 1:
        sizes = ", ".join(str(each.shape[1]) for each in logits)
        raise ValueError(
            f"expected decoders of one vocabulary, got {sizes} words"
        )
    dtype = torch.promote_types(logits[0].dtype, torch.float32)
    log_probs = [each.log_softmax(dim=1, dtype=dtype) for each in logits]
    mean = log_probs[0]
    if len(log_probs) > 1:
        mean = torch.stack(log_probs).logsumexp(dim=0) - math.log(
            len(log_probs)
        )
    if (
        mean[:, 0].isnan().any()
    ):  # one of a row's scores is enough to spoil them all
        raise ValueError(
            "no caption: the decoder's scores are not numbers (NaN)"
        )
    return mean


def as_autocast_wants(
    decoder: DecoderWithAttention, encoder_out: Tensor
) -> tuple:
    """Both in autocast's dtype where it is on; the encodings always in a copy of their own."""
    device, dtype = encoder_out.device.type, encoder_out.dtype
    if dtype == torch.float32 and torch.is_autocast_enabled(device):
        dtype = torch.get_autocast_dtype(device)
        # What deepcopy finds in its memo, it takes instead of a copy: the weights, cast.
        decoder = copy.deepcopy(
            decoder, {id(p): p.to(dtype) for p in decoder.parameters()}
        )
    return decoder, encoder_out.to(
        dtype, copy=True, memory_format=torch.contiguous_format
    )


class Ensemble:
    """Decoders at work on a batch of images, one grid an image and one state a row for each.

    Args:
        decoders: M of them.
        encoder_outs: M tensors (B, P, D) or (B, height, width, D); they are copied once.
    """

    def __init__(
        self,
        decoders: Sequence[DecoderWithAttention],
        encoder_outs: Sequence[Tensor],
    ):
        self.device = encoder_outs[0].device
        pairs = [
            as_autocast_wants(*pair)
            for pair in zip(decoders, encoder_outs, strict=True)
        ]
        self.decoders = [decoder for decoder, _ in pairs]
        self.grids = [decoder.grid(own) for decoder, own in pairs]
        self.states = [
            pair[0].init_state(grid)
            for pair, grid in zip(pairs, self.grids, strict=True)
        ]

    def step(self, words: list[int]) -> tuple[Tensor, Tensor]:
        """From each row's last word, the next one's log-probabilities (N, V), and alpha (N, P).

        Alpha is the first decoder's: the others may look at other grids.
        """
        last = torch.tensor(words, device=self.device)
        steps = [
            decoder.step(last, state, grid)
            for decoder, state, grid in zip(
                self.decoders, self.states, self.grids, strict=True
            )
        ]
        self.states = [state for state, _ in steps]
        logits = [
            decoder.word_logits(state.hidden)
            for decoder, state in zip(self.decoders, self.states, strict=True)
        ]
        return next_log_probs(logits), steps[0][1]

    def select(self, images: list[int], rows: list[int]) -> None:
        """Go on with these images, each in a place of before or in a gap, and these rows' states.

        Args:
            images: for each place from the first on, the image that belongs there: the one that
                is there already, or one from behind the last place.
            rows: for each new row, the old one.
        """
        for grid in self.grids:
            for place, image in enumerate(images):
                if place != image:
                    for tensor in grid:
                        tensor[place] = tensor[image]
        self.grids = [
            Grid(*(tensor[: len(images)] for tensor in grid))
            for grid in self.grids
        ]
        chosen = torch.tensor(rows, dtype=torch.long, device=self.device)
        self.states = [state.select(chosen) for state in self.states]


def repeats(words: Sequence[int], n: int) -> set[int]:
    """The words that would complete a run of `n` words for the second time.

    Source: Paulus et al. 2018 (arXiv:1705.04304), section 2.5, where n is 3.
    """
    tail = words[len(words) - n + 1 :]
    return {
        words[i + n - 1]
        for i in range(len(words) - n + 1)
        if words[i : i + n - 1] == tail
    }


def forbid(
    log_probs: Tensor,
    captions: list[Partial],
    vocabulary: Vocabulary,
    config: SearchConfig,
) -> None:
    """Rule out, in place, what may not come next: (N, V) for N captions of equal length."""
    never = [vocabulary.start, vocabulary.pad]
    if config.forbid_unk:
        never.append(vocabulary.unk)
    if len(captions[0].words) - 1 < config.min_words:  # less <start>
        never.append(vocabulary.end)
    log_probs[:, never] = -math.inf
    if config.no_repeat:
        found = [
            repeats(caption.words, config.no_repeat) for caption in captions
        ]
        rows = [row for row, words in enumerate(found) for _ in words]
        log_probs[rows, [word for words in found for word in words]] = -math.inf


def draw(log_probs: Tensor, numbers: Tensor, config: SearchConfig) -> Tensor:
    """A word for each row, drawn with `temperature`, `top_k` and `top_p`, applied in this order.

    Args:
        log_probs: (N, V) float; minus infinity is never drawn, unless a row holds nothing else.
        numbers: (N,) uniform in [0, 1); they decide.
        config: whose other settings don't matter here.

    Returns:
        (N,) int64.

    Source: Fan et al. 2018 (arXiv:1805.04833), section 5.4; Holtzman et al. 2020
    (arXiv:1904.09751), section 3.1.
    """
    scores = (log_probs / config.temperature).clamp_(
        min=torch.finfo(log_probs.dtype).min
    )
    words = None
    if config.top_k or config.top_p < 1:
        scores, words = best_candidates(scores, config.top_k or scores.shape[1])
    reached = scores.softmax(dim=1).cumsum(dim=1)
    last = (
        (reached < config.top_p)
        .sum(dim=1, keepdim=True)
        .clamp_(max=scores.shape[1] - 1)
    )
    target = numbers.to(reached.dtype).unsqueeze(1) * reached.gather(1, last)
    drawn = torch.searchsorted(reached, target, right=True)
    return (drawn if words is None else words.gather(1, drawn)).squeeze(1)


def sample_next(
    rows: list[Row], log_probs: Tensor, config: SearchConfig, first_row: int
) -> None:
    """Advance every beam by a drawn word; `first_row` is the first row's number over all steps."""
    step = len(rows[0].caption.rows)
    numbers = torch.tensor(
        [row.beam.numbers[step] if row.beam else 0.0 for row in rows]
    )
    words = draw(log_probs, numbers.to(log_probs.device), config)
    values = log_probs.gather(1, words.unsqueeze(1)).squeeze(1).tolist()
    for number, (row, word, value) in enumerate(
        zip(rows, words.tolist(), values, strict=True)
    ):
        if row.beam:
            child = row.caption.then(word, value, first_row + number)
            row.beam.advance([child] if value > -math.inf else [])


def search_next(
    running: list[list[Beam]],
    rows: list[Row],
    log_probs: Tensor,
    config: SearchConfig,
    first_row: int,
) -> None:
    """Advance every beam by its best continuations, one group after another.

    Source: Vijayakumar et al. 2016 (arXiv:1610.02424), section 3, with Hamming diversity.
    """
    B, V = len(running), log_probs.shape[1]
    k = len(rows) // B
    said = [
        Counter() for _ in running
    ]  # the words that earlier groups have just taken
    for group in range(config.groups):
        so_far = [
            row.caption.log_prob
            if row.beam and row.beam.group == group
            else -math.inf
            for row in rows
        ]
        totals = (log_probs.new_tensor(so_far).unsqueeze(1) + log_probs).view(
            B, k, V
        )
        if avoid := [
            (i, *pair)
            for i, counts in enumerate(said)
            for pair in counts.items()
        ]:
            images, words, counts = map(list, zip(*avoid, strict=True))
            penalties = config.diversity * log_probs.new_tensor(counts)
            totals[images, :, words] -= penalties.unsqueeze(1)
        scores, positions = best_candidates(
            totals.view(B, k * V), config.beam_size // config.groups
        )
        values = log_probs.view(B, k * V).gather(1, positions)
        found = zip(
            running,
            scores.tolist(),
            positions.tolist(),
            values.tolist(),
            strict=True,
        )
        for i, (beams, *candidates) in enumerate(found):
            beam = beams[group]
            if not beam.live:
                continue
            children = []
            for score, position, value in list(zip(*candidates, strict=True))[
                : beam.places
            ]:
                if score > -math.inf:
                    place, word = divmod(position, V)
                    row = i * k + place
                    children.append(
                        rows[row].caption.then(word, value, first_row + row)
                    )
            said[i].update(child.words[-1] for child in children)
            beam.advance(children)


def close_up(running: list[list[Beam]]) -> list[int]:
    """The images that go on, by their places; the last ones move into the gaps."""
    live = [any(beam.live for beam in beams) for beams in running]
    left = sum(live)
    behind = [place for place in range(left, len(live)) if live[place]]
    return [place if live[place] else behind.pop() for place in range(left)]


def grow(
    images: list[list[Beam]], ensemble: Ensemble, vocabulary: Vocabulary
) -> Tensor:
    """Search until every beam is done. Returns the alphas (rows of all steps, P), on the CPU."""
    config = images[0][0].config
    running, rows, first_row = images, lay_out(images), 0
    places = list(range(len(images)))
    ensemble.select(
        places,
        [place for place in places for _ in range(len(rows) // len(images))],
    )
    history = []
    while running:
        log_probs, alpha = ensemble.step(
            [row.caption.words[-1] for row in rows]
        )
        history.append(alpha.float().cpu())
        forbid(log_probs, [row.caption for row in rows], vocabulary, config)
        if config.sample:
            sample_next(rows, log_probs, config, first_row)
        else:
            search_next(running, rows, log_probs, config, first_row)
        places = close_up(running)
        running = [running[place] for place in places]
        next_rows = lay_out(running)
        ensemble.select(
            places, [row.caption.rows[-1] - first_row for row in next_rows]
        )
        first_row, rows = first_row + len(rows), next_rows
    return torch.cat(history)


def ranked(beams: list[Beam]) -> list[Partial]:
    """An image's captions: each beam's best, then each one's second, and so on."""
    captions = []
    for rank in zip_longest(*(beam.captions() for beam in beams)):
        some = [caption for caption in rank if caption]
        if not beams[0].config.sample:
            some.sort(
                key=lambda c: (c.words[-1] == beams[0].end, beams[0].score(c)),
                reverse=True,
            )
        captions += some
    return captions


@torch.inference_mode()
def beam_search_all(
    decoder: DecoderWithAttention | Sequence[DecoderWithAttention],
    encoder_out: Tensor | Sequence[Tensor],
    vocabulary: Vocabulary,
    config: SearchConfig,
    captions: int,
    generator: torch.Generator | None = None,
) -> list[list[Hypothesis]]:
    """Find several captions for each image of a batch: the best of its beam, or several draws.

    Args:
        decoder, encoder_out, vocabulary, config, generator: as `beam_search` takes them.
        captions: how many an image; of a search at most `beam_size`, of sampling any number.

    Returns:
        for each of the B images at most `captions` hypotheses, fewer only where no others can be
        said. Of a search, the best come first; of several groups, each one's best before any
        second. Samples stand as they were drawn, and may be equal.

    Raises:
        ValueError: as `beam_search` does, and if `captions` is not in its range.
    """
    if captions < 1 or not (config.sample or captions <= config.beam_size):
        most = (
            ""
            if config.sample
            else f" and at most the beam_size, {config.beam_size}"
        )
        raise ValueError(f"captions must be at least 1{most}, got {captions}")
    decoders = decoder if isinstance(decoder, Sequence) else [decoder]
    if isinstance(encoder_out, Tensor):
        encoder_out = [encoder_out] * len(decoders)
    images = [len(each) for each in encoder_out]
    if len(images) != len(decoders) or len(set(images)) != 1:
        raise ValueError(
            f"expected encodings for each of {len(decoders)} decoders, got {images}"
        )
    if images[0] == 0:
        return []

    groups = captions if config.sample else config.groups
    numbers = [[()] * groups] * images[0]
    if (
        config.sample
    ):  # all at once, so that no image's draws depend on how long others go on
        size = (images[0], groups, config.max_words + 1)
        device = generator.device if generator else None
        numbers = torch.rand(size, generator=generator, device=device).tolist()
    wanted = math.ceil(captions / groups)
    beams = [
        [
            Beam(vocabulary.start, vocabulary.end, config, wanted, group, each)
            for group, each in enumerate(of_image)
        ]
        for of_image in numbers
    ]
    training = [each.training for each in decoders]
    try:
        alphas = grow(
            beams,
            Ensemble([d.eval() for d in decoders], encoder_out),
            vocabulary,
        )
    finally:
        for each, mode in zip(decoders, training, strict=True):
            each.train(mode)

    def answer(caption: Partial) -> Hypothesis:
        finished = caption.words[-1] == vocabulary.end
        words = list(caption.words[1:-1] if finished else caption.words[1:])
        rows = torch.tensor(caption.rows[: len(words)], dtype=torch.long)
        return Hypothesis(words, caption.log_prob, alphas[rows], finished)

    return [
        [answer(caption) for caption in ranked(of_image)[:captions]]
        for of_image in beams
    ]


def beam_search(
    decoder: DecoderWithAttention | Sequence[DecoderWithAttention],
    encoder_out: Tensor | Sequence[Tensor],
    vocabulary: Vocabulary,
    config: SearchConfig = SearchConfig(),  # noqa: B008 (frozen, so it can be shared)
    generator: torch.Generator | None = None,
) -> list[Hypothesis]:
    """Find a likely caption for each image of a batch, all at once; or draw one.

    At each step an image keeps the best `beam_size` of all continuations, fewer by those that
    have finished, and is done when no live caption can beat its best finished one. Where none
    finishes within `max_words`, the best unfinished one comes back. Of equal scores, that of the
    better beam is taken, then that of the lower word id: a caption doesn't depend on its batch.

    Memory: one copy of `encoder_out` and its projection, so B * P * (D + A) numbers, never repeated
    for a beam; for each of at most B * beam_size rows a state and, a few times over, the scores of
    all V words; and the alphas, P numbers for each row and step.

    Args:
        decoder: used in eval mode, and left in the mode it was in. Several with one vocabulary
            write together: their probabilities are averaged, and the alphas are the first one's.
        encoder_out: (B, P, D) or (B, height, width, D) float annotation vectors; for several
            decoders one tensor for all, or one for each.
        vocabulary: the decoder's; `<start>` and `<pad>` are never produced.
        config: a `beam_size` of 1 is greedy search.
        generator: gives the random numbers for sampling; None is torch's own. A batch gets the
            captions that its images would get one after another.

    Returns:
        B hypotheses, in the order of the images.

    Raises:
        ValueError: if a decoder's scores are NaN, or an ensemble's parts don't fit together.
    """
    found = beam_search_all(
        decoder, encoder_out, vocabulary, config, 1, generator
    )
    return [hypotheses[0] for hypotheses in found]
