"""The eigensolver on the GPU: operators, null space, and Chebyshev-filtered subspace iteration on the device.

Blocks stay there; the host sees Ritz values and residuals once an iteration. Pixel affinities of up to 200 neighbours
go through LOBPCG with a multigrid (`_gpu_lobpcg`). Otherwise, or where that stalls, weights of float32 are filtered in
float32 as far as that goes, and then in float64. The kernels are in ``kernels/eigen.cu``, ``eigen_components.cu``,
``eigen_sparse.cu`` and ``affinity_product.cu``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from .. import _array
from .._kernel import blocks, kernel
from ..affinity.matrix import Given
from ._chebyshev import LANCZOS, Space, iterate
from ._lobpcg import Found
from ._operator import Operator
from ._problem import DENSE, GUARD, LOOSE, Problem, loose_start, null_space, signs
from .solve import OP, Eigenpairs

__all__ = ["pairs"]

Array = np.ndarray[Any, Any]

MOST = 48  # columns of a small matrix, as in eigen.cu
_BLOCK = 256  # as in eigen.cu, eigen_components.cu and eigen_sparse.cu
_PARTS = 256  # of a sum over rows
_ROWS = (128, 32)  # of a piece of eigen_combine, as shared memory has room
_FLOAT32 = 5e-7  # a residual, of the bound of the spectrum, that filters reach in float32
_PATIENCE = 1  # iterations without a halved residual until float32 gives way to float64


class _Matrix(Operator):
    """A y = lambda M y on the device; degrees, masses and the diagonal are there, in float64."""

    def __init__(self, degree: Any, diagonal: Any, generalized: bool, stored: Any, dtype: str) -> None:
        self.size = int(degree.shape[0])
        self.degree, self.diagonal = _array.contiguous(degree), _array.contiguous(diagonal)
        if generalized:
            self.mass = self.degree
        else:
            self.mass = _array.empty(self.degree, (self.size,))
            self.mass[...] = 1
        self.alone = bool((self.mass <= 0).any())  # some vertex is connected to nothing, and M is singular
        self.inverse = self.mass if self.alone else 1 / self.mass
        self.most = 2 * float((self.diagonal * self.inverse).max())
        self.stored, self.dtype = stored, dtype
        self._narrow: dict[str, tuple[Any, ...]] = {}

    def sides(self, dtype: str) -> tuple[Any, ...]:
        """Diagonal, inverse and mass in a dtype."""
        if dtype not in self._narrow:
            self._narrow[dtype] = tuple(_array.astype(x, dtype) for x in (self.diagonal, self.inverse, self.mass))
        return self._narrow[dtype]

    def apply(self, x: Any) -> Any:
        return self.step(x, _array.empty(x, x.shape), None, 0.0, 1.0, 0.0)

    def follow(self, x: Any, centre: float, scale: float, before: float, out: Any) -> None:
        self.step(x, out, self.sides(_array.dtype_name(x))[1], centre, scale, before)

    def step(self, x: Any, out: Any, inverse: Any, centre: float, scale: float, before: float) -> Any:
        """``out`` = scale (inverse A x - centre x) - before out."""
        raise NotImplementedError

    def join(self, share: float, parent: Any) -> None:
        """Joins what edges above a share of the smaller degree connect."""
        raise NotImplementedError

    def roots(self, share: float) -> tuple[Any, int]:
        """The smallest vertex of each vertex's component [N], and the number of components."""
        parent = _array.from_host(np.arange(self.size, dtype=np.int32), self.degree)
        self.join(share, parent)
        root, count = _array.empty(parent, parent.shape), _array.zeros(parent, (1,))
        kernel("eigen_components.cu", "eigen_roots", stored=self.dtype, FEATURES=0)(
            (blocks(self.size, _BLOCK),), _BLOCK, parent, root, count, self.size
        )
        return root, int(_array.to_host(count)[0])


