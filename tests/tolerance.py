"""The one tolerance table of the test suite.

A result of K terms, summed in the accumulation type and rounded once to the output type, is off by at most
``output · |reference| + accumulation · growth(K) · Σ|terms|``. Rounding errors of a sum behave like a random
walk, so growth is √K with a small margin; the bound K would hide lost terms.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np


class Rounding(NamedTuple):
    """Relative rounding of the stored result and of one accumulation, and the smallest step near zero."""

    output: float
    accumulation: float
    floor: float


TABLE = {
    "float64": Rounding(2.0**-52, 2.0**-52, 1e-300),
    "float32": Rounding(2.0**-23, 2.0**-23, 1e-38),
    "float16": Rounding(2.0**-10, 2.0**-23, 2.0**-24),
    "bfloat16": Rounding(2.0**-7, 2.0**-23, 1e-38),
}


def bound(reference: np.ndarray, dtype: str, terms: int = 1, scale: np.ndarray | float | None = None) -> np.ndarray:
    """The largest error that a correct result in ``dtype`` may have, element by element."""
    rounding = TABLE[dtype]
    size = np.abs(reference)
    total = size if scale is None else np.asarray(scale, np.float64)
    growth = 2.0 * math.sqrt(terms) + 4.0
    return rounding.output * size + rounding.accumulation * growth * total + rounding.floor


def assert_close(
    got: np.ndarray,
    reference: np.ndarray,
    dtype: str,
    terms: int = 1,
    scale: np.ndarray | float | None = None,
) -> None:
    """``got`` (any float dtype) is the float64 ``reference`` to within the table; ``scale`` is Σ|terms|."""
    got = np.asarray(got)
    assert got.shape == reference.shape, f"shape {got.shape}, wanted {reference.shape}"
    if got.size == 0:
        return
    error = np.abs(got.astype(np.float64) - reference)
    allowed = bound(reference, dtype, terms, scale)
    wrong = ~(error <= allowed)  # NaN is wrong, too
    if wrong.any():
        ratio = np.where(np.isnan(error), np.inf, error / allowed)
        worst = np.unravel_index(int(np.argmax(ratio)), got.shape)
        raise AssertionError(
            f"{int(wrong.sum())} of {got.size} elements are off; worst at {tuple(map(int, worst))}: "
            f"got {float(got[worst])!r}, wanted {float(reference[worst])!r}, "
            f"error {float(error[worst]):.3g}, allowed {float(allowed[worst]):.3g}"
        )
