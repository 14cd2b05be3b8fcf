"""Every public function against every kind of bad input: the class of the error, its words, and no harm done.

`bad_input.py` has a row for each function. Each test here makes all calls of one kind of one row: an array that is
none, of a wrong dtype, number of dimensions or size, on another device, with an empty dimension, with NaN, of an odd
memory layout; a parameter of a wrong type or out of range. What must be refused is refused with a TypeError or
ValueError that names the operator, the argument, what it must be and what came; what is legal has the result that
a plain contiguous copy has, and leaves its inputs alone.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import enum
import inspect
import math
import re
import types
import warnings
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import pytest

import cv3gpu
from cv3gpu import _array
from tests.bad_input import BOTH, ROWS, Array, Flag, Made, Real, Row, Typed, Whole, Word, find
from tests.tolerance import bound

torch = pytest.importorskip("torch")

pytestmark = pytest.mark.filterwarnings("ignore::cv3gpu.errors.ConvergenceWarning")

LEAST_CASES = 600  # the project's own figure
HUGE = 10**30
LONG = 10**5000  # more digits than Python makes text of

# What a dtype check is given, by the kind of dtype.
OTHERS = {"f": "float32", "i": "int64", "u": "uint8", "b": "bool", "c": "complex64"}


class Case(NamedTuple):
    """One call: its words, its arguments, which argument is wrong, and what must come of it."""

    text: str
    arguments: dict[str, Any]
    at: str
    expects: str  # "refused", "same" (as `plain`), "same or refused", "result", or "either"
    plain: dict[str, Any] | None = None


# ---- calls of a row -------------------------------------------------------------------------------------


def to_library(values: np.ndarray[Any, Any], library: str) -> Any:
    found = np.array(values)
    return found if library == "numpy" else torch.from_numpy(found)


def places(row: Row) -> Iterator[tuple[str, int | None, Array]]:
    """Every array of a row: its argument, and its place in it where that is a list."""
    for name, given in row.arguments.items():
        if isinstance(given, Array):
            yield name, None, given
        elif isinstance(given, list):
            yield from ((name, i, element) for i, element in enumerate(given) if isinstance(element, Array))


def base(row: Row, library: str) -> dict[str, Any]:
    """The arguments of the valid call."""

    def made(given: Any) -> Any:
        if isinstance(given, Array):
            return to_library(given.values, library)
        if isinstance(given, Made):
            return given.of(lambda values: to_library(np.asarray(values), library))
        if isinstance(given, Typed):
            return given.value()
        return [made(element) for element in given] if isinstance(given, list) else given

    return {name: made(given) for name, given in row.arguments.items()}


def put(arguments: dict[str, Any], name: str, index: int | None, value: Any) -> dict[str, Any]:
    """The arguments with one array replaced."""
    changed = {k: list(v) if isinstance(v, list) else v for k, v in arguments.items()}
    if index is None:
        changed[name] = value
    else:
        changed[name][index] = value
    return changed


def own(arguments: dict[str, Any], name: str, index: int | None) -> Any:
    return arguments[name] if index is None else arguments[name][index]


def leaves(x: Any) -> list[Any]:
    """What a result or an argument consists of: arrays as NumPy's, numbers, words."""
    if x is None or isinstance(x, str | bytes | int | float | complex | np.generic | enum.Enum):
        return [x]
    if _array.family(x) is not None:
        if getattr(x, "is_sparse_csr", False):
            return leaves(x.to_dense())
        if _array.device_of(x) == "meta":
            return [repr(x)]
        return [x.detach().cpu().numpy() if _array.family(x) == "torch" else x]
    if isinstance(x, dict):
        return [leaf for key in x for leaf in [key, *leaves(x[key])]]
    if isinstance(x, tuple | list):
        return [leaf for part in x for leaf in leaves(part)]
    if hasattr(x, "tocsr"):
        matrix = x.tocsr()
        return leaves(matrix if _array.family(matrix) else matrix.toarray())
    if dataclasses.is_dataclass(x):
        return [leaf for field in dataclasses.fields(x) for leaf in leaves(getattr(x, field.name))]
    return [repr(type(x))]


