"""Arrays of NumPy, CuPy and torch: the only file that knows the three apart.

An operator asks here which library and device its arrays belong to, allocates results of the same kind, and
gets the address and stream that a kernel launch needs. Neither CuPy nor torch is imported before one of
their arrays arrives.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import math
import os
import re
import sys
import traceback
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from typing import Any, NamedTuple, NoReturn, ParamSpec, TypeVar

import numpy as np

from . import _check
from .errors import BackendUnavailableError, OutOfMemoryError

__all__ = [
    "Pointer",
    "address",
    "argsort",
    "array_like",
    "array_op",
    "as_numpy",
    "astype",
    "check_beside",
    "check_device",
    "checked_family",
    "claim_cuda",
    "copy",
    "device_of",
    "dtype_name",
    "empty",
    "family",
    "from_host",
    "from_numpy",
    "host_backend",
    "host_values",
    "memory_format",
    "module",
    "on_device_of",
    "on_gpu",
    "pointer",
    "strides",
    "to_host",
    "zeros",
]

P = ParamSpec("P")
R = TypeVar("R")

# A backend that runs kernels on the CPU (the tests' runner). While one is set, NumPy arrays and torch CPU
# tensors take the kernel path of every operator: the launch arithmetic is then tested as well.
host_backend: ContextVar[Any] = ContextVar("host_backend", default=None)

_FAMILIES = {"numpy": "numpy", "cupy": "cupy", "torch": "torch"}
_TENSORS = {("torch", "Tensor"), ("torch.nn.parameter", "Parameter"), ("torch.nn.parameter", "Buffer")}
_REFUSED = {"MaskedArray", "matrix", "recarray"}  # NumPy subclasses with another meaning of +, * or values


class Pointer(NamedTuple):
    """The memory of an array: first address and extent in bytes."""

    address: int
    nbytes: int


@functools.cache
def _family_of_type(kind: type) -> str | None:
    if any(base.__name__ in _REFUSED for base in kind.__mro__):
        return None
    for base in kind.__mro__:
        root = base.__module__.partition(".")[0]
        if root in _FAMILIES and base.__name__ in {"ndarray", "Tensor"}:
            return _FAMILIES[root]
    return None


def family(x: Any) -> str | None:
    """``"numpy"``, ``"cupy"``, ``"torch"``, or None for anything else. Imports nothing."""
    kind: Any = type(x)
    if (kind.__module__, kind.__name__) in _TENSORS:  # no cache on this way: torch.compile follows it
        return "torch"
    return _family_of_type(kind)


def checked_family(op: str, argument: str, x: Any) -> str:
    """The library of an array argument, which must be an array whose memory our loops and kernels can read."""
    kind = family(x)
    if kind is None:
        _check.fail(op, argument, "be a NumPy, CuPy or torch array", _check.kind(x), error=TypeError)
    if kind == "numpy":
        if not x.dtype.isnative:
            _check.fail(op, argument, "be in native byte order", x.dtype.str, error=TypeError)
        if not x.flags.aligned:
            _check.fail(op, argument, "be aligned in memory", "an array that is not", "copy it", error=TypeError)
    return kind


def check_beside(op: str, argument: str, value: Any, other: str, x: Any) -> None:
    """An array argument of the library and device of another one."""
    kind = checked_family(op, argument, value)
    if kind != family(x) or (kind != "numpy" and value.device != x.device):
        where = f"{family(x)} on {device_of(x)}"
        _check.fail(op, argument, f"be, like {other}, of {where}", f"{kind} on {device_of(value)}", error=TypeError)


def check_device(op: str, argument: str, x: Any) -> None:
    """The array has values that can be read: a torch tensor may be on any device, and on "meta" it has none."""
    if family(x) == "torch" and not (x.is_cpu or x.is_cuda):
        _check.fail(op, argument, "be on the CPU or a CUDA GPU", f"a tensor on {x.device}", error=TypeError)


def device_of(x: Any) -> str:
    """Where an array lives, in words: ``"cpu"`` or ``"cuda:0"``."""
    kind = family(x)
    if kind == "torch":
        return str(x.device)
    return f"cuda:{x.device.id}" if kind == "cupy" else "cpu"


def on_gpu(x: Any) -> bool:
    """Whether the operators take their kernel path for this array."""
    kind = family(x)
    return kind == "cupy" or (kind == "torch" and x.is_cuda) or host_backend.get() is not None


def dtype_name(x: Any) -> str:
    """The dtype's name, the same for all three libraries: ``"float32"``, ``"bfloat16"``, ``"int64"`` …"""
    return _check.name_of(x.dtype)


