"""Spectral clustering: clusters are parts of a graph that few edges leave, not balls around means.

Which two parts? Give every vertex a number, y_i = +1 on one side and -1 on the other. Then the sum over edges of
``w_ij (y_i - y_j)^2`` is four times the weight of the edges between the sides, the cut. In matrices that sum is
y^T (D - W) y, with W the weights and D their sums. To find the best of 2^N such y is hard, so any real numbers are
allowed. The y that makes ``y^T (D - W) y / y^T D y`` least is an eigenvector of (D - W) y = lambda D y, and lambda is
that quotient.

The first eigenvector is trivial. The same number everywhere costs nothing at all: lambda is 0, and nothing is told
apart. Two sides of the same volume have as much above zero as below, so what is wanted stands squarely to that constant
vector. The least quotient among these is the second eigenvector's: the first one that says anything, and its lambda
says how good the cut can be. It changes little between vertices that many strong paths join; where a few weak edges
hold two parts together, it jumps. The third one is best among those square to both, and so on. With k clusters, the
rows of the first k eigenvectors put every vertex at a place in k dimensions where the clusters, however bent in the
picture, are heaps that k-means finds. A graph that falls into c parts has c eigenvalues 0: each part is a cluster.
"""

from __future__ import annotations

import sys
import warnings
from typing import Any, NamedTuple

import numpy as np

from .. import _array, _check
from ..affinity import PixelAffinity, knn_affinity, rbf_affinity
from ..affinity.matrix import given
from ..eigen import Eigenpairs, smallest_eigenpairs
from ..eigen._problem import limits
from ._rounding import cluster_qr, discretize, in_order, kmeans_rows
from .embedding import Embedding, Graph, host_points

__all__ = ["SpectralClustering", "eigengap", "spectral_clustering"]

Array = np.ndarray[Any, Any]

OP = "spectral_clustering"
AFFINITIES = ("nearest_neighbors", "rbf", "precomputed")
NORMALIZATIONS = ("random_walk", "symmetric")
ASSIGN = ("kmeans", "discretize", "cluster_qr")
GAPS = ("relative", "absolute")
EIGENGAP = "eigengap"
_ZERO = 1e-12  # of the greatest eigenvalue that is there: smaller ones are zero


class SpectralClustering(NamedTuple):
    """What :func:`spectral_clustering` returns with ``return_info``."""

    labels: Any  # [N], int64
    eigenvalues: Any  # [k], float64
    eigenvectors: Any  # [N, k]
    residual: Any  # [k], float64
    n_iter: int
    converged: bool
    embedding: Embedding  # its rows are what was clustered

    def predict(self, x_new: Any) -> Any:
        """The clusters of vertices that were not there, as int64 labels [M].

        Each gets the coordinates that the eigen-equation gives it, ``y(x) = sum_j w(x, x_j) y_j / (d(x) (1 - lambda))``
        with d(x) the sum of its weights (``d(x) - lambda`` below without a normalization), and the label of the nearest
        centroid. A point that was there already gets the coordinates that it had.

        Parameters
        ----------
        x_new : array, [M, D], or weights, [M, N]
            Points of the kind that were clustered; weights of their edges to the N vertices, not negative, where
            the affinity was given. Of a graph of nearest neighbours, the weights are those that a point would
            have in it, were it the only one that is added.

        Returns
        -------
        array, [M], int64
            Of the library and on the device of ``x_new``.

        Raises
        ------
        TypeError, ValueError
            Where an argument is not as said above, or a vertex is connected to nothing.

        References
        ----------
        Bengio and others, "Out-of-sample extensions for LLE, Isomap, MDS, eigenmaps and spectral clustering", NIPS
        2003, proposition 1.
        """
        rows, labels = self.embedding.rows, _array.to_host(self.labels)
        new = self.embedding.extend(x_new, "predict")
        count = int(labels.max()) + 1
        sums = np.stack([np.bincount(labels, column, count) for column in rows.T], 1)
        centroids = sums / np.bincount(labels)[:, None]
        found = np.argmin((centroids * centroids).sum(1) - 2 * (new @ centroids.T), axis=1)
        return found if _array.family(x_new) is None else _array.from_host(found, x_new)


