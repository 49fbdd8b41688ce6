"""Borders are exact however many orders there are, and found in little memory."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raypipe.data.splits import ranks
from raypipe.data.splits.ranks import LAST, Ranks, order_of, places, tallied
from tests.conftest import examples


def cut_by_hand(orders, sizes, spare=0):
    """The borders of one stratum, looking at all orders at once."""
    distinct, count = np.unique(orders, return_counts=True)
    before = np.concatenate([[0], np.cumsum(count)])
    ends, start = [], 0
    for index, size in enumerate(sizes):
        nearest = np.abs(before - (before[start] + size))
        end = int(np.flatnonzero(nearest == nearest.min())[-1])  # of two that are as near, the later
        start = min(max(end, start + 1), len(distinct) - len(sizes) + index + spare)
        ends.append(int(np.append(distinct, LAST)[start]))
    return ends


@settings(max_examples=examples(60))
@given(
    st.lists(st.integers(0, 40) | st.integers(0, 2**64 - 2), min_size=3, max_size=80),
    st.tuples(st.integers(0, 40), st.integers(0, 40)),
    st.integers(1, 5),
    st.sampled_from([2, 16, ranks.MAX_ENTRIES]),
    st.integers(0, 1),
)
def test_cut_is_that_of_all_orders_at_once_for_any_blocks_and_any_memory(orders, sizes, num_blocks, most, spare):
    orders = np.array([*orders, 1, 2, 3], np.uint64)
    tallies = [tallied(orders[block::num_blocks], None, {}) for block in range(num_blocks)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ranks, "MAX_ENTRIES", most)
        found = Ranks(lambda: tallies).cut([np.array([size]) for size in sizes], spare)
    assert [int(border[0]) for border in found] == cut_by_hand(orders, sizes, spare)


@pytest.mark.parametrize("most", [4, 64, 2**20])
def test_each_stratum_is_cut_by_itself(monkeypatch, most):
    rng = np.random.default_rng(0)
    order, stratum = rng.integers(0, 2**64, 3000, np.uint64), rng.integers(5, 12, 3000).astype(np.uint64)
    order[::3] = order[0]  # copies in all strata
    tallies = [tallied(order[i::7], stratum[i::7], {}) for i in range(7)]
    monkeypatch.setattr(ranks, "MAX_ENTRIES", most)
    every = Ranks(lambda: tallies)
    sizes = [every.rows // 5, every.rows // 10]
    found = np.stack(every.cut(sizes), axis=1).tolist()
    for i, number in enumerate(every.strata.tolist()):
        mine = order[stratum == number]
        assert every.rows[i] == len(mine)
        assert found[i] == cut_by_hand(mine, [int(size[i]) for size in sizes])


@pytest.mark.parametrize("most", [64, 2**20])
def test_heavy_orders_are_all_found_with_their_rows(monkeypatch, most):
    rng = np.random.default_rng(0)
    order = np.concatenate(
        [rng.integers(0, 2**63, 5000, np.uint64), np.repeat(np.array([7, 2**64 - 9], np.uint64), [900, 400])]
    )
    order = rng.permutation(order)
    monkeypatch.setattr(ranks, "MAX_ENTRIES", most)
    every = Ranks(lambda: [tallied(order[i::9], None, {}) for i in range(9)])
    place, rows = every.more_than(300)
    assert place.tolist() == [7, 2**64 - 9] and rows.tolist() == [900, 400]
    others = every.without(place)
    assert others.rows.tolist() == [5000] and others.num_ends.tolist() == [3]


@given(st.lists(st.floats(allow_nan=False), min_size=2, max_size=20), st.lists(st.integers(-(2**63), 2**63 - 1)))
def test_places_of_numbers_sort_as_they_do_and_give_them_back(floats, integers):
    for order in (np.array(floats), np.array(integers, np.int64)):
        place = places(order)
        assert (np.argsort(place, kind="stable") == np.argsort(order, kind="stable")).all()
        assert [order_of(int(p), order.dtype.kind) for p in place] == order.tolist()


def test_deciding_takes_the_memory_of_few_entries_and_is_exact(monkeypatch):
    """A hundred thousand in each of five classes, in ten blocks, of which one and a half fit the bound."""
    monkeypatch.setattr(ranks, "MAX_ENTRIES", 2**16)
    rng = np.random.default_rng(1)
    blocks = [rng.integers(0, 2**64, 50_000, np.uint64) for _ in range(10)]
    stratum = np.arange(50_000, dtype=np.uint64) % np.uint64(5)
    tallies = [tallied(order, stratum, {}) for order in blocks]
    tracemalloc.start()
    every = Ranks(lambda: tallies)
    size = np.full(5, 20_000)
    test, val = every.cut([size, size // 2])
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    mine = np.concatenate(blocks).reshape(10, -1, 5)[:, :, 3]
    assert (mine < test[3]).sum() == 20_000 and ((mine >= test[3]) & (mine < val[3])).sum() == 10_000
    assert peak < 12 * 2**20  # all entries together: 10 MB, and put in order 30
