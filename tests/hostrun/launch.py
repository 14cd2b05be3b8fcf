"""Loads compiled kernels and launches them: arguments, guarded buffers, error texts."""

from __future__ import annotations

import ctypes
import functools
import math
import os
import re
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from cv3gpu._array import Pointer

from . import build
from .errors import HostError, RaceError

FATAL, RACE = 1, 2  # Outcome in runtime/internal.h
SHARED, READ_ONLY = 1, 2  # RangeFlags in runtime/checker.h
ORDERS = {"forward": 0, "reverse": 1, "random": 2}
ALIGNMENT = 16
IN_PLACE = 1 << 30  # bytes of memory that is not copied between guard pages, but used where it lies
STATIC_SHARED_LIMIT = 48 << 10
SHARED_LIMIT = 227 << 10


class TensorMap:
    """The host's form of a 2-D TMA descriptor over a C-contiguous matrix; ``box`` is (rows, columns)."""

    def __init__(self, array: np.ndarray, box: tuple[int, int], swizzle: bool = True) -> None:
        self.pointer = Pointer(array.ctypes.data, array.nbytes)
        self.rows, self.columns = array.shape
        self.row_bytes = array.strides[0]
        self.box = box
        self.itemsize = array.itemsize
        self.swizzle = swizzle

    def pack(self, address: int) -> bytes:
        """The 128 bytes of ``cv3_tmap`` in include/hopper.h."""
        wide = np.array([address, self.columns, self.rows, self.row_bytes], np.uint64)
        narrow = np.array([self.box[1], self.box[0], self.itemsize, self.swizzle], np.uint32)
        return (wide.tobytes() + narrow.tobytes()).ljust(128, b"\0")


@dataclass(frozen=True)
class Options:
    """How to run: order and seed of threads and blocks, and the checker's knobs."""

    order: str = "random"
    seed: int = 1
    preempt: int = 0
    watchdog: float = 20.0


@dataclass(frozen=True)
class Parameter:
    """A kernel parameter: kind is r (const pointer), p (pointer), f, i, u, b or s (struct)."""

    kind: str
    size: int
    type_name: str
    argument: int  # the number of the caller's argument


class _LaunchRequest(ctypes.Structure):
    _fields_ = [
        ("entry", ctypes.c_void_p),
        ("args", ctypes.POINTER(ctypes.c_void_p)),
        ("grid", ctypes.c_uint * 3),
        ("block", ctypes.c_uint * 3),
        ("dynamic_bytes", ctypes.c_size_t),
        ("dynamic_alignment", ctypes.c_size_t),
        ("dynamic_in_place", ctypes.c_size_t),
        ("seed", ctypes.c_ulonglong),
        ("watchdog_seconds", ctypes.c_double),
        ("order", ctypes.c_int),
        ("check", ctypes.c_int),
        ("preempt", ctypes.c_int),
    ]


@functools.cache
def _load_runtime(asan: bool) -> ctypes.CDLL:
    if asan and "libasan" not in os.environ.get("LD_PRELOAD", ""):
        raise HostError(
            "mode asan: start Python with LD_PRELOAD=$(g++ -print-file-name=libasan.so) and ASAN_OPTIONS=detect_leaks=0"
        )
    library = ctypes.CDLL(str(build.runtime_library(asan)))
    pointer, size, integer = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int
    out_pointer, out_size = ctypes.POINTER(pointer), ctypes.POINTER(size)
    out_long = ctypes.POINTER(ctypes.c_long)
    signatures: dict[str, tuple[Any, list[Any]]] = {
        "host_launch": (integer, [ctypes.POINTER(_LaunchRequest)]),
        "host_messages": (ctypes.c_char_p, []),
        "host_stats": (None, [ctypes.POINTER(ctypes.c_ulonglong)]),
        "host_clear_ranges": (None, []),
        "host_add_range": (None, [pointer, size, ctypes.c_char_p, integer]),
        "host_buffer_alloc": (pointer, [size, size, size, out_pointer, out_size]),
        "host_buffer_damaged": (integer, [pointer, size, pointer, size, out_long]),
        "host_buffer_free": (None, [pointer, size]),
        "host_trace": (None, [pointer, size, ctypes.c_uint]),
        "host_trace_used": (size, []),
        "host_place_text": (None, [ctypes.c_uint32, ctypes.c_char_p, size]),
    }
    for name, (result, arguments) in signatures.items():
        function = getattr(library, name)
        function.restype = result
        function.argtypes = arguments
    return library


