r"""Dilated convolutions see far, and may see a grid
===================================================

A dilated 3 x 3 convolution looks at nine pixels that lie *d* apart: layers of them see far at the price of small ones.
But which pixels do they see? Layers of one even dilation never leave a grid: three quarters of what they span is not
looked at. Other dilations fill the holes.
"""

# %%
# How often does each pixel count for one result? Convolutions of ones tell: the image of a single bright pixel under
# three layers. In one dimension it is the product of the polynomials :math:`1 + z^d + z^{2d}`.
import functools

import numpy as np
import torch
from matplotlib.figure import Figure
from skimage.data import camera
from skimage.transform import downscale_local_mean

import cv3gpu
from cv3gpu import viz

ones = np.ones((1, 1, 3, 3))
stacks = {"1, 1, 1": (1, 1, 1), "2, 2, 2": (2, 2, 2), "1, 2, 3": (1, 2, 3), "1, 2, 5": (1, 2, 5), "2, 4, 8": (2, 4, 8)}
SIDE = 33
counts, covered = {}, {}
for name, dilations in stacks.items():
    x = np.zeros((1, 1, SIDE, SIDE))
    x[..., SIDE // 2, SIDE // 2] = 1
    for d in dilations:
        x = cv3gpu.conv2d(x, ones, padding=d, dilation=d)
    counts[name] = x[0, 0]

    taps = [np.bincount([0, d, 2 * d]) for d in dilations]
    line = functools.reduce(np.convolve, taps)  # the polynomial
    field = line.size
    inside = np.s_[(SIDE - field) // 2 : (SIDE + field) // 2]
    np.testing.assert_array_equal(counts[name][inside, inside], np.outer(line, line))
    covered[name] = np.mean(line > 0) ** 2

    layers = [torch.nn.Conv2d(1, 1, 3, padding=d, dilation=d) for d in dilations]
    assert cv3gpu.nn.receptive_field(torch.nn.Sequential(*layers)).size == (field, field)
    print(f"dilations {name}: {field} x {field} pixels, {covered[name]:.0%} of them seen")

assert covered["1, 2, 3"] == covered["1, 2, 5"] == 1.0 and covered["2, 2, 2"] == (7 / 13) ** 2

figure = Figure(figsize=(11, 2.7), layout="constrained")
for axis, (name, count) in zip(figure.subplots(1, len(counts)), counts.items(), strict=True):
    axis.imshow(np.where(count > 0, np.sqrt(count), np.nan), cmap="viridis", interpolation="nearest")
    axis.set(xticks=[], yticks=[], facecolor="#E8E8E8")
    axis.set_title(f"dilations {name}\n{covered[name]:.0%} seen", fontsize=10)

# %%
# So with dilations of 2 the network falls into four that know nothing of each other, one for each phase of rows and
# columns. Blacken three quarters of a photograph, and the results at the other quarter do not change.
image = downscale_local_mean(camera(), (4, 4))[None, None] / 255
blackened = np.zeros_like(image)
blackened[..., ::2, ::2] = image[..., ::2, ::2]
rng = np.random.default_rng(2)
weights = [rng.standard_normal((1, 1, 3, 3)) / 3 for _ in range(3)]


def network(x, dilations):
    """Three layers with the same weights."""
    for weight, d in zip(weights, dilations, strict=True):
        x = np.maximum(cv3gpu.conv2d(x, weight, padding=d, dilation=d), 0)
    return x


grid, filled = ([network(x, d)[..., ::2, ::2] for x in (image, blackened)] for d in ((2, 2, 2), (1, 2, 3)))
assert np.array_equal(*grid), "dilations 2, 2, 2 never looked at the black pixels"
assert np.abs(filled[0] - filled[1]).max() > 0.1 * np.abs(filled[0]).max(), "dilations 1, 2, 3 did"

rows = [
    [image[0, 0], blackened[0, 0]],
    *([network(x, d)[0, 0, ::2, ::2] for x in (image, blackened)] for d in ((2, 2, 2), (1, 2, 3))),
]
pictures = viz.image_grid(
    [[row[k] for row in rows] for k in (0, 1)],
    columns=["image", "2, 2, 2: every second result", "1, 2, 3: every second result"],
    rows=["whole", "blackened"],
    size=2.8,
)
