"""The CPU's inner loops of the eigensolvers, for `_njit.compiled`: tall blocks, multigrid, Chebyshev recurrences."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .._lanes import REGISTER, Lanes, Rows, Writer, operation, sum_rows
from .._shared_loops import root
from ..affinity import _loops
from ..affinity._loops import TILE, segment

__all__ = [
    "ADD", "AT_ONCE", "COMBINE", "COMPONENTS", "COMPRESSED", "CROSS", "FOLLOW", "GALERKIN", "INTERPOLATION",
    "PIECE", "PROLONG", "RECUR", "RELAX", "RESIDUAL", "RESTRICT", "SMOOTH", "TURN",
]  # fmt: skip

Array = np.ndarray[Any, Any]


# ---- tall blocks: many rows, few columns ------------------------------------------------------------------

AT_ONCE = 4  # rows, or columns, whose sums are in registers together
PIECE = 64  # rows that stay in the first cache


def _lower_sums(along_rows: bool, count: int) -> Callable[..., None]:
    """The code of `multiply_rows` and `add_products`: ``count`` rows of sums, each of numbers times rows."""

    def lower(w: Writer, x: Rows, row: Any, column: Any, terms: Any, y: Rows, out: Rows, to: Any) -> None:
        w = Writer(w.builder, y.data.type.pointee)  # x may be of the other type of float
        b, width, full = w.builder, y.shape[1], REGISTER // w.bits

        def block(channel: Any, parts: tuple[int, ...]) -> None:
            firsts = [b.add(channel, w.word(sum(parts[:i]))) for i in range(len(parts))]
            places = [[w.at(b.add(to, w.word(p)), width, first) for first in firsts] for p in range(count)]
            sums = [
                [w.variable(w.load(out, place, lanes).value) for place, lanes in zip(line, parts, strict=True)]
                for line in places
            ]
            with w.range(w.word(0), terms) as k:
                values = [w.load(y, w.at(k, width, first), lanes) for first, lanes in zip(firsts, parts, strict=True)]
                for p, totals in enumerate(sums):
                    place = (b.add(row, w.word(p)), k) if along_rows else (b.add(row, k), w.word(p))
                    number = w.number(x.number(w.at(place[0], x.shape[1], b.add(column, place[1]))))
                    for value, lanes, total in zip(values, parts, totals, strict=True):
                        term = w.everywhere(number, lanes) * value
                        b.store((term + Lanes(w, b.load(total))).value, total)
            for line, totals in zip(places, sums, strict=True):
                for place, total in zip(line, totals, strict=True):
                    w.store(Lanes(w, b.load(total)), out, place)

        w.channels(width, block, [(full,) * 3, (full,) * 2, (full,), (4,)])

    return lower


@operation(_lower_sums(True, AT_ONCE))
def multiply_rows(x: Array, row: int, column: int, terms: int, y: Array, out: Array, to: int) -> None:
    """``out[to + p] += x[row + p, column : column + terms] @ y[:terms]``, p < AT_ONCE."""
    out[to : to + AT_ONCE] += x[row : row + AT_ONCE, column : column + terms] @ y[:terms]


@operation(_lower_sums(True, 1))
def multiply_row(x: Array, row: int, column: int, terms: int, y: Array, out: Array, to: int) -> None:
    """As `multiply_rows`, of one row."""
    out[to] += x[row, column : column + terms] @ y[:terms]


@operation(_lower_sums(False, AT_ONCE))
def add_products(x: Array, row: int, column: int, terms: int, y: Array, out: Array, to: int) -> None:
    """``out[to + p] += x[row : row + terms, column + p] @ y[:terms]``, p < AT_ONCE."""
    out[to : to + AT_ONCE] += x[row : row + terms, column : column + AT_ONCE].T @ y[:terms]


@operation(_lower_sums(False, 1))
def add_product(x: Array, row: int, column: int, terms: int, y: Array, out: Array, to: int) -> None:
    """As `add_products`, of one column."""
    out[to] += x[row : row + terms, column] @ y[:terms]


def _cross(x: Array, y: Array, mass: Array, weighted: bool, first: int, last: int, buffer: Array, out: Array) -> None:
    """``out`` += x^T M y of the rows ``first`` to ``last``, M = 1 unless ``weighted``; ``buffer`` is [PIECE, b]."""
    for begin in range(first, last, PIECE):
        count = min(PIECE, last - begin)
        for i in range(count):
            by = mass[begin + i] if weighted else 1.0
            for c in range(y.shape[1]):
                buffer[i, c] = by * y[begin + i, c]
        column = 0
        while column + AT_ONCE <= x.shape[1]:
            add_products(x, begin, column, count, buffer, out, column)
            column += AT_ONCE
        while column < x.shape[1]:
            add_product(x, begin, column, count, buffer, out, column)
            column += 1


CROSS = (add_products, add_product, _cross)


def _add_rows(x: Array, row: int, count: int, y: Array, out: Array, to: int) -> None:
    """``out[to + p] += x[row + p] @ y``, p < count."""
    if count == AT_ONCE:
        multiply_rows(x, row, 0, x.shape[1], y, out, to)
    else:
        for p in range(count):
            multiply_row(x, row + p, 0, x.shape[1], y, out, to + p)


def _add(basis: Array, share: Array, first: int, last: int, x: Array) -> None:
    """Adds basis @ share to x, in rows ``first`` to ``last``."""
    for row in range(first, last, AT_ONCE):
        _add_rows(basis, row, min(AT_ONCE, last - row), share, x, row)


ADD = (multiply_rows, multiply_row, _add_rows, _add)


def _combine(x: Array, p: Array, w: Array, to_x: Array, to_p: Array, first: int, last: int, one: Array,
             other: Array) -> None:  # fmt: skip
    """Makes x and p mixes of x, p and w in rows ``first`` to ``last``, by ``to_x`` and ``to_p`` [3, b, b].

    ``one`` and ``other`` [AT_ONCE, b] are work space.
    """
    for row in range(first, last, AT_ONCE):
        count = min(AT_ONCE, last - row)
        one[...] = 0
        other[...] = 0
        _add_rows(x, row, count, to_x[0], one, 0)
        _add_rows(p, row, count, to_x[1], one, 0)
        _add_rows(w, row, count, to_x[2], one, 0)
        _add_rows(x, row, count, to_p[0], other, 0)
        _add_rows(p, row, count, to_p[1], other, 0)
        _add_rows(w, row, count, to_p[2], other, 0)
        for i in range(count):
            for c in range(x.shape[1]):
                x[row + i, c] = one[i, c]
                p[row + i, c] = other[i, c]


COMBINE = (multiply_rows, multiply_row, _add_rows, _combine)


def _turn(x: Array, coefficients: Array, first: int, last: int, one: Array) -> None:
    """Multiplies x by coefficients [b, b] in rows ``first`` to ``last``; ``one`` [AT_ONCE, b] is work space."""
    for row in range(first, last, AT_ONCE):
        count = min(AT_ONCE, last - row)
        one[...] = 0
        _add_rows(x, row, count, coefficients, one, 0)
        for i in range(count):
            for c in range(x.shape[1]):
                x[row + i, c] = one[i, c]


TURN = (multiply_rows, multiply_row, _add_rows, _turn)


def _residual(values: Array, x: Array, image: Array, mass: Array, first: int, last: int, total: Array,
              out: Array) -> None:  # fmt: skip
    """``out`` = image - M x values in rows ``first`` to ``last``; ``total`` [b] += its squares over M."""
    for row in range(first, last):
        m = mass[row]
        over = 1 / m
        for c in range(x.shape[1]):
            r = image[row, c] - values[c] * (m * x[row, c])
            total[c] += r * r * over
            out[row, c] = r


RESIDUAL = (_residual,)


# ---- coarser grids ----------------------------------------------------------------------------------------


def _above(x: int, step: int) -> int:
    """The first coarse point at x or after it."""
    return -((-x) // step)


def _interpolation(weight: Array, plane: int, dy: Array, dx: Array, height: int, width: int, every: int, reach: int,
                   first: int, last: int, out: Array) -> None:  # fmt: skip
    """``out`` [H, W, S, S] in rows ``first`` to ``last``: shares of the coarse points around each pixel, as their
    weights are; they sum to 1.

    The slots begin at the first coarse point from ``y - reach`` and ``x - reach`` on. A coarse point's weight with
    itself is 1.
    """
    for y in range(first, last):
        out[y] = 0
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
    """Adds the rows ``first`` to ``last`` of coarse points of P^T (D - W) P to ``out`` [h, w, 2 wide + 1, 2 wide + 1].

    ``degree`` [H, W] is the sum of a pixel's weights. ``share`` is P. ``space`` [T, T] takes a row of (D - W) P.
    """
    height, width, slots, _ = share.shape
    for y in range(max(0, first * every - reach), min(height, (last - 1) * every + reach + 1)):
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
            for i in range(max(0, first - top - row), min(slots, last - top - row)):
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


def _compressed(found: Array, wide: int, start: Array, index: Array, data: Array) -> None:
    """What `_galerkin` found, as a sparse matrix by rows; without room for ``data``, the row starts alone."""
    rows, columns, span, _ = found.shape
    count = 0
    for a in range(rows):
        for b in range(columns):
            for k in range(span):
                for m in range(span):
                    if found[a, b, k, m] != 0:
                        if data.shape[0] > 0:
                            index[count] = (a + k - wide) * columns + b + m - wide
                            data[count] = found[a, b, k, m]
                        count += 1
            start[a * columns + b + 1] = count


COMPRESSED = (_compressed,)


def _restrict(x: Array, share: Array, before: Array, scale: Array, width: int, every: int, reach: int, columns: int,
              first: int, last: int, index: Array, weight: Array, out: Array) -> None:  # fmt: skip
    """``out`` = scale P^T (x / before) in rows ``first`` to ``last`` of coarse points; P is ``share`` [H, W, S, S].

    ``index`` and ``weight`` [(2 reach + 1)^2] are work space.
    """
    height = share.shape[0]
    for a in range(first, last):
        for b in range(columns):
            point, count = a * columns + b, 0
            for y in range(max(0, a * every - reach), min(height, a * every + reach + 1)):
                i = a - _above(y - reach, every)
                for z in range(max(0, b * every - reach), min(width, b * every + reach + 1)):
                    part = share[y, z, i, b - _above(z - reach, every)]
                    if part != 0:
                        index[count] = y * width + z
                        weight[count] = scale[point] * part / before[y * width + z]
                        count += 1
            sum_rows(x, index, weight, 0, count, out, point)


RESTRICT = (sum_rows, _above, _restrict)


def _prolong(x: Array, share: Array, scale: Array, width: int, every: int, reach: int, columns: int,
             first: int, last: int, index: Array, weight: Array, out: Array) -> None:  # fmt: skip
    """``out`` = P scale x in rows ``first`` to ``last`` of pixels."""
    slots = share.shape[2]
    for y in range(first, last):
        for z in range(width):
            row, column, count = _above(y - reach, every), _above(z - reach, every), 0
            for i in range(slots):
                for j in range(slots):
                    if share[y, z, i, j] != 0:
                        point = (row + i) * columns + column + j
                        index[count] = point
                        weight[count] = share[y, z, i, j] * scale[point]
                        count += 1
            sum_rows(x, index, weight, 0, count, out, y * width + z)


PROLONG = (sum_rows, _above, _prolong)


# ---- steps of Chebyshev polynomials -----------------------------------------------------------------------


def _smooth(step_of: Array, weight: Array, dy: Array, dx: Array, plane: int, diagonal: Array, factor: Array,
            height: int, width: int, first: int, last: int, step: Array, place: Array, buffer: Array, moved: Array,
            before: Array, residual: Array, ahead: float, by: float, following: Array, x: Array) -> None:  # fmt: skip
    """One step of a smoother in rows ``first`` to ``last``, which has moved by ``step_of``.

    ``before`` is ``step_of`` as a vector, as are the arrays after it; ``moved`` is that of ``buffer`` [TILE, b].

    residual -= A step_of; following = ahead step_of + by residual; x += following. A is diagonal + factor W, and
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
                step_of, weight, dy, dx, plane, diagonal, factor, height, width, y, begin, end, step, place, buffer, 0
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
            width: int, first: int, last: int, step: Array, place: Array, buffer: Array, mass: Array, centre: float,
            scale: float, before: float, out: Array) -> None:  # fmt: skip
    """``out`` = scale (M^-1 A - centre) x - before out, in rows ``first`` to ``last``."""
    channels = x.shape[1]
    for begin in range(0, width, TILE):
        end = min(begin + TILE, width)
        for y in range(first, last):
            segment(x, weight, dy, dx, plane, diagonal, minus, height, width, y, begin, end, step, place, buffer, 0)
            for p in range(end - begin):
                at = y * width + begin + p
                m = scale / mass[at]
                for c in range(channels):
                    out[at, c] = m * buffer[p, c] - scale * centre * x[at, c] - before * out[at, c]


