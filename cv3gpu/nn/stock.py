"""A network of our layers computed by torch's own operators: what to compare with."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from .heads import ASPP, PyramidHead, PyramidPooling

__all__ = ["stock"]


def _padded(x: Tensor, padding: int | Sequence[int], mode: str = "zeros") -> tuple[Tensor, Any]:
    """The image and the padding left for torch: sides that differ, and borders that are no zeros, are copied."""
    if isinstance(padding, int):
        padding = padding, padding
    if len(padding) == 2 and mode == "zeros":
        return x, tuple(padding)
    top, bottom, left, right = padding if len(padding) == 4 else (padding[0], padding[0], padding[1], padding[1])
    return functional.pad(x, (left, right, top, bottom), "constant" if mode == "zeros" else mode), (0, 0)


def _finished(x: Tensor, bias: Tensor | None, scale: Tensor | None, activation: str | None) -> Tensor:
    x = x if scale is None else x * scale[:, None, None]
    x = x if bias is None else x + bias[:, None, None]
    return x if activation is None else functional.relu(x) if activation == "relu" else functional.relu6(x)


def _conv2d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
    padding_mode: str = "zeros",
    scale: Tensor | None = None,
    activation: str | None = None,
    allow_tf32: bool = False,
) -> Tensor:
    x, padding = _padded(x, padding, padding_mode)
    inside = bias if scale is None else None
    y = functional.conv2d(x, weight, inside, stride, padding, dilation, groups)
    return _finished(y, None if scale is None else bias, scale, activation)


def _separable_conv2d(
    x: Tensor,
    depthwise: Tensor,
    pointwise: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    mid_scale: Tensor | None = None,
    mid_bias: Tensor | None = None,
    mid_activation: str | None = None,
    scale: Tensor | None = None,
    activation: str | None = None,
) -> Tensor:
    x, padding = _padded(x, padding)
    x = functional.conv2d(x, depthwise, None, stride, padding, dilation, x.shape[1])
    x = _finished(x, mid_bias, mid_scale, mid_activation)
    return _finished(functional.conv2d(x, pointwise), bias, scale, activation)


def _max_pool2d(
    x: Tensor,
    kernel_size: Any,
    stride: Any = (),
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    compact: bool = False,
) -> tuple[Tensor, Tensor]:
    steps = stride or kernel_size, padding, dilation, ceil_mode
    return functional.max_pool2d_with_indices(x, kernel_size, *steps)


def _max_unpool2d(
    x: Tensor, indices: Tensor, kernel_size: Any, stride: Any = (), padding: Any = 0, output_size: Any = None
) -> Tensor:
    size = None if output_size is None else list(output_size)
    return functional.max_unpool2d(x, indices, kernel_size, stride or kernel_size, padding, size)


def _interpolate(
    x: Tensor,
    size: Any = None,
    scale_factor: Any = None,
    mode: str = "nearest",
    align_corners: bool | None = None,
    antialias: bool = False,
) -> Tensor:
    factor = None if scale_factor is None else tuple(scale_factor)
    size = None if size is None else tuple(size)
    return functional.interpolate(x, size, factor, mode, align_corners, antialias=antialias)


def _pyramid_pool(x: Tensor, bins: Sequence[int]) -> Tensor:
    return torch.cat([functional.adaptive_avg_pool2d(x, b).flatten(2) for b in bins], 2)[..., None]


def _pyramid_expand(
    base: Tensor,
    z: Tensor,
    bins: Sequence[int],
    kernel_size: Sequence[int] = (3, 3),
    align_corners: bool = True,
    scale: Tensor | None = None,
    bias: Tensor | None = None,
    activation: str | None = None,
) -> Tensor:
    (n, channels, height, width), (rows, cols) = base.shape, kernel_size
    for b, part in zip(bins, z.split([rows * cols * b * b for b in bins], 2), strict=True):
        taps = part.reshape(n, channels * rows * cols, b, b)
        large = functional.interpolate(taps, (height, width), mode="bilinear", align_corners=align_corners)
        around = functional.pad(large, (cols // 2, cols // 2, rows // 2, rows // 2))
        around = around.unflatten(1, (channels, rows, cols))
        for r in range(rows):
            for t in range(cols):
                base = base + around[:, :, r, t, r : r + height, t : t + width]
    return _finished(base, bias, scale, activation)


OURS = "cv3gpu::"
FORMS: dict[str, Callable[..., Any]] = {
    "conv2d": _conv2d,
    "conv_transpose2d": functional.conv_transpose2d,
    "interpolate": _interpolate,
    "max_pool2d": _max_pool2d,
    "max_unpool2d": _max_unpool2d,
    "pyramid_expand": _pyramid_expand,
    "pyramid_pool": _pyramid_pool,
    "separable_conv2d": _separable_conv2d,
}


class _TorchsOwn(TorchFunctionMode):
    """Inside, an operator of ours is one of torch's; one that has no such form is refused, and not run."""

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        name = func.name() if isinstance(func, torch._ops.OpOverload) else ""
        if name.startswith(OURS):
            name = name.removeprefix(OURS)
            if name not in FORMS:
                raise NotImplementedError(f"stock: {name} has no form in torch's operators")
            func = FORMS[name]
        return func(*args, **(kwargs or {}))


