"""Graph cuts of made images: against PyMaxflow, which is Boykov and Kolmogorov's own program.

An image is a few blobs in front of a shaded background, both with noise. Edges are those of Boykov and Jolly, 1000
lambda exp(-d^2 / 2 sigma^2) / distance; region terms are -1000 log of how often a grey value is found among the seeds;
seeds are discs inside of the largest blob and of the background. All in int32.

PyMaxflow has one thread, so on a CPU ours has one core as well, and a batch stands a second time with all of them. Its
time is that of the whole: a graph whose memory is reserved, edges by whole planes, terminals, flow, and labels.
A result counts if flow and labels are PyMaxflow's (or ours on the CPU where there is none); of several minimum cuts
its is the one with the most 1s.

``bytes`` of an entry are those of the capacities, read once, and of the labels.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest

import cv3gpu

from . import peers
from .entry import Entry, Errors, Way, Work

WRONG = Errors(float("inf"), float("inf"))
SCALE = 1000
SIGMA = 0.08  # of the contrast in an edge
BINS = 32
STEPS = {
    4: ((0, 1), (1, 0)),
    8: ((0, 1), (1, 0), (1, 1), (1, -1)),
    6: ((0, 0, 1), (0, 1, 0), (1, 0, 0)),
}


class Scene(NamedTuple):
    """An image, its neighbourhood, the weight of edges, and whether the seeds are all that is known."""

    shape: tuple[int, ...]
    neighbors: int
    lam: float
    region: bool
    batch: int = 0  # 0: no batch

    def __str__(self) -> str:
        count = f"{self.batch} x " if self.batch else ""
        terms = "regions and seeds" if self.region else "seeds only"
        return f"{count}{'x'.join(map(str, self.shape[::-1]))}, {self.neighbors} neighbours, {terms}"


SCENES = {
    "512": Scene((512, 512), 4, 5.0, True),
    "512, 8": Scene((512, 512), 8, 10.0, True),
    "1024": Scene((1024, 1024), 4, 5.0, True),
    "1024, 8": Scene((1024, 1024), 8, 10.0, True),
    "512 seeds": Scene((512, 512), 4, 20.0, False),
    "1024 seeds": Scene((1024, 1024), 4, 20.0, False),
    "512 seeds, 8": Scene((512, 512), 8, 20.0, False),
    "batch": Scene((256, 256), 8, 10.0, True, batch=16),
    "volume": Scene((96, 96, 96), 6, 5.0, True),
}

# ---- problems -------------------------------------------------------------------------------------------


class Problem(NamedTuple):
    """Arguments of ``graph_cut``."""

    source: np.ndarray
    sink: np.ndarray
    neighbor: np.ndarray
    offsets: tuple[tuple[int, ...], ...]


def picture(shape: tuple[int, ...], seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Grey values in 0-1, and where the blobs are."""
    from scipy import ndimage

    rng = np.random.default_rng(seed)
    smooth = [ndimage.gaussian_filter(rng.standard_normal(shape), max(shape) / part) for part in (12, 6, 90)]
    field, shade, texture = (x / x.std() for x in smooth)
    blobs = field > 0.5
    image = np.where(blobs, 0.62, 0.4) + 0.05 * shade + 0.04 * texture + 0.03 * rng.standard_normal(shape)
    return np.clip(image, 0, 1), blobs


def _disc(inside: np.ndarray) -> np.ndarray:
    """A disc around the pixel farthest from all others, half as wide as there is room."""
    from scipy import ndimage

    room = ndimage.distance_transform_edt(inside)
    center = np.unravel_index(room.argmax(), room.shape)
    places = np.indices(inside.shape, sparse=True)
    away = sum((x - c) ** 2 for x, c in zip(places, center, strict=True))
    return np.asarray(away <= (room.max() / 2) ** 2)


def problem_of(shape: tuple[int, ...], steps: tuple[tuple[int, ...], ...], lam: float, region: bool,
               seed: int) -> Problem:  # fmt: skip
    """Boykov and Jolly's energy of one image."""
    image, blobs = picture(shape, seed)
    seeds = [_disc(blobs), _disc(~blobs)]
    offsets = tuple(tuple(sign * o for o in step) for step in steps for sign in (1, -1))
    neighbor = np.zeros((len(offsets), *shape), np.int32)
    for k, offset in enumerate(offsets):
        begin = tuple(slice(max(0, -o), n - max(0, o)) for o, n in zip(offset, shape, strict=True))
        end = tuple(slice(max(0, o), n - max(0, -o)) for o, n in zip(offset, shape, strict=True))
        weight = np.exp(-((image[begin] - image[end]) ** 2) / (2 * SIGMA**2)) / np.linalg.norm(offset)
        neighbor[(k, *begin)] = np.rint(SCALE * lam * weight)
    hard = int(neighbor.sum(0).max()) + 1
    terminals = []
    for mine, other in (seeds[::-1], seeds):
        cost = np.zeros(shape, np.int32)
        if region:
            count = np.bincount((image[mine] * (BINS - 1)).astype(int), minlength=BINS) + 1.0
            cost[:] = np.rint(-SCALE * np.log(count / count.sum()))[(image * (BINS - 1)).astype(int)]
        cost[other] += hard  # a seed pays if it gets the other label
        terminals.append(cost)
    return Problem(terminals[0], terminals[1], neighbor, offsets)


