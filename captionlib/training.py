"""Training.

Chapter 05 of the book, notebooks/05_training.ipynb, explains this module and
generates it: edit the chapter, not this file, then run `make export`.
"""

import json
import math
import time
from collections import Counter
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from matplotlib.figure import Figure
from safetensors.torch import load_file, save
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader
from tqdm.auto import tqdm

from captionlib.decoder import CaptionModel, DecoderOutput
from captionlib.files import (
    InputError,
    atomic_file,
    atomic_folder,
    read_json,
    recover_folder,
    write_json,
)

__all__ = [
    "CaptionLoss",
    "TrainConfig",
    "WeightAverage",
    "caption_loss",
    "draw_curve",
    "load_checkpoint",
    "make_loader",
    "make_optimizer",
    "rate_factor",
    "save_checkpoint",
    "stale_epochs",
    "teacher_forcing",
    "train",
    "train_one_epoch",
]


class CaptionLoss(NamedTuple):
    """What is minimised, and its parts."""

    total: Tensor  # scalar: cross-entropy, smoothed if asked for, plus alpha_c times the penalty
    nats: Tensor  # scalar: cross-entropy alone, nats a token, never smoothed
    penalty: Tensor  # scalar: mean squared distance of each pixel's total attention from 1


def caption_loss(
    output: DecoderOutput, *, alpha_c: float = 1.0, label_smoothing: float = 0.0
) -> CaptionLoss:
    """Cross-entropy over the real words, and doubly stochastic attention.

    Args:
        output: of a teacher-forced pass.
        alpha_c: weight of the penalty (1 - sum over steps of alpha)^2, averaged over captions and
            pixels as in the original tutorial. The paper sums it over pixels, beside a sum over
            words: relative to the words that is about P / T times as strong.
        label_smoothing: share of each target spread evenly over the vocabulary.

    Source: Xu et al. 2015 (arXiv:1502.03044), section 4.2.1, equation 14.
    """
    log_probs = output.logits.data.float().log_softmax(dim=1)  # (tokens, V)
    nats = F.nll_loss(log_probs, output.targets.data)
    smoothed = (1 - label_smoothing) * nats - label_smoothing * log_probs.mean()
    penalty = (1 - output.alphas.sum(dim=1)).square().mean()
    return CaptionLoss(smoothed + alpha_c * penalty, nats.detach(), penalty.detach())


