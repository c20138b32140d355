"""Training.

Chapter 05 of the book, notebooks/05_training.ipynb, explains this module and
generates it: edit the chapter, not this file, then run `make export`.
"""

import json
import math
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from random import Random
from typing import NamedTuple

import torch
from matplotlib.figure import Figure
from safetensors.torch import load_file, save
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Sampler
from tqdm.auto import tqdm

from captionlib.decoder import CaptionModel, DecoderOutput
from captionlib.engine.processes import ALONE, Processes
from captionlib.io.files import (
    InputError,
    atomic_file,
    atomic_folder,
    one_line_if_full,
    read_json,
    recover_folder,
    write_json,
)

__all__ = [
    "Batches",
    "CaptionLoss",
    "EpochSoFar",
    "TrainConfig",
    "Training",
    "WeightAverage",
    "caption_loss",
    "compile_layers",
    "draw_curve",
    "is_over",
    "load_checkpoint",
    "make_loader",
    "make_optimizer",
    "rate_factor",
    "save_checkpoint",
    "seed_of",
    "stale_epochs",
    "teacher_forcing",
    "train",
    "train_one_epoch",
    "write_down",
]


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
