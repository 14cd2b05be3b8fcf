"""DeepLab, versions 1, 2, 3 and 3+."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ... import _check
from ...pyramid import pyramid_pool
from ...resize import interpolate
from ..heads import ASPP
from ..layers import Conv2d, MaxPool2d, SeparableConv2d
from ._backbones import RESNETS, MobileNetV2, MobileNetV3, ResNet, Xception, check_backbone
from ._blocks import (
    OUTPUT_STRIDES,
    VGG16,
    ConvNormReLU,
    Fused,
    Network,
    channels_of,
    fcn_head,
    initialize,
    steps,
)

__all__ = [
    "DeepLabV1",
    "DeepLabV2",
    "DeepLabV3",
    "DeepLabV3Plus",
    "deeplabv1",
    "deeplabv2",
    "deeplabv3",
    "deeplabv3plus",
]


def _rates(op: str, given: Any, default: Sequence[int]) -> tuple[int, ...]:
    """Checked atrous rates."""
    if given is None:
        return tuple(default)
    if not isinstance(given, Sequence) or isinstance(given, str) or not given:
        _check.fail(op, "atrous_rates", "be a sequence of integers", repr(given), error=TypeError)
    return tuple(_check.integer(op, "atrous_rates", rate, 1) for rate in given)


def _scaled(rates: Sequence[int], output_stride: int) -> tuple[int, ...]:
    """Rates for a stride of 8, for another one: as far in the image."""
    return tuple(max(1, rate * 8 // output_stride) for rate in rates)


# ---- versions 1 and 2 -----------------------------------------------------------------------------------


def _vgg(in_channels: int, base: int, output_stride: int) -> Fused:
    """VGG-16's convolutions; pools of 3 x 3 that keep the size give their stride up for dilation of what follows."""
    layers: list[torch.nn.Module] = []
    planned = steps((2,) * len(VGG16), output_stride)
    dilation = 1
    for stage, (stride, _) in zip(VGG16, planned, strict=True):
        for n in stage:
            layers += [Conv2d(in_channels, n * base, 3, padding=dilation, dilation=dilation), torch.nn.ReLU()]
            in_channels = n * base
        layers.append(MaxPool2d(3, stride, 1))
        dilation *= 2 // stride
    return Fused(*layers)


def _large_field(in_channels: int, channels: int, num_classes: int, rate: int, dropout: float) -> Fused:
    """The three layers in place of VGG's fully connected ones."""
    return Fused(
        Conv2d(in_channels, channels, 3, padding=rate, dilation=rate),
        torch.nn.ReLU(),
        torch.nn.Dropout(dropout),
        Conv2d(channels, channels, 1),
        torch.nn.ReLU(),
        torch.nn.Dropout(dropout),
        Conv2d(channels, num_classes, 1),
    )


class DeepLabV1(Network):
    """The network of :func:`deeplabv1`."""

    def __init__(
        self,
        num_classes: int,
        *,
        output_stride: int = 8,
        rate: int | None = None,
        in_channels: int = 3,
        base_channels: int = 64,
        dropout: float = 0.5,
    ) -> None:
        op = "deeplabv1"
        super().__init__(op, num_classes, in_channels)
        check_backbone(op, "vgg16", ("vgg16",), output_stride, OUTPUT_STRIDES)
        base = channels_of(op, base_channels)
        (rate,) = _scaled((12,), output_stride) if rate is None else (_check.integer(op, "rate", rate, 1),)
        self.backbone = _vgg(self.in_channels, base, output_stride)
        self.classifier = _large_field(8 * base, 16 * base, self.num_classes, rate, dropout)
        initialize(self)

    def scores(self, x: Tensor) -> Tensor:
        """Logits at the output stride."""
        return self.classifier(self.backbone(x))


