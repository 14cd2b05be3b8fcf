"""The kernels of k-means and mean shift against the CPU path."""

from __future__ import annotations

import numpy as np
import pytest

from cv3gpu import ConvergenceWarning, _array
from cv3gpu.cluster import _cpu, _gpu, assign, kmeans, mean_shift, mean_shift_filter, mean_shift_segmentation

from .tolerance import TABLE


@pytest.fixture(autouse=True)
def few_parts(monkeypatch):
    """Sums in fewer parts than fill a GPU: most would be empty here, and each is a block of the runner."""
    monkeypatch.setattr(_gpu, "_SUMS", 48)


def blobs(points, dims, seed=0, dtype="float64"):
    rng = np.random.default_rng(seed)
    return (3 * rng.integers(0, 4, (points, 1)) + rng.standard_normal((points, dims))).astype(dtype)


def on_cpu(function, *args, **options):
    """The CPU path's result, of NumPy arrays."""
    token = _array.host_backend.set(None)
    try:
        return function(*args, **options)
    finally:
        _array.host_backend.reset(token)


def close(path, got, wanted, dtype, terms=64):
    scale = max(1.0, float(abs(wanted).max(initial=0)))
    np.testing.assert_allclose(path.numpy(got), wanted, rtol=0, atol=terms * TABLE[dtype].output * scale)


def check_kmeans(path, x, count, weight=None, init=None, **options):
    dtype = str(x.dtype)
    arrays = {"sample_weight": weight, "init": init}
    given = {name: a if isinstance(a, str) else path.array(a) for name, a in arrays.items() if a is not None}
    got = kmeans(path.array(x), count, **given, **options)
    wanted = on_cpu(kmeans, x, count, **{name: a for name, a in arrays.items() if a is not None}, **options)
    np.testing.assert_array_equal(path.numpy(got.labels), wanted.labels)
    close(path, got.centroids, wanted.centroids, dtype)
    np.testing.assert_allclose(path.numpy(got.inertia), wanted.inertia, rtol=1e-12 if dtype == "float64" else 1e-5)
    assert str(got.centroids.dtype).endswith(dtype) and str(got.labels.dtype).endswith("int64")
    return got, wanted


@pytest.mark.parametrize(("dtype", "weighted"), [("float32", True), ("float64", False)])
@pytest.mark.parametrize(
    ("points", "dims", "count"),
    [(90, 1, 3), (200, 5, 8), (70, 8, 10), (130, 7, 12), (150, 19, 4), (140, 3, 135), (20, 270, 2), (1100, 9, 2)],
)
def test_kmeans_to_the_fixed_point(kernel_path, points, dims, count, weighted, dtype):
    """The small kernel and the tiled one; clusters and features in several tiles; points in several runs."""
    x = blobs(points, dims, count, dtype)
    weight = np.random.default_rng(1).integers(1, 4, points).astype(dtype) if weighted else None
    check_kmeans(kernel_path, x, count, weight, init=x[:count], tol=0.0)


@pytest.mark.parametrize("capability", [75, 90])
@pytest.mark.parametrize(("points", "dims", "count"), [(300, 3, 70), (129, 16, 64), (200, 33, 150), (5, 100, 3)])
def test_labels_by_tiles_are_those_of_exact_distances(kernel_path, monkeypatch, points, dims, count, capability):
    """By float32 products and by those of TF32 in parts; tiles that are full and that are not, of centres and features."""
    if kernel_path.name == "host":
        monkeypatch.setattr(_array, "compute_capability", lambda x: capability)
    x = np.random.default_rng(points).standard_normal((points, dims)).astype("float32")
    centres = np.random.default_rng(count).standard_normal((count, dims)).astype("float32") + np.float32(3)
    square = ((x[:, None].astype(float) - centres) ** 2).sum(2)
    got = kernel_path.numpy(assign(kernel_path.array(x), kernel_path.array(centres)).labels)
    # a score may be off by some units of the greatest product's rounding
    off = np.take_along_axis(square, got[:, None], 1)[:, 0] - square.min(1)
    assert (off <= 2.0**-22 * (np.linalg.norm(x - x.mean(0), axis=1) + 1) * np.linalg.norm(centres, axis=1).max()).all()
    assert (got == square.argmin(1)).mean() > 0.99


