"""The checkerboard of transposed convolutions: where it comes from, and how much of it an upsampling layer has.

A transposed convolution of stride s gives each result as many taps as reach it. Where the stride does not divide the
kernel, their number differs from one result to the next in a pattern of period s, and so does what a layer with random
weights makes even of a constant image. Equal numbers are necessary, and not sufficient: the weights of the phases still
differ. A resize followed by a convolution gives all results inside the image the same weights.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from . import _check
from ._array import array_like, check_device, checked_family, family, to_host
from .conv import conv2d_adjoint_weight, conv_transpose2d
from .resize_conv import resize_conv2d, resize_conv2d_adjoint_weight

__all__ = [
    "Overlap",
    "Trial",
    "checkerboard_study",
    "harmonic_share",
    "overlap_uniformity",
    "pattern_amplitude",
    "phase_means",
]


class Overlap(NamedTuple):
    """How a transposed convolution's taps fall on the phases of its result; see :func:`overlap_uniformity`."""

    rows: np.ndarray
    cols: np.ndarray
    taps: np.ndarray
    minimum: int
    maximum: int
    ratio: float
    norms: np.ndarray | None
    norm_ratio: float | None


def overlap_uniformity(
    kernel_size: int | Sequence[int],
    stride: int | Sequence[int],
    *,
    dilation: int | Sequence[int] = 1,
    weight: Any = None,
) -> Overlap:
    """How evenly the taps of a transposed convolution reach the pixels of its result.

    Tap r of an axis reaches the pixels p with ``p = r dilation (mod stride)``, apart from padding: so away from the
    border the number of taps has period ``stride``, and these are its values.

    Parameters
    ----------
    kernel_size, stride, dilation : int or pair (rows, columns), >= 1
        Of the transposed convolution.
    weight : array, [C, Cout, kh, kw], optional
        Its weights.

    Returns
    -------
    rows, cols : NumPy array, [stride of the axis], int64
        Taps of one axis that reach each phase.
    taps : NumPy array, [stride of rows, stride of columns], int64
        Taps that reach each pixel: their products.
    minimum, maximum : int
        Of ``taps``.
    ratio : float
        minimum / maximum: 1 where the stride divides the kernel (with dilation 1), 0 where some pixels get nothing.
    norms : NumPy array, [stride of rows, stride of columns], float64, or None
        Root of the sum of squares of the weights that reach each phase: how large results are, for white noise.
    norm_ratio : float or None
        The smallest norm over the largest, 0 where all weights are zero.

    Raises
    ------
    TypeError
        A size is no integer, or the weight no array of numbers.
    ValueError
        A size below 1, or a weight of another shape.

    Notes
    -----
    Uniform taps are necessary for an even result, not sufficient: the weights of each phase are others, and with
    random ones the checkerboard is there as well.

    References
    ----------
    A. Odena, V. Dumoulin, C. Olah, "Deconvolution and checkerboard artifacts", Distill, 2016.

    Examples
    --------
    >>> import cv3gpu
    >>> found = cv3gpu.overlap_uniformity(3, 2)
    >>> found.taps
    array([[4, 2],
           [2, 1]])
    >>> found.ratio, cv3gpu.overlap_uniformity(4, 2).ratio
    (0.25, 1.0)
    """
    op = "overlap_uniformity"
    kernel = _check.pair(op, "kernel_size", kernel_size, 1)
    steps = _check.pair(op, "stride", stride, 1)
    spread = _check.pair(op, "dilation", dilation, 1)
    phase = [np.arange(k) * d % s for k, d, s in zip(kernel, spread, steps, strict=True)]
    rows, cols = (np.bincount(p, minlength=s) for p, s in zip(phase, steps, strict=True))
    taps = np.outer(rows, cols)
    norms = ratio = None
    if weight is not None:
        norms = _norms(op, weight, kernel, phase, steps)
        ratio = float(norms.min() / norms.max()) if norms.max() > 0 else 0.0
    least, most = int(taps.min()), int(taps.max())
    return Overlap(rows, cols, taps, least, most, least / most, norms, ratio)


def _norms(
    op: str, weight: Any, kernel: tuple[int, int], phase: Sequence[np.ndarray], steps: tuple[int, int]
) -> np.ndarray:
    checked_family(op, "weight", weight)
    check_device(op, "weight", weight)
    _check.shape(op, "weight", weight, ["C", "Cout", *kernel])
    values = to_host(weight.float() if family(weight) == "torch" and weight.itemsize == 2 else weight)
    if values.dtype.kind not in "fiu" and values.dtype.name != "bfloat16":
        _check.fail(op, "weight", "hold real numbers", values.dtype, error=TypeError)
    squares = np.square(values.astype(np.float64)).sum((0, 1))
    sums = np.zeros(steps)
    np.add.at(sums, np.ix_(*phase), squares)
    return np.sqrt(sums)


# ---- measures of a pattern ------------------------------------------------------------------------------


