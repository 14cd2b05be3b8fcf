"""What the operators on affinities take: our pixel affinity, sparse matrices, square dense arrays."""

from __future__ import annotations

import importlib
import sys
from typing import Any, NamedTuple

import numpy as np

from .. import _array, _check
from .pixel import PixelAffinity

__all__ = ["Given", "given"]

WANTED = "be a pixel affinity, a SciPy or CuPy sparse matrix, a torch sparse CSR tensor, or a square dense array"
FLOATS = ("float32", "float64")
ASYMMETRY = {"float32": 1e-5, "float64": 1e-10}  # of the greatest weight


class Given(NamedTuple):
    """An affinity on the host: as a pixel affinity, or as a SciPy matrix by rows in float64."""

    pixels: PixelAffinity | None
    matrix: Any
    like: Any  # an array of the library and device that results belong to
    dtype: str

    @property
    def size(self) -> int:
        """Number of vertices."""
        return int((self.matrix if self.pixels is None else self.pixels).shape[-1])

    def sparse(self) -> Any:
        """The SciPy matrix."""
        return self.matrix if self.pixels is None else self.pixels.host().tocsr().astype(np.float64)

    def back(self, values: np.ndarray) -> Any:
        """Results in the library and on the device of the affinity."""
        return _array.from_host(np.ascontiguousarray(values), self.like)


def given(op: str, affinity: Any) -> Given:
    """The affinity, checked: square, real, finite, symmetric, not negative."""
    if isinstance(affinity, PixelAffinity):
        if len(affinity.shape) != 2:
            advice = "take the images one by one: affinity[i]"
            _check.fail(op, "affinity", "be of one image", f"a batch of {affinity.shape[0]}", advice)
        return Given(affinity, None, affinity.kept, _array.dtype_name(affinity.kept))
    root = type(affinity).__module__.partition(".")[0]
    if root == "scipy" and hasattr(affinity, "tocsr"):
        matrix, like, dtype = affinity, np.empty(0), affinity.dtype.name
    elif root == "cupyx" and hasattr(affinity, "tocsr"):
        matrix, dtype = affinity.get(), affinity.dtype.name
        like = importlib.import_module("cupy").empty(0)
    elif _array.family(affinity) == "torch" and affinity.layout == sys.modules["torch"].sparse_csr:
        from scipy import sparse

        parts = (affinity.values(), affinity.col_indices(), affinity.crow_indices())
        matrix = sparse.csr_array(tuple(_array.to_host(x) for x in parts), tuple(affinity.shape))
        like, dtype = affinity.values(), _array.dtype_name(affinity)
    elif _array.family(affinity) is not None and not getattr(affinity, "is_sparse", False):
        if affinity.ndim != 2:
            _check.fail(op, "affinity", "have shape [N, N]", tuple(affinity.shape))
        matrix, like, dtype = _array.host_values(op, "affinity", affinity), affinity, _array.dtype_name(affinity)
    else:
        got = f"a torch tensor of layout {affinity.layout}" if _array.family(affinity) else _check.kind(affinity)
        _check.fail(op, "affinity", WANTED, got, error=TypeError)
    if dtype == "bool" or np.dtype(dtype).kind in "iu":  # a graph without weights
        dtype = "float64"
    if dtype not in FLOATS:
        _check.fail(op, "affinity", "be of real numbers, float32 or float64", dtype, error=TypeError)
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
        _check.fail(op, "affinity", "have shape [N, N]", tuple(matrix.shape))
    return Given(None, _symmetric(op, matrix, dtype), like, dtype)


def _symmetric(op: str, matrix: Any, dtype: str) -> Any:
    from scipy import sparse

    matrix = sparse.csr_array(matrix, dtype=np.float64)
    matrix.sum_duplicates()
    if not np.isfinite(matrix.data).all():
        _check.fail(op, "affinity", "be finite", matrix.data[~np.isfinite(matrix.data)][0])
    if (least := matrix.data.min(initial=0)) < 0:
        _check.fail(op, "affinity", "not be negative", least)
    apart = abs(matrix - matrix.T)
    if apart.nnz and apart.max() > ASYMMETRY[dtype] * matrix.max():
        _check.fail(op, "affinity", "be symmetric", f"entries that differ by {apart.max():g}", "take (A + A.T) / 2")
    return matrix
