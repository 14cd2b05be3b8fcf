"""Laplacians of affinities, and the value of a cut."""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import _array, _check
from ._sparse import sparse_like
from .matrix import Given, given

__all__ = ["laplacian", "ncut_value"]

NORMALIZATIONS = ("symmetric", "random_walk")


def laplacian(affinity: Any, *, normalization: str | None = None) -> Any:
    """The Laplacian L = D - A of an affinity, or a normalised one.

    ``"symmetric"``: D^-1/2 L D^-1/2; ``"random_walk"``: D^-1 L. Rows of vertices without edges are zero in all three.

    Parameters
    ----------
    affinity : PixelAffinity, sparse matrix or array, [N, N]
        Symmetric and not negative.
    normalization : None, "symmetric" or "random_walk"

    Returns
    -------
    sparse matrix, [N, N], by rows
        Of the affinity's library, device and dtype.

    Raises
    ------
    TypeError, ValueError
        Where an argument is not as said above.

    References
    ----------
    von Luxburg, "A tutorial on spectral clustering", 2007, section 3.

    Examples
    --------
    >>> import numpy as np
    >>> from cv3gpu import laplacian
    >>> laplacian(np.array([[0.0, 2.0], [2.0, 0.0]]), normalization="random_walk").toarray()
    array([[ 1., -1.],
           [-1.,  1.]])
    """
    op = "laplacian"
    if normalization is not None:
        _check.choice(op, "normalization", normalization, NORMALIZATIONS)
    from scipy import sparse

    what = given(op, affinity)
    weights = what.sparse()
    degree = np.asarray(weights.sum(axis=1)).ravel()
    matrix = sparse.diags_array(degree) - weights
    inverse = np.divide(1, degree, out=np.zeros_like(degree), where=degree > 0)
    if normalization == "symmetric":
        root = sparse.diags_array(np.sqrt(inverse))
        matrix = root @ matrix @ root
    elif normalization == "random_walk":
        matrix = sparse.diags_array(inverse) @ matrix
    matrix = matrix.tocsr()
    matrix.sort_indices()
    return sparse_like(matrix.data.astype(what.dtype), matrix.indices, matrix.indptr, what.like)


def ncut_value(affinity: Any, labels: Any) -> float:
    """The normalised cut of a segmentation: the sum over segments of cut / volume.

    The cut of a segment is the weight of all edges that leave it, its volume the sum of its degrees. Both are sums of
    weights, never differences, so that small cuts keep their digits. A segment without weight counts nothing.

    Parameters
    ----------
    affinity : PixelAffinity, sparse matrix or array, [N, N]
        Symmetric and not negative.
    labels : array, [N] or, of a pixel affinity, [H, W], integers

    Returns
    -------
    float

    Raises
    ------
    TypeError, ValueError
        Where an argument is not as said above.

    References
    ----------
    Shi and Malik, "Normalized cuts and image segmentation", PAMI 2000, equations 2 and 5.

    Examples
    --------
    >>> import numpy as np
    >>> from cv3gpu import ncut_value
    >>> round(ncut_value(np.array([[1.0, 0.5], [0.5, 1.0]]), np.array([0, 1])), 4)
    0.6667
    """
    op = "ncut_value"
    what = given(op, affinity)
    values = _array.host_values(op, "labels", labels)
    _check.integers(op, "labels", labels)
    shapes = [(what.size,)] + ([what.pixels.grid] if what.pixels is not None else [])
    if tuple(labels.shape) not in shapes:
        wanted = " or ".join(f"[{', '.join(map(str, shape))}]" for shape in shapes)
        _check.fail(op, "labels", f"have shape {wanted}", tuple(labels.shape))
    segment = np.unique(values.ravel(), return_inverse=True)[1]
    cut, volume = _cuts(what, segment, int(segment.max(initial=-1)) + 1)
    return float(np.divide(cut, volume, out=np.zeros(len(cut)), where=volume > 0).sum())


def _cuts(what: Given, segment: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Cut and volume of each segment."""
    if what.pixels is None:
        w = what.matrix.tocoo()
        i, j = w.coords
        leaves = segment[i] != segment[j]
        return np.bincount(segment[i[leaves]], w.data[leaves], count), np.bincount(
            segment, np.asarray(what.matrix.sum(axis=1)).ravel(), count
        )
    pixels = what.pixels.host()
    cut: Any = np.zeros(count)
    for one, other, weights in pixels.neighbours(segment.reshape(pixels.grid)):
        leaves = one != other
        weight = weights[leaves].astype(np.float64)
        cut += np.bincount(one[leaves], weight, count) + np.bincount(other[leaves], weight, count)
    degree = pixels.stencils()[0].sums() + pixels.self_weight
    return cut, np.bincount(segment, degree, count)
