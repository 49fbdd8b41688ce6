"""Which rows of a source are read: one implementation for all formats, on normalised Arrow columns."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute

from raypipe.data.table import columns
from raypipe.data.table.columns import NUMBERS
from raypipe.errors import DataError
from raypipe.spec.sources import Condition, Scalar

pc: Any = pyarrow.compute  # its functions are made at run time, which type checkers do not see
ORDERS: dict[str, tuple[Any, Callable[[Any, Any], bool]]] = {
    "<": (pc.less, operator.lt),
    "<=": (pc.less_equal, operator.le),
    ">": (pc.greater, operator.gt),
    ">=": (pc.greater_equal, operator.ge),
}
"""Of each operator that needs an order: how columns and how two values are compared."""


def select_rows(table: pa.Table, where: Sequence[Condition], file: str, unread: str) -> pa.Table:
    """The rows that meet all conditions, and those that could not be read: nobody knows what they hold.

    Args:
        unread: the column that is not null in rows that could not be read; it may be absent.
    Raises:
        DataError: a condition compares numbers with text, or asks for an order in true/false or arrays.
    """
    if not where:
        return table
    mask = _meets(table[where[0].column], where[0], file)
    for condition in where[1:]:
        mask = pc.and_(mask, _meets(table[condition.column], condition, file))
    if unread in table.column_names:
        mask = pc.or_(mask, pc.is_valid(table[unread]))
    return table.filter(mask)


def may_meet(condition: Condition, low: Any, high: Any, is_float32: bool = False) -> bool:
    """Whether a row that is not missing, between `low` and `high`, can meet a condition that has a value."""
    values = _values(condition)
    if _family_of(low) != _family_of(values[0]) or _family_of(high) != _family_of(values[0]):
        return True  # the rows will tell what does not fit
    if is_float32:
        values = [pa.scalar(value, pa.float32()).as_py() for value in values]
    if condition.op in ORDERS:
        compare = ORDERS[condition.op][1]
        return bool(compare(low, values[0]) or compare(high, values[0]))
    if condition.op in ("==", "in"):
        return any(low <= value <= high for value in values)
    return not (low == high and low in values)


def _meets(column: pa.ChunkedArray, condition: Condition, file: str) -> pa.ChunkedArray:
    """true or false for each row, never null."""
    column = column.cast(pa.string()) if pa.types.is_dictionary(column.type) else column
    missing = pc.is_null(column, nan_is_null=pa.types.is_floating(column.type))
    if condition.op == "is_null":
        return missing
    there = pc.invert(missing)
    kind = columns.kind(column.type)
    if condition.op == "not_null" or kind.dtype == "null":
        return pc.and_(there, pa.scalar(kind.dtype != "null"))
    values = _values(condition)
    family = "number" if kind.dtype in NUMBERS else {"string": "text", "bool": "true/false"}[kind.dtype]
    if kind.form or family != _family_of(values[0]) or (family == "true/false" and condition.op in ORDERS):
        raise DataError(
            f"{file}: data.source.where asks for '{condition.column}' {condition.op} {condition.value!r}, "
            f"but the column holds {kind}",
            "compare a column with values of its own type; arrays can only be asked for is_null and not_null",
        )
    if condition.op in ORDERS:
        met = _ordered(column, kind.dtype, condition.op, values[0])
    else:
        exact = [_as(value, column.type) for value in values]
        met = pc.is_in(column, value_set=pa.array([value for value in exact if value is not None], column.type))
        if condition.op in ("!=", "not_in"):
            met = pc.invert(met)
    return pc.and_(there, pc.fill_null(met, False))


def _ordered(column: pa.ChunkedArray, dtype: str, op: str, value: Any) -> Any:
    compare, holds = ORDERS[op]
    if dtype.startswith(("int", "uint")):  # Arrow compares large integers with nothing but integers of their type
        value = math.ceil(value) if op in ("<", ">=") else math.floor(value)
        limits = np.iinfo(dtype)
        if not limits.min <= value <= limits.max:
            return pa.chunked_array([pa.array(np.full(len(column), holds(0, value)))])
    return compare(column, pa.scalar(value, column.type))


def _values(condition: Condition) -> list[Any]:
    return condition.value if isinstance(condition.value, list) else [condition.value]


def _family_of(value: Any) -> str:
    if isinstance(value, bool):
        return "true/false"
    return "number" if isinstance(value, int | float) else "text" if isinstance(value, str) else type(value).__name__


def _as(value: Scalar, wanted: pa.DataType) -> Scalar | None:
    """The value in the column's type; None where that type cannot hold it, so that no row equals it."""
    try:
        return pa.scalar(value).cast(wanted).as_py()
    except (pa.ArrowInvalid, OverflowError):
        return None
