"""Alpha-expansion and alpha-beta swap against brute force, SciPy's maximum flow, stored energies, and one another."""

from __future__ import annotations

import itertools
import json
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import coo_array
from scipy.sparse.csgraph import breadth_first_order, maximum_flow

import cv3gpu
from cv3gpu import ConvergenceWarning
from cv3gpu.graphcut import _descent, _moves_cpu, moves

CASES = Path(__file__).resolve().parent.parent.parent / "shared" / "data" / "crf"
FOUR, EIGHT = ((1, 0), (0, 1)), ((1, 0), (0, 1), (1, 1), (1, -1))
OPERATORS = (cv3gpu.alpha_expansion, cv3gpu.alpha_beta_swap)


# ---- oracles --------------------------------------------------------------------------------------------


def ends(shape, offset):
    """Flat indices of the two ends of all edges of an offset."""
    index = np.arange(np.prod(shape)).reshape(shape)
    begin = tuple(slice(max(0, -o), max(0, n - max(0, o))) for o, n in zip(offset, shape, strict=True))
    end = tuple(slice(max(0, o), max(0, n - max(0, -o))) for o, n in zip(offset, shape, strict=True))
    return index[begin].ravel(), index[end].ravel()


def energy(unary, pairwise, weights, offsets, labels):
    flat = np.asarray(labels).ravel()
    total = unary.reshape(len(unary), -1)[flat, np.arange(flat.size)].sum()
    for w, offset in zip(weights, offsets, strict=True):
        p, q = ends(unary.shape[1:], offset)
        total = total + (w.ravel()[p] * pairwise[flat[p], flat[q]]).sum()
    return total


def best(unary, pairwise, weights, offsets):
    """The least energy of all labellings."""
    nodes = np.prod(unary.shape[1:])
    return min(
        energy(unary, pairwise, weights, offsets, np.array(x))
        for x in itertools.product(range(len(unary)), repeat=nodes)
    )


def cut_by_scipy(unary, pairwise, weights, offsets, zero, one):
    """The labels of the minimum cut with the fewest ones, by SciPy's maximum flow on Kolmogorov and Zabih's graph."""
    n = zero.size
    source, sink, rows, cols, caps = n, n + 1, [], [], []
    costs = unary.reshape(len(unary), -1)
    lin = (costs[one, np.arange(n)] - costs[zero, np.arange(n)]).astype(np.int64)
    for w, offset in zip(weights, offsets, strict=True):
        p, q = ends(unary.shape[1:], offset)
        w = w.ravel()[p].astype(np.int64)
        e00, e01 = w * pairwise[zero[p], zero[q]], w * pairwise[zero[p], one[q]]
        e10, e11 = w * pairwise[one[p], zero[q]], w * pairwise[one[p], one[q]]
        np.add.at(lin, p, e10 - e00)
        np.add.at(lin, q, e11 - e10)
        rows.append(q), cols.append(p), caps.append(e01 + e10 - e00 - e11)
    node = np.arange(n)
    rows += [np.full(n, source), node]
    cols += [node, np.full(n, sink)]
    caps += [np.maximum(-lin, 0), np.maximum(lin, 0)]
    graph = coo_array(
        (np.concatenate(caps), (np.concatenate(rows), np.concatenate(cols))), shape=(n + 2, n + 2)
    ).tocsr()
    graph = graph.astype(np.int32)
    rest = graph - maximum_flow(graph, source, sink).flow
    rest.data[rest.data < 0] = 0
    rest.eliminate_zeros()
    reached = breadth_first_order(rest, source, return_predecessors=False)
    ones = np.zeros(n + 2, bool)
    ones[reached] = True
    return np.where(ones[:n], one, zero)


