"""Normalised cuts against brute force, SciPy's dense eigenvectors, scikit-image, and stored cases."""

from __future__ import annotations

import heapq
import json
import math
import pathlib
import warnings
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import linalg, sparse

from cv3gpu import ncut_value, normalized_cut, pixel_affinity, region_affinity, slic
from cv3gpu.errors import ConvergenceWarning
from cv3gpu.spectral import CutInfo, NormalizedCut, best_threshold
from tests.conftest import Path

DATA = pathlib.Path(__file__).parent.parent.parent / "shared" / "data" / "spectral"
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason=f"reference cases are not at {DATA}")
Array = np.ndarray[Any, Any]


def graph_of(n: int, seed: int, share: float = 1.0) -> Array:
    """A random symmetric graph with self weights, dense."""
    rng = np.random.default_rng(seed)
    w = np.triu(rng.random((n, n)) * (rng.random((n, n)) < share))
    return w + np.triu(w, 1).T


def groups(sizes: list[int], between: float, seed: int = 0) -> Array:
    """Groups of vertices that hang together by 0.5 to 1, and with all others by ``between``."""
    label = np.repeat(np.arange(len(sizes)), sizes)
    w = np.where(label[:, None] == label, 0.5 + 0.5 * np.random.default_rng(seed).random((len(label),) * 2), between)
    return np.triu(w) + np.triu(w, 1).T