class _Pixels(_Matrix):
    """Of a pixel affinity."""

    def __init__(self, affinity: Any, generalized: bool) -> None:
        self.affinity, self.stencil = affinity, affinity.device_stencil()
        self.offsets = _array.from_host(np.array([*affinity.offsets, (0, 0)], np.int32), affinity.kept)
        sums = self.stencil.sums()[0]
        stored = self.stencil.source
        super().__init__(sums + affinity.self_weight, sums, generalized, stored, _array.dtype_name(stored))

    def step(self, x: Any, out: Any, inverse: Any, centre: float, scale: float, before: float) -> Any:
        diagonal = self.sides(_array.dtype_name(x))[0]
        return self.stencil.step(x, out, diagonal, inverse, centre=centre, scale=scale, before=before)

    def join(self, share: float, parent: Any) -> None:
        s = self.stencil
        run = kernel("eigen_components.cu", "eigen_join", stored=self.dtype, FEATURES=s.features)
        run((blocks(self.size, _BLOCK), s.half), _BLOCK, s.source, s.distance, self.offsets, self.degree, parent,
            *s.grid, s.plane, s.scale, share)  # fmt: skip


class _Rows(_Matrix):
    """Of a sparse matrix."""

    def __init__(self, what: Given, generalized: bool) -> None:
        from scipy import sparse

        matrix = what.matrix
        own = matrix.diagonal()
        degree = np.asarray(matrix.sum(axis=1)).ravel()
        rest = (matrix - sparse.diags_array(own)).tocsr()
        rest.eliminate_zeros()

        def there(x: Array, dtype: Any) -> Any:
            return _array.from_host(np.ascontiguousarray(x, dtype), what.like)

        self.start = there(rest.indptr, np.int64)
        self.columns = there(np.append(rest.indices, 0), np.int32)  # never empty
        stored = there(np.append(rest.data, 0), what.dtype)
        super().__init__(there(degree, float), there(degree - own, float), generalized, stored, what.dtype)

    def step(self, x: Any, out: Any, inverse: Any, centre: float, scale: float, before: float) -> Any:
        dtype, vectors = _array.dtype_name(x), int(x.shape[1]) * x.itemsize // 16
        run = kernel("eigen_sparse.cu", "sparse_step", real=dtype, stored=self.dtype)
        run((blocks(self.size * vectors, _BLOCK),), _BLOCK, self.start, self.columns, self.stored, x, out,
            self.sides(dtype)[0], inverse, self.size, vectors, centre, scale, before)  # fmt: skip
        return out

    def join(self, share: float, parent: Any) -> None:
        run = kernel("eigen_sparse.cu", "sparse_join", real="float64", stored=self.dtype)
        run((blocks(32 * self.size, _BLOCK),), _BLOCK, self.start, self.columns, self.stored, self.degree, parent,
            self.size, share)  # fmt: skip


class _OnHost(Operator):
    """The same operator for blocks in NumPy, which come and go: where a graph falls into parts."""

    def __init__(self, there: _Matrix) -> None:
        self.there, self.size, self.mass = there, there.size, _array.to_host(there.mass)

    def apply(self, x: Array) -> Array:
        return _array.to_host(self.there.apply(_array.from_host(np.ascontiguousarray(x), self.there.degree)))

    def components(self, share: float) -> Array:
        return np.unique(_array.to_host(self.there.roots(share)[0]), return_inverse=True)[1]


