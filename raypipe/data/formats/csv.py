"""CSV: delimited text with a header line."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import pyarrow as pa
import pyarrow.csv as pacsv
import ray.data

from raypipe.data.files import SourceFile, find, open_text
from raypipe.data.reading import read_files
from raypipe.errors import DataError
from raypipe.spec.data import CsvSource

SUFFIXES = (".csv", ".csv.gz", ".tsv", ".tsv.gz", ".txt", ".txt.gz")


def files(source: CsvSource, root: str) -> list[SourceFile]:
    """The files the source names."""
    return find(source.path, root, SUFFIXES)


def read(source: CsvSource, root: str, parallelism: int | None) -> ray.data.Dataset:
    """Rows of all files."""
    reader = partial(read_file, delimiter=source.delimiter, null_values=source.null_values)
    return read_files(files(source, root), reader, source.columns, parallelism)


def read_file(file: SourceFile, *, delimiter: str = ",", null_values: list[str]) -> Iterator[pa.Table]:
    """One file; types are inferred over the whole of it, not from its beginning.

    Raises:
        DataError: no header, rows of different length, or bytes that are not UTF-8.
    """
    try:
        with open_text(file) as stream:
            yield pacsv.read_csv(
                stream,
                pacsv.ReadOptions(use_threads=False),
                pacsv.ParseOptions(delimiter=delimiter, newlines_in_values=True),
                pacsv.ConvertOptions(null_values=null_values, strings_can_be_null=True),
            )
    except (pa.ArrowInvalid, OSError, EOFError) as error:
        raise DataError(
            f"{file.name} is not readable as CSV: {error}",
            "every line needs as many values as the header; check data.source.delimiter",
        ) from None
