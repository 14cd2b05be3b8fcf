"""Convolutions at random: forward, both gradients and transposed, against torch in float64, on every path."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests import test_conv, test_conv_transpose

# Of each: 2,000 in all for the CPU paths, 104 for the kernels.
ON_CPU, ON_KERNELS = 250, 13


def _layout(seed: int) -> str:
    return "nhwc" if seed % 3 == 0 else "nchw"


@pytest.mark.parametrize("dtype", test_conv.DTYPES)
def test_convolutions_on_a_cpu(cpu_path: Any, dtype: str) -> None:
    """Any groups, kernel, step, dilation, padding and its mode, with and without bias, scale and activation."""
    rng = np.random.default_rng([7, test_conv.DTYPES.index(dtype)])
    for seed in range(ON_CPU):
        case = test_conv.random_case(rng)
        try:
            test_conv.check(cpu_path, case, dtype, _layout(seed), seed)
        except AssertionError as error:
            raise AssertionError(f"configuration {seed}: {case}") from error


@pytest.mark.parametrize("dtype", test_conv_transpose.DTYPES)
def test_transposed_convolutions_on_a_cpu(cpu_path: Any, dtype: str) -> None:
    rng = np.random.default_rng([11, test_conv_transpose.DTYPES.index(dtype)])
    for seed in range(ON_CPU):
        case = test_conv_transpose.random_case(rng)
        try:
            test_conv_transpose.check(cpu_path, case, dtype, _layout(seed), seed)
        except AssertionError as error:
            raise AssertionError(f"configuration {seed}: {case}") from error


@pytest.mark.parametrize("dtype", test_conv.DTYPES)
def test_convolutions_by_the_kernels(kernel_path: Any, dtype: str) -> None:
    rng = np.random.default_rng([13, test_conv.DTYPES.index(dtype)])
    for seed in range(ON_KERNELS):
        case = test_conv.random_case(rng, 7, 4)
        try:
            test_conv.check(kernel_path, case, dtype, _layout(seed), seed)
        except AssertionError as error:
            raise AssertionError(f"configuration {seed}: {case}") from error


@pytest.mark.parametrize("dtype", test_conv_transpose.DTYPES)
def test_transposed_convolutions_by_the_kernels(kernel_path: Any, dtype: str) -> None:
    rng = np.random.default_rng([17, test_conv_transpose.DTYPES.index(dtype)])
    for seed in range(ON_KERNELS):
        case = test_conv_transpose.random_case(rng)
        try:
            test_conv_transpose.check(kernel_path, case, dtype, _layout(seed), seed)
        except AssertionError as error:
            raise AssertionError(f"configuration {seed}: {case}") from error
