"""One row for each public function: a valid call of the smallest arrays, and what each of its arguments takes.

`test_bad_input.py` makes bad calls of these rows. An array says which kinds of dtype it may have, which of its
dimensions must fit something, which of them may be 0, and how its operator answers NaN and infinity; a parameter says
its type and its range.
"""

from __future__ import annotations

import functools
import importlib
import os
import tempfile
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

import cv3gpu


class Array(NamedTuple):
    """An array argument."""

    values: np.ndarray[Any, Any]
    takes: str  # kinds of dtype: f(loat), i(nteger), u(int8), b(ool), c(omplex), *: whatever NumPy has
    fits: str  # of each dimension: "=" where another size must be refused, "." where it is fine
    empty: str  # of each dimension: "0" where size 0 gives a result, "!" where it must be refused
    ndims: tuple[int, ...] = ()  # other numbers of dimensions that are fine
    odd: str = (
        "passes"  # NaN and infinity give a result, or are "refused"; "nan": NaN is refused, infinity has a meaning
    )
    wild: str = "refused"  # so do integers far out of range
    optional: bool = False


class Whole(NamedTuple):
    """A parameter that is an integer, or a pair of them."""

    least: int | None
    most: int | None = None
    optional: bool = False
    pair: bool = False


class Real(NamedTuple):
    """A parameter that is a finite number."""

    refuses: tuple[float, ...] = ()  # of the finite ones
    optional: bool = False
    widths: bool = False  # several numbers, or an array of them, are fine too


class Word(NamedTuple):
    """A parameter that is one of a few words."""

    optional: bool = False


class Flag(NamedTuple):
    """A parameter that is True or False."""

    optional: bool = False


class Typed(NamedTuple):
    """An argument of another type than an array: what makes one that is right."""

    value: Callable[[], Any]


class Made(NamedTuple):
    """An argument made of arrays of the call's library."""

    of: Callable[[Callable[[Any], Any]], Any]


class Row(NamedTuple):
    """A public function: its name, how its errors name it, its arguments and its parameters."""

    name: str
    op: str
    function: Callable[..., Any]
    arguments: dict[str, Any]
    options: dict[str, Any]
    libraries: tuple[str, ...]
    gradient: bool
    array_like: bool  # lists, and NumPy arrays of any memory, are fine: they are copied
    refusals_alone: bool  # its results take long, and are compared elsewhere


ROWS: dict[str, Row] = {}
BOTH = ("numpy", "torch")


def find(name: str) -> Any:
    """The public object of a dotted name below ``cv3gpu``."""
    module, _, last = name.partition("#")[0].rpartition(".")
    return getattr(importlib.import_module(f"cv3gpu.{module}") if module else cv3gpu, last)


def row(
    name: str,
    options: dict[str, Any] | None = None,
    *,
    op: str | None = None,
    function: Callable[..., Any] | None = None,
    libraries: tuple[str, ...] = BOTH,
    gradient: bool = False,
    array_like: bool = False,
    refusals_alone: bool = False,
    **arguments: Any,
) -> None:
    """Adds a row; the function is looked up by its name, without what stands behind "#"."""
    if function is None:
        function = functools.partial(_call, name)
    ROWS[name] = Row(
        name,
        op or name.partition("#")[0].split(".")[-1],
        function,
        arguments,
        options or {},
        libraries,
        gradient,
        array_like,
        refusals_alone,
    )


def _call(name: str, **arguments: Any) -> Any:
    return find(name)(**arguments)


def _values(shape: Sequence[int], low: float, high: float) -> np.ndarray[Any, Any]:
    n = int(np.prod(shape))
    return (low + (high - low) * ((np.arange(n) * 0.6180339887) % 1)).astype(np.float32).reshape(shape)


def real(*shape: int, fits: str = "", empty: str = "", low: float = 0.1, high: float = 1.0, takes: str = "f",
         ndims: tuple[int, ...] = (), odd: str = "passes", optional: bool = False) -> Array:  # fmt: skip
    """Floats; by default every dimension is free and may be 0."""
    n = len(shape)
    return Array(_values(shape, low, high), takes, fits or "." * n, empty or "0" * n, ndims, odd, "passes", optional)


def whole(values: Any, *, fits: str = "", empty: str = "", takes: str = "i", ndims: tuple[int, ...] = (),
          wild: str = "refused", optional: bool = False, dtype: str = "int64") -> Array:  # fmt: skip
    """Integers."""
    found = np.array(values, dtype)
    n = found.ndim
    return Array(found, takes, fits or "." * n, empty or "0" * n, ndims, "passes", wild, optional)


# ---- dense prediction -----------------------------------------------------------------------------------

_GEOMETRY = {
    "stride": Whole(1, pair=True),
    "padding": Whole(0, pair=True),
    "dilation": Whole(1, pair=True),
    "groups": Whole(1),
}
row(
    "conv2d",
    {**_GEOMETRY, "padding_mode": Word(), "activation": Word(optional=True), "allow_tf32": Flag()},
    x=real(2, 3, 4, 5, fits=".=..", empty="0!!!"),
    weight=real(2, 3, 3, 2, fits=".=..", empty="!!!!"),
    bias=real(2, fits="=", empty="!", optional=True),
    scale=real(2, fits="=", empty="!", optional=True),
    gradient=True,
)
row(
    "conv2d_adjoint_input",
    {**_GEOMETRY, "padding_mode": Word(), "allow_tf32": Flag(), "input_size": Whole(1, pair=True)},
    grad=real(2, 2, 2, 4, fits=".===", empty="0!!!"),
    weight=real(2, 3, 3, 2, fits="=.==", empty="!!!!"),
    input_size=(4, 5),
    gradient=True,
)
row(
    "conv2d_adjoint_weight",
    {**_GEOMETRY, "padding_mode": Word(), "kernel_size": Whole(1, pair=True)},
    grad=real(2, 2, 2, 4, fits="=.==", empty="!0!!"),
    x=real(2, 3, 4, 5, fits="=.==", empty="!0!!"),
    kernel_size=(3, 2),
    gradient=True,
)
row(
    "conv_transpose2d",
    {**_GEOMETRY, "output_padding": Whole(0, pair=True), "diagonal": Flag()},
    x=real(2, 3, 4, 5, fits=".=..", empty="0!!!"),
    weight=real(3, 2, 3, 2, fits="=...", empty="!!!!"),
    bias=real(2, fits="=", empty="!", optional=True),
    gradient=True,
)
_SAMPLING = {"mode": Word(), "align_corners": Flag(optional=True), "antialias": Flag()}
row(
    "interpolate",
    {**_SAMPLING, "size": Whole(1, pair=True)},
    x=real(2, 3, 4, 5, empty="00!!"),
    size=(7, 3),
    mode="bilinear",
    gradient=True,
)
row(
    "interpolate_adjoint",
    {**_SAMPLING, "input_size": Whole(1, pair=True)},
    grad=real(2, 3, 4, 5, empty="00!!"),
    input_size=(7, 3),
    mode="bilinear",
    gradient=True,
)
_RESIZE_CONV = {
    "mode": Word(),
    "align_corners": Flag(),
    "padding": Whole(0, pair=True),
    "dilation": Whole(1, pair=True),
}
row(
    "resize_conv2d",
    {**_RESIZE_CONV, "size": Whole(1, pair=True)},
    x=real(2, 3, 4, 5, fits=".=..", empty="0!!!"),
    weight=real(2, 3, 3, 3, fits=".=..", empty="!!!!"),
    bias=real(2, fits="=", empty="!", optional=True),
    size=(8, 10),
    gradient=True,
)
row(
    "resize_conv2d_adjoint_input",
    {**_RESIZE_CONV, "input_size": Whole(1, pair=True), "scale_factor": Real((0.0, -1.0), optional=True)},
    grad=real(2, 2, 8, 10, fits=".===", empty="0!!!"),
    weight=real(2, 3, 3, 3, fits="=...", empty="!!!!"),
    input_size=(4, 5),
    scale_factor=2.0,
    gradient=True,
)
row(
    "resize_conv2d_adjoint_weight",
    {**_RESIZE_CONV, "kernel_size": Whole(1, pair=True), "scale_factor": Real((0.0, -1.0), optional=True)},
    grad=real(2, 2, 8, 10, fits="=.==", empty="!0!!"),
    x=real(2, 3, 4, 5, fits="=.==", empty="!0!!"),
    kernel_size=(3, 3),
    scale_factor=2.0,
    gradient=True,
)
_WINDOW = {"kernel_size": Whole(1, pair=True), "stride": Whole(1, pair=True, optional=True),
           "padding": Whole(0, pair=True)}  # fmt: skip
