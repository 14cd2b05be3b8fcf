"""IoU of boxes: a crowded sequence frame by frame, and one large pair of sets."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import cv3gpu

from . import peers
from .entry import Entry, Work, dense_errors

SHAPES = {"sequence": (2145, 139, 97), "large": (1, 4096, 4096)}  # frames, boxes a, boxes b


def boxes(rng: np.random.Generator, frames: int, count: int) -> np.ndarray:
    """Corner boxes of pedestrians in a 1920 x 1080 image, float32 pixels."""
    corner = rng.random((frames, count, 2)) * (1900, 1000)
    size = rng.random((frames, count, 2)) * (60, 150) + (10, 30)
    return np.concatenate([corner, corner + size], -1).astype(np.float32)


def _by_frame(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The IoU as NumPy expressions; all frames at once would need gigabytes of temporaries."""
    frames = zip(a, b, strict=True)
    return np.concatenate([peers.broadcast_iou(np, x[None], y[None])() for x, y in frames])


def _setup(shape: tuple[int, int, int], device: str) -> Work:
    frames, n, m = shape
    rng = np.random.default_rng(0)
    a, b = boxes(rng, frames, n), boxes(rng, frames, m)
    exact = _by_frame(a.astype(np.float64), b.astype(np.float64))
    numpy_way = {"NumPy, frame by frame": lambda: _by_frame(a, b)}
    torch = pytest.importorskip("torch")
    if device == "cpu":
        ta, tb = torch.from_numpy(a), torch.from_numpy(b)
        return Work(
            ours=lambda: cv3gpu.box_iou(a, b),
            errors=lambda got: dense_errors(exact, got),
            peers={**numpy_way, "torchvision box_iou": peers.torchvision_iou(torch, ta, tb)},
        )
    reference = torch.from_numpy(exact).cuda()
    ta, tb = torch.from_numpy(a).cuda(), torch.from_numpy(b).cuda()
    found = {
        "torchvision box_iou": peers.torchvision_iou(torch, ta, tb),
        "torch broadcast": peers.broadcast_iou(torch, ta, tb),
    }
    cupy = peers.installed("cupy")
    if cupy is not None:
        found["CuPy broadcast"] = peers.broadcast_iou(cupy, cupy.asarray(a), cupy.asarray(b))
    return Work(
        ours=lambda: cv3gpu.box_iou(ta, tb),
        errors=lambda got: dense_errors(reference, torch.as_tensor(got)),
        peers=found,
        host_peers={**numpy_way, "ours on the CPU": lambda: cv3gpu.box_iou(a, b)},
    )


def _entry(key: str, device: str) -> Entry:
    frames, n, m = SHAPES[key]
    return Entry(
        name=f"box_iou {key} {frames}x{n}x{m} float32 {device}",
        family="boxes",
        shape=f"{frames} x {n} x {m} boxes",
        device=device,
        dtype="float32",
        bytes=4 * frames * (4 * n + 4 * m + n * m),
        flops=13 * frames * n * m,
        setup=lambda: _setup(SHAPES[key], device),
        priority=0,
    )


ENTRIES = [_entry(key, device) for device in ("cuda", "cpu") for key in SHAPES]


@pytest.mark.parametrize("entry", ENTRIES, ids=str)
def bench_boxes(entry: Entry, measure: Any) -> None:
    measure(entry)
