"""Schema and row checks: bad rows are counted, kept aside, bounded.

First every block is profiled (types and shapes only), from that comes one schema for all, and against it every row of
every block is checked.  So the outcome does not depend on how the rows were cut into blocks.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute

from raypipe.data.checks import bad_rows, remedies
from raypipe.data.checks.bad_rows import MAX_KEPT, BadRows
from raypipe.data.checks.expectations import columns_of, refuse_unknown
from raypipe.data.checks.losses import Targets
from raypipe.data.table import columns
from raypipe.data.table.agreement import common_kinds
from raypipe.data.table.columns import NUMBERS, Kind
from raypipe.data.table.hashing import Values
from raypipe.data.table.marks import BAD, FILE_KEY, UNREAD, absent, leading_zeros, left_out
from raypipe.data.table.names import KEY_COLUMNS, ROW_ID, refuse_unusable, require
from raypipe.data.table.problems import NeedsNumbers, Problems
from raypipe.errors import DataError
from raypipe.records import Column
from raypipe.spec.data import DataSpec
from raypipe.spec.splits import HashSplit

pc: Any = pyarrow.compute  # its functions are made at run time, which type checkers do not see

MAX_CLASSES = 100_000

MANY_CLASSES = 30
"""So many whole numbers with gaps between them are more often a quantity than names of classes."""

Reasons = list[tuple[Any, str]]
"""Which rows (bool [B]) are bad, and why."""


@dataclass(frozen=True)
class Profile:
    """What one block looks like."""

    file: str
    num_rows: int
    kinds: dict[str, Kind]
    shapes: dict[str, Counter[tuple[int, ...]]]
    absent: frozenset[str] = frozenset()
    """See reading.absent."""
    left_out: Mapping[str, str] = field(default_factory=dict)
    """See reading.left_out."""
    leading_zeros: Mapping[str, str] = field(default_factory=dict)
    """See reading.leading_zeros."""


@dataclass(frozen=True)
class Schema:
    """What every row must hold.

    Attributes:
        columns: what must hold a value: features, target, and what the split reads.
        others: columns that only help to tell rows apart, or that data.expectations name; anything goes.
        features: the raw columns the model sees, in order.
    """

    columns: dict[str, Column]
    others: dict[str, Column]
    features: tuple[str, ...]
    target: str
    task: str

    @property
    def inputs(self) -> tuple[Column, ...]:
        """The feature columns, in order."""
        return tuple(self.columns[name] for name in self.features)


def profile(block: pa.Table) -> Profile:
    """Types and shapes of a block; reads no values."""
    metadata = block.schema.metadata or {}
    names = [name for name in block.column_names if name != BAD]
    return Profile(
        file=metadata.get(FILE_KEY, b"the source").decode(),
        num_rows=block.num_rows,
        kinds={name: columns.kind(block.schema.field(name).type) for name in names},
        shapes={name: columns.shapes(block[name]) for name in names},
        absent=absent(block.schema),
        left_out=left_out(block.schema),
        leading_zeros=leading_zeros(block.schema),
    )


def schema_of(spec: DataSpec, profiles: Sequence[Profile]) -> Schema:
    """One schema for all blocks.

    Raises:
        DataError: a column is missing, has no value at all, changes its type, or cannot be what the spec says it is;
            tells all such columns.
    """
    kinds = common_kinds([p.kinds for p in profiles], [p.file for p in profiles])
    # With the number of each row no two rows are copies, and a model learns the order of the file.
    for name in spec.index_columns(kinds):
        del kinds[name]
    reads = [*spec.split.reads, *([spec.stratify_by] if spec.stratify_by else [])]
    expected = columns_of(spec.expectations)
    for p in profiles:
        refuse_unusable([*spec.feature_names(p.left_out), spec.target, *reads, *expected], p.left_out, p.file)
        for name in p.left_out:
            kinds.pop(name, None)
    there, file = list(kinds), profiles[0].file
    key = tuple(spec.split.key or ()) if isinstance(spec.split, HashSplit) else ()
    problems = Problems()
    with problems.collected():
        require([*(spec.features or ()), spec.target, *reads], there, file)
    with problems.collected():
        refuse_unknown(spec.expectations, there)
    features = tuple(spec.feature_names(there))
    if not features:
        aside = [*spec.split.sets_aside, *spec.masked]
        raise DataError(
            f"{file} has no column beside the target '{spec.target}'{f' and {aside}' if aside else ''}", "add features"
        )
    for name in (*features, spec.target):
        if name in (ROW_ID, *KEY_COLUMNS):
            raise DataError(
                f"{file}: column '{name}' has a name that raypipe uses itself",
                "leave it out: name the columns you need in data.features or data.source.columns",
            )
    for transform in spec.transforms:
        with problems.collected():
            require(transform.columns, features, f"data.transforms ({transform.kind})")
    problems.refuse()
    imputed = {name for t in spec.transforms if t.kind == "impute" for name in t.columns}
    shapes: dict[str, Counter[tuple[int, ...]]] = {name: Counter() for name in kinds}
    for p in profiles:
        for name in shapes.keys() & p.shapes.keys():
            shapes[name].update(p.shapes[name])
    found: dict[str, Column] = {}
    for name in dict.fromkeys([*features, spec.target, *reads]):
        with problems.collected():
            column = _column(name, kinds[name], shapes[name], name in imputed)
            found[name] = _target_column(column, spec) if name == spec.target else column
    problems.refuse()
    wanted = [name for name in there if name in expected or (not key and kinds[name].dtype != "null")]
    rest = [name for name in wanted if name not in found]
    others = {name: _column(name, kinds[name], shapes[name], True) for name in rest}
    return Schema(found, others, features, spec.target, spec.task)


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
    for name, column in schema.columns.items():
        found = _column_of(block, name)
        values[name] = _checked(found, column, reasons)
        if name == schema.target:
            values[name] = _target_values(values[name], schema, found.type)
    for name, column in schema.others.items():
        values[name] = _checked(_column_of(block, name), column, [])
    return values, reasons


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


def _column_of(block: pa.Table, name: str) -> pa.ChunkedArray:
    return block[name] if name in block.column_names else pa.chunked_array([pa.nulls(block.num_rows)])


def refuse_no_classes(labels: Mapping[Any, int], target: str) -> None:
    """Raise DataError when a target holds more different values than classes can be."""
    if len(labels) > MAX_CLASSES:
        raise DataError(
            f"target '{target}' holds more than {MAX_CLASSES} different values, which are no classes",
            "set data.task: regression, or correct data.target",
        )


def quantity_note(labels: Mapping[Any, int], target: str) -> str:
    """What to say of class labels that look like a quantity; empty where they do not.

    Args:
        labels: class -> rows, of all rows.
    """
    is_whole = all(isinstance(label, int) and not isinstance(label, bool) for label in labels)
    if not is_whole or len(labels) < MANY_CLASSES or max(labels) - min(labels) + 1 == len(labels):
        return ""
    return (
        f"'{target}' holds {len(labels)} different whole numbers from {min(labels)} to {max(labels)}, each of which is "
        "a class: if it is a quantity, set data.task: regression"
    )


def _column(name: str, kind: Kind, shapes: Counter[tuple[int, ...]], imputed: bool) -> Column:
    if kind.dtype == "null":
        raise DataError(f"column '{name}' has no value in any row", "leave it out, or correct the source")
    if not kind.form:
        dtype = "float64" if imputed and kind.dtype in NUMBERS else kind.dtype
        return Column(name=name, dtype=dtype, nullable=imputed)
    usual = max(shapes, key=lambda shape: (shapes[shape], [-size for size in shape]), default=())
    if 0 in usual or not usual:
        raise DataError(f"column '{name}': its arrays are empty or of uneven length", "give every row one shape")
    if kind.dtype not in NUMBERS:
        raise DataError(f"column '{name}' holds {kind}; arrays must hold numbers", "leave it out of data.features")
    return Column(name=name, dtype=kind.dtype, shape=usual)


def _target_column(column: Column, spec: DataSpec) -> Column:
    if column.shape:
        raise DataError(f"the target '{column.name}' holds arrays of shape {column.shape}; it must be one value a row")
    numeric = column.dtype in NUMBERS
    if spec.task == "regression":
        if not numeric:
            message = f"the target '{column.name}' holds {column.dtype}; data.task: regression needs numbers"
            hint = "set data.task: classification, or correct data.target"
            raise NeedsNumbers(message, hint, column.name) if column.dtype == "string" else DataError(message, hint)
        return column.model_copy(update={"dtype": "float64"})
    return column.model_copy(update={"dtype": "int64" if column.dtype.startswith(("int", "uint")) else column.dtype})


def _checked(arrow: pa.ChunkedArray, column: Column, reasons: Reasons) -> Values:
    """Values of all rows of one column; what is wrong with which row goes to `reasons`."""
    if column.dtype == "string":
        text, missing = columns.strings(arrow)
        if not column.nullable:
            reasons.append((missing, remedies.missing(column.name)))
        return text
    if column.shape:
        values, misfit = columns.tensors(arrow, column.dtype, column.shape)
        reasons.append((misfit, f"'{column.name}' is missing, has gaps, or is not of shape {list(column.shape)}"))
    else:
        values, missing = columns.scalars(arrow, "float64" if column.nullable else column.dtype)
        if not column.nullable:
            reasons.append((missing, remedies.missing(column.name)))
    if values.dtype.kind == "f":
        if column.shape:
            per_row = values.reshape(len(values), -1) if values.size else values.reshape(len(values), 0)
            reasons.append((np.isinf(per_row).any(axis=1), f"'{column.name}' is infinite"))
            reasons.append((np.isnan(per_row).any(axis=1), f"'{column.name}' holds NaN"))
        else:
            reasons.append((np.isinf(values), f"'{column.name}' is infinite"))
    return values


def _target_values(values: Values, schema: Schema, found: pa.DataType) -> Values:
    """Class labels that were kept as floats (a column of whole numbers with gaps) become integers.

    Args:
        found: the type the file gave them.
    """
    if schema.task == "regression" or isinstance(values, pa.Array):
        return values
    if pa.types.is_uint64(found) and values.dtype.kind == "i":
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
    rows = block.select([name for name in (*schema.columns, *schema.others) if name in block.column_names])
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
    found: Counter[str] = Counter()
    if BAD in block.column_names:
        is_read = block[BAD].is_null().to_numpy()
        found += remedies.unread_reasons(block[BAD].drop_null())
    for mask, reason in reasons:
        found[reason] += int(np.count_nonzero(mask & is_read))
    return +found


def _targets(block: pa.Table, positions: np.ndarray, schema: Schema) -> Targets:
    """The targets of bad rows, as far as they are known."""
    rows = block.take(pa.array(positions))
    column = _column_of(rows, schema.target)
    there = column.drop_null()
    found = Targets()
    if BAD in block.column_names:
        is_unknown = pc.and_(rows[BAD].is_valid(), column.is_null(nan_is_null=True))
        found.num_unknown = is_unknown.filter(is_unknown).length()
    if schema.task == "classification":
        found.classes = Counter({label: count for label, count in columns.counts(there).items() if label == label})
    else:
        values, _ = columns.scalars(there, "float64")
        values = values[np.isfinite(values)]
        found.sum, found.num = float(values.sum()), len(values)
    return found
