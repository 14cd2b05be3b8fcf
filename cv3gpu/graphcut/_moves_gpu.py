"""The GPU half of expansion, swap and fusion moves; the kernels are in ``kernels/graphcut_moves.cu``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .. import _array
from .._kernel import MAX_GRID_YZ, blocks, kernel
from . import _gpu
from ._descent import NONE, Course, Move, Problem, descend

__all__ = ["Machine"]

Array = np.ndarray[Any, Any]

_THREADS = 256  # of a block in graphcut_moves.cu


class Machine:
    """Problems on a GPU, all of them at a time: problem p is of image p % B."""

    def __init__(self, problem: Problem, count: int, start: Any) -> None:
        unary = problem.unary
        self.problem = problem
        self.label = _array.empty(unary, (count, problem.size.nodes), "int32")
        if start is None:
            self._launch("moves_start", unary, self.label, problem.size.nodes, count, len(unary), problem.size.labels)
        else:
            self.label.reshape((-1, *start.shape))[...] = start
        self._constants = [_array.from_host(x, unary) for x in (problem.table, problem.steps)]

    def only(self, problems: Sequence[int]) -> Machine:
        """Some of the problems, as they stand."""
        return Machine(self.problem, len(problems), self.label[problems])

    def run(self, courses: Sequence[Course], proposal: Any = None) -> None:
        """Descends in all problems."""
        descend(self, courses, proposal)

    def move(self, moves: Sequence[Move]) -> list[int]:
        """A move of each problem; the changes of the energies."""
        return self._choose(None, *(np.array(side, np.int32) for side in zip(*moves, strict=True)))

    def fuse(self, proposal: Any) -> list[int]:
        """Fuses the labels with others; the changes of the energies."""
        none = np.full(len(proposal), NONE, np.int32)
        return self._choose(_array.contiguous(proposal), none, none)

    def _choose(self, proposal: Any, first: Array, second: Array) -> list[int]:
        problem, size = self.problem, self.problem.size
        count, half = len(self.label), len(problem.steps)
        kind = "int64" if problem.wide else "int32"
        terminal = _array.empty(self.label, (count, *size.shape), kind)
        residual = _array.empty(self.label, (count, 2 * half, *size.shape), kind)
        change = _array.zeros(self.label, (count,), "int64")
        offer = (self.label, proposal, *(_array.from_host(x, self.label) for x in (first, second)))
        terms = problem.unary, problem.weight, *self._constants
        sizes = size.nodes, count, size.batch, size.labels, half, problem.scale, problem.forbidden
        self._launch("moves_build", *terms, *offer, terminal, residual, *sizes)
        cut = self._cut(terminal, residual)
        self._launch("moves_gain", *terms, *offer, cut, change, *sizes)
        self._launch("moves_take", *offer, cut, change, size.nodes, count)
        return [min(0, int(x)) for x in _array.to_host(change)]

    def _cut(self, terminal: Any, residual: Any) -> Any:
        if not self.problem.edges.offsets:
            return _array.astype(terminal > 0, "uint8")
        return _gpu.solve(terminal, residual, self.problem.edges.offsets, True)[0]

    def _launch(self, name: str, *args: Any) -> None:
        """A kernel of graphcut_moves.cu with a thread for each node of each problem."""
        grid = blocks(self.problem.size.nodes, _THREADS), min(len(self.label), MAX_GRID_YZ)
        real, wide = _array.dtype_name(self.problem.unary), self.problem.wide
        kernel("graphcut_moves.cu", name, real=real, WIDE=wide)(grid, _THREADS, *args)

    @staticmethod
    def node_energies(problem: Problem, label: Any) -> Any:
        """The unary term of each node of labels [B, N], and the terms of the edges that begin there, times scale."""
        machine = Machine(problem, len(label), label)
        out = _array.empty(label, tuple(label.shape), "float64")
        size = problem.size
        machine._launch("moves_energy", problem.unary, problem.weight, *machine._constants, label, out, size.nodes,
                        len(label), size.batch, size.labels, len(problem.steps), problem.scale)  # fmt: skip
        return out
