"""The GPU half of the dense CRF: the permutohedral lattice and the mean-field update, on rows.

The kernels are in ``kernels/crf_lattice.cu`` (what a lattice consists of), ``crf_splat.cu`` and ``crf_rows.cu``
(filtering with it) and ``crf_update.cu``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .. import _array
from .._kernel import MAX_GRID_YZ, blocks, kernel
from . import lattice
from .rows import Message

__all__ = ["Lattice", "from_rows", "to_rows", "update"]

_THREADS = 128  # of a block in crf_lattice.cu, crf_update.cu and crf_feature_vjp
_BLOCK = 256  # and in crf_rows.cu and crf_splat.cu
_CHUNK_SHIFT = 6  # as SHIFT in crf_lattice.cu
_VJP_LANES = 8  # as LANES in crf_splat.cu
_IDS = 2**31  # ids are 31 bits of a word
_HASH_MASK = 2**64 - 1  # fewer bits make keys collide
_PAIR_BYTES = 8 << 20  # of all vertices' rows: below it two axes are blurred at once, as a launch costs more
_SHARE = 3  # sources of a vertex that are worth a thread
_GROUPS = (1, 2, 4, 8, 16, 32)
_PER = (1, 2, 3, 4, 5, 8)


def _lanes(rows: int, width: int) -> tuple[tuple[int], tuple[int, int]]:
    """Grid and block of a thread for each four channels of each row."""
    vectors = width // 4
    per_block = max(1, _BLOCK // vectors)
    return (blocks(rows, per_block),), (vectors, per_block)


def _total(count: Any, n: int) -> list[int]:
    """The last ``n`` numbers of a vector: the host waits for them."""
    return [int(x) for x in _array.to_host(count[-n:])]


# ---- layouts --------------------------------------------------------------------------------------------


def _tiles(images: int, points: int, width: int) -> tuple[int, int, int]:
    return blocks(points, 32), blocks(width, 32), min(images, MAX_GRID_YZ)


def to_rows(x: Any, width: int, fill: float = 0.0) -> Any:
    """[B, C, N] as rows [B * N, width]; the channels past C hold ``fill``."""
    images, channels, points = (int(n) for n in x.shape)
    rows = _array.empty(x, (images * points, width))
    launch = kernel("crf_rows.cu", "crf_to_rows", real=_array.dtype_name(x))
    launch(_tiles(images, points, width), (32, 8), x, rows, images, points, channels, width, fill)
    return rows


def from_rows(rows: Any, shape: Sequence[int]) -> Any:
    """Rows as an array of ``shape`` (B, C, N); the channels past C are dropped."""
    images, channels, points = (int(n) for n in shape)
    out = _array.empty(rows, (images, channels, points))
    launch = kernel("crf_rows.cu", "crf_from_rows", real=_array.dtype_name(rows))
    launch(_tiles(images, points, channels), (32, 8), rows, out, images, points, channels, int(rows.shape[1]))
    return out


# ---- the lattice ----------------------------------------------------------------------------------------


def _capacity(keys: int) -> int:
    """Words of a hash table that is at most two thirds full."""
    return 1 << max(4, (3 * keys // 2).bit_length())


class Lattice:
    """The permutohedral lattice around the points of some images.

    Vertices are numbered in the order in which the points, one after another, first touch them. Building it, the host
    waits twice for sizes (three times where it is dilated). The lattice keeps the memory of its last filtering, so one
    stream at a time may use it.
    """

    def __init__(self, features: Any, blurs: int = 1, dilate: bool = False) -> None:
        images, d, points = (int(n) for n in features.shape)
        self.entries, self.blurs = d + 1, blurs
        self.stretch, self.alpha = lattice.constants(d, blurs, dilate)
        self._real = _array.dtype_name(features)
        self._shape = images, d, points
        self._like = _array.empty(features, (0,))
        self._scratch: tuple[int, Any, Any] = 0, None, None
        self._total = images * points
        self.n_vertices = self._covered = self._chunks = self._sources = 0
        self.simplex = self.vertex = self.weight = self._ranks = None
        self._check_ids((self._total + (self._total >> _CHUNK_SHIFT) + 1) * (d + 1), "vertices around all points")
        if self._total:
            self._build(_array.contiguous(features), dilate)

    # ---- construction -----------------------------------------------------------------------------------

    def _ints(self, *shape: int, dtype: str = "int32") -> Any:
        return _array.empty(self._like, shape, dtype)

    def _run(self, name: str, n: int, *args: Any) -> None:
        """A kernel of crf_lattice.cu for n threads."""
        kernel("crf_lattice.cu", name, real=self._real)((blocks(n, _THREADS),), _THREADS, *args)

    def _firsts(self, table: Any, slot: Any, n: int, extra: Any = None) -> tuple[Any, Any]:
        """The first id with each id's key, and how many first ids there are up to each id (then plus ``extra``)."""
        first, flag = self._ints(n), self._ints(n + 1)
        self._run("crf_first", n + 1, table, slot, first, flag, extra, n)
        return first, flag.cumsum(0, dtype=flag.dtype)

    @staticmethod
    def _check_ids(ids: int, what: str) -> None:
        if ids >= _IDS:
            raise ValueError(f"lattice: {what} must be fewer than 2^31, got {ids}; filter fewer points at a time")

    def _build(self, features: Any, dilate: bool) -> None:
        (_, d, points), total, entries = self._shape, self._total, self.entries
        record, self.weight = self._ints(total, entries), _array.empty(self._like, (total, entries))
        size = _capacity(total)
        table, slot = self._ints(size, dtype="int64"), self._ints(total)
        self._run("crf_embed", total, features, record, self.weight, table, total, points, size, d, self.stretch)
        self._run("crf_insert_points", total, record, table, slot, total, points, size, _HASH_MASK, d)
        first, count = self._firsts(table, slot, total)
        self.simplex = self._ints(total)
        self._run("crf_group", total, first, count, self.simplex, total)
        order = _array.argsort(self.simplex)
        (simplices,) = _total(count, 1)

        chunks = simplices + ((total - 1) >> _CHUNK_SHIFT)
        corners = simplices * entries
        self._point, self._ranks = self._ints(total), self._ints(simplices)
        head, start, chunk = self._ints(simplices), self._ints(simplices + 1), self._ints(chunks)
        of_chunk, longer = self._ints(chunks * entries), self._ints(1)
        size = _capacity(corners)
        table, slot = self._ints(size, dtype="int64"), self._ints(corners)
        self._run("crf_runs", total, order, self.simplex, record, self._point, head, start, self._ranks, chunk,
                  of_chunk, longer, table, total, size, d)  # fmt: skip
        partial, span = self._ints(chunks), self._ints(chunks, 2)
        self._run("crf_insert_vertices", corners, record, head, start, table, slot, partial, span, longer, corners,
                  points, size, _HASH_MASK, d)  # fmt: skip
        first, count = self._firsts(table, slot, corners, longer)
        self._covered, both = _total(count, 2)
        self._chunks, self._span = both - self._covered, span

        self.vertex = self._ints(simplices, entries)
        vertices = self._ints(self._covered, entries)
        self._run("crf_number_vertices", corners, record, head, start, slot, first, count, table, self.vertex, of_chunk,
                  vertices, corners, points, d)  # fmt: skip
        self.n_vertices = self._covered
        if dilate:
            vertices, table, size = self._extended(vertices, 1 + 2 * entries)
        elif len(origin := lattice.padding(*self._shape, self.blurs)):
            both = self._ints(self._covered + len(origin), entries)
            both[: self._covered], both[self._covered :] = vertices, _array.from_host(origin, both)
            vertices, table, size = self._extended(both, 1)
        self._sources = chunks * entries
        self._start, self._source = self._ints(self._covered + 1), self._ints(self._sources)
        self._share = _array.empty(self._like, (self._sources,))
        neighbors = self._ints(entries, 2, self.n_vertices)
        self._run("crf_sources", max(self._sources, self.n_vertices), _array.argsort(of_chunk), of_chunk, chunk,
                  partial, self._point, self.weight, self._start, self._source, self._share, neighbors, self._sources,
                  self._covered, self.n_vertices, d)  # fmt: skip
        self._run("crf_neighbors", self.n_vertices * entries, vertices, table, neighbors, self.n_vertices, size,
                  _HASH_MASK, d)  # fmt: skip
        self._neighbors = [neighbors[axis] for axis in range(entries)]

    def _extended(self, vertices: Any, times: int) -> tuple[Any, Any, int]:
        """Vertices, and with ``times`` all their neighbours, each once, with their table and its size."""
        d, covered = self._shape[1], len(vertices)
        candidates = covered * times
        self._check_ids(candidates, "vertices and their neighbours")
        size = _capacity(candidates)
        table, slot = self._ints(size, dtype="int64"), self._ints(candidates)
        table[...] = -1
        self._run("crf_insert_ring", candidates, vertices, table, slot, candidates, covered, size, _HASH_MASK, d)
        first, count = self._firsts(table, slot, candidates)
        (self.n_vertices,) = _total(count, 1)
        every = self._ints(self.n_vertices, self.entries)
        self._run("crf_number_ring", candidates, vertices, slot, first, count, table, every, candidates, covered, d)
        return every, table, size

    # ---- filtering --------------------------------------------------------------------------------------

    def _space(self, width: int) -> tuple[Any, Any]:
        """Memory for the chunks' sums, and for the vertices between two axes."""
        if self._scratch[0] != width:
            partial = _array.empty(self._like, (self._chunks * self.entries, width))
            self._scratch = width, partial, _array.empty(self._like, (self.n_vertices, width))
        return self._scratch[1:]

    def spread(self, values: Any, scale: Any = None, transposed: bool = False) -> Any:
        """Rows of points, each times its scale, to rows of vertices [n_vertices, W], blurred.

        ``transposed`` blurs along the axes in reverse order.
        """
        width = int(values.shape[1])
        z = _array.empty(values, (self.n_vertices, width))
        if not self.n_vertices:
            return z
        partial, other = self._space(width)
        grid, block = _lanes(self._chunks, width)
        splat = kernel("crf_splat.cu", "crf_splat_chunks", real=self._real, ENTRIES=self.entries)
        splat(grid, block, values, scale, self._span, self._point, self.weight, partial, self._chunks, width)

        axes = range(self.entries)
        steps: list[Any] = [self._neighbors[axis] for axis in (reversed(axes) if transposed else axes)] * self.blurs
        if self.n_vertices * width * z.itemsize <= _PAIR_BYTES:
            steps = [steps[k : k + 2] for k in range(0, len(steps), 2)]
        else:
            steps = [[step] for step in steps]
        now, after = (other, z) if len(steps) % 2 else (z, other)  # so that the last one is in z
        vectors = width // 4
        sharing = max(1, min(_BLOCK // vectors, round(self._sources / (_SHARE * self._covered))))
        deep = min(64, max(1, _BLOCK // (vectors * sharing)))
        kernel("crf_rows.cu", "crf_splat_vertices", real=self._real)(
            (blocks(self.n_vertices, deep),), (vectors, sharing, deep), values, scale, partial, self._start,
            self._source, self._share, now, self._covered, self.n_vertices, width,
        )  # fmt: skip
        grid, block = _lanes(self.n_vertices, width)
        for step in steps:
            blur = kernel("crf_rows.cu", "crf_blur_pair" if len(step) == 2 else "crf_blur", real=self._real)
            blur(grid, block, now, *step, after, self.n_vertices, width)
            now, after = after, now
        return z

    def gather(self, z: Any, scale: Any = None) -> Any:
        """Rows of vertices to rows of points, each times alpha and its scale."""
        width = int(z.shape[1])
        out = _array.empty(z, (self._total, width))
        grid, block = _lanes(self._total, width)
        kernel("crf_rows.cu", "crf_gather", real=self._real)(
            grid, block, z, self.simplex, self.vertex, self.weight, scale, out, self._total, width, self.entries,
            self.alpha,
        )  # fmt: skip
        return out

    def feature_vjp(self, z: Any, z_t: Any, values: Any, grad: Any) -> Any:
        """The gradient of sum(grad * K values) with respect to the features [B, D, N].

        ``z`` is ``spread(values)`` and ``z_t`` is ``spread(grad, transposed=True)``.
        """
        images, d, points = self._shape
        out = _array.empty(values, (images, d, points))
        launch = kernel("crf_splat.cu", "crf_feature_vjp", real=self._real, ENTRIES=self.entries)
        grid = (blocks(self._total * _VJP_LANES, _THREADS),)
        launch(grid, _THREADS, z, z_t, values, grad, self.simplex, self.vertex, self._ranks, out, self._total, points,
               int(values.shape[1]), self.alpha, self.stretch)  # fmt: skip
        return out


# ---- mean field -----------------------------------------------------------------------------------------


def _shape_of_group(width: int) -> tuple[int, int]:
    """Lanes of a point and vectors of a lane: no lane idle if possible, then few lanes with up to four vectors each."""
    vectors = width // 4
    fitting = [(group, per) for group in _GROUPS for per in _PER if group * per >= vectors]
    return min(fitting, key=lambda s: (s[0] * s[1], s[1] > 4, s[0] == 1, -s[1]))


def _points_of_group(per: int, itemsize: int, matrix: bool) -> int:
    """As POINTS in crf_update.cu."""
    return max(1, min(4, 64 // (per * itemsize))) if matrix else 1


def _message(message: Message | None) -> tuple[list[Any], list[Any]]:
    """A message as the kernel takes it: arrays, then entries, whether mu is a matrix, alpha."""
    if message is None:
        return [None] * 6, [0, 0, 0.0]
    z, lattice, scale, mu = message
    matrix = len(mu.shape) == 2
    if lattice.entries == 1:
        return [z, scale, mu, None, None, None], [1, matrix, 1.0]
    arrays = [z, scale, mu, lattice.simplex, lattice.vertex, lattice.weight]
    return arrays, [lattice.entries, matrix, lattice.alpha]


def update(unary: Any, messages: Sequence[Message], labels: int, softmax: bool = True, out: Any = None) -> Any:
    """Logits -unary - sum of mu times message, and their softmax over the labels; without it, their negatives.

    At most two messages. ``mu`` is zero in the padding; ``out`` is memory that nothing is read from.
    """
    points, width = (int(n) for n in unary.shape)
    out = _array.empty(unary, (points, width)) if out is None else out
    (arrays0, numbers0), (arrays1, numbers1) = (_message(m) for m in [*messages, None, None][:2])
    group, per = _shape_of_group(width)
    matrix = bool(numbers0[1] or numbers1[1])
    at_once = _THREADS // group * _points_of_group(per, unary.itemsize, matrix)
    real = _array.dtype_name(unary)
    kernel("crf_update.cu", "crf_update", real=real, GROUP=group, PER=per, MATRIX=matrix)(
        (blocks(points, at_once),), _THREADS, unary, *arrays0, *arrays1, out, points, width, labels, softmax, *numbers0,
        *numbers1,
    )  # fmt: skip
    return out
