"""Heads that gather context, on their own networks' shapes: DeepLab's atrous pyramid, PSPNet's pyramid of means."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import Any, NamedTuple

import pytest

from cv3gpu.atrous import aspp, aspp_vjp
from cv3gpu.pyramid import cells_of, pyramid_conv2d, pyramid_pool

from . import peers
from .entry import Entry, Work, dense_errors

SIZE = {"float16": 2, "bfloat16": 2, "float32": 4, "float64": 8}
BINS = (1, 2, 3, 6)


class Atrous(NamedTuple):
    """A head of DeepLab: a 1 x 1 branch, 3 x 3 branches at the rates, the pooled branch, the projection."""

    where: str
    channels: int
    out: int
    size: int
    rates: tuple[int, int, int]

    def words(self, batch: int) -> str:
        """The shape as tables have it."""
        rates = "/".join(map(str, self.rates))
        return f"{self.channels}→{self.out} {self.size}×{self.size} r{rates}, batch {batch} ({self.where})"

    def pairs(self) -> int:
        """Pixels and taps that meet, in all branches: what lies in the padding is not computed."""

        def axis(rate: int) -> int:
            return self.size + 2 * max(0, self.size - rate)

        return self.size**2 + sum(axis(rate) ** 2 for rate in self.rates)


class Pyramid(NamedTuple):
    """The last 3 x 3 convolution of PSPNet, of an image and as many channels of enlarged maps."""

    where: str
    channels: int
    out: int
    size: int

    def words(self, batch: int) -> str:
        """The shape as tables have it."""
        return f"{2 * self.channels}→{self.out} {self.size}×{self.size}, batch {batch} ({self.where})"


ATROUS = {
    "D3/D4": Atrous("DeepLabv3-R101 OS8", 2048, 256, 65, (12, 24, 36)),
    "D5": Atrous("DeepLabv3-R101 OS16", 2048, 256, 33, (6, 12, 18)),
    "M3": Atrous("DeepLabv3-MobileNetV3", 960, 256, 33, (12, 24, 36)),
}
PYRAMIDS = {"P1": Pyramid("PSPNet-R50 473", 2048, 512, 60)}
# On a CPU: smaller twins, of about a second or less.
CPU_ATROUS = {
    "D3/D4/32": Atrous("a thirty-second of DeepLabv3-R101 OS8", 256, 64, 65, (12, 24, 36)),
    "D5/16": Atrous("a sixteenth of DeepLabv3-R101 OS16", 512, 64, 33, (6, 12, 18)),
    "M3/4": Atrous("a quarter of DeepLabv3-MobileNetV3", 480, 128, 33, (12, 24, 36)),
}
CPU_PYRAMIDS = {"P1/16": Pyramid("a sixteenth of PSPNet-R50 473", 512, 128, 60)}
HEADLINES = {("float32", "NCHW"), ("bfloat16", "channels_last")}


def _drawn(torch: Any, device: str, dtype: str) -> Any:
    """``draw(shape)``: random tensors whose products keep their size."""
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> Any:
        values = torch.randn(shape, generator=generator)
        scale = 1.0 if shape[2:] not in ((1, 1), (3, 3)) else (shape[1] * shape[2] * shape[3]) ** -0.5
        return (scale * values).to(device, getattr(torch, dtype))

    return draw


def _work(ours: Any, theirs: Any, tensors: tuple[Any, ...], reference: Any, device: str, dtype: str) -> Work:
    """Of our call and torch's, both of an image and constants; peers in both memory orders."""
    torch = pytest.importorskip("torch")
    searches = device == "cuda"
    found = peers.torch_peers(torch, theirs, tensors, searches=searches, tf32=searches and dtype == "float32")
    return Work(
        ours=ours,
        errors=lambda got: dense_errors(reference, got),
        peers=found,
        limits={name: "tf32" for name in found if name.endswith("TF32")},
    )


