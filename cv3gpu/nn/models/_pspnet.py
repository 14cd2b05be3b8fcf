"""PSPNet."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ... import _check
from ..heads import PyramidHead
from ..layers import MaxPool2d
from ._backbones import RESNETS, check_backbone, resnet_layers
from ._blocks import OUTPUT_STRIDES, ConvNormReLU, Fused, Network, channels_of, fcn_head, initialize

__all__ = ["PSPNet", "pspnet"]


class PSPNet(Network):
    """The network of :func:`pspnet`."""

    align_corners = True

    def __init__(
        self,
        num_classes: int,
        *,
        backbone: str = "resnet50",
        output_stride: int = 8,
        aux: bool = False,
        in_channels: int = 3,
        base_channels: int = 64,
        dropout: float = 0.1,
    ) -> None:
        op = "pspnet"
        super().__init__(op, num_classes, in_channels)
        check_backbone(op, backbone, tuple(RESNETS), output_stride, OUTPUT_STRIDES)
        base, classes = channels_of(op, base_channels), self.num_classes
        self.layer0 = Fused(
            *ConvNormReLU(self.in_channels, base, 3, 2),
            *ConvNormReLU(base, base, 3),
            *ConvNormReLU(base, 2 * base, 3),
            MaxPool2d(3, 2, 1),
        )
        layers, widths = resnet_layers(backbone, 2 * base, base, output_stride, own=True)
        self.layer1, self.layer2, self.layer3, self.layer4 = layers
        head = PyramidHead(widths[-1], classes, channels=8 * base, dropout=dropout)
        self.ppm, self.cls = head.ppm, head.cls
        has_aux = _check.flag(op, "aux", aux)
        self.aux = fcn_head(widths[2], 4 * base, classes, torch.nn.Dropout2d(dropout)) if has_aux else None
        initialize(self)

    def scores(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """Logits at the output stride."""
        third = self.layer3(self.layer2(self.layer1(self.layer0(x))))
        head: Any = PyramidHead.forward  # the head's names are the network's own, as in the authors' files
        return self._with_aux(head(self, self.layer4(third)), self.aux, third)


def pspnet(
    num_classes: int,
    *,
    backbone: str = "resnet50",
    output_stride: int = 8,
    aux: bool = False,
    in_channels: int = 3,
    base_channels: int = 64,
    dropout: float = 0.1,
) -> PSPNet:
    """PSPNet: a dilated ResNet, means over bins of several sizes, and a convolution of all of them.

    Parameters
    ----------
    num_classes : int
    backbone : {"resnet50", "resnet101", "resnet152", "resnet18", "resnet34"}
    output_stride : {8, 16, 32}
        Of the last stages' maps; strides that would make them coarser are replaced by dilation.
    aux : bool
        Whether there is a second head on stage 3; the network then returns ``(logits, aux)`` in training.
    in_channels : int
        Channels of the images.
    base_channels : int, a multiple of 4
        Width of the first layer; 64 is a ResNet's.
    dropout : float
        Share of the channels in front of the scores that training drops.

    Returns
    -------
    torch.nn.Module
        Images [N, in_channels, H, W] of any size give logits [N, num_classes, H, W], or before enlargement those of
        ``network(x, upsample=False)``.

    Notes
    -----
    49.08 M parameters with the second head and 21 classes. Bins of 1, 2, 3 and 6; the stem has three 3 x 3
    convolutions, all blocks of a dilated stage are dilated, and all enlargement keeps the corners in place, as in the
    authors' code for PyTorch (hszhao/semseg), whose ``state_dict`` this is. That code takes images of 8 k + 1 pixels
    only. Training needs two images or more in a batch, for the norm of the image's mean.

    References
    ----------
    H. Zhao et al., Pyramid scene parsing network, CVPR 2017.

    Examples
    --------
    >>> import torch, cv3gpu.nn.models
    >>> network = cv3gpu.nn.models.pspnet(21, backbone="resnet18", base_channels=4).eval()
    >>> network(torch.zeros(1, 3, 45, 60)).shape
    torch.Size([1, 21, 45, 60])
    """
    return PSPNet(
        num_classes,
        backbone=backbone,
        output_stride=output_stride,
        aux=aux,
        in_channels=in_channels,
        base_channels=base_channels,
        dropout=dropout,
    )
