r"""How many clusters? The eigengap
==================================

A graph of *k* parts that nothing connects has *k* eigenvalues of 0. Weak edges between the parts lift them a little,
and the next one stays far above: the jump tells *k*, before anything is clustered.
"""

# %%
# Three sets with 2, 3 and 5 parts, and the smallest eigenvalues of their graphs of neighbours.
import numpy as np
from matplotlib.figure import Figure
from scipy.linalg import eigh
from sklearn.datasets import make_blobs, make_moons
from sklearn.metrics import adjusted_rand_score

import cv3gpu
from cv3gpu import viz
from cv3gpu.spectral import eigengap

rng = np.random.default_rng(0)
turn = rng.uniform(0, 2 * np.pi, 600)
ring = np.repeat([1.0, 2.0, 3.0], [100, 200, 300])
rings = ring[:, None] * np.stack([np.cos(turn), np.sin(turn)], 1) + rng.normal(0, 0.1, (600, 2))
places = 5 * np.stack([np.cos(np.arange(5) * 1.2566), np.sin(np.arange(5) * 1.2566)], 1)
heaps, heap = make_blobs(500, centers=places, cluster_std=1.0, random_state=1)
moons, moon = make_moons(500, noise=0.08, random_state=3)
sets = {"moons": (moons, moon), "rings": (rings, (ring - 1).astype(int)), "heaps": (heaps, heap)}

figure = Figure(figsize=(9.6, 5.6), layout="constrained")
axes = figure.subplots(2, 3, height_ratios=(3, 2))
for (above, below), (name, (points, part)) in zip(axes.T, sets.items(), strict=True):
    true = part.max() + 1
    graph = cv3gpu.knn_affinity(points, 15)
    values = cv3gpu.smallest_eigenpairs(graph, 9).eigenvalues
    labels = cv3gpu.spectral_clustering(points, "eigengap", n_neighbors=15)

    # LAPACK on the whole dense matrix says the same.
    weight = graph.toarray()
    dense = eigh(np.diag(weight.sum(1)) - weight, np.diag(weight.sum(1)), eigvals_only=True)
    np.testing.assert_allclose(values, dense[:9], atol=1e-9)
    assert eigengap(values) == true, "the jump is where it should be"
    assert labels.max() + 1 == true
    assert adjusted_rand_score(part, labels) > 0.9

    above.scatter(*points.T, s=7, c=viz.label_colours(7)[1 + labels] / 255, linewidths=0)
    above.set(title=f"{name}: {true} found", xticks=[], yticks=[], aspect="equal")
    colours = [viz.COLOURS[0] if k < true else "#BDBDBD" for k in range(9)]
    below.bar(range(1, 10), values, color=colours)
    below.axvline(true + 0.5, color=viz.COLOURS[5], ls="--", lw=1.4)
    below.set(xlabel="eigenvalue", ylabel="λ", xticks=range(1, 10))

# %%
# The gap is relative, :math:`\lambda_{k+1} / \lambda_k`: along a thin part eigenvalues grow as squares, and differences
# would find the last one looked at. Where parts do not touch at all, the first :math:`k` are zero:
apart = cv3gpu.knn_affinity(np.concatenate([heaps, heaps + 100.0]), 12)
values = cv3gpu.smallest_eigenpairs(apart, 3).eigenvalues
print("two copies far from each other:", ", ".join(f"{value:.2g}" for value in values))
assert values[1] < 1e-12 < values[2]
