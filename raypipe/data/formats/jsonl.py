"""JSON lines: one object a line; also a JSON array of objects, and objects over several lines.

Fields of objects within are columns of their own, `user.age`; lists of numbers become tensors, and lists of texts stay.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from contextlib import closing
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute
import pyarrow.json as pajson

from raypipe.data.formats import json_types
from raypipe.data.formats.base import FileFormat
from raypipe.data.formats.chunk import Chunk
from raypipe.data.formats.datasource import ReadPart
from raypipe.data.formats.json_documents import JsonRows, begins_document, refuse_wrapped
from raypipe.data.formats.json_misfits import Judged, is_of, judge, objects
from raypipe.data.formats.lines import lines_per_byte, ranges
from raypipe.data.formats.parts import FileRange, as_range, readable
from raypipe.data.masking import UNMASKED, Masking
from raypipe.data.sources.place import SourceFile
from raypipe.data.table import columns
from raypipe.data.table.marks import ABSENT_KEY, with_bad, with_left_out
from raypipe.data.table.names import needed, refuse_unusable, unusable_names
from raypipe.data.table.nested import flattened
from raypipe.data.table.normal_form import refused_types
from raypipe.data.table.one_type import AskedJsonl
from raypipe.spec.sources import JsonlSource

pc: Any = pyarrow.compute  # its functions are made at run time, which type checkers do not see

MAX_DEPTH = 64
"""Deeper objects and arrays are bad rows: Arrow's parser ends the process at some thousands."""

STRING = re.compile(rb'"(?:[^"\\]|\\.)*"', re.DOTALL)


class Jsonl(FileFormat):
    def plan(
        self, source: JsonlSource, root: str, masking: Masking = UNMASKED, is_judged: bool = False
    ) -> tuple[Sequence[FileRange], ReadPart[Any]]:
        parts, _ = super().plan(source, root, masking, is_judged)
        return parts, partial(read_file, source=source, masked=masking.names, is_judged=is_judged)

    def divided(self, file: SourceFile, source: JsonlSource) -> list[FileRange]:
        parts = ranges([file])
        return parts if len(parts) == 1 or not begins_document(file) else ranges([file], divisible=False)

    def read_file(self, part: FileRange | SourceFile, *, source: JsonlSource) -> Iterator[pa.Table]:
        return read_file(part, source=source)

    def rows_per_byte(self, part: FileRange, source: JsonlSource) -> float | None:
        return lines_per_byte(part.file)


def read_file(
    part: FileRange | SourceFile, *, source: JsonlSource, masked: Sequence[str] = (), is_judged: bool = False
) -> Iterator[pa.Table]:
    """One file or a range of it, in tables of some megabytes.

    A blank line between two others is a row without values, at the ends of the file it is nothing.  Lines that are no
    JSON object, and values that are not of their declared type, or not of the type most have, are marked as bad.

    Args:
        masked: columns that must be there besides those the source names.
        is_judged: a column that no row of the whole source has is refused later (cutting.refuse_absent), so that a file
            may lack it; else a file that is one chunk is left without it, which reading on refuses.
    Raises:
        DataError: bytes that cannot be decompressed.
    """
    part = as_range(part)
    hint = "one JSON object a line, each field of one type throughout"
    asked = [*(source.asked if isinstance(source, AskedJsonl) else ()), *(needed(source) or ())]
    named = [*(needed(source) or ()), *(condition.column for condition in source.where), *masked]
    with readable(part.name, "JSON lines", hint), closing(JsonRows(part, source.max_row_bytes)) as rows:
        parser = JsonParser(part.name, source, named)
        for number, chunk in enumerate(rows.chunks()):
            is_first = part.start == 0 and number == 0
            is_whole = is_first and rows.is_at_end
            table = parser.parse(chunk)
            if is_whole and len(chunk) == 1 and 0 not in chunk.unread:
                refuse_wrapped(json.loads(chunk.row(0)), asked, part.name)
            yield table if is_whole and not is_judged else _with_columns(table, named)


