"""The last step of dense prediction: enlarged logits are used up at once, as labels or as a loss, and never exist.

The logits of a network are a few times smaller than the label map. To enlarge them bilinearly and then take the argmax
or the cross entropy moves an array of [N, C, H, W] through the memory several times; here each enlarged logit is
computed where it is needed, in the forward as in the backward.
"""

from __future__ import annotations

import functools
import itertools
import math
from typing import Any, NamedTuple

import numpy as np

from . import _check, _njit, _upsample_loops
from ._array import array_op, contiguous, dtype_name, empty, family, from_numpy, on_gpu, readable, strides
from ._kernel import MAX_GRID_YZ, blocks, kernel
from ._threads import cores, each
from .resize import DTYPES, Sampling, _like, _positive_pair, _sampling, _taps, _values

__all__ = ["upsample_argmax", "upsample_cross_entropy", "upsample_cross_entropy_vjp"]

LABELS = ("int64", "int32", "uint8")
REDUCTIONS = ("mean", "sum", "none")

# ---- checks ---------------------------------------------------------------------------------------------


def _check_logits(op: str, logits: Any) -> None:
    _check.dtype(op, "logits", logits, DTYPES)
    _check.ndim(op, "logits", logits, 4, "[N, C, h, w]")
    if type(logits.shape[1]) is int and logits.shape[1] < 1:
        _check.fail(op, "logits", "have at least one class", tuple(logits.shape))


def _bilinear(op: str, logits: Any, size: Any, align_corners: Any) -> Sampling:
    _check.flag(op, "align_corners", align_corners)
    small = int(logits.shape[2]), int(logits.shape[3])
    return _sampling(op, "logits", small, size, None, "bilinear", align_corners, False)


class Loss(NamedTuple):
    """The parameters of a cross entropy that are no arrays."""

    ignore_index: int
    align_corners: bool
    label_smoothing: float
    reduction: str


def check_loss(
    op: str,
    logits: Any,
    target: Any,
    weight: Any,
    ignore_index: Any,
    align_corners: Any,
    label_smoothing: Any,
    reduction: Any,
) -> Loss:
    """Checks all but sizes in pixels, which may be symbolic integers of torch."""
    _check_logits(op, logits)
    _check.dtype(op, "target", target, LABELS)
    _check.ndim(op, "target", target, 3, "[N, H, W]")
    if target.shape[0] != logits.shape[0]:
        _check.fail(op, "target", f"have shape [{logits.shape[0]}, H, W] to match logits", tuple(target.shape))
    if weight is not None:
        _check.same_dtype(op, "weight", weight, "logits", logits)
        _check.shape(op, "weight", weight, [logits.shape[1]], "one number for each class")
    ignored = _check.integer(op, "ignore_index", ignore_index, -(2**31))
    _check.flag(op, "align_corners", align_corners)
    smoothing = _check.real(op, "label_smoothing", label_smoothing)
    if not 0 <= smoothing <= 1:
        _check.fail(op, "label_smoothing", "be from 0 to 1", smoothing)
    return Loss(ignored, align_corners, smoothing, _check.choice(op, "reduction", reduction, REDUCTIONS))


# ---- the operators --------------------------------------------------------------------------------------


