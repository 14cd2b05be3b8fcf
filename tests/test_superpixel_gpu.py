"""SLIC's kernels give the labels of the CPU, whatever the order of their threads."""

from __future__ import annotations

import numpy as np
import pytest

import cv3gpu
from cv3gpu import _array
from cv3gpu.superpixel import _gpu

from . import superpixel_cases
from .hostrun import HostBackend
from .superpixel_cases import run


def same(path, image, **options):
    """Labels by the kernels, after a comparison with the CPU's."""
    token = _array.host_backend.set(None)
    try:
        wanted = cv3gpu.slic(image, **options)
    finally:
        _array.host_backend.reset(token)
    got = run(path, image, **options)
    assert got.dtype == np.int64
    np.testing.assert_array_equal(got, wanted)
    return got


def photograph(height=48, width=71):
    return superpixel_cases.crop(pytest.importorskip("skimage.data").astronaut(), height, width)


@pytest.mark.parametrize("case", superpixel_cases.CASES, ids=superpixel_cases.name)
def test_same_labels_as_the_cpu(kernel_path, case):
    image, options = superpixel_cases.build(case)
    same(kernel_path, image, **options)


@pytest.mark.parametrize("zero", [False, True])
@pytest.mark.parametrize("dtype", ["uint8", "float32", "float64"])
def test_colours_of_photographs(kernel_path, dtype, zero):
    image = photograph() if dtype == "uint8" else (photograph() / 255).astype(dtype)
    same(kernel_path, image, n_segments=20, zero=zero, max_iter=4)


def test_every_colour_of_a_byte_and_the_dark_end(kernel_path):
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (32, 33, 3)).astype("uint8")
    image[:16] = rng.integers(0, 14, (16, 33, 3))
    same(kernel_path, image, n_segments=12, max_iter=2)
    same(kernel_path, image.astype("float32") ** 2 - 500, n_segments=12, max_iter=2)


@pytest.mark.parametrize("sigma", [0.6, 9.0])
def test_smoothing(kernel_path, sigma):
    same(kernel_path, photograph(20, 37), n_segments=9, sigma=sigma, max_iter=2)


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("zero", [False, True])
def test_sums_in_global_memory(kernel_path, monkeypatch, channels, zero):
    """Cells so small that a block could meet too many: the same labels without its shared memory."""
    image = np.random.default_rng(1).random((30, 45, channels))
    options = {"n_segments": 30, "zero": zero, "compactness": 0.2, "max_iter": 3, "convert2lab": False}
    wanted = same(kernel_path, image, **options)
    monkeypatch.setattr(_gpu, "_SHARED", 0)
    np.testing.assert_array_equal(run(kernel_path, image, **options), wanted)


@pytest.mark.parametrize(("height", "width"), [(33, 64), (5, 200), (200, 5), (64, 32)])
@pytest.mark.parametrize("n", [1, 7, 60, 1000])
def test_tiles_meet_cells_anywhere(kernel_path, height, width, n):
    image = np.random.default_rng(n).random((height, width, 1)).astype("float32")
    same(kernel_path, image, n_segments=n, compactness=0.1, max_iter=3)


def test_clusters_that_lose_all_their_pixels(kernel_path):
    """Two values in stripes, hardly any weight of place: most clusters die, and their pieces are far away."""
    image = np.zeros((40, 64, 1), "uint8")
    image[::2] = 255
    for zero in (False, True):
        same(kernel_path, image, n_segments=40, compactness=1e-3, zero=zero, enforce_connectivity=False)
        same(kernel_path, image, n_segments=40, compactness=1e-3, zero=zero, min_size_factor=0.9)


@pytest.mark.parametrize("kind", ["noise", "checks", "spiral", "comb"])
def test_segments_of_any_shape(kernel_path, kind):
    """Clusters in pieces, with many rounds of merging."""
    y, x = np.indices((42, 67))
    ring = np.maximum(abs(y - 21), abs(x - 33))
    values = {
        "noise": np.random.default_rng(2).integers(0, 3, (42, 67)),
        "checks": (x + y) % 2,
        "spiral": (ring + (x > 33)) // 2 % 2,
        "comb": (x % 4 < 2) & (y < 40),
    }[kind]
    image = values.astype("float32")[..., None]
    for factor in (0.0, 0.25, 3.0, 100.0):
        same(kernel_path, image, n_segments=4, compactness=1e-3, max_iter=2, min_size_factor=factor)


