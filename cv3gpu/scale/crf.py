"""The dense CRF of an image larger than memory."""

from __future__ import annotations

import functools
import math
from statistics import NormalDist
from typing import Any

from .. import _array, _check
from ..crf import arguments
from ..crf.operators import dense_crf as whole_dense_crf
from ..crf.operators import dense_crf_part
from ._tiles import Place, by_chunks, check_array, side

__all__ = ["crf_halo", "dense_crf"]

OP = "scale.dense_crf"
# How far one filter on a plain lattice reaches along x and y, in widths: a vertex's simplex, a blur along every axis,
# and the simplex of a vertex again.
REACH = (2 * math.sqrt(3), 4.0)

SLOWER = 1e-4  # errors below it fall by a factor of 8 a width, as measured


def crf_halo(
    error: float = 1e-3,
    *,
    theta_gamma: Any = 3.0,
    theta_alpha: Any = 80.0,
    n_iter: int = 10,
    method: str = "lattice",
) -> tuple[int, int]:
    r"""The halo with which chunks of an image have the marginals of the whole image, up to an error.

    With a halo of h pixels a chunk does not see the share ``t = erfc(h / (theta sqrt(2))) / 2`` of a Gaussian beyond
    one of its edges, in each of n_iter iterations: h is such that ``n_iter t = error``, for the wider kernel. Errors
    also wander, from pixel to pixel: below 1e-4 they fall more slowly, and each factor of 8 takes one width more.

    Parameters
    ----------
    error : float, from 0 to 0.5
        The wanted mean of \|dQ\| over the pixels of a chunk. 0: the whole image's result up to rounding, of the method
        ``"lattice"`` only.
    theta_gamma, theta_alpha : number or pair (x, y), pixels
        As :func:`dense_crf` takes them.
    n_iter : int
        Iterations.
    method : {"lattice", "lattice_fine", "exact"}

    Returns
    -------
    (rows, columns) : pixels

    Raises
    ------
    TypeError, ValueError
        An error that is no number from 0 to 0.5, or is 0 where no halo is enough; a width that is not positive.

    Notes
    -----
    What is bounded and what not: the rule is a model of the mean, not a proof; its slope below 1e-4 is measured. On a
    photograph the mean error was below ``error`` in all cases (the table is in ``docs/scale.md``). The largest error of
    a pixel is not bounded by it: where two labels are nearly equal, a small change of the messages decides, and mean
    field makes it large within a few iterations.

    The lattice itself reaches only so far: with ``method="lattice"`` no pixel further away than
    ``4 theta (n_iter + 1)`` along y and ``2 sqrt(3) theta (n_iter + 1)`` along x has any influence, the one more being
    for the normalisation. This is a bound, and the halo is never more.

    Examples
    --------
    >>> from cv3gpu.scale import crf_halo
    >>> crf_halo(1e-3), crf_halo(1e-2, theta_alpha=20, n_iter=5)
    ((298, 298), (58, 58))
    >>> crf_halo(0, theta_alpha=4, theta_gamma=1, n_iter=2)
    (48, 42)
    """
    op = "scale.crf_halo"
    error = _check.real(op, "error", error)
    n_iter = _check.integer(op, "n_iter", n_iter, 0)
    _check.choice(op, "method", method, arguments.METHODS)
    if not 0 <= error <= 0.5:
        _check.fail(op, "error", "be from 0 to 0.5", error)
    if error == 0 and method != "lattice":
        _check.fail(op, "error", f"be positive for method {method!r}, whose Gaussians reach everywhere", error)
    gamma, alpha = (
        arguments.widths_xy(op, name, value)
        for name, value in (("theta_gamma", theta_gamma), ("theta_alpha", theta_alpha))
    )
    if n_iter == 0:
        return 0, 0
    widest = [max(pair) for pair in zip(gamma, alpha, strict=True)]
    exact = [math.ceil(REACH[k] * widest[k] * (n_iter + 1)) for k in (0, 1)]
    if error == 0:
        return exact[1], exact[0]
    share = max(error, SLOWER) / n_iter
    widths = max(0.0, -NormalDist().inv_cdf(share)) + max(0.0, math.log(SLOWER / error, 8))
    wanted = [math.ceil(widths * theta) for theta in widest]
    if method == "lattice":
        wanted = [min(pair) for pair in zip(wanted, exact, strict=True)]
    return wanted[1], wanted[0]


