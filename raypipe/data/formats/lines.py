"""Text files as chunks of whole rows: memory stays bounded, and several tasks can share one file.

Where a file is cut depends on the file alone, so that parallelism changes nothing.  n rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from raypipe.data.formats.chunk import Chunk
from raypipe.data.formats.encodings import recoded
from raypipe.data.formats.parts import FileRange, as_range
from raypipe.data.formats.quotes import row_ends
from raypipe.data.sources.files import HTTP, open_file, open_text
from raypipe.data.sources.place import SourceFile
from raypipe.data.table.marks import NOT_UTF8
from raypipe.errors import DataError
from raypipe.spec.endings import has_ending

CHUNK_BYTES = 64 * 2**20
"""Text read at once, and the part of a large file that one task reads."""

LOOK_BYTES = 2**20
"""Read at once where only the end of a row, or the header, is looked for."""

MAX_BLANK_ROWS = 100_000
"""More blank lines in a row are a damaged file, not missing values."""

NEWLINE = ord("\n")

BOM = b"\xef\xbb\xbf"


class Layout(NamedTuple):
    """How the lines of a file lie in it."""

    encoding: str | None = None
    """None: UTF-8, or bytes that make bad rows."""
    skip_lines: int = 0
    """Before the first row."""
    comment: bytes = b""
    """Lines that begin so are no rows; empty: all are."""


PLAIN = Layout()

RowEnds = Callable[[bytes, bool], tuple[np.ndarray, bool]]
"""(bytes, whether they begin inside quotes) -> offsets after each row's end [n], and whether they end inside quotes."""


