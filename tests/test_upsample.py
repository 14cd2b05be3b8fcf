"""upsample_argmax and upsample_cross_entropy: against interpolate and against torch in float64, on every path."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import cv3gpu
from cv3gpu import _array, upsample
from cv3gpu.upsample import upsample_argmax, upsample_cross_entropy, upsample_cross_entropy_vjp

torch = pytest.importorskip("torch")
functional = torch.nn.functional

DTYPES = ("float32", "float64", "float16", "bfloat16")
EPS = {"float64": 2.0**-52, "float32": 2.0**-23, "float16": 2.0**-10, "bfloat16": 2.0**-7}


class Case(NamedTuple):
    """Logits of a shape, and what becomes of them."""

    shape: tuple[int, int, int, int]
    size: tuple[int, int]
    align_corners: bool = False
    weighted: bool = False
    smoothing: float = 0.0
    reduction: str = "mean"
    ignored: float = 0.2
    ignore_index: int = -100
    target: str = "int64"


def random_case(rng: np.random.Generator, largest: int = 20) -> Case:
    """A configuration of any kind."""
    h, w, height, width = (int(n) for n in rng.integers(1, largest, 4))
    shape = (int(rng.integers(1, 3)), int(rng.choice([1, 2, 3, 5, 11])), h, w)
    target = ("int64", "int32", "uint8")[rng.integers(3)]
    ignore = 255 if target == "uint8" else int(rng.choice([-100, -1, 255, 0]))
    options = bool(rng.random() < 0.4), float(rng.choice([0.0, 0.0, 0.1, 1.0]))
    reduction = ("mean", "sum", "none")[rng.integers(3)]
    ignored = float(rng.choice([0.0, 0.3]))
    return Case(shape, (height, width), bool(rng.random() < 0.5), *options, reduction, ignored, ignore, target)


def held(values: np.ndarray, dtype: str) -> np.ndarray:
    """The numbers rounded to the dtype, as float64."""
    return torch.from_numpy(np.asarray(values)).to(getattr(torch, dtype)).double().numpy()


def inputs(case: Case, dtype: str, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Logits, target, and weights."""
    logits = held(rng.standard_normal(case.shape) * rng.choice([1, 4]), dtype)
    target = rng.integers(0, case.shape[1], (case.shape[0], *case.size))
    target[rng.random(target.shape) < case.ignored] = case.ignore_index
    return logits, target, held(rng.uniform(0.2, 2, case.shape[1]), dtype) if case.weighted else None


def options_of(case: Case) -> dict[str, Any]:
    return {"ignore_index": case.ignore_index, "label_smoothing": case.smoothing, "reduction": case.reduction}


def torch_loss(logits: Any, target: np.ndarray, weight: np.ndarray | None, case: Case) -> Any:
    """Torch's own, in float64."""
    z = functional.interpolate(logits, case.size, mode="bilinear", align_corners=case.align_corners)
    w = None if weight is None else torch.from_numpy(weight)
    return functional.cross_entropy(z, torch.from_numpy(target.astype(np.int64)), w, **options_of(case))


def layouts(path: Any, values: np.ndarray, dtype: str, rng: np.random.Generator) -> Any:
    """The array dense, channels-last, or a view of another one."""
    kind = rng.integers(3)
    if kind == 0:
        return path.array(np.repeat(values, 2, axis=3), dtype)[..., ::2]
    return path.array(values, dtype, ("nchw", "nhwc")[kind - 1])


