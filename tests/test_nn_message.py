"""The torch operators of message passing: registration, gradients, tracing, and agreement."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import library  # noqa: E402
from torch.autograd import gradcheck  # noqa: E402

import cv3gpu.nn  # noqa: E402
from cv3gpu.message import (  # noqa: E402
    edge_step,
    edge_step_vjp,
    message_graph,
    message_sums,
    message_sums_vjp,
    node_step,
    node_step_vjp,
)

pytestmark = pytest.mark.usefixtures("one_thread", "fresh_compiler")

NODES, WIDTHS = 7, (3, 2, 4)  # of nodes, initial states, edges


class Step(NamedTuple):
    """Leaves for all arguments of a step, and its graph."""

    nodes: Any
    initial: Any
    edges: Any
    weights: list[Any]
    past: list[Any]
    future: list[Any]
    update: list[Any]
    graph: Any

    def leaves(self) -> list[Any]:
        """All that want gradients."""
        return [*self[:3], *self.weights, *self.past, *self.future, *self.update]


def step_of(device: str, dtype: Any = torch.float64, nodes: int = NODES) -> Step:
    rng = np.random.default_rng(nodes)
    pairs = np.array([(i, j) for i in range(nodes) for j in range(i + 1, nodes) if rng.random() < 0.6]).T
    ends = torch.from_numpy(np.concatenate([pairs, pairs[::-1]], 1)).to(device)
    cn, c0, ce = WIDTHS
    count = ends.shape[1]

    def array(*shape: int) -> Any:
        return torch.from_numpy(rng.standard_normal(shape)).to(device, dtype).requires_grad_()

    def network(inputs: int, hidden: int, outputs: int) -> list[Any]:
        return [array(hidden, inputs), array(hidden), array(outputs, hidden), array(outputs)]

    return Step(
        array(nodes, cn), array(count, c0), array(count, ce), network(2 * cn + c0 + ce, 5, ce), network(cn + ce, 6, 3),
        network(cn + ce, 6, 3), [array(cn, 6), array(cn)], message_graph(ends, nodes),
    )  # fmt: skip


def network(x: Any, w1: Any, b1: Any, w2: Any, b2: Any) -> Any:
    return torch.relu(torch.relu(x @ w1.T + b1) @ w2.T + b2)


def plain(s: Step) -> Any:
    """Both steps by torch's own functions."""
    row, col = s.graph.row.long(), s.graph.col.long()
    edges = network(torch.cat([s.nodes[row], s.nodes[col], s.initial, s.edges], 1), *s.weights)
    sums = []
    for which, weights in ((col < row, s.past), (col > row, s.future)):
        messages = network(torch.cat([s.nodes[col[which]], edges[which]], 1), *weights)
        sums.append(s.nodes.new_zeros(len(s.nodes), messages.shape[1]).index_add(0, row[which], messages))
    return edges, torch.relu(torch.cat(sums, 1) @ s.update[0].T + s.update[1])


def ours(s: Step) -> Any:
    edges = edge_step(s.nodes, s.initial, s.edges, s.weights, s.graph)
    return edges, node_step(s.nodes, edges, s.past, s.future, s.update, s.graph)


def detached(x: Any) -> Any:
    return [t.detach() for t in x] if isinstance(x, list | tuple) else x.detach()


# ---- registration and derivatives -----------------------------------------------------------------------


def test_opcheck(device: str) -> None:
    s, ops = step_of(device), torch.ops.cv3gpu
    graph = list(s.graph)
    library.opcheck(ops.edge_step.default, (*s[:4], graph))
    out = edge_step(*s[:4], s.graph).detach()
    library.opcheck(ops.edge_step_vjp.default, (out, out, *map(detached, s[:4]), graph))
    for future in (s.future, []):
        library.opcheck(ops.message_sums.default, (s.nodes, s.edges, s.past, future, graph))
        grad = torch.ones(NODES, 6 if future else 3, dtype=torch.float64, device=device)
        given = map(detached, (s.nodes, s.edges, s.past, future))
        library.opcheck(ops.message_sums_vjp.default, (grad, *given, graph))


def test_derivatives(device: str) -> None:
    s = step_of(device)
    assert gradcheck(lambda *x: edge_step(*x[:3], x[3:], s.graph), (*s[:3], *s.weights))
    given = s.nodes, s.edges, *s.past, *s.future, *s.update
    assert gradcheck(lambda *x: node_step(*x[:2], x[2:6], x[6:10], x[10:], s.graph), given)
    given = s.nodes, s.edges, *s.past, *(x[:, :3] if x.ndim == 2 else x for x in s.update)
    assert gradcheck(lambda *x: node_step(*x[:2], x[2:6], None, x[6:], s.graph), given)


def test_agrees_with_plain_torch(device: str) -> None:
    s = step_of(device)
    for got, want in zip(ours(s), plain(s), strict=True):
        torch.testing.assert_close(got, want)
    both = [torch.autograd.grad(sum(t.square().sum() for t in f(s)), s.leaves()) for f in (ours, plain)]
    for got, want in zip(*both, strict=True):
        torch.testing.assert_close(got, want)


