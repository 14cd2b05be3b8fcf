"""Kernels compile for the architectures that they declare, and hot kernels spill nothing. Needs no GPU.

For sm_90 a few variants of each file are compiled, in which every value of every constant occurs; one variant for the
lowest architecture, whose instructions are the fewest; and one for another architecture, of which the files take turns.
CV3GPU_COMPILE=covering compiles a few variants of each file for every architecture that it declares, as the kept table
has them, and CV3GPU_COMPILE=all every variant. Run one of them, or ``python -m bench.static_report --check``, after a
change of a kernel.
"""

from __future__ import annotations

import functools
import itertools
import os
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import cv3gpu
from bench import static_report
from cv3gpu import _array, _kernel, _report, kernels
from cv3gpu.errors import KernelCompileError

pytest.importorskip("cuda.bindings.nvrtc")

EVERY_GPU = {"75", "80", "86", "89", "90", "100", "120"}
CUDA_FILES = [file for file in kernels.files() if file.endswith(".cu")]
FIELDS = {"formula", "layout", "launch", "cost", "order", "measured", "source", "arch"}


MAIN_ARCH = "90"


def _jobs(file: str) -> list[_report.Job]:
    how = os.environ.get("CV3GPU_COMPILE", "")
    jobs = _report.plan([file], covering=how != "all")
    if how in ("all", "covering"):
        return jobs
    archs = kernels.header(file)["arch"].split()
    others = [arch for arch in archs[1:] if arch != MAIN_ARCH]
    kept = [job for job in jobs if job.arch == MAIN_ARCH]
    for arch in (archs[0], others[CUDA_FILES.index(file) % len(others)]):
        of_arch = [job for job in jobs if job.arch == arch]
        kept.append(of_arch[archs.index(arch) % len(of_arch)])
    return kept


@functools.cache
def _rows(file: str) -> list[_report.Row]:
    return _report.compile_jobs(_jobs(file), cache=static_report.cache())


