"""One row in a hundred is wrong in every way text files can be: exactly those rows come out as bad, in their places."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pytest

from raypipe.data.checks.schema import schema_of, types_of
from raypipe.data.formats.datasource import read_group
from raypipe.data.table.marks import BAD, refuse_bad
from raypipe.data.table.one_type import MixedTypes, as_text
from raypipe.errors import DataError
from raypipe.spec.data import DataSpec
from raypipe.spec.sources import CsvSource, JsonlSource
from tests.unit.data.helpers import check, reader, sized_file, source_file

NUM_ROWS = 20_000
DTYPES = {"age": "int64", "pay": "float64", "city": "string", "y": "int64"}

CSV_POISON = [
    b"abc,1.5,x,0",
    b"1,high,x,0",
    b"1,1.5,x",
    b"1,1.5,x,0,9",
    b"1,1.5,\xff\xfe,0",
    b"1,1.5," + b"x" * 5000 + b",0",
    b"99999999999999999999,1.5,x,0",
    b"1,inf,x,0",
    b"1,,x,0",
    b"1,1.5,x,maybe",
]
JSON_POISON = [
    b'{"age": "abc", "pay": 1.5, "city": "x", "y": 0}',
    b'{"age": 1, "pay": true, "city": "x", "y": 0}',
    b'{"age": 1, "pay": 1.5, "city": 5, "y": 0}',
    b'{"age": 1, "pay": 1.5, "city": "x", "y": 0',
    b'[1, 1.5, "x", 0]',
    b"no json",
    b'{"age": 1.5, "pay": 1.5, "city": "x", "y": 0}',
    b'{"age": 1, "pay": NaN, "city": "x", "y": 0}',
    b'{"age": 1, "pay": null, "city": "x", "y": 0}',
    b'{"age": 1, "pay": 1.5, "city": "\xff", "y": 0}',
    b'{"age": 1, "pay": 1.5, "city": "' + b"x" * 5000 + b'", "y": 0}',
    b'{"age": 1, "age": 2, "pay": 1.5, "city": "x", "y": 0}',
    b'{"age": ' + b"[" * 5000 + b"]" * 5000 + b', "pay": 1.5, "city": "x", "y": 0}',
]


@pytest.mark.parametrize("name", ["csv", "jsonl"])
def test_poisoned_rows_are_exactly_the_bad_ones(name, tmp_path):
    random = np.random.default_rng(7)
    poisoned = sorted(random.choice(NUM_ROWS, NUM_ROWS // 100, replace=False).tolist())
    poison = CSV_POISON if name == "csv" else JSON_POISON
    lines = []
    for i in range(NUM_ROWS):
        row = {"age": i, "pay": i / 4, "city": f"c{i % 7}", "y": i % 2}
        lines.append((json.dumps(row) if name == "jsonl" else ",".join(map(str, row.values()))).encode())
    for number, i in enumerate(poisoned):
        lines[i] = poison[number % len(poison)]
    (tmp_path / "f").write_bytes(b"\n".join([*([b"age,pay,city,y"] if name == "csv" else []), *lines]) + b"\n")

    read = reader(name, dtypes=DTYPES, max_row_bytes=4096)
    (table,) = read_group([sized_file(tmp_path / "f")], read, None)
    spec = DataSpec.model_validate({"source": {"format": name, "path": "f"}, "target": "y"})
    values, bad = check(table, schema_of(spec, [types_of(table)]))
    assert [row["position"] for row in bad.kept] == poisoned and bad.num_rows == len(poisoned)
    good = np.delete(np.arange(NUM_ROWS), poisoned)
    assert values["age"].tolist() == good.tolist() and values["pay"].tolist() == (good / 4).tolist()
    assert all(row["reason"] for row in bad.kept)


def test_reason_names_the_file_the_column_the_value_and_the_type(tmp_path):
    (tmp_path / "f.csv").write_text("age,y\n1,0\nabc,1\n2\n,1\n")
    (table,) = reader("csv", dtypes={"age": "int64"})(source_file(tmp_path / "f.csv"))
    assert table[BAD].to_pylist() == [
        None,
        "f.csv: 'age' is 'abc', which is no int64",
        "f.csv: the row has 1 values, the header 2",
        None,
    ]
    assert table["age"].to_pylist() == [1, None, None, None]


@pytest.mark.parametrize(
    ("dtype", "good", "wrong"),
    [
        ("int8", ["-128", " 7 "], ["128", "1.0", "x"]),
        ("uint8", ["255"], ["-1", "256"]),
        ("float32", ["1e3", "-0.5", "7"], ["1,5", "x"]),
        ("bool", ["true", "false", "1", "0", "yes", "N"], ["yess", "2"]),
        ("string", ["007", "1.50", "true"], []),
    ],
)
def test_csv_value_is_read_as_declared_or_is_bad(dtype, good, wrong, tmp_path):
    (tmp_path / "f.csv").write_text("a;b\n" + "".join(f"{text};0\n" for text in [*good, *wrong]))
    (table,) = reader("csv", dtypes={"a": dtype}, delimiter=";")(source_file(tmp_path / "f.csv"))
    assert str(table["a"].type) == {"float32": "float"}.get(dtype, dtype)
    assert table["a"].null_count == len(wrong) and table["a"].slice(len(good)).null_count == len(wrong)
    if dtype == "string":
        assert table["a"].to_pylist() == good


def test_json_values_of_the_rarer_type_are_bad(tmp_path):
    rows = ['{"a": 1}'] * 5 + ['{"a": "x"}', '{"a": true}', '{"a": null}', "{}"]
    (tmp_path / "f.jsonl").write_text("\n".join(rows))
    (table,) = reader("jsonl")(source_file(tmp_path / "f.jsonl"))
    assert [row for row, why in enumerate(table[BAD].to_pylist()) if why] == [5, 6]
    assert table[BAD][5].as_py() == "f.jsonl: the row holds a wrong value: 'a' is \"x\", where most rows hold a number"


def test_dates_in_text_files_stay_the_text_that_was_written(tmp_path):
    (tmp_path / "f.csv").write_text("a\n2020-01-01T00:00:00Z\n2020-01-02T00:00:00Z\n")
    (tmp_path / "f.jsonl").write_text('{"a": "2020-01-01 00:00:00"}\n{"a": "2020-01-02 00:00:00"}\n')
    assert next(reader("csv")(source_file(tmp_path / "f.csv")))["a"][0].as_py() == "2020-01-01T00:00:00Z"
    assert next(reader("jsonl")(source_file(tmp_path / "f.jsonl")))["a"][0].as_py() == "2020-01-01 00:00:00"


def test_column_that_is_number_here_and_text_there_can_be_read_as_text():
    parts = {"a.csv": pa.table({"x": [7]}), "b.csv": pa.table({"x": ["one"]})}
    with pytest.raises(MixedTypes) as caught:
        list(read_group([source_file(name) for name in parts], lambda file: [parts[file.name]], None))
    assert caught.value.column == "x" and isinstance(caught.value, DataError)
    found = as_text(CsvSource(format="csv", path="*.csv"), "x")
    assert found is not None and found.dtypes == {"x": "string"}
    assert as_text(found, "x") is None and as_text(JsonlSource(format="jsonl", path="f"), "x") is None


def test_unread_rows_keep_their_reason_through_the_check_and_are_never_imputed():
    table = pa.table({"a": [1.0, None, None], "y": [0, 1, 1], BAD: [None, None, "f: no row"]})
    fields = {"transforms": [{"kind": "impute", "columns": ["a"]}], "target": "y"}
    spec = DataSpec.model_validate({"source": {"format": "csv", "path": "f"}, **fields})
    schema = schema_of(spec, [types_of(table)])
    values, bad = check(table, schema)
    assert schema.features == ("a",) and values["a"].tolist()[0] == 1.0 and len(values["a"]) == 2
    assert [(row["position"], row["reason"]) for row in bad.kept] == [(2, "f: no row")]


def test_rows_that_must_all_be_read_stop_with_the_first_reason():
    table = pa.table({"a": [1, None], BAD: [None, "f: no row"]})
    with pytest.raises(DataError, match=r"1 row\(s\) cannot be read: f: no row"):
        refuse_bad(table)
    assert refuse_bad(table.slice(0, 1)).to_pydict() == {"a": [1]}
