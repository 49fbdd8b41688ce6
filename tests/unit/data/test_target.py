"""Figures of the train split's target."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raypipe.data.shuffle.target import finish, part, statistics
from raypipe.testing.fakes import MemoryStore, tiny_dataset


@given(
    st.lists(
        st.floats(-1e9, 1e9).map(lambda value: round(value, 6)), min_size=2, max_size=60
    ),  # numpy's std underflows
    st.lists(st.integers(1, 59), max_size=5),
)
def test_statistics_of_the_same_parts_are_the_same_bits_in_any_order(values: list[float], cuts: list[int]) -> None:
    rows = np.array(values)
    pieces = [piece for piece in np.split(rows, sorted(c for c in cuts if c < len(rows))) if len(piece)]

    found = finish([part(piece) for piece in pieces])

    assert finish([part(piece) for piece in reversed(pieces)]) == found
    assert found.mean == pytest.approx(rows.mean(), rel=1e-12, abs=1e-12 * rows.std())
    assert found.std == pytest.approx(rows.std(), rel=1e-12, abs=1e-12 * abs(rows.mean()))


def test_statistics_of_small_spread_on_a_large_mean_are_exact() -> None:
    found = finish([part(np.array([1e9, 1e9 + 2]))])

    assert (found.mean, found.std, found.num_not_positive) == (1e9 + 1, 1.0, 0)
    assert found.log_mean == pytest.approx(math.log(1e9 + 1), abs=1e-12)


def test_statistics_with_values_not_above_0_have_no_logarithm() -> None:
    found = finish([part(np.array([1.0, -2.0])), part(np.array([0.0]))])

    assert (found.num_rows, found.min, found.max, found.num_not_positive) == (3, -2.0, 1.0, 2)
    assert found.log_mean is None and found.log_std is None


def test_statistics_are_of_train_alone_and_read_where_the_record_has_none() -> None:
    store = MemoryStore()
    target = np.r_[np.arange(25.0), np.full(15, 1e6)]
    made = tiny_dataset(store, {"x": target}, target, task="regression", num_val=5, num_test=10, rows_per_shard=10)
    before = made.model_copy(update={"target_statistics": None})

    (kept,) = statistics(store, made)
    assert kept == made.target_statistics and kept.max == 24.0
    assert statistics(store, before) == (kept,)
