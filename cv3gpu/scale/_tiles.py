"""Chunks of a dask array with a halo of their neighbours' pixels, and which part of their results is wanted."""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from .. import _check, _tasks
from .._threads import one_thread
from ..errors import BackendUnavailableError

__all__ = ["Side", "by_chunks", "check_array", "dask_array", "side"]

INSTALL = "dask.array is not installed; pip install 'cv3gpu[dist]'"


def dask_array() -> Any:
    """The module ``dask.array``."""
    try:
        return importlib.import_module("dask.array")
    except ImportError as error:
        raise BackendUnavailableError(INSTALL) from error


def check_array(op: str, argument: str, x: Any) -> None:
    """The argument is a dask array of known sizes."""
    array = dask_array()
    if not isinstance(x, array.Array):
        advice = "dask.array.from_array, or dask.array.map_blocks over chunks that workers read"
        _check.fail(op, argument, "be a dask array", _check.kind(x), advice, TypeError)
    if any(math.isnan(n) for n in x.shape):
        _check.fail(op, argument, "have known sizes", x.shape, "call its compute_chunk_sizes()")


class Side(NamedTuple):
    """One side of an image: its chunks, what a chunk sees beside them, and what comes of them.

    ``scale`` is (p, q) where q pixels of the result belong to p of the image; both ends of every chunk lie at multiples
    of them, but for what is left over at the end of the image.
    """

    chunks: tuple[int, ...]
    before: int
    after: int
    scale: tuple[int, int]
    n_out: int

    def start(self, index: int) -> int:
        """Where a chunk with its halo begins in the image."""
        return max(0, sum(self.chunks[:index]) - self.before)

    def out_chunks(self) -> tuple[int, ...]:
        """The sizes of the results' chunks."""
        p, q = self.scale
        bounds = [sum(self.chunks[:k]) // p * q for k in range(len(self.chunks))]
        return tuple(np.diff([*bounds, self.n_out]).tolist())

    def wanted(self, index: int) -> slice:
        """A chunk's own part of the result of the chunk with its halo."""
        p, q = self.scale
        first = (sum(self.chunks[:index]) - self.start(index)) // p * q
        return slice(first, first + self.out_chunks()[index])


def side(chunks: Sequence[int], before: int, after: int, scale: tuple[int, int] = (1, 1), n_out: int = -1) -> Side:
    """A side with chunks as near to the given ones as its halo and its scale allow."""
    p, total = scale[0], sum(chunks)
    least = max(1, before, after)
    bounds = [0]
    for end in np.cumsum(chunks)[:-1].tolist():
        place = round(end / p) * p
        if place - bounds[-1] >= least and total - place >= least:
            bounds.append(place)
    return Side(tuple(np.diff([*bounds, total]).tolist()), before, after, scale, total if n_out < 0 else n_out)


def by_chunks(
    function: Callable[..., Any],
    arrays: Sequence[tuple[Any, str]],
    rows: Side,
    columns: Side,
    out: str,
    meta: Any,
    new: dict[str, int] | None = None,
) -> Any:
    """``function(chunks, row, column)`` of each chunk with its halo, cut to its own part.

    ``arrays`` are dask arrays with a letter for each axis, "h" and "w" for rows and columns, which are chunked as
    ``rows`` and ``columns`` say; ``out`` has the letters of the result, ``new`` the sizes of those that no array has.
    """
    array = dask_array()
    given: list[Any] = []
    for x, letters in arrays:
        sides = {letters.index("h"): rows, letters.index("w"): columns}
        laid = x.rechunk({axis: one.chunks for axis, one in sides.items()})
        depth = {axis: (one.before, one.after) for axis, one in sides.items()}
        given += [array.overlap.overlap(laid, depth, "none", allow_rechunk=False), letters]
    places = [
        (array.from_array(np.arange(len(one.chunks)), chunks=1), letter)
        for one, letter in ((rows, "h"), (columns, "w"))
    ]
    return array.blockwise(
        _chunk, out, *(part for pair in places for part in pair), *given,
        function=function, rows=rows, columns=columns, axes=(out.index("h") - len(out), out.index("w") - len(out)),
        adjust_chunks={"h": rows.out_chunks(), "w": columns.out_chunks()}, new_axes=new or {},
        align_arrays=False, concatenate=True, meta=meta, dtype=meta.dtype,
    )  # fmt: skip


def _chunk(row: Any, column: Any, *chunks: Any, function: Any, rows: Side, columns: Side, axes: tuple[int, int]) -> Any:
    """What a worker computes for a chunk."""
    i, j = int(row[0]), int(column[0])
    with one_thread():  # dask works at as many chunks at once as there are threads
        found = function(tuple(map(_tasks.aligned, chunks)), i, j)
    cut: list[slice] = [slice(None)] * found.ndim
    cut[axes[0]], cut[axes[1]] = rows.wanted(i), columns.wanted(j)
    return found[tuple(cut)]
