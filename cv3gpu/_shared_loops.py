"""Inner loops that several families share, for `_njit.compiled`."""

from __future__ import annotations

from typing import Any

import numpy as np

from ._lanes import sum_rows
from ._njit import inlined

Array = np.ndarray[Any, Any]


@inlined
def root(parent: Array, x: int) -> int:
    """The representative of a set of a union-find forest; the path to it is halved."""
    while parent[x] != x:
        parent[x] = parent[parent[x]]
        x = parent[x]
    return x


def _multiply(x: Array, start: Array, index: Array, weight: Array, first: int, last: int, out: Array) -> None:
    """``out`` = A x in rows ``first`` to ``last`` of a sparse matrix by rows."""
    for row in range(first, last):
        sum_rows(x, index, weight, start[row], start[row + 1], out, row)


MULTIPLY = (sum_rows, _multiply)