# ---- heads, whose operators are more than one of torch's ------------------------------------------------


class _ASPP(ASPP):
    def forward(self, x: Tensor) -> Tensor:
        """Computes the head, branch by branch."""
        layers: list[Any] = list(self.convs)
        project: Any = self.project
        found = [branch(x) for branch in layers[:-1]]
        mean = functional.interpolate(layers[-1](x), x.shape[2:], mode="bilinear")
        return project(torch.cat([*found, mean], 1))


class _PyramidPooling(PyramidPooling):
    def forward(self, x: Tensor) -> Tensor:
        """Pools, convolves and enlarges, bin by bin."""
        options: dict[str, Any] = {"mode": "bilinear", "align_corners": self.align_corners}
        maps = [functional.interpolate(branch(x), x.shape[2:], **options) for branch in self.features]
        return torch.cat([x, *maps], 1)


class _PyramidHead(PyramidHead):
    def forward(self, x: Tensor) -> Tensor:
        """Convolves the enlarged maps."""
        return self.cls(self.ppm(x))


HEADS: dict[type, type] = {ASPP: _ASPP, PyramidPooling: _PyramidPooling, PyramidHead: _PyramidHead}


def stock(network: torch.nn.Module) -> torch.nn.Module:
    """A copy of a network that computes by torch's own operators alone, with the same weights and ``state_dict``.

    Parameters
    ----------
    network : torch.nn.Module
        Of our layers and operators, such as `cv3gpu.nn.models` makes.

    Returns
    -------
    torch.nn.Module

    Notes
    -----
    In the copy's forward every operator of ours is replaced by torch's as it is called; one that has no form there
    raises NotImplementedError, so that nothing of ours runs unseen. The backward is that of torch's operators. Both
    compute the same function: results differ by rounding.

    Examples
    --------
    >>> import torch, cv3gpu
    >>> from cv3gpu.nn.stock import stock
    >>> ours = cv3gpu.nn.Conv2d(3, 8, 3)
    >>> theirs, x = stock(ours), torch.rand(1, 3, 8, 8)
    >>> torch.allclose(theirs(x), ours(x), atol=1e-6)
    True
    """
    copied = copy.deepcopy(network)
    for module in copied.modules():
        module.__class__ = HEADS.get(type(module), type(module))
    own = type(copied)

    def forward(self: Any, *args: Any, **kwargs: Any) -> Any:
        with _TorchsOwn():
            return own.forward(self, *args, **kwargs)

    copied.__class__ = type(own.__name__, (own,), {"forward": forward, "__module__": own.__module__})
    return copied
