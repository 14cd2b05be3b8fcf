"""Eigenpairs of graph Laplacians."""

from __future__ import annotations

from .solve import Eigenpairs, smallest_eigenpairs

__all__ = ["Eigenpairs", "smallest_eigenpairs"]
