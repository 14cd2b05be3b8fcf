"""The dense CRF in pydensecrf's call shape: an existing script moves over by its imports.

.. code-block:: python

    import cv3gpu.densecrf as dcrf                                  # import pydensecrf.densecrf as dcrf
    from cv3gpu.densecrf import unary_from_softmax                  # from pydensecrf.utils import unary_from_softmax

Names, order, defaults, shapes and meaning of the arguments are pydensecrf's, and so are the results of
``method="lattice"``. What differs:

* NumPy, CuPy and torch arrays are taken, of any strides. All arrays of one CRF are of one library and on one device,
  and so is Q: with arrays on a GPU the same script runs there. Q is an array, and needs no ``np.array(Q)``.
* ``method="lattice_fine"`` and ``"exact"`` compute the model with less error, and with none.
* Features have 1 to 8 dimensions.
* Where pydensecrf raises an unclear error, or takes wrong memory for an argument, an error says what must be.
* Features that are too far from zero for a lattice's integers are refused, as by :func:`cv3gpu.dense_crf`.
* Numbers of iterations are integers that are not negative, and shapes and axes those of the array.
* Unary objects (``ConstUnary``, ``LogisticUnary``) and the types of ``pydensecrf.eigen`` do not exist.

For batches, other dtypes and gradients see :func:`cv3gpu.dense_crf` and :func:`cv3gpu.dense_crf_vjp`.
"""

from __future__ import annotations

import enum
import math
import numbers
import threading
import warnings
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, NoReturn

import numpy as np

from . import _array, _check
from ._array import array_op
from .crf import arguments, filters, mean_field
from .crf.arguments import MOST_FEATURES, MOST_LABELS, Sizes
from .crf.mean_field import MeanField

__all__ = [
    "CONST_KERNEL",
    "DIAG_KERNEL",
    "FULL_KERNEL",
    "NORMALIZE_AFTER",
    "NORMALIZE_BEFORE",
    "NORMALIZE_SYMMETRIC",
    "NO_NORMALIZATION",
    "ConstUnary",
    "DenseCRF",
    "DenseCRF2D",
    "KernelType",
    "LogisticUnary",
    "NormalizationType",
    "UnsupportedError",
    "compute_unary",
    "create_pairwise_bilateral",
    "create_pairwise_gaussian",
    "softmax_to_unary",
    "unary_from_labels",
    "unary_from_softmax",
]

_building = threading.Lock()  # of kernels, by whichever thread comes first


class UnsupportedError(NotImplementedError):
    """A part of pydensecrf that has no place here; the text says what to do instead."""


class _DtypeError(TypeError, ValueError):
    """A wrong dtype: a TypeError as everywhere in this library, and a ValueError as in pydensecrf."""


class KernelType(enum.IntEnum):
    """Which parameters of a kernel pydensecrf's learning in C++ would see; without effect on inference."""

    CONST_KERNEL = 0
    DIAG_KERNEL = 1
    FULL_KERNEL = 2


class NormalizationType(enum.IntEnum):
    """With D the diagonal matrix of K 1: K, K D^-1, D^-1 K, or D^-1/2 K D^-1/2."""

    NO_NORMALIZATION = 0
    NORMALIZE_BEFORE = 1
    NORMALIZE_AFTER = 2
    NORMALIZE_SYMMETRIC = 3


CONST_KERNEL, DIAG_KERNEL, FULL_KERNEL = KernelType
NO_NORMALIZATION, NORMALIZE_BEFORE, NORMALIZE_AFTER, NORMALIZE_SYMMETRIC = NormalizationType


# ---- checks ---------------------------------------------------------------------------------------------


def _float32(op: str, argument: str, x: Any) -> None:
    if (name := _array.dtype_name(x)) != "float32":
        _check.fail(op, argument, "have dtype float32", name, error=_DtypeError)


