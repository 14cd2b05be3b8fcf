"""PSPNet's pyramid: every path against torch in float64, identities, properties, refusals."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

from torch.nn import functional  # noqa: E402

from cv3gpu import _array, pyramid  # noqa: E402
from cv3gpu.pyramid import (  # noqa: E402
    pyramid_conv2d,
    pyramid_expand,
    pyramid_expand_adjoint,
    pyramid_maps,
    pyramid_pool,
    pyramid_pool_adjoint,
    pyramid_pooling,
)
from tests.tolerance import assert_close  # noqa: E402

DTYPES = ("float32", "float64", "float16", "bfloat16")
LAYOUTS = ("nchw", "nhwc")
EPS = {"float64": 2.0**-52, "float32": 2.0**-23, "float16": 2.0**-10, "bfloat16": 2.0**-7}


def held(values: np.ndarray, dtype: str) -> np.ndarray:
    """Rounded to the dtype, as float64."""
    return torch.from_numpy(np.asarray(values, np.float64)).to(getattr(torch, dtype)).double().numpy()


class Case(NamedTuple):
    """An image, bins, and a convolution."""

    size: tuple[int, int]
    bins: tuple[int, ...] = (1, 2, 3, 6)
    kernel: tuple[int, int] = (3, 3)
    corners: bool = True
    channels: int = 5
    out: int = 4
    images: int = 2


# One tile and several, bins that do not divide, bins larger than the image, more bins than a launch takes.
CASES = {
    "pspnet": Case((13, 9)),
    "divides": Case((12, 6), corners=False),
    "larger bins": Case((3, 4), (1, 6), (3, 5)),
    "one row": Case((1, 300), (1, 2, 5), (1, 3), images=1, channels=2, out=2),
    "tall": Case((131, 2), (1, 2, 5), (3, 1), corners=False),
    "wide": Case((4, 130), (3, 6), (7, 3), images=1),
    "many bins": Case((11, 10), (12, 1, 2, 3, 4, 5, 6, 7, 8, 9)),
    "one pixel": Case((1, 1), (1, 2), corners=False),
    "channels of two tiles": Case((7, 5), (2, 3), channels=35, out=33, images=1),
    "large bin": Case((33, 35), (32, 1), (1, 1), images=1, channels=2, out=2),
}


def pooled_by_torch(x: Any, bins: tuple[int, ...]) -> Any:
    return torch.cat([functional.adaptive_avg_pool2d(x, b).flatten(2) for b in bins], 2)[..., None]


def draw(case: Case, dtype: str, seed: int = 0) -> tuple[np.ndarray, list[np.ndarray], np.ndarray]:
    """Image, maps and weight, exact in the dtype."""
    rng = np.random.default_rng(seed)
    x = held(rng.standard_normal((case.images, case.channels, *case.size)), dtype)
    maps = [held(rng.standard_normal((case.images, 2 + k % 2, b, b)), dtype) for k, b in enumerate(case.bins)]
    channels = case.channels + sum(m.shape[1] for m in maps)
    return x, maps, held(rng.standard_normal((case.out, channels, *case.kernel)), dtype)


def convolved_by_torch(case: Case, x: np.ndarray, maps: list[np.ndarray], weight: np.ndarray) -> np.ndarray:
    options = {"mode": "bilinear", "align_corners": case.corners}
    large = [functional.interpolate(torch.from_numpy(m), case.size, **options) for m in maps]
    padding = case.kernel[0] // 2, case.kernel[1] // 2
    together = torch.cat([torch.from_numpy(x), *large], 1)
    return functional.conv2d(together, torch.from_numpy(weight), padding=padding).numpy()


def dtypes_for(path: Any, name: str) -> tuple[str, ...]:
    """All on a CPU; the runner of kernels, which is slow, takes all for one case and two for the others."""
    return DTYPES if not path.runs_kernels or name == "pspnet" else ("float32", "bfloat16")


# ---- means over bins ------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", list(CASES))
def test_pool_is_torchs(path: Any, name: str, layout: str) -> None:
    case = CASES[name]
    for dtype in dtypes_for(path, name):
        x = draw(case, dtype)[0]
        want = pooled_by_torch(torch.from_numpy(x), case.bins).numpy()
        given = path.array(x, dtype, layout)
        got = pyramid_pool(given, case.bins)
        assert _array.dtype_name(got) == dtype
        scale = pooled_by_torch(torch.from_numpy(np.abs(x)), case.bins).numpy()
        assert_close(path.numpy(got), want, dtype, case.size[0] * case.size[1], scale)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", list(CASES))
def test_pool_adjoint_is_torchs(path: Any, name: str, layout: str) -> None:
    case = CASES[name]
    for dtype in dtypes_for(path, name):
        x = draw(case, dtype)[0]
        leaf = torch.from_numpy(x).requires_grad_()
        y = pooled_by_torch(leaf, case.bins)
        g = held(np.random.default_rng(1).standard_normal(tuple(y.shape)), dtype)
        y.backward(torch.from_numpy(g))
        got = pyramid_pool_adjoint(path.array(g, dtype, layout), case.size, case.bins)
        scale = np.broadcast_to(np.abs(g).max() * 4 * len(case.bins), x.shape)
        if len(case.bins) > pyramid.MOST_BINS and path.runs_kernels:  # rounded after each launch
            scale = scale * EPS[dtype] / EPS["float32"] if dtype in ("float16", "bfloat16") else scale
        assert_close(path.numpy(got), leaf.grad.numpy(), dtype, 4 * len(case.bins), scale)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layout_is_kept(path: Any, layout: str) -> None:
    case = CASES["pspnet"]
    x, maps, weight = draw(case, "float32")
    image = path.array(x, "float32", layout)
    small, w = [path.array(m, "float32") for m in maps], path.array(weight, "float32")
    cells = pyramid_pool(image, case.bins)
    ones = [path.array(np.ones((1, case.channels, 1, 1)), "float32")] * 4
    results = cells, pyramid_pool_adjoint(cells, case.size, case.bins), pyramid_conv2d(image, small, w)
    for y in (*results, pyramid_pooling(image, ones)):
        assert _array.memory_format(y) == layout


def test_views_of_other_arrays(path: Any) -> None:
    x = np.random.default_rng(2).standard_normal((2, 6, 7, 12))
    want = pooled_by_torch(torch.from_numpy(x[:, ::2, :, ::3].copy()), (1, 3)).numpy()
    got = pyramid_pool(path.array(x)[:, ::2, :, ::3], (1, 3))
    assert_close(path.numpy(got), want, "float64", 84, np.abs(want) + 1)


def test_blocks_that_do_several_planes(kernel_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pyramid, "ENOUGH_BLOCKS", 1)
    case = CASES["pspnet"]
    x, maps, weight = draw(case, "float64")
    want = pooled_by_torch(torch.from_numpy(x), case.bins).numpy()
    for layout in LAYOUTS:
        image = kernel_path.array(x, "float64", layout)
        cells = pyramid_pool(image, case.bins)
        assert_close(kernel_path.numpy(cells), want, "float64", 117, np.abs(x).max())
        leaf = torch.from_numpy(x).requires_grad_()
        (pooled_by_torch(leaf, case.bins) * torch.from_numpy(want)).sum().backward()
        back = pyramid_pool_adjoint(cells, case.size, case.bins)
        assert_close(kernel_path.numpy(back), leaf.grad.numpy(), "float64", 117, 10.0)
        y = pyramid_conv2d(image, [kernel_path.array(m) for m in maps], kernel_path.array(weight))
        np.testing.assert_allclose(kernel_path.numpy(y), convolved_by_torch(case, x, maps, weight), rtol=0, atol=1e-12)


def test_infinities_stay_in_their_cells(path: Any) -> None:
    x = np.ones((1, 1, 6, 6))
    x[0, 0, 0, 0], x[0, 0, 5, 5] = np.inf, np.nan
    got = path.numpy(pyramid_pool(path.array(x), (2,))).ravel()
    assert np.isposinf(got[0]) and np.isnan(got[3]) and (got[1:3] == 1).all()


# ---- the pyramid and its convolution ------------------------------------------------------------------------


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("corners", [True, False])
def test_pooling_is_hszhaos(path: Any, corners: bool, layout: str) -> None:
    """Adaptive mean, 1 x 1 convolution, batch norm, ReLU, enlargement, concatenation, by torch's layers."""
    rng, bins = np.random.default_rng(3), (1, 2, 3, 6)
    x = rng.standard_normal((2, 8, 9, 11))
    weights = [rng.standard_normal((2 + i % 2, 8, 1, 1)) for i in range(4)]
    scales, biases = ([rng.standard_normal(len(w)) for w in weights] for _ in range(2))
    want, parts = torch.from_numpy(x), []
    for b, w, s, shift in zip(bins, weights, scales, biases, strict=True):
        y = functional.conv2d(functional.adaptive_avg_pool2d(want, b), torch.from_numpy(w))
        y = (y * torch.from_numpy(s)[:, None, None] + torch.from_numpy(shift)[:, None, None]).relu()
        parts.append(functional.interpolate(y, (9, 11), mode="bilinear", align_corners=corners))
    lists = [[path.array(v) for v in values] for values in (weights, biases, scales)]
    given = path.array(x, "float64", layout)
    got = pyramid_pooling(
        given, lists[0], lists[1], scales=lists[2], activation="relu", bins=bins, align_corners=corners
    )
    np.testing.assert_allclose(path.numpy(got), torch.cat([want, *parts], 1).numpy(), rtol=1e-12, atol=1e-12)
    maps = pyramid_maps(given, lists[0], lists[1], scales=lists[2], activation="relu", bins=bins)
    assert [tuple(m.shape[1:]) for m in maps] == [(2, 1, 1), (3, 2, 2), (2, 3, 3), (3, 6, 6)]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", list(CASES))
