"""Files of tracks: what they mean, how fast numbers are read exactly, and what becomes of malformed ones."""

from __future__ import annotations

import gzip
import io
import os
import pickle
import random
import stat
import struct
import threading
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cv3gpu import DataFormatError, mot
from cv3gpu.mot import _bytes, _detrac_files, _text, formats, sequences
from cv3gpu.mot import tracks as tracks_module
from cv3gpu.mot._print import printed
from cv3gpu.mot.formats import DETRAC_CLASSES, KITTI_CLASSES
from cv3gpu.mot.sequences import Source, find

SHARED = Path(__file__).resolve().parents[1] / ".." / "shared" / "data" / "mot"
needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason="needs ../shared/data/mot")

COLUMNS = ("frame", "id", "box", "score", "class", "visibility", "truncation", "occlusion")


def read(folder, text, format=None, name="seq.txt"):
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return mot.read(path, format)


def assert_equal(got, want, rows=slice(None)):
    for name in COLUMNS:
        np.testing.assert_array_equal(got[name], want[name][rows], err_msg=name)
        assert got[name].dtype == want[name].dtype and not got[name].flags.writeable
    np.testing.assert_array_equal(got.ignored, want.ignored)


# ---- numbers --------------------------------------------------------------------------------------------


def numbers_of(tokens):
    """Numbers as the compiled reader has them, and how many it left to Python's float."""
    data = np.frombuffer(("\n".join(tokens) + "\n").encode(), np.uint8)
    left = []

    def by_float(line):
        left.append(line)
        return [float(line)]

    tables = _text.Text("numbers", data).tables(0, False, 1, 1000, by_float)
    return np.concatenate([table[0].copy() for table, _ in tables]), len(left)


def digits(rng, most):
    return "".join(rng.choices("0123456789", k=rng.randint(1, most)))


def any_double(rng):
    return repr(struct.unpack("d", struct.pack("Q", rng.getrandbits(64)))[0])


def halfway(rng):
    """The exact decimal text of the middle between two neighbouring float64, or next to it."""
    places = rng.randint(0, 4)
    middle = rng.randint(2**52, 2**53 - 1) * 2 + 1  # over 2^places
    text = str(middle * 5**places + rng.choice([-1, 0, 0, 1]))
    return f"{text[: len(text) - places]}.{text[len(text) - places :]}"