class _Device(Space):
    """Blocks on the device, in float32 or float64."""

    def __init__(self, matrix: _Matrix, null: Any, dtype: str, seed: int) -> None:
        self.matrix, self.dtype, self.seed = matrix, dtype, seed
        self.null = _array.contiguous(_array.astype(null, dtype))
        self.mass = matrix.sides(dtype)[2]

    def run(self, name: str, grid: int, *args: Any, shared_mem: int = 0, threads: int = _BLOCK) -> None:
        """Launches a kernel of eigen.cu."""
        kernel("eigen.cu", name, real=self.dtype)((grid,), threads, *args, shared_mem=shared_mem)

    def small(self, *shape: int) -> Any:
        """A small matrix in float64."""
        return _array.empty(self.matrix.degree, shape)

    def empty_like(self, x: Any) -> Any:
        return _array.empty(x, x.shape)

    def follow(self, x: Any, centre: float, scale: float, before: float, out: Any) -> None:
        self.matrix.follow(x, centre, scale, before, out)

    # ---- parts of an iteration ----------------------------------------------------------------------------

    def gram(self, one: Any, two: Any, right: Any, mass: Any) -> Any:
        """Parts of [one, two]^T M right, of blocks side by side."""
        a, b, c = (0 if x is None else int(x.shape[1]) for x in (one, two, right))
        part = self.small(min(_PARTS, blocks(len(two), _ROWS[1])), a + b, c)
        self.run("eigen_gram", len(part), one, two, right, mass, part, len(two), a, b, c)
        return part

    def combine(self, one: Any, two: Any, coefficients: Any, out: Any, fresh: Any = None, seed: int = 0) -> None:
        """``out`` = [one, two] times coefficients, may be ``two``; columns that are fresh get scattered numbers."""
        a, b, c = (0 if x is None else int(x.shape[1]) for x in (one, two, out))
        rows = _ROWS[0] if a + b <= MOST // 2 else _ROWS[1]
        grid = min(blocks(len(two), rows), 8 * _PARTS)
        self.run("eigen_combine", grid, one, two, coefficients, fresh, out, len(two), a, b, c, rows, seed,
                  shared_mem=8 * (rows * (a + b + 1) + (a + b) * c))  # fmt: skip

    def scattered(self, columns: int) -> Any:
        """Numbers that depend on their place and the seed alone."""
        x = _array.zeros(self.null, (self.matrix.size, columns))
        every = _array.zeros(self.matrix.degree, (columns,))
        every[...] = 1
        self.combine(None, x, _array.zeros(self.matrix.degree, (columns, columns)), x, every, self.seed)
        return x

    def orthonormal(self, x: Any, basis: Any, fresh: Any = None) -> None:
        """Makes the columns orthonormal, and orthogonal to a basis; ``fresh`` [b + 1]: those made anew in the end."""
        a, b = int(basis.shape[1]), int(x.shape[1])
        coefficients, fresh = self.small(a + b, b), self.small(b + 1) if fresh is None else fresh
        for turn in range(2):
            part = self.gram(basis, x, x, self.mass)
            self.run("eigen_basis", 1, part, coefficients, fresh, len(part), a, b, threads=threads_for(b))
            self.combine(basis, x, coefficients, x, fresh, self.seed + 1 + turn)

    def residuals(self, values: Any, x: Any, ax: Any, norms: Any, out: Any = None, first: int = 0) -> None:
        """Norms |M^-1/2 (A x - lambda M x)|, [b], of b columns from one on; the vectors go to ``out``."""
        columns = int(values.shape[0])
        part = self.small(min(_PARTS, blocks(len(x), _ROWS[1])), columns)
        self.run("eigen_residual", len(part), x, ax, values, self.mass, out, part, len(x), int(x.shape[1]), first,
                  columns)  # fmt: skip
        self.run("eigen_norms", 1, part, norms, len(part), columns)

    def ritz(self, x: Any) -> tuple[Array, Any, Array]:
        """Ritz values, A x and residuals; x becomes the vectors, orthonormal outside of the null space."""
        b = int(x.shape[1])
        state, coefficients = self.small(3 * b + 1), self.small(b, b)
        values, norms, fresh = state[:b], state[b : 2 * b], state[2 * b :]
        found, ax = np.empty(0), _array.empty(x, x.shape)
        for _ in range(3):  # a column that was made anew at last is not orthonormal yet
            self.orthonormal(x, self.null, fresh)
            self.matrix.step(x, ax, None, 0.0, 1.0, 0.0)
            part = self.gram(None, x, ax, None)
            self.run("eigen_ritz", 1, part, values, coefficients, len(part), b, threads=threads_for(b))
            self.combine(None, x, coefficients, x)
            self.combine(None, ax, coefficients, ax)
            self.residuals(values, x, ax, norms)
            found = _array.to_host(state)
            if not found[-1] > 0:
                break
        return found[:b], ax, found[b : 2 * b]

    def pairs(self, x: Any) -> tuple[Array, Any, Array]:
        values, _, norms = self.ritz(x)
        return values, x, norms

    def greatest(self) -> float:
        return self.bound(LANCZOS)

    def bound(self, steps: int) -> float:
        """By Lanczos' steps for four starts at once, which the host does not wait for."""
        steps = min(steps, self.matrix.size)
        v = self.scattered(4)
        weight = self.mass[:, None]
        v = v / (v * v * weight).sum(0) ** 0.5
        before, beta = _array.zeros(v, v.shape), _array.zeros(v, (4,))
        record = _array.zeros(v, (2 * steps, 4))
        for j in range(steps):
            image = _array.empty(v, v.shape)
            self.follow(v, 0.0, 1.0, 0.0, image)
            image = image - beta * before
            alpha = (v * image * weight).sum(0)
            image = image - alpha * v
            beta = (image * image * weight).sum(0) ** 0.5
            record[2 * j], record[2 * j + 1] = alpha, beta
            before, v = v, _array.contiguous(image / beta)
        alphas, betas = _array.to_host(record).astype(float).reshape(steps, 2, 4).swapaxes(0, 1)
        found = 0.0
        for alpha, beta in zip(alphas.T, betas.T, strict=True):
            last = int(np.append(np.flatnonzero(~(beta > 1e-5 * beta[0])), steps - 1)[0])  # what comes after is noise
            t = np.diag(alpha[: last + 1]) + np.diag(beta[:last], 1) + np.diag(beta[:last], -1)
            if np.isfinite(t).all() and np.isfinite(beta[last]):
                found = max(found, float(np.linalg.eigvalsh(t)[-1] + beta[last]))
        return min(self.matrix.most, found) if found > 0 else self.matrix.most


