"""The torch operators and the layer of resize-convolution: registration, gradients, tracing, and agreement with torch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import library  # noqa: E402
from torch.autograd import gradcheck, gradgradcheck  # noqa: E402
from torch.nn import functional  # noqa: E402

import cv3gpu.nn  # noqa: E402
from cv3gpu.conv import padding_of  # noqa: E402
from cv3gpu.resize_conv import (  # noqa: E402
    resize_conv2d,
    resize_conv2d_adjoint_input,
    resize_conv2d_adjoint_weight,
)

LAYOUTS = ["contiguous", "channels_last", "strided"]
OPTIONS: dict[str, dict[str, Any]] = {
    "nearest, twice": {"scale_factor": 2, "mode": "nearest"},
    "by size": {"size": (7, 5), "padding": (1, 0, 2, 1), "dilation": (1, 2)},
    "bicubic": {"scale_factor": (1.5, 2.0), "mode": "bicubic", "align_corners": True, "padding": "valid"},
}

pytestmark = pytest.mark.usefixtures("one_thread", "fresh_compiler")


def numbers(shape: tuple[int, ...], device: str, dtype: Any = torch.float64, layout: str = "contiguous") -> Any:
    """A leaf of random numbers."""
    x = torch.from_numpy(np.random.default_rng([len(shape), *shape]).standard_normal(shape)).to(device, dtype)
    if layout == "channels_last":
        x = x.contiguous(memory_format=torch.channels_last)
    elif layout == "strided":
        x = x.repeat_interleave(2, -1)[..., ::2]
    return x.requires_grad_()


def theirs(x: Any, weight: Any, bias: Any, options: dict[str, Any]) -> Any:
    """Torch's own, padded first."""
    mode = options.get("mode", "bilinear")
    corners = {"align_corners": options.get("align_corners", False)} if mode in ("bilinear", "bicubic") else {}
    large = functional.interpolate(x, options.get("size"), options.get("scale_factor"), mode, **corners)
    dilation = options.get("dilation", (1, 1))
    around = padding_of("test", options.get("padding", "same"), weight.shape[2:], (1, 1), dilation)
    top, bottom, left, right = around
    return functional.conv2d(functional.pad(large, (left, right, top, bottom)), weight, bias, dilation=dilation)


def without_size(options: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if name != "size"}


# ---- registration ---------------------------------------------------------------------------------------


def of_schema(options: dict[str, Any]) -> tuple[Any, ...]:
    """Factor, mode, align_corners, padding and dilation as the schema takes them."""
    factor, padding = options.get("scale_factor"), options.get("padding")
    factor = [float(factor)] * 2 if isinstance(factor, int) else factor
    padding = [0] * 4 if padding == "valid" else padding
    dilation = options.get("dilation", (1, 1))
    return factor, options.get("mode", "bilinear"), options.get("align_corners", False), padding, dilation


@pytest.mark.parametrize(
    ("name", "layout"),
    [("nearest, twice", layout) for layout in LAYOUTS] + [("by size", "channels_last"), ("bicubic", "contiguous")],
)
def test_opcheck(name: str, layout: str, device: str) -> None:
    options, ops = OPTIONS[name], torch.ops.cv3gpu
    x = numbers((2, 3, 4, 3), device, torch.float32, layout)
    weight, bias = numbers((2, 3, 3, 2), device, torch.float32), numbers((2,), device, torch.float32)
    last = of_schema(options)
    library.opcheck(ops.resize_conv2d.default, (x, weight, bias, options.get("size"), *last))
    if name != "nearest, twice" or layout == "strided":
        return
    g = numbers(tuple(resize_conv2d(x, weight, **options).shape), device, torch.float32, layout)
    library.opcheck(ops.resize_conv2d_adjoint_input.default, (g, weight, [4, 3], *last))
    library.opcheck(ops.resize_conv2d_adjoint_weight.default, (g, x, [3, 2], *last))


