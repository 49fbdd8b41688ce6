"""Fields within fields, and lists of texts: columns by dotted names, read alike from every format that has them."""

from __future__ import annotations

import datetime
import json
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raypipe.data.checks.schema import schema_of, types_of
from raypipe.data.formats import jsonl, lines
from raypipe.data.formats.datasource import read_group
from raypipe.data.shuffle.read_all import as_read, refuse_absent
from raypipe.data.table import text_lists
from raypipe.data.table.marks import BAD, left_out, refuse_bad
from raypipe.errors import DataError
from raypipe.spec.data import DataSpec
from tests.conftest import examples
from tests.unit.data.helpers import check, reader, sized_file

USERS = [
    {"user": {"age": 3, "home": {"city": "Bonn"}, "tags": ["a", "b"]}, "size": [1.0, 2.0], "y": 0},
    {"user": {"age": 4, "home": None, "tags": []}, "size": [3.0, 4.0], "y": 1},
]
FLAT = {
    "user.age": [3, 4],
    "user.home.city": ["Bonn", None],
    "user.tags": [["a", "b"], []],
    "size": [[1.0, 2.0], [3.0, 4.0]],
    "y": [0, 1],
}


def written(rows, path):
    table = None if path.suffix == ".jsonl" else pa.Table.from_pylist(rows)
    if path.suffix == ".parquet":
        pq.write_table(table, path)
    elif table is not None:
        pyarrow.feather.write_feather(table, str(path))
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return sized_file(path)


def read(file, form, columns=None, **fields):
    (table,) = read_group([file], reader(form, columns=columns, **fields), columns, is_judged=True)
    return table


def spec(form="jsonl", **fields):
    source = {"format": form, "path": "f", **fields.pop("source", {})}
    return DataSpec.model_validate({"source": source, "target": "y", **fields})


def read_as(data, file):
    """As preparing reads it: what the spec names is known."""
    source = as_read(data.source, data)
    (table,) = read_group(
        [file], lambda part: jsonl.read_file(part, source=source, is_judged=True), None, is_judged=True
    )
    return table


FORMS = ["parquet", "arrow", "jsonl"]


@pytest.mark.parametrize("form", FORMS)
def test_fields_within_fields_are_columns_by_dotted_names_in_every_format(tmp_path, form):
    file = written(USERS, tmp_path / f"f.{form}")
    assert read(file, form).to_pydict() == FLAT
    assert read(file, form, columns=["y", "user.age"]).to_pydict() == {"y": [0, 1], "user.age": [3, 4]}
    older = [{"column": "user.age", "op": ">", "value": 3}]
    (table,) = read_group(
        [file], reader(form, columns=["y"], where=older), ["y"], spec(source={"where": older}).source.where
    )
    assert table.to_pydict() == {"y": [1]}
    with pytest.raises(DataError, match=r"column 'user' is no value but has fields: \['user.age'"):
        list(read_group([file], reader(form, columns=["user"]), ["user"]))


def test_field_that_stands_by_its_dotted_name_is_the_same_column(tmp_path):
    rows = [{"user": {"age": 3}, "y": 0}, {"user.age": 4, "y": 1}, {"user.age": 5, "user": {"age": 6}, "y": 1}]
    table = read(written(rows, tmp_path / "f.jsonl"), "jsonl")
    assert table["user.age"].to_pylist()[:2] == [3, 4]
    assert table[BAD].to_pylist() == [None, None, "f.jsonl: the row names the field 'user.age' twice"]


def test_declared_types_and_dates_reach_fields_within_fields(tmp_path):
    rows = [{"user": {"age": 3, "born": "2024-01-31"}, "days": ["2024-01-31"]}, {"user": {"age": 4}, "days": []}]
    table = read(written(rows, tmp_path / "f.jsonl"), "jsonl", dtypes={"user.age": "float32"})
    assert table.schema.field("user.age").type == pa.float32()
    assert table["user.born"].to_pylist() == ["2024-01-31", None] and table["days"].to_pylist() == [["2024-01-31"], []]


