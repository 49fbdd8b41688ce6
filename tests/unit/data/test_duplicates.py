"""No two rows agree in a unique key; of those that do, one is right."""

from __future__ import annotations

import numpy as np
import pytest

from raypipe.data.checks.duplicates import keys_of
from raypipe.data.table.row_hash import row_hash
from raypipe.errors import DataError
from tests.unit.data.expectations import NAN, as_values, results


def test_unique_keeps_the_smallest_row_id_and_names_the_row_that_is_repeated():
    columns = {"age": np.array([7, 8, 7, 9, 7]), "name": ["a", "b", "c", "d", "a"]}
    (found,) = results(columns, {"kind": "unique", "columns": ["age"]}, cuts=[1, 4])
    ids = row_hash(as_values(columns))
    kept = min((0, 2, 4), key=lambda i: (ids[i], i)) + 1
    assert found.num_broken == 2 and found.num_checked == 5
    assert [(row.row_number, row.found) for row in found.first] == [
        (n, f"repeats row {kept}") for n in (1, 3, 5) if n != kept
    ]


def test_rows_that_miss_a_value_of_a_unique_key_agree_with_none():
    columns = {"pay": np.array([NAN, NAN, 1.0]), "name": ["a", "a", None]}
    assert results(columns, {"kind": "unique", "columns": ["pay", "name"]})[0].passed


def test_unique_of_whole_numbers_that_floats_do_not_tell_apart_is_refused():
    values = {"id": np.array([2.0**53, 2.0**53 + 2])}
    with pytest.raises(DataError, match="more than 53 bits"):
        keys_of(values, ["id"], np.ones(2, bool))
