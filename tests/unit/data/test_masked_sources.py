"""Sources with masked columns: what is read as what, and what a message may tell."""

from __future__ import annotations

import json
from functools import partial
from typing import Any

import pyarrow as pa
import pytest
from PIL import Image
from pydantic import ValidationError

from raypipe.data.checks.schema import schema_of, types_of
from raypipe.data.formats import FORMATS, csv, jsonl, lines
from raypipe.data.formats.datasource import read_group
from raypipe.data.formats.labels import rows_of
from raypipe.data.masking import REDACTED, Masking, read_keys
from raypipe.data.shuffle.read_all import as_read, refuse_absent
from raypipe.data.sources.files import find
from raypipe.data.sources.listing import list_files
from raypipe.data.sources.place import changed
from raypipe.data.table.marks import absent
from raypipe.data.table.names import MissingColumn
from raypipe.data.table.one_type import read_as_mixed
from raypipe.errors import DataError
from raypipe.spec.data import DataSpec
from raypipe.spec.sources import Condition, JsonlSource

KEY = {"MASKING_KEY": "0123456789abcdef0123456789abcdef"}


def spec(tmp_path, file_format="csv", path=".", method="hash", **fields) -> Any:
    mask = {"columns": ["who"], "method": method, **({"key_env": "MASKING_KEY"} if method in ("hash",) else {})}
    source = {"format": file_format, "path": path, **fields.pop("source", {})}
    values = {"root": str(tmp_path), "source": source, "target": "y", "masking": [mask], **fields}
    return DataSpec.model_validate(values)


def read(data: Any) -> list[pa.Table]:
    """All rows, each block a table, without Ray."""
    source: Any = as_read(data.source, data)
    form: Any = FORMATS[source.format]
    masking = Masking(data.masking, read_keys(data.masking, KEY))
    parts, reader = form.plan(source, data.root, masking, is_judged=True)
    groups = [read_group([part], reader, source.columns, source.where, masking, is_judged=True) for part in parts]
    return [table for group in groups for table in group]


def column(tables, name):
    return [value for table in tables for value in table[name].to_pylist()]


# --- equal values stay equal


def test_masked_ids_of_csv_are_equal_where_they_were_whatever_stands_beside_them(tmp_path):
    long = "123456789012345678901234"
    (tmp_path / "a.csv").write_text(f"who,y\n007,1\n{long},2\n")
    (tmp_path / "b.csv").write_text("who,y\n007,1\nB7,2\n")
    (tmp_path / "c.csv").write_text(f"who,y\n007,1\n7,2\n{long[:-1]}5,3\n{long},4\n")
    who = column(read(spec(tmp_path)), "who")
    assert who[0] == who[2] == who[4] != who[5]
    assert who[1] == who[7] != who[6]


def test_declared_type_of_a_masked_column_is_kept(tmp_path):
    (tmp_path / "a.csv").write_text("who,y\n007,1\n7,2\n")
    first, second = column(read(spec(tmp_path, source={"dtypes": {"who": "int64"}})), "who")
    assert first == second


@pytest.mark.parametrize("value", [10, True, [1, 2]])
def test_condition_that_compares_a_masked_id_of_csv_with_no_text_is_refused_before_anything_is_read(value, tmp_path):
    (tmp_path / "a.csv").write_text("who,y\n5,1\n10,2\n")
    where = [{"column": "who", "op": "in" if isinstance(value, list) else "==", "value": value}]
    with pytest.raises(ValidationError, match="method: hash reads 'who' of CSV as text, but a `where` does not"):
        spec(tmp_path, source={"where": where})
    assert spec(tmp_path, "jsonl", source={"where": where})
    assert spec(tmp_path, method="redact", source={"where": where})


def test_condition_on_a_masked_id_of_csv_compares_text_or_what_was_declared(tmp_path):
    (tmp_path / "a.csv").write_text("who,y\n5,1\n10,2\n")
    text = {"where": [{"column": "who", "op": "==", "value": "10"}, {"column": "who", "op": "not_null"}]}
    number = {"where": [{"column": "who", "op": ">", "value": 5}], "dtypes": {"who": "int64"}}
    for source in (text, number):
        assert column(read(spec(tmp_path, source=source)), "y") == [2]


# --- messages


def test_csv_without_a_header_does_not_show_the_person_in_it(tmp_path):
    (tmp_path / "a.csv").write_text("Ada Lovelace,1815-12-10,whom\nCharles Babbage,1791-12-26,x\n")
    options: list[dict[str, Any]] = [{}, {"columns": ["who", "y"]}, {"dtypes": {"y": "int64"}}]
    for source in options:
        with pytest.raises(MissingColumn, match=r": column '(who|y)' is not there; .*it has 3") as caught:
            read(spec(tmp_path, source=source))
        assert "Ada" not in str(caught.value) and "whom" not in str(caught.value)


