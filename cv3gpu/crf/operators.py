"""The dense CRF and the high-dimensional Gaussian filter, and their gradients."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from .. import _array, _check
from .._array import array_op
from . import lattice, mean_field
from .grid import GridGaussian
from .mean_field import NORMALIZATIONS, MeanField, Reverse
from .pairs import AllPairs
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

METHODS = ("lattice", "lattice_fine", "exact")
DTYPES = ("float32", "float64")
MOST_LABELS = 1024
MOST_FEATURES = 8
# Features: on a lattice they are int32 and have digits left for places between; else their squares are finite.
FARTHEST = {"float32": 1e6, "float64": 1e8, "exact": 1e15}
PARAMETERS = ("theta_gamma", "compat_smooth", "theta_alpha", "theta_beta", "compat_bilateral")


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


# ---- checks ---------------------------------------------------------------------------------------------


class _Image(NamedTuple):
    """The sizes of a problem."""

    lead: tuple[int, ...]
    labels: int
    height: int
    width: int
    channels: int  # of the image, 0 without one

    @property
    def batch(self) -> int:
        return math.prod(self.lead)

    @property
    def pixels(self) -> int:
        return self.height * self.width


def _sizes(op: str, unary: Any, image: Any) -> _Image:
    """The sizes, checked; they may be symbolic integers of torch."""
    _check.dtype(op, "unary", unary, DTYPES)
    if unary.ndim < 3:
        _check.fail(op, "unary", "have shape [..., L, H, W]", tuple(unary.shape))
    *lead, labels, height, columns = unary.shape
    if not 1 <= labels <= MOST_LABELS:
        _check.fail(op, "unary", f"have 1 to {MOST_LABELS} labels (axis -3)", labels)
    if image is None:
        return _Image(tuple(lead), labels, height, columns, 0)
    if _check.name_of(image.dtype) not in ("uint8", *DTYPES):
        _check.fail(op, "image", "have dtype uint8 or float32 or float64", _check.name_of(image.dtype), error=TypeError)
    most = MOST_FEATURES - 2
    channels = 1 if image.ndim == unary.ndim - 1 else image.shape[-1] if image.ndim else 0
    wanted = [*lead, height, columns, channels][: unary.ndim - (image.ndim == unary.ndim - 1)]
    if tuple(image.shape) != tuple(wanted) or not 1 <= channels <= most:
        names = ", ".join(map(str, [*lead, height, columns]))
        rule = f"have shape [{names}, C] with C from 1 to {most}, or [{names}], to match unary {tuple(unary.shape)}"
        _check.fail(op, "image", rule, tuple(image.shape))
    return _Image(tuple(lead), labels, height, columns, channels)


def _numbers(op: str, argument: str, value: Any, count: int, what: str) -> tuple[float, ...]:
    """A positive number, or ``count`` of them, on the host."""
    if _array.family(value) is not None:
        value = value.tolist()
    elif isinstance(value, np.generic):
        value = value.item()
    values = list(value) if isinstance(value, Sequence) and not isinstance(value, str | bytes) else [value] * count
    if len(values) != count:
        _check.fail(op, argument, f"be a number or {what}", repr(value))
    return tuple(_check.real(op, argument, x, positive=True) for x in values)


def _wanted(op: str, needs: Any, names: Sequence[str]) -> dict[str, bool]:
    """Which gradients are wanted."""
    rule = f"be {len(names)} bools, for {', '.join(names)}"
    if not isinstance(needs, Sequence) or isinstance(needs, str) or len(needs) != len(names):
        _check.fail(op, "needs", rule, repr(needs))
    if not all(isinstance(need, bool | np.bool_) for need in needs):
        _check.fail(op, "needs", rule, repr(needs), error=TypeError)
    return dict(zip(names, map(bool, needs), strict=True))


def _near(op: str, argument: str, farthest: float, kind: str) -> None:
    """Refuses features that are too far from zero for a lattice of a dtype, or for all pairs."""
    if not farthest <= FARTHEST[kind]:
        advice = "" if kind == "exact" else "a lattice has no digits left there; take method='exact'"
        given = argument == "features"
        share = f"be a {FARTHEST[kind]:g}th of the image's range at least"
        rule = f"be within {FARTHEST[kind]:g} of 0" if given else share
        got = f"{farthest:g}" if given else f"a range of {farthest:g} widths"
        _check.fail(op, argument, rule, got, advice)


def _entries(op: str, argument: str, value: Any) -> Any:
    """A compatibility as an array; its shape is not checked."""
    if _array.family(value) is None:
        rule = "be a number, a vector [L] or a matrix [L, L]"
        wrong = isinstance(value, bool | str | bytes | np.bool_)
        if wrong or not isinstance(value, int | float | np.generic | Sequence):
            _check.fail(op, argument, rule, _check.kind(value), error=TypeError)
        try:
            given = np.asarray(value)
            value = given.astype(np.float64, casting="same_kind")
        except (TypeError, ValueError, OverflowError):
            _check.fail(op, argument, rule, _check.shown(value))
        if given.dtype == bool:
            _check.fail(op, argument, "hold numbers", "bool", error=TypeError)
    elif _check.name_of(value.dtype) not in (*DTYPES, "int64", "int32"):
        _check.fail(op, argument, "have dtype float32 or float64", _check.name_of(value.dtype), error=TypeError)
    return value


def _compatibility(op: str, argument: str, value: Any, labels: int, like: Any) -> Any:
    """The compatibility mu as [L] or [L, L] of the dtype, library and device of ``like``."""
    value = _entries(op, argument, value)
    if tuple(value.shape) not in ((), (labels,), (labels, labels)):
        rule = f"be a number, or have shape [{labels}] or [{labels}, {labels}] to match unary"
        _check.fail(op, argument, rule, tuple(value.shape))
    given, real = value, _array.dtype_name(like)
    with np.errstate(over="ignore"):
        value = _array.astype(value, real)
    for x, rule in ((given, "be finite"), (value, f"be finite in {real}")):
        if _array.device_of(x) == "cpu" and not np.isfinite(_array.to_host(x)).all():
            _check.fail(op, argument, rule, given.tolist())
    if _array.family(value) != _array.family(like) or _array.device_of(value) != _array.device_of(like):
        value = _array.from_host(_array.to_host(value), like)
    if value.ndim == 0:
        mu = _array.empty(like, (labels,))
        mu[...] = -value
        return mu
    return value if value.ndim == 1 else 0.5 * (value + value.T)


# ---- kernels of an image --------------------------------------------------------------------------------


class _Terms(NamedTuple):
    """The kernels of a CRF on images: smoothness, and appearance if there are images."""

    kernels: list[mean_field.Kernel]
    compat: list[Any]
    features: list[Any]  # of each kernel [B, D, N], None for one on the grid
    widths: list[tuple[float, ...]]  # of each kernel's features, in their order


def _positions(size: _Image, theta: tuple[float, float], like: Any, start: tuple[float, float]) -> list[Any]:
    """The x / theta_x and y / theta_y of the pixels, [N] each, the first pixel being at ``start`` (x, y)."""
    real = _array.dtype_name(like)
    x = (start[0] + np.arange(size.width)).astype(real) / np.dtype(real).type(theta[0])
    y = (start[1] + np.arange(size.height)).astype(real) / np.dtype(real).type(theta[1])
    shape = (size.height, size.width)
    return [
        _array.from_host(np.broadcast_to(x[None], shape).reshape(-1), like),
        _array.from_host(np.broadcast_to(y[:, None], shape).reshape(-1), like),
    ]


def _features(
    size: _Image, image: Any, theta: tuple[float, float], theta_beta: tuple[float, ...], like: Any, real: str,
    start: tuple[float, float] = (0.0, 0.0),
) -> Any:  # fmt: skip
    """[B, D, N]: positions and channels, each divided by its width; of dtype ``real``."""
    out = _array.empty(like, (size.batch, 2 + len(theta_beta), size.pixels), real)
    for axis, position in enumerate(_positions(size, theta, out, start)):
        out[:, axis] = position
    if theta_beta:
        channels = image.reshape(size.batch, size.pixels, size.channels)
        for c, sigma in enumerate(theta_beta):
            out[:, 2 + c] = _array.astype(channels[..., c], real) / np.dtype(real).type(sigma)
    return out


def _terms(op: str, size: _Image, like: Any, image: Any, parameters: dict[str, Any], method: Any,
           normalization: Any, origin: tuple[int, int] = (0, 0)) -> _Terms:  # fmt: skip
    _check.choice(op, "method", method, METHODS)
    _check.choice(op, "normalization", normalization, NORMALIZATIONS)
    pair = "a pair (x, y)"
    gamma = _numbers(op, "theta_gamma", parameters["theta_gamma"], 2, pair)
    alpha = _numbers(op, "theta_alpha", parameters["theta_alpha"], 2, pair)
    beta: tuple[float, ...] = ()
    if image is not None:
        per_channel = f"one for each of the {size.channels} channels"
        beta = _numbers(op, "theta_beta", parameters["theta_beta"], size.channels, per_channel)
    compat = [
        _compatibility(op, name, parameters[name], size.labels, like) for name in ("compat_smooth", "compat_bilateral")
    ]
    machine = mean_field.machine(like)
    points, real = size.batch * size.pixels, _array.dtype_name(like)

    def kernel(filter: Any) -> mean_field.Kernel:
        return mean_field.normalized(filter, normalization, like, points)

    features: list[Any] = [None]
    if method == "lattice":
        _near(op, "theta_gamma", max(size.width / gamma[0], size.height / gamma[1]), real)
        start = lattice.phase(origin, (gamma[0], gamma[1]), 1)
        features[0] = _features(size, None, (gamma[0], gamma[1]), (), like, real, start)
        kernels = [kernel(machine.Lattice(features[0]))]
    else:
        kernels = [kernel(GridGaussian(like, (size.batch, size.height, size.width), (gamma[0], gamma[1])))]
    widths: list[tuple[float, ...]] = [gamma]
    if image is not None:
        wide = "float64" if method == "exact" else real
        kind = "exact" if method == "exact" else real
        _near(op, "theta_alpha", max(size.width / alpha[0], size.height / alpha[1]), kind)
        if _check.name_of(image.dtype) == "uint8":
            _near(op, "theta_beta", 255 / min(beta), kind)
        fine = method == "lattice_fine"
        blurs = 2 if fine else 1
        start = (0.0, 0.0) if method == "exact" else lattice.phase(origin, (alpha[0], alpha[1]), blurs)
        features.append(_features(size, image, (alpha[0], alpha[1]), beta, like, wide, start))
        widths.append((*alpha, *beta))
        if method == "exact":
            kernels.append(kernel(AllPairs(features[1], dtype=real)))
        else:
            kernels.append(kernel(machine.Lattice(features[1], blurs, fine)))
    return _Terms(kernels, compat[: len(kernels)], features, widths)


def _host(x: Any) -> Any:
    """What the CPU path works on: NumPy arrays. On a GPU the array itself."""
    return x if x is None or _array.on_gpu(x) else _array.as_numpy(x)


def _plain(value: Any) -> Any:
    """A parameter without gradient history."""
    return value.detach() if _array.family(value) == "torch" else value


def _field(op: str, unary: Any, image: Any, parameters: dict[str, Any], method: Any,
           normalization: Any, origin: tuple[int, int] = (0, 0)) -> tuple[_Image, _Terms, MeanField]:  # fmt: skip
    size = _sizes(op, unary, image)
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
    wants = _wanted(op, needs, ("unary", "image", *PARAMETERS))
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
        rows = field.machine.from_rows(_array.contiguous(back.unary), field.shape)
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
    """Machine, kernel and the values as rows."""
    _check.dtype(op, "values", values, DTYPES)
    _check.same_dtype(op, "features", features, "values", values)
    if values.ndim < 2:
        _check.fail(op, "values", "have shape [..., C, N]", tuple(values.shape))
    if features.ndim < 2:
        _check.fail(op, "features", "have shape [..., D, N]", tuple(features.shape))
    *lead, channels, n = (int(k) for k in values.shape)
    _check.shape(op, "features", features, [*lead, "D", n], f"values have shape {tuple(values.shape)}")
    d = int(features.shape[-2])
    if not 1 <= d <= MOST_FEATURES:
        _check.fail(op, "features", f"have 1 to {MOST_FEATURES} dimensions (axis -2)", d)
    if not 1 <= channels <= MOST_LABELS:
        _check.fail(op, "values", f"have 1 to {MOST_LABELS} channels (axis -2)", channels)
    _check.choice(op, "method", method, METHODS)
    _check.choice(op, "normalization", normalization, NORMALIZATIONS)
    batch = math.prod(lead)
    points = _array.contiguous(_host(features).reshape(batch, d, n))
    machine = mean_field.machine(points)
    if method == "exact":
        chosen: Any = AllPairs(points)
    else:
        if not _array.on_gpu(points) and points.size:
            _near(op, "features", float(abs(points).max()), _array.dtype_name(points))
        chosen = machine.Lattice(points, 2, True) if method == "lattice_fine" else machine.Lattice(points)
    kernel = mean_field.normalized(chosen, normalization, points, batch * n)
    rows = machine.to_rows(_array.contiguous(_host(values).reshape(batch, channels, n)), width(channels))
    return machine, kernel, rows


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
    machine, kernel, rows = _filter("gaussian_filter", values, features, method, normalization)
    out = machine.from_rows(_array.contiguous(kernel.apply(rows)), _three(values))
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
    wants = _wanted(op, needs, ("values", "features"))
    machine, kernel, rows = _filter(op, values, features, method, normalization)
    _check.shape(op, "grad", grad, tuple(values.shape))
    _check.same_dtype(op, "grad", grad, "values", values)
    toward = machine.to_rows(_array.contiguous(_host(grad).reshape(_three(values))), rows.shape[1])
    by_values, by_features = None, None
    if wants["values"]:
        back = machine.from_rows(_array.contiguous(kernel.apply_transposed(toward)), _three(values))
        by_values = _returned(back, values)
    if wants["features"]:
        by_features = _returned(mean_field.width_vjp(kernel, rows, toward), features)
    return GaussianFilterGradients(by_values, by_features)


def _three(values: Any) -> tuple[int, int, int]:
    *lead, channels, n = (int(k) for k in values.shape)
    return math.prod(lead), channels, n
