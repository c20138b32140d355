"""Train a recipe: from a data set to a captioner, in one call.

If the call is interrupted, it can be repeated to resume. A recipe has one or
more stages; each starts from the captioner of the one before. The last stage's
folder is `to`; the folders of earlier stages are inside it, `stage1` and so on.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
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
    WordsConfig,
)
from captionlib.config.settings import settings_of
from captionlib.data import CaptionDataset, Vocabulary, load_references
from captionlib.encoder import encode_once
from captionlib.engine.batches import make_loader
from captionlib.engine.checkpoints import (
    changed_settings,
    read_place,
    require_same_data,
    undamaged,
)
from captionlib.engine.features import ViewDataset
from captionlib.engine.fine_tuning import HalfEncoded, first_stages
from captionlib.engine.loop import train
from captionlib.engine.objectives import teacher_forcing
from captionlib.engine.precision import time_steps
from captionlib.engine.preparation import IN_USE, LACKS, made_of, prepare_data
from captionlib.engine.processes import Processes
from captionlib.engine.progress import find_device
from captionlib.engine.recipes import find_recipe, keep_recipe
from captionlib.engine.scheduled_sampling import scheduled_sampling
from captionlib.engine.self_critical import SelfCritical
from captionlib.engine.validation import Validator, plain_search
from captionlib.engine.views import open_views
from captionlib.engine.words import vocabulary_of
from captionlib.io.claims import claim, temporary_folder
from captionlib.io.errors import usable
from captionlib.io.files import (
    InputError,
    package_folder,
    read_json,
    recover_folder,
)
from captionlib.io.identity import (
    difference,
    of_data,
    of_each_image,
    short,
    source_of,
)
from captionlib.io.images import IMAGE_SIZE
from captionlib.io.prepared import find_base, image_file
from captionlib.io.sources.reading import read_data_set
from captionlib.model import CaptionModel
from captionlib.toy.scenes import write_scenes
from captionlib.training import is_over, rate_factor

__all__ = ["Trained", "train_recipe"]

TAKEN = (
    "{}: is being trained into by another process; wait for it or train into "
    "another folder"
)

NEEDS_A_START = (
    "--objective self_critical: prefers some of a captioner's own captions to "
    "others, and an untrained one's are all nonsense; give a trained captioner "
    "with --start-from DIR, or a recipe an earlier stage"
)


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
    device = processes.device or find_device(run.device)
    if not processes.is_main:
        say = _say_nothing
    with ExitStack() as held:
        if processes.is_main:
            held.enter_context(temporary_folder(to))
            held.enter_context(claim(to, "training", TAKEN.format(to)))
        with processes.main_first():  # the others find the prepared data
            recipe = find_recipe(recipe, to, resume=run.resume)
            if run.start_from is not None:  # its shape is given
                recipe = replace(recipe, model={})
            recipe = recipe.overridden(settings)
            stages = _plan(recipe, to, run, settings)
            if processes.is_main:
                data = _find_data(
                    recipe, to, run, stages, progress=progress, say=say
                )
            else:
                data = Path(run.data or to / "data")
            held.enter_context(
                claim(data, "data", IN_USE.format(data), shared=True)
            )
        identity = processes.agree(_identity(data) if processes.is_main else {})
        for stage in stages:
            require_same_data(stage.folder, stage.data, identity)
            for line in _changes(stage):
                say(line)
        session = _Session(
            recipe, data, identity, run, processes, device, progress, say
        )
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
    data: dict  # the identity of its data, if it has begun
    changed: dict  # settings that a resumed training changes, with old values


def _plan(
    recipe: Recipe, to: Path, run: RunConfig, given: dict
) -> list[_Stage]:
    """The stages, all checked now, so that a later one does not fail after
    hours.

    A stage that has begun keeps its settings, but for those `given` now.
    """
    stages: list[_Stage] = []
    for number, settings in enumerate(recipe.stages, start=1):
        folder = to / f"stage{number}" if number < len(recipe.stages) else to
        stored = _stored_run(folder, run.resume)
        if stored:
            own = settings_of(EngineConfig)
            settings = {k: v for k, v in given.items() if k in own}
            if settings.get("bf16") == "auto":  # already measured
                del settings["bf16"]
        start_from, model = run.start_from, recipe.model
        if stages:
            start_from, model = stages[-1].folder, {}
        config = _configure(EngineConfig, stored.get("train", {}) | settings)
        rewarded = config.objective == "self_critical"
        if rewarded and start_from is None and not stored:
            raise InputError(NEEDS_A_START)
        shape = _configure(ModelConfig, stored.get("model", {}) | model)
        changed = {}
        if stored:
            changed = changed_settings(folder, stored["train"], config)
            if shape != _configure(ModelConfig, stored["model"]):
                raise InputError(
                    f"{folder}: holds a model of another shape; resume without "
                    "changing it"
                )
        stage = _Stage(
            folder,
            bool(stored),
            start_from,
            model,
            shape,
            config,
            _configure(
                DecodingConfig,
                stored.get("search", _search_of(run)) | recipe.search,
            ),
            stored.get("data", {}),
            changed,
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
    training = read_place(last)
    with undamaged(last / "config.json"):
        model = read_json(last / "config.json")
        stored = {
            "model": dict(model["model"]),
            "search": dict(model["search"]),
            "train": training["config"],
            "data": training["data"],
        }
    if stored["train"].keys() != settings_of(EngineConfig).keys():
        raise InputError(
            f"{folder}: was begun with another version of captionlib and can't "
            "be resumed; train into another folder, with --start-from "
            f"{folder} to begin with its best model"
        )
    return stored


def _changes(stage: _Stage) -> list[str]:
    """What a resumed training changes, and what follows from that, in lines."""
    lines = []
    for name, before in stage.changed.items():
        now = getattr(stage.config, name)
        lines.append(f"{stage.folder}: goes on with {name}={now}, not {before}")
    if "batch_size" in stage.changed:
        lines[-1] += (
            "; an unfinished epoch begins again, with Adam's state as it is, "
            "and the weights will not be those of an uninterrupted run"
        )
    if "epochs" in stage.changed and stage.config.schedule == "one_cycle":
        history = read_place(stage.folder / "last")["history"]
        rates = [
            stage.config.learning_rate
            * rate_factor(stage.config, history, min(1, len(history) / epochs))
            for epochs in (stage.changed["epochs"], stage.config.epochs)
        ]
        lines.append(
            f"{stage.folder}: one_cycle is stretched over all "
            f"{stage.config.epochs} epochs, so the learning rate goes from "
            f"{rates[0]:.2g} to {rates[1]:.2g} at this point"
        )
    return lines


def _is_finished(folder: Path) -> bool:
    """Whether the training in `folder` has nothing left to do."""
    if not _stored_run(folder, resume=True):
        return False
    training = read_place(folder / "last")
    return is_over(EngineConfig(**training["config"]), training["history"])


# --------------------------------------------------------------------- the data


def _identity(data: Path) -> dict:
    """What a checkpoint stores about its data, and is compared by."""
    return {"contents": of_data(data), "made_of": source_of(data) or {}}


def _find_data(
    recipe: Recipe, to: Path, run: RunConfig, stages: list[_Stage], **options
) -> Path:
    """The folder of prepared data: named, prepared earlier, or prepared now.

    All that can be checked before is checked first. Then the recipe is stored
    in `to`, so that a killed run can resume.
    """
    source, named = (run.karpathy_json, run.images), run.data is not None
    if named and any(source):
        raise InputError(
            f"{run.data}: is already prepared; leave out --captions and "
            "--images"
        )
    data = Path(run.data) if named else to / "data"
    there = named or any(data.glob("WORDMAP_*.json"))
    drawn = bool(recipe.scenes) and not any(source)
    begun = any(stage.begun for stage in stages)
    if None in source and not drawn and (any(source) or not there):
        raise InputError(_data_wanted(recipe))
    ready = there and (named or None in source and (begun or not drawn))
    if ready:
        _require_validation(data)
    if not begun:
        _check_model(recipe, stages[0])
    if not begun or any(stage.changed for stage in stages):
        keep_recipe(recipe, to)
    if ready:
        return data
    if drawn:
        source = _draw(recipe, to, options["progress"])
    return _prepare(recipe, to, source, run, begun, **options)


def _prepare(
    recipe: Recipe,
    to: Path,
    source: tuple,
    run: RunConfig,
    begun: bool,
    *,
    progress: bool,
    say,
) -> Path:
    """Prepare captions and their images, unless that was done earlier."""
    data = to / "data"
    settings = {k: v for k, v in recipe.data.items() if k != "dataset"}
    config = _configure(DataConfig, settings)
    if any(data.glob("WORDMAP_*.json")):
        others = _made_of_others(data, source, config, run)
        if not others:
            return data
        if begun:
            raise InputError(
                f"{to}: was begun with other data ({others}); leave out "
                "--captions and --images to resume, or train into another "
                "folder"
            )
        say(f"{data}: was made of other data ({others}); preparing it anew")
        _discard(data)
    done = prepare_data(
        *source,
        data,
        config,
        shares=run,
        words_of=run.start_from,
        needs=("TRAIN", "VAL"),
        progress=progress,
    )
    for line in [*done.notes, *done.words.lines]:
        say(line)
    say(str(data / done.base))
    return data


def _require_validation(data: Path) -> None:
    _, references = load_references(data, "VAL")
    if not references:
        raise InputError(f"{data}: {LACKS['VAL']}")


def _made_of_others(
    data: Path, source: tuple, config: DataConfig, run: RunConfig
) -> str:
    """How the source of prepared data differs from `source`; "" if it
    doesn't."""
    try:
        stored = source_of(data)
    except InputError as error:  # such as two data sets in one folder
        return str(error)
    if stored is None:
        return "its source isn't known"
    words = WordsConfig(run.start_from)
    records = read_data_set(*source, shares=run, skipped=[])
    wanted = made_of(records, config, words, vocabulary_of(words))
    return difference({name: stored.get(name) for name in wanted}, wanted)


