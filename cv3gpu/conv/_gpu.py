"""The convolutions on a GPU: which kernel does the work, and its launch.

Forward and transposed run through one of three kernels: ``conv_mma.cu`` (tensor cores), ``conv.cu`` (ordinary cores,
exact in the input's precision), ``conv_depthwise.cu`` (one input channel per group).
"""

from __future__ import annotations

from typing import Any, NamedTuple

from .._array import compute_capability, contiguous, dtype_name, empty, memory_format, pointer, readable, strides
from .._kernel import MAX_GRID_YZ, blocks, kernel
from .geometry import SIXTEEN_BIT, Geometry, check_pixels, tile_steps

__all__ = [
    "ACTIVATIONS",
    "NO_EPILOGUE",
    "Epilogue",
    "Target",
    "adjoint_input",
    "forward_into",
    "gather",
    "weight_gradient",
    "whole",
]

ACTIVATIONS = ("relu", "relu6")  # in the order of the kernels' numbers, from 1 (kernels/conv_epilogue.cuh)

# How a block finds its pixels: PLAN of kernels/conv_geometry.cuh.
IN_ORDER, BY_CLASS, BORDERED, POINTWISE = range(4)


class Epilogue(NamedTuple):
    """What becomes of a sum: activation(scale[c] sum + bias[c] + image_bias[n, c]), each where it is there."""

    scale: Any = None
    bias: Any = None
    image_bias: Any = None
    activation: str | None = None

    def pointers(self) -> tuple[Any, Any, Any]:
        """The vectors, dense, in the order in which kernels take them."""
        found = (self.scale, self.bias, self.image_bias)
        return tuple(None if x is None else contiguous(x) for x in found)  # type: ignore[return-value]

    @property
    def code(self) -> int:
        """The kernels' number of the activation."""
        return 0 if self.activation is None else 1 + ACTIVATIONS.index(self.activation)


NO_EPILOGUE = Epilogue()


class Target(NamedTuple):
    """Where results go: an array or some of its channels, the memory order of the whole, and its channels."""

    array: Any
    layout: str
    channels: int


def whole(array: Any, layout: str) -> Target:
    """All of an array."""
    return Target(array, layout, array.shape[1])


def forward_into(
    x: Any,
    weight: Any,
    bias: Any,
    geometry: Geometry,
    out: Any,
    first: int,
    *,
    scale: Any = None,
    activation: str | None = None,
    image_bias: Any = None,
    allow_tf32: bool = False,
) -> None:
    """Fills channels ``first`` to ``first + Cout`` of ``out`` [N, total, Ho, Wo] with a convolution's results.

    They are activation(scale[c] conv(x, weight) + bias[c] + image_bias[n, c]), in the memory order of ``out`` (by rows
    or channels last); scale and bias [Cout], image_bias [N, Cout], in x's dtype, or None. Arguments are not checked.
    """
    part = Target(out[:, first : first + weight.shape[0]], memory_format(out), out.shape[1])
    epilogue = Epilogue(scale, bias, image_bias, activation)
    gather(x, weight, part, geometry, epilogue, adjoint=False, tf32=allow_tf32)


def adjoint_input(grad: Any, weight: Any, target: Target, geometry: Geometry, *, tf32: bool) -> None:
    """Fills a target with the transpose of the convolution; through the padded image where that repeats pixels."""
    result, layout, _ = target
    if not geometry.border or 0 in result.shape:
        gather(grad, weight, target, geometry, NO_EPILOGUE, adjoint=True, tf32=tf32)
        return
    real = dtype_name(grad)
    images, channels, rows, cols = result.shape
    sums = "float64" if real == "float64" else "float32"
    padded = empty(grad, (images, channels, *geometry.padded.input), sums, layout)
    gather(grad, weight, Target(padded, layout, channels), geometry.padded, NO_EPILOGUE, adjoint=True, tf32=tf32)
    size = images * channels * rows * cols
    kernel("conv_fold.cu", "conv2d_fold", real=real, CHANNELS_LAST=layout == "nhwc")(
        (min(blocks(size, 256), 1 << 16),), 256, padded, result, *strides(padded), *strides(result),
        images, channels, rows, cols, geometry.border, *geometry.padding,
    )  # fmt: skip


