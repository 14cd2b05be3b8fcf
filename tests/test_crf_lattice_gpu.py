"""The kernels of the permutohedral lattice and of the mean-field update against a lattice in a dictionary."""

from __future__ import annotations

import math

import numpy as np
import pytest

from cv3gpu import _array
from cv3gpu.crf import _gpu

from .hostrun import HostBackend
from .tolerance import TABLE, assert_close


class Oracle:
    """A permutohedral lattice as it is written down: a dictionary of (image, key), dense rows.

    Coordinates are of the features' dtype and rounded to even, as pydensecrf's; all else is float64.
    """

    def __init__(self, features, blurs=1, dilate=False):
        images, d, points = features.shape
        s = (d + 1) * math.sqrt(1 / 6 + blurs / 2)
        self.d, self.blurs, self.number = d, blurs, {}
        self.alpha = 1 / (1 + 2.0**-d)
        if blurs != 1 or dilate:
            self.alpha = (2 * math.pi) ** (d / 2) / ((d + 1) ** (d - 0.5) / s**d * 2.0 ** ((d + 1) * blurs))
        self.offset, self.weight = np.zeros((images * points, d + 1), int), np.zeros((images * points, d + 1))
        for p in range(images * points):
            keys, self.weight[p] = self.locate(features[p // points, :, p % points], s)
            for r, key in enumerate(keys):
                self.offset[p, r] = self.number.setdefault((p // points, *key), len(self.number))
        for image in range(images) if points % 4 and blurs == 1 and not dilate else []:  # pydensecrf's padding
            for key in self.locate(np.zeros(d, features.dtype), s)[0]:
                self.number.setdefault((image, *key), len(self.number))
        for image, *key in list(self.number) if dilate else []:
            for axis in range(d + 1):
                for sign in (-1, 1):
                    self.number.setdefault((image, *self.step(key, axis, sign)), len(self.number))

    def locate(self, f, s):
        """Keys of the vertices around a point, and its barycentric coordinates."""
        d, real = self.d, f.dtype.type
        e, total = np.zeros(d + 1, real), real(0)
        for j in range(d, 0, -1):
            x = f[j - 1] * real(float(real(s)) / math.sqrt(j * (j + 1)))
            e[j], total = total - real(j) * x, total + x
        e[0] = total
        near = np.rint(e * real(1.0 / (d + 1))).astype(int)
        rem, rank = near * (d + 1), np.full(d + 1, near.sum())
        for i in range(d + 1):
            for j in range(i + 1, d + 1):
                rank[i if e[i] - real(rem[i]) < e[j] - real(rem[j]) else j] += 1
        turn = (d + 1) * ((rank < 0).astype(int) - (rank > d))
        rem, rank, b = rem + turn, rank + turn, np.zeros(d + 2)
        for j in range(d + 1):
            v = (e[j] - real(rem[j])) * real(1.0 / (d + 1))
            b[d - rank[j]] += v
            b[d - rank[j] + 1] -= v
        b[0] += 1 + b[d + 1]
        keys = [tuple(rem[:d] + np.where(rank[:d] <= d - r, r, r - (d + 1))) for r in range(d + 1)]
        return keys, b[: d + 1]

    def step(self, key, axis, sign):
        return tuple(k - sign * self.d if j == axis else k + sign for j, k in enumerate(key))

    def spread(self, values, scale=None, transposed=False):
        z = np.zeros((len(self.number), values.shape[1]))
        values = values.astype(float) if scale is None else values * scale[:, None].astype(float)
        for r in range(self.d + 1):
            np.add.at(z, self.offset[:, r], self.weight[:, r : r + 1] * values)
        axes = range(self.d + 1)
        for axis in list(reversed(axes) if transposed else axes) * self.blurs:
            old = np.vstack([z, np.zeros((1, z.shape[1]))])
            for (image, *key), v in self.number.items():
                around = [self.number.get((image, *self.step(key, axis, sign)), -1) for sign in (-1, 1)]
                z[v] = old[v] + 0.5 * old[around].sum(0)
        return z

    def gather(self, z, scale=None):
        y = self.alpha * np.einsum("pr,prw->pw", self.weight, z[self.offset])
        return y if scale is None else y * scale[:, None]


def random_features(rng, images, d, points, dtype="float32", spread=1.5):
    return (rng.standard_normal((images, d, points)) * spread).astype(dtype)


def close(path, got, wanted, dtype, terms, size):
    assert_close(path.numpy(got), wanted, dtype, terms, size)


def check_filter(path, features, width, blurs=1, dilate=False, scaled=True, rng=None):
    """Spread, its transpose and gather of random values, against the oracle."""
    rng = rng or np.random.default_rng(0)
    dtype, total = str(features.dtype), features.shape[0] * features.shape[2]
    oracle = Oracle(features, blurs, dilate)
    lattice = _gpu.Lattice(path.array(features), blurs, dilate)
    assert (lattice.n_vertices, lattice.entries) == (len(oracle.number), features.shape[1] + 1)
    assert lattice.alpha == pytest.approx(oracle.alpha, rel=1e-14)
    values = rng.standard_normal((total, width)).astype(dtype)
    scale = rng.random(total).astype(dtype) if scaled else None
    given = path.array(scale) if scaled else None
    terms = total + 3 * blurs * (oracle.d + 1)
    for transposed in (False, True):
        z = lattice.spread(path.array(values), given, transposed)
        wanted = oracle.spread(values, scale, transposed)
        close(path, z, wanted, dtype, terms, oracle.spread(abs(values), scale, transposed))
    y = lattice.gather(path.array(wanted.astype(dtype)), given)
    size = oracle.gather(abs(wanted), scale)
    close(path, y, oracle.gather(wanted.astype(dtype).astype(float), scale), dtype, oracle.d + 1, size)


@pytest.mark.parametrize("d", range(1, 9))
def test_filter_in_every_dimension(kernel_path, d):
    rng = np.random.default_rng(d)
    check_filter(kernel_path, random_features(rng, 2, d, 65), (4, 8, 24)[d % 3], scaled=d % 2 == 0, rng=rng)


@pytest.mark.parametrize("images", [1, 2, 3])
@pytest.mark.parametrize("points", [0, 1, 2, 300])
def test_filter_of_several_images(kernel_path, images, points):
    check_filter(kernel_path, random_features(np.random.default_rng(points), images, 3, points, spread=0.7), 8)


@pytest.mark.parametrize("dilate", [False, True])
@pytest.mark.parametrize("blurs", [1, 2])
@pytest.mark.parametrize(("d", "dtype"), [(2, "float32"), (3, "float64"), (5, "float32")])
def test_filter_with_more_blurs_and_vertices(kernel_path, d, dtype, blurs, dilate):
    check_filter(kernel_path, random_features(np.random.default_rng(7), 2, d, 30, dtype), 8, blurs, dilate)


@pytest.mark.parametrize(("width", "dtype"), [(24, "float64"), (152, "float32"), (256, "float32"), (1024, "float32")])
def test_filter_of_many_channels(kernel_path, width, dtype):
    check_filter(kernel_path, random_features(np.random.default_rng(8), 1, 2, 40, dtype, 0.6), width)


@pytest.mark.parametrize("d", [1, 2, 5, 8])
def test_points_on_borders_of_simplices(kernel_path, d):
    """Zeros, equal coordinates and whole numbers: what is equal must fall to the same side."""
    rng = np.random.default_rng(d)
    grid = rng.integers(-2, 3, (1, d, 60)).astype("float32")
    grid[:, :, :10] = 0
    grid[:, :, 10:20] = grid[:, :1, 10:20]
    check_filter(kernel_path, grid, 4)


def test_points_midway_between_vertices(kernel_path):
    """Coordinates that are exactly half way are not rounded to even."""
    scale = 2 * math.sqrt(2 / 3) / math.sqrt(2)
    near = [np.nextafter(k / scale, sign * np.inf) for k in range(-9, 10, 2) for sign in (-1, 1)] + [
        k / scale for k in range(-9, 10, 2)
    ]
    exact = [f for f in near if f * scale in range(-9, 10, 2)]
    assert len(exact) >= 6
    check_filter(kernel_path, np.array(exact)[None, None], 4)


def test_points_on_a_pixel_grid(kernel_path):
    y, x = np.mgrid[:14, :15]
    check_filter(kernel_path, np.stack([x.ravel(), y.ravel()]).astype("float32")[None] / np.float32(3), 8)


def test_many_points_in_a_simplex(kernel_path):
    """Runs of points that are cut into chunks, one of them ending at a multiple of 64, with single points between."""
    rng = np.random.default_rng(3)
    features = np.zeros((1, 3, 420), "float32")
    features[:, :, rng.permutation(420)[:100]] = 5
    features[0, :, 128:150] = rng.standard_normal((3, 22)) * 4
    check_filter(kernel_path, features, 24)
    features = np.zeros((2, 2, 193), "float32")
    features[0, 0, 128:] = 7
    check_filter(kernel_path, features, 4)


@pytest.mark.parametrize("mask", [0, 3, 3 | 3 << 32, 2**32 - 1])
def test_colliding_hashes_change_nothing(kernel_path, monkeypatch, mask):
    rng = np.random.default_rng(4)
    features, values = random_features(rng, 2, 3, 50), rng.standard_normal((100, 4)).astype("float32")

    def filtered():
        lattice = _gpu.Lattice(kernel_path.array(features), 1, True)
        return kernel_path.numpy(lattice.spread(kernel_path.array(values)))

    wanted = filtered()
    monkeypatch.setattr(_gpu, "_HASH_MASK", mask)
    np.testing.assert_array_equal(filtered(), wanted)


@pytest.mark.parametrize("d", [2, 5])
def test_axes_by_pairs_are_the_same(kernel_path, monkeypatch, d):
    rng = np.random.default_rng(5)
    features, values = random_features(rng, 1, d, 80, spread=0.5), rng.standard_normal((80, 8)).astype("float32")
    lattice = _gpu.Lattice(kernel_path.array(features))
    pairs = [kernel_path.numpy(lattice.spread(kernel_path.array(values), None, t)) for t in (False, True)]
    monkeypatch.setattr(_gpu, "_PAIR_BYTES", 0)
    singles = [kernel_path.numpy(lattice.spread(kernel_path.array(values), None, t)) for t in (False, True)]
    np.testing.assert_array_equal(pairs, singles)


@pytest.mark.parametrize(("blurs", "dilate"), [(1, False), (2, True)])
def test_transpose(kernel_path, blurs, dilate):
    rng = np.random.default_rng(6)
    features = random_features(rng, 2, 4, 40, "float64", 0.8)
    lattice = _gpu.Lattice(kernel_path.array(features), blurs, dilate)
    x, y = (rng.standard_normal((80, 8)) for _ in range(2))
    a, b = rng.random((2, 80))
    given = [kernel_path.array(v) for v in (x, y, a, b)]
    there = kernel_path.numpy(lattice.gather(lattice.spread(given[0], given[2]), given[3]))
    back = kernel_path.numpy(lattice.gather(lattice.spread(given[1], given[3], transposed=True), given[2]))
    assert (there * y).sum() == pytest.approx((back * x).sum(), rel=1e-12)


def test_twice_the_same_bits(kernel_path):
    rng = np.random.default_rng(9)
    features = np.round(random_features(rng, 2, 3, 300, spread=0.6) * 4) / 4
    values, scale = rng.standard_normal((600, 24)).astype("float32"), rng.random(600).astype("float32")
    runs = [
        kernel_path.numpy(lattice.spread(kernel_path.array(values), kernel_path.array(scale)))
        for lattice in (_gpu.Lattice(kernel_path.array(features)) for _ in range(2))
        for _ in range(2)
    ]
    for run in runs[1:]:
        np.testing.assert_array_equal(run, runs[0])


def test_what_lay_in_memory_does_not_matter(kernel_path, monkeypatch):
    rng = np.random.default_rng(13)
    features, values = random_features(rng, 2, 3, 150, spread=0.7), rng.standard_normal((300, 8)).astype("float32")
    empty = _array.empty

    def dirty(like, shape, dtype=None):
        out = empty(like, shape, dtype)
        out[...] = 11
        return out

    def filtered(dilate):
        lattice, x = _gpu.Lattice(kernel_path.array(features), 1, dilate), kernel_path.array(values)
        z = lattice.spread(x)
        return [kernel_path.numpy(r) for r in (z, lattice.gather(z), lattice.feature_vjp(z, z, x, x))]

    wanted = [filtered(dilate) for dilate in (False, True)]
    monkeypatch.setattr(_array, "empty", dirty)
    for dilate in (False, True):
        for got, want in zip(filtered(dilate), wanted[dilate], strict=True):
            np.testing.assert_array_equal(got, want)


def test_any_schedule_gives_the_same_bits():
    rng = np.random.default_rng(10)
    features = np.round(random_features(rng, 2, 3, 200, spread=0.6) * 4) / 4
    values, grad = rng.standard_normal((2, 400, 8)).astype("float32")
    found = []
    for order, seed, preempt in (
        ("forward", 1, 0),
        ("reverse", 1, 0),
        *(("random", k, 9 * (k % 2)) for k in (1, 2, 3, 4)),
    ):
        token = _array.host_backend.set(HostBackend(mode="check", order=order, seed=seed, preempt=preempt))
        try:
            lattice = _gpu.Lattice(features, 1, True)
            z, z_t = lattice.spread(values), lattice.spread(grad, transposed=True)
            mu = np.full(8, -2, "float32")
            q = _gpu.update(values, [_gpu.Message(z, lattice, None, mu)], 7)
            found.append([z, z_t, lattice.gather(z), lattice.feature_vjp(z, z_t, values, grad), q])
        finally:
            _array.host_backend.reset(token)
    for run in found[1:]:
        for got, wanted in zip(run, found[0], strict=True):
            np.testing.assert_array_equal(got, wanted)


def test_images_without_numbers_harm_no_other(kernel_path):
    rng = np.random.default_rng(11)
    features, values = random_features(rng, 2, 3, 70), rng.standard_normal((140, 4)).astype("float32")
    alone = _gpu.Lattice(kernel_path.array(features[1:]))
    wanted = kernel_path.numpy(alone.gather(alone.spread(kernel_path.array(values[70:]))))
    for poison in (np.nan, np.inf, 1e30):
        features[0, :, ::7] = poison
        features[0, 1, 1::7] = -poison
        lattice = _gpu.Lattice(kernel_path.array(features))
        got = kernel_path.numpy(lattice.gather(lattice.spread(kernel_path.array(values))))
        np.testing.assert_array_equal(got[70:], wanted)


def test_too_many_points_are_refused(kernel_path):
    like = kernel_path.array(np.zeros((1, 8, 1), "float32"))
    spread = like.expand(1, 8, 2**28) if kernel_path.is_torch else _array.module(like).broadcast_to(like, (1, 8, 2**28))
    with pytest.raises(
        ValueError, match=r"lattice: vertices around all points must be fewer than 2\^31, got \d+; filter fewer"
    ):
        _gpu.Lattice(spread)


def test_no_points(kernel_path):
    for shape in ((0, 3, 5), (2, 3, 0)):
        lattice = _gpu.Lattice(kernel_path.array(np.zeros(shape, "float32")), 2, True)
        rows = kernel_path.array(np.zeros((0, 8), "float32"))
        z = lattice.spread(rows)
        assert lattice.n_vertices == 0
        assert [tuple(x.shape) for x in (z, lattice.gather(z), lattice.feature_vjp(z, z, rows, rows))] == [
            (0, 8),
            (0, 8),
            shape,
        ]


def test_torch_tensors(host_backend):
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(12)
    features, x = random_features(rng, 2, 3, 40), rng.standard_normal((2, 5, 40)).astype("float32")
    found = []
    for array in (np.asarray, torch.from_numpy):
        lattice = _gpu.Lattice(array(features), 1, True)
        rows = _gpu.to_rows(array(x), 8)
        z = lattice.spread(rows)
        mu = _array.zeros(rows, (8, 8))
        mu[:5, :5] = -1
        q = _gpu.update(rows, [_gpu.Message(z, lattice, rows[:, 0] * 0 + 1, mu)], 5)
        results = [z, _gpu.from_rows(lattice.gather(z), x.shape), lattice.feature_vjp(z, z, rows, q)]
        assert {_array.family(r) for r in results} == {_array.family(rows)}
        found.append([np.asarray(r) for r in results])
    for got, wanted in zip(found[1], found[0], strict=True):
        np.testing.assert_array_equal(got, wanted)


@pytest.mark.parametrize(("d", "dtype", "blurs", "dilate"), [
    (1, "float64", 1, False), (2, "float64", 2, True), (3, "float64", 1, True), (5, "float64", 1, False),
    (5, "float32", 1, False), (8, "float64", 2, False),
])  # fmt: skip
def test_feature_gradient(kernel_path, d, dtype, blurs, dilate):
    """Against central differences; the points lie far from the borders of their simplices, where there is a kink."""
    rng, h = np.random.default_rng(20 + d), 1e-6
    candidates = random_features(rng, 1, d, 40, dtype, 0.5)
    inside = Oracle(candidates, blurs).weight.min(1) > 1e-3
    features = np.ascontiguousarray(
        candidates[:, :, inside][:, :, :12].reshape(1, d, -1, 2).transpose(3, 1, 2, 0)[..., 0]
    )
    images, _, points = features.shape
    assert points == 6 and images == 2
    values, grad = rng.standard_normal((2, images * points, 40)).astype(dtype)

    def loss(f):
        oracle = Oracle(f, blurs, dilate)
        return (grad * oracle.gather(oracle.spread(values))).sum()

    places = list(np.ndindex(features.shape))
    places = [places[k] for k in rng.permutation(len(places))[:12]]
    wanted = np.zeros(12)
    for k, place in enumerate(places):
        step = np.zeros(features.shape)
        step[place] = h
        wanted[k] = (loss(features + step) - loss(features - step)) / (2 * h)
    lattice = _gpu.Lattice(kernel_path.array(features), blurs, dilate)
    x, g = kernel_path.array(values), kernel_path.array(grad)
    got = kernel_path.numpy(lattice.feature_vjp(lattice.spread(x), lattice.spread(g, transposed=True), x, g))
    assert got.shape == features.shape
    tolerance = (1e-7 if dtype == "float64" else 2e-5) * abs(wanted).max()
    np.testing.assert_allclose([got[place] for place in places], wanted, rtol=0, atol=tolerance)


# ---- mean field -----------------------------------------------------------------------------------------


class Rows:
    """Stands for a filter without a lattice."""

    entries = 1


def check_update(path, dtype, width, labels, kinds, points=65, size=1.0, scaled=True):
    """The update with messages of these kinds, against NumPy; the lattice's are gathered by the oracle."""
    rng = np.random.default_rng(width + labels)
    features = random_features(rng, 1, 2 if width > 100 else 5, points, dtype, 0.5)
    unary = (rng.standard_normal((points, width)) * size).astype(dtype)
    unary[:, labels:] = 0
    logits, total, messages = -unary.astype(float), abs(unary.astype(float)), []
    for kind in kinds:
        mu = (rng.standard_normal(width if "diagonal" in kind else (width, width)) * size).astype(dtype)
        mu[labels:] = 0
        if "matrix" in kind:
            mu[:, labels:] = 0
        scale = rng.random(points).astype(dtype) if scaled else None
        factor = 1.0 if scale is None else scale[:, None].astype(float)
        if "lattice" in kind:
            oracle, lattice = Oracle(features), _gpu.Lattice(path.array(features))
            z = rng.random((len(oracle.number), width)).astype(dtype)
            y = oracle.gather(z) * factor
        else:
            lattice, z = Rows(), rng.random((points, width)).astype(dtype)
            y = z * factor
        logits -= y @ mu.T if mu.ndim == 2 else y * mu
        total += abs(y) @ abs(mu.T) if mu.ndim == 2 else abs(y * mu)
        given = None if scale is None else path.array(scale)
        messages.append(_gpu.Message(path.array(z), lattice, given, path.array(mu)))
    u, eps = path.array(unary), TABLE[dtype].accumulation
    negative = _gpu.update(u, messages, labels, softmax=False)
    assert_close(path.numpy(negative), -logits, dtype, 20 + width, total)
    out = path.array(np.full((points, width), np.nan, dtype))
    got = _gpu.update(u, messages, labels, out=out)
    assert got is out
    got = path.numpy(got)
    assert (got[:, labels:] == 0).all()
    q = np.exp(logits - logits[:, :labels].max(1, keepdims=True))[:, :labels]
    q /= q.sum(1, keepdims=True)
    allowed = q * eps * (40 + 2 * math.sqrt(width)) * (1 + total[:, :labels].max(1, keepdims=True)) + 1e-37
    error = abs(got[:, :labels] - q)
    assert (error <= allowed).all(), (error / allowed).max()


@pytest.mark.parametrize("kinds", [
    (), ("diagonal",), ("lattice diagonal",), ("matrix",), ("lattice matrix",), ("diagonal", "lattice diagonal"),
    ("lattice diagonal", "lattice diagonal"), ("lattice matrix", "matrix"), ("diagonal", "lattice matrix"),
    ("matrix", "lattice diagonal"),
], ids=" + ".join)  # fmt: skip
@pytest.mark.parametrize(("width", "labels"), [(4, 3), (24, 21)])
def test_update(kernel_path, kinds, width, labels):
    check_update(kernel_path, "float32", width, labels, kinds, scaled=len(kinds) != 1)


@pytest.mark.parametrize(("width", "labels", "dtype", "kinds", "points"), [
    (4, 2, "float64", ("lattice diagonal", "matrix"), 130),
    (8, 8, "float32", ("lattice diagonal", "matrix"), 300),
    (24, 17, "float64", ("lattice matrix", "lattice diagonal"), 140),
    (40, 33, "float32", ("lattice diagonal",), 67),
    (152, 150, "float32", ("lattice diagonal", "diagonal"), 33),
    (152, 150, "float32", ("lattice matrix",), 33),
    (256, 250, "float64", ("lattice diagonal",), 9),
    (256, 256, "float32", ("lattice matrix",), 9),
    (1024, 1001, "float32", ("lattice diagonal", "matrix"), 5),
    (24, 21, "float32", ("lattice diagonal",), 0),
    (24, 21, "float32", ("lattice matrix",), 1),
])  # fmt: skip
def test_update_of_every_shape(kernel_path, width, labels, dtype, kinds, points):
    check_update(kernel_path, dtype, width, labels, kinds, points)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_update_of_large_logits(kernel_path, dtype):
    check_update(kernel_path, dtype, 24, 21, ("lattice diagonal", "diagonal"), size=1e4)


def test_update_of_impossible_labels(kernel_path):
    unary = np.array([[0, np.inf, 1, 0], [np.inf, 2e4, np.inf, 0], [3e38, 3e38, 3e38, 0]], "float32")
    got = kernel_path.numpy(_gpu.update(kernel_path.array(unary), [], 3))
    some = 1 / (1 + math.exp(-1))
    np.testing.assert_allclose(got, [[some, 0, 1 - some, 0], [0, 1, 0, 0], [1 / 3, 1 / 3, 1 / 3, 0]], rtol=1e-6)


def test_every_width_has_a_shape():
    for width in (4, *range(8, 1025, 8)):
        group, per = _gpu._shape_of_group(width)
        assert width // 4 <= group * per <= 1.4 * width // 4 or width > 640
        _gpu.kernel("crf_update.cu", "crf_update", real="float32", GROUP=group, PER=per, MATRIX=True)


# ---- layouts --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("shape", "width"), [
    ((1, 1, 1), 4), ((2, 3, 65), 4), ((3, 21, 70), 24), ((1, 150, 40), 152), ((2, 33, 33), 40), ((0, 3, 5), 4), ((2, 3, 0), 8),
])  # fmt: skip
def test_rows(kernel_path, shape, width, dtype):
    images, channels, points = shape
    x = np.random.default_rng(0).standard_normal(shape).astype(dtype)
    rows = _gpu.to_rows(kernel_path.array(x), width, 7.5)
    wanted = np.full((images, points, width), 7.5, dtype)
    wanted[:, :, :channels] = x.transpose(0, 2, 1)
    np.testing.assert_array_equal(kernel_path.numpy(rows), wanted.reshape(-1, width))
    np.testing.assert_array_equal(kernel_path.numpy(_gpu.from_rows(rows, shape)), x)