SHAPES = {  # how a token is made, and the largest share of them that may be left to float
    "coordinates": (lambda r: f"{r.uniform(-2000, 2000):.2f}", 0),
    "float32": (lambda r: repr(float(np.float32(r.uniform(-2000, 2000)))), 0),
    "float64": (lambda r: repr(r.uniform(-2000, 2000)), 0),
    "scores": (lambda r: repr(r.random() ** 20), 0.05),
    "savetxt": (lambda r: f"{r.uniform(-1, 1) * 2.0 ** r.randint(-99, 99):.18e}", 0),
    "integers": (lambda r: digits(r, 19), 0),
    "longer": (lambda r: f"{digits(r, 15)}.{digits(r, 15)}", 1),
    "exponents": (lambda r: f"{digits(r, 9)}.{digits(r, 9)}{r.choice('eE')}{r.randint(-60, 60)}", 0.2),
    "halfway": (halfway, 0.5),
    "any": (any_double, 1),
    "zeros": (lambda r: f"{r.choice(['', '-', '+'])}{'0' * r.randint(1, 25)}.{'0' * r.randint(0, 9)}{digits(r, 9)}", 0),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_numbers_are_those_of_float(shape):
    make, share = SHAPES[shape]
    rng = random.Random(shape)
    tokens = [token for token in (make(rng) for _ in range(10_000)) if "n" not in token]
    got, left = numbers_of(tokens)
    wrong = np.flatnonzero(got.view(np.int64) != np.array(list(map(float, tokens))).view(np.int64))
    assert not wrong.size, [tokens[i] for i in wrong[:5]]
    assert left <= share * len(tokens)


def test_numbers_at_the_limits():
    text = (
        "0 -0 0.0 -0.0 +0e5 0e999 .5 5. +5 1e22 1e23 -1e-22 8.5e-23 9007199254740991 9007199254740992 9007199254740993 "
        "9007199254740991e22 18446744073709551615 18446744073709551616 9999999999999999999 1e64 1e65 1e-64 1e-65 5e-324 "
        "1.7976931348623157e308 2.2250738585072011e-308 0000000000000000000000001 123e-0 2e0000001 4.35 0.1 1e-400"
    )
    tokens = text.split()
    got, _ = numbers_of(tokens)
    assert [x.hex() for x in got.tolist()] == [float(token).hex() for token in tokens]


def test_powers_of_five():
    """The 128 bits hold the power to within one in the last place; those of up to 5^55 exactly."""
    for power in range(-_text.MAX_POWER, _text.MAX_POWER + 1):
        bits = _text._leading_bits(power)
        assert bits.bit_length() == 128
        five = 5 ** abs(power)
        if power >= 0:
            shift = 128 - five.bit_length()
            assert bits == (five << shift if shift >= 0 else five >> -shift)
        else:
            assert abs(bits * five - (1 << five.bit_length() + 127)) <= five


PRINTED = {
    "coordinates": lambda r: round(r.uniform(-2000, 2000), 2),
    "float32": lambda r: float(np.float32(r.uniform(-2000, 2000))),
    "float64": lambda r: r.uniform(-2000, 2000),
    "scores": lambda r: r.random() ** 20,
    "whole": lambda r: float(r.randint(-(2 ** r.randint(1, 70)), 2 ** r.randint(1, 70))),
    "any": lambda r: float(any_double(r)),
    "subnormal": lambda r: r.randint(0, 2**52) * 5e-324,
    "powers of two": lambda r: r.choice([-1, 1]) * 2.0 ** r.randint(-1074, 1023),
    "beside powers of two": lambda r: float(np.nextafter(2.0 ** r.randint(-1073, 1022), r.choice([0, np.inf]))),
    "powers of ten": lambda r: float(f"{r.choice([1, 2, 5, 9.5])}e{r.randint(-323, 307)}"),
    "limits": lambda r: r.choice(
        [0.0, -0.0, 1e15, 1e16, 1e17, 1e-4, 1e-5, 5e-324, 2.0**53, 0.1 + 0.2, 1.7976931348623157e308]
    ),
}


@pytest.mark.parametrize("shape", PRINTED)
def test_numbers_are_printed_as_by_repr(shape):
    rng = random.Random(shape)
    values = [value for value in (PRINTED[shape](rng) for _ in range(10_000)) if np.isfinite(value)]
    got = b"".join(printed("<{}>\n", [np.array(values)])).decode().splitlines()
    want = [f"<{repr(value).removesuffix('.0')}>" for value in values]
    assert [pair for pair in zip(got, want, strict=True) if pair[0] != pair[1]][:5] == []


def test_rows_are_printed():
    columns = [np.array([1, 2]), np.array([0, 1]), np.array([0.5, -3])]
    assert b"".join(printed("a{} {};{}z\n", columns, ["Car", "x"], word_column=1)) == b"a1 Car;0.5z\na2 x;-3z\n"
    assert b"".join(printed("{}\n", [np.empty(0)])) == b""


# ---- MOTChallenge ---------------------------------------------------------------------------------------


def test_read_columns(tmp_path):
    nine = read(tmp_path, "3,7,1.5,2,30,40,0,11,.25\n1,7,0,0,1,1,1,1,1\n")
    assert nine.frame.tolist() == [3, 1] and nine["class"].tolist() == [11, 1]
    assert nine.visibility.tolist() == [0.25, 1] and nine.score.tolist() == [0, 1]
    assert nine.box.tolist() == [[1.5, 2, 30, 40], [0, 0, 1, 1]]
    seven = read(tmp_path, "1 -1 0 0 1 1 0.9\r\n1 -1 5 5 1 1 .8\r\n\r\n")
    assert seven.id.tolist() == [-1, -1] and seven["class"].tolist() == [-1, -1]
    eight = read(tmp_path, "1,1,0,0,1,1,1,7\n")
    assert eight["class"].tolist() == [7] and eight.visibility.tolist() == [-1]
    ten = read(tmp_path, "1,1,0,0,1,1,1,7,0.5,3.5\n2,1,0,0,1,1,1,-1,-1,-1\n")
    assert ten["class"].tolist() == [7, -1] and ten.visibility.tolist() == [0.5, -1]
    world = read(tmp_path, "\ufeff1, 1.0, 0, 0, 1, 1, 1, -8.5, 3, 0\n\n2,1,0,0,1,1,1,3,3.5,0")
    assert world["class"].tolist() == [-1, -1] and world.visibility.tolist() == [-1, -1]


GOOD = "1,1,0,0,9,9,1,-1,-1,-1\n"
ROW = GOOD.strip()

READ = {  # unusual texts that are read: (text, frames, ids, boxes)
    "empty file": ("", [], [], []),
    "blank lines alone": ("\n \n\t\n\r\n", [], [], []),
    "byte order mark alone": ("\ufeff", [], [], []),
    "byte order mark": ("\ufeff" + GOOD, [1], [1], [[0, 0, 9, 9]]),
    "Windows line ends": (GOOD.replace("\n", "\r\n") * 1 + "\r\n", [1], [1], [[0, 0, 9, 9]]),
    "no end of the last line": (ROW, [1], [1], [[0, 0, 9, 9]]),
    "carriage return at the end of the file": (ROW + "\r", [1], [1], [[0, 0, 9, 9]]),
    "trailing blank lines": (GOOD + "\n \n\n", [1], [1], [[0, 0, 9, 9]]),
    "blank lines between": ("\n\n" + GOOD + " \n" + "2" + GOOD[1:], [1, 2], [1, 1], [[0, 0, 9, 9]] * 2),
    "tabs": (ROW.replace(",", "\t"), [1], [1], [[0, 0, 9, 9]]),
    "blanks around": ("  " + ROW.replace(",", " , \t") + "  \n", [1], [1], [[0, 0, 9, 9]]),
    "many blanks between": (ROW.replace(",", "   ") + " \r\n", [1], [1], [[0, 0, 9, 9]]),
    "whole numbers with points": ("1.0,2.00,0.,0.0,9,9,1\n", [1], [2], [[0, 0, 9, 9]]),
    "whole numbers with exponents": ("1e2,20e-1,0,0,9,9,1\n", [100], [2], [[0, 0, 9, 9]]),
    "plus signs": ("+1,+2,+3,+.5,+5.,9,1\n", [1], [2], [[3, 0.5, 5, 9]]),
    "negative sizes": ("1,1,0,0,-9,-0.5,1\n", [1], [1], [[0, 0, -9, -0.5]]),
    "zero sizes": ("1,1,5,5,0,0,1\n", [1], [1], [[5, 5, 0, 0]]),
    "last frame and id": (f"{2**31 - 1},{2**53},0,0,1,1,1\n", [2**31 - 1], [2**53], [[0, 0, 1, 1]]),
    "id 3e9": ("1,3000000000,0,0,1,1,1\n", [1], [3_000_000_000], [[0, 0, 1, 1]]),
    "detections of one frame": ("1,-1,0,0,1,1,1\n" * 2, [1, 1], [-1, -1], [[0, 0, 1, 1]] * 2),
    "thirty digits": (f"1,1,0.{'3' * 30},1e-99,1,1,1\n", [1], [1], [[1 / 3, 1e-99, 1, 1]]),
    "too small for float64": ("1,1,1e-400,-1e-400,1,1,1\n", [1], [1], [[0, 0, 1, 1]]),
    "line of 1000 characters": (ROW + " " * (1000 - len(ROW)) + "\n", [1], [1], [[0, 0, 9, 9]]),
    "long blank line": (" " * 100_000 + "\n" + GOOD, [1], [1], [[0, 0, 9, 9]]),
    "zeros in front": ("0001,0007,00.50,-0,9,9,1\n", [1], [7], [[0.5, 0, 9, 9]]),
}


@pytest.mark.parametrize("case", READ)
def test_unusual_texts_are_read(tmp_path, case):
    text, frames, ids, boxes = READ[case]
    got = read(tmp_path, text)
    assert got.frame.tolist() == frames and got.id.tolist() == ids and got.box.tolist() == boxes


MALFORMED = {  # (text, line, message)
    "six columns": ("1,1,0,0,9,9\n", 1, "line must have 7 to 10 columns, got 6"),
    "eleven columns": (GOOD + ROW + ",0\n", 2, "line must have 7 to 10 columns, got 11"),
    "eleven columns in all": (ROW + ",0\n", 1, "line must have 7 to 10 columns, got 11"),
    "one word": ("hello\n", 1, "line must have 7 to 10 columns, got 1"),
    "fewer columns": (GOOD + "2,1,0,0,9,9,1\n", 2, "line must have 10 columns as the lines before it, got 7"),
    "more columns": ("1,1,0,0,9,9,1\n" + GOOD, 2, "line must have 7 columns as the lines before it, got 10"),
    "trailing comma": ("1,1,0,0,9,9,1,\n", 1, "class must be a number, got ''"),
    "trailing comma later": (GOOD + "2,1,0,0,9,9,1,-1,-1,\n", 2, "z must be a number, got ''"),
    "two commas": ("1,1,0,0,,9,9,1\n", 1, "width must be a number, got ''"),
    "other delimiter": (GOOD + "2 1 0 0 9 9 1 -1 -1 -1\n", 2, "line must have 7 to 10 columns, got 1"),
    "comma among blanks": ("1 1 0 0 9 9 1\n2 1 0, 0 9 9 1\n", 2, "left must be a number, got '0,'"),
    "mixed delimiters": (GOOD + "2,1 0,0,9,9,1,-1,-1,-1,-1\n", 2, "id must be a number, got '1 0'"),
    "semicolons": (GOOD.replace(",", ";"), 1, "line must have 7 to 10 columns, got 1"),
    "not a number": (GOOD + "2,1,0,x,9,9,1,-1,-1,-1\n", 2, "top must be a number, got 'x'"),
    "letters behind": ("1,1,0,0px,9,9,1\n", 1, "top must be a number, got '0px'"),
    "empty field": ("1,1,0,0,,9,1\n", 1, "width must be a number, got ''"),
    "underscore": ("1,1,0,0,1_000,9,1\n", 1, "width must be a number, got '1_000'"),
    "hexadecimal": ("1,1,0,0,0x10,9,1\n", 1, "width must be a number, got '0x10'"),
    "wide digits": ("\uff11,1,0,0,9,9,1\n", 1, "frame must be a number, got '\uff11'"),
    "two signs": ("1,1,--5,0,9,9,1\n", 1, "left must be a number, got '--5'"),
    "sign alone": ("1,1,-,0,9,9,1\n", 1, "left must be a number, got '-'"),
    "point alone": ("1,1,.,0,9,9,1\n", 1, "left must be a number, got '.'"),
    "two points": ("1,1,1.5.0,0,9,9,1\n", 1, "left must be a number, got '1.5.0'"),
    "exponent without digits": ("1,1,1e,0,9,9,1\n", 1, "left must be a number, got '1e'"),
    "decimal comma": ("1;1;0;0;9,5;9;1\n", 1, "line must have 7 to 10 columns, got 2"),
    "header": ("frame,id,x,y,w,h,conf\n" + GOOD, 1, "frame must be a number, got 'frame'"),
    "comment": ("# frame,id,x,y,w,h,conf\n", 1, "frame must be a number, got '# frame'"),
    "comment between": (GOOD + "# end\n", 2, "line must have 7 to 10 columns, got 1"),
    "nan": (GOOD + "\n2,1,0,0,NaN,9,1,-1,-1,-1\n", 3, "width must be finite, got NaN"),
    "nan among blanks": ("1 1 nan 0 9 9 1\n", 1, "left must be finite, got nan"),
    "nan unread": ("1,1,0,0,9,9,1,0.5,nan,0\n", 1, "visibility must be finite, got nan"),
    "inf": ("1,1,-inf,0,9,9,1\n", 1, "left must be finite, got -inf"),
    "overflow": ("1,1,0,0,9,1e400,1\n", 1, "height must be finite, got 1e400"),
    "infinite score": ("1,1,0,0,9,9,Infinity\n", 1, "score must be finite, got Infinity"),
    "frame 0": (GOOD + "0" + GOOD[1:], 2, "frame must be a whole number from 1 to 2147483647, got 0"),
    "frame -0": ("-0,1,0,0,9,9,1\n", 1, "frame must be a whole number from 1 to 2147483647, got -0"),
    "negative frame": ("-3,1,0,0,9,9,1\n", 1, "frame must be a whole number from 1 to 2147483647, got -3"),
    "half a frame": ("1.5,1,0,0,9,9,1\n", 1, "frame must be a whole number from 1 to 2147483647, got 1.5"),
    "frame 2^31": (f"{2**31},1,0,0,9,9,1\n", 1, "frame must be a whole number from 1 to 2147483647, got 2147483648"),
    "frame 1e300": ("1e300,1,0,0,9,9,1\n", 1, "frame must be a whole number from 1 to 2147483647, got 1e300"),
    "half an id": ("1,2.5,0,0,9,9,1\n", 1, "id must be a whole number from -1 to 9007199254740992, got 2.5"),
    "negative id": ("1,-2,0,0,9,9,1\n", 1, "id must be a whole number from -1 to 9007199254740992, got -2"),
    "id 2^53 + 1": (f"1,{2**53 + 1},0,0,9,9,1\n", 1, f"id must be a whole number from -1 to {2**53}, got {2**53 + 1}"),
    "id 1e300": ("1,1e300,0,0,9,9,1\n", 1, "id must be a whole number from -1 to 9007199254740992, got 1e300"),
    "duplicate": (
        "\n" + GOOD + "2,1,0,0,9,9,1,-1,-1,-1\n\r\n" + GOOD,
        5,
        "id must be unique within a frame, got id 1 of frame 1 again (first in line 2)",
    ),
    "far away": ("1,1,2e9,0,9,9,1\n", 1, "left must be from -1e+09 to 1e+09, got 2e9"),
    "half a class": ("1,1,0,0,9,9,1,1.5,1\n", 1, "class must be a whole number from -9007199254740992 to"),
    "long line": (GOOD + "1," * 600 + "1\n" + GOOD, 2, "line must have at most 1000 characters"),
    "long line of blanks": (GOOD + "2" + GOOD[1:].strip() + " " * 1000, 2, "line must have at most 1000 characters"),
    "huge line": ("\n" + GOOD + "7" * 10**6, 3, "line must have at most 1000 characters"),
    "huge first line": ("7" * 10**6, 1, "line must have at most 1000 characters"),
    "carriage returns alone": (GOOD.replace("\n", "\r") * 2, 1, "line must have 7 to 10 columns, got 19"),
    "carriage return inside": (GOOD + "2,1,0,0,9,9\r,1,-1,-1,-1\n", 2, "line must end in a line feed, got a carriage"),
    "zero bytes": (b"1,1,0,0,9,9,1\n2,1,\0,0,9,9,1\n", 2, r"left must be a number, got '\x00'"),
    "zero bytes alone": (bytes(50), 1, "line must have 7 to 10 columns, got 1"),
    "UTF-16": (GOOD.encode("utf-16"), 1, "text must be ASCII or UTF-8, got UTF-16's byte order mark"),
    "UTF-16 without a mark": (GOOD.encode("utf-16-le"), 1, r"frame must be a number, got '1\x00'"),
    "Latin-1": (GOOD.encode() + b"2,1,0,\xe9,9,9,1,-1,-1,-1\n", 2, "top must be a number, got '\ufffd'"),
    "binary": (b"\x89PNG\r\n\x1a\n\0\0\0\xff\xfe", 1, "line must have 7 to 10 columns, got 1"),
    "KITTI read as MOTChallenge": (
        "0 1 Car -1 -1 -10 1 2 3 4 1 1 1 1 1 1 1 1\n",
        1,
        "line must have 7 to 10 columns, got 18",
    ),
}


@pytest.mark.parametrize("case", MALFORMED)
def test_malformed(tmp_path, case):
    text, line, message = MALFORMED[case]
    with pytest.raises(DataFormatError) as caught:
        read(tmp_path, text, "motchallenge" if "KITTI" in case else None)
    assert str(caught.value).startswith(f"{tmp_path / 'seq.txt'}:{line}: {message}")
    assert caught.value.__cause__ is None


def test_errors_far_into_a_file(tmp_path):
    """Lines are counted, and the first error reported, across the tables in which a file is read."""
    lines = [f"{frame},1,0,0,9,9,1" for frame in range(1, 20_001)]
    assert len(read(tmp_path, "\n".join(lines))) == 20_000
    lines[15_000] = "0" + lines[15_000]  # fine
    lines[15_001] = "x"
    lines[15_002] = "y,1,0,0,9,9,1"
    with pytest.raises(DataFormatError, match=r":15002: line must have 7 to 10 columns, got 1$"):
        read(tmp_path, "\n".join(lines))
    lines[15_001], lines[15_002] = "0,1,0,0,9,9,1", "x"
    with pytest.raises(DataFormatError, match=r":15002: frame must be"):
        read(tmp_path, "\n".join(lines))
    lines[15_001], lines[15_002] = "", lines[3]
    with pytest.raises(DataFormatError, match=r":15003: id must be .* of frame 4 again \(first in line 4\)"):
        read(tmp_path, "\n".join(lines))


def test_what_is_no_file(tmp_path):
    with pytest.raises(IsADirectoryError):
        mot.read(tmp_path)
    with pytest.raises(FileNotFoundError):
        mot.read(tmp_path / "missing.txt")
    closed = tmp_path / "closed.txt"
    closed.write_text(GOOD)
    closed.chmod(0)
    if not os.access(closed, os.R_OK):
        with pytest.raises(PermissionError):
            mot.read(closed)
    os.mkfifo(tmp_path / "pipe")
    writer = threading.Thread(target=(tmp_path / "pipe").write_text, args=(GOOD,))
    writer.start()
    assert len(mot.read(tmp_path / "pipe")) == 1
    writer.join()


def test_formats(tmp_path):
    path = tmp_path / "seq.txt"
    path.write_text(GOOD)
    assert len(mot.read(path, "motchallenge")) == len(mot.read(str(path))) == 1
    with pytest.raises(ValueError, match=r"mot.read: format must be one of 'motchallenge', 'kitti', 'detrac', got 'x'"):
        mot.read(path, "x")
    with pytest.raises(ValueError, match=r"mot.write: format must be one of 'motchallenge', .*, got None"):
        mot.write(path, mot.Tracks([], [], []), None)


# ---- KITTI ----------------------------------------------------------------------------------------------

CAR = "0 1 Car 0 2 -1.5 10 20 40.5 60 1 2 3 4 5 6 7"


def test_kitti_columns(tmp_path):
    got = read(tmp_path, f"{CAR}\n0 -1 DontCare -1 -1 -10 1 2 3 5 -1000 -1000 -1000 -10 -1 -1 -1\n")
    assert got.frame.tolist() == [0, 0] and got.id.tolist() == [1, -1] and got["class"].tolist() == [1, 9]
    assert got.box.tolist() == [[10, 20, 30.5, 40], [1, 2, 2, 3]]
    assert got.truncation.tolist() == [0, -1] and got.occlusion.tolist() == [2, -1]
    assert got.score.tolist() == [1, 1] and got.visibility.tolist() == [-1, -1]
    assert read(tmp_path, CAR + " 0.75\r\n").score.tolist() == [0.75]
    assert read(tmp_path, CAR.replace("0 1", "0 -7")).id.tolist() == [-1]
    assert read(tmp_path, CAR.replace("Car", "DONTCARE")).id.tolist() == [-1]
    assert read(tmp_path, "", "kitti").box.shape == (0, 4)
    for word, number in KITTI_CLASSES.items():
        for spelt in (word, word.lower(), word.upper()):
            assert read(tmp_path, CAR.replace("Car", spelt))["class"].tolist() == [number]


KITTI_MALFORMED = {
    "sixteen columns": (CAR.rpartition(" ")[0], 1, "line must have 17 or 18 columns, got 16"),
    "nineteen columns": (CAR + " 1 1", 1, "line must have 17 or 18 columns, got 19"),
    "columns that vary": (f"{CAR}\n{CAR} 1", 2, "line must have 17 columns as the lines before it, got 18"),
    "no class": (CAR.replace("Car", "Caravan"), 1, "class must be one of Car, Van, Truck, "),
    "part of a class": (f"{CAR}\n{CAR.replace('Car', 'Ca')}", 2, "class must be one of Car, Van, Truck, "),
    "class number": (f"{CAR}\n{CAR.replace('Car', '1')}", 2, "class must be one of Car, Van, Truck, "),
    "commas": (f"{CAR}\n{CAR.replace(' ', ',')}", 2, "line must have 17 or 18 columns, got 1"),
    "negative frame": (CAR.replace("0 1", "-1 1"), 1, "frame must be a whole number from 0 to 2147483647, got -1"),
    "half an id": (CAR.replace("0 1", "0 1.5"), 1, "id must be a whole number from -9007199254740992"),
    "half an occlusion": (CAR.replace("0 2 -1.5", "0 0.5 -1.5"), 1, "occlusion must be a whole number from"),
    "far away": (CAR.replace("40.5", "4e9"), 1, "right must be from -1e+09 to 1e+09, got 4e9"),
    "nan": (CAR.replace(" 3 4 5", " 3 nan 5"), 1, "x must be finite, got nan"),
    "duplicate": (
        f"{CAR}\n\n{CAR}",
        3,
        "id must be unique within a frame, got id 1 of frame 0 again (first in line 1)",
    ),
}


@pytest.mark.parametrize("case", KITTI_MALFORMED)
def test_kitti_malformed(tmp_path, case):
    text, line, message = KITTI_MALFORMED[case]
    with pytest.raises(DataFormatError) as caught:
        read(tmp_path, text, "kitti" if case == "no class" else None)
    assert str(caught.value).startswith(f"{tmp_path / 'seq.txt'}:{line}: {message}")


# ---- UA-DETRAC ------------------------------------------------------------------------------------------

XML = """<?xml version="1.0" encoding="utf-8"?>
<sequence name="MVI_1">
   <sequence_attribute camera_state="unstable" sence_weather="sunny"/>
   <ignored_region>
      <box left="1" top="2" width="3" height="4.5"/>
   </ignored_region>
   <frame density="2" num="3">
      <target_list>
         <target id="1">
            <box left="592.75" top="378.8" width="160.05" height="162.2"/>
            <attribute orientation="18.488" truncation_ratio="0.1" vehicle_type="car"/>
            <occlusion><region_overlap left="0" top="0" width="1" height="1" occlusion_id="5" occlusion_status="1"/></occlusion>
         </target>
         <target id="2">
            <box left="1" top="2" width="3" height="4"/>
            <attribute vehicle_type="Taxi"/>
         </target>
         <target id="3"><box left="1" top="2" width="3" height="4"/></target>
      </target_list>
   </frame>
</sequence>
"""


def test_detrac_columns(tmp_path):
    got = read(tmp_path, XML, name="seq.xml")
    assert got.frame.tolist() == [3, 3, 3] and got.id.tolist() == [1, 2, 3] and got["class"].tolist() == [1, -1, -1]
    assert got.box[0].tolist() == [592.75, 378.8, 160.05, 162.2] and got.truncation.tolist() == [0.1, -1, -1]
    assert got.ignored.tolist() == [[1, 2, 3, 4.5]] and got[got.id == 1].ignored.tolist() == got.ignored.tolist()
    for word, number in DETRAC_CLASSES.items():
        assert read(tmp_path, XML.replace("Taxi", word.title()))["class"].tolist()[1] == number
    assert (
        len(read(tmp_path, XML.replace("utf-8", "utf-16").encode("utf-16")))
        == len(read(tmp_path, "\ufeff\n" + XML.partition("\n")[2]))
        == 3
    )
    empty = read(
        tmp_path, "<sequence><ignored_region><box left='1' top='2' width='3' height='4'/></ignored_region></sequence>"
    )
    assert len(empty) == 0 and len(empty.ignored) == 1 and len(read(tmp_path, "<sequence/>").ignored) == 0


BOMB = "<!DOCTYPE a [" + '<!ENTITY x0 "ha">'
BOMB += "".join(f'<!ENTITY x{i} "{f"&x{i - 1};" * 10}">' for i in range(1, 12)) + "]>\n<sequence>&x11;</sequence>"
FILE = '<?xml version="1.0"?>\n<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]>\n<sequence>&x;</sequence>'

XML_MALFORMED = {
    "billion laughs": (BOMB, 1, "XML must not declare a document type or entities"),
    "external entity": (FILE, 2, "XML must not declare a document type or entities"),
    "external document type": (
        '<!DOCTYPE a SYSTEM "http://x/y.dtd"><sequence/>',
        1,
        "XML must not declare a document type",
    ),
    "undeclared entity": ("<sequence>&x;</sequence>", 1, "XML is malformed: undefined entity"),
    "truncated": (XML[:700], 16, "XML is malformed: "),
    "not closed": (XML.replace("</frame>", ""), 21, "XML is malformed: mismatched tag"),
    "nothing behind the declaration": (XML.partition("\n")[0], 1, "XML is malformed: no element found"),
    "zero bytes": ("<sequence>\n\0</sequence>", 2, "XML is malformed: not well-formed (invalid token)"),
    "unknown encoding": ("<?xml version='1.0' encoding='x-none'?><sequence/>", 1, "unknown encoding: x-none"),
    "other XML": ("<annotations/>", 1, "the outermost element must be sequence, got annotations"),
    "no frame number": (XML.replace("num=", "name="), 7, "frame must have the attribute num"),
    "target outside of a frame": (XML.replace("frame", "frames"), 9, "target must be inside a frame"),
    "no id": (XML.replace('target id="2"', "target"), 14, "target must have the attribute id"),
    "no box": (XML.replace('<box left="592.75"', '<bax left="592.75"'), 13, "target must hold a box"),
    "box without a side": (XML.replace(' width="160.05"', ""), 10, "box must have the attribute width"),
    "region without a side": (XML.replace(' height="4.5"', ""), 5, "box must have the attribute height"),
    "region that is no number": (XML.replace("4.5", "x"), 5, "height must be a number, got 'x'"),
    "no number": (XML.replace("378.8", "3_8"), 9, "top must be a number, got '3_8'"),
    "nan": (XML.replace("378.8", "nan"), 9, "top must be finite, got nan"),
    "far away": (XML.replace("378.8", "1e10"), 9, "top must be from -1e+09 to 1e+09, got 1e10"),
    "negative id": (XML.replace('id="2"', 'id="-2"'), 14, "id must be a whole number from -1"),
    "negative frame": (XML.replace('num="3"', 'num="-3"'), 9, "frame must be a whole number from 0"),
    "comma in a number": (XML.replace("378.8", "378,8"), 9, "line must have 8 columns, got 9"),
    "line feed in a number": (XML.replace("378.8", "3&#10;7"), 13, "an attribute must not hold a line feed"),
    "duplicate": (
        XML.replace('id="2"', 'id="1"'),
        14,
        "id must be unique within a frame, got id 1 of frame 3 again (first in line 9)",
    ),
}


@pytest.mark.parametrize("case", XML_MALFORMED)
def test_xml_malformed(tmp_path, case):
    text, line, message = XML_MALFORMED[case]
    with pytest.raises(DataFormatError) as caught:
        read(tmp_path, text, name="seq.xml")
    assert str(caught.value).startswith(f"{tmp_path / 'seq.xml'}:{line}: {message}")


def test_long_tokens_take_no_long_time(tmp_path):
    """Nothing here is quadratic: each would take minutes if it were."""
    long = "7" * 10**6
    with pytest.raises(DataFormatError, match=r"line must have at most 1000 characters"):
        read(tmp_path, XML.replace("378.8", long))
    matrices(tmp_path, LX=long + "x", LY="", W="", H="")
    with pytest.raises(DataFormatError, match=r"column 1 must be a number, got '7{40}'"):
        mot.read(tmp_path / "MVI_1_LX.txt")
    lay(tmp_path, {"A/gt/gt.txt": GOOD, "A/seqinfo.ini": "seqLength=" + " " * 10**6 + "x"})
    with pytest.raises(DataFormatError, match=r"seqLength must be a whole number"):
        find(tmp_path, "gt")


def test_deep_xml(tmp_path):
    text = "<sequence>" + "<a>" * 50_000 + "</a>" * 50_000 + "</sequence>"
    assert len(read(tmp_path, text)) == 0


def matrices(folder, **texts):
    for name, text in texts.items():
        (folder / f"MVI_1_{name}.txt").write_text(text)
    return folder / "MVI_1_LX.txt"


def test_detrac_matrices(tmp_path):
    path = matrices(tmp_path, LX="10,0\n0,5\n", LY="20,0\n0,0\n", W="30,0\n4,2\n", H="40,0\n1.5,2\n", speed="25")
    got = mot.read(path)
    assert got.frame.tolist() == [1, 2, 2] and got.id.tolist() == [1, 1, 2]
    assert got.box.tolist() == [[10, 20, 30, 40], [0, 0, 4, 1.5], [5, 0, 2, 2]] and got.ignored.shape == (0, 4)
    matrices(tmp_path, IgR="1,2,3,4\n5,6,7,8\n")
    assert mot.read(path, "detrac").ignored.tolist() == [[1, 2, 3, 4], [5, 6, 7, 8]]
    wide = " ".join(["1.5"] * 3000)
    matrices(tmp_path, LX=wide, LY=wide, W=wide, H=wide)
    assert mot.read(path).id.tolist() == list(range(1, 3001))
    matrices(tmp_path, LX="", LY="\n", W="", H="")
    assert len(mot.read(path)) == 0


MATRICES = {
    "ragged": (dict(LX="1,2\n3\n"), r"MVI_1_LX.txt:2: line must have 2 columns as the lines before it, got 1"),
    "no number": (dict(H="1,2\n3,x\n"), r"MVI_1_H.txt:2: column 2 must be a number, got 'x'"),
    "far away": (dict(W="1,2\n1e10,1\n"), r"MVI_1_W.txt:2: numbers must be from -1e\+09 to 1e\+09"),
    "other shape": (dict(LY="1,2\n"), r"MVI_1_LY.txt: must be 2 x 2 as MVI_1_LX.txt, got 1 x 2"),
    "regions of three": (dict(IgR="1,2,3\n"), r"MVI_1_IgR.txt:1: line must have 4 columns, got 3"),
}


@pytest.mark.parametrize("case", MATRICES)
def test_matrices_malformed(tmp_path, case):
    texts, message = MATRICES[case]
    path = matrices(tmp_path, **(dict.fromkeys(("LX", "LY", "W", "H"), "1,2\n3,4\n") | texts))
    with pytest.raises(DataFormatError, match=message):
        mot.read(path)


def test_matrices_are_four(tmp_path):
    with pytest.raises(DataFormatError, match=r"MVI_1_LX.txt: MVI_1_W.txt must lie beside it"):
        mot.read(matrices(tmp_path, LX="1", LY="1"))


# ---- gzip -----------------------------------------------------------------------------------------------


def test_gzip(tmp_path):
    two = gzip.compress(GOOD.encode()) + gzip.compress(b"2" + GOOD.encode()[1:])
    assert read(tmp_path, two, name="seq.txt.gz").frame.tolist() == [1, 2]
    assert len(read(tmp_path, gzip.compress(XML.encode()), name="seq.xml.gz")) == 3
    matrices(tmp_path, LX="1", LY="1", W="1", H="1")
    for plain in list(tmp_path.glob("MVI_*")):
        (tmp_path / f"{plain.name}.gz").write_bytes(gzip.compress(plain.read_bytes()))
        plain.unlink()
    assert len(mot.read(tmp_path / "MVI_1_LX.txt.gz")) == 1


def test_gzip_malformed(tmp_path, monkeypatch):
    whole = gzip.compress(GOOD.encode())
    for data, message in (
        (whole[:-9], "Compressed file ended before the end-of-stream marker"),
        (whole[:-8] + bytes(8), "CRC check failed"),
        (whole[:10] + b"\xff" * 20, "Error -3 while decompressing"),
        (whole + b"garbage", "Not a gzipped file"),
    ):
        with pytest.raises(DataFormatError, match=rf"seq.gz: not a readable gzip file: {message}"):
            read(tmp_path, data, name="seq.gz")
    with pytest.raises(DataFormatError, match=r"seq.gz:1: line must have 7 to 10 columns, got 1"):
        read(tmp_path, gzip.compress(b"x"), name="seq.gz")
    bomb = gzip.compress(bytes(3 << 20))
    with pytest.raises(
        DataFormatError, match=r"seq.gz: must inflate to at most 1000 times its size and 4294967296 bytes"
    ):
        read(tmp_path, bomb + gzip.compress(bytes(5 << 20)) * 3, name="seq.gz")
    monkeypatch.setattr(_bytes, "MAX_INFLATED", 1 << 20)
    with pytest.raises(DataFormatError, match=r"and 1048576 bytes, got \d+ or more from \d+"):
        read(tmp_path, gzip.compress(os.urandom(2 << 20)), name="seq.gz")


# ---- writing --------------------------------------------------------------------------------------------

pixels = st.floats(-1e9, 1e9, allow_nan=False)
finite = st.floats(allow_nan=False, allow_infinity=False)
rows = st.lists(
    st.tuples(
        st.integers(1, 2**31 - 1) | st.integers(1, 3),
        st.integers(-1, 2**53) | st.integers(-1, 3),
        *[pixels] * 4,
        finite,
        st.integers(-(2**53), 2**53),
        finite,
        finite,
        st.integers(-1, 3),
    ),
    max_size=8,
    unique_by=lambda row: row[:2],
)


def side_of(table, ignored=None, **changed):
    columns = list(zip(*table, strict=True)) or [()] * 11
    names = ("score", "class_", "visibility", "truncation", "occlusion")
    more = dict(zip(names, columns[6:], strict=True)) | changed
    return mot.Tracks(columns[0], columns[1], np.array(columns[2:6]).T, **more, ignored=ignored)


@settings(max_examples=60, deadline=None)
@given(rows)
def test_motchallenge_is_read_back(tmp_path_factory, table):
    side = side_of(table, truncation=None, occlusion=None)
    path = tmp_path_factory.mktemp("written") / "seq.txt"
    mot.write(path, side)
    assert_equal(mot.read(path), side)
    assert_equal(mot.read(path, "motchallenge"), side)


@settings(max_examples=60, deadline=None)
@given(rows, st.data())
def test_kitti_is_read_back(tmp_path_factory, table, data):
    n = len(table)
    classes = data.draw(st.lists(st.integers(1, 9), min_size=n, max_size=n))
    side = side_of(table, class_=classes, visibility=None)
    side = side_of(table, class_=classes, visibility=None) if not n else mot.Tracks(
        side.frame - 1,
        np.where(side["class"] == 9, -1, side.id),
        np.round(np.clip(side.box, -1e8, 1e8) * 64) / 64,
        side.score,
        side["class"],
        truncation=side.truncation,
        occlusion=side.occlusion,
    )  # fmt: skip
    path = tmp_path_factory.mktemp("written") / "seq.txt"
    mot.write(path, side, "kitti")
    assert_equal(mot.read(path, "kitti"), side)


@settings(max_examples=60, deadline=None)
@given(rows, st.lists(st.tuples(*[pixels] * 4), max_size=3), st.data())
def test_detrac_is_read_back(tmp_path_factory, table, ignored, data):
    classes = data.draw(st.lists(st.sampled_from([-1, 1, 2, 3, 4]), min_size=len(table), max_size=len(table)))
    side = side_of(table, ignored, class_=classes, score=None, visibility=None, occlusion=None)
    path = tmp_path_factory.mktemp("written") / 'a "b" <&\u00e9.xml'
    mot.write(path, side, "detrac")
    assert_equal(mot.read(path), side, np.argsort(side.frame, kind="stable"))


@settings(max_examples=300, deadline=None)
@given(
    st.binary(max_size=80)
    | st.text("0123456789.,-e \n+naif\tCar<>\r", max_size=80).map(str.encode)
    | st.lists(st.sampled_from(["0 1 Car", " 2.5", ",3", "\n", "<sequence>", "</sequence>", "<frame num='1'>"])).map(
        lambda parts: "".join(parts).encode()
    ),
    st.sampled_from([None, "motchallenge", "kitti", "detrac"]),
)  # fmt: skip
def test_any_file_is_read_or_refused(tmp_path_factory, data, format):
    path = tmp_path_factory.getbasetemp() / "any.txt"
    path.write_bytes(data)
    try:
        assert isinstance(mot.read(path, format), mot.Tracks)
    except DataFormatError as error:
        assert str(error).startswith(f"{path}:")


def test_write_leaves_no_half_file(tmp_path, monkeypatch):
    path = tmp_path / "seq.txt"
    side = mot.Tracks([1], [1], [[0, 0, 10, 10]])
    mot.write(path, side)
    before = path.read_text()
    assert before == "1,1,0,0,10,10,1,-1,-1,-1\n"
    mask = os.umask(0)
    os.umask(mask)
    assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~mask
    with pytest.raises(ValueError, match=r"mot.write: tracks must have frames from 1 in this format, got frame 0"):
        mot.write(path, mot.Tracks([0], [1], [[0, 0, 10, 10]]))
    with pytest.raises(ValueError, match=r"mot.write: tracks must have classes from 1 to 9 in this format, got -1"):
        mot.write(path, side, "kitti")
    with pytest.raises(TypeError, match=r"mot.write: tracks must be Tracks, got list"):
        mot.write(path, [])
    for module in (formats, _detrac_files):
        monkeypatch.setattr(module, "printed", lambda *_, **__: iter([b"1,1,", 0]))
    for format in formats.FORMATS:
        with pytest.raises(TypeError, match=r"bytes-like"):
            mot.write(path, mot.Tracks([1], [1], [[0, 0, 10, 10]], class_=[1]), format)
    assert [p.name for p in tmp_path.iterdir()] == ["seq.txt"] and path.read_text() == before


def test_written_text(tmp_path):
    side = mot.Tracks(
        [2, 1], [5, -1], [[1, 2, 3.5, 4], [-0.0, 0.1, 1e9, 1]], [0.25, 1], [1, 9], truncation=[0.5, -1], occlusion=[2, -1],
        ignored=[[1, 2, 3, 4.5]],
    )  # fmt: skip
    path = tmp_path / "seq.txt"
    mot.write(path, side)
    assert path.read_text() == "2,5,1,2,3.5,4,0.25,1,-1,-1\n1,-1,-0,0.1,1000000000,1,1,9,-1,-1\n"
    mot.write(path, side, "kitti")
    assert path.read_text() == (
        "2 5 Car 0.5 2 -10 1 2 4.5 6 -1 -1 -1 -1000 -1000 -1000 -10 0.25\n"
        "1 -1 DontCare -1 -1 -10 -0 0.1 1000000000 1.1 -1 -1 -1 -1000 -1000 -1000 -10 1\n"
    )
    mot.write(path, side, "detrac")
    assert path.read_text() == (
        '<?xml version="1.0" encoding="utf-8"?>\n<sequence name="seq">\n   <ignored_region>\n'
        '      <box left="1" top="2" width="3" height="4.5"/>\n   </ignored_region>\n'
        '   <frame density="1" num="1">\n      <target_list>\n         <target id="-1">\n'
        '            <box left="-0" top="0.1" width="1000000000" height="1"/>\n'
        '            <attribute truncation_ratio="-1" vehicle_type="unknown"/>\n'
        '         </target>\n      </target_list>\n   </frame>\n   <frame density="1" num="2">\n'
        '      <target_list>\n         <target id="5">\n            <box left="1" top="2" width="3.5" height="4"/>\n'
        '            <attribute truncation_ratio="0.5" vehicle_type="car"/>\n'
        "         </target>\n      </target_list>\n   </frame>\n</sequence>\n"
    )


# ---- Tracks ---------------------------------------------------------------------------------------------


def test_columns_that_are_left_out():
    side = mot.Tracks(
        [1, 1], [1, 2], [[0, 0, 1, 1]] * 2, truncation=[0.5, 1], occlusion=[0, 3.0], ignored=[[0, 0, 5, 5]]
    )
    assert side["truncation"].tolist() == [0.5, 1] and side["occlusion"].tolist() == [0, 3]
    assert side[::-1].occlusion.tolist() == [3, 0] and side[np.array([1])].ignored.tolist() == [[0, 0, 5, 5]]
    assert side[np.array([True, False])].truncation.tolist() == [0.5] and side[:0].ignored.shape == (1, 4)
    bare = mot.Tracks([1, 1], [1, 2], [[0, 0, 1, 1]] * 2)
    assert bare.truncation.tolist() == [-1, -1] and bare.occlusion.tolist() == [-1, -1] and bare.ignored.shape == (0, 4)
    assert [bare[name].dtype.kind for name in COLUMNS] == list("iiffiffi")
    assert_equal(pickle.loads(pickle.dumps(bare))[:], bare)
    assert mot.Tracks([], [], [], ignored=[]).ignored.shape == (0, 4)
    with pytest.raises(ValueError, match=r"Tracks: id must be unique within a frame, got id 1 twice in frame 1"):
        bare[np.array([0, 0])]
    with pytest.raises(ValueError, match=r"Tracks: ignored must have shape \[N, 4\], got \(3,\)"):
        mot.Tracks([1], [1], [[0, 0, 1, 1]], ignored=[1, 2, 3])
    with pytest.raises(ValueError, match=r"Tracks: ignored must be finite, got inf"):
        mot.Tracks([1], [1], [[0, 0, 1, 1]], ignored=[[1, 2, 3, np.inf]])
    with pytest.raises(ValueError, match=r"Tracks: occlusion must be whole numbers, got 0.5"):
        mot.Tracks([1], [1], [[0, 0, 1, 1]], occlusion=[0.5])


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 3) | st.just(2**31 - 1), st.integers(-1, 2) | st.just(2**53))),
    st.sampled_from([None, 0, 1]),
)
def test_repeated_identities_are_found(pairs, by):
    pairs = pairs if by is None else sorted(pairs, key=lambda pair: (pair[by], pair[1 - by]))
    table = np.array(pairs, np.int64).reshape(-1, 2)
    seen, want = {}, None
    for row, pair in enumerate(pairs):
        if pair[1] >= 0 and pair in seen:
            want = seen[pair], row
            break
        seen.setdefault(pair, row)
    assert tracks_module.repeated(table[:, 0], table[:, 1]) == want


