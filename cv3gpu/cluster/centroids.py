"""k-means: Lloyd's iteration, or mini-batches, from k-means++ or k-means||."""

from __future__ import annotations

import math
import warnings
from typing import Any, NamedTuple

import numpy as np

from .. import _array, _check
from .._array import array_op
from .._threads import cores, each
from ..errors import ConvergenceWarning
from . import _cpu, _gpu, _lloyd, _sampled

__all__ = ["Assigned", "KMeans", "assign", "kmeans"]

OP = "kmeans"
DTYPES = ("float32", "float64")
INITS = ("k-means++", "k-means||", "random")
FARTHEST = {"float32": 1e36, "float64": 1e300}  # mean square difference to the first point


class KMeans(NamedTuple):
    """Clusters, see :func:`kmeans`."""

    labels: Any  # [..., N], int64
    centroids: Any  # [..., n_clusters, D]
    inertia: Any  # [...], float64
    n_iter: int


class Assigned(NamedTuple):
    """Points and their nearest centroids, see :func:`assign`."""

    labels: Any  # [..., N], int64
    inertia: Any  # [...], float64


class _Options(NamedTuple):
    clusters: int
    init: str  # "" with given centres
    n_init: int
    max_iter: int
    tol: float
    seed: int
    batch_size: int  # 0: all points in each iteration


class _Run(NamedTuple):
    """A result for one problem; arrays on the device, ``inertia`` on the host."""

    labels: Any
    centres: Any
    inertia: float
    n_iter: int
    settled: bool