@array_op("logits")
def upsample_argmax(
    logits: Any, size: int | tuple[int, int], *, align_corners: bool = False, dtype: str = "int64"
) -> Any:
    """Label map of logits: bilinear interpolation to ``size``, then the class of the largest logit.

    ``labels[n, i, j] = argmax over c of interpolate(logits, size, mode="bilinear")[n, c, i, j]``.

    Parameters
    ----------
    logits : array, [N, C, h, w], float16/bfloat16/float32/float64
        Logits, or other scores of C classes, in any memory order.
    size : int or pair of int, pixels
        Height H and width W of the label map.
    align_corners : bool
        As for :func:`interpolate`.
    dtype : {"int64", "int32", "uint8"}
        Of the labels; uint8, for up to 256 classes, is an eighth of the memory, which is nearly all that is moved.

    Returns
    -------
    array, [N, H, W], int64, int32 or uint8
        Labels. Of equal logits the first class counts; NaN is larger than every number.

    Raises
    ------
    TypeError
        logits is no array of these dtypes, or an option is of the wrong type.
    ValueError
        A wrong shape or option; logits without classes or pixels.

    Notes
    -----
    The interpolated logits are those of :func:`interpolate` to the last bit, on the CPU and on a GPU, and the labels
    are its argmax; of 16-bit logits, those of the same numbers in float32, as sums are compared before they would be
    rounded. Cost: logits are read and labels written once; the interpolated logits stay in registers or in the nearest
    cache. No gradient. The same bits from run to run.

    Examples
    --------
    >>> import numpy as np
    >>> from cv3gpu.upsample import upsample_argmax
    >>> upsample_argmax(np.array([[[[1.0, 0.0]], [[0.0, 2.0]]]]), (1, 6))
    array([[[0, 0, 0, 1, 1, 1]]])
    """
    op = "upsample_argmax"
    _check_logits(op, logits)
    _check.choice(op, "dtype", dtype, LABELS)
    n, c = (int(k) for k in logits.shape[:2])
    if dtype == "uint8" and c > 256:
        _check.fail(op, "dtype", "be 'int64' for more than 256 classes", f"'uint8' for {c}")
    sampling = _bilinear(op, logits, _positive_pair(op, "size", size), align_corners)
    labels = empty(logits, (n, sampling.h.n_out, sampling.w.n_out), dtype)
    if n == 0:
        return labels
    if on_gpu(logits):
        _launch_argmax(logits, sampling, labels)
        return labels
    x = np.ascontiguousarray(_values(logits))
    out = np.empty(tuple(labels.shape), dtype)
    r, a, _ = _neighbours(sampling.h, x.dtype == np.float32)
    s, b, _ = _neighbours(sampling.w, x.dtype == np.float32)
    h, w = sampling.h, sampling.w
    down = h.n_out * w.n_in < w.n_out * h.n_in  # the axis that interpolate does first
    run = _njit.compiled(*_upsample_loops.ARGMAX)

    def rows(*piece: int) -> None:
        lanes = _upsample_loops.LANES
        more = np.empty(w.n_in, x.dtype), np.empty(lanes, x.dtype), np.empty(lanes, np.int32)
        run(x, r, a, s, b, down, out, *piece, *_space(x, 3), *more)

    each(rows, _bands(n, h.n_out))
    return from_numpy(out, logits)