# ---- real files -----------------------------------------------------------------------------------------


@needs_shared
def test_all_real_files_are_read_as_by_numpy():
    files = [*SHARED.glob("MOT*/*/*/*.txt"), *SHARED.glob("results/*MOT*/*.txt"), *SHARED.glob("samples/*mot*.csv")]
    assert len(files) > 40
    for path in files:
        got, rows = mot.read(path), np.loadtxt(path, delimiter=",", ndmin=2)
        np.testing.assert_array_equal(got.frame, rows[:, 0])
        np.testing.assert_array_equal(got.id, rows[:, 1])
        np.testing.assert_array_equal(got.box, rows[:, 2:6])
        np.testing.assert_array_equal(got.score, rows[:, 6])


@needs_shared
@pytest.mark.parametrize(
    "path", sorted(SHARED.glob("KITTI/label_02/*")) + sorted(SHARED.glob("results/*KITTI/*")), ids=str
)
def test_real_kitti_files(path, tmp_path):
    got = mot.read(path, "kitti")
    lines = [line.split() for line in path.read_text().splitlines()]
    assert got.frame.tolist() == [int(line[0]) for line in lines]
    assert got["class"].tolist() == [KITTI_CLASSES[line[2]] for line in lines]
    assert got.id.tolist() == [-1 if line[2] == "DontCare" else int(line[1]) for line in lines]
    assert got.truncation.tolist() == [float(line[3]) for line in lines]
    assert got.occlusion.tolist() == [float(line[4]) for line in lines]
    assert got.box.tolist() == [[a, b, c - a, d - b] for a, b, c, d in (map(float, line[6:10]) for line in lines)]
    mot.write(tmp_path / "seq.txt", got, "kitti")
    assert_equal(mot.read(tmp_path / "seq.txt", "kitti"), got)


