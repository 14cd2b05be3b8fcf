"""separable_conv2d and its gradients: CPU paths, and kernels on every branch, against torch in float64; refusals."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import cv3gpu
from cv3gpu import _array, _depthwise_loops, conv, separable
from tests.conftest import PATHS
from tests.tolerance import TABLE, bound

DTYPES = ("float32", "float64", "float16", "bfloat16")
HALVES = ("float16", "bfloat16")


class Case(NamedTuple):
    """A separable convolution: sizes and parameters."""

    n: int = 2
    channels: int = 8
    size: tuple[int, int] = (7, 9)
    out: int = 6
    kernel: tuple[int, int] = (3, 3)
    stride: tuple[int, int] = (1, 1)
    padding: Any = (1, 1)
    dilation: tuple[int, int] = (1, 1)
    mid_activation: str | None = None
    activation: str | None = None
    vectors: tuple[str, ...] = ("bias",)  # those of bias, mid_scale, mid_bias, scale that are given

    def steps(self) -> dict[str, Any]:
        return {"stride": self.stride, "padding": self.padding, "dilation": self.dilation}

    def words(self) -> dict[str, Any]:
        return {"mid_activation": self.mid_activation, "activation": self.activation}

    def borders(self) -> tuple[int, int, int, int]:
        return conv.padding_of("test", self.padding, self.kernel, self.stride, self.dilation)

    def output(self) -> tuple[int, int]:
        return conv.output_size(self.size, self.kernel, self.stride, self.borders(), self.dilation)


ALL = ("bias", "mid_scale", "mid_bias", "scale")
WEIGHTS = ("x", "depthwise", "pointwise")


def draw(case: Case, dtype: str, seed: int = 0) -> dict[str, np.ndarray]:
    """The arrays that are given and a gradient, exactly representable in ``dtype``."""
    rng = np.random.default_rng(seed)
    shapes = {
        "x": (case.n, case.channels, *case.size),
        "depthwise": (case.channels, 1, *case.kernel),
        "pointwise": (case.out, case.channels, 1, 1),
        "bias": (case.out,),
        "mid_scale": (case.channels,),
        "mid_bias": (case.channels,),
        "scale": (case.out,),
        "grad": (case.n, case.out, *case.output()),
    }
    exact = getattr(torch, dtype)
    drawn = {name: torch.from_numpy(rng.standard_normal(shape)).to(exact) for name, shape in shapes.items()}
    return {k: v.to(torch.float64).numpy() for k, v in drawn.items() if k in (*WEIGHTS, "grad", *case.vectors)}


def composed(case: Case, a: dict[str, Any]) -> Any:
    """The two convolutions of torch with what lies between, of float64 tensors."""
    functional = torch.nn.functional
    activate = {None: lambda t: t, "relu": functional.relu, "relu6": functional.relu6}
    top, bottom, left, right = case.borders()
    padded = functional.pad(a["x"], (left, right, top, bottom))
    m = functional.conv2d(padded, a["depthwise"], None, case.stride, 0, case.dilation, case.channels)
    m = m * a["mid_scale"][:, None, None] if "mid_scale" in a else m
    m = m + a["mid_bias"][:, None, None] if "mid_bias" in a else m
    y = functional.conv2d(activate[case.mid_activation](m), a["pointwise"])
    y = y * a["scale"][:, None, None] if "scale" in a else y
    y = y + a["bias"][:, None, None] if "bias" in a else y
    return activate[case.activation](y)


def reference(case: Case, arrays: dict[str, np.ndarray]) -> np.ndarray:
    return composed(case, {k: torch.from_numpy(v) for k, v in arrays.items()}).numpy()


def reference_gradients(case: Case, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    leaves = {k: torch.from_numpy(v).requires_grad_() for k, v in arrays.items() if k != "grad"}
    found = torch.autograd.grad(composed(case, leaves), tuple(leaves.values()), torch.from_numpy(arrays["grad"]))
    return {k: g.numpy() for k, g in zip(leaves, found, strict=True)}


def linear(case: Case) -> Case:
    """Without activations, which make no error larger."""
    return case._replace(mid_activation=None, activation=None)


def assert_close(got: np.ndarray, wanted: np.ndarray, total: np.ndarray, dtype: str, terms: int, rounded: int) -> None:
    """Within the table, and as many roundings to 16 bits of numbers on the way; ``total`` is the sum of |terms|."""
    allowed = bound(wanted, dtype, terms, total)
    if dtype in HALVES:
        allowed = allowed + rounded * 0.5 * TABLE[dtype].output * total
    assert got.shape == wanted.shape
    error = np.abs(got.astype(np.float64) - wanted)
    assert (error <= allowed).all(), (
        f"{(error / allowed).max():.3g} times what is allowed, at {np.argmax(error / allowed)}"
    )


def given_to(path: Any, arrays: dict[str, np.ndarray], dtype: str, layout: str) -> dict[str, Any]:
    return {k: path.array(v, dtype, layout if k in ("x", "grad") else "nchw") for k, v in arrays.items() if k != "grad"}


def check(path: Any, case: Case, dtype: str, layout: str = "nchw", seed: int = 0) -> None:
    arrays = draw(case, dtype, seed)
    given = given_to(path, arrays, dtype, layout)
    y = cv3gpu.separable_conv2d(**given, **case.steps(), **case.words())
    total = reference(linear(case), {k: abs(v) for k, v in arrays.items()})
    terms = case.channels * case.kernel[0] * case.kernel[1]
    assert_close(path.numpy(y), reference(case, arrays), total, dtype, terms, rounded=1)
    if _array.memory_format(given["x"]) == "nhwc" and case.out > 1 and case.output() != (1, 1):
        assert _array.memory_format(y) == "nhwc"


def check_gradients(path: Any, case: Case, dtype: str, layout: str = "nchw", seed: int = 0) -> None:
    arrays = draw(case, dtype, seed)
    grad = path.array(arrays["grad"], dtype, layout)
    found = cv3gpu.separable_conv2d_vjp(grad, **given_to(path, arrays, dtype, layout), **case.steps(), **case.words())
    wanted = reference_gradients(case, arrays)
    totals = reference_gradients(linear(case), {k: abs(v) for k, v in arrays.items()})
    assert {k for k, v in found._asdict().items() if v is not None} == set(wanted)
    rows, cols = case.output()
    for name, gradient in wanted.items():
        got = getattr(found, name)
        assert _array.dtype_name(got) == dtype
        terms = case.channels * case.out * case.n * rows * cols
        assert_close(path.numpy(got), gradient, totals[name], dtype, terms, rounded=5)


# ---- CPU paths ------------------------------------------------------------------------------------------


def random_case(rng: np.random.Generator) -> Case:
    """Any separable convolution of moderate size that has a result."""
    while True:
        kernel = tuple(int(k) for k in rng.integers(1, 6, 2))
        dilation = tuple(int(k) for k in rng.integers(1, 4, 2))
        stride = (1, 1) if rng.random() < 0.5 else tuple(int(k) for k in rng.integers(1, 4, 2))
        padding: Any = tuple(int(k) for k in rng.integers(0, 8, 4 if rng.random() < 0.3 else 2))
        if rng.random() < 0.15 and stride == (1, 1):
            padding = "same"
        words = rng.choice(["", "relu", "relu6"], 2)
        case = Case(
            int(rng.integers(1, 4)), int(rng.integers(1, 12)), tuple(int(k) for k in rng.integers(1, 17, 2)),
            int(rng.integers(1, 12)), kernel, stride, padding, dilation, *(str(word) or None for word in words),
            tuple(name for name in ALL if rng.random() < 0.5),
        )  # fmt: skip
        if min(case.output()) > 0:
            return case


@pytest.mark.parametrize("dtype", DTYPES)
def test_cpu_paths_agree_with_float64_on_250_random_configurations(cpu_path: Any, dtype: str) -> None:
    rng = np.random.default_rng(5)
    for seed in range(250):
        case, layout = random_case(rng), "nhwc" if seed % 2 else "nchw"
        try:
            check(cpu_path, case, dtype, layout, seed)
            if seed % 4 == 0:
                check_gradients(cpu_path, linear(case) if dtype in HALVES else case, dtype, layout, seed)
        except AssertionError as error:
            raise AssertionError(f"configuration {seed}: {case}, {layout}: {error}") from error


@pytest.fixture
def small_bands(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several bands of rows, and several threads for each."""
    monkeypatch.setattr(separable, "_BAND", 0)
    monkeypatch.setattr(separable, "_FEWEST", 1)
    monkeypatch.setattr(_depthwise_loops, "_ENOUGH", 0)
    monkeypatch.setattr(_depthwise_loops, "cores", lambda: 3)


