"""Formats where each file is a row: which files, with which labels, read some files at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import ray.data
from ray.data.extensions import ArrowTensorArray

from raypipe.data.formats.reading import NO_MASKING, TASK_FILES, Masking, read_files, read_group
from raypipe.data.sources.files import SourceFile, absolute, find, read_bytes, split_glob
from raypipe.data.table.marks import BAD, refuse_bad
from raypipe.errors import DataError, RaypipeError
from raypipe.spec.sources import CsvSource, FolderSource, JsonlSource, LabelsSpec, ParquetSource

BATCH_BYTES = 16 * 2**20
"""Size in memory of the rows that are read together."""

BATCH_FILES = 256

MAX_FILE_BYTES = 512 * 2**20
"""A larger file is a bad row."""

Decode = Callable[[bytes], np.ndarray]
"""Bytes of a file -> its values; raises whatever it likes over bytes that are not what they should be."""


@dataclass(frozen=True)
class Row:
    """One file: its name relative to the folder that the source names, its label, or why it has none."""

    file: SourceFile
    name: str
    label: str | None
    problem: str | None = None


@dataclass(frozen=True)
class Rows:
    """Some files that are read together."""

    rows: tuple[Row, ...]

    @property
    def name(self) -> str:
        return self.rows[0].file.name

    @property
    def size_bytes(self) -> int:
        return sum(row.file.size_bytes for row in self.rows)


def files(source: FolderSource, root: str, suffixes: tuple[str, ...]) -> list[SourceFile]:
    """The files that are rows, and the table of labels."""
    labels = [_labels_file(source.labels, root)] if source.labels else []
    return [*find(source.path, root, suffixes), *labels]


def rows_of(source: FolderSource, root: str, suffixes: tuple[str, ...], masking: Masking = NO_MASKING) -> list[Row]:
    """One row a file, in order of the paths, and one for each label without a file."""
    labels = _labels(source.labels, root, masking) if source.labels else None
    found: dict[str, Row] = {}
    for path in [source.path] if isinstance(source.path, str) else source.path:
        for file in find(path, root, suffixes):
            name = file.uri.removeprefix(_base(path, root, file) + "/")
            folder = file.uri.rpartition("/")[0].rpartition("/")[2]
            found.setdefault(file.uri, _row(file, name, folder, labels, source.labels))
    rows = list(found.values())
    if labels and source.labels:
        for name in sorted(set(labels) - {row.name for row in rows}):
            why = f"is in {source.labels.path}, but there is no such file"
            rows.append(Row(SourceFile(name, "", 0, ""), name, labels[name], why))
    return rows


def read(
    rows: list[Row],
    source: FolderSource,
    parallelism: int | None,
    *,
    column: str,
    shape: tuple[int, ...],
    dtype: str,
    decode: Decode,
    masking: Masking,
) -> ray.data.Dataset:
    """Rows of all files.

    Args:
        column: name of the column of decoded values, each `dtype` of `shape`.
        decode: a module-level function or a partial of one.
    """
    row_bytes = int(np.prod(shape)) * np.dtype(dtype).itemsize
    step = max(1, min(BATCH_FILES, BATCH_BYTES // row_bytes))
    parts = [Rows(tuple(rows[i : i + step])) for i in range(0, len(rows), step)]
    reader = partial(read_rows, column=column, shape=shape, dtype=dtype, decode=decode)
    return read_files(parts, reader, source, parallelism, masking, parts_per_task=max(1, TASK_FILES // step))


def read_rows(part: Rows, *, column: str, shape: tuple[int, ...], dtype: str, decode: Decode) -> Iterator[pa.Table]:
    """One table: decoded values, label, file; a file that cannot be decoded is a bad row."""
    values = np.zeros((len(part.rows), *shape), dtype)
    reasons: list[str | None] = []
    for i, row in enumerate(part.rows):
        problem = row.problem
        if problem is None:
            try:
                values[i] = _decoded(row.file, decode)
            except RaypipeError:
                raise  # the storage failed, not the file
            except Exception as error:  # decoders fail in every way there is: no list of types is complete
                problem = str(error).strip().split("\n", 1)[0][:300] or type(error).__name__
        reasons.append(None if problem is None else f"{row.name}: {problem}")
    table = pa.table(
        {
            column: ArrowTensorArray.from_numpy(values),
            "label": pa.array([row.label for row in part.rows], pa.string()),
            "file": pa.array([row.name for row in part.rows], pa.string()),
        }
    )
    yield table.append_column(BAD, pa.array(reasons, pa.string())) if any(reasons) else table


def first_readable(rows: list[Row], decode: Decode) -> tuple[Row, np.ndarray] | None:
    """The first file that can be decoded, and its values; None where none can."""
    for row in rows:
        if row.problem is None:
            try:
                return row, _decoded(row.file, decode)
            except RaypipeError:
                raise
            except Exception:
                continue  # it will be a bad row, with the reason
    return None


def _decoded(file: SourceFile, decode: Decode) -> np.ndarray:
    if file.size_bytes > MAX_FILE_BYTES:
        raise ValueError(f"has {file.size_bytes} bytes; {MAX_FILE_BYTES} are allowed")
    return decode(read_bytes(file))


def _row(file: SourceFile, name: str, folder: str, labels: dict[str, str] | None, spec: LabelsSpec | None) -> Row:
    if labels is None or spec is None:
        return Row(file, name, folder)
    label = labels.get(name)
    return Row(file, name, label, None if label is not None else f"has no label in {spec.path}")


def _base(path: str, root: str, file: SourceFile) -> str:
    """The folder that names are relative to: the one named, or for a glob the last one without `*?[`."""
    uri = absolute(path, root).rstrip("/")
    if uri == file.uri:
        return uri.rpartition("/")[0]
    return uri if file.uri.startswith(f"{uri}/") else absolute(split_glob(path)[0], root).rstrip("/")


def _labels_file(spec: LabelsSpec, root: str) -> SourceFile:
    found = find(spec.path, root, (".csv", ".jsonl", ".parquet"))
    if len(found) != 1:
        raise DataError(f"data.source.labels: '{spec.path}' matches {len(found)} files; it names one", "name one file")
    return found[0]


def _labels(spec: LabelsSpec, root: str, masking: Masking) -> dict[str, str]:
    """Name of a file -> its label.

    Raises:
        DataError: the table cannot be read, or names a file twice.
    """
    from raypipe.data.formats import csv, jsonl, parquet

    file = _labels_file(spec, root)
    columns = [spec.file_column, spec.label_column]
    reader: Any
    if file.uri.endswith((".parquet", ".pq")):
        reader = partial(parquet.read_file, source=ParquetSource(format="parquet", path=spec.path, columns=columns))
    elif file.uri.endswith(jsonl.SUFFIXES):
        reader = partial(jsonl.read_file, source=JsonlSource(format="jsonl", path=spec.path, columns=columns))
    else:
        text: Any = dict.fromkeys(columns, "string")
        reader = partial(csv.read_file, source=CsvSource(format="csv", path=spec.path, columns=columns, dtypes=text))
    labels: dict[str, str] = {}
    with masking.guard(file.name):
        for table in read_group([file], reader, columns):
            table = refuse_bad(table)
            names, values = (table[column].cast(pa.string()).to_pylist() for column in columns)
            for name, label in zip(names, values, strict=True):
                if name in labels:
                    raise DataError(f"{file.name} names the file '{name}' twice", "leave one row of it")
                if name is not None and label is not None:
                    labels[name] = label
    return labels
