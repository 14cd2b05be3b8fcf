"""Segmentation from seeds: Boykov and Jolly's cut against all labellings, GrabCut against a plain one."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
import scipy.ndimage
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

import cv3gpu
from cv3gpu.graphcut import _colour_models, seeds

Array = np.ndarray[Any, Any]

LAM, SIGMA = 3.0, 0.15
HALF = {4: [(0, 1), (1, 0)], 8: [(0, 1), (1, 0), (1, 1), (1, -1)]}


def scene(height: int, width: int, channels: int = 3, seed: int = 0) -> tuple[Array, Array, Array]:
    """A noisy image, uint8, with a disc of another colour, and a few seeds in the disc and outside."""
    rng = np.random.default_rng(seed)
    y, x = np.indices((height, width))
    disc = (y - height / 2) ** 2 + (x - width / 2) ** 2 < (min(height, width) / 3) ** 2
    colours = rng.integers(40, 216, (2, channels))
    image = np.clip(colours[disc.astype(int)] + 25 * rng.standard_normal((height, width, channels)), 0, 255)
    marked = rng.random((height, width)) < 0.25
    foreground, background = disc & marked, ~disc & marked
    foreground[height // 2, width // 2] = background[0, 0] = True
    return image.astype(np.uint8), foreground, background


def in_unit(image: Array) -> Array:
    """[H, W, C], 0 to 1."""
    image = image / 255 if image.dtype == np.uint8 else image.astype(float)
    return image[..., None] if image.ndim == 2 else image


def pairs(image: Array, connectivity: int) -> list[tuple[tuple[int, int], tuple[int, int], float, float]]:
    """Neighbours, their squared difference and their distance, one by one."""
    unit = in_unit(image)
    height, width = unit.shape[:2]
    return [
        ((y, x), (y + dy, x + dx), float(((unit[y, x] - unit[y + dy, x + dx]) ** 2).sum()), math.hypot(dy, dx))
        for y, x in np.ndindex(height, width)
        for dy, dx in HALF[connectivity]
        if 0 <= y + dy < height and 0 <= x + dx < width
    ]


def boundary(image: Array, labels: Array, lam: float, sigma: float, connectivity: int) -> float:
    """The weights of the pairs of unlike labels."""
    return sum(
        lam * math.exp(-square / (2 * sigma**2)) / far
        for p, q, square, far in pairs(image, connectivity)
        if labels[p] != labels[q]
    )


def histogram_costs(image: Array, own: Array, bins: int, smoothing: float) -> Array:
    """-log p of each pixel's colour by a dictionary of cells."""
    cells = (in_unit(image) * 255 * bins / 256).astype(int)
    count: dict[tuple[int, ...], int] = {}
    for cell in map(tuple, cells[own].tolist()):
        count[cell] = count.get(cell, 0) + 1
    total = own.sum() + smoothing * bins ** cells.shape[-1]
    flat = [-math.log((count.get(tuple(cell), 0) + smoothing) / total) for cell in cells.reshape(-1, cells.shape[-1])]
    return np.reshape(flat, own.shape)


def gaussian_cost(levels: Array, own: Array, share: float) -> Array:
    """The cost of levels [N, C] in a Gaussian of those that are its own, in the mean over rounding."""
    covariance = np.cov(levels[own].T, bias=True).reshape(levels.shape[1], -1) + np.eye(levels.shape[1]) / 12
    density = scipy.stats.multivariate_normal(levels[own].mean(0), covariance)
    return -math.log(share) - density.logpdf(levels) + np.trace(np.linalg.inv(covariance)) / 24


def region_costs(image: Array, masks: tuple[Array, Array], region: str | None, **options: Any) -> list[Array]:
    """Costs of the foreground and the background; a mixture of one Gaussian."""
    if region is None:
        return [np.zeros(masks[0].shape)] * 2
    if region == "histogram":
        return [histogram_costs(image, own, options.get("bins", 16), options.get("smoothing", 1.0)) for own in masks]
    levels = 255 * in_unit(image).reshape(masks[0].size, -1)
    return [gaussian_cost(levels, own.ravel(), 1.0).reshape(own.shape) for own in masks]


def energy(image: Array, labels: Array, costs: list[Array], masks: tuple[Array, Array], **edges: Any) -> float:
    """E, seeds costing nothing in their region."""
    free = ~(masks[0] | masks[1])
    region = np.where(labels > 0, costs[0], costs[1])[free].sum()
    return float(region) + boundary(image, labels, **edges)