@needs_shared
def test_real_detrac_files():
    got = mot.read(SHARED / "DETRAC" / "MVI_20011.xml")
    regions = np.loadtxt(SHARED / "DETRAC" / "MVI_20011_IgR.txt", delimiter=",")
    np.testing.assert_array_equal(got.ignored, regions)
    assert got.id.tolist() == [1, 2, 1, 2, 3] and got.truncation.tolist() == [0.1, 0, 0.2, 0, 0]
    sample = mot.read(SHARED / "samples" / "ua_detrac_sample.xml")
    assert len(sample) == 8 and sample["class"].tolist() == [1] * 8 and sample.frame.max() == 800


@needs_shared
def test_real_folders():
    assert {s.name: s.length for s in find(SHARED / "MOT20", "gt").values()} == {"MOT20-01": 429}
    assert len(find(SHARED / "MOT17-yolox", "gt")) == 7 and len(find(SHARED / "MOT15", "gt")) == 11
    lengths = {"0000": 154, "0006": 270, "0012": 78, "0014": 106, "0017": 145}
    for path in (SHARED / "KITTI", SHARED / "KITTI" / "label_02"):
        assert {s.name: s.length for s in find(path, "gt").values()} == lengths
    assert list(find(SHARED / "results" / "SORT-KITTI", "pred")) == sorted(lengths)
    assert find(SHARED / "KITTI" / "label_02" / "0006.txt", "gt")["0006"].length == 270
    assert list(find(SHARED / "DETRAC", "gt")) == ["MVI_20011"]


