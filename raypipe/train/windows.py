"""The order in which the rows of a share are visited: one window after another, shuffled within each.

It is a function of the dataset version, rank, world size and seed; whether rows are held in memory or read from the
store has no part in it.  Rows lie in the store in order of a hash of their content, so neighbours are strangers
already, and a shuffle within windows loses next to nothing against one of all rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from raypipe.data.shards import share
from raypipe.records import Shard
from raypipe.runtime import seeds

T = TypeVar("T")


@dataclass(frozen=True)
class Part:
    """Rows [first, last) of a shard."""

    shard: Shard
    first: int
    last: int

    @property
    def num_rows(self) -> int:
        return self.last - self.first


@dataclass(frozen=True)
class Window:
    """Rows that are read and shuffled together.

    Attributes:
        start: how many rows of the share are stored before it.
        visits: how many rows an epoch visits, where some are visited several times; None: each once.
    """

    start: int
    parts: tuple[Part, ...]
    visits: int | None = None

    @property
    def num_rows(self) -> int:
        return sum(part.num_rows for part in self.parts)

    @property
    def num_visits(self) -> int:
        return self.num_rows if self.visits is None else self.visits


Pick = list[tuple[Window, Tensor]]
"""One batch: rows of a window, by their number in it (int64), then rows of the next where the first had too few."""


def cut(shards: Sequence[Shard], start: int, stop: int, window_rows: int) -> list[list[Window]]:
    """The windows of rows [start, stop) of a split, at most `window_rows` each.

    Returns:
        Groups in stored order.  The windows of a group are visited one after another: they are cut from one shard,
        which then needs to be read only once.
    """
    groups: list[list[Window]] = []
    offset, at = 0, 0
    parts: list[Part] = []
    for shard in shards:
        first, last = max(start - offset, 0), min(stop - offset, shard.num_rows)
        offset += shard.num_rows
        if first >= last:
            continue
        if parts and sum(part.num_rows for part in parts) + last - first > window_rows:
            groups.append([Window(at, tuple(parts))])
            at += groups[-1][0].num_rows
            parts = []
        if last - first <= window_rows:
            parts.append(Part(shard, first, last))
            continue
        pieces = -(-(last - first) // window_rows)
        bounds = [share(last - first, i, pieces) for i in range(pieces)]
        groups.append([Window(at + a, (Part(shard, first + a, first + b),)) for a, b in bounds])
        at += last - first
    if parts:
        groups.append([Window(at, tuple(parts))])
    return groups


def shuffled(groups: Sequence[Sequence[Window]], seed: int) -> list[Window]:
    """All windows, in the order of one epoch: groups are shuffled, and the windows of each."""
    generator = torch.Generator().manual_seed(seed)

    def mixed(items: Sequence[T]) -> list[T]:
        return [items[i] for i in torch.randperm(len(items), generator=generator).tolist()]

    return [window for group in mixed(groups) for window in mixed(group)]


def shuffled_rows(window: Window, seed: int) -> Tensor:
    """The rows of a window in the order of one epoch, int64 [B]."""
    generator = torch.Generator().manual_seed(seeds.derive(seed, window.start))
    return torch.randperm(window.num_rows, generator=generator)


def rows_in_order(window: Window) -> Tensor:
    """The rows of a window as they are stored, int64 [B]."""
    return torch.arange(window.num_rows)


def left_after(windows: Sequence[Window], skip: int) -> list[Window]:
    """The windows that still have rows once the first `skip` rows are done."""
    left: list[Window] = []
    for window in windows:
        skip -= window.num_visits
        if skip < 0:
            left.append(window)
    return left


def picks(
    windows: Iterable[Window], rows_of: Callable[[Window], Tensor], batch_rows: int, *, skip: int = 0
) -> Iterator[Pick]:
    """Batches of `batch_rows` rows that run across the borders of windows; only the last may be smaller.

    Args:
        skip: rows done already, which are left out.
    """
    pick: Pick = []
    room = batch_rows
    for window in windows:
        if skip >= (num_visits := window.num_visits):
            skip -= num_visits
            continue
        rows, at, skip = rows_of(window), skip, 0
        while at < num_visits:  # numbers are counted here: asking tensors for their length shows in small steps
            num_taken = min(room, num_visits - at)
            pick.append((window, rows[at : at + num_taken]))
            at, room = at + num_taken, room - num_taken
            if not room:
                yield pick
                pick, room = [], batch_rows
    if pick:
        yield pick
