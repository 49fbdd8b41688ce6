"""Arrow IPC files and streams, and Feather version 2, a record batch at a time."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa

from raypipe.data.formats.base import FileFormat
from raypipe.data.formats.datasource import BLOCK_BYTES
from raypipe.data.formats.parts import FileRange, as_range, readable
from raypipe.data.sources.files import HTTP, open_file
from raypipe.data.sources.place import SourceFile
from raypipe.data.table import nested
from raypipe.data.table.chosen import chosen_columns
from raypipe.errors import DataError
from raypipe.spec.sources import ArrowSource

FILE_MAGIC, FEATHER_1_MAGIC = b"ARROW1", b"FEA1"


class Arrow(FileFormat):
    def divided(self, file: SourceFile, source: ArrowSource) -> list[FileRange]:
        """A large file in neighbouring record batches of about BLOCK_BYTES; a small one, or a stream, whole."""
        whole = [FileRange(file, file.size_bytes)]
        if file.size_bytes is None or file.size_bytes <= BLOCK_BYTES or file.uri.startswith(HTTP):
            return whole
        with readable(file.name, "Arrow"), open_file(file) as handle:
            if handle.read(len(FILE_MAGIC)) != FILE_MAGIC:
                return whole
            num_batches = pa.ipc.open_file(handle).num_record_batches
        num_parts = max(1, min(num_batches, -(-file.size_bytes // BLOCK_BYTES)))
        cuts = [num_batches * i // num_parts for i in range(num_parts + 1)]
        size = file.size_bytes // num_parts
        return [FileRange(file, size, cuts[i], cuts[i + 1]) for i in range(num_parts)]

    def read_file(self, part: FileRange | SourceFile, *, source: ArrowSource) -> Iterator[pa.Table]:
        return read_file(part, source=source)


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
        chosen = chosen_columns(nested.flat_schema(schema), source, part.name)
        options.included_fields = [
            i for i, field in enumerate(schema) if any(_is_in(name, field.name) for name in chosen.names)
        ]
        handle.seek(0)
        reader = opened(handle, options=options)
        yield chosen.table_of(reader.schema.empty_table(), part.name)
        if magic == FILE_MAGIC:
            stop = reader.num_record_batches if part.stop is None else part.stop
            batches = (reader.get_batch(i) for i in range(part.start, stop))
        else:
            batches = iter(reader)
        for batch in batches:
            yield chosen.table_of(pa.Table.from_batches([batch]), part.name)


def _is_in(name: str, column: str) -> bool:
    """Whether a flat name is a column, or a field in it."""
    return name == column or name.startswith(f"{column}.")
