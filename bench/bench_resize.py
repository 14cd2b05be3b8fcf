"""Bilinear resizing of real feature maps and logits, and its adjoint."""

from __future__ import annotations

import itertools
from typing import Any, NamedTuple

import pytest

import cv3gpu

from . import peers
from .entry import Entry, Work, dense_errors

SIZE = {"float16": 2, "bfloat16": 2, "float32": 4, "float64": 8}


class Shape(NamedTuple):
    """Channels, and the sides of square maps before and after."""

    where: str
    channels: int
    small: int
    large: int
    align_corners: bool = False

    def words(self, batch: int) -> str:
        aligned = ", corners aligned" if self.align_corners else ""
        return f"{self.channels} ch {self.small}²→{self.large}²{aligned}, batch {batch} ({self.where})"


SHAPES = {
    "X6": Shape("DeepLabv3+ decoder", 256, 33, 129),
    "D8": Shape("DeepLabv3 logits", 21, 65, 513),
    "P2": Shape("PSPNet pyramid", 512, 6, 60, True),
    "R1": Shape("RefineNet", 256, 64, 128),
    "U4": Shape("U-Net", 128, 256, 512, True),
}


def _setup(shape: Shape, batch: int, dtype: str, layout: str, operation: str, device: str) -> Work:
    torch = pytest.importorskip("torch")
    small, large = (shape.small, shape.small), (shape.large, shape.large)
    whole = (batch, shape.channels)
    generator = torch.Generator().manual_seed(0)
    source = torch.randn((*whole, *(small if operation == "forward" else large)), generator=generator)
    x = source.to(device, getattr(torch, dtype))
    options: dict[str, Any] = {"mode": "bilinear", "align_corners": shape.align_corners}
    if operation == "forward":

        def call(t: Any) -> Any:
            return torch.nn.functional.interpolate(t, size=large, **options)

        def ours(t: Any) -> Any:
            return cv3gpu.interpolate(t, size=large, **options)
    else:

        def call(t: Any) -> Any:
            backward = torch.ops.aten.upsample_bilinear2d_backward
            return backward(t, list(large), [*whole, *small], shape.align_corners, None, None)

        def ours(t: Any) -> Any:
            return cv3gpu.interpolate_adjoint(t, small, **options)

    reference = call(x.double())
    given = peers.formats(torch, x)[layout][0]
    work = Work(
        ours=lambda: ours(given),
        errors=lambda got: dense_errors(reference, got),
        peers=peers.torch_peers(torch, call, (x,), searches=False, tf32=False),
    )
    plain = dtype == "float32" and layout == "NCHW"
    comparable = operation == "forward" and plain and not shape.align_corners
    if device == "cpu":
        work.peers["ours on NumPy arrays"] = lambda: ours(x.numpy())
        if comparable:
            work.peers["scipy.ndimage.zoom"] = peers.zoom("scipy.ndimage", x.numpy(), large)
            work.peers["skimage resize"] = peers.skimage_resize(x.numpy(), large)
    elif comparable and batch == 1:
        cupy = pytest.importorskip("cupy")
        work.peers["cupyx ndimage.zoom"] = peers.zoom("cupyx.scipy.ndimage", cupy.asarray(x), large)
    if device == "cuda" and dtype == "float32" and operation == "forward":
        near = x.cpu()
        name = f"torch CPU, {torch.get_num_threads()} threads"
        work.host_peers[name] = peers.torch_way(torch, lambda: call(near))
    return work


def _entry(key: str, batch: int, dtype: str, layout: str, operation: str, device: str) -> Entry:
    shape = SHAPES[key]
    outputs = batch * shape.channels * shape.large**2
    headline = (dtype, layout) in {("float32", "NCHW"), ("bfloat16", "channels_last")}
    priority = (0 if operation == "forward" else 1) if device == "cpu" or (headline and batch == 8) else 2
    return Entry(
        name=f"interpolate {operation} {key} batch {batch} {dtype} {layout} {device}",
        family="resize",
        shape=shape.words(batch),
        device=device,
        dtype=dtype,
        bytes=(outputs + batch * shape.channels * shape.small**2) * SIZE[dtype],
        flops=8 * outputs,
        setup=lambda: _setup(shape, batch, dtype, layout, operation, device),
        priority=priority,
    )


ENTRIES = [
    _entry(key, *choice, "cuda")
    for choice in itertools.product(
        (8, 1), ("float32", "bfloat16", "float16"), ("NCHW", "channels_last"), ("forward", "adjoint")
    )
    for key in SHAPES
] + [_entry(key, 1, "float32", "NCHW", operation, "cpu") for operation in ("forward", "adjoint") for key in SHAPES]


@pytest.mark.parametrize("entry", ENTRIES, ids=str)
def bench_resize(entry: Entry, measure: Any) -> None:
    measure(entry)
