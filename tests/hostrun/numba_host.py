"""Runs numba.cuda kernels on the CPU: numba-cuda's own LLVM code, retargeted to x86-64.

The kernel runs as fibers under the same runtime as the CUDA C++ ones, with all warp intrinsics that
numba's simulator lacks. It leans on numba-cuda's inner interfaces (``compile_cuda`` and the modules
of its libraries): pin its version.
"""

from __future__ import annotations

import ctypes
import functools
import re
import types as python_types
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import llvmlite.binding as llvm
import numba.cuda.dispatcher as numba_dispatcher
import numpy as np
from numba import typeof, types
from numba.cuda.compiler import compile_cuda

from . import build
from .errors import HostError
from .launch import HostKernel, Library, Options, Parameter, Pointer

COMPUTE_CAPABILITY = (9, 0)
CPU = "x86-64-v3"
DYNAMIC = "host_numba_dynamic"

# libdevice functions that the C library has under the same name, without the prefix __nv_.
LIBM = re.compile(
    "sqrt|exp|exp2|exp10|expm1|log|log2|log10|log1p|sin|cos|tan|asin|acos|atan|atan2|sinh|cosh|tanh|"
    "asinh|acosh|atanh|pow|fabs|floor|ceil|fmod|fma|fmin|fmax|rint|round|trunc|erf|erfc|cbrt|hypot|"
    "copysign|ldexp|remainder|tgamma|lgamma|nearbyint"
)

SIZES = {
    "i1": 1,
    "i8": 1,
    "i16": 2,
    "half": 2,
    "i32": 4,
    "float": 4,
    "i64": 8,
    "double": 8,
    "ptr": 8,
}

ASSEMBLY = {
    "mov.u32 $0, %dynamic_smem_size;": "@host_numba_dynamic_size",
    "mov.u32 $0, %lanemask_lt;": "@host_numba_lanemask_lt",
}

DECLARATIONS = """
declare i32 @host_numba_dynamic_size()
declare i32 @host_numba_lanemask_lt()
declare void @host_numba_at(ptr, i32)
declare void @host_numba_touch(ptr, i32, i32, ptr, i32)
declare void @host_numba_touch_range(ptr, i64, i32, ptr, i32)
declare void @host_numba_atomic(ptr, i32, ptr, i32)
declare i64 @host_numba_shuffle(i32, i32, i32, i32, i32)
declare i64 @host_numba_vote(i32, i32, i32)
declare i64 @host_numba_match_all(i32, i64)
"""

# These intrinsics return a value and a predicate; the runtime packs both in one word.
UNPACK = """
  %value = trunc i64 %packed to i32
  %high = lshr i64 %packed, 32
  %predicate = trunc i64 %high to i1
  %half = insertvalue {i32, i1} undef, i32 %value, 0
  %whole = insertvalue {i32, i1} %half, i1 %predicate, 1
  ret {i32, i1} %whole
}
"""
ADAPTERS = {
    "host_nvvm_shfl_sync_i32": """
define internal {i32, i1} @host_nvvm_shfl_sync_i32(i32 %m, i32 %o, i32 %v, i32 %b, i32 %c) {
  %packed = call i64 @host_numba_shuffle(i32 %m, i32 %o, i32 %v, i32 %b, i32 %c)""",
    "host_nvvm_vote_sync": """
define internal {i32, i1} @host_nvvm_vote_sync(i32 %m, i32 %o, i1 %p) {
  %wide = zext i1 %p to i32
  %packed = call i64 @host_numba_vote(i32 %m, i32 %o, i32 %wide)""",
    "host_nvvm_match_all_sync_i32": """
define internal {i32, i1} @host_nvvm_match_all_sync_i32(i32 %m, i32 %v) {
  %wide = zext i32 %v to i64
  %packed = call i64 @host_numba_match_all(i32 %m, i64 %wide)""",
    "host_nvvm_match_all_sync_i64": """
define internal {i32, i1} @host_nvvm_match_all_sync_i64(i32 %m, i64 %v) {
  %packed = call i64 @host_numba_match_all(i32 %m, i64 %v)""",
}