def _close(x: Any, y: Any) -> bool:
    """Whether two floats differ by the rounding of some sums at most."""
    if x.dtype.kind != "f":
        return False
    reference = y.astype(np.float64)
    scale = np.abs(reference[np.isfinite(reference)]).max(initial=0)
    off = np.abs(x.astype(np.float64) - reference) > bound(reference, str(x.dtype), terms=64, scale=scale)
    return bool(np.array_equal(np.isnan(x), np.isnan(y)) and not off.any())


def equal(a: Any, b: Any, close: bool = False) -> bool:
    """Whether two results are the same to the bit, or ``close``; NaN is NaN."""
    first, second = leaves(a), leaves(b)
    if len(first) != len(second):
        return False
    for x, y in zip(first, second, strict=True):
        if isinstance(x, np.ndarray) or isinstance(y, np.ndarray):
            x, y = np.asarray(x), np.asarray(y)
            if x.shape != y.shape or x.dtype != y.dtype:
                return False
            if not np.array_equal(x, y, equal_nan=x.dtype.kind in "fc") and not (close and _close(x, y)):
                return False
        elif x != y and not (x != x and y != y) and not (close and _close(np.float64(x), np.float64(y))):
            return False
    return True


def outcome(row: Row, arguments: dict[str, Any]) -> Any:
    """The result, or the error."""
    with warnings.catch_warnings(), np.errstate(all="ignore"), contextlib.suppress(StopIteration):
        warnings.simplefilter("ignore")
        try:
            return row.function(**arguments)
        except Exception as error:
            return error
    return None


def fault(row: Row, case: Case, error: BaseException) -> str:
    """What is wrong with a refusal, or nothing."""
    text = str(error)
    if type(error) not in (TypeError, ValueError) and not isinstance(error, TypeError | ValueError):
        return f"{type(error).__name__}: {text[:300]}"
    names = {row.op, row.name.partition("#")[0].split(".")[-1], *CALLS.get(row.name, ())}
    if not any(re.match(rf"(\w+\.)*{re.escape(name)}( @ x)?: ", text) for name in names):
        return f"does not name {row.op}: {type(error).__name__}: {text[:300]}"
    named = (
        [case.at] if case.at in row.options else [*row.arguments, "all arrays", "capacities"]
    )  # of two that don't fit
    if not any(re.search(rf"\b{re.escape(name)}\b", text) for name in named):
        return f"does not name {case.at}: {text[:300]}"
    if not re.search(r"\bmust (not )?\w+|has no gradient", text) or ", got " not in text:
        return f"does not say what must be and what came: {text[:300]}"
    return ""


def check(row: Row, case: Case) -> str:
    """What is wrong with the outcome of a case, or nothing."""
    before = copy.deepcopy({k: leaves(v) for k, v in case.arguments.items()})
    found = outcome(row, case.arguments)
    changed = [k for k, v in case.arguments.items() if not equal(leaves(v), before[k])]
    if changed and row.name not in WRITES:
        return f"{case.text}: changed {', '.join(changed)}"
    said = ""
    if case.expects == "refused":
        said = fault(row, case, found) if isinstance(found, Exception) else f"was taken, giving {_short(found)}"
    elif case.expects == "result":
        said = f"{type(found).__name__}: {found}" if isinstance(found, Exception) else ""
    elif case.expects == "either":
        said = fault(row, case, found) if isinstance(found, Exception) else ""
    else:
        assert case.plain is not None
        wanted = outcome(row, case.plain)
        if (case.expects == "same or refused" or row.name in WRITES) and isinstance(found, Exception):
            return f"{case.text}: {said}" if (said := fault(row, case, found)) else ""
        if isinstance(found, Exception) or isinstance(wanted, Exception):
            if type(found) is not type(wanted):
                said = f"gives {_short(found)}, and a plain copy {_short(wanted)}"
            else:
                said = fault(row, case, found)
        elif not equal(found, wanted, close=row.name in CLOSE):
            said = f"gives {_short(found)}, and a plain copy {_short(wanted)}"
    return f"{case.text}: {said}" if said else ""