# ---- Boykov and Jolly -----------------------------------------------------------------------------------

REGIONS = [(None, {}), ("histogram", {"bins": 4, "smoothing": 0.5}), ("gmm", {"n_components": 1})]


@pytest.mark.parametrize("connectivity", [4, 8])
@pytest.mark.parametrize(("region", "options"), REGIONS)
@pytest.mark.parametrize(("shape", "channels"), [((3, 4), 3), ((2, 5), 1), ((1, 9), 2)])
def test_it_is_the_best_of_all_labellings(
    region: str | None, options: Any, connectivity: int, shape: tuple[int, int], channels: int
) -> None:
    rng = np.random.default_rng(shape[1])
    image = rng.integers(0, 256, (*shape, channels), np.uint8)
    foreground, background = np.zeros((2, *shape), bool)
    foreground.flat[[1, 3]] = background.flat[[-1, -3]] = True
    masks = foreground, background
    costs = region_costs(image, masks, region, **options)
    found = []
    for values in itertools.product((0, 1), repeat=foreground.size):
        labels = np.reshape(values, shape)
        if labels[foreground].all() and not labels[background].any():
            e = energy(image, labels, costs, masks, lam=LAM, sigma=SIGMA, connectivity=connectivity)
            found.append((e, labels))
    best = min(e for e, _ in found)
    winners = [labels for e, labels in found if e <= best * (1 + 1e-12)]
    for minimal, pick in ((True, np.min), (False, np.max)):
        labels, flow = cv3gpu.boykov_jolly(
            image, *masks, lam=LAM, sigma=SIGMA, connectivity=connectivity, region=region, minimal=minimal, **options
        )
        assert float(flow) == pytest.approx(best, rel=1e-9)
        np.testing.assert_array_equal(labels, pick(winners, axis=0))


@pytest.mark.parametrize("connectivity", [4, 8])
@pytest.mark.parametrize(("region", "options"), REGIONS)
@pytest.mark.parametrize("channels", [0, 1, 3, 4])
def test_flow_is_energy(cpu_path: Any, region: str | None, options: Any, connectivity: int, channels: int) -> None:
    image, *masks = scene(21, 26, channels or 1, seed=channels)
    image = image[..., 0] if channels == 0 else image
    edges = {"lam": 1.7, "sigma": 0.1, "connectivity": connectivity}
    given = [cpu_path.array(x) for x in (image, *masks)]
    found = cv3gpu.boykov_jolly(*given, region=region, **edges, **options)
    labels, flow = cpu_path.numpy(found.labels), float(found.flow)
    assert type(found.labels) is type(given[0]) and labels.shape == masks[0].shape
    assert labels[masks[0]].all() and not labels[masks[1]].any() and set(np.unique(labels)) == {0, 1}
    want = energy(image, labels, region_costs(image, masks, region, **options), tuple(masks), **edges)
    assert flow == pytest.approx(want, rel=1e-9)


def test_on_kernels(kernel_path: Any) -> None:
    image, *masks = scene(9, 12, seed=5)
    want = cv3gpu.boykov_jolly(image, *masks, lam=2.0, sigma=0.2, region="gmm", n_components=2).labels
    given = [kernel_path.array(x) for x in (image, *masks)]
    found = cv3gpu.boykov_jolly(*given, lam=2.0, sigma=0.2, region="gmm", n_components=2)
    np.testing.assert_array_equal(kernel_path.numpy(found.labels), want)


def test_grab_cut_on_kernels(kernel_path: Any) -> None:
    image, mask = grab_scene(7)
    image, mask = image[4:16, 4:17], mask[4:16, 4:17]
    want = cv3gpu.grab_cut(image, mask=mask, gamma=5.0)
    found = cv3gpu.grab_cut(kernel_path.array(image), mask=kernel_path.array(mask), gamma=5.0)
    np.testing.assert_array_equal(kernel_path.numpy(found.labels), want.labels)
    np.testing.assert_allclose(found.energy, want.energy, rtol=1e-9)