@pytest.fixture(params=CUDA_FILES)
def file(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def rows(file: str) -> list[_report.Row]:
    return _rows(file)


def test_every_architecture_has_its_turn() -> None:
    assert {job.arch for file in CUDA_FILES for job in _jobs(file)} == EVERY_GPU


def test_compiles(rows: list[_report.Row], file: str) -> None:
    errors = [row.error for row in rows if row.error]
    assert not errors, f"{len(errors)} of the variants of {file} fail, first:\n{errors[0]}"
    assert {row.arch for row in rows} == {job.arch for job in _jobs(file)}
    assert {row.kernel for row in rows} == set(_kernel.kernel_names(file))


def test_hot_kernels_keep_to_registers(rows: list[_report.Row], file: str) -> None:
    """Nothing spills with the NVRTC of the kept table; another one allocates a little differently."""
    table = static_report.read_table(static_report.TABLE.read_text(encoding="utf-8"))
    allowed = 0 if table.nvrtc == static_report.nvrtc_name() else 64
    hot = _report.hot_kernels(file)
    assert set(hot) <= set(_kernel.kernel_names(file)), f"{file}: hot names kernels that are not there"
    spilling = [
        f"{r.kernel} ({r.variant}, sm_{r.arch}): {r.stack} bytes of local memory, "
        f"{r.spill_stores} + {r.spill_loads} bytes spilled"
        for r in rows
        if r.kernel in hot and max(r.stack, r.spill_stores, r.spill_loads) > allowed
    ]
    assert not spilling, f"{file}: {len(spilling)} hot kernels leave the registers:\n" + "\n".join(spilling)


def test_kept_table_is_the_compilers_word() -> None:
    table = static_report.read_table(static_report.TABLE.read_text(encoding="utf-8"))
    wanted = {(job.file, job.variant, job.arch) for job in _report.plan(covering=True)}
    assert {key[:3] for key in table.figures} == wanted, "write it anew: python -m bench.static_report --write"
    rows = [row for file in CUDA_FILES for row in _rows(file)]
    compiled = {(row.file, row.variant, row.arch) for row in rows} & wanted
    part = table._replace(figures={key: value for key, value in table.figures.items() if key[:3] in compiled})
    said = static_report.differences([row for row in rows if not row.error and row[:3] in compiled], part)
    write = "write it anew: python -m bench.static_report --write"
    assert not said, f"{len(said)} differences; {write}\n" + "\n".join(said[:20])


def _sass_table() -> static_report.SassTable:
    return static_report.read_sass(static_report.SASS_TABLE.read_text(encoding="utf-8"))


def test_table_of_hot_kernels_is_whole() -> None:
    wanted = {(j.file, j.variant, name) for j in static_report.sass_plan() for name in _report.hot_kernels(j.file)}
    assert set(_sass_table().cells) == wanted, "write it anew: python -m bench.static_report --write"


def test_table_of_hot_kernels_shows_what_their_names_promise() -> None:
    for (file, variant, kernel), cells in _sass_table().cells.items():
        name = f"{kernel} ({file} {variant})"
        assert cells["spilled"] == "0" and float(cells["occupancy"]) > 0, name
        if file.endswith("_mma.cu"):
            assert "MMA." in cells["mma"], f"{name}: no tensor instruction"
        if kernel.endswith("_pairs") and file == "pool.cu":
            loads, stores = cells["ldg"].split(), cells["stg"].split()
            assert "128" in {word.split(":")[0] for word in loads + stores}, f"{name}: nothing moves in 16 bytes"


@pytest.mark.parametrize("quick", ["kmeans_mma.cu", "crf_splat.cu"])
def test_table_of_hot_kernels_is_the_disassemblers_word(quick: str) -> None:
    """Of files that compile in a second; ``python -m bench.static_report --check`` looks at all."""
    if _report.disassembler() is None:
        pytest.skip("needs the pip package nvidia-cuda-nvdisasm")
    table = _sass_table()
    table = table._replace(cells={key: cells for key, cells in table.cells.items() if key[0] == quick})
    said = static_report.sass_differences(static_report.sass_rows(static_report.sass_plan([quick])), table)
    assert not said, "write it anew: python -m bench.static_report --write\n" + "\n".join(said)


def test_every_operator_has_a_path_on_every_gpu() -> None:
    """conv.cu, conv_mma.cu and conv_pack.cu are one family: some file of it must be there for each GPU."""
    stems = {Path(file).stem for file in CUDA_FILES}
    served: dict[str, set[str]] = {}
    for file in CUDA_FILES:
        words = Path(file).stem.split("_")
        family = next(name for i in range(len(words)) if (name := "_".join(words[: i + 1])) in stems)
        served.setdefault(family, set()).update(kernels.header(file)["arch"].split())
    missing = {name: EVERY_GPU - archs for name, archs in served.items() if EVERY_GPU - archs}
    assert not missing


def test_headers_have_every_field(file: str) -> None:
    assert FIELDS - set(kernels.header(file)) == set()


def test_covering_plan_shows_every_value_on_every_architecture(file: str) -> None:
    jobs = _report.plan([file], covering=True)
    values = {f"{name}={value}" for constants in kernels.variants(file) for name, value in constants.items()}
    for arch in kernels.header(file)["arch"].split():
        assert {word for job in jobs if job.arch == arch for word in job.variant.split()} == values


# ---- kernels in Python ----------------------------------------------------------------------------------


class Signatures:
    """Stands in for the CPU runner: learns with which types an operator launches its kernels, and runs none."""

    def __init__(self) -> None:
        self.seen: dict[tuple[Any, Any], str] = {}

    def numba_kernel(self, function: Callable[..., None]) -> Callable[..., None]:
        numba = pytest.importorskip("numba")

        def launch(grid: Any, block: Any, values: Sequence[Any], shared_mem: int) -> None:
            types = tuple(numba.typeof(value) for value in values)
            self.seen[function, types] = function.__module__.rpartition(".")[2]

        return launch


def _launch_python_kernels() -> dict[tuple[Any, Any], str]:
    """The (function, types) of every numba.cuda kernel that the operators launch on these inputs, by file.

    Without CV3GPU_COMPILE=all each format of boxes goes with each kind and each dtype, but not all three together.
    """
    signatures = Signatures()
    whole = os.environ.get("CV3GPU_COMPILE") == "all"
    token = _array.host_backend.set(signatures)
    try:
        for number, dtype in enumerate(("float32", "float64")):
            combinations = list(itertools.product(("xyxy", "xywh"), ("iou", "giou", "ioa")))
            for form, kind in combinations if whole else combinations[number::2]:
                boxes = np.ones((2, 3, 4), dtype)
                cv3gpu.box_iou(boxes, boxes, format=form, kind=kind)
                cv3gpu.box_iou_vjp(np.ones((2, 3, 3), dtype), boxes, boxes, format=form, kind=kind)
            for rows, cols in ((3, 5), (5, 3), (40, 70), (300, 300), (600, 2000)):
                cv3gpu.linear_sum_assignment(np.ones((1, rows, cols), dtype))
                sizes = np.array([2])
                cv3gpu.linear_sum_assignment(np.ones((1, rows, cols), dtype), n_rows=sizes, n_cols=sizes)
    finally:
        _array.host_backend.reset(token)
    return signatures.seen


CAPABILITIES = [(7, 5), (8, 0), (9, 0), (12, 0)]


@pytest.mark.parametrize("capability", CAPABILITIES)
def test_python_kernels_compile_to_ptx(capability: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    """Each way to launch a kernel is compiled for one capability; the capabilities share them out."""
    pytest.importorskip("numba_cuda")
    from cv3gpu.kernels._cuda import cuda
    from numba import types
    from numba.cuda import dispatcher

    # A device function asks which GPU is current: this one.
    current = SimpleNamespace(compute_capability=capability)
    monkeypatch.setattr(dispatcher, "get_current_device", lambda: current)
    seen = _launch_python_kernels()
    assert set(seen.values()) == {"assignment", "boxes"}
    for function, arguments in list(seen)[CAPABILITIES.index(capability) :: len(CAPABILITIES)]:
        ptx, _ = cuda.compile_ptx(function, types.void(*arguments), cc=capability)
        assert f".target sm_{capability[0]}{capability[1]}" in ptx
        assert ".visible .entry" in ptx


# ---- the gate itself ------------------------------------------------------------------------------------

SPILLING = """
extern "C" __global__ void __launch_bounds__(1024, 2) planted(const float* __restrict__ a, float* b, int n) {
  float kept[96];
#pragma unroll
  for (int i = 0; i < 96; ++i) kept[i] = a[i * n + threadIdx.x];
  for (int step = 0; step < n; ++step)
#pragma unroll
    for (int i = 0; i < 96; ++i) kept[i] = kept[i] * kept[(i * 7 + 1) % 96] + a[step];
#pragma unroll
  for (int i = 0; i < 96; ++i) b[i * n + threadIdx.x] = kept[i];
}
"""


def test_planted_syntax_error_names_file_and_line() -> None:
    text = '#line 1 "planted.cu"\nextern "C" __global__ void f(float* a) {\n  a[0] = 1.f\n}\n'
    with pytest.raises(KernelCompileError, match=r"planted\.cu\((2|3)\): error"):
        _kernel.compile_source(text, "planted.cu", 90)


def test_planted_error_is_a_row_of_the_report() -> None:
    (row,) = _report.compile_jobs([_report.Job("planted.cu", "", "90", "int f( {")])
    assert "planted.cu" in row.error


def test_planted_spill_is_reported(tmp_path: Path) -> None:
    job = _report.Job("planted.cu", "", "90", SPILLING)
    (row,) = _report.compile_jobs([job], cache=tmp_path)
    assert row.kernel == "planted"
    assert row.threads == 1024
    assert row.registers <= 32
    assert row.spill_stores > 0 and row.spill_loads > 0 and row.stack > 0
    assert row.occupancy == 1.0
    assert _report.compile_jobs([job], cache=tmp_path) == [row]


def test_instruction_mix_sees_local_memory() -> None:
    if _report.disassembler() is None:
        pytest.skip("needs the pip package nvidia-cuda-nvdisasm")
    (row,) = _report.compile_jobs([_report.Job("planted.cu", "", "90", SPILLING)], sass=True)
    assert row.mix["ldl"] > 0 and row.mix["stl"] > 0 and row.mix["ffma"] >= 96


def test_comments_are_no_code() -> None:
    job = _report.Job("a.cu", "", "90", '#line 1 "a.cu"\nint a; // one\n/* two */ int b;\n')
    assert job.code == "int a; int b;"


@pytest.mark.parametrize(
    ("arch", "registers", "shared", "threads", "wanted"),
    [
        ("90", 32, 0, 256, 1.0),
        ("90", 255, 0, 256, 0.125),
        ("75", 64, 0, 1024, 1.0),
        ("90", 32, 100 << 10, 256, 0.25),
        ("80", 40, 16384, 256, 0.75),
        ("999", 32, 0, 256, 0.0),
        ("90a", 32, 0, 0, 0.0),
    ],
)
def test_occupancy(arch: str, registers: int, shared: int, threads: int, wanted: float) -> None:
    assert _report.occupancy(arch, registers, shared, threads) == wanted


def test_table_round_trip_and_differences() -> None:
    row = _report.Row("a.cu", "real=float32", "90", "f", registers=40, threads=256)
    table = static_report.read_table(static_report.to_csv([row]))
    assert static_report.differences([row], table) == []
    assert static_report.differences([row._replace(registers=41)], table) == [
        "f (a.cu real=float32, sm_90): registers 41, table 40"
    ]
    other = table._replace(nvrtc="1.0")
    assert static_report.differences([row._replace(registers=48, stack=8)], other) == []
    assert len(static_report.differences([row._replace(registers=49)], other)) == 1
    assert static_report.differences([row._replace(arch="80")], table) == [
        "f (a.cu real=float32, sm_80): not in the table",
        "f (a.cu real=float32, sm_90): only in the table",
    ]


OPCODES = Counter(
    {"LDG.E.128.CONSTANT": 3, "LDG.E.CONSTANT": 2, "LDG.E.LTC128B.U16": 1, "STG.E.64": 4, "STG.E.U8": 1,
     "LDGSTS.E.BYPASS.128": 16, "LDSM.16.M88.4": 12, "LDS.U8": 2, "LDS": 5, "STS.128": 7, "HMMA.16816.F32": 32,
     "HFMA2.MMA": 9, "DMMA.884": 2, "FFMA.FTZ": 6, "FFMA": 1, "DFMA": 5, "MUFU.RCP": 1, "MUFU.EX2": 2,
     "ATOMS.ADD": 1, "REDG.E.ADD.F32": 2, "REDUX.SUM": 8, "BAR.SYNC.DEFER_BLOCKING": 4}
)  # fmt: skip


def test_counts_of_opcodes() -> None:
    assert static_report.counts(OPCODES) == {
        "instructions": 126,
        "mma": "DMMA.884:2 HMMA.16816.F32:32",
        "ffma": 7,
        "dfma": 5,
        "mufu": 3,
        "ldg": "128:3 32:2 16:1",
        "ldgsts": "128:16",
        "stg": "64:4 8:1",
        "lds": "32:5 8:2",
        "ldsm": "4:12",
        "sts": "128:7",
        "atomics": 3,
        "barriers": 4,
    }


def test_table_of_hot_kernels_round_trip_and_differences() -> None:
    found: dict[str, Any] = static_report.counts(OPCODES)
    row = static_report.Sass("a.cu", "real=float32", "f", 40, 0, 1024, 256, 0.75, **found)
    table = static_report.read_sass(static_report.sass_to_csv([row]))
    assert static_report.sass_differences([row], table) == []
    assert static_report.sass_differences([row._replace(ffma=8, ldg="")], table) == [
        "f (a.cu real=float32, sm_90): ffma 8, table 7",
        "f (a.cu real=float32, sm_90): ldg none, table 128:3 32:2 16:1",
    ]
    assert static_report.sass_differences([row._replace(kernel="g")], table) == [
        "g (a.cu real=float32, sm_90): not in the table",
        "f (a.cu real=float32, sm_90): only in the table",
    ]
    other = table._replace(nvrtc="1.0")
    assert static_report.sass_differences([row._replace(ffma=8, ldg="128:1 64:1")], other) == []
    assert static_report.sass_differences([row._replace(mma="", ldg="64:6")], other) == [
        "f (a.cu real=float32, sm_90): mma none, table DMMA.884 HMMA.16816.F32",
        "f (a.cu real=float32, sm_90): ldg 64, table 128",
    ]


def test_usual_variant_of_each_type() -> None:
    jobs = static_report.sass_plan(["separable_mma.cu", "graphcut.cu", "affinity.cu"])
    assert [(job.file, job.variant) for job in jobs] == [
        ("separable_mma.cu", f"real={real} BM=128 BN=128 K=3 ROWS=4 CHANNELS_LAST=1")
        for real in ("float16", "bfloat16")
    ] + [("graphcut.cu", "BITS=32 ROWS=32 MASK=8")]