def eigengap(eigenvalues: Any, *, max_clusters: int | None = None, gap: str = "relative") -> int:
    """The number of clusters k after which the eigenvalues of a Laplacian jump most.

    k parts that nothing connects have k eigenvalues 0 and a greater one after them; weak edges between the parts
    move this picture a little. ``"relative"`` takes the k of the greatest quotient lambda_(k+1) / lambda_k, from k = 2
    on (the first eigenvalue is 0 always); ``"absolute"`` the k of the greatest difference, from k = 1 on. In graphs of
    neighbours the eigenvalues within a long cluster grow as squares, and so do their differences, up to the last one
    looked at: there the quotient serves.

    Parameters
    ----------
    eigenvalues : array, [n], n at least 2 (3 for ``"relative"``)
        Ascending, not negative, the trivial one included.
    max_clusters : int or None
        The greatest k; None: n - 1.
    gap : "relative" or "absolute"

    Returns
    -------
    int

    Raises
    ------
    TypeError, ValueError
        Where an argument is not as said above.

    Notes
    -----
    Where the graph falls into two parts or more, ``"relative"`` gives the number of parts: the quotient is infinite
    there. Of equal gaps the first counts.

    References
    ----------
    von Luxburg, "A tutorial on spectral clustering", 2007, section 8.3.

    Examples
    --------
    >>> import numpy as np
    >>> from cv3gpu.spectral import eigengap
    >>> eigengap(np.array([0.0, 0.01, 0.02, 0.6, 0.9]))
    3
    """
    op = "eigengap"
    least = 2 if _check.choice(op, "gap", gap, GAPS) == "relative" else 1
    given = _array.host_values(op, "eigenvalues", eigenvalues)
    _check.dtype(op, "eigenvalues", eigenvalues, ("float32", "float64"))
    values = np.asarray(given, np.float64)
    if values.ndim != 1 or len(values) <= least:
        _check.fail(op, "eigenvalues", f"have shape [n] with n at least {least + 1}", tuple(values.shape))
    if not (np.isfinite(values).all() and (np.diff(values) >= 0).all() and values[0] >= -_ZERO * values[-1]):
        _check.fail(op, "eigenvalues", "be finite, ascending and not negative", "other values")
    most = len(values) - 1
    if max_clusters is not None:
        most = _check.integer(op, "max_clusters", max_clusters, least, most)
    low, high = values[least - 1 : most], values[least : most + 1]
    if gap == "absolute":
        return least + int(np.argmax(high - low))
    floor = max(_ZERO * values[-1], np.finfo(np.float64).tiny)
    return least + int(np.argmax(np.maximum(high, floor) / np.maximum(low, floor)))