def _short(x: Any) -> str:
    return repr(x).replace("\n", " ")[:200]


WRITES = {"densecrf.DenseCRF.stepInference"}  # in place, as pydensecrf's: what cannot be written is refused

# Another layout takes another way through BLAS, which adds in another order.
CLOSE = {"pyramid_conv2d", "checkerboard.harmonic_share", "aspp_vjp", "message.node_step"}

# What an operator says for another that it calls, and an array-like argument.
CALLS = {
    "normalized_cut": ("pixel_affinity",),
    "nn.DenseCRF": ("dense_crf",),
    "nn.refine": ("dense_crf", "interpolate"),
    "nn.PyramidHead": ("pyramid_maps",),
    "nn.models.unet#call": ("conv2d",),
    "nn.PyramidHead#made": ("PyramidPooling",),
}

# Takes labels of any library, as its result is a number, and affinities need not be of one.
MIXES = {"ncut_value"}

# ---- the kinds ------------------------------------------------------------------------------------------

Kind = Callable[[Row], Iterator[Case]]
KINDS: dict[str, Kind] = {}


def kind(name: str) -> Callable[[Kind], Kind]:
    def add(function: Kind) -> Kind:
        KINDS[name] = function
        return function

    return add


Maker = Callable[[Array, Any, str], Iterator[tuple[str, Any, str]]]


def each_array(row: Row, change: Maker, plain: bool = False) -> Iterator[Case]:
    """A case for each library, each array of the row, and each thing that ``change`` makes of the array."""
    for library in row.libraries:
        arguments = base(row, library)
        for name, index, array in places(row):
            x = own(arguments, name, index)
            for text, value, expects in change(array, x, library):
                where = name if index is None else f"{name}[{index}]"
                changed = put(arguments, name, index, value)
                copied = put(arguments, name, index, _plain(value)) if expects.startswith("same") else None
                yield Case(f"{library} {where} {text}", changed, name, expects, copied)


def _plain(x: Any) -> Any:
    """A contiguous copy."""
    if _array.family(x) == "torch":
        return x.detach().contiguous().clone()
    return np.array(x, order="C")


@kind("no array")
def _no_array(row: Row) -> Iterator[Case]:
    def change(array: Array, x: Any, library: str) -> Iterator[tuple[str, Any, str]]:
        for wrong in (
            object(),
            "array",
            3.5,
            {"a": 1},
            np.ma.masked_array(array.values),
            *([] if array.optional else [None]),
        ):
            yield type(wrong).__name__, wrong, "refused"

    return each_array(row, change)


@kind("another type")
def _another_type(row: Row) -> Iterator[Case]:
    for library in row.libraries:
        arguments = base(row, library)
        for name, given in row.arguments.items():
            if isinstance(given, Typed):
                for wrong in (object(), 3.5, [1, 2], {1}, np.zeros(3)):
                    yield Case(f"{name} is {type(wrong).__name__}", arguments | {name: wrong}, name, "refused")


@kind("list")
def _list(row: Row) -> Iterator[Case]:
    return each_array(
        row,
        lambda array, x, library: iter(
            [("list", array.values.tolist(), "result" if row.array_like else "refused")] if array.values.ndim else []
        ),
    )


def _ndim(array: Array, ndim: int) -> str:
    return "either" if ndim in array.ndims else "refused"


@kind("0-d")
def _zero_d(row: Row) -> Iterator[Case]:
    def change(array: Array, x: Any, library: str) -> Iterator[tuple[str, Any, str]]:
        if array.values.ndim:
            yield "0-d", to_library(np.array(array.values.flat[0]), library), _ndim(array, 0)

    return each_array(row, change)


@kind("fewer dimensions")
def _fewer(row: Row) -> Iterator[Case]:
    def change(array: Array, x: Any, library: str) -> Iterator[tuple[str, Any, str]]:
        if array.values.ndim > 1:
            yield "fewer", x[0], _ndim(array, array.values.ndim - 1)

    return each_array(row, change)


