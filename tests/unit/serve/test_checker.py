from __future__ import annotations

import json
import math
import re
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raypipe.errors import RequestError
from raypipe.records import Column, Reading, Signature
from raypipe.serve.checker import Checker, ColumnReader, columns_of
from tests.conftest import examples

DTYPES = ["bool", "int8", "uint8", "int64", "uint64", "float32", "float64", "string"]


def signature(*columns: Column) -> Signature:
    return Signature(inputs=columns, task="regression", target="y")


ONE = signature(Column(name="x", dtype="float32"))
IMAGE = signature(Column(name="image", dtype="uint8", shape=(2, 3)))
TABLE = signature(
    Column(name="age", dtype="int64"),
    Column(name="income", dtype="float64", nullable=True),
    Column(name="city", dtype="string", nullable=True),
    Column(name="member", dtype="bool"),
)
STRICT = TABLE.model_copy(update={"extra_columns": "error"})
PERSON = {"age": 40, "income": 1.5, "city": "Bonn", "member": True}


def parse(instances: Any, wanted: Signature, max_rows: int = 100) -> dict[str, np.ndarray]:
    return columns_of(orjson.loads(json.dumps(instances)), wanted, max_rows=max_rows)


def test_numbers_become_an_array_in_the_columns_dtype():
    found = parse([[[1, 2, 3], [4, 5, 255]]], IMAGE)["image"]
    assert found.dtype == np.uint8 and found.tolist() == [[[1, 2, 3], [4, 5, 255]]]


def test_objects_lists_and_bare_values_mean_the_same():
    assert parse([{"x": 1.5}, 2], ONE)["x"].tolist() == [1.5, 2]
    for rows in ([PERSON], [list(PERSON.values())], [dict(reversed(PERSON.items()))]):
        found = parse(rows, TABLE)
        assert {name: values.tolist() for name, values in found.items()} == {k: [v] for k, v in PERSON.items()}
    mixed = parse([PERSON, list(PERSON.values())], TABLE)
    assert mixed["city"].tolist() == ["Bonn", "Bonn"]


def test_null_is_a_missing_value_where_allowed():
    found = parse([{**PERSON, "income": None, "city": None}], TABLE)
    assert np.isnan(found["income"]).all() and found["income"].dtype == np.float64
    assert found["city"].tolist() == [None]


def test_absent_field_is_refused_even_where_null_is_allowed():
    absent = {name: value for name, value in PERSON.items() if name != "income"}
    with pytest.raises(RequestError, match="row 1: field 'income' is missing"):
        parse([PERSON, absent], TABLE)
    with pytest.raises(RequestError, match="is 'incom' meant\\? name it 'income'"):
        parse([{**absent, "incom": 1.5}], TABLE)


def test_extra_field_is_left_out_unless_the_policy_refuses_it():
    rows = [{**PERSON, "agee": 1}, PERSON]
    assert parse(rows, TABLE)["age"].tolist() == [40, 40]
    with pytest.raises(RequestError, match="row 0: unknown field 'agee'"):
        parse(rows, STRICT)


def test_integer_written_as_a_float_without_a_fraction_is_taken():
    assert parse([{**PERSON, "age": 3.0}], TABLE)["age"].tolist() == [3]


@pytest.mark.parametrize("dtype", ["uint8", "int32", "int64", "uint64"])
def test_floats_are_taken_for_whole_numbers_only_where_each_is_one_that_fits(dtype: str):
    wanted = signature(Column(name="x", dtype=dtype))
    found = parse([0.0, -0.0, 255.0], wanted)["x"]
    assert found.tolist() == [0, 0, 255] and found.dtype == np.dtype(dtype)
    for wrong in (0.5, -1.5, 2.0**64, -(2.0**63) * 2, 1e300):
        with pytest.raises(RequestError):
            parse([1.0, wrong], wanted)
    assert wanted.inputs[0].dtype.startswith("int") == (parse_or_none([-1.0], wanted) == [-1])


def parse_or_none(instances: Any, wanted: Signature) -> list[Any] | None:
    try:
        return parse(instances, wanted)["x"].tolist()
    except RequestError:
        return None


def test_large_integers_stay_exact():
    wanted = signature(Column(name="x", dtype="uint64"))
    assert parse([2**64 - 1, 1, 2.0], wanted)["x"].tolist() == [2**64 - 1, 1, 2]
    wanted = signature(Column(name="x", dtype="int64"))
    assert parse([2**53 + 1, 1.0], wanted)["x"].tolist() == [2**53 + 1, 1]


def test_huge_but_finite_float64_is_taken():
    assert parse([1e300, -1e308], signature(Column(name="x", dtype="float64")))["x"].tolist() == [1e300, -1e308]


