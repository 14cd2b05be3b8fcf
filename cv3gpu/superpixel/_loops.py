"""The CPU's inner loops of SLIC, for `_njit.compiled`.

Colours are whole numbers kept in float32 (``planes``), so that sums over pixels are exact, in any order. Distances are
float32, term by term in the order of ``kernels/superpixel.cu``: both give the same labels.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .._njit import inlined
from .._shared_loops import root
from . import model

Array = np.ndarray[Any, Any]

_F: Any = np.float32
_I: Any = np.int32

# ---- from the image to whole numbers ------------------------------------------------------------------------

_CBRT = 709958130  # 2^23 (127 - 127 / 3 - 0.0331): bits / 3 + this are those of a cube root, to 5 %
_THIRD = _F(1 / 3)
_KNEE, _SLOPE, _SHIFT = _F(0.008856), _F(7.787), _F(16 / 116)  # CIE's f(t) is a line below the knee
_ZERO, _ONE, _INF, _STEPS, _LAST = _F(0), _F(1), _F(np.inf), _F(model.STEPS), _F(model.STEPS - 1)


@inlined
def _unit(v: float, low: float, scale: float) -> float:
    """A value as a share of the image's range; 0 for NaN."""
    u = (_F(v) - low) * scale
    u = u if u > _ZERO else _ZERO
    return u if u < _ONE else _ONE


@inlined
def _linear(u: float, table: Array) -> float:
    """Linear light of an sRGB value in 0-1, between the entries of a table."""
    place = u * _STEPS
    whole = np.floor(place)
    whole = whole if whole < _LAST else _LAST
    i = int(whole)
    before = table[i]
    return before + (table[i + 1] - before) * (place - whole)


def _linear_table(low: float, scale: float, table: Array, out: Array) -> None:
    """Linear light of the 256 values of a byte."""
    for v in range(256):
        out[v] = _linear(_unit(_F(v), low, scale), table)


@inlined
def _halley(y: float, t: float) -> float:
    cube = y * y * y
    return y * (cube + (t + t)) / ((cube + cube) + t)


@inlined
def _curve(t: float, guess: float) -> float:
    """CIE's f of t, from a first guess of the cube root."""
    root = _halley(_halley(guess, t), t)
    return root if t > _KNEE else _SLOPE * t + _SHIFT


def _light_bytes(image: Array, y: int, table: Array, w: Array) -> None:
    """Linear light of a row of bytes to w[0:3]; the table has 256 entries."""
    for x in range(image.shape[1]):
        for c in range(3):
            w[c, x] = table[image[y, x, c]]


def _light_floats(image: Array, y: int, low: float, scale: float, table: Array, w: Array) -> None:
    for x in range(image.shape[1]):
        for c in range(3):
            w[c, x] = _linear(_unit(image[y, x, c], low, scale), table)


def _lab(w: Array, bits: Array, xyz: Array, unit: float, out: Array, n: int) -> None:
    """A row of linear light w[0:3] to rounded Lab times ``unit``; ``bits`` is the same memory as w."""
    m0, m1, m2 = xyz[0, 0], xyz[0, 1], xyz[0, 2]
    m3, m4, m5 = xyz[1, 0], xyz[1, 1], xyz[1, 2]
    m6, m7, m8 = xyz[2, 0], xyz[2, 1], xyz[2, 2]
    for x in range(n):
        r, g, b = w[0, x], w[1, x], w[2, x]
        w[3, x] = m0 * r + m1 * g + m2 * b
        w[4, x] = m3 * r + m4 * g + m5 * b
        w[5, x] = m6 * r + m7 * g + m8 * b
    for c in range(3):
        for x in range(n):
            bits[6 + c, x] = _I(_F(bits[3 + c, x]) * _THIRD) + _I(_CBRT)
    for c in range(3):
        for x in range(n):
            w[c, x] = _curve(w[3 + c, x], w[6 + c, x])
    light, offset = _F(116) * unit, _F(16) * unit
    red, blue = _F(500) * unit, _F(200) * unit
    for x in range(n):
        fx, fy, fz = w[0, x], w[1, x], w[2, x]
        out[0, x] = np.rint(fy * light - offset)
        out[1, x] = np.rint((fx - fy) * red)
        out[2, x] = np.rint((fy - fz) * blue)


