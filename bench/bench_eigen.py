"""The ten smallest pairs of normalised cuts on photographs; products of affinities and blocks.

The eigensolver starts from an affinity that is there; SciPy's ARPACK, and its LOBPCG with a smoothed aggregation of
pyamg as preconditioner, from the normalised matrix by rows. All are asked for residuals of 1e-6: ours by a tolerance
relative to the eigenvalues, as it has it. One core, and ours a second time on all. The peak memory of each is what it
takes beyond the affinity or the matrix. On a GPU: the multigrid, and filters alone (of an affinity that is stored, or
made of the image anew), against cupyx's eigsh.

How the cost grows: a retina from 128x128 to 1024x1024 at the default tolerance, one core, with iterations and the
peak memory beyond what a fresh process had when it was called, the affinity left out. The error there is the largest
residual, by a product of the affinity: no exact eigenvalue is farther off than that.

``bytes`` of a product are those of the half stencil and of the block before and after; ``flops`` two for each of its
neighbours. Of the eigensolver they are those of one product.
"""

from __future__ import annotations

import functools
import importlib
import statistics
import subprocess
import sys
from collections.abc import Callable
from typing import Any
from unittest import mock

import numpy as np
import pytest

from cv3gpu.affinity import PixelAffinity, pixel_affinity
from cv3gpu.eigen import Eigenpairs, smallest_eigenpairs

from . import peers
from .entry import NOT_INSTALLED, Entry, Errors, Way, Work, dense_errors

WRONG = Errors(float("inf"), float("inf"))
PAIRS = 10
RESIDUAL = 1e-6
BLOCK = 16
NEIGHBOURS = 68
SIZES = (128, 256, 512)
GROWTH = (*SIZES, 1024)
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


def lobpcg(matrix: Any) -> np.ndarray:
    """Eigenvalues of the Laplacian, ascending, by SciPy's LOBPCG with pyamg's preconditioner."""
    sparse, linalg = pytest.importorskip("scipy.sparse"), pytest.importorskip("scipy.sparse.linalg")
    laplacian = (sparse.eye_array(matrix.shape[0]) - matrix).tocsr()
    pyamg = importlib.import_module("pyamg")
    levels = pyamg.smoothed_aggregation_solver(laplacian, strength=("symmetric", {"theta": 0.02}))
    start = np.random.default_rng(0).standard_normal((matrix.shape[0], PAIRS))
    values, _ = linalg.lobpcg(laplacian, start, M=levels.aspreconditioner(), tol=RESIDUAL, maxiter=200, largest=False)
    return np.sort(values)


def pair_errors(reference: np.ndarray, got: Any) -> Errors:
    """Of the eigenvalues, relative to the largest; infinite where a residual of ours is above the limit."""
    if isinstance(got, Eigenpairs):
        if not got.residual.max() <= RESIDUAL:
            return WRONG
        got = got.eigenvalues
    return product_errors(reference, got)


PEERS = {"SciPy's ARPACK, 1 core": arpack, "SciPy's LOBPCG with pyamg, 1 core": lobpcg}


def _pairs(size: int) -> Work:
    affinity = affinity_of(size, "float64")
    tight = smallest_eigenpairs(affinity, PAIRS, tol=1e-9)
    tol = RESIDUAL / float(tight.eigenvalues[-1])
    ours = functools.partial(smallest_eigenpairs, affinity, PAIRS, tol=tol)
    matrix = normalised(affinity)
    reference = arpack(matrix) if size < ONCE else tight.eigenvalues
    work = Work(ours=peers.on_one_core(ours), errors=functools.partial(pair_errors, reference))  # type: ignore[arg-type]
    for name, solve in PEERS.items():
        if solve is lobpcg and peers.installed("pyamg") is None:
            work.peers[name] = NOT_INSTALLED
        elif size < ONCE:
            work.peers[name] = peers.on_one_core(functools.partial(solve, matrix))
        else:
            alone: Any = peers.on_one_core(functools.partial(solve, matrix))
            work.once[f"{name}, once"] = functools.partial(peers.timed, alone)
    work.peers["ours on all cores"] = ours
    work.facts["iterations"] = ours().n_iter
    work.facts["peak memory, bytes"] = peak_memory("photograph", size, "ours", tol)
    for name, solve in PEERS.items():
        if solve is arpack or peers.installed("pyamg") is not None:
            work.facts[f"peak memory of {name}, bytes"] = peak_memory("photograph", size, solve.__name__)
    work.limits = dict.fromkeys(("ours", *work.peers, *work.once), "float32")  # residuals squared over the gaps
    return work


# As `_pairs` and `_growth`, in a process of its own; the call went once before, on a small input.
_MEMORY = """
import sys
from bench import bench_eigen, peers
from cv3gpu.affinity import pixel_affinity
from cv3gpu.eigen import smallest_eigenpairs
picture, size, solver, tol = sys.argv[1], int(sys.argv[2]), sys.argv[3], float(sys.argv[4])
def ours(affinity):
    return smallest_eigenpairs(affinity, bench_eigen.PAIRS, tol=tol)
solve = ours if solver == "ours" else getattr(bench_eigen, solver)
def given(size):
    affinity = pixel_affinity(getattr(bench_eigen, picture)(size))
    return affinity if solver == "ours" else bench_eigen.normalised(affinity)
def memory(field):
    with open("/proc/self/status") as status:
        return 1024 * next(int(line.split()[1]) for line in status if line.startswith(field))
small, whole = given(32), given(size)
peers.on_one_core(lambda: solve(small))()
with open("/proc/self/clear_refs", "w") as control:
    control.write("5")  # the peak starts anew
before = memory("VmRSS")
peers.on_one_core(lambda: solve(whole))()
print(memory("VmHWM") - before)
"""


