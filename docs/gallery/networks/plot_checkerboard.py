r"""Checkerboards, and two cures
===============================

A transposed convolution whose stride does not divide its kernel gives some pixels more taps than others, and the
picture shows it: a checkerboard, from the first step of training on. A kernel that the stride divides has equal numbers
of taps; enlarging first and convolving then has equal weights, too.
"""

# %%
# How many taps reach each pixel? A transposed convolution of ones by ones counts them.
import numpy as np
from skimage.data import astronaut
from skimage.transform import downscale_local_mean

import cv3gpu
from cv3gpu import viz
from cv3gpu.checkerboard import checkerboard_study, harmonic_share, pattern_amplitude

for kernel, stride in ((3, 2), (4, 2), (5, 2), (5, 3), (6, 3)):
    overlap = cv3gpu.overlap_uniformity(kernel, stride)
    counted = cv3gpu.conv_transpose2d(np.ones((1, 1, 12, 12)), np.ones((1, 1, kernel, kernel)), stride=stride)[0, 0]
    inside = counted[2 * stride : 3 * stride, 2 * stride : 3 * stride]
    np.testing.assert_array_equal(overlap.taps, inside)
    assert (overlap.ratio == 1) == (kernel % stride == 0)
    print(
        f"{kernel} x {kernel}, stride {stride}: {overlap.minimum} to {overlap.maximum} taps, ratio {overlap.ratio:.2f}"
    )

# %%
# Four layers with random weights, and after a short training on smooth images which all of them could enlarge well. The
# spectra show the pattern as bright points at the border.
# sphinx_gallery_thumbnail_number = 2
trials = checkerboard_study(steps=15)
figure = viz.checkerboard_figure(trials)

uneven, even, nearest, bilinear = trials
assert uneven.constant_amplitude > 0.1 and even.constant_amplitude > 0.1, "random weights do it, equal taps or not"
assert nearest.constant_amplitude < 1e-12 and bilinear.constant_amplitude < 1e-12, "a constant stays one"
assert uneven.trained_share < uneven.start_share, "training fights it"
assert bilinear.start_share < 0.1 * uneven.start_share

# %%
# On a photograph: the same random 3 x 3 weights as a transposed convolution of stride 2, and after a resize. In 2 x 2
# means of the phases the transposed one has a pattern, the other next to none.
image = downscale_local_mean(astronaut()[20:180, 140:300], (2, 2, 1)) / 255
x = np.moveaxis(image, 2, 0)[None]
rng = np.random.default_rng(3)
weight = np.abs(rng.standard_normal((3, 3, 3, 3))) * np.eye(3)[..., None, None]
weight /= weight.sum((2, 3), keepdims=True).clip(1e-9)
transposed = 4 * cv3gpu.conv_transpose2d(x, weight, stride=2, padding=1, output_padding=1)
resized = {mode: cv3gpu.resize_conv2d(x, weight, scale_factor=2, mode=mode) for mode in ("nearest", "bilinear")}
both = cv3gpu.conv2d(cv3gpu.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False), weight, padding=1)
np.testing.assert_allclose(resized["bilinear"], both, atol=1e-12)

results = {
    "transposed": transposed,
    "nearest, then 3 x 3": resized["nearest"],
    "bilinear, then 3 x 3": resized["bilinear"],
}
strength = {name: pattern_amplitude(y[..., 4:-4, 4:-4], 2) for name, y in results.items()}
for name, y in results.items():
    print(f"{name:21s} pattern {strength[name]:.4f}, {harmonic_share(y[..., 4:-4, 4:-4], 2):.2%} of the energy")
assert strength["transposed"] > 20 * max(strength["nearest, then 3 x 3"], strength["bilinear, then 3 x 3"])
panels = [np.moveaxis(y[0], 0, 2)[30:110, 20:100] for y in results.values()]
pictures = viz.image_grid([[image[15:55, 10:50], *panels]], columns=["image", *results], size=2.8)
