"""CSV: delimited text with a header line."""

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
import pyarrow.csv as pacsv

from raypipe.data.formats.base import FileFormat
from raypipe.data.formats.chunk import Chunk
from raypipe.data.formats.datasource import ReadPart
from raypipe.data.formats.lines import RowReader, lines_per_byte, ranges
from raypipe.data.formats.parts import FileRange, as_range, readable
from raypipe.data.formats.quotes import row_ends
from raypipe.data.masking import UNMASKED, Masking
from raypipe.data.sources.place import SourceFile
from raypipe.data.table.declared import as_type
from raypipe.data.table.marks import with_bad, with_left_out, with_zeros
from raypipe.data.table.names import MissingColumn, needed, require, unusable_names, usable
from raypipe.data.table.one_type import MixedSource
from raypipe.errors import DataError
from raypipe.spec.sources import CsvSource

pc: Any = pyarrow.compute  # its functions are made at run time, which type checkers do not see

BLANK = b"\r\n"
HINT = "check data.source.delimiter, and that the file is whole"
HEAD_BYTES = 2**20
"""What is looked at, of some 64 MiB, for numbers with leading zeros."""
SHOWN = 80
"""Characters of a value that a message shows."""
DELIMITERS = ",;\t|"
"""What divides the values of text tables."""


class Csv(FileFormat):
    def plan(
        self, source: CsvSource, root: str, masking: Masking = UNMASKED, is_judged: bool = False
    ) -> tuple[Sequence[FileRange], ReadPart[Any]]:
        parts, read_part = super().plan(source, root, masking, is_judged)
        refuse_undeclared([part.file for part in parts if part.start == 0], source, masking)
        return parts, read_part

    def divided(self, file: SourceFile, source: CsvSource) -> list[FileRange]:
        return ranges([file], divisible=not source.newlines_in_values)

    def read_file(self, part: FileRange | SourceFile, *, source: CsvSource) -> Iterator[pa.Table]:
        return read_file(part, source=source)

    def rows_per_byte(self, part: FileRange, source: CsvSource) -> float | None:
        return lines_per_byte(part.file)


def refuse_undeclared(files: Sequence[SourceFile], source: CsvSource, masking: Masking = UNMASKED) -> None:
    """Raise MissingColumn when none of the files has a column that `dtypes` names; reads header lines only."""
    mixed = source.mixed if isinstance(source, MixedSource) else ()
    declared = [name for name in source.dtypes if name not in mixed]
    there: dict[str, None] = {}
    for file in files:
        if there.keys() >= set(declared):
            return
        with masking.guard(file.name), readable(file.name, "CSV", HINT), closing(_rows(as_range(file), source)) as rows:
            there.update(dict.fromkeys(_names(rows.header(), file.name, source)))
    places = source.places()
    where = ", ".join(places[:3]) + (f" and {len(places) - 3} more" if len(places) > 3 else "")
    with masking.guard(where):
        require(declared, list(there), where)


def read_file(part: FileRange | SourceFile, *, source: CsvSource) -> Iterator[pa.Table]:
    """One file or a range of it, in tables of some megabytes; types are inferred over the whole of each.

    A blank line between the header and the last row is a row without values, also in a file of one column; anywhere
    else it is nothing.  Rows of another length than the header and values that are not of their declared type are
    marked as bad.

    Raises:
        DataError: no header, or bytes that cannot be decompressed.
    """
    part = as_range(part)
    with readable(part.name, "CSV", HINT), closing(_rows(part, source)) as rows:
        names = _names(_header(part, source) if part.start else rows.header(), part.name, source)
        parser = _Parser(names, part.name, source)
        is_empty = True
        for chunk in rows.chunks():
            is_empty = False
            yield parser.parse(chunk)
        if is_empty:
            yield parser.empty()


def _rows(part: FileRange, source: CsvSource) -> RowReader:
    ends = partial(row_ends, delimiter=ord(source.delimiter), quotes=source.newlines_in_values)
    return RowReader(part, ends, source.max_row_bytes, BLANK)


def _header(part: FileRange, source: CsvSource) -> bytes:
    with closing(_rows(FileRange(part.file, 0, 0, 1), source)) as rows:
        return rows.header()


def _names(header: bytes, file: str, source: CsvSource) -> list[str]:
    if not header:
        raise DataError(f"{file} is not readable as CSV: it is empty", "give it a header line and rows")
    options = pacsv.ParseOptions(delimiter=source.delimiter, newlines_in_values=True)
    line = pa.BufferReader(header.rstrip(BLANK) + b"\n")
    names = pacsv.read_csv(line, pacsv.ReadOptions(use_threads=False), options).column_names
    _refuse_other_delimiter(names, file, source)
    return names


def _refuse_other_delimiter(names: list[str], file: str, source: CsvSource) -> None:
    """Raise MissingColumn when the header is one name that another delimiter divides, unless it is asked for."""
    if len(names) > 1 or names[0] in (needed(source) or ()):
        return
    counts = {sign: names[0].count(sign) for sign in DELIMITERS if sign != source.delimiter}
    sign = max(counts, key=lambda sign: counts[sign])
    if counts[sign]:
        what = f"{file}: the header holds no {source.delimiter!r} but {sign!r} {counts[sign]} time(s)"
        raise MissingColumn(
            f"{what}, so it is a single name: {names[0][:SHOWN]!r}",
            f"set data.source.delimiter: {json.dumps(sign)}; a column that has this name is read when "
            "data.source.columns names it",
            what,
        )