def blocks(shape: tuple[int, int] = (24, 30), noise: float = 0.02, seed: int = 0) -> tuple[Array, Array]:
    """An image of four areas of different brightness, and the areas."""
    area = (np.arange(shape[0])[:, None] >= shape[0] // 2) * 2 + (np.arange(shape[1]) >= shape[1] // 3)
    image = np.array([0.0, 0.3, 0.6, 1.0])[area]
    return np.clip(image + noise * np.random.default_rng(seed).standard_normal(shape), 0, 1), area


def same_segments(one: Array, other: Array) -> bool:
    """Whether two labellings are the same up to the names of labels."""
    pairs = np.unique(np.stack([np.ravel(one), np.ravel(other)]), axis=1).shape[1]
    return pairs == len(np.unique(one)) == len(np.unique(other))


def dense(matrix: Any) -> Array:
    if isinstance(matrix, torch.Tensor):
        return (matrix.to_dense() if matrix.layout != torch.strided else matrix).numpy()
    return matrix.toarray() if hasattr(matrix, "toarray") else matrix


# ---- oracles --------------------------------------------------------------------------------------------


def every_threshold(w: Array, x: Array, least: int = 1) -> list[tuple[float, float]]:
    """(normalised cut, threshold) of each threshold: sums of the crossing weights, in long double."""
    found = []
    wide = w.astype(np.longdouble)
    degree = wide.sum(1)
    for t in np.unique(x)[:-1]:
        above = x > t
        if min(above.sum(), (~above).sum()) < least:
            continue
        cut = wide[np.ix_(above, ~above)].sum()
        parts = degree[above].sum(), degree[~above].sum()
        found.append((float(sum(cut / part for part in parts if part > 0)), float(t)))
    return found


def second(w: Array) -> tuple[float, Array]:
    """The second pair of (D - W) y = lambda D y, by LAPACK."""
    degree = w.sum(1)
    values, vectors = linalg.eigh(np.diag(degree) - w, np.diag(degree))
    return values[1], vectors[:, 1]


def recursion(w: Array, n_segments: int, least: int = 1) -> tuple[Array, list[float]]:
    """Labels and the values of the cuts, of a connected graph in connected parts: dense and direct."""
    leaves = {0: np.arange(len(w))}
    waiting: list[tuple[float, int, Array]] = []
    values = []

    def plan(node: int) -> None:
        rows = leaves[node]
        part = w[np.ix_(rows, rows)]
        if len(rows) >= 2 * least and len(rows) > 1:
            x = second(part)[1]
            if abs(x.max()) < abs(x.min()):
                x = -x
            found = every_threshold(part, x, least)
            if found:
                value, t = min(found)
                heapq.heappush(waiting, (value, node, x > t))

    plan(0)
    while len(leaves) < n_segments and waiting:
        value, node, above = heapq.heappop(waiting)
        values.append(value)
        rows = leaves.pop(node)
        for k, side in ((1, ~above), (2, above)):
            leaves[2 * (len(values) - 1) + k] = rows[side]
            plan(2 * (len(values) - 1) + k)
    labels = np.empty(len(w), int)
    for label, rows in enumerate(sorted(leaves.values(), key=lambda rows: rows.min())):
        labels[rows] = label
    return labels, values


# ---- thresholds -----------------------------------------------------------------------------------------


@settings(max_examples=25, deadline=None, derandomize=True)
@given(st.integers(2, 30), st.integers(0, 2**31), st.sampled_from([0.2, 1.0]), st.integers(1, 4), st.booleans())
def test_best_threshold_is_the_best_of_all(n: int, seed: int, share: float, least: int, ties: bool) -> None:
    w = graph_of(n, seed, share)
    x = np.random.default_rng(seed + 1).standard_normal(n)
    if ties:
        x = np.round(x)
    wanted = every_threshold(w, x, least)
    found = best_threshold(w, x, min_size=least)
    assert np.array_equal(found.mask, x > found.threshold)
    if not wanted:
        assert math.isnan(found.threshold) and found.ncut == math.inf and not found.mask.any()
        return
    assert found.ncut == pytest.approx(min(wanted)[0], rel=1e-12, abs=1e-25)
    assert min(found.mask.sum(), (~found.mask).sum()) >= least
    assert ncut_value(w, found.mask.astype(int)) == pytest.approx(found.ncut, rel=1e-12, abs=1e-25)


@pytest.mark.parametrize("kind", ["pixels", "csr", "dense", "torch csr", "torch pixels"])
def test_best_threshold_of_every_form(kind: str) -> None:
    image = np.random.default_rng(0).random((11, 13))
    x = np.random.default_rng(1).standard_normal(143)
    pixels = pixel_affinity(image, radius=3, sigma_intensity=0.4)
    wanted = min(every_threshold(pixels.tocsr().toarray(), x))
    matrix = pixels.tocsr()
    parts = [torch.from_numpy(np.array(part)) for part in (matrix.indptr, matrix.indices, matrix.data)]
    made = {
        "pixels": pixels,
        "csr": matrix,
        "dense": matrix.toarray(),
        "torch csr": torch.sparse_csr_tensor(*parts, size=matrix.shape),
        "torch pixels": pixel_affinity(torch.from_numpy(image), radius=3, sigma_intensity=0.4),
    }[kind]
    found = best_threshold(made, torch.from_numpy(x) if kind.startswith("torch") else x)
    assert (found.ncut, found.threshold) == (pytest.approx(wanted[0], rel=1e-13), wanted[1])
    assert isinstance(found.mask, torch.Tensor) == kind.startswith("torch")
    assert np.array_equal(np.asarray(found.mask), x > wanted[1])


def test_best_threshold_of_a_batch(cpu_path: Path) -> None:
    images = np.random.default_rng(0).random((3, 6, 8, 2)).astype("float32")
    x = np.random.default_rng(1).standard_normal((3, 48)).astype("float32")
    affinity = pixel_affinity(cpu_path.array(images), radius=3)
    found = best_threshold(affinity, cpu_path.array(x), min_size=4)
    for i in range(3):
        value, t = min(every_threshold(pixel_affinity(images[i], radius=3).tocsr().toarray(), x[i], 4))
        assert float(found.ncut[i]) == pytest.approx(value, rel=1e-6) and float(found.threshold[i]) == t
    assert tuple(found.mask.shape) == (3, 48)


@pytest.mark.parametrize("between", [1e-6, 1e-12, 1e-20, 0.0])
def test_tiny_cuts_keep_their_digits(between: float) -> None:
    """Prefix sums of plain doubles end at some 1e-13 here, or below zero."""
    w = groups([200, 300], 0.0)
    w[0, 499] = w[499, 0] = between
    x = np.concatenate([np.linspace(-2, -1, 200), np.linspace(1, 2, 300)])
    found = best_threshold(w, x)
    volumes = w[:200].sum(), w[200:].sum()
    assert found.ncut == pytest.approx(sum(between / volume for volume in volumes), rel=1e-9)
    assert found.mask.sum() == 300


def test_equal_cuts_go_to_the_lowest_threshold() -> None:
    ring = np.roll(np.eye(6), 1, 0) + np.roll(np.eye(6), -1, 0)
    assert best_threshold(ring, np.array([0.0, 1, 2, 3, 4, 5])).threshold == 2
    assert best_threshold(np.eye(4), np.array([3.0, 1, 2, 0])).threshold == 0


# ---- recursion ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("seed", "least"), [(0, 1), (1, 1), (2, 3), (3, 5)])
def test_recursion_is_that_of_dense_eigenvectors(seed: int, least: int) -> None:
    w = groups([7, 12, 9, 15], 0.05, seed) + 0.2 * graph_of(43, seed)
    for n_segments in (2, 3, 6):
        labels, values = recursion(w, n_segments, least)
        found = normalized_cut(None, affinity=w, n_segments=n_segments, min_size=least, return_info=True)
        assert np.array_equal(found.labels, labels)
        assert [split.ncut for split in found.splits] == pytest.approx(values, rel=1e-10)


def test_image_by_the_multigrid_is_that_of_dense_eigenvectors(cpu_path: Path) -> None:
    dtype = "float32" if cpu_path.is_torch else "float64"
    image, area = blocks((20, 27))
    wanted, values = recursion(pixel_affinity(image.astype(dtype)).tocsr().toarray().astype(float), 4)
    found = normalized_cut(cpu_path.array(image.astype(dtype)), n_segments=4, return_info=True)
    assert isinstance(found, CutInfo) and found.converged
    labels = cpu_path.numpy(found.labels)
    assert labels.dtype == np.int64 and labels.shape == image.shape
    assert np.array_equal(labels.ravel(), wanted) and same_segments(labels, area)
    assert [split.ncut for split in found.splits] == pytest.approx(values, rel=1e-4)


def test_large_parts_are_cut_as_masked_stencils(monkeypatch: pytest.MonkeyPatch) -> None:
    from cv3gpu.spectral import _split

    rng = np.random.default_rng(0)
    y, x = np.mgrid[:40, :44]
    area = ((y - 20) ** 2 + (x - 22) ** 2 < 150).astype(int) + 2 * (y + x > 60)
    image = area / 3 + 0.03 * rng.standard_normal(area.shape)
    as_rows = normalized_cut(image, n_segments=6, return_info=True, tol=1e-6)
    monkeypatch.setattr(_split, "SMALL", 0)
    monkeypatch.setattr(_split, "FILLED", 0.0)
    masked = normalized_cut(image, n_segments=6, return_info=True, tol=1e-6)
    assert np.array_equal(as_rows.labels, masked.labels)
    for one, other in zip(as_rows.splits, masked.splits, strict=True):
        assert one.ncut == pytest.approx(other.ncut, rel=1e-9)
        assert one.eigenvalue == pytest.approx(other.eigenvalue, rel=1e-6, abs=1e-12)


@pytest.mark.parametrize("kind", ["csr", "dense", "torch csr", "torch dense", "torch pixels"])
def test_every_form_of_affinity_has_the_same_cuts(kind: str) -> None:
    image, _ = blocks((12, 14))
    pixels = pixel_affinity(image, radius=3)
    wanted = normalized_cut(None, affinity=pixels, n_segments=5)
    matrix = pixels.tocsr()
    parts = [torch.from_numpy(np.array(part)) for part in (matrix.indptr, matrix.indices, matrix.data)]
    made = {
        "csr": matrix,
        "dense": matrix.toarray(),
        "torch csr": torch.sparse_csr_tensor(*parts, size=matrix.shape),
        "torch dense": torch.from_numpy(matrix.toarray()),
        "torch pixels": pixel_affinity(torch.from_numpy(image), radius=3),
    }[kind]
    found = normalized_cut(None, affinity=made, n_segments=5)
    assert isinstance(found.labels, torch.Tensor) == kind.startswith("torch") and tuple(found.labels.shape) == (168,)
    assert same_segments(np.asarray(found.labels), wanted.labels)
    assert found.ncut == pytest.approx(wanted.ncut, rel=1e-9)


@settings(max_examples=12, deadline=None, derandomize=True)
@given(st.integers(3, 9), st.integers(3, 9), st.integers(1, 6), st.integers(1, 5), st.integers(0, 2**31))
def test_labels_keep_the_rules(height: int, width: int, count: int, least: int, seed: int) -> None:
    image = np.random.default_rng(seed).random((height, width))
    affinity = pixel_affinity(image, radius=3, sigma_intensity=0.5)
    found = normalized_cut(None, affinity=affinity, n_segments=count, min_size=least)
    assert isinstance(found, NormalizedCut)
    used, first, size = np.unique(found.labels, return_index=True, return_counts=True)
    assert used.tolist() == list(range(len(used))) and (np.diff(first) > 0).all()
    assert len(used) <= count and (least > 1 or len(used) == count)
    assert size.min() >= min(least, height * width)
    assert found.ncut == pytest.approx(ncut_value(affinity, found.labels), rel=1e-12)
    again = normalized_cut(None, affinity=affinity, n_segments=count, min_size=least)
    assert np.array_equal(again.labels, found.labels) and again.ncut == found.ncut


def test_splits_tell_how_the_labels_came() -> None:
    image, _ = blocks((16, 18), 0.1)
    info = normalized_cut(image, n_segments=7, return_info=True)
    depth, size = {0: 0}, {0: image.size}
    for k, split in enumerate(info.splits):
        assert split.children == (2 * k + 1, 2 * k + 2) and sum(split.sizes) == size.pop(split.node)
        size.update(zip(split.children, split.sizes, strict=True))
        depth.update(dict.fromkeys(split.children, depth[split.node] + 1))
        assert split.converged and 0 <= split.eigenvalue <= split.ncut * (1 + 1e-9)  # the relaxation is a lower bound
    assert sorted(size) == sorted(info.leaves)
    assert [size[node] for node in info.leaves] == np.bincount(info.labels.ravel()).tolist()
    assert len(info.eigenvalues) == len(info.residual) == 6
    deepest = max(depth.values())
    flat = normalized_cut(image, n_segments=64, max_depth=2)
    assert deepest > 2 and len(np.unique(flat.labels)) == 4
    assert not normalized_cut(image, n_segments=4, max_depth=0).labels.any()


def test_max_ncut_ends_the_recursion() -> None:
    image, area = blocks((24, 30), 0.01)
    by_value = normalized_cut(image, max_ncut=0.05, return_info=True)
    assert same_segments(by_value.labels, area) and max(s.ncut for s in by_value.splits) <= 0.05
    by_default = normalized_cut(image, return_info=True)
    assert max(s.ncut for s in by_default.splits) <= 0.04
    assert np.array_equal(by_default.labels, normalized_cut(image, max_ncut=0.04).labels)
    assert len(np.unique(normalized_cut(image, max_ncut=0.05, n_segments=3).labels)) == 3
    assert not normalized_cut(image, max_ncut=0.0).labels.any()


def test_smooth_eigenvectors_are_not_cut() -> None:
    ramp = np.tile(np.linspace(0, 1, 200), (4, 1))
    step = (ramp > 0.5) * 0.4
    for image, count in ((ramp, 1), (step, 2)):
        found = normalized_cut(image, n_segments=2, max_stability=0.06)
        assert len(np.unique(found.labels)) == count
    assert len(np.unique(normalized_cut(ramp, n_segments=2).labels)) == 2


# ---- graphs that fall apart, and other degenerate ones --------------------------------------------------


def test_components_come_first_the_largest_before_others() -> None:
    w = linalg.block_diag(*(groups([n], 0.0, n) for n in (4, 9, 6)))
    order = np.random.default_rng(0).permutation(19)
    label = np.repeat([0, 1, 2], [4, 9, 6])[order]
    w = w[np.ix_(order, order)]
    two = normalized_cut(None, affinity=w, n_segments=2, return_info=True)
    assert same_segments(two.labels, label == 1) and two.ncut == 0 and two.n_iter == 0
    three = normalized_cut(None, affinity=w, n_segments=3)
    assert same_segments(three.labels, label) and three.ncut == 0
    assert same_segments(normalized_cut(None, affinity=w, max_ncut=0.0).labels, label)
    more = normalized_cut(None, affinity=w, n_segments=5)
    assert len(np.unique(more.labels)) == 5 and more.ncut > 0


def test_components_that_are_too_small_stay_with_others() -> None:
    w = linalg.block_diag(groups([10, 12], 0.01), groups([2], 0.0), groups([1], 0.0))
    found = normalized_cut(None, affinity=w, n_segments=2, min_size=5)
    size = np.bincount(found.labels)
    assert size.min() >= 5 and len(set(found.labels[:10])) == len(set(found.labels[10:22])) == 1
    assert found.labels[0] != found.labels[10]


def test_vertices_without_edges_are_components() -> None:
    w = np.zeros((6, 6))
    w[:3, :3] = 1 - np.eye(3)
    found = normalized_cut(None, affinity=w, n_segments=4)
    assert found.labels.tolist() == [0, 0, 0, 1, 2, 3] and found.ncut == 0
    assert normalized_cut(None, affinity=np.zeros((3, 3)), n_segments=3).labels.tolist() == [0, 1, 2]
    assert best_threshold(np.zeros((3, 3)), np.arange(3.0)).ncut == 0


def test_many_components_do_not_take_long() -> None:
    with pytest.warns(UserWarning, match="19001 of 19999 cuts took no more than 3 vertices"):
        found = normalized_cut(None, affinity=sparse.eye_array(20_000).tocsr(), max_ncut=0.0)
    assert np.array_equal(found.labels, np.arange(20_000))


@pytest.mark.parametrize("method", ["recursive", "kway"])
def test_one_vertex_one_segment_and_all_of_them(method: str) -> None:
    assert normalized_cut(np.zeros((1, 1)), n_segments=1, method=method).labels.tolist() == [[0]]
    image, _ = blocks((5, 6))
    whole = normalized_cut(image, n_segments=1, method=method)
    assert not whole.labels.any() and whole.ncut == 0
    if method == "recursive":
        assert np.array_equal(normalized_cut(image, n_segments=30).labels.ravel(), np.arange(30))


@pytest.mark.parametrize("method", ["recursive", "kway"])
def test_a_constant_image_is_cut_into_even_parts(method: str) -> None:
    found = normalized_cut(np.full((20, 40), 0.3), n_segments=2, method=method)
    assert np.bincount(found.labels.ravel()).tolist() == [400, 400]


def test_weights_below_rounding_are_taken_for_none_and_said() -> None:
    w = groups([6, 4, 7], 1e-30)
    with pytest.warns(ConvergenceWarning, match="normalized_cut: parts of the graph hang together by weights below"):
        found = normalized_cut(None, affinity=w, n_segments=2)
    assert found.labels.tolist() == [0] * 10 + [1] * 7 and 0 < found.ncut < 1e-27
    found = normalized_cut(None, affinity=w, n_segments=3)  # nothing is left to choose, or to be said
    assert found.labels.tolist() == [0] * 6 + [1] * 4 + [2] * 7 and 0 < found.ncut < 1e-27


def test_crumbs_are_said_and_min_size_prevents_them() -> None:
    image, _ = blocks((36, 40), 0.0)
    image[5, 5] = 0.5
    with pytest.warns(UserWarning, match="took no more than 3 vertices off a large part"):
        found = normalized_cut(image, n_segments=2)
    assert sorted(np.bincount(found.labels.ravel()))[0] == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = normalized_cut(image, n_segments=2, min_size=20)
    assert np.bincount(found.labels.ravel()).min() >= 20


def test_what_has_not_converged_is_said() -> None:
    image = np.random.default_rng(0).random((40, 40))
    with pytest.warns(ConvergenceWarning, match="1 of 1 eigenvectors have not converged"):
        found = normalized_cut(image, n_segments=2, min_size=3, tol=1e-12, max_iter=1, return_info=True)
    assert not found.converged and np.isfinite(found.ncut)
    with pytest.warns(ConvergenceWarning, match="normalized_cut: . of 3 pairs have not converged"):
        found = normalized_cut(image, n_segments=3, tol=1e-12, max_iter=1, method="kway", return_info=True)
    assert not found.converged


# ---- k-way ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("assign", ["discretize", "kmeans"])
def test_kway_finds_planted_segments(cpu_path: Path, assign: str) -> None:
    image, area = blocks()
    found = normalized_cut(cpu_path.array(image), n_segments=4, method="kway", assign=assign, return_info=True)
    labels = cpu_path.numpy(found.labels)
    assert same_segments(labels, area) and found.converged and found.splits == ()
    assert found.ncut == pytest.approx(ncut_value(pixel_affinity(image), labels), rel=1e-12)
    assert found.eigenvalues[0] == pytest.approx(0, abs=1e-12) and len(found.eigenvalues) == 4
    assert found.eigenvalues.sum() <= found.ncut  # the relaxation is a lower bound


@pytest.mark.parametrize("sparse_graph", [False, True])
def test_kway_merges_small_segments(sparse_graph: bool) -> None:
    image = np.random.default_rng(0).random((18, 20))
    affinity = pixel_affinity(image, sigma_intensity=0.4)
    graph = affinity.tocsr() if sparse_graph else affinity
    plain = normalized_cut(None, affinity=graph, n_segments=12, method="kway")
    least = int(np.bincount(plain.labels).min()) + 1
    found = normalized_cut(None, affinity=graph, n_segments=12, method="kway", min_size=least)
    assert np.bincount(found.labels).min() >= least and 1 <= found.labels.max() < 11
    joined = normalized_cut(None, affinity=graph, n_segments=12, method="kway", min_size=360)
    assert not joined.labels.any()


# ---- superpixels ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["recursive", "kway"])
def test_superpixels_are_cut_whole(cpu_path: Path, method: str) -> None:
    image, area = blocks((36, 42), 0.01)
    regions = np.arange(36)[:, None] // 6 * 6 + np.arange(42) // 7
    found = normalized_cut(cpu_path.array(image), superpixels=cpu_path.array(regions), n_segments=4, method=method)
    labels = cpu_path.numpy(found.labels)
    assert labels.shape == image.shape and same_segments(labels, area)
    graph = region_affinity(image, regions)
    vertices = np.empty(regions.max() + 1, int)
    vertices[regions.ravel()] = labels.ravel()
    assert found.ncut == pytest.approx(ncut_value(graph, vertices), rel=1e-12)
    own = normalized_cut(None, affinity=graph, superpixels=regions, n_segments=4, method=method)
    assert np.array_equal(own.labels, labels)


def rag(image: Array, regions: Array, connectivity: int) -> tuple[Array, Array]:
    """Mean colours, and how many pairs of pixels of two regions touch: pixel by pixel."""
    count = regions.max() + 1
    touching = np.zeros((count, count))
    height, width = regions.shape
    steps = [(0, 1), (1, 0)] + [(1, 1), (1, -1)] * (connectivity == 8)
    for y in range(height):
        for x in range(width):
            for dy, dx in steps:
                if y + dy < height and 0 <= x + dx < width:
                    a, b = regions[y, x], regions[y + dy, x + dx]
                    if a != b:
                        touching[a, b] += 1
                        touching[b, a] += 1
    return np.stack([image[regions == r].mean(0) for r in range(count)]), touching


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("connectivity", [4, 8])
@pytest.mark.parametrize("boundary", [False, True])
def test_region_affinity_is_the_formula(cpu_path: Path, dtype: str, connectivity: int, boundary: bool) -> None:
    rng = np.random.default_rng(0)
    image = rng.random((9, 11, 3)).astype(dtype)
    regions = np.unique(rng.integers(0, 14, (9, 11)), return_inverse=True)[1].reshape(9, 11)
    means, touching = rag(image.astype(np.float64), regions, connectivity)
    square = ((means[:, None] - means) ** 2).sum(2)
    wanted = np.exp(-square / 0.3) * (touching if boundary else touching > 0) + 0.5 * np.eye(len(means))
    got = region_affinity(cpu_path.array(image), cpu_path.array(regions), sigma=0.3, connectivity=connectivity,
                          boundary=boundary, self_weight=0.5)  # fmt: skip
    assert isinstance(got, torch.Tensor) == cpu_path.is_torch and str(got.dtype).endswith(dtype)
    np.testing.assert_allclose(dense(got), wanted, rtol=1e-6 if dtype == "float32" else 1e-13)


def test_region_affinity_is_scikit_images() -> None:
    graph = pytest.importorskip("skimage.graph")
    image = np.random.default_rng(0).integers(0, 256, (20, 24, 3)).astype(np.uint8)
    regions = slic(image, 20)
    theirs = graph.rag_mean_color(image, regions, connectivity=2, mode="similarity", sigma=255.0)
    ours = region_affinity(image.astype(float), regions, sigma=255.0, self_weight=0)
    assert ours.nnz == 2 * theirs.number_of_edges()
    for a, b, data in theirs.edges(data=True):
        assert ours[a, b] == pytest.approx(data["weight"], rel=1e-9)


def test_a_single_region() -> None:
    image = np.random.default_rng(0).random((3, 4))
    assert region_affinity(image, np.zeros((3, 4), int)).toarray().tolist() == [[1.0]]
    assert region_affinity(image, np.zeros((3, 4), int), self_weight=0).nnz == 0
    assert not normalized_cut(image, superpixels=np.zeros((3, 4), int)).labels.any()


# ---- stored cases ---------------------------------------------------------------------------------------


def stored(name: str) -> tuple[Any, dict[str, Any]]:
    """The affinity of a case, and what is known of it."""
    file_name = DATA / f"ncut_{name}.npz"
    if not file_name.exists():
        pytest.skip(f"no case {name}")
    with np.load(file_name) as file:
        meta = json.loads(str(file["meta"]))
        image = file["pb"] if meta["kind"] == "ic" else file["feature"]
    options = {"radius": meta["r"], "inclusive": meta["rule"] == "le", "sigma_intensity": meta["sigma_I"],
               "self_weight": meta["self_weight"]}  # fmt: skip
    if meta["kind"] == "ic":
        return pixel_affinity(image, kind="intervening_contour", **options), meta
    return pixel_affinity(image, sigma_distance=meta["sigma_X"], **options), meta


@needs_data
@pytest.mark.parametrize("name", ["O01", "O02", "O03", "O04", "O05", "O07", "O09", "absent"])
def test_two_way_cuts_of_stored_cases(name: str) -> None:
    affinity, meta = stored(name)
    found = normalized_cut(None, affinity=affinity, n_segments=2)
    assert found.ncut <= 1.001 * meta["ncut_best_exact"]
    assert found.ncut == pytest.approx(ncut_value(affinity, found.labels), rel=1e-12)


@needs_data
@pytest.mark.parametrize("name", ["O01", "O02", "O03", "O04", "O05", "O07"])
def test_kway_cuts_of_stored_cases(name: str) -> None:
    affinity, meta = stored(name)
    for count in (4, 8)[: 1 if affinity.shape[0] > 20_000 else 2]:
        found = normalized_cut(None, affinity=affinity, n_segments=count, method="kway")
        assert found.ncut <= 1.03 * meta[f"kncut_{count}_discretize"]
        assert len(np.unique(found.labels)) == count


@needs_data
@pytest.mark.parametrize("method", ["recursive", "kway"])
def test_the_degenerate_case_is_finite_and_warned(method: str) -> None:
    affinity, _ = stored("O06")
    with pytest.warns(ConvergenceWarning, match="^normalized_cut: "):
        found = normalized_cut(None, affinity=affinity, n_segments=4, method=method)
    assert 0 <= found.ncut < 1e-12 and len(np.unique(found.labels)) == 4


# ---- refusals -------------------------------------------------------------------------------------------

IMAGE = np.linspace(0, 1, 20).reshape(4, 5)
REGIONS = np.arange(20).reshape(4, 5) // 5
CUT_REFUSALS: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"image": None}, ValueError, "image must be given, or an affinity, got None"),
    ({"image": [[0.0]]}, TypeError, "image must be a NumPy, CuPy or torch array, got list"),
    ({"image": np.zeros((4, 5), np.uint8)}, TypeError, "image must have dtype float32 or float64, got uint8"),
    ({"image": np.zeros(4)}, ValueError, "image must have shape \\[H, W\\] or \\[H, W, C\\], got \\(4,\\)"),
    ({"image": np.zeros((2, 3, 4, 1))}, ValueError, "image must have shape"),
    ({"image": np.zeros((0, 5))}, ValueError, "image must not be empty, got \\(0, 5\\)"),
    ({"affinity": np.eye(3)}, ValueError, "affinity must have 20 vertices, one for each pixel of the image, got 3"),
    ({"image": None, "affinity": np.zeros((0, 0))}, ValueError, "affinity must have a vertex"),
    ({"image": None, "affinity": np.zeros((2, 3))}, ValueError, "affinity must have shape \\[N, N\\]"),
    ({"image": None, "affinity": -np.eye(3)}, ValueError, "affinity must not be negative"),
    ({"image": None, "affinity": "w"}, TypeError, "affinity must be a pixel affinity"),
    ({"n_segments": 0}, ValueError, "n_segments must be from 1 to 20, got 0"),
    ({"n_segments": 21}, ValueError, "n_segments must be from 1 to 20, got 21"),
    ({"n_segments": 2.0}, TypeError, "n_segments must be an integer"),
    ({"max_ncut": -0.1}, ValueError, "max_ncut must be from 0 to 2, got -0.1"),
    ({"max_ncut": 2.1}, ValueError, "max_ncut must be from 0 to 2"),
    ({"max_ncut": "a"}, TypeError, "max_ncut must be a number"),
    ({"min_size": 0}, ValueError, "min_size must be from 1"),
    ({"min_size": True}, TypeError, "min_size must be an integer"),
    ({"method": "2-way"}, ValueError, "method must be one of 'recursive', 'kway', got '2-way'"),
    ({"assign": "qr"}, ValueError, "assign must be one of 'discretize', 'kmeans'"),
    ({"max_stability": 1.5}, ValueError, "max_stability must be from 0 to 1"),
    ({"max_depth": -1}, ValueError, "max_depth must be from 0"),
    ({"tol": 0.0}, ValueError, "tol must be finite and positive"),
    ({"max_iter": 0}, ValueError, "max_iter must be from 1"),
    ({"seed": -1}, ValueError, "seed must be from 0"),
    ({"return_info": 1}, TypeError, "return_info must be True or False"),
    ({"method": "kway"}, ValueError, 'n_segments must be given with method="kway", got None'),
    ({"method": "kway", "n_segments": 2, "max_ncut": 0.1}, ValueError, 'max_ncut must be None with method="kway"'),
    ({"method": "kway", "n_segments": 2, "max_depth": 1}, ValueError, "max_depth must be None"),
    ({"method": "kway", "n_segments": 2, "max_stability": 0.1}, ValueError, "max_stability must be None"),
    (
        {"image": None, "affinity": np.diag([1.0, 0.0]), "method": "kway", "n_segments": 2},
        ValueError,
        "affinity must connect every vertex to something",
    ),
    ({"superpixels": REGIONS.tolist()}, TypeError, "superpixels must be a NumPy, CuPy or torch array, got list"),
    ({"superpixels": REGIONS.astype(float)}, TypeError, "superpixels must be integers, got float64"),
    ({"superpixels": REGIONS[:3]}, ValueError, "superpixels must have shape \\[4, 5\\], got \\(3, 5\\)"),
    ({"superpixels": REGIONS - 1}, ValueError, "superpixels must not be negative, got -1"),
    ({"superpixels": REGIONS * 2}, ValueError, "superpixels must be numbered from 0 without gaps, got no region 1"),
    ({"superpixels": REGIONS, "affinity": np.eye(3)}, ValueError, "affinity must have 4 vertices, one for each region"),
    ({"superpixels": REGIONS, "n_segments": 5}, ValueError, "n_segments must be from 1 to 4, got 5"),
]


