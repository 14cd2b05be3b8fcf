"""pydensecrf's call shape: the same script with both packages, the same CRF by `dense_crf`, and what is refused."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable
from pathlib import Path as FilePath
from typing import Any

import numpy as np
import pytest
from scipy import ndimage

import cv3gpu
import cv3gpu.densecrf as ours
from cv3gpu.crf import MeanField, arguments
from tests.conftest import Path

CASES = FilePath(__file__).resolve().parents[2] / "shared" / "data" / "crf"
CLOSE = 1e-4  # of a marginal; of the KL divergence relative to its value
UNDECIDED = 1e-3  # labels may differ where the best two marginals are nearer


@pytest.fixture(scope="module")
def theirs() -> Any:
    """pydensecrf, its two modules as one."""
    densecrf = pytest.importorskip("pydensecrf.densecrf", reason="needs pydensecrf (pip install pydensecrf2)")
    utils = importlib.import_module("pydensecrf.utils")

    class Both:
        def __getattr__(self, name: str) -> Any:
            return getattr(densecrf if hasattr(densecrf, name) else utils, name)

    return Both()


def scene(w: int, h: int, labels: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A picture of soft areas with texture, and the probabilities of a coarse, noisy classifier [L, H, W]."""
    rng = np.random.default_rng(seed)
    areas = ndimage.gaussian_filter(rng.standard_normal((labels, h, w)), (0, h / 8, w / 8)).argmax(0)
    colours = rng.integers(30, 220, (labels, 3))
    image = colours[areas] + rng.normal(0, 6, (h, w, 3)) + 20 * np.sin(np.arange(w) / 9)[None, :, None]
    score = 3.0 * (areas == np.arange(labels)[:, None, None]) + rng.normal(0, 1.5, (labels, h, w))
    score = ndimage.gaussian_filter(score, (0, 1, 1)) * 2
    p = np.exp(score - score.max(0))
    return image.clip(0, 255).astype(np.uint8), (p / p.sum(0)).astype(np.float32)


def same_marginals(got: Any, want: Any) -> None:
    """Marginals of both packages: values, and labels where they are decided."""
    got, want = np.asarray(got), np.asarray(want)
    assert got.shape == want.shape and got.dtype == want.dtype == np.float32
    np.testing.assert_allclose(got, want, rtol=0, atol=CLOSE)
    top = np.sort(want, 0)[-2:]
    decided = top[-1] - top[0] > UNDECIDED if len(want) > 1 else np.ones(want.shape[1], bool)
    np.testing.assert_array_equal(got.argmax(0)[decided], want.argmax(0)[decided])


# ---- the same script with both packages -----------------------------------------------------------------

W, H, L = 75, 54, 4


def readme(dcrf: Any) -> Any:
    """The first example of pydensecrf's README."""
    image, p = scene(W, H, L, 0)
    d = dcrf.DenseCRF2D(W, H, L)
    U = -np.log(p)
    U = U.reshape((L, -1))
    d.setUnaryEnergy(U)
    d.addPairwiseGaussian(sxy=(3, 3), compat=3, kernel=dcrf.DIAG_KERNEL, normalization=dcrf.NORMALIZE_SYMMETRIC)
    d.addPairwiseBilateral(
        sxy=(80, 80), srgb=(13, 13, 13), rgbim=image, compat=10, kernel=dcrf.DIAG_KERNEL,
        normalization=dcrf.NORMALIZE_SYMMETRIC,
    )  # fmt: skip
    Q = d.inference(5)
    assert np.argmax(Q, axis=0).reshape((H, W)).shape == (H, W)
    return Q


def shortcuts(dcrf: Any) -> Any:
    """The README's short forms, with unaries from a softmax."""
    image, p = scene(W, H, L, 1)
    d = dcrf.DenseCRF2D(W, H, L)
    d.setUnaryEnergy(dcrf.unary_from_softmax(p, scale=0.9))
    d.addPairwiseGaussian(sxy=3, compat=3)
    d.addPairwiseBilateral(sxy=80, srgb=13, rgbim=image, compat=10)
    return d.inference(10)


