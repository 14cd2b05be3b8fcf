"""The CPU's inner loops of k-means and mean shift, for `_njit.compiled`.

Sums are float64 and go from the first point to the last within chunks whose size depends on the problem alone, so that
the result is the same for any number of threads.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .._njit import inlined
from .._shared_loops import root
from ._tiles import add_rows, exponentials, nearest, nearest_expanded, square_distances, weighted_sums

Array = np.ndarray[Any, Any]

# ---- k-means ------------------------------------------------------------------------------------------------


def _pack(x: Array, shift: Array, first: int, last: int, tiles: Array, moments: Array) -> bool:
    """Points less ``shift`` [D] by tiles [tiles, D, P], the rest of the last one zero; are all finite?

    ``first`` and ``last``: tiles. ``moments`` [2, D]: sums of the differences to the first point of all, and of their
    squares.
    """
    dims, per = tiles.shape[1], tiles.shape[2]
    bad = 0.0
    for t in range(first, last):
        for p in range(per):
            i = t * per + p
            if i < x.shape[0]:
                for d in range(dims):
                    v = x[i, d]
                    tiles[t, d, p] = v - shift[d]
                    off = np.float64(v) - np.float64(x[0, d])
                    moments[0, d] += off
                    moments[1, d] += off * off
                    bad += np.float64(v) - np.float64(v)  # NaN of NaN and infinity
            else:
                for d in range(dims):
                    tiles[t, d, p] = 0
    return bad == 0


def _assign(x: Array, weight: Array, tiles: Array, centres: Array, bias: Array, best: Array, near: Array,
            expanded: bool, chunk: int, clusters: int, first: int, last: int, labels: Array, sums: Array,
            mass: Array) -> int:  # fmt: skip
    """Gives the points of some chunks to their nearest centres, and adds them up; how many labels have changed.

    ``sums`` [chunks * K, D or more], ``mass`` [chunks * K]; ``weight`` [N] or empty; ``best`` and ``near``: space for a
    tile.
    """
    points, dims, per = x.shape[0], x.shape[1], tiles.shape[2]
    weighted = weight.shape[0] > 0
    whole = points - sums.shape[1]  # points of which more than their own row can be read
    changed = 0
    for c in range(first, last):
        base = c * clusters
        for k in range(base, base + clusters):
            mass[k] = 0
            for d in range(sums.shape[1]):
                sums[k, d] = 0
        for t in range(c * chunk, min((c + 1) * chunk, tiles.shape[0])):
            if expanded:
                nearest_expanded(tiles[t], centres, bias, best, near)
            else:
                nearest(tiles[t], centres, bias, best, near)
            start = t * per
            n = min(per, points - start)
            for p in range(n):
                changed += labels[start + p] != near[p]
                labels[start + p] = near[p]
            if not weighted and start + per <= whole:
                add_rows(x, start, near, sums, mass, base)
                continue
            for p in range(n):
                w = np.float64(weight[start + p]) if weighted else 1.0
                mass[base + near[p]] += w
                for d in range(dims):
                    sums[base + near[p], d] += w * np.float64(x[start + p, d])
    return changed


@inlined
def _apart(x: Array, i: int, centres: Array, k: int) -> float:
    total = 0.0
    for d in range(x.shape[1]):
        off = np.float64(x[i, d]) - centres[k, d]
        total += off * off
    return total


def _inertia(x: Array, weight: Array, centres: Array, labels: Array, chunk: int, first: int, last: int,
             part: Array, far: Array) -> None:  # fmt: skip
    """Sums of square distances of the points of some chunks to their centres, to ``part`` [chunks].

    ``far`` [N] or empty: the distances. ``chunk`` is in points.
    """
    for c in range(first, last):
        total = 0.0
        for i in range(c * chunk, min((c + 1) * chunk, x.shape[0])):
            d = _apart(x, i, centres, labels[i])
            total += d * np.float64(weight[i]) if weight.shape[0] > 0 else d
            if far.shape[0] > 0:
                far[i] = d
        part[c] = total


def _potentials(weight: Array, points: int, tiles: Array, centres: Array, bias: Array, count: int, space: Array,
                block: int, first: int, last: int, closest: Array, part: Array) -> None:  # fmt: skip
    """Square distances to the nearest of the centres chosen so far, and what they would sum up to with one more.

    The first of ``centres`` is the last one chosen: it lowers ``closest`` [tiles, P] for good. The ``count`` after it
    are tried: sums of each block of tiles to ``part`` [blocks, count].
    """
    per = tiles.shape[2]
    for b in range(first, last):
        for c in range(count):
            part[b, c] = 0
        for t in range(b * block, min((b + 1) * block, tiles.shape[0])):
            square_distances(tiles[t], centres, bias, space)
            n = min(per, points - t * per)
            for p in range(n):
                closest[t, p] = min(closest[t, p], space[0, p])
            for c in range(count):
                total = 0.0
                for p in range(n):
                    v = np.float64(min(closest[t, p], space[c + 1, p]))
                    total += v * np.float64(weight[t * per + p]) if weight.shape[0] > 0 else v
                part[b, c] += total


def _draw(x: Array, weight: Array, closest: Array, centre: Array, first: int, last: int, target: float) -> int:
    """The point at which the running sum of square distances to the nearest centre exceeds ``target``.

    ``closest`` [N] is without ``centre`` [1, D], the last one chosen.
    """
    total, found = 0.0, first
    for i in range(first, last):
        v = min(np.float64(closest[i]), _apart(x, i, centre, 0))
        if weight.shape[0] > 0:
            v *= np.float64(weight[i])
        if v > 0:
            total += v
            found = i
            if total > target:
                break
    return found


@inlined
def _uniform(seed: int, i: int) -> float:
    """A random number in [0, 1) of a point (splitmix64), the same as on a GPU."""
    z = np.uint64(seed) + np.uint64(i + 1) * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    z ^= z >> np.uint64(31)
    return np.float64(z >> np.uint64(11)) * 2.0**-53


def _sample(closest: Array, weight: Array, scale: float, seed: int, chosen: Array) -> int:
    """The points whose random numbers are below ``scale`` times weight and distance, to ``chosen``; how many."""
    count = 0
    for i in range(closest.shape[0]):
        share = closest[i] * np.float64(weight[i]) if weight.shape[0] > 0 else closest[i]
        if _uniform(seed, i) < scale * share:
            chosen[count] = i
            count += 1
    return count


PACK = (_pack,)
ASSIGN = (nearest, nearest_expanded, add_rows, _assign)
INERTIA = (_apart, _inertia)
POTENTIALS = (square_distances, _potentials)
DRAW = (_apart, _draw)
SAMPLE = (_uniform, _sample)


# ---- mean shift -----------------------------------------------------------------------------------------------
#
# Points [D, N] are sorted by their ``cells`` [N] in a grid over up to three of the dimensions. A cell's number counts
# along the last of these, so that three cells side by side are one range of points; cells are at least as wide as the
# kernel.

_AT_ONCE = 8  # candidates come in multiples of this


@inlined
def _cell(y: Array, axes: Array, low: Array, width: Array, steps: Array) -> int:
    """The number of the cell of a position."""
    cell = 0
    for a in range(axes.shape[0]):
        cell += int(np.floor((y[axes[a]] - low[a]) / width[a])) * steps[a]
    return cell


@inlined
def _bisect(cells: Array, cell: int) -> int:
    """How many points are in cells before one."""
    low, high = 0, cells.shape[0]
    while low < high:
        middle = (low + high) // 2
        if cells[middle] < cell:
            low = middle + 1
        else:
            high = middle
    return low


def _gather(points: Array, cells: Array, around: Array, cell: int, near: Array) -> int:
    """Copies the points of a cell and of those around it to ``near`` [D, N + 7]; how many."""
    n = 0
    for row in range(around.shape[0]):
        first = _bisect(cells, cell + around[row] - 1)
        last = _bisect(cells, cell + around[row] + 2)
        for d in range(points.shape[0]):
            for t in range(last - first):
                near[d, n + t] = points[d, first + t]
        n += last - first
    end = -(-n // _AT_ONCE) * _AT_ONCE
    for d in range(points.shape[0]):
        for t in range(n, end):
            near[d, t] = 0
    return n


@inlined
def _squares(near: Array, end: int, y: Array, weight: Array) -> None:
    """Square distances of all candidates."""
    own = y[0]
    for t in range(end):
        off = near[0, t] - own
        weight[t] = off * off
    for d in range(1, near.shape[0]):
        own = y[d]
        for t in range(end):
            off = near[d, t] - own
            weight[t] += off * off


def _mean(near: Array, n: int, y: Array, square: float, gaussian: bool, reach: float, weight: Array,
          sums: Array) -> None:  # fmt: skip
    """The weighted sum of the candidates around a position, and of their weights."""
    end = -(-n // _AT_ONCE) * _AT_ONCE
    _squares(near, end, y, weight)
    if gaussian:
        scale = -0.5 / square
        for t in range(end):
            weight[t] = weight[t] * scale if weight[t] <= reach else -1e300
        exponentials(weight, end)
    else:
        for t in range(end):
            weight[t] = 1.0 if weight[t] <= reach else 0.0
    for t in range(n, end):
        weight[t] = 0
    weighted_sums(near, weight, end, sums)


@inlined
def _slot(bits: Array, slots: int) -> int:
    """A place for a position by its bits."""
    h = np.uint64(1469598103934665603)
    for d in range(bits.shape[0]):
        h = (h ^ np.uint64(bits[d])) * np.uint64(1099511628211)
        h ^= h >> np.uint64(29)
    return int(h & np.uint64(slots - 1))


def _ascend(points: Array, cells: Array, around: Array, axes: Array, low: Array, width: Array, steps: Array,
            square: float, gaussian: bool, reach: float, max_iter: int, shift: float, first: int, last: int,
            near: Array, weight: Array, sums: Array, y: Array, bits: Array, seen: Array, owner: Array, when: Array,
            modes: Array, root: Array, iters: Array) -> int:  # fmt: skip
    """Moves some points uphill until a step is at most ``shift`` long (squared); how many did not get there.

    ``modes`` [N, D]: where they end; ``iters`` [N]: their steps, negative if they were stopped. A position that another
    of these points has been at, to the last bit, has the rest of its way: ``root`` [N] tells that point. ``seen``
    [slots, D], ``owner`` and ``when`` [slots]: positions, whose they are and after how many steps. ``bits`` is y's
    memory.
    """
    dims = points.shape[0]
    for s in range(owner.shape[0]):
        owner[s] = -1
    here, n, late = -1, 0, 0
    for i in range(first, last):
        for d in range(dims):
            y[d] = points[d, i]
        root[i] = i
        count, left = 0, True
        while left and count < max_iter:
            cell = _cell(y, axes, low, width, steps)
            if n == 0 or cell != here:
                n, here = _gather(points, cells, around, cell, near), cell
            _mean(near, n, y, square, gaussian, reach, weight, sums)
            count += 1
            moved = 0.0
            for d in range(dims):
                mean = sums[d] / sums[dims]
                moved += (mean - y[d]) * (mean - y[d])
                y[d] = mean
            left = moved > shift
            slot = _slot(bits, owner.shape[0])
            other = owner[slot]
            same = left and other >= 0 and other != i
            for d in range(dims):
                same = same and seen[slot, d] == y[d]
            if same and iters[other] > 0 and count + iters[other] - when[slot] <= max_iter:
                root[i], left = root[other], False
                count += int(iters[other] - when[slot])
                for d in range(dims):
                    y[d] = modes[other, d]
            elif left:
                owner[slot], when[slot] = i, count
                for d in range(dims):
                    seen[slot, d] = y[d]
        for d in range(dims):
            modes[i, d] = y[d]
        iters[i] = -count if left else count
        late += left
    return late


def _merge(modes: Array, root: Array, place: Array, square: float, found: Array, best: Array, far: Array,
           asked: Array, labels: Array) -> int:  # fmt: skip
    """Labels: the nearest of the modes up to a point that is nearer than the root of ``square``, or a new one.

    Returns how many modes there are; ``found`` [N, D] gets them. ``place`` [N]: where a point's row of ``modes`` is.
    ``best``, ``far`` and ``asked`` [N]: of a root, the nearest mode among the first ones ``asked`` (0 to begin with).
    """
    count, dims = 0, modes.shape[1]
    for i in range(place.shape[0]):
        r = root[place[i]]
        least = far[r] if asked[r] > 0 else square
        for k in range(asked[r], count):
            total, d = 0.0, 0
            while d < dims and total < least:
                off = modes[r, d] - found[k, d]
                total += off * off
                d += 1
            if total < least:
                least, best[r] = total, k
        if least == square:
            for d in range(dims):
                found[count, d] = modes[r, d]
            least, best[r] = 0.0, count
            count += 1
        far[r], asked[r] = least, count
        labels[i] = best[r]
    return count


ASCEND = (exponentials, weighted_sums, _cell, _bisect, _gather, _squares, _mean, _slot, _ascend)
MERGE = (_merge,)

# ---- regions of an image --------------------------------------------------------------------------------------


@inlined
def _same(ends: Array, a: int, b: int, square: float) -> bool:
    total = 0.0
    for d in range(ends.shape[1]):
        off = np.float64(ends[a, d]) - np.float64(ends[b, d])
        total += off * off
    return total < square


def _connect(ends: Array, width: int, square: float, parent: Array, labels: Array) -> int:
    """Pixels beside one another whose ends are nearer than the root of ``square`` are one region; how many there are.

    Regions are numbered by their first pixels. ``parent`` [N]: space.
    """
    for i in range(labels.shape[0]):
        parent[i] = i
        if i % width > 0 and _same(ends, i, i - 1, square):
            a, b = root(parent, i), root(parent, i - 1)
            parent[max(a, b)] = min(a, b)
        if i >= width and _same(ends, i, i - width, square):
            a, b = root(parent, i), root(parent, i - width)
            parent[max(a, b)] = min(a, b)
    count = 0
    for i in range(labels.shape[0]):
        r = root(parent, i)
        if r == i:
            labels[i] = count
            count += 1
        else:
            labels[i] = labels[r]  # its first pixel, seen before
    return count


@inlined
def _offer(sums: Array, a: int, b: int, least: int, best: Array, near: Array) -> None:
    """Region b to region a, if that is too small."""
    if sums[a, 0] < least:
        total = 0.0
        for c in range(1, sums.shape[1]):
            off = sums[a, c] / sums[a, 0] - sums[b, c] / sums[b, 0]
            total += off * off
        if best[a] < 0 or total < near[a] or (total == near[a] and b < best[a]):
            best[a], near[a] = b, total


def _absorb(pairs: Array, sums: Array, least: int, parent: Array, best: Array, near: Array) -> None:
    """Rounds in which each region below ``least`` pixels joins the one beside it of the nearest mean.

    ``sums`` [regions, 1 + C]: pixels, and sums over them; ``pairs`` of regions that touch. ``parent`` holds the numbers
    of the regions, and gets the first one that each belongs to.
    """
    merged = True
    while merged:
        merged = False
        for r in range(parent.shape[0]):
            best[r] = -1
        for e in range(pairs.shape[0]):
            a, b = root(parent, pairs[e, 0]), root(parent, pairs[e, 1])
            if a != b:
                _offer(sums, a, b, least, best, near)
                _offer(sums, b, a, least, best, near)
        for r in range(parent.shape[0]):
            if best[r] >= 0:
                a, b = root(parent, r), root(parent, best[r])
                if a != b and sums[a, 0] < least:
                    low, high = min(a, b), max(a, b)
                    parent[high] = low
                    for c in range(sums.shape[1]):
                        sums[low, c] += sums[high, c]
                    merged = True
    for r in range(parent.shape[0]):
        parent[r] = root(parent, r)


CONNECT = (root, _same, _connect)
ABSORB = (root, _offer, _absorb)
