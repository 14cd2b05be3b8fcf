"""A step of message passing of the published tracker: edges, then nodes; forward, and with its gradients.

Widths are those of the publication: nodes 32, edges 16, hidden layers 80 and 56, messages 32. Edges join nodes that are
near in time, each pair in both directions, sorted by row. The peers are torch's: what the publication does (gather, put
side by side, multiply, ``index_add``), and the same with the first layer cut into parts and nodes multiplied before
they are gathered; with PyG, where it is installed, its ``scatter`` in place of ``index_add``. Streams are split before.

``bytes`` of a step forward are the states read and written, the indices and the nodes; ``flops`` those of the cut form.
Facts: how far one call takes the memory of a fresh process beyond what it had.
"""

from __future__ import annotations

import functools
import itertools
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import pytest

from cv3gpu.message import edge_step, message_graph, node_step

from . import peers
from .entry import NOT_INSTALLED, Entry, Errors, Work, dense_errors

SIZES = {(500, 20_000): "a window", (5_000, 100_000): "many windows", (20_000, 400_000): "a long sequence"}
OPERATIONS = ("step", "step and backward")
NODE, INITIAL, EDGE, HIDDEN, MIDDLE, MESSAGE = 32, 16, 16, 80, 56, 32
WIDTHS = {"float32": 4, "bfloat16": 2}


class Step(NamedTuple):
    """Tensors of a step: states, weights, and the graph in two forms."""

    states: list[Any]  # nodes, initial, edges
    weights: list[Any]  # of edges, past, future: four each; of the update two
    graph: Any
    row: Any
    col: Any
    streams: list[Any]  # numbers of the edges from the past, and of those from the future