@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_bands_and_threads(small_bands: None, dtype: str, layout: str) -> None:
    for case in (
        Case(vectors=ALL, mid_activation="relu", activation="relu6"),
        Case(size=(11, 5), stride=(2, 3), dilation=(3, 1), padding=(4, 2)),
        Case(n=1, size=(12, 3), kernel=(5, 4), padding=(3, 1, 0, 2)),
    ):
        check(PATHS["numpy"], case, dtype, layout)


@given(
    st.integers(1, 3), st.integers(1, 3), st.tuples(st.integers(1, 5), st.integers(1, 5)),
    st.tuples(st.integers(1, 3), st.integers(1, 3)), st.tuples(*[st.integers(0, 6)] * 4),
    st.tuples(st.integers(1, 4), st.integers(1, 4)), st.booleans(),
)  # fmt: skip
@settings(max_examples=80, deadline=None, derandomize=True)
def test_depthwise_loops_are_conv2d(
    channels: int, multiplier: int, kernel: tuple[int, int], stride: tuple[int, int],
    padding: tuple[int, int, int, int], dilation: tuple[int, int], last: bool,
) -> None:  # fmt: skip
    size = (8, 7)
    if min(conv.output_size(size, kernel, stride, padding, dilation)) < 1:
        return
    multiplier = 1 if last else multiplier
    geometry = conv.geometry_of("test", "x", size, kernel, stride, padding, dilation, channels)
    rng = np.random.default_rng(sum(padding))
    x = PATHS["numpy"].array(rng.standard_normal((2, channels, *size)), layout="nhwc" if last else "nchw")
    weight, bias = rng.standard_normal((channels * multiplier, 1, *kernel)), rng.standard_normal(channels * multiplier)
    y = _array.empty(x, (2, len(weight), *geometry.output), layout="nhwc" if last else "nchw")
    _depthwise_loops.forward(x, weight, bias, geometry, y)
    top, bottom, left, right = padding
    padded = torch.nn.functional.pad(torch.from_numpy(x), (left, right, top, bottom))
    wanted = torch.nn.functional.conv2d(
        padded, torch.from_numpy(weight), torch.from_numpy(bias), stride, 0, dilation, channels
    )
    np.testing.assert_allclose(y, wanted.numpy(), rtol=1e-12, atol=1e-12)


