"""Operators of finite reach on images larger than memory: the halo is the operator's, the result the whole image's."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any

from .. import _array, _check
from ..affinity import pixel_affinity
from ..conv import conv2d as whole_conv2d
from ..resize import TAPS
from ..resize import interpolate as whole_interpolate
from ._tiles import Side, by_chunks, check_array, side

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
        As for :func:`cv3gpu.interpolate`; ``scale_factor`` where it gives the same as the size that it leads to.

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
        What is no dask array; what :func:`cv3gpu.interpolate` refuses; a size that can't be had from chunks.

    Notes
    -----
    The halo is the filter's: 2 pixels (``"bilinear"``), 3 (``"bicubic"``), with ``antialias`` as many more as the image
    shrinks, rounded up so that chunks begin where a pixel of the result does. H and Ho must therefore have a common
    divisor (with ``align_corners`` H - 1 and Ho - 1), and chunks end at multiples of H over the greatest one.

    Results are those of the whole image: bit for bit where H / Ho is a power of two; else a chunk rounds its
    coordinates in another place, by parts in 10^16 of them, and a weight by as much. ``"nearest"`` decides in float32
    for all but float64 images: where H / Ho is not one of its numbers, a coordinate that falls on the border of two
    pixels may go to the other one. A chunk's coordinates are small, so that it is the one that is right.

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
    nothing = _array.zeros(x._meta, (0, 0, *map(int, x.shape[2:])))  # without images: the size, or what is wrong
    out = whole_interpolate(nothing, size, scale_factor, mode, align_corners, antialias).shape[2:]
    corners = bool(align_corners)
    if scale_factor is not None and not corners:
        factors = scale_factor if isinstance(scale_factor, Sequence) else (scale_factor, scale_factor)
        for n, m, factor in zip(x.shape[2:], out, factors, strict=True):
            if n / m != 1 / factor:
                wanted = f"divide evenly, {n} pixels into {m}"
                _check.fail(op, "scale_factor", wanted, factor, "give size, or cut the image to a multiple")
    sides = [_resized(op, x.chunks[2 + k], int(out[k]), TAPS[mode], corners, antialias) for k in (0, 1)]
    options = {"mode": mode, "align_corners": align_corners, "antialias": antialias}
    function = functools.partial(_interpolated, rows=sides[0], columns=sides[1], options=options)
    return by_chunks(function, [(x, "nchw")], sides[0], sides[1], "nchw", x._meta)


def _resized(op: str, chunks: tuple[int, ...], m: int, taps: int, corners: bool, antialias: bool) -> Side:
    n = sum(chunks)
    extra = int(corners)  # the last pixel of both, which belongs to no period
    common = math.gcd(n - extra, m - extra)
    if len(chunks) == 1 or min(n, m) <= extra:
        return Side((n,), 0, 0, (n, m), m)
    p, q = (n - extra) // common, (m - extra) // common
    if p > max(chunks):
        less = " less 1" if corners else ""
        wanted = f"have a common divisor with the image's {n}{less}, of at least {math.ceil(n / max(chunks))}"
        _check.fail(op, "size", wanted, f"{m}{less}", "take another size, larger chunks, or a rim of padding")
    stretch = max(p / q, 1.0) if antialias else 1.0
    halo = math.ceil((math.ceil(taps / 2 * stretch) + 1) / p) * p
    return side(chunks, halo, halo + extra, (p, q), m)


def _interpolated(chunks: tuple[Any, ...], i: int, j: int, rows: Side, columns: Side, options: dict[str, Any]) -> Any:
    (x,) = chunks
    extra = int(bool(options["align_corners"]))
    size = tuple(
        one.n_out if len(one.chunks) == 1 else (n - extra) // one.scale[0] * one.scale[1] + extra
        for one, n in zip((rows, columns), x.shape[2:], strict=True)
    )
    return whole_interpolate(x, size=(size[0], size[1]), **options)


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


def _convolved(chunks: tuple[Any, ...], i: int, j: int, weight: Any, bias: Any, options: dict[str, Any]) -> Any:
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


def _degree(chunks: tuple[Any, ...], i: int, j: int, radius: float, options: dict[str, Any]) -> Any:
    (image,) = chunks
    return pixel_affinity(image, radius=radius, **options).degree.reshape(image.shape[:2])


def _product(chunks: tuple[Any, ...], i: int, j: int, radius: float, options: dict[str, Any]) -> Any:
    image, x = chunks
    affinity = pixel_affinity(image, radius=radius, **options)
    return (affinity @ x.reshape((-1, *x.shape[2:]))).reshape(x.shape)
