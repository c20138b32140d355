# ---
# jupyter:
#   captionlib:
#     module: training
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
# # Training
#
# The decoder can write as soon as it is built, and what it writes is nonsense. *What exactly do
# we reward, how do we know when to stop, and how much of a caption can be learned in the time it
# takes to drink a coffee?*

# %%
#| export
import math
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import NamedTuple
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset
from captionlib.config import TrainConfig
from captionlib.decoder import DecoderOutput
from captionlib.model import CaptionModel


class CaptionLoss(NamedTuple):
    """What is minimised, and its parts."""

    total: Tensor  # scalar, with a gradient
    nats: Tensor  # scalar: cross-entropy a token, never smoothed
    penalty: Tensor  # scalar: mean of (1 - a grid cell's total attention)^2


# %%
#| export
def caption_loss(
    output: DecoderOutput,
    alpha_c: float = 1.0,
    label_smoothing: float = 0.0,
    tokens: float | None = None,
    captions: float | None = None,
) -> CaptionLoss:
    """Cross-entropy over real tokens plus doubly stochastic attention.

    Args:
        output: of a teacher-forced pass.
        alpha_c: weight of the penalty, a mean over captions and grid
            cells as in the original tutorial. The paper sums it over
            cells, beside a sum over words: about P / T times as strong.
        label_smoothing: share of each target spread over the vocabulary.
        tokens, captions: divide by these counts instead of the batch's
            own, where the batch is part of a larger one.

    Source: Xu et al. 2015 (arXiv:1502.03044), equation 14.
    """
    log_probs = output.logits.data.float().log_softmax(dim=1)  # (tokens, V)
    targets, alphas = output.targets.data, output.alphas
    tokens, captions = tokens or len(targets), captions or len(alphas)
    nll = F.nll_loss(log_probs, targets, reduction="sum") / tokens
    uniform_ce = -log_probs.mean(dim=1).sum() / tokens
    penalty = (1 - alphas.sum(dim=1)).square().mean(dim=1).sum() / captions
    smoothed = (1 - label_smoothing) * nll + label_smoothing * uniform_ce
    total = smoothed + alpha_c * penalty
    return CaptionLoss(total, nll.detach(), penalty.detach())


# %%
#| export
def make_optimizer(
    model: CaptionModel, config: TrainConfig
) -> torch.optim.Optimizer:
    """Adam over the weights that may change, the encoder's at their own rate."""
    encoder = set(model.encoder.parameters())
    free = [weight for weight in model.parameters() if weight.requires_grad]
    parts = [
        ([w for w in free if w not in encoder], config.learning_rate),
        ([w for w in free if w in encoder], config.encoder_learning_rate),
    ]
    groups = [
        {"params": weights, "lr": rate, "full_rate": rate}
        for weights, rate in parts
        if weights
    ]
    decay = config.weight_decay
    return torch.optim.AdamW(groups, weight_decay=decay, fused=True)


# %%
#| export
def set_rates(optimizer: torch.optim.Optimizer, factor: float) -> None:
    """Use this share of each group's full learning rate from now on."""
    for group in optimizer.param_groups:
        group["lr"] = factor * group["full_rate"]


# %%
#| export
def stale_epochs(history: list[dict]) -> int:
    """How many epochs ago BLEU-4 was last better than ever before."""
    scores = [epoch["bleu4"] for epoch in history]
    return len(scores) - 1 - scores.index(max(scores)) if scores else 0


# %%
#| export
def rate_factor(
    config: TrainConfig, history: list[dict], progress: float
) -> float:
    """The share of the full learning rates to use now.

    Args:
        config: its `schedule` decides.
        history: one dict for each epoch so far, each with "bleu4".
        progress: 0 at the first step of the training, 1 at the last.

    Source: one_cycle is Smith and Topin 2017 (arXiv:1708.07120), cosine.
    """
    if config.schedule == "one_cycle":
        if progress < 0.3:
            return 0.52 - 0.48 * math.cos(math.pi * progress / 0.3)
        return (1 + math.cos(math.pi * (progress - 0.3) / 0.7)) / 2
    stale = [stale_epochs(history[: n + 1]) for n in range(len(history))]
    cuts = sum(n > 0 and n % config.decay_after == 0 for n in stale)
    return config.decay**cuts


