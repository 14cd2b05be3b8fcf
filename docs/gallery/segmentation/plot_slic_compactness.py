r"""SLIC: place against colour
=============================

SLIC is k-means over colour and place, and compactness is the exchange rate between them. Low, and superpixels follow
every edge with ragged borders; high, and they become tiles that pay edges no heed.
"""

# %%
# One photograph at four values of compactness. Colour counts in units of Lab, place in units of a superpixel's side S:
#
# .. math:: d^2 = |c_p - c_k|^2 + (\text{compactness} / S)^2\, |x_p - x_k|^2
import numpy as np
from matplotlib.figure import Figure
from skimage.color import rgb2lab
from skimage.data import astronaut
from skimage.measure import label, regionprops

import cv3gpu
from cv3gpu import viz

image = astronaut()[:320:2, 100:420:2]
sweep = (1.0, 5.0, 20.0, 100.0)
found = {c: cv3gpu.slic(image, n_segments=150, compactness=c) for c in sweep}
panels = [viz.boundaries(image, found[c]) / 255 for c in sweep]
figure = viz.image_grid([panels], columns=[f"compactness {c:g}" for c in sweep], size=2.5)

# %%
# What is gained and what is lost. The share of the colours' variance that the superpixels' means explain falls; how
# near superpixels are to circles, :math:`4 \pi\, \text{area} / \text{perimeter}^2`, rises.
lab = rgb2lab(image)


def explained(labels):
    """Share of the variance of Lab colours that lies between superpixels."""
    count = np.bincount(labels.ravel())
    means = np.stack([np.bincount(labels.ravel(), channel.ravel()) / count for channel in np.moveaxis(lab, 2, 0)], 1)
    return 1 - np.square(lab - means[labels]).sum() / np.square(lab - lab.mean((0, 1))).sum()


def roundness(labels):
    """Mean of 4 π area / perimeter² over pixels."""
    parts = [(p.area, p.perimeter) for p in regionprops(labels + 1) if p.perimeter > 0]
    area, perimeter = np.array(parts).T
    return np.average(np.minimum(4 * np.pi * area / perimeter**2, 1), weights=area)


variance, shape = [explained(found[c]) for c in sweep], [roundness(found[c]) for c in sweep]
assert np.all(np.diff(variance) < 0) and np.all(np.diff(shape) > 0), "one is paid for with the other"

curves = Figure(figsize=(5.6, 3.4), layout="constrained")
axis = curves.subplots()
axis.plot(sweep, variance, "o-", color=viz.COLOURS[0], label="variance of colour explained")
axis.plot(sweep, shape, "s--", color=viz.COLOURS[1], label="roundness")
axis.set(xscale="log", xlabel="compactness", ylim=(0, 1), title="Colour is paid for with shape")
axis.set_xticks(sweep, [f"{c:g}" for c in sweep])
axis.minorticks_off()
axis.legend(frameon=False)
axis.grid(color="#E5E5E5", lw=0.6)

# %%
# Whatever the exchange rate, every superpixel is one connected piece, numbers have no gaps, and there are about as many
# as were asked for.
for labels in found.values():
    n = labels.max() + 1
    assert np.array_equal(np.unique(labels), np.arange(n))
    assert label(labels + 1, connectivity=1).max() == n
    print(n, end=" superpixels; ")
    assert 110 <= n <= 190
