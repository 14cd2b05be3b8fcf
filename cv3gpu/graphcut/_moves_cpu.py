"""The CPU half of expansion, swap and fusion moves; the loops are in `_moves_loops`."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np

from .._njit import compiled
from .._threads import each
from . import _cpu, _moves_loops
from ._descent import NONE, Course, Move, Problem, descend

__all__ = ["Machine", "Mover"]

Array = np.ndarray[Any, Any]

_NO_CUT = np.zeros(1, np.uint8)


class Machine:
    """Problems on the CPU, each in a thread: problem p is of image p % B."""

    def __init__(self, problem: Problem, count: int, start: Array | None) -> None:
        batch, nodes = problem.size.batch, problem.size.nodes
        if start is None:
            start, cost = np.empty((batch, nodes), np.int32), np.empty(nodes, problem.unary.dtype)
            for b in range(batch):
                compiled(_moves_loops._cheapest)(problem.unary[b], cost, start[b])
        self._movers = [Mover(problem, p % batch, start[p % batch].copy()) for p in range(count)]

    @property
    def label(self) -> Array:
        """Labels [P, N]."""
        return np.stack([mover.label for mover in self._movers])

    def only(self, problems: Sequence[int]) -> Machine:
        """Some of the problems, as they stand."""
        some = copy.copy(self)
        some._movers = [self._movers[p] for p in problems]
        return some

    def run(self, courses: Sequence[Course], proposal: Array | None = None) -> None:
        """Descends in all problems."""

        def one(p: int) -> None:
            descend(self._movers[p], courses[p : p + 1], None if proposal is None else proposal[p : p + 1])

        each(one, [(p,) for p in range(len(courses))])

    @staticmethod
    def node_energies(problem: Problem, label: Array) -> Array:
        """The unary term of each node of labels [B, N], and the terms of the edges that begin there, times scale."""
        out, run = np.empty(label.shape), compiled(_moves_loops._node_energies)
        for b in range(len(label)):
            run(problem.unary[b], problem.scale, problem.weight[b], problem.table, problem.steps, label[b], out[b])
        return out


class Mover:
    """Moves of one problem on the CPU, in the labels that it is given.

    A clock counts the moves that changed something. It says of each node when it changed last, and of each expansion
    when it was made last: where nothing has changed since, it can't change anything.
    """

    def __init__(self, problem: Problem, image: int, label: Array) -> None:
        nodes, half = problem.size.nodes, len(problem.steps)
        self.label = label
        self._problem = problem
        self._unary, self._weight = problem.unary[image], problem.weight[image]
        self._size = np.array(problem.size.volume, np.int64)
        self._zero, self._one, self._node, self._stack, self._member = np.empty((5, nodes), np.int32)
        self._slot, self._stamp = np.zeros((2, nodes), np.int32)
        gain, inflow = np.empty((2, nodes), np.int64)
        self._flows = gain, inflow, np.empty(nodes * 2 * half, np.int64), np.empty(nodes, np.uint8)
        self._box, self._small = np.empty((nodes // 2 + 1, 9), np.int64), np.empty(3, np.int64)
        self._clock = 0
        self._made: dict[int, int] = {}  # expansions, and when
        self._cost, self._total = np.empty(nodes, problem.unary.dtype), np.empty(nodes)
        self._paid, self._capacity = np.empty((2, half, nodes))
        self._short, self._to_alpha = np.empty((2, nodes))
        compiled(_moves_loops._prepare)(self._unary, self._weight, problem.table, problem.steps, label, self._cost,
                                        self._total, self._paid)  # fmt: skip

    def move(self, moves: Sequence[Move]) -> list[int]:
        """An expansion or a swap; the change of the energy."""
        ((alpha, beta),) = moves
        if beta != NONE:
            offer = self._zero, self._one
            count = compiled(_moves_loops._of_pair)(self.label, alpha, beta, *offer, self._node, self._slot)
            return [self._choose(*offer, count)]
        since = self._made.get(alpha, NONE)
        if since == self._clock:
            return [0]
        self._one[:] = alpha
        change = self._choose(self.label, self._one, self._of_expansion(alpha), since)
        self._made[alpha] = self._clock
        return [change]

    def fuse(self, proposal: Array) -> list[int]:
        """Fuses the labels with others; the change of the energy."""
        return [self._choose(self.label, proposal[0], self._of_fusion(proposal[0]))]

    def _of_expansion(self, alpha: int) -> int:
        """Lists the candidates; how many."""
        problem = self._problem
        if not problem.metric:
            return self._of_fusion(self._one)
        return int(compiled(_moves_loops._of_expansion)(
            self._unary, problem.scale, self._weight, problem.steps, problem.table[alpha], self.label, self._cost,
            self._total, self._paid, alpha, self._to_alpha, self._capacity, self._short, self._node, self._slot,
            self._stack,
        ))  # fmt: skip

    def _of_fusion(self, one: Array) -> int:
        """Lists the candidates; how many."""
        problem = self._problem
        spread = float(problem.table.max() - problem.table.min())
        return int(compiled(_moves_loops._of_fusion)(
            self._unary, problem.scale, problem.steps, spread, self.label, one, self._cost, self._total, self._node,
            self._slot,
        ))  # fmt: skip

    def _choose(self, zero: Array, one: Array, count: int, since: int = NONE) -> int:
        """Gives each candidate the better of two labels, if that lowers the energy; the change of the energy."""
        if not count:
            return 0
        problem = self._problem
        terms = self._unary, problem.scale, problem.forbidden, self._weight, problem.table, problem.steps
        size = compiled(*_moves_loops.GRAPH)(
            *terms, self._size, zero, one, self._node, self._slot, count, *self._flows, self._stack, self._stamp, since,
            self._member, self._box, self._small,
        )  # fmt: skip
        cut = self._cut(size, count) if size else _NO_CUT
        change = int(compiled(*_moves_loops.TAKE)(
            *terms, zero, one, self._node, self._slot, count, self._flows[-1], self._stack, self._member, cut,
            self._cost, self._paid, self.label, self._stamp, self._clock + 1,
        ))  # fmt: skip
        self._clock += change < 0
        return change

    def _cut(self, size: int, count: int) -> Array:
        problem, kind = self._problem, np.int64 if self._problem.wide else np.int32
        terminal, residual = np.empty(size, kind), np.empty((2 * len(problem.steps), size), kind)
        compiled(_moves_loops._place)(self._size, self._small, self._node, count, *self._flows, self._member, self._box,
                                      terminal, residual)  # fmt: skip
        shape = self._small[3 - len(problem.size.shape) :].tolist()
        graph = terminal.reshape(1, *shape), residual.reshape(1, -1, *shape)
        return _cpu.solve(*graph, problem.edges.offsets, True)[0].reshape(-1)
