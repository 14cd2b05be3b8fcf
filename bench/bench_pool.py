"""Max pooling with indices, unpooling, and their gradients, on the maps of SegNet and RefineNet."""

from __future__ import annotations

import itertools
import math
from typing import Any, NamedTuple

import pytest

from cv3gpu.pool import max_pool2d, max_pool2d_adjoint, max_unpool2d, max_unpool2d_adjoint

from . import peers
from .entry import Entry, Work, dense_errors

SIZE = {"float16": 2, "bfloat16": 2, "float32": 4, "float64": 8}
INDEX = {"int64": 8, "uint8": 1}
OPERATIONS = ("pool", "unpool", "pool backward", "unpool backward")


class Shape(NamedTuple):
    """Channels, size of the maps, and the windows over them."""

    where: str
    channels: int
    height: int
    width: int
    kernel_size: int = 2
    stride: int = 2
    padding: int = 0

    @property
    def pooled(self) -> tuple[int, int]:
        """Height and width of the maxima."""
        rows, columns = (
            (n + 2 * self.padding - self.kernel_size) // self.stride + 1 for n in (self.height, self.width)
        )
        return rows, columns

    def words(self, batch: int) -> str:
        """The shape as tables have it."""
        windows = f"{self.kernel_size}² / {self.stride}"
        return f"{self.channels} ch {self.height}×{self.width}, windows {windows}, batch {batch} ({self.where})"


SHAPES = {
    "S1": Shape("SegNet", 64, 360, 480),
    "S2": Shape("SegNet", 512, 45, 60),
    "R2": Shape("RefineNet", 256, 128, 128, 5, 1, 2),
}


def _setup(shape: Shape, batch: int, dtype: str, layout: str, index: str, operation: str, device: str) -> Work:
    torch = pytest.importorskip("torch")
    functional, size = torch.nn.functional, (shape.height, shape.width)
    steps = shape.kernel_size, shape.stride, shape.padding
    generator = torch.Generator().manual_seed(0)
    source = torch.randn((batch, shape.channels, *size), generator=generator).to(device, getattr(torch, dtype))
    compact = index == "uint8"

    def theirs(x: Any, values: Any, indices: Any) -> Any:
        if operation == "pool":
            return functional.max_pool2d(x, *steps, return_indices=True)[0]
        if operation == "unpool":
            return functional.max_unpool2d(values, indices, *steps, output_size=size)
        if operation == "pool backward":
            backward = torch.ops.aten.max_pool2d_with_indices_backward
            return backward(values, x, *([k, k] for k in steps), [1, 1], False, indices)
        return x.flatten(2).gather(2, indices.flatten(2)).view_as(values)

    def mine(x: Any, values: Any, indices: Any) -> Any:
        if operation == "pool":
            return max_pool2d(x, *steps, compact=compact)[0]
        if operation == "unpool":
            return max_unpool2d(values, indices, *steps, output_size=size)
        if operation == "pool backward":
            return max_pool2d_adjoint(values, indices, size, *steps)
        return max_unpool2d_adjoint(x, indices, *steps)

    x = peers.formats(torch, source)[layout][0]
    values, flat = functional.max_pool2d(source, *steps, return_indices=True)
    indices = max_pool2d(x, *steps, compact=compact)[1]
    given = x, peers.formats(torch, values)[layout][0], indices
    reference = theirs(source.double(), values.double(), flat)
    work = Work(
        ours=lambda: mine(*given),
        errors=lambda got: dense_errors(reference, got),
        peers=peers.torch_peers(torch, theirs, (source, values, flat), searches=False, tf32=False),
    )
    if device == "cpu":
        host = [t.numpy() for t in given]
        work.peers["ours on NumPy arrays"] = lambda: mine(*host)
    return work


def _entry(key: str, batch: int, dtype: str, layout: str, index: str, operation: str, device: str) -> Entry:
    shape = SHAPES[key]
    planes = batch * shape.channels
    pooled, image = planes * math.prod(shape.pooled), planes * shape.height * shape.width
    first = (dtype, layout) in {("float32", "NCHW"), ("bfloat16", "channels_last")} and batch == 8
    return Entry(
        name=f"max {operation} {key} {index} batch {batch} {dtype} {layout} {device}",
        family="pool",
        shape=shape.words(batch),
        device=device,
        dtype=dtype,
        bytes=(pooled + image) * SIZE[dtype] + pooled * INDEX[index],
        flops=pooled * shape.kernel_size**2 if operation == "pool" else 0,
        setup=lambda: _setup(shape, batch, dtype, layout, index, operation, device),
        priority=0 if device == "cpu" or (first and operation in OPERATIONS[:2]) else 2,
    )


ENTRIES = [
    _entry(key, *choice, operation, "cuda")
    for choice in itertools.product((8, 1), ("float32", "bfloat16"), ("NCHW", "channels_last"), ("uint8", "int64"))
    for operation in OPERATIONS
    for key in SHAPES
    if key != "R2" or not operation.startswith("unpool")
] + [
    _entry(key, 1, "float32", "NCHW", index, operation, "cpu")
    for index in ("int64", "uint8")
    for operation in OPERATIONS
    for key in SHAPES
    if key != "R2" or not operation.startswith("unpool")
]


@pytest.mark.parametrize("entry", ENTRIES, ids=str)
def bench_pool(entry: Entry, measure: Any) -> None:
    measure(entry)
