"""Train a recipe: from a data set to a captioner, in one call.

If the call is interrupted, it can be repeated to resume. A recipe has one or
more stages; each starts from the captioner of the one before. The last stage's
folder is `to`; the folders of earlier stages are inside it, `stage1` and so on.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors.torch import load_file

from captionlib.config import (
    DataConfig,
    DecodingConfig,
    EngineConfig,
    ModelConfig,
    Recipe,
    RunConfig,
)
from captionlib.config.settings import settings_of
from captionlib.data import CaptionDataset, load_references
from captionlib.encoder import encode_once
from captionlib.engine.batches import make_loader
from captionlib.engine.checkpoints import read_place
from captionlib.engine.features import ViewDataset
from captionlib.engine.fine_tuning import HalfEncoded, first_stages
from captionlib.engine.loop import train
from captionlib.engine.objectives import teacher_forcing
from captionlib.engine.precision import time_steps
from captionlib.engine.preparation import prepare_data
from captionlib.engine.processes import Processes
from captionlib.engine.progress import find_device
from captionlib.engine.recipes import find_recipe, keep_recipe
from captionlib.engine.scheduled_sampling import scheduled_sampling
from captionlib.engine.validation import Validator, plain_search
from captionlib.engine.views import open_views
from captionlib.io.errors import usable
from captionlib.io.files import (
    InputError,
    package_folder,
    read_json,
    recover_folder,
)
from captionlib.io.prepared import find_base
from captionlib.model import CaptionModel
from captionlib.toy.scenes import write_scenes
from captionlib.training import is_over

__all__ = ["Trained", "train_recipe"]


class Trained(NamedTuple):
    """The result of a training run."""

    best: Path  # the captioner's folder, for `Captioner.from_pretrained`
    history: list[dict]  # of the last stage, one dict per epoch
    # Each stage's folder, with `best`, `last` and `log.jsonl`.
    stages: list[Path]


def _say(line: str) -> None:
    print(line, flush=True)


def _say_nothing(line: str) -> None:
    pass


def train_recipe(
    recipe: str | Path | Recipe | None = None,
    *,
    to: str | Path,
    progress: bool = True,
    say: Callable[[str], None] = _say,
    **settings,
) -> Trained:
    """Train a captioner by a recipe, as `captionlib train` does.

    Args:
        recipe: a packaged recipe's name, a JSON file, or a `Recipe`; None means
            all defaults.
        to: folder to write: data, stages, `best` and `last`.
        progress: show bars on a terminal.
        say: called with each progress message.
        settings: those of `RunConfig`, such as data="prepared" or resume=True
            (`captions` is another name of `karpathy_json`);
            and those of `ModelConfig`, `EngineConfig`, `ViewConfig` and
            `DecodingConfig`, such as epochs=3, which override the recipe's in
            every stage.

    Raises:
        InputError: if a file, a recipe or a setting is unusable; raised before
            any training where possible.
        TypeError: if a setting has an unknown name.
        FloatingPointError: if a loss is not finite.
    """
    if "captions" in settings:  # as on the command line
        settings["karpathy_json"] = settings.pop("captions")
    around = {
        name: settings.pop(name)
        for name in settings_of(RunConfig)
        if name in settings
    }
    run, to = _configure(RunConfig, around), Path(to)
    processes = Processes.join(run.device)
    with processes.main_first():  # the others find the prepared data
        recipe = find_recipe(recipe, to, resume=run.resume)
        if run.start_from is not None:  # its shape is given
            recipe = replace(recipe, model={})
        recipe = recipe.overridden(settings)
        stages = _plan(recipe, to, run)
        data = _find_data(recipe, to, run, stages, progress=progress, say=say)
    if not processes.is_main:
        say = _say_nothing
    device = processes.device or find_device(run.device)
    session = _Session(recipe, data, run, processes, device, progress, say)
    history = []
    for stage in stages:
        if stage is stages[-1] or not _is_finished(stage.folder):
            history = session.train(stage)
            say(_summary(stage, history))
        session.finish(stage)
    folders = [stage.folder for stage in stages]
    return Trained(to / "best", history, folders)


def _kept_epoch(stage: _Stage, history: list[dict]) -> dict:
    """The epoch whose weights become the stage's captioner."""
    if stage.config.keep == "end":
        return history[-1]
    return max(history, key=lambda epoch: epoch["bleu4"])