def threads_for(columns: int) -> int:
    """Of a small eigenproblem."""
    return min(_BLOCK, blocks((columns // 2) ** 2, 32) * 32)


# ---- null space -------------------------------------------------------------------------------------------


def _padded(x: Any) -> Any:
    """With columns of zeros, to a multiple of 4."""
    wide = _array.zeros(x, (len(x), blocks(int(x.shape[1]), 4) * 4))
    wide[:, : x.shape[1]] = x
    return wide


def _null_space(matrix: _Matrix, k: int) -> tuple[Any, int, bool, Array]:
    """An orthonormal block that is constant on components, its columns, whether no weight joins them; a loose start."""
    if matrix.roots(LOOSE)[1] <= 1:  # and so by weaker edges, too
        null = _array.empty(matrix.degree, (matrix.size, 1))
        null[...] = matrix.mass.sum() ** -0.5
        return null, 1, True, np.empty((matrix.size, 0))
    here = _OnHost(matrix)
    found, exact = null_space(here, k)
    loose = loose_start(here, found.shape[1], k) if found.shape[1] < k else np.empty((matrix.size, 0))
    return _array.from_host(found, matrix.degree), found.shape[1], exact, loose


# ---- the solver -------------------------------------------------------------------------------------------


class Solved(NamedTuple):
    """A result, and what there is to be said of its convergence."""

    result: Eigenpairs
    problem: Problem
    values: Array
    norms: Array
    exact: bool


def pairs(what: Given, k: int, generalized: bool, tol: float, max_iter: int, seed: int) -> Solved | None:
    """As `smallest_eigenpairs`; None where the CPU is to do it, as graphs are small or blocks wide."""
    return _array.on_device_of(what.like, OP, _pairs, what, k, generalized, tol, max_iter, seed)


def _pairs(what: Given, k: int, generalized: bool, tol: float, max_iter: int, seed: int) -> Solved | None:
    if what.size <= DENSE:
        return None
    matrix: _Matrix = _Rows(what, generalized) if what.pixels is None else _Pixels(what.pixels, generalized)
    if matrix.alone:
        return None  # which says so
    null, count, exact, loose = _null_space(matrix, k)
    wanted = k - count
    width = blocks(wanted + max(GUARD, wanted // 2), 4) * 4
    if blocks(count, 4) * 4 + width > MOST or matrix.size < 4 * (width + count):
        return None
    problem = Problem(matrix, null, wanted, tol)
    if wanted:
        found = _solved(matrix, _padded(null), problem, width, loose, max_iter, seed)
    else:
        found = Found(np.empty(0), _array.empty(matrix.degree, (matrix.size, 0)), np.empty(0), 0)
    values, vectors, norms = _joined(matrix, null, found, wanted, seed)
    vectors = _array.astype(vectors * signs(vectors), what.dtype)
    result = Eigenpairs(what.back(values), vectors, what.back(norms), found.n_iter)
    return Solved(result, problem, values, norms, exact)


def _solved(matrix: _Matrix, null: Any, problem: Problem, width: int, loose: Array, max_iter: int, seed: int) -> Found:
    """By LOBPCG with a multigrid where that serves; by filters in float32, where weights are stored so, and float64."""
    from . import _gpu_lobpcg

    stages = ["float32", "float64"] if matrix.dtype == "float32" else ["float64"]
    x, taken = None, 0
    if isinstance(matrix, _Pixels) and _gpu_lobpcg.serves(matrix, null, problem.wanted):
        found = _gpu_lobpcg.lobpcg(matrix, null, problem, loose, max_iter, seed)
        if problem.done(found.values, found.residual) or found.n_iter == max_iter:
            return found
        x, taken, stages = found.vectors, found.n_iter, stages[-1:]
    for dtype in stages:
        space = _Device(matrix, null, dtype, seed)
        if x is None:
            x = space.scattered(width)
            known = loose[:, :width]
            x[:, : known.shape[1]] = _array.astype(_array.from_host(known, null), dtype)
        else:
            x = _array.astype(x, dtype)
        last = dtype == stages[-1]
        done: Callable[[Array, Array], bool] = problem.done if last else _nearly(problem)
        patience = {} if last else {"patience": _PATIENCE}
        found = iterate(space, x, problem.wanted, done, max_iter - taken, **patience)
        x, taken = found.vectors, taken + found.n_iter
    return found._replace(n_iter=taken)


def _nearly(problem: Problem) -> Callable[[Array, Array], bool]:
    """Whether float32 has done what it can."""

    def done(values: Array, norms: Array) -> bool:
        return problem.done(values, norms) or bool(norms[: problem.wanted].max() <= _FLOAT32 * problem.operator.most)

    return done


def _joined(matrix: _Matrix, null: Any, found: Found, wanted: int, seed: int) -> tuple[Array, Any, Array]:
    """Eigenvalues, eigenvectors [N, k] on the device and true residuals of all pairs, in float64."""
    count = int(null.shape[1])
    values = np.zeros(blocks(count + wanted, 4) * 4)
    values[count : count + wanted] = np.maximum(found.values[:wanted], 0)
    vectors = _array.zeros(null, (matrix.size, len(values)))
    vectors[:, :count] = null
    vectors[:, count : count + wanted] = found.vectors[:, :wanted]
    space = _Device(matrix, null, "float64", seed)
    norms, k = _array.empty(null, values.shape), count + wanted
    space.residuals(_array.from_host(values, null), vectors, matrix.apply(vectors), norms)
    return values[:k], _array.contiguous(vectors[:, :k]), _array.to_host(norms)[:k]
