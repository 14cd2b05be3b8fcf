"""Batches of linear sum assignment problems of the sizes that trackers and detection losses meet."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pytest

import cv3gpu

from . import peers
from .entry import Entry, Errors, Work


class Shape(NamedTuple):
    """A batch of dense problems, uniform random costs."""

    batch: int
    rows: int
    cols: int
    dtype: str = "float64"


SHAPES = {
    "A": Shape(4096, 32, 32),
    "D": Shape(4096, 20, 60),
    "B": Shape(1024, 128, 128),
    "C": Shape(64, 512, 512),
    "E": Shape(208, 300, 300, "float32"),
    "F": Shape(208, 300, 600, "float32"),
}


def matching_errors(cost: np.ndarray, best: np.ndarray, got: Any) -> Errors:
    """How far totals of full matchings, reached and stated, are off the best; infinite for no matching."""
    rows, cols = _host(got[0]), _host(got[1])
    size = min(cost.shape[1:])
    proper = rows.shape == cols.shape == (len(cost), size)
    if not proper or any(len(set(side.tolist())) != size for part in (rows, cols) for side in part):
        return Errors(float("inf"), float("inf"))
    reached = np.take_along_axis(cost[np.arange(len(cost))[:, None], rows], cols[..., None], 2).sum((1, 2))
    off = np.abs(reached - best)
    if got[2] is not None:
        off = np.maximum(off, np.abs(_host(got[2]) - best))
    return Errors(float(np.linalg.norm(off) / np.linalg.norm(best)), float((off / np.abs(best)).max()))


def _host(x: Any) -> np.ndarray:
    if hasattr(x, "get"):
        return x.get()
    return x.cpu().numpy() if hasattr(x, "cpu") else np.asarray(x)


def _setup(shape: Shape, device: str) -> Work:
    optimize = pytest.importorskip("scipy.optimize")
    cost = np.random.default_rng(0).random(shape[:3]).astype(shape.dtype)
    exact = cost.astype(np.float64)
    best = np.array([c[optimize.linear_sum_assignment(c)].sum() for c in exact])
    sides = {"SciPy loop, 1 thread": peers.scipy_loop(cost), "lapx loop, 1 thread": peers.lapx_loop(cost)}
    work = Work(
        ours=lambda: cv3gpu.linear_sum_assignment(cost),
        errors=lambda got: matching_errors(exact, best, got),
    )
    if device == "cpu":
        work.peers = dict(sides)
        return work
    torch = pytest.importorskip("torch")
    given = torch.from_numpy(cost).cuda()
    work.ours = lambda: cv3gpu.linear_sum_assignment(given)
    work.peers["torch-linear-assignment"] = peers.torch_hungarian(given)
    work.host_peers = {**sides, "ours on the CPU": lambda: cv3gpu.linear_sum_assignment(cost)}
    return work


def _entry(key: str, device: str) -> Entry:
    shape = SHAPES[key]
    numbers = shape.batch * shape.rows * shape.cols
    return Entry(
        name=f"linear_sum_assignment {key} {shape.batch}x{shape.rows}x{shape.cols} {shape.dtype} {device}",
        family="assignment",
        shape=f"{shape.batch} problems of {shape.rows}x{shape.cols}",
        device=device,
        dtype=shape.dtype,
        bytes=numbers * np.dtype(shape.dtype).itemsize,
        flops=0,
        setup=lambda: _setup(shape, device),
        priority=0,
    )


ENTRIES = [_entry(key, device) for device in ("cuda", "cpu") for key in SHAPES]


@pytest.mark.parametrize("entry", ENTRIES, ids=str)
def bench_assignment(entry: Entry, measure: Any) -> None:
    measure(entry)
