"""A few texts in a column of numbers are told as that: which, where, and what the pipeline file can say of them."""

from __future__ import annotations

import json
import pickle

import pyarrow as pa
import pytest

from raypipe.data.checks import stray
from raypipe.data.checks.schema import schema_of, types_of
from raypipe.data.checks.stray import TextTally, encoded_numbers, explained, look
from raypipe.data.table.problems import NeedsNumbers, SeveralProblems, each
from raypipe.data.transforms.passes import check_types
from raypipe.errors import DataError
from raypipe.spec.csv_settings import NULL_WORDS
from raypipe.spec.data import DataSpec
from tests.unit.data.helpers import reader, source_file

PAY = [str(number / 8) for number in range(600)]


def spec(source=None, **fields):
    return DataSpec.model_validate(
        {"source": {"format": "csv", "path": "f.csv", **(source or {})}, "target": "y", **fields}
    )


def problem(table, data):
    """What prepare raises over the types of a table, with what the table's text is."""
    try:
        check_types(data.transforms, schema_of(data, [types_of(table)]).inputs)
    except DataError as error:
        found, _ = look(table, stray.wanted(error))
        return explained(error, found, data)
    raise AssertionError("nothing is wrong")


def test_stray_texts_are_told_with_their_rows_how_many_are_numbers_and_the_null_values_to_set():
    pay = [*PAY[:7], "unknown", *PAY[8:20], " ", *PAY[21:50], "-", "unknown", *PAY[52:]]
    error = problem(pa.table({"pay": pay, "y": [0, 1] * 300}), spec())
    assert "column 'pay' holds text" in error.message and "596 of its 600 values are numbers" in error.message
    assert "'unknown' in 2 row(s), first row 8, ' ' in 1 row(s), first row 21, '-' in 1 row(s), first row 51" in str(
        error
    )
    nulls = json.dumps([*NULL_WORDS, "unknown", " "])
    assert f"data.source.null_values: {nulls}" in error.hint
    assert "`impute` transform for 'pay'" in error.hint and "data.source.dtypes: {pay: float64}" in error.hint
    assert "one_hot" not in error.hint


def test_what_the_hint_says_of_null_values_makes_the_column_numbers(tmp_path):
    (tmp_path / "f.csv").write_text("a,b\n1,unknown\n2, \n3,-\n4,0.5\n")
    nulls = ["", "unknown", " ", "-"]
    (table,) = reader("csv", null_values=nulls)(source_file(tmp_path / "f.csv"))
    assert table["b"].to_pylist() == [None, None, None, 0.5]


def test_text_that_is_no_numbers_keeps_the_advice_to_encode_it():
    error = problem(pa.table({"city": ["Rome", "Bonn", "7"], "y": [0, 1, 0]}), spec())
    assert "no transform makes numbers of it" in error.message and "add a one_hot" in error.hint


def test_every_wrong_column_is_told_at_once_each_with_its_own_advice():
    table = pa.table(
        {"a": ["1", "2", "x"], "b": ["u", "v", "w"], "c": ["1", "?!", "3"], "d": [1, 2, 3], "y": [0, 1, 0]}
    )
    transforms = [{"kind": "standardize", "columns": ["a", "d"]}, {"kind": "one_hot", "columns": ["d"]}]
    error = problem(table, spec(transforms=transforms))
    assert isinstance(error, SeveralProblems) and len(error.errors) == 3
    assert error.message.startswith("3 things are wrong:\n  data.transforms: standardize needs numbers, but column 'a'")
    assert "'x' in 1 row(s), first row 3" in error.message and "'?!' in 1 row(s), first row 2" in error.message
    assert "one_hot, ordinal, hashing, ngrams or tokens transform for 'b'" in error.hint
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), again.message, again.hint) == (SeveralProblems, error.message, error.hint)
    assert [type(one) for one in each(again)] == [NeedsNumbers] * 3


@pytest.mark.parametrize(
    ("source", "hint"),
    [
        ({"format": "csv"}, "data.source.decimal_point: ','"),
        ({"format": "jsonl"}, "without quotes"),
        ({"format": "parquet"}, "write 'pay' as a column of numbers"),
    ],
)
def test_decimal_comma_is_named_as_the_cause(source, hint):
    error = problem(pa.table({"pay": ["1,5", "-0,25", "1.234,5", "3"], "y": [0, 1, 0, 1]}), spec(source))
    assert "3 of its 4 values are numbers with a decimal comma: '1,5' in 1 row(s), first row 1" in error.message
    assert hint in error.hint


def test_decimal_point_reads_numbers_with_a_comma_declared_or_not(tmp_path):
    (tmp_path / "f.csv").write_text("a;b\n1,5;0,25\n2;x\n-3,5;1e3\n")
    read = reader("csv", delimiter=";", decimal_point=",", dtypes={"b": "float64"})
    (table,) = read(source_file(tmp_path / "f.csv"))
    assert table["a"].to_pylist() == [1.5, 2.0, -3.5] and table["b"].to_pylist() == [0.25, None, 1000.0]
    assert "'b' is 'x', which is no float64" in table["__bad"].to_pylist()[1]


def test_target_of_a_regression_with_stray_text_says_so_and_that_its_rows_are_bad_rows():
    data = spec(task="regression")
    with pytest.raises(NeedsNumbers) as caught:
        schema_of(data, [types_of(pa.table({"a": [1, 2, 3], "y": ["1", "n/a", "2"]}))])
    found, _ = look(pa.table({"y": ["1", "n/a", "2"]}), ["y"])
    error = explained(caught.value, found, data)
    assert "'n/a' in 1 row(s), first row 2" in error.message and "its rows are then bad rows" in error.hint
    assert "impute" not in error.hint


def test_tallies_of_blocks_add_up_with_rows_counted_through():
    whole, parts = pa.table({"a": [*PAY, "x", None, "y", "x"]}), TextTally()
    for start in range(0, 604, 100):
        parts.add(look(whole.slice(start, 100), ["a"])[0]["a"], start)
    assert parts == look(whole, ["a"])[0]["a"]
    assert parts.others == {"x": (2, 600), "y": (1, 602)} and parts.num_values == 603 and parts.num_numbers == 600


def test_encoded_text_is_looked_at_like_plain_text():
    texts = pa.array(["1", "x", None, "2", "x"])
    tables = [pa.table({"a": texts}), pa.table({"a": texts.dictionary_encode()})]
    first, second = (look(table, ["a", "b"]) for table in tables)
    assert first == second and first[0]["a"].others == {"x": (2, 1)}


def test_numbers_that_are_encoded_as_categories_are_told():
    def lines(categories):
        return encoded_numbers([{"kind": "one_hot", "columns": {"pay": {"categories": categories}}}])

    (line,) = lines([*PAY, "unknown"])
    assert line.startswith("600 of the 601 categories of 'pay' are numbers, the others 'unknown'")
    (line,) = lines([f"{i},5" for i in range(50)])
    assert "numbers with a decimal comma" in line
    for codes in (PAY, ["a", "b", *"12345"], [*PAY, *(f"E{i}" for i in range(100))], list(range(50))):
        assert lines(codes) == []  # all are numbers, few are, there are other codes, they are no text
