"""The gradients of the steps, as they are given out."""

from __future__ import annotations

from typing import Any, NamedTuple

__all__ = ["EdgeGradients", "MessageGradients", "NodeGradients"]


class EdgeGradients(NamedTuple):
    """Gradients of :func:`edge_step`, in the shapes of its arguments."""

    nodes: Any
    initial: Any
    edges: Any
    weights: tuple[Any, ...]


class MessageGradients(NamedTuple):
    """Gradients of :func:`message_sums`, in the shapes of its arguments; None for a stream that was None."""

    nodes: Any
    edges: Any
    past: tuple[Any, ...]
    future: tuple[Any, ...] | None


class NodeGradients(NamedTuple):
    """Gradients of :func:`node_step`, in the shapes of its arguments; None for a stream that was None."""

    nodes: Any
    edges: Any
    past: tuple[Any, ...]
    future: tuple[Any, ...] | None
    update: tuple[Any, ...]