def descent(unary, pairwise, weights, offsets, label, orders, offered):
    """A descent by SciPy: moves in turns until a whole cycle of them has changed nothing."""
    label = label.ravel().copy()
    now, quiet = energy(unary, pairwise, weights, offsets, label), 0
    for move in itertools.cycle(orders):
        if quiet == len(orders):
            return label.reshape(unary.shape[1:])
        new = cut_by_scipy(unary, pairwise, weights, offsets, *offered(label, move))
        e = energy(unary, pairwise, weights, offsets, new)
        label, now, quiet = (new, e, 1) if e < now else (label, now, quiet + 1)
    return None


def expansion(label, alpha):
    return label, np.full_like(label, alpha)


def swap(label, pair):
    inside = np.isin(label, pair)
    return np.where(inside, pair[1], label), np.where(inside, pair[0], label)


# ---- problems -------------------------------------------------------------------------------------------


def potts(count):
    return 1 - np.eye(count, dtype=np.int64)


def linear(count, most=2):
    return np.minimum(abs(np.subtract.outer(np.arange(count), np.arange(count))), most)


def random_problem(seed, count, shape, offsets, table=None, dtype="int32", largest=20):
    rng = np.random.default_rng(seed)
    unary = rng.integers(0, largest, (count, *shape)).astype(dtype)
    weights = rng.integers(0, 9, (len(offsets), *shape)).astype(dtype)
    return unary, (potts(count) if table is None else table).astype(dtype), weights


def stored(name):
    if not CASES.is_dir():
        pytest.skip("needs the reference data in ../shared")
    with np.load(CASES / f"{name}.npz") as case:
        unary = np.ascontiguousarray(case["U"].transpose(2, 0, 1))
        weights = np.zeros((2, *unary.shape[1:]), np.int32)
        weights[0, : case["w_vert"].shape[0]] = case["w_vert"]
        weights[1, :, : case["w_horz"].shape[1]] = case["w_horz"]
        return unary, case["V"], weights, int(case["E_expansion"]), json.loads(str(case["meta"]))


# ---- energies -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["ae_coffee320_L5_potts", "ae_china320_L21_potts", "ae_moto_ds4_D16_trunclin"])
def test_stored_cases(name):
    unary, pairwise, weights, wanted, meta = stored(name)
    found = cv3gpu.alpha_expansion(unary, pairwise, weights, offsets=FOUR)
    assert found.energy.dtype == np.int64
    assert int(found.energy) == energy(unary, pairwise, weights, FOUR, found.labels)
    assert int(found.energy) <= wanted * (1 + 1e-4)
    assert meta["E_argmin"] == energy(unary, pairwise, weights, FOUR, unary.argmin(0))


@pytest.mark.parametrize("operator", OPERATORS)
@pytest.mark.parametrize("seed", range(4))
def test_two_labels_are_solved_exactly(operator, seed):
    unary, pairwise, weights = random_problem(seed, 2, (3, 4), EIGHT)
    found = operator(unary, pairwise, weights, offsets=EIGHT)
    assert (
        int(found.energy)
        == best(unary, pairwise, weights, EIGHT)
        == energy(unary, pairwise, weights, EIGHT, found.labels)
    )


@pytest.mark.parametrize("seed", range(4))
def test_against_all_labellings(seed):
    """At most twice the least energy where pairs are Potts'; and here nearly always the least."""
    unary, pairwise, weights = random_problem(seed, 3, (3, 3), FOUR)
    found = int(cv3gpu.alpha_expansion(unary, pairwise, weights, offsets=FOUR).energy)
    least = best(unary, pairwise, weights, FOUR)
    assert least <= found <= 2 * least


