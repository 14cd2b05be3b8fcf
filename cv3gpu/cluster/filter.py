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

    labels: Any  # [H, W], int64
    colors: Any  # [K, C]
    n_iter: int


@array_op("image")
def mean_shift_filter(
    image: Any, spatial: float, range: float, *, kernel: str = "flat", max_iter: int = 300, tol: float = 1e-3
) -> Any:
    """Smooth an image and keep its edges: each pixel gets the colour of the mode that it climbs to.

    The points are ``(colour / range, row / spatial, column / spatial)`` of all pixels, the bandwidth is 1.

    Parameters
    ----------
    image : array, [H, W] or [H, W, C], float32/float64
        Colours, C up to 30; Euclidean distances should mean something, such as those of Lab.
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
    ends, _ = _climbed("mean_shift_filter", image, spatial, range, kernel, max_iter, tol)
    channels = ends.shape[1] - 2
    filtered = _array.astype(ends[:, :channels] * range, _array.dtype_name(image)).reshape(tuple(image.shape))
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
    labels : array, [H, W], int64
        Regions, connected, by the order of their first pixels.
    colors : array, [K, C], of the dtype of ``image``
        The mean colour of each region in the filtered image; [K] where ``image`` is [H, W].
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
    ends, steps = _climbed(op, image, spatial, range, kernel, max_iter, tol)
    host = _array.to_host(ends)
    colour = host[:, :-2].astype(np.float64) * range
    height, width = (int(n) for n in image.shape[:2])
    labels, sums = _regions(host, colour, height, width, least)
    dtype = _array.dtype_name(image)
    colors = (sums[:, 1:] / sums[:, :1]).astype(dtype).reshape((len(sums), *image.shape[2:]))
    if not _array.on_gpu(image):
        return MeanShiftSegmentation(_array.from_numpy(labels, image), _array.from_numpy(colors, image), steps)
    return MeanShiftSegmentation(_array.from_host(labels, image), _array.from_host(colors, image), steps)


def _climbed(op: str, image: Any, spatial: Any, range: Any, kernel: Any, max_iter: Any, tol: Any) -> tuple[Any, int]:
    """The ends of all pixels [N, C + 2], in bandwidths, and the most steps."""
    _check.dtype(op, "image", image, DTYPES)
    if image.ndim not in (2, 3):
        _check.fail(op, "image", "have shape [H, W] or [H, W, C]", tuple(image.shape))
    height, width = (int(n) for n in image.shape[:2])
    channels = int(image.shape[2]) if image.ndim == 3 else 1
    if not 1 <= channels <= MOST_FEATURES - 2:
        _check.fail(op, "image", f"have 1 to {MOST_FEATURES - 2} channels (axis 2)", channels)
    if height * width >= 2**31 - 1:
        _check.fail(op, "image", "have fewer than 2^31 - 1 pixels", height * width)
    spatial = _check.real(op, "spatial", spatial, positive=True)
    range = _check.real(op, "range", range, positive=True)
    how = options(op, kernel, max_iter, tol)
    rows = _array.contiguous(image) if _array.on_gpu(image) else _array.as_numpy(image)
    points = _array.empty(rows, (height * width, channels + 2))
    points[:, :channels] = rows.reshape((height * width, channels)) / range
    place = np.indices((height, width)).reshape(2, -1).T / spatial
    points[:, channels:] = _array.from_host(np.ascontiguousarray(place, _array.dtype_name(image)), points)
    if height * width == 0:
        return points, 0
    found = climb(op, "image / range", points, 1.0, *how, stacklevel=6)
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