def check_loss(path: Any, case: Case, dtype: str, rng: np.random.Generator) -> None:
    """Loss and gradient on a path against torch."""
    logits, target, weight = inputs(case, dtype, rng)
    leaf = torch.from_numpy(logits).requires_grad_()
    want = torch_loss(leaf, target, weight, case)
    g = held(rng.standard_normal(tuple(want.shape)), dtype)
    want.backward(torch.from_numpy(np.asarray(g)))
    x, t = layouts(path, logits, dtype, rng), path.array(target, case.target)
    w = None if weight is None else path.array(weight, dtype)
    options = {**options_of(case), "weight": w, "align_corners": case.align_corners}
    got = upsample_cross_entropy(x, t, **options)
    assert _array.dtype_name(got) == dtype and tuple(got.shape) == tuple(want.shape)
    single = EPS["float64"] if dtype == "float64" else EPS["float32"]
    reach = 1 + np.abs(logits).max()  # losses are differences of numbers of this size
    total = 1.0 if case.reduction != "sum" else float((target != case.ignore_index).sum() + 1)
    error = np.abs(path.numpy(got).astype(np.float64) - want.detach().numpy())
    allowed = EPS[dtype] * np.abs(want.detach().numpy()) + 64 * single * reach * total + EPS[dtype] * 1e-4
    nan = np.isnan(want.detach().numpy())
    assert (np.isnan(path.numpy(got)) == nan).all()
    assert (error <= allowed)[~nan].all(), f"{case}: {error.max()}"

    got = upsample_cross_entropy_vjp(path.array(g, dtype), x, t, **options)
    assert _array.dtype_name(got) == dtype and tuple(got.shape) == case.shape
    want_x = leaf.grad.numpy() if not nan.any() else np.zeros(case.shape)
    share = 1.0 if case.reduction != "mean" else max(float((target != case.ignore_index).sum()), 1.0)
    pixels = (case.size[0] / case.shape[2] + 2) * (case.size[1] / case.shape[3] + 2)
    scale = np.abs(g).max(initial=0) * pixels * (2 * pixels**0.5 if case.smoothing else 2) / share * 3
    error = np.abs(path.numpy(got).astype(np.float64) - want_x)
    allowed = EPS[dtype] * np.abs(want_x) + 32 * single * reach * scale + EPS[dtype] * 2e-5
    assert (error <= allowed).all(), f"{case}: {(error / allowed).max()}"


def check_labels(path: Any, case: Case, dtype: str, rng: np.random.Generator) -> None:
    """Labels on a path are those of interpolate on the same path, to the last one."""
    logits = held(
        np.round(rng.standard_normal(case.shape) * 4) / 4 if rng.random() < 0.5 else rng.standard_normal(case.shape),
        dtype,
    )
    if rng.random() < 0.2:
        logits[rng.random(case.shape) < 0.05] = np.nan
        logits[rng.random(case.shape) < 0.05] = -np.inf
    wide = dtype if dtype in ("float32", "float64") else "float32"
    options = {"align_corners": case.align_corners}
    z = path.numpy(cv3gpu.interpolate(path.array(logits, wide), case.size, mode="bilinear", **options))
    got = upsample_argmax(layouts(path, logits, dtype, rng), case.size, **options, dtype=case.target)
    assert _array.dtype_name(got) == case.target
    np.testing.assert_array_equal(path.numpy(got), z.argmax(1))


# ---- every path -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
def test_cpu_agrees_with_torch(cpu_path: Any, dtype: str) -> None:
    rng = np.random.default_rng(DTYPES.index(dtype))
    for _ in range(60):
        check_loss(cpu_path, random_case(rng), dtype, rng)


@pytest.mark.parametrize("dtype", DTYPES)
def test_labels_are_those_of_interpolate(path: Any, dtype: str) -> None:
    rng = np.random.default_rng(10 + DTYPES.index(dtype))
    for _ in range(20 if path.runs_kernels else 100):
        check_labels(path, random_case(rng), dtype, rng)


@pytest.mark.parametrize("dtype", DTYPES)
def test_kernels_at_random(kernel_path: Any, dtype: str) -> None:
    rng = np.random.default_rng(20 + DTYPES.index(dtype))
    for _ in range(20):
        check_loss(kernel_path, random_case(rng, 12), dtype, rng)


BRANCHES = {
    "several tiles and bands": Case((1, 3, 5, 20), (37, 150)),
    "many rows and columns to one": Case((1, 2, 2, 2), (150, 300)),
    "several tiles of logits": Case((2, 5, 9, 70), (11, 75)),
    "shrinks": Case((1, 3, 40, 45), (6, 7)),
    "shrinks along one axis": Case((1, 3, 4, 45), (19, 7), True),
    "one pixel": Case((1, 3, 1, 1), (5, 4)),
    "to one pixel": Case((2, 3, 5, 4), (1, 1), True),
    "same size": Case((1, 4, 6, 7), (6, 7)),
    "weights and smoothing": Case((1, 6, 4, 5), (17, 20), False, True, 0.1),
    "one class": Case((1, 1, 4, 5), (17, 20)),
    "all ignored": Case((1, 3, 4, 5), (9, 11), ignored=1.0),
}


