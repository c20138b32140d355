"""Building blocks of checkers: run the reader's code, inspect and compare.

Each function returns a valid value, or raises `Wrong` with a sentence on what
is wrong. The sentence continues "03.1 not quite: " and so starts in lower case.
"""

from __future__ import annotations

import inspect
import math
import numbers
import re
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

__all__ = [
    "NotYet",
    "Wrong",
    "also",
    "call",
    "close",
    "compare",
    "items",
    "number",
    "parts",
    "quantity",
    "shown",
    "tensor",
    "trusted",
    "words",
]

CHECKERS = Path(__file__).parent
ORDINALS = ("first", "second", "third", "fourth", "fifth", "sixth")


class Wrong(Exception):
    """The answer is wrong; the message says what about it."""


class NotYet(Exception):
    """The answer still has a gap."""


def call(answer: object, *arguments: object, **named: object) -> object:
    """Call the reader's function with copies of the arguments.

    Raises:
        NotYet: if it returns, or fails on, three dots that were left in it.
        Wrong: if it is not a function, takes another number of arguments,
            raises, returns nothing, or changes a tensor, array, list,
            dictionary or set that it was given.
    """
    if not callable(answer):
        raise Wrong(f"expected a function, but this is {describe(answer)}")
    _fits(answer, arguments, named)
    copies = [_copy(argument) for argument in arguments]
    try:
        # Checkers explain better than NumPy's warnings.
        with np.errstate(all="ignore"):
            result = answer(*copies, **named)
    except (NotYet, Wrong):  # raised by an object that the checker passed in
        raise
    except Exception as error:
        # A gap that is still open: computing with the dots (Python's message
        # names the ellipsis), or NotImplementedError as a placeholder.
        # PyTorch raises the latter, too, where a kernel "is not implemented for"
        # a type.
        gap = isinstance(error, NotImplementedError)
        if "ellipsis" in str(error) or (gap and "for '" not in str(error)):
            raise NotYet from None
        raise Wrong(_stopped(error, arguments)) from None
    parts = result if isinstance(result, tuple) else (result,)
    if any(part is ... for part in parts):
        raise NotYet
    if result is None:
        raise Wrong(
            "your function returns nothing, that is, None: give its result back "
            "with `return`"
        )
    for position, (before, after) in enumerate(
        zip(arguments, copies, strict=True)
    ):
        if isinstance(
            before, (Tensor, np.ndarray, list, dict, set)
        ) and not close(before, after, 0):
            raise Wrong(
                f"your function changes its {ORDINALS[position]} argument in "
                "place, which its caller may still need: build a new value "
                "instead"
            )
    return result


def _fits(answer: Callable, arguments: Sequence, named: Mapping) -> None:
    """Raise `Wrong` if the function doesn't take so many arguments."""
    try:
        signature = inspect.signature(answer)
    except (TypeError, ValueError):  # some built-in functions have none
        return
    try:
        signature.bind(*arguments, **named)
    except TypeError as error:
        each = signature.parameters.values()
        takes = sum(
            one.kind in (one.POSITIONAL_ONLY, one.POSITIONAL_OR_KEYWORD)
            for one in each
        )
        if takes == len(arguments):
            raise Wrong(f"your function can't be called: {error}") from None
        plural = "s" if takes != 1 else ""
        raise Wrong(
            f"your function takes {takes} argument{plural}, but is given "
            f"{len(arguments)}"
        ) from None


def describe(value: object) -> str:
    """A value's kind, in words for a message."""
    if isinstance(value, Tensor):
        return f"a tensor of shape {tuple(value.shape)}"
    if isinstance(value, np.ndarray):
        return f"an array of shape {value.shape}"
    if isinstance(value, type):
        return f"the class {value.__name__}"
    if value is None:
        return "None"
    if isinstance(value, str):
        return f"the string {value[:30]!r}"
    if isinstance(value, (bool, int, float)):
        return (
            f"the number {str(value)[:20]}"
            if not isinstance(value, bool)
            else str(value)
        )
    name = type(value).__name__
    # Capitals are spelled: an SGD, an LSTM.
    vowels = "AEFHILMNORSX" if name[:2].isupper() else "aeiouAEIO"
    return f"{'an' if name[0] in vowels else 'a'} {name}"