@functools.lru_cache(maxsize=2)
def data(key: str) -> Problem:
    """The problem of a scene."""
    pytest.importorskip("scipy")
    scene = SCENES[key]
    make = functools.partial(problem_of, scene.shape, STEPS[scene.neighbors], scene.lam, scene.region)
    if not scene.batch:
        return make(0)
    found = [make(seed) for seed in range(scene.batch)]
    return Problem(*(np.stack(x) for x in list(zip(*found, strict=True))[:3]), found[0].offsets)  # type: ignore[arg-type]


# ---- PyMaxflow ------------------------------------------------------------------------------------------


def pymaxflow(problem: Problem) -> Way:
    """Labels and flow of each image, from capacities to labels."""

    def make(module: Any) -> Way:
        dims = len(problem.offsets[0])
        own = (dims, dims, dims + 1)  # dimensions of one image
        images = [x.reshape(-1, *x.shape[x.ndim - n :]) for x, n in zip(problem[:3], own, strict=True)]
        structures = []
        for offset in problem.offsets[::2]:
            structure = np.zeros((3,) * dims, int)
            structure[tuple(1 + o for o in offset)] = 1
            structures.append(structure)

        def way() -> tuple[np.ndarray, np.ndarray]:
            labels, flows = [], []
            for source, sink, neighbor in zip(*images, strict=True):
                graph = module.GraphInt(source.size, source.size * len(structures))
                nodes = graph.add_grid_nodes(source.shape)
                for structure, weights in zip(structures, neighbor[::2], strict=True):
                    graph.add_grid_edges(nodes, weights, structure=structure, symmetric=True)
                graph.add_grid_tedges(nodes, source, sink)
                flows.append(graph.maxflow())
                labels.append(~graph.get_grid_segments(nodes))
            return np.stack(labels).reshape(problem.source.shape), np.array(flows)

        return way

    return peers.need("maxflow", make)


def _host(x: Any) -> np.ndarray:
    return x.cpu().numpy() if hasattr(x, "cpu") else np.asarray(x)


def cut_errors(wanted: tuple[Any, Any], got: tuple[Any, Any]) -> Errors:
    """Zero where flow and labels are those wanted."""
    labels, flow = (_host(x).astype(np.int64) for x in got)
    same = labels.shape == wanted[0].shape and np.array_equal(labels, wanted[0])
    return Errors(0.0, 0.0) if same and np.array_equal(flow.ravel(), np.ravel(wanted[1])) else WRONG


# ---- entries --------------------------------------------------------------------------------------------


def _setup(key: str, device: str) -> Work:
    problem = data(key)
    arrays = problem[:3]
    peer = peers.on_one_core(pymaxflow(problem))
    host = functools.partial(cv3gpu.graph_cut, *arrays, offsets=problem.offsets, minimal=False)
    wanted = host() if isinstance(peer, str) else peer()
    errors = functools.partial(cut_errors, (wanted[0].astype(np.int64), wanted[1]))
    if device == "cpu":
        found = Work(ours=peers.on_one_core(host), errors=errors, peers={"PyMaxflow, 1 core": peer})  # type: ignore[arg-type]
        if SCENES[key].batch:
            found.peers["ours on all cores"] = host
        return found
    torch = pytest.importorskip("torch")
    near = [torch.from_numpy(x).cuda() for x in arrays]
    ours: Callable[[], Any] = functools.partial(cv3gpu.graph_cut, *near, offsets=problem.offsets, minimal=False)
    return Work(ours=ours, errors=errors, host_peers={"PyMaxflow, 1 core": peer, "ours on the CPU": host})


def _entry(key: str, device: str) -> Entry:
    scene = SCENES[key]
    pixels = max(scene.batch, 1) * int(np.prod(scene.shape))
    return Entry(
        name=f"graph_cut {scene} int32 {device}",
        family="graphcut",
        shape=f"lambda {scene.lam:g}",
        device=device,
        dtype="float64",  # the limits of exact results
        bytes=pixels * (4 * (2 + scene.neighbors) + 1),
        flops=0,
        setup=functools.partial(_setup, key, device),
        priority=0,
    )


ENTRIES = [_entry(key, device) for device in ("cuda", "cpu") for key in SCENES]


@pytest.mark.parametrize("entry", ENTRIES, ids=str)
def bench_graphcut(entry: Entry, measure: Any) -> None:
    measure(entry)