def from_an_annotation(dcrf: Any) -> Any:
    """The example inference.py of pydensecrf, by the generic functions."""
    image, p = scene(W, H, L, 2)
    labels = p.argmax(0) + 1
    labels[::3, ::2] = 0  # unknown
    d = dcrf.DenseCRF(image.shape[1] * image.shape[0], L)
    d.setUnaryEnergy(dcrf.unary_from_labels(labels, L, gt_prob=0.7, zero_unsure=True))
    feats = dcrf.create_pairwise_gaussian(sdims=(3, 3), shape=image.shape[:2])
    d.addPairwiseEnergy(feats, compat=3, kernel=dcrf.DIAG_KERNEL, normalization=dcrf.NORMALIZE_SYMMETRIC)
    feats = dcrf.create_pairwise_bilateral(sdims=(80, 80), schan=(13, 13, 13), img=image, chdim=2)
    d.addPairwiseEnergy(feats, compat=10, kernel=dcrf.FULL_KERNEL, normalization=dcrf.NORMALIZE_AFTER)
    return d.inference(5)


def not_rgb(dcrf: Any) -> Any:
    """The non-RGB example: one real channel, no axis of channels."""
    image, p = scene(W, H, 2, 3)
    grey = image.mean(2) / 255
    d = dcrf.DenseCRF2D(W, H, 2)
    d.setUnaryEnergy(dcrf.unary_from_softmax(p))
    energy = dcrf.create_pairwise_bilateral(sdims=(10, 10), schan=(0.01,), img=grey, chdim=-1)
    d.addPairwiseEnergy(energy, compat=10)
    return d.inference(5)


def two_channels_first(dcrf: Any) -> Any:
    """Channels in front, one width for both."""
    image, p = scene(W, H, L, 4)
    d = dcrf.DenseCRF(W * H, L)
    d.setUnaryEnergy(dcrf.unary_from_softmax(p, clip=None))
    img = np.ascontiguousarray(image.transpose(2, 0, 1)[:2])
    d.addPairwiseEnergy(dcrf.create_pairwise_bilateral((20, 30), 13.0, img, chdim=0), 6)
    return d.inference(5)


def a_line(dcrf: Any) -> Any:
    """Points on a line, an odd number of them."""
    n = 257
    rng = np.random.default_rng(5)
    p = 0.5 + 0.3 * np.sign(np.sin(np.arange(n) / 20)) + rng.normal(0, 0.15, n)
    p = np.stack([p, 1 - p]).clip(0.05, 0.95).astype(np.float32)
    d = dcrf.DenseCRF(n, 2)
    d.setUnaryEnergy(dcrf.unary_from_softmax(p))
    d.addPairwiseEnergy(dcrf.create_pairwise_gaussian((4.0,), (n,)), compat=5)
    return d.inference(8)


def a_volume(dcrf: Any) -> Any:
    """Three axes and a value: four dimensions."""
    shape = (5, 13, 11)
    rng = np.random.default_rng(6)
    value = ndimage.gaussian_filter(rng.standard_normal(shape), 2) * 20
    p = 1 / (1 + np.exp(-3 * value - rng.standard_normal(shape)))
    d = dcrf.DenseCRF(value.size, 2)
    d.setUnaryEnergy(dcrf.unary_from_softmax(np.stack([p, 1 - p]).astype(np.float32)))
    d.addPairwiseEnergy(dcrf.create_pairwise_gaussian((1, 2, 2), shape), compat=2)
    d.addPairwiseEnergy(dcrf.create_pairwise_bilateral((3, 5, 5), 0.5, value, -1), compat=4)
    return d.inference(5)


def odd_size(dcrf: Any) -> Any:
    """A number of pixels that is no multiple of 4, different widths along x and y."""
    w, h = 53, 37
    image, p = scene(w, h, 3, 7)
    d = dcrf.DenseCRF2D(w, h, 3)
    d.setUnaryEnergy(dcrf.unary_from_softmax(p))
    d.addPairwiseGaussian((2, 5.5), 3, dcrf.CONST_KERNEL, dcrf.NORMALIZE_BEFORE)
    d.addPairwiseBilateral((40, 25), (9, 13, 20), image, 8, dcrf.FULL_KERNEL, dcrf.NORMALIZE_AFTER)
    return d.inference(10)


