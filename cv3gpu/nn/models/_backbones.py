"""Backbones: ResNet, MobileNetV2 and V3, Xception, and the strides that they give up for dilation.

A backbone maps images to its low-level features and its last ones. Names of parameters are those of torchvision, where
it has the network.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from ... import _check
from ..layers import Conv2d, MaxPool2d, SeparableConv2d
from ._blocks import ConvNormReLU, Fused, fused, steps

__all__ = ["RESNETS", "MobileNetV2", "MobileNetV3", "ResNet", "Xception", "check_backbone", "resnet_layers"]


# ---- ResNet ---------------------------------------------------------------------------------------------


class _BasicBlock(torch.nn.Module):
    expansion = 1

    def __init__(self, in_channels: int, channels: int, stride: int, first: int, dilation: int) -> None:
        super().__init__()
        self.conv1 = Conv2d(in_channels, channels, 3, stride, first, first, bias=False)
        self.bn1 = torch.nn.BatchNorm2d(channels)
        self.conv2 = Conv2d(channels, channels, 3, 1, dilation, dilation, bias=False)
        self.bn2 = torch.nn.BatchNorm2d(channels)
        self.downsample = _shortcut(in_channels, channels, stride)

    def forward(self, x: Tensor) -> Tensor:
        y = fused(x, self.conv1, self.bn1, "relu")
        y = fused(y, self.conv2, self.bn2)
        return (y + (x if self.downsample is None else self.downsample(x))).relu_()


class _Bottleneck(torch.nn.Module):
    expansion = 4

    def __init__(self, in_channels: int, channels: int, stride: int, first: int, dilation: int) -> None:
        super().__init__()
        out = channels * self.expansion
        self.conv1 = Conv2d(in_channels, channels, 1, bias=False)
        self.bn1 = torch.nn.BatchNorm2d(channels)
        self.conv2 = Conv2d(channels, channels, 3, stride, first, first, bias=False)
        self.bn2 = torch.nn.BatchNorm2d(channels)
        self.conv3 = Conv2d(channels, out, 1, bias=False)
        self.bn3 = torch.nn.BatchNorm2d(out)
        self.downsample = _shortcut(in_channels, out, stride)

    def forward(self, x: Tensor) -> Tensor:
        y = fused(x, self.conv1, self.bn1, "relu")
        y = fused(y, self.conv2, self.bn2, "relu")
        y = fused(y, self.conv3, self.bn3)
        return (y + (x if self.downsample is None else self.downsample(x))).relu_()


def _shortcut(in_channels: int, channels: int, stride: int) -> Fused | None:
    if stride == 1 and in_channels == channels:
        return None
    return ConvNormReLU(in_channels, channels, 1, stride, activation=None)


RESNETS: dict[str, tuple[type[_BasicBlock] | type[_Bottleneck], tuple[int, ...]]] = {
    "resnet18": (_BasicBlock, (2, 2, 2, 2)),
    "resnet34": (_BasicBlock, (3, 4, 6, 3)),
    "resnet50": (_Bottleneck, (3, 4, 6, 3)),
    "resnet101": (_Bottleneck, (3, 4, 23, 3)),
    "resnet152": (_Bottleneck, (3, 8, 36, 3)),
}


def resnet_layers(
    name: str, in_channels: int, base: int, output_stride: int, *, own: bool = False
) -> tuple[list[torch.nn.Sequential], list[int]]:
    """The four stages of a ResNet behind its stem, and their widths.

    A stage that gives up its stride is dilated, its first block only if ``own``: torchvision's and PSPNet's ways.
    """
    block, lengths = RESNETS[name]
    found, widths = [], []
    for i, (length, (stride, first)) in enumerate(
        zip(lengths, steps((1, 2, 2, 2), output_stride, start=4, own=own), strict=True)
    ):
        given_up = 2 if i and stride == 1 and not own else 1
        channels, blocks = base << i, []
        for j in range(length):
            dilation = first * given_up
            blocks.append(block(in_channels, channels, 1 if j else stride, dilation if j else first, dilation))
            in_channels = channels * block.expansion
        found.append(torch.nn.Sequential(*blocks))
        widths.append(in_channels)
    return found, widths


class ResNet(torch.nn.Module):
    """A ResNet without its classifier; maps of stages 1 to 4.

    K. He et al., Deep residual learning for image recognition, CVPR 2016; the stride of a bottleneck stands in its
    3 x 3 convolution, as in torchvision, whose names the parameters have.
    """

    def __init__(self, name: str, in_channels: int, base: int, output_stride: int) -> None:
        super().__init__()
        self.conv1 = Conv2d(in_channels, base, 7, 2, 3, bias=False)
        self.bn1 = torch.nn.BatchNorm2d(base)
        self.maxpool = MaxPool2d(3, 2, 1)
        layers, self.widths = resnet_layers(name, base, base, output_stride)
        self.layer1, self.layer2, self.layer3, self.layer4 = layers

    def forward(self, x: Tensor) -> list[Tensor]:
        """Maps of ``x`` [N, C, H, W] after each stage."""
        x = self.maxpool(fused(x, self.conv1, self.bn1, "relu"))
        maps = []
        for layer in (self.layer1, self.layer2, self.layer3, self.layer4):
            x = layer(x)
            maps.append(x)
        return maps


# ---- MobileNet ------------------------------------------------------------------------------------------


def _rounded(channels: float) -> int:
    """The nearest multiple of 8, which may not lose more than a tenth."""
    found = max(8, int(channels + 4) // 8 * 8)
    return found + 8 if found < 0.9 * channels else found


class _InvertedResidualV2(torch.nn.Module):
    def __init__(
        self, in_channels: int, channels: int, expand: int, stride: int, dilation: int, residual: bool
    ) -> None:
        super().__init__()
        middle, relu6 = in_channels * expand, torch.nn.ReLU6
        first = [ConvNormReLU(in_channels, middle, 1, activation=relu6)] if expand > 1 else []
        depthwise = ConvNormReLU(middle, middle, 3, stride, dilation, middle, activation=relu6)
        self.conv = Fused(*first, depthwise, *ConvNormReLU(middle, channels, 1, activation=None))
        self.residual = residual and in_channels == channels

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(x) if self.residual else self.conv(x)


# expansion, channels, blocks, stride of the first
_V2 = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))


class MobileNetV2(torch.nn.Sequential):
    """MobileNetV2 up to its last block: the ``features`` of torchvision's, without the classifier's convolution.

    M. Sandler et al., MobileNetV2: inverted residuals and linear bottlenecks, CVPR 2018.
    """

    def __init__(self, in_channels: int, width: float, output_stride: int) -> None:
        settings = [(t, c, s if i == 0 else 1) for t, c, n, s in _V2 for i in range(n)]
        planned = steps([s for *_, s in settings], output_stride, start=2)
        channels = _rounded(32 * width)
        layers: list[torch.nn.Module] = [ConvNormReLU(in_channels, channels, 3, 2, activation=torch.nn.ReLU6)]
        for (expand, c, wanted), (stride, dilation) in zip(settings, planned, strict=True):
            out = _rounded(c * width)
            layers.append(_InvertedResidualV2(channels, out, expand, stride, dilation, residual=wanted == 1))
            channels = out
        super().__init__(*layers)
        self.widths = [_rounded(24 * width), channels]

    def forward(self, input: Tensor) -> list[Tensor]:
        """Maps of ``input`` at a quarter of its size, and the last ones."""
        return _maps(self, input, 3)


def _maps(layers: torch.nn.Sequential, x: Tensor, low: int) -> list[Tensor]:
    """What comes out of module ``low``, and of the last."""
    maps = []
    for i, layer in enumerate(layers):
        x = layer(x)
        if i == low:
            maps.append(x)
    return [*maps, x]


class _SqueezeExcitation(torch.nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fc1 = Conv2d(channels, _rounded(channels // 4), 1)
        self.fc2 = Conv2d(_rounded(channels // 4), channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        mean = fused(x.mean((2, 3), keepdim=True), self.fc1, None, "relu")
        return x * functional.hardsigmoid(self.fc2(mean))


class _InvertedResidualV3(torch.nn.Module):
    def __init__(
        self, sizes: tuple[int, int, int, int], excite: bool, hard: bool, stride: int, dilation: int, residual: bool
    ) -> None:
        super().__init__()
        in_channels, kernel_size, middle, channels = sizes
        options: Any = {"activation": torch.nn.Hardswish if hard else torch.nn.ReLU, "norm": _V3_NORM}
        first = [ConvNormReLU(in_channels, middle, 1, **options)] if middle != in_channels else []
        self.block = Fused(
            *first,
            ConvNormReLU(middle, middle, kernel_size, stride, dilation, middle, **options),
            *([_SqueezeExcitation(middle)] if excite else []),
            ConvNormReLU(middle, channels, 1, activation=None, norm=_V3_NORM),
        )
        self.residual = residual and in_channels == channels

    def forward(self, x: Tensor) -> Tensor:
        return x + self.block(x) if self.residual else self.block(x)


_V3_NORM = {"eps": 1e-3, "momentum": 0.01}
_V3_LARGE = (  # kernel, expanded, channels, squeeze and excitation, hard swish, stride
    (3, 16, 16, False, False, 1),
    (3, 64, 24, False, False, 2),
    (3, 72, 24, False, False, 1),
    (5, 72, 40, True, False, 2),
    (5, 120, 40, True, False, 1),
    (5, 120, 40, True, False, 1),
    (3, 240, 80, False, True, 2),
    (3, 200, 80, False, True, 1),
    (3, 184, 80, False, True, 1),
    (3, 184, 80, False, True, 1),
    (3, 480, 112, True, True, 1),
    (3, 672, 112, True, True, 1),
    (5, 672, 160, True, True, 2),
    (5, 960, 160, True, True, 1),
    (5, 960, 160, True, True, 1),
)


class MobileNetV3(torch.nn.Sequential):
    """MobileNetV3-Large up to its last convolution: the ``features`` of torchvision's.

    A. Howard et al., Searching for MobileNetV3, ICCV 2019. A block that gives up its stride is dilated itself, as
    torchvision has it.
    """

    def __init__(self, in_channels: int, width: float, output_stride: int) -> None:
        planned = steps([s for *_, s in _V3_LARGE], output_stride, start=2, own=True)
        swish: Any = {"activation": torch.nn.Hardswish, "norm": _V3_NORM}
        channels = _rounded(16 * width)
        layers: list[torch.nn.Module] = [ConvNormReLU(in_channels, channels, 3, 2, **swish)]
        for (kernel_size, expanded, out, excite, hard, wanted), (stride, dilation) in zip(
            _V3_LARGE, planned, strict=True
        ):
            sizes = channels, kernel_size, _rounded(expanded * width), _rounded(out * width)
            layers.append(_InvertedResidualV3(sizes, excite, hard, stride, dilation, residual=wanted == 1))
            channels = sizes[-1]
        layers.append(ConvNormReLU(channels, 6 * channels, 1, **swish))
        super().__init__(*layers)
        self.widths = [_rounded(40 * width), 6 * channels]

    def forward(self, input: Tensor) -> list[Tensor]:
        """Maps of ``input`` at an eighth of its size, and the last ones."""
        return _maps(self, input, 4)


# ---- Xception -------------------------------------------------------------------------------------------

_XCEPTION_EPS = 1e-3


class _XceptionBlock(torch.nn.Module):
    """Three separable convolutions, and what was put in, as it is or through a 1 x 1 convolution, or not at all."""

    def __init__(
        self, in_channels: int, widths: Sequence[int], stride: int, dilation: int, shortcut: str, inner: bool = False
    ) -> None:
        super().__init__()
        layers = []
        for i, width in enumerate(widths):
            layers.append(
                SeparableConv2d(
                    in_channels if i == 0 else widths[i - 1],
                    width,
                    3,
                    stride if i == 2 else 1,
                    dilation,
                    dilation,
                    bias=False,
                    mid_norm=True,
                    mid_activation="relu" if inner else None,
                    norm=True,
                    activation="relu" if inner else None,
                    eps=_XCEPTION_EPS,
                )
            )
        self.layers, self.shortcut, self.inner = torch.nn.ModuleList(layers), shortcut, inner
        options: Any = {"activation": None, "norm": {"eps": _XCEPTION_EPS}}
        self.skip = ConvNormReLU(in_channels, widths[-1], 1, stride, **options) if shortcut == "conv" else None

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The result, and the map in front of the last convolution."""
        maps = [x]
        for layer in self.layers:
            maps.append(layer(maps[-1] if self.inner else functional.relu(maps[-1])))
        y = maps[-1]
        if self.shortcut != "none":
            y = y + (x if self.skip is None else self.skip(x))
        return y, maps[-2]


