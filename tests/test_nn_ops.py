"""The torch operators and layers: registration, gradients, tracing, and agreement with torch's own."""

from __future__ import annotations

import copy
import itertools
import shutil
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import library  # noqa: E402
from torch.autograd import gradcheck, gradgradcheck  # noqa: E402
from torch.nn import functional  # noqa: E402

import cv3gpu  # noqa: E402
import cv3gpu.nn  # noqa: E402  (registers the operators)
from cv3gpu.conv import padding_of  # noqa: E402
from tests.conftest import need_torch_cuda  # noqa: E402
from tests.tolerance import assert_close  # noqa: E402

pytestmark = [
    pytest.mark.usefixtures("one_thread", "fresh_compiler"),
    pytest.mark.filterwarnings("ignore:Using padding='same':UserWarning"),  # of torch's own conv2d
]


def uniform(shape: tuple[int, ...], device: str, dtype: Any = torch.float64, seed: int = 0, grad: bool = True) -> Any:
    """A leaf of values in [-1, 1], so that a sum of K products has Σ|terms| ≤ K."""
    values = np.random.default_rng([seed, *shape]).uniform(-1, 1, shape)
    return torch.tensor(values, device=device).to(dtype).requires_grad_(grad)


def with_layout(x: Any, layout: str) -> Any:
    """A leaf of the same values in another memory layout."""
    x, wants = x.detach(), x.requires_grad
    if layout == "channels_last":
        x = x.contiguous(memory_format=torch.channels_last)
    elif layout == "strided":
        wide = x.new_zeros((*x.shape[:-1], 2 * x.shape[-1]))
        wide[..., ::2] = x
        x = wide[..., ::2]
    return x.requires_grad_(wants)


def close(got: Any, want: Any, terms: int) -> None:
    """Equal to within the rounding of sums of ``terms`` products of numbers in [-1, 1]."""
    dtype = str(want.dtype).removeprefix("torch.")
    assert got.dtype == want.dtype
    assert_close(got.detach().cpu().numpy(), want.detach().cpu().double().numpy(), dtype, terms, float(terms))


LAYOUTS = ["contiguous", "channels_last", "strided"]

# name: shapes of x and of weight, and the other arguments
CONV: dict[str, tuple[tuple[int, ...], tuple[int, ...], dict[str, Any]]] = {
    "plain": ((2, 2, 4, 3), (3, 2, 3, 3), {}),
    "pointwise": ((2, 3, 3, 4), (4, 3, 1, 1), {}),
    "padded": ((1, 2, 4, 5), (3, 2, 3, 3), {"padding": 1}),
    "strided": ((1, 2, 6, 5), (2, 2, 3, 3), {"stride": 2, "padding": 1}),
    "pairs": ((1, 2, 7, 6), (2, 2, 3, 2), {"stride": (2, 1), "padding": (1, 2), "dilation": (1, 3)}),
    "dilated": ((1, 2, 6, 6), (2, 2, 3, 3), {"padding": 2, "dilation": 2}),
    "same": ((1, 2, 5, 4), (2, 2, 3, 3), {"padding": "same", "dilation": 2}),
    "same, even": ((1, 2, 4, 5), (2, 2, 2, 4), {"padding": "same"}),
    "valid": ((1, 2, 3, 4), (2, 2, 2, 3), {"padding": "valid"}),
    "leftover": ((1, 1, 6, 7), (2, 1, 3, 2), {"stride": 3}),
    "row": ((1, 2, 3, 6), (2, 2, 1, 5), {"padding": (0, 2)}),
    "groups": ((1, 4, 4, 4), (6, 2, 3, 3), {"padding": 1, "groups": 2}),
    "depthwise": ((2, 3, 4, 4), (3, 1, 3, 3), {"padding": 1, "groups": 3}),
    "multiplier": ((1, 2, 4, 5), (6, 1, 3, 3), {"stride": 2, "padding": 1, "groups": 2}),
}

INTERPOLATE: dict[str, tuple[tuple[int, ...], dict[str, Any]]] = {
    "bilinear up": ((2, 2, 3, 4), {"size": (7, 5), "mode": "bilinear"}),
    "bilinear down": ((1, 2, 7, 6), {"size": (3, 4), "mode": "bilinear", "align_corners": False}),
    "bilinear corners": ((1, 2, 3, 4), {"size": (6, 9), "mode": "bilinear", "align_corners": True}),
    "bilinear corners down": ((1, 1, 6, 5), {"size": (3, 1), "mode": "bilinear", "align_corners": True}),
    "bilinear factor": ((1, 2, 4, 3), {"scale_factor": 2.0, "mode": "bilinear"}),
    "bilinear factors": ((1, 2, 5, 6), {"scale_factor": (1.5, 0.7), "mode": "bilinear"}),
    "bilinear antialias": ((1, 2, 8, 7), {"size": (3, 4), "mode": "bilinear", "antialias": True}),
    "nearest up": ((2, 2, 3, 4), {"size": (7, 5)}),
    "nearest down": ((1, 2, 7, 6), {"size": 3}),
    "nearest factor": ((1, 2, 3, 4), {"scale_factor": 2}),
    "nearest-exact": ((1, 2, 5, 6), {"size": (8, 4), "mode": "nearest-exact"}),
    "bicubic": ((1, 2, 4, 5), {"size": (7, 3), "mode": "bicubic"}),
    "bicubic corners": ((1, 2, 4, 5), {"size": (7, 8), "mode": "bicubic", "align_corners": True}),
}


def conv_case(name: str, device: str, dtype: Any = torch.float64) -> tuple[Any, Any, Any, dict[str, Any], int]:
    """x, weight, bias, the other arguments, and a bound on the number of terms of any sum."""
    x_shape, weight_shape, options = CONV[name]
    x = uniform(x_shape, device, dtype, 1)
    weight = uniform(weight_shape, device, dtype, 2)
    bias = uniform(weight_shape[:1], device, dtype, 3)
    return x, weight, bias, options, max(weight[0].numel() + 1, x[:, 0].numel(), weight[:, 0].numel())


def torch_conv2d(x: Any, weight: Any, bias: Any = None, **options: Any) -> Any:
    """Torch's own."""
    return functional.conv2d(x, weight, bias, **options)


# ---- registration ---------------------------------------------------------------------------------------


