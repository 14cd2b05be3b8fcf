"""Batches of linear sum assignment problems of the sizes that trackers and detection losses meet."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import numpy as np
import pytest

import cv3gpu

from . import peers
from .entry import Entry, Errors, Work


class Shape(NamedTuple):
    """A batch of problems, uniform random costs.

    ``gated`` is the share of pairs that are forbidden, leaving each problem a full matching; ``shut`` problems of
    the batch have a row without any partner.
    """

    batch: int
    rows: int
    cols: int
    dtype: str = "float64"
    gated: float = 0.0
    shut: int = 0


SHAPES = {
    "A": Shape(4096, 32, 32),
    "D": Shape(4096, 20, 60),
    "B": Shape(1024, 128, 128),
    "C": Shape(64, 512, 512),
    "E": Shape(208, 300, 300, "float32"),
    "F": Shape(208, 300, 600, "float32"),
}
GATED = {f"{key}g": SHAPES[key]._replace(gated=0.8) for key in "ADBC"}
SHUT = {"shut": SHAPES["D"]._replace(batch=256, gated=0.8, shut=64)}  # refused or solved wrongly by most
LAPX = ("lapjvr_batch", "lapjvh_batch")


def costs(shape: Shape) -> np.ndarray:
    """The batch of costs [B, N, M]."""
    rng = np.random.default_rng(0)
    cost = rng.random(shape[:3]).astype(shape.dtype)
    if shape.gated:
        forbidden = rng.random(cost.shape) < shape.gated
        least = min(shape.rows, shape.cols)
        rows, cols = (rng.permuted(np.tile(np.arange(n), (shape.batch, 1)), axis=1) for n in (shape.rows, shape.cols))
        forbidden[np.arange(shape.batch)[:, None], rows[:, :least], cols[:, :least]] = False
        cost[forbidden] = np.inf
    cost[: shape.shut, 0] = np.inf
    return cost


def best_totals(cost: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Totals and numbers of pairs of the best matchings: the most pairs, then the least cost."""
    optimize = pytest.importorskip("scipy.optimize")
    allowed = np.isfinite(cost)
    dear = np.where(allowed, cost, 1e4)  # more than the sum of all other costs of a matching
    total, pairs = np.zeros(len(cost)), np.zeros(len(cost), np.int64)
    for k, problem in enumerate(dear):
        chosen = optimize.linear_sum_assignment(problem)
        kept = allowed[k][chosen]
        total[k], pairs[k] = problem[chosen][kept].sum(), kept.sum()
    return total, pairs


def matching_errors(cost: np.ndarray, best: np.ndarray, got: Any, pairs: np.ndarray | None = None) -> Errors:
    """How far totals of matchings, reached and stated, are off the best; infinite for no matching.

    ``pairs`` are the numbers of pairs that there must be, which come first; -1 stands behind them.
    """
    rows, cols = _host(got[0]), _host(got[1])
    size = min(cost.shape[1:])
    count = np.full(len(cost), size) if pairs is None else pairs
    wrong = Errors(float("inf"), float("inf"))
    if not rows.shape == cols.shape == (len(cost), size):
        return wrong
    there = np.arange(size) < count[:, None]
    for side in (rows, cols):
        if ((side >= 0) != there).any() or any(len({*s[:n].tolist()}) != n for s, n in zip(side, count, strict=True)):
            return wrong
    chosen = np.take_along_axis(cost[np.arange(len(cost))[:, None], rows], cols[..., None], 2)[..., 0]
    off = np.abs(np.where(there, chosen, 0).sum(1) - best)
    if got[2] is not None:
        off = np.maximum(off, np.abs(_host(got[2]) - best))
    return Errors(float(np.linalg.norm(off) / np.linalg.norm(best)), float((off / np.abs(best)).max()))


def _host(x: Any) -> np.ndarray:
    if hasattr(x, "get"):
        return x.get()
    return x.cpu().numpy() if hasattr(x, "cpu") else np.asarray(x)


def _setup(shape: Shape, device: str) -> Work:
    cost = costs(shape)
    exact = cost.astype(np.float64)
    best, pairs = best_totals(exact)
    sides = {
        "SciPy loop": peers.scipy_loop(cost),
        "lapx loop": peers.lapx_loop(cost),
        **{f"lapx {solver}": peers.lapx_batch(cost, solver) for solver in LAPX},
    }
    sides = {f"{name}, 1 core": peers.on_one_core(way) for name, way in sides.items()}
    host = functools.partial(cv3gpu.linear_sum_assignment, cost)
    work = Work(ours=peers.on_one_core(host), errors=lambda got: matching_errors(exact, best, got, pairs))  # type: ignore[arg-type]
    if device == "cpu":
        work.peers = {**sides, "ours on all cores": host}
        return work
    torch = pytest.importorskip("torch")
    given = torch.from_numpy(cost).cuda()
    work.ours = lambda: cv3gpu.linear_sum_assignment(given)
    work.peers["torch-linear-assignment"] = peers.torch_hungarian(given)
    work.host_peers = {**sides, "ours on the CPU, all cores": host}
    return work


def _entry(key: str, device: str) -> Entry:
    shape = {**SHAPES, **GATED, **SHUT}[key]
    gate = f", {shape.gated:.0%} forbidden" if shape.gated else ""
    gate += f", {shape.shut} with a row without a partner" if shape.shut else ""
    numbers = shape.batch * shape.rows * shape.cols
    return Entry(
        name=f"linear_sum_assignment {key} {shape.batch}x{shape.rows}x{shape.cols} {shape.dtype} {device}",
        family="assignment",
        shape=f"{shape.batch} problems of {shape.rows}x{shape.cols}{gate}",
        device=device,
        dtype=shape.dtype,
        bytes=numbers * np.dtype(shape.dtype).itemsize,
        flops=0,
        setup=lambda: _setup(shape, device),
        priority=0,
    )


ENTRIES = [_entry(key, device) for device in ("cuda", "cpu") for key in (*SHAPES, *GATED, *SHUT)]


@pytest.mark.parametrize("entry", ENTRIES, ids=str)
def bench_assignment(entry: Entry, measure: Any) -> None:
    measure(entry)
