"""What a checker is made of: run the reader's code, look at its result, compare, and say why not.

Written by hand. Each function returns what is fine and raises `Wrong` with one sentence about what
isn't. A sentence goes on from "03.1 not quite: " and begins with a small letter.
"""

from __future__ import annotations

import math
import numbers
import traceback
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

__all__ = [
    "NotYet",
    "Wrong",
    "call",
    "close",
    "compare",
    "number",
    "parts",
    "quantity",
    "tensor",
    "words",
]

ORDINALS = ("first", "second", "third", "fourth", "fifth", "sixth")


class Wrong(Exception):
    """The answer is wrong; the message says what about it."""


class NotYet(Exception):
    """There is still a gap in the answer."""


def call(answer: object, *arguments: object, **named: object) -> object:
    """What the reader's function gives for copies of the arguments.

    Raises:
        NotYet: if it returns, or stumbles over, three dots that were left in it.
        Wrong: if it is no function, raises, returns nothing, or changes a tensor, array, list or
            dictionary that it was given.
    """
    if not callable(answer):
        raise Wrong(f"a function was expected, and this is {describe(answer)}")
    copies = [_copy(argument) for argument in arguments]
    try:
        with np.errstate(
            all="ignore"
        ):  # what NumPy would warn of, a checker says better
            result = answer(*copies, **named)
    except (NotYet, Wrong):  # from something that the checker handed in
        raise
    except Exception as error:
        # The reader's gap, still open: dots that were computed with (Python's message names the
        # ellipsis), or the placeholder that some put in their stead.
        if isinstance(error, NotImplementedError) or "ellipsis" in str(error):
            raise NotYet from None
        about = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise Wrong(f"your code stops with {about}{_line(error)}") from None
    parts = result if isinstance(result, tuple) else (result,)
    if any(part is ... for part in parts):
        raise NotYet
    if result is None:
        raise Wrong(
            "your function returns nothing: its last line has to be a `return`"
        )
    for position, (before, after) in enumerate(
        zip(arguments, copies, strict=True)
    ):
        if isinstance(before, (Tensor, np.ndarray, list, dict)) and not close(
            before, after, 0
        ):
            raise Wrong(
                f"your function changes its {ORDINALS[position]} argument in place, which its "
                "caller may still need: build a new value instead"
            )
    return result


def describe(value: object) -> str:
    """A value's kind, in words for a message."""
    if isinstance(value, Tensor):
        return f"a tensor of shape {tuple(value.shape)}"
    if isinstance(value, type):
        return f"the class {value.__name__}"
    if value is None:
        return "None"
    if isinstance(value, str):
        return f"the text {value[:30]!r}"
    if isinstance(value, (bool, int, float)):
        return (
            f"the number {str(value)[:20]}"
            if not isinstance(value, bool)
            else str(value)
        )
    name = type(value).__name__
    return f"{'an' if name[0] in 'aeiou' else 'a'} {name}"


def tensor(
    value: object,
    shape: Sequence[int],
    what: str = "the result",
    kind: str = "float",
    known: Mapping[tuple[int, ...], str] | None = None,
) -> Tensor:
    """The value, if it is a tensor of this shape and kind without nan, detached.

    Args:
        value: what the reader's code gave; a NumPy array will do, too.
        shape: the shape it must have.
        what: its name in a message.
        kind: "float", "int" or "bool".
        known: shapes that typical mistakes give, and what to say about each.
    """
    if isinstance(value, np.ndarray) and value.dtype.kind in "biuf":
        value = torch.from_numpy(
            value.copy()
        )  # torch takes no array that was turned round
    if not isinstance(value, Tensor):
        raise Wrong(
            f"{what} should be a tensor of shape {tuple(shape)}, and is {describe(value)}"
        )
    got, wanted = tuple(value.shape), tuple(shape)
    if got != wanted:
        if message := (known or {}).get(got):
            raise Wrong(message)
        swapped = (
            " (the axes are in another order)"
            if sorted(got) == sorted(wanted)
            else ""
        )
        raise Wrong(f"{what} has the shape {got}, expected {wanted}{swapped}")
    is_kind = {
        "float": value.is_floating_point(),
        "bool": value.dtype == torch.bool,
        "int": value.dtype
        in (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8),
    }
    if not is_kind[kind]:
        raise Wrong(f"{what} is of type {value.dtype}, and should be {kind}")
    if kind == "float" and value.isnan().any():
        raise Wrong(
            f"{what} holds nan, not a number: 0/0, or the logarithm of a negative number?"
        )
    return value.detach()


def number(
    value: object, what: str = "the answer", whole: bool = False
) -> float:
    """The value as a float, if it is one number; `whole`: and has no fraction."""
    if isinstance(value, (Tensor, np.ndarray)) and math.prod(value.shape) == 1:
        value = value.item()
    if isinstance(value, (bool, np.bool_)) or not isinstance(
        value, numbers.Real
    ):
        raise Wrong(f"{what} should be one number, and is {describe(value)}")
    try:
        value = float(value)
    except OverflowError:  # a whole number with hundreds of digits
        value = math.inf
    if not math.isfinite(value):
        raise Wrong(
            f"{what} is {value}: a division by zero, or out of the range of floats"
        )
    if whole and value != int(value):
        raise Wrong(f"{what} should be a whole number, and is {value:g}")
    return value


