"""The order of rows, without storage: a pure function of shards, share, batch size and seed."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from raypipe.data.shards import share
from raypipe.records import Shard
from raypipe.train import windows
from raypipe.train.windows import Pick

SIZES = st.lists(st.integers(1, 12), min_size=1, max_size=8)


def _shards(sizes: list[int]) -> list[Shard]:
    return [Shard(key=f"s{i}", num_rows=size, size_bytes=0, sha256="") for i, size in enumerate(sizes)]


def _rows(pick: Pick) -> list[int]:
    """Rows of a batch, by their number in the share."""
    return [window.start + row for window, rows in pick for row in rows.tolist()]


def _order(sizes: list[int], rank: int, world_size: int, window_rows: int, **options: Any) -> list[list[int]]:
    start, stop = share(sum(sizes), rank, world_size)
    groups = windows.cut(_shards(sizes), start, stop, window_rows)
    seed = options.pop("seed", 0)
    order = windows.shuffled(groups, seed)
    return [_rows(p) for p in windows.picks(order, lambda w: windows.shuffled_rows(w, seed), **options)]


@given(SIZES, st.integers(1, 5), st.integers(1, 30), st.integers(1, 30))
def test_picks_of_all_ranks_hold_every_row_once(
    sizes: list[int], world_size: int, window_rows: int, batch_rows: int
) -> None:
    seen: Counter[int] = Counter()
    for rank in range(world_size):
        start, stop = share(sum(sizes), rank, world_size)
        batches = _order(sizes, rank, world_size, window_rows, batch_rows=batch_rows)
        seen.update(start + row for batch in batches for row in batch)
        assert [len(batch) for batch in batches[:-1]] == [batch_rows] * (len(batches) - 1), "only the last is short"
        assert len(batches) == -(-(stop - start) // batch_rows)
    assert seen == Counter(range(sum(sizes)))


@given(SIZES, st.integers(1, 30), st.integers(1, 9), st.data())
def test_picks_from_a_later_step_are_those_of_the_whole_epoch(
    sizes: list[int], window_rows: int, batch_rows: int, data: st.DataObject
) -> None:
    whole = _order(sizes, 0, 1, window_rows, batch_rows=batch_rows)
    step = data.draw(st.integers(0, len(whole)))

    assert _order(sizes, 0, 1, window_rows, batch_rows=batch_rows, skip=step * batch_rows) == whole[step:]


@given(SIZES, st.integers(1, 3), st.integers(1, 30))
def test_cut_windows_are_small_enough_and_read_each_shard_in_one_go(
    sizes: list[int], world_size: int, window_rows: int
) -> None:
    for rank in range(world_size):
        start, stop = share(sum(sizes), rank, world_size)
        groups = windows.cut(_shards(sizes), start, stop, window_rows)
        for group in groups:
            assert all(0 < window.num_rows <= window_rows for window in group)
            assert len({part.shard.key for window in group for part in window.parts}) == 1 or len(group) == 1
        keys = [{part.shard.key for window in group for part in window.parts} for group in groups]
        assert sum(map(len, keys)) == len(set().union(*keys)), "no shard is in two groups"
        starts = [window.start for group in groups for window in group]
        ends = [window.start + window.num_rows for group in groups for window in group]
        assert starts == [0, *ends[:-1]][: len(starts)]


@pytest.mark.parametrize("window_rows", [7, 25, 100])
def test_order_is_another_for_another_seed_and_the_same_for_the_same(window_rows: int) -> None:
    def order(seed: int) -> list[list[int]]:
        return _order([10, 11, 9, 12], 0, 1, window_rows, batch_rows=5, seed=seed)

    assert order(1) == order(1)
    assert order(1) != order(2)
    assert order(1) != [list(range(i, min(i + 5, 42))) for i in range(0, 42, 5)]


def test_shuffled_windows_of_one_shard_are_visited_one_after_another_in_an_order_of_the_seed() -> None:
    groups = windows.cut(_shards([40, 40]), 0, 80, 10)

    orders = [[window.start for window in windows.shuffled(groups, seed)] for seed in range(5)]

    for order in orders:
        assert [{start // 40 for start in half} for half in (order[:4], order[4:])] in ([{0}, {1}], [{1}, {0}])
    assert len({tuple(start % 40 for start in order[:4]) for order in orders}) > 1


def test_shuffled_rows_of_two_windows_are_two_orders() -> None:
    a, b = (w for group in windows.cut(_shards([40]), 0, 40, 20) for w in group)

    assert not torch.equal(windows.shuffled_rows(a, 3), windows.shuffled_rows(b, 3))


def test_left_after_leaves_out_what_is_done() -> None:
    order = [window for group in windows.cut(_shards([5, 5, 5]), 0, 15, 5) for window in group]

    assert [len(windows.left_after(order, skip)) for skip in (0, 4, 5, 9, 10, 14, 15)] == [3, 3, 2, 2, 1, 1, 0]