def deeplabv1(
    num_classes: int,
    *,
    output_stride: int = 8,
    rate: int | None = None,
    in_channels: int = 3,
    base_channels: int = 64,
    dropout: float = 0.5,
) -> DeepLabV1:
    """DeepLab's first version (LargeFOV): VGG-16 with dilated convolutions, and a large field of view.

    Parameters
    ----------
    num_classes : int
    output_stride : {8, 16, 32}
        Of the scores; pools that would make them coarser lose their stride, and what follows is dilated.
    rate : int, optional
        Dilation of the 3 x 3 convolution in place of VGG's first fully connected layer; 12 at an output stride of 8,
        and as far in the image at another.
    in_channels : int
        Channels of the images.
    base_channels : int, a multiple of 4
        Width of the first layers; 64 is VGG-16's.
    dropout : float
        Share of the values of the last two layers that training drops.

    Returns
    -------
    torch.nn.Module
        Images [N, in_channels, H, W] of any size give logits [N, num_classes, H, W], or before enlargement those of
        ``network(x, upsample=False)``.

    Notes
    -----
    20.51 M parameters with 21 classes (the paper: 20.5 M). The paper sharpens the result by a CRF: see
    :class:`cv3gpu.nn.DenseCRF`. The ``state_dict`` has ``backbone.i`` (convolution, ReLU, and a pool after each stage)
    and ``classifier.{0,3,6}``.

    References
    ----------
    L.-C. Chen et al., Semantic image segmentation with deep convolutional nets and fully connected CRFs, ICLR 2015.

    Examples
    --------
    >>> import torch, cv3gpu.nn.models
    >>> network = cv3gpu.nn.models.deeplabv1(21, base_channels=4).eval()
    >>> network(torch.zeros(1, 3, 45, 60)).shape, network(torch.zeros(1, 3, 45, 60), upsample=False).shape
    (torch.Size([1, 21, 45, 60]), torch.Size([1, 21, 6, 8]))
    """
    return DeepLabV1(
        num_classes,
        output_stride=output_stride,
        rate=rate,
        in_channels=in_channels,
        base_channels=base_channels,
        dropout=dropout,
    )


class DeepLabV2(Network):
    """The network of :func:`deeplabv2`."""

    def __init__(
        self,
        num_classes: int,
        *,
        backbone: str = "resnet101",
        output_stride: int = 8,
        atrous_rates: Sequence[int] | None = None,
        in_channels: int = 3,
        base_channels: int = 64,
        dropout: float = 0.5,
    ) -> None:
        op = "deeplabv2"
        super().__init__(op, num_classes, in_channels)
        check_backbone(op, backbone, (*RESNETS, "vgg16"), output_stride, OUTPUT_STRIDES)
        base, classes = channels_of(op, base_channels), self.num_classes
        rates = _rates(op, atrous_rates, _scaled((6, 12, 18, 24), output_stride))
        self.backbone: Any
        branches: Any
        if backbone == "vgg16":
            self.backbone = _vgg(self.in_channels, base, output_stride)
            branches = (_large_field(8 * base, 16 * base, classes, rate, dropout) for rate in rates)
        else:
            self.backbone = ResNet(backbone, self.in_channels, base, output_stride)
            last = self.backbone.widths[-1]
            branches = (Conv2d(last, classes, 3, padding=rate, dilation=rate) for rate in rates)
        self.classifier = torch.nn.ModuleList(branches)
        initialize(self)

    def scores(self, x: Tensor) -> Tensor:
        """Logits at the output stride."""
        found = self.backbone(x)
        last = found if isinstance(found, Tensor) else found[-1]
        first, *rest = self.classifier
        y = first(last)
        for branch in rest:
            y = y + branch(last)
        return y


