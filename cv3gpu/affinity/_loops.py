"""The CPU's inner loops of pixel affinities, for `_njit.compiled`.

An affinity is a symmetric half stencil: ``weight[h, p]`` is the weight between pixel p and pixel p + (dy[h], dx[h]),
zero where that lies outside of the image. Half of the offsets is enough: those below, and those to the right.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .._lanes import STENCIL, stencil_row, stencil_rows

__all__ = ["CONTOUR", "GAUSSIAN", "PRODUCT", "TILE", "segment"]

Array = np.ndarray[Any, Any]

TILE = 256  # pixels of a row that are worked at before the next row: the rows of vectors around them stay in the cache


# ---- weights ----------------------------------------------------------------------------------------------


def _gaussian(image: Array, dy: Array, dx: Array, inverse: float, distance: Array, first: int, last: int,
              weight: Array) -> None:  # fmt: skip
    """``weight`` [K, H, W] in rows ``first`` to ``last``: exp(-inverse |F_i - F_j|^2 - distance[h])."""
    height, width, channels = image.shape
    real = image.dtype.type
    scale = real(inverse)
    for y in range(first, last):
        for h in range(dy.shape[0]):
            other = y + dy[h]
            apart = real(distance[h])
            begin, end = max(0, -dx[h]), min(width, width - dx[h])
            if other >= height or begin >= end:
                begin, end = width, width
            weight[h, y, :begin] = 0
            weight[h, y, end:] = 0
            for x in range(begin, end):
                square = real(0)
                for c in range(channels):
                    difference = image[y, x, c] - image[other, x + dx[h], c]
                    square += difference * difference
                weight[h, y, x] = math.exp(-(square * scale + apart))


GAUSSIAN = (_gaussian,)


def _contour(edge: Array, dy: Array, dx: Array, inverse: float, first: int, last: int, weight: Array) -> None:
    """``weight`` [K, H, W] in rows ``first`` to ``last``: exp(-inverse max), of the edges on the line between."""
    height, width = edge.shape
    scale = edge.dtype.type(inverse)
    for y in range(first, last):
        for h in range(dy.shape[0]):
            begin, end = max(0, -dx[h]), min(width, width - dx[h])
            if y + dy[h] >= height or begin >= end:
                begin, end = width, width
            weight[h, y, :begin] = 0
            weight[h, y, end:] = 0
            n = max(dy[h], abs(dx[h]))
            for t in range(n + 1):
                # floor(d t / n + 1 / 2), in whole numbers
                row, step = y + (2 * dy[h] * t + n) // (2 * n), (2 * dx[h] * t + n) // (2 * n)
                if t == 0:
                    for x in range(begin, end):
                        weight[h, y, x] = edge[row, x + step]
                else:
                    for x in range(begin, end):
                        weight[h, y, x] = max(weight[h, y, x], edge[row, x + step])
            for x in range(begin, end):
                weight[h, y, x] = math.exp(-(weight[h, y, x] * scale))


CONTOUR = (_contour,)

# ---- products ---------------------------------------------------------------------------------------------


def _neighbours(dy: Array, dx: Array, plane: int, y: int, x: int, height: int, width: int, step: Array,
                place: Array) -> int:  # fmt: skip
    """The neighbours of a pixel within the image: where they are, and where their weights are, counted from it."""
    count = 0
    for h in range(dy.shape[0]):
        away = dy[h] * width + dx[h]
        if y + dy[h] < height and 0 <= x + dx[h] < width:
            step[count], place[count] = away, h * plane
            count += 1
        if y - dy[h] >= 0 and 0 <= x - dx[h] < width:
            step[count], place[count] = -away, h * plane - away
            count += 1
    return count


def segment(vectors: Array, weight: Array, dy: Array, dx: Array, plane: int, diagonal: Array, factor: Array,
            height: int, width: int, y: int, begin: int, end: int, step: Array, place: Array, out: Array,
            row: int) -> None:  # fmt: skip
    """``out[row ...]``: diagonal x + factor W x for the pixels ``begin`` to ``end`` of image row ``y``."""
    reach = 0
    for h in range(dx.shape[0]):
        reach = max(reach, abs(dx[h]))
    inner, outer = min(max(begin, reach), end), max(begin, min(width - reach, end))
    outer = max(inner, outer)
    base, to = y * width, row - begin
    for x in range(begin, inner):
        count = _neighbours(dy, dx, plane, y, x, height, width, step, place)
        stencil_row(vectors, step, place, count, weight, diagonal, factor, base + x, out, to + x)
    if inner < outer:
        count = _neighbours(dy, dx, plane, y, inner, height, width, step, place)
        x = inner
        while x + STENCIL <= outer:
            stencil_rows(vectors, step, place, count, weight, diagonal, factor, base + x, out, to + x)
            x += STENCIL
        while x < outer:
            stencil_row(vectors, step, place, count, weight, diagonal, factor, base + x, out, to + x)
            x += 1
    for x in range(outer, end):
        count = _neighbours(dy, dx, plane, y, x, height, width, step, place)
        stencil_row(vectors, step, place, count, weight, diagonal, factor, base + x, out, to + x)


def _product(vectors: Array, weight: Array, dy: Array, dx: Array, plane: int, diagonal: Array, factor: Array,
             height: int, width: int, first: int, last: int, step: Array, place: Array,
             out: Array) -> None:  # fmt: skip
    """``out`` = diagonal x + factor W x in rows ``first`` to ``last``; step and place [2 K] are work space."""
    for begin in range(0, width, TILE):
        end = min(begin + TILE, width)
        for y in range(first, last):
            at = y * width + begin
            segment(
                vectors, weight, dy, dx, plane, diagonal, factor, height, width, y, begin, end, step, place, out, at
            )


SEGMENT = (stencil_rows, stencil_row, _neighbours, segment)
PRODUCT = (*SEGMENT, _product)
