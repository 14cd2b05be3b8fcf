"""The dense CRF on photographs and the Gaussian filter on points: against pydensecrf, and against brute force.

Unaries are those of a coarse classifier: labels of superpixels, a fifth of them wrong, at an eighth of the resolution.
pydensecrf has one thread, so on a CPU ours has one core as well and stands a second time with all of them; where there
is no such peer ours has all cores. All times are from the image to the marginals, lattices and norms included.

``bytes`` of an entry are what each iteration must move: unaries, marginals before and after, and for a lattice of D
dimensions D + 1 weights and indices a pixel. ``flops`` are two for each weight and label on the way to the lattice,
and two on the way back; where all pairs count, 2 (D + L) + 8 for each pair that is kept. Building and blurring, which
depend on the photograph, are left out.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest

import cv3gpu
from cv3gpu.crf import arguments, operators

from . import peers
from .entry import Entry, Errors, Way, Work, dense_errors

WRONG = Errors(float("inf"), float("inf"))
PARITY = 1e-4  # what a marginal may differ from pydensecrf's
CLEAR = 1e-3  # labels nearer than this to one another may be swapped
SWAPPED = 0.01  # share of labels that one iteration on the fine lattice may get wrong
SAMPLES = 1000  # pixels that are computed by brute force
ITERATIONS = 5  # of the entries that are not about their number
BLOCK = {"cpu": (128, 2048), "cuda": (1024, 65536)}  # of the matrix of all pairs, at a time

WEIGHTS = ("compat_smooth", "compat_bilateral")
SETTINGS = {
    name: dict(zip(arguments.PARAMETERS, values, strict=True))
    for name, values in {"80/13": (3.0, 3.0, 80.0, 13.0, 10.0), "67/3": (1.0, 3.0, 67.0, 3.0, 4.0)}.items()
}

# ---- photographs ----------------------------------------------------------------------------------------


class Scene(NamedTuple):
    """A photograph, how often it is cut out, and the number of labels."""

    photograph: str
    height: int
    width: int
    labels: int
    batch: int = 0  # 0: no batch

    @property
    def pixels(self) -> int:
        return max(self.batch, 1) * self.height * self.width

    def __str__(self) -> str:
        count = f"{self.batch} x " if self.batch else ""
        return f"{count}{self.width}x{self.height}, {self.labels} labels"


SCENES = {
    "512": Scene("astronaut", 512, 512, 21),
    "320": Scene("coffee", 213, 320, 21),
    "batch": Scene("astronaut", 320, 320, 21, batch=16),
    "150 labels": Scene("coffee", 213, 320, 150),
    "512, 150 labels": Scene("astronaut", 512, 512, 150),
}
# The share of all pairs that AllPairs keeps of a scene, as its ``kept`` says.
KEPT = {("320", "80/13"): 0.493, ("320", "67/3"): 0.145, ("512", "80/13"): 0.294, ("512", "67/3"): 0.088}


def noisy_unaries(image: np.ndarray, labels: int, seed: int) -> np.ndarray:
    """-log p [L, H, W] of a classifier that sees an eighth of the resolution and errs in a fifth of the regions."""
    pytest.importorskip("skimage")
    from scipy import ndimage
    from scipy.cluster.vq import kmeans2
    from skimage import color, measure, segmentation

    rng = np.random.default_rng(seed)
    height, width = image.shape[:2]
    regions = segmentation.slic(image, n_segments=max(400, 6 * labels), start_label=0)
    y, x = np.indices((height, width))
    seen = np.dstack([color.rgb2lab(image), 0.1 * x, 0.1 * y])
    index = np.arange(regions.max() + 1)
    means = np.stack([ndimage.mean(seen[..., c], regions, index) for c in range(5)], axis=1)
    _, label = kmeans2(means, labels, seed=seed, minit="++")
    wrong = rng.random(len(index)) < 0.2
    label[wrong] = rng.integers(labels, size=int(wrong.sum()))
    found = label[regions]
    coarse = np.stack([measure.block_reduce((found == k).astype(np.float32), 8, np.mean) for k in range(labels)])
    coarse = 5 * coarse + rng.standard_normal(coarse.shape, np.float32)
    logits = np.stack([ndimage.zoom(plane, 8, order=1, mode="nearest", grid_mode=True) for plane in coarse])
    logits = logits[:, :height, :width] + 0.4 * rng.standard_normal((labels, height, width), np.float32)
    top = logits.max(0)
    return (np.log(np.exp(logits - top).sum(0)) + top - logits).astype(np.float32)


@functools.lru_cache(maxsize=2)
def data(key: str) -> tuple[np.ndarray, np.ndarray]:
    """Unaries and image of a scene; a batch is cut out at random places."""
    photographs = pytest.importorskip("skimage.data")
    scene = SCENES[key]
    whole = getattr(photographs, scene.photograph)()
    rng = np.random.default_rng(0)
    cut = []
    for k in range(max(scene.batch, 1)):
        top, left = (rng.integers(n - m + 1) for n, m in zip(whole.shape, (scene.height, scene.width), strict=False))
        part = whole[top : top + scene.height, left : left + scene.width]
        cut.append(part[:, ::-1] if k % 2 else part)
    unary = np.stack([noisy_unaries(part, scene.labels, k) for k, part in enumerate(cut)])
    image = np.stack(cut)
    return (unary, image) if scene.batch else (unary[0], image[0])


def on(device: str, *arrays: np.ndarray) -> list[Any]:
    """The arrays for ours: NumPy on the CPU, torch on the GPU."""
    if device == "cpu":
        return [*arrays]
    torch = pytest.importorskip("torch")
    return [torch.from_numpy(np.ascontiguousarray(x)).cuda() for x in arrays]


# ---- pydensecrf -----------------------------------------------------------------------------------------


def pydensecrf(unary: np.ndarray, image: np.ndarray, setting: dict[str, float], n_iter: int) -> Way:
    """The whole of pydensecrf for each image: lattices, norms, iterations."""

    def make(module: Any) -> Way:
        def way() -> Any:
            found = []
            for u, picture in zip(unaries, pictures, strict=True):
                crf = module.DenseCRF2D(u.shape[2], u.shape[1], u.shape[0])
                crf.setUnaryEnergy(u.reshape(len(u), -1))
                crf.addPairwiseGaussian(sxy=setting["theta_gamma"], compat=setting["compat_smooth"])
                width = {"sxy": setting["theta_alpha"], "srgb": setting["theta_beta"]}
                crf.addPairwiseBilateral(**width, rgbim=picture, compat=setting["compat_bilateral"])
                found.append(np.array(crf.inference(n_iter), np.float32).reshape(u.shape))
            return np.stack(found).reshape(unary.shape)

        unaries = unary.reshape(-1, *unary.shape[-3:])
        pictures = np.ascontiguousarray(image).reshape(-1, *image.shape[-3:])
        return way

    return peers.need("pydensecrf.densecrf", make)


def marginal_errors(reference: np.ndarray, got: Any) -> Errors:
    """Errors of marginals [..., L, H, W]; infinite where one is off by PARITY or a clear label differs."""
    got = _host(got)
    found = dense_errors(reference, got)
    if not np.isfinite(found.norm) or np.abs(got - reference).max() > PARITY:
        return WRONG
    best, second = np.moveaxis(np.sort(got, axis=-3)[..., :-3:-1, :, :], -3, 0)
    differ = got.argmax(-3) != reference.argmax(-3)
    return WRONG if (differ & (best - second > CLEAR)).any() else found


def _host(x: Any) -> np.ndarray:
    return x.detach().cpu().numpy() if hasattr(x, "cpu") else x.get() if hasattr(x, "get") else np.asarray(x)


def _once(way: Callable[[], Any]) -> tuple[Any, float]:
    """A result and the time that it took."""
    started = time.perf_counter()
    return way(), time.perf_counter() - started


def _against(
    name: str, peer: Way, host: Callable[[], Any], ours: Callable[[], Any], device: str, errors: Callable[..., Errors]
) -> Work:
    """Ours against a peer on one core, which is the reference, too, or ours on the CPU where there is none.

    On a GPU the peer runs once.
    """
    found, t = _once(host if isinstance(peer, str) else peer)
    compared = functools.partial(errors, found.astype(np.float64))
    if device == "cpu":
        return Work(ours=peers.on_one_core(host), errors=compared, peers={name: peer, "ours on all cores": host})  # type: ignore[arg-type]
    if isinstance(peer, str):
        return Work(ours=ours, errors=compared, host_peers={name: peer})
    return Work(ours=ours, errors=compared, once={f"{name}, once": lambda: (found, t)})


def _lattice(key: str, setting: str, n_iter: int, device: str) -> Work:
    unary, image = data(key)
    peer = peers.on_one_core(pydensecrf(unary, image, SETTINGS[setting], n_iter))
    options = {**SETTINGS[setting], "n_iter": n_iter}
    host = functools.partial(cv3gpu.dense_crf, unary, image, **options)
    near = on(device, unary, image)
    ours = functools.partial(cv3gpu.dense_crf, *near, **options)
    return _against("pydensecrf, 1 core", peer, host, ours, device, marginal_errors)


# ---- all pairs ------------------------------------------------------------------------------------------


def over_pairs(features: Any, values: Any, rows: Any = slice(None)) -> Any:
    """``K values`` [rows, C] of features [N, D] in torch: all pairs, a block of the matrix at a time."""
    torch = pytest.importorskip("torch")
    high, wide = BLOCK[features.device.type]
    size = -0.5 * (features**2).sum(1)
    out = torch.zeros((len(features[rows]), values.shape[1]), dtype=values.dtype, device=values.device)
    for part, own, total in zip(features[rows].split(high), size[rows].split(high), out.split(high), strict=True):
        for others, their, v in zip(features.split(wide), size.split(wide), values.split(wide), strict=True):
            total += torch.addmm(their[None], part, others.T).add_(own[:, None]).exp_() @ v
    return out


def features_of(image: np.ndarray, setting: dict[str, float], device: str) -> tuple[Any, Any]:
    """Of both kernels [N, D], float64 in torch."""
    torch = pytest.importorskip("torch")
    y, x = np.indices(image.shape[:2]).reshape(2, -1)
    place = np.stack([x, y], axis=1)
    colour = image.reshape(len(place), -1) / setting["theta_beta"]
    both = place / setting["theta_gamma"], np.concatenate([place / setting["theta_alpha"], colour], axis=1)
    return tuple(torch.from_numpy(f).to(device) for f in both)  # type: ignore[return-value]


def by_brute_force(
    unary: Any, features: tuple[Any, Any], setting: dict[str, float], before: Any, rows: Any = slice(None)
) -> Any:
    """Marginals [rows, L] an iteration after ``before`` [N, L], averages over all pairs; torch, on any device."""
    torch = pytest.importorskip("torch")
    logits = -unary[rows]
    ones = torch.ones_like(before[:, :1])
    for of_one, name in zip(features, WEIGHTS, strict=True):
        sums = over_pairs(of_one, torch.cat([before, ones], 1), rows)
        logits += setting[name] * sums[:, :-1] / sums[:, -1:]
    return torch.softmax(logits, 1)


def sampled_errors(reference: np.ndarray, rows: np.ndarray, fine: bool, got: Any) -> Errors:
    """Errors of some pixels; of the fine lattice, which approximates, the share of labels that differ."""
    got = _host(got)
    there = got.reshape(len(got), -1)[:, rows]
    if not fine:
        return dense_errors(reference, there)
    share = float((there.argmax(0) != reference.argmax(0)).mean())
    return Errors(share, share) if share <= SWAPPED and np.isfinite(got).all() else WRONG


def _pairs(key: str, setting: str, method: str, device: str) -> Work:
    """The whole, and an iteration alone. The last iteration is done once more by brute force.

    Normalised afterwards, so that a pixel's own row is all that its reference needs.
    """
    torch = pytest.importorskip("torch")
    unary, image = data(key)
    how = {"method": method, "normalization": "after"}
    near = on(device, unary, image)
    before = cv3gpu.dense_crf(*near, **SETTINGS[setting], **how, n_iter=ITERATIONS - 1)
    rows = np.sort(np.random.default_rng(0).choice(image.shape[0] * image.shape[1], SAMPLES, replace=False))
    flat = [torch.from_numpy(_host(x).reshape(len(x), -1).T.copy()).to(device) for x in (unary, before)]
    features = features_of(image, SETTINGS[setting], device)
    wide = [x.double() for x in flat]
    chosen = torch.from_numpy(rows).to(device)
    reference = by_brute_force(wide[0], features, SETTINGS[setting], wide[1], chosen).T.cpu().numpy()
    _, _, field = operators._field("dense_crf", *near, SETTINGS[setting], *how.values())
    for _ in range(ITERATIONS - 1):
        field.step()

    def iteration() -> Any:
        field.step()
        return field.q[0]

    def by_blocks() -> tuple[np.ndarray, float]:
        torch.cuda.synchronize()
        started = time.perf_counter()
        q = by_brute_force(flat[0], tuple(f.float() for f in features), SETTINGS[setting], flat[1])
        torch.cuda.synchronize()
        return q.T.cpu().numpy(), time.perf_counter() - started

    fine = method == "lattice_fine"
    found = Work(
        ours=lambda: cv3gpu.dense_crf(*near, **SETTINGS[setting], **how, n_iter=ITERATIONS),
        errors=functools.partial(sampled_errors, reference, rows, fine),
        peers={"ours an iteration of it": iteration},
    )
    if fine:
        found.limits = dict.fromkeys(("ours", "ours an iteration of it"), "other rules")
    else:
        found.facts["kept pairs, %"] = round(100 * field.kernels[1].filter.kept, 1)
        if device == "cuda":
            name = "torch, blocks of all pairs, one iteration, once"
            found.once[name], found.limits[name] = by_blocks, "other rules"  # distances by a product round more
    return found


# ---- gradients ------------------------------------------------------------------------------------------

SLOPES = ("unary", *WEIGHTS)  # those without kinks


def slope_errors(unary_way: np.ndarray, reference: dict[str, float], got: Any) -> Errors:
    """How far the slopes of the loss along a way, and along the weights, are off; widths and image must be finite."""
    found = {name: float(_host(getattr(got, name))) for name in WEIGHTS}
    found["unary"] = float((_host(got.unary).astype(np.float64) * unary_way).sum())
    off = np.array([abs(found[name] - reference[name]) / abs(reference[name]) for name in SLOPES])
    if not all(np.isfinite(_host(x)).all() for x in got):
        return WRONG
    return Errors(float(np.sqrt((off**2).mean())), float(off.max()))


def _gradient(key: str, setting: str, device: str) -> Work:
    """Slopes of the operator in float64 by central differences; colours between the integers keep pixels off ties."""
    unary, picture = data(key)
    rng = np.random.default_rng(1)
    image = (picture + rng.uniform(-0.5, 0.5, picture.shape)).astype(np.float32)
    grad = rng.standard_normal(unary.shape).astype(np.float32)
    options: dict[str, Any] = {**SETTINGS[setting], "n_iter": ITERATIONS}
    wide = on(device, *(x.astype(np.float64) for x in (grad, unary, image)))
    way = cv3gpu.dense_crf_vjp(*wide, **options, needs=(True,) + (False,) * 6).unary
    way = way / abs(way).max()

    def loss(unary_step: float = 0.0, **changed: float) -> float:
        q = cv3gpu.dense_crf(wide[1] + unary_step * way, wide[2], **{**options, **changed})
        return float((wide[0] * q).sum())

    step = 1e-5
    reference = {"unary": (loss(step) - loss(-step)) / (2 * step)}
    for name in WEIGHTS:
        up, down = (loss(**{name: options[name] + s}) for s in (step, -step))
        reference[name] = (up - down) / (2 * step)
    near = on(device, grad, unary, image)
    host = functools.partial(cv3gpu.dense_crf_vjp, grad, unary, image, **options)
    errors = functools.partial(slope_errors, _host(way), reference)
    if device == "cpu":
        return Work(ours=peers.on_one_core(host), errors=errors, peers={"ours on all cores": host})  # type: ignore[arg-type]
    return Work(ours=lambda: cv3gpu.dense_crf_vjp(*near, **options), errors=errors)


# ---- the filter on points -------------------------------------------------------------------------------

POINTS = 196_608  # as WarpConvNet's own bench has them
CHANNELS = 3
WIDTHS = {5: (16, 16, 12, 12, 12), 8: (64, 64, 48, 48, 48, 48, 48, 48)}


@functools.lru_cache(maxsize=2)
def points(features: int) -> tuple[np.ndarray, np.ndarray]:
    """Values [3, N], which sum to one at each point, and features [D, N]: places and colours at random."""
    rng = np.random.default_rng(0)
    sizes = np.array([512, 512] + [256] * (features - 2))[:, None]
    place = rng.random((features, POINTS)) * sizes / np.array(WIDTHS[features])[:, None]
    values = rng.dirichlet(np.ones(CHANNELS), POINTS).T
    return np.ascontiguousarray(values, np.float32), place.astype(np.float32)


def pydensecrf_filter(values: np.ndarray, features: np.ndarray) -> Way:
    """The average of values that sum to one as pydensecrf has it: the message of one iteration."""
    unary = np.ascontiguousarray(-np.log(np.maximum(values, 1e-30)))

    def make(module: Any) -> Way:
        def way() -> Any:
            crf = module.DenseCRF(values.shape[1], len(values))
            crf.setUnaryEnergy(unary)
            crf.addPairwiseEnergy(features, compat=1.0, normalization=module.NORMALIZE_AFTER)
            message = np.log(np.array(crf.inference(1), np.float32)) + unary
            return message + ((1 - message.sum(0)) / len(values))

        return way

    return peers.need("pydensecrf.densecrf", make)


def warpconvnet_filter(values: Any, features: Any) -> Way:
    """WarpConvNet's average on a lattice; its features have at most six dimensions."""
    if len(features) > 6:
        return "takes at most 6 features"
    v, f = values.T.contiguous(), features.T.contiguous()
    name = "warpconvnet.nn.functional.permutohedral"
    return peers.need(name, lambda m: lambda: m.permutohedral_filter(f, v, sigma=1.0).T)