def _word(op: str, argument: str, value: Any, kind: type[enum.IntEnum]) -> Any:
    """One of pydensecrf's constants, or its number."""
    if isinstance(value, numbers.Integral) and not isinstance(value, bool) and value in [*kind]:
        return kind(int(value))
    error = _wrong(value, numbers.Integral)
    _check.fail(op, argument, f"be one of {', '.join(kind.__members__)}", repr(value), error=error)


def _wrong(value: Any, kind: type) -> type[Exception]:
    """The class of the error for a value that should be of a type: one for its type, one for the value."""
    return ValueError if isinstance(value, kind) and not isinstance(value, bool) else TypeError


def _compatibility(op: str, compat: Any, labels: int) -> np.ndarray:
    """Mu, [L] or [L, L], float32, a copy on the host; pydensecrf takes a number or an array of float32."""
    if isinstance(compat, numbers.Number):
        compat = _check.real(op, "compat", compat)
    else:
        wanted = f"be a number, or a float32 array of shape [{labels}] or [{labels}, {labels}]"
        if _array.family(compat) is None:
            _check.fail(op, "compat", wanted, _check.kind(compat), error=TypeError)
        _float32(op, "compat", compat)
        if tuple(compat.shape) not in ((labels,), (labels, labels)):
            _check.fail(op, "compat", wanted, tuple(compat.shape))
        compat = np.array(_array.to_host(compat))
    mu: np.ndarray = arguments.compatibility(op, "compat", compat, labels, np.empty(0, np.float32))
    return mu


# ---- the CRF --------------------------------------------------------------------------------------------


class _Term(NamedTuple):
    """A pairwise term: what makes its filter for the library and device of an array, mu, and the normalisation."""

    filter: Callable[[Any], Any]
    mu: np.ndarray
    normalization: str


