"""Max pooling and unpooling: CPU paths against torch, kernels against the same on every branch."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cv3gpu import _array, pool
from cv3gpu.pool import max_pool2d, max_pool2d_adjoint, max_unpool2d, max_unpool2d_adjoint
from tests.tolerance import assert_close

torch = pytest.importorskip("torch")
functional = torch.nn.functional

DTYPES = ("float32", "float64", "float16", "bfloat16")
LAYOUTS = ("nchw", "nhwc")


class Case(NamedTuple):
    """Images of a shape and the windows over them."""

    shape: tuple[int, int, int, int]
    options: dict[str, Any]
    layout: str = "nchw"

    @property
    def windows(self) -> dict[str, Any]:
        """The options of the adjoints."""
        return {k: v for k, v in self.options.items() if k != "ceil_mode"}


def random_case(rng: np.random.Generator, largest: int = 24) -> Case:
    """Any windows that fit."""
    while True:
        h, w = (int(n) for n in rng.integers(1, largest, 2))
        size = tuple(int(k) for k in rng.integers(1, 6, 2))
        stride = tuple(int(k) for k in rng.integers(1, 5, 2))
        padding = tuple(int(rng.integers(0, k // 2 + 1)) for k in size)
        dilation = tuple(int(d) for d in rng.choice([1, 1, 1, 2, 3], 2))
        if rng.random() < 0.3:  # what networks have
            size, stride, padding, dilation = (2, 2), (2, 2), (0, 0), (1, 1)
        fits = all(n + 2 * p >= d * (k - 1) + 1 for n, p, d, k in zip((h, w), padding, dilation, size, strict=True))
        misses = any(d > n for d, n in zip(dilation, (h, w), strict=True))  # torch's index leaves the image
        if fits and not misses:
            break
    options = {"kernel_size": size, "stride": stride, "padding": padding, "dilation": dilation}
    options["ceil_mode"] = bool(rng.random() < 0.5)
    shape = (int(rng.integers(1, 3)), int(rng.choice([1, 2, 3, 8, 16])), h, w)
    return Case(shape, options, LAYOUTS[rng.integers(2)])


def values_of(shape: tuple[int, ...], dtype: str, rng: np.random.Generator) -> np.ndarray:
    """Numbers that the dtype holds, many of them equal, some infinite or NaN, as float64."""
    values = rng.integers(-3, 4, shape) if rng.random() < 0.5 else rng.standard_normal(shape)
    values = torch.from_numpy(np.asarray(values, np.float64)).to(getattr(torch, dtype)).double().numpy()
    if rng.random() < 0.3:
        values[rng.random(shape) < 0.1] = -np.inf
        values[rng.random(shape) < 0.05] = np.nan
    return values


def same(got: np.ndarray, want: np.ndarray) -> None:
    """Equal in every bit that counts."""
    np.testing.assert_array_equal(np.asarray(got, np.float64), np.asarray(want, np.float64))


def torch_pool(x: np.ndarray, options: dict[str, Any]) -> tuple[Any, Any]:
    """Torch's own, in float64."""
    return functional.max_pool2d(torch.from_numpy(x), return_indices=True, **options)


def positions(flat: np.ndarray, case: Case) -> np.ndarray:
    """Positions in the windows of flat indices."""
    (_, kw), (sh, sw), (ph, pw), (dh, dw) = (case.options[k] for k in ("kernel_size", "stride", "padding", "dilation"))
    rows, columns = np.divmod(flat, case.shape[3])
    oh, ow = np.ogrid[: flat.shape[2], : flat.shape[3]]
    return (rows - oh * sh + ph) // dh * kw + (columns - ow * sw + pw) // dw


