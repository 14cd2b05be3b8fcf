"""The kernels of the eigensolver and its device path, against NumPy, LAPACK and the CPU path."""

from __future__ import annotations

import contextlib
import json
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from scipy import linalg
from scipy.sparse import csgraph, csr_array

from cv3gpu import _array
from cv3gpu.affinity import _gpu as affinity_gpu
from cv3gpu.affinity import knn_affinity, pixel_affinity
from cv3gpu.affinity.matrix import given
from cv3gpu.affinity.pixel import half_offsets
from cv3gpu.eigen import _gpu, _gpu_lobpcg, _gpu_multigrid, smallest_eigenpairs
from cv3gpu.errors import ConvergenceWarning
from tests.conftest import PATHS, Path, need_gpu
from tests.hostrun import HostBackend
from tests.test_eigen import DATA, check, photograph
from tests.tolerance import assert_close

DTYPES = ("float32", "float64")


@pytest.fixture(params=["host", "gpu-cupy", "gpu-torch"])
def solver_path(request: pytest.FixtureRequest) -> Iterator[Path]:
    """The ways that launch kernels, for whole solutions: on the CPU's runner without a check of each access."""
    if request.param != "host":
        need_gpu()
        yield PATHS[request.param]
        return
    token = _array.host_backend.set(HostBackend(mode="fast", order="random", seed=1))
    yield PATHS["host"]
    _array.host_backend.reset(token)


