r"""Where k-means fails and spectral clustering does not
=======================================================

k-means divides the plane by straight lines between centres, so it cuts two moons and two rings through. Spectral
clustering looks at a graph of neighbours instead: whoever can be reached by short steps belongs together. The second
eigenvector of that graph already tells the parts apart.
"""

# %%
# Two sets of points whose parts are no round heaps, made by scikit-learn, so that the right answer is known.
import numpy as np
from sklearn.cluster import SpectralClustering
from sklearn.datasets import make_circles, make_moons
from sklearn.metrics import adjusted_rand_score

import cv3gpu
from cv3gpu import viz

sets = {
    "two moons": make_moons(600, noise=0.08, random_state=0),
    "circles": make_circles(600, noise=0.08, factor=0.45, random_state=0),
}

# %%
# The graph has an edge between a point and its ten nearest neighbours. With the weights :math:`W` and the degrees
# :math:`D` of the vertices, the second smallest solution of
#
# .. math:: (D - W)\, y = \lambda D\, y
#
# is the relaxed solution of the best normalised cut. The first one is constant and says nothing. Below, its sign is
# the colour.
panels = []
for points, part in sets.values():
    means = cv3gpu.kmeans(points, 2, n_init=5).labels
    graph = cv3gpu.knn_affinity(points, 10)
    values, vectors, _, _ = cv3gpu.smallest_eigenpairs(graph, 2)
    labels = cv3gpu.spectral_clustering(points, 2, n_neighbors=10)
    panels.append([means, vectors[:, 1], labels])

    agreement = adjusted_rand_score(part, labels)
    print(f"adjusted Rand index: k-means {adjusted_rand_score(part, means):.2f}, spectral {agreement:.2f}")
    assert agreement == 1.0, "spectral clustering finds the parts as they were made"
    assert adjusted_rand_score(part, means) < 0.5, "k-means does not"
    assert adjusted_rand_score(part, vectors[:, 1] > 0) > 0.99, "the second eigenvector's sign is nearly enough"

figure = viz.points_figure(
    [points for points, _ in sets.values()],
    panels,
    columns=["k-means", "second eigenvector", "spectral clustering"],
    rows=list(sets),
)

# %%
# scikit-learn's own spectral clustering gives the same labels on the same graph.
for points, _ in sets.values():
    peer = SpectralClustering(2, affinity="nearest_neighbors", n_neighbors=10, random_state=0).fit_predict(points)
    assert adjusted_rand_score(peer, cv3gpu.spectral_clustering(points, 2, n_neighbors=10)) == 1.0

# %%
# The eigenvectors are right by their own equation, which needs no other library:
residual = np.abs(cv3gpu.laplacian(graph) @ vectors - (graph.sum(axis=1)[:, None] * vectors) * values).max()
print(f"largest entry of (D - W) y - λ D y: {residual:.1e}")
assert residual < 1e-6
