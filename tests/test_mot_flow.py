"""Rounding and min-cost flow against SciPy's integer programs; gap filling against a loop."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cv3gpu import mot

optimize = pytest.importorskip("scipy.optimize")
sparse = pytest.importorskip("scipy.sparse")


def random_graph(rng: np.random.Generator, n: int, count: int) -> np.ndarray:
    """Links [2, count] from a lower to a higher node; some stand twice."""
    first = rng.integers(0, n - 1, count)
    return np.stack([first, rng.integers(first + 1, n)])


def program(cost: np.ndarray, matrix: Any, low: Any, high: Any) -> float:
    """The least cost of 0-1 variables under linear constraints."""
    found = optimize.milp(cost, constraints=optimize.LinearConstraint(matrix, low, high), integrality=1, bounds=(0, 1))
    assert found.success
    return float(found.fun)


def ends(edges: np.ndarray, n: int) -> tuple[Any, Any]:
    """Which links leave and which enter each node, [n, E]."""
    e = np.arange(edges.shape[1])
    return tuple(sparse.csr_array((np.ones(len(e)), (side, e)), (n, len(e))) for side in edges)


def best_rounding(edges: np.ndarray, scores: np.ndarray, n: int) -> float:
    return program(1 - 2 * scores, sparse.vstack(ends(edges, n)), 0, 1)


def best_flow(edges: np.ndarray, link: np.ndarray, detection: np.ndarray, entry: Any, leave: Any) -> float:
    """Zhang et al.'s program: variables link, used, begin, end; what flows in is used, and so is what flows out."""
    n, count = len(detection), edges.shape[1]
    out, into = ends(edges, n)
    eye, none, nothing = sparse.eye_array(n), sparse.csr_array((n, n)), sparse.csr_array((n, count))
    assert nothing.nnz == 0
    rows = sparse.vstack([sparse.hstack([into, -eye, eye, none]), sparse.hstack([out, -eye, none, eye])])
    cost = np.concatenate([link, detection, np.broadcast_to(entry, n), np.broadcast_to(leave, n)])
    return program(cost, rows, 0, 0)


def check_flow(path: Any, edges: np.ndarray, link: np.ndarray, detection: np.ndarray, entry: Any, leave: Any) -> None:
    n = len(detection)
    cost = [path.array(c) if isinstance(c, np.ndarray) else c for c in (entry, leave)]
    given = path.array(edges), path.array(link), path.array(detection)
    found = mot.min_cost_flow(*given, entry_cost=cost[0], exit_cost=cost[1])
    active, used = path.numpy(found.active), path.numpy(found.used)
    assert active.dtype == used.dtype == bool
    outs, ins = (np.bincount(side, minlength=n) for side in edges[:, active])
    assert outs.max(initial=0) <= 1 and ins.max(initial=0) <= 1
    assert used[edges[:, active]].all()
    entry, leave = np.broadcast_to(entry, n), np.broadcast_to(leave, n)
    value = (
        link[active].sum() + detection[used].sum() + entry[used & (ins == 0)].sum() + leave[used & (outs == 0)].sum()
    )
    assert found.objective == pytest.approx(value, abs=1e-9)
    assert found.objective == pytest.approx(best_flow(edges, link, detection, entry, leave), abs=1e-6)


# ---- rounding -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [2, 7, 40])
def test_exact_rounding_is_the_optimum(path: Any, n: int) -> None:
    rng = np.random.default_rng(n)
    for count in (1, n, 6 * n):
        edges, scores = random_graph(rng, n, count), rng.random(count)
        active, objective, before = mot.round_trajectories(path.array(edges), path.array(scores), n)
        active = path.numpy(active)
        assert active.dtype == bool and objective == pytest.approx((1 - 2 * scores)[active].sum(), abs=1e-12)
        assert objective == pytest.approx(best_rounding(edges, scores, n), abs=1e-9)
        outs, ins = (np.bincount(side, minlength=n) for side in edges[:, active])
        assert outs.max(initial=0) <= 1 and ins.max(initial=0) <= 1
        likely = edges[:, scores >= 0.5]
        assert before == sum((np.bincount(side, minlength=n) > 1).sum() for side in likely)


def test_greedy_rounding_takes_the_best_first(path: Any) -> None:
    rng = np.random.default_rng(5)
    for _ in range(20):
        n = int(rng.integers(2, 30))
        edges, scores = random_graph(rng, n, 5 * n), np.round(rng.random(5 * n), 1)
        want = np.zeros(5 * n, bool)
        out, into = set(), set()
        for e in np.argsort(-scores, kind="stable"):
            if scores[e] > 0.5 and edges[0, e] not in out and edges[1, e] not in into:
                want[e] = True
                out.add(edges[0, e])
                into.add(edges[1, e])
        found = mot.round_trajectories(path.array(edges, "int32"), path.array(scores), n, method="greedy")
        np.testing.assert_array_equal(path.numpy(found.active), want)
        assert found.objective >= best_rounding(edges, scores, n) - 1e-9


