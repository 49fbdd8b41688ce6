"""What a block holds, and what is wrong with which of its rows: bad rows are counted, and the first are kept.

B rows of a block.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute

from raypipe.data.checks import bad_rows, remedies
from raypipe.data.checks.bad_rows import MAX_KEPT, BadRows
from raypipe.data.checks.losses import Targets
from raypipe.data.checks.schema import Schema
from raypipe.data.table import columns, fits, label_sets, text_lists
from raypipe.data.table.columns import Values
from raypipe.data.table.marks import BAD, UNREAD
from raypipe.errors import DataError
from raypipe.records import Column

pc: Any = pyarrow.compute  # its functions are made at run time, which type checkers do not see

Reasons = list[tuple[Any, str]]
"""Which rows (bool [B]) are bad, and why."""


def examine(block: pa.Table, schema: Schema) -> tuple[dict[str, Values], Reasons]:
    """What a block holds, and what is wrong with which of its rows.

    Returns:
        values of each column over all rows, in the schema's types; missing numbers are NaN.
    Raises:
        DataError: the target holds fractions, or numbers that cannot be told apart, where classes are wanted.
    """
    reasons: Reasons = []
    if BAD in block.column_names:
        reasons.append((block[BAD].is_valid().to_numpy(), UNREAD))
    values: dict[str, Values] = {}
    arrays = columns.by_name(block)
    for name, column in schema.columns.items():
        arrow = _column_of(arrays, name, block.num_rows)
        if schema.label_sets is not None and name in schema.targets and column.dtype == "string":
            arrow = label_sets.as_text(arrow, name, schema.label_sets)
        if schema.label_sets is not None and name in schema.targets and column.dtype == "bool":
            label_sets.check_true_false(*columns.scalars(arrow, "float64"), name)
        values[name] = _checked(arrow, column, reasons)
        if name in schema.targets:
            values[name] = _target_values(values[name], schema, arrow.type)
        if name == schema.weight:
            reasons.append((values[name] < 0, remedies.negative(name)))
    for name, column in schema.others.items():
        values[name] = _checked(_column_of(arrays, name, block.num_rows), column, [])
    return values, reasons


def exact_values(block: pa.Table, schema: Schema, values: Mapping[str, Values]) -> dict[str, Values]:
    """What a block holds in the columns that expectations name, as the files have it: whole numbers keep all 64 bits.

    Args:
        values: of `examine`.
    Returns:
        Column -> as columns.exact gives it; arrays as in `values`.
    """
    known = {**schema.columns, **schema.others}
    exact: dict[str, Values] = {}
    arrays = columns.by_name(block)
    for name, dtype in schema.expected.items():
        column = _column_of(arrays, name, block.num_rows)
        own = columns.kind(column.type).dtype
        held = own if name in schema.whole and own != "null" else dtype
        exact[name] = values[name] if fits.holds_arrays(known[name]) else columns.exact(column, held)
    return exact


def good_rows(num_rows: int, reasons: Reasons) -> np.ndarray:
    """Bool [B]: the rows that nothing is wrong with."""
    good = np.ones(num_rows, bool)
    for mask, _ in reasons:
        good &= ~mask
    return good


def keep_good(
    block: pa.Table, values: dict[str, Values], reasons: Reasons, schema: Schema
) -> tuple[dict[str, Values], BadRows]:
    """The good rows of a block, and the others with their reasons."""
    good = good_rows(block.num_rows, reasons)
    if good.all():
        return values, BadRows()
    kept = {name: _kept(v, good) for name, v in values.items()}
    return kept, _bad_rows(block, ~good, reasons, schema)


def _kept(values: Values, good: np.ndarray) -> Values:
    return values[good] if isinstance(values, np.ndarray) else values.filter(pa.array(good))


def _column_of(arrays: Mapping[str, pa.ChunkedArray], name: str, num_rows: int) -> pa.ChunkedArray:
    return arrays[name] if name in arrays else pa.chunked_array([pa.nulls(num_rows)])


def _checked(arrow: pa.ChunkedArray, column: Column, reasons: Reasons) -> Values:
    """Values of all rows of one column; what is wrong with which row goes to `reasons`."""
    if column.is_list:
        text = text_lists.as_text(arrow)
        reasons.append((text.is_null().to_numpy(zero_copy_only=False), f"'{column.name}' is missing, or has gaps"))
        return text
    if column.dtype == "string":
        text, missing = columns.strings(arrow)
        if not column.nullable:
            reasons.append((missing, remedies.missing(column.name)))
        return text
    if column.shape:
        values, misfit = columns.tensors(arrow, column.dtype, column.shape)
        reasons.append((misfit, f"'{column.name}' is missing, has gaps, or is not of shape {list(column.shape)}"))
    else:
        values, missing = columns.scalars(arrow, fits.held_as(column))
        if not column.nullable:
            reasons.append((missing, remedies.missing(column.name)))
    if values.dtype.kind == "f":
        wrong = fits.misfits(values, fits.held_as(column))
        for why in (fits.INFINITE, fits.NAN) if column.shape else (fits.INFINITE,):  # one NaN alone is a missing value
            reasons.append((wrong[why], f"'{column.name}' {why}"))
    return values


def _target_values(values: Values, schema: Schema, written_type: pa.DataType) -> Values:
    """Class labels that were kept as floats (a column of whole numbers with gaps) become integers.

    Args:
        written_type: the type the file gave them.
    """
    if schema.task in ("regression", "multi_label") or isinstance(values, pa.Array):
        return values
    if pa.types.is_uint64(written_type) and values.dtype.kind == "i":
        _refuse_large(values[values < 0].astype(np.uint64), schema.target)
    if values.dtype.kind != "f":
        return values
    usable = np.isfinite(values)
    fractions = usable & (values != np.floor(values))
    if fractions.any():
        raise DataError(
            f"the target '{schema.target}' holds {values[fractions][0]:g}; "
            "a class is a whole number, text or true/false",
            "set data.task: regression, or correct data.target",
        )
    _refuse_large(values[usable & (np.abs(values) >= columns.EXACT)], schema.target)
    return np.where(usable, values, 0).astype(np.int64)


def _refuse_large(labels: np.ndarray, target: str) -> None:
    if len(labels):
        raise DataError(
            f"the target '{target}' holds {int(labels[0])}; class labels that are whole numbers are below 2**63, and "
            "below 2**53 in a column of floats",
            "write the labels as text",
        )


def _bad_rows(block: pa.Table, bad: np.ndarray, reasons: Reasons, schema: Schema) -> BadRows:
    positions = np.flatnonzero(bad)
    kept = []
    rows = block.select([name for name in block.column_names if name != BAD])
    for position in positions[:MAX_KEPT]:
        unread = block[BAD][int(position)].as_py() if BAD in block.column_names else None
        why = unread or "; ".join(dict.fromkeys(reason for mask, reason in reasons if mask[position]))
        row = bad_rows.shown(rows, int(position))
        if unread:  # its arrays hold nothing but zeros
            row |= {field.name: None for field in rows.schema if isinstance(field.type, pa.BaseExtensionType)}
        kept.append({"position": int(position), "reason": why, "row": row})
    return BadRows(len(positions), kept, _counted(block, reasons), _targets(block, positions, schema))


def _counted(block: pa.Table, reasons: Reasons) -> Counter[str]:
    """For what -> how many rows; a row that could not be read is bad for that alone."""
    is_read = np.ones(block.num_rows, bool)
    num_rows: Counter[str] = Counter()
    if BAD in block.column_names:
        is_read = block[BAD].is_null().to_numpy()
        num_rows += remedies.unread_reasons(block[BAD].drop_null())
    for mask, reason in reasons:
        num_rows[reason] += int(np.count_nonzero(mask & is_read))
    return +num_rows


def _targets(block: pa.Table, positions: np.ndarray, schema: Schema) -> Targets:
    """The targets of bad rows, as far as they are known."""
    rows = block.take(pa.array(positions))
    targets = Targets()
    name, *others = schema.targets
    if others or schema.task == "multi_label":  # told row by row alone
        return targets
    column = _column_of(columns.by_name(rows), name, rows.num_rows)
    there = column.drop_null()
    if BAD in block.column_names:
        is_unknown = pc.and_(rows[BAD].is_valid(), column.is_null(nan_is_null=True))
        targets.num_unknown = is_unknown.filter(is_unknown).length()
    if schema.task == "classification":
        targets.classes = Counter({label: count for label, count in columns.counts(there).items() if label == label})
    elif schema.task == "regression":
        values, _ = columns.scalars(there, "float64")
        values = values[np.isfinite(values)]
        targets.sum, targets.num = float(values.sum()), len(values)
    return targets
