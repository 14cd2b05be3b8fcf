"""The CPU runner on numba.cuda kernels: results in every order, planted faults, arguments."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tests.hostrun import HostBackend, HostError, RaceError

cuda = pytest.importorskip("numba.cuda", reason="needs numba-cuda")
numba = pytest.importorskip("numba")

ORDERS = ["forward", "reverse", "random"]
WAYS = list(itertools.product(["fast", "check"], ORDERS))
every_way = pytest.mark.parametrize(("mode", "order"), WAYS, ids=["-".join(way) for way in WAYS])


RECORD = numba.from_dtype(np.dtype([("a", np.float32), ("b", np.int32), ("c", np.float64)]))


@cuda.jit(device=True)
def square(a: float) -> float:
    return a * a


def elementwise(y: Any, x: Any, a: float) -> None:
    i = cuda.grid(1)
    if i < x.size:
        y[i] += a * square(x[i]) + math.exp(-x[i])


def warp_mix(x: Any, y: Any, n: int) -> None:
    i = cuda.grid(1)
    t = cuda.threadIdx.x
    s = cuda.shared.array(256, "float32")
    d = cuda.shared.array(0, "float32")
    s[t] = x[i] if i < n else 0.0
    d[t] = t
    cuda.syncthreads()
    v = cuda.shfl_xor_sync(0xFFFFFFFF, s[255 - t], 1)
    b = cuda.ballot_sync(0xFFFFFFFF, t & 1)
    w = cuda.shfl_down_sync(0xFFFFFFFF, v, 1)
    if i < n:
        y[i] = v + d[255 - t] + (b & 3) + w
    cuda.atomic.add(y, n, 1.0)
    cuda.atomic.max(y, n + 1, v)


def row_argmin(cost: Any, out: Any) -> None:
    best = cuda.shared.array(64, "float32")
    where = cuda.shared.array(64, "int32")
    t = cuda.threadIdx.x
    row = cuda.blockIdx.x
    best[t] = math.inf
    where[t] = -1
    for column in range(t, cost.shape[1], 64):
        if cost[row, column] < best[t]:
            best[t] = cost[row, column]
            where[t] = column
    cuda.syncthreads()
    step = 32
    while step > 0:
        if t < step and best[t + step] < best[t]:
            best[t] = best[t + step]
            where[t] = where[t + step]
        cuda.syncthreads()
        step //= 2
    if t == 0:
        out[row] = where[0]


def race_in_shared(x: Any, out: Any) -> None:
    s = cuda.shared.array(32, "float32")
    t = cuda.threadIdx.x
    s[t] = x[t]
    out[t] = s[31 - t]


def reads_then_one_writes(out: Any, chosen: int, barrier: int) -> None:
    s = cuda.shared.array(1, "float64")
    t = cuda.threadIdx.x
    if t == 0:
        s[0] = 1
    cuda.syncthreads()
    seen = s[0]
    other = cuda.shfl_xor_sync(0xFFFFFFFF, t, 1)
    if barrier == 1:
        cuda.syncwarp()
    if barrier == 2:
        cuda.syncthreads()
    if t == chosen:
        s[0] = other
    out[t] = seen


def one_writes_each_round(out: Any, chosen: int, barrier: int) -> None:
    s = cuda.shared.array(1, "float64")
    t = cuda.threadIdx.x
    total = 0.0
    for i in range(3):
        if t == chosen:
            s[0] = i
        cuda.syncthreads()
        total += s[0]
        if barrier == 1:
            cuda.syncwarp()
        if barrier == 2:
            cuda.syncthreads()
    out[t] = total


def complex_neighbours(out: Any, chosen: int, barrier: int) -> None:
    s = cuda.shared.array(128, "complex64")
    t = cuda.threadIdx.x
    s[t] = complex(t, 1)
    if barrier == 1:
        cuda.syncwarp()
    if barrier == 2:
        cuda.syncthreads()
    out[t] = s[t ^ 32].real


def record_neighbours(out: Any, chosen: int, barrier: int) -> None:
    s = cuda.shared.array((2, 128), RECORD)
    t = cuda.threadIdx.x
    s[0, t].a = t
    s[0, t].b = t
    s[0, t].c = t
    s[1, t] = s[0, t]
    if barrier == 1:
        cuda.syncwarp()
    if barrier == 2:
        cuda.syncthreads()
    out[t] = s[1, t ^ 32].b


def outside(y: Any) -> None:
    y[cuda.grid(1)] = 1


@every_way
def test_numba_elementwise(mode: str, order: str) -> None:
    x = np.random.default_rng(0).random(1000, np.float32)
    y = x.copy()
    HostBackend(mode, order).numba_kernel(elementwise)((4, 1, 1), (256, 1, 1), [y, x, np.float32(2)])
    np.testing.assert_allclose(y, x + 2 * x * x + np.exp(-x), rtol=1e-5)


@every_way
def test_numba_warp_operations(mode: str, order: str) -> None:
    x = np.random.default_rng(0).random(256, np.float32)
    y = np.zeros(258, np.float32)
    kernel = HostBackend(mode, order).numba_kernel(warp_mix)
    kernel((1, 1, 1), (256, 1, 1), [x, y, np.int32(256)], shared_mem=1024)
    t = np.arange(256)
    v = x[255 - (t ^ 1)]
    w = np.where(t % 32 == 31, v, np.roll(v, -1))
    np.testing.assert_allclose(y[:256], v + 255 - t + 2 + w, rtol=1e-5)
    assert y[256] == 256
    assert y[257] == x.max()


@every_way
def test_numba_argmin(mode: str, order: str) -> None:
    cost = np.random.default_rng(0).random((8, 200), np.float32)
    out = np.zeros(8, np.int32)
    HostBackend(mode, order).numba_kernel(row_argmin)((8, 1, 1), (64, 1, 1), [cost, out])
    np.testing.assert_array_equal(out, cost.argmin(axis=1))


@pytest.mark.parametrize("order", ORDERS)
def test_numba_faults(order: str) -> None:
    def line(function: Callable[..., None], offset: int) -> str:
        return f"test_hostrun_numba.py:{function.__code__.co_firstlineno + offset}"

    backend = HostBackend("check", order)
    x, out = np.zeros(32, np.float32), np.zeros(32, np.float32)
    with pytest.raises(RaceError, match="race on shared array 0") as race:
        backend.numba_kernel(race_in_shared)((1, 1, 1), (32, 1, 1), [x, out])
    assert line(race_in_shared, 4) in str(race.value)
    with pytest.raises(HostError, match=r"out-of-bounds write .* argument 0 \(120 bytes\)") as stray:
        backend.numba_kernel(outside)((1, 1, 1), (32, 1, 1), [out[:30]])
    assert line(outside, 1) in str(stray.value)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("threads", [32, 128])
@pytest.mark.parametrize("function", [reads_then_one_writes, one_writes_each_round])
def test_numba_one_thread_against_all(function: Any, threads: int, order: str) -> None:
    kernel = HostBackend("check", order).numba_kernel(function)

    def run(chosen: int, barrier: int) -> None:
        args = [np.zeros(threads), np.int32(chosen), np.int32(barrier)]
        kernel((1, 1, 1), (threads, 1, 1), args)

    enough = 1 if threads == 32 else 2
    for chosen in range(threads):
        for barrier in range(enough, 3):
            run(chosen, barrier)
        for barrier in range(enough):
            with pytest.raises(RaceError, match="race on shared array 0 byte 0"):
                run(chosen, barrier)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("function", [complex_neighbours, record_neighbours])
def test_numba_values_of_several_parts(function: Any, order: str) -> None:
    kernel = HostBackend("check", order).numba_kernel(function)
    out = np.zeros(128)
    kernel((1, 1, 1), (128, 1, 1), [out, np.int32(0), np.int32(2)])
    np.testing.assert_array_equal(out, np.arange(128) ^ 32)
    for barrier in range(2):
        with pytest.raises(RaceError, match="race on shared array 0"):
            kernel((1, 1, 1), (128, 1, 1), [out, np.int32(0), np.int32(barrier)])


def test_numba_arguments() -> None:
    kernel = HostBackend("check").numba_kernel(elementwise)
    empty = np.zeros(0, np.float32)
    kernel((1, 1, 1), (32, 1, 1), [empty, empty, np.float32(2)])
    with pytest.raises(HostError, match="argument 1 is not C-contiguous"):
        kernel((1, 1, 1), (32, 1, 1), [np.zeros(4), np.zeros(8)[::2], np.float32(2)])
    with pytest.raises(HostError, match="argument 2 is float, no NumPy array or scalar"):
        kernel((1, 1, 1), (32, 1, 1), [empty, empty, 2.0])