_PLACES = np.array([[[[0, 3], [9, 10]], [[1, 2], [8, 11]]]] * 2)
row(
    "max_pool2d",
    {**_WINDOW, "dilation": Whole(1, pair=True), "ceil_mode": Flag(), "compact": Flag()},
    x=real(2, 2, 4, 4, empty="00!!"),
    kernel_size=2,
    gradient=True,
)
row(
    "max_pool2d_adjoint",
    {**_WINDOW, "dilation": Whole(1, pair=True), "input_size": Whole(1, pair=True)},
    grad=real(2, 2, 2, 2, fits="====", empty="!!!!"),
    indices=whole(_PLACES, fits="====", empty="!!!!"),
    input_size=(4, 4),
    kernel_size=2,
    gradient=True,
)
row(
    "max_unpool2d",
    {**_WINDOW, "output_size": Whole(1, pair=True, optional=True)},
    x=real(2, 2, 2, 2, fits="====", empty="!!!!"),
    indices=whole(_PLACES, fits="====", empty="!!!!"),
    kernel_size=2,
    gradient=True,
)
row(
    "max_unpool2d_adjoint",
    {**_WINDOW, "dilation": Whole(1, pair=True)},
    grad=real(2, 2, 4, 4, fits="==..", empty="!!!!"),
    indices=whole(_PLACES, fits="==..", empty="!!00"),
    kernel_size=2,
    gradient=True,
)
row(
    "upsample_argmax",
    {"size": Whole(1, pair=True), "align_corners": Flag(), "dtype": Word()},
    logits=real(2, 3, 4, 5, empty="0!!!"),
    size=(7, 6),
)
_LOSS = {
    "ignore_index": Whole(None),
    "align_corners": Flag(),
    "label_smoothing": Real((-0.1, 1.1)),
    "reduction": Word(),
}
_TARGET = np.arange(2 * 7 * 6).reshape(2, 7, 6) % 3
row(
    "upsample_cross_entropy",
    _LOSS,
    logits=real(2, 3, 4, 5, fits="=...", empty="!!!!"),
    target=whole(_TARGET, fits="=..", empty="!!!", takes="iu"),
    weight=real(3, fits="=", empty="!", optional=True),
    gradient=True,
)
row(
    "upsample_cross_entropy_vjp",
    _LOSS,
    grad=real(fits="", empty=""),
    logits=real(2, 3, 4, 5, fits="=...", empty="!!!!"),
    target=whole(_TARGET, fits="=..", empty="!!!", takes="iu"),
    weight=real(3, fits="=", empty="!", optional=True),
)
_SEPARABLE: dict[str, Any] = {
    "x": real(2, 3, 4, 5, fits=".=..", empty="0!!!"),
    "depthwise": real(3, 1, 3, 2, fits="==..", empty="!!!!"),
    "pointwise": real(2, 3, 1, 1, fits=".===", empty="!!!!"),
    "bias": real(2, fits="=", empty="!", optional=True),
    "mid_scale": real(3, fits="=", empty="!", optional=True),
    "mid_bias": real(3, fits="=", empty="!", optional=True),
    "scale": real(2, fits="=", empty="!", optional=True),
}
_SEPARABLE_OPTIONS = {"stride": Whole(1, pair=True), "padding": Whole(0, pair=True), "dilation": Whole(1, pair=True),
                      "mid_activation": Word(optional=True), "activation": Word(optional=True)}  # fmt: skip
row("separable_conv2d", _SEPARABLE_OPTIONS, **_SEPARABLE, gradient=True)
row(
    "separable_conv2d_vjp",
    _SEPARABLE_OPTIONS,
    grad=real(2, 2, 2, 4, fits="====", empty="!!!!"),
    **(_SEPARABLE | {"x": real(2, 3, 4, 5, fits="====", empty="!!!!")}),
)
_BRANCHES = [real(2, 3, 1, 1, fits=".=..", empty="!!!!"), real(2, 3, 3, 3, fits=".=..", empty="!!!!")]
_VECTORS = [real(2, fits="=", empty="!")] * 2
_FOLDED: dict[str, Any] = {"weights": _BRANCHES, "scales": _VECTORS, "biases": _VECTORS, "dilations": (1, 2)}
row(
    "aspp",
    {"activation": Word(optional=True)},
    x=real(2, 3, 4, 5, fits=".=..", empty="0!!!"),
    **_FOLDED,
    gradient=True,
)
row(
    "atrous.atrous_branches",
    {"activation": Word(optional=True)},
    x=real(2, 3, 4, 5, fits=".=..", empty="!!!!"),
    **_FOLDED,
    image_bias=real(2, 4, fits="==", empty="!!", optional=True),
    constant=real(2, 3, fits="=.", empty="!0", optional=True),
    gradient=True,
)
row(
    "aspp_vjp",
    grad=real(2, 4, 4, 5, fits="====", empty="!!!!"),
    x=real(2, 3, 4, 5, fits="====", empty="!!!!"),
    weights=_BRANCHES,
    dilations=(1, 2),
)
row(
    "pyramid_pooling",
    {"activation": Word(optional=True), "align_corners": Flag()},
    x=real(2, 3, 4, 5, fits=".=..", empty="0!!!"),
    weights=[real(2, 3, 1, 1, fits=".===", empty="!!!!")] * 2,
    biases=[real(2, fits="=", empty="!")] * 2,
    bins=(1, 2),
    gradient=True,
)
row("pyramid.pyramid_pool", x=real(2, 3, 4, 5, empty="0!!!"), bins=(1, 2), gradient=True)
row(
    "pyramid.pyramid_pool_adjoint",
    {"input_size": Whole(1, pair=True)},
    grad=real(2, 3, 5, 1, fits="..==", empty="00!!"),
    input_size=(4, 5),
    bins=(1, 2),
    gradient=True,
)
_EXPAND = {"kernel_size": Whole(1, 7, pair=True), "align_corners": Flag()}
row(
    "pyramid.pyramid_expand",
    {**_EXPAND, "activation": Word(optional=True)},
    base=real(2, 3, 4, 5, fits="==..", empty="!!!!"),
    z=real(2, 3, 45, fits="===", empty="!!!"),
    bins=(1, 2),
    scale=real(3, fits="=", empty="!", optional=True),
    bias=real(3, fits="=", empty="!", optional=True),
    gradient=True,
)
row("pyramid.pyramid_expand_adjoint", _EXPAND, grad=real(2, 3, 4, 5, empty="0!!!"), bins=(1, 2), gradient=True)
row(
    "pyramid_conv2d",
    {"activation": Word(optional=True), "align_corners": Flag()},
    x=real(2, 3, 4, 5, fits="==..", empty="!!!!"),
    pooled_maps=[real(2, 2, 1, 1, fits="==..", empty="!!!!"), real(2, 2, 2, 2, fits="==..", empty="!!!!")],
    weight=real(2, 7, 3, 3, fits=".=..", empty="!!!!"),
    bias=real(2, fits="=", empty="!", optional=True),
    scale=real(2, fits="=", empty="!", optional=True),
    gradient=True,
)