def five_terms(dcrf: Any) -> Any:
    """More terms than one update takes, each compatibility in another form, each normalisation."""
    image, p = scene(W, H, 3, 8)
    rng = np.random.default_rng(8)
    matrix = (-4 * np.eye(3) + rng.random((3, 3))).astype(np.float32)  # not symmetric
    d = dcrf.DenseCRF2D(W, H, 3)
    d.addPairwiseGaussian(sxy=3, compat=np.array([-2, -3, -4], np.float32))  # before the unaries
    d.addPairwiseBilateral(60, 10, image, matrix)
    d.setUnaryEnergy(dcrf.unary_from_softmax(p))
    d.addPairwiseGaussian(1.5, np.float32(0.7), normalization=dcrf.NORMALIZE_BEFORE)
    d.addPairwiseGaussian(8, 0.02, normalization=dcrf.NO_NORMALIZATION)
    d.addPairwiseBilateral(30, 20, image, -0.5, normalization=dcrf.NORMALIZE_AFTER)
    return d.inference(6)


def many_labels(dcrf: Any) -> Any:
    """21 labels."""
    image, p = scene(W, H, 21, 9)
    d = dcrf.DenseCRF2D(W, H, 21)
    d.setUnaryEnergy(dcrf.unary_from_softmax(p))
    d.addPairwiseGaussian(sxy=3, compat=3)
    d.addPairwiseBilateral(sxy=67, srgb=3, rgbim=image, compat=4)
    return d.inference(5)


def unaries_alone(dcrf: Any) -> Any:
    """No pairwise term."""
    d = dcrf.DenseCRF(30, 5)
    d.setUnaryEnergy(np.random.default_rng(10).normal(0, 3, (5, 30)).astype(np.float32))
    return d.inference(3)


def no_unaries(dcrf: Any) -> Any:
    """Without a unary energy it is 0."""
    d = dcrf.DenseCRF2D(8, 6, 3)
    d.addPairwiseGaussian(2, np.array([-1, -2, -3], np.float32))
    return d.inference(4)


def set_twice(dcrf: Any) -> Any:
    """The last unaries count, and arrays may be changed after the call."""
    image, p = scene(W, H, L, 11)
    d = dcrf.DenseCRF2D(W, H, L)
    d.setUnaryEnergy(dcrf.unary_from_softmax(p))
    d.addPairwiseBilateral(50, 13, image, 5)
    d.inference(1)
    U = dcrf.unary_from_softmax(np.ascontiguousarray(p[::-1]))
    features = dcrf.create_pairwise_gaussian((3, 3), (H, W))
    d.setUnaryEnergy(U)
    d.addPairwiseEnergy(features, 3)
    U[...], features[...], image[...] = 0, 0, 0
    return d.inference(5)


SCRIPTS = [
    readme, shortcuts, from_an_annotation, not_rgb, two_channels_first, a_line, a_volume, odd_size, five_terms,
    many_labels, unaries_alone, no_unaries, set_twice,
]  # fmt: skip


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.__name__)
def test_a_script_of_both_packages(theirs: Any, script: Callable[[Any], Any]) -> None:
    got = script(ours)
    assert type(got) is np.ndarray and got.flags.writeable
    same_marginals(got, script(theirs))


def steps(dcrf: Any, n: int) -> tuple[list[np.ndarray], list[float]]:
    """The README's loop by hand."""
    image, p = scene(W, H, L, 12)
    d = dcrf.DenseCRF2D(W, H, L)
    d.setUnaryEnergy(dcrf.unary_from_softmax(p))
    d.addPairwiseGaussian(sxy=3, compat=3)
    d.addPairwiseBilateral(sxy=80, srgb=13, rgbim=image, compat=10)
    Q, tmp1, tmp2 = d.startInference()
    marginals, divergence = [], []
    for _ in range(n):
        marginals.append(np.array(Q))
        divergence.append(d.klDivergence(Q))
        d.stepInference(Q, tmp1, tmp2)
    marginals.append(np.array(Q))
    same_marginals(Q, d.inference(n))
    return marginals, [*divergence, d.klDivergence(Q)]


def test_steps_and_divergence_of_both_packages(theirs: Any) -> None:
    (got, divergence), (want, wanted) = steps(ours, 5), steps(theirs, 5)
    for q, r in zip(got, want, strict=True):
        same_marginals(q, r)
    np.testing.assert_allclose(divergence, wanted, rtol=CLOSE)
    assert all(type(x) is float for x in divergence)


