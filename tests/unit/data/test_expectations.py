"""What a file may expect of its columns, and which rows break it."""

from __future__ import annotations

from typing import get_args

import numpy as np
import pyarrow as pa
import pytest
from pydantic import ValidationError

from raypipe.data.checks.examine import exact_values, examine
from raypipe.data.checks.expectations import KINDS as KINDS_OF_RULES
from raypipe.data.checks.expectations import check_columns, columns_of, refuse_unknown, tallies, violations
from raypipe.data.checks.schema import schema_of, types_of
from raypipe.errors import DataError
from raypipe.spec.data import DataSpec
from raypipe.spec.expectations import Expectation
from tests.unit.data.expectations import KINDS, NAN, as_values, dtypes_of, parsed


def broken(columns, **fields):
    """Positions of the rows that break one expectation on the only column."""
    (name,) = columns
    values = as_values(columns)
    (found,) = violations(values, dtypes_of(values), parsed({"columns": [name], **fields}))
    return np.flatnonzero(found.rows).tolist()


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"kind": "matches", "columns": ["a"], "regex": "(a"}, "regex '\\(a' is not a regular expression"),
        ({"kind": "matches", "columns": ["a"], "regex": "a{99999999999}"}, "is not a regular expression"),
        ({"kind": "range", "columns": ["a"], "min": 2, "max": 1}, "min=2 is above max=1"),
        ({"kind": "range", "columns": ["a"]}, "give min, max or both"),
        ({"kind": "length", "columns": ["a"], "max": -1}, "greater than or equal to 0"),
        ({"kind": "in_set", "columns": ["a"], "values": []}, "at least 1 item"),
        ({"kind": "row_count", "min": 1, "on_fail": "quarantine"}, "on_fail"),
        ({"kind": "drift", "baseline": "Wrong Name"}, "must be 1 to 63 of"),
        ({"kind": "drift", "baseline": "a@b@c"}, "must be 1 to 63 of"),
        ({"kind": "rang", "columns": ["a"], "min": 1}, "rang"),
    ],
)
def test_expectation_that_cannot_hold_meaning_is_refused_in_the_file(fields, says):
    with pytest.raises(ValidationError, match=says):
        parsed(fields)


def test_escapes_of_re2_that_python_does_not_know_are_accepted_and_work():
    assert broken({"a": ["Äpfel", "apfel", "Ä1"]}, kind="matches", regex=r"\p{Lu}\pL+\z") == [1, 2]


def test_data_spec_takes_expectations_on_columns_that_are_no_features():
    spec = DataSpec.model_validate(
        {
            "source": {"format": "csv", "path": "f.csv"},
            "target": "y",
            "features": ["a"],
            "expectations": [
                {"kind": "unique", "columns": ["id", "day"]},
                {"kind": "row_count", "min": 1},
                {"kind": "drift"},
                {"kind": "not_null", "columns": ["day"], "on_fail": "quarantine"},
            ],
        }
    )
    assert columns_of(spec.expectations) == ("id", "day")


@pytest.mark.parametrize(
    ("columns", "fields", "rows"),
    [
        ({"a": [None, "x", ""]}, {"kind": "not_null"}, [0]),
        ({"a": [1.0, NAN]}, {"kind": "not_null"}, [1]),
        ({"a": np.array([0, 1])}, {"kind": "not_null"}, []),
        ({"a": [-1.0, 0, 5, 5.1, NAN]}, {"kind": "range", "min": 0, "max": 5}, [0, 3]),
        ({"a": [-1.0, 0, 5, 5.1, NAN]}, {"kind": "range", "min": 0, "max": 5, "inclusive": False}, [0, 1, 2, 3]),
        ({"a": [float("inf"), -float("inf"), 1.0]}, {"kind": "range", "max": 9}, [0]),
        ({"a": np.array([0, 255], np.uint8)}, {"kind": "range", "min": -1, "max": 300}, []),
        ({"a": np.array([2**63 - 1, 2**63 - 2])}, {"kind": "range", "max": 2**63 - 2}, [0]),
        ({"a": np.array([[[0, 1], [2, 3]], [[0, 1], [2, 9]]])}, {"kind": "range", "max": 8}, [1]),
        ({"a": ["u", "v", None]}, {"kind": "in_set", "values": ["u"]}, [1]),
        ({"a": [1.0, 2.0, NAN]}, {"kind": "in_set", "values": [1, 3]}, [1]),
        ({"a": np.array([True, False])}, {"kind": "in_set", "values": [True]}, [1]),
        ({"a": ["ab", "xab", "abx", "AB", None, "ab\n"]}, {"kind": "matches", "regex": "ab"}, [1, 2, 3, 5]),
        ({"a": ["a", "b", "ab"]}, {"kind": "matches", "regex": "a|b"}, [2]),
        ({"a": ["a", "äö", "abc", None, ""]}, {"kind": "length", "min": 1, "max": 2}, [2, 4]),
        ({"a": np.zeros((2, 3))}, {"kind": "length", "max": 3}, []),
        ({"a": np.zeros((2, 3))}, {"kind": "length", "min": 4}, [0, 1]),
    ],
)
def test_rows_that_break_an_expectation_are_found_and_missing_values_pass(columns, fields, rows):
    columns = {n: np.array(v) if isinstance(v[0], float) else v for n, v in columns.items()}
    assert broken(columns, **fields) == rows