# ---- energy-based segmentation --------------------------------------------------------------------------

_CRF = {
    "theta_gamma": Real((0.0, -1.0), widths=True),
    "theta_alpha": Real((0.0, -1.0), widths=True),
    "theta_beta": Real((0.0, -1.0), widths=True),
    "compat_smooth": Real(widths=True),
    "compat_bilateral": Real(widths=True),
    "n_iter": Whole(0),
    "method": Word(),
    "normalization": Word(),
}
row(
    "dense_crf",
    {**_CRF, "return_info": Flag()},
    unary=real(3, 4, 5, fits=".==", empty="!!!", ndims=(4,)),
    image=real(4, 5, 3, fits="==.", empty="!!!", takes="fu", low=0, high=255, optional=True),
    n_iter=2,
    gradient=True,
)
row(
    "dense_crf_vjp",
    _CRF,
    grad=real(3, 4, 5, fits="===", empty="!!!"),
    unary=real(3, 4, 5, fits="===", empty="!!!"),
    image=real(4, 5, 3, fits="==.", empty="!!!", takes="fu", low=0, high=255, optional=True),
    n_iter=2,
)
_FILTER = {"method": Word(), "normalization": Word()}
_POINTS = {"values": real(3, 6, fits=".=", empty="!!"),
           "features": real(2, 6, fits=".=", empty="!!", low=0, high=3, odd="refused")}  # fmt: skip
row("gaussian_filter", _FILTER, **_POINTS, gradient=True)
row("gaussian_filter_vjp", _FILTER, grad=real(3, 6, fits="==", empty="!!"), **_POINTS)
_STEPS = {"offsets": [(0, 1), (1, 0)]}
row(
    "graph_cut",
    {"minimal": Flag()},
    source_capacity=whole([[9, 2, 0], [1, 5, 3]], fits="==", empty="!!", takes="fiu", wild="passes"),
    sink_capacity=whole([[0, 4, 7], [6, 1, 2]], fits="==", empty="!!", takes="fiu", wild="passes"),
    neighbor_capacity=whole(np.full((2, 2, 3), 3), fits="===", empty="!!!", takes="fiu", wild="passes"),
    **_STEPS,
)
for _name in ("alpha_expansion", "alpha_beta_swap"):
    row(
        _name,
        {"max_iter": Whole(1), "fuse": Flag(), "truncate": Flag()},
        unary=whole(
            [[[0, 4, 9], [1, 8, 2]], [[5, 3, 0], [7, 0, 3]]], fits="===", empty="!!!", takes="fiu", wild="passes"
        ),
        pairwise=whole([[0, 1], [1, 0]], fits="==", empty="!!", takes="fiu", wild="passes"),
        edge_weights=whole(np.full((2, 2, 3), 2), fits="===", empty="!!!", takes="fiu", wild="passes"),
        labels=whole([[0, 0, 1], [0, 1, 1]], fits="==", empty="!!", takes="iu", optional=True),
        **_STEPS,
    )
_FORE, _BACK = np.zeros((2, 4, 5), bool)
_FORE[1, 1] = _BACK[3, 4] = True
row(
    "boykov_jolly",
    {"lam": Real((-1.0,)), "sigma": Real((0.0, -1.0), optional=True), "connectivity": Whole(4, 8),
     "region": Word(optional=True), "region_weight": Real((-1.0,)), "bins": Whole(1), "smoothing": Real((-1.0,)),
     "n_components": Whole(1), "minimal": Flag()},
    image=real(4, 5, 3, fits="==.", empty="!!!", takes="fu", odd="refused"),
    foreground=Array(_FORE, "biu", "==", "!!", wild="passes"),
    background=Array(_BACK, "biu", "==", "!!", wild="passes"),
    lam=1.0,
    sigma=0.2,
)  # fmt: skip
_SCENE = np.zeros((6, 7, 3), np.uint8)
_SCENE[2:4, 2:5] = 200
for _name in ("grab_cut", "graphcut.grab_cut_steps"):
    row(
        _name,
        {"n_components": Whole(1), "gamma": Real((-1.0,)), "connectivity": Whole(4, 8),
         **({"max_iter": Whole(1)} if _name == "grab_cut" else {})},
        op="grab_cut",
        image=Array(_SCENE, "uf", "...", "!!!", wild="passes"),
        rect=(1, 1, 5, 4),
        **({} if _name == "grab_cut" else {"function": lambda **given: next(iter(cv3gpu.graphcut.grab_cut_steps(**given)))}),
    )  # fmt: skip
row(
    "slic",
    {"n_segments": Whole(1), "compactness": Real((0.0, -1.0)), "max_iter": Whole(1), "zero": Flag(),
     "sigma": Real((-1.0,)), "convert2lab": Flag(optional=True), "enforce_connectivity": Flag(),
     "min_size_factor": Real((-1.0,)), "subsample": Whole(1), "start_label": Whole(0, 1)},
    image=real(4, 5, 3, fits="==.", empty="!!!", takes="fu", odd="refused", ndims=(4, 6)),
    mask=Array(np.ones((4, 5), bool), "bu", "==", "!!", wild="passes", optional=True),
    n_segments=4,
)  # fmt: skip

row("slic#plain", image=real(4, 5, 3, empty="00!", takes="fu", odd="refused", ndims=(2, 4, 6)), n_segments=4)

# ---- clustering and spectral segmentation ---------------------------------------------------------------

