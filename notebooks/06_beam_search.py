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
#       jupytext_version: 1.19.6
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

# %%
#| export
import math
from typing import NamedTuple
import torch
from torch import Tensor
from captionlib.config import SearchConfig
from captionlib.data import Vocabulary
from captionlib.decoder import DecoderWithAttention


class Hypothesis(NamedTuple):
    """A caption that a search found."""

    word_ids: list[int]  # without <start> and <end>
    log_prob: float  # raw sum in nats, <end> included if it was reached
    alphas: Tensor  # (words, P) float on the CPU; rows sum to 1
    finished: bool  # False: it never came to <end>


# %%
#| export
class Beam(NamedTuple):
    """The live prefixes of B images, k places for each."""

    words: Tensor  # (B, k, t) int64, from <start> on
    scores: Tensor  # (B, k) log-probabilities; -inf marks an empty place
    alphas: Tensor  # (B, k, t - 1, P)


# %%
#| export
def extend(
    beam: Beam, log_probs: Tensor, alpha: Tensor, count: int
) -> tuple[Beam, Tensor]:
    """Each image's best continuations, all of its prefixes competing.

    Args:
        beam: B images with k prefixes each.
        log_probs: (B * k, V), of the next word.
        alpha: (B * k, P), where the decoder looked.
        count: how many to keep, K.

    Returns:
        the beam of longer prefixes (B, K), best first; and for each of
        them the row, of B * k, that it continues.
    """
    (B, k), V = beam.scores.shape, log_probs.shape[1]
    totals = beam.scores.unsqueeze(2) + log_probs.view(B, k, V)
    scores, position = totals.flatten(1).topk(min(count, k * V))  # (B, K)
    first_row = k * torch.arange(B, device=scores.device).unsqueeze(1)
    rows, words = first_row + position // V, position % V
    words = torch.cat([beam.words.flatten(0, 1)[rows], words[..., None]], 2)
    alphas = [beam.alphas.flatten(0, 1)[rows], alpha[rows].unsqueeze(2)]
    return Beam(words, scores, torch.cat(alphas, dim=2)), rows


# %%
#| export
def repeats(words: list[int], n: int) -> list[int]:
    """The words that would complete a run of n words for the second time.

    Source: Paulus et al. 2018 (arXiv:1705.04304), section 2.5.
    """
    start = len(words) - n + 1
    return [
        words[i + n - 1]
        for i in range(start)
        if words[i : i + n - 1] == words[start:]
    ]


# %%
#| export
def forbid(
    log_probs: Tensor,
    prefixes: Tensor,
    vocabulary: Vocabulary,
    config: SearchConfig,
) -> None:
    """Rule out, in place, what may not follow: (N, V) for (N, t)."""
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
#| export
class Finished:
    """The finished captions of one image, the best `wanted` of them."""

    def __init__(self, wanted: int):
        self.wanted, self.count = wanted, 0
        self.best: list[tuple[float, Hypothesis]] = []

    def add(self, score: float, caption: Hypothesis) -> None:
        self.count += 1
        self.best.append((score, caption))
        self.best.sort(key=lambda pair: -pair[0])
        del self.best[self.wanted :]

    def bar(self) -> float:
        """What a live prefix must still be able to beat."""
        full = len(self.best) == self.wanted
        return self.best[-1][0] if full else -math.inf


# %%
#| export
def hypothesis(beam: Beam, image: int, place: int, end: int) -> Hypothesis:
    """Take one caption out of a beam."""
    words = beam.words[image, place, 1:].tolist()
    finished = bool(words) and words[-1] == end
    words = words[:-1] if finished else words
    return Hypothesis(
        words,
        float(beam.scores[image, place]),
        beam.alphas[image, place, : len(words)].float().cpu(),
        finished,
    )


# %%
#| export
def unfinished(beam: Beam, image: int, end: int, finished: Finished) -> list:
    """What to answer for want of finished captions: the live prefixes."""
    said = [caption.word_ids for _, caption in finished.best]
    live = (beam.scores[image] > -math.inf).nonzero().flatten().tolist()
    left = [hypothesis(beam, image, place, end) for place in live]
    return [caption for caption in left if caption.word_ids not in said]


