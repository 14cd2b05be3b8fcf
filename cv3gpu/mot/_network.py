"""The network of the neural solver as a function of its weights, on arrays of any library: torch trains through it."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

import numpy as np

from .. import _check
from .._array import module
from .._threads import product
from ..message import MessageGraph, edge_step, message_graph, node_step

__all__ = ["arguments", "blocks", "graph_of", "logits", "probabilities", "shapes"]

PUBLISHED: dict[str, Any] = {
    "node_features": 2048,
    "edge_features": 6,
    "levels": 1,
    "steps": 12,
    "node_dim": 32,
    "edge_dim": 16,
    "node_hidden": [128],
    "edge_hidden": [18, 18],
    "step_hidden": 80,
    "message_hidden": 56,
    "classifier_hidden": 8,
    "time_aware": True,
    "directed": True,
    "shared": False,
}
LEAST = {"node_features": 0, "steps": 0}  # of the others 1
MOST = 1 << 14

PARTS = ("edge", "past", "future")  # the networks of two layers within a step


def _dense(x: Any, weights: Mapping[str, Any], name: str, last: bool = True) -> Any:
    """Layers one after another, each with a ReLU; the last one has it where asked for."""
    count = sum(key.startswith(f"{name}.") and key.endswith(".weight") for key in weights)
    for layer in range(count):
        x = product(x, weights[f"{name}.{layer}.weight"].T) + weights[f"{name}.{layer}.bias"]
        if last or layer + 1 < count:
            x = x.clip(min=0)
    return x


def logits(
    weights: Mapping[str, Any], nodes: Any, edges: Any, graph: MessageGraph, a: Mapping[str, Any], every: bool = False
) -> list[Any]:
    """Logits of the links, [1, E] or of both directions [2, E]: after the last step, or of all steps but the first.

    ``weights`` are those of one block by name; ``nodes [N, F]`` and ``edges [E, G]`` are features. Nodes start from
    their encoded features; without any, from a learned constant. Without weights ``future`` the two directions of
    time are not told apart. With 0 steps encoded edges are classified as they are.
    """
    step = {
        part: [weights[f"{part}.{layer}.{kind}"] for layer in (0, 1) for kind in ("weight", "bias")]
        for part in PARTS
        if f"{part}.0.weight" in weights
    }
    update = weights["update.weight"], weights["update.bias"]
    directions, steps = 2 if a["directed"] else 1, a["steps"]
    edges = (edges - weights["edge_mean"]) / weights["edge_scale"]
    nodes = (nodes - weights["node_mean"]) / weights["node_scale"]
    state = _dense(edges, weights, "edge_encoder")
    if "embedding" in weights:
        state = state + weights["embedding"]
    if directions == 2:
        state = module(state).concatenate((state, state))
    initial = state
    h = _dense(nodes, weights, "node_encoder")
    found = []
    for number in range(steps):
        state = edge_step(h, initial, state, step["edge"], graph)
        if number + 1 < steps:  # nobody asks for the nodes after the last step
            h = node_step(h, state, step["past"], step.get("future"), update, graph)
        if number + 1 == steps or (every and number):
            found.append(state)
    return [_dense(x, weights, "classifier", last=False).reshape(directions, -1) for x in found or [state]]


def arguments(given: Mapping[str, Any], op: str = "mpn_tracker") -> dict[str, Any]:
    """The arguments of a network, checked; those left out are the published ones."""
    if not isinstance(given, Mapping):
        _check.fail(op, "arguments", "be a mapping", _check.kind(given), error=TypeError)
    if unknown := sorted(set(given) - set(PUBLISHED)):
        _check.fail(op, "arguments", f"be of {', '.join(PUBLISHED)}", repr(unknown[0]))
    found: dict[str, Any] = {}
    for name, default in PUBLISHED.items():
        value = given.get(name, default)
        if isinstance(default, bool):
            found[name] = _check.flag(op, name, value)
        elif isinstance(default, list):
            if not isinstance(value, list | tuple):
                _check.fail(op, name, "be a list of widths", repr(value), error=TypeError)
            found[name] = [_check.integer(op, name, width, 1, MOST) for width in value]
        else:
            found[name] = _check.integer(op, name, value, LEAST.get(name, 1), MOST)
    return found


def layers(a: Mapping[str, Any]) -> dict[str, list[int]]:
    """The widths of each network of a block, from its inputs to its outputs, by name."""
    both = a["node_dim"] + a["edge_dim"]
    found = {
        "node_encoder": [a["node_features"], *a["node_hidden"], a["node_dim"]],
        "edge_encoder": [a["edge_features"], *a["edge_hidden"], a["edge_dim"]],
        "edge": [2 * both, a["step_hidden"], a["edge_dim"]],
        "past": [both, a["message_hidden"], a["node_dim"]],
        "future": [both, a["message_hidden"], a["node_dim"]],
        "classifier": [a["edge_dim"], a["classifier_hidden"], 1],
    }
    if not a["time_aware"]:
        del found["future"]
    return found


def shapes(a: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """The arrays of a network's file by name."""
    found: dict[str, tuple[int, ...]] = {}
    for level in range(1 if a["shared"] else a["levels"]):
        block = f"blocks.{level}"
        for name, widths in layers(a).items():
            for layer, (inputs, outputs) in enumerate(itertools.pairwise(widths)):
                found[f"{block}.{name}.{layer}.weight"] = outputs, inputs
                found[f"{block}.{name}.{layer}.bias"] = (outputs,)
        found[f"{block}.update.weight"] = a["node_dim"], a["node_dim"] * (2 if a["time_aware"] else 1)
        found[f"{block}.update.bias"] = (a["node_dim"],)
        for kind in ("node", "edge"):
            found[f"{block}.{kind}_mean"] = found[f"{block}.{kind}_scale"] = (a[f"{kind}_features"],)
    if a["shared"]:
        found["embedding"] = a["levels"], a["edge_dim"]
    return found


def blocks(weights: Mapping[str, Any], a: Mapping[str, Any]) -> tuple[dict[str, Any], ...]:
    """The weights of each level, by their names within its block."""
    found = []
    for level in range(a["levels"]):
        prefix = f"blocks.{0 if a['shared'] else level}."
        block = {name.removeprefix(prefix): x for name, x in weights.items() if name.startswith(prefix)}
        if a["shared"]:
            block["embedding"] = weights["embedding"][level]
        found.append(block)
    return tuple(found)


def graph_of(edges: Any, n_nodes: int, time: Any, a: Mapping[str, Any]) -> MessageGraph:
    """The graph of links [2, E], the earlier node first: each with one state, or with one for each direction."""
    if not a["directed"]:
        return message_graph(edges, n_nodes, undirected=True, time=time)
    return message_graph(module(edges).concatenate((edges, edges[[1, 0]]), 1), n_nodes, time=time)


def probabilities(weights: Mapping[str, Any], nodes: Any, edges: Any, graph: MessageGraph, a: Mapping[str, Any]) -> Any:
    """The probability of each link, [E], after the last step: the mean of both directions where there are two."""
    (found,) = logits(weights, nodes, edges, graph, a)
    return (1 / (1 + np.exp(-found.astype(np.float64)))).mean(0)
