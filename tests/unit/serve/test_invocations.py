from __future__ import annotations

import csv
import io
import json
from typing import Any

import numpy as np
import pytest
from starlette.responses import Response

import raypipe
from raypipe.errors import RequestError
from raypipe.serve.app import ModelApp
from raypipe.serve.protocols.invocations import wanted
from raypipe.testing.served import ask

IMAGES = np.arange(24).reshape(2, 4, 3).tolist()
NAMES = ["age", "color"]
ROWS = [[33.5, "red"], [61, "green"]]
RECORDS = [dict(zip(NAMES, row, strict=True)) for row in ROWS]


def invoke(app: ModelApp, body: Any, path: str = "/invocations", **headers: str) -> Response:
    data = body.encode() if isinstance(body, str) else json.dumps(body).encode()
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return ask(app, "POST", path, data, headers=named)


def answered(response: Response) -> Any:
    assert response.status_code == 200, response.body
    return json.loads(bytes(response.body))


def refusal(response: Response) -> tuple[int, str]:
    error = json.loads(bytes(response.body))
    assert set(error) == {"error_code", "message"}
    return response.status_code, error["message"]


@pytest.mark.parametrize(
    "body",
    [
        {"dataframe_split": {"columns": NAMES, "index": [5, 6], "data": ROWS}},
        {"dataframe_split": {"columns": NAMES[::-1], "data": [row[::-1] for row in ROWS]}},
        {"dataframe_split": {"columns": [0, 1], "data": ROWS}},
        {"dataframe_split": {"data": ROWS}},
        {"dataframe_records": RECORDS},
        {"instances": RECORDS},
        {"inputs": {"age": [33.5, 61], "color": ["red", "green"]}},
        {"inputs": ROWS},
        {"instances": ROWS, "params": {}},
    ],
)
def test_every_form_of_a_table_gets_the_numbers_of_predict(body: Any, regressor: ModelApp):
    expected = answered(invoke(regressor, {"instances": RECORDS}, "/predict"))["predictions"]
    for path in ("/invocations", "/endpoints/prices/invocations"):
        assert answered(invoke(regressor, body, path)) == {"predictions": expected}


@pytest.mark.parametrize(
    "body",
    [
        {"inputs": IMAGES},
        {"inputs": {"image": IMAGES}},
        {"dataframe_split": {"columns": ["image"], "data": [[image] for image in IMAGES]}},
    ],
)
def test_every_form_of_a_tensor_gets_the_numbers_of_predict(body: Any, classifier: ModelApp):
    expected = answered(invoke(classifier, {"instances": IMAGES}, "/predict"))["predictions"]
    assert answered(invoke(classifier, body)) == {"predictions": expected}


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (RECORDS, "the body is a JSON list"),
        ({}, "exactly one of dataframe_split, dataframe_records, instances, inputs; found an empty object"),
        ({"instances": RECORDS, "inputs": {}}, "found instances and inputs"),
        ({"messages": []}, "found messages"),
        ({"instances": RECORDS, "params": {"temperature": 1}}, "'params' are not read here"),
        ({"dataframe_split": RECORDS}, "must be an object with 'columns' and a list 'data'; found a list of 2"),
        ({"dataframe_split": {"columns": NAMES, "data": ROWS, "rows": 1}}, "found 'rows'"),
        ({"dataframe_split": {"columns": ["age", 1], "data": ROWS}}, "must be a list of field names"),
        ({"dataframe_split": {"columns": ["age", "age"], "data": ROWS}}, "names 'age' twice"),
        ({"dataframe_split": {"columns": NAMES, "data": [ROWS[0], [1]]}}, "row 1: found a list of 1"),
        ({"dataframe_split": {"columns": NAMES, "data": []}}, "holds no row"),
        ({"dataframe_split": {"columns": ["age", "colour"], "data": ROWS}}, "field 'color' is missing"),
        ({"dataframe_split": {"columns": NAMES, "data": [[1, 2]]}}, "row 0, field 'color': found 2 (integer)"),
    ],
)
def test_another_body_is_refused_in_mlflows_words(body: Any, words: str, regressor: ModelApp):
    status, message = refusal(invoke(regressor, body))
    assert status == 400 and words in message