def _summary(stage: _Stage, history: list[dict]) -> str:
    kept = _kept_epoch(stage, history)
    return f"{stage.folder / 'best'}: epoch {kept['epoch']}, BLEU-4 {kept['bleu4']:.2f}"


# --------------------------------------------------------------------- the plan


@dataclass(frozen=True)
class _Stage:
    """One stage of a recipe and its state."""

    folder: Path
    begun: bool
    start_from: str | Path | None  # a captioner's folder or name
    model: dict  # the given settings of its shape
    shape: ModelConfig
    config: EngineConfig
    search: DecodingConfig


def _plan(recipe: Recipe, to: Path, run: RunConfig) -> list[_Stage]:
    """The stages, all checked now, so that a later one does not fail after
    hours."""
    stages: list[_Stage] = []
    for number, settings in enumerate(recipe.stages, start=1):
        folder = to / f"stage{number}" if number < len(recipe.stages) else to
        stored = _stored_run(folder, run.resume)
        if stored and settings.get("bf16") == "auto":  # already measured
            settings = {k: v for k, v in settings.items() if k != "bf16"}
        start_from, model = run.start_from, recipe.model
        if stages:
            start_from, model = stages[-1].folder, {}
        stage = _Stage(
            folder,
            bool(stored),
            start_from,
            model,
            _configure(ModelConfig, stored.get("model", {}) | model),
            _configure(EngineConfig, stored.get("train", {}) | settings),
            _configure(
                DecodingConfig,
                stored.get("search", _search_of(run)) | recipe.search,
            ),
        )
        stages.append(stage)
    return stages


def _search_of(run: RunConfig) -> dict:
    """The search settings of the captioner to start from, which stay with it."""
    if run.start_from is None:
        return {}
    path = package_folder(run.start_from) / "config.json"
    search = read_json(path).get("search", {})
    with usable(f"{path}: the search settings"):
        return asdict(DecodingConfig(**search))


def _configure(kind: type, settings: dict):
    try:
        return kind(**settings)
    except (TypeError, ValueError) as error:
        raise InputError(
            f"{error}; captionlib train --help lists the options"
        ) from None


def _stored_run(folder: Path, resume: bool) -> dict:
    """The settings of the training in `folder`, {} if there is none yet."""
    last = folder / "last"
    recover_folder(last)
    if not last.exists():
        return {}
    if not resume:
        raise InputError(
            f"{folder}: holds a training run already; --resume it or name "
            "another folder"
        )
    model = read_json(last / "config.json")
    training = read_place(last)
    try:
        stored = {
            "model": model["model"],
            "search": model["search"],
            "train": training["config"],
        }
        known = stored["train"].keys() == settings_of(EngineConfig).keys()
    except (KeyError, TypeError, AttributeError):
        raise InputError(
            f"{last}: is not a captionlib training run; train into another "
            "folder"
        ) from None
    if not known:
        raise InputError(
            f"{folder}: was begun with another version of captionlib and can't "
            "be resumed; train into another folder, with --start-from "
            f"{folder} to begin with its best model"
        )
    return stored


def _is_finished(folder: Path) -> bool:
    """Whether the training in `folder` has nothing left to do."""
    if not _stored_run(folder, resume=True):
        return False
    training = read_place(folder / "last")
    return is_over(EngineConfig(**training["config"]), training["history"])


# --------------------------------------------------------------------- the data


