"""Readers of files: a changed file is read to something that comes back when it is written, or refused by name."""

from __future__ import annotations

import functools
import gzip
import io
import json
import re
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from cv3gpu import _segment, _segment_cut, _track, _weights, mot
from cv3gpu.errors import DataFormatError
from cv3gpu.mot import neural, sequences
from cv3gpu.mot.tracks import MAX_FRAME

from . import mutate
from .engine import FAMILIES, Family, Wrong

__all__ = ["PARSERS", "RAW", "texts"]

Rng = np.random.Generator
PARSERS: dict[str, Family] = {}
RAW: dict[
    str, tuple[Callable[[bytes, Path], None], tuple[bytes, ...]]
] = {}  # a check of any bytes, and words of the format
GENERATED = 0.01  # the share of cases that Hypothesis makes out of words
EXAMPLES = 25


def refused(error: DataFormatError, path: Path, line: bool = False) -> None:
    """The refusal starts with the file's name, and with a line's number where there is one to name."""
    said = str(error)
    if not said.startswith(f"{path}"):
        raise Wrong(f"an error must start with the file's name, got {said[:300]!r}")
    if line and not re.match(r":[0-9]+: ", said[len(str(path)) :]):
        raise Wrong(f"an error must name the line, got {said[:300]!r}")


def is_packed(data: bytes) -> bool:
    """Whether it starts like an archive, in which there is no line to name."""
    return data.startswith((b"PK\3\4", b"PK\5\6", b"\x1f\x8b"))


def texts(words: tuple[bytes, ...]) -> st.SearchStrategy[bytes]:
    """Bytes as Hypothesis makes them: any, or strung together from the words of a format."""
    some = st.lists(st.sampled_from(words) | st.binary(max_size=3), max_size=25).map(b"".join)
    return some | st.text(max_size=60).map(lambda text: text.encode("utf-8", "surrogatepass")) | st.binary(max_size=80)


def _parser(
    name: str, check: Callable[[bytes, Path], None], make: Callable[[Rng], bytes], words: tuple[bytes, ...] = ()
) -> None:
    """A family whose cases are changed files, and now and then what Hypothesis strings together."""

    def try_one(rng: Rng, folder: Path) -> int:
        if not words or rng.random() >= GENERATED:
            check(make(rng), folder)
            return 1

        @seed(int(rng.integers(2**32)))
        @settings(
            max_examples=EXAMPLES, database=None, deadline=None, phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )  # fmt: skip
        @given(texts(words))
        def of_words(data: bytes) -> None:
            check(data, folder)

        of_words()
        return EXAMPLES

    PARSERS[name] = FAMILIES[name] = Family(name, try_one)
    if words:
        RAW[name] = check, words


# ---- tracks ---------------------------------------------------------------------------------------------

LOST = {  # what a format has no place for
    "motchallenge": ("truncation", "occlusion"),
    "kitti": ("visibility",),
    "detrac": ("score", "visibility", "occlusion"),
}
COLUMNS = ("frame", "id", "score", "class", "visibility", "truncation", "occlusion")


def same_tracks(a: mot.Tracks, b: mot.Tracks, format: str) -> None:
    """Both are equal in all that the format keeps, in the order that it keeps."""
    order = np.argsort(a.frame, kind="stable") if format == "detrac" else slice(None)
    for column in COLUMNS:
        if column not in LOST[format] and not np.array_equal(a[column][order], b[column]):
            raise Wrong(f"{column} must come back, wrote {a[column][order]!r}, read {b[column]!r}")
    corners = format == "kitti"  # these come back, width and height within their rounding
    x, y = (t.corners() if corners else t.box for t in (a, b))
    if not np.array_equal(x[order], y):
        raise Wrong(f"boxes must come back, wrote {x[order]!r}, read {y!r}")
    if format == "detrac" and not np.array_equal(a.ignored, b.ignored):
        raise Wrong(f"ignored regions must come back, wrote {a.ignored!r}, read {b.ignored!r}")


