"""What a column of text or of numbers holds does not depend on its form."""

from __future__ import annotations

import math
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raypipe.data.table import columns
from raypipe.data.table.normal_form import normalise
from tests.unit.data.helpers import forms

TEXTS = st.lists(st.sampled_from(["b", "a", "é", "", "long " * 9, None]), max_size=40)


@given(texts=TEXTS)
def test_raw_bytes_of_text_do_not_depend_on_its_form(texts):
    found = {columns.raw_bytes(form) for form in forms(texts)}
    assert found == {sum(len((text or "").encode()) for text in texts)}


@pytest.mark.parametrize(
    ("array", "dtype", "values", "missing"),
    [
        (pa.array([1.5, None, math.nan, -0.0]), "float64", [1.5, math.nan, math.nan, 0.0], [0, 1, 1, 0]),
        (pa.array([1.5, math.nan], pa.float32()), "float32", [1.5, math.nan], [0, 1]),
        (pa.array([1.5, math.inf], pa.float32()), "float64", [1.5, math.inf], [0, 0]),
        (pa.array([1, None]), "float64", [1.0, math.nan], [0, 1]),
        (pa.array([1, None], pa.int8()), "int64", [1, 0], [0, 1]),
        (pa.array([2**63], pa.uint64()), "uint64", [2**63], [0]),
        (pa.array([True, None, False]), "bool", [True, False, False], [0, 1, 0]),
        (pa.nulls(2), "float64", [math.nan, math.nan], [1, 1]),
        (pa.array([], pa.float64()), "float64", [], []),
    ],
)
def test_scalars_of_every_type_and_which_of_them_are_missing(array, dtype, values, missing):
    for column in (pa.chunked_array([array]), pa.chunked_array([array[:1], array[1:]])):
        found, gaps = columns.scalars(column, dtype)
        assert found.dtype == dtype
        np.testing.assert_array_equal(found, np.array(values, dtype))
        assert not np.signbit(found[found == 0]).any()
        assert gaps.tolist() == [bool(gap) for gap in missing]


@given(st.lists(st.decimals(-(10**9), 10**9, places=3), min_size=1, max_size=20))
def test_decimals_become_the_numbers_that_their_digits_mean_in_lists_too(values: list[Decimal]):
    numbers = [float(value) for value in values]
    for decimals in (pa.decimal128(20, 3), pa.decimal256(60, 3)):
        table = pa.table({"a": pa.array(values, decimals), "b": pa.array([values] * len(values), pa.list_(decimals))})
        read = normalise(table, "f")
        assert read["a"].to_pylist() == numbers and read["b"].to_pylist() == [numbers] * len(numbers)
