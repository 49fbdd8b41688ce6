"""The same row is treated the same way in training, in batch inference and in serving."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from raypipe.batch.rows import raw_columns
from raypipe.data.formats.datasource import read_group
from raypipe.data.shards import tensor_array, to_bytes, to_rows
from raypipe.data.table import text_lists
from raypipe.data.table.names import ROW_ID
from raypipe.data.table.normal_form import normalise
from raypipe.data.transforms import KINDS, FittedTransforms
from raypipe.errors import DataError, RequestError
from raypipe.records import Column, Signature
from raypipe.serve.checker import columns_of
from raypipe.spec.transforms import with_unknown
from raypipe.testing.contracts import TRANSFORM_COLUMNS, TransformContract
from raypipe.testing.fakes import fit_columns
from tests.unit.data.helpers import reader, sized_file
from tests.unit.data.transforms import transforms

ROWS = 10
"""Times the examples of a thorough look: a thousand rows through every example of every kind."""

NUMBER = st.floats(-99, 1e6)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=4) | st.sampled_from(["Bonn", "Köln", "Aachen"])
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "number": NUMBER,
    "number_gaps": NUMBER | st.none(),
    "amount": st.floats(0, 1e12),
    "count": st.integers(-(2**60), 2**60) | st.integers(-2, 3),
    "seconds": st.integers(-(10**10), 10**11),
    "flag": st.booleans(),
    "city": TEXT,
    "city_gaps": TEXT | st.none(),
    "day": st.datetimes(datetime(1, 1, 1)).map(datetime.isoformat) | st.dates().map(str),
    "vector": st.tuples(*[st.floats(-1e9, 1e9, width=32)] * 3).map(list),
    "image": st.binary(min_size=20, max_size=20).map(lambda data: np.frombuffer(data, np.uint8).reshape(4, 5).tolist()),
    "text": st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
    | st.text(list("the cat,_1 é日"), max_size=30),
    "tags": st.lists(TEXT | st.sampled_from(["red", "new"]), max_size=4),
    "photo": st.binary(min_size=90, max_size=90).map(
        lambda data: np.frombuffer(data, np.uint8).reshape(6, 5, 3).tolist()
    ),
    "audio": st.binary(min_size=200, max_size=200).map(lambda data: (np.frombuffer(data, np.int8) / 128).tolist()),
}
"""A value of each column of the contract, as JSON gives it; a column that is not here takes those of the contract."""

Row = dict[str, Any]


def prepared(kind: str, fields: dict[str, Any]) -> tuple[Signature, FittedTransforms]:
    """The example of a kind, fitted on the rows of the contract, with its gaps filled before."""
    names = fields["columns"]
    inputs = tuple(Column(name=name, **TRANSFORM_COLUMNS[name][0]) for name in names)
    gaps = [c for c in inputs if c.nullable and not KINDS[kind].fills]
    fills = [{"kind": "impute", "columns": [c.name], "strategy": "most_frequent"} for c in gaps]
    specs = transforms(*fills, with_unknown({"kind": kind, **fields}, "ignore"))
    fitted = fit_columns(specs, inputs, [{name: TRANSFORM_COLUMNS[name][1] for name in names}])
    state = json.loads(json.dumps(fitted.state()))
    return Signature(inputs=inputs, task="regression", target="y"), FittedTransforms.from_state(state)


def stored_columns(rows: list[Row], signature: Signature) -> dict[str, np.ndarray]:
    """Through a shard, as training reads it."""
    table = pa.table(
        {
            ROW_ID: np.arange(len(rows), dtype=np.uint64),
            **{c.name: _stored([row[c.name] for row in rows], c) for c in signature.inputs},
            "y": np.zeros(len(rows)),
        }
    )
    return to_rows([pa.ipc.open_file(to_bytes(table)).read_all()], signature).columns


def _stored(values: list[Any], column: Column) -> Any:
    if column.is_list:
        return text_lists.as_text(pa.array(values, pa.list_(pa.string())))
    if column.dtype == "string":
        return pa.array(values, pa.string())
    array = np.array(values, "float64" if column.nullable else column.dtype)
    if array.dtype.kind == "f":
        array += 0.0  # files are read so: no shard holds -0.0
    return tensor_array(array) if column.shape else pa.array(array)


def batch_columns(rows: list[Row], signature: Signature) -> dict[str, np.ndarray]:
    """Through a file's columns, as batch inference reads them."""
    table = pa.table({c.name: pa.array([row[c.name] for row in rows]) for c in signature.inputs})
    return raw_columns(normalise(table, "file"), signature)