class _Parser:
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
        self._declared = {name: pa.type_for_alias(dtype) for name, dtype in source.dtypes.items() if name in names}
        self._zeros = re.compile(
            rb"(?:^|[\"" + re.escape(source.delimiter.encode()) + rb"])\s*[+-]?0[0-9]", re.MULTILINE
        )
        self._dates: dict[str, pa.DataType] = {}
        """Columns that would be read as dates and times; they stay the text that was written."""

    def empty(self) -> pa.Table:
        """No rows."""
        return with_left_out(pa.table({name: pa.nulls(0) for name in self.wanted}), self._left_out)

    def parse(self, chunk: Chunk) -> pa.Table:
        """All rows of a chunk, the unread ones marked."""
        reasons: dict[int, str] = {}
        try:
            table, skipped = self._read(chunk, self._declared)
        except pa.ArrowInvalid:  # some value is not of its declared type; read as text, it is found
            text = dict.fromkeys(self._declared, pa.string())
            table, skipped = self._read(chunk, text)
            table, reasons = self._converted(table)
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
        for place, name in enumerate(table.column_names):
            column = table[name]
            if not pa.types.is_null(column.type):
                values = as_type(guess[name].combine_chunks(), column.type, self._source.decimal_point)[0]
                filled = pc.replace_with_mask(column.combine_chunks(), pa.array(is_guessed), values)
                table = table.set_column(place, name, filled)
        return table

    def _leading_zeros(self, chunk: Chunk, table: pa.Table) -> dict[str, str]:
        """Whole numbers, of columns nobody declared, that the first rows of a chunk write like 007: column -> text."""
        num_rows = int(np.searchsorted(chunk.ends, HEAD_BYTES, side="right"))
        whole = [f.name for f in table.schema if pa.types.is_integer(f.type) and f.name not in self._declared]
        start = int(chunk.ends[num_rows - 1]) if num_rows else 0
        if not whole or not self._zeros.search(chunk.data, 0, start):
            return {}
        unread = {row: why for row, why in chunk.unread.items() if row < num_rows}
        text, _ = self._read(
            Chunk(chunk.data[:start], chunk.ends[:num_rows], unread), dict.fromkeys(whole, pa.string())
        )
        examples: dict[str, str] = {}
        for name in whole:
            values = text[name].filter(pc.match_substring_regex(text[name], r"^\s*[+-]?0[0-9]"))
            if len(values):
                examples[name] = values[0].as_py().strip()
        return examples

    def _read(self, chunk: Chunk, types: dict[str, pa.DataType]) -> tuple[pa.Table, dict[int, str | None]]:
        """The rows that can be read, and the others: place among all rows -> why."""
        marks = {f"\0{row}": why for row, why in chunk.unread.items()}
        rest = f"{self._source.delimiter * len(self._names)}\n"  # one value more than the header has: never a row
        data = chunk.replaced(lambda row: f"\0{row}{rest}".encode())
        skipped: dict[int, str | None] = {}

        def note(row: pacsv.InvalidRow) -> str:
            mark = row.text.partition(self._source.delimiter)[0]
            why = f"the row has {row.actual_columns} values, the header {row.expected_columns}"
            skipped[row.number - 1] = f"the row {marks[mark]}" if marks.get(mark) else None if mark in marks else why
            return "skip"

        def read(types: dict[str, pa.DataType]) -> pa.Table:
            skipped.clear()
            return pacsv.read_csv(
                pa.BufferReader(data),
                pacsv.ReadOptions(use_threads=False, column_names=self._names, block_size=len(data) + 1),
                pacsv.ParseOptions(delimiter=self._source.delimiter, newlines_in_values=True, invalid_row_handler=note),
                pacsv.ConvertOptions(
                    null_values=self._source.null_values,
                    strings_can_be_null=True,
                    decimal_point=self._source.decimal_point,
                    include_columns=[*self.wanted, *self._unnamed],
                    column_types={**self._dates, **types},
                ),
            )

        table = read(types)
        dates = {field.name: pa.string() for field in table.schema if pa.types.is_temporal(field.type)}
        if dates:
            self._dates.update(dates)
            table = read(types)
        return table, skipped

    def _converted(self, table: pa.Table) -> tuple[pa.Table, dict[int, str]]:
        """Declared columns in their types, and the rows where that cannot be: row -> why."""
        reasons: dict[int, str] = {}
        for name, wanted in self._declared.items():
            if name not in table.column_names or pa.types.is_string(wanted):
                continue
            written = table[name].combine_chunks()
            values, misfits = as_type(written, wanted, self._source.decimal_point)
            for row in misfits:
                why = f"'{name}' is '{str(written[row])[:SHOWN]}', which is no {self._source.dtypes[name]}"
                reasons[row] = f"{reasons[row]}; {why}" if row in reasons else f"{self._file}: {why}"
            table = table.set_column(table.column_names.index(name), name, values)
        return table, reasons