def _discard(data: Path) -> None:
    """Remove prepared data from the folder of a training that hasn't begun."""
    with claim(data, "data", IN_USE.format(data)):
        for seal in list(data.glob("WORDMAP_*.json")):
            base = seal.stem.removeprefix("WORDMAP_")
            seal.unlink()
            for path in list(data.glob(f"*_{base}.*")):
                path.unlink()


def _data_wanted(recipe: Recipe) -> str:
    name = recipe.data.get("dataset")
    if name and not recipe.scenes:
        return (
            f"--recipe {recipe.name}: needs the photographs of {name}; fetch "
            f"them with captionlib download {name} --to DIR, then give "
            "--captions and --images"
        )
    return (
        "no data: give --data, or --captions and --images, or --recipe toy, "
        "which draws its own"
    )


def _draw(recipe: Recipe, to: Path, progress: bool) -> tuple[Path, Path]:
    """Draw the recipe's scenes: a Karpathy JSON and its images."""
    path = write_scenes(to / "scenes", **recipe.scenes, progress=progress)
    return path, path.parent / "images"


def _check_model(recipe: Recipe, stage: _Stage) -> None:
    """Raise an `InputError` if the first stage's model can't be made or takes no
    images, before hours of preparing them."""
    kind = HalfEncoded if recipe.last_stages else CaptionModel
    if stage.start_from is not None:
        _require_no_shape(stage)
        model = kind.load(stage.start_from, member=0)
    else:
        words = {"<pad>": 0, "<unk>": 1, "<start>": 2, "<end>": 3}
        model = kind(stage.shape, Vocabulary(words))
    if recipe.last_stages:
        model.last = recipe.last_stages
        first_stages(model.encoder, recipe.last_stages)
    model.fine_tune_encoder(stage.config.fine_tune_encoder)
    try:
        with torch.inference_mode():
            model.encode(torch.zeros(1, 3, IMAGE_SIZE, IMAGE_SIZE).byte())
    except (RuntimeError, AssertionError, ValueError) as error:
        reason = str(error).split("\n")[0]
        raise InputError(
            f"--backbone {model.config.backbone}: takes no images of "
            f"{model.config.image_size or IMAGE_SIZE} pixels ({reason}); give "
            "another --image-size or --backbone"
        ) from None


