"""What the segmentation networks are built of.

Fused layers, initial weights, strides given up for dilation, and the frame that brings scores back to the size of the
image.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from ... import _check
from ...conv import conv2d
from ...resize import interpolate
from ..layers import Conv2d, check_floats, fold_batch_norm

__all__ = [
    "OUTPUT_STRIDES",
    "VGG16",
    "ConvNormReLU",
    "Fused",
    "Logits",
    "Network",
    "channels_of",
    "fcn_head",
    "fused",
    "initialize",
    "steps",
]

OUTPUT_STRIDES = (8, 16, 32)
VGG16 = ((1, 1), (2, 2), (4, 4, 4), (8, 8, 8), (8, 8, 8))  # widths of VGG-16's convolutions, in units of 64 channels

_ACTIVATIONS: dict[type, str] = {torch.nn.ReLU: "relu", torch.nn.ReLU6: "relu6"}


class Logits(NamedTuple):
    """What a network with an auxiliary head gives in training, both [N, num_classes, H, W]."""

    logits: Tensor
    aux: Tensor


# ---- layers ---------------------------------------------------------------------------------------------


def _is_plain(module: torch.nn.Module) -> bool:
    """Whether nobody wants to see what goes into the module or comes out of it."""
    return not (module._forward_hooks or module._forward_pre_hooks)


def _folds(norm: Any, device: str) -> bool:
    """Whether a norm becomes part of the convolution before it.

    Its statistics must stand. On a CPU that saves no time, as the weights are multiplied anew in every call, and moves
    the result away from that of the layers one by one.
    """
    stands = type(norm) is torch.nn.BatchNorm2d and not norm.training and norm.running_mean is not None
    return stands and device != "cpu"


def fused(x: Tensor, conv: Any, norm: Any = None, activation: str | None = None) -> Tensor:
    """``activation(norm(conv(x)))``, as one operator where the convolution is ours and the norm's statistics stand."""
    plain = type(conv) is Conv2d and _is_plain(conv) and (norm is None or _is_plain(norm))
    if plain and (norm is None or _folds(norm, x.device.type)):
        scale, bias = fold_batch_norm(norm, conv.bias, conv.weight.dtype)
        geometry = conv.stride, conv.padding, conv.dilation, conv.groups
        return conv2d(x, conv.weight, bias, *geometry, scale=scale, activation=activation)
    x = conv(x)
    x = x if norm is None else norm(x)
    return x if activation is None else functional.relu(x) if activation == "relu" else functional.relu6(x)


class Fused(torch.nn.Sequential):
    """`torch.nn.Sequential`, in which a convolution and the batch norm and ReLU that follow it are one operator.

    Batch norms are folded in evaluation only, and on a GPU. Modules that carry hooks are called one by one.
    """

    def forward(self, input: Tensor) -> Any:
        """Passes ``input`` through the modules in turn."""
        layers: list[Any] = list(self)
        while layers:
            layer = layers.pop(0)
            if not isinstance(layer, torch.nn.Conv2d):
                input = layer(input)
                continue
            norm = layers.pop(0) if layers and isinstance(layers[0], torch.nn.BatchNorm2d) else None
            activation = _ACTIVATIONS.get(type(layers[0])) if layers and _is_plain(layers[0]) else None
            if activation:
                layers.pop(0)
            input = fused(input, layer, norm, activation)
        return input