def deeplabv2(
    num_classes: int,
    *,
    backbone: str = "resnet101",
    output_stride: int = 8,
    atrous_rates: Sequence[int] | None = None,
    in_channels: int = 3,
    base_channels: int = 64,
    dropout: float = 0.5,
) -> DeepLabV2:
    """DeepLab's second version: scores of convolutions of several rates, summed (ASPP).

    Parameters
    ----------
    num_classes : int
    backbone : {"resnet101", "resnet50", "resnet18", "resnet34", "resnet152", "vgg16"}
    output_stride : {8, 16, 32}
        Of the scores; strides that would make them coarser are replaced by dilation.
    atrous_rates : sequence of int, optional
        Dilations of the branches: 6, 12, 18, 24 at an output stride of 8 (ASPP-L), and as far in the image at another.
    in_channels : int
        Channels of the images.
    base_channels : int, a multiple of 4
        Width of the first layer; 64 is the backbones' own.
    dropout : float
        With VGG-16, share of the values of each branch's layers that training drops.

    Returns
    -------
    torch.nn.Module
        Images [N, in_channels, H, W] of any size give logits [N, num_classes, H, W], or before enlargement those of
        ``network(x, upsample=False)``.

    Notes
    -----
    44.05 M (resnet101) and 37.88 M (vgg16: three layers in each branch) parameters with 21 classes. The ResNet is
    torchvision's, with the stride in the 3 x 3 convolution. The ``state_dict`` has ``backbone`` (torchvision's names,
    or ``backbone.i`` as in :func:`deeplabv1`) and ``classifier.i``, one for each rate.

    References
    ----------
    L.-C. Chen et al., DeepLab: semantic image segmentation with deep convolutional nets, atrous convolution, and fully
    connected CRFs, PAMI 2018.

    Examples
    --------
    >>> import torch, cv3gpu.nn.models
    >>> network = cv3gpu.nn.models.deeplabv2(21, backbone="resnet18", base_channels=4).eval()
    >>> network(torch.zeros(1, 3, 45, 60)).shape
    torch.Size([1, 21, 45, 60])
    """
    return DeepLabV2(
        num_classes,
        backbone=backbone,
        output_stride=output_stride,
        atrous_rates=atrous_rates,
        in_channels=in_channels,
        base_channels=base_channels,
        dropout=dropout,
    )


# ---- version 3 ------------------------------------------------------------------------------------------


