"""The CPU's inner loops of the eigensolvers, for `_njit.compiled`: multigrid on a pixel grid, Chebyshev recurrences."""

from __future__ import annotations

from typing import Any

import numpy as np

from .._lanes import sum_rows
from ..affinity import _loops
from ..affinity._loops import TILE, segment

__all__ = ["COMPONENTS", "FOLLOW", "GALERKIN", "GATHER", "INTERPOLATION", "RECUR", "SCALED", "SMOOTH"]

Array = np.ndarray[Any, Any]


def _scaled(weight: Array, plane: int, dy: Array, dx: Array, scale: Array, first: int, last: int, out: Array,
            out_plane: int) -> None:  # fmt: skip
    """``out`` = s_i w_ij s_j in rows ``first`` to ``last``; ``scale`` [H, W]."""
    height, width = scale.shape
    for h in range(dy.shape[0]):
        for y in range(first, last):
            begin, end = max(0, -dx[h]), min(width, width - dx[h])
            if y + dy[h] >= height or begin >= end:
                begin, end = width, width
            here = y * width
            out[h * out_plane + here : h * out_plane + here + begin] = 0
            out[h * out_plane + here + end : h * out_plane + here + width] = 0
            for x in range(begin, end):
                both = scale[y, x] * scale[y + dy[h], x + dx[h]]
                out[h * out_plane + here + x] = weight[h * plane + here + x] * both


SCALED = (_scaled,)


# ---- coarser grids ----------------------------------------------------------------------------------------


