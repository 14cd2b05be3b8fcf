"""What the compiler says of every kernel, without a GPU: registers, spills, shared memory, instruction mix.

:func:`compile_report` compiles every variant of every CUDA file for every architecture that the file's
header declares. ``cv3gpu kernels compile`` prints it, ``python -m bench.static_report`` keeps it as a table,
and the tests hold the table.
"""

from __future__ import annotations

import functools
import hashlib
import importlib
import json
import os
import re
import struct
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from . import _kernel, kernels
from .errors import KernelCompileError

__all__ = [
    "Job",
    "Row",
    "compile_jobs",
    "compile_report",
    "hot_kernels",
    "instruction_mix",
    "kernel_figures",
    "launch_bounds",
    "occupancy",
    "opcodes_of",
    "plan",
]


class Row(NamedTuple):
    """One kernel of one specialisation on one architecture; sizes in bytes.

    ``occupancy`` is the share of the multiprocessor's threads that registers, static shared memory and block
    size leave room for (dynamic shared memory is the launcher's choice and is not counted). A text that does
    not compile has one row, whose ``error`` holds the compiler's log.
    """

    file: str
    variant: str
    arch: str
    kernel: str
    registers: int = 0
    stack: int = 0
    spill_stores: int = 0
    spill_loads: int = 0
    shared: int = 0
    barriers: int = 0
    threads: int = 0
    occupancy: float = 0.0
    error: str = ""
    mix: dict[str, int] = {}


class Multiprocessor(NamedTuple):
    """The limits of one streaming multiprocessor (CUDA programming guide, compute capabilities)."""

    threads: int
    blocks: int
    shared: int
    reserved: int  # shared memory that the system keeps from each block, bytes
    registers: int = 65536


LIMITS = {
    "75": Multiprocessor(1024, 16, 64 << 10, 0),
    "80": Multiprocessor(2048, 32, 164 << 10, 1024),
    "86": Multiprocessor(1536, 16, 100 << 10, 1024),
    "87": Multiprocessor(1536, 16, 164 << 10, 1024),
    "89": Multiprocessor(1536, 24, 100 << 10, 1024),
    "90": Multiprocessor(2048, 32, 228 << 10, 1024),
    "100": Multiprocessor(2048, 32, 228 << 10, 1024),
    "103": Multiprocessor(2048, 32, 228 << 10, 1024),
    "120": Multiprocessor(1536, 24, 100 << 10, 1024),
    "121": Multiprocessor(1536, 24, 100 << 10, 1024),
}


