"""Parquet: only the columns needed are read, a row group at a time."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import pyarrow as pa
import pyarrow.parquet as pq
import ray.data

from raypipe.data.files import SourceFile, find, open_file
from raypipe.data.reading import read_files, require
from raypipe.errors import DataError
from raypipe.spec.data import ParquetSource

SUFFIXES = (".parquet", ".pq")


def files(source: ParquetSource, root: str) -> list[SourceFile]:
    """The files the source names."""
    return find(source.path, root, SUFFIXES)


def read(source: ParquetSource, root: str, parallelism: int | None) -> ray.data.Dataset:
    """Rows of all files."""
    return read_files(files(source, root), partial(read_file, names=source.columns), source.columns, parallelism)


def read_file(file: SourceFile, *, names: list[str] | None = None) -> Iterator[pa.Table]:
    """One file, one table a row group.

    Raises:
        DataError: not a Parquet file, or a named column is missing.
    """
    try:
        with open_file(file) as handle, pq.ParquetFile(handle) as parquet:
            if names is not None:
                require(names, parquet.schema_arrow.names, file.name)
            for group in range(parquet.num_row_groups):
                yield parquet.read_row_group(group, columns=names, use_threads=False)
            if not parquet.num_row_groups:
                yield parquet.schema_arrow.empty_table()
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, OSError) as error:
        raise DataError(
            f"{file.name} is not a readable Parquet file: {error}", "write it again, or correct the path"
        ) from None
