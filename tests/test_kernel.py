"""Specialising, compiling, caching and launching kernels; none of it needs a GPU."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import cv3gpu
from cv3gpu import _array, _kernel, kernels
from cv3gpu.errors import BackendUnavailableError, KernelCompileError


@pytest.fixture
def sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of kernel files in place of the shipped one."""
    for name in ("ptx.cuh", "scalar.cuh"):
        (tmp_path / name).write_text(kernels.text(name))

    def forget() -> None:
        for cached in (
            kernels.files,
            kernels.text,
            kernels.header,
            kernels.variants,
            _kernel.specialise,
            _kernel.signature,
            _kernel.kernel_names,
            _kernel.kernel,
        ):
            cached.cache_clear()  # type: ignore[attr-defined]

    monkeypatch.setattr(kernels, "_HERE", tmp_path)
    forget()
    yield tmp_path
    monkeypatch.undo()
    forget()


SCALE = """/* scale.cu: a test kernel.
 * formula     y = a x
 * arch        75 90
 * specialise  real = float32 float64; N = 1 2
 */
#include "scalar.cuh"
extern "C" __global__ void __launch_bounds__(32) scale(
    const real* __restrict__ x,  // [n] (with a comment, and a comma)
    real* y, double a, int n, int64_t far) {
  int i = blockIdx.x * 32 + threadIdx.x;
  if (i < n) y[i] = (real)(a * load(x[i])) * N;
}
"""


def test_header_and_variants(sources: Path) -> None:
    (sources / "scale.cu").write_text(SCALE)
    assert kernels.header("scale.cu")["formula"] == "y = a x"
    assert len(kernels.variants("scale.cu")) == 4
    assert {"real": "float64", "N": "2"} in kernels.variants("scale.cu")


def test_every_shipped_kernel_says_what_it_is() -> None:
    for name in kernels.files():
        if name.endswith(".cu"):
            fields = kernels.header(name)
            wanted = {"formula", "layout", "launch", "cost", "order", "measured", "source", "arch"}
            assert wanted <= set(fields), name
            assert _kernel.kernel_names(name), name


def test_text_is_self_contained_and_names_its_lines(sources: Path) -> None:
    (sources / "scale.cu").write_text(SCALE)
    text = _kernel.specialise("scale.cu", real="float64", N=2)
    assert "#include" not in text
    assert "using real = double;\nconstexpr int N = 2;" in text
    assert text.count("struct bf16") == 1
    assert '#line 1 "scale.cu"' in text
    # The directive before a line of the file, and how far below it the line stands, give the line's own number.
    lines = text.splitlines()
    place = next(i for i, line in enumerate(lines) if line.startswith('extern "C"'))
    directive = max(i for i, line in enumerate(lines[:place]) if line.startswith("#line"))
    first, name = lines[directive].split()[1:]
    assert (name, int(first) + place - directive - 1) == ('"scale.cu"', SCALE.splitlines().index(lines[place]) + 1)


@pytest.mark.parametrize(
    "constants", [{}, {"real": "float16", "N": 1}, {"real": "float32"}, {"real": "x; evil", "N": 1}]
)
def test_undeclared_constants_are_refused(sources: Path, constants: dict[str, Any]) -> None:
    (sources / "scale.cu").write_text(SCALE)
    with pytest.raises(ValueError, match=r"kernel scale\.cu: constants must be among those declared"):
        _kernel.specialise("scale.cu", **constants)


def test_signature_gives_numbers_their_types(sources: Path) -> None:
    (sources / "scale.cu").write_text(SCALE)
    found = {p.name: p.scalar for p in _kernel.signature("scale.cu", "scale")}
    assert found == {"x": None, "y": None, "a": np.float64, "n": np.int32, "far": np.int64}
    with pytest.raises(ValueError, match=r"no extern .C. kernel named .shrink"):
        _kernel.signature("scale.cu", "shrink")


def test_launch_on_the_cpu_runner(sources: Path, host_backend: Any) -> None:
    (sources / "scale.cu").write_text(SCALE)
    x, y = np.arange(40, dtype=np.float32), np.full(40, np.nan, np.float32)
    launch = _kernel.kernel("scale.cu", "scale", real="float32", N=2)
    launch((2,), 32, x, y, 1.5, 40, 0)
    np.testing.assert_array_equal(y, 3 * x)


def test_empty_grid_launches_nothing(sources: Path, host_backend: Any) -> None:
    (sources / "scale.cu").write_text(SCALE)
    y = np.ones(3, np.float32)
    _kernel.kernel("scale.cu", "scale", real="float32", N=1)((0,), 32, y, y, 1.0, 3, 0)
    assert (y == 1).all()


def test_grid_and_argument_count_are_checked(sources: Path, host_backend: Any) -> None:
    (sources / "scale.cu").write_text(SCALE)
    y = np.ones(3, np.float32)
    launch = _kernel.kernel("scale.cu", "scale", real="float32", N=1)
    with pytest.raises(TypeError, match=r"kernel scale: takes 5 arguments \(x, y, a, n, far\), got 2"):
        launch((1,), 32, y, y)
    with pytest.raises(
        ValueError, match=r"kernel scale: grid must be at most 2147483647 x 65535 x 65535, got \(1, 65536, 1\)"
    ):
        launch((1, 65536), 32, y, y, 1.0, 3, 0)