def _tracks(data: bytes, folder: Path, name: str, format: str | None, written: str) -> None:
    path = folder / name
    path.write_bytes(data)
    try:
        tracks = mot.read(path, format)
    except DataFormatError as error:
        refused(error, path, line=not is_packed(data))
        return
    sides = (tracks.box, tracks.score, tracks.visibility, tracks.truncation, tracks.corners())
    if not all(np.isfinite(side).all() for side in sides):
        raise Wrong("what is read must be finite")
    if written == "detrac" and not set(np.unique(tracks["class"])) <= {-1, 1, 2, 3, 4}:
        raise Wrong(f"classes must be those of the format, got {np.unique(tracks['class'])}")
    back = folder / ("back.xml" if written == "detrac" else "back.txt")
    mot.write(back, tracks, written)
    same_tracks(tracks, mot.read(back, written), written)


def _any_number(rng: Rng) -> str:
    if rng.random() < 0.1:
        return str(mutate.pick(rng, mutate.NUMBERS))
    value = float(rng.normal(0, 10.0 ** rng.integers(-2, 5)))
    return mutate.pick(rng, (repr(value), f"{value:.3f}", f"{value:g}", str(int(value))))


def _motchallenge(rng: Rng) -> bytes:
    columns, comma = int(rng.integers(7, 11)), mutate.pick(rng, (",", ", ", " ", "\t"))
    lines = []
    for frame in range(1, int(rng.integers(1, 9))):
        for identity in range(int(rng.integers(0, 4))):
            rest = [_any_number(rng) for _ in range(5)]
            more = [str(int(rng.integers(-1, 13))), f"{rng.random():.3f}", "-1"][: columns - 7]
            lines.append(comma.join([str(frame), str(identity), *rest, *more]))
    return mutate.text(rng, ("\n".join(lines) + "\n").encode())


def _kitti(rng: Rng) -> bytes:
    words = ("Car", "Van", "Pedestrian", "Person_sitting", "Cyclist", "DontCare", "Misc", "tram")
    lines = []
    scored = rng.random() < 0.5
    for frame in range(int(rng.integers(1, 6))):
        for identity in range(int(rng.integers(0, 4))):
            box = [f"{v:.6f}" for v in rng.uniform(0, 900, 4)]
            rest = ["-1000"] * 7 + (["0.5"] if scored else [])
            word = mutate.pick(rng, words)
            lines.append(" ".join([str(frame), str(identity), word, "0", "1", "-1.5", *box, *rest]))
    return mutate.text(rng, ("\n".join(lines) + "\n").encode())


def _xml(rng: Rng) -> bytes:
    out = ['<?xml version="1.0" encoding="utf-8"?>', '<sequence name="A">', " <ignored_region>"]
    box = '<box left="{:.2f}" top="{:.2f}" width="{:.2f}" height="{:.2f}"/>'
    out += ["  " + box.format(*rng.uniform(0, 99, 4)) for _ in range(int(rng.integers(0, 3)))]
    out.append(" </ignored_region>")
    for frame in range(int(rng.integers(1, 5))):
        out.append(f' <frame density="2" num="{frame}"><target_list>')
        for identity in range(int(rng.integers(0, 3))):
            kind = mutate.pick(rng, ("car", "Van", "bus", "others", "boat"))
            out.append(f'  <target id="{identity}">{box.format(*rng.uniform(0, 99, 4))}')
            out.append(f'   <attribute orientation="1" truncation_ratio="0.1" vehicle_type="{kind}"/></target>')
        out.append(" </target_list></frame>")
    return mutate.text(rng, "\n".join([*out, "</sequence>"]).encode(), 3)


def _check_gzip(data: bytes, folder: Path) -> None:
    path = folder / "seq.txt.gz"
    path.write_bytes(data)
    try:
        mot.read(path, "motchallenge")
    except DataFormatError as error:
        refused(error, path)


def _gzip(rng: Rng) -> bytes:
    packed = gzip.compress(_motchallenge(rng), mtime=0)
    if rng.random() < 0.2:
        packed += mutate.pick(rng, (packed, b"x", b"\0" * 9, packed[:9]))
    return mutate.binary(rng, packed) if rng.random() < 0.8 else packed


MATRIX_FILES = ("LX", "LY", "W", "H", "IgR")


