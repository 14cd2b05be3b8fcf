r"""Cutting an object out from scribbles
=======================================

Two scribbles say what belongs to the object and what does not. A minimum cut then finds the labels of all pixels at
once, of all :math:`2^N` the ones of least energy: colours that fit the scribbles, along a border where colours change.
"""

# %%
# The energy of labels x is
#
# .. math:: E(x) = \underbrace{\sum_p -\log P(I_p \mid x_p)}_{R(x)} + \lambda \underbrace{\sum_{p, q \text{ neighbours}}
#    \frac{e^{-|I_p - I_q|^2 / 2 \sigma^2}}{|p - q|}\, [x_p \ne x_q]}_{B(x)}
#
# with the colours' histograms under the scribbles as P. Small :math:`\lambda` trusts colours, a large one wants a short
# border.
import numpy as np
from scipy.sparse import csr_array
from scipy.sparse.csgraph import maximum_flow
from skimage.data import coffee
from skimage.draw import line

import cv3gpu
from cv3gpu import viz

image = coffee()[::2, ::2]
foreground, background = np.zeros((2, *image.shape[:2]), bool)
strokes = {
    "foreground": [
        (95, 50, 190, 50),
        (120, 75, 170, 75),
        (55, 120, 120, 180),
        (120, 180, 220, 150),
        (110, 130, 190, 150),
    ],
    "background": [(240, 20, 290, 110), (290, 110, 270, 185), (12, 70, 20, 180), (20, 180, 70, 194), (60, 20, 20, 60)],
}
for mask, lines in zip((foreground, background), strokes.values(), strict=True):
    for x0, y0, x1, y1 in lines:
        for shift in (-1, 0, 1):
            rows, columns = line(y0 + shift, x0, y1 + shift, x1)
            mask[rows, columns] = True

SIGMA = 0.08
sweep = (0.1, 2.0, 20.0, 200.0)
found = {
    lam: cv3gpu.boykov_jolly(image, foreground, background, lam=lam, sigma=SIGMA, region="histogram") for lam in sweep
}
seeds = {"foreground": foreground, "background": background}
panels = [viz.cutout(image, found[lam].labels, **seeds) / 255 for lam in sweep]
figure = viz.image_grid([panels[:2], panels[2:]], columns=["", ""], size=4.0)
for axis, lam in zip(figure.axes, sweep, strict=True):
    axis.set_title(f"λ = {lam:g}", fontsize=10)

# %%
# The flow that a cut returns is the energy of its labels. B can be computed from the labels alone, and what is left is
# R. For minimisers there is a theorem: as :math:`\lambda` grows B never rises and R never falls. It holds for the
# optimum only, so it would catch a solver that is nearly right.
colours = image / 255.0


def border(labels):
    """B of the labels, in plain NumPy."""
    total = 0.0
    for dy, dx in ((0, 1), (1, 0), (1, 1), (1, -1)):
        here = np.s_[: labels.shape[0] - dy, max(0, -dx) : labels.shape[1] - max(0, dx)]
        there = np.s_[dy:, max(0, dx) : labels.shape[1] + min(0, dx)]
        weight = np.exp(-np.square(colours[here] - colours[there]).sum(2) / (2 * SIGMA**2)) / np.hypot(dy, dx)
        total += weight[labels[here] != labels[there]].sum()
    return total


B = np.array([border(found[lam].labels) for lam in sweep])
R = np.array([float(found[lam].flow) for lam in sweep]) - sweep * B
for lam, b, r in zip(sweep, B, R, strict=True):
    print(f"λ = {lam:5g}:  B = {b:6.1f}   R = {r:8.0f}")
assert np.all(np.diff(B) < 0) and np.all(np.diff(R) > 0)
for labels, _ in found.values():
    assert labels[foreground].all() and not labels[background].any(), "scribbles are obeyed"

# %%
# Without colours there is the border alone, and the flow must be exactly :math:`\lambda B`.
labels, flow = cv3gpu.boykov_jolly(image, foreground, background, lam=1.0, sigma=SIGMA)
np.testing.assert_allclose(flow, border(labels), rtol=1e-12)

# %%
# With whole numbers the solver is exact, and SciPy's maximum flow is the judge.
rng = np.random.default_rng(0)
source, sink = rng.integers(0, 50, (2, 12, 15))
edges = rng.integers(0, 20, (2, 12, 15))
node = np.arange(180).reshape(12, 15)
start, end, capacity = (
    [np.full(180, 180), node.ravel()],
    [node.ravel(), np.full(180, 181)],
    [source.ravel(), sink.ravel()],
)
for near, far, values in ((node[:, :-1], node[:, 1:], edges[0, :, :-1]), (node[:-1], node[1:], edges[1, :-1])):
    start, end, capacity = [*start, near.ravel()], [*end, far.ravel()], [*capacity, values.ravel()]
network = csr_array(
    (np.concatenate(capacity).astype(np.int32), (np.concatenate(start), np.concatenate(end))), shape=(182, 182)
)
wanted = maximum_flow(network, 180, 181).flow_value
assert cv3gpu.graph_cut(source, sink, edges, offsets=[(0, 1), (1, 0)]).flow == wanted
