"""CPU kernels: plain Python functions, compiled together once and loaded from disk ever after.

A module writes its inner loops as ordinary module-level functions that call one another, and asks for the
outermost one compiled::

    solve = _njit.compiled(helper, other_helper, _solve)      # callees first, the entry last

Importing the module then needs NumPy alone, and the functions can be stepped through in a debugger.

numba compiles, but does not run: importing it takes longer than many a kernel. The first call with arguments
of given types compiles for them (an array's type is its dtype, its number of dimensions, and whether it is
C-contiguous), takes numba's optimised LLVM code, and keeps the object file of it in the private folder of the
GPU kernels. Any later process loads that file through LLVM alone, in some milliseconds. The file's name holds
a hash over all that the machine code depends on: the functions, the constants of their modules, the types,
the versions, the CPU. What a file holds is protected by a digest; a damaged one is made anew.

For this way the functions must keep to some rules:

* no allocation: no ``np.empty``, no reshape or copy, no array expressions; pass work space in. Views
  (``a[i]``, ``a[:, j]``) are free.
* no exception (``raise``, ``assert``): it would reach the caller as a RuntimeError without its text.
* the entry takes arrays, numbers and bools, by position, and returns a number, a bool or nothing. Helpers may
  return tuples. Constants of the module are numbers, strings, arrays and tuples of them. No closures, no defaults.
* arrays that are read may be read-only (no check stands between a function and an array's memory: what is
  not meant to be written, the functions must not write). Arrays must be aligned and of native byte order.

An entry that allocates, or whose arguments or result are of other types, still runs: numba's own dispatcher
serves it, from numba's own cache in the same folder, and ``compiled(...).refused`` says why. So it does on other
systems than Linux, and where anything else on the way fails. With no folder to write to, each process compiles.

How the machine code is called: numba compiles a function to ``i32 status = f(result*, exception**, ...)``,
where an array is spread out to (owner, parent, number of elements, bytes per element, data, shape...,
strides...). A few lines of LLVM code in front of it (`_bridge`) read those from the ndarray object itself,
whose layout is part of NumPy's binary interface, so that a call from Python passes one pointer per array. The
owner is NULL, and nothing counts references. ctypes makes the call, and releases the GIL during it.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import hashlib
import importlib
import importlib.util
import inspect
import os
import struct
import sys
import threading
import types
from collections.abc import Callable, Hashable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from . import _kernel

__all__ = ["compiled"]

Function = Callable[..., Any]

before_compiling: list[Callable[[], None]] = []  # called, and forgotten, once there is something to compile
_FORMAT = 2  # of the files; counts up when what they hold changes
_use_objects = True  # False sends every call to numba's dispatcher


@functools.cache
def compiled(*functions: Function) -> Entry:
    """The last of ``functions`` as machine code that releases the GIL; it calls the others, compiled."""
    return Entry(functions)


def inlined(function: Function) -> Function:
    """Marks a helper whose code goes into those that call it: for the innermost ones, where a call costs too much."""
    _inlined.add(function)
    return function


_inlined: set[Function] = set()


def lowered(write: Function, *files: str) -> Callable[[Function], Function]:
    """Marks a helper that has LLVM code of its own: ``write(builder, real, *arguments)`` writes it.

    It takes dense arrays and integers, and returns nothing. An array comes as its data and its shape; ``real`` is the
    LLVM type of the first array's elements. What the function says in Python must be the same. ``files`` are the
    sources that the code depends on.
    """

    def mark(function: Function) -> Function:
        _lowered[function] = write, files
        return function

    return mark


_lowered: dict[Function, tuple[Function, tuple[str, ...]]] = {}


class Entry:
    """A compiled function: for each combination of argument types, a way to run it."""

    def __init__(self, functions: tuple[Function, ...]) -> None:
        self.functions = functions
        self.ways: dict[Hashable, Function] = {}
        self.refused: dict[Hashable, str] = {}  # why numba's dispatcher serves these types
        self._dispatcher: Function | None = None
        functools.update_wrapper(self, functions[-1])

    def __call__(self, *args: Any) -> Any:
        """Runs the machine code for these types, which is loaded or compiled first if need be."""
        kind = tuple([(x.dtype, x.ndim, x.flags.num & _LAYOUT) if isinstance(x, np.ndarray) else type(x) for x in args])
        way = self.ways.get(kind)
        return (way or self._find(kind, args))(*args)

    def _find(self, kind: Hashable, args: tuple[Any, ...]) -> Function:
        entry = self.functions[-1]
        if len(args) != entry.__code__.co_argcount:
            raise TypeError(f"{entry.__name__}: takes {entry.__code__.co_argcount} arguments, got {len(args)}")
        for place, x in enumerate(args):
            if isinstance(x, np.ndarray) and not (x.flags.aligned and x.dtype.isnative):
                name = entry.__code__.co_varnames[place]
                raise TypeError(f"{entry.__name__}: {name} must be aligned and of native byte order")
        with _lock:
            way = self.ways.get(kind)
            if way is None:
                try:
                    way = _object_way(self.functions, tuple(_parameter(x) for x in args))
                except _Refused as refusal:
                    self.refused[kind] = str(refusal)
                except Exception as error:  # this way is a shortcut: if it fails, the long way says why, or works
                    self.refused[kind] = f"{type(error).__name__}: {error}"
                if way is None:
                    if self._dispatcher is None:
                        self._dispatcher = _dispatcher(self.functions)
                    way = self._dispatcher
                self.ways[kind] = way
        return way


class _Refused(Exception):
    """The machine code can't be called without numba; the text says why."""


