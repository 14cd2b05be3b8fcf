"""The CPU's inner loops of the permutohedral lattice and of the mean-field update, for `_njit.compiled`.

Rows of channels are dense, and their width a multiple of four. Sums over rows take several at a time, so that a row
of the result goes through memory less often, and LLVM makes vectors of the channels.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .._njit import inlined

Array = np.ndarray[Any, Any]

_CHUNK = 32  # points that are located, or updated, together
_BOUND = 2.0**27  # lattice coordinates, in units of d + 1, end here
_MIX = -7046029254386353131  # 2^64 / golden ratio, as a signed number
_EMPTY = -1
HASH = np.array([0x2545F4914F6CDD1D, 0x9E3779B97F4A7C15, 0xD1B54A32D192ED03, 0xABC98388FB8FAC03, 0x8CB92BA72F3D8DD7,
                 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9, 0x27D4EB2F165667C5, 0x94D049BB133111EB,
                 0xBF58476D1CE4E5B9], np.uint64).view(np.int64)  # fmt: skip

# ---- where points lie in the lattice ----------------------------------------------------------------------


def _locate(features: Array, image: int, first: int, last: int, scale: Array, keys: Array,
            hashes: Array, bary: Array, w: Array) -> None:  # fmt: skip
    """Simplices and barycentric coordinates of points ``first`` to ``last`` of an image.

    ``keys`` [P, d + 2]: first vertex, ranks (four bits each), image; ``bary`` [P, d + 1]; ``w``
    [4 (d + 1) + 2, chunk]: elevated coordinates, first vertex, ranks, a sum, barycentric coordinates.
    """
    d = features.shape[1]
    n = features.shape[2]
    e, rem, rank, s, b = 0, d + 1, 2 * (d + 1), 3 * (d + 1), 3 * (d + 1) + 1
    real = w.dtype.type
    down, up, one, zero, bound = real(1.0 / (d + 1)), real(d + 1), real(1.0), real(0.0), real(_BOUND)
    for start in range(first, last, _CHUNK):
        m = min(_CHUNK, last - start)
        for t in range(m):
            w[s, t] = zero
        for j in range(d, 0, -1):
            factor, place = scale[j - 1], real(j)
            for t in range(m):
                x = features[image, j - 1, start + t] * factor
                w[e + j, t] = w[s, t] - place * x
                w[s, t] += x
        for t in range(m):
            w[e, t] = w[s, t]
            w[s, t] = zero
        for j in range(d + 1):
            for t in range(m):
                v = w[e + j, t] * down
                v = v if v > -bound else -bound
                k = np.rint(v if v < bound else bound)
                w[rem + j, t] = k * up
                w[s, t] += k
                w[rank + j, t] = zero
        for i in range(d):
            for j in range(i + 1, d + 1):
                for t in range(m):
                    less = one if w[e + i, t] - w[rem + i, t] < w[e + j, t] - w[rem + j, t] else zero
                    w[rank + i, t] += less
                    w[rank + j, t] += one - less
        for j in range(d + 1):
            for t in range(m):
                r = w[rank + j, t] + w[s, t]
                turn = up if r < zero else (-up if r >= up else zero)
                w[rank + j, t] = r + turn
                w[rem + j, t] += turn
        for t in range(m):
            p = image * n + start + t
            ranks, h = 0, 0
            for r in range(d + 2):
                w[b + r, t] = zero
            for j in range(d + 1):
                v = (w[e + j, t] - w[rem + j, t]) * down
                r = min(max(int(w[rank + j, t]), 0), d)  # it is, but where coordinates are too large for their digits
                if j < d:
                    key = int(w[rem + j, t])
                    keys[p, j] = key
                    h += key * HASH[j]
                    ranks |= r << (4 * j)
                w[b + d - r, t] += v
                w[b + d - r + 1, t] -= v
            w[b, t] += one + w[b + d + 1, t]
            keys[p, d] = ranks
            keys[p, d + 1] = image
            hashes[p] = h + ranks * HASH[d] + image * HASH[d + 1]
            for r in range(d + 1):
                bary[p, r] = w[b + r, t]


# ---- numbering --------------------------------------------------------------------------------------------
#
# Rows of keys are numbered by a hash table of words: the upper half is part of the hash, the lower half the row where
# the key was seen first. The table has `parts` equal parts, each for the keys whose hashes fall there and filled by
# one thread; a part too full is told, and the table made anew. A hash is linear in the key before it is mixed, so
# that a neighbour's is had by an addition.


@inlined
def _mixed(h: int) -> int:
    h = (h ^ (h >> 32)) * _MIX
    return h ^ (h >> 29)


@inlined
def _slots(mixed: int, parts: int, size: int) -> tuple[int, int]:
    """The part of a key, and its first slot there."""
    return (mixed >> 8) & (parts - 1), (mixed >> 12) & (size - 1)


def _first_rows(keys: Array, hashes: Array, table: Array, part: int, parts: int, first: Array) -> int:
    """``first[i]``, the first row that equals row i, of all rows in a part; how many are first, -1 if too many."""
    size = table.shape[0] // parts
    base, count, last = part * size, 0, -1
    for i in range(keys.shape[0]):
        if last >= 0 and hashes[i] == hashes[last]:
            same = True
            for j in range(keys.shape[1]):
                same &= keys[i, j] == keys[last, j]
            if same:
                first[i] = first[last]
                last = i
                continue
        mixed = _mixed(hashes[i])
        own, slot = _slots(mixed, parts, size)
        if own != part:
            continue
        last = i
        mark = mixed >> 32
        while True:
            word = table[base + slot]
            if word == _EMPTY:
                if 2 * count >= size:
                    return -1
                count += 1
                table[base + slot] = (mark << 32) | i
                first[i] = i
                break
            row = word & 0xFFFFFFFF
            same = word >> 32 == mark
            if same:
                for j in range(keys.shape[1]):
                    same &= keys[row, j] == keys[i, j]
            if same:
                first[i] = row
                break
            slot = (slot + 1) & (size - 1)
    return count


def _renumber(first: Array, number: Array, low: int, high: int, out: Array) -> None:
    for i in range(low, high):
        out[i] = number[first[i]]


def _renumber_table(table: Array, number: Array, low: int, high: int) -> None:
    """Puts the keys' numbers where their first rows were."""
    for slot in range(low, high):
        word = table[slot]
        if word != _EMPTY:
            table[slot] = ((word >> 32) << 32) | number[word & 0xFFFFFFFF]


