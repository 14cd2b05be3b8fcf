"""Mean-field inference in a fully connected CRF with Gaussian edges, its objective, and its gradients.

The model (Kraehenbuehl and Koltun 2011): labels x of N points have the energy
``E(x) = sum_i U_i(x_i) + 1/2 sum_m sum_ij mu_m(x_i, x_j) k~_m(i, j)``, each k~ a Gaussian kernel with one of
pydensecrf's normalisations. Mean field starts at ``Q = softmax(-U)`` and repeats
``Q <- softmax(-U - sum_m mu_m K~_m Q)``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from .. import _array
from .filters import backend
from .rows import Message, scaled, width

__all__ = ["Kernel", "MeanField", "Reverse", "normalized", "width_vjp"]

LEAST = 1e-30  # marginals that the objective sees


class Kernel(NamedTuple):
    """A normalised kernel ``left K right``: a filter, and the two diagonals, None where there is none."""

    filter: Any
    total: Any  # K 1
    left: Any
    right: Any
    normalization: str

    def spread(self, values: Any) -> Any:
        """What the update gathers: K (right values), for a lattice at its vertices."""
        if self.filter.entries > 1:
            return self.filter.spread(values, self.right)
        return self.filter.spread(scaled(values, self.right))

    def apply(self, values: Any) -> Any:
        """``left K right values``."""
        if self.filter.entries > 1:
            return self.filter.gather(self.filter.spread(values, self.right), self.left)
        return scaled(self.filter.spread(scaled(values, self.right)), self.left)

    def apply_transposed(self, values: Any) -> Any:
        """``right K^T left values``."""
        if self.filter.entries > 1:
            return self.filter.gather(self.filter.spread(values, self.left, transposed=True), self.right)
        return scaled(self.filter.spread(scaled(values, self.left), transposed=True), self.right)


def normalized(filter: Any, normalization: str, like: Any, points: int) -> Kernel:
    """A filter of so many points with one of pydensecrf's normalisations; ``like`` has its library and dtype."""
    if normalization == "none":
        return Kernel(filter, None, None, None, normalization)
    total = _total(filter, like, points)
    if normalization == "symmetric":
        root = 1 / _array.module(total).sqrt(total)
        return Kernel(filter, total, root, root, normalization)
    left, right = (None, 1 / total) if normalization == "before" else (1 / total, None)
    return Kernel(filter, total, left, right, normalization)


def _total(filter: Any, like: Any, points: int) -> Any:
    """K 1, [P]."""
    if hasattr(filter, "total"):
        return filter.total()
    ones = _array.empty(like, (points, 4))
    ones[...] = 1
    z = filter.spread(ones)
    return _array.contiguous((filter.gather(z) if filter.entries > 1 else z)[:, 0])