def _filter(features: int, device: str) -> Work:
    values, place = points(features)
    peer = peers.on_one_core(pydensecrf_filter(values, place))
    host = functools.partial(cv3gpu.gaussian_filter, values, place, normalization="after")
    near = on(device, values, place)

    def errors(reference: np.ndarray, got: Any) -> Errors:
        return dense_errors(reference, _host(got))

    ours = functools.partial(cv3gpu.gaussian_filter, *near, normalization="after")
    work = _against("pydensecrf, an iteration, 1 core", peer, host, ours, device, errors)
    if device == "cuda":
        work.peers["WarpConvNet (other lattice)"] = warpconvnet_filter(*near)
        work.limits["WarpConvNet (other lattice)"] = "other rules"
    return work


# ---- entries --------------------------------------------------------------------------------------------


def traffic(scene: Scene, n_iter: int, passes: int = 1) -> tuple[int, int]:
    """Bytes and flops of iterations on lattices of 2 and 5 dimensions; gradients are worth five passes.

    Forth once more, and of each iteration the filter, its transpose, and both again for widths and image.
    """
    entries = 3 + 6
    return (
        passes * n_iter * scene.pixels * (3 * 4 * scene.labels + 8 * entries),
        passes * n_iter * scene.pixels * 2 * 2 * entries * scene.labels,
    )


