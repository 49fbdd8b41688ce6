"""How every file format becomes a Ray dataset: files in groups, one read task a group, one type a column."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise

import pyarrow as pa
import ray.data
from ray.data import Datasource, ReadTask
from ray.data.block import BlockMetadata

from raypipe.data import columns
from raypipe.data.columns import Kind
from raypipe.data.files import SourceFile
from raypipe.errors import DataError, did_you_mean

SMALL_BYTES = 16 * 2**20
"""Below this one task reads everything: starting a process costs more than reading."""

EXPANSION = 4
"""Rough size of a file in memory, in file sizes."""

FILE_KEY = b"raypipe.file"
"""Schema metadata: the first file of a block, named in messages."""

ReadFile = Callable[[SourceFile], Iterable[pa.Table]]


def read_files(
    files: Sequence[SourceFile], read_file: ReadFile, names: Sequence[str] | None, parallelism: int | None
) -> ray.data.Dataset:
    """A lazy dataset over files; rows keep the order of the files.

    Args:
        read_file: reads one file as tables; a module-level function or a partial of one.
        names: columns to keep; None keeps all.
        parallelism: blocks to read into; None lets Ray choose.
    """
    _hush_console()
    small = sum(file.size_bytes for file in files) < SMALL_BYTES
    num_blocks = 1 if parallelism is None and small else parallelism
    dataset = ray.data.read_datasource(_Files(files, read_file, names), override_num_blocks=num_blocks)
    dataset.context.execution_options.preserve_order = True
    return dataset


def _hush_console() -> None:
    """Ray Data's own lines and traces stay in its log files; people read our progress and our one error."""
    for handler in logging.getLogger("ray.data").handlers:
        if isinstance(handler, logging.StreamHandler):
            handler.setLevel(logging.CRITICAL)


def select(table: pa.Table, names: Sequence[str] | None, file: str) -> pa.Table:
    """The named columns, in that order.

    Raises:
        DataError: one is not there.
    """
    if names is None:
        return table
    require(names, table.column_names, file)
    return table.select(list(names))


def require(names: Sequence[str], there: Sequence[str], file: str) -> None:
    """Raise DataError unless all `names` are `there`."""
    for name in names:
        if name not in there:
            raise DataError(
                f"{file}: column '{name}' is not there{did_you_mean(name, there)}; the columns are {list(there)[:50]}",
                "correct the name in data.features, data.target, data.split.key or data.source.columns",
            )


class _Files(Datasource):
    """Ray Data's view of a list of files."""

    def __init__(self, files: Sequence[SourceFile], read_file: ReadFile, names: Sequence[str] | None) -> None:
        super().__init__()
        self._files = list(files)
        self._read_file = read_file
        self._names = names

    def estimate_inmemory_data_size(self) -> int | None:
        return sum(file.size_bytes for file in self._files) * EXPANSION

    def get_read_tasks(self, parallelism: int, *args: object, **kwargs: object) -> list[ReadTask]:
        num_tasks = max(1, min(parallelism, len(self._files)))
        cuts = [len(self._files) * i // num_tasks for i in range(num_tasks + 1)]
        groups = [self._files[a:b] for a, b in pairwise(cuts)]
        return [_read_task(group, self._read_file, self._names) for group in groups]


def _read_task(files: list[SourceFile], read_file: ReadFile, names: Sequence[str] | None) -> ReadTask:
    metadata = BlockMetadata(
        num_rows=None,
        size_bytes=sum(file.size_bytes for file in files) * EXPANSION,
        input_files=tuple(file.name for file in files),
        exec_stats=None,
    )
    return ReadTask(lambda: read_group(files, read_file, names), metadata)


def read_group(files: Sequence[SourceFile], read_file: ReadFile, names: Sequence[str] | None) -> list[pa.Table]:
    """The tables of some files, every column of one type.

    Raises:
        DataError: a column is missing, refused, or changes its type between two files.
    """
    owners: list[str] = []
    tables: list[pa.Table] = []
    for file in files:
        for table in read_file(file):
            tables.append(columns.normalise(select(table, names, file.name), file.name))
            owners.append(file.name)
    kinds = common_kinds(
        [{name: columns.kind(t.schema.field(name).type) for name in t.column_names} for t in tables], owners
    )
    whole = [_of_kinds(table, kinds, owner) for table, owner in zip(tables, owners, strict=True)]
    return [table.replace_schema_metadata({FILE_KEY: owners[0]}) for table in whole]


def common_kinds(found: Sequence[dict[str, Kind]], owners: Sequence[str]) -> dict[str, Kind]:
    """One kind a column over all tables, in order of appearance.

    Args:
        found: column -> kind, one a table.
        owners: the file of each table.
    Raises:
        DataError: two tables disagree; names both files and types.
    """
    agreed: dict[str, Kind] = {}
    first: dict[str, tuple[str, Kind]] = {}
    for kinds, owner in zip(found, owners, strict=True):
        for name, kind in kinds.items():
            both = columns.common([agreed.get(name, Kind("null")), kind])
            if both is None:
                other, other_kind = first[name]
                raise DataError(
                    f"column '{name}' holds {other_kind} in {other} but {kind} in {owner}; "
                    "a column has one type in all files",
                    f"make '{name}' the same in all files, or leave it out with data.source.columns",
                )
            agreed[name] = both
            if kind.dtype != "null":
                first.setdefault(name, (owner, kind))
    return agreed


def _of_kinds(table: pa.Table, kinds: dict[str, Kind], file: str) -> pa.Table:
    arrays = {}
    for name, kind in kinds.items():
        if kind.form.startswith("["):  # Arrow has no null tensor
            require([name], table.column_names, file)
        if name not in table.column_names:
            arrays[name] = pa.nulls(table.num_rows, columns.arrow_type(kind))
        elif columns.kind(table.schema.field(name).type) != kind:
            arrays[name] = table[name].cast(columns.arrow_type(kind), safe=False)
        else:
            arrays[name] = table[name]
    return pa.table(arrays)