class MeanField:
    """Mean-field inference, step by step.

    Parameters
    ----------
    unary : array, [B, L, N], float32/float64
        U, such as -log p.
    kernels : sequence of Kernel
        With filters of the same points.
    compat : sequence of array, [L] or [L, L]
        mu of each kernel, [L] being a diagonal; of unary's dtype.
    """

    def __init__(self, unary: Any, kernels: Sequence[Kernel], compat: Sequence[Any]) -> None:
        self.shape = tuple(int(n) for n in unary.shape)
        self.labels, self.kernels = self.shape[1], list(kernels)
        self.backend = backend(unary)
        n = width(self.labels)
        self.unary = self.backend.to_rows(_array.contiguous(unary), n)
        self.mu = [_padded(mu, n) for mu in compat]
        self.rows = self._update(self.unary, [])
        self._spare: Any = None

    @property
    def q(self) -> Any:
        """The marginals, [B, L, N]."""
        return self.backend.from_rows(self.rows, self.shape)

    @q.setter
    def q(self, q: Any) -> None:
        self.rows = self.backend.to_rows(_array.contiguous(q), self.unary.shape[1])

    def step(self) -> None:
        """One iteration."""
        before = self.rows
        self.rows = self._iterated(before)
        self._spare = before

    def _update(self, unary: Any, messages: Sequence[Any], out: Any = None) -> Any:
        return self.backend.update(unary, messages, self.labels, out=out)

    def _iterated(self, q: Any, keep: bool = False) -> Any:
        """The next marginals; in a spare array unless they are to be kept."""
        messages = [
            Message(kernel.spread(q), kernel.filter, kernel.left, mu)
            for kernel, mu in zip(self.kernels, self.mu, strict=True)
        ]
        unary = self.unary
        while len(messages) > 2:
            unary = self.backend.update(unary, messages[:2], self.labels, softmax=False)
            messages = messages[2:]
        spare, self._spare = (None, self._spare) if keep else (self._spare, None)
        return self._update(unary, messages, spare)

    # ---- what is minimised --------------------------------------------------------------------------------

    def divergence(self, pairs: float = 0.5) -> Any:
        """The objective of mean field, per image [B], float64: the KL divergence from the CRF less log Z.

        ``sum Q log Q + sum Q U + 1/2 sum_m sum Q mu_m K~_m Q``; ``pairs`` stands for the 1/2. A label with next to
        no mass adds nothing, even where it is forbidden (U = inf).
        """
        q, module = self.rows, _array.module(self.rows)
        entropy = q * module.log(module.clip(q, LEAST, None))
        unary = module.where(q > LEAST, self.unary, _array.zeros(self.unary, (1,)))
        return self._per_image(entropy + q * unary) + pairs * self._pairs(q)

    def energy(self) -> Any:
        """The energy of the most likely labels, per image [B], float64.

        The pair of a point with itself counts, as in pydensecrf's kernels: for Potts a constant.
        """
        module = _array.module(self.rows)
        best = self.rows[:, : self.labels].argmax(1)
        labels = _array.from_host(_array.np.arange(self.unary.shape[1]), self.rows)
        chosen = _array.astype(best[:, None] == labels[None], _array.dtype_name(self.rows))
        unary = module.where(chosen > 0, self.unary, _array.zeros(self.unary, (1,)))
        return self._per_image(unary) + 0.5 * self._pairs(chosen)

    def _pairs(self, q: Any) -> Any:
        """``sum_m sum q mu_m K~_m q`` per image."""
        total: Any = 0.0
        for kernel, mu in zip(self.kernels, self.mu, strict=True):
            total = total + self._per_image(q * _times(kernel.apply(q), mu))
        return total

    def _per_image(self, rows: Any) -> Any:
        wide = _array.astype(rows, "float64")
        return wide.reshape(self.shape[0], self.shape[2] * int(rows.shape[1])).sum(1)


def _padded(mu: Any, n: int) -> Any:
    """A diagonal or a matrix with zeros for the padding."""
    labels = mu.shape[0]
    out = _array.zeros(mu, (n,) * mu.ndim)
    if mu.ndim == 1:
        out[:labels] = mu
    else:
        out[:labels, :labels] = mu
    return out


def _times(rows: Any, mu: Any) -> Any:
    """Each row times mu."""
    return rows * mu[None] if mu.ndim == 1 else rows @ mu.T