def check(path: Any, case: Case, dtype: str, rng: np.random.Generator) -> None:
    """All four operators on a path against torch, with both forms of indices."""
    x = values_of(case.shape, dtype, rng)
    want, want_indices = (t.numpy() for t in torch_pool(x, case.options))
    given = path.array(x, dtype, case.layout)
    values, indices = max_pool2d(given, **case.options)
    again, compact = max_pool2d(given, **case.options, compact=True)
    assert _array.dtype_name(values) == dtype and _array.family(values) == _array.family(given)
    assert _array.dtype_name(indices) == "int64" and _array.dtype_name(compact) == "uint8"
    same(path.numpy(values), want)
    same(path.numpy(again), want)
    same(path.numpy(indices), want_indices)
    same(path.numpy(compact), positions(want_indices, case))
    kept = "nhwc" if _array.memory_format(given) == "nhwc" else "nchw"
    both_fit = values.shape[1] == 1 or values.shape[2] * values.shape[3] == 1
    for out in (values, indices, compact):
        assert _array.memory_format(out) == ("nchw" if both_fit else kept)

    g = torch.from_numpy(rng.standard_normal(want.shape)).to(getattr(torch, dtype)).double()
    leaf = torch.from_numpy(x).requires_grad_()
    wide = functional.max_pool2d(leaf, **case.options)
    (gx,) = torch.autograd.grad(wide, leaf, g)
    (size,) = torch.autograd.grad(functional.max_pool2d(leaf, **case.options), leaf, g.abs())
    grad = path.array(g.numpy(), dtype, case.layout)
    for index in (indices, compact):
        got = max_pool2d_adjoint(grad, index, case.shape[2:], **case.windows)
        assert _array.dtype_name(got) == dtype
        assert_close(path.numpy(got), gx.numpy(), dtype, 25, size.numpy())
        taken = max_unpool2d_adjoint(path.array(x, dtype, case.layout), index, **case.windows)
        same(path.numpy(taken), want)

    if case.options["dilation"] == (1, 1):
        unpool = {k: v for k, v in case.windows.items() if k != "dilation"}
        default = pool.unpooled_size(*want.shape[2:], pool.window_of("", *unpool.values()))
        if any(abs(a - b) >= s for a, b, s in zip(default, case.shape[2:], unpool["stride"], strict=True)):
            return
        last = np.zeros((*case.shape[:2], case.shape[2] * case.shape[3]))
        flat, values64 = want_indices.reshape(*case.shape[:2], -1), g.numpy().reshape(*case.shape[:2], -1)
        for o in range(flat.shape[2]):  # the last one stays
            np.put_along_axis(last, flat[..., o : o + 1], values64[..., o : o + 1], -1)
        for index in (indices, compact):
            got = max_unpool2d(grad, index, **unpool, output_size=case.shape[2:])
            assert _array.dtype_name(got) == dtype
            same(path.numpy(got), last.reshape(case.shape))


# ---- every path -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
def test_cpu_agrees_with_torch(cpu_path: Any, dtype: str) -> None:
    rng = np.random.default_rng(DTYPES.index(dtype))
    for _ in range(120):
        check(cpu_path, random_case(rng), dtype, rng)


@pytest.mark.parametrize("dtype", DTYPES)
def test_kernels_at_random(kernel_path: Any, dtype: str) -> None:
    rng = np.random.default_rng(10 + DTYPES.index(dtype))
    for _ in range(25):
        check(kernel_path, random_case(rng, 14), dtype, rng)


def windows(
    size: Any, stride: Any, padding: Any = (0, 0), dilation: Any = (1, 1), ceil_mode: bool = False
) -> dict[str, Any]:
    return {"kernel_size": size, "stride": stride, "padding": padding, "dilation": dilation, "ceil_mode": ceil_mode}


