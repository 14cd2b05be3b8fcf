"""dense_crf, gaussian_filter and their gradients: published results, brute force, differences, and what is refused."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import inspect
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import cv3gpu
from cv3gpu import _array, crf
from tests import oracles
from tests.conftest import PATHS, need_gpu
from tests.tolerance import TABLE, assert_close

torch = pytest.importorskip("torch")

DTYPES = ("float32", "float64")
METHODS = ("lattice", "lattice_fine", "exact")
NORMALIZATIONS = ("none", "before", "after", "symmetric")
ARGUMENTS = crf.DenseCRFGradients._fields
WIDTHS = ("theta_gamma", "theta_alpha", "theta_beta")
COMPATIBILITIES = ("compat_smooth", "compat_bilateral")
DEFAULTS = {
    name: parameter.default
    for name, parameter in inspect.signature(cv3gpu.dense_crf).parameters.items()
    if name in (*WIDTHS, *COMPATIBILITIES, "n_iter", "method", "normalization")
}

# What published results and gradients are met to: absolute for Q, relative to the largest entry for gradients.
PARITY = 1e-4
CLEAR = 1e-3  # labels nearer than this to one another may be swapped
EXACT = {"float32": 1e-5, "float64": 1e-9}
GRADIENT = {"float32": 1e-4, "float64": 1e-8}
ON_A_LATTICE = {"float32": 1e-3, "float64": 1e-8}  # widths are sums over all pixels that cancel; 2.4e-4 was seen


@contextlib.contextmanager
def on_the_cpu() -> Iterator[None]:
    """NumPy arrays take the CPU path, whatever runner is there."""
    token = _array.host_backend.set(None)
    try:
        yield
    finally:
        _array.host_backend.reset(token)


@pytest.fixture(params=["numpy", "gpu-cupy", "gpu-torch"])
def whole_path(request: pytest.FixtureRequest) -> Any:
    """The ways that are fast enough for photographs."""
    if request.param.startswith("gpu"):
        need_gpu()
    return PATHS[request.param]


# ---- photographs ----------------------------------------------------------------------------------------

DATA = Path(__file__).resolve().parents[1] / ".." / "shared" / "data" / "crf"
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason="needs ../shared/data/crf")


def files(prefix: str) -> list[str]:
    """The names of all cases of a kind; where there are none, one that is skipped."""
    return sorted(path.stem for path in DATA.glob(f"{prefix}_*.npz")) or ["absent"]


def loaded(name: str, dtype: str) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray, dict[str, Any]]:
    """A case: all that is in it, the unaries, the image and the options."""
    with np.load(DATA / f"{name}.npz") as file:
        case = {key: file[key] for key in file.files}
    unary = (case["unary_fx"] / case["unary_scale"]).astype(dtype).transpose(2, 0, 1)
    names = {
        "theta_gamma": ("gauss_sxy", "sxy_gauss"),
        "compat_smooth": ("gauss_compat", "compat_gauss"),
        "theta_alpha": ("bil_sxy", "sxy_bil"),
        "theta_beta": ("bil_srgb", "srgb_bil"),
        "compat_bilateral": ("bil_compat", "compat_bil"),
    }
    options = {name: next(case[key] for key in keys if key in case) for name, keys in names.items()}
    options = {name: value if value.ndim else value.item() for name, value in options.items()}
    options |= {"n_iter": int(case["iters"]), "normalization": str(case["normalization"])}
    return case, np.ascontiguousarray(unary), case["image"], options


def marginals(path: Any, unary: np.ndarray, image: np.ndarray, options: dict[str, Any]) -> np.ndarray:
    """Q [L, N]."""
    q = path.numpy(cv3gpu.dense_crf(path.array(unary), path.array(image), **options))
    assert q.dtype == unary.dtype and q.shape == unary.shape
    return q.reshape(len(q), -1)


@needs_data
@pytest.mark.parametrize("name", files("pd"))
def test_marginals_are_pydensecrfs(whole_path: Any, name: str) -> None:
    case, unary, image, options = loaded(name, "float32")
    q = marginals(whole_path, unary, image, options)
    wanted, probe = (case["Q"], slice(None)) if "Q" in case else (case["Q_probe"], case["probe_idx"])
    assert np.abs(q[:, probe] - wanted).max() <= PARITY
    best, second = np.sort(q, axis=0)[:-3:-1]
    differ = q.argmax(0) != case["argmax"].ravel()
    assert not (differ & (best - second > CLEAR)).any()


@needs_data
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", files("exact"))
def test_exact_is_exact(whole_path: Any, name: str, dtype: str) -> None:
    case, unary, image, options = loaded(name, dtype)
    probed = "Q_exact" not in case
    if probed and (dtype == "float64" or not whole_path.runs_kernels):
        pytest.skip("half a minute on a CPU, and kept in float32")
    q = marginals(whole_path, unary, image, {**options, "method": "exact"})
    wanted = case["Q_exact_probe" if probed else "Q_exact"]
    assert np.abs(q[:, case["probe_idx"]] - wanted if probed else q - wanted).max() <= EXACT[dtype]


@needs_data
@pytest.mark.parametrize(("name", "most"), [("80_13", 0.008), ("67_3", 0.0025)])
def test_fine_lattice_halves_the_lattices_error(whole_path: Any, name: str, most: float) -> None:
    case, unary, image, options = loaded(f"exact_full_china320_L21_{name}_it5", "float32")
    labels = marginals(whole_path, unary, image, {**options, "method": "lattice_fine"}).argmax(0)
    wrong = (labels != case["argmax_exact"]).mean()
    assert wrong <= most
    assert wrong < 0.55 * (case["argmax_pydensecrf"] != case["argmax_exact"]).mean()


@needs_data
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", files("grad"))
def test_gradients_are_exact(whole_path: Any, name: str, dtype: str) -> None:
    case, unary, image, options = loaded(name, dtype)
    grad = case["loss_weights"].T.reshape(unary.shape)
    given = (whole_path.array(x, dtype) for x in (grad, unary, image))
    found = cv3gpu.dense_crf_vjp(*given, **options, method="exact")
    wanted = {
        "unary": case["grad_unary"].reshape(unary.shape),
        "theta_gamma": case["grad_sxy_gauss"],
        "theta_alpha": case["grad_sxy_bil"],
        "theta_beta": case["grad_srgb"],
        "compat_smooth": case["grad_compat_gauss"],
        "compat_bilateral": case["grad_compat_bil"],
    }
    for argument, value in wanted.items():
        assert relative(getattr(found, argument), value) <= GRADIENT[dtype], argument


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (9, 5), (7, 6), (8, 13), (31, 45)])
def test_any_size_is_pydensecrfs(cpu_path: Any, size: tuple[int, int]) -> None:
    module = pytest.importorskip("pydensecrf.densecrf")
    for labels in (2, 5):
        made = problem(Case((labels, *size)), "float32", seed=sum(size))
        made = made._replace(image=made.image - 90)  # so dark that it matters that pydensecrf's lattice has the origin
        theirs = module.DenseCRF2D(size[1], size[0], labels)
        theirs.setUnaryEnergy(np.ascontiguousarray(made.unary.reshape(labels, -1)))
        theirs.addPairwiseGaussian(sxy=3, compat=3)
        theirs.addPairwiseBilateral(sxy=80, srgb=13, rgbim=made.image, compat=10)
        q = cpu_path.numpy(cv3gpu.dense_crf(*made.on(cpu_path), n_iter=5)).reshape(labels, -1)
        assert np.abs(q - np.array(theirs.inference(5))).max() <= PARITY


def relative(got: Any, wanted: np.ndarray) -> float:
    """The largest error by the largest entry, or by a hundredth where all vanish; NaN is infinitely wrong."""
    got = np.asarray(_array.to_host(got) if _array.family(got) else got, np.float64)
    assert got.shape == wanted.shape
    error = np.abs(got - wanted).max(initial=0.0) / max(np.abs(wanted).max(initial=0.0), 1e-2)
    return error if error == error else np.inf


# ---- random problems and their results by brute force ---------------------------------------------------


class Case(NamedTuple):
    """Unaries [..., L, H, W], an image of so many channels (0: without that axis, None: no image), and options."""

    shape: tuple[int, ...]
    channels: int | None = 3
    image: str = "uint8"
    options: dict[str, Any] = {}
    forbidden: float = 0.0  # share of the labels, never all of a pixel


class Problem(NamedTuple):
    """The arrays of a case."""

    unary: np.ndarray
    image: np.ndarray | None
    options: dict[str, Any]

    def on(self, path: Any) -> tuple[Any, Any]:
        """Unaries and image on a path."""
        return path.array(self.unary), None if self.image is None else path.array(self.image)


def problem(case: Case, dtype: str, seed: int = 0) -> Problem:
    """Arrays of a case: colours so near to one another that pixels matter to one another."""
    rng = np.random.default_rng(seed)
    *lead, labels, height, width = case.shape
    unary = rng.uniform(0, 4, case.shape).astype(dtype)
    if case.forbidden:
        forbidden = rng.random(case.shape) < case.forbidden
        forbidden &= np.arange(labels)[:, None, None] != rng.integers(labels, size=(*lead, 1, height, width))
        unary[forbidden] = np.inf
    image = None
    if case.channels is not None:
        size = (*lead, height, width, case.channels)[: len(case.shape) - (case.channels == 0)]
        image = rng.uniform(100, 135, size).astype(case.image)
    return Problem(unary, image, {"n_iter": 3, "compat_smooth": 1.0, "compat_bilateral": 2.0, **case.options})


def pair(value: Any) -> np.ndarray:
    """A width along x and along y."""
    return np.broadcast_to(np.asarray(value, np.float64), (2,))


def positions(height: int, width: int, theta: np.ndarray) -> np.ndarray:
    """X and y by their widths [2, N], in the dtype of theta."""
    y, x = np.indices((height, width), theta.dtype).reshape(2, -1)
    return np.stack([x / theta[0], y / theta[1]])


def kernels(unary: np.ndarray, image: np.ndarray | None, given: dict[str, Any]) -> list[tuple[np.ndarray, np.ndarray]]:
    """The normalised kernels [N, N] of one image and their compatibilities [L, L]; lattices take features in dtype."""
    labels, height, width = unary.shape
    method, how, real = given["method"], given["normalization"], unary.dtype
    smooth, appearance = (oracles.compatibility(given[name], labels) for name in COMPATIBILITIES)
    place = positions(height, width, pair(given["theta_gamma"]).astype(real if method == "lattice" else np.float64))
    k = oracles.lattice(place) if method == "lattice" else oracles.pairs(place)
    found = [(oracles.normalized(k, how), smooth)]
    if image is not None:
        real = np.dtype(np.float64) if method == "exact" else real
        colour = image.reshape(height * width, -1).T.astype(real)
        beta = np.broadcast_to(np.asarray(given["theta_beta"], np.float64), colour.shape[:1]).astype(real)
        place = positions(height, width, pair(given["theta_alpha"]).astype(real))
        features = np.concatenate([place, colour / beta[:, None]])
        k = oracles.pairs(features) if method == "exact" else oracles.lattice(features, *FINE[method == "lattice_fine"])
        found.append((oracles.normalized(k, how), appearance))
    return found


FINE = {False: (), True: (2, True)}  # blurs, all neighbours


def images(given: Problem, options: dict[str, Any]) -> Iterator[tuple[tuple[int, ...], np.ndarray, Any]]:
    """Of each image of a batch: where it stands, its unaries [L, N], its kernels and compatibilities."""
    whole = {**DEFAULTS, **given.options, **options}
    for where in np.ndindex(given.unary.shape[:-3]):
        unary = given.unary[where]
        terms = kernels(unary, None if given.image is None else given.image[where], whole)
        yield where, unary.reshape(len(unary), -1).astype(np.float64), terms


def by_brute_force(given: Problem, **options: Any) -> tuple[np.ndarray, float]:
    """Q [n_iter + 1, ..., L, H, W] before each iteration and at the end, and the largest that a logit can be."""
    n_iter = {**DEFAULTS, **given.options, **options}["n_iter"]
    q, size = np.empty((n_iter + 1, *given.unary.shape)), 0.0
    for where, unary, terms in images(given, options):
        for step, found in enumerate(oracles.mean_field(unary, terms, n_iter)):
            q[(step, *where)] = found.reshape(given.unary.shape[-3:])
        reach = sum(np.abs(mu).sum(1).max() * np.abs(k).sum(1).max() for k, mu in terms)
        size = max(size, np.abs(unary[np.isfinite(unary)]).max() + reach)
    return q, size


def check(path: Any, case: Case, method: str, dtype: str, seed: int = 0) -> None:
    """dense_crf on a path against brute force: a logit's rounding moves a marginal by half of it at most."""
    made = problem(case, dtype, seed)
    unary, image = made.on(path)
    q = cv3gpu.dense_crf(unary, image, **made.options, method=method)
    assert type(q) is type(unary) and q.dtype == unary.dtype and tuple(q.shape) == made.unary.shape
    assert _array.device_of(q) == _array.device_of(unary)
    wanted, size = by_brute_force(made, method=method)
    pixels = case.shape[-1] * case.shape[-2]
    assert_close(path.numpy(q), wanted[-1], dtype, max(pixels, 64), size * len(wanted))
    assert np.array_equal(path.numpy(unary), made.unary), "unary was modified"
    assert image is None or np.array_equal(path.numpy(image), made.image), "image was modified"


