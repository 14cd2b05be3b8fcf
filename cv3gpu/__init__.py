"""cv3gpu: hand-written GPU kernels for image segmentation and multi-object tracking.

Operators take NumPy, CuPy or torch arrays and return arrays of the same library on the same device. Every
name below is loaded when it is first used; importing the package imports NumPy and nothing heavier.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # what __getattr__ below finds, for type checkers and editors
    from .assignment import Assignment as Assignment
    from .assignment import linear_sum_assignment as linear_sum_assignment
    from .boxes import box_iou as box_iou
    from .boxes import box_iou_vjp as box_iou_vjp
    from .conv import conv2d as conv2d
    from .conv import conv2d_adjoint_input as conv2d_adjoint_input
    from .conv import conv2d_adjoint_weight as conv2d_adjoint_weight
    from .crf import dense_crf as dense_crf
    from .crf import dense_crf_vjp as dense_crf_vjp
    from .crf import gaussian_filter as gaussian_filter
    from .crf import gaussian_filter_vjp as gaussian_filter_vjp
    from .resize import interpolate as interpolate
    from .resize import interpolate_adjoint as interpolate_adjoint

    kernels: Any  # the folder lies elsewhere in a checkout (see _find_kernels)

__version__ = "0.1.0"

_HOME = {
    "assignment": ("Assignment", "linear_sum_assignment"),
    "boxes": ("box_iou", "box_iou_vjp"),
    "conv": ("conv2d", "conv2d_adjoint_input", "conv2d_adjoint_weight"),
    "crf": ("dense_crf", "dense_crf_vjp", "gaussian_filter", "gaussian_filter_vjp"),
    "resize": ("interpolate", "interpolate_adjoint"),
    "errors": (
        "BackendUnavailableError",
        "ConvergenceWarning",
        "DataFormatError",
        "KernelCompileError",
        "OutOfMemoryError",
    ),
}
_MODULES = ("crf", "densecrf", "kernels", "mot", "nn", "viz")
_NAMES = {name: module for module, names in _HOME.items() for name in names}

__all__ = [
    *_NAMES,
    *_MODULES,
]


def __getattr__(name: str) -> Any:
    if name in _NAMES:
        value = getattr(importlib.import_module(f"{__name__}.{_NAMES[name]}"), name)
        globals()[name] = value
        return value
    if name in _MODULES:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


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
