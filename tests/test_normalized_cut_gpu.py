"""The kernels of thresholds, against all thresholds one by one, and normalised cuts of what lives on the device."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest

from cv3gpu import _array, ncut_value, normalized_cut, pixel_affinity, region_affinity
from cv3gpu.affinity._sparse import sparse_like
from cv3gpu.errors import ConvergenceWarning
from cv3gpu.spectral import best_threshold
from tests.conftest import Path
from tests.hostrun import HostBackend
from tests.test_affinity_gpu import without_kernels
from tests.test_normalized_cut import blocks, every_threshold, groups

DTYPES = ("float32", "float64")
# shape of the images, radius: one tile and several, not full; no neighbour; everything is near
CASES = [((1, 1, 1, 1), 5), ((2, 9, 35, 2), 3), ((1, 3, 70, 1), 2.5), ((1, 40, 41, 1), 2), ((1, 4, 4, 1), 1),
         ((3, 6, 7, 1), 12)]  # fmt: skip


def rows_of(path: Path, matrix: Any) -> Any:
    """A matrix by rows on the device."""
    return sparse_like(matrix.data, matrix.indices, matrix.indptr, path.array(matrix.data))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("shape", "radius"), CASES, ids=str)
def test_thresholds_of_half_stencils(kernel_path: Path, shape: Any, radius: float, dtype: str) -> None:
    rng = np.random.default_rng(0)
    images = rng.random(shape).astype(dtype)
    x = rng.standard_normal((shape[0], shape[1] * shape[2])).astype(dtype)
    x = np.round(x, 2)  # some are equal
    there = pixel_affinity(kernel_path.array(images), radius=radius, sigma_intensity=0.5)
    weights = kernel_path.numpy(there.weights)
    for least in (1, 5):
        got = best_threshold(there, kernel_path.array(x), min_size=least)
        mask, threshold, ncut = (kernel_path.numpy(part) for part in got)
        with without_kernels():
            here = pixel_affinity(images, radius=radius, sigma_intensity=0.5)
            here.weights[...] = weights  # exp differs in the last digit from device to device
            wanted = best_threshold(here, x, min_size=least)
        np.testing.assert_array_equal(threshold, wanted.threshold)
        np.testing.assert_array_equal(mask, wanted.mask)
        np.testing.assert_allclose(ncut, wanted.ncut, rtol=1e-13)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("share", [0.05, 1.0])
def test_thresholds_of_matrices_by_rows(kernel_path: Path, share: float, dtype: str) -> None:
    from scipy import sparse

    rng = np.random.default_rng(0)
    w = sparse.random_array((90, 90), density=share, rng=rng, dtype=np.float64).tocsr()
    w = (w + w.T).astype(dtype).tocsr()
    x = rng.standard_normal(90).astype(dtype)
    got = best_threshold(rows_of(kernel_path, w), kernel_path.array(x), min_size=2)
    value, threshold = min(every_threshold(w.toarray().astype(np.float64), x, 2))
    assert got.ncut == pytest.approx(value, rel=1e-12) and got.threshold == threshold
    np.testing.assert_array_equal(kernel_path.numpy(got.mask), x > threshold)


def test_tiny_cuts_keep_their_digits(kernel_path: Path) -> None:
    from scipy import sparse

    w = groups([200, 300], 0.0)
    w[0, 499] = w[499, 0] = 1e-20
    x = np.concatenate([np.linspace(-2, -1, 200), np.linspace(1, 2, 300)])
    got = best_threshold(rows_of(kernel_path, sparse.csr_array(w)), kernel_path.array(x))
    assert got.ncut == pytest.approx(1e-20 / w[:200].sum() + 1e-20 / w[200:].sum(), rel=1e-9)


def test_no_threshold(kernel_path: Path) -> None:
    affinity = pixel_affinity(kernel_path.array(np.zeros((2, 3, 3, 1))))
    got = best_threshold(affinity, kernel_path.array(np.ones((2, 9))))
    assert np.isnan(kernel_path.numpy(got.threshold)).all() and np.isinf(kernel_path.numpy(got.ncut)).all()
    assert not kernel_path.numpy(got.mask).any()


def test_more_tiles_than_a_block_adds_up_at_once() -> None:
    """Offsets of 257 tiles, in two rounds. Big for the runner's checks: the values alone."""
    n = 1024 * 256 + 37
    rng = np.random.default_rng(0)
    image = np.cumsum(rng.random(n))[None] * 1e-3
    x = np.sort(rng.standard_normal(n))
    affinity = pixel_affinity(image, radius=2, sigma_intensity=1e-3)
    affinity.weights[0, 0, 260_000] = 1e-9
    wanted = best_threshold(affinity, x)
    token = _array.host_backend.set(HostBackend(mode="fast", order="forward", seed=1))
    try:
        got = best_threshold(affinity, x)
    finally:
        _array.host_backend.reset(token)
    assert got.threshold == wanted.threshold == x[260_000]
    assert got.ncut == pytest.approx(wanted.ncut, rel=1e-12)