@pytest.fixture(autouse=True)
def warnings_are_errors() -> Any:
    """A solver that has not converged fails the test that does not expect it."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", ConvergenceWarning)
        yield


@contextlib.contextmanager
def without_kernels() -> Iterator[None]:
    """NumPy arrays take the CPU path, whatever runner is there."""
    token = _array.host_backend.set(None)
    try:
        yield
    finally:
        _array.host_backend.reset(token)


def dense(affinity: Any) -> np.ndarray:
    """The matrix of an affinity of the CPU path, in float64."""
    return affinity.tocsr().toarray().astype(np.float64)


# ---- products and steps -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("real", "stored"), [("float32", "float32"), ("float64", "float32"), ("float64", "float64")])
@pytest.mark.parametrize("features", [0, 1, 3])
@pytest.mark.parametrize(("shape", "radius", "width"), [((11, 37), 5, 16), ((40, 33), 3, 4), ((3, 70), 2.5, 20)])
def test_steps_of_a_recurrence(
    kernel_path: Path, shape: Any, radius: float, width: int, features: int, real: str, stored: str
) -> None:
    rng = np.random.default_rng(0)
    image = rng.random((*shape, max(features, 1))).astype(stored)
    options: dict[str, Any] = {"radius": radius, "sigma_intensity": 0.6, "self_weight": 0.0}
    with without_kernels():
        w = dense(pixel_affinity(image, **options))
    stencil = pixel_affinity(kernel_path.array(image), stored=features == 0, **options).device_stencil()
    assert stencil.features == features
    x, before = rng.standard_normal((2, len(w), width)).astype(real)
    diagonal, inverse = rng.random((2, len(w))).astype(real) + 0.5
    out = stencil.step(*map(kernel_path.array, (x, before, diagonal, inverse)), centre=0.3, scale=1.7, before=0.6)
    image_of_x = diagonal[:, None] * x.astype(float) - w @ x
    wanted = 1.7 * (inverse[:, None] * image_of_x - 0.3 * x) - 0.6 * before
    scale = 3 * (w @ abs(x) + abs(x) + abs(before))
    assert_close(kernel_path.numpy(out), wanted, real, terms=100, scale=scale if real == stored else 100 * scale * (
        np.float64(1) if stored == "float64" else 1e7))  # fmt: skip


@pytest.mark.parametrize("features", [0, 3])
@pytest.mark.parametrize("limit", [0, 60_000, 1 << 20])
def test_steps_with_tiles_of_every_size(
    kernel_path: Path, monkeypatch: pytest.MonkeyPatch, limit: int, features: int
) -> None:
    if limit == 1 << 20 and not kernel_path.is_numpy:
        limit = 1 << 16
    monkeypatch.setattr(affinity_gpu, "_room", lambda x: limit)
    rng = np.random.default_rng(0)
    image = rng.random((9, 41, 3))
    with without_kernels():
        w = dense(pixel_affinity(image, self_weight=0.0))
    there = pixel_affinity(kernel_path.array(image), self_weight=0.0, stored=features == 0)
    x = rng.standard_normal((369, 12))
    assert_close(kernel_path.numpy(there @ kernel_path.array(x)), w @ x, "float64", 100, np.abs(w) @ np.abs(x))


# ---- weights that are not stored --------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("shape", "radius"), [((150, 7), 4), ((2, 9, 35, 2), 3), ((8, 9, 3), 12), ((5, 5), 1)], ids=str
)
def test_weights_made_anew(path: Path, shape: Any, radius: float, dtype: str) -> None:
    rng = np.random.default_rng(0)
    image = rng.random(shape).astype(dtype)
    options: dict[str, Any] = {"radius": radius, "sigma_intensity": 0.5, "self_weight": 0.7}
    kept = pixel_affinity(path.array(image), **options)
    anew = pixel_affinity(path.array(image), stored=False, **options)
    assert anew.shape == kept.shape and anew.dtype == kept.dtype and repr(anew).startswith("ImageAffinity(shape=")
    np.testing.assert_array_equal(path.numpy(anew.weights), path.numpy(kept.weights))
    assert_close(path.numpy(anew.degree), path.numpy(kept.degree).astype(float), dtype, terms=100)
    for columns in (1, 6):
        x = rng.random((*kept.shape[:-1], columns)).astype(dtype)
        got, wanted = (path.numpy(a @ path.array(x)).astype(float) for a in (anew, kept))
        assert_close(got, wanted, dtype, terms=100)
    if len(kept.shape) == 3:
        np.testing.assert_array_equal(path.numpy(anew[1].weights), path.numpy(kept[1].weights))
        kept, anew = kept[1], anew[1]
    one, other = (np.asarray(a.host().tocsr().toarray()) for a in (anew, kept))
    np.testing.assert_array_equal(one, other)


def test_weights_made_anew_are_those_of_the_image_as_it_was(path: Path) -> None:
    image = path.array(np.random.default_rng(0).random((6, 7)))
    affinity = pixel_affinity(image, stored=False)
    before = path.numpy(affinity.weights).copy()
    image[2, 3] = 9.0
    np.testing.assert_array_equal(path.numpy(affinity.weights), before)


@pytest.mark.parametrize(
    ("shape", "options", "error", "text"),
    [
        ((5, 5), {"stored": 1}, TypeError, "stored must be True or False"),
        ((5, 5), {"stored": None}, TypeError, "stored must be True or False"),
        ((5, 5), {"kind": "intervening_contour"}, ValueError, "kind must be 'gaussian' where weights are not stored"),
        ((5, 5, 4), {}, ValueError, "image must have at most 3 features where weights are not stored, got 4"),
        ((2, 5, 5, 9), {}, ValueError, "image must have at most 3 features where weights are not stored, got 9"),
    ],
    ids=str,
)
def test_refusals_of_weights_made_anew(shape: Any, options: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=f"^pixel_affinity: {text}"):
        pixel_affinity(np.zeros(shape), **{"stored": False, **options})


# ---- parts of an iteration --------------------------------------------------------------------------------


class Nothing(_gpu._Matrix):
    """A matrix without a product: what blocks alone need."""


def space_of(path: Path, mass: np.ndarray, null: np.ndarray, dtype: str) -> _gpu._Device:
    degree = path.array(mass)
    return _gpu._Device(Nothing(degree, degree, True, degree, "float64"), path.array(null), dtype, 3)


def sums(path: Path, part: Any) -> np.ndarray:
    return path.numpy(part).sum(0)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("n", "a", "b", "c"), [(1, 0, 4, 4), (33, 4, 16, 16), (700, 0, 8, 20), (100, 20, 28, 48)])
def test_gram_matrices(kernel_path: Path, n: int, a: int, b: int, c: int, dtype: str) -> None:
    rng = np.random.default_rng(0)
    one, two, right = (rng.standard_normal((n, k)).astype(dtype) for k in (a, b, c))
    mass = rng.random(n) + 0.5
    space = space_of(kernel_path, mass, np.zeros((n, 4)), dtype)
    first = kernel_path.array(one) if a else None
    left = np.concatenate([one, two], 1).astype(float)
    for weight in (None, mass):
        part = space.gram(
            first, kernel_path.array(two), kernel_path.array(right), None if weight is None else space.mass
        )
        weighted = right if weight is None else right * np.asarray(mass, dtype).astype(float)[:, None]
        assert_close(sums(kernel_path, part), left.T @ weighted, "float64", n, abs(left).T @ abs(weighted))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("n", "a", "b", "c"), [(1, 0, 4, 4), (300, 4, 16, 16), (130, 0, 48, 16), (70, 4, 44, 44)])
def test_combinations(kernel_path: Path, n: int, a: int, b: int, c: int, dtype: str) -> None:
    rng = np.random.default_rng(0)
    one, two = (rng.standard_normal((n, k)).astype(dtype) for k in (a, b))
    small = rng.standard_normal((a + b, c))
    space = space_of(kernel_path, np.ones(n), np.zeros((n, 4)), dtype)
    block = kernel_path.array(two)
    out = block if b == c else kernel_path.array(np.full((n, c), np.nan, dtype))
    fresh = np.zeros(c)
    fresh[1] = 1
    space.combine(
        kernel_path.array(one) if a else None, block, kernel_path.array(small), out, kernel_path.array(fresh), 7
    )
    both = np.concatenate([one, two], 1).astype(float)
    wanted, got = both @ small, kernel_path.numpy(out)
    kept = np.arange(c) != 1
    assert_close(got[:, kept], wanted[:, kept], dtype, a + b, (abs(both) @ abs(small))[:, kept])
    assert (abs(got[:, 1]) <= 1).all() and len(np.unique(got[:, 1])) == n
    if n > 100:
        assert abs(got[:, 1].mean()) < 0.2 and got[:, 1].std() == pytest.approx(3**-0.5, rel=0.2)


def matrices(n: int) -> Iterator[np.ndarray]:
    """Symmetric matrices: any, graded, of few eigenvalues, diagonal, nothing."""
    rng = np.random.default_rng(n)
    a = rng.standard_normal((n, n))
    q = linalg.qr(a)[0]
    yield a + a.T
    yield (q * np.logspace(-12, 0, n)) @ q.T
    yield (q * (np.arange(n) % 3)) @ q.T
    yield np.diag(np.arange(n)[::-1].astype(float))
    yield np.zeros((n, n))


@pytest.mark.parametrize("n", [4, 16, 48])
def test_small_eigenproblems(kernel_path: Path, n: int) -> None:
    space = space_of(kernel_path, np.ones(8), np.zeros((8, 4)), "float64")
    for matrix in matrices(n):
        matrix = (matrix + matrix.T) / 2
        part = kernel_path.array(np.stack([matrix, -2 * matrix, 2 * matrix]))
        values, vectors = kernel_path.array(np.zeros(n)), kernel_path.array(np.zeros((n, n)))
        space.run("eigen_ritz", 1, part, values, vectors, 3, n)
        lam, v = kernel_path.numpy(values), kernel_path.numpy(vectors)
        size = max(abs(matrix).max(), 1.0)
        np.testing.assert_allclose(lam, np.linalg.eigvalsh(matrix), atol=1e-13 * size * n)
        np.testing.assert_allclose(v.T @ v, np.eye(n), atol=1e-13 * n)
        np.testing.assert_allclose(matrix @ v, v * lam, atol=1e-13 * size * n)


@pytest.mark.parametrize(("a", "b", "empty"), [(4, 4, 0), (4, 12, 2), (8, 8, 8), (4, 16, 16)])
def test_steps_of_lobpcg(kernel_path: Path, a: int, b: int, empty: int) -> None:
    n, rng = 3 * b, np.random.default_rng(b)
    whole = rng.standard_normal((n, n))
    whole = whole @ whole.T
    values = np.sort(rng.random(b))
    whole[: 2 * b, :b] = whole[:b, : 2 * b] = 0
    whole[range(b), range(b)] = values
    active = np.r_[0 : 2 * b - empty, 2 * b : n]
    held = whole[b : 2 * b, b : 2 * b].copy()
    held[b - empty :], held[:, b - empty :] = 0, 0
    held[range(b - empty, b), range(b - empty, b)] = -1
    side = whole[:, 2 * b :].copy()
    side[2 * b - empty : 2 * b] = 0
    part = np.stack([np.concatenate([rng.standard_normal((a, b)), side])] * 2) / 2
    space = space_of(kernel_path, np.ones(8), np.zeros((8, 4)), "float64")
    there = [kernel_path.array(x) for x in (part, values, held, np.full((a + n, a + 2 * b), np.nan))]
    room = 8 * (2 * _gpu.MOST * (_gpu.MOST + 1) + 9 * b * (b + 1))
    space.run("eigen_step", 1, *there, 2, a, b, threads=_gpu.threads_for(n), shared_mem=room)
    _, lam, held, c = (kernel_path.numpy(x) for x in there)
    exact = linalg.eigh(whole[np.ix_(active, active)])
    np.testing.assert_allclose(lam, exact[0][:b], rtol=1e-9, atol=1e-12 * exact[0][-1])
    np.testing.assert_array_equal(c[b : b + a, :a], np.eye(a))
    assert not c[b : b + a, a:].any() and not c[:b, :a].any() and not c[a + b :, :a].any()
    rows = np.concatenate([c[a + b :, a:], c[:b, a:]])  # in [X, P, W]
    x, p = rows[:, :b], rows[:, b:]
    assert not np.delete(rows, active, 0).any()
    np.testing.assert_allclose(x.T @ x, np.eye(b), atol=1e-12)
    np.testing.assert_allclose(x.T @ whole @ x, np.diag(lam), atol=1e-10 * exact[0][-1])
    there_is = np.diag(held) >= 0
    assert there_is.sum() >= b - empty and not p[:, ~there_is].any()
    np.testing.assert_allclose(p.T @ p, np.diag(there_is.astype(float)), atol=1e-12)
    np.testing.assert_allclose(x.T @ p, 0, atol=1e-12)
    kept = np.ix_(there_is, there_is)
    np.testing.assert_allclose(held[kept], (p.T @ whole @ p)[kept], atol=1e-10 * exact[0][-1])
    outside = np.concatenate([np.zeros((b, b)), x[b:]])  # spanned by the new X and P
    both = np.concatenate([x, p], 1)
    np.testing.assert_allclose(both @ (both.T @ outside), outside, atol=2e-4)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("n", "count", "width"), [(40, 1, 8), (300, 3, 16), (200, 4, 44)])
def test_orthonormal_blocks(kernel_path: Path, n: int, count: int, width: int, dtype: str) -> None:
    rng = np.random.default_rng(0)
    mass = rng.random(n) + 0.5
    null = np.zeros((n, 4))
    null[:, :count] = linalg.qr(rng.standard_normal((n, count)), mode="economic")[0] / np.sqrt(mass)[:, None]
    space = space_of(kernel_path, mass, null, dtype)
    scale = np.logspace(-3, 3, width)
    block = kernel_path.array((rng.standard_normal((n, width)) * scale).astype(dtype))
    fresh = kernel_path.array(np.full(width + 1, np.nan))
    space.orthonormal(block, space.null, fresh)
    assert not kernel_path.numpy(fresh).any()
    x = kernel_path.numpy(block).astype(float)
    atol = 1e-13 if dtype == "float64" else 1e-5
    np.testing.assert_allclose(x.T @ (mass[:, None] * x), np.eye(width), atol=atol)
    np.testing.assert_allclose(null.T @ (mass[:, None] * x), 0, atol=atol)


def test_columns_that_depend_on_others_are_made_anew(kernel_path: Path) -> None:
    rng = np.random.default_rng(0)
    null = np.full((90, 4), 90**-0.5) * [1, 0, 0, 0]
    space = space_of(kernel_path, np.ones(90), null, "float64")
    x = rng.standard_normal((90, 8))
    x[:, 3], x[:, 5], x[:, 6] = x[:, 0] - x[:, 1], 0.0, 2.0
    block = kernel_path.array(x)
    for _ in range(2):
        space.orthonormal(block, space.null)
    got = kernel_path.numpy(block)
    np.testing.assert_allclose(got.T @ got, np.eye(8), atol=1e-12)
    np.testing.assert_allclose(null.T @ got, 0, atol=1e-12)
    apart = got - x @ linalg.lstsq(x, got)[0] - null @ (null.T @ got)
    assert np.linalg.matrix_rank(apart, tol=1e-8) == 3


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("n", "width"), [(3, 4), (500, 20), (70, 48)])
def test_residuals(kernel_path: Path, n: int, width: int, dtype: str) -> None:
    rng = np.random.default_rng(0)
    mass, values = rng.random(n) + 0.5, rng.random(width)
    x, ax = rng.standard_normal((2, n, width)).astype(dtype)
    space = space_of(kernel_path, mass, np.zeros((n, 4)), dtype)
    out = kernel_path.array(np.full((n, width), np.nan, dtype))
    norms = kernel_path.array(np.full(width, np.nan))
    space.residuals(*map(kernel_path.array, (values, x, ax)), norms, out)
    r = ax.astype(float) - values * (mass[:, None] * x)
    np.testing.assert_allclose(kernel_path.numpy(out), r, atol=1e-12 if dtype == "float64" else 1e-5)
    wanted = np.linalg.norm(r / np.sqrt(mass)[:, None], axis=0)
    np.testing.assert_allclose(kernel_path.numpy(norms), wanted, rtol=1e-12 if dtype == "float64" else 1e-5)


def test_the_bound_of_the_spectrum(kernel_path: Path) -> None:
    image = photograph(20, 31)
    affinity = pixel_affinity(kernel_path.array(image))
    matrix = _gpu._Pixels(affinity, True)
    with without_kernels():
        w = dense(pixel_affinity(image))
    top = linalg.eigh(np.diag(w.sum(1)) - w, np.diag(w.sum(1)), eigvals_only=True)[-1]
    space = _gpu._Device(matrix, kernel_path.array(np.zeros((620, 4))), "float64", 0)
    assert top <= space.greatest() <= min(1.3 * top, matrix.most)


# ---- multigrid --------------------------------------------------------------------------------------------


def cycle_of(path: Path, image: np.ndarray, **options: Any) -> tuple[_gpu._Pixels, _gpu_multigrid.Cycle]:
    affinity = pixel_affinity(path.array(image), **options)
    matrix = _gpu._Pixels(affinity, True)
    return matrix, _gpu_multigrid.Cycle(matrix, affinity.flat, affinity.offsets, 0)


def operator_of(path: Path, level: Any) -> np.ndarray:
    """A level's operator as a matrix."""
    wide = -(-level.size // 4) * 4
    unit = path.array(np.eye(level.size, wide, dtype=np.float32))
    out = path.array(np.zeros((level.size, wide), np.float32))
    return path.numpy(level.stencil.step(unit, out, level.own))[:, : level.size].astype(float)


def interpolation_of(path: Path, cycle: Any, depth: int) -> np.ndarray:
    """P from the level below, as a matrix."""
    below = cycle.levels[depth + 1].size
    unit = path.array(np.eye(below, -(-below // 4) * 4, dtype=np.float32))
    return path.numpy(cycle._up(depth, unit, None))[:, :below].astype(float)


@pytest.mark.parametrize(("shape", "radius"), [((20, 31), 5), ((26, 17), 2.5), ((7, 40), 8)])
def test_coarser_levels_are_galerkins(kernel_path: Path, shape: Any, radius: float) -> None:
    image = photograph(*shape)
    _, cycle = cycle_of(kernel_path, image, radius=radius, sigma_intensity=0.3)
    assert len(cycle.levels) > 1 and cycle.levels[-1].size <= _gpu_multigrid._COARSEST
    with without_kernels():
        w = dense(pixel_affinity(image, radius=radius, sigma_intensity=0.3, self_weight=0.0))
    coarse = np.zeros(shape, bool)
    coarse[::3, ::3] = True
    inside = np.eye(len(w)) + w
    p = inside[:, coarse.ravel()] / np.maximum(inside[:, coarse.ravel()].sum(1, keepdims=True), 1e-300)
    a = np.diag(w.sum(1)) - w
    np.testing.assert_allclose(operator_of(kernel_path, cycle.levels[0]), a, atol=1e-5)
    np.testing.assert_allclose(interpolation_of(kernel_path, cycle, 0), p, atol=1e-6)
    np.testing.assert_allclose(operator_of(kernel_path, cycle.levels[1]), p.T @ a @ p, atol=1e-4)
    for depth in range(1, len(cycle.levels) - 1):
        a, p = operator_of(kernel_path, cycle.levels[depth]), interpolation_of(kernel_path, cycle, depth)
        np.testing.assert_allclose(p.sum(1), 1, atol=1e-5)
        np.testing.assert_allclose(operator_of(kernel_path, cycle.levels[depth + 1]), p.T @ a @ p, atol=1e-4 * a.max())


def test_the_way_down_is_the_way_up_transposed(kernel_path: Path) -> None:
    _, cycle = cycle_of(kernel_path, photograph(20, 31))
    rng = np.random.default_rng(0)
    fine, coarse = cycle.levels[:2]
    x = rng.standard_normal((fine.size, 8)).astype("float32")
    by, inverse = rng.random(fine.size).astype("float32"), rng.random(coarse.size).astype("float32")
    there = (kernel_path.array(a) for a in (x, by, inverse))
    down = kernel_path.numpy(cycle._down(fine.share, *there, fine.stencil.grid, coarse.stencil.grid))
    p = interpolation_of(kernel_path, cycle, 0)
    np.testing.assert_allclose(down, inverse[:, None] * (p.T @ (by[:, None] * x)), atol=1e-4)
    given = rng.standard_normal((coarse.size, 8)).astype("float32")
    total = kernel_path.array(x)
    out = kernel_path.numpy(cycle._up(0, kernel_path.array(given), total))
    np.testing.assert_allclose(out, p @ given, atol=1e-5)
    np.testing.assert_allclose(kernel_path.numpy(total), x + p @ given, atol=1e-5)


@pytest.mark.parametrize("stored", [True, False])
def test_the_cycle_is_symmetric_and_contracts(kernel_path: Path, stored: bool) -> None:
    _, cycle = cycle_of(kernel_path, photograph(40, 30), stored=stored)
    with without_kernels():
        w = dense(pixel_affinity(photograph(40, 30)))
    degree = w.sum(1)
    a = np.diag(degree) - w

    def solve(r: np.ndarray) -> np.ndarray:
        scaled = kernel_path.array((r / degree[:, None]).astype("float32"))
        return kernel_path.numpy(cycle(scaled)).astype(float)

    x, y = (a @ v for v in np.random.default_rng(0).standard_normal((2, 1200, 4)))
    assert (x * solve(y)).sum() == pytest.approx((y * solve(x)).sum(), rel=1e-3)
    solved = np.zeros_like(x)
    for _ in range(3):
        solved += solve(x - a @ solved)
    root = np.sqrt(degree)[:, None]
    assert np.linalg.norm((x - a @ solved) / root) < 1e-2 * np.linalg.norm(x / root)


@pytest.mark.parametrize(("dtype", "stored"), [("float32", True), ("float64", False)])
def test_methods_agree(solver_path: Path, monkeypatch: pytest.MonkeyPatch, dtype: str, stored: bool) -> None:
    affinity = pixel_affinity(solver_path.array(photograph(22, 25).astype(dtype)), stored=stored)
    multigrid = smallest_eigenpairs(affinity, 5, tol=1e-9)
    assert multigrid.n_iter < 20
    monkeypatch.setattr(_gpu_lobpcg, "serves", lambda *arguments: False)
    filters = smallest_eigenpairs(affinity, 5, tol=1e-9)
    for one, other, atol in zip(multigrid[:2], filters[:2], (1e-14, 1e-7), strict=True):
        np.testing.assert_allclose(solver_path.numpy(one), solver_path.numpy(other), rtol=1e-10, atol=atol)


def test_a_preconditioner_that_fails_is_followed_by_filters(solver_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image = photograph(24, 24)
    monkeypatch.setattr(_gpu_lobpcg, "PATIENCE", 1)
    monkeypatch.setattr(_gpu_multigrid.Cycle, "__call__", lambda self, residual, depth=0: residual * 0 + 1)
    result = smallest_eigenpairs(pixel_affinity(solver_path.array(image)), 4)
    values, vectors, residual, n_iter = (part if np.isscalar(part) else solver_path.numpy(part) for part in result)
    with without_kernels():
        check(pixel_affinity(image), 4, (values, vectors, residual, n_iter))


# ---- components -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["stored", "anew", "rows"])
@pytest.mark.parametrize("share", [0.0, 1e-3, 0.02, 0.5])
def test_components(kernel_path: Path, form: str, share: float) -> None:
    image = np.random.default_rng(0).random((15, 40))
    options: dict[str, Any] = {"radius": 2.5, "sigma_intensity": 0.25}
    with without_kernels():
        w = dense(pixel_affinity(image, **options))
        rows = csr_array(w)
    degree = w.sum(1)
    keep = w > share * np.minimum(degree[:, None], degree)
    label = csgraph.connected_components(keep, directed=False)[1]
    wanted = np.array([np.flatnonzero(label == one)[0] for one in label])
    if form == "rows":
        like = kernel_path.array(np.empty(0))
        matrix: _gpu._Matrix = _gpu._Rows(given("test", rows)._replace(like=like), True)
    else:
        matrix = _gpu._Pixels(pixel_affinity(kernel_path.array(image), stored=form == "stored", **options), True)
    root, count = matrix.roots(share)
    assert count == len(np.unique(wanted))
    np.testing.assert_array_equal(kernel_path.numpy(root), wanted)


# ---- eigenpairs -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dtype", "stored", "generalized"), [("float32", False, True), ("float32", True, False), ("float64", True, True)]
)
def test_pixels(solver_path: Path, dtype: str, stored: bool, generalized: bool) -> None:
    image = photograph(22, 25).astype(dtype)
    there = smallest_eigenpairs(pixel_affinity(solver_path.array(image), stored=stored), 6, generalized=generalized)
    values, vectors, residual, n_iter = (part if np.isscalar(part) else solver_path.numpy(part) for part in there)
    assert type(there.eigenvectors) is type(solver_path.array(image)) and vectors.dtype == dtype and n_iter > 0
    with without_kernels():
        here = pixel_affinity(image)
        if dtype == "float64":
            check(here, 6, (values, vectors, residual, n_iter), generalized=generalized)
        wanted = smallest_eigenpairs(here, 6, generalized=generalized, tol=1e-9)
    np.testing.assert_allclose(values, wanted.eigenvalues, atol=(1e-8 if dtype == "float64" else 1e-6) * values[-1])
    np.testing.assert_allclose(vectors, wanted.eigenvectors, atol=2e-4 * abs(vectors).max())
    assert (residual <= 1e-6 * np.maximum(values, values[1]) + 1e-14).all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_sparse_matrices(solver_path: Path, dtype: str) -> None:
    if not solver_path.is_numpy:
        pytest.skip("the same launches")
    with without_kernels():
        graph = knn_affinity(np.random.default_rng(0).random((600, 2)), 12).astype(dtype)
    result = smallest_eigenpairs(graph, 4, generalized=False)
    assert result.n_iter > 0
    with without_kernels():
        wanted = smallest_eigenpairs(graph, 4, generalized=False, tol=1e-9)
        if dtype == "float64":
            check(graph, 4, result, generalized=False)
    np.testing.assert_allclose(result.eigenvalues, wanted.eigenvalues, atol=1e-8 * wanted.eigenvalues[-1])


@pytest.mark.skipif(not DATA.is_dir(), reason="needs ../shared/data/spectral")
@pytest.mark.parametrize(("name", "dtype", "stored"), [("O01", "float64", True), ("O02", "float32", False)])
def test_stored_cases_made_small(solver_path: Path, name: str, dtype: str, stored: bool) -> None:
    path = DATA / f"ncut_{name}.npz"
    if not path.exists():
        pytest.skip(f"no case {name}")
    with np.load(path) as file:
        image, meta = file["feature"][::4, ::4].astype(dtype), json.loads(str(file["meta"]))
    options = {"radius": meta["r"], "sigma_intensity": 2 * meta["sigma_I"], "sigma_distance": meta["sigma_X"]}
    result = smallest_eigenpairs(pixel_affinity(solver_path.array(image), stored=stored, **options), 10, tol=1e-8)
    with without_kernels():
        wanted = smallest_eigenpairs(pixel_affinity(image, **options), 10, tol=1e-10).eigenvalues
    limit = 1e-8 if dtype == "float64" else 1e-5
    np.testing.assert_allclose(solver_path.numpy(result.eigenvalues), wanted, atol=limit * wanted[-1])


def test_components_of_an_image(solver_path: Path) -> None:
    image = np.zeros((20, 30))
    image[:, 20:], image[3, 3] = 100.0, -100.0
    result = smallest_eigenpairs(pixel_affinity(solver_path.array(image)), 5)
    values, vectors, residual, n_iter = (part if np.isscalar(part) else solver_path.numpy(part) for part in result)
    with without_kernels():
        check(pixel_affinity(image), 5, (values, vectors, residual, n_iter))
    assert (values[:3] == 0).all() and values[3] > 1e-4


def test_null_spaces_alone_need_no_iteration(solver_path: Path) -> None:
    image = np.where(np.indices((24, 24)).sum(0) % 2, 1000.0 * np.arange(576).reshape(24, 24), 0.0)
    result = smallest_eigenpairs(pixel_affinity(solver_path.array(image)), 8)
    assert (abs(solver_path.numpy(result.eigenvalues)) < 1e-15).all() and result.n_iter == 0


def test_parts_that_hang_loosely_together(solver_path: Path) -> None:
    w = linalg.block_diag(*[np.ones((200, 200))] * 3)
    w[199, 200] = w[200, 199] = w[399, 400] = w[400, 399] = 1e-6
    values = solver_path.numpy(smallest_eigenpairs(solver_path.array(w), 4, tol=1e-3).eigenvalues)
    np.testing.assert_allclose(values[:3], np.array([0, 1, 3]) * 1e-6 / 200**2, rtol=1e-3, atol=1e-14)


def test_the_same_bits_in_any_order_of_threads() -> None:
    image = photograph(20, 28).astype("float32")
    found = []
    for seed in (1, 2):
        token = _array.host_backend.set(HostBackend(mode="fast", order="random", seed=seed))
        try:
            found.append(smallest_eigenpairs(pixel_affinity(image, radius=3), 4))
        finally:
            _array.host_backend.reset(token)
    for one, other in zip(*found, strict=True):
        assert np.array_equal(one, other)


def test_too_few_iterations_are_told(solver_path: Path) -> None:
    affinity = pixel_affinity(solver_path.array(photograph(24, 24)))
    with pytest.warns(ConvergenceWarning, match=r"of 5 pairs have not converged in 1 iterations"):
        result = smallest_eigenpairs(affinity, 5, max_iter=1)
    assert result.n_iter == 1


@pytest.mark.parametrize(("k", "size"), [(45, 24), (3, 20)])
def test_wide_blocks_and_small_graphs_go_to_the_cpu(
    solver_path: Path, monkeypatch: pytest.MonkeyPatch, k: int, size: int
) -> None:
    def never(*arguments: Any) -> None:
        raise AssertionError("the device should not solve this")

    monkeypatch.setattr(_gpu, "_solved", never)
    image = photograph(size, size)
    result = smallest_eigenpairs(pixel_affinity(solver_path.array(image)), k)
    with without_kernels():
        wanted = smallest_eigenpairs(pixel_affinity(image), k)
    np.testing.assert_allclose(solver_path.numpy(result.eigenvalues), wanted.eigenvalues, rtol=1e-9, atol=1e-14)


def test_a_vertex_without_edges_is_refused(solver_path: Path) -> None:
    image = np.zeros((24, 24))
    image[2, 1] = 1e9
    with pytest.raises(ValueError, match="affinity must connect every vertex to something, got none at vertex 49"):
        smallest_eigenpairs(pixel_affinity(solver_path.array(image), self_weight=0.0), 3)


def test_tables_of_offsets_give_back_their_numbers() -> None:
    for radius, inclusive in ((1, False), (1, True), (2.5, False), (5, True), (10, False)):
        offsets = half_offsets(radius, inclusive)
        table = affinity_gpu._table(offsets)
        assert [int(table[1, dy]) + dx for dy, dx in offsets] == list(range(len(offsets)))
        assert all(abs(dy) <= table[0, abs(dx)] for dy, dx in offsets)
        assert sum(2 * int(table[0, abs(u)]) + 1 for u in range(1 - table.shape[1], table.shape[1])) == (
            2 * len(offsets) + 1
        )