# ---- vertices ---------------------------------------------------------------------------------------------


def _corner_keys(simplices: Array, hashes: Array, low: int, high: int, keys: Array, key_hashes: Array) -> None:
    """The keys [d + 1 a simplex, d + 1] of the corners: coordinates, image."""
    d = simplices.shape[1] - 2
    for s in range(low, high):
        for r in range(d + 1):
            row = s * (d + 1) + r
            h = simplices[s, d + 1] * HASH[d]
            for j in range(d):
                rank = (simplices[s, d] >> (4 * j)) & 15
                x = simplices[s, j] + (r if rank <= d - r else r - (d + 1))
                keys[row, j] = x
                h += x * HASH[j]
            keys[row, d] = simplices[s, d + 1]
            key_hashes[row] = h


def _ring_keys(vertices: Array, hashes: Array, low: int, high: int, keys: Array, key_hashes: Array) -> None:
    """The keys of the vertices' neighbours, 2 (d + 1) a vertex."""
    d = vertices.shape[1] - 1
    for v in range(low, high):
        for axis in range(d + 1):
            for side in range(2):
                row = (v * (d + 1) + axis) * 2 + side
                sign = 2 * side - 1
                h = hashes[v]
                for j in range(d):
                    step = -sign * d if j == axis else sign
                    keys[row, j] = vertices[v, j] + step
                    h += step * HASH[j]
                keys[row, d] = vertices[v, d]
                key_hashes[row] = h


def _mark(hashes: Array, marks: Array) -> None:
    """Sets a bit for each key: most neighbours are missing, and are then not looked for in the larger table."""
    for v in range(hashes.shape[0]):
        bit = (_mixed(hashes[v]) >> 20) & (8 * marks.shape[0] - 1)
        marks[bit >> 3] |= 1 << (bit & 7)


