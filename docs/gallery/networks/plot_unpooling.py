r"""Max-unpooling keeps places
=============================

Max pooling keeps a window's largest value and forgets where it was; whatever is enlarged afterwards is off by up to a
window. SegNet remembers the place, one index for each window, and puts values back where they came from.
"""

# %%
# A page of text, bright strokes on black, pooled by windows of 4 x 4 pixels.
import numpy as np
import torch
from skimage.data import text

import cv3gpu
from cv3gpu import viz

page = text().astype(float)[:168]
strokes = np.clip((110 - page) / 60, 0, 1)
x = strokes[None, None]
values, indices = cv3gpu.max_pool2d(x, 4)
unpooled = cv3gpu.max_unpool2d(values, indices, 4)
enlarged = {mode: cv3gpu.interpolate(values, scale_factor=4, mode=mode) for mode in ("nearest", "bilinear")}

# %%
# What was a maximum is where it was, and everything else is zero. How much of each result lies on a stroke?
kept = unpooled > 0
assert np.array_equal(unpooled[kept], x[kept]), "values are in their places"
assert np.array_equal(np.sort(unpooled[kept]), np.sort(values[values > 0])), "and none is lost"


def on_strokes(result):
    """The share of the brightness that lies where the page is bright."""
    return result[x > 0].sum() / result.sum()


shares = {"nearest": on_strokes(enlarged["nearest"]), "bilinear": on_strokes(enlarged["bilinear"])}
shares["unpooled"] = on_strokes(unpooled)
for name, share in shares.items():
    print(f"{name:9s} {share:.0%} on strokes")
assert shares["unpooled"] == 1.0 and max(shares["nearest"], shares["bilinear"]) < 0.6

crop = np.s_[24:96, 92:212]
panels = {
    "page": x,
    "pooled, nearest": enlarged["nearest"],
    "pooled, bilinear": enlarged["bilinear"],
    "unpooled": unpooled,
}
names = list(panels)
rows = [[panels[name][0, 0][crop] for name in pair] for pair in (names[:2], names[2:])]
figure = viz.image_grid(rows, columns=["", ""], size=4.2)
for axis, name in zip(figure.axes, names, strict=True):
    axis.set_title(name, fontsize=10)

# %%
# Values and indices are torch's. For a network an index can be one byte, the place in its window, an eighth of torch's.
want, where = torch.nn.functional.max_pool2d(torch.from_numpy(x), 4, return_indices=True)
assert np.array_equal(values, want.numpy()) and np.array_equal(indices, where.numpy())
assert np.array_equal(unpooled, torch.nn.functional.max_unpool2d(want, where, 4).numpy())
_, places = cv3gpu.max_pool2d(x, 4, compact=True)
assert np.array_equal(cv3gpu.max_unpool2d(values, places, 4), unpooled)
print(f"indices: {indices.nbytes} bytes, compact ones {places.nbytes}")
assert indices.nbytes == 8 * places.nbytes
