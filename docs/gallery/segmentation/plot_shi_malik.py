r"""Shi and Malik's eigenvectors, and the cuts that they lead to
===============================================================

In a graph of pixels, where near and similar ones hang together strongly, the eigenvectors of the smallest eigenvalues
vary slowly inside regions and jump between them. Normalised cuts are thresholds of such vectors. This is the figure of
Shi and Malik's paper, for the photograph that everybody knows.
"""

# %%
# Weights between pixels nearer than five pixels are
# :math:`w_{ij} = e^{-|F_i - F_j|^2 / \sigma_I^2}\, e^{-|X_i - X_j|^2 / \sigma_X^2}`. The second to tenth generalised
# eigenvector of :math:`(D - W)\, y = \lambda D\, y` follow; the first is constant.
import numpy as np
from scipy.sparse import diags_array
from scipy.sparse.linalg import eigsh
from skimage.data import camera
from skimage.transform import downscale_local_mean

import cv3gpu
from cv3gpu import viz

image = downscale_local_mean(camera(), (6, 6))[:80, :80] / 255
affinity = cv3gpu.pixel_affinity(image, radius=5, sigma_intensity=0.1, sigma_distance=4.0)
values, vectors, residual, n_iter = cv3gpu.smallest_eigenpairs(affinity, 10)
planes = vectors.reshape(*image.shape, 10)
figure = viz.eigenvectors_figure(values[1:], planes[..., 1:])

# %%
# SciPy's ARPACK finds the same eigenvalues, from the largest of :math:`D^{-1/2} W D^{-1/2}`.
print(f"{n_iter} iterations of a multigrid-preconditioned solver, residuals up to {residual.max():.0e}")
matrix = affinity.tocsr()
root = diags_array(1 / np.sqrt(matrix.sum(axis=1)))
largest = eigsh(root @ matrix @ root, 10, which="LA", return_eigenvectors=False, tol=1e-10)
np.testing.assert_allclose(values, 1 - np.sort(largest)[::-1], atol=1e-8)
assert np.ptp(vectors[:, 0]) < 1e-5 * vectors[:, 0].max(), "the first one is the same everywhere"

# %%
# Each cut takes the threshold of an eigenvector with the least value of cut / volume on both sides. It goes on with the
# parts, always where the next cut is the best. The other way, *k-way*, rounds the first *k* eigenvectors at once.
recursive = cv3gpu.normalized_cut(image, affinity=affinity, n_segments=8, min_size=40)
kway = cv3gpu.normalized_cut(image, affinity=affinity, n_segments=8, min_size=40, method="kway")
print(f"normalised cut of 8 segments: recursive {recursive.ncut:.4f}, k-way {kway.ncut:.4f}")
panels = {
    "image": None,
    "two segments": cv3gpu.normalized_cut(image, affinity=affinity, n_segments=2).labels,
    "recursive": recursive.labels,
    "k-way": kway.labels,
}
cuts = viz.labels_figure(image, panels, size=2.8)

# %%
# The value is what its definition says, and no segmentation into eight can have less than the sum of the eight smallest
# eigenvalues, which is the relaxed problem's optimum.
inside = [matrix[part][:, part].sum() for part in (recursive.labels.ravel() == k for k in range(8))]
volume = np.bincount(recursive.labels.ravel(), matrix.sum(axis=1))
np.testing.assert_allclose(recursive.ncut, np.sum((volume - inside) / volume), rtol=1e-9)
bound = values[:8].sum()
print(f"lower bound by the eigenvalues: {bound:.4f}")
assert bound <= min(recursive.ncut, kway.ncut)
tiles = np.indices(image.shape)[0] // 20 * 2 + np.indices(image.shape)[1] // 40
assert max(recursive.ncut, kway.ncut) < 0.5 * cv3gpu.ncut_value(affinity, tiles), "better than eight equal tiles"
