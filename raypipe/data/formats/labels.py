"""Which label each file of a folder has: the name of the folder it lies in, or what a table says."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import pyarrow as pa

from raypipe.data.formats.datasource import read_group
from raypipe.data.masking import UNMASKED, Masking
from raypipe.data.sources.files import find
from raypipe.data.sources.listing import find_named
from raypipe.data.sources.paths import absolute, split_glob
from raypipe.data.sources.place import SourceFile
from raypipe.data.table.marks import refuse_bad
from raypipe.errors import DataError
from raypipe.spec.sources import CsvSource, FolderSource, JsonlSource, LabelsSpec, ParquetSource


@dataclass(frozen=True, slots=True)
class FileRow:
    """One file: its name relative to the folder that the source names, its label, or why it has none."""

    file: SourceFile
    name: str
    label: str | None
    problem: str | None = None


def rows_of(source: FolderSource, root: str, masking: Masking = UNMASKED) -> list[FileRow]:
    """One row a file, in order of the paths, and one for each label without a file."""
    labels = _labels(source.labels, root, masking) if source.labels else None
    by_uri: dict[str, FileRow] = {}
    for path in [source.path] if isinstance(source.path, str) else source.path:
        for file in find(path, root, source.suffixes):
            name = file.uri.removeprefix(_base(path, root, file) + "/")
            folder = file.uri.rpartition("/")[0].rpartition("/")[2]
            by_uri.setdefault(file.uri, _row(file, name, folder, labels, source.labels))
    rows = list(by_uri.values())
    if labels and source.labels:
        for name in sorted(set(labels) - {row.name for row in rows}):
            why = f"is in {source.labels.path}, but there is no such file"
            rows.append(FileRow(SourceFile(name, "", 0, ""), name, labels[name], why))
    return rows


def _row(file: SourceFile, name: str, folder: str, labels: dict[str, str] | None, spec: LabelsSpec | None) -> FileRow:
    if labels is None or spec is None:
        return FileRow(file, name, folder)
    label = labels.get(name)
    return FileRow(file, name, label, None if label is not None else f"has no label in {spec.path}")


def _base(path: str, root: str, file: SourceFile) -> str:
    """The folder that names are relative to: the one named, or for a glob the last one without `*?[`."""
    uri = absolute(path, root).rstrip("/")
    if uri == file.uri:
        return uri.rpartition("/")[0]
    return uri if file.uri.startswith(f"{uri}/") else absolute(split_glob(path)[0], root).rstrip("/")


def _labels(spec: LabelsSpec, root: str, masking: Masking) -> dict[str, str]:
    """Name of a file -> its label.

    Raises:
        DataError: the table cannot be read, or names a file twice.
    """
    from raypipe.data.formats import csv, jsonl, parquet

    (file,) = find_named(spec.named(), root)
    columns = [spec.file_column, spec.label_column]
    reader: Any
    if file.uri.endswith(ParquetSource.suffixes):
        reader = partial(parquet.read_file, source=ParquetSource(format="parquet", path=spec.path, columns=columns))
    elif file.uri.endswith(JsonlSource.suffixes):
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