@pytest.mark.parametrize("capability", [75, 90])
def test_equal_centres_give_the_lowest_label(kernel_path, monkeypatch, capability):
    if kernel_path.name == "host":
        monkeypatch.setattr(_array, "compute_capability", lambda x: capability)
    x = np.random.default_rng(0).standard_normal((140, 12)).astype("float32")
    centres = np.concatenate([x[:70], x[:70], x[:70]])  # in three tiles, in both halves of one
    got = kernel_path.numpy(assign(kernel_path.array(x), kernel_path.array(centres)).labels)
    assert got.max() < 70
    np.testing.assert_array_equal(got, on_cpu(assign, x, centres).labels)


@pytest.mark.parametrize(("points", "dims", "count"), [(1500, 2, 4), (140, 9, 12), (30, 2, 30)])
@pytest.mark.parametrize("weighted", [False, True])
def test_seeds_are_the_cpus(kernel_path, points, dims, count, weighted):
    """k-means++ over several blocks, more candidates than one, and until every point is a centre."""
    x = blobs(points, dims, 2)
    weight = np.random.default_rng(1).integers(0, 3, points).astype(float) if weighted else None
    for init in ("k-means++", "random"):
        if count < points or weight is None:
            check_kmeans(kernel_path, x, count, weight, init=None, **{"n_init": 2} if init == "random" else {})


def test_many_candidates_are_tried_in_turns(kernel_path, monkeypatch):
    monkeypatch.setattr(_gpu, "_TRIED", 3)
    check_kmeans(kernel_path, blobs(200, 3), 12)


def test_random_starts(kernel_path):
    x = blobs(120, 3)
    got = kmeans(kernel_path.array(x), 5, init="random", n_init=3, seed=4)
    wanted = on_cpu(kmeans, x, 5, init="random", n_init=3, seed=4)
    np.testing.assert_array_equal(kernel_path.numpy(got.labels), wanted.labels)


@pytest.mark.parametrize("dims", [1, 9])
def test_empty_clusters(kernel_path, dims):
    x = np.zeros((60, dims))
    x[:, 0] = np.arange(60) % 5 + 7 * (np.arange(60) == 11) + 30 * (np.arange(60) == 44)
    init = np.full((3, dims), 500.0)
    init[0] = 1.0
    init[2] += 100
    got, _ = check_kmeans(kernel_path, x, 3, init=init, tol=0.0)
    assert sorted(kernel_path.numpy(got.centroids)[:, 0])[1:] == [8.0, 34.0]
    weight = np.ones(60)
    weight[44] = 0
    check_kmeans(kernel_path, x, 3, weight, init=init, tol=0.0)
    same = np.ones((20, dims))  # nothing to give: the others stay where they are
    stays, _ = check_kmeans(kernel_path, same, 2, init=np.stack([same[0], same[0] + 5]), tol=0.0)
    assert (kernel_path.numpy(stays.centroids)[1] == 6).all()


@pytest.mark.parametrize("dims", [2, 9])
def test_kmeans_stops_by_tol_and_by_max_iter(kernel_path, dims):
    x = blobs(400, dims)
    fixed = on_cpu(kmeans, x, 6, init=x[:6], tol=0.0).n_iter
    got, wanted = check_kmeans(kernel_path, x, 6, init=x[:6], tol=1e-2)
    assert got.n_iter == wanted.n_iter < fixed
    for max_iter in (1, 3):
        with pytest.warns(ConvergenceWarning, match=f"kmeans: {max_iter} iterations did not reach tol 0"):
            got, wanted = check_kmeans(kernel_path, x, 6, init=x[:6], tol=0.0, max_iter=max_iter)
        assert got.n_iter == wanted.n_iter == max_iter


def test_kmeans_ties_go_to_the_lowest_label(kernel_path):
    for dims in (1, 9):
        x = np.repeat(np.array([[-1.0], [0.0], [1.0], [2.0]]), dims, 1)
        init = np.repeat(np.array([[1.0], [1.0], [-1.0]]), dims, 1)
        with pytest.warns(ConvergenceWarning):
            check_kmeans(kernel_path, x, 3, init=init, max_iter=1, tol=0.0)


