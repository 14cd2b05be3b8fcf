"""More than one machine: a function over a data set, and operators over images larger than memory.

:func:`map_items` takes any ``concurrent.futures.Executor``, Dask's included. The operators of images take and return
dask arrays, of NumPy or CuPy chunks, and compute them chunk by chunk with a halo of their neighbours' pixels.
"""

from __future__ import annotations

from .crf import crf_halo, dense_crf
from .images import affinity_degree, affinity_product, conv2d, interpolate
from .items import Mapped, map_items

__all__ = [
    "Mapped",
    "affinity_degree",
    "affinity_product",
    "conv2d",
    "crf_halo",
    "dense_crf",
    "interpolate",
    "map_items",
]
