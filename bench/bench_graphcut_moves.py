"""Alpha-expansion and swap on photographs and on a stereo pair, against gco.

Unaries of photographs are those of a coarse classifier (see bench_crf), edges Potts' with contrast. The stereo pair is
made here: a texture seen from two places, truncated absolute differences, truncated linear edges. All is in whole
numbers.

gco has one thread, so on a CPU ours has one core as well and stands a second time with all of them. Ours expands with
the fusion of two first cycles, which gco does not have, and once more without it. A labelling counts as right if its
energy is at most 1.0001 times gco's, without fusion 1.05 times, as local minima differ.

``bytes`` of an entry are what a move must read and write, times the moves of a cycle: labels, two unaries, weights,
terminals and residuals. ``flops`` are left out.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import numpy as np
import pytest

import cv3gpu

from . import peers
from .bench_crf import noisy_unaries, on
from .entry import Entry, Errors, Way, Work

MOST = 1e-4  # that an energy may be above gco's, as a share of it
ALONE = "ours without fusion"
OFFSETS = ((1, 0), (0, 1))


class Scene(NamedTuple):
    """A photograph, or stereo where there is none, and its labels."""

    photograph: str
    height: int
    width: int
    labels: int

    def __str__(self) -> str:
        return f"{self.photograph or 'stereo'} {self.width}x{self.height}, {self.labels} labels"


SCENES = (
    Scene("coffee", 213, 320, 5),
    Scene("coffee", 213, 320, 21),
    Scene("astronaut", 512, 512, 10),
    Scene("", 240, 360, 24),
)


class Problem(NamedTuple):
    """What the operators take: unary [L, H, W], pairwise [L, L], edge weights [2, H, W], all int32."""

    unary: np.ndarray
    pairwise: np.ndarray
    weights: np.ndarray


def _photograph(scene: Scene) -> Problem:
    data = pytest.importorskip("skimage.data")
    image = getattr(data, scene.photograph)()[: scene.height, : scene.width].astype(np.float64)
    weights = np.zeros((2, scene.height, scene.width))
    for k, axis in enumerate((0, 1)):
        square = (np.diff(image, axis=axis) ** 2).sum(-1)
        weights[k][tuple(slice(n) for n in square.shape)] = np.exp(-square / (2 * square.mean()))
    unary = 100 * noisy_unaries(image.astype(np.uint8), scene.labels, 0)
    potts = 1 - np.eye(scene.labels)
    return Problem(*(np.rint(x).astype(np.int32) for x in (unary, potts, 150 * weights)))


def _stereo(scene: Scene) -> Problem:
    """Steps and a slope of disparities; grey values 0 to 255 with noise."""
    from scipy import ndimage

    rng = np.random.default_rng(0)
    texture = ndimage.gaussian_filter(rng.standard_normal((scene.height, scene.width + scene.labels)), 1.2)
    texture = 255 * (texture - texture.min()) / np.ptp(texture)
    rows, cols = np.mgrid[: scene.height, : scene.width]
    far = (scene.labels - 1) * (0.15 + 0.25 * rows / scene.height)
    depth = np.where(abs(cols - 0.3 * scene.width) + abs(rows - 0.5 * scene.height) < 0.3 * scene.height,
                     0.6 * scene.labels, far)  # fmt: skip
    depth = np.where((cols > 0.6 * scene.width) & (rows > 0.3 * scene.height), 0.9 * (scene.labels - 1), depth)
    right = np.take_along_axis(texture, cols + np.rint(depth).astype(int), 1) + 4 * rng.standard_normal(depth.shape)
    shifted = np.stack([texture[:, d : d + scene.width] for d in range(scene.labels)])
    unary = np.minimum(abs(shifted - right), 40)
    pairwise = np.minimum(abs(np.subtract.outer(np.arange(scene.labels), np.arange(scene.labels))), 2)
    weights = np.full((2, scene.height, scene.width), 8)
    return Problem(*(np.rint(x).astype(np.int32) for x in (unary, pairwise, weights)))


@functools.lru_cache(maxsize=2)
def problem(scene: Scene) -> Problem:
    """The problem of a scene."""
    return _photograph(scene) if scene.photograph else _stereo(scene)


def energy(given: Problem, labels: np.ndarray) -> int:
    """E of labels [H, W]."""
    unary, pairwise, weights = (x.astype(np.int64) for x in given)
    total = np.take_along_axis(unary, labels[None], 0).sum()
    total += (weights[0, :-1] * pairwise[labels[:-1], labels[1:]]).sum()
    return int(total + (weights[1, :, :-1] * pairwise[labels[:, :-1], labels[:, 1:]]).sum())


def gco(given: Problem, algorithm: str) -> Way:
    """The same moves by gco, until they end."""
    unary = np.ascontiguousarray(given.unary.transpose(1, 2, 0))
    down, right = (np.ascontiguousarray(x) for x in (given.weights[0, :-1], given.weights[1, :, :-1]))

    def make(module: Any) -> Way:
        return lambda: module.cut_grid_graph(unary, given.pairwise, down, right, n_iter=-1, algorithm=algorithm)

    return peers.need("gco", make)


def excess(given: Problem, reference: int, got: Any) -> Errors:
    """How far the energy of labels is above a reference, as a share of it; 0 where that is at most MOST."""
    host = got.cpu().numpy() if hasattr(got, "cpu") else np.asarray(got)
    over = energy(given, host.reshape(given.unary.shape[1:]).astype(np.int64)) / reference - 1
    return Errors(over, over) if over > MOST else Errors(0.0, 0.0)


def _setup(scene: Scene, swap: bool, device: str) -> Work:
    given = problem(scene)
    operator = cv3gpu.alpha_beta_swap if swap else cv3gpu.alpha_expansion
    near = on(device, *given)

    def way(fuse: bool) -> Any:
        return operator(*near, offsets=OFFSETS, max_iter=100, fuse=fuse).labels

    peer = gco(given, "swap" if swap else "expansion")
    ours, alone = (functools.partial(way, fuse) for fuse in (not swap, False))
    first = np.asarray((alone if isinstance(peer, str) else peer)())
    reference = energy(given, first.reshape(scene.height, scene.width).astype(np.int64))
    work = Work(ours=ours, errors=functools.partial(excess, given, reference), limits={ALONE: "other rules"})
    if device == "cuda":
        work.peers, work.host_peers = {ALONE: alone}, {"gco, 1 core": peers.on_one_core(peer)}
    else:
        work.ours = peers.on_one_core(ours)  # type: ignore[assignment]
        work.peers = {
            "gco, 1 core": peers.on_one_core(peer),
            ALONE: peers.on_one_core(alone),
            "ours on all cores": ours,
        }
    return work


def _entry(scene: Scene, swap: bool, device: str) -> Entry:
    name = "alpha_beta_swap" if swap else "alpha_expansion"
    moves = scene.labels * (scene.labels - 1) // 2 if swap else scene.labels
    return Entry(
        name=f"{name} {scene} {device}",
        family="graphcut",
        shape=str(scene),
        device=device,
        dtype="float64",  # the limits of exact results
        bytes=moves * scene.height * scene.width * (4 + 8 + 2 * 8 + 4 + 4 * 4),
        flops=0,
        setup=functools.partial(_setup, scene, swap, device),
        priority=1 if swap else 0,
    )


ENTRIES = [_entry(scene, swap, device) for device in ("cuda", "cpu") for scene in SCENES for swap in (False, True)
           if not swap or scene.labels < 12]  # fmt: skip


@pytest.mark.parametrize("entry", ENTRIES, ids=str)
def bench_graphcut_moves(entry: Entry, measure: Any) -> None:
    measure(entry)
