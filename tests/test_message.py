"""Steps of message passing: against the plain formula in torch's float64 and its gradients, on every path."""

from __future__ import annotations

import tracemalloc
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cv3gpu import _array, _njit, message
from cv3gpu.message import (
    MessageGraph,
    _loops,
    edge_step,
    edge_step_vjp,
    join_windows,
    message_graph,
    message_sums,
    message_sums_vjp,
    node_step,
    node_step_vjp,
)

torch = pytest.importorskip("torch")

# Of the largest number of a result. 16-bit results are rounded once, or, where an edge has two messages, twice.
TOLERANCE = {"float64": 1e-11, "float32": 2e-5, "float16": 2.0**-9, "bfloat16": 2.0**-6}


class Case(NamedTuple):
    """Channels of nodes, initial states and edges; hidden units of edges and of messages; a message's numbers."""

    pairs: list[tuple[int, int]]
    nodes: int
    channels: tuple[int, int, int]
    hidden: tuple[int, int]
    outputs: int
    undirected: bool = False
    plain: bool = False


def random_pairs(rng: np.random.Generator, nodes: int, count: int) -> list[tuple[int, int]]:
    """Different pairs, the earlier node first, in any order."""
    every = [(i, j) for i in range(nodes) for j in range(i + 1, nodes)]
    return [every[k] for k in rng.permutation(len(every))[:count]]


PUBLISHED = (32, 16, 16), (80, 56), 32
FRAMES = [[0, 1], [2, 3, 4], [], [5, 6], [7]]  # numbers of nodes by frame; one has none
GAPS = [(i, j) for a in range(5) for b in range(a + 1, 5) for i in FRAMES[a] for j in FRAMES[b]]
CASES = {
    "published": Case(random_pairs(np.random.default_rng(1), 9, 20), 9, *PUBLISHED),
    "half as wide, states of pairs": Case(
        random_pairs(np.random.default_rng(2), 8, 19), 8, (16, 8, 8), (40, 28), 16, True
    ),
    "odd widths": Case(random_pairs(np.random.default_rng(3), 7, 20), 7, (3, 2, 5), (7, 9), 3),
    "plain": Case(random_pairs(np.random.default_rng(4), 7, 17), 7, (5, 3, 4), (11, 6), 5, plain=True),
    "plain, states of pairs": Case(random_pairs(np.random.default_rng(5), 7, 9), 7, (4, 1, 4), (8, 8), 4, True, True),
    "no initial state, single units": Case([(0, 1), (0, 2), (1, 2)], 3, (1, 0, 1), (1, 1), 1),
    "isolated nodes": Case([(1, 4), (4, 6)], 9, (4, 3, 4), (9, 5), 6),
    "many edges at one node": Case([(0, j) for j in range(1, 71)], 73, (4, 2, 3), (6, 5), 4),
    "frames with gaps": Case(GAPS, 8, (6, 2, 3), (10, 7), 4),
    "one frame": Case([], 4, (4, 3, 4), (9, 5), 6),
    "no nodes": Case([], 0, (4, 3, 4), (9, 5), 6),
}


class Given(NamedTuple):
    """Inputs in float64: the arrays of a step, each list the weights of a network."""

    ends: np.ndarray
    nodes: np.ndarray
    initial: np.ndarray
    edges: np.ndarray
    weights: list[np.ndarray]
    past: list[np.ndarray]
    future: list[np.ndarray] | None
    update: list[np.ndarray]
    by_edges: np.ndarray
    by_sums: np.ndarray
    by_nodes: np.ndarray


def held(values: np.ndarray, dtype: str) -> np.ndarray:
    """The numbers rounded to the dtype, as float64."""
    return torch.from_numpy(np.asarray(values)).to(getattr(torch, dtype)).double().numpy()


