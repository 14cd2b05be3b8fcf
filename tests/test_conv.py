"""conv2d and its adjoints: CPU paths against torch in float64, kernels against it on every branch, refusals."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pytest
import torch

import cv3gpu
from cv3gpu import _array, conv
from tests.tolerance import assert_close

DTYPES = ("float32", "float64", "float16", "bfloat16")


class Case(NamedTuple):
    """A convolution: sizes and parameters."""

    n: int = 2
    channels: int = 8
    size: tuple[int, int] = (7, 9)
    out: int = 6
    kernel: tuple[int, int] = (3, 3)
    stride: tuple[int, int] = (1, 1)
    padding: Any = (1, 1)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1
    bias: bool = True
    mode: str = "zeros"
    scaled: bool = False
    activation: str | None = None

    def parameters(self) -> tuple[Any, ...]:
        return self.stride, self.padding, self.dilation, self.groups

    def borders(self) -> tuple[int, int, int, int]:
        return conv.padding_of("test", self.padding, self.kernel, self.stride, self.dilation)

    def output(self) -> tuple[int, int]:
        return conv.output_size(self.size, self.kernel, self.stride, self.borders(), self.dilation)


def draw(case: Case, dtype: str, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """x, weight, bias and a gradient, exactly representable in ``dtype``; the bias serves as scale, too."""
    rng = np.random.default_rng(seed)
    shapes = (
        (case.n, case.channels, *case.size),
        (case.out, case.channels // case.groups, *case.kernel),
        (case.out,),
        (case.n, case.out, *case.output()),
    )
    exact = getattr(torch, dtype)
    arrays = (torch.from_numpy(rng.standard_normal(s)).to(exact).to(torch.float64).numpy() for s in shapes)
    return tuple(arrays)  # type: ignore[return-value]


def padded(case: Case, x: Any) -> Any:
    """A tensor with what stands around it."""
    top, bottom, left, right = case.borders()
    mode = "constant" if case.mode == "zeros" else case.mode
    return torch.nn.functional.pad(x, (left, right, top, bottom), mode)


def reference(
    case: Case, x: np.ndarray, weight: np.ndarray, bias: np.ndarray | None, scale: np.ndarray | None = None
) -> np.ndarray:
    """The convolution of torch in float64, the padding done beforehand, the activation afterwards."""
    around = padded(case, torch.from_numpy(x))
    y = torch.nn.functional.conv2d(around, torch.from_numpy(weight), None, case.stride, 0, case.dilation, case.groups)
    for vector, join in ((scale, torch.mul), (bias, torch.add)):
        y = y if vector is None else join(y, torch.from_numpy(vector)[:, None, None])
    if case.activation:
        y = y.clamp(0, None if case.activation == "relu" else 6)
    return y.numpy()


def reference_adjoints(case: Case, x: np.ndarray, weight: np.ndarray, grad: np.ndarray) -> tuple[np.ndarray, ...]:
    """Both adjoints of the sums by torch's automatic differentiation in float64."""
    tx, tw = torch.from_numpy(x).requires_grad_(), torch.from_numpy(weight).requires_grad_()
    y = torch.nn.functional.conv2d(padded(case, tx), tw, None, case.stride, 0, case.dilation, case.groups)
    return tuple(g.numpy() for g in torch.autograd.grad(y, (tx, tw), torch.from_numpy(grad)))