# %%
#| export
def is_over(config: TrainConfig, history: list[dict]) -> bool:
    """All epochs are done, or BLEU-4 has not risen for too many."""
    done = len(history) >= config.epochs
    return done or stale_epochs(history) >= config.patience


# %%
#| export
def seed_of(*place: int) -> int:
    """A seed for a place in a training, unrelated to its neighbours'."""
    return Random(repr(place)).getrandbits(32)


# %%
#| export
def epoch_loader(
    dataset: Dataset, config: TrainConfig, epoch: int
) -> DataLoader:
    """Batches of `dataset` in an order that depends on seed and epoch."""
    generator = torch.Generator().manual_seed(seed_of(config.seed, epoch))
    order = torch.randperm(len(dataset), generator=generator).tolist()
    return DataLoader(dataset, config.batch_size, sampler=order)


# %%
#| export
def update(
    model: CaptionModel,
    loss: Tensor,
    optimizer: torch.optim.Optimizer,
    config: TrainConfig,
) -> None:
    """One step down the gradient, which is clipped to a length."""
    optimizer.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), config.max_grad_norm)
    optimizer.step()


# %%
#| export
def train_one_epoch(
    model: CaptionModel,
    loader: DataLoader,
    optimizer: torch.optim.Optimizer,
    config: TrainConfig,
    history: list[dict],
    device: torch.device | str = "cpu",
) -> float:
    """Run over the training data once. Returns nats a token.

    Args:
        loader: of images (B, ...), captions (B, n, T), lengths (B, n).
        history: of the epochs before this one.

    Raises:
        FloatingPointError: if a loss is not finite, naming the step.
    """
    model.train()
    epoch, nats, tokens = len(history), 0.0, 0
    for step, (images, captions, lengths) in enumerate(loader):
        progress = (epoch + step / len(loader)) / config.epochs
        set_rates(optimizer, rate_factor(config, history, progress))
        # What is dropped depends on the step's place in the training.
        torch.manual_seed(seed_of(config.seed, epoch, step))
        captions = captions.flatten(0, -2).to(device)
        output = model(images.to(device), captions, lengths.flatten())
        loss = caption_loss(output, config.alpha_c, config.label_smoothing)
        if not loss.total.isfinite():
            raise FloatingPointError(
                f"epoch {epoch + 1}, step {step + 1}: the loss is "
                f"{float(loss.total)}; try a lower learning rate"
            )
        update(model, loss.total, optimizer, config)
        count = len(output.targets.data)
        nats, tokens = nats + count * float(loss.nats), tokens + count
    return nats / tokens


# %%
#| export
@torch.inference_mode()
def validation_nats(
    model: CaptionModel,
    loader: DataLoader,
    device: torch.device | str = "cpu",
) -> float:
    """Cross-entropy in nats a token on captions not trained on."""
    model.eval()
    nats, tokens = 0.0, 0
    for images, captions, lengths in loader:
        captions = captions.flatten(0, -2).to(device)
        output = model(images.to(device), captions, lengths.flatten())
        count = len(output.targets.data)
        nats += count * float(caption_loss(output).nats)
        tokens += count
    return nats / tokens


# %%
#| export
def save_checkpoint(
    path: Path,
    model: CaptionModel,
    optimizer: torch.optim.Optimizer,
    history: list[dict],
) -> None:
    """Write all it takes to go on after an epoch."""
    state = {
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "history": history,
    }
    torch.save(state, path)


# %%
#| export
def load_checkpoint(
    path: Path, model: CaptionModel, optimizer: torch.optim.Optimizer
) -> list[dict]:
    """Put model and optimizer back. Returns the history."""
    state = torch.load(path, weights_only=True)
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    return state["history"]


