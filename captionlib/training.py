"""Training.

Chapter 05 of the book, notebooks/05_training.ipynb, explains this module and
generates it: edit the chapter, not this file, then run `make export`.
"""

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

__all__ = [
    "CaptionLoss",
    "caption_loss",
    "epoch_loader",
    "is_over",
    "load_checkpoint",
    "make_optimizer",
    "predict",
    "rate_factor",
    "save_checkpoint",
    "seed_of",
    "set_rates",
    "stale_epochs",
    "train",
    "train_one_epoch",
    "update",
    "validation_nats",
]


class CaptionLoss(NamedTuple):
    """What is minimised, and its parts."""

    total: Tensor  # scalar, with a gradient
    nats: Tensor  # scalar: cross-entropy a token, never smoothed
    penalty: Tensor  # scalar: mean of (1 - a grid cell's total attention)^2


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


def set_rates(optimizer: Optimizer, factor: float) -> None:
    """Use this share of each group's full learning rate from now on."""
    for group in optimizer.param_groups:
        group["lr"] = factor * group["full_rate"]


def stale_epochs(history: list[dict]) -> int:
    """How many epochs ago BLEU-4 was last better than ever before."""
    scores = [epoch["bleu4"] for epoch in history]
    return len(scores) - 1 - scores.index(max(scores)) if scores else 0


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


def is_over(config: TrainConfig, history: list[dict]) -> bool:
    """All epochs are done, or BLEU-4 hasn't risen for `patience` of them."""
    done = len(history) >= config.epochs
    return done or stale_epochs(history) >= config.patience


def seed_of(*place: int) -> int:
    """A seed for a place in a training run, unlike its neighbours'."""
    return Random(repr(place)).getrandbits(32)


def epoch_loader(
    dataset: Dataset, config: TrainConfig, epoch: int
) -> DataLoader:
    """Batches of `dataset` in an order that depends on seed and epoch."""
    generator = torch.Generator().manual_seed(seed_of(config.seed, epoch))
    order = torch.randperm(len(dataset), generator=generator).tolist()
    return DataLoader(dataset, config.batch_size, sampler=order)


def update(
    model: CaptionModel, loss: Tensor, optimizer: Optimizer, config: TrainConfig
) -> None:
    """Take a step along the gradient, clipped to `max_grad_norm`."""
    optimizer.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), config.max_grad_norm)
    optimizer.step()


def predict(
    model: CaptionModel, images: Tensor, captions: Tensor, lengths: Tensor
) -> DecoderOutput:
    """Run the model, teacher-forced, on its device: images or grids (B, ...),
    captions (B, n, T), lengths (B, n)."""
    device = next(model.parameters()).device
    captions = captions.flatten(0, -2).to(device)
    return model(images.to(device), captions, lengths.flatten())


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


def save_checkpoint(
    path: Path, model: CaptionModel, optimizer: Optimizer, history: list[dict]
) -> None:
    """Write all it takes to resume after an epoch."""
    state = {"model": model.state_dict(), "history": history}
    torch.save(state | {"optimizer": optimizer.state_dict()}, path)


def load_checkpoint(
    path: Path, model: CaptionModel, optimizer: Optimizer
) -> list[dict]:
    """Put model and optimizer back. Returns the history."""
    state = torch.load(path, weights_only=True)
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    return state["history"]


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
