"""The neural solver for tracking: message passing over the graph of detections, or of pieces of tracks."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from ... import _check
from ...message import MessageGraph
from ...mot import _network

__all__ = ["MPNTracker", "link_loss", "mpn_tracker"]

MESSAGES = 8.0  # that a node sums, about: at the start the sum should be as large as one of them


def mpn_tracker(
    node_features: int = 2048,
    edge_features: int = 6,
    *,
    levels: int = 1,
    steps: int = 12,
    node_dim: int = 32,
    edge_dim: int = 16,
    node_hidden: Sequence[int] = (128,),
    edge_hidden: Sequence[int] = (18, 18),
    step_hidden: int = 80,
    message_hidden: int = 56,
    classifier_hidden: int = 8,
    time_aware: bool = True,
    directed: bool = True,
    shared: bool = False,
) -> MPNTracker:
    """A network that says of each link between detections how probable it is; the defaults are the published network.

    Features of nodes and of links are encoded; then, in each of ``steps`` steps with the same weights, every link takes
    up its two nodes, and every node sums what comes over its links, from the past and from the future each through a
    network of its own; at last links are classified. A ReLU follows every layer but the last.

    Parameters
    ----------
    node_features : int
        Length of the features of a node, such as an appearance vector; 0 lets all nodes start from a learned constant.
    edge_features : int
        Length of the features of a link.
    levels : int
        Blocks of the network, for detections and for the pieces of tracks that each level joins.
    steps : int
        0 classifies links by their features alone.
    node_dim, edge_dim : int
        Length of the states.
    node_hidden, edge_hidden : sequence of int
        Widths inside the encoders.
    step_hidden, message_hidden, classifier_hidden : int
        Widths inside the networks of two layers: of a link's step, of messages, of the classifier.
    time_aware : bool
        Whether messages from the past and from the future have weights of their own.
    directed : bool
        Whether a link has a state for each direction, as published, or one, which costs half.
    shared : bool
        Whether all levels have the same weights and differ in a learned vector that is added to encoded links.

    Returns
    -------
    MPNTracker

    Raises
    ------
    TypeError, ValueError
        If an argument is not as said above.

    References
    ----------
    G. Brasó, L. Leal-Taixé, "Learning a neural solver for multiple object tracking", CVPR 2020;
    O. Cetintas, G. Brasó, L. Leal-Taixé, "Unifying short and long-term tracking with graph hierarchies", CVPR 2023
    (``levels`` and ``shared``).

    Examples
    --------
    >>> from cv3gpu.nn import models
    >>> sum(p.numel() for p in models.mpn_tracker().parameters())
    287589
    """
    given = dict(locals())
    return MPNTracker(_network.arguments(given))


class MPNTracker(nn.Module):
    """See :func:`mpn_tracker`.

    Attributes
    ----------
    arguments : dict
        What the network is made of, for its file.
    blocks : torch.nn.ModuleList
        The weights of each level; the buffers ``node_mean``, ``node_scale`` … of a block normalise its features.
    """

    def __init__(self, arguments: Mapping[str, Any]) -> None:
        super().__init__()
        self.arguments = dict(arguments)
        self.blocks = nn.ModuleList(_Block(arguments) for _ in range(1 if arguments["shared"] else arguments["levels"]))
        if arguments["shared"]:
            self.embedding = nn.Parameter(torch.randn(arguments["levels"], arguments["edge_dim"]) / 10)

    def forward(
        self,
        nodes: Tensor,
        edges: Tensor,
        links: Tensor,
        *,
        time: Tensor | None = None,
        level: int = 0,
        every: bool = False,
    ) -> list[Tensor]:
        """Logits of the links.

        Parameters
        ----------
        nodes : Tensor, [N, node_features]
        edges : Tensor, [E, edge_features]
        links : Tensor, [2, E], int64
            Nodes of each link, the earlier one first.
        time : Tensor, [N], optional
            Frames of the nodes; left out where their numbers follow time.
        level : int
        every : bool
            Whether those of the steps before the last one are wanted as well, the first one excepted.

        Returns
        -------
        list of Tensor, [D, E]
            D is 2 where each direction has a state, else 1. Of the last step, or of steps 2 to the last one.
        """
        _check.integer("mpn_tracker", "level", level, 0, self.arguments["levels"] - 1)
        graph = _network.graph_of(links, len(nodes), time, self.arguments)
        return self.logits(nodes, edges, graph, level, every)

    def logits(self, nodes: Tensor, edges: Tensor, graph: MessageGraph, level: int = 0, every: bool = False) -> Any:
        """:meth:`forward` on a graph that is made already."""
        block = _network.blocks(self._named(), self.arguments)[level]
        return _network.logits(block, nodes, edges, graph, self.arguments, every)

    def _named(self) -> dict[str, Tensor]:
        return {**dict(self.named_parameters()), **dict(self.named_buffers())}

    def normalise(self, level: int, nodes: Tensor, edges: Tensor) -> None:
        """Sets the normalisation of a level's features to their means and deviations."""
        block = self.blocks[0 if self.arguments["shared"] else level]
        for kind, values in (("node", nodes), ("edge", edges)):
            getattr(block, f"{kind}_mean").copy_(values.mean(0))
            getattr(block, f"{kind}_scale").copy_(values.std(0, unbiased=False) + 0.05)


