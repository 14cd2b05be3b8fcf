"""From a kernel's name to its launch: specialise, compile, cache, run.

``kernel("conv_pack.cu", "conv2d_pack_weight", real="float32")`` finds the CUDA C++ text, pastes the constants
in front as C++ declarations, and gives a callable that launches it::

    launch = kernel("conv_pack.cu", "conv2d_pack_weight", real=dtype_name(weight))
    launch(grid, block, weight, packed, ...)  # same order as the signature in the .cu file

The first launch on a device compiles the text with NVRTC (no nvcc, no host compiler) and keeps the binary in
a private folder. Python numbers become the C++ types of the signature, arrays become pointers, and the work
goes to the current stream of the arrays' library. A grid with a zero in it launches nothing.

``numba_kernel(function)`` does the same for a numba.cuda kernel written in Python.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib
import os
import re
import stat
import struct
import threading
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from . import _array, _files, kernels
from .errors import BackendUnavailableError, KernelCompileError

__all__ = [
    "Kernel",
    "blocks",
    "cache_folder",
    "compile_source",
    "keep",
    "kept",
    "kernel",
    "numba_kernel",
    "specialise",
]

MAX_GRID_X = 2**31 - 1
MAX_GRID_YZ = 65535

# How a dtype is spelled in CUDA C++ (kernels/scalar.cuh has the 16-bit storage types).
C_TYPES = {"float32": "float", "float64": "double", "float16": "f16", "bfloat16": "bf16"}

_SCALARS: dict[str, type[np.generic]] = {
    "int": np.int32,
    "unsigned": np.uint32,
    "int64_t": np.int64,
    "uint64_t": np.uint64,
    "float": np.float32,
    "double": np.float64,
}
_PACKED = {np.int32: "i", np.uint32: "I", np.int64: "q", np.uint64: "Q", np.float32: "f", np.float64: "d"}

CACHE_BYTES = 256 << 20  # of compiled kernels in the cache folder
_DAY = 86400.0

CUDA_HINT = "pip install 'cv3gpu[cuda13]' (or [cuda12] for a driver older than 580), then run: cv3gpu doctor"


def blocks(n: int, size: int) -> int:
    """How many blocks of ``size`` cover ``n``."""
    return -(-n // size)


# ---- specialise -----------------------------------------------------------------------------------------


def _declaration(name: str, value: str) -> str:
    if value in C_TYPES:
        return f"using {name} = {C_TYPES[value]};"
    return f"constexpr int {name} = {int(value)};"


@functools.cache
def specialise(file: str, **constants: str | int) -> str:
    """The self-contained CUDA text of a kernel file with its constants declared in front.

    Only the values that the file's header declares are taken, so that every text that can ever be compiled
    is known beforehand (and no caller's string can enter a source). Declarations come in the header's order,
    so that equal constants give equal text.
    """
    wanted = {name: str(int(v) if isinstance(v, bool) else v) for name, v in constants.items()}
    known = next((variant for variant in kernels.variants(file) if variant == wanted), None)
    if known is None:
        declared = kernels.header(file).get("specialise", "nothing")
        raise ValueError(f"kernel {file}: constants must be among those declared ({declared}), got {wanted}")
    declarations = "\n".join(_declaration(name, value) for name, value in known.items())
    seen: set[str] = {file}
    prelude = kernels.inlined("scalar.cuh", seen)
    seen.add("scalar.cuh")
    return f'{prelude}\n#line 1 "constants of {file}"\n{declarations}\n{kernels.inlined(file, seen)}\n'


class Parameter(NamedTuple):
    """A parameter of a kernel: its name and, for a number passed by value, its NumPy type."""

    name: str
    scalar: type[np.generic] | None


@functools.cache
def signature(file: str, name: str) -> tuple[Parameter, ...]:
    """The parameters of an ``extern "C"`` kernel, read from its source."""
    pattern = rf'extern "C" __global__ void (?:__launch_bounds__\([^)]*\)\s*)?{name}\s*\(([^)]*)\)'
    code = re.sub(r"//[^\n]*|/\*.*?\*/", "", kernels.text(file), flags=re.S)
    found = re.search(pattern, code)
    if not found:
        raise ValueError(f'kernel {file}: there is no extern "C" kernel named {name!r}')
    parameters = []
    for part in found[1].split(","):
        words = part.replace("const", " ").split()
        scalar = None if "*" in part else _SCALARS[" ".join(words[:-1])]
        parameters.append(Parameter(words[-1].strip("*"), scalar))
    return tuple(parameters)


@functools.cache
def kernel_names(file: str) -> tuple[str, ...]:
    """The ``extern "C"`` kernels of a file."""
    pattern = r'extern "C" __global__ void (?:__launch_bounds__\([^)]*\)\s*)?(\w+)\s*\('
    return tuple(re.findall(pattern, kernels.text(file)))


# ---- compile and cache ----------------------------------------------------------------------------------


class Compiled(NamedTuple):
    """A device binary and what the compiler said of it (registers, spills, shared memory)."""

    binary: bytes
    log: str


@functools.cache
def _nvrtc() -> Any:
    try:
        return importlib.import_module("cuda.bindings.nvrtc")
    except ImportError as error:
        raise BackendUnavailableError(f"cv3gpu: compiling a kernel needs NVRTC ({error}); {CUDA_HINT}") from error


def _checked(result: tuple[Any, ...]) -> Any:
    if int(result[0]):
        raise KernelCompileError(f"cv3gpu: NVRTC said {result[0].name}")
    return result[1] if len(result) == 2 else result[1:]


@functools.cache
def nvrtc_version() -> tuple[int, int]:
    """Version of the NVRTC library that is loaded."""
    major, minor = _checked(_nvrtc().nvrtcVersion())
    return int(major), int(minor)


@functools.cache
def architectures() -> tuple[int, ...]:
    """The compute capabilities that this NVRTC can compile for."""
    return tuple(sorted(_checked(_nvrtc().nvrtcGetSupportedArchs())))


def _text_of(size: Callable[[Any], Any], read: Callable[[Any, bytes], Any], program: Any) -> bytes:
    n = _checked(size(program))
    buffer = bytes(n + 1)  # of its own: Python shares the objects of one byte, and NVRTC writes into this one
    _checked((*read(program, buffer), None))
    return buffer[:n]


def compile_source(text: str, file: str, arch: int | str) -> Compiled:
    """Compiles a self-contained CUDA text for one architecture with NVRTC; needs no GPU and no driver.

    ``arch`` is a compute capability such as 90 or ``"90a"``. An architecture newer than the compiler gets
    PTX, which the driver finishes.
    """
    nvrtc = _nvrtc()
    known = architectures()
    direct = not isinstance(arch, int) or arch in known
    target = f"sm_{arch}" if direct else f"compute_{max(a for a in known if a < int(arch))}"
    options = [f"--gpu-architecture={target}", "--std=c++17", "--device-as-default-execution-space"]
    if direct:
        options.append("--ptxas-options=-v")
    program = _checked(nvrtc.nvrtcCreateProgram(text.encode(), file.encode(), 0, [], []))
    try:
        status = nvrtc.nvrtcCompileProgram(program, len(options), [o.encode() for o in options])
        log = _text_of(nvrtc.nvrtcGetProgramLogSize, nvrtc.nvrtcGetProgramLog, program)
        log_text = log.decode(errors="replace").rstrip("\0 \n")
        if int(status[0]):
            raise KernelCompileError(f"kernel {file} does not compile for {target}:\n{log_text[:8000]}")
        if direct:
            return Compiled(_text_of(nvrtc.nvrtcGetCUBINSize, nvrtc.nvrtcGetCUBIN, program), log_text)
        return Compiled(_text_of(nvrtc.nvrtcGetPTXSize, nvrtc.nvrtcGetPTX, program), log_text)
    finally:
        nvrtc.nvrtcDestroyProgram(program)


def cache_folder() -> Path | None:
    """The folder of compiled kernels, made private (0700) and ours; None where that can't be had.

    ``$CV3GPU_CACHE_DIR``, else ``$XDG_CACHE_HOME/cv3gpu``, else ``~/.cache/cv3gpu``. A folder that is a
    link, belongs to another user or that others may write to is not used: a binary in it would run as ours.
    """
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    folder = Path(os.environ.get("CV3GPU_CACHE_DIR") or Path(base) / "cv3gpu")
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = folder.lstat()
    except OSError:
        return None
    return folder if stat.S_ISDIR(found.st_mode) and _is_ours(found) else None


def _is_ours(found: os.stat_result) -> bool:
    """Whether nobody else can have written to a file or folder."""
    if not hasattr(os, "getuid"):
        return True
    return found.st_uid == os.getuid() and not found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


def kept(path: Path, key: str) -> bytes | None:
    """What was kept in a file of the cache under a key; None for what is not there, damaged, or another's."""
    try:
        with open(path, "rb", opener=lambda name, flags: os.open(name, flags | getattr(os, "O_NOFOLLOW", 0))) as file:
            found = os.fstat(file.fileno())
            content = file.read() if stat.S_ISREG(found.st_mode) and _is_ours(found) else b""
    except OSError:
        return None
    if content[:32] != hashlib.sha256(key.encode() + content[32:]).digest():
        return None
    if time.time() - found.st_mtime > _DAY / 24:
        with contextlib.suppress(OSError):
            os.utime(path)  # the time of a file is that of its last use, for `_prune`
    return content[32:]


def keep(path: Path, key: str, content: bytes) -> None:
    """Keeps something in a file of the cache, whole or not at all; a full disk costs a compile next time, no more."""
    if path.is_symlink():  # `replacing` would write to what it leads to
        return
    with (
        contextlib.suppress(OSError),
        _files.replacing(path) as unfinished,
        open(unfinished, "xb", opener=lambda name, flags: os.open(name, flags, 0o600)) as file,
    ):
        file.write(hashlib.sha256(key.encode() + content).digest() + content)
    with contextlib.suppress(OSError):
        _prune(path.parent)


# Files of ours, finished or not. The folder may be one that the user has named, with files of the user's own.
_FILES = re.compile(r"\.?\w+-(sm\w+|cpu)-[0-9a-f]{32}(-[0-9a-f]{12})?\.(bin|obj)")


def _prune(folder: Path) -> None:
    """Removes files from a cache that has grown too large, those first that were not used for longest.

    What was used within a day stays, as programs that run now may ask for it again. A program that has loaded a
    file does not miss it, and several that clean up at once do not hinder each other.
    """
    files = []
    for path in [*folder.iterdir(), *(folder / "numba").rglob("*.nb?")]:
        with contextlib.suppress(OSError):  # another process was quicker
            found = path.lstat()
            if stat.S_ISREG(found.st_mode) and (path.parent != folder or _FILES.fullmatch(path.name)):
                files.append((found.st_mtime, found.st_size, path))
    total = sum(size for _, size, _ in files)
    if total <= CACHE_BYTES:
        return
    for used, size, path in sorted(files):
        if total <= CACHE_BYTES * 3 // 4 or time.time() - used < _DAY:
            break
        with contextlib.suppress(OSError):
            path.unlink()
        total -= size


def _binary(text: str, file: str, arch: int) -> bytes:
    """The compiled kernel, from the cache where it is there."""
    key = hashlib.sha256(repr((text, arch, nvrtc_version())).encode()).hexdigest()
    folder = cache_folder()
    path = folder / f"{Path(file).stem}-sm{arch}-{key[:32]}.bin" if folder else None
    if path and (binary := kept(path, key)):
        return binary
    binary = compile_source(text, file, arch).binary
    if path:
        keep(path, key, binary)
    return binary


# ---- launch ---------------------------------------------------------------------------------------------


@functools.cache
def _cupy() -> Any:
    try:
        cupy = importlib.import_module("cupy")
    except ImportError as error:
        raise BackendUnavailableError(f"cv3gpu: launching a kernel needs CuPy ({error}); {CUDA_HINT}") from error
    return cupy


class _ForeignStream(NamedTuple):
    """A stream of another library, as the CUDA stream protocol wants it."""

    pointer: int

    def __cuda_stream__(self) -> tuple[int, int]:
        return 0, self.pointer


@functools.lru_cache(maxsize=64)
def _cupy_stream(pointer: int) -> Any:
    return _cupy().cuda.Stream.from_external(_ForeignStream(pointer))


_loading = threading.Lock()

# By kernel and text: its functions by device, and the shared memory that each was given. Two threads that ask for a
# kernel at once may get two objects of it.
_loaded: dict[tuple[str, str], tuple[dict[int, Any], dict[int, int]]] = {}


class Kernel:
    """One specialised CUDA C++ kernel, loaded on each device at its first launch there."""

    def __init__(self, file: str, name: str, **constants: str | int) -> None:
        self.file = file
        self.name = name
        self.text = specialise(file, **constants)
        self.parameters = signature(file, name)
        self._numbers = struct.Struct("=" + "".join(_PACKED[p.scalar] for p in self.parameters if p.scalar))
        self._functions, self._shared_limit = _loaded.setdefault((name, self.text), ({}, {}))

    def __call__(self, grid: Sequence[int], block: Sequence[int] | int, *args: Any, shared_mem: int = 0) -> None:
        """Launches over ``grid`` blocks of ``block`` threads with ``shared_mem`` bytes of dynamic shared memory."""
        if len(args) != len(self.parameters):
            wanted = ", ".join(p.name for p in self.parameters)
            raise TypeError(f"kernel {self.name}: takes {len(self.parameters)} arguments ({wanted}), got {len(args)}")
        full_grid = _three(grid)
        if 0 in full_grid:
            return
        if full_grid[0] > MAX_GRID_X or max(full_grid[1:]) > MAX_GRID_YZ:
            raise ValueError(
                f"kernel {self.name}: grid must be at most {MAX_GRID_X} x {MAX_GRID_YZ} x {MAX_GRID_YZ}, "
                f"got {full_grid}"
            )
        numbers = [a for p, a in zip(self.parameters, args, strict=True) if p.scalar]
        try:
            self._numbers.pack(*numbers)  # NumPy would let some of them wrap round
        except (struct.error, OverflowError):
            given = ", ".join(f"{p.name}={a}" for p, a in zip(self.parameters, args, strict=True) if p.scalar)
            raise ValueError(f"kernel {self.name}: numbers must fit their types, got {given}") from None
        like = next(a for a in args if _array.family(a))
        if backend := _array.host_backend.get():
            nowhere = _array.Pointer(0, 0)
            values = [
                p.scalar(a) if p.scalar else nowhere if a is None else _array.pointer(a)
                for p, a in zip(self.parameters, args, strict=True)
            ]
            backend.cuda_kernel(self.text, self.name)(full_grid, _three(block), values, shared_mem)
            return
        _array.claim_cuda(f"kernel {self.name}")
        function = self._function(like, shared_mem)
        flat = [
            p.scalar(a) if p.scalar else np.uint64(0 if a is None else _array.address(a))
            for p, a in zip(self.parameters, args, strict=True)
        ]
        stream = _cupy_stream(_array.stream_pointer(like))
        function(full_grid, _three(block), flat, shared_mem=shared_mem, stream=stream)

    def _function(self, like: Any, shared_mem: int) -> Any:
        cupy = _cupy()
        device = int(cupy.cuda.runtime.getDevice())
        function = self._functions.get(device)
        if function is None:
            with _loading:
                function = self._functions.get(device)
                if function is None:
                    module = cupy.cuda.function.Module()
                    module.load(_binary(self.text, self.file, _array.compute_capability(like)))
                    function = self._functions[device] = module.get_function(self.name)
        if shared_mem > self._shared_limit.get(device, 0):  # unasked, a kernel gets 48 KiB less its static arrays
            driver = cupy.cuda.driver
            with _loading:
                most = max(shared_mem, self._shared_limit.get(device, 0))
                driver.funcSetAttribute(function.ptr, driver.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, most)
                self._shared_limit[device] = most
        return function


@functools.cache
def kernel(file: str, name: str, **constants: str | int) -> Kernel:
    """The kernel ``name`` of ``file``, specialised; see the module's text."""
    return Kernel(file, name, **constants)


def _three(size: Sequence[int] | int) -> tuple[int, int, int]:
    sizes = (size,) if isinstance(size, int) else tuple(int(n) for n in size)
    return (*sizes, 1, 1)[:3]  # type: ignore[return-value]


# ---- numba.cuda -----------------------------------------------------------------------------------------


class _CudaView:
    """An array of CuPy or torch as numba sees it: address, shape and dtype, and no stream to wait for."""

    def __init__(self, x: Any) -> None:
        self.__cuda_array_interface__ = {
            "shape": tuple(x.shape),
            "typestr": np.dtype(_array.dtype_name(x)).str,
            "data": (_array.pointer(x).address, False),
            "version": 3,
            "strides": None,
            "stream": None,
        }


@functools.lru_cache(maxsize=64)
def _numba_stream(device: str, pointer: int) -> Any:
    return importlib.import_module("cv3gpu.kernels._cuda").cuda.external_stream(pointer)


@functools.lru_cache(maxsize=256)
def _configured(compiled: Any, grid: Any, block: Any, stream: Any, shared_mem: int) -> Any:
    """A launch of numba's, kept, and without its warning that a small grid does not fill the GPU."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"Grid size \d+ will likely")
        return compiled[grid, block, stream, shared_mem]


class NumbaKernel:
    """A numba.cuda kernel with the launch call of :class:`Kernel`; arrays must be dense by rows."""

    def __init__(self, function: Callable[..., None]) -> None:
        self.function = function
        self._compiled: Any = None

    def __call__(self, grid: Sequence[int], block: Sequence[int] | int, *args: Any, shared_mem: int = 0) -> None:
        """Launches; numbers among ``args`` must be NumPy scalars, so that their type is plain."""
        full_grid = _three(grid)
        if 0 in full_grid:
            return
        if backend := _array.host_backend.get():
            values = [_array.as_numpy(a) if _array.family(a) else a for a in args]
            backend.numba_kernel(self.function)(full_grid, _three(block), values, shared_mem)
            return
        _array.claim_cuda(f"kernel {self.function.__name__}")
        like = next(a for a in args if _array.family(a))
        cuda = importlib.import_module("cv3gpu.kernels._cuda").cuda
        if self._compiled is None:
            with _loading:
                if self._compiled is None:
                    self._compiled = cuda.jit(self.function)
        views = [cuda.as_cuda_array(_CudaView(a), sync=False) if _array.family(a) else a for a in args]
        stream = _numba_stream(_array.device_of(like), _array.stream_pointer(like))
        _configured(self._compiled, full_grid, _three(block), stream, shared_mem)(*views)


@functools.cache
def numba_kernel(function: Callable[..., None]) -> NumbaKernel:
    """The launcher of a numba.cuda kernel; ``function`` is the plain Python function."""
    return NumbaKernel(function)