@pytest.mark.parametrize("region", [None, "histogram", "gmm"])
def test_region_weight_and_lam(region: str | None) -> None:
    image, *masks = scene(14, 15, seed=3)
    options = {"sigma": SIGMA, "region": region}
    once, more = (cv3gpu.boykov_jolly(image, *masks, lam=lam, **options) for lam in (1.0, 4.0))
    scaled = cv3gpu.boykov_jolly(image, *masks, lam=1.0, region_weight=0.25, **options)
    assert float(more.flow) == pytest.approx(4 * float(scaled.flow))
    np.testing.assert_array_equal(more.labels, scaled.labels)
    alone = cv3gpu.boykov_jolly(image, *masks, lam=0.0, **options)
    assert alone.flow <= once.flow <= more.flow
    free = ~(masks[0] | masks[1])
    if region is None:
        assert alone.flow == 0 and not alone.labels[free].any()
    if region == "histogram":
        foreground, background = region_costs(image, masks, region)
        np.testing.assert_array_equal(alone.labels[free], (foreground < background)[free])


@pytest.mark.parametrize("connectivity", [4, 8])
def test_sigma_is_estimated_by_image(connectivity: int) -> None:
    parts = [scene(13, 17, seed=seed) for seed in range(3)]
    parts[1][0][...] //= 4
    batch = [np.stack(column) for column in zip(*parts, strict=True)]
    options = {"lam": LAM, "connectivity": connectivity, "region": "histogram"}
    labels, flow = cv3gpu.boykov_jolly(*batch, sigma=None, **options)
    for k, (image, *masks) in enumerate(parts):
        sigma = math.sqrt(np.mean([square for _, _, square, _ in pairs(image, connectivity)]))
        want = cv3gpu.boykov_jolly(image, *masks, sigma=sigma, **options)
        np.testing.assert_array_equal(labels[k], want.labels)
        assert flow[k] == pytest.approx(float(want.flow))


@pytest.mark.parametrize("value", [0, 93])
def test_a_constant_image_has_the_shortest_border(value: int) -> None:
    image = np.full((5, 8), value, np.uint8)
    foreground, background = np.zeros((2, 5, 8), bool)
    foreground[:, 0] = background[:, 7] = True
    few, many = (
        cv3gpu.boykov_jolly(image, foreground, background, lam=2, sigma=None, connectivity=4, minimal=m)
        for m in (True, False)
    )
    assert few.flow == many.flow == pytest.approx(10)
    np.testing.assert_array_equal(few.labels, foreground)
    np.testing.assert_array_equal(many.labels, ~background)


