"""Mean shift of images, over place and colour at once: the filter and its segmentation."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from .. import _array, _check
from .._array import array_op
from .._njit import compiled
from . import _loops
from .modes import DTYPES, MOST_FEATURES, climb, options

__all__ = ["MeanShiftSegmentation", "mean_shift_filter", "mean_shift_segmentation"]

Array = np.ndarray[Any, Any]


class MeanShiftSegmentation(NamedTuple):
    """Regions, see :func:`mean_shift_segmentation`."""

    labels: Any  # [H, W] or [B, H, W], int64
    colors: Any  # [K, C], or B of these
    n_iter: int


@array_op("image")
def mean_shift_filter(
    image: Any, spatial: float, range: float, *, kernel: str = "flat", max_iter: int = 300, tol: float = 1e-3
) -> Any:
    """Smooth an image and keep its edges: each pixel gets the colour of the mode that it climbs to.

    The points are ``(colour / range, row / spatial, column / spatial)`` of all pixels, the bandwidth is 1.

    Parameters
    ----------
    image : array, [H, W], [H, W, C] or [B, H, W, C], float32/float64
        Colours, C up to 30; Euclidean distances should mean something, such as those of Lab. B images are a batch.
    spatial, range : float
        Bandwidths of place, in pixels, and of colour, in the unit of ``image``.
    kernel, max_iter, tol
        As of :func:`mean_shift`.

    Returns
    -------
    filtered : array, as ``image``

    Raises
    ------
    TypeError, ValueError
        As :func:`mean_shift`.

    Warns
    -----
    ConvergenceWarning
        If ``max_iter`` steps were too few for a pixel.

    Notes
    -----
    As of :func:`mean_shift`. One kernel of place and colour, where Comaniciu and Meer have the product of two; both
    move, as theirs do, while OpenCV's filter only looks at a square window. No gradient.

    References
    ----------
    D. Comaniciu, P. Meer, Mean shift: a robust approach toward feature space analysis, 2002, section 4.

    Examples
    --------
    >>> import numpy as np
    >>> from cv3gpu.cluster import mean_shift_filter
    >>> mean_shift_filter(np.array([[0.0, 1.0, 0.0, 9.0, 8.0, 9.0]]), spatial=4, range=3).round(1).tolist()
    [[0.3, 0.3, 0.3, 8.7, 8.7, 8.7]]
    """
    images, how = _checked("mean_shift_filter", image, spatial, range, kernel, max_iter, tol)
    out = _array.empty(images, images.shape)
    for one, to in zip(images, out, strict=True):
        ends, _ = _climbed("mean_shift_filter", one, how)
        to[...] = (ends[:, :-2] * range).reshape(tuple(to.shape))
    filtered = out.reshape(tuple(image.shape))
    return filtered if _array.on_gpu(image) else _array.from_numpy(filtered, image)


@array_op("image")
def mean_shift_segmentation(
    image: Any, spatial: float, range: float, min_size: int = 20, *, kernel: str = "flat", max_iter: int = 300,
    tol: float = 1e-3,
) -> MeanShiftSegmentation:  # fmt: skip
    """Segment an image into regions whose pixels climb to modes near one another.

    Pixels side by side are of one region where the ends of :func:`mean_shift_filter` are nearer than half a bandwidth,
    in place and colour. Regions below ``min_size`` pixels then join the one beside them of the nearest mean colour.

    Parameters
    ----------
    image, spatial, range, kernel, max_iter, tol
        As of :func:`mean_shift_filter`.
    min_size : int
        The least number of pixels of a region; 1: any.

    Returns
    -------
    labels : array, [H, W] or [B, H, W], int64
        Regions, connected, by the order of their first pixels.
    colors : array, [K, C], of the dtype of ``image``
        The mean colour of each region in the filtered image; [K] where ``image`` is [H, W], a tuple of B arrays where
        it is a batch.
    n_iter : int
        The most steps that a pixel has made.

    Raises
    ------
    TypeError, ValueError
        As :func:`mean_shift`.

    Warns
    -----
    ConvergenceWarning
        If ``max_iter`` steps were too few for a pixel.

    Notes
    -----
    On a GPU the pixels climb there; the host makes regions of their ends. No gradient.

    References
    ----------
    D. Comaniciu, P. Meer, Mean shift: a robust approach toward feature space analysis, 2002, section 4.2.

    Examples
    --------
    >>> import numpy as np
    >>> from cv3gpu.cluster import mean_shift_segmentation
    >>> row = np.array([[0.0, 1.0, 0.0, 9.0, 8.0, 9.0]])
    >>> mean_shift_segmentation(row, spatial=4, range=3, min_size=2).labels.tolist()
    [[0, 0, 0, 1, 1, 1]]
    """
    op = "mean_shift_segmentation"
    least = _check.integer(op, "min_size", min_size, 1)
    images, how = _checked(op, image, spatial, range, kernel, max_iter, tol)
    _, height, width, _ = (int(n) for n in images.shape)
    labels, colors, most = np.empty(tuple(images.shape[:3]), np.int64), [], 0
    for one, to in zip(images, labels, strict=True):
        ends, steps = _climbed(op, one, how)
        host = _array.to_host(ends)
        to[...], sums = _regions(host, host[:, :-2].astype(np.float64) * range, height, width, least)
        mean = (sums[:, 1:] / sums[:, :1]).astype(_array.dtype_name(image))
        colors.append(_array.from_host(mean[:, 0].copy() if image.ndim == 2 else mean, image))
        most = max(most, steps)
    found = _array.from_host(labels.reshape(tuple(image.shape[: max(2, image.ndim - 1)])), image)
    return MeanShiftSegmentation(found, tuple(colors) if image.ndim == 4 else colors[0], most)


class _How(NamedTuple):
    """Bandwidths, is the kernel the Gaussian, steps, tolerance."""

    spatial: float
    range: float
    gaussian: bool
    max_iter: int
    tol: float


def _checked(op: str, image: Any, spatial: Any, range: Any, kernel: Any, max_iter: Any, tol: Any) -> tuple[Any, _How]:
    """The images [B, H, W, C], in NumPy on the CPU, and the options."""
    _check.dtype(op, "image", image, DTYPES)
    if image.ndim not in (2, 3, 4):
        _check.fail(op, "image", "have shape [H, W], [H, W, C] or [B, H, W, C]", tuple(image.shape))
    shape = (1, *image.shape, 1) if image.ndim == 2 else (1, *image.shape) if image.ndim == 3 else image.shape
    batch, height, width, channels = (int(n) for n in shape)
    if not 1 <= channels <= MOST_FEATURES - 2:
        axis = max(2, image.ndim - 1)
        _check.fail(op, "image", f"have 1 to {MOST_FEATURES - 2} channels (axis {axis})", channels)
    if height * width >= 2**31 - 1:
        _check.fail(op, "image", "have fewer than 2^31 - 1 pixels", height * width)
    how = _How(
        _check.real(op, "spatial", spatial, positive=True),
        _check.real(op, "range", range, positive=True),
        *options(op, kernel, max_iter, tol),
    )
    rows = _array.contiguous(image) if _array.on_gpu(image) else _array.as_numpy(image)
    return rows.reshape((batch, height, width, channels)), how


def _climbed(op: str, image: Any, how: _How) -> tuple[Any, int]:
    """The ends of all pixels [N, C + 2] of an image, in bandwidths, and the most steps."""
    height, width, channels = (int(n) for n in image.shape)
    points = _array.empty(image, (height * width, channels + 2))
    points[:, :channels] = image.reshape((height * width, channels)) / how.range
    place = np.indices((height, width)).reshape(2, -1).T / how.spatial
    points[:, channels:] = _array.from_host(np.ascontiguousarray(place, _array.dtype_name(image)), points)
    if height * width == 0:
        return points, 0
    found = climb(op, "image / range", points, 1.0, how.gaussian, how.max_iter, how.tol, stacklevel=6)
    return found.ends(), found.steps


def _regions(ends: Array, colour: Array, height: int, width: int, least: int) -> tuple[Array, Array]:
    """Labels [H, W], and of each region its number of pixels and the sums of their colours [K, 1 + C]."""
    labels = np.empty(height * width, np.int64)
    count = compiled(*_loops.CONNECT)(np.ascontiguousarray(ends), width, 0.25, np.empty_like(labels), labels)
    pixels = np.bincount(labels, minlength=count)
    sums = np.stack([pixels, *(np.bincount(labels, c, count) for c in colour.T)], axis=1).astype(np.float64)
    grid = labels.reshape(height, width)
    if least > 1 and count > 1:
        sides = (grid[:, 1:], grid[:, :-1]), (grid[1:], grid[:-1])
        pairs = np.concatenate([np.stack([a[a != b], b[a != b]], axis=1) for a, b in sides])
        number = np.arange(count)
        compiled(*_loops.ABSORB)(
            np.unique(pairs, axis=0), sums, least, number, np.empty(count, np.int64), np.empty(count)
        )
        kept, number = np.unique(number, return_inverse=True)
        grid, sums = number[grid], sums[kept]
    return np.ascontiguousarray(grid), sums
