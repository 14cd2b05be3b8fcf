"""Clustering of points and pixels: k-means and mean shift."""

from __future__ import annotations

from .centroids import KMeans, kmeans
from .filter import MeanShiftSegmentation, mean_shift_filter, mean_shift_segmentation
from .modes import MeanShift, mean_shift

__all__ = [
    "KMeans",
    "MeanShift",
    "MeanShiftSegmentation",
    "kmeans",
    "mean_shift",
    "mean_shift_filter",
    "mean_shift_segmentation",
]
