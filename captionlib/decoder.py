"""The decoder, with packed sequences.

Chapter 04 of the book, notebooks/04_decoder.ipynb, explains this module and
generates it: edit the chapter, not this file, then run `make export`.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import (
    PackedSequence,
    pack_padded_sequence,
    pad_packed_sequence,
    pad_sequence,
)

from captionlib.attention import Attention

__all__ = [
    "DecoderOutput",
    "DecoderWithAttention",
    "State",
    "pack",
    "teacher_force",
]


class State(NamedTuple):
    """Where the decoder stands: its memory, and the images it looks at."""

    hidden: Tensor  # (N, H), N captions, the same number for each image
    cell: Tensor  # (N, H)
    keys: Tensor  # (B, P, A)
    values: Tensor  # (B, P, D)

    def select(self, rows: Tensor, images: Tensor | None = None) -> "State":
        """Keep the captions `rows` (N,) and the `images` (B,); None: all."""
        # Unlike indexing by [], this sums gradients in one fixed order, so
        # that runs repeat exactly.
        memory = [tensor.index_select(0, rows) for tensor in self[:2]]
        grids = self[2:]
        if images is not None:
            grids = [tensor.index_select(0, images) for tensor in grids]
        return State(*memory, *grids)


class DecoderWithAttention(nn.Module):
    """An LSTM that looks at the image before every word.

    Source: Xu et al. 2015 (arXiv:1502.03044), sections 3.1.2 and 4.2. The
    vector gate and the missing deep output are the original tutorial's.
    """

    def __init__(
        self,
        attention_dim: int,
        embed_dim: int,
        decoder_dim: int,
        vocab_size: int,
        encoder_dim: int = 2048,
        dropout: float = 0.5,
    ):
        super().__init__()
        self.attention = Attention(encoder_dim, decoder_dim, attention_dim)
        self.embedding = nn.Embedding(vocab_size, embed_dim)
        self.dropout = nn.Dropout(dropout)
        self.decode_step = nn.LSTMCell(embed_dim + encoder_dim, decoder_dim)
        self.init_h = nn.Linear(encoder_dim, decoder_dim)
        self.init_c = nn.Linear(encoder_dim, decoder_dim)
        self.f_beta = nn.Linear(decoder_dim, encoder_dim)
        self.fc = nn.Linear(decoder_dim, vocab_size)
        nn.init.uniform_(self.embedding.weight, -0.1, 0.1)
        nn.init.uniform_(self.fc.weight, -0.1, 0.1)
        nn.init.zeros_(self.fc.bias)

    def begin(self, encoder_out: Tensor) -> State:
        """The first states of a grid (B, P, D) or (B, height, width, D)."""
        # One axis for the places: no change if it is flat already.
        values = encoder_out.flatten(1, -2)  # (B, P, D)
        mean = values.mean(dim=1)
        keys = self.attention.keys(values)
        return State(self.init_h(mean), self.init_c(mean), keys, values)

    def step(self, words: Tensor, state: State) -> tuple[Tensor, Tensor, State]:
        """Look at the image, read the words (N,) int64, score the next ones.

        Returns logits (N, V) before softmax, alpha (N, P), the new state.
        """
        state, alpha = self.look(self.embedding(words), state)
        return self.fc(self.dropout(state.hidden)), alpha, state

    def look(self, embedded: Tensor, state: State) -> tuple[State, Tensor]:
        """The middle of `step`: words are vectors (N, E), nothing is scored."""
        hidden, cell, keys, values = state
        context, alpha = self.attention(hidden, keys, values)
        beta = torch.sigmoid(self.f_beta(hidden))  # (N, D)
        inputs = torch.cat([embedded, beta * context], dim=1)  # (N, E + D)
        hidden, cell = self.decode_step(inputs, (hidden, cell))
        return State(hidden, cell, keys, values), alpha

    def forward(
        self, encoder_out: Tensor, captions: Tensor, caption_lengths: Tensor
    ) -> "DecoderOutput":
        """Score given captions: see `teacher_force`."""
        return teacher_force(self, encoder_out, captions, caption_lengths)

    def load_pretrained_embeddings(self, embeddings: Tensor) -> None:
        """Start from word vectors (V, E), in the word map's order."""
        V, E = self.embedding.weight.shape
        if (got := tuple(embeddings.shape)) != (V, E):
            raise ValueError(f"expected embeddings {(V, E)}, got {got}")
        self.embedding.weight.data.copy_(embeddings)

    def fine_tune_embeddings(self, on: bool = True) -> None:
        """Let training change the word vectors, or hold them fixed."""
        self.embedding.weight.requires_grad_(on)


def pack(padded: Tensor, lengths: Tensor) -> PackedSequence:
    """Leave out the padding of (N, steps, ...); lengths in any order."""
    return pack_padded_sequence(
        padded, lengths, batch_first=True, enforce_sorted=False
    )


class DecoderOutput(NamedTuple):
    """A teacher-forced pass. `pad_packed_sequence` restores the order."""

    logits: PackedSequence  # data (tokens, V), before softmax
    targets: PackedSequence  # data (tokens,) int64
    alphas: Tensor  # (N, max length - 1, P), zero past a caption's end


def teacher_force(
    decoder: DecoderWithAttention,
    encoder_out: Tensor,
    captions: Tensor,
    caption_lengths: Tensor,
) -> DecoderOutput:
    """Score given captions, reading the true words.

    Args:
        encoder_out: (B, P, D) or (B, height, width, D) float.
        captions: (N, T) int64, n = N / B per image, in the images' order.
        caption_lengths: (N,) int64, counting `<start>` and `<end>`.

    Raises:
        ValueError: if N isn't a multiple of B, or a length isn't in 2 to T.
    """
    B, (N, T) = len(encoder_out), captions.shape
    n, rest = divmod(N, B)
    if rest or n == 0:
        raise ValueError(f"expected a multiple of {B} captions, got {N}")
    steps = caption_lengths.cpu() - 1  # (N,); nothing follows <end>
    if steps.shape != (N,) or steps.min() < 1 or steps.max() >= T:
        raise ValueError(f"expected {N} lengths from 2 to {T}")

    longest, images = steps.view(B, n).amax(dim=1).sort(descending=True)
    images = images.to(captions.device)
    rows = torch.arange(N, device=images.device).view(B, n)[images].flatten()
    state = decoder.begin(encoder_out).select(rows // n, images)
    embedded = decoder.embedding(captions[rows])  # (N, T, E)

    hiddens, alphas = [], []
    for t in range(int(longest[0])):
        running = int((longest > t).sum())  # images, n captions each
        memory = [tensor[: running * n] for tensor in state[:2]]
        grids = [tensor[:running] for tensor in state[2:]]
        words = embedded[: running * n, t]
        state, alpha = decoder.look(words, State(*memory, *grids))
        hiddens.append(state.hidden)
        alphas.append(alpha)

    # Lists of (running * n, H) become (N, steps, H), with zeros for the rest.
    place = rows.argsort()  # back to the caller's order
    hidden = pack(pad_sequence(hiddens)[place], steps)
    alpha = pack(pad_sequence(alphas)[place], steps)
    logits = decoder.fc(decoder.dropout(hidden.data))  # (tokens, V), at once
    return DecoderOutput(
        hidden._replace(data=logits),
        pack(captions[:, 1:], steps),
        pad_packed_sequence(alpha, batch_first=True)[0],
    )