def kmeans(
    x: Any,
    n_clusters: int,
    *,
    init: Any = "k-means++",
    n_init: int = 1,
    max_iter: int = 300,
    tol: float = 1e-4,
    seed: int = 0,
    sample_weight: Any = None,
    batch_size: int | None = None,
) -> KMeans:
    """Divide points into clusters around means: a local minimum of ``sum_i w_i |x_i - centroids[labels_i]|^2``.

    Lloyd's iteration: each point goes to its nearest centroid, each centroid to the mean of its points. With
    ``batch_size`` an iteration looks at that many points alone.

    Parameters
    ----------
    x : array, [..., N, D], float32/float64
        Points; leading dimensions are a batch of problems.
    n_clusters : int
        From 1 to N.
    init : "k-means++", "k-means||", "random", or array, [n_clusters, D] or [..., n_clusters, D], of the dtype of ``x``
        How centroids begin. ``"k-means++"``: one after another, each the best of ``2 + log(n_clusters)`` points that
        are drawn by their square distance to the nearest centroid so far; ``"k-means||"``: five rounds draw about
        ``2 n_clusters`` points each in that way, and k-means of those gives the centroids (fewer passes over the points
        where clusters are many); ``"random"``: at points, drawn by their weights.
    n_init : int
        How often to begin anew; the result of least inertia counts. 1 where ``init`` is an array.
    max_iter : int
        Iterations, or batches, at most.
    tol : float
        Ends when the squares of the centroids' shifts add up to at most ``tol`` times the mean variance of the features
        of ``x``. 0: when no label changes any more, or no centroid. With ``batch_size`` the sum is averaged over recent
        batches, those of half of the points or so; 0: after ``max_iter`` batches.
    seed : int
        Of the random numbers. Each problem of a batch has the same.
    sample_weight : array, [..., N], of the dtype of ``x``, or None
        Weights w of points, not negative; None: all 1.
    batch_size : int or None
        Points of a batch, drawn with equal chances; None: all points in each iteration.

    Returns
    -------
    labels : array, [..., N], int64
        The nearest centroid of each point, the lowest one of several. They belong to the centroids returned.
    centroids : array, [..., n_clusters, D], of the dtype of ``x``
    inertia : array, [...], float64
    n_iter : int
        Iterations (with ``batch_size``: batches) done; of several problems, the most.

    Raises
    ------
    TypeError
        If an argument is of another library, device or dtype, or an option of the wrong type.
    ValueError
        If shapes do not fit, points are fewer than clusters, values are not finite (or so far apart that squares
        overflow), or weights are negative or add up to 0.

    Warns
    -----
    ConvergenceWarning
        If ``max_iter`` iterations did not reach ``tol``.

    Notes
    -----
    A cluster that loses all of its points gets the one that is farthest from its centroid, as in scikit-learn; where
    all points coincide with centroids it stays where it was, and empty. With ``batch_size`` it stays in any case.

    With ``batch_size`` a centroid is the mean of all points that batches have given to it, and begins among three
    batches of points, drawn by weight. A pass over the points at the end gives labels and inertia.

    Square distances are sums of square differences in the dtype of ``x``; from 16 features on (on a GPU: from 9, or
    with many clusters) labels go by ``|c|^2 - 2 <x, c>``, of points less the first one (on a GPU: less their mean; in
    float32 on tensor cores, of TF32 parts that together are as exact as float32). Sums over points are float64 in a
    fixed order: the same bits on every run, for any number of threads and within a batch. CPU and GPU draw the same
    random numbers, and differ by rounding. Nothing of the size N x n_clusters is stored. The CPU keeps a second copy of
    ``x``. A GPU solves several problems one after another. No gradient.

    References
    ----------
    S. P. Lloyd, Least squares quantization in PCM, 1982. D. Arthur, S. Vassilvitskii, k-means++: the advantages of
    careful seeding, 2007 (section 5: the greedy variant). B. Bahmani, B. Moseley, A. Vattani, R. Kumar, S.
    Vassilvitskii, Scalable k-means++, 2012, algorithm 2. D. Sculley, Web-scale k-means clustering, 2010, algorithm 1.

    Examples
    --------
    >>> import numpy as np
    >>> from cv3gpu.cluster import kmeans
    >>> x = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [9.0, 9.0], [8.0, 9.0]])
    >>> labels, centroids, inertia, n_iter = kmeans(x, 2, init=x[[0, 3]])
    >>> labels.tolist(), centroids[1].tolist(), round(float(inertia), 4)
    ([0, 0, 0, 1, 1], [8.5, 9.0], 1.8333)
    """
    named = isinstance(init, str)
    if named:
        _check.choice(OP, "init", init, INITS)
    elif init is None:
        _check.fail(OP, "init", f"be one of {', '.join(map(repr, INITS))}, or an array", None, error=TypeError)
    options = _Options(
        _check.integer(OP, "n_clusters", n_clusters, 1),
        init if named else "",
        _check.integer(OP, "n_init", n_init, 1),
        _check.integer(OP, "max_iter", max_iter, 1),
        _check.not_negative(OP, "tol", tol),
        _check.integer(OP, "seed", seed, 0, 2**63 - 1),
        0 if batch_size is None else _check.integer(OP, "batch_size", batch_size, 1),
    )
    if not named and options.n_init != 1:
        _check.fail(OP, "n_init", "be 1 where init is an array", n_init)
    return _clustered(x, options, None if named else init, sample_weight)