@pytest.mark.parametrize("dtype", ["int32", "int64", "float32", "float64"])
@pytest.mark.parametrize(
    ("shape", "offsets"),
    [
        ((9, 11), FOUR),
        ((7, 8), EIGHT),
        ((1, 12), FOUR),
        ((6, 9), ((2, 3), (0, -1))),
        ((3, 4, 5), ((1, 0, 0), (0, 1, 0), (0, -1, 1))),
    ],
)
@pytest.mark.parametrize("kind", ["potts", "linear"])
def test_descents_are_those_of_scipy(shape, offsets, kind, dtype):
    """The same cuts, so the same labels, after expansions and after swaps."""
    table = potts(5) if kind == "potts" else linear(5)
    unary, pairwise, weights = random_problem(len(shape) + len(kind), 5, shape, offsets, table, dtype)
    whole = unary.astype(int), pairwise.astype(int), weights.astype(int), offsets
    wanted = descent(*whole, unary.argmin(0), range(5), expansion)
    found = cv3gpu.alpha_expansion(unary, pairwise, weights, offsets=offsets, fuse=False)
    np.testing.assert_array_equal(found.labels, wanted)
    assert found.energy == energy(*whole, wanted)
    wanted = descent(*whole, unary.argmin(0), list(itertools.combinations(range(5), 2)), swap)
    found = cv3gpu.alpha_beta_swap(unary, pairwise, weights, offsets=offsets)
    np.testing.assert_array_equal(found.labels, wanted)


def test_a_larger_grid_of_many_labels():
    """Enough pixels that parts of the image come to rest at different times."""
    rng = np.random.default_rng(5)
    unary = rng.integers(0, 60, (8, 24, 28)) + 4 * rng.integers(0, 12, (8, 6, 7)).repeat(4, 1).repeat(4, 2)
    weights = rng.integers(5, 25, (4, 24, 28))
    wanted = descent(unary, linear(8, 3), weights, EIGHT, unary.argmin(0), range(8), expansion)
    found = cv3gpu.alpha_expansion(unary, linear(8, 3), weights, offsets=EIGHT, fuse=False)
    np.testing.assert_array_equal(found.labels, wanted)


@pytest.mark.parametrize("operator", OPERATORS)
def test_no_move_raises_the_energy(operator, monkeypatch):
    unary, pairwise, weights = random_problem(3, 6, (12, 13), EIGHT, linear(6))
    seen = []
    move, fuse = _moves_cpu.Mover.move, _moves_cpu.Mover.fuse

    def told(way):
        def watched(self, argument):
            before = energy(unary, pairwise, weights, EIGHT, self.label)
            (change,) = way(self, argument)
            seen.append(change)
            assert energy(unary, pairwise, weights, EIGHT, self.label) - before == change <= 0
            return [change]

        return watched

    monkeypatch.setattr(_moves_cpu.Mover, "move", told(move))
    monkeypatch.setattr(_moves_cpu.Mover, "fuse", told(fuse))
    operator(unary, pairwise, weights, offsets=EIGHT, fuse=True)
    assert sum(c < 0 for c in seen) > 4
    assert 0 in seen


def test_fusion_mostly_ends_lower():
    lower = []
    for seed in range(6):
        rng = np.random.default_rng(seed)
        unary, weights = rng.integers(0, 30, (7, 20, 20)), rng.integers(3, 12, (2, 20, 20))
        alone, both = (cv3gpu.alpha_expansion(unary, linear(7), weights, offsets=FOUR, fuse=f) for f in (False, True))
        assert both.energy == energy(unary, linear(7), weights, FOUR, both.labels)
        lower.append(int(alone.energy) - int(both.energy))
    assert sum(lower) > 0
    assert sum(x > 0 for x in lower) >= 3


