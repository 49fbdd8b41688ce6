"""What a CSV source does not say of its files, told from their start: encoding, layout, how values are written.

Looked at once, by the driver, before anything is read.  What is certain becomes a field of the source, so all tasks,
batch inference and the dataset version know it; what is needed and not certain is refused with the field to set.
"""

from __future__ import annotations

import io
import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute

from raypipe.data.formats.base import ANYTHING, Wanted
from raypipe.data.formats.chunk import Chunk
from raypipe.data.formats.csv import names_of, rows_of
from raypipe.data.formats.csv_layout import laid_out
from raypipe.data.formats.csv_parser import Parser
from raypipe.data.formats.csv_recognised_lines import lines_of_columns, lines_of_file
from raypipe.data.formats.csv_values import COMPACT, DATES, LIKE_BOTH, Forms, Numbers, compact_date, dates_of
from raypipe.data.formats.encodings import ASCII, encoding_of, recoded, refuse_other, refuse_wrong
from raypipe.data.formats.parts import as_range, readable
from raypipe.data.masking import UNMASKED, Masking
from raypipe.data.sources.files import GZIP_MAGIC, read_start
from raypipe.data.sources.place import SourceFile
from raypipe.data.table.declared import TEXT_DTYPES, dtype_of
from raypipe.data.table.marks import BAD, leading_zeros
from raypipe.data.table.names import require
from raypipe.data.table.spans import is_certain
from raypipe.errors import DataError
from raypipe.spec.endings import has_ending
from raypipe.spec.sources import CsvSource

pc: Any = pyarrow.compute  # its functions are made at run time, which type checkers do not see

LOOK_BYTES = 2**20
"""Of the first file's start; of the others a quarter."""

MAX_FILES = 4
"""That are looked at."""

MAX_DOUBLES = 200
"""Columns of fractions that are looked at for what stands before a fraction."""


@dataclass(frozen=True)
class _Sample:
    """The first rows of one file, in UTF-8, whole ones only."""

    file: SourceFile
    data: bytes

    def chunk(self, source: CsvSource) -> tuple[list[str], Chunk]:
        """Names of the cells, and the rows."""
        plain = source.model_copy(update={"encoding": None})
        rows = rows_of(as_range(self.file), plain, io.BytesIO(self.data))
        names = names_of(rows, self.file.name, source)
        return names, next(rows.chunks(), Chunk(b"", np.empty(0, np.int64)))


def recognised(
    files: Sequence[SourceFile],
    source: CsvSource,
    masking: Masking = UNMASKED,
    wanted: Wanted = ANYTHING,
    like: CsvSource | None = None,
) -> tuple[CsvSource, list[str]]:
    """The source with all that its files tell for certain, and lines for people.

    Args:
        wanted: what the spec wants of their columns; of those that do not matter nothing is recognised, so that what
            later rows hold there never stands in the way.
        like: another source of the same data set, which tells what these files leave open.
    Raises:
        DataError: the files need a setting that is not given, or are not as the source says.
    """
    is_shown = not masking.names
    given = source
    chosen = _spread(files)
    with masking.guard(files[0].name):
        source, samples = _decoded(chosen, source, is_shown)
        for sample in samples[:1]:
            fields = laid_out(sample.data.decode(errors="replace"), source, sample.file.name, wanted.targets, is_shown)
            source = source.model_copy(update=fields)
        if source.header is False:
            source = source.model_copy(update={"header": list(source.columns or ())})
        source, lines = _with_values(samples, source, masking, wanted, like)
        return source, [*lines_of_file(given, source), *lines]