def _try_matrices(rng: Rng, folder: Path) -> int:
    shape = tuple(rng.integers(1, 5, 2))
    here = rng.random(shape) < 0.7
    made = {}
    for name in MATRIX_FILES:
        table = np.round(rng.uniform(1, 99, (int(rng.integers(0, 3)), 4) if name == "IgR" else shape), 2)
        table = table if name == "IgR" else table * here
        comma = mutate.pick(rng, (",", " "))
        made[name] = "".join(comma.join(map(str, row)) + "\n" for row in table.tolist()).encode()
    for name in set(rng.choice(MATRIX_FILES, int(rng.integers(0, 3)))):
        made[name] = mutate.text(rng, made[name], 2)
    if rng.random() < 0.05:
        del made[mutate.pick(rng, MATRIX_FILES)]
    for name, data in made.items():
        (folder / f"A_{name}.txt").write_bytes(data)
    path = folder / "A_LX.txt"
    if "LX" not in made:
        return 1
    try:
        tracks = mot.read(path)
    except DataFormatError as error:
        if not any(str(error).startswith(str(folder / f"A_{name}.txt")) for name in MATRIX_FILES):
            raise Wrong(f"an error must start with the file's name, got {error}") from error
        return 1
    mot.write(folder / "back.txt", tracks)
    same_tracks(tracks, mot.read(folder / "back.txt"), "motchallenge")
    return 1


_parser(
    "motchallenge", functools.partial(_tracks, name="seq.txt", format="motchallenge", written="motchallenge"), _motchallenge,
    (b"1,1,1,1,1,1,1\n", b"2 ", b",", b"-1", b"\n", b"\r\n", b"1.5", b"1e5", b"9" * 30, b"\xef\xbb\xbf", b".", b"\t"),
)  # fmt: skip
_parser(
    "kitti", functools.partial(_tracks, name="seq.txt", format="kitti", written="kitti"), _kitti,
    (b"0 1 Car 0 0 -10 1 1 2 2 -1 -1 -1 -1 -1 -1 -1", b" 0.5", b"\n", b"1 ", b"Van ", b"DontCare ", b"-1 ", b"\t"),
)  # fmt: skip
_parser(
    "detrac-xml", functools.partial(_tracks, name="seq.xml", format="detrac", written="detrac"), _xml,
    (
        b"<sequence>", b"</sequence>", b"<frame num='1'>", b"</frame>", b"<target id='1'>", b"</target>", b"<ignored_region>",
        b"</ignored_region>", b"<box left='1' top='1' width='2' height='2'/>", b"<attribute vehicle_type='car'/>", b"<a>",
        b"<!DOCTYPE a>", b"<?x?>", b"<!--x-->", b"&amp;", b"<?xml version='1.0' encoding='utf-16'?>",
    ),
)  # fmt: skip
_parser("gzip", _check_gzip, _gzip)
PARSERS["detrac-matrices"] = FAMILIES["detrac-matrices"] = Family("detrac-matrices", _try_matrices)


# ---- what lies beside tracks ----------------------------------------------------------------------------

INFO = b"[Sequence]\nname=A\nimDir=img1\nframeRate=30\nseqLength=3\nimWidth=1920\nimHeight=1080\nimExt=.jpg\n"
ROW = b"1,1,0,0,9,9,1,1,1\n"


def _check_seqinfo(data: bytes, folder: Path) -> None:
    for name in ("gt/gt.txt", "det/det.txt"):
        (folder / "A" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "A" / name).write_bytes(ROW)
    path = folder / "A" / "seqinfo.ini"
    path.write_bytes(data)
    for read in (lambda: sequences.find(folder, "gt")["A"].length, lambda: _track.find(folder)[0].length):
        try:
            length = read()
        except DataFormatError as error:
            refused(error, path, line=True)
        else:
            if length is not None and not (isinstance(length, int) and 0 <= length <= MAX_FRAME):
                raise Wrong(f"a length must be a number of frames or None, got {length!r}")
    try:
        rate = _track.find(folder)[0].fps
    except DataFormatError:
        return
    if not 0 < rate < 1e5:
        raise Wrong(f"a rate must be positive, got {rate!r}")


def _check_seqmap(data: bytes, folder: Path) -> None:
    (folder / "label_02").mkdir(exist_ok=True)
    (folder / "label_02" / "0000.txt").write_bytes(b"0 1 Car 0 0 -10 1 1 2 2 -1 -1 -1 -1 -1 -1 -1\n")
    path = folder / "evaluate_tracking.seqmap.training"
    path.write_bytes(data)
    try:
        found = sequences.find(folder, "gt")
    except DataFormatError as error:
        refused(error, path, line=True)
        return
    length = found["0000"].length
    if length is not None and not 0 <= length <= MAX_FRAME:
        raise Wrong(f"a length must be a number of frames or None, got {length!r}")