def test_the_same_bits_in_any_order() -> None:
    rng = np.random.default_rng(0)
    affinity = pixel_affinity(rng.random((17, 70)).astype("float32"), radius=3)
    x = rng.standard_normal(1190).astype("float32")
    found = []
    for order, seed in (("forward", 0), ("reverse", 0), ("random", 5)):
        token = _array.host_backend.set(HostBackend(mode="fast", order=order, seed=seed))
        try:
            found.append(best_threshold(affinity, x))
        finally:
            _array.host_backend.reset(token)
    assert len({(one.threshold, one.ncut) for one in found}) == 1


@pytest.mark.parametrize("count", [1, 2, 4])
def test_cuts_of_an_image_on_the_device(kernel_path: Path, count: int) -> None:
    image, _ = blocks((14, 16))
    got = normalized_cut(kernel_path.array(image), n_segments=count, return_info=True)
    with without_kernels():
        wanted = normalized_cut(image, n_segments=count, return_info=True)
    assert type(got.labels) is type(kernel_path.array(image))
    np.testing.assert_array_equal(kernel_path.numpy(got.labels), wanted.labels)
    assert got.ncut == pytest.approx(wanted.ncut, rel=1e-9)
    assert [split.sizes for split in got.splits] == [split.sizes for split in wanted.splits]
    assert [split.ncut for split in got.splits] == pytest.approx([split.ncut for split in wanted.splits], rel=1e-9)


def test_rules_hold_for_the_first_cut_on_the_device(kernel_path: Path) -> None:
    image, _ = blocks((12, 14), 0.1)
    there = kernel_path.array(image)
    sizes = np.bincount(kernel_path.numpy(normalized_cut(there, n_segments=2, min_size=60).labels).ravel())
    assert sizes.min() >= 60
    for rule in ({"max_depth": 0}, {"min_size": 85}, {"max_ncut": 0.0}, {"max_stability": 0.0}):
        found = normalized_cut(there, n_segments=2, **rule)
        count = len(np.unique(kernel_path.numpy(found.labels)))
        assert count == (2 if "max_stability" in rule else 1)  # of which an empty bin is enough
    assert not kernel_path.numpy(normalized_cut(kernel_path.array(np.zeros((1, 1))), n_segments=1).labels).any()


def test_graphs_that_fall_apart_on_the_device(kernel_path: Path) -> None:
    image = np.zeros((8, 12))
    image[:, 7:] = 100.0  # weights of nought between
    found = normalized_cut(kernel_path.array(image), n_segments=2)
    np.testing.assert_array_equal(kernel_path.numpy(found.labels), (image > 0).astype(int))
    assert found.ncut == 0
    image[:, 7:] = 0.85
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        found = normalized_cut(kernel_path.array(image), n_segments=2)
    np.testing.assert_array_equal(kernel_path.numpy(found.labels), (image > 0).astype(int))


@pytest.mark.parametrize("method", ["recursive", "kway"])
def test_superpixels_and_kway_on_the_device(kernel_path: Path, method: str) -> None:
    image, area = blocks((24, 30), 0.01)
    regions = np.arange(24)[:, None] // 6 * 6 + np.arange(30) // 5
    given = kernel_path.array(image), kernel_path.array(regions)
    found = normalized_cut(given[0], superpixels=given[1], n_segments=4, method=method)
    with without_kernels():
        wanted = normalized_cut(image, superpixels=regions, n_segments=4, method=method)
        graph = region_affinity(image, regions)
        vertices = np.empty(24, int)
        vertices[regions.ravel()] = wanted.labels.ravel()
        assert found.ncut == pytest.approx(ncut_value(graph, vertices), rel=1e-12)
    np.testing.assert_array_equal(kernel_path.numpy(found.labels), wanted.labels)
    assert len(np.unique(area)) == len(np.unique(wanted.labels))