_lock = threading.RLock()  # of who loads or compiles


def _renew_lock() -> None:
    global _lock
    _lock = threading.RLock()


if hasattr(os, "register_at_fork"):  # a thread that held it stayed in the parent
    os.register_at_fork(after_in_child=_renew_lock)


# ---- types ----------------------------------------------------------------------------------------------

_LAYOUT = 0x101  # of ndarray.flags.num: C-contiguous, aligned
_NUMBERS: dict[str, type[Any]] = {
    "bool": ctypes.c_bool,
    **{f"{sign}int{bits}": getattr(ctypes, f"c_{sign}int{bits}") for sign in ("", "u") for bits in (8, 16, 32, 64)},
    "float32": ctypes.c_float,
    "float64": ctypes.c_double,
}
_PYTHON_NUMBERS: dict[type[Any], str] = {bool: "bool", int: "int64", float: "float64"}


class _Parameter(NamedTuple):
    """The type of an argument; a number has -1 dimensions."""

    dtype: str
    ndim: int = -1
    dense: bool = False  # C-contiguous

    @property
    def is_array(self) -> bool:
        return self.ndim >= 0


def _parameter(x: Any) -> _Parameter:
    if isinstance(x, np.ndarray) and x.dtype.kind in "biufc":
        return _Parameter(x.dtype.name, x.ndim, x.flags.c_contiguous)
    if type(x) in _PYTHON_NUMBERS:
        return _Parameter(_PYTHON_NUMBERS[type(x)])
    if isinstance(x, np.generic) and x.dtype.name in _NUMBERS:
        return _Parameter(x.dtype.name)
    raise _Refused(f"an argument is {type(x).__name__}")


# ---- from a file, or made and kept ------------------------------------------------------------------------


def _object_way(functions: tuple[Function, ...], parameters: tuple[_Parameter, ...]) -> Function:
    """What calls the machine code for these types without numba."""
    if not _use_objects or sys.platform != "linux" or not _knows_ndarray():
        raise _Refused("object files are not used here")
    name = functions[-1].__name__
    folder, key = _kernel.cache_folder(), _key(functions, parameters)
    path = folder / f"{name.strip('_')}-cpu-{key[:32]}.obj" if folder and key else None
    if path and (kept := _read(path, key)):
        if kept.refusal:
            raise _Refused(kept.refusal)
        with contextlib.suppress(Exception):  # whatever is wrong with it: it is made anew
            return _callable(name, parameters, kept)
    while before_compiling:
        before_compiling.pop()()
    try:
        made = _compile(functions, parameters)
        way = _callable(name, parameters, made)
    except _Refused as refusal:
        if path:
            _write(path, key, _Object(b"", "", str(refusal)))
        raise
    if path:
        _write(path, key, made)
    return way