@kind("more dimensions")
def _more(row: Row) -> Iterator[Case]:
    def change(array: Array, x: Any, library: str) -> Iterator[tuple[str, Any, str]]:
        yield "one more", x[None], _ndim(array, array.values.ndim + 1)
        yield "three more", x[None, None, None], _ndim(array, array.values.ndim + 3)

    return each_array(row, change)


@kind("wrong dtype")
def _wrong_dtype(row: Row) -> Iterator[Case]:
    def change(array: Array, x: Any, library: str) -> Iterator[tuple[str, Any, str]]:
        for letter in "fiu":
            if letter not in array.takes:
                yield OTHERS[letter], to_library(array.values.astype(OTHERS[letter]), library), "refused"
        if library == "numpy" and "*" not in array.takes:
            for odd in ("object", "U3", "M8[s]", "V4"):
                yield odd, np.zeros(array.values.shape, odd), "refused"

    return each_array(row, change)


def _of_kind(letter: str) -> Maker:
    def change(array: Array, x: Any, library: str) -> Iterator[tuple[str, Any, str]]:
        if letter not in array.takes:
            yield OTHERS[letter], to_library(array.values.astype(OTHERS[letter]), library), "refused"

    return change


@kind("complex")
def _complex(row: Row) -> Iterator[Case]:
    return each_array(row, _of_kind("c"))


@kind("bool")
def _bool(row: Row) -> Iterator[Case]:
    return each_array(row, _of_kind("b"))


@kind("big-endian")
def _big_endian(row: Row) -> Iterator[Case]:
    def change(array: Array, x: Any, library: str) -> Iterator[tuple[str, Any, str]]:
        if library == "numpy" and array.values.dtype.itemsize > 1:
            yield (
                ">",
                array.values.astype(array.values.dtype.newbyteorder(">")),
                "either" if row.array_like else "refused",
            )

    return each_array(row, change)


@kind("mixed libraries")
def _mixed_libraries(row: Row) -> Iterator[Case]:
    several = len(list(places(row))) + sum(isinstance(x, Made) for x in row.arguments.values()) > 1

    def change(array: Array, x: Any, library: str) -> Iterator[tuple[str, Any, str]]:
        if several:
            other = to_library(array.values, "torch" if library == "numpy" else "numpy")
            yield "of the other library", other, "result" if row.name in MIXES else "refused"

    return each_array(row, change) if len(row.libraries) > 1 else iter(())


@kind("mixed devices")
def _mixed_devices(row: Row) -> Iterator[Case]:
    several = len(list(places(row))) > 1

    def change(array: Array, x: Any, library: str) -> Iterator[tuple[str, Any, str]]:
        if library == "torch":
            yield "on meta", x.to("meta"), "refused" if several else "either"

    return each_array(row, change)


@kind("shape mismatch")
def _shape_mismatch(row: Row) -> Iterator[Case]:
    def change(array: Array, x: Any, library: str) -> Iterator[tuple[str, Any, str]]:
        for axis, fits in enumerate(array.fits):
            larger = np.concatenate([array.values, array.values.take([-1], axis)], axis)
            yield f"axis {axis} longer", to_library(larger, library), "refused" if fits == "=" else "either"

    return each_array(row, change)


@kind("empty dimension")
def _empty_dimension(row: Row) -> Iterator[Case]:
    def change(array: Array, x: Any, library: str) -> Iterator[tuple[str, Any, str]]:
        for axis, empty in enumerate(array.empty):
            none = array.values.take([], axis)
            yield f"axis {axis} of size 0", to_library(none, library), "result" if empty == "0" else "refused"

    return each_array(row, change)