def _require_no_shape(stage: _Stage) -> None:
    if stage.model:
        names = ", ".join("--" + name.replace("_", "-") for name in stage.model)
        raise InputError(
            f"{names}: the model of --start-from fixes its shape; leave these "
            "options out"
        )


# ----------------------------------------------------------------- the training


@dataclass(frozen=True)
class _Session:
    """What all stages of a training run share."""

    recipe: Recipe
    data: Path
    identity: dict  # of the data
    run: RunConfig
    processes: Processes
    device: torch.device
    progress: bool
    say: Callable[[str], None]

    def train(self, stage: _Stage) -> list[dict]:
        """Train or resume one stage; return its history."""
        _, references = load_references(self.data, "VAL")
        stage.folder.mkdir(parents=True, exist_ok=True)
        torch.manual_seed(stage.config.seed)
        model = self._model(stage)
        model.search = asdict(stage.search)
        config, objective = stage.config, self._objective(stage, model)
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
                "data_digest": short(self.identity["contents"]),
                "split": "VAL",
                "beam_size": beam_size,
            },
            device=self.device,
            processes=self.processes,
            progress=self.progress,
            say=self.say,
        )
        before = None  # of the captioner that this one starts from
        if stage.start_from is not None and not stage.begun:
            self._say_start(stage.start_from)
            before = evaluate(model.to(self.device).eval())["bleu4"]
        history = train(
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
            data=self.identity,
            objective=objective,
            processes=self.processes,
            checkpoint_minutes=self.run.checkpoint_minutes,
            device=self.device,
            progress=self.progress and self.processes.is_main,
        )
        best = max(epoch["bleu4"] for epoch in history)
        if before is not None and best < before:
            self.say(
                f"{stage.folder}: no epoch reached BLEU-4 {before:.2f}, that of "
                f"{stage.start_from}; try a lower --learning-rate, or keep that "
                "captioner"
            )
        return history

    def _say_start(self, folder: str | Path) -> None:
        """Name the captioner whose score comes next, which training starts
        from."""
        config = read_json(package_folder(folder) / "config.json")
        members = len(config.get("members", [0]))
        if members > 1:
            folder = f"{folder}, the first of its {members} captioners"
        self.say(f"{folder}, before training:")

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
            _require_same_words(model, vocabulary, stage.folder, self.data)
        elif stage.start_from is not None:
            _require_no_shape(stage)
            model = kind.load(stage.start_from, member=0)
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
        model.trained_on |= of_each_image(image_file(self.data, "TRAIN"))
        return model

    def _objective(self, stage: _Stage, model: CaptionModel) -> Callable:
        if stage.config.objective == "self_critical":
            told = CaptionDataset(self.data, "TRAIN")
            parts = (
                part.unflatten(0, (-1, told.captions_per_image))
                for part in (told.captions, told.lengths)
            )
            return SelfCritical(*parts, model.vocabulary)
        return scheduled_sampling if stage.config.own_words else teacher_forcing

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


def _require_same_words(
    model: CaptionModel, vocabulary: Vocabulary, folder: Path, data: Path
) -> None:
    if model.vocabulary.word_map != vocabulary.word_map:
        raise InputError(
            f"{folder}: has another vocabulary than {data}; use the data of its "
            "training"
        )


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
