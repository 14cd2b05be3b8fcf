"""The Gaussian filters of a method: over points by their features, over pixels by their positions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .. import _array
from . import _cpu, _gpu, lattice
from .arguments import Sizes
from .grid import GridGaussian
from .pairs import AllPairs

__all__ = ["backend", "of_colours", "of_points", "of_positions"]


def backend(x: Any) -> Any:
    """The module with the lattice and the update for an array: the GPU's, or the CPU's, which takes NumPy arrays."""
    return _gpu if _array.on_gpu(x) else _cpu


def of_points(features: Any, method: str, dtype: str) -> Any:
    """The filter of features [B, D, N] for values of a dtype."""
    if method == "exact":
        return AllPairs(features, dtype=dtype)
    return backend(features).Lattice(features, _blurs(method), method == "lattice_fine")


def of_positions(
    size: Sizes, theta: tuple[float, float], method: str, like: Any, origin: tuple[int, int] = (0, 0)
) -> tuple[Any, Any]:
    """The filter of the distances of pixels, of widths (x, y), and its features [B, 2, N], None on the grid.

    ``like`` has the library, device and dtype of the values. The first pixel is pixel ``origin`` (x, y) of the image
    that the lattice is laid around.
    """
    real = _array.dtype_name(like)
    if method != "lattice":
        return GridGaussian(like, (size.batch, size.height, size.width), theta), None
    features = _features(size, theta, like, real, lattice.phase(origin, theta, _blurs(method)))
    return of_points(features, method, real), features


def of_colours(
    size: Sizes, image: Any, theta: tuple[float, float], theta_beta: Sequence[float], method: str, like: Any,
    origin: tuple[int, int] = (0, 0),
) -> tuple[Any, Any]:  # fmt: skip
    """The filter of the distances and colours of pixels, and its features [B, 2 + C, N]; see :func:`of_positions`.

    For all pairs the features are float64, so that differences of them are exact.
    """
    real = _array.dtype_name(like)
    exact = method == "exact"
    start = (0.0, 0.0) if exact else lattice.phase(origin, theta, _blurs(method))
    features = _features(size, theta, like, "float64" if exact else real, start, image, theta_beta)
    return of_points(features, method, real), features


def _blurs(method: str) -> int:
    """How often a method's lattice is blurred along each axis."""
    return 2 if method == "lattice_fine" else 1


def _positions(size: Sizes, theta: tuple[float, float], like: Any, start: tuple[float, float]) -> list[Any]:
    """The x / theta_x and y / theta_y of the pixels, [N] each, the first pixel being at ``start`` (x, y)."""
    real = _array.dtype_name(like)
    x = (start[0] + np.arange(size.width)).astype(real) / np.dtype(real).type(theta[0])
    y = (start[1] + np.arange(size.height)).astype(real) / np.dtype(real).type(theta[1])
    shape = (size.height, size.width)
    return [
        _array.from_host(np.broadcast_to(x[None], shape).reshape(-1), like),
        _array.from_host(np.broadcast_to(y[:, None], shape).reshape(-1), like),
    ]


def _features(
    size: Sizes, theta: tuple[float, float], like: Any, real: str, start: tuple[float, float], image: Any = None,
    theta_beta: Sequence[float] = (),
) -> Any:  # fmt: skip
    """[B, D, N] of dtype ``real``: positions, from ``start`` (x, y) on, and channels, each divided by its width."""
    out = _array.empty(like, (size.batch, 2 + len(theta_beta), size.pixels), real)
    for axis, position in enumerate(_positions(size, theta, out, start)):
        out[:, axis] = position
    if theta_beta:
        channels = image.reshape(size.batch, size.pixels, size.channels)
        for c, sigma in enumerate(theta_beta):
            out[:, 2 + c] = _array.astype(channels[..., c], real) / np.dtype(real).type(sigma)
    return out
