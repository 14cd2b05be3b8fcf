"""The CPU's inner loops of the permutohedral lattice and of the mean-field update, for `_njit.compiled`.

Rows of channels are dense, as `_lanes` wants them.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .._lanes import blur_row, prefetch, softmax_row, subtract_row, subtract_sum, sum_rows
from .._njit import inlined

Array = np.ndarray[Any, Any]

CHUNK = 32  # points that are located, or updated, together
_BOUND = 2.0**27  # lattice coordinates, in units of d + 1, end here
_MIX = -7046029254386353131  # 2^64 / golden ratio, as a signed number
_EMPTY = -1
_AHEAD = 16  # look-ups that the memory is asked for ahead of time
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
    for start in range(first, last, CHUNK):
        m = min(CHUNK, last - start)
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
        own, slot = _slots(_mixed(hashes[min(i + _AHEAD, keys.shape[0] - 1)]), parts, size)
        if own == part:
            prefetch(table, base + slot)
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


def _ranked(first: Array, rank: Array, rows: Array) -> int:
    """Numbers the rows that are the first with their keys, and lists them; how many they are."""
    count = 0
    for i in range(first.shape[0]):
        rank[i] = count
        rows[count] = i
        count += 1 if first[i] == i else 0
    return count


def _take(keys: Array, hashes: Array, rows: Array, low: int, high: int, out: Array, out_hashes: Array) -> None:
    """Some rows of keys, and their hashes."""
    for i in range(low, high):
        out_hashes[i] = hashes[rows[i]]
        for j in range(keys.shape[1]):
            out[i, j] = keys[rows[i], j]


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


def _corner_keys(simplices: Array, _: Array, low: int, high: int, keys: Array, key_hashes: Array) -> None:
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
            part, slot = _slots(_mixed(hashes[min(v + _AHEAD, high - 1)] + step), parts, size)
            prefetch(table, part * size + slot)
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


def _weighted(bary: Array, alpha: float, scale: Array, low: int, high: int, weight: Array) -> None:
    """Weights of points ``low`` to ``high``, times alpha and the points' scale if there is one."""
    factor = bary.dtype.type(alpha)
    for p in range(low, high):
        by = factor * scale[p] if scale.shape[0] else factor
        for r in range(bary.shape[1]):
            weight[p, r] = bary[p, r] * by


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


def _gather(z: Array, vertex: Array, weight: Array, entries: int, first: int, last: int, out: Array) -> None:
    """The rows of points ``first`` to ``last``."""
    for p in range(first, last):
        sum_rows(z, vertex, weight, p * entries, (p + 1) * entries, out, p)


def _blur(z: Array, neighbor: Array, axis: int, low: int, high: int, out: Array) -> None:
    """One axis: ``out[v] = z[v] + (z[n1] + z[n2]) / 2``; the last row of z is zero, for neighbours that are missing."""
    for v in range(low, high):
        blur_row(z, v, neighbor[axis, 0, v], neighbor[axis, 1, v], out)


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


@inlined
def _subtract_message(z: Array, index: Array, weight: Array, entries: int, mu: Array, p: int, labels: int, x: Array,
                      y: Array, each: Array, ones: Array) -> None:  # fmt: skip
    """``x -= mu (message)`` of point p; ``mu`` is [1, n], a diagonal, or [n, n], transposed."""
    if mu.shape[0] == 1:
        subtract_sum(mu, z, index, weight, p * entries, (p + 1) * entries, x, 0)
    else:
        sum_rows(z, index, weight, p * entries, (p + 1) * entries, y, 0)
        subtract_sum(ones, mu, each, y[0], 0, labels, x, 0)


def _update(unary: Array, mask: Array, z1: Array, index1: Array, weight1: Array, entries1: int, mu1: Array, z2: Array,
            index2: Array, weight2: Array, entries2: int, mu2: Array, labels: int, softmax: bool, each: Array,
            ones: Array, first: int, last: int, out: Array, x: Array, y: Array) -> None:  # fmt: skip
    """Of points ``first`` to ``last``: the softmax of the logits, or the logits' negatives.

    ``mask`` [1, n] is 0 for labels and, for a softmax, -inf for the padding. ``each`` [n] counts from 0, ``ones``
    [1, n]. ``x`` and ``y`` [1, n] are work space.
    """
    zero = out.dtype.type(0.0)
    for p in range(first, last):
        subtract_row(mask, unary, p, x, 0)
        if entries1:
            _subtract_message(z1, index1, weight1, entries1, mu1, p, labels, x, y, each, ones)
        if entries2:
            _subtract_message(z2, index2, weight2, entries2, mu2, p, labels, x, y, each, ones)
        if softmax:
            softmax_row(x, out, p)
            for c in range(labels, out.shape[1]):
                out[p, c] = zero
        else:
            subtract_row(mask, x, 0, out, p)


# ---- layouts ----------------------------------------------------------------------------------------------


def _to_rows(x: Array, image: int, first: int, last: int, fill: float, out: Array) -> None:
    """Points of an image [B, C, N] to rows; channels past C hold ``fill``."""
    channels, n = x.shape[1], x.shape[2]
    for start in range(first, last, CHUNK):
        stop = min(start + CHUNK, last)
        for c in range(channels):
            for i in range(start, stop):
                out[image * n + i, c] = x[image, c, i]
        for i in range(start, stop):
            for c in range(channels, out.shape[1]):
                out[image * n + i, c] = fill


def _from_rows(rows: Array, image: int, first: int, last: int, out: Array) -> None:
    channels, n = out.shape[1], out.shape[2]
    for start in range(first, last, CHUNK):
        stop = min(start + CHUNK, last)
        for c in range(channels):
            for i in range(start, stop):
                out[image, c, i] = rows[image * n + i, c]


FIRST_ROWS = (prefetch, _mixed, _slots, _first_rows)
MARK = (_mixed, _mark)
NEIGHBORS = (prefetch, _mixed, _slots, _neighbors)
GATHER = (sum_rows, _gather)
BLUR = (blur_row, _blur)
FEATURE_VJP = (_dot, _feature_vjp)
UPDATE = (sum_rows, subtract_row, subtract_sum, softmax_row, _subtract_message, _update)
