"""Segmentation from seeds: the graph cut of Boykov and Jolly, and GrabCut."""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from .. import _array, _check
from .._array import array_op
from ..errors import ConvergenceWarning
from . import _colour_models
from .cut import GraphCut, graph_cut

__all__ = ["BoykovJolly", "GrabCut", "boykov_jolly", "grab_cut", "grab_cut_steps"]

IMAGES = ("uint8", "float32", "float64")
MASKS = ("bool", "uint8", "int8", "int16", "int32", "int64")
REGIONS = ("histogram", "gmm")
MOST_CHANNELS = 8
MOST_CELLS = 1 << 24  # of a histogram
STEEPEST = 1e300  # 1 / 2 sigma^2 in levels: finite, so that no difference has a weight of 1
MOST_COMPONENTS = 64
BACKGROUND, FOREGROUND, PROBABLE_BACKGROUND, PROBABLE_FOREGROUND = range(4)  # in GrabCut's masks, as OpenCV has them


class BoykovJolly(NamedTuple):
    """The labels, 1 = foreground, and their energy."""

    labels: Any  # [..., H, W]
    flow: Any  # [...], float64


class GrabCut(NamedTuple):
    """The labels, 1 = foreground, the energy after each iteration, and how many there were."""

    labels: Any  # [H, W]
    energy: np.ndarray[Any, Any]  # [n_iter], float64
    n_iter: int


# ---- arguments ------------------------------------------------------------------------------------------


class _Images(NamedTuple):
    """Images by channels, in 8-bit levels (0 to 255), which may have fractions."""

    planes: list[Any]  # of each channel [B, H, W], float64
    lead: tuple[int, ...]
    height: int
    width: int

    @property
    def batch(self) -> int:
        return math.prod(self.lead)

    @property
    def pixels(self) -> int:
        return self.height * self.width

    def levels(self, index: int) -> Any:
        """The channels of one image, [C, N]."""
        xp = _array.module(self.planes[0])
        return xp.stack([plane[index].reshape(-1) for plane in self.planes])


def _plain(x: Any) -> Any:
    """An array without gradient history."""
    return x.detach() if _array.family(x) == "torch" else x


def _images(op: str, image: Any, like: str, shape: Sequence[int]) -> _Images:
    """The image [*shape] or [*shape, C], checked."""
    _check.dtype(op, "image", image, IMAGES)
    image, given = _plain(image), tuple(image.shape)
    channels = given[len(shape) :]
    if given[: len(shape)] != tuple(shape) or len(channels) > 1 or not 1 <= math.prod(channels) <= MOST_CHANNELS:
        sizes = ", ".join(map(str, shape))
        rule = f"have shape [{sizes}] or [{sizes}, C] with C from 1 to {MOST_CHANNELS}, to match {like}"
        _check.fail(op, "image", rule, given)
    *lead, height, width = shape
    values = _array.astype(image, "float64").reshape((math.prod(lead), height, width, *channels, *[1] * (not channels)))
    if _array.dtype_name(image) != "uint8":
        wrong = ~((values >= 0) & (values <= 1))  # NaN is wrong
        if bool(wrong.any()):
            got = float(values[wrong][0])
            _check.fail(op, "image", "be from 0 to 1 where it is no uint8", f"{got:g}", "divide by its largest value")
        values = values * 255
    planes = [_array.contiguous(values[..., c]) for c in range(values.shape[-1])]
    return _Images(planes, tuple(lead), height, width)


def _seeds(op: str, foreground: Any, background: Any) -> tuple[Any, Any]:
    """The two masks as bool [B, H, W], checked."""
    for name, mask in (("foreground", foreground), ("background", background)):
        _check.dtype(op, name, mask, MASKS)
        if mask.ndim < 2:
            _check.fail(op, name, "have shape [..., H, W]", tuple(mask.shape))
    _check.shape(op, "background", background, tuple(foreground.shape), "that of foreground")
    *lead, height, width = foreground.shape
    masks = [(mask != 0).reshape((math.prod(lead), height, width)) for mask in (foreground, background)]
    if not math.prod(masks[0].shape):
        return masks[0], masks[1]
    for name, mask in zip(("foreground", "background"), masks, strict=True):
        empty = _array.to_host(~mask.reshape((math.prod(lead), height * width)).any(1))
        if empty.any():
            which = f" in image {int(empty.argmax())}" if lead else ""
            _check.fail(op, name, "have a seed in every image" if lead else "have a seed", f"none{which}")
    both = masks[0] & masks[1]
    if bool(both.any()):
        index, y, x = (int(n[0]) for n in _array.to_host(both).nonzero())
        which = f"image {index}, " if lead else ""
        _check.fail(op, "background", "have no seed of foreground", f"one at {which}row {y}, column {x}")
    return masks[0], masks[1]


