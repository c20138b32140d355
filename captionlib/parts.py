"""What is each part worth?

Chapter 12 of the book, notebooks/12_parts.ipynb, explains this module and
generates it: edit the chapter, not this file, then run `make export`.
"""

import torch
from torch import Tensor, nn

from captionlib.attention import Attention
from captionlib.data import Vocabulary

__all__ = [
    "DotAttention",
    "EvenAttention",
    "OpenGate",
    "most_typical",
    "nearest_images",
    "word_vectors",
]


def nearest_images(
    grids: Tensor, known: Tensor, count: int
) -> tuple[Tensor, Tensor]:
    """For each image, those `known` that are most like it, the nearest first.

    Takes grids (B, P, D) and (I, P, D). Two images are alike if their mean
    cells point the same way. Returns cosines and indices, (B, count) each.
    """
    means = [g.float().mean(dim=1) for g in (grids, known)]
    unit = [nn.functional.normalize(mean, dim=1) for mean in means]
    return (unit[0] @ unit[1].T).topk(count, dim=1)


def most_typical(captions: list[list[str]]) -> list[str]:
    """The caption that shares most words and pairs of words with the others."""
    grams = [
        {*words, *zip(words, words[1:], strict=False)} for words in captions
    ]
    every = sorted(set().union(*grams), key=repr)
    holds = torch.tensor([[g in own for g in every] for own in grams]).float()
    unit = nn.functional.normalize(holds, dim=1)
    return captions[int((unit @ unit.sum(dim=0)).argmax())]


class EvenAttention(nn.Module):
    """In the place of `Attention`: every cell has the same weight."""

    def keys(self, encoder_out: Tensor) -> Tensor:
        """Nothing is compared, so this is only to have the right size."""
        return encoder_out[..., :1]

    def forward(
        self, hidden: Tensor, keys: Tensor, values: Tensor
    ) -> tuple[Tensor, Tensor]:
        """As in `Attention.forward`."""
        B, P, D = values.shape
        context = values.mean(dim=1, keepdim=True)  # (B, 1, D)
        context = context.expand(B, len(hidden) // B, D)
        return context.flatten(0, 1), values.new_full((len(hidden), P), 1 / P)


class OpenGate(nn.Module):
    """In the place of `f_beta`: the sigmoid of infinity is 1."""

    def __init__(self, encoder_dim: int):
        super().__init__()
        self.encoder_dim = encoder_dim

    def forward(self, hidden: Tensor) -> Tensor:
        """(N, H) to (N, D)."""
        return hidden.new_full((len(hidden), self.encoder_dim), torch.inf)


class DotAttention(Attention):
    """Scores are dot products of query and key, scaled by their length.

    Source: Vaswani et al. 2017 (arXiv:1706.03762), section 3.2.1.
    """

    def __init__(self, encoder_dim: int, decoder_dim: int, attention_dim: int):
        super().__init__(encoder_dim, decoder_dim, attention_dim)
        del self.full_att

    def forward(
        self, hidden: Tensor, keys: Tensor, values: Tensor
    ) -> tuple[Tensor, Tensor]:
        """As in `Attention.forward`."""
        B, _, A = keys.shape
        query = self.decoder_att(hidden).view(B, -1, A)  # (B, n, A)
        alpha = (query @ keys.mT / A**0.5).softmax(dim=2)  # (B, n, P)
        context = alpha @ values  # (B, n, D)
        return context.flatten(0, 1), alpha.flatten(0, 1)


def word_vectors(
    captions: list[list[str]], vocabulary: Vocabulary, dim: int, window: int = 2
) -> Tensor:
    """Vectors (V, dim) of words by the company they keep.

    Counts how often two words stand at most `window` apart, compares that with
    chance (positive pointwise mutual information), and keeps the `dim`
    largest directions. Their spread is that of the decoder's own first vectors.

    Source: Levy and Goldberg 2014, section 3.
    """
    V = len(vocabulary)
    counts = torch.zeros(V, V)
    for words in captions:
        ids = torch.tensor(vocabulary.encode(words, len(words)))
        for gap in range(1, window + 1):
            pairs = ids[:-gap], ids[gap:]
            counts.index_put_(pairs, torch.ones(()), accumulate=True)
    counts = counts + counts.T
    chance = counts.sum(0) * counts.sum(1, keepdim=True) / counts.sum()
    information = (counts / chance).nan_to_num(0).log().clamp(min=0)
    left, size, _ = torch.linalg.svd(information)
    vectors = torch.zeros(V, dim)
    kept = min(V, dim)
    vectors[:, :kept] = left[:, :kept] * size[:kept].sqrt()
    return vectors * (0.1 / 3**0.5) / vectors.std()