class DenseCRF:
    """A fully connected CRF over any points, with pydensecrf's methods.

    Parameters
    ----------
    nvar : int
        Number of points N.
    nlabels : int
        Number of labels L, 1 to 1024.
    method : {"lattice", "lattice_fine", "exact"}
        How kernels are applied, see :func:`cv3gpu.dense_crf`. ``"lattice"`` gives pydensecrf's results.

    Raises
    ------
    TypeError, ValueError
        An argument that is no integer, out of range, or no method.

    Notes
    -----
    Arrays are copied, so they may be changed afterwards, as with pydensecrf. Without a unary energy it is 0. Kernels
    are made when they are first needed and kept; then each inference costs its iterations alone.

    Examples
    --------
    >>> import numpy as np
    >>> import cv3gpu.densecrf as dcrf
    >>> d = dcrf.DenseCRF(4, 2)                                    # four points on a line, two labels
    >>> p = np.array([[0.9, 0.4, 0.8, 0.1]], np.float32)
    >>> d.setUnaryEnergy(-np.log(np.concatenate([p, 1 - p])))
    >>> d.addPairwiseEnergy(dcrf.create_pairwise_gaussian((0.7,), (4,)), compat=3)
    >>> Q = d.inference(5)
    >>> Q.shape, Q.argmax(0)
    ((2, 4), array([0, 0, 0, 1]))
    """

    def __init__(self, nvar: int, nlabels: int, *, method: str = "lattice") -> None:
        op = type(self).__name__
        self._nvar = _check.integer(op, "nvar", nvar, 0)
        self._nlabels = _check.integer(op, "nlabels", nlabels, 1, MOST_LABELS)
        self._method = _check.choice(op, "method", method, arguments.METHODS)
        self._like: Any = None  # an empty array of the library and device of the arrays so far
        self._unary: Any = None
        self._terms: list[_Term] = []
        self._kernels: list[mean_field.Kernel] = []  # of the first terms
        self._field: MeanField | None = None  # for steps by hand

    # ---- what it consists of ------------------------------------------------------------------------------

    def setUnary(self, u: Any) -> NoReturn:
        """Raises: there are no unary objects; :meth:`setUnaryEnergy` takes the energies themselves."""
        raise UnsupportedError(f"setUnary: u must be energies, and not an object ({_check.kind(u)}); {ENERGIES}")

    @array_op("u")
    def setUnaryEnergy(self, u: Any, f: None = None) -> None:
        """Sets the unary energy.

        Parameters
        ----------
        u : array, [L, N], float32
            -log p. +inf forbids a label.
        f : None
            pydensecrf's features of a logistic unary energy, which its shapes rule out: pass ``L @ f`` as u.

        Raises
        ------
        TypeError, ValueError
            An array of another library, device, dtype or shape than it must be.
        UnsupportedError
            ``f`` was given.
        """
        op = "setUnaryEnergy"
        if f is not None:
            raise UnsupportedError(f"{op}: f must be None, got {_check.kind(f)}; {ENERGIES}")
        _float32(op, "u", u)
        wanted = (self._nlabels, self._nvar)
        advice = f"u.reshape({self._nlabels}, -1)" if math.prod(u.shape) == math.prod(wanted) and u.ndim > 2 else ""
        _check.shape(op, "u", u, wanted, advice)
        self._unary = self._taken(op, "u", u)
        self._field = None

    @array_op("features")
    def addPairwiseEnergy(
        self,
        features: Any,
        compat: Any,
        kernel: KernelType = DIAG_KERNEL,
        normalization: NormalizationType = NORMALIZE_SYMMETRIC,
    ) -> None:
        """Adds a Gaussian pairwise term; there may be any number.

        Parameters
        ----------
        features : array, [D, N], float32
            D features of each point, 1 to 8, already divided by their widths.
        compat : number, [L] or [L, L] float32
            Compatibility: a number w is Potts' model, mu = -w I; a vector is mu's diagonal, with its sign as given;
            of a matrix M, mu is (M + M^T) / 2. Positive entries of mu punish.
        kernel : KernelType
            Without effect: it belongs to pydensecrf's learning in C++.
        normalization : NormalizationType
            Which normalisation the kernel gets.

        Raises
        ------
        TypeError, ValueError
            An array of another library, device, dtype or shape than it must be, or an option that is none of those.
        """
        op = "addPairwiseEnergy"
        _float32(op, "features", features)
        _check.shape(op, "features", features, ("D", self._nvar))
        if not 1 <= features.shape[0] <= MOST_FEATURES:
            _check.fail(op, "features", f"have 1 to {MOST_FEATURES} dimensions (axis 0)", int(features.shape[0]))
        add = self._adding(op, compat, kernel, normalization)
        own = self._taken(op, "features", features)
        if self._method != "exact" and not _array.on_gpu(own) and own.size:
            self._check_near(op, "features", float(abs(own).max()))
        add(lambda like: filters.of_points(own[None], self._method, "float32"))

    def _adding(self, op: str, compat: Any, kernel: Any, normalization: Any) -> Callable[[Callable[[Any], Any]], None]:
        """What adds a term, after a check of what all terms have."""
        mu = _compatibility(op, compat, self._nlabels)
        _word(op, "kernel", kernel, KernelType)
        word = _word(op, "normalization", normalization, NormalizationType)

        def add(filter: Callable[[Any], Any]) -> None:
            self._terms.append(_Term(filter, mu, arguments.NORMALIZATIONS[word]))
            self._field = None

        return add

    def _check_near(self, op: str, argument: str, farthest: float) -> None:
        arguments.check_near(op, argument, farthest, "exact" if self._method == "exact" else "float32")

    def _of_ours(self, op: str, argument: str, x: Any) -> Any:
        """The array as the CPU or GPU path works on it, after a check that it lives where the arrays before do."""
        if self._like is not None:
            _array.check_beside(op, argument, x, "the arrays before", self._like)
        self._like = _array.empty(x, (0,), "float32")
        return x if _array.on_gpu(x) else _array.as_numpy(x)

    def _taken(self, op: str, argument: str, x: Any) -> Any:
        """A copy of the array, dense."""
        return _array.copy(_array.contiguous(self._of_ours(op, argument, x)))

    # ---- inference ----------------------------------------------------------------------------------------

    def meanField(self) -> MeanField:
        """The mean field of all terms so far at its start, as the rest of the library has it.

        Returns
        -------
        cv3gpu.crf.MeanField
            With the steps, the objective and the energy; its arrays are NumPy's for tensors on the CPU.
        """
        return self._there("meanField", self._mean_field)

    def _there(self, op: str, function: Callable[[], Any]) -> Any:
        """Calls it with the device of the arrays current; where there were none, they are NumPy's from now on."""
        if self._like is None:
            self._like = np.empty(0, np.float32)
        return _array.on_device_of(self._like, op, function)

    def _mean_field(self) -> MeanField:
        like = self._like if _array.on_gpu(self._like) else _array.as_numpy(self._like)
        unary = _array.zeros(like, (self._nlabels, self._nvar)) if self._unary is None else self._unary
        with _building:
            for term in self._terms[len(self._kernels) :]:
                self._kernels.append(mean_field.normalized(term.filter(like), term.normalization, like, self._nvar))
        return MeanField(unary[None], self._kernels, [_array.from_host(term.mu, like) for term in self._terms])

    def _given(self, x: Any) -> Any:
        """A result in the library of the arguments."""
        return x if _array.on_gpu(x) else _array.from_numpy(x, self._like)

    def inference(self, niter: int) -> Any:
        """Mean-field inference from the start.

        Parameters
        ----------
        niter : int
            Number of iterations.

        Returns
        -------
        array, [L, N], float32
            Q, the marginals, of the library and on the device of the arrays. ``Q.argmax(0)`` are the best labels.

        Raises
        ------
        TypeError, ValueError
            ``niter`` is no integer, or negative.
        """
        niter = _check.integer("inference", "niter", niter, 0)

        def run() -> Any:
            field = self._mean_field()
            for _ in range(niter):
                field.step()
            return self._given(field.q[0])

        return self._there("inference", run)

    def startInference(self) -> tuple[Any, Any, Any]:
        """The marginals before the first step, and two empty arrays that stand for pydensecrf's memory.

        Returns
        -------
        tuple of arrays
            Q [L, N], float32, for :meth:`stepInference` and :meth:`klDivergence`, and two of shape [0, 0].
        """
        q = self.inference(0)
        return q, _array.empty(q, (0, 0)), _array.empty(q, (0, 0))

    @array_op("Q")
    def stepInference(self, Q: Any, tmp1: Any = None, tmp2: Any = None) -> None:
        """One iteration, in place.

        Parameters
        ----------
        Q : array, [L, N], float32
            The marginals before the step, and after it.
        tmp1, tmp2
            Ignored; memory that pydensecrf works in.

        Raises
        ------
        TypeError, ValueError
            Q is of another library, device, dtype or shape than the marginals are, or must not be written.
        """
        if not getattr(getattr(Q, "flags", None), "writeable", True):
            _check.fail("stepInference", "Q", "be writeable", "a read-only array")
        if getattr(Q, "requires_grad", False):
            _check.fail("stepInference", "Q", "be writeable", "a tensor that requires a gradient", "pass Q.detach()")
        if any(n > 1 and step == 0 for n, step in zip(Q.shape, _array.strides(Q), strict=True)):
            _check.fail("stepInference", "Q", "be writeable", "an array whose elements lie in one place", "copy it")
        field = self._at("stepInference", Q)
        field.step()
        Q[...] = self._given(field.q[0])

    @array_op("Q")
    def klDivergence(self, Q: Any) -> float:
        """The KL divergence of Q from the CRF less log Z, as pydensecrf computes it.

        ``sum Q log Q + sum Q U + sum_m sum Q mu_m K~_m Q``, without the factor 1/2 that its last term has in the
        objective of mean field (:meth:`cv3gpu.crf.MeanField.divergence`).

        Parameters
        ----------
        Q : array, [L, N], float32

        Returns
        -------
        float

        Raises
        ------
        TypeError, ValueError
            Q is of another library, device, dtype or shape than the marginals are.
        """
        return float(self._at("klDivergence", Q).divergence(pairs=1.0)[0])

    def _at(self, op: str, q: Any) -> MeanField:
        """The mean field where its marginals are q."""
        _float32(op, "Q", q)
        _check.shape(op, "Q", q, (self._nlabels, self._nvar))
        q = self._of_ours(op, "Q", q)
        if self._field is None:
            self._field = self._mean_field()
        self._field.q = q[None]
        return self._field


