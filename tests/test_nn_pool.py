"""The torch operators and layers of pooling and of enlarged logits: registration, gradients, tracing, and agreement."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import library  # noqa: E402
from torch.autograd import gradcheck, gradgradcheck  # noqa: E402
from torch.nn import functional  # noqa: E402

import cv3gpu.nn  # noqa: E402
from cv3gpu.pool import max_pool2d, max_pool2d_adjoint, max_unpool2d, max_unpool2d_adjoint  # noqa: E402
from cv3gpu.upsample import upsample_argmax, upsample_cross_entropy, upsample_cross_entropy_vjp  # noqa: E402
from tests.conftest import need_torch_cuda  # noqa: E402

LAYOUTS = ["contiguous", "channels_last", "strided"]
WINDOWS: dict[str, dict[str, Any]] = {
    "pairs": {"kernel_size": 2},
    "overlap": {"kernel_size": 3, "stride": 2, "padding": 1},
    "pairs of numbers": {"kernel_size": (3, 2), "stride": (2, 1), "padding": (1, 0), "dilation": (1, 2)},
    "ceil": {"kernel_size": 2, "ceil_mode": True},
}

pytestmark = pytest.mark.usefixtures("one_thread", "fresh_compiler")


def numbers(shape: tuple[int, ...], device: str, dtype: Any = torch.float64, layout: str = "contiguous") -> Any:
    """A leaf of different numbers, further apart than a gradcheck moves them."""
    rng = np.random.default_rng([len(shape), *shape])
    values = rng.permutation(int(np.prod(shape))).reshape(shape) / np.prod(shape)
    x = torch.tensor(values, device=device).to(dtype)
    if layout == "channels_last":
        x = x.contiguous(memory_format=torch.channels_last)
    elif layout == "strided":
        x = x.repeat_interleave(2, -1)[..., ::2]
    return x.requires_grad_()


def classes(shape: tuple[int, ...], n: int, device: str) -> Any:
    """A target with some pixels ignored."""
    target = torch.from_numpy(np.random.default_rng(3).integers(-1, n, shape)).to(device)
    return torch.where(target < 0, -100, target)


def places(x: Any, compact: bool, options: dict[str, Any]) -> tuple[Any, Any]:
    values, indices = max_pool2d(x.detach(), **options, compact=compact)
    return values, indices


def geometry(options: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in options.items() if k != "ceil_mode"}


# ---- registration ---------------------------------------------------------------------------------------


def pairs_of(options: dict[str, Any]) -> list[Any]:
    """Kernel size, stride, padding and dilation as the schema takes them."""

    def pair(value: Any) -> list[int]:
        return [value, value] if isinstance(value, int) else list(value)

    size = options["kernel_size"]
    return [pair(size), *(pair(options.get(k, d)) for k, d in (("stride", size), ("padding", 0), ("dilation", 1)))]


@pytest.mark.parametrize("compact", [False, True])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", list(WINDOWS))
def test_opcheck_pool(name: str, layout: str, compact: bool, device: str) -> None:
    options, ops = WINDOWS[name], torch.ops.cv3gpu
    x, window = numbers((2, 3, 7, 8), device, torch.float32, layout), pairs_of(options)
    library.opcheck(ops.max_pool2d.default, (x, *window, options.get("ceil_mode", False), compact))
    values, indices = places(x, compact, options)
    g = numbers(tuple(values.shape), device, torch.float32, layout)
    library.opcheck(ops.max_pool2d_adjoint.default, (g, indices, [7, 8], *window))
    library.opcheck(ops.max_unpool2d_adjoint.default, (x, indices, *window))
    if name in ("pairs", "ceil"):
        library.opcheck(ops.max_unpool2d.default, (g, indices, *window[:3], [7, 8]))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_opcheck_heads(reduction: str, layout: str, device: str) -> None:
    ops = torch.ops.cv3gpu
    x, target = numbers((2, 3, 4, 5), device, torch.float32, layout), classes((2, 9, 7), 3, device)
    library.opcheck(ops.upsample_argmax.default, (x, [9, 7], False, "uint8"))
    weight = numbers((3,), device, torch.float32).detach()
    args = (x, target, -100, True, weight, 0.1, reduction)
    library.opcheck(ops.upsample_cross_entropy.default, args)
    g = torch.ones((2, 9, 7) if reduction == "none" else (), device=device)
    library.opcheck(ops.upsample_cross_entropy_vjp.default, (g, x.detach(), *args[1:]))


# ---- derivatives ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("compact", [False, True])
@pytest.mark.parametrize("name", list(WINDOWS))
def test_pool_derivatives(name: str, compact: bool, device: str) -> None:
    options, x = WINDOWS[name], numbers((1, 2, 5, 6), device)

    def run(x: Any) -> Any:
        return max_pool2d(x, **options, compact=compact)[0]

    assert gradcheck(run, (x,))
    assert gradgradcheck(run, (x,))
    _, indices = places(x, compact, options)
    g = numbers(tuple(indices.shape), device)
    for function, given in (
        (lambda g: max_pool2d_adjoint(g, indices, (5, 6), **geometry(options)), g),
        (lambda x: max_unpool2d_adjoint(x, indices, **geometry(options)), x),
    ):
        assert gradcheck(function, (given,))
        assert gradgradcheck(function, (given,))


@pytest.mark.parametrize("compact", [False, True])
def test_unpool_derivatives(compact: bool, device: str) -> None:
    x = numbers((1, 2, 5, 6), device)
    _, indices = places(x, compact, {"kernel_size": 2})
    values = numbers(tuple(indices.shape), device)

    def run(values: Any) -> Any:
        return max_unpool2d(values, indices, 2, output_size=(5, 6))

    assert gradcheck(run, (values,))
    assert gradgradcheck(run, (values,))


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("align_corners", [False, True])
def test_cross_entropy_derivatives(align_corners: bool, smoothing: float, reduction: str, device: str) -> None:
    x, target = numbers((2, 3, 3, 4), device), classes((2, 7, 5), 3, device)
    options = {"align_corners": align_corners, "label_smoothing": smoothing, "reduction": reduction}
    weight = numbers((3,), device).detach() + 0.5

    def run(x: Any) -> Any:
        return upsample_cross_entropy(x, target, weight=weight, **options)

    assert gradcheck(run, (x,))
    (gradient,) = torch.autograd.grad(run(x).sum(), x, create_graph=True)
    with pytest.raises(NotImplementedError, match=r"^upsample_cross_entropy_vjp: no gradient is implemented"):
        gradient.sum().backward()


def test_weights_have_no_gradient(device: str) -> None:
    x, weight = numbers((1, 3, 3, 4), device), numbers((3,), device)
    with pytest.raises(NotImplementedError, match=r"^upsample_cross_entropy: .* \(its weights have no gradient\)"):
        upsample_cross_entropy(x, classes((1, 5, 5), 3, device), weight=weight).backward()


def test_labels_have_no_gradient(device: str) -> None:
    assert not upsample_argmax(numbers((1, 3, 4, 5), device), (9, 9)).requires_grad
    values, indices = max_pool2d(numbers((1, 3, 4, 5), device), 2)
    assert values.requires_grad and not indices.requires_grad


def test_kernels_below_the_dispatcher(host_backend: Any) -> None:
    x = numbers((1, 4, 6, 8), "cpu", torch.float32)
    values, indices = max_pool2d(x, 2, compact=True)
    back = max_unpool2d(values, indices, 2)
    want = functional.max_unpool2d(*functional.max_pool2d(x, 2, return_indices=True), 2)
    assert torch.equal(back, want)
    assert torch.equal(*(torch.autograd.grad(y.square().sum(), x)[0] for y in (back, want)))
    target = classes((1, 11, 13), 4, "cpu")
    loss, wanted = upsample_cross_entropy(x, target), torch_loss(x, target)
    torch.testing.assert_close(loss, wanted)
    torch.testing.assert_close(*(torch.autograd.grad(y, x)[0] for y in (loss, wanted)))


# ---- autocast, transforms, tracing ------------------------------------------------------------------------


def torch_loss(x: Any, target: Any, **options: Any) -> Any:
    """Torch's own."""
    z = functional.interpolate(x, target.shape[1:], mode="bilinear")
    return functional.cross_entropy(z, target, **options)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast(dtype: Any, device: str) -> None:
    x, target = numbers((1, 3, 4, 4), device, dtype), classes((1, 8, 8), 3, device)
    with torch.autocast(device, dtype):
        assert max_pool2d(x, 2)[0].dtype == dtype
        loss = upsample_cross_entropy(x, target, weight=torch.ones(3, device=device, dtype=dtype))
        assert loss.dtype == torch.float32
    loss.backward()
    assert x.grad.dtype == dtype
    torch.testing.assert_close(loss, torch_loss(x.float(), target))


