"""Atrous spatial pyramid pooling: every path against torch in float64, its options, gradients, refusals."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

from torch.nn import functional  # noqa: E402

from cv3gpu import _array, conv  # noqa: E402
from cv3gpu.atrous import aspp, aspp_vjp, atrous_branches  # noqa: E402
from cv3gpu.pyramid import Pointwise  # noqa: E402
from tests.tolerance import assert_close  # noqa: E402

DTYPES = ("float32", "float64", "float16", "bfloat16")
LAYOUTS = ("nchw", "nhwc")


class Case(NamedTuple):
    """An image and branches: channels, kernel and dilation of each."""

    size: tuple[int, int]
    branches: tuple[tuple[int, tuple[int, int], int], ...]
    channels: int = 6
    images: int = 2


THREE = (3, 3)
CASES = {
    "deeplab": Case((9, 11), ((5, (1, 1), 1), (4, THREE, 2), (5, THREE, 4), (3, THREE, 6))),
    "taps outside": Case((5, 7), ((4, THREE, 5), (4, THREE, 6), (4, THREE, 36))),
    "many channels": Case((4, 5), ((34, THREE, 2), (33, (1, 1), 1)), channels=34, images=1),
    "other kernels": Case((8, 6), ((3, (5, 3), 2), (2, (1, 5), 1), (4, (7, 7), 3))),
    "one branch": Case((4, 4), ((8, THREE, 1),), channels=16),
    "one pixel": Case((1, 1), ((3, THREE, 12), (2, (1, 1), 1))),
}


def held(values: np.ndarray, dtype: str) -> np.ndarray:
    """Rounded to the dtype, as float64."""
    return torch.from_numpy(np.asarray(values, np.float64)).to(getattr(torch, dtype)).double().numpy()


def draw(case: Case, dtype: str, seed: int = 0) -> tuple[np.ndarray, list[np.ndarray], list[np.ndarray]]:
    """Image, weights and biases, exact in the dtype."""
    rng = np.random.default_rng(seed)
    x = held(rng.standard_normal((case.images, case.channels, *case.size)), dtype)
    weights = [held(rng.standard_normal((out, case.channels, *kernel)), dtype) for out, kernel, _ in case.branches]
    return x, weights, [held(rng.standard_normal(len(w)), dtype) for w in weights]


def branches_by_torch(case: Case, x: Any, weights: list[Any]) -> list[Any]:
    """Convolutions, without what follows."""
    return [
        functional.conv2d(x, w, None, 1, (d * (kernel[0] // 2), d * (kernel[1] // 2)), d)
        for w, (_, kernel, d) in zip(weights, case.branches, strict=True)
    ]


def tensors(arrays: list[np.ndarray]) -> list[Any]:
    return [torch.from_numpy(a) for a in arrays]


def dilations(case: Case) -> tuple[int, ...]:
    return tuple(d for *_, d in case.branches)


def dtypes_for(path: Any, name: str) -> tuple[str, ...]:
    """All on a CPU; the runner of kernels, which is slow, takes all for one case and two for the others."""
    return DTYPES if not path.runs_kernels or name == "deeplab" else ("float32", "bfloat16")


# ---- values -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", list(CASES))
def test_branches_side_by_side(path: Any, name: str, layout: str) -> None:
    case = CASES[name]
    for dtype in dtypes_for(path, name):
        x, weights, biases = draw(case, dtype)
        parts = branches_by_torch(case, torch.from_numpy(x), tensors(weights))
        want = torch.cat([y + b[:, None, None] for y, b in zip(parts, tensors(biases), strict=True)], 1).numpy()
        sums = branches_by_torch(case, torch.from_numpy(np.abs(x)), tensors([np.abs(w) for w in weights]))
        scale = torch.cat(sums, 1).numpy() + 3
        given = [path.array(w, dtype) for w in weights], [path.array(b, dtype) for b in biases]
        got = aspp(path.array(x, dtype, layout), *given, dilations=dilations(case))
        assert _array.dtype_name(got) == dtype
        assert _array.memory_format(got) == layout or case.size == (1, 1)
        assert_close(path.numpy(got), want, dtype, case.channels * 49, scale)


@pytest.mark.parametrize("activation", [None, "relu", "relu6"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_all_options(path: Any, layout: str, activation: str | None) -> None:
    """DeepLab's head in evaluation: factors, biases, activations, pooled branch and projection, against plain torch."""
    case, rng = CASES["deeplab"], np.random.default_rng(1)
    x, weights, biases = draw(case, "float64")
    scales = [rng.standard_normal(len(w)) for w in weights]
    pool = rng.standard_normal((4, case.channels, 1, 1)), rng.standard_normal(4), rng.standard_normal(4), activation
    last = rng.standard_normal((7, 17 + 4, 1, 1)), rng.standard_normal(7), rng.standard_normal(7), activation

    def finished(y: Any, scale: np.ndarray, bias: np.ndarray) -> Any:
        y = y * torch.from_numpy(scale)[:, None, None] + torch.from_numpy(bias)[:, None, None]
        return y if activation is None else y.clamp(0, 6 if activation == "relu6" else None)

    image = torch.from_numpy(x)
    parts = branches_by_torch(case, image, tensors(weights))
    parts = [finished(*of_branch) for of_branch in zip(parts, scales, biases, strict=True)]
    mean = finished(functional.conv2d(image.mean((2, 3), keepdim=True), torch.from_numpy(pool[0])), *pool[1:3])
    large = functional.interpolate(mean, case.size, mode="bilinear", align_corners=False)
    together = torch.cat([*parts, large], 1)
    projected = finished(functional.conv2d(together, torch.from_numpy(last[0])), *last[1:3])

    def on_path(values: Any) -> Any:
        return tuple(path.array(v) if isinstance(v, np.ndarray) else v for v in values)

    given = path.array(x, "float64", layout), list(on_path(weights)), list(on_path(biases))
    options: dict[str, Any] = {"dilations": dilations(case), "scales": list(on_path(scales)), "activation": activation}
    for more, want in (
        ({}, torch.cat(parts, 1)),
        ({"image_pooling": on_path(pool)}, together),
        ({"image_pooling": Pointwise(*on_path(pool)), "project": on_path(last)}, projected),
        ({"project": (on_path(last)[0][:, :17],)}, functional.conv2d(together[:, :17], torch.from_numpy(last[0][:, :17]))),
    ):  # fmt: skip
        got = aspp(*given, **options, **more)
        assert _array.memory_format(got) == layout
        np.testing.assert_allclose(path.numpy(got), want.numpy(), rtol=1e-10, atol=1e-10)


