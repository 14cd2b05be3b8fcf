"""What the moves of both halves, CPU and GPU, work on: the images and their terms, and how far a descent has come."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from .cut import Edges

__all__ = ["NONE", "Course", "Move", "Problem", "Size", "descend"]

Array = np.ndarray[Any, Any]

NONE = -1  # as a label of a move
Move = tuple[int, int]  # labels: of an expansion and NONE, or of a swap


class Size(NamedTuple):
    """The sizes of the images."""

    lead: tuple[int, ...]
    labels: int
    shape: tuple[int, ...]

    @property
    def batch(self) -> int:
        return math.prod(self.lead)

    @property
    def nodes(self) -> int:
        return math.prod(self.shape)

    @property
    def volume(self) -> tuple[int, int, int]:
        """Depth, height, width."""
        return (1, *self.shape)[-3:]  # type: ignore[return-value]


class Problem(NamedTuple):
    """Images and their terms; a term is ``rint(unary * scale)`` or ``rint(weight * table)``."""

    size: Size
    edges: Edges
    integers: bool  # all arguments were
    unary: Any  # [B, L, N], float32 or float64
    weight: Any  # [B, K, N], float64, times scale
    table: Array  # [L, L], float64, on the host
    metric: bool
    steps: Array  # [K], int64, on the host: how many nodes further each edge leads
    scale: float  # a power of two
    forbidden: float  # what +inf counts as
    wide: bool  # whether capacities need int64

    def image(self, b: int) -> Problem:
        """The problem of one image."""
        size = self.size._replace(lead=())
        return self._replace(size=size, unary=self.unary[b : b + 1], weight=self.weight[b : b + 1])


class Course:
    """How far a descent has come: it ends once no move can change anything, or after ``max_iter`` cycles."""

    def __init__(self, moves: Sequence[Move], max_iter: int, ended: bool = False) -> None:
        """``ended``: it starts where a descent by these moves has ended."""
        self.moves, self.most, self.ended = moves, max_iter * len(moves), ended
        self.count = self.quiet = 0  # moves made; those that have changed nothing since, and need not be made again
        self.change = 0  # of the energy

    @property
    def settled(self) -> bool:
        return self.quiet >= len(self.moves)

    @property
    def cycles(self) -> int:
        return -(-self.count // max(1, len(self.moves)))

    def next(self) -> Move:
        if self.settled or self.count == self.most:
            return NONE, NONE
        return self.moves[self.count % len(self.moves)]

    def tell(self, change: int) -> None:
        """The outcome of a move: one that has just been made is the best of its kind."""
        self.count += 1
        self.quiet = 1 if change < 0 else self.quiet + 1
        self.change += change

    def tell_fused(self, change: int) -> None:
        """The outcome of a fusion before the first move."""
        self.change += change
        if self.ended and not change:
            self.quiet = len(self.moves)


def descend(machine: Any, courses: Sequence[Course], proposal: Any = None) -> None:
    """Fuses with a proposal, if there is one; then one move of each problem at a time, until all have ended."""
    if proposal is not None:
        for course, change in zip(courses, machine.fuse(proposal), strict=True):
            course.tell_fused(change)
    while True:
        moves = [course.next() for course in courses]
        if all(move[0] == NONE for move in moves):
            return
        changes = machine.move(moves)
        for course, move, change in zip(courses, moves, changes, strict=True):
            if move[0] != NONE:
                course.tell(change)
