"""The GPU half of pixel affinities; the kernels are in ``kernels/affinity.cu``."""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import _array
from .._kernel import blocks, kernel

__all__ = ["degree", "product", "weights"]

Offsets = tuple[tuple[int, int], ...]

_BLOCK = 256  # as in affinity.cu, as are the tile's sides
_TILE = (8, 32)
_GROUPS = 4
_SHARED = 96 << 10  # bytes of a tile: two blocks on a multiprocessor, where there is as much
_SHARED_OLD = 64 << 10  # and before compute capability 8.0
_PAD = 32  # planes begin at multiples of so many numbers


def _device(values: Any, like: Any) -> Any:
    return _array.from_host(np.ascontiguousarray(values), like)


def _pairs(offsets: Offsets, like: Any) -> Any:
    return _device(np.array([*offsets, (0, 0)], np.int32), like)  # never empty


def weights(images: Any, offsets: Offsets, scale: float, distance: list[float], contour: bool) -> Any:
    """Planes [B, K * plane] of images [B, H, W, C]."""
    batch, height, width, channels = (int(n) for n in images.shape)
    count, plane = len(offsets), blocks(height * width, _PAD) * _PAD
    flat = _array.zeros(images, (batch, count * plane))
    if not count:
        return flat
    grid = (blocks(height * width, _BLOCK), count, batch)
    constants: dict[str, Any] = {"real": _array.dtype_name(images), "GROUPS": 1, "SHARED": 0}
    pairs = _pairs(offsets, images)
    if contour:
        run = kernel("affinity.cu", "affinity_contour", **constants)
        run(grid, _BLOCK, images, pairs, flat, height, width, count, plane, scale)
    else:
        run = kernel("affinity.cu", "affinity_gaussian", **constants)
        apart = _device(np.array(distance), images)
        run(grid, _BLOCK, images, pairs, apart, flat, height, width, channels, count, plane, scale)
    return flat


def degree(flat: Any, offsets: Offsets, plane: int, grid: tuple[int, int], own: float) -> Any:
    """Sums of the rows [B, N]."""
    height, width = grid
    out = _array.empty(flat, (len(flat), height * width))
    run = kernel("affinity.cu", "affinity_degree", real=_array.dtype_name(flat), GROUPS=1, SHARED=0)
    run((blocks(height * width, _BLOCK), len(flat)), _BLOCK, _some(flat), _pairs(offsets, flat), out, height, width,
        len(offsets), plane, own)  # fmt: skip
    return out


def product(flat: Any, offsets: Offsets, plane: int, grid: tuple[int, int], own: float, x: Any) -> Any:
    """W x of blocks [B, N, b], b a multiple of 4."""
    height, width = grid
    out = _array.empty(x, x.shape)
    lanes = 16 // x.itemsize
    vectors = int(x.shape[2]) // lanes
    reach = max((max(dy, abs(dx)) for dy, dx in offsets), default=0)
    tile = (_TILE[0] + 2 * reach) * (_TILE[1] + 2 * reach) * 16
    most = _SHARED if _array.compute_capability(x) >= 80 else _SHARED_OLD
    groups = _GROUPS if vectors > 1 and _GROUPS * tile <= most else 1
    shared = groups * tile <= most
    across = blocks(width, _TILE[1])
    run = kernel("affinity.cu", "affinity_product", real=_array.dtype_name(x), GROUPS=groups, SHARED=int(shared))
    run((across * blocks(height, _TILE[0]), blocks(vectors, groups), len(flat)), _BLOCK, _some(flat),
        _pairs(offsets, flat), x, out, height, width, len(offsets), plane, reach, across, vectors, own,
        shared_mem=groups * tile if shared else 0)  # fmt: skip
    return out


def _some(flat: Any) -> Any:
    """The planes, or where there is none an array that is never read."""
    return flat if flat.shape[1] else _array.zeros(flat, (1,))
