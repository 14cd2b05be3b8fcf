"""Valid files made invalid, in ways that readers get wrong: of bytes, of lines and numbers, of JSON, of containers."""

from __future__ import annotations

import io
import json
import re
import struct
import zipfile
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np

__all__ = ["binary", "json_value", "npy", "pick", "png", "safetensors", "text", "zipped"]

Rng = np.random.Generator

NUMBERS = (
    "0", "-0", "-1", "1", "+1", "1.", ".5", ".", "-", "+", "1e5", "1e-5", "1e308", "-1e308", "1e309", "1e-400", "1E+3",
    "1e99999999999", "nan", "NaN", "inf", "-Infinity", "2147483647", "2147483648", "-2147483648", "4294967296",
    "9007199254740992", "9007199254740993", "9223372036854775807", "18446744073709551616", "1e9", "1e10", "-1e9",
    "1000000000.0000001", "0x10", "1_000", "1,5", "1 5", "٣", "１２", "", " ", "0" * 400 + "1", "9" * 400, "0." + "3" * 500,
    "5e-324", "2.2250738585072011e-308", "1.7976931348623159e308", "8.41e21", "9007199254740992.5", "true", "null",
)  # fmt: skip
PIECES = (
    b"\0", b"\0\0\0\0", b"\r", b"\n", b"\r\n", b"\x1a", b"\x0b", b"\x0c", b"\x85", b"\xa0", b"\xff", b"\xef\xbb\xbf",
    b"\xff\xfe", b"\xc3\x28", b"\xed\xa0\x80", "é".encode(), "\u2028".encode(), "\U0001f600".encode(), b"#", b'"', b"'",
    b",", b",,", b";", b"\t", b"%s", b"%(left)s", b"{}", b"<", b">", b"&amp;", b"&#0;", b"&#13;", b"&x;", b"]]>", b"<!--",
    b"<?xml version='1.0' encoding='utf-7'?>", b"<![CDATA[", b"PK\3\4", b"\x1f\x8b", b"--", b"=", b"[", b"]",
)  # fmt: skip


def pick(rng: Rng, values: Any) -> Any:
    """One of some values."""
    return values[int(rng.integers(len(values)))]


def _place(rng: Rng, data: bytes) -> int:
    return int(rng.integers(len(data) + 1))


def _span(rng: Rng, data: bytes) -> tuple[int, int]:
    start = _place(rng, data)
    return start, min(len(data), start + int(rng.integers(1, 40)))


# ---- bytes ----------------------------------------------------------------------------------------------


def _flip(rng: Rng, data: bytes) -> bytes:
    if not data:
        return data
    changed = bytearray(data)
    for _ in range(int(rng.integers(1, 4))):
        changed[int(rng.integers(len(data)))] ^= 1 << int(rng.integers(8))
    return bytes(changed)


def _set(rng: Rng, data: bytes) -> bytes:
    if not data:
        return data
    changed = bytearray(data)
    changed[int(rng.integers(len(data)))] = pick(rng, (0, 1, 0x7F, 0x80, 0xFF, int(rng.integers(256))))
    return bytes(changed)


def _word(rng: Rng, data: bytes) -> bytes:
    """A little-endian field of 2, 4 or 8 bytes with an extreme value."""
    size = pick(rng, (2, 4, 8))
    if len(data) < size:
        return data
    at, bits = int(rng.integers(len(data) - size + 1)), 8 * size
    value = pick(rng, (0, 1, 2 ** (bits - 1) - 1, 2 ** (bits - 1), 2**bits - 1, len(data), len(data) + 1))
    order = pick(rng, ("little", "big"))
    return data[:at] + int(value % 2**bits).to_bytes(size, order) + data[at + size :]


def _truncate(rng: Rng, data: bytes) -> bytes:
    return data[: _place(rng, data)]


def _cut(rng: Rng, data: bytes) -> bytes:
    start, end = _span(rng, data)
    return data[:start] + data[end:]


def _double(rng: Rng, data: bytes) -> bytes:
    start, end = _span(rng, data)
    return data[:end] + data[start:end] * int(rng.integers(1, 5)) + data[end:]


def _noise(rng: Rng, data: bytes) -> bytes:
    at = _place(rng, data)
    return data[:at] + rng.integers(0, 256, int(rng.integers(1, 30)), np.uint8).tobytes() + data[at:]


def _piece(rng: Rng, data: bytes) -> bytes:
    at = _place(rng, data)
    return data[:at] + pick(rng, PIECES) + data[at:]