# ---- folders and archives -------------------------------------------------------------------------------

INFO = "[Sequence]\nname=A\nseqLength=7\n"
KITTI = CAR + "\n"

LAYOUTS = {  # (files, side, {sequence: (file, length)})
    "MOTChallenge": (
        {"A/gt/gt.txt": GOOD, "A/seqinfo.ini": INFO, "A/det/det.txt": GOOD, "B/gt/gt.txt": GOOD, "README.txt": "x", "seqmap.txt": "name"},
        "gt",
        {"A": ("A/gt/gt.txt", 7), "B": ("B/gt/gt.txt", None)},
    ),
    "one sequence of MOTChallenge": ({"gt/gt.txt": GOOD, "seqinfo.ini": INFO, "img1/1.jpg": ""}, "gt", {"top": ("gt/gt.txt", 7)}),
    "flat files": ({"B.txt": GOOD, "A.txt.gz": gzip.compress(GOOD.encode()), ".hidden.txt": "x"}, "gt", {"A": ("A.txt.gz", None), "B": ("B.txt", None)}),
    "KITTI": (
        {"label_02/0000.txt": KITTI, "evaluate_tracking.seqmap.training": "0000 empty 000000 000154\n", "evaluate_tracking.seqmap": "0000 empty 0 9\n",
         "evaluate_tracking.seqmap.test": "0000 empty 000000 000465\n", "image_02/0000/0.png": ""},
        "gt",
        {"0000": ("label_02/0000.txt", 154)},
    ),
    "KITTI as downloaded": (
        {"training/label_02/0000.txt": KITTI, "training/calib/0000.txt": "x", "training/evaluate_tracking.seqmap.val": "0000 empty 000000 000154\r\n"},
        "gt",
        {"0000": ("training/label_02/0000.txt", 154)},
    ),
    "seqmap beside": ({"1.txt": KITTI, "evaluate_tracking.seqmap": "1 empty 0 5\n"}, "gt", {"1": ("1.txt", 5)}),
    "DETRAC": ({"MVI_1.xml": XML, "MVI_2.xml": XML, "MVI_1_IgR.txt": "1,1,1,1"}, "gt", {"MVI_1": ("MVI_1.xml", None), "MVI_2": ("MVI_2.xml", None)}),
    "DETRAC's matrices": ({f"MVI_1_{n}.txt": "1,2\n" for n in ("LX", "LY", "W", "H", "speed")}, "pred", {"MVI_1": ("MVI_1_LX.txt", None)}),
    "predictions": ({"A.txt": GOOD, "LICENSE.txt": "x", "pedestrian_summary.txt": "x"}, "pred", {"A": ("A.txt", None)}),
    "predictions of TrackEval": ({"data/A.txt": GOOD, "pedestrian_detailed.csv": "x", "junk.txt": "x"}, "pred", {"A": ("data/A.txt", None)}),
    "ground truth as predictions": ({"A/gt/gt.txt": GOOD, "A/seqinfo.ini": INFO}, "pred", {"A": ("A/gt/gt.txt", None)}),
    "one folder around": ({"train/A/gt/gt.txt": GOOD, "train/B/gt/gt.txt": GOOD, "__MACOSX/x.txt": "x"}, "gt", {"A": ("train/A/gt/gt.txt", None), "B": ("train/B/gt/gt.txt", None)}),
    "one folder around predictions": ({"tracker/data/A.txt": GOOD, ".DS_Store": "x"}, "pred", {"A": ("tracker/data/A.txt", None)}),
}  # fmt: skip