def _spread(files: Sequence[SourceFile]) -> list[SourceFile]:
    """The first file and some others."""
    step = max(1, (len(files) - 1) // (MAX_FILES - 1))
    return list(files[::step])[:MAX_FILES]


def _decoded(files: Sequence[SourceFile], source: CsvSource, is_shown: bool) -> tuple[CsvSource, list[_Sample]]:
    """The source with its encoding, and the start of each file in UTF-8."""
    samples: list[_Sample] = []
    encodings: dict[str, str] = {}
    for file in files:
        num_bytes = LOOK_BYTES if not samples else LOOK_BYTES // 4
        with readable(file.name, "CSV"):
            start, is_cut = _start(file, num_bytes)
        encoding = source.encoding or encoding_of(start)
        if source.encoding is not None:
            refuse_wrong(start, source.encoding, file.name)
        elif encoding is None:
            refuse_other(start[: start.rfind(b"\n") + 1] if is_cut else start, file.name, is_shown)
        encoding = encoding or (ASCII if start.isascii() else "utf-8")
        encodings.setdefault(encoding, file.name)
        if is_cut and encoding not in (ASCII, "utf-8"):
            start = start[: len(start) // 4 * 4]
        data = start if encoding in (ASCII, "utf-8") else _in_utf8(start, encoding, file.name, is_cut)
        samples.append(_Sample(file, data[: data.rfind(b"\n") + 1] if is_cut else data))
    several = [name for name in encodings if name != ASCII] or [ASCII]
    if len(several) > 1 or (len(encodings) > 1 and not several[0].startswith("utf-8")):
        (one, first), (other, second), *_ = encodings.items()
        raise DataError(
            f"{first} is {one} and {second} is {other}; all files of a source have one encoding", "write them alike"
        )
    return source.model_copy(update={"encoding": several[0]}), samples


def _start(file: SourceFile, num_bytes: int) -> tuple[bytes, bool]:
    """About the first bytes of a file, so many or all, decompressed; and whether more follow."""
    start = read_start(file, num_bytes + 1)
    is_cut = len(start) > num_bytes
    if not (start.startswith(GZIP_MAGIC) and has_ending(file.uri, ".gz")):
        return start, is_cut
    text = b""
    while start and len(text) <= num_bytes:  # files that were compressed in pieces have several members
        member = zlib.decompressobj(31)
        text += member.decompress(start, num_bytes + 1 - len(text))
        if not member.eof:
            break
        start = member.unused_data.lstrip(b"\0")
    return text, is_cut or len(text) > num_bytes


def _in_utf8(start: bytes, encoding: str, file: str, is_cut: bool) -> bytes:
    stream = recoded(io.BytesIO(start), encoding, file)
    text = stream.read(len(start))
    if not is_cut:
        while more := stream.read(len(start)):
            text += more
    return text


def _with_values(
    samples: Sequence[_Sample], source: CsvSource, masking: Masking, wanted: Wanted, like: CsvSource | None
) -> tuple[CsvSource, list[str]]:
    """The source with what the values of its columns tell."""
    dated = {} if like is None else like.date_formats
    read = _Read(samples, source, masking)
    if not read.parsers:
        return source, []
    named = [*source.signs, *source.date_formats, *source.decimal_points]
    require(named, read.names, samples[0].file.name)
    read.texts |= read.of([name for name in read.doubles if source.decimal_points.get(name) == ","])
    numbers = Numbers(read.texts, _one_point(source), source.thousands)
    point, own = _decimal_points(numbers, read, source, wanted, like)
    if point == "," and source.decimal_point is None:  # what was a fraction with a point is text now
        source = source.model_copy(update={"decimal_point": ","})
        read = _Read(samples, source, masking)
        numbers = Numbers(read.texts, ",", source.thousands)
    forms = numbers.decided(point, own)
    for name, values in read.texts.items():
        if name in forms.numbers or name in forms.doubtful or name in forms.unlike:
            continue
        fitting = dates_of(values, [source.date_format] if isinstance(source.date_format, str) else DATES)
        if len(fitting) > 1 and dated.get(name) in fitting:
            fitting = [dated[name]]
        if len(fitting) == 1:
            forms.dates[name] = fitting[0]
        elif fitting:
            forms.unclear[name] = fitting
        elif name not in wanted.as_text:
            _add_kind(forms, name, values, like)
    if isinstance(source.date_format, str) and not forms.dates:
        raise DataError(
            f"{samples[0].file.name}: no column holds dates like {source.date_format!r} in every row",
            "correct data.source.date_format, or give it a column: {column: format}",
        )
    dates = {name: compact_date(values) for name, values in read.wholes.items() if name not in wanted.as_numbers}
    forms.compact = {name: written for name, written in dates.items() if written is not None}
    if "quote" not in source.model_fields_set:
        forms.quoted = [name for name, values in read.texts.items() if _is_quoted(values)]
    forms = forms.of(wanted.matters)
    zeros = {name: text for name, text in read.zeros.items() if wanted.matters(name)}
    lines = lines_of_columns(forms, read.texts, zeros, is_shown=not masking.names)
    return _as_fields(source, forms, read.texts, zeros), lines


def _add_kind(forms: Forms, name: str, values: pa.Array, like: CsvSource | None) -> None:
    """Note what texts are that are neither numbers nor dates: true and false, times of day, durations.

    Args:
        like: what was recognised in another source of the data set: one column is one thing in all of them.
    """
    if like is not None:
        if (dtype := like.dtypes.get(name)) in TEXT_DTYPES:
            forms.kinds[name] = dtype
        return
    dtype = dtype_of(values)
    if dtype is not None:
        is_it = dtype == "bool" or all(is_certain(text) for text in values.to_pylist())
        (forms.kinds if is_it else forms.likely)[name] = dtype


def _is_quoted(values: pa.Array) -> bool:
    """Whether every text stands in single quotes."""
    if not len(values) or not values[0].as_py().startswith("'"):
        return False
    return bool(pc.all(pc.match_substring_regex(values, "^'.*'$")).as_py())


class _Read:
    """The samples as tables; the distinct texts of the columns that Arrow reads as text and that may be more."""

    def __init__(self, samples: Sequence[_Sample], source: CsvSource, masking: Masking) -> None:
        declared = {*source.dtypes, *source.date_formats, *masking.names, BAD}
        self._nulls = pa.array(["", *source.null_values])
        self.parsers: list[tuple[Parser, Chunk]] = []
        self.zeros: dict[str, str] = {}
        tables: list[pa.Table] = []
        self.names: list[str] = []
        for sample in samples:
            names, chunk = sample.chunk(source)
            if not len(chunk):
                continue
            parser = Parser(names, sample.file.name, source)
            table = parser.parse(chunk)
            self.parsers.append((parser, chunk))
            self.names += names
            self.zeros |= {n: text for n, text in leading_zeros(table.schema).items() if n not in declared}
            tables.append(table)
        text: dict[str, None] = {}
        whole: dict[str, list[Any]] = {}
        doubles: dict[str, None] = {}
        for table in tables:
            for column, values in zip(table.schema, table.columns, strict=True):
                is_text = pa.types.is_string(column.type) and values.null_count < len(values)
                if pa.types.is_floating(column.type):
                    doubles[column.name] = None
                elif is_text:
                    text[column.name] = None
                elif pa.types.is_integer(column.type):
                    whole.setdefault(column.name, []).extend(values.chunks)
        self.doubles = list(doubles)
        """Columns of fractions, in any of the files."""
        self.texts = self.of([name for name in text if name not in declared], tables)
        is_whole = whole.keys() - text.keys() - doubles.keys() - declared - self.zeros.keys()
        numbers = {name: _of_equal_length(chunks) for name, chunks in whole.items() if name in is_whole}
        self.wholes = {name: values for name, values in numbers.items() if values is not None}
        """The distinct values of columns of whole numbers that have as many digits as dates have."""

    def of(self, names: Sequence[str], tables: Sequence[pa.Table] = ()) -> dict[str, pa.Array]:
        """The distinct trimmed texts of some columns.

        Args:
            tables: that hold those columns already, where they are text there.
        """
        found: dict[str, list[Any]] = {name: [] for name in names}
        for place, (parser, chunk) in enumerate(self.parsers):
            there = found.keys() & set(parser.wanted)
            if tables:
                columns = zip(tables[place].schema, tables[place].columns, strict=True)
                held = {f.name: c for f, c in columns if f.name in there and pa.types.is_string(f.type)}
            else:
                held = {}
            again = [name for name in names if name in there and name not in held]
            if again:
                other = parser.text_of(chunk, again)
                held |= dict(zip(other.column_names, other.columns, strict=True))
            for name, column in held.items():
                found[name] += column.chunks
        distinct: dict[str, pa.Array] = {}
        for name, chunks in found.items():
            values = pc.unique(pc.utf8_trim_whitespace(pa.chunked_array(chunks, pa.string()))).drop_null()
            distinct[name] = values.filter(pc.invert(pc.is_in(values, value_set=self._nulls)))
        return distinct


def _of_equal_length(chunks: Sequence[pa.Array]) -> pa.Array | None:
    """The distinct ones of whole numbers; None where they have not all as many digits as a date has."""
    numbers = pa.chunked_array([chunk.cast(pa.int64()) for chunk in chunks], pa.int64())
    ends = pc.min_max(numbers).as_py()
    lengths = {len(str(end)) for end in ends.values()}
    return pc.unique(numbers).drop_null() if len(lengths) == 1 and lengths <= COMPACT.keys() else None


def _one_point(source: CsvSource) -> str | None:
    """The decimal point of all columns; None where it is not set, or columns may differ."""
    return source.decimal_point if isinstance(source.decimal_point, str) else None


def _decimal_points(
    numbers: Numbers, read: _Read, source: CsvSource, wanted: Wanted, like: CsvSource | None
) -> tuple[str | None, dict[str, str]]:
    """What the file shows to stand before fractions, None where nothing does; and, where columns differ, column -> what
    stands before its own.

    Raises:
        DataError: values may be fractions or thousands, and nothing shows which.
    """
    if source.decimal_points:
        return source.usual_point, {**numbers.own_points(), **source.decimal_points}
    if source.decimal_point is not None:
        return source.usual_point, {}
    if like is not None and like.decimal_points:  # one column is one thing in all sources
        return like.usual_point, dict(like.decimal_points)
    is_divided = source.delimiter == ";" and any(wanted.matters(name) for name in read.doubles)
    texts = read.of(read.doubles[:MAX_DOUBLES]) if numbers.ways or is_divided else {}
    like_both = {n for n, values in texts.items() if pc.all(pc.match_substring_regex(values, LIKE_BOTH)).as_py()}
    is_comma, is_point = numbers.votes(","), numbers.votes(".") or len(like_both) < len(texts)
    doubtful = [name for name in texts if name in like_both and wanted.matters(name)]
    if is_comma and is_point:
        if doubtful:
            raise _may_be_both(
                doubtful[0], texts, "of the other columns some have a comma before fractions and some a point"
            )
        return None, numbers.own_points()
    if is_comma or is_point:
        return "," if is_comma else ".", {}
    if is_divided and doubtful:
        why = "cells are divided by ';', as where fractions have a comma, and no other number shows which it is"
        raise _may_be_both(doubtful[0], texts, why)
    return (like.usual_point if like is not None and like.decimal_point else None), {}


def _may_be_both(name: str, texts: Mapping[str, pa.Array], why: str) -> DataError:
    values = texts[name]
    shown = values.filter(pc.match_substring(values, "."))[0].as_py()
    column = json.dumps(name)
    return DataError(
        f"column '{name}' holds {shown!r}, which may be a fraction or thousands: {why}",
        f"set data.source.decimal_point: {{{column}: '.'}} where it is a fraction, {{{column}: ','}} where it is "
        "thousands ('.' or ',' alone is for all columns)",
    )


def _as_fields(source: CsvSource, forms: Forms, texts: Mapping[str, Any], zeros: Mapping[str, str]) -> CsvSource:
    """The source with what was recognised in its own words."""
    own = {**(forms.decimal_point if isinstance(forms.decimal_point, dict) else {}), **source.decimal_points}
    marked = [n for n, sign in forms.numbers.items() if sign or n in texts]
    dtypes: dict[str, Any] = {
        **dict.fromkeys([*source.signs, *source.decimal_points], "float64"),
        **source.dtypes,
        **dict.fromkeys(zeros, "string"),
        **dict.fromkeys(marked, "float64"),
        **forms.kinds,
    }
    return source.model_copy(
        update={
            "dtypes": dtypes,
            "signs": {**{n: sign for n, sign in forms.numbers.items() if sign}, **source.signs},
            "thousands": source.thousands or forms.thousands,
            "decimal_point": own or source.decimal_point or forms.decimal_point or None,
            "date_format": {**forms.dates, **source.date_formats} or None,
        }
    )
