"""The checkerboard of transposed convolutions: overlaps against counted taps, measures, and the study's findings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import cv3gpu
from cv3gpu import checkerboard, viz
from cv3gpu.checkerboard import checkerboard_study, harmonic_share, overlap_uniformity, pattern_amplitude, phase_means
from tests.conftest import PATHS

# Kernel, stride, fewest and most taps.
KNOWN = [
    (3, 2, 1, 4),
    (5, 2, 4, 9),
    (4, 2, 4, 4),
    (2, 2, 1, 1),
    (16, 8, 4, 4),
    (64, 32, 4, 4),
    (2, 3, 0, 1),
    (3, 1, 9, 9),
]


@pytest.mark.parametrize(("kernel", "stride", "least", "most"), KNOWN)
def test_known_overlaps(kernel: int, stride: int, least: int, most: int) -> None:
    found = overlap_uniformity(kernel, stride)
    assert (found.minimum, found.maximum, found.ratio) == (least, most, least / most)
    assert found.norms is found.norm_ratio is None
    assert found.taps.shape == (stride, stride) and found.taps.sum() == kernel**2


@pytest.mark.parametrize("kernel", [(1, 2), (3, 4), (5, 3), (2, 7)])
@pytest.mark.parametrize("stride", [(1, 2), (2, 3), (4, 2)])
@pytest.mark.parametrize("dilation", [(1, 1), (2, 3)])
def test_counts_are_those_of_ones(kernel: Any, stride: Any, dilation: Any) -> None:
    """A transposed convolution of ones by ones counts the taps."""
    found = overlap_uniformity(kernel, stride, dilation=dilation)
    n = 30
    y = cv3gpu.conv_transpose2d(np.ones((1, 1, n, n)), np.ones((1, 1, *kernel)), None, stride, dilation=dilation)[0, 0]
    edge = [-(-d * k // s) * s for d, k, s in zip(dilation, kernel, stride, strict=True)]
    inside = y[edge[0] : (n - 1) * stride[0], edge[1] : (n - 1) * stride[1]][: stride[0], : stride[1]]
    np.testing.assert_array_equal(found.taps, inside)
    np.testing.assert_array_equal(found.taps, np.outer(found.rows, found.cols))


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "bfloat16"])
@pytest.mark.parametrize("library", ["numpy", "torch"])
def test_norms_of_weights(library: str, dtype: str) -> None:
    values = np.random.default_rng(0).standard_normal((3, 2, 3, 5))
    weight = PATHS[library].array(values, dtype)
    found = overlap_uniformity((3, 5), 2, weight=weight)
    squares = np.square(PATHS[library].numpy(weight).astype(np.float64)).sum((0, 1))
    want = [[np.sqrt(squares[a::2, b::2].sum()) for b in (0, 1)] for a in (0, 1)]
    np.testing.assert_allclose(found.norms, want)
    assert found.norm_ratio == pytest.approx(np.min(want) / np.max(want))


def test_even_taps_do_not_make_even_weights() -> None:
    weight = np.random.default_rng(0).standard_normal((1, 1, 4, 4))
    found = overlap_uniformity(4, 2, weight=weight)
    assert found.ratio == 1.0 and found.norm_ratio is not None and found.norm_ratio < 0.9
    bilinear = np.outer(*[[0.25, 0.75, 0.75, 0.25]] * 2)[None, None]
    assert overlap_uniformity(4, 2, weight=bilinear).norm_ratio == 1.0
    assert overlap_uniformity(4, 2, weight=np.zeros((1, 1, 4, 4))).norm_ratio == 0.0


def test_measures_of_known_patterns() -> None:
    board = np.indices((8, 12)).sum(0) % 2 * 2.0
    np.testing.assert_array_equal(phase_means(board, 2), [[0, 2], [2, 0]])
    assert pattern_amplitude(board, 2) == pytest.approx(np.sqrt(0.5))
    assert harmonic_share(board, 2) == pytest.approx(1.0)
    assert pattern_amplitude(board, 1) == harmonic_share(np.full((6, 6), 3.7), 2) == 0.0
    wave = np.cos(2 * np.pi * np.arange(24) / 24) * np.ones((24, 1))
    assert harmonic_share(wave, 4) < 1e-20
    both = np.stack([wave, wave + 0.5 * (np.indices((24, 24)).sum(0) % 2 - 0.5)])
    assert harmonic_share(both, 2) == pytest.approx(0.0625 / (0.0625 + 1.0), rel=1e-9)
    assert phase_means(both, (2, 3)).shape == (2, 2, 3)
    assert pattern_amplitude(np.zeros((4, 4)), 2) == 0.0


@pytest.mark.parametrize("stride", [2, 3])
def test_what_the_study_shows(stride: int) -> None:
    uneven, even, nearest, bilinear = checkerboard_study(stride=stride, channels=6, size=16, steps=15)
    assert uneven.overlap is not None and uneven.overlap.ratio == 0.25
    assert even.overlap is not None and even.overlap.ratio == 1.0
    assert nearest.overlap is bilinear.overlap is None
    for transposed in (uneven, even):
        assert transposed.constant_amplitude > 0.3, "even taps are not sufficient"
        assert transposed.start_amplitude > 0.3
        assert transposed.start_share > 0.2
        assert transposed.trained_amplitude < 0.5 * transposed.start_amplitude
    for resized in (nearest, bilinear):
        assert resized.constant_amplitude < 1e-12
        assert resized.start_share < 0.01
        assert resized.start_amplitude < 0.2 * min(uneven.start_amplitude, even.start_amplitude)
        assert resized.trained_share < uneven.trained_share
        assert resized.trained_amplitude < uneven.trained_amplitude
    for trial in (uneven, even, nearest, bilinear):
        assert trial.trained_loss < 0.1 * trial.start_loss
        assert trial.start.shape == trial.trained.shape == trial.constant.shape == (16 * stride - 4 * stride,) * 2
        if trial.overlap is None:
            assert np.ptp(trial.constant) < 1e-12


def test_study_repeats_and_follows_its_seed() -> None:
    first, second, other = (checkerboard_study(channels=2, size=12, steps=2, seed=s) for s in (0, 0, 1))
    assert first[0].trained_loss == second[0].trained_loss != other[0].trained_loss
    untrained = checkerboard_study(channels=2, size=12, steps=0)
    assert untrained[2].start_loss == untrained[2].trained_loss


def test_picture(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    trials = checkerboard_study(channels=2, size=12, steps=1)
    figure = viz.checkerboard_figure(trials, title="Upsampling")
    assert len(figure.axes) == 6 * len(trials)
    assert [axis.get_ylabel() for axis in figure.axes[::6]] == [trial.name for trial in trials]
    assert figure.axes[0].get_xlabel() == "1 to 4"
    viz.save(figure, tmp_path / "checkerboard.png")
    assert (tmp_path / "checkerboard.png").stat().st_size > 10_000


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda: overlap_uniformity(0, 2), ValueError, "overlap_uniformity: kernel_size must be from 1"),
        (lambda: overlap_uniformity(3.0, 2), TypeError, "overlap_uniformity: kernel_size must be an integer or a pair"),
        (
            lambda: overlap_uniformity((3, 3, 3), 2),
            ValueError,
            "overlap_uniformity: kernel_size must be an integer or a",
        ),
        (lambda: overlap_uniformity(3, 0), ValueError, "overlap_uniformity: stride must be from 1"),
        (lambda: overlap_uniformity(3, True), TypeError, "overlap_uniformity: stride must be an integer"),
        (lambda: overlap_uniformity(3, 2, dilation=-1), ValueError, "overlap_uniformity: dilation must be from 1"),
        (
            lambda: overlap_uniformity(3, 2, weight=[1]),
            TypeError,
            "overlap_uniformity: weight must be a NumPy, CuPy or",
        ),
        (
            lambda: overlap_uniformity(3, 2, weight=np.zeros((1, 1, 3, 2))),
            ValueError,
            r"overlap_uniformity: weight must have shape \[C, Cout, 3, 3\], got \(1, 1, 3, 2\)",
        ),
        (
            lambda: overlap_uniformity(2, 2, weight=np.full((1, 1, 2, 2), "a")),
            TypeError,
            "overlap_uniformity: weight must hold real numbers",
        ),
        (lambda: phase_means([1.0, 2.0], 2), ValueError, r"phase_means: y must have shape \[..., H, W\]"),
        (
            lambda: pattern_amplitude(np.ones((1, 3)), 2),
            ValueError,
            "pattern_amplitude: y must have at least one period",
        ),
        (lambda: harmonic_share(np.ones((4, 4)), 0), ValueError, "harmonic_share: period must be from 1"),
        (lambda: checkerboard_study(stride=1), ValueError, "checkerboard_study: stride must be from 2 to 8, got 1"),
        (lambda: checkerboard_study(size=4), ValueError, "checkerboard_study: size must be from 12"),
        (lambda: checkerboard_study(steps=-1), ValueError, "checkerboard_study: steps must be from 0"),
        (lambda: checkerboard_study(channels=1.5), TypeError, "checkerboard_study: channels must be an integer"),
    ],
)
def test_refuses(call: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=f"^{text}"):
        call()


def test_names() -> None:
    assert cv3gpu.overlap_uniformity is overlap_uniformity
    assert set(checkerboard.__all__) >= {"checkerboard_study", "overlap_uniformity"}
