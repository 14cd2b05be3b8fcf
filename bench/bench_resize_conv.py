"""Resize-convolutions of decoders, and their backward: against torch's interpolate and conv2d one after the other.

Operation counts are those of the convolution of the enlarged image; bytes are those of x, weight and result.
"""

from __future__ import annotations

import functools
import itertools
import subprocess
import sys
from typing import Any, NamedTuple

import pytest

import cv3gpu

from . import peers
from .entry import Entry, Work, dense_errors

SIZE = {"float16": 2, "bfloat16": 2, "float32": 4, "float64": 8}
OPERATIONS = ("forward", "forward and backward")


class Shape(NamedTuple):
    """A 3 x 3 convolution, "same", of a square map that is enlarged."""

    where: str
    cin: int
    cout: int
    small: int
    large: int
    mode: str
    align_corners: bool = False

    @property
    def arguments(self) -> dict[str, Any]:
        """What resize_conv2d takes beyond arrays."""
        return {"size": (self.large, self.large), "mode": self.mode, "align_corners": self.align_corners}

    def words(self, batch: int) -> str:
        """The shape as tables have it."""
        mode = f"{self.mode} align_corners" if self.align_corners else self.mode
        return f"{mode} {self.small}²→{self.large}², 3x3 {self.cin}→{self.cout}, batch {batch} ({self.where})"


SHAPES = {
    "nearest x2": Shape("image generator", 128, 64, 64, 128, "nearest"),
    "bilinear x4": Shape("DeepLabv3+ decoder, without the skip", 256, 256, 33, 129, "bilinear", True),
    "U4": Shape("U-Net bilinear", 128, 64, 256, 512, "bilinear"),
    "33 to 129": Shape("DeepLabv3+ decoder, half-pixel centres", 256, 256, 33, 129, "bilinear"),
}
CPU_SHAPES = {
    "nearest x2": SHAPES["nearest x2"],
    "bilinear x4/4": Shape("a quarter of DeepLabv3+ decoder", 128, 128, 33, 129, "bilinear", True),
    "U4/16": Shape("a sixteenth of U-Net bilinear", 64, 32, 128, 256, "bilinear"),
}

# How far a call takes the memory of a fresh process beyond what it had; the call went once before, on a small input.
_MEMORY = """
import sys, torch, cv3gpu
whose, mode, corners, cin, cout, small, large, batch = *sys.argv[1:3], *map(int, sys.argv[3:])
def step(x, weight, size):
    if whose == "ours":
        return cv3gpu.resize_conv2d(x, weight, size=size, mode=mode, align_corners=bool(corners))
    options = {} if mode == "nearest" else {"align_corners": bool(corners)}
    large = torch.nn.functional.interpolate(x, size, mode=mode, **options)
    return torch.nn.functional.conv2d(large, weight, padding="same")
x, weight = torch.randn(batch, cin, small, small), torch.randn(cout, cin, 3, 3)
with torch.no_grad():
    step(x[:, :, :3, :3], weight, (3 * large // small,) * 2)
    def memory(field):
        with open("/proc/self/status") as status:
            return 1024 * next(int(line.split()[1]) for line in status if line.startswith(field))
    with open("/proc/self/clear_refs", "w") as control:
        control.write("5")  # the peak starts anew
    before = memory("VmRSS")
    step(x, weight, (large, large))
    print(memory("VmHWM") - before)
"""


def peak_memory(whose: str, shape: Shape, batch: int) -> float:
    """Bytes that a forward takes at its peak on the CPU, its result with it; ``whose`` is "ours" or "torch"."""
    numbers = int(shape.align_corners), shape.cin, shape.cout, shape.small, shape.large, batch
    command = [sys.executable, "-c", _MEMORY, whose, shape.mode, *map(str, numbers)]
    return float(subprocess.check_output(command, cwd=peers.ROOT, text=True))


def _theirs(torch: Any, shape: Shape, x: Any, weight: Any) -> Any:
    corners = {} if shape.mode == "nearest" else {"align_corners": shape.align_corners}
    large = torch.nn.functional.interpolate(x, (shape.large, shape.large), mode=shape.mode, **corners)
    return torch.nn.functional.conv2d(large, weight, padding=1)