def _find_data(
    recipe: Recipe, to: Path, run: RunConfig, stages: list[_Stage], **options
) -> Path:
    """The folder of prepared data: named, prepared earlier, or prepared now.

    The recipe is stored in `to` first, so that a killed run can resume.
    """
    source = run.karpathy_json, run.images
    if run.data is not None:
        if any(source):
            raise InputError(
                f"{run.data}: is already prepared; leave out --karpathy-json "
                "and --images"
            )
        find_base(run.data)  # is it?
    there = run.data is not None or any((to / "data").glob("WORDMAP_*.json"))
    drawn = bool(recipe.scenes) and not any(source)
    if not there and not drawn and None in source:
        raise InputError(_data_wanted(recipe))
    if not any(stage.begun for stage in stages):
        keep_recipe(recipe, to)
    if there:
        return Path(run.data or to / "data")
    source = None if drawn else source
    return _prepare(recipe, to, source, run, **options)


def _data_wanted(recipe: Recipe) -> str:
    name = recipe.data.get("dataset")
    if name and not recipe.scenes:
        return (
            f"--recipe {recipe.name}: needs the photographs of {name}; fetch "
            f"them with captionlib download {name} --to DIR, then give "
            "--karpathy-json and --images"
        )
    return (
        "no data: give --data, or --karpathy-json and --images, or "
        "--recipe toy, which draws its own"
    )


def _prepare(
    recipe: Recipe,
    to: Path,
    source: tuple | None,
    run: RunConfig,
    *,
    progress: bool,
    say,
) -> Path:
    """Prepare captions and their images; without a source, draw them first."""
    if source is None:
        json_path = write_scenes(
            to / "scenes", **recipe.scenes, progress=progress
        )
        source = json_path, json_path.parent / "images"
    settings = {k: v for k, v in recipe.data.items() if k != "dataset"}
    config = _configure(DataConfig, settings)
    done = prepare_data(
        *source,
        to / "data",
        config,
        shares=run,
        words_of=run.start_from,
        progress=progress,
    )
    for line in [*done.notes, *done.words.lines]:
        say(line)
    say(str(to / "data" / done.base))
    return to / "data"


# ----------------------------------------------------------------- the training