def test_fusion_keeps_the_better_of_what_it_joins():
    """Where two labellings differ in parts that do not touch, each part is the better one of the two."""
    rng = np.random.default_rng(18)
    unary, pairwise, weights = random_problem(18, 4, (9, 20), FOUR, linear(4))
    problem = moves._problem(
        "", _descent.Size((), 4, (9, 20)), FOUR, pairwise.astype(float), True, True, unary, weights
    )
    one = rng.integers(0, 4, (9, 20))
    two, best_of_both = one.copy(), one.copy()
    for part, good in ((np.s_[1:4, 1:8], True), (np.s_[5:8, 2:6], False), (np.s_[2:7, 10:18], True)):
        two[part] = unary.argmin(0)[part] if good else unary.argmax(0)[part]
        other = best_of_both.copy()
        other[part] = two[part]
        if energy(unary, pairwise, weights, FOUR, other) < energy(unary, pairwise, weights, FOUR, best_of_both):
            best_of_both = other
    mover = _moves_cpu.Mover(problem, 0, one.astype(np.int32).ravel())
    before = energy(unary, pairwise, weights, FOUR, one)
    (change,) = mover.fuse(two.astype(np.int32).reshape(1, -1))
    now = energy(unary, pairwise, weights, FOUR, mover.label)
    assert now - before == change
    assert now <= energy(unary, pairwise, weights, FOUR, best_of_both) < before


def test_swap_is_no_worse_than_its_start():
    rng = np.random.default_rng(6)
    unary, pairwise, weights = random_problem(6, 5, (10, 10), FOUR, linear(5) ** 2)
    start = rng.integers(0, 5, (10, 10))
    found = cv3gpu.alpha_beta_swap(unary, pairwise, weights, offsets=FOUR, labels=start)
    assert found.energy == energy(unary, pairwise, weights, FOUR, found.labels)
    assert found.energy < energy(unary, pairwise, weights, FOUR, start)
    again = cv3gpu.alpha_beta_swap(unary, pairwise, weights, offsets=FOUR, labels=found.labels)
    np.testing.assert_array_equal(again.labels, found.labels)
    assert again.n_iter == 1


def test_a_start_of_ones_own():
    unary, pairwise, weights = random_problem(7, 5, (9, 9), FOUR)
    start = np.random.default_rng(7).integers(0, 5, (9, 9)).astype(np.uint8)
    wanted = descent(unary, pairwise, weights, FOUR, start.astype(int), range(5), expansion)
    found = cv3gpu.alpha_expansion(unary, pairwise, weights, offsets=FOUR, labels=start, fuse=False)
    np.testing.assert_array_equal(found.labels, wanted)
    assert start.dtype == np.uint8
    assert (start == np.random.default_rng(7).integers(0, 5, (9, 9))).all()


def test_ties_stay_with_the_lowest_label():
    found = cv3gpu.alpha_expansion(np.zeros((4, 3, 3), int), potts(4), np.ones((2, 3, 3), int), offsets=FOUR)
    assert not found.labels.any()
    assert (int(found.energy), found.n_iter) == (0, 1)


def test_costs_that_are_no_metric():
    table = linear(5, 4) ** 2
    unary, pairwise, weights = random_problem(8, 5, (10, 11), FOUR, table)
    start = energy(unary, pairwise, weights, FOUR, unary.argmin(0))
    found = cv3gpu.alpha_expansion(unary, pairwise, weights, offsets=FOUR, truncate=True)
    assert found.energy == energy(unary, pairwise, weights, FOUR, found.labels) < start
    odd = np.array([[3, -2, 5], [-2, 1, 0], [5, 0, -4]])
    unary, _, weights = random_problem(9, 3, (8, 9), FOUR)
    start = energy(unary, odd, weights, FOUR, unary.argmin(0))
    for operator in OPERATORS:
        found = operator(unary, odd, weights, offsets=FOUR, truncate=True)
        assert found.energy == energy(unary, odd, weights, FOUR, found.labels) < start


def test_a_label_that_is_forbidden():
    unary, pairwise, weights = random_problem(10, 4, (8, 8), FOUR, dtype="float64")
    barred = np.random.default_rng(10).random((8, 8)) < 0.4
    unary[2, barred] = np.inf
    found = cv3gpu.alpha_expansion(unary, pairwise, weights * 50, offsets=FOUR)
    assert np.isfinite(found.energy)
    assert not (found.labels[barred] == 2).any()
    start = np.full((8, 8), 2)
    found = cv3gpu.alpha_expansion(unary, pairwise, weights, offsets=FOUR, labels=start)
    assert not (found.labels[barred] == 2).any()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("factor", [1e-250, 1e-6, 1.0, 1e5, 1e200])
