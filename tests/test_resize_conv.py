"""resize_conv2d and its adjoints: against torch's interpolate and conv2d in float64, both ways, on every path."""

from __future__ import annotations

import tracemalloc
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import cv3gpu
from cv3gpu import _array, _resize_conv_gpu, resize_conv
from cv3gpu._polyphase import Tap, plan
from cv3gpu.conv import padding_of
from cv3gpu.resize import _sampling
from cv3gpu.resize_conv import resize_conv2d, resize_conv2d_adjoint_input, resize_conv2d_adjoint_weight
from tests.conftest import PATHS
from tests.tolerance import TABLE, bound

torch = pytest.importorskip("torch")
functional = torch.nn.functional

DTYPES = ("float32", "float64", "float16", "bfloat16")
MODES = ("nearest", "nearest-exact", "bilinear", "bicubic")
WAYS = ("phases", "parts")


class Case(NamedTuple):
    """N, C, Cout; rows and columns; and the rest."""

    channels: tuple[int, int, int]
    small: tuple[int, int]
    kernel: tuple[int, int] = (3, 3)
    size: tuple[int, int] | None = None
    scale_factor: Any = None
    mode: str = "bilinear"
    align_corners: bool = False
    padding: Any = "same"
    dilation: Any = 1

    @property
    def options(self) -> dict[str, Any]:
        """What all three operators take."""
        names = ("scale_factor", "mode", "align_corners", "padding", "dilation")
        return {name: getattr(self, name) for name in names}


def random_case(rng: np.random.Generator, channels: int = 4) -> Case | None:
    """A configuration of any kind, or None where it has no result."""
    mode = MODES[rng.integers(4)]
    small = tuple(int(n) for n in rng.integers(1, 9, 2))
    kernel = tuple(int(k) for k in rng.integers(1, 5, 2))
    corners = mode in ("bilinear", "bicubic") and bool(rng.random() < 0.5)
    size = factor = None
    kind = rng.integers(4)
    if kind == 0:
        size = tuple(int(n) for n in rng.integers(1, 25, 2))
    elif kind == 1:
        size = (small[0] - 1) * int(rng.integers(2, 5)) + 1, (small[1] - 1) * 2 + 1
    else:
        factor = tuple(float(f) for f in (rng.integers(1, 5, 2) if kind == 2 else rng.uniform(1, 3, 2)))
    padding = ["same", 1, (2, 0), (0, 1, 3, 2), "valid"][rng.integers(5)]
    dilation = tuple(int(d) for d in rng.choice([1, 1, 1, 2, 3], 2))
    many = tuple(int(n) for n in (rng.integers(1, 3), *rng.integers(1, channels, 2)))
    case = Case(many, small, kernel, size, factor, mode, corners, padding, dilation)  # type: ignore[arg-type]
    large = size or tuple(int(n * f) for n, f in zip(small, factor, strict=True))  # type: ignore[arg-type]
    top, bottom, left, right = padding_of("", padding, kernel, (1, 1), dilation)
    rows, cols = (d * (k - 1) for d, k in zip(dilation, kernel, strict=True))
    return case if min(large[0] + top + bottom - rows, large[1] + left + right - cols) > 0 else None


def held(values: np.ndarray, dtype: str) -> np.ndarray:
    """The numbers rounded to the dtype, as float64."""
    return torch.from_numpy(np.asarray(values)).to(getattr(torch, dtype)).double().numpy()


def reference(x: Any, weight: Any, bias: Any, case: Case, single: bool) -> Any:
    """Torch's own, in float64; which pixel is nearest in float32 for all other dtypes, as torch has it."""
    smooth = case.mode in ("bilinear", "bicubic")
    corners = {"align_corners": case.align_corners} if smooth else {}
    given = x.float() if single and not smooth else x
    large = functional.interpolate(given, case.size, case.scale_factor, case.mode, **corners).double()
    top, bottom, left, right = padding_of("", case.padding, case.kernel, (1, 1), np.broadcast_to(case.dilation, 2))
    return functional.conv2d(functional.pad(large, (left, right, top, bottom)), weight, bias, dilation=case.dilation)


def layouts(path: Any, values: np.ndarray, dtype: str, rng: np.random.Generator) -> Any:
    """The array dense, channels-last, or a view of another one."""
    kind = rng.integers(3)
    if kind == 0:
        return path.array(np.repeat(values, 2, axis=3), dtype)[..., ::2]
    return path.array(values, dtype, ("nchw", "nhwc")[kind - 1])


