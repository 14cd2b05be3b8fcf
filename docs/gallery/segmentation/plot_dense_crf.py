r"""A dense CRF sharpens a coarse label map
==========================================

Networks see objects, but give labels on a coarse grid. The fully connected CRF lets every pixel talk to every other
one: pixels of similar colour that are not too far apart should agree. Mean field passes these messages again and again,
and the labels move to where the photograph has its edges.
"""

# %%
# A poor classifier of the photograph: six classes in rough outlines on a grid of sixteen pixels, one cell in eight
# wrong, and noise. The unary energy is :math:`-\log p`.
import numpy as np
from skimage.data import astronaut
from skimage.draw import polygon
from skimage.transform import resize

import cv3gpu
from cv3gpu import viz

NAMES = ("wall", "hair and face", "suit", "helmet", "shuttle", "flag")
OUTLINES = {  # x, y, x, y, ... of the photograph at half its size
    1: (80, 20, 110, 5, 145, 20, 150, 55, 130, 90, 100, 95, 78, 60),
    2: (20, 150, 60, 110, 65, 130, 100, 150, 150, 140, 180, 175, 142, 255, 5, 255),
    3: (140, 215, 165, 180, 205, 170, 245, 190, 255, 255, 142, 255),
    4: (192, 140, 188, 95, 205, 0, 220, 5, 228, 100, 225, 140),
    5: (0, 0, 25, 0, 45, 80, 55, 105, 15, 150, 0, 250),
}
image = np.ascontiguousarray(astronaut()[::2, ::2])
rough = np.zeros(image.shape[:2], int)
for k, outline in OUTLINES.items():
    rough[polygon(outline[1::2], outline[::2], rough.shape)] = k

rng, n, cells = np.random.default_rng(0), len(NAMES), 16
share = np.eye(n)[rough].reshape(cells, 16, cells, 16, n).mean((1, 3))
wrong = rng.random((cells, cells)) < 1 / 8
share[wrong] = np.eye(n)[rng.integers(0, n, wrong.sum())]
score = resize(4 * share + 0.5 * rng.standard_normal(share.shape), (*image.shape[:2], n), order=1)
score = np.moveaxis(score + 0.6 * rng.standard_normal(score.shape), 2, 0)
unary = (np.log(np.exp(score).sum(0)) - score).astype(np.float32)

# %%
# Each iteration filters Q by two Gaussians, one of place and one of place and colour, and takes a softmax:
#
# .. math:: Q \leftarrow \mathrm{softmax}\Big(-U + \sum_m w_m\, \tilde K_m Q\Big)
widths = {"theta_alpha": 40.0, "theta_beta": 10.0}
steps = {}
for iterations in (0, 1, 2, 5, 10):
    q = cv3gpu.dense_crf(unary, image, n_iter=iterations, **widths)
    np.testing.assert_allclose(q.sum(0), 1, atol=1e-5)
    steps[iterations] = q.argmax(0), q[2]
figure = viz.iterations_figure(image, steps, marginal="“suit”", names=NAMES, size=2.4)

# %%
# Are the new borders where the photograph has its edges? Compare the step of colour across borders of labels with the
# step between neighbours anywhere.


def contrast(labels):
    """Mean step of colour across the borders of labels, over that of all neighbours."""
    across, border = np.abs(np.diff(image.astype(float), axis=1)).sum(2), np.diff(labels, axis=1) != 0
    return across[border].mean() / across.mean()


followed = [contrast(labels) for labels, _ in steps.values()]
print("steps of colour at borders:", ", ".join(f"{c:.1f}x" for c in followed))
assert np.all(np.diff(followed) > 0) and followed[-1] > 2 * followed[0]

# %%
# The oracle: on a part small enough for matrices of all pairs of pixels, mean field in ten lines of NumPy.
part = np.s_[60:92, 75:107]
small, colours = unary[:, *part].reshape(n, -1).astype(float), image[part].reshape(-1, 3).astype(float)
place = np.stack(np.indices((32, 32)).reshape(2, -1), 1).astype(float)


def symmetric(features):
    """The Gaussian kernel of all pairs, normalised on both sides."""
    kernel = np.exp(-0.5 * np.square(features[:, None] - features).sum(2))
    root = kernel.sum(0) ** -0.5
    return root * kernel * root[:, None]


both = 3.0 * symmetric(place / 3.0) + 10.0 * symmetric(np.concatenate([place / 40.0, colours / 10.0], 1))
want = np.exp(-small) / np.exp(-small).sum(0)
for _ in range(5):
    energies = want @ both - small
    want = np.exp(energies - energies.max(0))
    want /= want.sum(0)
crop = np.ascontiguousarray(unary[:, *part]), np.ascontiguousarray(image[part])
for method, most in (("exact", 1e-4), ("lattice_fine", 0.05), ("lattice", 0.2)):
    got = cv3gpu.dense_crf(*crop, n_iter=5, method=method, **widths).reshape(n, -1)
    print(f"{method:13s} largest difference of Q {np.abs(got - want).max():.1e}, mean {np.abs(got - want).mean():.1e}")
    assert np.abs(got - want).mean() < most / 10
    assert np.abs(got - want).max() < most or method != "exact"
    assert np.mean(got.argmax(0) == want.argmax(0)) > 0.98