class DeepLabV3(Network):
    """The network of :func:`deeplabv3`."""

    def __init__(
        self,
        num_classes: int,
        *,
        backbone: str = "resnet50",
        output_stride: int | None = None,
        atrous_rates: Sequence[int] | None = None,
        aux: bool = False,
        in_channels: int = 3,
        base_channels: int = 64,
    ) -> None:
        op = "deeplabv3"
        super().__init__(op, num_classes, in_channels)
        mobile = backbone == "mobilenet_v3_large"
        stride = (16 if mobile else 8) if output_stride is None else output_stride
        check_backbone(op, backbone, (*RESNETS, "mobilenet_v3_large"), stride, OUTPUT_STRIDES)
        base, classes = channels_of(op, base_channels), self.num_classes
        rates = _rates(op, atrous_rates, (12, 24, 36) if mobile else _scaled((12, 24, 36), stride))
        self.backbone: Any
        if mobile:
            self.backbone = MobileNetV3(self.in_channels, base / 64, stride)
        else:
            self.backbone = ResNet(backbone, self.in_channels, base, stride)
        *_, before, last = self.backbone.widths
        head = [ASPP(last, rates, 4 * base), *ConvNormReLU(4 * base, 4 * base, 3), Conv2d(4 * base, classes, 1)]
        self.classifier = Fused(*head)
        has_aux = _check.flag(op, "aux", aux)
        self.aux_classifier = fcn_head(before, before // 4, classes, torch.nn.Dropout(0.1)) if has_aux else None
        initialize(self)

    def scores(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """Logits at the output stride."""
        *_, before, last = self.backbone(x)
        return self._with_aux(self.classifier(last), self.aux_classifier, before)


def deeplabv3(
    num_classes: int,
    *,
    backbone: str = "resnet50",
    output_stride: int | None = None,
    atrous_rates: Sequence[int] | None = None,
    aux: bool = False,
    in_channels: int = 3,
    base_channels: int = 64,
) -> DeepLabV3:
    """DeepLab's third version: atrous spatial pyramid pooling with the image's mean.

    Parameters
    ----------
    num_classes : int
    backbone : {"resnet50", "resnet101", "mobilenet_v3_large", "resnet18", "resnet34", "resnet152"}
    output_stride : {8, 16, 32}, optional
        Of the backbone's maps; strides that would make them coarser are replaced by dilation. 8 for a ResNet and 16
        for MobileNetV3 unless given, as torchvision has it.
    atrous_rates : sequence of int, optional
        Dilations of the 3 x 3 branches: 12, 24, 36 at torchvision's output strides; a ResNet's are scaled with another
        one (6, 12, 18 at 16).
    aux : bool
        Whether there is a second head (on stage 3; at stride 8 of MobileNetV3); the network then returns
        ``(logits, aux)`` in training.
    in_channels : int
        Channels of the images.
    base_channels : int, a multiple of 4
        Width of the first layer; 64 stands for the published widths.

    Returns
    -------
    torch.nn.Module
        Images [N, in_channels, H, W] of any size give logits [N, num_classes, H, W], or before enlargement those of
        ``network(x, upsample=False)``.

    Notes
    -----
    42.00 M (resnet50), 61.00 M (resnet101), 11.03 M (mobilenet_v3_large) parameters with the second head and 21
    classes. The ``state_dict`` is that of torchvision's ``deeplabv3_resnet50``, ``deeplabv3_resnet101`` and
    ``deeplabv3_mobilenet_v3_large``. Training needs two images or more in a batch, for the norm of the image's mean.

    References
    ----------
    L.-C. Chen et al., Rethinking atrous convolution for semantic image segmentation, 2017.

    Examples
    --------
    >>> import torch, cv3gpu.nn.models
    >>> network = cv3gpu.nn.models.deeplabv3(21, backbone="resnet18", base_channels=4).eval()
    >>> network(torch.zeros(1, 3, 45, 60)).shape
    torch.Size([1, 21, 45, 60])
    """
    return DeepLabV3(
        num_classes,
        backbone=backbone,
        output_stride=output_stride,
        atrous_rates=atrous_rates,
        aux=aux,
        in_channels=in_channels,
        base_channels=base_channels,
    )


# ---- version 3+ -----------------------------------------------------------------------------------------


def _separable(in_channels: int, channels: int, dilation: int) -> SeparableConv2d:
    """A depthwise separable 3 x 3 convolution with norm and ReLU after both parts."""
    options: Any = {"mid_norm": True, "mid_activation": "relu", "norm": True, "activation": "relu"}
    return SeparableConv2d(in_channels, channels, 3, 1, dilation, dilation, bias=False, **options)


class _SeparableASPP(torch.nn.Module):
    """:class:`cv3gpu.nn.ASPP` with atrous separable convolutions in place of the 3 x 3 ones."""

    def __init__(self, in_channels: int, rates: Sequence[int], channels: int, dropout: float) -> None:
        super().__init__()
        pooled = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), *ConvNormReLU(in_channels, channels, 1))
        first = ConvNormReLU(in_channels, channels, 1)
        branches = [_separable(in_channels, channels, rate) for rate in rates]
        self.convs = torch.nn.ModuleList([first, *branches, pooled])
        last = ConvNormReLU((len(rates) + 2) * channels, channels, 1)
        self.project = Fused(*last, torch.nn.Dropout(dropout))

    def forward(self, x: Tensor) -> Tensor:
        *branches, pooled = self.convs
        mean = pyramid_pool(x, (1,))
        for layer in list(pooled.children())[1:]:
            mean = layer(mean)
        return self.project(torch.cat([*(f(x) for f in branches), mean.expand(-1, -1, *x.shape[2:])], 1))