def step_of(nodes: int, count: int, dtype: str, device: str) -> Step:
    """A graph of so many nodes and directed edges, with random states."""
    import torch

    rng = np.random.default_rng(0)
    first = rng.integers(0, nodes - 1, count // 2)
    second = np.minimum(first + rng.integers(1, max(2, nodes // 10), count // 2), nodes - 1)
    ends = np.concatenate([[first, second], [second, first]], 1)
    ends = ends[:, np.lexsort((ends[1], ends[0]))]

    def array(*shape: int) -> Any:
        return torch.from_numpy(rng.standard_normal(shape)).to(device, getattr(torch, dtype))

    def layer(inputs: int, outputs: int) -> list[Any]:
        return [array(outputs, inputs) / inputs**0.5, array(outputs)]

    streams = [[*layer(NODE + EDGE, MIDDLE), *layer(MIDDLE, MESSAGE)] for _ in range(2)]
    weights = [*layer(2 * NODE + INITIAL + EDGE, HIDDEN), *layer(HIDDEN, EDGE), *streams[0], *streams[1]]
    row, col = torch.from_numpy(ends).to(device)
    return Step(
        [array(nodes, NODE), array(count, INITIAL), array(count, EDGE)],
        [*weights, *layer(2 * MESSAGE, NODE)],
        message_graph(torch.stack([row, col]), nodes),
        row,
        col,
        [(col < row).nonzero()[:, 0], (col > row).nonzero()[:, 0]],
    )


# ---- ours and theirs ------------------------------------------------------------------------------------

Forward = Callable[[Step, Sequence[Any], Sequence[Any]], Any]


def ours(s: Step, states: Sequence[Any], weights: Sequence[Any]) -> Any:
    """New states of edges and nodes."""
    nodes, initial, edges = states
    edges = edge_step(nodes, initial, edges, weights[:4], s.graph)
    return edges, node_step(nodes, edges, weights[4:8], weights[8:12], weights[12:], s.graph)


def plain(s: Step, states: Sequence[Any], weights: Sequence[Any], add: Any = None) -> Any:
    """As published."""
    import torch
    from torch.nn import functional

    def network(x: Any, w1: Any, b1: Any, w2: Any, b2: Any) -> Any:
        return torch.relu(functional.linear(torch.relu(functional.linear(x, w1, b1)), w2, b2))

    nodes, initial, edges = states
    edges = network(torch.cat([nodes[s.row], nodes[s.col], initial, edges], 1), *weights[:4])
    sums = []
    for number, layers in zip(s.streams, (weights[4:8], weights[8:12]), strict=True):
        messages = network(torch.cat([nodes[s.col[number]], edges[number]], 1), *layers)
        sums.append((add or summed)(messages, s.row[number], len(nodes)))
    return edges, torch.relu(functional.linear(torch.cat(sums, 1), *weights[12:]))


def summed(messages: Any, to: Any, nodes: int) -> Any:
    """Sums by node, of torch."""
    return messages.new_zeros(nodes, messages.shape[1]).index_add(0, to, messages)


def factorised(s: Step, states: Sequence[Any], weights: Sequence[Any]) -> Any:
    """Nodes are multiplied before they are gathered."""
    import torch
    from torch.nn import functional

    nodes, initial, edges = states
    w1, b1, w2, b2 = weights[:4]
    ends = functional.linear(nodes, w1[:, :NODE], b1)[s.row] + (nodes @ w1[:, NODE : 2 * NODE].T)[s.col]
    hidden = ends + functional.linear(torch.cat([initial, edges], 1), w1[:, 2 * NODE :])
    edges = torch.relu(functional.linear(torch.relu(hidden), w2, b2))
    sums = []
    for number, layers in zip(s.streams, (weights[4:8], weights[8:12]), strict=True):
        w1, b1, w2, b2 = layers
        table = functional.linear(nodes, w1[:, :NODE], b1)
        hidden = torch.relu(table[s.col[number]] + edges[number] @ w1[:, NODE:].T)
        sums.append(summed(torch.relu(functional.linear(hidden, w2, b2)), s.row[number], len(nodes)))
    return edges, torch.relu(functional.linear(torch.cat(sums, 1), *weights[12:]))


def called(forward: Forward, s: Step, operation: str) -> list[Any]:
    """What a call gives: new states, or the gradients of all arguments."""
    import torch

    if operation == OPERATIONS[0]:
        with torch.no_grad():
            return list(forward(s, s.states, s.weights))
    with torch.enable_grad():
        states, weights = ([x.detach().requires_grad_() for x in given] for given in (s.states, s.weights))
        found = forward(s, states, weights)
        return list(torch.autograd.grad(found, [*states, *weights], [torch.ones_like(x) for x in found]))


WAYS: dict[str, Forward] = {"ours": ours, "torch index_add": plain, "torch, nodes first": factorised}

_MEMORY = """
import sys
from bench import bench_message as b
whose, nodes, count, operation = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
b.called(b.WAYS[whose], b.step_of(50, 400, "float32", "cpu"), operation)
step = b.step_of(nodes, count, "float32", "cpu")
def memory(field):
    with open("/proc/self/status") as status:
        return 1024 * next(int(line.split()[1]) for line in status if line.startswith(field))
with open("/proc/self/clear_refs", "w") as control:
    control.write("5")  # the peak starts anew
before = memory("VmRSS")
kept = b.called(b.WAYS[whose], step, operation)
print(memory("VmHWM") - before - sum(x.numel() * x.element_size() for x in kept))
"""


def peak_memory(whose: str, nodes: int, count: int, operation: str) -> float:
    """Bytes that a call takes at its peak on the CPU beyond its results."""
    command = [sys.executable, "-c", _MEMORY, whose, str(nodes), str(count), operation]
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536"}  # what was freed before does not serve again
    return float(subprocess.check_output(command, cwd=peers.ROOT, env=environment, text=True))


# ---- entries --------------------------------------------------------------------------------------------


def _errors(reference: list[Any], got: list[Any]) -> Errors:
    found = [dense_errors(one, other) for one, other in zip(reference, got, strict=True)]
    return Errors(max(e.norm for e in found), max(e.largest for e in found))


def _doubled(s: Step) -> Step:
    return s._replace(states=[x.double() for x in s.states], weights=[x.double() for x in s.weights])


def _setup(nodes: int, count: int, operation: str, dtype: str, device: str) -> Work:
    torch = pytest.importorskip("torch")
    s = step_of(nodes, count, dtype, device)
    reference = called(plain, _doubled(s), operation)

    def way(forward: Forward) -> Callable[[], Any]:
        return peers.torch_way(torch, functools.partial(called, forward, s, operation))

    work = Work(ours=functools.partial(called, ours, s, operation), errors=functools.partial(_errors, reference))
    work.peers |= {name: way(forward) for name, forward in WAYS.items() if name != "ours"}
    geometric = peers.installed("torch_geometric.utils")
    work.peers["PyG scatter"] = (
        NOT_INSTALLED
        if geometric is None
        else way(functools.partial(plain, add=lambda m, to, n: geometric.scatter(m, to, 0, n, "sum")))
    )
    if peers.COMPILE:
        work.peers["torch.compile"] = way(torch.compile(plain))
    if operation == OPERATIONS[1]:  # one node, by rounding on the other side of its kink, gives 0.002
        work.limits = dict.fromkeys(["ours", *work.peers], "other rules")
    if device == "cpu":
        one = {f"{name}, 1 core": peers.on_one_core(w) for name, w in {"ours": work.ours, **work.peers}.items()}
        work.peers |= one
        work.limits |= {name: "other rules" for name in one if work.limits}
        for name in WAYS:
            fact = f"peak memory of {name} beyond its results, bytes"
            work.facts[fact] = peak_memory(name, nodes, count, operation)
    return work


def _entry(nodes: int, count: int, operation: str, dtype: str, device: str) -> Entry:
    width, passes = WIDTHS[dtype], 1 if operation == OPERATIONS[0] else 3
    of_edge = HIDDEN * (INITIAL + 2 * EDGE) + MIDDLE * (EDGE + MESSAGE)
    of_node = NODE * 2 * (HIDDEN + MIDDLE) + 2 * MESSAGE * NODE
    return Entry(
        name=f"message passing {operation} {nodes} nodes {count} edges {dtype} {device}",
        family="message",
        shape=f"{operation}, {nodes:,} nodes, {count:,} directed edges ({SIZES[nodes, count]})",
        device=device,
        dtype=dtype,
        bytes=passes * (count * (width * (INITIAL + 3 * EDGE) + 16) + width * nodes * 3 * NODE),
        flops=passes * 2 * (count * of_edge + nodes * of_node),
        setup=lambda: _setup(nodes, count, operation, dtype, device),
        priority=0 if device == "cpu" or (dtype == "float32" and nodes == 5_000) else 1,
    )


# No gradients in 16 bits: on which side of its kink a unit is hangs on roundings there, and torch's are off by 8 %.
ENTRIES = [
    _entry(*size, operation, dtype, "cuda")
    for size, operation, dtype in itertools.product(SIZES, OPERATIONS, WIDTHS)
    if dtype == "float32" or operation == OPERATIONS[0]
] + [_entry(*size, operation, "float32", "cpu") for size in SIZES for operation in OPERATIONS]  # fmt: skip


@pytest.mark.parametrize("entry", ENTRIES, ids=str)
def bench_message(entry: Entry, measure: Any) -> None:
    measure(entry)
