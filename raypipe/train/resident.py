"""A share whose rows stay in memory as contiguous tensors, on the GPU or on the host."""

from __future__ import annotations

from collections.abc import Callable, Generator
from functools import partial

import torch

from raypipe.train import windows
from raypipe.train.oversampling import Visits
from raypipe.train.rows import Reader, Rows, Share, StoredSplit, World, send
from raypipe.train.windows import Window


class Resident(Share):
    """All rows in memory, read and transformed once.

    Args:
        home: where the tensors are; batches go from there to the worker's device.
        visits: see Share.
        alive: called as rows are read.
    Raises:
        DigestMismatch, ObjectMissing: a shard is not what was written.
        DataError: a value that the transforms refuse.
    """

    def __init__(
        self,
        stored: StoredSplit,
        world: World,
        window_rows: int,
        visits: Visits | None = None,
        *,
        home: torch.device,
        alive: Callable[[], None] = lambda: None,
    ) -> None:
        super().__init__(stored, world, window_rows, visits)
        parts = [part for group in self.groups for window in group for part in window.parts]
        reader = Reader(stored)
        self.rows = reader.read(parts, reader.empty(self.num_stored, home), alive)

    def shuffled(self, batch_rows: int, seed: int, *, skip: int) -> Generator[Rows, None, None]:
        home = self.rows.target.device

        def order(window: Window) -> torch.Tensor:
            return (window.start + self.shuffled_rows(window, seed)).to(home)

        for pick in windows.picks(windows.shuffled(self.groups, seed), order, batch_rows, skip=skip):
            rows = pick[0][1] if len(pick) == 1 else torch.cat([rows for _, rows in pick])
            # index_select takes half the time of features[rows]
            yield send(self.rows.each(partial(torch.index_select, dim=0, index=rows)), self.world.device)

    def in_order(self, batch_rows: int) -> Generator[Rows, None, None]:
        for start in range(0, self.num_stored, batch_rows):
            some = slice(start, start + batch_rows)
            batch = self.rows.each(lambda values, some=some: values[some].clone())  # it may be written to
            yield send(batch, self.world.device)
