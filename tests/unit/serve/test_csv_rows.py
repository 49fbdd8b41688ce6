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
from raypipe.model.predictions import Predictions
from raypipe.model.tasks import task_of
from raypipe.records import Column, LabelSets, Reading, Signature
from raypipe.serve import csv_rows
from raypipe.serve.checker import Checker
from tests.conftest import examples
from tests.unit.data.helpers import reader, source_file

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


@settings(max_examples=examples(200))
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


def test_labels_of_one_cell_are_told_apart_whatever_they_hold():
    classes = ("a", "b;c", 'd "e"', "f,g")
    signature = Signature(
        inputs=(Column(name="x", dtype="float64"),),
        task="multi_label",
        target="y",
        classes=classes,
        label_sets=LabelSets(separator="|", threshold=0.5),
    )
    values = np.array([[1, 1, 1, 1], [0, 0, 0, 0], [1, 0, 0, 1]], np.float32)
    lines = csv_rows.written(Predictions(classes, values), task_of(signature)).decode()
    cells = [row[0] for row in csv.reader(io.StringIO(lines))]
    assert [next(csv.reader([cell], delimiter=";"), []) for cell in cells] == [[*classes], [], ["a", "f,g"]]
    assert cells[2] == "a;f,g"


# --- written as the training data was --------------------------------------------------------------------------------

GERMAN = {
    "delimiter": ";",
    "decimal_point": ",",
    "thousands": ".",
    "signs": {"price": "€"},
    "dtypes": {"price": "float64", "ok": "bool", "at": "time", "n": "int64"},
    "date_format": {"day": "%d.%m.%Y"},
    "null_values": ["", "k.A."],
}
INPUTS = (
    Column(name="n", dtype="int64"),
    Column(name="price", dtype="float64", nullable=True),
    Column(name="day", dtype="string"),
    Column(name="ok", dtype="bool"),
    Column(name="at", dtype="float64"),
)


def learned(settings, inputs=INPUTS):
    return Signature(inputs=inputs, task="regression", target="y", reading=Reading(format="csv", settings=settings))


def values_of(body: str, signature: Signature) -> dict[str, list[object]]:
    read, _ = csv_rows.read(body.encode(), signature, Checker(signature, 10))
    return {name: values.tolist() for name, values in read.items()}


LINES = ("1;1.234,50 €;31.01.2024;ja;8:30", "-2;k.A.;1.2.2024;nein;23:59:30", "3;7 €;2024-03-01;true;0:00")


@pytest.mark.parametrize("point", [",", {"price": ","}])
@pytest.mark.parametrize("has_header", [True, False])
def test_a_body_divided_as_the_training_data_is_read_as_batch_inference_reads_it(tmp_path, has_header, point):
    settings = {**GERMAN, "decimal_point": point}
    names = [column.name for column in INPUTS]
    lines = [line.replace("2024-03-01", "01.03.2024") for line in LINES]
    (tmp_path / "f.csv").write_text("\n".join([";".join(names), *lines]) + "\n")
    (table,) = reader("csv", **settings)(source_file(tmp_path / "f.csv"))
    body = "\n".join([*([";".join(names)] if has_header else []), *lines])
    read = values_of(body, learned(settings))
    assert {name: [None if value != value else value for value in values] for name, values in read.items()} == {
        name: table[name].to_pylist() for name in names
    }


def test_a_body_of_machines_is_read_as_before_whatever_the_training_data_looked_like():
    body = "1,1234.5,2024-01-31,true,30600\n-2,,2024-02-01,false,86370\n"
    read = values_of(body, learned(GERMAN))
    assert read["n"] == [1, -2] and read["price"][0] == 1234.5 and read["at"] == [30600, 86370]
    assert read["ok"] == [True, False] and read["day"] == ["2024-01-31", "2024-02-01"]
    with pytest.raises(RequestError, match="row 0, field 'price': found '7 €'"):
        values_of("1,7 €,2024-01-31,true,30600\n", learned(GERMAN))


@pytest.mark.parametrize("cell", ["7.5", "7.50 €", "7,5 $", "7,5,5"])
def test_a_number_that_is_not_written_as_the_others_is_refused_and_never_read_by_another_rule(cell):
    with pytest.raises(RequestError, match=r"row 0, field 'price'"):
        values_of(f"1;{cell};31.01.2024;ja;8:30", learned(GERMAN))


def test_with_commas_between_cells_numbers_may_have_their_signs_and_words_their_meaning():
    settings = {"thousands": ",", "signs": {"price": "$"}, "dtypes": {"price": "float64", "ok": "bool", "at": "time"}}
    body = '1,"$1,234.50",2024-01-31,yes,8:30 AM\n2,1234.5,x,f,30600\n'
    read = values_of(body, learned(settings))
    assert read["price"] == [1234.5, 1234.5] and read["ok"] == [True, False] and read["at"] == [30600, 30600]


def test_text_that_looks_like_another_value_stays_text():
    signature = learned(GERMAN, (Column(name="a", dtype="string"), Column(name="day", dtype="string")))
    assert values_of("1.234,5 €;soon\nja;31.01.2024\n", signature) == {
        "a": ["1.234,5 €", "ja"],
        "day": ["soon", "2024-01-31"],
    }


def test_words_for_true_are_those_of_columns_that_were_read_so():
    with pytest.raises(RequestError, match=r"field 'ok': found 'ja'"):
        values_of("1;2 €;31.01.2024;ja;8:30", learned({**GERMAN, "dtypes": {"at": "time"}}))
