"""Rows come together by range of row id, whatever the number of times they are cut, and move seldom."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raypipe.data.shuffle import row_ranges
from raypipe.data.shuffle.row_ranges import RowRange, cut_by_range, num_parts, range_numbers, scatter_range
from raypipe.data.shuffle.write_all import MAX_SHARDS, RangePieces, gathers, shard_sizes
from raypipe.data.table import packing
from raypipe.data.table.names import ROW_ID


def table(row_id, **fields):
    return packing.packed(pa.table({ROW_ID: np.asarray(row_id, np.uint64), **fields}))


def ids(piece):
    return packing.unpacked(packing.from_buffer(piece))[ROW_ID].to_pylist()


@pytest.mark.parametrize(("first", "second"), [(1, 8), (4, 8), (8, 1), (2, 64)])
def test_rows_cut_twice_are_where_they_are_when_cut_once(first, second):
    row_id = [0, 0, 2**64 - 1, *np.random.default_rng(0).integers(0, 2**64, 300, np.uint64).tolist()]
    once = cut_by_range(table(row_id), RowRange(), first * second)
    twice = []
    for within, piece in zip(RowRange().cut(first), cut_by_range(table(row_id), RowRange(), first), strict=True):
        num_bytes, *pieces = scatter_range(within, second, piece)
        assert num_bytes == sum(one.size for one in pieces)
        twice += pieces
    assert [sorted(ids(piece)) for piece in twice] == [sorted(ids(piece)) for piece in once]
    number = range_numbers(np.array(row_id, np.uint64), first * second)
    assert [len(ids(piece)) for piece in once] == np.bincount(number, minlength=first * second).tolist()


@given(size=st.integers(0, 10**7), most=st.integers(1, 10**6))
def test_num_parts_is_the_smallest_power_of_two_of_parts_that_hold_no_more_than_asked(size, most):
    num = num_parts(size, most)
    assert num & (num - 1) == 0 and num * most >= size and (num == 1 or num // 2 * most < size)


class Moved:
    """Cuts pieces again in this process, and counts their bytes."""

    def __init__(self) -> None:
        self.num_bytes = 0

    def cut(self, held, num_cuts):
        assert num_cuts <= row_ranges.FANOUT
        cut = [scatter_range(held.range, num_cuts, piece)[1:] for piece in held.pieces]
        held.pieces.clear()
        self.num_bytes += sum(piece.size for pieces in cut for piece in pieces)
        of_ranges = zip(*cut, strict=True)
        return [
            RangePieces(r, list(p), [one.size for one in p])
            for r, p in zip(held.range.cut(num_cuts), of_ranges, strict=True)
        ]


def held_of(tables, num_ranges):
    cut = [cut_by_range(one, RowRange(), num_ranges) for one in tables]
    of_ranges = zip(*cut, strict=True)
    ranges = zip(RowRange().cut(num_ranges), of_ranges, strict=True)
    return [RangePieces(part, list(pieces), [piece.size for piece in pieces]) for part, pieces in ranges]


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(row_ranges, "RANGE_BYTES", 2**15)
    monkeypatch.setattr(row_ranges, "FANOUT", 8)


def tables(num_rows=50_000):
    random = np.random.default_rng(0)
    row_id = random.integers(0, 2**64, num_rows, np.uint64)
    return [table(part, x=random.normal(size=len(part))) for part in np.array_split(row_id, 4)]


@pytest.mark.parametrize(("num_ranges", "levels"), [(8, 2), (1, 3), (64, 1)])
@pytest.mark.parametrize("num_shards", [8, 512])
def test_every_row_is_gathered_once_with_its_shard_and_moves_once_a_level(small, num_ranges, levels, num_shards):
    rows = tables()
    held = held_of(rows, num_ranges)
    packed_bytes = sum(one.num_bytes for one in held)
    moved, end, found = Moved(), 0, []
    for task in gathers(held, num_shards, moved.cut):
        assert task.first == end and task.num_bytes <= 4 * max(row_ranges.RANGE_BYTES, packed_bytes // num_shards)
        end = task.last
        some = [row for piece in task.pieces for row in ids(piece)]
        number = range_numbers(np.array(some, np.uint64), num_shards)
        assert number.min() >= task.first and number.max() < task.last
        found += some
    assert end == num_shards and sorted(found) == sorted(row for one in rows for row in one[ROW_ID].to_pylist())
    # Of shards as wide as a range, none is cut again.
    assert packed_bytes + moved.num_bytes <= 1.1 * packed_bytes * (1 if num_shards <= num_ranges else levels)
    assert moved.num_bytes or levels == 1 or num_shards <= num_ranges


def test_two_levels_move_at_most_2_2_times_the_packed_bytes(small):
    rows = tables()
    moved = Moved()
    held = held_of(rows, 8)
    first = sum(one.num_bytes for one in held)
    assert max(one.num_bytes for one in held) > 2 * row_ranges.RANGE_BYTES, "or one level is enough"
    assert all(task.num_bytes <= 2 * row_ranges.RANGE_BYTES for task in gathers(held, 512, moved.cut))
    assert moved.num_bytes and first + moved.num_bytes <= 2.2 * sum(one.nbytes for one in rows)


def test_rows_that_are_all_copies_are_gathered_although_no_cut_parts_them(small):
    rows = table([7] * 80_000, x=np.zeros(80_000))
    moved = Moved()
    (task,) = (one for one in gathers(held_of([rows], 8), MAX_SHARDS, moved.cut) if one.num_bytes > 10_000)
    assert sum(len(ids(piece)) for piece in task.pieces if len(ids(piece))) == 80_000


@pytest.mark.parametrize("num_rows", [0, 1, 10**6, 10**8, 10**10])
@pytest.mark.parametrize("row_bytes", [1, 150, 10**5])
def test_shards_grow_with_the_data_so_that_a_record_lists_few(num_rows, row_bytes):
    num_shards, rows_per_shard = shard_sizes(num_rows, num_rows * row_bytes, 100_000)
    assert num_shards <= MAX_SHARDS == 2048 and num_shards * rows_per_shard >= num_rows
    # A range with many copies of a row is cut further, so these are listed too.
    assert num_rows // rows_per_shard <= MAX_SHARDS
    if num_shards < MAX_SHARDS:
        assert rows_per_shard == 100_000 and num_rows * row_bytes <= num_shards * row_ranges.RANGE_BYTES
