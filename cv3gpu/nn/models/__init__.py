"""Networks, each made by a function of its name; they are loaded when they are first used."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

from ..._lazy import lazy

if TYPE_CHECKING:
    from ._pspnet import pspnet as pspnet
    from ._refinenet import refinenet as refinenet
    from ._segnet import segnet as segnet
    from ._unet import unet as unet
    from .deeplab import deeplabv1 as deeplabv1
    from .deeplab import deeplabv2 as deeplabv2
    from .deeplab import deeplabv3 as deeplabv3
    from .deeplab import deeplabv3plus as deeplabv3plus
    from .fcn import fcn8s as fcn8s
    from .fcn import fcn16s as fcn16s
    from .fcn import fcn32s as fcn32s
    from .fcn import fcn_resnet as fcn_resnet
    from .mpn import mpn_tracker as mpn_tracker

_HOME = {  # a module and its function have different names: the import of the one would hide the other
    "_pspnet": ("pspnet",),
    "_refinenet": ("refinenet",),
    "_segnet": ("segnet",),
    "_unet": ("unet",),
    "deeplab": ("deeplabv1", "deeplabv2", "deeplabv3", "deeplabv3plus"),
    "fcn": ("fcn32s", "fcn16s", "fcn8s", "fcn_resnet"),
    "mpn": ("mpn_tracker",),
}

__all__ = [*itertools.chain(*_HOME.values())]


if not TYPE_CHECKING:  # for which any name would be there
    __getattr__, __dir__ = lazy(__name__, _HOME)