SHARED_GLOBAL = re.compile(
    r'^@("[^"]+") = (external )?addrspace\(3\) global (\[.*\])(?: undef)?(?:, align \d+)?$',
    re.MULTILINE,
)
POINTER_TYPE = re.compile(r'(?:\[[^\[\]"]*\]|\{[^{}"]*\}|[\w.]+|%"[^"\n]*")\*')
METADATA = re.compile(r",? !\w+ !\d+")
# Type and address; what follows the address is its alignment and metadata.
TYPE = r"[\w.]+|[{\[<].*?[}\]>]"
ADDRESS = r"([%@][^,\s]+|\w+ (?:inbounds )?\(.*?\))(?= *(?:, align \d+)?(?: *, !.*)? *$)"
LOAD = re.compile(rf"\s*%\S+ = load (?:volatile )?({TYPE}), ptr {ADDRESS}")
STORE = re.compile(rf"\s*store (?:volatile )?({TYPE}) .+, ptr {ADDRESS}")
MEMORY_BLOCK = re.compile(
    r'.*\bcall void @"?llvm\.(memcpy|memmove|memset)\b.*?\('
    r"ptr (?:[a-z]+ |align \d+ )*([^,]+), (?:ptr|i8) (?:[a-z]+ |align \d+ )*([^,]+), i\d+ ([^,]+)"
)
READ_MODIFY_WRITE = re.compile(r"\s*%\S+ = (?:atomicrmw|cmpxchg) (?:volatile )?(?:\w+ )?ptr ([%@][^,\s]+), (\w+)")
UNSEEN = re.compile(r"\s*(?:%\S+ = )?(?:load|store|atomicrmw|cmpxchg|call .*@\"?llvm\.mem\w+)\b")
LOCAL = re.compile(r"\s*(%\S+) = (?:alloca|(?:getelementptr|bitcast)\b.*? ptr (%[^,\s]+))")
NEEDS_SITE = re.compile(r"call .*@(?:host_nvvm_(?:barrier|bar_|shfl|vote|match|atomic)|___numba_atomic)")


class _Lines:
    """File and line of an instruction, from the debug metadata of one module."""

    def __init__(self, text: str, default_file: str) -> None:
        nodes = dict(re.findall(r"^!(\d+) = (?:distinct )?!(DI\w+\(.*\))$", text, re.MULTILINE))
        self._nodes = nodes
        self._default = default_file
        self._files: dict[str, int] = {}

    def site(self, line: str, function: str) -> str:
        """Two call arguments: the file's name and the line number."""
        found = re.search(r"!dbg !(\d+)", line)
        location = self._nodes.get(found[1], "") if found else ""
        number = re.search(r"\bline: (\d+)", location)
        name = self._file(location) if number else f"{self._default} ({function})"
        index = self._files.setdefault(name, len(self._files))
        return f"ptr @host_file_{index}, i32 {number[1] if number else 0}"

    def _file(self, node: str) -> str:
        for key in ("scope", "file"):
            while reference := re.search(rf"\b{key}: !(\d+)", node):
                node = self._nodes.get(reference[1], "")
        name = re.search(r'filename: "([^"]*)"', node)
        return name[1] if name else self._default

    def constants(self) -> str:
        lines = []
        for name, index in self._files.items():
            data = name.encode() + b"\0"
            text = "".join(f"\\{byte:02x}" for byte in data)
            lines.append(f'@host_file_{index} = private constant [{len(data)} x i8] c"{text}"\n')
        return "".join(lines)


