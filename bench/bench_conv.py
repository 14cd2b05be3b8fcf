"""Convolutions of real segmentation networks: dense, dilated, 1x1, depthwise and transposed, and both adjoints.

Operation counts include the taps that lie in the padding, as every library counts them. float32 means float32: rows and
peers that round to TF32 say so in their names.
"""

from __future__ import annotations

import dataclasses
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
    "D7": Shape("DeepLabv3-R101 ASPP projection", 1280, 256, 65, 1, 1),
    "P1": Shape("PSPNet-R50 final", 4096, 512, 60, 3, 1),
    "X4": Shape("Xception-65 middle flow", 728, 728, 33, 1, 1),
    "X7": Shape("DeepLabv3+ decoder", 304, 256, 129, 3, 1),
    "M1": Shape("MobileNetV3", 960, 960, 33, 5, 2, 960),
    "M2": Shape("MobileNetV2", 960, 960, 33, 3, 2, 960),
    "X1": Shape("Xception-65 middle flow", 728, 728, 33, 3, 1, 728),
    "X2": Shape("Xception-65 exit flow", 1536, 1536, 33, 3, 2, 1536),
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


def _ours(shape: Shape, operation: str, first: Any, second: Any, **options: Any) -> Any:
    if operation == "forward":
        return lambda: cv3gpu.conv2d(first, second, None, **shape.arguments, **options)
    if operation == "adjoint_input":
        side = shape.size
        return lambda: cv3gpu.conv2d_adjoint_input(first, second, (side, side), **shape.arguments, **options)
    k = shape.kernel
    return lambda: cv3gpu.conv2d_adjoint_weight(first, second, (k, k), **shape.arguments)