def lay(folder, files):
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    return folder


def pack(path, files):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return path


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts(tmp_path, layout):
    files, side, want = LAYOUTS[layout]
    folder = lay(tmp_path / "top", files)
    found = find(folder, side)
    assert found == {
        name: Source(name, str(folder / file), None, None, length) for name, (file, length) in want.items()
    }
    archive = pack(tmp_path / "top.zip", files)
    packed = find(str(archive), side)
    assert packed == {name: Source(name, str(archive), file, None, length) for name, (file, length) in want.items()}
    for name, source in found.items():
        assert_equal(pickle.loads(pickle.dumps(packed[name])).read(), source.read())


def test_single_files(tmp_path, monkeypatch):
    lay(
        tmp_path,
        {
            "A/gt/gt.txt": GOOD,
            "A/seqinfo.ini": INFO,
            "0001.txt": KITTI,
            "x_LX.txt": "1",
            "b.xml.gz": XML,
            "c.csv": GOOD,
        },
    )
    assert find(tmp_path / "A" / "gt" / "gt.txt", "gt") == {
        "A": Source("A", str(tmp_path / "A/gt/gt.txt"), None, None, 7)
    }
    assert find(tmp_path / "A" / "gt" / "gt.txt", "pred")["A"].length is None
    assert find(tmp_path / "0001.txt", "gt", "kitti")["0001"].format == "kitti"
    assert [
        *find(tmp_path / "x_LX.txt", "pred"),
        *find(tmp_path / "b.xml.gz", "gt"),
        *find(tmp_path / "c.csv", "gt"),
    ] == ["x", "b", "c"]
    monkeypatch.chdir(tmp_path)
    assert find("0001.txt", "gt")["0001"].read().frame.tolist() == [0]


