"""How a column is compared with a value that the pipeline file names: one meaning for `where`, for the statistics of
Parquet, and for expectations.

A number is compared as the column's type holds it: 0.1 is the float32 nearest to it; whole numbers keep all 64 bits.
A text that names a moment (spec/moments.py) is compared as one: 2024-01-31T12 equals 2024-01-31 13:00:00+01:00, and a
text that names none neither equals it nor lies before or after it.  Other text is compared by its characters.

What is said of a missing value means nothing; callers leave it out.  n rows.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute

from raypipe.data.table.columns import Values
from raypipe.data.table.times import instants
from raypipe.spec.moments import microseconds
from raypipe.spec.sources import Scalar

pc: Any = pyarrow.compute  # its functions are made at run time, which type checkers do not see

ORDERS: dict[str, Callable[[Any, Any], Any]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


def family(value: Scalar) -> str:
    """What a value of the file is, in the words of fits.family_of."""
    return "true/false" if isinstance(value, bool) else "text" if isinstance(value, str) else "numbers"


def is_ordered(values: Values, dtype: str, op: str, bound: int | float | str) -> np.ndarray:
    """Whether each value lies on one side of a bound.

    Args:
        values: of one family with the bound: numbers [n, *shape], text [n], or whole numbers with gaps in Arrow [n].
        dtype: the type the files hold; floats may be kept in a wider one, and whole numbers in one of their own.
        op: one of ORDERS.
    Returns:
        bool [n, *shape].
    """
    if isinstance(bound, str):
        return _of_each_text(values, lambda texts: _texts_ordered(texts, op, bound))
    numbers = _numbers(values)
    return _numbers_ordered(numbers, _own(numbers, dtype), op, bound)


def is_one_of(values: Values, dtype: str, wanted: Sequence[Scalar]) -> np.ndarray:
    """Whether each value equals one of some others of its family; bool [n], arguments as for `is_ordered`."""
    if dtype == "string":
        texts = [text for text in wanted if isinstance(text, str)]
        return _of_each_text(values, lambda found: _texts_equal(found, texts))
    numbers = _numbers(values)
    if dtype == "bool":
        return np.isin(numbers, [value for value in wanted if isinstance(value, bool)])
    held = [_as_held(value, _own(numbers, dtype)) for value in wanted if not isinstance(value, str)]
    exact = [value for value in held if value is not None]
    if not exact:
        return np.zeros(len(numbers), bool)
    # Of the type they are held in: numpy would compare uint64 and int64 as float64.
    return np.isin(numbers, np.array(exact, numbers.dtype))


def may_meet(bounds: Values, dtype: str, op: str, wanted: Sequence[Any], is_text_in_order: bool) -> bool:
    """Whether a value between two bounds can be as wanted.

    Args:
        bounds: the smallest and the largest value [2].
        op: of a Condition that has a value.
        is_text_in_order: whether the bounds of text are the first and the last by its characters, as moments are not.
    """
    names_moment = any(isinstance(value, str) and microseconds(value) is not None for value in wanted)
    if dtype == "string" and (names_moment == is_text_in_order or (names_moment and instants(bounds)[1].any())):
        return True
    if op in ORDERS:
        return bool(is_ordered(bounds, dtype, op, wanted[0]).any())
    if op in ("==", "in"):
        return any(_lies_between(bounds, dtype, value) for value in wanted)
    is_one_value = bool(is_one_of(bounds, dtype, wanted).all()) and len(_distinct(bounds)) == 1
    return not is_one_value


def _lies_between(bounds: Values, dtype: str, value: Any) -> bool:
    if dtype == "bool":
        return bool(is_one_of(bounds, dtype, [value]).any())
    return bool(is_ordered(bounds, dtype, "<=", value)[0] and is_ordered(bounds, dtype, ">=", value)[1])


def _distinct(bounds: Values) -> list[Any]:
    return pa.array(bounds).unique().to_pylist()


# --- numbers ---------------------------------------------------------------------------------------------------------


def _numbers(values: Values) -> np.ndarray:
    """Numbers or true/false in numpy; anything where one is missing."""
    if isinstance(values, np.ndarray):
        return values
    filler = False if pa.types.is_boolean(values.type) else 0
    return values.fill_null(filler).to_numpy(zero_copy_only=False)


def _own(numbers: np.ndarray, dtype: str) -> str:
    """Whole numbers of 64 bits have float64 in common where some files write them with a sign and others without."""
    return numbers.dtype.name if numbers.dtype.kind in "iu" else dtype


def _as_held(value: Any, dtype: str) -> int | float | None:
    """The number as a column of this type holds it; None where it cannot, so that no row equals it."""
    if not dtype.startswith("float"):
        limits = np.iinfo(dtype)
        is_held = _is_finite(value) and value == math.floor(value) and limits.min <= value <= limits.max
        return int(value) if is_held else None
    held = _rounded(value, dtype)
    return held if math.isfinite(held) or held == value else None


def _is_finite(value: Any) -> bool:
    return isinstance(value, int) or math.isfinite(value)  # a whole number may be beyond every float


def _rounded(value: Any, dtype: str) -> float:
    """To the nearest number of a type of floats; beyond the largest, infinity."""
    try:
        number = float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf
    with np.errstate(over="ignore"):
        return float(np.float32(number)) if dtype == "float32" else number


def _numbers_ordered(numbers: np.ndarray, dtype: str, op: str, bound: Any) -> np.ndarray:
    compare = ORDERS[op]
    if dtype.startswith("float"):
        return compare(numbers, _rounded(bound, dtype))
    if not _is_finite(bound):
        return np.full(numbers.shape, compare(0.0, bound))
    whole = math.ceil(bound) if op in ("<", ">=") else math.floor(bound)
    limits = np.iinfo(dtype)
    if not limits.min <= whole <= limits.max:
        return np.full(numbers.shape, compare(0, whole))
    return compare(numbers, np.array(whole, dtype))


# --- text ------------------------------------------------------------------------------------------------------------


def _of_each_text(values: Any, look: Callable[[Any], np.ndarray]) -> np.ndarray:
    """What `look` sees in each text; in encoded ones, each distinct text is looked at once. False where one is missing.

    Args:
        look: text in Arrow [m] -> bool [m].
    """
    if not isinstance(values, pa.DictionaryArray):
        return look(values)
    seen = np.append(look(values.dictionary), False)
    return seen[values.indices.fill_null(-1).to_numpy(zero_copy_only=False)]


def _texts_ordered(texts: Any, op: str, bound: str) -> np.ndarray:
    moment = microseconds(bound)
    if moment is None:
        compare = {"<": pc.less, "<=": pc.less_equal, ">": pc.greater, ">=": pc.greater_equal}[op]
        return compare(texts, pa.scalar(bound, pa.string())).fill_null(False).to_numpy(zero_copy_only=False)
    found, names_none = instants(texts)
    return ORDERS[op](found, moment) & ~names_none


def _texts_equal(texts: Any, wanted: Sequence[str]) -> np.ndarray:
    equal = pc.is_in(texts, value_set=pa.array(wanted, pa.string())).to_numpy(zero_copy_only=False)
    moments = [moment for moment in map(microseconds, wanted) if moment is not None]
    if not moments:
        return equal
    found, names_none = instants(texts)
    return equal | (np.isin(found, moments) & ~names_none)
