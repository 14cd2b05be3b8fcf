"""What a kernel's memory accesses would cost a GPU, from the trace of a check run.

    for row in profile(kernel, grid, block, args):
        print(row)

Global accesses: 32-byte sectors a warp request touches. Shared accesses: how many of a request's
words share a bank, 1 when there is no conflict. The compiler may have split a vector access into
words before it is recorded; for such lines the sectors are counted too high.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from .errors import HostError
from .launch import HostKernel

RECORD = np.dtype(
    {
        "names": ["address", "place", "block", "thread", "bytes", "kind", "shared"],
        "formats": ["u8", "u4", "u4", "u2", "u1", "u1", "u4"],
        "offsets": [0, 8, 12, 16, 18, 19, 20],
        "itemsize": 24,
    }
)
KINDS = ("load", "store", "volatile load", "atomic")
SECTOR, WORD, BANKS = 32, 4, 32


class LineCost(NamedTuple):
    """Cost of the accesses of one size at one source line, averaged over its warp requests."""

    place: str
    space: str
    kind: str
    bytes: int
    requests: int
    cost: float
    ideal: float


def profile(
    kernel: HostKernel,
    grid: tuple[int, int, int],
    block: tuple[int, int, int],
    args: Sequence[Any],
    shared_mem: int = 0,
    blocks: int = 2,
    room: int = 4_000_000,
) -> list[LineCost]:
    """Runs the kernel once and reports on the accesses of its first blocks."""
    if kernel.library.mode != "check":
        raise HostError("the profile needs a kernel in check mode")
    runtime = kernel.library.runtime
    buffer = np.empty(room, RECORD)
    runtime.host_trace(buffer.ctypes.data, room, blocks)
    try:
        kernel(grid, block, args, shared_mem)
    finally:
        records = buffer[: runtime.host_trace_used()]
        runtime.host_trace(None, 0, 0)
    groups, member = np.unique(records[["place", "kind", "bytes", "shared"]], return_inverse=True)
    rows = []
    for index, group in enumerate(groups):
        chosen = records[member == index]
        request = _requests(chosen)
        shared = bool(group["shared"])
        measure = _bank_conflicts if shared else _sectors
        size = int(group["bytes"])
        count = len(np.unique(request))
        ideal = 1.0 if shared else max(1.0, len(chosen) / count * size / SECTOR)
        rows.append(
            LineCost(
                _place(kernel, int(group["place"])),
                "shared" if shared else "global",
                KINDS[group["kind"]],
                size,
                count,
                round(measure(chosen, request), 2),
                round(ideal, 2),
            )
        )
    return sorted(rows)


def _place(kernel: HostKernel, place: int) -> str:
    text = ctypes.create_string_buffer(512)
    kernel.library.runtime.host_place_text(place, text, len(text))
    return kernel.library.with_lines(text.value.decode())


def _requests(records: np.ndarray) -> np.ndarray:
    """A number for each record: the n-th executions of an instruction by a warp belong together."""
    threads = records["block"].astype(np.int64) << 16 | records["thread"]
    order = np.argsort(threads, kind="stable")
    _, start, length = np.unique(threads[order], return_index=True, return_counts=True)
    repeat = np.empty(len(records), np.int64)
    repeat[order] = np.arange(len(records)) - np.repeat(start, length)
    return repeat << 32 | threads >> 5


def _sectors(records: np.ndarray, request: np.ndarray) -> float:
    touched = np.unique(np.stack([request, records["address"].astype(np.int64) // SECTOR]), axis=1)
    return touched.shape[1] / len(np.unique(request))


def _bank_conflicts(records: np.ndarray, request: np.ndarray) -> float:
    words = max(1, int(records["bytes"][0]) // WORD)
    # 8- and 16-byte accesses are served for half or a quarter of a warp at a time.
    phase = records["thread"].astype(np.int64) % 32 * words // 32
    part = np.repeat(request * words + phase, words)
    first = records["address"].astype(np.int64)[:, None] // WORD
    word = (first + np.arange(words)).ravel()
    distinct = np.unique(np.stack([part, word]), axis=1)
    banks, load = np.unique(np.stack([distinct[0], distinct[1] % BANKS]), axis=1, return_counts=True)
    _, start = np.unique(banks[0], return_index=True)
    return float(np.maximum.reduceat(load, start).mean())
