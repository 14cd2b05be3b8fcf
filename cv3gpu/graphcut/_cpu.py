"""Maximum flow and minimum cuts of grids on the CPU: images in threads, each by augmenting paths."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from .._njit import compiled
from .._threads import each
from . import _loops

__all__ = ["solve"]

Array = np.ndarray[Any, Any]


def solve(terminal: Array, residual: Array, offsets: Sequence[tuple[int, ...]], minimal: bool) -> tuple[Array, Array]:
    """Labels uint8 [B, *S] and flow int64 [B] of terminals [B, *S] and residual planes [B, 2 H, *S]."""
    batch, *shape = terminal.shape
    volume = (*[1] * (3 - len(shape)), *shape)
    steps = [(*[0] * (3 - len(shape)), *offset) for offset in offsets]
    tiles = _Tiles(volume, steps)
    labels = np.empty((batch, *volume), np.uint8)
    flow = np.empty(batch, np.int64)
    terminal, residual = terminal.reshape(batch, *volume), residual.reshape(batch, -1, *volume)

    def one(b: int) -> None:
        flow[b] = _solve(terminal[b], residual[b], tiles, minimal, labels[b])

    each(one, [(b,) for b in range(batch)])
    return labels.reshape(batch, *shape), flow


class _Tiles:
    """How the nodes of a volume are numbered (see `_loops`)."""

    def __init__(self, volume: Sequence[int], steps: Sequence[tuple[int, ...]]) -> None:
        extent = [1, 1, 1]  # of a tile: as near to a cube as the volume allows
        while math.prod(extent) < _loops.TILE:
            grows = [axis for axis in (2, 1, 0) if extent[axis] < volume[axis]] or [2]
            extent[min(grows, key=lambda axis: extent[axis])] *= 2
        counts = [-(-n // m) for n, m in zip(volume, extent, strict=True)]
        self.shifts = np.array([m.bit_length() - 1 for m in extent], np.int64)
        self.counts = np.array(counts, np.int64)
        self.nodes = math.prod(counts) * _loops.TILE

        place = np.indices(extent).reshape(3, -1, 1)  # of each node of a tile
        axes = [[sign * step[axis] for step in steps for sign in (1, -1)] for axis in range(3)]
        tile, inside = np.divmod(place + np.array(axes)[:, None], np.array(extent)[:, None, None])
        whole = np.zeros_like(tile[0])
        for index, sizes in ((tile, counts), (inside, extent)):
            for axis in range(3):
                whole = whole * sizes[axis] + index[axis]
        self.step = (whole - np.arange(_loops.TILE)[:, None]).reshape(-1)
        self.first = -(-int(abs(self.step).max()) // _loops.TILE) * _loops.TILE
        self.last = self.first + self.nodes
        self.size = self.last + self.first


def _solve(terminal: Array, planes: Array, tiles: _Tiles, minimal: bool, labels: Array) -> int:
    size, first, last = tiles.size, tiles.first, tiles.last
    index: Any = np.int32 if size < 2**31 else np.int64
    excess, residual = np.zeros(size, planes.dtype), np.zeros(size * len(planes), planes.dtype)
    compiled(*_loops.LOAD)(terminal, planes, tiles.shifts, tiles.counts, first, excess, residual)
    code, active = (np.empty(size, np.uint8) for _ in range(2))
    queue, orphans = (np.empty(tiles.nodes, index) for _ in range(2))
    forward, backward = (np.empty(tiles.nodes, np.int64) for _ in range(2))
    up, mark, state = np.empty(size, index), np.empty(size, np.int64), np.empty(_loops.STATE, np.int64)
    flow = compiled(*_loops.SOLVE)(
        excess, residual, code, up, mark, tiles.step, first, last, active, queue, orphans, forward, backward, state
    )
    compiled(*_loops.STORE)(code, tiles.shifts, tiles.counts, first, minimal, labels)
    return int(flow)
