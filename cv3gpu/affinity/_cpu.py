"""Pixel affinities on the CPU: weights and products of one image, its rows in threads."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from .._njit import compiled
from .._threads import cores, each, spans
from . import _loops

__all__ = ["Stencil", "bands", "contour", "empty", "gaussian", "padded"]

Array = np.ndarray[Any, Any]

_PIECE = 1 << 12  # pixels that are worth a thread
_PAD = 192  # bytes between planes: planes a power of two apart would fall on the same lines of the cache


class Stencil(NamedTuple):
    """A symmetric half stencil over one image; element p of plane h stands at ``h * plane + p`` of ``flat``."""

    flat: Array
    dy: Array
    dx: Array
    plane: int
    height: int
    width: int

    @property
    def size(self) -> int:
        """Number of pixels."""
        return self.height * self.width

    def planes(self) -> Array:
        """The weights [K, H, W], a view."""
        rows = self.flat.reshape(len(self.dy), self.plane)[:, : self.size]
        return rows.reshape(len(self.dy), self.height, self.width)

    def product(self, x: Array, diagonal: Array, factor: float, out: Array) -> None:
        """``out`` = diagonal x + factor W x, of rows [N, b] with b a multiple of 4; W without its diagonal."""
        by = np.array([factor], x.dtype)
        run = compiled(*_loops.PRODUCT)

        def part(first: int, last: int) -> None:
            run(x, self.flat, self.dy, self.dx, self.plane, diagonal, by, self.height, self.width, first, last,
                *self.work(), out)  # fmt: skip

        each(part, bands(self.height, self.width))

    def work(self) -> tuple[Array, Array]:
        """Space for the lists of neighbours."""
        return np.empty(2 * len(self.dy), np.int64), np.empty(2 * len(self.dy), np.int64)

    def sums(self) -> Array:
        """The sum of each pixel's weights [N], in float64, without the diagonal."""
        total = np.zeros((self.height, self.width))
        for plane, dy, dx in zip(self.planes(), self.dy.tolist(), self.dx.tolist(), strict=True):
            total += plane
            begin, end = max(0, dx), min(self.width, self.width + dx)
            if dy < self.height and begin < end:
                total[dy:, begin:end] += plane[: self.height - dy, begin - dx : end - dx]
        return total.ravel()


def bands(height: int, width: int) -> list[tuple[int, int]]:
    """Rows of an image, for each thread."""
    return spans(height, min(cores(), height * width // _PIECE))


def padded(pixels: int, itemsize: int) -> int:
    """How far planes stand apart."""
    return pixels + _PAD // itemsize


def empty(height: int, width: int, dy: Array, dx: Array, dtype: Any) -> Stencil:
    """A stencil without values."""
    plane = padded(height * width, np.dtype(dtype).itemsize)
    return Stencil(np.empty(len(dy) * plane, dtype), dy, dx, plane, height, width)


def _filled(stencil: Stencil, fill: Callable[[int, int, Array], None]) -> Stencil:
    weight = stencil.planes()
    each(lambda first, last: fill(first, last, weight), bands(stencil.height, stencil.width))
    return stencil


def gaussian(image: Array, stencil: Stencil, inverse: float, distance: Array) -> Stencil:
    """Fills in exp(-inverse |F_i - F_j|^2 - distance[h]) of an image [H, W, C]."""
    run = compiled(*_loops.GAUSSIAN)
    return _filled(stencil, lambda *rows: run(image, stencil.dy, stencil.dx, inverse, distance, *rows))


def contour(image: Array, stencil: Stencil, inverse: float) -> Stencil:
    """Fills in exp(-inverse max), of the edge strength [H, W] on the line between the pixels."""
    run = compiled(*_loops.CONTOUR)
    return _filled(stencil, lambda *rows: run(image, stencil.dy, stencil.dx, inverse, *rows))