def _with_columns(table: pa.Table, names: Sequence[str]) -> pa.Table:
    """The table with a column for each name: that a part of a file has none of a field does not mean there is none."""
    there = frozenset(table.column_names)
    absent = [name for name in dict.fromkeys(names) if name not in there]
    metadata = {**(table.schema.metadata or {}), ABSENT_KEY: json.dumps(absent)}
    if not absent:
        return table.replace_schema_metadata(metadata)
    arrays = [*table.columns, *(pa.nulls(table.num_rows) for _ in absent)]
    fields = [*table.schema, *(pa.field(name, pa.null()) for name in absent)]
    return pa.table(arrays, schema=pa.schema(fields, metadata))


class JsonParser:
    """Chunks of one file -> tables.

    Args:
        named: columns that are asked for whatever the source says.
    """

    def __init__(self, file: str, source: JsonlSource, named: Sequence[str]) -> None:
        self._file, self._source, self._named = file, source, named
        self._declared = {name: pa.type_for_alias(dtype) for name, dtype in source.dtypes.items()}
        self._dates: dict[str, pa.DataType] = {}
        self._asked: frozenset[str] | None = None
        if isinstance(source, AskedJsonl) and not source.others_matter:
            self._asked = frozenset([*source.asked, *named])
        elif source.columns is not None:
            self._asked = frozenset(named)
        self._mixed: dict[str, str] = {}
        self._twice: dict[int, str] = {}
        self._known: pa.Schema | None = None
        """Types of what is asked for, once a field that is not was mixed: Arrow then passes over such fields."""

    def parse(self, chunk: Chunk) -> pa.Table:
        """All rows of a chunk, the unread ones marked."""
        for row in _too_deep(chunk):
            chunk.unread[row] = f"is nested deeper than {MAX_DEPTH}"
        try:
            table = self._read(chunk.replaced(lambda row: b"{}\n"))
        except pa.ArrowInvalid:  # some rows are bad; `judge` finds which
            table = None
        if table is None or table.num_rows != len(chunk):
            judged = judge(chunk, self._source.dtypes, self._asked)
            table = _filled(self._read_judged(chunk, judged), judged.right)
        if guessed := chunk.guessed():
            table = _filled(table, objects(guessed))
        chunk.unread.update(self._twice)
        table = self._usable(table)
        return with_bad(table, {row: f"{self._file}: the row {why}" for row, why in chunk.unread.items() if why})

    def _read(self, data: bytes) -> pa.Table:
        types = json_types.merged(self._dates, json_types.declared(self._declared, data))
        table = self._read_as(data, types)
        if dates := json_types.texts_for_dates(table.schema):  # they stay the text that was written
            self._dates = json_types.merged(self._dates, dates)
            table = self._read_as(data, json_types.merged(dates, types))
        self._schema = table.schema
        return self._one_a_name(flattened(table))

    def _read_as(self, data: bytes, types: dict[str, pa.DataType]) -> pa.Table:
        schema = self._known or (pa.schema(types.items()) if types else None)
        others = "infer" if self._known is None else "ignore"
        return pajson.read_json(
            pa.BufferReader(data),
            pajson.ReadOptions(use_threads=False, block_size=len(data) + 1),
            pajson.ParseOptions(explicit_schema=schema, unexpected_field_behavior=others),
        )

    def _read_judged(self, chunk: Chunk, judged: Judged) -> pa.Table:
        """The rows that are good, without the fields that are mixed and that nobody asked for."""
        self._known = None
        if not judged.mixed:
            return self._read(chunk.replaced(lambda row: b"{}\n"))
        self._mixed |= judged.mixed
        good = [judged.without_mixed(row) if row not in chunk.unread else {} for row in range(len(chunk))]
        table = self._read(b"".join(json.dumps(row).encode() + b"\n" for row in good))
        asked = self._asked or frozenset()
        if asked <= set(table.column_names):
            outer = {name.partition(".")[0] for name in asked} | asked
            self._known = pa.schema([field for field in self._schema if field.name in outer])
        return table

    def _one_a_name(self, table: pa.Table) -> pa.Table:
        """The table with one column for `user.age`, whether rows write it so, or as a field of `user`."""
        self._twice = {}
        names = table.column_names
        for name in unusable_names(names):
            columns_of_name = [table[i] for i, each in enumerate(names) if each == name]
            kind = columns.common([columns.kind(column.type) for column in columns_of_name])
            if kind is None or len(columns_of_name) < 2 or any(_is_odd(column.type) for column in columns_of_name):
                continue  # `_usable` refuses it where it is asked for
            there = np.sum([column.is_valid().to_numpy() for column in columns_of_name], axis=0)
            self._twice |= dict.fromkeys(np.flatnonzero(there > 1).tolist(), f"names the field '{name}' twice")
            wanted = columns.arrow_type(kind)
            one = pc.coalesce(*(column.cast(wanted).combine_chunks() for column in columns_of_name))
            first, *others = (i for i, each in enumerate(names) if each == name)
            table = table.set_column(first, name, one)
            for place in reversed(others):
                table = table.remove_column(place)
            names = table.column_names
        return table

    def _usable(self, table: pa.Table) -> pa.Table:
        """The table without columns that cannot be told apart, or are named as one of ours.

        Raises:
            ColumnRefused: one of them is asked for.
        """
        unusable = unusable_names(table.column_names)
        if not unusable and not self._mixed:
            return table
        refuse_unusable([*self._named, *(self._asked or ())], unusable, self._file)
        places = [i for i, name in enumerate(table.column_names) if name not in unusable]
        return with_left_out(table.select(places), {**self._mixed, **unusable})


