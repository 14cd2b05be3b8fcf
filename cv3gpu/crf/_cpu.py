"""The CPU half of the dense CRF: the permutohedral lattice and the mean-field update, on NumPy rows."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from .._njit import compiled
from .._shared_loops import MULTIPLY
from .._threads import cores, each
from . import _loops, lattice
from .rows import Message

__all__ = ["Lattice", "from_rows", "to_rows", "update"]

Array = np.ndarray[Any, Any]

_PIECE = 4096  # points that are worth a thread
_NONE = np.empty(0, np.float32)


def _ranges(n: int, least: int = _PIECE) -> list[tuple[int, int]]:
    """``n`` things in equal parts, one a core, cut where chunks end."""
    parts = max(1, min(cores(), n // least))
    edges = [min(n, -(-n * k // parts // _loops.CHUNK) * _loops.CHUNK) for k in range(parts)] + [n]
    return list(itertools.pairwise(edges))


def _images(batch: int, n: int) -> list[tuple[int, int, int]]:
    """The points of each image in parts: image, first, last."""
    least = _PIECE if batch < 2 * cores() else n
    return [(b, *part) for b in range(batch) for part in _ranges(n, max(1, least))]


# ---- layouts ----------------------------------------------------------------------------------------------


def to_rows(x: Array, width: int, fill: float = 0.0) -> Array:
    """[B, C, N] as rows [B * N, width]; the channels past C hold ``fill``."""
    batch, _, n = x.shape
    rows = np.empty((batch * n, width), x.dtype)
    run = compiled(_loops._to_rows)
    each(lambda *part: run(x, *part, fill, rows), _images(batch, n))
    return rows


def from_rows(rows: Array, shape: Sequence[int]) -> Array:
    """Rows as an array of ``shape`` (B, C, N); the channels past C are dropped."""
    out = np.empty(tuple(shape), rows.dtype)
    run = compiled(_loops._from_rows)
    each(lambda *part: run(rows, *part, out), _images(out.shape[0], out.shape[2]))
    return out


# ---- the lattice ------------------------------------------------------------------------------------------


class _Numbered(NamedTuple):
    """Keys, each once, in the order in which they were seen first."""

    keys: Array
    hashes: Array
    table: Array
    parts: int


def _numbered(keys: Array, hashes: Array, distinct: int) -> tuple[_Numbered, Array]:
    """The different rows among ``keys``, about ``distinct`` of them, and each row's number."""
    if len(keys) >= 2**31:
        raise ValueError(f"lattice: corners of simplices must be fewer than 2^31, got {len(keys)}; filter fewer points")
    first = np.empty(len(keys), np.uint32)
    find = compiled(*_loops.FIRST_ROWS)
    parts = 1 << (cores() - 1).bit_length() if len(keys) >= _PIECE else 1
    size = 1 << max(4, (2 * distinct // parts).bit_length())
    while True:
        table = np.full(parts * size, -1, np.int64)
        found = each(find, [(keys, hashes, table, part, parts, first) for part in range(parts)])
        if min(found) >= 0:
            break
        size *= 2
    rank, rows = np.empty(len(keys), np.int32), np.empty(len(keys), np.int32)
    rows = rows[: compiled(_loops._ranked)(first, rank, rows)]
    number = np.empty(len(keys), np.int32)
    renumber, relabel = compiled(_loops._renumber), compiled(_loops._renumber_table)
    each(lambda low, high: renumber(first, rank, low, high, number), _ranges(len(keys)))
    each(lambda low, high: relabel(table, rank, low, high), _ranges(len(table)))
    each_key, each_hash = np.empty((len(rows), keys.shape[1]), keys.dtype), np.empty(len(rows), hashes.dtype)
    take = compiled(_loops._take)
    each(lambda low, high: take(keys, hashes, rows, low, high, each_key, each_hash), _ranges(len(rows)))
    return _Numbered(each_key, each_hash, table, parts), number


class Lattice:
    """The permutohedral lattice around the points of some images.

    Vertices are numbered in the order in which the points, one after another, first touch them.
    """

    def __init__(self, features: Array, blurs: int = 1, dilate: bool = False) -> None:
        batch, d, n = features.shape
        self.features, self.blurs, self.entries = features, blurs, d + 1
        stretch, self.alpha = lattice.constants(d, blurs, dilate)
        stretch = float(features.dtype.type(stretch))
        self.scale = np.array([stretch / math.sqrt((j + 1) * (j + 2)) for j in range(d)], features.dtype)
        points = batch * n
        keys, hashes = np.empty((points, d + 2), np.int32), np.empty(points, np.int64)
        self.bary = np.empty((points, d + 1), features.dtype)
        locate = compiled(_loops._locate)

        def find(image: int, first: int, last: int) -> None:
            space = np.empty((4 * (d + 1) + 2, _loops.CHUNK), features.dtype)
            locate(features, image, first, last, self.scale, keys, hashes, self.bary, space)

        each(find, _images(batch, n))
        vertices = self._number(keys, hashes, dilate)
        self._connect(vertices)
        self._spare: list[Array] = []  # rows of vertices between two axes; who filters takes them away meanwhile
        self._folded_splat: tuple[Array | None, Array] | None = None
        self._folded_gather: tuple[Array | None, Array] | None = None

    def _number(self, keys: Array, hashes: Array, dilate: bool) -> _Numbered:
        """Numbers simplices and vertices: ``number`` of each point, ``corner`` [simplices, d + 1]."""
        d1 = self.entries
        simplices, self.number = _numbered(keys, hashes, len(keys) // 2)
        self.simplices, count = simplices.keys, len(simplices.keys)

        def expanded(function: Any, found: _Numbered, times: int) -> tuple[Array, Array]:
            more = np.empty((len(found.keys) * times, d1), np.int32), np.empty(len(found.keys) * times, np.int64)
            run = compiled(function)
            each(lambda low, high: run(found.keys, found.hashes, low, high, *more), _ranges(len(found.keys)))
            return more

        keys, hashes = expanded(_loops._corner_keys, simplices, d1)
        images, d, points = self.features.shape
        origin = lattice.padding(images, d, points, self.blurs) if not dilate else keys[:0]
        if len(origin):
            keys = np.concatenate([keys, origin])
            hashes = np.concatenate([hashes, (origin * _loops.HASH[:d1]).sum(1)])
        vertices, corner = _numbered(keys, hashes, 2 * count)
        self.corner = corner[: count * d1].reshape(count, d1)
        if dilate:
            ring = expanded(_loops._ring_keys, vertices, 2 * d1)
            both = [np.concatenate(pair) for pair in zip(vertices[:2], ring, strict=True)]
            vertices, _ = _numbered(both[0], both[1], 8 * len(vertices.keys))
        self.n_vertices = len(vertices.keys)
        return vertices

    def _connect(self, vertices: _Numbered) -> None:
        """Neighbours of the vertices, and for each vertex the points around it."""
        m, d1 = self.n_vertices, self.entries
        self.neighbor = np.full((d1, 2, m), m, np.int32)
        find = compiled(*_loops.NEIGHBORS)
        marks = np.zeros(1 << max(4, (8 * m).bit_length()) >> 3, np.uint8)
        compiled(*_loops.MARK)(vertices.hashes, marks)
        each(lambda low, high: find(*vertices, marks, low, high, self.neighbor), _ranges(m))
        points = self.number.shape[0]
        self.vertex = np.empty(points * d1, np.int32)
        corners = compiled(_loops._corners_of)
        each(lambda low, high: corners(self.number, self.corner, low, high, self.vertex), _ranges(points))
        self.start = np.zeros(m + 1, np.int64)
        compiled(_loops._count)(self.vertex, self.start)
        self.point = np.empty(points * d1, np.int32 if points < 2**31 else np.int64)
        self.entry = np.empty(points * d1, np.int32 if points * d1 < 2**31 else np.int64)
        cursor = np.empty(m, np.int64)
        transpose = compiled(_loops._transpose)
        self.bands = self._bands()
        given = self.vertex, self.start, cursor
        each(lambda low, high: transpose(*given, low, high, d1, self.entry, self.point), self.bands)

    def _bands(self) -> list[tuple[int, int]]:
        """The vertices in parts of equal work."""
        parts = cores() if self.number.shape[0] >= _PIECE else 1
        work = self.start + np.arange(self.start.shape[0])
        edges = np.searchsorted(work, np.linspace(0, work[-1], parts + 1)[1:-1]).tolist()
        return list(itertools.pairwise([0, *edges, self.n_vertices]))

    def _splat_weights(self, scale: Array | None) -> Array:
        """The barycentric coordinates times the points' scale, vertex after vertex."""
        kept = self._folded_splat
        if kept is None or kept[0] is not scale:
            weight = np.empty(self.entry.shape, self.bary.dtype)
            run, factors = compiled(_loops._reordered), _NONE if scale is None else scale
            bary = self.bary.reshape(-1)
            each(lambda low, high: run(bary, self.entry, self.point, factors, low, high, weight),
                 _ranges(weight.shape[0]))  # fmt: skip
            self._folded_splat = kept = scale, weight
        return kept[1]

    def gather_weights(self, scale: Array | None) -> Array:
        """The barycentric coordinates times alpha and the points' scale, point after point."""
        kept = self._folded_gather
        if kept is None or kept[0] is not scale:
            weight, factors = np.empty_like(self.bary), _NONE if scale is None else scale
            run = compiled(_loops._weighted)
            each(lambda low, high: run(self.bary, self.alpha, factors, low, high, weight), _ranges(len(weight)))
            self._folded_gather = kept = scale, weight.reshape(-1)
        return kept[1]

    def total(self) -> Array:
        """K 1, for each point."""
        z = np.zeros(self.n_vertices + 1, self.bary.dtype)
        other = np.zeros_like(z)
        compiled(_loops._splat_ones)(self.vertex, self.bary.reshape(-1), z)
        for axis in [*range(self.entries)] * self.blurs:
            compiled(_loops._blur_numbers)(z, self.neighbor, axis, other)
            z, other = other, z
        out, weight = np.empty(self.number.shape, z.dtype), self.gather_weights(None)
        run = compiled(_loops._gather_numbers)
        each(lambda low, high: run(z, self.vertex, weight, self.entries, low, high, out), _ranges(out.shape[0]))
        return out

    def spread(self, values: Array, scale: Array | None = None, transposed: bool = False) -> Array:
        """Rows of points to rows of vertices [M + 1, W], blurred; the last row is zero."""
        shape = self.n_vertices + 1, values.shape[1]
        try:
            spare = self._spare.pop()
        except IndexError:
            spare = np.empty(shape, values.dtype)
        if spare.shape != shape:
            spare = np.empty(shape, values.dtype)
        z = np.empty(shape, values.dtype)
        axes = [*range(self.entries)][:: -1 if transposed else 1] * self.blurs
        now, after = (spare, z) if len(axes) % 2 else (z, spare)  # so that the last one is in z
        z[-1] = spare[-1] = 0
        weight = self._splat_weights(scale)
        sums, blur = compiled(*MULTIPLY), compiled(*_loops.BLUR)
        each(lambda low, high: sums(values, self.start, self.point, weight, low, high, now), self.bands)
        for axis in axes:
            each(blur, [(now, self.neighbor, axis, *part, after) for part in _ranges(self.n_vertices)])
            now, after = after, now
        self._spare.append(spare)
        return z

    def gather(self, z: Array, scale: Array | None = None) -> Array:
        """Rows of vertices to rows of points."""
        out = np.empty((self.number.shape[0], z.shape[1]), z.dtype)
        weight, run = self.gather_weights(scale), compiled(*_loops.GATHER)
        each(lambda low, high: run(z, self.vertex, weight, self.entries, low, high, out), _ranges(out.shape[0]))
        return out

    def feature_vjp(self, z: Array, z_t: Array, values: Array, grad: Array) -> Array:
        """The gradient of sum(grad * K values) with respect to the features, by the barycentric coordinates.

        z is what spread makes of values, z_t what its transpose makes of grad.
        """
        out = np.empty_like(self.features)
        run = compiled(*_loops.FEATURE_VJP)

        def part(image: int, first: int, last: int) -> None:
            space = np.empty(2 * self.entries)
            run(z, z_t, values, grad, self.vertex, self.number, self.simplices, self.scale, self.alpha, image, first,
                last, out, space)  # fmt: skip

        each(part, _images(out.shape[0], out.shape[2]))
        return out


# ---- mean field -------------------------------------------------------------------------------------------


def _message(message: Message | None, unary: Array) -> tuple[Any, ...]:
    """A message as the update takes it: z, index, weight, entries, mu."""
    real = unary.dtype
    if message is None:
        return np.zeros((1, 1), real), np.zeros(1, np.int32), np.zeros(1, real), 0, np.zeros((1, 1), real)
    z, kernel, scale, mu = message
    mu = mu.astype(real, copy=False)
    mu = np.ascontiguousarray(mu.T) if mu.ndim == 2 else mu[None]
    if kernel.entries > 1:
        return z, kernel.vertex, kernel.gather_weights(scale), kernel.entries, mu
    index = np.arange(len(unary), dtype=np.int32)
    return z, index, np.ones(len(unary), real) if scale is None else scale, 1, mu


def update(
    unary: Array, messages: Sequence[Message], labels: int, softmax: bool = True, out: Array | None = None
) -> Array:
    """Logits -unary - sum of mu times message, and their softmax over the labels; without it, their negatives."""
    out = np.empty_like(unary) if out is None else out
    pair = [*messages, None, None]
    (points, width), real = unary.shape, unary.dtype
    run, first_message, second_message = compiled(*_loops.UPDATE), _message(pair[0], unary), _message(pair[1], unary)
    mask, ones = np.zeros((1, width), real), np.ones((1, width), real)
    mask[:, labels:] = -np.inf if softmax else 0
    count = np.arange(width)

    def part(first: int, last: int) -> None:
        x, y = np.empty((2, 1, width), real)
        run(unary, mask, *first_message, *second_message, labels, softmax, count, ones, first, last, out, x, y)

    each(part, _ranges(points))
    return out
