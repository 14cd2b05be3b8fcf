"""Locally optimal block preconditioned conjugate gradients in the inner product of the mass, in float64.

Knyazev's method with the basis of Hetmaniuk and Lehoucq: the blocks X and P stay orthonormal, so that an iteration
needs the products of the new directions alone; these are made orthogonal to X and P before the Rayleigh-Ritz step, and
those that add nothing are left out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from ._operator import Operator

__all__ = ["Found", "begin", "lobpcg", "residuals", "rotated"]

Array = np.ndarray[Any, Any]

_CHUNK = 2048  # rows that stay in the cache while small matrices are multiplied
_DEPENDENT = 1e-10  # a direction with less than this share of its square outside of the others adds nothing
_RENEW = 20  # iterations after which the products with A are computed anew
_PATIENCE = 25  # iterations in which the residuals must fall to a tenth


class Found(NamedTuple):
    """Ritz values [b], vectors [N, b] with orthonormal columns, true residuals [b], iterations."""

    values: Array
    vectors: Array
    residual: Array
    n_iter: int


def _chunks(n: int) -> Iterator[slice]:
    return (slice(i, min(i + _CHUNK, n)) for i in range(0, n, _CHUNK))


def gram(left: list[Array], right: list[Array], mass: Array | None) -> Array:
    """left^T M right, of blocks side by side."""
    total = np.zeros((sum(x.shape[1] for x in left), sum(x.shape[1] for x in right)))
    for rows in _chunks(len(left[0])):
        one = np.concatenate([x[rows] for x in left], 1)
        other = np.concatenate([x[rows] for x in right], 1)
        if mass is not None:
            other *= mass[rows, None]
        total += one.T @ other
    return total


def combine(blocks: list[Array], coefficients: list[Array], out: list[Array]) -> None:
    """out[i] = the blocks side by side, times coefficients[i]; the outputs may be among the blocks."""
    for rows in _chunks(len(blocks[0])):
        side = np.concatenate([x[rows] for x in blocks], 1)
        for c, to in zip(coefficients, out, strict=True):
            np.matmul(side, c, out=to[rows])


def project(x: Array, basis: list[Array], mass: Array) -> None:
    """Makes x orthogonal to the orthonormal blocks."""
    if basis:
        share = gram(basis, [x], mass)
        for rows in _chunks(len(x)):
            x[rows] -= np.concatenate([b[rows] for b in basis], 1) @ share


def orthonormal(x: Array, mass: Array) -> Array:
    """The columns of x made orthonormal, by twice the inverse root of their products; random where they depend."""
    rng = np.random.default_rng(1)
    for _ in range(3):
        product = gram([x], [x], mass)
        scale = np.sqrt(np.maximum(np.diag(product), np.finfo(float).tiny))
        values, vectors = np.linalg.eigh(product / scale[:, None] / scale)
        good = values > len(scale) * 1e-14
        combine([x], [vectors[:, good] / np.sqrt(values[good]) / scale[:, None]], [x[:, : good.sum()]])
        if not good.all():
            new = rng.standard_normal((len(x), int((~good).sum())))
            project(new, [x[:, : good.sum()]], mass)
            x[:, good.sum() :] = new
    return x


def rotated(operator: Operator, x: Array) -> tuple[Array, Array, Array]:
    """Ritz values, and an orthonormal block and its products in the order of these; x is overwritten."""
    ax = operator.apply(x)
    h = gram([x], [ax], None)
    values, c = np.linalg.eigh((h + h.T) / 2)
    combine([x], [c], [x])
    combine([ax], [c], [ax])
    return values, x, ax


def residuals(operator: Operator, values: Array, x: Array, ax: Array, out: Array) -> Array:
    """Norms |M^-1/2 (A x - lambda M x)|, [b]; the vectors go to ``out``."""
    total = np.zeros(x.shape[1])
    for rows in _chunks(len(x)):
        r = ax[rows] - values * (operator.mass[rows, None] * x[rows])
        total += np.einsum("ij,ij,i->j", r, r, operator.inverse[rows])
        out[rows] = r
    return np.sqrt(total)


def begin(x: Array, null: list[Array], mass: Array) -> Array:
    """A block made orthonormal, outside of the null space."""
    for _ in range(2):
        project(x, null, mass)
        x = orthonormal(x, mass)
    return x


def _unit(w: Array, mass: Array) -> None:
    scale = np.sqrt(np.einsum("ij,ij,i->j", w, w, mass))
    w /= np.where(scale > 0, scale, 1)


def _step(values: Array, held: Array, g: Array, h: Array, width: int) -> tuple[Array, Array, Array, Array]:
    """The Rayleigh-Ritz step: Ritz values, the coefficients of the new X and P in [X, P, W], and P^T A P of the new.

    ``values`` and ``held`` are X^T A X and P^T A P, ``g`` and ``h`` the products [X, P, W]^T M W and [X, P, W]^T A W.
    """
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
    return ritz[:width], basis @ z, basis @ q, (held + held.T) / 2


def lobpcg(
    operator: Operator,
    start: Array,
    null: list[Array],
    precondition: Callable[[Array], Array],
    done: Callable[[Array, Array], bool],
    max_iter: int,
) -> Found:
    """The smallest pairs outside of the null space, from a start [N, b] that is overwritten.

    It ends when ``done(values, norms)``, after ``max_iter`` iterations, or when the residuals stop falling.
    """
    mass, width = operator.mass, start.shape[1]
    values, x, ax = rotated(operator, begin(start, null, mass))
    w, none = np.empty_like(x), np.empty((len(x), 0))
    p, ap, held = none, none, np.zeros((0, 0))
    iteration, fresh, best, since = 0, True, np.inf, 0
    while True:
        norms = residuals(operator, values, x, ax, w)
        ended = done(values, norms)
        if not ended:
            worst = float((norms / np.maximum(values, np.finfo(float).tiny)).max())
            best, since = (worst, iteration) if worst < 0.1 * best else (best, since)
        ended = ended or iteration == max_iter or iteration - since > _PATIENCE
        if ended and fresh:
            return Found(values, x, norms, iteration)
        if not fresh and (ended or iteration % _RENEW == 0):  # what recurrences have carried on is computed anew
            values, x, ax = rotated(operator, orthonormal(x, mass))
            p, ap, held, fresh = none, none, np.zeros((0, 0)), True
            continue
        iteration, fresh = iteration + 1, False
        w /= np.maximum(norms, np.finfo(float).tiny)
        w[...] = precondition(w)
        _unit(w, mass)
        project(w, [*null, x, p], mass)
        _unit(w, mass)
        aw = operator.apply(w)
        both = [x, p, w]
        g, h = gram(both, [w], mass), gram(both, [aw], None)
        values, to_x, to_p, held = _step(values, held, g, h, width)
        products = [ax, ap, aw]
        if p.shape[1] != to_p.shape[1]:
            p, ap = (np.empty((len(x), to_p.shape[1])) for _ in range(2))
        combine(both, [to_x, to_p], [x, p])
        combine(products, [to_x, to_p], [ax, ap])