@pytest.mark.parametrize("region", [None, "histogram", "gmm"])
def test_a_batch_is_a_loop(cpu_path: Any, region: str | None) -> None:
    parts = [scene(12, 11, seed=seed) for seed in range(4)]
    batch = [np.stack(column).reshape(2, 2, *column[0].shape) for column in zip(*parts, strict=True)]
    options = {"lam": LAM, "sigma": SIGMA, "region": region}
    labels, flow = cv3gpu.boykov_jolly(*map(cpu_path.array, batch), **options)
    assert tuple(labels.shape) == (2, 2, 12, 11) and tuple(flow.shape) == (2, 2)
    for k, part in enumerate(parts):
        one = cv3gpu.boykov_jolly(*map(cpu_path.array, part), **options)
        np.testing.assert_array_equal(cpu_path.numpy(labels)[k // 2, k % 2], cpu_path.numpy(one.labels))
        assert float(flow[k // 2, k % 2]) == pytest.approx(float(one.flow), rel=1e-12)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_levels_are_divided_by_255(dtype: str) -> None:
    image, *masks = scene(15, 15)
    for region in (None, "histogram", "gmm"):
        options = {"lam": LAM, "sigma": SIGMA, "region": region, "bins": 8}
        whole = cv3gpu.boykov_jolly(image, *masks, **options)
        unit = cv3gpu.boykov_jolly((image / 255).astype(dtype), *masks, **options)
        assert float(unit.flow) == pytest.approx(float(whole.flow), rel=1e-4 if dtype == "float32" else 1e-9)
        grey = cv3gpu.boykov_jolly(image[..., 1], *masks, **options)
        one = cv3gpu.boykov_jolly(image[..., 1:2], *masks, **options)
        assert grey.flow == one.flow


def test_masks_may_be_of_integers() -> None:
    image, foreground, background = scene(9, 9)
    want = cv3gpu.boykov_jolly(image, foreground, background, lam=LAM, sigma=SIGMA)
    other = cv3gpu.boykov_jolly(image, foreground * np.uint8(255), background * -1, lam=LAM, sigma=SIGMA)
    np.testing.assert_array_equal(want.labels, other.labels)


@pytest.mark.parametrize("region", [None, "histogram", "gmm"])
def test_no_random_numbers(region: str | None) -> None:
    image, *masks = scene(40, 40)
    first, second = (cv3gpu.boykov_jolly(image, *masks, lam=LAM, sigma=None, region=region) for _ in range(2))
    assert first.flow == second.flow
    np.testing.assert_array_equal(first.labels, second.labels)


@pytest.mark.parametrize("shape", [(0, 5, 4), (2, 0, 4), (0, 0)])
def test_nothing_gives_nothing(cpu_path: Any, shape: tuple[int, ...]) -> None:
    masks = [cpu_path.array(np.zeros(shape, bool)) for _ in range(2)]
    image = cpu_path.array(np.zeros((*shape, 3)))
    labels, flow = cv3gpu.boykov_jolly(image, *masks, lam=1, sigma=1, region="gmm")
    assert tuple(labels.shape) == shape and tuple(flow.shape) == shape[:-2] and float(flow.sum()) == 0


def test_all_pixels_are_seeds() -> None:
    image, _, _ = scene(4, 5)
    foreground = np.arange(20).reshape(4, 5) % 3 == 0
    labels, flow = cv3gpu.boykov_jolly(image, foreground, ~foreground, lam=LAM, sigma=SIGMA, region="histogram")
    np.testing.assert_array_equal(labels, foreground)
    assert flow == pytest.approx(boundary(image, foreground, LAM, SIGMA, 8))


def test_a_seed_holds_against_strong_colours() -> None:
    image = np.zeros((5, 5), np.uint8)
    image[:, 3:] = 255
    foreground, background = np.zeros((2, 5, 5), bool)
    foreground[0, 0] = foreground[2, 4] = background[4, 4] = background[4, 0] = True
    for weight in (0.0, 1.0, 1e9):
        labels, flow = cv3gpu.boykov_jolly(
            image, foreground, background, lam=1e-6, sigma=0.01, region="gmm", region_weight=weight
        )
        assert labels[foreground].all() and not labels[background].any() and math.isfinite(flow)


@pytest.mark.parametrize("sigma", [5e-324, 1e-200, 1e-3, 1e200, 1e308])
def test_extreme_sigmas(sigma: float) -> None:
    image = np.array([[10, 10, 10, 20, 20]] * 3, np.uint8)
    foreground, background = np.zeros((2, 3, 5), bool)
    foreground[0, 0] = background[2, 4] = True
    labels, flow = cv3gpu.boykov_jolly(image, foreground, background, lam=2.0, sigma=sigma, connectivity=4)
    np.testing.assert_array_equal(labels, image == 10 if sigma < 1 else foreground)
    assert flow == pytest.approx(0 if sigma < 1 else 4)


def test_tensors_that_want_gradients() -> None:
    torch = pytest.importorskip("torch")
    image, *masks = scene(8, 9)
    tensor = torch.from_numpy(image / 255).requires_grad_()
    found = cv3gpu.boykov_jolly(tensor, *map(torch.from_numpy, masks), lam=LAM, sigma=SIGMA, region="gmm")
    assert not found.flow.requires_grad
    mask = torch.from_numpy(3 * masks[0].astype(np.uint8))
    assert not cv3gpu.grab_cut(tensor, mask=mask).labels.requires_grad


# ---- models of colours ----------------------------------------------------------------------------------


@pytest.mark.parametrize("channels", [1, 2, 3, 5])
def test_mixture_of_clusters_far_apart(channels: int) -> None:
    rng = np.random.default_rng(channels)
    centres = np.array([[30] * channels, [120] * channels, [220] * channels])
    which = np.repeat([0, 1, 2], [50, 100, 250])
    colours = np.clip(np.rint(centres[which] + 4 * rng.standard_normal((400, channels))), 0, 255).astype(np.uint8)
    image = colours.reshape(20, 20, channels)
    foreground = np.ones((20, 20), bool)
    foreground[:, 0] = False
    own = foreground.ravel()
    want = np.min(
        [
            gaussian_cost(colours.astype(float), own & (which == k), (own & (which == k)).sum() / own.sum())
            for k in range(3)
        ],
        axis=0,
    )
    levels = colours.T.astype(float)
    got = _colour_models.mixture_cost(_colour_models.products(levels), levels, own, 3)
    np.testing.assert_allclose(got, want, rtol=1e-6)
    masks = foreground, ~foreground
    costs = [want.reshape(20, 20), gaussian_cost(colours.astype(float), ~own, 1.0).reshape(20, 20)]
    labels, flow = cv3gpu.boykov_jolly(image, *masks, lam=LAM, sigma=SIGMA, region="gmm", n_components=3)
    assert flow >= 0 and energy(image, labels, costs, masks, lam=LAM, sigma=SIGMA, connectivity=8) >= 0


@given(st.integers(0, 2**32 - 1), st.integers(1, 4), st.integers(1, 7), st.booleans())
@settings(max_examples=40, deadline=None)
def test_costs_in_a_mixture_are_never_negative(seed: int, channels: int, components: int, few: bool) -> None:
    rng = np.random.default_rng(seed)
    levels = rng.integers(0, 3 if few else 256, (channels, 60)).astype(float)
    own = rng.random(60) < 0.5
    own[0] = True
    cost = _colour_models.mixture_cost(_colour_models.products(levels), levels, own, components)
    assert np.isfinite(cost).all() and cost.min() >= 0


def test_one_colour_is_one_component() -> None:
    levels = np.full((3, 10), 77.0)
    model = _colour_models.start(_colour_models.products(levels), levels, 5)
    assert model.shape == (1, 10)
    np.testing.assert_allclose(
        _colour_models.cost(_colour_models.products(levels), model), 1.5 * (math.log(2 * math.pi / 12) + 1), rtol=1e-9
    )


@given(st.integers(0, 2**32 - 1), st.sampled_from([4, 8]), st.sampled_from([None, "histogram", "gmm"]))
@settings(max_examples=25, deadline=None)
def test_symmetries(seed: int, connectivity: int, region: str | None) -> None:
    rng = np.random.default_rng(seed)
    height, width = rng.integers(2, 8, 2)
    image = rng.integers(0, 256, (height, width, 2), np.uint8)
    order = rng.permutation(height * width).reshape(height, width)
    foreground, background = order < 2, order > height * width - 3
    options = {"lam": LAM, "sigma": 0.3, "connectivity": connectivity, "region": region, "n_components": 2}
    labels, flow = cv3gpu.boykov_jolly(image, foreground, background, **options)
    swapped = cv3gpu.boykov_jolly(image, background, foreground, minimal=False, **options)
    np.testing.assert_array_equal(swapped.labels, 1 - labels)
    turned = cv3gpu.boykov_jolly(*(np.rot90(x).copy() for x in (image, foreground, background)), **options)
    np.testing.assert_array_equal(np.rot90(labels), turned.labels)
    assert swapped.flow == pytest.approx(flow) and turned.flow == pytest.approx(flow)


# ---- GrabCut --------------------------------------------------------------------------------------------


def plain_grab_cut(
    image: Array, mask: Array, start: list[Array], gamma: float, n_iter: int
) -> list[tuple[float, Array]]:
    """GrabCut with plain Gaussians from the components [N] where it starts: energies and labels."""
    levels = 255 * in_unit(image).reshape(mask.size, -1)
    sigma = math.sqrt(np.mean([square for _, _, square, _ in pairs(image, 8)]))
    neighbours = np.zeros((8, *mask.shape))
    offsets = [*HALF[8], *((-y, -x) for y, x in HALF[8])]
    for p, q, square, far in pairs(image, 8):
        weight = gamma * math.exp(-square / (2 * sigma**2)) / far
        step = (q[0] - p[0], q[1] - p[1])
        neighbours[offsets.index(step)][p] = neighbours[offsets.index((-step[0], -step[1]))][q] = weight

    def costs(own: Array, component: Array) -> Array:
        members = [own & (component == k) for k in np.unique(component[own])]
        return np.array([gaussian_cost(levels, member, member.sum() / own.sum()) for member in members])

    labels, found, component = mask % 2, [], start
    models = [costs((labels == k).ravel(), component[k]) for k in (0, 1)]
    for _ in range(n_iter):
        component = [model.argmin(0) for model in models]
        models = [costs((labels == k).ravel(), component[k]) for k in (0, 1)]
        best = [model.min(0).reshape(mask.shape) for model in models]
        source, sink = np.where(mask == 1, 1e9, best[0]), np.where(mask == 0, 1e9, best[1])
        labels = cv3gpu.graph_cut(source, sink, neighbours, offsets=offsets).labels
        e = np.where(labels == 1, best[1], best[0]).sum() + boundary(image, labels, gamma, sigma, 8)
        found.append((e, labels))
    return found


def grab_scene(seed: int) -> tuple[Array, Array]:
    """An image and a mask with all four values."""
    rng = np.random.default_rng(seed)
    image = scene(18, 20, seed=seed)[0] // 3 + scipy.ndimage.zoom(rng.integers(0, 170, (6, 5, 3)), (3, 4, 1)).astype(
        np.uint8
    )
    mask = np.full((18, 20), seeds.PROBABLE_BACKGROUND, np.uint8)
    mask[3:15, 3:16] = seeds.PROBABLE_FOREGROUND
    mask[0], mask[-1] = seeds.BACKGROUND, seeds.BACKGROUND
    mask[8:10, 9:11] = seeds.FOREGROUND
    return image, mask


@pytest.mark.parametrize("seed", range(4))
def test_grab_cut_is_the_plain_one(seed: int) -> None:
    image, mask = grab_scene(seed)
    levels = np.ascontiguousarray(image.reshape(-1, 3).T.astype(float))
    start = []
    for k in (0, 1):
        own = (mask % 2 == k).ravel()
        component = np.full(mask.size, -1)
        component[own] = _colour_models.split(_colour_models.products(levels[:, own]), levels[:, own], 3)
        start.append(component)
    labels, e, n_iter = cv3gpu.grab_cut(image, mask=mask, n_components=3, gamma=20.0)
    want = plain_grab_cut(image, mask, start, 20.0, n_iter)
    np.testing.assert_allclose(e, [value for value, _ in want], rtol=1e-7)
    np.testing.assert_array_equal(labels, want[-1][1])


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("gamma", [0.0, 2.0, 10.0])
def test_grab_cut_never_raises_its_energy(cpu_path: Any, seed: int, gamma: float) -> None:
    image, mask = grab_scene(seed)
    given = cpu_path.array(image), cpu_path.array(mask)
    found = cv3gpu.grab_cut(given[0], mask=given[1], gamma=gamma)
    assert (np.diff(found.energy) <= 1e-9 * abs(found.energy[1:])).all()
    assert found.n_iter > (3 if gamma == 0 else 1)
    assert found.energy.shape == (found.n_iter,) and found.energy.dtype == np.float64
    labels = cpu_path.numpy(found.labels)
    assert type(found.labels) is type(given[0])
    assert labels[mask == 1].all() and not labels[mask == 0].any()
    steps = list(seeds.grab_cut_steps(given[0], mask=given[1], gamma=gamma))
    assert [step.energy for step in steps] == found.energy.tolist()
    before = mask % 2
    for step in steps:
        now = cpu_path.numpy(step.labels)
        assert step.changed == (now != before).sum() and (step.changed > 0 or step is steps[-1])
        before = now
    assert steps[-1].changed == 0


def test_grab_cut_finds_the_disc() -> None:
    rng = np.random.default_rng(0)
    y, x = np.indices((60, 70))
    disc = (y - 31) ** 2 + (x - 33) ** 2 < 18**2
    colours = np.array([[[90, 120, 60], [110, 100, 90]], [[180, 60, 70], [200, 190, 80]]])
    stripes = (x // 5) % 2
    image = np.clip(colours[disc.astype(int), stripes] + 8 * rng.standard_normal((60, 70, 3)), 0, 255).astype(np.uint8)
    found = cv3gpu.grab_cut(image, (10, 9, 46, 44))
    assert ((found.labels == 1) != disc).mean() < 0.002
    outside = np.ones((60, 70), bool)
    outside[9:53, 10:56] = False
    assert not found.labels[outside].any()


def test_a_rectangle_is_a_mask() -> None:
    image, _ = grab_scene(1)
    mask = np.zeros((18, 20), np.int64)
    mask[4:13, 2:17] = seeds.PROBABLE_FOREGROUND
    by_rect, by_mask = cv3gpu.grab_cut(image, (2, 4, 15, 9)), cv3gpu.grab_cut(image, mask=mask)
    np.testing.assert_array_equal(by_rect.labels, by_mask.labels)
    np.testing.assert_array_equal(by_rect.energy, by_mask.energy)


@pytest.mark.parametrize("start", [seeds.PROBABLE_BACKGROUND, seeds.PROBABLE_FOREGROUND])
def test_a_region_may_lose_all_pixels(start: int) -> None:
    """A boundary that costs too much leaves one region; the other keeps its mixture, and it ends."""
    image, _ = grab_scene(2)
    mask = np.full((18, 20), start, np.uint8)
    mask[5, 5] = seeds.PROBABLE_BACKGROUND + seeds.PROBABLE_FOREGROUND - start
    found = cv3gpu.grab_cut(image, mask=mask, gamma=1e6)
    assert (found.labels == start % 2).all() and (np.diff(found.energy) <= 0).all()


def test_all_of_it_is_known() -> None:
    image, _ = grab_scene(3)
    mask = np.indices((18, 20))[0] // 9
    labels, _, n_iter = cv3gpu.grab_cut(image, mask=mask.astype(bool))
    np.testing.assert_array_equal(labels, mask)
    assert n_iter == 1


def test_it_says_that_it_has_not_ended() -> None:
    image, mask = grab_scene(0)
    whole = cv3gpu.grab_cut(image, mask=mask, gamma=5.0)
    assert whole.n_iter > 2
    with pytest.warns(
        cv3gpu.ConvergenceWarning, match="grab_cut: .* labels changed in the last of 1 iterations"
    ) as caught:
        part = cv3gpu.grab_cut(image, mask=mask, gamma=5.0, max_iter=1)
    assert caught[0].filename == __file__
    assert part.n_iter == 1 and part.energy[0] == whole.energy[0]


def test_grab_cut_of_nothing(cpu_path: Any) -> None:
    image = cpu_path.array(np.zeros((0, 4, 3), np.uint8))
    labels, e, n_iter = cv3gpu.grab_cut(image, mask=cpu_path.array(np.zeros((0, 4), np.uint8)))
    assert tuple(labels.shape) == (0, 4) and e.tolist() == [0.0] and n_iter == 1


# ---- refusals -------------------------------------------------------------------------------------------

IMAGE, FG, BG = scene(6, 7)
OK: dict[str, Any] = {"image": IMAGE, "foreground": FG, "background": BG, "lam": 1.0, "sigma": 0.1}
NOBODY = np.zeros((6, 7), bool)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"image": IMAGE.tolist()}, TypeError, "image must be a NumPy, CuPy or torch array, got list"),
        ({"image": IMAGE.astype(np.int32)}, TypeError, "image must have dtype uint8 or float32 or float64, got int32"),
        ({"image": IMAGE / 1.0}, ValueError, "image must be from 0 to 1 where it is no uint8, got"),
        ({"image": IMAGE / 255 - 1}, ValueError, "image must be from 0 to 1"),
        ({"image": IMAGE * np.nan}, ValueError, "image must be from 0 to 1 where it is no uint8, got nan"),
        ({"image": IMAGE[:5]}, ValueError, r"image must have shape \[6, 7\] or \[6, 7, C\] with C from 1 to 8, to match foreground, got \(5, 7, 3\)"),
        ({"image": IMAGE[None]}, ValueError, "image must have shape"),
        ({"image": IMAGE[0, 0]}, ValueError, "image must have shape"),
        ({"image": np.repeat(IMAGE, 3, 2)}, ValueError, "C from 1 to 8"),
        ({"image": IMAGE[..., :0]}, ValueError, "C from 1 to 8"),
        ({"foreground": FG / 1}, TypeError, "foreground must have dtype bool or uint8 .*, got float64"),
        ({"foreground": FG[0]}, ValueError, r"foreground must have shape \[..., H, W\], got \(7,\)"),
        ({"background": BG[:, :3]}, ValueError, r"background must have shape \[6, 7\], got \(6, 3\)"),
        ({"foreground": NOBODY}, ValueError, "foreground must have a seed, got none"),
        ({"background": NOBODY}, ValueError, "background must have a seed, got none"),
        ({"background": np.ones((6, 7), bool)}, ValueError, r"background must have no seed of foreground, got one at row \d, column \d"),
        ({"lam": -1}, ValueError, "lam must not be negative, got -1"),
        ({"lam": math.inf}, ValueError, "lam must be finite, got inf"),
        ({"lam": "1"}, TypeError, "lam must be a number, got '1'"),
        ({"sigma": 0}, ValueError, "sigma must be finite and positive, got 0"),
        ({"sigma": math.nan}, ValueError, "sigma must be finite and positive"),
        ({"connectivity": 6}, ValueError, "connectivity must be 4 or 8, got 6"),
        ({"connectivity": "8"}, ValueError, "connectivity must be 4 or 8, got '8'"),
        ({"region": "kde"}, ValueError, "region must be one of 'histogram', 'gmm', got 'kde'"),
        ({"region_weight": -0.1}, ValueError, "region_weight must not be negative"),
        ({"bins": 0}, ValueError, "bins must be from 1 to 256, got 0"),
        ({"bins": 2.0}, TypeError, "bins must be an integer, got 2.0"),
        ({"bins": 257}, ValueError, "bins must be from 1 to 256"),
        ({"image": np.repeat(IMAGE[..., :2], 4, 2), "region": "histogram"}, ValueError, r"bins must give at most 16777216 cells, got 16\^8; take fewer"),
        ({"smoothing": 0.0}, ValueError, "smoothing must be finite and positive"),
        ({"n_components": 0}, ValueError, "n_components must be from 1 to 64, got 0"),
        ({"minimal": 1}, TypeError, "minimal must be True or False"),
    ],
)  # fmt: skip
def test_boykov_jolly_refuses(change: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match="boykov_jolly: .*" + message):
        cv3gpu.boykov_jolly(**{**OK, **change})


