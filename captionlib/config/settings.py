"""How a setting is declared: its default, its meaning and its range in one place."""

from __future__ import annotations

import math
from dataclasses import MISSING, dataclass, field, fields

__all__ = ["Settings", "setting"]


def setting(
    default,
    about: str,
    *,
    at_least: float | None = None,
    above: float | None = None,
    at_most: float | None = None,
    below: float | None = None,
    choices: tuple[str, ...] | None = None,
):
    """A dataclass field with its help text and the range that its value must lie in.

    Args:
        default: the value where none is given; None means "not set" and is in every range.
        about: one line, printed by `--help`.
        at_least, above, at_most, below: bounds of a number.
        choices: the only values of a text.
    """
    bounds = {
        "at_least": at_least,
        "above": above,
        "at_most": at_most,
        "below": below,
        "choices": choices,
    }
    about_it = {"about": about} | {
        name: bound for name, bound in bounds.items() if bound is not None
    }
    return field(default=default, metadata=about_it)


@dataclass(frozen=True)
class Settings:
    """A group of settings that checks its values when it is made.

    Raises:
        ValueError: naming the setting, its range and the value, if one is out of range.
    """

    def __post_init__(self):
        for each in fields(self):
            value = getattr(self, each.name)
            if value is None and each.default in (None, MISSING):
                continue
            if reason := _out_of_range(value, each.metadata):
                raise ValueError(f"{each.name} must be {reason}, got {value!r}")


def _out_of_range(value, bounds) -> str | None:
    """What `value` should have been; None if it is within `bounds`."""
    if "choices" in bounds:
        allowed = bounds["choices"]
        return None if value in allowed else f"one of {', '.join(allowed)}"
    tests = {
        "at_least": ("at least", lambda v, b: v >= b),
        "above": ("above", lambda v, b: v > b),
        "at_most": ("at most", lambda v, b: v <= b),
        "below": ("below", lambda v, b: v < b),
    }
    given = [name for name in tests if name in bounds]
    words = " and ".join(f"{tests[name][0]} {bounds[name]}" for name in given)
    if not given:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return words
    inside = all(tests[name][1](value, bounds[name]) for name in given)
    return None if inside and math.isfinite(value) else words
