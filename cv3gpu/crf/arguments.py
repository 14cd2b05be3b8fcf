"""What the dense CRF and the Gaussian filter take: names and limits of their arguments, and the checks of these.

All that reads such arguments (the operators, pydensecrf's call shape, the torch operators, chunks of large images)
reads them here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from .. import _array, _check

__all__ = [
    "DTYPES",
    "METHODS",
    "MOST_FEATURES",
    "MOST_LABELS",
    "NORMALIZATIONS",
    "PARAMETERS",
    "Sizes",
    "check_near",
    "compatibility",
    "entries",
    "sizes",
    "wanted",
    "widths",
    "widths_xy",
    "words",
]

METHODS = ("lattice", "lattice_fine", "exact")
NORMALIZATIONS = ("none", "before", "after", "symmetric")
DTYPES = ("float32", "float64")
MOST_LABELS = 1024
MOST_FEATURES = 8
PARAMETERS = ("theta_gamma", "compat_smooth", "theta_alpha", "theta_beta", "compat_bilateral")
# Features: on a lattice they are int32 and have digits left for places between; else their squares are finite.
FARTHEST = {"float32": 1e6, "float64": 1e8, "exact": 1e15}


class Sizes(NamedTuple):
    """The sizes of a batch of images; they may be symbolic integers of torch."""

    lead: tuple[int, ...]
    labels: int
    height: int
    width: int
    channels: int  # of the image, 0 without one

    @property
    def batch(self) -> int:
        """Number of images."""
        return math.prod(self.lead)

    @property
    def pixels(self) -> int:
        """Pixels of an image."""
        return self.height * self.width


def sizes(op: str, unary: Any, image: Any) -> Sizes:
    """The sizes of an image's unary energies [..., L, H, W] and of the image, or None, checked."""
    _check.dtype(op, "unary", unary, DTYPES)
    if unary.ndim < 3:
        _check.fail(op, "unary", "have shape [..., L, H, W]", tuple(unary.shape))
    *lead, labels, height, columns = unary.shape
    if not 1 <= labels <= MOST_LABELS:
        _check.fail(op, "unary", f"have 1 to {MOST_LABELS} labels (axis -3)", labels)
    if image is None:
        return Sizes(tuple(lead), labels, height, columns, 0)
    if _check.name_of(image.dtype) not in ("uint8", *DTYPES):
        _check.fail(op, "image", "have dtype uint8 or float32 or float64", _check.name_of(image.dtype), error=TypeError)
    most = MOST_FEATURES - 2
    channels = 1 if image.ndim == unary.ndim - 1 else image.shape[-1] if image.ndim else 0
    shape = [*lead, height, columns, channels][: unary.ndim - (image.ndim == unary.ndim - 1)]
    if tuple(image.shape) != tuple(shape) or not 1 <= channels <= most:
        names = ", ".join(map(str, [*lead, height, columns]))
        rule = f"have shape [{names}, C] with C from 1 to {most}, or [{names}], to match unary {tuple(unary.shape)}"
        _check.fail(op, "image", rule, tuple(image.shape))
    return Sizes(tuple(lead), labels, height, columns, channels)


def widths(op: str, argument: str, value: Any, count: int, what: str) -> tuple[float, ...]:
    """A positive number, or ``count`` of them (``what``), in a sequence or an array: ``count`` numbers on the host."""
    if _array.family(value) is not None:
        value = value.tolist()
    elif isinstance(value, np.generic):
        value = value.item()
    values = list(value) if isinstance(value, Sequence) and not isinstance(value, str | bytes) else [value] * count
    if len(values) != count:
        _check.fail(op, argument, f"be a number or {what}", repr(value))
    return tuple(_check.real(op, argument, x, positive=True) for x in values)


def widths_xy(op: str, argument: str, value: Any) -> tuple[float, float]:
    """The widths along x and along y: a positive number for both, or a pair."""
    x, y = widths(op, argument, value, 2, "a pair (x, y)")
    return x, y


def words(op: str, method: Any, normalization: Any) -> tuple[str, str]:
    """The two options that are words, checked."""
    method = _check.choice(op, "method", method, METHODS)
    return method, _check.choice(op, "normalization", normalization, NORMALIZATIONS)


def wanted(op: str, needs: Any, names: Sequence[str]) -> dict[str, bool]:
    """Which gradients are wanted, by the names of what they are with respect to."""
    rule = f"be {len(names)} bools, for {', '.join(names)}"
    if not isinstance(needs, Sequence) or isinstance(needs, str) or len(needs) != len(names):
        _check.fail(op, "needs", rule, repr(needs))
    if not all(isinstance(need, bool | np.bool_) for need in needs):
        _check.fail(op, "needs", rule, repr(needs), error=TypeError)
    return dict(zip(names, map(bool, needs), strict=True))


def check_near(op: str, argument: str, farthest: float, kind: str) -> None:
    """Refuses features that are too far from zero for a lattice of a dtype, or for all pairs."""
    if not farthest <= FARTHEST[kind]:
        advice = "" if kind == "exact" else "a lattice has no digits left there; take method='exact'"
        given = argument == "features"
        share = f"be a {FARTHEST[kind]:g}th of the image's range at least"
        rule = f"be within {FARTHEST[kind]:g} of 0" if given else share
        got = f"{farthest:g}" if given else f"a range of {farthest:g} widths"
        _check.fail(op, argument, rule, got, advice)


def entries(op: str, argument: str, value: Any) -> Any:
    """A compatibility's entries as an array, [], [L] or [L, L]; the shape is not checked."""
    if _array.family(value) is None:
        rule = "be a number, a vector [L] or a matrix [L, L]"
        wrong = isinstance(value, bool | str | bytes | np.bool_)
        if wrong or not isinstance(value, int | float | np.generic | Sequence):
            _check.fail(op, argument, rule, _check.kind(value), error=TypeError)
        try:
            given = np.asarray(value)
            value = given.astype(np.float64, casting="same_kind")
        except (TypeError, ValueError, OverflowError):
            _check.fail(op, argument, rule, _check.shown(value))
        if given.dtype == bool:
            _check.fail(op, argument, "hold numbers", "bool", error=TypeError)
    elif _check.name_of(value.dtype) not in (*DTYPES, "int64", "int32"):
        _check.fail(op, argument, "have dtype float32 or float64", _check.name_of(value.dtype), error=TypeError)
    return value


def compatibility(op: str, argument: str, value: Any, labels: int, like: Any) -> Any:
    """The compatibility mu as [L] (a diagonal) or [L, L] of the dtype, library and device of ``like``.

    A number w is Potts' model, mu = -w I; a vector is the diagonal as it stands; of a matrix M, mu is (M + M^T) / 2.
    """
    value = entries(op, argument, value)
    if tuple(value.shape) not in ((), (labels,), (labels, labels)):
        rule = f"be a number, or have shape [{labels}] or [{labels}, {labels}] to match unary"
        _check.fail(op, argument, rule, tuple(value.shape))
    given, real = value, _array.dtype_name(like)
    with np.errstate(over="ignore"):
        value = _array.astype(value, real)
    for x, rule in ((given, "be finite"), (value, f"be finite in {real}")):
        if _array.device_of(x) == "cpu" and not np.isfinite(_array.to_host(x)).all():
            _check.fail(op, argument, rule, given.tolist())
    if _array.family(value) != _array.family(like) or _array.device_of(value) != _array.device_of(like):
        value = _array.from_host(_array.to_host(value), like)
    if value.ndim == 0:
        mu = _array.empty(like, (labels,))
        mu[...] = -value
        return mu
    return value if value.ndim == 1 else 0.5 * (value + value.T)
