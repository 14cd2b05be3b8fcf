"""Mean shift: modes of a density, and which points climb to them."""

from __future__ import annotations

import math
import warnings
from typing import Any, NamedTuple

import numpy as np

from .. import _array, _check
from .._array import array_op
from ..errors import ConvergenceWarning
from . import _cpu, _gpu
from ._grid import CUTOFF, grid

__all__ = ["MeanShift", "climb", "mean_shift", "options"]

OP = "mean_shift"
DTYPES = ("float32", "float64")
KERNELS = ("flat", "gaussian")
MOST_FEATURES = 32
FARTHEST = {"float32": 1e18, "float64": 1e150}  # extent of the points: its square is finite


class MeanShift(NamedTuple):
    """Modes, see :func:`mean_shift`."""

    labels: Any  # [N], int64
    modes: Any  # [K, D]
    n_iter: int


@array_op("x")
def mean_shift(x: Any, bandwidth: float, *, kernel: str = "flat", max_iter: int = 300, tol: float = 1e-3) -> MeanShift:
    """Cluster points by the modes of their density: each climbs ``y <- sum_i g(|y - x_i|^2 / h^2) x_i / sum_i g``.

    Parameters
    ----------
    x : array, [N, D], float32/float64
        Points, D from 1 to 32; such as the colour and the place of pixels.
    bandwidth : float
        h, in the unit of ``x``.
    kernel : "flat" or "gaussian"
        ``g(q) = 1`` for q up to 1, else 0; or ``g(q) = exp(-q / 2)`` for q up to 18, else 0.
    max_iter : int
        Steps of a point at most.
    tol : float
        A point has arrived with a step of at most ``tol`` bandwidths. 0: where it does not move any more.

    Returns
    -------
    labels : array, [N], int64
        The mode of each point.
    modes : array, [K, D], of the dtype of ``x``
        In order of first appearance: the points' ends are taken in turn, and each is a mode, unless it is nearer than
        h / 2 to one found before, the nearest of which it then belongs to.
    n_iter : int
        The most steps that a point has made.

    Raises
    ------
    TypeError
        If ``x`` is no array of float32 or float64, or an option of the wrong type.
    ValueError
        If shapes do not fit, values are not finite (or so far apart that squares overflow), or an option is out of its
        range.

    Warns
    -----
    ConvergenceWarning
        If ``max_iter`` steps were too few for a point; its end is where it got to.

    Notes
    -----
    Every point climbs, and every other counts: no seeds, no bins. A grid over the three widest dimensions, of cells at
    least as wide as the kernel, finds the neighbours. The CPU computes in float64; a point that comes to a position
    where another one has been, to the last bit, takes over the rest of its way, which changes nothing. A GPU computes
    in the dtype of ``x``, a warp for each point. The same bits on every run and for any number of threads; the two
    differ by rounding, which may move a point at the border of a flat kernel. No gradient. No points have no modes.

    References
    ----------
    D. Comaniciu, P. Meer, Mean shift: a robust approach toward feature space analysis, 2002, equation 20. Y. Cheng,
    Mean shift, mode seeking, and clustering, 1995.

    Examples
    --------
    >>> import numpy as np
    >>> from cv3gpu.cluster import mean_shift
    >>> labels, modes, n_iter = mean_shift(np.array([[0.0], [0.5], [1.0], [5.0], [5.5]]), 1.0)
    >>> labels.tolist(), modes.ravel().tolist()
    ([0, 0, 0, 1, 1], [0.5, 5.25])
    """
    _check.dtype(OP, "x", x, DTYPES)
    _check.ndim(OP, "x", x, 2, "[N, D]")
    points, dims = (int(n) for n in x.shape)
    if not 1 <= dims <= MOST_FEATURES:
        _check.fail(OP, "x", f"have 1 to {MOST_FEATURES} features (axis 1)", dims)
    if points >= 2**31 - 1:
        _check.fail(OP, "x", "have fewer than 2^31 - 1 points", points)
    bandwidth = _check.real(OP, "bandwidth", bandwidth, positive=True)
    how = options(OP, kernel, max_iter, tol)
    if points == 0:
        return MeanShift(_array.zeros(x, (0,), "int64"), _array.zeros(x, (0, dims)), 0)
    on_gpu = _array.on_gpu(x)
    found = climb(OP, "x", _array.contiguous(x) if on_gpu else _array.as_numpy(x), bandwidth, *how)
    labels, modes = found.merged()
    modes = _array.astype(modes, _array.dtype_name(x))
    if not on_gpu:
        labels, modes = (_array.from_numpy(y, x) for y in (labels, modes))
    return MeanShift(labels, modes, found.steps)


def options(op: str, kernel: Any, max_iter: Any, tol: Any) -> tuple[bool, int, float]:
    """Is the kernel the Gaussian, steps, tolerance: checked."""
    gaussian = _check.choice(op, "kernel", kernel, KERNELS) == "gaussian"
    max_iter = _check.integer(op, "max_iter", max_iter, 1)
    return gaussian, max_iter, _check.not_negative(op, "tol", tol)


def climb(op: str, argument: str, rows: Any, bandwidth: float, gaussian: bool, max_iter: int, tol: float,
          stacklevel: int = 5) -> Any:  # fmt: skip
    """Lets all points [N, D] climb; a `Climb` of `_cpu` or `_gpu`."""
    ends = [_array.to_host(getattr(_array.module(rows), name)(rows, 0)) for name in ("amin", "amax")]
    low, high = (end.astype(np.float64) for end in ends)
    farthest = FARTHEST[_array.dtype_name(rows)]
    if not (high - low < farthest).all():
        _check.fail(op, argument, f"be finite, with differences below {farthest:g}", "other values")
    if not 1 / farthest < bandwidth < farthest:
        _check.fail(op, "bandwidth", f"be from {1 / farthest:g} to {farthest:g}", bandwidth)
    cells = grid(low, high, bandwidth * (math.sqrt(CUTOFF) if gaussian else 1.0))
    way = _gpu.Climb if _array.on_gpu(rows) else _cpu.Climb
    found: Any = way(rows, cells, bandwidth, gaussian, max_iter, tol)
    if found.late:
        warnings.warn(f"{op}: {max_iter} steps were too few for {found.late} of {len(rows)} points; raise max_iter",
                      ConvergenceWarning, stacklevel=stacklevel)  # fmt: skip
    return found
