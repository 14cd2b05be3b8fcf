"""Layers computed by the operators of cv3gpu: with the names and arguments of torch's own, and some that it lacks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from .. import _check
from ..conv import conv2d, conv_transpose2d, is_diagonal, padding_of
from ..crf import dense_crf
from ..crf.arguments import METHODS, MOST_LABELS, NORMALIZATIONS, PARAMETERS
from ..pool import max_pool2d, max_unpool2d
from ..resize import DTYPES, TAPS, interpolate, output_size
from ..resize_conv import resize_conv2d
from ..separable import check_activations, separable_conv2d

__all__ = [
    "Conv2d",
    "ConvTranspose2d",
    "DenseCRF",
    "MaxPool2d",
    "MaxUnpool2d",
    "ResizeConv2d",
    "SeparableConv2d",
    "Upsample",
    "fold_batch_norm",
]


class Conv2d(torch.nn.Conv2d):
    """`torch.nn.Conv2d`, computed by :func:`cv3gpu.conv2d`.

    The arguments, parameters, initial values and ``state_dict`` are those of `torch.nn.Conv2d`, so weights go
    from one to the other unchanged.

    Notes
    -----
    A ``padding_mode`` other than ``"zeros"`` makes no padded copy on a GPU. TF32 is not used, whatever torch's flags
    say.

    Examples
    --------
    >>> import torch, cv3gpu
    >>> layer = cv3gpu.nn.Conv2d(3, 8, 3, padding="same", dilation=2)
    >>> layer(torch.zeros(1, 3, 16, 16)).shape
    torch.Size([1, 8, 16, 16])
    """

    def forward(self, input: Tensor) -> Tensor:
        """Convolves ``input`` [N, C, H, W] or [C, H, W]; returns [N, Cout, Ho, Wo] or [Cout, Ho, Wo]."""
        if isinstance(input, Tensor) and input.ndim == 3:
            return self.forward(input[None])[0]
        padding: Any = self.padding
        if self.padding_mode != "zeros":
            left, right, top, bottom = self._reversed_padding_repeated_twice
            padding = top, bottom, left, right
        geometry: Any = (self.stride, padding, self.dilation, self.groups)
        return conv2d(input, self.weight, self.bias, *geometry, padding_mode=self.padding_mode)


class ConvTranspose2d(torch.nn.ConvTranspose2d):
    """`torch.nn.ConvTranspose2d`, computed by :func:`cv3gpu.conv_transpose2d`.

    The arguments, parameters, initial values and ``state_dict`` are those of `torch.nn.ConvTranspose2d`.

    Notes
    -----
    In eval mode, where no gradient of the weight is wanted, the layer looks once at each new state of the weight (a GPU
    is waited for then, so run it once before a CUDA graph is captured): a diagonal one, as FCN's bilinear
    initialisation gives, upsamples every channel by itself.

    Examples
    --------
    >>> import torch, cv3gpu
    >>> layer = cv3gpu.nn.ConvTranspose2d(21, 21, 4, stride=2, padding=1)
    >>> layer(torch.zeros(1, 21, 16, 16)).shape
    torch.Size([1, 21, 32, 32])
    """

    def forward(self, input: Tensor, output_size: list[int] | None = None) -> Tensor:
        """Upsamples ``input`` [N, C, H, W] or [C, H, W], to ``output_size`` (Ho, Wo) where it is given."""
        if isinstance(input, Tensor) and input.ndim == 3:
            return self.forward(input[None], output_size)[0]
        size: Any = (self.stride, self.padding, self.kernel_size, 2, self.dilation)
        more: Any = self._output_padding(input, output_size, *size)  # type: ignore[arg-type]
        geometry: Any = (self.stride, self.padding, more, self.groups, self.dilation)
        return conv_transpose2d(input, self.weight, self.bias, *geometry, diagonal=self._is_diagonal())

    def _is_diagonal(self) -> bool:
        weight = self.weight
        wanted = weight.requires_grad and torch.is_grad_enabled()
        if self.training or wanted or self.groups != 1 or torch.compiler.is_compiling() or weight.device.type == "meta":
            return False
        if weight.is_inference():  # made in inference mode, it does not count its changes
            return False
        state = weight.data_ptr(), weight._version
        if getattr(self, "_looked_at", None) != state:
            self._looked_at, self._found_diagonal = state, is_diagonal(weight.detach())
        return self._found_diagonal


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


class ResizeConv2d(torch.nn.Module):
    """An upsampling layer without checkerboards, computed by :func:`cv3gpu.resize_conv2d`: resize, then convolve.

    What `torch.nn.Upsample` and `torch.nn.Conv2d` do one after the other, without the enlarged image in between,
    forward and, where the factor is simple, backward. Names, shapes and initial values of ``weight`` and ``bias`` are
    those of that `torch.nn.Conv2d`, so they go from one to the other unchanged.

    Parameters
    ----------
    in_channels, out_channels, kernel_size, padding, dilation, bias, device, dtype
        As for `torch.nn.Conv2d` of stride 1; the padding is ``"same"`` unless another is given.
    size, scale_factor, mode, align_corners
        As for :func:`cv3gpu.resize_conv2d`.

    Examples
    --------
    >>> import torch, cv3gpu
    >>> layer = cv3gpu.nn.ResizeConv2d(8, 4, 3, scale_factor=2, mode="nearest")
    >>> layer(torch.zeros(1, 8, 5, 6)).shape
    torch.Size([1, 4, 10, 12])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int],
        *,
        scale_factor: Any = None,
        size: Any = None,
        mode: str = "bilinear",
        align_corners: bool = False,
        padding: Any = "same",
        dilation: int | tuple[int, int] = 1,
        bias: bool = True,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        op = "ResizeConv2d"
        self.in_channels = _check.integer(op, "in_channels", in_channels, 1)
        self.out_channels = _check.integer(op, "out_channels", out_channels, 1)
        self.kernel_size = _check.pair(op, "kernel_size", kernel_size, 1)
        self.mode = _check.choice(op, "mode", mode, tuple(TAPS))
        self.align_corners = _check.flag(op, "align_corners", align_corners)
        if (size is None) == (scale_factor is None):
            got = "neither" if size is None else "both"
            _check.fail(op, "size", "be given where scale_factor is not, and only there", got)
        self.size, self.scale_factor = size, scale_factor
        self.padding, self.dilation = padding, dilation
        start = torch.nn.Conv2d(in_channels, out_channels, self.kernel_size, bias=bias, device=device, dtype=dtype)
        self.weight, self.bias = start.weight, start.bias

    def forward(self, input: Tensor) -> Tensor:
        """Enlarges and convolves ``input`` [N, C, h, w] or [C, h, w]; returns [N, Cout, Ho, Wo] or [Cout, Ho, Wo]."""
        if isinstance(input, Tensor) and input.ndim == 3:
            return self.forward(input[None])[0]
        return resize_conv2d(
            input,
            self.weight,
            self.bias,
            size=self.size,
            scale_factor=self.scale_factor,
            mode=self.mode,
            align_corners=self.align_corners,
            padding=self.padding,
            dilation=self.dilation,
        )

    def extra_repr(self) -> str:
        """The arguments."""
        names = ("kernel_size", "size", "scale_factor", "mode", "align_corners", "padding", "dilation")
        given = ", ".join(f"{name}={getattr(self, name)!r}" for name in names)
        return f"{self.in_channels}, {self.out_channels}, {given}, bias={self.bias is not None}"


