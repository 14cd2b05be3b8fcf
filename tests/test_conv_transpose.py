"""conv_transpose2d: CPU paths and kernels against torch in float64, its torch operator and layer, refusals."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import library
from torch.autograd import gradcheck, gradgradcheck

import cv3gpu
import cv3gpu.nn
from cv3gpu import _array, conv
from tests.tolerance import assert_close

DTYPES = ("float32", "float64", "float16", "bfloat16")


class Case(NamedTuple):
    """A transposed convolution: sizes and parameters."""

    n: int = 2
    channels: int = 6
    size: tuple[int, int] = (4, 5)
    out: int = 8
    kernel: tuple[int, int] = (3, 3)
    stride: tuple[int, int] = (2, 2)
    padding: tuple[int, int] = (1, 1)
    output_padding: tuple[int, int] = (0, 0)
    groups: int = 1
    dilation: tuple[int, int] = (1, 1)
    bias: bool = True

    def parameters(self) -> tuple[Any, ...]:
        return self.stride, self.padding, self.output_padding, self.groups, self.dilation

    def shapes(self) -> tuple[tuple[int, ...], ...]:
        weight = self.channels, self.out // self.groups, *self.kernel
        return (self.n, self.channels, *self.size), weight, (self.out,)


def draw(case: Case, dtype: str, seed: int) -> list[np.ndarray]:
    """x, weight and bias, exactly representable in ``dtype``."""
    rng, exact = np.random.default_rng(seed), getattr(torch, dtype)
    return [torch.from_numpy(rng.standard_normal(s)).to(exact).double().numpy() for s in case.shapes()]


def reference(case: Case, x: np.ndarray, weight: np.ndarray, bias: np.ndarray | None) -> np.ndarray:
    """What torch gives in float64."""
    tensors = [None if a is None else torch.from_numpy(a) for a in (x, weight, bias)]
    return torch.nn.functional.conv_transpose2d(*tensors, *case.parameters()).numpy()


def check(path: Any, case: Case, dtype: str, layout: str = "nchw", seed: int = 0) -> None:
    x, weight, bias = draw(case, dtype, seed)
    y = cv3gpu.conv_transpose2d(
        path.array(x, dtype, layout), path.array(weight, dtype), path.array(bias, dtype) if case.bias else None,
        *case.parameters(),
    )  # fmt: skip
    scale = reference(case, abs(x), abs(weight), abs(bias))
    terms = case.channels // case.groups * case.kernel[0] * case.kernel[1] + 1
    assert_close(path.numpy(y), reference(case, x, weight, bias if case.bias else None), dtype, terms, scale)
    if layout == "nhwc" and case.channels > 1:
        assert _array.memory_format(y) == "nhwc" or 1 in y.shape or case.size == (1, 1)


def random_case(rng: np.random.Generator) -> Case:
    """Any transposed convolution of moderate size that torch takes."""
    while True:
        groups = int(rng.choice([1, 1, 2, 3]))
        pairs = [tuple(int(k) for k in rng.integers(low, high, 2)) for low, high in ((1, 6), (1, 5), (0, 4), (1, 4))]
        kernel, stride, padding, dilation = pairs
        more = tuple(int(rng.integers(0, max(s, d))) for s, d in zip(stride, dilation, strict=True))
        size = tuple(int(k) for k in rng.integers(1, 8, 2))
        many = groups * int(rng.integers(1, 6)), groups * int(rng.integers(1, 6))
        case = Case(
            int(rng.integers(1, 4)), many[0], size, many[1], kernel, stride, padding, more, groups, dilation,
            bool(rng.random() < 0.5),
        )  # fmt: skip
        numbers = zip(size, stride, padding, more, dilation, kernel, strict=True)
        if min((n - 1) * s - 2 * p + d * (k - 1) + m + 1 for n, s, p, m, d, k in numbers) > 0:
            return case


# One case per branch of the phases: how stride, dilation, kernel and image relate.
CASES = {
    "U-Net": Case(kernel=(2, 2), padding=(0, 0)),
    "FCN": Case(kernel=(4, 4)),
    "FCN by channels": Case(channels=8, out=8, groups=8, kernel=(4, 4)),
    "FCN x 8, more than 64 taps": Case(n=1, channels=3, out=3, size=(3, 2), kernel=(16, 16), stride=(8, 8), padding=(4, 4)),
    "x 8 by channels": Case(n=1, channels=4, out=4, size=(2, 3), kernel=(16, 16), stride=(8, 8), padding=(4, 4), groups=4),
    "stride 1": Case(stride=(1, 1)),
    "strides differ": Case(stride=(3, 1), kernel=(2, 4)),
    "stride past the kernel": Case(stride=(4, 3), kernel=(2, 1), padding=(0, 0)),
    "more rows and columns": Case(stride=(3, 2), output_padding=(2, 1)),
    "output_padding past the stride": Case(stride=(1, 2), dilation=(3, 3), output_padding=(2, 2)),
    "dilation and stride share a factor": Case(stride=(4, 6), dilation=(2, 4), kernel=(3, 4), padding=(2, 3)),
    "dilation is a multiple of stride": Case(stride=(2, 2), dilation=(2, 4), size=(5, 3)),
    "padding cuts pixels off": Case(padding=(3, 2), size=(6, 6)),
    "result smaller than a stride": Case(n=1, size=(1, 1), kernel=(2, 3), stride=(5, 7), padding=(0, 0)),
    "groups": Case(channels=6, out=4, groups=2),
    "multiplier": Case(channels=4, out=8, groups=4, size=(3, 3)),
    "multiplier unrolled": Case(channels=8, out=4, groups=4, size=(3, 3)),
    "channels a multiple of 8": Case(channels=24, out=16, size=(3, 3)),
    "more than one tile": Case(n=1, channels=5, out=70, size=(9, 8), kernel=(2, 2), padding=(0, 0)),
    "plane a multiple of 8": Case(channels=16, out=8, size=(4, 4), kernel=(4, 4)),
    "no bias": Case(bias=False),
}  # fmt: skip


@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", CASES)
def test_kernels_agree_with_float64(kernel_path: Any, name: str, dtype: str, layout: str) -> None:
    check(kernel_path, CASES[name], dtype, layout)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
def test_large_tile(kernel_path: Any, monkeypatch: pytest.MonkeyPatch, dtype: str, layout: str) -> None:
    monkeypatch.setattr(conv._gpu, "_tile", lambda *_: 128)
    monkeypatch.setattr(conv._gpu, "compute_capability", lambda _: 75)
    check(kernel_path, Case(n=1, channels=4, out=132, size=(5, 6), kernel=(2, 3)), dtype, layout)


def test_taps_of_a_pixel_are_those_of_the_definition() -> None:
    """Steps and inverses against a search over all taps, for strides and dilations that share factors or do not."""
    for stride in (1, 2, 3, 4, 6, 8, 12, 32):
        for dilation in (1, 2, 3, 4, 5, 6, 7, 9):
            geometry = conv.Geometry((64, 64), (9, 9), (40, 1), (stride, 1), (0,) * 4, (dilation, 1), 1)
            step, _, inverse, _ = geometry.progressions()
            common = stride // step
            for place in range(2 * stride):
                taps = [r for r in range(40) if (place - r * dilation) % stride == 0]
                rest = place % stride
                if rest % common:
                    assert not taps
                else:
                    assert taps == list(range(rest // common * inverse % step if step > 1 else 0, 40, step))
    wide = conv.Geometry((9, 9), (9, 9), (3, 3), (1 << 15, 5), (0,) * 4, (3, 10), 1)
    assert wide.progressions() == (1, 1, 0, 0)  # all taps are visited, and each asked whether it fits


def test_same_as_the_adjoint_of_the_convolution(path: Any) -> None:
    x, weight, _ = draw(Case(), "float64", 3)
    ax, aw = path.array(x, "float64"), path.array(weight, "float64")
    y = cv3gpu.conv_transpose2d(ax, aw, stride=2, padding=1)
    adjoint = cv3gpu.conv2d_adjoint_input(ax, aw, (7, 9), stride=2, padding=1)
    np.testing.assert_array_equal(path.numpy(y), path.numpy(adjoint))


def test_upsampling_by_bilinear_weights_is_interpolation(path: Any) -> None:
    """FCN's initial weights, by channels: away from the border, bilinear interpolation by two."""
    x = np.random.default_rng(0).standard_normal((1, 3, 6, 7))
    line = np.array([0.25, 0.75, 0.75, 0.25])
    weight = np.broadcast_to(np.outer(line, line), (3, 1, 4, 4))
    y = cv3gpu.conv_transpose2d(path.array(x, "float64"), path.array(weight, "float64"), stride=2, padding=1, groups=3)
    wanted = cv3gpu.interpolate(x, scale_factor=2, mode="bilinear")
    np.testing.assert_allclose(path.numpy(y)[:, :, 1:-1, 1:-1], wanted[:, :, 1:-1, 1:-1], atol=1e-12)


