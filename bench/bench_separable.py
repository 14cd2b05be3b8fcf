"""Depthwise separable convolutions of real networks: one operator, against two convolutions of torch."""

from __future__ import annotations

import itertools
from typing import Any, NamedTuple

import pytest

import cv3gpu

from . import peers
from .entry import Entry, Work, dense_errors

SIZE = {"float16": 2, "bfloat16": 2, "float32": 4, "float64": 8}


class Shape(NamedTuple):
    """A "same" depthwise 3x3 convolution of a square map, and the 1x1 convolution behind it."""

    where: str
    cin: int
    cout: int
    size: int
    dilation: int
    mid_activation: str | None = None

    def flops(self, batch: int) -> int:
        """Two for each multiply-add."""
        return 2 * batch * self.size**2 * self.cin * (9 + self.cout)

    def words(self, batch: int) -> str:
        between = f", {self.mid_activation} between" if self.mid_activation else ""
        return f"3x3 d{self.dilation}, {self.cin}→{self.cout} @{self.size}²{between}, batch {batch} ({self.where})"


SHAPES = {
    "X1": Shape("Xception-65 middle flow", 728, 728, 33, 1),
    "M2": Shape("MobileNetV2 tail", 960, 160, 33, 2, "relu6"),
    "X3": Shape("DeepLabv3+ ASPP", 2048, 256, 33, 12, "relu"),
    "X5/2": Shape("Xception-65 entry flow at half size", 128, 128, 129, 1),
}


def _setup(shape: Shape, batch: int, dtype: str, layout: str, device: str) -> Work:
    torch = pytest.importorskip("torch")
    functional = torch.nn.functional
    generator = torch.Generator().manual_seed(0)
    sizes = {
        "x": (batch, shape.cin, shape.size, shape.size),
        "depthwise": (shape.cin, 1, 3, 3),
        "pointwise": (shape.cout, shape.cin, 1, 1),
        "mid_bias": (shape.cin,),
        "bias": (shape.cout,),
    }
    kind = getattr(torch, dtype)
    drawn = {name: torch.randn(size, generator=generator).to(device, kind) for name, size in sizes.items()}
    mid_bias, bias = drawn.pop("mid_bias"), drawn.pop("bias")
    activate = {None: lambda t: t, "relu": functional.relu, "relu6": functional.relu6}[shape.mid_activation]

    def two(x: Any, depthwise: Any, pointwise: Any, mid_bias: Any = mid_bias, bias: Any = bias) -> Any:
        m = functional.conv2d(x, depthwise, mid_bias, 1, shape.dilation, shape.dilation, shape.cin)
        return functional.conv2d(activate(m), pointwise, bias)

    steps: dict[str, Any] = {"padding": shape.dilation, "dilation": shape.dilation}

    def ours(x: Any, depthwise: Any, pointwise: Any, mid_bias: Any, bias: Any) -> Any:
        words = {"mid_bias": mid_bias, "mid_activation": shape.mid_activation}
        return cv3gpu.separable_conv2d(x, depthwise, pointwise, bias, **steps, **words)

    with torch.no_grad():
        reference = two(*(t.double() for t in (*drawn.values(), mid_bias, bias)))
    given = *peers.formats(torch, *drawn.values())[layout], mid_bias, bias
    searches = device == "cuda"
    tf32 = searches and dtype == "float32"
    found = peers.torch_peers(torch, two, tuple(drawn.values()), searches=searches, tf32=tf32)
    work = Work(
        ours=lambda: ours(*given),
        errors=lambda got: dense_errors(reference, got),
        peers=found,
        limits={name: "tf32" for name in found if name.endswith("TF32")},
    )
    if device == "cpu":
        host = [t.numpy() for t in given]
        x, depthwise, pointwise, *_ = host

        def one_by_one() -> Any:
            words = {"groups": shape.cin, "activation": shape.mid_activation}
            return cv3gpu.conv2d(cv3gpu.conv2d(x, depthwise, host[3], **steps, **words), pointwise, host[4])

        work.peers["ours on NumPy arrays"] = lambda: ours(*host)
        work.peers["two cv3gpu.conv2d on NumPy arrays"] = one_by_one
    return work


def _entry(key: str, batch: int, dtype: str, layout: str, device: str) -> Entry:
    shape = SHAPES[key]
    numbers = batch * shape.size**2 * (shape.cin + shape.cout) + shape.cin * (9 + shape.cout)
    headline = device == "cpu" or (batch == 8 and (dtype, layout) == ("bfloat16", "channels_last"))
    return Entry(
        name=f"separable_conv2d {key} batch {batch} {dtype} {layout} {device}",
        family="separable",
        shape=shape.words(batch),
        device=device,
        dtype=dtype,
        bytes=numbers * SIZE[dtype],
        flops=shape.flops(batch),
        setup=lambda: _setup(shape, batch, dtype, layout, device),
        priority=0 if headline else 2,
    )


ENTRIES = [
    _entry(key, *choice, "cuda")
    for choice in itertools.product((8, 1), ("float32", "bfloat16", "float16"), ("NCHW", "channels_last"))
    for key in SHAPES
] + [_entry(key, 1, "float32", layout, "cpu") for layout in ("NCHW", "channels_last") for key in SHAPES]


@pytest.mark.parametrize("entry", ENTRIES, ids=str)
def bench_separable(entry: Entry, measure: Any) -> None:
    measure(entry)
