"""The ten smallest pairs of normalised cuts on photographs, against SciPy's ARPACK; products of affinities and blocks.

The eigensolver starts from an affinity that is there, ARPACK from its normalised matrix by rows. Both are asked for
residuals of 1e-6: ours by a tolerance relative to the eigenvalues, as it has it. One core, and a second time all.

``bytes`` of a product are those of the half stencil and of the block before and after; ``flops`` two for each of its
neighbours. Of the eigensolver they are those of one product.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from cv3gpu.affinity import PixelAffinity, pixel_affinity
from cv3gpu.eigen import Eigenpairs, smallest_eigenpairs

from . import peers
from .entry import Entry, Errors, Way, Work, dense_errors

WRONG = Errors(float("inf"), float("inf"))
PAIRS = 10
RESIDUAL = 1e-6
BLOCK = 16
NEIGHBOURS = 68
SIZES = (128, 256, 512)
ONCE = 512  # from this size on ARPACK takes minutes, and runs once


def photograph(size: int) -> np.ndarray:
    """The cameraman in 0-1, [size, size]."""
    whole = pytest.importorskip("skimage.data").camera() / 255.0
    step = len(whole) // size
    return whole.reshape(size, step, size, step).mean((1, 3))


@functools.lru_cache(maxsize=1)
def affinity_of(size: int, dtype: str) -> PixelAffinity:
    """The graph of Shi and Malik's paper."""
    return pixel_affinity(photograph(size).astype(dtype))


def normalised(affinity: PixelAffinity) -> Any:
    """D^-1/2 W D^-1/2, by rows."""
    sparse = pytest.importorskip("scipy.sparse")
    root = sparse.diags_array(1 / np.sqrt(affinity.degree))
    return (root @ affinity.tocsr() @ root).tocsr()


# ---- eigenpairs -----------------------------------------------------------------------------------------


def arpack(matrix: Any) -> np.ndarray:
    """Eigenvalues of the Laplacian, ascending."""
    linalg = pytest.importorskip("scipy.sparse.linalg")
    start = np.random.default_rng(0).standard_normal(matrix.shape[0])
    values, _ = linalg.eigsh(matrix, PAIRS, which="LA", tol=RESIDUAL, v0=start)
    return 1 - values[::-1]


def pair_errors(reference: np.ndarray, got: Any) -> Errors:
    """Of the eigenvalues, relative to the largest; infinite where a residual of ours is above the limit."""
    if isinstance(got, Eigenpairs):
        if not got.residual.max() <= RESIDUAL:
            return WRONG
        got = got.eigenvalues
    return dense_errors(reference, got)


def _pairs(size: int) -> Work:
    affinity = affinity_of(size, "float64")
    tight = smallest_eigenpairs(affinity, PAIRS, tol=1e-9)
    ours = functools.partial(smallest_eigenpairs, affinity, PAIRS, tol=RESIDUAL / float(tight.eigenvalues[-1]))
    matrix = normalised(affinity)
    peer: Way = peers.on_one_core(functools.partial(arpack, matrix))
    if size < ONCE:
        reference = arpack(matrix)
        work = Work(ours=peers.on_one_core(ours), errors=functools.partial(pair_errors, reference))  # type: ignore[arg-type]
        work.peers["SciPy's ARPACK, 1 core"] = peer
    else:
        started = time.perf_counter()
        reference = peer()  # type: ignore[operator]
        taken = time.perf_counter() - started
        work = Work(ours=peers.on_one_core(ours), errors=functools.partial(pair_errors, reference))  # type: ignore[arg-type]
        work.once["SciPy's ARPACK, 1 core, once"] = lambda: (reference, taken)
    work.peers["ours on all cores"] = ours
    work.facts["iterations"] = ours().n_iter
    work.limits = dict.fromkeys(("ours", *work.peers, *work.once), "float32")  # residuals squared over the gaps
    return work


# ---- products -------------------------------------------------------------------------------------------


def _product(size: int, dtype: str, device: str) -> Work:
    affinity = affinity_of(size, dtype)
    x = np.random.default_rng(0).standard_normal((size * size, BLOCK)).astype(dtype)
    matrix = affinity.tocsr()
    errors = functools.partial(product_errors, matrix.astype(np.float64) @ x)
    host: Callable[[], Any] = functools.partial(affinity.__matmul__, x)
    scipy: Way = peers.on_one_core(functools.partial(matrix.__matmul__, x))
    if device == "cpu":
        alone = peers.on_one_core(host)
        return Work(ours=alone, errors=errors, peers={"SciPy's CSR": scipy, "ours on all cores": host})  # type: ignore[arg-type]
    torch = pytest.importorskip("torch")
    there = pixel_affinity(torch.from_numpy(photograph(size).astype(dtype)).cuda())
    block, rows = torch.from_numpy(x).cuda(), there.tocsr()
    ours: Callable[[], Any] = functools.partial(there.__matmul__, block)
    work = Work(ours=ours, errors=errors, host_peers={"ours on the CPU": host, "SciPy's CSR": scipy})
    work.peers["torch's CSR"] = functools.partial(torch.mm, rows, block)
    return work


def product_errors(reference: np.ndarray, got: Any) -> Errors:
    """Of a product, wherever it is."""
    return dense_errors(reference, got.cpu().numpy() if hasattr(got, "cpu") else got)


# ---- entries --------------------------------------------------------------------------------------------


def _entry(
    name: str, size: int, dtype: str, device: str, block: int, setup: Callable[[], Work], priority: int
) -> Entry:
    width = 4 if dtype == "float32" else 8
    return Entry(
        name=f"{name} {size}x{size} {dtype} {device}",
        family="eigen",
        shape=f"radius 5, {block} vectors",
        device=device,
        dtype=dtype,
        bytes=size * size * width * (NEIGHBOURS // 2 + 2 * block),
        flops=2 * size * size * NEIGHBOURS * block,
        setup=setup,
        priority=priority,
    )


ENTRIES = [
    *(
        _entry(
            "smallest_eigenpairs", size, "float64", "cpu", PAIRS, functools.partial(_pairs, size), 2 * (size >= ONCE)
        )
        for size in SIZES
    ),
    *(
        _entry("affinity @ x", 512, dtype, device, BLOCK, functools.partial(_product, 512, dtype, device), 1)
        for device in ("cuda", "cpu")
        for dtype in ("float32", "float64")
    ),
]


@pytest.mark.parametrize("entry", ENTRIES, ids=str)
def bench_eigen(entry: Entry, measure: Any) -> None:
    measure(entry)
