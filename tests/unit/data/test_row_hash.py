"""The golden values here are a promise: a data set prepared today and one prepared in years agree on every row."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raypipe.data.table.row_hash import row_hash

COLUMNS = {
    "n": np.array([0.0, -0.0, 1.0, 1.5, np.nan, -7.0, 1e300, np.inf]),
    "s": pa.array(["a", "ä", "", None, "a", "b", "c", "d"]),
    "b": np.array([1, 0] * 4, bool),
    "image": np.arange(32, dtype=np.uint8).reshape(8, 2, 2),
    "v": np.linspace(-1, 1, 16).reshape(8, 2),
}


def test_row_ids_of_golden_rows_never_change():
    assert [f"{i:016x}" for i in row_hash(COLUMNS)] == [
        "3e1e6368bc008588",
        "873e53e6a9904d22",
        "a8bea3505473288c",
        "60b0356684f2d1a6",
        "af31954bb64bee8c",
        "a5e1ed58e1c058a3",
        "57c52a2f64075e23",
        "d806bb1e8ffae82a",
    ]


@pytest.mark.parametrize(
    ("name", "first", "last"),
    [
        ("n", "569fc541af65b523", "ce429312f4de12c3"),
        ("s", "ed1cd6f3e6c29b0b", "a0503e7b021a5f73"),
        ("b", "05cc0a7c1580dc83", "d5b4a0850c0d1cd5"),
        ("image", "7b1df936e2a5c36f", "b2ace41d053749d4"),
        ("v", "336b2931c34238d7", "dce4a19d0437197d"),
    ],
)
def test_row_ids_of_each_kind_of_column_never_change(name, first, last):
    ids = row_hash({name: COLUMNS[name]})
    assert (f"{ids[0]:016x}", f"{ids[-1]:016x}") == (first, last)


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int32", "uint64", "float32", "float64"])
def test_row_ids_of_equal_whole_numbers_agree_over_all_types(dtype):
    assert (row_hash({"x": np.array([0, 1, 7], dtype)}) == row_hash({"x": np.array([0, 1, 7], np.int64)})).all()


def test_row_ids_of_numbers_beyond_int64_agree_between_integer_and_float():
    big = row_hash({"x": np.array([2**63, 5], np.uint64)})
    assert (big == row_hash({"x": np.array([2.0**63, 5.0])})).all()


def test_row_ids_do_not_depend_on_the_order_of_columns():
    assert (row_hash(COLUMNS) == row_hash(dict(reversed(COLUMNS.items())))).all()


def test_row_ids_of_values_that_swap_columns_differ():
    assert row_hash({"x": np.array([1]), "y": np.array([2])}) != row_hash({"x": np.array([2]), "y": np.array([1])})


def test_row_ids_of_no_rows_are_empty():
    empty = {"x": np.zeros((0, 2), np.uint8), "s": pa.array([], pa.string()), "n": np.zeros(0)}
    assert len(row_hash(empty)) == 0


@settings(deadline=None, max_examples=30)
@given(st.lists(st.integers(0, 8), max_size=3))
def test_row_ids_at_any_cut_into_blocks_are_the_same(cuts):
    edges = [0, *sorted(cuts), 8]
    parts = [row_hash({n: v[a:b] for n, v in COLUMNS.items()}) for a, b in pairwise(edges)]
    assert (np.concatenate(parts) == row_hash(COLUMNS)).all()