def test_a_common_offset_costs_no_accuracy(kernel_path):
    """|c|^2 - 2 <x, c> is taken less the mean of the points."""
    x = (blobs(150, 12, 3) + 1e4).astype("float32")
    check_kmeans(kernel_path, x, 4, init=x[:4], tol=0.0)


def test_kmeans_of_a_batch_is_a_loop(kernel_path):
    x = np.stack([blobs(80, 3, s) for s in range(3)])
    got = kmeans(kernel_path.array(x), 4)
    for b in range(3):
        one = kmeans(kernel_path.array(x[b]), 4)
        np.testing.assert_array_equal(kernel_path.numpy(got.centroids)[b], kernel_path.numpy(one.centroids))
        assert float(got.inertia[b]) == float(one.inertia)


def test_kmeans_repeats_its_bits(kernel_path):
    x = kernel_path.array(blobs(150, 10, dtype="float32"))
    one, other = kmeans(x, 4), kmeans(x, 4)
    for a, b in zip(one[:3], other[:3], strict=True):
        np.testing.assert_array_equal(kernel_path.numpy(a), kernel_path.numpy(b))


@pytest.mark.parametrize(("points", "dims", "count"), [(300, 3, 6), (150, 12, 5)])
@pytest.mark.parametrize("weighted", [False, True])
def test_oversampled_starts_are_the_cpus(kernel_path, points, dims, count, weighted):
    x = blobs(points, dims, 2)
    weight = np.random.default_rng(1).integers(0, 3, points).astype(float) if weighted else None
    check_kmeans(kernel_path, x, count, weight, init="k-means||", max_iter=1000)


def test_points_drawn_are_the_cpus(kernel_path):
    x, weight = blobs(700, 2, 1), np.random.default_rng(0).random(700)
    near, far = _gpu.Points(kernel_path.array(x), kernel_path.array(weight)), _cpu.Points(x, weight)
    closest = np.random.default_rng(1).random(700)
    assert near.total(kernel_path.array(closest)) == pytest.approx(far.total(closest), rel=1e-14)
    for seed in (3, 2**63 - 2):
        drawn = near.sampled(kernel_path.array(closest), 0.6, seed)
        assert 60 < len(drawn) < 160
        np.testing.assert_array_equal(drawn, far.sampled(closest, 0.6, seed))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("dims", "weighted"), [(3, False), (11, True)])
def test_batches_are_the_cpus(kernel_path, dims, weighted, dtype):
    x = blobs(200, dims, 2, dtype)
    weight = np.random.default_rng(1).integers(1, 3, 200).astype(dtype) if weighted else None
    check_kmeans(kernel_path, x, 5, weight, batch_size=50, max_iter=6, tol=0.0)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("dims", "count"), [(4, 6), (20, 9)])
def test_assigned_labels_are_the_cpus(kernel_path, dims, count, dtype):
    x = np.stack([blobs(150, dims, s, dtype) for s in range(2)])
    centres, weight = x[:, :count] + np.asarray(0.25, dtype), np.abs(x[..., 0])
    got = assign(*map(kernel_path.array, (x, centres, weight)))
    wanted = on_cpu(assign, x, centres, weight)
    np.testing.assert_array_equal(kernel_path.numpy(got.labels), wanted.labels)
    np.testing.assert_allclose(kernel_path.numpy(got.inertia), wanted.inertia, rtol=1e-12)
    none = assign(kernel_path.array(x[:, :0]), kernel_path.array(centres))
    assert tuple(none.labels.shape) == (2, 0) and kernel_path.numpy(none.inertia).tolist() == [0, 0]


@pytest.mark.parametrize(("bad", "text"), [(np.nan, "x must be finite"), (np.inf, "x must be finite")])
def test_kmeans_refuses_what_is_not_finite(kernel_path, bad, text):
    x = blobs(50, 3)
    x[7, 1] = bad
    with pytest.raises(ValueError, match=f"kmeans: {text}"):
        kmeans(kernel_path.array(x), 3)


