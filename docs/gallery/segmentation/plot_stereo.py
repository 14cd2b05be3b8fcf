r"""Depth from two photographs by alpha-expansion
================================================

A pixel of the left photograph is found again in the right one, shifted to the left by its disparity: near things move
far. Looking at each pixel alone gives noise wherever colours repeat. An energy that also wants neighbours to agree is
hard to minimise exactly; alpha-expansion gets near by a series of minimum cuts.
"""

# %%
# Middlebury's motorcycle comes with scikit-image, true disparities included. The cost of a label is the difference of
# colours at that shift; a pair of neighbours pays more the more their labels differ, up to a limit, and less where the
# picture has an edge.
import numpy as np
from skimage.data import stereo_motorcycle
from skimage.transform import downscale_local_mean

import cv3gpu
from cv3gpu import viz

SCALE, LABELS = 4, 17
left, right, disparity = stereo_motorcycle()
left, right = (downscale_local_mean(side[:, :740], (SCALE, SCALE, 1)) / 255 for side in (left, right))
disparity = disparity[2::SCALE, 2:740:SCALE] / SCALE
height, width = left.shape[:2]

unary = np.full((LABELS, height, width), 0.3)
for d in range(LABELS):
    difference = np.abs(left[:, d:] - right[:, : width - d]).mean(2)
    unary[d, :, d:] = np.minimum(difference, 0.3)
label = np.arange(LABELS)
pairwise = np.minimum(np.abs(label[:, None] - label), 3) / 3.0
weights = np.zeros((2, height, width))
weights[0, :, :-1] = np.exp(-np.abs(np.diff(left, axis=1)).mean(2) / 0.06)
weights[1, :-1] = np.exp(-np.abs(np.diff(left, axis=0)).mean(2) / 0.06)
weights = 0.12 * np.maximum(weights, 0.1)

# %%
# The cheapest label of each pixel alone is where the descent begins. An expansion of a label lets any set of pixels
# change to it and takes the best set, so one move can repaint half the picture.
start = unary.argmin(0)
found = cv3gpu.alpha_expansion(unary, pairwise, weights, offsets=[(0, 1), (1, 0)])


def energy(labels):
    """E of the labels, from its definition."""
    data = np.take_along_axis(unary, labels[None], 0).sum()
    across = (weights[0, :, :-1] * pairwise[labels[:, :-1], labels[:, 1:]]).sum()
    return data + across + (weights[1, :-1] * pairwise[labels[:-1], labels[1:]]).sum()


def local_minimum(labels):
    """Iterated conditional modes: each pixel takes its best label while its neighbours stand still."""
    labels = labels.copy()
    rows, columns = np.indices(labels.shape)
    for sweep in range(20):
        cost = unary.copy()
        cost[:, :, 1:] += weights[0, :, :-1] * pairwise[:, labels[:, :-1]]
        cost[:, :, :-1] += weights[0, :, :-1] * pairwise[:, labels[:, 1:]]
        cost[:, 1:] += weights[1, :-1] * pairwise[:, labels[:-1]]
        cost[:, :-1] += weights[1, :-1] * pairwise[:, labels[1:]]
        turn = (rows + columns) % 2 == sweep % 2  # a checkerboard, so that no two neighbours move at once
        labels[turn] = cost.argmin(0)[turn]
    return labels


local = local_minimum(start)
known = np.isfinite(disparity)
panels = {"pixels alone": start, "local changes": local, "alpha-expansion": found.labels}
wrong = {name: np.mean(np.abs(labels - disparity)[known] > 1) for name, labels in panels.items()}
for name, labels in panels.items():
    print(f"{name:16s} energy {energy(labels):7.1f}, {wrong[name]:.1%} of the pixels off by more than one")

np.testing.assert_allclose(float(found.energy), energy(found.labels), rtol=1e-9)
assert energy(found.labels) < energy(local) < energy(start)
assert wrong["alpha-expansion"] < 0.6 * wrong["pixels alone"], "the energy knows something of the world"
assert wrong["alpha-expansion"] < wrong["local changes"]

# %%
# No single change of any number of pixels to one label lowers the energy any more: an expansion of each, made as a
# binary problem and solved by an ordinary minimum cut, finds nothing.
again = cv3gpu.alpha_expansion(unary, pairwise, weights, offsets=[(0, 1), (1, 0)], labels=found.labels, fuse=False)
assert np.array_equal(again.labels, found.labels)

shades = {name: labels / (LABELS - 1) for name, labels in panels.items()}
truth = np.where(known, disparity, 0) / (LABELS - 1)
figure = viz.image_grid(
    [[left, truth, shades["pixels alone"]], [right, shades["local changes"], shades["alpha-expansion"]]],
    columns=["", "", ""],
    size=3.3,
)
titles = ("left", "true disparity", "pixels alone", "right", "local changes", "alpha-expansion")
for axis, title in zip(figure.axes, titles, strict=True):
    off = f": {wrong[title]:.0%} wrong" if title in wrong else ""
    axis.set_title(title + off, fontsize=10)