def registered_conv_case(name: str, device: str, layout: str) -> tuple[Any, Any, Any, list[Any]]:
    """Leaves, and the arguments that the registered operator takes."""
    x, weight, bias, options, _ = conv_case(name, device, torch.float32)
    kernel_size = tuple(weight.shape[2:])

    def pair(argument: str, default: int) -> list[int]:
        value = options.get(argument, default)
        return [value, value] if isinstance(value, int) else list(value)

    stride, dilation = pair("stride", 1), pair("dilation", 1)
    padding = options.get("padding", 0)
    if isinstance(padding, str):
        padding = list(padding_of("conv2d", padding, kernel_size, tuple(stride), tuple(dilation)))
    else:
        padding = pair("padding", 0)
    return with_layout(x, layout), weight, bias, [stride, padding, dilation, options.get("groups", 1)]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", ["pairs", "same, even", "groups", "depthwise"])
def test_opcheck_conv2d(name: str, layout: str, device: str) -> None:
    x, weight, bias, geometry = registered_conv_case(name, device, layout)
    op = torch.ops.cv3gpu.conv2d.default
    library.opcheck(op, (x, weight, bias, *geometry))
    library.opcheck(op, (x, weight.detach(), None, *geometry))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", ["pairs", "same, even", "groups", "depthwise"])
def test_opcheck_conv2d_adjoints(name: str, layout: str, device: str) -> None:
    x, weight, _, geometry = registered_conv_case(name, device, layout)
    ops = torch.ops.cv3gpu
    out = ops.conv2d(x, weight, None, *geometry)
    grad = with_layout(uniform(tuple(out.shape), device, torch.float32, 4), layout)
    for op, args in (
        (ops.conv2d_adjoint_input.default, (grad, weight, list(x.shape[2:]), *geometry)),
        (ops.conv2d_adjoint_weight.default, (grad, x, list(weight.shape[2:]), *geometry)),
    ):
        library.opcheck(op, args)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", list(INTERPOLATE))
def test_opcheck_interpolate(name: str, layout: str, device: str) -> None:
    shape, options = INTERPOLATE[name]
    x = with_layout(uniform(shape, device, torch.float32, 1), layout)
    size, factor = options.get("size"), options.get("scale_factor")
    size = [size, size] if isinstance(size, int) else size
    factor = [float(factor)] * 2 if isinstance(factor, (int, float)) else factor
    rest = (
        factor,
        options.get("mode", "nearest"),
        options.get("align_corners"),
        options.get("antialias", False),
    )
    ops = torch.ops.cv3gpu
    library.opcheck(ops.interpolate.default, (x, size, *rest))
    grad = with_layout(uniform(tuple(ops.interpolate(x, size, *rest).shape), device, torch.float32, 4), layout)
    library.opcheck(ops.interpolate_adjoint.default, (grad, list(shape[2:]), *rest))


OVERLAPS = [(kind, format) for kind in ("iou", "giou", "ioa") for format in ("xyxy", "xywh")]


def box_case(
    format: str, device: str, dtype: Any = torch.float64, shapes: tuple[Any, Any] = ((2, 3), (2, 4))
) -> tuple[Any, Any]:
    """Leaves of boxes whose edges differ by more than a gradcheck moves them."""
    rng = np.random.default_rng(5)
    leaves = []
    for shape in shapes:
        corner, size = rng.uniform(0, 1, (*shape, 2)), rng.uniform(0.3, 1, (*shape, 2))
        values = np.concatenate([corner, size if format == "xywh" else corner + size], -1)
        leaves.append(torch.tensor(values, dtype=dtype, device=device, requires_grad=True))
    return leaves[0], leaves[1]


@pytest.mark.parametrize(("kind", "format"), OVERLAPS)
def test_opcheck_box_iou(kind: str, format: str, device: str) -> None:
    a, b = box_case(format, device, torch.float32)
    ops = torch.ops.cv3gpu
    library.opcheck(ops.box_iou.default, (a, b, format, kind))
    library.opcheck(ops.box_iou.default, (a.detach(), b.detach().mT.contiguous().mT, format, kind))
    grad = uniform((2, 3, 4), device, torch.float32, grad=False)
    library.opcheck(ops.box_iou_vjp.default, (grad, a.detach(), b.detach(), format, kind))


def test_opcheck_linear_sum_assignment(device: str) -> None:
    op, cost = torch.ops.cv3gpu.linear_sum_assignment.default, uniform((2, 3, 5), device)
    library.opcheck(op, (cost,))
    sizes = torch.tensor([2, 3], device=device)
    library.opcheck(op, (cost.detach().int(), True, sizes, None))


# ---- values and gradients -------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", list(CONV))
def test_conv2d_agrees_with_torch(name: str, layout: str, device: str) -> None:
    x, weight, bias, options, terms = conv_case(name, device)
    x = with_layout(x, layout)
    got, want = cv3gpu.conv2d(x, weight, bias, **options), torch_conv2d(x, weight, bias, **options)
    close(got, want, terms)
    grad = uniform(tuple(want.shape), device, seed=4, grad=False)
    inputs = (x, weight, bias)
    for a, b in zip(torch.autograd.grad(got, inputs, grad), torch.autograd.grad(want, inputs, grad), strict=True):
        close(a, b, max(terms, grad[:, 0].numel()))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", list(INTERPOLATE))
def test_interpolate_agrees_with_torch(name: str, layout: str, device: str) -> None:
    shape, options = INTERPOLATE[name]
    x = with_layout(uniform(shape, device), layout)
    got, want = cv3gpu.interpolate(x, **options), functional.interpolate(x, **options)
    close(got, want, 64)
    grad = uniform(tuple(want.shape), device, seed=4, grad=False)
    close(torch.autograd.grad(got, x, grad)[0], torch.autograd.grad(want, x, grad)[0], 64)


@pytest.mark.parametrize("name", list(CONV))
def test_conv2d_derivatives(name: str, device: str) -> None:
    x, weight, bias, options, _ = conv_case(name, device)

    def run(x: Any, weight: Any, bias: Any) -> Any:
        return cv3gpu.conv2d(x, weight, bias, **options)

    assert gradcheck(run, (x, weight, bias))
    assert gradgradcheck(run, (x, weight, bias))


