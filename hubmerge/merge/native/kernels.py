"""Typed calls of the C kernels: flat tensors of one length, as they are stored, to numbers or to a tensor."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hubmerge.merge.native.library import brief_library, library

DTYPE_CODES = {"BF16": 0, "F16": 1, "F32": 2}
"""What the kernels read and write."""

ITEM_BYTES = {"BF16": 2, "F16": 2, "F32": 4}

BRIEF_ELEMENTS = 16_384
"""Most elements of operands whose kernel runs for microseconds only."""

MAX_OPERANDS = 33
"""A base and 32 models."""

KEEP_ALL, KEEP_NONE, KEEP_BAND, KEEP_RANDOM = range(4)


class Cut(ctypes.Structure):
    """The largest magnitudes: above the threshold, or equal to it and before element `ties_stop` of the tensor."""

    _fields_ = (("threshold", ctypes.c_float), ("ties_stop", ctypes.c_int64))


class Rule(ctypes.Structure):
    """What is kept of a task vector; see kernels.c."""

    _fields_ = (
        ("kind", ctypes.c_int32),
        ("has_inner", ctypes.c_int32),
        ("has_outer", ctypes.c_int32),
        ("inner", Cut),
        ("outer", Cut),
        ("first_key", ctypes.c_int32),
        ("second_key", ctypes.c_int32),
        ("lane_limit", ctypes.c_int32),
    )


@dataclass(frozen=True)
class Bounds:
    """Between which elements of task vector number `series` are collected, outside of which they are counted."""

    series: int
    low: float
    high: float


@dataclass(frozen=True)
class Counts:
    """Elements above, at and strictly between bounds; those between are fp32, in order."""

    above: int
    at_high: int
    at_low: int
    inside: NDArray[np.float32]


class Stored(NamedTuple):
    """Elements of a tensor in the dtype in which a file holds them: their bytes, aligned to an element.

    A named tuple, since several are made for every block.
    """

    data: NDArray[np.uint8]
    dtype: str

    @property
    def elements(self) -> int:
        """Number of elements."""
        return self.data.size // ITEM_BYTES[self.dtype]


class WeightedSum:
    """Σ cᵢ·xᵢ."""

    def __init__(self, coefficients: Sequence[float]) -> None:
        self._coefficients = _floats(coefficients)

    def __call__(self, tensors: Sequence[Stored], out: Stored, *, first: int = 0) -> None:
        """Writes the sum of as many tensors to `out`, whatever its place in the whole."""
        del first
        _call("hubmerge_weighted_sum", tensors, self._coefficients, _output(out))


@dataclass(frozen=True)
class Election:
    """How what agrees with the elected signs is added up: λ·Σ, divided by Σ wᵢ of what took part if there are weights.

    Attributes:
        factor: λ.
        weights: Each wᵢ.
    """

    factor: float
    weights: Sequence[float] | None


class TaskVectorSum:
    """base + Σ cᵢ·δᵢ over sparse task vectors.

    Args:
        rules: What is kept, one a task vector.
        coefficients: Each cᵢ.
        election: If given, what disagrees with the elected signs is left out.
    """

    def __init__(self, rules: Sequence[Rule], coefficients: Sequence[float], election: Election | None = None) -> None:
        factor, weights = (election.factor, election.weights) if election else (1.0, None)
        # ctypes keeps what a structure points to alive for as long as the structure.
        self._sum = _Sum(
            _rules(rules),
            _floats(coefficients),
            _floats(weights or coefficients),
            factor,
            election is not None,
            weights is not None,
        )

    def __call__(self, tensors: Sequence[Stored], out: Stored, *, first: int) -> None:
        """Writes what follows from the base and the models; `first` is the number of their first element."""
        _call("hubmerge_add_task_vectors", tensors, self._sum, ctypes.c_int64(first), _output(out))


Kernel = WeightedSum | TaskVectorSum


def can_run(dtypes: Sequence[str]) -> bool:
    """Returns whether there are compiled kernels for tensors of these dtypes."""
    return len(dtypes) <= MAX_OPERANDS and all(dtype in DTYPE_CODES for dtype in dtypes) and library() is not None


def dots(a: Stored, b: Stored) -> tuple[float, float, float]:
    """Returns ⟨a, a⟩, ⟨a, b⟩ and ⟨b, b⟩: products in fp32, added up in fp64."""
    result = (ctypes.c_double * 3)()
    _call("hubmerge_dots", [a, b], result)
    return result[0], result[1], result[2]


def count_non_finite(stored: Stored) -> int:
    """Returns how many of the elements are NaN or infinite."""
    count = (ctypes.c_int64 * 1)()
    _call("hubmerge_count_non_finite", [stored], count, is_brief=True)
    return count[0]


def magnitudes(tensors: Sequence[Stored]) -> list[NDArray[np.float32]]:
    """Returns |x − base| for every tensor after the base."""
    results = _rooms(tensors)
    _call("hubmerge_magnitudes", tensors, _pointers(results))
    return results


def tally(tensors: Sequence[Stored], bounds: Sequence[Bounds]) -> list[Counts]:
    """Returns what each bounds find among the magnitudes of the task vectors."""
    rooms = np.empty((len(bounds), tensors[0].elements), np.float32)
    tallies = (_Tally * len(bounds))(
        *(_Tally(b.series, b.low, b.high, _address(room)) for b, room in zip(bounds, rooms, strict=True))
    )
    _call("hubmerge_tally", tensors, tallies, ctypes.c_int64(len(bounds)))
    return [
        Counts(t.above, t.at_high, t.at_low, room[: t.inside_count].copy())
        for t, room in zip(tallies, rooms, strict=True)
    ]


def find(base: Stored, tensor: Stored, size: float, number: int) -> int:
    """Returns the place of element `number` (from 1) of those whose |x − base| is `size`; there are as many."""
    place = (ctypes.c_int64 * 1)()
    _call("hubmerge_find", [base, tensor], _floats([size]), ctypes.c_int64(number), place)
    return place[0]


def thinned(tensors: Sequence[Stored], rules: Sequence[Rule], *, first: int) -> list[NDArray[np.float32]]:
    """Returns what is kept of each x − base, zeros elsewhere; `first` is the number of the first element."""
    results = _rooms(tensors)
    _call("hubmerge_thin", tensors, _rules(rules), ctypes.c_int64(first), _pointers(results))
    return results


def l1_sums(tensors: Sequence[Stored], rules: Sequence[Rule], *, first: int) -> tuple[list[float], list[float]]:
    """Returns Σ|δ| of each task vector before and after it is thinned out, added up in fp64."""
    before, after = ((ctypes.c_double * len(rules))() for _ in range(2))
    _call("hubmerge_l1", tensors, _rules(rules), ctypes.c_int64(first), before, after)
    return list(before), list(after)


class _Sum(ctypes.Structure):
    _fields_ = (
        ("rules", ctypes.POINTER(Rule)),
        ("coefficients", ctypes.POINTER(ctypes.c_float)),
        ("weights", ctypes.POINTER(ctypes.c_float)),
        ("factor", ctypes.c_float),
        ("elects", ctypes.c_int32),
        ("normalizes", ctypes.c_int32),
    )


class _Tally(ctypes.Structure):
    _fields_ = (
        ("series", ctypes.c_int64),
        ("low", ctypes.c_float),
        ("high", ctypes.c_float),
        ("inside", ctypes.c_void_p),
        ("above", ctypes.c_int64),
        ("at_high", ctypes.c_int64),
        ("at_low", ctypes.c_int64),
        ("inside_count", ctypes.c_int64),
    )


Argument = ctypes.Array[Any] | ctypes.Structure | ctypes.c_int64


def _call(name: str, operands: Sequence[Stored], *arguments: Argument, is_brief: bool = False) -> None:
    """Calls a function of the library; the caller keeps alive what arguments point to."""
    loaded = brief_library() if is_brief or operands[0].elements <= BRIEF_ELEMENTS else library()
    assert loaded is not None, "asked for compiled kernels where there are none"
    pointers = (ctypes.byref(each) if isinstance(each, ctypes.Structure) else each for each in arguments)
    getattr(loaded, name)(_operands(operands), *pointers)


def _operands(tensors: Sequence[Stored]) -> ctypes.Array[ctypes.c_int64]:
    """Returns the `Operands` of kernels.c, which are made of 64-bit numbers: made in one go for every block."""
    elements = tensors[0].elements
    fields = [len(tensors), elements]
    for tensor in tensors:
        assert tensor.elements == elements
        fields += _fields(tensor)
    return (ctypes.c_int64 * len(fields))(*fields)


def _output(out: Stored) -> ctypes.Array[ctypes.c_int64]:
    return (ctypes.c_int64 * 2)(*_fields(out))


def _fields(tensor: Stored) -> tuple[int, int]:
    return _address(tensor.data), DTYPE_CODES[tensor.dtype]


def _address(array: NDArray[Any]) -> int:
    """Returns where a contiguous array lies; numpy's own ways to ask take several times as long."""
    return ctypes.addressof(ctypes.c_char.from_buffer(array.data)) if array.size else 0


def _rooms(tensors: Sequence[Stored]) -> list[NDArray[np.float32]]:
    """Returns memory for every tensor after the base."""
    return [np.empty(tensors[0].elements, np.float32) for _ in tensors[1:]]


def _pointers(arrays: Sequence[NDArray[Any]]) -> ctypes.Array[ctypes.c_void_p]:
    return (ctypes.c_void_p * len(arrays))(*map(_address, arrays))


def _floats(values: Sequence[float]) -> ctypes.Array[ctypes.c_float]:
    return (ctypes.c_float * len(values))(*values)


def _rules(rules: Sequence[Rule]) -> ctypes.Array[Rule]:
    return (Rule * len(rules))(*rules)