def test_scaling_of_floats(dtype, factor):
    """Energies of floats are off by their rounding alone, whatever their unit."""
    if dtype == "float32" and not 1e-30 < factor < 1e30:
        factor = factor**0.1
    rng = np.random.default_rng(11)
    unary, weights = (rng.random((5, 12, 12)) * factor).astype(dtype), (rng.random((2, 12, 12)) * factor).astype(dtype)
    table = linear(5).astype(dtype) * np.dtype(dtype).type(0.3)
    found = cv3gpu.alpha_expansion(unary, table, weights, offsets=FOUR)
    wanted = energy(unary.astype(float), table.astype(float), weights.astype(float), FOUR, found.labels)
    assert float(found.energy) == pytest.approx(wanted, rel=1e-12, abs=0)
    ones = cv3gpu.alpha_expansion(
        np.rint(unary / factor * 2**20).astype(int),
        linear(5) * 3,
        np.rint(weights / factor * 2**20 / 10).astype(int),
        offsets=FOUR,
    )
    other = energy(unary.astype(float), table.astype(float), weights.astype(float), FOUR, ones.labels)
    assert float(found.energy) <= other * (1 + 1e-4)


def test_large_integers():
    """Capacities beyond int32, and energies that only int64 holds exactly."""
    unary, pairwise, weights = random_problem(12, 4, (8, 9), FOUR, dtype="int64")
    small = cv3gpu.alpha_expansion(unary, pairwise, weights, offsets=FOUR)
    for factor in (2**27, 2**43):
        found = cv3gpu.alpha_expansion(unary * factor, pairwise, weights * factor, offsets=FOUR)
        np.testing.assert_array_equal(found.labels, small.labels)
        assert int(found.energy) == int(small.energy) * factor
    odd = cv3gpu.alpha_expansion(unary * 2**43 + 1, pairwise, weights * 2**43, offsets=FOUR)
    assert int(odd.energy) == int(small.energy) * 2**43 + 72


