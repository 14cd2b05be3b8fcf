"""Segmentation by eigenvectors of graph Laplacians: normalised cuts, spectral clustering."""

from __future__ import annotations

from .clustering import SpectralClustering, eigengap, spectral_clustering
from .embedding import Embedding, Nystrom, nystrom
from .ncut import CutInfo, NormalizedCut, Split, Threshold, best_threshold, normalized_cut

__all__ = [
    "CutInfo",
    "Embedding",
    "NormalizedCut",
    "Nystrom",
    "SpectralClustering",
    "Split",
    "Threshold",
    "best_threshold",
    "eigengap",
    "normalized_cut",
    "nystrom",
    "spectral_clustering",
]