BRANCHES = {
    "pairs": Case((1, 2, 6, 16), windows((2, 2), (2, 2))),
    "pairs, odd height": Case((1, 2, 7, 32), windows((2, 2), (2, 2))),
    "pairs, odd height, ceil": Case((1, 2, 7, 16), windows((2, 2), (2, 2), ceil_mode=True)),
    "rows that are no vectors": Case((1, 2, 6, 10), windows((2, 2), (2, 2))),
    "odd width": Case((1, 2, 6, 17), windows((2, 2), (2, 2))),
    "channel vectors": Case((2, 16, 5, 6), windows((3, 3), (2, 2), (1, 1)), "nhwc"),
    "channels that are no vectors": Case((2, 3, 5, 6), windows((2, 2), (2, 2)), "nhwc"),
    "overlap": Case((1, 3, 9, 8), windows((5, 5), (1, 1), (2, 2))),
    "overlap, channel vectors": Case((1, 8, 9, 8), windows((5, 5), (1, 1), (2, 2)), "nhwc"),
    "gaps between windows": Case((1, 2, 11, 13), windows((2, 1), (4, 3))),
    "dilated": Case((1, 2, 11, 13), windows((3, 2), (2, 1), (1, 1), (2, 3))),
    "one window": Case((1, 2, 3, 4), windows((3, 4), (3, 4))),
    "several blocks": Case((1, 3, 33, 40), windows((2, 2), (1, 1))),
    "long rows": Case((1, 2, 5, 132), windows((2, 2), (2, 2))),
    "long rows, overlap": Case((1, 2, 5, 70), windows((3, 3), (1, 1), (1, 1))),
}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", list(BRANCHES))
def test_branches(path: Any, name: str, dtype: str) -> None:
    check(path, BRANCHES[name], dtype, np.random.default_rng(4))


