"""Metrics of segmentations on maps of a street's size: beside NumPy, scikit-image, SciPy and torch.

The maps hold squares of 32 pixels and are wrong in a tenth of their pixels. ``bytes`` of an entry are both maps once.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pytest

import cv3gpu

from . import peers
from .entry import Entry, Errors, Way, Work, dense_errors

CLASSES = 19
HEIGHT, WIDTH = 1024, 2048
SIZE = {"uint8": 1, "int64": 8}
OPERATIONS = ("confusion_matrix", "variation_of_information", "boundary_f1")
REACH = 3.0


@functools.lru_cache(maxsize=2)
def maps(batch: int) -> tuple[np.ndarray, np.ndarray]:
    """Prediction and target [batch, H, W] of bytes."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, CLASSES, (batch, HEIGHT // 32, WIDTH // 32), np.uint8)
    target = coarse.repeat(32, 1).repeat(32, 2)
    return np.where(rng.random(target.shape) < 0.1, np.roll(target, 7, axis=2), target), target


def number_errors(reference: float, got: Any) -> Errors:
    """Of one number."""
    return dense_errors(np.array([reference]), np.array([float(got)]))


def by_distances(pred: np.ndarray, target: np.ndarray) -> Way:
    """boundary_f1 by SciPy's Euclidean distance transform."""

    def border(x: np.ndarray) -> np.ndarray:
        found = np.zeros(x.shape, bool)
        found[:, :-1] |= x[:, 1:] != x[:, :-1]
        found[:-1] |= x[1:] != x[:-1]
        return found

    def make(ndimage: Any) -> Way:
        def f1(p: np.ndarray, t: np.ndarray) -> float:
            a, b = border(p), border(t)
            distances = ndimage.distance_transform_edt
            precision, recall = (distances(~b)[a] <= REACH).mean(), (distances(~a)[b] <= REACH).mean()
            return float(2 * precision * recall / (precision + recall))

        return lambda: np.mean([f1(p, t) for p, t in zip(pred, target, strict=True)])

    return peers.need("scipy.ndimage", make)


def _scikit_image(pred: np.ndarray, target: np.ndarray) -> Way:
    return peers.need("skimage.metrics", lambda m: lambda: sum(m.variation_of_information(target, pred)))


def _setup(operation: str, batch: int, dtype: str, device: str) -> Work:
    pred, target = (x.astype(dtype) for x in maps(batch))
    given: tuple[Any, Any] = pred, target
    found: dict[str, Way] = {}
    host: dict[str, Way] = {}
    if device == "cuda":
        torch = pytest.importorskip("torch")
        given = torch.from_numpy(pred).cuda(), torch.from_numpy(target).cuda()
    if operation == "confusion_matrix":
        codes = target.astype(np.int64).ravel() * CLASSES + pred.ravel()
        reference = np.bincount(codes, minlength=CLASSES**2).reshape(CLASSES, CLASSES).astype(np.float64)
        call = functools.partial(cv3gpu.confusion_matrix, *given, CLASSES)

        def by_numpy() -> Any:
            both = target.astype(np.int64).ravel() * CLASSES + pred.ravel()
            return np.bincount(both, minlength=CLASSES**2).reshape(CLASSES, CLASSES)

        def by_torch() -> Any:
            both = given[1].reshape(-1).long() * CLASSES + given[0].reshape(-1)
            return both.bincount(minlength=CLASSES**2).reshape(CLASSES, CLASSES)

        host["NumPy bincount"] = by_numpy
        if device == "cuda":
            found["torch bincount"] = by_torch
        if device == "cpu":
            return Work(call, functools.partial(dense_errors, reference), host)
        return Work(call, lambda got: dense_errors(reference, got.cpu().numpy()), found, host)
    if operation == "boundary_f1":
        call = functools.partial(cv3gpu.boundary_f1, *given, REACH)
        host["SciPy's distance transform"] = by_distances(pred, target)
    else:
        call = functools.partial(cv3gpu.variation_of_information, *given)
        host["scikit-image"] = _scikit_image(pred, target)
    way = next(iter(host.values()))
    reference = float(way()) if callable(way) else float(call())
    errors = functools.partial(number_errors, reference)
    return Work(call, errors, host) if device == "cpu" else Work(call, errors, host_peers=host)


def _entry(operation: str, batch: int, dtype: str, device: str) -> Entry:
    pixels = batch * HEIGHT * WIDTH
    return Entry(
        name=f"{operation} batch {batch} {dtype} {device}",
        family="metrics",
        shape=f"{WIDTH}x{HEIGHT}, {CLASSES} classes, batch {batch}",
        device=device,
        dtype="float64",
        bytes=2 * pixels * SIZE[dtype],
        flops=0,
        setup=lambda: _setup(operation, batch, dtype, device),
        priority=0 if dtype == "uint8" else 1,
    )


ENTRIES = [
    _entry(operation, batch, dtype, device)
    for device, batch in (("cuda", 8), ("cpu", 1))
    for dtype in ("uint8", "int64")
    for operation in OPERATIONS
]


@pytest.mark.parametrize("entry", ENTRIES, ids=str)
def bench_metrics(entry: Entry, measure: Any) -> None:
    """Runs one entry."""
    measure(entry)