ENERGIES = "setUnaryEnergy(u) takes energies [L, N]: those of ConstUnary(u) as they are, of LogisticUnary(L, f) L @ f"


class DenseCRF2D(DenseCRF):
    """A fully connected CRF over the pixels of an image, with pydensecrf's methods.

    Parameters
    ----------
    w, h : int
        Width and height of the image; pixel (x, y) is point ``y * w + x``.
    nlabels : int
        Number of labels L, 1 to 1024.
    method : {"lattice", "lattice_fine", "exact"}
        As for :class:`DenseCRF`; the Gaussian of positions is exact for both of the latter.

    Raises
    ------
    TypeError, ValueError
        An argument that is no integer, out of range, or no method.

    Examples
    --------
    >>> import numpy as np
    >>> import cv3gpu.densecrf as dcrf
    >>> image = np.zeros((4, 6, 3), np.uint8)
    >>> image[:, 3:] = 200                                         # two areas
    >>> labels = np.zeros((4, 6), int)                             # 0: unsure
    >>> labels[0, 0], labels[0, 5] = 1, 2                          # a hint in each
    >>> d = dcrf.DenseCRF2D(6, 4, 2)
    >>> d.setUnaryEnergy(dcrf.unary_from_labels(labels, 2, gt_prob=0.9))
    >>> d.addPairwiseGaussian(sxy=3, compat=3)
    >>> d.addPairwiseBilateral(sxy=80, srgb=13, rgbim=image, compat=10)
    >>> d.inference(10).argmax(0).reshape(4, 6)
    array([[0, 0, 0, 1, 1, 1],
           [0, 0, 0, 1, 1, 1],
           [0, 0, 0, 1, 1, 1],
           [0, 0, 0, 1, 1, 1]])
    """

    def __init__(self, w: int, h: int, nlabels: int, *, method: str = "lattice") -> None:
        self._w, self._h = (_check.integer("DenseCRF2D", name, n, 0) for name, n in (("w", w), ("h", h)))
        super().__init__(self._w * self._h, nlabels, method=method)

    def addPairwiseGaussian(
        self,
        sxy: Any,
        compat: Any,
        kernel: KernelType = DIAG_KERNEL,
        normalization: NormalizationType = NORMALIZE_SYMMETRIC,
    ) -> None:
        """Adds smoothness: a Gaussian of the distance of two pixels.

        Parameters
        ----------
        sxy : number or pair (x, y), pixels
            Its widths.
        compat, kernel, normalization
            As for :meth:`addPairwiseEnergy`.

        Raises
        ------
        TypeError, ValueError
            An argument of the wrong type, shape or value.
        """
        op = "addPairwiseGaussian"
        theta = arguments.widths_xy(op, "sxy", sxy)
        if self._method == "lattice":
            self._check_near(op, "sxy", max(self._w / theta[0], self._h / theta[1]))
        size = Sizes((), self._nlabels, self._h, self._w, 0)
        add = self._adding(op, compat, kernel, normalization)
        add(lambda like: filters.of_positions(size, theta, self._method, like)[0])

    @array_op("rgbim")
    def addPairwiseBilateral(
        self,
        sxy: Any,
        srgb: Any,
        rgbim: Any,
        compat: Any,
        kernel: KernelType = DIAG_KERNEL,
        normalization: NormalizationType = NORMALIZE_SYMMETRIC,
    ) -> None:
        """Adds appearance: a Gaussian of the distance of two pixels and of their colours.

        Parameters
        ----------
        sxy : number or pair (x, y), pixels
            Its widths in the image.
        srgb : number or three
            Its widths in red, green and blue.
        rgbim : array, [h, w, 3], uint8
            The image. For others see :func:`create_pairwise_bilateral` and :meth:`addPairwiseEnergy`.
        compat, kernel, normalization
            As for :meth:`addPairwiseEnergy`.

        Raises
        ------
        TypeError, ValueError
            An argument of the wrong type, shape or value.
        """
        op = "addPairwiseBilateral"
        theta = arguments.widths_xy(op, "sxy", sxy)
        theta_beta = arguments.widths(op, "srgb", srgb, 3, "three of them (red, green, blue)")
        self._check_near(op, "sxy", max(self._w / theta[0], self._h / theta[1]))
        self._check_near(op, "srgb", 255 / min(theta_beta))
        other = "addPairwiseEnergy(create_pairwise_bilateral(...)) takes other images"
        if (name := _array.dtype_name(rgbim)) != "uint8":
            _check.fail(op, "rgbim", "have dtype uint8", name, other, error=_DtypeError)
        _check.shape(op, "rgbim", rgbim, (self._h, self._w, 3), other)
        add = self._adding(op, compat, kernel, normalization)
        image, size = self._taken(op, "rgbim", rgbim), Sizes((), self._nlabels, self._h, self._w, 3)
        add(lambda like: filters.of_colours(size, image, theta, theta_beta, self._method, like)[0])


