"""A share that is read from the store while training: two windows are in memory, however many rows there are."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from itertools import cycle

import torch
from torch import Tensor

from raypipe.train import windows
from raypipe.train.rows import Reader, Rows, Share, joined, send
from raypipe.train.windows import Window

HOST = torch.device("cpu")


class Streamed(Share):
    """Windows read one ahead of the batches made of them, each shard once an epoch."""

    def shuffled(self, batch_rows: int, seed: int, *, skip: int) -> Generator[Rows, None, None]:
        order = windows.shuffled(self.groups, seed)
        return self._read(order, partial(self.shuffled_rows, seed=seed), batch_rows, skip=skip)

    def in_order(self, batch_rows: int) -> Generator[Rows, None, None]:
        order = [replace(window, visits=None) for group in self.groups for window in group]
        return self._read(order, windows.rows_in_order, batch_rows)

    def _read(
        self, order: Sequence[Window], rows_of: Callable[[Window], Tensor], batch_rows: int, *, skip: int = 0
    ) -> Generator[Rows, None, None]:
        with ReadAhead(Reader(self._stored), windows.left_after(order, skip)) as ahead:
            for pick in windows.picks(order, rows_of, batch_rows, skip=skip):
                parts = [
                    ahead.window(window).each(partial(torch.index_select, dim=0, index=rows)) for window, rows in pick
                ]
                yield send(joined(parts), self.world.device)


class ReadAhead:
    """Windows in a given order: while one is used, the next is read in a thread.  Leaving the block ends the thread.

    What goes wrong in the thread is raised where the window is asked for.
    """

    def __init__(self, reader: Reader, order: Sequence[Window]) -> None:
        self._reader = reader
        self._left = iter(order)
        room = max((window.num_rows for window in order), default=0)
        self._rooms = cycle([reader.empty(room, HOST), reader.empty(room, HOST)])
        self._now: tuple[Window, Rows] | None = None
        self._next: tuple[Window, Future[Rows]] | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="raypipe-rows")

    def __enter__(self) -> ReadAhead:
        self._begin_next()
        return self

    def __exit__(self, *error: object) -> None:
        self._thread.shutdown(cancel_futures=True)

    def window(self, window: Window) -> Rows:
        """The rows of a window, that at hand or the next in order; valid until the one after it is asked for."""
        if self._now is None or self._now[0] is not window:
            assert self._next is not None and self._next[0] is window, "windows are asked for in order"
            future = self._next[1]
            self._now = window, future.result()
            self._begin_next()  # where the window before was
        return self._now[1]

    def _begin_next(self) -> None:
        window = next(self._left, None)
        if window is not None:
            self._next = window, self._thread.submit(self._reader.read, window.parts, next(self._rooms))
