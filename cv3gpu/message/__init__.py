"""Message passing on graphs of detections: the steps of a neural solver, without an intermediate for each edge.

A step first renews the state of every edge from its two ends (:func:`edge_step`), and then that of every node from the
messages of its edges (:func:`node_step`), those from the past and those from the future each with weights of their own.
The first layer of each network is linear in what it is given side by side, so nodes are multiplied once, before they
are gathered by edges; the layers of an edge then follow one another in registers, and messages are summed as they come.

A graph is prepared once (:func:`message_graph`), for all steps and for their gradients.
"""

from __future__ import annotations

from .checks import check_edge_step as check_edge_step
from .checks import check_message_sums as check_message_sums
from .checks import check_node_step as check_node_step
from .checks import check_sequences as check_sequences
from .gradients import EdgeGradients, MessageGradients, NodeGradients
from .graph import MessageGraph, join_windows, message_graph
from .operators import edge_step, edge_step_vjp, message_sums, message_sums_vjp, node_step, node_step_vjp

__all__ = [
    "EdgeGradients",
    "MessageGradients",
    "MessageGraph",
    "NodeGradients",
    "edge_step",
    "edge_step_vjp",
    "join_windows",
    "message_graph",
    "message_sums",
    "message_sums_vjp",
    "node_step",
    "node_step_vjp",
]
