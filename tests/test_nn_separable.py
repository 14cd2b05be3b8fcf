"""The torch operator and layer of separable convolutions: registration, gradients, tracing, and agreement."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import library  # noqa: E402
from torch.autograd import gradcheck, gradgradcheck  # noqa: E402
from torch.nn import functional  # noqa: E402

import cv3gpu.nn  # noqa: E402
from cv3gpu import separable_conv2d, separable_conv2d_vjp  # noqa: E402
from tests.conftest import need_torch_cuda  # noqa: E402
from tests.test_separable import REFUSALS, D, G, P, X  # noqa: E402

LAYOUTS = ["contiguous", "channels_last", "strided"]
CASES: dict[str, dict[str, Any]] = {
    "plain": {"padding": 1},
    "steps": {"stride": (2, 1), "padding": (1, 0, 2, 3), "dilation": (1, 2)},
    "same": {"padding": "same", "dilation": 2, "mid_activation": "relu6", "activation": "relu"},
}

pytestmark = pytest.mark.usefixtures("one_thread", "fresh_compiler")


def leaf(shape: tuple[int, ...], device: str, dtype: Any = torch.float64, layout: str = "contiguous") -> Any:
    rng = np.random.default_rng([len(shape), *shape])
    x = torch.tensor(rng.standard_normal(shape), device=device).to(dtype)
    if layout == "channels_last":
        x = x.contiguous(memory_format=torch.channels_last)
    elif layout == "strided":
        x = x.repeat_interleave(2, -1)[..., ::2]
    return x.requires_grad_()


def tensors(
    device: str,
    dtype: Any = torch.float64,
    layout: str = "contiguous",
    channels: int = 3,
    size: tuple[int, int] = (5, 6),
) -> dict[str, Any]:
    """x, both weights, and all vectors, of 4 output channels."""
    return {
        "x": leaf((2, channels, *size), device, dtype, layout),
        "depthwise": leaf((channels, 1, 3, 2), device, dtype),
        "pointwise": leaf((4, channels, 1, 1), device, dtype),
        "bias": leaf((4,), device, dtype),
        "mid_scale": leaf((channels,), device, dtype),
        "mid_bias": leaf((1 + channels,), device, dtype)[1:].detach().requires_grad_(),
        "scale": leaf((1, 4), device, dtype)[0].detach().requires_grad_(),
    }


def composed(given: dict[str, Any], stride: Any = 1, padding: Any = 0, dilation: Any = 1, **words: Any) -> Any:
    """Two convolutions of torch, and what lies between."""
    activate = {None: lambda t: t, "relu": functional.relu, "relu6": functional.relu6}
    x, depthwise = given["x"], given["depthwise"]
    if isinstance(padding, tuple):
        top, bottom, left, right = padding
        x, padding = functional.pad(x, (left, right, top, bottom)), 0
    y = functional.conv2d(x, depthwise, None, stride, padding, dilation, x.shape[1])
    y = y * given["mid_scale"][:, None, None] + given["mid_bias"][:, None, None]
    y = functional.conv2d(activate[words.get("mid_activation")](y), given["pointwise"])
    y = y * given["scale"][:, None, None] + given["bias"][:, None, None]
    return activate[words.get("activation")](y)


# ---- registration, derivatives --------------------------------------------------------------------------


@pytest.mark.parametrize("layout", LAYOUTS)
def test_opcheck(layout: str, device: str) -> None:
    t = tensors(device, torch.float32, layout)
    x, depthwise, pointwise, bias, mid_scale, mid_bias, scale = t.values()
    between, op = (mid_scale, mid_bias, "relu"), torch.ops.cv3gpu.separable_conv2d.default
    library.opcheck(op, (x, depthwise, pointwise, bias, [1, 1], [1, 0], [1, 2], *between, scale, "relu6"))


def test_opcheck_of_what_has_defaults(device: str) -> None:
    x, depthwise, pointwise, *_ = tensors(device, torch.float32).values()
    args = x, depthwise, pointwise, None, [2, 1], [0, 1, 2, 0]
    library.opcheck(torch.ops.cv3gpu.separable_conv2d.default, args)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", list(CASES))
def test_derivatives(name: str, layout: str, device: str) -> None:
    given = tensors(device, layout=layout, channels=2, size=(4, 5))

    def run(*values: Any) -> Any:
        return separable_conv2d(**dict(zip(given, values, strict=True)), **CASES[name])

    values = tuple(given.values())
    assert gradcheck(run, values, fast_mode=True)
    assert gradgradcheck(run, values, fast_mode=True)


def test_second_derivatives_are_torchs(device: str) -> None:
    given, found = tensors(device), []
    for run in (separable_conv2d, lambda **kwargs: composed(kwargs, padding=1, mid_activation="relu")):
        ours = {"padding": 1, "mid_activation": "relu"} if run is separable_conv2d else {}
        first = torch.autograd.grad(run(**given, **ours).square().sum(), tuple(given.values()), create_graph=True)
        second = torch.autograd.grad(sum(g.square().sum() for g in first), tuple(given.values()))
        found.append((*first, *second))
    for ours_, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours_, theirs)


@pytest.mark.parametrize("name", list(CASES))
def test_gradients_as_a_function(name: str, device: str) -> None:
    """The function and autograd agree, and the function can be differentiated itself."""
    given = tensors(device)
    y = separable_conv2d(**given, **CASES[name])
    grad = leaf(tuple(y.shape), device)
    gradients = separable_conv2d_vjp(grad, **given, **CASES[name])
    for key, got in zip(given, torch.autograd.grad(y, tuple(given.values()), grad), strict=True):
        torch.testing.assert_close(getattr(gradients, key), got)
    assert gradients.x.requires_grad


def test_only_what_is_wanted_is_computed(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from cv3gpu import separable

    given = {k: t.detach() for k, t in tensors(device).items()}
    given["bias"].requires_grad_()
    calls: list[str] = []
    for name in ("conv2d_adjoint_input", "conv2d_adjoint_weight"):
        monkeypatch.setattr(separable, name, lambda *_, called=name: calls.append(called))
    separable_conv2d(**given).sum().backward()
    assert given["bias"].grad is not None and calls == []


def test_a_backward_keeps_its_inputs_alone(device: str) -> None:
    kept: list[Any] = []

    def pack(x: Any) -> Any:
        kept.append(x)
        return x

    given = tensors(device)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        separable_conv2d(**given, padding=1)
    pointers = {t.data_ptr() for t in given.values()}
    assert {t.data_ptr() for t in kept} <= pointers


# ---- autocast, transforms, tracing ------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast(dtype: Any, device: str) -> None:
    given = tensors(device, torch.float32)
    with torch.autocast(device, dtype):
        y = separable_conv2d(**given, padding=1)
        mixed = separable_conv2d(**{**given, "x": given["x"].to(dtype)}, padding="same")
    assert y.dtype == dtype and mixed.dtype == dtype
    y.sum().backward()
    assert all(t.grad.dtype == torch.float32 for t in given.values())
    torch.testing.assert_close(y.float(), composed(given, padding=1), rtol=0.1, atol=0.2)


@pytest.mark.parametrize("dims", [(0, None, None), (1, None, None), (0, 0, None), (None, 1, 0)])
def test_vmap(dims: tuple[int | None, ...], device: str) -> None:
    shapes = (2, 3, 5, 6), (3, 1, 3, 3), (4, 3, 1, 1)
    given = []
    for shape, dim in zip(shapes, dims, strict=True):
        given.append(leaf(shape if dim is None else (*shape[:dim], 3, *shape[dim:]), device).detach())
    rows = [[t if d is None else t.select(d, i) for t, d in zip(given, dims, strict=True)] for i in range(3)]

    def run(x: Any, depthwise: Any, pointwise: Any) -> Any:
        return separable_conv2d(x, depthwise, pointwise, padding=1, mid_activation="relu")

    def loss(*args: Any) -> Any:
        return run(*args).square().sum()

    for function in (run, torch.func.grad(loss)):
        want = torch.stack([function(*row) for row in rows])
        torch.testing.assert_close(torch.vmap(function, dims)(*given), want)


@pytest.mark.parametrize(("layout", "dynamic"), [*((layout, None) for layout in LAYOUTS), ("channels_last", True)])
def test_compile(layout: str, dynamic: bool | None, device: str) -> None:
    def step(given: dict[str, Any]) -> Any:
        y = separable_conv2d(**given, padding=(1, 0), mid_activation="relu", activation="relu6")
        return separable_conv2d(y, given["pointwise"][:, :1], given["scale"][None, :, None, None], padding="same")

    compiled = torch.compile(step, fullgraph=True, backend="aot_eager", dynamic=dynamic)
    for size in ((5, 6), (9, 8)) if dynamic else ((5, 6),):
        given = tensors(device, layout=layout, size=size)
        got, want = compiled(given), step(given)
        torch.testing.assert_close(got, want)
        assert got.stride() == want.stride()
        leaves = tuple(given.values())
        for a, b in zip(*(torch.autograd.grad(y.square().sum(), leaves) for y in (got, want)), strict=True):
            torch.testing.assert_close(a, b)


def test_kernels_below_the_dispatcher(host_backend: Any) -> None:
    for dtype in (torch.float32, torch.float16):
        given = tensors("cpu", dtype)
        y, want = separable_conv2d(**given, padding=1), composed({k: t.double() for k, t in given.items()}, padding=1)
        torch.testing.assert_close(y.double(), want, rtol=1e-2 if dtype == torch.float16 else 1e-5, atol=1e-2)
        leaves = tuple(given.values())
        for a, b in zip(*(torch.autograd.grad(z.sum(), leaves) for z in (y, want)), strict=True):
            torch.testing.assert_close(a, b, rtol=2e-2, atol=3e-2 if dtype == torch.float16 else 1e-4)


def test_cuda_graph() -> None:
    need_torch_cuda()
    given = tensors("cuda", torch.float32)

    def step() -> tuple[Any, ...]:
        y = separable_conv2d(**given, padding=1, mid_activation="relu")
        return y, *torch.autograd.grad(y.square().sum(), tuple(given.values()))

    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = step()
    with torch.no_grad():
        given["x"].mul_(0.5)
    graph.replay()
    for a, b in zip(captured, step(), strict=True):
        torch.testing.assert_close(a, b)


# ---- the layer ------------------------------------------------------------------------------------------


class Parts(torch.nn.Module):
    """What the layer stands for, of torch's own layers under the same names."""

    def __init__(self, bias: bool, norms: bool, words: dict[str, Any]) -> None:
        super().__init__()
        self.depthwise = torch.nn.Conv2d(3, 3, 3, 2, 2, 2, groups=3, bias=False)
        self.pointwise = torch.nn.Conv2d(3, 5, 1, bias=bias)
        self.mid_norm = torch.nn.BatchNorm2d(3, eps=1e-3) if norms else torch.nn.Identity()
        self.norm = torch.nn.BatchNorm2d(5, eps=1e-3) if norms else torch.nn.Identity()
        self.activate = [
            {None: torch.nn.Identity(), "relu": torch.nn.ReLU(), "relu6": torch.nn.ReLU6()}[words.get(k)]
            for k in ("mid_activation", "activation")
        ]

    def forward(self, x: Any) -> Any:
        x = self.activate[0](self.mid_norm(self.depthwise(x)))
        return self.activate[1](self.norm(self.pointwise(x)))


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(
    ("norms", "words"),
    [
        (False, {}),
        (True, {}),
        (True, {"mid_activation": "relu6"}),
        (True, {"mid_activation": "relu", "activation": "relu"}),
    ],
)
def test_layer_is_its_parts(norms: bool, words: dict[str, Any], bias: bool, layout: str, device: str) -> None:
    theirs = Parts(bias, norms, words).double().to(device)
    options: dict[str, Any] = {"mid_norm": norms, "norm": norms, "eps": 1e-3, "dtype": torch.float64, **words}
    ours = cv3gpu.nn.SeparableConv2d(3, 5, 3, 2, 2, 2, bias, device=device, **options)
    with torch.no_grad():
        for value in theirs.state_dict().values():
            if value.is_floating_point():
                value.copy_(torch.rand_like(value) + 0.1)
    ours.load_state_dict(theirs.state_dict(), strict=True)
    theirs.load_state_dict(ours.state_dict(), strict=True)
    x = leaf((2, 3, 7, 8), device, layout=layout)
    for training in (True, False):
        ours.train(training)
        theirs.train(training)
        y, want = ours(x), theirs(x)
        torch.testing.assert_close(y, want)
        assert y.stride() == want.stride()
        pairs = ((y, ours), (want, theirs))
        found, wanted = (torch.autograd.grad(z.square().sum(), (x, *net.parameters())) for z, net in pairs)
        by_name = dict(zip((n for n, _ in theirs.named_parameters()), wanted[1:], strict=True))
        torch.testing.assert_close(found[0], wanted[0])
        for (name, _), gradient in zip(ours.named_parameters(), found[1:], strict=True):
            torch.testing.assert_close(gradient, by_name[name])
    for key, value in ours.state_dict().items():
        torch.testing.assert_close(value, theirs.state_dict()[key])
    torch.testing.assert_close(ours(x[0]), theirs(x)[0])
    assert "stride=(2, 2)" in repr(ours)


