"""Names that are loaded when they are first used (PEP 562)."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

__all__ = ["lazy"]


def lazy(
    package: str, home: Mapping[str, Sequence[str]], modules: Sequence[str] = ()
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """``__getattr__`` and ``__dir__`` of a package: ``home`` has the names of each module, ``modules`` are names."""
    names = {name: module for module, of_module in home.items() for name in of_module}
    own = vars(sys.modules[package])

    def find(name: str) -> Any:
        if name in names:
            own[name] = value = getattr(importlib.import_module(f"{package}.{names[name]}"), name)
            return value
        if name in modules:
            return importlib.import_module(f"{package}.{name}")
        raise AttributeError(f"module {package!r} has no attribute {name!r}")

    return find, lambda: sorted({*own, *names, *modules})
