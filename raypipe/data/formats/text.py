"""Plain text for language models: a row is a line, a paragraph, or a window of characters."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterable, Iterator
from contextlib import closing

import numpy as np
import pyarrow as pa

from raypipe.data.formats.base import FileFormat
from raypipe.data.formats.chunk import Chunk
from raypipe.data.formats.lines import RowReader, line_ends, lines_per_byte, ranges
from raypipe.data.formats.parts import FileRange, as_range, readable
from raypipe.data.sources.files import open_text
from raypipe.data.sources.place import SourceFile
from raypipe.data.table.marks import with_bad
from raypipe.spec.sources import TextSource

BLANK = b" \t\r\n"
PARAGRAPH_END = re.compile(rb"\n(?:[ \t\r]*\n)+")
READ_BYTES = 2**20
"""Text decoded at once for windows."""
TABLE_CHARS = 16 * 2**20
"""Windows put together in one table, which may overlap."""


class Text(FileFormat):
    def divided(self, file: SourceFile, source: TextSource) -> list[FileRange]:
        return ranges([file], divisible=source.rows == "lines")

    def read_file(self, part: FileRange | SourceFile, *, source: TextSource) -> Iterator[pa.Table]:
        return read_file(part, source=source)

    def rows_per_byte(self, part: FileRange, source: TextSource) -> float | None:
        return (
            1 / (source.stride_chars or source.window_chars) if source.rows == "windows" else lines_per_byte(part.file)
        )


def read_file(part: FileRange | SourceFile, *, source: TextSource) -> Iterator[pa.Table]:
    """One file or a range of it: column `text`; rows that are no UTF-8 are marked as bad.

    Raises:
        DataError: bytes that cannot be decompressed.
    """
    with readable(part.name, "text", "fetch a good copy"):
        is_empty = True
        for table in _windows(part, source) if source.rows == "windows" else _lines(part, source):
            is_empty = False
            yield table
        if is_empty:
            yield pa.table({"text": pa.array([], pa.string())})


def paragraph_ends(data: bytes, inside: bool = False) -> tuple[np.ndarray, bool]:
    """A row ends with the blank lines after it."""
    del inside
    return np.array([match.end() for match in PARAGRAPH_END.finditer(data)], np.int64), False


def _lines(part: FileRange | SourceFile, source: TextSource) -> Iterator[pa.Table]:
    row_ends = line_ends if source.rows == "lines" else paragraph_ends
    with closing(RowReader(as_range(part), row_ends, source.max_row_bytes, BLANK)) as rows:
        for chunk in rows.chunks():
            yield _table(chunk, part.name, b"\r\n" if source.rows == "lines" else BLANK)


def _table(chunk: Chunk, name: str, at_end: bytes) -> pa.Table:
    """The rows of a chunk without the line breaks around them, and without `at_end` at their ends."""
    rows = [row for row in range(len(chunk)) if chunk.unread.get(row, "") is not None]  # without the blank ones
    text = [None if row in chunk.unread else chunk.row(row).lstrip(b"\r\n").rstrip(at_end).decode() for row in rows]
    reasons = {i: f"{name}: the row {chunk.unread[row]}" for i, row in enumerate(rows) if row in chunk.unread}
    return with_bad(pa.table({"text": pa.array(text, pa.string())}), reasons)


def _windows(part: FileRange | SourceFile, source: TextSource) -> Iterator[pa.Table]:
    rows: list[str] = []
    num_chars = 0
    with closing(open_text(as_range(part).file)) as stream:
        for window in cut(decoded(stream), source.window_chars, source.stride_chars or source.window_chars):
            if window.strip():
                rows.append(window)
                num_chars += len(window)
            if num_chars >= TABLE_CHARS:
                yield checked(rows, part.name)
                rows, num_chars = [], 0
    if rows:
        yield checked(rows, part.name)


def cut(pieces: Iterable[str], size: int, stride: int) -> Iterator[str]:
    """Windows of `size` characters, one every `stride`, over the text that all pieces make.

    The last one may be shorter; it is left out where the one before holds all of it.
    """
    text, seen, skip = "", 0, 0
    for piece in pieces:
        text += piece[skip:]
        skip = max(0, skip - len(piece))
        start = 0
        while start + size <= len(text):
            yield text[start : start + size]
            start, seen = start + stride, max(0, size - stride)
        skip += max(0, start - len(text))
        text = text[start:]
    if len(text) > seen:
        yield text


def decoded(stream: pa.NativeFile) -> Iterator[str]:
    """A text, piece by piece; bytes that are no UTF-8 are surrogates in it."""
    decoder = codecs.getincrementaldecoder("utf-8")("surrogateescape")  # wrong bytes stay visible, and in their place
    is_start = True
    while data := stream.read(READ_BYTES):
        text = decoder.decode(data)
        yield text.removeprefix("\ufeff") if is_start else text
        is_start = is_start and not text
    yield decoder.decode(b"", final=True)


def checked(rows: list[str], name: str) -> pa.Table:
    """Column `text`; rows that are no UTF-8 are marked as bad.

    Args:
        name: of the file.
    """
    wrong = {i for i, row in enumerate(rows) if not _is_text(row)}
    text = pa.array([None if i in wrong else row for i, row in enumerate(rows)], pa.string())
    return with_bad(pa.table({"text": text}), dict.fromkeys(wrong, f"{name}: the row is no UTF-8 text"))


def _is_text(row: str) -> bool:
    try:
        row.encode()
    except UnicodeEncodeError:
        return False
    return True