# ---- kernels --------------------------------------------------------------------------------------------


@pytest.fixture
def fused(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """One kernel, whatever it costs."""
    monkeypatch.setattr(separable, "recomputes", lambda *_: False)
    yield


# One case per branch of the kernels and of their launch arithmetic.
KERNEL_CASES = {
    "plain": Case(),
    "one pixel": Case(n=1, channels=1, size=(1, 1), out=1, kernel=(1, 1), padding=0, vectors=()),
    "all between and after": Case(vectors=ALL, mid_activation="relu6", activation="relu"),
    "two slices, dilated, rows of 8": Case(channels=70, size=(8, 8), out=70, padding=2, dilation=(2, 2)),
    "axes differ": Case(channels=5, size=(11, 8), out=130, kernel=(5, 3), stride=(2, 1), padding=(0, 2, 3, 1)),
    "5x5": Case(channels=67, size=(9, 8), out=3, kernel=(5, 5), padding="same", activation="relu"),
    "5x5 strided": Case(n=1, size=(9, 9), kernel=(5, 5), stride=(2, 2), padding=2, mid_activation="relu"),
    "several tiles of channels": Case(n=1, channels=6, size=(5, 6), out=260, vectors=ALL),
    "several tiles of pixels": Case(n=3, channels=4, size=(11, 13)),
    "taps out of reach": Case(n=1, channels=4, size=(5, 5), padding=12, dilation=(12, 12)),
    "even kernel": Case(channels=3, kernel=(2, 4), padding="same", out=4),
}


@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", KERNEL_CASES)
def test_kernels_agree_with_float64(kernel_path: Any, fused: None, name: str, dtype: str, layout: str) -> None:
    check(kernel_path, KERNEL_CASES[name], dtype, layout)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("name", ["plain", "all between and after", "axes differ"])
def test_two_kernels_give_the_same(kernel_path: Any, monkeypatch: pytest.MonkeyPatch, name: str, dtype: str) -> None:
    monkeypatch.setattr(separable, "recomputes", lambda *_: True)
    check(kernel_path, KERNEL_CASES[name], dtype)


@pytest.mark.parametrize("capability", [75, 86, 90])
def test_every_architecture_has_a_path(host_backend: Any, monkeypatch: pytest.MonkeyPatch, capability: int) -> None:
    monkeypatch.setattr(host_backend, "capability", capability, raising=False)
    check(PATHS["host"], Case(vectors=ALL, mid_activation="relu"), "float16")


def test_one_kernel_or_two(host_backend: Any) -> None:
    """By the count of both: narrow outputs at once, wide ones in two steps where the batch is large."""

    def two(channels: int, out: int, taps: int, batch: int, dtype: str = "float16") -> bool:
        x = np.broadcast_to(np.zeros(1, dtype), (batch, channels, 33, 33))
        size = (taps, taps)
        geometry = conv.geometry_of("test", "x", (33, 33), size, 1, taps // 2, 1, channels)
        return separable.recomputes((batch, out, 33, 33), x, geometry)

    assert not two(960, 160, 3, 8) and not two(960, 160, 5, 8)
    assert not two(728, 728, 3, 1) and two(728, 728, 3, 8)
    assert not two(728, 256, 3, 64) and not two(128, 128, 3, 8, "float32")
    assert two(8, 8, 7, 1)


def test_shared_memory_fits_every_gpu(host_backend: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Static and dynamic, at the most taps that a fused kernel takes."""
    asked: list[int] = []

    def launcher(*_: Any, **__: Any) -> Any:
        return lambda *_, shared_mem: asked.append(shared_mem)

    monkeypatch.setattr(separable, "kernel", launcher)
    monkeypatch.setattr(separable, "_columns", lambda pointwise, _: (pointwise, 8))
    wide = (4, separable.MOST_TAPS // 4)
    for dtype, out in itertools.product(("float16", "float32", "float64"), (3, 70, 130)):
        case = Case(n=1, kernel=wide, padding="same", out=out)
        for layout in ("nchw", "nhwc"):
            cv3gpu.separable_conv2d(**given_to(PATHS["host"], draw(case, dtype), dtype, layout), **case.steps())
    table = 128 * 16
    assert len(asked) == 18 and max(asked) + table <= 99 << 10


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_same_result_in_any_order_of_threads(fused: None, dtype: str) -> None:
    from tests.hostrun import HostBackend

    case, results = Case(channels=20, out=12, vectors=ALL), []
    arrays = draw(case, dtype)
    for seed in (1, 2):
        token = _array.host_backend.set(HostBackend(mode="fast", order="random", seed=seed))
        try:
            results.append(cv3gpu.separable_conv2d(**given_to(PATHS["host"], arrays, dtype, "nchw"), **case.steps()))
        finally:
            _array.host_backend.reset(token)
    assert results[0].tobytes() == results[1].tobytes()


# ---- gradients ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ["plain", "all between and after", "axes differ", "taps out of reach"])
def test_gradients_agree_with_float64(path: Any, name: str, dtype: str, layout: str) -> None:
    case = KERNEL_CASES[name]._replace(channels=4, out=3)
    check_gradients(path, linear(case) if dtype in HALVES else case, dtype, layout)


@pytest.mark.parametrize("dtype", HALVES)
def test_activations_stop_gradients_in_16_bits(path: Any, dtype: str) -> None:
    case = Case(n=1, channels=1, size=(1, 3), out=1, kernel=(1, 1), padding=0, vectors=(), mid_activation="relu6")
    x = path.array(np.array([[[[-1.0, 2.0, 7.0]]]]), dtype)
    one, three = (path.array(np.full((1, 1, 1, 1), v), dtype) for v in (1.0, 3.0))
    y = cv3gpu.separable_conv2d(x, one, three, **case.words())
    assert path.numpy(y).ravel().tolist() == [0, 6, 18]
    grad = path.array(np.ones((1, 1, 1, 3)), dtype)
    gradients = cv3gpu.separable_conv2d_vjp(grad, x, one, three, **case.words())
    assert path.numpy(gradients.x).ravel().tolist() == [0, 3, 0]
    assert path.numpy(gradients.depthwise).item() == 6 and path.numpy(gradients.pointwise).item() == 8


# ---- arrays of all kinds --------------------------------------------------------------------------------


def test_views_with_any_strides(path: Any, fused: None) -> None:
    case = Case(channels=4, size=(6, 5), out=5, vectors=ALL, mid_activation="relu")
    for dtype in ("float32", "float16"):
        arrays = draw(case, dtype, 3)
        wanted, total = reference(case, arrays), reference(linear(case), {k: abs(v) for k, v in arrays.items()})

        def spread(a: np.ndarray, dtype: str = dtype) -> Any:
            wide = np.zeros((*a.shape[:-1], 2 * a.shape[-1]))
            wide[..., ::2] = a
            return path.array(wide, dtype)[..., ::2]

        views = {k: spread(v) for k, v in arrays.items() if k != "grad"}
        y = cv3gpu.separable_conv2d(**views, **case.steps(), **case.words())
        assert_close(path.numpy(y), wanted, total, dtype, 36, rounded=1)
        if not path.is_torch:  # torch has no negative strides
            flipped = path.array(arrays["x"][:, :, ::-1, ::-1].copy(), dtype)[:, :, ::-1, ::-1]
            y = cv3gpu.separable_conv2d(**{**views, "x": flipped}, **case.steps(), **case.words())
            assert_close(path.numpy(y), wanted, total, dtype, 36, rounded=1)


@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
def test_no_images_give_no_results(path: Any, layout: str) -> None:
    case = Case(n=0, vectors=ALL, mid_activation="relu", activation="relu6")
    arrays = draw(case, "float32")
    given = given_to(path, arrays, "float32", layout)
    y = cv3gpu.separable_conv2d(**given, **case.steps(), **case.words())
    assert tuple(y.shape) == (0, 6, 7, 9)
    gradients = cv3gpu.separable_conv2d_vjp(y, **given, **case.steps(), **case.words())
    for name, gradient in gradients._asdict().items():
        assert tuple(gradient.shape) == tuple(given[name].shape)
        assert not path.numpy(gradient).any()


@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
@pytest.mark.parametrize("padding", [(1, 1), (6, 6)])
def test_nan_passes_the_activations(path: Any, fused: None, padding: tuple[int, int], layout: str) -> None:
    case = Case(n=1, channels=2, size=(9, 9), out=2, padding=padding, mid_activation="relu6", activation="relu")
    arrays = draw(case, "float32")
    arrays["x"][0, 0, 4, 4] = np.nan
    y = path.numpy(cv3gpu.separable_conv2d(**given_to(path, arrays, "float32", layout), **case.steps(), **case.words()))
    top, left = 3 + padding[0] - 1, 3 + padding[1] - 1
    spot = np.zeros(y.shape, bool)
    spot[:, :, top : top + 3, left : left + 3] = True
    assert np.array_equal(np.isnan(y), spot)


# ---- refusals -------------------------------------------------------------------------------------------

X, D, P = np.ones((2, 4, 6, 5), np.float32), np.ones((4, 1, 3, 3), np.float32), np.ones((6, 4, 1, 1), np.float32)
G = np.ones((2, 6, 4, 3), np.float32)
F4, F6 = np.ones(4, np.float32), np.ones(6, np.float32)

REFUSALS: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "list": ({"x": [1.0]}, TypeError, "x must be a NumPy, CuPy or torch array, got list"),
    "no weight": ({"depthwise": None}, TypeError, "depthwise must be a NumPy, CuPy or torch array, got None"),
    "masked": ({"pointwise": np.ma.array(P)}, TypeError, "pointwise must be a NumPy, .* array, got MaskedArray"),
    "mixed": ({"bias": torch.ones(6)}, TypeError, "all arrays must be of one library .* bias is torch on cpu"),
    "integers": ({"x": X.astype(int)}, TypeError, "x must have dtype float16 or .*, got int64"),
    "dtype of a weight": ({"depthwise": D.astype(np.float64)}, TypeError, r"depthwise must have the dtype of x \(float32\)"),
    "dtype of another": ({"pointwise": P.astype(np.float16)}, TypeError, r"pointwise must have the dtype of x .*, got float16"),
    "dtype of a scale": ({"mid_scale": np.ones(4)}, TypeError, r"mid_scale must have the dtype of x \(float32\), got float64"),
    "three dimensions": ({"x": X[0]}, ValueError, r"x must have shape \[N, C, H, W\], got \(4, 6, 5\)"),
    "multiplier": ({"depthwise": np.ones((8, 1, 3, 3), np.float32)}, ValueError, r"depthwise must have shape \[4, 1, kh, kw\], got \(8, 1, 3, 3\)"),
    "dense weight": ({"depthwise": np.ones((4, 4, 3, 3), np.float32)}, ValueError, r"depthwise must have shape \[4, 1, kh, kw\]"),
    "no taps": ({"depthwise": D[:, :, :0]}, ValueError, r"depthwise must have no empty dimension, got \(4, 1, 0, 3\)"),
    "not 1x1": ({"pointwise": np.ones((6, 4, 3, 3), np.float32)}, ValueError, r"pointwise must have shape \[Cout, 4, 1, 1\], got \(6, 4, 3, 3\)"),
    "channels": ({"pointwise": P[:, :3]}, ValueError, r"pointwise must have shape \[Cout, 4, 1, 1\], got \(6, 3, 1, 1\)"),
    "no result channels": ({"pointwise": P[:0]}, ValueError, "pointwise must have no empty dimension"),
    "bias": ({"bias": F4}, ValueError, r"bias must have shape \[6\], got \(4,\)"),
    "mid_bias": ({"mid_bias": F6}, ValueError, r"mid_bias must have shape \[4\], got \(6,\)"),
    "scale": ({"scale": np.ones((6, 1), np.float32)}, ValueError, r"scale must have shape \[6\], got \(6, 1\)"),
    "activation": ({"activation": "gelu"}, ValueError, "activation must be one of 'relu', 'relu6', got 'gelu'"),
    "mid_activation": ({"mid_activation": True}, ValueError, "mid_activation must be one of 'relu', 'relu6', got True"),
    "stride": ({"stride": 0}, ValueError, "stride must be from 1 to 2147483647, got 0"),
    "stride of a float": ({"stride": 1.5}, TypeError, "stride must be an integer or a pair of integers, got 1.5"),
    "padding": ({"padding": "full"}, ValueError, "padding must be one of 'same', 'valid', got 'full'"),
    "dilation": ({"dilation": (1, -1)}, ValueError, "dilation must be from 1 to 2147483647, got -1"),
    "too small": ({"dilation": 4}, ValueError, r"x must be at least the dilated kernel's size \(9, 9\) with its padding, got \(6, 5\)"),
}  # fmt: skip


@pytest.mark.parametrize("name", list(REFUSALS))
def test_separable_conv2d_refuses(name: str) -> None:
    given, error, text = REFUSALS[name]
    with pytest.raises(error, match=f"^separable_conv2d: .*{text}"):
        cv3gpu.separable_conv2d(**{"x": X, "depthwise": D, "pointwise": P, **given})
    with pytest.raises(error, match=f"^separable_conv2d_vjp: .*{text}"):
        cv3gpu.separable_conv2d_vjp(**{"grad": G, "x": X, "depthwise": D, "pointwise": P, **given})


@pytest.mark.parametrize(
    ("grad", "error", "text"),
    [
        (None, TypeError, "grad must be a NumPy, CuPy or torch array, got None"),
        (G[0], ValueError, r"grad must have shape \[2, 6, 4, 3\], got \(6, 4, 3\)"),
        (G[:, :, 1:], ValueError, r"grad must have shape \[2, 6, 4, 3\], got \(2, 6, 3, 3\)"),
        (G.astype(np.float64), TypeError, r"grad must have the dtype of x \(float32\), got float64"),
    ],
)
def test_separable_conv2d_vjp_refuses_gradients(grad: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=f"^separable_conv2d_vjp: {text}"):
        cv3gpu.separable_conv2d_vjp(grad, X, D, P)
