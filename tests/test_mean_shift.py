"""Mean shift against a few lines of NumPy and stored results."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cv3gpu import ConvergenceWarning
from cv3gpu.cluster import _cpu, _grid, _loops, mean_shift, mean_shift_filter, mean_shift_segmentation

DATA = Path(__file__).resolve().parents[2] / "shared" / "data" / "spectral"


def blobs(points=120, dims=2, seed=0, dtype="float64"):
    rng = np.random.default_rng(seed)
    return (3 * rng.integers(0, 4, (points, 1)) + rng.standard_normal((points, dims))).astype(dtype)


def oracle(x, h, kernel="flat", max_iter=1000, tol=1e-3):
    """Ends, labels, modes and steps; every point climbs, all of them in each step."""
    y, active, steps = x.astype(float), np.ones(len(x), bool), np.zeros(len(x), int)
    while active.any() and steps.max() < max_iter:
        q = ((y[active][:, None] - x) ** 2).sum(2) / h**2
        g = q <= 1 if kernel == "flat" else np.where(q <= 18, np.exp(-q / 2), 0)
        after = g @ x / g.sum(1, keepdims=True)
        moved = np.sqrt(((after - y[active]) ** 2).sum(1))
        y[active] = after
        steps[active] += 1
        active[active] = moved > tol * h
    modes, labels = [], []
    for end in y:
        off = np.array([np.sqrt(((end - mode) ** 2).sum()) for mode in modes])
        if not (off < h / 2).any():
            modes.append(end)
        labels.append(off.argmin() if (off < h / 2).any() else len(modes) - 1)
    return np.array(labels), np.array(modes), steps.max()


def check(path, got, wanted, dtype="float64"):
    np.testing.assert_array_equal(path.numpy(got.labels), wanted[0])
    np.testing.assert_allclose(path.numpy(got.modes), wanted[1], rtol=0, atol=1e-10 if dtype == "float64" else 1e-5)
    assert got.n_iter == wanted[2]
    assert str(got.modes.dtype).endswith(dtype) and str(got.labels.dtype).endswith("int64")


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("kernel", ["flat", "gaussian"])
@pytest.mark.parametrize("dims", [1, 2, 3, 5, 9])
def test_against_brute_force(cpu_path, dims, kernel, dtype):
    x = blobs(100, dims, dims, dtype)
    got = mean_shift(cpu_path.array(x), 1.3, kernel=kernel, max_iter=1000)
    check(cpu_path, got, oracle(x.astype(float), 1.3, kernel), dtype)


@pytest.mark.parametrize("kernel", ["flat", "gaussian"])
@pytest.mark.parametrize("bandwidth", [0.05, 0.6, 4.0, 50.0])
def test_any_bandwidth(kernel, bandwidth):
    x = blobs(150, 3, 1)
    got = mean_shift(x, bandwidth, kernel=kernel, max_iter=1000, tol=1e-6)
    labels, modes, _ = oracle(x, bandwidth, kernel, tol=1e-6)
    np.testing.assert_array_equal(got.labels, labels)
    np.testing.assert_allclose(got.modes, modes, atol=1e-8)


@pytest.mark.skipif(not DATA.is_dir(), reason="needs ../shared/data/spectral")
@pytest.mark.parametrize("case", ["M01", "M02"])
def test_stored_case(case):
    color = pytest.importorskip("skimage.color")
    stored = np.load(DATA / f"meanshift_{case}.npz")
    height, width = stored["image"].shape[:2]
    y, x = np.mgrid[:height, :width] * float(stored["scale"])
    features = np.dstack([color.rgb2lab(stored["image"]), y, x]).reshape(-1, 5)
    kernel = "gaussian" if "gauss" in str(stored["kernel"]) else "flat"
    got = mean_shift(features, float(stored["bandwidth"]), kernel=kernel, tol=1e-6)
    np.testing.assert_array_equal(got.labels, stored["labels"])
    np.testing.assert_allclose(got.modes, stored["centers"], rtol=0, atol=1e-8)
    assert got.n_iter == stored["iters"].max()


def test_points_at_exactly_the_bandwidth_count():
    got = mean_shift(np.array([[0.0], [8.0], [16.5]]), 8.0)
    np.testing.assert_array_equal(got.modes, [[4.0], [16.5]])


def test_the_nearest_mode_so_far_gets_a_point():
    """Three ends in a row: the third is nearer to the second, a fourth like the first comes back to the first."""
    ends = np.array([[0.0], [0.6], [0.45], [0.05]])
    found, best, labels = np.empty((4, 1)), np.empty(4, np.int64), np.empty(4, np.int64)
    count = _loops._merge(ends, np.arange(4), np.arange(4), 0.25, found, best, np.empty(4), np.zeros(4, int), labels)
    assert (count, labels.tolist()) == (2, [0, 1, 1, 0])


def test_a_point_far_away_costs_no_accuracy():
    x = np.concatenate([blobs(80, 3), [[1e9, -1e9, 4e12]]])
    got = mean_shift(x, 1.0)
    wanted = oracle(x, 1.0)
    np.testing.assert_array_equal(got.labels, wanted[0])
    assert got.modes[-1].tolist() == x[-1].tolist()


def test_ways_that_meet_are_one(monkeypatch):
    """A memory of hardly any positions, which each takes from the last, gives the same."""
    x = blobs(400, 2)
    one = mean_shift(x, 1.0)
    monkeypatch.setattr(_cpu, "_SLOTS", 2)
    few = mean_shift(x, 1.0)
    for a, b in zip(one, few, strict=True):
        np.testing.assert_array_equal(a, b)


def test_threads_change_nothing(monkeypatch):
    x = blobs(1500, 3)
    found = []
    for cores, ascents in ((1, 10**9), (2, 512), (7, 40)):
        monkeypatch.setattr(_cpu, "cores", lambda cores=cores: cores)
        monkeypatch.setattr(_cpu, "_ASCENTS", ascents)
        found.append(mean_shift(x, 1.0))
    for other in found[1:]:
        for a, b in zip(found[0], other, strict=True):
            np.testing.assert_array_equal(a, b)


def test_too_few_steps_are_said():
    x = blobs(60, 2)
    steps = mean_shift(x, 1.5).n_iter
    with pytest.warns(ConvergenceWarning, match=r"mean_shift: 2 steps were too few for \d+ of 60 points") as said:
        got = mean_shift(x, 1.5, max_iter=2)
    assert said[0].filename == __file__
    labels, modes, _ = oracle(x, 1.5, max_iter=2)
    np.testing.assert_array_equal(got.labels, labels)
    np.testing.assert_allclose(got.modes, modes, atol=1e-12)
    assert mean_shift(x, 1.5, max_iter=steps).n_iter == steps  # the last step counts


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 60), st.integers(1, 4), st.floats(0.2, 3), st.integers(0, 10**6))
def test_modes_are_fixed_points_and_apart(points, dims, bandwidth, seed):
    x = blobs(points, dims, seed)
    labels, modes, _ = mean_shift(x, bandwidth, tol=0.0, max_iter=10**4)
    for k, mode in enumerate(modes):
        near = ((x - mode) ** 2).sum(1) <= bandwidth**2 * (1 + 1e-12)
        surely = ((x - mode) ** 2).sum(1) <= bandwidth**2 * (1 - 1e-12)
        if (near == surely).all():
            np.testing.assert_allclose(x[near].mean(0), mode, atol=1e-9)
        assert (((modes[:k] - mode) ** 2).sum(1) >= bandwidth**2 / 4).all()
    np.testing.assert_array_equal(
        np.unique(labels, return_index=True)[1], np.sort(np.unique(labels, return_index=True)[1])
    )


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([0.25, 2.0, 64.0]), st.sampled_from(["flat", "gaussian"]))
def test_units_do_not_matter(seed, factor, kernel):
    x = blobs(50, 2, seed)
    one, other = (
        mean_shift(x, 1.0, kernel=kernel, max_iter=2000),
        mean_shift(x * factor, factor, kernel=kernel, max_iter=2000),
    )
    np.testing.assert_array_equal(one.labels, other.labels)
    np.testing.assert_allclose(other.modes, one.modes * factor, rtol=1e-9, atol=1e-9)


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 80), st.integers(1, 5), st.floats(0.05, 20), st.integers(0, 10**6))
def test_the_grid_covers_the_kernel(points, dims, reach, seed):
    """All points within reach of a position are in the rows of cells around it."""
    x = np.random.default_rng(seed).standard_normal((points, dims)) * 5
    cells = _grid.grid(x.min(0), x.max(0), reach)
    number = cells.numbers(x)
    near = ((x[:, None] - x) ** 2).sum(2) <= reach**2
    steps = (number[None, :] - number[:, None])[:, :, None] - cells.around
    np.testing.assert_array_equal((abs(steps) <= 1).any(2) | ~near, np.ones((points, points), bool))
    assert ((abs(steps) <= 1).sum(2) <= 1).all()  # and none comes twice


def test_no_points_have_no_modes(cpu_path):
    got = mean_shift(cpu_path.array(np.zeros((0, 3))), 1.0)
    assert (tuple(got.labels.shape), tuple(got.modes.shape), got.n_iter) == ((0,), (0, 3), 0)


def test_equal_points_are_a_mode():
    got = mean_shift(np.full((50, 4), 7.25), 1.0)
    assert got.labels.tolist() == [0] * 50 and got.modes.tolist() == [[7.25] * 4]


X = np.zeros((6, 2))
NAN, WIDE = X.copy(), X.copy().astype("float32")
NAN[3, 1], WIDE[0, 0] = np.inf, 1e30


@pytest.mark.parametrize(
    ("error", "text", "x", "options"),
    [
        (TypeError, "x must be a NumPy, CuPy or torch array", [[1.0]], {}),
        (TypeError, "x must have dtype float32 or float64, got uint8", X.astype("uint8"), {}),
        (ValueError, r"x must have shape \[N, D\], got \(6,\)", X[:, 0], {}),
        (ValueError, r"x must have shape \[N, D\], got \(1, 6, 2\)", X[None], {}),
        (ValueError, r"x must have 1 to 32 features \(axis 1\), got 0", X[:, :0], {}),
        (ValueError, r"x must have 1 to 32 features \(axis 1\), got 33", np.zeros((2, 33)), {}),
        (ValueError, "x must be finite", NAN, {}),
        (ValueError, "x must be finite, with differences below 1e.18", WIDE, {}),
        (ValueError, "bandwidth must be finite and positive, got 0", X, {"bandwidth": 0.0}),
        (ValueError, "bandwidth must be finite and positive", X, {"bandwidth": float("inf")}),
        (TypeError, "bandwidth must be a number", X, {"bandwidth": "8"}),
        (ValueError, "bandwidth must be from 1e-150 to 1e.150", X, {"bandwidth": 1e-200}),
        (ValueError, "kernel must be one of 'flat', 'gaussian'", X, {"kernel": "epanechnikov"}),
        (ValueError, "max_iter must be from 1", X, {"max_iter": 0}),
        (TypeError, "max_iter must be an integer", X, {"max_iter": 3.0}),
        (ValueError, "tol must not be negative", X, {"tol": -1.0}),
        (TypeError, "tol must be a number", X, {"tol": None}),
    ],
)
def test_refusals(error, text, x, options):
    with pytest.raises(error, match=f"^mean_shift: {text}"):
        mean_shift(x, **{"bandwidth": 1.0, **options})


# ---- images -----------------------------------------------------------------------------------------------


def picture(height=9, width=12, channels=3, seed=0, dtype="float64"):
    """Two halves and noise."""
    rng = np.random.default_rng(seed)
    image = 0.5 * rng.standard_normal((height, width, channels))
    image[:, width // 2 :] += 6
    return image.astype(dtype)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("kernel", ["flat", "gaussian"])
def test_filter_is_the_colour_of_the_ends(cpu_path, kernel, dtype):
    image = picture(dtype=dtype)
    y, x = np.mgrid[:9, :12]
    points = np.dstack([image / 2.0, y / 4.0, x / 4.0]).reshape(-1, 5)
    ends = points.copy()
    for _ in range(200):
        q = ((ends[:, None] - points) ** 2).sum(2)
        g = (q <= 1).astype(float) if kernel == "flat" else np.where(q <= 18, np.exp(-q / 2), 0)
        ends = g @ points / g.sum(1, keepdims=True)
    got = mean_shift_filter(cpu_path.array(image), 4, 2, kernel=kernel, tol=1e-6)
    assert str(got.dtype).endswith(dtype)
    np.testing.assert_allclose(cpu_path.numpy(got), 2 * ends[:, :3].reshape(9, 12, 3), atol=1e-4)


@pytest.mark.parametrize("channels", [0, 1, 4])
def test_segments_of_flat_patches_are_the_patches(cpu_path, channels):
    patches = np.kron(np.array([[0, 1, 0], [2, 2, 1]]), np.ones((5, 6), int))
    image = patches * 50.0 if channels == 0 else np.repeat(patches[..., None] * 50.0, channels, 2)
    got = mean_shift_segmentation(cpu_path.array(image), 30, 5, 1)
    wanted = np.kron(np.array([[0, 1, 2], [3, 3, 4]]), np.ones((5, 6), int))  # connected, by their first pixels
    np.testing.assert_array_equal(cpu_path.numpy(got.labels), wanted)
    colors = cpu_path.numpy(got.colors)
    assert colors.shape == (5, *image.shape[2:])
    np.testing.assert_allclose(colors.reshape(5, -1)[:, 0], [0, 50, 0, 100, 50], atol=1e-9)


def test_small_segments_join_the_nearest_colour():
    image = np.zeros((6, 9))
    image[:, 3:6], image[:, 6:] = 100, 110
    image[2, 2], image[3, 7] = 70, 40
    fine, coarse = (mean_shift_segmentation(image, 9, 4, n) for n in (1, 2))
    assert fine.colors.tolist() == [0, 100, 110, 70, 40]
    assert [int(fine.labels[p]) for p in ((2, 2), (3, 7))] == [3, 4]
    np.testing.assert_array_equal(
        coarse.labels, np.repeat([[0, 0, 0, 1, 1, 1, 2, 2, 2]], 6, 0) + (np.indices((6, 9)) == [[[2]], [[2]]]).all(0)
    )
    np.testing.assert_allclose(coarse.colors, [0, (1800 + 70) / 19, (110 * 17 + 40) / 18])
    whole = mean_shift_segmentation(image, 9, 4, 1000)
    assert not whole.labels.any() and whole.colors.shape == (1,)


@settings(max_examples=15, deadline=None)
@given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 12), st.integers(0, 10**6))
def test_segments_are_connected_and_large_enough(height, width, min_size, seed):
    ndimage = pytest.importorskip("scipy.ndimage")
    image = np.random.default_rng(seed).integers(0, 3, (height, width)) * 10.0
    labels = mean_shift_segmentation(image, 3, 4, min_size).labels
    count = labels.max() + 1
    sizes = np.bincount(labels.ravel(), minlength=count)
    assert sizes.min() >= min_size or count == 1
    assert all(ndimage.label(labels == k)[1] == 1 for k in range(count))
    first = [int(np.flatnonzero(labels.ravel() == k)[0]) for k in range(count)]
    assert first == sorted(first)


@pytest.mark.parametrize("channels", [1, 3])
def test_a_batch_of_images_is_a_loop(cpu_path, channels):
    images = np.stack([picture(channels=channels, seed=s) * (1 + s) for s in range(3)])
    filtered = cpu_path.numpy(mean_shift_filter(cpu_path.array(images), 4, 2))
    found = mean_shift_segmentation(cpu_path.array(images), 4, 2, 3)
    alone = [mean_shift_segmentation(one, 4, 2, 3) for one in images]
    assert filtered.shape == images.shape and tuple(found.labels.shape) == (3, 9, 12)
    assert isinstance(found.colors, tuple) and found.n_iter == max(one.n_iter for one in alone)
    for b, one in enumerate(alone):
        np.testing.assert_array_equal(filtered[b], mean_shift_filter(images[b], 4, 2))
        np.testing.assert_array_equal(cpu_path.numpy(found.labels)[b], one.labels)
        np.testing.assert_array_equal(cpu_path.numpy(found.colors[b]), one.colors)
    none = mean_shift_segmentation(cpu_path.array(images[:0]), 4, 2)
    assert tuple(none.labels.shape) == (0, 9, 12) and none.colors == () and none.n_iter == 0


def test_too_few_steps_of_a_pixel_are_said():
    for function in (mean_shift_filter, mean_shift_segmentation):
        with pytest.warns(ConvergenceWarning, match=f"{function.__name__}: 1 steps were too few for") as said:
            function(picture(), 4, 2, max_iter=1)
        assert said[0].filename == __file__


def test_images_without_pixels():
    assert mean_shift_filter(np.zeros((0, 4, 3)), 3, 3).shape == (0, 4, 3)
    got = mean_shift_segmentation(np.zeros((5, 0)), 3, 3)
    assert (got.labels.shape, got.colors.shape, got.n_iter) == ((5, 0), (0,), 0)


IMAGE = np.zeros((4, 5, 3))


@pytest.mark.parametrize(
    ("error", "text", "args", "options"),
    [
        (TypeError, "image must be a NumPy", ([[0.0]], 3, 3), {}),
        (TypeError, "image must have dtype float32 or float64, got uint8", (IMAGE.astype("uint8"), 3, 3), {}),
        (ValueError, r"image must have shape \[H, W\], \[H, W, C\] or .* got \(4,\)", (IMAGE[:, 0, 0], 3, 3), {}),
        (ValueError, r"image must have 1 to 30 channels \(axis 3\), got 31", (np.zeros((2, 2, 2, 31)), 3, 3), {}),
        (ValueError, r"image must have 1 to 30 channels \(axis 2\), got 31", (np.zeros((2, 2, 31)), 3, 3), {}),
        (ValueError, r"image must have 1 to 30 channels \(axis 2\), got 0", (IMAGE[..., :0], 3, 3), {}),
        (ValueError, "spatial must be finite and positive, got 0", (IMAGE, 0, 3), {}),
        (TypeError, "spatial must be a number", (IMAGE, "3", 3), {}),
        (ValueError, "range must be finite and positive, got -1", (IMAGE, 3, -1), {}),
        (TypeError, "range must be a number", (IMAGE, 3, None), {}),
        (ValueError, "image / range must be finite", (IMAGE + np.nan, 3, 3), {}),
        (ValueError, "kernel must be one of", (IMAGE, 3, 3), {"kernel": "box"}),
        (ValueError, "max_iter must be from 1", (IMAGE, 3, 3), {"max_iter": 0}),
        (ValueError, "tol must not be negative", (IMAGE, 3, 3), {"tol": -1e-9}),
    ],
)
def test_refusals_of_images(error, text, args, options):
    for function in (mean_shift_filter, mean_shift_segmentation):
        with pytest.raises(error, match=f"^{function.__name__}: {text}"):
            function(*args, **options)


def test_refusals_of_min_size():
    with pytest.raises(ValueError, match="mean_shift_segmentation: min_size must be from 1"):
        mean_shift_segmentation(IMAGE, 3, 3, 0)
    with pytest.raises(TypeError, match="mean_shift_segmentation: min_size must be an integer"):
        mean_shift_segmentation(IMAGE, 3, 3, 2.5)