def test_projection_is_one_convolution(path: Any) -> None:
    """The pooled branch as a vector of the projection is the projection of the enlarged branch."""
    case = CASES["deeplab"]
    x, weights, _ = draw(case, "float64", 2)
    rng = np.random.default_rng(2)
    pool, last = rng.standard_normal((3, 6, 1, 1)), rng.standard_normal((5, 20, 1, 1))
    given = path.array(x), [path.array(w) for w in weights]
    options = {"dilations": dilations(case), "image_pooling": (path.array(pool),)}
    together = aspp(*given, **options)
    want = path.numpy(conv.conv2d(together, path.array(last)))
    got = path.numpy(aspp(*given, **options, project=(path.array(last),)))
    np.testing.assert_allclose(got, want, rtol=1e-12, atol=1e-12)


def test_nan_stays_nan_behind_an_activation(path: Any) -> None:
    x = np.array([[[[np.nan, -1.0, 9.0]]]])
    for layout in LAYOUTS:
        weights = [path.array(np.ones((1, 1, 1, 1)))]
        got = aspp(path.array(x, "float64", layout), weights, dilations=[1], activation="relu6")
        np.testing.assert_array_equal(path.numpy(got), [[[[np.nan, 0, 6]]]])


def test_views_of_other_arrays(path: Any) -> None:
    case = CASES["deeplab"]
    x, weights, _ = draw(case, "float64")
    wide = path.array(np.repeat(x, 2, 3))[..., ::2]
    got = aspp(wide, [path.array(np.repeat(w, 2, 1))[:, ::2] for w in weights], dilations=dilations(case))
    want = torch.cat(branches_by_torch(case, torch.from_numpy(x), tensors(weights)), 1).numpy()
    np.testing.assert_allclose(path.numpy(got), want, rtol=1e-12, atol=1e-12)