class Xception(torch.nn.Module):
    """Aligned Xception-65, as DeepLabv3+ has it: all pooling replaced by strided separable convolutions.

    F. Chollet, Xception: deep learning with depthwise separable convolutions, CVPR 2017; L.-C. Chen et al., ECCV 2018,
    figure 4.
    """

    def __init__(self, in_channels: int, width: float, output_stride: int) -> None:
        super().__init__()
        c32, c64, c128, c256, c728, c1024, c1536, c2048 = (
            _rounded(n * width) for n in (32, 64, 128, 256, 728, 1024, 1536, 2048)
        )
        norm = {"eps": _XCEPTION_EPS}
        self.conv1 = ConvNormReLU(in_channels, c32, 3, 2, norm=norm)
        self.conv2 = ConvNormReLU(c32, c64, 3, norm=norm)
        settings = [
            (c64, [c128] * 3, 2, "conv"),
            (c128, [c256] * 3, 2, "conv"),
            (c256, [c728] * 3, 2, "conv"),
            *[(c728, [c728] * 3, 1, "sum")] * 16,
            (c728, [c728, c1024, c1024], 2, "conv"),
            (c1024, [c1536, c1536, c2048], 1, "none"),
        ]
        planned = steps([s for *_, s, _ in settings], output_stride, start=2)
        self.blocks = torch.nn.ModuleList(
            _XceptionBlock(before, widths, stride, dilation, shortcut, inner=shortcut == "none")
            for (before, widths, _, shortcut), (stride, dilation) in zip(settings, planned, strict=True)
        )
        self.widths = [c256, c2048]

    def forward(self, x: Tensor) -> list[Tensor]:
        """Maps of ``x`` at a quarter of its size, and the last ones."""
        x = self.conv2(self.conv1(x))
        low = x
        for i, block in enumerate(self.blocks):
            x, before = block(x)
            if i == 1:
                low = before
        return [low, x]


def check_backbone(op: str, backbone: Any, allowed: Sequence[str], output_stride: Any, strides: Sequence[int]) -> None:
    """A known backbone, at an output stride that it can have."""
    _check.choice(op, "backbone", backbone, allowed)
    stride = _check.integer(op, "output_stride", output_stride, 1)
    if stride not in strides:
        _check.fail(op, "output_stride", f"be {', '.join(map(str, strides[:-1]))} or {strides[-1]}", stride)