def _atrous_setup(shape: Atrous, batch: int, dtype: str, layout: str, operation: str, device: str) -> Work:
    torch = pytest.importorskip("torch")
    functional, draw = torch.nn.functional, _drawn(torch, device, dtype)
    c, out, side = shape.channels, shape.out, shape.size
    x, grad = draw(batch, c, side, side), draw(batch, 4 * out, side, side)
    weights = [draw(out, c, 1, 1), *(draw(out, c, 3, 3) for _ in shape.rates)]
    scales, biases = ([draw(out) for _ in range(4)] for _ in range(2))
    pool, last = ((draw(out, k, 1, 1), draw(out), draw(out)) for k in (c, 5 * out))
    rates = (1, *shape.rates)

    def branches(x: Any, kernels: list[Any]) -> list[Any]:
        return [functional.conv2d(x, w, None, 1, d * (w.shape[2] // 2), d) for w, d in zip(kernels, rates, strict=True)]

    def normed(y: Any, scale: Any, bias: Any) -> Any:
        zero = torch.zeros_like(scale)
        return functional.batch_norm(y, zero, zero + 1, scale, bias, eps=0.0).relu()

    def whole(x: Any, *kernels: Any) -> Any:
        of = [t.to(x.dtype) for t in (*scales, *biases, *pool[1:], *last[1:])]
        kernels, pooling, projection = kernels[:4], kernels[4], kernels[5]
        parts = [normed(*p) for p in zip(branches(x, list(kernels)), of[:4], of[4:8], strict=True)]
        mean = normed(functional.conv2d(x.mean((2, 3), keepdim=True), pooling), *of[8:10])
        parts.append(functional.interpolate(mean, x.shape[2:], mode="bilinear"))
        return normed(functional.conv2d(torch.cat(parts, 1), projection), *of[10:12])

    def backward(x: Any, g: Any, *kernels: Any) -> Any:
        with torch.enable_grad():
            leaves = [t.detach().requires_grad_() for t in (x, *kernels)]
            y = torch.cat(branches(leaves[0], leaves[1:]), 1)
            return torch.autograd.grad(y, leaves, g)[0]

    def mine(x: Any, g: Any, kernels: list[Any], scales: list[Any], biases: list[Any], *ends: Any) -> Any:
        if operation == "vjp":
            return aspp_vjp(g, x, kernels, dilations=rates).x
        pooling, projection = ((*e, "relu") for e in ends)
        options: dict[str, Any] = {
            "scales": scales,
            "activation": "relu",
            "image_pooling": pooling,
            "project": projection,
        }
        return aspp(x, kernels, biases, dilations=rates, **options)

    tensors = (x, *weights, pool[0], last[0]) if operation == "head" else (x, grad, *weights)
    theirs = whole if operation == "head" else backward
    with torch.no_grad():
        reference = theirs(*(t.double() for t in tensors))
    given = (*peers.formats(torch, x, grad)[layout], weights, scales, biases, pool, last)
    work = _work(lambda: mine(*given), theirs, tensors, reference, device, dtype)
    if device == "cpu":
        near = [[t.numpy() for t in g] if isinstance(g, list | tuple) else g.numpy() for g in given]
        work.peers["ours on NumPy arrays"] = lambda: mine(*near)
    return work


def _pyramid_setup(shape: Pyramid, batch: int, dtype: str, layout: str, operation: str, device: str) -> Work:
    torch = pytest.importorskip("torch")
    functional, draw = torch.nn.functional, _drawn(torch, device, dtype)
    c, side = shape.channels, shape.size
    x, weight = draw(batch, c, side, side), draw(shape.out, 2 * c, 3, 3)
    maps = [torch.randn((batch, c // 4, b, b)).to(device, getattr(torch, dtype)) for b in BINS]

    def whole(x: Any, weight: Any, *maps: Any) -> Any:
        options = {"mode": "bilinear", "align_corners": True}
        large = [functional.interpolate(m, x.shape[2:], **options) for m in maps]
        return functional.conv2d(torch.cat([x, *large], 1), weight, padding=1)

    def means(x: Any) -> Any:
        return torch.cat([functional.adaptive_avg_pool2d(x, b).flatten(2) for b in BINS], 2)[..., None]

    def mine(x: Any, weight: Any, maps: list[Any]) -> Any:
        return pyramid_pool(x, BINS) if operation == "pool" else pyramid_conv2d(x, maps, weight)

    tensors = (x,) if operation == "pool" else (x, weight, *maps)
    theirs = means if operation == "pool" else whole
    with torch.no_grad():
        reference = theirs(*(t.double() for t in tensors))
    given = *peers.formats(torch, x)[layout], weight, maps
    work = _work(lambda: mine(*given), theirs, tensors, reference, device, dtype)
    if device == "cpu":
        near = given[0].numpy(), weight.numpy(), [m.numpy() for m in maps]
        work.peers["ours on NumPy arrays"] = lambda: mine(*near)
    return work


def _cost(shape: Atrous | Pyramid, batch: int, operation: str) -> tuple[int, int]:
    """Numbers that must be moved, and flops."""
    c, out, pixels = shape.channels, shape.out, batch * shape.size**2
    if isinstance(shape, Atrous):
        kernels, flops = 28 * c * out, 2 * batch * c * out * shape.pairs()
        if operation == "vjp":
            return pixels * (2 * c + 4 * out) + 2 * kernels, 2 * flops
        return pixels * (c + out) + kernels + 5 * out * out, flops + 2 * pixels * 4 * out * out
    if operation == "pool":
        return pixels * c + batch * c * cells_of(BINS), pixels * c
    low_rank = 2 * 9 * batch * out * c // 4 * cells_of(BINS) + 4 * 3 * len(BINS) * pixels * out
    return pixels * (c + out) + 18 * c * out, 2 * 9 * pixels * c * out + low_rank


def _entry(key: str, shape: Any, batch: int, dtype: str, layout: str, operation: str, device: str) -> Entry:
    atrous = isinstance(shape, Atrous)
    numbers, flops = _cost(shape, batch, operation)
    setup = _atrous_setup if atrous else _pyramid_setup
    headline = device == "cpu" or (batch == 8 and (dtype, layout) in HEADLINES)
    return Entry(
        name=f"{'aspp' if atrous else 'pyramid'} {operation} {key} batch {batch} {dtype} {layout} {device}",
        family="heads",
        shape=shape.words(batch),
        device=device,
        dtype=dtype,
        bytes=numbers * SIZE[dtype],
        flops=flops,
        setup=lambda: setup(shape, batch, dtype, layout, operation, device),
        priority=0 if headline else 2,
    )


Choice = tuple[int, str, str]  # batch, dtype, memory order


def _entries(
    atrous: dict[str, Atrous], pyramids: dict[str, Pyramid], choices: Iterable[Choice], device: str
) -> list[Entry]:
    kinds: tuple[tuple[Any, tuple[str, ...]], ...] = ((atrous, ("head", "vjp")), (pyramids, ("conv2d", "pool")))
    return [
        _entry(key, shape, *choice, operation, device)
        for choice in choices
        for shapes, operations in kinds
        for operation in operations
        for key, shape in shapes.items()
    ]


EVERY = itertools.product((8, 1), ("float32", "bfloat16", "float16"), ("NCHW", "channels_last"))
ENTRIES = _entries(ATROUS, PYRAMIDS, EVERY, "cuda") + _entries(
    CPU_ATROUS, CPU_PYRAMIDS, [(1, "float32", "NCHW"), (1, "float32", "channels_last")], "cpu"
)


@pytest.mark.parametrize("entry", ENTRIES, ids=str)
def bench_heads(entry: Entry, measure: Any) -> None:
    measure(entry)