def test_vmap_of_pools(device: str) -> None:
    x = numbers((2, 3, 2, 6, 6), device).detach()

    def run(x: Any) -> Any:
        values, indices = max_pool2d(x, 2)
        return max_unpool2d(2 * values, indices, 2)

    derivative = torch.func.grad(lambda x: run(x).square().sum())
    for function in (run, derivative):
        want = torch.stack([function(x[:, i]) for i in range(3)])
        torch.testing.assert_close(torch.vmap(function, 1)(x), want)


@pytest.mark.parametrize("dims", [(0, 0), (1, None), (None, 0)])
def test_vmap_of_heads(dims: tuple[int | None, ...], device: str) -> None:
    x, target = numbers((3, 3, 3, 4, 5), device).detach(), classes((3, 3, 7, 8), 3, device)
    args = [t[0] if d is None else t for t, d in zip((x, target), dims, strict=True)]
    rows = [[t if d is None else t.select(d, i) for t, d in zip(args, dims, strict=True)] for i in range(3)]

    def loss(x: Any, target: Any) -> Any:
        return upsample_cross_entropy(x, target, reduction="sum")

    for function in (loss, torch.func.grad(loss)):
        want = torch.stack([function(*row) for row in rows])
        torch.testing.assert_close(torch.vmap(function, dims)(*args), want)
    labels = torch.vmap(lambda x: upsample_argmax(x, (7, 8)), 1)(x)
    assert torch.equal(labels, torch.stack([upsample_argmax(x[:, i], (7, 8)) for i in range(3)]))


