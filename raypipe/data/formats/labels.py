"""Which label each file of a folder has, and which columns beside it: from folders, names, a table, or files beside."""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import pyarrow as pa

from raypipe.data.formats.base import Wanted
from raypipe.data.formats.datasource import read_group
from raypipe.data.masking import UNMASKED, Masking
from raypipe.data.sources.files import find
from raypipe.data.sources.listing import find_named
from raypipe.data.sources.paths import absolute, split_glob
from raypipe.data.sources.place import SourceFile
from raypipe.data.table.marks import Notes, noted, refuse_bad
from raypipe.data.table.names import MissingColumn, require
from raypipe.errors import DataError
from raypipe.spec.endings import has_ending, without_ending
from raypipe.spec.labels import PathLabel, RegexLabel, SidecarLabel, TableLabel
from raypipe.spec.sources import CsvSource, FolderSource, JsonlSource, ParquetSource

LABEL = "label"

NUM_SHOWN = 3
"""Files in a message."""


@dataclass(frozen=True, slots=True)
class FileRow:
    """One file.

    Attributes:
        name: relative to the folder that the source names.
        label: None where there is none, or `sidecar` holds it.
        problem: why it is a bad row.
        columns: further columns that are known of it, one tuple for all files; values: what they hold.
        sidecar: the file that holds label and columns.
    """

    file: SourceFile
    name: str
    label: str | None
    problem: str | None = None
    columns: tuple[str, ...] = ()
    values: tuple[Any, ...] = ()
    sidecar: SourceFile | None = None


def rows_of(source: FolderSource, root: str, masking: Masking = UNMASKED, notes: Notes | None = None) -> list[FileRow]:
    """One row a file, in order of the paths, and one for each label without a file.

    Args:
        notes: takes what is worth telling.
    Raises:
        DataError: labels cannot be read, name a file twice, or a regex does not match every file.
    """
    rows: dict[str, FileRow] = {}
    for path in [source.path] if isinstance(source.path, str) else source.path:
        named, start = absolute(path, root).rstrip("/"), absolute(split_glob(path)[0], root).rstrip("/")
        for file in find(path, root, source.suffixes):
            name = file.uri.removeprefix(_base(file.uri, named, start) + "/")
            folder = sys.intern(file.uri.rpartition("/")[0].rpartition("/")[2])
            rows.setdefault(file.uri, FileRow(file, name, folder))
    files = list(rows.values())
    label = source.label
    if isinstance(label, RegexLabel):
        with masking.guard(str(source.path)):
            return _matched(files, label)
    if isinstance(label, TableLabel):
        return _from_table(files, label, source, root, masking, {} if notes is None else notes)
    return _beside(files, label, source, root) if isinstance(label, SidecarLabel) else files


def _base(uri: str, named: str, start: str) -> str:
    """The folder that the name of a file is relative to.

    Args:
        named: what the source names: that folder, the file, or a glob.
        start: of a glob the last folder without `*?[`.
    """
    if uri == named:
        return named.rpartition("/")[0]
    return named if uri.startswith(f"{named}/") else start


# --- from names ------------------------------------------------------------------------------------------------------


def _matched(files: Sequence[FileRow], spec: RegexLabel) -> list[FileRow]:
    pattern = re.compile(spec.regex)
    is_path = isinstance(spec, PathLabel)
    found = [pattern.search(row.name if is_path else row.name.rpartition("/")[2]) for row in files]
    of_label = LABEL if pattern.groupindex else 1
    has_label = of_label == 1 or LABEL in pattern.groupindex
    columns = tuple(name for name in pattern.groupindex if name != LABEL)
    missed = [
        row for row, match in zip(files, found, strict=True) if match is None or (has_label and match[of_label] is None)
    ]
    if missed:
        shown = ", ".join(f"'{row.name}'" for row in missed[:NUM_SHOWN])
        more = f" and {len(missed) - NUM_SHOWN} more" if len(missed) > NUM_SHOWN else ""
        raise DataError(
            f"data.source.label.regex {spec.regex!r} matches {len(files) - len(missed)} of {len(files)} files; it does "
            f"not match {shown}{more}",
            "correct the regex, or name the files that have a label in data.source.path, e.g. with a glob",
        )
    rows: list[FileRow] = []
    for row, match in zip(files, found, strict=True):
        assert match is not None
        values = tuple(match[name] for name in columns)
        rows.append(replace(row, label=match[of_label] if has_label else None, columns=columns, values=values))
    return rows


