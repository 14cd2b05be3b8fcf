r"""Normalised cuts of superpixels
=================================

A graph of some hundred superpixels instead of all pixels makes normalised cuts cheap and lets them reach far. SLIC cuts
the photograph into compact regions; adjacent ones are joined by the likeness of their mean colours; the cut is made on
that small graph and painted back.
"""

# %%
# scikit-image has the same way of working, so that both can be compared on the same superpixels and the same weights,
# :math:`w_{ij} = e^{-|m_i - m_j|^2 / 255}` of mean colours from 0 to 255.
import numpy as np
from skimage import graph
from skimage.data import coffee

import cv3gpu
from cv3gpu import viz

image = coffee()[::2, ::2]
superpixels = cv3gpu.slic(image, n_segments=250, compactness=20)
regions = superpixels.max() + 1

affinity = cv3gpu.region_affinity(image.astype(np.float64), superpixels, sigma=255.0)
peer = graph.rag_mean_color(image, superpixels, mode="similarity", sigma=255.0)
weights = np.eye(regions)
for i, j, edge in peer.edges(data=True):
    weights[i, j] = weights[j, i] = edge["weight"]
np.testing.assert_allclose(affinity.toarray(), weights, atol=1e-9)

# %%
# scikit-image cuts until no cut is below a threshold, and tries ten thresholds of each eigenvector. We are asked for as
# many segments as it found, and try all.
theirs = graph.cut_normalized(superpixels, peer, thresh=0.02, rng=0)
theirs = np.unique(theirs, return_inverse=True)[1].reshape(superpixels.shape)
n_segments = int(theirs.max()) + 1
ours = cv3gpu.normalized_cut(None, affinity=affinity, superpixels=superpixels, n_segments=n_segments)


def value(labels):
    """The normalised cut of a labelling of pixels, on the graph of superpixels."""
    first = np.unique(superpixels, return_index=True)[1]
    return cv3gpu.ncut_value(affinity, labels.ravel()[first])


print(f"{regions} superpixels, {n_segments} segments: ours {ours.ncut:.3f}, scikit-image {value(theirs):.3f}")
assert abs(value(ours.labels) - ours.ncut) < 1e-12
assert ours.ncut <= value(theirs) + 1e-12, "the cut is at least as good"
for region in range(regions):
    assert np.ptp(ours.labels[superpixels == region]) == 0, "no superpixel is divided"

# %%
# The photograph, its superpixels, and segments in their mean colours.
figure = viz.image_grid(
    [
        [viz.boundaries(image, superpixels) / 255, viz.mean_colours(image, superpixels) / 255],
        [viz.boundaries(image, ours.labels) / 255, viz.mean_colours(image, ours.labels) / 255],
    ],
    columns=["boundaries", "mean colours"],
    rows=[f"{regions} superpixels", f"{n_segments} segments"],
    size=4.2,
)
