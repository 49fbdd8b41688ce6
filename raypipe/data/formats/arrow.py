"""Arrow IPC files and streams, and Feather version 2, a record batch at a time."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import pyarrow as pa
import ray.data

from raypipe.data.formats.reading import BLOCK_BYTES, NO_MASKING, FileRange, Masking, as_range, read_files, readable
from raypipe.data.sources.files import HTTP, SourceFile, find, open_file
from raypipe.data.table.marks import with_left_out
from raypipe.data.table.names import needed, unusable_columns, usable
from raypipe.errors import DataError
from raypipe.spec.sources import ArrowSource

SUFFIXES = (".arrow", ".arrows", ".feather", ".ipc")

FILE_MAGIC, FEATHER_1_MAGIC = b"ARROW1", b"FEA1"


def files(source: ArrowSource, root: str) -> list[SourceFile]:
    """The files the source names."""
    return find(source.path, root, SUFFIXES)


def read(source: ArrowSource, root: str, parallelism: int | None, masking: Masking = NO_MASKING) -> ray.data.Dataset:
    """Rows of all files; a large file is divided between its record batches, a stream is not."""
    parts = [part for file in files(source, root) for part in divided(file)]
    return read_files(parts, partial(read_file, source=source), source, parallelism, masking)


def divided(file: SourceFile) -> list[FileRange]:
    """A large file in neighbouring record batches of about BLOCK_BYTES; a small one, or a stream, whole."""
    whole = [FileRange(file, file.size_bytes)]
    if file.size_bytes <= BLOCK_BYTES or file.uri.startswith(HTTP):
        return whole
    with readable(file.name, "Arrow"), open_file(file) as handle:
        if handle.read(len(FILE_MAGIC)) != FILE_MAGIC:
            return whole
        num_batches = pa.ipc.open_file(handle).num_record_batches
    num_parts = max(1, min(num_batches, -(-file.size_bytes // BLOCK_BYTES)))
    cuts = [num_batches * i // num_parts for i in range(num_parts + 1)]
    size = file.size_bytes // num_parts
    return [FileRange(file, size, cuts[i], cuts[i + 1]) for i in range(num_parts)]


def read_file(part: FileRange | SourceFile, *, source: ArrowSource) -> Iterator[pa.Table]:
    """One file or some of its record batches, one table each.

    Raises:
        DataError: not Arrow, damaged, or a named column is missing.
    """
    part = as_range(part)
    with readable(part.name, "Arrow"), open_file(part.file) as handle:
        magic = handle.read(len(FILE_MAGIC))
        if magic.startswith(FEATHER_1_MAGIC):
            raise DataError(f"{part.name} is Feather version 1", "write it again with version 2, which is Arrow IPC")
        handle.seek(0)
        options = pa.ipc.IpcReadOptions(use_threads=False)
        opened = pa.ipc.open_file if magic == FILE_MAGIC else pa.ipc.open_stream
        schema = opened(handle, options=options).schema
        unusable = unusable_columns(schema)
        names = usable(needed(source), schema.names, unusable, source, part.name)
        told = unusable if needed(source) is None else {}
        options.included_fields = [schema.get_field_index(name) for name in names]
        handle.seek(0)
        reader = opened(handle, options=options)
        yield with_left_out(reader.schema.remove_metadata().empty_table(), told)
        if magic == FILE_MAGIC:
            stop = reader.num_record_batches if part.stop is None else part.stop
            batches = (reader.get_batch(i) for i in range(part.start, stop))
        else:
            batches = iter(reader)
        for batch in batches:
            yield with_left_out(pa.Table.from_batches([batch]).replace_schema_metadata(), told)
