from __future__ import annotations

import json
from typing import Any

import jsonschema
import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raypipe.data.transforms.taken import Taken
from raypipe.errors import RequestError
from raypipe.records import Column, DatasetVersion, Reading, Signature
from raypipe.serve import schemas
from raypipe.serve.app import ModelApp
from raypipe.serve.checker import Checker
from raypipe.serve.schemas import Notes
from raypipe.spec.transforms import CrossTransform, DatePartsTransform, ImputeTransform, OneHotTransform
from raypipe.storage.local import LocalFolder
from raypipe.testing.fakes import tiny_dataset
from raypipe.testing.served import ask, model_app, model_version
from tests.conftest import examples

NOTES = Notes(max_rows=3)
SIGNATURES = [
    Signature(inputs=inputs, task="regression", target="y", extra_columns=extra, reading=reading)
    for extra in ("ignore", "error")
    for reading in (None, Reading(format="csv", settings={"null_values": ["", "NA"]}))
    for inputs in (
        (Column(name="x", dtype="float32"),),
        (Column(name="x", dtype="uint8", shape=(2, 2)),),
        (Column(name="x", dtype="int64", nullable=True), Column(name="y", dtype="string", nullable=True)),
        (Column(name="x", dtype="bool"), Column(name="y", dtype="string")),
    )
]
LEAVES = st.sampled_from([None, True, False, 0, 1, 2.0, 2.5, -1, 256, 1e39, 2**64, "", "NA", "text"])
VALUES = st.recursive(LEAVES, lambda inner: st.lists(inner, max_size=4), max_leaves=6)
ROWS = st.one_of(
    VALUES,
    st.lists(LEAVES, min_size=4, max_size=4),
    st.dictionaries(st.sampled_from(["x", "y", "z"]), VALUES, max_size=3),
)


def is_valid(value: Any, schema: dict[str, Any]) -> bool:
    return jsonschema.Draft202012Validator(schema).is_valid(value)


def takes(read: Any, value: Any) -> bool:
    try:
        read(orjson.loads(json.dumps(value)))
    except RequestError:
        return False
    return True


@settings(max_examples=examples(400))
@given(st.sampled_from(SIGNATURES), st.lists(ROWS, max_size=4))
def test_rows_schema_holds_for_exactly_the_rows_that_are_read(signature: Signature, rows: list[Any]):
    schema = schemas.rows_schema(signature, NOTES)
    assert is_valid(rows, schema) == takes(Checker(signature, 3).rows, rows)


@settings(max_examples=examples(400))
@given(st.sampled_from(SIGNATURES), st.data())
def test_columns_schema_holds_for_exactly_the_columns_that_are_read(signature: Signature, data: st.DataObject):
    num_rows = data.draw(st.integers(0, 4))
    names = data.draw(st.sets(st.sampled_from(["x", "y", "z"])))
    columns = {name: data.draw(st.lists(VALUES, min_size=num_rows, max_size=num_rows)) for name in names}
    schema = schemas.columns_schema(signature, NOTES)
    assert is_valid(columns, schema) == takes(Checker(signature, 3).columns, columns)


@pytest.mark.parametrize("signature", SIGNATURES)
def test_example_row_fits_its_schema_and_is_read(signature: Signature):
    row = schemas.example_row(signature)
    assert is_valid(row, schemas.fields_schema(signature)) and is_valid(row, schemas.row_schema(signature))
    assert takes(Checker(signature, 3).rows, [row])


def test_known_categories_are_listed_and_the_first_is_the_example():
    signature = Signature(inputs=(Column(name="city", dtype="string", nullable=True),), task="regression", target="y")
    notes = Notes(taken={"city": Taken("Bonn", ("Bonn", "Rome"))})
    assert schemas.fields_schema(signature, notes)["properties"]["city"] == {"enum": ["Bonn", "Rome", None]}
    assert schemas.example_row(signature, notes) == {"city": "Bonn"}
    many = Notes(taken={"city": Taken("0", tuple(map(str, range(1000))))})
    assert is_valid("any", schemas.value_schema(signature.inputs[0], signature, many))


def test_example_of_a_replica_is_a_row_that_its_transforms_take(store: LocalFolder):
    words = np.array(["red", "blue", "green"] * 4, object)
    columns = {"color": words, "shape": words[::-1], "day": np.array(["2024-01-02"] * 12, object), "age": np.ones(12)}
    transforms = [
        ImputeTransform(kind="impute", columns=["color"], strategy="most_frequent"),
        OneHotTransform(kind="one_hot", columns=["color"]),
        DatePartsTransform(kind="date_parts", columns=["day"]),
        CrossTransform(kind="cross", columns=["shape", "age"], keep=False),
    ]
    dataset: DatasetVersion = tiny_dataset(store, columns, np.arange(12.0), task="regression", transforms=transforms)
    app = model_app(store, model_version(store, dataset))
    (route,) = [route for route in app.routes.all() if route.path == "/predict"]
    assert route.example["instances"][0]["color"] == "blue"
    assert ask(app, "POST", "/predict", json.dumps(route.example).encode()).status_code == 200
    color = app.served.notes.taken["color"]
    assert color.only == ("blue", "green", "red")


def test_answers_of_a_classifier_name_a_known_class(classifier: ModelApp):
    schema = schemas.answers_schema(classifier.signature)
    answer = ask(classifier, "POST", "/predict", json.dumps({"rows": [[[0] * 3] * 4]}).encode())
    rows = json.loads(bytes(answer.body))["predictions"]
    assert is_valid(rows, schema)
    assert not is_valid([{**rows[0], "label": "other"}], schema)


# --- fields in objects -----------------------------------------------------------------------------------------------

NESTED = Signature(
    inputs=(
        Column(name="user.age", dtype="int64"),
        Column(name="user.home.city", dtype="string"),
        Column(name="tags", dtype="string", is_list=True),
    ),
    task="regression",
    target="y",
    extra_columns="error",
)


@pytest.mark.parametrize("extra", ["ignore", "error"])
def test_schema_of_fields_in_objects_takes_both_ways_and_refuses_both_at_once(extra: Any):
    wanted = NESTED.model_copy(update={"extra_columns": extra})
    check = jsonschema.Draft202012Validator(schemas.fields_schema(wanted)).is_valid
    flat = {"user.age": 3, "user.home.city": "Bonn", "tags": ["a"]}
    nested = {"user": {"age": 3, "home": {"city": "Bonn"}}, "tags": []}
    assert check(flat) and check(nested)
    assert not check({**flat, **nested}) and not check({"user": {"age": 3}, "tags": []})
    assert not check({**flat, "tags": "a"}) and check({**nested, "other": 1}) == (extra == "ignore")


def test_a_row_stands_as_in_the_files():
    row = schemas.example_row(NESTED)
    assert row == {"user.age": 1, "user.home.city": "text", "tags": ["text"]}
    assert schemas.as_in_files(row, NESTED) == row
    of_json = NESTED.model_copy(update={"reading": Reading(format="jsonl")})
    assert schemas.as_in_files(row, of_json) == {"user": {"age": 1, "home": {"city": "text"}}, "tags": ["text"]}
