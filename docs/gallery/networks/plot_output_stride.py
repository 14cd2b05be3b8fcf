r"""Stride or dilation: the same features, at more places
========================================================

A network that halves its maps five times gives one label for 32 x 32 pixels. DeepLab's trick: leave out a stride, and
dilate every later kernel by two instead. Trained weights stay as they are, and so do the features: they are computed at
four times as many places.
"""

# %%
# For two layers. Let *a* have stride 2, and *b* come after it. Without the stride and with *b* dilated, the results at
# even rows and columns are the old ones, and those between are new.
import numpy as np
import torch
from skimage.data import camera
from skimage.transform import downscale_local_mean

import cv3gpu
from cv3gpu import viz
from cv3gpu.nn import models

image = downscale_local_mean(camera(), (3, 3))[None, None, :160, :160] / 255
a = np.outer([1, 2, 1], [1, 2, 1])[None, None] / 16.0
y, x = np.mgrid[-4:5, -4:5]
b = (np.exp(-(x**2 + y**2) / 8) * np.sin(1.2 * x))[None, None]  # vertical edges

strided = cv3gpu.conv2d(cv3gpu.conv2d(image, a, padding=1, stride=2), b, padding=4)
dilated = cv3gpu.conv2d(cv3gpu.conv2d(image, a, padding=1), b, padding=8, dilation=2)
np.testing.assert_allclose(dilated[..., ::2, ::2], strided, atol=1e-12)

enlarged = cv3gpu.interpolate(strided, size=image.shape[2:], mode="bilinear", align_corners=False)
between = np.abs(enlarged - dilated)[..., 16:-16, 16:-16].mean() / np.abs(dilated)[..., 16:-16, 16:-16].mean()
print(f"between the places that both know, enlarging guesses wrong by {between:.0%}")
assert between > 0.1
crop = np.s_[20:100, 50:130]
figure = viz.image_grid(
    [[image[0, 0][crop], np.kron(strided[0, 0], np.ones((2, 2)))[crop], enlarged[0, 0][crop], dilated[0, 0][crop]]],
    columns=["image", "stride", "stride, enlarged", "dilation"],
    signed=["stride", "stride, enlarged", "dilation"],
    size=2.6,
)

# %%
# The same with a whole network: one ResNet at output strides of 32, 16 and 8, with the same weights. The features at
# stride 32 are found again at every second and every fourth place of the others.
features, shapes = {}, {}


def keep_as(stride):
    """A hook that keeps what a layer gives."""
    return lambda module, given, out: features.update({stride: out})


torch.manual_seed(0)
weights = models.deeplabv3(5, backbone="resnet18", base_channels=8).state_dict()
picture = torch.from_numpy(np.repeat(image, 3, axis=1)).float()
for stride in (32, 16, 8):
    network = models.deeplabv3(5, backbone="resnet18", base_channels=8, output_stride=stride).eval()
    network.load_state_dict(weights)
    assert cv3gpu.nn.output_stride(network) == stride
    network.backbone.layer4.register_forward_hook(keep_as(stride))
    with torch.inference_mode():
        network(picture)
    shapes[stride] = tuple(features[stride].shape[2:])

for stride in (16, 8):
    step = 32 // stride
    torch.testing.assert_close(features[stride][..., ::step, ::step], features[32], rtol=1e-4, atol=1e-5)
print("features at output stride", "; ".join(f"{s}: {h} x {w}" for s, (h, w) in shapes.items()))

strongest = int(features[8].amax((0, 2, 3)).argmax())
maps = [features[s][0, strongest].numpy() for s in (32, 16, 8)]
grown = [np.kron(m, np.ones((s // 8, s // 8))) for m, s in zip(maps, (32, 16, 8), strict=True)]
sheet = viz.image_grid(
    [[image[0, 0], *grown]], columns=["image", *(f"output stride {s}" for s in (32, 16, 8))], size=2.6
)
