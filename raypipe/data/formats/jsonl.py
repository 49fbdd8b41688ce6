"""JSON lines: one object a line; arrays of numbers become tensors."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing, suppress
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute
import pyarrow.json as pajson

from raypipe.data.formats.base import FileFormat
from raypipe.data.formats.chunk import Chunk
from raypipe.data.formats.datasource import ReadPart
from raypipe.data.formats.json_rows import json_object, reason, shown
from raypipe.data.formats.lines import RowReader, line_ends, lines_per_byte, ranges
from raypipe.data.formats.parts import FileRange, as_range, readable
from raypipe.data.masking import UNMASKED, Masking
from raypipe.data.sources.place import SourceFile
from raypipe.data.table import columns
from raypipe.data.table.marks import ABSENT_KEY, with_bad
from raypipe.data.table.names import needed, refuse_names
from raypipe.errors import DataError
from raypipe.spec.sources import JsonlSource

pc: Any = pyarrow.compute  # its functions are made at run time, which type checkers do not see

BLANK = b" \t\r\n"
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
        return ranges([file])

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
    named = [*(needed(source) or ()), *(condition.column for condition in source.where), *masked]
    with readable(part.name, "JSON lines", hint), closing(_rows(part, source)) as rows:
        parser = _Parser(part.name, source)
        for number, chunk in enumerate(rows.chunks()):
            is_first = part.start == 0 and number == 0
            is_whole = is_first and rows.is_at_end
            table = parser.parse(chunk)
            if is_first:
                _refuse_document(chunk, part.name)
            yield table if is_whole and not is_judged else _with_columns(table, named)


def _refuse_document(chunk: Chunk, file: str) -> None:
    """Raise DataError when the file begins with an array, or half an object, and hardly a line is an object."""
    num_bad = sum(why is not None for why in chunk.unread.values())
    begins = chunk.row(0).strip(BLANK)
    if num_bad > len(chunk) / 2 and (begins.startswith(b"[") or begins == b"{"):
        what, each = ("a JSON array", ".[]") if begins.startswith(b"[") else ("JSON written over several lines", ".")
        raise DataError(
            f"{file} is {what}, not JSON lines: {num_bad} of its first {len(chunk)} lines are no JSON object",
            f"write each object on a line of its own, e.g. with jq -c '{each}' or pandas' "
            "to_json(orient='records', lines=True)",
        )


def _with_columns(table: pa.Table, names: Sequence[str]) -> pa.Table:
    """The table with a column for each name: that a part of a file has none of a field does not mean there is none."""
    absent = [name for name in dict.fromkeys(names) if name not in table.column_names]
    for name in absent:
        table = table.append_column(name, pa.nulls(table.num_rows))
    return table.replace_schema_metadata({ABSENT_KEY: json.dumps(absent)})


def _rows(part: FileRange, source: JsonlSource) -> RowReader:
    return RowReader(part, line_ends, source.max_row_bytes, BLANK)


class _Parser:
    """Chunks of one file -> tables."""

    def __init__(self, file: str, source: JsonlSource) -> None:
        self._file, self._source = file, source
        self._types = {name: pa.type_for_alias(dtype) for name, dtype in source.dtypes.items()}

    def parse(self, chunk: Chunk) -> pa.Table:
        """All rows of a chunk, the unread ones marked."""
        for row in _too_deep(chunk):
            chunk.unread[row] = f"is nested deeper than {MAX_DEPTH}"
        try:
            table = self._read(chunk)
        except pa.ArrowInvalid:  # some rows are bad; `_judge` finds which
            table = None
        if table is None or table.num_rows != len(chunk):
            misfits = self._judge(chunk)
            table = _filled(self._read(chunk), misfits)
        if guessed := chunk.guessed():
            table = _filled(table, _objects(guessed))
        refuse_names(table.column_names, self._file)
        return with_bad(table, {row: f"{self._file}: the row {why}" for row, why in chunk.unread.items() if why})

    def _read(self, chunk: Chunk) -> pa.Table:
        data = chunk.replaced(lambda row: b"{}\n")
        table = self._read_as(data, self._types)
        dates = {field.name: pa.string() for field in table.schema if pa.types.is_temporal(field.type)}
        if dates:  # they stay the text that was written
            self._types = {**dates, **self._types}
            table = self._read_as(data, self._types)
        return table

    def _read_as(self, data: bytes, types: dict[str, pa.DataType]) -> pa.Table:
        return pajson.read_json(
            pa.BufferReader(data),
            pajson.ReadOptions(use_threads=False, block_size=len(data) + 1),
            pajson.ParseOptions(explicit_schema=pa.schema(types.items()) if types else None),
        )

    def _judge(self, chunk: Chunk) -> dict[int, dict[str, Any]]:
        """Find the rows that are no objects, or hold values of a type that few have.

        Returns:
            What is right in the latter: row -> fields.
        """
        parsed: dict[int, dict[str, Any]] = {}
        for row in range(len(chunk)):
            if row not in chunk.unread:
                try:
                    parsed[row] = json_object(chunk.row(row))
                except (ValueError, RecursionError) as error:
                    chunk.unread[row] = reason(error)
        seen: dict[str, Counter[str]] = {}
        for fields in parsed.values():
            for name, value in fields.items():
                seen.setdefault(name, Counter())[_family(value)] += 1
        usual = {name: _usual(counts) for name, counts in seen.items()}
        right: dict[int, dict[str, Any]] = {}
        for row, fields in parsed.items():
            wrong = {name: why for name, value in fields.items() if (why := self._misfit(name, value, usual[name]))}
            for name, why in wrong.items():
                chunk.unread[row] = f"holds a wrong value: '{name}' is {shown(fields[name])}, {why}"
            if wrong:
                right[row] = {name: value for name, value in fields.items() if name not in wrong}
        return right

    def _misfit(self, name: str, value: Any, usual: str) -> str | None:
        dtype = self._source.dtypes.get(name)
        if value is None:
            return None
        if dtype is not None:
            return None if _is_of(value, dtype) else f"which is no {dtype}"
        family = _family(value)
        if family == usual or (family == "list" and usual.startswith("list")):
            return None
        return f"where most rows hold a {usual}" if family != "mixed list" else "a list of several types"


def _objects(lines: dict[int, str]) -> dict[int, dict[str, Any]]:
    """The lines that are JSON objects."""
    objects: dict[int, dict[str, Any]] = {}
    for row, line in lines.items():
        with suppress(ValueError, RecursionError):
            objects[row] = json_object(line.encode())
    return objects


def _filled(table: pa.Table, rows: dict[int, dict[str, Any]]) -> pa.Table:
    """The table with the single values of rows that were left out, where they are of the types of the others."""
    if not rows:
        return table
    is_row = np.zeros(table.num_rows, bool)
    is_row[list(rows)] = True
    for place, field in enumerate(table.schema):
        dtype = str(columns.kind(field.type))
        if dtype in ("bool", "string", *columns.NUMBERS):
            values = [rows[row].get(field.name) for row in sorted(rows)]
            fitting = [_single(value, dtype) for value in values]
            filled = pc.replace_with_mask(
                table[field.name].combine_chunks(), pa.array(is_row), pa.array(fitting, field.type)
            )
            table = table.set_column(place, field.name, filled)
    return table


def _single(value: Any, dtype: str) -> Any:
    """The value as one of the type; None where it is none."""
    if value is None or not _is_of(value, dtype):
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


def _family(value: Any) -> str:
    """What Arrow keeps in one column."""
    if isinstance(value, list):
        inner = {_family(item) for item in value} - {"null"}
        return "mixed list" if len(inner) > 1 else f"list of {inner.pop()}s" if inner else "list"
    names = {bool: "true/false", int: "number", float: "number", str: "text", dict: "object", type(None): "null"}
    return names[type(value)]


def _usual(counts: Counter[str]) -> str:
    """The family most values have; of equal ones the first that was seen."""
    return next((family for family, _ in counts.most_common() if family not in ("null", "list", "mixed list")), "list")


def _is_of(value: Any, dtype: str) -> bool:
    if dtype in ("string", "bool"):
        return isinstance(value, str if dtype == "string" else bool)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    if dtype.startswith("float"):
        return True
    limits = np.iinfo(dtype)
    return isinstance(value, int) and limits.min <= value <= limits.max
