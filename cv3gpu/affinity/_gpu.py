"""The GPU half of pixel affinities; the kernels are in ``kernels/affinity.cu`` and ``kernels/affinity_product.cu``."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from .. import _array
from .._kernel import blocks, kernel

__all__ = ["Stencil", "degree", "of_image", "of_planes", "weights"]

Offsets = tuple[tuple[int, int], ...]

_BLOCK = 256  # as in affinity.cu and affinity_product.cu, as is the tile's side
_TILE = 32
_GROUPS = (4, 2)
_FEATURES = (1, 3)
_SHARED = {75: 64 << 10, 80: 81 << 10, 90: 113 << 10, 100: 113 << 10}  # bytes of a tile, by compute capability:
_OTHERS = 99 << 10  # two blocks on a multiprocessor, or all that a block can have
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
    constants: dict[str, Any] = {"real": _array.dtype_name(images)}
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
    run = kernel("affinity.cu", "affinity_degree", real=_array.dtype_name(flat))
    run((blocks(height * width, _BLOCK), len(flat)), _BLOCK, _some(flat), _pairs(offsets, flat), out, height, width,
        len(offsets), plane, own)  # fmt: skip
    return out


class Stencil(NamedTuple):
    """A symmetric half stencil on the device: its weights, or the images that they are made of."""

    source: Any  # planes [B, K * plane], or images [B, H, W, 1 or 3]
    distance: Any  # [K] of images, else None
    table: Any  # as affinity_product.cu has it
    plane: int
    half: int  # number of offsets
    reach: int
    grid: tuple[int, int]
    scale: float  # of the square difference of features

    @property
    def batch(self) -> int:
        """Number of images."""
        return len(self.source)

    @property
    def features(self) -> int:
        """Of a pixel, 0 where weights are stored."""
        return 0 if self.distance is None else int(self.source.shape[-1])

    def step(
        self,
        x: Any,
        out: Any,
        diagonal: Any = None,
        inverse: Any = None,
        own: float = 0.0,
        centre: float = 0.0,
        scale: float = 1.0,
        before: float = 0.0,
    ) -> Any:
        """``out`` = scale (inverse (diagonal x - W x) - centre x) - before out, of blocks [B, N, b], b a multiple of 4.

        W is without its diagonal. ``diagonal`` is ``own`` where it is None, ``inverse`` is 1, both else [B, N].
        """
        height, width = self.grid
        vectors = int(x.shape[-1]) * x.itemsize // 16
        stored = 4 if _array.dtype_name(self.source) == "float32" else 8
        pixels = (_TILE + 2 * self.reach) ** 2
        group, rest = (blocks(pixels, 8) * 8 + 2) * 16, self.features * pixels * stored
        groups = next((n for n in _GROUPS if n * group + rest <= _room(x)), 0)
        shared = groups > 0
        groups = groups if shared and vectors > _GROUPS[-1] else _GROUPS[-1]
        across = blocks(width, _TILE)
        run = kernel(
            "affinity_product.cu", "affinity_product", real=_array.dtype_name(x),
            stored=_array.dtype_name(self.source), GROUPS=groups, SHARED=int(shared), FEATURES=self.features,
        )  # fmt: skip
        run((across * blocks(height, _TILE), blocks(vectors, groups), self.batch), _BLOCK, self.source, self.distance,
            self.table, x, out, diagonal, inverse, height, width, self.half, self.plane, self.reach, across, vectors,
            self.scale, own, centre, scale, before, shared_mem=groups * group + rest if shared else 0)  # fmt: skip
        return out

    def sums(self) -> Any:
        """The sums of the rows [B, N] in float64, without the diagonal."""
        ones = _array.empty(self.source, (self.batch, self.grid[0] * self.grid[1], 4), "float64")
        ones[...] = 1
        return -self.step(ones, _array.empty(ones, ones.shape))[:, :, 0]


def _room(x: Any) -> int:
    return _SHARED.get(_array.compute_capability(x), _OTHERS)


def _table(offsets: Offsets) -> np.ndarray:
    """How far neighbours lie above and below in each column, and the number of each row's offset in its column 0."""
    reach = max((max(dy, abs(dx)) for dy, dx in offsets), default=0)
    table = np.zeros((2, reach + 1), np.int32)
    for k, (dy, dx) in reversed(list(enumerate(offsets))):
        table[0, abs(dx)] = max(table[0, abs(dx)], dy)
        table[1, dy] = k - dx
    return table


def of_planes(flat: Any, offsets: Offsets, plane: int, grid: tuple[int, int]) -> Stencil:
    """A stencil of stored weights, offsets row by row without gaps."""
    table = _table(offsets)
    return Stencil(_some(flat), None, _device(table, flat), plane, len(offsets), table.shape[1] - 1, grid, 0.0)


def of_image(images: Any, offsets: Offsets, scale: float, distance: list[float]) -> Stencil:
    """A stencil whose weights are made of images [B, H, W, C] in each product."""
    batch, height, width, channels = (int(n) for n in images.shape)
    if channels not in _FEATURES:
        padded = _array.zeros(images, (batch, height, width, _FEATURES[-1]))
        padded[..., :channels] = images
        images = padded
    table = _table(offsets)
    apart = _device(np.array([*distance, 0.0], _array.dtype_name(images)), images)
    return Stencil(images, apart, _device(table, images), 0, len(offsets), table.shape[1] - 1, (height, width), scale)


def _some(flat: Any) -> Any:
    """The planes, or where there is none an array that is never read."""
    return flat if flat.shape[1] else _array.zeros(flat, (1,))
