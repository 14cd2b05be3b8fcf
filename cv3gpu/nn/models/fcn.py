"""Fully convolutional networks: FCN-32s, FCN-16s and FCN-8s on VGG-16, and torchvision's on ResNets."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ... import _check
from ..layers import Conv2d, ConvTranspose2d, MaxPool2d
from ._backbones import RESNETS, ResNet, check_backbone
from ._blocks import OUTPUT_STRIDES, VGG16, Network, channels_of, fcn_head, fused, initialize

__all__ = ["FCN", "FCNResNet", "fcn8s", "fcn16s", "fcn32s", "fcn_resnet"]

# Where pool4's scores, pool3's and the result begin, when the image has 100 pixels of padding (the authors' numbers).
_CROPS = {32: (19,), 16: (5, 27), 8: (5, 9, 31)}


def _bilinear(channels: int, stride: int) -> ConvTranspose2d:
    """A transposed convolution that enlarges every channel bilinearly."""
    layer = ConvTranspose2d(channels, channels, 2 * stride, stride=stride, bias=False)
    line = 1 - (torch.arange(2 * stride) - (stride - 0.5)).abs() / stride
    with torch.no_grad():
        layer.weight.zero_()
        for c in range(channels):
            layer.weight[c, c] = line[:, None] * line
    return layer


class FCN(Network):
    """The network of :func:`fcn32s`, :func:`fcn16s` and :func:`fcn8s`."""

    def __init__(
        self,
        stride: int,
        num_classes: int,
        *,
        in_channels: int = 3,
        base_channels: int = 64,
        padding: int | str = 100,
        upsampling: str = "fixed",
        dropout: float = 0.5,
    ) -> None:
        op = f"fcn{stride}s"
        super().__init__(op, num_classes, in_channels)
        base, self.stride = channels_of(op, base_channels), stride
        if padding not in (100, "same") or isinstance(padding, float):
            _check.fail(op, "padding", "be 100 or 'same'", repr(padding))
        _check.choice(op, "upsampling", upsampling, ("fixed", "learnt"))
        self.padding, same, before = padding, padding == "same", self.in_channels
        for i, stage in enumerate(VGG16, 1):
            for j, n in enumerate(stage, 1):
                around = 100 if (i, j, same) == (1, 1, False) else 1
                self.add_module(f"conv{i}_{j}", Conv2d(before, n * base, 3, padding=around))
                before = n * base
        self.pool = MaxPool2d(2, ceil_mode=True)
        self.fc6 = Conv2d(before, 64 * base, 7, padding=3 if same else 0)
        self.fc7 = Conv2d(64 * base, 64 * base, 1)
        self.drop = torch.nn.Dropout2d(dropout)
        classes = self.num_classes
        self.score_fr = Conv2d(64 * base, classes, 1)
        if stride <= 16:
            self.score_pool4 = Conv2d(8 * base, classes, 1)
        if stride <= 8:
            self.score_pool3 = Conv2d(4 * base, classes, 1)
        initialize(self)
        if stride <= 16:
            self.upscore2 = _bilinear(classes, 2)
        if stride <= 8:
            self.upscore_pool4 = _bilinear(classes, 2)
        self.add_module("upscore" if stride == 32 else f"upscore{stride}", _bilinear(classes, stride))
        for module in self.modules():
            if isinstance(module, ConvTranspose2d):
                module.weight.requires_grad_(upsampling == "learnt")

    def scores(self, x: Tensor) -> Tensor:
        """Logits at the size of the image."""
        h, w = x.shape[2:]
        pools: list[Tensor] = []
        for i, stage in enumerate(VGG16, 1):
            for j in range(1, len(stage) + 1):
                x = fused(x, getattr(self, f"conv{i}_{j}"), None, "relu")
            x = self.pool(x)
            pools.append(x)
        x = self.drop(fused(x, self.fc6, None, "relu"))
        x = self.drop(fused(x, self.fc7, None, "relu"))
        x = self.score_fr(x)
        same = self.padding == "same"
        crops = [1, 1] if same else list(_CROPS[self.stride][:-1])
        if self.stride <= 16:
            x = self._joined(self.upscore2(x), self.score_pool4(pools[3]), crops[0])
        if self.stride <= 8:
            x = self._joined(self.upscore_pool4(x), self.score_pool3(pools[2]), crops[1])
        x = getattr(self, "upscore" if self.stride == 32 else f"upscore{self.stride}")(x)
        first = self.stride // 2 if same else _CROPS[self.stride][-1]
        return x[:, :, first : first + h, first : first + w].contiguous()

    def _joined(self, x: Tensor, skip: Tensor, first: int) -> Tensor:
        """The sum of both, of which the larger one is cut: the enlarged one only where the image has no padding."""
        if self.padding == "same":
            return x[:, :, first : first + skip.shape[2], first : first + skip.shape[3]] + skip
        return x + skip[:, :, first : first + x.shape[2], first : first + x.shape[3]]


def fcn32s(
    num_classes: int,
    *,
    in_channels: int = 3,
    base_channels: int = 64,
    padding: int | str = 100,
    upsampling: str = "fixed",
    dropout: float = 0.5,
) -> FCN:
    """FCN-32s: VGG-16 with its fully connected layers as convolutions, and its scores enlarged 32 times.

    Parameters
    ----------
    num_classes : int
    in_channels : int
        Channels of the images.
    base_channels : int, a multiple of 4
        Width of the first layers; with 64, VGG-16's, the two layers in place of the fully connected ones have 4096.
    padding : 100 or "same"
        100: pixels around the image, and no padding of the 7 x 7 convolution, as the authors have it. ``"same"``: every
        convolution keeps its size; far less to compute for a small image.
    upsampling : {"fixed", "learnt"}
        Whether the transposed convolutions, which start bilinear, are learnt.
    dropout : float
        Share of the channels of the last two layers that training drops.

    Returns
    -------
    torch.nn.Module
        Images [N, in_channels, H, W] of any size give logits [N, num_classes, H, W].

    Notes
    -----
    136.15 M parameters with 21 classes. The ``state_dict`` has the layers' names in the authors' files, as pytorch-fcn
    has them: ``conv1_1`` ..., ``fc6``, ``fc7``, ``score_fr``, ``upscore``. :func:`fcn16s` starts from these weights
    with ``load_state_dict(..., strict=False)``, and :func:`fcn8s` from those: the three stages of the paper.

    References
    ----------
    J. Long, E. Shelhamer, T. Darrell, Fully convolutional networks for semantic segmentation, CVPR 2015.

    Examples
    --------
    >>> import torch, cv3gpu.nn.models
    >>> network = cv3gpu.nn.models.fcn32s(11, base_channels=4, padding="same").eval()
    >>> network(torch.zeros(1, 3, 45, 60)).shape
    torch.Size([1, 11, 45, 60])
    """
    options: Any = {"in_channels": in_channels, "base_channels": base_channels, "padding": padding}
    return FCN(32, num_classes, **options, upsampling=upsampling, dropout=dropout)


def fcn16s(
    num_classes: int,
    *,
    in_channels: int = 3,
    base_channels: int = 64,
    padding: int | str = 100,
    upsampling: str = "fixed",
    dropout: float = 0.5,
) -> FCN:
    """FCN-16s: FCN-32s with scores of pool4 added at a stride of 16.

    Parameters
    ----------
    num_classes, in_channels, base_channels, padding, upsampling, dropout
        As for :func:`fcn32s`.

    Returns
    -------
    torch.nn.Module
        Images [N, in_channels, H, W] of any size give logits [N, num_classes, H, W].

    Notes
    -----
    134.82 M parameters with 21 classes. Beside the names of :func:`fcn32s` the ``state_dict`` has ``score_pool4``,
    ``upscore2`` and, in place of ``upscore``, ``upscore16``.

    References
    ----------
    J. Long, E. Shelhamer, T. Darrell, Fully convolutional networks for semantic segmentation, CVPR 2015.

    Examples
    --------
    >>> import torch, cv3gpu.nn.models
    >>> network = cv3gpu.nn.models.fcn16s(11, base_channels=4, padding="same").eval()
    >>> network(torch.zeros(1, 3, 45, 60)).shape
    torch.Size([1, 11, 45, 60])
    """
    options: Any = {"in_channels": in_channels, "base_channels": base_channels, "padding": padding}
    return FCN(16, num_classes, **options, upsampling=upsampling, dropout=dropout)


def fcn8s(
    num_classes: int,
    *,
    in_channels: int = 3,
    base_channels: int = 64,
    padding: int | str = 100,
    upsampling: str = "fixed",
    dropout: float = 0.5,
) -> FCN:
    """FCN-8s: FCN-16s with scores of pool3 added at a stride of 8.

    Parameters
    ----------
    num_classes, in_channels, base_channels, padding, upsampling, dropout
        As for :func:`fcn32s`.

    Returns
    -------
    torch.nn.Module
        Images [N, in_channels, H, W] of any size give logits [N, num_classes, H, W].

    Notes
    -----
    134.49 M parameters with 21 classes. Beside the names of :func:`fcn16s` the ``state_dict`` has ``score_pool3``,
    ``upscore_pool4`` and, in place of ``upscore16``, ``upscore8``.

    References
    ----------
    J. Long, E. Shelhamer, T. Darrell, Fully convolutional networks for semantic segmentation, CVPR 2015.

    Examples
    --------
    >>> import torch, cv3gpu.nn.models
    >>> network = cv3gpu.nn.models.fcn8s(11, base_channels=4, padding="same").eval()
    >>> network(torch.zeros(1, 3, 45, 60)).shape
    torch.Size([1, 11, 45, 60])
    """
    options: Any = {"in_channels": in_channels, "base_channels": base_channels, "padding": padding}
    return FCN(8, num_classes, **options, upsampling=upsampling, dropout=dropout)


class FCNResNet(Network):
    """The network of :func:`fcn_resnet`."""

    def __init__(
        self,
        num_classes: int,
        *,
        backbone: str = "resnet50",
        output_stride: int = 8,
        aux: bool = False,
        in_channels: int = 3,
        base_channels: int = 64,
    ) -> None:
        op = "fcn_resnet"
        super().__init__(op, num_classes, in_channels)
        check_backbone(op, backbone, tuple(RESNETS), output_stride, OUTPUT_STRIDES)
        self.backbone = ResNet(backbone, self.in_channels, channels_of(op, base_channels), output_stride)
        *_, third, last = self.backbone.widths
        self.classifier = fcn_head(last, last // 4, self.num_classes, torch.nn.Dropout(0.1))
        has_aux = _check.flag(op, "aux", aux)
        self.aux_classifier = fcn_head(third, third // 4, self.num_classes, torch.nn.Dropout(0.1)) if has_aux else None
        initialize(self)

    def scores(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """Logits at the output stride."""
        *_, third, last = self.backbone(x)
        return self._with_aux(self.classifier(last), self.aux_classifier, third)


def fcn_resnet(
    num_classes: int,
    *,
    backbone: str = "resnet50",
    output_stride: int = 8,
    aux: bool = False,
    in_channels: int = 3,
    base_channels: int = 64,
) -> FCNResNet:
    """The FCN of torchvision: a dilated ResNet, a 3 x 3 convolution and the scores.

    Parameters
    ----------
    num_classes : int
    backbone : {"resnet50", "resnet101", "resnet18", "resnet34", "resnet152"}
    output_stride : {8, 16, 32}
        Of the last stages' maps; strides that would make them coarser are replaced by dilation.
    aux : bool
        Whether there is a second head on stage 3; the network then returns ``(logits, aux)`` in training.
    in_channels : int
        Channels of the images.
    base_channels : int, a multiple of 4
        Width of the first layer; 64 is a ResNet's.

    Returns
    -------
    torch.nn.Module
        Images [N, in_channels, H, W] of any size give logits [N, num_classes, H, W], or before enlargement those of
        ``network(x, upsample=False)``.

    Notes
    -----
    35.32 M (resnet50) and 54.31 M (resnet101) parameters with the second head and 21 classes. The ``state_dict`` is
    that of torchvision's ``fcn_resnet50`` and ``fcn_resnet101``.

    References
    ----------
    J. Long, E. Shelhamer, T. Darrell, Fully convolutional networks for semantic segmentation, CVPR 2015. torchvision,
    models.segmentation.fcn.

    Examples
    --------
    >>> import torch, cv3gpu.nn.models
    >>> network = cv3gpu.nn.models.fcn_resnet(21, backbone="resnet18", base_channels=4).eval()
    >>> network(torch.zeros(1, 3, 45, 60)).shape
    torch.Size([1, 21, 45, 60])
    """
    return FCNResNet(
        num_classes,
        backbone=backbone,
        output_stride=output_stride,
        aux=aux,
        in_channels=in_channels,
        base_channels=base_channels,
    )
