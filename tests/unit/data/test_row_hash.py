"""The golden values here are a promise: a data set prepared today and one prepared in years agree on every row."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raypipe.data.table.row_hash import SECOND_LANE, row_hash
from tests.conftest import examples

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


@settings(max_examples=examples(30))
@given(st.lists(st.integers(0, 8), max_size=3))
def test_row_ids_at_any_cut_into_blocks_are_the_same(cuts):
    edges = [0, *sorted(cuts), 8]
    parts = [row_hash({n: v[a:b] for n, v in COLUMNS.items()}) for a, b in pairwise(edges)]
    assert (np.concatenate(parts) == row_hash(COLUMNS)).all()


LARGE = {
    "u": np.array([2**63, 2**63 + 1, 2**64 - 1], np.uint64),
    "g": pa.array([None, 2**60 + 1, -(2**53) - 1]),
    "v": np.array([[2**60 + 1, 0], [2**60, 0], [1, 2]]),
}


@pytest.mark.parametrize(
    ("name", "golden"),
    [
        ("u", ["bd9ce48b0a0f06dc", "9c306a29807e725f", "4e01d9640e3d5b70"]),
        ("g", ["91bd4460063dc298", "c34496bad6a5b0db", "81242a3830c527d5"]),
        ("v", ["50c4708c3f8f5382", "c98cdd38c2064b7f", "a397d1bd3b9ad3f8"]),
    ],
)
def test_row_hashes_of_whole_numbers_of_64_bits_never_change(name, golden):
    assert [f"{i:016x}" for i in row_hash({name: LARGE[name]})] == golden


def test_row_hashes_of_large_whole_numbers_agree_with_those_of_floats_that_hold_them_exactly():
    exact = np.array([2**63, 2**63 + 2048, 2**64 - 2048], np.uint64)
    assert (row_hash({"x": exact}) == row_hash({"x": exact.astype(np.float64)})).all()
    arrays = np.array([[2**60, 7], [-(2**62), 1]])
    assert (row_hash({"x": arrays}) == row_hash({"x": arrays.astype(np.float64)})).all()


NEIGHBOURS = np.arange(10**6)


@pytest.mark.parametrize(
    "values",
    [
        2**63 + NEIGHBOURS.astype(np.uint64),
        np.uint64(2**64 - 1) - NEIGHBOURS.astype(np.uint64),
        2**53 + NEIGHBOURS,
        -(2**63) + NEIGHBOURS,
        pa.array(2**62 + NEIGHBOURS),
        (2**60 + NEIGHBOURS[:200_000]).reshape(-1, 2),
    ],
    ids=["uint64", "largest", "int64", "smallest", "arrow", "arrays"],
)
def test_row_hashes_of_a_million_whole_numbers_of_64_bits_never_collide(values):
    hashes = np.sort(row_hash({"x": values}))
    assert (hashes[1:] != hashes[:-1]).all()


def test_row_hashes_in_the_second_lane_never_change_and_are_others():
    second = row_hash(COLUMNS, SECOND_LANE)
    assert [f"{i:016x}" for i in second[:2]] == ["cc9d28a8c0807cab", "8c605f374f2b0b0b"]
    assert not np.isin(second, row_hash(COLUMNS)).any()
    for name, values in COLUMNS.items():
        both = row_hash({name: values}) == row_hash({name: values}, SECOND_LANE)
        assert not both.any()
