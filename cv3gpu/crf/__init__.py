"""Energies of fully connected pairs: the dense CRF by mean field, and Gaussian filters in any dimension."""

from __future__ import annotations

from .mean_field import Kernel, MeanField, normalized
from .operators import (
    DenseCRFGradients,
    DenseCRFInfo,
    GaussianFilterGradients,
    dense_crf,
    dense_crf_vjp,
    gaussian_filter,
    gaussian_filter_vjp,
)

__all__ = [
    "DenseCRFGradients",
    "DenseCRFInfo",
    "GaussianFilterGradients",
    "Kernel",
    "MeanField",
    "dense_crf",
    "dense_crf_vjp",
    "gaussian_filter",
    "gaussian_filter_vjp",
    "normalized",
]
