"""Which neighbouring blocks one task takes, and in how many ranges it cuts them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from raypipe.data.shuffle import row_ranges
from raypipe.data.shuffle.read_all import Block
from raypipe.data.shuffle.row_ranges import PIECE_BYTES, num_parts

USUAL_TASKS = 1024
"""Data that would make more tasks of the usual size makes larger ones, so that the driver's references stay few."""

LARGEST_TASK_BYTES = 256 * 2**20

MAX_BLOCKS = 256
"""Blocks of one task at most, however small they are."""


@dataclass
class TaskSize:
    """How many bytes of blocks one task takes, and in how many ranges it cuts them.

    Attributes:
        told_bytes: what the files say they hold; 0 where they say nothing.
        num_ranges: decided with the first task, as all tasks cut alike; ranges that turn out too large are cut again.
    """

    told_bytes: int
    num_ranges: int | None = None
    _taken_bytes: int = 0
    _piece_bytes: int = 0

    def add(self, taken_bytes: int, piece_bytes: int) -> None:
        """Learn from a task that ended how much smaller pieces are than blocks."""
        self._taken_bytes += taken_bytes
        self._piece_bytes += piece_bytes

    @property
    def block_bytes(self) -> int:
        """For pieces of PIECE_BYTES or more."""
        wanted = max((self.num_ranges or self._told_ranges()) * PIECE_BYTES, self.told_bytes // USUAL_TASKS)
        if self._piece_bytes:
            wanted = wanted * self._taken_bytes // self._piece_bytes
        return min(LARGEST_TASK_BYTES, wanted)

    def decide(self, num_bytes: int) -> int:
        """In how many ranges to cut, once the bytes of the first task are known.

        Files that hold more than they told may hold anything: as many ranges as can be, where it is enough for them.
        """
        if self.num_ranges is None:
            is_enough = num_bytes >= row_ranges.FANOUT * PIECE_BYTES
            told = self._told_ranges() if self.told_bytes else 1
            self.num_ranges = row_ranges.FANOUT if is_enough and num_bytes > self.told_bytes else told
        return self.num_ranges

    def _told_ranges(self) -> int:
        if not self.told_bytes:
            return row_ranges.FANOUT
        return min(row_ranges.FANOUT, num_parts(self.told_bytes, row_ranges.RANGE_BYTES))


def neighbours(blocks: Iterable[Block], size: TaskSize) -> Iterator[list[Block]]:
    """The blocks of each task: neighbours of one source, of about `size.block_bytes` together."""
    chosen: list[Block] = []
    for block in blocks:
        if chosen and block.part is not chosen[0].part:
            yield chosen
            chosen = []
        chosen.append(block)
        if len(chosen) == MAX_BLOCKS or sum(one.num_bytes for one in chosen) >= size.block_bytes:
            yield chosen
            chosen = []
    if chosen:
        yield chosen