def test_layer_under_autocast_and_compile(device: str) -> None:
    layer = cv3gpu.nn.SeparableConv2d(3, 5, 3, padding="same", mid_norm=True, norm=True, device=device).eval()
    x = leaf((1, 3, 6, 6), device, torch.float32)
    with torch.autocast(device, torch.bfloat16):
        assert layer(x).dtype == torch.bfloat16
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x), layer(x))


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"in_channels": 0}, ValueError, "in_channels must be from 1 to 2147483647, got 0"),
        ({"out_channels": 1.5}, TypeError, "out_channels must be an integer"),
        ({"kernel_size": (3, 3, 3)}, ValueError, "kernel_size must be an integer or a pair of integers"),
        ({"padding": "full"}, ValueError, "padding must be one of 'same', 'valid', got 'full'"),
        ({"bias": 1}, TypeError, "bias must be True or False, got 1"),
        ({"mid_norm": None}, TypeError, "mid_norm must be True or False, got None"),
        ({"norm": "batch"}, TypeError, "norm must be True or False"),
        ({"eps": 0.0}, ValueError, "eps must be finite and positive, got 0.0"),
        ({"activation": "gelu"}, ValueError, "activation must be one of 'relu', 'relu6', got 'gelu'"),
    ],
)
def test_layer_refuses(options: dict[str, Any], error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=f"^SeparableConv2d: {text}"):
        cv3gpu.nn.SeparableConv2d(**{"in_channels": 3, "out_channels": 5, "kernel_size": 3, **options})


# ---- errors ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name in REFUSALS if name not in ("list", "no weight", "masked", "mixed")])
def test_errors_are_those_of_numpy(name: str) -> None:
    given, error, text = REFUSALS[name]

    def tensor(x: Any) -> Any:
        return torch.from_numpy(x) if isinstance(x, np.ndarray) else x

    arrays = {k: tensor(v) for k, v in {"x": X, "depthwise": D, "pointwise": P, **given}.items()}
    with pytest.raises(error, match=f"^separable_conv2d: .*{text}"):
        separable_conv2d(**arrays)
    with pytest.raises(error, match=f"^separable_conv2d_vjp: .*{text}"):
        separable_conv2d_vjp(tensor(G), **arrays)
