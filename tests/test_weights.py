"""Files of weights: what comes back, and what is refused."""

from __future__ import annotations

import json
import pickle
import struct
from pathlib import Path

import numpy as np
import pytest

from cv3gpu import _weights
from cv3gpu.errors import DataFormatError


def test_what_is_written_comes_back(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    arrays = {
        "a.weight": rng.standard_normal((3, 4)).astype(np.float32),
        "a.turned": rng.standard_normal((3, 4)).T,
        "count": np.array(7),
        "none": np.zeros((0, 2), np.float16),
    }
    config = {"model": "unet", "mean": [0.5, 0.25], "names": ["sky", "road — straße"]}
    _weights.write(tmp_path / "w.safetensors", arrays, config)
    found, told = _weights.read(tmp_path / "w.safetensors")
    assert told == config and set(found) == set(arrays)
    for name, array in arrays.items():
        assert found[name].dtype == array.dtype and found[name].shape == array.shape
        np.testing.assert_array_equal(found[name], array)


def test_a_file_of_another_program_has_no_config(tmp_path: Path) -> None:
    numpy = pytest.importorskip("safetensors.numpy")
    numpy.save_file({"x": np.ones(3)}, tmp_path / "w.safetensors")
    assert _weights.read(tmp_path / "w.safetensors")[1] == {}


def _with_header(header: object, data: bytes = b"") -> bytes:
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


BAD = {
    "empty": b"",
    "pickle": pickle.dumps({"x": 1}),
    "a header that is too long": struct.pack("<Q", 2**62) + b"{}",
    "a header that is no JSON": struct.pack("<Q", 4) + b"{{{{",
    "offsets outside": _with_header({"x": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}}, b"1234"),
    "sizes that do not fit": _with_header({"x": {"dtype": "F32", "shape": [9], "data_offsets": [0, 4]}}, b"1234"),
    "config that is no object": _with_header({"__metadata__": {"cv3gpu": "[1]"}}),
    "config that is no JSON": _with_header({"__metadata__": {"cv3gpu": "{"}}),
}


@pytest.mark.parametrize("content", BAD.values(), ids=list(BAD))
def test_damaged_files(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "w.safetensors").write_bytes(content)
    with pytest.raises(DataFormatError, match=r"w\.safetensors: "):
        _weights.read(tmp_path / "w.safetensors")


def test_missing_file_and_wrong_path(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        _weights.read(tmp_path / "none.safetensors")
    with pytest.raises(TypeError, match="path must be a path, got int"):
        _weights.read(3)  # type: ignore[arg-type]


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    _weights.write(path, {"x": np.ones(2)}, {})
    before = path.read_bytes()
    with pytest.raises(TypeError):
        _weights.write(path, {"x": np.zeros(2)}, {"config": object()})
    assert path.read_bytes() == before and [p.name for p in tmp_path.iterdir()] == [path.name]