@pytest.mark.parametrize("mask", [m for m in itertools.product([False, True], repeat=3) if any(m)])
@pytest.mark.parametrize("name", ["pairs", "groups"])
def test_conv2d_derivatives_one_by_one(name: str, mask: tuple[bool, ...], device: str) -> None:
    x, weight, bias, options, _ = conv_case(name, device)
    inputs = tuple(t.detach().requires_grad_(wants) for t, wants in zip((x, weight, bias), mask, strict=True))

    def run(x: Any, weight: Any, bias: Any) -> Any:
        return cv3gpu.conv2d(x, weight, bias, **options)

    assert gradcheck(run, inputs)
    if mask[0] or mask[1]:  # of the bias alone, the second derivative is zero, and torch has no graph to check
        assert gradgradcheck(run, inputs)


@pytest.mark.parametrize("name", list(INTERPOLATE))
def test_interpolate_derivatives(name: str, device: str) -> None:
    shape, options = INTERPOLATE[name]
    x = uniform(shape, device)
    assert gradcheck(lambda x: cv3gpu.interpolate(x, **options), (x,))
    assert gradgradcheck(lambda x: cv3gpu.interpolate(x, **options), (x,))


@pytest.mark.parametrize(("kind", "format"), OVERLAPS)
def test_box_iou_derivative(kind: str, format: str, device: str) -> None:
    a, b = box_case(format, device)

    def run(a: Any, b: Any) -> Any:
        return cv3gpu.box_iou(a, b, format=format, kind=kind)

    assert gradcheck(run, (a, b))
    assert gradcheck(run, (a, b.detach()))
    assert gradcheck(run, (a.detach(), b))


def test_box_iou_has_no_second_derivative(device: str) -> None:
    a, b = box_case("xyxy", device)
    (by_a,) = torch.autograd.grad(cv3gpu.box_iou(a, b).sum(), a, create_graph=True)
    with pytest.raises(NotImplementedError, match=r"^box_iou_vjp: no gradient is implemented"):
        by_a.sum().backward()


def test_an_assignment_has_no_gradient(device: str) -> None:
    cost = uniform((2, 3, 5), device)
    found = cv3gpu.linear_sum_assignment(cost, n_rows=2, n_cols=torch.tensor([3, 4], device=device))
    assert isinstance(found, cv3gpu.Assignment)
    assert not any(x.requires_grad for x in found)
    wanted = cv3gpu.linear_sum_assignment(cost.detach().cpu().numpy(), n_rows=2, n_cols=np.array([3, 4]))
    for x, want in zip(found, wanted, strict=True):
        assert x.device == cost.device
        np.testing.assert_allclose(x.cpu().numpy(), want)
    gradient = torch.func.grad(lambda c: cv3gpu.linear_sum_assignment(c).total.sum() + c.sum())(cost.detach())
    assert torch.equal(gradient, torch.ones_like(cost))


def test_only_wanted_gradients_are_computed(device: str) -> None:
    x, weight, _, options, _ = conv_case("groups", device)

    def calls(x: Any, weight: Any) -> list[str]:
        out = cv3gpu.conv2d(x, weight, **options)
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
            out.sum().backward()
        return sorted({e.name for e in profile.events() if e.name.startswith("cv3gpu::")})

    assert calls(x, weight.detach()) == ["cv3gpu::conv2d_adjoint_input"]
    assert calls(x.detach(), weight) == ["cv3gpu::conv2d_adjoint_weight"]
    assert len(calls(x, weight)) == 2


def test_backward_of_a_public_call(device: str) -> None:
    x, weight, bias, options, terms = conv_case("padded", device)
    cv3gpu.conv2d(2 * x, weight.exp(), bias, **options).square().sum().backward()  # x is no leaf of the call
    got = [t.grad for t in (x, weight, bias)]
    wanted = torch.autograd.grad(torch_conv2d(2 * x, weight.exp(), bias, **options).square().sum(), (x, weight, bias))
    for a, b in zip(got, wanted, strict=True):
        close(a, b, 64 * terms**2)


# ---- conv2d: borders, scale, activation -------------------------------------------------------------------

# shapes of x and weight, padding (top, bottom, left, right), stride, groups, padding mode, scaled, activation
FUSED: dict[str, tuple[Any, ...]] = {
    "reflect": ((1, 2, 4, 3), (3, 2, 3, 3), [1, 2, 2, 0], 1, 1, "reflect", True, "relu"),
    "replicate": ((1, 2, 3, 4), (2, 1, 3, 2), [4, 1, 0, 3], 2, 2, "replicate", False, None),
    "circular": ((2, 2, 3, 2), (2, 2, 3, 3), [3, 1, 2, 2], 1, 1, "circular", False, "relu6"),
    "zeros": ((1, 2, 4, 3), (2, 2, 3, 3), [1, 1, 1, 1], 1, 1, "zeros", True, None),
}


def fused_case(name: str, device: str, layout: str = "contiguous", dtype: Any = torch.float64) -> tuple[Any, ...]:
    """Leaves x, weight, bias and scale or None, and the other arguments."""
    x_shape, weight_shape, padding, stride, groups, mode, scaled, activation = FUSED[name]
    x, weight = uniform(x_shape, device, dtype, 1), uniform(weight_shape, device, dtype, 2)
    bias = uniform(weight_shape[:1], device, dtype, 3)
    scale = uniform(weight_shape[:1], device, dtype, 4) if scaled else None
    options = {"stride": stride, "padding": padding, "groups": groups, "padding_mode": mode, "activation": activation}
    return with_layout(x, layout), weight, bias, scale, options


def torch_fused(x: Any, weight: Any, bias: Any, scale: Any, options: dict[str, Any]) -> Any:
    """Torch's own, one after the other."""
    top, bottom, left, right = options["padding"]
    mode = {"zeros": "constant"}.get(options["padding_mode"], options["padding_mode"])
    padded = functional.pad(x, (left, right, top, bottom), mode)
    y = functional.conv2d(padded, weight, None, options["stride"], 0, 1, options["groups"])
    y = (y if scale is None else y * scale[:, None, None]) + bias[:, None, None]
    return {None: lambda t: t, "relu": functional.relu, "relu6": functional.relu6}[options["activation"]](y)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", list(FUSED))
