"""The CPU half of the filter over all pairs: compiled loops for the weights, BLAS for the products."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from .. import _array
from .._kernel import blocks
from .._njit import compiled
from .._threads import each
from . import _pairs_loops
from ._tiles import BINS, PER_UNIT, TILE, WEIGHT

__all__ = ["Filter"]

Array = np.ndarray[Any, Any]

_AT_ONCE = 16  # tiles of keys whose weights are computed before they are multiplied: half of a second-level cache
_WIDEST = 64  # channels of a product: beyond that OpenBLAS starts threads of its own, for 64 x 64 x 64 already
_PIECE = 16  # tiles of queries that a thread takes at a time

_tree, _pack = compiled(*_pairs_loops.TREE), compiled(*_pairs_loops.PACK)
_cut, _list = compiled(*_pairs_loops.CUT), compiled(*_pairs_loops.LIST)
_weights, _add, _pull = (compiled(*loops) for loops in (_pairs_loops.WEIGHTS, _pairs_loops.ADD, _pairs_loops.PULL))


class Filter:
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
            _tree(point, order, (tiles - 1).bit_length())
            own = slice(image * tiles, (image + 1) * tiles)
            _pack(point, order, self.packed[own], self.middle[own], low[image], high[image])

        each(arrange, [(image,) for image in range(images)])
        cut = np.empty((images, tiles), np.int32)
        kept = np.empty((images, tiles), np.int64)
        factor = feature.dtype.type(0.5 * PER_UNIT * (1 - 16 * float(np.finfo(feature.dtype).eps)))

        def count(image: int, first: int, last: int) -> None:
            place, histogram = np.empty(tiles, feature.dtype), np.empty(BINS, np.int64)
            scratch = (place, histogram, cut[image], kept[image])
            _cut(low[image], high[image], first, last, factor, WEIGHT, tolerance, *scratch)

        def collect(image: int, first: int, last: int) -> None:
            start = self.start[image * tiles :]
            place = np.empty(tiles, feature.dtype)
            _list(low[image], high[image], first, last, factor, cut[image], start, place, self.near)

        each(count, self._pieces())
        np.cumsum(kept.ravel(), out=self.start[1:])
        self.pairs = int(self.start[-1])
        self.near = np.empty(self.pairs, np.int32)
        each(collect, self._pieces())

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
            _weights(*where, values, scratch.exp2, *scratch.arrays)
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
                        _add(part, n, total[image * self.tiles + tile])

        each(run, self._pieces())
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
                    _pull(*where, scratch.weight, product, pull[query])

        each(run, self._pieces())
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
    return np.array(_pairs_loops.EXP2[real], real)


def _columns(channels: int) -> list[tuple[int, int]]:
    """(first, width) of the parts in which channels are multiplied."""
    width = 4 * blocks(blocks(channels, blocks(channels, _WIDEST)), 4)
    return [(c, min(width, channels - c)) for c in range(0, channels, width)]