def test_source_that_changes_is_told_as_such_with_masks(tmp_path):
    (tmp_path / "a.csv").write_text("who,y\nx,1\n")
    data = spec(tmp_path)
    masking = Masking(data.masking, read_keys(data.masking, KEY))

    def reader(part):
        del part
        raise changed("a.csv", "was written to")

    with pytest.raises(DataError, match="was written to while this run read it"):
        list(read_group(find(".", str(tmp_path), (".csv",)), reader, None, (), masking))


def test_method_that_cannot_mask_arrays_is_told_with_the_remedy(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"who": [1, 2], "y": 1}\n')
    with pytest.raises(DataError, match=r"'who' holds list of int64.*\ntry: set method: drop or redact"):
        read(spec(tmp_path, "jsonl"))


def test_column_of_a_type_that_is_refused_is_told_with_its_type(tmp_path):
    with pa.OSFile(str(tmp_path / "a.arrow"), "wb") as sink:
        table = pa.table({"who": ["x"], "y": [1], "raw": [b"Ada"]})
        with pa.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table)
    data = spec(tmp_path, "arrow")
    with pytest.raises(DataError, match=r"column 'raw' has type binary") as caught:
        schema_of(data, [types_of(table) for table in read(data)])
    assert "Ada" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("labels.csv", "file,label\nada.png,1\nada.png,2\n"),
        ("labels.jsonl", '{"file": 1, "label": 1}\n{"file": 2, "label": 1}\n{"file": "ada.png", "label": 1}\n'),
    ],
)
def test_table_of_labels_does_not_show_the_names_of_masked_files(name, text, tmp_path):
    (tmp_path / "in").mkdir()
    Image.new("L", (2, 2)).save(tmp_path / "in" / "x.png")
    (tmp_path / name).write_text(text)
    fields = {"label": {"path": name}}
    mask = {"columns": ["file"], "method": "redact"}
    data: Any = DataSpec.model_validate(
        {"source": {"format": "images", "path": "in", **fields}, "target": "label", "masking": [mask]}
    )
    masking = Masking(data.masking, read_keys(data.masking, {}))
    with pytest.raises(DataError, match=r"labels\.(csv|jsonl) cannot be read") as caught:
        rows_of(data.source, str(tmp_path), masking)
    assert "ada" not in str(caught.value)
    with pytest.raises(DataError, match="ada"):
        rows_of(data.source, str(tmp_path))


# --- rare fields


