"""How every file format becomes a Ray dataset: files in groups, one read task a group, one type a column."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Protocol, TypeVar

import numpy as np
import pyarrow as pa
import ray.data
from ray.data import Datasource, ReadTask
from ray.data.block import BlockMetadata

from raypipe.data.formats.selecting import select_rows
from raypipe.data.sources.files import SourceFile
from raypipe.data.table import columns
from raypipe.data.table.marks import (
    ABSENT_KEY,
    BAD,
    FILE_KEY,
    ZEROS_KEY,
    absent,
    leading_zeros,
    left_out,
    with_left_out,
    with_zeros,
)
from raypipe.data.table.names import refuse_unusable, require, unusable_types
from raypipe.data.table.normal_form import normalise
from raypipe.data.table.one_type import OneType
from raypipe.data.tasks import keep_freed
from raypipe.errors import DataError, RaypipeError
from raypipe.spec.sources import Condition, SourceSpec

SMALL_BYTES = 16 * 2**20
"""Below this one task reads everything: starting a process costs more than reading."""

EXPANSION = {".gz": 4, ".png": 8, ".jpg": 8, ".jpeg": 8}
"""Rough size of a file in memory, in file sizes, by the end of its name; others are about as large."""

BLOCK_BYTES = 64 * 2**20
"""Small tables of one task are put together up to this size."""

TASK_FILES = 1000
"""Files of a read task at most: it carries their names, and Ray warns of tasks of a megabyte."""


class Part(Protocol):
    """What one call of a format's reader reads: a file, a range of one, or some small ones together."""

    @property
    def name(self) -> str: ...
    @property
    def size_bytes(self) -> int: ...


@dataclass(frozen=True)
class FileRange:
    """What lies in [start, stop) of a file, counted in the format's unit: bytes, row groups, record batches."""

    file: SourceFile
    size_bytes: int
    start: int = 0
    stop: int | None = None
    """None is the end of the file."""

    @property
    def name(self) -> str:
        return self.file.name


def as_range(part: SourceFile | FileRange) -> FileRange:
    """A file as the range that is all of it."""
    return part if isinstance(part, FileRange) else FileRange(part, part.size_bytes)


P = TypeVar("P", bound=Part)
ReadPart = Callable[[P], Iterable[pa.Table]]


class Masking(Protocol):
    """What keeps personal data out of tables and messages, see masking.py."""

    @property
    def names(self) -> tuple[str, ...]: ...
    def apply(self, table: pa.Table, file: str) -> pa.Table: ...
    def guard(self, file: str) -> AbstractContextManager[None]: ...


class NoMasking:
    """Nothing is hidden."""

    names = ()

    def apply(self, table: pa.Table, file: str) -> pa.Table:
        return table

    def guard(self, file: str) -> AbstractContextManager[None]:
        return nullcontext()


NO_MASKING = NoMasking()


