"""Compiles kernels and the runtime for the host, and keeps the results on disk."""

from __future__ import annotations

import functools
import hashlib
import os
import re
import stat
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from .errors import HostError

HERE = Path(__file__).parent
INCLUDE = HERE / "include"
RUNTIME = HERE / "runtime"

MACHINE = ["-march=x86-64-v3", "-ffp-contract=fast", "-fno-math-errno"]
BASE = [
    "-std=c++17",
    "-fPIC",
    "-fvisibility=hidden",
    "-fno-plt",
    "-gdwarf-4",
    "-I",
    str(INCLUDE),
    *MACHINE,
]
UNDEFINED = "bounds,alignment,shift-exponent,integer-divide-by-zero"
# -Og compiles a kernel a quarter faster than -O1, rounds like it and runs as fast: the time goes into the checker.
MODES = {
    "fast": ["-O2", "-g1"],
    "check": [
        "-Og",
        "-g1",
        f"-fsanitize=thread,{UNDEFINED}",
        "--param=tsan-distinguish-volatile=1",
        "--param=tsan-instrument-func-entry-exit=0",
    ],
    "asan": ["-O1", "-g", "-fsanitize=address"],
    "ubsan": ["-O1", "-g1", f"-fsanitize={UNDEFINED},null,object-size,signed-integer-overflow"],
}


def compiler() -> str:
    """The C++ compiler: ``$CXX`` or g++."""
    return os.environ.get("CXX") or "g++"


@functools.cache
def _compiler_version(command: str) -> str:
    return _run([command, "--version"]).splitlines()[0]


def _run(command: Sequence[str], cwd: str | None = None) -> str:
    try:
        done = subprocess.run(command, cwd=cwd, capture_output=True, text=True)
    except FileNotFoundError as error:
        raise HostError(f"{command[0]} is needed to run kernels on the CPU: {error}") from None
    if done.returncode:
        raise HostError(f"host compile failed: {' '.join(command)}\n{done.stderr[-6000:]}")
    return done.stdout


@functools.cache
def cache_directory() -> Path:
    """A directory that only this user can write: what lies there gets loaded into the process."""
    named = os.environ.get("HOSTRUN_CACHE")
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    candidates = [Path(base) / "cv3gpu-hostrun"]
    candidates.append(Path(tempfile.gettempdir()) / f"cv3gpu-hostrun-{os.getuid()}")
    for path in [Path(named)] if named else candidates:
        try:
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            status = path.lstat()
        except OSError:
            continue
        private = stat.S_ISDIR(status.st_mode) and not status.st_mode & 0o022
        if private and status.st_uid == os.getuid() and os.access(path, os.W_OK):
            return path
    raise HostError("no private cache directory: set HOSTRUN_CACHE to one of yours with mode 0700")


def cached(key: object, suffix: str, build: Callable[[str, str], None]) -> Path:
    """The file that ``build(scratch directory, target)`` makes, once per key.

    Workers that build the same file at the same time each rename a finished one into place.
    """
    identity = (key, _compiler_version(compiler()), _sources_digest())
    name = hashlib.sha256(repr(identity).encode()).hexdigest()[:32] + suffix
    path = cache_directory() / name
    if not path.exists():
        with tempfile.TemporaryDirectory(dir=cache_directory()) as scratch:
            target = os.path.join(scratch, "out" + suffix)
            build(scratch, target)
            os.replace(target, path)
    return path


@functools.cache
def _sources_digest() -> str:
    digest = hashlib.sha256()
    for path in sorted([*INCLUDE.iterdir(), *RUNTIME.iterdir()]):
        digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()


@functools.cache
def runtime_library(asan: bool = False) -> Path:
    """The scheduler and checker, one shared library for all kernels; never instrumented by tsan."""
    # Only the scheduler tells AddressSanitizer about its fibers.
    objects = [runtime_object("scheduler.cpp", asan)]
    objects += [runtime_object(f"{name}.cpp") for name in ("warp", "hopper", "checker", "sanitizers")]
    flags = ["-shared", *(["-fsanitize=address"] if asan else [])]
    # Kernels use the mathematical library through this one.
    libraries = ["-Wl,--no-as-needed", "-lm"]

    def build(scratch: str, target: str) -> None:
        _run([compiler(), *flags, *map(str, objects), *libraries, "-o", target], cwd=scratch)

    return cached(("runtime", flags, libraries, objects), ".so", build)


def runtime_object(name: str, asan: bool = False) -> Path:
    """One compiled source file of the runtime."""
    flags = [*BASE, "-O2", "-g1", *(["-fsanitize=address"] if asan else [])]

    def build(scratch: str, target: str) -> None:
        _run([compiler(), *flags, "-c", str(RUNTIME / name), "-o", target], cwd=scratch)

    return cached(("runtime object", name, flags), ".o", build)


