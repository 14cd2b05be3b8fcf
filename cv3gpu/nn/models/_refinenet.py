"""RefineNet."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from ...resize import interpolate
from ..layers import Conv2d, MaxPool2d
from ._backbones import RESNETS, ResNet, check_backbone
from ._blocks import Network, channels_of, fused, initialize

__all__ = ["RefineNet", "refinenet"]


def _conv(in_channels: int, channels: int, bias: bool = False) -> Conv2d:
    return Conv2d(in_channels, channels, 3, padding=1, bias=bias)


class _ResidualUnits(torch.nn.Module):
    """Residual convolution units: twice a ReLU and a convolution, added to what came in."""

    def __init__(self, channels: int, n_units: int) -> None:
        super().__init__()
        self.n_units = n_units
        for i in range(1, n_units + 1):
            self.add_module(f"{i}_conv", _conv(channels, channels, bias=True))
            self.add_module(f"{i}_conv_relu_varout_dimred", _conv(channels, channels))

    def forward(self, x: Tensor) -> Tensor:
        for i in range(1, self.n_units + 1):
            y = fused(functional.relu(x), getattr(self, f"{i}_conv"), None, "relu")
            x = x + getattr(self, f"{i}_conv_relu_varout_dimred")(y)
        return x


class _ChainedPooling(torch.nn.Module):
    """Chained residual pooling: pools and convolutions in a row, each result added."""

    def __init__(self, channels: int, n_stages: int) -> None:
        super().__init__()
        self.n_stages = n_stages
        for i in range(1, n_stages + 1):
            self.add_module(f"{i}_outvar_dimred", _conv(channels, channels))
        self.maxpool = MaxPool2d(5, 1, 2)

    def forward(self, x: Tensor) -> Tensor:
        top = x
        for i in range(1, self.n_stages + 1):
            top = getattr(self, f"{i}_outvar_dimred")(self.maxpool(top))
            x = x + top
        return x


class RefineNet(Network):
    """The network of :func:`refinenet`."""

    align_corners = True

    def __init__(
        self,
        num_classes: int,
        *,
        backbone: str = "resnet101",
        in_channels: int = 3,
        base_channels: int = 64,
        dropout: float = 0.5,
    ) -> None:
        op = "refinenet"
        super().__init__(op, num_classes, in_channels)
        check_backbone(op, backbone, tuple(RESNETS), 32, (32,))
        base = channels_of(op, base_channels)
        resnet = ResNet(backbone, self.in_channels, base, 32)
        for name, module in resnet.named_children():
            self.add_module(name, module)
        widths = [8 * base, 4 * base, 4 * base, 4 * base]
        for i, (before, width) in enumerate(zip(resnet.widths[::-1], widths, strict=True), 1):
            self.add_module(f"p_ims1d2_outl{i}_dimred", _conv(before, width))
            self.add_module(f"adapt_stage{i}_b", _ResidualUnits(width, 2))
            if i > 1:
                self.add_module(f"adapt_stage{i}_b2_joint_varout_dimred", _conv(width, width))
            self.add_module(f"mflow_conv_g{i}_pool", _ChainedPooling(width, 4))
            self.add_module(f"mflow_conv_g{i}_b", _ResidualUnits(width, 3))
            if i < 4:
                self.add_module(f"mflow_conv_g{i}_b3_joint_varout_dimred", _conv(width, widths[i]))
        self.clf_conv = Conv2d(widths[-1], self.num_classes, 3, padding=1)
        self.do = torch.nn.Dropout(dropout)
        initialize(self)
        self._calm()

    def _calm(self) -> None:
        """Starts what is added to a map a tenth as large: without norms the sums would grow from unit to unit."""
        for module in self.modules():
            if isinstance(module, _ResidualUnits | _ChainedPooling):
                for name, weight in module.named_parameters():
                    if name.endswith("dimred.weight"):
                        weight.detach().mul_(0.1)

    def scores(self, x: Tensor) -> Tensor:
        """Logits at a quarter of the size of the image."""
        net: Any = self
        x = net.maxpool(fused(x, net.conv1, net.bn1, "relu"))
        first = net.layer1(x)
        second = net.layer2(first)
        third = net.layer3(second)
        fourth = self.do(net.layer4(third))
        above: Tensor | None = None
        for i, found in enumerate((fourth, self.do(third), second, first), 1):
            above = self._refined(i, found, above)
        return self.clf_conv(self.do(above))

    def _refined(self, i: int, x: Tensor, above: Tensor | None) -> Tensor:
        """What block ``i`` makes of a stage's map and of what the block above it has made."""
        x = getattr(self, f"p_ims1d2_outl{i}_dimred")(x)
        x = getattr(self, f"adapt_stage{i}_b")(x)
        if above is not None:
            above = getattr(self, f"mflow_conv_g{i - 1}_b3_joint_varout_dimred")(above)
            x = getattr(self, f"adapt_stage{i}_b2_joint_varout_dimred")(x)
            x = x + interpolate(above, (x.shape[2], x.shape[3]), mode="bilinear", align_corners=True)
        x = getattr(self, f"mflow_conv_g{i}_pool")(functional.relu(x))
        return getattr(self, f"mflow_conv_g{i}_b")(x)


def refinenet(
    num_classes: int,
    *,
    backbone: str = "resnet101",
    in_channels: int = 3,
    base_channels: int = 64,
    dropout: float = 0.5,
) -> RefineNet:
    """RefineNet: the maps of a ResNet's four stages, refined from the coarsest to the finest.

    Parameters
    ----------
    num_classes : int
    backbone : {"resnet101", "resnet50", "resnet152", "resnet18", "resnet34"}
    in_channels : int
        Channels of the images.
    base_channels : int, a multiple of 4
        Width of the first layer; 64 is a ResNet's.
    dropout : float
        Share of the values of the two coarsest maps, and of the last one, that training drops.

    Returns
    -------
    torch.nn.Module
        Images [N, in_channels, H, W] of any size give logits [N, num_classes, H, W], or before enlargement (at a
        quarter of the size) those of ``network(x, upsample=False)``.

    Notes
    -----
    118.05 M parameters with resnet101 and 21 classes. Names of parameters are those of the authors' files, as
    refinenet-pytorch has them; all enlargement keeps the corners in place, as there.

    References
    ----------
    G. Lin et al., RefineNet: multi-path refinement networks for high-resolution semantic segmentation, CVPR 2017.

    Examples
    --------
    >>> import torch, cv3gpu.nn.models
    >>> network = cv3gpu.nn.models.refinenet(21, backbone="resnet18", base_channels=4).eval()
    >>> network(torch.zeros(1, 3, 45, 60)).shape
    torch.Size([1, 21, 45, 60])
    """
    return RefineNet(
        num_classes, backbone=backbone, in_channels=in_channels, base_channels=base_channels, dropout=dropout
    )
