"""The other libraries, as named calls of the same work; one that is not installed says so.

torch runs with TF32 off unless a peer's name says TF32.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from .entry import NOT_INSTALLED, Way

ROOT = Path(__file__).resolve().parent.parent

COMPILE = os.environ.get("CV3GPU_BENCH_COMPILE") == "1"  # torch.compile takes minutes to search


@functools.cache
def installed(name: str) -> Any:
    """The module, or None."""
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


def need(name: str, make: Callable[[Any], Way]) -> Way:
    """The peer that ``make`` builds from a module, or why there is none."""
    module = installed(name)
    return NOT_INSTALLED if module is None else make(module)


@contextlib.contextmanager
def _cudnn(torch: Any, benchmark: bool, tf32: bool) -> Iterator[None]:
    with torch.backends.cudnn.flags(enabled=True, benchmark=benchmark, deterministic=False, allow_tf32=tf32):
        yield


def torch_way(torch: Any, call: Callable[[], Any], *, benchmark: bool = False, tf32: bool = False) -> Way:
    """A torch call without gradients under stated cuDNN flags."""

    def way() -> Any:
        with torch.no_grad(), _cudnn(torch, benchmark, tf32):
            return call()

    return way


def formats(torch: Any, *tensors: Any) -> dict[str, tuple[Any, ...]]:
    """The tensors in both memory formats, by name."""
    return {
        "NCHW": tuple(t.contiguous() for t in tensors),
        "channels_last": tuple(t.contiguous(memory_format=torch.channels_last) for t in tensors),
    }


def torch_peers(
    torch: Any, call: Callable[..., Any], tensors: tuple[Any, ...], *, searches: bool, tf32: bool
) -> dict[str, Way]:
    """Eager torch on NCHW and on channels_last (with cudnn.benchmark if ``searches``).

    ``tf32`` adds the channels_last peer with TF32; CV3GPU_BENCH_COMPILE=1 adds torch.compile(max-autotune).
    """
    by_format = formats(torch, *tensors)
    nhwc = by_format["channels_last"]
    label = "torch channels_last" + (" cudnn.benchmark" if searches else "")
    found: dict[str, Way] = {
        "torch NCHW": torch_way(torch, lambda: call(*by_format["NCHW"])),
        label: torch_way(torch, lambda: call(*nhwc), benchmark=searches),
    }
    if tf32:
        found[f"{label} TF32"] = torch_way(torch, lambda: call(*nhwc), benchmark=True, tf32=True)
    if COMPILE:
        compiled = torch.compile(call, mode="max-autotune-no-cudagraphs")
        found["torch.compile max-autotune"] = torch_way(torch, lambda: compiled(*nhwc), benchmark=searches)
    return found


def timed(way: Callable[[], Any]) -> tuple[Any, float]:
    """A result and its time, s."""
    started = time.perf_counter()
    result = way()
    return result, time.perf_counter() - started


# ---- where a call runs ----------------------------------------------------------------------------------


def _one_core() -> set[int]:
    return {min(os.sched_getaffinity(0))}


def on_one_core(way: Way) -> Way:
    """The call with this thread, and those that it starts, kept on one core."""
    if isinstance(way, str):
        return way

    def kept() -> Any:
        before = os.sched_getaffinity(0)
        os.sched_setaffinity(0, _one_core())
        try:
            return way()
        finally:
            os.sched_setaffinity(0, before)

    return kept


def scratch() -> Path:
    """A folder of one's own for data that can be made again: CV3GPU_BENCH_DATA, or among the temporary ones."""
    if given := os.environ.get("CV3GPU_BENCH_DATA"):
        return Path(given)
    folder = Path(tempfile.gettempdir()) / f"cv3gpu-bench-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.is_symlink() or folder.stat().st_uid != os.getuid():
        raise PermissionError(f"{folder} is not one's own: name another in CV3GPU_BENCH_DATA")
    return folder


def command(*words: str, one_core: bool = False) -> Callable[[], Any]:
    """A fresh Python process, ``python WORDS``; gives what it prints, read as JSON.

    Bytecode is kept from one run to the next, as it is of installed packages, but outside of the checkout.
    """
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    environment["PYTHONPYCACHEPREFIX"] = str(scratch() / "bytecode")
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    cores = _one_core() if one_core else os.sched_getaffinity(0)

    def way() -> Any:
        done = subprocess.run(
            [sys.executable, *words], cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, capture_output=True,
            check=False, preexec_fn=lambda: os.sched_setaffinity(0, cores),
        )  # fmt: skip
        if done.returncode:
            said = done.stderr.decode(errors="replace").strip().splitlines()
            raise RuntimeError(f"{words[1]}: exit status {done.returncode}: {said[-1] if said else 'nothing said'}")
        return json.loads(done.stdout)

    return way


