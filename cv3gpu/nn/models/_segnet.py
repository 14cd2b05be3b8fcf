"""SegNet."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..layers import Conv2d, MaxPool2d, MaxUnpool2d
from ._blocks import VGG16, Fused, Network, channels_of, initialize

__all__ = ["SegNet", "segnet"]


def _stage(in_channels: int, widths: list[int]) -> Fused:
    layers: list[torch.nn.Module] = []
    for width in widths:
        layers += [Conv2d(in_channels, width, 3, padding=1), torch.nn.BatchNorm2d(width), torch.nn.ReLU()]
        in_channels = width
    return Fused(*layers)


class SegNet(Network):
    """The network of :func:`segnet`."""

    def __init__(self, num_classes: int, *, in_channels: int = 3, base_channels: int = 64) -> None:
        op = "segnet"
        super().__init__(op, num_classes, in_channels, least=2 ** len(VGG16))
        base = channels_of(op, base_channels)
        stages = [[base * n for n in stage] for stage in VGG16]
        before = [self.in_channels, *(stage[-1] for stage in stages[:-1])]
        self.encoder = torch.nn.ModuleList(_stage(n, stage) for n, stage in zip(before, stages, strict=True))
        mirrored = [
            [*stage[1:], n] if i else stage[1:] for i, (n, stage) in enumerate(zip(before, stages, strict=True))
        ]
        self.decoder = torch.nn.ModuleList(
            _stage(stage[0], widths) for stage, widths in zip(stages[::-1], mirrored[::-1], strict=True)
        )
        self.classifier = Conv2d(base, self.num_classes, 3, padding=1)
        self.pool = MaxPool2d(2, return_indices=True, compact=True)
        self.unpool = MaxUnpool2d(2)
        initialize(self)

    def scores(self, x: Tensor) -> Tensor:
        """Logits at the size of the image."""
        taken: list[tuple[Tensor, Any]] = []
        for stage in self.encoder:
            x = stage(x)
            size = x.shape[2:]
            x, indices = self.pool(x)
            taken.append((indices, size))
        for stage in self.decoder:
            indices, size = taken.pop()
            x = stage(self.unpool(x, indices, size))
        return self.classifier(x)


def segnet(num_classes: int, *, in_channels: int = 3, base_channels: int = 64) -> SegNet:
    """SegNet: VGG-16's convolutions, and their mirror image, which puts maxima back to where they came from.

    Parameters
    ----------
    num_classes : int
    in_channels : int
        Channels of the images.
    base_channels : int, a multiple of 4
        Width of the first layers; 64 is VGG-16's.

    Returns
    -------
    torch.nn.Module
        Images [N, in_channels, H, W] of 32 x 32 pixels or more give logits [N, num_classes, H, W].

    Notes
    -----
    29.46 M parameters (three channels, 21 classes). Pooling keeps one byte for each maximum; unpooling needs the sizes
    of the encoder's maps, so odd sizes come back as they were. The ``state_dict`` has ``encoder.i.j``,
    ``decoder.i.j`` (convolution, norm, ReLU in turn) and ``classifier``.

    References
    ----------
    V. Badrinarayanan, A. Kendall, R. Cipolla, SegNet: a deep convolutional encoder-decoder architecture for image
    segmentation, PAMI 2017.

    Examples
    --------
    >>> import torch, cv3gpu.nn.models
    >>> network = cv3gpu.nn.models.segnet(11, base_channels=4).eval()
    >>> network(torch.zeros(1, 3, 45, 60)).shape
    torch.Size([1, 11, 45, 60])
    """
    return SegNet(num_classes, in_channels=in_channels, base_channels=base_channels)
