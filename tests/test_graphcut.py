"""graph_cut against SciPy's maximum flow, against all labellings of tiny grids, and against stored cases."""

from __future__ import annotations

import functools
import itertools
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cv3gpu import _njit, _threads, graph_cut
from cv3gpu.graphcut import _cpu, _loops, cut
from cv3gpu.graphcut.cut import GraphCut

from . import oracles
from .conftest import PATHS, need_gpu

FOUR = [(0, 1), (0, -1), (1, 0), (-1, 0)]
EIGHT = [*FOUR, (1, 1), (-1, -1), (1, -1), (-1, 1)]
SIX = [(0, 0, 1), (0, 0, -1), (0, 1, 0), (0, -1, 0), (1, 0, 0), (-1, 0, 0)]
TWENTY_SIX = [step for step in itertools.product((-1, 0, 1), repeat=3) if any(step)]
SETS = {
    "4": FOUR,
    "8": EIGHT,
    "one way": [(0, 1), (1, 0)],
    "one way, other order": [(1, -1), (0, -1), (-1, 0), (1, 0)],
    "twice": [(0, 1), (0, 1), (0, -1), (1, 0)],
    "long": [(0, 3), (0, -3), (2, -1), (5, 0), (-5, 0), (-2, 7)],
    "32 pairs": [(y, x) for y in range(1, 5) for x in range(-4, 4)],
    "knight": [(a * y, b * x) for y, x in ((1, 2), (2, 1)) for a in (1, -1) for b in (1, -1)],
    "longer than the image": [(0, 40), (1, 0), (-1, 0), (0, -40), (2**30, 1)],
    "6": SIX,
    "26": TWENTY_SIX,
    "long in 3-D": [(2, 0, -1), (-2, 0, 1), (0, 3, 3), (1, -2, 0)],
}

Problem = tuple[np.ndarray, np.ndarray, np.ndarray]


def random_problem(
    rng: np.random.Generator, shape: tuple[int, ...], n_offsets: int, top: int = 9, share: float = 0.5
) -> Problem:
    """Capacities below ``top``; about ``share`` of those of source and sink, and of edges, are not zero."""
    terminals = [rng.integers(0, top, shape) * (rng.random(shape) < share) for _ in range(2)]
    neighbor = rng.integers(0, top, (n_offsets, *shape)) * (rng.random((n_offsets, *shape)) < 0.5 + share / 2)
    return terminals[0], terminals[1], neighbor


def solve(path: Any, problem: Problem, offsets: Any, dtype: str | None = None, **options: Any) -> GraphCut:
    """Calls the operator, checks what holds for any result of one image, and gives it back in NumPy."""
    found = graph_cut(*(path.array(x, dtype) for x in problem), offsets=offsets, **options)
    labels, flow = (path.numpy(x) for x in found)
    source, sink, neighbor = (x.astype(dtype) if dtype else x for x in problem)
    assert labels.dtype == np.int64
    assert labels.shape == source.shape
    assert labels.max(initial=0) <= 1
    assert flow.dtype == ("int64" if source.dtype.kind in "iu" else "float64")
    assert flow.shape == ()
    if source.dtype.kind in "iu":
        wide = [x.astype(object) for x in (source, sink, neighbor)]
        assert oracles.cut_energy(labels, *wide, offsets) == flow, "the flow is what the cut costs"
    return GraphCut(labels, flow)


def assert_solved(path: Any, problem: Problem, offsets: Any, oracle: Any = oracles.min_cut, **options: Any) -> None:
    """Flow and both cuts are the oracle's."""
    flow, fewest, most = oracle(*problem, offsets)
    assert (fewest <= most).all()
    for minimal, wanted in ((True, fewest), (False, most)):
        found = solve(path, problem, offsets, minimal=minimal, **options)
        assert found.flow == flow
        np.testing.assert_array_equal(found.labels, wanted)


# ---- exactness ------------------------------------------------------------------------------------------

SHAPES = {
    2: [(1, 1), (1, 9), (9, 1), (2, 2), (7, 13), (8, 8), (17, 9), (33, 20)],
    3: [(1, 1, 1), (2, 3, 5), (5, 1, 9), (4, 4, 4), (6, 7, 9)],
}


@pytest.mark.parametrize("name", list(SETS))
def test_random_grids(cpu_path: Any, name: str) -> None:
    offsets = SETS[name]
    rng = np.random.default_rng(1)
    for shape in SHAPES[len(offsets[0])]:
        for top, share in ((3, 0.8), (9, 0.3), (1000, 1.0)):
            assert_solved(cpu_path, random_problem(rng, shape, len(offsets), top, share), offsets)


@pytest.mark.parametrize("name", ["4", "8", "one way", "twice", "longer than the image", "6", "long in 3-D"])
def test_small_grids_on_every_path(path: Any, name: str) -> None:
    offsets = SETS[name]
    rng = np.random.default_rng(2)
    shape = (6, 11) if len(offsets[0]) == 2 else (3, 4, 5)
    problem = random_problem(rng, shape, len(offsets))
    assert_solved(path, problem, offsets)
    assert_solved(path, problem, offsets, dtype="float64")


