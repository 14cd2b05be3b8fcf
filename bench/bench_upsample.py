"""Labels and losses of logits that are enlarged, on the heads of real networks."""

from __future__ import annotations

import itertools
import subprocess
import sys
from typing import Any, NamedTuple

import pytest

from cv3gpu.upsample import upsample_argmax, upsample_cross_entropy, upsample_cross_entropy_vjp

from . import peers
from .entry import Entry, Errors, Work, dense_errors

SIZE = {"float16": 2, "bfloat16": 2, "float32": 4, "float64": 8}
OPERATIONS = ("argmax", "cross entropy", "cross entropy and backward")


class Shape(NamedTuple):
    """Classes, and sizes of logits and labels."""

    where: str
    classes: int
    small: tuple[int, int]
    large: tuple[int, int]

    def words(self, batch: int) -> str:
        """The shape as tables have it."""
        (h, w), (height, width) = self.small, self.large
        return f"{self.classes} classes {h}×{w}→{height}×{width}, batch {batch} ({self.where})"


SHAPES = {
    "H1": Shape("VOC", 21, (65, 65), (513, 513)),
    "H2": Shape("Cityscapes", 19, (128, 256), (1024, 2048)),
    "H3": Shape("ADE20K", 150, (64, 64), (512, 512)),
}

# How far a call takes the memory of a fresh process beyond what it had; the call went once before, on a small input.
_MEMORY = """
import sys, torch
from cv3gpu.upsample import upsample_cross_entropy
whose, classes, batch, h, w, height, width = sys.argv[1], *map(int, sys.argv[2:])
def step(x, target):
    if whose == "ours":
        loss = upsample_cross_entropy(x, target)
    else:
        z = torch.nn.functional.interpolate(x, target.shape[1:], mode="bilinear")
        loss = torch.nn.functional.cross_entropy(z, target)
    return torch.autograd.grad(loss, x)[0]
def inputs(n, *sizes):
    x = torch.randn(n, classes, *sizes[:2], requires_grad=True)
    return x, torch.randint(classes, (n, *sizes[2:]))
step(*inputs(1, 4, 4, 8, 8))
given = inputs(batch, h, w, height, width)
def memory(field):
    with open("/proc/self/status") as status:
        return 1024 * next(int(line.split()[1]) for line in status if line.startswith(field))
with open("/proc/self/clear_refs", "w") as control:
    control.write("5")  # the peak starts anew
before = memory("VmRSS")
step(*given)
print(memory("VmHWM") - before)
"""


def peak_memory(whose: str, shape: Shape, batch: int) -> float:
    """Bytes that a loss and its backward take at their peak on the CPU; ``whose`` is "ours" or "torch"."""
    sizes = map(str, (shape.classes, batch, *shape.small, *shape.large))
    command = [sys.executable, "-c", _MEMORY, whose, *sizes]
    return float(subprocess.check_output(command, cwd=peers.ROOT, text=True))


def _label_errors(reference: Any, got: Any, doubtful: Any) -> Errors:
    """The share of labels that differ where the two largest logits do not tie."""
    torch = sys.modules["torch"]
    wrong = (torch.as_tensor(got).to(reference.device).long() != reference) & ~doubtful
    share = wrong.double().mean().item()
    return Errors(share, 1.0 if share else 0.0)


def _setup(shape: Shape, batch: int, dtype: str, layout: str, operation: str, device: str) -> Work:
    torch = pytest.importorskip("torch")
    functional, kind = torch.nn.functional, getattr(torch, dtype)
    generator = torch.Generator().manual_seed(0)
    source = 3 * torch.randn((batch, shape.classes, *shape.small), generator=generator)
    source = source.to(device, kind)
    target = torch.randint(shape.classes, (batch, *shape.large), generator=generator).to(device)
    target[:, :8] = -100

    def enlarged(x: Any) -> Any:
        return functional.interpolate(x, shape.large, mode="bilinear")

    def theirs(x: Any) -> Any:
        if operation == "argmax":
            return enlarged(x).argmax(1)
        if operation == "cross entropy":
            return functional.cross_entropy(enlarged(x), target)
        with torch.enable_grad():
            leaf = x.detach().requires_grad_()
            return torch.autograd.grad(functional.cross_entropy(enlarged(leaf), target), leaf)[0]

    def mine(x: Any, target: Any, one: Any) -> Any:
        if operation == "argmax":
            return upsample_argmax(x, shape.large, dtype="uint8")
        loss = upsample_cross_entropy(x, target)
        return loss if operation == "cross entropy" else upsample_cross_entropy_vjp(one, x, target)

    given = peers.formats(torch, source)[layout][0], target, torch.ones((), dtype=kind, device=device)
    with torch.no_grad():
        reference = theirs(source.double())
        if operation == "argmax":
            best = enlarged(source.double()).topk(2, 1).values
            doubtful = best[:, 0] - best[:, 1] < 0.1 if dtype != "float32" else best[:, 0] - best[:, 1] < 1e-4
    work = Work(
        ours=lambda: mine(*given),
        errors=lambda got: (
            _label_errors(reference, got, doubtful) if operation == "argmax" else dense_errors(reference, got)
        ),
        peers=peers.torch_peers(torch, theirs, (source,), searches=False, tf32=False),
    )
    if device == "cpu":
        host = [t.numpy() for t in given]
        work.peers["ours on NumPy arrays"] = lambda: mine(*host)
        if operation == OPERATIONS[2]:
            for whose in ("ours", "torch"):
                work.facts[f"peak memory of {whose}, bytes"] = peak_memory(whose, shape, batch)
    return work


def _entry(key: str, batch: int, dtype: str, layout: str, operation: str, device: str) -> Entry:
    shape = SHAPES[key]
    pixels, small = (batch * a * b for a, b in (shape.large, shape.small))
    passes, label, flops = {"argmax": (1, 1, 4), "cross entropy": (1, 8, 6)}.get(operation, (3, 16, 16))
    first = (dtype, layout) == ("float32", "NCHW") and batch == 8
    return Entry(
        name=f"upsample {operation} {key} batch {batch} {dtype} {layout} {device}",
        family="upsample",
        shape=shape.words(batch),
        device=device,
        dtype=dtype,
        bytes=passes * small * shape.classes * SIZE[dtype] + label * pixels,
        flops=flops * pixels * shape.classes,
        setup=lambda: _setup(shape, batch, dtype, layout, operation, device),
        priority=0 if device == "cpu" or first else 2,
    )


ENTRIES = [
    _entry(key, *choice, operation, "cuda")
    for choice in itertools.product((8, 1), ("float32", "bfloat16"), ("NCHW", "channels_last"))
    for operation in OPERATIONS
    for key in SHAPES
] + [_entry("H1", batch, "float32", "NCHW", operation, "cpu") for batch in (1, 2) for operation in OPERATIONS]


@pytest.mark.parametrize("entry", ENTRIES, ids=str)
def bench_upsample(entry: Entry, measure: Any) -> None:
    measure(entry)