def test_no_images(path: Any) -> None:
    x, w = path.array(np.zeros((0, 3, 4, 5)), "float32"), path.array(np.zeros((2, 3, 3, 3)), "float32")
    assert tuple(aspp(x, [w, w], dilations=(1, 2)).shape) == (0, 4, 4, 5)
    pool, last = path.array(np.zeros((1, 3, 1, 1)), "float32"), path.array(np.zeros((7, 5, 1, 1)), "float32")
    options = {"dilations": (1, 2), "image_pooling": (pool,), "project": (last,)}
    assert tuple(aspp(x, [w, w], **options).shape) == (0, 7, 4, 5)
    found = aspp_vjp(path.array(np.zeros((0, 4, 4, 5)), "float32"), x, [w, w], dilations=(1, 2))
    assert tuple(found.x.shape) == (0, 3, 4, 5) and not path.numpy(found.weights[0]).any()


def test_results_repeat_bit_for_bit(path: Any) -> None:
    case = CASES["deeplab"]
    x, weights, _ = draw(case, "float32")
    given = path.array(x, "float32"), [path.array(w, "float32") for w in weights]
    first, second = (path.numpy(aspp(*given, dilations=dilations(case))) for _ in range(2))
    assert np.array_equal(first, second)


# ---- gradients ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", list(CASES))
def test_gradients_are_torchs(path: Any, name: str, layout: str) -> None:
    case = CASES[name]
    for dtype in ("float64",) if path.runs_kernels else ("float32", "float64"):
        x, weights, biases = draw(case, dtype)
        leaves = [torch.from_numpy(a).requires_grad_() for a in (x, *weights, *biases)]
        image, kernels, shifts = leaves[0], leaves[1 : 1 + len(weights)], leaves[1 + len(weights) :]
        parts = branches_by_torch(case, image, kernels)
        y = torch.cat([p + b[:, None, None] for p, b in zip(parts, shifts, strict=True)], 1)
        g = held(np.random.default_rng(3).standard_normal(tuple(y.shape)), dtype)
        want = [t.numpy() for t in torch.autograd.grad(y, leaves, torch.from_numpy(g))]
        given = path.array(g, dtype, layout), path.array(x, dtype, layout), [path.array(w, dtype) for w in weights]
        found = aspp_vjp(*given, dilations=dilations(case))
        for got, wanted in zip((found.x, *found.weights, *found.biases), want, strict=True):
            assert_close(path.numpy(got), wanted, dtype, g.size, 10 + 10 * np.abs(wanted).max())


def test_taps_outside_have_no_gradient(path: Any) -> None:
    x, w = np.ones((1, 2, 5, 4)), np.ones((3, 2, 3, 3))
    found = aspp_vjp(path.array(np.ones((1, 3, 5, 4))), path.array(x), [path.array(w)], dilations=[4])
    got = path.numpy(found.weights[0])
    reaches = np.zeros((3, 3))
    reaches[:, 1] = 4, 20, 4  # no column is 4 away, one row is
    np.testing.assert_array_equal(got, np.broadcast_to(reaches, got.shape))


def test_gradient_of_half_precision_sums(path: Any) -> None:
    g, x = np.ones((2, 1, 64, 64)), np.zeros((2, 1, 64, 64))
    given = path.array(g, "float16"), path.array(x, "float16"), [path.array(np.ones((1, 1, 1, 1)), "float16")]
    assert path.numpy(aspp_vjp(*given, dilations=[1]).biases[0]) == 8192  # sums in float16 stop at 2048