SYMMETRIC = np.random.default_rng(9).standard_normal((5, 5))
CASES = {
    "one pixel": Case((3, 1, 1)),
    "a row": Case((2, 1, 9)),
    "a grey column": Case((4, 11, 1), 0),
    "odd sizes": Case((5, 7, 9)),
    "one label": Case((1, 3, 4)),
    "two tiles of pairs": Case((21, 9, 13)),
    "40 labels": Case((40, 5, 6)),
    "150 labels": Case((150, 4, 5)),
    "a batch": Case((2, 3, 5, 6)),
    "two leading axes, one channel": Case((2, 3, 4, 4, 5), 1),
    "a batch of grey images": Case((3, 2, 4, 5), 0, "float32"),
    "six channels, a width for each": Case((3, 6, 5), 6, options={"theta_beta": (9, 10, 11, 12, 13, 14)}),
    "image in float32": Case((3, 5, 6), 3, "float32"),
    "image in float64": Case((3, 5, 6), 2, "float64"),
    "no image": Case((4, 8, 7), None),
    "no image, no label but one": Case((1, 2, 7), None),
    "other widths along y": Case((3, 8, 9), options={"theta_gamma": (1.5, 4.0), "theta_alpha": (4.0, 9.0)}),
    "widths in arrays": Case((3, 6, 5), options={"theta_gamma": np.array([2.0, 1.0], np.float32), "theta_beta": np.array([9, 20, 5])}),
    "vectors": Case((5, 6, 5), options={"compat_smooth": [-1, -2, 0, 1, -0.5], "compat_bilateral": np.full(5, -2.0)}),
    "matrices": Case((5, 6, 5), options={"compat_smooth": SYMMETRIC, "compat_bilateral": -SYMMETRIC.astype(np.float32)}),
    "vector and matrix": Case((5, 6, 5), options={"compat_smooth": [-1.0, -2, -3, -2, -1], "compat_bilateral": SYMMETRIC.tolist()}),
    "matrix and number, 21 labels": Case((21, 6, 5), options={"compat_smooth": -0.3 * np.eye(21)[::-1], "compat_bilateral": 2}),
    "matrix without image, 70 labels": Case((70, 4, 5), None, options={"compat_smooth": -0.3 * np.eye(70)[::-1]}),
    "before": Case((3, 6, 7), options={"normalization": "before"}),
    "after": Case((3, 6, 7), options={"normalization": "after"}),
    "none": Case((3, 6, 7), options={"normalization": "none", "compat_smooth": 0.1, "compat_bilateral": 0.1}),
    "no iterations": Case((3, 4, 5), options={"n_iter": 0}),
    "no iterations of a batch": Case((2, 21, 4, 5), options={"n_iter": 0}),
    "forbidden labels": Case((4, 6, 7), forbidden=0.4),
    "nothing is near": Case((3, 6, 7), options={"theta_gamma": 0.05, "theta_alpha": 0.05, "theta_beta": 0.5}),
    "everything is near": Case((3, 6, 7), options={"theta_gamma": 1e4, "theta_alpha": 1e5, "theta_beta": 1e5}),
}  # fmt: skip


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", CASES)
def test_marginals_by_brute_force(path: Any, name: str, method: str) -> None:
    turn = list(CASES).index(name) + METHODS.index(method)
    check(path, CASES[name], method, DTYPES[turn % 2])


def random_case(rng: np.random.Generator) -> Case:
    """A problem of any kind."""
    lead = [(), (), (2,), (2, 3), (1,)][rng.integers(5)]
    labels = int(rng.choice([1, 2, 3, 4, 5, 8, 9, 21, 40]))
    size = tuple(int(n) for n in rng.integers(1, 9 if lead else 13, 2))
    channels = [None, 0, 1, 2, 3, 4, 5, 6][rng.integers(8)]

    def width(scale: float, count: int) -> Any:
        values = rng.lognormal(np.log(scale), 0.7, count).tolist()
        return values[0] if rng.random() < 0.4 else values

    def compatibility() -> Any:
        shape = ((), (labels,), (labels, labels))[rng.integers(3)]
        value = rng.standard_normal(shape) / (labels if len(shape) == 2 else 1)
        return value if shape else float(value)

    options = {
        "theta_gamma": width(2.0, 2),
        "theta_alpha": width(6.0, 2),
        "theta_beta": width(12.0, channels or 1),
        "compat_smooth": compatibility(),
        "compat_bilateral": compatibility(),
        "n_iter": int(rng.integers(0, 4)),
        "normalization": ("symmetric", "before", "after")[rng.integers(3)],
    }
    image = ("uint8", "float32", "float64")[rng.integers(3)]
    return Case((*lead, labels, *size), channels, image, options, 0.2 if rng.random() < 0.1 else 0.0)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("method", METHODS)
def test_marginals_of_any_problem(method: str, dtype: str) -> None:
    rng = np.random.default_rng(METHODS.index(method))
    for seed in range(25):
        check(PATHS["numpy"], random_case(rng), method, dtype, seed)


def test_a_constant_image_has_ties_everywhere(path: Any) -> None:
    for method in METHODS:
        made = problem(Case((3, 6, 8)), "float32")._replace(image=np.zeros((6, 8, 3), np.uint8))
        got = path.numpy(cv3gpu.dense_crf(*made.on(path), **made.options, method=method))
        wanted, size = by_brute_force(made, method=method)
        assert_close(got, wanted[-1], "float32", 64, size * len(wanted))