@pytest.mark.parametrize("case", ["pd_rocket640_L4_diag_before_aniso_it5", "pd_chelsea451_L5_matrix_after_it5"])
def test_saved_results_on_photographs(case: str) -> None:
    file = CASES / f"{case}.npz"
    if not file.is_file():
        pytest.skip(f"needs {file}")
    with np.load(file) as data:
        z = {name: data[name] for name in data}
    h, w, labels = z["unary_fx"].shape
    d = ours.DenseCRF2D(w, h, labels)
    d.setUnaryEnergy((z["unary_fx"] / np.float32(z["unary_scale"])).reshape(-1, labels).T)
    normalization = ours.NormalizationType[f"NORMALIZE_{str(z['normalization']).upper()}"]
    d.addPairwiseGaussian(z["gauss_sxy"], z["gauss_compat"].astype(np.float32), normalization=normalization)
    compat = z["bil_compat"].astype(np.float32)
    d.addPairwiseBilateral(z["bil_sxy"], z["bil_srgb"], z["image"], compat, normalization=normalization)
    q = d.inference(int(z["iters"]))
    same_marginals(q[:, z["probe_idx"]] if "probe_idx" in z else q, z["Q_probe"] if "Q_probe" in z else z["Q"])


# ---- what pydensecrf.utils has --------------------------------------------------------------------------


