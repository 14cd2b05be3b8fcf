r"""A photograph in a few colours
================================

Colour quantisation is k-means over pixels: each of *k* centroids is a colour of the palette, and each pixel takes the
nearest. What is minimised, the inertia, is the squared error of the picture, so more colours always pay, and less and
less so.
"""

# %%
# A cat's portrait from scikit-image, and palettes of 2 to 32 colours. Several starts guard against poor local minima.
import numpy as np
from matplotlib.figure import Figure
from skimage.data import chelsea
from skimage.metrics import peak_signal_noise_ratio
from sklearn.cluster import KMeans

import cv3gpu
from cv3gpu import viz

image = chelsea()[::2, ::2]
pixels = image.reshape(-1, 3).astype(np.float32)

sizes = (2, 4, 8, 16, 32)
found = {k: cv3gpu.kmeans(pixels, k, n_init=2, seed=0) for k in sizes}


def painted(result):
    """Each pixel in the colour of its centroid."""
    return np.rint(result.centroids[result.labels]).astype(np.uint8).reshape(image.shape)


shown = [image / 255, *(painted(found[k]) / 255 for k in (2, 4, 8, 16))]
figure = viz.image_grid([shown], columns=["150 x 226 pixels", *(f"{k} colours" for k in (2, 4, 8, 16))], size=2.3)

# %%
# The mean squared error is the inertia over the number of values, up to the rounding of the palette to bytes. The
# signal to noise ratio follows from it, and it grows with every doubling.
ratio = [peak_signal_noise_ratio(image, painted(found[k])) for k in sizes]
expected = [10 * np.log10(255**2 / (float(found[k].inertia) / pixels.size)) for k in sizes]
np.testing.assert_allclose(ratio, expected, atol=0.05)
assert np.all(np.diff(ratio) > 1.0)

curve = Figure(figsize=(5.2, 3.2), layout="constrained")
axis = curve.subplots()
axis.plot(sizes, ratio, "o-", color=viz.COLOURS[0])
axis.set(xscale="log", xlabel="colours", ylabel="peak signal to noise, dB", title="Each doubling pays, less each time")
axis.set_xticks(sizes, [str(k) for k in sizes])
axis.minorticks_off()
axis.grid(color="#E5E5E5", lw=0.6)

# %%
# From one start, Lloyd's iteration has one course: scikit-learn ends at the same palette.
start = pixels[:: len(pixels) // 8][:8].copy()
ours = cv3gpu.kmeans(pixels, 8, init=start)
theirs = KMeans(8, init=start, n_init=1, algorithm="lloyd").fit(pixels)
difference = np.abs(ours.centroids - theirs.cluster_centers_).max()
print(f"{ours.n_iter} iterations; the palettes differ by at most {difference:.1e} of 255 levels")
assert difference < 0.05
assert np.mean(ours.labels == theirs.labels_) > 0.999