class ConstUnary:
    """Raises: :meth:`DenseCRF.setUnaryEnergy` takes the energies themselves."""

    def __init__(self, u: Any) -> None:
        raise UnsupportedError(f"ConstUnary: there are no unary objects; {ENERGIES}")


class LogisticUnary:
    """Raises: :meth:`DenseCRF.setUnaryEnergy` takes the energies ``L @ f``."""

    def __init__(self, L: Any, f: Any) -> None:
        raise UnsupportedError(f"LogisticUnary: there are no unary objects; {ENERGIES}")


# ---- pydensecrf.utils -----------------------------------------------------------------------------------


@array_op("labels")
def unary_from_labels(labels: Any, n_labels: int, gt_prob: float, zero_unsure: bool = True) -> Any:
    """Unary energies from a map of labels that are right with some probability.

    Parameters
    ----------
    labels : array of any shape, integers
        With ``zero_unsure`` 1 to n_labels, and 0 where it could be any of them; otherwise 0 to n_labels - 1.
    n_labels : int
        Number of labels L, at least 2; without the unsure one.
    gt_prob : float
        The probability of the given label, between 0 and 1; the others share the rest.
    zero_unsure : bool
        What 0 means.

    Returns
    -------
    array, [L, N], float32
        -log p, of the library and on the device of labels.

    Raises
    ------
    TypeError, ValueError
        Labels that are not integers or out of range, or another argument of the wrong type or value.

    Examples
    --------
    >>> import numpy as np
    >>> from cv3gpu.densecrf import unary_from_labels
    >>> np.exp(-unary_from_labels(np.array([0, 1, 2]), 2, gt_prob=0.9)).round(2)
    array([[0.5, 0.9, 0.1],
           [0.5, 0.1, 0.9]], dtype=float32)
    """
    op = "unary_from_labels"
    n_labels = _check.integer(op, "n_labels", n_labels, 2, MOST_LABELS)
    zero_unsure = _check.flag(op, "zero_unsure", zero_unsure)
    gt_prob = _check.real(op, "gt_prob", gt_prob)
    if not 0 < gt_prob < 1:
        _check.fail(op, "gt_prob", "be between 0 and 1", gt_prob)
    _check.integers(op, "labels", labels)
    flat = _array.astype(labels.reshape(-1), "int64")
    last = n_labels - (not zero_unsure)
    if len(flat) and not (int(flat.min()) >= 0 and int(flat.max()) <= last):
        advice = "" if zero_unsure else "with zero_unsure=True 0 is no label, and the others count from 1"
        _check.fail(op, "labels", f"be from 0 to {last}", f"{int(flat.min())} to {int(flat.max())}", advice)
    unary = _array.empty(labels, (n_labels, len(flat)), "float32")
    unary[...] = -math.log((1.0 - gt_prob) / (n_labels - 1))
    unary[flat - int(zero_unsure), _array.from_host(np.arange(len(flat)), labels)] = -math.log(gt_prob)
    if zero_unsure:
        unary[:, flat == 0] = -math.log(1.0 / n_labels)
    return unary


