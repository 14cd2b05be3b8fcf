"""Clustering of points and pixels: k-means and mean shift."""

from __future__ import annotations

from .centroids import Assigned, KMeans, assign, kmeans
from .filter import MeanShiftSegmentation, mean_shift_filter, mean_shift_segmentation
from .modes import MeanShift, mean_shift

__all__ = [
    "Assigned",
    "KMeans",
    "MeanShift",
    "MeanShiftSegmentation",
    "assign",
    "kmeans",
    "mean_shift",
    "mean_shift_filter",
    "mean_shift_segmentation",
]