def test_convolution_without_enlarged_maps(path: Any, name: str, layout: str) -> None:
    case = CASES[name]
    for dtype in dtypes_for(path, name):
        x, maps, weight = draw(case, dtype)
        want = convolved_by_torch(case, x, maps, weight)
        scale = convolved_by_torch(case, *(np.abs(x), [np.abs(m) for m in maps], np.abs(weight)))
        image, w = path.array(x, dtype, layout), path.array(weight, dtype)
        got = pyramid_conv2d(image, [path.array(m, dtype) for m in maps], w, align_corners=case.corners)
        if dtype in ("float16", "bfloat16"):  # rounded in between: the convolution of x, products, each launch
            error = np.abs(path.numpy(got).astype(np.float64) - want)
            assert (error <= EPS[dtype] * (np.abs(want) + 0.5 * scale) + 1e-6).all()
        else:
            assert_close(path.numpy(got), want, dtype, weight[0].size, scale)


@pytest.mark.parametrize("activation", [None, "relu", "relu6"])
def test_what_follows_the_convolution(path: Any, activation: str | None) -> None:
    for name in ("pspnet", "many bins"):
        case = CASES[name]
        x, maps, weight = draw(case, "float64")
        rng = np.random.default_rng(4)
        scale, bias = rng.standard_normal((2, case.out))
        want = convolved_by_torch(case, x, maps, weight) * scale[:, None, None] + bias[:, None, None]
        want = want if activation is None else np.clip(want, 0, 6 if activation == "relu6" else None)
        for layout in LAYOUTS:
            given = path.array(x, "float64", layout), [path.array(m) for m in maps], path.array(weight)
            got = pyramid_conv2d(*given, path.array(bias), scale=path.array(scale), activation=activation)
            np.testing.assert_allclose(path.numpy(got), want, rtol=1e-11, atol=1e-11)