class _Object(NamedTuple):
    """An object file, the type of what its function returns, or why there is no object file."""

    binary: bytes
    returns: str
    refusal: str = ""


def _read(path: Path, key: str) -> _Object | None:
    if not (body := _kernel.kept(path, key)):
        return None
    returns, refusal, binary = body.split(b"\n", 2)
    return _Object(binary, returns.decode(), refusal.decode())


def _write(path: Path, key: str, content: _Object) -> None:
    texts = content.returns, content.refusal.replace("\n", " ")
    _kernel.keep(path, key, b"\n".join([*(text.encode() for text in texts), content.binary]))


def _key(functions: tuple[Function, ...], parameters: tuple[_Parameter, ...]) -> str:
    """A hash over all that the machine code depends on; "" if that can't be told."""
    try:
        codes = [_described_function(f, functions) for f in functions]
    except _Unknown:
        return ""
    return hashlib.sha256(repr((_FORMAT, codes, parameters, _surroundings())).encode()).hexdigest()


class _Unknown(Exception):
    """A constant of a function has no description that is the same in every process."""


def _described_function(function: Function, functions: tuple[Function, ...]) -> Any:
    scope = function.__globals__

    def described(value: Any, names: tuple[str, ...] = ()) -> Any:
        for place, other in enumerate(functions):
            if value is other:
                return "function", place
        match value:
            case types.CodeType():
                inner = [(name, described(scope[name], value.co_names)) for name in value.co_names if name in scope]
                body = value.co_code, value.co_varnames, value.co_names, value.co_flags, value.co_argcount
                return body, [described(x) for x in value.co_consts], inner, value.co_exceptiontable
            case None | types.EllipsisType() | bool() | int() | float() | complex() | str() | bytes() | np.generic():
                return type(value).__name__, repr(value)
            case tuple():
                return "tuple", [described(x) for x in value]
            case frozenset():
                return "frozenset", sorted(repr(described(x)) for x in value)
            case np.ndarray() if not value.dtype.hasobject:
                return value.dtype.str, value.shape, value.tobytes()
            case types.ModuleType():
                plain = [(n, getattr(value, n)) for n in names if isinstance(getattr(value, n, None), int | float)]
                return value.__name__, [(n, repr(x)) for n, x in plain]
            case type() | types.BuiltinFunctionType() | np.ufunc():
                return str(getattr(value, "__module__", "numpy")), value.__name__
        raise _Unknown(type(value).__name__)

    if function.__closure__ or function.__defaults__ or function.__kwdefaults__:
        raise _Unknown("a closure or default values")
    sources = b"".join(Path(file).read_bytes() for file in _lowered[function][1]) if function in _lowered else b""
    digest = hashlib.sha256(sources).hexdigest()
    return function.__name__, function in _inlined, digest, described(function.__code__)


@functools.cache
def _surroundings() -> tuple[Any, ...]:
    """The versions, the settings and the CPU that machine code is made by and for."""
    found = importlib.util.find_spec("numba")
    if found is None or found.origin is None:
        raise _Refused("numba is not installed")
    numba = Path(found.origin).with_name("_version.py").read_bytes()
    settings = sorted(item for item in os.environ.items() if item[0].startswith("NUMBA_"))
    versions = sys.version, np.__version__, importlib.import_module("llvmlite").__version__
    return numba, *versions, settings, *_cpu()


# ---- load and call ----------------------------------------------------------------------------------------


@functools.cache
def _llvm() -> Any:
    llvm = importlib.import_module("llvmlite.binding")
    with contextlib.suppress(RuntimeError):
        llvm.initialize()  # needed by older versions, refused by newer ones
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    return llvm