@pytest.mark.parametrize(("shape", "name"), [((3, 3), "8"), ((1, 10), "4"), ((3, 3), "long"), ((2, 2, 2), "26")])
def test_all_labellings(cpu_path: Any, shape: tuple[int, ...], name: str) -> None:
    rng = np.random.default_rng(3)
    for top in (2, 3, 50):
        problem = random_problem(rng, shape, len(SETS[name]), top)
        assert_solved(cpu_path, problem, SETS[name], oracles.min_cut_by_brute_force)


def test_seeds_alone() -> None:
    """Long paths: two seeds far apart in an image of noise."""
    rng = np.random.default_rng(4)
    source, sink = np.zeros((2, 60, 70), int)
    source[5:8, 5:8], sink[50:55, 60:65] = 10**6, 10**6
    assert_solved(PATHS["numpy"], (source, sink, rng.integers(1, 1000, (4, 60, 70))), FOUR)
    assert_solved(PATHS["numpy"], (source, sink, rng.integers(1, 1000, (8, 60, 70))), EIGHT)


@pytest.mark.parametrize("n", [1, 63, 64, 65, 500])
def test_a_row_of_equal_edges_has_every_cut(path: Any, n: int) -> None:
    """From a seed at one end to one at the other; the cut is anywhere."""
    if n > 65 and path.runs_kernels:
        pytest.skip("one of these is enough")
    source, sink = np.zeros((2, 1, n), int)
    source[0, 0] = sink[0, -1] = 7
    edges = np.full((2, 1, n), 3)
    fewest, most = (solve(path, (source, sink, edges), FOUR[:2], minimal=m) for m in (True, False))
    assert fewest.flow == most.flow == (7 if n == 1 else 3)
    assert fewest.labels.sum() == (0 if n == 1 else 1)
    assert most.labels.sum() == (1 if n == 1 else n - 1)


def test_without_an_edge_each_pixel_is_its_own_cut(path: Any) -> None:
    source, sink = np.array([[5, 2, 3, 0]]), np.array([[1, 2, 9, 0]])
    for offsets in ([(1, 0)], [(0, 4), (-1, 0)]):
        for minimal, tie in ((True, 0), (False, 1)):
            for dtype in (None, "float32"):
                neighbor = np.full((len(offsets), 1, 4), 100)
                found = solve(path, (source, sink, neighbor), offsets, dtype, minimal=minimal)
                assert found.labels.tolist() == [[1, tie, 0, tie]]
                assert found.flow == 6


@pytest.mark.parametrize("value", [0, 8])
def test_all_alike(path: Any, value: int) -> None:
    """All on one side, or nothing to decide."""
    ones, edges = np.ones((5, 6), int), np.full((4, 5, 6), value)
    nothing = np.zeros_like(ones)
    for source, sink, fewest, most in (
        (ones, nothing, 1, 1),
        (nothing, ones, 0, 0),
        (nothing, nothing, 0, 1),
        (ones, ones, 0, 1),
    ):
        for minimal, label in ((True, fewest), (False, most)):
            found = solve(path, (source, sink, edges), FOUR, minimal=minimal)
            assert (found.labels == label).all()
            assert found.flow == np.minimum(source, sink).sum()


def test_what_leaves_the_grid_is_not_looked_at(path: Any) -> None:
    problem = random_problem(np.random.default_rng(5), (6, 7), 8)
    for outside in (-1, 2**62):
        dirty = problem[2].copy()
        for plane, offset in zip(dirty, EIGHT, strict=True):
            leaves = np.ones(plane.shape, bool)
            leaves[oracles.grid_edges(plane.shape, offset)[0]] = False
            plane[leaves] = outside
        assert_solved(path, (*problem[:2], dirty), EIGHT)


def test_capacities_of_repeated_offsets_add_up(cpu_path: Any) -> None:
    source, sink, neighbor = random_problem(np.random.default_rng(6), (9, 8), 4)
    twice = np.concatenate([neighbor, neighbor])
    flow, fewest, most = oracles.min_cut(source, sink, 2 * neighbor, FOUR)
    for minimal, wanted in ((True, fewest), (False, most)):
        found = solve(cpu_path, (source, sink, twice), FOUR + FOUR, minimal=minimal)
        assert found.flow == flow
        np.testing.assert_array_equal(found.labels, wanted)


# ---- symmetries -----------------------------------------------------------------------------------------


def test_exchange_of_source_and_sink(cpu_path: Any) -> None:
    """Edges turned round, the fewest 1s become the fewest 0s."""
    source, sink, neighbor = random_problem(np.random.default_rng(7), (12, 15), 8, 4)
    back = [tuple(-o for o in offset) for offset in EIGHT]
    turned = np.zeros_like(neighbor)
    for plane, other, offset in zip(turned, neighbor, EIGHT, strict=True):
        begin, end = oracles.grid_edges(plane.shape, offset)
        plane[end] = other[begin]
    for minimal in (True, False):
        found = solve(cpu_path, (source, sink, neighbor), EIGHT, minimal=minimal)
        swapped = solve(cpu_path, (sink, source, turned), back, minimal=not minimal)
        assert found.flow == swapped.flow
        np.testing.assert_array_equal(found.labels, 1 - swapped.labels)