# --- from files beside them ------------------------------------------------------------------------------------------


def _beside(files: Sequence[FileRow], spec: SidecarLabel, source: FolderSource, root: str) -> list[FileRow]:
    found = [file for named in spec.named(source.path, source.suffixes) for file in find_named(named, root)]
    ending = spec.suffix.lower()
    by_stem: dict[str, SourceFile] = {}
    for file in found:
        if not has_ending(file.uri, ending):  # a glob may match both
            continue
        if (other := by_stem.setdefault(without_ending(file.uri, ending), file)) is not file:
            raise DataError(f"{other.name} and {file.name} are both the label of one file", "leave one of them")
    rows: list[FileRow] = []
    for row in files:
        if has_ending(row.file.uri, ending):
            continue
        sidecar = by_stem.pop(_stem(row.file.uri), None)
        problem = None if sidecar else f"has no file '{_stem(row.name).rpartition('/')[2]}{spec.suffix}' beside it"
        rows.append(replace(row, label=None, problem=problem, sidecar=sidecar))
    for file in by_stem.values():
        rows.append(FileRow(file, file.name, None, "has no file of the same name beside it that it is the label of"))
    return rows


def _stem(name: str) -> str:
    """Without the last suffix."""
    folder, slash, last = name.rpartition("/")
    stem = last.rpartition(".")[0] or last
    return folder + slash + stem


# --- from a table ----------------------------------------------------------------------------------------------------


class _Table(NamedTuple):
    """What a table of labels holds; its rows are known by `names`."""

    names: list[str]
    labels: list[str | None]
    columns: tuple[str, ...]
    values: list[tuple[Any, ...]]


KEYS: tuple[Callable[[str], str], ...] = (
    lambda name: name,
    _stem,
    lambda name: name.rpartition("/")[2],
    lambda name: _stem(name.rpartition("/")[2]),
)
"""How a table may name files: the first way in which it names any is that of all."""


def _from_table(
    files: Sequence[FileRow], spec: TableLabel, source: FolderSource, root: str, masking: Masking, notes: Notes
) -> list[FileRow]:
    (file,) = (file for named in spec.named(source.path, source.suffixes) for file in find_named(named, root))
    with masking.guard(file.name):
        table = _read(file, spec, source, masking, notes)
        place = {name: i for i, name in enumerate(table.names)}
        key = next((key for key in KEYS if any(key(row.name) in place for row in files)), KEYS[0])
        _refuse_ambiguous(files, key, place, file.name)
    leaves_out = spec.unlabelled == "leave_out"
    rows: list[FileRow] = []
    num_unnamed = 0
    for row in files:
        i = place.pop(key(row.name), None)
        if i is not None and (table.labels[i] is not None or spec.label_column is None):
            rows.append(replace(row, label=table.labels[i], columns=table.columns, values=table.values[i]))
        elif leaves_out and i is None:
            noted(
                notes,
                [f"files are left out, as {file.name} does not name them (data.source.label.unlabelled)"],
                row.name,
            )
        else:
            num_unnamed += 1
            rows.append(replace(row, label=None, problem=f"has no label in {spec.path}"))
    for name in sorted(place):
        if leaves_out:
            noted(
                notes,
                [f"rows of {file.name} are left out, as there is no such file (data.source.label.unlabelled)"],
                name,
            )
            continue
        why = f"is in {spec.path}, but there is no such file"
        i = place[name]
        rows.append(FileRow(SourceFile(name, "", 0, ""), name, table.labels[i], why, table.columns, table.values[i]))
    if num_unnamed == len(files) or not rows:
        shown, other = files[0].name, next(iter(table.names), "nothing")
        raise DataError(
            f"{file.name} names none of the {len(files)} files of data.source: they are named like '{shown}', and its "
            f"column '{spec.file_column}' holds names like '{other}'",
            "correct data.source.label.file_column, or data.source.path so that names below it are those of the table",
        )
    return rows