# ---- edges ----------------------------------------------------------------------------------------------


def _ends(offset: tuple[int, int]) -> tuple[Any, Any]:
    """The pixels [..., H, W] that have the neighbour at an offset, and those that are it."""

    def along(step: int) -> tuple[slice, slice]:
        return slice(max(-step, 0), -step if step > 0 else None), slice(max(step, 0), step if step < 0 else None)

    (y, other_y), (x, other_x) = map(along, offset)
    return (..., y, x), (..., other_y, other_x)


class _Edges(NamedTuple):
    """Capacities to neighbours at offsets."""

    capacity: Any  # [B, K, H, W], float64
    offsets: tuple[tuple[int, int], ...]  # [K]


def _edges(images: _Images, lam: float, sigma: float | None, half: tuple[tuple[int, int], ...]) -> _Edges:
    """The edges lam exp(-d / 2 sigma^2) / distance, d the squared difference of two neighbours in the image in 0 to 1.

    ``half`` are the offsets of half of the neighbours. Without sigma each image has the root of its mean d.
    """
    xp, first = _array.module(images.planes[0]), images.planes[0]
    squares = []
    for offset in half:
        here, there = _ends(offset)
        squares.append(sum((plane[here] - plane[there]) ** 2 for plane in images.planes))
    if sigma is None:
        pairs = sum(math.prod(square.shape[1:]) for square in squares)
        total = sum(square.reshape((images.batch, math.prod(square.shape[1:]))).sum(1) for square in squares)
        rate = (pairs / (2 * xp.where(total > 0, total, math.inf))).reshape((-1, 1, 1))
    else:
        rate = min(0.5 / (255 * sigma) / (255 * sigma), STEEPEST)
    capacity = _array.zeros(first, (images.batch, 2 * len(half), images.height, images.width))
    for k, (offset, square) in enumerate(zip(half, squares, strict=True)):
        here, there = _ends(offset)
        weight = xp.exp(-rate * square) * (lam / math.hypot(*offset))
        capacity[:, k][here] = weight
        capacity[:, len(half) + k][there] = weight
    return _Edges(capacity, half + tuple((-y, -x) for y, x in half))


def _cut(images: _Images, source: Any, sink: Any, edges: _Edges, minimal: bool) -> GraphCut:
    shape = (images.height, images.width)
    neighbours = edges.capacity.reshape((*images.lead, len(edges.offsets), *shape))
    source, sink = (x.reshape((*images.lead, *shape)) for x in (source, sink))
    return graph_cut(source, sink, neighbours, offsets=edges.offsets, minimal=minimal)


# ---- Boykov and Jolly -----------------------------------------------------------------------------------