@functools.cache
def _cpu() -> tuple[str, str]:
    """The CPU's name and features, for LLVM."""
    llvm = _llvm()
    try:
        return llvm.get_host_cpu_name(), llvm.get_host_cpu_features().flatten()
    except RuntimeError:
        return llvm.get_host_cpu_name(), ""


def _target_machine() -> Any:
    """As numba's own. An engine owns the one that it is given."""
    llvm = _llvm()
    return llvm.Target.from_default_triple().create_target_machine(
        cpu=_cpu()[0],
        features=_cpu()[1],
        opt=3,
        reloc="static" if llvm.get_process_triple().startswith("x86") else "default",
        codemodel="jitdefault",
        jit=True,
    )


_ENTRY = "cv3gpu_entry"  # each object file has an engine, and so a name space, of its own
_NOT_OURS = ("Py", "_Py", "NRT_", "numba", "__svml")  # symbols that are there only once numba is imported
_alive: list[Any] = []  # machine code lives as long as its engine


def _undefined(elf: Any) -> Iterator[str]:
    """The symbols that an object file asks for."""
    tables = {}
    for section in elf.sections():
        if section.name() in (b".symtab", b".strtab"):
            tables[section.name()] = section.data()
    for name, _, _, section, _, _ in struct.iter_unpack("<IBBHQQ", tables[b".symtab"]):
        if name and not section:
            yield tables[b".strtab"][name:].split(b"\0", 1)[0].decode()


def _callable(name: str, parameters: tuple[_Parameter, ...], content: _Object) -> Function:
    """Loads an object file, and gives what calls it."""
    llvm = _llvm()
    engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), _target_machine())
    elf = llvm.ObjectFileRef.from_data(content.binary)
    if not elf:
        raise ValueError("this is not an object file")
    for symbol in _undefined(elf):  # LLVM would end the process over one that is missing
        if symbol.startswith(_NOT_OURS) or not llvm.address_of_symbol(symbol):
            raise _Refused(f"it calls {symbol}")
    engine.add_object_file(elf)
    engine.finalize_object()
    address = engine.get_function_address(_ENTRY)
    _alive.append((engine, elf, content))

    kinds = [ctypes.py_object if p.is_array else _NUMBERS[p.dtype] for p in parameters]
    run = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, *kinds)(address)
    integers = [i for i, p in enumerate(parameters) if not p.is_array and p.dtype == "int64"]

    def call(*args: Any) -> None:
        for i in integers:
            _check_integer(name, args[i])
        if status := run(None, *args):
            raise RuntimeError(_RAISED.format(name, status))

    def call_for_result(*args: Any) -> Any:
        for i in integers:
            _check_integer(name, args[i])
        result = kind()
        if status := run(ctypes.addressof(result), *args):
            raise RuntimeError(_RAISED.format(name, status))
        return result.value

    kind = _NUMBERS.get(content.returns, ctypes.c_int64)
    return call if content.returns == "none" else call_for_result


_RAISED = "{}: the compiled function raised an exception (status {})"


def _check_integer(name: str, x: Any) -> None:
    """Refuses what does not fit in 64 bits; ctypes would cut it off."""
    if not -(1 << 63) <= x < 1 << 63:
        raise OverflowError(f"{name}: an integer must fit in 64 bits, got {x}")


class _Ndarray(ctypes.Structure):
    """The head of an ndarray object (PyArrayObject_fields in NumPy's ndarraytypes.h)."""

    _fields_ = [
        ("head", ctypes.c_byte * object.__basicsize__),
        ("data", ctypes.c_void_p),
        ("ndim", ctypes.c_int),
        ("shape", ctypes.POINTER(ctypes.c_ssize_t)),
        ("strides", ctypes.POINTER(ctypes.c_ssize_t)),
    ]


@functools.cache
def _knows_ndarray() -> bool:
    """Whether an ndarray object looks as `_bridge` takes it to."""
    if sys.implementation.name != "cpython" or ctypes.sizeof(ctypes.c_ssize_t) != 8 or sys.byteorder != "little":
        return False
    probe = np.empty((5, 7, 3), np.int16)[1:, ::2]
    seen = _Ndarray.from_address(id(probe))
    shape, strides = tuple(seen.shape[:3]), tuple(seen.strides[:3])
    wanted = (probe.ctypes.data, 3, probe.shape, probe.strides)
    return (seen.data, seen.ndim, shape, strides) == wanted