def test_fused_conv2d_agrees_with_torch(name: str, layout: str, device: str) -> None:
    x, weight, bias, scale, options = fused_case(name, device, layout)
    leaves = [t for t in (x, weight, bias, scale) if t is not None]
    got, want = cv3gpu.conv2d(x, weight, bias, scale=scale, **options), torch_fused(x, weight, bias, scale, options)
    close(got, want, 40)
    grad = uniform(tuple(want.shape), device, seed=5, grad=False)
    for a, b in zip(torch.autograd.grad(got, leaves, grad), torch.autograd.grad(want, leaves, grad), strict=True):
        close(a, b, 200)


@pytest.mark.parametrize("name", list(FUSED))
def test_fused_conv2d_derivatives(name: str, device: str) -> None:
    x, weight, bias, scale, options = fused_case(name, device)
    leaves = [t for t in (x, weight, bias, scale) if t is not None]

    def call(*given: Any) -> Any:
        scale = given[3] if len(given) > 3 else None
        return cv3gpu.conv2d(*given[:3], scale=scale, **options)

    assert gradcheck(call, leaves)
    assert gradgradcheck(call, leaves)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", list(FUSED))
def test_opcheck_fused_conv2d(name: str, layout: str, device: str) -> None:
    x, weight, bias, scale, options = fused_case(name, device, layout, torch.float32)
    geometry = [options["stride"]] * 2, options["padding"], [1, 1], options["groups"], options["padding_mode"]
    ops = torch.ops.cv3gpu
    library.opcheck(ops.conv2d.default, (x, weight, bias, *geometry, scale, options["activation"], True))
    grad = with_layout(torch.ones_like(ops.conv2d(x, weight, None, *geometry)).detach(), layout).requires_grad_()
    library.opcheck(ops.conv2d_adjoint_input.default, (grad, weight, list(x.shape[2:]), *geometry, True))
    library.opcheck(ops.conv2d_adjoint_weight.default, (grad, x, list(weight.shape[2:]), *geometry))


@pytest.mark.parametrize("dims", [(0, None, None, 0), (None, 0, 0, None), (0, 0, None, 0)])
@pytest.mark.parametrize("name", ["reflect", "zeros"])
def test_vmap_of_fused_conv2d(name: str, dims: tuple[int | None, ...], device: str) -> None:
    *given, options = fused_case(name, device)
    given = [t.detach() if d is None else torch.stack([t, -2 * t]).detach() for t, d in zip(given, dims, strict=True)]

    def run(x: Any, weight: Any, bias: Any, scale: Any) -> Any:
        return cv3gpu.conv2d(x, weight, bias, scale=scale, **options)

    got = torch.vmap(run, dims)(*given)
    wanted = [run(*(t if d is None else t[i] for t, d in zip(given, dims, strict=True))) for i in range(2)]
    close(got, torch.stack(wanted), 200)


def test_fused_conv2d_under_autocast_and_compile(device: str) -> None:
    x, weight, bias, scale, options = fused_case("reflect", device, dtype=torch.float32)
    with torch.autocast(device, torch.bfloat16):
        assert cv3gpu.conv2d(x, weight, bias, scale=scale, **options).dtype == torch.bfloat16

    def step(x: Any, weight: Any, bias: Any, scale: Any) -> Any:
        return cv3gpu.conv2d(x, weight, bias, scale=scale, **options).sum()

    leaves = (x, weight, bias, scale)
    got = torch.autograd.grad(torch.compile(step, fullgraph=True, backend="aot_eager")(*leaves), leaves)
    for a, b in zip(got, torch.autograd.grad(step(*leaves), leaves), strict=True):
        close(a, b, 100)


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("with_bias", [True, False])
def test_folded_batch_norm(affine: bool, with_bias: bool, device: str) -> None:
    x, weight, bias, _, _ = conv_case("padded", device)
    norm = torch.nn.BatchNorm2d(3, affine=affine, device=device, dtype=torch.float64).eval()
    with torch.no_grad():
        norm.running_mean.copy_(uniform((3,), device, seed=6))
        norm.running_var.copy_(uniform((3,), device, seed=7).abs() + 0.1)
        if affine:
            norm.weight.copy_(uniform((3,), device, seed=8))
            norm.bias.copy_(uniform((3,), device, seed=9))
    before = bias if with_bias else None
    scale, shift = cv3gpu.nn.fold_batch_norm(norm, before)
    got = cv3gpu.conv2d(x, weight, shift, padding=1, scale=scale, activation="relu")
    close(got, norm(functional.conv2d(x, weight, before, padding=1)).relu(), 400)
    assert cv3gpu.nn.fold_batch_norm(None, before) == (None, before)
    assert cv3gpu.nn.fold_batch_norm(norm, before, torch.float16)[0].dtype == torch.float16
    with pytest.raises(ValueError, match=r"^fold_batch_norm: norm must have running statistics, got"):
        cv3gpu.nn.fold_batch_norm(torch.nn.BatchNorm2d(3, track_running_stats=False))


# ---- what else a backward meets -----------------------------------------------------------------------------


def test_expanded_gradient(device: str) -> None:
    x, weight, bias, options, _ = conv_case("strided", device)
    cv3gpu.conv2d(x, weight, bias, **options).sum().backward()  # its gradient has strides of zero
    want = torch.autograd.grad(torch_conv2d(x, weight, bias, **options).sum(), (x, weight, bias))
    for t, b in zip((x, weight, bias), want, strict=True):
        close(t.grad, b, 64)


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_layout_is_kept(layout: str, device: str) -> None:
    x, weight, _, options, _ = conv_case("plain", device)
    x = with_layout(x, layout)
    kept = torch.channels_last if layout == "channels_last" else torch.contiguous_format
    assert cv3gpu.conv2d(x, weight, **options).is_contiguous(memory_format=kept)
    assert cv3gpu.interpolate(x, (3, 7), mode="bilinear").is_contiguous(memory_format=kept)


def test_empty_batch(device: str) -> None:
    x, weight = uniform((0, 3, 6, 5), device), uniform((4, 3, 3, 3), device)
    bias = uniform((4,), device)
    out = cv3gpu.conv2d(x, weight, bias, padding=1)
    assert out.shape == (0, 4, 6, 5)
    out.sum().backward()
    assert x.grad.shape == x.shape
    assert not weight.grad.any() and not bias.grad.any()
    small = cv3gpu.interpolate(x, (2, 3), mode="bilinear")
    assert small.shape == (0, 3, 2, 3)
    small.sum().backward()