class Symbol(NamedTuple):
    """A variable in a loaded library."""

    mangled: str
    address: int
    nbytes: int

    @property
    def is_shared(self) -> bool:
        return self.mangled.startswith(("_ZZ", "_cudapy_smem"))

    @property
    def text(self) -> str:
        if numba := re.fullmatch(r"_cudapy_smem\.(\d+)", self.mangled):
            return f"shared array {numba[1]}"
        name = _local_name(self.mangled)
        return f"__shared__ {name}" if self.is_shared else name


def _local_name(mangled: str) -> str:
    """The last identifier of a mangled name: ``_ZZ4gemmE2As`` is ``As``."""
    for match in reversed(list(re.finditer(r"(?<!\d)(\d+)(?=[A-Za-z_])", mangled))):
        end = match.end() + int(match[1])
        if end <= len(mangled) and re.fullmatch(r"(_\d+_?)?", mangled[end:]):
            return mangled[match.end() : end]
    return mangled


class Library:
    """A compiled kernel in memory: entry points, variables, line numbers."""

    def __init__(self, path: Path, mode: str) -> None:
        self.path = path
        self.mode = mode
        self.runtime = _load_runtime(mode == "asan")
        self.handle = ctypes.CDLL(str(path))
        self._lines: dict[str, str] = {}

    def entry(self, name: str) -> int:
        address = ctypes.cast(getattr(self.handle, name), ctypes.c_void_p).value
        assert address is not None
        return address

    def variables(self, anchor: str) -> list[Symbol]:
        """All writable variables; ``anchor`` is an exported function that tells the load address."""
        command = ["nm", "-S", "--defined-only", str(self.path)]
        listing = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        base = 0
        found = []
        for line in listing.splitlines():
            fields = line.split()
            if len(fields) != 4:
                continue
            address, size, kind, name = int(fields[0], 16), int(fields[1], 16), fields[2], fields[3]
            if name == anchor:
                base = self.entry(anchor) - address
            runtimes_own = re.match(r"(_ZL\d+)?host_|_ZGV|completed\.", name)
            if kind in "bBdDuV" and not runtimes_own:
                found.append(Symbol(name, address, size))
        return [symbol._replace(address=symbol.address + base) for symbol in found]

    def with_lines(self, text: str) -> str:
        """Replaces the runtime's ``<pc 1a2b>`` by file and line."""
        unknown = sorted({pc for pc in re.findall(r"<pc (\w+)>", text) if pc not in self._lines})
        for pc in unknown:
            self._lines[pc] = self._line_of(int(pc, 16))
        return re.sub(r"<pc (\w+)>", lambda match: self._lines[match[1]], text)

    def _line_of(self, return_address: int) -> str:
        command = ["addr2line", "-i", "-e", str(self.path), hex(return_address - 1)]
        frames = subprocess.run(command, capture_output=True, text=True).stdout.split("\n")
        frames = [re.sub(r"^(\./)+| \(.*", "", frame) for frame in frames if frame]
        # Innermost first: skip what the device headers inline into the kernel.
        own = [frame for frame in frames if not frame.startswith(str(build.INCLUDE))]
        place = (own or frames or ["??"])[0]
        return f"code address {return_address:#x}" if place.startswith("??") else place


@dataclass
class _Region:
    """Memory of one or several overlapping array arguments, copied between guard pages."""

    address: int
    nbytes: int
    positions: list[int]
    writable: bool
    copy: int = 0
    mapping: ctypes.c_void_p = field(default_factory=ctypes.c_void_p)
    mapped: ctypes.c_size_t = field(default_factory=ctypes.c_size_t)

    @property
    def in_place(self) -> bool:
        return self.nbytes >= IN_PLACE

    def translate(self, address: int) -> int:
        return self.copy + address - self.address


