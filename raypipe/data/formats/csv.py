"""CSV: delimited text with a header line."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import closing
from functools import lru_cache, partial
from typing import Any

import pyarrow as pa
import pyarrow.csv as pacsv

from raypipe.data.formats.base import FileFormat, Wanted
from raypipe.data.formats.chunk import Chunk
from raypipe.data.formats.csv_layout import DELIMITERS
from raypipe.data.formats.csv_parser import SHOWN, Parser, parse_options
from raypipe.data.formats.datasource import ReadPart
from raypipe.data.formats.encodings import ASCII, num_beyond_ascii, refuse_other
from raypipe.data.formats.lines import Layout, RowReader, lines_per_byte, ranges
from raypipe.data.formats.parts import FileRange, as_range, readable
from raypipe.data.formats.quotes import row_ends, text_behind
from raypipe.data.masking import UNMASKED, Masking
from raypipe.data.sources.listing import list_files
from raypipe.data.sources.place import SourceFile
from raypipe.data.table.marks import NOT_UTF8
from raypipe.data.table.names import MissingColumn, needed, require
from raypipe.data.table.one_type import MixedSource
from raypipe.errors import DataError
from raypipe.spec.csv_settings import CsvSettings
from raypipe.spec.sources import CsvSource

BLANK = b"\r\n"
HINT = "check data.source.delimiter, and that the file is whole"


class Csv(FileFormat):
    def plan(
        self, source: CsvSource, root: str, masking: Masking = UNMASKED, is_judged: bool = False
    ) -> tuple[Sequence[FileRange], ReadPart[Any]]:
        parts, read_part = super().plan(source, root, masking, is_judged)
        refuse_undeclared([part.file for part in parts if part.start == 0], source, masking)
        return parts, read_part

    def recognised(
        self, sources: Sequence[CsvSource], root: str, masking: Masking, wanted: Wanted, like: CsvSource | None
    ) -> tuple[CsvSource, list[str]]:
        from raypipe.data.formats.csv_recognised import recognised  # which reads some rows by this module

        files = [file for source in sources for file in list_files(source, root)]
        return recognised(files, sources[0], masking, wanted, like)

    def divided(self, file: SourceFile, source: CsvSource) -> list[FileRange]:
        is_plain = source.encoding is None or source.encoding in (ASCII, "utf-8")
        return ranges([file], divisible=not source.newlines_in_values and is_plain)

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
        with (
            masking.guard(file.name),
            readable(file.name, "CSV", HINT),
            closing(rows_of(as_range(file), source)) as rows,
        ):
            there.update(dict.fromkeys(names_of(rows, file.name, source)))
    with masking.guard(source.places_text):
        require(declared, list(there), source.places_text)


def read_file(part: FileRange | SourceFile, *, source: CsvSource) -> Iterator[pa.Table]:
    """One file or a range of it, in tables of some megabytes; types are inferred over the whole of each.

    A blank line between the header and the last row is a row without values, also in a file of one column; anywhere
    else it is nothing.  Rows of another length than the header and values that are not of their declared type are
    marked as bad.

    Raises:
        DataError: no header, or bytes that cannot be decompressed.
    """
    part = as_range(part)
    with readable(part.name, "CSV", HINT), closing(rows_of(part, source)) as rows:
        names = _names_of_file(part, source) if part.start else names_of(rows, part.name, source)
        parser = Parser(names, part.name, source)
        is_empty = True
        for chunk in rows.chunks():
            is_empty = False
            if source.encoding == ASCII:
                _refuse_other_encoding(chunk, part.name)
            _mark_quotes(chunk, source)
            yield parser.parse(chunk)
        if is_empty:
            yield parser.empty()


def _refuse_other_encoding(chunk: Chunk, file: str) -> None:
    """Raise DataError where what is beyond ASCII is another encoding, and not UTF-8 with some damaged rows."""
    wrong = sorted(row for row, why in chunk.unread.items() if why == NOT_UTF8)
    if wrong:
        data = b"".join(chunk.row(row) for row in wrong)
        refuse_other(data, file, num_right=num_beyond_ascii(chunk.data) - num_beyond_ascii(data))


def _mark_quotes(chunk: Chunk, source: CsvSource) -> None:
    """Note the rows whose quotes are not closed where a cell ends: they may have swallowed others."""
    if source.quote:
        signs = {"delimiter": ord(source.delimiter or ","), "quote": ord(source.quote)}
        escape = ord(source.escape) if source.escape else None
        for row in text_behind(chunk.data, chunk.ends, **signs, escape=escape):
            chunk.unread.setdefault(row, "holds text behind a closing quote, as where a quote before it is missing")


def rows_of(part: FileRange, source: CsvSource, stream: Any = None) -> RowReader:
    """The rows of a part, the header among them.

    Args:
        stream: what is read instead of the part's file.
    """
    quote = ord(source.quote) if source.quote and source.newlines_in_values else None
    escape = ord(source.escape) if source.escape else None
    ends = partial(row_ends, delimiter=ord(source.delimiter or ","), quote=quote, escape=escape)
    layout = Layout(source.encoding, source.skip_lines, (source.comment or "").encode())
    return RowReader(part, ends, source.max_row_bytes, BLANK, layout, stream)


def _names_of_file(part: FileRange, source: CsvSource) -> list[str]:
    with closing(rows_of(FileRange(part.file, 0, 0, 1), source)) as rows:
        return names_of(rows, part.name, source)


def names_of(rows: RowReader, file: str, source: CsvSource) -> list[str]:
    """The name of each cell, from the header, which is then no row any more, where there is one."""
    if source.header is not True:
        return list(source.columns or ()) if source.header is False else source.header
    header = rows.header()
    if not header:
        raise DataError(f"{file} is not readable as CSV: it is empty", "give it a header line and rows")
    names = cells_of(header, source)
    _refuse_other_delimiter(names, file, source)
    return ["", *names] if source.row_names else names


def cells_of(row: bytes, source: CsvSource) -> list[str]:
    """The cells of one row as text."""
    return list(_cells(row.rstrip(BLANK), source.delimiter, source.quote, source.escape))


@lru_cache(maxsize=4)
def _cells(row: bytes, delimiter: str | None, quote: str, escape: str | None) -> list[str]:
    """Kept, as many small files have one header, and Arrow takes longer to begin with one than to read it."""
    options = parse_options(CsvSettings(delimiter=delimiter, quote=quote, escape=escape))
    line = pa.BufferReader(row + b"\n")
    return pacsv.read_csv(line, pacsv.ReadOptions(use_threads=False), options).column_names


def _refuse_other_delimiter(names: list[str], file: str, source: CsvSource) -> None:
    """Raise MissingColumn when the header is one name that another delimiter divides, unless it is asked for."""
    if len(names) > 1 or names[0] in (needed(source) or ()):
        return
    delimiter = source.delimiter or ","
    counts = {sign: names[0].count(sign) for sign in DELIMITERS if sign != delimiter}
    sign = max(counts, key=lambda sign: counts[sign])
    if counts[sign]:
        what = f"{file}: the header holds no {delimiter!r} but {sign!r} {counts[sign]} time(s)"
        raise MissingColumn(
            f"{what}, so it is a single name: {names[0][:SHOWN]!r}",
            f"set data.source.delimiter: {json.dumps(sign)}; a column that has this name is read when "
            "data.source.columns names it",
            what,
        )