def test_operator_without_padding_has_same(device: str) -> None:
    x, weight = numbers((1, 2, 3, 4), device), numbers((3, 2, 3, 3), device)
    found = torch.ops.cv3gpu.resize_conv2d(x, weight, scale_factor=[2.0, 2.0])
    assert torch.equal(found, resize_conv2d(x, weight, scale_factor=2))


# ---- derivatives ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", list(OPTIONS))
def test_agrees_with_torch(name: str, layout: str, device: str) -> None:
    options = OPTIONS[name]
    x, weight = numbers((2, 3, 4, 5), device, layout=layout), numbers((2, 3, 3, 2), device)
    bias = numbers((2,), device)
    y, want = resize_conv2d(x, weight, bias, **options), theirs(x, weight, bias, options)
    torch.testing.assert_close(y, want)
    g = numbers(tuple(y.shape), device).detach()
    leaves = x, weight, bias
    for got, wanted in zip(torch.autograd.grad(y, leaves, g), torch.autograd.grad(want, leaves, g), strict=True):
        torch.testing.assert_close(got, wanted)


@pytest.mark.parametrize("name", list(OPTIONS))
def test_derivatives(name: str, device: str) -> None:
    options = OPTIONS[name]
    x, weight, bias = numbers((1, 2, 3, 3), device), numbers((1, 2, 2, 2), device), numbers((1,), device)

    def run(x: Any, weight: Any, bias: Any) -> Any:
        return resize_conv2d(x, weight, bias, **options)

    assert gradcheck(run, (x, weight, bias), fast_mode=True)
    assert gradgradcheck(run, (x, weight, bias), fast_mode=True)
    g, more = numbers(tuple(run(x, weight, bias).shape), device), without_size(options)
    assert gradgradcheck(lambda g, w: resize_conv2d_adjoint_input(g, w, (3, 3), **more), (g, weight), fast_mode=True)
    assert gradgradcheck(lambda g, x: resize_conv2d_adjoint_weight(g, x, (2, 2), **more), (g, x), fast_mode=True)


def test_full_gradcheck(device: str) -> None:
    x, weight = numbers((1, 2, 2, 3), device), numbers((2, 2, 3, 3), device)
    assert gradcheck(lambda x, w: resize_conv2d(x, w, scale_factor=2, mode="nearest"), (x, weight))


def test_keeps_only_what_gradients_need(device: str) -> None:
    x, weight = numbers((1, 2, 3, 4), device), numbers((3, 2, 3, 3), device)
    kept: list[Any] = []

    def note(t: Any) -> Any:
        kept.append(t)
        return t

    with torch.autograd.graph.saved_tensors_hooks(note, lambda t: t):
        resize_conv2d(x.detach(), weight, scale_factor=4)
    assert [tuple(t.shape) for t in kept] == [(1, 2, 3, 4)]


def test_kernels_below_the_dispatcher(host_backend: Any) -> None:
    options = OPTIONS["nearest, twice"]
    x, weight = numbers((1, 2, 3, 4), "cpu", torch.float32), numbers((3, 2, 3, 3), "cpu", torch.float32)
    y, want = resize_conv2d(x, weight, **options), theirs(x, weight, None, options)
    torch.testing.assert_close(y, want)
    pairs = (torch.autograd.grad(out.square().sum(), (x, weight)) for out in (y, want))
    for got, wanted in zip(*pairs, strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-4)


# ---- autocast, transforms, tracing ------------------------------------------------------------------------


def test_autocast_lowers(device: str) -> None:
    x, weight = numbers((1, 2, 3, 4), device, torch.float32), numbers((3, 2, 3, 3), device, torch.float32)
    with torch.autocast(device, torch.bfloat16):
        assert resize_conv2d(x, weight, scale_factor=2).dtype == torch.bfloat16
    with torch.autocast(device, torch.bfloat16):
        assert resize_conv2d(x.double(), weight.double(), scale_factor=2).dtype == torch.float64