@dataclass(frozen=True)
class TrainConfig:
    """Everything a training depends on besides model and data."""

    epochs: int = 120  # at most; early stopping usually ends sooner
    batch_size: int = 32  # images a batch, each with all its captions
    learning_rate: float = 4e-4  # Adam, decoder
    encoder_learning_rate: float = 1e-4  # Adam, encoder, where it is fine-tuned
    schedule: str = "plateau"  # or "one_cycle"
    decay: float = 0.8  # plateau: factor on the rates ...
    decay_after: int = 8  # ... after every so many epochs without a better BLEU-4
    patience: int = 20  # epochs without a better BLEU-4 before the training ends
    alpha_c: float = 1.0  # weight of doubly stochastic attention, see caption_loss
    label_smoothing: float = 0.0  # share of each target spread over the vocabulary
    weight_decay: float = 0.0  # AdamW: each step shrinks the weights by this share of the rate
    averaging: float = 0.0  # judge and keep a running average of the weights, see WeightAverage
    max_grad_norm: float = 5.0  # clip the gradient of all weights together to this length
    bf16: bool = False  # matrix products in bfloat16; weights and sums stay float32
    fine_tune_encoder: bool = False  # the second stage
    seed: int = 0

    def __post_init__(self):
        if self.schedule not in ("plateau", "one_cycle"):
            raise ValueError(f"schedule must be plateau or one_cycle, got {self.schedule!r}")
        for name in ("epochs", "batch_size", "decay_after", "patience"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        for name in ("learning_rate", "encoder_learning_rate", "max_grad_norm"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")
        for name in ("label_smoothing", "weight_decay", "averaging"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} must be in [0, 1), got {getattr(self, name)}")


def rate_factor(config: TrainConfig, history: list[dict], progress: float) -> float:
    """The share of the full learning rates to use now.

    A function of what has happened, with no state of its own, so that a resumed training can't
    disagree with one that never stopped.

    Args:
        history: one dict an epoch so far, each with "bleu4".
        progress: where the training stands, 0 at its first step and 1 at its last.
    """
    if config.schedule == "one_cycle":  # Smith and Topin 2017 (arXiv:1708.07120), cosine form
        if progress < 0.3:
            return 0.04 + 0.96 * (1 - math.cos(math.pi * progress / 0.3)) / 2
        return (1 + math.cos(math.pi * (progress - 0.3) / 0.7)) / 2
    stale = [stale_epochs(history[: epoch + 1]) for epoch in range(len(history))]
    cuts = sum(epochs > 0 and epochs % config.decay_after == 0 for epochs in stale)
    return config.decay**cuts


def stale_epochs(history: list[dict]) -> int:
    """How many epochs have passed since BLEU-4 was last better than ever before."""
    scores = [epoch["bleu4"] for epoch in history]
    return len(scores) - 1 - scores.index(max(scores)) if scores else 0


class WeightAverage:
    """A running average of a model's trained weights; inside `with average:` the model has it.

    Args:
        model: the weights that require a gradient now are averaged.
        decay: share of the old average that stays at a step, reached gradually from 2/11.

    Source: Polyak and Juditsky 1992 (doi:10.1137/0330046), in the exponential form.
    """

    def __init__(self, model: CaptionModel, decay: float):
        named = [
            (name, weight) for name, weight in model.named_parameters() if weight.requires_grad
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


def teacher_forcing(
    model: CaptionModel, images: Tensor, captions: Tensor, lengths: Tensor, config: TrainConfig
) -> tuple[CaptionLoss, int]:
    """The loss of one batch, the true words fed in, and the number of words it is a mean of.

    Args:
        images: (B, ...) as `CaptionModel` takes them.
        captions, lengths: (B * n, T) and (B * n,) int64; see `DecoderWithAttention`.
    """
    with torch.autocast(images.device.type, dtype=torch.bfloat16, enabled=config.bf16):
        output = model(images, captions, lengths)
    loss = caption_loss(output, alpha_c=config.alpha_c, label_smoothing=config.label_smoothing)
    return loss, len(output.targets.data)


def train_one_epoch(
    model: CaptionModel,
    loader: DataLoader,
    optimizer: torch.optim.Optimizer,
    config: TrainConfig,
    history: list[dict],
    average: WeightAverage | None = None,
    *,
    objective: Callable[..., tuple[NamedTuple, int]] = teacher_forcing,
    device: torch.device | str = "cpu",
    progress: bool = True,
) -> dict[str, float]:
    """Run over the training data once.

    Args:
        loader: gives (images or cached features, captions, caption lengths); see `CaptionModel`.
        history: of the epochs before this one; it sets the learning rate.
        average: of the weights, kept up to date.
        objective: what is minimised; called as `teacher_forcing` is.

    Returns:
        means a token over the epoch: "loss", and the other parts of the objective, "nats" among
        them; and "learning_rate" at its end.

    Raises:
        FloatingPointError: if a loss is not finite, naming epoch and step; that step is not taken.
    """
    epoch, device = len(history), torch.device(device)
    sums: Counter[str] = Counter()
    tokens = 0
    model.train()
    # The bar doesn't wrap the loader: some bars would open it twice, and draw another order.
    bar = tqdm(
        total=len(loader),
        desc=f"epoch {epoch + 1}",
        leave=False,
        disable=None if progress else True,
    )
    for step, (images, captions, lengths) in enumerate(loader):
        share = (epoch + step / len(loader)) / config.epochs
        factor = rate_factor(config, history, share)
        for group in optimizer.param_groups:
            group["lr"] = factor * group["full_rate"]

        images, captions = images.to(device), captions.flatten(0, -2).to(device)
        loss, count = objective(model, images, captions, lengths.flatten(), config)
        if not torch.isfinite(loss.total):
            raise FloatingPointError(
                f"epoch {epoch + 1}, step {step + 1}: the loss is {loss.total.item()}; "
                "try a lower learning rate"
            )
        optimizer.zero_grad()
        loss.total.backward()
        nn.utils.clip_grad_norm_(model.parameters(), config.max_grad_norm)
        optimizer.step()
        if average is not None:
            average.update()

        for name, part in loss._asdict().items():
            sums["loss" if name == "total" else name] += count * part.item()
        tokens += count
        bar.set_postfix(nats=f"{sums['nats'] / tokens:.3f}", refresh=False)
        bar.update()
    bar.close()
    means = {name: value / tokens for name, value in sums.items()}
    return means | {"learning_rate": factor * config.learning_rate}


def make_optimizer(model: CaptionModel, config: TrainConfig) -> torch.optim.Optimizer:
    """Adam over the weights that may change, the encoder's at their own rate."""
    encoder = set(model.encoder.parameters())
    free = [weight for weight in model.parameters() if weight.requires_grad]
    parts = [
        ([weight for weight in free if weight not in encoder], config.learning_rate),
        ([weight for weight in free if weight in encoder], config.encoder_learning_rate),
    ]
    groups = [
        {"params": weights, "lr": rate, "full_rate": rate} for weights, rate in parts if weights
    ]
    return torch.optim.AdamW(groups, weight_decay=config.weight_decay, fused=True)


def save_checkpoint(
    folder: Path,
    model: CaptionModel,
    optimizer: torch.optim.Optimizer,
    config: TrainConfig,
    history: list[dict],
    average: WeightAverage | None = None,
) -> None:
    """Write `folder`: a model, with what it takes to go on training it. Whole or not at all."""
    moments = {
        f"{index}.{name}": value
        for index, state in optimizer.state_dict()["state"].items()
        for name, value in state.items()
    }
    with atomic_folder(folder) as temporary:
        model.write_files(temporary)
        (temporary / "optimizer.safetensors").write_bytes(save(moments))
        if average is not None:
            (temporary / "average.safetensors").write_bytes(save(average.state()))
        write_json(temporary / "training.json", {"config": asdict(config), "history": history})


def load_checkpoint(
    folder: Path,
    model: CaptionModel,
    optimizer: torch.optim.Optimizer,
    config: TrainConfig,
    average: WeightAverage | None = None,
) -> list[dict]:
    """Put a checkpoint back into `model`, `optimizer` and `average`, and return its history.

    Raises:
        InputError: if it is damaged, or belongs to other settings.
    """
    stored = read_json(folder / "training.json")
    for name, value in asdict(config).items():
        if stored["config"].get(name) != value:
            raise InputError(
                f"{folder}: was trained with {name}={stored['config'].get(name)}, not {value}; "
                "resume with the same settings or train into another folder"
            )
    saved = CaptionModel.load(folder)
    if saved.config != model.config or saved.vocabulary.word_map != model.vocabulary.word_map:
        raise InputError(
            f"{folder}: holds a model of another shape or vocabulary; resume with the same model "
            "and data or train into another folder"
        )
    model.load_state_dict(saved.state_dict())
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in load_file(folder / "optimizer.safetensors").items():
        index, name = key.split(".")
        state.setdefault(int(index), {})[name] = value
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": state, "param_groups": groups})
    if average is not None:
        average.load_state(load_file(folder / "average.safetensors"))
    return stored["history"]


def train(
    model: CaptionModel,
    loader: DataLoader,
    evaluate: Callable[[CaptionModel], dict[str, float]],
    config: TrainConfig,
    folder: str | Path,
    *,
    resume: bool = False,
    objective: Callable[..., tuple[NamedTuple, int]] = teacher_forcing,
    device: torch.device | str = "cpu",
    progress: bool = True,
) -> list[dict]:
    """Train `model`, keeping in `folder` the best one so far and all it takes to go on.

    Writes `best/` (a model), `last/` (a model with optimizer, settings and history), `log.jsonl`
    (one line an epoch) and `curve.png`.

    Args:
        loader: of the training data, shuffled by a generator of its own (see `make_loader`).
        evaluate: scores a model in eval mode on captions it wrote freely; must return "bleu4" x100.
        resume: go on from `folder/last`, exactly as if the training had never stopped; from the
            beginning where nothing was written yet.
        objective: what is minimised; called as `teacher_forcing` is.

    Returns:
        the history: one dict an epoch.

    Raises:
        InputError: if `folder` holds a training and `resume` is off, or one with other settings.
        FloatingPointError: if a loss is not finite.
    """
    folder = Path(folder)
    last = folder / "last"
    recover_folder(last)
    if last.exists() and not resume:
        raise InputError(f"{folder}: holds a training already; resume it or name another folder")
    if config.fine_tune_encoder:
        model.fine_tune_encoder()
    model.to(device)
    optimizer = make_optimizer(model, config)
    average = WeightAverage(model, config.averaging) if config.averaging else None
    history = load_checkpoint(last, model, optimizer, config, average) if last.exists() else []

    for epoch in range(len(history), config.epochs):
        if history and stale_epochs(history) >= config.patience:
            break
        started = time.perf_counter()
        # Seeded by epoch, the random numbers of a resumed training are those of an unbroken one.
        torch.manual_seed(config.seed * 100_003 + epoch)
        loader.generator.manual_seed(config.seed * 100_003 + epoch)
        losses = train_one_epoch(
            model,
            loader,
            optimizer,
            config,
            history,
            average,
            objective=objective,
            device=device,
            progress=progress,
        )
        trained = time.perf_counter()
        model.eval()
        with average or nullcontext():
            scores = evaluate(model)
            history.append(
                {"epoch": epoch + 1, **losses, **scores}
                | {"train_seconds": round(trained - started, 2)}
                | {"evaluate_seconds": round(time.perf_counter() - trained, 2)}
            )
            if stale_epochs(history) == 0:  # better than ever before
                model.metrics = {"training": {"seed": config.seed, **history[-1]}}
                model.save(folder / "best")
        save_checkpoint(last, model, optimizer, config, history, average)
        with atomic_file(folder / "log.jsonl") as path:
            path.write_text("".join(json.dumps(row) + "\n" for row in history), encoding="utf-8")
        with atomic_file(folder / "curve.png") as path:
            draw_curve(history).savefig(path)
    model.eval()
    return history


def make_loader(dataset, config: TrainConfig, *, num_workers: int = 0) -> DataLoader:
    """Batches of `dataset` in an order that a generator of its own decides."""
    generator = torch.Generator().manual_seed(config.seed)
    return DataLoader(
        dataset,
        batch_size=config.batch_size,
        shuffle=True,
        generator=generator,
        num_workers=num_workers,
    )


def draw_curve(history: list[dict]) -> Figure:
    """Loss and BLEU-4 by epoch. Needs no display."""
    figure = Figure(figsize=(8, 3), facecolor="white", layout="constrained")
    left, right = figure.subplots(1, 2)
    epochs = [row["epoch"] for row in history]
    left.plot(epochs, [row["nats"] for row in history], "o-", color="#1f5fa8", markersize=3)
    left.set(xlabel="epoch", ylabel="nats a token", title="training, true words fed in")
    right.plot(epochs, [row["bleu4"] for row in history], "o-", color="#c8730a", markersize=3)
    right.set(xlabel="epoch", ylabel="BLEU-4", title="validation, written freely")
    return figure