def test_kernel_names(host_backend: Any) -> None:
    """The fast kernels are the ones that run where they can."""
    window = pool.window_of("", 2, None, 0)
    for layout, name in (("nchw", "max_pool_pairs"), ("nhwc", "max_pool_wide")):
        x = np.zeros((1, 16, 8, 16), np.float32)
        x = x if layout == "nchw" else np.ascontiguousarray(x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
        values, indices = max_pool2d(x, 2)
        assert pool._ways("max_pool", layout, x, values, indices, window)[0] == name


def test_blocks_that_do_several_planes(kernel_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "ENOUGH_BLOCKS", 2)
    for name in ("pairs", "channel vectors", "overlap", "odd width"):
        case = BRANCHES[name]
        check(kernel_path, case._replace(shape=(3, *case.shape[1:])), "float32", np.random.default_rng(5))


def test_pieces_of_a_few_planes(cpu_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "PIECE", 32)
    assert len(list(pool._pieces((6, 3, 8), "nchw"))) > 1
    for name in ("pairs", "overlap"):
        case = BRANCHES[name]
        check(cpu_path, case._replace(shape=(3, *case.shape[1:])), "float32", np.random.default_rng(6))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_window_without_pixels(path: Any, layout: str) -> None:
    x = path.array(np.zeros((1, 2, 1, 4)), "float32", layout)
    values, indices = max_pool2d(x, (2, 1), (1, 1), (1, 0), (2, 1))
    _, compact = max_pool2d(x, (2, 1), (1, 1), (1, 0), (2, 1), compact=True)
    assert tuple(values.shape) == (1, 2, 1, 4)
    assert (path.numpy(values) == -np.inf).all()
    assert (path.numpy(indices) == -1).all() and (path.numpy(compact) == 0).all()
    for index in (indices, compact):
        options = {"kernel_size": (2, 1), "stride": (1, 1), "padding": (1, 0), "dilation": (2, 1)}
        assert not path.numpy(max_pool2d_adjoint(values, index, (1, 4), **options)).any()
        assert not path.numpy(max_unpool2d_adjoint(x, index, **options)).any()


@pytest.mark.parametrize("view", ["step", "transposed", "flipped", "expanded"])
def test_strided_inputs(path: Any, view: str) -> None:
    values = np.random.default_rng(7).standard_normal((2, 4, 6, 8)).astype(np.float32)
    x = path.array(values)
    if view == "step":
        x, values = x[:, ::2, 1:, ::3], values[:, ::2, 1:, ::3]
    elif view == "transposed":
        x, values = x.swapaxes(2, 3), values.swapaxes(2, 3)
    elif view == "flipped":
        if path.is_torch:
            pytest.skip("torch has no negative strides")
        x, values = x[..., ::-1], values[..., ::-1]
    else:
        if not path.is_torch:
            pytest.skip("torch's expand")
        x, values = x[:, :1].expand(2, 4, 6, 8), np.repeat(values[:, :1], 4, axis=1)
    found, indices = max_pool2d(x, 2, 1)
    want, want_indices = torch_pool(np.ascontiguousarray(values), {"kernel_size": 2, "stride": 1})
    same(path.numpy(found), want.numpy())
    same(path.numpy(indices), want_indices.numpy())
    size = tuple(values.shape[2:])
    wide = path.array(np.repeat(want.numpy(), 2, axis=3))[..., ::2]
    turned = path.array(want_indices.numpy().transpose(0, 1, 3, 2)).swapaxes(2, 3)
    gx = path.numpy(max_pool2d_adjoint(wide, turned, size, 2, 1))
    same(gx, max_pool2d_adjoint(want.numpy(), want_indices.numpy(), size, 2, 1))
    back = path.numpy(max_unpool2d(wide, turned, 2, 1, output_size=size))
    same(back, max_unpool2d(want.numpy(), want_indices.numpy(), 2, 1, output_size=size))
    same(path.numpy(max_unpool2d_adjoint(x, turned, 2, 1)), want.numpy())


@pytest.mark.parametrize("shape", [(0, 3, 4, 5), (2, 0, 4, 5), (0, 0, 4, 5)])
@pytest.mark.parametrize("compact", [False, True])
def test_no_images(path: Any, shape: tuple[int, ...], compact: bool) -> None:
    for layout in LAYOUTS:
        x = path.array(np.zeros(shape), "float32", layout)
        values, indices = max_pool2d(x, 2, compact=compact)
        assert tuple(values.shape) == tuple(indices.shape) == (*shape[:2], 2, 2)
        assert tuple(max_pool2d_adjoint(values, indices, (4, 5), 2).shape) == shape
        assert tuple(max_unpool2d(values, indices, 2, output_size=(4, 5)).shape) == shape
        assert tuple(max_unpool2d_adjoint(x, indices, 2).shape) == (*shape[:2], 2, 2)


def test_results_repeat_bit_for_bit(path: Any) -> None:
    rng = np.random.default_rng(6)
    _, indices = max_pool2d(path.array(rng.standard_normal((2, 3, 20, 21))), 5, 1, 2)
    g = path.array(rng.standard_normal((2, 3, 20, 21)), "float32")
    first, second = (path.numpy(max_pool2d_adjoint(g, indices, (20, 21), 5, 1, 2)) for _ in range(2))
    assert np.array_equal(first, second)


def test_segnet_sizes(path: Any) -> None:
    """45 rows give 22 windows; only with output_size do they give 45 rows again."""
    x = np.random.default_rng(0).standard_normal((1, 2, 45, 15)).astype(np.float32)
    values, indices = max_pool2d(path.array(x), 2)
    back = path.numpy(max_unpool2d(values, indices, 2, output_size=(45, 15)))
    want = functional.max_unpool2d(*torch_pool(x, {"kernel_size": 2}), 2, output_size=(45, 15))
    same(back, want.numpy())
    if not path.runs_kernels:
        with pytest.raises(ValueError, match=r"^max_unpool2d: indices must point into their windows"):
            max_unpool2d(values, indices, 2)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("bad", [-2, 3, 2, 10**12, -(10**12)])
def test_indices_out_of_their_windows(path: Any, layout: str, bad: int) -> None:
    """Window 0 has the pixels 0, 1, 4, 5. The CPU refuses others, a GPU leaves them out."""
    index = np.array([[[[0, 3], [8, 10]]]] * 2).reshape(1, 2, 2, 2)
    index[0, 1, 0, 0] = bad
    x = path.array(np.ones((1, 2, 2, 2)), "float32", layout)
    indices, g = path.array(index, "int64", layout), path.array(np.ones((1, 2, 4, 4)), "float32", layout)
    calls = {
        "max_unpool2d": lambda: max_unpool2d(x, indices, 2),
        "max_pool2d_adjoint": lambda: max_pool2d_adjoint(x, indices, (4, 4), 2),
        "max_unpool2d_adjoint": lambda: max_unpool2d_adjoint(g, indices, 2),
    }
    for name, call in calls.items():
        if path.runs_kernels:
            assert path.numpy(call()).sum() == 7
        else:
            with pytest.raises(ValueError, match=rf"^{name}: indices must point .*, got {bad};"):
                call()


@pytest.mark.parametrize("columns", [8, 132])
def test_indices_nowhere_and_elsewhere_within_a_row(cpu_path: Any, columns: int) -> None:
    rng = np.random.default_rng(columns)
    image, g = rng.standard_normal((1, 2, 6, columns)), rng.standard_normal((1, 2, 3, columns // 2))
    index = functional.max_pool2d(torch.from_numpy(image), 2, return_indices=True)[1].numpy().copy()
    index[0, 1, 1, 2] = -1
    values, x = cpu_path.array(g, "float64"), cpu_path.array(image, "float64")
    kept = np.where(index < 0, 0.0, g)
    want = np.zeros((2, 6 * columns))
    np.put_along_axis(want, np.maximum(index, 0).reshape(2, -1), kept.reshape(2, -1), -1)
    given = cpu_path.array(index)
    same(cpu_path.numpy(max_unpool2d(values, given, 2)), want.reshape(1, 2, 6, columns))
    same(cpu_path.numpy(max_pool2d_adjoint(values, given, (6, columns), 2)), want.reshape(1, 2, 6, columns))
    taken = np.take_along_axis(image.reshape(2, -1), np.maximum(index, 0).reshape(2, -1), -1).reshape(g.shape)
    same(cpu_path.numpy(max_unpool2d_adjoint(x, given, 2)), np.where(index < 0, 0.0, taken))
    for off in (2, -1, 2 * columns, -2 * columns, 2**32, 2**62):  # another window's pixel, or none at all
        bad = index.copy()
        bad[0, 1, 1, 3] = 2 * columns + 6 + off
        for call in (
            lambda wrong: max_unpool2d(values, wrong, 2),
            lambda wrong: max_pool2d_adjoint(values, wrong, (6, columns), 2),
            lambda wrong: max_unpool2d_adjoint(x, wrong, 2),
        ):
            with pytest.raises(ValueError, match=rf"indices must point .*, got {bad[0, 1, 1, 3]};"):
                call(cpu_path.array(bad))


def test_positions_out_of_their_windows(path: Any) -> None:
    index = path.array(np.array([[[[0, 1], [4, 255]]]], np.uint8))
    x = path.array(np.ones((1, 1, 2, 2)), "float32")
    if path.runs_kernels:
        assert path.numpy(max_unpool2d(x, index, 2)).sum() == 2
    else:
        with pytest.raises(ValueError, match=r"^max_unpool2d: indices must point .*, got 4;"):
            max_unpool2d(x, index, 2)


# ---- properties -----------------------------------------------------------------------------------------

cases = st.integers(0, 2**31).map(lambda seed: (random_case(np.random.default_rng(seed), 12), seed))


@settings(max_examples=60, deadline=None)
@given(cases)
def test_adjoints_are_transposed(drawn: tuple[Case, int]) -> None:
    case, seed = drawn
    rng = np.random.default_rng(seed)
    x = rng.standard_normal(case.shape)
    values, indices = max_pool2d(x, **case.options)
    g = rng.standard_normal(values.shape)
    gx = max_pool2d_adjoint(g, indices, case.shape[2:], **case.windows)
    taken = max_unpool2d_adjoint(x, indices, **case.windows)
    np.testing.assert_array_equal(taken, values)
    np.testing.assert_allclose((gx * x).sum(), (g * taken).sum(), atol=1e-10)


@settings(max_examples=60, deadline=None)
@given(cases, st.floats(0.1, 10), st.floats(-5, 5))
def test_increasing_maps_commute(drawn: tuple[Case, int], factor: float, shift: float) -> None:
    case, seed = drawn
    x = np.random.default_rng(seed).standard_normal(case.shape)
    values, indices = max_pool2d(x, **case.options)
    again, same_indices = max_pool2d(x * factor + shift, **case.options)
    np.testing.assert_array_equal(again, values * factor + shift)
    np.testing.assert_array_equal(indices, same_indices)


# ---- refusals -------------------------------------------------------------------------------------------

X = np.zeros((1, 2, 6, 8), np.float32)
POOLED, INDEX = max_pool2d(X, 2)
BIG = "windows of more than 256 pixels, got 17 x 17"

BAD: dict[str, list[tuple[tuple[Any, ...], dict[str, Any], type[Exception], str]]] = {
    "max_pool2d": [
        (([[1.0]], 2), {}, TypeError, r"x must be a NumPy, CuPy or torch array, got list"),
        ((X.astype(int), 2), {}, TypeError, r"x must have dtype float16 or .*, got int64"),
        ((X.astype(">f4"), 2), {}, TypeError, r"x must be in native byte order"),
        ((X[0], 2), {}, ValueError, r"x must have shape \[N, C, H, W\], got \(2, 6, 8\)"),
        ((X[:, :, :0], 2), {}, ValueError, r"x must have positive height and width, got \(0, 8\)"),
        ((X, 7), {}, ValueError, r"x must have room for a window of \(7, 7\) with padding \(0, 0\), got \(6, 8\)"),
        ((X, 0), {}, ValueError, r"kernel_size must be from 1 to .*, got 0"),
        ((X, 2.0), {}, TypeError, r"kernel_size must be an integer or a pair of integers, got 2.0"),
        ((X, (2, 2, 2)), {}, ValueError, r"kernel_size must be an integer or a pair"),
        ((X, 2), {"stride": 0}, ValueError, r"stride must be from 1"),
        ((X, 2), {"stride": (1, 2.5)}, TypeError, r"stride must be an integer, got 2.5"),
        ((X, 2), {"padding": -1}, ValueError, r"padding must be from 0"),
        ((X, 2), {"padding": 2}, ValueError, r"padding must be at most half of kernel_size \(2, 2\), got \(2, 2\)"),
        ((X, 2), {"dilation": 0}, ValueError, r"dilation must be from 1"),
        ((X, 2), {"dilation": True}, TypeError, r"dilation must be an integer, got True"),
        ((X, 2), {"ceil_mode": 1}, TypeError, r"ceil_mode must be True or False, got 1"),
        ((X, 2), {"compact": None}, TypeError, r"compact must be True or False, got None"),
        ((X, 17), {"compact": True}, ValueError, rf"compact must be False for {BIG}"),
    ],
    "max_pool2d_adjoint": [
        ((None, INDEX, (6, 8), 2), {}, TypeError, r"grad must be a NumPy, CuPy or torch array, got None"),
        ((POOLED, INDEX.tolist(), (6, 8), 2), {}, TypeError, r"indices must be a NumPy, CuPy or torch array, got list"),
        ((POOLED.astype(int), INDEX, (6, 8), 2), {}, TypeError, r"grad must have dtype"),
        ((POOLED, INDEX.astype(np.int32), (6, 8), 2), {}, TypeError, r"indices must have dtype int64 or uint8, got int32"),
        ((POOLED[0], INDEX, (6, 8), 2), {}, ValueError, r"grad must have shape \[N, C, Ho, Wo\]"),
        ((POOLED, INDEX[..., 1:], (6, 8), 2), {}, ValueError, r"indices must have shape \[1, 2, 3, 4\], got \(1, 2, 3, 3\)"),
        ((POOLED, INDEX, (9, 8), 2), {}, ValueError, r"grad must have shape \[N, C, 4, 4\] or .* for input_size \(9, 8\)"),
        ((POOLED, INDEX, (0, 8), 2), {}, ValueError, r"input_size must be positive"),
        ((POOLED, INDEX, 6.5, 2), {}, TypeError, r"input_size must be an integer or a pair"),
        ((POOLED, INDEX, (6, 8), -2), {}, ValueError, r"kernel_size must be from 1"),
        ((POOLED, INDEX, (6, 8), 2), {"stride": "2"}, TypeError, r"stride must be an integer or a pair"),
        ((POOLED, INDEX, (6, 8), 2), {"padding": (0, 2)}, ValueError, r"padding must be at most half"),
        ((POOLED, INDEX, (6, 8), 2), {"dilation": (1,)}, ValueError, r"dilation must be an integer or a pair"),
    ],
    "max_unpool2d": [
        ((1.0, INDEX, 2), {}, TypeError, r"x must be a NumPy, CuPy or torch array, got float"),
        ((POOLED, None, 2), {}, TypeError, r"indices must be a NumPy, CuPy or torch array, got None"),
        ((POOLED, torch.from_numpy(INDEX), 2), {}, TypeError, r"all arrays must be of one library"),
        ((POOLED.astype(bool), INDEX, 2), {}, TypeError, r"x must have dtype"),
        ((POOLED, INDEX.astype(float), 2), {}, TypeError, r"indices must have dtype int64 or uint8, got float64"),
        ((POOLED[0], INDEX[0], 2), {}, ValueError, r"x must have shape \[N, C, Ho, Wo\]"),
        ((POOLED, INDEX[:, :1], 2), {}, ValueError, r"indices must have shape \[1, 2, 3, 4\]"),
        ((POOLED, INDEX, 2), {"output_size": (8, 8)}, ValueError, r"output_size must be less than a stride \(2, 2\) from \(6, 8\), got \(8, 8\)"),
        ((POOLED, INDEX, 2), {"output_size": (4, 8)}, ValueError, r"output_size must be less than a stride"),
        ((POOLED, INDEX, 2), {"output_size": (0, 8)}, ValueError, r"output_size must be positive"),
        ((POOLED, INDEX, 2), {"output_size": 6.0}, TypeError, r"output_size must be an integer or a pair"),
        ((POOLED, INDEX, None), {}, TypeError, r"kernel_size must be an integer or a pair"),
        ((POOLED, INDEX, 2), {"stride": -1}, ValueError, r"stride must be from 1"),
        ((POOLED, INDEX, 3), {"padding": 2}, ValueError, r"padding must be at most half"),
        ((POOLED, INDEX.astype(np.uint8), 17), {}, ValueError, rf"indices must be int64 for {BIG}"),
        ((POOLED[..., :0], INDEX[..., :0], 2), {}, ValueError, r"x must give an image with pixels"),
    ],
    "max_unpool2d_adjoint": [
        ((None, INDEX, 2), {}, TypeError, r"grad must be a NumPy, CuPy or torch array, got None"),
        ((X, [[0]], 2), {}, TypeError, r"indices must be a NumPy, CuPy or torch array, got list"),
        ((X, torch.from_numpy(INDEX), 2), {}, TypeError, r"all arrays must be of one library"),
        ((X.astype(int), INDEX, 2), {}, TypeError, r"grad must have dtype"),
        ((X, INDEX.astype(np.uint16), 2), {}, TypeError, r"indices must have dtype int64 or uint8, got uint16"),
        ((X[0], INDEX, 2), {}, ValueError, r"grad must have shape \[N, C, H, W\]"),
        ((X, INDEX[0], 2), {}, ValueError, r"indices must have shape \[1, 2, Ho, Wo\], got \(2, 3, 4\)"),
        ((X, INDEX[:, :1], 2), {}, ValueError, r"indices must have shape \[1, 2, Ho, Wo\], got \(1, 1, 3, 4\)"),
        ((X[:, :, :0], INDEX, 2), {}, ValueError, r"grad must have positive height and width, got \(0, 8\)"),
        ((X, INDEX, 0), {}, ValueError, r"kernel_size must be from 1"),
        ((X, INDEX, 2), {"padding": "1"}, TypeError, r"padding must be an integer or a pair"),
        ((X, INDEX, 2), {"dilation": 1.5}, TypeError, r"dilation must be an integer or a pair"),
        ((X, INDEX.astype(np.uint8), 17), {}, ValueError, rf"indices must be int64 for {BIG}"),
    ],
}  # fmt: skip


@pytest.mark.parametrize(("name", "k"), [(name, k) for name in BAD for k in range(len(BAD[name]))])
def test_refuses(name: str, k: int) -> None:
    args, options, error, text = BAD[name][k]
    with pytest.raises(error, match=f"^{name}: " + text):
        getattr(pool, name)(*args, **options)