@pytest.mark.parametrize("method", METHODS)
def test_forbidden_labels_have_no_probability(path: Any, method: str) -> None:
    made = problem(CASES["forbidden labels"], "float32")
    q = path.numpy(cv3gpu.dense_crf(*made.on(path), method=method))
    assert (q[np.isinf(made.unary)] <= 1e-30).all()


@pytest.mark.parametrize("shape", [(0, 3, 4, 5), (2, 0, 3, 4, 5), (3, 0, 5), (2, 3, 4, 0)])
@pytest.mark.parametrize("method", METHODS)
def test_nothing_gives_nothing(path: Any, shape: tuple[int, ...], method: str) -> None:
    unary = path.array(np.zeros(shape, np.float32))
    image = path.array(np.zeros((*shape[:-3], *shape[-2:], 3), np.float32))
    for picture in (image, None):
        assert tuple(cv3gpu.dense_crf(unary, picture, method=method).shape) == shape
    q, info = cv3gpu.dense_crf(unary, image, method=method, n_iter=2, return_info=True)
    assert tuple(q.shape) == shape
    assert info.divergence.shape == info.energy.shape == (*shape[:-3], 3) and info.change.tolist() == [0.0, 0.0]
    found = cv3gpu.dense_crf_vjp(unary, unary, image, method=method)
    assert tuple(found.unary.shape) == shape and found.image.shape == image.shape
    assert all(np.all(path.numpy(getattr(found, name)) == 0) for name in (*WIDTHS, *COMPATIBILITIES))


@pytest.mark.parametrize("method", METHODS)
def test_nan_stays_in_its_image(path: Any, method: str) -> None:
    made = problem(CASES["a batch"], "float32")
    unary, image = made.unary.copy(), made.image.astype(np.float32)
    clean = path.numpy(cv3gpu.dense_crf(path.array(unary), path.array(image), method=method))
    unary[1, 0, 2, 3] = np.nan
    dirty = path.numpy(cv3gpu.dense_crf(path.array(unary), path.array(image), method=method))
    assert np.array_equal(dirty[0], clean[0]) and np.isnan(dirty[1, :, 2, 3]).all()
    unary, image[1, 2, 3] = made.unary, np.nan
    dirty = path.numpy(cv3gpu.dense_crf(path.array(unary), path.array(image), method=method))
    assert np.array_equal(dirty[0], clean[0]) and np.isnan(dirty[1, :, 2, 3]).all()


@pytest.mark.parametrize("view", ["step", "transposed", "flipped", "expanded", "read-only"])
def test_any_strides(path: Any, view: str) -> None:
    values = np.random.default_rng(7).uniform(0, 3, (2, 4, 5, 7)).astype(np.float32)
    picture = np.random.default_rng(8).uniform(100, 135, (2, 5, 7, 3)).astype(np.float32)
    changes = {
        "step": lambda x, first: x[:, ::2, 1:, ::3] if first else x[:, 1:, ::3, :2],
        "transposed": lambda x, first: x.swapaxes(2, 3) if first else x.swapaxes(1, 2),
        "flipped": lambda x, first: x[..., ::-1] if first else x[:, :, ::-1, ::-1],
        "expanded": lambda x, first: (x.expand if path.is_torch else functools.partial(_broadcast, x))(2, *x.shape[1:]),
        "read-only": lambda x, first: _frozen(x),
    }  # fmt: skip
    if view == "flipped" and path.is_torch:
        pytest.skip("torch has no negative strides")
    if view == "read-only" and not path.is_numpy:
        pytest.skip("NumPy's arrays alone can be read-only")
    if view == "expanded":
        values, picture = values[:1], picture[:1]
    given = [changes[view](path.array(x), k == 0) for k, x in enumerate((values, picture))]
    dense = [path.array(np.ascontiguousarray(path.numpy(x))) for x in given]
    for method in ("lattice", "exact"):
        q = cv3gpu.dense_crf(*given, method=method, n_iter=1)
        assert np.array_equal(path.numpy(q), path.numpy(cv3gpu.dense_crf(*dense, method=method, n_iter=1)))
        found, wanted = (cv3gpu.dense_crf_vjp(x[0], *x, method=method, n_iter=1) for x in (given, dense))
        for a, b in zip(found, wanted, strict=True):
            assert np.array_equal(path.numpy(a), path.numpy(b))


def _broadcast(x: Any, *shape: int) -> Any:
    return _array.module(x).broadcast_to(x, shape)


def _frozen(x: np.ndarray) -> np.ndarray:
    x.flags.writeable = False
    return x


@pytest.mark.parametrize("method", METHODS)
def test_a_batch_is_its_images(path: Any, method: str) -> None:
    made = problem(Case((3, 21, 5, 6)), "float32")
    together = path.numpy(cv3gpu.dense_crf(*made.on(path), method=method, n_iter=2))
    for k in range(3):
        alone = cv3gpu.dense_crf(path.array(made.unary[k]), path.array(made.image[k]), method=method, n_iter=2)
        assert np.array_equal(path.numpy(alone), together[k])


def test_parameters_may_be_tensors() -> None:
    made = problem(Case((3, 5, 6), 3, "float64"), "float64")
    unary, image = made.on(PATHS["torch"])
    plain = {"theta_gamma": [2.0, 3.0], "theta_beta": [9.0, 10.0, 11.0], "compat_smooth": [-1.0, -2.0, -3.0]}
    tensors = {name: torch.tensor(value, requires_grad=True) for name, value in plain.items()}
    got = cv3gpu.dense_crf(unary, image, **tensors)
    assert np.array_equal(got.detach(), cv3gpu.dense_crf(unary, image, **plain))
    found = cv3gpu.dense_crf_vjp(unary, unary, image, **tensors)
    for name, value in tensors.items():
        of_one = getattr(found, name)
        assert (type(of_one), of_one.dtype, of_one.shape) == (torch.Tensor, value.dtype, value.shape)


# ---- how it went ----------------------------------------------------------------------------------------


def objective(q: np.ndarray, unary: np.ndarray, terms: Any) -> float:
    """The sum of q log q + q U, and half of the pairs, point after point; 0 times infinity is 0."""
    total = 0.0
    for i in range(q.shape[1]):
        for label in range(q.shape[0]):
            if q[label, i] > 0:
                total += q[label, i] * (np.log(q[label, i]) + unary[label, i])
        for k, mu in terms:
            total += 0.5 * q[:, i] @ mu @ (q @ k[i])
    return total


def energy(labels: np.ndarray, unary: np.ndarray, terms: Any) -> float:
    """The sum of the labels' unaries and half of mu over all pairs, each point with itself included."""
    chosen = (labels == np.arange(len(unary))[:, None]).astype(float)
    return unary[labels, np.arange(len(labels))].sum() + objective(chosen, np.zeros_like(unary), terms)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    "name", ["odd sizes", "no image", "a batch", "matrices", "vectors", "before", "none", "forbidden labels"]
)
def test_info_by_plain_loops(path: Any, name: str, method: str) -> None:
    made = problem(CASES[name], "float64")
    q, info = cv3gpu.dense_crf(*made.on(path), **made.options, method=method, return_info=True)
    assert np.array_equal(path.numpy(q), path.numpy(cv3gpu.dense_crf(*made.on(path), **made.options, method=method)))
    assert all(type(x) is np.ndarray and x.dtype == np.float64 for x in info)
    every, size = by_brute_force(made, method=method)
    lead = made.unary.shape[:-3]
    assert info.divergence.shape == info.energy.shape == (*lead, len(every)) and info.change.shape == (len(every) - 1,)
    terms = made.unary.size * len(every)
    for where, unary, kernel in images(made, {"method": method}):
        flat = [q[where].reshape(len(unary), -1) for q in every]
        scale = np.full(len(every), size * unary.shape[1])
        wanted = np.array([objective(q, unary, kernel) for q in flat])
        assert_close(info.divergence[where], wanted, "float64", terms, scale)
        wanted = np.array([energy(q.argmax(0), unary, kernel) for q in flat])
        assert_close(info.energy[where], wanted, "float64", terms, scale)
    wanted = np.abs(every[1:] - every[:-1]).reshape(len(every) - 1, -1).max(1)
    assert_close(info.change, wanted, "float64", terms, size * len(every))


@pytest.mark.parametrize("method", METHODS)
def test_where_it_converges_the_objective_falls(path: Any, method: str) -> None:
    made = problem(Case((4, 7, 8), options={"compat_smooth": 0.5, "compat_bilateral": 0.5}), "float64")
    q, info = cv3gpu.dense_crf(*made.on(path), **{**made.options, "n_iter": 12}, method=method, return_info=True)
    assert info.change[-1] < 1e-6 < info.change[0]
    assert info.divergence[-1] < info.divergence[0] - 1e-3
    rise = (
        1e-12 if method == "exact" else 1e-6
    )  # K of a lattice is not quite symmetric, so what it reaches is no minimum
    assert (np.diff(info.divergence) <= rise * np.abs(info.divergence[:-1])).all()
    one_more = cv3gpu.dense_crf(*made.on(path), **{**made.options, "n_iter": 13}, method=method)
    assert np.abs(path.numpy(one_more) - path.numpy(q)).max() <= info.change[-1]


# ---- the filter -----------------------------------------------------------------------------------------