def words(value: object, what: str = "the result") -> list[str]:
    """The value as a list, if it is a list or tuple of strings."""
    if isinstance(value, str):
        raise Wrong(
            f"{what} should be a list of words, and is the text {value[:30]!r}"
        )
    if not isinstance(value, (list, tuple)):
        raise Wrong(
            f"{what} should be a list of words, and is {describe(value)}"
        )
    for each in value:
        if not isinstance(each, str):
            raise Wrong(
                f"{what} should hold words only, and holds {describe(each)}"
            )
    return list(value)


def parts(value: object, *names: str) -> tuple:
    """The value, if it is a tuple or list of as many things as there are names."""
    if not isinstance(value, (tuple, list)) or len(value) != len(names):
        raise Wrong(
            f"{', '.join(names)} should come back, and this is {describe(value)}"
        )
    return tuple(value)


def close(a: object, b: object, tolerance: float = 1e-5) -> bool:
    """Whether two numbers, tensors, arrays, or lists of anything are the same, nearly."""
    if isinstance(a, (Tensor, np.ndarray)) or isinstance(
        b, (Tensor, np.ndarray)
    ):
        a, b = (
            torch.as_tensor(x).detach() if not isinstance(x, str) else x
            for x in (a, b)
        )
        if isinstance(a, str) or isinstance(b, str) or a.shape != b.shape:
            return False
        return torch.allclose(
            a.double(),
            b.double(),
            rtol=tolerance,
            atol=tolerance,
            equal_nan=True,
        )
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(
            close(a[key], b[key], tolerance) for key in a
        )
    if isinstance(a, (list, tuple)) and isinstance(b, (list, tuple)):
        pairs = zip(a, b, strict=False)
        return len(a) == len(b) and all(
            close(x, y, tolerance) for x, y in pairs
        )
    if isinstance(a, numbers.Real) and isinstance(b, numbers.Real):
        return math.isclose(a, b, rel_tol=tolerance, abs_tol=tolerance)
    return a == b


def compare(
    got: object,
    expected: object,
    known: Iterable[tuple[object, str]] = (),
    otherwise: str | None = None,
    what: str = "the result",
    tolerance: float = 1e-5,
) -> None:
    """Nothing, if `got` is as expected.

    Args:
        got: what the reader's code gave for data that the reader need not guess.
        expected: what it should have given.
        known: what typical mistakes would have given, each with what to say about it.
        otherwise: what to say of any other result; by default, where it differs first.
        what: the result's name in the default message.
        tolerance: relative and absolute.
    """
    if close(got, expected, tolerance):
        return
    for value, message in known:
        if close(got, value, tolerance):
            raise Wrong(message)
    raise Wrong(
        otherwise
        or f"{what} is not right: {_difference(got, expected, tolerance)}"
    )


def quantity(
    value: object,
    expected: float,
    known: Iterable[tuple[float, str]] = (),
    what: str = "the answer",
    tolerance: float = 5e-3,
    whole: bool = False,
) -> float:
    """One number that the reader worked out; a message never gives away what it should be.

    Args:
        value: the reader's.
        expected: what it should be.
        known: what typical mistakes give, each with what to say about it.
        what: its name in a message.
        tolerance: relative; by default three digits will do.
        whole: whether it has to be a whole number.
    """
    value = number(value, what, whole)
    if math.isclose(value, expected, rel_tol=tolerance):
        return value
    for wrong, message in known:
        if math.isclose(value, wrong, rel_tol=tolerance):
            raise Wrong(message)
    raise Wrong(f"{what} is too {'large' if value > expected else 'small'}")


def _copy(value: object) -> object:
    if isinstance(value, Tensor):
        return value.clone()  # gradients still reach the original
    if isinstance(value, np.ndarray):
        return value.copy()
    if isinstance(value, dict) and type(value) is dict:
        return {key: _copy(each) for key, each in value.items()}
    return [_copy(each) for each in value] if type(value) is list else value


def _line(error: Exception) -> str:
    """The line of the reader's cell where it went wrong, quoted, where it is known."""
    lines = [
        frame.line
        for frame in traceback.extract_tb(error.__traceback__)[
            1:
        ]  # the first is `call`'s own
        if "site-packages" not in frame.filename and frame.line
    ]
    return f", at the line `{lines[-1]}`" if lines else ""


def _difference(got: object, expected: object, tolerance: float) -> str:
    """Where two results first differ, in words."""
    got, expected = (
        torch.from_numpy(x) if isinstance(x, np.ndarray) else x
        for x in (got, expected)
    )
    if isinstance(expected, Tensor):
        if not isinstance(got, Tensor) or got.shape != expected.shape:
            return (
                f"it is {describe(got)}, and {describe(expected)} was expected"
            )
        apart = ~torch.isclose(
            got.double(), expected.double(), tolerance, tolerance
        )
        if expected.ndim == 0:
            return f"it is {got.item():.4g}, and {expected.item():.4g} was expected"
        place = tuple(apart.nonzero()[0].tolist())
        return (
            f"its element {list(place)} is {got[place].item():.4g}, and "
            f"{expected[place].item():.4g} was expected"
        )
    if isinstance(expected, numbers.Real) and isinstance(got, numbers.Real):
        return f"it is {got:.4g}, and {expected:.4g} was expected"
    return f"it is {str(got)[:60]}, and {str(expected)[:60]} was expected"
