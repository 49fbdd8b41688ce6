"""Rows whose hashes agree, compared: which of them hold the same values.  R rows."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute

from raypipe.data.table import columns

pc: Any = pyarrow.compute  # its functions are made at run time, which type checkers do not see

COMPARED_BYTES = 16 * 2**20
"""Values of rows that are picked at a time to be compared."""


def starts_of_runs(ordered: np.ndarray) -> np.ndarray:
    """Where each run of equal values begins, of values in order."""
    return np.flatnonzero(np.concatenate([np.ones(min(1, len(ordered)), bool), ordered[1:] != ordered[:-1]]))


def numbers_in_runs(table: pa.Table, rows: np.ndarray, row_hash_R: np.ndarray) -> np.ndarray:
    """Tells rows of one hash apart: of those, equal rows have equal numbers and different rows differ.

    Args:
        rows: positions [R] in the table, in order of their hashes.
        row_hash_R: their hashes.
    Returns:
        uint32 [R], a function of the values alone: all 0 unless hashes agree by chance.
    """
    numbers = np.zeros(len(rows), np.uint32)
    starts = starts_of_runs(row_hash_R)
    lengths = np.diff(np.append(starts, len(rows)))
    first = np.repeat(starts, lengths)
    repeated = np.flatnonzero(np.arange(len(rows)) != first)
    if not len(repeated):
        return numbers
    differs = ~_equal(table, rows[repeated], rows[first[repeated]])
    for start in np.unique(first[repeated[differs]]).tolist():
        run = slice(start, start + int(lengths[np.searchsorted(starts, start)]))
        spelled = [_spelled(table, int(row)) for row in rows[run]]
        place = {text: i for i, text in enumerate(sorted(set(spelled)))}
        numbers[run] = [place[text] for text in spelled]
    return numbers


def _equal(table: pa.Table, rows: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Bool [R]: whether each row holds what the one beside it holds; missing values are equal."""
    equal = np.ones(len(rows), bool)
    at_a_time = max(1, COMPARED_BYTES * max(1, len(table)) // max(1, table.nbytes))
    for column in table.columns:
        values = columns.values(column)
        for start in range(0, len(rows), at_a_time):
            some = slice(start, start + at_a_time)
            equal[some] &= _equal_values(_picked(values, rows[some]), _picked(values, others[some]))
    return equal


def _picked(values: Any, rows: np.ndarray) -> Any:
    if isinstance(values, pa.DictionaryArray):  # its texts are distinct
        return values.indices.fill_null(-1).to_numpy(zero_copy_only=False)[rows]
    return values.take(pa.array(rows)) if isinstance(values, pa.Array) else values[rows]


def _equal_values(some: Any, others: Any) -> np.ndarray:
    if isinstance(some, pa.Array):
        equal = pc.equal(some, others).fill_null(False).to_numpy(zero_copy_only=False)
        return equal | np.asarray(pc.and_(some.is_null(), others.is_null()))
    equal = some == others
    if some.dtype.kind == "f":
        equal |= np.isnan(some) & np.isnan(others)
    return equal.reshape(len(equal), -1).all(axis=1) if equal.ndim > 1 else equal


def _spelled(table: pa.Table, row: int) -> str:
    """What a row holds as one text, whatever form its table has."""
    one = table.slice(row, 1)
    held = [columns.values(one[name]) for name in sorted(one.column_names)]
    return repr([v.cast(pa.string()).to_pylist() if isinstance(v, pa.Array) else v.tolist() for v in held])