@array_op("image", "foreground", "background")
def boykov_jolly(
    image: Any,
    foreground: Any,
    background: Any,
    *,
    lam: float,
    sigma: float | None,
    connectivity: int = 8,
    region: str | None = None,
    region_weight: float = 1.0,
    bins: int = 16,
    smoothing: float = 1.0,
    n_components: int = 5,
    minimal: bool = True,
) -> BoykovJolly:
    r"""Segment an image from seeds by one minimum cut.

    The labels x, 1 in the foreground, that minimise ``E(x) = region_weight sum_p R_p(x_p) + sum_{p,q} w_pq [x_p !=
    x_q]`` over neighbours p, q and over all x that agree with the seeds, with ``w_pq = lam exp(-||I_p - I_q||^2 / 2
    sigma^2) / ||p - q||`` and ``R_p(a) = -log P(I_p | a)``.

    Parameters
    ----------
    image : array, [..., H, W] or [..., H, W, C], uint8/float32/float64
        Up to 8 channels, from 0 to 1, uint8 from 0 to 255, which is divided by 255.
    foreground, background : array, [..., H, W], bool or integers
        The seeds: where it is not 0. Each image must have some of either.
    lam : float
        Weight of the boundary, 0 at least.
    sigma : float or None
        How much neighbours differ inside a region, in units of the image in 0 to 1. None: the root of the mean
        squared difference of neighbours, by image, which makes ``1 / 2 sigma^2`` the beta of GrabCut.
    connectivity : {8, 4}
        Neighbours of a pixel.
    region : {"histogram", "gmm"} or None
        What R comes from. None: there is none, the seeds count alone. ``"histogram"``: the joint histogram of the
        seeds' colours. ``"gmm"``: a mixture of Gaussians over them.
    region_weight : float
        Weight of R, 0 at least; Boykov's and Jolly's lambda, where lam is 1.
    bins : int
        Of the histogram in each channel, equally wide from 0 to 256 levels; 256 at most.
    smoothing : float
        Pseudo-count of each cell of the histogram: ``P = (n + smoothing) / (N + smoothing bins^C)``.
    n_components : int
        Gaussians of each mixture at most, 1 to 64.
    minimal : bool
        Among the labellings of least energy, the one with the fewest pixels in the foreground, else the most.

    Returns
    -------
    labels : array, [..., H, W], int64
        1 = foreground.
    flow : array, [...], float64
        E of the labels; R of seeds is not in it.

    Raises
    ------
    TypeError
        An array of the wrong library, device or dtype, or an option of the wrong type.
    ValueError
        Wrong shapes or options, an image outside 0 to 1, seeds of both kinds in one pixel, an image without seeds.

    Notes
    -----
    The capacities are float64 for :func:`cv3gpu.graph_cut`, which states how exactly it takes them; flow is E within
    that. A seed has an infinite capacity, which graph_cut takes as more than all edges of its pixel (K of the paper).

    The mixture: at most n_components binary splits of the seeds (Orchard and Bouman), then each seed goes to the
    component where it costs least and these are fitted anew, until none moves, 20 times at most. R is the cost of the
    best component, as in GrabCut, in 8-bit levels and in the mean over their rounding, of variance 1/12: R is never
    negative. No random numbers: the same bits from run to run.

    On a GPU all of it is done there, but for the mixtures' parameters. There is no gradient.

    References
    ----------
    Y. Boykov, M.-P. Jolly, Interactive graph cuts for optimal boundary and region segmentation of objects in N-D
    images, 2001, eq. 1 to 3 and table 1. C. Rother, V. Kolmogorov, A. Blake, GrabCut, 2004, eq. 8 to 11. M. Orchard,
    C. Bouman, Color quantization of images, 1991.

    Examples
    --------
    >>> import numpy as np, cv3gpu
    >>> image = np.array([[0.0, 0.1, 0.9, 1.0]] * 2)
    >>> foreground, background = np.zeros((2, 2, 4), bool)
    >>> foreground[0, 0] = background[1, 3] = True
    >>> labels, flow = cv3gpu.boykov_jolly(image, foreground, background, lam=1, sigma=0.2)
    >>> labels
    array([[1, 1, 0, 0],
           [1, 1, 0, 0]])
    """
    op = "boykov_jolly"
    lam = _check.not_negative(op, "lam", lam)
    sigma = None if sigma is None else _check.real(op, "sigma", sigma, positive=True)
    half = _check.half_neighbours(op, "connectivity", connectivity)
    if region is not None:
        _check.choice(op, "region", region, REGIONS)
    region_weight = _check.not_negative(op, "region_weight", region_weight)
    bins = _check.integer(op, "bins", bins, 1, 256)
    smoothing = _check.real(op, "smoothing", smoothing, positive=True)
    n_components = _check.integer(op, "n_components", n_components, 1, MOST_COMPONENTS)
    _check.flag(op, "minimal", minimal)
    masks = _seeds(op, foreground, background)
    images = _images(op, image, "foreground", tuple(foreground.shape))
    if region == "histogram" and bins ** len(images.planes) > MOST_CELLS:
        rule = f"give at most {MOST_CELLS} cells"
        _check.fail(op, "bins", rule, f"{bins}^{len(images.planes)}", "take fewer bins, or region='gmm'")
    if not images.batch * images.pixels:
        labels = _array.zeros(images.planes[0], (*images.lead, images.height, images.width), "int64")
        return BoykovJolly(labels, _array.zeros(images.planes[0], images.lead))
    source, sink = (_array.zeros(images.planes[0], masks[0].shape) for _ in range(2))
    for index in range(images.batch if region else 0):
        own, levels = [mask[index].reshape(-1) for mask in masks], images.levels(index)
        in_foreground, in_background = _region_costs(levels, own, str(region), bins, smoothing, n_components)
        source[index] = (region_weight * in_background).reshape(source.shape[1:])  # what a label 0 pays
        sink[index] = (region_weight * in_foreground).reshape(sink.shape[1:])
    for seeds, never, other in ((masks[0], source, sink), (masks[1], sink, source)):
        never[seeds], other[seeds] = math.inf, 0
    return BoykovJolly(*_cut(images, source, sink, _edges(images, lam, sigma, half), minimal))


