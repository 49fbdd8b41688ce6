"""A column that nobody asks for stops nothing, whatever it holds; one that is needed is refused by what is wrong."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raypipe.data.checks.schema import schema_of, types_of
from raypipe.data.formats.datasource import read_group
from raypipe.data.masking import UNMASKED, Masking, MaskKeys
from raypipe.data.table.marks import left_out
from raypipe.errors import DataError
from raypipe.spec.data import DataSpec
from raypipe.spec.masking import MaskSpec
from tests.unit.data.helpers import reader, sized_file

OBJECTS = pa.array([[{"x": 1}], [{"x": 2}], [{"x": 3}]])
TABLE = pa.table({"a": [1, 2, 3], "meta": OBJECTS, "tags": [[["u"]], [], [["v"]]], "y": [0, 1, 0]})


def write(folder, form):
    path = folder / f"f.{form}"
    if form == "parquet":
        pq.write_table(TABLE, path)
    elif form == "arrow":
        with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, TABLE.schema) as writer:
            writer.write_table(TABLE)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in TABLE.to_pylist()))
    return sized_file(path)


def spec(**fields):
    return DataSpec.model_validate({"source": {"format": "csv", "path": "f.csv"}, "target": "y", **fields})


def read(file, form, columns=None, masking=UNMASKED, **fields):
    read_file = reader(form, columns=columns, **fields)
    (table,) = read_group([file], read_file, columns, (), masking, is_judged=True)
    return table


def schema(table, **fields):
    return schema_of(spec(**fields), [types_of(table)])


@pytest.mark.parametrize("form", ["parquet", "arrow", "jsonl"])
def test_columns_of_types_that_cannot_be_read_stop_nothing_when_the_features_are_others(tmp_path, form):
    table = read(write(tmp_path, form), form)
    assert table.column_names == ["a", "y"] and set(left_out(table.schema)) == {"meta", "tags"}
    assert schema(table, features=["a"]).features == ("a",)
    with pytest.raises(DataError, match=rf"(?s)f\.{form}: column 'meta' has type list.*column 'tags' has type list"):
        schema(table)
    with pytest.raises(DataError, match=r"column 'meta' has type list") as caught:
        schema(table, features=["a", "meta"])
    assert "is not there" not in str(caught.value)
    with pytest.raises(DataError, match="column 'tags' has type list"):
        schema(table, features=["a"], expectations=[{"kind": "not_null", "columns": ["tags"]}])


@pytest.mark.parametrize("form", ["parquet", "arrow"])
def test_columns_that_are_asked_for_and_cannot_be_read_are_refused_where_they_are_read(tmp_path, form):
    file = write(tmp_path, form)
    with pytest.raises(DataError, match="column 'meta' has type list"):
        read(file, form, columns=["a", "meta"])
    assert read(file, form, columns=["a", "y"]).column_names == ["a", "y"]
    with pytest.raises(DataError, match="column 'meta' has type list"):
        list(reader(form, where=[{"column": "meta", "op": "not_null"}])(file))


@pytest.mark.parametrize("form", ["parquet", "arrow", "jsonl"])
def test_batch_inference_leaves_no_column_out_unasked(tmp_path, form):
    with pytest.raises(DataError, match=r"(?s)column 'meta' has type list.*column 'tags'.*data\.source\.columns"):
        list(read_group([write(tmp_path, form)], reader(form), None))


def test_masked_column_that_cannot_be_read_is_told_as_that(tmp_path):
    masking = Masking([MaskSpec(columns=["meta"], method="drop")], MaskKeys({}))
    with pytest.raises(DataError, match="column 'meta' has type list"):
        read(write(tmp_path, "parquet"), "parquet", masking=masking)


def test_column_that_one_file_alone_cannot_give_counts_for_no_row(tmp_path):
    readable = pa.table({"a": [4, 5, 6], "meta": ["p", "q", "r"], "y": [1, 0, 1]})
    pq.write_table(readable, tmp_path / "g.parquet")
    tables = [read(sized_file(tmp_path / "g.parquet"), "parquet"), read(write(tmp_path, "parquet"), "parquet")]
    made = schema_of(spec(features=["a"]), [types_of(table) for table in tables])
    assert set(made.columns) == {"a", "y"} and not made.others


def test_columns_of_the_same_name_stop_nothing_when_others_are_named(tmp_path):
    pq.write_table(
        pa.Table.from_arrays([pa.array([1, 2]), pa.array([0, 1]), pa.array([5, 6])], ["a", "y", "a"]),
        tmp_path / "f.parquet",
    )
    (tmp_path / "f.csv").write_text("b,a,y,a,__bad\n7,1,0,5,u\n8,2,1,6,v\n")
    for form, feature in (("parquet", "y"), ("csv", "b")):
        file = sized_file(tmp_path / f"f.{form}")
        table = read(file, form)
        assert "a" not in table.column_names and left_out(table.schema)["a"] == "is there twice"
        assert read(file, form, columns=[feature]).column_names == [feature]
        with pytest.raises(DataError, match="column 'a' is there twice"):
            schema(table)
        with pytest.raises(DataError, match="column 'a' is there twice"):
            read(file, form, columns=["a"])
    with pytest.raises(DataError, match="column '__bad' is a name that raypipe uses itself"):
        schema(read(sized_file(tmp_path / "f.csv"), "csv"))
    assert schema(read(sized_file(tmp_path / "f.csv"), "csv"), features=["b"]).features == ("b",)


# --- cells of a header that are empty --------------------------------------------------------------------------------


def test_empty_columns_that_a_spreadsheet_leaves_are_no_columns(tmp_path):
    (tmp_path / "f.csv").write_text("a,b,y,,\n1,2,0,,\n3,4,1,,\n")
    table = read(sized_file(tmp_path / "f.csv"), "csv")
    assert table.to_pydict() == {"a": [1, 3], "b": [2, 4], "y": [0, 1]} and not left_out(table.schema)
    assert schema(table).features == ("a", "b")


def test_columns_without_a_name_that_hold_values_stop_only_who_takes_every_column(tmp_path):
    (tmp_path / "f.csv").write_text("a,y,,\n1,0,,\n3,1,,x\n")
    file = sized_file(tmp_path / "f.csv")
    table = read(file, "csv")
    assert table.column_names == ["a", "y"]
    with pytest.raises(DataError, match=r"f\.csv: column '' is the name of several columns that hold values"):
        schema(table)
    assert schema(table, features=["a"]).features == ("a",)
    assert read(file, "csv", columns=["a", "y"]).to_pydict() == {"a": [1, 3], "y": [0, 1]}


def test_rows_that_are_no_utf8_beside_columns_without_a_name_are_marked(tmp_path):
    (tmp_path / "f.csv").write_bytes(b"a,y,,\n1,0,,\n\xff,1,,\n")
    table = read(sized_file(tmp_path / "f.csv"), "csv")
    assert table["y"].to_pylist() == [0, 1] and table["__bad"].null_count == 1


def test_array_that_an_archive_holds_twice_stops_nothing_when_others_are_named(tmp_path):
    np.savez(tmp_path / "f.npz", a=np.arange(3), y=np.arange(3), __bad=np.arange(3))
    file = sized_file(tmp_path / "f.npz")
    (table,) = read_group([file], lambda part: _archive(part, ["a", "y"]), ["a", "y"], is_judged=True)
    assert table.column_names == ["a", "y"]
    with pytest.raises(DataError, match="'__bad' is a name that raypipe uses"):
        list(_archive(file, ["a", "__bad"]))


def _archive(part, columns):
    from raypipe.data.formats import numpy

    return numpy.read_archive(part, source=_numpy(columns))


def _numpy(columns):
    from raypipe.spec.sources import NumpySource

    return NumpySource(format="numpy", path="f.npz", columns=columns)
