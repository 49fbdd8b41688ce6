"""All ranges of a data set to shards: the second half of prepare().

Tasks do the work (gather.py); the driver keeps summaries and references.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np
import ray

from raypipe.data.shuffle import gather, row_ranges
from raypipe.data.shuffle.gather import GatherJob
from raypipe.data.shuffle.row_ranges import PIECE_BYTES, RowRange, num_parts, scatter_range_task
from raypipe.data.shuffle.scatter_all import Scattered
from raypipe.data.shuffle.written import WrittenShards
from raypipe.data.splits.base import SplitState
from raypipe.data.tasks import Window, declared_memory, store_bytes
from raypipe.data.transforms.fitting import FirstPass
from raypipe.records import Signature
from raypipe.runtime.context import RunContext
from raypipe.spec.data import DataSpec
from raypipe.spec.splits import FractionSplit

FETCHED_FRAC = 0.5
"""Of the object stores, for the pieces of tasks that wait to write shards."""

AGAIN_FRAC = 0.25
"""The same for those of tasks that wait to cut a range again."""

MAX_SHARDS = 2048
"""Shards of a split, about: where there are rows for more, each holds more of them, as the record lists all."""

MEMORY_PER_BYTE = 3
"""Memory of a task for each byte of its pieces: 2.0 was measured."""


@dataclass(frozen=True)
class RangePieces:
    """All rows of one range, in pieces.

    Attributes:
        pieces: references, in the order of the rows' blocks; taken out once a task has them, so that Ray forgets them.
        piece_bytes: of each; an estimate where it was cut again.
    """

    range: RowRange
    pieces: list[ray.ObjectRef]
    piece_bytes: Sequence[int]

    @property
    def num_bytes(self) -> int:
        return sum(self.piece_bytes)


class Gather(NamedTuple):
    """What one task writes: the shards [first, last) of every split, from pieces that hold all of their rows."""

    first: int
    last: int
    pieces: list[ray.ObjectRef]
    num_bytes: int


def gathers(
    ranges: Iterable[RangePieces], num_shards: int, cut_again: Callable[[RangePieces, int], list[RangePieces]]
) -> Iterator[Gather]:
    """What the tasks write, in the order of the shards: neighbours of about RANGE_BYTES together.

    A range that holds more than twice as much, and several shards, is cut again; where it takes more than FANOUT cuts,
    what comes out is cut once more.

    Args:
        ranges: all of some equal ranges, in order, each with its pieces, which are taken out.
        num_shards: a power of two.
        cut_again: the ranges in a range, of which there are a given number; takes its pieces out.
    """
    joined: list[RangePieces] = []
    for held in ranges:
        num_cuts = _num_cuts(held, num_shards)
        is_whole = held.range.index * num_shards % held.range.num == 0  # a shard begins here
        num_bytes = sum(one.num_bytes for one in joined) + held.num_bytes
        if joined and is_whole and (num_cuts > 1 or num_bytes > row_ranges.RANGE_BYTES):
            yield _gather(joined, num_shards)
            joined = []
        if num_cuts > 1:
            yield from gathers(cut_again(held, min(row_ranges.FANOUT, num_cuts)), num_shards, cut_again)
        else:
            joined.append(held)
    if joined:
        yield _gather(joined, num_shards)


def cut_again(window: Window, held: RangePieces, num_cuts: int) -> list[RangePieces]:
    """The ranges in a range; takes its pieces out.

    Args:
        window: of tasks that each tell the bytes of the pieces they made.
    """
    task_bytes = max(num_cuts * PIECE_BYTES, row_ranges.FANOUT * PIECE_BYTES)
    cut: list[list[ray.ObjectRef]] = []
    cut_bytes: list[int] = []
    for start, end in _neighbours(held.piece_bytes, task_bytes):
        num_bytes = sum(held.piece_bytes[start:end])
        window.make_room(num_bytes)
        memory = declared_memory(MEMORY_PER_BYTE * num_bytes)
        task = scatter_range_task.options(num_returns=1 + num_cuts, memory=memory)
        moved_bytes, *pieces = task.remote(held.range, num_cuts, *held.pieces[start:end])
        window.add(moved_bytes, num_bytes)
        cut.append(pieces)
        cut_bytes.append(num_bytes // num_cuts)
    held.pieces.clear()
    by_range = zip(held.range.cut(num_cuts), zip(*cut, strict=True), strict=True)
    return [RangePieces(part, list(pieces), cut_bytes) for part, pieces in by_range]


def _num_cuts(held: RangePieces, num_shards: int) -> int:
    """Into how many ranges to cut it; 1 where it is small enough, or holds one shard or a part of one."""
    if held.num_bytes <= 2 * row_ranges.RANGE_BYTES:
        return 1
    return max(1, min(num_parts(held.num_bytes, row_ranges.RANGE_BYTES), num_shards // held.range.num))


def _gather(joined: Sequence[RangePieces], num_shards: int) -> Gather:
    first, last = joined[0].range, joined[-1].range
    pieces = [piece for held in joined for piece in held.pieces]
    for held in joined:
        held.pieces.clear()
    start, end = first.index * num_shards // first.num, -(-(last.index + 1) * num_shards // last.num)
    return Gather(start, end, pieces, sum(held.num_bytes for held in joined))


def _neighbours(sizes: Sequence[int], wanted: int) -> Iterator[tuple[int, int]]:
    """Neighbours [start, end) of about so many bytes together."""
    start = total = 0
    for i, size in enumerate(sizes):
        total += size
        if total >= wanted or i == len(sizes) - 1:
            yield start, i + 1
            start, total = i + 1, 0


def write_all(
    scattered: Scattered,
    state: SplitState,
    aside: ray.ObjectRef,
    spec: DataSpec,
    signature: Signature,
    version: str,
    ctx: RunContext,
) -> WrittenShards:
    """Write all shards, of about RANGE_BYTES at most; a task makes neighbouring ones, of about as many together.

    Args:
        scattered: without its pieces afterwards.
        aside: a reference to gather.ToSetAside.
    Raises:
        StoreError: they cannot be written; nothing is written any more then.
    """
    written = WrittenShards(FirstPass(spec.learned_transforms), moved_bytes=scattered.num_bytes)
    num_shards, rows_per_shard = shard_sizes(scattered.num_good, scattered.raw_bytes, spec.rows_per_shard)
    split = spec.split
    train_frac = 1 - split.val_frac - split.test_frac if isinstance(split, FractionSplit) else 0.0
    job = GatherJob(
        spec,
        ctx.store.uri,
        ctx.name,
        version,
        num_shards,
        rows_per_shard,
        signature,
        state,
        first=written.first_pass.group,
        rows_before=scattered.num_good / num_shards * train_frac / 2,
    )
    job_ref = ray.put(job)
    again = Window(int(AGAIN_FRAC * store_bytes()), "moving rows", written.add_moved)
    window = Window(int(FETCHED_FRAC * store_bytes()), "writing shards", written.add)
    try:
        for task in gathers(_pieces_by_range(scattered), num_shards, partial(cut_again, again)):
            window.make_room(task.num_bytes)
            write = gather.gather_task.options(memory=declared_memory(MEMORY_PER_BYTE * task.num_bytes))
            summary, profile = write.remote(job_ref, task.first, task.last, aside, *task.pieces)
            window.add(summary, task.num_bytes)
            written.add_profile(profile)
            del task  # so that a piece is forgotten once its rows are written
        window.finish()
        again.finish()
    except Exception:  # who interrupts the run does not wait: its tasks end with it
        window.wait_until_ended()
        raise
    return written


def shard_sizes(num_rows: int, num_bytes: int, rows_per_shard: int) -> tuple[int, int]:
    """In how many ranges rows are stored, a power of two, and the rows of a shard at most where many are copies.

    Args:
        num_bytes: of the values of all rows.
        rows_per_shard: wanted at most.
    """
    wanted = max(num_parts(num_rows, rows_per_shard), num_parts(num_bytes, row_ranges.RANGE_BYTES))
    num_shards = min(MAX_SHARDS, wanted)
    return num_shards, max(rows_per_shard, -(-num_rows // num_shards))


def _pieces_by_range(scattered: Scattered) -> Iterator[RangePieces]:
    """What all tasks cut, by range; the pieces are taken out."""
    pieces = [list(of_range) for of_range in zip(*scattered.pieces, strict=True)]
    scattered.pieces.clear()
    piece_bytes = np.stack(scattered.piece_bytes)
    for i in range(len(pieces)):
        of_range, pieces[i] = pieces[i], []
        yield RangePieces(RowRange(i, len(pieces)), of_range, piece_bytes[:, i].tolist())