@pytest.mark.parametrize(
    ("fields", "first"),
    [
        ({"kind": "in_set", "values": ["ab", "c"]}, "'abc'"),
        ({"kind": "matches", "regex": "a.*"}, "'c'"),
        ({"kind": "length", "max": 2}, "'abc'"),
        ({"kind": "not_null"}, "nothing"),
    ],
)
def test_encoded_text_is_looked_at_as_plain_text_is(fields, first):
    texts = pa.array(["ab", None, "abc", "c", "ab"])
    expectations = parsed({"columns": ["name"], **fields})
    plain, encoded = (
        tallies(violations(values, dtypes_of(values), expectations), values)
        for values in ({"name": texts}, {"name": texts.dictionary_encode()})
    )
    assert encoded == plain and plain[0].first[0][1] == first


def test_rows_that_are_bad_already_break_nothing_more():
    values = as_values({"age": np.array([-1, -2, 3])})
    expectations = parsed({"kind": "range", "columns": ["age"], "min": 0})
    (found,) = violations(values, dtypes_of(values), expectations, np.array([False, True, True]))
    assert found.rows.tolist() == [False, True, False] and found.num_checked == 2


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"kind": "range", "columns": ["name"], "min": 0}, "range needs numbers, but column 'name' holds string"),
        ({"kind": "matches", "columns": ["age"], "regex": "1"}, "matches needs text, but column 'age' holds int64"),
        ({"kind": "length", "columns": ["pay"], "max": 1}, "length needs text or arrays"),
        ({"kind": "in_set", "columns": ["age"], "values": [1, "2"]}, "values like '2'"),
        ({"kind": "in_set", "columns": ["on"], "values": [1]}, "values like 1"),
        ({"kind": "in_set", "columns": ["image"], "values": [1]}, "needs single values"),
        ({"kind": "drift", "columns": ["name"], "metric": "ks"}, "needs numbers for metric: ks"),
        ({"kind": "range", "columns": ["image"], "max": 1}, "no feature"),
        ({"kind": "matches", "columns": ["name"], "regex": "(?=a)b"}, "not one of RE2.*\n?.*look-ahead"),
        ({"kind": "matches", "columns": ["name"], "regex": r"(a)\1"}, "not one of RE2"),
    ],
)
def test_expectation_that_does_not_fit_its_column_is_refused_before_rows_are_read(fields, says):
    with pytest.raises(DataError, match=says):
        check_columns(parsed(fields), KINDS, required=["age"])


def test_column_that_is_not_there_is_refused_with_the_one_that_was_meant():
    with pytest.raises(DataError, match="column 'aeg' is not there, did you mean 'age'"):
        refuse_unknown(parsed({"kind": "not_null", "columns": ["aeg"]}), list(KINDS))


def test_column_that_is_no_feature_is_checked_where_an_expectation_names_it():
    spec = DataSpec.model_validate(
        {
            "source": {"format": "parquet", "path": "f"},
            "target": "y",
            "features": ["a"],
            "split": {"key": ["id"]},
            "expectations": [{"kind": "not_null", "columns": ["day"]}],
        }
    )
    block = pa.table({"a": [1, 2], "id": [1, 2], "day": ["Mon", None], "other": [1, 1], "y": [0, 1]})
    schema = schema_of(spec, [types_of(block)])
    values, _ = examine(block, schema)
    exact = exact_values(block, schema, values)
    (found,) = violations(exact, schema.expected, spec.expectations)
    assert list(values) == ["a", "y", "id", "day"] and found.rows.tolist() == [False, True]
    empty = block.set_column(2, "day", pa.nulls(2))
    with pytest.raises(DataError, match="'day' has no value in any row"):
        schema_of(spec, [types_of(empty)])


def test_every_kind_of_expectation_in_the_file_has_a_rule():
    (variants,) = [part for part in get_args(Expectation) if get_args(part)]
    assert {get_args(variant.model_fields["kind"].annotation)[0] for variant in get_args(variants)} == set(
        KINDS_OF_RULES
    )
