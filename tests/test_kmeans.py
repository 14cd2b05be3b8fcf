"""k-means against a few lines of NumPy, SciPy, and stored results."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.cluster import vq

from cv3gpu import ConvergenceWarning
from cv3gpu.cluster import _cpu, _lloyd, _sampled, _tiles, assign, kmeans

DATA = Path(__file__).resolve().parents[2] / "shared" / "data" / "spectral"


def blobs(points=300, dims=3, count=4, seed=0, dtype="float64"):
    rng = np.random.default_rng(seed)
    return (6 * rng.integers(0, count, (points, 1)) + rng.standard_normal((points, dims))).astype(dtype)


def oracle(x, centres, weight=None, max_iter=1000):
    """Lloyd as it is written down, for clusters that do not become empty."""
    weight = np.ones(len(x)) if weight is None else weight
    for _ in range(max_iter):
        labels = ((x[:, None] - centres) ** 2).sum(2).argmin(1)
        means = np.stack([np.average(x[labels == k], axis=0, weights=weight[labels == k]) for k in range(len(centres))])
        if (means == centres).all():
            break
        centres = means
    return labels, centres, (weight * ((x - centres[labels]) ** 2).sum(1)).sum()


def check(path, got, wanted, dtype):
    labels, centres, inertia = wanted
    np.testing.assert_array_equal(path.numpy(got.labels), labels)
    np.testing.assert_allclose(path.numpy(got.centroids), centres, rtol=0, atol=1e-11 if dtype == "float64" else 1e-5)
    assert float(got.inertia) == pytest.approx(inertia, rel=1e-12 if dtype == "float64" else 1e-6)
    assert str(got.centroids.dtype).endswith(dtype) and str(got.labels.dtype).endswith("int64")


@pytest.mark.parametrize(("points", "dims", "count"), [(40, 1, 2), (300, 3, 7), (129, 20, 6), (100, 5, 40), (1, 1, 1)])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_lloyd_from_given_centres(cpu_path, points, dims, count, dtype):
    x = blobs(points, dims, 4, points, dtype)
    got = kmeans(cpu_path.array(x), count, init=cpu_path.array(x[:count]), tol=0.0)
    check(cpu_path, got, oracle(x.astype(float), x[:count].astype(float)), dtype)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_weights_are_repeated_points(cpu_path, dtype):
    x = blobs(200, 4, dtype=dtype)
    weight = np.random.default_rng(1).integers(0, 4, 200)
    there = x[weight > 0]
    init = there[there[:, 0].argsort()[:: len(there) // 4]][:4]
    got = kmeans(
        cpu_path.array(x), 4, init=cpu_path.array(init), sample_weight=cpu_path.array(weight.astype(dtype)), tol=0.0
    )
    wanted = oracle(np.repeat(x, weight, axis=0).astype(float), init.astype(float))
    np.testing.assert_array_equal(np.repeat(cpu_path.numpy(got.labels), weight), wanted[0])
    np.testing.assert_allclose(cpu_path.numpy(got.centroids), wanted[1], atol=1e-11 if dtype == "float64" else 1e-5)
    assert float(got.inertia) == pytest.approx(wanted[2], rel=1e-6)


def test_labels_are_those_of_scipy():
    x = blobs(500, 6)
    got = kmeans(x, 9, seed=3)
    codes, off = vq.vq(x, got.centroids)
    np.testing.assert_array_equal(got.labels, codes)
    assert float(got.inertia) == pytest.approx((off**2).sum())


@pytest.mark.skipif(not DATA.is_dir(), reason="needs ../shared/data/spectral")
@pytest.mark.parametrize("case", ["K01", "K02", "K03"])
def test_stored_case(case):
    color = pytest.importorskip("skimage.color")
    stored = np.load(DATA / f"kmeans_{case}.npz")
    height, width = stored["image"].shape[:2]
    y, x = np.mgrid[:height, :width] * float(stored["scale"])
    features = np.dstack([color.rgb2lab(stored["image"]), y, x]).reshape(-1, 5)
    count = len(stored["init"])
    got = kmeans(features, count, init=stored["init"], tol=0.0)
    np.testing.assert_allclose(got.centroids, stored["centers_lloyd"], rtol=0, atol=1e-8)
    np.testing.assert_array_equal(got.labels, stored["labels_lloyd"])
    assert (float(got.inertia), got.n_iter) == (
        pytest.approx(float(stored["inertia_lloyd"]), rel=1e-12),
        stored["n_iter"],
    )
    with pytest.warns(ConvergenceWarning, match="5 iterations did not reach tol 0") as said:
        few = kmeans(features, count, init=stored["init"], tol=0.0, max_iter=5)
    assert said[0].filename == __file__
    assert float(few.inertia) == pytest.approx(float(stored["inertia_5"]), rel=1e-12)
    best = kmeans(features, count, n_init=10)
    assert float(best.inertia) <= 1.005 * float(stored["inertia_best30"])


def test_stops_where_centres_hardly_move():
    x = blobs(2000, 2, 6)
    fixed = kmeans(x, 6, init=x[:6], tol=0.0)
    shifts, centres = [], x[:6]
    for _ in range(fixed.n_iter):
        _, after, _ = oracle(x, centres, max_iter=1)
        shifts.append(((after - centres) ** 2).sum())
        centres = after
    tol = 1.5 * shifts[2] / x.var(0).mean()
    wanted = next(n for n, shift in enumerate(shifts, 1) if shift <= tol * x.var(0).mean())
    assert kmeans(x, 6, init=x[:6], tol=tol).n_iter == wanted < fixed.n_iter


def test_ties_go_to_the_lowest_label(cpu_path):
    x = np.array([[-1.0], [0.0], [1.0], [2.0]])
    with pytest.warns(ConvergenceWarning):
        got = kmeans(cpu_path.array(x), 3, init=cpu_path.array([[1.0], [1.0], [-1.0]]), max_iter=1)
    assert cpu_path.numpy(got.labels)[2] == 0


def test_an_empty_cluster_gets_the_farthest_point(cpu_path):
    x = np.array([[0.0], [1.0], [2.0], [20.0], [9.0]])
    got = kmeans(cpu_path.array(x), 3, init=cpu_path.array([[1.0], [500.0], [600.0]]), tol=0.0)
    assert sorted(cpu_path.numpy(got.centroids).ravel()) == [1.0, 9.0, 20.0]
    weight = cpu_path.array(np.array([1.0, 1, 1, 0, 1]))
    got = kmeans(cpu_path.array(x), 2, init=cpu_path.array([[1.0], [500.0]]), sample_weight=weight, tol=0.0)
    assert sorted(cpu_path.numpy(got.centroids).ravel()) == [1.0, 9.0]


def test_more_clusters_than_different_points(cpu_path):
    x = np.repeat([[1.0, 2.0], [5.0, 5.0]], 10, axis=0)
    got = kmeans(cpu_path.array(x), 4)
    assert float(got.inertia) == 0
    assert set(map(tuple, cpu_path.numpy(got.centroids))) == {(1.0, 2.0), (5.0, 5.0)}


def test_a_relocated_mass_leaves_nothing_behind():
    centres, x = np.array([[0.0], [9.0], [9.0]]), np.array([[3.0], [4.0]])
    sums, mass = np.array([[0.1 * 3 + 0.2 * 4], [0.0], [0.0]]), np.array([0.1 + 0.2, 0, 0])
    moved = _lloyd.means(
        centres, sums, mass, lambda count: (x[::-1], np.zeros(2, int), np.array([0.2, 0.1]), np.array([16.0, 9.0]))
    )
    np.testing.assert_allclose(moved, [[0.0], [4.0], [3.0]])


@pytest.mark.parametrize("init", ["k-means++", "random"])
def test_seeds_are_points_and_decide(init):
    x = blobs(400, 2, 5)
    with pytest.warns(ConvergenceWarning):
        one = [kmeans(x, 5, init=init, seed=s, max_iter=1) for s in (0, 0, 1)]
    np.testing.assert_array_equal(one[0].centroids, one[1].centroids)
    assert (one[0].centroids != one[2].centroids).any()
    weight = np.zeros(400)
    weight[[7, 90, 200]] = 1, 2, 3
    got = kmeans(x, 3, init=init, sample_weight=weight, tol=0.0)
    assert {tuple(c) for c in got.centroids} == {tuple(c) for c in x[[7, 90, 200]]}


def test_plus_plus_beats_random_starts_on_separate_blobs():
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.standard_normal((40, 2)) + 100 * k for k in rng.standard_normal((12, 2))])
    inertia = {
        init: [float(kmeans(x, 12, init=init, seed=s).inertia) for s in range(6)] for init in ("k-means++", "random")
    }
    assert np.median(inertia["k-means++"]) < 0.7 * np.median(inertia["random"])


def test_draws_follow_square_distances():
    """The second centre of one trial, against its probabilities."""
    x = np.array([[0.0], [1.0], [3.0], [6.0]])
    data = _cpu.Points(x, None)
    u = (np.arange(4000) + 0.5) / 4000
    second = [float(data.seeds(None, np.array([[0.0], [v]]))[1, 0]) for v in u]
    share = [second.count(v) / 4000 for v in (0.0, 1.0, 3.0, 6.0)]
    np.testing.assert_allclose(share, np.array([0, 1, 9, 36]) / 46, atol=1e-3)


# ---- samples of the points ----------------------------------------------------------------------------------


@pytest.mark.parametrize("weighted", [False, True])
def test_points_are_drawn_by_their_distances(weighted):
    x = blobs(40_000, 2, 4)
    weight = np.random.default_rng(3).integers(0, 3, 40_000).astype(float) if weighted else None
    data = _cpu.Points(x, weight)
    closest = data.distances()
    data.labelled(x[:3], closest)
    share = closest * (1 if weight is None else weight)
    scale = 2000 / data.total(closest)
    drawn = data.sampled(closest, scale, 5)
    p = np.minimum(1, scale * share)
    assert len(drawn) == pytest.approx(p.sum(), abs=5 * np.sqrt(p.sum()))
    assert (share[drawn] > 0).all() and (np.diff(drawn) > 0).all()
    mean = (p * share).sum() / p.sum()
    assert share[drawn].mean() == pytest.approx(mean, abs=5 * share[drawn].std() / np.sqrt(len(drawn)))
    assert not np.array_equal(drawn, data.sampled(closest, scale, 6))
    np.testing.assert_array_equal(drawn, data.sampled(closest, scale, 5))


def test_compiled_random_numbers_are_what_python_says():
    from cv3gpu._njit import compiled
    from cv3gpu.cluster import _loops

    closest, weight = np.random.default_rng(0).random((2, 300))
    chosen = np.empty((2, 300), np.int64)
    with np.errstate(over="ignore"):
        counts = [run(closest, weight, 1.5, 2**62 + 9, out) for run, out in
                  zip((compiled(*_loops.SAMPLE), _loops.SAMPLE[-1]), chosen, strict=True)]  # fmt: skip
    assert counts[0] == counts[1] and 50 < counts[0] < 200
    np.testing.assert_array_equal(chosen[0, : counts[0]], chosen[1, : counts[0]])
    assert compiled(*_loops.SAMPLE).refused == {}


def test_oversampled_starts_are_as_good_as_those_of_plus_plus():
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.standard_normal((200, 2)) + 100 * k for k in rng.standard_normal((12, 2))])
    inertia = {
        init: np.median([float(kmeans(x, 12, init=init, seed=s, tol=1.0).inertia) for s in range(7)])
        for init in ("k-means++", "k-means||", "random")
    }
    assert inertia["k-means||"] < 1.1 * inertia["k-means++"] < 0.7 * inertia["random"]
    one, other = (kmeans(x, 12, init="k-means||", seed=3) for _ in range(2))
    np.testing.assert_array_equal(one.centroids, other.centroids)


def test_oversampling_of_hardly_any_points(cpu_path):
    x = np.repeat([[1.0, 2.0], [5.0, 5.0]], 10, axis=0)
    got = kmeans(cpu_path.array(x), 4, init="k-means||")
    assert float(got.inertia) == 0
    weight = np.zeros(400)
    weight[[7, 90, 200]] = 1, 2, 3
    x = blobs(400, 2, 5)
    got = kmeans(cpu_path.array(x), 3, init="k-means||", sample_weight=cpu_path.array(weight), tol=0.0)
    assert {tuple(c) for c in cpu_path.numpy(got.centroids)} == {tuple(c) for c in x[[7, 90, 200]]}
    one = kmeans(cpu_path.array(x), 1, init="k-means||")
    np.testing.assert_allclose(cpu_path.numpy(one.centroids)[0], x.mean(0))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("dims", "weighted"), [(3, False), (20, True)])
def test_batches_are_those_of_sculley(cpu_path, dims, weighted, dtype):
    """Each point of a batch in turn moves its centre, by a rate of one over the points that it has had."""
    x = blobs(300, dims, 4, dtype=dtype)
    weight = np.random.default_rng(2).integers(0, 3, 300).astype(dtype) if weighted else np.ones(300, dtype)
    centres, mass, rng = x[:5].astype(float), np.zeros(5), np.random.default_rng(11)
    for _ in range(6):
        batch = rng.integers(300, size=40)
        nearest = ((x[batch, None].astype(float) - centres) ** 2).sum(2).argmin(1)
        for i, k in zip(batch, nearest, strict=True):
            if weight[i] > 0:
                mass[k] += weight[i]
                centres[k] += weight[i] / mass[k] * (x[i] - centres[k])
    given = cpu_path.array(weight) if weighted else None
    got = kmeans(cpu_path.array(x), 5, init=cpu_path.array(x[:5]), batch_size=40, max_iter=6, tol=0.0, seed=11,
                 sample_weight=given)  # fmt: skip
    square = ((x[:, None].astype(float) - centres) ** 2).sum(2)
    np.testing.assert_allclose(cpu_path.numpy(got.centroids), centres, atol=1e-11 if dtype == "float64" else 1e-5)
    np.testing.assert_array_equal(cpu_path.numpy(got.labels), square.argmin(1))
    assert float(got.inertia) == pytest.approx((weight * square.min(1)).sum(), rel=1e-6)
    assert got.n_iter == 6


def test_batches_stop_where_centres_hardly_move_on_average():
    x = blobs(3000, 2, 6)
    got = kmeans(x, 6, batch_size=256, tol=1e-3, seed=1)
    assert 3 < got.n_iter < 300
    with pytest.warns(ConvergenceWarning, match="3 iterations did not reach tol 0.001"):
        kmeans(x, 6, batch_size=256, tol=1e-3, seed=1, max_iter=3)
    whole = kmeans(x, 6, n_init=5)
    assert float(whole.inertia) <= float(kmeans(x, 6, batch_size=256, n_init=5).inertia) <= 1.1 * float(whole.inertia)
    one, other = (kmeans(x, 6, batch_size=100, seed=4) for _ in range(2))
    np.testing.assert_array_equal(one.centroids, other.centroids)


def test_batches_begin_among_some_points_by_weight():
    x = blobs(5000, 2)
    data, weight = _sampled.start(_cpu.Points(x, None), None, 100, 8, np.random.default_rng(0))
    assert data.x.shape == (300, 2) and weight is None
    all_of_them, _ = _sampled.start(_cpu.Points(x[:200], None), None, 100, 8, np.random.default_rng(0))
    assert len(all_of_them.x) == 200
    heavy = np.zeros(5000)
    heavy[:70] = 1
    data, weight = _sampled.start(_cpu.Points(x, heavy), heavy, 10, 8, np.random.default_rng(0))
    assert len(data.x) == 30 and (weight == 1).all()
    got = kmeans(x, 8, init="k-means||", batch_size=64, seed=2)
    assert float(got.inertia) < 1.5 * float(kmeans(x, 8).inertia)


# ---- points and centroids -----------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("points", "dims", "count"), [(200, 3, 7), (150, 30, 5), (1, 1, 1)])
def test_assigned_labels_are_those_of_scipy(cpu_path, points, dims, count, dtype):
    x = blobs(points, dims, dtype=dtype)
    centres = x[:count] + np.asarray(0.5, dtype)
    labels, off = vq.vq(x.astype(float), centres.astype(float))
    got = assign(cpu_path.array(x), cpu_path.array(centres))
    np.testing.assert_array_equal(cpu_path.numpy(got.labels), labels)
    assert float(got.inertia) == pytest.approx((off**2).sum(), rel=1e-12)
    weight = np.random.default_rng(0).random(points).astype(dtype)
    heavy = assign(cpu_path.array(x), cpu_path.array(centres), cpu_path.array(weight))
    assert float(heavy.inertia) == pytest.approx((weight * off**2).sum(), rel=1e-12)
    assert str(got.labels.dtype).endswith("int64") and str(got.inertia.dtype).endswith("float64")


def test_assigning_of_a_batch_and_of_a_result(cpu_path):
    x = np.stack([blobs(90, 3, seed=s) for s in range(2)])
    found = kmeans(cpu_path.array(x), 4)
    again = assign(cpu_path.array(x), found.centroids)
    np.testing.assert_array_equal(cpu_path.numpy(again.labels), cpu_path.numpy(found.labels))
    np.testing.assert_allclose(cpu_path.numpy(again.inertia), cpu_path.numpy(found.inertia), rtol=1e-12)
    one = assign(cpu_path.array(x), cpu_path.array(x[1, :4]))
    np.testing.assert_array_equal(
        cpu_path.numpy(one.labels)[0], cpu_path.numpy(assign(cpu_path.array(x[0]), cpu_path.array(x[1, :4])).labels)
    )
    tied = assign(cpu_path.array(np.array([[0.0]])), cpu_path.array(np.array([[3.0], [1.0], [-1.0]])))
    assert cpu_path.numpy(tied.labels).tolist() == [1]


def test_no_points_have_no_labels():
    got = assign(np.zeros((2, 0, 3)), np.zeros((4, 3)))
    assert got.labels.shape == (2, 0) and got.inertia.tolist() == [0, 0]
    got = assign(np.zeros((0, 5, 3)), np.zeros((0, 4, 3)))
    assert got.labels.shape == (0, 5) and got.inertia.shape == (0,)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("batch", [1, 3, 9])
def test_a_batch_is_a_loop(cpu_path, batch, weighted):
    x = np.stack([blobs(120, 3, seed=s) for s in range(batch)]).reshape(1, batch, 120, 3)
    weight = np.random.default_rng(5).random((1, batch, 120)) if weighted else None
    got = kmeans(cpu_path.array(x), 4, sample_weight=None if weight is None else cpu_path.array(weight))
    assert tuple(got.labels.shape) == (1, batch, 120) and tuple(got.inertia.shape) == (1, batch)
    alone = [kmeans(x[0, b], 4, sample_weight=None if weight is None else weight[0, b]) for b in range(batch)]
    for b, one in enumerate(alone):
        np.testing.assert_array_equal(cpu_path.numpy(got.labels)[0, b], one.labels)
        np.testing.assert_array_equal(cpu_path.numpy(got.centroids)[0, b], one.centroids)
    assert got.n_iter == max(one.n_iter for one in alone)
    starts = x[0, :, :4]
    each = kmeans(cpu_path.array(x[0]), 4, init=cpu_path.array(starts))
    np.testing.assert_array_equal(cpu_path.numpy(each.labels)[-1], kmeans(x[0, -1], 4, init=starts[-1]).labels)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_threads_change_nothing(monkeypatch, dtype):
    x = blobs(30_000, 3, 9, dtype=dtype)
    found = []
    for cores in (1, 2, 5):
        monkeypatch.setattr(_cpu, "cores", lambda cores=cores: cores)
        found.append(kmeans(x, 9, seed=2))
    for other in found[1:]:
        for a, b in zip(found[0], other, strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_operations_on_tiles_are_what_they_say(dtype):
    """The compiled operations against their own Python."""
    from cv3gpu._njit import compiled
    from cv3gpu.cluster import _loops

    x = blobs(301, 6, dtype=dtype)
    weight = np.random.default_rng(0).random(301).astype(dtype)
    data, plain = _cpu.Points(x, weight), _cpu.Points(x, weight)
    assert data.assign(x[:9].astype(float))[0] == 301
    packed, bias = _tiles.packed(x[:9], dtype)
    per = _tiles.tile_points(dtype)
    best, near = np.empty(per, dtype), np.empty(per, np.int64)
    for t in range(len(plain.tiles)):
        _tiles.nearest(plain.tiles[t], packed, bias, best, near)
        np.testing.assert_array_equal(near[: 301 - t * per], data.labels[t * per : (t + 1) * per])
    packed, bias = _tiles.packed(x[:9], dtype, halves=True)
    _tiles.nearest_expanded(plain.tiles[0], packed, bias, best, near)
    np.testing.assert_array_equal(near, data.labels[:per])
    sums, mass, wanted = np.zeros((9, 8)), np.zeros(9), np.zeros((9, 6))
    _tiles.add_rows(x, 0, near, sums, mass, 0)
    np.add.at(wanted, near, x[:per])
    np.testing.assert_allclose(sums[:, :6], wanted, rtol=1e-6)
    assert mass.sum() == per
    assert compiled(*_loops.ASSIGN).refused == {}


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 40), st.integers(1, 4), st.integers(0, 10**6), st.data())
def test_every_point_is_with_its_nearest_centre(points, dims, seed, data):
    count = data.draw(st.integers(1, points))
    x = np.random.default_rng(seed).integers(-3, 4, (points, dims)).astype(float)
    got = kmeans(x, count, seed=seed, tol=0.0)
    square = ((x[:, None] - got.centroids) ** 2).sum(2)
    np.testing.assert_allclose(square[np.arange(points), got.labels], square.min(1), atol=1e-12)
    for k in np.unique(got.labels):
        np.testing.assert_allclose(got.centroids[k], x[got.labels == k].mean(0), atol=1e-12)
    assert float(got.inertia) == pytest.approx(square.min(1).sum(), abs=1e-12)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10**6), st.floats(-100, 100), st.sampled_from([0.25, 1.0, 8.0]))
def test_moving_and_scaling_points_moves_and_scales_centres(seed, offset, factor):
    x = blobs(60, 2, seed=seed)
    one = kmeans(x, 3, init=x[:3], tol=0.0)
    other = kmeans(x * factor + offset, 3, init=x[:3] * factor + offset, tol=0.0)
    np.testing.assert_allclose(other.centroids, one.centroids * factor + offset, atol=1e-9)
    assert float(other.inertia) == pytest.approx(float(one.inertia) * factor**2, rel=1e-9)


def test_a_common_offset_costs_no_accuracy():
    """Products are taken of points less one of them."""
    x = (blobs(150, 20, 3) + 1e4).astype("float32")
    got = kmeans(x, 4, init=x[:4], tol=0.0)
    labels, _, inertia = oracle(x.astype(float), x[:4].astype(float))
    np.testing.assert_array_equal(got.labels, labels)
    assert float(got.inertia) == pytest.approx(inertia, rel=1e-4)


def test_input_is_not_changed_and_may_be_strided_or_read_only():
    x = blobs(100, 4)
    wide = np.zeros((200, 8))
    wide[::2, ::2] = x
    wide.flags.writeable = False
    kept = x.copy()
    got, other = kmeans(x, 3), kmeans(wide[::2, ::2], 3)
    np.testing.assert_array_equal(x, kept)
    np.testing.assert_array_equal(got.centroids, other.centroids)


def test_no_problems_give_no_results():
    got = kmeans(np.zeros((0, 5, 2)), 2)
    assert got.labels.shape == (0, 5) and got.centroids.shape == (0, 2, 2) and got.inertia.shape == (0,)
    assert got.n_iter == 0


X = np.zeros((6, 2))
NAN, FAR = X.copy(), X.copy().astype("float32")
NAN[3, 1], FAR[0, 0] = np.nan, 1e30


@pytest.mark.parametrize(
    ("error", "text", "args", "options"),
    [
        (TypeError, "x must be a NumPy, CuPy or torch array", ([[1.0]], 1), {}),
        (TypeError, "x must have dtype float32 or float64, got int64", (X.astype(int), 2), {}),
        (ValueError, r"x must have shape \[..., N, D\]", (X[0], 2), {}),
        (ValueError, r"x must have shape \[..., N, D\] with D at least 1", (X[:, :0], 2), {}),
        (ValueError, r"n_clusters must be at most the number of points \(6\), got 7", (X, 7), {}),
        (ValueError, "n_clusters must be from 1", (X, 0), {}),
        (TypeError, "n_clusters must be an integer", (X, 2.0), {}),
        (ValueError, "init must be one of", (X, 2), {"init": "farthest"}),
        (TypeError, "init must be a NumPy", (X, 2), {"init": [[0.0, 0.0], [1.0, 1.0]]}),
        (TypeError, "init must have the dtype of x", (X, 2), {"init": X[:2].astype("float32")}),
        (ValueError, r"init must have shape \[2, 2\]", (X, 2), {"init": X[:3]}),
        (ValueError, "init must be finite", (X, 2), {"init": NAN[2:4]}),
        (ValueError, "n_init must be 1 where init is an array", (X, 2), {"init": X[:2], "n_init": 3}),
        (ValueError, "n_init must be from 1", (X, 2), {"n_init": 0}),
        (ValueError, "max_iter must be from 1", (X, 2), {"max_iter": 0}),
        (ValueError, "tol must not be negative", (X, 2), {"tol": -1e-3}),
        (ValueError, "tol must be finite", (X, 2), {"tol": float("nan")}),
        (ValueError, "seed must be from 0", (X, 2), {"seed": -1}),
        (ValueError, "x must be finite", (NAN, 2), {}),
        (ValueError, "x must be finite, with mean squares of differences below 1e.36", (FAR, 2), {}),
        (TypeError, "sample_weight must have the dtype of x", (X, 2), {"sample_weight": np.ones(6, int)}),
        (ValueError, r"sample_weight must have shape \[6\]", (X, 2), {"sample_weight": np.ones(5)}),
        (ValueError, "sample_weight must be finite, not negative", (X, 2), {"sample_weight": -np.ones(6)}),
        (
            ValueError,
            "sample_weight must be finite, not negative and not all 0",
            (X, 2),
            {"sample_weight": np.zeros(6)},
        ),
        (ValueError, "batch_size must be from 1", (X, 2), {"batch_size": 0}),
        (TypeError, "batch_size must be an integer", (X, 2), {"batch_size": 2.0}),
        (TypeError, "batch_size must be an integer", (X, 2), {"batch_size": True}),
    ],
)
def test_refusals(error, text, args, options):
    with pytest.raises(error, match=f"^kmeans: {text}"):
        kmeans(*args, **options)


@pytest.mark.parametrize(
    ("error", "text", "args"),
    [
        (TypeError, "x must be a NumPy, CuPy or torch array", ([[1.0]], X)),
        (TypeError, "centroids must be a NumPy, CuPy or torch array", (X, [[1.0, 1.0]])),
        (TypeError, "sample_weight must be a NumPy, CuPy or torch array", (X, X, [1.0] * 6)),
        (TypeError, "x must have dtype float32 or float64, got int64", (X.astype(int), X)),
        (TypeError, r"centroids must have the dtype of x \(float64\), got float32", (X, X.astype("float32"))),
        (ValueError, r"x must have shape \[..., N, D\]", (X[0], X)),
        (ValueError, r"x must have shape \[..., N, D\] with D at least 1", (X[:, :0], X[:, :0])),
        (ValueError, r"centroids must have shape \[K, 2\], got \(6, 1\)", (X, X[:, :1])),
        (ValueError, r"centroids must have shape \[K, 2\], got \(1, 6, 2\)", (X, X[None])),
        (
            ValueError,
            r"centroids must have shape \[3, K, 2\], got \(2, 6, 2\)",
            (np.zeros((3, 6, 2)), np.zeros((2, 6, 2))),
        ),
        (ValueError, r"centroids must hold at least one, got \(0, 2\)", (X, X[:0])),
        (ValueError, "centroids must be finite", (X, NAN)),
        (ValueError, "x must be finite, with mean squares", (NAN, X)),
        (ValueError, r"sample_weight must have shape \[6\], got \(5,\)", (X, X, np.ones(5))),
        (TypeError, "sample_weight must have the dtype of x", (X, X, np.ones(6, "float32"))),
        (ValueError, "sample_weight must be finite and not negative", (X, X, -np.ones(6))),
    ],
)
def test_refusals_of_assign(error, text, args):
    with pytest.raises(error, match=f"^assign: {text}"):
        assign(*args)
