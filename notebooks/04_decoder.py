# ---
# jupyter:
#   captionlib:
#     module: decoder
#   jupytext:
#     formats: ipynb,py:percent
#     notebook_metadata_filter: captionlib
#     text_representation:
#       extension: .py
#       format_name: percent
#       format_version: '1.3'
#       jupytext_version: 1.19.6
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # The decoder, with packed sequences
#
# A caption is written one word at a time, and captions differ in length. *How do you train on
# thirty-two of them at once without paying for the words that aren't there?*

# %%
#| export
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


class State(NamedTuple):
    """Where the decoder stands: its memory, and the images it looks at."""

    hidden: Tensor  # (N, H), N captions, the same number for each image
    cell: Tensor  # (N, H)
    keys: Tensor  # (B, P, A)
    values: Tensor  # (B, P, D)

    def select(self, rows: Tensor, images: Tensor | None = None) -> "State":
        """Keep the captions `rows` (N,) and the `images` (B,); None: all."""
        # Unlike indexing by [], this sums gradients in one fixed order.
        kept = [tensor.index_select(0, rows) for tensor in self[:2]]
        if images is None:
            return State(*kept, *self[2:])
        return State(
            *kept, *(grid.index_select(0, images) for grid in self[2:])
        )


# %%
#| export
class DecoderOutput(NamedTuple):
    """A teacher-forced pass. `pad_packed_sequence` restores the order."""

    logits: PackedSequence  # data (tokens, V), before softmax
    targets: PackedSequence  # data (tokens,) int64
    alphas: Tensor  # (N, max length - 1, P), zero past a caption's end


