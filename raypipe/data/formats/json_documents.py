"""JSON that is no JSON lines: an array of objects, or objects over several lines (pretty-printed); a row is an object.

Such a file is read in pieces, but by one task: where an object begins only the bytes before it tell.  n objects.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from contextlib import closing
from typing import Any, NamedTuple

import numpy as np

from raypipe.data.formats import lines as text_lines
from raypipe.data.formats.chunk import Chunk
from raypipe.data.formats.lines import RowReader, line_ends
from raypipe.data.formats.parts import FileRange
from raypipe.data.sources.files import open_text
from raypipe.data.sources.place import SourceFile
from raypipe.data.table.nested import fields_of
from raypipe.errors import DataError

BLANK = b" \t\r\n"

HEAD_BYTES = 2**20
"""Of a file, which tell whether it is a document."""

BREAK_IN_TEXT = "is no JSON: a text has a line break in it"


class Scanned(NamedTuple):
    """Where objects and arrays that nothing is around end.

    Attributes:
        ends: int64 [n], the offset after each.
        breaks: offsets of line breaks within texts, which JSON has no place for.
    """

    ends: np.ndarray
    breaks: np.ndarray


def scan(data: bytes) -> Scanned:
    """Bytes that begin outside of any text."""
    if b"\\" in data:  # what is left are the quotes that begin or end a text
        data = data.replace(b"\\\\", b"__").replace(b'\\"', b"__")
    byte = np.frombuffer(data, np.uint8)
    inside = np.bitwise_xor.accumulate(byte == ord('"')) if len(byte) else np.zeros(0, bool)
    is_open, is_close = np.isin(byte, (ord("["), ord("{"))), np.isin(byte, (ord("]"), ord("}")))
    place = np.flatnonzero((is_open | is_close) & ~inside)
    depth = np.cumsum(np.where(is_open[place], 1, -1))
    breaks = np.flatnonzero(inside & ((byte == ord("\n")) | (byte == ord("\r"))))
    return Scanned(place[(depth == 0) & is_close[place]] + 1, breaks)


def is_document(head: bytes) -> bool:
    """Whether a file that begins so is no JSON lines; one that may be either is taken for those."""
    text = head.lstrip(BLANK)
    if text.startswith(b"["):
        inner = text[1:].lstrip(BLANK)
        ends = scan(inner).ends if inner.startswith(b"{") else []
        after = inner[ends[0] :].lstrip(BLANK) if len(ends) else b"" if inner.startswith(b"{") else inner
        return after[:1] in (b",", b"]") or (after == b"" and inner.startswith(b"{"))
    line, is_more, _ = text.partition(b"\n")
    if not text.startswith(b"{") or not is_more:
        return False
    ends = scan(text).ends
    if not len(ends):
        return line.strip(BLANK) == b"{"
    return len(line) < ends[0] and _is_object(text[: ends[0]])


def _is_object(text: bytes) -> bool:
    try:
        return isinstance(json.loads(text), dict)
    except (ValueError, RecursionError):
        return False


def begins_document(file: SourceFile) -> bool:
    """`is_document` of a file, from its first megabyte."""
    with closing(open_text(file)) as stream:
        return is_document(stream.read(HEAD_BYTES).removeprefix(b"\xef\xbb\xbf"))


class JsonRows(RowReader):
    """The rows of JSON lines, or of a document, one object a line in its chunks."""

    def __init__(self, part: FileRange, max_row_bytes: int) -> None:
        super().__init__(part, line_ends, max_row_bytes, BLANK)
        self.is_document = part.start == 0 and part.stop is None and self._begins_document()

    def _begins_document(self) -> bool:
        self._fill(HEAD_BYTES)
        return is_document(self._buffer[:HEAD_BYTES])

    @property
    def is_at_end(self) -> bool:
        return self._is_end and not self._buffer.strip(BLANK + (b"]" if self.is_document else b""))

    def chunks(self) -> Iterator[Chunk]:
        """All rows that are left.

        Raises:
            DataError: a document ends before its last object does, or has an object that is too long.
        """
        return self._objects() if self.is_document else super().chunks()

    def _objects(self) -> Iterator[Chunk]:
        self._buffer = self._buffer.lstrip(BLANK)
        is_array = self._buffer.startswith(b"[")
        self._take(int(is_array))
        is_first = True
        while True:
            num_bytes = text_lines.CHUNK_BYTES
            self._fill(num_bytes)
            scanned = scan(self._buffer)
            while not len(scanned.ends) and not self._is_end and len(self._buffer) <= self._max:
                num_bytes = min(self._max + 1, 2 * max(num_bytes, len(self._buffer)))
                self._fill(num_bytes)
                scanned = scan(self._buffer)
            if not len(scanned.ends):
                break
            yield self._judged(self._lines(scanned, is_array, is_first))
            is_first = False
        left = self._buffer.strip(BLANK)
        if left == (b"]" if is_array else b"") and self._is_end:
            return
        if not self._is_end:
            raise DataError(
                f"{self._name} holds an object that is longer than max_row_bytes={self._max}",
                "raise data.source.max_row_bytes, or write one object a line",
            )
        what = "a JSON array" if is_array else "JSON written over several lines"
        raise DataError(
            f"{self._name} is {what} that is damaged at its end: {left[:40].decode(errors='replace')!r} follows the "
            "last whole object",
            "fetch a good copy, or write the file again",
        )

    def _lines(self, scanned: Scanned, is_array: bool, is_first: bool) -> Chunk:
        """The objects that end in the buffer, one a line."""
        ends = scanned.ends
        data = self._take(int(ends[-1])).replace(b"\n", b" ").replace(b"\r", b" ")
        broken = set(np.searchsorted(ends, scanned.breaks[scanned.breaks < ends[-1]], side="right").tolist())
        unread: dict[int, str | None] = dict.fromkeys(broken, BREAK_IN_TEXT)
        lines: list[bytes] = []
        start = 0
        for row, end in enumerate(ends.tolist()):
            line = data[start:end].lstrip(b", \t")
            commas = data.count(b",", start, end - len(line))
            wanted = int(is_array and not (is_first and row == 0))
            if commas != wanted:
                unread[row] = f"is no JSON: {commas} commas stand before it, where {wanted} belong"
            lines.append(line)
            start = end
        lengths = np.array([len(line) + 1 for line in lines])
        return Chunk(b"\n".join([*lines, b""]), np.cumsum(lengths), unread)


def refuse_wrapped(row: dict[str, Any], names: Collection[str], file: str) -> None:
    """Raise DataError where the only object of a file holds rows, or columns, and not what is asked for.

    Args:
        names: that are asked for.
    """
    try:
        missing = sorted(set(names) - fields_of(row).keys())
    except ValueError:
        return
    if not missing:
        return
    for name, value in row.items():
        if isinstance(value, list) and len(value) > 1 and all(isinstance(each, dict) for each in value):
            raise DataError(
                f"{file} is one JSON object, whose field '{name}' holds the {len(value)} rows",
                f"write them as JSON lines, e.g. with jq -c '.\"{name}\"[]'",
            )
    sizes = {len(value) if isinstance(value, list | dict) else 0 for value in row.values()}
    if len(sizes) == 1 and sizes.pop() > 1:
        raise DataError(
            f"{file} is one JSON object that holds columns, not rows: '{next(iter(row))}' has a value for each row",
            "write one object a row, e.g. with pandas' to_json(orient='records', lines=True)",
        )