def _neighbors(vertices: Array, hashes: Array, table: Array, parts: int, marks: Array, low: int, high: int,
               neighbor: Array) -> None:  # fmt: skip
    """Fills ``neighbor`` [d + 1, 2, M], whose entries begin as M, from the lower sides of these vertices."""
    d = vertices.shape[1] - 1
    size = table.shape[0] // parts
    for axis in range(d + 1):
        step = 0
        for j in range(d):
            step += d * HASH[j] if j == axis else -HASH[j]
        for v in range(low, high):
            mixed = _mixed(hashes[v] + step)
            bit = (mixed >> 20) & (8 * marks.shape[0] - 1)
            if not (marks[bit >> 3] >> (bit & 7)) & 1:
                continue
            part, slot = _slots(mixed, parts, size)
            while True:
                word = table[part * size + slot]
                if word == _EMPTY:
                    break
                if word >> 32 == mixed >> 32:
                    other = word & 0xFFFFFFFF
                    same = vertices[other, d] == vertices[v, d]
                    for j in range(d):
                        same &= vertices[other, j] == vertices[v, j] + (d if j == axis else -1)
                    if same:
                        neighbor[axis, 0, v] = other
                        neighbor[axis, 1, other] = v
                        break
                slot = (slot + 1) & (size - 1)


# ---- from points to vertices and back: sums of rows -------------------------------------------------------


def _corners_of(number: Array, corner: Array, first: int, last: int, vertex: Array) -> None:
    """The vertices of each point, (d + 1) after (d + 1)."""
    k = corner.shape[1]
    for p in range(first, last):
        for r in range(k):
            vertex[p * k + r] = corner[number[p], r]


def _count(vertex: Array, start: Array) -> None:
    """``start`` [M + 1] of each vertex's entries, from zeros."""
    for k in range(vertex.shape[0]):
        start[vertex[k] + 1] += 1
    for v in range(start.shape[0] - 1):
        start[v + 1] += start[v]


