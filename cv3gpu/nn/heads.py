"""Heads of segmentation networks that gather context: DeepLab's atrous pyramid and PSPNet's pyramid of means.

Names of parameters and buffers are those of the usual implementations, so that their weights load unchanged. In
evaluation batch norms are folded into the convolutions before them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .. import _check
from ..atrous import aspp
from ..pyramid import check_bins, pyramid_conv2d, pyramid_maps, pyramid_pool, pyramid_pooling
from ..resize import interpolate
from .layers import Conv2d, fold_batch_norm

__all__ = ["ASPP", "PyramidHead", "PyramidPooling"]


def _foldable(module: torch.nn.Module) -> bool:
    """Whether all batch norms of a module go by their running statistics."""
    norms = (m for m in module.modules() if isinstance(m, torch.nn.BatchNorm2d))
    return not any(norm.training or norm.running_mean is None for norm in norms)


def _conv_norm_relu(in_channels: int, channels: int, kernel_size: int, dilation: int) -> list[torch.nn.Module]:
    padding = dilation * (kernel_size // 2)
    layer = Conv2d(in_channels, channels, kernel_size, padding=padding, dilation=dilation, bias=False)
    return [layer, torch.nn.BatchNorm2d(channels), torch.nn.ReLU()]


class ASPP(torch.nn.Module):
    """Atrous spatial pyramid pooling of DeepLabv3, computed by :func:`cv3gpu.aspp`.

    A 1 x 1 branch, a 3 x 3 branch for each rate, the branch of the image's mean, each with batch norm and ReLU; then a
    1 x 1 projection of all with batch norm, ReLU and dropout. The ``state_dict`` is that of torchvision's ``ASPP``
    (``classifier.0`` of its DeepLabv3), so weights go from one to the other unchanged.

    Parameters
    ----------
    in_channels : int
    atrous_rates : sequence of int, pixels
        Dilations of the 3 x 3 branches.
    out_channels : int
        Of each branch, and of the projection.
    dropout : float
        Share of the values that training drops after the projection.

    Notes
    -----
    In evaluation batch norms and ReLUs are computed with the convolutions, the branches are never concatenated, and the
    pooled branch enters the projection as one vector for each image; gradients flow there as well. In training, batch
    norms are torch's own. The taps of a kernel that lie in the padding are not computed.

    References
    ----------
    L.-C. Chen et al., Rethinking atrous convolution for semantic image segmentation, 2017, section 3.3.

    Examples
    --------
    >>> import torch, cv3gpu
    >>> head = cv3gpu.nn.ASPP(16, (2, 4), 8).eval()
    >>> head(torch.zeros(1, 16, 9, 9)).shape
    torch.Size([1, 8, 9, 9])
    """

    def __init__(
        self, in_channels: int, atrous_rates: Sequence[int], out_channels: int = 256, dropout: float = 0.5
    ) -> None:
        super().__init__()
        op = "ASPP"
        channels = _check.integer(op, "in_channels", in_channels, 1)
        out = _check.integer(op, "out_channels", out_channels, 1)
        if not isinstance(atrous_rates, Sequence) or isinstance(atrous_rates, str):
            _check.fail(op, "atrous_rates", "be a sequence of integers", _check.kind(atrous_rates), error=TypeError)
        self.dilations = (1, *(_check.integer(op, "atrous_rates", rate, 1) for rate in atrous_rates))
        branches = [_conv_norm_relu(channels, out, 1 if i == 0 else 3, d) for i, d in enumerate(self.dilations)]
        pooled = [torch.nn.AdaptiveAvgPool2d(1), *_conv_norm_relu(channels, out, 1, 1)]
        self.convs = torch.nn.ModuleList(torch.nn.Sequential(*layers) for layers in (*branches, pooled))
        last = _conv_norm_relu(out * (len(branches) + 1), out, 1, 1)
        self.project = torch.nn.Sequential(*last, torch.nn.Dropout(dropout))

    def forward(self, x: Tensor) -> Tensor:
        """Computes the head of ``x`` [N, C, H, W]; returns [N, out_channels, H, W]."""
        layers: list[Any] = list(self.convs)
        *branches, pooled = layers
        project: Any = self.project
        if not _foldable(self):
            found = [branch(x) for branch in branches]
            mean = pooled[3](pooled[2](pooled[1](pyramid_pool(x, (1,)))))
            return project(torch.cat([*found, mean.expand(-1, -1, *x.shape[2:])], 1))
        weights = [branch[0].weight for branch in branches]
        folded = [fold_batch_norm(branch[1], None, branch[0].weight.dtype) for branch in branches]
        y = aspp(
            x,
            weights,
            [shift for _, shift in folded],
            dilations=self.dilations,
            scales=[scale for scale, _ in folded],
            activation="relu",
            image_pooling=(pooled[1].weight, *fold_batch_norm(pooled[2], None, pooled[1].weight.dtype), "relu"),
            project=(project[0].weight, *fold_batch_norm(project[1], None, project[0].weight.dtype), "relu"),
        )
        return project[3](y)


class PyramidPooling(torch.nn.Module):
    """PSPNet's pyramid pooling module, computed by :func:`cv3gpu.pyramid_pooling`.

    Means over bins, for each bin a 1 x 1 convolution with batch norm and ReLU, enlarged bilinearly, as channels after
    those of the input. The ``state_dict`` is that of the ``PPM`` of the authors' PyTorch code (hszhao/semseg).

    Parameters
    ----------
    in_channels : int
    reduction_channels : int
        Of each bin's convolution.
    bins : sequence of int, 1 to 32
        Sizes of the bins.
    align_corners : bool
        Of the enlargement; the authors' code has True.

    Notes
    -----
    The input is read once for all bins. For a convolution of the result see :class:`PyramidHead`.

    References
    ----------
    H. Zhao et al., Pyramid scene parsing network, CVPR 2017, section 3.2.

    Examples
    --------
    >>> import torch, cv3gpu
    >>> ppm = cv3gpu.nn.PyramidPooling(16, 4, bins=(1, 2)).eval()
    >>> ppm(torch.zeros(1, 16, 9, 9)).shape
    torch.Size([1, 24, 9, 9])
    """

    def __init__(
        self,
        in_channels: int,
        reduction_channels: int,
        bins: Sequence[int] = (1, 2, 3, 6),
        *,
        align_corners: bool = True,
    ) -> None:
        super().__init__()
        op = "PyramidPooling"
        channels = _check.integer(op, "in_channels", in_channels, 1)
        out = _check.integer(op, "reduction_channels", reduction_channels, 1)
        self.bins = check_bins(op, bins)
        self.align_corners = _check.flag(op, "align_corners", align_corners)
        self.features = torch.nn.ModuleList(
            torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(b), *_conv_norm_relu(channels, out, 1, 1)) for b in self.bins
        )

    def folded(self) -> dict[str, Any]:
        """The arguments of :func:`cv3gpu.pyramid_pooling` in evaluation."""
        branches: list[Any] = list(self.features)
        folded = [fold_batch_norm(branch[2], None, branch[1].weight.dtype) for branch in branches]
        return {
            "weights": [branch[1].weight for branch in branches],
            "scales": [scale for scale, _ in folded],
            "biases": [shift for _, shift in folded],
            "activation": "relu",
            "bins": self.bins,
        }

    def maps(self, x: Tensor) -> list[Tensor]:
        """The small maps [N, reduction_channels, b, b] of all bins."""
        if _foldable(self):
            return pyramid_maps(x, **self.folded())
        means, first, found = pyramid_pool(x, self.bins), 0, []
        branches: list[Any] = list(self.features)
        for b, branch in zip(self.bins, branches, strict=True):
            cells = means[:, :, first : first + b * b].reshape(*x.shape[:2], b, b)
            found.append(branch[3](branch[2](branch[1](cells))))
            first += b * b
        return found

    def forward(self, x: Tensor) -> Tensor:
        """Appends the enlarged maps to ``x`` [N, C, H, W]; returns [N, C + bins * reduction_channels, H, W]."""
        if _foldable(self):
            return pyramid_pooling(x, **self.folded(), align_corners=self.align_corners)
        size = x.shape[2], x.shape[3]
        options: dict[str, Any] = {"mode": "bilinear", "align_corners": self.align_corners}
        return torch.cat([x, *(interpolate(m, size, **options) for m in self.maps(x))], 1)


class PyramidHead(torch.nn.Module):
    """PSPNet's head: pyramid pooling and the convolution of its result, which itself never exists.

    The ``state_dict`` is that of ``ppm`` and ``cls`` of the ``PSPNet`` of the authors' PyTorch code (hszhao/semseg).

    Parameters
    ----------
    in_channels : int
    num_classes : int
    bins : sequence of int, 1 to 32
        Sizes of the bins; their number divides ``in_channels``.
    channels : int
        Of the 3 x 3 convolution.
    dropout : float
        Share of the channels that training drops after it.
    align_corners : bool
        Of the enlargement; the authors' code has True.

    Notes
    -----
    In training and in evaluation the 3 x 3 convolution is :func:`cv3gpu.pyramid_conv2d`: half of the multiplications of
    the usual one, and no enlarged maps. In evaluation batch norms are folded.

    References
    ----------
    H. Zhao et al., Pyramid scene parsing network, CVPR 2017, section 3.2.

    Examples
    --------
    >>> import torch, cv3gpu
    >>> head = cv3gpu.nn.PyramidHead(16, 3, channels=8).eval()
    >>> head(torch.zeros(1, 16, 9, 9)).shape
    torch.Size([1, 3, 9, 9])
    """

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        bins: Sequence[int] = (1, 2, 3, 6),
        channels: int = 512,
        dropout: float = 0.1,
        *,
        align_corners: bool = True,
    ) -> None:
        super().__init__()
        op = "PyramidHead"
        sizes = check_bins(op, bins)
        count = _check.integer(op, "in_channels", in_channels, 1)
        if count % len(sizes):
            _check.fail(op, "in_channels", f"be a multiple of the number of bins ({len(sizes)})", count)
        classes = _check.integer(op, "num_classes", num_classes, 1)
        middle = _check.integer(op, "channels", channels, 1)
        self.ppm = PyramidPooling(count, count // len(sizes), sizes, align_corners=align_corners)
        self.cls = torch.nn.Sequential(
            *_conv_norm_relu(2 * count, middle, 3, 1), torch.nn.Dropout2d(dropout), Conv2d(middle, classes, 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Logits [N, num_classes, H, W] of ``x`` [N, C, H, W]."""
        cls: Any = self.cls
        weight, corners = cls[0].weight, self.ppm.align_corners
        if _foldable(cls):
            scale, shift = fold_batch_norm(cls[1], None, weight.dtype)
            options: dict[str, Any] = {"scale": scale, "activation": "relu"}
            y = pyramid_conv2d(x, self.ppm.maps(x), weight, shift, align_corners=corners, **options)
        else:
            y = cls[2](cls[1](pyramid_conv2d(x, self.ppm.maps(x), weight, align_corners=corners)))
        return cls[4](cls[3](y))