@array_op("sm")
def unary_from_softmax(sm: Any, scale: float | None = None, clip: float | None = 1e-5) -> Any:
    """Unary energies from probabilities.

    Parameters
    ----------
    sm : array, [L, ...], float16/bfloat16/float32/float64
        Probabilities, such as the output of a softmax.
    scale : float, optional
        How certain it is, above 0, at most 1: the probabilities are mixed with uniform ones, of weight ``1 - scale``.
    clip : float or None
        Probabilities below are raised to it, as the energy of 0 is infinite.

    Returns
    -------
    array, [L, N], float32
        -log p, of the library and on the device of sm.

    Raises
    ------
    TypeError, ValueError
        An argument of the wrong type, shape or value.

    Examples
    --------
    >>> import numpy as np
    >>> from cv3gpu.densecrf import unary_from_softmax
    >>> np.exp(-unary_from_softmax(np.array([[1.0, 0.5], [0.0, 0.5]]), scale=0.8)).round(2)
    array([[0.9, 0.5],
           [0.1, 0.5]], dtype=float32)
    """
    op = "unary_from_softmax"
    _check.dtype(op, "sm", sm, ("float16", "bfloat16", "float32", "float64"))
    if sm.ndim < 1 or not sm.shape[0]:
        _check.fail(op, "sm", "have shape [L, ...]", tuple(sm.shape))
    if scale is not None:
        scale = _check.real(op, "scale", scale, positive=True)
        if scale > 1:
            _check.fail(op, "scale", "be above 0 and at most 1", scale)
    if clip is not None:
        clip = _check.real(op, "clip", clip)
        if not 0 <= clip <= 1:
            _check.fail(op, "clip", "be from 0 to 1", clip)
    classes = int(sm.shape[0])
    p = sm if _array.dtype_name(sm) == "float64" else _array.astype(sm, "float32")
    if scale is not None:
        p = _array.astype(scale * p, "float64") + (1 - scale) * (1 / classes)
    module = _array.module(p)
    if clip is not None:
        p = module.clip(p, clip, 1.0)
    flat = _array.contiguous(p.reshape(classes, math.prod(p.shape[1:])))
    return _array.astype(-module.log(flat), "float32")