class Reverse:
    """Gradients of ``sum(grad * Q)`` after some iterations, by going back through them.

    The marginals of all iterations are computed once more and kept meanwhile: n_iter arrays of the size of Q.

    Parameters
    ----------
    field : MeanField
        At its start.
    grad : array, [B, L, N]
        The gradient with respect to Q after the last iteration.
    n_iter : int
        The number of iterations.
    widths : bool
        Whether the gradients with respect to the kernels' features or widths are wanted.
    """

    def __init__(self, field: MeanField, grad: Any, n_iter: int, widths: bool) -> None:
        self.field, kernels = field, field.kernels
        qs = [field.rows]
        for _ in range(n_iter):
            qs.append(field._iterated(qs[-1], keep=True))
        self.unary = _array.zeros(field.unary, field.unary.shape)
        self.mu = [_array.zeros(mu, mu.shape, "float64") for mu in field.mu]
        self.widths: list[Any] = [None] * len(kernels)  # what the filters' own vjps give, summed
        slopes: list[Any] = [0.0] * len(kernels)  # gradients with respect to K 1
        g = field.backend.to_rows(_array.contiguous(grad), field.unary.shape[1])
        for q_after, q in zip(reversed(qs[1:]), reversed(qs[:-1]), strict=True):
            g = q_after * (g - (g * q_after).sum(1)[:, None])  # with respect to the logits
            self.unary = self.unary - g
            back: Any = 0.0
            for m, (kernel, mu) in enumerate(zip(kernels, field.mu, strict=True)):
                message = kernel.apply(q)
                self.mu[m] = self.mu[m] - _outer(g, message, mu.ndim)
                toward = -_times(g, mu if mu.ndim == 1 else mu.T)
                returned = kernel.apply_transposed(toward)
                back = back + returned
                if widths:
                    slopes[m] = slopes[m] + _slope(kernel, q, toward, message, returned)
                    values, towards = scaled(q, kernel.right), scaled(toward, kernel.left)
                    self._add(m, _filter_vjp(kernel.filter, values, towards))
            g = back
        self.unary = self.unary - qs[0] * (g - (g * qs[0]).sum(1)[:, None])
        for m, kernel in enumerate(kernels):
            if widths and n_iter and kernel.total is not None:
                self._add(m, _total_vjp(kernel, slopes[m], field.unary))

    def _add(self, m: int, gradient: Any) -> None:
        self.widths[m] = gradient if self.widths[m] is None else self.widths[m] + gradient


def width_vjp(kernel: Kernel, values: Any, grad: Any) -> Any:
    """The gradient of sum(grad * K~ values) with respect to the features, or the widths, of the kernel's filter."""
    found = _filter_vjp(kernel.filter, scaled(values, kernel.right), scaled(grad, kernel.left))
    if kernel.total is None:
        return found
    slope = _slope(kernel, values, grad, kernel.apply(values), kernel.apply_transposed(grad))
    return found + _total_vjp(kernel, slope, values)


def _filter_vjp(filter: Any, values: Any, grad: Any) -> Any:
    """The gradient of sum(grad * K values) with respect to the filter's features, or to its widths on the grid."""
    if hasattr(filter, "theta_vjp"):
        return filter.theta_vjp(values, grad)
    if filter.entries > 1:
        return filter.feature_vjp(filter.spread(values), filter.spread(grad, transposed=True), values, grad)
    return filter.feature_vjp(values, grad)


def _slope(kernel: Kernel, values: Any, grad: Any, message: Any, returned: Any) -> Any:
    """The gradient of sum(grad * K~ values) with respect to K 1, of whose powers left and right are.

    ``message`` is K~ values, ``returned`` its transpose of grad.
    """
    slope: Any = 0.0
    power = -0.5 if kernel.normalization == "symmetric" else -1.0
    if kernel.left is not None:  # d left / d (K 1) = power * left / (K 1), and message holds left already
        slope = slope + power * (grad * message).sum(1) / kernel.total
    if kernel.right is not None:
        slope = slope + power * (values * returned).sum(1) / kernel.total
    return slope


def _total_vjp(kernel: Kernel, slope: Any, like: Any) -> Any:
    """The gradient of sum(slope * K 1)."""
    ones, slopes = (_array.zeros(like, (slope.shape[0], 4)) for _ in range(2))
    ones[:, 0] = 1
    slopes[:, 0] = slope
    return _filter_vjp(kernel.filter, ones, slopes)


def _outer(g: Any, message: Any, ndim: int) -> Any:
    """The gradient with respect to -mu: the diagonal, or all of sum g message^T, in float64."""
    if ndim == 1:
        return _array.astype(g * message, "float64").sum(0)
    return _array.astype(g, "float64").T @ _array.astype(message, "float64")
