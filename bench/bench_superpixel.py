"""SLIC on photographs: against scikit-image and fast_slic, from the bytes of the image to connected labels.

All have ten iterations, compactness 10 and the conversion to Lab. scikit-image and fast_slic have one thread, so on a
CPU ours has one core as well and stands a second time with all of them. A peer's labels are other labels: they must be
about as many regions as asked for, and not much less even than ours. Ours on a GPU must be equal to ours on the CPU.
How well the regions keep to what people drew is another bench: ``python -m bench.superpixel_quality``.

``bytes`` of an entry are the image once and the labels once, ``flops`` those of the distances: 14 for each of nine
clusters and each visit of a pixel, of which all but the last two iterations make a third.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import numpy as np
import pytest

import cv3gpu

from . import peers
from .entry import Entry, Errors, Way, Work

EXACT, OTHER, WRONG = Errors(0.0, 0.0), Errors(0.04, 0.04), Errors(float("inf"), float("inf"))
ITERATIONS = 10
VISITS = (ITERATIONS - 2) / 3 + 2
COUNT, EVEN = 2.0, 4.0  # by what factor a peer's number of regions, and their scatter, may be off


class Scene(NamedTuple):
    """A photograph, mirrored beyond its edges, and how many superpixels it is cut into."""

    photograph: str
    height: int
    width: int
    n_segments: int
    batch: int = 0  # 0: no batch

    def __str__(self) -> str:
        count = f"{self.batch} x " if self.batch else ""
        return f"{count}{self.width}x{self.height}, {self.n_segments}"


SCENES = {
    "512": Scene("astronaut", 512, 512, 500),
    "640": Scene("rocket", 427, 640, 600),
    "1024": Scene("astronaut", 1024, 1024, 1000),
    "1080p": Scene("rocket", 1080, 1920, 2000),
    "batch": Scene("astronaut", 320, 320, 200, batch=16),
}


@functools.lru_cache(maxsize=2)
def photograph(scene: Scene) -> np.ndarray:
    """[H, W, 3] of bytes; a batch is mirrored and shifted."""
    whole = getattr(pytest.importorskip("skimage.data"), scene.photograph)()
    sides = zip((scene.height, scene.width), whole.shape[:2], strict=True)
    large = np.pad(whole, [*((0, max(0, wanted - has)) for wanted, has in sides), (0, 0)], mode="symmetric")
    parts = [np.roll(large, 17 * k, axis=1)[: scene.height, : scene.width] for k in range(max(scene.batch, 1))]
    return np.ascontiguousarray(np.stack(parts) if scene.batch else parts[0])


def scatter(image: np.ndarray, labels: np.ndarray) -> float:
    """Mean square distance of RGB to the means of regions."""
    pixels, flat = image.reshape(-1, 3).astype(np.float64), labels.reshape(-1)
    size = np.maximum(np.bincount(flat), 1)
    means = np.stack([np.bincount(flat, pixels[:, c]) / size for c in range(3)], axis=1)
    return float(((pixels - means[flat]) ** 2).sum(1).mean())


def label_errors(image: np.ndarray, reference: np.ndarray, n_segments: int, got: Any) -> Errors:
    """Nought where labels are the same; infinite where they are no cut of the image into as many, as even regions."""
    got = got.cpu().numpy() if hasattr(got, "cpu") else np.asarray(got)
    if got.shape != reference.shape or got.min() < 0:
        return WRONG
    if np.array_equal(got, reference):
        return EXACT
    pairs = zip(image.reshape(-1, *image.shape[-3:]), got.reshape(-1, *got.shape[-2:]), strict=True)
    first, labels = next(iter(pairs))
    count, even = len(np.unique(labels)) / n_segments, scatter(first, labels) / scatter(first, _first(reference))
    return OTHER if 1 / COUNT < count < COUNT and even < EVEN else WRONG


def _first(labels: np.ndarray) -> np.ndarray:
    return labels.reshape(-1, *labels.shape[-2:])[0]


def _each(one: Any, image: np.ndarray) -> Way:
    """A peer that takes one image at a time."""
    pictures = image.reshape(-1, *image.shape[-3:])
    return lambda: np.stack([one(picture) for picture in pictures]).reshape(image.shape[:-1])


def scikit_image(image: np.ndarray, n: int) -> Way:
    """Its ``slic``."""

    def make(module: Any) -> Way:
        return _each(lambda picture: module.slic(picture, n, max_num_iter=ITERATIONS, start_label=0), image)

    return peers.need("skimage.segmentation", make)


def fast_slic(image: np.ndarray, n: int, module: str, name: str) -> Way:
    """Its plain loops, or those for AVX2."""

    def make(found: Any) -> Way:
        kind = getattr(found, name)
        made = functools.partial(kind, num_components=n, compactness=10, num_threads=1)  # two on one core would spin
        return _each(lambda p: made().iterate(p, ITERATIONS).astype(np.int64), image)

    return peers.need(module, make)


def _setup(key: str, device: str) -> Work:
    scene = SCENES[key]
    image, n = photograph(scene), scene.n_segments
    host = functools.partial(cv3gpu.slic, image, n, max_iter=ITERATIONS)
    reference = host()
    found = {
        "scikit-image": scikit_image(image, n),
        "fast_slic": fast_slic(image, n, "fast_slic", "Slic"),
        "fast_slic, AVX2": fast_slic(image, n, "fast_slic.avx2", "SlicAvx2"),
    }
    errors = functools.partial(label_errors, image, reference, n)
    facts: dict[str, float] = {"superpixels": int(_first(reference).max()) + 1}
    limits = dict.fromkeys(found, "other rules")
    if device == "cpu":
        alone = {name: peers.on_one_core(way) for name, way in found.items()}
        ways = {**alone, "ours on all cores": host}
        return Work(ours=peers.on_one_core(host), errors=errors, peers=ways, limits=limits, facts=facts)  # type: ignore[arg-type]
    near = pytest.importorskip("torch").from_numpy(image).cuda()
    ours = functools.partial(cv3gpu.slic, near, n, max_iter=ITERATIONS)
    away = {**found, "ours on the CPU": host}
    return Work(ours=ours, errors=errors, host_peers=away, limits=limits, facts=facts)


def _entry(key: str, device: str) -> Entry:
    scene = SCENES[key]
    pixels = max(scene.batch, 1) * scene.height * scene.width
    return Entry(
        name=f"slic {scene} {device}",
        family="superpixel",
        shape=str(scene),
        device=device,
        dtype="float32",
        bytes=pixels * (3 + 8),
        flops=round(pixels * VISITS * 9 * 14),
        setup=lambda: _setup(key, device),
        priority=0 if key in ("512", "1080p") else 1,
    )


ENTRIES = [_entry(key, device) for device in ("cuda", "cpu") for key in SCENES]


@pytest.mark.parametrize("entry", ENTRIES, ids=str)
def bench_superpixel(entry: Entry, measure: Any) -> None:
    """Runs one entry."""
    measure(entry)