def occupancy(arch: str, registers: int, shared: int, threads: int) -> float:
    """Resident threads over the most that a multiprocessor holds; 0 for an architecture not in the table.

    Registers are given out in units of 256 for each warp.
    """
    limits = LIMITS.get(arch.rstrip("af"))
    if limits is None or threads == 0:
        return 0.0
    warps = -(-threads // 32)
    per_warp = -(-registers * 32 // 256) * 256
    by_registers = limits.registers // max(per_warp, 256) // warps
    by_shared = limits.shared // (shared + limits.reserved) if shared + limits.reserved else limits.blocks
    resident = min(by_registers, by_shared, limits.threads // 32 // warps, limits.blocks)
    return resident * warps / (limits.threads // 32)


# ---- the compiler's log and the binary ------------------------------------------------------------------

_FIGURES = (
    (
        re.compile(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads"),
        ("stack", "spill_stores", "spill_loads"),
    ),
    (re.compile(r"Used (\d+) registers"), ("registers",)),
    (re.compile(r"used (\d+) barriers"), ("barriers",)),
    (re.compile(r"(\d+) bytes smem"), ("shared",)),
)


def kernel_figures(log: str) -> dict[str, dict[str, int]]:
    """Figures by kernel from the log of ``--ptxas-options=-v``."""
    found: dict[str, dict[str, int]] = {}
    current: dict[str, int] = {}
    for line in log.splitlines():
        if entry := re.search(r"Compiling entry function '(\S+)' for", line):
            current = found.setdefault(entry[1], {})
        for pattern, names in _FIGURES:
            if match := pattern.search(line):
                current.update(zip(names, map(int, match.groups()), strict=True))
    return found


_MAX_THREADS = 0x05  # EIATTR_MAX_THREADS: what __launch_bounds__ says, three 32-bit numbers
_SIZED = 0x04  # an attribute whose payload's length stands in its head


def _sections(cubin: bytes) -> dict[str, bytes]:
    """Sections of a 64-bit ELF file by name."""
    (table,) = struct.unpack_from("<Q", cubin, 0x28)
    size, count, names_at = struct.unpack_from("<HHH", cubin, 0x3A)
    heads = [struct.unpack_from("<IIQQQQ", cubin, table + i * size) for i in range(count)]
    names = cubin[heads[names_at][4] :]
    return {names[h[0] : names.index(b"\0", h[0])].decode(): cubin[h[4] : h[4] + h[5]] for h in heads}


def launch_bounds(cubin: bytes) -> dict[str, int]:
    """Threads of a block that each kernel of a binary is bounded to; a kernel without a bound is left out."""
    found = {}
    for section, body in _sections(cubin).items():
        if not section.startswith(".nv.info."):
            continue
        at = 0
        while at + 4 <= len(body):
            form, attribute, length = struct.unpack_from("<BBH", body, at)
            if form == _SIZED and attribute == _MAX_THREADS:
                x, y, z = struct.unpack_from("<III", body, at + 4)
                found[section.removeprefix(".nv.info.")] = x * y * z
            at += 4 + (length if form == _SIZED else 0)
    return found


# ---- instruction mix ------------------------------------------------------------------------------------

_CLASSES = (
    ("tensor", r"(H|I|D|Q|B)MMA|HGMMA|IGMMA|QGMMA|UTC\w*MMA"),
    ("ffma", r"FFMA"),
    ("dfma", r"DFMA"),
    ("mufu", r"MUFU"),
    ("ldgsts", r"LDGSTS"),
    ("ldsm", r"LDSM"),
    ("ldg128", r"LDG\S*\.128"),
    ("ldg", r"LDG"),
    ("stg128", r"STG\S*\.128"),
    ("stg", r"STG"),
    ("lds128", r"LDS\S*\.128"),
    ("lds", r"LDS"),
    ("sts", r"STS"),
    ("tma", r"UTMA|UBLK"),
    ("ldl", r"LDL"),
    ("stl", r"STL"),
    ("atomic", r"ATOM|RED"),
    ("barrier", r"BAR|SYNCS|WARPSYNC"),
    ("shuffle", r"SHFL|VOTE|MATCH"),
    ("branch", r"BRA|BSSY|BSYNC|EXIT|CALL|RET"),
)


@functools.cache
def disassembler() -> Path | None:
    """The ``nvdisasm`` of the pip package nvidia-cuda-nvdisasm, or None."""
    try:
        folders = list(importlib.import_module("nvidia").__path__)
    except ImportError:
        return None
    found = [path for folder in folders for path in sorted(Path(folder).glob("*/bin/nvdisasm"))]
    return found[0] if found else None


def opcodes_of(cubin: bytes) -> dict[str, Counter[str]]:
    """How often each kernel of a binary has each opcode, modifiers included; empty where nvdisasm is not installed."""
    program = disassembler()
    if program is None:
        return {}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kernel.cubin"
        path.write_bytes(cubin)
        listing = subprocess.run([program, "-json", path], check=True, capture_output=True, text=True).stdout
    functions = json.loads(listing)[1]
    return {f["function-name"]: Counter(i["opcode"] for i in f["sass-instructions"]) for f in functions}


def instruction_mix(cubin: bytes) -> dict[str, dict[str, int]]:
    """Instructions of each kernel by class, and in all; empty where nvdisasm is not installed."""
    mixes = {}
    for name, opcodes in opcodes_of(cubin).items():
        mix: Counter[str] = Counter()
        for opcode, count in opcodes.items():
            mix[next((kind for kind, pattern in _CLASSES if re.match(pattern, opcode)), "other")] += count
        mixes[name] = {"instructions": mix.total(), **dict(sorted(mix.items()))}
    return mixes


# ---- the report -----------------------------------------------------------------------------------------


class Job(NamedTuple):
    """One text to compile for one architecture."""

    file: str
    variant: str
    arch: str
    text: str

    @property
    def code(self) -> str:
        """The text without comments and line breaks, which do not change the binary."""
        bare = re.sub(r"//[^\n]*|/\*.*?\*/|^[ \t]*#line[^\n]*$", " ", self.text, flags=re.S | re.M)
        return " ".join(bare.split())


def _covering(variants: Sequence[dict[str, str]], seen: Counter[int]) -> list[int]:
    """A few variants in which every value of every constant occurs, best those seen least often so far."""
    missing = {item for constants in variants for item in constants.items()}
    chosen: list[int] = []
    while missing or not chosen:
        best = max(range(len(variants)), key=lambda i: (len(missing & variants[i].items()), -seen[i], i))
        chosen.append(best)
        missing -= variants[best].items()
    seen.update(chosen)
    return chosen


def plan(
    files: Iterable[str] | None = None, archs: Iterable[str | int] | None = None, *, covering: bool = False
) -> list[Job]:
    """What there is to compile: every variant of ``files`` (default all) on every architecture of its header.

    ``archs`` keeps those compute capabilities only. ``covering`` keeps a few variants for each architecture,
    in which every value of every constant occurs; each architecture gets others, as far as there are others.
    """
    wanted = None if archs is None else {str(arch) for arch in archs}
    jobs = []
    for file in kernels.files() if files is None else files:
        if not file.endswith(".cu"):
            continue
        declared = kernels.header(file).get("arch", "").split()
        if not declared:
            raise ValueError(f"kernel {file}: its header must declare arch, got no such field")
        variants = kernels.variants(file)
        seen: Counter[int] = Counter()
        for arch in declared:
            chosen = _covering(variants, seen) if covering else range(len(variants))
            if wanted is not None and arch not in wanted:
                continue
            for constants in (variants[i] for i in chosen):
                variant = " ".join(f"{name}={value}" for name, value in constants.items())
                jobs.append(Job(file, variant, arch, _kernel.specialise(file, **constants)))
    return jobs


def _compile(job: Job, sass: bool) -> list[dict[str, Any]]:
    arch = int(job.arch) if job.arch.isdigit() else job.arch
    try:
        compiled = _kernel.compile_source(job.text, job.file, arch)
    except KernelCompileError as error:
        return [{"kernel": "", "error": str(error)}]
    figures = kernel_figures(compiled.log)
    if not figures:
        return [{"kernel": "", "error": f"kernel {job.file}: this NVRTC has no assembler for sm_{job.arch}"}]
    bounds = launch_bounds(compiled.binary)
    mixes = instruction_mix(compiled.binary) if sass else {}
    return [
        {"kernel": name, **found, "threads": bounds.get(name, 0), "mix": mixes.get(name, {})}
        for name, found in figures.items()
    ]


def _report(job: Job, sass: bool, cache: Path | None) -> list[Row]:
    kept = None
    if cache is not None:
        key = repr((job.code, job.arch, sass, _kernel.nvrtc_version(), _FIGURES, _CLASSES))
        kept = cache / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.json"
    if kept is not None and kept.is_file():
        found = json.loads(kept.read_text())
    else:
        found = _compile(job, sass)
        if kept is not None and not found[0].get("error"):
            unfinished = kept.with_suffix(f".{os.getpid()}")
            unfinished.write_text(json.dumps(found))
            unfinished.replace(kept)
    rows = [Row(job.file, job.variant, job.arch, **values) for values in found]
    return [r._replace(occupancy=round(occupancy(r.arch, r.registers, r.shared, r.threads), 3)) for r in rows]


def compile_jobs(
    jobs: Iterable[Job], *, sass: bool = False, cache: Path | None = None, workers: int | None = None
) -> list[Row]:
    """Compiles with NVRTC and reports what it said, sorted by file, variant, architecture and kernel.

    Parameters
    ----------
    jobs : what to compile, from :func:`plan`
    sass : whether to disassemble as well (needs the pip package nvidia-cuda-nvdisasm)
    cache : folder that keeps the rows of texts that compiled, by text, architecture and NVRTC version
    workers : threads, default one a CPU core; NVRTC runs outside Python's lock
    """
    with ThreadPoolExecutor(workers or os.cpu_count()) as pool:
        parts = pool.map(lambda job: _report(job, sass, cache), jobs)
        rows = [row for part in parts for row in part]
    return sorted(rows, key=lambda r: (r.file, r.variant, int(r.arch.rstrip("af")), r.arch, r.kernel))


def compile_report(
    files: Iterable[str] | None = None,
    archs: Iterable[str | int] | None = None,
    *,
    sass: bool = False,
    cache: Path | None = None,
    workers: int | None = None,
) -> list[Row]:
    """:func:`compile_jobs` of the whole :func:`plan`."""
    return compile_jobs(plan(files, archs), sass=sass, cache=cache, workers=workers)


def hot_kernels(file: str) -> tuple[str, ...]:
    """Kernels that the file's header calls hot: they must not spill nor touch local memory."""
    return tuple(kernels.header(file).get("hot", "").split())