def _check_camera(data: bytes, folder: Path) -> None:
    path = folder / "gmc.txt"
    path.write_bytes(data)
    try:
        motion = neural.read_camera(path)
    except DataFormatError as error:
        refused(error, path, line=not is_packed(data))
        return
    if motion.shape[1:] != (2, 3) or not np.isfinite(motion).all():
        raise Wrong(f"motion must be finite and of shape [F, 2, 3], got {motion!r}")
    frame = np.arange(1, len(motion) + 1)
    neural.steady(frame, np.ones((len(frame), 4)), motion)
    rows = ("\t".join(map(repr, [k, *row])) for k, row in enumerate(motion.reshape(-1, 6).tolist()))
    path.write_text("\n".join(rows))
    if not np.array_equal(neural.read_camera(path), motion):
        raise Wrong("motion must come back")


def _camera(rng: Rng) -> bytes:
    rows = np.tile([1.0, 0, 0, 0, 1, 0], (int(rng.integers(1, 6)), 1)) + rng.normal(0, 0.01, 6)
    lines = ("\t".join(map(repr, [k, *row])) for k, row in enumerate(rows.tolist()))
    return mutate.text(rng, ("\n".join(lines) + "\n").encode())


_parser(
    "seqinfo",
    _check_seqinfo,
    lambda rng: mutate.text(rng, INFO),
    (b"seqLength", b"frameRate", b"=", b"3", b"\n", b" ", b":", b"-", b".", b"\r"),
)
_parser(
    "seqmap", _check_seqmap, lambda rng: mutate.text(rng, b"0000 empty 000000 000154\n0001 empty 000000 000447\n"),
    (b"0000 empty 000000 ", b"000154", b"\n", b" ", b"9999999999", b"\x0c", "\u2028".encode(), "٣".encode()),
)  # fmt: skip
_parser("camera", _check_camera, _camera, (b"1 1 0 0 0 1 0\n", b"1 ", b"0 ", b"\n", b"\t", b"1e-5 ", b",", b"-", b"#"))


# ---- archives -------------------------------------------------------------------------------------------


def _check_zip(data: bytes, folder: Path) -> None:
    path = folder / "results.zip"
    path.write_bytes(data)
    for side in ("gt", "pred"):
        try:
            for source in sequences.find(path, side).values():
                source.read()
        except DataFormatError as error:
            refused(error, path)


def _zip(rng: Rng) -> bytes:
    files = {
        "A.txt": _motchallenge(rng),
        "B.txt": ROW,
        "C/gt/gt.txt": ROW,
        "C/seqinfo.ini": INFO,
        "D.txt.gz": _gzip(rng),
    }
    keep = [name for name in files if rng.random() < 0.7]
    base = mutate.pick(rng, ("", "data/", "x/y/"))
    return mutate.zipped(rng, {base + name: files[name] for name in keep})


@functools.cache
def _picture(format: str, mode: str) -> bytes:
    image = _pillow()
    rng = np.random.default_rng(3)
    values = rng.integers(0, 4, (7, 9)) if mode in ("L", "P") else rng.integers(0, 256, (7, 9, 3))
    made = image.fromarray(values.astype(np.uint8))
    if mode == "P":
        made = made.convert("P")
    out = io.BytesIO()
    made.save(out, format)
    return out.getvalue()


def _pillow() -> Any:
    from PIL import Image

    return Image


def _check_data_set(data: bytes, folder: Path) -> None:
    from cv3gpu.nn import segmentation_data

    path = folder / "data.zip"
    path.write_bytes(data)
    try:
        found = segmentation_data.read_split(segmentation_data.opened(path), "train", (7, 9))
    except DataFormatError as error:
        refused(error, path)
        return
    if any(x.shape != (7, 9, 3) for x in found.images) or any(x.shape != (7, 9) for x in found.labels):
        raise Wrong("images and labels must have the size asked for")


def _data_set(rng: Rng) -> bytes:
    files = {
        "train/a.png": _picture("PNG", "RGB"), "trainannot/a.png": _picture("PNG", "L"), "train/b.jpg": _picture("JPEG", "RGB"),
        "trainannot/b.png": _picture("PNG", "P"),
    }  # fmt: skip
    one = mutate.pick(rng, list(files))
    files[one] = (
        mutate.png(rng, files[one]) if one.endswith("png") and rng.random() < 0.5 else mutate.binary(rng, files[one])
    )
    return mutate.zipped(rng, files)