class ConvNormReLU(Fused):
    """A convolution without bias, a batch norm, and a ReLU (``activation``: its class, None for none)."""

    def __init__(
        self,
        in_channels: int,
        channels: int,
        kernel_size: int,
        stride: int = 1,
        dilation: int = 1,
        groups: int = 1,
        activation: type[torch.nn.Module] | None = torch.nn.ReLU,
        norm: dict[str, Any] | None = None,
    ) -> None:
        padding = dilation * (kernel_size // 2)
        conv = Conv2d(in_channels, channels, kernel_size, stride, padding, dilation, groups, bias=False)
        last = [] if activation is None else [activation()]
        super().__init__(conv, torch.nn.BatchNorm2d(channels, **(norm or {})), *last)


def fcn_head(in_channels: int, channels: int, num_classes: int, dropout: torch.nn.Module) -> Fused:
    """A 3 x 3 convolution with norm and ReLU, dropout, and a 1 x 1 convolution: torchvision's and PSPNet's head."""
    return Fused(*ConvNormReLU(in_channels, channels, 3), dropout, Conv2d(channels, num_classes, 1))


def initialize(model: torch.nn.Module) -> None:
    """Fresh weights: He et al. 2015 for every convolution by what enters it, zeros for biases."""
    for module in model.modules():
        if isinstance(module, torch.nn.Conv2d | torch.nn.ConvTranspose2d):
            weight = module.weight
            fan = weight[0].numel()
            if isinstance(module, torch.nn.ConvTranspose2d):  # a pixel of the result meets one tap in stride x stride
                fan = weight.shape[0] * weight[0, 0].numel() // (module.groups * math.prod(module.stride)) or 1
            torch.nn.init.normal_(weight, 0.0, math.sqrt(2.0 / fan))
            if module.bias is not None:
                torch.nn.init.zeros_(module.bias)


# ---- sizes ----------------------------------------------------------------------------------------------


def channels_of(op: str, base_channels: Any) -> int:
    """The checked width of a network's first layer."""
    base = _check.integer(op, "base_channels", base_channels, 4, 4096)
    if base % 4:
        _check.fail(op, "base_channels", "be a multiple of 4", base)
    return base


def steps(strides: Sequence[int], output_stride: int, *, start: int = 1, own: bool = False) -> list[tuple[int, int]]:
    """Stride and dilation of each block of a network whose map is to be no coarser than ``output_stride``.

    A stride that would make it coarser is given up, and the blocks after it are dilated by it: they see the same
    neighbours as before. ``start`` is the stride in front of the first block; ``own`` says whether the block that gave
    its stride up is dilated, too.
    """
    dilation, found = 1, []
    for stride in strides:
        if start * stride <= output_stride:
            start *= stride
            found.append((stride, dilation))
        else:
            found.append((1, dilation * stride if own else dilation))
            dilation *= stride
    return found


# ---- the frame ------------------------------------------------------------------------------------------


class Network(torch.nn.Module):
    """A segmentation network: scores of a coarser map, enlarged bilinearly to the size of the image.

    Subclasses compute :meth:`scores`.
    """

    align_corners = False

    def __init__(self, op: str, num_classes: Any, in_channels: Any = 3, least: int = 1) -> None:
        super().__init__()
        self.op, self.least = op, least
        self.num_classes = _check.integer(op, "num_classes", num_classes, 1)
        self.in_channels = _check.integer(op, "in_channels", in_channels, 1)

    def scores(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """Logits of checked images at the network's own resolution; with an auxiliary head, in training, both."""
        raise NotImplementedError

    def forward(self, x: Tensor, upsample: bool = True) -> Any:
        """Logits [N, num_classes, H, W] of images ``x`` [N, C, H, W].

        Without ``upsample`` they come at the network's own resolution, for :func:`cv3gpu.upsample_cross_entropy` and
        :func:`cv3gpu.upsample_argmax`, which need no logits at full size.
        """
        check_floats(self.op, "x", x)
        _check.shape(self.op, "x", x, ["N", self.in_channels, "H", "W"])
        h, w = x.shape[2:]
        if h < self.least or w < self.least:
            _check.fail(self.op, "x", f"have at least {self.least} rows and columns", (h, w))
        found = self.scores(x)
        if isinstance(found, Tensor):
            return self._enlarged(found, h, w) if upsample else found
        return Logits(*(self._enlarged(y, h, w) if upsample else y for y in found))

    def _with_aux(self, y: Tensor, head: Any, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """The scores ``y``; in training with those of an auxiliary head of ``x``, where there is one."""
        return (y, head(x)) if self.training and head is not None else y

    def _enlarged(self, y: Tensor, h: int, w: int) -> Tensor:
        if y.shape[2] == h and y.shape[3] == w:
            return y
        return interpolate(y, (h, w), mode="bilinear", align_corners=self.align_corners)