@pytest.mark.parametrize("axes", [(1, 0, 2), (2, 1, 0), (1, 2, 0)])
def test_transposed_and_flipped_volumes(cpu_path: Any, axes: tuple[int, ...]) -> None:
    problem = random_problem(np.random.default_rng(8), (5, 6, 9), 26, 4)
    straight = solve(cpu_path, problem, TWENTY_SIX)
    terminals = [np.flip(x.transpose(axes), 1) for x in problem[:2]]
    neighbor = np.flip(problem[2].transpose(0, *(a + 1 for a in axes)), 2)
    offsets = [(o[axes[0]], -o[axes[1]], o[axes[2]]) for o in TWENTY_SIX]
    found = solve(PATHS["numpy"], (terminals[0], terminals[1], neighbor), offsets)
    assert found.flow == straight.flow
    np.testing.assert_array_equal(found.labels, np.flip(straight.labels.transpose(axes), 1))


def test_an_image_is_a_volume_of_one_slice(cpu_path: Any) -> None:
    problem = random_problem(np.random.default_rng(9), (11, 14), 8)
    flat = solve(cpu_path, problem, EIGHT)
    for axis in range(3):
        offsets = [tuple(np.insert(offset, axis, 0).tolist()) for offset in EIGHT]
        volume = [np.expand_dims(x, axis + x.ndim - 2) for x in problem]
        found = solve(cpu_path, (volume[0], volume[1], volume[2]), offsets)
        assert found.flow == flat.flow
        np.testing.assert_array_equal(np.squeeze(found.labels, axis), flat.labels)


def test_a_directed_edge_holds_one_way_only(path: Any) -> None:
    source, sink = np.array([[9, 0]]), np.array([[0, 4]])
    for offset, flow in (((0, 1), 4), ((0, -1), 0)):
        assert solve(path, (source, sink, np.full((1, 1, 2), 10)), [offset]).flow == flow


# ---- stored cases ---------------------------------------------------------------------------------------

DATA = Path(__file__).resolve().parents[1] / ".." / "shared" / "data" / "crf"
CASES = sorted(file.stem for file in DATA.glob("mf_*.npz")) or ["absent"]


@functools.lru_cache(maxsize=2)
def loaded(name: str) -> tuple[Problem, list[tuple[int, int]], int, np.ndarray, np.ndarray]:
    """A case: capacities, offsets, flow, the cut with the fewest 1s and the one with the most."""
    with np.load(DATA / f"{name}.npz") as file:
        case = {key: file[key] for key in file.files}
    height, width = case["shape"].tolist()
    source, sink = (case[f"{key}_values"][case[f"{key}_index"]] for key in ("D0", "D1"))
    offsets, planes = [], []
    for key in case:
        if key.startswith("w_"):
            offset = tuple(int(o) for o in key.split("_")[1:])
            begin, end = oracles.grid_edges((height, width), offset)
            there, back = np.zeros((2, height, width), np.int32)
            there[begin] = case[key][begin] if case[key].shape == (height, width) else case[key]
            back[end] = there[begin]
            offsets += [offset, tuple(-o for o in offset)]
            planes += [there, back]
    cuts = [
        np.unpackbits(case[f"seg_{which}_bits"])[: height * width].reshape(height, width) for which in ("min", "max")
    ]
    return (source, sink, np.stack(planes)), offsets, int(case["maxflow"]), cuts[0], cuts[1]


@pytest.fixture(params=["numpy", "gpu-cupy", "gpu-torch"])
def whole_path(request: pytest.FixtureRequest) -> Any:
    """The ways that are fast enough for photographs."""
    if request.param.startswith("gpu"):
        need_gpu()
    return PATHS[request.param]


@pytest.mark.skipif(not DATA.is_dir(), reason="needs ../shared/data/crf")
@pytest.mark.parametrize("name", CASES)
def test_stored_cases(whole_path: Any, name: str) -> None:
    problem, offsets, flow, fewest, most = loaded(name)
    for minimal, wanted in ((True, fewest), (False, most)):
        found = solve(whole_path, problem, offsets, minimal=minimal)
        assert found.flow == flow
        np.testing.assert_array_equal(found.labels, wanted)


# ---- dtypes ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", cut.INTEGERS)
def test_integer_dtypes(cpu_path: Any, dtype: str) -> None:
    assert_solved(cpu_path, random_problem(np.random.default_rng(10), (9, 10), 4), FOUR, dtype=dtype)


