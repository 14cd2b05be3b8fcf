r"""GrabCut: a rectangle is enough
=================================

A rectangle around the object is the only hint: what is outside is background. GrabCut guesses the colours of both
regions as mixtures of Gaussians, cuts, and learns the colours anew from its own cut, until nothing changes. Every step
minimises one energy, which can therefore never rise.
"""

# %%
# So that the right answer is known for every pixel, a horse of brick stands on gravel: the silhouette and both textures
# come with scikit-image, and are tinted.
import warnings

import numpy as np
from matplotlib.figure import Figure
from skimage.data import astronaut, brick, gravel, horse
from skimage.transform import downscale_local_mean

import cv3gpu
from cv3gpu import viz

true = ~horse()[::2, ::2]
height, width = true.shape
inside, outside = (texture()[:height, :width, None] / 255 for texture in (brick, gravel))
image = np.where(true[..., None], inside * [1.0, 0.65, 0.4], outside * [0.6, 0.85, 0.6])
rows, columns = np.flatnonzero(true.any(1)), np.flatnonzero(true.any(0))
rect = (int(columns[0]) - 4, int(rows[0]) - 2, int(np.ptp(columns)) + 8, int(np.ptp(rows)) + 5)


def iou(labels):
    """Intersection over union with the truth."""
    return np.sum((labels == 1) & true) / np.sum((labels == 1) | true)


labels, energy, n_iter = cv3gpu.grab_cut(image, rect)
with warnings.catch_warnings():
    warnings.simplefilter("ignore", cv3gpu.ConvergenceWarning)  # stopped early on purpose
    early = cv3gpu.grab_cut(image, rect, max_iter=1).labels

everything = np.zeros_like(labels)
everything[rect[1] : rect[1] + rect[3], rect[0] : rect[0] + rect[2]] = 1
stages = {"the rectangle": everything, "after 1 iteration": early, f"after {n_iter}": labels}
panels = [viz.cutout(image, stage, rect=rect) / 255 for stage in stages.values()]
figure = viz.image_grid([panels], columns=[f"{name}: IoU {iou(stage):.3f}" for name, stage in stages.items()], size=3.4)

assert iou(labels) > 0.95
assert iou(everything) < iou(early) <= iou(labels)
assert np.all(np.diff(energy) <= 1e-9 * energy[0]), "the energy never rises"
assert not labels[everything == 0].any(), "nothing outside of the rectangle"

# %%
# And a photograph, where nobody knows the answer but everybody sees it.
photograph = downscale_local_mean(astronaut()[:400, 100:], (2, 2, 1)) / 255
head = (44, 2, 58, 75)
found = cv3gpu.grab_cut(photograph, head)
assert np.all(np.diff(found.energy) <= 1e-9 * found.energy[0])
print(f"{found.n_iter} iterations, {found.labels.mean():.0%} of the pixels are hers")

both = Figure(figsize=(8.4, 3.4), layout="constrained")
left, right = both.subplots(1, 2)
left.imshow(viz.cutout(photograph, found.labels, rect=head))
left.set(xticks=[], yticks=[], title=f"a head, after {found.n_iter} iterations")
for name, values, colour in (("horse", energy, viz.COLOURS[0]), ("head", found.energy, viz.COLOURS[5])):
    right.plot(range(1, values.size + 1), values / values[-1], "o-", ms=3.5, color=colour, label=name)
right.set(xlabel="iteration", ylabel="energy, of the last one", title="The energy never rises")
right.xaxis.get_major_locator().set_params(integer=True)
right.legend(frameon=False)
right.grid(color="#E5E5E5", lw=0.6)
