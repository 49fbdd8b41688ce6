"""JSON lines: one object a line; arrays of numbers become tensors."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa
import pyarrow.json as pajson
import ray.data

from raypipe.data.files import SourceFile, find, open_text
from raypipe.data.reading import read_files
from raypipe.errors import DataError
from raypipe.spec.data import JsonlSource

SUFFIXES = (".jsonl", ".jsonl.gz", ".ndjson", ".ndjson.gz", ".json", ".json.gz")
MAX_LINE_BYTES = 64 * 2**20
"""Arrow parses whole blocks of lines; a line may not be longer than a block."""


def files(source: JsonlSource, root: str) -> list[SourceFile]:
    """The files the source names."""
    return find(source.path, root, SUFFIXES)


def read(source: JsonlSource, root: str, parallelism: int | None) -> ray.data.Dataset:
    """Rows of all files."""
    return read_files(files(source, root), read_file, source.columns, parallelism)


def read_file(file: SourceFile) -> Iterator[pa.Table]:
    """One file.

    Raises:
        DataError: a line is no JSON object, or a field changes its type.
    """
    options = pajson.ReadOptions(use_threads=False, block_size=MAX_LINE_BYTES)
    try:
        with open_text(file) as stream:
            yield pajson.read_json(stream, options)
    except (pa.ArrowInvalid, OSError, EOFError) as error:
        raise DataError(
            f"{file.name} is not readable as JSON lines: {error}",
            "one JSON object a line, each field of one type throughout",
        ) from None