def _sums_along(planes: Array, y: int, n: int, before: Array) -> None:
    """``before[y, c, x]``: the sum of a row's colours before x."""
    for c in range(before.shape[1]):
        total = 0
        before[y, c, 0] = total
        for x in range(n):
            total += _I(planes[y, c, x])
            before[y, c, x + 1] = total


def _convert_lab_bytes(image: Array, low: float, scale: float, table: Array, xyz: Array, unit: float, first: int,
                       last: int, planes: Array, before: Array, w: Array, bits: Array,
                       curve: Array) -> None:  # fmt: skip
    """Rows of an RGB image of bytes to Lab."""
    _linear_table(low, scale, table, curve)
    for y in range(first, last):
        _light_bytes(image, y, curve, w)
        _lab(w, bits, xyz, unit, planes[y], image.shape[1])
        _sums_along(planes, y, image.shape[1], before)


def _convert_lab(image: Array, low: float, scale: float, table: Array, xyz: Array, unit: float, first: int,
                 last: int, planes: Array, before: Array, w: Array, bits: Array) -> None:  # fmt: skip
    """Rows of an RGB image of floats to Lab."""
    for y in range(first, last):
        _light_floats(image, y, low, scale, table, w)
        _lab(w, bits, xyz, unit, planes[y], image.shape[1])
        _sums_along(planes, y, image.shape[1], before)


def _convert(image: Array, low: float, scale: float, unit: float, first: int, last: int, planes: Array,
             before: Array) -> None:  # fmt: skip
    """Rows of an image of any channels to shares of its range."""
    for y in range(first, last):
        for c in range(image.shape[2]):
            for x in range(image.shape[1]):
                planes[y, c, x] = np.rint(_unit(image[y, x, c], low, scale) * unit)
        _sums_along(planes, y, image.shape[1], before)


@inlined
def _reflected(i: int, n: int) -> int:
    """An index beyond the ends of n things, mirrored there."""
    i = i % (2 * n)
    return i if i < n else 2 * n - 1 - i


def _smooth(planes: Array, weights: Array, n: int, first: int, last: int, out: Array, before: Array, w: Array) -> None:
    """Rows of colours, n pixels wide, under a Gaussian, rounded; ``w`` [2, n + twice the radius] is work space."""
    radius, height = weights.shape[0] // 2, planes.shape[0]
    for y in range(first, last):
        for c in range(planes.shape[1]):
            for x in range(n):
                w[0, radius + x] = _ZERO
                w[1, x] = _ZERO
            for j in range(weights.shape[0]):
                row, weight = _reflected(y + j - radius, height), weights[j]
                for x in range(n):
                    w[0, radius + x] += planes[row, c, x] * weight
            for x in range(radius):
                w[0, radius - 1 - x] = w[0, radius + _reflected(-1 - x, n)]
                w[0, radius + n + x] = w[0, radius + _reflected(n + x, n)]
            for j in range(weights.shape[0]):
                weight = weights[j]
                for x in range(n):
                    w[1, x] += w[0, x + j] * weight
            for x in range(n):
                out[y, c, x] = np.rint(w[1, x])
        _sums_along(out, y, n, before)


LAB_BYTES = (_unit, _linear, _linear_table, _light_bytes, _halley, _curve, _lab, _sums_along, _convert_lab_bytes)
LAB = (_unit, _linear, _light_floats, _halley, _curve, _lab, _sums_along, _convert_lab)
PLAIN = (_unit, _sums_along, _convert)
SMOOTH = (_reflected, _sums_along, _smooth)

# ---- k-means ------------------------------------------------------------------------------------------------
#
# Cluster k = i * columns + j begins as the mean of cell (i, j) of a grid. A pixel chooses among the nine clusters whose
# cells are its own cell and those around it. `centre` [K, 3 + C]: y, x, weight of colours, colours. `sums` [K, 3 + C]:
# pixels, their y, their x, their colours.


