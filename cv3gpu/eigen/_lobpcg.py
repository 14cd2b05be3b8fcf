"""Locally optimal block preconditioned conjugate gradients in the inner product of the mass, in float64.

Knyazev's method with the basis of Hetmaniuk and Lehoucq: the blocks X and P stay orthonormal; the new directions are
made orthogonal to both before the Rayleigh-Ritz step, and those that add nothing are left out. Products with X and P
are not carried on: A X is computed anew for the residuals, which costs a product an iteration and saves two blocks.
P is kept in float32: its rounding weighs as much as its share in the next X, which vanishes as X converges.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from .._njit import compiled
from .._threads import each
from . import _loops
from ._multigrid import sparse_bands
from ._operator import Operator

__all__ = ["PATIENCE", "RENEW", "Found", "begin", "lobpcg", "residuals", "rotated"]

Array = np.ndarray[Any, Any]

_DEPENDENT = 1e-10  # a direction with less than this share of its square outside of the others adds nothing
RENEW = 20  # iterations after which the products with A are computed anew
PATIENCE = 25  # iterations in which the residuals must fall to a tenth


class Found(NamedTuple):
    """Ritz values [b], vectors [N, b] with orthonormal columns, true residuals [b], iterations."""

    values: Array
    vectors: Array
    residual: Array
    n_iter: int


def _gram(x: Array, y: Array, mass: Array | None) -> Array:
    """x^T M y of blocks [N, a] and [N, b], b a multiple of 4: summed in parts, one for each thread."""
    bands, run = sparse_bands(len(x)), compiled(*_loops.CROSS)
    weight, weighted = (np.empty(0), False) if mass is None else (mass, True)
    total = np.zeros((len(bands), x.shape[1], y.shape[1]))

    def part(number: int, first: int, last: int) -> None:
        run(x, y, weight, weighted, first, last, np.empty((_loops.PIECE, y.shape[1])), total[number])

    each(part, [(number, *rows) for number, rows in enumerate(bands)])
    return total.sum(0)


def _turn(x: Array, coefficients: Array) -> None:
    """Multiplies the rows of x by coefficients [b, b], in place."""
    run = compiled(*_loops.TURN)
    each(lambda *rows: run(x, coefficients, *rows, np.empty((_loops.AT_ONCE, x.shape[1]))), sparse_bands(len(x)))


def _combine(x: Array, p: Array, w: Array, to_x: Array, to_p: Array) -> None:
    """Puts [x, p, w] @ to_x into x, and [x, p, w] @ to_p into p; the coefficients are [3, b, b]."""
    run = compiled(*_loops.COMBINE)

    def part(first: int, last: int) -> None:
        run(x, p, w, to_x, to_p, first, last, *np.empty((2, _loops.AT_ONCE, x.shape[1])))

    each(part, sparse_bands(len(x)))


def _widen(x: Array, out: Array) -> None:
    """``out`` = x, of another type."""
    each(lambda first, last: np.copyto(out[first:last], x[first:last]), sparse_bands(len(x)))


def _project(x: Array, basis: list[Array], mass: Array) -> None:
    """Makes x orthogonal to the orthonormal blocks; columns of zeros may be among them."""
    shares = [-_gram(block, x, mass) for block in basis]
    run = compiled(*_loops.ADD)

    def part(first: int, last: int) -> None:
        for block, share in zip(basis, shares, strict=True):
            run(block, share, first, last, x)

    each(part, sparse_bands(len(x)))


def _orthonormal(x: Array, mass: Array) -> Array:
    """The columns of x made orthonormal, by twice the inverse root of their products; random where they depend."""
    rng = np.random.default_rng(1)
    for _ in range(3):
        product = _gram(x, x, mass)
        scale = np.sqrt(np.maximum(np.diag(product), np.finfo(float).tiny))
        values, vectors = np.linalg.eigh(product / scale[:, None] / scale)
        good = values > len(scale) * 1e-14
        count = int(good.sum())
        coefficients = np.zeros_like(product)
        coefficients[:, :count] = vectors[:, good] / np.sqrt(values[good]) / scale[:, None]
        _turn(x, coefficients)
        if count < len(values):
            new = np.zeros_like(x)
            new[:, count:] = rng.standard_normal((len(x), len(values) - count))
            _project(new, [x], mass)
            x[:, count:] = new[:, count:]
    return x


def rotated(operator: Operator, x: Array, room: Array) -> Array:
    """Ritz values of an orthonormal block [N, b], which is turned into the order of these; ``room`` is overwritten."""
    operator.product(x, room)
    h = _gram(x, room, None)
    values, c = np.linalg.eigh((h + h.T) / 2)
    _turn(x, c)
    return values


def residuals(operator: Operator, values: Array, x: Array, room: Array, out: Array) -> Array:
    """Norms |M^-1/2 (A x - lambda M x)|, [b]; the vectors go to ``out``, and A x to ``room``: it may be the same."""
    operator.product(x, room)
    bands, run = sparse_bands(len(x)), compiled(*_loops.RESIDUAL)
    total = np.zeros((len(bands), x.shape[1]))

    def part(number: int, first: int, last: int) -> None:
        run(values, x, room, operator.mass, first, last, total[number], out)

    each(part, [(number, *rows) for number, rows in enumerate(bands)])
    return np.sqrt(total.sum(0))


def begin(x: Array, null: list[Array], mass: Array) -> Array:
    """A block made orthonormal, outside of the null space."""
    for _ in range(2):
        _project(x, null, mass)
        x = _orthonormal(x, mass)
    return x


def _step(values: Array, held: Array, g: Array, h: Array) -> tuple[Array, Array, Array]:
    """The Rayleigh-Ritz step: Ritz values, the coefficients [X, P] of the new in [X, P, W], and P^T A P of the new.

    ``values`` and ``held`` are X^T A X and P^T A P, ``g`` and ``h`` the products [X, P, W]^T M W and [X, P, W]^T A W.
    """
    width = len(values)
    new = g.shape[1]
    count = len(g) - new
    overlap = g[:count]
    left = g[count:] - overlap.T @ overlap
    roots, vectors = np.linalg.eigh((left + left.T) / 2)
    good = roots > _DEPENDENT
    basis = np.eye(count + new, count + int(good.sum()))  # orthonormal: W less its shares of X and P
    basis[count:, count:] = vectors[:, good] / np.sqrt(roots[good])
    basis[:count, count:] = -overlap @ basis[count:, count:]
    whole = np.zeros((count + new, count + new))
    whole[:width, :width] = np.diag(values)
    whole[width:count, width:count] = held
    whole[:, count:] = h
    whole[count:, :count] = h[:count].T
    small = basis.T @ whole @ basis
    ritz, z = np.linalg.eigh((small + small.T) / 2)
    z = z[:, :width]
    rest = z.copy()  # the part of the new X outside of the old
    rest[:width] = 0
    rest -= z @ (z.T @ rest)
    q, sizes, _ = np.linalg.svd(rest, full_matrices=False)
    q = q[:, sizes > _DEPENDENT * sizes[0]]
    q -= z @ (z.T @ q)
    held = q.T @ small @ q
    return ritz[:width], basis @ np.concatenate([z, q], 1), (held + held.T) / 2


def _mixes(values: Array, held: Array, g: Array, h: Array) -> tuple[Array, Array, Array, Array]:
    """As `_step` of blocks as wide as X, whose last columns may be unused: P's are as many as ``held``, W's any length.

    Coefficients are [3, b, b]; those of columns that aren't used are zero.
    """
    width = len(values)
    size = np.sqrt(np.maximum(np.diag(g[2 * width :]), 0))
    unit = np.divide(1, size, out=np.zeros_like(size), where=size > 0)
    used = np.concatenate([np.arange(width + len(held)), np.arange(2 * width, 3 * width)])
    scale = np.concatenate([np.ones(width + len(held)), unit])
    ritz, to, held = _step(values, held, *(scale[:, None] * part[used] * unit for part in (g, h)))
    wide = np.zeros((3 * width, 2 * width))
    wide[used, : to.shape[1]] = scale[:, None] * to
    to_x, to_p = (np.ascontiguousarray(part).reshape(3, width, width) for part in np.hsplit(wide, 2))
    return ritz, to_x, to_p, held


def lobpcg(
    operator: Operator,
    start: Array,
    null: list[Array],
    precondition: Callable[[Array, Array], Array],
    done: Callable[[Array, Array], bool],
    max_iter: int,
) -> Found:
    """The smallest pairs outside of the null space, from a start [N, b] that is overwritten.

    ``precondition(r, work)`` takes residuals of float32 and room [4, N, b] for it to work in, whose first part they
    may be, and returns the last. It ends when ``done(values, norms)``, after ``max_iter`` iterations, or when the
    residuals stop falling.
    """
    mass, x = operator.mass, begin(start, null, operator.mass)
    p, held = np.zeros(x.shape, np.float32), np.zeros((0, 0))
    w, aw = both = np.empty((2, *x.shape))  # aw has A x, too, while there is no A w
    work = both.view(np.float32).reshape(4, *x.shape)  # the same memory, while there are no directions
    values = rotated(operator, x, aw)
    iteration, fresh, best, since = 0, True, np.inf, 0
    while True:
        norms = residuals(operator, values, x, aw, work[0])
        ended = done(values, norms)
        if not ended:
            worst = float((norms / np.maximum(values, np.finfo(float).tiny)).max())
            best, since = (worst, iteration) if worst < 0.1 * best else (best, since)
        ended = ended or iteration == max_iter or iteration - since > PATIENCE
        if ended and fresh:
            return Found(values, x, norms, iteration)
        if not fresh and (ended or iteration % RENEW == 0):  # what recurrences have carried on is computed anew
            x = begin(x, null, mass)
            values, held, fresh = rotated(operator, x, aw), np.zeros((0, 0)), True
            continue
        iteration, fresh = iteration + 1, False
        _widen(precondition(work[0], work), w)
        _project(w, [*null, x, p] if len(held) else [*null, x], mass)
        operator.product(w, aw)
        blocks = [x, p, w]
        g, h = (np.concatenate([_gram(b, y, m) for b in blocks]) for y, m in ((w, mass), (aw, None)))
        values, to_x, to_p, held = _mixes(values, held, g, h)
        _combine(x, p, w, to_x, to_p)
