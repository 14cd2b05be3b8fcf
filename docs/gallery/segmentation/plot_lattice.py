r"""What the lattice costs: fast filtering against all pairs
==========================================================

A bilateral filter is a Gaussian filter in five dimensions, two of place and three of colour. Over all pairs of pixels
it takes :math:`N^2` exponentials. On the permutohedral lattice it takes time in proportion to N, and an error: how
much?
"""

# %%
# The coffee cup at a size where all pairs are still affordable, filtered in three ways and in plain NumPy.
import time

import numpy as np
from matplotlib.figure import Figure
from skimage.data import coffee
from skimage.transform import downscale_local_mean

import cv3gpu
from cv3gpu import viz

image = downscale_local_mean(coffee()[20:356, 150:486], (7, 7, 1)) / 255
height, width = image.shape[:2]
values = np.ascontiguousarray(image.reshape(-1, 3).T)


def features(position, colour):
    """Places and colours of the pixels over their widths, [5, N]."""
    y, x = np.indices((height, width)).reshape(2, -1) / position
    return np.concatenate([[x, y], values / colour])


def all_pairs(f):
    """The filter from its definition, each weight divided by their sum."""
    weights = np.exp(-0.5 * sum(np.square(x[:, None] - x) for x in f))
    return values @ weights / weights.sum(0)


f = features(6.0, 0.12)
want = all_pairs(f)
methods = ("exact", "lattice_fine", "lattice")
got, seconds = {}, {}
for method in methods:
    begin = time.perf_counter()
    got[method] = cv3gpu.gaussian_filter(values, f, method=method, normalization="after")
    seconds[method] = time.perf_counter() - begin
error = {method: float(np.sqrt(np.square(got[method] - want).mean())) for method in methods}
for method in methods:
    print(f"{method:13s} {1000 * seconds[method]:6.1f} ms, error {255 * error[method]:.3f} of 255 levels (rms)")
assert error["exact"] < 1e-6, "exact is exact"
assert error["exact"] < error["lattice_fine"] < error["lattice"], "finer is nearer"
assert error["lattice"] < 0.02, "five levels of 255 at most"

shown = [image, *(got[method].T.reshape(image.shape) for method in methods)]
worst = np.abs(got["lattice"] - want).max(0).reshape(height, width)
figure = viz.image_grid([[*shown, worst]], columns=["image", *methods, "lattice: where it is off"], size=2.3)

# %%
# The error against the width of the kernel in colour. A wide kernel changes the picture more, so there is more to be
# wrong; the order of the two lattices stays.
colours = np.array([0.05, 0.1, 0.2, 0.4])
errors = {method: [] for method in methods[1:]}
for colour in colours:
    f = features(6.0, colour)
    exact = all_pairs(f)
    for method, found in errors.items():
        difference = cv3gpu.gaussian_filter(values, f, method=method, normalization="after") - exact
        found.append(255 * np.sqrt(np.square(difference).mean()))
assert np.all(np.array(errors["lattice_fine"]) < errors["lattice"])

curves = Figure(figsize=(5.4, 3.4), layout="constrained")
axis = curves.subplots()
for (method, found), colour, marker in zip(errors.items(), (viz.COLOURS[0], viz.COLOURS[5]), "os", strict=True):
    axis.plot(colours, found, marker + "-", color=colour, label=method)
axis.set(xscale="log", yscale="log", xlabel="width in colour, of 0 to 1", ylabel="rms error, levels of 255")
axis.set_xticks(colours, [f"{c:g}" for c in colours])
axis.set_yticks([0.5, 1, 2, 4], ["0.5", "1", "2", "4"])
axis.minorticks_off()
axis.set_title("The finer lattice is the nearer one")
axis.legend(frameon=False)
axis.grid(color="#E5E5E5", lw=0.6)