def diagonal_weight(channels: int, size: int) -> np.ndarray:
    """FCN's initial weights: bilinear interpolation of every channel by itself."""
    line = 1 - abs(np.arange(size) - (size - 1) / 2) / ((size + 1) // 2)
    weight = np.zeros((channels, channels, size, size))
    weight[range(channels), range(channels)] = np.outer(line, line)
    return weight


@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
def test_diagonal_weight_is_a_convolution_of_every_channel_by_itself(path: Any, layout: str) -> None:
    x, weight = np.random.default_rng(0).standard_normal((2, 5, 4, 3)), diagonal_weight(5, 4)
    case = Case(channels=5, out=5, kernel=(4, 4), stride=(2, 2))
    bias = np.arange(5.0)
    wanted = reference(case, x, weight, bias)
    given = [path.array(a, "float64", layout) if a.ndim == 4 else path.array(a, "float64") for a in (x, weight, bias)]
    for options in ({}, {"diagonal": True}):
        y = cv3gpu.conv_transpose2d(*given, stride=2, padding=1, **options)
        assert_close(path.numpy(y), wanted, "float64", 4, 10.0)
    others = given[1] + 1  # what is not on the diagonal is not read where the caller says so
    y = cv3gpu.conv_transpose2d(given[0], others, given[2], stride=2, padding=1, diagonal=True)
    on_it = (weight + 1) * np.eye(5)[:, :, None, None]
    assert_close(path.numpy(y), reference(case, x, on_it, bias), "float64", 16, 100.0)


def test_diagonal_weight_is_recognised_on_a_cpu(cpu_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    plain = conv.operators.diagonal_of
    monkeypatch.setattr(conv.operators, "diagonal_of", lambda *given: seen.append(1) or plain(*given))
    x, weight = cpu_path.array(np.ones((1, 3, 2, 2))), diagonal_weight(3, 4)
    cv3gpu.conv_transpose2d(x, cpu_path.array(weight), stride=2)
    assert seen
    weight[0, 1, 3, 3] = 1e-300
    seen.clear()
    cv3gpu.conv_transpose2d(x, cpu_path.array(weight), stride=2)
    assert not seen


def test_layer_looks_once_at_each_weight(monkeypatch: pytest.MonkeyPatch) -> None:
    from cv3gpu.nn import layers

    looks = []
    plain = layers.is_diagonal
    monkeypatch.setattr(layers, "is_diagonal", lambda weight: looks.append(1) or plain(weight))
    layer = cv3gpu.nn.ConvTranspose2d(3, 3, 4, stride=2, padding=1).double()
    x = torch.randn(1, 3, 4, 5, dtype=torch.float64)

    def wanted() -> Any:
        return torch.nn.functional.conv_transpose2d(x, layer.weight, layer.bias, 2, 1)

    torch.testing.assert_close(layer(x), wanted())
    assert not looks  # in training
    with torch.no_grad():
        layer.eval().weight.copy_(torch.from_numpy(diagonal_weight(3, 4)))
        for _ in range(3):
            torch.testing.assert_close(layer(x), wanted())
        assert len(looks) == 1
        layer.weight[0, 2] = 1.0
        torch.testing.assert_close(layer(x), wanted())
        assert len(looks) == 2
    layer(x).sum().backward()  # a wanted gradient is that of all weights
    assert len(looks) == 2 and (layer.weight.grad[0, 1] != 0).all()


def test_no_images(path: Any) -> None:
    y = cv3gpu.conv_transpose2d(
        path.array(np.zeros((0, 4, 5, 5)), "float32"), path.array(np.ones((4, 6, 3, 3)), "float32")
    )
    assert tuple(y.shape) == (0, 6, 7, 7)


# ---- torch ----------------------------------------------------------------------------------------------

SMALL = [
    Case(n=1, channels=2, out=2, size=(2, 3)),
    Case(n=1, channels=2, out=4, size=(2, 2), groups=2, stride=(1, 2), dilation=(2, 3), output_padding=(1, 2)),
    Case(n=2, channels=2, out=2, size=(2, 2), kernel=(2, 1), padding=(0, 0), stride=(3, 2), output_padding=(2, 0)),
]


def tensors(case: Case, grad: bool = True) -> list[Any]:
    return [torch.from_numpy(a).requires_grad_(grad) for a in draw(case, "float64", 5)]


@pytest.mark.parametrize("case", SMALL)
def test_derivatives(case: Case) -> None:
    def call(*given: Any) -> Any:
        return cv3gpu.conv_transpose2d(*given, *case.parameters())

    assert gradcheck(call, tensors(case))
    assert gradgradcheck(call, tensors(case))


@pytest.mark.parametrize("case", SMALL)
def test_opcheck(case: Case) -> None:
    given = (*tensors(case), *case.parameters())
    library.opcheck(torch.ops.cv3gpu.conv_transpose2d.default, given)


@pytest.mark.parametrize("dims", [(0, None, None), (None, 0, None), (0, 1, 0), (None, None, 0)])
def test_vmap(dims: tuple[int | None, ...]) -> None:
    case = Case(n=1, channels=4, out=4, size=(3, 2), groups=2)
    given = [
        x if d is None else torch.stack([x, 2 * x, -x], d) for x, d in zip(tensors(case, False), dims, strict=True)
    ]

    def call(op: Any, *args: Any) -> Any:
        return torch.vmap(lambda *a: op(*a, *case.parameters()), in_dims=dims)(*args)

    wanted = call(torch.nn.functional.conv_transpose2d, *given)
    torch.testing.assert_close(call(cv3gpu.conv_transpose2d, *given), wanted)


@pytest.mark.parametrize("options", [
    {"stride": 2, "padding": 1}, {"stride": (2, 3), "output_padding": (1, 2), "bias": False},
    {"groups": 2, "dilation": 2, "stride": 2},
])  # fmt: skip
def test_layer_is_torchs(options: dict[str, Any]) -> None:
    theirs = torch.nn.ConvTranspose2d(4, 6, 3, **options).double()
    ours = cv3gpu.nn.ConvTranspose2d(4, 6, 3, **options).double()
    ours.load_state_dict(theirs.state_dict(), strict=True)
    x = torch.randn(2, 4, 5, 4, dtype=torch.float64)
    torch.testing.assert_close(ours(x), theirs(x))
    torch.testing.assert_close(ours(x[0]), theirs(x[0]))
    size = [n + 1 for n in theirs(x).shape[2:]] if not options.get("output_padding") else None
    if size is not None:
        torch.testing.assert_close(ours(x, output_size=size), theirs(x, output_size=size))


# ---- refusals -------------------------------------------------------------------------------------------

X = np.ones((2, 4, 3, 3), np.float32)
W = np.ones((4, 2, 3, 3), np.float32)
BAD = [
    (([1], W), {}, TypeError, "x must be a NumPy, CuPy or torch array, got list"),
    ((X, None), {}, TypeError, "weight must be a NumPy, CuPy or torch array, got None"),
    ((X, W, 1.0), {}, TypeError, "bias must be a NumPy, CuPy or torch array, got float"),
    ((X, torch.ones(4, 2, 3, 3)), {}, TypeError, "all arrays must be of one library and on one device"),
    ((X.astype(int), W), {}, TypeError, "x must have dtype .*, got int64"),
    ((X, W.astype(np.float64)), {}, TypeError, r"weight must have the dtype of x \(float32\), got float64"),
    ((X, W, np.ones(2)), {}, TypeError, r"bias must have the dtype of x \(float32\), got float64"),
    ((X[0], W), {}, ValueError, r"x must have shape \[N, C, H, W\], got \(4, 3, 3\)"),
    ((X, W[0]), {}, ValueError, r"weight must have shape \[C, Cout / groups, kh, kw\], got \(2, 3, 3\)"),
    ((X, W[:, :0]), {}, ValueError, r"weight must have no empty dimension, got \(4, 0, 3, 3\)"),
    ((X, W[:3]), {}, ValueError, r"weight must have C = 4 first to match x \(2, 4, 3, 3\), got \(3, 2, 3, 3\)"),
    ((X, W, np.ones(3, np.float32)), {}, ValueError, r"bias must have shape \[2\], got \(3,\)"),
    ((X[:, :, :0], W), {}, ValueError, r"x must have rows and columns, got \(2, 4, 0, 3\)"),
    ((X, W), {"groups": 3}, ValueError, r"groups must divide C \(4\), got 3"),
    ((X, W), {"groups": 0}, ValueError, "groups must be from 1 to 2147483647, got 0"),
    ((X, W), {"groups": 2.0}, TypeError, r"groups must be an integer, got 2.0 \(float\)"),
    ((X, W), {"stride": 0}, ValueError, "stride must be from 1 to 2147483647, got 0"),
    ((X, W), {"stride": 1.5}, TypeError, "stride must be an integer or a pair of integers, got 1.5"),
    ((X, W), {"stride": 2**31 - 1}, ValueError, r"stride must leave the padded result under 2\*\*31 rows and columns"),
    ((X, W), {"dilation": (1, -1)}, ValueError, "dilation must be from 1 to 2147483647, got -1"),
    ((X, W), {"padding": -1}, ValueError, "padding must be from 0 to 2147483647, got -1"),
    ((X, W), {"padding": "same"}, TypeError, "padding must be an integer or a pair of integers, got 'same'"),
    ((X, W), {"padding": 3}, ValueError, r"padding must leave some of the result, which has \(-1, -1\) rows and columns"),
    ((X, W), {"output_padding": 1}, ValueError, r"output_padding must be less than stride \(1, 1\) or dilation \(1, 1\), got \(1, 1\)"),
    ((X, W), {"diagonal": True}, ValueError, r"weight must have shape \[C, C, kh, kw\] and groups be 1 where diagonal is True, got \(4, 2, 3, 3\) with 1 groups"),
    ((X, np.ones((4, 4, 3, 3), np.float32)), {"diagonal": 1}, TypeError, r"diagonal must be True or False, got 1 \(int\)"),
    ((X, W), {"output_padding": (1, 2, 3)}, ValueError, "output_padding must be an integer or a pair of integers"),
]  # fmt: skip


@pytest.mark.parametrize(("given", "options", "error", "text"), BAD)
def test_refuses(given: Any, options: dict[str, Any], error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=f"^conv_transpose2d: .*{text}"):
        cv3gpu.conv_transpose2d(*given, **options)


@pytest.mark.parametrize("place", [i for i, bad in enumerate(BAD) if all(isinstance(a, np.ndarray) for a in bad[0])])
def test_refuses_tensors_in_the_same_words(place: int) -> None:
    given, options, error, text = BAD[place]
    with pytest.raises(error, match=f"^conv_transpose2d: .*{text}"):
        cv3gpu.conv_transpose2d(*(torch.from_numpy(a) for a in given), **options)
