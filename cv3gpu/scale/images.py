"""Operators of finite reach on images larger than memory: the halo is the operator's, the result the whole image's."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any

from .. import _array, _check
from ..affinity import pixel_affinity
from ..conv import conv2d as whole_conv2d
from ..resize import Axis, Sampling, checked_sampling, resized_part
from ..resize import interpolate as whole_interpolate
from ._tiles import Place, Side, by_chunks, check_array, joined, side

__all__ = ["affinity_degree", "affinity_product", "conv2d", "interpolate"]


# ---- resizing -------------------------------------------------------------------------------------------


def interpolate(
    x: Any,
    size: int | tuple[int, int] | None = None,
    scale_factor: float | tuple[float, float] | None = None,
    mode: str = "nearest",
    align_corners: bool | None = None,
    antialias: bool = False,
) -> Any:
    """:func:`cv3gpu.interpolate` of a dask array, chunk by chunk.

    Parameters
    ----------
    x : dask array, [N, C, H, W], float16/float32/float64
        Chunks of NumPy or CuPy arrays.
    size, scale_factor, mode, align_corners, antialias
        As for :func:`cv3gpu.interpolate`.

    Returns
    -------
    dask array, [N, C, Ho, Wo]
        Not computed yet. A chunk of the result is a chunk of x, resized: an image that is enlarged 8 times has chunks
        of 64 times the memory.

    Raises
    ------
    BackendUnavailableError
        dask is not installed.
    TypeError, ValueError
        What is no dask array; what :func:`cv3gpu.interpolate` refuses.

    Notes
    -----
    The halo is the filter's reach and two pixels of the result. Chunks that are smaller are joined: where an image is
    to shrink 1,000 times, they are some thousands of pixels wide.

    Each chunk knows where it and its result lie, and computes coordinates and weights as for the whole image: results
    are the whole image's bit for bit, with ``antialias`` to rounding (the sum of a row's weights is formed elsewhere).
    Chunks on a GPU that begin where a pixel of the result does, as in enlarging by whole factors, are resized by the
    kernel, from their own corner: to rounding there, and ``"nearest"``, which decides in float32, may take the other of
    two pixels whose border it hits. For other sizes a tap is a gather, which reads the chunk several times.

    Examples
    --------
    >>> import dask.array as da, numpy as np, cv3gpu
    >>> x = np.random.default_rng(0).random((1, 1, 64, 96))
    >>> y = cv3gpu.scale.interpolate(da.from_array(x, chunks=(1, 1, 32, 32)), scale_factor=2, mode="bilinear")
    >>> y.chunks[2:], bool((y.compute() == cv3gpu.interpolate(x, scale_factor=2, mode="bilinear")).all())
    (((64, 64), (64, 64, 64)), True)
    """
    op = "scale.interpolate"
    check_array(op, "x", x)
    _check.ndim(op, "x", x, 4, "[N, C, H, W]")
    nothing = _array.zeros(x._meta, (0, 0, *map(int, x.shape[2:])))
    sampling = checked_sampling(op, nothing, size, scale_factor, mode, align_corners, antialias)
    corners = bool(align_corners)
    each_side = tuple(zip(x.chunks[2:], (sampling.h, sampling.w), strict=True))
    function = functools.partial(_sampled, sampling=sampling)
    rows, columns = (_side(chunks, axis, sampling) for chunks, axis in each_side)
    if _array.on_gpu(x._meta):
        above, beside = (_periodic_side(chunks, axis, sampling, corners) for chunks, axis in each_side)
        if above is not None and beside is not None:
            rows, columns = above, beside
            options = {"mode": mode, "align_corners": align_corners, "antialias": antialias}
            scales = rows.scale, columns.scale
            function = functools.partial(_resized, scales=scales, extra=int(corners), options=options)
    return by_chunks(function, [(x, "nchw")], rows, columns, "nchw", x._meta)


def _side(chunks: tuple[int, ...], axis: Axis, sampling: Sampling) -> Side:
    """Chunks of any sizes, and the pixels of the result that lie in each."""
    stretch = max(axis.scale, 1.0) if sampling.antialias else 1.0
    halo = math.ceil(sampling.taps / 2 * stretch + 2 * axis.scale) + 2
    ends = joined(chunks, halo) if axis.scale else (0, axis.n_in)
    out_ends = (0, *(round(end / axis.scale) for end in ends[1:-1]), axis.n_out)
    halo = halo if len(ends) > 2 else 0
    return Side(ends, out_ends, halo, halo, None)


def _sampled(chunks: tuple[Any, ...], row: Place, column: Place, sampling: Sampling) -> Any:
    (x,) = chunks
    h, w = (
        axis._replace(n_in=int(n), n_out=place.size, in_start=place.start, out_start=place.out)
        for axis, n, place in zip((sampling.h, sampling.w), x.shape[2:], (row, column), strict=True)
    )
    return resized_part(x, sampling, h, w)


def _periodic_side(chunks: tuple[int, ...], axis: Axis, sampling: Sampling, corners: bool) -> Side | None:
    """Chunks that a kernel can resize from their own corner; None where none begins as the image does."""
    n, m, extra = axis.n_in, axis.n_out, int(corners)  # the last pixel of both belongs to no period then
    if not corners and axis.scale != n / m:
        return None
    if len(chunks) == 1 or min(n, m) <= extra:
        return Side((0, n), (0, m), 0, 0, None)
    common = math.gcd(n - extra, m - extra)
    p, q = (n - extra) // common, (m - extra) // common
    if p > max(chunks):
        return None
    stretch = max(p / q, 1.0) if sampling.antialias else 1.0
    halo = math.ceil((math.ceil(sampling.taps / 2 * stretch) + 1) / p) * p
    return side(chunks, halo, halo + extra, (p, q), m)


def _resized(
    chunks: tuple[Any, ...],
    row: Place,
    column: Place,
    scales: tuple[tuple[int, int] | None, tuple[int, int] | None],
    extra: int,
    options: dict[str, Any],
) -> Any:
    (x,) = chunks
    height, width = (
        place.size if scale is None else (n - extra) // scale[0] * scale[1] + extra
        for place, scale, n in zip((row, column), scales, map(int, x.shape[2:]), strict=True)
    )
    return whole_interpolate(x, size=(height, width), **options)


# ---- convolution ----------------------------------------------------------------------------------------


def conv2d(x: Any, weight: Any, bias: Any = None, *, dilation: int | Sequence[int] = 1, groups: int = 1) -> Any:
    """:func:`cv3gpu.conv2d` of a dask array with zeros around it and the size kept, chunk by chunk.

    Parameters
    ----------
    x : dask array, [N, C, H, W], float16/float32/float64
        Chunks of NumPy or CuPy arrays.
    weight : array, [Cout, C / groups, kh, kw], of the library and dtype of x's chunks
        It travels with each task.
    bias : array, [Cout], optional
    dilation, groups
        As for :func:`cv3gpu.conv2d`, whose ``padding`` is ``"same"``.

    Returns
    -------
    dask array, [N, Cout, H, W]
        Not computed yet; chunked as x.

    Raises
    ------
    BackendUnavailableError
        dask is not installed.
    TypeError, ValueError
        What is no dask array; what :func:`cv3gpu.conv2d` refuses.

    Notes
    -----
    The halo is ``dilation (k - 1) / 2`` pixels. A pixel's result is the sum of the same products as in the whole image;
    BLAS may add them in another order for chunks of another size, so that results agree to rounding, not to the bit.

    Examples
    --------
    >>> import dask.array as da, numpy as np, cv3gpu
    >>> x, weight = np.random.default_rng(0).random((1, 2, 64, 64)), np.ones((3, 2, 3, 3))
    >>> y = cv3gpu.scale.conv2d(da.from_array(x, chunks=(1, 2, 32, 32)), weight, dilation=2)
    >>> bool(abs(y.compute() - cv3gpu.conv2d(x, weight, padding="same", dilation=2)).max() < 1e-12)
    True
    """
    op = "scale.conv2d"
    check_array(op, "x", x)
    _check.ndim(op, "x", x, 4, "[N, C, H, W]")
    options: dict[str, Any] = {"padding": "same", "dilation": dilation, "groups": groups}
    pixel = _array.zeros(x._meta, (1, int(x.shape[1]), 1, 1))
    channels = int(whole_conv2d(pixel, weight, bias, **options).shape[1])
    sides = []
    for k, taps in enumerate(weight.shape[2:]):
        reach = _check.pair(op, "dilation", dilation, 1)[k] * (int(taps) - 1)
        sides.append(side(x.chunks[2 + k], reach // 2, reach - reach // 2))
    function = functools.partial(_convolved, weight=weight, bias=bias, options=options)
    whole = x.rechunk({1: -1})
    return by_chunks(function, [(whole, "nchw")], sides[0], sides[1], "nohw", x._meta, {"o": channels})


def _convolved(
    chunks: tuple[Any, ...], row: Place, column: Place, weight: Any, bias: Any, options: dict[str, Any]
) -> Any:
    return whole_conv2d(chunks[0], weight, bias, **options)


# ---- affinities of pixels -------------------------------------------------------------------------------


def affinity_degree(image: Any, *, radius: float = 5, **options: Any) -> Any:
    """The degrees of :func:`cv3gpu.pixel_affinity` of a dask array, chunk by chunk.

    Parameters
    ----------
    image : dask array, [H, W] or [H, W, C], float32/float64
        Chunks of NumPy or CuPy arrays.
    radius, **options
        As for :func:`cv3gpu.pixel_affinity`.

    Returns
    -------
    dask array, [H, W]
        The sums of W's rows, by pixel; not computed yet.

    Raises
    ------
    BackendUnavailableError
        dask is not installed.
    TypeError, ValueError
        What is no dask array; what :func:`cv3gpu.pixel_affinity` refuses.

    Notes
    -----
    The halo is the radius, and the result that of the whole image. W itself exists for one chunk at a time.

    Examples
    --------
    >>> import dask.array as da, numpy as np, cv3gpu
    >>> image = np.random.default_rng(0).random((40, 60))
    >>> degree = cv3gpu.scale.affinity_degree(da.from_array(image, chunks=(20, 30)), radius=3)
    >>> bool((degree.compute().ravel() == cv3gpu.pixel_affinity(image, radius=3).degree).all())
    True
    """
    op = "scale.affinity_degree"
    sides = _reach(op, image, radius, options)
    given = [(image.rechunk({2: -1}) if image.ndim == 3 else image, "hwc"[: image.ndim])]
    function = functools.partial(_degree, radius=radius, options=options)
    return by_chunks(function, given, *sides, "hw", _array.zeros(image._meta, (0, 0)))


def affinity_product(image: Any, x: Any, *, radius: float = 5, **options: Any) -> Any:
    """The product W x of :func:`cv3gpu.pixel_affinity` of a dask array, chunk by chunk.

    Parameters
    ----------
    image : dask array, [H, W] or [H, W, C], float32/float64
        Chunks of NumPy or CuPy arrays.
    x : dask array, [H, W] or [H, W, b], of image's dtype
        One number a pixel, or b of them.
    radius, **options
        As for :func:`cv3gpu.pixel_affinity`.

    Returns
    -------
    dask array, of x's shape
        Not computed yet.

    Raises
    ------
    BackendUnavailableError
        dask is not installed.
    TypeError, ValueError
        What is no dask array; what :func:`cv3gpu.pixel_affinity` refuses; an x that does not fit the image.

    Notes
    -----
    The halo is the radius, of the image and of x, and the result that of the whole image. Each product computes the
    weights again: where there are many, as in an eigensolver, they cost more than the products.

    Examples
    --------
    >>> import dask.array as da, numpy as np, cv3gpu
    >>> image, x = np.random.default_rng(0).random((2, 40, 60))
    >>> chunked = (da.from_array(a, chunks=(20, 30)) for a in (image, x))
    >>> product = cv3gpu.scale.affinity_product(*chunked, radius=3).compute()
    >>> bool(abs(product.ravel() - cv3gpu.pixel_affinity(image, radius=3) @ x.ravel()).max() < 1e-12)
    True
    """
    op = "scale.affinity_product"
    sides = _reach(op, image, radius, options)
    check_array(op, "x", x)
    if x.ndim not in (2, 3) or x.shape[:2] != image.shape[:2]:
        h, w = image.shape[:2]
        _check.fail(op, "x", f"have shape [{h}, {w}] or [{h}, {w}, b]", tuple(x.shape))
    _check.same_dtype(op, "x", x, "image", image)
    given = []
    for array, letters in ((image, "hwc"), (x, "hwb")):
        given.append((array.rechunk({2: -1}) if array.ndim == 3 else array, letters[: array.ndim]))
    function = functools.partial(_product, radius=radius, options=options)
    return by_chunks(function, given, *sides, given[1][1], x._meta)


def _reach(op: str, image: Any, radius: float, options: dict[str, Any]) -> tuple[Side, Side]:
    check_array(op, "image", image)
    if image.ndim not in (2, 3):
        _check.fail(op, "image", "have shape [H, W] or [H, W, C]", tuple(image.shape))
    pixel = _array.zeros(image._meta, (1, 1, *map(int, image.shape[2:])))
    pixel_affinity(pixel, radius=radius, **options)
    reach = math.floor(radius)
    return side(image.chunks[0], reach, reach), side(image.chunks[1], reach, reach)


def _degree(chunks: tuple[Any, ...], row: Place, column: Place, radius: float, options: dict[str, Any]) -> Any:
    (image,) = chunks
    return pixel_affinity(image, radius=radius, **options).degree.reshape(image.shape[:2])


def _product(chunks: tuple[Any, ...], row: Place, column: Place, radius: float, options: dict[str, Any]) -> Any:
    image, x = chunks
    affinity = pixel_affinity(image, radius=radius, **options)
    return (affinity @ x.reshape((-1, *x.shape[2:]))).reshape(x.shape)
