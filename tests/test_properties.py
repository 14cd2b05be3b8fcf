"""At least three properties of every operator, each over many draws; the last test holds the inventory.

Arrays are those of NumPy or of torch, as the draw has it. What is linear, adjoint, equivariant or bounded in exact
arithmetic is so here but for rounding, of float64.
"""

from __future__ import annotations

import ast
import functools
import inspect
import itertools
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

import cv3gpu
from tests import oracles
from tests.conftest import PATHS

HERE = Path(__file__).resolve().parent
NEAR = 1e-9  # of float64 results, of the size of their terms
OWN: dict[str, list[str]] = {}  # operator: its properties in this file

Rng = np.random.Generator
Array = np.ndarray


def holds(*operators: str, examples: int = 10) -> Callable[[Callable[[Rng], None]], Callable[..., None]]:
    """A property of some operators: a test that is given a random generator, many times."""

    def known(body: Callable[[Rng], None]) -> Callable[..., None]:
        for operator in operators:
            OWN.setdefault(operator, []).append(body.__name__)

        def test(seed: int) -> None:
            body(np.random.default_rng(seed))

        test.__name__, test.__doc__, test.__module__ = body.__name__, body.__doc__, body.__module__
        return settings(max_examples=examples, deadline=None, derandomize=True)(given(st.integers(0, 2**32 - 1))(test))

    return known


