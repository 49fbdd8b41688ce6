"""Tables in few bytes, to travel and to be stored: whole numbers narrow, text that repeats encoded.

How a packed table is kept depends on its values alone, whatever form they came in; `unpacked` gives back the types of
its columns.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from raypipe.data.table import columns
from raypipe.data.table.columns import ENCODED

_INTEGERS = ("int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64")

_WIDE = b"wide"
"""Field metadata: the type of a whole number that is kept in fewer bytes."""


def packed(table: pa.Table) -> pa.Table:
    """The same rows in few bytes.

    A whole number takes what the smallest and the largest of the column need.  Text that on average is there twice or
    more is encoded, its distinct values sorted; other text is plain.
    """
    for i, field in enumerate(table.schema):
        column = table.column(i)
        if pa.types.is_integer(field.type) and len(column):
            wide = _wide(field)
            narrow = _narrowest(*pc.call_function("min_max", [column]).as_py().values(), wide)
            made = pa.field(field.name, narrow, metadata=_remembered(narrow, wide))
            if not made.equals(field, check_metadata=True):
                table = table.set_column(i, made, column.cast(narrow))
        elif columns.is_text(field.type):
            table = table.set_column(i, field.name, _packed_text(columns.strings(column)[0]))
    return table


def unpacked(table: pa.Table) -> pa.Table:
    """A packed table with the types its columns had; encoded text is ENCODED."""
    for i, field in enumerate(table.schema):
        wide = ENCODED if pa.types.is_dictionary(field.type) else _wide(field)
        if wide != field.type:
            table = table.set_column(i, field.name, table.column(i).cast(wide))
    return table


def concat(tables: Sequence[pa.Table]) -> pa.Table:
    """The rows of packed tables with the same columns, in one chunk a column, which rows are picked fastest from."""
    tables = [table for table in tables if table.num_rows] or tables[:1]
    for i, field in enumerate(tables[0].schema):
        found = [table.column(i) for table in tables]
        common = _common_text(found) if columns.is_text(field.type) else _common_number(found, _wide(field))
        if any(column.type != common for column in found):
            made = pa.field(field.name, common, metadata=_remembered(common, _wide(field)))
            tables = [table.set_column(i, made, table.column(i).cast(common)) for table in tables]
    return pa.concat_tables(tables).unify_dictionaries().combine_chunks()


def most_texts(table: pa.Table) -> int:
    """Distinct texts of the encoded column with the most of them, used or not."""
    encoded = (column for column in table.columns if pa.types.is_dictionary(column.type))
    return max((len(chunk.dictionary) for column in encoded for chunk in column.chunks), default=0)


def picked(table: pa.Table, rows: np.ndarray) -> pa.Table:
    """Rows by position, all of which lie in the table: that is not looked at again."""
    return pc.take(table, pa.array(rows), boundscheck=False)


def to_buffer(table: pa.Table) -> pa.Buffer:
    """The table as an Arrow IPC file."""
    measure = pa.MockOutputStream()
    _write(table, measure)
    written = pa.allocate_buffer(measure.size())  # of the right size: growing it would copy it again and again
    _write(table, pa.FixedSizeBufferWriter(written))
    return written


def from_buffer(data: Any) -> pa.Table:
    """What `to_buffer` wrote, without a copy."""
    return pa.ipc.open_file(pa.BufferReader(data)).read_all()


def _write(table: pa.Table, sink: pa.NativeFile) -> None:
    with pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)


def decoded(table: pa.Table) -> pa.Table:
    """The table with its encoded text as plain text."""
    for i, field in enumerate(table.schema):
        if pa.types.is_dictionary(field.type):
            table = table.set_column(i, field.name, table.column(i).cast(pa.string()))
    return table


def _wide(field: pa.Field) -> Any:
    """The type of a field before it was packed."""
    name = (field.metadata or {}).get(_WIDE)
    return field.type if name is None else pa.type_for_alias(name.decode())


def _remembered(narrow: pa.DataType, wide: pa.DataType) -> dict[bytes, str] | None:
    return {_WIDE: str(wide)} if pa.types.is_integer(narrow) and narrow != wide else None


def _narrowest(low: int, high: int, wide: Any) -> Any:
    """The integer type of fewest bytes that both fit in; where it saves nothing, the type they have."""
    fits = (pa.type_for_alias(name) for name in _INTEGERS if np.iinfo(name).min <= low and high <= np.iinfo(name).max)
    narrow = next(fits, wide)
    return narrow if narrow.bit_width < wide.bit_width else wide


def _common_number(found: Sequence[pa.ChunkedArray], wide: pa.DataType) -> pa.DataType:
    """The type that columns of other than text are put together in."""
    types = {column.type for column in found}
    if len(types) == 1:
        return types.pop()
    limits = [np.iinfo(str(each)) for each in types]
    return _narrowest(min(int(limit.min) for limit in limits), max(int(limit.max) for limit in limits), wide)


def _common_text(found: Sequence[pa.ChunkedArray]) -> pa.DataType:
    """The type that columns of text are put together in: encoded where all are."""
    if any(pa.types.is_string(column.type) for column in found):
        return pa.string()
    first, *others = (chunk.dictionary for column in found for chunk in column.chunks)
    # Where values differ, all together may need wider indices.
    return found[0].type if all(other.equals(first) for other in others) else ENCODED


def _packed_text(array: Any) -> pa.Array:
    encoded = array if isinstance(array, pa.DictionaryArray) else array.dictionary_encode()
    texts = encoded.dictionary
    indices = (encoded.indices.fill_null(-1) if encoded.null_count else encoded.indices).to_numpy()
    used = np.flatnonzero(np.bincount(indices + np.int32(1), minlength=len(texts) + 1)[1:])
    if 2 * len(used) > len(array):
        return array.cast(pa.string())
    used = used[pc.call_function("array_sort_indices", [texts.take(pa.array(used))]).to_numpy()]
    index_type = next(t for t in (pa.int8(), pa.int16(), pa.int32()) if len(used) <= np.iinfo(str(t)).max)
    if not encoded.null_count and np.array_equal(used, np.arange(len(texts))):
        return encoded.cast(pa.dictionary(index_type, pa.string()), safe=False)
    place = np.full(len(texts) + 1, -1, str(index_type))
    place[used] = np.arange(len(used), dtype=place.dtype)
    index = place.take(indices)  # of a missing value: -1, the last
    missing = index < 0 if encoded.null_count else None
    return pa.DictionaryArray.from_arrays(pa.array(index, mask=missing), texts.take(pa.array(used)), safe=False)