def _own_shared_memory(text: str) -> str:
    """Shared arrays become ordinary globals, the dynamic one becomes the runtime's."""
    # numba counts shared arrays per process; counted per kernel, the cache can find them again.
    for index, match in enumerate(list(SHARED_GLOBAL.finditer(text))):
        text = text.replace(match[1], f'"_cudapy_smem.{index}"')
    dynamic = [match[1] for match in SHARED_GLOBAL.finditer(text) if match[2]]

    def declare(match: re.Match[str]) -> str:
        return "" if match[2] else f"@{match[1]} = internal global {match[3]} zeroinitializer, align 16"

    text = SHARED_GLOBAL.sub(declare, text)
    for name in dynamic:
        text = text.replace(f"@{name}", f"@{DYNAMIC}")
    return f"@{DYNAMIC} = external global [0 x i8]\n{text}" if dynamic else text


def _replace_assembly(text: str) -> str:
    for instruction, function in ASSEMBLY.items():
        text = re.sub(rf'asm (?:sideeffect )?"{re.escape(instruction)}", "=r"', function, text)
    left = re.search(r'\basm (?:sideeffect )?"[^"]*"', text)
    if left:
        raise HostError(f"a numba kernel with inline PTX cannot run on the host: {left[0]}")
    return text


def _opaque_pointers(text: str) -> str:
    text = re.sub(r"addrspace\(\d+\)\s*", "", text).replace("addrspacecast", "bitcast")
    before = None
    while before != text:
        before = text
        text = POINTER_TYPE.sub("ptr", text)
    return text


def _host_names(text: str) -> str:
    def library_name(match: re.Match[str]) -> str:
        name = match[1]
        known = LIBM.fullmatch(name) or LIBM.fullmatch(name.removesuffix("f"))
        return name if known else f"__nv_{name}"

    text = re.sub(r'"?llvm\.nvvm\.([\w.]+)"?', lambda m: "host_nvvm_" + m[1].replace(".", "_"), text)
    text = re.sub(r'"?__nv_(\w+)"?(?=\()', library_name, text)
    # Special registers do not change: calls may be folded.
    return re.sub(
        r"^(declare i32 @host_nvvm_read_ptx_sreg\w+\(\)).*$",
        r"\1 memory(none) nounwind willreturn",
        text,
        flags=re.MULTILINE,
    )


def _instrument(text: str, lines: _Lines, check: bool) -> str:
    """Announces lines to the runtime and, in check mode, every access to memory."""
    result: list[str] = []
    function = ""
    local: set[str] = set()
    for line in text.splitlines():
        if defined := re.match(r'define [^@]*@"?([^"(]+)', line):
            function = re.sub(r"^_Z.*?(\d+)([A-Za-z_]\w*?)B\d+.*$", r"\2", defined[1])
            local = set()
        derived = LOCAL.match(line)
        if derived and (derived[2] is None or derived[2] in local):
            local.add(derived[1])
        if NEEDS_SITE.search(line):
            result.append(f"  call void @host_numba_at({lines.site(line, function)})")
        if check:
            result.extend(_access_hooks(line, local, lines, function))
        if not re.match(r"!|attributes ", line):
            result.append(re.sub(r" #\d+", "", METADATA.sub("", line)))
    return "\n".join(result)


def _access_hooks(line: str, local: set[str], lines: _Lines, function: str) -> Iterator[str]:
    load, store, update = LOAD.match(line), STORE.match(line), READ_MODIFY_WRITE.match(line)
    block = MEMORY_BLOCK.match(line)
    hook = "  call void @host_numba_touch"
    if access := load or store:
        kind, address = access[1], access[2]
        if address in local or "NumbaEnv" in address:
            return
        end = f"i32 {int(access is store)}, {lines.site(line, function)})"
        if kind in SIZES:
            yield f"{hook}(ptr {address}, i32 {SIZES[kind]}, {end}"
        else:
            size = f"ptrtoint (ptr getelementptr ({kind}, ptr null, i32 1) to i64)"
            yield f"{hook}_range(ptr {address}, i64 {size}, {end}"
    elif update:
        site = lines.site(line, function)
        yield f"  call void @host_numba_atomic(ptr {update[1]}, i32 {SIZES[update[2]]}, {site})"
    elif block:
        site = lines.site(line, function)
        yield f"{hook}_range(ptr {block[2]}, i64 {block[4]}, i32 1, {site})"
        if block[1] != "memset":
            yield f"{hook}_range(ptr {block[3]}, i64 {block[4]}, i32 0, {site})"
    elif UNSEEN.match(line):
        raise HostError(f"check mode does not know this access of a numba kernel: {line.strip()}")


