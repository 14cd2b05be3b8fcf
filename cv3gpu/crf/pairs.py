"""The exact Gaussian filter of the dense CRF: the sum over all pairs of points, tiles that are too far apart left out.

The points of an image are ordered by a tree that halves them along their widest axis, so that 64 consecutive ones, a
tile, are close together. Two tiles whose boxes are far apart share only pairs of tiny weight: for each tile of
queries those farthest away are left out, as long as all that is left out weighs no more than a tolerance.
What remains is a dense product for each pair of tiles whose matrix is computed on the way, and never stored.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np

from .. import _array, _check, _njit, _threads
from .._kernel import blocks, kernel

__all__ = ["AllPairs"]

Array = np.ndarray

TILE = 64  # points of a tile; the kernels' figure as well
LINES = TILE + 2  # of a tile's features in the kernels: with its middle, and what float32 lacks of that
BINS = 512  # of half the squared distance of two boxes, PER_UNIT of them for each unit
PER_UNIT = 8
TOLERANCE = {"float32": 1e-6, "float64": 1e-14}

# The most that a tile in each bin can weigh, rounded up, and a little more for the rounding of a sum of them.
_WEIGHT = TILE * np.exp(-np.arange(BINS) / PER_UNIT) * (1 + 1e-12)


class AllPairs:
    r"""The filter :math:`(K v)_i = \sum_j \exp(-|f_i - f_j|^2 / 2)\, v_j` over the points j of an image, i included.

    Parameters
    ----------
    features : array, [B, D, N], float32/float64
        D features, 1 to 8, of the N points of B images; dense by rows. The result's library and device are theirs.
    tolerance : float, optional
        How much weight may be left out for a point: 1e-6 for float32, 1e-14 for float64 unless given; 0 keeps all.
    dtype : {"float32", "float64"}, optional
        Of the values, and what is computed in; the features' unless given. Features of float64 with values of float32
        keep the digits of a difference of large features: a colour of 255 over a width of 3 is off by 4e-6 in float32.

    Notes
    -----
    Error: of the sum for point i, tiles of keys are left out only while :math:`\sum_j n_j \exp(-d_{ij}^2 / 2)` over
    them is at most the tolerance, n_j being the number of points of tile j and d_ij the distance of its bounding box
    from that of the tile of i, rounded down. No point of tile j is nearer to i than d_ij, so
    :math:`|\mathrm{error}_i| \le \mathrm{tolerance} \cdot \max_j |v_j|`, besides the rounding of what is summed. Each
    channel obeys the bound with its own maximum. The gradient leaves out the same tiles.

    Rounding: a weight in float32 is off by 4e-7 at most (the distance and its exponential). On tensor cores a product
    of weight and value is three TF32 products, off by 1.2e-6 of itself at most, and typically by 1e-7.

    Every result is the same from run to run, and on the CPU for any number of threads. A feature that is NaN makes
    every result of its image NaN. Cost: kept · N² pairs, each D + C multiply-adds and an exponential.
    """

    entries = 1  # what a reader of `spread` needs to know: row i of its result belongs to point i, with weight one
    offsets = None
    weights = None

    def __init__(self, features: Any, tolerance: float | None = None, dtype: str | None = None) -> None:
        _check.ndim("AllPairs", "features", features, 3, "[B, D, N]")
        _check.dtype("AllPairs", "features", features, tuple(TOLERANCE))
        _check.integer("AllPairs", "number of features", int(features.shape[1]), 1, 8)
        real = _check.choice("AllPairs", "dtype", dtype or _array.dtype_name(features), tuple(TOLERANCE))
        tolerance = TOLERANCE[real] if tolerance is None else tolerance
        images, axes, points = (int(n) for n in features.shape)
        self._shape = images, axes, points
        self._way = (_Kernels if _array.on_gpu(features) else _Loops)(features, self._shape, float(tolerance), real)

    @property
    def kept(self) -> float:
        """The share of all pairs of tiles that is computed."""
        images, _, points = self._shape
        pairs = images * blocks(points, TILE) ** 2
        return self._way.pairs / pairs if pairs else 1.0

    def spread(self, values: Any, transposed: bool = False) -> Any:
        """The filter of ``values`` [B * N, C], C a multiple of 4, of the same shape; K is symmetric."""
        return self._way.spread(values)

    def feature_vjp(self, values: Any, grad: Any) -> Any:
        """The gradient [B, D, N] of ``sum(grad * spread(values))`` with respect to the features."""
        return self._way.feature_vjp(values, grad)


# ---- GPU ------------------------------------------------------------------------------------------------

_AXES = (2, 3, 4, 5, 6, 8)  # numbers of features that there are kernels for
_WIDTHS = {1: (1, 2, 3, 4, 6, 8), 0: (2, 4, 8)}  # channels of a block by eights, with tensor cores and without
_WARPS = 8  # of a block of the kernels that take a warp for each tile


class _Kernels:
    """The filter by kernels."""

    def __init__(self, features: Any, shape: tuple[int, int, int], tolerance: float, real: str) -> None:
        self.shape = images, axes, points = shape
        self.tiles = blocks(points, TILE)
        self.all_tiles = images * self.tiles
        self.pairs = 0
        self.tensor = int(real == "float32" and _array.compute_capability(features) >= 80)
        self.dim = next(n for n in _AXES if n >= axes)
        self.constants = {"real": real, "MMA": self.tensor, "DIM": self.dim}
        if not self.all_tiles:
            return
        precise, features = _array.astype(features, "float64"), _array.astype(features, real)
        self.order = self._ordered(features)

        warps = (blocks(self.all_tiles, _WARPS),)
        pitch = 4 if self.dim <= 4 else 8
        self.packed = _array.empty(features, (self.all_tiles, LINES, pitch))
        box = _array.empty(features, (images, 2 * self.dim, self.tiles))
        sizes = (self.all_tiles, self.tiles)
        self._kernel("pairs_box")(warps, 256, precise, self.order, self.packed, box, *sizes, points, axes)
        cut = _array.empty(features, (self.all_tiles,), "int32")
        kept = _array.empty(features, (self.all_tiles,), "int64")
        weight = _array.from_host(_WEIGHT, features)
        self._kernel("pairs_cut")(warps, 256, box, weight, cut, kept, *sizes, tolerance)
        self.start = _array.zeros(features, (self.all_tiles + 1,), "int64")
        self.start[1:] = _array.module(features).cumsum(kept, 0)
        self.pairs = int(_array.to_host(self.start[-1:])[0])
        self.near = _array.empty(features, (self.pairs,), "int32")
        self._kernel("pairs_list")(warps, 256, box, cut, self.start, self.near, *sizes)
        self.rank = _array.argsort(-kept)  # blocks start in this order: none with much work comes last

    def _kernel(self, name: str, width: int = 0) -> Any:
        """A kernel; those that work on no channels take the variant that 21 labels need, which is compiled anyway."""
        return kernel("crf_pairs.cu", name, **self.constants, TILES=width or (3 if self.tensor else 4))

    def _ordered(self, features: Any) -> Any:
        """The rows [B * N] by the tree, level by level; None where an image is one tile."""
        images, axes, points = self.shape
        order = None
        for level in range((self.tiles - 1).bit_length()):
            key = _array.empty(features, (images * points,), "int64")
            parts = images << level
            threads = min(1024, max(32, 1 << (points >> level).bit_length() - 2))
            self._kernel("pairs_axis")((parts,), threads, features, order, key, points, self.tiles, axes, level)
            by_key = _array.argsort(key)
            order = by_key if order is None else order[by_key]
        return order

    def _packed(self, values: Any, pitch: int) -> Any:
        """Values [B * N, C] in the order of the tiles, zeros up to ``pitch`` channels."""
        out = _array.empty(values, (self.all_tiles * TILE, pitch))
        grid = (blocks(self.all_tiles * TILE * pitch * out.itemsize, 16 * 256),)
        sizes = (self.all_tiles, self.tiles, self.shape[2], values.shape[1], pitch)
        self._kernel("pairs_pack")(grid, 256, values, self.order, out, *sizes)
        return out

    def spread(self, values: Any) -> Any:
        channels = int(values.shape[1])
        result = _array.empty(values, values.shape)
        if not math.prod(result.shape):
            return result
        eights = blocks(channels, 8)
        chunks = blocks(eights, 8)
        width = next(n for n in _WIDTHS[self.tensor] if n >= blocks(eights, chunks))
        pitch = 8 * width * chunks
        packed = self._packed(values, pitch)
        line = 8 * width + (0 if width % 2 else 8)  # a point's values and padding
        shared = 2 * (TILE * line + LINES * self.packed.shape[2]) * 4 if self.tensor else 0
        given = (self.packed, packed, self.order, self.start, self.near, self.rank)
        sizes = (self.shape[2], self.tiles, channels, pitch)
        self._kernel("pairs", width)((self.all_tiles, chunks), 128, *given, result, *sizes, shared_mem=shared)
        return result

    def feature_vjp(self, values: Any, grad: Any) -> Any:
        images, axes, points = self.shape
        channels = int(values.shape[1])
        if not images * points * channels:
            return _array.zeros(values, self.shape)
        result = _array.empty(values, self.shape)
        both = self._packed(values, channels), self._packed(grad, channels)
        given = (self.packed, *both, self.order, self.start, self.near, self.rank)
        sizes = (points, self.tiles, axes, channels)
        for first in range(0, channels, 128 // result.itemsize):
            self._kernel("pairs_feature_vjp")((self.all_tiles,), 256, *given, result, *sizes, first)
        return result


# ---- CPU ------------------------------------------------------------------------------------------------

_AT_ONCE = 16  # tiles of keys whose weights are computed before they are multiplied: half of a second-level cache
_WIDEST = 64  # channels of a product: beyond that OpenBLAS starts threads of its own, for 64 x 64 x 64 already
_PIECE = 16  # tiles of queries that a thread takes at a time

# 2^x in float32 and float64: factor from the squared distance to x, lowest x, what added makes the lowest bits an
# integer, and the polynomial for 2^f, |f| <= 1/2, of the least relative error (2e-9, 6e-18) of those that are 1 at 0.
_EXP2 = {
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
_SINGLE = len(_EXP2["float32"])  # how the loops tell the two apart


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


_run_tree = _njit.compiled(_select, _tree)
_run_pack = _njit.compiled(_pack)
_run_cut = _njit.compiled(_bins, _cut)
_run_list = _njit.compiled(_bins, _list)
_run_weights = _njit.compiled(_squared, _exp2, _scale, _weights)
_run_add = _njit.compiled(_add)
_run_pull = _njit.compiled(_pull)


class _Loops:
    """The filter by compiled loops for the weights and BLAS for the products; cores take tiles of queries."""

    def __init__(self, features: Any, shape: tuple[int, int, int], tolerance: float, real: str) -> None:
        self.shape = images, axes, points = shape
        self.like = features
        self.tiles = tiles = blocks(points, TILE)
        feature = _array.as_numpy(features)
        self.real = np.dtype(real)
        self.order = np.empty((images, points), np.int64)
        self.packed = np.empty((images * tiles, 5 if axes <= 5 else 8, TILE), self.real)
        self.middle = np.zeros(self.packed.shape[:2])
        self.start = np.zeros(images * tiles + 1, np.int64)
        self.near = np.empty(0, np.int32)
        self.pairs = 0
        if not points * images:
            return
        low, high = np.empty((2, images, axes, tiles), feature.dtype)

        def arrange(image: int) -> None:
            point = np.ascontiguousarray(feature[image].T)
            order = self.order[image]
            order[:] = np.arange(points)
            _run_tree(point, order, (tiles - 1).bit_length())
            own = slice(image * tiles, (image + 1) * tiles)
            _run_pack(point, order, self.packed[own], self.middle[own], low[image], high[image])

        _threads.each(arrange, [(image,) for image in range(images)])
        cut = np.empty((images, tiles), np.int32)
        kept = np.empty((images, tiles), np.int64)
        factor = feature.dtype.type(0.5 * PER_UNIT * (1 - 16 * float(np.finfo(feature.dtype).eps)))

        def count(image: int, first: int, last: int) -> None:
            place, histogram = np.empty(tiles, feature.dtype), np.empty(BINS, np.int64)
            scratch = (place, histogram, cut[image], kept[image])
            _run_cut(low[image], high[image], first, last, factor, _WEIGHT, tolerance, *scratch)

        def collect(image: int, first: int, last: int) -> None:
            start = self.start[image * tiles :]
            place = np.empty(tiles, feature.dtype)
            _run_list(low[image], high[image], first, last, factor, cut[image], start, place, self.near)

        _threads.each(count, self._pieces())
        np.cumsum(kept.ravel(), out=self.start[1:])
        self.pairs = int(self.start[-1])
        self.near = np.empty(self.pairs, np.int32)
        _threads.each(collect, self._pieces())

    def _pieces(self) -> list[tuple[int, int, int]]:
        """(image, first tile, last tile) of what a thread takes at a time."""
        starts = range(0, self.tiles, _PIECE)
        return [(image, i, min(i + _PIECE, self.tiles)) for image in range(self.shape[0]) for i in starts]

    def _sorted(self, *parts: Array) -> Array:
        """Values [B * N, C] side by side, in the order of the tiles: [B * T, 64 * C], zeros past the end."""
        images, _, points = self.shape
        channels = [part.shape[1] for part in parts]
        out = np.zeros((images, self.tiles * TILE, sum(channels)), self.real)
        for image in range(images):
            at = 0
            for part, width in zip(parts, channels, strict=True):
                rows = part[image * points : (image + 1) * points]
                out[image, :points, at : at + width] = rows[self.order[image]]
                at += width
        return out.reshape(images * self.tiles, -1)

    def _walk(self, image: int, tile: int, scratch: _Scratch, values: Array) -> Any:
        """For each few of the tiles near a tile: how many, and where the list has them; the scratch holds the rest."""
        query = image * self.tiles + tile
        for first in range(self.start[query], self.start[query + 1], _AT_ONCE):
            n = min(_AT_ONCE, int(self.start[query + 1]) - first)
            where = (self.packed, self.middle, query, image * self.tiles, self.near, first, n)
            _run_weights(*where, values, scratch.exp2, *scratch.arrays)
            yield n, where

    def spread(self, values: Any) -> Any:
        images, _, points = self.shape
        given = _array.as_numpy(values)
        channels = given.shape[1]
        result = np.empty(given.shape, self.real)
        if not result.size:
            return _array.from_numpy(result, self.like)
        by_tile = self._sorted(given)
        columns = _columns(channels)
        totals = [np.zeros((images * self.tiles, TILE * width), self.real) for _, width in columns]

        def run(image: int, first_tile: int, last_tile: int) -> None:
            scratch = _Scratch(self.real, channels)
            parts = [np.empty((_AT_ONCE, TILE * width), self.real) for _, width in columns]
            for tile in range(first_tile, last_tile):
                for n, _ in self._walk(image, tile, scratch, by_tile):
                    weight = scratch.weight[:n].transpose(0, 2, 1)
                    for (c, width), part, total in zip(columns, parts, totals, strict=True):
                        out = part.reshape(_AT_ONCE, TILE, width)[:n]
                        np.matmul(weight, scratch.values[:n, :, c : c + width], out=out)
                        _run_add(part, n, total[image * self.tiles + tile])

        _threads.each(run, self._pieces())
        for (c, width), total in zip(columns, totals, strict=True):
            by_image = total.reshape(images, -1, width)
            for image in range(images):
                rows = result[image * points : (image + 1) * points]
                rows[self.order[image], c : c + width] = by_image[image, :points]
        return _array.from_numpy(result, self.like)

    def feature_vjp(self, values: Any, grad: Any) -> Any:
        images, axes, points = self.shape
        given, back = _array.as_numpy(values), _array.as_numpy(grad)
        channels = given.shape[1]
        result = np.zeros(self.shape, self.real)
        if not result.size or not channels:
            return _array.from_numpy(result, self.like)
        by_tile = self._sorted(given, back)
        turned = self._sorted(back, given).reshape(-1, TILE, 2 * channels)
        pull = np.zeros((images * self.tiles, axes, TILE), self.real)

        def run(image: int, first_tile: int, last_tile: int) -> None:
            scratch = _Scratch(self.real, 2 * channels)
            product, part = np.empty((2, _AT_ONCE, TILE, TILE), self.real)
            for tile in range(first_tile, last_tile):
                query = image * self.tiles + tile
                for n, where in self._walk(image, tile, scratch, by_tile):
                    for c, width in _columns(2 * channels):
                        columns = slice(c, c + width)
                        out = part if c else product
                        np.matmul(scratch.values[:n, :, columns], turned[query, :, columns].T, out=out[:n])
                        if c:
                            np.add(product[:n], part[:n], out=product[:n])
                    _run_pull(*where, scratch.weight, product, pull[query])

        _threads.each(run, self._pieces())
        by_image = pull.reshape(images, self.tiles, axes, TILE).transpose(0, 2, 1, 3).reshape(images, axes, -1)
        for image in range(images):
            result[image][:, self.order[image]] = by_image[image, :, :points]
        return _array.from_numpy(result, self.like)


class _Scratch:
    """What a thread needs: the weights of a few tiles, as floats and as bits, and the values of their points."""

    def __init__(self, real: np.dtype[Any], channels: int) -> None:
        bits = np.dtype(f"int{8 * real.itemsize}")
        weight, shifted = np.empty((_AT_ONCE, TILE * TILE), real), np.empty(TILE * TILE, real)
        values = np.empty((_AT_ONCE, TILE * channels), real)
        self.exp2 = _exp2_constants(real.name)
        self.arrays = (weight, weight.view(bits), shifted, shifted.view(bits), values)
        self.weight = weight.reshape(_AT_ONCE, TILE, TILE)
        self.values = values.reshape(_AT_ONCE, TILE, channels)


@functools.cache
def _exp2_constants(real: str) -> Array:
    return np.array(_EXP2[real], real)


def _columns(channels: int) -> list[tuple[int, int]]:
    """(first, width) of the parts in which channels are multiplied."""
    width = 4 * blocks(blocks(channels, blocks(channels, _WIDEST)), 4)
    return [(c, min(width, channels - c)) for c in range(0, channels, width)]
