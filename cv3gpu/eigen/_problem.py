"""What an eigenproblem asks for: its null space, when pairs outside of it have converged, and which method serves."""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import _array
from ._aggregation import Aggregation
from ._chebyshev import chebyshev
from ._lobpcg import Found, lobpcg
from ._multigrid import Multigrid
from ._operator import GridOperator, Operator, SparseOperator

__all__ = [
    "CUT",
    "DENSE",
    "GUARD",
    "LOOSE",
    "NEIGHBOURS",
    "ROUNDING",
    "STALLED",
    "Problem",
    "limits",
    "loose_start",
    "null_space",
    "signs",
]

Array = np.ndarray[Any, Any]

DENSE = 512  # vertices that LAPACK solves for
STALLED = 2048  # and where LOBPCG does not end
NEIGHBOURS = 200  # of a pixel, from which on plain products beat the multigrid
GUARD = 3  # vectors more than wanted
LOOSE = 1e-8  # share of a degree: what is connected by weaker edges alone is tried as a start
PARTS = 1000  # of the graph, at most, that are tried so
CUT = 1e-17  # share of a degree: weaker edges change no product, and connect nothing
ROUNDING = 8 * np.finfo(np.float64).eps  # of a residual, relative to the greatest eigenvalue
RESOLVED = 100  # times the rounding is the least eigenvalue that can be told from zero

# ---- null space -------------------------------------------------------------------------------------------


def null_space(operator: Operator, k: int) -> tuple[Array, bool]:
    """Up to k orthonormal vectors [N, c] that are constant on components; whether these share no weight at all."""
    label = operator.components(CUT)
    exact = not label.any() or label.max() == operator.components(0.0).max()
    volume = np.bincount(label, operator.mass)
    order = np.argsort(-volume, kind="stable")
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    position, volume = rank[label], volume[order]
    before = np.cumsum(volume)
    null = np.zeros((operator.size, min(k, len(volume))))
    null[:, 0] = 1 / np.sqrt(before[-1])
    for j in range(1, null.shape[1]):
        # component j against all larger ones: their mean is zero
        inside, larger = volume[j], before[j - 1]
        scale = 1 / np.sqrt(inside * larger * (inside + larger))
        null[position < j, j] = inside * scale
        null[position == j, j] = -larger * scale
    return null, exact


def loose_start(operator: Operator, components: int, count: int) -> Array:
    """A start [N, <= count] where weak edges alone hold parts of the graph together: the best mixes of these parts.

    Their eigenvalues are so small that no iteration would find them.
    """
    label = operator.components(LOOSE)
    volume = np.bincount(label, operator.mass)
    if len(volume) <= components:
        return np.empty((operator.size, 0))
    order = np.argsort(-volume, kind="stable")[:PARTS]
    rank = np.full(len(volume), -1)
    rank[order] = np.arange(len(order))
    part, parts = rank[label], len(order)
    scale = np.append(1 / np.sqrt(volume[order]), 0)
    small = np.empty((parts, parts))
    for first in range(0, parts, 16):
        columns = np.arange(first, first + 16)
        image = operator.apply((part[:, None] == columns) * scale[part, None])
        for j in range(min(16, parts - first)):
            small[:, first + j] = np.bincount(part + 1, image[:, j], parts + 1)[1:] * scale[:-1]
    values, vectors = np.linalg.eigh((small + small.T) / 2)
    keep = slice(components, components + min(count, int((values < LOOSE).sum()) - components))
    return np.concatenate([vectors, np.zeros((1, parts))])[part][:, keep] * scale[part, None]


# ---- solvers ----------------------------------------------------------------------------------------------


def limits(values: Array, least: float, tol: float, most: float) -> Array:
    """What the residuals of eigenvalues may be; ``least`` is the smallest nonzero one, ``most`` bounds them all."""
    return np.maximum(tol * np.maximum(values, least), ROUNDING * most)