ODD = [
    {"user": {"age": 3, "note": "x"}, "extra": {"k": 1}, "y": 0},
    {"user": {"age": 4, "note": ["x"]}, "extra": "none", "y": 1},
    {"user": {"age": 5, "note": "z"}, "extra": {"k": 2}, "y": 1},
]


def test_field_that_is_sometimes_a_list_is_refused_with_row_and_cause_where_it_is_needed(tmp_path):
    file = written(ODD, tmp_path / "f.jsonl")
    data = spec(features=["user.age", "user.note"])
    table = read_as(data, file)
    assert left_out(table.schema) == {"extra": "holds a object in some rows and a text in others"}
    _, bad = check(table, schema_of(data, [types_of(table)]))
    assert bad.kept[0]["position"] == 1
    assert "'user.note' is [\"x\"], where most rows hold a text" in bad.kept[0]["reason"]


def test_odd_fields_that_nothing_names_stop_nothing(tmp_path, monkeypatch):
    data = spec(features=["user.age"])
    table = read_as(data, written(ODD * 3, tmp_path / "f.jsonl"))
    assert BAD not in table.column_names and table["user.age"].to_pylist() == [3, 4, 5] * 3
    values, bad = check(table, schema_of(data, [types_of(table)]))
    assert values["user.age"].tolist() == [3, 4, 5] * 3 and not bad.num_rows
    with pytest.raises(DataError, match="row holds a wrong value"):
        refuse_bad(read_as(spec(), written(ODD, tmp_path / "g.jsonl")))


def test_chunks_after_an_odd_field_are_read_without_it(tmp_path, monkeypatch):
    monkeypatch.setattr(lines, "CHUNK_BYTES", 150)
    rows = [*ODD, *({"user": {"age": 6.5 if i == 5 else i, "note": "n"}, "extra": [i], "y": 0} for i in range(8))]
    table = read_as(spec(features=["user.age"]), written(rows, tmp_path / "f.jsonl"))
    assert table["user.age"].to_pylist() == [3, 4, 5, 0, 1, 2, 3, 4, 6.5, 6, 7]


def test_maps_are_their_keys(tmp_path):
    maps = pa.array([[("color", "red"), ("size", "L")], None, [("color", "blue")]], pa.map_(pa.string(), pa.string()))
    odd = pa.array([[("a", b"x")]] * 3, pa.map_(pa.string(), pa.binary()))
    pq.write_table(pa.table({"m": maps, "odd": odd, "y": [0, 1, 0]}), tmp_path / "f.parquet")
    file = sized_file(tmp_path / "f.parquet")
    table = read(file, "parquet")
    assert table.to_pydict() == {"m.color": ["red", None, "blue"], "m.size": ["L", None, None], "y": [0, 1, 0]}
    assert set(left_out(table.schema)) == {"odd"}
    assert read(file, "parquet", columns=["m.size"]).to_pydict() == {"m.size": ["L", None, None]}
    table = read(file, "parquet", columns=["m.weight"])
    with pytest.raises(DataError, match=r"'m\.weight' is not there"):
        refuse_absent([types_of(table)], "source", spec())
    twice = pa.array([[("color", "red"), ("color", "blue")]], pa.map_(pa.string(), pa.string()))
    pq.write_table(pa.table({"m": twice}), tmp_path / "g.parquet")
    with pytest.raises(DataError, match="a row of 'm' has the key 'color' twice"):
        read(sized_file(tmp_path / "g.parquet"), "parquet")


def test_each_of_several_maps_becomes_its_keys(tmp_path):
    of_text = pa.map_(pa.string(), pa.int64())
    maps = {name: pa.array([[("x", 1), ("y", 2)], [("y", 3)]], of_text) for name in ("m", "n")}
    pq.write_table(pa.table({**maps, "z": [0, 1]}), tmp_path / "f.parquet")
    file = sized_file(tmp_path / "f.parquet")
    keys = {f"{name}.{key}": values for name in maps for key, values in (("x", [1, None]), ("y", [2, 3]))}
    assert read(file, "parquet").to_pydict() == {**keys, "z": [0, 1]}
    assert read(file, "parquet", columns=["m.x", "n.y"]).to_pydict() == {"m.x": [1, None], "n.y": [2, 3]}


