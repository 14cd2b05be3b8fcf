"""The dense CRF and the high-dimensional Gaussian filter, and their gradients."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from .. import _array, _check
from .._array import array_op
from . import arguments, filters, mean_field
from .arguments import PARAMETERS, Sizes
from .mean_field import MeanField, Reverse
from .rows import width

__all__ = [
    "DenseCRFGradients",
    "DenseCRFInfo",
    "GaussianFilterGradients",
    "dense_crf",
    "dense_crf_vjp",
    "gaussian_filter",
    "gaussian_filter_vjp",
]


class DenseCRFInfo(NamedTuple):
    """How mean field went: the objective, the energy of the best labels, and the largest change of Q."""

    divergence: np.ndarray[Any, Any]  # [..., n_iter + 1], float64
    energy: np.ndarray[Any, Any]  # [..., n_iter + 1], float64
    change: np.ndarray[Any, Any]  # [n_iter]


class DenseCRFGradients(NamedTuple):
    """Gradients with respect to the arguments of :func:`dense_crf`; None where not asked for."""

    unary: Any
    image: Any
    theta_gamma: Any
    compat_smooth: Any
    theta_alpha: Any
    theta_beta: Any
    compat_bilateral: Any


class GaussianFilterGradients(NamedTuple):
    """Gradients with respect to the arguments of :func:`gaussian_filter`; None where not asked for."""

    values: Any
    features: Any


# ---- kernels of an image --------------------------------------------------------------------------------


class _Terms(NamedTuple):
    """The kernels of a CRF on images: smoothness, and appearance if there are images."""

    kernels: list[mean_field.Kernel]
    compat: list[Any]
    features: list[Any]  # of each kernel [B, D, N], None for one on the grid
    widths: list[tuple[float, ...]]  # of each kernel's features, in their order


def _terms(op: str, size: Sizes, like: Any, image: Any, given: dict[str, Any], method: Any, normalization: Any,
           origin: tuple[int, int] = (0, 0)) -> _Terms:  # fmt: skip
    arguments.words(op, method, normalization)
    gamma, alpha = (arguments.widths_xy(op, name, given[name]) for name in ("theta_gamma", "theta_alpha"))
    beta: tuple[float, ...] = ()
    if image is not None:
        channels = f"one for each of the {size.channels} channels"
        beta = arguments.widths(op, "theta_beta", given["theta_beta"], size.channels, channels)
    names = ("compat_smooth", "compat_bilateral")
    compat = [arguments.compatibility(op, name, given[name], size.labels, like) for name in names]
    real = _array.dtype_name(like)
    kind = "exact" if method == "exact" else real
    if method == "lattice":
        arguments.check_near(op, "theta_gamma", max(size.width / gamma[0], size.height / gamma[1]), real)
    if image is not None:
        arguments.check_near(op, "theta_alpha", max(size.width / alpha[0], size.height / alpha[1]), kind)
        if _check.name_of(image.dtype) == "uint8":
            arguments.check_near(op, "theta_beta", 255 / min(beta), kind)
    found = [filters.of_positions(size, gamma, method, like, origin)]
    if image is not None:
        found.append(filters.of_colours(size, image, alpha, beta, method, like, origin))
    points = size.batch * size.pixels
    kernels = [mean_field.normalized(filter, normalization, like, points) for filter, _ in found]
    return _Terms(kernels, compat[: len(found)], [features for _, features in found], [gamma, (*alpha, *beta)])


def _host(x: Any) -> Any:
    """What the CPU path works on: NumPy arrays. On a GPU the array itself."""
    return x if x is None or _array.on_gpu(x) else _array.as_numpy(x)


def _plain(value: Any) -> Any:
    """A parameter without gradient history."""
    return value.detach() if _array.family(value) == "torch" else value


def _field(op: str, unary: Any, image: Any, parameters: dict[str, Any], method: Any,
           normalization: Any, origin: tuple[int, int] = (0, 0)) -> tuple[Sizes, _Terms, MeanField]:  # fmt: skip
    size = arguments.sizes(op, unary, image)
    like, plain = _host(unary), {k: _plain(v) for k, v in parameters.items()}
    terms = _terms(op, size, like, _host(image), plain, method, normalization, origin)
    return size, terms, MeanField(like.reshape(size.batch, size.labels, size.pixels), terms.kernels, terms.compat)


def _returned(x: Any, like: Any) -> Any:
    """A result in the shape, dtype and library of an argument."""
    x = _array.astype(x.reshape(tuple(like.shape)), _array.dtype_name(like))
    return x if _array.family(x) == _array.family(like) else _array.from_numpy(x, like)


# ---- dense CRF ------------------------------------------------------------------------------------------


@array_op("unary", "image")
def dense_crf(
    unary: Any,
    image: Any = None,
    *,
    theta_gamma: Any = 3.0,
    compat_smooth: Any = 3.0,
    theta_alpha: Any = 80.0,
    theta_beta: Any = 13.0,
    compat_bilateral: Any = 10.0,
    n_iter: int = 10,
    method: str = "lattice",
    normalization: str = "symmetric",
    return_info: bool = False,
) -> Any:
    r"""Mean-field inference in the fully connected CRF with Gaussian edge potentials, pydensecrf's model.

    ``Q = softmax(-U)``, then n_iter times ``Q <- softmax(-U - sum_m mu_m K~_m Q)`` with two kernels, smoothness
    ``exp(-dx^2 / 2 theta_gamma_x^2 - dy^2 / 2 theta_gamma_y^2)`` and, where there is an image, appearance
    ``exp(-dx^2 / 2 theta_alpha_x^2 - dy^2 / 2 theta_alpha_y^2 - sum_c dI_c^2 / 2 theta_beta_c^2)``, over all pairs of
    pixels, a pixel with itself included.

    Parameters
    ----------
    unary : array, [..., L, H, W], float32/float64
        U, -log p of L labels, 1 to 1024. +inf forbids a label; NaN, or a pixel without a label, makes its image NaN.
    image : array, [..., H, W, C] or [..., H, W], uint8/float32/float64, or None
        1 to 6 channels, 0 to 255 for the default widths. None: smoothness only.
    theta_gamma : number, pair (x, y) or array, pixels
        Widths of the smoothness kernel.
    compat_smooth : number, [L] or [L, L]
        Compatibility: a number w is Potts' model, mu = -w I; a vector is mu's diagonal, with its sign as given; of a
        matrix M, mu is (M + M^T) / 2. Positive entries of mu punish.
    theta_alpha : number, pair (x, y) or array, pixels
        Widths of the appearance kernel in the image.
    theta_beta : number, one for each channel, or array, units of the image
        Its widths in colour.
    compat_bilateral : number, [L] or [L, L]
        As compat_smooth, for the appearance kernel.
    n_iter : int
        Iterations.
    method : {"lattice", "lattice_fine", "exact"}
        ``"lattice"``: both kernels on a permutohedral lattice, pydensecrf's results. ``"lattice_fine"``: the smoothness
        kernel exactly, appearance on a finer lattice with all neighbours of its vertices, blurred twice: nearer to the
        model than pydensecrf, at 3 to 10 times the cost. ``"exact"``: all pairs of pixels.
    normalization : {"symmetric", "before", "after", "none"}
        With D the diagonal matrix of K 1: D^-1/2 K D^-1/2, K D^-1, D^-1 K, or K.
    return_info : bool
        Whether to tell how it went.

    Returns
    -------
    array, [..., L, H, W]
        Q, the marginals; of unary's dtype. With ``return_info`` also a :class:`DenseCRFInfo` of NumPy arrays, float64:
        ``divergence`` [..., n_iter + 1], the objective of mean field (KL divergence from the CRF less log Z) before
        each iteration and at the end, ``energy`` [..., n_iter + 1] of the most likely labels, ``change`` [n_iter], the
        largest change of Q.

    Raises
    ------
    TypeError
        An array of the wrong library or dtype, or an option of the wrong type.
    ValueError
        A wrong shape or option, or a width that is not positive.

    Notes
    -----
    A batch is one problem, not a loop. Cost of an iteration: on a lattice 2 (d + 1) multiply-adds for a pixel and
    label, d = 2 and 5, and d + 1 axes of blur over its vertices, 0.01 to 2 a pixel; exact a tenth to a half of N^2
    pairs, as tiles of pixels too far apart to matter are left out (by a bound).
    Every result has the same bits from run to run. The iterations are those of pydensecrf, all pixels at once: they
    need not converge, and the objective may rise. The gradient is :func:`dense_crf_vjp`.

    On a GPU the number of the lattice's vertices, and parameters that are on it, are read back by the host. With torch
    tensors that require gradients, ``return_info`` costs a second run.

    References
    ----------
    P. Kraehenbuehl, V. Koltun, Efficient inference in fully connected CRFs with Gaussian edge potentials, 2011, eq. 3
    and algorithm 1. A. Adams, J. Baek, M. A. Davis, Fast high-dimensional filtering using the permutohedral lattice,
    2010.

    Examples
    --------
    >>> import numpy as np, cv3gpu
    >>> image = np.zeros((4, 6, 3), np.uint8)
    >>> image[:, 3:] = 200                                      # two areas
    >>> p = np.full((2, 4, 6), 0.5)
    >>> p[0, 0, 0], p[0, 0, 5] = 0.9, 0.1                       # a hint in each
    >>> p[1] = 1 - p[0]
    >>> cv3gpu.dense_crf(-np.log(p), image, method="exact").argmax(0)
    array([[0, 0, 0, 1, 1, 1],
           [0, 0, 0, 1, 1, 1],
           [0, 0, 0, 1, 1, 1],
           [0, 0, 0, 1, 1, 1]])
    """
    op = "dense_crf"
    n_iter = _check.integer(op, "n_iter", n_iter, 0)
    _check.flag(op, "return_info", return_info)
    values = (theta_gamma, compat_smooth, theta_alpha, theta_beta, compat_bilateral)
    parameters = dict(zip(PARAMETERS, values, strict=True))
    size, _, field = _field(op, unary, image, parameters, method, normalization)
    if not return_info:
        for _ in range(n_iter):
            field.step()
        return _returned(field.q, unary)
    told, change = [(field.divergence(), field.energy())], []
    for _ in range(n_iter):
        before = field.rows
        field.step()
        change.append(float(abs(field.rows - before).max()) if size.batch * size.pixels else 0.0)
        told.append((field.divergence(), field.energy()))
    divergence, energy = (
        np.stack([_array.to_host(x) for x in column], -1).reshape(*size.lead, n_iter + 1)
        for column in zip(*told, strict=True)
    )
    return _returned(field.q, unary), DenseCRFInfo(divergence, energy, np.array(change))


@array_op("unary", "image")
def dense_crf_part(
    unary: Any, image: Any = None, *, origin: tuple[int, int], n_iter: int, method: str, normalization: str,
    **parameters: Any,
) -> Any:  # fmt: skip
    """:func:`dense_crf` of a part of a larger image, whose first pixel is pixel ``origin`` (x, y) there.

    The lattices' simplices lie as they would around the whole image, so that parts agree where they overlap, as far as
    their pixels see the same others. All parameters are given.
    """
    _, _, field = _field("dense_crf", unary, image, parameters, method, normalization, origin)
    for _ in range(n_iter):
        field.step()
    return _returned(field.q, unary)


@array_op("grad", "unary", "image")
def dense_crf_vjp(
    grad: Any,
    unary: Any,
    image: Any = None,
    *,
    theta_gamma: Any = 3.0,
    compat_smooth: Any = 3.0,
    theta_alpha: Any = 80.0,
    theta_beta: Any = 13.0,
    compat_bilateral: Any = 10.0,
    n_iter: int = 10,
    method: str = "lattice",
    normalization: str = "symmetric",
    needs: Sequence[bool] = (True,) * 7,
) -> Any:
    """The gradient of ``sum(grad * dense_crf(unary, image, ...))``.

    Parameters
    ----------
    grad : array, [..., L, H, W]
        Gradient with respect to the result of :func:`dense_crf`; of unary's dtype.
    unary, image, theta_gamma, compat_smooth, theta_alpha, theta_beta, compat_bilateral, n_iter, method, normalization
        As they were given to :func:`dense_crf`.
    needs : seven bools
        Which gradients are wanted, in the order of the result. Those of the image and of the widths cost about as much
        again as the others together.

    Returns
    -------
    DenseCRFGradients
        With the fields unary, image, theta_gamma, compat_smooth, theta_alpha, theta_beta and compat_bilateral, each of
        its argument's shape; None where not wanted, and for an image of integers. Of a number that stands for several
        widths, their sum. Of a matrix, per entry of mu, not through the symmetrisation.

    Raises
    ------
    TypeError, ValueError
        As :func:`dense_crf`, and for a grad of another shape or dtype.

    Notes
    -----
    The iterations are computed again and kept meanwhile: n_iter arrays of unary's size. On a lattice the gradients with
    respect to widths and image are those of the result as it is computed, by way of the barycentric coordinates; it
    has kinks where a pixel changes its simplex. With ``method="exact"`` everything is computed in float64: where pixels
    are nearly decided, large terms cancel, and float32 was seen to lose three digits.

    Examples
    --------
    >>> import numpy as np, cv3gpu
    >>> unary = np.zeros((2, 1, 2))
    >>> unary[0, 0, 0] = 1.0
    >>> grad = np.zeros((2, 1, 2))
    >>> grad[0] = 1.0
    >>> g = cv3gpu.dense_crf_vjp(grad, unary, None, n_iter=1, method="exact")
    >>> bool(g.unary[0, 0, 0] < 0), g.image is None
    (True, True)
    """
    op = "dense_crf_vjp"
    n_iter = _check.integer(op, "n_iter", n_iter, 0)
    wants = arguments.wanted(op, needs, ("unary", "image", *PARAMETERS))
    _check.shape(op, "grad", grad, tuple(unary.shape))
    _check.same_dtype(op, "grad", grad, "unary", unary)
    values = (theta_gamma, compat_smooth, theta_alpha, theta_beta, compat_bilateral)
    parameters = dict(zip(PARAMETERS, values, strict=True))
    wide = [_widened(x) if method == "exact" else x for x in (grad, unary, image)]
    size, terms, field = _field(op, wide[1], wide[2], parameters, method, normalization)
    by_width = wants["image"] or any(wants[name] for name in PARAMETERS if name.startswith("theta"))
    back = Reverse(field, _host(wide[0]).reshape(size.batch, size.labels, size.pixels), n_iter, by_width)
    found: dict[str, Any] = dict.fromkeys(wants)
    if wants["unary"]:
        rows = field.backend.from_rows(_array.contiguous(back.unary), field.shape)
        found["unary"] = _returned(rows, unary)
    if wants["image"] and image is not None and _check.name_of(image.dtype) != "uint8":
        found["image"] = _of_image(back.widths[1], terms, image)
    for m, (compat, *theta) in enumerate([PARAMETERS[1::-1], PARAMETERS[:1:-1]]):
        there = m < len(terms.kernels)
        if wants[compat]:
            found[compat] = _of_compatibility(back.mu[m] if there else None, parameters[compat], size.labels, unary)
        moved = _of_widths(back.widths[m], terms.features[m], terms.widths[m]) if there and by_width else None
        for name, columns in zip(reversed(theta), (slice(0, 2), slice(2, None)), strict=False):
            if wants[name]:
                found[name] = _of_theta(moved, columns, parameters[name], unary)
    return DenseCRFGradients(**found)


def _widened(x: Any) -> Any:
    """In float64 what is in float32."""
    return _array.astype(x, "float64") if x is not None and _array.dtype_name(x) == "float32" else x


def _of_image(gradient: Any, terms: _Terms, image: Any) -> Any:
    """The gradient with respect to the image: of the features past the positions, by their widths."""
    out = _array.zeros(_host(image), tuple(image.shape))
    if gradient is not None:
        flat = out.reshape(gradient.shape[0], gradient.shape[2], len(terms.widths[1]) - 2)
        for c, sigma in enumerate(terms.widths[1][2:]):
            flat[..., c] = gradient[:, 2 + c] / sigma
    return _returned(out, image)


def _of_widths(gradient: Any, features: Any, widths: tuple[float, ...]) -> Any:
    """[D] float64: features are positions and colours over widths, so d f / d width = -f / width."""
    if gradient is None or features is None:
        return gradient
    moved = -(_array.astype(gradient, "float64") * features).sum(2).sum(0)
    return moved / _array.from_host(np.array(widths), moved)


def _of_theta(moved: Any, columns: slice, value: Any, like: Any) -> Any:
    """Of one parameter, in its own shape: a number stands for all of its widths."""
    if moved is None:
        return _as_parameter(_array.zeros(_host(like), np.shape(value), "float64"), value, like)
    part = moved[columns]
    return _as_parameter(part if np.ndim(value) else part.sum(), value, like)


def _of_compatibility(gradient: Any, value: Any, labels: int, like: Any) -> Any:
    """Of a number w, where mu = -w I, of a diagonal, or of each entry of a matrix."""
    if gradient is None:
        return _as_parameter(_array.zeros(_host(like), np.shape(value), "float64"), value, like)
    if np.ndim(value) == 0:
        return _as_parameter(-gradient[:labels].sum(), value, like)
    part = gradient[:labels] if gradient.ndim == 1 else gradient[:labels, :labels]
    return _as_parameter(part, value, like)


def _as_parameter(x: Any, value: Any, like: Any) -> Any:
    """A gradient in the library, dtype and device of its parameter; of a number in those of unary, float64."""
    if _array.family(value) is None:
        return _array.from_numpy(np.asarray(x), like) if _array.family(x) is None or _array.family(x) == "numpy" else x
    if _array.family(x) != _array.family(value) or _array.device_of(x) != _array.device_of(value):
        x = _array.from_host(np.asarray(_array.to_host(x)), value)
    dtype = _array.dtype_name(value)
    return _array.astype(x, dtype if "float" in dtype else "float64")


# ---- Gaussian filter ------------------------------------------------------------------------------------


def _filter(op: str, values: Any, features: Any, method: Any, normalization: Any) -> tuple[Any, mean_field.Kernel, Any]:
    """Backend, kernel and the values as rows."""
    _check.dtype(op, "values", values, arguments.DTYPES)
    _check.same_dtype(op, "features", features, "values", values)
    if values.ndim < 2:
        _check.fail(op, "values", "have shape [..., C, N]", tuple(values.shape))
    if features.ndim < 2:
        _check.fail(op, "features", "have shape [..., D, N]", tuple(features.shape))
    *lead, channels, n = (int(k) for k in values.shape)
    _check.shape(op, "features", features, [*lead, "D", n], f"values have shape {tuple(values.shape)}")
    d = int(features.shape[-2])
    if not 1 <= d <= arguments.MOST_FEATURES:
        _check.fail(op, "features", f"have 1 to {arguments.MOST_FEATURES} dimensions (axis -2)", d)
    if not 1 <= channels <= arguments.MOST_LABELS:
        _check.fail(op, "values", f"have 1 to {arguments.MOST_LABELS} channels (axis -2)", channels)
    arguments.words(op, method, normalization)
    batch = math.prod(lead)
    points = _array.contiguous(_host(features).reshape(batch, d, n))
    backend, real = filters.backend(points), _array.dtype_name(points)
    if method != "exact" and not _array.on_gpu(points) and points.size:
        arguments.check_near(op, "features", float(abs(points).max()), real)
    chosen = filters.of_points(points, method, real)
    kernel = mean_field.normalized(chosen, normalization, points, batch * n)
    rows = backend.to_rows(_array.contiguous(_host(values).reshape(batch, channels, n)), width(channels))
    return backend, kernel, rows


@array_op("values", "features")
def gaussian_filter(values: Any, features: Any, *, method: str = "lattice", normalization: str = "symmetric") -> Any:
    """High-dimensional Gaussian filtering: ``y_i = sum_j exp(-|f_i - f_j|^2 / 2) v_j``, normalised.

    Parameters
    ----------
    values : array, [..., C, N], float32/float64
        What is filtered: C channels, 1 to 1024, of N points.
    features : array, [..., D, N], of values' dtype
        D features of each point, 1 to 8, already divided by their widths.
    method : {"lattice", "lattice_fine", "exact"}
        As for :func:`dense_crf`: pydensecrf's lattice; a finer one; all pairs of points.
    normalization : {"symmetric", "before", "after", "none"}
        With D the diagonal matrix of K 1: D^-1/2 K D^-1/2, K D^-1, D^-1 K, or K.

    Returns
    -------
    array, [..., C, N]
        Of values' dtype. A point's own term is included. N = 0 gives an empty result.

    Raises
    ------
    TypeError
        An array of the wrong library or dtype, or an option of the wrong type.
    ValueError
        A wrong shape or option.

    Notes
    -----
    Not normalised, ``"lattice"`` is off by a factor of about a half, as in pydensecrf; ``"lattice_fine"`` is right
    where points are dense. The same bits from run to run. The gradient is :func:`gaussian_filter_vjp`.

    References
    ----------
    A. Adams, J. Baek, M. A. Davis, Fast high-dimensional filtering using the permutohedral lattice, 2010.

    Examples
    --------
    >>> import numpy as np, cv3gpu
    >>> values, features = np.array([[1.0, 0.0, 0.0]]), np.array([[0.0, 0.0, 9.0]])
    >>> cv3gpu.gaussian_filter(values, features, method="exact", normalization="after").round(3)
    array([[0.5, 0.5, 0. ]])
    """
    backend, kernel, rows = _filter("gaussian_filter", values, features, method, normalization)
    out = backend.from_rows(_array.contiguous(kernel.apply(rows)), _three(values))
    return _returned(out, values)


@array_op("grad", "values", "features")
def gaussian_filter_vjp(
    grad: Any,
    values: Any,
    features: Any,
    *,
    method: str = "lattice",
    normalization: str = "symmetric",
    needs: Sequence[bool] = (True, True),
) -> Any:
    """The gradient of ``sum(grad * gaussian_filter(values, features, ...))``.

    Parameters
    ----------
    grad : array, [..., C, N]
        Gradient with respect to the result of :func:`gaussian_filter`; of values' dtype.
    values, features, method, normalization
        As they were given to :func:`gaussian_filter`.
    needs : two bools
        Which gradients are wanted.

    Returns
    -------
    GaussianFilterGradients
        With the fields values [..., C, N] and features [..., D, N]; None where not wanted.

    Raises
    ------
    TypeError, ValueError
        As :func:`gaussian_filter`, and for a grad of another shape or dtype.

    Notes
    -----
    On a lattice the gradient with respect to the features is that of the result as it is computed: see
    :func:`dense_crf_vjp`.

    Examples
    --------
    >>> import numpy as np, cv3gpu
    >>> one, features = np.ones((1, 2)), np.array([[0.0, 1.0]])
    >>> cv3gpu.gaussian_filter_vjp(one, one, features, method="exact", normalization="none").values.round(4)
    array([[1.6065, 1.6065]])
    """
    op = "gaussian_filter_vjp"
    wants = arguments.wanted(op, needs, ("values", "features"))
    backend, kernel, rows = _filter(op, values, features, method, normalization)
    _check.shape(op, "grad", grad, tuple(values.shape))
    _check.same_dtype(op, "grad", grad, "values", values)
    toward = backend.to_rows(_array.contiguous(_host(grad).reshape(_three(values))), rows.shape[1])
    by_values, by_features = None, None
    if wants["values"]:
        back = backend.from_rows(_array.contiguous(kernel.apply_transposed(toward)), _three(values))
        by_values = _returned(back, values)
    if wants["features"]:
        by_features = _returned(mean_field.width_vjp(kernel, rows, toward), features)
    return GaussianFilterGradients(by_values, by_features)


def _three(values: Any) -> tuple[int, int, int]:
    *lead, channels, n = (int(k) for k in values.shape)
    return math.prod(lead), channels, n