_CLOUD = np.array([[0, 0], [1, 0], [0, 1], [9, 9], [8, 9], [9, 8]], np.float32)
row(
    "kmeans",
    {"n_clusters": Whole(1), "n_init": Whole(1), "max_iter": Whole(1), "tol": Real((-1.0,)), "seed": Whole(0),
     "batch_size": Whole(1, optional=True)},
    x=Array(_CLOUD, "f", "..", "!!", (3,), odd="refused"),
    n_clusters=2,
    init=Array(_CLOUD[[0, 3]], "f", "==", "!!", odd="refused"),
    sample_weight=real(6, fits="=", empty="!", odd="refused", optional=True),
)  # fmt: skip
row(
    "cluster.assign",
    x=Array(_CLOUD, "f", ".=", "!!", (3,), odd="refused"),
    centroids=Array(_CLOUD[[0, 3]], "f", ".=", "!!", odd="refused"),
    sample_weight=real(6, fits="=", empty="!", odd="refused", optional=True),
)
row(
    "mean_shift",
    {"bandwidth": Real((0.0, -1.0)), "kernel": Word(), "max_iter": Whole(1), "tol": Real((-1.0,))},
    x=Array(_CLOUD, "f", "..", "0!", odd="refused"),
    bandwidth=3.0,
)
for _name in ("mean_shift_filter", "mean_shift_segmentation"):
    row(
        _name,
        {"spatial": Real((0.0, -1.0)), "range": Real((0.0, -1.0)), "kernel": Word(), "max_iter": Whole(1),
         "tol": Real((-1.0,)), **({"min_size": Whole(0)} if _name.endswith("ion") else {})},
        image=real(4, 5, 3, empty="00!", takes="fu", odd="refused", ndims=(2, 4)),
        spatial=2.0,
        range=0.4,
    )  # fmt: skip
row(
    "pixel_affinity",
    {"radius": Real((0.0, -1.0)), "inclusive": Flag(), "sigma_intensity": Real((0.0, -1.0)),
     "sigma_distance": Real((0.0, -1.0)), "self_weight": Real((-1.0,)), "kind": Word(), "stored": Flag()},
    image=real(4, 5, 3, empty="!!!", takes="fu", odd="refused", ndims=(2, 4)),
    radius=2,
)  # fmt: skip
row(
    "knn_affinity",
    {"n_neighbors": Whole(1), "gamma": Real((-1.0,), optional=True)},
    x=Array(_CLOUD, "f", "..", "!!", odd="refused"),
    n_neighbors=2,
)
row(
    "rbf_affinity",
    {"gamma": Real((-1.0,)), "eps": Real((0.0, -1.0), optional=True)},
    x=Array(_CLOUD, "f", "..", "!!", odd="refused"),
    gamma=0.1,
)
row(
    "region_affinity",
    {"sigma": Real((0.0, -1.0)), "connectivity": Whole(4, 8), "boundary": Flag(), "self_weight": Real((-1.0,))},
    image=real(2, 3, 3, fits="==.", empty="!!!", takes="fu", odd="refused"),
    superpixels=whole([[0, 0, 1], [2, 2, 1]], fits="==", empty="!!", takes="iu"),
)
_W = np.exp(-0.05 * ((_CLOUD[:, None] - _CLOUD) ** 2).sum(2)).astype(np.float32)
_GRAPH = Array(_W, "fiub", "==", "!!", odd="refused")
row("laplacian", {"normalization": Word(optional=True)}, affinity=_GRAPH)
row("ncut_value", affinity=_GRAPH, labels=whole([0, 0, 0, 1, 1, 1], fits="=", empty="!", takes="iu", wild="passes"))
row(
    "smallest_eigenpairs",
    {"k": Whole(1), "generalized": Flag(), "tol": Real((0.0, -1.0)), "max_iter": Whole(1), "seed": Whole(0)},
    affinity=_GRAPH,
    k=2,
)
row(
    "spectral_clustering",
    {"affinity": Word(), "n_neighbors": Whole(1), "gamma": Real((-1.0,)), "normalization": Word(optional=True),
     "seed": Whole(0), "assign": Word(), "n_init": Whole(1), "tol": Real((0.0, -1.0)), "max_iter": Whole(1)},
    x=Array(_CLOUD, "f", "..", "!!", odd="refused"),
    n_clusters=2,
    n_neighbors=4,
    seed=0,
)  # fmt: skip
row(
    "normalized_cut",
    {"n_segments": Whole(1, optional=True), "min_size": Whole(1), "method": Word(), "assign": Word(), "tol": Real((0.0, -1.0)),
     "max_iter": Whole(1), "seed": Whole(0)},
    image=Array(np.array([[0.0, 0.1, 0.9, 1.0], [0.1, 0.0, 1.0, 0.9], [0.1, 0.0, 1.0, 0.9]], np.float32), "fu", "..", "!!",
                (3, 4), odd="refused"),
    n_segments=2,
)  # fmt: skip
row(
    "spectral.best_threshold",
    {"min_size": Whole(1)},
    affinity=_GRAPH,
    vector=real(6, fits="=", empty="!", odd="refused"),
)
row(
    "spectral.eigengap",
    {"max_clusters": Whole(1, optional=True), "gap": Word()},
    eigenvalues=Array(np.array([0, 0.01, 0.02, 0.6, 0.9], np.float32), "f", ".", "!", odd="refused"),
)
row(
    "spectral.nystrom",
    {"k": Whole(1), "gamma": Real((-1.0,)), "seed": Whole(0)},
    x=Array(_CLOUD, "f", "..", "!!", odd="refused"),
    k=2,
    gamma=0.1,
    landmarks=whole([0, 3, 4], empty="!", optional=True),
)

# ---- segmentation metrics -------------------------------------------------------------------------------

_PRED, _TRUE = np.array([[0, 0, 1, 1], [0, 1, 1, 2]]), np.array([[0, 0, 0, 1], [0, 0, 1, 2]])
_MAPS = {
    "pred": whole(_PRED, fits="==", empty="!!", takes="iub", wild="passes"),
    "target": whole(_TRUE, fits="==", empty="!!", takes="iub", wild="passes"),
}
row(
    "confusion_matrix",
    {"n_classes": Whole(1), "ignore_index": Whole(None, optional=True)},
    pred=whole(_PRED, fits="==", empty="!!", takes="iub"),
    target=whole(_TRUE, fits="==", empty="!!", takes="iub"),
    n_classes=3,
)
_IGNORE = {"ignore_index": Whole(None, optional=True)}
row("variation_of_information", _IGNORE, **_MAPS)
row("rand_index", {**_IGNORE, "adjusted": Flag()}, **_MAPS)
row("segmentation_covering", _IGNORE, **_MAPS)
row("boundary_f1", {"tolerance": Real((-1.0,), optional=True), "n_classes": Whole(1, optional=True)}, **_MAPS)
row("panoptic_quality", {**_IGNORE, "label_divisor": Whole(1, optional=True)}, **_MAPS)
_COUNTS = whole([[3, 1], [0, 4]], fits="==", empty="!!", takes="fiu", wild="passes")
row("mean_iou", confusion=_COUNTS)
row("pixel_accuracy", confusion=_COUNTS)