def _entry(
    name: str, shape: str, size: tuple[int, int], setup: Callable[[], Work], device: str, priority: int = 1
) -> Entry:
    return Entry(
        name=f"{name} float32 {device}", family="crf", shape=shape, device=device, dtype="float32", bytes=size[0],
        flops=size[1], setup=setup, priority=priority,
    )  # fmt: skip


def _lattice_entry(key: str, setting: str, n_iter: int, device: str, priority: int = 1) -> Entry:
    scene = SCENES[key]
    setup = functools.partial(_lattice, key, setting, n_iter, device)
    name = f"dense_crf lattice {scene} {setting} {n_iter} iterations"
    return _entry(name, scene.photograph, traffic(scene, n_iter), setup, device, priority)


def _pairs_entry(key: str, setting: str, method: str, device: str, priority: int = 1) -> Entry:
    scene = SCENES[key]
    size = traffic(scene, ITERATIONS)
    if method == "exact":
        flops = ITERATIONS * KEPT[key, setting] * scene.pixels**2 * (2 * (5 + scene.labels) + 8)
        size = ITERATIONS * scene.pixels * 3 * 4 * scene.labels, int(flops)
    setup = functools.partial(_pairs, key, setting, method, device)
    name = f"dense_crf {method} {scene} {setting} {ITERATIONS} iterations"
    return _entry(name, scene.photograph, size, setup, device, priority)


