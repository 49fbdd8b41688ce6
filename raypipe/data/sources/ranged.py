"""A file over reads of ranges of bytes, each of which costs a request: few of them, and bounded memory."""

from __future__ import annotations

import io
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

FIRST_BYTES = 2**18
"""Read at a place that does not follow from the one before: a footer, a header, a column."""

GROWTH = 4
MAX_BYTES = 2**24
"""Reads that follow each other grow up to this size, which is also read ahead."""

AHEAD_FROM_BYTES = 2**22
"""From this size on a read is followed by another one, while the caller works."""

_ahead = ThreadPoolExecutor(8, "raypipe-source")

ReadRange = Callable[[int, int], memoryview]
"""(start, stop) -> exactly these bytes."""


class RangedFile(io.RawIOBase):
    """Random access to an object; not for several threads at once.

    Holds what the caller asks for at once, or MAX_BYTES, and MAX_BYTES more that are read ahead.

    Args:
        read_range: reads bytes of the object; must be safe to call from another thread.
        size_bytes: of the whole object.
    """

    def __init__(self, read_range: ReadRange, size_bytes: int) -> None:
        super().__init__()
        self._read_range = read_range
        self._size = size_bytes
        self._position = 0
        self._start, self._held = 0, memoryview(b"")
        self._step = FIRST_BYTES
        self._next: tuple[int, int, Future[memoryview]] | None = None

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        if base + offset < 0:
            raise ValueError(f"position {base + offset} is before the start")
        self._position = base + offset
        return self._position

    def read(self, size: int | None = -1) -> bytes:
        """So many bytes, fewer only at the end of the file; all that are left without `size`."""
        if self.closed:
            raise ValueError("read of a closed file")
        stop = self._size if size is None or size < 0 else min(self._size, self._position + size)
        pieces: list[memoryview] = []
        while self._position < stop:
            if not self._start <= self._position < self._start + len(self._held):
                self._fetch(stop)
            piece = self._held[self._position - self._start : stop - self._start]
            pieces.append(piece)
            self._position += len(piece)
        return b"".join(pieces)

    def readall(self) -> bytes:
        return self.read()

    def close(self) -> None:
        if self._next is not None:
            self._next[2].cancel()
        self._next, self._held = None, memoryview(b"")
        super().close()

    def _fetch(self, stop: int) -> None:
        """Hold what begins at the position, and when reading goes on and on, let the next range be on its way."""
        follows = self._position == self._start + len(self._held) > 0
        if self._next is not None and self._next[0] <= self._position < self._next[1]:
            self._start, data = self._next[0], self._next[2].result()
        else:
            self._step = min(MAX_BYTES, self._step * GROWTH) if follows else FIRST_BYTES
            self._held = memoryview(b"")  # given back before more is asked for
            data = self._read_range(self._position, min(self._size, max(stop, self._position + self._step)))
            self._start = self._position
        self._held, self._next = data, None
        end = self._start + len(data)
        if follows and self._step >= AHEAD_FROM_BYTES and end < self._size:
            self._step = min(MAX_BYTES, self._step * GROWTH)
            ahead = min(self._size, end + self._step)
            self._next = end, ahead, _ahead.submit(self._read_range, end, ahead)