@pytest.mark.parametrize(("options", "error", "text"), CUT_REFUSALS)
def test_normalized_cut_refuses(options: dict[str, Any], error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=f"^normalized_cut: {text}"):
        normalized_cut(**{"image": IMAGE, **options})


def test_what_is_not_finite_is_refused() -> None:
    with pytest.raises(ValueError, match="image must be finite, got nan"):
        normalized_cut(np.where(IMAGE > 0.5, np.nan, IMAGE))


RAG_REFUSALS: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"image": IMAGE.tolist()}, TypeError, "image must be a NumPy, CuPy or torch array"),
    ({"image": IMAGE.astype(np.uint8)}, TypeError, "image must have dtype float32 or float64, got uint8"),
    ({"image": IMAGE[0]}, ValueError, "image must have shape"),
    ({"image": np.full((4, 5), np.inf)}, ValueError, "image must be finite, got inf"),
    ({"image": torch.zeros(4, 5)}, TypeError, "all arrays must be of one library"),
    ({"superpixels": REGIONS.tolist()}, TypeError, "superpixels must be a NumPy, CuPy or torch array"),
    ({"superpixels": REGIONS > 1}, TypeError, "superpixels must be integers, got bool"),
    ({"superpixels": REGIONS[None]}, ValueError, "superpixels must have shape \\[H, W\\]"),
    ({"superpixels": REGIONS[:, :4]}, ValueError, "superpixels must have shape \\[4, 5\\], got \\(4, 4\\)"),
    ({"superpixels": REGIONS[:0]}, ValueError, "superpixels must not be empty"),
    ({"superpixels": REGIONS - 1}, ValueError, "superpixels must not be negative"),
    ({"superpixels": REGIONS + 1}, ValueError, "numbered from 0 without gaps, got no region 0; number them anew"),
    ({"superpixels": REGIONS * 1000}, ValueError, "numbered from 0 without gaps, got no region 1"),
    ({"sigma": 0}, ValueError, "sigma must be finite and positive"),
    ({"sigma": "1"}, TypeError, "sigma must be a number"),
    ({"connectivity": 6}, ValueError, "connectivity must be 4 or 8, got 6"),
    ({"boundary": 1}, TypeError, "boundary must be True or False"),
    ({"self_weight": -1}, ValueError, "self_weight must not be negative"),
]


