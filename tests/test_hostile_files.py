"""Files made to hurt: refused by name, soon, in little memory, and without a trace.

What a reader makes of files that are merely wrong is tested beside it (test_mot_formats, test_weights, test_train_seg,
test_cli_segment); ``python -m tests.fuzz`` looks for what nobody thought of.
"""

from __future__ import annotations

import ast
import contextlib
import io
import json
import os
import pickle
import re
import resource
import signal
import struct
import subprocess
import sys
import textwrap
import time
import tracemalloc
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cv3gpu import _files, _pictures, _segment, _segment_cut, _weights, mot
from cv3gpu.errors import DataFormatError
from cv3gpu.mot import _bytes, neural, sequences

ROOT = Path(__file__).resolve().parent.parent
SECONDS, MEMORY = 20.0, 64 << 20  # for any of them; machines are slow, bombs are slower by far
ROW = b"1,1,0,0,9,9,1,1,1\n"


@contextlib.contextmanager
def refused(path: Path, match: str, memory: int = MEMORY) -> Iterator[None]:
    """The block raises DataFormatError that starts with the file's name, in bounded time and memory, and leaves nothing."""
    before = sorted(path.parent.rglob("*"))
    tracemalloc.start()
    begun = time.monotonic()
    try:
        with pytest.raises(DataFormatError, match=match) as caught:
            yield
        assert time.monotonic() - begun < SECONDS
        assert tracemalloc.get_traced_memory()[1] < memory
    finally:
        tracemalloc.stop()
    assert str(caught.value).startswith(str(path)), str(caught.value)
    assert len(str(caught.value)) < 2000
    assert sorted(path.parent.rglob("*")) == before


class Hostile:
    """What a pickle does when it is read."""

    def __reduce__(self) -> Any:
        return os.mkdir, ("ran",)


# ---- XML ------------------------------------------------------------------------------------------------


def laughs(levels: int) -> str:
    """Entities of entities: 10^levels words."""
    entities = "".join(f'<!ENTITY x{k} "{f"&x{k - 1};" * 10}">' for k in range(1, levels))
    return f'<!DOCTYPE a [<!ENTITY x0 "ha">{entities}]><sequence>&x{levels - 1};</sequence>'


QUADRATIC = f'<!DOCTYPE a [<!ENTITY x "{"a" * 100_000}">]><sequence>{"&x;" * 100_000}</sequence>'
PARAMETERS = '<!DOCTYPE a [<!ENTITY % x SYSTEM "file:///etc/passwd"> %x; <!ENTITY y "%x;">]><sequence>&y;</sequence>'
XML = {
    "billion laughs": laughs(12),
    "quadratic": QUADRATIC,
    "file as an entity": '<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><sequence>&x;</sequence>',
    "file as a parameter": PARAMETERS,
    "document type elsewhere": '<!DOCTYPE sequence PUBLIC "-//x" "http://127.0.0.1:9/x.dtd"><sequence/>',
    "bomb in UTF-16": laughs(12).encode("utf-16"),
    "entity in an attribute": '<!DOCTYPE a [<!ENTITY x "9">]><sequence><frame num="&x;"/></sequence>',
}


@pytest.mark.parametrize("case", XML)
def test_xml_with_entities(tmp_path: Path, case: str) -> None:
    path = tmp_path / "seq.xml"
    path.write_bytes(XML[case] if isinstance(XML[case], bytes) else XML[case].encode())
    with refused(path, "XML must not declare a document type or entities"):
        mot.read(path)


def test_xml_inclusion_is_no_more_than_an_element(tmp_path: Path) -> None:
    path = tmp_path / "seq.xml"
    path.write_text(
        '<sequence xmlns:xi="http://www.w3.org/2001/XInclude"><xi:include href="/etc/passwd" parse="text"/></sequence>'
    )
    assert len(mot.read(path)) == 0


@pytest.mark.parametrize(
    "text", ["<sequence>" + "<a>" * 200_000, "<sequence " + "a='1' " * 50_000 + ">", "<sequence a='" + "x" * (4 << 20)]
)
def test_xml_that_never_ends(tmp_path: Path, text: str) -> None:
    path = tmp_path / "seq.xml"
    path.write_text(text)
    with refused(path, "XML is malformed"):
        mot.read(path)


# ---- text -----------------------------------------------------------------------------------------------


