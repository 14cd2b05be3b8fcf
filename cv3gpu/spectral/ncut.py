"""Normalised cuts: an image or any graph, cut where its parts hang together least, measured by their own size.

The eigenvector of the smallest eigenvalue of (D - W) y = lambda D y says nothing: it is the same everywhere. The second
one is the real-valued relaxation of the best two-way cut, and a threshold turns it into one. What is cut off can be cut
again, each part by its own second eigenvector, or the first k eigenvectors can be rounded to k segments at once.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from .. import _array, _check
from .._array import array_op
from ..affinity import ncut_value, pixel_affinity
from ..affinity.matrix import Given, given
from ..affinity.pixel import PixelAffinity
from ..affinity.regions import check_superpixels, region_affinity
from ..eigen import Eigenpairs, smallest_eigenpairs
from ..errors import ConvergenceWarning
from . import _split
from ._rounding import discretize, in_order, kmeans_rows
from ._split import Plan, Rule, Split, Tree

__all__ = ["CutInfo", "NormalizedCut", "Split", "Threshold", "best_threshold", "normalized_cut"]

Array = np.ndarray[Any, Any]

OP = "normalized_cut"
METHODS = ("recursive", "kway")
ASSIGN = ("discretize", "kmeans")
MAX_NCUT = 0.04  # Shi and Malik's
CRUMB, LARGE = 3, 1000  # a segment of so few vertices, cut off so many, is not what anybody wants


class NormalizedCut(NamedTuple):
    """Labels [H, W] or [N], int64, and the sum of cut / volume over the segments."""

    labels: Any
    ncut: float


class CutInfo(NamedTuple):
    """A normalised cut, and how it was found."""

    labels: Any
    ncut: float
    splits: tuple[Split, ...]  # the two-way cuts in their order; () with "kway"
    leaves: tuple[int, ...]  # the node of each segment, see `Split`; () with "kway"
    eigenvalues: Array  # of the second eigenvector of each split, or of the first k
    residual: Array  # of these
    n_iter: int  # of all of them
    converged: bool


class Threshold(NamedTuple):
    """The best threshold of a vector: the vertices above it [..., N], its value and its normalised cut."""

    mask: Any
    threshold: Any
    ncut: Any


def normalized_cut(
    image: Any,
    *,
    affinity: Any = None,
    n_segments: int | None = None,
    max_ncut: float | None = None,
    min_size: int = 1,
    method: str = "recursive",
    superpixels: Any = None,
    assign: str = "discretize",
    max_stability: float | None = None,
    max_depth: int | None = None,
    tol: float = 1e-3,
    max_iter: int = 1000,
    seed: int = 0,
    return_info: bool = False,
) -> NormalizedCut | CutInfo:
    """Segment an image, or the vertices of a graph, by normalised cuts.

    The value of a segmentation is the sum over its segments of cut / volume: the weight of the edges that leave a
    segment, over the sum of its degrees. ``"recursive"`` cuts in two by the second generalised eigenvector, at the best
    of all its thresholds, and goes on with the parts: next is always the part whose own best cut is the smallest, until
    ``n_segments`` are there or no cut is within ``max_ncut``. ``"kway"`` rounds the first k eigenvectors at once.

    Parameters
    ----------
    image : array, [H, W] or [H, W, C], float32 or float64, or None
        Gets the affinity `pixel_affinity(image)`, with all that this has by default: features in 0-1. With an
        ``affinity`` it gives the labels their shape, and nothing else.
    affinity : PixelAffinity, sparse matrix or array, [N, N], optional
        Any symmetric graph without negative weights; of H W vertices by rows where there is an image, of the regions
        where there are superpixels.
    n_segments : int, from 1 to N, optional
        The most segments; needed by ``"kway"``.
    max_ncut : float, from 0 to 2, optional
        The greatest two-way cut that is made, each measured within the part that is cut. 0.04, which is Shi and
        Malik's, where ``n_segments`` is not given either; else any. Not for ``"kway"``.
    min_size : int
        The fewest vertices of a segment: thresholds that would cut off less are not taken. With ``"kway"``, smaller
        segments join the one that they share the most weight with.
    method : str
        ``"recursive"`` or ``"kway"``.
    superpixels : array, [H, W], integers, optional
        Labels of regions, from 0 without gaps: the graph is `region_affinity(image, superpixels)`, or ``affinity`` with
        one vertex a region, and the labels of regions are painted back. ``n_segments`` and ``min_size`` count regions.
    assign : str
        How ``"kway"`` rounds: ``"discretize"`` (Yu and Shi's rotation, of eigenvectors of equal lengths in D's inner
        product and in the plain one: the smaller cut counts) or ``"kmeans"`` on rows of length 1.
    max_stability : float, optional
        Shi and Malik's test for eigenvectors that vary without a step: with the fewest values in any of 32 bins of the
        histogram over the most in any above it, a part is not cut. The paper has 0.06.
    max_depth : int, optional
        The most cuts from the whole to a segment.
    tol, max_iter, seed
        Of the eigenvectors, see `smallest_eigenpairs`. At a tolerance of 1e-3 their cuts are those of exact ones.
    return_info : bool
        Also the cuts, eigenvalues, residuals and iterations.

    Returns
    -------
    labels : array, [H, W] or [N], int64
        From 0, without gaps, by the first vertex of each segment. Of the library and device of the image, or of the
        affinity.
    ncut : float
        `ncut_value` of the labels.
    splits, leaves, eigenvalues, residual, n_iter, converged
        With ``return_info``: see `CutInfo` and `Split`.

    Raises
    ------
    TypeError, ValueError
        Where an argument is not as said above, or, with ``"kway"``, a vertex has no edge at all.

    Warns
    -----
    ConvergenceWarning
        Where an eigenvector has not converged, or more parts than segments hang together by weights below rounding.
    UserWarning
        Where ``min_size`` is 1 and no more than 3 vertices were cut off 1000 or more: isolated pixels often have the
        best cut of all in a large image.

    Notes
    -----
    A part is a graph of its own: edges that leave it count neither for its eigenvector nor for the value of its cut.
    Where it falls into components, these are set apart at a cut of 0 without an eigenvector, the largest one first;
    so it does where all weights between parts are below 1e-17 of the degrees, and can't be told from none.

    All n - 1 thresholds of an eigenvector are tried, by sorting it and summing up differences, in two numbers of double
    precision each: a cut of 1e-20 beside degrees of 1e4 keeps its digits. Vertices of the same value stay together, and
    of equal cuts the lower threshold wins. A part of n pixels costs its eigenvector, about ten iterations of a
    multigrid-preconditioned solver, and 4 K n operations for K half offsets; the first part is all of the image.

    On a GPU, the first eigenvector of a pixel affinity is thresholded there; parts are cut on the CPU. The same seed
    gives the same labels with the same number of threads. There is no gradient.

    References
    ----------
    Shi and Malik, "Normalized cuts and image segmentation", PAMI 2000. Yu and Shi, "Multiclass spectral clustering",
    ICCV 2003.

    Examples
    --------
    >>> import numpy as np
    >>> from cv3gpu import normalized_cut
    >>> image = np.array([[0.0, 0.1, 0.9, 1.0], [0.1, 0.0, 1.0, 0.9]])
    >>> normalized_cut(image, n_segments=2).labels
    array([[0, 0, 1, 1],
           [0, 0, 1, 1]])
    """
    method = _check.choice(OP, "method", method, METHODS)
    assign = _check.choice(OP, "assign", assign, ASSIGN)
    min_size = _check.integer(OP, "min_size", min_size, 1)
    depth = None if max_depth is None else _check.integer(OP, "max_depth", max_depth, 0)
    steady = None if max_stability is None else _within("max_stability", max_stability, 1)
    bound = None if max_ncut is None else _within("max_ncut", max_ncut, 2)
    tol = _check.real(OP, "tol", tol, positive=True)
    max_iter = _check.integer(OP, "max_iter", max_iter, 1)
    seed = _check.integer(OP, "seed", seed, 0)
    return_info = _check.flag(OP, "return_info", return_info)
    if method == "kway":
        _only_recursive(n_segments, max_ncut=bound, max_stability=steady, max_depth=depth)
    affinity, shape, regions = _graph(image, affinity, superpixels)
    what = given(OP, affinity)
    if what.size == 0:
        _check.fail(OP, "affinity", "have a vertex", "(0, 0)")
    if shape is not None and regions is None and what.size != math.prod(shape):
        wanted = f"have {math.prod(shape)} vertices, one for each pixel of the image"
        _check.fail(OP, "affinity", wanted, what.size)
    if regions is not None and what.size != int(regions.max()) + 1:
        wanted = f"have {int(regions.max()) + 1} vertices, one for each region"
        _check.fail(OP, "affinity", wanted, what.size)
    count = None if n_segments is None else _check.integer(OP, "n_segments", n_segments, 1, what.size)
    if method == "kway":
        assert count is not None
        made = _kway(what, affinity, count, min_size, assign, (tol, max_iter, seed))
    else:
        most = bound if bound is not None else math.inf if count is not None else MAX_NCUT
        rule = Rule(count, most, min_size, steady, depth)
        made = _recursive(what, affinity, rule, (tol, max_iter, seed))
    labels = made.labels if regions is None else made.labels[regions]
    value = ncut_value(affinity, what.back(made.labels))
    labels = _array.from_host(labels if shape is None else labels.reshape(shape), what.like if image is None else image)
    result = made._replace(labels=labels, ncut=value)
    return result if return_info else NormalizedCut(result.labels, result.ncut)


# ---- arguments --------------------------------------------------------------------------------------------


def _within(argument: str, value: Any, most: float) -> float:
    number = _check.real(OP, argument, value)
    if not 0 <= number <= most:
        _check.fail(OP, argument, f"be from 0 to {most}", value)
    return number


def _only_recursive(n_segments: Any, **others: Any) -> None:
    """What goes with the other method is refused."""
    if n_segments is None:
        _check.fail(OP, "n_segments", 'be given with method="kway"', None)
    for name, value in others.items():
        if value is not None:
            _check.fail(OP, name, 'be None with method="kway"', value, 'it ends method="recursive"')


def _graph(image: Any, affinity: Any, superpixels: Any) -> tuple[Any, tuple[int, ...] | None, Array | None]:
    """The affinity, the shape of the labels (None: flat), and the region of each pixel where these are vertices."""
    if image is None and affinity is None:
        _check.fail(OP, "image", "be given, or an affinity", None)
    if image is not None:
        if _array.family(image) is None:
            _check.fail(OP, "image", "be a NumPy, CuPy or torch array", _check.kind(image), error=TypeError)
        if image.ndim not in (2, 3):
            _check.fail(OP, "image", "have shape [H, W] or [H, W, C]", tuple(image.shape))
        if 0 in image.shape:
            _check.fail(OP, "image", "not be empty", tuple(image.shape))
    shape = None if image is None else tuple(int(n) for n in image.shape[:2])
    if superpixels is None:
        if affinity is not None:
            return affinity, shape, None
        _check.dtype(OP, "image", image, ("float32", "float64"))
        return pixel_affinity(image), shape, None
    regions = check_superpixels(OP, superpixels)
    if shape is not None:
        _check.shape(OP, "superpixels", superpixels, shape)
    return region_affinity(image, superpixels) if affinity is None else affinity, regions.shape, regions


# ---- methods ----------------------------------------------------------------------------------------------


def _recursive(what: Given, affinity: Any, rule: Rule, solver: tuple[float, int, int]) -> CutInfo:
    root = None
    if what.pixels is not None and _array.on_gpu(what.like) and rule.n_segments != 1 and rule.max_depth != 0:
        root = _root(affinity, rule, *solver)
    tree = _split.grow(_split.Graph(what), rule, *solver, root=root)
    for text, kind in _complaints(tree, rule):
        _warn(text, kind)
    found = [split for split in tree.splits if not math.isnan(split.threshold)]
    return CutInfo(tree.labels, math.nan, tree.splits, tree.leaves, np.array([s.eigenvalue for s in found]),
                   np.array([s.residual for s in found]), sum(s.n_iter for s in found),
                   all(s.converged for s in found))  # fmt: skip


def _root(affinity: PixelAffinity, rule: Rule, tol: float, max_iter: int, seed: int) -> Plan | None:
    """The first cut of what lives on a GPU; None where it is not simply that of the second eigenvector."""
    if affinity.shape[0] < 2:
        return None
    pairs, said = _pairs(affinity, 2, tol, max_iter, seed)
    values, residual = (_array.to_host(x) for x in (pairs.eigenvalues, pairs.residual))
    if said or not values[1] > 0:
        return None
    vector = _array.contiguous(pairs.eigenvectors[:, 1])
    if rule.max_stability is not None and _split.stability(_array.to_host(vector)) > rule.max_stability:
        return None
    best = best_threshold(affinity, vector, min_size=rule.min_size)
    if math.isnan(best.threshold):
        return None
    above = _array.to_host(best.mask)
    solved = _split.Second(np.empty(0), float(values[1]), float(residual[1]), pairs.n_iter, True)
    sides = (_split.Pieces.of([np.flatnonzero(above == side)]) for side in (False, True))
    return Plan(best.ncut, (next(sides), next(sides)), best.threshold, solved)


def _pairs(affinity: Any, k: int, tol: float, max_iter: int, seed: int) -> tuple[Eigenpairs, list[str]]:
    """Eigenpairs, and what is to be said of their convergence."""
    with warnings.catch_warnings(record=True) as every:
        warnings.simplefilter("always", ConvergenceWarning)
        pairs = smallest_eigenpairs(affinity, k, tol=tol, max_iter=max_iter, seed=seed)
    said = []
    for one in every:
        if issubclass(one.category, ConvergenceWarning):
            said.append(str(one.message).partition(": ")[2])
        else:  # of other origin
            warnings.warn_explicit(one.message, one.category, one.filename, one.lineno)
    return pairs, said


def _warn(text: str, kind: type[Warning]) -> None:
    warnings.warn(f"{OP}: {text}", kind, stacklevel=4)


def _complaints(tree: Tree, rule: Rule) -> Iterator[tuple[str, type[Warning]]]:
    """What is to be said of a recursion."""
    late = [split for split in tree.splits if not split.converged]
    if late:
        worst = max(split.residual for split in late)
        text = f"{len(late)} of {len(tree.splits)} eigenvectors have not converged: the worst residual is {worst:.3g}"
        yield text, ConvergenceWarning
    if tree.mixed:
        text = (
            "parts of the graph hang together by weights below rounding, and there are more of them than segments: the "
            "largest were set apart"
        )
        yield text, ConvergenceWarning
    crumbs = [split for split in tree.splits if min(split.sizes) <= CRUMB and sum(split.sizes) >= LARGE]
    if rule.min_size == 1 and crumbs:
        one = crumbs[0]
        text = (
            f"{len(crumbs)} of {len(tree.splits)} cuts took no more than {CRUMB} vertices off a large part "
            f"({min(one.sizes)} of {sum(one.sizes)}): set min_size, or connect more loosely alike pixels (a larger "
            "sigma_intensity)"
        )
        yield text, UserWarning


def _kway(
    what: Given, affinity: Any, count: int, min_size: int, assign: str, solver: tuple[float, int, int]
) -> CutInfo:
    seed = solver[2]
    degree = np.asarray(what.matrix.sum(axis=1)).ravel() if what.pixels is None else what.pixels.degree
    if not (degree > 0).all():
        _check.fail(OP, "affinity", 'connect every vertex to something with method="kway"', "a vertex of degree 0")
    pairs, said = _pairs(affinity, count, *solver)
    for text in said:
        _warn(text, ConvergenceWarning)
    values, residual = (_array.to_host(x) for x in (pairs.eigenvalues, pairs.residual))
    vectors = _array.to_host(pairs.eigenvectors).astype(np.float64)
    if assign == "discretize":  # columns of equal length in D's inner product, and in the plain one
        scaled = vectors / np.sqrt(np.einsum("ij,ij->j", vectors, vectors))
        both = (discretize(x, seed=seed) for x in (vectors, scaled))
    else:
        both = (kmeans_rows(vectors, count, seed=seed, normalize=True) for _ in range(1))
    labels = min((_least(what, x, min_size) for x in both), key=lambda x: ncut_value(affinity, what.back(x)))
    return CutInfo(in_order(labels), math.nan, (), (), values, residual, pairs.n_iter, not said)


def _least(what: Given, labels: Array, min_size: int) -> Array:
    return _split.merged(what, labels, min_size) if min_size > 1 else labels


# ---- thresholds -------------------------------------------------------------------------------------------


@array_op("vector")
def best_threshold(affinity: Any, vector: Any, *, min_size: int = 1) -> Threshold:
    """The threshold of a vector over the vertices of a graph that has the smallest normalised cut.

    All n - 1 of them are tried: cut / volume of the vertices at or below the threshold, plus that of those above.

    Parameters
    ----------
    affinity : PixelAffinity, sparse matrix or array, [N, N]
        Symmetric and not negative; a pixel affinity may be of a batch of images.
    vector : array, [N], or [B, N] for a batch, of the affinity's library, device and dtype
        A second generalised eigenvector, for one.
    min_size : int
        The fewest vertices on either side.

    Returns
    -------
    mask : array, [N] or [B, N], bool
        The vertices above the threshold.
    threshold, ncut : float, or array, [B], float64
        The value of the vertex just not above it, and the normalised cut: nan and inf where no threshold leaves
        ``min_size`` vertices on both sides, and no vertex is above it then.

    Raises
    ------
    TypeError, ValueError
        Where an argument is not as said above, or the vector is not finite.

    Notes
    -----
    The cut is a prefix sum over the sorted vertices of what their edges add and take away, kept in two numbers of
    double precision: small cuts keep their digits. Equal values are not set apart; of equal cuts the lower threshold
    wins. Costs a sort and one pass over the weights. On the device of the affinity; the same bits on every run.

    References
    ----------
    Shi and Malik, "Normalized cuts and image segmentation", PAMI 2000, section 3.

    Examples
    --------
    >>> import numpy as np
    >>> from cv3gpu.spectral import best_threshold
    >>> path = np.diag([5.0, 1.0, 5.0], 1) + np.diag([5.0, 1.0, 5.0], -1)
    >>> best_threshold(path, np.array([0.1, 0.2, 0.3, 0.4])).mask
    array([False, False,  True,  True])
    """
    op = "best_threshold"
    least = _check.integer(op, "min_size", min_size, 1)
    graph = affinity if isinstance(affinity, PixelAffinity) else given(op, affinity)
    shape: tuple[int, ...]
    if isinstance(graph, Given):
        like, dtype, shape = graph.like, graph.dtype, (graph.size,)
    else:
        like, dtype, shape = graph.kept, _array.dtype_name(graph.kept), graph.shape[:-1]
    _array.check_beside(op, "vector", vector, "the affinity", like)
    _check.dtype(op, "vector", vector, (dtype,))
    _check.shape(op, "vector", vector, shape)
    if 0 in vector.shape:
        _check.fail(op, "vector", "not be empty", tuple(vector.shape))
    if not bool(_array.module(vector).isfinite(vector).all()):
        _check.fail(op, "vector", "be finite", "nan or inf")
    if _array.on_gpu(vector):
        from . import _split_gpu

        found = Threshold(*_split_gpu.best(graph, vector, least))
    else:
        found = _on_cpu(graph, vector, least)
    if len(shape) == 2:
        return found
    return Threshold(found.mask[0], float(found.threshold[0]), float(found.ncut[0]))


def _on_cpu(graph: PixelAffinity | Given, vector: Any, least: int) -> Threshold:
    if isinstance(graph, Given):
        each = [graph]
    else:
        images = [graph] if len(graph.shape) == 2 else [graph[i] for i in range(len(graph))]
        each = [given("best_threshold", image) for image in images]
    rows = np.ascontiguousarray(_array.as_numpy(vector)).reshape(len(each), -1)
    best = [
        _split.Graph(one).part(np.arange(one.size)).best(row, least)[0] for one, row in zip(each, rows, strict=True)
    ]
    threshold = np.array([one.threshold for one in best])
    mask = rows > np.where(np.isnan(threshold), math.inf, threshold)[:, None]
    ncut = np.array([one.ncut for one in best])
    return Threshold(*(_array.from_numpy(x, vector) for x in (mask, threshold, ncut)))
