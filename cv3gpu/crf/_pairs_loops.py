"""The CPU's inner loops of the filter over all pairs, for `_njit.compiled`: tiles, which of them are near, weights."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ._tiles import BINS, TILE

__all__ = ["ADD", "CUT", "EXP2", "LIST", "PACK", "PULL", "TREE", "WEIGHTS"]

Array = np.ndarray[Any, Any]

# 2^x in float32 and float64: factor from the squared distance to x, lowest x, what added makes the lowest bits an
# integer, and the polynomial for 2^f, |f| <= 1/2, of the least relative error (2e-9, 6e-18) of those that are 1 at 0.
EXP2 = {
    "float32": (
        *(-0.5 / math.log(2.0), -126.0, 1.5 * 2.0**23),
        *(1.0, 0.6931471824645996, 0.24022647738456726, 0.055503323674201965, 0.00961843691766262),
        *(0.0013398875016719103, 0.00015353360504377633),
    ),
    "float64": (
        *(-0.5 / math.log(2.0), -1022.0, 1.5 * 2.0**52),
        *(1.0, 0.6931471805599454, 0.2402265069591014, 0.0555041086648191, 0.009618129107591428),
        *(0.0013333558146917193, 0.0001540353045997387, 1.5252733397816836e-05, 1.3215434037999042e-06),
        *(1.017822936767976e-07, 7.07397405387488e-09, 4.4312334134822246e-10),
    ),
}
_SINGLE = len(EXP2["float32"])  # how the loops tell the two apart


def _select(point: Array, order: Array, first: int, last: int, middle: int, axis: int) -> None:
    """Reorder first to last: along an axis, no row in front of ``middle`` lies beyond a later one (Hoare's find)."""
    last -= 1
    while first < last:
        pivot = point[order[(first + last) // 2], axis]
        i = first
        j = last
        while i <= j:
            while point[order[i], axis] < pivot:
                i += 1
            while pivot < point[order[j], axis]:
                j -= 1
            if i <= j:
                row = order[i]
                order[i] = order[j]
                order[j] = row
                i += 1
                j -= 1
        if j < middle:
            first = i
        if i > middle:
            last = j


def _tree(point: Array, order: Array, levels: int) -> None:
    """Order the points [N, D] of an image: each part is halved along its widest axis, at the end of a tile."""
    n = order.size
    tiles = (n + TILE - 1) // TILE
    for level in range(levels):
        for part in range(1 << level):
            first = min(n, (tiles * part >> level) * TILE)
            middle = (tiles * (2 * part + 1) >> level + 1) * TILE
            last = min(n, (tiles * (part + 1) >> level) * TILE)
            if last - first <= TILE:
                continue
            axis = 0
            most = point[0, 0] - point[0, 0]
            for d in range(point.shape[1]):
                low = point[order[first], d]
                high = low
                for i in range(first, last):
                    x = point[order[i], d]
                    low = min(low, x)
                    high = max(high, x)
                if high - low > most:
                    most = high - low
                    axis = d
            _select(point, order, first, last, middle, axis)


def _pack(point: Array, order: Array, packed: Array, middle: Array, low: Array, high: Array) -> None:
    """Features by tiles, and boxes [D, T], NaN where a feature is.

    ``packed`` [T, axes, 64] are differences from a middle [T, axes], the median of five points, which one that lies far
    off does not move; the last point again past the end.
    """
    n = order.size
    for tile in range(packed.shape[0]):
        for d in range(packed.shape[1]):
            for q in range(TILE):
                packed[tile, d, q] = 0
        for d in range(point.shape[1]):
            x = point[order[tile * TILE], d]
            low[d, tile] = x
            high[d, tile] = x
            for q in range(TILE):
                x = point[order[min(tile * TILE + q, n - 1)], d]
                if not x >= low[d, tile]:
                    low[d, tile] = x
                if not x <= high[d, tile]:
                    high[d, tile] = x
            a, b = point[order[tile * TILE], d], point[order[min(tile * TILE + 16, n - 1)], d]
            c, e = point[order[min(tile * TILE + 32, n - 1)], d], point[order[min(tile * TILE + 48, n - 1)], d]
            x = point[order[min(tile * TILE + 63, n - 1)], d]
            under, over = max(min(a, b), min(c, e)), min(max(a, b), max(c, e))
            middle[tile, d] = max(min(x, under), min(max(x, under), over))
            for q in range(TILE):
                x = point[order[min(tile * TILE + q, n - 1)], d]
                packed[tile, d, q] = x - middle[tile, d]
                if x != x:
                    low[d, tile] = x
                    high[d, tile] = x


def _bins(low: Array, high: Array, tile: int, factor: float, place: Array) -> None:
    """How far apart the box of a tile and each box are, as a bin with a fraction. NaN is near."""
    zero = place.dtype.type(0)
    for j in range(place.size):
        place[j] = zero
    for d in range(low.shape[0]):
        own_low, own_high = low[d, tile], high[d, tile]
        for j in range(place.size):
            right, left = low[d, j] - own_high, own_low - high[d, j]
            gap = right if right > left else left
            gap = zero if gap < zero else gap
            place[j] += gap * gap
    for j in range(place.size):
        x = place[j] * factor
        place[j] = x if x == x else zero


def _cut(
    low: Array,
    high: Array,
    first: int,
    last: int,
    factor: float,
    weight: Array,
    tolerance: float,
    place: Array,
    histogram: Array,
    cut: Array,
    kept: Array,
) -> None:
    """For tiles first to last: the bin from which on all may be left out, and how many tiles are kept."""
    for tile in range(first, last):
        _bins(low, high, tile, factor, place)
        for b in range(BINS):
            histogram[b] = 0
        for j in range(place.size):
            histogram[int(place[j]) if place[j] < BINS - 1 else BINS - 1] += 1
        limit = BINS
        near = place.size
        beyond = 0.0
        while limit > 0:
            beyond += histogram[limit - 1] * weight[limit - 1]
            if not beyond <= tolerance:
                break
            limit -= 1
            near -= histogram[limit]
        cut[tile] = limit
        kept[tile] = near


def _list(
    low: Array, high: Array, first: int, last: int, factor: float, cut: Array, start: Array, place: Array, near: Array
) -> None:
    """The kept tiles of tiles first to last, ascending."""
    for tile in range(first, last):
        _bins(low, high, tile, factor, place)
        e = start[tile]
        for j in range(place.size):
            if (int(place[j]) if place[j] < BINS - 1 else BINS - 1) < cut[tile]:
                near[e] = j
                e += 1


def _squared(packed: Array, middle: Array, query: int, key: int, out: Array) -> None:
    """The squared distances [key * query] of two tiles, of 5 or 8 features."""
    real = packed.dtype.type
    s0, s1 = real(middle[query, 0] - middle[key, 0]), real(middle[query, 1] - middle[key, 1])
    s2, s3 = real(middle[query, 2] - middle[key, 2]), real(middle[query, 3] - middle[key, 3])
    s4 = real(middle[query, 4] - middle[key, 4])
    for j in range(TILE):
        a, b, c = packed[key, 0, j] - s0, packed[key, 1, j] - s1, packed[key, 2, j] - s2
        d, e = packed[key, 3, j] - s3, packed[key, 4, j] - s4
        for q in range(TILE):
            u, v, w = packed[query, 0, q] - a, packed[query, 1, q] - b, packed[query, 2, q] - c
            x, y = packed[query, 3, q] - d, packed[query, 4, q] - e
            out[j * TILE + q] = u * u + v * v + w * w + x * x + y * y
        if packed.shape[1] > 5:
            a = packed[key, 5, j] - real(middle[query, 5] - middle[key, 5])
            b = packed[key, 6, j] - real(middle[query, 6] - middle[key, 6])
            c = packed[key, 7, j] - real(middle[query, 7] - middle[key, 7])
            for q in range(TILE):
                u, v, w = packed[query, 5, q] - a, packed[query, 6, q] - b, packed[query, 7, q] - c
                out[j * TILE + q] += u * u + v * v + w * w


def _exp2(x: Array, shifted: Array, c: Array) -> None:
    """Squared distances x become 2^f, where -x / (2 log 2) = n + f; n is what the lowest bits of ``shifted`` hold.

    With n added to its exponent, which `_scale` does, 2^(n + f) is off by 1.3 ulp at most; nothing becomes zero.
    """
    factor, lowest, shift, c0, c1, c2, c3, c4, c5, c6 = c[0], c[1], c[2], c[3], c[4], c[5], c[6], c[7], c[8], c[9]
    if c.size == _SINGLE:
        for i in range(x.size):
            y = x[i] * factor
            y = lowest if y < lowest else y
            s = y + shift if y == y else shift
            f = y - (s - shift)
            shifted[i] = s
            x[i] = (((((c6 * f + c5) * f + c4) * f + c3) * f + c2) * f + c1) * f + c0
        return
    c7, c8, c9, c10, c11 = c[10], c[11], c[12], c[13], c[14]
    for i in range(x.size):
        y = x[i] * factor
        y = lowest if y < lowest else y
        s = y + shift if y == y else shift
        f = y - (s - shift)
        shifted[i] = s
        upper = (((c11 * f + c10) * f + c9) * f + c8) * f + c7
        x[i] = ((((((upper * f + c6) * f + c5) * f + c4) * f + c3) * f + c2) * f + c1) * f + c0


def _scale(bits: Array, shifted: Array, single: bool) -> None:
    """Multiply by 2^n: add n to the exponents, where both arrays are the floats' bits."""
    if single:
        for i in range(bits.size):
            bits[i] += shifted[i] << 23
    else:
        for i in range(bits.size):
            bits[i] += shifted[i] << 52


def _weights(
    packed: Array,
    middle: Array,
    query: int,
    base: int,
    near: Array,
    first: int,
    n: int,
    values: Array,
    c: Array,
    weight: Array,
    bits: Array,
    shifted: Array,
    shifted_bits: Array,
    gathered: Array,
) -> None:
    """The weights [n, key, query] of the next n tiles near a tile, and the values of their points."""
    for i in range(n):
        key = base + near[first + i]
        _squared(packed, middle, query, key, weight[i])
        _exp2(weight[i], shifted, c)
        _scale(bits[i], shifted_bits, c.size == _SINGLE)
        for j in range(values.shape[1]):
            gathered[i, j] = values[key, j]


def _add(part: Array, n: int, total: Array) -> None:
    """Add n products to a sum; they are summed up first, as a small number added to a large one loses digits."""
    for i in range(1, n):
        for x in range(total.size):
            part[0, x] += part[i, x]
    for x in range(total.size):
        total[x] += part[0, x]


def _pull(
    packed: Array,
    middle: Array,
    query: int,
    base: int,
    near: Array,
    first: int,
    n: int,
    weight: Array,
    product: Array,
    pull: Array,
) -> None:
    """Add to the gradient [D, 64] of a tile what n tiles near it do, given weights and products [n, key, query]."""
    for i in range(n):
        key = base + near[first + i]
        for j in range(TILE):
            for q in range(TILE):
                product[i, j, q] *= weight[i, j, q]
            for d in range(pull.shape[0]):
                x = packed[key, d, j] - packed.dtype.type(middle[query, d] - middle[key, d])
                for q in range(TILE):
                    pull[d, q] += product[i, j, q] * (x - packed[query, d, q])


TREE = (_select, _tree)
PACK = (_pack,)
CUT = (_bins, _cut)
LIST = (_bins, _list)
WEIGHTS = (_squared, _exp2, _scale, _weights)
ADD = (_add,)
PULL = (_pull,)