@inlined
def _centre(centre: Array, k: int) -> tuple[float, float, float, float, float, float]:
    return centre[k, 0], centre[k, 1], centre[k, 2], centre[k, 3], centre[k, 4], centre[k, 5]


@inlined
def _distance(a: tuple[float, ...], p0: float, p1: float, p2: float, y: float, x: float, weight: float) -> float:
    d0, d1, d2 = p0 - a[3], p1 - a[4], p2 - a[5]
    dy, dx = y - a[0], x - a[1]
    return (d0 * d0 + d1 * d1 + d2 * d2) * a[2] + (dy * dy + dx * dx) * weight


def _choose3(planes: Array, centre: Array, k: Array, xs: Array, left: int, right: int, top: int, bottom: int,
             step: int, weight: float, labels: Array) -> None:  # fmt: skip
    """The nearest of nine clusters for the pixels of a cell, of three channels; of equal ones the first."""
    k0, k1, k2, k3, k4, k5, k6, k7, k8 = k[0], k[1], k[2], k[3], k[4], k[5], k[6], k[7], k[8]
    a, b, c = _centre(centre, k0), _centre(centre, k1), _centre(centre, k2)
    d, e, f = _centre(centre, k3), _centre(centre, k4), _centre(centre, k5)
    g, h, i = _centre(centre, k6), _centre(centre, k7), _centre(centre, k8)
    for row in range(top, bottom, step):
        y = _F(row)
        q0, q1, q2, out = planes[row, 0], planes[row, 1], planes[row, 2], labels[row]
        for t in range(left, right):
            p0, p1, p2, x = q0[t], q1[t], q2[t], xs[t]
            best, chosen = _distance(a, p0, p1, p2, y, x, weight), k0
            v = _distance(b, p0, p1, p2, y, x, weight)
            best, chosen = (v, k1) if v < best else (best, chosen)
            v = _distance(c, p0, p1, p2, y, x, weight)
            best, chosen = (v, k2) if v < best else (best, chosen)
            v = _distance(d, p0, p1, p2, y, x, weight)
            best, chosen = (v, k3) if v < best else (best, chosen)
            v = _distance(e, p0, p1, p2, y, x, weight)
            best, chosen = (v, k4) if v < best else (best, chosen)
            v = _distance(f, p0, p1, p2, y, x, weight)
            best, chosen = (v, k5) if v < best else (best, chosen)
            v = _distance(g, p0, p1, p2, y, x, weight)
            best, chosen = (v, k6) if v < best else (best, chosen)
            v = _distance(h, p0, p1, p2, y, x, weight)
            best, chosen = (v, k7) if v < best else (best, chosen)
            v = _distance(i, p0, p1, p2, y, x, weight)
            best, chosen = (v, k8) if v < best else (best, chosen)
            out[t] = chosen


def _choose(planes: Array, centre: Array, k: Array, xs: Array, left: int, right: int, top: int, bottom: int,
            step: int, weight: float, d: Array, labels: Array) -> None:  # fmt: skip
    """As `_choose3`, of any channels; ``d`` [2, width] is work space."""
    for row in range(top, bottom, step):
        y, best, total, out = _F(row), d[0], d[1], labels[row]
        for t in range(left, right):
            best[t] = _INF
        for m in range(9):  # of which one at least is somewhere
            c = k[m]
            dy, cx, factor = y - centre[c, 0], centre[c, 1], centre[c, 2]
            for t in range(left, right):
                total[t] = _ZERO
            for channel in range(planes.shape[1]):
                own, values = centre[c, 3 + channel], planes[row, channel]
                for t in range(left, right):
                    off = values[t] - own
                    total[t] += off * off
            for t in range(left, right):
                dx = xs[t] - cx
                v = total[t] * factor + (dy * dy + dx * dx) * weight
                less = v < best[t]
                best[t] = v if less else best[t]
                out[t] = c if less else out[t]