# ---- compile ----------------------------------------------------------------------------------------------


_helpers: dict[Hashable, Any] = {}  # functions that are called by others, as numba's dispatchers


def _jitted(functions: tuple[Function, ...], counted: bool = True, **options: Any) -> Any:
    """The entry as numba's dispatcher, with nothing compiled yet.

    Entries whose lists begin alike share these helpers, so that each is compiled once for the same types. With nothing
    ``counted``, no array's owner is: functions cannot allocate, and no call stands between the loops.
    """
    numba = importlib.import_module("numba")
    scopes = {id(f.__globals__): dict(f.__globals__) for f in functions}
    jitted: Any = None
    for place, function in enumerate(functions):  # leave out what only a call from Python needs
        entry = function is functions[-1]
        shared = "" if entry else _key(functions[: place + 1], ())
        kept = function, shared, counted
        jitted = _helpers.get(kept) if shared else None
        if jitted is None:
            wrappers = options if entry else {"no_cpython_wrapper": True, "forceinline": function in _inlined}
            jit = numba.njit(nogil=True, error_model="numpy", no_cfunc_wrapper=True, _nrt=counted, **wrappers)
            scope = scopes[id(function.__globals__)]
            if function in _lowered:
                jitted = _intrinsic(function)
            else:
                jitted = jit(types.FunctionType(function.__code__, scope, function.__name__))
            if shared:
                _helpers[kept] = jitted
        for scope in scopes.values():
            scope.update({name: jitted for name, value in scope.items() if value is function})
    return jitted