@functools.cache
def _header(flags: tuple[str, ...]) -> Path:
    """The header in front of every kernel, read once for all: a fifth of a second for each kernel less."""

    def build(scratch: str, target: str) -> None:
        source = INCLUDE / "cuda_host.h"
        _run([compiler(), *flags, "-x", "c++-header", str(source), "-o", target], cwd=scratch)

    path = cached(("header", flags), ".h.gch", build)
    text = path.with_suffix("")  # what another compiler, or one that cannot use the former, reads
    if not text.exists():
        with tempfile.NamedTemporaryFile("w", dir=path.parent, delete=False) as out:
            out.write('#include "cuda_host.h"\n')
        os.replace(out.name, text)
    return path


def kernel_library(text: str, mode: str) -> Path:
    """A library made of a complete C++ translation unit."""
    if mode not in MODES:
        raise HostError(f"mode {mode!r}: one of {', '.join(MODES)}")
    flags = [*BASE, "-w", *MODES[mode]]
    runtime = runtime_library(mode == "asan")

    def build(scratch: str, target: str) -> None:
        Path(scratch, "unit.cpp").write_text(text)
        here = f"-fdebug-prefix-map={scratch}=."
        header = ["-include", str(_header(tuple(flags)).with_suffix(""))]
        _run([compiler(), *flags, here, *header, "-c", "unit.cpp", "-o", "unit.o"], cwd=scratch)
        _link(scratch, ["unit.o"], runtime, target, mode == "asan")

    return cached(("kernel", text, flags, str(runtime)), ".so", build)


def object_library(key: object, make_object: Callable[[], bytes], extra: str) -> Path:
    """A library made of a ready object file and one more C++ source of the runtime."""
    runtime = runtime_library()
    extra_object = runtime_object(extra)

    def build(scratch: str, target: str) -> None:
        Path(scratch, "unit.o").write_bytes(make_object())
        _link(scratch, ["unit.o", str(extra_object)], runtime, target, asan=False)

    return cached(("object", key, str(extra_object), str(runtime)), ".so", build)


def _link(scratch: str, objects: list[str], runtime: Path, target: str, asan: bool) -> None:
    # The runtime brings the standard libraries; to search them again is most of the linker's time.
    libraries = ["-fsanitize=address", "-lm"] if asan else ["-nostdlib", "-lgcc"]
    command = [compiler(), "-shared", "-Wl,-Bsymbolic", *objects, str(runtime)]
    _run([*command, *libraries, "-o", target], cwd=scratch)


_COMMENT = re.compile(r"//[^\n]*|/\*.*?\*/", re.S)
_KERNEL = re.compile(
    r'extern\s+"C"\s+__global__\s+(?:void\s+)?'
    r"(?:__launch_bounds__\s*\(((?:[^()]|\([^()]*\))*)\)\s*)?"
    r"(?:void\s+)?(\w+)\s*\("
)
_ALIGN = r"(?:__align__|alignas)\s*\(\s*(\w+)\s*\)"
_DYNAMIC_SHARED = re.compile(
    rf"extern\s+__shared__\s+(?:{_ALIGN}\s+)?([\w:<>][\w:<>\s]*?)\s*(?:{_ALIGN}\s*)?"
    r"\b(\w+)\s*\[\s*\]\s*;"
)
_HOPPER = re.compile(r"\b(?:mbar_|tma_load|wgmma_|cv3_tmap)")


def kernels_of(source: str) -> dict[str, str]:
    """Names of the ``extern "C"`` kernels in a source, with their launch bound or ``1024``."""
    found = _KERNEL.findall(_COMMENT.sub(" ", source))
    return {name: bounds.split(",")[0].strip() or "1024" for bounds, name in found}


def translation_unit(source: str) -> tuple[str, int]:
    """The C++ text around a kernel source, and the alignment its dynamic shared memory asks for."""
    alignment = 16

    def declare(match: re.Match[str]) -> str:
        nonlocal alignment
        asked = match[1] or match[3] or "16"
        alignment = max(alignment, int(asked, 0) if asked[0].isdigit() else 128)
        lines = "\n" * match[0].count("\n")
        return f"HOST_DYNAMIC_SHARED({match[2]}, {match[4]});{lines}"

    body = _DYNAMIC_SHARED.sub(declare, source)
    hopper = '#include "hopper.h"\n' if _HOPPER.search(source) else ""
    entries = "\n".join(
        f"HOST_ENTRY({index}, {name}, {bound})" for index, (name, bound) in enumerate(kernels_of(source).items())
    )
    head = f'#include "cuda_host.h"\n{hopper}#line 1 "kernel.cu"\n'
    return f'{head}{body}\n#line 1 "entries"\n{entries}\n', alignment
