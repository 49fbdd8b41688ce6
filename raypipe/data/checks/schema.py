"""What every row must hold: one schema for all blocks, from the types and shapes of each.

Against it examine.py checks every row of every block, so the outcome does not depend on how rows were cut into blocks.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute

from raypipe.data.checks.expectations import check_columns, columns_of, refuse_undescribed, refuse_unknown
from raypipe.data.table import columns, label_sets
from raypipe.data.table.columns import NUMBERS, ColumnKind
from raypipe.data.table.marks import BAD, FILE_KEY, Notes, absent, leading_zeros, left_out, notes_of
from raypipe.data.table.names import KEY_COLUMNS, ROW_ID, SEEN_ID, refuse_unusable, require
from raypipe.data.table.one_type import MixedTypes, common_kinds
from raypipe.data.table.problems import NeedsNumbers, Problems
from raypipe.data.transforms.passes import check_types
from raypipe.errors import DataError
from raypipe.records import Column
from raypipe.spec.data import DataSpec, LabelSetsSpec

pc: Any = pyarrow.compute  # its functions are made at run time, which type checkers do not see


@dataclass(frozen=True)
class BlockTypes:
    """What one block looks like: types and shapes, no values."""

    file: str
    num_rows: int
    kinds: dict[str, ColumnKind]
    shapes: dict[str, Counter[tuple[int, ...]]]
    absent: frozenset[str] = frozenset()
    left_out: Mapping[str, str] = field(default_factory=dict)
    leading_zeros: Mapping[str, str] = field(default_factory=dict)
    notes: Notes = field(default_factory=dict)
    """These four: see marks.py."""
    num_unread: int = 0
    unread: str = ""
    """Rows that could not be read, and why the first of them."""


@dataclass(frozen=True)
class Schema:
    """What every row must hold.

    Attributes:
        columns: what must hold a value: features, target, and what the split reads.
        others: columns that data.expectations alone name; anything goes.
        whole: columns of whole numbers in every block, whose bits count beyond what float64 tells apart.
        expected: columns that data.expectations name -> the type the files hold, whatever fills their gaps.
        features: the raw columns the model sees, in order.
        weight: the column that says how much a row counts.
        label_sets: how the labels of a row are written; None for other tasks.
    """

    columns: dict[str, Column]
    others: dict[str, Column]
    expected: dict[str, str]
    features: tuple[str, ...]
    targets: tuple[str, ...]
    task: str
    whole: frozenset[str] = frozenset()
    weight: str | None = None
    label_sets: LabelSetsSpec | None = None

    @property
    def target(self) -> str:
        """The targets in words, for messages."""
        return ", ".join(self.targets)

    @property
    def stored(self) -> tuple[str, ...]:
        """The columns that shards keep, in order."""
        return tuple(dict.fromkeys([*self.features, *self.targets, *([self.weight] if self.weight else [])]))

    @property
    def inputs(self) -> tuple[Column, ...]:
        """The feature columns, in order."""
        return tuple(self.columns[name] for name in self.features)


def types_of(block: pa.Table) -> BlockTypes:
    """Types and shapes of a block; reads no values."""
    metadata = block.schema.metadata or {}
    held = {name: column for name, column in columns.by_name(block).items() if name != BAD}
    return BlockTypes(
        file=metadata.get(FILE_KEY, b"the source").decode(),
        num_rows=block.num_rows,
        kinds={name: columns.kind(column.type) for name, column in held.items()},
        shapes={name: columns.shapes(column) for name, column in held.items()},
        absent=absent(block.schema),
        left_out=left_out(block.schema),
        leading_zeros=leading_zeros(block.schema),
        notes=notes_of(block.schema),
        **_unread(block),
    )


def _unread(block: pa.Table) -> dict[str, Any]:
    if BAD not in block.column_names or block[BAD].null_count == block.num_rows:
        return {}
    reasons = block[BAD].drop_null()
    return {"num_unread": len(reasons), "unread": reasons[0].as_py()}


def with_unread(error: DataError, profiles: Sequence[BlockTypes]) -> DataError:
    """An error of columns, with the rows that could not be read, which may be its cause."""
    num_unread = sum(profile.num_unread for profile in profiles)
    if not num_unread:
        return error
    first = next(profile.unread for profile in profiles if profile.unread)
    num_rows = sum(profile.num_rows for profile in profiles)
    return DataError(
        f"{error.message}; {num_unread} of {num_rows} rows could not be read, the first: {first}", error.hint
    )


def schema_of(spec: DataSpec, profiles: Sequence[BlockTypes]) -> Schema:
    """One schema for all blocks.

    Raises:
        DataError: a column is missing, has no value at all, changes its type, or cannot be what the spec says it is;
            tells all such columns.
    """
    kinds = common_kinds([p.kinds for p in profiles], [p.file for p in profiles])
    # With the number of each row no two rows are copies, and a model learns the order of the file.
    for name in [*spec.index_columns(kinds), *_empty_objects(kinds)]:
        del kinds[name]
    reads = [
        *([spec.weight] if spec.weight else []),
        *spec.split.reads,
        *([spec.stratify_by] if spec.stratify_by else []),
    ]
    expected = columns_of(spec.expectations)
    for p in profiles:
        refuse_unusable([*spec.feature_names(p.left_out), *spec.targets, *reads, *expected], p.left_out, p.file)
        for name in p.left_out:
            kinds.pop(name, None)
    there, file = list(kinds), profiles[0].file
    problems = Problems()
    with problems.collected():
        require([*(spec.features or ()), *spec.targets, *reads], there, file)
    with problems.collected():
        refuse_unknown(spec.expectations, there)
    features = tuple(spec.feature_names(there))
    if not features:
        aside = [*spec.split.sets_aside, *spec.masked, *([spec.weight] if spec.weight else [])]
        raise DataError(
            f"{file} has no column beside the target '{', '.join(spec.targets)}'{f' and {aside}' if aside else ''}",
            "add features",
        )
    for name in (*features, *spec.targets, *([spec.weight] if spec.weight else [])):
        if name in (ROW_ID, SEEN_ID, *KEY_COLUMNS):
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
    judged_columns: dict[str, Column] = {}
    for name in dict.fromkeys([*features, *spec.targets, *reads]):
        with problems.collected():
            if name in spec.targets and kinds[name] == columns.TEXTS:
                kinds[name] = ColumnKind("string") if spec.task == "multi_label" else kinds[name]
            column = _column(name, kinds[name], shapes[name], name in imputed)
            if name in spec.targets:
                column = _target_column(column, spec)
            judged_columns[name] = _weight_column(column) if name == spec.weight else column
    problems.refuse()
    rest = [name for name in there if name in expected and name not in judged_columns]
    others = {name: _column(name, kinds[name], shapes[name], True) for name in rest}
    dtypes = {name: kinds[name].dtype for name in expected}
    hashed = [name for name in (*judged_columns, *others) if not _is_time(name, spec)]
    whole = frozenset(name for name in hashed if all(_is_whole(p.kinds.get(name)) for p in profiles))
    return Schema(
        judged_columns, others, dtypes, features, spec.targets, spec.task, whole, spec.weight, spec.stored_label_sets
    )


def fitting_schema(spec: DataSpec, profiles: Sequence[BlockTypes]) -> Schema:
    """`schema_of`, which transforms and expectations fit. Raises DataError, for all columns at once."""
    schema = schema_of(spec, profiles)
    kinds = common_kinds([p.kinds for p in profiles], [p.file for p in profiles])
    problems = Problems()
    with problems.collected():
        check_types(spec.transforms, schema.inputs)
    with problems.collected():
        check_columns(spec.expectations, kinds, schema.columns)
    with problems.collected():
        refuse_undescribed(spec.expectations, schema.stored)
    problems.refuse()
    return schema


def _empty_objects(kinds: Mapping[str, ColumnKind]) -> list[str]:
    """Columns without a value that are objects elsewhere: `user` beside `user.age`."""
    nothing = [name for name, kind in kinds.items() if kind == ColumnKind("null")]
    return [name for name in nothing if any(other.startswith(f"{name}.") for other in kinds)]


def refuse_lost_zeros(schema: Schema, profiles: Sequence[BlockTypes]) -> None:
    """Raise MixedTypes where a column is read as numbers of which some are written with leading zeros: it is text."""
    for profile in profiles:
        for name, text in profile.leading_zeros.items():
            if name in schema.columns and schema.columns[name].dtype != "string":
                what = f"column '{name}' holds numbers in some places and {text!r} in {profile.file}"
                raise MixedTypes(what, f"declare it: data.source.dtypes: {{{json.dumps(name)}: string}}", name)


def _is_time(name: str, spec: DataSpec) -> bool:
    return spec.split.kind == "time" and name == spec.split.column


def _is_whole(kind: ColumnKind | None) -> bool:
    return kind is None or (not kind.form and (kind.dtype == "null" or kind.dtype.startswith(("int", "uint"))))


def _column(name: str, kind: ColumnKind, shapes: Counter[tuple[int, ...]], imputed: bool) -> Column:
    if kind.dtype == "null":
        raise DataError(f"column '{name}' has no value in any row", "leave it out, or correct the source")
    if not kind.form:
        dtype = "float64" if imputed and kind.dtype in NUMBERS else kind.dtype
        return Column(name=name, dtype=dtype, nullable=imputed)
    if kind == columns.TEXTS:
        return Column(name=name, dtype="string", is_list=True)
    usual = max(shapes, key=lambda shape: (shapes[shape], [-size for size in shape]), default=())
    if 0 in usual or not usual:
        raise DataError(f"column '{name}': its arrays are empty or of uneven length", "give every row one shape")
    if kind.dtype not in NUMBERS:
        raise DataError(f"column '{name}' holds {kind}; arrays must hold numbers", "leave it out of data.features")
    return Column(name=name, dtype=kind.dtype, shape=usual)


def _weight_column(column: Column) -> Column:
    if column.shape or column.dtype not in NUMBERS:
        found = f"arrays of shape {list(column.shape)}" if column.shape else column.dtype
        message = f"data.weight: column '{column.name}' holds {found}; how much a row counts is one number"
        hint = "name a column of numbers, or leave data.weight out"
        raise NeedsNumbers(message, hint, column.name) if column.dtype == "string" else DataError(message, hint)
    return column.model_copy(update={"dtype": "float64"})


def _target_column(column: Column, spec: DataSpec) -> Column:
    if column.is_list:
        raise DataError(
            f"the target '{column.name}' holds lists of texts; it must be one value a row", "name another target"
        )
    if column.shape:
        raise DataError(f"the target '{column.name}' holds arrays of shape {column.shape}; it must be one value a row")
    numeric = column.dtype in NUMBERS
    if spec.task == "multi_label":
        return label_sets.stored_column(column, spec)
    if spec.task in ("language_model", "sequence_to_sequence"):
        if column.dtype == "string":
            return column
        raise DataError(
            f"the target '{column.name}' holds {column.dtype}; data.task: {spec.task} writes texts",
            "set data.task: regression or classification, or read it as text: source.dtypes: {column: string}",
        )
    if spec.task == "regression":
        if not numeric:
            message = f"the target '{column.name}' holds {column.dtype}; data.task: regression needs numbers"
            hint = "set data.task: classification, or correct data.target"
            raise NeedsNumbers(message, hint, column.name) if column.dtype == "string" else DataError(message, hint)
        return column.model_copy(update={"dtype": "float64"})
    return column.model_copy(update={"dtype": "int64" if column.dtype.startswith(("int", "uint")) else column.dtype})
