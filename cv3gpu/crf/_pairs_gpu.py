"""The GPU half of the filter over all pairs; the kernels are in ``kernels/crf_pairs.cu``."""

from __future__ import annotations

import math
from typing import Any

from .. import _array
from .._kernel import blocks, kernel
from ._tiles import LINES, TILE, WEIGHT

__all__ = ["Filter"]

_AXES = (2, 3, 4, 5, 6, 8)  # numbers of features that there are kernels for
_WIDTHS = {1: (1, 2, 3, 4, 6, 8), 0: (2, 4, 8)}  # channels of a block by eights, with tensor cores and without
_WARPS = 8  # of a block of the kernels that take a warp for each tile


class Filter:
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
        weight = _array.from_host(WEIGHT, features)
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