def test_compile_error_names_file_and_line(sources: Path) -> None:
    pytest.importorskip("cuda.bindings.nvrtc")
    (sources / "scale.cu").write_text(SCALE.replace("y[i] =", "z[i] ="))
    text = _kernel.specialise("scale.cu", real="float32", N=1)
    with pytest.raises(
        KernelCompileError, match=r"kernel scale\.cu does not compile for sm_90:\n.*scale\.cu\(11\).*\"z\""
    ):
        _kernel.compile_source(text, "scale.cu", 90)


def test_newer_architecture_gets_ptx(sources: Path) -> None:
    pytest.importorskip("cuda.bindings.nvrtc")
    (sources / "scale.cu").write_text(SCALE)
    text = _kernel.specialise("scale.cu", real="float32", N=1)
    newest = max(_kernel.architectures())
    assert b".target sm_" in _kernel.compile_source(text, "scale.cu", newest + 7).binary
    assert bytes([32])[0] == 32  # the log was empty, and its end was not written into an object that Python shares


def test_binaries_are_kept_and_depend_on_text_and_architecture(sources: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("cuda.bindings.nvrtc")
    (sources / "scale.cu").write_text(SCALE)
    folder = sources / "cache"
    monkeypatch.setenv("CV3GPU_CACHE_DIR", str(folder))
    one = _kernel.specialise("scale.cu", real="float32", N=1)
    first = _kernel._binary(one, "scale.cu", 90)
    assert len(list(folder.iterdir())) == 1
    monkeypatch.setattr(_kernel, "compile_source", lambda *_: pytest.fail("compiled twice"))
    assert _kernel._binary(one, "scale.cu", 90) == first
    monkeypatch.undo()


def test_cache_folder_must_be_private(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "cache"
    monkeypatch.setenv("CV3GPU_CACHE_DIR", str(folder))
    assert _kernel.cache_folder() == folder
    assert folder.stat().st_mode & 0o777 == 0o700
    folder.chmod(0o777)
    assert _kernel.cache_folder() is None
    folder.chmod(0o700)
    link = tmp_path / "link"
    link.symlink_to(folder)
    monkeypatch.setenv("CV3GPU_CACHE_DIR", str(link))
    assert _kernel.cache_folder() is None
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("CV3GPU_CACHE_DIR", str(tmp_path / "file"))
    assert _kernel.cache_folder() is None
    monkeypatch.setenv("CV3GPU_CACHE_DIR", str(folder))
    real = os.getuid()
    monkeypatch.setattr(os, "getuid", lambda: real + 1)
    assert _kernel.cache_folder() is None


def test_missing_libraries_are_said_with_the_line_that_mends_them(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> Any:
        raise ImportError(f"No module named {name!r}")

    monkeypatch.setattr(_kernel.importlib, "import_module", missing)
    for load in (_kernel._nvrtc, _kernel._cupy):
        load.cache_clear()
        with pytest.raises(BackendUnavailableError, match=r"pip install 'cv3gpu\[cuda13\]'"):
            load()
        load.cache_clear()


# ---- arrays ---------------------------------------------------------------------------------------------


class FakeCupyArray:
    """Stands in for an array on another device, as far as the refusal of mixed devices looks at it."""

    class device:
        id = 1


FakeCupyArray.__name__ = "ndarray"
FakeCupyArray.__module__ = "cupy._core.core"


def test_family_is_told_without_imports() -> None:
    assert _array.family(np.ones(3)) == "numpy"
    assert _array.family(np.memmap) is None
    assert _array.family(FakeCupyArray()) == "cupy"
    for other in ([1.0], 1.0, np.float32(1), "x", None, np.ma.array([1.0]), np.matrix([[1.0]])):
        assert _array.family(other) is None


def test_mixed_libraries_and_devices_are_refused_by_name() -> None:
    weight = np.ones((1, 1, 1, 1), np.float32)
    with pytest.raises(
        TypeError,
        match="conv2d: all arrays must be of one library and on one device, "
        "got x is cupy on cuda:1, weight is numpy on cpu",
    ):
        cv3gpu.conv2d(FakeCupyArray(), weight)


@pytest.mark.parametrize(
    ("view", "wanted"),
    [
        (lambda a: a, "nchw"),
        (lambda a: np.ascontiguousarray(a.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2), "nhwc"),
        (lambda a: a[:, :, ::2], "strided"),
        (lambda a: a[:, :1], "nchw"),
        (lambda a: np.broadcast_to(a[:1, :1], a.shape), "strided"),
        (lambda a: a[:0], "nchw"),
    ],
)
def test_memory_format(view: Any, wanted: str) -> None:
    a = view(np.zeros((2, 3, 4, 6), np.float32))
    assert _array.memory_format(a) == wanted or (wanted == "nchw" and a.shape[1] == 1)


def test_pointer_spans_what_the_strides_reach() -> None:
    a = np.zeros((4, 6), np.float32)
    assert _array.pointer(a[1:3, ::2]) == (a.ctypes.data + 24, (6 + 4 + 1) * 4)
    assert _array.pointer(a[:0]).nbytes == 0


def test_first_calls_from_many_threads(sources: Path) -> None:
    """One kernel object per specialisation, whoever comes first."""
    (sources / "scale.cu").write_text(SCALE)
    found: list[Any] = []
    barrier = threading.Barrier(8)

    def call() -> None:
        barrier.wait()
        found.append(_kernel.kernel("scale.cu", "scale", real="float32", N=1).text)

    threads = [threading.Thread(target=call) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(found)) == 1
    assert len(found) == 8