@array_op("logits", "target", "weight")
def upsample_cross_entropy(
    logits: Any,
    target: Any,
    *,
    ignore_index: int = -100,
    align_corners: bool = False,
    weight: Any = None,
    label_smoothing: float = 0.0,
    reduction: str = "mean",
) -> Any:
    """Cross entropy of logits that are enlarged bilinearly to the size of the target.

    With ``z = interpolate(logits, (H, W), mode="bilinear")`` at a pixel of class t, ``p = softmax(z)`` and smoothing e,
    its loss is ``-(1 - e) weight[t] log p[t] - e / C sum_c weight[c] log p[c]``.

    Parameters
    ----------
    logits : array, [N, C, h, w], float16/bfloat16/float32/float64
        Logits of C classes, in any memory order; finite, or -inf for a class that is ruled out.
    target : array, [N, H, W], int64/int32/uint8
        Classes, 0 to C - 1, or ``ignore_index``.
    ignore_index : int
        Pixels of this class have no loss.
    align_corners : bool
        As for :func:`interpolate`.
    weight : array, [C], dtype of ``logits``, optional
        Weights of the classes, 1 each by default.
    label_smoothing : float
        e, from 0 to 1.
    reduction : {"mean", "sum", "none"}
        What is returned: the sum of the losses over the sum of ``weight[t]`` of all pixels that are not ignored, the
        sum of the losses, or each.

    Returns
    -------
    array, [] or, for ``"none"``, [N, H, W], dtype of ``logits``
        As :func:`torch.nn.functional.cross_entropy` of the enlarged logits.

    Raises
    ------
    TypeError
        If the arrays differ in library or device, or have other dtypes, or an option is of the wrong type.
    ValueError
        A wrong shape or option; on a CPU, a target that is neither a class nor ``ignore_index``. On a GPU, which would
        have to wait for the answer, the loss of such a pixel is NaN.

    Notes
    -----
    The mean over no pixels is NaN, as in torch: where all are ignored, or N = 0.
    Cost: logits and target are read once; the enlarged logits are never kept, neither here nor in the gradient,
    :func:`upsample_cross_entropy_vjp`, which computes them again. The largest logit is subtracted before an
    exponential is taken. Sums over pixels are in float64, in a fixed order: the same bits from run to run.

    References
    ----------
    C. Szegedy et al., "Rethinking the Inception Architecture for Computer Vision", CVPR 2016, section 7 (smoothing).

    Examples
    --------
    >>> import numpy as np
    >>> from cv3gpu.upsample import upsample_cross_entropy
    >>> logits = np.array([[[[4.0, 0.0]], [[0.0, 4.0]]]])
    >>> loss = upsample_cross_entropy(logits, np.array([[[0, 0, 1, 1]]]))
    >>> round(float(loss), 4)
    0.0725
    """
    op = "upsample_cross_entropy"
    loss = check_loss(op, logits, target, weight, ignore_index, align_corners, label_smoothing, reduction)
    n, height, width = (int(k) for k in target.shape)
    sampling = _bilinear(op, logits, _target_size(op, target), align_corners)
    each_one = reduction == "none"
    if n == 0 and each_one:
        return empty(logits, (n, height, width))
    if n == 0:
        return _scalar(logits, math.nan if reduction == "mean" else 0.0)
    if on_gpu(logits):
        return _entropy_on_gpu(logits, target, weight, sampling, loss)
    x, classes, weights = _host_inputs(logits, target, weight)
    r, a, _ = _neighbours(sampling.h, x.dtype == np.float32)
    s, b, _ = _neighbours(sampling.w, x.dtype == np.float32)
    losses = np.empty(tuple(target.shape) if each_one else (0, 0, 0), x.dtype)
    sums = np.zeros((n, height, 2))
    run = _njit.compiled(*_upsample_loops.ENTROPY)

    def rows(*piece: int) -> int:
        options = loss.ignore_index, loss.label_smoothing, losses, sums
        return run(x, r, a, s, b, classes, weights, *options, *piece, *_space(x, 3), *_lanes(x, 2))

    _refuse_bad(op, classes, each(rows, _bands(n, height)), x.shape[1], loss)
    if each_one:
        return _like(losses, logits)
    total, share = sums.sum((0, 1))
    if reduction == "mean":
        total = total / share if share else math.nan
    return _scalar(logits, total)


@array_op("grad", "logits", "target", "weight")
def upsample_cross_entropy_vjp(
    grad: Any,
    logits: Any,
    target: Any,
    *,
    ignore_index: int = -100,
    align_corners: bool = False,
    weight: Any = None,
    label_smoothing: float = 0.0,
    reduction: str = "mean",
) -> Any:
    """Gradient of :func:`upsample_cross_entropy` with respect to its logits.

    Parameters
    ----------
    grad : array, [] or, for ``"none"``, [N, H, W], dtype of ``logits``
        Gradient with respect to the result.
    logits, target, ignore_index, align_corners, weight, label_smoothing, reduction
        As they were given to :func:`upsample_cross_entropy`.

    Returns
    -------
    array, [N, C, h, w], dtype of ``logits``
        Dense by rows. Zero where the mean is over no pixels.

    Raises
    ------
    TypeError, ValueError
        As :func:`upsample_cross_entropy`, and where grad does not fit.

    Notes
    -----
    With q the gradient by a pixel's enlarged logits, ``q[c] = grad ((1 - e) weight[t] (p[c] - [c = t]) + e / C
    (p[c] sum_k weight[k] - weight[c]))``, each logit gathers q over the pixels that take from it, in a fixed order,
    without atomics: the same bits from run to run. No array of the size of the enlarged logits exists; on a GPU
    one number a pixel does. A second derivative is not implemented.

    Examples
    --------
    >>> import numpy as np
    >>> from cv3gpu.upsample import upsample_cross_entropy_vjp
    >>> logits = np.zeros((1, 2, 1, 1))
    >>> upsample_cross_entropy_vjp(np.array(1.0), logits, np.array([[[0, 0, 0, 1]]])).ravel()
    array([-0.25,  0.25])
    """
    op = "upsample_cross_entropy_vjp"
    loss = check_loss(op, logits, target, weight, ignore_index, align_corners, label_smoothing, reduction)
    _check.same_dtype(op, "grad", grad, "logits", logits)
    _check.shape(op, "grad", grad, tuple(target.shape) if reduction == "none" else ())
    sampling = _bilinear(op, logits, _target_size(op, target), align_corners)
    shape = tuple(int(k) for k in logits.shape)
    if shape[0] == 0:
        return empty(logits, shape)
    if on_gpu(logits):
        return _entropy_vjp_on_gpu(grad, logits, target, weight, sampling, loss)
    x, classes, weights = _host_inputs(logits, target, weight)
    r, a, r_begin = _neighbours(sampling.h, x.dtype == np.float32)
    s, b, s_begin = _neighbours(sampling.w, x.dtype == np.float32)
    given = _values(grad)
    factor = 1.0 if reduction == "none" else float(given)
    if reduction == "mean":
        share = _shares(classes, weights, loss)
        factor = factor / share if share else 0.0
    by_pixel = np.ascontiguousarray(given) if reduction == "none" else np.empty((0, 0, 0), x.dtype)
    out = np.zeros(shape, x.dtype)
    run = _njit.compiled(*_upsample_loops.ENTROPY_VJP)

    def rows(*piece: int) -> int:
        options = loss.ignore_index, loss.label_smoothing, factor, by_pixel, out
        taps = x, r, a, s, b, r_begin, s_begin
        return run(*taps, classes, weights, *options, *piece, *_space(x, 5), *_lanes(x, 3))

    _refuse_bad(op, classes, each(rows, _bands(shape[0], shape[2])), shape[1], loss)
    return _like(out, logits)