def run(rng: Rng, operator: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    """The operator on arrays of NumPy, or of torch where they all are float64: what comes is NumPy's."""
    way = PATHS["numpy" if rng.random() < 0.7 else "torch"]

    def there(x: Any) -> Any:
        if isinstance(x, np.ndarray):
            return way.array(x)
        return [there(y) for y in x] if isinstance(x, list) else x

    def back(x: Any) -> Any:
        if isinstance(x, tuple | list):
            return tuple(back(y) for y in x)
        return way.numpy(x) if hasattr(x, "shape") else x

    return back(operator(*(there(x) for x in arguments), **{key: there(value) for key, value in options.items()}))


def near(got: Any, want: Any, scale: float = 1.0) -> None:
    """Equal but for roundings of numbers of a size."""
    got, want = np.asarray(got, np.float64), np.asarray(want, np.float64)
    assert got.shape == want.shape
    assert np.abs(got - want).max(initial=0.0) <= NEAR * max(scale, 1.0)


def inner(a: Any, b: Any) -> float:
    """<a, b>."""
    return float((np.asarray(a) * np.asarray(b)).sum())


def few(rng: Rng, low: int, high: int, count: int) -> tuple[int, ...]:
    """Some small integers, low to high."""
    return tuple(int(v) for v in rng.integers(low, high + 1, count))


def linear(rng: Rng, function: Callable[[Array], Array], shape: tuple[int, ...]) -> None:
    """f(2 a - b) = 2 f(a) - f(b)."""
    a, b = rng.normal(size=(2, *shape))
    of_a, of_b = function(a), function(b)
    near(function(2 * a - b), 2 * of_a - of_b, 1 + np.abs(of_a).max(initial=0.0) + np.abs(of_b).max(initial=0.0))


def any_order(rng: Rng, function: Callable[[Array], Array], x: Array) -> None:
    """Images of a batch know nothing of each other."""
    order = rng.permutation(len(x))
    near(function(x[order]), function(x)[order], 1 + np.abs(x).max(initial=0.0) ** 2)


def same_partition(a: Array, b: Array) -> bool:
    """Whether two labellings differ in names alone."""
    pairs = np.unique(np.stack([a.ravel(), b.ravel()]), axis=1).shape[1]
    return pairs == len(np.unique(a)) == len(np.unique(b))


# ---- convolution ----------------------------------------------------------------------------------------


class Conv:
    """A convolution: shapes and options that fit."""

    def __init__(self, rng: Rng) -> None:
        self.groups = int(rng.integers(1, 3))
        self.kernel, self.dilation, stride, padding = (few(rng, 1, 3, 2) for _ in range(4))
        reach = [d * (k - 1) + 1 for d, k in zip(self.dilation, self.kernel, strict=True)]
        self.size = tuple(int(r + rng.integers(0, 5)) for r in reach)
        self.options: dict[str, Any] = {
            "stride": stride, "padding": tuple(p - 1 for p in padding), "dilation": self.dilation, "groups": self.groups,
        }  # fmt: skip
        self.n, c, out = few(rng, 1, 3, 3)
        self.c, self.out = c * self.groups, out * self.groups
        self.x = rng.normal(size=(self.n, self.c, *self.size))
        self.weight = rng.normal(size=(self.out, c, *self.kernel))
        self.bias = rng.normal(size=self.out)


@holds("conv2d", "conv2d_adjoint_input", "conv2d_adjoint_weight")
def test_a_convolution_and_its_adjoints(rng: Rng) -> None:
    """<conv(x, w), g> = <x, conv'(g, w)> = <w, conv''(g, x)>."""
    case = Conv(rng)
    y = run(rng, cv3gpu.conv2d, case.x, case.weight, **case.options)
    g = rng.normal(size=y.shape)
    scale = np.abs(y).sum() + np.abs(g).sum()
    near(
        inner(case.x, run(rng, cv3gpu.conv2d_adjoint_input, g, case.weight, case.size, **case.options)),
        inner(y, g),
        scale,
    )
    near(
        inner(case.weight, run(rng, cv3gpu.conv2d_adjoint_weight, g, case.x, case.kernel, **case.options)),
        inner(y, g),
        scale,
    )


@holds("conv2d", "conv2d_adjoint_input", "conv2d_adjoint_weight", "conv_transpose2d")
def test_convolutions_are_linear(rng: Rng) -> None:
    case = Conv(rng)
    o = case.options
    y = cv3gpu.conv2d(case.x, case.weight, **o)
    linear(rng, lambda x: cv3gpu.conv2d(x, case.weight, **o), case.x.shape)
    linear(rng, lambda w: cv3gpu.conv2d(case.x, w, **o), case.weight.shape)
    linear(rng, lambda g: cv3gpu.conv2d_adjoint_input(g, case.weight, case.size, **o), y.shape)
    linear(rng, lambda g: cv3gpu.conv2d_adjoint_weight(g, case.x, case.kernel, **o), y.shape)
    if all(p <= d * (k - 1) for p, d, k in zip(o["padding"], case.dilation, case.kernel, strict=True)):
        linear(rng, lambda g: cv3gpu.conv_transpose2d(g, case.weight, **o), y.shape)


@holds("conv2d", "conv2d_adjoint_input", "conv2d_adjoint_weight", "conv_transpose2d")
def test_images_of_a_batch_are_convolved_alone(rng: Rng) -> None:
    case = Conv(rng)
    o = case.options | {"padding": 0}
    y = cv3gpu.conv2d(case.x, case.weight, case.bias, **o)
    g = rng.normal(size=y.shape)
    any_order(rng, lambda x: cv3gpu.conv2d(x, case.weight, case.bias, **o), case.x)
    any_order(rng, lambda g: cv3gpu.conv2d_adjoint_input(g, case.weight, case.size, **o), g)
    any_order(rng, lambda g: cv3gpu.conv_transpose2d(g, case.weight, **o), g)
    parts = [cv3gpu.conv2d_adjoint_weight(g[i : i + 1], case.x[i : i + 1], case.kernel, **o) for i in range(case.n)]
    near(run(rng, cv3gpu.conv2d_adjoint_weight, g, case.x, case.kernel, **o), sum(parts), np.abs(y).sum())


@holds("conv2d", "conv_transpose2d")
def test_a_mirrored_convolution(rng: Rng) -> None:
    """A mirrored image under a mirrored kernel is the mirrored result, at stride 1."""
    case = Conv(rng)
    o = case.options | {"stride": 1}
    turn = functools.partial(np.flip, axis=(2, 3))
    near(cv3gpu.conv2d(turn(case.x), turn(case.weight), **o), turn(cv3gpu.conv2d(case.x, case.weight, **o)), 100.0)
    y = rng.normal(size=(case.n, case.out, *case.size))
    o["padding"] = 0
    near(
        cv3gpu.conv_transpose2d(turn(y), turn(case.weight), **o),
        turn(cv3gpu.conv_transpose2d(y, case.weight, **o)),
        100.0,
    )


@holds("conv_transpose2d", "conv2d")
def test_a_transposed_convolution_is_the_transpose(rng: Rng) -> None:
    case = Conv(rng)
    o = case.options | {"padding": 0}
    y = cv3gpu.conv2d(case.x, case.weight, **o)
    g = rng.normal(size=y.shape)
    grown = run(rng, cv3gpu.conv_transpose2d, g, case.weight, **o)
    seen = [grown.shape[2 + i] for i in range(2)]  # pixels behind the last window get nothing
    near(inner(case.x[:, :, : seen[0], : seen[1]], grown), inner(y, g), np.abs(y).sum() + np.abs(g).sum())


@holds("separable_conv2d", "separable_conv2d_vjp")
def test_a_separable_convolution_is_two_and_its_gradients_adjoint(rng: Rng) -> None:
    n, c, out, k = few(rng, 1, 4, 4)
    x, depthwise, pointwise = (
        rng.normal(size=(n, c, 6, 7)),
        rng.normal(size=(c, 1, k, k)),
        rng.normal(size=(out, c, 1, 1)),
    )
    o = {"stride": int(rng.integers(1, 3)), "padding": int(rng.integers(0, 2)), "dilation": 1}
    y = run(rng, cv3gpu.separable_conv2d, x, depthwise, pointwise, **o)
    near(y, cv3gpu.conv2d(cv3gpu.conv2d(x, depthwise, groups=c, **o), pointwise), 1e3)
    g = rng.normal(size=y.shape)
    found = cv3gpu.separable_conv2d_vjp(g, x, depthwise, pointwise, **o)
    for gradient, of in ((found.x, x), (found.depthwise, depthwise), (found.pointwise, pointwise)):
        near(inner(gradient, of), inner(y, g), 1e3)


@holds("separable_conv2d", "separable_conv2d_vjp")
def test_separable_convolutions_are_linear(rng: Rng) -> None:
    n, c, out = few(rng, 1, 4, 3)
    x, depthwise, pointwise = (
        rng.normal(size=(n, c, 5, 6)),
        rng.normal(size=(c, 1, 3, 3)),
        rng.normal(size=(out, c, 1, 1)),
    )
    linear(rng, lambda v: cv3gpu.separable_conv2d(v, depthwise, pointwise, padding="same"), x.shape)
    linear(rng, lambda v: cv3gpu.separable_conv2d(x, v, pointwise, padding="same"), depthwise.shape)
    vjp = functools.partial(cv3gpu.separable_conv2d_vjp, x=x, depthwise=depthwise, pointwise=pointwise, padding="same")
    linear(rng, lambda g: np.concatenate([np.ravel(part) for part in vjp(g)[:3]]), (n, out, 5, 6))


@holds("separable_conv2d", "separable_conv2d_vjp")
def test_images_of_a_batch_are_convolved_alone_in_two_steps(rng: Rng) -> None:
    n, c, out = few(rng, 1, 4, 3)
    x, depthwise, pointwise = (
        rng.normal(size=(n, c, 5, 6)),
        rng.normal(size=(c, 1, 3, 3)),
        rng.normal(size=(out, c, 1, 1)),
    )
    any_order(rng, lambda v: cv3gpu.separable_conv2d(v, depthwise, pointwise), x)
    g = rng.normal(size=(n, out, 3, 4))
    whole = cv3gpu.separable_conv2d_vjp(g, x, depthwise, pointwise)
    parts = [cv3gpu.separable_conv2d_vjp(g[i : i + 1], x[i : i + 1], depthwise, pointwise) for i in range(n)]
    near(whole.depthwise, sum(p.depthwise for p in parts), 1e3)
    near(whole.x, np.concatenate([p.x for p in parts]), 1e3)


class Pyramid:
    """Branches of an atrous pyramid."""

    def __init__(self, rng: Rng) -> None:
        n, c, branches = few(rng, 1, 3, 3)
        self.x = rng.normal(size=(n, c, *few(rng, 3, 9, 2)))
        self.weights = [rng.normal(size=(2, c, k, k)) for k in rng.choice([1, 3], branches)]
        self.rates = list(few(rng, 1, 8, branches))
        self.shape = (n, 2 * branches, *self.x.shape[2:])


@holds("aspp", "aspp_vjp")
def test_an_atrous_pyramid_is_linear(rng: Rng) -> None:
    case = Pyramid(rng)
    linear(rng, lambda x: cv3gpu.aspp(x, case.weights, dilations=case.rates), case.x.shape)
    linear(rng, lambda g: cv3gpu.aspp_vjp(g, case.x, case.weights, dilations=case.rates).x, case.shape)


@holds("aspp", "aspp_vjp")
def test_an_atrous_pyramid_of_a_batch(rng: Rng) -> None:
    case = Pyramid(rng)
    any_order(rng, lambda x: cv3gpu.aspp(x, case.weights, dilations=case.rates), case.x)
    g = rng.normal(size=case.shape)
    any_order(rng, lambda g: cv3gpu.aspp_vjp(g, case.x, case.weights, dilations=case.rates).x, g)


@holds("aspp")
def test_a_mirrored_atrous_pyramid(rng: Rng) -> None:
    case = Pyramid(rng)
    turned = [w[..., ::-1, ::-1] for w in case.weights]
    got = run(rng, cv3gpu.aspp, case.x[..., ::-1, ::-1].copy(), [w.copy() for w in turned], dilations=case.rates)
    near(got, cv3gpu.aspp(case.x, case.weights, dilations=case.rates)[..., ::-1, ::-1], 100.0)


@holds("overlap_uniformity", examples=25)
def test_taps_that_overlap_are_counted(rng: Rng) -> None:
    """As a transposed convolution of ones has it, far from the border."""
    (kernel, stride), dilation = few(rng, 1, 6, 2), int(rng.integers(1, 4))
    found = cv3gpu.overlap_uniformity(kernel, stride, dilation=dilation)
    assert found.taps.sum() == kernel * kernel
    reach = dilation * (kernel - 1) + 1
    count = -(-reach // stride) + 3
    ones = cv3gpu.conv_transpose2d(
        np.ones((1, 1, count + 6, count + 6)), np.ones((1, 1, kernel, kernel)), stride=stride, dilation=dilation
    )
    start = -(-reach // stride) * stride
    np.testing.assert_array_equal(ones[0, 0, start : start + stride, start : start + stride], found.taps)


@holds("overlap_uniformity", examples=25)
def test_an_overlap_is_even_where_the_stride_divides_the_kernel(rng: Rng) -> None:
    kernel, stride = few(rng, 1, 12, 2)
    found = cv3gpu.overlap_uniformity(kernel, stride)
    assert 0 <= found.ratio <= 1 and (found.ratio == 1) == (kernel % stride == 0)


@holds("overlap_uniformity", examples=25)
def test_an_overlap_of_exchanged_axes(rng: Rng) -> None:
    kernel, stride, dilation = (few(rng, 1, 5, 2) for _ in range(3))
    weight = rng.normal(size=(2, 3, *kernel))
    one = cv3gpu.overlap_uniformity(kernel, stride, dilation=dilation, weight=weight)
    two = cv3gpu.overlap_uniformity(kernel[::-1], stride[::-1], dilation=dilation[::-1], weight=weight.swapaxes(2, 3))
    np.testing.assert_array_equal(one.taps, two.taps.T)
    near(one.norms, two.norms.T)


# ---- resizing, pooling, heads ---------------------------------------------------------------------------


class Resize:
    """A resize: sizes and options."""

    def __init__(self, rng: Rng) -> None:
        self.mode = str(rng.choice(["nearest", "nearest-exact", "bilinear", "bicubic"]))
        self.small, self.large = few(rng, 1, 7, 2), few(rng, 1, 15, 2)
        self.options: dict[str, Any] = {"mode": self.mode}
        if self.mode.startswith("bi"):
            self.options |= {"align_corners": bool(rng.integers(2))}


@holds("interpolate", "interpolate_adjoint")
def test_resizing_and_its_adjoint(rng: Rng) -> None:
    case = Resize(rng)
    x, g = rng.normal(size=(2, 3, *case.small)), rng.normal(size=(2, 3, *case.large))
    y = run(rng, cv3gpu.interpolate, x, case.large, **case.options)
    near(inner(y, g), inner(x, run(rng, cv3gpu.interpolate_adjoint, g, case.small, **case.options)), 1e3)


@holds("interpolate_adjoint")
def test_the_adjoint_of_resizing_is_linear_and_keeps_sums(rng: Rng) -> None:
    """Weights of each result sum to one, and so do what its gradient is shared out by."""
    case = Resize(rng)
    linear(rng, lambda g: cv3gpu.interpolate_adjoint(g, case.small, **case.options), (1, 2, *case.large))
    g = rng.normal(size=(1, 2, *case.large))
    near(run(rng, cv3gpu.interpolate_adjoint, g, case.small, **case.options).sum((2, 3)), g.sum((2, 3)), 1e3)


@holds("interpolate", "interpolate_adjoint")
def test_planes_are_resized_alone(rng: Rng) -> None:
    case = Resize(rng)
    x, g = rng.normal(size=(3, 1, *case.small)), rng.normal(size=(3, 1, *case.large))
    any_order(rng, lambda v: cv3gpu.interpolate(v, case.large, **case.options), x)
    any_order(rng, lambda v: cv3gpu.interpolate_adjoint(v, case.small, **case.options), g)


class ResizeConv(Resize):
    """A resize and a convolution of its result."""

    def __init__(self, rng: Rng) -> None:
        super().__init__(rng)
        self.kernel = (3, 3)
        self.x, self.weight = rng.normal(size=(2, 2, *self.small)), rng.normal(size=(3, 2, 3, 3))
        self.g = rng.normal(size=(2, 3, *self.large))
        self.options = {"mode": self.mode, "align_corners": self.options.get("align_corners", False)}


@holds("resize_conv2d", "resize_conv2d_adjoint_input", "resize_conv2d_adjoint_weight")
def test_resized_convolutions_are_linear(rng: Rng) -> None:
    case = ResizeConv(rng)
    o = case.options
    linear(rng, lambda x: cv3gpu.resize_conv2d(x, case.weight, size=case.large, **o), case.x.shape)
    linear(rng, lambda g: cv3gpu.resize_conv2d_adjoint_input(g, case.weight, case.small, **o), case.g.shape)
    linear(rng, lambda g: cv3gpu.resize_conv2d_adjoint_weight(g, case.x, case.kernel, **o), case.g.shape)


@holds("resize_conv2d", "resize_conv2d_adjoint_input", "resize_conv2d_adjoint_weight")
def test_resized_convolutions_of_a_batch(rng: Rng) -> None:
    case = ResizeConv(rng)
    o = case.options
    any_order(rng, lambda x: cv3gpu.resize_conv2d(x, case.weight, size=case.large, **o), case.x)
    any_order(rng, lambda g: cv3gpu.resize_conv2d_adjoint_input(g, case.weight, case.small, **o), case.g)
    parts = [
        cv3gpu.resize_conv2d_adjoint_weight(case.g[i : i + 1], case.x[i : i + 1], case.kernel, **o) for i in range(2)
    ]
    near(run(rng, cv3gpu.resize_conv2d_adjoint_weight, case.g, case.x, case.kernel, **o), sum(parts), 1e3)


class Pool:
    """A pooling."""

    def __init__(self, rng: Rng) -> None:
        self.kernel = few(rng, 1, 3, 2)
        self.x = rng.normal(size=(*few(rng, 1, 2, 2), *few(rng, 3, 8, 2)))
        self.windows: dict[str, Any] = {"stride": few(rng, 1, 3, 2), "padding": tuple(k // 2 for k in self.kernel)}
        self.values, self.indices = cv3gpu.max_pool2d(self.x, self.kernel, **self.windows)


@holds("max_pool2d")
def test_what_is_pooled_is_the_greatest(rng: Rng) -> None:
    """No result is above the image's maximum, which is among them where windows leave nothing out."""
    case = Pool(rng)
    values, _ = run(rng, cv3gpu.max_pool2d, case.x, case.kernel, stride=1, padding=case.windows["padding"])
    np.testing.assert_array_equal(values.max((2, 3)), case.x.max((2, 3)))
    flat = case.x.reshape(*case.x.shape[:2], -1)
    picked = np.take_along_axis(flat, case.indices.reshape(*flat.shape[:2], -1), 2)
    np.testing.assert_array_equal(picked.reshape(case.values.shape), case.values)


@holds("max_pool2d_adjoint", "max_unpool2d_adjoint")
def test_what_follows_a_pooling_is_linear(rng: Rng) -> None:
    case = Pool(rng)
    size = case.x.shape[2:]
    linear(
        rng, lambda g: cv3gpu.max_pool2d_adjoint(g, case.indices, size, case.kernel, **case.windows), case.values.shape
    )
    linear(rng, lambda g: cv3gpu.max_unpool2d_adjoint(g, case.indices, case.kernel, **case.windows), case.x.shape)


@holds("max_pool2d_adjoint", "max_unpool2d_adjoint")
def test_each_gradient_goes_to_one_pixel(rng: Rng) -> None:
    case = Pool(rng)
    g = rng.normal(size=case.values.shape)
    spread = run(rng, cv3gpu.max_pool2d_adjoint, g, case.indices, case.x.shape[2:], case.kernel, **case.windows)
    near(spread.sum((2, 3)), g.sum((2, 3)), 100.0)
    assert (spread != 0).sum() <= g.size
    ones = cv3gpu.max_unpool2d_adjoint(np.ones_like(case.x), case.indices, case.kernel, **case.windows)
    np.testing.assert_array_equal(ones, np.ones_like(g))


@holds("max_unpool2d", "max_unpool2d_adjoint", "max_pool2d")
def test_unpooling_puts_back_what_was_pooled(rng: Rng) -> None:
    """Each value where it came from, zeros elsewhere; pooled again, it is the same."""
    n, c, h, w = few(rng, 1, 3, 4)
    x = rng.uniform(1, 2, (n, c, 2 * h, 2 * w))
    values, indices = run(rng, cv3gpu.max_pool2d, x, 2)
    grown = run(rng, cv3gpu.max_unpool2d, values, indices, 2)
    assert ((grown == x) | (grown == 0)).all() and (grown != 0).sum() == values.size
    again, places = cv3gpu.max_pool2d(grown, 2)
    np.testing.assert_array_equal(again, values)
    np.testing.assert_array_equal(places, indices)


@holds("max_unpool2d", "max_unpool2d_adjoint")
def test_unpooling_is_linear_and_has_an_adjoint(rng: Rng) -> None:
    n, c, h, w = few(rng, 1, 3, 4)
    values, indices = cv3gpu.max_pool2d(rng.normal(size=(n, c, 2 * h, 2 * w)), 2)
    linear(rng, lambda v: cv3gpu.max_unpool2d(v, indices, 2), values.shape)
    v, g = rng.normal(size=values.shape), rng.normal(size=(n, c, 2 * h, 2 * w))
    near(
        inner(cv3gpu.max_unpool2d(v, indices, 2), g),
        inner(v, run(rng, cv3gpu.max_unpool2d_adjoint, g, indices, 2)),
        100.0,
    )


@holds("max_unpool2d")
def test_planes_are_unpooled_alone(rng: Rng) -> None:
    values, indices = cv3gpu.max_pool2d(rng.normal(size=(3, 2, 4, 6)), 2)
    order = rng.permutation(3)
    whole = cv3gpu.max_unpool2d(values, indices, 2)
    np.testing.assert_array_equal(cv3gpu.max_unpool2d(values[order], indices[order], 2), whole[order])


@holds("pyramid_pooling", "pyramid_conv2d")
def test_pooled_pyramids_are_linear(rng: Rng) -> None:
    n, c, h, w = few(rng, 1, 3, 2) + few(rng, 2, 8, 2)
    bins = few(rng, 1, 6, 2)
    weights = [rng.normal(size=(2, c, 1, 1)) for _ in bins]
    linear(rng, lambda x: cv3gpu.pyramid_pooling(x, weights, bins=bins), (n, c, h, w))
    maps = [rng.normal(size=(n, 2, b, b)) for b in bins]
    weight = rng.normal(size=(3, c + 4, 3, 3))
    x = rng.normal(size=(n, c, h, w))
    linear(rng, lambda k: cv3gpu.pyramid_conv2d(x, maps, k), weight.shape)
    zeros = [np.zeros_like(m) for m in maps]
    linear(rng, lambda v: cv3gpu.pyramid_conv2d(v, zeros, weight), x.shape)


@holds("pyramid_pooling", "pyramid_conv2d")
def test_pooled_pyramids_of_a_batch(rng: Rng) -> None:
    bins, align = few(rng, 1, 5, 2), bool(rng.integers(2))
    x = rng.normal(size=(3, 2, *few(rng, 2, 7, 2)))
    weights = [rng.normal(size=(2, 2, 1, 1)) for _ in bins]
    any_order(rng, lambda v: cv3gpu.pyramid_pooling(v, weights, bins=bins, align_corners=align), x)
    maps, weight = [rng.normal(size=(3, 2, b, b)) for b in bins], rng.normal(size=(2, 6, 3, 3))
    order = rng.permutation(3)
    whole = run(rng, cv3gpu.pyramid_conv2d, x, maps, weight, align_corners=align)
    near(cv3gpu.pyramid_conv2d(x[order], [m[order] for m in maps], weight, align_corners=align), whole[order], 100.0)


@holds("pyramid_pooling", "pyramid_conv2d")
def test_a_pooled_pyramid_is_its_parts(rng: Rng) -> None:
    """The convolution of image and enlarged maps, one beside the other; and mirrored, it is mirrored."""
    bins = few(rng, 1, 5, 2)
    x = rng.normal(size=(1, 2, *few(rng, 2, 7, 2)))
    maps, weight = [rng.normal(size=(1, 2, b, b)) for b in bins], rng.normal(size=(2, 6, 3, 3))
    large = [cv3gpu.interpolate(m, x.shape[2:], mode="bilinear", align_corners=True) for m in maps]
    near(
        cv3gpu.pyramid_conv2d(x, maps, weight),
        cv3gpu.conv2d(np.concatenate([x, *large], 1), weight, padding="same"),
        100.0,
    )
    weights = [rng.normal(size=(2, 2, 1, 1)) for _ in bins]
    turned = cv3gpu.pyramid_pooling(x[..., ::-1, ::-1].copy(), weights, bins=bins, align_corners=False)
    near(turned, cv3gpu.pyramid_pooling(x, weights, bins=bins, align_corners=False)[..., ::-1, ::-1], 100.0)


class Head:
    """Logits, a size to enlarge them to, and a target of it."""

    def __init__(self, rng: Rng) -> None:
        n, self.classes = few(rng, 1, 4, 2)
        self.size = few(rng, 3, 9, 2)
        self.logits = rng.normal(size=(n, self.classes, *few(rng, 1, 5, 2)))
        self.target = rng.integers(0, self.classes, (n, *self.size))
        self.options = {"align_corners": bool(rng.integers(2))}


@holds("upsample_argmax")
def test_the_best_of_enlarged_logits(rng: Rng) -> None:
    case = Head(rng)
    large = cv3gpu.interpolate(case.logits, case.size, mode="bilinear", **case.options)
    labels = run(rng, cv3gpu.upsample_argmax, case.logits, case.size, **case.options)
    best = np.take_along_axis(large, labels[:, None], 1)[:, 0]
    near(best, large.max(1))


@holds("upsample_argmax")
def test_scaled_and_moved_logits_have_the_same_best(rng: Rng) -> None:
    case = Head(rng)
    labels = cv3gpu.upsample_argmax(case.logits, case.size, **case.options)
    moved = run(rng, cv3gpu.upsample_argmax, case.logits * 4 + 16, case.size, **case.options)
    assert (labels == moved).mean() > 0.98  # but where two are equal within rounding
    order = rng.permutation(case.classes)
    renamed = cv3gpu.upsample_argmax(case.logits[:, order], case.size, **case.options)
    assert (order[renamed] == labels).mean() > 0.98


@holds("upsample_cross_entropy", "upsample_cross_entropy_vjp")
def test_a_loss_knows_no_names_and_no_order(rng: Rng) -> None:
    case = Head(rng)
    loss = run(rng, cv3gpu.upsample_cross_entropy, case.logits, case.target, **case.options)
    assert loss >= 0
    order = rng.permutation(case.classes)
    place = np.argsort(order)
    near(cv3gpu.upsample_cross_entropy(case.logits[:, order], place[case.target], **case.options), loss)
    gradient = cv3gpu.upsample_cross_entropy_vjp(np.ones(()), case.logits, case.target, **case.options)
    renamed = cv3gpu.upsample_cross_entropy_vjp(np.ones(()), case.logits[:, order], place[case.target], **case.options)
    near(renamed, gradient[:, order])


@holds("upsample_cross_entropy", "upsample_cross_entropy_vjp")
def test_the_gradient_of_a_loss_is_its_slope(rng: Rng) -> None:
    """Along any line, by a difference of both sides."""
    case = Head(rng)
    way = rng.normal(size=case.logits.shape)

    def loss(t: float) -> float:
        return float(cv3gpu.upsample_cross_entropy(case.logits + t * way, case.target, **case.options))

    slope = inner(cv3gpu.upsample_cross_entropy_vjp(np.ones(()), case.logits, case.target, **case.options), way)
    assert slope == pytest.approx((loss(1e-4) - loss(-1e-4)) / 2e-4, rel=1e-5, abs=1e-6)


@holds("upsample_cross_entropy_vjp")
def test_the_gradient_of_a_loss_is_linear_in_what_comes_back(rng: Rng) -> None:
    case = Head(rng)
    linear(
        rng, lambda g: cv3gpu.upsample_cross_entropy_vjp(g.reshape(()), case.logits, case.target, **case.options), (1,)
    )


# ---- boxes and assignment -------------------------------------------------------------------------------


def some_boxes(rng: Rng, count: int) -> Array:
    """Corners of boxes that overlap often."""
    low = rng.uniform(0, 8, (count, 2))
    return np.concatenate([low, low + rng.uniform(0.5, 8, (count, 2))], 1)


@holds("box_iou_vjp")
def test_the_gradient_of_an_overlap_is_its_slope(rng: Rng) -> None:
    a, b = some_boxes(rng, 3), some_boxes(rng, 4)
    kind = str(rng.choice(["iou", "giou", "ioa"]))
    g, way = rng.normal(size=(3, 4)), rng.normal(size=(3, 4))
    found, _ = run(rng, cv3gpu.box_iou_vjp, g, a, b, kind=kind)

    def value(t: float) -> float:
        return inner(g, cv3gpu.box_iou(a + t * way, b, kind=kind))

    assert inner(found, way) == pytest.approx((value(1e-6) - value(-1e-6)) / 2e-6, rel=1e-4, abs=1e-5)


@holds("box_iou_vjp")
def test_moving_and_scaling_all_boxes_changes_no_overlap(rng: Rng) -> None:
    """So gradients along both are zero."""
    a, b = some_boxes(rng, 4), some_boxes(rng, 3)
    of_a, of_b = run(
        rng, cv3gpu.box_iou_vjp, rng.normal(size=(4, 3)), a, b, kind=str(rng.choice(["iou", "giou", "ioa"]))
    )
    for axis in (0, 1):
        near(of_a[:, axis::2].sum() + of_b[:, axis::2].sum(), 0.0, 10.0)
        near(inner(of_a[:, axis::2], a[:, axis::2]) + inner(of_b[:, axis::2], b[:, axis::2]), 0.0, 100.0)


@holds("box_iou_vjp", "box_iou")
def test_boxes_may_come_in_any_order(rng: Rng) -> None:
    a, b = some_boxes(rng, 4), some_boxes(rng, 3)
    p, q = rng.permutation(4), rng.permutation(3)
    np.testing.assert_array_equal(cv3gpu.box_iou(a[p], b[q]), run(rng, cv3gpu.box_iou, a, b)[p][:, q])
    g = rng.normal(size=(4, 3))
    of_a, of_b = cv3gpu.box_iou_vjp(g, a, b)
    for got, want in zip(cv3gpu.box_iou_vjp(g[p][:, q], a[p], b[q]), (of_a[p], of_b[q]), strict=True):
        near(got, want)
    linear(rng, lambda g: cv3gpu.box_iou_vjp(g, a, b)[0], (4, 3))


@holds("linear_sum_assignment", examples=25)
def test_no_permutation_is_better_than_an_assignment(rng: Rng) -> None:
    n = int(rng.integers(1, 8))
    cost = rng.normal(size=(n, n))
    _, _, total = run(rng, cv3gpu.linear_sum_assignment, cost)
    for _ in range(20):
        assert total <= cost[np.arange(n), rng.permutation(n)].sum() + NEAR


@holds("linear_sum_assignment", examples=25)
def test_an_assignment_is_what_its_total_says(rng: Rng) -> None:
    n, m = few(rng, 1, 7, 2)
    cost = rng.normal(size=(n, m))
    row, col, total = run(rng, cv3gpu.linear_sum_assignment, cost)
    assert len(set(row.tolist())) == len(set(col.tolist())) == len(row) == min(n, m) and (np.diff(row) > 0).all()
    near(total, cost[row, col].sum(), 10.0)
    near(-cv3gpu.linear_sum_assignment(-cost, maximize=True).total, total, 10.0)


@holds("linear_sum_assignment", examples=25)
def test_prices_of_rows_and_columns_change_no_assignment(rng: Rng) -> None:
    n = int(rng.integers(1, 7))
    cost = rng.integers(-9, 10, (n, n)).astype(float)
    rows, columns = rng.integers(-9, 10, (2, n))
    total = cv3gpu.linear_sum_assignment(cost).total
    moved = run(rng, cv3gpu.linear_sum_assignment, cost + rows[:, None] + columns)[2]
    assert moved == total + rows.sum() + columns.sum()


# ---- conditional random fields --------------------------------------------------------------------------


class Field:
    """A small dense CRF."""

    def __init__(self, rng: Rng) -> None:
        self.unary = rng.normal(size=(2, 3, *few(rng, 2, 5, 2)))
        self.image = rng.uniform(0, 255, (2, *self.unary.shape[2:], 3))
        self.options = {
            "theta_gamma": 1.5, "theta_alpha": 3.0, "theta_beta": 60.0, "compat_smooth": 1.0, "compat_bilateral": 1.5, "n_iter": 2,
            "method": str(rng.choice(["lattice", "lattice_fine", "exact"])),
        }  # fmt: skip


@holds("dense_crf_vjp")
def test_gradients_of_a_field_of_a_batch(rng: Rng) -> None:
    case = Field(rng)
    g = rng.normal(size=case.unary.shape)
    whole = cv3gpu.dense_crf_vjp(g, case.unary, case.image, **case.options)
    for i in range(2):
        alone = cv3gpu.dense_crf_vjp(g[i], case.unary[i], case.image[i], **case.options)
        near(whole.unary[i], alone.unary, 10.0)
        near(whole.image[i], alone.image, 10.0)


@holds("dense_crf_vjp")
def test_gradients_of_a_field_know_no_names_of_labels(rng: Rng) -> None:
    case = Field(rng)
    g, order = rng.normal(size=case.unary.shape), rng.permutation(3)
    one = cv3gpu.dense_crf_vjp(g, case.unary, case.image, **case.options)
    two = cv3gpu.dense_crf_vjp(g[:, order], case.unary[:, order], case.image, **case.options)
    near(two.unary, one.unary[:, order], 10.0)
    near(two.image, one.image, 10.0)


@holds("dense_crf_vjp")
def test_the_gradient_of_a_field_is_its_slope(rng: Rng) -> None:
    case = Field(rng)
    g, way = rng.normal(size=(2, *case.unary.shape))

    def value(t: float) -> float:
        return inner(g, cv3gpu.dense_crf(case.unary + t * way, case.image, **case.options))

    slope = inner(run(rng, cv3gpu.dense_crf_vjp, g, case.unary, case.image, **case.options)[0], way)
    assert slope == pytest.approx((value(1e-5) - value(-1e-5)) / 2e-5, rel=1e-4, abs=1e-5)


@holds("gaussian_filter_vjp")
def test_gradients_of_a_filter_are_linear_and_blind_to_moves(rng: Rng) -> None:
    values, features = rng.normal(size=(2, 12)), rng.normal(size=(3, 12))
    vjp = functools.partial(cv3gpu.gaussian_filter_vjp, values=values, features=features, method="exact")
    linear(rng, lambda g: np.concatenate([np.ravel(part) for part in vjp(g)]), (2, 12))
    found = run(rng, cv3gpu.gaussian_filter_vjp, rng.normal(size=(2, 12)), values, features, method="exact")[1]
    near(found.sum(1), np.zeros(3), 100.0)


@holds("gaussian_filter_vjp", "gaussian_filter")
def test_points_of_a_filter_may_come_in_any_order(rng: Rng) -> None:
    values, features, g = rng.normal(size=(2, 12)), rng.normal(size=(3, 12)), rng.normal(size=(2, 12))
    order = rng.permutation(12)
    near(
        cv3gpu.gaussian_filter(values[:, order], features[:, order]),
        run(rng, cv3gpu.gaussian_filter, values, features)[:, order],
    )
    one = cv3gpu.gaussian_filter_vjp(g, values, features)
    two = cv3gpu.gaussian_filter_vjp(g[:, order], values[:, order], features[:, order])
    near(two.values, one.values[:, order], 10.0)
    near(two.features, one.features[:, order], 10.0)


# ---- graph cuts -----------------------------------------------------------------------------------------

STEPS = [(0, 1), (1, 0)]


class Labels:
    """Unaries, a Potts model, edges."""

    def __init__(self, rng: Rng) -> None:
        self.count = int(rng.integers(2, 5))
        h, w = few(rng, 2, 5, 2)
        self.unary = rng.integers(0, 30, (self.count, h, w)).astype(float)
        self.pairwise = 1.0 - np.eye(self.count)
        self.weights = rng.integers(0, 10, (2, h, w)).astype(float)

    def energy(self, labels: Array) -> float:
        """E = sum of unaries + sum of w times what a pair of labels costs."""
        total = np.take_along_axis(self.unary, labels[None].astype(np.int64), 0).sum()
        for plane, offset in zip(self.weights, STEPS, strict=True):
            begin, end = oracles.grid_edges(labels.shape, offset)
            total += (plane[begin] * (labels[begin] != labels[end])).sum()
        return float(total)


MOVES = (cv3gpu.alpha_expansion, cv3gpu.alpha_beta_swap)


@holds("alpha_expansion", "alpha_beta_swap")
def test_moves_never_raise_the_energy(rng: Rng) -> None:
    case = Labels(rng)
    for move in MOVES:
        labels, energy, _ = run(rng, move, case.unary, case.pairwise, case.weights, offsets=STEPS)
        near(energy, case.energy(labels), 1e3)
        assert energy <= case.energy(case.unary.argmin(0)) + NEAR
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", cv3gpu.ConvergenceWarning)
            once = move(case.unary, case.pairwise, case.weights, offsets=STEPS, max_iter=1).energy
        assert energy <= once + NEAR


@holds("alpha_expansion", "alpha_beta_swap")
def test_energies_in_other_units(rng: Rng) -> None:
    case = Labels(rng)
    for move in MOVES:
        one = move(case.unary, case.pairwise, case.weights, offsets=STEPS)
        two = move(4 * case.unary, case.pairwise, 4 * case.weights, offsets=STEPS)
        np.testing.assert_array_equal(one.labels, two.labels)
        assert float(two.energy) == 4 * float(one.energy)


@holds("alpha_beta_swap", "alpha_expansion")
def test_a_constant_of_all_unaries_is_added(rng: Rng) -> None:
    case = Labels(rng)
    for move in MOVES:
        one = move(case.unary, case.pairwise, case.weights, offsets=STEPS)
        two = move(case.unary + 8, case.pairwise, case.weights, offsets=STEPS)
        np.testing.assert_array_equal(one.labels, two.labels)
        assert float(two.energy) == float(one.energy) + 8 * one.labels.size


def seeded(rng: Rng) -> tuple[Array, Array, Array]:
    """An image and two masks of seeds."""
    h, w = few(rng, 3, 8, 2)
    image = rng.integers(0, 256, (h, w, 3), np.uint8)
    order = rng.permutation(h * w).reshape(h, w)
    return image, order < 2, order > h * w - 3


@holds("boykov_jolly")
def test_seeds_are_kept(rng: Rng) -> None:
    image, foreground, background = seeded(rng)
    region = [None, "histogram", "gmm"][int(rng.integers(3))]
    labels, flow = run(rng, cv3gpu.boykov_jolly, image, foreground, background, lam=20.0, sigma=0.2, region=region)
    assert (labels[foreground] == 1).all() and (labels[background] == 0).all() and flow >= 0


@holds("boykov_jolly")
def test_a_cut_costs_in_proportion_to_its_edges(rng: Rng) -> None:
    image, foreground, background = seeded(rng)
    one = cv3gpu.boykov_jolly(image, foreground, background, lam=8.0, sigma=0.2)
    two = cv3gpu.boykov_jolly(image, foreground, background, lam=16.0, sigma=0.2)
    np.testing.assert_array_equal(one.labels, two.labels)
    assert float(two.flow) == pytest.approx(2 * float(one.flow))


@holds("boykov_jolly")
def test_more_seeds_cost_more(rng: Rng) -> None:
    image, foreground, background = seeded(rng)
    more = foreground | (~background & (rng.random(foreground.shape) < 0.2))
    one = cv3gpu.boykov_jolly(image, foreground, background, lam=8.0, sigma=0.2)
    two = cv3gpu.boykov_jolly(image, more, background, lam=8.0, sigma=0.2)
    assert float(two.flow) >= float(one.flow) - NEAR and (two.labels >= one.labels).all()


def object_in(rng: Rng) -> tuple[Array, tuple[int, int, int, int]]:
    """An image of something on something else, and a rectangle around it: x, y, width, height."""
    image = rng.integers(0, 60, (12, 14, 3)).astype(np.uint8)
    image[4:8, 4:9] += np.uint8(150)
    return image, (3, 3, 8, 7)


@holds("grab_cut", examples=5)
def test_what_is_outside_of_the_rectangle_stays_outside(rng: Rng) -> None:
    image, rect = object_in(rng)
    labels = cv3gpu.grab_cut(image, rect, n_components=2, max_iter=3).labels
    x, y, w, h = rect
    inside = np.zeros(labels.shape, bool)
    inside[y : y + h, x : x + w] = True
    assert not labels[~inside].any() and set(np.unique(labels)) <= {0, 1}


@holds("grab_cut", examples=5)
def test_iterations_never_raise_the_energy(rng: Rng) -> None:
    image, rect = object_in(rng)
    found = cv3gpu.grab_cut(image, rect, n_components=2)
    assert (np.diff(found.energy) <= 1e-6 * np.abs(found.energy[:-1])).all() and len(found.energy) == found.n_iter


@holds("grab_cut", examples=5)
def test_a_mirrored_object_is_cut_out_mirrored(rng: Rng) -> None:
    image, rect = object_in(rng)
    x, y, w, h = rect
    mask = np.zeros(image.shape[:2], np.uint8)
    mask[y : y + h, x : x + w] = 3  # probably foreground
    mask[5, 5] = 1  # surely
    labels = cv3gpu.grab_cut(image, mask=mask, n_components=1).labels
    turned = cv3gpu.grab_cut(image[:, ::-1].copy(), mask=mask[:, ::-1].copy(), n_components=1).labels
    np.testing.assert_array_equal(turned, labels[:, ::-1])
    assert labels[5, 5] == 1


# ---- superpixels, clusters ------------------------------------------------------------------------------


@holds("slic")
def test_superpixels_are_numbered_and_connected(rng: Rng) -> None:
    image = rng.random((*few(rng, 1, 20, 2), 3))
    labels = run(rng, cv3gpu.slic, image, int(rng.integers(1, 40)), float(rng.uniform(0.1, 50)))
    count = labels.max() + 1
    np.testing.assert_array_equal(np.unique(labels), np.arange(count))
    assert all(ndimage.label(labels == k)[1] == 1 for k in range(count))


@holds("slic")
def test_superpixels_of_bytes_are_those_of_floats(rng: Rng) -> None:
    image = rng.integers(0, 256, (*few(rng, 2, 16, 2), 3), np.uint8)
    n = int(rng.integers(1, 20))
    np.testing.assert_array_equal(cv3gpu.slic(image, n), cv3gpu.slic(image / 255.0, n))


@holds("slic")
def test_superpixels_are_the_same_again_and_one_is_one(rng: Rng) -> None:
    image = rng.random((*few(rng, 2, 16, 2), 3))
    np.testing.assert_array_equal(cv3gpu.slic(image, 9), cv3gpu.slic(image.copy(), 9))
    assert not cv3gpu.slic(image, 1).any()


@holds("kmeans")
def test_more_iterations_never_raise_the_inertia(rng: Rng) -> None:
    x = rng.normal(size=(int(rng.integers(5, 40)), 2))
    start = x[:4].copy()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", cv3gpu.ConvergenceWarning)
        inertia = [float(cv3gpu.kmeans(x, 4, init=start, max_iter=n, tol=0.0).inertia) for n in (1, 2, 3, 300)]
    assert all(b <= a + NEAR for a, b in itertools.pairwise(inertia))


@holds("kmeans")
def test_points_of_k_means_may_come_in_any_order(rng: Rng) -> None:
    x = rng.normal(size=(int(rng.integers(5, 40)), 3))
    order = rng.permutation(len(x))
    one = cv3gpu.kmeans(x, 4, init=x[:4].copy(), tol=0.0)
    two = cv3gpu.kmeans(x[order], 4, init=x[:4].copy(), tol=0.0)
    np.testing.assert_array_equal(two.labels, one.labels[order])
    near(two.centroids, one.centroids)


@holds("mean_shift")
def test_moved_points_have_moved_modes(rng: Rng) -> None:
    x = rng.integers(-8, 9, (int(rng.integers(1, 30)), 2)) / 4.0
    labels, modes, _ = cv3gpu.mean_shift(x, 0.9)
    again, moved, _ = run(rng, cv3gpu.mean_shift, x + 16.0, 0.9)
    np.testing.assert_array_equal(again, labels)
    near(moved, modes + 16.0, 100.0)


@holds("mean_shift")
def test_a_wide_window_has_one_mode_the_mean(rng: Rng) -> None:
    x = rng.normal(size=(int(rng.integers(1, 30)), 3))
    labels, modes, _ = run(rng, cv3gpu.mean_shift, x, 100.0)
    assert not labels.any()
    near(modes, x.mean(0)[None])


@holds("mean_shift_filter")
def test_a_filtered_image_moves_with_its_colours(rng: Rng) -> None:
    image = rng.integers(0, 64, (*few(rng, 1, 9, 2), 2)) / 4.0
    near(
        run(rng, cv3gpu.mean_shift_filter, image + 32.0, 2.0, 3.0),
        cv3gpu.mean_shift_filter(image, 2.0, 3.0) + 32.0,
        100.0,
    )


@holds("mean_shift_filter")
def test_a_filtered_image_stays_within_its_colours(rng: Rng) -> None:
    image = rng.normal(size=(*few(rng, 1, 9, 2), 3))
    for kernel in ("flat", "gaussian"):
        found = cv3gpu.mean_shift_filter(image, 2.0, 1.0, kernel=kernel)
        assert (found >= image.min((0, 1)) - NEAR).all() and (found <= image.max((0, 1)) + NEAR).all()


@holds("mean_shift_filter")
def test_a_turned_image_is_filtered_turned(rng: Rng) -> None:
    image = rng.integers(0, 16, (*few(rng, 1, 9, 2), 1)).astype(float)
    near(
        cv3gpu.mean_shift_filter(image.swapaxes(0, 1).copy(), 2.0, 4.0),
        cv3gpu.mean_shift_filter(image, 2.0, 4.0).swapaxes(0, 1),
        100.0,
    )


@holds("mean_shift_segmentation")
def test_segments_do_not_move_with_the_colours(rng: Rng) -> None:
    image = rng.integers(0, 16, (*few(rng, 1, 9, 2), 3)).astype(float)
    one, two = (cv3gpu.mean_shift_segmentation(x, 2.0, 4.0, 2) for x in (image, image + 64.0))
    np.testing.assert_array_equal(one.labels, two.labels)


@holds("mean_shift_segmentation")
def test_segments_are_numbered_in_the_order_of_their_first_pixels(rng: Rng) -> None:
    image = rng.normal(size=(*few(rng, 1, 9, 2), 3)) * 5
    labels = run(rng, cv3gpu.mean_shift_segmentation, image, 2.0, 4.0, int(rng.integers(1, 9)))[0]
    used, first = np.unique(labels, return_index=True)
    assert used.tolist() == list(range(len(used))) and (np.diff(first) > 0).all()


# ---- affinities, eigenvectors, cuts ---------------------------------------------------------------------


def dense(x: Any) -> Array:
    """A matrix as an array."""
    return np.asarray(x.todense() if hasattr(x, "todense") else x.tocsr().todense() if hasattr(x, "tocsr") else x)


def points(rng: Rng) -> Array:
    return rng.normal(size=(int(rng.integers(4, 25)), int(rng.integers(1, 4))))


@holds("knn_affinity", "rbf_affinity")
def test_affinities_of_points_are_symmetric(rng: Rng) -> None:
    x = points(rng)
    for found in (cv3gpu.knn_affinity(x, 3), cv3gpu.knn_affinity(x, 3, gamma=0.5), cv3gpu.rbf_affinity(x, gamma=0.5)):
        w = dense(found)
        near(w, w.T)
        assert (w >= 0).all() and (w <= 1).all()


@holds("knn_affinity", "rbf_affinity")
def test_points_of_an_affinity_may_come_in_any_order(rng: Rng) -> None:
    x = points(rng)
    order = rng.permutation(len(x))
    for made in (lambda v: cv3gpu.knn_affinity(v, 4, gamma=0.3), lambda v: cv3gpu.rbf_affinity(v, gamma=0.3)):
        near(dense(made(x[order])), dense(made(x))[np.ix_(order, order)])


@holds("knn_affinity", "rbf_affinity")
def test_only_distances_of_points_matter(rng: Rng) -> None:
    x = points(rng)
    turn = np.linalg.qr(rng.normal(size=(x.shape[1],) * 2))[0]
    near(dense(cv3gpu.rbf_affinity(2 * (x @ turn) + 1, gamma=0.1)), dense(cv3gpu.rbf_affinity(x, gamma=0.4)), 10.0)
    near(dense(cv3gpu.knn_affinity(2 * (x @ turn) + 1, 3)), dense(cv3gpu.knn_affinity(x, 3)))


@holds("pixel_affinity")
def test_the_affinity_of_an_image_is_a_symmetric_operator(rng: Rng) -> None:
    image = rng.random(few(rng, 1, 8, 2))
    w = cv3gpu.pixel_affinity(image, radius=float(rng.uniform(1, 5)))
    a, b = rng.normal(size=(2, image.size))
    near(inner(w @ a, b), inner(a, w @ b), 100.0)
    near(w @ np.ones(image.size), w.degree, 100.0)


@holds("pixel_affinity")
def test_the_affinity_of_a_turned_or_brighter_image(rng: Rng) -> None:
    image = rng.random(few(rng, 1, 7, 2))
    n = image.size
    w = dense(cv3gpu.pixel_affinity(image, radius=3))
    near(dense(cv3gpu.pixel_affinity(image[::-1, ::-1].copy(), radius=3)), w[::-1, ::-1])
    near(dense(cv3gpu.pixel_affinity(image + 1, radius=3)), w, 10.0)
    near(dense(cv3gpu.pixel_affinity(4 * image, radius=3, sigma_intensity=0.4)), w)
    place = np.arange(n).reshape(image.shape).T.ravel()
    near(dense(cv3gpu.pixel_affinity(image.T.copy(), radius=3)), w[np.ix_(place, place)])


@holds("region_affinity")
def test_the_affinity_of_regions_is_symmetric_and_knows_no_names(rng: Rng) -> None:
    image, regions = rng.random((6, 7, 3)), rng.integers(0, 5, (6, 7))
    regions = np.unique(regions, return_inverse=True)[1].reshape(6, 7)
    w = dense(cv3gpu.region_affinity(image, regions, sigma=0.3))
    near(w, w.T)
    order = rng.permutation(len(w))
    place = np.argsort(order)
    near(dense(cv3gpu.region_affinity(image, place[regions], sigma=0.3)), w[np.ix_(order, order)])


@holds("region_affinity")
def test_the_affinity_of_regions_of_a_brighter_image(rng: Rng) -> None:
    image, regions = rng.random((6, 7, 3)), np.repeat(np.arange(6)[:, None], 7, 1) // 2
    near(
        dense(cv3gpu.region_affinity(image + 0.5, regions, sigma=0.3)),
        dense(cv3gpu.region_affinity(image, regions, sigma=0.3)),
        10.0,
    )


@holds("region_affinity")
def test_the_affinity_of_regions_of_a_turned_image(rng: Rng) -> None:
    image, regions = rng.random((6, 7, 3)), rng.integers(0, 4, (6, 7))
    regions[0, :4] = np.arange(4)
    one = dense(cv3gpu.region_affinity(image, regions, sigma=0.3))
    near(dense(cv3gpu.region_affinity(image[::-1].copy(), regions[::-1].copy(), sigma=0.3)), one)
    assert (one <= 1).all() and (one >= 0).all() and (np.diag(one) == 1).all()


def graph(rng: Rng, n: int) -> Array:
    w = rng.random((n, n)) * (rng.random((n, n)) < 0.6) + 0.01
    return w + w.T


@holds("laplacian")
def test_a_laplacian_of_ones_is_zero(rng: Rng) -> None:
    w = graph(rng, int(rng.integers(2, 15)))
    for normalization in (None, "random_walk"):
        near(dense(cv3gpu.laplacian(w, normalization=normalization)).sum(1), np.zeros(len(w)), 100.0)
    root = np.sqrt(w.sum(1))
    near(dense(cv3gpu.laplacian(w, normalization="symmetric")) @ root, np.zeros(len(w)), 100.0)


@holds("laplacian")
def test_eigenvalues_of_laplacians(rng: Rng) -> None:
    w = graph(rng, int(rng.integers(2, 15)))
    plain = np.linalg.eigvalsh(dense(cv3gpu.laplacian(w)))
    scaled = np.linalg.eigvalsh(dense(cv3gpu.laplacian(w, normalization="symmetric")))
    assert plain.min() >= -NEAR and scaled.min() >= -NEAR and scaled.max() <= 2 + NEAR


@holds("laplacian")
def test_a_laplacian_of_a_sum(rng: Rng) -> None:
    n = int(rng.integers(2, 12))
    v, w = graph(rng, n), graph(rng, n)
    near(dense(cv3gpu.laplacian(v + 2 * w)), dense(cv3gpu.laplacian(v)) + 2 * dense(cv3gpu.laplacian(w)), 100.0)


@holds("ncut_value")
def test_the_value_of_a_cut_has_no_unit(rng: Rng) -> None:
    w = graph(rng, 9)
    labels = rng.integers(0, 3, 9)
    value = cv3gpu.ncut_value(w, labels)
    near(cv3gpu.ncut_value(8 * w, labels), value)
    near(cv3gpu.ncut_value(scipy.sparse.csr_array(w), labels), value)


@holds("ncut_value")
def test_the_value_of_a_cut_knows_no_order(rng: Rng) -> None:
    w, labels, order = graph(rng, 9), rng.integers(0, 3, 9), rng.permutation(9)
    near(cv3gpu.ncut_value(w[np.ix_(order, order)], labels[order]), cv3gpu.ncut_value(w, labels))
    near(cv3gpu.ncut_value(w, np.zeros(9, np.int64)), 0.0)


@holds("smallest_eigenpairs")
def test_eigenvalues_lie_between_zero_and_two(rng: Rng) -> None:
    n = int(rng.integers(3, 25))
    found = cv3gpu.smallest_eigenpairs(graph(rng, n), min(n, 4))
    values = found.eigenvalues
    assert (values >= -NEAR).all() and (values <= 2 + NEAR).all() and (np.diff(values) >= -NEAR).all()
    assert abs(values[0]) < NEAR


@holds("smallest_eigenpairs")
def test_eigenvectors_are_orthonormal_by_degrees(rng: Rng) -> None:
    w = graph(rng, int(rng.integers(5, 25)))
    y = cv3gpu.smallest_eigenpairs(w, 4).eigenvectors
    assert np.abs(y.T @ (w.sum(1)[:, None] * y) - np.eye(4)).max() < 1e-6
    assert (np.take_along_axis(y, np.abs(y).argmax(0)[None], 0) > 0).all()


@holds("smallest_eigenpairs")
def test_eigenvalues_know_no_order_and_no_unit(rng: Rng) -> None:
    w = graph(rng, int(rng.integers(5, 20)))
    order = rng.permutation(len(w))
    values = cv3gpu.smallest_eigenpairs(w, 3, tol=1e-9).eigenvalues
    near(cv3gpu.smallest_eigenpairs(w[np.ix_(order, order)], 3, tol=1e-9).eigenvalues, values, 100.0)
    near(cv3gpu.smallest_eigenpairs(16 * w, 3, tol=1e-9).eigenvalues, values, 100.0)


def islands(rng: Rng, count: int) -> tuple[Array, Array]:
    """Points in heaps far apart, and of which heap each is."""
    of = rng.permutation(np.repeat(np.arange(count), 8))
    return 50.0 * np.stack([of % 2, of // 2], 1) + rng.normal(size=(len(of), 2)), of


@holds("spectral_clustering", examples=6)
def test_heaps_far_apart_are_found(rng: Rng) -> None:
    x, of = islands(rng, int(rng.integers(2, 5)))
    found = cv3gpu.spectral_clustering(x, of.max() + 1, n_neighbors=5)
    assert same_partition(found, of) and set(np.unique(found)) == set(range(of.max() + 1))


@holds("spectral_clustering", examples=6)
def test_clusters_do_not_hang_on_place_or_order(rng: Rng) -> None:
    x, of = islands(rng, 3)
    order = rng.permutation(len(x))
    moved = cv3gpu.spectral_clustering(4 * x[order] + 1, 3, n_neighbors=5)
    assert same_partition(moved, cv3gpu.spectral_clustering(x, 3, n_neighbors=5)[order])
    assert same_partition(cv3gpu.spectral_clustering(dense(cv3gpu.knn_affinity(x, 5)), 3, affinity="precomputed"), of)


@holds("spectral_clustering", examples=6)
def test_clusters_are_labels_of_each_point_and_the_same_again(rng: Rng) -> None:
    x, k = points(rng), int(rng.integers(1, 4))
    found = cv3gpu.spectral_clustering(x, k, affinity="rbf", seed=5)
    assert found.shape == (len(x),) and found.min() >= 0 and found.max() < k
    np.testing.assert_array_equal(cv3gpu.spectral_clustering(x, k, affinity="rbf", seed=5), found)


@holds("normalized_cut", examples=6)
def test_two_halves_are_cut_apart(rng: Rng) -> None:
    image = np.zeros(few(rng, 6, 10, 2))
    at = int(rng.integers(3, image.shape[1] - 2))
    image[:, at:] = 1.0
    labels, ncut = cv3gpu.normalized_cut(image + 0.01 * rng.random(image.shape), n_segments=2)
    assert same_partition(labels, image.astype(int)) and 0 <= ncut < 0.1


@holds("normalized_cut", examples=6)
def test_a_cut_of_an_affinity_knows_no_unit_and_no_order(rng: Rng) -> None:
    x, _ = islands(rng, 3)
    w = dense(cv3gpu.rbf_affinity(x / 10, gamma=0.5)) + 1e-4
    order = rng.permutation(len(w))
    one = cv3gpu.normalized_cut(None, affinity=w, n_segments=3)
    two = cv3gpu.normalized_cut(None, affinity=4 * w[np.ix_(order, order)], n_segments=3)
    assert same_partition(two.labels, one.labels[order])
    assert two.ncut == pytest.approx(one.ncut, rel=1e-6)


# ---- metrics --------------------------------------------------------------------------------------------


def two_maps(rng: Rng) -> tuple[Array, Array, int]:
    classes = int(rng.integers(1, 6))
    pred, target = rng.integers(0, classes, (2, *few(rng, 2, 9, 2)))
    return pred, target, classes


@holds("confusion_matrix")
def test_a_confusion_matrix_counts_each_pixel_once(rng: Rng) -> None:
    pred, target, n = two_maps(rng)
    found = run(rng, cv3gpu.confusion_matrix, pred, target, n)
    assert found.sum() == pred.size
    np.testing.assert_array_equal(found.sum(1), np.bincount(target.ravel(), minlength=n))
    np.testing.assert_array_equal(cv3gpu.confusion_matrix(target, pred, n), found.T)


@holds("confusion_matrix")
def test_confusion_matrices_add_up(rng: Rng) -> None:
    pred, target, n = two_maps(rng)
    parts = [cv3gpu.confusion_matrix(pred[i : i + 1], target[i : i + 1], n) for i in range(len(pred))]
    np.testing.assert_array_equal(run(rng, cv3gpu.confusion_matrix, pred, target, n), sum(parts))


@holds("confusion_matrix", "mean_iou", "pixel_accuracy")
def test_names_of_classes_do_not_matter(rng: Rng) -> None:
    pred, target, n = two_maps(rng)
    order = rng.permutation(n)
    one, two = cv3gpu.confusion_matrix(pred, target, n), cv3gpu.confusion_matrix(order[pred], order[target], n)
    np.testing.assert_array_equal(two[np.ix_(order, order)], one)
    near(cv3gpu.mean_iou(two), cv3gpu.mean_iou(one))
    near(cv3gpu.pixel_accuracy(two), cv3gpu.pixel_accuracy(one))


@holds("mean_iou", "pixel_accuracy")
def test_figures_of_a_confusion_are_bounded(rng: Rng) -> None:
    pred, target, n = two_maps(rng)
    found = cv3gpu.confusion_matrix(pred, target, n)
    assert 0 <= cv3gpu.mean_iou(found) <= 1 and 0 <= cv3gpu.pixel_accuracy(found) <= 1
    perfect = cv3gpu.confusion_matrix(target, target, n)
    assert cv3gpu.mean_iou(perfect) == cv3gpu.pixel_accuracy(perfect) == 1


@holds("mean_iou", "pixel_accuracy")
def test_figures_of_a_confusion_are_symmetric_and_have_no_unit(rng: Rng) -> None:
    found = rng.integers(0, 9, (4, 4)) + 1
    for figure in (cv3gpu.mean_iou, cv3gpu.pixel_accuracy):
        near(figure(found.T.copy()), figure(found))
        near(figure(5 * found), figure(found))


@holds("boundary_f1")
def test_borders_that_agree(rng: Rng) -> None:
    pred, target, _ = two_maps(rng)
    reach = float(rng.uniform(0, 3))
    value = run(rng, cv3gpu.boundary_f1, pred, target, reach)
    assert 0 <= value <= 1 and cv3gpu.boundary_f1(target, target, reach) == 1
    near(cv3gpu.boundary_f1(target, pred, reach), value)


@holds("boundary_f1")
def test_a_wider_tolerance_never_lowers_the_figure(rng: Rng) -> None:
    pred, target, _ = two_maps(rng)
    values = [cv3gpu.boundary_f1(pred, target, reach) for reach in (0.0, 1.0, 1.5, 3.0)]
    assert values == sorted(values)


@holds("boundary_f1")
def test_names_of_segments_do_not_matter_to_borders(rng: Rng) -> None:
    pred, target, n = two_maps(rng)
    order = rng.permutation(n)
    near(cv3gpu.boundary_f1(order[pred] + 3, target, 1.0), cv3gpu.boundary_f1(pred, target, 1.0))


@holds("panoptic_quality")
def test_panoptic_quality_is_its_parts(rng: Rng) -> None:
    pred, target, _ = two_maps(rng)
    found = cv3gpu.panoptic_quality(pred, target)
    segments = len(np.unique(pred)) + len(np.unique(target))
    assert 2 * found.tp.sum() + found.fp.sum() + found.fn.sum() == segments
    near(found.pq, 2 * found.iou.sum() / segments)
    near(found.rq, 2 * found.tp.sum() / segments)
    if found.tp.sum():
        assert 0.5 < found.sq <= 1
        near(found.pq, found.sq * found.rq)
    assert cv3gpu.panoptic_quality(target, target).pq == 1


@holds("panoptic_quality")
def test_panoptic_quality_knows_no_place(rng: Rng) -> None:
    pred, target, _ = two_maps(rng)
    order = rng.permutation(pred.size)
    shuffled = [x.ravel()[order].reshape(x.shape) for x in (pred, target)]
    near(cv3gpu.panoptic_quality(*shuffled).pq, cv3gpu.panoptic_quality(pred, target).pq)


@holds("panoptic_quality")
def test_panoptic_quality_is_symmetric(rng: Rng) -> None:
    pred, target, _ = two_maps(rng)
    near(cv3gpu.panoptic_quality(target, pred).pq, cv3gpu.panoptic_quality(pred, target).pq)


@holds("rand_index")
def test_pairs_are_counted(rng: Rng) -> None:
    pred, target, _ = two_maps(rng)
    a, b = pred.ravel(), target.ravel()
    agree = (a[:, None] == a) == (b[:, None] == b)
    upper = np.triu_indices(a.size, 1)
    near(run(rng, cv3gpu.rand_index, pred, target), agree[upper].mean())


@holds("rand_index", "variation_of_information", "segmentation_covering")
def test_a_refinement_is_between(rng: Rng) -> None:
    """A labelling is nearer to its refinement than to a refinement of that."""
    _, target, _ = two_maps(rng)
    fine = target * 2 + rng.integers(0, 2, target.shape)
    finer = fine * 2 + rng.integers(0, 2, target.shape)
    assert cv3gpu.rand_index(fine, target) >= cv3gpu.rand_index(finer, target) - NEAR
    assert cv3gpu.variation_of_information(fine, target) <= cv3gpu.variation_of_information(finer, target) + NEAR
    assert cv3gpu.segmentation_covering(fine, target) >= cv3gpu.segmentation_covering(finer, target) - NEAR


@holds("variation_of_information")
def test_a_way_round_is_no_shorter(rng: Rng) -> None:
    a, b, c = rng.integers(0, 4, (3, 6, 7))
    distance = functools.partial(run, rng, cv3gpu.variation_of_information)
    assert distance(a, c) <= distance(a, b) + distance(b, c) + NEAR


@holds("segmentation_covering")
def test_a_covering_is_bounded(rng: Rng) -> None:
    pred, target, _ = two_maps(rng)
    value = run(rng, cv3gpu.segmentation_covering, pred, target)
    assert 0 < value <= 1 + NEAR
    one = cv3gpu.segmentation_covering(np.zeros_like(target), target)
    near(one, ((np.bincount(target.ravel()) / target.size) ** 2).sum())


# ---- the inventory --------------------------------------------------------------------------------------

ELSEWHERE: dict[str, dict[str, tuple[str, ...]]] = {  # properties beside the cases of an operator
    "aspp": {"test_atrous": ("test_each_branch_is_a_convolution",)},
    "aspp_vjp": {"test_atrous": ("test_each_branch_is_a_convolution",)},
    "alpha_expansion": {"test_graphcut_moves": ("test_a_constant_at_each_pixel_changes_nothing", "test_a_result_is_where_no_expansion_leads_further", "test_names_of_two_labels_do_not_matter")},
    "box_iou": {"test_boxes": ("test_symmetry_and_bounds", "test_scale_does_not_matter", "test_translation_does_not_matter")},
    "boykov_jolly": {"test_graphcut_seeds": ("test_symmetries",)},
    "dense_crf": {"test_crf": ("test_marginals_sum_to_one", "test_labels_of_potts_may_be_renamed", "test_a_constant_in_a_pixels_unaries_changes_nothing", "test_a_mirrored_image_has_mirrored_marginals")},
    "dense_crf_vjp": {"test_crf": ("test_a_gradient_is_linear_and_blind_to_constants",)},
    "gaussian_filter": {"test_crf": ("test_an_average_of_ones_is_one", "test_k_is_symmetric", "test_a_filter_is_linear", "test_only_distances_matter")},
    "gaussian_filter_vjp": {"test_crf": ("test_the_filters_gradient_is_its_adjoint",)},
    "graph_cut": {"test_graphcut": ("test_any_problem_is_solved", "test_what_is_added_to_both_terminals_only_raises_the_flow", "test_more_source_never_loses_a_pixel")},
    "interpolate": {"test_resize": ("test_constant_stays", "test_linearity", "test_flips_commute")},
    "kmeans": {"test_kmeans": ("test_every_point_is_with_its_nearest_centre", "test_moving_and_scaling_points_moves_and_scales_centres")},
    "linear_sum_assignment": {"test_assignment": ("test_properties",)},
    "max_pool2d": {"test_pool": ("test_adjoints_are_transposed", "test_increasing_maps_commute")},
    "max_pool2d_adjoint": {"test_pool": ("test_adjoints_are_transposed",)},
    "max_unpool2d_adjoint": {"test_pool": ("test_adjoints_are_transposed",)},
    "mean_shift": {"test_mean_shift": ("test_modes_are_fixed_points_and_apart", "test_units_do_not_matter")},
    "mean_shift_segmentation": {"test_mean_shift": ("test_segments_are_connected_and_large_enough",)},
    "ncut_value": {"test_affinity": ("test_ncut_value_is_between_zero_and_the_number_of_segments",)},
    "normalized_cut": {"test_normalized_cut": ("test_labels_keep_the_rules",)},
    "pixel_affinity": {"test_affinity": ("test_any_image",)},
    "pyramid_pooling": {"test_pyramid": ("test_constants_are_kept",)},
    "rand_index": {"test_metrics": ("test_metrics_do_not_depend_on_names_or_order",)},
    "resize_conv2d": {"test_resize_conv": ("test_adjoints_are_adjoint", "test_is_interpolate_then_conv2d")},
    "resize_conv2d_adjoint_input": {"test_resize_conv": ("test_adjoints_are_adjoint",)},
    "resize_conv2d_adjoint_weight": {"test_resize_conv": ("test_adjoints_are_adjoint",)},
    "segmentation_covering": {"test_metrics": ("test_metrics_do_not_depend_on_names_or_order",)},
    "smallest_eigenpairs": {"test_eigen": ("test_any_image",)},
    "upsample_argmax": {"test_upsample": ("test_labels_of_one_hot_logits_come_back",)},
    "upsample_cross_entropy": {"test_upsample": ("test_a_shift_of_all_logits_changes_nothing",)},
    "upsample_cross_entropy_vjp": {"test_upsample": ("test_a_shift_of_all_logits_changes_nothing",)},
    "variation_of_information": {"test_metrics": ("test_metrics_do_not_depend_on_names_or_order",)},
}  # fmt: skip
NO_OPERATORS = {"determinism": "looks up a label in a table"}
ENOUGH = 3


@functools.cache
def properties_in(file: str) -> dict[str, str]:
    """The source of each test of a file that Hypothesis draws for."""
    text = (HERE / f"{file}.py").read_text()
    found = {}
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef) and any("given(" in ast.unparse(made) for made in node.decorator_list):
            found[node.name] = text
    return found


def operators() -> list[str]:
    """The public functions."""
    public = {name: getattr(cv3gpu, name) for name in cv3gpu.__all__}
    return sorted(name for name, value in public.items() if inspect.isfunction(value) and name not in NO_OPERATORS)


@pytest.mark.parametrize("operator", operators())
def test_an_operator_has_three_properties(operator: str) -> None:
    names = [f"here::{name}" for name in OWN.get(operator, ())]
    for file, tests in ELSEWHERE.get(operator, {}).items():
        for test in tests:
            assert test in properties_in(file), f"{file}.{test} is no property test"
            assert operator in properties_in(file)[test], f"{file} does not name {operator}"
            names.append(f"{file}::{test}")
    assert len(set(names)) >= ENOUGH, f"{operator} has {len(set(names))} properties: {names}"


def test_the_inventory_names_operators() -> None:
    assert set(OWN) | set(ELSEWHERE) <= set(operators())
    assert all(name in globals() for names in OWN.values() for name in names)