class Cloud(NamedTuple):
    """Points: leading axes, channels, features, their number, and how far they are spread, in widths."""

    channels: int
    features: int
    points: int
    lead: tuple[int, ...] = ()
    spread: float = 1.5
    normalization: str = "symmetric"


def cloud(case: Cloud, dtype: str, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Values and features."""
    rng = np.random.default_rng(seed)
    values = rng.standard_normal((*case.lead, case.channels, case.points))
    features = case.spread * rng.standard_normal((*case.lead, case.features, case.points))
    return values.astype(dtype), features.astype(dtype)


def matrix(features: np.ndarray, method: str, normalization: str) -> np.ndarray:
    """The normalised kernel [N, N] by brute force."""
    k = oracles.pairs(features) if method == "exact" else oracles.lattice(features, *FINE[method == "lattice_fine"])
    return oracles.normalized(k, normalization)


def check_filter(path: Any, case: Cloud, method: str, dtype: str, seed: int = 0) -> None:
    """gaussian_filter on a path against a matrix product."""
    values, features = cloud(case, dtype, seed)
    given = path.array(values), path.array(features)
    got = cv3gpu.gaussian_filter(*given, method=method, normalization=case.normalization)
    assert type(got) is type(given[0]) and got.dtype == given[0].dtype
    wanted, scale = np.empty(values.shape), np.empty(values.shape)
    for where in np.ndindex(case.lead):
        k = matrix(features[where], method, case.normalization)
        wanted[where], scale[where] = values[where] @ k.T, np.abs(values[where]) @ np.abs(k).T
    if method != "exact":  # the barycentric coordinates are differences of coordinates as large as the features
        scale += np.abs(features).max() / 8 * scale.max(-1, keepdims=True)
    assert_close(path.numpy(got), wanted, dtype, max(case.points, 64), scale)
    assert np.array_equal(path.numpy(given[0]), values) and np.array_equal(path.numpy(given[1]), features)


CLOUDS = [
    Cloud(1, 1, 70),
    Cloud(4, 2, 90, normalization="before"),
    Cloud(5, 3, 33, (2,)),
    Cloud(3, 4, 65, normalization="after"),
    Cloud(21, 5, 64, normalization="none"),
    Cloud(2, 6, 40, (2, 2)),
    Cloud(9, 7, 20, normalization="before"),
    Cloud(3, 8, 30),
    Cloud(150, 5, 12),
    Cloud(40, 3, 1),
    Cloud(2, 5, 80, spread=0.0),  # all points in one place
    Cloud(2, 5, 50, spread=100.0),  # none near another
]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("case", CLOUDS, ids=lambda case: "-".join(map(str, case[:3])))
def test_filter_by_brute_force(path: Any, case: Cloud, method: str) -> None:
    turn = CLOUDS.index(case) + METHODS.index(method)
    check_filter(path, case, method, DTYPES[turn % 2])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("features", range(1, 9))
def test_filter_of_any_cloud(features: int, dtype: str) -> None:
    rng = np.random.default_rng(features)
    for seed in range(9):
        lead = [(), (2,), (1, 2)][rng.integers(3)]
        case = Cloud(int(rng.integers(1, 30)), features, int(rng.integers(1, 40)), lead, float(rng.lognormal(0, 0.7)))
        case = case._replace(normalization=NORMALIZATIONS[rng.integers(4)])
        check_filter(PATHS["numpy"], case, METHODS[seed % 3], dtype, seed)


@pytest.mark.parametrize("shape", [(0, 3, 4), (3, 0), (2, 0, 3, 4)])
@pytest.mark.parametrize("method", METHODS)
def test_filter_of_nothing(path: Any, shape: tuple[int, ...], method: str) -> None:
    values = path.array(np.zeros(shape, np.float32))
    features = path.array(np.zeros((*shape[:-2], 5, shape[-1]), np.float32))
    assert tuple(cv3gpu.gaussian_filter(values, features, method=method).shape) == shape
    found = cv3gpu.gaussian_filter_vjp(values, values, features, method=method)
    assert found.values.shape == values.shape and found.features.shape == features.shape


def test_filter_of_any_strides(path: Any) -> None:
    values, features = (path.array(x) for x in cloud(Cloud(6, 8, 40, (2,)), "float32"))
    given = values[:, ::2, 5:], features[:, 1:6, 5:]
    dense = [path.array(np.ascontiguousarray(path.numpy(x))) for x in given]
    for method in METHODS:
        for ways in ((given, dense), (tuple(x.swapaxes(1, 2).swapaxes(2, 1) for x in given), dense)):
            a, b = (path.numpy(cv3gpu.gaussian_filter(*x, method=method)) for x in ways)
            assert np.array_equal(a, b)
        found, wanted = (cv3gpu.gaussian_filter_vjp(x[0], *x, method=method) for x in (given, dense))
        assert all(np.array_equal(path.numpy(a), path.numpy(b)) for a, b in zip(found, wanted, strict=True))


@pytest.mark.parametrize("features", [1, 2, 3])
def test_fine_lattice_is_right_where_points_are_dense(cpu_path: Any, features: int) -> None:
    side, step = {1: (4000, 0.004), 2: (120, 0.08), 3: (50, 0.2)}[features]
    place = np.stack(np.meshgrid(*[np.arange(side) * step] * features)).reshape(features, -1)
    ones = cpu_path.array(np.ones((1, place.shape[1])))
    total = cpu_path.numpy(
        cv3gpu.gaussian_filter(ones, cpu_path.array(place), method="lattice_fine", normalization="none")
    )
    middle = (np.abs(place - side * step / 2) < 0.5).all(0)
    wanted = (2 * np.pi) ** (features / 2) / step**features
    np.testing.assert_allclose(total[0, middle].mean(), wanted, rtol=0.02)


def test_distant_features_do_not_grow(path: Any) -> None:
    for features in (1e4, 1e6, 1e7):
        values, place = cloud(Cloud(2, 5, 20), "float64")
        place[0, :10] += features
        for method in METHODS:
            got = cv3gpu.gaussian_filter(path.array(values), path.array(place), method=method, normalization="none")
            k = matrix(place, method, "none")
            assert_close(path.numpy(got), values @ k.T, "float64", 64, features * np.abs(values) @ k.T)


# ---- gradients ------------------------------------------------------------------------------------------

# Seeds and widths are such that no point changes its simplex within a step: a lattice has a kink there, or a jump
# where a vertex comes or goes.
STEP = 1e-5  # of central differences, times the size of what is moved
SLOPE = 2e-6  # how near these come, by the largest slope: their own error is about 1e-7


def difference(call: Any, x: np.ndarray, way: np.ndarray) -> float:
    """The slope of a number along a way by central differences, with four points."""
    step = STEP * max(1.0, float(np.abs(x).max()))
    near, far = ((call(x + k * step * way) - call(x - k * step * way)) / (2 * k * step) for k in (1, 2))
    return (4 * near - far) / 3


SETTINGS = {
    "numbers": {
        "theta_gamma": 2.1,
        "theta_alpha": 4.3,
        "theta_beta": 12.7,
        "compat_smooth": 1.0,
        "compat_bilateral": 2.0,
    },
    "one for each": {
        "theta_gamma": (1.5, 2.5),
        "theta_alpha": [3.0, 5.0],
        "theta_beta": np.array([9.0, 12.0, 15.0]),
        "compat_smooth": [-1.0, -2.0, -0.5, 1.0],
        "compat_bilateral": np.array([-2.0, -1.0, 0.5, -1.5]),
    },
    "matrices": {
        "theta_gamma": np.array([1.5, 2.5]),
        "theta_alpha": 4.3,
        "theta_beta": 12.7,
        "compat_smooth": SYMMETRIC[:4, :4],
        "compat_bilateral": -0.5 * np.eye(4) + 0.3 * SYMMETRIC[1:, 1:],
    },
}


@pytest.mark.parametrize("normalization", NORMALIZATIONS)
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("setting", SETTINGS)
def test_gradients_by_differences(setting: str, method: str, normalization: str) -> None:
    made = problem(Case((4, 4, 5), 3, "float64"), "float64", seed=3)
    options = {**SETTINGS[setting], "n_iter": 3, "method": method, "normalization": normalization}
    weight = 0.3 if normalization == "none" else 1.0
    options |= {name: weight * np.asarray(options[name]) for name in COMPATIBILITIES}
    rng = np.random.default_rng(1)
    grad = rng.standard_normal(made.unary.shape)
    start = {"unary": made.unary, "image": made.image, **{name: options[name] for name in (*WIDTHS, *COMPATIBILITIES)}}
    found = cv3gpu.dense_crf_vjp(grad, made.unary, made.image, **options)
    for name, value in start.items():
        at = np.asarray(value, np.float64)
        slopes = np.asarray(getattr(found, name))
        assert slopes.shape == at.shape and slopes.dtype == np.float64

        def moved(x: np.ndarray, name: str = name) -> float:
            changed = {**options, "unary": made.unary, "image": made.image, name: x}
            return float((grad * cv3gpu.dense_crf(**changed)).sum())

        if name in ("unary", "image"):
            ways = rng.standard_normal((3, *at.shape)) * (rng.random((3, *at.shape)) < 0.2)
        else:
            ways = np.eye(at.size).reshape(-1, *at.shape)
            slopes = (slopes + slopes.T) / 2 if at.ndim == 2 else slopes  # a matrix acts by its symmetric part
        wanted = np.array([difference(moved, at, way) for way in ways])
        got = np.array([(slopes * way).sum() for way in ways])
        assert np.abs(got - wanted).max() <= SLOPE * max(np.abs(wanted).max(), 1e-2), name


@pytest.mark.parametrize("normalization", NORMALIZATIONS)
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("features", [1, 2, 3, 5, 8])
def test_filter_gradients_by_differences(features: int, method: str, normalization: str) -> None:
    values, place = cloud(Cloud(3, features, 14, spread=0.8), "float64", seed=5)
    options = {"method": method, "normalization": normalization}
    rng = np.random.default_rng(2)
    grad = rng.standard_normal(values.shape)
    found = cv3gpu.gaussian_filter_vjp(grad, values, place, **options)
    assert found.values.shape == values.shape and found.features.shape == place.shape
    for at, slopes, moved in (
        (values, found.values, lambda x: (grad * cv3gpu.gaussian_filter(x, place, **options)).sum()),
        (place, found.features, lambda x: (grad * cv3gpu.gaussian_filter(values, x, **options)).sum()),
    ):
        ways = rng.standard_normal((4, *at.shape))
        wanted = np.array([difference(moved, at, way) for way in ways])
        got = np.array([(slopes * way).sum() for way in ways])
        assert np.abs(got - wanted).max() <= SLOPE * max(np.abs(wanted).max(), 1e-2)


GRADIENT_CASES = [
    "one pixel", "odd sizes", "one label", "two tiles of pairs", "150 labels", "a batch", "six channels, a width for each",
    "a batch of grey images", "no image", "other widths along y", "vectors", "matrices", "vector and matrix", "before",
    "after", "none", "no iterations", "forbidden labels",
]  # fmt: skip


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", GRADIENT_CASES)
def test_gradients_on_every_path(path: Any, name: str, method: str) -> None:
    case = CASES[name]._replace(image="float32")
    dtype = DTYPES[(GRADIENT_CASES.index(name) + METHODS.index(method)) % 2]
    made = problem(case, "float32")  # the same numbers in both
    grad = np.random.default_rng(5).standard_normal(case.shape)
    options = {**made.options, "method": method}
    with on_the_cpu():
        image = None if made.image is None else made.image.astype(np.float64)
        wide = {k: v.astype(np.float64) if isinstance(v, np.ndarray) else v for k, v in options.items()}
        wanted = cv3gpu.dense_crf_vjp(grad, made.unary.astype(np.float64), image, **wide)
    unary, image = path.array(made.unary, dtype), None if made.image is None else path.array(made.image, dtype)
    found = cv3gpu.dense_crf_vjp(path.array(grad, dtype), unary, image, **options)
    for argument, slopes in zip(ARGUMENTS, wanted, strict=True):
        got = getattr(found, argument)
        if slopes is None:
            assert got is None
            continue
        given = {"unary": unary, "image": image, **options}.get(argument)
        if path.is_numpy:
            assert type(got) is np.ndarray and got.dtype == (given.dtype if _array.family(given) else np.float64)
        limit = (GRADIENT if method == "exact" else ON_A_LATTICE)[min(dtype, _array.dtype_name(got))]
        assert relative(got, np.asarray(slopes, np.float64)) <= limit, argument


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("case", CLOUDS[:10:2], ids=lambda case: "-".join(map(str, case[:3])))
def test_filter_gradients_on_every_path(path: Any, case: Cloud, method: str) -> None:
    dtype = DTYPES[(CLOUDS.index(case) + METHODS.index(method)) % 2]
    values, features = cloud(case, "float32")
    grad = np.random.default_rng(6).standard_normal(values.shape).astype(np.float32)
    options = {"method": method, "normalization": case.normalization}
    with on_the_cpu():
        wanted = cv3gpu.gaussian_filter_vjp(*(x.astype(np.float64) for x in (grad, values, features)), **options)
    given = [path.array(x, dtype) for x in (grad, values, features)]
    found = cv3gpu.gaussian_filter_vjp(*given, **options)
    for got, slopes in zip(found, wanted, strict=True):
        assert type(got) is type(given[0]) and got.dtype == given[0].dtype
        assert relative(got, slopes) <= (GRADIENT if method == "exact" else ON_A_LATTICE)[dtype]


@pytest.mark.parametrize("method", ["lattice", "exact"])
def test_only_what_is_needed(path: Any, method: str) -> None:
    made = problem(Case((3, 4, 5), 3, "float32"), "float32")
    unary, image = made.on(path)
    every = cv3gpu.dense_crf_vjp(unary, unary, image, method=method, n_iter=1)
    wishes = [tuple(k == only for k in range(7)) for only in range(0, 7, 1 if path.name != "host" else 3)] + [
        (False,) * 7
    ]
    for needs in wishes:
        found = cv3gpu.dense_crf_vjp(unary, unary, image, method=method, n_iter=1, needs=needs)
        for wish, got, whole in zip(needs, found, every, strict=True):
            assert got is None if not wish else np.array_equal(path.numpy(got), path.numpy(whole))
    whole = cv3gpu.gaussian_filter_vjp(unary[0], unary[0], unary[1], method=method)
    for needs in ((True, False), (False, True), (False, False)):
        found = cv3gpu.gaussian_filter_vjp(unary[0], unary[0], unary[1], method=method, needs=needs)
        for wish, got, wanted in zip(needs, found, whole, strict=True):
            assert got is None if not wish else np.array_equal(path.numpy(got), path.numpy(wanted))


def test_an_image_of_integers_has_no_gradient(path: Any) -> None:
    unary, image = problem(Case((3, 4, 5)), "float32").on(path)
    found = cv3gpu.dense_crf_vjp(unary, unary, image)
    assert found.image is None and found.theta_beta is not None
    assert cv3gpu.dense_crf_vjp(unary, unary).image is None


def test_what_has_no_effect_has_no_slope(path: Any) -> None:
    unary, image = problem(Case((3, 4, 5), 3, "float32"), "float32").on(path)
    for found in (
        cv3gpu.dense_crf_vjp(unary, unary, theta_alpha=(3.0, 4.0)),
        cv3gpu.dense_crf_vjp(unary, unary, image, n_iter=0),
    ):
        assert not path.numpy(found.theta_alpha).any() and not path.numpy(found.compat_bilateral).any()
        assert not path.numpy(found.theta_beta).any() and path.numpy(found.unary).any()


# ---- the same from run to run ---------------------------------------------------------------------------


def everything(
    path: Any, size: tuple[int, int] = (9, 11), seed: int = 0, methods: tuple[str, ...] = METHODS
) -> list[np.ndarray]:
    """Results of every operator."""
    made = problem(Case((5, *size), 3, "float32"), "float32", seed)
    unary, image = made.on(path)
    flat = unary.reshape(5, -1)
    found: list[Any] = []
    for method in methods:
        found += [cv3gpu.dense_crf(unary, image, method=method, n_iter=2)]
        found += cv3gpu.dense_crf_vjp(unary, unary, image, method=method, n_iter=1)
        found += [cv3gpu.gaussian_filter(flat[:2], flat[2:], method=method)]
        found += cv3gpu.gaussian_filter_vjp(flat[:2], flat[:2], flat[2:], method=method)
    return [path.numpy(x) for x in found]


def test_runs_are_equal_to_the_bit(path: Any) -> None:
    first = everything(path)
    for seed in range(3 if path.name == "host" else 20):
        if path.name == "host":  # threads and blocks in another order
            backend = _array.host_backend.get()
            backend.options = dataclasses.replace(backend.options, seed=seed + 2)
        assert all(np.array_equal(a, b) for a, b in zip(everything(path), first, strict=True))


DIGEST = """
import hashlib
from tests import test_crf
from tests.conftest import PATHS
found = test_crf.everything(PATHS["numpy"], (97, 101), methods=("lattice", "lattice_fine"))
found += test_crf.everything(PATHS["numpy"], (45, 51), methods=("exact",))  # each so large that work is shared out
print(hashlib.sha256(b"".join(x.tobytes() for x in found)).hexdigest())
"""


def test_cores_do_not_change_a_bit() -> None:
    said = set()
    for cores in ("1", "2"):
        environment = {**os.environ, "OMP_NUM_THREADS": cores}
        command = [sys.executable, "-c", DIGEST]
        root = Path(__file__).resolve().parents[1]
        said.add(subprocess.run(command, env=environment, cwd=root, check=True, capture_output=True, text=True).stdout)
    assert len(said) == 1 and len(said.pop()) == 65


def test_threads_may_call_at_once(cpu_path: Any) -> None:
    wanted = [everything(cpu_path, (5, 6), seed) for seed in range(4)]
    with ThreadPoolExecutor(8) as pool:
        for seed, found in enumerate(pool.map(lambda k: everything(cpu_path, (5, 6), k % 4), range(40))):
            assert all(np.array_equal(a, b) for a, b in zip(found, wanted[seed % 4], strict=True))


# ---- properties -----------------------------------------------------------------------------------------

seeds = st.integers(0, 2**32 - 1)
methods = st.sampled_from(METHODS)
often = settings(max_examples=30, deadline=None)
ROUNDING = TABLE["float64"].accumulation


def near(got: Any, wanted: Any, size: float) -> None:
    """Equal but for some thousand roundings of numbers of a size."""
    assert np.abs(np.asarray(got) - np.asarray(wanted)).max(initial=0.0) <= 5000 * ROUNDING * size


def any_problem(seed: int) -> Problem:
    """Of any kind, in float64."""
    rng = np.random.default_rng(seed)
    return problem(random_case(rng), "float64", seed % 1000)


@often
@given(seeds, methods)
def test_marginals_sum_to_one(seed: int, method: str) -> None:
    made = any_problem(seed)
    q = cv3gpu.dense_crf(made.unary, made.image, **made.options, method=method)
    assert (q >= 0).all()
    near(q.sum(-3), 1.0, 1.0)


@often
@given(seeds, methods)
def test_labels_of_potts_may_be_renamed(seed: int, method: str) -> None:
    made = any_problem(seed)
    options = {**made.options, "compat_smooth": 1.0, "compat_bilateral": 1.5, "method": method}
    order = np.random.default_rng(seed).permutation(made.unary.shape[-3])
    q = cv3gpu.dense_crf(made.unary, made.image, **options)
    near(cv3gpu.dense_crf(made.unary[..., order, :, :], made.image, **options), q[..., order, :, :], 10.0)


@often
@given(seeds, methods)
def test_a_constant_in_a_pixels_unaries_changes_nothing(seed: int, method: str) -> None:
    made = any_problem(seed)
    shift = np.random.default_rng(seed).uniform(-5, 5, made.unary[..., :1, :, :].shape)
    options = {**made.options, "method": method}
    near(
        cv3gpu.dense_crf(made.unary + shift, made.image, **options),
        cv3gpu.dense_crf(made.unary, made.image, **options),
        10.0,
    )


@often
@given(seeds)
def test_a_mirrored_image_has_mirrored_marginals(seed: int) -> None:
    made = any_problem(seed)
    options = {**made.options, "method": "exact"}
    image = made.image
    if image is not None:
        image = image[..., ::-1] if image.ndim == made.unary.ndim - 1 else image[..., ::-1, :]
    q = cv3gpu.dense_crf(made.unary, made.image, **options)
    near(cv3gpu.dense_crf(made.unary[..., ::-1], image, **options), q[..., ::-1], 10.0)


@often
@given(seeds, methods)
def test_a_gradient_is_linear_and_blind_to_constants(seed: int, method: str) -> None:
    made = any_problem(seed)
    rng = np.random.default_rng(seed)
    a, b = rng.standard_normal((2, *made.unary.shape))
    given = (made.unary, None if made.image is None else made.image.astype(np.float64))

    def gradient(grad: np.ndarray) -> list[np.ndarray]:
        found = cv3gpu.dense_crf_vjp(grad, *given, **made.options, method=method)
        return [np.asarray(x) for x in found if x is not None]

    of_a, of_b, of_both = gradient(a), gradient(b), gradient(2 * a - b)
    size = 100 * max(np.abs(x).max(initial=1.0) for x in (*of_a, *of_b))
    for x, y, z in zip(of_a, of_b, of_both, strict=True):
        near(z, 2 * x - y, size)
    same = np.broadcast_to(rng.standard_normal(made.unary[..., :1, :, :].shape), made.unary.shape)
    for x in gradient(same):  # the marginals of a pixel always sum to one
        near(x, 0.0, size)
    near(of_a[0].sum(-3), 0.0, size)  # and a constant in its unaries changes nothing


def any_cloud(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Values and features, in float64."""
    rng = np.random.default_rng(seed)
    lead = [(), (2,)][rng.integers(2)]
    case = Cloud(
        int(rng.integers(1, 10)), int(rng.integers(1, 9)), int(rng.integers(1, 80)), lead, float(rng.lognormal())
    )
    return cloud(case, "float64", seed)


@often
@given(seeds, methods)
def test_an_average_of_ones_is_one(seed: int, method: str) -> None:
    values, features = any_cloud(seed)
    ones = np.ones_like(values)
    near(cv3gpu.gaussian_filter(ones, features, method=method, normalization="after"), 1.0, 1.0)
    before = cv3gpu.gaussian_filter(values, features, method=method, normalization="before")
    if method == "exact":  # what a point gives away is all that it has
        near(before.sum(-1), values.sum(-1), 100.0)


@often
@given(seeds, st.sampled_from(("none", "symmetric")))
def test_k_is_symmetric(seed: int, normalization: str) -> None:
    values, features = any_cloud(seed)
    other = np.random.default_rng(seed).standard_normal(values.shape)
    options = {"method": "exact", "normalization": normalization}
    forth = (other * cv3gpu.gaussian_filter(values, features, **options)).sum()
    back = (values * cv3gpu.gaussian_filter(other, features, **options)).sum()
    near(forth, back, values.size * 100.0)


@often
@given(seeds, methods, st.sampled_from(NORMALIZATIONS))
def test_a_filter_is_linear(seed: int, method: str, normalization: str) -> None:
    values, features = any_cloud(seed)
    other = np.random.default_rng(seed).standard_normal(values.shape)
    run = functools.partial(cv3gpu.gaussian_filter, features=features, method=method, normalization=normalization)
    near(run(2 * values - other), 2 * run(values) - run(other), 100.0 * values.shape[-1])


@often
@given(seeds)
def test_only_distances_matter(seed: int) -> None:
    values, features = any_cloud(seed)
    rng = np.random.default_rng(seed)
    turn = np.linalg.qr(rng.standard_normal((features.shape[-2],) * 2))[0]
    moved = turn @ features + rng.standard_normal((features.shape[-2], 1))
    run = functools.partial(cv3gpu.gaussian_filter, values, method="exact", normalization="none")
    near(run(moved), run(features), 1000.0)


@often
@given(seeds, methods, st.sampled_from(NORMALIZATIONS))
def test_the_filters_gradient_is_its_adjoint(seed: int, method: str, normalization: str) -> None:
    values, features = any_cloud(seed)
    grad = np.random.default_rng(seed).standard_normal(values.shape)
    options = {"method": method, "normalization": normalization}
    found = cv3gpu.gaussian_filter_vjp(grad, values, features, **options)
    size = 100.0 * values.size
    near((found.values * values).sum(), (grad * cv3gpu.gaussian_filter(values, features, **options)).sum(), size)
    again = cv3gpu.gaussian_filter_vjp(3 * grad, values, features, **options)
    near(again.values, 3 * found.values, size)
    near(again.features, 3 * found.features, size)
    if method == "exact":  # nothing changes when all points move together
        near(found.features.sum(-1), 0.0, size)


# ---- what is refused ------------------------------------------------------------------------------------

U, I = np.zeros((2, 3, 4)), np.zeros((3, 4, 3), np.uint8)  # noqa: E741
V, X = np.zeros((2, 5)), np.zeros((3, 5))
Bad = tuple[dict[str, Any], type[Exception], str]

AN_ARRAY = "must be a NumPy, CuPy or torch array, got"
FLOAT = "must have dtype float32 or float64, got"
MATCH = "must have shape [3, 4, C] with C from 1 to 6, or [3, 4], to match unary (2, 3, 4), got"
MU = "must be a number, or have shape [2] or [2, 2] to match unary, got"
MU_KIND = "must be a number, a vector [L] or a matrix [L, L], got"
PAIR = "must be a number or a pair (x, y), got"
EACH = "must be a number or one for each of the 3 channels, got"
ONE_METHOD = "must be one of 'lattice', 'lattice_fine', 'exact', got"
ONE_NORMALIZATION = "must be one of 'none', 'before', 'after', 'symmetric', got"

BAD: list[Bad] = [
    ({"unary": None}, TypeError, f"unary {AN_ARRAY} None"),
    ({"unary": [[1.0]]}, TypeError, f"unary {AN_ARRAY} list"),
    ({"unary": "unary"}, TypeError, f"unary {AN_ARRAY} str"),
    ({"unary": np.ma.array(U)}, TypeError, f"unary {AN_ARRAY} MaskedArray"),
    ({"unary": U.astype(np.int32)}, TypeError, f"unary {FLOAT} int32"),
    ({"unary": U.astype(bool)}, TypeError, f"unary {FLOAT} bool"),
    ({"unary": U.astype(np.complex128)}, TypeError, f"unary {FLOAT} complex128"),
    ({"unary": U.astype(np.float16)}, TypeError, f"unary {FLOAT} float16"),
    ({"unary": U.astype(object)}, TypeError, f"unary {FLOAT} object"),
    ({"unary": U.astype(">f8")}, TypeError, "unary must be in native byte order, got >f8"),
    ({"unary": np.array(1.0)}, ValueError, "unary must have shape [..., L, H, W], got ()"),
    ({"unary": U[0]}, ValueError, "unary must have shape [..., L, H, W], got (3, 4)"),
    ({"unary": U[:0]}, ValueError, "unary must have 1 to 1024 labels (axis -3), got 0"),
    ({"unary": np.zeros((1025, 3, 4))}, ValueError, "unary must have 1 to 1024 labels (axis -3), got 1025"),
    ({"image": [[1.0]]}, TypeError, f"image {AN_ARRAY} list"),
    ({"image": 3}, TypeError, f"image {AN_ARRAY} int"),
    ({"image": I.astype(np.int32)}, TypeError, "image must have dtype uint8 or float32 or float64, got int32"),
    ({"image": I.astype(np.float16)}, TypeError, "image must have dtype uint8 or float32 or float64, got float16"),
    ({"image": I.astype(bool)}, TypeError, "image must have dtype uint8 or float32 or float64, got bool"),
    ({"image": I.astype(np.complex64)}, TypeError, "image must have dtype uint8 or float32 or float64, got complex64"),
    ({"image": I.astype(">f4")}, TypeError, "image must be in native byte order, got >f4"),
    ({"image": np.array(1.0)}, ValueError, f"image {MATCH} ()"),
    ({"image": np.zeros(3)}, ValueError, f"image {MATCH} (3,)"),
    ({"image": I[:2]}, ValueError, f"image {MATCH} (2, 4, 3)"),
    ({"image": I[..., 0].T}, ValueError, f"image {MATCH} (4, 3)"),
    ({"image": np.zeros((3, 3, 4), np.uint8)}, ValueError, f"image {MATCH} (3, 3, 4)"),
    ({"image": I[..., :0]}, ValueError, f"image {MATCH} (3, 4, 0)"),
    ({"image": np.zeros((3, 4, 7), np.uint8)}, ValueError, f"image {MATCH} (3, 4, 7)"),
    ({"image": I[None]}, ValueError, f"image {MATCH} (1, 3, 4, 3)"),
    ({"unary": U[None]}, ValueError, "image must have shape [1, 3, 4, C] with C from 1 to 6, or [1, 3, 4], to match unary (1, 2, 3, 4), got (3, 4, 3)"),
    ({"theta_gamma": 0}, ValueError, "theta_gamma must be finite and positive, got 0"),
    ({"theta_gamma": -1.0}, ValueError, "theta_gamma must be finite and positive, got -1.0"),
    ({"theta_gamma": float("nan")}, ValueError, "theta_gamma must be finite and positive, got nan"),
    ({"theta_gamma": "3"}, TypeError, "theta_gamma must be a number, got '3' (str)"),
    ({"theta_gamma": None}, TypeError, "theta_gamma must be a number, got None (None)"),
    ({"theta_gamma": True}, TypeError, "theta_gamma must be a number, got True (bool)"),
    ({"theta_gamma": (1.0,)}, ValueError, f"theta_gamma {PAIR} (1.0,)"),
    ({"theta_gamma": []}, ValueError, f"theta_gamma {PAIR} []"),
    ({"theta_gamma": np.ones(3)}, ValueError, f"theta_gamma {PAIR} [1.0, 1.0, 1.0]"),
    ({"theta_gamma": (1.0, -2.0)}, ValueError, "theta_gamma must be finite and positive, got -2.0"),
    ({"theta_alpha": float("inf")}, ValueError, "theta_alpha must be finite and positive, got inf"),
    ({"theta_alpha": (1, 2, 3)}, ValueError, f"theta_alpha {PAIR} (1, 2, 3)"),
    ({"theta_alpha": (1, None)}, TypeError, "theta_alpha must be a number, got None (None)"),
    ({"theta_alpha": np.ones((1, 2))}, ValueError, f"theta_alpha {PAIR} [[1.0, 1.0]]"),
    ({"theta_alpha": 1j}, TypeError, "theta_alpha must be a number, got 1j (complex)"),
    ({"theta_alpha": {1: 2}}, TypeError, "theta_alpha must be a number, got {1: 2} (dict)"),
    ({"theta_beta": 0.0}, ValueError, "theta_beta must be finite and positive, got 0.0"),
    ({"theta_beta": (1, 2)}, ValueError, f"theta_beta {EACH} (1, 2)"),
    ({"theta_beta": np.ones(4)}, ValueError, f"theta_beta {EACH} [1.0, 1.0, 1.0, 1.0]"),
    ({"theta_beta": (1, 2, "3")}, TypeError, "theta_beta must be a number, got '3' (str)"),
    ({"theta_beta": (1, 2, float("nan"))}, ValueError, "theta_beta must be finite and positive, got nan"),
    ({"compat_smooth": "3"}, TypeError, f"compat_smooth {MU_KIND} str"),
    ({"compat_smooth": None}, TypeError, f"compat_smooth {MU_KIND} None"),
    ({"compat_smooth": True}, TypeError, f"compat_smooth {MU_KIND} bool"),
    ({"compat_smooth": 1j}, TypeError, f"compat_smooth {MU_KIND} complex"),
    ({"compat_smooth": [[1, 2], [3]]}, ValueError, f"compat_smooth {MU_KIND} [[1, 2], [3]]"),
    ({"compat_smooth": ["a", "b"]}, ValueError, f"compat_smooth {MU_KIND} ['a', 'b']"),
    ({"compat_smooth": [1, 2, 3]}, ValueError, f"compat_smooth {MU} (3,)"),
    ({"compat_smooth": np.ones((1, 2, 2))}, ValueError, f"compat_smooth {MU} (1, 2, 2)"),
    ({"compat_smooth": float("nan")}, ValueError, "compat_smooth must be finite, got nan"),
    ({"compat_bilateral": np.ones((2, 3))}, ValueError, f"compat_bilateral {MU} (2, 3)"),
    ({"compat_bilateral": float("inf")}, ValueError, "compat_bilateral must be finite, got inf"),
    ({"compat_bilateral": [1.0, float("nan")]}, ValueError, "compat_bilateral must be finite, got [1.0, nan]"),
    ({"compat_bilateral": {1: 2}}, TypeError, f"compat_bilateral {MU_KIND} dict"),
    ({"n_iter": -1}, ValueError, "n_iter must be from 0 to 2147483647, got -1"),
    ({"n_iter": 2**31}, ValueError, "n_iter must be from 0 to 2147483647, got 2147483648"),
    ({"n_iter": 1.5}, TypeError, "n_iter must be an integer, got 1.5 (float)"),
    ({"n_iter": "3"}, TypeError, "n_iter must be an integer, got '3' (str)"),
    ({"n_iter": None}, TypeError, "n_iter must be an integer, got None (None)"),
    ({"n_iter": True}, TypeError, "n_iter must be an integer, got True (bool)"),
    ({"method": "Lattice"}, ValueError, f"method {ONE_METHOD} 'Lattice'"),
    ({"method": None}, ValueError, f"method {ONE_METHOD} None"),
    ({"method": 3}, ValueError, f"method {ONE_METHOD} 3"),
    ({"normalization": "sym"}, ValueError, f"normalization {ONE_NORMALIZATION} 'sym'"),
    ({"normalization": None}, ValueError, f"normalization {ONE_NORMALIZATION} None"),
    ({"normalization": True}, ValueError, f"normalization {ONE_NORMALIZATION} True"),
]  # fmt: skip
BAD_FORWARD: list[Bad] = [
    ({"return_info": 1}, TypeError, "return_info must be True or False, got 1 (int)"),
    ({"return_info": None}, TypeError, "return_info must be True or False, got None (None)"),
    ({"return_info": "yes"}, TypeError, "return_info must be True or False, got 'yes' (str)"),
    ({"image": torch.from_numpy(I)}, TypeError, "all arrays must be of one library and on one device, got unary is numpy on cpu, image is torch on cpu"),
    ({"unary": torch.from_numpy(U)}, TypeError, "all arrays must be of one library and on one device, got unary is torch on cpu, image is numpy on cpu"),
]  # fmt: skip
BAD_BACKWARD: list[Bad] = [
    ({"grad": None}, TypeError, f"grad {AN_ARRAY} None"),
    ({"grad": [1.0]}, TypeError, f"grad {AN_ARRAY} list"),
    ({"grad": U.astype(">f8")}, TypeError, "grad must be in native byte order, got >f8"),
    ({"grad": U[:1]}, ValueError, "grad must have shape [2, 3, 4], got (1, 3, 4)"),
    ({"grad": U[None]}, ValueError, "grad must have shape [2, 3, 4], got (1, 2, 3, 4)"),
    ({"grad": U.astype(np.float32)}, TypeError, "grad must have the dtype of unary (float64), got float32"),
    ({"grad": U.astype(int)}, TypeError, "grad must have the dtype of unary (float64), got int64"),
    ({"grad": torch.from_numpy(U)}, TypeError, "all arrays must be of one library and on one device, got grad is torch on cpu, unary is numpy on cpu, image is numpy on cpu"),
]  # fmt: skip
NO_FEATURES = "features must have shape [..., D, N], got"
BAD_FILTER: list[Bad] = [
    ({"values": None}, TypeError, f"values {AN_ARRAY} None"),
    ({"values": [1.0]}, TypeError, f"values {AN_ARRAY} list"),
    ({"values": V.astype(int)}, TypeError, f"values {FLOAT} int64"),
    ({"values": V.astype(bool)}, TypeError, f"values {FLOAT} bool"),
    ({"values": V.astype(complex)}, TypeError, f"values {FLOAT} complex128"),
    ({"values": V.astype(np.float16)}, TypeError, f"values {FLOAT} float16"),
    ({"values": V.astype(">f8")}, TypeError, "values must be in native byte order, got >f8"),
    ({"values": np.array(1.0)}, ValueError, "values must have shape [..., C, N], got ()"),
    ({"values": V[0]}, ValueError, "values must have shape [..., C, N], got (5,)"),
    ({"values": V[:0]}, ValueError, "values must have 1 to 1024 channels (axis -2), got 0"),
    ({"values": np.zeros((1025, 5))}, ValueError, "values must have 1 to 1024 channels (axis -2), got 1025"),
    ({"values": V[:, :4]}, ValueError, "features must have shape [D, 4], got (3, 5); values have shape (2, 4)"),
    ({"values": V[None]}, ValueError, "features must have shape [1, D, 5], got (3, 5); values have shape (1, 2, 5)"),
    ({"values": V.astype(np.float32)}, TypeError, "features must have the dtype of values (float32), got float64"),
    ({"features": None}, TypeError, f"features {AN_ARRAY} None"),
    ({"features": "x"}, TypeError, f"features {AN_ARRAY} str"),
    ({"features": X.astype(int)}, TypeError, "features must have the dtype of values (float64), got int64"),
    ({"features": X.astype(np.float16)}, TypeError, "features must have the dtype of values (float64), got float16"),
    ({"features": X.astype(np.float32)}, TypeError, "features must have the dtype of values (float64), got float32"),
    ({"features": X.astype(">f8")}, TypeError, "features must be in native byte order, got >f8"),
    ({"features": np.array(1.0)}, ValueError, f"{NO_FEATURES} ()"),
    ({"features": X[0]}, ValueError, f"{NO_FEATURES} (5,)"),
    ({"features": X[:0]}, ValueError, "features must have 1 to 8 dimensions (axis -2), got 0"),
    ({"features": np.zeros((9, 5))}, ValueError, "features must have 1 to 8 dimensions (axis -2), got 9"),
    ({"features": X[:, :4]}, ValueError, "features must have shape [D, 5], got (3, 4); values have shape (2, 5)"),
    ({"features": X[None]}, ValueError, "features must have shape [D, 5], got (1, 3, 5); values have shape (2, 5)"),
    ({"method": "x"}, ValueError, f"method {ONE_METHOD} 'x'"),
    ({"method": None}, ValueError, f"method {ONE_METHOD} None"),
    ({"normalization": "x"}, ValueError, f"normalization {ONE_NORMALIZATION} 'x'"),
    ({"normalization": 3}, ValueError, f"normalization {ONE_NORMALIZATION} 3"),
]
BAD_FILTER_FORWARD: list[Bad] = [
    ({"features": torch.from_numpy(X)}, TypeError, "all arrays must be of one library and on one device, got values is numpy on cpu, features is torch on cpu"),
    ({"values": torch.from_numpy(V)}, TypeError, "all arrays must be of one library and on one device, got values is torch on cpu, features is numpy on cpu"),
]  # fmt: skip
BAD_FILTER_BACKWARD: list[Bad] = [
    ({"grad": None}, TypeError, f"grad {AN_ARRAY} None"),
    ({"grad": V[0]}, ValueError, "grad must have shape [2, 5], got (5,)"),
    ({"grad": V[:1]}, ValueError, "grad must have shape [2, 5], got (1, 5)"),
    ({"grad": V.astype(np.float32)}, TypeError, "grad must have the dtype of values (float64), got float32"),
    ({"grad": V.astype(int)}, TypeError, "grad must have the dtype of values (float64), got int64"),
    ({"grad": V.astype(">f8")}, TypeError, "grad must be in native byte order, got >f8"),
]


def like(x: Any, plain: np.ndarray) -> np.ndarray:
    """A grad that fits an argument, as far as that is an array at all."""
    fits = type(x) is np.ndarray and x.dtype.isnative
    return x if fits else plain


def refusals() -> Iterator[tuple[str, dict[str, Any], type[Exception], str]]:
    """Operator, arguments, class and text."""
    for changed, error, text in BAD + BAD_FORWARD:
        yield "dense_crf", {"unary": U, "image": I, **changed}, error, text
    for changed, error, text in BAD + BAD_BACKWARD:
        yield "dense_crf_vjp", {"grad": like(changed.get("unary"), U), "unary": U, "image": I, **changed}, error, text
    for changed, error, text in BAD_FILTER + BAD_FILTER_FORWARD:
        yield "gaussian_filter", {"values": V, "features": X, **changed}, error, text
    for changed, error, text in BAD_FILTER + BAD_FILTER_BACKWARD:
        yield (
            "gaussian_filter_vjp",
            {"grad": like(changed.get("values"), V), "values": V, "features": X, **changed},
            error,
            text,
        )


REFUSALS = list(refusals())


@pytest.mark.parametrize("k", range(len(REFUSALS)), ids=lambda k: f"{k}-{REFUSALS[k][0]}")
def test_refusals_name_the_argument(k: int) -> None:
    op, arguments, error, text = REFUSALS[k]
    with pytest.raises(error) as refused:
        getattr(cv3gpu, op)(**arguments)
    assert str(refused.value) == f"{op}: {text}"
    if "library" in text or "byte order" in text or "got object" in text:
        return
    tensors = {name: torch.tensor(x) if type(x) is np.ndarray else x for name, x in arguments.items()}
    with pytest.raises(error) as refused:
        getattr(cv3gpu, op)(**tensors)
    assert str(refused.value) == f"{op}: {text}"


# ---- what a review found --------------------------------------------------------------------------------


def test_an_object_is_shared_by_threads():
    from concurrent.futures import ThreadPoolExecutor

    from cv3gpu import densecrf

    rng = np.random.default_rng(3)
    crf = densecrf.DenseCRF2D(40, 30, 5)
    crf.setUnaryEnergy(rng.random((5, 1200), np.float32))
    crf.addPairwiseGaussian(3, 3)
    crf.addPairwiseBilateral(20, 13, rng.integers(0, 255, (30, 40, 3)).astype(np.uint8), 5)
    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(lambda _: crf.inference(3), range(24)))
    wanted = crf.inference(3)
    assert all(np.array_equal(q, wanted) for q in results)


