"""Arrow rows of any source -> the raw columns a Predictor reads; what does not fit is named, never bent.

Shape letters: B rows.
"""

from __future__ import annotations

import difflib
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from raypipe.data.table import columns, fits, text_lists
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
    known = {column.name: column for column in signature.inputs}
    extra = [name for name in table.column_names if name not in known and not INDEX_NAME.fullmatch(name)]
    if extra and signature.extra_columns == "error":
        close = difflib.get_close_matches(extra[0], known, n=1)
        raise DataError(
            f"the input has a column '{extra[0]}', which the model does not read; it reads {[*known][:50]}",
            f"is '{close[0]}' meant?"
            if close
            else "name the model's columns in source.columns, or train with data.policy.extra_columns: ignore",
        )
    there = columns.by_name(table)
    for name in known:
        if name not in there:
            close = difflib.get_close_matches(name, there, n=1)
            raise DataError(
                f"the input has no column '{name}', which the model reads; it has {[*there][:50]}",
                f"is '{close[0]}' meant? name it '{name}'" if close else "add it, or correct source.columns",
            )
    return {name: _raw(there[name], column, signature.null_words) for name, column in known.items()}


def _raw(held: pa.ChunkedArray, column: Column, null_words: frozenset[str]) -> NDArray[Any] | pa.Array:
    name = column.name
    kind = columns.kind(held.type)
    _check_kind(kind, column)
    if column.is_list:
        text = text_lists.as_text(held)
        _check_missing(text.is_null().to_numpy(zero_copy_only=False), column)
        return text
    if column.dtype == "string":
        text, missing = columns.strings(columns.without(held, null_words))
        _check_missing(missing, column)
        return text
    exact = kind.dtype if kind.dtype in columns.NUMBERS else "float64"
    if column.shape:
        values, misfit = columns.tensors(held, exact, column.shape)
        if misfit.any():
            raise DataError(
                f"column '{name}': {int(misfit.sum())} of {len(misfit)} rows do not have shape {list(column.shape)}",
                "every row needs the shape the model was trained on",
            )
        return _as_stored(values, column)
    values, missing = columns.scalars(held, "bool" if column.dtype == "bool" else exact)
    _check_missing(missing, column)
    if column.nullable:
        return np.where(missing, np.nan, _as_stored(values, column, missing).astype(np.float64))
    return _as_stored(values, column)


def _check_kind(kind: columns.ColumnKind, column: Column) -> None:
    if not fits.kind_fits(kind.dtype, bool(kind.form), column):
        shape = " in lists" if column.is_list else f" of shape {list(column.shape)}" if column.shape else ""
        raise DataError(
            f"column '{column.name}' holds {kind}; the model reads {fits.family_of(column.dtype)}{shape} "
            f"({column.dtype})",
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
    wrong = {} if column.dtype == "bool" else fits.misfits(there, column.dtype)
    if any(wrong[why].any() for why in (fits.INFINITE, fits.NAN) if why in wrong):
        raise DataError(f"column '{column.name}' holds NaN or infinity; the model reads finite numbers")
    rows = np.logical_or.reduce([*wrong.values(), np.zeros(len(there), bool)])
    if rows.any():
        low, high = fits.limits(column.dtype)
        what = "numbers" if column.dtype.startswith("float") else "whole numbers"
        raise DataError(
            f"column '{column.name}' holds {_first_wrong(there[rows][0], column.dtype)}; the model reads {what} from "
            f"{low} to {high} ({column.dtype})",
            "check the unit of this column",
        )
    return values.astype(np.float64 if missing is not None else column.dtype, copy=False)


def _first_wrong(row: Any, dtype: str) -> Any:
    """Of one value, or of an array the first that does not fit."""
    return next(value for value in np.ravel(row) if fits.misfit(value.item(), dtype))
