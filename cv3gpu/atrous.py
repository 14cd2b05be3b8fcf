"""Atrous spatial pyramid pooling: convolutions of one image at several dilations, side by side in one result.

Each branch writes its channels of the result, which is therefore never concatenated. A kernel's taps that lie outside
the image for every pixel are cut off: at a dilation of the image's size a 3 x 3 kernel is a 1 x 1 kernel.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from . import _check, conv
from ._array import array_op, dtype_name, empty, family, from_numpy, memory_format, module, on_gpu
from .pyramid import (
    Pointwise,
    channels_dense,
    check_activation,
    check_image,
    check_like,
    check_vectors,
    listed,
    pointwise,
    pyramid_pool,
)
from .resize import _values

__all__ = ["AsppGradients", "Pointwise", "aspp", "aspp_vjp", "atrous_branches"]


class AsppGradients(NamedTuple):
    """Gradients of :func:`aspp`: one array, and two lists with one array a branch."""

    x: Any
    weights: list[Any]
    biases: list[Any]


# ---- checks ---------------------------------------------------------------------------------------------


def _check_kernels(op: str, x: Any, weights: Any, channels: Any) -> list[Any]:
    """Weights of odd size for images of so many channels."""
    found = listed(op, "weights", weights, None, "branch")
    for i, weight in enumerate(found):
        name = f"weights[{i}]"
        check_like(op, name, weight, x)
        _check.shape(op, name, weight, ["Cout", channels, "kh", "kw"], "C as x has it")
        if weight.shape[0] < 1 or weight.shape[2] % 2 == 0 or weight.shape[3] % 2 == 0:
            _check.fail(op, name, "have output channels, and an odd height and width", tuple(weight.shape))
    return found


def _check_dilations(op: str, dilations: Any, count: int) -> list[int]:
    return [_check.integer(op, "dilations", d, 1) for d in listed(op, "dilations", dilations, count, "weight")]


def check_branches(
    op: str, x: Any, weights: Any, scales: Any, biases: Any, dilations: Any, activation: Any
) -> tuple[list[Any], list[Any], list[Any], list[int]]:
    """Images, and branches of them: the weights, scales, biases and dilations as lists."""
    check_image(op, "x", x)
    kernels = _check_kernels(op, x, weights, x.shape[1])
    factors, shifts = (check_vectors(op, name, v, x, kernels) for name, v in (("scales", scales), ("biases", biases)))
    rates = _check_dilations(op, dilations, len(kernels))
    check_activation(op, "activation", activation)
    return kernels, factors, shifts, rates


def _check_pointwise(op: str, argument: str, value: Any, x: Any, channels: Any) -> Pointwise:
    """The 1 x 1 convolution that an option gives, as a tuple or by name."""
    if not isinstance(value, tuple) or not 1 <= len(value) <= 4:
        _check.fail(op, argument, "be a tuple (weight, scale, bias, activation)", _check.kind(value), error=TypeError)
    found = Pointwise(*value)
    name = f"{argument}'s weight"
    check_like(op, name, found.weight, x)
    _check.shape(op, name, found.weight, ["Cout", channels, 1, 1])
    for part in ("scale", "bias"):
        vector = getattr(found, part)
        if vector is not None:
            check_like(op, f"{argument}'s {part}", vector, x)
            _check.shape(op, f"{argument}'s {part}", vector, [found.weight.shape[0]])
    check_activation(op, f"{argument}'s activation", found.activation)
    return found


# ---- the operators --------------------------------------------------------------------------------------


@array_op("x")
def aspp(
    x: Any,
    weights: Sequence[Any],
    biases: Sequence[Any] | None = None,
    *,
    dilations: Sequence[int],
    scales: Sequence[Any] | None = None,
    activation: str | None = None,
    image_pooling: tuple[Any, ...] | None = None,
    project: tuple[Any, ...] | None = None,
) -> Any:
    r"""Atrous spatial pyramid pooling: the convolutions of an image at several dilations, as channels of one result.

    .. math:: y_i = f(s_i \cdot \mathrm{conv2d}(x, w_i, \text{padding same}, \text{dilation } d_i) + b_i)

    concatenated over i. With ``image_pooling`` a branch more follows: a 1 x 1 convolution of x's mean over all pixels,
    the same value at every pixel. With ``project`` the result is a 1 x 1 convolution of all branches.

    Parameters
    ----------
    x : array, [N, C, H, W], float16/bfloat16/float32/float64
        Images, in either memory order.
    weights : sequence of array, [Cout_i, C, kh, kw], dtype of x
        One for each dilation; height and width are odd, as 3 x 3 and 1 x 1.
    biases : sequence of array, [Cout_i], dtype of x, optional
    dilations : sequence of int, pixels
        Distance of the taps of each kernel, at least 1; of no account for a 1 x 1 kernel.
    scales : sequence of array, [Cout_i], dtype of x, optional
        Factors of the channels: with ``biases``, a folded batch norm.
    activation : {"relu", "relu6"}, optional
        f, of all branches; the identity by default.
    image_pooling : tuple (weight, scale, bias, activation), optional
        The branch of the mean: ``weight [Cp, C, 1, 1]``, ``scale [Cp]``, ``bias [Cp]`` and an activation, all but the
        first optional.
    project : tuple (weight, scale, bias, activation), optional
        The projection: ``weight [Co, sum(Cout), 1, 1]``, with Cp more channels where ``image_pooling`` is given.

    Returns
    -------
    array, [N, sum(Cout), H, W] or, with ``project``, [N, Co, H, W], dtype and library of x
        Channels last if x is.

    Raises
    ------
    TypeError
        An argument is no array or list, or of another library, device or dtype than x.
    ValueError
        A shape or a value does not fit.

    Notes
    -----
    Cost: 2 N Cout C flop for each pixel and tap that meet. What lies outside the image is not computed: kernels are cut
    to the taps that reach some pixel, and on a GPU pixels are sorted by the taps that they meet. For 65 x 65 pixels and
    dilations 12, 24, 36 that is 0.58 of the taps. Each branch writes its channels of the result.
    The pooled branch enters a projection as one vector for each image, which is exact: a 1 x 1 convolution of a
    constant is a constant.
    Sums and rounding of a branch are those of :func:`conv2d`; the same bits from run to run. Gradients:
    :func:`aspp_vjp`, and, through all options, those of torch. N = 0 gives an empty result.

    References
    ----------
    .. [1] L.-C. Chen et al., "Rethinking atrous convolution for semantic image segmentation", 2017, section 3.3.

    Examples
    --------
    >>> import numpy as np, cv3gpu
    >>> x = np.ones((1, 2, 5, 5), np.float32)
    >>> weights = [np.ones((1, 2, 1, 1), np.float32), np.ones((1, 2, 3, 3), np.float32)]
    >>> y = cv3gpu.aspp(x, weights, dilations=(1, 2))
    >>> y.shape, y[0, 1, 0]
    ((1, 2, 5, 5), array([ 8.,  8., 12.,  8.,  8.], dtype=float32))
    """
    return composed(atrous_branches, x, weights, biases, dilations, scales, activation, image_pooling, project)


def composed(
    branches: Callable[..., Any],
    x: Any,
    weights: Any,
    biases: Any,
    dilations: Any,
    scales: Any,
    activation: Any,
    image_pooling: Any,
    project: Any,
) -> Any:
    """What :func:`aspp` is made of, with :func:`atrous_branches` or its torch operator: that has gradients."""
    op = "aspp"
    kernels, factors, shifts, rates = check_branches(op, x, weights, scales, biases, dilations, activation)
    channels = x.shape[1]
    total = sum(int(w.shape[0]) for w in kernels)
    pooling = last = pooled = None
    if image_pooling is not None:
        pooling = _check_pointwise(op, "image_pooling", image_pooling, x, channels)
    if project is not None:
        more = 0 if pooling is None else int(pooling.weight.shape[0])
        last = _check_pointwise(op, "project", project, x, total + more)
    if pooling is not None:
        pooled = pointwise(pyramid_pool(x, (1,)), pooling)[:, :, 0, 0]
    y = branches(x, kernels, factors, shifts, None, None if last else pooled, rates, activation)
    if last is None:
        return y
    shift = None
    if pooled is not None:
        shift = pointwise(pooled[:, :, None, None], Pointwise(last.weight[:, total:], last.scale))[:, :, 0, 0]
    scale, bias = ([] if v is None else [v] for v in (last.scale, last.bias))
    return branches(y, [last.weight[:, :total]], scale, bias, shift, None, [1], last.activation)


@array_op("x", "image_bias", "constant")
def atrous_branches(
    x: Any,
    weights: Sequence[Any],
    scales: Sequence[Any] = (),
    biases: Sequence[Any] = (),
    image_bias: Any = None,
    constant: Any = None,
    dilations: Sequence[int] = (1,),
    activation: str | None = None,
) -> Any:
    """The branches of :func:`aspp`, ``f(scale * conv + bias + image_bias[n])``, and channels of one value an image.

    Parameters
    ----------
    x, weights, scales, biases, dilations, activation
        As for :func:`aspp`; empty lists for no scales and no biases.
    image_bias : array, [N, sum(Cout)], dtype of x, optional
        Added to all pixels of an image, before the activation.
    constant : array, [N, K], dtype of x, optional
        K channels more, after the others.

    Returns
    -------
    array, [N, sum(Cout) + K, H, W], dtype and library of x
        Channels last if x is.

    Raises
    ------
    TypeError, ValueError
        As :func:`aspp`.

    Examples
    --------
    >>> import numpy as np
    >>> from cv3gpu.atrous import atrous_branches
    >>> weight = np.array([[[[2.0]]]])
    >>> atrous_branches(np.array([[[[1.0, -1.0]]]]), [weight], constant=np.array([[7.0]]), activation="relu")
    array([[[[2., 0.]],
    <BLANKLINE>
            [[7., 7.]]]])
    """
    op = "atrous_branches"
    given = x, weights, scales or None, biases or None, dilations, activation
    kernels, factors, shifts, rates = check_branches(op, *given)
    total = sum(int(w.shape[0]) for w in kernels)
    n, _, h, w = (int(k) for k in x.shape)
    if image_bias is not None:
        _check.same_dtype(op, "image_bias", image_bias, "x", x)
        _check.shape(op, "image_bias", image_bias, [n, total])
    if constant is not None:
        _check.same_dtype(op, "constant", constant, "x", x)
        _check.shape(op, "constant", constant, [n, "K"])
    more = 0 if constant is None else int(constant.shape[1])
    out = empty(x, (n, total + more, h, w), layout="nhwc" if memory_format(x) == "nhwc" else "nchw")
    if n == 0:
        return out
    if constant is not None:
        out[:, total:] = constant[:, :, None, None]
    branches = _branches(kernels, factors, shifts, rates, image_bias)
    if on_gpu(x):
        for first, part in branches:
            kept, padding = _reached(part.weight, part.dilation, (h, w))
            geometry = conv.geometry_of(op, "x", (h, w), kept.shape[2:], 1, padding, part.dilation, 1)
            shift = part.image_bias
            conv.forward_into(
                x, kept, part.bias, geometry, out, first, scale=part.scale, activation=activation, image_bias=shift
            )
        return out
    wide = _for_cpu(x, kernels)
    for first, part in branches:
        kept, padding = _reached(part.weight, part.dilation, (h, w))
        y = _on_cpu(wide, kept, padding, part, activation)
        out[:, first : first + kept.shape[0]] = y
    return out


@array_op("grad", "x")
def aspp_vjp(grad: Any, x: Any, weights: Sequence[Any], *, dilations: Sequence[int]) -> AsppGradients:
    """Gradients of :func:`aspp` without options with respect to its images, weights and biases.

    Parameters
    ----------
    grad : array, [N, sum(Cout), H, W], float16/bfloat16/float32/float64
        Gradient with respect to the result.
    x, weights, dilations
        As they were given to :func:`aspp`.

    Returns
    -------
    AsppGradients
        ``x`` [N, C, H, W], ``weights`` and ``biases``: lists of arrays of the shapes of the weights, and [Cout_i].

    Raises
    ------
    TypeError, ValueError
        As :func:`aspp`, and where grad does not fit.

    Notes
    -----
    The branches' gradients with respect to x are added up one after the other: two arrays of x's size exist at a time,
    whatever the number of branches. In torch the gradients have gradients, of any order. The same bits from run to run.

    Examples
    --------
    >>> import numpy as np
    >>> from cv3gpu.atrous import aspp_vjp
    >>> x, weights = np.array([[[[1.0, 2.0, 3.0]]]]), [np.ones((1, 1, 1, 1)), np.ones((1, 1, 1, 3))]
    >>> found = aspp_vjp(np.ones((1, 2, 1, 3)), x, weights, dilations=(1, 2))
    >>> found.x, found.weights[1], found.biases
    (array([[[[3., 2., 3.]]]]), array([[[[1., 6., 3.]]]]), [array([3.]), array([3.])])
    """
    return gradients(grad, x, weights, dilations)


def gradients(grad: Any, x: Any, weights: Any, dilations: Any) -> AsppGradients:
    """What :func:`aspp_vjp` is made of: in torch, operators with gradients."""
    op = "aspp_vjp"
    check_image(op, "x", x)
    kernels = _check_kernels(op, x, weights, x.shape[1])
    rates = _check_dilations(op, dilations, len(kernels))
    total = sum(int(w.shape[0]) for w in kernels)
    _check.same_dtype(op, "grad", grad, "x", x)
    _check.shape(op, "grad", grad, [x.shape[0], total, *x.shape[2:]])
    by_x, by_weights, by_biases = None, [], []
    for part, piece in pieces(grad, kernels, rates):
        more = input_gradient(piece, part.weight, part.dilation, x)
        if by_x is None:
            by_x = more
        else:
            by_x += more
        by_weights.append(weight_gradient(piece, x, part.weight, part.dilation))
        by_biases.append(channel_sums(piece))
    return AsppGradients(by_x, by_weights, by_biases)


# ---- branches and their taps ----------------------------------------------------------------------------


class Branch(NamedTuple):
    """One of the convolutions, with the part of ``image_bias`` that is its own."""

    weight: Any
    dilation: int
    scale: Any = None
    bias: Any = None
    image_bias: Any = None


def _branches(
    weights: list[Any], scales: list[Any], biases: list[Any], dilations: list[int], image_bias: Any
) -> Iterator[tuple[int, Branch]]:
    """The branches, each with its first channel in the result."""
    first = 0
    for i, (weight, dilation) in enumerate(zip(weights, dilations, strict=True)):
        end = first + int(weight.shape[0])
        own = None if image_bias is None else image_bias[:, first:end]
        yield first, Branch(weight, dilation, scales[i] if scales else None, biases[i] if biases else None, own)
        first = end


def pieces(grad: Any, weights: list[Any], dilations: list[int]) -> Iterator[tuple[Branch, Any]]:
    """The branches, each with its channels of a gradient; these lie together where channels are last."""
    for first, part in _branches(weights, [], [], dilations, None):
        yield part, channels_dense(grad[:, first : first + part.weight.shape[0]])


def _taps(taps: Any, dilation: int, size: Any) -> tuple[int, int]:
    """The first tap that reaches some pixel of an axis, and how many do: as many before the middle as after."""
    middle = int(taps) // 2
    reach = sum(1 for k in range(1, middle + 1) if k * dilation < size)  # the size may be a symbol of torch
    return middle - reach, 2 * reach + 1


def _reached(weight: Any, dilation: int, size: Sequence[Any]) -> tuple[Any, tuple[int, int]]:
    """The kernel's taps that reach some pixel, and the padding that keeps the size with them."""
    (top, rows), (left, cols) = (_taps(k, dilation, n) for k, n in zip(weight.shape[2:], size, strict=True))
    return weight[:, :, top : top + rows, left : left + cols], (rows // 2 * dilation, cols // 2 * dilation)


def input_gradient(grad: Any, weight: Any, dilation: int, x: Any) -> Any:
    """Gradient of one branch with respect to x."""
    kept, padding = _reached(weight, dilation, x.shape[2:])
    return conv.conv2d_adjoint_input(grad, kept, x.shape[2:], 1, padding, dilation)


def weight_gradient(grad: Any, x: Any, weight: Any, dilation: int) -> Any:
    """Gradient of one branch with respect to its weight: zero for taps that reach no pixel."""
    kept, padding = _reached(weight, dilation, x.shape[2:])
    found = conv.conv2d_adjoint_weight(grad, x, kept.shape[2:], 1, padding, dilation)
    rows, cols = ((k - n) // 2 for k, n in zip(weight.shape[2:], kept.shape[2:], strict=True))
    if rows == cols == 0:
        return found
    if family(found) == "torch":
        return sys.modules["torch"].nn.functional.pad(found, (cols, cols, rows, rows))
    return module(found).pad(found, ((0, 0), (0, 0), (rows, rows), (cols, cols)))


def channel_sums(grad: Any) -> Any:
    """[Cout]: sums over images and pixels, of 16-bit floats in float32."""
    if family(grad) == "torch" or dtype_name(grad) not in conv.SIXTEEN_BIT:
        return grad.sum((0, 2, 3))
    return grad.sum((0, 2, 3), dtype=np.float32).astype(grad.dtype)


# ---- CPU ------------------------------------------------------------------------------------------------


def _wide(x: Any) -> Any:
    """16-bit floats in float32."""
    return from_numpy(_values(x), x) if dtype_name(x) in conv.SIXTEEN_BIT else x


def _for_cpu(x: Any, weights: list[Any]) -> Any:
    """The image as the convolutions like it: torch's skip the padding's taps where channels are last."""
    x = _wide(x)
    if family(x) == "torch" and any(w.shape[2] * w.shape[3] > 1 for w in weights):
        return x.contiguous(memory_format=conv._torch_format("nhwc"))
    return x


def _on_cpu(x: Any, weight: Any, padding: tuple[int, int], part: Branch, activation: str | None) -> Any:
    """One branch, 16-bit floats in float32."""
    scale, bias = (None if v is None else _wide(v) for v in (part.scale, part.bias))
    options = {"scale": scale, "activation": activation if part.image_bias is None else None}
    run: Any = conv.conv2d
    y = run.plain(x, _wide(weight), bias, 1, padding, part.dilation, **options)
    if part.image_bias is not None:
        y += _wide(part.image_bias)[:, :, None, None]
        if activation is not None:
            highest = 6 if activation == "relu6" else None
            y = y.clamp_(0, highest) if family(y) == "torch" else np.clip(y, 0, highest, out=y)
    return y