# ---- boxes, assignment, message passing -----------------------------------------------------------------

_A = real(3, 4, fits=".=", empty="0!", ndims=(3, 4))
_B = real(2, 4, fits=".=", empty="0!")
_OVERLAP = {"format": Word(), "kind": Word()}
row("box_iou", _OVERLAP, a=_A._replace(ndims=()), b=_B, gradient=True)
row(
    "box_iou_vjp",
    _OVERLAP,
    grad=real(3, 2, fits="==", empty="!!"),
    a=real(3, 4, fits="==", empty="!!"),
    b=real(2, 4, fits="==", empty="!!"),
)
row(
    "linear_sum_assignment",
    {"maximize": Flag()},
    cost=real(2, 3, 2, fits="=..", empty="!!!", takes="fibu", odd="nan"),
    n_rows=whole([3, 2], fits="=", empty="!", takes="iu", optional=True),
    n_cols=whole([1, 2], fits="=", empty="!", takes="iu", optional=True),
)
_EDGES = np.array([[0, 1, 0, 2], [1, 0, 2, 0]])
_NETWORK = Made(lambda array: cv3gpu.message.message_graph(array(_EDGES), 3))
row(
    "message.message_graph",
    {"n_nodes": Whole(0), "undirected": Flag()},
    edges=whole(_EDGES, fits="=.", empty="!0"),
    n_nodes=3,
    time=whole([1, 2, 3], fits="=", empty="!", takes="fiu", wild="passes", optional=True),
)
row(
    "message.join_windows",
    edges=[whole(_EDGES, fits="=.", empty="!0"), whole([[0], [1]], fits="=.", empty="!0")],
    n_nodes=(3, 2),
)


def _layers(inputs: int, hidden: int, outputs: int) -> list[Array]:
    return [
        real(hidden, inputs, fits="==", empty="!!"),
        real(hidden, fits="=", empty="!"),
        real(outputs, hidden, fits="==", empty="!!"),
        real(outputs, fits="=", empty="!"),
    ]


_STATES: dict[str, Any] = {"nodes": real(3, 2, fits="==", empty="!!"), "edges": real(4, 2, fits="==", empty="!!")}
_EDGE: dict[str, Any] = {
    **_STATES,
    "initial": real(4, 1, fits="==", empty="!!"),
    "weights": _layers(7, 3, 2),
    "graph": _NETWORK,
}
row("message.edge_step", **_EDGE, gradient=True)
row(
    "message.edge_step_vjp",
    grad=real(4, 2, fits="==", empty="!!"),
    output=real(4, 2, fits="==", empty="!!"),
    **_EDGE,
)
_SUMS: dict[str, Any] = {**_STATES, "past": _layers(4, 3, 2), "future": _layers(4, 3, 2), "graph": _NETWORK}
_UPDATE = [real(3, 4, fits=".=", empty="!!"), real(3, fits="=", empty="!")]
row("message.message_sums", **_SUMS, gradient=True)
row("message.message_sums_vjp", grad=real(3, 4, fits="==", empty="!!"), **_SUMS)
row("message.node_step", **_SUMS, update=_UPDATE, gradient=True)
row(
    "message.node_step_vjp",
    grad=real(3, 3, fits="==", empty="!!"),
    output=real(3, 3, fits="==", empty="!!"),
    **_SUMS,
    update=_UPDATE,
)
row(
    "overlap_uniformity",
    {"kernel_size": Whole(1, pair=True), "stride": Whole(1, pair=True), "dilation": Whole(1, pair=True)},
    kernel_size=3,
    stride=2,
    weight=real(2, 3, 3, 3, fits="..==", empty="00!!", takes="fiu", optional=True),
)
for _name in ("phase_means", "pattern_amplitude", "harmonic_share"):
    row(
        f"checkerboard.{_name}",
        {"period": Whole(1, pair=True)},
        array_like=True,
        y=real(4, 4, takes="fiu", empty="!!", ndims=(3, 5), odd="refused"),
        period=2,
    )
row(
    "checkerboard.checkerboard_study",
    {"stride": Whole(2), "channels": Whole(1), "size": Whole(12), "steps": Whole(0), "seed": Whole(0)},
    size=12,
    steps=1,
    channels=2,
)

# ---- pydensecrf's names ---------------------------------------------------------------------------------

row(
    "densecrf.unary_from_labels",
    {"n_labels": Whole(2), "gt_prob": Real((0.0, 1.0)), "zero_unsure": Flag()},
    labels=whole([[0, 1], [2, 1]], takes="iu", ndims=(0, 1, 3, 5)),
    n_labels=2,
    gt_prob=0.9,
)
row(
    "densecrf.unary_from_softmax",
    {"scale": Real((0.0, 1.5, -1.0), optional=True), "clip": Real((-1.0, 2.0), optional=True)},
    sm=real(2, 3, empty="!0", ndims=(1, 3, 5)),
    scale=0.8,
)
row(
    "densecrf.compute_unary",
    op="unary_from_labels",
    labels=whole([[0, 1], [2, 1]], takes="iu", ndims=(0, 1, 3, 5)),
    M=2,
)
row(
    "densecrf.softmax_to_unary",
    op="unary_from_softmax",
    sm=real(2, 3, empty="!0", ndims=(1, 3, 5)),
)
row(
    "densecrf.create_pairwise_gaussian",
    {"sdims": Real((0.0, -1.0), widths=True)},
    sdims=(2.0, 1.0),
    shape=(2, 3),
    like=real(2, optional=True, takes="fiubc*", ndims=(0, 1, 2, 4)),
)
row(
    "densecrf.create_pairwise_bilateral",
    {"sdims": Real((0.0, -1.0), widths=True), "schan": Real((0.0, -1.0), widths=True), "chdim": Whole(-1)},
    sdims=(2.0, 2.0),
    schan=10.0,
    img=real(3, 4, takes="fiub", fits="..", ndims=()),
    chdim=-1,
)


def _crf_step(method: str, **given: Any) -> Any:
    crf = cv3gpu.densecrf.DenseCRF(6, 2)
    found = getattr(crf, method)(**given)
    return given["Q"] if method == "stepInference" else found


row("densecrf.DenseCRF", {"nvar": Whole(0), "nlabels": Whole(1), "method": Word()}, nvar=6, nlabels=2,
    function=lambda **given: cv3gpu.densecrf.DenseCRF(**given).inference(1))  # fmt: skip
row("densecrf.DenseCRF2D", {"w": Whole(0), "h": Whole(0), "nlabels": Whole(1), "method": Word()}, w=3, h=2, nlabels=2,
    function=lambda **given: cv3gpu.densecrf.DenseCRF2D(**given).inference(1))  # fmt: skip
row("densecrf.DenseCRF.setUnaryEnergy", u=real(2, 6, fits="==", empty="!!"),
    function=functools.partial(_crf_step, "setUnaryEnergy"))  # fmt: skip
row("densecrf.DenseCRF.addPairwiseEnergy", {"compat": Real(widths=True)}, compat=3.0,
    features=real(2, 6, fits=".=", empty="!!", odd="refused"),
    function=functools.partial(_crf_step, "addPairwiseEnergy"))  # fmt: skip