def spectral_clustering(
    x: Any,
    n_clusters: int | str | None,
    *,
    affinity: str = "nearest_neighbors",
    n_neighbors: int = 10,
    gamma: float = 1.0,
    normalization: str | None = "random_walk",
    seed: int = 0,
    eps: float | None = None,
    assign: str = "kmeans",
    n_init: int = 10,
    max_clusters: int = 10,
    tol: float = 1e-4,
    max_iter: int = 1000,
    return_info: bool = False,
) -> Any:
    """Clusters that few edges leave: k-means on the rows of the first eigenvectors of a graph's Laplacian.

    Why the second eigenvector is the first one that says anything is told at the head of this module.

    Parameters
    ----------
    x : array, [N, D], float32 or float64, or an affinity, [N, N]
        Points; or with ``affinity="precomputed"`` a graph: a pixel affinity, a sparse matrix, a dense array. A pixel
        affinity or a sparse ``x`` is a graph always.
    n_clusters : int, from 1 to N, "eigengap" or None
        The last two: what :func:`eigengap` finds among the first ``max_clusters`` + 1 eigenvalues.
    affinity : "nearest_neighbors", "rbf" or "precomputed"
        The graph over points: :func:`~cv3gpu.knn_affinity`, or :func:`~cv3gpu.rbf_affinity`.
    n_neighbors : int, from 2 to N
        Of ``"nearest_neighbors"``, the point itself counted; weights are 1, or 1/2 where one has the other alone.
    gamma : float, not negative
        Of ``"rbf"``: weights are exp(-gamma d^2).
    normalization : None, "random_walk" or "symmetric"
        None: eigenvectors of (D - W) y = lambda y, the unnormalised algorithm (it looks for parts with equally many
        vertices, the others for parts of equal volume). ``"random_walk"``: of (D - W) y = lambda D y, Shi and Malik's.
        ``"symmetric"``: of D^-1/2 (D - W) D^-1/2, with rows brought to length 1: Ng, Jordan and Weiss's.
    seed : int
        Of all random numbers. The same seed gives the same labels with the same number of threads.
    eps : float or None
        Of ``"rbf"``: edges go to points at most this far away. Without it all N^2 weights are held.
    assign : "kmeans", "discretize" or "cluster_qr"
        How rows become labels: by k-means; by the rotation of the eigenvectors that is nearest to indicator vectors (Yu
        and Shi); by a QR decomposition with pivoting (Damle, Minden and Ying), which needs no start.
    n_init : int
        Of k-means: how often to begin anew.
    max_clusters : int, from 2 on
        Of the eigengap; N - 1 where that is less.
    tol, max_iter
        Of :func:`~cv3gpu.smallest_eigenpairs`. Labels need no more than the default; eigenvalues are right to about the
        square of ``tol`` then.
    return_info : bool

    Returns
    -------
    labels : array, [N], int64
        From 0, in the order of their first vertices. Of the library and on the device of ``x``.

    With ``return_info``, a SpectralClustering: ``labels``; ``eigenvalues`` [k], ``eigenvectors`` [N, k], ``residual``
    [k] and ``n_iter`` as smallest_eigenpairs gives them (k is ``n_clusters``; ``max_clusters`` + 1 for the eigengap);
    ``converged``; and ``embedding``. Its ``predict(x_new)`` gives labels to new points.

    Raises
    ------
    TypeError, ValueError
        Where an argument is not as said above, or a vertex of a given graph has no edge at all (not with None).

    Warns
    -----
    ConvergenceWarning
        Where eigenpairs have not reached ``tol``.
    UserWarning
        Where the graph falls into more parts than clusters. There are many best answers then: each cluster is a union
        of parts. The largest parts are told apart; all smaller ones share a place in the embedding.

    Notes
    -----
    The graph is made, and eigenpairs are found, where the functions named above do it for ``x``; rows become labels on
    the CPU. An isolated vertex of the unnormalised problem is a part of its own. A graph of all pairs (``"rbf"``
    without ``eps``) fits for some thousand points: for more, see :func:`~cv3gpu.spectral.nystrom`. There is no
    gradient.

    k-means halves the way between two heaps of rows; the cut itself is not looked at again. Where two clusters touch in
    a few places, the split of least normalised cut is better (2,000 points on moons, noise 0.08: adjusted Rand index
    0.996 against 0.78). Where they overlap it is worse, as it then cuts off a small piece (5,000 points, noise 0.16:
    0.13 against 0.30). For that split, see ``normalized_cut(None, affinity=knn_affinity(x, 10), n_segments=2)``.

    References
    ----------
    von Luxburg, "A tutorial on spectral clustering", 2007, section 4. Shi and Malik, "Normalized cuts and image
    segmentation", PAMI 2000. Ng, Jordan and Weiss, "On spectral clustering: analysis and an algorithm", NIPS 2001.

    Examples
    --------
    >>> import numpy as np
    >>> from cv3gpu import spectral_clustering
    >>> turn = np.linspace(0, 6, 60)
    >>> ring = np.stack([np.cos(turn), np.sin(turn)], 1)
    >>> labels = spectral_clustering(np.concatenate([ring, 3 * ring]), 2, n_neighbors=4)
    >>> labels[[0, 30, 59, 60, 90, 119]]
    array([0, 0, 0, 1, 1, 1])
    """
    affinity = _check.choice(OP, "affinity", affinity, AFFINITIES)
    if normalization is not None:
        _check.choice(OP, "normalization", normalization, NORMALIZATIONS)
    assign = _check.choice(OP, "assign", assign, ASSIGN)
    tol = _check.real(OP, "tol", tol, positive=True)
    max_iter, n_init = (_check.integer(OP, *one, 1) for one in (("max_iter", max_iter), ("n_init", n_init)))
    seed = _check.integer(OP, "seed", seed, 0)
    return_info = _check.flag(OP, "return_info", return_info)
    if affinity == "precomputed" or _is_graph(x):
        weights, graph = _given(x, normalization)
    else:
        weights, graph = _made(x, affinity, n_neighbors, gamma, eps)
    wanted, k = _counts(n_clusters, max_clusters, graph.size)
    pairs = smallest_eigenpairs(
        weights, k, generalized=normalization is not None, tol=tol, max_iter=max_iter, seed=seed
    )
    values = _array.to_host(pairs.eigenvalues)
    count = eigengap(values, max_clusters=k - 1) if wanted is None else wanted
    vectors = _array.to_host(pairs.eigenvectors)[:, :count].astype(np.float64)
    unit = normalization == "symmetric" or assign != "kmeans"
    embedding = Embedding(graph, normalization is not None, unit, values[:count], vectors)
    labels = _array.from_host(in_order(_assigned(embedding, assign, seed, n_init)), pairs.eigenvectors)
    if not values[: count + 1].any():
        _warn_of_parts(weights, count)
    if not return_info:
        return labels
    return SpectralClustering(labels, *pairs, _converged(pairs, weights, normalization is not None, tol), embedding)