@pytest.mark.parametrize("dims", [(0, None, None), (0, 0, None), (None, 1, 0), (0, None, 0)])
def test_vmap(dims: tuple[int | None, ...], device: str) -> None:
    shapes = (2, 3, 4, 5), (3, 3, 3, 3), (3,)
    n = 3
    given = []
    for shape, dim in zip(shapes, dims, strict=True):
        x = numbers(shape if dim is None else (n, *shape), device).detach()
        given.append(x if dim is None else x.movedim(0, dim))

    def run(x: Any, weight: Any, bias: Any) -> Any:
        return resize_conv2d(x, weight, bias, size=(5, 9))

    def one(i: int) -> Any:
        return run(*(x if dim is None else x.select(dim, i) for x, dim in zip(given, dims, strict=True)))

    found = torch.vmap(run, in_dims=dims)(*given)
    torch.testing.assert_close(found, torch.stack([one(i) for i in range(n)]))


@pytest.mark.parametrize("dims", [(0, None), (0, 0), (None, 0)])
def test_vmap_of_adjoints(dims: tuple[int | None, ...], device: str) -> None:
    n, g, weight, x = 3, (2, 3, 6, 8), (3, 2, 3, 3), (2, 2, 3, 4)
    options = OPTIONS["nearest, twice"]
    for second, size, op in (
        (weight, (3, 4), resize_conv2d_adjoint_input),
        (x, (3, 3), resize_conv2d_adjoint_weight),
    ):
        shapes = zip((g, second), dims, strict=True)
        a, b = (numbers(shape if dim is None else (n, *shape), device).detach() for shape, dim in shapes)

        def run(a: Any, b: Any, op: Any = op, size: Any = size) -> Any:
            return op(a, b, size, **options)

        found = torch.vmap(run, in_dims=dims)(a, b)
        each = [run(*(t if dim is None else t[i] for t, dim in zip((a, b), dims, strict=True))) for i in range(n)]
        torch.testing.assert_close(found, torch.stack(each))


def test_gradient_transforms(device: str) -> None:
    x, weight = numbers((1, 2, 3, 4), device), numbers((2, 2, 3, 3), device)

    def loss(x: Any) -> Any:
        return resize_conv2d(x, weight, scale_factor=2).square().sum()

    want = torch.autograd.grad(loss(x), x)[0]
    torch.testing.assert_close(torch.func.grad(loss)(x.detach()), want)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_compiles_whole(layout: str, device: str) -> None:
    x, weight = numbers((2, 3, 4, 5), device, torch.float32, layout), numbers((2, 3, 3, 3), device, torch.float32)

    def run(x: Any, weight: Any) -> Any:
        return resize_conv2d(torch.relu(x), weight, scale_factor=2).square().sum()

    compiled = torch.compile(run, fullgraph=True, backend="aot_eager")
    for call in (run, compiled):
        grads = torch.autograd.grad(call(x, weight), (x, weight))
        want = torch.autograd.grad(theirs(torch.relu(x), weight, None, {"scale_factor": 2}).square().sum(), (x, weight))
        for got, wanted in zip(grads, want, strict=True):
            torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-4)


def test_compiles_for_any_size(device: str) -> None:
    weight = numbers((2, 3, 3, 3), device, torch.float32).detach()
    compiled = torch.compile(
        lambda x: resize_conv2d(x, weight, scale_factor=2), fullgraph=True, dynamic=True, backend="aot_eager"
    )
    for n in (4, 6, 7):
        x = numbers((1, 3, n, n + 1), device, torch.float32).detach()
        torch.testing.assert_close(compiled(x), resize_conv2d(x, weight, scale_factor=2))


