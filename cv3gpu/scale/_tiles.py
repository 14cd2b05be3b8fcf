"""Chunks of a dask array with a halo of their neighbours' pixels, and which part of their results is wanted."""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from .. import _check, _tasks
from ..errors import BackendUnavailableError

__all__ = ["Place", "Side", "by_chunks", "check_array", "dask_array", "joined", "side"]

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


class Place(NamedTuple):
    """Where a chunk lies along one side of the image: what its worker is told of it."""

    start: int  # of the chunk with its halo, in the image
    skip: int  # how much of what the chunk with its halo gives belongs to neighbours before it
    out: int  # where its own part of the result begins in the whole
    size: int  # of that part


PLACE = np.dtype([(name, np.int64) for name in Place._fields])


class Side(NamedTuple):
    """One side of an image: where its chunks and their results end, and what a chunk sees beside it.

    ``ends`` and ``out_ends`` begin with a 0. ``scale`` is (p, q) where q pixels of the result belong to p of the image;
    both ends of every chunk lie at multiples of them, but for what is left over at the end of the image. It is None
    where a chunk gives its own part and nothing beside it.
    """

    ends: tuple[int, ...]
    out_ends: tuple[int, ...]
    before: int
    after: int
    scale: tuple[int, int] | None

    @property
    def chunks(self) -> tuple[int, ...]:
        """The sizes of the chunks."""
        return tuple(np.diff(self.ends).tolist())

    @property
    def out_chunks(self) -> tuple[int, ...]:
        """The sizes of their results."""
        return tuple(np.diff(self.out_ends).tolist())

    def places(self) -> np.ndarray:
        """Where each chunk lies, as :class:`Place` has it."""
        begin = np.array(self.ends[:-1])
        places = np.zeros(begin.size, PLACE)
        places["start"] = np.maximum(0, begin - self.before)
        if self.scale is not None:
            places["skip"] = (begin - places["start"]) // self.scale[0] * self.scale[1]
        places["out"], places["size"] = self.out_ends[:-1], self.out_chunks
        return places


def side(chunks: Sequence[int], before: int, after: int, scale: tuple[int, int] = (1, 1), n_out: int = -1) -> Side:
    """A side with chunks as near to the given ones as its halo and its scale allow."""
    p, q = scale
    ends = joined(chunks, max(1, before, after), p)
    n_out = ends[-1] if n_out < 0 else n_out
    if len(ends) == 2:  # nothing is beside it, and dask refuses a halo that is wider than a chunk
        before = after = 0
    return Side(ends, (*(end // p * q for end in ends[:-1]), n_out), before, after, scale)


def joined(chunks: Sequence[int], least: int, multiple: int = 1) -> tuple[int, ...]:
    """Ends of chunks of at least so many pixels each, at multiples, with a 0 before them."""
    total, ends = sum(chunks), [0]
    for end in np.cumsum(chunks)[:-1].tolist():
        place = round(end / multiple) * multiple
        if place - ends[-1] >= least and total - place >= least:
            ends.append(place)
    return (*ends, total)


def by_chunks(
    function: Callable[..., Any],
    arrays: Sequence[tuple[Any, str]],
    rows: Side,
    columns: Side,
    out: str,
    meta: Any,
    new: dict[str, int] | None = None,
) -> Any:
    """``function(chunks, row, column)`` of each chunk with its halo and its two places, cut to its own part.

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
    places = [(array.from_array(one.places(), chunks=1), letter) for one, letter in ((rows, "h"), (columns, "w"))]
    return array.blockwise(
        _chunk, out, *(part for pair in places for part in pair), *given,
        function=function, axes=(out.index("h") - len(out), out.index("w") - len(out)),
        adjust_chunks={"h": rows.out_chunks, "w": columns.out_chunks}, new_axes=new or {},
        align_arrays=False, concatenate=True, meta=meta, dtype=meta.dtype,
    )  # fmt: skip


def _chunk(rows: Any, columns: Any, *chunks: Any, function: Any, axes: tuple[int, int]) -> Any:
    """What a worker computes for a chunk."""
    places = [Place(*one[0].item()) for one in (rows, columns)]
    with _tasks.worker():  # dask works at as many chunks at once as there are threads
        found = function(tuple(map(_tasks.aligned, chunks)), *places)
    cut: list[slice] = [slice(None)] * found.ndim
    for axis, place in zip(axes, places, strict=True):
        cut[axis] = slice(place.skip, place.skip + place.size)
    return found[tuple(cut)]