@pytest.mark.parametrize("reduction", ["mean", "none"])
@pytest.mark.parametrize("name", list(BRANCHES))
def test_branches(path: Any, name: str, reduction: str) -> None:
    case = BRANCHES[name]._replace(reduction=reduction)
    check_loss(path, case, "float32", np.random.default_rng(4))
    check_labels(path, case, "float32", np.random.default_rng(4))


def test_blocks_that_do_several_images(kernel_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upsample, "ENOUGH_BLOCKS", 1)
    case = Case((3, 5, 4, 6), (13, 20), weighted=True, smoothing=0.1)
    check_loss(kernel_path, case, "float32", np.random.default_rng(5))
    check_labels(kernel_path, case, "float32", np.random.default_rng(5))


def test_results_repeat_bit_for_bit(path: Any) -> None:
    rng = np.random.default_rng(6)
    case = Case((2, 5, 9, 11), (40, 61))
    logits, target, _ = inputs(case, "float32", rng)
    x, t, one = path.array(logits, "float32"), path.array(target), path.array(np.ones(()), "float32")
    for call in (lambda: upsample_cross_entropy(x, t), lambda: upsample_cross_entropy_vjp(one, x, t)):
        first, second = path.numpy(call()), path.numpy(call())
        assert np.array_equal(first, second)


def test_threads_do_not_change_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(7)
    case = Case((1, 4, 13, 11), (60, 51), weighted=True)
    logits, target, weight = inputs(case, "float32", rng)
    x, w, one = logits.astype(np.float32), weight.astype(np.float32), np.ones((), np.float32)  # type: ignore[union-attr]
    found = []
    for cores in (1, 2, 5):
        monkeypatch.setattr(upsample, "cores", lambda cores=cores: cores)
        loss = upsample_cross_entropy(x, target, weight=w)
        found.append((float(loss), upsample_cross_entropy_vjp(one, x, target, weight=w).tobytes()))
    assert len(set(found)) == 1


def test_large_logits_do_not_overflow(path: Any) -> None:
    logits = np.array([[[[1e4, -1e4]], [[-1e4, 1e4]], [[-np.inf, -np.inf]]]])
    target = np.array([[[0, 1, 0, 1]]])
    x, t = path.array(logits, "float32"), path.array(target)
    got = path.numpy(upsample_cross_entropy(x, t, reduction="none"))
    finite = torch.from_numpy(np.maximum(logits, -1e30))  # torch multiplies an infinity by a weight of zero
    want = torch_loss(finite, target, None, Case((1, 3, 1, 2), (1, 4), reduction="none"))
    np.testing.assert_allclose(got, want.numpy(), rtol=1e-6)
    one = path.array(np.ones(()), "float32")
    assert np.isfinite(path.numpy(upsample_cross_entropy_vjp(one, x, t))).all()


def test_mean_over_nothing_is_nan(path: Any) -> None:
    x = path.array(np.zeros((1, 2, 3, 4)), "float32")
    t = path.array(np.full((1, 6, 8), -100))
    assert np.isnan(path.numpy(upsample_cross_entropy(x, t)))
    assert path.numpy(upsample_cross_entropy(x, t, reduction="sum")) == 0
    one = path.array(np.ones(()), "float32")
    assert not path.numpy(upsample_cross_entropy_vjp(one, x, t)).any()


def test_no_images(path: Any) -> None:
    x, t = path.array(np.zeros((0, 2, 3, 4)), "float32"), path.array(np.zeros((0, 6, 8), np.int64))
    assert tuple(upsample_argmax(x, (6, 8)).shape) == (0, 6, 8)
    assert np.isnan(path.numpy(upsample_cross_entropy(x, t)))
    assert tuple(upsample_cross_entropy(x, t, reduction="none").shape) == (0, 6, 8)
    one = path.array(np.ones(()), "float32")
    assert tuple(upsample_cross_entropy_vjp(one, x, t).shape) == (0, 2, 3, 4)


