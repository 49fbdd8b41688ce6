from __future__ import annotations

import csv
import io
import json

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raypipe.errors import RequestError
from raypipe.records import Column, Reading, Signature
from raypipe.serve import csv_rows
from raypipe.serve.checker import Checker

TABLE = Signature(
    inputs=(
        Column(name="count", dtype="int64"),
        Column(name="income", dtype="float64", nullable=True),
        Column(name="city", dtype="string"),
        Column(name="member", dtype="bool", nullable=True),
    ),
    task="regression",
    target="y",
)
ROWS = st.lists(
    st.fixed_dictionaries(
        {
            "count": st.integers(-(2**63), 2**63 - 1),
            "income": st.one_of(
                st.none(), st.floats(allow_nan=False, allow_infinity=False), st.integers(-(2**60), 2**60)
            ),
            "city": st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=8),
            "member": st.booleans(),
        }
    ),
    min_size=1,
    max_size=5,
)


@settings(max_examples=200, deadline=None)
@given(ROWS, st.booleans())
def test_a_table_written_as_csv_is_read_as_its_json(rows: list[dict[str, object]], has_header: bool):
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]) if has_header else [column.name for column in TABLE.inputs])
    if has_header:
        writer.writeheader()
    for row in rows:
        writer.writerow({name: "" if value is None else value for name, value in row.items()})
    checker = Checker(TABLE, 10)
    read, num_rows = csv_rows.read(text.getvalue().encode(), TABLE, checker)
    expected = checker.rows(orjson.loads(json.dumps(rows)))
    assert num_rows == len(rows)
    for name, values in expected.items():
        np.testing.assert_array_equal(read[name], values)
        assert read[name].dtype == values.dtype


def test_words_for_no_value_mean_that_in_csv_too():
    reading = Reading(format="csv", settings={"null_values": ["NA", "-"]})
    signature = TABLE.model_copy(update={"reading": reading})
    read, _ = csv_rows.read(b"1,NA,Bonn,true\n2,,Rome,false\n3,-,Oslo,true\n", signature, Checker(signature, 10))
    assert np.isnan(read["income"]).all()
    with pytest.raises(RequestError, match="row 0, field 'city': found 'NA', which meant 'no value'"):
        csv_rows.read(b"1,1,NA,true\n", signature, Checker(signature, 10))


def test_numbers_are_those_of_json_and_nothing_else():
    signature = Signature(inputs=(Column(name="x", dtype="float64"),), task="regression", target="y")
    checker = Checker(signature, 10)
    read, _ = csv_rows.read(b"1\n 2.50 \n+3e2\n.5\n", signature, checker)
    assert read["x"].tolist() == [1, 2.5, 300, 0.5]
    for cell in ("0x10", "1,5", "Infinity", "\u0661", "1e", "--1", "True"):
        with pytest.raises(RequestError):
            csv_rows.read(cell.encode(), signature, checker)


def test_a_cell_without_end_is_refused():
    signature = Signature(inputs=(Column(name="x", dtype="float64"),), task="regression", target="y")
    for body in (b"1" * 5000, b"1" * 200_000, b"x" * 200_000):
        with pytest.raises(RequestError):
            csv_rows.read(body, signature, Checker(signature, 10))