# ---- arguments ------------------------------------------------------------------------------------------


def _is_graph(x: Any) -> bool:
    """Whether x can't be points."""
    if isinstance(x, PixelAffinity) or (_array.family(x) is None and hasattr(x, "tocsr")):
        return True
    return _array.family(x) == "torch" and x.layout != sys.modules["torch"].strided


def _given(x: Any, normalization: str | None) -> tuple[Any, Graph]:
    """A graph of the caller's, checked."""
    size = given(OP, x).size
    if not size:
        _check.fail(OP, "x", "have at least one vertex", tuple(x.shape))
    if normalization is not None and not (degree := _degree(x)).all():
        vertex = int(np.flatnonzero(degree == 0)[0])
        advice = "give it a self weight, leave it out, or take normalization=None"
        _check.fail(OP, "x", "connect every vertex to something", f"none at vertex {vertex}", advice)
    return x, Graph(size)


def _made(x: Any, affinity: str, n_neighbors: int, gamma: float, eps: float | None) -> tuple[Any, Graph]:
    """A graph over points."""
    points = host_points(OP, "x", x)
    if 0 in points.shape:
        _check.fail(OP, "x", "hold at least one point in at least one dimension", points.shape)
    decay = _check.not_negative(OP, "gamma", gamma)
    if affinity == "nearest_neighbors":
        if eps is not None:
            _check.fail(OP, "eps", 'be None but for affinity="rbf"', eps)
        count = _check.integer(OP, "n_neighbors", n_neighbors, 2, max(2, len(points)))
        if len(points) == 1:  # it has no neighbour, but itself
            return rbf_affinity(x, gamma=0.0), Graph(1, points)
        return knn_affinity(x, count), Graph(len(points), points, count)
    reach = None if eps is None else _check.real(OP, "eps", eps, positive=True)
    return rbf_affinity(x, gamma=decay, eps=reach), Graph(len(points), points, None, decay, reach)


def _counts(n_clusters: int | str | None, max_clusters: int, size: int) -> tuple[int | None, int]:
    """The number of clusters, None where the eigenvalues say it, and of eigenpairs."""
    if n_clusters is None or n_clusters == EIGENGAP:
        most = min(_check.integer(OP, "max_clusters", max_clusters, 2), size - 1)
        if most < 2:
            _check.fail(OP, "x", "have at least 3 vertices for an eigengap", size)
        return None, most + 1
    if isinstance(n_clusters, str):
        _check.fail(OP, "n_clusters", 'be an integer, "eigengap" or None', repr(n_clusters), error=TypeError)
    count = _check.integer(OP, "n_clusters", n_clusters, 1, size)
    return count, count


# ---- results --------------------------------------------------------------------------------------------


def _assigned(embedding: Embedding, assign: str, seed: int, n_init: int) -> Array:
    if assign == "discretize":
        return discretize(embedding.eigenvectors, seed=seed)
    if assign == "cluster_qr":
        return cluster_qr(embedding.eigenvectors)
    return kmeans_rows(embedding.rows, len(embedding.eigenvalues), seed=seed, n_init=n_init)


def _degree(weights: Any) -> Array:
    """The degrees of a graph on the host."""
    if isinstance(weights, PixelAffinity):
        return _array.to_host(weights.degree)
    return np.asarray(given(OP, weights).matrix.sum(axis=1)).ravel()


def _warn_of_parts(weights: Any, clusters: int) -> None:
    from scipy import sparse

    matrix = weights if sparse.issparse(weights) else given(OP, weights).sparse()
    parts = int(sparse.csgraph.connected_components(matrix, directed=False)[0])
    if parts > clusters:
        text = (
            f"the graph falls into {parts} parts, more than {clusters} clusters: each cluster is a union of parts that "
            "share no edge; take more clusters, more neighbours or a wider kernel"
        )
        warnings.warn(f"{OP}: {text}", UserWarning, stacklevel=3)


def _converged(pairs: Eigenpairs, weights: Any, generalized: bool, tol: float) -> bool:
    """Whether the residuals are within the tolerance, or as small as rounding allows."""
    values, residual = (_array.to_host(part) for part in (pairs.eigenvalues, pairs.residual))
    least = values[values > 0].min(initial=np.inf) if values.any() else 0.0
    greatest = 2.0 if generalized else 2 * float(_degree(weights).max())
    return bool((residual <= limits(values, least, tol, greatest)).all())
