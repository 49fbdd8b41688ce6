"""Some rows of a text file, with those among them that cannot be read.  n rows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from raypipe.data.table.marks import NOT_UTF8

_LATIN_1 = {0xDC00 + byte: byte for byte in range(0x80, 0x100)}
"""What `surrogateescape` makes of a byte that is no UTF-8 -> the character that Latin-1 has for it."""


@dataclass
class Chunk:
    """Some whole rows.

    Attributes:
        data: the bytes of all rows.
        ends: int64 [n], the offset after each row; the last one is len(data).
        unread: row -> why it cannot be read; None for a blank line.
    """

    data: bytes
    ends: np.ndarray
    unread: dict[int, str | None] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.ends)

    def row(self, number: int) -> bytes:
        start = int(self.ends[number - 1]) if number else 0
        return self.data[start : int(self.ends[number])]

    def guessed(self) -> dict[int, str]:
        """The rows that are no UTF-8, with each byte that does not fit read as Latin-1: a guess for people to see."""
        rows = [row for row, why in self.unread.items() if why == NOT_UTF8]
        return {row: self.row(row).decode(errors="surrogateescape").translate(_LATIN_1) for row in sorted(rows)}

    def without_lines(self, start: bytes) -> Chunk:
        """The chunk without the rows that begin so."""
        starts = np.concatenate([[0], self.ends[:-1]])
        is_dropped = np.frombuffer(self.data, np.uint8)[starts] == start[0] if len(self) else np.zeros(0, bool)
        if not is_dropped.any():
            return self
        kept = np.flatnonzero(~is_dropped)
        unread = {i: self.unread[row] for i, row in enumerate(kept.tolist()) if row in self.unread}
        ends = np.cumsum(self.ends[kept] - starts[kept])
        return Chunk(b"".join(self.row(row) for row in kept.tolist()), ends, unread)

    def after_blank(self, num_rows: int) -> Chunk:
        """The chunk with so many blank lines before it."""
        if not num_rows:
            return self
        ends = np.concatenate([np.arange(1, num_rows + 1), self.ends + num_rows])
        unread = {**dict.fromkeys(range(num_rows)), **{row + num_rows: why for row, why in self.unread.items()}}
        return Chunk(b"\n" * num_rows + self.data, ends, unread)

    def replaced(self, mark: Callable[[int], bytes]) -> bytes:
        """All bytes, with `mark(row)` in place of each unread row."""
        pieces: list[bytes | memoryview] = []
        view, done = memoryview(self.data), 0
        for number in sorted(self.unread):
            pieces += [view[done : int(self.ends[number - 1]) if number else 0], mark(number)]
            done = int(self.ends[number])
        return b"".join([*pieces, view[done:]]) if pieces else self.data