def _regions(arrays: dict[int, tuple[Pointer, bool]]) -> list[_Region]:
    """Array arguments by number, with whether they are written; overlapping ones share a region."""
    regions: list[_Region] = []
    empty = [
        _Region(pointer.address, 0, [index], writable)
        for index, (pointer, writable) in arrays.items()
        if pointer.nbytes == 0
    ]
    for index, (pointer, writable) in sorted(arrays.items(), key=lambda item: item[1][0]):
        if pointer.nbytes == 0:
            continue
        last = regions[-1] if regions else None
        if last and pointer.address < last.address + last.nbytes:
            end = max(last.address + last.nbytes, pointer.address + pointer.nbytes)
            last.nbytes = end - last.address
            last.positions.append(index)
            last.writable |= writable
        else:
            regions.append(_Region(pointer.address, pointer.nbytes, [index], writable))
    return regions + empty


class HostKernel:
    """A callable ``kernel(grid, block, args, shared_mem)``; use it from one thread only."""

    def __init__(
        self,
        library: Library,
        name: str,
        entry: int,
        parameters: Sequence[Parameter],
        variables: Sequence[Symbol],
        options: Options,
        max_threads: int = 1024,
        shared_alignment: int = ALIGNMENT,
        on_launch: Callable[[dict[str, int]], None] | None = None,
        dynamic_shared: int = 0,
    ) -> None:
        self.library = library
        self.name = name
        self.options = options
        self.stats: dict[str, int] = {}
        self._entry = entry
        self._parameters = parameters
        self._variables = variables
        self._variable_ranges = [
            (symbol.address, symbol.nbytes, symbol.text.encode(), SHARED if symbol.is_shared else 0)
            for symbol in variables
        ]
        self._max_threads = max_threads
        self._shared_alignment = shared_alignment
        self._on_launch = on_launch
        self._dynamic_shared = dynamic_shared  # a fixed place in the library, or 0

    def __call__(
        self,
        grid: tuple[int, int, int],
        block: tuple[int, int, int],
        args: Sequence[Any],
        shared_mem: int = 0,
    ) -> None:
        if len(args) != len(self._parameters):
            expected = len(self._parameters)
            raise HostError(f"{self.name}: {len(args)} arguments given, the kernel has {expected}")
        self._check_launch_bounds(grid, block)
        arrays = dict(self._array_arguments(args))
        runtime = self.library.runtime
        runtime.host_clear_ranges()
        with self._copied(_regions(arrays)) as regions:
            home = {index: region for region in regions for index in region.positions}
            values = [self._value(index, argument, home.get(index)) for index, argument in enumerate(args)]
            for variable in self._variable_ranges:
                runtime.host_add_range(*variable)
            if self._dynamic_shared and shared_mem:
                place, name = self._dynamic_shared, b"dynamic shared memory"
                runtime.host_add_range(place, min(shared_mem, SHARED_LIMIT), name, SHARED)
            outcome = self._launch(grid, block, values, shared_mem)
            text = runtime.host_messages().decode(errors="replace")
            if not outcome & FATAL:
                text += self._canary_report(regions)
        self._collect_stats()
        if text:
            self._raise(outcome, text)

    def _region_name(self, region: _Region) -> str:
        numbers = sorted({self._parameters[index].argument for index in region.positions})
        plural = "s" if len(numbers) > 1 else ""
        return f"argument{plural} {' and '.join(map(str, numbers))}"

    def _check_launch_bounds(self, grid: Sequence[int], block: Sequence[int]) -> None:
        for what, shape in (("grid", grid), ("block", block)):
            if len(shape) != 3 or any(not 0 <= int(extent) < 1 << 32 for extent in shape):
                raise HostError(f"{self.name}: {what} {tuple(shape)} is not three sizes")
        threads = math.prod(map(int, block))
        if threads > self._max_threads:
            bound = self._max_threads
            raise HostError(f"{self.name}: a block of {threads} threads, __launch_bounds__ allows {bound}")

    def _array_arguments(self, args: Sequence[Any]) -> Iterator[tuple[int, tuple[Pointer, bool]]]:
        for index, (argument, parameter) in enumerate(zip(args, self._parameters, strict=True)):
            if isinstance(argument, TensorMap):
                yield index, (argument.pointer, False)
            elif isinstance(argument, Pointer) and argument.address and parameter.kind in "rp":
                yield index, (argument, parameter.kind == "p")

    @contextmanager
    def _copied(self, regions: list[_Region]) -> Iterator[list[_Region]]:
        runtime = self.library.runtime
        made: list[_Region] = []
        try:
            for region in regions:
                if region.in_place:
                    region.copy = region.address
                    name = self._region_name(region).encode()
                    runtime.host_add_range(region.copy, region.nbytes, name, 0)
                    continue
                region.copy = runtime.host_buffer_alloc(
                    region.nbytes,
                    ALIGNMENT,
                    region.address % ALIGNMENT,
                    ctypes.byref(region.mapping),
                    ctypes.byref(region.mapped),
                )
                if not region.copy:
                    raise HostError(f"{self.name}: no memory for {self._region_name(region)}")
                made.append(region)
                ctypes.memmove(region.copy, region.address, region.nbytes)
                flags = 0 if region.writable else READ_ONLY
                name = self._region_name(region).encode()
                runtime.host_add_range(region.copy, region.nbytes, name, flags)
            yield regions
            for region in made:
                if region.writable:
                    ctypes.memmove(region.address, region.copy, region.nbytes)
        finally:
            for region in made:
                runtime.host_buffer_free(region.mapping, region.mapped)

    def _value(self, index: int, argument: Any, region: _Region | None) -> ctypes.Array[Any]:
        """The bytes of one argument as the kernel expects them."""
        parameter = self._parameters[index]
        if isinstance(argument, TensorMap):
            if parameter.size != 128 or region is None:
                raise self._mismatch(index, "a tensor map")
            return _aligned(argument.pack(region.translate(argument.pointer.address)))
        if isinstance(argument, Pointer) or argument is None:
            if parameter.kind not in "rp":
                raise self._mismatch(index, "None" if argument is None else "an array")
            address = region.translate(argument.address) if region else 0  # no region: null
            return _aligned(np.uint64(address).tobytes())
        if not isinstance(argument, np.generic):
            raise self._mismatch(index, f"{type(argument).__name__} (no NumPy scalar)")
        kind = argument.dtype.kind if argument.dtype.kind in "fiub" else "s"
        fits = parameter.kind in (kind, "s") and argument.nbytes == parameter.size
        if not fits:
            raise self._mismatch(index, argument.dtype.name)
        return _aligned(argument.tobytes())

    def _mismatch(self, index: int, given: str) -> HostError:
        declared = self._parameters[index]
        return HostError(
            f"{self.name}: argument {declared.argument} is {given}, "
            f"the kernel declares {declared.type_name} ({declared.size} bytes)"
        )

    def _launch(
        self,
        grid: Sequence[int],
        block: Sequence[int],
        values: Sequence[ctypes.Array[Any]],
        shared_mem: int,
    ) -> int:
        addresses = [ctypes.addressof(value) for value in values]
        request = _LaunchRequest(
            entry=self._entry,
            args=(ctypes.c_void_p * len(addresses))(*addresses),
            grid=(ctypes.c_uint * 3)(*map(int, grid)),
            block=(ctypes.c_uint * 3)(*map(int, block)),
            dynamic_bytes=int(shared_mem),
            dynamic_in_place=bool(self._dynamic_shared),
            dynamic_alignment=self._shared_alignment,
            seed=self.options.seed,
            watchdog_seconds=self.options.watchdog,
            order=ORDERS[self.options.order],
            check=self.library.mode == "check",
            preempt=self.options.preempt,
        )
        return self.library.runtime.host_launch(ctypes.byref(request))

    def _canary_report(self, regions: Sequence[_Region]) -> str:
        text = ""
        offset = ctypes.c_long()
        damaged = self.library.runtime.host_buffer_damaged
        for region in (r for r in regions if not r.in_place):
            size = region.nbytes
            if damaged(region.mapping, region.mapped, region.copy, size, ctypes.byref(offset)):
                name = self._region_name(region)
                text += f"canary: write at byte offset {offset.value} of {name} ({size} bytes)\n"
        return text

    def _collect_stats(self) -> None:
        numbers = (ctypes.c_ulonglong * 4)()
        self.library.runtime.host_stats(numbers)
        names = ("barriers", "warp_ops", "switches", "accesses")
        self.stats = dict(zip(names, numbers, strict=True))
        if self._on_launch:
            self._on_launch(self.stats)

    def _raise(self, outcome: int, text: str) -> None:
        lines = self.library.with_lines(text).strip().split("\n")
        lines.sort(key=lambda line: not line.startswith("race on"))
        text = "\n".join(lines)
        how = f"(mode {self.library.mode}, order {self.options.order}, seed {self.options.seed})"
        kind = RaceError if outcome & RACE else HostError
        raise kind(f"{self.name}: {text}\n{how}")


