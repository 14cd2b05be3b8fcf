"""More than 2^31 elements: kernels on the CPU runner, a lint of their index arithmetic, and the same on a GPU."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import cv3gpu
from cv3gpu import _array, kernels
from cv3gpu._kernel import blocks, kernel
from cv3gpu.conv.geometry import check_pixels, geometry_of
from tests.conftest import need_gpu, need_torch_cuda

MANY = 2**31
KERNELS = Path(kernels.__file__).parent


# ---- some blocks of a large grid ------------------------------------------------------------------------------

# In front of a kernel's text: block k of a small launch is block PLACES[k] of the whole grid.
SAMPLED = """
#undef blockIdx
#undef gridDim
static inline uint3 cv3_sampled_block() {{
  static const unsigned places[][3] = {{{places}}};
  const unsigned* place = places[host_block_idx().x];
  return uint3{{place[0], place[1], place[2]}};
}}
#define blockIdx (cv3_sampled_block())
#define gridDim (uint3{{{grid}}})
"""


class SampledBackend:
    """Runs the first blocks, the last ones and some between, with every signed overflow reported.

    Arrays may have more elements than a machine has memory for: what nobody touches takes none.
    """

    poisons = False  # new memory stays untouched, and reads as zeros

    def __init__(self, last: int = 4, between: int = 3) -> None:
        self.last = last
        self.between = between
        self.launched: list[str] = []

    def cuda_kernel(self, source: str, name: str) -> Callable[..., None]:
        """A kernel, as the runner's backends give it."""
        from tests.hostrun.launch import Options, host_module

        def launch(grid: Sequence[int], block: Any, values: Sequence[Any], shared_mem: int = 0) -> None:
            total = math.prod(grid)
            inner = np.random.default_rng(total).integers(0, total, self.between).tolist()
            ranks = sorted({0, *inner, *range(max(0, total - self.last), total)})
            places = [(r % grid[0], r // grid[0] % grid[1], r // grid[0] // grid[1]) for r in ranks]
            said = ", ".join(f"{{{x}u, {y}u, {z}u}}" for x, y, z in places)
            text = SAMPLED.format(places=said, grid=", ".join(f"{n}u" for n in grid)) + source
            kernel = host_module(text, "ubsan").function(name, Options(order="forward"))
            kernel((len(places), 1, 1), block, values, shared_mem)
            self.launched.append(name)

        return launch


@pytest.fixture
def sampled() -> Iterator[SampledBackend]:
    pytest.importorskip("tests.hostrun")
    backend = SampledBackend()
    token = _array.host_backend.set(backend)
    yield backend
    _array.host_backend.reset(token)


def image(*shape: int, dtype: str = "float16", last: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Zeros [N, C, H, W] with small whole numbers in the last rows, which are given as well; memory is not touched."""
    n, c, h, w = shape
    x = np.zeros((n, h, w, c) if last else shape, dtype)
    x = x.transpose(0, 3, 1, 2) if last else x
    rng = np.random.default_rng(1)
    tail = x[-1:, :, -TAIL:]
    tail[..., -COLUMNS:] = rng.integers(1, 8, tail[..., -COLUMNS:].shape)
    return x, tail


TAIL, COLUMNS = 80, 2048  # rows and columns that hold numbers


def written(got: np.ndarray, want: np.ndarray, least: int) -> None:
    """What the sampled blocks wrote at the end of an array is right, and lies past 2^31 elements."""
    rows, columns = want.shape[2] - 16, min(want.shape[3], COLUMNS) - 64  # without what the crop's border touches
    a, b = got[-1, :, -rows:, -columns:], want[-1, :, -rows:, -columns:]
    there = a != 0
    assert there.sum() >= least
    np.testing.assert_array_equal(a[there], b[there])
    assert a[..., -1, -1].all(), "the last pixel was not written"


SIDE = 46_400  # squared just above 2^31


@pytest.mark.parametrize("mode", ["nearest", "bilinear", "bicubic"])
def test_resize(mode: str, sampled: SampledBackend) -> None:
    x, tail = image(1, 1, SIDE, SIDE)
    assert x.size > MANY
    out = cv3gpu.interpolate(x, size=(SIDE, SIDE), mode=mode)  # the identity
    assert out.size > MANY
    written(out, tail, 500)


def test_resize_adjoint(sampled: SampledBackend) -> None:
    grad, tail = image(1, 1, SIDE, SIDE)
    written(cv3gpu.interpolate_adjoint(grad, (SIDE, SIDE), mode="bilinear"), tail, 500)


def test_resize_of_many_planes(sampled: SampledBackend) -> None:
    x = np.zeros((2**19, 64, 8, 9), np.float16)
    tail = 2**13  # images: a block does every so many planes, and the last ones are anyone's
    x[-tail:] = np.random.default_rng(0).integers(1, 8, (tail, 64, 8, 9), dtype=np.int8)
    assert x.size - x[-tail:].size > MANY - 2**26
    sampled.last, sampled.between = 1, 0
    out = cv3gpu.interpolate(x, size=(8, 9), mode="bilinear")
    there = out[-tail:] != 0
    assert there.sum() > 500
    np.testing.assert_array_equal(out[-tail:][there], x[-tail:][there])


def test_max_pool(sampled: SampledBackend) -> None:
    x, tail = image(1, 1, SIDE, SIDE)
    values, indices = cv3gpu.max_pool2d(x, 2, stride=1, compact=True)
    assert values.size > MANY
    token = _array.host_backend.set(None)
    want, places = cv3gpu.max_pool2d(np.ascontiguousarray(tail[..., -COLUMNS:]), 2, stride=1, compact=True)
    _array.host_backend.reset(token)
    written(values, want, 500)
    there = values[..., -50:, -900:] != 0
    np.testing.assert_array_equal(indices[..., -50:, -900:][there], places[..., -50:, -900:][there])


def on_the_cpu(operator: Callable[..., Any], *args: Any, **options: Any) -> Any:
    token = _array.host_backend.set(None)
    try:
        return operator(*args, **options)
    finally:
        _array.host_backend.reset(token)


# Channels, output channels, groups, dtype, channels-last, kernel: each of the three kernels of the convolution.
CONVOLUTIONS = {
    "depthwise": (1, 1, 1, "float16", False, 3),
    "depthwise, by rows": (1, 1, 1, "float16", False, 5),
    "tensor cores": (8, 8, 1, "float16", True, 3),
    "ordinary cores": (3, 1, 1, "float32", True, 3),
}


@pytest.mark.parametrize("case", list(CONVOLUTIONS))
def test_convolution(case: str, sampled: SampledBackend) -> None:
    channels, to, groups, dtype, last, size = CONVOLUTIONS[case]
    side = math.isqrt(MANY // channels) + 40
    x, tail = image(1, channels, side, side, dtype=dtype, last=last)
    weight = np.random.default_rng(2).integers(1, 3, (to, channels // groups, size, size)).astype(dtype)
    stride = 2 if "rows" in case else 1
    out = cv3gpu.conv2d(x, weight, padding=size // 2, stride=stride, groups=groups)
    assert x.size > MANY
    crop = np.ascontiguousarray(tail[..., -COLUMNS:])
    want = on_the_cpu(cv3gpu.conv2d, crop, weight, padding=size // 2, stride=stride, groups=groups)
    rows, columns = out.shape[2], out.shape[3]
    assert (rows - want.shape[2]) * stride == side - crop.shape[2]  # the same phase
    written(out, want, 30)
    assert columns == out.shape[3]


def test_transposed_convolution(sampled: SampledBackend) -> None:
    side = 23_300
    x, tail = image(1, 3, side, side, dtype="float32")
    weight = np.random.default_rng(2).integers(1, 3, (3, 1, 2, 2)).astype(np.float32)
    out = cv3gpu.conv_transpose2d(x, weight, stride=2)
    assert out.size > MANY
    crop = np.ascontiguousarray(tail[..., -COLUMNS:])
    written(out, on_the_cpu(cv3gpu.conv_transpose2d, crop, weight, stride=2), 30)


def test_upsample_argmax(sampled: SampledBackend) -> None:
    side = 23_200
    logits, tail = image(1, 4, side, side)
    labels = cv3gpu.upsample_argmax(logits, (side, side))
    assert logits.size > MANY
    want = tail.argmax(1)
    a, b = labels[..., -64:, -2000:], want[..., -64:, -2000:]
    there = a != 0
    assert there.sum() > 500
    np.testing.assert_array_equal(a[there], b[there])
    assert labels.shape == (1, side, side)


def test_confusion_matrix(sampled: SampledBackend) -> None:
    """Blocks take 2,048 elements in turn: those of the last blocks reach past 2^31."""
    n, marked = MANY + 3 * 2**20, 2**21
    pred, target = np.zeros(n, np.uint8), np.zeros(n, np.uint8)
    pred[-marked:], target[-marked:] = 1, 2
    table = cv3gpu.confusion_matrix(pred, target, 3)
    grid = 1024
    ranks = {0, *np.random.default_rng(grid).integers(0, grid, 3).tolist(), *range(grid - 4, grid)}
    element = np.arange(n - marked, n)
    expected = np.isin(element // 2048 % grid, list(ranks)).sum()
    assert table[2, 1] == expected > 0
    assert table.sum() == table[0, 0] + table[2, 1]


@pytest.mark.parametrize("channels", [3, 40])
def test_rows_of_the_crf(channels: int, sampled: SampledBackend) -> None:
    from cv3gpu.crf import _gpu

    points, width = MANY // channels + 1000, 4 * -(-channels // 4)
    x = np.zeros((1, channels, points), np.float32)
    x[..., -3000:] = np.random.default_rng(0).random((1, channels, 3000)) + 1
    rows = _gpu.to_rows(x, width)
    assert min(rows.size, x.size) > MANY
    back = _gpu.from_rows(rows, x.shape)
    got, want = rows[-3000:, :channels], x[0, :, -3000:].T
    there = got != 0
    assert there[-1].any()
    np.testing.assert_array_equal(got[there], want[there])
    there = back[..., -3000:] != 0
    assert there[..., -1].any()
    np.testing.assert_array_equal(back[..., -3000:][there], x[..., -3000:][there])


@pytest.fixture
def whole() -> Iterator[Callable[..., Any]]:
    """Calls a function with every block of its launches run, on a small piece."""
    from tests.hostrun import HostBackend

    def call(function: Callable[..., Any], *args: Any) -> Any:
        token = _array.host_backend.set(HostBackend(mode="ubsan", order="forward"))
        try:
            return function(*args)
        finally:
            _array.host_backend.reset(token)

    return call


def test_colours_of_superpixels(sampled: SampledBackend, whole: Callable[..., Any]) -> None:
    from cv3gpu.superpixel import _gpu

    def planes(pixels: np.ndarray) -> np.ndarray:
        range_ = np.array([[0, np.float32(255).view(np.int32)]], np.int32)
        out = _array.empty(pixels, (1, 3, len(pixels)), "int16")
        constants = {"CHANNELS": 1, "BYTES": 1, "ZERO": 0}
        _gpu._run("slic_convert", len(pixels), pixels, range_, None, out, 1, len(pixels), 3, constants=constants)
        return out

    n = MANY // 3 + 1000
    x = np.zeros((n, 3), np.uint8)
    x[-3000:] = np.random.default_rng(0).integers(1, 255, (3000, 3))
    got, want = planes(x)[0, :, -3000:], whole(planes, x[-3000:])[0]
    there = got != 0
    assert there[:, -1].all()
    assert there.sum() > 700
    np.testing.assert_array_equal(got[there], want[there])


def test_labels_of_points(sampled: SampledBackend, whole: Callable[..., Any]) -> None:
    dims, count = 64, 9
    rng = np.random.default_rng(0)
    mean, centres = np.zeros(dims, np.float32), rng.normal(size=(count, dims)).astype(np.float32)
    half = (0.5 * (centres.astype(np.float64) ** 2).sum(1)).astype(np.float32)

    def labels(x: np.ndarray) -> np.ndarray:
        out, state = np.zeros(len(x), np.int32), np.zeros(3, np.int32)
        run = kernel("kmeans.cu", "kmeans_assign", real="float32")
        run((blocks(len(x), 128),), 256, x, mean, centres, half, out, state, len(x), dims, count)
        return out

    n = MANY // dims + 1000
    x = np.zeros((n, dims), np.float32)
    x[-3000:] = rng.normal(size=(3000, dims))
    got, want = labels(x)[-3000:], whole(labels, x[-3000:].copy())
    there = got != 0
    assert there[-300:].any()
    np.testing.assert_array_equal(got[there], want[there])
    distance = ((x[-300:, None] - centres) ** 2).sum(-1)
    np.testing.assert_array_equal(want[-300:], distance.argmin(1))


def test_product_with_an_affinity(sampled: SampledBackend, whole: Callable[..., Any]) -> None:
    """Both ways: weights that are made of the image in each product, and four vectors of every pixel."""
    from cv3gpu.affinity._gpu import of_image

    def product(images: np.ndarray, x: np.ndarray) -> np.ndarray:
        stencil = of_image(images, [(0, 1), (1, -1), (1, 0), (1, 1)], 1.0, [0.0] * 4)
        return stencil.step(x, _array.empty(x, x.shape))

    side = 23_200
    images, x = np.zeros((1, side, side, 1), np.float32), np.zeros((1, side * side, 4), np.float32)
    assert x.size > MANY
    tail = x.reshape(side, side, 4)[-TAIL:, -COLUMNS:]
    tail[...] = np.random.default_rng(0).integers(1, 8, tail.shape)
    got = product(images, x).reshape(side, side, 4)[-48:, -1000:]
    crop = np.ascontiguousarray(tail[None]).reshape(1, -1, 4)
    want = whole(product, np.zeros((1, TAIL, COLUMNS, 1), np.float32), crop).reshape(TAIL, COLUMNS, 4)[-48:, -1000:]
    there = got != 0
    assert there[-1, -1].all()
    assert there.sum() > 500
    np.testing.assert_array_equal(got[there], want[there])


def test_a_launch_says_what_does_not_fit() -> None:
    geometry = geometry_of("conv2d", "x", (2**16, 2**16), (3, 3), 1, 1, 1, 1)
    with pytest.raises(
        ValueError, match=r"^conv2d: x must have, .* under 2\*\*32 pixels on a GPU, got \(65536, 65536\); "
    ):
        check_pixels("conv2d", geometry)
    check_pixels("conv2d", geometry_of("conv2d", "x", (2**16, 2**16 - 1), (3, 3), 1, 1, 1, 1))


# ---- lint ----------------------------------------------------------------------------------------------------

# Sizes that a caller chooses, by the names that kernels have for them.
# fmt: off
EXTENTS = {
    "channels", "clusters", "cols", "count", "dims", "groups", "h_in", "h_out", "height", "images", "in_channels",
    "inner", "n", "nodes", "out_channels", "outer", "packed_pitch", "pitch", "pixels", "planes", "points",
    "problems", "row", "row_groups", "rows", "segments", "source_channels", "source_cols", "source_rows", "stride",
    "width", "w_in", "w_out", "within",
}
# fmt: on

# 32-bit products of two of them that stay small, and why.
SMALL = {
    ("conv.cu", "groups * channels"): "the output channels",
    ("conv_mma.cu", "groups * channels"): "the output channels",
    ("conv_depthwise.cu", "(unsigned)images * channels"): "planes, under 2^32",
    ("conv_geometry.cuh", "(unsigned)pixels.rows * pixels.cols"): "of a rectangle with under 2^31 pixels (rectangles)",
    ("eigen.cu", "n * n"): "of a small matrix in shared memory",
    ("message.cu", "nodes * width"): "of a block, in shared memory",
    ("message.cuh", "nodes * n"): "of a block, in shared memory",
    ("pyramid.cu", "rows * cols"): "of bins, at most 32 x 32",
    ("conv_depthwise.cu", "(unsigned)row_groups * (unsigned)cols"): "under 2^32 pixels (check_pixels)",
}

# 32-bit products with a block's number that stay below 2^31, by file and factor, and why.
BLOCKS = {
    ("affinity_product.cu", "GROUPS"): "vectors of a row",
    ("affinity_product.cu", "TILE"): "a row or column of an image",
    ("conv_depthwise.cu", "128"): "channels",
    ("conv_depthwise.cu", "8"): "a column of an image",
    ("conv_depthwise.cu", "blockDim.x"): "unsigned, and images have under 2^32 pixels",
    ("conv_depthwise.cu", "blockDim.y"): "planes, of which a grid has 65,535 times 8 at most",
    ("conv_depthwise_weight.cu", "CHANNELS"): "channels",
    ("conv_pack.cu", "32"): "channels",
    ("crf_grid.cu", "blockDim.y"): "unsigned: lines of images, each in some pieces",
    ("crf_pairs.cu", "CHUNK"): "channels",
    ("crf_rows.cu", "32"): "channels",
    ("kmeans.cu", "(THREADS / 32)"): "runs of 1,024 points",
    ("mean_shift.cu", "WARPS"): "points, of which mean_shift takes under 2^31",
    ("message.cu", "THREADS"): "weights of a layer",
    ("resize.cu", "BLOCK"): "rows or columns of an image",
    ("resize.cu", "cols"): "a column of an image",
    ("resize.cu", "rows"): "a row of an image",
    ("resize_conv.cu", "TILE"): "channels",
    ("resize_conv_mma.cu", "BN"): "channels",
    ("resize_conv_region.cu", "BN"): "channels",
    ("separable.cu", "BN"): "channels",
    ("separable_mma.cu", "BN"): "channels",
    ("pyramid.cu", "ROWS"): "a row of an image",
    ("pyramid.cu", "span"): "a column of an image",
    ("superpixel.cu", "TILE"): "a row or column of an image",
    ("upsample.cu", "BAND"): "a row of an image",
    ("upsample.cu", "CLASSES"): "channels",
    ("upsample.cu", "COLUMNS"): "a column of an image",
    ("upsample.cu", "LOSSES"): "a row of an image",
    ("upsample.cu", "ROWS"): "a row of an image",
    ("upsample.cu", "cols"): "a column of an image",
}

CODE = {
    path.name: re.sub(
        r"//[^\n]*", "", re.sub(r"/\*.*?\*/", lambda m: "\n" * m[0].count("\n"), path.read_text(), flags=re.S)
    )
    for path in sorted(KERNELS.glob("*.cu*"))
}
NAME = r"(?:\(\w+\))?[A-Za-z_]\w*(?:\.\w+)*"
PRODUCT = re.compile(rf"(?P<before>[*/%]\s*)?(?<![\w.)\]])(?P<chain>{NAME}(?:\s*\*\s*{NAME})+)(?!\w*[(\[])")
BLOCK = re.compile(
    r"(?P<cast>\(int64_t\)\s*)?(?:\(int\)\((?P<whole>blockIdx\.[xyz][^()*]*)\)|(?P<bare>blockIdx\.[xyz](?:\s*[%/]\s*\w+)*))"
    r"\s*\*\s*(?P<factor>\([^()]*\)|[\w.]+)"
)


def parts(code: str) -> list[str]:
    """The functions of a file, each with its own names."""
    return re.split(r"\n(?=template|extern|__device__|struct|static)", code)


def test_products_of_sizes_are_64_bits_wide() -> None:
    found = set()
    for file, code in CODE.items():
        for part in parts(code):
            wide = set(re.findall(r"\bint64_t\s+(?:\w+[^;(){}]*,\s*)?(\w+)", part))
            narrow = set(re.findall(r"\b(?:int|unsigned)\s+(\w+)", part)) - wide
            for match in PRODUCT.finditer(part):
                first, second, *_ = (f.strip() for f in match["chain"].split("*"))
                plain = [re.sub(r"\(\w+\)", "", f).rpartition(".")[2] for f in (first, second)]
                cast = any(f.startswith(("(int64_t)", "(double)")) for f in (first, second))
                if not (match["before"] or cast) and all(p in EXTENTS and p in narrow for p in plain):
                    found.add((file, f"{first} * {second}"))
    assert found - set(SMALL) == set(), "cast the first factor to int64_t, or say why the product is small"
    assert set(SMALL) - found == set(), "these are gone"


def test_products_with_a_block_are_64_bits_wide() -> None:
    found = set()
    for file, code in CODE.items():
        for part in parts(code):
            wide = set(re.findall(r"\bint64_t\s+(\w+)", part)) | set(re.findall(r"\bint64_t[^;(){}]*?,\s*(\w+)", part))
            for match in BLOCK.finditer(part):
                shrunk = match["whole"] or match["bare"]
                by = set(re.findall(r"[%/]\s*(\w+)", shrunk))
                widened = match["bare"] and (match["factor"] in wide or by & wide)
                if not (match["cast"] or widened):
                    found.add((file, match["factor"]))
    assert found - set(BLOCKS) == set(), "cast blockIdx to int64_t, or say why the product stays below 2^31"
    assert set(BLOCKS) - found == set(), "these are gone"


def test_the_lint_sees_what_it_looks_for() -> None:
    chains = [m["chain"] for m in PRODUCT.finditer("p[image * channels + c]; q = height * width; f(rows * 2)")]
    assert chains == ["image * channels", "height * width"]
    factors = [
        m["factor"] for m in BLOCK.finditer("int i = blockIdx.x * THREADS; int k = (int)(blockIdx.y % n) * rows;")
    ]
    assert factors == ["THREADS", "rows"]
    assert next(BLOCK.finditer("(int64_t)blockIdx.x * THREADS"))["cast"]


def test_numba_kernels_widen_the_block() -> None:
    """Integers are 64 bits wide there, but for CUDA's own indices."""
    for path in KERNELS.glob("*.py"):
        for line in path.read_text().splitlines():
            for _ in re.finditer(r"cuda\.(blockIdx|gridDim)\.\w", line):
                assert "int64(cuda." in line or "==" in line, (path.name, line)


# ---- on a GPU ------------------------------------------------------------------------------------------------


def ends(x: Any) -> tuple[slice, ...]:
    return (..., slice(-64, None), slice(-64, None))


GPU_CASES: dict[str, Callable[[Any], Any]] = {
    "interpolate": lambda x: cv3gpu.interpolate(x, size=tuple(x.shape[2:]), mode="bilinear"),
    "max_pool2d": lambda x: cv3gpu.max_pool2d(x, 2, stride=1, compact=True)[0],
    "conv2d": lambda x: cv3gpu.conv2d(x, x[:1, :1, -3:, -3:] * 0 + 1, padding=1),
}


@pytest.mark.parametrize("name", list(GPU_CASES))
@pytest.mark.parametrize("library", ["cupy", "torch"])
def test_just_above_on_a_gpu(name: str, library: str) -> None:
    need_torch_cuda() if library == "torch" else need_gpu()
    import importlib

    module = importlib.import_module(library)
    options = {"device": "cuda"} if library == "torch" else {}
    x = module.zeros((1, 1, SIDE, SIDE), dtype=module.float16, **options)
    x[ends(x)] = 3
    call = GPU_CASES[name]
    got = _array.to_host(call(x)[ends(x)])
    want = _array.to_host(call(_array.contiguous(x[..., -80:, -80:]))[ends(x)])
    np.testing.assert_array_equal(got[..., 2:, 2:], want[..., 2:, 2:])


@pytest.mark.parametrize("library", ["cupy", "torch"])
def test_labels_just_above_on_a_gpu(library: str) -> None:
    need_torch_cuda() if library == "torch" else need_gpu()
    import importlib

    module = importlib.import_module(library)
    options = {"device": "cuda"} if library == "torch" else {}
    n = MANY + 12_345
    a = module.zeros((n,), dtype=module.uint8, **options)
    b = module.zeros((n,), dtype=module.uint8, **options)
    a[-1000:], b[-777:] = 1, 1
    table = _array.to_host(cv3gpu.confusion_matrix(a, b, 2))
    assert table.tolist() == [[n - 1000, 223], [0, 777]]