def _retarget(text: str, file: str, check: bool) -> str:
    """One module of numba-cuda's LLVM text for the host."""
    lines = _Lines(text, file)
    text = re.sub(r"^target (triple|datalayout).*$", "", text, flags=re.MULTILINE)
    text = re.sub(r'^.*@"?llvm\.dbg\.\w+"?\(.*$', "", text, flags=re.MULTILINE)
    text = _host_names(_opaque_pointers(_replace_assembly(_own_shared_memory(text))))
    text = _instrument(text, lines, check)
    for name, body in ADAPTERS.items():
        text, used = re.subn(rf"^declare .*@{name}\(.*$", "", text, flags=re.MULTILINE)
        if used:
            text += body + UNPACK
    return lines.constants() + text + DECLARATIONS


@contextmanager
def _pretended_device() -> Iterator[None]:
    """Kernels that call device functions ask for the current GPU; there may be none."""
    real = numba_dispatcher.get_current_device
    device = python_types.SimpleNamespace(compute_capability=COMPUTE_CAPABILITY)
    numba_dispatcher.get_current_device = lambda: device
    try:
        yield
    finally:
        numba_dispatcher.get_current_device = real


def _entry_module(name: str, parameters: Sequence[str]) -> str:
    """A function that unpacks the runtime's array of argument addresses and calls the kernel."""
    unpack = "".join(
        f"  %p{i} = getelementptr ptr, ptr %args, i64 {i}\n"
        f"  %q{i} = load ptr, ptr %p{i}\n"
        f"  %v{i} = load {kind}, ptr %q{i}\n"
        for i, kind in enumerate(parameters)
    )
    declared = "".join(f", {kind}" for kind in parameters)
    passed = "".join(f", {kind} %v{i}" for i, kind in enumerate(parameters))
    return (
        f'declare i32 @"{name}"(ptr{declared})\n'
        "define void @host_entry_0(ptr %args) {\n  %result = alloca ptr\n"
        f'{unpack}  %status = call i32 @"{name}"(ptr %result{passed})\n  ret void\n}}\n'
    )


def _emit_object(texts: Sequence[str]) -> bytes:
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    triple = llvm.get_process_triple()
    machine = llvm.Target.from_triple(triple).create_target_machine(cpu=CPU, opt=2, reloc="pic")
    modules = []
    for text in texts:
        module = llvm.parse_assembly(text)
        module.verify()
        module.triple = triple
        module.data_layout = str(machine.target_data)
        modules.append(module)
    main = modules[0]
    for module in modules[1:]:
        main.link_in(module)
    builder = llvm.create_pass_builder(machine, llvm.create_pipeline_tuning_options(speed_level=2))
    builder.getModulePassManager().run(main, builder)
    return machine.emit_object(main)


@functools.cache
def _compiled_library(function: Callable[..., Any], signature: tuple[types.Type, ...], mode: str) -> Library:
    with _pretended_device():
        result = compile_cuda(
            function,
            types.void,
            signature,
            lineinfo=True,
            nvvm_options={"opt": 3},
            cc=COMPUTE_CAPABILITY,
        )
    libraries = [result.library, *result.library._linking_libraries]
    sources = dict.fromkeys(str(module) for library in libraries for module in library.modules)
    file = function.__code__.co_filename.rpartition("/")[2]
    texts = [_retarget(source, file, mode == "check") for source in sources]
    name = result.fndesc.llvm_func_name
    texts.insert(0, _entry_module(name, _parameter_types(name, texts)))
    path = build.object_library(texts, lambda: _emit_object(texts), "numba_device.cpp")
    return Library(path, mode)


