"""The method of `_lobpcg` on the device: blocks in float64, the multigrid in float32.

All that new directions are made orthogonal to stands in one block, [null space, X, P], and A times that in another, so
that a step of an iteration reads each once. The host reads Ritz values and residuals once an iteration.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import _array
from .._kernel import blocks
from ._gpu import MOST, _Device, _Pixels, threads_for
from ._gpu_multigrid import Cycle
from ._lobpcg import PATIENCE, RENEW, Found
from ._problem import GUARD, NEIGHBOURS, Problem

__all__ = ["lobpcg", "serves"]

Array = np.ndarray[Any, Any]


def _width(wanted: int) -> int:
    return blocks(wanted + GUARD, 4) * 4


def serves(matrix: _Pixels, null: Any, wanted: int) -> bool:
    """Whether the multigrid beats filters, and the blocks fit small matrices."""
    width, before = _width(wanted), int(null.shape[1])
    fits = 3 * width <= MOST and (before + 2 * width) * width <= MOST * MOST // 4
    return fits and 0 < 2 * matrix.stencil.half <= NEIGHBOURS


class _Blocks:
    """[null space, X, P] and A times that, side by side; Ritz values, residuals and P^T A P."""

    def __init__(self, space: _Device, width: int) -> None:
        self.space, self.width, self.before = space, width, int(space.null.shape[1])
        columns = self.before + 2 * width
        self.all, self.images = (_array.zeros(space.null, (space.matrix.size, columns)) for _ in range(2))
        self.all[:, : self.before] = space.null
        self.state, self.held = space.small(2 * width), space.small(width, width)
        self.coefficients = space.small(self.before + 3 * width, columns)

    def renew(self, x: Any) -> None:
        """A block becomes X, its products computed anew; there is no P."""
        values, ax, _ = self.space.ritz(x)
        here = slice(self.before, self.before + self.width)
        self.all[:, here], self.images[:, here] = x, ax
        self.all[:, here.stop :], self.images[:, here.stop :] = 0, 0
        self.state[: self.width] = _array.from_host(np.ascontiguousarray(values), self.all)
        self.held[...] = -1

    def x(self) -> Any:
        """X by itself."""
        return _array.contiguous(self.all[:, self.before : self.before + self.width])

    def residuals(self, out: Any) -> tuple[Array, Array, Any]:
        """Ritz values and norms, the latter on the device as well; the vectors go to ``out``."""
        values, norms = self.state[: self.width], self.state[self.width :]
        self.space.residuals(values, self.all, self.images, norms, out, self.before)
        state = _array.to_host(self.state)
        return state[: self.width], state[self.width :], norms

    def step(self, w: Any) -> None:
        """X and P from themselves and new directions, which are made orthonormal."""
        space, b = self.space, self.width
        space.orthonormal(w, self.all)
        aw = space.matrix.apply(w)
        part = space.gram(self.all, w, aw, None)
        room = 8 * (2 * MOST * (MOST + 1) + 9 * b * (b + 1))  # as in eigen_step
        space.run("eigen_step", 1, part, self.state, self.held, self.coefficients, len(part), self.before, b,
                  threads=threads_for(3 * b), shared_mem=room)  # fmt: skip
        space.combine(w, self.all, self.coefficients, self.all)
        space.combine(aw, self.images, self.coefficients, self.images)


def lobpcg(matrix: _Pixels, null: Any, problem: Problem, loose: Array, max_iter: int, seed: int) -> Found:
    """As `_lobpcg.lobpcg`, its start and its preconditioner included."""
    width, tiny = _width(problem.wanted), np.finfo(float).tiny
    space = _Device(matrix, null, "float64", seed)
    cycle = Cycle(matrix, matrix.affinity.flat, matrix.affinity.offsets, seed)
    found = cycle.start(width, problem.wanted)
    w = space.scattered(width) if found is None else _array.astype(found, "float64")
    del found
    known = loose[:, :width]
    w[:, : known.shape[1]] = _array.from_host(np.ascontiguousarray(known), w)
    here = _Blocks(space, width)
    here.renew(w)
    inverse = cycle.levels[0].inverse[:, None]
    iteration, fresh, best, since = 0, True, np.inf, 0
    while True:
        values, norms, there = here.residuals(w)
        ended = problem.done(values, norms)
        if not ended:
            worst = float((norms / np.maximum(values, tiny)).max())
            best, since = (worst, iteration) if worst < 0.1 * best else (best, since)
        ended = ended or iteration == max_iter or iteration - since > PATIENCE or not np.isfinite(norms).all()
        if ended and fresh:
            return Found(values, here.x(), norms, iteration)
        if not fresh and (ended or iteration % RENEW == 0):
            here.renew(here.x())
            fresh = True
            continue
        iteration, fresh = iteration + 1, False
        scaled = _array.astype(w / (there + tiny), "float32") * inverse
        w = _array.astype(cycle(scaled), "float64")
        here.step(w)