# ---- mean shift -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("kernel", ["flat", "gaussian"])
@pytest.mark.parametrize("dims", [1, 2, 3, 4, 5, 6, 7, 12, 20])
def test_mean_shift(kernel_path, dims, kernel, dtype):
    x = blobs(70, dims, dims, dtype)
    bandwidth = 1.3 if dims < 7 else 4.0
    got = mean_shift(kernel_path.array(x), bandwidth, kernel=kernel, max_iter=1000)
    wanted = on_cpu(mean_shift, x, bandwidth, kernel=kernel, max_iter=1000)
    np.testing.assert_array_equal(kernel_path.numpy(got.labels), wanted.labels)
    close(kernel_path, got.modes, wanted.modes, dtype, 1e5 if dtype == "float64" else 64)
    assert got.n_iter == pytest.approx(wanted.n_iter, abs=2)
    assert str(got.modes.dtype).endswith(dtype) and str(got.labels.dtype).endswith("int64")


def test_merging_over_several_rounds(kernel_path):
    """More ends than the block has threads, modes that are found in each round, and ends that change to a later mode."""
    rng = np.random.default_rng(0)
    x = np.sort(rng.random((1500, 1)) * 40, axis=0)
    x[1400:] = rng.random((100, 1)) * 40
    got = mean_shift(kernel_path.array(x), 0.2)
    wanted = on_cpu(mean_shift, x, 0.2)
    np.testing.assert_array_equal(kernel_path.numpy(got.labels), wanted.labels)
    close(kernel_path, got.modes, wanted.modes, "float64")


def test_one_axis_of_cells_and_far_points(kernel_path):
    x = np.concatenate([np.tile(blobs(40, 1), 2) * [1, 1e-3], [[1e12, 0.0]]])
    got, wanted = mean_shift(kernel_path.array(x), 1.0), on_cpu(mean_shift, x, 1.0)
    np.testing.assert_array_equal(kernel_path.numpy(got.labels), wanted.labels)


def test_mean_shift_that_does_not_arrive(kernel_path):
    x = blobs(50, 2)
    with pytest.warns(ConvergenceWarning, match="2 steps were too few for") as said:
        got = mean_shift(kernel_path.array(x), 1.5, max_iter=2)
    token = _array.host_backend.set(None)
    with pytest.warns(ConvergenceWarning) as wanted:
        other = mean_shift(x, 1.5, max_iter=2)
    _array.host_backend.reset(token)
    assert str(said[0].message) == str(wanted[0].message)
    np.testing.assert_array_equal(kernel_path.numpy(got.labels), other.labels)


def test_mean_shift_of_no_points_and_of_nan(kernel_path):
    got = mean_shift(kernel_path.array(np.zeros((0, 3))), 1.0)
    assert (tuple(got.labels.shape), tuple(got.modes.shape), got.n_iter) == ((0,), (0, 3), 0)
    with pytest.raises(ValueError, match="mean_shift: x must be finite"):
        mean_shift(kernel_path.array(np.array([[0.0], [np.nan]])), 1.0)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_filter_and_segmentation_of_images(kernel_path, dtype):
    image = np.random.default_rng(0).random((8, 11, 3)).astype(dtype)
    image[:, 5:] += 3
    for one in (image, image[..., 0].copy()):
        wanted = on_cpu(mean_shift_filter, one, 3, 1)
        close(kernel_path, mean_shift_filter(kernel_path.array(one), 3, 1), wanted, dtype)
        got, other = (
            mean_shift_segmentation(kernel_path.array(one), 3, 1, 4),
            on_cpu(mean_shift_segmentation, one, 3, 1, 4),
        )
        np.testing.assert_array_equal(kernel_path.numpy(got.labels), other.labels)
        close(kernel_path, got.colors, other.colors, dtype)
    both = np.stack([image, image[::-1]])
    got, other = (
        mean_shift_segmentation(kernel_path.array(both), 3, 1, 4),
        on_cpu(mean_shift_segmentation, both, 3, 1, 4),
    )
    np.testing.assert_array_equal(kernel_path.numpy(got.labels), other.labels)
    close(kernel_path, mean_shift_filter(kernel_path.array(both), 3, 1), on_cpu(mean_shift_filter, both, 3, 1), dtype)
