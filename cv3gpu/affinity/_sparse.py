"""Sparse matrices of the libraries."""

from __future__ import annotations

import importlib
import sys
import warnings
from typing import Any

import numpy as np

from .. import _array

__all__ = ["sparse_like"]


def sparse_like(data: Any, columns: Any, start: Any, like: Any) -> Any:
    """A square matrix by rows, SciPy's, CuPy's or torch's, on an array's device; parts are NumPy's or lie there."""
    n = len(start) - 1
    if _array.family(like) == "numpy":
        from scipy import sparse

        small = "int32" if max(len(data), n) < 2**31 else "int64"  # as SciPy; others insist on it
        return sparse.csr_array((data, columns.astype(small), start.astype(small)), (n, n))
    columns, start = _array.astype(columns, "int64"), _array.astype(start, "int64")
    data, columns, start = (
        _array.from_host(np.ascontiguousarray(part), like) if isinstance(part, np.ndarray) else _array.contiguous(part)
        for part in (data, columns, start)
    )
    if _array.family(like) == "torch":
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta")
            return sys.modules["torch"].sparse_csr_tensor(start, columns, data, size=(n, n), check_invariants=False)
    return importlib.import_module("cupyx.scipy.sparse").csr_matrix((data, columns, start), (n, n))
