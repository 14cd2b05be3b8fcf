r"""How far does a network see?
==============================

A pixel of a deep map depends on a part of the image, its receptive field. Strides make it grow fast, dilation makes it
grow without losing places. The calculator follows each operator of a network exactly; here it is held against the
textbook's recursion, against gradients, and against published numbers.
"""

# %%
# For a chain of layers with kernels :math:`k_l` and strides :math:`s_l` the field is
# :math:`r = 1 + \sum_l (k_l - 1) \prod_{m < l} s_m`. This is FCN's table: VGG's layers see 404 pixels, 32 apart.
import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from skimage.data import astronaut

import cv3gpu
from cv3gpu.nn import models

network = models.fcn32s(21, base_channels=4)
chain = []
for block, depth in enumerate((2, 2, 3, 3, 3), 1):
    chain += [(f"conv{block}_{n}", 3, 1) for n in range(1, depth + 1)] + [(f"pool{block}", 2, 2)]
chain.append(("fc6", 7, 1))

size, stride, fields = 1, 1, {}
for name, kernel, step in chain:
    size, stride = size + (kernel - 1) * stride, stride * step
    fields[name] = size, stride

shown = ("conv2_2", "conv3_3", "conv4_3", "conv5_3", "fc6")
for name in shown:
    found = cv3gpu.nn.receptive_field(network, name)
    print(f"{name:8s} {found.size[0]:4.0f} pixels, stride {found.stride[0]:.0f}")
    assert found.size == (fields[name][0],) * 2 and found.stride == (fields[name][1],) * 2
assert fields["fc6"] == (404, 32), "table 1 of Long, Shelhamer, Darrell: 404 pixels, stride 32"

# %%
# In the photograph, from the second block to the whole of fc6.
image = astronaut()
figure = Figure(figsize=(5.2, 5.2), layout="constrained")
axis = figure.subplots()
axis.imshow(image)
for name, colour in zip(shown, ("#56B4E9", "#F0E442", "#009E73", "#E69F00", "#CC79A7"), strict=True):
    side = fields[name][0]
    axis.add_patch(
        Rectangle((226 - side / 2, 205 - side / 2), side, side, fill=False, ec=colour, lw=2.5, label=f"{name}: {side}")
    )
axis.legend(loc="lower right", fontsize=9, title="receptive field, pixels")
axis.set_axis_off()

# %%
# Gradients measure it: with positive weights everything that a pixel depends on has a gradient. A chain with strides,
# dilation, a branch and an enlargement, against the calculator.


class Small(torch.nn.Module):
    """Two ways through a small network, added."""

    def __init__(self):
        """Makes layers whose weights are all positive."""
        super().__init__()
        self.first = torch.nn.Conv2d(1, 2, 5, stride=2, padding=2)
        self.near = torch.nn.Conv2d(2, 2, 3, padding=1)
        self.far = torch.nn.Sequential(torch.nn.AvgPool2d(2), torch.nn.Conv2d(2, 2, 3, padding=4, dilation=4))
        for parameter in self.parameters():
            torch.nn.init.uniform_(parameter, 0.1, 1.0)

    def forward(self, x):
        """Looks near and far."""
        x = self.first(x)
        far = torch.nn.functional.interpolate(self.far(x), scale_factor=2, mode="nearest")
        return self.near(x) + far


torch.manual_seed(0)
small = Small().double()
x = torch.ones(1, 1, 160, 160, dtype=torch.float64, requires_grad=True)
small(x)[0, :, 40, 40].sum().backward()
seen = x.grad[0, 0].abs() > 0
extent = tuple(int(seen.any(1 - axis).sum() and np.ptp(np.flatnonzero(seen.any(1 - axis))) + 1) for axis in (0, 1))
found = cv3gpu.nn.receptive_field(small)
print(f"gradients reach {extent[0]} x {extent[1]} pixels; the calculator says {found.size}")
assert extent == found.size

# %%
# Published designs. Means over the whole map, as in PSPNet's pyramid and DeepLabv3's pooled branch, see everything.
makers = {"U-Net": models.unet, "SegNet": models.segnet, "DeepLabv1": models.deeplabv1, "PSPNet": models.pspnet}
table = {}
for name, make in makers.items():
    whole = make(21, base_channels=4).eval()
    table[name] = cv3gpu.nn.receptive_field(whole).size[0], cv3gpu.nn.output_stride(whole)
    print(f"{name:10s} sees {table[name][0]:g} pixels, coarsest map of stride {table[name][1]}")
assert table["PSPNet"][0] == np.inf and table["U-Net"][1] == 16 and table["DeepLabv1"][1] == 8