_parser("zip", _check_zip, _zip)
_parser("data-set", _check_data_set, _data_set)


# ---- pictures and arrays --------------------------------------------------------------------------------

SIZE = (7, 9)


def _check_picture(data: bytes, folder: Path) -> None:
    path = folder / "picture.bin"
    path.write_bytes(data)
    try:
        image = _segment.read_image(path)
        if image.dtype != np.uint8 or image.shape[2:] != (3,):
            raise Wrong(f"an image must be [H, W, 3], uint8, got {image.dtype} {image.shape}")
        back = folder / "back.png"
        _pillow().fromarray(image).save(back)
        if not np.array_equal(_segment.read_image(back), image):
            raise Wrong("an image must come back")
    except DataFormatError as error:
        refused(error, path)
    try:
        energies, values = _segment.read_labels(path, SIZE, 0.9, 0)
        if energies.shape != (len(values), SIZE[0] * SIZE[1]) or not np.isfinite(energies).all():
            raise Wrong(f"energies must be finite, one for each label and pixel, got {energies.shape}")
    except DataFormatError as error:
        refused(error, path)
    for kind in ("fg", "scribbles"):
        files = {"fg": None, "bg": None, "scribbles": None, "rect": None} | {kind: path}
        try:
            found = _segment_cut.read_seeds(SIZE, **files)
            if found.foreground.shape != SIZE or found.foreground.dtype != bool:
                raise Wrong("seeds must be a mask of the image's size")
        except DataFormatError as error:
            refused(error, path)


def _any_picture(rng: Rng) -> bytes:
    format, mode = mutate.pick(
        rng,
        [(f, "RGB") for f in ("PNG", "JPEG", "BMP", "PPM", "TIFF", "WEBP")]
        + [("PNG", "L"), ("PNG", "P"), ("GIF", "P"), ("TIFF", "L"), ("BMP", "P")],
    )
    data = _picture(format, mode)
    if format == "PNG" and rng.random() < 0.8:
        return mutate.png(rng, data)
    return mutate.binary(rng, data)


@functools.cache
def _array_file(kind: str) -> bytes:
    p = np.random.default_rng(0).random((3, *SIZE))
    p = (p / p.sum(0)).astype(np.float32 if kind == "npy" else np.float64)
    out = io.BytesIO()
    if kind == "npy":
        np.save(out, p)
    else:
        np.savez_compressed(out, p=p)
    return out.getvalue()


def _check_unary(data: bytes, folder: Path) -> None:
    path = folder / "unary.npy"
    path.write_bytes(data)
    for layout, kind in (("lhw", "probability"), ("hwl", "energy")):
        try:
            found = _segment.read_unary(path, SIZE, None, layout, kind)
        except DataFormatError as error:
            refused(error, path)
        else:
            if found.dtype != np.float32 or found.shape[1:] != (63,) or np.isnan(found).any():
                raise Wrong(f"energies must be float32, [L, {63}], without NaN, got {found.dtype} {found.shape}")


def _unary(rng: Rng) -> bytes:
    if rng.random() < 0.6:
        return mutate.npy(rng, _array_file("npy"))
    if rng.random() < 0.5:
        return mutate.binary(rng, _array_file("npz"))
    return mutate.zipped(rng, {"p.npy": mutate.npy(rng, _array_file("npy"))})


_parser("picture", _check_picture, _any_picture)
_parser("unary", _check_unary, _unary)


# ---- weights and states ---------------------------------------------------------------------------------

DTYPES = {"F32": 4, "F64": 8, "F16": 2, "I64": 8, "U8": 1, "BOOL": 1, "BF16": 2, "F8_E4M3": 1, "I16": 2, "C64": 8}


def _check_weights(data: bytes, folder: Path) -> None:
    path = folder / "w.safetensors"
    path.write_bytes(data)
    try:
        arrays, config = _weights.read(path)
    except DataFormatError as error:
        refused(error, path)
        return
    back = folder / "back.safetensors"
    _weights.write(back, arrays, config)
    again, told = _weights.read(back)
    if told != config or set(again) != set(arrays):
        raise Wrong(f"config and names must come back, wrote {config!r}, read {told!r}")
    for name, array in arrays.items():
        if again[name].dtype != array.dtype or again[name].tobytes() != array.tobytes():
            raise Wrong(f"{name} must come back")