@pytest.mark.parametrize("bits", [0x7FC00001, 0xFFC00000, 0x7FC0FFFF])
@pytest.mark.parametrize("method", ["lattice", "exact"])
def test_every_nan_stays_one(bits, method):
    unary = np.zeros((3, 4, 5), np.float32)
    unary.view(np.uint32)[1, 2, 3] = bits
    assert np.isnan(cv3gpu.dense_crf(unary, None, n_iter=1, method=method)[:, 2, 3]).all()
    features = np.zeros((2, 70), np.float32)
    features.view(np.uint32)[0, 3] = bits
    assert np.isnan(cv3gpu.gaussian_filter(np.ones((1, 70), np.float32), features, method="exact")).all()


@pytest.mark.parametrize("far", [1e3, 1e5, 1e9])
def test_a_point_far_away_leaves_the_others_alone(path, far):
    rng = np.random.default_rng(5)
    features = rng.standard_normal((3, 64)).astype(np.float32)
    features[1, 9] = far
    values = rng.random((2, 64)).astype(np.float32)
    got = cv3gpu.gaussian_filter(path.array(values), path.array(features), method="exact", normalization="none")
    apart = ((features[:, :, None].astype(float) - features[:, None]) ** 2).sum(0)
    np.testing.assert_allclose(path.numpy(got), values @ np.exp(-0.5 * apart), rtol=3e-6)