def read_files(
    parts: Sequence[P],
    read_part: ReadPart[P],
    source: SourceSpec,
    parallelism: int | None,
    masking: Masking = NO_MASKING,
    parts_per_task: int = TASK_FILES,
) -> ray.data.Dataset:
    """A lazy dataset over files; rows keep the order of the files.

    Args:
        read_part: reads one part as tables; a module-level function or a partial of one.
        source: says which columns and rows to keep.
        parallelism: blocks to read into; None lets Ray choose.
        masking: applied before rows leave the task that reads them.
        parts_per_task: at most.
    """
    _hush_console()
    num_bytes = sum(part.size_bytes for part in parts)
    # Never more than there are parts: Ray would cut the blocks of each into many small ones.
    num_blocks = parallelism or max(1, min(len(parts), num_bytes // SMALL_BYTES))
    num_blocks = max(num_blocks, -(-len(parts) // parts_per_task))
    dataset = ray.data.read_datasource(_Files(parts, read_part, source, masking), override_num_blocks=num_blocks)
    dataset.context.execution_options.preserve_order = True
    return dataset


def _hush_console() -> None:
    """Ray Data's own lines and traces stay in its log files; people read our progress and our one error."""
    for handler in logging.getLogger("ray.data").handlers:
        if isinstance(handler, logging.StreamHandler):
            handler.setLevel(logging.CRITICAL)


@contextmanager
def readable(
    file: str, what: str, hint: str = "write it again, fetch a good copy, or correct the path"
) -> Iterator[None]:
    """Whatever a decoder raises over damaged bytes becomes one DataError.

    Args:
        what: e.g. "CSV".
    """
    try:
        yield
    except RaypipeError:
        raise
    except Exception as error:  # decoders fail in every way there is: no list of types is complete
        reason = str(error).strip().split("\n", 1)[0][:300] or type(error).__name__
        raise DataError(f"{file} is not readable as {what}: {reason}", hint) from None


class _Files(Datasource):
    """Ray Data's view of a list of files."""

    def __init__(self, parts: Sequence[Any], read_part: ReadPart[Any], source: SourceSpec, masking: Masking) -> None:
        super().__init__()
        self._parts = list(parts)
        self._read_part = read_part
        self._source = source
        self._masking = masking

    def estimate_inmemory_data_size(self) -> int | None:
        return _num_bytes(self._parts)

    def get_read_tasks(self, parallelism: int, *args: object, **kwargs: object) -> list[ReadTask]:
        groups = grouped(self._parts, parallelism)
        return [_read_task(group, self._read_part, self._source, self._masking) for group in groups]


def _num_bytes(parts: Sequence[Part]) -> int:
    """Rough size in memory."""
    return sum(part.size_bytes * EXPANSION.get(os.path.splitext(part.name)[1].lower(), 1) for part in parts)


def grouped(parts: Sequence[P], num_groups: int) -> list[list[P]]:
    """Neighbouring parts together, in `num_groups` groups of about equal size, or one a part where those are fewer."""
    sizes = np.cumsum([max(1, part.size_bytes) for part in parts])
    num_groups = max(1, min(num_groups, len(parts)))
    number = np.arange(1, num_groups)
    ends = np.searchsorted(sizes, sizes[-1] * number / num_groups, side="left") + 1
    ends = np.maximum.accumulate(ends - number) + number  # no group is empty
    cuts = [0, *np.minimum(ends, len(parts) - num_groups + number).tolist(), len(parts)]
    return [list(parts[a:b]) for a, b in pairwise(cuts)]


def _read_task(parts: list[Any], read_part: ReadPart[Any], source: SourceSpec, masking: Masking) -> ReadTask:
    metadata = BlockMetadata(
        num_rows=None,
        size_bytes=_num_bytes(parts),
        input_files=tuple(part.name for part in parts),
        exec_stats=None,
    )

    def read() -> Iterable[pa.Table]:
        keep_freed()
        return read_group(parts, read_part, source.columns, source.where, masking)

    return ReadTask(read, metadata)


def read_group(
    parts: Sequence[P],
    read_part: ReadPart[P],
    names: Sequence[str] | None,
    where: Sequence[Condition] = (),
    masking: Masking = NO_MASKING,
) -> Iterator[pa.Table]:
    """The rows of some parts as tables of about BLOCK_BYTES, each of one type a column, one in memory at a time.

    Raises:
        DataError: a column is missing or refused, or values are damaged.
        MixedTypes: a column changes its type.
    """
    is_judged = masking is not NO_MASKING
    one_type = OneType()
    waiting: list[tuple[pa.Table, str]] = []
    num_bytes = 0
    for part in parts:
        with masking.guard(part.name):
            for read in read_part(part):
                unusable = left_out(read.schema) | (unusable_types(read.schema) if names is None else {})
                if unusable:  # batch inference gives back every column; preparing judges which ones it needs
                    asked = [*masking.names, *(condition.column for condition in where)]
                    refuse_unusable(asked if is_judged else unusable, unusable, part.name)
                    there = [name for name in read.column_names if name not in unusable]
                    read = with_left_out(read.select(there), unusable)
                table = masking.apply(_chosen(read, names, where, part.name), part.name)
                zeros = {n: text for n, text in leading_zeros(read.schema).items() if n not in masking.names}
                metadata = {k: v for k, v in (read.schema.metadata or {}).items() if k != ZEROS_KEY}
                table = with_zeros(table.replace_schema_metadata(metadata), zeros)
                one_type.add({field.name: columns.kind(field.type) for field in table.schema}, part.name)
                one_type.add_types(table.schema)
                # An empty one tells which columns there are, where those before it did not.
                if table.num_rows or not waiting or absent(waiting[-1][0].schema) - absent(table.schema):
                    waiting.append((table, part.name))
                    num_bytes += table.nbytes
                if num_bytes >= BLOCK_BYTES:
                    yield _joined(waiting, one_type)
                    waiting, num_bytes = [], 0
    if waiting:
        yield _joined(waiting, one_type)


def _chosen(table: pa.Table, names: Sequence[str] | None, where: Sequence[Condition], file: str) -> pa.Table:
    """The named columns of the rows wanted, in few types, and BAD where the format gave it."""
    marks = [BAD] if BAD in table.column_names else []
    chosen_by = [condition.column for condition in where]
    kept = list(names) if names is not None else [name for name in table.column_names if name != BAD]
    require([*kept, *chosen_by], table.column_names, file)
    table = table.select(list(dict.fromkeys([*kept, *chosen_by, *marks])))
    with readable(file, "columns of its types", "the file is damaged: write it again, or fetch a good copy"):
        table.validate(full=True)
        table = normalise(table, file)
    return select_rows(table, where, file, BAD).select([*kept, *marks])


def _joined(tables: Sequence[tuple[pa.Table, str]], one_type: OneType) -> pa.Table:
    for table, owner in tables:
        require(one_type.tensors(), table.column_names, owner)
    whole = pa.concat_tables([one_type.apply(table) for table, _ in tables])
    nowhere = frozenset.intersection(*(absent(table.schema) for table, _ in tables))
    zeros: dict[str, str] = {}
    for table, _ in reversed(tables):
        zeros.update((name, text) for name, text in leading_zeros(table.schema).items() if name in whole.column_names)
    whole = whole.replace_schema_metadata({FILE_KEY: tables[0][1], ABSENT_KEY: json.dumps(sorted(nowhere))})
    unusable = {name: what for table, _ in tables for name, what in left_out(table.schema).items()}
    return with_zeros(with_left_out(whole, unusable), zeros)