@dataclass(frozen=True)
class _Session:
    """What all stages of a training run share."""

    recipe: Recipe
    data: Path
    run: RunConfig
    processes: Processes
    device: torch.device
    progress: bool
    say: Callable[[str], None]

    def train(self, stage: _Stage) -> list[dict]:
        """Train or resume one stage; return its history."""
        _, references = load_references(self.data, "VAL")
        if not references:
            raise InputError(
                f"{self.data}: has no validation images, which the choice of "
                "the best epoch needs"
            )
        stage.folder.mkdir(parents=True, exist_ok=True)
        torch.manual_seed(stage.config.seed)
        model = self._model(stage)
        model.search = asdict(stage.search)
        config, objective = stage.config, teacher_forcing
        if config.own_words:
            objective = scheduled_sampling
        encoder = self._frozen_part(model, config)
        if config.bf16 == "auto":
            config = self._choose_precision(model, encoder, objective, config)
        with self.processes.main_first():  # the others read its cache
            views = self._views("TRAIN", encoder, bf16=config.bf16)
            # In float32, like captioning later.
            (validation,) = self._views("VAL", encoder, bf16=False)
        beam_size = self.recipe.validation_beam_size
        evaluate = Validator(
            validation,
            references,
            plain_search(stage.search, beam_size),
            {
                "data": find_base(self.data),
                "split": "VAL",
                "beam_size": beam_size,
            },
            device=self.device,
            processes=self.processes,
            progress=self.progress,
            say=self.say,
        )
        return train(
            model,
            make_loader(
                ViewDataset(self.data, "TRAIN", *views),
                config,
                num_workers=self.run.workers,
                processes=self.processes,
            ),
            evaluate,
            config,
            stage.folder,
            resume=self.run.resume,
            objective=objective,
            processes=self.processes,
            checkpoint_minutes=self.run.checkpoint_minutes,
            device=self.device,
            progress=self.progress and self.processes.is_main,
        )

    def finish(self, stage: _Stage) -> None:
        """When a stage is over, set its `best` to the weights that `keep`
        names."""
        if stage.config.keep == "end" and self.processes.is_main:
            _keep_end(stage.folder, stage.config.seed)
        self.processes.wait()

    def _model(self, stage: _Stage) -> CaptionModel:
        """The model that the stage starts or resumes with."""
        last_stages = self.recipe.last_stages
        kind = HalfEncoded if last_stages else CaptionModel
        vocabulary = CaptionDataset(self.data, "TRAIN").vocabulary
        if stage.begun:
            model = kind.load(stage.folder / "last")
            if stage.shape != model.config:
                raise InputError(
                    f"{stage.folder}: holds a model of another shape; resume "
                    "without changing it"
                )
        elif stage.start_from is not None:
            if stage.model:
                names = ", ".join(
                    "--" + name.replace("_", "-") for name in stage.model
                )
                raise InputError(
                    f"{names}: the model of --start-from fixes its shape; "
                    "leave these options out"
                )
            model = kind.load(stage.start_from)
            try:
                model.add_words(vocabulary)
            except InputError:
                raise InputError(
                    f"{self.data}: gives words other ids than "
                    f"{stage.start_from}; prepare it with --words-of "
                    f"{stage.start_from}"
                ) from None
        else:
            model = kind(stage.shape, vocabulary)
        if last_stages:
            model.last = last_stages
        return model

    def _frozen_part(self, model: CaptionModel, config: EngineConfig):
        """The frozen part of the encoder, whose output can be cached, or
        None."""
        if not self.recipe.cache_features:
            return None
        if self.recipe.last_stages:
            return first_stages(model.encoder, self.recipe.last_stages)
        return None if config.fine_tune_encoder else model.encoder

    def _views(self, split: str, encoder, *, bf16: bool) -> list:
        return open_views(
            self.recipe,
            self.data,
            split,
            Path(self.run.features or self.data),
            encoder,
            bf16=bf16,
            device=self.device,
            progress=self.progress,
            say=self.say,
        )

    def _choose_precision(
        self, model: CaptionModel, encoder, objective, config: EngineConfig
    ) -> EngineConfig:
        """`config` with the faster precision, as measured by the main
        process."""
        times = None
        if self.processes.is_main:
            model.to(self.device)
            model.fine_tune_encoder(config.fine_tune_encoder)
            with torch.random.fork_rng([]):  # the loader draws a seed
                pixels = ViewDataset(
                    self.data, "TRAIN", *self._views("TRAIN", None, bf16=False)
                )
                loader = make_loader(pixels, config, processes=self.processes)
                batches = list(islice(loader, 2))
            if encoder is not None:
                batches = [
                    (_grids(encoder, images), *captions)
                    for images, *captions in batches
                ]
            times = time_steps(model, batches, objective, config)
            self.say(str(times))
        times = self.processes.agree(times)
        return replace(config, bf16=times.bf16)


def _grids(encoder, images: torch.Tensor) -> torch.Tensor:
    """Encode images (B, 3, height, width) as in a cache: (B, P, D) float16."""
    (grids,) = encode_once(encoder, images, batch_size=len(images))
    return grids.flatten(1, 2).clone()  # not an inference tensor, for autograd


def _keep_end(folder: Path, seed: int) -> None:
    """Set `best` to the final weights, or to their average if there is one."""
    best, last = folder / "best", folder / "last"
    recover_folder(best)
    last_epoch = read_json(last / "training.json")["history"][-1]
    metrics = read_json(best / "config.json")["metrics"]
    if metrics["training"]["epoch"] == last_epoch["epoch"]:
        return  # the last epoch was the best one
    model = CaptionModel.load(last)
    average = last / "average.safetensors"
    if average.exists():
        weights = load_file(average)
        del weights["updates"]
        model.load_state_dict(weights, strict=False)
    model.metrics = {"training": {"seed": seed, **last_epoch}}
    model.save(best)
