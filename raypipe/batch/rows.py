"""Arrow rows of any source -> the raw columns a Predictor reads; what does not fit is named, never bent.

Shape letters: B rows.
"""

from __future__ import annotations

import difflib
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from raypipe.data.table import columns
from raypipe.errors import DataError
from raypipe.records import Column, Signature
from raypipe.spec.data import INDEX_NAME


def raw_columns(table: pa.Table, signature: Signature) -> dict[str, Any]:
    """The inputs of the signature; other columns are left out, or refused where the signature says so.

    Args:
        table: B rows as data/formats reads them.
    Returns:
        [B, *shape] each: numbers in the column's dtype (float64 with NaN where a value may be missing), text in Arrow.
    Raises:
        DataError: a column is not there, of another kind, out of range, lacks a value it must have, or is one too many.
    """
    known = [column.name for column in signature.inputs]
    extra = [name for name in table.column_names if name not in known and not INDEX_NAME.fullmatch(name)]
    if extra and signature.extra_columns == "error":
        close = difflib.get_close_matches(extra[0], known, n=1)
        raise DataError(
            f"the input has a column '{extra[0]}', which the model does not read; it reads {known[:50]}",
            f"is '{close[0]}' meant?"
            if close
            else "name the model's columns in source.columns, or train with data.policy.extra_columns: ignore",
        )
    return {column.name: _raw(table, column, signature.null_words) for column in signature.inputs}


def _raw(table: pa.Table, column: Column, null_words: frozenset[str]) -> NDArray[Any] | pa.Array:
    name = column.name
    if name not in table.column_names:
        close = difflib.get_close_matches(name, table.column_names, n=1)
        raise DataError(
            f"the input has no column '{name}', which the model reads; it has {table.column_names[:50]}",
            f"is '{close[0]}' meant? name it '{name}'" if close else "add it, or correct source.columns",
        )
    found = columns.kind(table.schema.field(name).type)
    _check_kind(found, column)
    if column.dtype == "string":
        text, missing = columns.strings(columns.without(table[name], null_words))
        _check_missing(missing, column)
        return text
    exact = found.dtype if found.dtype in columns.NUMBERS else "float64"
    if column.shape:
        values, misfit = columns.tensors(table[name], exact, column.shape)
        if misfit.any():
            raise DataError(
                f"column '{name}': {int(misfit.sum())} of {len(misfit)} rows do not have shape {list(column.shape)}",
                "every row needs the shape the model was trained on",
            )
        return _as_stored(values, column)
    values, missing = columns.scalars(table[name], "bool" if column.dtype == "bool" else exact)
    _check_missing(missing, column)
    if column.nullable:
        return np.where(missing, np.nan, _as_stored(values, column, missing).astype(np.float64))
    return _as_stored(values, column)


def _check_kind(found: columns.ColumnKind, column: Column) -> None:
    wanted = "text" if column.dtype == "string" else "true/false" if column.dtype == "bool" else "numbers"
    has = "text" if found.dtype == "string" else "true/false" if found.dtype == "bool" else "numbers"
    fits = found.dtype == "null" or (has == wanted and bool(found.form) == bool(column.shape))
    if not fits:
        shape = f" of shape {list(column.shape)}" if column.shape else ""
        raise DataError(
            f"column '{column.name}' holds {found}; the model reads {wanted}{shape} ({column.dtype})",
            "write the column as it was in the training data",
        )


def _check_missing(missing: NDArray[np.bool_], column: Column) -> None:
    if missing.any() and not column.nullable:
        raise DataError(
            f"column '{column.name}': {int(missing.sum())} of {len(missing)} rows have no value; "
            "the model needs one in every row",
            "fill them in, or train with an impute transform for this column",
        )


def _as_stored(values: NDArray[Any], column: Column, missing: NDArray[np.bool_] | None = None) -> NDArray[Any]:
    """The values in the column's dtype, if that changes none of them beyond rounding of floats."""
    there = values if missing is None else values[~missing]
    if values.dtype.kind == "f" and there.size and not np.isfinite(there).all():
        raise DataError(f"column '{column.name}' holds NaN or infinity; the model reads finite numbers")
    if column.dtype.startswith("int") or column.dtype.startswith("uint"):
        limits = np.iinfo(column.dtype)
        wrong = (there < limits.min) | (there > limits.max) | (there != np.trunc(there))
        if wrong.any():
            raise DataError(
                f"column '{column.name}' holds {there[wrong][0]}; the model reads whole numbers from {limits.min} to "
                f"{limits.max} ({column.dtype})",
                "check the unit of this column",
            )
    return values.astype(np.float64 if missing is not None else column.dtype, copy=False)