TYPED = {
    "cents": (pa.array([Decimal("1.25"), None], pa.decimal128(10, 2)), [1.25, None]),
    "id": (pa.array([Decimal(2**53 + 1), None], pa.decimal128(18, 0)), [2**53 + 1, None]),
    "took": (pa.array([1500, None], pa.duration("ms")), [1.5, None]),
    "zoned": (
        pa.array([datetime.datetime(2024, 7, 1, 12, tzinfo=datetime.timezone.utc), None], pa.timestamp("us", "UTC")),
        ["2024-07-01 12:00:00.000000Z", None],
    ),
    "clock": (pa.array([datetime.time(12, 30), None], pa.time64("us")), ["12:30:00.000000", None]),
    "kind": (pa.array(["u", None]).dictionary_encode(), ["u", None]),
    "code": (pa.array([7, None]).dictionary_encode(), [7, None]),
    "nothing": (pa.nulls(2), [None, None]),
    "nan": (pa.array([float("nan"), 1.0]), [float("nan"), 1.0]),
    "half": (pa.array(np.array([0.5, 2.0], np.float16)), [0.5, 2.0]),
    "texts": (pa.array([["u"], None], pa.large_list(pa.large_string())), [["u"], None]),
}
EXOTIC = {
    "blob": pa.array([b"x", None]),
    "gap": pa.array([pa.MonthDayNano([1, 2, 3]), None]),
    "objects": pa.array([[{"a": 1}], None]),
    "deep": pa.array([[["u"]], None]),
}


@pytest.mark.parametrize("form", ["parquet", "arrow"])
def test_columns_of_every_usual_type_are_read_and_exotic_ones_stop_nothing(tmp_path, form):
    exotic = {name: array for name, array in EXOTIC.items() if not (form == "parquet" and name == "gap")}
    inner = pa.StructArray.from_arrays(list(exotic.values()), list(exotic))
    table = pa.table({**{name: array for name, (array, _) in TYPED.items()}, **exotic, "within": inner})
    path = tmp_path / f"f.{form}"
    pq.write_table(table, path) if form == "parquet" else pyarrow.feather.write_feather(table, str(path))
    found = read(sized_file(path), form)
    expected = {name: values for name, (_, values) in TYPED.items()}
    assert str(found.to_pydict()) == str(expected)
    assert set(left_out(found.schema)) == {*exotic, *(f"within.{name}" for name in exotic)}


@settings(max_examples=examples(40))
@given(st.lists(st.none() | st.lists(st.none() | st.text(max_size=4), max_size=3), max_size=6))
def test_lists_of_texts_are_kept_as_json_and_come_back(lists):
    kept = text_lists.as_text(pa.array(lists, pa.list_(pa.string())))
    whole = [None if each is None or None in each else each for each in lists]
    assert kept.to_pylist() == [None if each is None else text_lists.written(each) for each in whole]
    for few in (0, 1000):
        text_lists.FEW, before = few, text_lists.FEW
        assert text_lists.as_lists(kept).to_pylist() == whole
        text_lists.FEW = before


def test_list_of_texts_is_a_column_of_its_own_kind_and_gaps_in_it_are_bad(tmp_path):
    rows = [{"tags": ["b", "a"], "y": 0}, {"tags": [], "y": 1}, {"tags": ["a", None], "y": 1}, {"tags": None, "y": 1}]
    table = read(written(rows, tmp_path / "f.jsonl"), "jsonl")
    schema = schema_of(spec(), [types_of(table)])
    assert schema.columns["tags"].is_list and schema.columns["tags"].dtype == "string"
    values, bad = check(table, schema)
    assert pa.array(values["tags"]).to_pylist() == ['["b","a"]', "[]"]
    assert bad.reasons == {"'tags' is missing, or has gaps": 2}
    with pytest.raises(DataError, match="the target 'tags' holds lists of texts"):
        schema_of(spec(target="tags"), [types_of(table)])