def _target_size(op: str, target: Any) -> tuple[int, int]:
    size = int(target.shape[1]), int(target.shape[2])
    if min(size) < 1:
        _check.fail(op, "target", "have positive height and width", size)
    return size


def _scalar(like: Any, value: float) -> Any:
    """A number as an array without dimensions."""
    out = empty(like, ())
    out[...] = value
    return out


# ---- CPU path -------------------------------------------------------------------------------------------


@functools.lru_cache(maxsize=32)
def _neighbours(axis: Any, single: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """First neighbours [n_out], weights [n_out, 2], and the first output with neighbour k or behind [n_in + 1]."""
    index, weight = _taps(axis, 2, single)
    first = np.ascontiguousarray(index[:, 0])
    begin = np.searchsorted(first, np.arange(axis.n_in + 1))
    return first, np.ascontiguousarray(weight.astype(np.float32 if single else np.float64)), begin


def _host_inputs(logits: Any, target: Any, weight: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    x = np.ascontiguousarray(_values(logits))
    classes = target.detach().numpy() if family(target) == "torch" else target
    weights = np.ones(x.shape[1], x.dtype) if weight is None else np.ascontiguousarray(_values(weight))
    return x, np.ascontiguousarray(classes, np.int64), weights


def _space(x: np.ndarray, rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Work space of a thread, and which rows it holds."""
    return np.empty((rows, x.shape[1], _upsample_loops.LANES), x.dtype), np.empty(2, np.int64)


def _lanes(x: np.ndarray, rows: int) -> tuple[np.ndarray, ...]:
    return tuple(np.zeros((k, _upsample_loops.LANES), x.dtype) for k in (1, 1, rows))


def _bands(n: int, height: int) -> list[tuple[int, int, int]]:
    """Rows of an image for each thread."""
    count = min(height, blocks(cores(), n))
    edges = [height * k // count for k in range(count + 1)]
    return [(image, a, b) for image in range(n) for a, b in itertools.pairwise(edges)]


def _shares(classes: np.ndarray, weights: np.ndarray, loss: Loss) -> float:
    """The sum of the weights of all pixels that are not ignored and have a class."""
    total = 0.0
    for image in classes:
        kept = image[(image != loss.ignore_index) & (image >= 0) & (image < len(weights))]
        total += float(np.bincount(kept, minlength=len(weights)) @ weights.astype(np.float64))
    return total


def _refuse_bad(op: str, target: np.ndarray, found: list[int], n_classes: int, loss: Loss) -> None:
    bad = [place for place in found if place >= 0]
    if bad:
        wanted = f"hold classes 0 to {n_classes - 1}, or ignore_index ({loss.ignore_index})"
        _check.fail(op, "target", wanted, target.reshape(-1)[min(bad)])


# ---- GPU path -------------------------------------------------------------------------------------------

COLUMNS, BLOCK = 128, 256
BAND, LOSSES = 16, 8  # rows of a thread
ROWS, CLASSES, EACH = 4, 4, 4  # of logits and of classes of a block of the gradient, and logits of its threads
ENOUGH_BLOCKS = 2**14  # more of them than this, and each does several images instead


def _launch_argmax(logits: Any, sampling: Sampling, labels: Any) -> None:
    x = readable(logits)
    launch = kernel("upsample.cu", "upsample_argmax", real=dtype_name(x), TAPS=2, LABEL=labels.itemsize)
    launch(_grid(x, sampling, BAND), COLUMNS, x, labels, *x.shape[:2], *strides(x), *_axes(sampling))


def _grid(x: Any, sampling: Sampling, rows: int) -> tuple[int, int]:
    across = blocks(sampling.w.n_out, COLUMNS) * blocks(sampling.h.n_out, rows)
    return across, min(int(x.shape[0]), MAX_GRID_YZ, max(1, ENOUGH_BLOCKS // across))


def _axes(sampling: Sampling) -> tuple[float, ...]:
    h, w = sampling.h, sampling.w
    return (h.n_in, w.n_in, h.n_out, w.n_out, h.scale, h.center, w.scale, w.center)


def _entropies(
    logits: Any, target: Any, weight: Any, sampling: Sampling, loss: Loss, losses: Any, lse: Any, sums: bool
) -> tuple[Any, Any]:
    """Fills ``losses`` and ``lse`` where given; the reduced loss and the sum of weights if ``sums``."""
    grid = _grid(logits, sampling, LOSSES)
    partial = empty(logits, (2, math.prod(grid)), "float64") if sums else None
    constants: dict[str, Any] = {"real": dtype_name(logits), "TAPS": 2, "LABEL": target.itemsize}
    options = *logits.shape[:2], loss.ignore_index, loss.label_smoothing, *strides(logits), *_axes(sampling)
    launch = kernel("upsample.cu", "upsample_entropy", **constants)
    launch(grid, COLUMNS, logits, target, weight, losses, lse, partial, *options)
    if partial is None:
        return None, None
    total, share = empty(logits, ()), empty(logits, (), "float64")
    launch = kernel("upsample.cu", "upsample_entropy_total", **constants)
    launch((1,), BLOCK, partial, total, share, math.prod(grid), int(loss.reduction == "mean"))
    return total, share


def _device_inputs(logits: Any, target: Any, weight: Any) -> tuple[Any, Any, Any]:
    return readable(logits), contiguous(target), None if weight is None else contiguous(weight)


def _entropy_on_gpu(logits: Any, target: Any, weight: Any, sampling: Sampling, loss: Loss) -> Any:
    inputs = _device_inputs(logits, target, weight)
    if loss.reduction != "none":
        return _entropies(*inputs, sampling, loss, None, None, True)[0]
    losses = empty(logits, tuple(target.shape))
    _entropies(*inputs, sampling, loss, losses, None, False)
    return losses


def _entropy_vjp_on_gpu(grad: Any, logits: Any, target: Any, weight: Any, sampling: Sampling, loss: Loss) -> Any:
    x, classes, weights = _device_inputs(logits, target, weight)
    sums = "float64" if dtype_name(x) == "float64" else "float32"
    lse = empty(x, tuple(target.shape), sums)
    _, share = _entropies(x, classes, weights, sampling, loss, None, lse, loss.reduction == "mean")
    out = empty(x, tuple(x.shape))
    h, w = sampling.h, sampling.w
    n, c = (int(k) for k in x.shape[:2])
    cols = min(w.n_in, EACH * BLOCK // (ROWS * CLASSES), max(1, (BLOCK - 2) * w.n_in // w.n_out - 1))
    cols = blocks(w.n_in, blocks(w.n_in, cols))
    across = blocks(w.n_in, cols) * blocks(h.n_in, ROWS) * blocks(c, CLASSES)
    grid = across, min(n, MAX_GRID_YZ, max(1, ENOUGH_BLOCKS // across))
    options = n, c, loss.ignore_index, loss.label_smoothing, int(loss.reduction == "none"), *strides(x)
    launch = kernel("upsample.cu", "upsample_entropy_vjp", real=dtype_name(x), TAPS=2, LABEL=classes.itemsize)
    given = contiguous(grad)
    launch(grid, BLOCK, x, classes, weights, lse, given, share, out, *options, *_axes(sampling), cols)
    return out