def request_columns(rows: list[Row], signature: Signature) -> dict[str, np.ndarray]:
    """Through JSON, as an endpoint reads it."""
    return columns_of(orjson.loads(orjson.dumps({"instances": rows}))["instances"], signature, max_rows=len(rows))


CASES = [
    (kind, number) for kind, examples in TransformContract.usable_examples().items() for number in range(len(examples))
]
FAMILIES = {
    "numbers": {"number", "number_gaps", "amount", "count", "seconds", "vector", "image"},
    "words": {"city", "count", "flag", "text", "tags", "day"},
    "media": {"image", "photo", "planes", "audio"},
}
"""Columns that are drawn together: drawing a value takes longer than any transform of it."""


def family(case: tuple[str, int]) -> str:
    names = {column.name for column in PREPARED[case][0].inputs}
    return next(family for family, columns in FAMILIES.items() if names <= columns)


@pytest.mark.parametrize("name", FAMILIES)
@settings(suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_row_is_the_same_to_the_bit_on_every_path(name: str, data: st.DataObject):
    cases = [case for case in CASES if family(case) == name]
    columns = {column.name: column for case in cases for column in PREPARED[case][0].inputs}
    row = st.fixed_dictionaries({name: _values(column) for name, column in columns.items()})
    drawn = data.draw(st.lists(row, min_size=ROWS, max_size=ROWS))
    paths = (stored_columns, batch_columns, request_columns)
    for case in cases:
        signature, fitted = PREPARED[case]
        rows = [{column.name: row[column.name] for column in signature.inputs} for row in drawn]
        trained, batch, online = (fitted.apply(path(rows, signature), signature.inputs) for path in paths)
        assert trained.dtype == batch.dtype == online.dtype == np.float32 and len(trained) == ROWS, case
        assert trained.tobytes() == batch.tobytes() == online.tobytes(), case


def _values(column: Column) -> st.SearchStrategy[Any]:
    if column.name in VALUES:
        return VALUES[column.name]
    return st.sampled_from(TRANSFORM_COLUMNS[column.name][1].tolist())


PREPARED = {(kind, number): prepared(kind, TransformContract.examples[kind][number]) for kind, number in CASES}


TABLE = Signature(
    inputs=(Column(name="age", dtype="int64"), Column(name="income", dtype="float64", nullable=True)),
    task="regression",
    target="y",
)
PERSON = {"age": 40, "income": None}


def both(rows: list[Row], signature: Signature) -> list[Any]:
    """What batch inference and an endpoint make of the same rows: columns, or the error."""
    table = normalise(pa.Table.from_pylist(rows), "file")
    found: list[Any] = []
    for read in (lambda: raw_columns(table, signature), lambda: columns_of(rows, signature, max_rows=9)):
        try:
            found.append(read())
        except (DataError, RequestError) as error:
            found.append(error)
    return found


def test_extra_column_is_left_out_or_refused_by_name_on_both_paths():
    rows = [{**PERSON, "shoes": 44}]
    for found in both(rows, TABLE):
        assert list(found) == ["age", "income"] and found["age"].tolist() == [40]
    for found in both(rows, TABLE.model_copy(update={"extra_columns": "error"})):
        assert "'shoes'" in str(found)


@pytest.mark.parametrize("name", ["age", "income"])
def test_column_that_is_not_given_is_refused_by_name_on_both_paths_even_if_it_may_be_missing(name: str):
    for policy in ("ignore", "error"):
        signature = TABLE.model_copy(update={"extra_columns": policy})
        for found in both([{key: value for key, value in PERSON.items() if key != name}], signature):
            assert f"'{name}'" in str(found)


def test_fields_in_objects_are_the_same_on_both_paths(tmp_path: Path):
    signature = Signature(
        inputs=(Column(name="user.age", dtype="int64"), Column(name="user.tags", dtype="string", is_list=True)),
        task="regression",
        target="y",
    )
    rows = [{"user": {"age": 40, "tags": ["b", "a"]}}, {"user.age": 41, "user": {"tags": []}}]
    (tmp_path / "f.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (table,) = read_group([sized_file(tmp_path / "f.jsonl")], reader("jsonl"), None)
    batch, online = raw_columns(table, signature), columns_of(rows, signature, max_rows=9)
    assert batch["user.age"].tolist() == online["user.age"].tolist() == [40, 41]
    assert batch["user.tags"].to_pylist() == online["user.tags"].tolist() == ['["b","a"]', "[]"]


def test_null_is_refused_on_both_paths_unless_a_transform_imputes_it():
    for found in both([PERSON], TABLE):
        assert np.isnan(found["income"]).all()
    for found in both([{"age": None, "income": 1.0}], TABLE):
        assert "'age'" in str(found)