# ---- the layer ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", list(OPTIONS))
def test_layer_has_the_weights_of_conv2d(name: str, device: str) -> None:
    options = OPTIONS[name]
    torch.manual_seed(3)
    layer = cv3gpu.nn.ResizeConv2d(3, 2, (3, 2), **options, device=device)
    torch.manual_seed(3)
    other = torch.nn.Conv2d(3, 2, (3, 2), device=device)
    assert list(layer.state_dict()) == list(other.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(layer.parameters(), other.parameters(), strict=True))
    other.load_state_dict(layer.state_dict(), strict=True)
    x = numbers((2, 3, 4, 5), device, torch.float32)
    want = theirs(x, other.weight, other.bias, options)
    torch.testing.assert_close(layer(x), want, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(layer(x[0]), want[0], rtol=1e-4, atol=1e-5)
    (gradient,) = torch.autograd.grad(layer(x).sum(), layer.weight)
    (wanted,) = torch.autograd.grad(want.sum(), other.weight)
    torch.testing.assert_close(gradient, wanted, rtol=1e-4, atol=1e-4)


def test_layer_in_words() -> None:
    layer = cv3gpu.nn.ResizeConv2d(3, 2, 3, scale_factor=2, mode="nearest", bias=False)
    assert str(layer) == (
        "ResizeConv2d(3, 2, kernel_size=(3, 3), size=None, scale_factor=2, mode='nearest', align_corners=False, "
        "padding='same', dilation=1, bias=False)"
    )


@pytest.mark.parametrize(
    ("change", "error", "text"),
    [
        ({"in_channels": 0}, ValueError, "in_channels must be from 1"),
        ({"out_channels": 2.0}, TypeError, "out_channels must be an integer"),
        ({"kernel_size": 0}, ValueError, "kernel_size must be from 1"),
        ({"mode": "area"}, ValueError, "mode must be one of"),
        ({"align_corners": 1}, TypeError, "align_corners must be True or False"),
        (
            {"scale_factor": None},
            ValueError,
            "size must be given where scale_factor is not, and only there, got neither",
        ),
        ({"size": 4}, ValueError, "size must be given where scale_factor is not, and only there, got both"),
    ],
)
def test_layer_refuses(change: dict[str, Any], error: type[Exception], text: str) -> None:
    given: dict[str, Any] = {"in_channels": 3, "out_channels": 2, "kernel_size": 3, "scale_factor": 2, **change}
    with pytest.raises(error, match=f"^ResizeConv2d: {text}"):
        cv3gpu.nn.ResizeConv2d(**given)


@pytest.mark.parametrize(
    ("change", "error", "text"),
    [
        ({"scale_factor": "2"}, ValueError, "scale_factor must be a number or a pair of numbers"),
        ({"scale_factor": True}, TypeError, "scale_factor must be a number"),
        ({"scale_factor": None, "size": 2.5}, TypeError, "size must be an integer or a pair"),
        ({"scale_factor": None}, ValueError, "size must be given where scale_factor is not"),
        ({"mode": "linear"}, ValueError, "mode must be one of"),
        ({"align_corners": None}, TypeError, "align_corners must be True or False"),
        ({"padding": "full"}, ValueError, "padding must be one of"),
        ({"dilation": (1, 0)}, ValueError, "dilation must be from 1"),
        ({"weight": torch.zeros(2, 3, 3)}, ValueError, "weight must have shape"),
        ({"weight": torch.zeros(2, 4, 3, 3)}, ValueError, r"weight must have shape \[Cout, 3, kh, kw\]"),
        ({"x": torch.zeros(3, 4, 4)}, ValueError, "x must have shape"),
        ({"bias": torch.zeros(3)}, ValueError, r"bias must have shape \[2\]"),
    ],
)
def test_tensors_refused(change: dict[str, Any], error: type[Exception], text: str) -> None:
    given = {"x": torch.zeros(1, 3, 4, 4), "weight": torch.zeros(2, 3, 3, 3), "scale_factor": 2, **change}
    with pytest.raises(error, match=f"^resize_conv2d: {text}"):
        resize_conv2d(**given)