@pytest.mark.parametrize(("options", "error", "text"), RAG_REFUSALS)
def test_region_affinity_refuses(options: dict[str, Any], error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=f"^region_affinity: .*{text}"):
        region_affinity(**{"image": IMAGE, "superpixels": REGIONS, **options})


THRESHOLD_REFUSALS: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"affinity": "w"}, TypeError, "affinity must be a pixel affinity"),
    ({"affinity": np.ones((2, 3))}, ValueError, "affinity must have shape"),
    ({"affinity": np.triu(np.ones((4, 4)))}, ValueError, "affinity must be symmetric"),
    ({"affinity": np.full((4, 4), np.nan)}, ValueError, "affinity must be finite"),
    ({"vector": [0.0] * 4}, TypeError, "vector must be a NumPy, CuPy or torch array"),
    ({"vector": torch.zeros(4, dtype=torch.float64)}, TypeError, "vector must be, like the affinity, of numpy on cpu"),
    ({"vector": np.zeros(4, np.float32)}, TypeError, "vector must have dtype float64, got float32"),
    ({"vector": np.zeros(4, int)}, TypeError, "vector must have dtype float64"),
    ({"vector": np.zeros(3)}, ValueError, "vector must have shape \\[4\\], got \\(3,\\)"),
    ({"vector": np.zeros((4, 1))}, ValueError, "vector must have shape \\[4\\]"),
    ({"vector": np.array([0, 1, np.nan, 2])}, ValueError, "vector must be finite"),
    ({"affinity": np.zeros((0, 0)), "vector": np.zeros(0)}, ValueError, "vector must not be empty"),
    ({"min_size": 0}, ValueError, "min_size must be from 1"),
    ({"min_size": 1.0}, TypeError, "min_size must be an integer"),
]


@pytest.mark.parametrize(("options", "error", "text"), THRESHOLD_REFUSALS)
def test_best_threshold_refuses(options: dict[str, Any], error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=f"^best_threshold: {text}"):
        best_threshold(**{"affinity": np.ones((4, 4)), "vector": np.arange(4.0), **options})