def dense_crf(
    unary: Any,
    image: Any = None,
    *,
    halo: int | tuple[int, int] | None = None,
    theta_gamma: Any = 3.0,
    compat_smooth: Any = 3.0,
    theta_alpha: Any = 80.0,
    theta_beta: Any = 13.0,
    compat_bilateral: Any = 10.0,
    n_iter: int = 10,
    method: str = "lattice",
    normalization: str = "symmetric",
) -> Any:
    """:func:`cv3gpu.dense_crf` of a dask array, chunk by chunk with a halo.

    Parameters
    ----------
    unary : dask array, [L, H, W], float32/float64
        -log p; chunks of NumPy or CuPy arrays.
    image : dask array, [H, W, C] or [H, W], uint8/float32/float64, or None
        Chunked as unary, or else it is rechunked to it.
    halo : int or pair (rows, columns), pixels, optional
        How much a chunk sees beside its own pixels. Left out, it is :func:`crf_halo` of an error of 1e-3.
    theta_gamma, compat_smooth, theta_alpha, theta_beta, compat_bilateral, n_iter, method, normalization
        As for :func:`cv3gpu.dense_crf`.

    Returns
    -------
    dask array, [L, H, W]
        The marginals, of unary's dtype, not computed yet.

    Raises
    ------
    BackendUnavailableError
        dask is not installed.
    TypeError, ValueError
        What is no dask array, or of wrong shape; what :func:`cv3gpu.dense_crf` refuses.

    Notes
    -----
    How far this is from the marginals of the whole image, and what is not bounded: :func:`crf_halo`. Chunks that are
    smaller than the halo are joined first. A pixel of a square chunk of side s is computed
    ``(1 + 2 halo / s)^2`` times: take chunks of several halos.

    Chunks know where they lie in the image, so that the lattice's simplices are the whole image's: with origins of
    their own two chunks see different lattices, and their marginals differ by more than most halos leave out. The
    normalisation K 1 is that of the chunk with its halo; at its own pixels it is the image's up to the same tail.

    Examples
    --------
    >>> import dask.array as da, numpy as np, cv3gpu
    >>> rng = np.random.default_rng(0)
    >>> image = rng.integers(0, 255, (60, 90, 3), dtype=np.uint8)
    >>> unary = rng.random((2, 60, 90))
    >>> widths = {"theta_alpha": 2, "theta_gamma": 1, "n_iter": 1}
    >>> q = cv3gpu.scale.dense_crf(
    ...     da.from_array(unary, chunks=(2, 60, 45)), da.from_array(image, chunks=(60, 45, 3)),
    ...     halo=cv3gpu.scale.crf_halo(0, **widths), **widths)
    >>> q.chunks, bool(abs(q.compute() - cv3gpu.dense_crf(unary, image, **widths)).max() < 1e-9)
    (((2,), (60,), (45, 45)), True)
    """
    check_array(OP, "unary", unary)
    _check.ndim(OP, "unary", unary, 3, "[L, H, W]")
    letters = ""
    if image is not None:
        check_array(OP, "image", image)
        if image.ndim not in (2, 3) or image.shape[:2] != unary.shape[1:]:
            _check.fail(OP, "image", f"have shape {list(unary.shape[1:])} or [.., .., C]", tuple(image.shape))
        letters = "hwc"[: image.ndim]
    values = (theta_gamma, compat_smooth, theta_alpha, theta_beta, compat_bilateral)
    options = {
        **dict(zip(arguments.PARAMETERS, values, strict=True)),
        "n_iter": _check.integer(OP, "n_iter", n_iter, 0),
        "method": method,
        "normalization": normalization,
    }
    labels = int(unary.shape[0])
    tried = _array.zeros(unary._meta, (labels, 1, 1))  # what is wrong with an option is told here, not by a worker
    pixel = None if image is None else _array.zeros(image._meta, (1, 1, *map(int, image.shape[2:])))
    whole_dense_crf(tried, pixel, **{**options, "n_iter": 0})
    if halo is None:
        rows, columns = crf_halo(theta_gamma=theta_gamma, theta_alpha=theta_alpha, n_iter=n_iter, method=method)
    else:
        rows, columns = _check.pair(OP, "halo", halo, 0)
    sides = [side(unary.chunks[1 + k], one, one) for k, one in enumerate((rows, columns))]
    arrays = [(unary.rechunk({0: -1}), "lhw")]
    if image is not None:
        arrays.append((image.rechunk({2: -1}) if image.ndim == 3 else image, letters))
    function = functools.partial(_part, options=options)
    return by_chunks(function, arrays, sides[0], sides[1], "lhw", unary._meta)


def _part(chunks: tuple[Any, ...], row: Place, column: Place, options: dict[str, Any]) -> Any:
    chunks = tuple(map(_array.contiguous, chunks))
    return dense_crf_part(*chunks, origin=(column.start, row.start), **options)
