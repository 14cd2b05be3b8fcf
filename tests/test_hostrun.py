"""The CPU runner: correct kernels give correct results, and every planted fault is found."""

from __future__ import annotations

import itertools
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np
import pytest

from tests.hostrun import HostBackend, HostError, Pointer, RaceError, TensorMap, poisoned, unwritten
from tests.hostrun.build import kernels_of, translation_unit
from tests.hostrun.profile import profile

SAMPLES = Path(__file__).parent / "hostrun" / "samples"
MODES = ["fast", "check"]
ORDERS = ["forward", "reverse", "random"]
ALL_ONES_64 = np.iinfo(np.uint64).max

WAYS = list(itertools.product(MODES, ORDERS))
every_way = pytest.mark.parametrize(("mode", "order"), WAYS, ids=["-".join(way) for way in WAYS])


def source_of(file: str, *bugs: str) -> str:
    """A sample with planted faults switched on, as a launcher pastes it: with a #line directive."""
    defines = "".join(f"#define BUG_{bug}\n" for bug in bugs)
    return f'{defines}#line 1 "{file}"\n{(SAMPLES / file).read_text()}'


def line_of(file: str, text: str) -> str:
    """``file:line`` of the one line of a sample that ends with this text."""
    lines = (SAMPLES / file).read_text().splitlines()
    (number,) = (i for i, line in enumerate(lines, 1) if line.endswith(text))
    return f"{file}:{number}"


def at(array: np.ndarray) -> Pointer:
    return Pointer(array.ctypes.data, array.nbytes)


def launch(
    backend: HostBackend,
    file: str,
    name: str,
    blocks: Sequence[int],
    threads: Sequence[int],
    *args: Any,
    shared_mem: int = 0,
    bugs: Sequence[str] = (),
) -> None:
    """Runs a kernel of a sample; arrays become pointers."""
    kernel = backend.cuda_kernel(source_of(file, *bugs), name)
    values = [at(value) if isinstance(value, np.ndarray) else value for value in args]
    grid = (*blocks, 1, 1)[:3]
    kernel(grid, (*threads, 1, 1)[:3], values, shared_mem)