def check(path: Any, case: Case, dtype: str, layout: str = "nchw", seed: int = 0) -> None:
    """Forward and both adjoints on one path against float64."""
    x, weight, bias, grad = draw(case, dtype, seed)
    taps = case.kernel[0] * case.kernel[1]
    ax, aw, ag = (path.array(a, dtype, layout) for a in (x, weight, grad))
    ab = path.array(bias, dtype) if case.bias else None

    factor = path.array(bias, dtype) if case.scaled else None
    mode = {"padding_mode": case.mode}
    y = cv3gpu.conv2d(ax, aw, ab, *case.parameters(), **mode, scale=factor, activation=case.activation)
    given = bias if case.bias else None, bias if case.scaled else None
    magnitude = (None if v is None else abs(v) for v in given)
    scale = reference(case._replace(activation=None), abs(x), abs(weight), *magnitude)
    terms = case.channels // case.groups * taps + 1
    assert_close(path.numpy(y), reference(case, x, weight, *given), dtype, terms, scale)
    if layout == "nhwc" and case.channels > 1:
        assert _array.memory_format(y) == "nhwc" or 1 in y.shape

    wanted = reference_adjoints(case, x, weight, grad)
    scales = reference_adjoints(case, abs(x), abs(weight), abs(grad))
    dx = cv3gpu.conv2d_adjoint_input(ag, aw, case.size, *case.parameters(), **mode)
    assert_close(path.numpy(dx), wanted[0], dtype, case.out // case.groups * taps, scales[0])
    dw = cv3gpu.conv2d_adjoint_weight(ag, ax, case.kernel, *case.parameters(), **mode)
    assert_close(path.numpy(dw), wanted[1], dtype, case.n * case.output()[0] * case.output()[1], scales[1])


def random_case(rng: np.random.Generator, side: int = 16, channels: int = 6) -> Case:
    """Any convolution of moderate size that has a result; of up to so many channels a group."""
    while True:
        groups = int(rng.choice([1, 1, 1, 2, 3, 4]))
        per_group, multiple = int(rng.integers(1, channels + 1)), int(rng.integers(1, channels + 1))
        kernel = tuple(int(k) for k in rng.integers(1, 6, 2))
        dilation = tuple(int(k) for k in rng.integers(1, 4, 2))
        stride = (1, 1) if rng.random() < 0.5 else tuple(int(k) for k in rng.integers(1, 4, 2))
        kind = rng.random()
        if kind < 0.15 and stride == (1, 1):
            padding: Any = "same"
        elif kind < 0.3:
            padding = tuple(int(k) for k in rng.integers(0, 4, 4))
        else:
            padding = tuple(int(k) for k in rng.integers(0, 4, 2))
        mode = str(rng.choice(["zeros", "zeros", "reflect", "replicate", "circular"]))
        activation = [None, None, "relu", "relu6"][int(rng.integers(4))]
        size = tuple(int(k) for k in rng.integers(3, side + 1, 2))
        case = Case(
            int(rng.integers(1, 4)), groups * per_group, size, groups * multiple, kernel, stride, padding, dilation,
            groups, bool(rng.random() < 0.5), mode, bool(rng.random() < 0.3), activation,
        )  # fmt: skip
        around = case.borders()
        fits = all(max(around[2 * a : 2 * a + 2]) <= size[a] - (mode == "reflect") for a in (0, 1))
        if min(case.output()) > 0 and (fits or mode in ("zeros", "replicate")):
            return case


# One case per branch of the kernels and of their launch arithmetic.
GENERAL = {
    "plain": Case(),
    "one pixel": Case(n=1, channels=1, size=(1, 1), out=1, kernel=(1, 1), padding=(0, 0)),
    "stride, dilation and padding differ by axis": Case(size=(11, 8), stride=(2, 3), padding=(2, 1), dilation=(1, 2)),
    "even kernel, same": Case(kernel=(2, 4), padding="same"),
    "four paddings": Case(padding=(0, 2, 3, 1)),
    "groups": Case(channels=12, out=6, groups=3),
    "plane a multiple of 8": Case(size=(8, 8), channels=4, out=8, kernel=(3, 3)),
    "channels a multiple of 8": Case(channels=16, out=24, size=(5, 6)),
    "groups of 8": Case(channels=16, out=16, groups=2, size=(6, 5)),
    "more than one tile of channels": Case(n=1, channels=9, out=70, size=(6, 6), bias=False),
    "taps out of reach": Case(n=1, channels=4, out=4, size=(5, 5), padding=(12, 12), dilation=(12, 12)),
    "first layer": Case(channels=3, out=16, size=(12, 12), kernel=(7, 7), stride=(2, 2), padding=(3, 3)),
    "long sum": Case(n=1, channels=72, out=8, size=(5, 4)),
    "many pixels": Case(n=3, channels=4, out=4, size=(17, 13)),
    "pointwise": Case(channels=24, out=16, kernel=(1, 1), padding=(0, 0)),
    "reflect": Case(size=(6, 8), padding=(2, 3), dilation=(1, 2), mode="reflect"),
    "replicate": Case(size=(3, 5), padding=(4, 0, 1, 6), stride=(2, 1), mode="replicate"),
    "circular": Case(size=(4, 6), channels=16, padding=(4, 3), kernel=(5, 3), mode="circular"),
    "border and groups of 8": Case(channels=16, out=16, groups=2, size=(6, 4), mode="reflect"),
    "border of zero pixels": Case(padding=(0, 0), mode="reflect"),
    "scale and bias": Case(scaled=True),
    "scale and relu": Case(channels=16, out=24, size=(5, 6), scaled=True, bias=False, activation="relu"),
    "relu6": Case(size=(8, 8), channels=24, out=8, activation="relu6"),
    "pointwise, relu": Case(
        channels=32, out=40, size=(4, 6), kernel=(1, 1), padding=(0, 0), scaled=True, activation="relu"
    ),
    "pointwise, groups": Case(channels=32, out=16, size=(4, 6), kernel=(1, 1), padding=(0, 0), groups=2),
    "pointwise, strided": Case(channels=16, out=8, kernel=(1, 1), padding=(0, 0), stride=(2, 2)),
    "more than 64 taps": Case(n=1, channels=2, out=2, size=(9, 9), kernel=(9, 8), padding=(4, 4)),
}
DEPTHWISE = {
    "3x3": Case(channels=8, out=8, groups=8, size=(11, 9)),
    "3x3 dilated": Case(channels=4, out=4, groups=4, size=(15, 7), padding=(3, 2), dilation=(3, 2)),
    "3x3 strided": Case(channels=4, out=4, groups=4, stride=(2, 2), size=(9, 9)),
    "5x5": Case(channels=4, out=4, groups=4, kernel=(5, 5), padding=(2, 2)),
    "5x5 strided": Case(channels=4, out=4, groups=4, kernel=(5, 5), padding=(2, 2), stride=(1, 2)),
    "any kernel": Case(channels=4, out=4, groups=4, kernel=(4, 3), padding="same"),
    "any kernel strided": Case(channels=4, out=4, groups=4, kernel=(1, 7), padding=(0, 3), stride=(2, 1)),
    "multiplier": Case(channels=3, out=9, groups=3, size=(8, 8)),
    "multiplier strided": Case(channels=3, out=6, groups=3, stride=(2, 2)),
    "channels past 128": Case(n=1, channels=132, out=132, groups=132, size=(4, 3)),
    "odd channels": Case(channels=5, out=5, groups=5),
    "wide plane": Case(n=1, channels=2, out=2, groups=2, size=(5, 70)),
    "reflect": Case(channels=8, out=8, groups=8, size=(6, 7), padding=(3, 2), dilation=(3, 2), mode="reflect"),
    "replicate, strided": Case(channels=4, out=4, groups=4, stride=(2, 2), padding=(3, 4), mode="replicate"),
    "circular, any kernel": Case(channels=4, out=4, groups=4, kernel=(4, 3), padding=(1, 2), mode="circular"),
    "scale and relu6": Case(channels=8, out=8, groups=8, scaled=True, activation="relu6"),
}
KERNEL_CASES = {**GENERAL, **{f"depthwise {name}": case for name, case in DEPTHWISE.items()}}


@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", KERNEL_CASES)
def test_kernels_agree_with_float64(kernel_path: Any, name: str, dtype: str, layout: str) -> None:
    check(kernel_path, KERNEL_CASES[name], dtype, layout)


@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("size", [(9, 15), (8, 16)])
def test_large_tile(
    kernel_path: Any, monkeypatch: pytest.MonkeyPatch, dtype: str, layout: str, size: tuple[int, int]
) -> None:
    monkeypatch.setattr(conv._gpu, "_tile", lambda *_: 128)
    monkeypatch.setattr(conv._gpu, "compute_capability", lambda _: 75)  # 16-bit inputs, too, on the ordinary cores
    check(kernel_path, Case(n=1, channels=12, out=132, size=size), dtype, layout)


def test_blocks_that_do_several_images(kernel_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """More images and planes than a grid has rows: each block takes several, one after the other."""
    monkeypatch.setattr(conv._gpu, "MAX_GRID_YZ", 2)
    check(kernel_path, Case(n=5, channels=40, size=(6, 7)), "float16")
    for layout in ("nchw", "nhwc"):
        check(
            kernel_path,
            Case(n=5, channels=4, out=4, groups=4, size=(1, 9), padding=(0, 1), kernel=(1, 3)),
            "float32",
            layout,
        )


@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("capability", [75, 86, 90])
def test_every_architecture_has_a_path(
    host_backend: Any, monkeypatch: pytest.MonkeyPatch, dtype: str, layout: str, capability: int
) -> None:
    from tests.conftest import PATHS

    monkeypatch.setattr(host_backend, "capability", capability, raising=False)
    check(PATHS["host"], Case(channels=20, out=136, size=(6, 5)), dtype, layout)


# ---- pixels by tap class --------------------------------------------------------------------------------


def by_class(case: Case, tile: int = 64, adjoint: bool = False) -> bool:
    """Whether a launch takes the pixels in nine rectangles."""
    geometry = conv.geometry_of("test", "x", case.size, case.kernel, *case.parameters())
    gpu = conv._gpu
    return gpu._tiles(geometry, case.n, tile, adjoint, pointwise=True, by_class=True).plan == gpu.BY_CLASS


@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
@pytest.mark.parametrize(("dtype", "channels"), [("float32", 4), ("float64", 5), ("float16", 16), ("bfloat16", 3)])
def test_pixels_by_tap_class(kernel_path: Any, dtype: str, channels: int, layout: str) -> None:
    case = Case(n=2, channels=channels, size=(24, 21), out=6, padding=(18, 15), dilation=(18, 15))
    assert by_class(case) and by_class(case, adjoint=True) and by_class(case, 128)
    check(kernel_path, case, dtype, layout)


def test_pixels_by_tap_class_of_other_kernels(kernel_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever an axis has three runs at most: steps, even kernels, a padding that is not the dilation."""
    monkeypatch.setattr(conv._gpu, "_skips", lambda geometry, images, tile, adjoint: (
        not (adjoint and geometry.stride != (1, 1)) and conv.tile_steps(geometry, images, tile, adjoint)[1] > 0
    ))  # fmt: skip
    cases = (
        Case(size=(11, 9), stride=(2, 3), padding=(3, 2), dilation=(4, 1)),
        Case(size=(9, 10), kernel=(2, 1), padding=(3, 0), dilation=(5, 1), groups=2),
        Case(size=(9, 7), padding=(0, 3, 2, 0), dilation=(2, 2), scaled=True, activation="relu"),
    )
    for case in cases:
        for dtype in ("float32", "float16"):
            check(kernel_path, case, dtype, "nhwc")


@pytest.mark.parametrize(
    ("name", "size", "rate", "least"), [("D3", 65, 12, 1.02), ("D4", 65, 36, 1.3), ("M3", 33, 24, 1.15)]
)
def test_tap_classes_save_tile_steps(name: str, size: int, rate: int, least: float) -> None:
    """The count of (tile, tap) pairs of DeepLab's branches at batch 8, of which padding has the rest of 9 a tile."""
    geometry = conv.geometry_of("test", "x", (size, size), (3, 3), 1, rate, rate, 1)
    in_order, classed = conv.tile_steps(geometry, 8, 128, False)
    every = 9 * -(-8 * size * size // 128)
    print(f"{name}: {every} tile-steps with all taps, {in_order} in order, {classed} by tap class")
    assert classed * least <= in_order <= every
    useful = geometry.useful(False)
    assert abs(useful - ((3 * size - 2 * rate) / (3 * size)) ** 2) < 1e-12
    assert useful * every <= classed <= useful * every * 1.05 + 9 * 9
    assert conv.tile_steps(geometry, 8, 128, True) == (in_order, classed)


def test_tile_steps_against_a_search() -> None:
    """By brute force over tiles, pixels and taps, forward and transposed."""
    for case in (
        Case(n=3, size=(9, 8), padding=(4, 5), dilation=(4, 5)),
        Case(n=1, size=(7, 9), stride=(1, 1), padding=(2, 0)),
    ):
        geometry = conv.geometry_of("test", "x", case.size, case.kernel, *case.parameters())
        for adjoint in (False, True):
            (rows, cols), (high, wide) = case.output(), case.size
            if adjoint:
                (rows, cols), (high, wide) = case.size, case.output()
            sign, total = -1 if adjoint else 1, 0
            pixels = [(i, j) for _ in range(case.n) for i in range(rows) for j in range(cols)]
            for start in range(0, len(pixels), 16):
                met = {
                    (r, s) for i, j in pixels[start : start + 16] for r in range(3) for s in range(3)
                    if 0 <= i + sign * (r * case.dilation[0] - case.padding[0]) < high
                    and 0 <= j + sign * (s * case.dilation[1] - case.padding[1]) < wide
                }  # fmt: skip
                total += len(met)
            assert conv.tile_steps(geometry, case.n, 16, adjoint)[0] == total


# ---- TF32, borders, epilogues -----------------------------------------------------------------------------


@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
@pytest.mark.parametrize("case", [
    Case(channels=20, out=72, size=(6, 5)), Case(channels=6, out=5, groups=1, stride=(2, 1)),
    Case(channels=16, out=24, kernel=(1, 1), padding=(0, 0), scaled=True, activation="relu"),
    Case(channels=16, out=6, groups=2, size=(5, 4), mode="circular"),
    Case(n=2, channels=4, size=(24, 21), out=6, padding=(18, 15), dilation=(18, 15)),
], ids=["tiles", "strided", "pointwise", "border", "classes"])  # fmt: skip
def test_tf32_is_used_where_it_is_allowed_and_there_alone(kernel_path: Any, case: Case, layout: str) -> None:
    x, weight, bias, grad = draw(case, "float32", 2)
    ax, aw, ag = (path_array(kernel_path, a, layout) for a in (x, weight, grad))
    vectors = [kernel_path.array(bias, "float32"), kernel_path.array(bias, "float32") if case.scaled else None]
    mode = {"padding_mode": case.mode}
    given = bias, bias if case.scaled else None
    wanted = reference(case, x, weight, *given), reference_adjoints(case, x, weight, grad)[0]
    magnitudes = (None if v is None else abs(v) for v in given)
    scales = (
        reference(case._replace(activation=None), abs(x), abs(weight), *magnitudes),
        reference_adjoints(case, abs(x), abs(weight), abs(grad))[0],
    )
    for allowed in (True, False):
        options = {**mode, "allow_tf32": allowed}
        got = (
            cv3gpu.conv2d(
                ax, aw, vectors[0], *case.parameters(), scale=vectors[1], activation=case.activation, **options
            ),
            cv3gpu.conv2d_adjoint_input(ag, aw, case.size, *case.parameters(), **options),
        )
        for result, want, scale in zip(got, wanted, scales, strict=True):
            error = abs(kernel_path.numpy(result).astype(np.float64) - want)
            assert (error <= (2.0**-10 if allowed else 2.0**-20) * scale + 1e-30).all()
            assert (error.max() > 1e-6 * scale.max()) == allowed


def path_array(path: Any, values: np.ndarray, layout: str) -> Any:
    return path.array(values, "float32", layout)


@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
@pytest.mark.parametrize("case", [
    Case(), Case(channels=24, out=16, kernel=(1, 1), padding=(0, 0), size=(4, 6)), Case(channels=8, out=8, groups=8),
    Case(channels=6, out=12, groups=6, kernel=(2, 3)), Case(channels=16, out=8, groups=2, stride=(2, 2)),
], ids=["dense", "pointwise", "depthwise", "multiplier", "strided"])  # fmt: skip
def test_results_into_a_part_of_the_channels(kernel_path: Any, case: Case, dtype: str, layout: str) -> None:
    """A branch writes its channels of a concatenation, with the image's own bias, and no others."""
    x, weight, bias, _ = draw(case, dtype, 1)
    own = np.random.default_rng(2).integers(-3, 4, (case.n, case.out)).astype(float)
    out = kernel_path.array(np.full((case.n, case.out + 16, *case.output()), 7.0), dtype, layout)
    geometry = conv.geometry_of("test", "x", case.size, case.kernel, *case.parameters())
    vector, first = kernel_path.array(bias, dtype), 8
    conv.forward_into(
        kernel_path.array(x, dtype, layout), kernel_path.array(weight, dtype), vector, geometry, out, first,
        scale=vector, activation="relu6", image_bias=kernel_path.array(own, dtype),
    )  # fmt: skip
    got = kernel_path.numpy(out)
    plain = case._replace(activation=None)
    wanted = np.clip(reference(plain, x, weight, bias, bias) + own[:, :, None, None], 0, 6)
    scale = reference(plain, abs(x), abs(weight), abs(bias), abs(bias)) + abs(own)[:, :, None, None]
    assert_close(got[:, first : first + case.out], wanted, dtype, 100, scale)
    assert (got[:, :first] == 7).all() and (got[:, first + case.out :] == 7).all()


@pytest.mark.parametrize("mode", ["zeros", "reflect", "replicate", "circular"])
def test_padding_modes_are_those_of_numpys_pad(path: Any, mode: str) -> None:
    """A kernel of one tap takes a pixel of the padded image."""
    x = np.arange(20.0).reshape(1, 1, 4, 5)
    words = {"zeros": "constant", "replicate": "edge", "circular": "wrap"}
    wanted = np.pad(x, ((0, 0), (0, 0), (3, 2), (1, 4)), words.get(mode, mode))
    one = path.array(np.ones((1, 1, 1, 1)), "float32")
    y = cv3gpu.conv2d(path.array(x, "float32"), one, padding=(3, 2, 1, 4), padding_mode=mode)
    np.testing.assert_array_equal(path.numpy(y), wanted)


def test_not_a_number_passes_the_activation(path: Any) -> None:
    x = path.array(np.array([np.nan, -1.0, np.inf, 3.0]).reshape(1, 1, 2, 2), "float32")
    one = path.array(np.ones((1, 1, 1, 1)), "float32")
    for activation, most in (("relu", np.inf), ("relu6", 6.0)):
        y = path.numpy(cv3gpu.conv2d(x, one, activation=activation)).reshape(-1)
        np.testing.assert_array_equal(y, [np.nan, 0.0, most, 3.0])


def test_views_with_any_strides(path: Any) -> None:
    """Steps, transposes, broadcast and reversed axes: the kernels read through strides, or a dense copy is made."""
    case = Case(n=2, channels=4, size=(6, 5), out=4)
    x, weight, _, grad = draw(case, "float32", 3)
    wanted = reference(case, x, weight, None)

    def spread(a: np.ndarray) -> Any:
        wide = np.zeros((*a.shape[:3], 2 * a.shape[3]))
        wide[..., ::2] = a
        return path.array(wide, "float32")[..., ::2]

    aw = path.array(weight, "float32")
    for view in (spread(x), path.permuted(path.array(x.transpose(2, 3, 1, 0), "float32"), 3, 2, 0, 1)):
        y = cv3gpu.conv2d(view, aw, None, *case.parameters())
        assert_close(path.numpy(y), wanted, "float32", 36, reference(case, abs(x), abs(weight), None))
    dx = cv3gpu.conv2d_adjoint_input(spread(grad), spread(weight), case.size, *case.parameters())
    assert_close(path.numpy(dx), reference_adjoints(case, x, weight, grad)[0], "float32", 36, 40.0)
    if path.library != "torch":  # torch has no negative strides
        flipped = path.array(x[:, :, ::-1, ::-1].copy(), "float32")[:, :, ::-1, ::-1]
        y = cv3gpu.conv2d(flipped, aw, None, *case.parameters())
        assert_close(path.numpy(y), wanted, "float32", 36, reference(case, abs(x), abs(weight), None))


def test_results_keep_the_memory_format(path: Any) -> None:
    from cv3gpu._array import memory_format

    case = Case(channels=8, out=6)
    x, weight, _, grad = draw(case, "float32", 0)
    for layout in ("nchw", "nhwc"):
        ax, aw, ag = (path.array(a, "float32", layout) for a in (x, weight, grad))
        assert memory_format(cv3gpu.conv2d(ax, aw, None, *case.parameters())) == layout
        assert memory_format(cv3gpu.conv2d_adjoint_input(ag, aw, case.size, *case.parameters())) == layout
        assert memory_format(cv3gpu.conv2d_adjoint_weight(ag, ax, case.kernel, *case.parameters())) == "nchw"


@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
def test_no_images_launch_nothing(path: Any, layout: str) -> None:
    x = path.array(np.zeros((0, 4, 5, 5)), "float32", layout)
    weight = path.array(np.ones((6, 4, 3, 3)), "float32")
    y = cv3gpu.conv2d(x, weight)
    assert tuple(y.shape) == (0, 6, 3, 3)
    assert tuple(cv3gpu.conv2d_adjoint_input(y, weight, (5, 5)).shape) == (0, 4, 5, 5)
    dw = cv3gpu.conv2d_adjoint_weight(y, x, (3, 3))
    assert tuple(dw.shape) == (6, 4, 3, 3)
    assert not path.numpy(dw).any()


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_same_result_in_any_order_of_threads(dtype: str) -> None:
    """Run to run: no sum depends on the schedule, so two shuffled runs agree to the bit."""
    from cv3gpu._array import host_backend
    from tests.conftest import PATHS
    from tests.hostrun import HostBackend

    case = Case(n=2, channels=16, out=12, size=(9, 9))
    x, weight, _, grad = draw(case, dtype, 0)
    path, results = PATHS["host"], []
    for seed in (1, 2):
        token = host_backend.set(HostBackend(mode="fast", order="random", seed=seed))
        try:
            ax, aw, ag = (path.array(a, dtype) for a in (x, weight, grad))
            results.append(
                (
                    cv3gpu.conv2d(ax, aw, None, *case.parameters()),
                    cv3gpu.conv2d_adjoint_input(ag, aw, case.size, *case.parameters()),
                    cv3gpu.conv2d_adjoint_weight(ag, ax, case.kernel, *case.parameters()),
                )
            )
        finally:
            host_backend.reset(token)
    for first, second in zip(*results, strict=True):
        assert first.tobytes() == second.tobytes()


def test_adjoints_are_adjoint(path: Any) -> None:
    """⟨conv2d(x, w), g⟩ = ⟨x, adjoint_input(g, w)⟩ = ⟨w, adjoint_weight(g, x)⟩ in float64."""
    for case in (Case(), Case(stride=(2, 1), dilation=(1, 2), padding=(0, 1, 2, 0)), DEPTHWISE["3x3 dilated"]):
        x, weight, _, grad = draw(case, "float64", 5)
        ax, aw, ag = (path.array(a, "float64") for a in (x, weight, grad))
        left = (path.numpy(cv3gpu.conv2d(ax, aw, None, *case.parameters())) * grad).sum()
        dx = path.numpy(cv3gpu.conv2d_adjoint_input(ag, aw, case.size, *case.parameters()))
        dw = path.numpy(cv3gpu.conv2d_adjoint_weight(ag, ax, case.kernel, *case.parameters()))
        size = np.abs(grad).sum() * np.abs(weight).sum()
        assert_close(np.array([(x * dx).sum(), (weight * dw).sum()]), np.array([left, left]), "float64", 100, size)


def test_shift_moves_the_result(path: Any) -> None:
    """Equivariance: away from the border, a moved image gives the moved result, to the bit."""
    x = np.random.default_rng(0).standard_normal((1, 3, 12, 12))
    weight = np.random.default_rng(1).standard_normal((4, 3, 3, 3))
    moved = np.roll(x, (2, 1), (2, 3))
    aw = path.array(weight, "float32")
    y, z = (path.numpy(cv3gpu.conv2d(path.array(a, "float32"), aw)) for a in (x, moved))
    np.testing.assert_array_equal(np.roll(y, (2, 1), (2, 3))[:, :, 2:, 1:], z[:, :, 2:, 1:])


def test_linear_in_the_image(path: Any) -> None:
    case = Case()
    x, weight, _, _ = draw(case, "float64", 0)
    other = draw(case, "float64", 1)[0]
    aw = path.array(weight, "float64")
    y = [path.numpy(cv3gpu.conv2d(path.array(a, "float64"), aw)) for a in (x, other, 2 * x - 3 * other)]
    assert_close(y[2], 2 * y[0] - 3 * y[1], "float64", 72, 200.0)


# ---- refusals -------------------------------------------------------------------------------------------

X = np.ones((2, 4, 6, 5), np.float32)
W = np.ones((6, 2, 3, 3), np.float32)
G = np.ones((2, 6, 4, 3), np.float32)

FORWARD_REFUSALS = [
    (lambda: cv3gpu.conv2d(X.tolist(), W), TypeError, "x must be a NumPy, CuPy or torch array, got list"),
    (lambda: cv3gpu.conv2d(None, W), TypeError, "x must be a NumPy, CuPy or torch array, got None"),
    (lambda: cv3gpu.conv2d(1.0, W), TypeError, "x must be a NumPy, CuPy or torch array, got float"),
    (lambda: cv3gpu.conv2d(X, "W"), TypeError, "weight must be a NumPy, CuPy or torch array, got str"),
    (lambda: cv3gpu.conv2d(X, W, 1.0), TypeError, "bias must be a NumPy, CuPy or torch array, got float"),
    (lambda: cv3gpu.conv2d(np.ma.array(X), W), TypeError, "x must be a NumPy, CuPy or torch array, got MaskedArray"),
    (lambda: cv3gpu.conv2d(X.astype(">f4"), W), TypeError, "x must be in native byte order, got >f4"),
    (lambda: cv3gpu.conv2d(X, torch.ones(6, 2, 3, 3)), TypeError,
     "all arrays must be of one library and on one device, got x is numpy on cpu, weight is torch on cpu"),
    (lambda: cv3gpu.conv2d(X.astype(int), W), TypeError, "x must have dtype float16 or bfloat16 or float32 or float64, got int64"),
    (lambda: cv3gpu.conv2d(X.astype(bool), W), TypeError, "x must have dtype .*, got bool"),
    (lambda: cv3gpu.conv2d(X.astype(complex), W), TypeError, "x must have dtype .*, got complex128"),
    (lambda: cv3gpu.conv2d(X, W.astype(int)), TypeError, "weight must have dtype .*, got int64"),
    (lambda: cv3gpu.conv2d(X, W.astype(np.float64), groups=2), TypeError, r"weight must have the dtype of x \(float32\), got float64"),
    (lambda: cv3gpu.conv2d(X, W, np.ones(6), groups=2), TypeError, r"bias must have the dtype of x \(float32\), got float64"),
    (lambda: cv3gpu.conv2d(X[0], W), ValueError, r"x must have shape \[N, C, H, W\], got \(4, 6, 5\)"),
    (lambda: cv3gpu.conv2d(np.array(1, np.float32), W), ValueError, r"x must have shape \[N, C, H, W\], got \(\)"),
    (lambda: cv3gpu.conv2d(X, W[0]), ValueError, r"weight must have shape \[Cout, C / groups, kh, kw\], got \(2, 3, 3\)"),
    (lambda: cv3gpu.conv2d(X, W), ValueError, r"weight must have shape \[Cout, 4, kh, kw\] to match x \(2, 4, 6, 5\), got \(6, 2, 3, 3\)"),
    (lambda: cv3gpu.conv2d(X, W[:, :, :0]), ValueError, r"weight must have no empty dimension, got \(6, 2, 0, 3\)"),
    (lambda: cv3gpu.conv2d(X, W, np.ones(5, np.float32), groups=2), ValueError, r"bias must have shape \[6\], got \(5,\)"),
    (lambda: cv3gpu.conv2d(X, W, groups=4), ValueError, r"groups must divide Cout \(6\), got 4"),
    (lambda: cv3gpu.conv2d(X, W, groups=0), ValueError, "groups must be from 1 to 2147483647, got 0"),
    (lambda: cv3gpu.conv2d(X, W, groups=2.0), TypeError, r"groups must be an integer, got 2.0 \(float\)"),
    (lambda: cv3gpu.conv2d(X, W, groups=True), TypeError, r"groups must be an integer, got True \(bool\)"),
    (lambda: cv3gpu.conv2d(X, W, groups=2, stride=0), ValueError, "stride must be from 1 to 2147483647, got 0"),
    (lambda: cv3gpu.conv2d(X, W, groups=2, stride=1.5), TypeError, r"stride must be an integer or a pair of integers, got 1.5"),
    (lambda: cv3gpu.conv2d(X, W, groups=2, stride=(1, 2, 3)), ValueError, r"stride must be an integer or a pair of integers, got \(1, 2, 3\)"),
    (lambda: cv3gpu.conv2d(X, W, groups=2, dilation=(1, -1)), ValueError, "dilation must be from 1 to 2147483647, got -1"),
    (lambda: cv3gpu.conv2d(X, W, groups=2, dilation=2**40), ValueError, "dilation must be from 1 to 2147483647, got 1099511627776"),
    (lambda: cv3gpu.conv2d(X, W, groups=2, padding=-1), ValueError, "padding must be from 0 to 2147483647, got -1"),
    (lambda: cv3gpu.conv2d(X, W, groups=2, padding=(1, 1, 1)), ValueError, r"padding must be an integer, a pair, .*, got \(1, 1, 1\)"),
    (lambda: cv3gpu.conv2d(X, W, groups=2, padding="full"), ValueError, "padding must be one of 'same', 'valid', got 'full'"),
    (lambda: cv3gpu.conv2d(X, W, groups=2, padding="same", stride=2), ValueError, "padding must be a number where stride is not 1, got 'same'"),
    (lambda: cv3gpu.conv2d(X, W, groups=2, dilation=4), ValueError, r"x must be at least the dilated kernel's size \(9, 9\) with its padding, got \(6, 5\)"),
    (lambda: cv3gpu.conv2d(X, W, groups=2, padding=2**30), ValueError, r"padding must leave the padded image under 2\*\*31 rows and columns, got \(2147483654, 2147483653\)"),
    (lambda: cv3gpu.conv2d(X, W, groups=2, padding_mode="mirror"), ValueError, "padding_mode must be one of 'zeros', 'reflect', .*, got 'mirror'"),
    (lambda: cv3gpu.conv2d(X, W, groups=2, padding=5, padding_mode="reflect"), ValueError, r"padding must be at most 4 for 5 pixels where padding_mode is 'reflect', got \(5, 5, 5, 5\)"),
    (lambda: cv3gpu.conv2d(X, W, groups=2, padding=(0, 7), padding_mode="circular"), ValueError, "padding must be at most 5 for 5 pixels where padding_mode is 'circular'"),
    (lambda: cv3gpu.conv2d(X, W, groups=2, scale=2.0), TypeError, "scale must be a NumPy, CuPy or torch array, got float"),
    (lambda: cv3gpu.conv2d(X, W, groups=2, scale=np.ones(6)), TypeError, r"scale must have the dtype of x \(float32\), got float64"),
    (lambda: cv3gpu.conv2d(X, W, groups=2, scale=np.ones(4, np.float32)), ValueError, r"scale must have shape \[6\], got \(4,\)"),
    (lambda: cv3gpu.conv2d(X, W, groups=2, activation="gelu"), ValueError, "activation must be one of 'relu', 'relu6', got 'gelu'"),
    (lambda: cv3gpu.conv2d(X, W, groups=2, allow_tf32=1), TypeError, r"allow_tf32 must be True or False, got 1 \(int\)"),
    (lambda: cv3gpu.conv2d(X[:, :, :0], W, groups=2), ValueError, r"x must be at least the dilated kernel's size \(3, 3\) with its padding, got \(0, 5\)"),
]  # fmt: skip

INPUT_REFUSALS = [
    (lambda: cv3gpu.conv2d_adjoint_input([1], W, (6, 5)), TypeError, "grad must be a NumPy, CuPy or torch array, got list"),
    (lambda: cv3gpu.conv2d_adjoint_input(G, None, (6, 5)), TypeError, "weight must be a NumPy, CuPy or torch array, got None"),
    (lambda: cv3gpu.conv2d_adjoint_input(np.ma.array(G), W, (6, 5)), TypeError, "grad must be .* array, got MaskedArray"),
    (lambda: cv3gpu.conv2d_adjoint_input(G.astype(">f4"), W, (6, 5)), TypeError, "grad must be in native byte order, got >f4"),
    (lambda: cv3gpu.conv2d_adjoint_input(torch.ones(2, 6, 4, 3), W, (6, 5)), TypeError, "grad is torch on cpu, weight is numpy on cpu"),
    (lambda: cv3gpu.conv2d_adjoint_input(G.astype(int), W, (6, 5)), TypeError, "grad must have dtype .*, got int64"),
    (lambda: cv3gpu.conv2d_adjoint_input(G.astype(complex), W, (6, 5)), TypeError, "grad must have dtype .*, got complex128"),
    (lambda: cv3gpu.conv2d_adjoint_input(G, W.astype(np.uint8), (6, 5)), TypeError, "weight must have dtype .*, got uint8"),
    (lambda: cv3gpu.conv2d_adjoint_input(G, W.astype(np.float16), (6, 5)), TypeError, r"weight must have the dtype of grad \(float32\), got float16"),
    (lambda: cv3gpu.conv2d_adjoint_input(G[0], W, (6, 5)), ValueError, r"grad must have shape \[N, Cout, Ho, Wo\], got \(6, 4, 3\)"),
    (lambda: cv3gpu.conv2d_adjoint_input(G, W[0], (6, 5)), ValueError, r"weight must have shape \[Cout, C / groups, kh, kw\]"),
    (lambda: cv3gpu.conv2d_adjoint_input(G, W[:, :0], (6, 5)), ValueError, r"weight must have no empty dimension, got \(6, 0, 3, 3\)"),
    (lambda: cv3gpu.conv2d_adjoint_input(G, W, (7, 5), groups=2), ValueError, r"grad must have shape \[N, 6, 5, 3\], got \(2, 6, 4, 3\)"),
    (lambda: cv3gpu.conv2d_adjoint_input(G[:, :4], W, (6, 5), groups=2), ValueError, r"grad must have shape \[N, 6, 4, 3\], got \(2, 4, 4, 3\)"),
    (lambda: cv3gpu.conv2d_adjoint_input(G, W, 6.0, groups=2), TypeError, "input_size must be an integer or a pair of integers, got 6.0"),
    (lambda: cv3gpu.conv2d_adjoint_input(G, W, "65", groups=2), TypeError, "input_size must be an integer or a pair of integers, got '65'"),
    (lambda: cv3gpu.conv2d_adjoint_input(G, W, (6, 5, 1), groups=2), ValueError, r"input_size must be an integer or a pair of integers, got \(6, 5, 1\)"),
    (lambda: cv3gpu.conv2d_adjoint_input(G, W, (0, 5), groups=2), ValueError, "input_size must be from 1 to 2147483647, got 0"),
    (lambda: cv3gpu.conv2d_adjoint_input(G, W, (6, 5), groups=4), ValueError, r"groups must divide Cout \(6\), got 4"),
    (lambda: cv3gpu.conv2d_adjoint_input(G, W, (6, 5), groups=None), TypeError, "groups must be an integer, got None"),
    (lambda: cv3gpu.conv2d_adjoint_input(G, W, (6, 5), stride=-2), ValueError, "stride must be from 1 to 2147483647, got -2"),
    (lambda: cv3gpu.conv2d_adjoint_input(G, W, (6, 5), dilation=0), ValueError, "dilation must be from 1 to 2147483647, got 0"),
    (lambda: cv3gpu.conv2d_adjoint_input(G, W, (6, 5), padding=(0, -1)), ValueError, "padding must be from 0 to 2147483647, got -1"),
    (lambda: cv3gpu.conv2d_adjoint_input(G, W, (6, 5), padding="big"), ValueError, "padding must be one of 'same', 'valid', got 'big'"),
    (lambda: cv3gpu.conv2d_adjoint_input(G, W, (2, 5)), ValueError, r"input_size must be at least the dilated kernel's size \(3, 3\)"),
]  # fmt: skip

WEIGHT_REFUSALS = [
    (lambda: cv3gpu.conv2d_adjoint_weight((1,), X, 3), TypeError, "grad must be a NumPy, CuPy or torch array, got tuple"),
    (lambda: cv3gpu.conv2d_adjoint_weight(G, None, 3), TypeError, "x must be a NumPy, CuPy or torch array, got None"),
    (lambda: cv3gpu.conv2d_adjoint_weight(G, np.ma.array(X), 3), TypeError, "x must be .* array, got MaskedArray"),
    (lambda: cv3gpu.conv2d_adjoint_weight(G, X.astype(">f4"), 3), TypeError, "x must be in native byte order, got >f4"),
    (lambda: cv3gpu.conv2d_adjoint_weight(G, torch.ones(2, 4, 6, 5), 3), TypeError, "grad is numpy on cpu, x is torch on cpu"),
    (lambda: cv3gpu.conv2d_adjoint_weight(G.astype(int), X, 3), TypeError, "grad must have dtype .*, got int64"),
    (lambda: cv3gpu.conv2d_adjoint_weight(G.astype(bool), X, 3), TypeError, "grad must have dtype .*, got bool"),
    (lambda: cv3gpu.conv2d_adjoint_weight(G, X.astype(complex), 3), TypeError, "x must have dtype .*, got complex128"),
    (lambda: cv3gpu.conv2d_adjoint_weight(G, X.astype(np.float16), 3), TypeError, r"x must have the dtype of grad \(float32\), got float16"),
    (lambda: cv3gpu.conv2d_adjoint_weight(G[0], X, 3), ValueError, r"grad must have shape \[N, Cout, Ho, Wo\], got \(6, 4, 3\)"),
    (lambda: cv3gpu.conv2d_adjoint_weight(G, X[0], 3), ValueError, r"x must have shape \[N, C, H, W\], got \(4, 6, 5\)"),
    (lambda: cv3gpu.conv2d_adjoint_weight(G[:1], X, 3), ValueError, r"grad must have shape \[2, Cout, 4, 3\], got \(1, 6, 4, 3\)"),
    (lambda: cv3gpu.conv2d_adjoint_weight(G, X, (3, 2)), ValueError, r"grad must have shape \[2, Cout, 4, 4\], got \(2, 6, 4, 3\)"),
    (lambda: cv3gpu.conv2d_adjoint_weight(G, X, 0), ValueError, "kernel_size must be from 1 to 2147483647, got 0"),
    (lambda: cv3gpu.conv2d_adjoint_weight(G, X, 3.0), TypeError, "kernel_size must be an integer or a pair of integers, got 3.0"),
    (lambda: cv3gpu.conv2d_adjoint_weight(G, X, (3, 3, 3)), ValueError, r"kernel_size must be an integer or a pair of integers, got \(3, 3, 3\)"),
    (lambda: cv3gpu.conv2d_adjoint_weight(G, X, "3"), TypeError, "kernel_size must be an integer or a pair of integers, got '3'"),
    (lambda: cv3gpu.conv2d_adjoint_weight(G, X, 3, groups=4), ValueError, r"groups must divide Cout \(6\), got 4"),
    (lambda: cv3gpu.conv2d_adjoint_weight(G, X, 3, groups=3), ValueError, r"groups must divide C \(4\), got 3"),
    (lambda: cv3gpu.conv2d_adjoint_weight(G, X, 3, groups=False), TypeError, r"groups must be an integer, got False \(bool\)"),
    (lambda: cv3gpu.conv2d_adjoint_weight(G, X, 3, stride=(0, 1)), ValueError, "stride must be from 1 to 2147483647, got 0"),
    (lambda: cv3gpu.conv2d_adjoint_weight(G, X, 3, dilation="2"), TypeError, "dilation must be an integer or a pair of integers, got '2'"),
    (lambda: cv3gpu.conv2d_adjoint_weight(G, X, 3, dilation=3), ValueError, r"x must be at least the dilated kernel's size \(7, 7\)"),
    (lambda: cv3gpu.conv2d_adjoint_weight(G, X, 3, padding=-3), ValueError, "padding must be from 0 to 2147483647, got -3"),
    (lambda: cv3gpu.conv2d_adjoint_weight(G, X, 3, padding="SAME"), ValueError, "padding must be one of 'same', 'valid', got 'SAME'"),
]  # fmt: skip


@pytest.mark.parametrize(("call", "error", "text"), FORWARD_REFUSALS)
def test_conv2d_refuses(call: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=f"^conv2d: .*{text}"):
        call()


@pytest.mark.parametrize(("call", "error", "text"), INPUT_REFUSALS)
def test_conv2d_adjoint_input_refuses(call: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=f"^conv2d_adjoint_input: .*{text}"):
        call()


@pytest.mark.parametrize(("call", "error", "text"), WEIGHT_REFUSALS)
def test_conv2d_adjoint_weight_refuses(call: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=f"^conv2d_adjoint_weight: .*{text}"):
        call()
