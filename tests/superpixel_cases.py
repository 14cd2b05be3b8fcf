"""SLIC's model in a few lines of NumPy, and images on which all ways must give its labels."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from scipy import ndimage

import cv3gpu
from cv3gpu.superpixel import model

F = np.float32


def crop(image, height, width, k=0):
    """A part of a photograph with something in it."""
    top, left = 40 + 17 * k, 180 + 11 * k
    return np.ascontiguousarray(image[top : top + height, left : left + width])


def clusters_by_numpy(values, plan, mask):
    """Labels [H, W] of whole-numbered colours [H, W, C], -1 outside of the mask."""
    height, width, channels = values.shape
    rows, columns, block = plan.rows, plan.columns, plan.block
    y, x = np.indices((height, width))
    i, j = y * rows // height, np.minimum(((x // block) * block + block // 2) * columns // width, columns - 1)
    labels = i * columns + x * columns // width
    clusters = rows * columns
    mean, place = np.full((clusters, channels), np.inf, F), np.full((clusters, 2), np.inf, F)
    most = np.full(clusters, plan.softness)
    inside = mask if mask is not None else np.ones((height, width), bool)
    seen = inside
    for step, phase, _ in model.schedule(plan):
        count = np.bincount(labels[seen], minlength=clusters)
        there = count > 0
        for values_of, to in ((np.stack([y, x], -1), place), (values, mean)):
            for c in range(to.shape[1]):
                total = np.bincount(labels[seen], values_of[..., c][seen].astype(float), clusters)
                to[there, c] = (total[there] / count[there]).astype(F)
        best, colour = np.full((height, width), np.inf, F), np.zeros((height, width), F)
        for m in range(9):
            k = np.clip(i + m // 3 - 1, 0, rows - 1) * columns + np.clip(j + m % 3 - 1, 0, columns - 1)
            off = np.zeros((height, width), F)
            for c in range(channels):
                off = off + (values[..., c] - mean[k, c]) ** 2
            dy, dx = y.astype(F) - place[k, 0], x.astype(F) - place[k, 1]
            d = (off * (F(1) / most[k]) if plan.zero else off) + (dy * dy + dx * dx) * plan.weight
            less = (d < best) | (m == 0)
            best, colour = np.where(less, d, best), np.where(less, off, colour)
            labels = np.where(less, k, labels)
        seen = inside & (y % step == phase)
        if plan.zero:
            np.maximum.at(most, labels[seen], colour[seen])
    return np.where(inside, labels, -1)


def ordered(labels):
    """Labels in the order of their first pixels, -1 stays."""
    flat = labels.ravel()
    found, first = np.unique(flat[flat >= 0], return_index=True)
    number = np.empty(int(flat.max(initial=-1)) + 2, int)
    number[found[np.argsort(first)]] = np.arange(len(found))
    number[-1] = -1
    return number[labels]


def segments_of(labels):
    """Each connected part of a label by a number, in the order of first pixels."""
    out, count = np.full(labels.shape, -1), 0
    for k in range(labels.max() + 1):
        parts, n = ndimage.label(labels == k)
        out[parts > 0] = parts[parts > 0] + count - 1
        count += n
    return ordered(out)


def merged(segments, values, least):
    """Rounds of small groups joining the adjacent group of the nearest colour; groups by their first pixels."""
    group = segments.copy()
    edges = np.concatenate([np.stack([a.ravel(), b.ravel()]) for a, b in ((segments[:, 1:], segments[:, :-1]), (segments[1:], segments[:-1]))], 1)  # fmt: skip
    near = {s: set() for s in range(segments.max() + 1)}
    for a, b in edges.T.tolist():
        if min(a, b) >= 0 and a != b:
            near[a].add(b)
            near[b].add(a)
    while True:
        size = {g: int((group == g).sum()) for g in near}
        mean = {g: (values[group == g].astype(float).sum(0) / size[g]).astype(F) for g in near}

        def apart(a, b, mean=mean):
            total = F(0)
            for u, v in zip(mean[a], mean[b], strict=True):
                total = total + (u - v) * (u - v)
            return total

        choice = {g: min(near[g], key=lambda t, g=g: (apart(g, t), t)) for g in near if size[g] < least and near[g]}
        if not choice:
            return ordered(group)
        goes = {g: t for g, t in choice.items() if not (choice.get(t) == g and g < t)}
        to = {}
        for g in near:
            to[g] = g
            while to[g] in goes:
                to[g] = goes[to[g]]
        group = np.array([to.get(g, -1) for g in group.ravel().tolist()]).reshape(group.shape)
        joined = {to[g]: set() for g in near}
        for g, others in near.items():
            joined[to[g]] |= {to[t] for t in others} - {to[g]}
        near = joined


def slic_by_numpy(image, n_segments, compactness=10.0, max_iter=10, *, zero=False, mask=None, enforce_connectivity=True,
                  min_size_factor=0.25, subsample=3, start_label=0, convert2lab=False):  # fmt: skip
    """Of an image that is not converted to Lab and whose mask touches all its sides."""
    assert convert2lab is False
    height, width, _ = image.shape
    inside = height * width if mask is None else int(mask.sum())
    plan = model.plan(height, width, inside / (height * width), False, n_segments, compactness, max_iter, subsample, zero,
                      enforce_connectivity, min_size_factor, start_label)  # fmt: skip
    low, scale = model.span(image.astype(F), mask)
    values = np.rint(np.clip((image.astype(F) - low) * scale, F(0), F(1)) * model.UNIT)
    labels = clusters_by_numpy(values, plan, mask)
    if not enforce_connectivity:
        return ordered(labels) + start_label
    return merged(segments_of(labels), values, plan.least) + start_label


class Case(NamedTuple):
    """An image by its shape and kind, and options."""

    shape: tuple[int, int, int]
    n_segments: int
    kind: str = "smooth"
    masked: bool = False
    options: dict[str, Any] = {}


CASES = [
    Case((40, 53, 3), 15, options={"compactness": 0.3}),
    Case((40, 53, 3), 15, options={"zero": True, "compactness": 0.1}),
    Case((40, 53, 1), 15, options={"compactness": 0.2, "subsample": 1}),
    Case((40, 53, 2), 15, options={"compactness": 0.2}),
    Case((40, 53, 5), 15, options={"zero": True, "compactness": 0.2}),
    Case((37, 70, 1), 9, "noise", options={"compactness": 0.05}),
    Case((50, 41, 3), 6, "bytes", options={"compactness": 0.2, "max_iter": 3}),
    Case((50, 41, 3), 6, "steps", options={"compactness": 0.01, "min_size_factor": 0.7}),
    Case((33, 45, 3), 200, options={"compactness": 0.5}),  # cells narrower than a block
    Case((20, 21, 2), 420, "noise", options={"compactness": 0.05}),
    Case((44, 46, 3), 20, options={"compactness": 0.1, "enforce_connectivity": False}),
    Case((44, 46, 3), 20, masked=True, options={"compactness": 0.1, "start_label": 1}),
    Case((44, 46, 1), 20, masked=True, options={"zero": True, "enforce_connectivity": False}),
    Case((1, 90, 3), 9, "noise", options={"compactness": 0.3}),
    Case((90, 1, 3), 9, "noise", options={"compactness": 0.3}),
    Case((70, 80, 3), 4, options={"compactness": 0.1, "min_size_factor": 0.0}),
]


def name(case):
    """A case in words."""
    size = "x".join(map(str, case.shape))
    words = [size, case.kind, f"n{case.n_segments}"] + ["masked"] * case.masked
    return "-".join(words + [f"{key}={value}" for key, value in case.options.items()])


def run(path, image, **options):
    """Labels by a path of conftest's, in NumPy."""
    if options.get("mask") is not None:
        options["mask"] = path.array(options["mask"])
    return path.numpy(cv3gpu.slic(path.array(image), **options))


def build(case):
    """The image of a case, and all options."""
    rng = np.random.default_rng(5)
    image = rng.random(case.shape)
    if case.kind != "noise":
        image = ndimage.gaussian_filter(image, (2, 2, 0))
        image = (image - image.min()) / (image.max() - image.min())
    if case.kind == "bytes":
        image = np.rint(image * 255).astype("uint8")
    if case.kind == "steps":
        image = np.rint(image * 3)
    options = {"n_segments": case.n_segments, "convert2lab": False, **case.options}
    if case.masked:
        mask = ndimage.gaussian_filter(rng.random(case.shape[:2]), 3) > 0.49
        mask[[0, -1], 3] = mask[3, [0, -1]] = True
        options["mask"] = mask
    return image, options