def _with(value: float) -> Maker:
    def change(array: Array, x: Any, library: str) -> Iterator[tuple[str, Any, str]]:
        if array.values.dtype.kind == "f":
            for at in (0, slice(None)):
                odd = array.values.copy().reshape(-1)
                odd[at] = value
                yield (
                    f"with {value} at {at}",
                    to_library(odd.reshape(array.values.shape), library),
                    (
                        "refused"
                        if array.odd == "refused" or (array.odd == "nan" and math.isnan(value))
                        else "either"
                        if array.odd == "nan"
                        else "result"
                    ),
                )

    return change


@kind("NaN")
def _nan(row: Row) -> Iterator[Case]:
    return each_array(row, _with(math.nan))


@kind("infinity")
def _infinity(row: Row) -> Iterator[Case]:
    yield from each_array(row, _with(math.inf))
    yield from each_array(row, _with(-math.inf))


@kind("denormal")
def _denormal(row: Row) -> Iterator[Case]:
    def change(array: Array, x: Any, library: str) -> Iterator[tuple[str, Any, str]]:
        if array.values.dtype.kind == "f":
            yield "of denormal numbers", to_library(array.values * np.float32(1e-40), library), "either"

    return each_array(row, change)


@kind("wild integers")
def _wild(row: Row) -> Iterator[Case]:
    def change(array: Array, x: Any, library: str) -> Iterator[tuple[str, Any, str]]:
        if array.values.dtype.kind == "i":
            for value in (-5, 10**9, 2**62, -(2**63)):
                wild = array.values.copy()
                wild.reshape(-1)[wild.size // 2] = value
                yield f"with {value}", to_library(wild, library), "refused" if array.wild == "refused" else "either"

    return each_array(row, change)


# ---- legal memory layouts: the result of a plain copy -----------------------------------------------------


def _layout(
    name: str, make: Callable[[Any], Any], least: int = 1, numpy_alone: bool = False, expects: str = "same"
) -> None:
    def change(array: Array, x: Any, library: str) -> Iterator[tuple[str, Any, str]]:
        if array.values.ndim >= least and not (numpy_alone and library == "torch"):
            yield name, make(x), expects

    KINDS[name] = lambda row: each_array(row, change)


def _transposed(x: Any) -> Any:
    return _plain(x.swapaxes(-1, -2)).swapaxes(-1, -2)


def _step_slice(x: Any) -> Any:
    wide = np.zeros((*x.shape[:-1], 2 * x.shape[-1]), _plain(x).dtype if isinstance(x, np.ndarray) else x.numpy().dtype)
    wide[..., ::2] = x if isinstance(x, np.ndarray) else x.numpy()
    return wide[..., ::2] if isinstance(x, np.ndarray) else torch.from_numpy(wide)[..., ::2]


def _fortran(x: Any) -> Any:
    return (
        _plain(x.T).T
        if isinstance(x, np.ndarray)
        else _plain(x.permute(*range(x.ndim)[::-1])).permute(*range(x.ndim)[::-1])
    )


def _one_repeated(x: Any) -> Any:
    return np.broadcast_to(x[:1], x.shape) if isinstance(x, np.ndarray) else x[:1].expand(x.shape)


def _read_only(x: Any) -> Any:
    x = x.copy()
    x.flags.writeable = False
    return x


def _unaligned(x: Any) -> Any:
    memory = np.zeros(x.nbytes + 1, np.uint8)
    view = memory[1:].view(x.dtype).reshape(x.shape) if x.size else x
    view[...] = x
    return view


_layout("transposed", _transposed, 2)
_layout("step slice", _step_slice)
_layout("negative stride", lambda x: x[..., ::-1].copy()[..., ::-1], 1, numpy_alone=True)
_layout("stride 0", _one_repeated)
_layout("Fortran order", _fortran, 2)
_layout("read-only", _read_only, 0, numpy_alone=True)
_layout("unaligned", _unaligned, 1, numpy_alone=True, expects="same or refused")


@kind("aliasing")
def _aliasing(row: Row) -> Iterator[Case]:
    """One array for every argument that may take it."""
    found = list(places(row))
    for library in row.libraries:
        arguments = base(row, library)
        for k, (name, index, array) in enumerate(found):
            for other, at, second in found[k + 1 :]:
                if array.values.shape == second.values.shape and array.values.dtype == second.values.dtype:
                    x = own(arguments, name, index)
                    yield Case(
                        f"{library} {name} as {other}", put(arguments, other, at, x), "", "same",
                        put(arguments, other, at, _plain(x)),
                    )  # fmt: skip


@kind("requires grad")
def _requires_grad(row: Row) -> Iterator[Case]:
    def change(array: Array, x: Any, library: str) -> Iterator[tuple[str, Any, str]]:
        if library == "torch" and array.values.dtype.kind == "f":
            yield "requires grad", x.clone().requires_grad_(), "same"

    return each_array(row, change)


# ---- parameters -------------------------------------------------------------------------------------------


def each_option(row: Row, values: Callable[[Any], Iterator[Any]]) -> Iterator[Case]:
    for library in row.libraries:
        arguments = base(row, library)
        for name, option in row.options.items():
            for value in values(option):
                long = isinstance(value, int) and value.bit_length() > 200
                text = f"{library} {name}={f'a number of {value.bit_length()} bits' if long else repr(value)}"
                yield Case(text, arguments | {name: value}, name, "refused")


@kind("parameter of another type")
def _parameter_type(row: Row) -> Iterator[Case]:
    def values(option: Any) -> Iterator[Any]:
        if not option.optional:
            yield None
        yield object
        if isinstance(option, Flag):
            yield from (1, "yes", 0.0, [True])
        elif isinstance(option, Word):
            yield from (3, "nonsense", [[]], b"zeros")
        elif isinstance(option, Whole):
            yield from (
                1.5,
                "3x",
                2 + 1j,
                True,
                {1: 2},
                *([(1, 1, 1, 1, 1), (1.5, 1), ("a", 1)] if option.pair else [(1, 1)]),
            )
        elif isinstance(option, Real):
            yield from ("3x", 2 + 1j, True, {1: 2})

    return each_option(row, values)


@kind("parameter out of range")
def _parameter_range(row: Row) -> Iterator[Case]:
    def values(option: Any) -> Iterator[Any]:
        if isinstance(option, Whole) and option.least is not None:
            yield option.least - 1
            yield -(10**6)
            if option.pair:
                yield (option.least, option.least - 1)
        elif isinstance(option, Whole):
            yield from (-(2**70),)
        elif isinstance(option, Real):
            yield from (*option.refuses, math.nan, math.inf, -math.inf)
        if isinstance(option, Whole) and option.most is not None:
            yield option.most + 1

    return each_option(row, values)


@kind("parameter that overflows")
def _parameter_overflow(row: Row) -> Iterator[Case]:
    def values(option: Any) -> Iterator[Any]:
        if isinstance(option, Whole):
            yield from (HUGE, 2**64, -HUGE, np.uint64(2**64 - 1), LONG)
        elif isinstance(option, Real):
            yield from (10**400, -(10**400), LONG)

    return each_option(row, values)


# ---- tests ------------------------------------------------------------------------------------------------


def cases_of(row: Row, of: str) -> list[Case]:
    """The calls of one kind."""
    found = KINDS[of](row)
    return [case for case in found if not row.refusals_alone or case.expects == "refused"]


@pytest.mark.parametrize("of", list(KINDS), ids=lambda name: name.replace(" ", "-"))
@pytest.mark.parametrize("name", list(ROWS))
def test_bad_input(name: str, of: str) -> None:
    """All calls of one kind, of every array and parameter of a function."""
    row = ROWS[name]
    cases = cases_of(row, of)
    wrong = [said for case in cases if (said := check(row, case))]
    assert not wrong, "\n".join([f"{len(wrong)} of {len(cases)} calls of {name}:", *wrong])


@pytest.mark.parametrize("name", list(ROWS))
def test_the_call_itself_is_good(name: str) -> None:
    """Else nothing would be learned from how bad ones fail; torch's result is NumPy's, but for rounding."""
    row = ROWS[name]
    found = [outcome(row, base(row, library)) for library in row.libraries]
    for result in found:
        if isinstance(result, Exception):
            raise result
    if len(found) > 1:
        assert equal(found[0], found[1], close=True)


@pytest.mark.parametrize("name", [name for name, row in ROWS.items() if row.gradient])
def test_gradients_flow(name: str) -> None:
    """To the first array of floats that requires one."""
    row = ROWS[name]
    arguments = base(row, "torch")
    place = next((name, index) for name, index, array in places(row) if array.values.dtype.kind == "f")
    x = own(arguments, *place).requires_grad_()
    found = row.function(**arguments)
    result = found[0] if isinstance(found, tuple) else found
    result.sum().backward()
    assert x.grad is not None and x.grad.shape == x.shape and bool(x.grad.isfinite().all())


def test_there_are_enough_cases() -> None:
    """Counted as they are called; of every kind of the list there are some."""
    counted = {of: sum(len(cases_of(row, of)) for row in ROWS.values()) for of in KINDS}
    print(f"{sum(counted.values())} calls of {len(ROWS)} rows:", counted)
    assert len(KINDS) >= 24
    assert sum(counted.values()) >= LEAST_CASES
    assert all(counted.values())


# ---- torch.ops.cv3gpu --------------------------------------------------------------------------------------

# Registered operators that a public function calls with other arguments than its own.
PARTS = {
    "atrous_branches": "of aspp",
    "pyramid_expand": "of pyramid_conv2d and pyramid_pooling",
    "pyramid_expand_adjoint": "their gradient",
    "pyramid_pool": "of pyramid_pooling",
    "pyramid_pool_adjoint": "its gradient",
}


def _registered() -> dict[str, Any]:
    """Every operator of the namespace, by its name."""
    names = [schema.name.removeprefix("cv3gpu::") for schema in torch._C._jit_get_all_schemas()
             if schema.name.startswith("cv3gpu::")]  # fmt: skip
    return {name: getattr(torch.ops.cv3gpu, name).default for name in sorted(set(names))}


def _raw(op: Any, arguments: dict[str, Any]) -> list[Any]:
    """The arguments of a public call in the order of the schema, and in its types."""
    found = []
    for argument in op._schema.arguments:
        value, kind = arguments.get(argument.name, argument.default_value), str(argument.type)
        if value is None and kind == "Tensor":  # a width or a compatibility
            value = torch.tensor(1.0, dtype=torch.float64)
        if value is None and "List[Tensor]" in kind:
            value = []
        if value is None and not kind.startswith("Optional"):
            value = {"int": 2, "str": "lattice" if argument.name == "method" else "symmetric"}.get(kind)
        if value is None and kind == "List[bool]":
            value = [True] * argument.N
        found.append(list(value) if isinstance(value, tuple) else value)
    return found


def test_registered_operators_check_for_themselves() -> None:
    """Called past the public function, each refuses a tensor of a wrong dtype or number of dimensions in its own words."""
    operators = _registered()
    by_name = {row.op: row for row in ROWS.values() if "torch" in row.libraries and row.name.split(".")[-1] == row.op}
    assert set(operators) <= {*by_name, *PARTS}
    wrong, count = [], 0
    for name, op in operators.items():
        if name in PARTS:
            continue
        row = by_name[name]
        arguments = base(row, "torch")
        takes = [argument.name for argument in op._schema.arguments]
        assert not isinstance(outcome(row, arguments), Exception)
        op(*_raw(op, arguments))
        for argument, index, array in places(row):
            if argument not in takes:
                continue
            x = own(arguments, argument, index)
            for text, bad in (("complex", x.to(torch.complex64)), ("two more dimensions", x[None, None])):
                if text != "complex" and x.ndim + 2 in array.ndims:
                    continue
                count += 1
                changed = put(arguments, argument, index, bad)
                try:
                    op(*_raw(op, changed))
                    wrong.append(f"{name} {argument} {text}: was taken")
                except Exception as error:
                    if said := fault(row, Case("", changed, argument, "refused"), error):
                        wrong.append(f"{name} {argument} {text}: {said}")
    assert not wrong, "\n".join(wrong)
    assert count >= 150


# ---- every public function is here -----------------------------------------------------------------------

ELSEWHERE = {
    "scale": "Dask's arrays and executors: their arguments are checked in test_scale.py",
    "viz": "pictures: their arguments are checked in test_viz.py",
    "superpixel.model": "what slic consists of: its arguments are checked there",
    "nn.ops": "the registry that the operators above are called through",
}

# Results and other things that are made by functions above, and not by their users.
RESULTS = {
    "affinity.PixelAffinity": "pixel_affinity makes it; its product is in test_pixel_affinity_product",
    "crf.Kernel": "what a mean field consists of",
    "crf.MeanField": "a mean field, made by DenseCRF.meanField, of arrays that are checked there",
    "crf.normalized": "makes a Kernel of a filter that is no array",
    "densecrf.ConstUnary": "raises, whatever it is given",
    "densecrf.LogisticUnary": "raises, whatever it is given",
    "mot.Boxes": "a tuple that evaluate_boxes checks",
    "mot.Comparison": "what compare returns",
    "mot.Report": "what evaluate returns",
    "nn.DropInReport": "what drop_in returns",
    "spectral.Embedding": "what spectral_clustering returns; its x_new is checked in test_spectral_clustering.py",
}


def public() -> Iterator[tuple[str, Any]]:
    """Every callable that `__all__` of the package and of its public modules names."""
    for name in cv3gpu.__all__:
        value = getattr(cv3gpu, name)
        if not inspect.ismodule(value):
            yield name, value
        elif name not in ELSEWHERE and name != "kernels":
            yield from _public_of(name, value)


def _public_of(path: str, module: types.ModuleType) -> Iterator[tuple[str, Any]]:
    for name in getattr(module, "__all__", [n for n, v in vars(module).items() if inspect.ismodule(v) and n[0] != "_"]):
        value = getattr(module, name)
        if not inspect.ismodule(value):
            yield f"{path}.{name}", value
        elif f"{path}.{name}" not in ELSEWHERE and value.__name__.startswith(module.__name__):
            yield from _public_of(f"{path}.{name}", value)


def _is_made_for_callers(value: Any) -> bool:
    """Whether it is called with arguments of a user: no constant, no error, no record of results."""
    if not callable(value):
        return False
    if not inspect.isclass(value):
        return True
    return not (
        issubclass(value, BaseException | enum.Enum) or (issubclass(value, tuple) and hasattr(value, "_fields"))
    )


def test_every_public_function_has_a_row() -> None:
    """Or a reason why it has none."""
    said = {name.partition("#")[0] for name in ROWS}
    known = {id(find(name)) for name in said if _has(name)}
    missing = [
        name
        for name, value in public()
        if _is_made_for_callers(value) and id(value) not in known and name not in RESULTS
    ]
    assert not missing
    assert not [name for name in RESULTS if not _has(name)], "a reason for something that is not there"


def _has(name: str) -> bool:
    try:
        find(name)
    except (AttributeError, ImportError):
        return False
    return True


def test_pixel_affinity_product() -> None:
    """The product of an affinity with an array that is none, or of another library, dtype, shape or device."""
    image = ROWS["pixel_affinity"].arguments["image"].values
    affinity = cv3gpu.pixel_affinity(image, radius=2)
    vector = np.ones(affinity.shape[0], np.float32)
    row = Row(
        "PixelAffinity",
        "PixelAffinity",
        lambda x: affinity @ x,
        {"x": Array(vector, "f", "=", "!", (2,))},
        {},
        BOTH,
        False,
        False,
        False,
    )
    for wrong in (
        vector.tolist(),
        torch.from_numpy(vector),
        vector[1:],
        vector.astype(np.float64),
        vector.astype(complex),
        vector[0],
        "x",
    ):
        case = Case(repr(wrong)[:40], {"x": wrong}, "x", "refused")
        assert check(row, case) == ""
