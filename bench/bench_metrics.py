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
SIZE = {"uint8": 1, "int32": 4, "int64": 8}
OPERATIONS = ("confusion_matrix", "variation_of_information", "boundary_f1", "panoptic_quality")
REACH = 3.0
DIVISOR, INSTANCES = 1000, 5


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


def _sorted_panoptic(pred: np.ndarray, target: np.ndarray) -> float:
    """Panoptic quality by NumPy's unique, as the metric's authors count: a code for each pair of segments that meet."""
    found: dict[int, list[float]] = {}
    for p, t in zip(pred.astype(np.int64), target.astype(np.int64), strict=True):
        (a, of_a), (b, of_b) = (np.unique(x, return_counts=True) for x in (p, t))
        pairs, number = np.unique(p * 2**32 + t, return_counts=True)
        i, j = np.searchsorted(a, pairs >> 32), np.searchsorted(b, pairs & 0xFFFFFFFF)
        iou = np.where(a[i] // DIVISOR == b[j] // DIVISOR, number / (of_a[i] + of_b[j] - number), 0)
        hit = iou > 0.5
        for labels, places, lost in ((a, i, 1), (b, j, 2)):
            for kind in np.delete(labels, places[hit]) // DIVISOR:
                found.setdefault(int(kind), [0.0, 0.0, 0.0, 0.0])[lost] += 1
        for k in np.flatnonzero(hit):
            row = found.setdefault(int(b[j[k]]) // DIVISOR, [0.0, 0.0, 0.0, 0.0])
            row[0], row[3] = row[0] + 1, row[3] + iou[k]
    tp, fp, fn, total = np.array([found[c] for c in sorted(found)]).T
    return float((total / (tp + fp / 2 + fn / 2)).mean())


def _segments(x: np.ndarray, dtype: str) -> np.ndarray:
    """Labels class * DIVISOR + instance of the classes, a few instances across the image of each."""
    column = np.arange(x.shape[2]) * INSTANCES // x.shape[2]
    return (x.astype(np.int64) * DIVISOR + column).astype(dtype)


def _quality(pred: Any, target: Any) -> float:
    return cv3gpu.panoptic_quality(pred, target, label_divisor=DIVISOR).pq


def _setup(operation: str, batch: int, dtype: str, device: str) -> Work:
    pred, target = (_segments(x, dtype) if operation == "panoptic_quality" else x.astype(dtype) for x in maps(batch))
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
    elif operation == "panoptic_quality":
        call = functools.partial(_quality, *given)
        host["NumPy unique"] = functools.partial(_sorted_panoptic, pred, target)
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
        priority=1 if dtype == "int64" else 0,
    )


ENTRIES = [
    _entry(operation, batch, dtype, device)
    for device, batch in (("cuda", 8), ("cpu", 1))
    for operation in OPERATIONS
    for dtype in ("int32" if operation == "panoptic_quality" else "uint8", "int64")
]


@pytest.mark.parametrize("entry", ENTRIES, ids=str)
def bench_metrics(entry: Entry, measure: Any) -> None:
    """Runs one entry."""
    measure(entry)
