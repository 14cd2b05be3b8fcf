"""torch: operators with gradients, registered as ``torch.ops.cv3gpu.*`` by this import, and layers.

The layers are loaded when they are first used.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

from .._lazy import lazy
from . import ops

if TYPE_CHECKING:
    from . import layers as layers
    from . import models as models
    from .convolutional import fully_convolutional as fully_convolutional
    from .heads import ASPP as ASPP
    from .heads import PyramidHead as PyramidHead
    from .heads import PyramidPooling as PyramidPooling
    from .layers import Conv2d as Conv2d
    from .layers import ConvTranspose2d as ConvTranspose2d
    from .layers import DenseCRF as DenseCRF
    from .layers import MaxPool2d as MaxPool2d
    from .layers import MaxUnpool2d as MaxUnpool2d
    from .layers import ResizeConv2d as ResizeConv2d
    from .layers import SeparableConv2d as SeparableConv2d
    from .layers import Upsample as Upsample
    from .layers import fold_batch_norm as fold_batch_norm
    from .postprocess import WithCRF as WithCRF
    from .postprocess import cluster_features as cluster_features
    from .postprocess import refine as refine
    from .receptive import ReceptiveField as ReceptiveField
    from .receptive import output_stride as output_stride
    from .receptive import receptive_field as receptive_field
    from .surgery import DropInReport as DropInReport
    from .surgery import drop_in as drop_in
    from .surgery import drop_out as drop_out

_HOME = {
    "convolutional": ("fully_convolutional",),
    "heads": ("ASPP", "PyramidHead", "PyramidPooling"),
    "layers": (
        "Conv2d",
        "ConvTranspose2d",
        "DenseCRF",
        "MaxPool2d",
        "MaxUnpool2d",
        "ResizeConv2d",
        "SeparableConv2d",
        "Upsample",
        "fold_batch_norm",
    ),
    "postprocess": ("WithCRF", "cluster_features", "refine"),
    "receptive": ("ReceptiveField", "output_stride", "receptive_field"),
    "surgery": ("DropInReport", "drop_in", "drop_out"),
}
_MODULES = ("layers", "models")
__all__ = [
    *itertools.chain(*_HOME.values()),
    *_MODULES,
    "ops",
]


if not TYPE_CHECKING:  # for which any name would be there
    __getattr__, __dir__ = lazy(__name__, _HOME, _MODULES)