def test_unaries_and_features_have_the_same_bits(theirs: Any) -> None:
    rng = np.random.default_rng(13)
    labels = rng.integers(0, 6, (7, 9))
    p = rng.dirichlet(np.ones(6), 63).T.reshape(6, 7, 9)
    p[:, 0, 0] = [1, 0, 0, 0, 0, 0]
    image, volume = rng.integers(0, 256, (7, 9, 3)).astype(np.uint8), rng.standard_normal((3, 4, 5, 2))
    calls: list[Callable[[Any], Any]] = [
        lambda m: m.unary_from_labels(labels, 5, 0.7),
        lambda m: m.unary_from_labels(labels.astype(np.int32), 6, gt_prob=0.5, zero_unsure=False),
        lambda m: m.unary_from_softmax(p),
        lambda m: m.unary_from_softmax(p.astype(np.float32)),
        lambda m: m.unary_from_softmax(p.astype(np.float32), scale=0.8, clip=None),
        lambda m: m.unary_from_softmax(p, 0.9, 0.01),
        lambda m: m.softmax_to_unary(p[:, 1:], 0.6),
        lambda m: m.softmax_to_unary(p[:, 1:]),
        lambda m: m.compute_unary(labels, 5),
        lambda m: m.compute_unary(labels, 5, 0.9),
        lambda m: m.create_pairwise_gaussian((3, 7.5), (7, 9)),
        lambda m: m.create_pairwise_gaussian([2, 3, 4, 5], [2, 3, 2, 2]),
        lambda m: m.create_pairwise_bilateral((80, 70), (13, 5, 3), image, chdim=2),
        lambda m: m.create_pairwise_bilateral((80, 70), 7, image, 2),
        lambda m: m.create_pairwise_bilateral((80, 70), (7,), image[..., 0]),
        lambda m: m.create_pairwise_bilateral((1, 2, 3), (0.5, 0.25), volume, chdim=3),
        lambda m: m.create_pairwise_bilateral((2, 3), 1.5, volume[:, 0], chdim=0),
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        for call in calls:
            got, want = call(ours), call(theirs)
            assert got.dtype == want.dtype == np.float32 and got.flags.c_contiguous
            np.testing.assert_array_equal(got, want)


def test_constants_are_the_same(theirs: Any) -> None:
    for kind in (ours.KernelType, ours.NormalizationType):
        for member in kind:
            assert int(getattr(theirs, member.name)) == int(member) and getattr(ours, member.name) is member


def test_old_names_say_so() -> None:
    with pytest.warns(DeprecationWarning, match="unary_from_labels is its new name"):
        ours.compute_unary(np.array([0, 1, 2]), 2)
    with pytest.warns(DeprecationWarning, match="unary_from_softmax is its new form"):
        ours.softmax_to_unary(np.full((2, 3), 0.5))


# ---- the same CRF by dense_crf, on every path -----------------------------------------------------------


@pytest.mark.parametrize("method", ["lattice", "lattice_fine", "exact"])
def test_it_is_dense_crf(path: Path, method: str) -> None:
    image, p = scene(11, 9, 3, 14)
    unary = -np.log(p)
    d = ours.DenseCRF2D(11, 9, 3, method=method)
    d.setUnaryEnergy(path.array(unary.reshape(3, -1)))
    d.addPairwiseGaussian(sxy=(2, 3), compat=2, normalization=ours.NORMALIZE_BEFORE)
    d.addPairwiseBilateral(20, (9, 13, 20), path.array(image), 4, normalization=ours.NORMALIZE_BEFORE)
    q = d.inference(3)
    want = cv3gpu.dense_crf(
        path.array(unary), path.array(image), theta_gamma=(2, 3), compat_smooth=2, theta_alpha=20,
        theta_beta=(9, 13, 20), compat_bilateral=4, n_iter=3, method=method, normalization="before",
    )  # fmt: skip
    assert type(q) is type(want) and q.device == want.device
    np.testing.assert_array_equal(path.numpy(q).reshape(3, 9, 11), path.numpy(want))
    Q, tmp1, tmp2 = d.startInference()
    assert tuple(tmp1.shape) == tuple(tmp2.shape) == (0, 0) and type(tmp1) is type(Q)
    for _ in range(3):
        d.stepInference(Q, tmp1, tmp2)
    np.testing.assert_array_equal(path.numpy(Q), path.numpy(q))
    assert np.isfinite(d.klDivergence(Q))


def test_features_of_the_arrays_library(path: Path) -> None:
    image, p = scene(11, 9, 3, 15)
    labels = np.arange(99).reshape(9, 11) % 4
    there = path.array(image)
    pairs = [
        (ours.unary_from_softmax(path.array(p), 0.9), ours.unary_from_softmax(p, 0.9)),
        (ours.unary_from_labels(path.array(labels), 3, 0.7), ours.unary_from_labels(labels, 3, 0.7)),
        (ours.create_pairwise_gaussian(3, (9, 11), like=there), ours.create_pairwise_gaussian(3, (9, 11))),
        (ours.create_pairwise_bilateral(30, 13, there, 2), ours.create_pairwise_bilateral(30, 13, image, 2)),
    ]
    for got, want in pairs:
        assert type(got) is type(there) and got.device == there.device
        np.testing.assert_allclose(path.numpy(got), want, rtol=3e-7)
    d = ours.DenseCRF(99, 3, method="exact")
    d.setUnaryEnergy(pairs[0][0])
    for features, _ in pairs[2:]:
        d.addPairwiseEnergy(features, 3)
    q = path.numpy(d.inference(2))

    def brute(q: np.ndarray) -> np.ndarray:
        logits = -np.asarray(pairs[0][1], np.float64)
        for _, f in pairs[2:]:
            k = np.exp(-0.5 * ((f[:, :, None] - f[:, None].astype(np.float64)) ** 2).sum(0))
            root = k.sum(1) ** -0.5
            logits = logits + 3 * (q * root) @ k * root
        e = np.exp(logits - logits.max(0))
        return e / e.sum(0)

    want = np.exp(-np.asarray(pairs[0][1], np.float64))
    want = brute(brute(want / want.sum(0)))
    np.testing.assert_allclose(q, want, rtol=0, atol=1e-5)


def test_mean_field_has_the_objective() -> None:
    image, p = scene(11, 9, 3, 16)
    unary = ours.unary_from_softmax(p)
    d = ours.DenseCRF2D(11, 9, 3)
    d.setUnaryEnergy(unary)
    d.addPairwiseBilateral(20, 13, image, 4)
    field = d.meanField()
    assert isinstance(field, MeanField)
    q, info = cv3gpu.dense_crf(
        unary.reshape(3, 9, 11), image, compat_smooth=0, theta_alpha=20, compat_bilateral=4, n_iter=1, return_info=True
    )
    np.testing.assert_allclose(field.divergence()[0], info.divergence[0], rtol=1e-6)
    np.testing.assert_allclose(field.energy()[0], info.energy[0], rtol=1e-6)
    field.step()
    np.testing.assert_allclose(field.q[0].reshape(3, 9, 11), q, atol=1e-6)
    np.testing.assert_allclose(field.divergence()[0], info.divergence[1], rtol=1e-6)
    without = field.divergence(pairs=0.0)[0]  # pydensecrf counts the pairs in full, the objective counts half of them
    np.testing.assert_allclose(d.klDivergence(field.q[0]) - without, 2 * (info.divergence[1] - without), rtol=1e-5)


def test_a_forbidden_label_stays_away() -> None:
    unary = np.zeros((3, 20), np.float32)
    unary[1] = np.inf
    d = ours.DenseCRF2D(5, 4, 3)
    d.setUnaryEnergy(unary)
    d.addPairwiseGaussian(2, 3)
    q = d.inference(3)
    assert (q[1] < 1e-30).all() and np.isfinite(d.klDivergence(q))


def test_arrays_of_any_strides() -> None:
    image, p = scene(12, 10, 3, 17)
    unary = ours.unary_from_softmax(p)
    features = ours.create_pairwise_bilateral(9, 13, image, 2)

    def run(u: np.ndarray, f: np.ndarray, im: np.ndarray) -> np.ndarray:
        d = ours.DenseCRF2D(12, 10, 3)
        d.setUnaryEnergy(u)
        d.addPairwiseEnergy(f, np.asfortranarray(-np.eye(3, dtype=np.float32)))
        d.addPairwiseBilateral(9, 13, im, 2)
        return d.inference(3)

    want = run(unary, features, image)
    read_only = unary.copy()
    read_only.flags.writeable = False
    wide = np.zeros((10, 24, 3), np.uint8)
    wide[:, ::2] = image
    got = run(np.asfortranarray(read_only), np.repeat(features, 2, 1)[:, ::2], wide[:, ::2])
    np.testing.assert_array_equal(got, want)
    Q = np.asfortranarray(want)
    d = ours.DenseCRF2D(12, 10, 3)
    d.stepInference(Q)  # without terms and unaries: uniform
    np.testing.assert_allclose(Q, 1 / 3)


@pytest.mark.parametrize("method", arguments.METHODS)
def test_nothing_and_one_point(method: str) -> None:
    for w, h in ((0, 4), (3, 0), (1, 1)):
        d = ours.DenseCRF2D(w, h, 2, method=method)
        d.setUnaryEnergy(np.zeros((2, w * h), np.float32))
        d.addPairwiseGaussian(3, 3)
        d.addPairwiseBilateral(80, 13, np.zeros((h, w, 3), np.uint8), 10)
        q = d.inference(2)
        assert q.shape == (2, w * h) and (q == 0.5).all()
        assert np.isfinite(d.klDivergence(q))


def test_terms_may_be_added_between_inferences() -> None:
    image, p = scene(12, 10, 3, 18)
    d = ours.DenseCRF2D(12, 10, 3)
    d.setUnaryEnergy(ours.unary_from_softmax(p))
    d.addPairwiseGaussian(3, 3)
    Q, *_ = d.startInference()
    d.stepInference(Q)
    smooth = d.klDivergence(Q)
    d.addPairwiseBilateral(20, 13, image, 4)
    assert d.klDivergence(Q) != smooth
    once = ours.DenseCRF2D(12, 10, 3)
    once.addPairwiseGaussian(3, 3)
    once.addPairwiseBilateral(20, 13, image, 4)
    once.setUnaryEnergy(ours.unary_from_softmax(p))
    np.testing.assert_array_equal(d.inference(4), once.inference(4))
    np.testing.assert_array_equal(d.inference(4), d.inference(4))


# ---- refusals -------------------------------------------------------------------------------------------


def crf() -> Any:
    return ours.DenseCRF2D(5, 4, 3)


def u(*shape: int, dtype: str = "float32") -> np.ndarray:
    return np.ones(shape or (3, 20), dtype)


IMAGE = np.zeros((4, 5, 3), np.uint8)

REFUSED: list[tuple[Callable[[], Any], type[Exception], str]] = [
    (lambda: ours.DenseCRF(2.0, 2), TypeError, r"DenseCRF: nvar must be an integer, got 2.0 \(float\)"),
    (lambda: ours.DenseCRF(-1, 2), ValueError, "DenseCRF: nvar must be from 0 to"),
    (lambda: ours.DenseCRF(5, 0), ValueError, "DenseCRF: nlabels must be from 1 to 1024, got 0"),
    (lambda: ours.DenseCRF2D("5", 4, 3), TypeError, "DenseCRF2D: w must be an integer, got '5'"),
    (lambda: ours.DenseCRF2D(5, 4, 3, method="fast"), ValueError, "DenseCRF2D: method must be one of 'lattice'"),
    (lambda: crf().setUnaryEnergy(u().tolist()), TypeError, "setUnaryEnergy: u must be a NumPy, CuPy or torch array"),
    (lambda: crf().setUnaryEnergy(u(dtype="float64")), TypeError, "u must have dtype float32, got float64"),
    (lambda: crf().setUnaryEnergy(u(dtype="float64")), ValueError, "u must have dtype float32, got float64"),
    (lambda: crf().setUnaryEnergy(u(20, 3)), ValueError, r"u must have shape \[3, 20\], got \(20, 3\)"),
    (lambda: crf().setUnaryEnergy(u(3, 4, 5)), ValueError, r"got \(3, 4, 5\); u.reshape\(3, -1\)"),
    (lambda: crf().setUnaryEnergy(u(), u(20, 20)), ours.UnsupportedError, r"f must be None, .*LogisticUnary\(L, f\) L @ f"),
    (lambda: crf().setUnary(u()), NotImplementedError, r"setUnary: u must be energies.*setUnaryEnergy\(u\) takes"),
    (lambda: ours.ConstUnary(u()), ours.UnsupportedError, r"ConstUnary: there are no unary objects; setUnaryEnergy\(u\)"),
    (lambda: ours.LogisticUnary(u(3, 4), u(4, 20)), ours.UnsupportedError, "LogisticUnary: there are no unary objects"),
    (lambda: crf().addPairwiseEnergy(u(2, 19), 3), ValueError, r"features must have shape \[D, 20\], got \(2, 19\)"),
    (lambda: crf().addPairwiseEnergy(u(9, 20), 3), ValueError, r"features must have 1 to 8 dimensions \(axis 0\), got 9"),
    (lambda: crf().addPairwiseEnergy(u(2, 20, dtype="float64"), 3), ValueError, "features must have dtype float32"),
    (lambda: crf().addPairwiseGaussian(0, 3), ValueError, "addPairwiseGaussian: sxy must be finite and positive, got 0"),
    (lambda: crf().addPairwiseGaussian((3, 3, 3), 3), ValueError, r"sxy must be a number or a pair \(x, y\), got"),
    (lambda: crf().addPairwiseGaussian("3", 3), TypeError, "sxy must be a number, got '3'"),
    (lambda: crf().addPairwiseGaussian(1e-8, 3), ValueError, "sxy must be a 1e\\+06th of the image's range at least, got"),
    (lambda: crf().addPairwiseBilateral(80, 1e-9, IMAGE, 3), ValueError, "srgb must be a 1e\\+06th of the image's range"),
    (lambda: crf().addPairwiseEnergy(u(2, 20) * 1e8, 3), ValueError, r"features must be within 1e\+06 of 0, got 1e\+08"),
    (lambda: crf().addPairwiseGaussian(3, None), TypeError, "compat must be a number, or a float32 array .* got None"),
    (lambda: crf().addPairwiseGaussian(3, [1, 2, 3]), TypeError, "compat must be a number, or a float32 array .* got list"),
    (lambda: crf().addPairwiseGaussian(3, u(3, dtype="float64")), ValueError, "compat must have dtype float32"),
    (lambda: crf().addPairwiseGaussian(3, u(2)), ValueError, r"array of shape \[3\] or \[3, 3\], got \(2,\)"),
    (lambda: crf().addPairwiseGaussian(3, u(3, 3, 3)), ValueError, r"array of shape \[3\] or \[3, 3\], got \(3, 3, 3\)"),
    (lambda: crf().addPairwiseGaussian(3, u(3) * np.nan), ValueError, "compat must be finite"),
    (lambda: crf().addPairwiseGaussian(3, np.inf), ValueError, "compat must be finite, got inf"),
    (lambda: crf().addPairwiseGaussian(3, 3, "diag"), TypeError, "kernel must be one of CONST_KERNEL, DIAG_KERNEL, FULL"),
    (lambda: crf().addPairwiseGaussian(3, 3, normalization=7), ValueError, "normalization must be one of NO_NORMALIZATION,"),
    (lambda: crf().addPairwiseBilateral(80, (13, 13), IMAGE, 3), ValueError, r"srgb must be a number or three of them"),
    (lambda: crf().addPairwiseBilateral(80, 13, IMAGE / 255, 3), ValueError, "rgbim must have dtype uint8, got float64; addP"),
    (lambda: crf().addPairwiseBilateral(80, 13, IMAGE[..., :2], 3), ValueError, r"shape \[4, 5, 3\], got \(4, 5, 2\); addP"),
    (lambda: crf().addPairwiseBilateral(80, 13, IMAGE[..., 0], 3), ValueError, r"shape \[4, 5, 3\], got \(4, 5\); addP"),
    (lambda: crf().inference(-1), ValueError, "inference: niter must be from 0 to"),
    (lambda: crf().inference(5.5), TypeError, "inference: niter must be an integer"),
    (lambda: crf().klDivergence(u(3, 19)), ValueError, r"klDivergence: Q must have shape \[3, 20\], got \(3, 19\)"),
    (lambda: crf().klDivergence(u().tolist()), TypeError, "klDivergence: Q must be a NumPy, CuPy or torch array"),
    (lambda: crf().stepInference(u(dtype="float64")), TypeError, "stepInference: Q must have dtype float32, got float64"),
    (lambda: crf().stepInference(np.broadcast_to(u(3, 1), (3, 20))), ValueError, "Q must be writeable"),
    (lambda: ours.unary_from_labels(np.array([1, 2]), 1, 0.5), ValueError, "n_labels must be from 2 to 1024, got 1"),
    (lambda: ours.unary_from_labels(np.array([1, 2]), 2, 1.0), ValueError, "gt_prob must be between 0 and 1, got 1.0"),
    (lambda: ours.unary_from_labels(np.array([0, 3]), 2, 0.5), ValueError, "labels must be from 0 to 2, got 0 to 3"),
    (lambda: ours.unary_from_labels(np.array([-1, 1]), 2, 0.5), ValueError, "labels must be from 0 to 2, got -1 to 1"),
    (lambda: ours.unary_from_labels(np.array([0, 2]), 2, 0.5, False), ValueError, "labels must be from 0 to 1, .* zero_unsure"),
    (lambda: ours.unary_from_labels(np.array([0.0]), 2, 0.5), TypeError, "labels must be integers, got float64"),
    (lambda: ours.unary_from_softmax(np.array([[0], [1]])), TypeError, "sm must have dtype float16 or"),
    (lambda: ours.unary_from_softmax(u(2, 3), scale=1.5), ValueError, "scale must be above 0 and at most 1, got 1.5"),
    (lambda: ours.unary_from_softmax(u(2, 3), clip=-1), ValueError, "clip must be from 0 to 1, got -1"),
    (lambda: ours.create_pairwise_gaussian((3, 3), 9), TypeError, "shape must be 1 to 8 integers, got 9"),
    (lambda: ours.create_pairwise_gaussian((3,), (4, 5)), ValueError, "sdims must be a number or 2 of them, one for each"),
    (lambda: ours.create_pairwise_bilateral((3, 3), (1, 2), IMAGE, 2), ValueError, "schan must be .* each of the 3 channels"),
    (lambda: ours.create_pairwise_bilateral((3, 3), 1, IMAGE, 3), ValueError, "chdim must be from -1 to 2, got 3"),
    (lambda: ours.create_pairwise_bilateral((3, 3), 1, IMAGE * 1j, 2), TypeError, "img must be real, got complex128"),
]  # fmt: skip


@pytest.mark.parametrize(("call", "error", "message"), REFUSED)
def test_refusals(call: Callable[[], Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()


def test_mixed_libraries_are_refused() -> None:
    torch = pytest.importorskip("torch")
    d = crf()
    d.setUnaryEnergy(u())
    with pytest.raises(TypeError, match="rgbim must be, like the arrays before, of numpy on cpu, got torch on cpu"):
        d.addPairwiseBilateral(80, 13, torch.from_numpy(IMAGE), 3)
    with pytest.raises(TypeError, match="Q must be, like the arrays before, of numpy on cpu, got torch on cpu"):
        d.klDivergence(torch.ones(3, 20))
    d.addPairwiseGaussian(3, torch.full((3,), -2.0))  # a parameter may live elsewhere
    assert type(d.inference(1)) is np.ndarray


def test_a_lack_of_memory_is_told_by_the_name_of_the_method(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: MeanField) -> None:
        raise MemoryError("Unable to allocate 8.00 GiB")

    d = crf()
    d.setUnaryEnergy(u())
    with monkeypatch.context() as patch:
        patch.setattr(MeanField, "step", fail)
        with pytest.raises(
            cv3gpu.OutOfMemoryError, match=r"^inference: out of memory on cpu: 8,589,934,592 bytes asked"
        ):
            d.inference(1)
    assert d.inference(1).shape == (3, 20)  # the next call works
