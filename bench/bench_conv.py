"""Convolutions of real segmentation networks: dense, dilated, 1x1 and depthwise, and both adjoints.

Operation counts include the taps that lie in the padding, as every library counts them.
"""

from __future__ import annotations

import itertools
from typing import Any, NamedTuple

import pytest

import cv3gpu

from . import peers
from .entry import Entry, Work, dense_errors

SIZE = {"float16": 2, "bfloat16": 2, "float32": 4, "float64": 8}


class Shape(NamedTuple):
    """A "same" convolution of a square map; ``groups`` = channels where it is depthwise."""

    where: str
    cin: int
    cout: int
    size: int
    kernel: int
    dilation: int
    groups: int = 1

    @property
    def padding(self) -> int:
        return self.dilation * (self.kernel // 2)

    @property
    def arguments(self) -> dict[str, int]:
        return {"stride": 1, "padding": self.padding, "dilation": self.dilation, "groups": self.groups}

    def flops(self, batch: int) -> int:
        """Two for each multiply-add."""
        return 2 * batch * self.size**2 * self.cout * self.cin // self.groups * self.kernel**2

    def words(self, batch: int) -> str:
        kind = "depthwise " if self.groups > 1 else ""
        return (
            f"{kind}{self.kernel}x{self.kernel} d{self.dilation}, {self.cin}→{self.cout} @{self.size}², "
            f"batch {batch} ({self.where})"
        )


SHAPES = {
    "D1": Shape("DeepLabv3-R101 layer3", 256, 256, 65, 3, 2),
    "D2": Shape("DeepLabv3-R101 layer4", 512, 512, 65, 3, 4),
    "D3": Shape("DeepLabv3-R101 ASPP", 2048, 256, 65, 3, 12),
    "D4": Shape("DeepLabv3-R101 ASPP", 2048, 256, 65, 3, 36),
    "D5": Shape("DeepLabv3-R101 OS16 ASPP", 2048, 256, 33, 3, 6),
    "M3": Shape("DeepLabv3-MobileNetV3 ASPP", 960, 256, 33, 3, 24),
    "D6": Shape("DeepLabv3-R101 layer3", 1024, 256, 65, 1, 1),
    "X7": Shape("DeepLabv3+ decoder", 304, 256, 129, 3, 1),
    "M1": Shape("MobileNetV3", 960, 960, 33, 5, 2, 960),
    "M2": Shape("MobileNetV2", 960, 960, 33, 3, 2, 960),
    "X1": Shape("Xception-65 middle flow", 728, 728, 33, 3, 1, 728),
    "X3": Shape("DeepLabv3+ ASPP", 2048, 2048, 33, 3, 12, 2048),
    "X5": Shape("Xception-65 entry flow", 128, 128, 257, 3, 1, 128),
}
# On a CPU: what takes about a second or less, and smaller twins of the rest.
CPU_SHAPES = {name: SHAPES[name] for name in ("D1", "D6", "M1", "M2", "X1", "X3")} | {
    "D2/8": Shape("an eighth of DeepLabv3-R101 layer4", 256, 128, 65, 3, 4),
    "D4/16": Shape("a sixteenth of DeepLabv3-R101 ASPP", 512, 64, 65, 3, 36),
    "D5/4": Shape("a quarter of DeepLabv3-R101 OS16 ASPP", 1024, 128, 33, 3, 6),
    "M3/2": Shape("half of DeepLabv3-MobileNetV3 ASPP", 480, 256, 33, 3, 24),
    "X7/16": Shape("a sixteenth of DeepLabv3+ decoder", 76, 64, 129, 3, 1),
    "X5/4": Shape("a quarter of Xception-65 entry flow", 32, 32, 257, 3, 1, 32),
}
HOST_FLOPS = 50e9  # GPU entries up to this size are timed on the CPU as well
HEADLINES = {("float32", "NCHW"), ("bfloat16", "channels_last")}
ARGUMENTS = {"forward": ("x", "weight"), "adjoint_input": ("grad", "weight"), "adjoint_weight": ("grad", "x")}
OPERATIONS = tuple(ARGUMENTS)


def _torch_call(torch: Any, shape: Shape, operation: str) -> Any:
    """The operation on (first, second) tensors: (x, weight), (grad, weight) or (grad, x)."""
    s, p, d, g = (shape.arguments[name] for name in ("stride", "padding", "dilation", "groups"))
    if operation == "forward":
        return lambda x, weight: torch.nn.functional.conv2d(x, weight, None, s, p, d, g)
    backward = torch.ops.aten.convolution_backward
    geometry = (None, [s, s], [p, p], [d, d], False, [0, 0], g)

    def input_gradient(grad: Any, weight: Any) -> Any:
        like = grad.new_empty((1,)).expand(grad.shape[0], shape.cin, shape.size, shape.size)
        return backward(grad, like, weight, *geometry, [True, False, False])[0]

    def weight_gradient(grad: Any, x: Any) -> Any:
        like = grad.new_empty((1,)).expand(shape.cout, shape.cin // g, shape.kernel, shape.kernel)
        return backward(grad, x, like, *geometry, [False, True, False])[1]

    return input_gradient if operation == "adjoint_input" else weight_gradient


def _ours(shape: Shape, operation: str, first: Any, second: Any) -> Any:
    if operation == "forward":
        return lambda: cv3gpu.conv2d(first, second, None, **shape.arguments)
    if operation == "adjoint_input":
        side = shape.size
        return lambda: cv3gpu.conv2d_adjoint_input(first, second, (side, side), **shape.arguments)
    k = shape.kernel
    return lambda: cv3gpu.conv2d_adjoint_weight(first, second, (k, k), **shape.arguments)


def _setup(shape: Shape, batch: int, dtype: str, layout: str, operation: str, device: str) -> Work:
    torch = pytest.importorskip("torch")
    generator = torch.Generator().manual_seed(0)
    full = (batch, shape.cin, shape.size, shape.size)
    kernel = (shape.cout, shape.cin // shape.groups, shape.kernel, shape.kernel)
    sizes = {"x": full, "grad": (batch, shape.cout, *full[2:]), "weight": kernel}
    first, second = (
        torch.randn(sizes[name], generator=generator).to(device, getattr(torch, dtype))
        for name in ARGUMENTS[operation]
    )
    call = _torch_call(torch, shape, operation)
    with torch.no_grad():
        reference = call(first.double(), second.double())
    depthwise = shape.groups > 1
    searches = device == "cuda" and not depthwise
    tf32 = searches and dtype == "float32"
    found = peers.torch_peers(torch, call, (first, second), searches=searches, tf32=tf32)
    work = Work(
        ours=_ours(shape, operation, *peers.formats(torch, first, second)[layout]),
        errors=lambda got: dense_errors(reference, got),
        peers=found,
        limits={name: "tf32" for name in found if name.endswith("TF32")},
    )
    if device == "cuda" and dtype == "float32" and operation == "forward" and shape.flops(batch) < HOST_FLOPS:
        near = first.cpu(), second.cpu()
        name = f"torch CPU, {torch.get_num_threads()} threads"
        work.host_peers[name] = peers.torch_way(torch, lambda: call(*near))
    if device == "cpu":
        arrays = first.numpy(), second.numpy()
        work.peers["ours on NumPy arrays"] = _ours(shape, operation, *arrays)
    return work


def _entry(key: str, shape: Shape, batch: int, dtype: str, layout: str, operation: str, device: str) -> Entry:
    pixels = batch * shape.size**2
    numbers = pixels * (shape.cin + shape.cout) + shape.cout * shape.cin // shape.groups * shape.kernel**2
    headline = device == "cpu" or (batch == 8 and (dtype, layout) in HEADLINES)
    adjoint = operation != "forward"
    priority = int(adjoint) if headline else 2 + int(adjoint)
    return Entry(
        name=f"conv2d {operation} {key} batch {batch} {dtype} {layout} {device}",
        family="conv",
        shape=shape.words(batch),
        device=device,
        dtype=dtype,
        bytes=numbers * SIZE[dtype],
        flops=shape.flops(batch),
        setup=lambda: _setup(shape, batch, dtype, layout, operation, device),
        priority=priority,
    )


DTYPES, LAYOUTS = ("float32", "bfloat16", "float16"), ("NCHW", "channels_last")
ENTRIES = [
    _entry(key, SHAPES[key], *choice, "cuda")
    for choice in itertools.product((8, 1), DTYPES, LAYOUTS, OPERATIONS)
    for key in SHAPES
] + [
    _entry(key, shape, 1, "float32", "NCHW", operation, "cpu")
    for operation in OPERATIONS
    for key, shape in CPU_SHAPES.items()
]


@pytest.mark.parametrize("entry", ENTRIES, ids=str)
def bench_conv(entry: Entry, measure: Any) -> None:
    measure(entry)