class SeparableConv2d(torch.nn.Module):
    """A depthwise separable convolution, computed by :func:`cv3gpu.separable_conv2d`.

    A depthwise convolution without a bias, and a 1x1 convolution; with ``mid_norm`` and ``norm`` a batch normalisation
    after each, as Xception and MobileNetV2 have them. In evaluation these are folded, and all of it is one operator; in
    training, where they need the statistics of the batch, the parts run one by one.

    Parameters
    ----------
    in_channels, out_channels, kernel_size, stride, padding, dilation, bias, device, dtype
        As for `torch.nn.Conv2d`; the padding may also be (top, bottom, left, right). ``bias`` is that of the 1x1 part.
    mid_norm, norm : bool
        Whether a `torch.nn.BatchNorm2d` follows the depthwise, and the 1x1 part.
    mid_activation, activation : {None, "relu", "relu6"}
        What follows after that.
    eps : float
        Of the normalisations; TensorFlow's checkpoints of Xception have 1e-3.

    Notes
    -----
    The ``state_dict`` holds ``depthwise.weight`` [C, 1, kh, kw], ``pointwise.weight`` [Cout, C, 1, 1],
    ``pointwise.bias`` [Cout], and the entries of `torch.nn.BatchNorm2d` under ``mid_norm`` and ``norm``. The initial
    values are those of `torch.nn.Conv2d`.

    Examples
    --------
    >>> import torch, cv3gpu
    >>> layer = cv3gpu.nn.SeparableConv2d(8, 16, 3, padding=6, dilation=6, bias=False, mid_norm=True, norm=True)
    >>> layer.eval()(torch.zeros(1, 8, 16, 16)).shape
    torch.Size([1, 16, 16, 16])
    >>> [name for name, _ in layer.named_parameters()][:3]
    ['depthwise.weight', 'mid_norm.weight', 'mid_norm.bias']
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int],
        stride: int | tuple[int, int] = 1,
        padding: Any = 0,
        dilation: int | tuple[int, int] = 1,
        bias: bool = True,
        *,
        mid_norm: bool = False,
        mid_activation: str | None = None,
        norm: bool = False,
        activation: str | None = None,
        eps: float = 1e-5,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        op = "SeparableConv2d"
        channels = _check.integer(op, "in_channels", in_channels, 1)
        out = _check.integer(op, "out_channels", out_channels, 1)
        size = _check.pair(op, "kernel_size", kernel_size, 1)
        self.stride = _check.pair(op, "stride", stride, 1)
        self.dilation = _check.pair(op, "dilation", dilation, 1)
        self.padding = padding_of(op, padding, size, self.stride, self.dilation)
        check_activations(op, mid_activation, activation)
        self.mid_activation, self.activation = mid_activation, activation
        has_bias, eps = _check.flag(op, "bias", bias), _check.real(op, "eps", eps, positive=True)
        where: Any = {"device": device, "dtype": dtype}
        normalise = torch.nn.BatchNorm2d
        self.depthwise = torch.nn.Conv2d(channels, channels, size, groups=channels, bias=False, **where)
        self.mid_norm = normalise(channels, eps, **where) if _check.flag(op, "mid_norm", mid_norm) else None
        self.pointwise = torch.nn.Conv2d(channels, out, 1, bias=has_bias, **where)
        self.norm = normalise(out, eps, **where) if _check.flag(op, "norm", norm) else None

    def forward(self, input: Tensor) -> Tensor:
        """Convolves ``input`` [N, C, H, W] or [C, H, W]; returns [N, Cout, Ho, Wo] or [Cout, Ho, Wo]."""
        check_floats("separable_conv2d", "x", input)
        if input.ndim == 3:
            return self.forward(input[None])[0]
        weights = self.depthwise.weight, self.pointwise.weight
        if any(norm is not None and norm.training for norm in (self.mid_norm, self.norm)):
            return self._one_by_one(input, *weights)
        mid_scale, mid_bias = fold_batch_norm(self.mid_norm, None, input.dtype)
        scale, bias = fold_batch_norm(self.norm, self.pointwise.bias, input.dtype)
        return separable_conv2d(
            input,
            *weights,
            bias,
            stride=self.stride,
            padding=self.padding,
            dilation=self.dilation,
            mid_scale=mid_scale,
            mid_bias=mid_bias,
            mid_activation=self.mid_activation,
            scale=scale,
            activation=self.activation,
        )

    def _one_by_one(self, x: Tensor, depthwise: Tensor, pointwise: Tensor) -> Tensor:
        x = conv2d(x, depthwise, None, self.stride, self.padding, self.dilation, x.shape[1])
        x = _activated(x if self.mid_norm is None else self.mid_norm(x), self.mid_activation)
        x = conv2d(x, pointwise, self.pointwise.bias)
        return _activated(x if self.norm is None else self.norm(x), self.activation)

    def extra_repr(self) -> str:
        """The arguments that no part shows."""
        names = ("stride", "padding", "dilation", "mid_activation", "activation")
        return ", ".join(f"{name}={getattr(self, name)!r}" for name in names)


def fold_batch_norm(
    norm: torch.nn.BatchNorm2d | None, bias: Tensor | None = None, dtype: torch.dtype | None = None
) -> tuple[Tensor | None, Tensor | None]:
    """A batch normalisation in use, after a convolution's bias, as the factor and the summand of each channel.

    Parameters
    ----------
    norm : torch.nn.BatchNorm2d or None
        With running statistics; they are used whether the layer is training or not. None: no factor, and the bias.
    bias : Tensor [C], optional
        That of the convolution in front of it.
    dtype : torch.dtype, optional
        Of the results; that of the statistics unless given.

    Returns
    -------
    (scale, bias)
        ``norm(conv2d(x, w, b))`` is ``conv2d(x, w, bias, scale=scale)``, up to rounding.

    Examples
    --------
    >>> import torch, cv3gpu
    >>> norm = torch.nn.BatchNorm2d(4).eval()
    >>> x, w = torch.rand(1, 2, 5, 5), torch.rand(4, 2, 3, 3)
    >>> scale, bias = cv3gpu.nn.fold_batch_norm(norm)
    >>> y = cv3gpu.conv2d(x, w, bias, scale=scale, activation="relu")
    >>> torch.allclose(y, norm(torch.conv2d(x, w)).relu())
    True
    """
    if norm is None:
        return None, bias
    if not isinstance(norm, torch.nn.Module) or not hasattr(norm, "running_mean"):
        _check.fail("fold_batch_norm", "norm", "be a batch normalisation or None", _check.kind(norm), error=TypeError)
    if norm.running_mean is None or norm.running_var is None:
        _check.fail("fold_batch_norm", "norm", "have running statistics", "track_running_stats=False")
    scale = torch.rsqrt(norm.running_var + norm.eps)
    scale = scale if norm.weight is None else norm.weight * scale
    shift = -(norm.running_mean if bias is None else norm.running_mean - bias) * scale
    shift = shift if norm.bias is None else norm.bias + shift
    dtype = dtype or scale.dtype
    return scale.to(dtype), shift.to(dtype)


def _activated(x: Tensor, activation: str | None) -> Tensor:
    return x if activation is None else functional.relu(x) if activation == "relu" else functional.relu6(x)


class MaxPool2d(torch.nn.MaxPool2d):
    """`torch.nn.MaxPool2d`, computed by :func:`cv3gpu.max_pool2d`.

    Parameters
    ----------
    kernel_size, stride, padding, dilation, return_indices, ceil_mode
        As for `torch.nn.MaxPool2d`.
    compact : bool
        Whether the indices are positions in the window, as uint8: an eighth of the memory, and :class:`MaxUnpool2d`
        takes them as well. torch's own layer does not.

    Notes
    -----
    Without ``return_indices`` a backward keeps one byte for each window (eight where a window has more than 256
    pixels), and not the input.

    Examples
    --------
    >>> import torch, cv3gpu
    >>> pool = cv3gpu.nn.MaxPool2d(2, return_indices=True, compact=True)
    >>> values, indices = pool(torch.tensor([[[[1.0, 5.0], [2.0, 0.0]]]]))
    >>> cv3gpu.nn.MaxUnpool2d(2)(values, indices)
    tensor([[[[0., 5.],
              [0., 0.]]]])
    """

    def __init__(
        self,
        kernel_size: Any,
        stride: Any = None,
        padding: Any = 0,
        dilation: Any = 1,
        return_indices: bool = False,
        ceil_mode: bool = False,
        *,
        compact: bool = False,
    ) -> None:
        super().__init__(kernel_size, stride, padding, dilation, return_indices, ceil_mode)
        self.compact = _check.flag("MaxPool2d", "compact", compact)

    def forward(self, input: Tensor) -> Any:
        """Pools ``input`` [N, C, H, W] or [C, H, W]; returns values, or values and indices."""
        if isinstance(input, Tensor) and input.ndim == 3:
            found = self.forward(input[None])
            return (found[0][0], found[1][0]) if self.return_indices else found[0]
        height, width = _check.pair("max_pool2d", "kernel_size", self.kernel_size, 1)
        compact = self.compact if self.return_indices else height * width <= 256
        steps = self.stride, self.padding, self.dilation
        values, indices = max_pool2d(input, self.kernel_size, *steps, self.ceil_mode, compact=compact)
        return (values, indices) if self.return_indices else values


class MaxUnpool2d(torch.nn.MaxUnpool2d):
    """`torch.nn.MaxUnpool2d`, computed by :func:`cv3gpu.max_unpool2d`, from indices in either form.

    Notes
    -----
    Indices must lie in their windows: where pooling left out a last row or column, ``output_size`` must be given.
    """

    def forward(self, input: Tensor, indices: Tensor, output_size: Sequence[int] | None = None) -> Tensor:
        """Unpools ``input`` [N, C, Ho, Wo] or [C, Ho, Wo]; only the last two numbers of ``output_size`` count."""
        if isinstance(input, Tensor) and input.ndim == 3:
            return self.forward(input[None], indices[None], output_size)[0]
        size: Any = None if output_size is None else tuple(output_size)[-2:]
        return max_unpool2d(input, indices, self.kernel_size, self.stride, self.padding, size)


class DenseCRF(torch.nn.Module):
    r"""A fully connected CRF with Gaussian edges as a recurrent network, computed by :func:`cv3gpu.dense_crf`.

    ``Q = softmax(logits)``, then n_iter times ``Q <- softmax(logits - sum_m mu_m K~_m Q)`` with a kernel of distance
    and one of distance and colour: the last layer of a segmentation network, trained with it. The log-probabilities
    that it returns serve as logits: for `torch.nn.CrossEntropyLoss`, and for argmax.

    Parameters
    ----------
    num_classes : int
        L, 1 to 1024.
    theta_gamma, theta_alpha : number or pair (x, y), pixels
        Widths of the smoothness kernel, and of the appearance kernel in the image, at the start.
    theta_beta : number or one for each channel, units of the image
        The appearance kernel's widths in colour at the start. The default suits images from 0 to 255: give the
        network's input as it was before it was normalised, or widths in its units.
    compat_smooth, compat_bilateral : number, or array of the shape that ``compatibility`` has
        Compatibilities of the kernels at the start; a number w is Potts' model, mu = -w I.
    compatibility : {"potts", "diagonal", "matrix"}
        What is learned of each mu: w, its diagonal [L], or all of it [L, L], which is taken as (M + M^T) / 2.
    learn : sequence of str
        What is learned: ``"compat"``, ``"theta"``, or names of single arguments, such as ``"theta_beta"``.
    n_iter : int
        Iterations. Five are usual in training and ten in use; the attribute may be changed in between.
    method, normalization : str
        As for :func:`cv3gpu.dense_crf`.
    output : {"log_probabilities", "probabilities"}
        What is returned: log Q, or Q.
    device, dtype
        Of the parameters.

    Notes
    -----
    The ``state_dict`` holds ``compat_smooth``, ``compat_bilateral``, and the logarithms of the widths,
    ``log_theta_gamma``, ``log_theta_alpha`` and ``log_theta_beta``: so widths stay positive whatever a step does. What
    is not learned is there, too, with ``requires_grad=False``. The widths' gradients about double the cost of a
    backward.

    16-bit logits and images are computed in float32, and so is the result. In log Q a probability counts as 1e-30 at
    least, and has no gradient below that. On a GPU the parameters are read back by the host in every forward.

    References
    ----------
    S. Zheng et al., Conditional random fields as recurrent neural networks, ICCV 2015, algorithm 1. P. Kraehenbuehl,
    V. Koltun, Parameter learning and convergent inference for dense random fields, ICML 2013.

    Examples
    --------
    >>> import torch, cv3gpu
    >>> image = torch.zeros(1, 3, 4, 6)
    >>> image[..., 3:] = 200                                    # two areas
    >>> logits = torch.zeros(1, 2, 4, 6)
    >>> logits[0, 0, 0, 0] = logits[0, 1, 0, 5] = 2.0           # a hint in each
    >>> crf = cv3gpu.nn.DenseCRF(2, compat_smooth=1.0)
    >>> crf(logits, image).argmax(1)
    tensor([[[0, 0, 0, 1, 1, 1],
             [0, 0, 0, 1, 1, 1],
             [0, 0, 0, 1, 1, 1],
             [0, 0, 0, 1, 1, 1]]])
    """

    def __init__(
        self,
        num_classes: int,
        *,
        theta_gamma: Any = 3.0,
        theta_alpha: Any = 80.0,
        theta_beta: Any = 13.0,
        compat_smooth: Any = 3.0,
        compat_bilateral: Any = 10.0,
        compatibility: str = "potts",
        learn: Sequence[str] = ("compat",),
        n_iter: int = 5,
        method: str = "lattice",
        normalization: str = "symmetric",
        output: str = "log_probabilities",
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        op = "DenseCRF"
        self.num_classes = _check.integer(op, "num_classes", num_classes, 1, MOST_LABELS)
        self.compatibility = _check.choice(op, "compatibility", compatibility, ("potts", "diagonal", "matrix"))
        self.learn = (learn,) if isinstance(learn, str) else tuple(learn)
        for word in self.learn:
            _check.choice(op, "learn", word, ("compat", "theta", *PARAMETERS))
        self.n_iter = _check.integer(op, "n_iter", n_iter, 0)
        self.method = _check.choice(op, "method", method, METHODS)
        self.normalization = _check.choice(op, "normalization", normalization, NORMALIZATIONS)
        self.output = _check.choice(op, "output", output, ("log_probabilities", "probabilities"))

        def parameter(name: str, value: Tensor) -> torch.nn.Parameter:
            learned = any(name.startswith(word) for word in self.learn)
            return torch.nn.Parameter(value.to(device, dtype or torch.get_default_dtype()), requires_grad=learned)

        shape = (self.num_classes,) * ("potts", "diagonal", "matrix").index(compatibility)
        self.compat_smooth = parameter("compat_smooth", _compatibility("compat_smooth", compat_smooth, shape))
        self.compat_bilateral = parameter(
            "compat_bilateral", _compatibility("compat_bilateral", compat_bilateral, shape)
        )
        pair = "a positive number or a pair (x, y)"
        self.log_theta_gamma = parameter("theta_gamma", _widths("theta_gamma", theta_gamma, 2, pair).log())
        self.log_theta_alpha = parameter("theta_alpha", _widths("theta_alpha", theta_alpha, 2, pair).log())
        channels = "a positive number or one for each channel"
        self.log_theta_beta = parameter("theta_beta", _widths("theta_beta", theta_beta, None, channels).log())

    def forward(self, logits: Tensor, image: Tensor | None = None) -> Tensor:
        """Infers from ``logits`` [..., L, H, W], and an ``image`` [..., C, H, W] of uint8 or floats or None.

        Returns log Q or Q, [..., L, H, W], float32 or, for logits in float64, float64.
        """
        op = "DenseCRF"
        check_floats(op, "logits", logits)
        if logits.ndim < 3:
            _check.fail(op, "logits", f"have shape [..., {self.num_classes}, H, W]", tuple(logits.shape))
        *lead, _, h, w = logits.shape
        _check.shape(op, "logits", logits, [*lead, self.num_classes, h, w])
        if image is not None:
            check_floats(op, "image", image, "uint8")
            advice = "it must have the logits' size, and channels first; resize one of them"
            _check.shape(op, "image", image, [*lead, "C", h, w], advice)
            image = at_least_float32(image).movedim(-3, -1)
        compat = (at_least_float32(x) for x in (self.compat_smooth, self.compat_bilateral))
        smooth, bilateral = (0.5 * (m + m.mT) if m.ndim == 2 else m for m in compat)
        q = dense_crf(
            -at_least_float32(logits),  # as good as -log p: softmax forgets what is added to all labels
            image,
            theta_gamma=at_least_float32(self.log_theta_gamma).exp(),
            compat_smooth=smooth,
            theta_alpha=at_least_float32(self.log_theta_alpha).exp(),
            theta_beta=1.0 if image is None else at_least_float32(self.log_theta_beta).exp(),
            compat_bilateral=bilateral,
            n_iter=self.n_iter,
            method=self.method,
            normalization=self.normalization,
        )
        return q if self.output == "probabilities" else q.clamp_min(1e-30).log()

    def extra_repr(self) -> str:
        """The arguments that have no parameter."""
        names = ("compatibility", "learn", "n_iter", "method", "normalization", "output")
        return ", ".join([str(self.num_classes), *(f"{name}={getattr(self, name)!r}" for name in names)])


def check_floats(op: str, argument: str, x: Any, *others: str) -> None:
    """A tensor of floats, or of one of some other dtypes."""
    if not isinstance(x, Tensor):
        _check.fail(op, argument, "be a torch.Tensor", _check.kind(x), error=TypeError)
    if not x.is_floating_point():
        _check.dtype(op, argument, x, (*DTYPES, *others))


def at_least_float32(x: Tensor) -> Tensor:
    """16-bit floats in float32; anything else as it is."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def _values(argument: str, value: Any, requirement: str) -> Tensor:
    """A copy of what an argument holds, float64."""
    if isinstance(value, bool):
        _check.fail("DenseCRF", argument, f"be {requirement}", _check.said(value), error=TypeError)
    if isinstance(value, int):
        value = _check.real("DenseCRF", argument, value)
    try:
        found = torch.as_tensor(value, dtype=torch.float64).detach().clone()
    except (TypeError, ValueError, RuntimeError):
        _check.fail("DenseCRF", argument, f"be {requirement}", repr(value), error=TypeError)
    if not found.isfinite().all():
        _check.fail("DenseCRF", argument, "be finite", repr(value))
    return found


def _widths(argument: str, value: Any, count: int | None, requirement: str) -> Tensor:
    found = _values(argument, value, requirement)
    if found.ndim > 1 or (found.ndim and count not in (None, len(found))) or not (found > 0).all():
        _check.fail("DenseCRF", argument, f"be {requirement}", repr(value))
    return found


def _compatibility(argument: str, value: Any, shape: tuple[int, ...]) -> Tensor:
    """w, the diagonal of mu, or mu, by its shape: of Potts' model where a number is given."""
    requirement = f"be a number{f' or have shape {list(shape)}' if shape else ''}"
    found = _values(argument, value, requirement.removeprefix("be "))
    if found.ndim == 0 and shape:
        ones = found.new_ones(shape[:1])
        return -found * (ones if len(shape) == 1 else ones.diag())
    if tuple(found.shape) != shape:
        _check.fail("DenseCRF", argument, requirement, tuple(found.shape))
    return found