def test_offsets_that_name_the_same_edges():
    unary, pairwise, weights = random_problem(13, 4, (7, 8), FOUR)
    wanted = cv3gpu.alpha_expansion(unary, pairwise, weights, offsets=FOUR)
    other = np.zeros_like(weights)
    other[0, 1:], other[1, :, 1:] = weights[0, :-1], weights[1, :, :-1]
    found = cv3gpu.alpha_expansion(unary, pairwise, other, offsets=((-1, 0), (0, -1)))
    np.testing.assert_array_equal(found.labels, wanted.labels)
    parts = np.concatenate([weights // 2, weights - weights // 2])
    found = cv3gpu.alpha_expansion(unary, pairwise, parts, offsets=FOUR + FOUR)
    np.testing.assert_array_equal(found.labels, wanted.labels)
    beyond = np.concatenate([weights, np.full((1, 7, 8), -5, weights.dtype)])  # edges that all leave the image
    found = cv3gpu.alpha_expansion(unary, pairwise, beyond, offsets=(*FOUR, (0, 8)))
    np.testing.assert_array_equal(found.labels, wanted.labels)


# ---- properties -----------------------------------------------------------------------------------------

problems = st.tuples(st.integers(0, 10**6), st.integers(1, 5), st.integers(1, 6), st.integers(1, 6))


@settings(max_examples=15, deadline=None)
@given(problems)
def test_a_constant_at_each_pixel_changes_nothing(case):
    seed, count, height, width = case
    unary, pairwise, weights = random_problem(seed, count, (height, width), EIGHT)
    more = np.random.default_rng(seed).integers(-50, 50, (height, width))
    one, two = (cv3gpu.alpha_expansion(u, pairwise, weights, offsets=EIGHT) for u in (unary, unary + more))
    np.testing.assert_array_equal(one.labels, two.labels)
    assert one.energy + more.sum() == two.energy


@settings(max_examples=15, deadline=None)
@given(problems)
def test_a_result_is_where_no_expansion_leads_further(case):
    seed, count, height, width = case
    unary, pairwise, weights = random_problem(seed, count, (height, width), EIGHT, linear(count), largest=12)
    found = cv3gpu.alpha_expansion(unary, pairwise, weights, offsets=EIGHT)
    flat = found.labels.ravel()
    for alpha in range(count):
        new = cut_by_scipy(unary, pairwise, weights, EIGHT, *expansion(flat, alpha))
        assert energy(unary, pairwise, weights, EIGHT, new) >= found.energy


@settings(max_examples=15, deadline=None)
@given(problems, st.integers(0, 10**6))
def test_names_of_two_labels_do_not_matter(case, shuffle):
    """Both orders end at the least energy."""
    seed, _, height, width = case
    unary, pairwise, weights = random_problem(seed, 2, (height, width), EIGHT)
    order = np.random.default_rng(shuffle).permutation(2)
    one = cv3gpu.alpha_expansion(unary, pairwise, weights, offsets=EIGHT)
    two = cv3gpu.alpha_expansion(unary[order], pairwise[order][:, order], weights, offsets=EIGHT)
    assert one.energy == two.energy == energy(unary, pairwise, weights, EIGHT, order[two.labels])


# ---- arrays ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("operator", OPERATORS)
@pytest.mark.parametrize("dtype", ["int32", "float32"])
def test_batches_and_libraries(cpu_path, operator, dtype):
    parts = [random_problem(seed, 4, (6, 7), FOUR, linear(4), dtype) for seed in range(6)]
    single = [operator(*part, offsets=FOUR, fuse=True) for part in parts]
    unary, weights = (np.stack([part[i] for part in parts]).reshape(2, 3, *parts[0][i].shape) for i in (0, 2))
    given = [cpu_path.array(x) for x in (unary, parts[0][1], weights)]
    found = operator(*given, offsets=FOUR, fuse=True)
    assert type(found.labels) is type(given[0])
    assert tuple(found.labels.shape) == (2, 3, 6, 7)
    assert tuple(found.energy.shape) == (2, 3)
    assert "int64" in str(found.labels.dtype)
    assert ("int64" if dtype == "int32" else "float64") in str(found.energy.dtype)
    np.testing.assert_array_equal(cpu_path.numpy(found.labels).reshape(6, 6, 7), [s.labels for s in single])
    np.testing.assert_array_equal(cpu_path.numpy(found.energy).ravel(), [s.energy for s in single])
    assert found.n_iter == max(s.n_iter for s in single)


@pytest.mark.parametrize("lead", [(), (2,)])
@pytest.mark.parametrize(("count", "shape"), [(1, (3, 3)), (3, (1, 1)), (3, (1, 6)), (3, (0, 4)), (2, (4, 0))])
def test_small_images(lead, count, shape):
    rng = np.random.default_rng(14)
    unary, weights = rng.integers(0, 9, (*lead, count, *shape)), rng.integers(0, 9, (*lead, 2, *shape))
    for operator in OPERATORS:
        found = operator(unary, potts(count), weights, offsets=FOUR)
        assert found.labels.shape == (*lead, *shape)
        assert found.energy.shape == lead
        if 0 not in shape and 1 in (count, shape[1]):
            np.testing.assert_array_equal(found.labels, unary.argmin(-3))


def test_views_and_read_only_arrays():
    unary, pairwise, weights = random_problem(15, 4, (9, 10), FOUR)
    wanted = cv3gpu.alpha_expansion(unary[:, ::2, ::-1].copy(), pairwise, weights[:, ::2, ::-1].copy(), offsets=FOUR)
    for x in (unary, pairwise, weights):
        x.flags.writeable = False
    found = cv3gpu.alpha_expansion(unary[:, ::2, ::-1], pairwise, weights[:, ::2, ::-1], offsets=FOUR)
    np.testing.assert_array_equal(found.labels, wanted.labels)


def test_a_warning_where_cycles_are_too_few():
    rng = np.random.default_rng(16)
    unary, weights = rng.integers(0, 30, (7, 20, 20)), rng.integers(3, 12, (2, 20, 20))
    with pytest.warns(ConvergenceWarning, match="the last of 1 cycles still lowered the energy") as told:
        found = cv3gpu.alpha_expansion(unary, linear(7), weights, offsets=FOUR, max_iter=1, fuse=False)
    assert told[0].filename == __file__
    assert found.n_iter == 1
    assert found.energy == energy(unary, linear(7), weights, FOUR, found.labels)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert 1 < cv3gpu.alpha_expansion(unary, linear(7), weights, offsets=FOUR).n_iter <= 10


# ---- refusals -------------------------------------------------------------------------------------------


def changed(**what):
    unary, pairwise, weights = random_problem(17, 3, (4, 5), FOUR)
    return {"unary": unary, "pairwise": pairwise, "edge_weights": weights, "offsets": FOUR} | what


def with_entry(kind, place, value, dtype="float64"):
    x = changed()[kind].astype(dtype)
    x[place] = value
    return {kind: x}


REFUSALS = {
    "no array": (TypeError, "unary must be a NumPy, CuPy or torch array", {"unary": [[1]]}),
    "complex": (TypeError, "unary must have dtype", {"unary": np.zeros((3, 4, 5), complex)}),
    "bool": (TypeError, "edge_weights must have dtype", {"edge_weights": np.zeros((2, 4, 5), bool)}),
    "no label axis": (ValueError, r"unary must have shape \[..., L, H, W\]", {"unary": np.zeros((4, 5))}),
    "no label": (
        ValueError,
        "unary must have a label at least",
        {"unary": np.zeros((0, 4, 5)), "pairwise": np.zeros((0, 0))},
    ),
    "table's shape": (ValueError, r"pairwise must have shape \[3, 3\]", {"pairwise": potts(4)}),
    "planes": (ValueError, r"edge_weights must have shape \[2, 4, 5\]", {"edge_weights": np.zeros((3, 4, 5))}),
    "not symmetric": (ValueError, r"be symmetric, got pairwise\[0, 2\] = 5.0", with_entry("pairwise", (0, 2), 5)),
    "negative pair": (ValueError, r"not be negative.*pairwise\[0, 1\] = -1", {"pairwise": -potts(3)}),
    "diagonal": (ValueError, r"zero on the diagonal, got pairwise\[1, 1\] = 2", with_entry("pairwise", (1, 1), 2)),
    "triangle": (
        ValueError,
        r"be a metric, got pairwise\[0, 2\] = 4 > pairwise\[0, 1\] = 1 \+ pairwise\[1, 2\] = 1; alpha_beta_swap",
        {"pairwise": linear(3) ** 2},
    ),
    "infinite pair": (ValueError, "pairwise must be finite, got inf", with_entry("pairwise", (0, 1), np.inf)),
    "negative weight": (
        ValueError,
        "edge_weights must be finite and not negative, got -1",
        with_entry("edge_weights", (0, 1, 1), -1),
    ),
    "NaN weight": (
        ValueError,
        "edge_weights must be finite and not negative, got nan",
        with_entry("edge_weights", (1, 0, 0), np.nan),
    ),
    "infinite weight": (ValueError, "edge_weights must be finite", with_entry("edge_weights", (1, 0, 0), np.inf)),
    "NaN unary": (ValueError, "unary must hold no NaN and no -inf, got NaN", with_entry("unary", (1, 0, 0), np.nan)),
    "-inf unary": (ValueError, "unary must hold no NaN and no -inf, got -inf", with_entry("unary", (1, 0, 0), -np.inf)),
    "all forbidden": (ValueError, "allow each pixel a label", with_entry("unary", (slice(None), 2, 2), np.inf)),
    "too large": (ValueError, "2.60 in an image", {"unary": np.full((3, 4, 5), 2**57)}),
    "edges too large": (ValueError, "2.50 at a pixel", {"edge_weights": np.full((2, 4, 5), 2**49)}),
    "unaries too large": (ValueError, "2.53 at a pixel", {"unary": np.full((3, 4, 5), 2**53 + 1)}),
    "floats too large": (ValueError, "2.960 in an image, got up to", {"unary": np.full((3, 4, 5), 1e300)}),
    "products too large": (
        ValueError,
        "2.960 in an image, got up to inf",
        {"pairwise": 1e200 * potts(3), "edge_weights": np.full((2, 4, 5), 1e200)},
    ),
    "no offsets": (
        ValueError,
        "offsets must hold at least one step",
        {"offsets": [], "edge_weights": np.zeros((0, 4, 5))},
    ),
    "offsets' type": (TypeError, "offsets must be a sequence", {"offsets": 1}),
    "an offset's type": (TypeError, r"offsets\[1\] must be a pair", {"offsets": ((1, 0), 1)}),
    "an offset's length": (ValueError, r"offsets\[1\] must be a pair", {"offsets": ((1, 0), (0, 1, 0))}),
    "zero offset": (ValueError, r"offsets\[0\] must lead to another pixel", {"offsets": ((0, 0), (0, 1))}),
    "fractional offset": (TypeError, r"offsets\[0\] must be an integer", {"offsets": ((0.5, 0), (0, 1))}),
    "max_iter": (ValueError, "max_iter must be from 1", {"max_iter": 0}),
    "max_iter's type": (TypeError, "max_iter must be an integer", {"max_iter": 1.5}),
    "fuse": (TypeError, "fuse must be True or False", {"fuse": 1}),
    "truncate": (TypeError, "truncate must be True or False", {"truncate": "yes"}),
    "labels' shape": (ValueError, r"labels must have shape \[4, 5\]", {"labels": np.zeros((5, 4), int)}),
    "labels' dtype": (TypeError, "labels must have dtype", {"labels": np.zeros((4, 5))}),
    "labels' range": (ValueError, "labels must be from 0 to 2, got 3", {"labels": np.full((4, 5), 3)}),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_refusals(name):
    error, match, what = REFUSALS[name]
    with pytest.raises(error, match="^alpha_expansion: .*" + match):
        cv3gpu.alpha_expansion(**changed(**what))


def test_forbidden_labels_among_tiny_costs():
    """The unit follows the costs, however small: a cost of +inf is no absolute number."""
    unary, pairwise, weights = random_problem(19, 3, (6, 7), FOUR)
    unary = unary.astype(np.float64)
    unary[1, ::2, ::3] = np.inf
    expected = cv3gpu.alpha_expansion(unary, pairwise, weights.astype(np.float64), offsets=FOUR)
    tiny = 2.0**-90
    found = cv3gpu.alpha_expansion(unary * tiny, pairwise, weights * tiny, offsets=FOUR)
    np.testing.assert_array_equal(found.labels, expected.labels)
    assert found.energy == expected.energy * tiny


def test_refusals_of_the_swap():
    with pytest.raises(ValueError, match=r"^alpha_beta_swap: pairwise must be zero on the diagonal"):
        cv3gpu.alpha_beta_swap(**changed(pairwise=np.eye(3)))
    assert cv3gpu.alpha_beta_swap(**changed(pairwise=linear(3) ** 2)).n_iter > 0


def test_mixed_libraries_are_refused():
    torch = pytest.importorskip("torch")
    with pytest.raises(TypeError, match="all arrays must be of one library"):
        cv3gpu.alpha_expansion(**changed(pairwise=torch.from_numpy(potts(3))))