def test_more_segments_than_threads_of_a_block(kernel_path):
    image = np.random.default_rng(3).integers(0, 256, (60, 75, 1)).astype("uint8")
    found = same(kernel_path, image, n_segments=16, compactness=1e-4, max_iter=2, min_size_factor=0.0)
    assert found.max() > 1024
    same(kernel_path, image, n_segments=16, compactness=1e-4, max_iter=2, min_size_factor=0.02)


def test_batches(kernel_path):
    image = photograph(26, 35)
    images = np.stack([image, image[::-1], image // 3, np.zeros_like(image)]).reshape(2, 2, 26, 35, 3)
    got = same(kernel_path, images, n_segments=8, max_iter=3)
    assert got.shape == (2, 2, 26, 35)
    same(kernel_path, images, n_segments=8, max_iter=3, enforce_connectivity=False)
    masks = np.random.default_rng(4).random((2, 2, 26, 35)) < 0.8
    masks[0, 1] = False
    same(kernel_path, images, n_segments=8, max_iter=3, mask=masks)
    same(kernel_path, images, n_segments=8, max_iter=3, mask=masks[0, 0], start_label=1, zero=True)


@pytest.mark.parametrize("shape", [(1, 1, 3), (1, 1), (3, 3, 1), (0, 4, 5, 3), (2, 4, 0, 3)])
def test_hardly_any_pixels(kernel_path, shape):
    same(kernel_path, np.zeros(shape, "float32"), n_segments=5)


@pytest.mark.parametrize("size", [1e-45, 1e-40, 3e38])
def test_ranges_at_the_ends_of_float32(kernel_path, size):
    image = (np.random.default_rng(6).integers(-1, 2, (20, 30, 1)) * size).astype("float32")
    same(kernel_path, image, n_segments=6, max_iter=2)


def test_values_that_are_no_numbers(kernel_path):
    """They are not looked for: NaN counts as the least value, an infinity as the end that it is near to."""
    image = np.random.default_rng(5).random((20, 30, 1)).astype("float32")
    image[0, :2, 0] = 0, 1
    clean = image.copy()
    image[3, 3], image[4, 4], image[5, 5] = np.nan, np.inf, -np.inf
    clean[3, 3], clean[4, 4], clean[5, 5] = 0, 1, 0
    np.testing.assert_array_equal(run(kernel_path, image, n_segments=6), same(kernel_path, clean, n_segments=6))


def test_what_lay_in_memory_does_not_matter(kernel_path, monkeypatch):
    image = photograph(24, 40)
    empty = _array.empty

    def dirty(like, shape, dtype=None):
        out = empty(like, shape, dtype)
        out[...] = 11
        return out

    options = [{"zero": True}, {"enforce_connectivity": False}, {"min_size_factor": 0.0}]
    wanted = [run(kernel_path, image, n_segments=9, max_iter=2, **o) for o in options]
    monkeypatch.setattr(_array, "empty", dirty)
    for o, labels in zip(options, wanted, strict=True):
        np.testing.assert_array_equal(run(kernel_path, image, n_segments=9, max_iter=2, **o), labels)


def test_any_schedule_gives_the_same_bits():
    image = photograph(30, 45)
    found = []
    for order, seed, preempt in (
        ("forward", 1, 0),
        ("reverse", 1, 0),
        *(("random", k, 9 * (k % 2)) for k in (1, 2, 3)),
    ):
        token = _array.host_backend.set(HostBackend(mode="check", order=order, seed=seed, preempt=preempt))
        try:
            found.append([cv3gpu.slic(image, 14, 1.0, 3, zero=zero, min_size_factor=0.6) for zero in (False, True)])
        finally:
            _array.host_backend.reset(token)
    for labels in found[1:]:
        np.testing.assert_array_equal(labels, found[0])


def test_larger_image_in_fast_mode():
    """All tiles, stripes and warps of a photograph."""
    image = photograph(110, 203)
    token = _array.host_backend.set(HostBackend(mode="fast", order="random", seed=2))
    try:
        got = cv3gpu.slic(image, 60)
    finally:
        _array.host_backend.reset(token)
    np.testing.assert_array_equal(got, cv3gpu.slic(image, 60))