def peak_memory(picture: str, size: int, solver: str = "ours", tol: float = RESIDUAL) -> float:
    """Bytes that a solver takes at its peak, on one core: the median of three processes, whose heaps differ."""
    command = [sys.executable, "-c", _MEMORY, picture, str(size), solver, repr(tol)]
    return statistics.median(float(subprocess.check_output(command, cwd=peers.ROOT, text=True)) for _ in range(3))


# ---- growth ---------------------------------------------------------------------------------------------


def retina(size: int) -> np.ndarray:
    """Grey in 0-1, [size, size], made smaller by means."""
    whole = pytest.importorskip("skimage.data").retina()[190:1214, 190:1214].mean(2) / 255
    step = len(whole) // size
    return whole.reshape(size, step, size, step).mean((1, 3))


def residual_errors(affinity: PixelAffinity, got: Eigenpairs) -> Errors:
    """The largest residual, of the eigenvalues; NaN counts as infinite."""
    degree, y = affinity.degree[:, None], got.eigenvectors
    off = (degree * y - affinity @ y - degree * y * got.eigenvalues) / np.sqrt(degree)
    worst = float(np.linalg.norm(off, axis=0).max() / got.eigenvalues[-1])
    return Errors(worst, worst) if worst == worst else WRONG


def _growth(size: int) -> Work:
    affinity = pixel_affinity(retina(size))
    ours = functools.partial(smallest_eigenpairs, affinity, PAIRS)
    work = Work(ours=peers.on_one_core(ours), errors=functools.partial(residual_errors, affinity))  # type: ignore[arg-type]
    work.peers["ours on all cores"] = ours
    work.limits = dict.fromkeys(("ours", *work.peers), "float32")  # residuals: eigenvalues are closer by far
    work.facts = {"iterations": ours().n_iter, "peak memory, bytes": peak_memory("retina", size)}
    return work


# ---- on a GPU -------------------------------------------------------------------------------------------


def cupyx_lanczos(matrix: Any) -> np.ndarray:
    """Eigenvalues of the Laplacian, ascending; cupyx says nothing of convergence, the errors do."""
    linalg = importlib.import_module("cupyx.scipy.sparse.linalg")
    values = linalg.eigsh(matrix, PAIRS, which="LA", tol=RESIDUAL, return_eigenvectors=False)
    return 1 - np.sort(values.get())[::-1]


def by_filters(affinity: PixelAffinity, tol: float) -> Eigenpairs:
    """Without the multigrid."""
    with mock.patch("cv3gpu.eigen._gpu_lobpcg.serves", lambda *arguments: False):
        return smallest_eigenpairs(affinity, PAIRS, tol=tol)


def _pairs_on_gpu(size: int, dtype: str) -> Work:
    torch = pytest.importorskip("torch")
    host = affinity_of(size, "float64")
    tight = smallest_eigenpairs(host, PAIRS, tol=1e-9)
    tol = RESIDUAL / float(tight.eigenvalues[-1])
    image = torch.from_numpy(photograph(size).astype(dtype)).cuda()
    stored, anew = (pixel_affinity(image, stored=kept) for kept in (True, False))
    ours = functools.partial(smallest_eigenpairs, stored, PAIRS, tol=tol)
    work = Work(ours=ours, errors=functools.partial(pair_errors, tight.eigenvalues))
    work.peers["ours, weights made anew"] = functools.partial(smallest_eigenpairs, anew, PAIRS, tol=tol)
    work.peers["ours, filters alone"] = functools.partial(by_filters, stored, tol)
    work.peers["ours, filters, weights made anew"] = functools.partial(by_filters, anew, tol)
    if peers.installed("cupy") is not None and size < ONCE:
        sparse = importlib.import_module("cupyx.scipy.sparse")
        work.peers["cupyx eigsh"] = functools.partial(cupyx_lanczos, sparse.csr_matrix(normalised(host)))
    work.host_peers["ours on the CPU"] = functools.partial(smallest_eigenpairs, host, PAIRS, tol=tol)
    work.facts["iterations"] = ours().n_iter
    work.limits = dict.fromkeys(("ours", *work.peers, *work.host_peers), "float32")
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
        work = Work(ours=alone, errors=errors, peers={"SciPy's CSR": scipy, "ours on all cores": host})  # type: ignore[arg-type]
        anew = pixel_affinity(photograph(size).astype(dtype), stored=False)
        work.peers["ours, weights made anew"] = peers.on_one_core(functools.partial(anew.__matmul__, x))
        return work
    torch = pytest.importorskip("torch")
    there = pixel_affinity(torch.from_numpy(photograph(size).astype(dtype)).cuda())
    block, rows = torch.from_numpy(x).cuda(), there.tocsr()
    ours: Callable[[], Any] = functools.partial(there.__matmul__, block)
    work = Work(ours=ours, errors=errors, host_peers={"ours on the CPU": host, "SciPy's CSR": scipy})
    work.peers["torch's CSR"] = functools.partial(torch.mm, rows, block)
    fresh = pixel_affinity(torch.from_numpy(photograph(size).astype(dtype)).cuda(), stored=False)
    work.peers["ours, weights made anew"] = functools.partial(fresh.__matmul__, block)
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
        _entry(
            "growth of smallest_eigenpairs",
            size,
            "float64",
            "cpu",
            PAIRS,
            functools.partial(_growth, size),
            1 + (size >= ONCE),
        )
        for size in GROWTH
    ),
    *(
        _entry(
            "smallest_eigenpairs",
            size,
            dtype,
            "cuda",
            PAIRS,
            functools.partial(_pairs_on_gpu, size, dtype),
            int(size < ONCE),
        )
        for size in SIZES
        for dtype in ("float32", "float64")
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