def matrices(m: int, n: int, k: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.standard_normal((m, k), np.float32), rng.standard_normal((n, k), np.float32)


# ---- correct kernels


def run_gemm(backend: HostBackend, *bugs: str) -> tuple[np.ndarray, np.ndarray]:
    m, n, k = 50, 37, 41
    a, b = matrices(m, n, k)
    b = np.ascontiguousarray(b.T)
    c = poisoned((m, n))
    sizes = np.int32([m, n, k])
    launch(backend, "gemm.cu", "gemm", (3, 4), (16, 16), a, b, c, *sizes, bugs=bugs)
    return c, a @ b


@every_way
def test_gemm(mode: str, order: str) -> None:
    backend = HostBackend(mode, order)
    c, expected = run_gemm(backend)
    np.testing.assert_allclose(c, expected, rtol=1e-4, atol=1e-4)
    assert backend.stats["barriers"] == 2 * 3 * 12
    assert backend.stats["launches"] == 1
    assert (backend.stats["accesses"] > 0) == (mode == "check")


@every_way
def test_block_sum(mode: str, order: str) -> None:
    x = np.random.default_rng(0).integers(0, 100, 5000).astype(np.int32)
    out = np.zeros(1, np.int32)
    launch(HostBackend(mode, order), "functions.cu", "block_sum", (3,), (256,), x, out, np.int32(5000))
    assert out[0] == x.sum()


@every_way
def test_hash_insert(mode: str, order: str) -> None:
    keys = np.random.default_rng(0).integers(0, 300, 1000).astype(np.uint64)
    capacity = 1024
    table = np.full(capacity, ALL_ONES_64)
    count = np.zeros(capacity, np.int32)
    slot = poisoned(1000, np.int32)
    backend = HostBackend(mode, order, preempt=7 if mode == "check" else 0)
    sizes = np.int32([1000, capacity])
    launch(backend, "functions.cu", "hash_insert", (4,), (256,), keys, table, count, slot, *sizes)
    distinct, times = np.unique(keys, return_counts=True)
    np.testing.assert_array_equal(table[slot], keys)
    np.testing.assert_array_equal(np.sort(table[table != ALL_ONES_64]), distinct)
    np.testing.assert_array_equal(count[table != ALL_ONES_64][np.argsort(table[table != ALL_ONES_64])], times)


@every_way
def test_collectives(mode: str, order: str) -> None:
    out = np.zeros((14, 64), np.int32)
    backend = HostBackend(mode, order)
    launch(backend, "functions.cu", "collectives", (1,), (64,), out, shared_mem=256)
    t = np.arange(64)
    lane = t % 32
    expected = [
        np.full(64, 0xAAAAAAAA, np.uint32).view(np.int32),
        (np.uint64(0xF) << (lane // 4 * 4).astype(np.uint64)).astype(np.uint32).view(np.int32),
        np.where(t < 32, 3, 2),
        np.where(lane == 0, t, t - 1),
        t // 8 * 8 + 3,
        63 - t,
        np.full(64, 10),
        np.where(t < 32, 496, 496 + 1024),
        np.zeros(64),
        np.zeros(64),
        np.ones(64),
        np.zeros(64),
        np.where(lane < 30, t + 2, t),
    ]
    for row, values in enumerate(expected):
        np.testing.assert_array_equal(out[row], values, err_msg=f"row {row}")
    np.testing.assert_array_equal(out[13, :8], t[:8] ^ 7)


@every_way
@pytest.mark.parametrize("kind", ["f16", "bf16", "tf32"])
def test_tensor_core_tile(mode: str, order: str, kind: str) -> None:
    m, n, k = 32, 24, 48
    a, b = matrices(m, n, k)
    c = poisoned((m, n))
    if kind != "tf32":
        dtype = np.float16 if kind == "f16" else ml_dtypes.bfloat16
        a, b = a.astype(dtype), b.astype(dtype)
    sizes = np.int32([n, k])
    backend = HostBackend(mode, order)
    launch(backend, "mma.cu", f"mma_{kind}", (n // 8, m // 16), (32,), a, b, c, *sizes)
    expected = a.astype(np.float32) @ b.astype(np.float32).T
    np.testing.assert_allclose(c, expected, atol=2e-2 if kind == "tf32" else 1e-4)


def run_pipelined(backend: HostBackend, *bugs: str) -> tuple[np.ndarray, np.ndarray]:
    m, n, k = 100, 64, 96
    a, b = (x.astype(ml_dtypes.bfloat16) for x in matrices(m, n, k))
    c = poisoned((m, n))
    sizes = np.int32([m, n, k])
    launch(backend, "mma.cu", "gemm_pipelined", (1, 2), (128,), a, b, c, *sizes, bugs=bugs)
    return c, a.astype(np.float32) @ b.astype(np.float32).T


@every_way
def test_pipelined_gemm(mode: str, order: str) -> None:
    c, expected = run_pipelined(HostBackend(mode, order))
    np.testing.assert_allclose(c, expected, rtol=1e-4, atol=1e-4)


def test_ldmatrix() -> None:
    matrix = np.arange(256, dtype=np.uint16).reshape(4, 8, 8)
    out = poisoned((12, 32), np.uint32)
    launch(HostBackend(), "mma.cu", "load_matrices", (1,), (32,), matrix, out)
    plain = matrix.reshape(4, 64).view(np.uint32)
    transposed = np.ascontiguousarray(matrix.transpose(0, 2, 1)).reshape(4, 64).view(np.uint32)
    expected = np.concatenate([plain, transposed, plain[:2], transposed[:2]])
    np.testing.assert_array_equal(out, expected)


def test_copies_of_every_width() -> None:
    data = np.arange(64, dtype=np.float32)
    out = poisoned((2, 32, 4))
    launch(HostBackend(), "mma.cu", "copies", (1,), (32,), data, out, np.int32(64))
    padded = np.r_[data, np.zeros(64, np.float32)].reshape(32, 4)
    np.testing.assert_array_equal(out[0], padded)
    np.testing.assert_array_equal(out[1, :, :3], padded[:, [2, 3, 0]])


@every_way
def test_hopper(mode: str, order: str) -> None:
    c, expected = run_hopper(HostBackend(mode, order))
    np.testing.assert_allclose(c, expected, rtol=1e-4, atol=1e-4)


def run_hopper(backend: HostBackend, *bugs: str) -> tuple[np.ndarray, np.ndarray]:
    m, n, k = 100, 64, 192
    a, b = (x.astype(ml_dtypes.bfloat16) for x in matrices(m, n, k))
    c = poisoned((m, n))
    maps = [TensorMap(x.view(np.uint16), (64, 64)) for x in (a, b)]
    sizes = np.int32([m, n, k])
    args = (*maps, c, *sizes)
    launch(backend, "hopper.cu", "gemm_hopper", (1, 2), (128,), *args, shared_mem=32768, bugs=bugs)
    return c, a.astype(np.float32) @ b.astype(np.float32).T


def test_every_16_bit_pattern_widens() -> None:
    bits = np.arange(65536, dtype=np.uint16)
    f16, bf16 = poisoned(65536), poisoned(65536)
    launch(HostBackend("fast"), "functions.cu", "from_16_bit", (64,), (1024,), bits, f16, bf16)
    np.testing.assert_array_equal(f16, bits.view(np.float16).astype(np.float32))
    np.testing.assert_array_equal(bf16, bits.view(ml_dtypes.bfloat16).astype(np.float32))


def test_floats_narrow_to_nearest_even() -> None:
    # Every 16-bit value, the midpoint to its successor, and both neighbours of that midpoint.
    halves = np.arange(65536, dtype=np.uint16).view(np.float16).astype(np.float32)
    words = np.arange(65536, dtype=np.uint32) << 16
    near = [w.view(np.float32) for w in (words, words + 0x7FFF, words + 0x8000, words + 0x8001)]
    with np.errstate(all="ignore"):
        middle = (halves + np.nextafter(halves.astype(np.float16), np.float16(np.inf))) / 2
        near += [halves, middle.astype(np.float32), np.nextafter(middle, np.float32(0))]
    values = np.concatenate(near).astype(np.float32)
    n = values.size
    f16, bf16, tf32 = poisoned(n, np.uint16), poisoned(n, np.uint16), poisoned(n)
    backend = HostBackend("fast")
    sizes = (np.int32(n),)
    launch(backend, "functions.cu", "to_16_bit", (n // 1024,), (1024,), values, f16, bf16, tf32, *sizes)
    with np.errstate(over="ignore", invalid="ignore"):
        expected = values.astype(np.float16), values.astype(ml_dtypes.bfloat16)
    number = ~np.isnan(values)
    for got, want in zip((f16, bf16), expected, strict=True):
        np.testing.assert_array_equal(got[number], want.view(np.uint16)[number])
        assert (got[~number] == 0x7FFF).all()
    finite = np.isfinite(values) & (np.abs(values) < 3e38)
    assert (tf32[finite].view(np.uint32) & 0x1FFF == 0).all()
    assert (np.abs(tf32[finite] - values[finite]) <= np.maximum(np.abs(values[finite]) * 2.0**-11, 2e-41)).all()


@every_way
def test_last_block_with_fence(mode: str, order: str) -> None:
    x = np.arange(8, dtype=np.int32)
    part, arrived, out = poisoned(8, np.int32), np.zeros(1, np.uint32), poisoned(1, np.int32)
    launch(HostBackend(mode, order), "functions.cu", "last_block", (8,), (32,), x, part, arrived, out)
    assert out[0] == x.sum()


@every_way
def test_named_barriers_order_their_warps(mode: str, order: str) -> None:
    x = np.arange(4 * 64, dtype=np.int32).reshape(4, 64)
    out = poisoned((4, 64), np.int32)
    backend = HostBackend(mode, order)
    launch(backend, "functions.cu", "producer_consumer", (1,), (128,), x, out, np.int32(4))
    np.testing.assert_array_equal(out, x[:, ::-1])


def test_atomics() -> None:
    integers = np.zeros(4, np.int32)
    words = np.array([0xFFFFFFFF, 0, 0, 0, 0, 0], np.uint32)
    floats, longs = np.zeros(1, np.float32), np.zeros(1, np.uint64)
    launch(HostBackend(), "functions.cu", "atomics", (1,), (32,), integers, words, floats, longs)
    np.testing.assert_array_equal(integers, [496, -496, -31, 31])
    np.testing.assert_array_equal(words, [0, 0xFFFFFFFF, 0xFFFFFFFF, 32 % 7, (7 - 32 % 7) % 7, 9])
    assert floats[0] == 16
    assert longs[0] == 32 << 40


def test_math() -> None:
    out = poisoned(8)
    launch(HostBackend(), "functions.cu", "math", (1,), (1,), out)
    limit = np.iinfo(np.int32).max % 1000
    np.testing.assert_array_equal(out, [2.5, 4, 8 + 31 + 4 + 1, 1.5, 1, 3 + 2, 2 + 3 + limit, 3])


# ---- arguments


def test_overlapping_pointers_alias() -> None:
    data = np.zeros(8, np.float32)
    launch(HostBackend(), "functions.cu", "overlapping", (1,), (1,), data[:7], data[1:], np.int32(7))
    np.testing.assert_array_equal(data, np.arange(8))


def test_every_scalar_type() -> None:
    out = poisoned(5, np.int32)
    scalars = (np.bool_(True), np.uint8(200), np.int64(7 << 32), np.float64(2.5))
    launch(HostBackend(), "functions.cu", "mixed", (1,), (1,), out, *scalars, None)
    np.testing.assert_array_equal(out, [1, 200, 7, 2, 1])
    launch(HostBackend(), "functions.cu", "mixed", (1,), (1,), out, *scalars, Pointer(0, 0))
    assert out[4] == 1


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (np.float64(2), r"argument 2 is float64, the kernel declares float \(4 bytes\)"),
        (np.int32(2), "argument 2 is int32, the kernel declares float"),
        (2.0, "argument 2 is float .no NumPy scalar., the kernel declares float"),
        (None, "argument 2 is None, the kernel declares float"),
    ],
)
def test_wrong_scalar_type(given: Any, message: str) -> None:
    x = np.ones(8, np.float32)
    with pytest.raises(HostError, match=message):
        launch(HostBackend(), "functions.cu", "axpy", (1,), (32,), x, x.copy(), given, np.int32(8))


def test_scalar_for_pointer() -> None:
    x = np.ones(8, np.float32)
    args = (x, np.int64(0), np.float32(2), np.int32(8))
    with pytest.raises(HostError, match="argument 1 is int64, the kernel declares float const"):
        launch(HostBackend(), "functions.cu", "axpy", (1,), (32,), *args)


def test_wrong_argument_count() -> None:
    x = np.ones(8, np.float32)
    with pytest.raises(HostError, match="axpy: 2 arguments given, the kernel has 4"):
        launch(HostBackend(), "functions.cu", "axpy", (1,), (32,), x, x)


def test_bad_launch_shapes() -> None:
    out = np.zeros(64, np.int32)
    with pytest.raises(HostError, match="block of 33 threads, __launch_bounds__ allows 32"):
        launch(HostBackend(), "faults.cu", "bounded", (1,), (33,), out)
    with pytest.raises(HostError, match="invalid grid size"):
        launch(HostBackend(), "faults.cu", "bounded", (0,), (32,), out)
    with pytest.raises(HostError, match="dynamic shared memory: at most"):
        launch(HostBackend(), "faults.cu", "bounded", (1,), (32,), out, shared_mem=1 << 20)


def test_unknown_names_and_compile_errors() -> None:
    with pytest.raises(HostError, match="no kernel missing in the source: it has gemm"):
        HostBackend().cuda_kernel(source_of("gemm.cu"), "missing")
    broken = '#line 7 "broken.cu"\nextern "C" __global__ void k(int* x) { x[0] = nonsense; }'
    with pytest.raises(HostError, match=r"broken\.cu:7.*nonsense"):
        HostBackend().cuda_kernel(broken, "k")
    with pytest.raises(HostError, match="mode 'quick'"):
        HostBackend("quick")


def test_source_rewriting() -> None:
    assert kernels_of('// extern "C" __global__ void a(\n' + source_of("faults.cu"))["bounded"] == "2 * 16"
    declaration = "extern __shared__ __align__(1024)\n  unsigned char smem[];\nint x;"
    text, alignment = translation_unit(declaration)
    assert alignment == 1024
    assert "HOST_DYNAMIC_SHARED(unsigned char, smem);\n\nint x;" in text


# ---- planted faults


class Fault(NamedTuple):
    """A kernel of faults.cu, how it is caught, and its arguments: sizes stand for zeroed arrays."""

    marker: str
    kind: type[HostError]
    message: str
    args: tuple[Any, ...] = (32,)
    blocks: int = 1
    shared_mem: int = 0


FAULTS = [
    Fault(
        "read_outside",
        HostError,
        "out-of-bounds read of 4 bytes at byte offset 128 of argument 0",
        (32, 32),
    ),
    Fault(
        "before_the_start",
        HostError,
        "out-of-bounds write of 4 bytes at byte offset -4 of argument 0",
    ),
    Fault(
        "shared_outside",
        HostError,
        "out-of-bounds write of 4 bytes at byte offset 128 of dynamic shared memory",
        shared_mem=128,
    ),
    Fault(
        "static_shared_outside",
        HostError,
        "out-of-bounds write of 4 bytes at byte offset 128 of __shared__ s",
        (32, np.int32(1)),
    ),
    Fault("missing_syncwarp", RaceError, "race on __shared__ s byte"),
    Fault("uninitialised", HostError, "read of uninitialised __shared__ s byte"),
    Fault("plain_update", RaceError, "race on argument 0 byte 0: read by", (1,), blocks=2),
    Fault("same_value", RaceError, "race on argument 0 byte 0: write by", (1,)),
    Fault("check_then_atomic", RaceError, "race on argument 0 byte 0", (1,), blocks=2),
    Fault("divergent_barrier", HostError, "divergent barrier"),
    Fault("divergent_barrier_too", HostError, "divergent barrier"),
    Fault("deadlock", HostError, "deadlock in block .*waiting in __syncthreads"),
    Fault("deadlock_too", HostError, "deadlock in block .*waiting in __syncwarp"),
    Fault("spin", HostError, "watchdog"),
    Fault("no_fence", RaceError, "race on argument 1 byte", (4, 4, 1, 1), blocks=4),
    Fault("misaligned", HostError, "misaligned", (160,)),
    Fault("local_index", HostError, r"array index 6 out of range for 'int \[4\]'", (32, np.int32(6))),
    Fault("division", HostError, "integer division by zero", (32, np.int32(0))),
    Fault("wide_shift", HostError, "shift of 'int' by 40", (32, np.int32(40))),
    Fault("not_in_mask", HostError, "lane 0 is not in its own mask fffffffe"),
    Fault("exited_lanes", HostError, "names lanes ffff0000 that have exited"),
    Fault("half_a_warp", HostError, "deadlock .*__shfl_xor_sync"),
    Fault("half_a_warp_too", HostError, "deadlock .*__syncwarp"),
    Fault("missing_copy_wait", HostError, "in flight", (128, 32)),
    Fault("wait_without_barrier", RaceError, "race on __shared__ s", (128, 32)),
    Fault("assertion", HostError, "assertion failed: blockDim.x == 31"),
]


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("fault", FAULTS, ids=[fault.marker for fault in FAULTS])
def test_planted_fault(fault: Fault, order: str) -> None:
    name = fault.marker.removesuffix("_too")
    args = [np.zeros(arg, np.int32) if isinstance(arg, int) else arg for arg in fault.args]
    backend = HostBackend("check", order, watchdog=0.05)
    grid, shared_mem = (fault.blocks,), fault.shared_mem
    with pytest.raises(HostError, match=fault.message) as caught:
        launch(backend, "faults.cu", name, grid, (32,), *args, shared_mem=shared_mem)
    assert type(caught.value) is fault.kind, caught.value
    assert line_of("faults.cu", f"// HERE {fault.marker}") in str(caught.value)


@pytest.mark.parametrize("name", ["with_syncwarp", "volatile_then_atomic"])
def test_the_right_way_passes(name: str) -> None:
    for order in ORDERS:
        launch(HostBackend("check", order), "faults.cu", name, (1,), (32,), np.zeros(32, np.int32))


# Kernels of races.cu, and how many threads a block has.
RACES = {
    "after_readers_in_warp": 32,
    "after_readers_and_shuffle": 32,
    "after_readers": 128,
    "after_other_warps": 128,
    "after_readers_in_global": 128,
    "next_iteration": 128,
    "after_writer": 128,
    "after_writer_in_global": 128,
    "after_atomics": 128,
    "before_atomics": 128,
}


def run_races(name: str, backend: HostBackend, chosen: int, *bugs: str) -> None:
    out, u = np.zeros(256, np.int32), np.zeros(2, np.int32)
    blocks, arrays = (2, (out, u)) if name.endswith("global") else (1, (out,))
    args = (*arrays, np.int32(chosen))
    launch(backend, "races.cu", name, (blocks,), (RACES.get(name, 128),), *args, bugs=bugs)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("name", RACES)
def test_one_thread_against_all(name: str, order: str) -> None:
    """Whichever thread writes alone, or reads alone: before, amid or after the others."""
    places = [line_of("races.cu", f"// HERE {name} {kind}") for kind in ("read", "write")]
    for chosen in range(RACES[name]):
        backend = HostBackend("check", order, seed=chosen)
        run_races(name, backend, chosen)
        with pytest.raises(RaceError) as caught:
            run_races(name, backend, chosen, "MISSING")
        assert all(place in str(caught.value) for place in places), caught.value


def test_order_by_pairs_is_no_race() -> None:
    for order, seed in [("forward", 1), ("reverse", 1), *(("random", seed) for seed in range(30))]:
        for chosen in (0, 13, 31):
            run_races("ordered_by_pairs", HostBackend("check", order, seed), chosen)


@pytest.mark.parametrize("order", ["forward", "reverse"])
def test_each_block_must_fence(order: str) -> None:
    def run(careless: int) -> None:
        arrays = (np.zeros(5, np.int32), np.zeros(1, np.int32), np.zeros(1, np.uint32))
        args = (*arrays, np.int32(careless))
        launch(HostBackend("check", order), "races.cu", "after_other_blocks", (5,), (32,), *args)

    run(-1)
    for careless in (1, 2, 3):
        with pytest.raises(RaceError, match=f"write by block . thread 0 .* read by block {careless}"):
            run(careless)


def test_missing_barrier_names_both_lines() -> None:
    with pytest.raises(RaceError, match=r"race on __shared__ [ab]s byte") as caught:
        run_gemm(HostBackend("check"), "MISSING_BARRIER")
    use = line_of("gemm.cu", "sum += as[ty][i] * bs[i][tx];")
    fill = line_of("gemm.cu", "a[row * k + k0 + tx] : 0.0f;")
    pattern = rf"(read|write) by block \d+ thread \d+ at {use} vs earlier write by block \d+ thread \d+ at {fill}"
    assert re.search(pattern, str(caught.value)), caught.value


def test_missing_barrier_shows_in_the_result() -> None:
    c, expected = run_gemm(HostBackend("fast"), "MISSING_BARRIER")
    assert not np.allclose(c, expected)


@pytest.mark.parametrize("mode", MODES)
def test_write_outside(mode: str) -> None:
    message = "out-of-bounds write" if mode == "check" else "guard page|canary"
    with pytest.raises(HostError, match=message) as caught:
        run_gemm(HostBackend(mode), "WRITE_OUTSIDE")
    if "canary" not in str(caught.value):
        assert re.search(r"gemm\.cu:\d+", str(caught.value))


def test_canary() -> None:
    out = np.zeros(32, np.int32)
    with pytest.raises(HostError, match="canary: write at byte offset -4 of argument 0"):
        launch(HostBackend("fast"), "faults.cu", "before_the_start", (1,), (32,), out)


def test_write_to_const_argument() -> None:
    with pytest.raises(HostError, match=r"write to argument 0, which the kernel declares const, at gemm\.cu:\d+"):
        run_gemm(HostBackend("check"), "WRITE_CONST")


def test_const_argument_is_not_copied_back() -> None:
    a = np.ones((16, 16), np.float32)
    sizes = np.int32([16, 16, 16])
    c = poisoned((16, 16))
    backend = HostBackend("fast")
    launch(backend, "gemm.cu", "gemm", (1, 1), (16, 16), a, a.copy(), c, *sizes, bugs=["WRITE_CONST"])
    assert (a == 1).all()


def test_unwritten_output() -> None:
    c, expected = run_gemm(HostBackend("check"), "UNWRITTEN")
    np.testing.assert_array_equal(unwritten(c), np.arange(1, 51) * 37 - 1)
    np.testing.assert_allclose(c[:, :-1], expected[:, :-1], rtol=1e-4, atol=1e-4)


def test_missing_copy_wait() -> None:
    with pytest.raises(HostError, match="in flight") as caught:
        run_pipelined(HostBackend("check"), "MISSING_WAIT")
    assert re.search(
        r"read of __shared__ [ab]s .* at mma\.cu:\d+ while the copy .* at mma\.cu:\d+",
        str(caught.value),
    )
    c, _ = run_pipelined(HostBackend("fast"), "MISSING_WAIT")
    assert np.isnan(c).any()


def test_missing_barrier_in_a_pipeline() -> None:
    with pytest.raises(RaceError, match=r"race on __shared__ [ab]s .* at mma\.cu:\d+"):
        run_pipelined(HostBackend("check"), "MISSING_BARRIER")


def test_missing_hopper_waits() -> None:
    c, _ = run_hopper(HostBackend("fast"), "MISSING_WAIT")
    assert np.isnan(c).any()
    with pytest.raises(HostError, match=r"in flight"):
        run_hopper(HostBackend("check"), "MISSING_WAIT")
    c, expected = run_hopper(HostBackend("fast"), "MISSING_WGMMA_WAIT")
    assert not np.allclose(c, expected, atol=1e-3)


def test_polite_spin_is_stopped() -> None:
    with pytest.raises(HostError, match="watchdog"):
        launch(
            HostBackend("fast", watchdog=0.1),
            "faults.cu",
            "spin_politely",
            (1,),
            (32,),
            np.zeros(1, np.int32),
        )


def test_the_runner_survives_failures() -> None:
    for _ in range(3):
        with pytest.raises(HostError):
            run_gemm(HostBackend("fast"), "WRITE_OUTSIDE")
        c, expected = run_gemm(HostBackend("fast"))
        np.testing.assert_allclose(c, expected, rtol=1e-4, atol=1e-4)


def test_ubsan_mode() -> None:
    c, expected = run_gemm(HostBackend("ubsan"))
    np.testing.assert_allclose(c, expected, rtol=1e-4, atol=1e-4)
    with pytest.raises(HostError, match="array index 6 out of range"):
        launch(
            HostBackend("ubsan"),
            "faults.cu",
            "local_index",
            (1,),
            (1,),
            np.zeros(1, np.int32),
            np.int32(6),
        )


def test_seed_reproduces_a_schedule() -> None:
    def race(seed: int) -> str:
        with pytest.raises(RaceError) as caught:
            run_gemm(HostBackend("check", seed=seed), "MISSING_BARRIER")
        return str(caught.value)

    assert race(3) == race(3)
    assert race(3) != race(4)


ASAN_SCRIPT = """
import sys
sys.path[:0] = [{root!r}]
import numpy as np
from tests.test_hostrun import HostBackend, run_gemm, run_pipelined
for c, expected in (run_gemm(HostBackend("asan")), run_pipelined(HostBackend("asan"))):
    np.testing.assert_allclose(c, expected, rtol=1e-4, atol=1e-4)
print("correct kernels pass", flush=True)
run_gemm(HostBackend("asan"), "WRITE_OUTSIDE")
print("not reached")
"""


def test_address_sanitizer() -> None:
    compiler = os.environ.get("CXX") or "g++"
    found = subprocess.run([compiler, "-print-file-name=libasan.so"], capture_output=True, text=True)
    library = found.stdout.strip()
    if not os.path.isabs(library):
        pytest.skip("the compiler brings no libasan.so")
    script = ASAN_SCRIPT.format(root=str(Path(__file__).parents[1]))
    environment = os.environ | {"LD_PRELOAD": library, "ASAN_OPTIONS": "detect_leaks=0"}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True)
    assert "correct kernels pass" in done.stdout, done.stderr
    assert "not reached" not in done.stdout
    # what lies behind the buffer decides who sees it first: the sanitizer, or the guard pages
    caught = "AddressSanitizer: heap-buffer-overflow", "access outside of every buffer (guard page)"
    assert any(text in done.stderr for text in caught), done.stderr
    assert re.search(r"gemm\.cu:\d+", done.stderr)


# ---- profile


def test_profile_sees_conflicts_and_stride() -> None:
    source = """
extern "C" __global__ void k(const float* x, float* y) {
  __shared__ float s[32 * 32];
  int t = threadIdx.x;
  s[t * 32] = x[t];
  __syncwarp();
  y[t * 8] = s[((t + 1) & 31) * 32];
}
"""
    x, y = np.zeros(32, np.float32), np.zeros(256, np.float32)
    kernel = HostBackend("check").cuda_kernel(source, "k")
    rows = {(row.place, row.space, row.kind): row for row in profile(kernel, (1, 1, 1), (32, 1, 1), [at(x), at(y)])}
    assert rows["kernel.cu:5", "shared", "store"].cost == 32
    assert rows["kernel.cu:5", "global", "load"].cost == 4
    assert rows["kernel.cu:5", "global", "load"].ideal == 4
    assert rows["kernel.cu:7", "global", "store"].cost == 32