def _with_gradients(torch: Any, call: Any, grad: Any, x: Any, weight: Any) -> Any:
    """The two gradients in one vector."""
    with torch.enable_grad():
        leaves = x.detach().requires_grad_(), weight.detach().requires_grad_()
        found = torch.autograd.grad(call(*leaves), leaves, grad)
    return torch.cat([t.reshape(-1) for t in found])


def _setup(shape: Shape, batch: int, dtype: str, layout: str, operation: str, device: str) -> Work:
    torch = pytest.importorskip("torch")
    generator = torch.Generator().manual_seed(0)
    sizes = (
        (batch, shape.cin, shape.small, shape.small),
        (shape.cout, shape.cin, 3, 3),
        (batch, shape.cout, shape.large, shape.large),
    )
    x, weight, grad = (torch.randn(s, generator=generator).to(device, getattr(torch, dtype)) for s in sizes)
    theirs = functools.partial(_theirs, torch, shape)

    def mine(x: Any, weight: Any) -> Any:
        return cv3gpu.resize_conv2d(x, weight, **shape.arguments)

    given = peers.formats(torch, x, weight, grad)[layout]
    if operation == "forward":
        with torch.no_grad():
            reference = theirs(x.double(), weight.double())
        work = Work(
            ours=lambda: mine(*given[:2]),
            errors=lambda got: dense_errors(reference, torch.as_tensor(got)),
            peers=peers.torch_peers(torch, theirs, (x, weight), searches=device == "cuda", tf32=dtype == "float32"),
        )
        if device == "cpu":
            host = [t.numpy() for t in given[:2]]
            work.peers["ours on NumPy arrays"] = lambda: mine(*host)
            for whose in ("ours", "torch"):
                work.facts[f"peak memory of {whose}, bytes"] = peak_memory(whose, shape, batch)
    else:

        def both(call: Any, x: Any, weight: Any, grad: Any) -> Any:
            return _with_gradients(torch, call, grad, x, weight)

        reference = both(theirs, x.double(), weight.double(), grad.double())
        work = Work(
            ours=lambda: both(mine, *given),
            errors=lambda got: dense_errors(reference, got),
            peers=peers.torch_peers(
                torch,
                functools.partial(both, theirs),
                (x, weight, grad),
                searches=device == "cuda",
                tf32=dtype == "float32",
            ),
        )
    if device == "cuda" and dtype == "float32":
        work.limits = {name: "tf32" for name in work.peers if "TF32" in name}
    if device == "cpu":
        work.peers = {name: way for name, way in work.peers.items() if "TF32" not in name}
    return work


def _entry(name: str, shape: Shape, batch: int, dtype: str, layout: str, operation: str, device: str) -> Entry:
    passes = 1 if operation == "forward" else 3
    small, large = shape.cin * shape.small**2, shape.cout * shape.large**2
    first = (dtype, layout) in {("float32", "NCHW"), ("bfloat16", "channels_last")} and batch == 8
    return Entry(
        name=f"resize_conv {operation} {name} batch {batch} {dtype} {layout} {device}",
        family="resize_conv",
        shape=shape.words(batch),
        device=device,
        dtype=dtype,
        bytes=passes * SIZE[dtype] * (batch * (small + large) + 9 * shape.cin * shape.cout),
        flops=passes * 2 * batch * shape.large**2 * 9 * shape.cin * shape.cout,
        setup=lambda: _setup(shape, batch, dtype, layout, operation, device),
        priority=0 if device == "cpu" or first else 2,
    )


ENTRIES = [
    _entry(name, shape, *choice, operation, "cuda")
    for choice in itertools.product((8, 1), ("float32", "bfloat16"), ("NCHW", "channels_last"))
    for operation in OPERATIONS
    for name, shape in SHAPES.items()
] + [
    _entry(name, shape, 1, "float32", layout, operation, "cpu")
    for name, shape in CPU_SHAPES.items()
    for layout in ("NCHW", "channels_last")
    for operation in OPERATIONS
]


@pytest.mark.parametrize("entry", ENTRIES, ids=str)
def bench_resize_conv(entry: Entry, measure: Any) -> None:
    measure(entry)
