"""Rewarding whole captions.

Chapter 14 of the book, notebooks/14_self_critical.ipynb, explains this module and
generates it: edit the chapter, not this file, then run `make export`.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_packed_sequence

from captionlib.data import Vocabulary
from captionlib.decoder import DecoderOutput
from captionlib.model import CaptionModel
from captionlib.scoring.cider import CiderD

__all__ = [
    "SelfCritical",
    "SelfCriticalLoss",
    "allowed",
    "caption_log_probs",
    "leave_one_out",
    "rewards",
    "sample",
    "self_critical_loss",
    "sentences",
    "word_entropy",
]


def allowed(logits: Tensor, vocabulary: Vocabulary) -> Tensor:
    """Log-probabilities (N, V) of the words that a caption may hold.

    `<start>`, `<pad>` and `<unk>` have none, and the others share theirs.
    """
    never = [vocabulary.start, vocabulary.pad, vocabulary.unk]
    never = torch.tensor(never, device=logits.device)
    return logits.float().index_fill(1, never, -torch.inf).log_softmax(dim=1)


@torch.no_grad()
def sample(
    decoder,
    grids: Tensor,
    vocabulary: Vocabulary,
    count: int = 1,
    longest: int = 20,
    greedy: bool = False,
) -> tuple[Tensor, Tensor]:
    """Draw captions word by word, `count` for each of the grids (B, ..., D).

    A caption ends with `<end>`, or is cut after `longest` draws. If `greedy`,
    the likeliest word is taken each time.

    Returns:
        captions (B * count, T) int64, from `<start>` on and padded; lengths
        (B * count,), counting `<start>` and `<end>`.
    """
    images = torch.arange(len(grids), device=grids.device)
    images = images.repeat_interleave(count)
    state = decoder.begin(grids).select(images)
    words = torch.full_like(images, vocabulary.start)
    captions, live = [words], torch.ones_like(words, dtype=torch.bool)
    while live.any() and len(captions) <= longest:
        logits, _, state = decoder.step(words, state)
        chances = allowed(logits, vocabulary).exp()  # (N, V)
        drawn = chances.argmax(1) if greedy else chances.multinomial(1)[:, 0]
        words = drawn.where(live, vocabulary.pad)
        captions.append(words)
        live = live & (words != vocabulary.end)
    captions = torch.stack(captions, dim=1)
    return captions, (captions != vocabulary.pad).sum(dim=1)


def sentences(
    captions: Tensor, lengths: Tensor, vocabulary: Vocabulary, end: bool = True
) -> list[list[str]]:
    """Padded captions (N, T) as lists of words, with or without `<end>`."""
    rows = zip(captions.tolist(), lengths.tolist(), strict=True)
    written = [ids[1:length] for ids, length in rows]
    return [
        [vocabulary.words[i] for i in ids if end or i != vocabulary.end]
        for ids in written
    ]


def rewards(cider: CiderD, told: list, written: list) -> Tensor:
    """CIDEr-D, ×100, of n captions of each of B images: (B, n) float64.

    Takes each image's human captions, B lists, and all B * n written ones.
    """
    n = len(written) // len(told)
    images = [row // n for row in range(len(written))]
    scores = cider.against(told).scores(images, written)
    return torch.from_numpy(scores).view(-1, n)


def leave_one_out(scores: Tensor) -> Tensor:
    """Each score minus the mean of the image's others: (B, n), n at least 2."""
    n = scores.shape[1]
    return (scores - scores.mean(dim=1, keepdim=True)) * n / (n - 1)


def caption_log_probs(output: DecoderOutput, vocabulary: Vocabulary) -> Tensor:
    """Log-probability (N,) of each caption that a decoder has read, in nats."""
    log_probs = allowed(output.logits.data, vocabulary)  # (tokens, V)
    taken = log_probs.gather(1, output.targets.data[:, None]).squeeze(1)
    taken = output.targets._replace(data=taken)
    return pad_packed_sequence(taken, batch_first=True)[0].sum(dim=1)


def self_critical_loss(
    log_probs: Tensor, gains: Tensor, captions: float | None = None
) -> Tensor:
    """Its gradient is, on average, that of minus the expected reward.

    Args:
        log_probs, gains: (N,); of each caption.
        captions: count to divide by, if not N.
    """
    gains = gains.to(log_probs)
    return -(gains * log_probs).sum() / (captions or len(gains))


class SelfCriticalLoss(NamedTuple):
    """What is minimised, and the reward."""

    total: Tensor  # scalar, with a gradient
    reward: Tensor  # scalar: mean CIDEr-D of the samples, ×100


class SelfCritical:
    """The loss of a batch: a model's own captions, and how good they are.

    Args:
        captions, lengths: (I, n, T) and (I, n), all training captions; n-gram
            weights come from these, and none is written longer.
        vocabulary: the model's.
        samples: captions to write for each image.
        greedy: compare with the greedy caption, not with the other samples.
        end: whether `<end>` counts as a word.
    """

    def __init__(
        self,
        captions: Tensor,
        lengths: Tensor,
        vocabulary: Vocabulary,
        samples: int = 5,
        greedy: bool = False,
        end: bool = True,
    ):
        self.vocabulary, self.samples = vocabulary, samples
        self.greedy, self.end = greedy, end
        self.longest = int(lengths.max()) - 1
        self.cider = CiderD(self.told(captions, lengths))

    def told(self, captions: Tensor, lengths: Tensor) -> list:
        """Each image's captions, as lists of words."""
        images = zip(captions, lengths, strict=True)
        return [sentences(*each, self.vocabulary, self.end) for each in images]

    def write(
        self, decoder, grids: Tensor, told: list, count: int, greedy=False
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Captions, their lengths, and their rewards (B, count)."""
        v = self.vocabulary
        ids, long = sample(decoder, grids, v, count, self.longest, greedy)
        written = sentences(ids, long, v, self.end)
        return ids, long, rewards(self.cider, told, written)

    def __call__(
        self, model: CaptionModel, batch: tuple, config=None, progress=0.0
    ) -> SelfCriticalLoss:
        model.eval()  # no dropout: who writes the captions is judged by them
        images, *captions = batch
        grids, told = model.encode(images), self.told(*captions)
        decoder, n = model.decoder, self.samples
        ids, long, scores = self.write(decoder, grids, told, n)
        if self.greedy:
            _, _, best = self.write(decoder, grids, told, 1, greedy=True)
            gains = scores - best
        else:
            gains = leave_one_out(scores)
        output = decoder(grids, ids, long)
        log_probs = caption_log_probs(output, self.vocabulary)
        total = self_critical_loss(log_probs, gains.flatten() / 100)
        return SelfCriticalLoss(total, scores.mean())


def word_entropy(output: DecoderOutput, vocabulary: Vocabulary) -> Tensor:
    """How undecided the model was before each word: (tokens,), in nats."""
    log_probs = allowed(output.logits.data, vocabulary)
    return torch.special.entr(log_probs.exp()).sum(dim=1)