def test_integer_dtypes_may_differ(path: Any) -> None:
    problem = random_problem(np.random.default_rng(11), (6, 7), 4)
    flow, labels, _ = oracles.min_cut(*problem, FOUR)
    arrays = [path.array(x, dtype) for x, dtype in zip(problem, ("uint8", "int64", "int16"), strict=True)]
    found = graph_cut(*arrays, offsets=FOUR)
    assert int(found.flow) == flow
    np.testing.assert_array_equal(path.numpy(found.labels), labels)


@pytest.mark.parametrize("dtype", cut.FLOATS)
def test_floats_that_are_integers_are_exact(cpu_path: Any, dtype: str) -> None:
    rng = np.random.default_rng(12)
    for top in (3, 100):
        assert_solved(cpu_path, random_problem(rng, (14, 11), 8, top), EIGHT, dtype=dtype)


@pytest.mark.parametrize("factor", [2.0**-900, 2.0**-30, 0.375, 2.0**40, 2.0**900])
def test_floats_of_any_size(cpu_path: Any, factor: float) -> None:
    """Powers of two times small integers: every sum is exact."""
    problem = random_problem(np.random.default_rng(13), (9, 12), 8, 5)
    flow, fewest, most = oracles.min_cut(*problem, EIGHT)
    scaled = tuple(x * factor for x in problem)
    for minimal, wanted in ((True, fewest), (False, most)):
        found = solve(cpu_path, scaled, EIGHT, minimal=minimal)
        assert found.flow == flow * factor
        np.testing.assert_array_equal(found.labels, wanted)


def test_floats_are_scaled_for_each_image(path: Any) -> None:
    problem = random_problem(np.random.default_rng(14), (5, 6), 4, 5)
    factors = np.array([2.0**-200, 1.0, 2.0**300])
    stacked = [path.array(x * factors.reshape(-1, *[1] * x.ndim)) for x in problem]
    flow, labels, _ = oracles.min_cut(*problem, FOUR)
    found = graph_cut(*stacked, offsets=FOUR)
    np.testing.assert_array_equal(path.numpy(found.flow), flow * factors)
    for one in path.numpy(found.labels):
        np.testing.assert_array_equal(one, labels)


def rounding(neighbor: np.ndarray, offsets: Any) -> float:
    """The bound that the docstring states, plus that of float64 sums."""
    inside = [plane[oracles.grid_edges(plane.shape, o)[0]] for plane, o in zip(neighbor, offsets, strict=True)]
    total, n = sum(x.astype(float).sum() for x in inside), neighbor[0].size
    return (len(neighbor) + 1) * n * total * 2.0**-59


@pytest.mark.parametrize("dtype", cut.FLOATS)
def test_rounding_of_floats_is_bounded(path: Any, dtype: str) -> None:
    """By the float64 energies of all labellings."""
    rng = np.random.default_rng(15)
    for spread in (1.0, 8.0):
        shapes = ((3, 3), (3, 3), (4, 3, 3))
        problem = tuple(np.exp(spread * rng.standard_normal(shape)).astype(dtype) for shape in shapes)
        exact = tuple(x.astype(np.float64) for x in problem)
        least, _, _ = oracles.min_cut_by_brute_force(*exact, FOUR)
        found = solve(path, (problem[0], problem[1], problem[2]), FOUR)
        bound = rounding(problem[2], FOUR) + 1e-15 * (exact[0].sum() + exact[1].sum())
        assert abs(found.flow - least) <= bound
        assert abs(oracles.cut_energy(found.labels, *exact, FOUR) - least) <= 2 * bound


def test_the_least_difference_decides_a_pixel_without_edges(path: Any) -> None:
    source, sink = np.array([[1e-300, 1.0, 1.0, 0.0, 0.0]]), np.array([[0.0, 1.0, 1.0 + 4e-16, 0.0, 0.0]])
    neighbor = np.zeros((2, 1, 5))
    for largest in (0.0, 1.0, 1e288):  # of the edges elsewhere
        neighbor[0, 0, 3] = neighbor[1, 0, 4] = largest
        assert solve(path, (source, sink, neighbor), FOUR[:2]).labels.tolist() == [[1, 0, 0, 0, 0]]
        assert solve(path, (source, sink, neighbor), FOUR[:2], minimal=False).labels.tolist() == [[1, 1, 0, 1, 1]]


@pytest.mark.parametrize("seed", [np.inf, 1e200, 1e288])
def test_infinite_and_huge_terminals_are_seeds(path: Any, seed: float) -> None:
    """As seeds of more than all edges around them, and they cost the others no precision."""
    rng = np.random.default_rng(16)
    source, sink, neighbor = random_problem(rng, (7, 8), 8, 20)
    neighbor = neighbor / 2.0**40
    hard = [np.where(rng.random(source.shape) < 0.1, 1.0, 0.0) for _ in range(2)]
    hard[1] *= 1 - hard[0]
    integers = [np.where(h > 0, 10**6, x) for h, x in zip(hard, (source, sink), strict=True)]
    flow, fewest, most = oracles.min_cut(*integers, (neighbor * 2.0**40).astype(int), EIGHT)
    assert fewest[hard[0] > 0].all()
    assert not most[hard[1] > 0].any()
    floats = [np.where(h > 0, seed, x / 2.0**40) for h, x in zip(hard, (source, sink), strict=True)]
    for minimal, wanted in ((True, fewest), (False, most)):
        found = solve(path, (floats[0], floats[1], neighbor), EIGHT, minimal=minimal)
        np.testing.assert_array_equal(found.labels, wanted)
        assert found.flow == flow / 2.0**40