row("densecrf.DenseCRF.inference", {"niter": Whole(0)}, niter=1, function=functools.partial(_crf_step, "inference"))
row("densecrf.DenseCRF.klDivergence", Q=real(2, 6, fits="==", empty="!!"),
    function=functools.partial(_crf_step, "klDivergence"))  # fmt: skip
row("densecrf.DenseCRF.stepInference", Q=real(2, 6, fits="==", empty="!!"),
    function=functools.partial(_crf_step, "stepInference"))  # fmt: skip


def _crf2d_step(method: str, **given: Any) -> Any:
    return getattr(cv3gpu.densecrf.DenseCRF2D(3, 2, 2), method)(**given)


row("densecrf.DenseCRF2D.addPairwiseGaussian", {"sxy": Real((0.0, -1.0), widths=True), "compat": Real(widths=True)},
    sxy=3.0, compat=3.0, function=functools.partial(_crf2d_step, "addPairwiseGaussian"))  # fmt: skip
row("densecrf.DenseCRF2D.addPairwiseBilateral",
    {"sxy": Real((0.0, -1.0), widths=True), "srgb": Real((0.0, -1.0), widths=True), "compat": Real(widths=True)},
    sxy=3.0, srgb=13.0, rgbim=Array(np.ones((2, 3, 3), np.uint8), "u", "===", "!!!", wild="passes"), compat=3.0,
    function=functools.partial(_crf2d_step, "addPairwiseBilateral"))  # fmt: skip

row("determinism", {"operator": Word()}, libraries=("numpy",), operator="conv2d")

# ---- tracking: Tracks ------------------------------------------------------------------------------------

NUMPY = ("numpy",)
_FRAMES = np.array([1, 1, 2, 2, 3, 3])
_LANES = np.array([[0, 0, 9, 9], [50, 0, 9, 9], [1, 0, 9, 9], [51, 0, 9, 9], [2, 0, 9, 9], [52, 0, 9, 9]], np.float64)


def _tracks(ids: Sequence[int]) -> Any:
    return cv3gpu.mot.Tracks(_FRAMES, ids, _LANES, score=np.full(6, 0.9))


_GT, _FOUND = Typed(lambda: _tracks([1, 2, 1, 2, 1, 2])), Typed(lambda: _tracks([-1] * 6))
_PAIR = {"gt": _GT, "pred": _GT}
row(
    "mot.Tracks",
    libraries=NUMPY,
    array_like=True,
    frame=whole(_FRAMES, fits="=", empty="!", takes="fiu", wild="passes"),
    id=whole([1, 2, 1, 2, 1, 2], fits="=", empty="!", takes="fiu", wild="passes"),
    box=Array(_LANES, "fiu", "==", "!!", odd="refused"),
    score=Array(np.full(6, 0.5), "fiu", "=", "!", odd="refused", optional=True),
)
for _name in ("clear", "count", "hota", "identity", "vace", "match"):
    row(f"mot.{_name}", libraries=NUMPY, **_PAIR)
row("mot.interpolate", {"max_gap": Whole(0)}, libraries=NUMPY, tracks=_GT, max_gap=2)
row("mot.drop_short", {"min_length": Whole(0)}, libraries=NUMPY, tracks=_GT, min_length=2)
_UNIT = (-0.1, 1.1)
row(
    "mot.sort",
    {"max_age": Whole(0), "min_hits": Whole(0), "min_iou": Real(_UNIT), "min_score": Real(optional=True)},
    libraries=NUMPY,
    detections=_FOUND,
)
row(
    "mot.byte_track",
    {"high_score": Real(_UNIT), "low_score": Real(_UNIT), "new_score": Real(_UNIT, optional=True),
     "max_age": Whole(0), "max_cost": Real(_UNIT)},
    libraries=NUMPY,
    detections=_FOUND,
)  # fmt: skip
row(
    "mot.flow_tracker",
    {"max_gap": Whole(1), "min_score": Real(_UNIT), "end_cost": Real((-1.0,), optional=True), "window": Whole(1)},
    libraries=NUMPY,
    detections=_FOUND,
)
row(
    "mot.track",
    {"levels": Whole(1, optional=True), "rounding": Word(), "interpolate": Whole(0), "min_length": Whole(0),
     "low": Real(optional=True), "high": Real(optional=True), "start": Real(optional=True), "return_info": Flag()},
    libraries=NUMPY,
    detections=_FOUND,
)  # fmt: skip
row("mot.match_detections", {"min_iou": Real((0.0, -0.1, 1.1))}, libraries=NUMPY, detections=_FOUND, gt=_GT)
_RULES = {"benchmark": Word(optional=True)}
row("mot.evaluate", {**_RULES, "metrics": Word(), "format": Word(optional=True)}, libraries=NUMPY, **_PAIR)
row("mot.compare", {**_RULES, "metrics": Word(), "format": Word(optional=True)}, libraries=NUMPY, gt=_GT,
    preds=Typed(lambda: {"ours": _tracks([1, 2, 1, 2, 1, 2])}))  # fmt: skip
row("mot.event_logs", {**_RULES, "format": Word(optional=True)}, libraries=NUMPY, **_PAIR)
row("mot.events", {**_RULES, "class_name": Word(optional=True)}, libraries=NUMPY, **_PAIR)
row("mot.prepare", {"benchmark": Word(), "class_name": Word(optional=True)}, libraries=NUMPY, **_PAIR,
    benchmark="MOT15", function=lambda **given: cv3gpu.mot.prepare(**given))  # fmt: skip
row(
    "mot.logs_to_csv",
    libraries=NUMPY,
    logs=Typed(lambda: {"street": {"all": cv3gpu.mot.events(_GT.value(), _GT.value())}}),
)
row("mot.read", {"format": Word(optional=True)}, libraries=NUMPY, path=Typed(lambda: _written()))
row("mot.write", {"format": Word()}, libraries=NUMPY, path=Typed(lambda: _written()), tracks=_GT)


@functools.cache
def _written() -> str:
    """A file of tracks."""
    path = os.path.join(tempfile.mkdtemp(), "street.txt")
    cv3gpu.mot.write(path, _GT.value())
    return path


row(
    "mot.Evaluator",
    {**_RULES, "metrics": Word()},
    libraries=NUMPY,
    function=lambda **given: repr(cv3gpu.mot.Evaluator(**given)),
)
row("mot.detrac.clear", {"threshold": Real((0.0, -0.1, 1.1))}, libraries=NUMPY, **_PAIR)
row("mot.detrac.prepare", libraries=NUMPY, **_PAIR)
row(
    "mot.detrac.precision_recall",
    {"threshold": Real(), "overlap": Real((0.0, -0.1, 1.1))},
    libraries=NUMPY,
    gt=_GT,
    detections=_FOUND,
    threshold=0.5,
)
row("mot.benchmarks.classes", {"benchmark": Word(optional=True)}, libraries=NUMPY, benchmark="KITTI")
row("mot.detrac.inside_ignored", {"size": Whole(1, pair=True, optional=True)}, libraries=NUMPY, array_like=True,
    box=Array(_LANES, "fiu", ".=", "00", odd="refused"), ignored=Array(_LANES[:2], "fiu", ".=", "00", odd="refused"))  # fmt: skip
