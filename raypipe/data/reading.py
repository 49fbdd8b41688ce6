"""How every file format becomes a Ray dataset: files in groups, one read task a group, one type a column."""

from __future__ import annotations

import json
import logging
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Protocol, TypeVar

import numpy as np
import pyarrow as pa
import ray.data
from ray.data import Datasource, ReadTask
from ray.data.block import BlockMetadata

from raypipe.data import columns
from raypipe.data.agreement import Agreed
from raypipe.data.files import SourceFile
from raypipe.data.memory import keep_freed
from raypipe.data.selecting import select_rows
from raypipe.errors import DataError, RaypipeError, did_you_mean
from raypipe.spec.sources import Condition, SourceSpec

SMALL_BYTES = 16 * 2**20
"""Below this one task reads everything: starting a process costs more than reading."""

EXPANSION = {".gz": 4, ".png": 8, ".jpg": 8, ".jpeg": 8}
"""Rough size of a file in memory, in file sizes, by the end of its name; others are about as large."""

BLOCK_BYTES = 64 * 2**20
"""Small tables of one task are put together up to this size."""

TASK_FILES = 1000
"""Files of a read task at most: it carries their names, and Ray warns of tasks of a megabyte."""

FILE_KEY = b"raypipe.file"
"""Schema metadata: the first file of a block, named in messages."""

ABSENT_KEY = b"raypipe.absent"
"""Schema metadata, JSON: columns asked for by name that no row of a block has; they hold nulls where they are kept."""

LEFT_OUT_KEY = b"raypipe.left_out"
"""Schema metadata, JSON: columns that nobody asked for by name and that cannot be read -> what is wrong with them."""

ZEROS_KEY = b"raypipe.leading_zeros"
"""Schema metadata, JSON: column that is read as numbers -> a value of it that was written with leading zeros."""

BAD = "__bad"
"""Column of text that formats add for rows they could not read: why, or null; other columns hold there what could be
read of the row, which may be a guess, or null or 0."""


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


class MissingColumn(DataError):
    """A named column is not there.

    Args:
        bare: the message without the names of other columns: where a header line is missing they are values.
    """

    def __init__(self, message: str, hint: str = "", bare: str = "") -> None:
        super().__init__(message, hint)
        self.args = (message, hint, bare)
        self.bare = bare


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


def needed(source: SourceSpec) -> list[str] | None:
    """Columns that must be read: those to keep and those that choose rows; None is all."""
    if source.columns is None:
        return None
    return list(dict.fromkeys([*source.columns, *(condition.column for condition in source.where)]))


def require(names: Sequence[str], there: Sequence[str], file: str) -> None:
    """Raise MissingColumn unless all `names` are `there`; tells all that are not."""
    missing = [name for name in dict.fromkeys(names) if name not in there]
    if not missing:
        return
    others = [column for column in there if column != BAD]
    bare = "; ".join(f"column '{name}' is not there" for name in missing)
    what = "; ".join(f"column '{name}' is not there{did_you_mean(name, others)}" for name in missing)
    raise MissingColumn(
        f"{file}: {what}; the columns are {others[:50]}",
        "correct the name in data.features, data.target, data.split.key, data.masking, or the columns, where or dtypes "
        "of data.source",
        f"{file}: {bare}; it has {len(others)} columns",
    )


def absent(schema: pa.Schema) -> frozenset[str]:
    """The columns that were asked for by name and that no row of a block has."""
    return frozenset(json.loads((schema.metadata or {}).get(ABSENT_KEY, b"[]")))


def left_out(schema: pa.Schema) -> dict[str, str]:
    """The columns of a file that are not in the table because they cannot be read -> what is wrong with them."""
    return json.loads((schema.metadata or {}).get(LEFT_OUT_KEY, b"{}"))


def with_left_out(table: pa.Table, unusable: Mapping[str, str]) -> pa.Table:
    """The table, which tells that these columns are left out."""
    told = left_out(table.schema) | dict(unusable)
    metadata = table.schema.metadata or {}
    return table.replace_schema_metadata({**metadata, LEFT_OUT_KEY: json.dumps(told)}) if told else table


def unusable_names(names: Sequence[str]) -> dict[str, str]:
    """The columns that a file has twice, or whose name is one of ours -> which of the two."""
    counts = Counter(names)
    twice = {name: "is there twice" for name in counts if counts[name] > 1}
    return twice | ({BAD: "is a name that raypipe uses itself"} if BAD in counts else {})


def unusable_columns(schema: pa.Schema) -> dict[str, str]:
    """The columns of a file that cannot be read -> what is wrong with them."""
    return _unusable_types(schema) | unusable_names(schema.names)


def _unusable_types(schema: pa.Schema) -> dict[str, str]:
    return {name: f"has {what}" for name, what in columns.refused_types(schema).items()}


def usable(
    names: Sequence[str] | None, there: Sequence[str], unusable: Mapping[str, str], source: SourceSpec, file: str
) -> list[str]:
    """The columns to read: those named, or all that can be.

    Args:
        names: that are asked for; None is all.
    Raises:
        MissingColumn, ColumnRefused: one that is asked for is not there, or cannot be read.
    """
    asked = [*(names or ()), *(condition.column for condition in source.where)]
    require(asked, there, file)
    refuse_unusable(asked, unusable, file)
    chosen = [name for name in there if name not in unusable] if names is None else list(names)
    if not chosen:
        refuse_unusable(there, unusable, file)
    return chosen


