"""Chunks of delimited text as tables: types are inferred over the whole of each, what is declared is kept to."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute
import pyarrow.csv as pacsv

from raypipe.data.formats.chunk import Chunk
from raypipe.data.table.declared import Written, as_type, kept_as, written_as
from raypipe.data.table.marks import with_bad, with_left_out, with_zeros
from raypipe.data.table.names import needed, unusable_names, usable
from raypipe.data.table.spans import READERS
from raypipe.data.table.written_dates import as_iso
from raypipe.spec.csv_settings import CsvSettings
from raypipe.spec.sources import CsvSource

pc: Any = pyarrow.compute  # its functions are made at run time, which type checkers do not see

SHOWN = 80
"""Characters of a value that a message shows."""

MAX_BLANKS = 16
"""Cells of so many blanks or fewer are no value."""

MANY_COLUMNS = 500
"""From here on, where there are fewer rows than columns, the types of columns take longer to find than their values."""

ZEROS = r"^\s*[+-]?0[0-9]"
"""A number with a leading zero."""

WINDOW_BYTES = 2**20
"""What is searched at once for leading zeros, so that it stays in the processor's cache."""


def parse_options(source: CsvSettings, note: Callable[[pacsv.InvalidRow], str] | None = None) -> pacsv.ParseOptions:
    """How Arrow cuts lines into cells.

    Args:
        note: what happens to rows of another length than the others.
    """
    return pacsv.ParseOptions(
        delimiter=source.delimiter or ",",
        quote_char=source.quote or False,
        escape_char=source.escape or False,
        newlines_in_values=True,
        invalid_row_handler=note,
    )


def has_leading_zeros(data: bytes, delimiter: str, quote: str) -> bool:
    """Whether some cell may begin with 0 and another digit; a sign or blanks before it are looked behind."""
    byte = np.frombuffer(data, np.uint8)
    before = np.zeros(256, bool)
    before[[*f"{delimiter}{quote}\n\r +-".encode()]] = True
    for start in range(0, len(byte), WINDOW_BYTES):
        some = byte[max(0, start - 1) : start + WINDOW_BYTES + 1]
        zero = np.flatnonzero(some[:-1] == ord("0"))
        zero = zero[some[zero + 1] - np.uint8(ord("0")) < 10]
        if len(zero) and (before[some[zero - 1]] | (zero + start == 0)).any():
            return True
    return False


def _read_numbers(
    read: Callable[[dict[str, pa.DataType], list[str]], pa.Table], names: list[str], types: dict[str, pa.DataType]
) -> pa.Table | None:
    """What `read` would infer, where all columns are numbers; None where some are not.

    To try each type that a column may have takes Arrow longer than to read some hundred rows of it.

    Args:
        types: of the columns that are not inferred.
    """
    inferred = [name for name in names if name not in types]
    for dtype in (pa.int64(), pa.float64()):
        try:
            table = read({**types, **dict.fromkeys(inferred, dtype)}, names)
        except pa.ArrowInvalid:
            continue
        columns = dict(zip(table.column_names, table.columns, strict=True))
        unsure = [name for name in inferred if _may_be_other(columns[name])]
        if unsure:
            again = read(types, unsure)
            columns |= dict(zip(again.column_names, again.columns, strict=True))
        return pa.table(columns)
    return None


def _may_be_other(column: pa.ChunkedArray) -> bool:
    """Whether Arrow by itself might read the values as another type: no values, or fractions of which none is one."""
    if column.null_count == len(column) or not pa.types.is_floating(column.type):
        return column.null_count == len(column)
    values = column.drop_null().to_numpy()
    return bool((np.floor(values) == values).all())