def _is_odd(column_type: pa.DataType) -> bool:
    """Whether a column holds objects in lists, which have no kind."""
    return bool(refused_types(pa.schema([("", column_type)])))


def _filled(table: pa.Table, rows: dict[int, dict[str, Any]]) -> pa.Table:
    """The table with the single values of rows that were left out, where they are of the types of the others."""
    if not rows:
        return table
    is_row = np.zeros(table.num_rows, bool)
    is_row[list(rows)] = True
    arrays = table.columns
    for place, field in enumerate(table.schema):
        dtype = str(columns.kind(field.type))
        if dtype in ("bool", "string", *columns.NUMBERS):
            values = [rows[row].get(field.name) for row in sorted(rows)]
            fitting = [_single(value, dtype) for value in values]
            filled = pc.replace_with_mask(
                arrays[place].combine_chunks(), pa.array(is_row), pa.array(fitting, field.type)
            )
            arrays[place] = pa.chunked_array([filled])
    return pa.table(arrays, schema=table.schema)


def _single(value: Any, dtype: str) -> Any:
    """The value as one of the type; None where it is none."""
    if value is None or not is_of(value, dtype):
        return None
    try:
        return float(value) if dtype.startswith("float") else value
    except OverflowError:
        return None


def _too_deep(chunk: Chunk) -> list[int]:
    """Rows that are nested deeper than MAX_DEPTH; only rows with so many brackets are looked at closely."""
    if chunk.data.count(b"[") + chunk.data.count(b"{") <= len(chunk) + MAX_DEPTH - 1:
        return []
    byte = np.frombuffer(chunk.data, np.uint8)
    is_open = (byte == ord("[")) | (byte == ord("{"))
    starts = np.concatenate([[0], chunk.ends[:-1]])
    many = np.flatnonzero(np.add.reduceat(is_open, starts, dtype=np.int64) > MAX_DEPTH)
    return [row for row in many.tolist() if row not in chunk.unread and _depth(chunk.row(row)) > MAX_DEPTH]


def _depth(line: bytes) -> int:
    byte = np.frombuffer(STRING.sub(b"", line), np.uint8)
    step = np.isin(byte, (ord("["), ord("{"))).astype(np.int64) - np.isin(byte, (ord("]"), ord("}")))
    return int(np.cumsum(step).max(initial=0))
