"""Runs unmodified CUDA C++ and numba.cuda kernels on the CPU and checks them. See README.md."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .backend import HostBackend
from .errors import HostError, RaceError
from .launch import HostKernel, HostModule, Pointer, TensorMap
from .poison import poisoned, unwritten

if TYPE_CHECKING:
    from .numba_host import NumbaHostKernel

__all__ = [
    "HostBackend",
    "HostError",
    "HostKernel",
    "HostModule",
    "NumbaHostKernel",
    "Pointer",
    "RaceError",
    "TensorMap",
    "poisoned",
    "unwritten",
]


def __getattr__(name: str) -> Any:
    # numba takes half a second to import; most users only run CUDA C++.
    if name == "NumbaHostKernel":
        from .numba_host import NumbaHostKernel

        return NumbaHostKernel
    raise AttributeError(name)