class _Block(nn.Module):
    """The weights of a level."""

    def __init__(self, arguments: Mapping[str, Any]) -> None:
        super().__init__()
        for name, widths in _network.layers(arguments).items():
            self.add_module(name, nn.ModuleList(_Layer(a, b) for a, b in itertools.pairwise(widths)))
        dim = arguments["node_dim"]
        self.update = _Layer(dim * (2 if arguments["time_aware"] else 1), dim, 1 / MESSAGES)
        for kind in ("node", "edge"):
            self.register_buffer(f"{kind}_mean", torch.zeros(arguments[f"{kind}_features"]))
            self.register_buffer(f"{kind}_scale", torch.ones(arguments[f"{kind}_features"]))


class _Layer(nn.Module):
    """The weights of a layer, with He's start; with torch's own the signal would fade over the steps."""

    def __init__(self, inputs: int, outputs: int, gain: float = 1.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs) * math.sqrt(2 / max(1, inputs)) * gain)
        # Without inputs, what is left is a learned constant, which must not begin as 0.
        self.bias = nn.Parameter(torch.zeros(outputs) if inputs else torch.rand(outputs))


def link_loss(
    logits: Sequence[Tensor],
    target: Tensor,
    *,
    pos_weight: float = 1.0,
    weight: Tensor | None = None,
    focal: float = 0.0,
) -> Tensor:
    r"""Weighted binary cross-entropy of links, the mean over steps, directions and links.

    .. math:: -\frac{1}{L |E|} \sum_l \sum_e w y_e \log \hat y_e^l + (1 - y_e) \log (1 - \hat y_e^l)

    Parameters
    ----------
    logits : sequence of Tensor, [D, E]
        As the network gives them with ``every``.
    target : Tensor, [E]
        1 for a link that holds, else 0.
    pos_weight : float
        w: links that hold are few.
    weight : Tensor, [E], optional
        0 for links of which nothing is known.
    focal : float
        Exponent of the focal loss, by which well classified links count less; 0 for none.

    Returns
    -------
    Tensor, a number; 0 without links.

    References
    ----------
    G. Brasó, L. Leal-Taixé, CVPR 2020, equation 9; T.-Y. Lin et al., "Focal loss for dense object detection", 2017.
    """
    given = torch.stack(list(logits))
    wanted = target.to(given.dtype).expand_as(given)
    if not given.numel():
        return given.sum()
    loss = functional.binary_cross_entropy_with_logits(
        given, wanted, pos_weight=given.new_tensor(pos_weight), reduction="none"
    )
    if focal:
        loss = loss * (torch.sigmoid(given) - wanted).abs() ** focal
    if weight is not None:
        loss = loss * weight.to(given.dtype)
    return loss.mean()