def _read(file: SourceFile, spec: TableLabel, source: FolderSource, masking: Masking, notes: Notes) -> _Table:
    """The table.

    Args:
        notes: takes what was recognised in it.
    Raises:
        DataError: it cannot be read, lacks a column, or names a file twice.
    """
    from raypipe.data.formats import jsonl, parquet

    text = [spec.file_column, *([] if spec.label_column is None else [spec.label_column])]
    reader: Any
    if has_ending(file.uri, ParquetSource.suffixes):
        reader = partial(parquet.read_file, source=ParquetSource(format="parquet", path=spec.path))
    elif has_ending(file.uri, JsonlSource.suffixes):
        reader = partial(jsonl.read_file, source=JsonlSource(format="jsonl", path=spec.path))
    else:
        reader = _csv_reader(file, spec, text, masking, notes)
    with _named_of_label():
        tables = [refuse_bad(table) for table in read_group([file], reader, None, is_judged=True)]
    for table in tables:
        require(text, table.column_names, file.name)
    table = pa.concat_tables(tables, promote_options="permissive") if tables else pa.table({name: [] for name in text})
    columns = tuple(name for name in table.column_names if name not in text)
    if taken := {source.decoded, "file", LABEL}.intersection(columns):
        raise DataError(
            f"{file.name} has a column '{min(taken)}', which is one of the source itself", "rename it in the table"
        )
    names = table[spec.file_column].cast(pa.string()).to_pylist()
    labels: list[str | None] = [None] * len(names)
    if spec.label_column is not None:
        labels = _shared(table[spec.label_column].cast(pa.string()).to_pylist())
    counts = Counter(name for name in names if name is not None)
    twice = next((name for name, count in counts.items() if count > 1), None)
    if twice is not None:
        raise DataError(f"{file.name} names the file '{twice}' twice", "leave one row of it")
    by_column = [_shared(table[name].to_pylist()) for name in columns]
    values = list(zip(*by_column, strict=True)) if columns else [()] * len(names)
    there = [i for i, name in enumerate(names) if name is not None]
    if len(there) < len(names):
        unnamed = f"rows of {file.name} are left out, as they name no file in '{spec.file_column}'"
        noted(notes, [unnamed], "", len(names) - len(there))
    return _Table([names[i] for i in there], [labels[i] for i in there], columns, [values[i] for i in there])


def _csv_reader(file: SourceFile, spec: TableLabel, text: list[str], masking: Masking, notes: Notes) -> Any:
    """What reads a CSV table, with what is set of how it is written and what it tells itself.

    Args:
        text: columns that are text, whatever they hold.
    """
    from raypipe.data.formats import csv, csv_recognised

    given = {} if spec.csv is None else spec.csv.model_dump(exclude_unset=True)
    dtypes: Any = {**given.pop("dtypes", {}), **dict.fromkeys(text, "string")}
    source = CsvSource(format="csv", path=spec.path, dtypes=dtypes, **given)
    # As if another source had told what texts are: nobody says yet which columns are features, and split and weights
    # may name texts of others.
    with _named_of_label():
        source, lines = csv_recognised.recognised([file], source, masking, Wanted(text), like=source)
    noted(notes, [f"table of labels is read so: {_of_label(line)}" for line in lines], file.name)
    return partial(csv.read_file, source=source)


@contextmanager
def _named_of_label() -> Iterator[None]:
    """Errors about a CSV source as those of the table of labels, which has its settings elsewhere."""
    try:
        yield
    except DataError as error:
        if type(error) not in (DataError, MissingColumn):
            raise
        hint = _of_label(error.hint).replace("header: false, and data.source.label.csv.columns: the", "header: the")
        raise type(error)(error.message, hint, *error.args[2:]) from None


def _of_label(text: str) -> str:
    """Words about fields of a CSV source as those of a table of labels."""
    return text.replace("data.source.", "data.source.label.csv.")


def _shared(values: list[Any]) -> list[Any]:
    """The same, with equal texts held once: a table of a million files names few speakers."""
    return [sys.intern(value) if type(value) is str else value for value in values]


def _refuse_ambiguous(files: Sequence[FileRow], key: Callable[[str], str], place: dict[str, int], table: str) -> None:
    """Raise DataError where a row of the table names several files, of several folders or with several suffixes."""
    counts = Counter(key(row.name) for row in files)
    several = next((name for name in place if counts[name] > 1), None)
    if several is not None:
        alike = [row.name for row in files if key(row.name) == several]
        raise DataError(
            f"{table} names '{several}', which is {counts[several]} files: {alike[:NUM_SHOWN]}",
            "name files in it relative to the folder that data.source.path names",
        )