def refuse_unusable(names: Iterable[str], unusable: Mapping[str, str], file: str) -> None:
    """Raise ColumnRefused when columns that are needed cannot be read; tells all of them."""
    refused = {name: unusable[name] for name in names if name in unusable}
    if refused:
        raise columns.refused(refused, file)


def leading_zeros(schema: pa.Schema) -> dict[str, str]:
    """Columns of whole numbers that were written with leading zeros, each with such a value."""
    return json.loads((schema.metadata or {}).get(ZEROS_KEY, b"{}"))


def refuse_names(names: Sequence[str], file: str) -> None:
    """Raise ColumnRefused when a file has a column twice, or one with a name of ours."""
    refuse_unusable(names, unusable_names(names), file)


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


def with_bad(table: pa.Table, reasons: Mapping[int, str]) -> pa.Table:
    """The table with the rows that could not be read marked; unchanged when there are none, and it has columns.

    Args:
        reasons: row -> why it could not be read.
    """
    if not reasons and table.num_columns:
        return table
    marks = np.full(table.num_rows, None, object)
    for row, reason in reasons.items():
        marks[row] = reason
    return table.append_column(BAD, pa.array(marks, pa.string()))


def with_zeros(table: pa.Table, found: Mapping[str, str]) -> pa.Table:
    """The table with what `leading_zeros` tells."""
    if not found:
        return table
    return table.replace_schema_metadata({**(table.schema.metadata or {}), ZEROS_KEY: json.dumps(found)})


def refuse_bad(table: pa.Table) -> pa.Table:
    """The table without its marks.

    Raises:
        DataError: a row could not be read; says which and why.
    """
    if BAD not in table.column_names:
        return table
    reasons = table[BAD].drop_null()
    if len(reasons):
        raise DataError(f"{len(reasons)} row(s) cannot be read: {reasons[0]}", "mend or remove them")
    return table.drop_columns([BAD])


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
    agreed = Agreed()
    waiting: list[tuple[pa.Table, str]] = []
    num_bytes = 0
    for part in parts:
        with masking.guard(part.name):
            for read in read_part(part):
                unusable = left_out(read.schema) | (_unusable_types(read.schema) if names is None else {})
                if unusable:  # batch inference gives back every column; preparing judges which ones it needs
                    asked = [*masking.names, *(condition.column for condition in where)]
                    refuse_unusable(asked if is_judged else unusable, unusable, part.name)
                    there = [name for name in read.column_names if name not in unusable]
                    read = with_left_out(read.select(there), unusable)
                table = masking.apply(_chosen(read, names, where, part.name), part.name)
                zeros = {n: text for n, text in leading_zeros(read.schema).items() if n not in masking.names}
                metadata = {k: v for k, v in (read.schema.metadata or {}).items() if k != ZEROS_KEY}
                table = with_zeros(table.replace_schema_metadata(metadata), zeros)
                agreed.add({field.name: columns.kind(field.type) for field in table.schema}, part.name)
                agreed.add_types(table.schema)
                # An empty one tells which columns there are, where those before it did not.
                if table.num_rows or not waiting or absent(waiting[-1][0].schema) - absent(table.schema):
                    waiting.append((table, part.name))
                    num_bytes += table.nbytes
                if num_bytes >= BLOCK_BYTES:
                    yield _joined(waiting, agreed)
                    waiting, num_bytes = [], 0
    if waiting:
        yield _joined(waiting, agreed)


def _chosen(table: pa.Table, names: Sequence[str] | None, where: Sequence[Condition], file: str) -> pa.Table:
    """The named columns of the rows wanted, in few types, and BAD where the format gave it."""
    marks = [BAD] if BAD in table.column_names else []
    chosen_by = [condition.column for condition in where]
    kept = list(names) if names is not None else [name for name in table.column_names if name != BAD]
    require([*kept, *chosen_by], table.column_names, file)
    table = table.select(list(dict.fromkeys([*kept, *chosen_by, *marks])))
    with readable(file, "columns of its types", "the file is damaged: write it again, or fetch a good copy"):
        table.validate(full=True)
        table = columns.normalise(table, file)
    return select_rows(table, where, file, BAD).select([*kept, *marks])


def _joined(tables: Sequence[tuple[pa.Table, str]], agreed: Agreed) -> pa.Table:
    for table, owner in tables:
        require(agreed.tensors(), table.column_names, owner)
    whole = pa.concat_tables([agreed.apply(table) for table, _ in tables])
    nowhere = frozenset.intersection(*(absent(table.schema) for table, _ in tables))
    zeros: dict[str, str] = {}
    for table, _ in reversed(tables):
        zeros.update((name, text) for name, text in leading_zeros(table.schema).items() if name in whole.column_names)
    whole = whole.replace_schema_metadata({FILE_KEY: tables[0][1], ABSENT_KEY: json.dumps(sorted(nowhere))})
    unusable = {name: what for table, _ in tables for name, what in left_out(table.schema).items()}
    return with_zeros(with_left_out(whole, unusable), zeros)