def _intrinsic(function: Function) -> Any:
    """What numba calls for a function that has LLVM code of its own."""
    numba, extending = importlib.import_module("numba"), importlib.import_module("numba.extending")

    def given(context: Any, builder: Any, kind: Any, value: Any) -> Any:
        if not isinstance(kind, numba.types.Array):
            return context.cast(builder, value, kind, numba.types.int64)
        array = context.make_array(kind)(context, builder, value)
        return array.data, [builder.extract_value(array.shape, axis) for axis in range(kind.ndim)]

    def code(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        real = context.get_data_type(next(k.dtype for k in signature.args if isinstance(k, numba.types.Array)))
        pairs = zip(signature.args, values, strict=True)
        _lowered[function][0](builder, real, *(given(context, builder, *pair) for pair in pairs))
        return context.get_dummy_value()

    def typed(context: Any, *kinds: Any) -> Any:
        if any(isinstance(kind, numba.types.Array) and kind.layout != "C" for kind in kinds):
            raise numba.errors.TypingError(f"{function.__name__}: arrays must be dense")
        return numba.types.none(*map(numba.types.unliteral, kinds)), code

    context = inspect.Parameter("context", inspect.Parameter.POSITIONAL_ONLY)
    signature = inspect.signature(function)
    typed.__signature__ = signature.replace(parameters=[context, *signature.parameters.values()])  # type: ignore[attr-defined]
    typed.__name__ = function.__name__
    return extending.intrinsic(typed)


def _dispatcher(functions: tuple[Function, ...]) -> Function:
    """The entry as numba's dispatcher, which compiles at a call and keeps what it compiled in our folder."""
    entry = _jitted(functions)
    folder, key = _kernel.cache_folder(), _key(functions, ())
    if folder and key:
        config: Any = importlib.import_module("numba.core.config")
        before, config.CACHE_DIR = config.CACHE_DIR, str(folder / "numba" / key[:32])
        try:
            entry.enable_caching()
        except (OSError, RuntimeError):
            pass  # a folder that can't be written costs a compile next time, nothing else
        finally:
            config.CACHE_DIR = before
    return entry


def _compile(functions: tuple[Function, ...], parameters: tuple[_Parameter, ...]) -> _Object:
    """The optimised code that numba makes for these types, and a bridge to it, as an object file."""
    numba = importlib.import_module("numba")
    llvm = _llvm()

    def numba_type(p: _Parameter) -> Any:
        element = numba.from_dtype(np.dtype(p.dtype))
        return numba.types.Array(element, p.ndim, "C" if p.dense else "A", aligned=True) if p.is_array else element

    entry = _jitted(functions, counted=False, no_cpython_wrapper=True)
    types_ = tuple(numba_type(p) for p in parameters)
    try:
        entry.compile(types_)
    except numba.errors.NumbaError as error:  # it allocates, or is wrong: numba's dispatcher serves it, or says why
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        raise _Refused(" ".join(lines[:2])) from error
    made = entry.overloads[types_]
    returns = "bool" if made.signature.return_type == numba.types.boolean else str(made.signature.return_type)
    if returns not in (*_NUMBERS, "none"):
        raise _Refused(f"it returns {returns}")
    module = llvm.parse_assembly(entry.inspect_llvm(types_))
    name = made.fndesc.llvm_func_name
    takes = [str(x.type) for x in module.get_function(name).arguments]
    module.link_in(llvm.parse_assembly(_bridge(name, takes, parameters, returns, module)))
    module.verify()
    return _Object(_target_machine().emit_object(module), returns)


def _bridge(name: str, takes: list[str], parameters: tuple[_Parameter, ...], returns: str, module: Any) -> str:
    """LLVM code of a function that takes ndarray objects and numbers, and calls numba's function with its arguments.

    ``takes`` are the types of numba's function; they must be those that we know to fill.
    """
    ir = importlib.import_module("llvmlite.ir")
    i8, i32, i64 = ir.IntType(8), ir.IntType(32), ir.IntType(64)
    pointer = i8.as_pointer()

    def number(dtype: str) -> Any:
        if dtype in ("float32", "float64"):
            return ir.FloatType() if dtype == "float32" else ir.DoubleType()
        return ir.IntType(8 * np.dtype(dtype).itemsize)

    mine = ir.Module()
    mine.triple, mine.data_layout = module.triple, module.data_layout
    given = [pointer if p.is_array else number(p.dtype) for p in parameters]
    entry = ir.Function(mine, ir.FunctionType(i32, [pointer, *given]), _ENTRY)
    builder = ir.IRBuilder(entry.append_basic_block())

    def at(base: Any, offset: int, kind: Any) -> Any:
        place = builder.gep(base, [i64(offset)])
        return builder.load(builder.bitcast(place, kind.as_pointer()))

    result = builder.alloca(i64) if returns == "none" else None
    exception = builder.alloca(pointer)
    values = [builder.bitcast(result, pointer) if result else entry.args[0], builder.bitcast(exception, pointer)]
    for p, x in zip(parameters, entry.args[1:], strict=True):
        if p.is_array:
            shape, strides = (at(x, getattr(_Ndarray, field).offset, pointer) for field in ("shape", "strides"))
            sizes = [at(shape, 8 * axis, i64) for axis in range(p.ndim)]
            count = functools.reduce(builder.mul, sizes, i64(1))
            null = ir.Constant(pointer, None)
            values += [null, null, count, i64(np.dtype(p.dtype).itemsize), at(x, _Ndarray.data.offset, pointer)]
            values += [*sizes, *(at(strides, 8 * axis, i64) for axis in range(p.ndim))]
        elif p.dtype == "bool" and takes[len(values) : len(values) + 1] == ["i1"]:
            values.append(builder.trunc(x, ir.IntType(1)))
        else:
            values.append(x)
    wanted = ["ptr" if x.type == pointer else str(x.type) for x in values]
    if wanted != ["ptr" if kind.endswith("*") else kind for kind in takes]:
        raise _Refused(f"numba's function takes {takes}, not {wanted}")
    inner = ir.Function(mine, ir.FunctionType(i32, [x.type for x in values]), name)
    builder.ret(builder.call(inner, values))
    return str(mine)