def tensor(
    value: object,
    shape: Sequence[int],
    what: str = "the result",
    kind: str = "float",
    known: Mapping[tuple[int, ...], str] | None = None,
) -> Tensor:
    """Check that the value is a tensor of this shape and kind, and detach it.

    Args:
        value: the reader's result; a NumPy array will do, too, or a list of
            numbers, tensors or such lists.
        shape: the shape it must have.
        what: its name in a message.
        kind: "float", "int" or "bool".
        known: shapes that result from typical mistakes, with a message for
            each.
    """
    if isinstance(value, np.ndarray) and value.dtype.kind in "biuf":
        # Torch does not take arrays with negative strides.
        value = torch.from_numpy(value.copy())
    if isinstance(value, (list, tuple)):
        value = _stacked(value)
    if isinstance(value, numbers.Real) and not tuple(shape):
        value = torch.as_tensor(value)
    if isinstance(value, (list, tuple)):
        lengths = _lengths(value)
        if len(set(lengths)) > 1:
            raise Wrong(
                f"{what} should be a tensor of shape {tuple(shape)}, but its "
                f"rows have the lengths {', '.join(map(str, lengths))}"
            )
    if not isinstance(value, Tensor):
        raise Wrong(
            f"{what} should be a tensor of shape {tuple(shape)}, but is "
            f"{describe(value)}"
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
        raise Wrong(f"{what} has dtype {value.dtype}, but should be {kind}")
    if kind == "float" and value.isnan().any():
        raise Wrong(
            f"{what} holds nan, not a number: 0/0, or the logarithm of a "
            "negative number?"
        )
    value = value.detach()
    return value.float() if value.dtype == torch.float64 else value


def _stacked(value: list | tuple) -> object:
    """A tensor of a list's numbers, if it can be one; else the list."""
    if not value:
        return torch.zeros(0)
    try:
        parts = [
            _stacked(part) if isinstance(part, (list, tuple)) else part
            for part in value
        ]
        return torch.stack([torch.as_tensor(part) for part in parts])
    except (TypeError, ValueError, RuntimeError):
        return value


def _lengths(value: list | tuple) -> list[int]:
    """How many items each item has, if all are lists, arrays or the like."""
    try:
        return [len(each) for each in value if not isinstance(each, str)]
    except TypeError:  # among them is a number
        return []


def number(
    value: object, what: str = "the answer", whole: bool = False
) -> float:
    """Check that the value is one number, or a `whole` one, and return a
    float."""
    if isinstance(value, (Tensor, np.ndarray)) and math.prod(value.shape) == 1:
        value = value.item()
    if isinstance(value, (bool, np.bool_)) or not isinstance(
        value, numbers.Real
    ):
        raise Wrong(f"{what} should be one number, but is {describe(value)}")
    try:
        value = float(value)
    except OverflowError:  # a whole number with hundreds of digits
        value = math.inf
    if not math.isfinite(value):
        raise Wrong(
            f"{what} is {value}: a division by zero, or out of the range of "
            "floats"
        )
    if whole and value != int(value):
        raise Wrong(f"{what} should be a whole number, but is {value:g}")
    return value


def words(value: object, what: str = "the result") -> list[str]:
    """Check that the value is a list or tuple of strings, and return a list."""
    if isinstance(value, str):
        raise Wrong(
            f"{what} should be a list of words, but is the string "
            f"{value[:30]!r}"
        )
    if isinstance(value, np.ndarray) and value.dtype.kind == "U":
        value = value.tolist()
    if not isinstance(value, (list, tuple)):
        raise Wrong(
            f"{what} should be a list of words, but is {describe(value)}"
        )
    for each in value:
        if not isinstance(each, str):
            raise Wrong(
                f"{what} should hold only words, but holds {describe(each)}"
            )
    return list(value)


def items(value: object, what: str = "the result") -> list:
    """Check that the value is a list, tuple, range or a vector of an array or a
    tensor, and return a list."""
    if isinstance(value, (Tensor, np.ndarray)) and value.ndim == 1:
        return value.tolist()
    if isinstance(value, (list, tuple, range)):
        return list(value)
    raise Wrong(f"{what} should be a list, but is {describe(value)}")


def parts(value: object, *names: str) -> tuple:
    """Check that the value is a tuple or list with one item per name."""
    if not isinstance(value, (tuple, list)) or len(value) != len(names):
        size = f" of {len(value)}" if isinstance(value, (tuple, list)) else ""
        raise Wrong(
            f"{', '.join(names)} should come back, but this is "
            f"{describe(value)}{size}"
        )
    return tuple(value)


def close(a: object, b: object, tolerance: float = 1e-5) -> bool:
    """Whether two numbers, tensors, arrays or nested lists are nearly equal."""
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
    """Raise `Wrong` unless `got` is as expected.

    Args:
        got: the reader's result.
        expected: the right result.
        known: results of typical mistakes, with a message for each.
        otherwise: the message for any other result; where it first differs
            follows, unless the message tells the reader what "you have".
        what: the result's name in the default message.
        tolerance: relative and absolute.
    """
    if close(got, expected, tolerance):
        return
    for value, message in known:
        if close(got, value, tolerance):
            raise Wrong(message)
    if otherwise and re.search(r"\byou(r|rs)?\b", otherwise):
        raise Wrong(otherwise)
    lead = otherwise or f"{what} is not right"
    raise Wrong(f"{lead}: {_difference(got, expected, tolerance)}")


def quantity(
    value: object,
    expected: float,
    known: Iterable[tuple[float, str]] = (),
    what: str = "the answer",
    tolerance: float = 5e-3,
    whole: bool = False,
) -> float:
    """Check a number that the reader worked out, without giving away the
    answer.

    Args:
        value: the reader's number.
        expected: the right number.
        known: results of typical mistakes, with a message for each.
        what: its name in a message.
        tolerance: relative; by default three digits are enough.
        whole: whether it must be a whole number.
    """
    value = number(value, what, whole)
    if math.isclose(value, expected, rel_tol=tolerance):
        return value
    for wrong, message in known:
        if math.isclose(value, wrong, rel_tol=tolerance):
            raise Wrong(message)
    raise Wrong(f"{what} is too {'large' if value > expected else 'small'}")


def also(
    answer: object,
    right: Callable,
    *cases: tuple,
    what: str = "the result",
    tolerance: float = 1e-4,
) -> None:
    """Compare an answer with `right` on further arguments.

    Other sizes and edge cases tell whether the answer holds in general: a
    number or a size that the question shows may stand in it as a constant.

    Args:
        answer: the reader's function.
        right: gives the expected result.
        cases: the arguments of a call each.
        what: the result's name in a message.
        tolerance: relative and absolute.
    """
    for arguments in cases:
        try:
            expected = right(*arguments)
            got = _like(call(answer, *arguments), expected, what)
            compare(got, expected, what=what, tolerance=tolerance)
        except Wrong as wrong:
            called = ", ".join(map(_brief, arguments))
            raise Wrong(f"{wrong} (called with {called})") from None


def _like(value: object, expected: object, what: str) -> object:
    """The value in the form of what is expected, if that form is allowed."""
    if isinstance(expected, Tensor):
        kind = "float" if expected.is_floating_point() else "int"
        kind = "bool" if expected.dtype == torch.bool else kind
        return tensor(value, expected.shape, what, kind)
    if isinstance(expected, np.ndarray):
        return _like(value, torch.from_numpy(expected), what).numpy()
    if isinstance(expected, tuple):
        names = [f"part {i + 1} of {what}" for i in range(len(expected))]
        pairs = zip(parts(value, *names), expected, names, strict=True)
        return tuple(_like(*each) for each in pairs)
    if isinstance(expected, list):
        value = items(value, what)
        if len(value) != len(expected):
            return value
        pairs = zip(value, expected, strict=True)
        return [_like(*pair, f"an item of {what}") for pair in pairs]
    if isinstance(expected, numbers.Real):
        return number(value, what)
    return value


def _brief(value: object) -> str:
    """An argument, in a few characters."""
    if isinstance(value, (Tensor, np.ndarray)):
        if value.ndim != 1 or len(value) > 8:
            return describe(value)
        value = value.tolist()
    if isinstance(value, (list, tuple)):
        value = type(value)(
            round(x, 4) if isinstance(x, float) else x for x in value
        )
    if isinstance(value, (list, tuple, dict, str, bool, int, float)):
        text = repr(value)
        return text if len(text) <= 70 else f"{text[:66]}...{text[-1]}"
    return describe(value)


def trusted(trust: Callable, version: Callable) -> bool:
    """Whether a reader's test lets a version of a function pass.

    The test fails by an assertion, or by returning False.
    """

    def run(version) -> bool:
        try:
            verdict = trust(version)
        except AssertionError:
            return False
        return True if verdict is None else verdict

    if callable(trust):
        _fits(trust, (version,), {})
    verdict = call(run if callable(trust) else trust, version)
    if not isinstance(verdict, (bool, np.bool_)):
        raise Wrong(
            "your test should assert, or return True or False; it returned "
            f"{describe(verdict)}"
        )
    return bool(verdict)


def shown(got: float, expected: float) -> str:
    """The first number, with as many digits as tell it from the second."""
    if isinstance(got, int) and isinstance(expected, int):
        return str(got)
    if math.isclose(got, expected, rel_tol=1e-9):
        return f"{got:.4g}"
    for digits in range(4, 17):
        text = f"{got:.{digits}g}"
        if text != f"{expected:.{digits}g}":
            return text
    return repr(got)


def _copy(value: object) -> object:
    if isinstance(value, Tensor):
        return value.clone()  # gradients still flow to the original
    if isinstance(value, np.ndarray):
        return value.copy()
    if isinstance(value, dict) and type(value) is dict:
        return {key: _copy(each) for key, each in value.items()}
    if type(value) is set:
        return set(value)
    return [_copy(each) for each in value] if type(value) is list else value


# What Python's errors mean, the special ones before the general.
REASONS = {
    ZeroDivisionError: "something is divided by zero",
    RecursionError: "a function calls itself without end",
    IndexError: "something is looked for beyond an end",
    KeyError: "something is looked up that isn't there",
    AssertionError: "an assertion doesn't hold",
    OverflowError: "a number is too large",
    TypeError: "values of these kinds, or so many arguments, don't go there",
    ValueError: "a shape, a length or a value doesn't fit",
    RuntimeError: "a shape, a size or a dtype doesn't fit",
}


def _stopped(error: Exception, arguments: Sequence) -> str:
    """Where the reader's code stopped, why, and what it had been given."""
    lines = [
        frame.line
        for frame in traceback.extract_tb(error.__traceback__)[1:]
        if "site-packages" not in frame.filename
        and Path(frame.filename).parent != CHECKERS
        and frame.line
    ]
    where = f" at the line `{lines[-1]}`" if lines else ""
    reasons = (
        text for kind, text in REASONS.items() if isinstance(error, kind)
    )
    why = next(reasons, "Python can't go on")
    if name := getattr(error, "name", None):
        if isinstance(error, NameError):
            why = f"`{name}` isn't defined"
        elif isinstance(error, AttributeError):
            why = f"something there has no `{name}`"
    if isinstance(error, KeyError) and len(str(error)) < 40:
        why = f"{error} is looked up, but isn't there"
    plain = (numbers.Real, str, list, dict)
    given = ", ".join(
        repr(value)
        if isinstance(value, plain) and len(repr(value)) < 50
        else describe(value)
        for value in arguments
    )
    given = f" (it was given: {given})" if given else ""
    return f"your code stops{where}: {why}{given}"


def _difference(got: object, expected: object, tolerance: float) -> str:
    """Where two results first differ, in words."""
    got, expected = (
        torch.from_numpy(x) if isinstance(x, np.ndarray) else x
        for x in (got, expected)
    )
    got, expected = (
        x.item() if isinstance(x, Tensor) and not x.ndim else x
        for x in (got, expected)
    )
    if isinstance(expected, Tensor):
        if not isinstance(got, Tensor) or got.shape != expected.shape:
            return f"it is {describe(got)}, expected {describe(expected)}"
        apart = ~torch.isclose(
            got.double(), expected.double(), tolerance, tolerance
        )
        place = tuple(apart.nonzero()[0].tolist())
        where = f"its element {list(place)}"
        return _pair(where, got[place].item(), expected[place].item())
    if isinstance(expected, (list, tuple)) and isinstance(got, (list, tuple)):
        if len(got) != len(expected):
            return (
                f"it has the length {len(got)}, expected {len(expected)}: it is "
                f"{_brief(got)}, expected {_brief(expected)}"
            )
        for i, (one, other) in enumerate(zip(got, expected, strict=True)):
            if not close(one, other, tolerance):
                if isinstance(other, (Tensor, np.ndarray, list, tuple)):
                    inner = _difference(one, other, tolerance)
                    return f"in its item {i}, {inner}"
                return _pair(f"its item {i}", one, other)
    if isinstance(expected, dict) and isinstance(got, dict):
        for key in sorted(expected.keys() | got.keys(), key=str):
            name = f"its entry {str(key)[:30]!r}"
            if key not in got or key not in expected:
                return f"{name} is {'missing' if key in expected else 'extra'}"
            if not close(got[key], expected[key], tolerance):
                return _pair(name, got[key], expected[key])
    return _pair("it", got, expected)


def _pair(what: str, got: object, expected: object) -> str:
    if all(isinstance(x, numbers.Real) for x in (got, expected)):
        return (
            f"{what} is {shown(got, expected)}, expected {shown(expected, got)}"
        )
    return f"{what} is {_brief(got)}, expected {_brief(expected)}"