def test_nan_stays_nan_behind_an_activation(path: Any) -> None:
    base = path.array(np.array([[[[np.nan, -1.0, 9.0]]]]))
    for layout in LAYOUTS:
        x = path.array(path.numpy(base), "float64", layout)
        got = path.numpy(pyramid_expand(x, path.array(np.zeros((1, 1, 1))), (1,), (1, 1), activation="relu6"))
        np.testing.assert_array_equal(got, [[[[np.nan, 0, 6]]]])


@pytest.mark.parametrize("name", ["pspnet", "larger bins", "many bins", "one pixel"])
def test_expand_adjoint(path: Any, name: str) -> None:
    case, rng = CASES[name], np.random.default_rng(5)
    size = case.kernel[0] * case.kernel[1] * pyramid.cells_of(case.bins)
    z, g = rng.standard_normal((2, 3, size)), rng.standard_normal((2, 3, *case.size))
    options = case.bins, case.kernel, case.corners
    for layout in LAYOUTS:
        y = pyramid_expand(path.array(0 * g, "float64", layout), path.array(z), *options)
        back = pyramid_expand_adjoint(path.array(g, "float64", layout), *options)
        left, right = (path.numpy(y) * g).sum(), (path.numpy(back) * z).sum()
        np.testing.assert_allclose(left, right, rtol=1e-11, atol=1e-11)