def training_step(x: Any, target: Any) -> Any:
    """SegNet's way down and up, and a loss at another size."""
    values, indices = max_pool2d(x, 2, compact=True)
    y = max_unpool2d(values.exp(), indices, 2, output_size=x.shape[2:])
    return upsample_cross_entropy(y, target, label_smoothing=0.1) + upsample_argmax(y, (3, 3)).sum()


@pytest.mark.parametrize("dynamic", [None, True])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_compile(layout: str, dynamic: bool | None, device: str) -> None:
    compiled = torch.compile(training_step, fullgraph=True, backend="aot_eager", dynamic=dynamic)
    for shape in ((2, 3, 6, 5), (3, 3, 9, 8)) if dynamic else ((2, 3, 6, 5),):
        x, target = numbers(shape, device, layout=layout), classes((shape[0], 13, 11), 3, device)
        got, want = compiled(x, target), training_step(x, target)
        torch.testing.assert_close(got, want)
        torch.testing.assert_close(torch.autograd.grad(got, x)[0], torch.autograd.grad(want, x)[0])


def test_a_backward_keeps_one_byte_a_window(device: str) -> None:
    kept: list[Any] = []

    def pack(x: Any) -> Any:
        kept.append(x)
        return x

    x = numbers((1, 4, 8, 8), device)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        cv3gpu.nn.MaxPool2d(2)(x)
    assert [(t.dtype, t.numel()) for t in kept] == [(torch.uint8, 64)]


# ---- layers ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize("name", list(WINDOWS))
def test_layers_are_torchs(name: str, layout: str, device: str) -> None:
    options = WINDOWS[name]
    ours = cv3gpu.nn.MaxPool2d(**options, return_indices=True)
    theirs = torch.nn.MaxPool2d(**options, return_indices=True)
    assert isinstance(ours, torch.nn.MaxPool2d) and repr(ours) == repr(theirs)
    x = numbers((2, 3, 7, 8), device, layout=layout)
    (values, indices), (want, want_indices) = ours(x), theirs(x)
    assert torch.equal(values, want) and torch.equal(indices, want_indices)
    assert torch.equal(cv3gpu.nn.MaxPool2d(**options)(x), want)
    assert torch.equal(ours(x[0])[1], want_indices[0]) and torch.equal(cv3gpu.nn.MaxPool2d(**options)(x[0]), want[0])
    assert torch.equal(*(torch.autograd.grad(y.square().sum(), x)[0] for y in (values, want)))
    if name in ("pairs", "ceil"):
        compact = cv3gpu.nn.MaxPool2d(**options, return_indices=True, compact=True)
        unpool, wanted = cv3gpu.nn.MaxUnpool2d(2), torch.nn.MaxUnpool2d(2)
        assert isinstance(unpool, torch.nn.MaxUnpool2d) and repr(unpool) == repr(wanted)
        back = wanted(want, want_indices, output_size=x.shape)
        for found in (ours, compact):
            assert torch.equal(unpool(*found(x), output_size=x.shape), back)
            assert torch.equal(unpool(*found(x[0]), output_size=x.shape[2:]), back[0])
    with pytest.raises(TypeError, match=r"^MaxPool2d: compact must be True or False, got 1"):
        cv3gpu.nn.MaxPool2d(2, compact=1)


