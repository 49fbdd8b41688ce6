"""What a column of the model must hold: one number and whole columns are judged alike, as numpy's types are."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raypipe.data.table.fits import INFINITE, NAN, NOT_WHOLE, OUT_OF_RANGE, held_as, kind_fits, limits, misfit, misfits
from raypipe.records import Column

TYPES = ["int8", "int64", "uint8", "uint64", "float32", "float64"]
NUMBERS = st.floats() | st.sampled_from([2.0**63, -(2.0**63), 2.0**64, 127.0, 128.0, -129.0, 3.5e38, 0.5])
WHOLE = st.integers(-(2**63), 2**63 - 1) | st.sampled_from([127, 128, -128, -129, 255, 256, 0, -1])


@pytest.mark.parametrize("dtype", TYPES)
@given(numbers=st.lists(NUMBERS, min_size=1, max_size=6))
def test_a_column_of_floats_is_judged_as_each_of_its_numbers(dtype, numbers):
    assert_alike(np.array(numbers), dtype)


@pytest.mark.parametrize("dtype", TYPES)
@given(numbers=st.lists(WHOLE, min_size=1, max_size=6))
def test_a_column_of_whole_numbers_is_judged_as_each_of_them(dtype, numbers):
    assert_alike(np.array(numbers, np.int64), dtype)
    assert_alike(np.array([number % 2**64 for number in numbers], np.uint64), dtype)


def assert_alike(values, dtype):
    wrong = misfits(values, dtype)
    for row, value in enumerate(values.tolist()):
        whys = [why for why, rows in wrong.items() if rows[row]]
        why = misfit(value, dtype)
        assert (why in whys) if why else not whys


@pytest.mark.parametrize("dtype", TYPES)
def test_limits_are_those_of_numpy(dtype):
    low, high = limits(dtype)
    assert np.array([low, high], dtype).tolist() == [low, high]
    assert misfit(high, dtype) is None and misfit(low, dtype) is None
    assert misfit(10**400, dtype) == OUT_OF_RANGE


def test_each_misfit_has_its_word():
    assert misfit(float("inf"), "float32") == INFINITE and misfit(float("nan"), "int8") == NAN
    assert misfit(0.5, "int8") == NOT_WHOLE and misfit(1e39, "float32") == OUT_OF_RANGE and misfit(3.0, "int8") is None


def test_array_with_one_misfit_is_one():
    values = np.array([[[0.0, 1.0], [2.0, 3.0]], [[0.0, 1.0], [2.0, np.inf]]])
    assert misfits(values, "float64")[INFINITE].tolist() == [False, True]


@pytest.mark.parametrize(
    ("dtype", "is_array", "fits"),
    [
        ("int8", False, True),
        ("string", False, False),
        ("bool", False, False),
        ("null", True, True),
        ("int8", True, False),
    ],
)
def test_type_of_a_file_fits_a_column_of_numbers(dtype, is_array, fits):
    assert kind_fits(dtype, is_array, Column(name="a", dtype="float32")) == fits


def test_values_that_may_be_missing_are_held_where_nan_has_a_place():
    assert held_as(Column(name="a", dtype="int8", nullable=True)) == "float64"
    assert held_as(Column(name="a", dtype="int8")) == "int8"
    assert held_as(Column(name="a", dtype="string", nullable=True)) == "object"