row("mot.detrac.combine", libraries=NUMPY, figures=Typed(lambda: [_figures()]))
row("mot.detrac.along_curve", libraries=NUMPY, array_like=True, figures=Typed(lambda: [_figures(), _figures()]),
    precision=real(2, fits="=", empty="!", takes="fiu", odd="refused"),
    recall=real(2, fits="=", empty="!", takes="fiu", odd="refused"))  # fmt: skip
row("mot.detrac.pr_mota", {"threshold": Real((0.0, -0.1, 1.1))}, libraries=NUMPY, gt=Typed(lambda: {"street": _GT.value()}),
    preds=Typed(lambda: {0.5: {"street": _GT.value()}}), detections=Typed(lambda: {"street": _FOUND.value()}))  # fmt: skip


def _figures() -> Any:
    return find("mot.detrac.clear")(**{name: given.value() for name, given in _PAIR.items()})


row("mot.sequences.find", {"side": Word(), "format": Word(optional=True)}, libraries=NUMPY,
    path=Typed(lambda: _written()), side="gt")  # fmt: skip

# ---- tracking: arrays ------------------------------------------------------------------------------------

_MOVES = np.array([[0, 1, 2, 3], [2, 3, 4, 5]])
_NODES: dict[str, Any] = {
    "frame": whole(_FRAMES, fits="=", empty="!", wild="passes"),
    "box": Array(_LANES.astype(np.float32), "f", "==", "!!", odd="refused"),
    "velocity": Array(np.ones((6, 2), np.float32), "f", "==", "!!", odd="refused", optional=True),
    "last_velocity": Array(np.ones((6, 2), np.float32), "f", "==", "!!", odd="refused", optional=True),
    "appearance": real(6, 3, fits="=.", empty="!0", odd="refused", optional=True),
}
row(
    "mot.candidate_edges",
    {"max_gap": Whole(1), "k": Whole(1), "max_distance": Real((-1.0,), optional=True), "reciprocal": Flag()},
    **_NODES,
    max_gap=2,
    k=2,
)
row("mot.edge_features", {"fps": Real((0.0, -1.0))}, **_NODES, edges=whole(_MOVES, fits="=.", empty="!0"))
row(
    "mot.label_edges",
    ids=whole([1, 2, 1, 2, 1, 2], fits="=", empty="!", wild="passes"),
    edges=whole(_MOVES, fits="=.", empty="!0"),
    frame=whole(_FRAMES, fits="=", empty="!", wild="passes"),
)
row(
    "mot.round_trajectories",
    {"n_nodes": Whole(0), "method": Word()},
    edges=whole(_MOVES, fits="==", empty="!!"),
    scores=real(4, fits="=", empty="!", odd="refused"),
    n_nodes=6,
)
row(
    "mot.min_cost_flow",
    {"entry_cost": Real(widths=True), "exit_cost": Real(widths=True)},
    edges=whole(_MOVES, fits="==", empty="!!"),
    link_cost=real(4, fits="=", empty="!", odd="refused"),
    detection_cost=real(6, low=-2, high=-1, empty="!", odd="refused"),
    entry_cost=1.0,
    exit_cost=1.0,
)


def _evaluated(**given: Any) -> Any:
    sides = [
        cv3gpu.mot.Boxes(*(given.pop(f"{side}.{part}") for part in ("frame", "id", "box"))) for side in ("gt", "pred")
    ]
    return cv3gpu.mot.evaluate_boxes(*sides, **given)


row(
    "mot.evaluate_boxes",
    {"benchmark": Word(optional=True), "n_sequences": Whole(1)},
    function=_evaluated,
    **{
        f"{side}.{part}": array
        for side in ("gt", "pred")
        for part, array in (
            ("frame", whole(_FRAMES, fits="=", empty="!", wild="passes")),
            ("id", whole([1, 2, 1, 2, 1, 2], fits="=", empty="!", wild="passes")),
            ("box", Array(_LANES, "f", "==", "!!", odd="refused")),
        )
    },
)

# ---- torch: layers and functions -------------------------------------------------------------------------

TORCH = ("torch",)


@functools.cache
def _layer(name: str, *args: Any, **kwargs: Any) -> Any:
    torch = importlib.import_module("torch")
    torch.manual_seed(0)
    return find(name)(*args, **kwargs).eval()


def _made(name: str, *args: Any) -> Callable[..., Any]:
    """A call of a layer, whose argument has the name that its operator says."""
    return lambda **given: _layer(name, *args)(*given.values())


_IMAGES = real(2, 3, 4, 5, fits=".=..", empty="0!!!", ndims=(3,))
row("nn.Conv2d", op="conv2d", libraries=TORCH, function=_made("nn.Conv2d", 3, 2, 3), x=_IMAGES, gradient=True)
row("nn.ConvTranspose2d", op="conv_transpose2d", libraries=TORCH, function=_made("nn.ConvTranspose2d", 3, 2, 3), x=_IMAGES,
    gradient=True)  # fmt: skip
row("nn.Upsample", op="interpolate", libraries=TORCH, function=_made("nn.Upsample", (7, 6)), x=real(2, 3, 4, 5, empty="00!!"),
    gradient=True)  # fmt: skip
row("nn.ResizeConv2d", op="resize_conv2d", libraries=TORCH, x=_IMAGES, gradient=True,
    function=lambda **given: _layer("nn.ResizeConv2d", 3, 2, 3, scale_factor=2)(*given.values()))  # fmt: skip
row("nn.SeparableConv2d", op="separable_conv2d", libraries=TORCH, function=_made("nn.SeparableConv2d", 3, 2, 3), x=_IMAGES,
    gradient=True)  # fmt: skip
row("nn.MaxPool2d", op="max_pool2d", libraries=TORCH, function=_made("nn.MaxPool2d", 2),
    x=real(2, 2, 4, 4, empty="00!!", ndims=(3,)), gradient=True)  # fmt: skip
row("nn.MaxUnpool2d", op="max_unpool2d", libraries=TORCH, function=_made("nn.MaxUnpool2d", 2),
    x=real(2, 2, 2, 2, fits="====", empty="!!!!"), indices=whole(_PLACES, fits="====", empty="!!!!"),
    gradient=True)  # fmt: skip
row("nn.DenseCRF", libraries=TORCH, function=lambda **given: _layer("nn.DenseCRF", 3, n_iter=2)(**given),
    logits=real(2, 3, 4, 5, fits="==..", empty="!!!!", ndims=(3,)), image=real(2, 3, 4, 5, fits="=.==", empty="!!!!", takes="fu", optional=True),
    gradient=True)  # fmt: skip
row("nn.ASPP", op="aspp", libraries=TORCH, function=_made("nn.ASPP", 3, (2, 3), 4),
    x=real(2, 3, 4, 5, fits=".=..", empty="0!!!"), gradient=True)  # fmt: skip