def _transpose(vertex: Array, start: Array, cursor: Array, low: int, high: int, per_point: int, entry: Array,
               point: Array) -> None:  # fmt: skip
    """The entries of vertices ``low`` to ``high``, and the points that they belong to, in the points' order."""
    for v in range(low, high):
        cursor[v] = start[v]
    for p in range(vertex.shape[0] // per_point):
        for k in range(p * per_point, (p + 1) * per_point):
            v = vertex[k]
            if low <= v < high:
                entry[cursor[v]] = k
                point[cursor[v]] = p
                cursor[v] += 1


def _reordered(bary: Array, entry: Array, point: Array, scale: Array, first: int, last: int, weight: Array) -> None:
    """The weights of entries ``first`` to ``last``, times their points' scale if there is one."""
    if scale.shape[0]:
        for k in range(first, last):
            weight[k] = bary[entry[k]] * scale[point[k]]
    else:
        for k in range(first, last):
            weight[k] = bary[entry[k]]


def _splat_ones(vertex: Array, bary: Array, z: Array) -> None:
    """The sums of the vertices' weights; z [M + 1] begins at zero."""
    for k in range(vertex.shape[0]):
        z[vertex[k]] += bary[k]


def _blur_numbers(z: Array, neighbor: Array, axis: int, out: Array) -> None:
    """`_blur` of one number a vertex."""
    half = z.dtype.type(0.5)
    for v in range(neighbor.shape[2]):
        out[v] = z[v] + half * (z[neighbor[axis, 0, v]] + z[neighbor[axis, 1, v]])


def _gather_numbers(z: Array, vertex: Array, weight: Array, entries: int, first: int, last: int, out: Array) -> None:
    for p in range(first, last):
        total = z.dtype.type(0.0)
        for k in range(p * entries, (p + 1) * entries):
            total += weight[k] * z[vertex[k]]
        out[p] = total


@inlined
def _add_sixes(x: Array, index: Array, weight: Array, first: int, last: int, out: Array, row: int) -> int:
    """``out[row] += weight[k] * x[index[k]]``, six terms at a time; the first term that is left."""
    end = first + (last - first) // 6 * 6
    for k in range(first, end, 6):
        i0, i1, i2, i3, i4, i5 = index[k], index[k + 1], index[k + 2], index[k + 3], index[k + 4], index[k + 5]
        a0, a1, a2, a3, a4, a5 = weight[k], weight[k + 1], weight[k + 2], weight[k + 3], weight[k + 4], weight[k + 5]
        for c in range(x.shape[1]):
            out[row, c] += ((a0 * x[i0, c] + a1 * x[i1, c]) + (a2 * x[i2, c] + a3 * x[i3, c])) + (
                a4 * x[i4, c] + a5 * x[i5, c]
            )
    return end


@inlined
def _add_threes(x: Array, index: Array, weight: Array, first: int, last: int, out: Array, row: int) -> int:
    """Likewise, three terms at a time."""
    end = first + (last - first) // 3 * 3
    for k in range(first, end, 3):
        i0, i1, i2 = index[k], index[k + 1], index[k + 2]
        a0, a1, a2 = weight[k], weight[k + 1], weight[k + 2]
        for c in range(x.shape[1]):
            out[row, c] += (a0 * x[i0, c] + a1 * x[i1, c]) + a2 * x[i2, c]
    return end


@inlined
def _add_ones(x: Array, index: Array, weight: Array, first: int, last: int, out: Array, row: int) -> None:
    """Likewise, one term at a time."""
    for k in range(first, last):
        i0, a0 = index[k], weight[k]
        for c in range(x.shape[1]):
            out[row, c] += a0 * x[i0, c]


@inlined
def _clear(out: Array, row: int) -> None:
    zero = out.dtype.type(0.0)
    for c in range(out.shape[1]):
        out[row, c] = zero


def _sums(x: Array, start: Array, index: Array, weight: Array, low: int, high: int, out: Array) -> None:
    """Rows ``low`` to ``high`` of a sparse matrix times rows. (Threes would make long rows slower.)"""
    for row in range(low, high):
        _clear(out, row)
        k = _add_sixes(x, index, weight, start[row], start[row + 1], out, row)
        _add_ones(x, index, weight, k, start[row + 1], out, row)


@inlined
def _gather_row(z: Array, vertex: Array, weight: Array, first: int, last: int, out: Array, row: int) -> None:
    """The few terms of one point."""
    _clear(out, row)
    k = _add_sixes(z, vertex, weight, first, last, out, row)
    k = _add_threes(z, vertex, weight, k, last, out, row)
    _add_ones(z, vertex, weight, k, last, out, row)


def _gather(z: Array, vertex: Array, weight: Array, entries: int, first: int, last: int, out: Array) -> None:
    """The rows of points ``first`` to ``last``."""
    for p in range(first, last):
        _gather_row(z, vertex, weight, p * entries, (p + 1) * entries, out, p)


def _blur(z: Array, neighbor: Array, axis: int, low: int, high: int, out: Array) -> None:
    """One axis: ``out[v] = z[v] + (z[n1] + z[n2]) / 2``; the last row of z is zero, for neighbours that are missing."""
    half = z.dtype.type(0.5)
    for v in range(low, high):
        n1, n2 = neighbor[axis, 0, v], neighbor[axis, 1, v]
        for c in range(z.shape[1]):
            out[v, c] = z[v, c] + half * (z[n1, c] + z[n2, c])


def _dot(x: Array, i: int, y: Array, j: int) -> float:
    s0 = s1 = s2 = s3 = 0.0
    for c in range(0, x.shape[1], 4):
        s0 += x[i, c] * y[j, c]
        s1 += x[i, c + 1] * y[j, c + 1]
        s2 += x[i, c + 2] * y[j, c + 2]
        s3 += x[i, c + 3] * y[j, c + 3]
    return (s0 + s1) + (s2 + s3)


def _feature_vjp(z: Array, z_t: Array, values: Array, grad: Array, vertex: Array, number: Array, simplices: Array,
                 scale: Array, alpha: float, image: int, first: int, last: int, out: Array,
                 w: Array) -> None:  # fmt: skip
    """Gradients by way of the barycentric coordinates. ``w`` [2 (d + 1)]: of those, and of the elevated ones."""
    d, n = out.shape[1], out.shape[2]
    for i in range(first, last):
        p = image * n + i
        for r in range(d + 1):
            v = vertex[p * (d + 1) + r]
            w[r] = alpha * (_dot(z, v, grad, p) + _dot(z_t, v, values, p))
        ranks, left = simplices[number[p], d], d * (d + 1) // 2
        for j in range(d + 1):
            rank = min(max(left, 0), d) if j == d else (ranks >> (4 * j)) & 15  # they are 0 to d, once each
            left -= rank
            after = d - rank + 1 if rank > 0 else 0
            w[d + 1 + j] = (w[d - rank] - w[after]) / (d + 1)
        before = 0.0
        for j in range(1, d + 1):
            before += w[d + j]
            out[image, j - 1, i] = scale[j - 1] * (before - j * w[d + 1 + j])


# ---- mean field -------------------------------------------------------------------------------------------

# exp(x) = 2^n exp(f), |f| <= log(2) / 2, for x <= 0: by the Taylor polynomial, and n added to the exponent's bits.
# Of each type: log2(e), the number that rounds to a whole one when it is added, log(2) in two parts, the least x (what
# is below counts as that), the digits of the mantissa; then the polynomial's coefficients from the highest, 7 and 1.
_EXP = {
    "float32": (math.log2(math.e), 1.5 * 2.0**23, 0.693359375, -2.12194440e-4, -80.0, 23, 8),
    "float64": (math.log2(math.e), 1.5 * 2.0**52, 6.93147180369123816e-01, 1.90821492927058770e-10, -690.0, 52, 15),
}


def exp_table(dtype: str) -> Array:
    """What `_exp` needs to know of a type."""
    *parts, terms = _EXP[dtype]
    return np.array([*parts, *(1.0 / math.factorial(k) for k in reversed(range(terms)))], dtype)


def _exp(x: Array, n: int, table: Array, whole: Array, whole_bits: Array, power: Array, power_bits: Array) -> None:
    """``power = exp(x)`` for n numbers that are not positive; the ``bits`` are the same memory as integers.

    Zero far below. NaN stays NaN: nothing is added to its bits.
    """
    log2e, magic, high, low, least = table[0], table[1], table[2], table[3], table[4]
    digits, c0, c1, c2, c3 = int(table[5]), table[6], table[7], table[8], table[9]
    c4, c5, c6, c7 = table[10], table[11], table[12], table[13]
    zero = x.dtype.type(0.0)
    for k in range(n):
        t = x[k] * log2e + magic if x[k] >= least else magic
        f = (x[k] - (t - magic) * high) - (t - magic) * low
        whole[k] = t
        p = ((((((c0 * f + c1) * f + c2) * f + c3) * f + c4) * f + c5) * f + c6) * f + c7
        power[k] = zero if x[k] < least else p
    for first in range(14, table.shape[0], 7):
        c1, c2, c3, c4 = table[first], table[first + 1], table[first + 2], table[first + 3]
        c5, c6, c7 = table[first + 4], table[first + 5], table[first + 6]
        for k in range(n):
            t = whole[k]
            f = (x[k] - (t - magic) * high) - (t - magic) * low
            p = ((((((power[k] * f + c1) * f + c2) * f + c3) * f + c4) * f + c5) * f + c6) * f + c7
            power[k] = zero if x[k] < least else p
    for k in range(n):
        power_bits[k] += whole_bits[k] << digits


@inlined
def _subtract_message(z: Array, index: Array, weight: Array, entries: int, mu: Array, start: int, m: int, x: Array,
                      y: Array) -> None:  # fmt: skip
    """``x -= mu (message)`` of m points; ``mu`` is [1, n], a diagonal, or [n, n], transposed."""
    n = z.shape[1]
    for t in range(m):
        p = start + t
        _gather_row(z, index, weight, p * entries, (p + 1) * entries, y, t)
    if mu.shape[0] == 1:
        for t in range(m):
            for c in range(n):
                x[t, c] -= mu[0, c] * y[t, c]
    else:
        for t in range(m):
            for c in range(n):
                factor = y[t, c]
                for k in range(n):
                    x[t, k] -= mu[c, k] * factor


def _softmax(x: Array, x_flat: Array, m: int, labels: int, table: Array, whole: Array, whole_bits: Array, power: Array,
             power_flat: Array, power_bits: Array, out: Array, start: int) -> None:  # fmt: skip
    """Of m rows, into ``out`` from row ``start`` on; x holds the differences from the largest afterwards.

    x is -inf in the padding. Nothing is written there before the end: single stores in front of a vector's load cost
    as much as all else here.
    """
    n = x.shape[1]
    zero = x.dtype.type(0.0)
    for t in range(m):
        a0, a1, a2, a3 = x[t, 0], x[t, 1], x[t, 2], x[t, 3]
        for c in range(4, n, 4):
            a0 = max(x[t, c], a0)
            a1 = max(x[t, c + 1], a1)
            a2 = max(x[t, c + 2], a2)
            a3 = max(x[t, c + 3], a3)
        most = max(max(a0, a1), max(a2, a3))
        for c in range(n):
            x[t, c] -= most
    _exp(x_flat, m * n, table, whole, whole_bits, power_flat, power_bits)
    for t in range(m):
        s0, s1, s2, s3 = power[t, 0], power[t, 1], power[t, 2], power[t, 3]
        for c in range(4, n, 4):
            s0 += power[t, c]
            s1 += power[t, c + 1]
            s2 += power[t, c + 2]
            s3 += power[t, c + 3]
        inverse = x.dtype.type(1.0) / ((s0 + s1) + (s2 + s3))
        for c in range(n):
            out[start + t, c] = power[t, c] * inverse
        for c in range(labels, n):
            out[start + t, c] = zero


def _update(unary: Array, mask: Array, z1: Array, index1: Array, weight1: Array, entries1: int, mu1: Array, z2: Array,
            index2: Array, weight2: Array, entries2: int, mu2: Array, labels: int, softmax: bool, table: Array,
            first: int, last: int, out: Array, x: Array, x_flat: Array, power: Array, power_flat: Array,
            power_bits: Array, whole: Array, whole_bits: Array) -> None:  # fmt: skip
    """Of points ``first`` to ``last``: the softmax of the logits, or the logits' negatives.

    ``mask`` [n] is 0 for labels and, for a softmax, -inf for the padding. Work space for a chunk of rows: ``x`` and
    ``power``, their memory flat and as integers, and ``whole`` likewise.
    """
    n = unary.shape[1]
    for start in range(first, last, _CHUNK):
        m = min(_CHUNK, last - start)
        for t in range(m):
            for c in range(n):
                x[t, c] = mask[c] - unary[start + t, c]
        if entries1:
            _subtract_message(z1, index1, weight1, entries1, mu1, start, m, x, power)
        if entries2:
            _subtract_message(z2, index2, weight2, entries2, mu2, start, m, x, power)
        if softmax:
            _softmax(x, x_flat, m, labels, table, whole, whole_bits, power, power_flat, power_bits, out, start)
        else:
            for t in range(m):
                for c in range(n):
                    out[start + t, c] = -x[t, c]


# ---- layouts ----------------------------------------------------------------------------------------------


def _to_rows(x: Array, image: int, first: int, last: int, fill: float, out: Array) -> None:
    """Points of an image [B, C, N] to rows; channels past C hold ``fill``."""
    channels, n = x.shape[1], x.shape[2]
    for start in range(first, last, _CHUNK):
        stop = min(start + _CHUNK, last)
        for c in range(channels):
            for i in range(start, stop):
                out[image * n + i, c] = x[image, c, i]
        for i in range(start, stop):
            for c in range(channels, out.shape[1]):
                out[image * n + i, c] = fill


def _from_rows(rows: Array, image: int, first: int, last: int, out: Array) -> None:
    channels, n = out.shape[1], out.shape[2]
    for start in range(first, last, _CHUNK):
        stop = min(start + _CHUNK, last)
        for c in range(channels):
            for i in range(start, stop):
                out[image, c, i] = rows[image * n + i, c]


FIRST_ROWS = (_mixed, _slots, _first_rows)
MARK = (_mixed, _mark)
NEIGHBORS = (_mixed, _slots, _neighbors)
SUMS = (_add_sixes, _add_ones, _clear, _sums)
GATHER_ROW = (_add_sixes, _add_threes, _add_ones, _clear, _gather_row)
GATHER = (*GATHER_ROW, _gather)
FEATURE_VJP = (_dot, _feature_vjp)
UPDATE = (*GATHER_ROW, _subtract_message, _exp, _softmax, _update)
