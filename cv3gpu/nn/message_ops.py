"""The torch operators of message passing: registration, and no mathematics.

What a backward keeps of `edge_step` are its arguments and its result, and of `message_sums` its arguments: hidden
layers and messages are computed anew. Derivatives are of first order. `node_step` is `message_sums` and torch's layer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import torch
from torch import Tensor

from .. import message
from ._registration import define, nothing_setup, register
from .atrous_ops import lowered

__all__ = ["OPERATORS"]

_LISTS = "Tensor[] past, Tensor[] future, Tensor[] graph"


def _flat_edge_gradients(*args: Any) -> tuple[Any, ...]:
    nodes, initial, edges, weights = message.edge_step_vjp.plain(*args)  # type: ignore[attr-defined]
    return nodes, initial, edges, *weights


def _sums(nodes: Tensor, edges: Tensor, past: Any, future: Any, graph: Any) -> Tensor:
    """A stream that is not there comes as an empty list."""
    return message.message_sums.plain(nodes, edges, past, future or None, graph)  # type: ignore[attr-defined]


def _flat_message_gradients(grad: Tensor, nodes: Tensor, edges: Tensor, past: Any, future: Any, graph: Any) -> Any:
    found = message.message_sums_vjp.plain(grad, nodes, edges, past, future or None, graph)  # type: ignore[attr-defined]
    none = tuple(nodes.new_empty(0) for _ in range(4))
    return found.nodes, found.edges, *found.past, *(found.future or none)


def _tensors(n: int) -> str:
    return f"({', '.join(['Tensor'] * n)})"


_EDGE_STEP = define(
    "edge_step", "Tensor nodes, Tensor initial, Tensor edges, Tensor[] weights, Tensor[] graph", message.edge_step
)
_EDGE_STEP_VJP = define(
    "edge_step_vjp",
    "Tensor grad, Tensor output, Tensor nodes, Tensor initial, Tensor edges, Tensor[] weights, Tensor[] graph",
    _flat_edge_gradients,
    _tensors(7),
)
_MESSAGE_SUMS = define("message_sums", f"Tensor nodes, Tensor edges, {_LISTS}", _sums)
_MESSAGE_SUMS_VJP = define(
    "message_sums_vjp",
    f"Tensor grad, Tensor nodes, Tensor edges, {_LISTS}",
    _flat_message_gradients,
    _tensors(10),
)

# ---- backward -------------------------------------------------------------------------------------------


def _edge_setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    nodes, initial, edges, weights, graph = inputs
    ctx.save_for_backward(output, nodes, initial, edges, *weights, *graph)


def _edge_backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    output, nodes, initial, edges, *rest = ctx.saved_tensors
    weights, graph = rest[:4], rest[4:]
    by_nodes, by_initial, by_edges, *by_weights = _EDGE_STEP_VJP(grad, output, nodes, initial, edges, weights, graph)
    return by_nodes, by_initial, by_edges, by_weights, [None] * len(graph)


def _sums_setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    nodes, edges, past, future, graph = inputs
    ctx.streams = len(past) + len(future)
    ctx.save_for_backward(nodes, edges, *past, *future, *graph)


def _sums_backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    nodes, edges, *rest = ctx.saved_tensors
    past, future, graph = rest[:4], rest[4 : ctx.streams], rest[ctx.streams :]
    by_nodes, by_edges, *by_weights = _MESSAGE_SUMS_VJP(grad, nodes, edges, past, future, graph)
    return by_nodes, by_edges, by_weights[:4], by_weights[4 : ctx.streams], [None] * len(graph)


def _edge_vjp_backward(ctx: Any, *grads: Any) -> NoReturn:
    raise NotImplementedError("edge_step_vjp: no gradient is implemented (edge_step has first derivatives only)")


def _sums_vjp_backward(ctx: Any, *grads: Any) -> NoReturn:
    raise NotImplementedError("message_sums_vjp: no gradient is implemented (message_sums has first derivatives only)")


# ---- vmap -----------------------------------------------------------------------------------------------


def _one_by_one(op: Any) -> Callable[..., tuple[Any, Any]]:
    def rule(info: Any, in_dims: tuple[Any, ...], *args: Any) -> tuple[Any, Any]:
        def sample(x: Any, dim: Any, i: int) -> Any:
            if isinstance(x, list | tuple):
                return [sample(a, None if dim is None else d, i) for a, d in zip(x, dim or x, strict=True)]
            return x if dim is None else x.select(dim, i)

        pairs = list(zip(args, in_dims, strict=True))
        found = [op(*(sample(x, dim, i) for x, dim in pairs)) for i in range(info.batch_size)]
        if isinstance(found[0], Tensor):
            return torch.stack(found), 0
        return tuple(torch.stack(same) for same in zip(*found, strict=True)), (0,) * len(found[0])

    return rule


# ---- fakes ----------------------------------------------------------------------------------------------


def _like(x: Tensor) -> Tensor:
    return x.new_empty(x.shape)


def _edge_fake(nodes: Tensor, initial: Tensor, edges: Tensor, weights: Sequence[Tensor], graph: Any) -> Tensor:
    message.check_edge_step("edge_step", nodes, initial, edges, weights, graph)
    return _like(edges)


def _edge_vjp_fake(
    grad: Tensor,
    output: Tensor,
    nodes: Tensor,
    initial: Tensor,
    edges: Tensor,
    weights: Sequence[Tensor],
    graph: Any,
) -> tuple[Tensor, ...]:
    return tuple(map(_like, (nodes, initial, edges, *weights)))


def _sums_fake(nodes: Tensor, edges: Tensor, past: Sequence[Tensor], future: Sequence[Tensor], graph: Any) -> Tensor:
    message.check_message_sums("message_sums", nodes, edges, past, future or None, graph)
    return nodes.new_empty((nodes.shape[0], past[2].shape[0] * (2 if future else 1)))


def _sums_vjp_fake(
    grad: Tensor, nodes: Tensor, edges: Tensor, past: Sequence[Tensor], future: Sequence[Tensor], graph: Any
) -> tuple[Tensor, ...]:
    none = tuple(nodes.new_empty(0) for _ in range(4))
    return (*map(_like, (nodes, edges, *past)), *(tuple(map(_like, future)) or none))


# ---- registration ---------------------------------------------------------------------------------------

register(_EDGE_STEP, _edge_fake, _edge_setup, _edge_backward, _one_by_one(_EDGE_STEP), "lower")
register(_EDGE_STEP_VJP, _edge_vjp_fake, nothing_setup, _edge_vjp_backward, _one_by_one(_EDGE_STEP_VJP), "lower")
register(_MESSAGE_SUMS, _sums_fake, _sums_setup, _sums_backward, _one_by_one(_MESSAGE_SUMS), "lower")
register(_MESSAGE_SUMS_VJP, _sums_vjp_fake, nothing_setup, _sums_vjp_backward, _one_by_one(_MESSAGE_SUMS_VJP), "lower")


# ---- what a public call with torch tensors becomes ------------------------------------------------------


def _edge_step(nodes: Tensor, initial: Tensor, edges: Tensor, weights: Any, graph: Any) -> Tensor:
    message.check_sequences("edge_step", nodes, graph, weights=weights)
    return _EDGE_STEP(nodes, initial, edges, list(weights), list(graph))


def _edge_step_vjp(
    grad: Tensor, output: Tensor, nodes: Tensor, initial: Tensor, edges: Tensor, weights: Any, graph: Any
) -> message.EdgeGradients:
    message.check_sequences("edge_step_vjp", nodes, graph, weights=weights)
    found = _EDGE_STEP_VJP(grad, output, nodes, initial, edges, list(weights), list(graph))
    by_nodes, by_initial, by_edges, *by_weights = found
    return message.EdgeGradients(by_nodes, by_initial, by_edges, tuple(by_weights))


def _streams(op: str, nodes: Tensor, past: Any, future: Any, graph: Any) -> tuple[list[Any], list[Any], list[Any]]:
    given = {"past": past} if future is None else {"past": past, "future": future}
    message.check_sequences(op, nodes, graph, **given)
    return list(past), [] if future is None else list(future), list(graph)


def _message_sums(nodes: Tensor, edges: Tensor, past: Any, future: Any, graph: Any) -> Tensor:
    return _MESSAGE_SUMS(nodes, edges, *_streams("message_sums", nodes, past, future, graph))


def _message_sums_vjp(
    grad: Tensor, nodes: Tensor, edges: Tensor, past: Any, future: Any, graph: Any
) -> message.MessageGradients:
    found = _MESSAGE_SUMS_VJP(grad, nodes, edges, *_streams("message_sums_vjp", nodes, past, future, graph))
    later = None if future is None else tuple(found[6:])
    return message.MessageGradients(found[0], found[1], tuple(found[2:6]), later)


def _node_step(nodes: Tensor, edges: Tensor, past: Any, future: Any, update: Any, graph: Any) -> Tensor:
    nodes, edges, past, future, update = lowered(nodes, edges, past, future, update)
    message.check_node_step("node_step", nodes, edges, past, future, update, graph)
    return torch.relu(torch.nn.functional.linear(_message_sums(nodes, edges, past, future, graph), *update))


OPERATORS: dict[str, Callable[..., Any]] = {
    "edge_step": _edge_step,
    "edge_step_vjp": _edge_step_vjp,
    "message_sums": _message_sums,
    "message_sums_vjp": _message_sums_vjp,
    "node_step": _node_step,
}