class Parser:
    """Chunks of one file -> tables.

    Args:
        names: of all columns, in the file's order.
    """

    def __init__(self, names: list[str], file: str, source: CsvSource) -> None:
        unusable = unusable_names(names)
        self.wanted = usable(needed(source), names, unusable, source, file)
        is_all = needed(source) is None
        self._names = [f"\0{place}" if name in unusable else name for place, name in enumerate(names)]
        self._file, self._source = file, source
        self._unnamed = [own for own, name in zip(self._names, names, strict=True) if is_all and own != name == ""]
        """Several columns without a name; spreadsheets leave such, empty, beside a table."""
        self._left_out = {name: what for name, what in unusable.items() if is_all and name}
        there = set(names)
        self._delimiter = source.delimiter or ","
        self._declared = {name: dtype for name, dtype in source.dtypes.items() if name in there}
        self._dated = dict(source.date_formats)
        self._types = {name: kept_as(dtype) for name, dtype in self._declared.items()}
        rewritten = [name for name, dtype in self._declared.items() if self._is_rewritten(name, dtype)]
        self._as_text = dict.fromkeys([*rewritten, *(name for name in self._dated if name in there)], pa.string())
        """Columns that Arrow reads as text, and that become what they are afterwards."""
        nulls = source.null_values
        self._nulls = [*nulls, *(" " * count for count in range(1, MAX_BLANKS + 1))] if "" in nulls else nulls
        self._dates: dict[str, pa.DataType] = {}
        """Columns that would be read as dates and times; they stay the text that was written."""

    def _is_rewritten(self, name: str, dtype: str) -> bool:
        if dtype in READERS:
            return True
        is_plain = self._how(name) == Written(self._source.usual_point)
        return not is_plain and dtype not in ("string", "bool")

    def _how(self, name: str) -> Written:
        source = self._source
        return written_as(name, source.decimal_point, source.thousands, source.signs)

    def empty(self) -> pa.Table:
        """No rows."""
        return with_left_out(pa.table({name: pa.nulls(0) for name in self.wanted}), self._left_out)

    def parse(self, chunk: Chunk) -> pa.Table:
        """All rows of a chunk, the unread ones marked."""
        reasons: dict[int, str] = {}
        try:
            table, skipped = self._read(chunk, {**self._types, **self._as_text})
            table, reasons = self._converted(table, self._as_text)
        except pa.ArrowInvalid:  # some value is not of its declared type; read as text, it is found
            text = dict.fromkeys([*self._declared, *self._as_text], pa.string())
            table, skipped = self._read(chunk, text)
            table, reasons = self._converted(table, text)
        is_skipped = np.zeros(table.num_rows + len(skipped), bool)
        is_skipped[list(skipped)] = True
        if skipped:
            rows = np.cumsum(~is_skipped) - 1
            table = table.take(pa.array(rows, mask=is_skipped))
        kept = np.flatnonzero(~is_skipped)
        if guessed := chunk.guessed():
            table = self._filled(table, guessed)
        unread = {int(kept[row]): why for row, why in reasons.items()}
        unread.update({row: f"{self._file}: {why}" for row, why in skipped.items() if why is not None})
        if any(table[own].null_count < table.num_rows for own in self._unnamed):
            self._left_out[""] = "is the name of several columns that hold values, as the header leaves it empty"
        zeros = self._leading_zeros(chunk, table)
        table = with_bad(table.drop_columns(self._unnamed), unread)
        return with_zeros(with_left_out(table, self._left_out), zeros)

    def _filled(self, table: pa.Table, guessed: dict[int, str]) -> pa.Table:
        """The table with the values of rows that were skipped, where these fit the types that the others have."""
        lines = [text if text.endswith("\n") else f"{text}\n" for text in guessed.values()]
        ends = np.cumsum([len(line.encode()) for line in lines])
        types = dict.fromkeys([*self.wanted, *self._unnamed], pa.string())
        guess, skipped = self._read(Chunk("".join(lines).encode(), ends), types)
        rows = [row for place, row in enumerate(guessed) if place not in skipped]
        if guess.num_rows != len(rows):
            return table
        is_guessed = np.zeros(table.num_rows, bool)
        is_guessed[rows] = True
        arrays = table.columns
        for place, (name, column) in enumerate(zip(table.column_names, table.columns, strict=True)):
            if not pa.types.is_null(column.type):
                values = self._values(name, guess[name].combine_chunks(), str(column.type))[0]
                filled = pc.replace_with_mask(column.combine_chunks(), pa.array(is_guessed), values)
                arrays[place] = pa.chunked_array([filled])
        return pa.table(arrays, schema=table.schema)

    def _leading_zeros(self, chunk: Chunk, table: pa.Table) -> dict[str, str]:
        """Columns of whole numbers, declared by nobody, of which some are written like 007 -> the first such text."""
        whole = [f.name for f in table.schema if pa.types.is_integer(f.type) and f.name not in self._declared]
        if not whole or not has_leading_zeros(chunk.data, self._delimiter, self._source.quote):
            return {}
        text = self.text_of(chunk, whole)
        examples: dict[str, str] = {}
        for name in whole:
            values = text[name].filter(pc.match_substring_regex(text[name], ZEROS))
            if len(values):
                examples[name] = values[0].as_py().strip()
        return examples

    def text_of(self, chunk: Chunk, names: list[str]) -> pa.Table:
        """Some columns as they are written, of the rows that can be read."""
        return self._read(chunk, dict.fromkeys(names, pa.string()), names)[0]

    def _read(
        self, chunk: Chunk, types: dict[str, pa.DataType], wanted: list[str] | None = None
    ) -> tuple[pa.Table, dict[int, str | None]]:
        """The rows that can be read, and the others: place among all rows -> why.

        Args:
            wanted: columns to read; None: all of the parser's.
        """
        marks = {f"\0{row}": why for row, why in chunk.unread.items()}
        rest = f"{self._delimiter * len(self._names)}\n"  # one value more than the header has: never a row
        data = self._with_nulls(chunk.replaced(lambda row: f"\0{row}{rest}".encode()))
        skipped: dict[int, str | None] = {}

        def note(row: pacsv.InvalidRow) -> str:
            mark = row.text.partition(self._delimiter)[0]
            why = f"the row has {row.actual_columns} values, the header {row.expected_columns}"
            skipped[row.number - 1] = f"the row {marks[mark]}" if marks.get(mark) else None if mark in marks else why
            return "skip"

        columns = [*self.wanted, *self._unnamed] if wanted is None else wanted

        def read(types: dict[str, pa.DataType], some: list[str] = columns) -> pa.Table:
            skipped.clear()
            return pacsv.read_csv(
                pa.BufferReader(data),
                pacsv.ReadOptions(use_threads=False, column_names=self._names, block_size=len(data) + 1),
                parse_options(self._source, note),
                pacsv.ConvertOptions(
                    null_values=self._nulls,
                    strings_can_be_null=True,
                    decimal_point=self._source.usual_point,
                    include_columns=some,
                    column_types={**self._dates, **types},
                ),
            )

        is_wide = len(columns) > max(len(chunk), MANY_COLUMNS)
        table = _read_numbers(read, columns, {**self._dates, **types}) if is_wide else None
        if table is None:
            table = read(types)
        dates = {field.name: pa.string() for field in table.schema if pa.types.is_temporal(field.type)}
        if dates:
            self._dates.update(dates)
            table = read(types)
        return table, skipped

    def _with_nulls(self, data: bytes) -> bytes:
        r"""The bytes with empty cells for those of `\N`, where the escape sign would make N of it."""
        if self._source.escape != "\\" or "\\N" not in self._source.null_values or b"\\N" not in data:
            return data
        sign = re.escape(self._delimiter.encode())
        return re.sub(rb"(^|" + sign + rb")\\N(?=" + sign + rb"|\r|\n|\Z)", rb"\1", data, flags=re.MULTILINE)

    def _converted(self, table: pa.Table, names: Iterable[str]) -> tuple[pa.Table, dict[int, str]]:
        """Columns that were read as text in their types, and the rows where that cannot be: row -> why."""
        reasons: dict[int, str] = {}
        columns = dict(zip(table.column_names, table.columns, strict=True))
        for name in names:
            if name not in columns:
                continue
            written = columns[name].combine_chunks()
            columns[name], misfits = self._values(name, written, self._declared.get(name, "string"))
            for row in misfits:
                why = f"'{name}' is '{str(written[row])[:SHOWN]}', which is no {self._what(name)}"
                reasons[row] = f"{reasons[row]}; {why}" if row in reasons else f"{self._file}: {why}"
        return pa.table(columns), reasons

    def _values(self, name: str, written: pa.Array, dtype: str) -> tuple[pa.Array, list[int]]:
        """Text of a column as its values, and the rows where that cannot be."""
        trimmed = pc.utf8_trim_whitespace(written)
        is_null = pc.is_in(trimmed, value_set=pa.array(self._source.null_values, pa.string()))
        if dtype != "string" or name in self._dated:
            written = pc.if_else(is_null, pa.scalar(None, pa.string()), written)
        if name in self._dated and dtype == "string":
            return as_iso(written, self._dated[name])
        return as_type(written, dtype, self._how(name))

    def _what(self, name: str) -> str:
        """What the values of a column must be."""
        if name in self._dated:
            return f"date like {self._dated[name]}"
        sign = self._source.signs.get(name)
        return self._declared[name] + (f" with '{sign}'" if sign else "")
