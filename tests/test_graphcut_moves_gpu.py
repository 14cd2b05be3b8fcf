"""The kernels of expansion, swap and fusion moves against the CPU's loops: the same labels and energies, bit by bit."""

from __future__ import annotations

import numpy as np
import pytest

import cv3gpu
from cv3gpu import _array
from cv3gpu.graphcut import _cpu, _gpu, _moves_gpu

from .hostrun import HostBackend
from .test_graphcut_moves import EIGHT, FOUR, OPERATORS, linear, potts, random_problem

HALF = 2**43  # makes capacities need int64


@pytest.fixture
def quick(kernel_path, monkeypatch):
    """The kernels of moves alone: on the CPU runner the cuts, which have tests of their own, are the CPU's."""
    if kernel_path.is_numpy:
        monkeypatch.setattr(_gpu, "solve", _cpu.solve)
    return kernel_path


def both(path, operator, *arrays, **options):
    """The result of the kernels, after a check that it is the CPU's."""
    token = _array.host_backend.set(None)
    labels = options.pop("labels", None)
    try:
        wanted = operator(*arrays, labels=labels, **options)
    finally:
        _array.host_backend.reset(token)
    start = {} if labels is None else {"labels": path.array(labels)}
    found = operator(*(path.array(x) for x in arrays), **start, **options)
    np.testing.assert_array_equal(path.numpy(found.labels), wanted.labels)
    if wanted.energy.dtype == np.int64:
        np.testing.assert_array_equal(path.numpy(found.energy), wanted.energy)
    else:
        np.testing.assert_allclose(path.numpy(found.energy), wanted.energy, rtol=1e-13)
    assert found.n_iter == wanted.n_iter
    return found


@pytest.mark.parametrize("operator", OPERATORS)
@pytest.mark.parametrize("dtype", ["int32", "float32", "float64"])
@pytest.mark.parametrize("wide", [False, True])
def test_moves(quick, operator, dtype, wide):
    unary, pairwise, weights = random_problem(1, 4, (5, 7), EIGHT, linear(4), dtype)
    if wide and dtype == "int32":
        unary, weights = unary.astype("int64") * HALF, weights.astype("int64") * HALF
    elif wide:  # unaries that leave few bits to the edges, and a label that is forbidden
        unary[1, ::2] = np.inf
        unary[0, 0, 0] = 1e6
    both(quick, operator, unary, pairwise, weights, offsets=EIGHT, fuse=True)


@pytest.mark.parametrize(
    ("shape", "offsets"),
    [
        ((1, 1), FOUR),
        ((1, 9), FOUR),
        ((17, 31), FOUR),
        ((6, 7), ((2, -3), (0, 1), (0, -1))),
        ((3, 3, 4), ((1, 0, 0), (0, 1, 0), (0, 1, -1))),
    ],
)
def test_shapes_and_offsets(quick, shape, offsets):
    """One pixel without any edge, several blocks, long and opposite offsets, volumes."""
    unary, pairwise, weights = random_problem(2, 3, shape, offsets)
    both(quick, cv3gpu.alpha_expansion, unary, pairwise, weights, offsets=offsets)


def test_batches_end_each_on_its_own(quick):
    parts = [random_problem(seed, 4, (4, 5), FOUR, linear(4), largest=3 + 20 * seed) for seed in range(3)]
    unary, weights = (np.stack([part[i] for part in parts]) for i in (0, 2))
    for operator in OPERATORS:
        both(quick, operator, unary, parts[0][1], weights, offsets=FOUR, fuse=True)


def test_more_problems_than_a_grid_is_high(quick, monkeypatch):
    monkeypatch.setattr(_moves_gpu, "MAX_GRID_YZ", 2)
    parts = [random_problem(seed, 3, (3, 4), FOUR) for seed in range(5)]
    unary, weights = (np.stack([part[i] for part in parts]) for i in (0, 2))
    both(quick, cv3gpu.alpha_expansion, unary, parts[0][1], weights, offsets=FOUR)


@pytest.mark.parametrize("operator", OPERATORS)
def test_costs_that_are_no_metric(quick, operator):
    unary, _, weights = random_problem(4, 3, (5, 6), FOUR)
    odd = np.array([[3, -2, 5], [-2, 1, 0], [5, 0, -4]])
    both(quick, operator, unary, odd, weights, offsets=FOUR, truncate=True)
    fused = both(quick, operator, unary.astype("float32"), 0.3 * odd, weights, offsets=FOUR, truncate=True, fuse=True)
    assert np.isfinite(quick.numpy(fused.energy)).all()


def test_a_start_of_ones_own(quick):
    unary, pairwise, weights = random_problem(5, 3, (5, 6), FOUR)
    start = np.random.default_rng(5).integers(0, 3, (5, 6))
    for operator in OPERATORS:
        both(quick, operator, unary, pairwise, weights, offsets=FOUR, labels=start, fuse=True)


def test_ties_of_the_start(quick):
    unary = np.random.default_rng(6).integers(0, 2, (5, 6, 7))
    none = np.zeros((2, 6, 7), int)
    found = both(quick, cv3gpu.alpha_expansion, unary, potts(5), none, offsets=FOUR)
    np.testing.assert_array_equal(quick.numpy(found.labels), unary.argmin(0))


def test_the_kernels_launch_what_the_header_says(monkeypatch):
    """Three launches a move, whatever the number of images."""
    monkeypatch.setattr(_gpu, "solve", _cpu.solve)
    backend, names = HostBackend(mode="fast"), []
    of_name = backend.cuda_kernel
    monkeypatch.setattr(backend, "cuda_kernel", lambda text, name: names.append(name) or of_name(text, name))
    token = _array.host_backend.set(backend)
    try:
        parts = [random_problem(seed, 3, (6, 6), FOUR) for seed in range(4)]
        unary, weights = (np.stack([part[i] for part in parts]) for i in (0, 2))
        found = cv3gpu.alpha_expansion(unary, parts[0][1], weights, offsets=FOUR, fuse=False)
    finally:
        _array.host_backend.reset(token)
    made = names.count("moves_build")
    assert made == names.count("moves_gain") == names.count("moves_take") <= 3 * found.n_iter
    assert names.count("moves_start") == names.count("moves_energy") == 1


@pytest.mark.parametrize("operator", OPERATORS)
def test_moves_and_cuts_by_kernels(kernel_path, operator):
    unary, pairwise, weights = random_problem(8, 3, (4, 5), FOUR, linear(3))
    both(kernel_path, operator, unary, pairwise, weights, offsets=FOUR)


def test_any_schedule_gives_the_same_bits(monkeypatch):
    monkeypatch.setattr(_gpu, "solve", _cpu.solve)
    unary, pairwise, weights = random_problem(7, 4, (17, 19), FOUR, linear(4), "float32")
    results = []
    for order, seed in (("forward", 0), ("reverse", 0), ("random", 1), ("random", 2)):
        token = _array.host_backend.set(HostBackend(mode="fast", order=order, seed=seed))
        try:
            results.append(cv3gpu.alpha_expansion(unary, pairwise, weights, offsets=FOUR))
        finally:
            _array.host_backend.reset(token)
    for other in results[1:]:
        np.testing.assert_array_equal(other.labels, results[0].labels)
        assert other.energy == results[0].energy