@pytest.mark.parametrize("bad", [3, -1, 10**6])
def test_targets_that_are_no_class(path: Any, bad: int) -> None:
    """The CPU refuses them, on a GPU their loss is NaN."""
    x, target = path.array(np.zeros((1, 3, 2, 2)), "float32"), np.zeros((1, 4, 4), np.int64)
    target[0, 1, 2] = bad
    t, one = path.array(target), path.array(np.ones(()), "float32")
    if path.runs_kernels:
        each = path.numpy(upsample_cross_entropy(x, t, reduction="none"))
        assert np.array_equal(np.isnan(each), target == bad)
        assert np.isnan(path.numpy(upsample_cross_entropy(x, t)))
        assert np.isnan(path.numpy(upsample_cross_entropy_vjp(one, x, t))).any()
        return
    for call in (lambda: upsample_cross_entropy(x, t), lambda: upsample_cross_entropy_vjp(one, x, t)):
        with pytest.raises(ValueError, match=rf"target must hold classes 0 to 2, or ignore_index \(-100\), got {bad}"):
            call()


# ---- properties -----------------------------------------------------------------------------------------

seeds = st.integers(0, 2**31)


@settings(max_examples=40, deadline=None)
@given(seeds, st.floats(-100, 100))
def test_a_shift_of_all_logits_changes_nothing(seed: int, shift: float) -> None:
    rng = np.random.default_rng(seed)
    case = random_case(rng, 9)._replace(reduction="sum", smoothing=0.0)
    logits, target, weight = inputs(case, "float64", rng)
    options = {"ignore_index": case.ignore_index, "weight": weight, "reduction": "sum"}
    a, b = (upsample_cross_entropy(x, target, **options) for x in (logits, logits + shift))
    np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9)
    gradient = upsample_cross_entropy_vjp(np.ones(()), logits, target, **options)
    np.testing.assert_allclose(gradient.sum(1), 0, atol=1e-9)


@settings(max_examples=40, deadline=None)
@given(seeds)
def test_labels_of_one_hot_logits_come_back(seed: int) -> None:
    rng = np.random.default_rng(seed)
    h, w, factor = (int(n) for n in rng.integers(1, 8, 3))
    classes = rng.integers(0, 4, (2, h, w))
    logits = np.moveaxis(np.eye(4)[classes], -1, 1)
    assert np.array_equal(upsample_argmax(logits, (h, w)), classes)
    odd = 2 * factor - 1  # of an odd factor, every pixel has an output at its centre
    got = upsample_argmax(logits, (h * odd, w * odd), dtype="uint8")
    assert np.array_equal(got[:, factor - 1 :: odd, factor - 1 :: odd], classes)


# ---- refusals -------------------------------------------------------------------------------------------

X, T, ONE = np.zeros((1, 3, 4, 5), np.float32), np.zeros((1, 8, 9), np.int64), np.ones((), np.float32)
W = np.ones(3, np.float32)