@pytest.mark.parametrize("d", [1, 6, 8])
def test_gradients_where_coordinates_have_no_digits(d):
    features = np.zeros((d, 30))
    features[:, 4] = 9e7
    values = np.random.default_rng(0).random((2, 30))
    g = cv3gpu.gaussian_filter_vjp(values, values, features)
    assert g.features.shape == features.shape and np.isfinite(g.values).all()


def test_a_forbidden_label_has_no_mass(path):
    unary = np.zeros((3, 4, 5), np.float32)
    unary[1, 2, 3] = np.inf
    q = path.numpy(cv3gpu.dense_crf(path.array(unary), None, n_iter=2))
    assert q[1, 2, 3] == 0.0
    np.testing.assert_allclose(q.sum(0), 1, rtol=1e-6)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"theta_gamma": 1e-8}, "theta_gamma must be a 1e+06th of the image's range at least, got a range of"),
        ({"compat_smooth": 1e39}, "compat_smooth must be finite in float32, got 1e+39"),
        ({"compat_smooth": [True, False]}, "compat_smooth must hold numbers, got bool"),
        (
            {"compat_smooth": 10**400},
            "compat_smooth must be a number, a vector [L] or a matrix [L, L], got 2^1328 or more",
        ),
        ({"theta_gamma": b"ab"}, "theta_gamma must be a number, got b'ab'"),
    ],
)
def test_numbers_that_are_none(arguments, text):
    with pytest.raises((TypeError, ValueError)) as refused:
        cv3gpu.dense_crf(np.zeros((2, 4, 5), np.float32), None, **arguments)
    assert str(refused.value).startswith(f"dense_crf: {text}")


@pytest.mark.parametrize("needs", [(True,), None, True, "abcdefg", (1,) * 7, (True,) * 8])
def test_needs_are_seven_bools(needs):
    unary = np.zeros((2, 4, 5))
    with pytest.raises((TypeError, ValueError), match="dense_crf_vjp: needs must be 7 bools, for unary, image"):
        cv3gpu.dense_crf_vjp(unary, unary, None, needs=needs)


def test_defaults_are_the_same_in_every_signature() -> None:
    """Written out in each, where a reader looks for them."""
    pytest.importorskip("torch")
    from cv3gpu import scale
    from cv3gpu.nn import crf_ops

    others = (cv3gpu.dense_crf_vjp, scale.dense_crf, scale.crf_halo, crf_ops._dense_crf, crf_ops._dense_crf_vjp)
    want = DEFAULTS | {"image": None, "return_info": False}
    for function in others:
        got = {k: v.default for k, v in inspect.signature(function).parameters.items() if k in want}
        assert {"theta_gamma", "theta_alpha", "n_iter", "method"} <= set(got)
        assert got == {name: want[name] for name in got}
