"""How every file format becomes a Ray dataset: files in groups, one read task a group, one type a column."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import pairwise
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import ray.data
from ray.data import Datasource, ReadTask
from ray.data.block import BlockMetadata

from raypipe.data.formats.parts import Named, Part, Sized, readable
from raypipe.data.formats.selecting import select_rows
from raypipe.data.masking import UNMASKED, Masking
from raypipe.data.table import columns
from raypipe.data.table.marks import (
    ABSENT_KEY,
    BAD,
    FILE_KEY,
    ZEROS_KEY,
    absent,
    leading_zeros,
    left_out,
    notes_of,
    summed,
    with_left_out,
    with_notes,
    with_zeros,
)
from raypipe.data.table.names import refuse_unusable, require, unusable_types
from raypipe.data.table.normal_form import normalise
from raypipe.data.table.one_type import OneType
from raypipe.data.tasks import keep_freed
from raypipe.spec.sources import Condition, SourceSpec

SMALL_BYTES = 16 * 2**20
"""Below this one task reads everything: starting a process costs more than reading."""

EXPANSION = {".gz": 4, ".png": 8, ".jpg": 8, ".jpeg": 8, ".gif": 8, ".webp": 16}
"""Rough size of a file in memory, in file sizes, by the end of its name; others are about as large."""

BLOCK_BYTES = 64 * 2**20
"""Small tables of one task are put together up to this size."""

TASK_FILES = 1000
"""Files of a read task at most: it carries their names, and Ray warns of tasks of a megabyte."""


P = TypeVar("P", bound=Part)
N = TypeVar("N", bound=Named)
S = TypeVar("S", bound=Sized)
ReadPart = Callable[[N], Iterable[pa.Table]]


class FilesDatasource(Datasource):
    """Ray Data's view of a list of files."""

    def __init__(
        self, parts: Sequence[Any], read_part: ReadPart[Any], source: SourceSpec, masking: Masking, is_judged: bool
    ) -> None:
        super().__init__()
        self.parts = list(parts)
        self._read_part = read_part
        self._source = source
        self._masking = masking
        self._is_judged = is_judged

    def dataset(self, parallelism: int | None) -> ray.data.Dataset:
        """Nothing is read yet; rows keep the order of the files. See `Format.read`."""
        _hush_console()
        num_bytes = sum(_weight(part) for part in self.parts)
        # Never more than there are parts: Ray would cut the blocks of each into many small ones.
        num_blocks = parallelism or max(1, min(len(self.parts), num_bytes // SMALL_BYTES))
        dataset = ray.data.read_datasource(self, override_num_blocks=num_blocks)
        dataset.context.execution_options.preserve_order = True
        return dataset

    @property
    def num_bytes(self) -> int | None:
        return _num_bytes(self.parts)

    def estimate_inmemory_data_size(self) -> int | None:
        return self.num_bytes

    def get_read_tasks(self, parallelism: int, *args: object, **kwargs: object) -> list[ReadTask]:
        return [self._read_task(few) for group in grouped(self.parts, parallelism) for few in few_files(group)]

    def _read_task(self, parts: list[Any]) -> ReadTask:
        # Without the names of its files: they would travel with every block, and nobody asks for them.
        metadata = BlockMetadata(num_rows=None, size_bytes=_num_bytes(parts), input_files=None, exec_stats=None)
        arguments = (self._read_part, self._source.columns, self._source.where, self._masking, self._is_judged)

        def read() -> Iterable[pa.Table]:
            keep_freed()
            return read_group(parts, *arguments)

        return ReadTask(read, metadata)


def _hush_console() -> None:
    """Ray Data's own lines and traces stay in its log files; people read our progress and our one error."""
    for handler in logging.getLogger("ray.data").handlers:
        if isinstance(handler, logging.StreamHandler):
            handler.setLevel(logging.CRITICAL)


def _num_bytes(parts: Sequence[Sized]) -> int | None:
    """Rough size in memory; None where the size of a part is not known."""
    sizes = [part.size_bytes for part in parts]
    if any(size is None for size in sizes):
        return None
    kinds = [os.path.splitext(part.name)[1].lower() for part in parts]
    return sum((size or 0) * EXPANSION.get(kind, 1) for size, kind in zip(sizes, kinds, strict=True))


def _weight(part: Sized) -> int:
    """Bytes, where tasks are made about equally large; one of unknown size gets a task of its own."""
    return SMALL_BYTES if part.size_bytes is None else max(1, part.size_bytes)


def estimated_bytes(dataset: ray.data.Dataset) -> int | None:
    """Rough size in memory of what a format's `read` gave; None where the size of a file is not known.

    `dataset.size_bytes()` would then read everything to know it.
    """
    files = files_of(dataset)
    return dataset.size_bytes() if files is None else files.num_bytes


def few_files(parts: Sequence[P]) -> Iterator[list[P]]:
    """Neighbouring parts together, of TASK_FILES files at most, or one."""
    some: list[P] = []
    num_files = 0
    for part in parts:
        if some and num_files + part.num_files > TASK_FILES:
            yield some
            some, num_files = [], 0
        some.append(part)
        num_files += part.num_files
    yield some


def files_of(dataset: ray.data.Dataset) -> FilesDatasource | None:
    """What a dataset reads that nothing was done to yet; None where it has its blocks already."""
    files = getattr(dataset._logical_plan.dag, "datasource", None)
    return files if isinstance(files, FilesDatasource) else None


def grouped(parts: Sequence[S], num_groups: int) -> list[list[S]]:
    """Neighbouring parts together, in `num_groups` groups of about equal size, or one a part where those are fewer."""
    sizes = np.cumsum([_weight(part) for part in parts])
    num_groups = max(1, min(num_groups, len(parts)))
    number = np.arange(1, num_groups)
    ends = np.searchsorted(sizes, sizes[-1] * number / num_groups, side="left") + 1
    ends = np.maximum.accumulate(ends - number) + number  # no group is empty
    cuts = [0, *np.minimum(ends, len(parts) - num_groups + number).tolist(), len(parts)]
    return [list(parts[a:b]) for a, b in pairwise(cuts)]


def read_group(
    parts: Sequence[N],
    read_part: ReadPart[N],
    names: Sequence[str] | None,
    where: Sequence[Condition] = (),
    masking: Masking = UNMASKED,
    is_judged: bool = False,
) -> Iterator[pa.Table]:
    """The rows of some parts as tables of about BLOCK_BYTES, each of one type a column, one in memory at a time.

    Args:
        is_judged: whether somebody decides later about columns that nobody asked for and that cannot be read; else they
            stop the reading.
    Raises:
        DataError: a column is missing or refused, or values are damaged.
        MixedTypes: a column changes its type.
    """
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
                if masking.names:  # the name of a file may be what is masked
                    table = with_notes(table, {note: (num, "") for note, (num, _) in notes_of(read.schema).items()})
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
    names = set(whole.column_names)
    for table, _ in reversed(tables):
        zeros.update((name, text) for name, text in leading_zeros(table.schema).items() if name in names)
    whole = whole.replace_schema_metadata({FILE_KEY: tables[0][1], ABSENT_KEY: json.dumps(sorted(nowhere))})
    unusable = {name: what for table, _ in tables for name, what in left_out(table.schema).items()}
    notes = summed(notes_of(table.schema) for table, _ in tables)
    return with_notes(with_zeros(with_left_out(whole, unusable), zeros), notes)
