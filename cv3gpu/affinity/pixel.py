"""Affinities of pixels within a radius, kept as half stencils."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from .. import _array, _check
from .._array import array_op
from ._sparse import sparse_like

__all__ = ["ImageAffinity", "PixelAffinity", "pixel_affinity"]

OP = "pixel_affinity"
KINDS = ("gaussian", "intervening_contour")
DTYPES = ("float32", "float64")
FARTHEST = 64  # pixels
LANES = 4  # blocks of vectors are worked at by so many
FEATURES = 3  # of a pixel, at most, where weights are not stored
BAND = 64  # rows of an image whose weights a CPU makes at a time, where they are not stored


@array_op("image")
def pixel_affinity(
    image: Any,
    *,
    radius: float = 5,
    inclusive: bool = False,
    sigma_intensity: float = 0.1,
    sigma_distance: float = 4.0,
    self_weight: float = 1.0,
    kind: str = "gaussian",
    stored: bool = True,
) -> PixelAffinity:
    """The affinities of the pixels of an image within a radius.

    The graph of normalised cuts: a vertex is a pixel, and the weight of an edge says how alike its two pixels are.
    ``"gaussian"`` (Shi and Malik): ``exp(-|F_i - F_j|^2 / sigma_I^2) exp(-|X_i - X_j|^2 / sigma_X^2)``, of features F
    and places X. ``"intervening_contour"``: exp(-m / sigma_I), m the greatest edge strength on the line from one pixel
    to the other, both ends included; there is no term of the distance.

    Parameters
    ----------
    image : array, [H, W], [H, W, C] or [B, H, W, C], float32 or float64
        Features in any unit; for ``"intervening_contour"`` the edge strength, [H, W] or [B, H, W].
    radius : float, pixels, up to 64
        Pixels are connected at a distance below it, 68 neighbours at 5 and 304 at 10.
    inclusive : bool
        At a distance equal to the radius, too: 80 neighbours at 5.
    sigma_intensity, sigma_distance : float
        Widths, in the unit of the features and in pixels. There is no factor 2 in the exponents.
    self_weight : float, not negative
        The diagonal. 1 is what the formula gives; it scales the eigenvalues by some percent.
    kind : str
        ``"gaussian"`` or ``"intervening_contour"``.
    stored : bool
        Whether the weights are kept. If not, the affinity keeps the image alone, of up to 3 features, and makes the
        weights anew in each product: for ``"gaussian"`` only.

    Returns
    -------
    PixelAffinity
        The symmetric matrix W, [H W, H W], pixels by rows; of a batch [B, H W, H W].

    Raises
    ------
    TypeError, ValueError
        Where an argument is not as said above, or a feature is not finite.

    Notes
    -----
    Weights are stored once for each pair, as planes [K, H, W] of half the offsets: 34 numbers a pixel at a radius of 5.
    A product with b vectors costs 4 K b operations a pixel. Sums have a fixed order: the same bits from run to run.
    There is no gradient. Weights that are not stored cost no memory and 2 K exponentials a pixel in each product: on a
    GPU less time than reading them takes (predicted, not measured), on a CPU several times that of the product.

    References
    ----------
    Shi and Malik, "Normalized cuts and image segmentation", PAMI 2000, equation 11. Leung and Malik, "Contour
    continuity in region based image segmentation", ECCV 1998.

    Examples
    --------
    >>> import numpy as np
    >>> from cv3gpu import pixel_affinity
    >>> affinity = pixel_affinity(np.array([[0.0, 0.1, 1.0]]), radius=2)
    >>> affinity.tocsr().toarray().round(4)
    array([[1.    , 0.3456, 0.    ],
           [0.3456, 1.    , 0.    ],
           [0.    , 0.    , 1.    ]])
    """
    kind = _check.choice(OP, "kind", kind, KINDS)
    reach = _check.real(OP, "radius", radius, positive=True)
    if reach > FARTHEST:
        _check.fail(OP, "radius", f"be at most {FARTHEST}", radius)
    inclusive = _check.flag(OP, "inclusive", inclusive)
    sigma = _check.real(OP, "sigma_intensity", sigma_intensity, positive=True)
    width = _check.real(OP, "sigma_distance", sigma_distance, positive=True)
    own = _check.not_negative(OP, "self_weight", self_weight)
    stored = _check.flag(OP, "stored", stored)
    _check.dtype(OP, "image", image, DTYPES)
    contour = kind == "intervening_contour"
    if contour and not stored:
        _check.fail(OP, "kind", "be 'gaussian' where weights are not stored", kind)
    if image.ndim not in ((2, 3) if contour else (2, 3, 4)):
        layouts = "[H, W] or [B, H, W]" if contour else "[H, W], [H, W, C] or [B, H, W, C]"
        _check.fail(OP, "image", f"have shape {layouts}", tuple(image.shape))
    if 0 in image.shape:
        _check.fail(OP, "image", "not be empty", tuple(image.shape))
    if not stored and image.ndim > 2 and image.shape[-1] > FEATURES:
        _check.fail(OP, "image", f"have at most {FEATURES} features where weights are not stored", int(image.shape[-1]))
    _check_values(image, contour)
    offsets = half_offsets(reach, inclusive)
    batched = image.ndim == (3 if contour else 4)
    scale = 1 / sigma if contour else 1 / sigma**2
    distance = [0.0 if contour else (dy * dy + dx * dx) / width**2 for dy, dx in offsets]
    images = _array.contiguous(image)
    images = images.reshape((len(image) if batched else 1, *image.shape[batched : batched + 2], -1))
    if not stored:
        kept = _array.copy(images)  # what becomes of the caller's image changes no weight
        return ImageAffinity(kept, offsets, scale, distance, own, batched)
    if _array.on_gpu(image):
        from . import _gpu

        flat = _gpu.weights(images, offsets, scale, distance, contour)
    else:
        flat = _array.from_numpy(_on_cpu(_array.as_numpy(images), offsets, scale, distance, contour), image)
    return PixelAffinity(flat, offsets, (int(images.shape[1]), int(images.shape[2])), own, batched)


def _check_values(image: Any, contour: bool) -> None:
    low, high = float(image.min()), float(image.max())
    if not math.isfinite(low) or not math.isfinite(high):
        _check.fail(OP, "image", "be finite", low if not math.isfinite(low) else high)
    if contour and low < 0:
        _check.fail(OP, "image", "not be negative where it is edge strength", low)


def half_offsets(radius: float, inclusive: bool) -> tuple[tuple[int, int], ...]:
    """The offsets (dy, dx) within the radius that lead down, or to the right in the same row."""
    reach = range(-math.floor(radius), math.floor(radius) + 1)
    square = radius * radius

    def near(dy: int, dx: int) -> bool:
        return dy * dy + dx * dx < square or (inclusive and dy * dy + dx * dx == square)

    return tuple((dy, dx) for dy in reach for dx in reach if (dy, dx) > (0, 0) and near(dy, dx))


def _split(offsets: tuple[tuple[int, int], ...]) -> tuple[np.ndarray, np.ndarray]:
    pairs = np.array(offsets, np.int64).reshape(-1, 2)
    return pairs[:, 0].copy(), pairs[:, 1].copy()


def _on_cpu(
    images: np.ndarray, offsets: tuple[tuple[int, int], ...], scale: float, distance: list[float], contour: bool
) -> np.ndarray:
    """Planes [B, K * plane]."""
    from . import _cpu

    filled = []
    for image in images:
        height, width, _ = image.shape
        dy, dx = _split(offsets)
        stencil = _cpu.empty(height, width, dy, dx, image.dtype)
        if contour:
            _cpu.contour(image[:, :, 0], stencil, scale)
        else:
            _cpu.gaussian(image, stencil, scale, np.array(distance))
        filled.append(stencil.flat)
    return filled[0][None] if len(filled) == 1 else np.stack(filled)


class PixelAffinity:
    """A symmetric matrix W of affinities between the pixels of an image, or of each image of a batch.

    ``W @ x`` takes vectors [N] and blocks of vectors [N, b] of the same library and dtype, with a batch before N.

    Attributes
    ----------
    offsets : tuple of (dy, dx)
        Half of the neighbours' offsets.
    weights : array, [K, H, W] or [B, K, H, W]
        ``weights[k, y, x]`` connects (y, x) and (y, x) + ``offsets[k]``; zero where that is outside of the image.
    grid : (H, W)
    self_weight : float
        The diagonal.
    shape : (N, N) or (B, N, N)
    """

    def __init__(
        self, flat: Any, offsets: tuple[tuple[int, int], ...], grid: tuple[int, int], own: float, batched: bool
    ) -> None:
        self.offsets, self.grid, self.self_weight = offsets, grid, own
        self._kept, self._batched = flat, batched
        self._degree: Any = None
        self._on_device: Any = None

    @property
    def flat(self) -> Any:
        """The planes of weights [B, K * plane]."""
        return self._kept

    @property
    def kept(self) -> Any:
        """What the weights are kept as: an array of the library, dtype and device of the affinity."""
        return self._kept

    def _plane(self, flat: Any) -> int:
        """How far planes stand apart."""
        return int(flat.shape[1]) // max(len(self.offsets), 1)

    @property
    def dtype(self) -> Any:
        """The dtype of the weights."""
        return self._kept.dtype

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the matrix, or of the batch of them."""
        n = self.grid[0] * self.grid[1]
        return (len(self._kept), n, n) if self._batched else (n, n)

    @property
    def weights(self) -> Any:
        """The planes, a view where they are stored."""
        flat, pixels = self.flat, self.grid[0] * self.grid[1]
        batch = len(flat)
        planes = flat.reshape((batch, len(self.offsets), self._plane(flat)))[:, :, :pixels]
        planes = planes.reshape((batch, len(self.offsets), *self.grid))
        return planes if self._batched else planes[0]

    @property
    def degree(self) -> Any:
        """The sums of the rows, the diagonal included, [N] or [B, N]."""
        if self._degree is None:
            sums = self._sums()
            self._degree = sums if self._batched else sums[0]
        return self._degree

    def _sums(self) -> Any:
        """Degrees [B, N]."""
        if _array.on_gpu(self._kept):
            from . import _gpu

            return _gpu.degree(self._kept, self.offsets, self._plane(self._kept), self.grid, self.self_weight)
        totals = np.stack([s.sums() + self.self_weight for s in self.stencils()])
        return _array.from_numpy(totals.astype(_array.dtype_name(self._kept)), self._kept)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, image: int) -> PixelAffinity:
        """The affinity of one image of a batch."""
        if not self._batched:
            raise TypeError("PixelAffinity: indexing takes an image out of a batch, and this is of one image")
        image = range(len(self._kept))[_check.integer("PixelAffinity", "image", image, -len(self), len(self) - 1)]
        return self._of(self._kept[image : image + 1], False)

    def _of(self, kept: Any, batched: bool) -> PixelAffinity:
        """Such an affinity of other images."""
        return PixelAffinity(kept, self.offsets, self.grid, self.self_weight, batched)

    def __repr__(self) -> str:
        kind = _array.dtype_name(self._kept)
        return f"{type(self).__name__}(shape={self.shape}, dtype={kind}, neighbours={2 * len(self.offsets)})"

    def __matmul__(self, x: Any) -> Any:
        lead = (len(self._kept),) if self._batched else ()
        pixels = self.grid[0] * self.grid[1]
        _array.check_beside("PixelAffinity @ x", "x", x, "the affinity", self._kept)
        _check.same_dtype("PixelAffinity @ x", "x", x, "the affinity", self._kept)
        if x.ndim not in (len(lead) + 1, len(lead) + 2) or tuple(x.shape[: len(lead) + 1]) != (*lead, pixels):
            names = ", ".join(map(str, (*lead, pixels)))
            _check.fail("PixelAffinity @ x", "x", f"have shape [{names}] or [{names}, b]", tuple(x.shape))
        blocks = x.reshape((len(self._kept), pixels, -1))
        columns = int(blocks.shape[2])
        wide = -(-columns // LANES) * LANES
        if wide == columns:
            padded = _array.contiguous(blocks)
        else:
            padded = _array.zeros(self._kept, (len(blocks), pixels, wide))
            padded[:, :, :columns] = blocks
        if wide == 0:
            return _array.zeros(self._kept, x.shape)
        if _array.on_gpu(x):
            made = _array.empty(padded, padded.shape)
            out = self.device_stencil().step(padded, made, own=-self.self_weight, scale=-1.0)
        else:
            out = _array.from_numpy(self._product(_array.as_numpy(padded)), self._kept)
        return out[:, :, :columns].reshape(x.shape)

    def _product(self, x: np.ndarray) -> np.ndarray:
        """W x of blocks [B, N, b] on the CPU."""
        out = np.empty_like(x)
        own = np.full(x.shape[1], self.self_weight, x.dtype)
        for stencil, block, to in zip(self.stencils(), x, out, strict=True):
            stencil.product(block, own, 1.0, to)
        return out

    def device_stencil(self) -> Any:
        """The images as the kernels take them."""
        if self._on_device is None:
            from . import _gpu

            self._on_device = _gpu.of_planes(self._kept, self.offsets, self._plane(self._kept), self.grid)
        return self._on_device

    def stencils(self) -> list[Any]:
        """The images as the CPU's loops take them."""
        from ._cpu import Stencil

        dy, dx = _split(self.offsets)
        flats = _array.as_numpy(self.flat)
        return [Stencil(flat, dy, dx, self._plane(flats), *self.grid) for flat in flats]

    def neighbours(self, values: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """For each offset within the image: the values of pixels [H, W], those of their neighbours there, the weights.

        Of one image, in NumPy.
        """
        height, width = self.grid
        for (dy, dx), plane in zip(self.offsets, self.weights, strict=True):
            begin, end = max(0, -dx), min(width, width - dx)
            if dy < height and begin < end:
                there = values[dy:, begin + dx : end + dx]
                yield values[: height - dy, begin:end], there, plane[: height - dy, begin:end]

    def host(self) -> PixelAffinity:
        """This affinity in NumPy."""
        return self._of(_array.to_host(self._kept), self._batched)

    def tocsr(self) -> Any:
        """The matrix by rows: SciPy's, CuPy's or torch's, as the weights are. Of one image; K + 1 times the memory."""
        if self._batched:
            raise ValueError(f"PixelAffinity.tocsr: must be of one image, got a batch of {len(self)}; take affinity[i]")
        flat = _array.to_host(self.flat)
        data, columns, start = _rows(flat[0], self._plane(flat), self.offsets, self.grid, self.self_weight)
        return sparse_like(data, columns, start, self._kept)


class ImageAffinity(PixelAffinity):
    """A pixel affinity that keeps the image alone and makes its Gaussian weights anew whenever they are needed.

    Products and degrees take no memory for weights; ``weights``, ``tocsr()`` and what works on them make all of them.
    """

    def __init__(
        self,
        images: Any,
        offsets: tuple[tuple[int, int], ...],
        scale: float,
        distance: list[float],
        own: float,
        batched: bool,
    ) -> None:
        super().__init__(images, offsets, (int(images.shape[1]), int(images.shape[2])), own, batched)
        self._scale, self._distance = scale, distance

    @property
    def flat(self) -> Any:
        if _array.on_gpu(self._kept):
            from . import _gpu

            return _gpu.weights(self._kept, self.offsets, self._scale, self._distance, False)
        made = _on_cpu(_array.as_numpy(self._kept), self.offsets, self._scale, self._distance, False)
        return _array.from_numpy(made, self._kept)

    def _of(self, kept: Any, batched: bool) -> PixelAffinity:
        return ImageAffinity(kept, self.offsets, self._scale, self._distance, self.self_weight, batched)

    def device_stencil(self) -> Any:
        if self._on_device is None:
            from . import _gpu

            self._on_device = _gpu.of_image(self._kept, self.offsets, self._scale, self._distance)
        return self._on_device

    def _sums(self) -> Any:
        if _array.on_gpu(self._kept):
            sums = self.device_stencil().sums()
            return _array.astype(sums + self.self_weight, _array.dtype_name(self._kept))
        height, width = self.grid
        total = np.empty((len(self._kept), height, width))
        for image, to in zip(_array.as_numpy(self._kept), total, strict=True):
            for stencil, first, last, begin in self._bands(image):
                to[first:last] = stencil.sums().reshape(-1, width)[first - begin : last - begin] + self.self_weight
        sums = total.reshape(len(total), -1).astype(_array.dtype_name(self._kept))
        return _array.from_numpy(sums, self._kept)

    def _product(self, x: np.ndarray) -> np.ndarray:
        width = self.grid[1]
        out = np.empty_like(x)
        for image, block, to in zip(_array.as_numpy(self._kept), x, out, strict=True):
            for stencil, first, last, begin in self._bands(image):
                some = block[begin * width : begin * width + stencil.size]
                made = np.empty_like(some)
                stencil.product(some, np.full(stencil.size, self.self_weight, x.dtype), 1.0, made)
                to[first * width : last * width] = made[(first - begin) * width : (last - begin) * width]
        return out

    def _bands(self, image: np.ndarray) -> Iterator[tuple[Any, int, int, int]]:
        """Stencils of bands of an image and what their weights reach; the rows that are wanted; the band's first."""
        from . import _cpu

        dy, dx = _split(self.offsets)
        reach, distance = int(dy.max(initial=0)), np.array(self._distance)
        for first in range(0, len(image), BAND):
            last = min(first + BAND, len(image))
            begin = max(0, first - reach)
            part = image[begin : last + reach]
            empty = _cpu.empty(len(part), image.shape[1], dy, dx, image.dtype)
            yield _cpu.gaussian(part, empty, self._scale, distance), first, last, begin


def _rows(
    flat: np.ndarray, plane: int, offsets: tuple[tuple[int, int], ...], grid: tuple[int, int], own: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Data, columns and row starts; columns ascend."""
    height, width = grid
    planes = flat.reshape(len(offsets), plane)[:, : height * width].reshape(len(offsets), height, width)
    around = sorted([*offsets, *((-dy, -dx) for dy, dx in offsets), *([(0, 0)] if own else [])])
    kind: Any = np.int32 if 2 * len(around) * height * width < 2**31 else np.int64
    index: Any = np.arange(height * width, dtype=kind).reshape(grid)
    data = np.zeros((height, width, len(around)), flat.dtype)
    columns = np.full((height, width, len(around)), -1, kind)
    for k, (dy, dx) in enumerate(around):
        rows, others = (slice(max(0, s * dy), max(0, height - max(0, -s * dy))) for s in (-1, 1))
        line, beside = (slice(max(0, s * dx), max(0, width - max(0, -s * dx))) for s in (-1, 1))
        if (dy, dx) == (0, 0):
            data[:, :, k] = own
        elif (dy, dx) > (0, 0):
            data[rows, line, k] = planes[offsets.index((dy, dx)), rows, line]
        else:
            data[rows, line, k] = planes[offsets.index((-dy, -dx)), others, beside]
        columns[rows, line, k] = index[others, beside]
    inside = columns >= 0
    start = np.concatenate([[0], inside.sum(axis=2).ravel().cumsum()]).astype(kind)
    return data[inside], columns[inside], start