BAD_LOSS: list[tuple[tuple[Any, ...], dict[str, Any], type[Exception], str]] = [
    (([[1.0]], T), {}, TypeError, r"logits must be a NumPy, CuPy or torch array, got list"),
    ((X, None), {}, TypeError, r"target must be a NumPy, CuPy or torch array, got None"),
    ((X, torch.from_numpy(T)), {}, TypeError, r"all arrays must be of one library"),
    ((X.astype(int), T), {}, TypeError, r"logits must have dtype float16 or .*, got int64"),
    ((X, T.astype(np.float32)), {}, TypeError, r"target must have dtype int64 or int32 or uint8, got float32"),
    ((X[0], T), {}, ValueError, r"logits must have shape \[N, C, h, w\], got \(3, 4, 5\)"),
    ((X[:, :0], T), {}, ValueError, r"logits must have at least one class, got \(1, 0, 4, 5\)"),
    ((X[:, :, :0], T), {}, ValueError, r"logits must have positive height and width, got \(0, 5\)"),
    ((X, T[0]), {}, ValueError, r"target must have shape \[N, H, W\], got \(8, 9\)"),
    ((X, np.zeros((2, 8, 9), int)), {}, ValueError, r"target must have shape \[1, H, W\] to match logits, got \(2, 8, 9\)"),
    ((X, T[:, :0]), {}, ValueError, r"target must have positive height and width, got \(0, 9\)"),
    ((X, T), {"weight": [1, 1, 1]}, TypeError, r"weight must be a NumPy, CuPy or torch array, got list"),
    ((X, T), {"weight": W.astype(float)}, TypeError, r"weight must have the dtype of logits \(float32\), got float64"),
    ((X, T), {"weight": W[:2]}, ValueError, r"weight must have shape \[3\], got \(2,\)"),
    ((X, T), {"ignore_index": 2.5}, TypeError, r"ignore_index must be an integer, got 2.5"),
    ((X, T), {"ignore_index": None}, TypeError, r"ignore_index must be an integer, got None"),
    ((X, T), {"ignore_index": 2**31}, ValueError, r"ignore_index must be from"),
    ((X, T), {"align_corners": None}, TypeError, r"align_corners must be True or False, got None"),
    ((X, T), {"label_smoothing": 1.5}, ValueError, r"label_smoothing must be from 0 to 1, got 1.5"),
    ((X, T), {"label_smoothing": "0"}, TypeError, r"label_smoothing must be a number, got '0'"),
    ((X, T), {"label_smoothing": float("nan")}, ValueError, r"label_smoothing must be finite"),
    ((X, T), {"reduction": "max"}, ValueError, r"reduction must be one of 'mean', 'sum', 'none', got 'max'"),
]  # fmt: skip

BAD: dict[str, list[tuple[tuple[Any, ...], dict[str, Any], type[Exception], str]]] = {
    "upsample_argmax": [
        (([[1.0]], 8), {}, TypeError, r"logits must be a NumPy, CuPy or torch array, got list"),
        ((None, 8), {}, TypeError, r"logits must be a NumPy, CuPy or torch array, got None"),
        ((X.astype(bool), 8), {}, TypeError, r"logits must have dtype"),
        ((X.astype(">f4"), 8), {}, TypeError, r"logits must be in native byte order"),
        ((X[0], 8), {}, ValueError, r"logits must have shape \[N, C, h, w\]"),
        ((X[:, :0], 8), {}, ValueError, r"logits must have at least one class"),
        ((X[..., :0], 8), {}, ValueError, r"logits must have positive height and width"),
        ((X, 0), {}, ValueError, r"size must be positive, got \(0, 0\)"),
        ((X, (8, -1)), {}, ValueError, r"size must be positive, got \(8, -1\)"),
        ((X, 8.0), {}, TypeError, r"size must be an integer or a pair of integers, got 8.0"),
        ((X, None), {}, TypeError, r"size must be an integer or a pair of integers, got None"),
        ((X, (8, 9, 1)), {}, ValueError, r"size must be an integer or a pair"),
        ((X, 8), {"align_corners": 1}, TypeError, r"align_corners must be True or False, got 1"),
        ((X, 8), {"dtype": "int8"}, ValueError, r"dtype must be one of 'int64', 'int32', 'uint8', got 'int8'"),
        ((np.zeros((1, 257, 1, 1)), 8), {"dtype": "uint8"}, ValueError, r"dtype must be 'int64' for more than 256 classes, got 'uint8' for 257"),
    ],
    "upsample_cross_entropy": BAD_LOSS,
    "upsample_cross_entropy_vjp": [
        *(((ONE, *args), options, error, text) for args, options, error, text in BAD_LOSS),
        ((1.0, X, T), {}, TypeError, r"grad must be a NumPy, CuPy or torch array, got float"),
        ((np.ones(()), X, T), {}, TypeError, r"grad must have the dtype of logits \(float32\), got float64"),
        ((W, X, T), {}, ValueError, r"grad must have shape \[\], got \(3,\)"),
        ((ONE, X, T), {"reduction": "none"}, ValueError, r"grad must have shape \[1, 8, 9\], got \(\)"),
    ],
}  # fmt: skip


@pytest.mark.parametrize(("name", "k"), [(name, k) for name in BAD for k in range(len(BAD[name]))])
def test_refuses(name: str, k: int) -> None:
    args, options, error, text = BAD[name][k]
    with pytest.raises(error, match=f"^{name}: " + text):
        getattr(upsample, name)(*args, **options)