@inlined
def _cut(labels: Array, y: int, width: int, cuts: Array) -> int:
    """Where the runs of equal labels in a row begin, and its end; returns how many they are. No branch: few repeat."""
    cuts[0] = 0
    n = 1
    for x in range(1, width):
        cuts[n] = x
        n += 1 if labels[y, x] != labels[y, x - 1] else 0
    cuts[n] = width
    return n


def _add_runs(labels: Array, y: int, before: Array, cuts: Array, runs: int, sums: Array) -> None:
    """Adds a row's runs to the sums of their clusters."""
    for r in range(runs):
        start, end = cuts[r], cuts[r + 1]
        k = labels[y, start]
        if k >= 0:
            n = end - start
            sums[k, 0] += n
            sums[k, 1] += n * y
            sums[k, 2] += (start + end - 1) * n // 2
            for c in range(before.shape[1]):
                sums[k, 3 + c] += before[y, c, end] - before[y, c, start]


def _widen(planes: Array, centre: Array, labels: Array, y: int, cuts: Array, runs: int, most: Array) -> None:
    """``most`` [K]: the largest square colour distance of a pixel to its cluster so far."""
    for r in range(runs):
        k = labels[y, cuts[r]]
        for x in range(cuts[r], cuts[r + 1] if k >= 0 else cuts[r]):
            total = _ZERO
            for c in range(planes.shape[1]):
                off = planes[y, c, x] - centre[k, 3 + c]
                total += off * off
            most[k] = max(most[k], total)


def _hide(mask: Array, y: int, labels: Array) -> None:
    """A row's pixels outside of the mask get no cluster."""
    for x in range(mask.shape[1]):
        if not mask[y, x]:
            labels[y, x] = -1