def _region_costs(levels: Any, seeds: Sequence[Any], region: str, bins: int, smoothing: float, n: int) -> list[Any]:
    """The cost of each pixel, [N], in the regions of the seeds [N]."""
    if region == "histogram":
        return [_colour_models.histogram_cost(levels, own, bins, smoothing) for own in seeds]
    rows = _colour_models.products(levels)
    return [_colour_models.mixture_cost(rows, levels, own, n) for own in seeds]


# ---- GrabCut --------------------------------------------------------------------------------------------


@array_op("image", "mask")
def grab_cut(
    image: Any,
    rect: Sequence[int] | None = None,
    mask: Any = None,
    *,
    n_components: int = 5,
    max_iter: int = 50,
    gamma: float = 50.0,
    connectivity: int = 8,
) -> GrabCut:
    r"""Segment an image from a rectangle around the object, or from a mask, by iterated minimum cuts.

    Minimises ``E(x, k, theta) = sum_p D_p(x_p, k_p, theta) + gamma sum_{p,q} exp(-beta ||I_p - I_q||^2) / ||p - q||
    [x_p != x_q]`` over the labels x, each pixel's component k and the mixtures theta of both regions, in turns, with
    ``beta = 1 / (2 <||I_p - I_q||^2>)`` and D the cost of a colour in a Gaussian.

    Parameters
    ----------
    image : array, [H, W] or [H, W, C], uint8/float32/float64
        Up to 8 channels, from 0 to 1, uint8 from 0 to 255.
    rect : 4 ints (x, y, width, height), pixels
        What is outside is background; inside all may be. Either this or mask.
    mask : array, [H, W], bool or integers
        0 is background and 1 foreground for ever; 2 (probably background) and 3 (probably foreground) is where it
        starts. OpenCV's numbers.
    n_components : int
        Gaussians of each region at most, 1 to 64.
    max_iter : int
        Iterations at most, 1 at least.
    gamma : float
        Weight of the boundary, 0 at least.
    connectivity : {8, 4}
        Neighbours of a pixel.

    Returns
    -------
    labels : array, [H, W], int64
        1 = foreground.
    energy : NumPy array, [n_iter], float64
        E after each iteration, which never increases: its parts are minimised one after another.
    n_iter : int
        Iterations. It ends when a cut changes no label.

    Raises
    ------
    TypeError
        An array of the wrong library, device or dtype, or an option of the wrong type.
    ValueError
        Wrong shapes or options, an image outside 0 to 1, other values in the mask, or no pixel in either region.

    Warns
    -----
    ConvergenceWarning
        The last of max_iter iterations still changed labels.

    Notes
    -----
    An iteration assigns each pixel to the component of its region where it costs least, fits the components, and
    cuts. Both mixtures start with binary splits of their pixels (Orchard and Bouman), so that there are no random
    numbers; see :func:`cv3gpu.boykov_jolly` for D. Pixels that are fixed count in E and in the mixtures. A region
    that has lost all its pixels keeps its mixture.

    References
    ----------
    C. Rother, V. Kolmogorov, A. Blake, GrabCut: interactive foreground extraction using iterated graph cuts, 2004,
    figure 3 and eq. 8 to 11.

    Examples
    --------
    >>> import numpy as np, cv3gpu
    >>> image = np.zeros((6, 7), np.uint8)
    >>> image[2:4, 2:5] = 200
    >>> cv3gpu.grab_cut(image, (1, 1, 5, 4)).labels
    array([[0, 0, 0, 0, 0, 0, 0],
           [0, 0, 0, 0, 0, 0, 0],
           [0, 0, 1, 1, 1, 0, 0],
           [0, 0, 1, 1, 1, 0, 0],
           [0, 0, 0, 0, 0, 0, 0],
           [0, 0, 0, 0, 0, 0, 0]])
    """
    max_iter = _check.integer("grab_cut", "max_iter", max_iter, 1)
    steps = grab_cut_steps(image, rect, mask, n_components=n_components, gamma=gamma, connectivity=connectivity)
    energy = []
    for step in itertools.islice(steps, max_iter):
        energy.append(step.energy)
    if step.changed:
        text = f"grab_cut: {step.changed} labels changed in the last of {max_iter} iterations; more may change more"
        warnings.warn(text, ConvergenceWarning, stacklevel=4)
    return GrabCut(step.labels, np.array(energy), len(energy))


