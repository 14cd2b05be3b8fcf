"""cv3gpu: hand-written GPU kernels for image segmentation and multi-object tracking.

Operators take NumPy, CuPy or torch arrays and return arrays of the same library on the same device. Every
name below is loaded when it is first used; importing the package imports NumPy and nothing heavier.
"""

from __future__ import annotations

import importlib.util
import itertools
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ._lazy import lazy

if TYPE_CHECKING:  # what __getattr__ below finds, for type checkers and editors
    from . import affinity as affinity
    from . import checkerboard as checkerboard
    from . import cluster as cluster
    from . import crf as crf
    from . import densecrf as densecrf
    from . import eigen as eigen
    from . import graphcut as graphcut
    from . import message as message
    from . import mot as mot
    from . import nn as nn
    from . import scale as scale
    from . import spectral as spectral
    from . import superpixel as superpixel
    from . import viz as viz
    from ._determinism import determinism as determinism
    from .affinity import knn_affinity as knn_affinity
    from .affinity import laplacian as laplacian
    from .affinity import ncut_value as ncut_value
    from .affinity import pixel_affinity as pixel_affinity
    from .affinity import rbf_affinity as rbf_affinity
    from .affinity import region_affinity as region_affinity
    from .assignment import Assignment as Assignment
    from .assignment import linear_sum_assignment as linear_sum_assignment
    from .atrous import aspp as aspp
    from .atrous import aspp_vjp as aspp_vjp
    from .boxes import box_iou as box_iou
    from .boxes import box_iou_vjp as box_iou_vjp
    from .checkerboard import overlap_uniformity as overlap_uniformity
    from .cluster import kmeans as kmeans
    from .cluster import mean_shift as mean_shift
    from .cluster import mean_shift_filter as mean_shift_filter
    from .cluster import mean_shift_segmentation as mean_shift_segmentation
    from .conv import conv2d as conv2d
    from .conv import conv2d_adjoint_input as conv2d_adjoint_input
    from .conv import conv2d_adjoint_weight as conv2d_adjoint_weight
    from .conv import conv_transpose2d as conv_transpose2d
    from .crf import dense_crf as dense_crf
    from .crf import dense_crf_vjp as dense_crf_vjp
    from .crf import gaussian_filter as gaussian_filter
    from .crf import gaussian_filter_vjp as gaussian_filter_vjp
    from .eigen import smallest_eigenpairs as smallest_eigenpairs
    from .errors import BackendUnavailableError as BackendUnavailableError
    from .errors import ConvergenceWarning as ConvergenceWarning
    from .errors import DataFormatError as DataFormatError
    from .errors import DivergedError as DivergedError
    from .errors import KernelCompileError as KernelCompileError
    from .errors import OutOfMemoryError as OutOfMemoryError
    from .graphcut import alpha_beta_swap as alpha_beta_swap
    from .graphcut import alpha_expansion as alpha_expansion
    from .graphcut import boykov_jolly as boykov_jolly
    from .graphcut import grab_cut as grab_cut
    from .graphcut import graph_cut as graph_cut
    from .metrics import boundary_f1 as boundary_f1
    from .metrics import confusion_matrix as confusion_matrix
    from .metrics import mean_iou as mean_iou
    from .metrics import panoptic_quality as panoptic_quality
    from .metrics import pixel_accuracy as pixel_accuracy
    from .metrics import rand_index as rand_index
    from .metrics import segmentation_covering as segmentation_covering
    from .metrics import variation_of_information as variation_of_information
    from .pool import max_pool2d as max_pool2d
    from .pool import max_pool2d_adjoint as max_pool2d_adjoint
    from .pool import max_unpool2d as max_unpool2d
    from .pool import max_unpool2d_adjoint as max_unpool2d_adjoint
    from .pyramid import pyramid_conv2d as pyramid_conv2d
    from .pyramid import pyramid_pooling as pyramid_pooling
    from .resize import interpolate as interpolate
    from .resize import interpolate_adjoint as interpolate_adjoint
    from .resize_conv import resize_conv2d as resize_conv2d
    from .resize_conv import resize_conv2d_adjoint_input as resize_conv2d_adjoint_input
    from .resize_conv import resize_conv2d_adjoint_weight as resize_conv2d_adjoint_weight
    from .separable import SeparableGradients as SeparableGradients
    from .separable import separable_conv2d as separable_conv2d
    from .separable import separable_conv2d_vjp as separable_conv2d_vjp
    from .spectral import normalized_cut as normalized_cut
    from .spectral import spectral_clustering as spectral_clustering
    from .superpixel.slic import slic as slic
    from .upsample import upsample_argmax as upsample_argmax
    from .upsample import upsample_cross_entropy as upsample_cross_entropy
    from .upsample import upsample_cross_entropy_vjp as upsample_cross_entropy_vjp

    kernels: Any  # the folder lies elsewhere in a checkout (see _find_kernels)