def _above(x: int, step: int) -> int:
    """The first coarse point at x or after it."""
    return -((-x) // step)


def _interpolation(weight: Array, plane: int, dy: Array, dx: Array, height: int, width: int, every: int, reach: int,
                   out: Array) -> None:  # fmt: skip
    """``out`` [H, W, S, S]: shares of the coarse points around each pixel, as their weights are; they sum to 1.

    The slots begin at the first coarse point from ``y - reach`` and ``x - reach`` on. A coarse point's weight with
    itself is 1.
    """
    out[...] = 0
    for y in range(height):
        for x in range(width):
            row, column = _above(y - reach, every), _above(x - reach, every)
            here, total = y * width + x, 0.0
            if y % every == 0 and x % every == 0:
                out[y, x, y // every - row, x // every - column] = 1.0
                total = 1.0
            for h in range(dy.shape[0]):
                for side in range(2):
                    sign = 1 - 2 * side
                    v, u = y + sign * dy[h], x + sign * dx[h]
                    if v % every == 0 and u % every == 0 and 0 <= v < height and 0 <= u < width:
                        w = weight[h * plane + (here if side == 0 else v * width + u)]
                        out[y, x, v // every - row, u // every - column] = w
                        total += w
            if total > 0:
                for i in range(out.shape[2]):
                    for j in range(out.shape[3]):
                        out[y, x, i, j] /= total


INTERPOLATION = (_above, _interpolation)


def _galerkin(weight: Array, plane: int, dy: Array, dx: Array, degree: Array, share: Array, every: int, reach: int,
              wide: int, first: int, last: int, space: Array, out: Array) -> None:  # fmt: skip
    """Adds P^T (D - W) P of the rows ``first`` to ``last`` of P^T to ``out`` [h, w, 2 wide + 1, 2 wide + 1].

    ``degree`` [H, W] is the sum of a pixel's weights. ``share`` is P. ``space`` [T, T] takes a row of (D - W) P.
    """
    height, width, slots, _ = share.shape
    for y in range(first, last):
        for x in range(width):
            here = y * width + x
            top, left = _above(y - 2 * reach, every), _above(x - 2 * reach, every)
            space[...] = 0
            row, column = _above(y - reach, every) - top, _above(x - reach, every) - left
            own = degree[y, x]
            for i in range(slots):
                for j in range(slots):
                    if share[y, x, i, j] != 0:
                        space[row + i, column + j] = own * share[y, x, i, j]
            for h in range(dy.shape[0]):
                for side in range(2):
                    sign = 1 - 2 * side
                    v, u = y + sign * dy[h], x + sign * dx[h]
                    if 0 <= v < height and 0 <= u < width:
                        w = weight[h * plane + (here if side == 0 else v * width + u)]
                        r, c = _above(v - reach, every) - top, _above(u - reach, every) - left
                        for i in range(slots):
                            for j in range(slots):
                                if share[v, u, i, j] != 0:
                                    space[r + i, c + j] -= w * share[v, u, i, j]
            for i in range(slots):
                for j in range(slots):
                    part = share[y, x, i, j]
                    if part != 0:
                        a, b = top + row + i, left + column + j  # the coarse point
                        for k in range(space.shape[0]):
                            to = top + k - a + wide
                            for m in range(space.shape[1]):
                                if space[k, m] != 0:
                                    out[a, b, to, left + m - b + wide] += part * space[k, m]


GALERKIN = (_above, _galerkin)


# ---- steps of Chebyshev polynomials -----------------------------------------------------------------------


def _smooth(step_of: Array, weight: Array, dy: Array, dx: Array, plane: int, diagonal: Array, minus: Array, height: int,
            width: int, first: int, last: int, step: Array, place: Array, buffer: Array, moved: Array, before: Array,
            residual: Array, ahead: float, by: float, following: Array, x: Array) -> None:  # fmt: skip
    """One step of a smoother in rows ``first`` to ``last``, which has moved by ``step_of``.

    ``before`` is ``step_of`` as a vector, as are the arrays after it; ``moved`` is that of ``buffer`` [TILE, b].

    residual -= A step_of; following = ahead step_of + by residual; x += following. A is diagonal + minus W, and
    ``by`` = 0 leaves ``following`` and ``x`` alone.
    """
    channels = step_of.shape[1]
    real = step_of.dtype.type
    alpha, beta = real(ahead), real(by)
    for begin in range(0, width, TILE):
        end = min(begin + TILE, width)
        count = (end - begin) * channels
        for y in range(first, last):
            segment(
                step_of, weight, dy, dx, plane, diagonal, minus, height, width, y, begin, end, step, place, buffer, 0
            )
            at = (y * width + begin) * channels
            r = residual[at : at + count]
            if by == 0:
                for i in range(count):
                    r[i] -= moved[i]
            else:
                d, f, z = before[at : at + count], following[at : at + count], x[at : at + count]
                for i in range(count):
                    r[i] -= moved[i]
                    f[i] = alpha * d[i] + beta * r[i]
                    z[i] += f[i]


SMOOTH = (*_loops.SEGMENT, _smooth)


def _follow(x: Array, weight: Array, dy: Array, dx: Array, plane: int, diagonal: Array, minus: Array, height: int,
            width: int, first: int, last: int, step: Array, place: Array, buffer: Array, inverse: Array, centre: float,
            scale: float, before: float, out: Array) -> None:  # fmt: skip
    """``out`` = scale (M^-1 A - centre) x - before out, in rows ``first`` to ``last``; ``inverse`` is that of M."""
    channels = x.shape[1]
    for begin in range(0, width, TILE):
        end = min(begin + TILE, width)
        for y in range(first, last):
            segment(x, weight, dy, dx, plane, diagonal, minus, height, width, y, begin, end, step, place, buffer, 0)
            for p in range(end - begin):
                at = y * width + begin + p
                m = scale * inverse[at]
                for c in range(channels):
                    out[at, c] = m * buffer[p, c] - scale * centre * x[at, c] - before * out[at, c]


FOLLOW = (*_loops.SEGMENT, _follow)


# ---- sparse matrices --------------------------------------------------------------------------------------


def _gather(x: Array, start: Array, index: Array, weight: Array, first: int, last: int, out: Array) -> None:
    """``out`` = A x in rows ``first`` to ``last`` of a sparse matrix by rows."""
    for row in range(first, last):
        sum_rows(x, index, weight, start[row], start[row + 1], out, row)


GATHER = (sum_rows, _gather)


def _recur(x: Array, product: Array, inverse: Array, centre: float, scale: float, before: float, first: int, last: int,
           out: Array) -> None:  # fmt: skip
    """``out`` = scale (M^-1 product - centre x) - before out in rows ``first`` to ``last``."""
    for row in range(first, last):
        m = scale * inverse[row]
        for c in range(x.shape[1]):
            out[row, c] = m * product[row, c] - scale * centre * x[row, c] - before * out[row, c]


RECUR = (_recur,)


# ---- connected components ---------------------------------------------------------------------------------


def _root(parent: Array, x: int) -> int:
    """The representative of a set; the path to it is halved."""
    while parent[x] != x:
        parent[x] = parent[parent[x]]
        x = parent[x]
    return x


def _unite(weight: Array, plane: int, dy: Array, dx: Array, height: int, width: int, degree: Array, share: float,
           parent: Array) -> int:  # fmt: skip
    """``parent`` [N]: the first pixel of each pixel's component; returns their number.

    Pixels are connected by weights above ``share`` of the smaller of their degrees.
    """
    count = height * width
    for i in range(count):
        parent[i] = i
    for h in range(dy.shape[0]):
        for y in range(height - dy[h]):
            for x in range(max(0, -dx[h]), min(width, width - dx[h])):
                i = y * width + x
                j = i + dy[h] * width + dx[h]
                if weight[h * plane + i] > share * min(degree[i], degree[j]):
                    a, b = _root(parent, i), _root(parent, j)
                    if a != b:
                        parent[max(a, b)] = min(a, b)
                        count -= 1
    for i in range(height * width):
        parent[i] = _root(parent, i)
    return count


COMPONENTS = (_root, _unite)