def test_csv_with_or_without_a_header_is_the_same_table(regressor: ModelApp):
    expected = answered(invoke(regressor, {"instances": RECORDS}))
    for text in (
        "33.5,red\n61,green\n",
        "age,color\n33.5,red\n61,green",
        'color,note,age\r\n"red","a, b",33.5\r\ngreen,,61\r\n',
    ):
        assert answered(invoke(regressor, text, content_type="text/csv; charset=utf-8")) == expected


def test_csv_of_a_tensor_has_one_cell_a_number(classifier: ModelApp):
    lines = "\n".join(",".join(str(pixel) for row in image for pixel in row) for image in IMAGES)
    assert answered(invoke(classifier, lines, content_type="text/csv")) == answered(
        invoke(classifier, {"inputs": IMAGES})
    )


def test_csv_answers_hold_the_same_numbers(classifier: ModelApp, regressor: ModelApp):
    response = invoke(regressor, {"instances": RECORDS}, accept="text/csv")
    assert response.media_type == "text/csv"
    numbers = [float(line) for line in bytes(response.body).decode().split()]
    assert numbers == answered(invoke(regressor, {"instances": RECORDS}))["predictions"]
    response = invoke(classifier, {"inputs": IMAGES}, accept="text/csv")
    for line, row in zip(
        csv.reader(io.StringIO(bytes(response.body).decode())),
        answered(invoke(classifier, {"inputs": IMAGES}))["predictions"],
        strict=True,
    ):
        assert line[0] == str(row["label"]) and [float(cell) for cell in line[1:]] == row["probabilities"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "holds no row"),
        ("age,color\n", "holds no row"),
        ("33.5,red\n61\n", "row 1: found 1 cells; expected 2 (age, color)"),
        ("age,colour\n1,red\n", "field 'color' is missing"),
        ("age,age,color\n1,1,red\n", "names field 'age' twice"),
        ("old,red\n", "row 0, field 'age': found 'old' (string); expected a number"),
        ("nan,red\n", "row 0, field 'age': found 'nan' (string)"),
        ("1_000,red\n", "row 0, field 'age': found '1_000' (string)"),
        ("1e999,red\n", "expected a finite number"),
        (",red\n", "row 0, field 'age': found '' (string)"),
        ('1,"red\n', "not valid CSV"),
    ],
)
def test_csv_that_is_no_table_of_the_model_is_refused(text: str, words: str, regressor: ModelApp):
    status, message = refusal(invoke(regressor, text, content_type="text/csv"))
    assert status == 400 and words in message


def test_csv_that_is_not_utf_8_is_refused(regressor: ModelApp):
    response = ask(
        regressor, "POST", "/invocations", "33,r\xe9d".encode("latin-1"), headers={"content-type": "text/csv"}
    )
    assert refusal(response) == (400, "the body is not UTF-8 at byte 4; send CSV as UTF-8")


def test_more_lines_than_rows_are_answered_are_refused(regressor: ModelApp):
    status, message = refusal(invoke(regressor, "1,red\n" * 21, content_type="text/csv"))
    assert status == 413 and "at most 20" in message


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        ("", "application/json"),
        ("*/*", "application/json"),
        ("text/csv", "text/csv"),
        ("text/html, text/csv;q=0.5, application/json;q=0.9", "application/json"),
        ("application/json;q=0, text/csv", "text/csv"),
        ("Text/CSV; header=present", "text/csv"),
    ],
)
def test_accept_chooses_the_answer(accept: str, kind: str):
    assert wanted(accept.encode()) == kind


@pytest.mark.parametrize("accept", ["application/x-npy", "application/json;q=0", "text/csv;q=many"])
def test_an_answer_that_nobody_writes_is_refused(accept: str, regressor: ModelApp):
    with pytest.raises(RequestError, match="names no type that is answered here"):
        wanted(accept.encode())
    assert refusal(invoke(regressor, {"instances": RECORDS}, accept=accept))[0] == 406


def test_version_is_plain_text(regressor: ModelApp):
    response = ask(regressor, "GET", "/version")
    assert (bytes(response.body).decode(), response.media_type) == (raypipe.__version__, "text/plain")


def test_endpoint_of_another_name_is_not_found(regressor: ModelApp):
    status, message = refusal(invoke(regressor, {"instances": RECORDS}, "/endpoints/price/invocations"))
    assert status == 404 and "did you mean /endpoints/prices/invocations" in message
