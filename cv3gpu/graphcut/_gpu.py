"""The GPU half of graph cuts: push-relabel on the pixel grid. The kernels are in ``kernels/graphcut.cu``."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from .. import _array
from .._kernel import blocks, kernel

__all__ = ["solve"]

_FAR = 2**30  # as in graphcut.cu: levels are below it
_COLS, _THREADS = 32, 256  # as in graphcut.cu: a tile of cut_sweep, and a block of all but cut_search
_SEARCHERS = 512
_ROWS = (32, 16, 8)  # of a tile of cut_sweep, as many as fit
_SHARED = 48 << 10  # what every GPU gives a block unasked
_TILES = 2**31 - 1
_BLOCKS = 4096  # of a launch over a queue: more tiles take turns
_SWEEPS = 16  # of a tile in a launch, at most
_ROUNDS = 6  # of cut_sweep and cut_exchange between two searches
_SEARCHES = 4  # launches of the first search before the host asks


class _Queue:
    """Tiles that wait: counts[4], lists[3, tiles], and the number of the next round."""

    def __init__(self, counts: Any, tiles: int) -> None:
        self.counts, self.tiles, self.round = counts, tiles, 1
        self.lists = _array.zeros(counts, (3, tiles))
        self.grid = (min(tiles, _BLOCKS),)


def _table(offsets: Sequence[Sequence[int]], volume: Sequence[int], itemsize: int) -> tuple[np.ndarray, int, int]:
    """Rows (dz, dy, dx, slot, plane) of both directions of the offsets, the slots, and the rows of a tile of cut_sweep.

    Opposite moves stand side by side. Steps that leave every volume have no edges and no row; those to another slice,
    or longer than a tile, or for which shared memory has no room, get no slot.
    """
    moves: list[tuple[int, ...]] = []
    slots = rows = 0
    for rows in _ROWS:
        plane = rows * (_COLS + 1)
        moves, slots, left_out = [], 0, False
        for h, offset in enumerate(offsets):
            step = (0,) * (3 - len(offset)) + tuple(offset)
            if any(abs(s) >= n for s, n in zip(step, volume, strict=True)):
                continue
            slot = -1
            if step[0] == 0 and abs(step[1]) < rows and abs(step[2]) < _COLS:
                if plane * (12 + (slots + 2) * itemsize) <= _SHARED:
                    slot, slots = slots, slots + 2
                else:
                    left_out = True
            moves.append((*step, slot, h))
            moves.append((*(-s for s in step), slot + 1 if slot >= 0 else -1, h + len(offsets)))
        if not left_out:
            break
    return np.array(moves, np.int32).reshape(-1, 5), slots, rows


class _Solver:
    """The state of a batch of grids on the device, and the launches that change it."""

    def __init__(self, terminal: Any, residual: Any, offsets: Sequence[Sequence[int]]) -> None:
        self.shape = shape = tuple(int(n) for n in terminal.shape)
        self.images, self.volume = shape[0], (1, *shape[1:])[-3:]
        self.nodes = math.prod(self.volume)
        itemsize = 8 if _array.dtype_name(residual) == "int64" else 4
        table, self.slots, tile_rows = _table(offsets, self.volume, itemsize)
        self.n_moves, self.planes = len(table), int(residual.shape[1])
        slices, (rows, cols) = self.images * self.volume[0], self.volume[1:]
        self.tiles = slices * blocks(rows, tile_rows) * blocks(cols, _COLS)
        if self.nodes >= _FAR or self.tiles > _TILES:
            wanted = f"fewer than 2^30 pixels an image and 2^31 tiles of {tile_rows} x {_COLS} pixels"
            raise ValueError(f"graph_cut: source_capacity must have {wanted} on a GPU, got {shape}")
        self.terminal, self.residual = _array.contiguous(terminal), _array.contiguous(residual)
        self.constants = {"BITS": 8 * itemsize, "ROWS": tile_rows, "MASK": 8 if self.n_moves <= 8 else 64}
        self.shared = tile_rows * (_COLS + 1) * (12 + self.slots * itemsize)
        span, mask = (64, "uint8") if self.n_moves <= 8 else (32, "int64")

        self.excess = _array.copy(_array.astype(self.terminal, "int64"))
        self.inflow = _array.zeros(self.excess, shape)
        self.mask = _array.empty(self.excess, shape, mask)
        self.live = _array.zeros(self.excess, (self.images,), "int32")
        self.level, self.seen = _array.empty(self.live, shape), _array.empty(self.live, (2, *shape))
        self.moves = _array.from_host(table, self.live)
        self.counts = _array.zeros(self.live, (2, 4))
        self.pushes = _Queue(self.counts[0], self.tiles)
        self.searches = _Queue(self.counts[1], slices * blocks(rows, span) * blocks(cols, span))

    def _run(self, name: str, grid: Sequence[int], threads: int, *args: Any, shared_mem: int = 0) -> None:
        kernel("graphcut.cu", name, **self.constants)(grid, threads, *args, shared_mem=shared_mem)

    def mark(self, cycle: int, forward: bool) -> None:
        """Begins a search: from the sinks of images with excess in the cycle before, or from all excess."""
        q = self.searches
        self._run("cut_mark", (q.tiles,), _THREADS, self.residual, self.excess, self.inflow, self.live, self.mask,
                  self.level, self.seen, self.moves, q.counts, q.lists, self.images * self.nodes, self.n_moves,
                  self.planes, *self.volume, q.tiles, q.round, cycle, forward)  # fmt: skip
        q.round += 1
        self.start = q.round

    def search(self, launches: int) -> None:
        """Goes on with a search."""
        q = self.searches
        for _ in range(launches):
            self._run("cut_search", q.grid, _SEARCHERS, self.mask, self.level, self.seen, self.moves, q.counts,
                      q.lists, self.images * self.nodes, self.n_moves, *self.volume, q.tiles, q.round,
                      q.round == self.start)  # fmt: skip
            q.round += 1

    def push(self, cycle: int) -> None:
        """Some rounds of pushes and relabels; none where the search has not ended."""
        q, s = self.pushes, self.searches
        self._run("cut_collect", (q.tiles,), _THREADS, self.excess, self.level, self.seen, self.live, s.counts,
                  q.counts, q.lists, *self.volume, q.tiles, s.round, q.round, cycle)  # fmt: skip
        q.round += 1
        state = self.residual, self.excess, self.inflow, self.level, self.seen, self.moves, q.counts, q.lists
        for _ in range(_ROUNDS):
            self._run("cut_sweep", q.grid, _THREADS, *state, self.n_moves, self.slots, self.planes, *self.volume,
                      q.tiles, q.round, _SWEEPS, shared_mem=self.shared)  # fmt: skip
            self._run("cut_exchange", q.grid, _THREADS, *state, self.n_moves, self.planes, *self.volume, q.tiles,
                      q.round)  # fmt: skip
            q.round += 1

    def ask(self) -> tuple[int, int]:
        """The launches that the search has needed, 0 while it needs more, and the last cycle that found excess.

        The host waits for the device here and nowhere else.
        """
        heads = _array.to_host(self.counts)
        ended = heads[1, self.searches.round % 3] == 0
        return max(1, int(heads[1, 3]) - self.start + 1) if ended else 0, int(heads[0, 3])

    def finish_search(self) -> int:
        """Goes on until the search has ended; the launches that it needed."""
        launches = _SEARCHES
        while self.searches.round - self.start <= 2 * self.nodes + _SEARCHES:  # no path is longer
            self.search(launches)
            if needed := self.ask()[0]:
                return needed
            launches *= 2
        raise RuntimeError("graph_cut: a search went on for longer than any path, which is a fault of its kernel")

    def flow(self) -> None:
        """Pushes until no excess reaches a sink, which a search from the sinks has shown."""
        launches, most = _SEARCHES, _most_cycles(self.nodes)
        for cycle in range(1, most + 1):
            self.mark(cycle, False)
            self.search(launches)
            self.push(cycle)  # before the host knows whether the search has ended, as it mostly has
            needed, found = self.ask()
            if not needed:
                needed = self.finish_search()
                self.push(cycle)
                found = self.ask()[1]
            if found < cycle:
                return
            launches = needed + 1
        raise RuntimeError(f"graph_cut: excess was left after {most} cycles, which is a fault of the kernels")

    def label(self, minimal: bool) -> tuple[Any, Any]:
        """Labels and flow, after all pushes."""
        if minimal:
            self.mark(0, True)
            self.finish_search()
        labels, took = _array.empty(self.excess, self.shape, "uint8"), _array.empty(self.excess, (self.tiles,))
        self._run("cut_label", (self.tiles,), _THREADS, self.terminal, self.excess, self.level, labels, took,
                  *self.volume, minimal)  # fmt: skip
        return labels, took.reshape(self.images, -1).sum(1)


def _most_cycles(nodes: int) -> int:
    """Cycles that are enough for every grid.

    In two rounds without a relabel the highest level with excess falls (Goldberg & Tarjan 1988, section 5), and
    relabels raise a level to ``nodes`` at most.
    """
    return 4 * (nodes + 2) ** 2 // _ROUNDS + 1


def solve(terminal: Any, residual: Any, offsets: Sequence[Sequence[int]], minimal: bool) -> tuple[Any, Any]:
    """Minimum cuts and maximum flows of a batch of grids.

    Parameters
    ----------
    terminal : array, [B, H, W] or [B, D, H, W], int32/int64
        What may come from the source (> 0) or go to the sink (< 0).
    residual : array, [B, 2 n, ...], as terminal
        Capacities: plane h along ``offsets[h]``, plane n + h against it; 0 where an edge leaves the grid. Overwritten.
    offsets : up to 32 steps of 2 or 3 int
        None the opposite of another.
    minimal : bool
        The cut with the fewest ones, else that with the most.

    Returns
    -------
    labels : array of the shape of terminal, uint8
        1 on the source's side.
    flow : array, [B], int64

    Notes
    -----
    A cycle is a search from the sinks, which makes every level exact and shows which images are done, and some rounds
    of pushes. It takes 2 launches, one for each round of the search (as many as the longest of all shortest residual
    paths to a sink crosses tiles of 64 x 64 pixels, and one), and 2 for each round of pushes; the host reads 8 numbers,
    mostly once a cycle. Images that are done cost a cycle their empty blocks.
    """
    solver = _Solver(terminal, residual, offsets)
    solver.flow()
    return solver.label(minimal)