def _solved(x: Any, options: _Options, init: Any = None, sample_weight: Any = None) -> KMeans:
    lead, start = _sizes(x, options, init, sample_weight)
    points, dims = (int(n) for n in x.shape[-2:])
    batch, clusters = math.prod(lead), options.clusters
    on_gpu = _array.on_gpu(x)
    plain = _array.contiguous if on_gpu else _array.as_numpy
    rows = plain(x).reshape((batch, points, dims))
    weights = None if sample_weight is None else plain(sample_weight).reshape((batch, points))
    labels = _array.empty(rows, (batch, points), "int64")
    centroids = _array.empty(rows, (batch, clusters, dims))
    inertia = np.empty(batch)

    def solve(b: int) -> _Run:
        weight = None if weights is None else weights[b]
        run = _best(rows[b], weight, None if start is None else start[b % len(start)], options, on_gpu)
        labels[b], centroids[b], inertia[b] = run.labels, run.centres, run.inertia
        return run

    if on_gpu or batch < 2 * cores():
        runs = [solve(b) for b in range(batch)]  # each of them in threads
    else:
        runs = each(solve, [(b,) for b in range(batch)])
    if late := sum(not run.settled for run in runs):
        some = f" in {late} of {batch} problems" if batch > 1 else ""
        warnings.warn(f"{OP}: {options.max_iter} iterations did not reach tol {options.tol}{some}; raise max_iter",
                      ConvergenceWarning, stacklevel=5)  # fmt: skip
    n_iter = max((run.n_iter for run in runs), default=0)
    found = labels.reshape((*lead, points)), centroids.reshape((*lead, clusters, dims))
    total = inertia.reshape(lead)
    if on_gpu:
        return KMeans(*found, _array.from_host(total, x), n_iter)
    out, centres = (_array.from_numpy(y, x) for y in found)
    return KMeans(out, centres, _array.from_numpy(total, x), n_iter)


def _sizes(x: Any, options: _Options, init: Any, weight: Any) -> tuple[tuple[int, ...], np.ndarray[Any, Any] | None]:
    """The batch, and given centres [1 or batch, K, D] in float64."""
    _check.dtype(OP, "x", x, DTYPES)
    if x.ndim < 2 or x.shape[-1] < 1:
        _check.fail(OP, "x", "have shape [..., N, D] with D at least 1", tuple(x.shape))
    *lead, points, dims = (int(n) for n in x.shape)
    if points < options.clusters:
        _check.fail(OP, "n_clusters", f"be at most the number of points ({points})", options.clusters)
    if points >= 2**31 - 2**10:
        _check.fail(OP, "x", "have fewer than 2^31 - 1024 points", points)
    _weights(OP, weight, x, (*lead, points))
    if init is None:
        return tuple(lead), None
    return tuple(lead), _given(OP, "init", init, x, (options.clusters, dims), lead)


def _weights(op: str, weight: Any, x: Any, shape: tuple[int, ...]) -> None:
    if weight is not None:
        _check.same_dtype(op, "sample_weight", weight, "x", x)
        _check.shape(op, "sample_weight", weight, shape)


def _given(op: str, name: str, centres: Any, x: Any, one: tuple[int | str, int], lead: list[int]) -> Any:
    """Centres [1 or batch, K, D] in float64 on the host, checked."""
    _check.same_dtype(op, name, centres, "x", x)
    _check.shape(op, name, centres, one if centres.ndim == 2 or not lead else (*lead, *one))
    start = _array.to_host(centres).astype(np.float64)
    start = start.reshape((math.prod(start.shape[:-2]), *start.shape[-2:]))
    if not np.isfinite(start).all():
        _check.fail(op, name, "be finite", "NaN or infinity")
    return start


def _data(op: str, x: Any, weight: Any, on_gpu: bool, massless: bool = False) -> tuple[Any, Any]:
    """The points of a problem, checked, and their weights on the host in float64."""
    data: Any = _gpu.Points(x, weight) if on_gpu else _cpu.Points(x, weight)
    most = FARTHEST[_array.dtype_name(x)]
    if not (data.finite and data.spread < most):
        _check.fail(op, "x", f"be finite, with mean squares of differences below {most:g}", "other values")
    host = None if weight is None else _array.to_host(weight).astype(np.float64)
    if host is not None and not (np.isfinite(host).all() and host.min() >= 0 and (massless or host.sum() > 0)):
        wanted = "be finite and not negative" if massless else "be finite, not negative and not all 0"
        _check.fail(op, "sample_weight", wanted, "other values")
    return data, host