# ---- properties -----------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    st.tuples(st.integers(1, 12), st.integers(1, 12)),
    st.lists(st.tuples(st.sampled_from([1, 3, 5]), st.integers(1, 14)), min_size=1, max_size=4),
    st.integers(0, 2**31),
)
def test_each_branch_is_a_convolution(size: tuple[int, int], branches: list[tuple[int, int]], seed: int) -> None:
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((1, 3, *size))
    weights = [rng.standard_normal((1 + i, 3, k, k)) for i, (k, _) in enumerate(branches)]
    rates = [d for _, d in branches]
    got = aspp(x, weights, dilations=rates)
    want = np.concatenate(
        [conv.conv2d(x, w, padding="same", dilation=d) for w, d in zip(weights, rates, strict=True)], 1
    )
    np.testing.assert_allclose(got, want, rtol=1e-12, atol=1e-12)
    g = rng.standard_normal(got.shape)
    found = aspp_vjp(g, x, weights, dilations=rates)
    np.testing.assert_allclose((got * g).sum(), (found.x * x).sum(), rtol=1e-10, atol=1e-10)
    inner = sum((a * b).sum() for a, b in zip(found.weights, weights, strict=True))
    np.testing.assert_allclose((got * g).sum(), inner, rtol=1e-10, atol=1e-10)


# ---- refusals -------------------------------------------------------------------------------------------

X, W, V = np.zeros((1, 3, 5, 4), np.float32), np.zeros((2, 3, 3, 3), np.float32), np.zeros(2, np.float32)
ONE, P = np.zeros((4, 3, 1, 1), np.float32), np.zeros((7, 2, 1, 1), np.float32)
D = {"dilations": [2]}

BAD: list[tuple[tuple[Any, ...], dict[str, Any], type[Exception], str]] = [
    (([1.0], [W]), D, TypeError, r"x must be a NumPy, CuPy or torch array, got list"),
    ((X.astype(int), [W]), D, TypeError, r"x must have dtype float16 or .*, got int64"),
    ((X[0], [W]), D, ValueError, r"x must have shape \[N, C, H, W\], got \(3, 5, 4\)"),
    ((X[:, :, :0], [W]), D, ValueError, r"x must have channels, rows and columns, got \(1, 3, 0, 4\)"),
    ((X, W), D, TypeError, r"weights must be a list, one element for each branch, got ndarray"),
    ((X, []), D, ValueError, r"weights must not be empty, got 0"),
    ((X, [W, 1.0]), D, TypeError, r"weights\[1\] must be a NumPy, CuPy or torch array, got float"),
    ((X, [torch.from_numpy(W)]), D, TypeError, r"weights\[0\] must be, like x, of numpy on cpu, got torch on cpu"),
    ((X, [W.astype(float)]), D, TypeError, r"weights\[0\] must have the dtype of x \(float32\), got float64"),
    ((X, [W[:, :2]]), D, ValueError, r"weights\[0\] must have shape \[Cout, 3, kh, kw\], got \(2, 2, 3, 3\)"),
    ((X, [W[:, :, :2]]), D, ValueError, r"weights\[0\] must have output channels, and an odd height and width, got"),
    ((X, [W[:0]]), D, ValueError, r"weights\[0\] must have output channels, and an odd height and width, got"),
    ((X, [W], V), D, TypeError, r"biases must be a list, one element for each weight, got ndarray"),
    ((X, [W], [V, V]), D, ValueError, r"biases must have 1 elements, one for each weight, got 2"),
    ((X, [W], [V[:1]]), D, ValueError, r"biases\[0\] must have shape \[2\], got \(1,\)"),
    ((X, [W]), {"dilations": 2}, TypeError, r"dilations must be a list, one element for each weight, got int"),
    ((X, [W]), {"dilations": [1, 2]}, ValueError, r"dilations must have 1 elements, one for each weight, got 2"),
    ((X, [W]), {"dilations": [0]}, ValueError, r"dilations must be from 1 to"),
    ((X, [W]), {"dilations": [1.5]}, TypeError, r"dilations must be an integer, got 1.5"),
    ((X, [W]), D | {"scales": [V.astype(float)]}, TypeError, r"scales\[0\] must have the dtype of x"),
    ((X, [W]), D | {"activation": "tanh"}, ValueError, r"activation must be one of 'relu', 'relu6', got 'tanh'"),
    ((X, [W]), D | {"image_pooling": ONE}, TypeError, r"image_pooling must be a tuple \(weight, scale, bias, activation\)"),
    ((X, [W]), D | {"image_pooling": ()}, TypeError, r"image_pooling must be a tuple"),
    ((X, [W]), D | {"image_pooling": (P,)}, ValueError, r"image_pooling's weight must have shape \[Cout, 3, 1, 1\]"),
    ((X, [W]), D | {"image_pooling": (ONE, V)}, ValueError, r"image_pooling's scale must have shape \[4\], got \(2,\)"),
    ((X, [W]), D | {"project": (P, None, None, "no")}, ValueError, r"project's activation must be one of 'relu'"),
    ((X, [W]), D | {"project": (ONE,)}, ValueError, r"project's weight must have shape \[Cout, 2, 1, 1\], got"),
    ((X, [W]), D | {"project": (P,), "image_pooling": (ONE,)}, ValueError, r"project's weight must have shape \[Cout, 6"),
]  # fmt: skip

