"""Recipes: the settings of a training in a small JSON file, for `captionlib train --recipe NAME`.

Written by hand, and without torch. A recipe holds what the command line could say: how captions
become numbers, the model, one or two stages of training, the search. What it leaves out keeps its
default, and what the command line says comes first. The packaged recipes, in assets/recipes, give
the reasons for their numbers under "about".
"""

from __future__ import annotations

from argparse import Namespace
from dataclasses import asdict, dataclass, field
from pathlib import Path

from captionlib.cli.arguments import (
    MODEL_OPTIONS,
    RECIPES,
    SEARCH_OPTIONS,
    TRAIN_OPTIONS,
    VIEW_OPTIONS,
    given,
)
from captionlib.io.files import InputError, read_json, write_json

__all__ = ["Recipe", "find_recipe", "read_recipe"]

_OF_A_RECIPE = (
    *VIEW_OPTIONS,
    "validation_beam_size",
)  # options for all stages alike
KEPT = "recipe.json"  # where a training keeps the recipe that it was begun with


@dataclass(frozen=True)
class Recipe:
    """Settings of a training, by the names of the classes' fields; by default, none."""

    name: str = ""
    about: list[str] = field(default_factory=list)
    scenes: dict = field(
        default_factory=dict
    )  # of `write_scenes`, where these are the data
    data: dict = field(
        default_factory=dict
    )  # of `DataConfig`, and the data set's name
    model: dict = field(default_factory=dict)  # of `ModelConfig`
    stages: list[dict] = field(
        default_factory=lambda: [{}]
    )  # of `TrainConfig`, one each
    search: dict = field(default_factory=dict)  # of `SearchConfig`
    cache_features: bool = (
        True  # encode images once, while the encoder is frozen
    )
    mirrored: bool = False  # show half of the images left and right exchanged
    validation_beam_size: int = 1  # for choosing the best epoch

    def overridden(self, args: Namespace) -> Recipe:
        """With the options that the command line gives, in every stage."""
        model = (
            {} if args.start_from is not None else self.model
        )  # that one has its own shape
        changed = {
            "model": model | given(args, *MODEL_OPTIONS),
            "stages": [
                stage | given(args, *TRAIN_OPTIONS) for stage in self.stages
            ],
            "search": self.search | given(args, *SEARCH_OPTIONS),
        }
        return Recipe(**asdict(self) | changed | given(args, *_OF_A_RECIPE))

    def runs(self, args: Namespace) -> list[Namespace]:
        """The options of `captionlib train` for each stage.

        Each stage begins with the best model of the one before. The last one's folder is `--to`,
        where a captioner is looked for; those before it are in `stage1` inside it, and so on.
        """
        runs: list[Namespace] = []
        for number, stage in enumerate(self.stages, start=1):
            run = Namespace(**vars(args))
            settings = (
                stage
                | self.search
                | {name: getattr(self, name) for name in _OF_A_RECIPE}
            )
            if not runs:
                settings |= self.model
            else:
                settings |= dict.fromkeys(MODEL_OPTIONS) | {
                    "start_from": runs[-1].to
                }
            if number < len(self.stages):
                settings["to"] = str(Path(args.to) / f"stage{number}")
            vars(run).update(settings)
            runs.append(run)
        return runs

    def keep(self, folder: str | Path) -> None:
        """Write it to a training's folder, for `--resume`."""
        write_json(Path(folder) / KEPT, asdict(self), indent=1)


def find_recipe(args: Namespace) -> Recipe:
    """What `captionlib train` is to do: its recipe, if it has one, and its options.

    A training that is resumed goes on with the recipe in its folder.

    Raises:
        InputError: if a recipe can't be read, or `--recipe` names another than the training's.
    """
    kept = Path(args.to) / KEPT
    if args.resume and kept.is_file():
        recipe = read_recipe(kept)
        if args.recipe is not None and Path(args.recipe).stem != recipe.name:
            begun = f"--recipe {recipe.name}" if recipe.name else "no recipe"
            raise InputError(
                f"{args.to}: was begun with {begun}; train into another folder"
            )
    else:
        recipe = Recipe() if args.recipe is None else read_recipe(args.recipe)
    return recipe.overridden(args)


def read_recipe(name: str | Path) -> Recipe:
    """Read a packaged recipe by its name, or a file.

    Raises:
        InputError: if there is none, or it has an unknown key or a value of the wrong kind.
    """
    path = RECIPES.get(str(name), Path(name))
    if not path.is_file():
        raise InputError(
            f"{name}: no such recipe; there are {', '.join(RECIPES)}, or name a JSON file of yours"
        )
    stored = read_json(path)
    _check(str(path), stored, _KEYS)
    recipe = Recipe(**{"name": path.stem} | stored)
    if recipe.validation_beam_size < 1:
        raise InputError(f"{path}: validation_beam_size: must be at least 1")
    if not recipe.stages:
        raise InputError(f"{path}: has no stages; give it one, if only {{}}")
    return recipe


def _kinds(options: dict) -> dict[str, type]:
    return {name: kind or bool for name, (_, kind, _) in options.items()}


# What a recipe may hold: by name a type, a list of such, or names with types again.
_KEYS = {
    "name": str,
    "about": [str],
    "scenes": dict.fromkeys(("train", "val", "test", "seed"), int),
    "data": {
        "dataset": str,
        "captions_per_image": int,
        "min_word_freq": int,
        "max_len": int,
    },
    "model": _kinds(MODEL_OPTIONS),
    "stages": [_kinds(TRAIN_OPTIONS)],
    "search": _kinds(SEARCH_OPTIONS),
    **_kinds(VIEW_OPTIONS),
    "validation_beam_size": int,
}
_SAID = {
    int: "a whole number",
    float: "a number",
    str: "a text",
    bool: "true or false",
}


def _check(where: str, value, kind) -> None:
    if isinstance(kind, dict):
        if type(value) is not dict:
            raise InputError(
                f"{where}: must be an object, with any of {', '.join(kind)}"
            )
        for name, item in value.items():
            if name not in kind:
                raise InputError(
                    f"{where}: {name!r} is no setting; there are {', '.join(kind)}"
                )
            _check(f"{where}: {name}", item, kind[name])
    elif isinstance(kind, list):
        if type(value) is not list:
            raise InputError(f"{where}: must be a list")
        for number, item in enumerate(value, start=1):
            _check(f"{where} {number}", item, kind[0])
    elif type(value) is not kind and not (kind is float and type(value) is int):
        raise InputError(f"{where}: must be {_SAID[kind]}, got {value!r}")
