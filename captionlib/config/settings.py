"""Declare settings: default, meaning and range in one place."""

from __future__ import annotations

import math
from dataclasses import MISSING, Field, dataclass, field, fields
from types import NoneType
from typing import get_args, get_type_hints

__all__ = [
    "SEED",
    "Settings",
    "borrowed",
    "check_setting",
    "range_in_words",
    "setting",
    "settings_of",
    "value_types",
]

SEED = {"at_least": 0, "at_most": 2**63 - 1}  # what torch takes as a seed


def setting(
    default,
    about: str,
    *,
    at_least: float | None = None,
    above: float | None = None,
    at_most: float | None = None,
    below: float | None = None,
    choices: tuple[str, ...] | None = None,
    unset: str | None = None,
    metavar: str | None = None,
    also: str | None = None,
):
    """A dataclass field with a help text and the range of its value.

    Args:
        default: the value if none is given; None means "not set" and is always
            allowed.
        about: one line, printed by `--help`.
        at_least, above, at_most, below: bounds of a number.
        choices: the allowed strings; with "on" and "off" among them, True and
            False are allowed, too.
        unset: what None means, for the help.
        metavar: the placeholder for the value in the help, such as DIR.
        also: another name of the option.
    """
    bounds = {
        "at_least": at_least,
        "above": above,
        "at_most": at_most,
        "below": below,
        "choices": choices,
        "unset": unset,
        "metavar": metavar,
        "also": also,
    }
    about_it = {"about": about} | {
        name: bound for name, bound in bounds.items() if bound is not None
    }
    return field(default=default, metadata=about_it)


def borrowed(kind: type[Settings], name: str, unset: str):
    """A setting of another class, in which None means what `unset` says."""
    about_it = {**settings_of(kind)[name].metadata, "unset": unset}
    return field(default=None, metadata=about_it)


@dataclass(frozen=True)
class Settings:
    """A group of settings, checked on construction.

    Raises:
        ValueError: if a value is out of range; names the setting and its range.
    """

    def __post_init__(self):
        for each in settings_of(type(self)).values():
            value = getattr(self, each.name)
            if value is None and each.default in (None, MISSING):
                continue
            if reason := _out_of_range(value, each.metadata):
                raise ValueError(f"{each.name} must be {reason}, got {value!r}")


def settings_of(kind: type[Settings]) -> dict[str, Field]:
    """The settings that `kind` declares, by name."""
    return {
        each.name: each for each in fields(kind) if "about" in each.metadata
    }


def value_types(kind: type[Settings], name: str) -> tuple[type, ...]:
    """A setting's types: (int, NoneType) if it is declared `int | None`."""
    declared = get_type_hints(kind)[name]
    return get_args(declared) or (declared,)


def range_in_words(bounds) -> str:
    """The range in a field's metadata, such as "at least 0 and below 1", or
    ""."""
    if "choices" in bounds:
        return "one of " + ", ".join(bounds["choices"])
    return " and ".join(
        f"{words} {bounds[name]}"
        for name, (words, _) in _TESTS.items()
        if name in bounds
    )


def check_setting(kind: type[Settings], name: str, value) -> None:
    """Check one value and its type.

    Raises:
        ValueError: such as "must be a whole number, got '3'".
    """
    each, types = settings_of(kind)[name], value_types(kind, name)
    if value is None and NoneType in types:
        return
    if type(value) not in types and not (type(value) is int and float in types):
        said = range_in_words(each.metadata) if len(types) > 1 else ""
        raise ValueError(f"must be {said or _SAID[types[0]]}, got {value!r}")
    if reason := _out_of_range(value, each.metadata):
        raise ValueError(f"must be {reason}, got {value!r}")


_SAID = {
    int: "a whole number",
    float: "a number",
    str: "a string",
    bool: "true or false",
}
_TESTS = {
    "at_least": ("at least", lambda value, bound: value >= bound),
    "above": ("above", lambda value, bound: value > bound),
    "at_most": ("at most", lambda value, bound: value <= bound),
    "below": ("below", lambda value, bound: value < bound),
}


def _out_of_range(value, bounds) -> str | None:
    """What `value` should be; None if it is within `bounds`."""
    words = range_in_words(bounds)
    if "choices" in bounds:
        if isinstance(value, bool):
            value = "on" if value else "off"
        return None if value in bounds["choices"] else words
    if isinstance(value, str) and not value.strip():
        return "a string that is not empty"
    given = [name for name in _TESTS if name in bounds]
    if not given:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return words
    if isinstance(value, float) and not math.isfinite(value):
        return words
    inside = all(_TESTS[name][1](value, bounds[name]) for name in given)
    return None if inside else words