class _Decoder(torch.nn.Module):
    def __init__(
        self, widths: Sequence[int], rates: Sequence[int], base: int, num_classes: int, separable: bool
    ) -> None:
        super().__init__()
        low, last = widths
        channels, few = 4 * base, max(1, 3 * base // 4)
        self.project = ConvNormReLU(low, few, 1)
        if separable:
            self.aspp: torch.nn.Module = _SeparableASPP(last, rates, channels, 0.1)
            mixing = [_separable(few + channels, channels, 1), _separable(channels, channels, 1)]
        else:
            self.aspp = ASPP(last, rates, channels, 0.1)
            mixing = [*ConvNormReLU(few + channels, channels, 3)]
        self.classifier = Fused(*mixing, Conv2d(channels, num_classes, 1))

    def forward(self, low: Tensor, last: Tensor) -> Tensor:
        low, last = self.project(low), self.aspp(last)
        last = interpolate(last, (low.shape[2], low.shape[3]), mode="bilinear", align_corners=False)
        return self.classifier(torch.cat([low, last], 1))


class DeepLabV3Plus(Network):
    """The network of :func:`deeplabv3plus`."""

    def __init__(
        self,
        num_classes: int,
        *,
        backbone: str = "resnet50",
        output_stride: int = 16,
        atrous_rates: Sequence[int] | None = None,
        separable: bool = True,
        in_channels: int = 3,
        base_channels: int = 64,
    ) -> None:
        op = "deeplabv3plus"
        super().__init__(op, num_classes, in_channels)
        check_backbone(op, backbone, (*RESNETS, "mobilenet_v2", "xception65"), output_stride, OUTPUT_STRIDES)
        base = channels_of(op, base_channels)
        rates = _rates(op, atrous_rates, _scaled((12, 24, 36), output_stride))
        self.backbone: Any
        if backbone in RESNETS:
            self.backbone = ResNet(backbone, self.in_channels, base, output_stride)
        else:
            kind = MobileNetV2 if backbone == "mobilenet_v2" else Xception
            self.backbone = kind(self.in_channels, base / 64, output_stride)
        widths = [self.backbone.widths[0], self.backbone.widths[-1]]
        self.classifier = _Decoder(widths, rates, base, self.num_classes, _check.flag(op, "separable", separable))
        initialize(self)

    def scores(self, x: Tensor) -> Tensor:
        """Logits at a quarter of the size of the image."""
        maps = self.backbone(x)
        return self.classifier(maps[0], maps[-1])


def deeplabv3plus(
    num_classes: int,
    *,
    backbone: str = "resnet50",
    output_stride: int = 16,
    atrous_rates: Sequence[int] | None = None,
    separable: bool = True,
    in_channels: int = 3,
    base_channels: int = 64,
) -> DeepLabV3Plus:
    """DeepLabv3+: DeepLabv3 with a decoder that takes over maps at a quarter of the image's size.

    Parameters
    ----------
    num_classes : int
    backbone : {"resnet50", "resnet101", "mobilenet_v2", "xception65", "resnet18", "resnet34", "resnet152"}
    output_stride : {8, 16, 32}
        Of the backbone's last maps; strides that would make them coarser are replaced by dilation.
    atrous_rates : sequence of int, optional
        Dilations of the 3 x 3 branches: 6, 12, 18 at an output stride of 16, and as far in the image at another.
    separable : bool
        Whether the 3 x 3 convolutions of the pyramid and of the decoder (two of them) are depthwise separable, as in
        the authors' code. Without, the decoder has one ordinary 3 x 3 convolution.
    in_channels : int
        Channels of the images.
    base_channels : int, a multiple of 4
        Width of the first layer; 64 stands for the published widths.

    Returns
    -------
    torch.nn.Module
        Images [N, in_channels, H, W] of any size give logits [N, num_classes, H, W], or before enlargement (at a
        quarter of the size) those of ``network(x, upsample=False)``.

    Notes
    -----
    41.06 M parameters with xception65 and 21 classes (41 258 213 numbers with the norms' statistics, as in the authors'
    checkpoint). The ``state_dict`` has ``backbone`` (torchvision's names for ResNets; ``backbone.i`` as in the
    ``features`` of torchvision's MobileNetV2), ``classifier.project``, ``classifier.aspp`` and
    ``classifier.classifier``: with a ResNet and ``separable=False`` all keys are those of the widely used
    DeepLabV3Plus-Pytorch. Norms have torch's eps, but 1e-3 in Xception; convolutions pad evenly. Training needs two
    images or more in a batch, for the norm of the image's mean.

    References
    ----------
    L.-C. Chen et al., Encoder-decoder with atrous separable convolution for semantic image segmentation, ECCV 2018.

    Examples
    --------
    >>> import torch, cv3gpu.nn.models
    >>> network = cv3gpu.nn.models.deeplabv3plus(21, backbone="mobilenet_v2", base_channels=8).eval()
    >>> network(torch.zeros(1, 3, 45, 60)).shape
    torch.Size([1, 21, 45, 60])
    """
    return DeepLabV3Plus(
        num_classes,
        backbone=backbone,
        output_stride=output_stride,
        atrous_rates=atrous_rates,
        separable=separable,
        in_channels=in_channels,
        base_channels=base_channels,
    )
