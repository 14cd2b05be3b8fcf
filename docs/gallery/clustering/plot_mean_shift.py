r"""Mean shift climbs to the modes, and smooths what lies between edges
======================================================================

Mean shift asks for no number of clusters. Every point climbs the density of all points, a step at a time to the mean of
those around it; points that end at one summit are one cluster. Over place and colour of pixels the same climb smooths
an image and keeps its edges.
"""

# %%
# Points from three Gaussians. With the flat kernel of bandwidth *h* a step goes to the mean of all points within *h*:
#
# .. math:: y \leftarrow \frac{1}{|N_h(y)|} \sum_{x_i \in N_h(y)} x_i
import numpy as np
from matplotlib.figure import Figure
from skimage.color import rgb2lab
from skimage.data import coffee
from sklearn.cluster import MeanShift
from sklearn.datasets import make_blobs
from sklearn.metrics import adjusted_rand_score

import cv3gpu
from cv3gpu import viz

summits = np.array([[0.0, 0.0], [3.0, 0.5], [1.2, 2.6]])
points, part = make_blobs(600, centers=summits, cluster_std=0.45, random_state=0)
labels, modes, n_iter = cv3gpu.mean_shift(points, bandwidth=1.0)
gaussian = cv3gpu.mean_shift(points, bandwidth=0.5, kernel="gaussian")
print(f"{len(modes)} modes after at most {n_iter} steps; with a Gaussian kernel {len(gaussian.modes)}")

assert len(modes) == len(gaussian.modes) == 3, "nobody said that there are three"
assert adjusted_rand_score(part, labels) > 0.97
for found in (modes, gaussian.modes):
    assert np.linalg.norm(summits[:, None] - found, axis=2).min(1).max() < 0.25, "summits are where they were put"
peer = MeanShift(bandwidth=1.0).fit(points)
assert adjusted_rand_score(peer.labels_, labels) > 0.99, "scikit-learn's clusters"

# %%
# The ways of some points, drawn one step at a time by the formula above. They end at the modes.
figure = Figure(figsize=(6.4, 5.0), layout="constrained")
axis = figure.subplots()
colours = viz.label_colours(4)[1:] / 255
axis.scatter(*points.T, s=9, c=colours[labels], linewidths=0, alpha=0.6)
for n in range(0, len(points), 25):
    way = [points[n]]
    while len(way) < 2 or np.linalg.norm(way[-1] - way[-2]) > 1e-3:
        way.append(points[np.linalg.norm(points - way[-1], axis=1) <= 1.0].mean(0))
    assert np.linalg.norm(way[-1] - modes[labels[n]]) < 0.5, "less than half a bandwidth: one mode"
    axis.plot(*np.array(way).T, "-", color="#404040", lw=0.8)
axis.plot(*modes.T, "*", ms=17, color="black", mec="white", label="modes")
axis.legend(frameon=False)
axis.set_aspect("equal")
axis.set_title("Points climb to the modes of their density")
axis.tick_params(bottom=False, left=False, labelbottom=False, labelleft=False)

# %%
# The same over (row, column, L, a, b) of each pixel. The filter gives a pixel the colour of the mode it climbs to;
# pixels whose modes are near become regions.
image = coffee()[40:360:2, 120:520:2]
lab = rgb2lab(image)
segments, colours, _ = cv3gpu.mean_shift_segmentation(lab, spatial=8, range=12, min_size=60, tol=1e-2)
panels = [image / 255, viz.boundaries(image, segments) / 255, viz.mean_colours(image, segments) / 255]
pictures = viz.image_grid([panels], columns=["image", f"{len(colours)} regions", "their mean colours"], size=3.4)

# %%
# What filtering is for: neighbours inside a region become alike, and at borders they differ as much as before.
filtered = cv3gpu.mean_shift_filter(lab, spatial=8, range=12, tol=1e-2)
border = segments[:, 1:] != segments[:, :-1]
steps = [np.linalg.norm(np.diff(values, axis=1), axis=2) for values in (lab, filtered)]
(inside_before, inside), (across_before, across) = ([np.median(s[at]) for s in steps] for at in (~border, border))
print(f"median step of colour inside regions: {inside_before:.1f} -> {inside:.2f}")
print(f"at their borders: {across_before:.0f} -> {across:.0f}")
assert inside < 0.1 * inside_before
assert across > 0.9 * across_before