def test_no_images(path: Any) -> None:
    x, w = path.array(np.zeros((0, 3, 5, 4)), "float32"), path.array(np.zeros((2, 5, 3, 3)), "float32")
    assert tuple(pyramid_pool(x).shape) == (0, 3, 50, 1)
    assert tuple(pyramid_pool_adjoint(pyramid_pool(x), (5, 4)).shape) == (0, 3, 5, 4)
    maps = [path.array(np.zeros((0, 2, 3, 3)), "float32")]
    assert tuple(pyramid_conv2d(x, maps, w).shape) == (0, 2, 5, 4)
    ones = [path.array(np.zeros((2, 3, 1, 1)), "float32")]
    assert tuple(pyramid_pooling(x, ones, bins=(2,)).shape) == (0, 5, 5, 4)
    assert tuple(pyramid_expand_adjoint(x, (2,)).shape) == (0, 3, 36)


def test_results_repeat_bit_for_bit(path: Any) -> None:
    x, maps, weight = draw(CASES["pspnet"], "float32")
    given = path.array(x, "float32"), [path.array(m, "float32") for m in maps], path.array(weight, "float32")
    for call in (lambda: pyramid_pool(given[0]), lambda: pyramid_conv2d(*given)):
        assert np.array_equal(path.numpy(call()), path.numpy(call()))


# ---- properties -----------------------------------------------------------------------------------------

sizes = st.tuples(st.integers(1, 20), st.integers(1, 20))
some_bins = st.lists(st.integers(1, 9), min_size=1, max_size=4).map(tuple)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(sizes, some_bins, st.floats(-10, 10))
def test_constants_are_kept(size: tuple[int, int], bins: tuple[int, ...], value: float) -> None:
    x = np.full((1, 2, *size), value)
    np.testing.assert_allclose(pyramid_pool(x, bins), value, rtol=1e-13)
    y = pyramid_pooling(x, [np.eye(2)[:, :, None, None]] * len(bins), bins=bins, align_corners=size[0] % 2 == 0)
    np.testing.assert_allclose(y, value, rtol=1e-13)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(sizes, some_bins, st.integers(0, 2**31))
