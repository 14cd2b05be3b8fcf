"""The GPU half of thresholds; the kernels are in ``kernels/ncut.cu``."""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import _array
from .._kernel import blocks, kernel
from ..affinity.matrix import Given
from ..affinity.pixel import PixelAffinity

__all__ = ["best"]

_THREADS, _TILE, _WARP = 256, 1024, 32  # as in ncut.cu


def _device(values: Any, like: Any) -> Any:
    return _array.from_host(np.ascontiguousarray(values), like)


def best(affinity: PixelAffinity | Given, vector: Any, least: int) -> tuple[Any, Any, Any]:
    """Of each vector [B, N]: the vertices above the best threshold [B, N], the threshold and the cut [B]."""
    rows = _array.contiguous(vector).reshape((-1, vector.shape[-1]))
    batch, n = (int(size) for size in rows.shape)
    constants: dict[str, Any] = {"real": _array.dtype_name(rows)}

    def run(name: str, grid: tuple[int, ...], *args: Any) -> None:
        kernel("ncut.cu", name, **constants)(grid, _THREADS, *args)

    order = _array.empty(rows, (batch, n), "int64")
    for b in range(batch):
        order[b] = _array.argsort(rows[b])
    rank = _array.empty(rows, (batch, n), "int32")
    run("ncut_rank", (blocks(n, _THREADS), batch), order, rank, n)
    terms = _array.empty(rows, (batch, 3, n), "float64")
    if isinstance(affinity, PixelAffinity):
        weights = affinity.weights.reshape((batch, len(affinity.offsets), *affinity.grid))
        pairs = _device(np.array([*affinity.offsets, (0, 0)], np.int32), rows)  # never empty, nor are the weights
        image, plane = _array.strides(weights)[:2]
        run("ncut_grid", (blocks(n, _THREADS), batch), weights if affinity.offsets else _array.zeros(rows, (1,)), pairs,
            rank, terms, *affinity.grid, len(affinity.offsets), image, plane, affinity.self_weight)  # fmt: skip
    else:
        w = affinity.matrix
        parts = [_device(x.astype(kind), rows) for x, kind in ((w.indptr, "int64"), (w.indices, "int64"),
                                                               (w.data, constants["real"]))]  # fmt: skip
        run("ncut_rows", (blocks(n, _THREADS // _WARP),), *parts, rank, terms, n)
    tiles = blocks(n, _TILE)
    part = _array.empty(rows, (batch, tiles + 1, 4), "float64")
    run("ncut_sums", (tiles, batch), terms, part, n)
    run("ncut_offsets", (batch,), part, tiles)
    value, place = (_array.empty(rows, (batch, tiles), kind) for kind in ("float64", "int64"))
    run("ncut_best", (tiles, batch), terms, part, order, rows, value, place, n, least)
    found = _array.empty(rows, (batch, 2), "float64")
    run("ncut_pick", (batch,), value, place, order, rows, found, n, tiles)
    threshold = found[:, 0]
    return rows > threshold[:, None], threshold, found[:, 1]