def _gradient_entry(key: str, setting: str, device: str) -> Entry:
    scene = SCENES[key]
    setup = functools.partial(_gradient, key, setting, device)
    name = f"dense_crf_vjp lattice {scene} {setting} {ITERATIONS} iterations"
    return _entry(name, f"{scene.photograph}, every gradient", traffic(scene, ITERATIONS, 5), setup, device)


def _filter_entry(features: int, device: str) -> Entry:
    size = POINTS * (4 * (features + 2 * CHANNELS) + 8 * (features + 1)), POINTS * 4 * (features + 1) * CHANNELS
    shape = f"{POINTS:,} points at random, {CHANNELS} channels"
    setup = functools.partial(_filter, features, device)
    return _entry(f"gaussian_filter lattice {features} features", shape, size, setup, device)


ENTRIES = [
    entry
    for device, key in (("cuda", "512"), ("cpu", "320"))
    for entry in (
        *(_lattice_entry("512", setting, n, device, 0) for setting in SETTINGS for n in (5, 10)),
        *(_lattice_entry("320", setting, 5, device) for setting in SETTINGS),
        _lattice_entry("batch", "80/13", 5, device, 0),
        _lattice_entry("512, 150 labels" if device == "cuda" else "150 labels", "80/13", 5, device),
        *(_pairs_entry(key, setting, "lattice_fine", device, 0) for setting in SETTINGS),
        *(_pairs_entry(key, setting, "exact", device, 0) for setting in SETTINGS),
        _gradient_entry(key, "80/13", device),
        *(_filter_entry(features, device) for features in WIDTHS),
    )
]


@pytest.mark.parametrize("entry", ENTRIES, ids=str)
def bench_crf(entry: Entry, measure: Any) -> None:
    measure(entry)
