"""The exact Gaussian of pixel distances over all pairs of pixels: the smoothness kernel of the dense CRF.

``k_ij = exp(-(dx^2 / theta_x^2 + dy^2 / theta_y^2) / 2)`` is a product, so a row of weights along x and a column
along y do what a matrix of all pairs would. Weights are left out from where they are below the rounding of the
largest, and nothing else is: no lattice, no recursion.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from .. import _array
from .._kernel import blocks, kernel
from .._njit import compiled
from .._threads import cores, each

__all__ = ["GridGaussian"]

Array = np.ndarray[Any, Any]

# Weights end where exp(-d^2 / (2 theta^2)) falls below 2^-25, 2^-54: at so many theta.
REACH = {"float32": math.sqrt(50 * math.log(2)), "float64": math.sqrt(108 * math.log(2))}

# The kernels.
OUTPUTS = {"float32": 12, "float64": 6}  # results of a thread
BLOCK = 256
WARP = 32
VECTOR = 16  # bytes

# The loops on the CPU. What a column of results reads stays in the first-level cache.
WIDTH = 768  # bytes of a row that are summed along y together
SWEEP = 6144  # bytes of results that each weight goes through at a time
LOOPS = 160  # the largest radius that they are faster for than matrix products
TILE = 128  # rows of a matrix product


class _Axis(NamedTuple):
    """The weights along an axis: of distance 0 ... radius, and for kernels of -radius ... radius, zeros behind."""

    radius: int
    half: Array
    full: Any


class GridGaussian:
    """Sums over all pixels of an image, weighted by a Gaussian of the distance.

    ``k_ij = exp(-(dx^2 / theta_x^2 + dy^2 / theta_y^2) / 2)`` over all pairs of pixels of an image, i = j included.

    Parameters
    ----------
    like : array, float32/float64
        Its library, device and dtype are those of the values to come.
    shape : (B, H, W)
        Images and their size in pixels.
    theta : (x, y), pixels
        The width along x and along y; any positive number.

    Notes
    -----
    A distance d along an axis counts where ``exp(-d^2 / (2 theta^2))`` is at least 2^-25 (float32) or 2^-54
    (float64). What is left out changes a result by at most 2^-23 (float32) or 2^-52 (float64) of the sum of all
    weights times the largest absolute value. Where theta reaches across the image, nothing is left out.

    Cost: about 12 theta multiplications a number and axis (float32; 17 theta in float64), at most the image's size.
    All sums are in a fixed order: the same bits from run to run. On the CPU they do not depend on the number of
    threads either, except where a weight reaches farther than 160 pixels: there BLAS sums, in its own order.
    """

    entries = 1  # what a reader of `spread` needs: row i of the result belongs to pixel i, with weight 1

    def __init__(self, like: Any, shape: tuple[int, int, int], theta: tuple[float, float]) -> None:
        batch, height, width = (int(n) for n in shape)
        self.shape = batch, height, width
        self.theta = theta
        self._plain = self._axes(like)
        self._slope: tuple[_Axis, _Axis] | None = None  # made when it is asked for

    def spread(self, values: Any, transposed: bool = False) -> Any:
        """The values summed over all pixels of their image by weight: K values.

        Parameters
        ----------
        values : array, [B * H * W, C], float32/float64
            Dense rows, one a pixel; C is a multiple of 4.
        transposed : bool
            Without effect, as K is symmetric.

        Returns
        -------
        array, [B * H * W, C]
        """
        return self._filtered(values, *self._plain)

    def theta_vjp(self, values: Any, grad: Any) -> Any:
        """The gradient of ``sum(grad * (K values))`` with respect to theta x and theta y.

        ``d k_ij / d theta_x = k_ij dx^2 / theta_x^3``, and so for y: the same sums with other weights along one
        axis. The sum over pixels and channels is in float64.

        Parameters
        ----------
        values, grad : array, [B * H * W, C], float32/float64

        Returns
        -------
        array, [2], float64
        """
        if math.prod(values.shape) == 0:
            return _array.zeros(values, (2,), "float64")
        if self._slope is None:
            self._slope = self._axes(values, slope=True)
        (x, y), (slope_x, slope_y) = self._plain, self._slope
        if not _array.on_gpu(values):
            given = _array.as_numpy(_array.contiguous(grad)).ravel()
            spreads = (self._filtered(values, slope_x, y), self._filtered(values, x, slope_y))
            sums = [np.einsum("i,i->", given, _array.as_numpy(s).ravel(), dtype=np.float64) for s in spreads]
            return _array.from_numpy(np.array(sums, np.float64), values)
        values, grad = _array.contiguous(values), _array.contiguous(grad)
        launches = self._launch(values, slope_x, 0), self._launch(values, slope_y, 1)
        counts = [launch.grid for launch in launches]
        parts = _array.empty(values, (sum(counts),), "float64")
        for along, launch in enumerate(launches):
            mine = parts[: counts[0]] if along == 0 else parts[counts[0] :]
            source = self._along(values, self._plain[1 - along], 1 - along)
            launch.run("crf_grid_dot", source, self._slope[along].full, grad, mine)
        result = _array.empty(values, (2,), "float64")
        launches[0].kernel("crf_grid_total")((2,), BLOCK, parts, result, counts[0], sum(counts))
        return result

    def _axes(self, like: Any, slope: bool = False) -> tuple[_Axis, _Axis]:
        _, height, width = self.shape
        return _axis(like, width, self.theta[0], slope), _axis(like, height, self.theta[1], slope)

    def _filtered(self, values: Any, x: _Axis, y: _Axis) -> Any:
        if math.prod(values.shape) == 0:
            return _array.empty(values, values.shape)
        values = _array.contiguous(values)
        if _array.on_gpu(values):
            return self._along(self._along(values, x, 0), y, 1)
        images = _array.as_numpy(values).reshape(*self.shape, values.shape[1])
        filtered = _by_products if max(x.radius, y.radius) > LOOPS else _by_loops
        return _array.from_numpy(filtered(images, x.half, y.half).reshape(values.shape), values)

    # ---- on a GPU -----------------------------------------------------------------------------------------

    def _launch(self, values: Any, axis: _Axis, along: int) -> _Launch:
        dtype = _array.dtype_name(values)
        batch, height, width = self.shape
        pixel = values.shape[1] * np.dtype(dtype).itemsize // VECTOR
        outer, n, inner = (batch * height, width, pixel) if along == 0 else (batch, height, width * pixel)
        chunks, spans = blocks(n, OUTPUTS[dtype]), blocks(inner, WARP)
        span = blocks(inner, spans)
        deep = BLOCK // span
        sizes = (outer * chunks, chunks, n, inner, spans, axis.radius, axis.full.shape[0] // OUTPUTS[dtype])
        return _Launch(dtype, spans * blocks(outer * chunks, deep), (span, deep), sizes)

    def _along(self, values: Any, axis: _Axis, along: int) -> Any:
        """The sums along x (0) or y (1) alone."""
        result = _array.empty(values, values.shape)
        self._launch(values, axis, along).run("crf_grid_axis", values, axis.full, result)
        return result


class _Launch(NamedTuple):
    dtype: str
    grid: int
    block: tuple[int, int]
    sizes: tuple[int, ...]

    def kernel(self, name: str) -> Any:
        return kernel("crf_grid.cu", name, real=self.dtype, OUTPUTS=OUTPUTS[self.dtype])

    def run(self, name: str, *arrays: Any) -> None:
        self.kernel(name)((self.grid,), self.block, *arrays, *self.sizes)


def _axis(like: Any, n: int, theta: float, slope: bool = False) -> _Axis:
    """The weights along an axis of ``n`` pixels, or their derivatives by theta.

    Derivatives reach a pixel farther: where theta is small the nearest neighbours are all that they have.
    """
    dtype = _array.dtype_name(like)
    radius = max(min(n - 1, int(REACH[dtype] * theta) + slope), 0)
    u = np.minimum(np.arange(radius + 1) / theta, 64.0)  # farther, the weight is zero
    weight = np.exp(-0.5 * u * u)
    half = (weight * (u * u / theta) if slope else weight).astype(dtype)
    if not _array.on_gpu(like):
        return _Axis(radius, half, None)
    full = np.zeros(blocks(2 * radius + 1, OUTPUTS[dtype]) * OUTPUTS[dtype], dtype)
    full[: 2 * radius + 1] = np.concatenate([half[:0:-1], half])
    return _Axis(radius, half, _array.from_host(full, like))


# ---- on the CPU, by loops ---------------------------------------------------------------------------------


def _by_loops(images: Array, x: Array, y: Array) -> Array:
    """[B, H, W, C]: bands of rows along x, into panels of a few columns each, and these along y."""
    batch, height, width, channels = images.shape
    length = width * channels
    out = np.empty_like(images)
    sources, targets = images.reshape(batch, height, length), out.reshape(batch, height, length)
    wide = min(WIDTH // images.itemsize, blocks(length, 8) * 8)
    panels = blocks(length, wide)
    across, down = len(x) - 1, len(y) - 1
    # A band computes `down` rows on either side again: it should not be low, but there should be one for each core.
    rows = min(max(128, 4 * down), max(2 * down, 16, blocks(batch * height, cores())))
    bands = blocks(height, rows)
    run = compiled(_weighted, _band)

    def band(image: int, part: int) -> None:
        top, bottom = height * part // bands, height * (part + 1) // bands
        columns = _aligned((panels, (bottom - top + 2 * down) * wide), images.dtype)
        line = _aligned((2 * across * channels + panels * wide,), images.dtype)
        total = _aligned((SWEEP // images.itemsize,), images.dtype)
        run(sources[image], targets[image], top, bottom, channels, x, y, line, columns, total)

    each(band, [(image, part) for image in range(batch) for part in range(bands)])
    return out


def _aligned(shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    """Memory that begins with a cache line, which speeds the loops up by a quarter."""
    spare = 64 // dtype.itemsize
    memory = np.empty(math.prod(shape) + spare, dtype)
    start = -memory.ctypes.data % 64 // dtype.itemsize
    return memory[start : start + memory.size - spare].reshape(shape)


def _weighted(total: Array, source: Array, at: int, step: int, weights: Array) -> None:
    """``total[i] = sum_k weights[|k|] source[at + k step + i]``, four pairs of equal weight at a time.

    Slices, because only so LLVM sees that the loop runs through contiguous memory, and four pairs, because it
    vectorises no loop that would have to tell more than eight arrays from the one that is written.
    """
    n = total.size
    middle = source[at : at + n]
    w = weights[0]
    for i in range(n):
        total[i] = w * middle[i]
    k = 1
    while k + 3 < weights.size:
        a = at - k * step
        b = at + k * step
        a1 = source[a : a + n]
        b1 = source[b : b + n]
        a2 = source[a - step : a - step + n]
        b2 = source[b + step : b + step + n]
        a3 = source[a - 2 * step : a - 2 * step + n]
        b3 = source[b + 2 * step : b + 2 * step + n]
        a4 = source[a - 3 * step : a - 3 * step + n]
        b4 = source[b + 3 * step : b + 3 * step + n]
        w1 = weights[k]
        w2 = weights[k + 1]
        w3 = weights[k + 2]
        w4 = weights[k + 3]
        for i in range(n):
            near = w1 * (a1[i] + b1[i]) + w2 * (a2[i] + b2[i])
            far = w3 * (a3[i] + b3[i]) + w4 * (a4[i] + b4[i])
            total[i] += near + far
        k += 4
    while k < weights.size:
        w = weights[k]
        a1 = source[at - k * step : at - k * step + n]
        b1 = source[at + k * step : at + k * step + n]
        for i in range(n):
            total[i] += w * (a1[i] + b1[i])
        k += 1


def _band(
    source: Array,
    target: Array,
    top: int,
    bottom: int,
    channels: int,
    x: Array,
    y: Array,
    line: Array,
    panels: Array,
    total: Array,
) -> None:
    """Rows ``top`` to ``bottom`` of an image, source and target [H, W * C].

    ``line`` holds a row between zeros. ``panels`` [columns, rows * width] hold rows that are summed along x, those
    above and below the image as zeros. So no sum has to look where the image ends.
    """
    height = source.shape[0]
    length = source.shape[1]
    margin = (x.size - 1) * channels
    down = y.size - 1
    rows = bottom - top + 2 * down
    width = panels.shape[1] // rows
    padded = panels.shape[0] * width
    for i in range(line.size):
        line[i] = 0
    for r in range(rows):
        row = top - down + r
        if row < 0 or row >= height:
            for p in range(panels.shape[0]):
                to = panels[p, r * width : (r + 1) * width]
                for i in range(width):
                    to[i] = 0
            continue
        given = source[row]
        inside = line[margin : margin + length]
        for i in range(length):
            inside[i] = given[i]
        for begin in range(0, padded, total.size // width * width):
            n = min(total.size // width * width, padded - begin)
            _weighted(total[:n], line, margin + begin, channels, x)
            for p in range(n // width):
                to = panels[begin // width + p, r * width : (r + 1) * width]
                part = total[p * width : (p + 1) * width]
                for i in range(width):
                    to[i] = part[i]
    for p in range(panels.shape[0]):
        n = min(width, length - p * width)
        for first in range(top, bottom, total.size // width):
            last = min(first + total.size // width, bottom)
            _weighted(total[: (last - first) * width], panels[p], (first - top + down) * width, width, y)
            for row in range(first, last):
                to = target[row, p * width : p * width + n]
                part = total[(row - first) * width : (row - first) * width + n]
                for i in range(n):
                    to[i] = part[i]


# ---- on the CPU, by matrix products -----------------------------------------------------------------------


def _by_products(images: Array, x: Array, y: Array) -> Array:
    """[B, H, W, C]: along x on the images turned, so that both products have long rows."""
    batch, height, width, channels = images.shape
    turned = np.ascontiguousarray(images.swapaxes(1, 2)).reshape(batch, width, height * channels)
    along_x = _product(turned, x).reshape(batch, width, height, channels)
    upright = np.ascontiguousarray(along_x.swapaxes(1, 2)).reshape(batch, height, width * channels)
    return _product(upright, y).reshape(images.shape)


def _product(lines: Array, half: Array) -> Array:
    """[B, n, m] along n: the band matrix of the weights, some rows at a time, times the lines that these reach."""
    n, radius = lines.shape[1], len(half) - 1
    weights = np.zeros(radius + TILE + 1, half.dtype)
    weights[: radius + 1] = half
    distance = np.abs(np.arange(TILE + 2 * radius) - radius - np.arange(TILE)[:, None])
    matrix = weights[np.minimum(distance, radius + 1)]
    out = np.empty_like(lines)
    for top in range(0, n, TILE):
        bottom = min(top + TILE, n)
        low, high = max(top - radius, 0), min(bottom + radius, n)
        left = radius - top
        part = np.ascontiguousarray(matrix[: bottom - top, low + left : high + left])
        np.matmul(part, lines[:, low:high], out=out[:, top:bottom])
    return out
