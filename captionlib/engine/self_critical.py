"""Self-critical training: reward a model for its own captions as a whole.

Cross-entropy rewards the next word of a human caption, but evaluation judges
the model's own captions. So a second training stage samples several captions of
an image, scores each by CIDEr-D, and makes those likelier that score above the
mean of the others. It starts from a model trained with cross-entropy: among
captions that are all nonsense, there is nothing to prefer.

Source: Rennie et al. 2017 (arXiv:1612.00563), section 3, for training on the
score; Luo 2020 (arXiv:2003.09971), section 3, for the other samples as the
baseline, not the greedy caption.
"""

from __future__ import annotations

from copy import copy
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pack_padded_sequence, pad_sequence

from captionlib.config import DecodingConfig, EngineConfig
from captionlib.data import Vocabulary
from captionlib.decoding import write_captions
from captionlib.engine.processes import ALONE, Processes
from captionlib.model import CaptionModel
from captionlib.scoring.cider import CiderD

__all__ = ["SelfCritical", "SelfCriticalLoss", "advantages"]


class SelfCriticalLoss(NamedTuple):
    """The loss, and the reward of the captions."""

    # Scalar: mean over words of advantage times negative log-probability.
    total: Tensor
    nats: Tensor  # scalar: mean negative log-probability of a word
    reward: Tensor  # scalar: mean CIDEr-D of the samples, ×100


def advantages(scores: np.ndarray) -> np.ndarray:
    """Each score minus the mean of the other captions of its image.

    Args:
        scores: (B, n) float, n >= 2 captions an image.

    Returns:
        (B, n) float64, each row's sum 0.
    """
    n = scores.shape[1]
    return (scores - scores.mean(axis=1, keepdims=True)) * n / (n - 1)


class SelfCritical:
    """The objective of self-critical training, for `captionlib.engine.train`.

    The references are the training captions as stored, with `<end>` as a word:
    without it, stopping in the middle of a sentence would cost nothing.

    Args:
        captions, lengths: (I, n, T) and (I, n) int64, all training captions, as
            in `FeatureDataset`; the n-gram weights come from these.
        vocabulary: the model's.
        samples: captions sampled per image.
        max_words: maximum length of a sample.
    """

    def __init__(
        self,
        captions: Tensor,
        lengths: Tensor,
        vocabulary: Vocabulary,
        *,
        samples: int = 5,
        max_words: int = 20,
    ):
        if samples < 2:
            raise ValueError(f"samples must be at least 2, got {samples}")
        self.vocabulary, self.samples = vocabulary, samples
        self.search = DecodingConfig(
            1, max_words=max_words, sample=True, forbid_unk=True
        )
        corpus = zip(captions, lengths, strict=True)
        self._cider = CiderD([self._references(*image) for image in corpus])

    def _references(self, captions: Tensor, lengths: Tensor) -> list[list[str]]:
        """Captions (n, T) as lists of words, `<end>` included."""
        return [
            [self.vocabulary.words[i] for i in caption[1:length]]
            for caption, length in zip(
                captions.tolist(), lengths.tolist(), strict=True
            )
        ]

    def __call__(
        self,
        model: CaptionModel,
        images: Tensor,
        captions: Tensor,
        lengths: Tensor,
        config: EngineConfig,
        *,
        progress: float = 0.0,
        processes: Processes = ALONE,
    ) -> tuple[SelfCriticalLoss, int]:
        """The loss of one batch and its number of words, as `teacher_forcing`.

        Dropout is off: captions are scored by the network that wrote them.
        """
        model.eval()
        # B * samples lists of word ids
        samples = self._write(model, images, config)
        n = len(captions) // len(images)
        pairs = zip(captions.split(n), lengths.split(n), strict=True)
        # N-gram weights of the whole data set, references of this batch.
        cider = copy(self._cider)
        cider.references = [self._references(*pair) for pair in pairs]
        numbers = np.repeat(np.arange(len(images)), self.samples)
        written = [
            [self.vocabulary.words[i] for i in ids[1:]] for ids in samples
        ]
        scores = cider.scores(numbers, written)
        gains = advantages(scores.reshape(-1, self.samples)).ravel() / 100

        ids = [torch.tensor(ids) for ids in samples]
        written_lengths = torch.tensor([len(sample) for sample in ids])
        # <pad> is 0
        padded = pad_sequence(ids, batch_first=True).to(images.device)
        with torch.autocast(
            images.device.type, dtype=torch.bfloat16, enabled=config.bf16
        ):
            output = model(images, padded, written_lengths)
        logits = output.logits.data.float()
        # Words that are never sampled must not gain: else the probability taken
        # from bad words would flow there, unpunished.
        v = self.vocabulary
        never = torch.zeros(
            logits.shape[1], dtype=torch.bool, device=logits.device
        )
        never[[v.start, v.pad, v.unk]] = True
        log_probs = logits.masked_fill(never, -torch.inf).log_softmax(dim=1)
        chosen = output.targets.data[:, None]
        taken = log_probs.gather(1, chosen).squeeze(1)  # (words,)
        weights = torch.as_tensor(gains, dtype=torch.float32)[:, None].expand(
            -1, padded.shape[1]
        )
        weights = pack_padded_sequence(
            weights[:, 1:],
            written_lengths - 1,
            batch_first=True,
            enforce_sorted=False,
        ).data.to(images.device)
        gained = -torch.stack([(weights * taken).sum(), taken.detach().sum()])
        reward = torch.tensor(
            scores.sum(), dtype=torch.float32, device=images.device
        )
        tokens, captions = processes.even_counts(len(taken), len(scores))
        loss = SelfCriticalLoss(*gained / tokens, reward / captions)
        return loss, len(taken)

    @torch.no_grad()
    def _write(
        self, model: CaptionModel, images: Tensor, config: EngineConfig
    ) -> list[list[int]]:
        """Captions sampled from the model: ids from `<start>` to `<end>`."""
        v = self.vocabulary
        with torch.autocast(
            images.device.type, dtype=torch.bfloat16, enabled=config.bf16
        ):
            found = write_captions(
                model.decoder,
                model.encode(images),
                v,
                self.search,
                captions=self.samples,
            )
        return [
            [
                v.start,
                *hypothesis.word_ids,
                *([v.end] if hypothesis.finished else []),
            ]
            for of_image in found
            for hypothesis in of_image
        ]