def ranges(files: Sequence[SourceFile], divisible: bool = True) -> list[FileRange]:
    """Large files in ranges of CHUNK_BYTES, others whole.

    Args:
        divisible: whether a row can begin after any line break.
    """
    parts: list[FileRange] = []
    for file in files:
        whole = has_ending(file.uri, ".gz") or file.uri.startswith(HTTP) or not divisible
        if whole or file.size_bytes is None:
            parts.append(as_range(file))
            continue
        cuts = [*range(0, max(1, file.size_bytes - CHUNK_BYTES // 2), CHUNK_BYTES)]
        ends = [*cuts[1:], None]
        parts += [FileRange(file, (b or file.size_bytes) - a, a, b) for a, b in zip(cuts, ends, strict=True)]
    return parts


def lines_per_byte(file: SourceFile) -> float | None:
    """Of the text a file begins with; None where looking at it would download the whole file."""
    if file.uri.startswith(HTTP):
        return None
    with closing(open_text(file)) as stream:
        text = stream.read(LOOK_BYTES)
    return max(1, text.count(b"\n")) / max(1, len(text))


def line_ends(data: bytes, inside: bool = False) -> tuple[np.ndarray, bool]:
    """A row a line."""
    del inside
    return np.flatnonzero(np.frombuffer(data, np.uint8) == NEWLINE) + 1, False


class RowReader:
    """Reads the rows of a part, in chunks of about CHUNK_BYTES.

    Blank lines between rows are unread rows without a reason; at the ends of the file they are nothing.  Rows that are
    longer than `max_row_bytes`, no UTF-8, or end with the file inside quotes are unread rows too.

    Args:
        blank: what a blank line consists of.
        stream: UTF-8 that is read instead of the part's file.
    Raises:
        DataError: the file cannot be opened, or holds nothing but blank lines for long.
    """

    def __init__(
        self,
        part: FileRange,
        row_ends: RowEnds,
        max_row_bytes: int,
        blank: bytes,
        layout: Layout = PLAIN,
        stream: Any = None,
    ) -> None:
        self._name, self._row_ends, self._max, self._blank = part.name, row_ends, max_row_bytes, blank
        self._comment = layout.comment
        self._buffer, self._is_end, self._num_blank = b"", False, 0
        self._left = None if part.stop is None else part.stop - part.start
        """Rows that begin this far from the buffer's start, or farther, belong to the next part."""
        if stream is not None:
            self._stream: Any = stream
        elif part.start == 0 and part.stop is None:
            self._stream = recoded(open_text(part.file), layout.encoding, part.name)
        else:
            self._stream = open_file(part.file)
        try:
            if part.start == 0:
                self._skip_lines(layout.skip_lines)
                self._skip_blank_start()
            else:
                self._skip_to_a_row(part.start)
        except BaseException:
            self._stream.close()
            raise

    @property
    def is_at_end(self) -> bool:
        """Whether nothing of the file is left."""
        return self._is_end and not self._buffer

    def close(self) -> None:
        self._stream.close()

    def header(self) -> bytes:
        """The first row, which is then no row any more; empty when there is none.

        Raises:
            DataError: it is longer than `max_row_bytes`, or no UTF-8.
        """
        ends, inside = self._ends(0)
        header = self._take_row(ends)
        while self._comment and header.startswith(self._comment):
            self._skip_blank_start()
            ends, inside = self._ends(0)
            header = self._take_row(ends)
        if len(header) > self._max:
            raise DataError(f"{self._name}: the header is longer than {self._max} bytes", "is this a text file?")
        if inside and not len(ends):
            raise DataError(f"{self._name}: the header opens a quote and never closes it", "close it")
        if not _is_utf8(header):
            raise DataError(f"{self._name}: the header is no UTF-8 text", "save the file as UTF-8")
        return header

    def chunks(self) -> Iterator[Chunk]:
        """All rows that are left."""
        while self._left is None or self._left > 0:
            ends, inside = self._ends(CHUNK_BYTES if self._left is None else min(CHUNK_BYTES, self._left))
            if not len(ends) and not self._is_end:
                self._skip_row(inside)
                chunk = Chunk(b"\n", np.array([1]), {0: self._too_long()})
            else:
                is_cut = self._is_end and len(self._buffer) > (ends[-1] if len(ends) else 0)  # no line break at the end
                ends = np.append(ends, len(self._buffer)) if is_cut else ends
                if not len(ends):
                    break
                if self._left is not None:
                    ends = ends[: 1 + int(np.searchsorted(ends[:-1], self._left, side="left"))]
                chunk = self._judged(Chunk(self._take(int(ends[-1])), ends))
                if inside and is_cut and not self._buffer:
                    chunk.unread[len(chunk) - 1] = "opens a quote that is never closed"
                chunk = chunk.without_lines(self._comment) if self._comment else chunk
            if (settled := self._settled(chunk)) is not None:
                yield settled
        if self._num_blank and self._is_more():
            yield Chunk(b"", np.empty(0, np.int64)).after_blank(self._num_blank)

    def _ends(self, num_bytes: int) -> tuple[np.ndarray, bool]:
        """Where rows end in a buffer of so many bytes, or of more until it holds one whole row that is not too long."""
        self._fill(num_bytes)
        while True:
            ends, inside = self._row_ends(self._buffer, False)
            if len(ends) or self._is_end or len(self._buffer) > self._max:
                return ends, inside
            self._fill(min(self._max + 1, 2 * len(self._buffer) + LOOK_BYTES))

    def _fill(self, num_bytes: int) -> None:
        """Read until the buffer holds so much, or the file ends."""
        pieces, held = [self._buffer], len(self._buffer)
        while held < num_bytes and not self._is_end:
            piece = self._stream.read(num_bytes - held)
            pieces.append(piece)
            held += len(piece)
            self._is_end = not piece
        self._buffer = b"".join(pieces) if len(pieces) > 1 else self._buffer

    def _take(self, num_bytes: int) -> bytes:
        taken, self._buffer = self._buffer[:num_bytes], self._buffer[num_bytes:]
        if self._left is not None:
            self._left -= num_bytes
        return taken

    def _take_row(self, ends: np.ndarray) -> bytes:
        """The first row, or all there is of it."""
        return self._take(int(ends[0]) if len(ends) else len(self._buffer))

    def _skip_lines(self, num_lines: int) -> None:
        """Over so many lines, wherever quotes are."""
        while num_lines:
            self._fill(LOOK_BYTES)
            ends, _ = row_ends(self._buffer, False, delimiter=NEWLINE, quote=None)
            taken = min(num_lines, len(ends))
            self._take(int(ends[taken - 1]) if taken else len(self._buffer))
            num_lines -= taken if taken else int(self._is_end) * num_lines

    def _skip_blank_start(self) -> None:
        self._fill(LOOK_BYTES)
        self._take(len(BOM) if self._buffer.startswith(BOM) else 0)
        num_blank = len(self._buffer) - len(self._buffer.lstrip(self._blank))
        self._take(max(self._buffer.rfind(end, 0, num_blank) for end in (b"\n", b"\r")) + 1)
        if not self._buffer and not self._is_end:
            raise DataError(f"{self._name} begins with {LOOK_BYTES} bytes of blank lines", "is this a text file?")

    def _skip_to_a_row(self, start: int) -> None:
        """To the first row that begins at `start` or later: after the first row's end at `start - 1` or later."""
        self._stream.seek(start - 1)
        if self._left is not None:
            self._left += 1
        while True:
            self._fill(LOOK_BYTES)
            ends, _ = self._row_ends(self._buffer, False)
            if len(ends) or self._is_end:
                self._take_row(ends)
                return
            self._take(len(self._buffer) - 1)  # a carriage return at the very end may be half a line break

    def _skip_row(self, inside: bool) -> None:
        """To the end of a row that begins the buffer and is not all in it."""
        while True:
            self._take(len(self._buffer))
            self._fill(LOOK_BYTES)
            ends, inside = self._row_ends(self._buffer, inside)
            if len(ends) or self._is_end:
                self._take_row(ends)
                return

    def _judged(self, chunk: Chunk) -> Chunk:
        """The chunk with its blank, overlong and wrongly encoded rows among the unread ones."""
        starts = np.concatenate([[0], chunk.ends[:-1]])
        first = np.frombuffer(chunk.data, np.uint8)[starts]
        for row in np.flatnonzero(np.isin(first, np.frombuffer(self._blank, np.uint8))).tolist():
            if not chunk.row(row).strip(self._blank):
                chunk.unread[row] = None
        for row in np.flatnonzero(chunk.ends - starts > self._max).tolist():
            chunk.unread[row] = self._too_long()
        if not _is_utf8(chunk.data):
            is_beyond_ascii = np.maximum.reduceat(np.frombuffer(chunk.data, np.uint8), starts) >= 0x80
            for row in np.flatnonzero(is_beyond_ascii).tolist():
                if not _is_utf8(chunk.row(row)):
                    chunk.unread[row] = NOT_UTF8
        return chunk

    def _settled(self, chunk: Chunk) -> Chunk | None:
        """The chunk with the blank lines that waited for it, and without those at its end, which wait now."""
        num_rows = len(chunk)
        while num_rows and chunk.unread.get(num_rows - 1, "") is None:
            num_rows -= 1
            del chunk.unread[num_rows]
        before, after = self._num_blank, len(chunk) - num_rows
        self._num_blank = after if num_rows else before + after
        if self._num_blank > MAX_BLANK_ROWS:
            raise DataError(f"{self._name} has more than {MAX_BLANK_ROWS} blank lines on end", "is the file damaged?")
        if not num_rows:
            return None
        ends = chunk.ends[:num_rows]
        return Chunk(chunk.data[: int(ends[-1])], ends, chunk.unread).after_blank(before)

    def _is_more(self) -> bool:
        """Whether anything but blank lines follows."""
        while not self._buffer.strip(self._blank):
            if self._is_end:
                return False
            self._buffer = b""
            self._fill(LOOK_BYTES)
        return True

    def _too_long(self) -> str:
        return f"is longer than max_row_bytes={self._max}"


def _is_utf8(data: bytes) -> bool:
    """Without decoding, which would need up to four times the memory."""
    offsets = pa.py_buffer(np.array([0, len(data)], np.int64))
    text = pa.LargeStringArray.from_buffers(1, offsets, pa.py_buffer(data))
    try:
        text.validate(full=True)
    except pa.ArrowInvalid:
        return False
    return True