G = np.zeros((1, 2, 5, 4), np.float32)
BAD_VJP: list[tuple[tuple[Any, ...], dict[str, Any], type[Exception], str]] = [
    ((None, X, [W]), D, TypeError, r"grad must be a NumPy, CuPy or torch array, got None"),
    ((G, torch.from_numpy(X), [W]), D, TypeError, r"all arrays must be of one library"),
    ((G.astype(float), X, [W]), D, TypeError, r"grad must have the dtype of x \(float32\), got float64"),
    ((G[:, :1], X, [W]), D, ValueError, r"grad must have shape \[1, 2, 5, 4\], got \(1, 1, 5, 4\)"),
    ((G[..., :3], X, [W]), D, ValueError, r"grad must have shape \[1, 2, 5, 4\]"),
    ((G, X, [W, W]), D, ValueError, r"dilations must have 2 elements, one for each weight, got 1"),
    ((G, X, []), D, ValueError, r"weights must not be empty"),
    ((G, X, W), D, TypeError, r"weights must be a list"),
    ((G, X[0], [W]), D, ValueError, r"x must have shape \[N, C, H, W\]"),
    ((G, X, [W.astype(float)]), D, TypeError, r"weights\[0\] must have the dtype of x"),
    ((G, X, [W]), {"dilations": [-1]}, ValueError, r"dilations must be from 1 to"),
    ((G, X, [W]), {"dilations": ["1"]}, TypeError, r"dilations must be an integer, got '1'"),
]  # fmt: skip


def refused(operator: Callable[..., Any], cases: list[Any]) -> None:
    for args, kwargs, error, text in cases:
        with pytest.raises(error, match=rf"^{operator.__name__}: {text}"):
            operator(*args, **kwargs)


def test_refusals() -> None:
    refused(aspp, BAD)
    refused(aspp_vjp, BAD_VJP)
    shapes = {"image_bias": r"\[1, 2\]", "constant": r"\[1, K\]"}
    for name, shape in shapes.items():
        wrong = [((X, [W]), {name: V}, ValueError, rf"{name} must have shape {shape}, got \(2,\)")]
        wrong += [((X, [W]), {name: V.astype(float)}, TypeError, rf"{name} must have the dtype of x")]
        refused(atrous_branches, wrong)
