"""The torch operators and layers of both pyramids: registration, gradients, tracing, and weights of other libraries."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import library  # noqa: E402
from torch._dynamo.testing import CompileCounterWithBackend  # noqa: E402
from torch.autograd import gradcheck, gradgradcheck  # noqa: E402
from torch.nn import functional  # noqa: E402

import cv3gpu.nn  # noqa: E402
from cv3gpu import aspp, aspp_vjp, pyramid_conv2d, pyramid_pooling  # noqa: E402
from cv3gpu.pyramid import (  # noqa: E402
    pyramid_expand,
    pyramid_expand_adjoint,
    pyramid_maps,
    pyramid_pool,
    pyramid_pool_adjoint,
)

LAYOUTS = ["contiguous", "channels_last", "strided"]
RATES = (1, 2, 9)

pytestmark = pytest.mark.usefixtures("one_thread", "fresh_compiler")


def numbers(
    shape: tuple[int, ...], device: str, dtype: Any = torch.float64, layout: str = "contiguous", seed: int = 0
) -> Any:
    """A leaf of random numbers."""
    values = np.random.default_rng([seed, *shape]).standard_normal(shape)
    x = torch.tensor(values, device=device).to(dtype)
    if layout == "channels_last":
        x = x.contiguous(memory_format=torch.channels_last)
    elif layout == "strided":
        x = x.repeat_interleave(2, -1)[..., ::2].detach()
    return x.requires_grad_()


def parts(device: str, dtype: Any = torch.float64, channels: int = 3) -> tuple[list[Any], list[Any], list[Any]]:
    """Weights, biases and factors of three branches."""
    kernels = (1, 3, 3)
    weights = [numbers((2, channels, k, k), device, dtype, seed=i) for i, k in enumerate(kernels)]
    return weights, *([numbers((2,), device, dtype, seed=10 * j + i) for i in range(3)] for j in (1, 2))


def pyramid_inputs(device: str, dtype: Any = torch.float64, layout: str = "contiguous") -> tuple[Any, ...]:
    """Image, maps of bins 1 and 2, weight, bias and factor of `pyramid_conv2d`."""
    maps = [numbers((2, 2, b, b), device, dtype, seed=b) for b in (1, 2)]
    weight, bias, scale = (numbers(s, device, dtype) for s in ((3, 7, 3, 3), (3,), (3,)))
    return numbers((2, 3, 4, 5), device, dtype, layout), maps, weight, bias, scale.detach().add(0.1).requires_grad_()


# ---- registration ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", LAYOUTS)
def test_opcheck_branches(layout: str, device: str) -> None:
    x, (weights, biases, scales) = numbers((2, 3, 5, 4), device, torch.float32, layout), parts(device, torch.float32)
    vectors = numbers((2, 6), device, torch.float32), numbers((2, 1), device, torch.float32)
    op = torch.ops.cv3gpu.atrous_branches.default
    library.opcheck(op, (x, weights, scales, biases, *vectors, list(RATES), "relu"))
    if layout == "contiguous":
        library.opcheck(op, (x, weights, [], [], None, None, list(RATES), None))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_opcheck_pyramid(layout: str, device: str) -> None:
    ops, bins = torch.ops.cv3gpu, [1, 2]
    x = numbers((2, 3, 5, 4), device, torch.float32, layout)
    library.opcheck(ops.pyramid_pool.default, (x, bins))
    cells = pyramid_pool(x.detach(), bins).requires_grad_()
    library.opcheck(ops.pyramid_pool_adjoint.default, (cells, [5, 4], bins))
    z, v = numbers((2, 3, 45), device, torch.float32), numbers((3,), device, torch.float32)
    library.opcheck(ops.pyramid_expand.default, (x, z, bins, [3, 3], True, v, v, "relu6"))
    library.opcheck(ops.pyramid_expand.default, (x, z, bins, [3, 3], False, None, None, None))
    library.opcheck(ops.pyramid_expand_adjoint.default, (x, bins, [3, 3], True))


# ---- derivatives ----------------------------------------------------------------------------------------


def run_aspp(x: Any, *flat: Any, **options: Any) -> Any:
    """The operator with its lists one by one."""
    return aspp(x, flat[:3], flat[3:6], scales=flat[6:9] or None, dilations=RATES, **options)


@pytest.mark.parametrize("activation", [None, "relu6"])
def test_aspp_derivatives(activation: str | None, device: str) -> None:
    x, (weights, biases, scales) = numbers((2, 2, 4, 3), device), parts(device, channels=2)
    pool, last = numbers((2, 2, 1, 1), device), numbers((2, 8, 1, 1), device)
    vector = numbers((2,), device, seed=7)

    def run(x: Any, pool: Any, last: Any, vector: Any, *flat: Any) -> Any:
        options = {"image_pooling": (pool, vector, vector, activation), "project": (last, vector, vector, activation)}
        return run_aspp(x, *flat, activation=activation, **options)

    given = (x, pool, last, vector, *weights, *biases, *scales)
    assert gradcheck(run, given, fast_mode=True)
    if activation:
        assert gradgradcheck(run, given, fast_mode=True)


def test_aspp_pooled_branch_has_derivatives(device: str) -> None:
    x, (weights, biases, _) = numbers((2, 2, 4, 3), device), parts(device, channels=2)
    pool = numbers((2, 2, 1, 1), device)

    def run(x: Any, pool: Any, *flat: Any) -> Any:
        return run_aspp(x, *flat, image_pooling=(pool,))

    assert gradcheck(run, (x, pool, *weights, *biases), fast_mode=True)


def test_aspp_vjp_has_derivatives(device: str) -> None:
    x, (weights, _, _) = numbers((1, 3, 4, 3), device), parts(device)
    g = numbers((1, 6, 4, 3), device)

    def run(g: Any, x: Any, *weights: Any) -> Any:
        found = aspp_vjp(g, x, weights, dilations=RATES)
        return (found.x, *found.weights, *found.biases)

    assert gradcheck(run, (g, x, *weights), fast_mode=True)


@pytest.mark.parametrize(("corners", "activation"), [(True, None), (False, "relu")])
def test_pyramid_derivatives(corners: bool, activation: str | None, device: str) -> None:
    x, maps, weight, bias, scale = pyramid_inputs(device)
    options = {"align_corners": corners, "activation": activation}

    def run(x: Any, weight: Any, bias: Any, scale: Any, *maps: Any) -> Any:
        return pyramid_conv2d(x, maps, weight, bias, scale=scale, **options)

    given = (x, weight, bias, scale, *maps)
    assert gradcheck(run, given, fast_mode=True)
    if activation:
        assert gradgradcheck(run, given, fast_mode=True)
    kernels = [numbers((2, 3, 1, 1), device, seed=i) for i in (1, 2)]

    def pool(x: Any, *kernels: Any) -> Any:
        return pyramid_pooling(x, kernels, bins=(1, 3), **options)

    assert gradcheck(pool, (x, *kernels), fast_mode=True)


def test_linear_maps_have_derivatives(device: str) -> None:
    x, z = numbers((1, 2, 4, 5), device), numbers((1, 2, 45), device)
    cells = numbers((1, 2, 5, 1), device)
    for function, given in (
        (lambda g: pyramid_pool_adjoint(g, (4, 5), (1, 2)), (cells,)),
        (lambda g: pyramid_expand_adjoint(g, (1, 2)), (x,)),
        (lambda x, z: pyramid_expand(x, z, (1, 2)), (x, z)),
    ):
        assert gradcheck(function, given, fast_mode=True)
        assert gradgradcheck(function, given, fast_mode=True)


def test_kernels_below_the_dispatcher(host_backend: Any) -> None:
    x, maps, weight, bias, scale = pyramid_inputs("cpu", torch.float32)
    large = [functional.interpolate(m, (4, 5), mode="bilinear", align_corners=True) for m in maps]
    want = functional.conv2d(torch.cat([x, *large], 1), weight, padding=1)
    want = (want * scale[:, None, None] + bias[:, None, None]).relu()
    got = pyramid_conv2d(x, maps, weight, bias, scale=scale, activation="relu")
    torch.testing.assert_close(got, want)
    leaves = (x, *maps, weight, bias, scale)
    both = (torch.autograd.grad(y.square().sum(), leaves) for y in (got, want))
    for a, b in zip(*both, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)
    weights, biases, _ = parts("cpu", torch.float32)
    want = [functional.conv2d(x, w, b, 1, "same", d) for w, b, d in zip(weights, biases, RATES, strict=True)]
    got = aspp(x, weights, biases, dilations=RATES, activation="relu")
    torch.testing.assert_close(got, torch.cat(want, 1).relu())
    leaves = (x, *weights, *biases)
    both = (torch.autograd.grad(y.square().sum(), leaves) for y in (got, torch.cat(want, 1).relu()))
    for a, b in zip(*both, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


# ---- autocast, transforms, tracing ------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast(dtype: Any, device: str) -> None:
    x, (weights, biases, scales) = numbers((2, 3, 5, 4), device, torch.float32), parts(device, torch.float32)
    image, maps, weight, bias, scale = pyramid_inputs(device, torch.float32)
    pool = numbers((2, 3, 1, 1), device, torch.float32)
    with torch.autocast(device, dtype):
        low = aspp(x, weights, biases, scales=scales, dilations=RATES, image_pooling=(pool, *biases[:1]))
        second = pyramid_conv2d(image, maps, weight, bias, scale=scale)
        third = pyramid_pooling(x, weights[:1], biases[:1], bins=(2,), activation="relu")
    assert low.dtype == second.dtype == third.dtype == dtype
    full = aspp(x, weights, biases, scales=scales, dilations=RATES, image_pooling=(pool, *biases[:1]))
    torch.testing.assert_close(low.float(), full, rtol=0.05, atol=0.2)
    torch.testing.assert_close(
        second.float(), pyramid_conv2d(image, maps, weight, bias, scale=scale), rtol=0.05, atol=0.3
    )
    (low.float().sum() + second.float().sum()).backward()
    assert x.grad.dtype == weights[0].grad.dtype == maps[0].grad.dtype == torch.float32


@pytest.mark.parametrize("dims", [(0, None), (None, 0), (1, 1)])
def test_vmap_of_aspp(dims: tuple[int | None, int | None], device: str) -> None:
    x, weight = numbers((2, 2, 3, 4, 5), device).detach(), numbers((2, 2, 3, 3, 3), device).detach()
    args = [t[0] if d is None else t for t, d in zip((x, weight), dims, strict=True)]
    rows = [[t if d is None else t.select(d, i) for t, d in zip(args, dims, strict=True)] for i in range(2)]
    constant, scale = numbers((4, 3, 1, 1), device).detach(), numbers((2,), device).detach()

    def run(x: Any, weight: Any) -> Any:
        options = {"scales": [scale], "activation": "relu", "image_pooling": (constant,)}
        return aspp(x, [weight], dilations=[2], **options)

    derivative = torch.func.grad(lambda x, w: run(x, w).square().sum(), (0, 1))
    torch.testing.assert_close(torch.vmap(run, dims)(*args), torch.stack([run(*row) for row in rows]))
    for got, *want in zip(torch.vmap(derivative, dims)(*args), *(derivative(*row) for row in rows), strict=True):
        torch.testing.assert_close(got, torch.stack(want))


def test_vmap_of_pyramid(device: str) -> None:
    x, z = numbers((3, 2, 3, 4, 5), device).detach(), numbers((2, 3, 3, 45), device).detach()
    scales = numbers((3, 3), device).detach()

    def run(x: Any, z: Any) -> Any:
        return pyramid_expand(x, z, (1, 2), scale=scales[0]) + pyramid_pool(x, (1,))

    derivative = torch.func.grad(lambda x, z: run(x, z).square().sum(), (0, 1))
    rows = [(x[i], z[:, i]) for i in range(3)]
    torch.testing.assert_close(torch.vmap(run, (0, 1))(x, z), torch.stack([run(*row) for row in rows]))
    for got, *want in zip(torch.vmap(derivative, (0, 1))(x, z), *(derivative(*row) for row in rows), strict=True):
        torch.testing.assert_close(got, torch.stack(want))
    alone = torch.vmap(lambda scale: pyramid_expand(x[0], z[:, 0], (1, 2), scale=scale))(scales)
    torch.testing.assert_close(alone[1], pyramid_expand(x[0], z[:, 0], (1, 2), scale=scales[1]))


def training_step(x: Any, weights: Any, biases: Any, pool: Any, last: Any) -> Any:
    y = aspp(x, weights, biases, dilations=RATES, activation="relu", image_pooling=(pool,))
    maps = pyramid_maps(y, [pool[:, :1].expand(-1, y.shape[1], -1, -1)] * 2, bins=(1, 2), activation="relu")
    return pyramid_conv2d(y, maps, last, activation="relu").square().sum()


@pytest.mark.parametrize(("layout", "dynamic"), [("contiguous", True), ("channels_last", False), ("strided", False)])
def test_compile(layout: str, dynamic: bool, device: str) -> None:
    counter = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(training_step, fullgraph=True, backend=counter)
    weights, biases, _ = parts(device)
    pool, last = numbers((2, 3, 1, 1), device), numbers((2, 12, 3, 3), device)
    for shape in ((2, 3, 6, 5), (3, 3, 7, 8)) if dynamic else ((2, 3, 6, 5),):
        x = numbers(shape, device, layout=layout)
        if dynamic:  # of the image alone
            for axis in (0, 2, 3):
                torch._dynamo.maybe_mark_dynamic(x, axis)
        leaves = (x, *weights, *biases, pool, last)
        got, want = (step(x, weights, biases, pool, last) for step in (compiled, training_step))
        torch.testing.assert_close(got, want)
        found = zip(torch.autograd.grad(got, leaves), torch.autograd.grad(want, leaves), strict=True)
        for a, b in found:
            torch.testing.assert_close(a, b)
    assert counter.frame_count == 1  # of both shapes


# ---- layers ---------------------------------------------------------------------------------------------
#
# The other libraries' modules, written from the descriptions of their structure.


def _unit(in_channels: int, channels: int, size: int, dilation: int) -> list[Any]:
    padding = dilation if size > 1 else 0
    conv = torch.nn.Conv2d(in_channels, channels, size, padding=padding, dilation=dilation, bias=False)
    return [conv, torch.nn.BatchNorm2d(channels), torch.nn.ReLU()]


class TorchvisionASPP(torch.nn.Module):
    """The ASPP of torchvision's DeepLabv3, of torch's layers."""

    def __init__(self, channels: int, rates: tuple[int, ...], out: int) -> None:
        super().__init__()
        branches = [_unit(channels, out, 1, 1), *(_unit(channels, out, 3, rate) for rate in rates)]
        pooled = [torch.nn.AdaptiveAvgPool2d(1), *_unit(channels, out, 1, 1)]
        self.convs = torch.nn.ModuleList(torch.nn.Sequential(*b) for b in (*branches, pooled))
        self.project = torch.nn.Sequential(*_unit(len(self.convs) * out, out, 1, 1), torch.nn.Dropout(0.5))

    def forward(self, x: Any) -> Any:
        parts = [conv(x) for conv in self.convs]
        parts[-1] = functional.interpolate(parts[-1], x.shape[-2:], mode="bilinear", align_corners=False)
        return self.project(torch.cat(parts, 1))


class SemsegHead(torch.nn.Module):
    """``ppm`` and ``cls`` of hszhao's PSPNet, of torch's layers."""

    def __init__(self, channels: int, classes: int, bins: tuple[int, ...], middle: int) -> None:
        super().__init__()
        self.ppm = torch.nn.Module()
        reduced = channels // len(bins)
        self.ppm.features = torch.nn.ModuleList(
            torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(b), *_unit(channels, reduced, 1, 1)) for b in bins
        )
        dropout, last = torch.nn.Dropout2d(0.1), torch.nn.Conv2d(middle, classes, 1)
        self.cls = torch.nn.Sequential(*_unit(2 * channels, middle, 3, 1), dropout, last)

    def pooled(self, x: Any) -> Any:
        found = [x]
        for feature in self.ppm.features:
            options = {"mode": "bilinear", "align_corners": True}
            found.append(functional.interpolate(feature(x), x.shape[2:], **options))
        return torch.cat(found, 1)

    def forward(self, x: Any) -> Any:
        return self.cls(self.pooled(x))


def trained(module: Any, device: str) -> Any:
    """A module whose batch norms have seen something, in double precision."""
    generator = torch.Generator().manual_seed(0)
    for name, value in module.state_dict().items():
        if value.is_floating_point():
            noise = torch.randn(value.shape, generator=generator)
            value.copy_(noise.abs() + 0.5 if name.endswith("running_var") else 0.5 * noise)
    return module.double().to(device)


def agree(ours: Any, theirs: Any, x: Any) -> None:
    """Values and all gradients of two modules."""
    torch.manual_seed(1)
    got = ours(x)
    torch.manual_seed(1)
    want = theirs(x)
    torch.testing.assert_close(got, want)
    given = [(x, *m.parameters()) for m in (ours, theirs)]
    both = (torch.autograd.grad(y.square().sum(), g) for y, g in zip((got, want), given, strict=True))
    for a, b in zip(*both, strict=True):
        torch.testing.assert_close(a, b)


PAIRS: dict[str, Any] = {
    "aspp": (lambda: cv3gpu.nn.ASPP(8, (2, 3, 9), 4), lambda: TorchvisionASPP(8, (2, 3, 9), 4)),
    "pspnet": (lambda: cv3gpu.nn.PyramidHead(8, 3, channels=5), lambda: SemsegHead(8, 3, (1, 2, 3, 6), 5)),
}


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize("name", list(PAIRS))
def test_weights_and_results_of_the_others(name: str, layout: str, device: str) -> None:
    ours, theirs = (make() for make in PAIRS[name])
    theirs = trained(theirs, device)
    ours.double().to(device).load_state_dict(theirs.state_dict(), strict=True)
    theirs.load_state_dict(ours.state_dict(), strict=True)
    x = numbers((2, 8, 9, 7), device, layout=layout)
    agree(ours.eval(), theirs.eval(), x)
    with torch.no_grad():
        single = ours.float()(x.float())
        torch.testing.assert_close(single, theirs.float()(x.float()), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", list(PAIRS))
def test_training_is_that_of_the_others(name: str, device: str) -> None:
    ours, theirs = (make() for make in PAIRS[name])
    theirs = trained(theirs, device)
    ours.double().to(device).load_state_dict(theirs.state_dict(), strict=True)
    agree(ours.train(), theirs.train(), numbers((3, 8, 9, 7), device))
    for (key, a), b in zip(ours.state_dict().items(), theirs.state_dict().values(), strict=True):
        torch.testing.assert_close(a, b, msg=key)


def test_pyramid_pooling_is_semsegs(device: str) -> None:
    theirs = trained(SemsegHead(8, 3, (1, 2, 3, 6), 5), device)
    ours = cv3gpu.nn.PyramidPooling(8, 2).double().to(device)
    ours.load_state_dict(theirs.ppm.state_dict(), strict=True)
    x = numbers((2, 8, 9, 7), device)
    torch.testing.assert_close(ours.eval()(x), theirs.eval().pooled(x))
    torch.testing.assert_close(ours.train()(x), theirs.train().pooled(x))


def test_frozen_batch_norms_in_training(device: str) -> None:
    """Batch norms in evaluation are folded while dropout goes on."""
    ours, theirs = cv3gpu.nn.ASPP(8, (2,), 4), TorchvisionASPP(8, (2,), 4)
    theirs = trained(theirs, device)
    ours.double().to(device).load_state_dict(theirs.state_dict())
    for module in (ours, theirs):
        module.train()
        for norm in module.modules():
            if isinstance(norm, torch.nn.BatchNorm2d):
                norm.eval()
    agree(ours, theirs, numbers((2, 8, 9, 7), device))


@pytest.mark.parametrize("name", list(PAIRS))
def test_layers_compile(name: str, device: str) -> None:
    ours = trained(PAIRS[name][0](), device).eval()
    compiled = torch.compile(ours, fullgraph=True, backend="aot_eager")
    x = numbers((2, 8, 9, 7), device)
    torch.testing.assert_close(compiled(x), ours(x))


@pytest.mark.parametrize("name", list(PAIRS))
def test_layers_under_autocast(name: str, device: str) -> None:
    ours = PAIRS[name][0]().to(device).eval()
    x = numbers((2, 8, 9, 7), device, torch.float32)
    with torch.autocast(device, torch.bfloat16):
        low = ours(x)
    assert low.dtype == torch.bfloat16
    torch.testing.assert_close(low.float(), ours(x), rtol=0.1, atol=0.1)


BAD: list[tuple[str, tuple[Any, ...], dict[str, Any], type[Exception], str]] = [
    ("ASPP", (8, 6), {}, TypeError, r"ASPP: atrous_rates must be a sequence of integers, got int"),
    ("ASPP", (8, "6"), {}, TypeError, r"ASPP: atrous_rates must be a sequence of integers, got str"),
    ("ASPP", (8, [0]), {}, ValueError, r"ASPP: atrous_rates must be from 1 to"),
    ("ASPP", (8, [1.5]), {}, TypeError, r"ASPP: atrous_rates must be an integer, got 1.5"),
    ("ASPP", (0, [6]), {}, ValueError, r"ASPP: in_channels must be from 1 to"),
    ("ASPP", (8, [6], 0), {}, ValueError, r"ASPP: out_channels must be from 1 to"),
    ("PyramidPooling", (8.0, 2), {}, TypeError, r"PyramidPooling: in_channels must be an integer, got 8.0"),
    ("PyramidPooling", (8, 0), {}, ValueError, r"PyramidPooling: reduction_channels must be from 1 to"),
    ("PyramidPooling", (8, 2, ()), {}, ValueError, r"PyramidPooling: bins must not be empty"),
    ("PyramidPooling", (8, 2), {"align_corners": 1}, TypeError, r"PyramidPooling: align_corners must be True or False"),
    ("PyramidHead", (6, 3), {}, ValueError, r"PyramidHead: in_channels must be a multiple of the number of bins \(4\), got 6"),
    ("PyramidHead", (8, 0), {}, ValueError, r"PyramidHead: num_classes must be from 1 to"),
    ("PyramidHead", (8, 3, [40]), {}, ValueError, r"PyramidHead: bins must be from 1 to 32, got 40"),
]  # fmt: skip


def test_refusals() -> None:
    for layer, args, kwargs, error, text in BAD:
        with pytest.raises(error, match=f"^{text}"):
            getattr(cv3gpu.nn, layer)(*args, **kwargs)
    head = cv3gpu.nn.ASPP(8, [2], 4).eval()
    with pytest.raises(
        ValueError, match=r"^aspp: weights\[0\] must have shape \[Cout, 7, kh, kw\], got \(4, 8, 1, 1\)"
    ):
        head(torch.zeros(1, 7, 5, 5))
