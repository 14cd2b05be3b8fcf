"""The launcher's way to run kernels on the CPU."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .build import MODES
from .errors import HostError
from .launch import ORDERS, HostKernel, Options, host_module


class HostBackend:
    """Compiles and runs kernels on the CPU; use one from a single thread only.

    ``mode``: ``fast``, ``check`` (memory, race, initialisation and barrier checks), ``asan``,
    ``ubsan``. ``order``: ``forward``, ``reverse`` or ``random`` order of threads and blocks.
    ``preempt=N`` (check mode) also switches threads at one of N memory accesses. ``watchdog``:
    seconds of CPU time without a barrier, a warp operation or the end of a thread.
    """

    def __init__(
        self,
        mode: str = "check",
        order: str = "random",
        seed: int = 1,
        preempt: int = 0,
        watchdog: float = 20.0,
    ) -> None:
        if mode not in MODES:
            raise HostError(f"mode {mode!r}: one of {', '.join(MODES)}")
        if order not in ORDERS:
            raise HostError(f"order {order!r}: one of {', '.join(ORDERS)}")
        self.mode = mode
        self.options = Options(order, seed, preempt, watchdog)
        self.stats: dict[str, int] = {"launches": 0}

    def cuda_kernel(self, source: str, name: str) -> HostKernel:
        """A kernel of a CUDA C++ source: ``kernel(grid, block, args, shared_mem=0)``."""
        return host_module(source, self.mode).function(name, self.options, self._count)

    def numba_kernel(self, function: Callable[..., Any]) -> Callable[..., None]:
        """The same for a numba.cuda kernel, compiled for the types of the arguments at each call."""
        from .numba_host import NumbaHostKernel

        return NumbaHostKernel(function, self.mode, self.options, self._count)

    def _count(self, stats: dict[str, int]) -> None:
        self.stats = {**stats, "launches": self.stats["launches"] + 1}
