"""linear_sum_assignment against SciPy, and against brute force where SciPy has no answer."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment as scipy_assignment

from cv3gpu import Assignment, assignment, linear_sum_assignment

OP = "linear_sum_assignment"
INF = np.inf


def best_by_brute_force(cost: np.ndarray) -> tuple[int, float]:
    """Most pairs, then least cost, over all matchings of a small problem."""
    if cost.shape[0] > cost.shape[1]:
        cost = cost.T
    n, m = cost.shape
    best = (0, 0.0)
    for cols in itertools.permutations(range(m), n):
        chosen = [cost[i, j] for i, j in enumerate(cols) if cost[i, j] < INF]
        best = min(best, (-len(chosen), sum(chosen)))
    return -best[0], best[1]


def best_by_scipy(cost: np.ndarray) -> tuple[int, float]:
    """The same where a full matching exists."""
    row, col = scipy_assignment(cost)
    return len(row), float(cost[row, col].sum())


def solve(path: Any, cost: np.ndarray, dtype: str | None = None, **options: Any) -> Assignment:
    """Calls the operator, checks what holds for any result, and gives it back in NumPy."""
    sizes = {key: path.array(options.pop(key)) for key in ("n_rows", "n_cols") if key in options}
    found = linear_sum_assignment(path.array(cost, dtype), **sizes, **options)
    row_ind, col_ind, total = (path.numpy(x) for x in found)
    *lead, n, m = cost.shape
    assert row_ind.shape == col_ind.shape == (*lead, min(n, m))
    assert total.shape == tuple(lead)
    assert (row_ind.dtype, col_ind.dtype, total.dtype) == ("int64", "int64", "float64")
    forbidden = -INF if options.get("maximize") else INF
    for b in np.ndindex(*lead):
        matched = row_ind[b] >= 0
        rows, cols = row_ind[b][matched], col_ind[b][matched]
        assert (row_ind[b][~matched] == -1).all()
        assert (col_ind[b][~matched] == -1).all()
        assert not np.any(np.diff(matched.astype(int)) > 0), "the padding stands at the end"
        assert (np.diff(rows) > 0).all(), "sorted by row"
        assert len(set(cols.tolist())) == len(cols)
        chosen = cost[b][rows, cols].astype(dtype or cost.dtype).astype(float)
        assert (chosen != forbidden).all()
        assert total[b] == sum(chosen.tolist()), "the sum of the chosen costs in row order"
    return Assignment(row_ind, col_ind, total)


def assert_best(found: Assignment, costs: np.ndarray, best: Any) -> None:
    """Every problem has as many pairs as the best, at the same cost."""
    for b in np.ndindex(costs.shape[:-2]):
        pairs, least = best(costs[b])
        assert np.count_nonzero(found.row_ind[b] >= 0) == pairs
        scale = np.abs(costs[b][np.isfinite(costs[b])]).sum()
        assert found.total[b] == pytest.approx(least, rel=1e-13, abs=1e-15 * scale)


def gated(rng: np.random.Generator, shape: tuple[int, ...], share: float) -> np.ndarray:
    """Random costs with a share of forbidden pairs and one hidden full matching."""
    cost = rng.random(shape)
    forbidden = rng.random(shape) < share
    short = min(shape[1:])
    for b in range(shape[0]):
        rows, cols = rng.permutation(shape[1])[:short], rng.permutation(shape[2])[:short]
        forbidden[b, rows, cols] = False
    return np.where(forbidden, INF, cost)


SHAPES = [(5, 5), (4, 9), (9, 4), (1, 1), (1, 7), (7, 1), (33, 40)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_random_costs(path: Any, shape: tuple[int, int], dtype: str) -> None:
    cost = np.random.default_rng(1).normal(size=(5, *shape)).astype(dtype)
    assert_best(solve(path, cost), cost.astype(float), best_by_scipy)


@pytest.mark.parametrize("shape", SHAPES)
def test_ties(path: Any, shape: tuple[int, int]) -> None:
    cost = np.random.default_rng(2).integers(-1, 3, (6, *shape)).astype(float)
    assert_best(solve(path, cost), cost, best_by_scipy)


@pytest.mark.parametrize("shape", [(6, 6), (5, 8), (8, 5), (30, 30)])
@pytest.mark.parametrize("share", [0.5, 0.8, 1.0])
def test_forbidden_pairs_with_a_full_matching(path: Any, shape: tuple[int, int], share: float) -> None:
    cost = gated(np.random.default_rng(3), (6, *shape), share)
    assert_best(solve(path, cost), cost, best_by_scipy)


@pytest.mark.parametrize("shape", [(1, 1), (2, 2), (3, 3), (4, 4), (5, 5), (3, 5), (5, 3), (2, 6), (4, 5)])
@pytest.mark.parametrize("integers", [False, True], ids=["random", "ties"])
def test_most_pairs_at_least_cost(path: Any, shape: tuple[int, int], integers: bool) -> None:
    rng = np.random.default_rng(4)
    count = 40 if path.runs_kernels else 300
    cost = rng.integers(-2, 3, (count, *shape)).astype(float) if integers else rng.normal(size=(count, *shape))
    cost[rng.random(cost.shape) < rng.uniform(0.3, 0.9, (count, 1, 1))] = INF
    assert_best(solve(path, cost), cost, best_by_brute_force)


def test_large_problems_without_a_full_matching(path: Any) -> None:
    """Forbidden pairs at a huge finite cost give the same pairs, where rounding allows it."""
    rng = np.random.default_rng(5)
    for shape in ((3, 40, 40), (3, 30, 45), (3, 45, 30)):
        cost = rng.integers(0, 1000, shape).astype(float)
        cost[rng.random(shape) < 0.95] = INF
        found = solve(path, cost)
        big = 2.0**30
        for b in range(shape[0]):
            filled = np.where(cost[b] < INF, cost[b], big)
            row, col = scipy_assignment(filled)
            real = cost[b][row, col] < INF
            assert np.count_nonzero(found.row_ind[b] >= 0) == real.sum()
            assert found.total[b] == cost[b][row, col][real].sum()


@pytest.mark.parametrize(("warps", "in_shared"), [(1, False), (4, True), (16, False)])
def test_every_kernel(kernel_path: Any, monkeypatch: pytest.MonkeyPatch, warps: int, in_shared: bool) -> None:
    monkeypatch.setattr(assignment, "_GPU_WARPS", ())
    monkeypatch.setattr(assignment, "_GPU_MOST_WARPS", warps)
    if not in_shared:
        monkeypatch.setattr(assignment, "_GPU_SHARED", 0)
        monkeypatch.setattr(assignment, "_GPU_BLOCKS", 2)  # each block solves several problems in one workspace
    rng = np.random.default_rng(6)
    cost = gated(rng, (7, 8, 36), 0.5)
    assert_best(solve(kernel_path, cost), cost, best_by_scipy)
    cost = rng.normal(size=(7, 5, 4))
    cost[rng.random(cost.shape) < 0.7] = INF
    assert_best(solve(kernel_path, cost), cost, best_by_brute_force)


@pytest.mark.parametrize("maximize", [False, True])
def test_ragged_batch(path: Any, maximize: bool) -> None:
    rng = np.random.default_rng(7)
    sign = -1.0 if maximize else 1.0
    cost = rng.normal(size=(3, 10, 6, 7))
    n_rows, n_cols = rng.integers(0, 7, (3, 10)), rng.integers(0, 8, (3, 10))
    cost[rng.random(cost.shape) < 0.2] = sign * INF
    outside = (np.arange(6)[:, None] >= n_rows[..., None, None]) | (np.arange(7) >= n_cols[..., None, None])
    cost[outside] = rng.choice([np.nan, INF, -INF, -1e300], outside.sum())
    found = solve(path, cost, n_rows=n_rows, n_cols=n_cols, maximize=maximize)
    for b in np.ndindex(3, 10):
        valid = sign * cost[b][: n_rows[b], : n_cols[b]]
        pairs, least = best_by_brute_force(valid)
        assert np.count_nonzero(found.row_ind[b] >= 0) == pairs
        assert sign * found.total[b] == pytest.approx(least, abs=1e-13)
        assert found.row_ind[b].max(initial=-1) < max(n_rows[b], 1)
        assert found.col_ind[b].max(initial=-1) < max(n_cols[b], 1)


def test_sizes_may_be_integers(path: Any) -> None:
    cost = np.random.default_rng(8).random((2, 5, 6))
    found = solve(path, cost[:, :3, :4])
    for n_rows, n_cols in ((3, 4), (np.int32(3), np.uint8(4))):
        got = linear_sum_assignment(path.array(cost), n_rows=n_rows, n_cols=n_cols)
        np.testing.assert_array_equal(path.numpy(got.total), found.total)
    one = linear_sum_assignment(path.array(cost[0]), n_rows=3, n_cols=path.array(np.array(4)))
    assert float(one.total) == found.total[0]


def test_maximize(path: Any) -> None:
    cost = np.random.default_rng(9).normal(size=(4, 6, 8))
    found = solve(path, cost, maximize=True)
    for b in range(4):
        row, col = scipy_assignment(cost[b], maximize=True)
        assert found.total[b] == pytest.approx(cost[b][row, col].sum(), rel=1e-14)


@pytest.mark.parametrize("scale", [2.0**996, 2.0**60, 1.0, 2.0**-60, 2.0**-996, 2.0**-1074])
@pytest.mark.parametrize("share", [0.0, 0.7])
def test_magnitudes(path: Any, scale: float, share: float) -> None:
    rng = np.random.default_rng(10)
    cost = rng.integers(-9, 10, (8, 5, 5)) * scale
    cost[rng.random(cost.shape) < share] = INF
    found = solve(path, cost)
    for b in range(8):
        pairs, least = best_by_brute_force(np.where(cost[b] < INF, cost[b] / scale, INF).round())
        assert np.count_nonzero(found.row_ind[b] >= 0) == pairs
        assert found.total[b] == least * scale  # exact: small integers times a power of two


def test_mixed_magnitudes_stay_exact(path: Any) -> None:
    """No big M: a forbidden pair does not swallow the small costs."""
    cost = np.array([[1e-9, 2e-9, INF], [2e-9, 1e-9, INF], [1e12, 3e-9, INF]])
    found = solve(path, cost)
    assert found.total == 2e-9
    assert found.row_ind.tolist() == [0, 1, -1]


def test_nothing_allowed(path: Any) -> None:
    found = solve(path, np.full((3, 4, 5), INF))
    assert (found.row_ind == -1).all()
    assert (found.total == 0).all()


@pytest.mark.parametrize(
    "shape", [(0, 3, 3), (2, 0, 3), (2, 3, 0), (2, 0, 0), (0, 0), (0, 4), (2, 0, 5, 4), (1, 1, 1, 1)]
)
def test_shapes(path: Any, shape: tuple[int, ...]) -> None:
    found = solve(path, np.ones(shape))
    assert (found.total == min(shape[-2:])).all()


@pytest.mark.parametrize("dtype", ["bool", "uint8", "int8", "int16", "int32", "int64"])
def test_integers_and_bools(path: Any, dtype: str) -> None:
    cost = np.random.default_rng(11).integers(0, 2 if dtype == "bool" else 100, (4, 6, 5)).astype(dtype)
    assert_best(solve(path, cost), cost.astype(float), best_by_scipy)


def test_memory_order_does_not_matter(path: Any) -> None:
    cost = np.random.default_rng(12).random((4, 6, 5))
    want = solve(path, cost)
    flat = path.array(np.ascontiguousarray(cost.transpose(2, 0, 1)))
    turned = path.permuted(flat, 1, 2, 0)
    np.testing.assert_array_equal(path.numpy(linear_sum_assignment(turned).col_ind), want.col_ind)


def test_input_is_left_alone(cpu_path: Any) -> None:
    cost = np.random.default_rng(13).random((4, 6, 5))
    x = cpu_path.array(cost)
    linear_sum_assignment(x, maximize=True)
    np.testing.assert_array_equal(cpu_path.numpy(x), cost)


def test_large_batch_over_threads() -> None:
    """More work than one thread takes, of several sizes, feasible and not."""
    rng = np.random.default_rng(14)
    cost = rng.random((500, 30, 34))
    cost[250:][rng.random((250, 30, 34)) < 0.97] = INF
    sizes = rng.integers(0, 31, 500)
    found = linear_sum_assignment(cost, n_rows=sizes)
    for b in range(0, 500, 7):
        one = linear_sum_assignment(cost[b, : sizes[b]])
        np.testing.assert_array_equal(found.col_ind[b][: sizes[b]], one.col_ind)
        assert found.total[b] == one.total
        if b < 250:
            assert one.total == pytest.approx(best_by_scipy(cost[b, : sizes[b]])[1], rel=1e-14)


def test_hard_costs() -> None:
    """Products i * j make every search long."""
    cost = np.multiply.outer(np.arange(1.0, 121), np.arange(1.0, 121))
    assert linear_sum_assignment(cost).total == best_by_scipy(cost)[1]
    assert linear_sum_assignment(cost, maximize=True).total == -best_by_scipy(-cost)[1]


def test_kernel_takes_nan_as_forbidden(kernel_path: Any) -> None:
    cost = np.random.default_rng(15).random((6, 5, 5))
    unfit = np.random.default_rng(16).random(cost.shape) < 0.5
    want = solve(kernel_path, np.where(unfit, INF, cost))
    for bad in (np.nan, -INF):
        got = linear_sum_assignment(kernel_path.array(np.where(unfit, bad, cost)))
        np.testing.assert_array_equal(kernel_path.numpy(got.col_ind), want.col_ind)
    got = linear_sum_assignment(kernel_path.array(cost), n_rows=5, n_cols=kernel_path.array(np.full(6, 9)))
    np.testing.assert_array_equal(kernel_path.numpy(got.total), solve(kernel_path, cost).total)


small_costs = st.integers(0, 2**32).map(np.random.default_rng)


@settings(deadline=None, max_examples=100)
@given(small_costs, st.integers(1, 5), st.integers(1, 5), st.floats(0, 0.9), st.booleans())
def test_properties(rng: np.random.Generator, n: int, m: int, share: float, maximize: bool) -> None:
    forbidden = -INF if maximize else INF
    cost = rng.integers(-20, 20, (n, m)).astype(float)
    cost[rng.random((n, m)) < share] = forbidden
    row_ind, _, total = linear_sum_assignment(cost, maximize=maximize)
    pairs = np.count_nonzero(row_ind >= 0)

    def same(other: np.ndarray, extra: float = 0.0) -> None:
        found = linear_sum_assignment(other, maximize=maximize)
        assert np.count_nonzero(found.row_ind >= 0) == pairs
        assert found.total == total + extra

    same(cost.T)
    same(cost[rng.permutation(n)][:, rng.permutation(m)])
    same(cost * 2.0, total)
    same(cost + 7.0, 7.0 * pairs)
    same(np.pad(cost, ((0, 2), (0, 3)), constant_values=forbidden))
    if pairs == n:  # every row is matched, so that a constant in a row changes nothing else
        shifts = rng.integers(-30, 30, n)
        same(cost + shifts[:, None], float(shifts.sum()))


SQUARE = np.ones((3, 3))


def with_value(value: float, *where: int, shape: tuple[int, ...] = (3, 3)) -> np.ndarray:
    cost = np.ones(shape)
    cost[where] = value
    return cost


DTYPES = "float32 or float64 or int8 or int16 or int32 or int64 or uint8 or uint16 or uint32 or uint64 or bool"
BAD_INPUTS: list[tuple[Any, dict[str, Any], type[Exception], str]] = [
    ([[1.0]], {}, TypeError, "cost must be a NumPy, CuPy or torch array, got list"),
    (None, {}, TypeError, "cost must be a NumPy, CuPy or torch array, got None"),
    (1.0, {}, TypeError, "cost must be a NumPy, CuPy or torch array, got float"),
    (np.ma.masked_array(SQUARE), {}, TypeError, "cost must be a NumPy, CuPy or torch array, got MaskedArray"),
    (SQUARE.astype(">f8"), {}, TypeError, "cost must be in native byte order, got >f8"),
    (SQUARE.astype(complex), {}, TypeError, f"cost must have dtype {DTYPES}, got complex128"),
    (SQUARE.astype(object), {}, TypeError, f"cost must have dtype {DTYPES}, got object"),
    (SQUARE.astype(np.float16), {}, TypeError, f"cost must have dtype {DTYPES}, got float16"),
    (SQUARE.astype(str), {}, TypeError, f"cost must have dtype {DTYPES}, got <U32"),
    (np.ones(()), {}, ValueError, "cost must have shape [..., N, M], got ()"),
    (np.ones(3), {}, ValueError, "cost must have shape [..., N, M], got (3,)"),
    (SQUARE, {"maximize": 1}, TypeError, "maximize must be True or False, got 1 (int)"),
    (SQUARE, {"maximize": None}, TypeError, "maximize must be True or False, got None (None)"),
    (SQUARE, {"maximize": "yes"}, TypeError, "maximize must be True or False, got 'yes' (str)"),
    (SQUARE, {"n_rows": 4}, ValueError, "n_rows must be from 0 to 3, got 4"),
    (SQUARE, {"n_rows": -1}, ValueError, "n_rows must be from 0 to 3, got -1"),
    (SQUARE, {"n_cols": 4}, ValueError, "n_cols must be from 0 to 3, got 4"),
    (SQUARE, {"n_rows": 2.0}, TypeError, "n_rows must be an array of integers or an integer, got float"),
    (SQUARE, {"n_rows": True}, TypeError, "n_rows must be an array of integers or an integer, got bool"),
    (SQUARE, {"n_cols": [3]}, TypeError, "n_cols must be an array of integers or an integer, got list"),
    (SQUARE, {"n_rows": np.array(2.0)}, TypeError, "n_rows must have dtype int8"),
    (SQUARE, {"n_rows": np.array(True)}, TypeError, "n_rows must have dtype int8"),
    (SQUARE, {"n_rows": np.array([3])}, ValueError, "n_rows must have shape [], got (1,)"),
    (np.ones((2, 3, 3)), {"n_rows": np.array([3])}, ValueError, "n_rows must have shape [2], got (1,)"),
    (np.ones((2, 3, 3)), {"n_cols": np.array(3)}, ValueError, "n_cols must have shape [2], got ()"),
    (np.ones((2, 3, 3)), {"n_cols": np.array([3, 4])}, ValueError, "n_cols must be from 0 to 3, got 4"),
    (np.ones((2, 3, 3)), {"n_rows": np.array([-2, 3])}, ValueError, "n_rows must be from 0 to 3, got -2"),
    (
        with_value(np.nan, 2, 1),
        {},
        ValueError,
        "cost must be finite, or inf for a forbidden pair, got nan at problem 0, row 2, column 1",
    ),
    (
        with_value(np.nan, 1, 0, 2, shape=(2, 3, 3)).astype("float32"),
        {},
        ValueError,
        "cost must be finite, or inf for a forbidden pair, got nan at problem 1, row 0, column 2",
    ),
    (
        with_value(-INF, 0, 0),
        {},
        ValueError,
        "cost must be finite, or inf for a forbidden pair, got -inf at problem 0, row 0, column 0",
    ),
    (
        with_value(INF, 3, 1, shape=(5, 2)),
        {"maximize": True},
        ValueError,
        "cost must be finite, or -inf for a forbidden pair, got inf at problem 0, row 3, column 1",
    ),
    (
        with_value(np.nan, 700, 3, 1, shape=(900, 20, 20)),
        {},
        ValueError,
        "cost must be finite, or inf for a forbidden pair, got nan at problem 700, row 3, column 1",
    ),
]


@pytest.mark.parametrize(("cost", "options", "error", "message"), BAD_INPUTS)
def test_bad_input(cost: Any, options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error) as raised:
        linear_sum_assignment(cost, **options)
    assert str(raised.value).startswith(f"{OP}: {message}")


def test_mixed_libraries() -> None:
    torch = pytest.importorskip("torch")
    with pytest.raises(TypeError, match=r"n_rows must be where cost is \(numpy on cpu\), got torch on cpu"):
        linear_sum_assignment(SQUARE, n_rows=torch.tensor(3))