row("nn.PyramidPooling", op="pyramid_pooling", libraries=TORCH, function=_made("nn.PyramidPooling", 3, 2),
    x=real(2, 3, 4, 5, fits=".=..", empty="0!!!"), gradient=True)  # fmt: skip
row("nn.PyramidHead", libraries=TORCH, function=_made("nn.PyramidHead", 4, 3, (1, 2)),
    x=real(2, 4, 4, 5, fits=".=..", empty="0!!!"), gradient=True)  # fmt: skip
_NN_SIZE = {"in_channels": Whole(1), "out_channels": Whole(1)}
row("nn.ResizeConv2d#made", {**_NN_SIZE, "kernel_size": Whole(1, pair=True), "mode": Word(), "align_corners": Flag()},
    libraries=TORCH, in_channels=3, out_channels=2, kernel_size=3, scale_factor=2)  # fmt: skip
row("nn.SeparableConv2d#made",
    {**_NN_SIZE, "kernel_size": Whole(1, pair=True), "stride": Whole(1, pair=True), "padding": Whole(0, pair=True),
     "dilation": Whole(1, pair=True), "bias": Flag(), "mid_norm": Flag(), "norm": Flag(), "eps": Real((0.0, -1.0)),
     "mid_activation": Word(optional=True), "activation": Word(optional=True)},
    libraries=TORCH, in_channels=3, out_channels=2, kernel_size=3)  # fmt: skip
row("nn.DenseCRF#made",
    {"num_classes": Whole(1), "theta_gamma": Real((0.0, -1.0), widths=True), "theta_alpha": Real((0.0, -1.0), widths=True),
     "theta_beta": Real((0.0, -1.0), widths=True), "compatibility": Word(), "n_iter": Whole(0), "method": Word(),
     "normalization": Word(), "output": Word()},
    libraries=TORCH, num_classes=3)  # fmt: skip
row("nn.ASPP#made", {**_NN_SIZE}, libraries=TORCH, in_channels=3, atrous_rates=(2, 3), out_channels=4)
row("nn.PyramidPooling#made", {"in_channels": Whole(1), "reduction_channels": Whole(1), "align_corners": Flag()},
    libraries=TORCH, in_channels=3, reduction_channels=2)  # fmt: skip
row("nn.PyramidHead#made", {"in_channels": Whole(1), "num_classes": Whole(1), "channels": Whole(1), "align_corners": Flag()},
    libraries=TORCH, in_channels=4, num_classes=2)  # fmt: skip
row("nn.MaxPool2d#made", {"compact": Flag()}, libraries=TORCH, kernel_size=2)
row("nn.refine", {"align_corners": Flag(), "n_iter": Whole(0), "method": Word(), "normalization": Word()}, libraries=TORCH,
    logits=real(2, 3, 2, 3, fits="=...", empty="!!!!"),
    image=real(2, 3, 4, 5, fits="=...", empty="!!!!", takes="fu", low=0, high=255))  # fmt: skip
row("nn.cluster_features",
    {"n_clusters": Whole(1), "method": Word(), "together": Flag(), "normalize": Flag(), "size": Whole(1, pair=True, optional=True),
     "n_neighbors": Whole(1), "seed": Whole(0)},
    libraries=TORCH, features=real(2, 3, 4, 5, empty="0!!!", odd="refused"), n_clusters=2)  # fmt: skip


@functools.cache
def _network() -> Any:
    torch = importlib.import_module("torch")
    return torch.nn.Sequential(torch.nn.Conv2d(3, 2, 3), torch.nn.ReLU(), torch.nn.Conv2d(2, 2, 3, stride=2)).eval()


_MODEL = Typed(lambda: _network())
row("nn.receptive_field", {"size": Whole(1, pair=True, optional=True), "in_channels": Whole(1, optional=True)}, libraries=TORCH,
    model=_MODEL)  # fmt: skip
row("nn.output_stride", {"size": Whole(1, pair=True, optional=True), "in_channels": Whole(1, optional=True)}, libraries=TORCH,
    model=_MODEL)  # fmt: skip
row("nn.drop_in", {"ops": Word(optional=True)}, libraries=TORCH, model=_MODEL,
    function=lambda **given: type(cv3gpu.nn.drop_in(**given)).__name__)  # fmt: skip
row("nn.drop_out", libraries=TORCH, model=_MODEL)
row("nn.fully_convolutional", {"size": Whole(1, pair=True, optional=True)}, libraries=TORCH,
    classifier=Typed(lambda: _classifier()),
    function=lambda **given: type(cv3gpu.nn.fully_convolutional(**given)).__name__)  # fmt: skip
row("nn.WithCRF", libraries=TORCH, network=_MODEL, crf=Typed(lambda: _layer("nn.DenseCRF", 2, n_iter=2)),
    function=lambda **given: type(cv3gpu.nn.WithCRF(**given)).__name__)  # fmt: skip
row("nn.fold_batch_norm", libraries=TORCH, norm=Typed(lambda: _norm()))


@functools.cache
def _classifier() -> Any:
    nn = importlib.import_module("torch").nn
    return nn.Sequential(nn.Conv2d(3, 2, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2, 4)).eval()


@functools.cache
def _norm() -> Any:
    return importlib.import_module("torch").nn.BatchNorm2d(2).eval()


_MODEL_OPTIONS = {"num_classes": Whole(1), "in_channels": Whole(1), "base_channels": Whole(4)}
_BACKBONE = {"backbone": Word(), "output_stride": Whole(1)}
_MODELS: dict[str, dict[str, Any]] = {
    "fcn32s": {"upsampling": Word()}, "fcn16s": {"upsampling": Word()}, "fcn8s": {"upsampling": Word()},
    "fcn_resnet": {**_BACKBONE, "aux": Flag()}, "unet": {}, "segnet": {}, "deeplabv1": {"rate": Whole(1, optional=True)},
    "deeplabv2": _BACKBONE, "deeplabv3": {"backbone": Word(), "aux": Flag()},
    "deeplabv3plus": {**_BACKBONE, "separable": Flag()}, "pspnet": {**_BACKBONE, "aux": Flag()},
    "refinenet": {"backbone": Word()},
}  # fmt: skip
for _name, _more in _MODELS.items():
    row(f"nn.models.{_name}", {**_MODEL_OPTIONS, **_more}, libraries=TORCH, num_classes=2, base_channels=4)
row("nn.models.unet#call", op="unet", libraries=TORCH, refusals_alone=True, x=real(1, 3, 16, 16, fits=".=..", empty="0!!!"),
    function=lambda **given: _layer("nn.models.unet", 2, base_channels=4)(**given))  # fmt: skip
row("nn.models.mpn_tracker",
    {"node_features": Whole(0), "edge_features": Whole(1), "levels": Whole(1), "steps": Whole(0), "node_dim": Whole(1),
     "edge_dim": Whole(1), "step_hidden": Whole(1), "message_hidden": Whole(1), "classifier_hidden": Whole(1),
     "time_aware": Flag()},
    libraries=TORCH, function=lambda **given: type(find("nn.models.mpn_tracker")(**given)).__name__)  # fmt: skip
