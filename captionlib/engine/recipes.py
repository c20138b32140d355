"""Recipes in JSON files: find and check them, and store them with their
training.

Nothing here imports torch. The packaged recipes, in assets/recipes, give the
reasons for their settings under "about".
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
KEPT = "recipe.json"  # a training's own copy of its recipe


def find_recipe(
    recipe: str | Path | Recipe | None, to: str | Path, *, resume: bool
) -> Recipe:
    """The recipe of the training in `to`: its stored one, if it is resumed.

    Args:
        recipe: a packaged recipe's name, a file, or a recipe; None means all
            defaults.

    Raises:
        InputError: if the recipe can't be read, or is not that of the training
            to be resumed.
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
            f"{to}: was started with {how}; train into another folder"
        )
    return begun


def keep_recipe(recipe: Recipe, folder: str | Path) -> None:
    """Store a recipe in the folder of its training, for `--resume`."""
    write_json(Path(folder) / KEPT, recipe.as_dict(), indent=1)


def read_recipe(name: str | Path) -> Recipe:
    """Read a packaged recipe, by its name, or a JSON file.

    Raises:
        InputError: if there is none, or a key is unknown or a value out of
            range.
    """
    # The user's own file comes before a packaged recipe of its name.
    own = Path(name)
    path = own if own.is_file() else RECIPES.get(str(name), own)
    if not path.is_file():
        raise InputError(
            f"{name}: no such recipe; choose from {', '.join(RECIPES)}, or "
            "name a JSON file"
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
                f"{where}: unknown setting {name!r}; expected one of "
                f"{', '.join(names)}"
            )


def _check_value(where: str, kind: type[Settings], name: str, value) -> None:
    try:
        check_setting(kind, name, value)
    except ValueError as error:
        raise InputError(f"{where}: {error}") from None


def _settings(*kinds: type[Settings], also: tuple[str, ...] = ()):
    """A function that checks a dict of settings; those in `also` are
    strings."""
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
        raise InputError(f"{where}: must be a string, got {value!r}")


def _check_texts(where: str, value) -> None:
    if type(value) is not list:
        raise InputError(f"{where}: must be a list")
    for item in value:
        _check_text(where, item)


def _check_stages(where: str, value) -> None:
    if type(value) is not list:
        raise InputError(f"{where}: stages: must be a list")
    if not value:
        raise InputError(
            f"{where}: has no stages; add at least one, such as {{}}"
        )
    for number, stage in enumerate(value, start=1):
        _settings(EngineConfig)(f"{where}: stages {number}", stage)


# The keys of a recipe besides the settings of `ViewConfig`, with their checks.
_SECTIONS = {
    "name": _check_text,
    "about": _check_texts,
    "scenes": _settings(ScenesConfig),
    "data": _settings(DataConfig, also=("dataset",)),
    "model": _settings(ModelConfig),
    "stages": _check_stages,
    "search": _settings(DecodingConfig),
}