class GrabCutStep(NamedTuple):
    """An iteration of GrabCut: its labels [H, W], their energy, and how many of them are new."""

    labels: Any
    energy: float
    changed: int


def grab_cut_steps(
    image: Any,
    rect: Sequence[int] | None = None,
    mask: Any = None,
    *,
    n_components: int = 5,
    gamma: float = 50.0,
    connectivity: int = 8,
) -> Iterator[GrabCutStep]:
    """The iterations of :func:`grab_cut`, one by one, until one changes nothing."""
    op = "grab_cut"
    _array.checked_family(op, "image", image)
    _array.check_device(op, "image", image)
    n_components = _check.integer(op, "n_components", n_components, 1, MOST_COMPONENTS)
    gamma = _check.not_negative(op, "gamma", gamma)
    half = _check.half_neighbours(op, "connectivity", connectivity)
    if (rect is None) == (mask is None):
        got = "neither" if rect is None else "both"
        _check.fail(op, "rect", "be given, or else mask", got)
    if mask is None:
        mask = _around(op, image, rect)
    _check.dtype(op, "mask", mask, MASKS)
    _check.ndim(op, "mask", mask, 2, "[H, W]")
    mask = _plain(mask)
    images = _images(op, image, "mask", tuple(mask.shape))
    if bool(((mask < 0) | (mask > PROBABLE_FOREGROUND)).any()):
        _check.fail(op, "mask", "hold 0, 1, 2 and 3", f"{int(mask.min())} to {int(mask.max())}")
    if not images.pixels:
        yield GrabCutStep(_array.zeros(images.planes[0], tuple(mask.shape), "int64"), 0.0, 0)
        return
    flat = mask.reshape(-1)
    fixed = flat == BACKGROUND, flat == FOREGROUND
    regions = [fixed[0] | (flat == PROBABLE_BACKGROUND), fixed[1] | (flat == PROBABLE_FOREGROUND)]
    for own, values in zip(regions, ("0 or 2 (background)", "1 or 3 (foreground)"), strict=True):
        if not bool(own.any()):
            if rect is None:
                _check.fail(op, "mask", f"have a pixel of {values}", "none")
            _check.fail(op, "rect", "leave some of the image outside", rect)
    edges, levels = _edges(images, gamma, None, half), images.levels(0)
    rows = _colour_models.products(levels)
    models = [_colour_models.start(rows[:, own], levels[:, own], n_components) for own in regions]
    while True:
        for k, own in enumerate(regions):
            if bool(own.any()):
                models[k] = _colour_models.refit(rows[:, own], models[k])
        source, sink = (_colour_models.cost(rows, model) for model in models)
        source[fixed[1]] = sink[fixed[0]] = math.inf
        labels, flow = _cut(images, source, sink, edges, True)
        now = labels.reshape(-1) != 0
        changed = int((now != regions[1]).sum())
        regions = [~now, now]
        yield GrabCutStep(labels, float(flow), changed)
        if not changed:
            return


def _around(op: str, image: Any, rect: Any) -> Any:
    """The mask of a rectangle: what is outside is background, what is inside probably foreground."""
    if not isinstance(rect, Sequence) or isinstance(rect, str | bytes) or len(rect) != 4:
        _check.fail(op, "rect", "be 4 integers (x, y, width, height)", repr(rect), error=TypeError)
    if image.ndim not in (2, 3):
        _check.fail(op, "image", "have shape [H, W] or [H, W, C]", tuple(image.shape))
    rows, columns = int(image.shape[0]), int(image.shape[1])
    x, y = (_check.integer(op, f"rect[{k}]", rect[k], 0) for k in (0, 1))
    width, height = (_check.integer(op, f"rect[{k}]", rect[k], 1) for k in (2, 3))
    if x + width > columns or y + height > rows:
        _check.fail(op, "rect", f"lie in the image of {columns} x {rows} pixels", tuple(rect))
    mask = _array.zeros(image, (rows, columns), "uint8")
    mask[y : y + height, x : x + width] = PROBABLE_FOREGROUND
    return mask