__version__ = "0.1.0"

_HOME = {
    "_determinism": ("determinism",),
    "affinity": ("knn_affinity", "laplacian", "ncut_value", "pixel_affinity", "rbf_affinity", "region_affinity"),
    "assignment": ("Assignment", "linear_sum_assignment"),
    "atrous": ("aspp", "aspp_vjp"),
    "boxes": ("box_iou", "box_iou_vjp"),
    "checkerboard": ("overlap_uniformity",),
    "cluster": ("kmeans", "mean_shift", "mean_shift_filter", "mean_shift_segmentation"),
    "conv": ("conv2d", "conv2d_adjoint_input", "conv2d_adjoint_weight", "conv_transpose2d"),
    "crf": ("dense_crf", "dense_crf_vjp", "gaussian_filter", "gaussian_filter_vjp"),
    "eigen": ("smallest_eigenpairs",),
    "graphcut": ("alpha_beta_swap", "alpha_expansion", "boykov_jolly", "grab_cut", "graph_cut"),
    "metrics": (
        "boundary_f1",
        "confusion_matrix",
        "mean_iou",
        "panoptic_quality",
        "pixel_accuracy",
        "rand_index",
        "segmentation_covering",
        "variation_of_information",
    ),
    "pool": ("max_pool2d", "max_pool2d_adjoint", "max_unpool2d", "max_unpool2d_adjoint"),
    "pyramid": ("pyramid_conv2d", "pyramid_pooling"),
    "resize": ("interpolate", "interpolate_adjoint"),
    "resize_conv": ("resize_conv2d", "resize_conv2d_adjoint_input", "resize_conv2d_adjoint_weight"),
    "separable": ("SeparableGradients", "separable_conv2d", "separable_conv2d_vjp"),
    "spectral": ("normalized_cut", "spectral_clustering"),
    "superpixel.slic": ("slic",),
    "upsample": ("upsample_argmax", "upsample_cross_entropy", "upsample_cross_entropy_vjp"),
    "errors": (
        "BackendUnavailableError",
        "ConvergenceWarning",
        "DataFormatError",
        "DivergedError",
        "KernelCompileError",
        "OutOfMemoryError",
    ),
}
_MODULES = (
    "affinity",
    "checkerboard",
    "cluster",
    "crf",
    "densecrf",
    "eigen",
    "graphcut",
    "kernels",
    "message",
    "mot",
    "nn",
    "scale",
    "spectral",
    "superpixel",
    "viz",
)
__all__ = [
    *itertools.chain(*_HOME.values()),
    *_MODULES,
]


if not TYPE_CHECKING:  # for which any name would be there
    __getattr__, __dir__ = lazy(__name__, _HOME, _MODULES)


def _find_kernels() -> None:
    """Makes ``cv3gpu.kernels`` importable from a plain checkout, where its folder lies beside this one."""
    here = Path(__file__).resolve().parent
    beside = here.parent / "kernels" / "__init__.py"
    if (here / "kernels").is_dir() or not beside.is_file():
        return
    name = f"{__name__}.kernels"
    spec = importlib.util.spec_from_file_location(name, beside, submodule_search_locations=[str(beside.parent)])
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    globals()["kernels"] = module


_find_kernels()