def inputs(case: Case, dtype: str, seed: int = 0) -> Given:
    rng = np.random.default_rng(seed)
    ends = np.array(case.pairs, np.int64).reshape(-1, 2).T
    if not case.undirected:
        ends = np.concatenate([ends, ends[::-1]], 1)
        ends = ends[:, rng.permutation(ends.shape[1])]
    (cn, c0, ce), (h, hm), s, count = case.channels, case.hidden, case.outputs, ends.shape[1]

    def array(*shape: int) -> np.ndarray:
        return held(rng.standard_normal(shape), dtype)

    def network(inputs: int, hidden: int, outputs: int) -> list[np.ndarray]:
        w1, w2 = array(hidden, inputs) / inputs**0.5, array(outputs, hidden) / hidden**0.5
        return [held(w1, dtype), array(hidden), held(w2, dtype), array(outputs)]

    streams = 1 if case.plain else 2
    return Given(
        ends, array(case.nodes, cn), array(count, c0), array(count, ce), network(2 * cn + c0 + ce, h, ce),
        network(cn + ce, hm, s), None if case.plain else network(cn + ce, hm, s),
        [array(cn, s * streams), array(cn)], array(count, ce), array(case.nodes, s * streams), array(case.nodes, cn),
    )  # fmt: skip


# ---- the formula, in torch ------------------------------------------------------------------------------


def leaves(x: Any) -> Any:
    """As tensors that want gradients."""
    if x is None:
        return None
    return [leaves(y) for y in x] if isinstance(x, list) else torch.from_numpy(np.array(x)).requires_grad_()


def network(x: Any, weights: Any) -> Any:
    w1, b1, w2, b2 = weights
    return torch.relu(torch.relu(x @ w1.T + b1) @ w2.T + b2)


def formula_of_edges(ends: np.ndarray, nodes: Any, initial: Any, edges: Any, weights: Any) -> Any:
    row, col = torch.from_numpy(np.array(ends))
    return network(torch.cat([nodes[row], nodes[col], initial, edges], 1), weights)


def formula_of_sums(ends: np.ndarray, undirected: bool, nodes: Any, edges: Any, past: Any, future: Any) -> Any:
    row, col = torch.from_numpy(np.array(ends))
    number = torch.arange(len(row))
    if undirected:
        row, col, number = torch.cat([row, col]), torch.cat([col, row]), torch.cat([number, number])
    sums = []
    for which, weights in ((col < row, past), (col > row, future or past)):
        messages = network(torch.cat([nodes[col[which]], edges[number[which]]], 1), weights)
        sums.append(nodes.new_zeros(len(nodes), messages.shape[1]).index_add(0, row[which], messages))
    return torch.cat(sums, 1) if future else sums[0] + sums[1]


def flat(*parts: Any) -> list[Any]:
    """Arrays of arrays and lists, without those that are None."""
    return [x for part in parts if part is not None for x in (part if isinstance(part, list | tuple) else [part])]


def formula(case: Case, x: Given) -> dict[str, list[np.ndarray]]:
    """Results and gradients of the three steps."""
    found = {}

    def run(name: str, grad: np.ndarray, result: Any, wanted: list[Any]) -> None:
        result.backward(torch.from_numpy(grad))
        found[name] = [result.detach().numpy()]
        found[f"{name} backward"] = [np.zeros(t.shape) if t.grad is None else t.grad.numpy() for t in wanted]

    nodes, initial, edges, weights = map(leaves, (x.nodes, x.initial, x.edges, x.weights))
    given = nodes, initial, edges, weights
    run("edge_step", x.by_edges, formula_of_edges(x.ends, *given), flat(*given))
    nodes, edges, past, future, update = map(leaves, (x.nodes, x.edges, x.past, x.future, x.update))
    given = nodes, edges, past, future
    run("message_sums", x.by_sums, formula_of_sums(x.ends, case.undirected, *given), flat(*given))
    nodes, edges, past, future, update = map(leaves, (x.nodes, x.edges, x.past, x.future, x.update))
    given = nodes, edges, past, future
    z = torch.relu(formula_of_sums(x.ends, case.undirected, *given) @ update[0].T + update[1])
    run("node_step", x.by_nodes, z, flat(*given, update))
    return found


