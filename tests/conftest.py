"""Fixtures: one test body runs over the CPU paths, the kernels on the CPU runner, and the GPU where there is one."""

from __future__ import annotations

import functools
import gc
import importlib
import os
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from cv3gpu import _array

REQUIRE_GPU = os.environ.get("CV3GPU_REQUIRE_GPU") == "1"


@functools.cache
def gpu_is_there() -> bool:
    """Whether CuPy finds a CUDA device."""
    try:
        return bool(importlib.import_module("cupy").cuda.is_available())
    except ImportError:
        return False


def need_gpu() -> None:
    """Skips the test without a GPU, or fails it where CV3GPU_REQUIRE_GPU=1."""
    if not gpu_is_there():
        if REQUIRE_GPU:
            pytest.fail("CV3GPU_REQUIRE_GPU=1, and CuPy finds no CUDA device")
        pytest.skip("needs a CUDA GPU")


def need_torch_cuda() -> None:
    """Skips the test where torch sees no GPU, or fails it where CV3GPU_REQUIRE_GPU=1."""
    need_gpu()
    if not importlib.import_module("torch").cuda.is_available():
        (pytest.fail if REQUIRE_GPU else pytest.skip)("needs a torch built for CUDA")


def pytest_collection_finish() -> None:
    """The tests that were collected stay to the end: no garbage collection looks at them again, half a second each."""
    gc.collect()
    gc.freeze()


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Says how many tests wait for a GPU, so that nobody takes their silence for a pass."""
    skipped = terminalreporter.stats.get("skipped", [])
    waiting = sum("needs a CUDA GPU" in str(report.longrepr) for report in skipped)
    terminalreporter.write_line(
        f"GPU tests skipped: {waiting} (no CUDA device; CV3GPU_REQUIRE_GPU=1 makes them fail)"
        if waiting
        else "GPU tests skipped: 0"
    )


class Path:
    """One way through an operator: how its arrays are made and read."""

    def __init__(self, name: str, library: str) -> None:
        self.name = name
        self.library = library
        self.is_torch, self.is_numpy = library == "torch", library == "numpy"
        self.runs_kernels = name not in {"numpy", "torch"}

    def array(self, values: Any, dtype: str | None = None, layout: str = "nchw") -> Any:
        """An array of this path's library and device; ``layout="nhwc"`` makes 4-D memory channels-last."""
        values = np.asarray(values)
        dtype = dtype or str(values.dtype)
        if layout == "nhwc":
            flat = self.array(np.ascontiguousarray(values.transpose(0, 2, 3, 1)), dtype)
            return self.permuted(flat, 0, 3, 1, 2)
        if self.library == "torch":
            import torch

            device = "cuda" if self.runs_kernels else "cpu"
            return torch.from_numpy(np.array(values)).to(device).to(getattr(torch, dtype))
        if dtype == "bfloat16":
            import ml_dtypes

            values = values.astype(ml_dtypes.bfloat16)
        else:
            values = values.astype(dtype)
        return importlib.import_module("cupy").asarray(values) if self.library == "cupy" else values

    def permuted(self, x: Any, *axes: int) -> Any:
        """A view with the axes in another order."""
        return x.permute(*axes) if self.is_torch else x.transpose(*axes)

    def numpy(self, x: Any) -> np.ndarray:
        """The array on the CPU; 16-bit floats as float32."""
        if self.library == "torch":
            x = x.detach().cpu()
            return (x.float() if x.dtype.is_floating_point and x.element_size() == 2 else x).numpy()
        if self.library == "cupy":
            x = importlib.import_module("cupy").asnumpy(x)
        return x.astype(np.float32) if x.dtype.itemsize == 2 and x.dtype.kind in "fV" else np.asarray(x)


PATHS = {
    "numpy": Path("numpy", "numpy"),
    "torch": Path("torch", "torch"),
    "host": Path("host", "numpy"),
    "gpu-cupy": Path("gpu-cupy", "cupy"),
    "gpu-torch": Path("gpu-torch", "torch"),
}


@pytest.fixture
def host_backend() -> Iterator[Any]:
    """Kernels run on the CPU, every access checked, threads and blocks in random order."""
    from tests.hostrun import HostBackend

    backend = HostBackend(mode="check", order="random", seed=1)
    token = _array.host_backend.set(backend)
    yield backend
    _array.host_backend.reset(token)


def _enter(name: str, request: pytest.FixtureRequest) -> Path:
    if name.startswith("gpu"):
        need_gpu()
    elif name == "host":
        request.getfixturevalue("host_backend")
    return PATHS[name]


@pytest.fixture(params=list(PATHS))
def path(request: pytest.FixtureRequest) -> Path:
    """Every way through an operator: CPU paths, kernels on the CPU runner, kernels on the GPU."""
    return _enter(request.param, request)


@pytest.fixture(params=["host", "gpu-cupy", "gpu-torch"])
def kernel_path(request: pytest.FixtureRequest) -> Path:
    """The ways that launch kernels."""
    return _enter(request.param, request)


@pytest.fixture(params=["numpy", "torch"])
def cpu_path(request: pytest.FixtureRequest) -> Path:
    """The CPU paths."""
    return _enter(request.param, request)


# ---- tests of torch operators ---------------------------------------------------------------------------


@pytest.fixture(params=["cpu", "cuda"])
def device(request: pytest.FixtureRequest) -> str:
    """A device for the tensors of a test; ``"cuda"`` only where there is one."""
    if request.param == "cuda":
        need_torch_cuda()
    return request.param


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """A gradcheck is ten thousand tiny calls, on which threads only wait for each other."""
    torch = importlib.import_module("torch")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def fresh_compiler() -> Iterator[None]:
    """What torch.compile remembers does not outlive a test."""
    yield
    importlib.import_module("torch")._dynamo.reset()
