"""Equal ranges of row ids, and rows cut by them: how rows of all blocks come together.

Row ids are uniform, so ranges of equal width hold about equally many rows.  Their number is always a power of two, so
that wider ranges end where narrower ones do, and a range can be cut again.  Rows are cut at most FANOUT ways at once:
more would make pieces so small that Ray keeps them in the driver's memory.  What does not fit into FANOUT ranges is cut
once more, so rows move log64(N) times.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import ray

from raypipe.data.table import packing
from raypipe.data.table.names import ROW_ID
from raypipe.data.tasks import keep_freed

RANGE_BYTES = 96 * 2**20
"""Rows that are put in order by one task are about this many bytes, as they travel."""

PIECE_BYTES = 2**20
"""What one task has in one range is about this much on average.  Ray returns less than 100 KiB into the driver's own
memory, and copies it into the description of every task that takes it."""

FANOUT = 64
"""Ranges that rows are cut into at once, at most."""

FINE_RANGES = 2**16
"""Ranges of row id, at most, that the rows of a piece are ordered by: those of one shard then lie close together, and
are picked in a third of the time."""


@dataclass(frozen=True)
class RowRange:
    """Range number `index` of `num` equal ranges that hold all row ids."""

    index: int = 0
    num: int = 1

    def cut(self, num_cuts: int) -> list[RowRange]:
        """Equal ranges that hold what it holds, in order."""
        return [RowRange(self.index * num_cuts + i, self.num * num_cuts) for i in range(num_cuts)]


def range_numbers(row_id: np.ndarray, num_ranges: int) -> np.ndarray:
    """Which of `num_ranges` equal ranges each row id lies in, uint64 [B]."""
    high = row_id >> np.uint64(32)  # num_ranges < 2**32, so the product stays within 64 bits
    return (high * np.uint64(num_ranges)) >> np.uint64(32)


def num_parts(size: int, most: int) -> int:
    """How many equal ranges, of at most `most` each; a power of two."""
    return 1 << max(0, -(-size // most) - 1).bit_length()


def cut_by_range(table: pa.Table, within: RowRange, num_cuts: int) -> list[pa.Buffer]:
    """The rows of each of `num_cuts` equal ranges, as packing.to_buffer gives them.

    A buffer is put into the object store, and fetched, faster than a table is.

    Args:
        table: packed, with ROW_ID; all its rows lie in `within`.
    """
    if num_cuts == 1:
        return [packing.to_buffer(table)]
    num_fine = num_cuts * (FINE_RANGES // num_cuts)
    number = range_numbers(packing.unpacked(table.select([ROW_ID]))[ROW_ID].to_numpy(), within.num * num_fine)
    number = (number - np.uint64(within.index * num_fine)).astype(np.uint16)
    rows = packing.picked(table, np.argsort(number, kind="stable"))
    ends = np.cumsum(np.bincount(number, minlength=num_fine).reshape(num_cuts, -1).sum(axis=1)).tolist()
    some = [rows.slice(start, end - start) for start, end in zip([0, *ends], ends, strict=False)]
    # A few rows do not take along all the distinct texts of the table.
    return [
        packing.to_buffer(packing.packed(piece) if packing.most_texts(piece) > len(piece) / 2 else piece)
        for piece in some
    ]


def scatter_range(within: RowRange, num_cuts: int, *pieces: pa.Buffer) -> list[Any]:
    """Cut rows of one range once more.

    Returns:
        The bytes of the new pieces together, then one piece a range.
    """
    keep_freed()
    made = cut_by_range(packing.concat([packing.from_buffer(piece) for piece in pieces]), within, num_cuts)
    return [sum(piece.size for piece in made), *made]


scatter_range_task: Any = ray.remote(scatter_range)
