"""Which rows of a source are read: one implementation for all formats, on normalised Arrow columns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute

from raypipe.data.table import columns, comparing
from raypipe.data.table.comparing import ORDERS
from raypipe.data.table.fits import family_of
from raypipe.data.table.normal_form import normalise
from raypipe.errors import DataError
from raypipe.spec.sources import Condition, Scalar

pc: Any = pyarrow.compute  # its functions are made at run time, which type checkers do not see


def select_rows(table: pa.Table, where: Sequence[Condition], file: str, unread: str) -> pa.Table:
    """The rows that meet all conditions, and those that could not be read: nobody knows what they hold.

    Args:
        unread: the column that is not null in rows that could not be read; it may be absent.
    Raises:
        DataError: a condition compares numbers with text, or asks for an order in true/false or arrays.
    """
    if not where:
        return table
    mask = np.logical_and.reduce([_meets(table[condition.column], condition, file) for condition in where])
    if unread in table.column_names:
        mask |= table[unread].is_valid().to_numpy()
    return table.filter(pa.array(mask))


def may_meet(condition: Condition, low: Any, high: Any, column_type: pa.DataType) -> bool:
    """Whether a row that is not missing, between `low` and `high`, can meet a condition that has a value.

    Args:
        low, high: as the statistics of a column of this type give them.
    """
    try:
        stored = pa.chunked_array([pa.array([low, high], column_type)])
        table = normalise(pa.table({condition.column: stored}), "statistics")
    except (DataError, pa.ArrowException, TypeError, ValueError, OverflowError):
        return True  # the rows will tell
    column = table[condition.column]
    kind = columns.kind(column.type)
    values = _values(condition)
    if kind.form or family_of(kind.dtype) != comparing.family(values[0]):
        return True  # the rows will tell what does not fit
    bounds = columns.exact(column, kind.dtype)
    return comparing.may_meet(bounds, kind.dtype, condition.op, values, not pa.types.is_temporal(column_type))


def _meets(column: pa.ChunkedArray, condition: Condition, file: str) -> np.ndarray:
    """Bool [n]."""
    kind = columns.kind(column.type)
    if condition.op in ("is_null", "not_null") or kind.dtype == "null":
        missing = pc.is_null(column, nan_is_null=pa.types.is_floating(column.type)).to_numpy()
        return missing if condition.op == "is_null" else ~missing
    values = _values(condition)
    family = family_of(kind.dtype)
    if kind.form or family != comparing.family(values[0]) or (family == "true/false" and condition.op in ORDERS):
        raise DataError(
            f"{file}: data.source.where asks for '{condition.column}' {condition.op} {condition.value!r}, "
            f"but the column holds {kind}",
            "compare a column with values of its own type; arrays can only be asked for is_null and not_null",
        )
    held = columns.exact(column, kind.dtype)
    if condition.op in ORDERS:
        met = comparing.is_ordered(held, kind.dtype, condition.op, values[0])
    else:
        met = comparing.is_one_of(held, kind.dtype, values)
        met = ~met if condition.op in ("!=", "not_in") else met
    return met & columns.present(held)


def _values(condition: Condition) -> list[Any]:
    wanted: Scalar | list[Scalar] | None = condition.value
    return wanted if isinstance(wanted, list) else [wanted]
