"""Weights of networks in files: safetensors, whose header also holds what makes the network again, as JSON.

Such a file holds numbers alone: reading it runs nothing. NumPy is enough to read it.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from . import _check, _files
from .errors import BackendUnavailableError, DataFormatError

__all__ = ["read", "write"]

Array = np.ndarray[Any, Any]

KEY = "cv3gpu"  # of the header's entry


def _safetensors() -> Any:
    try:
        import safetensors.numpy
    except ImportError as error:
        raise BackendUnavailableError("weights need safetensors: pip install safetensors") from error
    return safetensors


def write(path: str | os.PathLike[str], arrays: Mapping[str, Array], config: Mapping[str, Any]) -> None:
    """Writes arrays by name, and ``config``, which must be what JSON can hold; whole or not at all."""
    _files.path("write", "path", path)
    whole = {name: np.asarray(array, order="C") for name, array in arrays.items()}
    header = {KEY: json.dumps(dict(config), sort_keys=True, allow_nan=False)}
    with _files.replacing(path) as unfinished:
        _safetensors().numpy.save_file(whole, unfinished, metadata=header)


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"numbers that are finite expected in the config, not {text[:40]}")
    return value


def read(path: str | os.PathLike[str]) -> tuple[dict[str, Array], dict[str, Any]]:
    """Arrays by name, and the config that they were written with (empty where another program wrote the file).

    A file that is not in this format raises `cv3gpu.errors.DataFormatError`.
    """
    _files.path("read", "path", path)
    module = _safetensors()
    with open(path, "rb"):  # what is missing or may not be read says so as an OSError
        pass
    try:
        with module.safe_open(os.fspath(path), framework="numpy") as file:
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
            config = json.loads((file.metadata() or {}).get(KEY, "{}"), parse_constant=_finite, parse_float=_finite)
    except OSError:
        raise
    except Exception as error:  # a damaged file raises whatever its damage leads to
        raise DataFormatError(f"{os.fspath(path)}: must be a safetensors file, got {error}") from error
    if not isinstance(config, dict):
        raise DataFormatError(f"{os.fspath(path)}: config must be an object, got {_check.kind(config)}")
    return arrays, config