class NumbaHostKernel:
    """A numba.cuda kernel on the CPU: ``kernel(grid, block, args, shared_mem=0)``.

    Arguments are C-contiguous NumPy arrays (a read-only one must not be written) and NumPy scalars.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        mode: str = "check",
        options: Options | None = None,
        on_launch: Callable[[dict[str, int]], None] | None = None,
    ) -> None:
        if mode not in ("fast", "check"):
            raise HostError(f"mode {mode!r}: numba kernels run in fast or check")
        self._function: Callable[..., Any] = getattr(function, "py_func", function)
        self.name = self._function.__name__
        self.mode = mode
        self.options = options or Options()
        self._on_launch = on_launch
        self._kernels: dict[tuple[types.Type, ...], HostKernel] = {}
        self.stats: dict[str, int] = {}

    def __call__(
        self,
        grid: tuple[int, int, int],
        block: tuple[int, int, int],
        args: Sequence[Any],
        shared_mem: int = 0,
    ) -> None:
        signature = tuple(self._type_of(index, value) for index, value in enumerate(args))
        if signature not in self._kernels:
            self._kernels[signature] = self._kernel_for(signature)
        kernel = self._kernels[signature]
        size = ctypes.c_int.in_dll(kernel.library.handle, f"{DYNAMIC}_bytes")
        size.value = shared_mem
        kernel(grid, block, [flat for value in args for flat in _flatten(value)], shared_mem)
        self.stats = kernel.stats

    def _type_of(self, index: int, value: Any) -> types.Type:
        if isinstance(value, np.ndarray):
            if not value.flags.c_contiguous:
                raise HostError(f"{self.name}: argument {index} is not C-contiguous")
        elif not isinstance(value, np.generic):
            given = type(value).__name__
            raise HostError(f"{self.name}: argument {index} is {given}, no NumPy array or scalar")
        return typeof(value)

    def _kernel_for(self, signature: tuple[types.Type, ...]) -> HostKernel:
        library = _compiled_library(self._function, signature, self.mode)
        return HostKernel(
            library,
            self.name,
            library.entry("host_entry_0"),
            [item for index, kind in enumerate(signature) for item in _parameters(kind, index)],
            library.variables("host_entry_0"),
            self.options,
            on_launch=self._on_launch,
            dynamic_shared=library.entry(DYNAMIC),
        )


def _parameter_types(name: str, texts: Sequence[str]) -> list[str]:
    """LLVM types of the kernel's parameters, without the first one: its return slot."""
    head = re.compile(rf'^define [^@\n]*@"?{re.escape(name)}"?\((.*?)\)', re.MULTILINE)
    found = next(match for text in texts if (match := head.search(text)))
    return [part.strip().split(" ")[0] for part in found[1].split(", ")][1:]


def _flatten(value: Any) -> list[Any]:
    """Numba passes an array as meminfo, parent, size, item size, data, shape, strides."""
    if not isinstance(value, np.ndarray):
        return [value]
    data = Pointer(value.ctypes.data, value.nbytes)
    numbers = [*value.shape, *value.strides]
    head = [None, None, np.int64(value.size), np.int64(value.itemsize), data]
    return head + [np.int64(number) for number in numbers]


def _parameters(kind: types.Type, index: int) -> list[Parameter]:
    integer = Parameter("i", 8, "int64", index)
    pointer = Parameter("p", 8, "pointer", index)
    if isinstance(kind, types.Array):
        data = Parameter("p" if kind.mutable else "r", 8, str(kind), index)
        return [pointer, pointer, integer, integer, data, *[integer] * (2 * kind.ndim)]
    dtype = np.dtype(str(kind))
    return [Parameter(dtype.kind, dtype.itemsize, str(kind), index)]