def ours(path: Any, case: Case, x: Given, dtype: str) -> dict[str, list[Any]]:
    """The same by the operators."""

    def array(values: Any) -> Any:
        if values is None:
            return None
        return [array(v) for v in values] if isinstance(values, list) else path.array(values, dtype)

    nodes, initial, edges, weights, past, future, update, by_edges, by_sums, by_nodes = map(array, x[1:])
    graph = message_graph(path.array(x.ends), case.nodes, undirected=case.undirected)
    given = nodes, edges, past, future
    out = edge_step(nodes, initial, edges, weights, graph)
    new = node_step(*given, update, graph)
    return {
        "edge_step": [out],
        "edge_step backward": flat(*edge_step_vjp(by_edges, out, nodes, initial, edges, weights, graph)),
        "message_sums": [message_sums(*given, graph)],
        "message_sums backward": flat(*message_sums_vjp(by_sums, *given, graph)),
        "node_step": [new],
        "node_step backward": flat(*node_step_vjp(by_nodes, new, *given, update, graph)),
    }


def compare(path: Any, case: Case, dtype: str, names: tuple[str, ...] = ()) -> None:
    x = inputs(case, dtype)
    want, got = formula(case, x), ours(path, case, x, dtype)
    for name in names or want:
        assert len(got[name]) == len(want[name])
        for place, (a, b) in enumerate(zip(got[name], want[name], strict=True)):
            assert _array.dtype_name(a) == dtype and tuple(a.shape) == b.shape
            error = np.abs(path.numpy(a).astype(np.float64) - b).max(initial=0)
            assert error <= TOLERANCE[dtype] * max(np.abs(b).max(initial=0), 0.1), f"{name}, {place}: {error}"


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", list(CASES))
def test_agrees_with_the_formula(path: Any, name: str, dtype: str) -> None:
    if path.name == "host" and dtype == "float64" and name == "published":
        pytest.skip("the same kernels as of other widths, and slow on a CPU")
    compare(path, CASES[name], dtype)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_sixteen_bits(path: Any, dtype: str) -> None:
    """Widths that tensor cores take, of one network and of two, and others that they do not."""
    narrow = Case(random_pairs(np.random.default_rng(9), 8, 22), 8, (4, 2, 6), (10, 6), 4)
    wide = Case(GAPS, 8, (6, 14, 20), (24, 18), 20, plain=True)
    for case in (CASES["odd widths"], narrow, wide, narrow._replace(undirected=True)):
        compare(path, case, dtype, ("edge_step", "edge_step backward", "message_sums", "message_sums backward"))


def test_tensor_cores_in_whole_tiles(kernel_path: Any) -> None:
    """Of the published widths, and more rows than a block does at a time."""
    case = Case(random_pairs(np.random.default_rng(10), 20, 180), 20, *PUBLISHED)
    x = inputs(case, "bfloat16")
    x = x._replace(nodes=x.nodes / 4)
    want = formula(case, x)
    nodes, initial, edges = (kernel_path.array(a, "bfloat16") for a in (x.nodes, x.initial, x.edges))
    weights, past, future = ([kernel_path.array(a, "bfloat16") for a in k] for k in x[4:7])
    graph = message_graph(kernel_path.array(x.ends), 20)
    assert message._gpu._tensor_cores(nodes, [], 32, 80, 16) and message._gpu._tensor_cores(nodes, [], 16, 56, 32)
    got = {"edge_step": edge_step(nodes, initial, edges, weights, graph)}
    got["message_sums"] = message_sums(nodes, edges, past, future, graph)
    for name, array in got.items():
        off = np.abs(kernel_path.numpy(array) - want[name][0]).max() / np.abs(want[name][0]).max()
        assert off < TOLERANCE["bfloat16"], f"{name}: {off}"


def test_small_tiles(kernel_path: Any) -> None:
    """Of layers with which 64 rows would not fit in shared memory."""
    case = Case(random_pairs(np.random.default_rng(8), 5, 7), 5, (2, 1, 2), (300, 310), 2)
    graph = message_graph(kernel_path.array(inputs(case, "float32").ends), 5)
    assert message._gpu._launch("edge_step_vjp", kernel_path.array(np.zeros(1, np.float32)), 600, graph).tile == 16
    compare(kernel_path, case, "float32")


