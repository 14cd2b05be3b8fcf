"""The kernels of graph cuts against SciPy's maximum flow."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from cv3gpu import _array, _kernel
from cv3gpu.graphcut import _gpu

from . import oracles
from .hostrun import HostBackend

FOUR = ((0, 1), (1, 0))
EIGHT = (*FOUR, (1, 1), (1, -1))
SIXTEEN = (*EIGHT, (1, 2), (2, 1), (-1, 2), (-2, 1))
SIX = ((1, 0, 0), (0, 1, 0), (0, 0, 1))
TWENTY_SIX = tuple(tuple(x - 1 for x in o) for o in np.ndindex(3, 3, 3) if o > (1, 1, 1))
LONG = ((0, 40), (2, -3), (0, -1), (35, 1), (5, 31))


def only_inside(residual, offsets):
    """Capacities without those of edges that leave the grid."""
    kept = np.zeros_like(residual)
    for plane, offset in enumerate(both_ways(offsets)):
        begin, _ = oracles.grid_edges(residual.shape[2:], offset)
        kept[:, plane][(slice(None), *begin)] = residual[:, plane][(slice(None), *begin)]
    return kept


def both_ways(offsets):
    return [*offsets, *(tuple(-o for o in offset) for offset in offsets)]


def random_grid(rng, images, shape, offsets, dtype="int32", most=10, terminals=20, share=0.8):
    """Directed capacities up to ``most``, and terminals at a share of the pixels."""
    terminal = rng.integers(-terminals, terminals + 1, (images, *shape)) * (rng.random((images, *shape)) < share)
    residual = rng.integers(0, most + 1, (images, 2 * len(offsets), *shape))
    return terminal.astype(dtype), only_inside(residual.astype(dtype), offsets)


def solve(path, terminal, residual, offsets, minimal=True):
    labels, flow = _gpu.solve(path.array(terminal), path.array(np.array(residual)), offsets, minimal)
    labels, flow = path.numpy(labels), path.numpy(flow)
    assert labels.dtype == np.uint8 and labels.shape == terminal.shape
    assert flow.dtype == np.int64 and flow.shape == terminal.shape[:1]
    return labels, flow


def check(path, terminal, residual, offsets):
    """Flow and both cuts of each image, against SciPy."""
    wide = terminal.astype(np.int64)
    source, sink = np.maximum(wide, 0), np.maximum(-wide, 0)
    solver = _gpu._Solver(path.array(terminal), path.array(np.array(residual)), offsets)
    solver.flow()
    results = [[path.numpy(x) for x in solver.label(minimal)] for minimal in (False, True)]
    for b in range(len(terminal)):
        wanted, fewest, most = oracles.min_cut(source[b], sink[b], residual[b], both_ways(offsets))
        for (labels, flow), cut in zip(results, (most, fewest), strict=True):
            assert flow[b] == wanted
            np.testing.assert_array_equal(labels[b], cut)


@pytest.fixture
def fast_backend():
    """The CPU runner without checks of each access."""
    token = _array.host_backend.set(HostBackend(mode="fast", order="forward"))
    yield _array.host_backend.get()
    _array.host_backend.reset(token)


@pytest.mark.parametrize(("shape", "offsets", "images", "dtype"), [
    ((10, 70), FOUR, 1, "int32"),
    ((33, 31), FOUR, 2, "int64"),
    ((34, 35), EIGHT, 1, "int32"),
    ((18, 40), EIGHT, 1, "int64"),
    ((19, 34), SIXTEEN, 1, "int32"),
    ((10, 36), SIXTEEN, 1, "int64"),
    ((36, 41), LONG, 1, "int32"),
    ((3, 4, 34), SIX, 2, "int32"),
    ((3, 6, 9), TWENTY_SIX, 1, "int64"),
    ((3, 4, 40), ((0, 0, 1), (0, 1, -1), (2, -1, 33)), 1, "int32"),
], ids=lambda p: "x".join(map(str, p)) if isinstance(p, tuple) and isinstance(p[0], int) else None)  # fmt: skip
@pytest.mark.parametrize("kind", ["dense", "seeds"])
def test_random_grids(kernel_path, shape, offsets, images, dtype, kind):
    """Short paths, and long ones between few seeds."""
    rng = np.random.default_rng(len(offsets))
    options = {"dense": {}, "seeds": {"share": 0.02, "terminals": 400}}[kind]
    check(kernel_path, *random_grid(rng, images, shape, offsets, dtype, **options), offsets)


@pytest.mark.parametrize(("offsets", "itemsize", "slots", "rows"), [
    (FOUR, 4, 4, 32), (FOUR, 8, 4, 32), (EIGHT, 4, 8, 32), (EIGHT, 8, 8, 16), (SIXTEEN, 4, 16, 16), (SIXTEEN, 8, 16, 8),
    (SIX, 4, 4, 32), (TWENTY_SIX, 8, 8, 16), (((0, 31), (31, 0)), 4, 4, 32), (((0, 32), (32, 0)), 4, 0, 32),
    (tuple((1, x) for x in range(31)), 4, 42, 8), (tuple((1, x) for x in range(31)), 8, 20, 8),
])  # fmt: skip
def test_tiles_fit_in_shared_memory(offsets, itemsize, slots, rows):
    table, found, found_rows = _gpu._table(offsets, (90, 90, 90), itemsize)
    assert (found, found_rows) == (slots, rows)
    assert rows * 33 * (12 + slots * itemsize) <= 48 << 10
    assert len(table) == 2 * len(offsets) and sorted(table[:, 4]) == list(range(len(table)))
    np.testing.assert_array_equal(table[::2, :3], -table[1::2, :3])
    used = table[table[:, 3] >= 0]
    assert sorted(used[:, 3]) == list(range(slots))
    np.testing.assert_array_equal(used[::2, 3] ^ 1, used[1::2, 3])


def test_moves_without_room_in_shared_memory(kernel_path):
    """31 pairs of steps in int64, of which ten get slots."""
    offsets = tuple((1, x) for x in range(31))
    check(kernel_path, *random_grid(np.random.default_rng(5), 1, (6, 34), offsets, "int64", most=3), offsets)


# ---- hostile grids --------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(1, 1), (1, 70), (70, 1), (2, 33), (1, 1, 1), (40, 1, 1)])
def test_thin_grids(kernel_path, shape):
    offsets = SIX if len(shape) == 3 else EIGHT
    check(kernel_path, *random_grid(np.random.default_rng(0), 2, shape, offsets), offsets)


def test_no_edge_within_the_grid(kernel_path):
    terminal, residual = random_grid(np.random.default_rng(1), 2, (3, 5), ((3, 0), (0, 7)))
    check(kernel_path, terminal, residual, ((3, 0), (0, 7)))


@pytest.mark.parametrize("value", [-3, 0, 3])
def test_terminals_all_alike(kernel_path, value):
    """All at the sink, none at all, all at the source: no flow; free pixels are on either side."""
    residual = random_grid(np.random.default_rng(2), 1, (35, 34), FOUR)[1]
    for minimal in (True, False):
        labels, flow = solve(kernel_path, np.full((1, 35, 34), value, np.int32), residual, FOUR, minimal)
        assert flow == 0 and (labels == (value > 0 or (value == 0 and not minimal))).all()


def test_parts_without_a_way_between_them(kernel_path):
    terminal, residual = random_grid(np.random.default_rng(3), 1, (34, 66), FOUR)
    residual[:, :, :, 20:24] = 0
    residual[:, :, 11] = 0
    check(kernel_path, terminal, only_inside(residual, FOUR), FOUR)


def test_capacities_at_the_end_of_int32(kernel_path):
    """A pixel holds more than an int32, and both directions of an edge add up to the largest one."""
    most = 2**31 - 1
    terminal = np.full((1, 3, 34), most, np.int32)
    terminal[0, 1, 1], terminal[0, 1, 33] = 0, -most
    residual = only_inside(np.full((1, 8, 3, 34), most // 2, np.int32), EIGHT)
    residual[0, 0, 1, 31] = most  # into the next tile, and nothing back
    residual[0, 4, 1, 32] = 0
    flows = []
    for minimal in (True, False):
        labels, flow = solve(kernel_path, terminal, residual, EIGHT, minimal)
        x = labels[0].astype(bool)
        wide = terminal[0].astype(np.int64)
        cut = oracles.cut_energy(
            x, np.maximum(wide, 0), np.maximum(-wide, 0), residual[0].astype(np.int64), both_ways(EIGHT)
        )
        assert cut == flow
        flows.append(int(flow[0]))
    assert flows[0] == flows[1] == most


def test_capacities_far_above_int32(kernel_path):
    """A grid times 2^50 has the same cuts and the flow times 2^50."""
    terminal, residual = random_grid(np.random.default_rng(4), 1, (10, 34), EIGHT, "int64")
    for minimal in (True, False):
        labels, flow = solve(kernel_path, terminal, residual, EIGHT, minimal)
        large_labels, large_flow = solve(kernel_path, terminal << 50, residual << 50, EIGHT, minimal)
        np.testing.assert_array_equal(large_labels, labels)
        assert large_flow == flow << 50 and flow > 0


def serpentine(rows, cols, back):
    """One way through all pixels, row after row to and fro, from a source to a sink; ``back`` of it the other way."""
    terminal, residual = np.zeros((1, rows, cols), np.int32), np.zeros((1, 4, rows, cols), np.int32)
    residual[0, 0, ::2, :-1], residual[0, 2, ::2, 1:] = 5, back
    residual[0, 2, 1::2, 1:], residual[0, 0, 1::2, :-1] = 5, back
    for row in range(rows - 1):
        col = 0 if row % 2 else cols - 1
        residual[0, 1, row, col], residual[0, 3, row + 1, col] = 5, back
    terminal[0, 0, 0], terminal[0, rows - 1, 0 if rows % 2 == 0 else cols - 1] = 7, -6
    return terminal, residual


@pytest.mark.parametrize("back", [0, 2])
def test_one_long_way(kernel_path, back):
    terminal, residual = serpentine(66, 5, back)
    check(kernel_path, terminal, residual, FOUR)
    for minimal in (True, False):
        assert solve(kernel_path, terminal, residual, FOUR, minimal)[1] == 5
    residual[0, :, 40] = 0
    assert solve(kernel_path, terminal, residual, FOUR)[1] == 0


# ---- batches and launches -------------------------------------------------------------------------------


def test_images_of_a_batch_do_not_meet(kernel_path):
    """Images that end in different cycles have the results that they have alone."""
    rng = np.random.default_rng(6)
    grids = [random_grid(rng, 1, (66, 5), FOUR), serpentine(66, 5, 1), random_grid(rng, 1, (66, 5), FOUR, share=0.03),
             random_grid(rng, 1, (66, 5), FOUR, most=0)]  # fmt: skip
    terminal, residual = (np.concatenate(x) for x in zip(*grids, strict=True))
    for minimal in (True, False):
        labels, flow = solve(kernel_path, terminal, residual, FOUR, minimal)
        for b, grid in enumerate(grids):
            alone = solve(kernel_path, *grid, FOUR, minimal)
            np.testing.assert_array_equal(labels[b : b + 1], alone[0])
            assert flow[b] == alone[1]


@pytest.mark.parametrize("setting", [{"_SWEEPS": 1, "_ROUNDS": 1}, {"_SEARCHES": 1}, {"_BLOCKS": 1}, {"_SWEEPS": 60}])
def test_how_work_is_cut_up_does_not_matter(kernel_path, monkeypatch, setting):
    for name, value in setting.items():
        monkeypatch.setattr(_gpu, name, value)
    rng = np.random.default_rng(7)
    check(kernel_path, *random_grid(rng, 2, (9, 34), EIGHT, share=0.1, terminals=60), EIGHT)
    check(kernel_path, *serpentine(2, 70, 1), FOUR)


def test_any_schedule_gives_the_same_bits():
    """Not only the cut, which is unique, but all that the kernels leave behind."""
    rng = np.random.default_rng(8)
    grid, volume = random_grid(rng, 1, (33, 35), EIGHT, share=0.1, terminals=60), random_grid(rng, 2, (2, 9, 5), SIX)
    found = []
    for order, seed, preempt in (("forward", 1, 0), ("reverse", 1, 0), ("random", 3, 7)):
        token = _array.host_backend.set(HostBackend(mode="check", order=order, seed=seed, preempt=preempt))
        try:
            states = []
            for (terminal, residual), offsets in ((grid, EIGHT), (volume, SIX)):
                solver = _gpu._Solver(terminal, np.array(residual), offsets)
                solver.flow()
                states += [solver.excess, solver.residual, solver.level, *solver.label(True), solver.searches.round]
            found.append(states)
        finally:
            _array.host_backend.reset(token)
    for run in found[1:]:
        for got, wanted in zip(run, found[0], strict=True):
            np.testing.assert_array_equal(got, wanted)


def test_inputs_by_columns(kernel_path):
    """Arrays that are not dense are copied, and terminals are left as they were."""
    terminal, residual = random_grid(np.random.default_rng(9), 1, (20, 34), FOUR)
    wanted = solve(kernel_path, terminal, residual, FOUR)
    given = kernel_path.array(terminal.transpose(0, 2, 1).copy())
    flipped = kernel_path.permuted(given, 0, 2, 1)
    labels, flow = _gpu.solve(flipped, kernel_path.array(np.array(residual)), FOUR, True)
    np.testing.assert_array_equal(kernel_path.numpy(labels), wanted[0])
    np.testing.assert_array_equal(kernel_path.numpy(flow), wanted[1])
    np.testing.assert_array_equal(kernel_path.numpy(flipped), terminal)


def test_torch_tensors(host_backend):
    torch = pytest.importorskip("torch")
    terminal, residual = random_grid(np.random.default_rng(10), 2, (9, 34), EIGHT)
    wanted = _gpu.solve(terminal, np.array(residual), EIGHT, True)
    found = _gpu.solve(torch.from_numpy(terminal), torch.from_numpy(residual), EIGHT, True)
    for got, want in zip(found, wanted, strict=True):
        assert _array.family(got) == "torch"
        np.testing.assert_array_equal(got.numpy(), want)


def smooth_image(rng, shape):
    """A disc under noise."""
    y, x = np.mgrid[: shape[0], : shape[1]]
    inside = np.hypot(y / shape[0] - 0.5, x / shape[1] - 0.5) < 0.3
    terminal = np.round(rng.normal(np.where(inside, 30, -30), 60)).astype(np.int32)[None]
    edge = 40 + rng.integers(0, 20, shape)
    residual = only_inside(np.broadcast_to(edge.astype(np.int32), (1, 4, *shape)), FOUR)
    return terminal, residual


def test_launches_are_few(fast_backend, monkeypatch):
    """An image with region terms, 5 x 4 tiles: pushes end after a few rounds, searches after a few tiles."""
    names = Counter()
    launch = _kernel.Kernel.__call__

    def counted(self, *args, **kwargs):
        names[self.name] += 1
        launch(self, *args, **kwargs)

    monkeypatch.setattr(_kernel.Kernel, "__call__", counted)
    terminal, residual = smooth_image(np.random.default_rng(11), (130, 150))
    labels, _ = _gpu.solve(terminal, residual, FOUR, True)
    assert 0.1 < labels.mean() < 0.5
    cycles = names["cut_mark"] - 1
    assert 2 <= cycles <= 8
    assert names["cut_sweep"] == names["cut_exchange"] == _gpu._ROUNDS * names["cut_collect"]
    assert names["cut_collect"] <= cycles + 2
    assert names["cut_search"] <= 8 * names["cut_mark"]
    assert names["cut_label"] == 1


# ---- refusals -------------------------------------------------------------------------------------------


def test_too_large_images_are_refused(kernel_path):
    like = kernel_path.array(np.zeros((1, 1, 1), "int32"))
    spread = (lambda x, s: x.expand(s)) if kernel_path.is_torch else _array.module(like).broadcast_to
    with pytest.raises(
        ValueError,
        match=r"graph_cut: source_capacity must have fewer than 2\^30 pixels an image .* got \(1, 32768, 32768\)",
    ):
        _gpu.solve(spread(like, (1, 2**15, 2**15)), spread(like[None], (1, 4, 2**15, 2**15)), FOUR, True)
    with pytest.raises(ValueError, match=r"2\^31 tiles of 32 x 32 pixels on a GPU, got \(4194304, 1024, 512\)"):
        _gpu.solve(spread(like, (2**22, 2**10, 2**9)), spread(like[None], (2**22, 4, 2**10, 2**9)), FOUR, True)


def test_work_without_end_is_an_error(host_backend, monkeypatch):
    """Never a loop for ever: not with excess that stays, and not with a search that goes on."""
    terminal, residual = serpentine(3, 4, 0)
    monkeypatch.setattr(_gpu, "_most_cycles", lambda nodes: 1)
    with pytest.raises(
        RuntimeError, match="graph_cut: excess was left after 1 cycles, which is a fault of the kernels"
    ):
        _gpu.solve(terminal, np.array(residual), FOUR, True)
    monkeypatch.setattr(_gpu._Solver, "ask", lambda self: (0, 0))
    with pytest.raises(RuntimeError, match="graph_cut: a search went on for longer than any path"):
        _gpu.solve(terminal, np.array(residual), FOUR, True)