# ---- resize ---------------------------------------------------------------------------------------------


def zoom(module: str, x: Any, size: tuple[int, int]) -> Way:
    """``ndimage.zoom`` of SciPy or CuPy: linear, half-pixel centres, edges repeated (align_corners=False)."""
    factors = (1.0, 1.0, size[0] / x.shape[2], size[1] / x.shape[3])
    return need(module, lambda m: lambda: m.zoom(x, factors, order=1, mode="nearest", grid_mode=True))


def skimage_resize(x: np.ndarray, size: tuple[int, int]) -> Way:
    """``skimage.transform.resize``, linear, edges repeated."""
    full = (*x.shape[:2], *size)
    options = {"order": 1, "mode": "edge", "anti_aliasing": False}
    return need("skimage.transform", lambda m: lambda: m.resize(x, full, **options))


# ---- assignment -----------------------------------------------------------------------------------------


def scipy_loop(cost: np.ndarray) -> Way:
    """``scipy.optimize.linear_sum_assignment`` over the batch."""

    def make(optimize: Any) -> Way:
        def way() -> Any:
            pairs = [optimize.linear_sum_assignment(c) for c in cost]
            rows, cols = (np.stack(part) for part in zip(*pairs, strict=True))
            return rows, cols, None

        return way

    return need("scipy.optimize", make)


def lapx_batch(cost: np.ndarray, solver: str) -> Way:
    """A batch solver of lapx on one thread: ``lapjvr_batch`` or ``lapjvh_batch``."""

    def make(lap: Any) -> Way:
        if not hasattr(lap, solver):
            return f"lapx has no {solver}"

        def way() -> Any:
            rows, cols = getattr(lap, solver)(cost, extend_cost=True, return_cost=False, n_threads=1)
            return np.stack(rows), np.stack(cols), None

        return way

    return need("lap", make)


def lapx_loop(cost: np.ndarray) -> Way:
    """``lapx.lapjv`` over the batch."""

    def make(lap: Any) -> Way:
        def way() -> Any:
            found = [lap.lapjv(c, extend_cost=True, return_cost=False)[0] for c in cost]
            return _of_columns(np.stack(found), cost.shape[2])

        return way

    return need("lap", make)


def _of_columns(columns: np.ndarray, n_cols: int) -> Any:
    """Pairs from the column of each row, −1 or beyond the last column where it has none."""
    matched = (columns >= 0) & (columns < n_cols)
    count = int(matched[0].sum())
    rows = np.nonzero(matched)[1].reshape(len(columns), count)
    return rows, np.take_along_axis(columns, rows, 1), None


def torch_hungarian(cost: Any) -> Way:
    """``torch_linear_assignment.batch_linear_assignment`` on the tensor's device."""
    return need(
        "torch_linear_assignment",
        lambda m: lambda: _of_columns(m.batch_linear_assignment(cost).cpu().numpy(), cost.shape[2]),
    )


# ---- boxes ----------------------------------------------------------------------------------------------


def broadcast_iou(library: Any, a: Any, b: Any) -> Callable[[], Any]:
    """The IoU of corner boxes as array expressions, in any array library."""

    def way() -> Any:
        low = library.maximum(a[:, :, None, :2], b[:, None, :, :2])
        high = library.minimum(a[:, :, None, 2:], b[:, None, :, 2:])
        side = (high - low).clip(0)
        inside = side[..., 0] * side[..., 1]
        area_a = (a[..., 2] - a[..., 0]) * (a[..., 3] - a[..., 1])
        area_b = (b[..., 2] - b[..., 0]) * (b[..., 3] - b[..., 1])
        return inside / (area_a[:, :, None] + area_b[:, None, :] - inside)

    return way


def torchvision_iou(torch: Any, a: Any, b: Any) -> Way:
    """``torchvision.ops.box_iou`` over the batch."""
    return need(
        "torchvision.ops",
        lambda ops: lambda: torch.stack([ops.box_iou(x, y) for x, y in zip(a, b, strict=True)]),
    )
