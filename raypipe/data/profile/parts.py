"""What some rows hold in each column, in a few numbers that those of other rows can be merged with.

Merged in any order and grouping, the same parts give the same bits: counts, extremes and a sample of the rows with the
smallest row ids are exact, and sums add up without rounding.  B rows, n values.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute

from raypipe.data.table.row_hash import Values
from raypipe.data.table.sums import Sums, sums

pc: Any = pyarrow.compute  # its functions are made at run time, which type checkers do not see

SAMPLE_ROWS = 10_000
"""Distinct rows of the sample: those with the smallest row ids, each with its number of copies."""

MAX_DISTINCT = 1000
"""Columns with no more values are counted value by value, and then nothing rests on the sample."""

MAX_TEXT = 256
"""Texts longer than that are not counted one by one."""

SHOWN_TEXT = 100
_PROBE_ROWS = 4096
_NARROW = 2**16


@dataclass(frozen=True)
class ColumnPart:
    """What some rows hold in one column.

    Attributes:
        counts: value -> rows; None where there are more than MAX_DISTINCT, or a text is longer than MAX_TEXT.
        sample: values of the sampled rows, missing ones too: numpy [s], or text (cut after SHOWN_TEXT) as Arrow.
        lengths: text: fewest, most and all characters.
    """

    dtype: str
    shape: tuple[int, ...]
    count: int
    nulls: int
    infinite: int = 0
    zeros: int = 0
    min: Any = None
    max: Any = None
    sums: Sums = field(default_factory=Sums)
    counts: Counter[Any] | None = None
    sample: Values | None = None
    lengths: tuple[int, int, int] | None = None


@dataclass(frozen=True)
class ProfilePart:
    """What some rows hold; parts merge in any order.

    Attributes:
        row_id: uint64 [s], ids of the sampled rows, sorted, each once; copies: int64 [s], rows with that id.
        is_all: whether the sample is all rows.
    """

    num_rows: int
    row_id: np.ndarray
    copies: np.ndarray
    is_all: bool
    columns: dict[str, ColumnPart]


def part(values: Mapping[str, Values], row_id: np.ndarray) -> ProfilePart:
    """Summarise rows.

    Args:
        values: name -> values of B rows; missing numbers are NaN. Text may be dictionary-encoded, which saves the
            time to count it.
        row_id: uint64 [B]; rows with equal ids hold equal values.
    """
    ids, rows, copies = _smallest(row_id)
    columns = {name: _column_part(column, rows) for name, column in values.items()}
    return ProfilePart(len(row_id), ids, copies, int(copies.sum()) == len(row_id), columns)


def merge(parts: Sequence[ProfilePart]) -> ProfilePart:
    """One part for the rows of all; at least one part, all with the same columns."""
    if len(parts) == 1:
        return parts[0]
    every_id = np.concatenate([p.row_id for p in parts])
    ids, rows, inverse = np.unique(every_id, return_index=True, return_inverse=True)
    copies = np.zeros(len(ids), np.int64)
    np.add.at(copies, inverse, np.concatenate([p.copies for p in parts]))
    ids, rows, copies = ids[:SAMPLE_ROWS], rows[:SAMPLE_ROWS], copies[:SAMPLE_ROWS]
    num_rows = sum(p.num_rows for p in parts)
    columns = {name: _merged([p.columns[name] for p in parts], rows) for name in parts[0].columns}
    return ProfilePart(num_rows, ids, copies, int(copies.sum()) == num_rows, columns)


def _smallest(row_id: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The SAMPLE_ROWS smallest different ids, a row of each, and how many rows have it."""
    wanted = SAMPLE_ROWS
    while wanted < len(row_id):
        limit = np.partition(row_id, wanted - 1)[wanted - 1]
        rows = np.flatnonzero(row_id <= limit)
        ids, first, copies = np.unique(row_id[rows], return_index=True, return_counts=True)
        if len(ids) >= SAMPLE_ROWS:
            return ids[:SAMPLE_ROWS], rows[first[:SAMPLE_ROWS]], copies[:SAMPLE_ROWS].astype(np.int64)
        wanted *= 4
    ids, first, copies = np.unique(row_id, return_index=True, return_counts=True)
    return ids[:SAMPLE_ROWS], first[:SAMPLE_ROWS], copies[:SAMPLE_ROWS].astype(np.int64)


# --- one column of one block -----------------------------------------------------------------------------------------


def _column_part(values: Values, rows: np.ndarray) -> ColumnPart:
    if not isinstance(values, np.ndarray):
        return _text_part(values, rows)
    if values.dtype.kind == "f":
        values = values + 0.0  # -0.0 becomes 0.0
    shape = tuple(values.shape[1:])
    there, nulls, infinite = _finite(values.reshape(-1))
    is_empty = not len(there)
    return ColumnPart(
        dtype=values.dtype.name,
        shape=shape,
        count=values.size,
        nulls=nulls,
        infinite=infinite,
        zeros=len(there) - int(np.count_nonzero(there)),
        min=None if is_empty else there.min().item(),
        max=None if is_empty else there.max().item(),
        sums=sums(there),
        counts=None if shape else _number_counts(there),
        sample=None if shape else values[rows],
    )