# %%
#| export
class DecoderWithAttention(nn.Module):
    """An LSTM that looks at the image before every word.

    As in the original tutorial and unlike the paper, the attention has a
    ReLU, the gate beta is a vector, and there is no deep output layer.

    Source: Xu et al. 2015 (arXiv:1502.03044), sections 3.1.2 and 4.2.
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
        for weight in (self.embedding.weight, self.fc.weight):
            nn.init.uniform_(weight, -0.1, 0.1)
        nn.init.zeros_(self.fc.bias)

    def begin(self, encoder_out: Tensor) -> State:
        """The state before the first word, one caption for each image.

        Args:
            encoder_out: (B, P, D) or (B, height, width, D) float.
        """
        if encoder_out.dim() == 4:
            encoder_out = encoder_out.flatten(1, 2)
        mean = encoder_out.mean(dim=1)
        return State(
            self.init_h(mean),
            self.init_c(mean),
            self.attention.keys(encoder_out),
            encoder_out,
        )

    def step(self, words: Tensor, state: State) -> tuple[Tensor, Tensor, State]:
        """Read one word, look once, score the next word.

        Args:
            words: (N,) int64, the last word of each caption.
            state: of these captions.

        Returns:
            logits (N, V); alpha (N, P); the new state.
        """
        state, alpha = self.look(self.embedding(words), state)
        return self.fc(self.dropout(state.hidden)), alpha, state

    def look(self, embedded: Tensor, state: State) -> tuple[State, Tensor]:
        """`step` without its ends: words come as vectors (N, E)."""
        hidden, cell, keys, values = state
        context, alpha = self.attention(hidden, keys, values)
        beta = torch.sigmoid(self.f_beta(hidden))  # (N, D)
        inputs = torch.cat([embedded, beta * context], dim=1)  # (N, E + D)
        hidden, cell = self.decode_step(inputs, (hidden, cell))
        return State(hidden, cell, keys, values), alpha

    def forward(
        self, encoder_out: Tensor, captions: Tensor, caption_lengths: Tensor
    ) -> DecoderOutput:
        """Score given captions, feeding the true words (teacher forcing).

        Args:
            encoder_out: (B, P, D) or (B, height, width, D) float.
            captions: (N, T) int64, n = N / B for each image, in its order.
            caption_lengths: (N,) int64, counting `<start>` and `<end>`.

        Raises:
            ValueError: if N is no multiple of B, or a length is not in
                2 to T.
        """
        B, (N, T) = len(encoder_out), captions.shape
        n, rest = divmod(N, B)
        if rest or n == 0:
            raise ValueError(f"expected a multiple of {B} captions, got {N}")
        steps = caption_lengths.cpu() - 1  # (N,); nothing follows <end>
        if steps.shape != (N,) or steps.min() < 1 or steps.max() >= T:
            raise ValueError(f"expected {N} lengths from 2 to {T}")

        # Sort images by their longest caption: at every step those that
        # still run stand in front, each with all its n captions.
        longest, images = steps.view(B, n).amax(dim=1).sort(descending=True)
        images = images.to(captions.device)
        rows = images.unsqueeze(1) * n + torch.arange(n, device=images.device)
        rows = rows.flatten()  # (N,), the caption in each row
        state = self.begin(encoder_out).select(rows // n, images)
        embedded = self.embedding(captions[rows])  # (N, T, E)

        hiddens, alphas = [], []
        for t in range(int(longest[0])):
            running = int((longest > t).sum())
            state = State(
                state.hidden[: running * n],
                state.cell[: running * n],
                state.keys[:running],
                state.values[:running],
            )
            state, alpha = self.look(embedded[: running * n, t], state)
            hiddens.append(state.hidden)
            alphas.append(alpha)

        def pack(tensor: Tensor) -> PackedSequence:
            return pack_padded_sequence(
                tensor, steps, batch_first=True, enforce_sorted=False
            )

        # Padded along the rows, the steps make (N, steps, ...); then back
        # to the caller's order, and what lies past a caption's end goes.
        place = rows.argsort()
        hidden = pack(pad_sequence(hiddens)[place])
        alpha = pack(pad_sequence(alphas)[place])
        logits = self.fc(self.dropout(hidden.data))  # (tokens, V), at once
        return DecoderOutput(
            hidden._replace(data=logits),
            pack(captions[:, 1:]),
            pad_packed_sequence(alpha, batch_first=True)[0],
        )

    def load_pretrained_embeddings(self, embeddings: Tensor) -> None:
        """Start from word vectors (V, E), in the word map's order.

        Raises:
            ValueError: if their shape is another.
        """
        expected = tuple(self.embedding.weight.shape)
        if embeddings.shape != expected:
            got = tuple(embeddings.shape)
            raise ValueError(f"expected embeddings {expected}, got {got}")
        self.embedding.weight.data.copy_(embeddings)

    def fine_tune_embeddings(self, on: bool = True) -> None:
        """Let training change the word vectors, or hold them fixed."""
        self.embedding.weight.requires_grad_(on)


# %% [markdown]
# ## Departures
#
# From the **original tutorial**: what need not be in the loop is out of it, the caller's order is
# restored, and the vocabulary travels with the model. Layers, their names and their results are the
# same. From the **paper**, as there: a ReLU in the attention, a vector for the gate, one linear layer
# for each half of the first state, and no deep output layer.
# [From the paper to the code](../book/paper.md) goes through them, equation by equation.
#
# ## Summary
#
# - The decoder looks, gates, and steps.
# - What doesn't depend on the last state, the image's projection and the vocabulary's scores, is
#   computed outside the loop.
# - Sorting by length turns "captions still running" into a slice, and a packed sequence is that idea
#   with a name.
# - One `step` serves training and every kind of search.
#
# ## Exercises
#
# Each cell below has a gap. Run as it is, it says *not yet*; filled in, it says what is wrong, or that
# it is right. Hints and solution are folded under it.
#
# ### 04.1 What goes in, what should come out
#
# Teacher forcing needs three things from a batch of captions: the words that go in at each step, the
# words that should come out, and the number of steps of each caption, whose
# length counts `<start>` and `<end>`. Step $t$ reads word $t$ and should
# say word $t + 1$. Nothing follows `<end>`.

# %% tags=["exercise"]
from captionlib.exercises import check


def teach(captions, caption_lengths):  # (B, T), (B,)
    inputs, targets, decode_lengths = ..., ..., ...
    return inputs, targets, decode_lengths  # (B, T - 1) twice, (B,)


check("04.1", teach)

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# Write `<start> a dog <end>` on one line and, below it, what should be said after each word. How are the
# two lines shifted?
#
# </details>
#
# <details><summary>Hint 2</summary>
#
# `captions[:, :-1]` leaves the last column out, `captions[:, 1:]` the first.
#
# </details>
#
# <details><summary>Solution</summary>
#
# ```python
# def teach(captions, caption_lengths):
#     inputs, targets = captions[:, :-1], captions[:, 1:]
#     return inputs, targets, caption_lengths - 1
# ```
#
# A caption of $n$ words with its `<start>` and `<end>` has $n + 2$ tokens and $n + 1$ steps. Forget the
# shift, and the model learns quickly and perfectly to repeat the word it has just read.
#
# </details>
#
# ### 04.2 How many are still running?
#
# From the lengths of the captions in a batch, `<start>` and `<end>` included, work out the effective
# batch size of each step. The captions are in no order.

# %% tags=["exercise"]
from captionlib.exercises import check


def effective_batch_sizes(caption_lengths):  # whole numbers
    return ...  # a list, one number for each step


check("04.2", effective_batch_sizes)

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# A caption of length 4 takes three steps: 0, 1 and 2. For which `t` is it running?
#
# </details>
#
# <details><summary>Hint 2</summary>
#
# Count in a sum: `sum(length > t for length in decode_lengths)`. How many steps does the longest take?
#
# </details>
#
# <details><summary>Solution</summary>
#
# ```python
# def effective_batch_sizes(caption_lengths):
#     decode_lengths = [length - 1 for length in caption_lengths]
#     steps = range(max(decode_lengths))
#     return [sum(length > t for length in decode_lengths) for t in steps]
# ```
#
# Their sum is the number of tokens that are predicted, and the length of a packed sequence's `data`.
#
# </details>
#
# ### 04.3 What does the vector gate cost?
#
# The gate is `nn.Linear(decoder_dim, encoder_dim)`; the paper's has a single output. At the original's
# sizes, H = 512 and D = 2048, how many parameters does the paper's gate save?

# %% tags=["exercise"]
from captionlib.exercises import check

saved = ...  # a whole number

check("04.3", saved)

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# A linear layer has a weight for each pair of an input and an output, and a bias for each output.
#
# </details>
#
# <details><summary>Hint 2</summary>
#
# The vector gate has `512 * 2048` weights and one bias for each of its 2,048 outputs. Count the
# paper's gate in the same way, with one output, and subtract.
#
# </details>
#
# <details><summary>Solution</summary>
#
# ```python
# vector = 512 * 2048 + 2048
# scalar = 512 * 1 + 1
# saved = vector - scalar
# ```
#
# About as many as an embedding of two thousand words has.
#
# </details>
#
# ### 04.4 One matrix for reading and for saying
#
# With E = H, the embedding (V, E) and the weight of `fc` (V, H) have the same shape. *Weight tying* makes
# them the same parameter: a word that was read teaches the model how to say it. Tie `fc` to the
# embedding, whose values are to be kept, and give `fc` back.

# %% tags=["exercise"]
from captionlib.exercises import check


def tie(embedding, fc):  # nn.Embedding(V, E), nn.Linear(E, V)
    return ...  # fc


check("04.4", tie)

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# Copied numbers are equal until the first step of the optimizer. Both modules have to hold one and the
# same `nn.Parameter`.
#
# </details>
#
# <details><summary>Hint 2</summary>
#
# A parameter of a module is an attribute like any other, and can be assigned.
#
# </details>
#
# <details><summary>Solution</summary>
#
# ```python
# def tie(embedding, fc):
#     fc.weight = embedding.weight
#     return fc
# ```
#
# The gradient of the one parameter is the sum of both uses, and `model.parameters()` lists it once, so
# the optimizer moves it once.
#
# </details>
#
# ### 04.5 Let it speak
#
# Now without the true words. `step(word, state)` takes the last word and the state, and gives logits
# (V,) and a new state; at the start there is no state yet, so it takes `None`. Begin with the id `start`,
# choose the likeliest word each time, and stop at `end`, or after `most` words.

# %% tags=["exercise"]
from captionlib.exercises import check


def speak(step, start, end, most):
    return ...  # a list of ids, without start and end


check("04.5", speak)

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# Two things are carried from one turn of the loop to the next. Which?
#
# </details>
#
# <details><summary>Hint 2</summary>
#
# `int(logits.argmax())` is the likeliest word. Ask whether it is `end` before you append it.
#
# </details>
#
# <details><summary>Solution</summary>
#
# ```python
# def speak(step, start, end, most):
#     word, state, words = start, None, []
#     while len(words) < most:
#         logits, state = step(word, state)
#         word = int(logits.argmax())
#         if word == end:
#             break
#         words.append(word)
#     return words
# ```
#
# That is greedy search. In training the next input comes from the caption, here from the model itself;
# everything else is the same `step`.
#
# </details>
#
# ### Without a checker, for a longer afternoon
#
# - The word's half of the LSTM's input product does not depend on the state either. Move it out of the
#   loop. How much faster is a training step? Why does `step` then no longer serve search?
# - The paper's equation 7 scores words from $E y_{t-1} + L_h h_t + L_z z_t$ instead of from $h_t$ alone.
#   Write `word_logits` that way. What must `step` return now?
# - Train nothing, but set `f_beta.bias` to −20. What does the decoder see of the picture?