def test_vjps_are_the_gradients(device: str) -> None:
    s = step_of(device)
    edges = ours(s)[0]
    found = edge_step_vjp(edges, edges, *s[:4], s.graph)
    want = torch.autograd.grad(edges, [*s[:3], *s.weights], edges, retain_graph=True)
    for got, wanted in zip([*found[:3], *found.weights], want, strict=True):
        torch.testing.assert_close(got, wanted)
    given = s.nodes, s.edges, s.past, s.future
    sums = message_sums(*given, s.graph)
    found = message_sums_vjp(sums, *given, s.graph)
    want = torch.autograd.grad(sums, [s.nodes, s.edges, *s.past, *s.future], sums)
    for got, wanted in zip([found.nodes, found.edges, *found.past, *found.future], want, strict=True):
        torch.testing.assert_close(got, wanted)
    out = node_step(*given, s.update, s.graph)
    found = node_step_vjp(out, out, *given, s.update, s.graph)
    want = torch.autograd.grad(out, [s.nodes, s.edges, *s.past, *s.future, *s.update], out)
    for got, wanted in zip([*found[:2], *found.past, *found.future, *found.update], want, strict=True):
        torch.testing.assert_close(got, wanted)


@pytest.mark.parametrize("name", ["edge_step", "message_sums"])
def test_first_derivatives_only(name: str, device: str) -> None:
    s = step_of(device)
    out = (
        edge_step(*s[:4], s.graph) if name == "edge_step" else message_sums(*s[:1], s.edges, s.past, s.future, s.graph)
    )
    (grad,) = torch.autograd.grad(out.square().sum(), s.nodes, create_graph=True)
    with pytest.raises(NotImplementedError, match=rf"^{name}_vjp: no gradient is implemented \({name} has first"):
        grad.sum().backward()


def test_some_gradients(device: str) -> None:
    """Weights that are not trained, as in a network whose encoders alone are."""
    s = step_of(device)
    frozen = s._replace(**{name: detached(getattr(s, name)) for name in ("weights", "past", "future", "update")})
    (got,) = torch.autograd.grad(ours(frozen)[1].sum(), s.initial)
    (want,) = torch.autograd.grad(plain(s)[1].sum(), s.initial)
    torch.testing.assert_close(got, want)


def test_kernels_below_the_dispatcher(host_backend: Any) -> None:
    s = step_of("cpu", torch.float32, 5)
    want, by_want = plain(s)[1], torch.autograd.grad(plain(s)[1].sum(), s.leaves())
    got = ours(s)[1]
    torch.testing.assert_close(got, want)
    for one, other in zip(torch.autograd.grad(got.sum(), s.leaves()), by_want, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


# ---- autocast, transforms, tracing ------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast(dtype: Any, device: str) -> None:
    s = step_of(device, torch.float32)
    with torch.autocast(device, dtype):
        edges, nodes = ours(s)
    assert edges.dtype == nodes.dtype == dtype
    want = plain(s)[0]
    assert (edges - want).abs().max() < 0.05 * want.abs().max()
    nodes.float().sum().backward()
    assert all(x.grad.dtype == torch.float32 for x in s.leaves())


def test_vmap_and_grad(device: str) -> None:
    s = step_of(device)
    nodes = torch.stack([s.nodes.detach(), 2 * s.nodes.detach(), -s.nodes.detach()], 1)
    weight = torch.stack([s.past[0].detach(), s.past[0].detach() + 1, 2 * s.past[0].detach()])

    def loss(nodes: Any, weight: Any) -> Any:
        return ours(s._replace(nodes=nodes, past=[weight, *s.past[1:]]))[1].square().sum()

    for function in (loss, torch.func.grad(loss)):
        want = torch.stack([function(nodes[:, i], weight[i]) for i in range(3)])
        torch.testing.assert_close(torch.vmap(function, (1, 0))(nodes, weight), want)


@pytest.mark.parametrize("dynamic", [None, True])
def test_compile(dynamic: bool | None, device: str) -> None:
    compiled = torch.compile(ours, fullgraph=True, backend="aot_eager", dynamic=dynamic)
    for nodes in (6, 9) if dynamic else (6,):
        s = step_of(device, nodes=nodes)
        got, want = compiled(s), ours(s)
        gradients = [torch.autograd.grad(x[1].sum(), s.leaves()) for x in (got, want)]
        for one, other in zip([*got, *gradients[0]], [*want, *gradients[1]], strict=True):
            torch.testing.assert_close(one, other)


def test_a_backward_keeps_no_hidden_layer(device: str) -> None:
    kept: list[int] = []
    s = step_of(device)

    def pack(x: Any) -> Any:
        kept.append(tuple(x.shape))
        return x

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        ours(s)
    count = s.graph.n_edges
    of_edges = {shape for shape in kept if len(shape) == 2 and shape[0] == count}
    assert of_edges == {(count, WIDTHS[1]), (count, WIDTHS[2])}


@pytest.mark.parametrize(
    ("change", "error", "text"),
    [
        ({"weights": None}, TypeError, r"edge_step: weights must be a sequence of arrays \(w1, b1, w2, b2\), got None"),
        ({"graph": None}, TypeError, "edge_step: graph must be made by message_graph, got None"),
        ({"update": 1}, TypeError, r"node_step: update must be a sequence of arrays \(w, b\), got int"),
        ({"past": []}, TypeError, "node_step: past must be a sequence of arrays .*, got 0 elements"),
        ({"future": [1, 2, 3, 4]}, TypeError, "node_step: w1 of future must be a NumPy, CuPy or torch array, got int"),
        ({"nodes": torch.zeros(NODES, 4).double()}, ValueError, r"edge_step: w1 of weights must have shape \[H, 14\]"),
    ],
    ids=range(6),
)
def test_refuses(change: dict[str, Any], error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=f"^{text}"):
        ours(step_of("cpu")._replace(**change))


def test_operators_are_there() -> None:
    assert {"edge_step", "node_step", "message_sums"} <= set(cv3gpu.nn.ops.OPERATORS)
