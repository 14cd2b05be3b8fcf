"""Output arrays that show which of their elements a kernel did not write."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import DTypeLike


def poisoned(shape: int | Sequence[int], dtype: DTypeLike = np.float32) -> np.ndarray:
    """An array whose bytes are all ones: NaN in every float format, -1 in every signed integer."""
    array = np.empty(shape, dtype)
    array.reshape(-1).view(np.uint8).fill(0xFF)
    return array


def unwritten(array: np.ndarray) -> np.ndarray:
    """The flat indices of the elements that are still poison.

    >>> x = poisoned(4)
    >>> x[1:3] = 0
    >>> unwritten(x)
    array([0, 3])

    Integer results that may really be all ones need another kind of test.
    """
    flat = np.ascontiguousarray(array).reshape(-1)
    words = flat.view(np.uint8).reshape(flat.size, array.itemsize)
    return np.flatnonzero((words == 0xFF).all(axis=1))