def test_large_layers_are_refused(host_backend: Any) -> None:
    graph = message_graph(np.array([[0, 1], [1, 0]]), 2)
    weights = np.zeros((4000, 4)), np.zeros(4000), np.zeros((1, 4000)), np.zeros(1)
    with pytest.raises(
        ValueError, match=r"^edge_step: weights must be of layers whose tile of 16 rows fits in \d+ bytes"
    ):
        edge_step(np.zeros((2, 1)), np.zeros((2, 1)), np.zeros((2, 1)), weights, graph)


# ---- properties -----------------------------------------------------------------------------------------


@settings(max_examples=25, deadline=None, derandomize=True)
@given(st.integers(0, 2**31), st.booleans(), st.booleans())
def test_any_graph(seed: int, undirected: bool, plain: bool) -> None:
    rng = np.random.default_rng(seed)
    nodes = int(rng.integers(2, 12))
    pairs = random_pairs(rng, nodes, int(rng.integers(0, 40)))
    cn, c0, ce, h, hm, s = (int(k) for k in rng.integers(1, 21, 6))
    from tests.conftest import PATHS

    compare(PATHS["numpy"], Case(pairs, nodes, (cn, c0, ce), (h, hm), s, undirected, plain), "float64")


def large(dtype: str = "float32", undirected: bool = False) -> tuple[Case, Given]:
    """Of more edges than one part of a gradient's sum."""
    case = Case(random_pairs(np.random.default_rng(6), 160, 9000), 160, (8, 4, 4), (12, 10), 6, undirected)
    return case, inputs(case, dtype)