@pytest.mark.parametrize(
    ("instances", "wanted", "words"),
    [
        ({"x": 1}, ONE, "'instances' must be a list of rows; found an object"),
        ([], ONE, "at least one"),
        ([1, "2"], ONE, "row 1, field 'x': found '2' (string); expected a number"),
        ([1.5, True], ONE, "row 1, field 'x': found True (boolean); expected a number"),
        ([None], ONE, "row 0, field 'x': found null"),
        ([1e39], ONE, "does not fit float32"),
        ([[1]], ONE, "row 0, field 'x': found a list of 1; expected a number"),
        ([{"x": {"y": 1}}], ONE, "found an object; expected a number"),
        ([[[1, 2, 3]]], IMAGE, "row 0, field 'image': found a list of 1; expected 2 values"),
        ([[[1, 2, 3], [4, 5]]], IMAGE, "field 'image'[1]: found a list of 2; expected 3 values"),
        ([[[1, 2, 3], [4, 5, 256]]], IMAGE, "field 'image'[1][2]: 256 is out of range; uint8 holds 0 to 255"),
        ([[[1, 2, 3], [4, 5, 0.5]]], IMAGE, "field 'image'[1][2]: found 0.5 (number); expected an integer (uint8)"),
        ([[[1, 2, 3], [4, 5, -1]]], IMAGE, "-1 is out of range"),
        ([[[1, 2, 3], [4, 5, 1e30]]], IMAGE, "out of range"),
        ([5], IMAGE, "found 5 (integer); expected <uint8 list of shape [2, 3]>"),
        (["abc"], IMAGE, "found 'abc' (string)"),
        ([PERSON, {**PERSON, "age": "40"}], TABLE, "row 1, field 'age': found '40' (string)"),
        ([{**PERSON, "age": None}], TABLE, "field 'age': found null"),
        ([{**PERSON, "member": 1}], TABLE, "found 1 (integer); expected true or false"),
        ([{**PERSON, "city": 7}], TABLE, "found 7 (integer); expected a string"),
        ([{"age": 1}], TABLE, "row 0: field 'income' is missing"),
        ([{**PERSON, "agee": 1}], STRICT, "row 0: unknown field 'agee'"),
        ([[1, 2.0]], TABLE, "row 0: found 2 values; expected 4 (age, income, city, member)"),
        ([PERSON, 7], TABLE, "row 1: found integer; expected an object"),
    ],
)
def test_wrong_row_is_400_and_the_message_names_row_field_found_and_expected(
    instances: Any, wanted: Signature, words: str
):
    with pytest.raises(RequestError) as raised:
        parse(instances, wanted)
    assert raised.value.status == 400
    assert words in raised.value.message
    assert raised.value.hint


def test_misspelt_field_gets_the_right_name():
    with pytest.raises(RequestError, match="did you mean 'income'"):
        parse([{**PERSON, "incom": 1}], STRICT)


def test_more_rows_than_allowed_is_413():
    with pytest.raises(RequestError) as raised:
        parse([1] * 11, ONE, max_rows=10)
    assert raised.value.status == 413


def test_what_a_client_sent_is_shortened_and_made_printable_in_the_message():
    with pytest.raises(RequestError) as raised:
        parse(["\n\x1b[31m" + "x" * 10_000], ONE)
    assert len(raised.value.message) < 200 and "\x1b" not in raised.value.message


def values_of(dtype: str) -> st.SearchStrategy[Any]:
    if dtype == "string":
        return st.text(max_size=5)
    if dtype == "bool":
        return st.booleans()
    if dtype.startswith("float"):
        return st.floats(allow_nan=False, allow_infinity=False, width=32) | st.integers(-(2**40), 2**40)
    limits = np.iinfo(dtype)
    return st.integers(int(limits.min), int(limits.max))


@st.composite
def requests(draw: st.DrawFn) -> tuple[Column, list[Any]]:
    column = Column(
        name="x",
        dtype=draw(st.sampled_from(DTYPES)),
        shape=draw(st.sampled_from([(), (1,), (3,), (2, 2)])),
        nullable=draw(st.booleans()),
    )
    value = values_of(column.dtype)
    if column.nullable:
        value = value | st.none()
    for size in reversed(column.shape):
        value = st.lists(value, min_size=size, max_size=size)
    return column, draw(st.lists(value, min_size=1, max_size=4))


@settings(max_examples=examples(200))
@given(requests())
def test_every_legal_request_gives_its_values_whichever_way_they_are_read(request: tuple[Column, list[Any]]):
    column, instances = request
    found = parse([{"x": value} for value in instances], signature(column))["x"]
    exact = ColumnReader(column)._exact(orjson.loads(json.dumps(instances)), 0)
    assert found.dtype == exact.dtype and found.shape == exact.shape == (len(instances), *column.shape)
    for value, one, other in zip(flat(instances), found.reshape(-1).tolist(), exact.reshape(-1).tolist(), strict=True):
        missing = value is None
        assert same(one, other) and same(one, (None if column.dtype == "string" else math.nan) if missing else value)


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["x", "y"]), inner, max_size=2),
    max_leaves=12,
)