def _weights_file(rng: Rng) -> bytes:
    header: dict[str, Any] = {}
    size = 0
    for k in range(int(rng.integers(0, 4))):
        dtype = mutate.pick(rng, list(DTYPES))
        shape = [int(n) for n in rng.integers(0, 4, int(rng.integers(0, 3)))]
        end = size + DTYPES[dtype] * int(np.prod(shape))
        header[f"layer{k}.weight"] = {"dtype": dtype, "shape": shape, "data_offsets": [size, end]}
        size = end
    config: Any = {"model": "unet", "mean": [0.5, 0.25], "names": ["sky", "straße"], "deep": {"a": [1, {"b": None}]}}
    if rng.random() < 0.4:
        config = mutate.json_value(rng, config)
    written = json.dumps(config)
    if rng.random() < 0.2:
        written = mutate.pick(
            rng, ("[" * 100_000, "1" * 5000, "1e999", "-Infinity", '"\\ud800"', '{"a":1,"a":2}', "{", "", "é")
        )
    header["__metadata__"] = {"cv3gpu": written}
    if rng.random() < 0.6:
        header = mutate.json_value(rng, header)
    return mutate.safetensors(rng, header, rng.integers(0, 256, size, np.uint8).tobytes())


@functools.cache
def _tracker() -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    return _weights.read(neural.SHIPPED)


def _try_settings(
    rng: Rng, folder: Path, held: tuple[dict[str, np.ndarray], dict[str, Any]], load: Callable[[Path], Any]
) -> int:
    """Settings of a network that say something else."""
    arrays, config = held
    for _ in range(int(rng.integers(1, 4))):
        config = mutate.json_value(rng, config)
    path = folder / "model.safetensors"
    try:
        _weights.write(path, arrays, config)
    except (ValueError, TypeError):  # not what JSON holds, or no mapping
        return 0
    try:
        load(path)
    except DataFormatError as error:
        refused(error, path)
    return 1


def _try_tracker(rng: Rng, folder: Path) -> int:
    """Of the tracker that is shipped."""
    return _try_settings(rng, folder, _tracker(), neural.load_solver)


@functools.cache
def _network() -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    from cv3gpu.nn import _training, models

    network = models.unet(3, base_channels=4)
    config = {
        "model": "unet", "num_classes": 3, "arguments": {"base_channels": 4}, "mean": [0.5] * 3, "std": [0.25] * 3,
        "names": ["a", "b", "c"], "palette": [[0, 0, 0], [9, 9, 9], [255, 0, 0]], "size": [32, 32],
    }  # fmt: skip
    return _training.arrays_of(network), config


def _try_network(rng: Rng, folder: Path) -> int:
    """Of a network for segmentation."""
    from cv3gpu.nn import postprocess

    return _try_settings(rng, folder, _network(), postprocess.load_network)


@functools.cache
def _state() -> bytes:
    import torch

    out = io.BytesIO()
    torch.save({"settings": {"lr": 0.1}, "network": {"w": torch.ones(2, 3)}, "step": 3, "rows": [{"loss": 1.0}]}, out)
    return out.getvalue()


def _check_state(data: bytes, folder: Path) -> None:
    from cv3gpu.nn import _training

    path = folder / "state.pt"
    path.write_bytes(data)
    try:
        found = _training.read_state(path)
    except DataFormatError as error:
        refused(error, path)
        return
    if not isinstance(found, dict):
        raise Wrong("a state must be a dict")


def _state_file(rng: Rng) -> bytes:
    if rng.random() < 0.4:
        return mutate.binary(rng, _state())
    with zipfile.ZipFile(io.BytesIO(_state())) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    one = mutate.pick(rng, [name for name in files if name.endswith("data.pkl")] * 3 + list(files))
    files[one] = mutate.binary(rng, files[one])
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return out.getvalue()


_parser(
    "weights", _check_weights, _weights_file,
    (struct.pack("<Q", 2), b"{}", b'{"a":', b'{"dtype":"F32","shape":[1],"data_offsets":[0,4]}', b"}", bytes(4), b'"__metadata__":'),
)  # fmt: skip
_parser("state", _check_state, _state_file)
for _name, _try in (("tracker", _try_tracker), ("network", _try_network)):
    PARSERS[_name] = FAMILIES[_name] = Family(_name, _try)
