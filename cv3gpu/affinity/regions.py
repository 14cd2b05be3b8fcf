"""The region adjacency graph: superpixels that touch, and how alike their mean features are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .. import _array, _check
from .._array import array_op
from ._sparse import sparse_like

__all__ = ["check_superpixels", "region_affinity"]

OP = "region_affinity"
DTYPES = ("float32", "float64")

Array = np.ndarray[Any, Any]


def check_superpixels(op: str, superpixels: Any) -> Array:
    """Labels of regions [H, W] on the host, checked: integers from 0 without gaps."""
    values = _array.host_values(op, "superpixels", superpixels)
    _check.integers(op, "superpixels", superpixels)
    _check.ndim(op, "superpixels", superpixels, 2, "[H, W]")
    if 0 in superpixels.shape:
        _check.fail(op, "superpixels", "not be empty", tuple(superpixels.shape))
    labels = values.astype(np.int64)
    if (least := int(labels.min())) < 0:
        _check.fail(op, "superpixels", "not be negative", least)
    count = int(labels.max()) + 1
    if count > labels.size or not (there := np.bincount(labels.ravel(), minlength=count) > 0).all():
        absent = int(np.argmin(there)) if count <= labels.size else _first_gap(labels)
        advice = "number them anew: np.unique(superpixels, return_inverse=True)[1]"
        _check.fail(op, "superpixels", "be numbered from 0 without gaps", f"no region {absent}", advice)
    return labels


def _first_gap(labels: Array) -> int:
    found = np.unique(labels)
    return int(np.argmax(found != np.arange(len(found))))


@array_op("image", "superpixels")
def region_affinity(
    image: Any,
    superpixels: Any,
    *,
    sigma: float = 0.01,
    connectivity: int = 8,
    boundary: bool = False,
    self_weight: float = 1.0,
) -> Any:
    """The affinities of adjacent superpixels: ``exp(-|m_i - m_j|^2 / sigma)``, of the means m of their features.

    Parameters
    ----------
    image : array, [H, W] or [H, W, C], float32 or float64
        Features in any unit.
    superpixels : array, [H, W], integers
        The region of each pixel, from 0 without gaps, as `slic` gives them.
    sigma : float
        In squared units of the features; 0.01 is a width of 0.1, which `pixel_affinity` has by default.
    connectivity : int, 4 or 8
        Regions are adjacent where pixels touch by edges, or by corners as well.
    boundary : bool
        Multiply by how many pairs of pixels touch, so that a long border holds more.
    self_weight : float, not negative
        The diagonal.

    Returns
    -------
    sparse matrix, [M, M], of the image's dtype
        SciPy's, CuPy's or torch's, by rows; M regions.

    Raises
    ------
    TypeError, ValueError
        Where an argument is not as said above, or a feature is not finite.

    Notes
    -----
    Means are sums in float64, by rows of pixels: the same bits from run to run. The work is done on the CPU; arrays of
    a GPU are copied there and the graph is copied back. There is no gradient.

    References
    ----------
    Tremeau and Colantoni, "Regions adjacency graph applied to color image segmentation", IEEE TIP 2000. scikit-image's
    `graph.rag_mean_color(mode="similarity")` has the same weights, on an image of 0-255 with a sigma of 255.

    Examples
    --------
    >>> import numpy as np
    >>> from cv3gpu import region_affinity
    >>> superpixels = np.array([[0, 0, 1], [2, 2, 1]])
    >>> image = np.array([[0.0, 0.0, 0.1], [0.0, 0.0, 0.1]])
    >>> region_affinity(image, superpixels, sigma=0.1).toarray().round(3)
    array([[1.   , 0.905, 1.   ],
           [0.905, 1.   , 0.905],
           [1.   , 0.905, 1.   ]])
    """
    _check.dtype(OP, "image", image, DTYPES)
    if image.ndim not in (2, 3) or image.shape[-1] < 1:
        _check.fail(OP, "image", "have shape [H, W] or [H, W, C] with C at least 1", tuple(image.shape))
    width = _check.real(OP, "sigma", sigma, positive=True)
    steps = _check.half_neighbours(OP, "connectivity", connectivity)
    boundary = _check.flag(OP, "boundary", boundary)
    own = _check.not_negative(OP, "self_weight", self_weight)
    labels = check_superpixels(OP, superpixels)
    _check.shape(OP, "superpixels", superpixels, image.shape[:2])
    pixels = _array.to_host(image).astype(np.float64).reshape(labels.size, -1)
    if not np.isfinite(pixels).all():
        _check.fail(OP, "image", "be finite", pixels[~np.isfinite(pixels)][0])
    count = int(labels.max()) + 1
    size = np.bincount(labels.ravel())
    means = np.stack([np.bincount(labels.ravel(), channel) for channel in pixels.T], 1) / size[:, None]
    one, other, touching = _adjacent(labels, steps, count)
    weight = np.exp(-((means[one] - means[other]) ** 2).sum(1) / width)
    if boundary:
        weight *= touching
    from scipy import sparse

    diagonal = np.arange(count if own else 0)
    rows, columns = np.concatenate([one, other, diagonal]), np.concatenate([other, one, diagonal])
    values = np.concatenate([weight, weight, np.full(len(diagonal), own)])
    matrix = sparse.csr_array((values, (rows, columns)), (count, count))
    matrix.sort_indices()
    return sparse_like(matrix.data.astype(_array.dtype_name(image)), matrix.indices, matrix.indptr, image)


def _adjacent(labels: Array, steps: Sequence[tuple[int, int]], count: int) -> tuple[Array, Array, Array]:
    """Each pair of adjacent regions, the smaller label first, and how many pairs of pixels touch."""
    height, width = labels.shape
    pairs = []
    for dy, dx in steps:
        here = labels[: height - dy, max(0, -dx) : width - max(0, dx)]
        there = labels[dy:, max(0, dx) : width - max(0, -dx)]
        apart = here != there
        one, other = here[apart], there[apart]
        pairs.append(np.minimum(one, other) * count + np.maximum(one, other))
    found, touching = np.unique(np.concatenate(pairs), return_counts=True)
    return *np.divmod(found, count), touching