# %%
#| export
def settle(
    longer: Beam, finished: list[Finished], config: SearchConfig, end: int
) -> Tensor:
    """Put aside what has come to `<end>`. Which prefixes go on?

    Args:
        longer: from `extend`; empty places are marked in its scores.
        finished: of each image; a caption in there keeps a place.
        config: of the search.
        end: the id of `<end>`.

    Returns:
        (B, K) bool, True where a prefix can still win.
    """
    B, K, length = longer.words.shape
    length -= 1  # of captions, <end> counted and <start> not
    power, longest = config.length_normalisation, config.max_words + 1
    device = longer.scores.device
    taken = torch.tensor([[each.count] for each in finished], device=device)
    place = torch.arange(K, device=device)
    longer.scores[place >= config.beam_size - taken] = -math.inf
    ended = longer.words[:, :, -1] == end
    for b, k in (ended & (longer.scores > -math.inf)).nonzero().tolist():
        caption = hypothesis(longer, b, k, end)
        finished[b].add(caption.log_prob / length**power, caption)
    # At best, every word to come is certain and lowers no score.
    bar = torch.tensor([[each.bar()] for each in finished], device=device)
    live = ~ended & (longer.scores / longest**power > bar)
    return live & (length < longest)


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
    """Find likely captions for each image of a batch, all at once.

    A finished caption keeps its place in the beam, so fewer prefixes go
    on. An image is done when none can overtake its finished captions.

    Args:
        decoder: in eval mode.
        encoder_out: (B, P, D) or (B, height, width, D) float.
        vocabulary: the decoder's.
        config: a beam size of 1 is greedy search.
        captions: how many for each image, at most the beam size.

    Returns:
        for each image its captions, best first. Those that never came to
        `<end>` stand last, by their log-probability.

    Raises:
        ValueError: if `captions` is out of range, the decoder is in
            training mode, or its scores are not numbers.
    """
    if not 1 <= captions <= config.beam_size:
        raise ValueError(
            f"captions must be in 1 to {config.beam_size}, got {captions}"
        )
    if decoder.training:
        raise ValueError("the decoder is in training mode; call eval() first")
    if len(encoder_out) == 0:
        return []
    end, state = vocabulary.end, decoder.begin(encoder_out)
    B, P = state.values.shape[:2]
    device = state.values.device
    beam = Beam(
        torch.full((B, 1, 1), vocabulary.start, device=device),
        torch.zeros(B, 1, device=device),
        torch.zeros(B, 1, 0, P, device=device),
    )
    running = [Finished(captions) for _ in range(B)]
    left_over = {each: [] for each in running}  # in the images' order
    while running:
        words = beam.words[:, :, -1].flatten()
        logits, alpha, state = decoder.step(words, state)
        dtype = torch.promote_types(logits.dtype, torch.float32)
        log_probs = logits.log_softmax(dim=1, dtype=dtype)  # (B * k, V)
        if log_probs.isnan().any():
            raise ValueError("no caption: the decoder's scores are NaN")
        forbid(log_probs, beam.words.flatten(0, 1), vocabulary, config)
        longer, rows = extend(beam, log_probs, alpha, config.beam_size)
        live = settle(longer, running, config, end)
        for b, goes_on in enumerate(live.any(dim=1).tolist()):
            if not goes_on:
                left_over[running[b]] = unfinished(beam, b, end, running[b])

        go_on = live.any(dim=1).nonzero().flatten()  # (B',) images
        running = [running[b] for b in go_on.tolist()]
        if running:
            images = go_on.unsqueeze(1)
            places = live.int().argsort(dim=1, descending=True, stable=True)
            places = places[go_on, : int(live.sum(dim=1).max())]  # (B', k')
            longer.scores[~live] = -math.inf
            beam = Beam(*(tensor[images, places] for tensor in longer))
            all_go_on = len(go_on) == len(live)  # spares copying the grids
            state = state.select(
                rows[images, places].flatten(), None if all_go_on else go_on
            )
    return [
        [*(caption for _, caption in each.best), *rest][:captions]
        for each, rest in left_over.items()
    ]


# %%
#| export
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
