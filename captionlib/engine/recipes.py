"""Recipes in small JSON files: find one, check every key and value, keep it
beside its training.

Written by hand, and without torch. The packaged recipes, in assets/recipes,
give the reasons for their numbers under "about".
"""

from __future__ import annotations

from pathlib import Path

from captionlib.config import (
    DataConfig,
    DecodingConfig,
    EngineConfig,
    ModelConfig,
    Recipe,
    ScenesConfig,
    Settings,
    ViewConfig,
)
from captionlib.config.settings import check_setting, settings_of
from captionlib.io.files import ASSETS, InputError, read_json, write_json

__all__ = ["RECIPES", "find_recipe", "keep_recipe", "read_recipe"]

RECIPES = dict(
    sorted((path.stem, path) for path in (ASSETS / "recipes").glob("*.json"))
)
KEPT = "recipe.json"  # where a training keeps the recipe that it was begun with


def find_recipe(
    recipe: str | Path | Recipe | None, to: str | Path, *, resume: bool
) -> Recipe:
    """The recipe of the training in `to`: the one that it keeps, where it is
    resumed.

    Args:
        recipe: a packaged recipe's name, a file, or a recipe; None for one that
            sets nothing.

    Raises:
        InputError: if it can't be read, or is not the one that the training was
            begun with.
    """
    kept = Path(to) / KEPT
    if not (resume and kept.is_file()):
        if isinstance(recipe, Recipe):
            return recipe
        return Recipe() if recipe is None else read_recipe(recipe)
    begun = read_recipe(kept)
    if isinstance(recipe, Recipe):
        recipe = recipe.name
    if recipe is not None and Path(recipe).stem != begun.name:
        how = f"--recipe {begun.name}" if begun.name else "no recipe"
        raise InputError(
            f"{to}: was begun with {how}; train into another folder"
        )
    return begun


def keep_recipe(recipe: Recipe, folder: str | Path) -> None:
    """Write a recipe to a training's folder, for `--resume`."""
    write_json(Path(folder) / KEPT, recipe.as_dict(), indent=1)


def read_recipe(name: str | Path) -> Recipe:
    """Read a packaged recipe by its name, or a file.

    Raises:
        InputError: if there is none, or it has an unknown key or a value that
            is out of range.
    """
    path = RECIPES.get(str(name), Path(name))
    if not path.is_file():
        raise InputError(
            f"{name}: no such recipe; choose from {', '.join(RECIPES)}, or name a JSON file"
        )
    stored = read_json(path)
    _check_names(str(path), stored, (*_SECTIONS, *settings_of(ViewConfig)))
    for key, value in stored.items():
        where = f"{path}: {key}"
        if key == "stages":
            _check_stages(str(path), value)
        elif key in _SECTIONS:
            _SECTIONS[key](where, value)
        else:
            _check_value(where, ViewConfig, key, value)
    return Recipe(**{"name": path.stem} | stored)


def _check_names(where: str, value, names) -> None:
    if type(value) is not dict:
        raise InputError(
            f"{where}: must be an object, with any of {', '.join(names)}"
        )
    for name in value:
        if name not in names:
            raise InputError(
                f"{where}: unknown setting {name!r}; expected one of {', '.join(names)}"
            )


def _check_value(where: str, kind: type[Settings], name: str, value) -> None:
    try:
        check_setting(kind, name, value)
    except ValueError as error:
        raise InputError(f"{where}: {error}") from None


def _settings(*kinds: type[Settings], also: tuple[str, ...] = ()):
    """What checks an object of settings; those in `also` are texts."""
    homes = {name: kind for kind in kinds for name in settings_of(kind)}

    def check(where: str, value) -> None:
        _check_names(where, value, (*also, *homes))
        for name, item in value.items():
            if name in homes:
                _check_value(f"{where}: {name}", homes[name], name, item)
            else:
                _check_text(f"{where}: {name}", item)

    return check


def _check_text(where: str, value) -> None:
    if type(value) is not str:
        raise InputError(f"{where}: must be a text, got {value!r}")


def _check_texts(where: str, value) -> None:
    if type(value) is not list:
        raise InputError(f"{where}: must be a list")
    for item in value:
        _check_text(where, item)


def _check_stages(where: str, value) -> None:
    if type(value) is not list:
        raise InputError(f"{where}: stages: must be a list")
    if not value:
        raise InputError(f"{where}: has no stages; give it one, if only {{}}")
    for number, stage in enumerate(value, start=1):
        _settings(EngineConfig)(f"{where}: stages {number}", stage)


# What a recipe may hold besides the settings of `ViewConfig`, and what checks
# it.
_SECTIONS = {
    "name": _check_text,
    "about": _check_texts,
    "scenes": _settings(ScenesConfig),
    "data": _settings(DataConfig, also=("dataset",)),
    "model": _settings(ModelConfig),
    "stages": _check_stages,
    "search": _settings(DecodingConfig),
}