def test_long_chain_of_conflicts() -> None:
    """A path of links that alternate: only the whole decides, and greedy is off by a third."""
    n = 2000
    edges = np.stack([np.repeat(np.arange(n), 2)[1:-1], n + np.repeat(np.arange(n), 2)[:-2]])
    scores = np.where(np.arange(edges.shape[1]) % 2, 0.81, 0.8)
    exact = mot.round_trajectories(edges, scores, 2 * n)
    assert exact.objective == pytest.approx(best_rounding(edges, scores, 2 * n), abs=1e-6)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.integers(0, 2**32 - 1), st.integers(2, 12), st.integers(0, 40))
def test_rounding_properties(seed: int, n: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    edges, scores = random_graph(rng, n, count), np.round(rng.random(count), 2)
    exact = mot.round_trajectories(edges, scores, n)
    greedy = mot.round_trajectories(edges, scores, n, method="greedy")
    assert exact.objective <= greedy.objective + 1e-12 <= 1e-12
    assert (
        exact.objective == pytest.approx(best_rounding(edges, scores, n), abs=1e-9) if count else exact.objective == 0
    )
    assert 2 * (exact.objective - 1e-12) <= 2 * greedy.objective <= exact.objective + 1e-9  # half of the best at least
    turned = mot.round_trajectories(edges[::-1], scores, n)
    assert turned.objective == pytest.approx(exact.objective, abs=1e-12)
    assert not exact.active[scores <= 0.5].any()


def test_no_links(path: Any) -> None:
    edges, nothing = path.array(np.zeros((2, 0), np.int64)), path.array(np.zeros(0))
    active, objective, before = mot.round_trajectories(edges, nothing, 5)
    assert active.shape == (0,) and objective == 0 == before
    found = mot.min_cost_flow(edges, nothing, path.array(np.array([-3.0, 1.0])), entry_cost=1, exit_cost=1)
    assert path.numpy(found.used).tolist() == [True, False] and found.objective == -1


# ---- min-cost flow --------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [2, 8, 30])
def test_flow_is_the_optimum(path: Any, n: int) -> None:
    rng = np.random.default_rng(n)
    for count in (1, 2 * n, 5 * n):
        edges = random_graph(rng, n, count)
        link, detection = rng.normal(0.3, 1, count), rng.normal(-0.5, 1.5, n)
        check_flow(path, edges, link, detection, 0.7, 0.4)
        check_flow(path, edges, link, detection, rng.normal(0.5, 1, n), rng.normal(0.5, 1, n))


def test_numbering_against_time(path: Any) -> None:
    rng = np.random.default_rng(1)
    edges = 11 - random_graph(rng, 12, 30)
    mixed = rng.permutation(12)[edges]
    check_flow(path, edges, rng.random(30), -rng.random(12) * 3, 0.5, 0.5)
    check_flow(path, mixed, rng.random(30), -rng.random(12) * 3, 0.5, 0.5)


@settings(max_examples=30, deadline=None, derandomize=True)
@given(st.integers(0, 2**32 - 1), st.integers(2, 8))
def test_flow_properties(seed: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    edges = random_graph(rng, n, 3 * n)
    link, detection = np.round(rng.normal(0, 1, 3 * n), 1), np.round(rng.normal(-0.5, 1, n), 1)
    found = mot.min_cost_flow(edges, link, detection, entry_cost=0.5, exit_cost=0.5)
    assert found.objective <= 0  # nothing at all costs nothing
    assert found.objective == pytest.approx(best_flow(edges, link, detection, 0.5, 0.5), abs=1e-8)
    dearer = mot.min_cost_flow(edges, link, detection, entry_cost=5.0, exit_cost=5.0)
    assert dearer.objective >= found.objective - 1e-12
    unwanted = mot.min_cost_flow(edges, np.abs(link) + 0.1, np.abs(detection) + 0.1, entry_cost=0.0, exit_cost=0.0)
    assert unwanted.objective == 0 and not unwanted.used.any() and not unwanted.active.any()


# ---- gaps -----------------------------------------------------------------------------------------------


def by_loop(tracks: mot.Tracks, max_gap: int) -> set[tuple[float, ...]]:
    """Frame, id, class, box and score of all rows, filled one by one."""
    rows = {
        (int(c), int(i), int(f)): (*map(float, b), float(s))
        for c, i, f, b, s in zip(tracks.class_, tracks.id, tracks.frame, tracks.box, tracks.score, strict=True)
    }
    full = dict(rows)
    for c, i, f in rows:
        later = [g for d, j, g in rows if (d, j) == (c, i) and g > f]
        if later and 0 < min(later) - f - 1 <= max_gap:
            end = min(later)
            for frame in range(f + 1, end):
                part = (frame - f) / (end - f)
                both = zip(rows[c, i, f], rows[c, i, end], strict=True)
                full[c, i, frame] = tuple(a + (b - a) * part for a, b in both)
    return {(c, i, f, *np.round(values, 9)) for (c, i, f), values in full.items()}


@pytest.mark.parametrize("max_gap", [0, 1, 3, 100])
def test_gaps_are_filled_as_by_a_loop(max_gap: int) -> None:
    rng = np.random.default_rng(max_gap)
    keys = rng.permutation(np.stack(np.unravel_index(rng.choice(2 * 4 * 30, 60, replace=False), (2, 4, 30)), 1))
    tracks = mot.Tracks(
        frame=keys[:, 2] + 1, id=keys[:, 1], class_=keys[:, 0], box=rng.uniform(0, 50, (60, 4)), score=rng.random(60),
        visibility=rng.random(60),
    )  # fmt: skip
    filled = mot.interpolate(tracks, max_gap)
    got = zip(filled.class_, filled.id, filled.frame, filled.box, filled.score, strict=True)
    assert {(int(c), int(i), int(f), *np.round([*b, s], 9)) for c, i, f, b, s in got} == by_loop(tracks, max_gap)
    order = filled.frame * 10 + filled.id
    assert (np.diff(order) >= 0).all()
    assert set(filled.visibility) == {*tracks.visibility} | ({-1.0} if len(filled) > 60 else set())
    again = mot.interpolate(filled, max_gap)
    assert len(again) == len(filled)


def test_nothing_to_fill_keeps_all() -> None:
    empty = mot.Tracks(frame=[], id=[], box=np.zeros((0, 4)))
    assert len(mot.interpolate(empty, 5)) == 0
    corner = np.array([[9.0, 9.0], [11.0, 9.0]])
    tracks = mot.Tracks(
        frame=[2, 1], id=[0, 0], box=[[1, 0, 10, 9], [0, 0, 9, 9]], corner=corner[::-1], ignored=[[0, 0, 5, 5]]
    )
    same = mot.interpolate(tracks, 5)
    assert same.frame.tolist() == [1, 2] and same.corner.tolist() == corner.tolist() and len(same.ignored) == 1


# ---- refusals -------------------------------------------------------------------------------------------

EDGES = np.array([[0, 1], [1, 2]])
HALF = np.array([0.5, 0.5])
COST = np.zeros(3)


def flow(edges: Any = EDGES, link: Any = HALF, detection: Any = COST, entry: Any = 1.0, leave: Any = 1.0) -> Any:
    return mot.min_cost_flow(edges, link, detection, entry_cost=entry, exit_cost=leave)


@pytest.mark.parametrize(
    ("error", "text", "run"),
    [
        (TypeError, "round_trajectories: edges must be a NumPy, CuPy or torch array, got list", lambda: mot.round_trajectories([[0], [1]], HALF, 3)),
        (TypeError, "edges must have dtype int64 or int32, got float64", lambda: mot.round_trajectories(EDGES / 1, HALF, 3)),
        (ValueError, r"edges must have shape \[2, E\], got \(3, 2\)", lambda: mot.round_trajectories(np.zeros((3, 2), int), HALF, 3)),
        (ValueError, "edges must hold nodes from 0 to 1, got 2", lambda: mot.round_trajectories(EDGES, HALF, 2)),
        (ValueError, "edges must link different nodes, got node 1 with itself", lambda: mot.round_trajectories(EDGES * 0 + 1, HALF, 2)),
        (ValueError, r"scores must have shape \[2\], got \(3,\)", lambda: mot.round_trajectories(EDGES, COST, 3)),
        (ValueError, "scores must be from 0 to 1, got 1.5", lambda: mot.round_trajectories(EDGES, HALF * 3, 3)),
        (ValueError, "scores must be finite, got nan", lambda: mot.round_trajectories(EDGES, HALF * np.nan, 3)),
        (ValueError, "method must be one of 'exact', 'greedy', got 'lp'", lambda: mot.round_trajectories(EDGES, HALF, 3, method="lp")),
        (TypeError, "n_nodes must be an integer, got 3.0", lambda: mot.round_trajectories(EDGES, HALF, 3.0)),
        (ValueError, r"min_cost_flow: edges must go forward in time, got a circle through node 0", lambda: flow(np.array([[0, 1], [1, 0]]))),
        (ValueError, r"link_cost must have shape \[2\], got \(1,\)", lambda: flow(link=HALF[:1])),
        (ValueError, "link_cost must be finite, got inf", lambda: flow(link=HALF * np.inf)),
        (ValueError, r"detection_cost must have shape \[N\], got \(1, 3\)", lambda: flow(detection=COST[None])),
        (TypeError, "entry_cost must be a number, got 'x'", lambda: flow(entry="x")),
        (ValueError, r"exit_cost must have shape \[3\], got \(2,\)", lambda: flow(leave=HALF)),
        (TypeError, "interpolate: tracks must be Tracks, got ndarray", lambda: mot.interpolate(COST, 3)),
        (ValueError, "interpolate: max_gap must be from 0", lambda: mot.interpolate(mot.Tracks(frame=[1], id=[1], box=[[0, 0, 1, 1]]), -1)),
        (ValueError, "interpolate: tracks must have an identity of at least 0 in every row", lambda: mot.interpolate(mot.Tracks(frame=[1], id=[-1], box=[[0, 0, 1, 1]]), 1)),
    ],
)  # fmt: skip
def test_refusals(error: type[Exception], text: str, run: Any) -> None:
    with pytest.raises(error, match=text):
        run()