def _finite(values: np.ndarray) -> tuple[np.ndarray, int, int]:
    """The finite values, and how many are missing and infinite."""
    if values.dtype.kind != "f":
        return values, 0, 0
    finite = np.isfinite(values)
    if finite.all():
        return values, 0, 0
    nulls = int(np.isnan(values).sum())
    there = values[finite]
    return there, nulls, len(values) - nulls - len(there)


def _number_counts(values: np.ndarray) -> Counter[Any] | None:
    if len(np.unique(values[:_PROBE_ROWS])) > MAX_DISTINCT:
        return None
    if values.dtype.kind in "iu" and len(values):
        low = int(values.min())
        if int(values.max()) - low < _NARROW:
            wide = values if values.dtype.itemsize == 8 else values.astype(np.int64)
            counts = np.bincount((wide - wide.dtype.type(low)).astype(np.int64))
            distinct = np.flatnonzero(counts)
            if len(distinct) > MAX_DISTINCT:
                return None
            return Counter({low + int(v): int(counts[v]) for v in distinct})
    found = pc.value_counts(pa.array(values))
    if len(found) > MAX_DISTINCT:
        return None
    return Counter(dict(zip(found.field("values").to_pylist(), found.field("counts").to_pylist(), strict=True)))


def _text_part(values: Any, rows: np.ndarray) -> ColumnPart:
    is_encoded = isinstance(values, pa.DictionaryArray)
    sample = values.take(pa.array(rows))
    sample = pc.utf8_slice_codeunits(sample.dictionary_decode() if is_encoded else sample, 0, SHOWN_TEXT)
    if is_encoded or len(pc.unique(values.slice(0, _PROBE_ROWS).drop_null())) <= MAX_DISTINCT:
        encoded = values if is_encoded else values.dictionary_encode()
        weights = np.bincount(encoded.indices.drop_null().to_numpy(), minlength=len(encoded.dictionary))
        used = np.flatnonzero(weights)
        texts, weights = encoded.dictionary.take(pa.array(used)), weights[used]
        nulls = len(values) - int(weights.sum())
    else:
        texts, weights, nulls = values.drop_null(), None, values.null_count
    lengths = _lengths(texts, weights)
    counts = None
    if weights is not None and len(texts) <= MAX_DISTINCT and (lengths is None or lengths[1] <= MAX_TEXT):
        counts = Counter(dict(zip(texts.to_pylist(), weights.tolist(), strict=True)))
    return ColumnPart(
        dtype="string",
        shape=(),
        count=len(values),
        nulls=nulls,
        counts=counts,
        sample=sample,
        lengths=lengths,
    )


def _lengths(texts: pa.Array, weights: np.ndarray | None) -> tuple[int, int, int] | None:
    if not len(texts):
        return None
    characters = pc.utf8_length(texts).to_numpy().astype(np.int64)
    total = characters.sum() if weights is None else characters @ weights
    return int(characters.min()), int(characters.max()), int(total)


# --- merging ---------------------------------------------------------------------------------------------------------


def _merged(parts: Sequence[ColumnPart], rows: np.ndarray) -> ColumnPart:
    """`rows` of the samples, one after the other, are kept."""
    samples = [p.sample for p in parts if p.sample is not None]
    lengths = [p.lengths for p in parts if p.lengths is not None]
    return ColumnPart(
        dtype=parts[0].dtype,
        shape=parts[0].shape,
        count=sum(p.count for p in parts),
        nulls=sum(p.nulls for p in parts),
        infinite=sum(p.infinite for p in parts),
        zeros=sum(p.zeros for p in parts),
        min=min((p.min for p in parts if p.min is not None), default=None),
        max=max((p.max for p in parts if p.max is not None), default=None),
        sums=sum((p.sums for p in parts), Sums()),
        counts=_all_counts([p.counts for p in parts]),
        sample=_taken(samples, rows) if samples else None,
        lengths=(min(n[0] for n in lengths), max(n[1] for n in lengths), sum(n[2] for n in lengths))
        if lengths
        else None,
    )


def _all_counts(counts: Sequence[Counter[Any] | None]) -> Counter[Any] | None:
    total: Counter[Any] = Counter()
    for more in counts:
        if more is None:
            return None
        total.update(more)
        if len(total) > MAX_DISTINCT:
            return None
    return total


def _taken(samples: Sequence[Any], rows: np.ndarray) -> Values:
    if isinstance(samples[0], np.ndarray):
        return np.concatenate(samples)[rows]
    return pa.concat_arrays(samples).take(pa.array(rows))