# ---- errors ---------------------------------------------------------------------------------------------

X, T = np.zeros((1, 3, 4, 6)), np.zeros((1, 5, 5), np.int64)
POOLED, INDEX = np.zeros((1, 3, 2, 3)), np.zeros((1, 3, 2, 3), np.int64)

BAD: dict[str, tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]] = {
    "pool 3-D": (max_pool2d, (X[0], 2), {}),
    "pool of integers": (max_pool2d, (X.astype(int), 2), {}),
    "kernel of a float": (max_pool2d, (X, 2.0), {}),
    "stride of zero": (max_pool2d, (X, 2, 0), {}),
    "padding": (max_pool2d, (X, 2), {"padding": 2}),
    "ceil_mode": (max_pool2d, (X, 2), {"ceil_mode": 1}),
    "compact": (max_pool2d, (X, 2), {"compact": "yes"}),
    "too small": (max_pool2d, (X, 7), {}),
    "adjoint's size": (max_pool2d_adjoint, (POOLED, INDEX, (9, 9), 2), {}),
    "adjoint's size is a float": (max_pool2d_adjoint, (POOLED, INDEX, 9.5, 2), {}),
    "unpool's indices": (max_unpool2d, (POOLED, INDEX[..., :1], 2), {}),
    "unpool's dtype": (max_unpool2d, (POOLED, INDEX.astype(np.int32), 2), {}),
    "unpool's size": (max_unpool2d, (POOLED, INDEX, 2), {"output_size": (8, 8)}),
    "unpool's places": (max_unpool2d, (POOLED, INDEX + 100, 2), {}),
    "gather's batch": (max_unpool2d_adjoint, (X, INDEX[:, :1], 2), {}),
    "labels of zero": (upsample_argmax, (X, 0), {}),
    "labels' dtype": (upsample_argmax, (X, 5), {"dtype": "int8"}),
    "labels' corners": (upsample_argmax, (X, 5), {"align_corners": 1}),
    "labels' size": (upsample_argmax, (X, "5"), {}),
    "target's dtype": (upsample_cross_entropy, (X, T.astype(float)), {}),
    "target's batch": (upsample_cross_entropy, (X, np.zeros((2, 5, 5), int)), {}),
    "target's class": (upsample_cross_entropy, (X, T + 3), {}),
    "reduction": (upsample_cross_entropy, (X, T), {"reduction": "max"}),
    "ignore_index": (upsample_cross_entropy, (X, T), {"ignore_index": 1.5}),
    "smoothing": (upsample_cross_entropy, (X, T), {"label_smoothing": 2.0}),
    "smoothing in words": (upsample_cross_entropy, (X, T), {"label_smoothing": "much"}),
    "weight": (upsample_cross_entropy, (X, T), {"weight": np.ones(2)}),
    "gradient": (upsample_cross_entropy_vjp, (np.ones(2), X, T), {}),
}


@pytest.mark.parametrize("name", list(BAD))
def test_errors_are_those_of_numpy(name: str) -> None:
    function, args, options = BAD[name]
    with pytest.raises((TypeError, ValueError)) as wanted:
        function(*args, **options)

    def tensor(x: Any) -> Any:
        return torch.from_numpy(x) if isinstance(x, np.ndarray) else x

    with pytest.raises((TypeError, ValueError)) as got:
        function(*map(tensor, args), **{k: tensor(v) for k, v in options.items()})
    assert (got.type, str(got.value)) == (wanted.type, str(wanted.value))


def test_cuda_graph() -> None:
    need_torch_cuda()
    x, target = numbers((2, 8, 16, 16), "cuda", torch.float32), classes((2, 61, 67), 8, "cuda")

    def step() -> tuple[Any, ...]:
        loss = training_step(x, target)
        return loss, *torch.autograd.grad(loss, x)

    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = step()
    with torch.no_grad():
        x.mul_(0.5)
    graph.replay()
    for a, b in zip(captured, step(), strict=True):
        torch.testing.assert_close(a, b)
