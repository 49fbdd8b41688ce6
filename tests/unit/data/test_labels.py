"""Labels and other columns of files: from their names, from a table, from files beside them."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
from pydantic import ValidationError

from raypipe.data.checks.schema import schema_of, types_of
from raypipe.data.formats.folders import Decoded, FileRows, RowReader
from raypipe.data.formats.labels import rows_of
from raypipe.data.table.marks import BAD, notes_of
from raypipe.errors import DataError
from raypipe.spec.data import DataSpec
from tests.unit.data.helpers import source


def put(folder, *names, **contents):
    for name in names:
        path = folder / "in" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    for name, text in contents.items():
        (folder / name.replace("__", "/").replace("_", ".")).write_text(text)


def read(folder, label, path: str | list[str] = "in"):
    """What is read of empty pictures, without Ray."""
    spec = source("images", path=path, label=label)
    notes = {}
    rows = rows_of(spec, str(folder), notes=notes)
    reader = RowReader("image", (1,), "uint8", lambda data: Decoded(np.array([len(data)])))
    (table,) = reader(FileRows(tuple(rows), spec.label, notes))
    return table.drop_columns(["image"])


def test_regex_takes_labels_and_columns_from_names_and_paths(tmp_path):
    put(tmp_path, "ann/7_a.png", "bob/0_b.png")
    assert read(tmp_path, {"from": "filename", "regex": "^([0-9])_"})["label"].to_pylist() == ["7", "0"]
    both = read(tmp_path, {"from": "path", "regex": r"^(?P<speaker>[^/]+)/(?P<label>\d)_"})
    assert both.to_pydict() == {
        "label": ["7", "0"],
        "speaker": ["ann", "bob"],
        "file": ["ann/7_a.png", "bob/0_b.png"],
    }
    only = read(tmp_path, {"from": "path", "regex": "^(?P<speaker>[^/]+)/"})
    assert only["label"].to_pylist() == [None, None] and only["speaker"].to_pylist() == ["ann", "bob"]


def test_regex_that_matches_some_files_alone_is_refused_with_examples_and_counts(tmp_path):
    put(tmp_path, "1_a.png", *(f"x{i}.png" for i in range(5)))
    expected = "matches 1 of 6 files; it does not match 'x0.png', 'x1.png', 'x2.png' and 2 more"
    with pytest.raises(DataError, match=re.escape(expected)):
        read(tmp_path, {"from": "filename", "regex": "^([0-9])_"})


@pytest.mark.parametrize(
    ("regex", "message"),
    [
        ("^[0-9]_", "has no group"),
        ("([0-9])_([a-z])", "has 2 groups; name those that are columns"),
        ("(?P<label>[0-9])_([a-z])", "has 2 groups"),
        ("([0-9]", "is no regular expression: missing )"),
        ("(?P<file>.)", "names a group `file`"),
    ],
)
def test_regex_that_cannot_tell_a_label_is_refused(regex, message):
    with pytest.raises(ValidationError, match=re.escape(message)):
        source("images", label={"from": "filename", "regex": regex})


TABLE = "file,label,speaker,age,day\na.png,x,ann,31,2024-01-31\nb.png,y,bob,,2024-02-01\n"


def test_further_columns_of_a_table_are_columns_for_features_target_weights_and_splits(tmp_path):
    put(tmp_path, "a.png", "b.png", labels_csv=TABLE)
    table = read(tmp_path, {"path": "labels.csv"})
    assert table.to_pydict() == {
        "label": ["x", "y"],
        "speaker": ["ann", "bob"],
        "age": [31, None],
        "day": ["2024-01-31", "2024-02-01"],
        "file": ["a.png", "b.png"],
    }
    spec = {"source": {"format": "images", "path": "in"}, "target": "label"}
    grouped = {"kind": "grouped", "group": ["speaker"]}
    data = DataSpec.model_validate({**spec, "split": grouped})
    table = table.append_column("image", table["age"])
    assert schema_of(data, [types_of(table)]).features == ("image",)
    data = DataSpec.model_validate({**spec, "target": "age", "task": "regression", "features": ["image", "speaker"]})
    assert schema_of(data, [types_of(table)]).features == ("image", "speaker")


NAMES = {
    "as they are": ("d/a.png", "e/b.png"),
    "without suffix": ("d/a", "e/b"),
    "without folders": ("a.png", "b.png"),
    "without either": ("a", "b"),
}


@pytest.mark.parametrize("names", NAMES.values(), ids=NAMES)
def test_table_names_files_in_one_of_the_usual_ways(tmp_path, names):
    put(tmp_path, "d/a.png", "e/b.png", t_csv=f"id,kind\n{names[1]},07\n{names[0]},8\n")
    label = {"path": "t.csv", "file_column": "id", "label_column": "kind"}
    assert read(tmp_path, label)["label"].to_pylist() == ["8", "07"]


def test_name_that_is_that_of_several_files_is_refused(tmp_path):
    put(tmp_path, "d/a.png", "e/a.png", t_csv="file,label\na.png,x\n")
    with pytest.raises(DataError, match=re.escape("names 'a.png', which is 2 files: ['d/a.png', 'e/a.png']")):
        read(tmp_path, {"path": "t.csv"})


def test_table_that_names_no_file_says_how_both_are_named(tmp_path):
    put(tmp_path, "d/a.png", t_csv="file,label\n17,x\n")
    with pytest.raises(DataError, match=r"t\.csv names none of the 1 files .* like 'd/a\.png'.* names like '17'"):
        read(tmp_path, {"path": "t.csv"})


def test_files_that_a_table_does_not_name_are_bad_rows_or_left_out_and_counted(tmp_path):
    put(tmp_path, "a.png", "b.png", "c.png", "d.png", t_csv="file,label\na.png,x\nb.png,\nz.png,y\n")
    table = read(tmp_path, {"path": "t.csv"})
    assert table["file"].to_pylist() == ["a.png", "b.png", "c.png", "d.png", "z.png"]
    assert [why is None for why in table[BAD].to_pylist()] == [True, False, False, False, False]
    table = read(tmp_path, {"path": "t.csv", "unlabelled": "leave_out"})
    assert table["file"].to_pylist() == ["a.png", "b.png"] and table[BAD].null_count == 1
    assert list(notes_of(table.schema).items()) == [
        ("files are left out, as t.csv does not name them (data.source.label.unlabelled)", (2, "c.png")),
        ("rows of t.csv are left out, as there is no such file (data.source.label.unlabelled)", (1, "z.png")),
    ]


def test_table_without_labels_gives_columns_alone(tmp_path):
    put(tmp_path, "a.png", t_csv="file,age\na.png,3\n")
    with pytest.raises(DataError, match="column 'label' is not there"):
        read(tmp_path, {"path": "t.csv"})
    assert read(tmp_path, {"path": "t.csv", "label_column": None})["age"].to_pylist() == [3]
    put(tmp_path, t_csv="file,label,image\na.png,3,4\n")
    with pytest.raises(DataError, match="column 'image', which is one of the source itself"):
        read(tmp_path, {"path": "t.csv"})


def test_files_beside_hold_one_line_each(tmp_path):
    put(tmp_path, "d/a.png", "d/b.png", "c.png", "e.png", "f.png")
    put(tmp_path, in__d__a_txt="cat\n", in__d__b_txt="dog\nbird\n", in__e_txt=" \n", in__g_txt="x")
    (tmp_path / "in" / "f.txt").write_bytes(b"\xff")
    for path in ("in", "in/**/*.png", "in/**"):
        table = read(tmp_path, {"from": "sidecar"}, path)
        found = dict(zip(table["file"].to_pylist(), table["label"].to_pylist(), strict=True))
        told = dict(zip(table["file"].to_pylist(), table[BAD].to_pylist(), strict=True))
        assert found.pop("d/a.png") == "cat" and set(found.values()) == {None}
        assert told["c.png"] == "c.png: has no file 'c.txt' beside it"
        assert told["d/b.png"].endswith("b.txt has 2 lines, where one line is the label")
        assert told["e.png"].endswith("e.txt is empty, where one line is the label")
        assert told["f.png"].endswith("f.txt is no UTF-8 text")


def test_files_beside_and_tables_may_end_in_capitals(tmp_path):
    put(tmp_path, "a.PNG", "b.png", in__a_TXT="cat\n", in__b_Txt="dog\n")
    for path in ("in", "in/*.PNG", "in/*"):
        for suffix in (".txt", ".TXT"):
            assert read(tmp_path, {"from": "sidecar", "suffix": suffix}, path)["label"].to_pylist() == ["cat", "dog"]
    put(tmp_path, t_JSONL='{"file": "a.PNG", "label": "x"}\n{"file": "b.png", "label": "y"}\n')
    assert read(tmp_path, {"path": "t.JSONL"})["label"].to_pylist() == ["x", "y"]
    put(tmp_path, in__a_txt="owl\n")
    with pytest.raises(DataError, match=r"a\.TXT and in/a\.txt are both the label of one file"):
        read(tmp_path, {"from": "sidecar"})


def test_files_beside_hold_objects_whose_fields_are_columns(tmp_path):
    objects = {
        "a": {"class": "cat", "who": {"name": "ann"}, "age": 3, "tags": ["x"]},
        "b": {"class": "dog", "who": {"name": "bob"}, "age": 4.5, "tags": []},
        "c": {"class": "dog", "age": "old"},
    }
    put(tmp_path, *(f"{name}.png" for name in "abcde"))
    put(tmp_path, **{f"in__{name}_json": json.dumps(each, indent=1) for name, each in objects.items()})
    put(tmp_path, in__d_json="[1]", in__e_json='{"age": 5}')
    table = read(tmp_path, {"from": "sidecar", "suffix": ".json", "label_field": "class"})
    assert table["label"].to_pylist() == ["cat", "dog", "dog", None, None]
    assert table["who.name"].to_pylist()[:2] == ["ann", "bob"] and table["age"].to_pylist()[:2] == [3, 4.5]
    told = table[BAD].to_pylist()
    assert told[:2] == [None, None] and "'age' is \"old\", where most rows hold a number" in told[2]
    assert "d.json is no JSON object but [1]" in told[3] and told[4] is None


# --- tables as people write them -------------------------------------------------------------------------------------


def test_table_of_labels_is_recognised_as_a_source_is_and_told(tmp_path):
    put(tmp_path, "01.png", "02.png", t_csv="file;label;weight\n01;Köln;1,5\n02;Ulm;2\n")
    table = read(tmp_path, {"path": "t.csv"})
    assert table["label"].to_pylist() == ["Köln", "Ulm"] and table["weight"].to_pylist() == [1.5, 2.0]
    (note,) = notes_of(table.schema)
    assert note == 'table of labels is read so: recognised: delimiter: ";", decimal_point: ","'


def test_table_of_labels_takes_the_settings_that_messages_name(tmp_path):
    put(tmp_path, "a.png", "b.png")
    (tmp_path / "t.csv").write_bytes("title\nfile;label;d\na;Köln;03/04/2024\nb;Ulm;05/06/2024\n".encode("cp1252"))
    with pytest.raises(DataError, match="is no UTF-8 text") as caught:
        read(tmp_path, {"path": "t.csv"})
    assert "data.source.label.csv.encoding" in caught.value.hint
    with pytest.raises(DataError, match="is no header") as caught:
        read(tmp_path, {"path": "t.csv", "csv": {"encoding": "cp1252"}})
    assert caught.value.hint == "set data.source.label.csv.skip_lines: 1"
    settings = {"encoding": "cp1252", "skip_lines": 1}
    table = read(tmp_path, {"path": "t.csv", "csv": settings})
    assert table["label"].to_pylist() == ["Köln", "Ulm"]
    assert any("set data.source.label.csv.date_format: {d: ...}" in note for note in notes_of(table.schema))
    table = read(tmp_path, {"path": "t.csv", "csv": {**settings, "date_format": {"d": "%d/%m/%Y"}}})
    assert table["d"].to_pylist() == ["2024-04-03", "2024-06-05"]


def test_table_of_labels_without_header_is_named_by_a_list(tmp_path):
    put(tmp_path, "1.png", "2.png", t_csv="1,7\n2,8\n")
    with pytest.raises(DataError, match="holds values and not the names") as caught:
        read(tmp_path, {"path": "t.csv"})
    assert caught.value.hint == "set data.source.label.csv.header: the names of all 2 cells in order"
    table = read(tmp_path, {"path": "t.csv", "csv": {"header": ["file", "label"]}})
    assert table["label"].to_pylist() == ["7", "8"]
    for wrong in ({"path": "t.csv", "csv": {"header": False}}, {"path": "t.parquet", "csv": {"delimiter": ";"}}):
        with pytest.raises(ValidationError, match="csv"):
            read(tmp_path, wrong)


def test_settings_of_a_table_of_labels_are_part_of_what_a_data_set_is_where_they_are_given():
    plain, given = (source("images", label={"path": "t.csv", **more}) for more in ({}, {"csv": {"delimiter": ";"}}))
    assert "csv" not in plain.model_dump()["label"] and plain.fingerprint() != given.fingerprint()
    assert type(plain).model_validate(given.model_dump(mode="json")) == given


def test_words_of_a_table_of_labels_stay_as_they_are_written(tmp_path):
    put(tmp_path, "a.png", "b.png", t_csv="file,label,is_test\na,x,yes\nb,y,no\n")
    assert read(tmp_path, {"path": "t.csv"})["is_test"].to_pylist() == ["yes", "no"]


def test_rows_that_name_no_file_are_told_and_hide_no_file_that_is_named_twice(tmp_path):
    put(tmp_path, "a.png", t_csv="file,label\n,x\n,y\na,z\n")
    table = read(tmp_path, {"path": "t.csv"})
    assert table["label"].to_pylist() == ["z"]
    assert notes_of(table.schema) == {"rows of t.csv are left out, as they name no file in 'file'": (2, "")}
    put(tmp_path, t_csv="file,label\n,x\n,y\na,z\na,w\n")
    with pytest.raises(DataError, match="names the file 'a' twice"):
        read(tmp_path, {"path": "t.csv"})


def test_name_that_files_of_two_folders_have_is_refused(tmp_path):
    put(tmp_path, "one/a.png", "two/a.png", t_csv="file,label\na.png,x\n")
    with pytest.raises(DataError, match=r"names 'a\.png', which is 2 files"):
        read(tmp_path, {"path": "t.csv"}, path=["in/one", "in/two"])


def test_list_that_stands_for_a_label_is_a_bad_row(tmp_path):
    put(tmp_path, "a.png", "b.png", in__a_json='{"label": ["x", "y"]}', in__b_json='{"label": ["z"]}')
    told = read(tmp_path, {"from": "sidecar", "suffix": ".json"})[BAD].to_pylist()
    assert all("'label' is a list" in why for why in told)