_OF_BYTES: tuple[Callable[[Rng, bytes], bytes], ...] = (_flip, _set, _word, _truncate, _cut, _double, _noise, _piece)


def binary(rng: Rng, data: bytes, most: int = 3) -> bytes:
    """Bytes changed here and there."""
    for _ in range(int(rng.integers(1, most + 1))):
        data = pick(rng, _OF_BYTES)(rng, data)
    return data


# ---- lines and numbers ----------------------------------------------------------------------------------


def _lines(rng: Rng, data: bytes) -> bytes:
    """A line left out, doubled, moved or made empty."""
    lines = data.split(b"\n")
    at, to = (int(rng.integers(len(lines))) for _ in range(2))
    how = int(rng.integers(5))
    if how == 0:
        del lines[at]
    elif how == 1:
        lines.insert(to, lines[at])
    elif how == 2:
        lines[at], lines[to] = lines[to], lines[at]
    elif how == 3:
        lines[at] = b""
    else:
        lines[at] += lines[to]
    return b"\n".join(lines)


def _number(rng: Rng, data: bytes) -> bytes:
    """A number replaced by one that is hard to read or out of range."""
    found = list(re.finditer(rb"[-+]?[0-9][0-9.eE+-]*", data))
    if not found:
        return data
    one = pick(rng, found)
    new = pick(rng, NUMBERS).encode() if rng.random() < 0.7 else str(int(rng.integers(-(2**40), 2**40))).encode()
    return data[: one.start()] + new + data[one.end() :]


def _word_swap(rng: Rng, data: bytes) -> bytes:
    """A word in other letters, doubled or left out."""
    found = list(re.finditer(rb"[A-Za-z_]+", data))
    if not found:
        return data
    one = pick(rng, found)
    new = pick(rng, (one[0].upper(), one[0].swapcase(), one[0] * 2, b"", one[0][:-1], pick(rng, found)[0]))
    return data[: one.start()] + new + data[one.end() :]


def _ends(rng: Rng, data: bytes) -> bytes:
    return data.replace(b"\n", pick(rng, (b"\r\n", b"\r", b"\n\n", b" \n", b"\n\r", b"\0\n")))


def _mark(rng: Rng, data: bytes) -> bytes:
    mark = pick(rng, (b"\xef\xbb\xbf", b"\xff\xfe", b"\xef\xbb\xbf\xef\xbb\xbf", b" ", b"\n", b"\t"))
    return mark + data


def _wide(rng: Rng, data: bytes) -> bytes:
    return data.decode("utf-8", errors="replace").encode(
        pick(rng, ("utf-16", "utf-16-be", "utf-32", "latin-1")), "replace"
    )


def _long(rng: Rng, data: bytes) -> bytes:
    """A very long run of one byte, somewhere."""
    at = _place(rng, data)
    return (
        data[:at]
        + pick(rng, (b" ", b"9", b"0", b",", b"a", b"\t", b"(", b"<a>")) * pick(rng, (999, 1000, 5000, 70_000))
        + data[at:]
    )


def _separators(rng: Rng, data: bytes) -> bytes:
    old = pick(rng, (b",", b" ", b"=", b"\t"))
    return data.replace(old, pick(rng, (b" ", b",", b";", b"\t", b"", b", ", b"  ")), int(rng.integers(1, 20)))


_OF_TEXT = (_lines, _lines, _number, _number, _number, _word_swap, _ends, _mark, _wide, _long, _separators)


def text(rng: Rng, data: bytes, most: int = 4) -> bytes:
    """A text changed in its lines, its numbers or its bytes."""
    for _ in range(int(rng.integers(0, most + 1))):
        change = pick(rng, _OF_TEXT) if rng.random() < 0.75 else pick(rng, _OF_BYTES)
        data = change(rng, data)
    return data


# ---- JSON -----------------------------------------------------------------------------------------------

_VALUES: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2, 10**9, 2**63, -(2**63), 10**30, 0.5, -0.0, 1e308, "", "x", "\0", "é\ud800", "a" * 5000,
    [], {}, [[]], [0], [None], ["x"], {"x": 1}, [1, 2, 3], float("nan"), float("inf"),
)  # fmt: skip


