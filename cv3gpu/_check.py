"""Checks of arguments, with one style of error: ``<op>: <argument> must <requirement>, got <value>[; <advice>]``."""

from __future__ import annotations

import functools
import math
import numbers
from collections.abc import Sequence
from typing import Any, NoReturn

__all__ = [
    "choice",
    "dtype",
    "fail",
    "flag",
    "fraction",
    "half_neighbours",
    "integer",
    "integers",
    "kind",
    "message",
    "ndim",
    "not_negative",
    "pair",
    "real",
    "said",
    "same_dtype",
    "shape",
    "shown",
]


def message(op: str, argument: str, requirement: str, got: object, advice: str = "") -> str:
    """The text of an error."""
    if _is_long(got):
        got = _long(got)
    return f"{op}: {argument} must {requirement}, got {got}" + (f"; {advice}" if advice else "")


def _is_long(value: object) -> bool:
    return isinstance(value, int) and value.bit_length() > 128


def _long(value: Any) -> str:
    """An integer whose digits nobody would count, and of which Python prints no more than some thousand."""
    bits = value.bit_length() - 1
    return f"-2^{bits} or less" if value < 0 else f"2^{bits} or more"


def shown(value: Any) -> str:
    """A value as Python writes it, a very long integer by its size."""
    return _long(value) if _is_long(value) else repr(value)


def said(value: Any) -> str:
    """A value and its type, for one of a wrong type."""
    return f"{shown(value)} ({kind(value)})"


def kind(x: object) -> str:
    """A value's type in words."""
    return "None" if x is None else type(x).__name__


def fail(
    op: str,
    argument: str,
    requirement: str,
    got: object,
    advice: str = "",
    error: type[Exception] = ValueError,
) -> NoReturn:
    """Raises the error."""
    raise error(message(op, argument, requirement, got, advice))


@functools.lru_cache(maxsize=128)
def name_of(dtype: Any) -> str:
    """The name of a dtype of any library: ``"float32"``, ``"bfloat16"``, ``"int64"`` …"""
    return str(dtype).removeprefix("torch.")


def dtype(op: str, argument: str, x: Any, allowed: Sequence[str]) -> None:
    """The array's dtype is one of ``allowed``."""
    name = name_of(x.dtype)
    if name not in allowed:
        fail(op, argument, f"have dtype {' or '.join(allowed)}", name, error=TypeError)


def integers(op: str, argument: str, x: Any) -> None:
    """The array holds integers (bools are none)."""
    if not (name := name_of(x.dtype)).startswith(("int", "uint")):
        fail(op, argument, "be integers", name, error=TypeError)


def same_dtype(op: str, argument: str, x: Any, other: str, y: Any) -> None:
    """The array has the dtype of another argument."""
    if x.dtype != y.dtype:
        got, wanted = name_of(x.dtype), name_of(y.dtype)
        fail(op, argument, f"have the dtype of {other} ({wanted})", got, error=TypeError)


def ndim(op: str, argument: str, x: Any, n: int, layout: str) -> None:
    """The array has ``n`` dimensions."""
    if x.ndim != n:
        fail(op, argument, f"have shape {layout}", tuple(x.shape))


def shape(op: str, argument: str, x: Any, wanted: Sequence[int | str], advice: str = "") -> None:
    """The array has the shape ``wanted``; a name in it stands for any size."""
    got = tuple(x.shape)
    fits = len(got) == len(wanted) and all(isinstance(w, str) or n == w for n, w in zip(got, wanted, strict=True))
    if not fits:
        fail(op, argument, f"have shape [{', '.join(map(str, wanted))}]", got, advice)


def integer(op: str, argument: str, value: Any, minimum: int, maximum: int = 2**31 - 1) -> int:
    """An integer (not a bool) in a range."""
    if type(value) is not int:  # asked first, as asking for an abstract class is slow
        if isinstance(value, bool) or not isinstance(value, numbers.Integral):
            fail(op, argument, "be an integer", said(value), error=TypeError)
        value = int(value)
    if not minimum <= value <= maximum:
        fail(op, argument, f"be from {minimum} to {maximum}", value)
    return value


def pair(op: str, argument: str, value: Any, minimum: int) -> tuple[int, int]:
    """An integer, or a pair of them (rows, columns)."""
    if type(value) is int:
        both = integer(op, argument, value, minimum)
        return both, both
    if isinstance(value, tuple | list) or (isinstance(value, Sequence) and not isinstance(value, str)):
        if len(value) != 2:
            fail(op, argument, "be an integer or a pair of integers", repr(value))
        return integer(op, argument, value[0], minimum), integer(op, argument, value[1], minimum)
    if not isinstance(value, numbers.Integral):
        fail(op, argument, "be an integer or a pair of integers", said(value), error=TypeError)
    both = integer(op, argument, value, minimum)
    return both, both


def real(op: str, argument: str, value: Any, *, positive: bool = False) -> float:
    """A finite real number (not a bool)."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        fail(op, argument, "be a number", said(value), error=TypeError)
    try:
        number = float(value)
    except OverflowError:  # of an integer beyond all floats
        number = math.inf
    if not math.isfinite(number) or (positive and number <= 0):
        fail(op, argument, "be finite and positive" if positive else "be finite", value)
    return number


def not_negative(op: str, argument: str, value: Any) -> float:
    """A finite real number, 0 at least (not a bool)."""
    number = real(op, argument, value)
    if number < 0:
        fail(op, argument, "not be negative", value)
    return number


def fraction(op: str, argument: str, value: Any) -> float:
    """A number from 0 to 1 (not a bool)."""
    number = real(op, argument, value)
    if not 0 <= number <= 1:
        fail(op, argument, "be from 0 to 1", value)
    return number


def flag(op: str, argument: str, value: Any) -> bool:
    """True or False."""
    if not isinstance(value, bool):
        fail(op, argument, "be True or False", said(value), error=TypeError)
    return value


# The offsets (dy, dx) of a pixel's neighbours by edges, and by corners as well: one of each two opposite ones.
_HALF = {4: ((0, 1), (1, 0)), 8: ((0, 1), (1, 0), (1, 1), (1, -1))}


def half_neighbours(op: str, argument: str, connectivity: Any) -> tuple[tuple[int, int], ...]:
    """The offsets (dy, dx) to half of a pixel's 4 or 8 neighbours, one of each two opposite ones."""
    if isinstance(connectivity, bool) or connectivity not in tuple(_HALF):
        fail(op, argument, "be 4 or 8", shown(connectivity))
    return _HALF[connectivity]


def choice(op: str, argument: str, value: Any, allowed: Sequence[str]) -> str:
    """One of a few words."""
    if not isinstance(value, str) or value not in allowed:
        fail(op, argument, f"be one of {', '.join(map(repr, allowed))}", repr(value))
    return value