def _setup(shape: Shape, batch: int, dtype: str, layout: str, operation: str, device: str) -> Work:
    torch = pytest.importorskip("torch")
    generator = torch.Generator().manual_seed(0)
    full = (batch, shape.cin, shape.size, shape.size)
    kernel = (shape.cout, shape.cin // shape.groups, shape.kernel, shape.kernel)
    sizes = {"x": full, "grad": (batch, shape.cout, *full[2:]), "weight": kernel}
    first, second = (
        torch.randn(sizes[name], generator=generator).to(device, getattr(torch, dtype)) for name in ARGUMENTS[operation]
    )
    call = _torch_call(torch, shape, operation)
    with torch.no_grad():
        reference = call(first.double(), second.double())
    depthwise = shape.groups > 1
    searches = device == "cuda" and not depthwise
    tf32 = searches and dtype == "float32"
    found = peers.torch_peers(torch, call, (first, second), searches=searches, tf32=tf32)
    given = peers.formats(torch, first, second)[layout]
    if tf32 and operation != "adjoint_weight":
        found["ours with TF32"] = _ours(shape, operation, *given, allow_tf32=True)
    work = Work(
        ours=_ours(shape, operation, *given),
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


def _tf32_words(dtype: str, device: str) -> str:
    return ", TF32 off but where a name says so" if dtype == "float32" and device == "cuda" else ""


def _entry(key: str, shape: Shape, batch: int, dtype: str, layout: str, operation: str, device: str) -> Entry:
    pixels = batch * shape.size**2
    numbers = pixels * (shape.cin + shape.cout) + shape.cout * shape.cin // shape.groups * shape.kernel**2
    headline = device == "cpu" or (batch == 8 and (dtype, layout) in HEADLINES)
    adjoint = operation != "forward"
    priority = int(adjoint) if headline else 2 + int(adjoint)
    return Entry(
        name=f"conv2d {operation} {key} batch {batch} {dtype} {layout} {device}",
        family="conv",
        shape=shape.words(batch) + _tf32_words(dtype, device),
        device=device,
        dtype=dtype,
        bytes=numbers * SIZE[dtype],
        flops=shape.flops(batch),
        setup=lambda: _setup(shape, batch, dtype, layout, operation, device),
        priority=priority,
    )


# ---- a convolution, its batch norm in use, and ReLU -------------------------------------------------------


def _epilogue_setup(shape: Shape, batch: int, dtype: str, layout: str, device: str) -> Work:
    torch = pytest.importorskip("torch")
    functional = torch.nn.functional
    generator = torch.Generator().manual_seed(0)
    kernel = shape.cout, shape.cin // shape.groups, shape.kernel, shape.kernel
    x = torch.randn((batch, shape.cin, shape.size, shape.size), generator=generator)
    weight = torch.randn(kernel, generator=generator)
    gain, offset, mean = (torch.randn(shape.cout, generator=generator) for _ in range(3))
    variance = weight[0].numel() * (1 + torch.rand(shape.cout, generator=generator))
    scale = gain / (variance + 1e-5).sqrt()
    tensors = x, weight, gain, offset, mean, variance, scale, offset - mean * scale
    x, weight, gain, offset, mean, variance, scale, bias = (t.to(device, getattr(torch, dtype)) for t in tensors)
    geometry = shape.arguments

    def three(x: Any, weight: Any) -> Any:
        y = functional.conv2d(x, weight, None, **geometry)
        return functional.relu_(functional.batch_norm(y, mean, variance, gain, offset))

    def folded(x: Any, weight: Any) -> Any:
        return functional.relu_(functional.conv2d(x, weight, bias, **geometry))

    sums = functional.conv2d(x.double(), weight.double(), None, **geometry)
    reference = (sums * scale.double()[:, None, None] + bias.double()[:, None, None]).clamp_min(0)
    searches = device == "cuda" and shape.groups == 1
    found = {
        f"{name}: convolution, norm, ReLU": way
        for name, way in peers.torch_peers(torch, three, (x, weight), searches=searches, tf32=False).items()
    }
    scaled = weight * scale[:, None, None, None]
    by_hand = peers.torch_peers(torch, folded, (x, scaled), searches=searches, tf32=False)
    found |= {f"{name}: norm folded by hand, ReLU": way for name, way in by_hand.items()}
    options = {**geometry, "scale": scale, "activation": "relu"}
    given = peers.formats(torch, x, weight)[layout]
    return Work(
        ours=lambda: cv3gpu.conv2d(*given, bias, **options),
        errors=lambda got: dense_errors(reference, got),
        peers=found,
    )


def _epilogue_entry(key: str, shape: Shape, batch: int, dtype: str, layout: str, device: str) -> Entry:
    plain = _entry(key, shape, batch, dtype, layout, "forward", device)
    return dataclasses.replace(
        plain,
        name=f"conv2d with norm and ReLU {key} batch {batch} {dtype} {layout} {device}",
        shape=f"{plain.shape}, scale, bias and ReLU in the kernel",
        setup=lambda: _epilogue_setup(shape, batch, dtype, layout, device),
    )


EPILOGUES = ("D1", "D6", "M2", "X5")
CPU_EPILOGUES = ("D1", "D6", "M2", "X5/4")

# ---- transposed convolutions ------------------------------------------------------------------------------


class Upscale(NamedTuple):
    """A transposed convolution of a square map; ``bilinear``: with FCN's initial weights, which mix no channels."""

    where: str
    cin: int
    cout: int
    size: int
    kernel: int
    stride: int
    padding: int = 0
    bilinear: bool = False

    @property
    def out(self) -> int:
        return (self.size - 1) * self.stride - 2 * self.padding + self.kernel

    def words(self, batch: int) -> str:
        weights = ", bilinear weights" if self.bilinear else ""
        sizes = f"{self.cin}→{self.cout} @{self.size}²→{self.out}²"
        return f"transposed {self.kernel}x{self.kernel} s{self.stride}, {sizes}, batch {batch}{weights} ({self.where})"


UPSCALES = {
    "F1": Upscale("FCN-8s upscore2", 21, 21, 22, 4, 2),
    "F2": Upscale("FCN-8s upscore8", 21, 21, 70, 16, 8),
    "F3": Upscale("FCN-32s upscore", 21, 21, 17, 64, 32),
    "F2 diagonal": Upscale("FCN-8s upscore8", 21, 21, 70, 16, 8, bilinear=True),
    "U1": Upscale("U-Net", 1024, 512, 32, 2, 2),
    "U2": Upscale("U-Net", 128, 64, 256, 2, 2),
}
CPU_UPSCALES = {name: UPSCALES[name] for name in ("F1", "F2", "F2 diagonal")} | {
    "U1/8": Upscale("an eighth of U-Net", 256, 256, 32, 2, 2),
    "U2/4": Upscale("a quarter of U-Net", 64, 32, 256, 2, 2),
}
UPSCALE_OPERATIONS = ("forward", "adjoint_input", "adjoint_weight")


def _upscale_weight(torch: Any, shape: Upscale, generator: Any) -> Any:
    size = shape.cin, shape.cout, shape.kernel, shape.kernel
    if not shape.bilinear:
        return torch.randn(size, generator=generator)
    line = 1 - (torch.arange(shape.kernel) - (shape.kernel - 1) / 2).abs() / ((shape.kernel + 1) // 2)
    return torch.eye(shape.cin)[:, :, None, None] * torch.outer(line, line)


def _upscale_calls(torch: Any, shape: Upscale, operation: str, diagonal: bool) -> tuple[Any, Any]:
    """Torch's and ours, on (x, weight), (grad, weight) or (x, grad)."""
    geometry = {"stride": shape.stride, "padding": shape.padding}
    more = {"diagonal": True} if diagonal else {}
    s, p = [shape.stride] * 2, [shape.padding] * 2
    taps = (shape.kernel, shape.kernel)

    def weight_gradient(x: Any, grad: Any) -> Any:
        like = x.new_empty((1,)).expand(shape.cin, shape.cout, *taps)
        backward = torch.ops.aten.convolution_backward
        return backward(grad, x, like, None, s, p, [1, 1], True, [0, 0], 1, [False, True, False])[1]

    return {
        "forward": (
            lambda x, weight: torch.nn.functional.conv_transpose2d(x, weight, None, **geometry),
            lambda x, weight: cv3gpu.conv_transpose2d(x, weight, None, **geometry, **more),
        ),
        "adjoint_input": (
            lambda grad, weight: torch.nn.functional.conv2d(grad, weight, None, **geometry),
            lambda grad, weight: cv3gpu.conv2d(grad, weight, None, **geometry),
        ),
        "adjoint_weight": (
            weight_gradient,
            lambda x, grad: cv3gpu.conv2d_adjoint_weight(x, grad, taps, **geometry),
        ),
    }[operation]


def _upscale_setup(shape: Upscale, batch: int, dtype: str, layout: str, operation: str, device: str) -> Work:
    torch = pytest.importorskip("torch")
    generator = torch.Generator().manual_seed(0)
    tensors = {
        "x": torch.randn((batch, shape.cin, shape.size, shape.size), generator=generator),
        "grad": torch.randn((batch, shape.cout, shape.out, shape.out), generator=generator),
        "weight": _upscale_weight(torch, shape, generator),
    }
    names = {"forward": ("x", "weight"), "adjoint_input": ("grad", "weight"), "adjoint_weight": ("x", "grad")}
    first, second = (tensors[name].to(device, getattr(torch, dtype)) for name in names[operation])
    theirs, ours = _upscale_calls(torch, shape, operation, shape.bilinear)
    with torch.no_grad():
        reference = theirs(first.double(), second.double())
    searches = device == "cuda"
    found = peers.torch_peers(torch, theirs, (first, second), searches=searches, tf32=searches and dtype == "float32")
    if operation == "forward" and shape.bilinear:
        by_channel = second.diagonal(dim1=0, dim2=1).permute(2, 0, 1)[:, None].contiguous()
        step = {"stride": shape.stride, "padding": shape.padding, "groups": shape.cin}
        upsample = torch.nn.functional.conv_transpose2d
        found["torch groups by hand"] = peers.torch_way(torch, lambda: upsample(first, by_channel, None, **step))
    given = peers.formats(torch, first, second)[layout]
    work = Work(
        ours=lambda: ours(*given),
        errors=lambda got: dense_errors(reference, got),
        peers=found,
        limits={name: "tf32" for name in found if name.endswith("TF32")},
    )
    if device == "cpu":
        arrays = first.numpy(), second.numpy()
        work.peers["ours on NumPy arrays"] = lambda: ours(*arrays)
    return work


def _upscale_entry(key: str, shape: Upscale, batch: int, dtype: str, layout: str, operation: str, device: str) -> Entry:
    numbers = batch * (shape.cin * shape.size**2 + shape.cout * shape.out**2)
    mixed = shape.cin if not (shape.bilinear and operation == "forward") else 1
    products = batch * shape.size**2 * mixed * shape.cout * shape.kernel**2
    headline = device == "cpu" or (batch == 8 and (dtype, layout) in HEADLINES)
    adjoint = operation != "forward"
    return Entry(
        name=f"conv_transpose2d {operation} {key} batch {batch} {dtype} {layout} {device}",
        family="conv",
        shape=shape.words(batch) + _tf32_words(dtype, device),
        device=device,
        dtype=dtype,
        bytes=(numbers + mixed * shape.cout * shape.kernel**2) * SIZE[dtype],
        flops=2 * products,
        setup=lambda: _upscale_setup(shape, batch, dtype, layout, operation, device),
        priority=int(adjoint) if headline else 2 + int(adjoint),
    )


DTYPES, LAYOUTS = ("float32", "bfloat16", "float16"), ("NCHW", "channels_last")
CHOICES = tuple(itertools.product((8, 1), DTYPES, LAYOUTS))
ENTRIES = [
    *(
        _entry(key, SHAPES[key], *choice, operation, "cuda")
        for choice in CHOICES
        for operation in OPERATIONS
        for key in SHAPES
    ),
    *(
        _entry(key, shape, 1, "float32", "NCHW", operation, "cpu")
        for operation in OPERATIONS
        for key, shape in CPU_SHAPES.items()
    ),
    *(
        _epilogue_entry(key, SHAPES[key], *choice, "cuda")
        for choice in CHOICES
        if choice[1] != "float16"
        for key in EPILOGUES
    ),
    *(
        _epilogue_entry(key, CPU_SHAPES[key], 1, "float32", layout, "cpu")
        for layout in LAYOUTS
        for key in CPU_EPILOGUES
    ),
    *(
        _upscale_entry(key, shape, *choice, operation, "cuda")
        for choice in CHOICES
        for operation in UPSCALE_OPERATIONS
        for key, shape in UPSCALES.items()
        if not shape.bilinear or operation == "forward"
    ),
    *(
        _upscale_entry(key, shape, 1, "float32", "NCHW", operation, "cpu")
        for operation in UPSCALE_OPERATIONS
        for key, shape in CPU_UPSCALES.items()
        if not shape.bilinear or operation == "forward"
    ),
]


@pytest.mark.parametrize("entry", ENTRIES, ids=str)
def bench_conv(entry: Entry, measure: Any) -> None:
    measure(entry)