FOLLOW = (*_loops.SEGMENT, _follow)


# ---- sparse matrices --------------------------------------------------------------------------------------


def _relax(step_of: Array, start: Array, index: Array, weight: Array, first: int, last: int, buffer: Array,
           residual: Array, ahead: float, by: float, following: Array, x: Array) -> None:  # fmt: skip
    """As `_smooth`, of a sparse matrix by rows; ``buffer`` [1, b] is work space."""
    real = step_of.dtype.type
    alpha, beta = real(ahead), real(by)
    for row in range(first, last):
        sum_rows(step_of, index, weight, start[row], start[row + 1], buffer, 0)
        for c in range(step_of.shape[1]):
            r = residual[row, c] - buffer[0, c]
            residual[row, c] = r
            if by != 0:
                f = alpha * step_of[row, c] + beta * r
                following[row, c] = f
                x[row, c] += f


RELAX = (sum_rows, _relax)


def _recur(x: Array, product: Array, mass: Array, centre: float, scale: float, before: float, first: int, last: int,
           out: Array) -> None:  # fmt: skip
    """``out`` = scale (M^-1 product - centre x) - before out in rows ``first`` to ``last``."""
    for row in range(first, last):
        m = scale / mass[row]
        for c in range(x.shape[1]):
            out[row, c] = m * product[row, c] - scale * centre * x[row, c] - before * out[row, c]


RECUR = (_recur,)


# ---- connected components ---------------------------------------------------------------------------------


def _unite(weight: Array, plane: int, dy: Array, dx: Array, height: int, width: int, degree: Array, share: float,
           parent: Array) -> None:  # fmt: skip
    """``parent`` [N]: the first pixel of each pixel's component.

    Pixels are connected by weights above ``share`` of the smaller of their degrees.
    """
    for i in range(height * width):
        parent[i] = i
    for h in range(dy.shape[0]):
        for y in range(height - dy[h]):
            for x in range(max(0, -dx[h]), min(width, width - dx[h])):
                i = y * width + x
                j = i + dy[h] * width + dx[h]
                if weight[h * plane + i] > share * min(degree[i], degree[j]):
                    a, b = root(parent, i), root(parent, j)
                    parent[max(a, b)] = min(a, b)
    for i in range(height * width):
        parent[i] = root(parent, i)


COMPONENTS = (root, _unite)
