"""The rows of a worker that holds several shares: where workers are elastic, and fewer of them than shares.  B rows.

Each share makes the batches it would make for a worker of its own. So a step takes the same rows with any number of
workers, and a training goes on within an epoch with another.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import ExitStack, closing
from dataclasses import replace

from raypipe.data.shards import share
from raypipe.train.rows import Batch, Rows, Share, World, joined


def shares_of(world: World, num_shares: int) -> range:
    """The numbers of the shares that this worker holds: neighbours, and at most one more than another worker."""
    return range(*share(num_shares, world.rank, world.size))


class SeveralShares(Share):
    """Shares that follow each other, as if they were one.

    Args:
        shares: each of a world as large as there are shares.
        world: this worker among the others.
    """

    def __init__(self, shares: Sequence[Share], world: World) -> None:
        self._shares, self._num_workers = list(shares), world.size
        self.world = replace(world, rank=shares[0].world.rank, size=shares[0].world.size)
        self.num_rows = sum(each.num_rows for each in shares)
        self.num_rows_all = shares[0].num_rows_all
        self.num_stored = sum(each.num_stored for each in shares)
        self.groups = [group for each in shares for group in each.groups]

    def epoch(self, share_batch_size: int, seed: int, epoch: int, *, first_step: int) -> Generator[Batch, None, None]:
        """The batches of an epoch, from 1: in each step one of every share."""
        with ExitStack() as leave:
            sources = [each.epoch(share_batch_size, seed, epoch, first_step=first_step) for each in self._shares]
            for source in sources:
                leave.enter_context(closing(source))
            for parts in zip(*sources, strict=True):
                num_rows, num_rows_all = sum(part.num_rows for part in parts), parts[0].num_rows_all
                rows = joined([part.rows for part in parts])
                yield Batch(rows, num_rows * self._num_workers / num_rows_all, num_rows, num_rows_all)

    def first(self, num_rows: int) -> Rows:
        """The first rows of each share."""
        return joined([each.first(num_rows) for each in self._shares])

    def in_order(self, batch_rows: int) -> Generator[Rows, None, None]:
        for each in self._shares:
            yield from each.in_order(batch_rows)

    def shuffled(self, batch_rows: int, seed: int, *, skip: int) -> Generator[Rows, None, None]:
        raise NotImplementedError("each share is shuffled by itself: see epoch")
