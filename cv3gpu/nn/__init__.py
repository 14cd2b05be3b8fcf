"""torch: operators with gradients, registered as ``torch.ops.cv3gpu.*`` by this import, and layers.

The layers are loaded when they are first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from . import ops

if TYPE_CHECKING:
    from .layers import Conv2d as Conv2d
    from .layers import ConvTranspose2d as ConvTranspose2d
    from .layers import DenseCRF as DenseCRF
    from .layers import MaxPool2d as MaxPool2d
    from .layers import MaxUnpool2d as MaxUnpool2d
    from .layers import Upsample as Upsample

_HOME = {
    "layers": ("Conv2d", "ConvTranspose2d", "DenseCRF", "MaxPool2d", "MaxUnpool2d", "Upsample"),
}
_MODULES = ("layers",)
_NAMES = {name: module for module, names in _HOME.items() for name in names}

__all__ = [
    *_NAMES,
    *_MODULES,
    "ops",
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
