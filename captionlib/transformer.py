"""From here to Transformers.

Chapter 15 of the book, notebooks/15_transformer.ipynb, explains this module and
generates it: edit the chapter, not this file, then run `make export`.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_packed_sequence

from captionlib.decoder import DecoderOutput, pack

__all__ = [
    "Block",
    "MultiHeadAttention",
    "PrefixDecoder",
    "TransformerDecoder",
    "TransformerState",
    "causal_mask",
    "positions",
]


class MultiHeadAttention(nn.Module):
    """Scaled dot-product attention in several heads.

    Source: Vaswani et al. 2017 (arXiv:1706.03762), section 3.2.
    """

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, width)

    def remember(self, source: Tensor) -> Tensor:
        """Keys and values (B, L, 2 * W) of vectors (B, L, W)."""
        return self.key_value(source)

    def forward(
        self, x: Tensor, memory: Tensor, unseen: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Let vectors look at what is remembered.

        Args:
            x: (N, t, W) float; rows n * b to n * b + n - 1 look at memory b.
            memory: (B, L, 2 * W) float, from `remember`; N = B * n.
            unseen: (t, L) bool, what each of the t may not look at.

        Returns:
            (N, t, W), and alpha (N, heads, t, L), which sums to 1 over L.
        """
        (N, t, W), (B, L, _), heads = x.shape, memory.shape, self.heads
        queries = self.query(x).view(B, -1, heads, W // heads)  # n * t a memory
        keys, values = memory.view(B, L, 2, heads, -1).unbind(2)
        scores = torch.einsum("bqhd,blhd->bqhl", queries, keys)
        scores = scores.reshape(N, t, heads, L) / (W // heads) ** 0.5
        if unseen is not None:
            scores = scores.masked_fill(unseen[:, None], -torch.inf)
        alpha = scores.softmax(dim=3)
        shared = alpha.view(B, -1, heads, L)
        mixed = torch.einsum("bqhl,blhd->bqhd", shared, values)
        return self.out(mixed.reshape(N, t, W)), alpha.transpose(1, 2)


def causal_mask(t: int, seen: int) -> Tensor:
    """What each of `t` new words may not see, after `seen` others.

    Returns (t, seen + t) bool: True for the words to come.
    """
    return torch.ones(t, seen + t, dtype=torch.bool).triu(seen + 1)


def positions(first: int, count: int, width: int) -> Tensor:
    """Vectors (count, width) of the places from `first` on."""
    places = torch.arange(first, first + count)[:, None]
    rates = 10_000 ** (-torch.arange(0, width, 2) / width)
    angles = places * rates
    return torch.cat([angles.sin(), angles.cos()], dim=1)


class Block(nn.Module):
    """One layer: look at the words so far, at the grid, then think.

    Without `cross`, there is no grid to look at.
    """

    def __init__(self, width: int, heads: int, dropout: float, cross: bool):
        super().__init__()
        self.words = MultiHeadAttention(width, heads)
        self.grid = MultiHeadAttention(width, heads) if cross else None
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(3))
        self.dropout = nn.Dropout(dropout)

    def forward(
        self, x: Tensor, past: Tensor, grid: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Read t words.

        Args:
            x: (N, t, W) float.
            past: (N, s, 2 * W), keys and values of the s words before.
            grid: (B, P, 2 * W), those of the grid; not used without `cross`.

        Returns:
            x; past, longer by t; alpha (N, heads, t, P), or, without `cross`,
            (N, heads, t, s + t).
        """
        normed = self.norms[0](x)
        unseen = causal_mask(x.shape[1], past.shape[1]).to(x.device)
        past = torch.cat([past, self.words.remember(normed)], dim=1)
        found, alpha = self.words(normed, past, unseen)
        x = x + self.dropout(found)
        if self.grid is not None:
            found, alpha = self.grid(self.norms[1](x), grid)
            x = x + self.dropout(found)
        return x + self.dropout(self.mlp(self.norms[2](x))), past, alpha


class TransformerState(NamedTuple):
    """Keys and values, for each layer, of the words so far and the grids."""

    past: list[Tensor]  # each (N, s, 2 * W)
    grids: list[Tensor]  # each (B, P, 2 * W)

    @property
    def values(self) -> Tensor:
        """(B, P, ...): here a search sees how many images and cells it has."""
        return self.grids[0]

    def select(
        self, rows: Tensor, images: Tensor | None = None
    ) -> "TransformerState":
        """Keep the captions `rows` (N,) and the `images` (B,); None: all."""
        past = [each.index_select(0, rows) for each in self.past]
        grids = self.grids
        if images is not None:
            grids = [each.index_select(0, images) for each in grids]
        return TransformerState(past, grids)


class TransformerDecoder(nn.Module):
    """A Transformer that looks at the image in every layer."""

    cross = True

    def __init__(
        self,
        vocab_size: int,
        encoder_dim: int,
        width: int = 96,
        heads: int = 4,
        layers: int = 2,
        dropout: float = 0.1,
    ):
        super().__init__()
        self.shape = {"width": width, "heads": heads, "layers": layers}
        self.shape["dropout"] = dropout
        self.project = nn.Sequential(
            nn.Linear(encoder_dim, width), nn.LayerNorm(width)
        )
        self.embedding = nn.Embedding(vocab_size, width)
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.ModuleList(
            Block(width, heads, dropout, self.cross) for _ in range(layers)
        )
        self.norm = nn.LayerNorm(width)
        self.fc = nn.Linear(width, vocab_size)

    def begin(self, encoder_out: Tensor) -> TransformerState:
        """Project a grid (B, P, D) or (B, h, w, D), once for each image."""
        grid = self.project(encoder_out.flatten(1, -2))  # (B, P, W)
        grids = [block.grid.remember(grid) for block in self.blocks]
        return TransformerState([each[:, :0] for each in grids], grids)

    def read(
        self, x: Tensor, state: TransformerState
    ) -> tuple[Tensor, Tensor, TransformerState]:
        """Read vectors (N, t, W) after all that has been read.

        Returns (N, t, W); alphas (N, layers, heads, t, P); the new state.
        """
        x = x + positions(state.past[0].shape[1], *x.shape[1:]).to(x)
        x, longer, alphas = self.dropout(x), [], []
        for block, past, grid in zip(self.blocks, *state, strict=True):
            x, past, alpha = block(x, past, grid)
            longer.append(past)
            alphas.append(alpha)
        state = TransformerState(longer, state.grids)
        return self.norm(x), torch.stack(alphas, dim=1), state

    def step(
        self, words: Tensor, state: TransformerState
    ) -> tuple[Tensor, Tensor, TransformerState]:
        """As `DecoderWithAttention.step`; alpha is the mean of all heads."""
        embedded = self.embedding(words).unsqueeze(1)
        x, alphas, state = self.read(embedded, state)
        return self.fc(x[:, 0]), alphas.mean(dim=(1, 2))[:, 0], state

    def forward(
        self, encoder_out: Tensor, captions: Tensor, caption_lengths: Tensor
    ) -> DecoderOutput:
        """As `captionlib.decoder.teacher_force`, all words at once."""
        N, steps = len(captions), caption_lengths.cpu() - 1
        images = torch.arange(N, device=captions.device)
        images = images // (N // len(encoder_out))
        state = self.begin(encoder_out).select(images)
        embedded = self.embedding(captions[:, : steps.max()])
        x, alphas, _ = self.read(embedded, state)
        x, alpha = pack(x, steps), pack(alphas.mean(dim=(1, 2)), steps)
        return DecoderOutput(
            x._replace(data=self.fc(x.data)),
            pack(captions[:, 1:], steps),
            pad_packed_sequence(alpha, batch_first=True)[0],
        )


class PrefixDecoder(TransformerDecoder):
    """A Transformer that reads the image as its first few words.

    The grid, which must be square, is pooled to `side` * `side` tokens.
    """

    cross, side = False, 3

    def begin(self, encoder_out: Tensor) -> TransformerState:
        """Read the image: (B, P, D) or (B, height, width, D)."""
        cells = encoder_out.flatten(1, -2)  # (B, P, D)
        B, P, D = cells.shape
        grid = torch.eye(P).unflatten(1, (1, round(P**0.5), -1))
        shares = F.adaptive_avg_pool2d(grid, self.side).flatten(1).to(cells)
        tokens = self.project(shares.T @ cells)  # (B, S, W)
        none = tokens.new_zeros(B, 0, 2 * tokens.shape[2])
        layers = len(self.blocks)
        state = TransformerState(
            [none] * layers, [shares.expand(B, P, -1)] * layers
        )
        return super().read(tokens, state)[2]

    def read(
        self, x: Tensor, state: TransformerState
    ) -> tuple[Tensor, Tensor, TransformerState]:
        """As before. Weight on an image token is spread over its cells."""
        x, alphas, state = super().read(x, state)
        shares = state.values[0]  # (P, S)
        alphas = alphas[..., : shares.shape[1]] @ shares.T
        return x, alphas / alphas.sum(dim=-1, keepdim=True), state