def near(path: Any, got: Any, want: Any, scale: Any, dtype: str, terms: int, case: Case) -> None:
    """A result within the table; of 16-bit arrays, combined weights or the enlarged image may be rounded, too."""
    assert _array.dtype_name(got) == dtype
    got, want = path.numpy(got).astype(np.float64), want.detach().numpy()
    assert got.shape == want.shape
    size = np.maximum(scale.detach().numpy(), 0) * (1 if case.mode != "bicubic" else 4)
    allowed = bound(want, dtype, terms, size + np.abs(want))
    if dtype in ("float16", "bfloat16") and path.runs_kernels:
        allowed = allowed + 2 * TABLE[dtype].output * size
    wrong = ~(np.abs(got - want) <= allowed)
    assert not wrong.any(), f"{case}: off by {np.abs(got - want)[wrong].max()}, allowed {allowed[wrong].min()}"


def check(path: Any, case: Case, dtype: str, rng: np.random.Generator, *, adjoints: str = "xw") -> None:
    """The operator and its adjoints on a path."""
    n, c, out = case.channels
    x, weight, bias = (
        torch.from_numpy(held(rng.standard_normal(shape), dtype))
        for shape in ((n, c, *case.small), (out, c, *case.kernel), (out,))
    )
    single = dtype != "float64"
    leaves = [t.clone().requires_grad_() for t in (x, weight)]
    want = reference(*leaves, bias, case, single)
    sizes = [t.abs().requires_grad_() for t in (x, weight)]
    positive = case._replace(mode="bilinear") if case.mode == "bicubic" else case
    scale = reference(*sizes, bias.abs(), positive, single)
    if case.mode == "bicubic":  # its weights have both signs, and reach further
        scale = reference(torch.full_like(x, float(x.abs().max())), weight.abs(), bias.abs(), positive, single)
    g = torch.from_numpy(held(rng.standard_normal(tuple(want.shape)), dtype))
    wants = torch.autograd.grad(want, leaves, g)
    scales = torch.autograd.grad(reference(*sizes, None, positive, single), sizes, g.abs())
    if case.mode == "bicubic":
        scales = tuple(torch.full_like(s, float(s.max())) for s in scales)
    given = [layouts(path, t.numpy(), dtype, rng) for t in (x, weight)]
    terms = c * case.kernel[0] * case.kernel[1] * 4
    strided = path.array(np.repeat(bias.numpy(), 2), dtype)[::2]
    got = resize_conv2d(*given, strided, size=case.size, **case.options)
    assert _array.memory_format(got) in ("nchw", "nhwc")
    near(path, got, want, scale, dtype, terms, case)
    grad = layouts(path, g.numpy(), dtype, rng)
    if "x" in adjoints:
        got = resize_conv2d_adjoint_input(grad, given[1], case.small, **case.options)
        near(path, got, wants[0], scales[0], dtype, terms * out * 8, case)
    if "w" in adjoints:
        got = resize_conv2d_adjoint_weight(grad, given[0], case.kernel, **case.options)
        near(path, got, wants[1], scales[1], dtype, g.numel() * 4, case)


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Phases wherever there are any, or the enlarged image in parts everywhere."""
    phases = request.param == "phases"
    monkeypatch.setattr(resize_conv, "PIECE", 0 if phases else 10**15)
    monkeypatch.setattr(resize_conv, "BLENDING", 10**12 if phases else 0)
    monkeypatch.setattr(resize_conv, "GATHERING", 1e12 if phases else 0)
    return request.param


# ---- every path -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
def test_cpu_agrees_with_torch(cpu_path: Any, way: str, dtype: str) -> None:
    rng = np.random.default_rng(DTYPES.index(dtype))
    cases = filter(None, (random_case(rng) for _ in range(14)))
    for case in cases:
        check(cpu_path, case, dtype, rng)


@pytest.mark.parametrize("dtype", DTYPES)
def test_kernels_at_random(kernel_path: Any, way: str, dtype: str) -> None:
    rng = np.random.default_rng(10 + DTYPES.index(dtype))
    for case in filter(None, (random_case(rng) for _ in range(3))):
        check(kernel_path, case, dtype, rng, adjoints="x" if dtype == "float32" else "")


BRANCHES = {
    "nearest, twice": Case((1, 3, 2), (5, 6), scale_factor=2, mode="nearest"),
    "bilinear, twice": Case((1, 2, 3), (4, 5), scale_factor=2),
    "bilinear, four times, corners": Case((1, 2, 2), (4, 3), size=(13, 9), align_corners=True),
    "bicubic, twice": Case((1, 1, 2), (5, 6), scale_factor=2, mode="bicubic"),
    "long periods": Case((1, 1, 1), (2, 3), scale_factor=(3, 6), mode="nearest"),
    "no simple factor": Case((1, 2, 2), (4, 5), size=(7, 11)),
    "several tiles": Case((1, 1, 2), (12, 13), (1, 3), scale_factor=2, mode="nearest"),
    "many channels": Case((1, 10, 70), (2, 2), (1, 1), scale_factor=2, mode="nearest"),
    "dilated": Case((1, 2, 1), (5, 5), scale_factor=2, mode="nearest", dilation=2),
    "more padding than reach": Case((1, 1, 1), (2, 3), (2, 1), scale_factor=2, mode="nearest", padding=(4, 3)),
    "shrinks": Case((1, 2, 1), (9, 8), size=(4, 3)),
    "one pixel": Case((2, 2, 2), (1, 1), size=(3, 4)),
}


@pytest.mark.parametrize("name", list(BRANCHES))
def test_branches(path: Any, way: str, name: str) -> None:
    adjoints = "" if path.runs_kernels and name not in ("nearest, twice", "no simple factor") else "xw"
    check(path, BRANCHES[name], "float32", np.random.default_rng(4), adjoints=adjoints)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("name", ["nearest, twice", "no simple factor", "long periods"])
def test_tensor_cores(kernel_path: Any, way: str, name: str, dtype: str) -> None:
    case = BRANCHES[name]._replace(channels=(1, 20, 66 if name == "long periods" else 5))
    check(kernel_path, case, dtype, np.random.default_rng(5), adjoints="x" if name == "nearest, twice" else "")


def test_regions_too_large_for_shared_memory(kernel_path: Any) -> None:
    case = Case((1, 16, 2), (3, 4), size=(5, 7), padding=20, dilation=20)
    check(kernel_path, case, "float16", np.random.default_rng(12), adjoints="")


def test_tensor_cores_bicubic(kernel_path: Any, way: str) -> None:
    case = Case((1, 16, 3), (3, 3), (3, 2), scale_factor=(2, 1), mode="bicubic")
    check(kernel_path, case, "float16", np.random.default_rng(6), adjoints="")


@pytest.mark.parametrize("channels", [2, 16])
def test_blocks_that_do_several_images(
    kernel_path: Any, way: str, channels: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_resize_conv_gpu, "MAX_GRID_YZ", 1)
    case = Case((3, channels, 2), (2, 3), scale_factor=2, mode="nearest")
    check(kernel_path, case, "float16", np.random.default_rng(7), adjoints="")


def test_old_gpus_use_ordinary_cores(host_backend: Any) -> None:
    host_backend.capability = 75
    check(
        PATHS["host"],
        BRANCHES["long periods"]._replace(channels=(1, 17, 2)),
        "float16",
        np.random.default_rng(8),
        adjoints="",
    )


class Launches:
    """Stands in for a GPU of a capability, and notes the dynamic shared memory of the kernels."""

    def __init__(self, capability: int) -> None:
        self.capability, self.shared = capability, dict[str, int]()

    def cuda_kernel(self, text: str, name: str) -> Any:
        """A launch that does nothing else."""

        def launch(grid: Any, block: Any, values: Any, shared_mem: int) -> None:
            self.shared[name] = max(self.shared.get(name, 0), shared_mem)

        return launch


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16"])
@pytest.mark.parametrize(("capability", "limit"), [(75, 64), (80, 163), (86, 99), (89, 99), (90, 227), (120, 99)])
def test_blocks_fit_shared_memory(capability: int, limit: int, dtype: str) -> None:
    token = _array.host_backend.set(Launches(capability))
    try:
        x, weight = np.zeros((1, 64, 9, 9), dtype), np.zeros((64, 64, 3, 3), dtype)
        for options in ({"scale_factor": 8, "mode": "nearest"}, {"size": (31, 29)}, {"size": (31, 29), "dilation": 9}):
            resize_conv2d(x, weight, **options)
        shared = _array.host_backend.get().shared
    finally:
        _array.host_backend.reset(token)
    ordinary = 2 * 2 * 8 * 64 * (8 if dtype == "float64" else 4) + 64 * 12
    fixed = {"resize_conv": ordinary, "resize_conv_mma": 128 * 12, "resize_conv_region": 128 * 12}
    tensor_cores = dtype == "float16" and capability >= 80
    assert set(shared) >= ({"resize_conv_mma", "resize_conv_region"} if tensor_cores else {"resize_conv"})
    for name in set(shared) & set(fixed):
        assert shared[name] + fixed[name] <= limit << 10, name


# ---- phases ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mode", "factor", "corners", "ratio"),
    [
        ("nearest", 2, None, 2.25),
        ("nearest", 4, None, 4.0),
        ("bilinear", 2, False, 1.0),
        ("bilinear", 4, False, 1.44),
        ("bilinear", 8, False, 1.78),
        ("bilinear", 2, True, 1.44),
        ("bilinear", 4, True, 1.78),
        ("bilinear", 8, True, 1.99),
    ],
)
def test_phases_save_products(mode: str, factor: int, corners: bool | None, ratio: float) -> None:
    """3 x 3 taps against those of the phases, inside the image."""
    n = 400
    size = (n - 1) * factor + 1 if corners else n * factor
    axis = _sampling("test", "x", (n, n), (size, size), None, mode, corners, False).h
    for transposed in (False, True):
        found = plan(axis, 1 if mode == "nearest" else 2, True, Tap(3, 1, 1, 1), transposed)
        assert found is not None
        assert (3 * size / found.work) ** 2 == pytest.approx(ratio, rel=0.01)


def test_nearest_needs_no_phases_for_its_border() -> None:
    axis = _sampling("test", "x", (7, 7), None, 2, "nearest", None, False).h
    found = plan(axis, 1, True, Tap(3, 1, 1, 1), False)
    assert found is not None
    assert [m.shape for m in found.matrices] == [(3, 2), (3, 2)]
    assert len(found.pieces) == 2


def test_factors_that_drift_have_no_phases() -> None:
    axis = _sampling("test", "x", (300, 300), None, 2 - 1e-11, "bilinear", False, False).h
    assert plan(axis, 2, False, Tap(3, 1, 1, 1), False) is None


@pytest.mark.parametrize("name", ["nearest, twice", "bilinear, twice", "no simple factor"])
def test_no_enlarged_image(name: str, way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """One output channel: the peak is far below the enlarged image of 16."""
    monkeypatch.setattr(resize_conv, "BAND", 2**14)
    monkeypatch.setattr(resize_conv, "SLICE", {False: 2**14})
    case, side = BRANCHES[name], 32
    options = {**case.options, "scale_factor": 4 if case.scale_factor else 4.37}
    rng = np.random.default_rng(0)
    x, weight = rng.standard_normal((1, 16, side, side)), rng.standard_normal((1, 16, 3, 3))
    large = 16 * int(side * options["scale_factor"]) ** 2 * 8
    grad = resize_conv2d(x, weight, **options)
    for call in (
        lambda: resize_conv2d(x, weight, **options),
        lambda: resize_conv2d_adjoint_input(grad, weight, (side, side), **options),
        lambda: resize_conv2d_adjoint_weight(grad, x, (3, 3), **options),
    ):
        call()  # modules are imported, and plans made
        tracemalloc.start()
        call()
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < 0.5 * large, f"{peak} bytes, where the enlarged image has {large}"


# ---- properties -----------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None, derandomize=True)
@given(seed=st.integers(0, 10**6))
def test_adjoints_are_adjoint(seed: int) -> None:
    rng = np.random.default_rng(seed)
    case = random_case(rng)
    if case is None:
        return
    n, c, out = case.channels
    x, weight = rng.standard_normal((n, c, *case.small)), rng.standard_normal((out, c, *case.kernel))
    y = resize_conv2d(x, weight, size=case.size, **case.options)
    g = rng.standard_normal(y.shape)
    want = np.vdot(y, g)
    scale = 1e-12 * (np.linalg.norm(y) * np.linalg.norm(g) + 1)
    assert abs(np.vdot(x, resize_conv2d_adjoint_input(g, weight, case.small, **case.options)) - want) <= scale
    assert abs(np.vdot(weight, resize_conv2d_adjoint_weight(g, x, case.kernel, **case.options)) - want) <= scale


@settings(max_examples=40, deadline=None, derandomize=True)
@given(seed=st.integers(0, 10**6))
def test_is_interpolate_then_conv2d(seed: int) -> None:
    rng = np.random.default_rng(seed)
    case = random_case(rng)
    if case is None:
        return
    n, c, out = case.channels
    x, weight = rng.standard_normal((n, c, *case.small)), rng.standard_normal((out, c, *case.kernel))
    corners = case.align_corners if case.mode in ("bilinear", "bicubic") else None
    large = cv3gpu.interpolate(x, case.size, case.scale_factor, case.mode, corners)
    want = cv3gpu.conv2d(large, weight, padding=case.padding, dilation=case.dilation)
    np.testing.assert_allclose(resize_conv2d(x, weight, size=case.size, **case.options), want, rtol=1e-9, atol=1e-11)


def test_results_repeat_bit_for_bit(path: Any, way: str) -> None:
    case = BRANCHES["nearest, twice"]
    rng = np.random.default_rng(9)
    x, weight = rng.standard_normal((1, 3, 5, 6)), rng.standard_normal((2, 3, 3, 3))
    given = path.array(x, "float32"), path.array(weight, "float32")
    first, second = (path.numpy(resize_conv2d(*given, **case.options)) for _ in range(2))
    assert np.array_equal(first, second)


def test_results_keep_the_memory_order(path: Any) -> None:
    rng = np.random.default_rng(10)
    x, weight = rng.standard_normal((2, 4, 3, 5)), path.array(rng.standard_normal((3, 4, 3, 3)), "float32")
    for layout in ("nchw", "nhwc"):
        given = path.array(x, "float32", layout)
        y = resize_conv2d(given, weight, scale_factor=2, mode="nearest")
        assert _array.memory_format(y) == layout
        grad = resize_conv2d_adjoint_input(y, weight, (3, 5), scale_factor=2, mode="nearest")
        assert _array.memory_format(grad) == layout


def test_no_images(path: Any) -> None:
    x, weight = path.array(np.zeros((0, 2, 3, 4)), "float32"), path.array(np.ones((5, 2, 3, 3)), "float32")
    y = resize_conv2d(x, weight, scale_factor=2)
    assert tuple(y.shape) == (0, 5, 6, 8)
    assert tuple(resize_conv2d_adjoint_input(y, weight, (3, 4), scale_factor=2).shape) == (0, 2, 3, 4)
    found = resize_conv2d_adjoint_weight(y, x, (3, 3), scale_factor=2)
    assert tuple(found.shape) == (5, 2, 3, 3) and not path.numpy(found).any()


# ---- refusals -------------------------------------------------------------------------------------------

X, W, B, G = (np.zeros(s, np.float32) for s in ((1, 2, 3, 4), (5, 2, 3, 3), (5,), (1, 5, 6, 8)))

REFUSED: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"x": [1.0]}, TypeError, "resize_conv2d: x must be a NumPy, CuPy or torch array, got list"),
    (
        {"x": X.astype(np.int32)},
        TypeError,
        "resize_conv2d: x must have dtype float16 or bfloat16 or float32 or float64",
    ),
    ({"x": X[0]}, ValueError, r"resize_conv2d: x must have shape \[N, C, h, w\], got \(2, 3, 4\)"),
    ({"x": X[:, :, :0]}, ValueError, "resize_conv2d: x must have positive height and width"),
    ({"weight": W.astype(np.float64)}, TypeError, r"resize_conv2d: weight must have the dtype of x \(float32\)"),
    ({"weight": W[0]}, ValueError, r"resize_conv2d: weight must have shape \[Cout, C, kh, kw\]"),
    ({"weight": W[:0]}, ValueError, "resize_conv2d: weight must have no empty dimension"),
    ({"weight": W[:, :1]}, ValueError, r"resize_conv2d: weight must have shape \[Cout, 2, kh, kw\] to match x"),
    ({"bias": B[:3]}, ValueError, r"resize_conv2d: bias must have shape \[5\], got \(3,\)"),
    ({"bias": B.astype(np.float16)}, TypeError, r"resize_conv2d: bias must have the dtype of x"),
    ({"scale_factor": None}, ValueError, "resize_conv2d: size must be given where scale_factor is not, .* got neither"),
    ({"size": 6}, ValueError, "resize_conv2d: size must be given where scale_factor is not, .* got both"),
    ({"scale_factor": 0}, ValueError, "resize_conv2d: scale_factor must be finite and positive, got 0"),
    ({"scale_factor": (1, 2, 3)}, ValueError, "resize_conv2d: scale_factor must be a number or a pair of numbers"),
    ({"scale_factor": None, "size": (0, 3)}, ValueError, r"resize_conv2d: size must be positive, got \(0, 3\)"),
    ({"mode": "area"}, ValueError, "resize_conv2d: mode must be one of 'nearest', .* got 'area'"),
    ({"align_corners": None}, TypeError, r"resize_conv2d: align_corners must be True or False, got None"),
    (
        {"align_corners": True, "mode": "nearest"},
        ValueError,
        "resize_conv2d: align_corners must be False for mode 'near",
    ),
    ({"padding": "full"}, ValueError, "resize_conv2d: padding must be one of 'same', 'valid', got 'full'"),
    ({"padding": -1}, ValueError, "resize_conv2d: padding must be from 0 to"),
    ({"dilation": 0}, ValueError, "resize_conv2d: dilation must be from 1 to"),
    (
        {"dilation": 9, "padding": 0},
        ValueError,
        "resize_conv2d: size must give, with its padding, at least the dilated",
    ),
]


@pytest.mark.parametrize(("change", "error", "text"), REFUSED)
def test_refuses(change: dict[str, Any], error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=f"^{text}"):
        resize_conv2d(**{"x": X, "weight": W, "bias": B, "scale_factor": 2, **change})


REFUSED_ADJOINT: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"grad": None}, TypeError, "grad must be a NumPy, CuPy or torch array, got None"),
    ({"grad": G.astype(np.int64)}, TypeError, "grad must have dtype float16"),
    ({"grad": G[0]}, ValueError, r"grad must have shape \[N, Cout, Ho, Wo\]"),
    ({"grad": G[..., 1:]}, ValueError, r"grad must have shape \[1, 5, 6, 8\], got \(1, 5, 6, 7\)"),
    ({"scale_factor": -2.0}, ValueError, "scale_factor must be finite and positive"),
    ({"scale_factor": "2"}, ValueError, "scale_factor must be a number or a pair of numbers"),
    ({"mode": 3}, ValueError, "mode must be one of"),
    ({"align_corners": 1}, TypeError, "align_corners must be True or False"),
    ({"align_corners": True, "mode": "nearest-exact"}, ValueError, "align_corners must be False for mode"),
    ({"padding": (1, 2, 3)}, ValueError, "padding must be an integer, a pair"),
    ({"dilation": 1.5}, TypeError, "dilation must be an integer or a pair of integers"),
    ({"scale_factor": None, "padding": 9}, ValueError, "grad must have the size of a result"),
]
REFUSED_INPUT = [
    ({"weight": W.astype(np.float64)}, TypeError, "weight must have the dtype of grad"),
    ({"weight": W[:3]}, ValueError, r"grad must have shape \[N, 3, Ho, Wo\]"),
    ({"input_size": (3, 0)}, ValueError, r"input_size must be positive"),
    ({"input_size": 2.5}, TypeError, "input_size must be an integer or a pair of integers"),
]
REFUSED_WEIGHT = [
    ({"x": X.astype(np.float64)}, TypeError, "x must have the dtype of grad"),
    ({"x": np.zeros((2, 2, 3, 4), np.float32)}, ValueError, r"x must have shape \[1, C, h, w\]"),
    ({"x": X[0]}, ValueError, r"x must have shape \[N, C, h, w\]"),
    ({"kernel_size": 0}, ValueError, "kernel_size must be from 1 to"),
]


@pytest.mark.parametrize(("change", "error", "text"), REFUSED_ADJOINT + REFUSED_INPUT)
def test_adjoint_input_refuses(change: dict[str, Any], error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=f"^resize_conv2d_adjoint_input: {text}"):
        resize_conv2d_adjoint_input(**{"grad": G, "weight": W, "input_size": (3, 4), "scale_factor": 2, **change})


@pytest.mark.parametrize(("change", "error", "text"), REFUSED_ADJOINT + REFUSED_WEIGHT)
def test_adjoint_weight_refuses(change: dict[str, Any], error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=f"^resize_conv2d_adjoint_weight: {text}"):
        resize_conv2d_adjoint_weight(**{"grad": G, "x": X, "kernel_size": (3, 3), "scale_factor": 2, **change})