# %%
#| export
def train(
    model: CaptionModel,
    dataset: Dataset,
    evaluate: Callable[[CaptionModel], dict[str, float]],
    config: TrainConfig,
    folder: str | Path,
    device: torch.device | str = "cpu",
) -> list[dict]:
    """Train `model`; keep the best one and the last one in `folder`.

    Args:
        dataset: its items are (image or grid, captions, lengths).
        evaluate: scores a model in eval mode on captions it wrote freely;
            must return "bleu4".
        folder: written to: `best/`, a model, and `last.pt`, a checkpoint.
            A checkpoint that is there already is resumed.

    Returns:
        the history: one dict for each epoch, with "nats" and the scores.

    Raises:
        FloatingPointError: if a loss is not finite.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    optimizer, history = make_optimizer(model.to(device), config), []
    if (folder / "last.pt").exists():
        history = load_checkpoint(folder / "last.pt", model, optimizer)
    while not is_over(config, history):
        loader = epoch_loader(dataset, config, len(history))
        nats = train_one_epoch(
            model, loader, optimizer, config, history, device
        )
        scores = evaluate(model.eval())
        history.append({"epoch": len(history) + 1, "nats": nats, **scores})
        if stale_epochs(history) == 0:  # better than ever before
            model.save(folder / "best")
        save_checkpoint(folder / "last.pt", model, optimizer, history)
    return history


# %% [markdown]
# What each process drops out is its own, so with dropout the runs of one and of two processes differ as
# two seeds do. The validation images are shared out too, and the captions gathered, so that
# each counts once; only one process writes files. [Several machines](../book/machines.md) says what
# to type.
#
# ## Departures
#
# From the **original tutorial**: captions that are judged were written freely; the gradient is
# shortened as a whole, where there each of its numbers is cut at five; a checkpoint is numbers and
# JSON, not a pickled program; and an image comes with all its captions at once. From the **paper**:
# Adam for every data set, and means in the loss where the paper has sums.
#
# ## Summary
#
# - Reward the next word, ask the attention to look everywhere once, and judge by captions written
#   freely.
# - Write everything down now and then, whole or not at all.
# - Let the random numbers depend on seed and place alone: then stopping costs nothing.
#
# ## Exercises
#
# Each cell below has a gap. Run as it is, it says *not yet*; filled in, it says what is wrong, or that
# it is right. Hints and solution are folded under it.
#
# ### 05.1 The loss of a padded batch
#
# Without packed sequences the padding must be kept out of the loss by hand. Compute the mean
# cross-entropy, in nats a token, over the real steps of a padded batch: caption $i$ has
# `decode_lengths[i]` of them, and each token counts the same.

# %% tags=["exercise"]
import torch
from torch.nn import functional as F

from captionlib.exercises import check


def padded_loss(logits, targets, decode_lengths):  # (B, T, V), (B, T), (B,)
    return ...  # nats a token


check("05.1", padded_loss)

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# `F.cross_entropy(..., reduction="none")` gives the surprise at every place, padding included. It wants
# the classes on axis 1: `logits.flatten(0, 1)` and `targets.flatten()` bring them there.
#
# </details>
#
# <details><summary>Hint 2</summary>
#
# `torch.arange(T)` compared with `decode_lengths.unsqueeze(1)` tells for each place whether it is real.
# What do you divide the sum of the real ones by?
#
# </details>
#
# <details><summary>Solution</summary>
#
# ```python
# def padded_loss(logits, targets, decode_lengths):
#     rows, words = logits.flatten(0, 1), targets.flatten()
#     surprise = F.cross_entropy(rows, words, reduction="none")  # (B * T,)
#     real = torch.arange(targets.shape[1]) < decode_lengths.unsqueeze(1)  # (B, T)
#     return surprise[real.flatten()].mean()
# ```
#
# Averaged over padding too, the loss would be smaller for a batch with one long caption, without anything
# having been learned. Averaged caption by caption, the words of short captions would count for more.
#
# </details>
#
# ### 05.2 Looking everywhere once
#
# Compute the doubly stochastic penalty: how far is each pixel's attention, summed over the steps, from 1?
# Square that, and take the mean over captions and pixels.

# %% tags=["exercise"]
from captionlib.exercises import check


def penalty(alphas):  # (B, steps, P), zero past a caption's end
    return ...  # one number


check("05.2", penalty)

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# Over which axis do the weights add up to 1 already, whatever the model does? A penalty on that sum would
# always be 0.
#
# </details>
#
# <details><summary>Hint 2</summary>
#
# The steps are axis 1, and `alphas.sum(dim=1)` has the shape (B, P). After the square, one `mean()`
# without an axis goes over captions and pixels together.
#
# </details>
#
# <details><summary>Solution</summary>
#
# ```python
# def penalty(alphas):
#     return (1 - alphas.sum(dim=1)).square().mean()
# ```
#
# Summed over steps, (B, P) is left: how long each pixel was looked at. The paper sums over the pixels where
# this takes the mean, which makes its penalty P times as large.
#
# </details>
#
# ### 05.3 One length for all gradients
#
# When the gradients of all parameters *together*, as one long vector, are longer than `max_norm`, shorten
# them to that length, all by the same factor. Otherwise leave them as they are.

# %% tags=["exercise"]
import torch

from captionlib.exercises import check


def clip(gradients, max_norm):  # a list of tensors of any shapes
    return ...  # a list of new tensors


check("05.3", clip)

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# The length of a vector is the root of the sum of its squares; and the squares of all tensors go into one
# sum.
#
# </details>
#
# <details><summary>Hint 2</summary>
#
# The factor is `max_norm / length`, but never more than 1.
#
# </details>
#
# <details><summary>Solution</summary>
#
# ```python
# def clip(gradients, max_norm):
#     length = torch.sqrt(sum(gradient.square().sum() for gradient in gradients))
#     factor = min(1.0, max_norm / length)
#     return [gradient * factor for gradient in gradients]
# ```
#
# One factor keeps the direction of the step. Clipping each tensor, or each number, would turn it.
#
# </details>
#
# ### 05.4 When is the rate cut?
#
# The plateau schedule cuts the rate each time that `decay_after` epochs have gone by without a BLEU-4
# better than every one before; as good is not better. After a cut, and after a better score, the count
# begins again. Given the scores of the epochs so far, how often has the rate been cut?

# %% tags=["exercise"]
from captionlib.exercises import check


def cuts(scores, decay_after):
    return ...  # a whole number


check("05.4", cuts)

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# Go through the scores and keep three things: the best so far, how many epochs have passed since it or
# the last cut, and the number of cuts.
#
# </details>
#
# <details><summary>Hint 2</summary>
#
# With `float("-inf")` for the first best, every score is either `> best`, and then best and count
# start anew, or it adds 1 to the count. When the count reaches `decay_after`, two things happen to
# two of the three numbers.
#
# </details>
#
# <details><summary>Solution</summary>
#
# ```python
# def cuts(scores, decay_after):
#     best, stale, cut = float("-inf"), 0, 0
#     for score in scores:
#         if score > best:
#             best, stale = score, 0
#         else:
#             stale += 1
#             if stale == decay_after:
#                 cut, stale = cut + 1, 0
#     return cut
# ```
#
# With scores of 5, 4, 6, the third is better than all before, and the count begins anew, although the
# second was a step back. Compared with the epoch before only, a score that goes up and down would never
# be stale.
#
# </details>
#
# ### 05.5 A little less teaching
#
# Scheduled sampling {cite}`bengio2015` sometimes feeds the model its own last word. Mix the two: each
# caption of the batch gets its own word with the probability `p`, by a coin of its own, and the true word
# otherwise.

# %% tags=["exercise"]
import torch

from captionlib.exercises import check


def next_input(true_words, own_words, p):  # (B,), (B,), a number from 0 to 1
    return ...  # (B,)


check("05.5", next_input)

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# `torch.rand(B)` are B numbers between 0 and 1. How often is one of them smaller than p?
#
# </details>
#
# <details><summary>Hint 2</summary>
#
# `torch.where(condition, a, b)` takes from `a` where the condition holds, and from `b` elsewhere.
#
# </details>
#
# <details><summary>Solution</summary>
#
# ```python
# def next_input(true_words, own_words, p):
#     own = torch.rand(len(true_words)) < p
#     return torch.where(own, own_words, true_words)
# ```
#
# `rand` never gives 1, so `p = 1` always takes the model's own word and `p = 0` never does.
#
# </details>
#
# ### Without a checker, for a longer afternoon
#
# - Set `alpha_c` to 0 and to 10. How do `penalty` and BLEU-4 move? Draw `alphas.sum(1)` of one caption in
#   both cases.
# - Print the nats a token of the *validation* captions after each epoch. Does their minimum fall together
#   with the best BLEU-4? The paper's authors saw the two part company.
# - With `epochs=3`, what BLEU-4 do 300 scenes give? And 600? What would more data buy?
