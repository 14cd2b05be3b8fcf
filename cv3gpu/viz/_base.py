"""What all pictures share: matplotlib and Pillow, loaded when a picture is made, colours, and files."""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING, Any

from .. import _files
from ..errors import BackendUnavailableError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["COLOURS", "DPI", "blank", "matplotlib", "pillow", "require", "save"]

COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#8C6D1F", "#7F7F7F")
DPI = 130


def matplotlib(module: str) -> Any:
    try:
        return importlib.import_module(f"matplotlib.{module}")
    except ImportError as error:
        raise BackendUnavailableError(f"viz: pictures need matplotlib ({error}); pip install 'cv3gpu[viz]'") from error


def pillow() -> Any:
    """Pillow's module of images."""
    try:
        return importlib.import_module("PIL.Image")
    except ImportError as error:
        raise BackendUnavailableError(f"viz: images need Pillow ({error}); pip install 'cv3gpu[viz]'") from error


def require() -> None:
    """Raises what a picture would raise where matplotlib or Pillow is missing: to know before the work."""
    matplotlib("figure")
    pillow()


def blank(width: float, height: float) -> Figure:
    return matplotlib("figure").Figure(figsize=(width, height), dpi=DPI, layout="constrained")


def save(figure: Figure, path: str | os.PathLike[str]) -> None:
    """Writes a figure; the format goes by the suffix, and the file appears whole or not at all."""
    with _files.replacing(path) as unfinished:
        figure.savefig(unfinished, bbox_inches="tight", pad_inches=0.08)