def _best(x: Any, weight: Any, start: Any, options: _Options, on_gpu: bool) -> _Run:
    """The best of `n_init` runs on one problem."""
    data, host = _data(OP, x, weight, on_gpu)
    rng = np.random.default_rng(options.seed)
    best: _Run | None = None
    for _ in range(options.n_init):
        if start is not None:
            centres = start
        else:
            centres = _begin(data, host, options, rng)
        tol = options.tol * data.variance
        if options.batch_size:
            run = _Run(*_sampled.minibatch(data, centres, options.batch_size, options.max_iter, tol, rng))
        else:
            run = _Run(*data.lloyd(centres, options.max_iter, tol))
        if best is None or run.inertia < best.inertia:
            best = run._replace(labels=_array.copy(run.labels))
    assert best is not None
    return best


def _begin(data: Any, weight: np.ndarray[Any, Any] | None, options: _Options, rng: np.random.Generator) -> Any:
    """Centres to begin with."""
    if options.batch_size:
        data, weight = _sampled.start(data, weight, options.batch_size, options.clusters, rng)
    if options.init == "random":
        return data.rows(_lloyd.drawn(len(data.x), weight, options.clusters, rng))
    way = _sampled.plus_plus if options.init == "k-means++" else _sampled.oversampled
    return way(data, weight, options.clusters, rng)


_solved.__name__ = OP  # as errors name it
_clustered = array_op("x", "init", "sample_weight")(_solved)


@array_op("x", "centroids", "sample_weight")
def assign(x: Any, centroids: Any, sample_weight: Any = None) -> Assigned:
    """Give points to the nearest of centroids that are there already, such as those of :func:`kmeans` of other points.

    Parameters
    ----------
    x : array, [..., N, D], float32/float64
    centroids : array, [K, D] or [..., K, D], of the dtype of ``x``
        At least one.
    sample_weight : array, [..., N], of the dtype of ``x``, or None
        Weights w of points, not negative; None: all 1.

    Returns
    -------
    labels : array, [..., N], int64
        The nearest centroid of each point, the lowest one of several.
    inertia : array, [...], float64
        ``sum_i w_i |x_i - centroids[labels_i]|^2``

    Raises
    ------
    TypeError
        If an argument is of another library, device or dtype.
    ValueError
        If shapes do not fit, values are not finite (or so far apart that squares overflow), or weights are negative.

    Notes
    -----
    A step of Lloyd's iteration without its means; distances, ties, order and cost are those of :func:`kmeans`. No
    points have no labels. No gradient.

    Examples
    --------
    >>> import numpy as np
    >>> from cv3gpu.cluster import assign
    >>> labels, inertia = assign(np.array([[0.0], [1.0], [7.0]]), np.array([[0.5], [8.0]]))
    >>> labels.tolist(), float(inertia)
    ([0, 0, 1], 1.5)
    """
    op = "assign"
    _check.dtype(op, "x", x, DTYPES)
    if x.ndim < 2 or x.shape[-1] < 1:
        _check.fail(op, "x", "have shape [..., N, D] with D at least 1", tuple(x.shape))
    *lead, points, dims = (int(n) for n in x.shape)
    start = _given(op, "centroids", centroids, x, ("K", dims), lead)
    if 0 in start.shape[1:]:
        _check.fail(op, "centroids", "hold at least one", tuple(centroids.shape))
    _weights(op, sample_weight, x, (*lead, points))
    on_gpu, batch = _array.on_gpu(x), math.prod(lead)
    plain = _array.contiguous if on_gpu else _array.as_numpy
    rows = plain(x).reshape((batch, points, dims))
    weights = None if sample_weight is None else plain(sample_weight).reshape((batch, points))
    labels, inertia = _array.empty(rows, (batch, points), "int64"), np.zeros(batch)
    for b in range(batch if points else 0):
        data, _ = _data(op, rows[b], None if weights is None else weights[b], on_gpu, massless=True)
        labels[b], inertia[b] = data.labelled(start[b % len(start)])
    out, total = labels.reshape((*lead, points)), inertia.reshape(lead)
    if on_gpu:
        return Assigned(out, _array.from_host(total, x))
    return Assigned(_array.from_numpy(out, x), _array.from_numpy(total, x))
