"""The training loop: exact resumption, processes, averaging, any objective.

Without these extras, it takes the same steps as `captionlib.training.train`.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import NamedTuple

import torch
from matplotlib.figure import Figure
from torch.utils.data import DataLoader
from tqdm.auto import tqdm

from captionlib.config import EngineConfig
from captionlib.engine.averaging import WeightAverage
from captionlib.engine.checkpoints import (
    EpochSoFar,
    Training,
    load_checkpoint,
    save_checkpoint,
)
from captionlib.engine.objectives import teacher_forcing
from captionlib.engine.processes import ALONE, Processes
from captionlib.io.files import (
    InputError,
    atomic_file,
    one_line_if_full,
    recover_folder,
)
from captionlib.model import CaptionModel
from captionlib.training import (
    is_over,
    make_optimizer,
    rate_factor,
    seed_of,
    set_rates,
    stale_epochs,
    update,
)

__all__ = ["train", "train_one_epoch"]


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
    """Train for one epoch, or for the rest of one that `training.so_far` began.

    Args:
        training: updated at every step.
        loader: gives (images or cached features, captions, caption lengths);
            from `make_loader`.
        loss_of: the objective, called like `teacher_forcing` but without the
            model.
        processes: those that share each batch.
        after_step: called after each step.

    Returns:
        means per token over the epoch: "loss" and the other parts of the
        objective, among them "nats"; and the final "learning_rate".

    Raises:
        FloatingPointError: if a loss is not finite; names epoch and step, and
            does not take that step.
    """
    model = training.model
    optimizer = training.optimizer
    config = training.config
    epoch = len(training.history)
    so_far = training.so_far
    device = torch.device(device)
    started = time.perf_counter() - so_far.seconds
    loader.batch_sampler.begin(seed_of(config.seed, epoch), skip=so_far.steps)
    model.train()
    # The bar doesn't wrap the loader: some bars would iterate it twice.
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
        set_rates(optimizer, factor)
        # Process 0 uses the plain loop's dropout masks; the others use their
        # own.
        others = (processes.number,) if processes.number else ()
        torch.manual_seed(seed_of(config.seed, epoch, so_far.steps, *others))
        images = images.to(device, non_blocking=True)
        captions = captions.flatten(0, -2).to(device, non_blocking=True)
        loss, count = loss_of(
            images,
            captions,
            lengths.flatten(),
            config,
            progress=share,
            processes=processes,
        )
        measured = torch.stack(
            [*loss, torch.tensor(float(count), device=device)]
        ).detach()
        *parts, count = processes.average(measured).tolist()
        if not math.isfinite(parts[0]):
            raise FloatingPointError(
                f"epoch {epoch + 1}, step {so_far.steps + 1}: the loss is "
                f"{parts[0]}; try a lower learning rate"
            )
        update(model, loss.total, optimizer, config)
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


def train(
    model: CaptionModel,
    loader: DataLoader,
    evaluate: Callable[[CaptionModel], dict[str, float]],
    config: EngineConfig,
    folder: str | Path,
    *,
    resume: bool = False,
    data: dict | None = None,
    objective: Callable[..., tuple[NamedTuple, int]] = teacher_forcing,
    processes: Processes = ALONE,
    checkpoint_minutes: float = 15.0,
    device: torch.device | str = "cpu",
    progress: bool = True,
) -> list[dict]:
    """Train `model`; keep the best one and all that resuming takes in `folder`.

    Writes `best/` (a model), `last/` (a model with optimizer, settings, history
    and position), `log.jsonl` (one line per epoch) and `curve.png`.

    Args:
        loader: the training data, from `make_loader`.
        evaluate: scores a model in eval mode on captions it generates; must
            return "bleu4", ×100.
        resume: continue from `folder/last`, exactly as if training had never
            stopped; start from the beginning if nothing was written yet. Epochs
            and patience may have grown and batches shrunk in between.
        data: the identity of the data, stored with the checkpoint, which is
            resumed with no other.
        objective: the loss to minimise, called like `teacher_forcing`.
        processes: the processes that train together; each calls `train`, and
            the main one writes the files.
        checkpoint_minutes: minutes between checkpoints within an epoch; `last`
            is also written after each epoch.

    Returns:
        the history: one dict per epoch.

    Raises:
        InputError: if `folder` holds a training run and `resume` is off, or its
            data or settings differ, or it is damaged; or if the disk is full, in
            which case the previous checkpoint is kept.
        FloatingPointError: if a loss is not finite.
    """
    folder = Path(folder)
    last, device = folder / "last", processes.device or device
    with processes.main_first():
        recover_folder(last)
    if last.exists() and not resume:
        raise InputError(
            f"{folder}: holds a training run already; resume it or name "
            "another folder"
        )
    if config.fine_tune_encoder:
        model.fine_tune_encoder()
    if config.compile:
        compile_layers(model)
    model.to(device)
    average = (
        WeightAverage(model, config.averaging) if config.averaging else None
    )
    training = Training(
        model, make_optimizer(model, config), config, average, data or {}
    )
    if last.exists():
        load_checkpoint(last, training)
    history, loss_of = training.history, processes.prepare(objective, model)
    saved = time.monotonic()

    def keep(minutes: float = 0.0) -> None:
        nonlocal saved
        if processes.is_main and time.monotonic() - saved >= 60 * minutes:
            with one_line_if_full(
                folder, "the previous checkpoint is kept; make room and resume"
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


def write_down(
    folder: Path,
    model: CaptionModel,
    config: EngineConfig,
    history: list[dict],
    average: WeightAverage | None,
) -> None:
    """Write the log and the curve, and the model if it is the best so far."""
    if stale_epochs(history) == 0:  # the best epoch so far
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
    """Compile the encoder and the attention with torch.compile.

    The names of the weights, and so the files, stay the same.
    """
    model.encoder.compile()
    # Dynamic: as captions end, there are fewer rows.
    model.decoder.attention.compile(dynamic=True)


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
        ylabel="nats per token",
        title="training, teacher-forced",
    )
    right.plot(
        epochs,
        [row["bleu4"] for row in history],
        "o-",
        color="#c8730a",
        markersize=3,
    )
    right.set(xlabel="epoch", ylabel="BLEU-4", title="validation, free-running")
    return figure
