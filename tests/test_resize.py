"""interpolate and its adjoint: CPU paths against torch in float64, kernels against the same on every branch."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import cv3gpu
from cv3gpu import _array, resize
from tests.tolerance import assert_close

torch = pytest.importorskip("torch")
functional = torch.nn.functional

DTYPES = ("float32", "float64", "float16", "bfloat16")
MODES = ("nearest", "nearest-exact", "bilinear", "bicubic")
SMOOTH = ("bilinear", "bicubic")


class Case(NamedTuple):
    """Images of a shape and how they are resized."""

    shape: tuple[int, int, int, int]
    options: dict[str, Any]
    layout: str = "nchw"

    @property
    def adjoint_options(self) -> dict[str, Any]:
        """The options of the adjoint."""
        return {k: v for k, v in self.options.items() if k != "size"}


def axis_matrix(case: Case, axis: int, dtype: str) -> np.ndarray:
    """One axis of the map as torch has it, dense, [out, in]: unit vectors through torch in float64.

    "nearest" decides in float32 unless the image is float64, and has no other rounding. The images are
    channels-last and two pixels across: torch 2.13 antialiases a contiguous image to width 1 wrongly.
    """
    n = case.shape[2 + axis]
    units = np.zeros((1, n, n, 2)) + np.eye(n)[None, :, :, None]
    options = dict(case.options)
    for name, other in (("size", 2), ("scale_factor", 1.0)):
        if name in options:
            pair = options[name] if isinstance(options[name], tuple) else (options[name],) * 2
            options[name] = (pair[axis], other)
    x = torch.from_numpy(units).contiguous(memory_format=torch.channels_last)
    if options["mode"] not in SMOOTH and dtype != "float64":
        x = x.float()
    return functional.interpolate(x, **options)[0, :, :, 0].T.double().numpy()


def torch_decides_by_rounding(case: Case, axis: int) -> bool:
    """Whether torch takes another pixel for a float64 image than the one at floor of the coordinate.

    Where a coordinate is whole, torch 2.13 takes the pixel below for some sizes (80 to 108: output 81 takes 59,
    not 60), by roundings of neither float32 nor float64; we take the pixel at the coordinate.
    """
    matrix = axis_matrix(case, axis, "float64")
    m, n = matrix.shape
    factor = case.options.get("scale_factor")
    scale = n / m if factor is None or n == m else 1 / (factor if isinstance(factor, float) else factor[axis])
    center = 0.5 if case.options["mode"] == "nearest-exact" else 0.0
    whole = np.floor((np.arange(m) + center) * scale + 1e-9)
    return m != 2 * n and not np.array_equal(np.minimum(whole, n - 1), matrix.argmax(axis=1))


def reach(matrix: np.ndarray) -> np.ndarray:
    """What an axis may multiply rounding by: a weight is off by an ulp of the largest one beside it.

    A coordinate that is whole but for its rounding may fall on either side, with one neighbour more.
    """
    size = np.abs(matrix)
    near = np.pad(size > 0, ((0, 0), (1, 1)))
    return size + 0.25 * (near[:, :-2] | near[:, 1:-1] | near[:, 2:]) * size.max(axis=1, keepdims=True)


def random_values(shape: tuple[int, ...], dtype: str, rng: np.random.Generator) -> np.ndarray:
    """Normal numbers that the dtype holds exactly, as float64."""
    values = torch.from_numpy(rng.standard_normal(shape))
    return values.to(getattr(torch, dtype)).double().numpy()


def check(path: Any, case: Case, dtype: str, rng: np.random.Generator) -> None:
    """Both operators on a path against A_h x A_w^T and A_h^T g A_w."""
    exact = dtype == "float64" and case.options["mode"] not in SMOOTH
    if exact and (torch_decides_by_rounding(case, 0) or torch_decides_by_rounding(case, 1)):
        return
    a_h, a_w = axis_matrix(case, 0, dtype), axis_matrix(case, 1, dtype)
    r_h, r_w = reach(a_h), reach(a_w)
    if dtype == "float64":  # the reference rounds its coordinates as we do: half an ulp of numbers up to the sizes
        r_h = r_h * (1 + max(*a_h.shape, *a_w.shape) / 8)
    x = random_values(case.shape, dtype, rng)
    terms = int((a_h != 0).sum(1).max() * (a_w != 0).sum(1).max()) + 4
    x_given = path.array(x, dtype, case.layout)
    y = cv3gpu.interpolate(x_given, **case.options)
    assert _array.dtype_name(y) == dtype and _array.family(y) == _array.family(x_given)
    wanted = "nhwc" if _array.memory_format(x_given) == "nhwc" else "nchw"
    both_fit = y.shape[1] == 1 or y.shape[2] * y.shape[3] == 1
    assert _array.memory_format(y) == ("nchw" if both_fit else wanted)
    assert_close(path.numpy(y), a_h @ x @ a_w.T, dtype, terms, r_h @ np.abs(x) @ r_w.T)

    g = random_values(tuple(y.shape), dtype, rng)
    gx = cv3gpu.interpolate_adjoint(path.array(g, dtype, case.layout), case.shape[2:], **case.adjoint_options)
    terms = int((a_h != 0).sum(0).max() * (a_w != 0).sum(0).max()) + 4
    assert_close(path.numpy(gx), a_h.T @ g @ a_w, dtype, terms, r_h.T @ np.abs(g) @ r_w)


def random_case(rng: np.random.Generator, largest: int = 40) -> Case:
    """A configuration of any kind."""
    h, w = (int(n) for n in rng.integers(1, largest, 2))
    options: dict[str, Any] = {"mode": MODES[rng.integers(4)]}
    if rng.random() < 0.5:
        options["size"] = tuple(int(n) for n in rng.integers(1, largest + largest // 2, 2))
    else:
        factors = np.round(rng.uniform(0.2, 4.0, 2), int(rng.integers(0, 4)))
        options["scale_factor"] = tuple(float(f) for f in np.maximum(factors, [1.0 / h, 1.0 / w]) + 1e-3)
    if options["mode"] in SMOOTH:
        options["antialias"] = bool(rng.random() < 0.3)
        options["align_corners"] = (None, False, True)[rng.integers(3)]
    shape = (int(rng.integers(1, 3)), int(rng.choice([1, 2, 3, 5, 8, 16])), h, w)
    return Case(shape, options, ("nchw", "nhwc")[rng.integers(2)])


# ---- CPU paths ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
def test_cpu_agrees_with_torch(cpu_path: Any, dtype: str) -> None:
    rng = np.random.default_rng(DTYPES.index(dtype))
    for _ in range(300):
        check(cpu_path, random_case(rng), dtype, rng)


def test_oracle_is_torch() -> None:
    rng = np.random.default_rng(0)
    for _ in range(100):
        case = random_case(rng)
        x = rng.standard_normal(case.shape)
        given_x = torch.from_numpy(x).requires_grad_()
        if case.options.get("antialias"):  # see axis_matrix; its backward resizes an axis that keeps its size
            continue
        want = functional.interpolate(given_x, **case.options)
        a_h, a_w = axis_matrix(case, 0, "float64"), axis_matrix(case, 1, "float64")
        np.testing.assert_allclose(a_h @ x @ a_w.T, want.detach().numpy(), atol=1e-12)
        g = rng.standard_normal(want.shape)
        (gx,) = torch.autograd.grad(want, given_x, torch.from_numpy(g))
        np.testing.assert_allclose(a_h.T @ g @ a_w, gx.numpy(), atol=1e-11)
        ours = cv3gpu.interpolate_adjoint(g, case.shape[2:], **case.adjoint_options)
        np.testing.assert_allclose(ours, gx.numpy(), atol=1e-11)


@pytest.mark.parametrize("sizes", [(2999, 4801), (4801, 1999), (3, 5003), (5003, 7)])
@pytest.mark.parametrize("align_corners", [False, True])
def test_float32_is_right_at_thousands(path: Any, sizes: tuple[int, int], align_corners: bool) -> None:
    n, m = sizes
    x = np.random.default_rng(1).standard_normal((1, 1, 1, n)).astype(np.float32)
    options = {"mode": "bilinear", "align_corners": align_corners}
    got = path.numpy(cv3gpu.interpolate(path.array(x), (1, m), **options))
    want = functional.interpolate(torch.from_numpy(x).double(), (1, m), **options).numpy()
    assert_close(got, want, "float32", 2, np.abs(x).max())


# ---- kernels --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
@pytest.mark.parametrize("mode", MODES)
def test_kernels(kernel_path: Any, mode: str, layout: str, dtype: str) -> None:
    rng = np.random.default_rng(MODES.index(mode))
    for size, shape in [((9, 13), (2, 8, 4, 5)), ((3, 2), (1, 3, 7, 9)), ((5, 6), (1, 16, 5, 3))]:
        check(kernel_path, Case(shape, {"mode": mode, "size": size}, layout), dtype, rng)


@pytest.mark.parametrize(
    "options", [{"align_corners": True}, {"antialias": True}, {"antialias": True, "align_corners": True}]
)
@pytest.mark.parametrize("mode", SMOOTH)
def test_kernels_of_the_smooth_modes(kernel_path: Any, mode: str, options: dict[str, Any]) -> None:
    rng = np.random.default_rng(2)
    for layout, dtype in zip(("nchw", "nhwc", "nchw", "nhwc"), DTYPES, strict=True):
        for size in ((11, 3), (1, 9), (4, 20), (6, 7)):
            check(kernel_path, Case((1, 4, 6, 7), {"mode": mode, "size": size, **options}, layout), dtype, rng)


def test_kernels_at_random(kernel_path: Any) -> None:
    rng = np.random.default_rng(3)
    for k in range(60):
        check(kernel_path, random_case(rng, 14), DTYPES[k % 4], rng)


BRANCHES = {
    "one pixel to many: several tables of rows, several chunks": Case((1, 2, 1, 1), {"size": (150, 300)}),
    "many to one": Case((1, 1, 90, 300), {"size": 1}),
    "several tiles and bands": Case((1, 1, 9, 100), {"size": (70, 520)}),
    "tiles of an adjoint that shrinks": Case((1, 1, 9, 600), {"size": (5, 290)}),
    "channels in several tiles": Case((1, 44, 3, 4), {"size": (5, 7)}, "nhwc"),
    "vectors in several tiles": Case((1, 40, 3, 4), {"size": (5, 30)}, "nhwc"),
    "narrow planes side by side": Case((3, 30, 2, 2), {"size": 5}),
    "an axis of one": Case((2, 3, 1, 9), {"size": (1, 4)}),
    "same size": Case((1, 3, 5, 6), {"size": (5, 6)}),
    "outputs that skip inputs": Case((1, 2, 40, 41), {"size": (3, 4)}),
    "user's factor, not the ratio": Case((1, 2, 7, 9), {"scale_factor": (2.3, 0.61)}),
    "factor that keeps the size": Case((1, 2, 7, 9), {"scale_factor": (1.1, 2.05)}),
}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", list(BRANCHES))
def test_kernel_branches(kernel_path: Any, name: str, mode: str) -> None:
    case = BRANCHES[name]
    case = case._replace(options={"mode": mode, **case.options})
    check(kernel_path, case, "float32", np.random.default_rng(4))


@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
@pytest.mark.parametrize("mode", ["nearest", "bilinear"])
def test_blocks_that_do_several_planes(
    kernel_path: Any, monkeypatch: pytest.MonkeyPatch, mode: str, layout: str
) -> None:
    monkeypatch.setattr(resize, "ENOUGH_BLOCKS", 2)
    for shape, size in (((5, 3, 6, 40), (13, 90)), ((5, 30, 6, 40), (13, 90)), ((1, 2, 1, 1), (40, 300))):
        check(kernel_path, Case(shape, {"mode": mode, "size": size}, layout), "float32", np.random.default_rng(5))


def test_results_repeat_bit_for_bit(kernel_path: Any) -> None:
    g = kernel_path.array(np.random.default_rng(6).standard_normal((2, 3, 20, 31)), "float32")
    first, second = (kernel_path.numpy(cv3gpu.interpolate_adjoint(g, (7, 5), mode="bilinear")) for _ in range(2))
    assert np.array_equal(first, second)


# ---- every path -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("view", ["step", "transposed", "flipped", "expanded"])
def test_strided_inputs(path: Any, view: str) -> None:
    values = np.random.default_rng(7).standard_normal((2, 4, 6, 8)).astype(np.float32)
    x = path.array(values)
    if view == "step":
        x, values = x[:, ::2, 1:, ::3], values[:, ::2, 1:, ::3]
    elif view == "transposed":
        x, values = x.swapaxes(2, 3), values.swapaxes(2, 3)
    elif view == "flipped":
        if path.library == "torch":
            pytest.skip("torch has no negative strides")
        x, values = x[..., ::-1], values[..., ::-1]
    else:
        if path.library != "torch":
            pytest.skip("torch's expand")
        x, values = x[:, :1].expand(2, 4, 6, 8), np.repeat(values[:, :1], 4, axis=1)
    y = cv3gpu.interpolate(x, (5, 9), mode="bilinear")
    want = cv3gpu.interpolate(np.ascontiguousarray(values.astype(np.float64)), (5, 9), mode="bilinear")
    assert _array.memory_format(y) == "nchw"
    assert_close(path.numpy(y), np.array(want), "float32", 4, np.abs(values).max())


@pytest.mark.parametrize("shape", [(0, 3, 4, 5), (2, 0, 4, 5), (0, 0, 4, 5)])
@pytest.mark.parametrize("mode", MODES)
def test_no_images(path: Any, shape: tuple[int, ...], mode: str) -> None:
    for layout in ("nchw", "nhwc"):
        x = path.array(np.zeros(shape), "float32", layout)
        assert tuple(cv3gpu.interpolate(x, (3, 7), mode=mode).shape) == (*shape[:2], 3, 7)
        assert tuple(cv3gpu.interpolate_adjoint(x, (3, 7), mode=mode).shape) == (*shape[:2], 3, 7)


@pytest.mark.parametrize("mode", MODES)
def test_nan_and_inf_stay_in_their_footprint(path: Any, mode: str) -> None:
    x = np.ones((1, 1, 9, 9), np.float32)
    x[0, 0, 4, 4] = np.nan
    x[0, 0, 0, 0] = np.inf
    y = path.numpy(cv3gpu.interpolate(path.array(x), (18, 18), mode=mode))
    touched = ~np.isfinite(y[0, 0])
    reached = {"nearest": 1, "nearest-exact": 1, "bilinear": 2, "bicubic": 4}[mode] * 2
    rows = np.flatnonzero(touched[6:].any(axis=1)) + 6
    assert 2 <= len(rows) <= reached and touched[0, 0]
    assert np.isfinite(y[0, 0, -2:, :]).all() and np.isfinite(y[0, 0, :, -2:]).all()
    g = np.ones((1, 1, 18, 18), np.float32)
    g[0, 0, 9, 9] = np.inf
    gx = path.numpy(cv3gpu.interpolate_adjoint(path.array(g), (9, 9), mode=mode))
    assert 1 <= (~np.isfinite(gx)).sum() <= (reached // 2) ** 2


def test_transposition() -> None:
    rng = np.random.default_rng(8)
    for _ in range(200):
        case = random_case(rng, 20)
        x = rng.standard_normal(case.shape)
        y = cv3gpu.interpolate(x, **case.options)
        g = rng.standard_normal(y.shape)
        gx = cv3gpu.interpolate_adjoint(g, case.shape[2:], **case.adjoint_options)
        scale = np.abs(x).sum() * np.abs(g).max() + np.abs(g).sum() * np.abs(x).max()
        assert abs((y * g).sum() - (x * gx).sum()) <= 1e-13 * scale


images = st.tuples(st.integers(1, 9), st.integers(1, 9), st.integers(1, 20), st.integers(1, 20), st.integers(0, 2**31))
smooth_options = st.fixed_dictionaries(
    {"mode": st.sampled_from(SMOOTH), "align_corners": st.booleans(), "antialias": st.booleans()}
)
any_options = st.one_of(smooth_options, st.fixed_dictionaries({"mode": st.sampled_from(MODES)}))


@settings(max_examples=60, deadline=None)
@given(images, any_options, st.floats(-1e3, 1e3))
def test_constant_stays(image: tuple[int, ...], options: dict[str, Any], value: float) -> None:
    h, w, out_h, out_w, _ = image
    y = cv3gpu.interpolate(np.full((1, 2, h, w), value), (out_h, out_w), **options)
    np.testing.assert_allclose(y, value, rtol=1e-13, atol=1e-300)


@settings(max_examples=60, deadline=None)
@given(images, any_options, st.floats(-8, 8))
def test_linearity(image: tuple[int, ...], options: dict[str, Any], factor: float) -> None:
    h, w, out_h, out_w, seed = image
    a, b = np.random.default_rng(seed).standard_normal((2, 1, 1, h, w))
    size = (out_h, out_w)
    got = cv3gpu.interpolate(a + factor * b, size, **options)
    want = cv3gpu.interpolate(a, size, **options) + factor * cv3gpu.interpolate(b, size, **options)
    np.testing.assert_allclose(got, want, atol=1e-11)


@settings(max_examples=60, deadline=None)
@given(images, smooth_options, st.sampled_from([2, 3]))
def test_flips_commute(image: tuple[int, ...], options: dict[str, Any], axis: int) -> None:
    h, w, out_h, out_w, seed = image
    if options["antialias"] and options["align_corners"]:
        options = {**options, "align_corners": False}  # torch's filter of this pair is not symmetric
    if options["align_corners"]:
        out_h, out_w = max(out_h, 2), max(out_w, 2)  # one output is the first pixel
    x = np.random.default_rng(seed).standard_normal((1, 2, h, w))
    flipped = cv3gpu.interpolate(np.flip(x, axis), (out_h, out_w), **options)
    np.testing.assert_allclose(np.flip(flipped, axis), cv3gpu.interpolate(x, (out_h, out_w), **options), atol=1e-11)


def test_output_size_is_torch() -> None:
    rng = np.random.default_rng(9)
    for _ in range(2000):
        h, w = (int(n) for n in rng.integers(1, 300, 2))
        f = float(np.round(rng.uniform(0.1, 5), int(rng.integers(0, 4)))) + 0.01
        if min(h, w) * f < 1:
            continue
        want = functional.interpolate(torch.empty(1, 1, h, w), scale_factor=f).shape[2:]
        assert resize.output_size("interpolate", h, w, None, f) == tuple(want)
    assert resize.output_size("interpolate", 3, 4, (5, 6), None) == (5, 6)
    assert resize.output_size("interpolate", 3, 4, 5, None) == (5, 5)


# ---- refusals -------------------------------------------------------------------------------------------

GOOD = np.zeros((1, 2, 4, 6), np.float32)

BAD: list[tuple[Any, dict[str, Any], type[Exception], str]] = [
    ([[1.0]], {"size": 2}, TypeError, r"x must be a NumPy, CuPy or torch array, got list"),
    (None, {"size": 2}, TypeError, r"x must be a NumPy, CuPy or torch array, got None"),
    (GOOD.astype(np.int64), {"size": 2}, TypeError, r"x must have dtype float16 or .*, got int64"),
    (GOOD.astype(bool), {"size": 2}, TypeError, r"x must have dtype .*, got bool"),
    (GOOD.astype(np.complex64), {"size": 2}, TypeError, r"x must have dtype .*, got complex64"),
    (GOOD.astype(">f4"), {"size": 2}, TypeError, r"x must be in native byte order, got >f4"),
    (GOOD[0], {"size": 2}, ValueError, r"x must have shape \[N, C, H, W\], got \(2, 4, 6\)"),
    (GOOD[None], {"size": 2}, ValueError, r"x must have shape \[N, C, H, W\], got \(1, 1, 2, 4, 6\)"),
    (GOOD[:, :, :0], {"size": 2}, ValueError, r"x must have positive height and width, got \(0, 6\)"),
    (GOOD[..., :0], {"size": 2}, ValueError, r"x must have positive height and width, got \(4, 0\)"),
    (GOOD, {}, ValueError, r"size must be given where scale_factor is not, and only there, got neither"),
    (GOOD, {"size": 2, "scale_factor": 2.0}, ValueError, r"size must be given .*, got both"),
    (GOOD, {"size": (0, 3)}, ValueError, r"size must be positive, got \(0, 3\)"),
    (GOOD, {"size": (3, -1)}, ValueError, r"size must be positive, got \(3, -1\)"),
    (GOOD, {"size": 0}, ValueError, r"size must be positive, got \(0, 0\)"),
    (GOOD, {"size": 2.5}, TypeError, r"size must be an integer or a pair of integers, got 2.5 \(float\)"),
    (GOOD, {"size": (2, 2.0)}, TypeError, r"size must be an integer, got 2.0 \(float\)"),
    (GOOD, {"size": "22"}, TypeError, r"size must be an integer or a pair of integers, got '22' \(str\)"),
    (GOOD, {"size": True}, TypeError, r"size must be an integer, got True \(bool\)"),
    (GOOD, {"size": (2, 3, 4)}, ValueError, r"size must be an integer or a pair of integers, got \(2, 3, 4\)"),
    (GOOD, {"size": 2**31}, ValueError, r"size must be from -2147483648 to 2147483647, got 2147483648"),
    (GOOD, {"scale_factor": 0.0}, ValueError, r"scale_factor must be finite and positive, got 0.0"),
    (GOOD, {"scale_factor": (2.0, -1.0)}, ValueError, r"scale_factor must be finite and positive, got -1.0"),
    (GOOD, {"scale_factor": float("nan")}, ValueError, r"scale_factor must be finite and positive, got nan"),
    (GOOD, {"scale_factor": float("inf")}, ValueError, r"scale_factor must be finite and positive, got inf"),
    (GOOD, {"scale_factor": 0.1}, ValueError, r"scale_factor must give a size from 1 .*\(4, 6\), got \(0, 0\)"),
    (GOOD, {"scale_factor": 1e12}, ValueError, r"scale_factor must give a size from 1 to 2\^31 - 1"),
    (GOOD, {"scale_factor": "2"}, ValueError, r"scale_factor must be a number or a pair of numbers, got '2'"),
    (GOOD, {"scale_factor": (1.0,)}, ValueError, r"scale_factor must be a number or a pair .*, got \(1.0,\)"),
    (GOOD, {"scale_factor": True}, TypeError, r"scale_factor must be a number, got True \(bool\)"),
    (GOOD, {"scale_factor": (1.0, None)}, TypeError, r"scale_factor must be a number, got None \(None\)"),
    (GOOD, {"size": 2, "mode": "linear"}, ValueError, r"mode must be one of 'nearest', .*, got 'linear'"),
    (GOOD, {"size": 2, "mode": None}, ValueError, r"mode must be one of .*, got None"),
    (GOOD, {"size": 2, "align_corners": False}, ValueError, r"align_corners must be None for mode 'nearest'"),
    (GOOD, {"size": 2, "mode": "bilinear", "align_corners": 1}, TypeError, r"align_corners must be True or False"),
    (GOOD, {"size": 2, "antialias": True}, ValueError, r"antialias must be False for mode 'nearest', got True"),
    (GOOD, {"size": 2, "mode": "nearest-exact", "antialias": True}, ValueError, r"antialias must be False"),
    (GOOD, {"size": 2, "mode": "bilinear", "antialias": None}, TypeError, r"antialias must be True or False, got None"),
]

BAD_ADJOINT: list[tuple[Any, dict[str, Any], type[Exception], str]] = [
    ([[1.0]], {}, TypeError, r"grad must be a NumPy, CuPy or torch array, got list"),
    (None, {}, TypeError, r"grad must be a NumPy, CuPy or torch array, got None"),
    (GOOD.astype(np.int32), {}, TypeError, r"grad must have dtype .*, got int32"),
    (GOOD.astype(bool), {}, TypeError, r"grad must have dtype .*, got bool"),
    (GOOD.astype(np.complex128), {}, TypeError, r"grad must have dtype .*, got complex128"),
    (GOOD.astype(">f8"), {}, TypeError, r"grad must be in native byte order"),
    (GOOD[0], {}, ValueError, r"grad must have shape \[N, C, Ho, Wo\], got \(2, 4, 6\)"),
    (GOOD[None], {}, ValueError, r"grad must have shape \[N, C, Ho, Wo\], got \(1, 1, 2, 4, 6\)"),
    (GOOD[:, :, :0], {}, ValueError, r"grad must have positive height and width, got \(0, 6\)"),
    (GOOD[..., :0], {}, ValueError, r"grad must have positive height and width, got \(4, 0\)"),
    (GOOD, {"input_size": (0, 3)}, ValueError, r"input_size must be positive, got \(0, 3\)"),
    (GOOD, {"input_size": (3, -2)}, ValueError, r"input_size must be positive, got \(3, -2\)"),
    (GOOD, {"input_size": None}, TypeError, r"input_size must be an integer or a pair of integers, got None"),
    (GOOD, {"input_size": 2.5}, TypeError, r"input_size must be an integer or a pair .*, got 2.5"),
    (GOOD, {"input_size": (2, 2.5)}, TypeError, r"input_size must be an integer, got 2.5"),
    (GOOD, {"input_size": "23"}, TypeError, r"input_size must be an integer or a pair .*, got '23'"),
    (GOOD, {"input_size": (2, 3, 4)}, ValueError, r"input_size must be an integer or a pair .*, got \(2, 3, 4\)"),
    (GOOD, {"input_size": (True, 2)}, TypeError, r"input_size must be an integer, got True"),
    (GOOD, {"scale_factor": 3.0}, ValueError, r"grad must have shape \[N, C, 6, 9\], got \(1, 2, 4, 6\)"),
    (GOOD, {"scale_factor": 0.0}, ValueError, r"scale_factor must be finite and positive, got 0.0"),
    (GOOD, {"scale_factor": (2.0, float("nan"))}, ValueError, r"scale_factor must be finite and positive, got nan"),
    (GOOD, {"scale_factor": 0.1}, ValueError, r"scale_factor must give a size from 1 .*\(2, 3\), got \(0, 0\)"),
    (GOOD, {"scale_factor": (1.0, 2.0, 3.0)}, ValueError, r"scale_factor must be a number or a pair of numbers"),
    (GOOD, {"scale_factor": False}, TypeError, r"scale_factor must be a number, got False"),
    (GOOD, {"mode": "area"}, ValueError, r"mode must be one of .*, got 'area'"),
    (GOOD, {"mode": 3}, ValueError, r"mode must be one of .*, got 3"),
    (GOOD, {"align_corners": True}, ValueError, r"align_corners must be None for mode 'nearest', got True"),
    (GOOD, {"mode": "bicubic", "align_corners": "yes"}, TypeError, r"align_corners must be True or False, got 'yes'"),
    (GOOD, {"antialias": True}, ValueError, r"antialias must be False for mode 'nearest', got True"),
    (GOOD, {"mode": "bilinear", "antialias": 0}, TypeError, r"antialias must be True or False, got 0"),
]


@pytest.mark.parametrize("k", range(len(BAD)))
def test_interpolate_refuses(k: int) -> None:
    x, options, error, text = BAD[k]
    with pytest.raises(error, match="^interpolate: " + text):
        cv3gpu.interpolate(x, **options)


@pytest.mark.parametrize("k", range(len(BAD_ADJOINT)))
def test_interpolate_adjoint_refuses(k: int) -> None:
    grad, options, error, text = BAD_ADJOINT[k]
    with pytest.raises(error, match="^interpolate_adjoint: " + text):
        cv3gpu.interpolate_adjoint(grad, **{"input_size": (2, 3), **options})
