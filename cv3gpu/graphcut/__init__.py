"""Energies of neighbouring pixels, minimised by cuts: graph cuts, alpha-expansion and swap, Boykov–Jolly, GrabCut."""

from __future__ import annotations

from .cut import GraphCut, graph_cut
from .moves import Labeling, alpha_beta_swap, alpha_expansion
from .seeds import BoykovJolly, GrabCut, GrabCutStep, boykov_jolly, grab_cut, grab_cut_steps

__all__ = [
    "BoykovJolly",
    "GrabCut",
    "GrabCutStep",
    "GraphCut",
    "Labeling",
    "alpha_beta_swap",
    "alpha_expansion",
    "boykov_jolly",
    "grab_cut",
    "grab_cut_steps",
    "graph_cut",
]