def gather(
    source: Any, weight: Any, target: Target, geometry: Geometry, epilogue: Epilogue, *, adjoint: bool, tf32: bool
) -> None:
    """Fills a target with the convolution of ``source``, or with its transpose (``geometry`` without border then)."""
    if 0 in target.array.shape:
        return
    check_pixels("conv2d", geometry)
    source = readable(source)
    wide, narrow = weight.shape[:2]  # Cout, and C / groups
    to, of = (narrow, wide // geometry.groups) if adjoint else (wide // geometry.groups, narrow)
    real = dtype_name(source)
    if narrow == 1 and (to == 1 or not adjoint):
        _depthwise(source, weight, target, geometry, epilogue, adjoint)
        return
    fits = real in SIXTEEN_BIT or (tf32 and real == "float32")
    if fits and compute_capability(source) >= 80 and of * geometry.taps >= 16:
        _tensor_cores(source, weight, target, geometry, epilogue, adjoint, to, of)
    else:
        _ordinary_cores(source, weight, target, geometry, epilogue, adjoint, to, of)


def _sizes(geometry: Geometry, adjoint: bool) -> tuple[int, int, int, int]:
    """Rows and columns of the source, then of the result."""
    return (*geometry.output, *geometry.input) if adjoint else (*geometry.input, *geometry.output)


def _round_up(n: int, unit: int) -> int:
    return blocks(n, unit) * unit


def _widens(source: Any, target: Target) -> bool:
    """Whether 16-bit inputs give results in the sums' type."""
    return dtype_name(source) in SIXTEEN_BIT and dtype_name(target.array) == "float32"


def _pack_weight(weight: Any, groups: int, rows_are_cout: bool, pitch_unit: int, *, tf32: bool = False) -> Any:
    """Weights as [groups, taps, a, pitch]: (Cout, C) where ``rows_are_cout``, else (C, Cout), of a group."""
    wide, narrow, kh, kw = weight.shape
    steps = strides(weight)
    per_group = wide // groups
    rows, cols = (per_group, narrow) if rows_are_cout else (narrow, per_group)
    row_step, col_step = (steps[0], steps[1]) if rows_are_cout else (steps[1], steps[0])
    pitch = _round_up(cols, pitch_unit)
    packed = empty(weight, (groups, kh * kw, rows, pitch))
    size = groups * kh * kw * rows * pitch
    launch = kernel("conv_pack.cu", "conv2d_pack_weight", real=dtype_name(weight), TF32=tf32)
    launch(
        (min(blocks(size, 256), 4096),), 256, weight, packed,
        per_group * steps[0], row_step, col_step, steps[2], steps[3], groups, kh, kw, rows, cols, pitch,
    )  # fmt: skip
    return packed


def _pack_lines(x: Any, groups: int) -> tuple[Any, int]:
    """Images channels last, each group's channels rounded up to 16 bytes; and that number. A copy where needed."""
    images, channels, rows, cols = x.shape
    pitch = _round_up(channels // groups, 16 // x.itemsize)
    if memory_format(x) == "nhwc" and pitch * groups == channels and pointer(x).address % 16 == 0:
        return x, pitch
    lines = empty(x, (images, rows * cols, groups, pitch))
    kernel("conv_pack.cu", "conv2d_pack_input", real=dtype_name(x), TF32=0)(
        (blocks(rows * cols, 32), blocks(pitch, 32), min(images * groups, MAX_GRID_YZ)), (32, 8),
        x, lines, *strides(x), images, groups, channels // groups, rows, cols, pitch,
    )  # fmt: skip
    return lines, pitch


class _Tiles(NamedTuple):
    """How the pixels of a result are shared out: PLAN, number of tiles, and what the kernels take of it, last."""

    plan: int
    number: int
    adjoint: bool
    last: tuple[float, ...]


def _tiles(geometry: Geometry, images: int, tile: int, adjoint: bool, *, pointwise: bool, by_class: bool) -> _Tiles:
    """The plan that computes the fewest tiles' taps, of those that a kernel has."""
    _, _, rows, cols = _sizes(geometry, adjoint)
    pixels = images * rows * cols
    ends = (rows, rows, cols, cols)
    if geometry.pointwise and pointwise:
        return _Tiles(POINTWISE, blocks(pixels, tile), False, (0, *ends, 1.0 / (rows * cols)))
    if geometry.border:
        return _Tiles(BORDERED, blocks(pixels, tile), False, (geometry.border, *ends, 1.0 / (rows * cols)))
    if by_class and _skips(geometry, images, tile, adjoint):
        (a, b), (c, d) = (geometry.runs(axis, adjoint) or (0, 0) for axis in (0, 1))
        count = sum(
            blocks(images * high * wide, tile) for high in (a, b - a, rows - b) for wide in (c, d - c, cols - d)
        )
        return _Tiles(BY_CLASS, count, adjoint, (0, a, b, c, d, 1.0 / (rows * cols)))
    phases, plane = geometry.phases() if adjoint else (1, (rows, cols))
    count = blocks(images * plane[0] * plane[1], tile) * phases
    return _Tiles(IN_ORDER, count, adjoint, (0, *ends, 1.0 / (plane[0] * plane[1])))


def _skips(geometry: Geometry, images: int, tile: int, adjoint: bool) -> bool:
    """Whether taking the pixels by tap class saves a tenth of the work or more."""
    if geometry.taps == 1 or (adjoint and geometry.stride != (1, 1)) or geometry.useful(adjoint) > 0.9:
        return False
    in_order, by_class = tile_steps(geometry, images, tile, adjoint)
    return 0 < by_class <= 0.9 * in_order


def _tile(real: str, channels: int, pixels: int, groups: int) -> int:
    """Side of the tile that a block computes: the large one where it still gives every multiprocessor a block."""
    large = real != "float64" and channels > 64 and blocks(pixels, 128) * blocks(channels, 128) * groups >= 132
    return 128 if large else 64


def _ordinary_cores(
    source: Any,
    weight: Any,
    target: Target,
    geometry: Geometry,
    epilogue: Epilogue,
    adjoint: bool,
    to: int,
    of: int,
) -> None:
    real, groups = dtype_name(source), geometry.groups
    source_rows, source_cols, rows, cols = _sizes(geometry, adjoint)
    result, images = target.array, target.array.shape[0]
    packed = _pack_weight(readable(weight), groups, adjoint, 4)
    tile = 64 if geometry.border else _tile(real, to, images * rows * cols, groups)
    wide = _widens(source, target)
    last = memory_format(source) == "nhwc" == target.layout and of % 4 == 0 == to % 4 == target.channels % 4
    last = last and pointer(source).address % 16 == 0 == pointer(result).address % 8
    # The large tile of bfloat16 in the pointwise plan needs more registers than there are.
    pointwise = last and real != "bfloat16"
    tiles = _tiles(geometry, images, tile, adjoint, pointwise=pointwise, by_class=not wide)
    by_rows = real in SIXTEEN_BIT and not wide and target.layout == "nchw" and rows * cols % 4 == 0
    by_rows = by_rows and tiles.plan == IN_ORDER and tiles.number == blocks(images * rows * cols, tile)
    layout = 2 if last else int(by_rows and pointer(result).address % 8 == 0)
    constants = {"real": real, "ADJOINT": tiles.adjoint, "LAYOUT": layout, "TILE": tile}
    kernel("conv.cu", "conv2d_gather", **constants, PLAN=tiles.plan, WIDE=wide)(
        (tiles.number * blocks(to, tile) * groups,), 256,
        source, packed, *epilogue.pointers(), result, *strides(source), *strides(result), epilogue.code,
        images, groups, of, to, packed.shape[3], source_rows, source_cols, rows, cols, *geometry.scalars(),
        *geometry.progressions(), *tiles.last,
    )  # fmt: skip


def _stages(x: Any) -> int:
    """Depth of the copy pipeline: two blocks of four stages need more than 100 KiB of shared memory an SM."""
    return 4 if compute_capability(x) in (80, 87, 90, 100, 103) else 3


def _tensor_cores(
    source: Any,
    weight: Any,
    target: Target,
    geometry: Geometry,
    epilogue: Epilogue,
    adjoint: bool,
    to: int,
    of: int,
) -> None:
    real, groups = dtype_name(source), geometry.groups
    source_rows, source_cols, rows, cols = _sizes(geometry, adjoint)
    images = target.array.shape[0]
    packed = _pack_weight(readable(weight), groups, not adjoint, 16 // source.itemsize, tf32=real == "float32")
    lines, pitch = _pack_lines(source, groups)
    tile = 64 if to <= 64 else 128
    stages = _stages(source)
    wide = _widens(source, target)
    tiles = _tiles(geometry, images, 128, adjoint, pointwise=not wide, by_class=not wide)
    constants = {"real": real, "ADJOINT": tiles.adjoint, "BN": tile, "STAGES": stages, "PLAN": tiles.plan, "WIDE": wide}
    kernel("conv_mma.cu", "conv2d_mma", **constants, CHANNELS_LAST=target.layout == "nhwc")(
        (tiles.number * blocks(to, tile) * groups,), 256,
        lines, packed, *epilogue.pointers(), target.array, epilogue.code, images, groups, pitch, to, target.channels,
        source_rows, source_cols, rows, cols, *geometry.scalars(), *geometry.progressions(), *tiles.last,
        shared_mem=stages * (128 + tile) * 64,
    )  # fmt: skip


def _unrolled(kernel_size: tuple[int, int]) -> int:
    """The kernel sizes that are unrolled at compile time; 0 for any other."""
    return kernel_size[0] if kernel_size in ((3, 3), (5, 5)) else 0


def _depthwise(source: Any, weight: Any, target: Target, geometry: Geometry, epilogue: Epilogue, adjoint: bool) -> None:
    real, result = dtype_name(source), target.array
    source_rows, source_cols, rows, cols = _sizes(geometry, adjoint)
    images, channels = result.shape[:2]
    multiplier = weight.shape[0] // geometry.groups
    together = 4 if geometry.stride == (1, 1) and not geometry.border else 1
    row_groups = blocks(rows, geometry.dilation[0] * together) * geometry.dilation[0] if together > 1 else rows
    last = memory_format(source) == "nhwc" == target.layout and multiplier == 1
    last = last and channels % 4 == 0 == target.channels % 4
    addresses = pointer(source).address % (4 * source.itemsize), pointer(result).address % (4 * result.itemsize)
    last = last and addresses == (0, 0)
    constants = {"real": real, "ADJOINT": adjoint, "K": _unrolled(geometry.kernel), "ROWS": together}
    constants |= {"BORDER": bool(geometry.border), "WIDE": _widens(source, target)}
    numbers = (*geometry.scalars(), *geometry.progressions(), geometry.border, row_groups)
    weight = contiguous(weight)
    shared = geometry.taps * 128 * (8 if real == "float64" else 4)
    columns = row_groups * blocks(cols, 8)
    if last and shared <= 48 << 10 and columns <= MAX_GRID_YZ:
        kernel("conv_depthwise.cu", "depthwise_channels", **constants)(
            (blocks(channels, 128), columns, min(images, MAX_GRID_YZ)), (32, 8),
            source, weight, *epilogue.pointers(), result, epilogue.code, images, channels, target.channels,
            source_rows, source_cols, rows, cols, *numbers, shared_mem=shared,
        )  # fmt: skip
        return
    across = next((n for n in (32, 64, 128) if n >= row_groups * cols), 256)
    planes = blocks(images * channels, 256 // across)
    kernel("conv_depthwise.cu", "depthwise_planes", **constants)(
        (blocks(row_groups * cols, across), min(planes, MAX_GRID_YZ)), (across, 256 // across),
        source, weight, *epilogue.pointers(), result, *strides(source), *strides(result), epilogue.code,
        images, channels, multiplier, source_rows, source_cols, rows, cols, *numbers,
    )  # fmt: skip


def _shares(pixels: int, unit: int, parallel: int, largest: int) -> tuple[int, int]:
    """Into how many shares the pixels are split so that about 500 blocks run, and the pixels of each."""
    count = max(1, min(blocks(528, parallel), blocks(pixels, 8 * unit), largest))
    share = _round_up(blocks(pixels, count), unit)
    return blocks(pixels, share), share


def weight_gradient(grad: Any, x: Any, weight: Any, geometry: Geometry) -> None:
    """Fills ``weight`` with the gradient of a convolution with respect to it."""
    check_pixels("conv2d_adjoint_weight", geometry)
    grad, x = readable(grad), readable(x)
    real = dtype_name(grad)
    accumulator = "float64" if real == "float64" else "float32"
    groups = geometry.groups
    images, out = grad.shape[:2]
    channels = x.shape[1]
    rows, cols = geometry.output
    pixels = images * rows * cols
    sizes = (*geometry.input, rows, cols, *geometry.scalars(), geometry.border, 1.0 / (rows * cols))
    border = bool(geometry.border)
    last = memory_format(grad) == "nhwc" == memory_format(x)
    if channels == groups:
        unrolled = _unrolled(geometry.kernel)
        across = blocks(out, 32) if last else out
        splits, share = _shares(pixels, 256, across, 64)
        partial = empty(grad, (splits, out, geometry.taps), accumulator)
        constants = {"real": real, "K": unrolled, "CHANNELS_LAST": last, "BORDER": border}
        kernel("conv_depthwise_weight.cu", "depthwise_weight", **constants)(
            (across, splits, 1 if unrolled else geometry.taps), 256,
            grad, x, partial, *strides(grad), *strides(x), share, images, out, out // groups, *sizes,
        )  # fmt: skip
        size = out * geometry.taps
        kernel("conv_depthwise_weight.cu", "depthwise_weight_reduce", **constants)(
            (min(blocks(size, 256), 4096),), 256, partial, weight, size, splits
        )
        return
    wide, narrow = out // groups, channels // groups
    if real in SIXTEEN_BIT and compute_capability(grad) >= 80:
        tile = 64 if narrow <= 64 else 128
        tiles = groups * geometry.taps * blocks(wide, 128) * blocks(narrow, tile)
        splits, share = _shares(pixels, 32, tiles, 64)
        partial = empty(grad, (splits, groups, geometry.taps, wide, narrow), accumulator)
        (grad_lines, grad_pitch), (lines, pitch) = _pack_lines(grad, groups), _pack_lines(x, groups)
        stages = _stages(grad)
        kernel("conv_weight_mma.cu", "conv2d_weight_mma", real=real, BN=tile, STAGES=stages, BORDER=border)(
            (tiles * splits,), 256, grad_lines, lines, partial, share, images, groups, grad_pitch, pitch, wide, narrow,
            *sizes, shared_mem=stages * (128 + tile) * 64,
        )  # fmt: skip
    else:
        tiles = groups * geometry.taps * blocks(wide, 64) * blocks(narrow, 64)
        splits, share = _shares(pixels, 16, tiles, 64)
        partial = empty(grad, (splits, groups, geometry.taps, wide, narrow), accumulator)
        kernel("conv_weight.cu", "conv2d_weight_partial", real=real, CHANNELS_LAST=last, BORDER=border)(
            (tiles * splits,), 256,
            grad, x, partial, *strides(grad), *strides(x), share, images, groups, wide, narrow, *sizes,
        )  # fmt: skip
    kernel("conv_weight.cu", "conv2d_weight_reduce", real=real, CHANNELS_LAST=0, BORDER=0)(
        (min(blocks(groups * geometry.taps * wide * narrow, 256), 4096),), 256,
        partial, weight, splits, groups, geometry.taps, wide, narrow,
    )  # fmt: skip