def test_errors_name_the_member(tmp_path):
    archive = pack(tmp_path / "a.zip", {"A.txt": GOOD + "x"})
    with pytest.raises(DataFormatError, match=r"a.zip/A.txt:2: line must have 7 to 10 columns, got 1"):
        find(archive, "gt")["A"].read()
    with pytest.raises(DataFormatError, match=r"a.zip: a zip archive holds files of several sequences"):
        mot.read(archive)


NOTHING = {  # (files, side, what the error says was seen)
    "hidden files": ({"x/.keep": ""}, "gt", ".keep in x"),
    "detections are not ground truth": ({"A/det/det.txt": GOOD, "B/det/det.txt": GOOD}, "gt", "A/, B/"),
    "detections of one sequence": ({"A/det/det.txt": GOOD}, "gt", "det.txt in A/det"),
    "images": ({f"{i}.jpg": "" for i in range(20)}, "pred", "0.jpg, 1.jpg, 10.jpg, 11.jpg, 12.jpg, 13.jpg, 14.jpg, 15.jpg and 12 more"),
    "other text": ({"README.txt": "x", "seqmap.txt": "x"}, "pred", "README.txt, seqmap.txt"),
    "too deep": ({"a/b/c/d/e/A.txt": GOOD}, "pred", "e/ in a/b/c/d"),
}  # fmt: skip


