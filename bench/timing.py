"""Clocks and ceilings: how long a call takes on the CPU and on the GPU, and what the machine can do at best.

All times are in seconds. Calls that are compared take turns, so that a machine that slows down slows all.
"""

from __future__ import annotations

import functools
import importlib
import math
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

Call = Callable[[], Any]
Samples = dict[str, list[float]]

FLUSH_BYTES = 256 << 20  # more than the L2 cache of any GPU
SHORTEST = 1e-3  # a CPU sample lasts at least this long, s


def summary(samples: list[float]) -> dict[str, float]:
    """Median and the 20th and 80th percentile of samples, s."""
    p20, median, p80 = np.percentile(samples, (20, 50, 80))
    return {"median": float(median), "p20": float(p20), "p80": float(p80), "rounds": len(samples)}


# ---- CPU ------------------------------------------------------------------------------------------------


def _elapsed(call: Call, loops: int) -> float:
    start = time.perf_counter()
    for _ in range(loops):
        call()
    return (time.perf_counter() - start) / loops


def cpu_times(calls: Mapping[str, Call], seconds: float = 2.0, benchmark: Any = None) -> Samples:
    """Wall time of each call in turns, for about ``seconds`` in all and at least 3 rounds.

    ``benchmark`` is pytest-benchmark's fixture: it then times the first call, and the others run in its
    set-up, so that they still take turns.
    """
    first = {name: _elapsed(call, 1) for name, call in calls.items()}  # warm-up: caches, compilation, threads
    first = {name: min(t, _elapsed(calls[name], 1)) for name, t in first.items()}
    loops = {name: max(1, math.ceil(SHORTEST / max(t, 1e-7))) for name, t in first.items()}
    one_round = sum(first[name] * loops[name] for name in calls)
    rounds = min(max(math.ceil(seconds / one_round), 3), 50)
    samples: Samples = {name: [] for name in calls}

    def turn(names: list[str]) -> None:
        for name in names:
            samples[name].append(_elapsed(calls[name], loops[name]))

    ours, *others = calls
    if benchmark is None:
        for _ in range(rounds):
            turn([*others, ours])
        return samples

    def repeated() -> None:
        for _ in range(loops[ours]):
            calls[ours]()

    benchmark.pedantic(repeated, setup=lambda: turn(others), rounds=rounds, iterations=1)
    samples[ours] = [t / loops[ours] for t in benchmark.stats.stats.data]
    return samples


# ---- GPU ------------------------------------------------------------------------------------------------


@functools.cache
def _cupy() -> Any:
    return importlib.import_module("cupy")


class GpuClock:
    """CUDA events around single calls on the default stream, each with a cold L2 cache.

    The write that flushes the cache also keeps the GPU busy while the host prepares the call, so that the
    events see the GPU's time and not the launch; the host's own time is reported beside it.
    """

    def __init__(self) -> None:
        cupy = _cupy()
        self.stream = cupy.cuda.Stream.null
        self.buffer = cupy.empty(FLUSH_BYTES // 4, cupy.float32)
        self.flush()
        self.flush_time = min(self._between(self.flush) for _ in range(5))

    def flush(self) -> None:
        """Writes through the whole L2 cache."""
        self.buffer.fill(0)

    def _between(self, call: Call) -> float:
        cupy = _cupy()
        start, stop = cupy.cuda.Event(), cupy.cuda.Event()
        start.record(self.stream)
        call()
        stop.record(self.stream)
        stop.synchronize()
        return cupy.cuda.get_elapsed_time(start, stop) * 1e-3

    def host_time(self, call: Call) -> float:
        """How long the host needs to give the call to an idle GPU, s."""
        self.stream.synchronize()
        return _elapsed(call, 1)

    def time(self, call: Call, flushes: int) -> float:
        """One call with a cold cache, s."""
        self.stream.synchronize()
        for _ in range(flushes):
            self.flush()
        return self._between(call)


def gpu_times(calls: Mapping[str, Call], seconds: float = 0.3) -> tuple[Samples, dict[str, float]]:
    """GPU time of each call in turns, and the host time of one call; 10 to 100 rounds."""
    clock = GpuClock()
    for call in calls.values():  # warm-up: loading, algorithm search
        for _ in range(3):
            call()
    host = {name: min(clock.host_time(call) for _ in range(3)) for name, call in calls.items()}
    flushes = {name: min(1 + math.ceil(t / clock.flush_time), 8) for name, t in host.items()}
    first = {name: clock.time(call, flushes[name]) for name, call in calls.items()}
    one_round = sum(first[name] + flushes[name] * clock.flush_time for name in calls)
    samples: Samples = {name: [] for name in calls}
    for _ in range(min(max(math.ceil(seconds / one_round), 10), 100)):
        for name, call in calls.items():
            samples[name].append(clock.time(call, flushes[name]))
    return samples, host


# ---- ceilings -------------------------------------------------------------------------------------------


def gpu_ceilings() -> dict[str, float]:
    """The most that this GPU reached: ``copy`` in byte/s, the others in flop/s of a large matrix product."""
    cupy, torch = _cupy(), importlib.import_module("torch")
    source = cupy.ones(1 << 28, cupy.float32)
    target = cupy.empty_like(source)
    n = 8192
    calls: dict[str, Call] = {"copy": lambda: cupy.copyto(target, source)}
    flags = torch.backends.cuda.matmul
    tf32 = flags.allow_tf32
    for name, dtype in {
        "fp64": "float64",
        "fp32": "float32",
        "tf32": "float32",
        "fp16": "float16",
        "bf16": "bfloat16",
    }.items():
        a = torch.randn((n, n), dtype=torch.float32, device="cuda").to(getattr(torch, dtype))

        def product(a: Any = a, allowed: bool = name == "tf32") -> Any:
            flags.allow_tf32 = allowed
            return a @ a

        calls[name] = product
    try:
        samples, _ = gpu_times(calls, seconds=1.0)
    finally:
        flags.allow_tf32 = tf32
    best = {name: min(values) for name, values in samples.items()}
    return {name: (2 * source.nbytes if name == "copy" else 2 * n**3) / t for name, t in best.items()}


def cpu_ceilings() -> dict[str, float]:
    """The most that this CPU reached here: ``copy`` in byte/s, ``fp32`` and ``fp64`` in flop/s."""
    source = np.ones(1 << 25, np.float32)
    target = np.empty_like(source)
    n = 1024
    calls: dict[str, Call] = {"copy": lambda: np.copyto(target, source)}
    for name, dtype in (("fp32", np.float32), ("fp64", np.float64)):
        a = np.random.default_rng(0).standard_normal((n, n)).astype(dtype)
        calls[name] = functools.partial(np.matmul, a, a)
    best = {name: min(values) for name, values in cpu_times(calls, seconds=0.5).items()}
    return {name: (2 * source.nbytes if name == "copy" else 2 * n**3) / t for name, t in best.items()}
