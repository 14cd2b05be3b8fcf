r"""Labels at full size without logits at full size
==================================================

Networks give scores on a coarse grid; what is wanted is one label for each pixel. Enlarging 21 maps of scores to the
size of the image, to keep only which was the largest, takes 21 floats a pixel. Done in one go it takes the label.
"""

# %%
# Scores of 21 classes on 65 x 65 places, for an image of 513 x 513 pixels, as DeepLab has them: sums of smooth bumps.
import tracemalloc

import numpy as np
import torch
from matplotlib.figure import Figure

import cv3gpu
from cv3gpu import viz

rng = np.random.default_rng(0)
noise = rng.standard_normal((1, 21, 65, 65)).astype(np.float32)
row = np.exp(-np.square(np.arange(-12, 13) / 5.0)).astype(np.float32)
smooth = np.outer(row, row)[None, None].repeat(21, 0)
logits = cv3gpu.conv2d(noise, smooth, padding="same", groups=21)
SIZE = (513, 513)


def measured(function):
    """What a function returns, and the most memory that it held on the way, bytes."""
    function()  # once before, so that nothing else is loaded
    tracemalloc.start()
    result = function()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return result, peak


def two_steps():
    """Enlarge, then look for the largest."""
    return cv3gpu.interpolate(logits, SIZE, mode="bilinear", align_corners=False).argmax(1)


want, large = measured(two_steps)
labels, small = measured(lambda: cv3gpu.upsample_argmax(logits, SIZE))
byte_labels, smallest = measured(lambda: cv3gpu.upsample_argmax(logits, SIZE, dtype="uint8"))

# %%
# Not one label differs, because the sums are made in the same order. torch rounds otherwise, and differs where two
# scores are equal up to rounding.
assert np.array_equal(labels, want) and np.array_equal(byte_labels, want)
peer = torch.nn.functional.interpolate(torch.from_numpy(logits), SIZE, mode="bilinear", align_corners=False).argmax(1)
differing = int((peer.numpy() != labels).sum())
print(f"{differing} of {labels.size} labels differ from torch's")
assert differing <= labels.size // 10000

peaks = {"interpolate, argmax": large, "upsample_argmax": small, "upsample_argmax, uint8": smallest}
for name, peak in peaks.items():
    print(f"{name:23s} {peak / 2**20:6.2f} MiB")
full = 21 * SIZE[0] * SIZE[1] * logits.itemsize
assert large > full and small < full / 4 and smallest < full / 16, "the enlarged logits were never there"

figure = Figure(figsize=(10, 3.6), layout="constrained")
left, middle, right = figure.subplots(1, 3, width_ratios=(1, 1, 1.35))
colours = viz.label_colours(21)
left.imshow(colours[logits.argmax(1)[0]])
left.set(xticks=[], yticks=[], title="best of 65 x 65 scores")
middle.imshow(colours[labels[0]])
middle.set(xticks=[], yticks=[], title="labels, 513 x 513")
bars = right.barh(list(peaks), [peak / 2**20 for peak in peaks.values()], color=[viz.COLOURS[k] for k in (5, 0, 2)])
right.bar_label(bars, fmt="%.1f", padding=3)
right.set(xlabel="most memory, MiB", xlim=(0, 1.18 * large / 2**20))
right.invert_yaxis()
right.spines[["top", "right"]].set_visible(False)

# %%
# The same for training. The loss at full size and its gradient, against torch's two steps.
target = torch.from_numpy(labels)
target[:, ::7] = 255  # not to be counted
ours, theirs = (torch.from_numpy(logits).requires_grad_() for _ in range(2))
loss = cv3gpu.upsample_cross_entropy(ours, target, ignore_index=255)
enlarged = torch.nn.functional.interpolate(theirs, SIZE, mode="bilinear", align_corners=False)
reference = torch.nn.functional.cross_entropy(enlarged, target, ignore_index=255)
loss.backward()
reference.backward()
torch.testing.assert_close(loss, reference, rtol=1e-5, atol=1e-6)
torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-3, atol=1e-8)
