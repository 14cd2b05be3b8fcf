"""Affinities: graphs whose weights say how alike pixels or points are, and their Laplacians and cuts."""

from __future__ import annotations

from .laplacians import laplacian, ncut_value
from .pixel import PixelAffinity, pixel_affinity
from .points import knn_affinity, rbf_affinity
from .regions import region_affinity

__all__ = [
    "PixelAffinity",
    "knn_affinity",
    "laplacian",
    "ncut_value",
    "pixel_affinity",
    "rbf_affinity",
    "region_affinity",
]