@settings(max_examples=examples(200))
@given(JSON, st.sampled_from(DTYPES), st.sampled_from([(), (2,), (1, 2)]), st.booleans())
def test_anything_else_is_an_array_of_the_right_shape_or_a_request_error(
    instances: Any, dtype: str, shape: tuple[int, ...], nullable: bool
):
    column = Column(name="x", dtype=dtype, shape=shape, nullable=nullable)
    try:
        found = columns_of(orjson.loads(json.dumps(instances)), signature(column), max_rows=10)["x"]
    except RequestError:  # one of the two outcomes
        return
    assert found.shape == (len(instances), *shape)
    assert found.dtype == (object if dtype == "string" else np.float64 if nullable else np.dtype(dtype))


def flat(values: Any) -> list[Any]:
    return [leaf for value in values for leaf in flat(value)] if isinstance(values, list) else [values]


def same(one: Any, other: Any) -> bool:
    if isinstance(one, float) and isinstance(other, float) and math.isnan(one):
        return math.isnan(other)
    return bool(one == other) or (isinstance(one, float) and one == np.float32(other))


CSV = Reading(format="csv", settings={"null_values": ["", "NA"], "delimiter": ";"})


def test_text_that_meant_no_value_in_training_is_missing_in_a_request():
    inputs = (Column(name="city", dtype="string", nullable=True), Column(name="age", dtype="float64", nullable=True))
    learned = Signature(inputs=inputs, task="regression", target="y", reading=CSV)
    rows = [{"city": "", "age": "NA"}, {"city": "Bonn", "age": 3}, {"city": None, "age": ""}, {"city": " ", "age": 1}]
    found = columns_of(rows, learned, max_rows=9)
    assert found["city"].tolist() == [None, "Bonn", None, " "]
    np.testing.assert_array_equal(found["age"], [np.nan, 3, np.nan, 1])
    other = columns_of([{"city": "", "age": 1}], learned.model_copy(update={"reading": None}), max_rows=9)
    assert other["city"].tolist() == [""]


def test_text_that_meant_no_value_is_refused_where_a_value_is_required():
    learned = Signature(inputs=(Column(name="city", dtype="string"),), task="regression", target="y", reading=CSV)
    with pytest.raises(RequestError, match="row 1, field 'city': found '', which meant 'no value'"):
        columns_of([{"city": "Bonn"}, {"city": ""}], learned, max_rows=9)


@pytest.mark.parametrize("value", ["", " "])
def test_nothing_and_blanks_are_told_apart(value):
    with pytest.raises(RequestError, match=f"field 'x': found '{value}' \\(string\\)"):
        columns_of([{"x": value}], ONE, max_rows=9)


# --- fields in objects, and lists of texts ---------------------------------------------------------------------------

NESTED = signature(
    Column(name="user.age", dtype="int64"),
    Column(name="user.home.city", dtype="string", nullable=True),
    Column(name="tags", dtype="string", is_list=True),
)
LIKE_FILES = [
    {"user.age": 3, "user.home.city": "Bonn", "tags": ["b", "a"]},
    {"user": {"age": 3, "home": {"city": "Bonn"}}, "tags": ["b", "a"]},
    {"user": {"age": 3, "home.city": "Bonn", "more": 1}, "tags": ["b", "a"], "more": {"x": 1}},
    {"user": {"age": 3}, "user.home": {"city": "Bonn"}, "tags": ["b", "a"]},
]


@pytest.mark.parametrize("row", LIKE_FILES)
def test_fields_in_objects_and_by_dotted_names_are_read_alike(row):
    found = parse([row, row], NESTED)
    assert found["user.age"].tolist() == [3, 3] and found["user.home.city"].tolist() == ["Bonn", "Bonn"]
    assert found["tags"].tolist() == ['["b","a"]'] * 2
    by_column = {name: [value] for name, value in LIKE_FILES[0].items()}
    assert Checker(NESTED, 9).columns(by_column)["user.age"].tolist() == [3]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"user": {"age": 3}, "user.age": 3}, "row 0: field 'user.age' is given twice"),
        ({"user": {"home": None}}, "row 0: field 'user.age' is missing"),
        ({"user": None}, "row 0, field 'user.age': found null"),
        ({"user": 5}, "row 0: field 'user.age' is missing"),
        ({"user.age": 3, "user.home": None, "tags": "a"}, "row 0, field 'tags': found 'a' (string); expected a list"),
        ({"user.age": 3, "user.home": None, "tags": ["a", 1]}, "field 'tags': found a list of 2; expected a list of s"),
        ({"user.age": 3, "user.home": None, "tags": None}, "row 0, field 'tags': found null"),
    ],
)
def test_fields_in_objects_that_do_not_fit_are_refused_by_their_dotted_name(changed, message):
    with pytest.raises(RequestError, match=re.escape(message)):
        parse([{"tags": ["a"], **changed}], NESTED)


def test_lists_of_texts_come_as_json_where_a_protocol_has_no_lists():
    reader = ColumnReader(NESTED.inputs[2])
    assert reader.read_array(np.array(['["b", "a"]', "[]"], object)).tolist() == ['["b","a"]', "[]"]
    with pytest.raises(RequestError, match=re.escape("row 1, field 'tags': found 'b' (string)")):
        reader.read_array(np.array(["[]", "b"], object))
