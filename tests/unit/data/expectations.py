"""Expectations as a file gives them, and what is judged of rows that come in blocks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
from pydantic import TypeAdapter

from raypipe.data.checks.duplicates import find_duplicates, key_parts, keys_of
from raypipe.data.checks.expectations import tallies, violations
from raypipe.data.checks.rule import BlockTallies
from raypipe.data.checks.verdicts import judge, judge_count
from raypipe.data.table.columns import ColumnKind
from raypipe.data.table.row_hash import Values, row_hash
from raypipe.records import ExpectationResult
from raypipe.spec.expectations import Expectation

NAN = float("nan")

KINDS = {
    "age": ColumnKind("int64"),
    "pay": ColumnKind("float64"),
    "name": ColumnKind("string"),
    "on": ColumnKind("bool"),
    "image": ColumnKind("uint8", "[2, 2]"),
}
"""The columns of a table."""

EXPECTATIONS: TypeAdapter[list[Any]] = TypeAdapter(list[Expectation])


def parsed(*fields: Mapping[str, Any]) -> list[Any]:
    """The expectations of data.expectations."""
    return EXPECTATIONS.validate_python(list(fields))


def as_values(columns: Mapping[str, Any]) -> dict[str, Values]:
    """Columns as the data stage holds them: lists are text."""
    return {n: pa.array(v, pa.string()) if isinstance(v, list) else np.asarray(v) for n, v in columns.items()}


def dtypes_of(values: Mapping[str, Values]) -> dict[str, str]:
    """The types of such columns."""
    return {n: "string" if isinstance(v, pa.Array) else v.dtype.name for n, v in values.items()}


def results(
    columns: Mapping[str, Any],
    *fields: Mapping[str, Any],
    cuts: Sequence[int] = (),
    num_parts: int = 3,
    sources: Sequence[str] = (),
) -> tuple[ExpectationResult, ...]:
    """What the driver judges of rows cut into blocks."""
    expectations = parsed(*fields)
    values = as_values(columns)
    num_rows = len(next(iter(values.values())))
    row_id = row_hash(values)
    blocks, keys = [], []
    for i, (start, end) in enumerate(pairwise([0, *cuts, num_rows])):
        some = {name: v[start:end] for name, v in values.items()}
        found = violations(some, dtypes_of(some), expectations)
        source = sources[i] if sources else "source"
        blocks.append(BlockTallies(end - start, tallies(found, some), source))
        position, ids = np.arange(end - start), row_id[start:end]
        keys.append(
            {
                index: key_parts(keys_of(some, e.columns, np.ones(end - start, bool)), ids, ids, position, num_parts)
                for index, e in enumerate(expectations)
                if e.kind == "unique"
            }
        )
    duplicates = {
        index: [find_duplicates([key[index][part] for key in keys])[0] for part in range(num_parts)]
        for index in keys[0]
    }
    found = (*judge(expectations, blocks, KINDS, duplicates), *judge_count(expectations, num_rows))
    return tuple(sorted(found, key=lambda result: result.index))