class Problem:
    """What is wanted outside of the null space."""

    def __init__(self, operator: Operator, null: Array, wanted: int, tol: float) -> None:
        self.operator, self.null, self.wanted, self.tol = operator, null, wanted, tol
        self.rounding = ROUNDING * operator.most

    def limits(self, values: Array) -> Array:
        """What the residuals of the wanted pairs may be."""
        wanted = values[: self.wanted]
        return limits(wanted, float(wanted.min(initial=np.inf)), self.tol, self.operator.most)

    def hidden(self, values: Array) -> Array:
        """Which eigenvalues can't be told from zero."""
        return values < RESOLVED * self.rounding

    def done(self, values: Array, norms: Array) -> bool:
        """Whether nothing is left to do: what can't be resolved ends at a residual that is as small."""
        allowed = np.where(self.hidden(values[: self.wanted]), RESOLVED * self.rounding, self.limits(values))
        return bool((norms[: self.wanted] <= allowed).all())

    def solve(self, max_iter: int, seed: int) -> Found:
        """The pairs, on the CPU; residuals of LAPACK's count as 0."""
        operator = self.operator
        width = -(-(self.wanted + GUARD) // 4) * 4
        if operator.size <= DENSE or operator.size < 4 * (width + self.null.shape[1]):
            return self._dense()
        if (multigrid := self._multigrid()) is not None:
            null = self.null.shape[1]
            start = self._start(seed, width, multigrid.start(width + null)[:, null:])
            found = lobpcg(operator, start, [self.null], multigrid, self.done, max_iter)
            if self.done(found.values, found.residual) or found.n_iter == max_iter:
                return found
            if operator.size <= STALLED:
                return self._dense()._replace(n_iter=found.n_iter)
            rest = chebyshev(operator, found.vectors, [self.null], self.wanted, self.done, max_iter - found.n_iter)
            return rest._replace(n_iter=found.n_iter + rest.n_iter)
        width = -(-(self.wanted + max(GUARD, self.wanted // 2)) // 4) * 4
        start = self._start(seed, width, np.empty((operator.size, 0)))
        return chebyshev(operator, start, [self.null], self.wanted, self.done, max_iter)

    def _multigrid(self) -> Multigrid | None:
        """The preconditioner, where it beats plain products."""
        operator = self.operator
        if isinstance(operator, GridOperator) and 2 * len(operator.stencil.dy) <= NEIGHBOURS:
            return Multigrid(operator.stencil, operator.degree, operator.diagonal, operator.mass)
        if isinstance(operator, SparseOperator) and operator.matrix.nnz <= NEIGHBOURS * operator.size:
            cycle = Aggregation(operator.matrix, operator.mass)
            return cycle if cycle.ready else None
        return None

    def _start(self, seed: int, width: int, known: Array) -> Array:
        """A block [N, width]: parts that hang loosely together, then what is known, then random vectors."""
        start = np.random.default_rng(seed).standard_normal((self.operator.size, width))
        loose = loose_start(self.operator, self.null.shape[1], width)
        given = np.concatenate([loose, known], 1)[:, :width]
        start[:, : given.shape[1]] = given
        return start

    def _dense(self) -> Found:
        """LAPACK's, of M^-1/2 A M^-1/2 with the null space lifted out of the way.

        That space is projected out first: of a graph whose weights are near rounding, A of it is not small enough.
        """
        from scipy.linalg import eigh

        operator = self.operator
        root = np.sqrt(operator.mass)
        lifted = self.null * root[:, None]
        matrix = operator.dense() / root[:, None] / root
        leaked = matrix @ lifted
        both = leaked @ lifted.T
        raised = lifted.T @ leaked + 4 * operator.most * np.eye(lifted.shape[1])
        matrix += lifted @ raised @ lifted.T - both - both.T
        values, vectors = eigh((matrix + matrix.T) / 2, subset_by_index=[0, self.wanted - 1])
        return Found(values, vectors / root[:, None], np.zeros(self.wanted), 0)


# ---- signs ------------------------------------------------------------------------------------------------


def signs(vectors: Any) -> Any:
    """1 or -1 for each of the vectors [N, k], of any library: times it, the largest entry is positive."""
    library = _array.module(vectors)
    high, low = (_array.to_host(f(vectors, 0)) for f in (library.amax, library.amin))
    return _array.from_host(np.where(high < -low, -1.0, 1.0), vectors)