def compute_unary(labels: Any, M: int, GT_PROB: float = 0.5) -> Any:
    """The old name of :func:`unary_from_labels`, with a default for the probability."""
    warnings.warn("compute_unary: unary_from_labels is its new name", DeprecationWarning, stacklevel=2)
    return unary_from_labels(labels, M, GT_PROB)


def softmax_to_unary(sm: Any, GT_PROB: float = 1) -> Any:
    """The old form of :func:`unary_from_softmax`, without clipping; a GT_PROB of 1 is no scale."""
    warnings.warn("softmax_to_unary: unary_from_softmax is its new form", DeprecationWarning, stacklevel=2)
    return unary_from_softmax(sm, None if GT_PROB == 1 else GT_PROB, None)


@array_op("like")
def create_pairwise_gaussian(sdims: Any, shape: Sequence[int], *, like: Any = None) -> Any:
    """Features of the points of a grid for :meth:`DenseCRF.addPairwiseEnergy`: positions over their widths.

    Parameters
    ----------
    sdims : number or sequence
        A width for each axis of the grid, in the order of its axes: (y, x) for an image; a number for all.
    shape : sequence of int
        The grid, such as (H, W).
    like : array, optional
        Whose library and device the result gets; NumPy without it.

    Returns
    -------
    array, [D, N], float32

    Raises
    ------
    TypeError, ValueError
        An argument of the wrong type, length or value.

    Examples
    --------
    >>> from cv3gpu.densecrf import create_pairwise_gaussian
    >>> create_pairwise_gaussian((2.0, 1.0), (2, 3))
    array([[0. , 0. , 0. , 0.5, 0.5, 0.5],
           [0. , 1. , 2. , 0. , 1. , 2. ]], dtype=float32)
    """
    op = "create_pairwise_gaussian"
    if not isinstance(shape, Sequence) or isinstance(shape, str) or not 1 <= len(shape) <= MOST_FEATURES:
        error = TypeError if isinstance(shape, str) else _wrong(shape, Sequence)
        _check.fail(op, "shape", f"be 1 to {MOST_FEATURES} integers", repr(shape), error=error)
    sizes = [_check.integer(op, "shape", n, 0) for n in shape]
    mesh = _mesh(sizes, arguments.widths(op, "sdims", sdims, len(sizes), f"{len(sizes)} of them, one for each axis"))
    return mesh if like is None else _array.from_host(mesh, like)