def run_within(code: str, megabytes: int, *arguments: str, **environment: str) -> str:
    """What a program prints that may hold so much memory, no more."""
    limited = f"""
        import resource, sys
        sys.path.insert(0, {str(ROOT)!r})
        from cv3gpu import mot
        from cv3gpu.errors import DataFormatError
        from pathlib import Path
        here = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (here + ({megabytes} << 20),) * 2)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(limited) + textwrap.dedent(code), *arguments],
        capture_output=True, text=True, timeout=120, env=os.environ | environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_a_line_without_an_end(tmp_path: Path) -> None:
    """A file with a hole: what is asked of the machine is its length once, not a copy more."""
    length = 128 << 20
    path = tmp_path / "seq.txt"
    with path.open("wb") as file:
        file.write(b"1,1,0,0,9,9,")
        file.truncate(length)
    code = """
        try:
            mot.read(sys.argv[1], "motchallenge")
        except DataFormatError as error:
            print(error)
    """
    said = run_within(code, (length >> 20) * 3 // 2 + 32, str(path))
    assert said.startswith(f"{path}:1: line must have at most 1000 characters")


def test_a_device_that_never_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_bytes, "MAX_INFLATED", 1 << 20)
    with pytest.raises(DataFormatError, match=r"^/dev/zero: must have at most 1048576 bytes, got more"):
        mot.read("/dev/zero", "motchallenge")


MOTION = {
    "too few columns": (b"0 1 0 0 0 1 0\n1 1 0\n", ":2: line must have 7 columns, got 3"),
    "no number": (b"0 1 0 0 0 1 0\n1 1 0 x 0 1 0\n", ":2: shift in x must be a number, got 'x'"),
    "not finite": (b"0 1 0 0 0 1 nan\n", ":1: shift in y must be finite, got nan"),
    "no way back": (b"0 0 0 0 0 0 0\n1 1 0 0 0 1 0\n2 1 2 0 2 4 0\n", ":3: motion must be invertible"),
    "too few frames": (b"0 1 0 0 0 1 0\n", ": must hold a line for each of 2 frames, got 1"),
    "long line": (b"0 " * 70_000, ":1: line must have at most 1000 characters"),
}


@pytest.mark.parametrize("case", MOTION)
def test_motion_of_a_camera(tmp_path: Path, case: str) -> None:
    data, message = MOTION[case]
    path = tmp_path / "gmc.txt"
    path.write_bytes(data)
    with refused(path, re.escape(f"{path}{message}")):
        neural.read_camera(path, 2)


def test_a_length_beyond_all_frames(tmp_path: Path) -> None:
    (tmp_path / "label_02").mkdir()
    (tmp_path / "label_02" / "0000.txt").write_bytes(b"")
    path = tmp_path / "evaluate_tracking.seqmap.training"
    path.write_text("0001 empty 0 5\n0000 empty 0 2147483648\n")
    with refused(path, "seqmap.training:2: length must be from 0 to 2147483647, got 2147483648"):
        sequences.find(tmp_path, "gt")


def test_a_gigabyte_of_empty_lines_in_a_small_file(tmp_path: Path) -> None:
    import gzip

    path = tmp_path / "seq.txt.gz"
    path.write_bytes(gzip.compress(b"\n" * (32 << 20), 9))
    with refused(path, r"must inflate to at most 1000 times its size"):
        mot.read(path, "motchallenge")


# ---- archives -------------------------------------------------------------------------------------------


def archive(path: Path, members: list[tuple[zipfile.ZipInfo | str, bytes]]) -> Path:
    """A zip file, as it is asked for."""
    with warnings.catch_warnings(), zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as made:
        warnings.simplefilter("ignore")  # of names that come twice
        for name, data in members:
            made.writestr(name, data, zipfile.ZIP_DEFLATED)
    return path


def link(name: str) -> zipfile.ZipInfo:
    """A member that says it is a symbolic link."""
    info = zipfile.ZipInfo(name)
    info.create_system, info.external_attr = 3, 0o120777 << 16
    return info


def overlapping(path: Path, count: int) -> Path:
    """An archive in which all members are the same bytes: each may inflate, and none is large by itself."""
    name, body = b"A.txt", ROW * 20_000
    packed = zlib.compress(body, 9)[2:-4]
    local = (
        struct.pack("<4sHHHHHIIIHH", b"PK\3\4", 20, 0, 8, 0, 0, zlib.crc32(body), len(packed), len(body), len(name), 0)
        + name
        + packed
    )
    directory = b""
    for k in range(count):
        one = f"{k}.txt".encode()
        directory += struct.pack(
            "<4sHHHHHHIIIHHHHHII", b"PK\1\2", 20, 20, 0, 8, 0, 0, zlib.crc32(body), len(packed), len(body), len(one), 0, 0, 0, 0, 0, 0
        ) + one  # fmt: skip
    end = struct.pack("<4sHHHHIIH", b"PK\5\6", 0, 0, count, count, len(directory), len(local), 0)
    path.write_bytes(local + directory + end)
    return path


ARCHIVES: dict[str, tuple[Callable[[Path], Path], str]] = {
    "ratio": (lambda p: archive(p, [("A.txt", bytes(64 << 20))]), "must inflate to at most 1000 times its size"),
    "members that overlap": (lambda p: overlapping(p, 500), "members must not overlap"),
    "name that climbs": (lambda p: archive(p, [("../../etc/A.txt", ROW)]), "names in an archive must stay inside it"),
    "absolute name": (lambda p: archive(p, [("/etc/A.txt", ROW)]), "names in an archive must stay inside it"),
    "name twice": (
        lambda p: archive(p, [("A.txt", ROW), ("A.txt", ROW)]),
        "names in an archive must differ, got 'A.txt' twice",
    ),
    "no name": (lambda p: archive(p, [(zipfile.ZipInfo(""), ROW)]), "names in an archive must not be empty"),
    "symbolic link": (
        lambda p: archive(p, [(link("A.txt"), b"/etc/passwd")]),
        "a member must be a regular file, got a symbolic link",
    ),
}


@pytest.mark.parametrize("case", ARCHIVES)
def test_archives_of_results(tmp_path: Path, case: str) -> None:
    make, message = ARCHIVES[case]
    path = make(tmp_path / "results.zip")
    with refused(path, message):
        for source in sequences.find(path, "pred").values():
            source.read()


def picture(size: tuple[int, int] = (6, 8), mode: str = "RGB", format: str = "PNG") -> bytes:
    image = pytest.importorskip("PIL.Image")
    out = io.BytesIO()
    image.new(mode, size).save(out, format)
    return out.getvalue()


def written(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


DATA_SETS: dict[str, tuple[Callable[[Path], Path], str]] = {
    "name twice": (
        lambda p: archive(p, [("train/a.png", b"1"), ("train/a.png", b"2")]),
        "names in an archive must differ",
    ),
    "symbolic link": (
        lambda p: archive(p, [(link("train/a.png"), b"/etc/passwd")]),
        "must be a regular file, got a symbolic link",
    ),
    "name that climbs": (
        lambda p: archive(p, [("train/../../a.png", b"1")]),
        "name must lead to a file inside the archive",
    ),
    "name of a folder": (lambda p: archive(p, [(".", b"1")]), "name must lead to a file inside the archive"),
    "members that overlap": (lambda p: overlapping(p, 500), "members must not overlap"),
    "bomb": (lambda p: archive(p, [("train/a.png", bytes((128 << 20) + 1))]), "must have at most 134217728 bytes"),
    "broken directory": (lambda p: written(p, b"PK\5\6" + b"\xff" * 18), "must be a folder or a zip file"),
}


@pytest.mark.parametrize("case", DATA_SETS)
def test_archives_of_images(tmp_path: Path, case: str) -> None:
    data = pytest.importorskip("cv3gpu.nn.segmentation_data")
    make, message = DATA_SETS[case]
    path = make(tmp_path / "data.zip")
    with refused(path, message, 256 << 20 if case == "bomb" else MEMORY):
        data.read_split(data.opened(path), "train", (6, 8))


# ---- pictures and arrays --------------------------------------------------------------------------------


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(width: int, height: int, body: bytes) -> bytes:
    """A grey PNG that says it has a size."""
    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(body, 9)) + chunk(b"IEND", b"")


def noise(format: str) -> bytes:
    image = pytest.importorskip("PIL.Image")
    out = io.BytesIO()
    image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8)).save(out, format)
    return out.getvalue()


PICTURES: dict[str, tuple[Callable[[], bytes], str]] = {
    "truncated PNG": (lambda: noise("PNG")[:-900], "must be a whole image"),
    "truncated JPEG": (lambda: noise("JPEG")[:-400], "must be a whole image"),
    "bomb": (lambda: png(20_000, 20_000, bytes(20_001 * 200)), "must be an image, got|must have at most 67108864 pixels"),
    "just above the limit": (lambda: png(8193, 8192, b""), "must have at most 67108864 pixels, got 8193 x 8192"),
    "absurd size": (lambda: png(2**31 - 1, 2**31 - 1, b""), "must be an image|must have at most"),
    "compressed text": (lambda: picture()[:33] + chunk(b"zTXt", b"k\0\0" + zlib.compress(bytes(64 << 20), 9)) + picture()[33:], "must be"),
    "PostScript": (lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n(ran) (w) file\n%%EOF\n", "must be an image, got none of"),
    "pickle": (lambda: pickle.dumps(Hostile()), "must be an image, got none of"),
}  # fmt: skip


@pytest.mark.parametrize("case", PICTURES)
@pytest.mark.parametrize("reader", ["image", "labels", "seeds"])
def test_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reader: str, case: str) -> None:
    pytest.importorskip("PIL.Image")
    monkeypatch.chdir(tmp_path)
    make, message = PICTURES[case]
    path = tmp_path / "picture.png"
    path.write_bytes(make())
    size = (6, 8)
    readers = {
        "image": lambda: _segment.read_image(path),
        "labels": lambda: _segment.read_labels(path, size, 0.5, None),
        "seeds": lambda: _segment_cut.read_seeds(size, path, None, None, None),
    }
    with warnings.catch_warnings(), refused(path, message if reader == "image" else "must "):
        warnings.simplefilter("ignore")  # Pillow's own, of bombs
        readers[reader]()
    assert not (tmp_path / "ran").exists()


def test_seeds_with_more_transparency_than_colours(tmp_path: Path) -> None:
    pytest.importorskip("PIL.Image")
    path = tmp_path / "seeds.png"
    plain = picture((8, 6), "P")
    at = plain.index(b"PLTE") - 4
    end = at + 12 + int.from_bytes(plain[at : at + 4], "big")
    path.write_bytes(plain[:at] + chunk(b"PLTE", bytes(3)) + chunk(b"tRNS", bytes(300)) + plain[end:])
    with refused(path, "must be an image that has RGBA values, got "):
        _segment_cut.read_seeds((6, 8), None, None, path, None)


def test_formats_of_pictures_start_no_other_program() -> None:
    """Pillow gives EPS to Ghostscript, and asks the system about some others."""
    assert not {"EPS", "PDF", "WMF", "FPX", "MIC", "MPEG"} & set(_pictures.FORMATS)


def npy(header: str) -> bytes:
    text = header.encode().ljust(118 - 10 - 1) + b"\n"
    return b"\x93NUMPY\1\0" + struct.pack("<H", len(text)) + text


def zipped_array(members: list[tuple[zipfile.ZipInfo | str, bytes]]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as made:
        for name, data in members:
            made.writestr(name, data, zipfile.ZIP_DEFLATED)
    return out.getvalue()


def objects() -> bytes:
    out = io.BytesIO()
    np.save(out, np.array([Hostile()], object), allow_pickle=True)
    return out.getvalue()


ARRAYS: dict[str, tuple[Callable[[], bytes], str]] = {
    "objects": (objects, "Object arrays cannot be loaded"),
    "pickle": (lambda: pickle.dumps(Hostile()), "must be an .npy or .npz file"),
    "absurd shape": (lambda: npy("{'descr': '<f4', 'fortran_order': False, 'shape': (4, 1099511627776, 8), }"), "must have at most"),
    "shape that overflows": (lambda: npy("{'descr': '<f4', 'fortran_order': False, 'shape': (4294967296, 4294967296), }"), "must "),
    "negative shape": (lambda: npy("{'descr': '<f4', 'fortran_order': False, 'shape': (-1, 6, 8), }"), "must "),
    "code in the header": (lambda: npy("{'descr': __import__('os').mkdir('ran'), 'shape': (1,), }"), "must be an .npy"),
    "bomb": (lambda: zipped_array([("p.npy", npy("{'descr': '<f4', 'fortran_order': False, 'shape': (1048576, 6, 8), }") + bytes(64 << 20))]), "must have at most .* bytes for this image"),
    "objects in an archive": (lambda: zipped_array([("p.npy", objects())]), "Object arrays cannot be loaded"),
}  # fmt: skip


@pytest.mark.parametrize("case", ARRAYS)
def test_arrays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str) -> None:
    monkeypatch.chdir(tmp_path)
    make, message = ARRAYS[case]
    path = tmp_path / "p.npy"
    path.write_bytes(make())
    with refused(path, message):
        _segment.read_unary(path, (6, 8), None, "lhw", "energy")
    assert not (tmp_path / "ran").exists()


# ---- weights --------------------------------------------------------------------------------------------


def tensors(header: Any, data: bytes = b"", size: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if size is None else size) + text + data


def f32(shape: list[int], *offsets: int) -> dict[str, Any]:
    return {"x": {"dtype": "F32", "shape": shape, "data_offsets": list(offsets)}}


def config(text: str) -> bytes:
    return tensors({"__metadata__": {"cv3gpu": text}})


WEIGHTS: dict[str, bytes] = {
    "pickle": pickle.dumps({"x": Hostile()}),
    "header longer than the file": tensors({}, size=2**40),
    "header of the greatest length": tensors({}, size=2**64 - 1),
    "negative offset": tensors(f32([1], -4, 0), bytes(4)),
    "offsets the wrong way round": tensors(f32([1], 4, 0), bytes(4)),
    "offsets that overflow": tensors(f32([2**62], 0, 2**64), bytes(4)),
    "shape that overflows": tensors(f32([2**33, 2**33], 0, 4), bytes(4)),
    "tensors that overlap": tensors(
        f32([1], 0, 4) | {"y": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}, bytes(4)
    ),
    "bytes that belong to no tensor": tensors(f32([1], 0, 4), bytes(400)),
    "header nested without end": tensors(b'{"a":' * 100_000),
    "config nested without end": config("[" * 100_000),
    "config with an absurd number": config('{"steps": ' + "9" * 10_000 + "}"),
    "config that is not finite": config('{"low": NaN}'),
    "config beyond float64": config('{"low": 1e999}'),
    "unknown dtype": tensors({"x": {"dtype": "O8", "shape": [1], "data_offsets": [0, 8]}}, bytes(8)),
}


@pytest.mark.parametrize("case", WEIGHTS)
def test_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str) -> None:
    pytest.importorskip("safetensors")
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "w.safetensors"
    path.write_bytes(WEIGHTS[case])
    with refused(path, "must be a safetensors file"):
        _weights.read(path)
    with refused(path, "must be a safetensors file"):
        neural.load_solver(path)
    assert not (tmp_path / "ran").exists()


def test_a_config_that_could_not_be_read_is_not_written(tmp_path: Path) -> None:
    pytest.importorskip("safetensors")
    with pytest.raises(ValueError, match="not JSON compliant"):
        _weights.write(tmp_path / "w.safetensors", {}, {"low": float("nan")})
    assert not list(tmp_path.iterdir())


def test_torch_weights_where_safetensors_are_wanted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch")
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "w.pt"
    torch.save({"w": torch.ones(3), "x": Hostile()}, path)
    from cv3gpu.nn import _training, postprocess

    for read in (_weights.read, neural.load_solver, postprocess.load_network):
        with refused(path, "must be a safetensors file"):
            read(path)
    with refused(path, "must be a state of training"):
        _training.read_state(path)
    assert not (tmp_path / "ran").exists()


def states() -> dict[str, bytes]:
    """Archives as torch has them, with a pickle of our own."""

    def made(pickled: bytes) -> bytes:
        return zipped_array([("a/data.pkl", pickled), ("a/version", b"3\n"), ("a/byteorder", b"little")])

    return {
        "code": made(pickle.dumps({"settings": Hostile()}, 2)),
        "attribute of a module": made(b"cbuiltins\neval\n(S'1'\ntR."),
        "stack that underflows": made(b"\x80\x02R."),
        "endless memo": made(b"\x80\x02" + b"r\xff\xff\xff\x7f" * 50 + b"."),
        "long number": made(b"\x80\x02\x8b\xff\xff\xff\x7f" + b"\0" * 100 + b"."),
        "no pickle": made(b""),
        "nested": made(b"\x80\x02" + b"]" * 20_000 + b"a" * 19_999 + b"."),
    }


@pytest.mark.parametrize("case", states())
def test_states_of_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str) -> None:
    pytest.importorskip("torch")
    from cv3gpu.nn import _training

    monkeypatch.chdir(tmp_path)
    path = tmp_path / "state.pt"
    path.write_bytes(states()[case])
    with refused(path, "must be a state of training"):
        _training.read_state(path)
    assert not (tmp_path / "ran").exists()


def _calls(text: str) -> Iterator[ast.Call]:
    return (node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Call))


RUNS = {"pickle.load", "pickle.loads", "pickle.Unpickler", "marshal.loads", "yaml.load", "eval", "exec"}


def test_nothing_that_is_read_may_run() -> None:
    """Every torch.load is told weights_only=True, every np.load allow_pickle=False or by default, and nothing unpickles."""
    loads = 0
    for path in [*(ROOT / "cv3gpu").rglob("*.py"), *(ROOT / "kernels").rglob("*.py"), *(ROOT / "bench").rglob("*.py")]:
        text = path.read_text()
        for call in _calls(text) if re.search(r"load|pickle|eval|exec|extractall", text) else ():
            name = ast.unparse(call.func)
            told = {word.arg: ast.unparse(word.value) for word in call.keywords}
            if name == "torch.load":
                loads += 1
                assert told.get("weights_only") == "True", f"{path}:{call.lineno}"
            if name in ("np.load", "numpy.load"):
                assert told.get("allow_pickle", "False") == "False", f"{path}:{call.lineno}"
            copied = name == "pickle.loads" and ast.unparse(call.args[0]).startswith("pickle.dumps(")  # of what is here
            assert copied or name not in RUNS, f"{path}:{call.lineno}: {name}"
            assert "extractall" not in name, f"{path}:{call.lineno}"
    assert loads >= 1


# ---- outputs --------------------------------------------------------------------------------------------

TRACKS = mot.Tracks([1], [1], [[0, 0, 9, 9]], class_=[1])
WRITERS: dict[str, Callable[[Path], None]] = {
    "tracks": lambda path: mot.write(path, TRACKS),
    "weights": lambda path: _weights.write(path, {"x": np.ones(2)}, {}),
}


@pytest.mark.parametrize("writer", WRITERS)
def test_an_output_that_is_a_link(tmp_path: Path, writer: str) -> None:
    """The link stays, the file behind it is replaced; one that leads to a folder or a device is refused."""
    write = WRITERS[writer]
    (tmp_path / "inner").mkdir()
    behind, path = tmp_path / "inner" / "file", tmp_path / "link"
    behind.write_bytes(b"before")
    path.symlink_to(behind)
    write(path)
    assert path.is_symlink() and behind.read_bytes() != b"before"
    for target in (tmp_path / "inner", Path("/dev/null")):
        other = tmp_path / f"to-{target.name}"
        other.symlink_to(target)
        with pytest.raises(OSError, match="must be a regular file or not be there"):
            write(other)
        assert other.is_symlink()
    circle = tmp_path / "circle"
    circle.symlink_to(circle)
    with pytest.raises(OSError):
        write(circle)
    assert sorted(p.name for p in (tmp_path / "inner").iterdir()) == ["file"]


@pytest.mark.parametrize("writer", WRITERS)
def test_a_full_disk_leaves_what_was_there(tmp_path: Path, writer: str) -> None:
    """The writer runs out of room in its own process, where files may have no byte more."""
    path = tmp_path / "out.bin"
    WRITERS[writer](path)
    before = path.read_bytes()
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    old = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4, limit[1]))
    try:
        with pytest.raises(Exception) as caught:
            WRITERS[writer](path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
        signal.signal(signal.SIGXFSZ, old)
    assert not isinstance(caught.value, AssertionError)
    assert path.read_bytes() == before and [p.name for p in tmp_path.iterdir()] == ["out.bin"]


def test_a_stop_in_the_middle_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "out.txt"
    path.write_text("before")
    with pytest.raises(KeyboardInterrupt), _files.replacing(path) as unfinished:
        unfinished.write_text("half")
        raise KeyboardInterrupt
    assert path.read_text() == "before" and [p.name for p in tmp_path.iterdir()] == ["out.txt"]