def test_which_image_has_no_seeds_or_too_many() -> None:
    parts = [np.stack([x, x]) for x in (IMAGE, FG, BG)]
    empty = [x.copy() for x in parts]
    empty[2][1] = False
    with pytest.raises(ValueError, match="background must have a seed in every image, got none in image 1"):
        cv3gpu.boykov_jolly(*empty, lam=1, sigma=1)
    parts[2][1, 3, 4] = parts[1][1, 3, 4] = True
    with pytest.raises(ValueError, match="got one at image 1, row 3, column"):
        cv3gpu.boykov_jolly(*parts, lam=1, sigma=1)


def test_libraries_may_not_be_mixed() -> None:
    torch = pytest.importorskip("torch")
    with pytest.raises(TypeError, match="boykov_jolly: all arrays must be of one library"):
        cv3gpu.boykov_jolly(torch.from_numpy(IMAGE), FG, BG, lam=1, sigma=1)
    with pytest.raises(TypeError, match="grab_cut: all arrays must be of one library"):
        cv3gpu.grab_cut(torch.from_numpy(IMAGE), mask=FG)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({}, ValueError, "rect must be given, or else mask, got neither"),
        ({"rect": (1, 1, 2, 2), "mask": FG}, ValueError, "rect must be given, or else mask, got both"),
        ({"rect": (1, 1, 2)}, TypeError, r"rect must be 4 integers \(x, y, width, height\), got \(1, 1, 2\)"),
        ({"rect": 5}, TypeError, "rect must be 4 integers"),
        ({"rect": "1,2,3,4"}, TypeError, "rect must be 4 integers"),
        ({"rect": (1, 1, 2.5, 2)}, TypeError, r"rect\[2\] must be an integer, got 2.5"),
        ({"rect": (-1, 1, 2, 2)}, ValueError, r"rect\[0\] must be from 0"),
        ({"rect": (1, 1, 2, 0)}, ValueError, r"rect\[3\] must be from 1"),
        ({"rect": (3, 1, 5, 2)}, ValueError, r"rect must lie in the image of 7 x 6 pixels, got \(3, 1, 5, 2\)"),
        ({"rect": (0, 0, 7, 6)}, ValueError, "rect must leave some of the image outside"),
        ({"rect": (0, 0, 2, 2), "image": IMAGE[0, 0]}, ValueError, r"image must have shape \[H, W\] or \[H, W, C\]"),
        ({"mask": FG[None]}, ValueError, r"mask must have shape \[H, W\], got \(1, 6, 7\)"),
        ({"mask": FG / 1}, TypeError, "mask must have dtype bool or uint8"),
        ({"mask": FG.astype(int) * 4}, ValueError, "mask must hold 0, 1, 2 and 3, got 0 to 4"),
        ({"mask": FG.astype(int) - 1}, ValueError, "mask must hold 0, 1, 2 and 3, got -1 to 0"),
        ({"mask": FG * 0}, ValueError, r"mask must have a pixel of 1 or 3 \(foreground\), got none"),
        ({"mask": np.full((6, 7), 3)}, ValueError, r"mask must have a pixel of 0 or 2 \(background\), got none"),
        ({"mask": FG[:3]}, ValueError, r"image must have shape \[3, 7\] or \[3, 7, C\] with C from 1 to 8, to match mask"),
        ({"mask": FG, "image": IMAGE / 1.0}, ValueError, "image must be from 0 to 1"),
        ({"mask": FG, "max_iter": 0}, ValueError, "max_iter must be from 1"),
        ({"mask": FG, "gamma": -1.0}, ValueError, "gamma must not be negative"),
        ({"mask": FG, "n_components": 65}, ValueError, "n_components must be from 1 to 64"),
        ({"mask": FG, "connectivity": True}, ValueError, "connectivity must be 4 or 8, got True"),
    ],
)  # fmt: skip
def test_grab_cut_refuses(change: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match="grab_cut: .*" + message):
        cv3gpu.grab_cut(**{"image": IMAGE, **change})