def _aligned(raw: bytes, alignment: int = 128) -> ctypes.Array[Any]:
    """A buffer with these bytes whose address is aligned for any parameter type."""
    room = ctypes.create_string_buffer(len(raw) + alignment)
    offset = -ctypes.addressof(room) % alignment
    value = (ctypes.c_char * len(raw)).from_buffer(room, offset)
    value.raw = raw
    return value


class HostModule:
    """A kernel source compiled for the host; ``function(name)`` gives its kernels."""

    def __init__(self, source: str, mode: str = "check") -> None:
        self.bounds = build.kernels_of(source)
        if not self.bounds:
            raise HostError('the source holds no extern "C" __global__ kernel')
        text, self._shared_alignment = build.translation_unit(source)
        self._library = Library(build.kernel_library(text, mode), mode)
        self._variables = self._library.variables("host_entry_0")

    def function(
        self,
        name: str,
        options: Options | None = None,
        on_launch: Callable[[dict[str, int]], None] | None = None,
    ) -> HostKernel:
        """One kernel of the source."""
        names = list(self.bounds)
        if name not in names:
            raise HostError(f"no kernel {name} in the source: it has {', '.join(names)}")
        index = names.index(name)
        handle = self._library.handle
        signature = getattr(handle, f"host_signature_{index}")
        signature.restype = ctypes.c_char_p
        rows = [line.split("|") for line in signature().decode().splitlines()]
        variables = self._variables_of(name, names)
        self._check_static_shared(name, variables)
        return HostKernel(
            self._library,
            name,
            self._library.entry(f"host_entry_{index}"),
            [Parameter(row[0], int(row[1]), row[2], index) for index, row in enumerate(rows)],
            variables,
            options or Options(),
            getattr(handle, f"host_max_threads_{index}")(),
            self._shared_alignment,
            on_launch,
        )

    def _variables_of(self, name: str, names: Sequence[str]) -> list[Symbol]:
        """Without the shared variables that belong to the other kernels."""
        others = tuple(f"_ZZ{len(other)}{other}E" for other in names if other != name)
        return [symbol for symbol in self._variables if not symbol.mangled.startswith(others)]

    def _check_static_shared(self, name: str, variables: Sequence[Symbol]) -> None:
        own = [symbol for symbol in variables if symbol.mangled.startswith(f"_ZZ{len(name)}{name}E")]
        total = sum(symbol.nbytes for symbol in own)
        if total > STATIC_SHARED_LIMIT:
            limit = STATIC_SHARED_LIMIT
            raise HostError(f"{name}: {total} bytes of static shared memory, the device has {limit}")


@functools.lru_cache(maxsize=512)
def host_module(source: str, mode: str) -> HostModule:
    """The module of a source, compiled and loaded once."""
    return HostModule(source, mode)