# ---- large integers -------------------------------------------------------------------------------------


@pytest.mark.parametrize("factor", [2**28, 2**31, 2**40, 2**52])
def test_capacities_beyond_int32(path: Any, factor: int) -> None:
    problem = random_problem(np.random.default_rng(17), (6, 7), 4)
    flow, fewest, most = oracles.min_cut(*problem, FOUR)
    large = tuple(x * factor for x in problem)
    for minimal, wanted in ((True, fewest), (False, most)):
        found = solve(path, large, FOUR, minimal=minimal)
        assert found.flow == flow * factor
        np.testing.assert_array_equal(found.labels, wanted)


def test_seeds_beyond_int32_leave_the_edges_narrow(path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    problem = random_problem(np.random.default_rng(18), (6, 7), 8)
    source, sink = (np.where(x > 5, 2**45, x) for x in problem[:2])
    wanted = oracles.min_cut(np.minimum(source, 10**5), np.minimum(sink, 10**5), problem[2], EIGHT)
    if not path.runs_kernels:
        original = _cpu.solve

        def narrow(terminal: Any, residual: Any, *rest: Any) -> Any:
            assert terminal.dtype == residual.dtype == np.int32
            return original(terminal, residual, *rest)

        monkeypatch.setattr(_cpu, "solve", narrow)
    found = solve(path, (source, sink, problem[2]), EIGHT)
    np.testing.assert_array_equal(found.labels, wanted[1])


@pytest.mark.parametrize("capacity", [2**31 - 2, 2**31 - 1, 2**31, 2**30, 2**30 - 1])
def test_at_the_edge_of_int32(path: Any, capacity: int) -> None:
    """The residual of an edge reaches the sum of its two capacities."""
    source, sink = np.array([[capacity, 0, 5]]), np.array([[0, 3, capacity]])
    edges = np.full((2, 1, 3), capacity)
    found = solve(path, (source, sink, edges), FOUR[:2])
    assert found.flow == capacity + 3
    assert found.labels.tolist() == [[1, 1, 1]]


def test_flow_of_large_sums(cpu_path: Any) -> None:
    """2**62 in all is allowed, one more is not."""
    source = np.full((1, 2), 2**60)
    problem = source, source.copy(), np.zeros((2, 1, 2), int)
    assert solve(cpu_path, problem, FOUR[:2]).flow == 2**61
    problem[2][0, 0, 0] = 1
    with pytest.raises(ValueError, match=f"must have a sum of at most 2\\*\\*62 over each image, got {2**62 + 1}"):
        solve(cpu_path, problem, FOUR[:2])


# ---- batches, layouts, empty inputs, threads ------------------------------------------------------------


@pytest.mark.parametrize("lead", [(3,), (2, 2), (1, 0)])
@pytest.mark.parametrize("dtype", ["int32", "float32"])
def test_a_batch_is_a_loop(path: Any, lead: tuple[int, ...], dtype: str) -> None:
    rng = np.random.default_rng(19)
    source, sink = rng.integers(0, 9, (2, *lead, 5, 6))
    neighbor = rng.integers(0, 9, (*lead, 4, 5, 6))
    labels, flow = graph_cut(*(path.array(x, dtype) for x in (source, sink, neighbor)), offsets=FOUR)
    labels, flow = path.numpy(labels), path.numpy(flow)
    assert (labels.shape, flow.shape) == ((*lead, 5, 6), lead)
    for b in np.ndindex(*lead):
        one = solve(path, (source[b], sink[b], neighbor[b]), FOUR, dtype)
        assert one.flow == flow[b]
        np.testing.assert_array_equal(one.labels, labels[b])


@pytest.mark.parametrize("shape", [(0, 5), (5, 0), (0, 0), (2, 0, 4, 4), (0, 3, 3)])
@pytest.mark.parametrize("dtype", ["int32", "float64"])
def test_empty_images(path: Any, shape: tuple[int, ...], dtype: str) -> None:
    lead, size = shape[:-2], shape[-2:]
    zeros = [path.array(np.zeros(s), dtype) for s in (shape, shape, (*lead, 4, *size))]
    labels, flow = graph_cut(*zeros, offsets=FOUR)
    assert tuple(labels.shape) == shape
    assert path.numpy(flow).tolist() == np.zeros(lead).tolist()
    assert path.numpy(labels).dtype == np.int64
    assert path.numpy(flow).dtype == ("float64" if dtype == "float64" else "int64")


def test_arrays_of_any_strides_are_left_as_they_are(cpu_path: Any) -> None:
    rng = np.random.default_rng(20)
    problem = random_problem(rng, (9, 10), 4)
    wanted = oracles.min_cut(*problem, FOUR)
    strange = [cpu_path.array(np.repeat(x, 2, -1))[..., ::2] for x in problem]
    if cpu_path.is_numpy:
        strange[0] = strange[0][::-1].copy()[::-1]
        for x in strange:
            x.flags.writeable = False
    before = [cpu_path.numpy(x).copy() for x in strange]
    found = graph_cut(*strange, offsets=FOUR)
    assert int(found.flow) == wanted[0]
    np.testing.assert_array_equal(cpu_path.numpy(found.labels), wanted[1])
    for x, kept in zip(strange, before, strict=True):
        np.testing.assert_array_equal(cpu_path.numpy(x), kept)


def test_offsets_may_be_an_array(cpu_path: Any) -> None:
    problem = random_problem(np.random.default_rng(21), (5, 6), 4)
    arrays = [cpu_path.array(x) for x in problem]
    for offsets in (np.array(FOUR), [list(o) for o in FOUR], tuple(FOUR)):
        assert int(graph_cut(*arrays, offsets=offsets).flow) == oracles.min_cut(*problem, FOUR)[0]


def test_torch_needs_no_gradient() -> None:
    torch = pytest.importorskip("torch")
    arrays = [torch.rand(shape, requires_grad=True) for shape in ((4, 5), (4, 5), (4, 4, 5))]
    found = graph_cut(*arrays, offsets=FOUR)
    assert isinstance(found.labels, torch.Tensor)
    assert (found.labels.dtype, found.flow.dtype) == (torch.int64, torch.float64)
    assert not found.flow.requires_grad


def test_threads_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(22)
    source, sink = rng.integers(0, 50, (2, 7, 40, 50))
    neighbor = rng.integers(0, 50, (7, 8, 40, 50))
    found = []
    for cores in (1, 2, 3):
        monkeypatch.setattr(_threads, "cores", lambda cores=cores: cores)
        monkeypatch.setattr(_threads, "_pool", None)
        found += [graph_cut(source, sink, neighbor, offsets=EIGHT) for _ in range(2)]
        if _threads._pool:
            _threads._pool.shutdown()
    for other in found[1:]:
        np.testing.assert_array_equal(other.labels, found[0].labels)
        np.testing.assert_array_equal(other.flow, found[0].flow)


@pytest.mark.parametrize("shape", [(1, 64), (64, 1), (8, 8), (3, 100), (9, 7, 2), (1, 1, 5), (100, 2, 1), (5, 6, 7)])
def test_numbers_in_tiles(shape: tuple[int, ...]) -> None:
    """Each pixel has a number of its own, and its neighbours lie where the table of steps says, wherever it lies."""
    volume = (*[1] * (3 - len(shape)), *shape)
    steps = [(0, 0, 1), (0, 1, 0), (1, 0, 0), (1, -2, 3), (0, -20, 1)]
    tiles = _cpu._Tiles(volume, steps)
    excess = np.zeros(tiles.size, np.int64)
    planes = np.zeros((2, *volume), np.int64)
    places = np.arange(1, planes[0].size + 1).reshape(volume)
    _njit.compiled(*_loops.LOAD)(
        places, planes, tiles.shifts, tiles.counts, tiles.first, excess, np.zeros(2 * tiles.size, np.int64)
    )
    number = {int(value): p for p, value in enumerate(excess) if value}
    assert len(number) == places.size
    assert tiles.first <= min(number.values()) <= max(number.values()) < tiles.last
    assert tiles.nodes < 64 * (1 + places.size)
    table = tiles.step.reshape(64, len(steps), 2)
    for h, step in enumerate(steps):
        begin, end = oracles.grid_edges(volume, step)
        for a, b in zip(places[begin].ravel().tolist(), places[end].ravel().tolist(), strict=True):
            assert number[a] + table[number[a] % 64, h, 0] == number[b]
            assert number[b] + table[number[b] % 64, h, 1] == number[a]


@pytest.mark.skipif(sys.platform != "linux", reason="object files are used on Linux")
def test_the_loops_run_without_numba() -> None:
    problem = random_problem(np.random.default_rng(23), (5, 6), 4)
    for dtype in (np.int32, np.int64):
        graph_cut(*(x.astype(dtype) << (32 if dtype is np.int64 else 0) for x in problem), offsets=FOUR)
    for functions in (_loops.LOAD, _loops.SOLVE, _loops.STORE):
        entry = _njit.compiled(*functions)
        assert entry.ways
        assert not entry.refused


# ---- properties -----------------------------------------------------------------------------------------


@st.composite
def problems(draw: Any) -> tuple[Problem, list[tuple[int, ...]]]:
    """A small problem with any offsets."""
    dims = draw(st.integers(2, 3))
    shape = tuple(draw(st.integers(1, 9 if dims == 2 else 4)) for _ in range(dims))
    step = st.tuples(*[st.integers(-3, 3)] * dims).filter(any)
    offsets = draw(st.lists(step, min_size=1, max_size=8))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    top = draw(st.sampled_from([2, 3, 10, 10_000]))
    return random_problem(rng, shape, len(offsets), top, draw(st.floats(0.1, 1))), offsets


@settings(max_examples=60, deadline=None)
@given(problems())
def test_any_problem_is_solved(drawn: Any) -> None:
    assert_solved(PATHS["numpy"], *drawn)


@settings(max_examples=40, deadline=None)
@given(problems(), st.integers(0, 2**32))
def test_what_is_added_to_both_terminals_only_raises_the_flow(drawn: Any, seed: int) -> None:
    (source, sink, neighbor), offsets = drawn
    more = np.random.default_rng(seed).integers(0, 1000, source.shape)
    before, after = (solve(PATHS["numpy"], (source + a, sink + a, neighbor), offsets) for a in (0, more))
    assert after.flow == before.flow + more.sum()
    np.testing.assert_array_equal(after.labels, before.labels)


@settings(max_examples=40, deadline=None)
@given(problems(), st.integers(0, 2**32))
def test_more_source_never_loses_a_pixel(drawn: Any, seed: int) -> None:
    """Parametric cuts are nested, and the flow grows by at most what is added."""
    (source, sink, neighbor), offsets = drawn
    more = np.random.default_rng(seed).integers(0, 3, source.shape)
    for minimal in (True, False):
        less, larger = (
            solve(PATHS["numpy"], (source + a, sink, neighbor), offsets, minimal=minimal) for a in (0, more)
        )
        assert (less.labels <= larger.labels).all()
        assert less.flow <= larger.flow <= less.flow + more.sum()


# ---- refusals -------------------------------------------------------------------------------------------

T, N = np.ones((4, 5), np.int32), np.ones((4, 4, 5), np.int32)
TF, NF = T.astype(float), N.astype(float)


def spoiled(x: np.ndarray, value: Any) -> np.ndarray:
    """A copy with one value changed."""
    x = x.copy()
    x[..., 1, 1] = value
    return x


FLOATS = dict(source_capacity=TF, sink_capacity=TF, neighbor_capacity=NF)
STEP = "be a pair (dy, dx) or a triple (dz, dy, dx)"
BAD_INPUTS = [
    (dict(source_capacity=T.tolist()), TypeError, "source_capacity must be a NumPy, CuPy or torch array, got list"),
    (dict(sink_capacity=3), TypeError, "sink_capacity must be a NumPy, CuPy or torch array, got int"),
    (dict(neighbor_capacity=None), TypeError, "neighbor_capacity must be a NumPy, CuPy or torch array, got None"),
    (dict(source_capacity=T.astype(">i4")), TypeError, "source_capacity must be in native byte order, got >i4"),
    (dict(source_capacity=T > 0), TypeError, "source_capacity must have dtype int8 or int16 or int32"),
    (dict(sink_capacity=T.astype(complex)), TypeError, "sink_capacity must have dtype int8"),
    (dict(neighbor_capacity=N.astype(np.float16)), TypeError, "neighbor_capacity must have dtype int8"),
    (
        dict(sink_capacity=TF),
        TypeError,
        "the capacities must be all integers or all floats, got source_capacity is int32, sink_capacity is float64, neighbor_capacity is int32",
    ),
    (dict(neighbor_capacity=NF), TypeError, "the capacities must be all integers or all floats, got"),
    (dict(source_capacity=T[0]), ValueError, "source_capacity must have shape [..., H, W], got (5,)"),
    (dict(offsets=[(0, 0, 1)] * 4), ValueError, "source_capacity must have shape [..., D, H, W], got (4, 5)"),
    (
        dict(sink_capacity=T.T),
        ValueError,
        "sink_capacity must have shape [4, 5], got (5, 4); one for each of source_capacity",
    ),
    (dict(sink_capacity=T[None]), ValueError, "sink_capacity must have shape [4, 5], got (1, 4, 5)"),
    (
        dict(neighbor_capacity=N[:3]),
        ValueError,
        "neighbor_capacity must have shape [4, 4, 5], got (3, 4, 5); one plane for each of offsets",
    ),
    (dict(neighbor_capacity=N[:, 1:]), ValueError, "neighbor_capacity must have shape [4, 4, 5], got (4, 3, 5)"),
    (
        dict(offsets=None),
        TypeError,
        "offsets must be a sequence of pairs (dy, dx) or of triples (dz, dy, dx) of integers, got None",
    ),
    (dict(offsets=4), TypeError, "offsets must be a sequence of pairs"),
    (dict(offsets="4"), TypeError, "offsets must be a sequence of pairs"),
    (dict(offsets=[]), ValueError, "offsets must hold at least one step, got none"),
    (dict(offsets=[1, -1, 5, -5]), TypeError, f"offsets[0] must {STEP}, got 1"),
    (
        dict(offsets=[(0, 1), (0, 1, 0), (1, 0), (0, 1)]),
        ValueError,
        f"offsets[1] must {STEP}, all alike, got (0, 1, 0)",
    ),
    (dict(offsets=[(1,)] * 4), ValueError, f"offsets[0] must {STEP}, all alike, got (1,)"),
    (dict(offsets=[(0, 1), (0, 0), (1, 0), (0, 1)]), ValueError, "offsets[1] must lead to another pixel, got (0, 0)"),
    (dict(offsets=[(0, 1.0)] * 4), TypeError, "offsets[0] must be an integer, got 1.0 (float)"),
    (dict(offsets=[(0, True)] * 4), TypeError, "offsets[0] must be an integer, got True (bool)"),
    (dict(offsets=[(0, 2**31)] * 4), ValueError, "offsets[0] must be from -2147483647 to 2147483647, got 2147483648"),
    (
        dict(offsets=[(y, x) for y in range(1, 4) for x in range(11)]),
        ValueError,
        "offsets must make at most 32 pairs of opposite steps, got 33",
    ),
    (dict(offsets=np.array(3)), TypeError, "offsets must be a sequence of pairs"),
    (dict(offsets=[np.array(3)] * 4), TypeError, "offsets[0] must be a pair"),
    (dict(offsets=[b"ab"] * 4), TypeError, "offsets[0] must be a pair"),
    (dict(minimal=1), TypeError, "minimal must be True or False, got 1 (int)"),
    (dict(minimal=None), TypeError, "minimal must be True or False, got None (None)"),
    (dict(source_capacity=spoiled(T, -1)), ValueError, "source_capacity must not be negative, got -1"),
    (dict(sink_capacity=spoiled(T, -(2**31))), ValueError, "sink_capacity must not be negative, got -2147483648"),
    (dict(neighbor_capacity=spoiled(N, -7)), ValueError, "neighbor_capacity must not be negative, got -7"),
    (
        dict(source_capacity=spoiled(T.astype(np.int64), 2**62)),
        ValueError,
        "the capacities must have a sum of at most 2**62 over each image, got 4611686018427388005; scale them down",
    ),
    (
        dict(
            source_capacity=spoiled(T.astype(np.int64), 2**62),
            sink_capacity=T.astype(np.uint8),
            neighbor_capacity=N.astype(np.int8),
        ),
        ValueError,
        "the capacities must have a sum of at most 2**62 over each image, got 4611686018427388005",
    ),
    (
        dict(source_capacity=spoiled(T.astype(np.uint64), 2**64 - 1)),
        ValueError,
        "the capacities must have a sum of at most 2**62 over each image, got 18446744073709551716; scale them down",
    ),
    (
        FLOATS | dict(source_capacity=spoiled(TF, np.nan)),
        ValueError,
        "source_capacity must not be negative or NaN, got nan",
    ),
    (FLOATS | dict(sink_capacity=spoiled(TF, -0.5)), ValueError, "sink_capacity must not be negative or NaN, got -0.5"),
    (
        FLOATS | dict(neighbor_capacity=spoiled(NF, np.nan)),
        ValueError,
        "neighbor_capacity must not be negative or NaN, got nan",
    ),
    (
        FLOATS | dict(neighbor_capacity=spoiled(NF, -np.inf)),
        ValueError,
        "neighbor_capacity must not be negative or NaN, got -inf",
    ),
    (
        FLOATS | dict(neighbor_capacity=spoiled(NF, np.inf)),
        ValueError,
        "neighbor_capacity must be at most 2**960, got inf",
    ),
    (
        FLOATS | dict(sink_capacity=spoiled(TF, 1e300)),
        ValueError,
        "sink_capacity must be at most 2**960, or inf, got 1e+300",
    ),
    (
        FLOATS | dict(source_capacity=spoiled(TF, np.inf), sink_capacity=spoiled(TF, np.inf)),
        ValueError,
        "source_capacity and sink_capacity must not both be inf at a pixel, got inf at one",
    ),
    (
        FLOATS | dict(source_capacity=spoiled(TF + 1e300, np.inf), sink_capacity=spoiled(TF + 1e300, np.inf)[::-1]),
        ValueError,
        "source_capacity and sink_capacity must not both be above 2**960 at a pixel, got 1e+300",
    ),
]


@pytest.mark.parametrize(("change", "error", "message"), BAD_INPUTS)
def test_bad_input(change: dict[str, Any], error: type[Exception], message: str) -> None:
    arguments = {"source_capacity": T, "sink_capacity": T, "neighbor_capacity": N, "offsets": FOUR, **change}
    with pytest.raises(error) as raised:
        graph_cut(**arguments)
    assert str(raised.value).startswith(f"graph_cut: {message}")


def test_mixed_libraries() -> None:
    torch = pytest.importorskip("torch")
    with pytest.raises(TypeError, match="all arrays must be of one library and on one device"):
        graph_cut(torch.from_numpy(T), T, N, offsets=FOUR)