def _images(op: str, y: Any, period: Any) -> tuple[np.ndarray, tuple[int, int]]:
    """Images as float64 [..., H, W], cut to whole periods."""
    steps = _check.pair(op, "period", period, 1)
    values = array_like(op, "y", y).astype(np.float64, copy=False)
    if not np.isfinite(values).all():
        _check.fail(op, "y", "be finite", values[~np.isfinite(values)][0])
    if values.ndim < 2:
        _check.fail(op, "y", "have shape [..., H, W]", values.shape)
    rows, cols = (n // s * s for n, s in zip(values.shape[-2:], steps, strict=True))
    if 0 in (rows, cols):
        _check.fail(op, "y", f"have at least one period {steps}", values.shape)
    return values[..., :rows, :cols], steps


def phase_means(y: Any, period: int | tuple[int, int]) -> np.ndarray:
    """Means over the pixels of each phase.

    Parameters
    ----------
    y : array of NumPy, [..., H, W]
        Images; rows and columns behind the last whole period do not count.
    period : int or pair (rows, columns), pixels

    Returns
    -------
    NumPy array, [..., period of rows, period of columns], float64

    Examples
    --------
    >>> phase_means([[1, 2, 1, 2], [3, 4, 3, 4]], 2)
    array([[1., 2.],
           [3., 4.]])
    """
    values, (down, across) = _images("phase_means", y, period)
    *lead, rows, cols = values.shape
    return values.reshape(*lead, rows // down, down, cols // across, across).mean((-4, -2))


def pattern_amplitude(y: Any, period: int | tuple[int, int]) -> float:
    """How strong the pattern of a period is: the spread of :func:`phase_means` over the size of the images.

    Root mean square of the means' deviations from the images' means, over that of the images: 0 without a pattern.
    Zero images have none.

    Examples
    --------
    >>> pattern_amplitude([[0, 2, 0, 2], [0, 2, 0, 2]], 2)
    0.7071067811865475
    """
    values, _ = _images("pattern_amplitude", y, period)
    means = phase_means(values, period)
    size = np.sqrt(np.square(values).mean())
    spread = np.sqrt(np.square(means - means.mean((-2, -1), keepdims=True)).mean())
    return float(spread / size) if size > 0 else 0.0


def harmonic_share(y: Any, period: int | tuple[int, int]) -> float:
    """The share of the images' energy, their means apart, at the frequencies of a pattern of the period.

    Those are the multiples of 1 / period in both directions: 1 for a pattern and nothing else, and 0 for what is
    constant.

    Examples
    --------
    >>> harmonic_share([[0, 2, 0, 2], [0, 2, 0, 2]], 2)
    1.0
    """
    values, (down, across) = _images("harmonic_share", y, period)
    rows, cols = values.shape[-2:]
    energy = np.square(np.abs(np.fft.fft2(values))).reshape(-1, rows, cols).sum(0)
    noise = energy.sum() * 1e-24  # what rounding leaves of a constant
    energy[0, 0] = 0
    total = energy.sum()
    return float(energy[:: rows // down, :: cols // across].sum() / total) if total > noise else 0.0


# ---- the study ------------------------------------------------------------------------------------------


class Trial(NamedTuple):
    """One layer of the study; images are of its first output channel, [H, W]."""

    name: str
    overlap: Overlap | None  # None of a resize-convolution
    constant: np.ndarray  # what it makes of a constant image, with its first weights
    start: np.ndarray  # of a smooth image
    trained: np.ndarray  # of the same, with the weights after the last step
    constant_amplitude: float
    start_amplitude: float
    trained_amplitude: float
    start_share: float
    trained_share: float
    start_loss: float
    trained_loss: float


class _Layer(NamedTuple):
    name: str
    kernel: int
    transposed: bool
    run: Callable[[np.ndarray, np.ndarray], np.ndarray]
    adjoint: Callable[[np.ndarray, np.ndarray], np.ndarray]


def _transposed(kernel: int, stride: int) -> _Layer:
    padding, more = divmod(max(kernel - stride, 0), 2)
    options: dict[str, Any] = {"stride": stride, "padding": padding + more}

    def run(x: np.ndarray, weight: np.ndarray) -> np.ndarray:
        return conv_transpose2d(x, weight, output_padding=more, **options)

    def adjoint(grad: np.ndarray, x: np.ndarray) -> np.ndarray:
        return conv2d_adjoint_weight(x, grad, (kernel, kernel), **options)

    return _Layer(f"transposed {kernel}×{kernel}, stride {stride}", kernel, True, run, adjoint)


def _resized(kernel: int, factor: int, mode: str) -> _Layer:
    def run(x: np.ndarray, weight: np.ndarray) -> np.ndarray:
        return resize_conv2d(x, weight, scale_factor=factor, mode=mode)

    def adjoint(grad: np.ndarray, x: np.ndarray) -> np.ndarray:
        return resize_conv2d_adjoint_weight(grad, x, (kernel, kernel), scale_factor=factor, mode=mode)

    return _Layer(f"{mode} ×{factor}, then {kernel}×{kernel}", kernel, False, run, adjoint)


def _waves(
    rng: np.random.Generator, images: int, channels: int, size: int, stride: int
) -> tuple[np.ndarray, np.ndarray]:
    """Smooth images [images, channels, size, size], and the same at the large size."""
    amplitude = rng.standard_normal((images, channels, 3, 3)) / 3

    def sampled(step: int) -> np.ndarray:
        place = (np.arange(size * step) + 0.5) / (size * step)
        wave = np.cos(np.pi * np.arange(3)[:, None] * place)
        return np.einsum("nckl,kh,lw->nchw", amplitude, wave, wave)

    return sampled(1), sampled(stride)


def checkerboard_study(
    *, stride: int = 2, channels: int = 8, size: int = 24, steps: int = 20, seed: int = 0
) -> tuple[Trial, ...]:
    """Upsampling layers with random weights, and after a short training: how much of a checkerboard they make.

    The layers learn to enlarge smooth images and to mix their channels, which all can do well. Compared are transposed
    convolutions whose stride does not divide the kernel (2 stride - 1 taps an axis) and does (2 stride), and
    resize-convolutions of 3 x 3 taps after ``"nearest"`` and ``"bilinear"``.

    Parameters
    ----------
    stride : int, 2 to 8
        Of the transposed convolutions; the factor of the resizes.
    channels : int
        Of the images and of the results.
    size : int, pixels, at least 12
        Rows and columns of the small images.
    steps : int
        Steps of steepest descent on the mean square error, each to the lowest point of its line.
    seed : int
        Of images and weights.

    Returns
    -------
    tuple of Trial
        One for each layer. Amplitudes are :func:`pattern_amplitude`, shares :func:`harmonic_share`, over all channels
        and, for a smooth image, of one that was not trained on; border pixels do not count.

    Notes
    -----
    Weights start uniform in ±1 / sqrt(taps that a result has on average times channels), as torch has them. On the
    CPU, in float64; under a second. :func:`cv3gpu.viz.checkerboard_figure` draws it.

    Examples
    --------
    >>> from cv3gpu.checkerboard import checkerboard_study
    >>> uneven, even, nearest, bilinear = checkerboard_study(steps=3, channels=4)
    >>> uneven.overlap.ratio, even.overlap.ratio
    (0.25, 1.0)
    >>> uneven.constant_amplitude > 0.1, nearest.constant_amplitude < 1e-12
    (True, True)
    """
    op = "checkerboard_study"
    stride = _check.integer(op, "stride", stride, 2, 8)
    channels = _check.integer(op, "channels", channels, 1)
    size = _check.integer(op, "size", size, 12)
    steps = _check.integer(op, "steps", steps, 0)
    rng = np.random.default_rng(_check.integer(op, "seed", seed, 0))
    mix = rng.standard_normal((channels, channels)) / np.sqrt(channels)
    images, targets = _waves(rng, 5, channels, size, stride)
    targets = np.einsum("oc,nchw->nohw", mix, targets)
    layers = (
        _transposed(2 * stride - 1, stride),
        _transposed(2 * stride, stride),
        _resized(3, stride, "nearest"),
        _resized(3, stride, "bilinear"),
    )
    return tuple(_trial(layer, images, targets, stride, steps, rng) for layer in layers)


def _trial(
    layer: _Layer, images: np.ndarray, targets: np.ndarray, stride: int, steps: int, rng: np.random.Generator
) -> Trial:
    channels = images.shape[1]
    spread = 1 / np.sqrt(channels * layer.kernel**2 / (stride**2 if layer.transposed else 1))
    weight = rng.uniform(-spread, spread, (channels, channels, layer.kernel, layer.kernel))
    edge = 2 * stride
    inside = np.s_[..., edge:-edge, edge:-edge]  # whole periods, where no zero outside of the image counts
    constant = layer.run(np.ones_like(images[:1]), weight)[inside]
    x, target, test = images[:-1], targets[:-1][inside], images[-1:]
    start = layer.run(test, weight)[inside]
    losses = []
    for _ in range(steps + 1):
        off = layer.run(x, weight)[inside] - target
        losses.append(float(np.square(off).mean()))
        if len(losses) > steps:
            break
        grad = np.zeros_like(targets[:-1])
        grad[inside] = off
        down = layer.adjoint(grad, x)
        along = layer.run(x, down)[inside]
        weight -= np.square(down).sum() / np.square(along).sum() * down
    trained = layer.run(test, weight)[inside]
    return Trial(
        layer.name,
        overlap_uniformity(layer.kernel, stride, weight=weight) if layer.transposed else None,
        constant[0, 0],
        start[0, 0],
        trained[0, 0],
        pattern_amplitude(constant, stride),
        pattern_amplitude(start, stride),
        pattern_amplitude(trained, stride),
        harmonic_share(start, stride),
        harmonic_share(trained, stride),
        losses[0],
        losses[-1],
    )
