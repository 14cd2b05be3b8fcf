"""Checks of arguments, with one style of error: ``<op>: <argument> must <requirement>, got <value>[; <advice>]``."""

from __future__ import annotations

import functools
import math
import numbers
from collections.abc import Sequence
from typing import Any, NoReturn

__all__ = ["choice", "dtype", "fail", "flag", "integer", "kind", "message", "ndim", "pair", "same_dtype", "shape"]


def message(op: str, argument: str, requirement: str, got: object, advice: str = "") -> str:
    """The text of an error."""
    return f"{op}: {argument} must {requirement}, got {got}" + (f"; {advice}" if advice else "")


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
            fail(op, argument, "be an integer", f"{value!r} ({kind(value)})", error=TypeError)
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
        fail(op, argument, "be an integer or a pair of integers", f"{value!r} ({kind(value)})", error=TypeError)
    both = integer(op, argument, value, minimum)
    return both, both


def real(op: str, argument: str, value: Any, *, positive: bool = False) -> float:
    """A finite real number (not a bool)."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        fail(op, argument, "be a number", f"{value!r} ({kind(value)})", error=TypeError)
    if not math.isfinite(value) or (positive and value <= 0):
        fail(op, argument, "be finite and positive" if positive else "be finite", value)
    return float(value)


def flag(op: str, argument: str, value: Any) -> bool:
    """True or False."""
    if not isinstance(value, bool):
        fail(op, argument, "be True or False", f"{value!r} ({kind(value)})", error=TypeError)
    return value


def choice(op: str, argument: str, value: Any, allowed: Sequence[str]) -> str:
    """One of a few words."""
    if not isinstance(value, str) or value not in allowed:
        fail(op, argument, f"be one of {', '.join(map(repr, allowed))}", repr(value))
    return value
