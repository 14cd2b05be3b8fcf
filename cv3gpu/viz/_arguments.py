"""Checks of what is to be drawn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .. import _check

__all__ = ["colours_of", "finite", "image_of", "labels_of", "listed", "mapping", "numbers", "words"]

Array = np.ndarray[Any, Any]


def _array(op: str, argument: str, x: Any) -> Array:
    if not isinstance(x, np.ndarray):
        _check.fail(op, argument, "be a NumPy array", _check.kind(x), error=TypeError)
    return x


def finite(op: str, argument: str, x: Array) -> None:
    """No number is NaN or infinite."""
    if x.dtype.kind == "f" and not np.isfinite(x).all():
        _check.fail(op, argument, "be finite", f"{x[~np.isfinite(x)][0]}")


def numbers(op: str, argument: str, x: Any, shape: Sequence[int | str], kinds: str = "biuf") -> Array:
    """An array of finite real numbers, of a shape in which names stand for any size."""
    found = np.asarray(x)
    if found.dtype.kind not in kinds:
        wanted = "real numbers" if "f" in kinds else "integers"
        _check.fail(op, argument, f"hold {wanted}", f"{_check.kind(x)} of {found.dtype.name}", error=TypeError)
    _check.shape(op, argument, found, shape)
    finite(op, argument, found)
    return found


def image_of(op: str, argument: str, x: Any, *, channels: Sequence[int] = (3,)) -> Array:
    """An image of bytes or of finite numbers, [H, W] or [H, W, C]."""
    _array(op, argument, x)
    if x.dtype != np.uint8 and x.dtype.kind != "f":
        _check.fail(op, argument, "have dtype uint8 or float", x.dtype.name, error=TypeError)
    if x.ndim not in (2, 3) or (x.ndim == 3 and channels and x.shape[2] not in channels):
        layouts = [f"[H, W, {n}]" for n in channels] or ["[H, W, C]"]
        _check.fail(op, argument, f"have shape [H, W] or {' or '.join(layouts)}", x.shape)
    finite(op, argument, x)
    return x


def labels_of(op: str, argument: str, x: Any, image: Array | None = None, *, whole: bool = False) -> Array:
    """A map of labels [H, W], integers or, unless these must be ``whole`` numbers, bool; of an image's size."""
    _array(op, argument, x)
    if x.dtype.kind not in ("iu" if whole else "biu"):
        _check.fail(op, argument, "hold integers", x.dtype.name, error=TypeError)
    _check.shape(op, argument, x, ["H", "W"] if image is None else image.shape[:2])
    return x


def colours_of(op: str, x: Any, labels: int) -> Array:
    """Colours [n, 3] for so many labels."""
    _array(op, "colours", x)
    _check.dtype(op, "colours", x, ["uint8"])
    _check.shape(op, "colours", x, ["n", 3])
    if len(x) < labels:
        _check.fail(op, "colours", f"have a row for each of {labels} labels", len(x))
    return x


def listed(op: str, argument: str, value: Any, length: int | None = None, what: str = "") -> list[Any]:
    """A sequence that is no text, not empty; of a length where that is given."""
    if isinstance(value, str | bytes | Mapping) or not isinstance(value, Sequence | np.ndarray):
        _check.fail(op, argument, "be a sequence", _check.kind(value), error=TypeError)
    if length is not None and len(value) != length:
        _check.fail(op, argument, f"have {length} entries{what}", len(value))
    if not len(value):
        _check.fail(op, argument, "have an entry", "none")
    return list(value)


def words(op: str, argument: str, value: Any, length: int | None = None, what: str = "") -> list[str]:
    """A sequence of texts."""
    found = listed(op, argument, value, length, what)
    for word in found:
        if not isinstance(word, str):
            _check.fail(op, argument, "hold text", _check.kind(word), error=TypeError)
    return found


def mapping(op: str, argument: str, value: Any) -> Mapping[Any, Any]:
    """A mapping with an entry."""
    if not isinstance(value, Mapping):
        _check.fail(op, argument, "be a mapping", _check.kind(value), error=TypeError)
    if not value:
        _check.fail(op, argument, "have an entry", "none")
    return value