def json_value(rng: Rng, value: Any) -> Any:
    """The value with one part of it replaced, left out, doubled or wrapped."""
    if isinstance(value, dict) and value and rng.random() < 0.85:
        key = pick(rng, list(value))
        how = rng.random()
        if how < 0.15:
            return {k: v for k, v in value.items() if k != key}
        if how < 0.25:
            return {**value, pick(rng, ("", "x", key + "x", "__metadata__", "\0")): pick(rng, _VALUES)}
        return {**value, key: json_value(rng, value[key])}
    if isinstance(value, list) and value and rng.random() < 0.75:
        at = int(rng.integers(len(value)))
        how = rng.random()
        if how < 0.15:
            return value[:at] + value[at + 1 :]
        if how < 0.3:
            return [*value, value[at]]
        return [*value[:at], json_value(rng, value[at]), *value[at + 1 :]]
    if isinstance(value, int | float) and rng.random() < 0.5:
        return pick(rng, (value + 1, value - 1, -value, value * 1000, str(value), [value], 2**31, 2**62))
    return pick(rng, _VALUES)


# ---- containers -----------------------------------------------------------------------------------------


def zipped(rng: Rng, files: dict[str, bytes]) -> bytes:
    """An archive of files, with names, fields or members that should not be."""
    out = io.BytesIO()
    hostile = (
        "../A.txt",
        "/etc/A.txt",
        "C:A.txt",
        "a\\..\\b.txt",
        "\0",
        "",
        "A.txt/",
        "é\u202e.txt",
        "a" * 300,
        ".",
        "..",
        "//",
    )
    with zipfile.ZipFile(out, "w") as archive:
        for name, data in files.items():
            if rng.random() < 0.08:
                name = pick(rng, hostile)
            info = zipfile.ZipInfo(name or "x")
            info.compress_type = pick(rng, (0, 8, 8, 8, 12, 14)) if rng.random() < 0.15 else 8
            if rng.random() < 0.05:
                info.external_attr = 0o120777 << 16
            archive.writestr(info, data)
            if rng.random() < 0.04:
                archive.writestr(info, data)
    made = out.getvalue()
    how = rng.random()
    if how < 0.4:
        return made
    if how < 0.7:  # in the directory, where sizes, methods and places stand
        at = made.find(b"PK\1\2")
        return made[:at] + binary(rng, made[at:], 2)
    return binary(rng, made, 3)


def safetensors(rng: Rng, header: Any, data: bytes) -> bytes:
    """A file of tensors with a header that may be of anything, and sometimes not of the length it says."""
    written = json.dumps(header).encode()
    if rng.random() < 0.2:
        written = text(rng, written, 3)
    size = len(written)
    if rng.random() < 0.15:
        size = pick(rng, (0, 1, size - 1, size + 1, size + len(data), 2**31, 2**63, 2**64 - 1, 100_000_001)) % 2**64
    made = struct.pack("<Q", size) + written + data
    return binary(rng, made, 2) if rng.random() < 0.2 else made


def png(rng: Rng, data: bytes) -> bytes:
    """A PNG with a part of it changed and the check sums made right again, so that decoders get to see it."""
    at, parts = 8, []
    while at + 12 <= len(data):
        (size,) = struct.unpack(">I", data[at : at + 4])
        parts.append((data[at + 4 : at + 8], data[at + 8 : at + 8 + size]))
        at += 12 + size
    how, which = rng.random(), int(rng.integers(len(parts)))
    kind, body = parts[which]
    if how < 0.5:
        parts[which] = (kind, binary(rng, body, 2))
    elif how < 0.6:
        del parts[which]
    elif how < 0.7:
        parts.insert(which, (kind, body))
    elif how < 0.85:  # the size that the image says it has
        kind, body = parts[0]
        width, height = (pick(rng, (0, 1, 7, 8, 255, 65_536, 2**31 - 1, 2**32 - 1)) for _ in range(2))
        parts[0] = (kind, struct.pack(">II", width, height) + body[8:])
    else:
        parts.insert(
            which, (pick(rng, (b"tEXt", b"zTXt", b"iCCP", b"tRNS", b"PLTE", b"acTL", b"fcTL")), binary(rng, body))
        )
    made = data[:8]
    for kind, body in parts:
        made += struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
    return made


def npy(rng: Rng, data: bytes) -> bytes:
    """An .npy file whose header says something else."""
    if rng.random() < 0.5:
        return binary(rng, data)
    end = data.index(b"\n") + 1
    header = text(rng, data[10:end].rstrip(), 2).ljust(end - 11)[: 2**15] + b"\n"
    return data[:8] + struct.pack("<H", len(header)) + header + data[end:]