def _begin(mask: Array, width: int, rows: int, columns: int, first: int, last: int, before: Array, labels: Array,
           cuts: Array, sums: Array) -> None:  # fmt: skip
    """Each pixel to its cell; ``mask`` [H, W] or empty."""
    height = labels.shape[0]
    for y in range(first, last):
        k = y * rows // height * columns
        for j in range(columns):
            for x in range(-(-j * width // columns), -(-(j + 1) * width // columns)):
                labels[y, x] = k + j
        if mask.shape[0]:
            _hide(mask, y, labels)
        _add_runs(labels, y, before, cuts, _cut(labels, y, width, cuts), sums)


@inlined
def _blocks_before(j: int, width: int, columns: int, block: int) -> int:
    """The first pixel of those blocks whose middle is in column j of cells, or after it."""
    return max(0, -(-(j * width - block // 2 * columns) // (block * columns))) * block


def _iterate(planes: Array, before: Array, mask: Array, centre: Array, width: int, rows: int, columns: int,
             block: int, weight: float, zero: bool, step: int, phase: int, adding: bool, first: int, last: int,
             xs: Array, d: Array, k: Array, cuts: Array, labels: Array, sums: Array, most: Array) -> None:  # fmt: skip
    """Chooses clusters for pixels from row ``first`` to ``last``, and adds these up if ``adding``.

    Of the rows, those whose number is ``phase`` modulo ``step``. ``most`` [K]: as in `_widen`, if ``zero``.
    """
    height, end = labels.shape[0], labels.shape[1]
    top = first
    while top < last:
        i = top * rows // height
        bottom = min(last, -(-(i + 1) * height // rows))
        start = top + (phase - top) % step
        left = 0
        for j in range(columns):
            right = _blocks_before(j + 1, width, columns, block) if j + 1 < columns else end
            for m in range(9):
                k[m] = min(max(i + m // 3 - 1, 0), rows - 1) * columns + min(max(j + m % 3 - 1, 0), columns - 1)
            if planes.shape[1] == 3:
                _choose3(planes, centre, k, xs, left, right, start, bottom, step, weight, labels)
            else:
                _choose(planes, centre, k, xs, left, right, start, bottom, step, weight, d, labels)
            left = right
        for y in range(start, bottom, step):
            if mask.shape[0]:
                _hide(mask, y, labels)
            if adding:
                runs = _cut(labels, y, width, cuts)
                _add_runs(labels, y, before, cuts, runs, sums)
                if zero:
                    _widen(planes, centre, labels, y, cuts, runs, most)
        top = bottom


def _means(sums: Array, most: Array, zero: bool, centre: Array) -> None:
    """Where clusters are after they were added up; one without pixels stays where it is."""
    for k in range(centre.shape[0]):
        centre[k, 2] = _ONE / most[k] if zero else _ONE
        n = np.float64(sums[k, 0])
        if n > 0:
            centre[k, 0], centre[k, 1] = _F(np.float64(sums[k, 1]) / n), _F(np.float64(sums[k, 2]) / n)
            for c in range(3, centre.shape[1]):
                centre[k, c] = _F(np.float64(sums[k, c]) / n)


BEGIN = (_cut, _add_runs, _hide, _begin)
ITERATE = (_centre, _distance, _choose3, _choose, _cut, _add_runs, _widen, _hide, _blocks_before, _iterate)
MEANS = (_means,)

# ---- segments -----------------------------------------------------------------------------------------------
#
# A segment is a set of pixels of one cluster that hang together by their edges, found from the runs of equal labels.


def _count_runs(labels: Array, width: int) -> int:
    count = 0
    for y in range(labels.shape[0]):
        here = 1
        for x in range(1, width):
            here += labels[y, x] != labels[y, x - 1]
        count += here
    return count


def _find_runs(labels: Array, width: int, start: Array, head: Array) -> None:
    """First pixel of each run, and first run of each row with their end. ``start`` has room for one more."""
    r = 0
    for y in range(labels.shape[0]):
        head[y] = r
        r += _cut(labels, y, width, start[r:])
    head[labels.shape[0]] = r


@inlined
def _stop(start: Array, head: Array, y: int, r: int, width: int) -> int:
    """Where a run of row y ends."""
    return start[r + 1] if r + 1 < head[y + 1] else width


def _connect(labels: Array, width: int, start: Array, head: Array, parent: Array) -> int:
    """Numbers segments by the order of their first pixels: ``parent`` [runs], -1 outside of the mask; how many."""
    for y in range(labels.shape[0]):
        for r in range(head[y], head[y + 1]):
            parent[r] = r
        if y == 0:
            continue
        up, r = head[y - 1], head[y]
        while up < head[y] and r < head[y + 1]:
            if labels[y - 1, start[up]] == labels[y, start[r]]:
                a, b = root(parent, up), root(parent, r)
                parent[max(a, b)] = min(a, b)
            a, b = _stop(start, head, y - 1, up, width), _stop(start, head, y, r, width)
            up += a <= b
            r += b <= a
    count = 0
    for y in range(labels.shape[0]):
        for r in range(head[y], head[y + 1]):
            if labels[y, start[r]] < 0:
                parent[r] = -1
            elif parent[r] == r:
                parent[r] = count
                count += 1
            else:
                parent[r] = parent[parent[r]]  # of an earlier run, so a segment's number already
    return count


def _first_seen(labels: Array, start: Array, head: Array, number: Array, parent: Array) -> int:
    """As `_connect`, of whole clusters; ``number`` [K] holds -1."""
    count = 0
    for y in range(labels.shape[0]):
        for r in range(head[y], head[y + 1]):
            k = labels[y, start[r]]
            if k >= 0 and number[k] < 0:
                number[k] = count
                count += 1
            parent[r] = number[k] if k >= 0 else -1
    return count


def _add_segments(start: Array, head: Array, segment: Array, width: int, before: Array, sums: Array) -> None:
    """Pixels and colours of each segment: ``sums`` [segments, 1 + C]."""
    for y in range(head.shape[0] - 1):
        for r in range(head[y], head[y + 1]):
            s, end = segment[r], _stop(start, head, y, r, width)
            if s >= 0:
                sums[s, 0] += end - start[r]
                for c in range(before.shape[1]):
                    sums[s, 1 + c] += before[y, c, end] - before[y, c, start[r]]


def _borders(start: Array, head: Array, segment: Array, width: int, sums: Array, least: int, pairs: Array) -> int:
    """Pairs of adjacent segments of which one is too small; how many, at most three for each run."""
    n = 0
    for y in range(head.shape[0] - 1):
        for r in range(head[y], head[y + 1] - 1):
            a, b = segment[r], segment[r + 1]
            if a >= 0 and b >= 0 and (sums[a, 0] < least or sums[b, 0] < least):
                pairs[n, 0], pairs[n, 1] = a, b
                n += 1
        if y == 0:
            continue
        up, r = head[y - 1], head[y]
        while up < head[y] and r < head[y + 1]:
            a, b = segment[up], segment[r]
            if a != b and a >= 0 and b >= 0 and (sums[a, 0] < least or sums[b, 0] < least):
                pairs[n, 0], pairs[n, 1] = a, b
                n += 1
            p, q = _stop(start, head, y - 1, up, width), _stop(start, head, y, r, width)
            up += p <= q
            r += q <= p
    return n


@inlined
def _apart(mean: Array, a: int, b: int) -> float:
    """Square distance of the mean colours of two groups of segments."""
    total = _ZERO
    for c in range(mean.shape[1]):
        off = mean[a, c] - mean[b, c]
        total += off * off
    return total


@inlined
def _offer(best: Array, near: Array, a: int, b: int, d: float) -> None:
    """Group b, at distance d, to group a."""
    if best[a] < 0 or d < near[a] or (d == near[a] and b < best[a]):
        best[a], near[a] = b, d


def _merge(sums: Array, pairs: Array, count: int, least: int, group: Array, best: Array, near: Array,
           moved: Array, mean: Array, number: Array) -> int:  # fmt: skip
    """Rounds in which each group that is too small joins the adjacent one of the nearest colour, until none is left.

    ``number`` [segments]: the groups by their first pixels; returns how many they are.
    """
    segments = group.shape[0]
    for s in range(segments):
        group[s], best[s] = s, -1
    while True:
        for s in range(segments):
            for c in range(mean.shape[1] if group[s] == s else 0):
                mean[s, c] = _F(np.float64(sums[s, 1 + c]) / np.float64(sums[s, 0]))
        kept = 0
        for e in range(count):
            a, b = group[pairs[e, 0]], group[pairs[e, 1]]
            small, other = sums[a, 0] < least, sums[b, 0] < least
            if a != b and (small or other):
                d = _apart(mean, a, b)
                if small:
                    _offer(best, near, a, b, d)
                if other:
                    _offer(best, near, b, a, d)
                pairs[kept, 0], pairs[kept, 1] = a, b
                kept += 1
        count = kept
        if count == 0:
            break
        for s in range(segments):  # of two that chose each other, the first stays
            number[s] = s
            t = best[s]
            if t >= 0 and not (best[t] == s and s < t):
                number[s] = t
        for s in range(segments):
            t = s
            while number[t] != t:
                t = number[t]
            if best[s] >= 0 and t != s:
                for c in range(sums.shape[1]):
                    sums[t, c] += sums[s, c]
            moved[s] = t
        for s in range(segments):
            group[s] = moved[group[s]]
            best[s] = -1
    for s in range(segments):
        number[s] = -1
    found = 0
    for s in range(segments):
        if number[group[s]] < 0:
            number[group[s]] = found
            found += 1
        best[s] = number[group[s]]
    for s in range(segments):
        number[s] = best[s]
    return found


def _write(start: Array, head: Array, segment: Array, number: Array, first: int, out: Array) -> None:
    """Labels [H, W] from ``first`` on, ``first - 1`` outside of the mask."""
    for y in range(out.shape[0]):
        for r in range(head[y], head[y + 1]):
            label = first + (number[segment[r]] if segment[r] >= 0 else -1)
            for x in range(start[r], _stop(start, head, y, r, out.shape[1])):
                out[y, x] = label


COUNT_RUNS, FIND_RUNS = (_count_runs,), (_cut, _find_runs)
CONNECT, FIRST_SEEN = (root, _stop, _connect), (_first_seen,)
ADD_SEGMENTS, BORDERS = (_stop, _add_segments), (_stop, _borders)
MERGE, WRITE = (_apart, _offer, _merge), (_stop, _write)