def strides(x: Any) -> tuple[int, ...]:
    """Strides in elements."""
    if family(x) == "torch":
        return tuple(x.stride())
    return tuple(s // x.itemsize for s in x.strides)


def _channels_last_strides(shape: Sequence[int]) -> tuple[int, ...]:
    _, c, h, w = shape
    return (h * w * c, 1, w * c, c)


def _dense(shape: Sequence[int], steps: Sequence[int], wanted: Sequence[int]) -> bool:
    return all(n == 1 or s == v for n, s, v in zip(shape, steps, wanted, strict=True)) or 0 in shape


def memory_format(x: Any) -> str:
    """``"nchw"``, ``"nhwc"`` (torch's channels_last) or ``"strided"`` of a 4-D array; ``"nchw"`` where both fit."""
    if x.is_contiguous() if family(x) == "torch" else x.flags.c_contiguous:
        return "nchw"
    shape, steps = tuple(x.shape), strides(x)
    _, c, h, w = shape
    if _dense(shape, steps, (c * h * w, h * w, w, 1)):
        return "nchw"
    return "nhwc" if _dense(shape, steps, _channels_last_strides(shape)) else "strided"


def _poisons() -> bool:
    backend = host_backend.get()
    return backend is not None and getattr(backend, "poisons", True)


def empty(like: Any, shape: Sequence[int], dtype: str | None = None, layout: str = "nchw") -> Any:
    """A new array of the library, device and (unless given) dtype of ``like``, uninitialised.

    ``layout="nhwc"`` gives a 4-D array whose memory is channels-last. Under the CPU runner the memory is
    filled with ones bits (NaN, −1), so that an element that a kernel forgot shows.
    """
    shape = tuple(int(n) for n in shape)
    kind = family(like)
    if layout == "nhwc":
        n, c, h, w = shape
        flat = empty(like, (n, h, w, c), dtype)
        return flat.permute(0, 3, 1, 2) if kind == "torch" else flat.transpose(0, 3, 1, 2)
    if kind == "torch":
        torch = sys.modules["torch"]
        out = torch.empty(shape, dtype=getattr(torch, dtype) if dtype else like.dtype, device=like.device)
        if _poisons() and out.numel():
            out.reshape(-1).view(torch.uint8).fill_(255)
        return out
    library = np if kind == "numpy" else importlib.import_module("cupy")
    out = library.empty(shape, dtype or like.dtype)
    if _poisons():
        out.reshape(-1).view(np.uint8)[...] = 255
    return out


def zeros(like: Any, shape: Sequence[int], dtype: str | None = None) -> Any:
    """As :func:`empty`, filled with zeros."""
    out = empty(like, shape, dtype)
    out[...] = 0
    return out


def module(x: Any) -> Any:
    """The module of the array's library, for the functions that all three have by one name."""
    return np if family(x) == "numpy" else importlib.import_module(str(family(x)))


def astype(x: Any, dtype: str) -> Any:
    """The array in another dtype; itself where it has that already."""
    if family(x) == "torch":
        return x.to(getattr(sys.modules["torch"], dtype))
    return x.astype(dtype, copy=False)


def argsort(x: Any) -> Any:
    """The order that sorts a vector, equal elements as they stand."""
    return x.argsort(stable=True) if family(x) == "torch" else x.argsort(kind="stable")


def copy(x: Any) -> Any:
    """A copy on the same device, without gradient history; of anything else a NumPy array."""
    if family(x) == "torch":
        return x.detach().clone()
    return np.array(x) if family(x) is None else x.copy()


def host_values(op: str, argument: str, x: Any) -> np.ndarray:
    """The values of an array argument in NumPy, for an operator that works on the host."""
    checked_family(op, argument, x)
    check_device(op, argument, x)
    return to_host(x)


def array_like(op: str, argument: str, given: Any) -> np.ndarray:
    """A copy in NumPy of an argument that may be a list as well as an array of numbers."""
    if isinstance(given, np.ma.MaskedArray):  # whose mask a copy would lose
        _check.fail(op, argument, "be an array of numbers", _check.kind(given), error=TypeError)
    check_device(op, argument, given)
    try:
        values = np.array(given if family(given) is None else to_host(given), order="C")
    except (TypeError, ValueError):
        _check.fail(op, argument, "be an array of numbers", _check.kind(given), error=TypeError)
    if values.dtype.kind not in "iuf":
        _check.fail(op, argument, "be an array of numbers", values.dtype, error=TypeError)
    return values


def to_host(x: Any) -> np.ndarray:
    """The values in NumPy: waits for the device where they are elsewhere."""
    kind = family(x)
    return x.detach().cpu().numpy() if kind == "torch" else x.get() if kind == "cupy" else x


def from_host(values: np.ndarray, like: Any) -> Any:
    """NumPy values as an array of the library and device of ``like``."""
    if family(like) == "torch":
        return sys.modules["torch"].from_numpy(values).to(like.device)
    return values if family(like) == "numpy" else importlib.import_module("cupy").asarray(values)


def address(x: Any) -> int:
    """Where an array's first element lies."""
    kind = family(x)
    if kind == "torch":
        return int(x.data_ptr())
    return int(x.ctypes.data if kind == "numpy" else x.data.ptr)


def pointer(x: Any) -> Pointer:
    """Address and extent of an array's memory; its strides must not be negative."""
    extent = sum((n - 1) * s for n, s in zip(x.shape, strides(x), strict=True)) + 1 if math.prod(x.shape) else 0
    return Pointer(address(x), extent * x.itemsize)


def contiguous(x: Any) -> Any:
    """The same values, densely by rows; a copy on the same device where needed."""
    if family(x) == "torch":
        return x.contiguous()
    library = np if family(x) == "numpy" else importlib.import_module("cupy")
    return library.ascontiguousarray(x)


def readable(x: Any) -> Any:
    """The array itself where kernels can address it by non-negative strides, else a dense copy."""
    return contiguous(x) if any(s < 0 for s in strides(x)) else x


def as_numpy(x: Any) -> np.ndarray:
    """A NumPy view of a NumPy array or of a torch CPU tensor (without its gradient history)."""
    return x.detach().numpy() if family(x) == "torch" else x


def from_numpy(values: np.ndarray, like: Any) -> Any:
    """A fresh NumPy result as an array of the library of ``like``, zero copy; ``like`` is on the CPU."""
    return sys.modules["torch"].from_numpy(values) if family(like) == "torch" else values


def stream_pointer(x: Any) -> int:
    """The CUDA stream on which the array's own library would now launch its work."""
    if family(x) == "torch":
        return int(sys.modules["torch"].cuda.current_stream(x.device).cuda_stream)
    return int(importlib.import_module("cupy").cuda.get_current_stream().ptr)


def compute_capability(x: Any) -> int:
    """The compute capability of the array's GPU as a number, 90 for 9.0; the CPU runner names its own."""
    if backend := host_backend.get():
        return int(getattr(backend, "capability", 90))
    if family(x) == "torch":
        major, minor = sys.modules["torch"].cuda.get_device_capability(x.device)
        return 10 * major + minor
    return int(x.device.compute_capability)


# ---- CUDA in forked processes -------------------------------------------------------------------------------


_cuda_process = 0  # the first process that used CUDA; a child that was forked off it inherits the number


def claim_cuda(op: str) -> None:
    """CUDA does not survive a fork: refuses its use where the process before the fork has used it."""
    global _cuda_process
    here = os.getpid()
    if _cuda_process not in (0, here):
        raise BackendUnavailableError(
            f"{op}: CUDA can't be used in a process that was forked after its parent had used CUDA; start it with the "
            "method 'spawn': multiprocessing.get_context('spawn'), DataLoader(multiprocessing_context='spawn')"
        )
    _cuda_process = here


# ---- out of memory ------------------------------------------------------------------------------------------

# What says that memory was missing: torch's CPU allocator and the CUDA libraries raise RuntimeErrors.
_NO_MEMORY = re.compile(r"out of memory|can't allocate memory|cudaErrorMemoryAllocation|CUDA_ERROR_OUT_OF_MEMORY", re.I)
_ASKED = re.compile(r"allocat\w* ([\d.,]+) (bytes|KiB|MiB|GiB|TiB|PiB|EiB)", re.I)
_UNITS = {unit: 1024**power for power, unit in enumerate(("bytes", "kib", "mib", "gib", "tib", "pib", "eib"))}


def free_memory(x: Any) -> int | None:
    """Free bytes where an array lives; None where nobody can tell."""
    try:
        if family(x) == "torch" and x.is_cuda:
            return int(sys.modules["torch"].cuda.mem_get_info(x.device)[0])
        if family(x) == "cupy":
            return int(importlib.import_module("cupy").cuda.runtime.memGetInfo()[0])
        with open("/proc/meminfo", encoding="ascii") as lines:
            return next(1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable:"))
    except Exception:  # a device that has just failed may fail here again: the error to report is the first one
        return None


def _out_of_memory(op: str, error: Exception, like: Any) -> OutOfMemoryError | None:
    """What to raise in place of a library's own error; None for an error that is ours already, or another one."""
    said = str(error)
    if not isinstance(error, MemoryError) and not _NO_MEMORY.search(said):
        return None
    # The traceback holds the arrays of the calls that failed. They go now, so that the caller's handler has the room.
    traceback.clear_frames(error.__traceback__)
    if isinstance(error, OutOfMemoryError):
        return None
    found = _ASKED.search(said)
    asked = round(float(found[1].replace(",", "")) * _UNITS[found[2].lower()]) if found else None
    free = free_memory(like)
    sizes = [f"{n:,} bytes {what}" for n, what in ((asked, "asked"), (free, "free")) if n is not None]
    text = f"{op}: out of memory on {device_of(like)}{': ' * bool(sizes)}{', '.join(sizes)}"
    return OutOfMemoryError(f"{text}; use a smaller batch, or tiles (cv3gpu.scale)", asked, free)


# ---- operators ----------------------------------------------------------------------------------------------


def _refuse_mixed(op: str, arrays: list[tuple[str, Any]]) -> NoReturn:
    said = ", ".join(f"{name} is {family(x)} on {device_of(x)}" for name, x in arrays)
    raise TypeError(f"{op}: all arrays must be of one library and on one device, got {said}")


def _torch_operator(name: str) -> Callable[..., Any] | None:
    from cv3gpu.nn.ops import OPERATORS  # torch.compile follows a statement, and not importlib

    return OPERATORS.get(name)


def _called(op: str, library: str | None, x: Any, function: Callable[..., R], args: Any, kwargs: Any) -> R:
    """The function's result, with the device of an array current; a lack of memory is told as an operator's."""
    try:
        if library == "torch" and x.is_cuda:
            claim_cuda(op)
            with sys.modules["torch"].cuda.device(x.device):
                return function(*args, **kwargs)
        if library == "cupy":
            claim_cuda(op)
            with x.device:
                return function(*args, **kwargs)
        return function(*args, **kwargs)
    except (MemoryError, RuntimeError) as error:
        missing = _out_of_memory(op, error, x)
        if missing is None:
            raise
        raise missing from error


def on_device_of(x: Any, op: str, function: Callable[..., R], *args: Any) -> R:
    """``function(*args)`` as :func:`array_op` would run it for an array that is no argument of the operator itself."""
    return _called(op, family(x), x, function, args, {})


def array_op(*names: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Makes a function of the arguments ``names`` an operator on NumPy, CuPy and torch arrays.

    Those arguments (None allowed where that is the default) must be arrays of one library on one device; the
    function runs with that device current, and where memory is missing the caller gets an
    :class:`~cv3gpu.OutOfMemoryError`. A torch call goes through the registered torch operator of the
    same name where there is one, so that gradients, autocast and ``torch.compile`` see it; that operator
    then calls ``function.plain``, the function without this step.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        op = function.__name__
        parameters = inspect.signature(function).parameters
        positions = [(name, list(parameters).index(name)) for name in names]
        optional = {name for name in names if parameters[name].default is None}

        def checked(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[str | None, Any]:
            """The library of the arrays and the first of them, after a check that they fit together."""
            found: list[tuple[str, Any]] = []
            library: str | None = None
            first: Any = None
            mixed = False
            for name, position in positions:
                x: Any = args[position] if position < len(args) else kwargs.get(name)
                if x is None and (name in optional or (name not in kwargs and position >= len(args))):
                    continue  # left out: fine where optional, and Python's own error otherwise
                kind = checked_family(op, name, x)
                if library is None:
                    library, first = kind, x
                elif kind != library or (kind != "numpy" and x.device != first.device):
                    mixed = True
                found.append((name, x))
            if mixed:
                _refuse_mixed(op, found)
            return library, first

        def plain(*args: P.args, **kwargs: P.kwargs) -> R:
            library, first = checked(args, kwargs)
            if library == "torch":
                check_device(op, names[0], first)
            return _called(op, library, first, function, args, kwargs)

        @functools.wraps(function)
        def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
            library, first = checked(args, kwargs)
            if library == "torch":
                registered = _torch_operator(op)
                if registered is not None:
                    return registered(*args, **kwargs)
                check_device(op, names[0], first)
            return _called(op, library, first, function, args, kwargs)

        wrapper.plain = plain  # type: ignore[attr-defined]
        return wrapper

    return decorate