def test_inference_and_no_grad(device: str) -> None:
    x, weight, bias, options, terms = conv_case("groups", device)
    want = torch_conv2d(x, weight, bias, **options)
    for mode in (torch.inference_mode, torch.no_grad):
        with mode():
            got = cv3gpu.conv2d(x, weight, bias, **options)
            assert not got.requires_grad
            close(got, want, terms)
            assert cv3gpu.interpolate(x, (3, 3)).shape == (1, 4, 3, 3)


def test_kernels_below_the_dispatcher(host_backend: Any) -> None:
    x, weight, bias, options, terms = conv_case("pairs", "cpu", torch.float32)
    got, want = cv3gpu.conv2d(x, weight, bias, **options), torch_conv2d(x, weight, bias, **options)
    close(got, want, terms)
    grad = uniform(tuple(want.shape), "cpu", torch.float32, 4, grad=False)
    inputs = (x, weight, bias)
    for a, b in zip(torch.autograd.grad(got, inputs, grad), torch.autograd.grad(want, inputs, grad), strict=True):
        close(a, b, 64)


# ---- transforms -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("dims", [d for d in itertools.product([None, 0], repeat=3) if any(i == 0 for i in d)])
@pytest.mark.parametrize("groups", [1, 2])
def test_vmap_of_conv2d_and_its_gradients(dims: tuple[int | None, ...], groups: int, device: str) -> None:
    shapes = (2, 4, 5, 4), (6, 4 // groups, 3, 2), (6,)
    args = [
        uniform(s if d is None else (3, *s), device, seed=i, grad=False)
        for i, (s, d) in enumerate(zip(shapes, dims, strict=True))
    ]

    def run(x: Any, weight: Any, bias: Any) -> Any:
        return cv3gpu.conv2d(x, weight, bias, (2, 1), (1, 0), 1, groups)

    def loss(*args: Any) -> Any:
        return run(*args).square().sum()

    def looped(function: Callable[..., Any]) -> Any:
        rows = [[a if d is None else a[i] for a, d in zip(args, dims, strict=True)] for i in range(3)]
        return torch.stack([function(*row) for row in rows])

    close(torch.vmap(run, dims)(*args), looped(run), 64)
    for argument in range(3):
        derivative = torch.func.grad(loss, argument)
        close(torch.vmap(derivative, dims)(*args), looped(derivative), 64**2)


@pytest.mark.parametrize("name", ["bilinear factors", "nearest up"])
def test_vmap_of_interpolate_and_its_gradient(name: str, device: str) -> None:
    shape, options = INTERPOLATE[name]
    x = uniform((shape[0], 3, *shape[1:]), device, grad=False)

    def run(x: Any) -> Any:
        return cv3gpu.interpolate(x, **options)

    derivative = torch.func.grad(lambda x: run(x).square().sum())
    for function in (run, derivative):
        close(torch.vmap(function, 1)(x), torch.stack([function(x[:, i]) for i in range(3)]), 64)


def test_per_sample_gradients(device: str) -> None:
    x, weight, _, options, _ = conv_case("plain", device)
    x, weight = x.detach(), weight.detach()

    def loss(weight: Any, sample: Any) -> Any:
        return cv3gpu.conv2d(sample[None], weight, **options).square().sum()

    got = torch.vmap(torch.func.grad(loss), (None, 0))(weight, x)
    close(got, torch.stack([torch.func.grad(loss)(weight, sample) for sample in x]), 64**2)


def test_jacobian_and_hessian(device: str) -> None:
    x, weight, _, options, _ = conv_case("pointwise", device)
    weight, x = weight.detach(), x.detach()[:1, :, :2, :2]
    jacobian = torch.func.jacrev(lambda x: cv3gpu.conv2d(x, weight, **options))(x)
    close(jacobian, torch.func.jacrev(lambda x: torch_conv2d(x, weight, **options))(x), 64)
    hessian = torch.func.jacrev(torch.func.jacrev(lambda x: cv3gpu.conv2d(x, weight).square().sum()))(x)
    close(hessian, torch.func.jacrev(torch.func.jacrev(lambda x: torch_conv2d(x, weight).square().sum()))(x), 64)


@pytest.mark.parametrize("dims", [(0, 0), (1, None), (None, 0)])
def test_vmap_of_box_iou_and_its_gradients(dims: tuple[int | None, ...], device: str) -> None:
    a, b = (t.detach() for t in box_case("xyxy", device, shapes=((3, 3), (3, 3))))
    args = [t[0] if d is None else t for t, d in zip((a, b), dims, strict=True)]
    rows = [[t if d is None else t.select(d, i) for t, d in zip(args, dims, strict=True)] for i in range(3)]

    def loss(a: Any, b: Any) -> Any:
        return cv3gpu.box_iou(a, b, kind="giou").square().sum()

    for function in (cv3gpu.box_iou, torch.func.grad(loss, 0), torch.func.grad(loss, 1)):
        close(torch.vmap(function, dims)(*args), torch.stack([function(*row) for row in rows]), 64)


def test_vmap_of_linear_sum_assignment(device: str) -> None:
    cost = uniform((5, 3, 4), device, grad=False)
    sizes = torch.tensor([3, 2, 5], device=device)

    def run(cost: Any, n: Any) -> Any:
        return tuple(cv3gpu.linear_sum_assignment(cost, n_rows=n, n_cols=3))

    got = torch.vmap(run, (1, 0))(cost, sizes)
    for x, want in zip(got, zip(*(run(cost[:, i], sizes[i]) for i in range(3)), strict=True), strict=True):
        assert torch.equal(x, torch.stack(want))


# ---- autocast -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast(dtype: Any, device: str) -> None:
    x, weight, bias, options, terms = conv_case("groups", device, torch.float32)
    with torch.autocast(device, dtype):
        out = cv3gpu.conv2d(x, weight, bias, **options)
        resized = cv3gpu.interpolate(x, (3, 3), mode="bilinear")
        doubles = cv3gpu.conv2d(x.double(), weight.double(), **options)
    assert (out.dtype, resized.dtype, doubles.dtype) == (dtype, torch.float32, torch.float64)
    same = [t.detach().to(dtype) for t in (x, weight, bias)]
    assert torch.equal(out, cv3gpu.conv2d(*same, **options))
    out.sum().backward()
    assert [t.grad.dtype for t in (x, weight, bias)] == [torch.float32] * 3
    close(
        weight.grad,
        torch.autograd.grad(torch_conv2d(x, weight, **options).sum(), weight)[0].detach(),
        2**16 * terms,
    )


def test_autocast_of_two_dtypes(device: str) -> None:
    x, weight, _, options, _ = conv_case("plain", device, torch.float32)
    with torch.autocast(device, torch.bfloat16):
        assert cv3gpu.conv2d(x.bfloat16(), weight, **options).dtype == torch.bfloat16


def test_autocast_keeps_the_dtype_of_boxes(device: str) -> None:
    a, b = box_case("xyxy", device, torch.float32)
    with torch.autocast(device, torch.bfloat16):
        out = cv3gpu.box_iou(a, b)
        found = cv3gpu.linear_sum_assignment(-out)
        with pytest.raises(TypeError, match=r"^box_iou: a must have dtype float32 or float64, got bfloat16"):
            cv3gpu.box_iou(a.bfloat16(), b.bfloat16())
    assert (out.dtype, found.total.dtype) == (torch.float32, torch.float64)
    out.sum().backward()
    assert (a.grad.dtype, b.grad.dtype) == (torch.float32, torch.float32)


# ---- compilers ------------------------------------------------------------------------------------------


def training_step(x: Any, weight: Any, bias: Any) -> Any:
    """Some operators between others."""
    y = cv3gpu.conv2d(x.sin(), weight, bias, 1, "same", dilation=2)
    y = cv3gpu.interpolate(y.relu(), scale_factor=2.0, mode="bilinear")
    return cv3gpu.interpolate(y, (5, 7)).square().mean()


BACKENDS = [
    "aot_eager",
    pytest.param("inductor", marks=pytest.mark.skipif(not shutil.which("g++"), reason="needs g++")),
]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_compile(layout: str, backend: str, device: str) -> None:
    if backend == "inductor" and layout != "channels_last":
        pytest.skip("the slow compiler has one case")
    x, weight = uniform((2, 3, 6, 5), device), uniform((4, 3, 3, 3), device)
    inputs = (with_layout(x, layout), weight, uniform((4,), device))
    wanted = training_step(*inputs)
    gradients = torch.autograd.grad(wanted, inputs)
    got = torch.compile(training_step, fullgraph=True, backend=backend)(*inputs)
    close(got, wanted, 64)
    for a, b in zip(torch.autograd.grad(got, inputs), gradients, strict=True):
        close(a, b, 64)


def test_compile_with_dynamic_shapes(device: str) -> None:
    weight, bias = uniform((4, 3, 3, 3), device), uniform((4,), device)
    compiled = torch.compile(training_step, fullgraph=True, backend="aot_eager", dynamic=True)
    counters = torch._dynamo.utils.counters
    counters.clear()
    for shape in ((2, 3, 6, 5), (3, 3, 9, 8), (5, 3, 7, 12)):
        x = uniform(shape, device)
        got, want = compiled(x, weight, bias), training_step(x, weight, bias)
        close(got, want, 64)
        close(torch.autograd.grad(got, x)[0], torch.autograd.grad(want, x)[0], 64)
    assert counters["stats"]["unique_graphs"] == 1


def test_compile_under_autocast(device: str) -> None:
    x, weight, bias, options, _ = conv_case("padded", device, torch.float32)

    def run(x: Any) -> Any:
        with torch.autocast(device, torch.bfloat16):
            return cv3gpu.conv2d(x, weight, bias, **options)

    compiled = torch.compile(run, fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(x), run(x))


def matched_loss(a: Any, b: Any) -> Any:
    """As a detector's: boxes are matched by their overlap, which then is to grow."""
    overlap = cv3gpu.box_iou(a, b, kind="giou")
    found = cv3gpu.linear_sum_assignment(overlap, maximize=True, n_rows=2)
    of_pairs = torch.take_along_dim(overlap, found.col_ind.clamp(min=0)[..., None], -1)[..., 0]
    return torch.where(found.row_ind >= 0, 1 - of_pairs, 0).sum() + found.total.sum()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dynamic", [None, True])
def test_compile_boxes_and_assignment(dynamic: bool | None, backend: str, device: str) -> None:
    if backend == "inductor" and dynamic:
        pytest.skip("the slow compiler has one case")
    compiled = torch.compile(matched_loss, fullgraph=True, backend=backend, dynamic=dynamic)
    for n in (3, 5) if dynamic else (3,):
        a, b = box_case("xyxy", device, shapes=((2, n), (2, n + 2)))
        got, want = compiled(a, b), matched_loss(a, b)
        close(got, want, 64)
        for x, y in zip(torch.autograd.grad(got, (a, b)), torch.autograd.grad(want, (a, b)), strict=True):
            close(x, y, 64)


def small_network(device: str) -> Any:
    """Layers of ours between torch's."""
    torch.manual_seed(0)
    return torch.nn.Sequential(
        cv3gpu.nn.Conv2d(3, 8, 3, padding=1, stride=2),
        torch.nn.BatchNorm2d(8),
        torch.nn.ReLU(),
        cv3gpu.nn.Conv2d(8, 8, 3, padding="same", dilation=2, groups=8, bias=False),
        cv3gpu.nn.Upsample(scale_factor=2, mode="bilinear"),
        cv3gpu.nn.Conv2d(8, 2, 1),
    ).to(device, torch.float64)


def test_compile_a_network(device: str) -> None:
    net, x = small_network(device), uniform((2, 3, 8, 6), device)
    compiled = torch.compile(copy.deepcopy(net), fullgraph=True, backend="aot_eager")
    got, want = compiled(x), net(x)
    close(got, want, 64)
    got.square().sum().backward()
    want.square().sum().backward()
    for a, b in zip(compiled.parameters(), net.parameters(), strict=True):
        close(a.grad, b.grad, 2**12)


def test_export(device: str) -> None:
    net = small_network(device).eval()
    dim = torch.export.Dim
    shapes = ({0: dim("n"), 2: dim.AUTO, 3: dim.AUTO},)
    program = torch.export.export(net, (uniform((2, 3, 8, 6), device, grad=False),), dynamic_shapes=shapes)
    called = {str(node.target) for node in program.graph.nodes if node.op == "call_function"}
    assert {"cv3gpu.conv2d.default", "cv3gpu.interpolate.default"} <= called
    x = uniform((5, 3, 12, 20), device, grad=False)
    close(program.module()(x), net(x), 64)
    close(program.run_decompositions().module()(x), net(x), 64)


# ---- layers ---------------------------------------------------------------------------------------------

LAYERS: dict[str, dict[str, Any]] = {
    "plain": {},
    "no bias": {"bias": False},
    "pairs": {"stride": (2, 1), "padding": (1, 0), "dilation": (1, 2)},
    "same": {"padding": "same", "dilation": 2},
    "valid": {"padding": "valid"},
    "groups": {"groups": 2, "padding": 1},
    "reflect": {"padding": 1, "padding_mode": "reflect"},
    "circular": {"padding": (2, 1), "padding_mode": "circular", "stride": 2},
    "replicate, same": {"padding": "same", "padding_mode": "replicate"},
}


@pytest.mark.parametrize("name", list(LAYERS))
def test_conv2d_layer_is_torchs(name: str, device: str) -> None:
    options = {"device": device, "dtype": torch.float64, **LAYERS[name]}
    torch.manual_seed(0)
    ours = cv3gpu.nn.Conv2d(4, 6, 3, **options)
    torch.manual_seed(0)
    theirs = torch.nn.Conv2d(4, 6, 3, **options)
    assert isinstance(ours, torch.nn.Conv2d) and repr(ours) == repr(theirs)
    for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.equal(mine, other)
    torch.nn.init.uniform_(theirs.weight, -1, 1)
    ours.load_state_dict(theirs.state_dict(), strict=True)
    theirs.load_state_dict(ours.state_dict(), strict=True)
    x = uniform((2, 4, 7, 8), device)
    close(ours(x), theirs(x), 64)
    close(ours(x[0]), theirs(x[0]), 64)
    assert torch.equal(copy.deepcopy(ours)(x), ours(x))


@pytest.mark.parametrize(
    "options",
    [
        {"size": (7, 3)},
        {"size": 9, "mode": "bilinear"},
        {"scale_factor": 2, "mode": "bilinear", "align_corners": True},
        {"scale_factor": (1.5, 0.8), "mode": "nearest"},
        {"scale_factor": (1.3, 1.7), "mode": "bilinear", "recompute_scale_factor": True},
    ],
    ids=str,
)
def test_upsample_layer_is_torchs(options: dict[str, Any], device: str) -> None:
    ours, theirs = cv3gpu.nn.Upsample(**options), torch.nn.Upsample(**options)
    assert isinstance(ours, torch.nn.Upsample) and repr(ours) == repr(theirs)
    x = uniform((2, 3, 5, 6), device)
    close(ours(x), theirs(x), 64)


# ---- errors ---------------------------------------------------------------------------------------------

BAD: dict[str, tuple[str, tuple[tuple[int, ...], ...], dict[str, Any]]] = {
    "x is 3-D": ("conv2d", ((3, 5, 5), (4, 3, 3, 3)), {}),
    "weight is 3-D": ("conv2d", ((1, 3, 5, 5), (4, 3, 3)), {}),
    "weight is 3-D, same": ("conv2d", ((1, 3, 5, 5), (4, 3, 3)), {"padding": "same"}),
    "channels": ("conv2d", ((1, 3, 5, 5), (4, 2, 3, 3)), {}),
    "bias": ("conv2d", ((1, 3, 5, 5), (4, 3, 3, 3), (3,)), {}),
    "groups": ("conv2d", ((1, 3, 5, 5), (4, 3, 3, 3)), {"groups": 2}),
    "groups of zero": ("conv2d", ((1, 3, 5, 5), (4, 3, 3, 3)), {"groups": 0}),
    "groups of a float": ("conv2d", ((1, 3, 5, 5), (4, 3, 3, 3)), {"groups": 1.0}),
    "stride of zero": ("conv2d", ((1, 3, 5, 5), (4, 3, 3, 3)), {"stride": 0}),
    "stride of a float": ("conv2d", ((1, 3, 5, 5), (4, 3, 3, 3)), {"stride": 1.5}),
    "stride of three": ("conv2d", ((1, 3, 5, 5), (4, 3, 3, 3)), {"stride": (1, 1, 1)}),
    "dilation of zero": ("conv2d", ((1, 3, 5, 5), (4, 3, 3, 3)), {"dilation": (1, 0)}),
    "dilation of True": ("conv2d", ((1, 3, 5, 5), (4, 3, 3, 3)), {"dilation": True}),
    "negative padding": ("conv2d", ((1, 3, 5, 5), (4, 3, 3, 3)), {"padding": -1}),
    "padding of three": ("conv2d", ((1, 3, 5, 5), (4, 3, 3, 3)), {"padding": (1, 1, 1)}),
    "padding in words": ("conv2d", ((1, 3, 5, 5), (4, 3, 3, 3)), {"padding": "full"}),
    "same, strided": ("conv2d", ((1, 3, 5, 5), (4, 3, 3, 3)), {"padding": "same", "stride": 2}),
    "too small": ("conv2d", ((1, 3, 2, 5), (4, 3, 3, 3)), {}),
    "resize 3-D": ("interpolate", ((3, 5, 5),), {"size": 3}),
    "no size": ("interpolate", ((1, 3, 5, 5),), {}),
    "two sizes": ("interpolate", ((1, 3, 5, 5),), {"size": 3, "scale_factor": 2.0}),
    "size of zero": ("interpolate", ((1, 3, 5, 5),), {"size": (0, 3)}),
    "size of a float": ("interpolate", ((1, 3, 5, 5),), {"size": 2.5}),
    "size in words": ("interpolate", ((1, 3, 5, 5),), {"size": "large"}),
    "size of three": ("interpolate", ((1, 3, 5, 5),), {"size": (3, 3, 3)}),
    "negative factor": ("interpolate", ((1, 3, 5, 5),), {"scale_factor": -1.0}),
    "factor in words": ("interpolate", ((1, 3, 5, 5),), {"scale_factor": "two"}),
    "mode": ("interpolate", ((1, 3, 5, 5),), {"size": 3, "mode": "cubic"}),
    "mode is no word": ("interpolate", ((1, 3, 5, 5),), {"size": 3, "mode": 1}),
    "corners of nearest": ("interpolate", ((1, 3, 5, 5),), {"size": 3, "align_corners": True}),
    "corners of a number": (
        "interpolate",
        ((1, 3, 5, 5),),
        {"size": 3, "mode": "bilinear", "align_corners": 2},
    ),
    "antialias of nearest": ("interpolate", ((1, 3, 5, 5),), {"size": 3, "antialias": True}),
    "boxes of five": ("box_iou", ((2, 5), (3, 4)), {}),
    "another batch of boxes": ("box_iou", ((6, 2, 4), (5, 3, 4)), {}),
    "box format": ("box_iou", ((2, 4), (3, 4)), {"format": "cxcywh"}),
    "box format is no word": ("box_iou", ((2, 4), (3, 4)), {"format": 3}),
    "overlap kind": ("box_iou", ((2, 4), (3, 4)), {"kind": "diou"}),
    "gradient turned": ("box_iou_vjp", ((3, 2), (2, 4), (3, 4)), {}),
    "gradient of another kind": ("box_iou_vjp", ((2, 3), (2, 4), (3, 4)), {"kind": None}),
    "cost is 1-D": ("linear_sum_assignment", ((3,),), {}),
    "maximize is a number": ("linear_sum_assignment", ((3, 2),), {"maximize": 1}),
    "too many rows": ("linear_sum_assignment", ((3, 2),), {"n_rows": 4}),
    "rows of True": ("linear_sum_assignment", ((3, 2),), {"n_rows": True}),
    "columns in a list": ("linear_sum_assignment", ((3, 2),), {"n_cols": [2]}),
}


@pytest.mark.parametrize("name", list(BAD))
def test_errors_are_those_of_numpy(name: str, device: str) -> None:
    op, shapes, options = BAD[name]
    public = getattr(cv3gpu, op)
    with pytest.raises((TypeError, ValueError)) as wanted:
        public(*(np.zeros(s) for s in shapes), **options)
    for grad in (False, True):
        with pytest.raises((TypeError, ValueError)) as got:
            public(*(torch.zeros(s, device=device, requires_grad=grad) for s in shapes), **options)
        assert (got.type, str(got.value)) == (wanted.type, str(wanted.value))


LEFT_TO_THE_OPERATOR = {
    "too small",
    "stride of zero",
    "dilation of zero",
}  # a fake would have to compare sizes


@pytest.mark.parametrize("name", [n for n in BAD if BAD[n][0] == "conv2d" and n not in LEFT_TO_THE_OPERATOR])
def test_fakes_refuse_what_operators_refuse(name: str) -> None:
    _, shapes, options = BAD[name]
    with pytest.raises((TypeError, ValueError)) as wanted:
        cv3gpu.conv2d(*(np.zeros(s) for s in shapes), **options)
    with torch._subclasses.FakeTensorMode(), pytest.raises((TypeError, ValueError)) as got:
        cv3gpu.conv2d(*(torch.zeros(s) for s in shapes), **options)
    assert (got.type, str(got.value)) == (wanted.type, str(wanted.value))


def test_dtypes_are_refused(device: str) -> None:
    x, weight, _, _, _ = conv_case("plain", device, torch.float32)
    for bad in ((x.detach().int(), weight.detach().int()), (x, weight.double())):
        with pytest.raises(TypeError, match=r"^conv2d: .* must have "):
            cv3gpu.conv2d(*bad)
        with pytest.raises(TypeError, match=r"^conv2d: .* must have "):
            torch.ops.cv3gpu.conv2d(*bad)
    with pytest.raises(TypeError, match=r"^interpolate: x must have dtype"):
        cv3gpu.interpolate(x.detach().int(), (3, 3))


def test_mixed_arrays_are_refused(device: str) -> None:
    x, weight, _, _, _ = conv_case("plain", device)
    with pytest.raises(TypeError, match=rf"x is torch on {device}.*weight is numpy on cpu"):
        cv3gpu.conv2d(x, weight.detach().cpu().numpy())
    with pytest.raises(TypeError, match=r"^conv2d: weight must be a NumPy, CuPy or torch array, got list"):
        cv3gpu.conv2d(x, [[1.0]])
    if device == "cuda":
        with pytest.raises(TypeError, match=r"x is torch on cuda:0, weight is torch on cpu"):
            cv3gpu.conv2d(x, weight.cpu())
        with pytest.raises(TypeError, match=r"x is torch on cuda:0, weight is torch on cpu"):
            torch.ops.cv3gpu.conv2d(x, weight.cpu())


# ---- streams and graphs ---------------------------------------------------------------------------------


def test_work_follows_the_current_stream() -> None:
    need_torch_cuda()
    x, weight, bias, options, terms = conv_case("groups", "cuda")
    late, stream = torch.zeros_like(x), torch.cuda.Stream()
    cv3gpu.conv2d(late, weight, bias, **options)  # compiled and loaded
    want = torch_conv2d(x, weight, bias, **options)
    torch.cuda.synchronize()
    with torch.cuda.stream(stream), torch.no_grad():
        torch.cuda._sleep(50_000_000)
        late.copy_(x)
        got = cv3gpu.conv2d(late, weight, bias, **options)
        resized = cv3gpu.interpolate(got, (3, 3), mode="bilinear")
    torch.cuda.current_stream().wait_stream(stream)
    close(got, want, terms)
    close(resized, functional.interpolate(want, (3, 3), mode="bilinear"), 64)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_cuda_graph(dtype: Any) -> None:
    need_torch_cuda()
    x, weight, bias, options, _ = conv_case("groups", "cuda", dtype)

    def step() -> tuple[Any, ...]:
        out = cv3gpu.interpolate(cv3gpu.conv2d(x, weight, bias, **options), (7, 6), mode="bilinear")
        return out, *torch.autograd.grad(out.sum(), (x, weight, bias))

    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = step()
    with torch.no_grad():
        x.copy_(uniform(tuple(x.shape), "cuda", dtype, 9))
        weight.mul_(0.5)
    graph.replay()
    for a, b in zip(captured, step(), strict=True):
        torch.testing.assert_close(a, b)
