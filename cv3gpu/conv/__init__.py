"""2-D convolution, its two adjoints, and transposed convolution.

``geometry`` says which pixels are related, ``operators`` checks and hands on to ``_cpu`` (torch's own kernels, BLAS)
or ``_gpu`` (``conv_mma.cu``, ``conv.cu``, ``conv_depthwise.cu``).
"""

from __future__ import annotations

from ._cpu import _torch_format as _torch_format
from ._cpu import is_diagonal, torch_forward, wide
from ._gpu import ACTIVATIONS, forward_into
from ._gpu import _pack_lines as _pack_lines
from ._gpu import _pack_weight as _pack_weight
from ._gpu import _unrolled as _unrolled
from .geometry import (
    DTYPES,
    PADDING_MODES,
    SIXTEEN_BIT,
    Geometry,
    check_pixels,
    geometry_of,
    output_size,
    padding_of,
    tile_steps,
)
from .operators import conv2d, conv2d_adjoint_input, conv2d_adjoint_weight, conv_transpose2d, diagonal_of

_geometry, _torch_forward, _wide = geometry_of, torch_forward, wide

__all__ = [
    "ACTIVATIONS",
    "DTYPES",
    "PADDING_MODES",
    "SIXTEEN_BIT",
    "Geometry",
    "check_pixels",
    "conv2d",
    "conv2d_adjoint_input",
    "conv2d_adjoint_weight",
    "conv_transpose2d",
    "diagonal_of",
    "forward_into",
    "geometry_of",
    "is_diagonal",
    "output_size",
    "padding_of",
    "tile_steps",
]
