"""Layers with the names, arguments and parameters of torch's own, computed by the operators of cv3gpu."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from ..conv import conv2d
from ..resize import interpolate, output_size

__all__ = ["Conv2d", "Upsample"]


class Conv2d(torch.nn.Conv2d):
    """`torch.nn.Conv2d`, computed by :func:`cv3gpu.conv2d`.

    The arguments, parameters, initial values and ``state_dict`` are those of `torch.nn.Conv2d`, so weights go
    from one to the other unchanged.

    Notes
    -----
    A ``padding_mode`` other than ``"zeros"`` pads first (`torch.nn.functional.pad`), then convolves.

    Examples
    --------
    >>> import torch, cv3gpu
    >>> layer = cv3gpu.nn.Conv2d(3, 8, 3, padding="same", dilation=2)
    >>> layer(torch.zeros(1, 3, 16, 16)).shape
    torch.Size([1, 8, 16, 16])
    """

    def forward(self, input: Tensor) -> Tensor:
        """Convolves ``input`` [N, C, H, W] or [C, H, W]; returns [N, Cout, Ho, Wo] or [Cout, Ho, Wo]."""
        if input.ndim == 3:
            return self.forward(input[None])[0]
        padding: Any = self.padding
        if self.padding_mode != "zeros":
            input = functional.pad(input, self._reversed_padding_repeated_twice, mode=self.padding_mode)
            padding = 0
        return conv2d(input, self.weight, self.bias, self.stride, padding, self.dilation, self.groups)


class Upsample(torch.nn.Upsample):
    """`torch.nn.Upsample` for images, computed by :func:`cv3gpu.interpolate`.

    Notes
    -----
    The input must have shape [N, C, H, W]; the modes are those of :func:`cv3gpu.interpolate`.

    Examples
    --------
    >>> import torch, cv3gpu
    >>> cv3gpu.nn.Upsample(scale_factor=2, mode="bilinear")(torch.zeros(1, 3, 4, 5)).shape
    torch.Size([1, 3, 8, 10])
    """

    def forward(self, input: Tensor) -> Tensor:
        """Resizes ``input`` [N, C, H, W]; returns [N, C, Ho, Wo]."""
        size: Any = self.size
        scale_factor: Any = self.scale_factor
        if self.recompute_scale_factor and scale_factor is not None:
            h, w = input.shape[-2:]
            size, scale_factor = output_size("interpolate", h, w, None, scale_factor), None
        return interpolate(input, size, scale_factor, self.mode, self.align_corners)