def _mesh(shape: Sequence[int], widths: Sequence[float]) -> np.ndarray:
    """Positions on a grid over their widths, [D, N]."""
    axes = [np.arange(n, dtype=np.float32) / np.float32(sigma) for n, sigma in zip(shape, widths, strict=True)]
    return np.stack(np.meshgrid(*axes, indexing="ij")).reshape(len(axes), -1)


@array_op("img")
def create_pairwise_bilateral(sdims: Any, schan: Any, img: Any, chdim: int = -1) -> Any:
    """Features of an image's points for :meth:`DenseCRF.addPairwiseEnergy`: positions and values over their widths.

    Parameters
    ----------
    sdims : number or sequence
        A width for each axis of the image, in the order of its axes: (y, x); a number for all.
    schan : number or sequence
        The width of the values, one for all channels or one for each.
    img : array
        The image, any real dtype.
    chdim : int
        The axis of the channels; -1: there is none.

    Returns
    -------
    array, [D, N], float32
        Positions first, then channels; of the library and on the device of img.

    Raises
    ------
    TypeError, ValueError
        An argument of the wrong type, length or value.

    Examples
    --------
    >>> import numpy as np
    >>> from cv3gpu.densecrf import create_pairwise_bilateral
    >>> create_pairwise_bilateral((2.0,), 10.0, np.array([0, 50, 100]))
    array([[ 0. ,  0.5,  1. ],
           [ 0. ,  5. , 10. ]], dtype=float32)
    """
    op = "create_pairwise_bilateral"
    chdim = _check.integer(op, "chdim", chdim, -1, max(img.ndim - 1, 0))
    if not _array.dtype_name(img).startswith(("float", "bfloat", "int", "uint", "bool")):
        _check.fail(op, "img", "be real", _array.dtype_name(img), error=TypeError)
    axes = [axis for axis in range(img.ndim) if axis != chdim]
    if not axes:
        _check.fail(op, "img", "have an axis besides that of the channels", tuple(img.shape))
    shape = [int(img.shape[axis]) for axis in axes]
    widths = arguments.widths(op, "sdims", sdims, len(axes), f"{len(axes)} of them, one for each axis")
    channels = int(img.shape[chdim]) if chdim >= 0 else 1
    values = arguments.widths(op, "schan", schan, channels, f"one for each of the {channels} channels")
    out = _array.empty(img, (len(axes) + channels, math.prod(shape)), "float32")
    out[: len(axes)] = _array.from_host(_mesh(shape, widths), img)
    for c, sigma in enumerate(values):
        plane = img[(slice(None),) * chdim + (c,)] if chdim >= 0 else img
        out[len(axes) + c] = _array.astype(plane, "float32").reshape(-1) / np.float32(sigma)
    return out