@pytest.fixture
def chunks(tmp_path, monkeypatch):
    """Writes JSON lines that are read in chunks of a few rows."""
    for name in ("CHUNK_BYTES", "LOOK_BYTES"):
        monkeypatch.setattr(lines, name, 64)

    def write(rows, name="a.jsonl"):
        (tmp_path / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
        return tmp_path

    return write


ROWS = [{"y": i, "note": "n" * 20, **({"who": "Ada"} if i == 17 else {})} for i in range(40)]


@pytest.mark.parametrize(("method", "found"), [("redact", REDACTED), ("drop", None)])
def test_masked_field_that_few_lines_have_is_masked_wherever_the_file_is_cut(method, found, chunks):
    tables = read(spec(chunks(ROWS), "jsonl", method=method))
    assert len(tables) > 1 and column(tables, "y") == list(range(40))
    who = [table["who"].to_pylist() if "who" in table.column_names else [None] * len(table) for table in tables]
    assert [value for some in who for value in some][17] == found and b"Ada" not in str(tables).encode()


def test_condition_on_a_field_that_few_lines_have_chooses_rows_wherever_the_file_is_cut(chunks):
    root = chunks(ROWS)
    for op, rows in (("is_null", [i for i in range(40) if i != 17]), ("not_null", [17])):
        data = spec(root, "jsonl", source={"where": [{"column": "who", "op": op}]}).model_copy(update={"masking": []})
        assert column(read(data), "y") == rows


@pytest.mark.parametrize("method", ["redact", "drop", "hash"])
def test_masked_field_that_no_line_has_is_refused_and_no_other_is_named(method, chunks):
    data = spec(chunks([{"y": 1, "email": "Ada", "note": "n" * 20}] * 40), "jsonl", method=method)
    with pytest.raises(MissingColumn, match=r"data\.source: column 'who' is not there") as caught:
        refuse_absent([types_of(table) for table in read(data)], "source", data)
    assert "email" not in str(caught.value)


def test_condition_on_a_field_that_no_line_has_is_refused_with_the_near_one(chunks):
    where = {"where": [{"column": "nots", "op": "is_null"}]}
    data = spec(chunks(ROWS), "jsonl", source=where).model_copy(update={"masking": []})
    with pytest.raises(MissingColumn, match=r"data\.source: column 'nots' is not there, did you mean 'note'"):
        refuse_absent([types_of(table) for table in read(data)], "source", data)


def test_field_that_one_block_has_is_there(chunks):
    data = spec(chunks(ROWS), "jsonl", method="drop")
    refuse_absent([types_of(table) for table in read(data)], "source", data)


def test_field_that_one_of_several_small_files_has_is_there(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"y": 1}\n{"y": 2, "who": "Ada"}\n')
    (tmp_path / "b.jsonl").write_text('{"y": 3}\n')
    for method, who in (("redact", [None, REDACTED, None]), ("hash", None), ("drop", None)):
        data = spec(tmp_path, "jsonl", method=method)
        tables = read(data)
        refuse_absent([types_of(table) for table in tables], "source", data)
        assert column(tables, "y") == [1, 2, 3] and (who is None or column(tables, "who") == who)
    (tmp_path / "a.jsonl").write_text('{"y": 1}\n')
    with pytest.raises(MissingColumn, match=r"data\.source: column 'who' is not there"):
        refuse_absent([types_of(table) for table in read(data)], "source", data)


def test_field_of_rows_that_a_condition_leaves_out_is_there(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"y": 1}\n')
    (tmp_path / "b.jsonl").write_text('{"y": 2, "who": "Ada"}\n')
    source: Any = JsonlSource(format="jsonl", path=".", where=[Condition(column="who", op="is_null")])
    reader = partial(jsonl.read_file, source=source, is_judged=True)
    (table,) = read_group(list_files(source, str(tmp_path)), reader, None, source.where)
    assert table["y"].to_pylist() == [1] and not absent(table.schema)


def test_small_file_without_a_named_field_is_refused_where_nobody_judges_the_whole_source(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"y": 1, "who": "Ada"}\n')
    (tmp_path / "b.jsonl").write_text('{"y": 2}\n')
    source = JsonlSource(format="jsonl", path=".", columns=["who", "y"])
    parts, reader = FORMATS["jsonl"].plan(source, str(tmp_path))
    with pytest.raises(MissingColumn, match=r"b\.jsonl: column 'who' is not there"):
        list(read_group(parts, reader, source.columns))
    parts, reader = FORMATS["jsonl"].plan(source, str(tmp_path), is_judged=True)
    (table,) = read_group(parts, reader, source.columns)
    assert table["who"].to_pylist() == ["Ada", None]


# --- files with different columns


def test_declared_column_that_only_one_of_the_files_has_is_read_as_declared(tmp_path):
    (tmp_path / "a.csv").write_text("y\n1\n")
    (tmp_path / "b.csv").write_text("y,zip\n1,007\n")
    data = spec(tmp_path, source={"dtypes": {"zip": "string"}}).model_copy(update={"masking": []})
    csv.refuse_undeclared(list_files(data.source, data.root), data.source)
    first, second = read(data)
    assert first.column_names == ["y"] and second["zip"].to_pylist() == ["007"]


def test_declared_column_that_none_of_the_files_has_is_refused(tmp_path):
    for name in ("a.csv", "b.csv"):
        (tmp_path / name).write_text("y,zip\n1,007\n")
    data = spec(tmp_path, source={"dtypes": {"zop": "string"}})
    found = list_files(data.source, data.root)
    with pytest.raises(MissingColumn, match=r"'zop' is not there, did you mean 'zip'"):
        csv.refuse_undeclared(found, data.source)
    masking = Masking(data.masking, read_keys(data.masking, KEY))
    with pytest.raises(MissingColumn, match=r"'zop' is not there; it has 2 columns") as caught:
        csv.refuse_undeclared(found, data.source, masking)
    assert "zip" not in str(caught.value)


def test_column_that_is_read_again_as_text_need_not_be_in_every_source(tmp_path):
    (tmp_path / "a.csv").write_text("y\n1\n")
    data = spec(tmp_path, path="a.csv", source={"dtypes": {"zop": "string"}})
    found = list_files(data.source, data.root)
    mixed: Any = read_as_mixed(data.source, "note")
    with pytest.raises(MissingColumn, match=r"a\.csv: column 'zop' is not there"):
        csv.refuse_undeclared(found, mixed)
    mixed = read_as_mixed(mixed.model_copy(update={"dtypes": {"note": "string"}}), "more")
    csv.refuse_undeclared(found, mixed)
    assert mixed.dtypes == {"note": "string", "more": "string"} and read_as_mixed(mixed, "note") is None
