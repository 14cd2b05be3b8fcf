"""U-Net."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from ..layers import Conv2d, ConvTranspose2d, MaxPool2d
from ._blocks import ConvNormReLU, Fused, Network, channels_of, initialize

__all__ = ["UNet", "unet"]

_LEVELS = 4


class _DoubleConv(torch.nn.Module):
    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        self.double_conv = Fused(*ConvNormReLU(in_channels, channels, 3), *ConvNormReLU(channels, channels, 3))

    def forward(self, x: Tensor) -> Tensor:
        return self.double_conv(x)


class _Down(torch.nn.Module):
    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        self.maxpool_conv = torch.nn.Sequential(MaxPool2d(2), _DoubleConv(in_channels, channels))

    def forward(self, x: Tensor) -> Tensor:
        return self.maxpool_conv(x)


class _Up(torch.nn.Module):
    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        self.up = ConvTranspose2d(in_channels, channels, 2, stride=2)
        self.conv = _DoubleConv(2 * channels, channels)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        x = self.up(x)
        rows, cols = skip.shape[2] - x.shape[2], skip.shape[3] - x.shape[3]  # 1 where pooling left a last one out
        if rows or cols:
            x = functional.pad(x, (cols // 2, cols - cols // 2, rows // 2, rows - rows // 2))
        return self.conv(torch.cat([skip, x], 1))


class _Out(torch.nn.Module):
    def __init__(self, in_channels: int, num_classes: int) -> None:
        super().__init__()
        self.conv = Conv2d(in_channels, num_classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)


class UNet(Network):
    """The network of :func:`unet`."""

    def __init__(self, num_classes: int, *, in_channels: int = 3, base_channels: int = 64) -> None:
        op = "unet"
        super().__init__(op, num_classes, in_channels, least=2**_LEVELS)
        base = channels_of(op, base_channels)
        self.inc = _DoubleConv(self.in_channels, base)
        widths = [base << i for i in range(_LEVELS + 1)]
        for i in range(_LEVELS):
            self.add_module(f"down{i + 1}", _Down(widths[i], widths[i + 1]))
        for i in range(_LEVELS):
            self.add_module(f"up{i + 1}", _Up(widths[-1 - i], widths[-2 - i]))
        self.outc = _Out(base, self.num_classes)
        initialize(self)

    def scores(self, x: Tensor) -> Tensor:
        """Logits at the size of the image."""
        maps = [self.inc(x)]
        for i in range(_LEVELS):
            maps.append(getattr(self, f"down{i + 1}")(maps[-1]))
        x = maps.pop()
        for i in range(_LEVELS):
            x = getattr(self, f"up{i + 1}")(x, maps.pop())
        return self.outc(x)


def unet(num_classes: int, *, in_channels: int = 3, base_channels: int = 64) -> UNet:
    """U-Net: a contracting path, and an expanding one that takes over the maps of the same size.

    Parameters
    ----------
    num_classes : int
    in_channels : int
        Channels of the images.
    base_channels : int, a multiple of 4
        Width of the first layers; every level doubles it.

    Returns
    -------
    torch.nn.Module
        Images [N, in_channels, H, W] of 16 x 16 pixels or more give logits [N, num_classes, H, W].

    Notes
    -----
    31.04 M parameters. Convolutions keep the size and have batch norms, so the logits have the size of the image;
    where pooling left out a last row or column, zeros take its place in the expanding path. The ``state_dict`` has the
    keys of the widely used implementation for PyTorch (``inc``, ``down1`` ..., ``up1`` ..., ``outc``).

    References
    ----------
    O. Ronneberger, P. Fischer, T. Brox, U-Net: convolutional networks for biomedical image segmentation, MICCAI 2015.

    Examples
    --------
    >>> import torch, cv3gpu.nn.models
    >>> network = cv3gpu.nn.models.unet(11, base_channels=4).eval()
    >>> network(torch.zeros(1, 3, 45, 60)).shape
    torch.Size([1, 11, 45, 60])
    """
    return UNet(num_classes, in_channels=in_channels, base_channels=base_channels)
