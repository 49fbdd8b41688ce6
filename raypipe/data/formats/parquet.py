"""Parquet: only the columns needed are read, and only row groups that may hold rows that are wanted."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from raypipe.data.formats.base import FileFormat
from raypipe.data.formats.datasource import BLOCK_BYTES
from raypipe.data.formats.parts import FileRange, as_range, readable
from raypipe.data.formats.selecting import may_meet
from raypipe.data.sources.files import HTTP, open_file
from raypipe.data.sources.place import SourceFile
from raypipe.data.table import nested
from raypipe.data.table.chosen import chosen_columns
from raypipe.spec.sources import Condition, ParquetSource

MAX_ROWS = 2**17
"""Rows decoded at once; few enough for wide rows, whose size in memory the file does not tell."""

MAX_DICTIONARY = 2**16
"""Bytes of a stored dictionary beyond which values do not repeat enough; a writer that gives up leaves a larger one."""


class Parquet(FileFormat):
    def divided(self, file: SourceFile, source: ParquetSource) -> list[FileRange]:
        """A large file in neighbouring row groups of about BLOCK_BYTES before compression; a small one whole."""
        if file.size_bytes is None or file.size_bytes <= BLOCK_BYTES or file.uri.startswith(HTTP):
            return [FileRange(file, file.size_bytes)]
        with readable(file.name, "Parquet"), open_file(file) as handle, pq.ParquetFile(handle) as parquet:
            groups = [parquet.metadata.row_group(i) for i in range(parquet.num_row_groups)]
        ranges: list[FileRange] = []
        start = raw = stored = num_rows = 0
        for i, group in enumerate(groups):
            raw += group.total_byte_size
            num_rows += group.num_rows
            stored += sum(group.column(c).total_compressed_size for c in range(group.num_columns))
            if raw >= BLOCK_BYTES or i == len(groups) - 1:
                ranges.append(FileRange(file, stored, start, i + 1, num_rows))
                start, raw, stored, num_rows = i + 1, 0, 0, 0
        return ranges or [FileRange(file, file.size_bytes)]

    def read_file(self, part: FileRange | SourceFile, *, source: ParquetSource) -> Iterator[pa.Table]:
        return read_file(part, source=source)

    def rows_per_byte(self, part: FileRange, source: ParquetSource) -> float | None:
        if not part.file.size_bytes or part.file.uri.startswith(HTTP):
            return None
        with readable(part.name, "Parquet"), open_file(part.file) as handle:
            return pq.read_metadata(handle).num_rows / part.file.size_bytes


def read_file(part: FileRange | SourceFile, *, source: ParquetSource) -> Iterator[pa.Table]:
    """One file or some of its row groups, in tables of bounded size.

    Raises:
        DataError: not a Parquet file, damaged, or a named column is missing.
    """
    part = as_range(part)
    with readable(part.name, "Parquet"), open_file(part.file) as handle:
        metadata = pq.read_metadata(handle)
        parquet = pq.ParquetFile(
            handle, metadata=metadata, read_dictionary=_repeating(metadata), page_checksum_verification=True
        )
        schema = nested.flat_schema(parquet.schema_arrow)
        chosen = chosen_columns(schema, source, part.name)
        stop = parquet.num_row_groups if part.stop is None else part.stop
        groups = [i for i in range(part.start, stop) if _may_hold(parquet.metadata.row_group(i), source.where, schema)]
        is_empty = True
        for batch in parquet.iter_batches(
            batch_size=_num_rows(parquet.metadata, groups), row_groups=groups, columns=chosen.names, use_threads=False
        ):
            is_empty = False
            yield chosen.table_of(pa.Table.from_batches([batch]), part.name)
        if is_empty:
            yield chosen.table_of(schema.empty_table(), part.name)


def _repeating(metadata: Any) -> list[str]:
    """Columns of text whose few distinct values the file keeps as a dictionary: they are left encoded."""
    groups = [metadata.row_group(i) for i in range(metadata.num_row_groups)]
    chosen: list[str] = []
    for i in range(metadata.num_columns):
        column = metadata.schema.column(i)
        is_text = column.physical_type == "BYTE_ARRAY" and column.logical_type.type == "STRING"
        if is_text and column.max_repetition_level == 0 and groups:
            chunks = [group.column(i) for group in groups]
            if all(chunk.has_dictionary_page and _dictionary_bytes(chunk) <= MAX_DICTIONARY for chunk in chunks):
                chosen.append(column.path)
    return chosen


def _dictionary_bytes(chunk: Any) -> int:
    return chunk.data_page_offset - chunk.dictionary_page_offset


def _num_rows(metadata: Any, groups: Sequence[int]) -> int:
    """Rows of about BLOCK_BYTES."""
    chosen = [metadata.row_group(i) for i in groups]
    num_bytes = sum(group.total_byte_size for group in chosen)
    num_rows = sum(group.num_rows for group in chosen)
    return min(MAX_ROWS, max(1, BLOCK_BYTES * num_rows // max(1, num_bytes)))


def _may_hold(group: Any, where: Sequence[Condition], schema: pa.Schema) -> bool:
    """Whether the statistics of a row group allow a row that meets all conditions."""
    by_name = {group.column(i).path_in_schema: group.column(i) for i in range(group.num_columns)} if where else {}
    return all(_may_meet(by_name[c.column], c, schema.field(c.column).type) for c in where if c.column in by_name)


def _may_meet(chunk: Any, condition: Condition, column_type: pa.DataType) -> bool:
    stats = chunk.statistics
    if stats is None:
        return True
    num_null = stats.null_count if stats.has_null_count else None
    if condition.op == "is_null":  # NaN counts as missing, and no statistics tell of it
        return num_null != 0 or pa.types.is_floating(column_type)
    if num_null == chunk.num_values and chunk.num_values:
        return False
    if condition.op == "not_null" or not stats.has_min_max:
        return True
    try:
        low, high = stats.min, stats.max
    except (OverflowError, ValueError, pa.ArrowException):  # a date that Python has no word for
        return True
    if low != low or high != high:
        return True  # NaN
    return may_meet(condition, low, high, column_type)
