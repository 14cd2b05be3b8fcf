"""Sums over points and distances to them in the CPU's vector registers, for loops that `_njit` compiles.

A tile has its points in the lanes of two registers, [D, points]. Against it go centres by sixes, whose twelve sums stay
in registers over all dimensions; their coordinates lie by sixes, too (`packed`). Each operation is given as a plain
Python function too, which says what it does.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .._lanes import REGISTER, Lanes, Rows, Writer, operation

__all__ = [
    "CENTRES", "ROW", "add_rows", "exponentials", "nearest", "nearest_expanded", "packed", "square_distances",
    "tile_points", "weighted_sums",
]  # fmt: skip

Array = np.ndarray[Any, Any]

CENTRES = 6  # that a tile is compared with at once; their number is a multiple of it
ROW = 4  # numbers that are added to a sum at once; rows of sums are a multiple of it
_HALVES = 2  # registers of a tile


def tile_points(dtype: Any) -> int:
    """Points of a tile."""
    return _HALVES * REGISTER // (8 * np.dtype(dtype).itemsize)


def packed(centres: Array, dtype: Any, halves: bool = False) -> tuple[Array, Array]:
    """Centres [K, D] as tiles are compared with them, and what is added: 0 or ``|c|^2 / 2``; inf to those past K."""
    count, dims = centres.shape
    groups = -(-count // CENTRES)
    padded, bias = np.zeros((groups * CENTRES, dims), dtype), np.full(groups * CENTRES, np.inf, dtype)
    padded[:count], bias[:count] = centres, 0
    if halves:
        bias[:count] = 0.5 * (padded[:count].astype(np.float64) ** 2).sum(1)
    return np.ascontiguousarray(padded.reshape(groups, CENTRES, dims).swapaxes(1, 2)).reshape(padded.shape), bias


def _sums(w: Writer, tile: Rows, centres: Rows, bias: Rows, first: Any, expanded: bool = False) -> list[list[Lanes]]:
    """``bias + |x - c|^2``, or ``bias - <x, c>``, of six centres and the halves of a tile."""
    b, (dims, points) = w.builder, tile.shape
    lanes = REGISTER // w.bits
    rows = [b.add(first, w.word(j)) for j in range(CENTRES)]
    kept = [[w.variable(w.everywhere(bias.number(row), lanes).value) for _ in range(_HALVES)] for row in rows]
    start = b.mul(first, dims)
    with w.range(w.word(0), dims) as d:
        at = b.mul(d, points)
        x = [w.load(tile, w.offset(at, half, lanes), lanes) for half in range(_HALVES)]
        across = b.add(start, b.mul(d, w.word(CENTRES)))
        for j, places in enumerate(kept):
            c = w.everywhere(centres.number(b.add(across, w.word(j))), lanes)
            for value, place in zip(x, places, strict=True):
                total, off = Lanes(w, b.load(place)), value - c
                b.store((total - value * c if expanded else total + off * off).value, place)
    return [[Lanes(w, b.load(place)) for place in places] for places in kept]


def _lower_nearest(
    w: Writer, tile: Rows, centres: Rows, bias: Rows, best: Rows, label: Rows, expanded: bool = False
) -> None:
    b, lanes = w.builder, REGISTER // w.bits
    number = w.ir.IntType(w.bits)
    numbers = w.ir.VectorType(number, lanes)
    least = [w.variable(w.constant(float("inf"), lanes).value) for _ in range(_HALVES)]
    found = [w.variable(w.ir.Constant(numbers, [0] * lanes)) for _ in range(_HALVES)]
    with w.range(w.word(0), b.udiv(centres.shape[0], w.word(CENTRES))) as group:
        first = b.mul(group, w.word(CENTRES))
        for j, halves in enumerate(_sums(w, tile, centres, bias, first, expanded)):
            k = b.add(first, w.word(j))
            one = b.insert_element(
                w.ir.Constant(numbers, w.ir.Undefined), k if w.bits == 64 else b.trunc(k, number), w.ir.IntType(32)(0)
            )
            mask = w.ir.Constant(w.ir.VectorType(w.ir.IntType(32), lanes), [0] * lanes)
            mine = b.shuffle_vector(one, one, mask)
            for value, low, which in zip(halves, least, found, strict=True):
                less = b.fcmp_ordered("<", value.value, b.load(low))
                b.store(b.select(less, value.value, b.load(low)), low)
                b.store(b.select(less, mine, b.load(which)), which)
    for half, (low, which) in enumerate(zip(least, found, strict=True)):
        at = w.word(half * lanes)
        w.store(Lanes(w, b.load(low)), best, at)
        place = b.bitcast(b.gep(label.data, [at]), numbers.as_pointer())
        b.store(b.load(which), place, align=w.bits // 8)


@operation(_lower_nearest)
def nearest(tile: Array, centres: Array, bias: Array, best: Array, label: Array) -> None:
    """The least ``bias[k] + |x - centres[k]|^2`` of each point, and the first k that has it.

    ``label`` is of integers as wide as the numbers of the tile.
    """
    rows = centres.reshape(-1, tile.shape[0], CENTRES).swapaxes(1, 2).reshape(centres.shape)
    off = ((tile.T[:, None] - rows) ** 2).sum(2) + bias
    label[:], best[:] = off.argmin(1), off.min(1)


def _lower_nearest_expanded(w: Writer, tile: Rows, centres: Rows, bias: Rows, best: Rows, label: Rows) -> None:
    _lower_nearest(w, tile, centres, bias, best, label, expanded=True)


@operation(_lower_nearest_expanded)
def nearest_expanded(tile: Array, centres: Array, bias: Array, best: Array, label: Array) -> None:
    """As `nearest`, of ``bias[k] - <x, centres[k]>``: a third less work, and rounding of |x|^2."""
    rows = centres.reshape(-1, tile.shape[0], CENTRES).swapaxes(1, 2).reshape(centres.shape)
    off = bias - tile.T @ rows.T
    label[:], best[:] = off.argmin(1), off.min(1)


def _lower_square_distances(w: Writer, tile: Rows, centres: Rows, bias: Rows, out: Rows) -> None:
    b, lanes = w.builder, REGISTER // w.bits
    with w.range(w.word(0), b.udiv(centres.shape[0], w.word(CENTRES))) as group:
        first = b.mul(group, w.word(CENTRES))
        for j, halves in enumerate(_sums(w, tile, centres, bias, first)):
            at = b.mul(b.add(first, w.word(j)), tile.shape[1])
            for half, value in enumerate(halves):
                w.store(value, out, w.offset(at, half, lanes))


@operation(_lower_square_distances)
def square_distances(tile: Array, centres: Array, bias: Array, out: Array) -> None:
    """``out[k, p] = bias[k] + |x_p - centres[k]|^2``."""
    rows = centres.reshape(-1, tile.shape[0], CENTRES).swapaxes(1, 2).reshape(centres.shape)
    out[:] = ((tile.T[None] - rows[:, None]) ** 2).sum(2) + bias[:, None]


def _lower_add_rows(w: Writer, x: Rows, first: Any, near: Rows, sums: Rows, mass: Rows, base: Any) -> None:
    b = w.builder
    double = w.ir.DoubleType()
    wide = w.ir.VectorType(double, ROW)
    with w.range(w.word(0), near.shape[0]) as p:
        to = b.add(base, w.integer(near.number(p)))
        place = b.gep(mass.data, [to])
        b.store(b.fadd(b.load(place), double(1.0)), place)
        of, at = b.mul(b.add(first, p), x.shape[1]), b.mul(to, sums.shape[1])
        with w.range(w.word(0), b.udiv(sums.shape[1], w.word(ROW))) as group:
            d = b.mul(group, w.word(ROW))
            v = w.load(x, b.add(of, d), ROW).value
            place = b.bitcast(b.gep(sums.data, [b.add(at, d)]), wide.as_pointer())
            b.store(b.fadd(b.load(place, align=8), v if w.bits == 64 else b.fpext(v, wide)), place, align=8)


@operation(_lower_add_rows)
def add_rows(x: Array, first: int, near: Array, sums: Array, mass: Array, base: int) -> None:
    """``sums[base + near[p]] += x[first + p]`` and ``mass[base + near[p]] += 1``, float64, for all p.

    Where a row of sums is longer it gets what follows in x, which must exist. ``mass`` is flat.
    """
    for p, k in enumerate(near):
        sums[base + k] += x.reshape(-1)[(first + p) * x.shape[1] :][: sums.shape[1]]
        mass[base + k] += 1


def _lower_exponentials(w: Writer, x: Rows, n: Any) -> None:
    lanes = REGISTER // w.bits
    with w.range(w.word(0), w.builder.udiv(n, w.word(lanes))) as group:
        at = w.builder.mul(group, w.word(lanes))
        w.store(w.exp(w.load(x, at, lanes)), x, at)


@operation(_lower_exponentials)
def exponentials(x: Array, n: int) -> None:
    """``x[:n] = exp(x[:n])``; x is not positive, n a multiple of 8."""
    x[:n] = np.exp(x[:n])


def _lower_weighted_sums(w: Writer, x: Rows, weight: Rows, n: Any, out: Rows) -> None:
    b, lanes = w.builder, REGISTER // w.bits
    dims, stride = x.shape

    def total(term: Callable[[Any, Lanes], Lanes]) -> Any:
        sums = [w.variable(w.constant(0.0, lanes).value) for _ in range(_HALVES)]
        with w.range(w.word(0), b.udiv(n, w.word(lanes * _HALVES))) as group:
            first = b.mul(group, w.word(lanes * _HALVES))
            for half, place in enumerate(sums):
                at = w.offset(first, half, lanes)
                b.store((Lanes(w, b.load(place)) + term(at, w.load(weight, at, lanes))).value, place)
        ends = [Lanes(w, b.load(place)) for place in sums]
        return w.over_lanes(ends[0] + ends[1], lambda one, other: one + other)

    with w.range(w.word(0), dims) as d:
        row = b.mul(d, stride)
        value = total(lambda at, by: by * w.load(x, b.add(row, at), lanes))
        b.store(value, b.gep(out.data, [d]))
    b.store(total(lambda at, by: by), b.gep(out.data, [dims]))


@operation(_lower_weighted_sums)
def weighted_sums(x: Array, weight: Array, n: int, out: Array) -> None:
    """``out[d]`` = the sum of ``weight[t] x[d, t]``, t below n, a multiple of 8; after them the sum of the weights."""
    out[:-1], out[-1] = x[:, :n] @ weight[:n], weight[:n].sum()