def test_same_bits(cpu_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    case, x = large()
    first = ours(cpu_path, case, x, "float32")
    for cores in [1, 2, 3, *[message._cpu.cores()] * 17]:
        monkeypatch.setattr(message._cpu, "cores", lambda cores=cores: cores)
        again = ours(cpu_path, case, x, "float32")
        for name, arrays in first.items():
            for one, other in zip(arrays, again[name], strict=True):
                np.testing.assert_array_equal(cpu_path.numpy(one), cpu_path.numpy(other))


@pytest.mark.parametrize("undirected", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_gradients_of_many_edges(dtype: str, undirected: bool) -> None:
    from tests.conftest import PATHS

    case, x = large(dtype, undirected)
    want, got = formula(case, x), ours(PATHS["numpy"], case, x, dtype)
    for name, arrays in want.items():
        for one, other in zip(got[name], arrays, strict=True):
            error = np.linalg.norm(one - other) / np.linalg.norm(other)
            assert error < (1e-4 if dtype == "float32" else 1e-8) / 10, name


def test_kernels_give_the_same_bits(kernel_path: Any) -> None:
    case = CASES["odd widths"]
    x = inputs(case, "float32")
    first, again = (ours(kernel_path, case, x, "float32") for _ in range(2))
    for name, arrays in first.items():
        for one, other in zip(arrays, again[name], strict=True):
            np.testing.assert_array_equal(kernel_path.numpy(one), kernel_path.numpy(other))


def test_windows_are_one_graph(path: Any) -> None:
    cases = [
        CASES[name]._replace(channels=(3, 2, 4), hidden=(7, 5), outputs=3)
        for name in ("odd widths", "one frame", "isolated nodes")
    ]
    given = [inputs(case, "float64", seed) for seed, case in enumerate(cases)]
    weights = given[0]
    ends, count = join_windows([path.array(x.ends) for x in given], [case.nodes for case in cases])
    graph = message_graph(ends, count)

    def steps(nodes: np.ndarray, initial: np.ndarray, edges: np.ndarray, graph: MessageGraph) -> list[np.ndarray]:
        nodes, initial, edges = (path.array(a) for a in (nodes, initial, edges))
        w, past, future, update = ([path.array(a) for a in k] for k in weights[4:8])
        new = edge_step(nodes, initial, edges, w, graph)
        return [path.numpy(new), path.numpy(node_step(nodes, new, past, future, update, graph))]

    together = steps(
        *(np.concatenate([getattr(x, name) for x in given]) for name in ("nodes", "initial", "edges")), graph
    )
    alone = [
        steps(x.nodes, x.initial, x.edges, message_graph(path.array(x.ends), case.nodes))
        for x, case in zip(given, cases, strict=True)
    ]
    for one, parts in zip(together, zip(*alone, strict=True), strict=True):
        np.testing.assert_allclose(one, np.concatenate(parts), rtol=1e-12, atol=1e-12)


def test_pairs_with_one_state() -> None:
    case = CASES["half as wide, states of pairs"]
    x = inputs(case, "float64")
    both = np.concatenate([x.ends, x.ends[::-1]], 1)
    once = message_sums(x.nodes, x.edges, x.past, x.future, message_graph(x.ends, case.nodes, undirected=True))
    twice = message_sums(x.nodes, np.concatenate([x.edges, x.edges]), x.past, x.future, message_graph(both, case.nodes))
    np.testing.assert_allclose(once, twice, rtol=1e-13)


def test_time_in_place_of_numbers(path: Any) -> None:
    ends = np.array([[0, 2, 1, 3], [2, 0, 3, 1]])
    time = np.array([30.0, 10.0, 20.0, 40.0])  # the nodes' order in time is 1, 2, 0, 3
    graph = message_graph(path.array(ends), 4, time=path.array(time))
    start = path.numpy(graph.received_start)
    assert path.numpy(graph.received_from)[: start[4]].tolist() == [2, 1]  # to nodes 0 and 3
    assert path.numpy(graph.received_from)[start[4] :].tolist() == [3, 0]  # to nodes 1 and 2
    assert graph.n_nodes == 4 and graph.n_edges == 4


def test_graph_holds_each_message_once() -> None:
    case, x = large()
    graph = message_graph(x.ends, case.nodes)
    assert all(array.dtype == np.int32 for array in graph)
    for order, other, own in ((graph.received, graph.received_from, 0), (graph.sent, graph.sent_to, 1)):
        np.testing.assert_array_equal(np.sort(order), np.arange(x.ends.shape[1]))
        np.testing.assert_array_equal(other, x.ends[1 - own][order])
        start = (graph.received_start, graph.sent_start)[own]
        node = np.repeat(np.tile(np.arange(case.nodes), 2), np.diff(start))
        np.testing.assert_array_equal(node, x.ends[own][order])
        later = np.arange(len(order)) >= start[case.nodes]  # the sender
        np.testing.assert_array_equal(x.ends[1][order] > x.ends[0][order], later)


def test_nan_passes(cpu_path: Any) -> None:
    case = CASES["odd widths"]
    x = inputs(case, "float64")
    x.edges[3] = np.nan
    out = ours(cpu_path, case, x, "float64")
    assert np.isnan(cpu_path.numpy(out["edge_step"][0])).all(1).nonzero()[0].tolist() == [3]
    assert np.isnan(cpu_path.numpy(out["node_step"][0])).any(1).sum() == 1


def test_no_array_of_hidden_layers() -> None:
    case = Case(random_pairs(np.random.default_rng(7), 150, 10_000), 150, *PUBLISHED)
    x = inputs(case, "float32")
    nodes, initial, edges = (a.astype(np.float32) for a in (x.nodes, x.initial, x.edges))
    weights, past, future, update = ([a.astype(np.float32) for a in k] for k in x[4:8])
    graph = message_graph(x.ends, case.nodes)
    node_step(nodes, edge_step(nodes, initial, edges, weights, graph), past, future, update, graph)  # loads the loops
    tracemalloc.start()
    new = edge_step(nodes, initial, edges, weights, graph)
    node_step(nodes, new, past, future, update, graph)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < new.nbytes + 20_000 * 80 * 4 / 10


@pytest.mark.parametrize("name", ["half as wide, states of pairs", "odd widths", "plain, states of pairs"])
def test_loops_as_plain_python(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.conftest import PATHS

    monkeypatch.setattr(_njit, "compiled", lambda *functions: functions[-1])
    compare(PATHS["numpy"], CASES[name], "float64")
    assert _loops.TILE % _loops.ROWS == 0


# ---- refusals -------------------------------------------------------------------------------------------


def arguments() -> dict[str, Any]:
    """What all steps take: 3 nodes of 2 channels, 4 edges of 3, initial states of 1."""
    weights = [np.zeros((5, 8)), np.zeros(5), np.zeros((3, 5)), np.zeros(3)]
    past = [np.zeros((4, 5)), np.zeros(4), np.zeros((2, 4)), np.zeros(2)]
    return {
        "nodes": np.zeros((3, 2)), "initial": np.zeros((4, 1)), "edges": np.zeros((4, 3)), "weights": weights,
        "past": past, "future": [a.copy() for a in past], "update": [np.zeros((2, 4)), np.zeros(2)],
        "graph": message_graph(np.array([[0, 1, 1, 2], [1, 0, 2, 1]]), 3), "edge_grad": np.zeros((4, 3)),
        "output": np.zeros((4, 3)), "sum_grad": np.zeros((3, 4)), "node_grad": np.zeros((3, 2)),
        "node_output": np.zeros((3, 2)),
    }  # fmt: skip


NAMES = {
    "edge_step": (edge_step, ("nodes", "initial", "edges", "weights", "graph")),
    "edge_step_vjp": (edge_step_vjp, ("edge_grad", "output", "nodes", "initial", "edges", "weights", "graph")),
    "message_sums": (message_sums, ("nodes", "edges", "past", "future", "graph")),
    "message_sums_vjp": (message_sums_vjp, ("sum_grad", "nodes", "edges", "past", "future", "graph")),
    "node_step": (node_step, ("nodes", "edges", "past", "future", "update", "graph")),
    "node_step_vjp": (
        node_step_vjp, ("node_grad", "node_output", "nodes", "edges", "past", "future", "update", "graph")
    ),
}  # fmt: skip


def at(place: int, array: np.ndarray) -> Any:
    """Weights with one array replaced."""
    return lambda given: [*given[:place], array, *given[place + 1 :]]


def other_graph(given: MessageGraph) -> MessageGraph:
    return message_graph(np.array([[0, 1], [1, 0]]), 4)


OF_ALL = [
    ("nodes", [[0.0]], TypeError, "nodes must be a NumPy, CuPy or torch array, got list"),
    ("nodes", np.zeros((3, 2), np.int64), TypeError, "nodes must have dtype float32 or"),
    ("nodes", np.zeros((3, 2, 1)), ValueError, r"nodes must have shape \[N, Cn\], got \(3, 2, 1\)"),
    ("nodes", np.zeros((3, 2), np.float32), TypeError, r"\w+ must have the dtype of nodes \(float32\), got float64"),
    ("nodes", torch.zeros(3, 2).double(), TypeError, "all arrays must be of one library and on one device"),
    ("edges", np.zeros((4, 3), np.float32), TypeError, r"edges must have the dtype of nodes \(float64\), got float32"),
    ("edges", np.zeros(4), ValueError, r"edges must have shape \[E, Ce\], got \(4,\)"),
    ("graph", None, TypeError, "graph must be made by message_graph, got None"),
    ("graph", (1, 2), TypeError, "graph must be made by message_graph, got tuple"),
    ("graph", lambda g: g._replace(row=3), TypeError, "row of graph must be a NumPy, CuPy or torch array, got int"),
    ("graph", lambda g: g._replace(sent=torch.zeros(4)), TypeError, "sent of graph must be, like nodes, of numpy on cpu, got torch on cpu"),
    ("graph", lambda g: g._replace(col=g.col.astype(np.int64)), TypeError, "col of graph must have dtype int32, got int64"),
    ("graph", other_graph, ValueError, r"nodes must have a row for each of the graph's 4 nodes, got \(3, 2\)"),
    ("graph", lambda g: g._replace(row=g.row[:2]), ValueError, r"edges must have a row for each of the graph's 2 edges, got \(4, 3\)"),
]  # fmt: skip
OF_WEIGHTS = [
    ("initial", np.zeros((5, 1)), ValueError, r"initial must have shape \[4, C0\], got \(5, 1\); one row for each of edges"),
    ("weights", None, TypeError, r"weights must be a sequence of arrays \(w1, b1, w2, b2\), got None"),
    ("weights", lambda w: w[:3], TypeError, "weights must be a sequence of arrays .*, got 3 elements"),
    ("weights", at(1, None), TypeError, "b1 of weights must be a NumPy, CuPy or torch array, got None"),
    ("weights", at(0, np.zeros((5, 8), np.float32)), TypeError, "w1 of weights must have the dtype of nodes"),
    ("weights", at(0, torch.zeros(5, 8)), TypeError, "w1 of weights must be, like nodes, of numpy on cpu, got torch on cpu"),
    ("weights", at(0, np.zeros((5, 7))), ValueError, r"w1 of weights must have shape \[H, 8\], got \(5, 7\); its inputs"),
    ("weights", at(1, np.zeros(4)), ValueError, r"b1 of weights must have shape \[5\], got \(4,\)"),
    ("weights", at(2, np.zeros((2, 5))), ValueError, r"w2 of weights must have shape \[3, 5\], got \(2, 5\)"),
    ("weights", at(3, np.zeros(2)), ValueError, r"b2 of weights must have shape \[3\], got \(2,\)"),
]  # fmt: skip
OF_STREAMS = [
    ("past", 3, TypeError, "past must be a sequence of arrays .*, got int"),
    ("past", at(0, np.zeros((4, 6))), ValueError, r"w1 of past must have shape \[H, 5\], got \(4, 6\)"),
    ("past", at(2, np.zeros((2, 3))), ValueError, r"w2 of past must have shape \[O, 4\], got \(2, 3\)"),
    ("past", [np.zeros((0, 5)), np.zeros(0), np.zeros((2, 0)), np.zeros(2)], ValueError, "past must have hidden units and outputs"),
    ("future", "abcd", TypeError, "future must be a sequence of arrays .*, got str"),
    ("future", at(2, np.zeros((3, 4))), ValueError, r"w2 of future must have shape \[2, 4\], got \(3, 4\)"),
    ("future", [np.zeros((3, 5)), np.zeros(3), np.zeros((2, 3)), np.zeros(2)], ValueError, "w1 of future must have past's 4 hidden units"),
]  # fmt: skip
OF_UPDATE = [
    ("update", np.zeros((2, 4)), TypeError, r"update must be a sequence of arrays \(w, b\), got ndarray"),
    ("update", at(0, np.zeros((2, 3))), ValueError, r"w of update must have shape \[C, 4\], got \(2, 3\)"),
    ("update", at(1, np.zeros(3)), ValueError, r"b of update must have shape \[2\], got \(3,\)"),
    ("future", None, ValueError, r"w of update must have shape \[C, 2\], got \(2, 4\)"),
]  # fmt: skip
GRADS = {
    "edge_step_vjp": [
        ("edge_grad", np.zeros((4, 2)), ValueError, r"grad must have shape \[4, 3\], got \(4, 2\)"),
        ("output", np.zeros((4, 3), np.float32), TypeError, "output must have the dtype of nodes"),
    ],
    "message_sums_vjp": [("sum_grad", np.zeros((3, 2)), ValueError, r"grad must have shape \[3, 4\], got \(3, 2\)")],
    "node_step_vjp": [
        ("node_grad", np.zeros((3, 3)), ValueError, r"grad must have shape \[3, 2\], got \(3, 3\)"),
        ("node_output", np.zeros((2, 2)), ValueError, r"output must have shape \[3, 2\], got \(2, 2\)"),
    ],
}
REFUSED = [
    (op, *refusal)
    for op, (_, names) in NAMES.items()
    for refusal in OF_ALL + OF_WEIGHTS + OF_STREAMS + OF_UPDATE + GRADS.get(op, [])
    if refusal[0] in names and ("update" in names or refusal not in OF_UPDATE)
]


@pytest.mark.parametrize(("op", "argument", "value", "error", "text"), REFUSED, ids=range(len(REFUSED)))
def test_refuses(op: str, argument: str, value: Any, error: type[Exception], text: str) -> None:
    operator, names = NAMES[op]
    known = arguments()
    known[argument] = value(known[argument]) if callable(value) else value
    with pytest.raises(error, match=rf"^{op}: (?:{text})"):
        operator(*(known[name] for name in names))


PAIRS = np.array([[0, 1], [1, 2]])
REFUSED_GRAPHS: list[tuple[tuple[Any, ...], dict[str, Any], type[Exception], str]] = [
    (([[0], [1]], 2), {}, TypeError, "edges must be a NumPy, CuPy or torch array, got list"),
    ((PAIRS.astype(float), 3), {}, TypeError, "edges must have dtype int32 or int64, got float64"),
    ((PAIRS[0], 3), {}, ValueError, r"edges must have shape \[2, E\], got \(2,\)"),
    ((np.zeros((3, 2), int), 3), {}, ValueError, r"edges must have shape \[2, E\], got \(3, 2\)"),
    ((PAIRS, 2.5), {}, TypeError, "n_nodes must be an integer"),
    ((PAIRS, -1), {}, ValueError, "n_nodes must be from 0 to"),
    ((PAIRS, 2), {}, ValueError, "edges must have nodes from 0 to 1, got 0 to 2"),
    ((PAIRS - 1, 3), {}, ValueError, "edges must have nodes from 0 to 2, got -1 to 1"),
    ((np.array([[0, 1], [1, 1]]), 3), {}, ValueError, "edges must have ends of different times, got 1 without"),
    ((PAIRS, 3), {"undirected": 1}, TypeError, "undirected must be True or False"),
    ((PAIRS[::-1], 3), {"undirected": True}, ValueError, "edges must have the earlier node first where undirected, got 2 others"),
    ((PAIRS, 3), {"time": [0, 1, 2]}, TypeError, "time must be a NumPy, CuPy or torch array, got list"),
    ((PAIRS, 3), {"time": torch.arange(3)}, TypeError, "time must be, like edges, of numpy on cpu, got torch on cpu"),
    ((PAIRS, 3), {"time": np.zeros(2)}, ValueError, r"time must have shape \[3\], got \(2,\)"),
    ((PAIRS, 3), {"time": np.array([0, 0, 1])}, ValueError, "edges must have ends of different times, got 1 without"),
    ((PAIRS, 3), {"time": np.array([0, np.nan, 1])}, ValueError, "edges must have ends of different times, got 2 without"),
]  # fmt: skip


@pytest.mark.parametrize(("args", "options", "error", "text"), REFUSED_GRAPHS, ids=range(len(REFUSED_GRAPHS)))
def test_graph_refuses(args: Any, options: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=rf"^message_graph: {text}"):
        message_graph(*args, **options)


@pytest.mark.parametrize(
    ("edges", "n_nodes", "error", "text"),
    [
        (PAIRS, [3], TypeError, "n_nodes must be a list with a number for each of edges"),
        ([PAIRS], [3, 3], TypeError, "n_nodes must be a list with a number for each of edges"),
        ([PAIRS], 3, TypeError, "n_nodes must be a list with a number for each of edges"),
        ([], [], ValueError, "edges must have a window, got 0"),
        ([PAIRS], [-1], ValueError, "n_nodes must be from 0"),
        ([PAIRS.astype(float)], [3], TypeError, "edges must have dtype int32 or int64"),
        ([PAIRS, None], [3, 3], TypeError, "edges must be a NumPy, CuPy or torch array, got None"),
    ],
    ids=range(7),
)
def test_windows_refuse(edges: Any, n_nodes: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=rf"^join_windows: {text}"):
        join_windows(edges, n_nodes)