@pytest.mark.parametrize("case", NOTHING)
def test_nothing_found(tmp_path, case):
    files, side, seen = NOTHING[case]
    for path in (lay(tmp_path / "top", files), pack(tmp_path / "top.zip", files)):
        with pytest.raises(DataFormatError) as caught:
            find(path, side)
        looked = "<seq>/gt/gt.txt, <seq>.txt" if side == "gt" else "<seq>.txt, data/<seq>.txt"
        text = str(caught.value)
        assert text.startswith(f"{path}: must hold ") and looked in text
        assert text.endswith(f"got {seen}")


def test_wrong_arguments_and_folders(tmp_path):
    with pytest.raises(ValueError, match=r"sequences.find: side must be one of 'gt', 'pred', got 'x'"):
        find(tmp_path, "x")
    with pytest.raises(ValueError, match=r"sequences.find: format must be one of 'motchallenge'.* got 'x'"):
        find(tmp_path, "gt", "x")
    with pytest.raises(FileNotFoundError):
        find(tmp_path / "missing", "gt")
    with pytest.raises(DataFormatError, match=r"must hold ground truth as .*, got nothing$"):
        find(tmp_path, "gt")
    lay(tmp_path, {"A.txt": GOOD, "A.xml": XML})
    with pytest.raises(DataFormatError, match=r"a sequence must have one file, got A.txt and A.xml"):
        find(tmp_path, "gt")


@pytest.mark.parametrize("length", ["", "x", "-5", "1.5", "99999999999"])
def test_wrong_lengths(tmp_path, length):
    lay(tmp_path, {"A/gt/gt.txt": GOOD, "A/seqinfo.ini": f"[Sequence]\r\nseqLength = {length}\r\n"})
    with pytest.raises(
        DataFormatError, match=r"seqinfo.ini:2: seqLength must be a whole number from 0 to 2147483647, got"
    ):
        find(tmp_path, "gt")


def test_links_in_circles(tmp_path):
    lay(tmp_path, {"a/x.md": ""})
    (tmp_path / "a" / "a").symlink_to(tmp_path / "a")
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(DataFormatError, match=r"must hold predictions as"):
        find(tmp_path / "a", "pred")
    with pytest.raises(OSError, match=r"symbolic links"):
        find(tmp_path / "loop", "pred")
    (tmp_path / "a" / "A.txt").write_text(GOOD)
    (tmp_path / "linked").symlink_to(tmp_path / "a")
    assert list(find(tmp_path / "linked", "pred")) == ["A"]


def encrypted(data):
    """The archive's bytes with the flags of encryption set, in both headers."""
    data = bytearray(data)
    data[6] |= 1
    data[data.index(b"PK\1\2") + 8] |= 1
    return bytes(data)


def packed(files, **options):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", **options) as archive:
        for name, text in files.items():
            archive.writestr(zipfile.ZipInfo(name) if not options else name, text)
    return out.getvalue()


DEFLATED = {"compression": zipfile.ZIP_DEFLATED}
ZIPS = {
    "name that climbs": (packed({"../A.txt": GOOD}), r"a.zip: names in an archive must stay inside it, got '../A.txt'"),
    "name that climbs later": (
        packed({"A.txt": GOOD, "x/../../B.png": ""}),
        r"a.zip: names in an archive must stay inside",
    ),
    "absolute name": (
        packed({"/etc/A.txt": GOOD}),
        r"a.zip: names in an archive must stay inside it, got '/etc/A.txt'",
    ),
    "drive": (packed({"C:/A.txt": GOOD}), r"a.zip: names in an archive must stay inside it, got 'C:/A.txt'"),
    "backslashes": (packed({"..\\A.txt": GOOD}), r"a.zip: names in an archive must stay inside it"),
    "encrypted": (encrypted(packed({"A.txt": GOOD})), r"a.zip/A.txt: a member must not be encrypted"),
    "bomb": (
        packed({"A.txt": bytes(8 << 20)}, **DEFLATED),
        r"a.zip/A.txt: must inflate to at most 1000 times its size",
    ),
    "bomb in a gzip file": (
        packed({"A.txt": gzip.compress(bytes(8 << 20))}),
        r"a.zip/A.txt: must inflate to at most 1000",
    ),
    "other method": (
        packed({"A.txt": GOOD}, compression=zipfile.ZIP_BZIP2),
        r"a.zip/A.txt: a member must be stored or",
    ),
    "cut off": (packed({"A.txt": GOOD * 99})[:-30], r"a.zip: not a readable zip archive: File is not a zip file"),
    "other sum": (packed({"A.txt": GOOD}).replace(b"9,9", b"8,9"), r"a.zip: not a readable zip archive: Bad CRC-32"),
    "magic alone": (b"PK\3\4" + bytes(50), r"a.zip: not a readable zip archive: File is not a zip file"),
    "empty": (packed({}), r"a.zip: must hold predictions as .* got nothing"),
    "malformed": (packed({"A.txt": "1,2,3"}), r"a.zip/A.txt:1: line must have 7 to 10 columns, got 3"),
}


@pytest.mark.parametrize("case", ZIPS)
def test_archives_malformed(tmp_path, case):
    data, message = ZIPS[case]
    (tmp_path / "a.zip").write_bytes(data)
    with pytest.raises(DataFormatError, match=message):
        find(tmp_path / "a.zip", "pred")["A"].read()


def test_archives_are_limited(tmp_path, monkeypatch):
    monkeypatch.setattr(_bytes, "MAX_INFLATED", 1 << 20)
    (tmp_path / "a.zip").write_bytes(packed({"A.txt": os.urandom(2 << 20)}))
    with pytest.raises(
        DataFormatError, match=r"a.zip/A.txt: must inflate to at most 1000 times its size and 1048576 bytes"
    ):
        find(tmp_path / "a.zip", "pred")["A"].read()


def test_layouts_cost_few_looks(tmp_path, monkeypatch):
    """Image folders are not listed."""
    lay(tmp_path, {"A/gt/gt.txt": GOOD, "A/img1/1.jpg": "", "B/gt/gt.txt": GOOD, "B/img1/1.jpg": ""})
    seen = []
    scandir = os.scandir
    monkeypatch.setattr(sequences.os, "scandir", lambda path: seen.append(str(path)) or scandir(path))
    find(tmp_path, "gt")
    assert not [path for path in seen if "img1" in path]


def test_kitti_boxes_keep_their_right_and_bottom(tmp_path):
    rng = np.random.default_rng(0)
    low = rng.integers(0, 13000, (4000, 2)) / 10
    high = low + rng.integers(1, 4000, low.shape) / 10
    rows = [
        f"{k} 1 Car 0 0 -10 {a:.1f} {b:.1f} {c:.1f} {d:.1f} -1 -1 -1 -1000 -1000 -1000 -10"
        for k, (a, b, c, d) in enumerate(np.column_stack([low, high]).tolist())
    ]
    path = tmp_path / "0000.txt"
    path.write_text("\n".join(rows))
    tracks = mot.read(path)
    want = [[float(f"{x:.1f}") for x in pair] for pair in high.tolist()]
    np.testing.assert_array_equal(tracks.corner, want)
    np.testing.assert_array_equal(tracks[::2].corners()[:, 2:], want[::2])
    mot.write(path, tracks, "kitti")
    np.testing.assert_array_equal(mot.read(path).corner, want)


def test_kitti_overlaps_are_those_of_the_corners(tmp_path):
    line = "0 1 Car 0 0 -10 {} 5.1 {} 35.2 -1 -1 -1 -1000 -1000 -1000 -10\n"
    (tmp_path / "gt.txt").write_text(line.format(7.9, 25.7))
    (tmp_path / "pred.txt").write_text(line.format(16.8, 25.7))
    report = mot.evaluate(tmp_path / "gt.txt", tmp_path / "pred.txt", benchmark="KITTI")
    assert report.combined["car"]["IDTP"] == report.combined["car"]["CLR_TP"] == 1  # an overlap of exactly one half