def test_adjoints_are_transposes(size: tuple[int, int], bins: tuple[int, ...], seed: int) -> None:
    rng = np.random.default_rng(seed)
    x, g = rng.standard_normal((1, 2, *size)), rng.standard_normal((1, 2, pyramid.cells_of(bins), 1))
    left, right = (pyramid_pool(x, bins) * g).sum(), (x * pyramid_pool_adjoint(g, size, bins)).sum()
    np.testing.assert_allclose(left, right, rtol=1e-10, atol=1e-10)
    z = rng.standard_normal((1, 2, 9 * pyramid.cells_of(bins)))
    left = (pyramid_expand(np.zeros_like(x), z, bins) * x).sum()
    np.testing.assert_allclose(left, (z * pyramid_expand_adjoint(x, bins)).sum(), rtol=1e-10, atol=1e-10)


# ---- refusals -------------------------------------------------------------------------------------------

X, W = np.zeros((1, 3, 5, 4), np.float32), np.zeros((2, 3, 1, 1), np.float32)
MAPS, K = [np.zeros((1, 2, 3, 3), np.float32)], np.zeros((2, 5, 3, 3), np.float32)
V, Z = np.zeros(2, np.float32), np.zeros((1, 3, 36), np.float32)

BAD: dict[Callable[..., Any], list[tuple[tuple[Any, ...], dict[str, Any], type[Exception], str]]] = {
    pyramid_pool: [
        (([1.0],), {}, TypeError, r"x must be a NumPy, CuPy or torch array, got list"),
        ((X.astype(int),), {}, TypeError, r"x must have dtype float16 or .*, got int64"),
        ((X.astype(">f4"),), {}, TypeError, r"x must be in native byte order, got >f4"),
        ((X[0],), {}, ValueError, r"x must have shape \[N, C, H, W\], got \(3, 5, 4\)"),
        ((X[:, :, :0],), {}, ValueError, r"x must have channels, rows and columns, got \(1, 3, 0, 4\)"),
        ((X, ()), {}, ValueError, r"bins must not be empty, got 0"),
        ((X, 6), {}, TypeError, r"bins must be a list, one element for each bin, got int"),
        ((X, "126"), {}, TypeError, r"bins must be a list, one element for each bin, got str"),
        ((X, (1, 2.0)), {}, TypeError, r"bins must be an integer, got 2.0"),
        ((X, (0,)), {}, ValueError, r"bins must be from 1 to 32, got 0"),
        ((X, (33,)), {}, ValueError, r"bins must be from 1 to 32, got 33"),
        ((X, (True,)), {}, TypeError, r"bins must be an integer, got True"),
    ],
    pyramid_pool_adjoint: [
        ((X, (5, 4)), {}, ValueError, r"grad must have shape \[N, C, 50, 1\], got \(1, 3, 5, 4\)"),
        ((X[:, :, :1, :1], 0, (1,)), {}, ValueError, r"input_size must be positive, got \(0, 0\)"),
        ((X[:, :, :1, :1], 2.5, (1,)), {}, TypeError, r"input_size must be an integer"),
        ((X[:, :, :1, :1].astype(bool), 4, (1,)), {}, TypeError, r"grad must have dtype"),
    ],
    pyramid_pooling: [
        ((X, W), {}, TypeError, r"weights must be a list, one element for each bin, got ndarray"),
        ((X, [W]), {}, ValueError, r"weights must have 4 elements, one for each bin, got 1"),
        ((X, [[1.0]]), {"bins": (1,)}, TypeError, r"weights\[0\] must be a NumPy, CuPy or torch array, got list"),
        ((X, [torch.from_numpy(W)]), {"bins": (1,)}, TypeError, r"weights\[0\] must be, like x, of numpy on cpu"),
        ((X, [W.astype(float)]), {"bins": (1,)}, TypeError, r"weights\[0\] must have the dtype of x \(float32\)"),
        ((X, [W[:, :2]]), {"bins": (1,)}, ValueError, r"weights\[0\] must have shape \[K, 3, 1, 1\], got \(2, 2, 1, 1\)"),
        ((X, [W], [V[:1]]), {"bins": (1,)}, ValueError, r"biases\[0\] must have shape \[2\], got \(1,\)"),
        ((X, [W], [V, V]), {"bins": (1,)}, ValueError, r"biases must have 1 elements, one for each weight, got 2"),
        ((X, [W]), {"bins": (1,), "scales": V}, TypeError, r"scales must be a list"),
        ((X, [W]), {"bins": (1,), "scales": [None]}, TypeError, r"scales\[0\] must be a NumPy, CuPy or torch array"),
        ((X, [W]), {"bins": (1,), "activation": "gelu"}, ValueError, r"activation must be one of 'relu', 'relu6', got"),
        ((X, [W]), {"bins": (1,), "align_corners": None}, TypeError, r"align_corners must be True or False, got None"),
    ],
    pyramid_conv2d: [
        ((X, MAPS[0], K), {}, TypeError, r"pooled_maps must be a list, one element for each bin, got ndarray"),
        ((X, [], K), {}, ValueError, r"pooled_maps must not be empty"),
        ((X, [MAPS[0][0]], K), {}, ValueError, r"pooled_maps\[0\] must have shape \[1, K, b, b\], got \(2, 3, 3\)"),
        ((X, [MAPS[0][..., :2]], K), {}, ValueError, r"pooled_maps\[0\] must be square, of 1 to 32 pixels a side"),
        ((X, [MAPS[0].repeat(2, 0)], K), {}, ValueError, r"pooled_maps\[0\] must have shape \[1, K, b, b\]"),
        ((X, [MAPS[0].astype(float)], K), {}, TypeError, r"pooled_maps\[0\] must have the dtype of x"),
        ((X, MAPS, K[:, 1:]), {}, ValueError, r"weight must have shape \[Cout, 5, kh, kw\], got \(2, 4, 3, 3\)"),
        ((X, MAPS, K[:, :, :2]), {}, ValueError, r"weight must have an odd height and width of at most 7, got \(2, 3\)"),
        ((X, MAPS, K.repeat(3, 2)), {}, ValueError, r"weight must have an odd height and width of at most 7, got \(9, 3\)"),
        ((X, MAPS, K, V[:1]), {}, ValueError, r"bias must have shape \[2\], got \(1,\)"),
        ((X, MAPS, K, V.astype(float)), {}, TypeError, r"bias must have the dtype of x"),
        ((X, MAPS, K, torch.from_numpy(V)), {}, TypeError, r"all arrays must be of one library"),
        ((X, MAPS, K), {"scale": V[:0]}, ValueError, r"scale must have shape \[2\], got \(0,\)"),
        ((X, MAPS, K), {"activation": 1}, ValueError, r"activation must be one of 'relu', 'relu6', got 1"),
        ((X, MAPS, K), {"align_corners": 1}, TypeError, r"align_corners must be True or False, got 1"),
    ],
    pyramid_expand: [
        ((X, Z[:, :, 1:], (2,)), {}, ValueError, r"z must have shape \[1, 3, 36\], got \(1, 3, 35\)"),
        ((X, Z.astype(float), (2,)), {}, TypeError, r"z must have the dtype of base \(float32\), got float64"),
        ((X, Z, (2,), (2, 2)), {}, ValueError, r"kernel_size must have an odd height and width of at most 7"),
    ],
    pyramid_expand_adjoint: [
        ((X, (2,), 9), {}, ValueError, r"kernel_size must have an odd height and width of at most 7, got \(9, 9\)"),
        ((X, (2,), 3, 0), {}, TypeError, r"align_corners must be True or False, got 0"),
    ],
}  # fmt: skip


@pytest.mark.parametrize("operator", list(BAD), ids=lambda f: f.__name__)
def test_refusals(operator: Callable[..., Any]) -> None:
    for args, kwargs, error, text in BAD[operator]:
        with pytest.raises(error, match=rf"^{operator.__name__}: {text}"):
            operator(*args, **kwargs)
