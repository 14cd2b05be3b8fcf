"""The exact Gaussian filter of the dense CRF: the sum over all pairs of points, tiles that are too far apart left out.

The points of an image are ordered by a tree that halves them along their widest axis, so that 64 consecutive ones, a
tile, are close together. Two tiles whose boxes are far apart share only pairs of tiny weight: for each tile of
queries those farthest away are left out, as long as all that is left out weighs no more than a tolerance.
What remains is a dense product for each pair of tiles whose matrix is computed on the way, and never stored.
"""

from __future__ import annotations

from typing import Any

from .. import _array, _check
from .._kernel import blocks
from . import _pairs_cpu, _pairs_gpu
from ._tiles import TILE

__all__ = ["AllPairs"]

TOLERANCE = {"float32": 1e-6, "float64": 1e-14}


class AllPairs:
    r"""The filter :math:`(K v)_i = \sum_j \exp(-|f_i - f_j|^2 / 2)\, v_j` over the points j of an image, i included.

    Parameters
    ----------
    features : array, [B, D, N], float32/float64
        D features, 1 to 8, of the N points of B images; dense by rows. The result's library and device are theirs.
    tolerance : float, optional
        How much weight may be left out for a point: 1e-6 for float32, 1e-14 for float64 unless given; 0 keeps all.
    dtype : {"float32", "float64"}, optional
        Of the values, and what is computed in; the features' unless given. Features of float64 with values of float32
        keep the digits of a difference of large features: a colour of 255 over a width of 3 is off by 4e-6 in float32.

    Notes
    -----
    Error: of the sum for point i, tiles of keys are left out only while :math:`\sum_j n_j \exp(-d_{ij}^2 / 2)` over
    them is at most the tolerance, n_j being the number of points of tile j and d_ij the distance of its bounding box
    from that of the tile of i, rounded down. No point of tile j is nearer to i than d_ij, so
    :math:`|\mathrm{error}_i| \le \mathrm{tolerance} \cdot \max_j |v_j|`, besides the rounding of what is summed. Each
    channel obeys the bound with its own maximum. The gradient leaves out the same tiles.

    Rounding: a weight in float32 is off by 4e-7 at most (the distance and its exponential). On tensor cores a product
    of weight and value is three TF32 products, off by 1.2e-6 of itself at most, and typically by 1e-7.

    Every result is the same from run to run, and on the CPU for any number of threads. A feature that is NaN makes
    every result of its image NaN. Cost: kept · N² pairs, each D + C multiply-adds and an exponential.
    """

    entries = 1  # what a reader of `spread` needs to know: row i of its result belongs to point i, with weight one

    def __init__(self, features: Any, tolerance: float | None = None, dtype: str | None = None) -> None:
        _check.ndim("AllPairs", "features", features, 3, "[B, D, N]")
        _check.dtype("AllPairs", "features", features, tuple(TOLERANCE))
        _check.integer("AllPairs", "number of features", int(features.shape[1]), 1, 8)
        real = _check.choice("AllPairs", "dtype", dtype or _array.dtype_name(features), tuple(TOLERANCE))
        tolerance = TOLERANCE[real] if tolerance is None else tolerance
        images, axes, points = (int(n) for n in features.shape)
        self._shape = images, axes, points
        half = _pairs_gpu if _array.on_gpu(features) else _pairs_cpu
        self._half = half.Filter(features, self._shape, float(tolerance), real)

    @property
    def kept(self) -> float:
        """The share of all pairs of tiles that is computed."""
        images, _, points = self._shape
        pairs = images * blocks(points, TILE) ** 2
        return self._half.pairs / pairs if pairs else 1.0

    def spread(self, values: Any, transposed: bool = False) -> Any:
        """The filter of ``values`` [B * N, C], C a multiple of 4, of the same shape; K is symmetric."""
        return self._half.spread(values)

    def feature_vjp(self, values: Any, grad: Any) -> Any:
        """The gradient [B, D, N] of ``sum(grad * spread(values))`` with respect to the features."""
        return self._half.feature_vjp(values, grad)
